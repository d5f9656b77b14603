//! Looking at every byte, by one thread or by several.

use std::sync::{Arc, atomic::Ordering::Acquire};

use super::{
    Log, Shared,
    follow::Patience,
    view::{Slot, View},
};
use crate::{
    Backend, Offset, Report, Result, SegmentReport,
    error::Thin,
    segment::{Place, Segment},
};

impl<B: Backend> Log<B> {
    /// Checks every byte of every segment and changes nothing. Appends wait meanwhile.
    ///
    /// On a log opened read-only no one waits: each segment is looked at once, as it is then, from the lowest on.
    /// If a writer truncates or resets the log meanwhile, what is appended anew below where it has come to is not
    /// looked at.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) when a file cannot be read. Damage is in the report.
    pub fn verify(&self) -> Result<Report> {
        Ok(self.shared.verify(&mut OneByOne, &mut |_| {})?)
    }
}

#[cfg(not(target_family = "wasm"))]
impl<B: Backend> Log<B>
where
    Self: Sync,
{
    /// As [`Log::verify`], with at most `threads_max` segments looked at at once, each by a thread of its own, and
    /// tells `seen` of each one that was looked at, lowest first, as soon as those below it were. The report is the
    /// same. On a log opened read-only beside a writer that truncates it, some may be looked at, and told of, again.
    ///
    /// # Errors
    ///
    /// Those of [`Log::verify`].
    ///
    /// # Example
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let directory = directory.path();
    /// use std::{num::NonZero, thread};
    /// use proglog::{Log, Options};
    ///
    /// let log = Log::open(directory, Options::new())?;
    /// log.append("hello")?;
    /// let threads = thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    /// let report = log.verify_with(threads, |segment| println!("{} bytes", segment.store_bytes))?;
    /// assert!(report.is_sound());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn verify_with(
        &self,
        threads_max: std::num::NonZero<usize>,
        mut seen: impl FnMut(&SegmentReport),
    ) -> Result<Report> {
        match threads_max.get() {
            1 => Ok(self.shared.verify(&mut OneByOne, &mut seen)?),
            threads_max => {
                let log = self;
                Ok(self
                    .shared
                    .verify(&mut AtOnce { log, threads_max }, &mut seen)?)
            }
        }
    }
}

/// Who looks at segments.
trait Eyes<B: Backend> {
    /// How many of them it looks at at once.
    fn at_once(&self) -> usize;

    /// Looks at segments, and gives what it found to `take`, in their order, until that says to stop.
    fn look(
        &mut self,
        shared: &Shared<B>,
        segments: &[Looked],
        take: &mut dyn FnMut(usize, Thin<SegmentReport>) -> Thin<Then>,
    ) -> Thin<Then>;
}

/// A segment to look at.
type Looked = (Offset, Place);

/// What comes after a segment was looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    GoOn,
    /// What there is now is looked at instead.
    Again,
}

struct OneByOne;

impl<B: Backend> Eyes<B> for OneByOne {
    fn at_once(&self) -> usize {
        1
    }

    fn look(
        &mut self,
        shared: &Shared<B>,
        segments: &[Looked],
        take: &mut dyn FnMut(usize, Thin<SegmentReport>) -> Thin<Then>,
    ) -> Thin<Then> {
        for (at, segment) in segments.iter().enumerate() {
            if take(at, shared.look_at(segment))? == Then::Again {
                return Ok(Then::Again);
            }
        }
        Ok(Then::GoOn)
    }
}

#[cfg(not(target_family = "wasm"))]
struct AtOnce<'a, B: Backend> {
    log: &'a Log<B>,
    threads_max: usize,
}

#[cfg(not(target_family = "wasm"))]
impl<B: Backend> Eyes<B> for AtOnce<'_, B>
where
    Log<B>: Sync,
{
    fn at_once(&self) -> usize {
        self.threads_max
    }

    fn look(
        &mut self,
        _shared: &Shared<B>,
        segments: &[Looked],
        take: &mut dyn FnMut(usize, Thin<SegmentReport>) -> Thin<Then>,
    ) -> Thin<Then> {
        use std::{
            collections::BTreeMap,
            sync::{
                atomic::{AtomicUsize, Ordering::Relaxed},
                mpsc::channel,
            },
            thread,
        };

        let log = self.log;
        let next = AtomicUsize::new(0);
        let (found, looked) = channel();
        thread::scope(|scope| {
            for _ in 0..self.threads_max.min(segments.len()) {
                let (found, next) = (found.clone(), &next);
                let look_at_some = move || {
                    loop {
                        let at = next.fetch_add(1, Relaxed);
                        let Some(segment) = segments.get(at) else {
                            return;
                        };
                        if found.send((at, log.look_at(segment))).is_err() {
                            return;
                        }
                    }
                };
                // Where there can be no more threads, those there are do it all; this one, if there is none.
                let started = thread::Builder::new()
                    .name("proglog-verify".to_owned())
                    .spawn_scoped(scope, look_at_some);
                if started.is_err() {
                    break;
                }
            }
            drop(found);
            let mut waiting = BTreeMap::new();
            for at in 0..segments.len() {
                let result = loop {
                    if let Some(result) = waiting.remove(&at) {
                        break result;
                    }
                    match looked.recv() {
                        Ok((other, result)) => drop(waiting.insert(other, result)),
                        Err(_) => break log.look_at(&segments[at]),
                    }
                };
                let then = take(at, result);
                if !matches!(then, Ok(Then::GoOn)) {
                    next.store(segments.len(), Relaxed);
                    return then;
                }
            }
            Ok(Then::GoOn)
        })
    }
}

impl<B: Backend> Log<B> {
    #[cfg(not(target_family = "wasm"))]
    fn look_at(&self, segment: &Looked) -> Thin<SegmentReport> {
        self.shared.look_at(segment)
    }
}

impl<B: Backend> Shared<B> {
    fn verify(&self, eyes: &mut dyn Eyes<B>, seen: &mut dyn FnMut(&SegmentReport)) -> Thin<Report> {
        if self.read_only {
            self.verify_beside_writer(eyes, seen)
        } else {
            self.verify_ours(eyes, seen)
        }
    }

    fn look_at(&self, &(base, place): &Looked) -> Thin<SegmentReport> {
        Segment::verify(&self.backend, base, place, self.read_only, &self.options)
    }

    /// Checks every segment's files of a log that no one else writes.
    fn verify_ours(
        &self,
        eyes: &mut dyn Eyes<B>,
        seen: &mut dyn FnMut(&SegmentReport),
    ) -> Thin<Report> {
        let mut report = Report::default();
        let mut take = |found: Thin<SegmentReport>| {
            let found = found?;
            seen(&found);
            report.segments.push(found);
            Ok(Then::GoOn)
        };
        let view = self.view.load_full();
        let (active, sealed) = (view.active(), &view.slots()[..view.slots().len() - 1]);
        for some in sealed.chunks(eyes.at_once()) {
            // Nor is one sealed meanwhile, or its file would get shorter under it.
            let _leading = self.lead();
            let some: Vec<Looked> = some.iter().map(|slot| to_look_at(slot)).collect();
            eyes.look(self, &some, &mut |_, found| take(found))?;
        }
        let _leading = self.lead();
        // No append while the last segment is looked at, nor the end of a batch in the buffer, or its end would
        // seem torn.
        let mut writer = self.writer_anyway();
        if self.poison.get().is_none() && !self.closed.load(Acquire) {
            self.poison_if_failed(writer.active().write_out())?;
        }
        take(self.look_at(&to_look_at(active)))?;
        Ok(report)
    }

    /// Checks every segment's files, beside a writer.
    fn verify_beside_writer(
        &self,
        eyes: &mut dyn Eyes<B>,
        seen: &mut dyn FnMut(&SegmentReport),
    ) -> Thin<Report> {
        let mut report = Report::default();
        let mut patience = Patience::default();
        // All below it was looked at.
        let mut from = Offset(0);
        loop {
            let view = self.view.load_full();
            let is_done = |slot: &&Arc<Slot<B>>| slot.next.is_some_and(|next| next <= from);
            let done = view.slots().iter().take_while(is_done).count();
            let slots = &view.slots()[done..];
            let segments: Vec<Looked> = slots.iter().map(|slot| to_look_at(slot)).collect();
            let then = eyes.look(self, &segments, &mut |at, found| {
                if self.is_to_look_again(&view, &found, &mut patience)? {
                    return Ok(Then::Again);
                }
                let slot = &slots[at];
                if at == 0 {
                    // In place of what stood there.
                    report.segments.retain(|other| other.base < slot.base);
                }
                let found = found?;
                seen(&found);
                report.segments.push(found);
                from = slot.next.unwrap_or(from);
                patience = Patience::default();
                Ok(Then::GoOn)
            })?;
            if then == Then::GoOn {
                return Ok(report);
            }
        }
    }

    /// Whether what is wrong with a segment is that its files are others by now.
    fn is_to_look_again(
        &self,
        view: &Arc<View<B>>,
        found: &Thin<SegmentReport>,
        patience: &mut Patience,
    ) -> Thin<bool> {
        let failure = match found {
            Ok(found) if found.damage.is_empty() => return Ok(false),
            Ok(_) => None,
            Err(e) => Some(&**e),
        };
        self.is_to_try_again(view, failure, patience)
    }
}

fn to_look_at<B: Backend>(slot: &Slot<B>) -> Looked {
    let place = match slot.next {
        Some(next) => Place::Sealed { next },
        None => Place::Last,
    };
    (slot.base, place)
}
