//! Retention: the oldest segments go once the log is too large, or they are too old.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    Log, SegmentReader, Shared,
    view::{Slot, View},
};
#[cfg(doc)]
use crate::Options;
use crate::{Backend, Error, Offset, Result, Retention, error::Thin};

/// What retention has to know of a sealed segment, once it was looked up.
#[derive(Debug, Default)]
pub(super) struct Facts(Mutex<Known>);

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    store_bytes: Option<u64>,
    last: Option<Last>,
}

/// What the last record of a segment tells.
#[derive(Clone, Copy, Debug)]
enum Last {
    /// Its timestamp.
    Ms(u64),
    /// There is no record: all were compacted.
    None,
    /// No timestamp was found.
    Unknown,
}

impl Facts {
    /// It was written anew.
    pub(super) fn forget(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many records are looked at for one with a timestamp.
const RECORDS_READ_MAX: u32 = 64;

impl<B: Backend> Log<B> {
    /// Removes the segments that [`Options::retention`] is not for any more, lowest first, as
    /// [`Log::truncate_before`] does. It is done whenever a segment is full, by itself; but time passes also where
    /// nothing is appended.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]: while files are removed it poisons the log; [`Error::ReadOnly`], [`Error::Poisoned`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options, Retention};
    /// let week = std::time::Duration::from_secs(7 * 24 * 60 * 60);
    /// let retention = Retention::new().bytes_max(10 << 30).age_max(week);
    /// let log = Log::open_on(MemoryBackend::new(), Options::new().retention(retention))?;
    /// log.enforce_retention()?;
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn enforce_retention(&self) -> Result<()> {
        Ok(self.shared.enforce_retention()?)
    }

    /// As [`Log::enforce_retention`], with another retention than [`Options::retention`], and the time in milliseconds
    /// since 1970-01-01 UTC: none is what [`Options::clock`] tells.
    ///
    /// # Errors
    ///
    /// As [`Log::enforce_retention`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new().segment_bytes_max(100))?;
    /// use proglog::Retention;
    /// for n in 0..10 {
    ///     log.append(&format!("a record of some {n} bytes"))?;
    /// }
    /// log.enforce_retention_with(&Retention::new().bytes_max(200), None)?;
    /// let bytes: u64 = log.segments().iter().map(|segment| segment.store_bytes).sum();
    /// assert!(bytes <= 200 && log.lowest_offset() > Offset(0));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn enforce_retention_with(&self, retention: &Retention, now_ms: Option<u64>) -> Result<()> {
        Ok(self.shared.enforce_retention_with(retention, now_ms)?)
    }
}

impl<B: Backend> Shared<B> {
    /// Has what is to go removed: by the worker if there is one, now otherwise.
    pub(super) fn retain_soon(self: &Arc<Self>) -> Thin<()> {
        if self.options.retention.is_unlimited() || self.wake_worker(|wanted| wanted.retain = true)
        {
            return Ok(());
        }
        self.enforce_retention()
    }

    /// Removes the segments that are not to be kept.
    pub(super) fn enforce_retention(&self) -> Thin<()> {
        self.enforce_retention_with(&self.options.retention, None)
    }

    /// Removes the segments that by this are not to be kept.
    pub(super) fn enforce_retention_with(
        &self,
        retention: &Retention,
        now_ms: Option<u64>,
    ) -> Thin<()> {
        self.check_writable()?;
        if retention.is_unlimited() {
            return Ok(());
        }
        let now_ms = now_ms.or_else(|| self.options.clock.now_ms());
        // Mostly nothing is to go, and what has to be read for that keeps no one waiting.
        let view = self.view.load_full();
        if self.retained_from(&view, retention, now_ms)? <= view.lowest() {
            return Ok(());
        }
        let leading = self.lead();
        let mut writer = self.writer()?;
        let view = self.view.load_full();
        let from = self.retained_from(&view, retention, now_ms)?;
        if from > view.lowest() {
            let removed = self.remove_segments_before(&leading, &mut writer, from);
            self.poison_if_failed(removed)?;
        }
        Ok(())
    }

    /// The base of the first segment that is to be kept.
    fn retained_from(
        &self,
        view: &View<B>,
        retention: &Retention,
        now_ms: Option<u64>,
    ) -> Thin<Offset> {
        let slots = view.slots();
        let (active, sealed) = (slots.len() - 1, &slots[..slots.len() - 1]);
        let mut first = 0;
        if let Some(bytes_max) = retention.bytes_max {
            let active_bytes = slots[active]
                .reading()
                .as_ref()
                .map_or(0, |r| r.store_bytes());
            let mut bytes = active_bytes;
            for slot in sealed {
                bytes = bytes.saturating_add(self.store_bytes(slot)?);
            }
            while first < active && bytes > bytes_max {
                bytes -= self.store_bytes(&slots[first])?.min(bytes);
                first += 1;
            }
        }
        if let Some(age_max) = retention.age_max
            && let Some(now_ms) = now_ms
        {
            let is_too_old =
                |last_ms| Duration::from_millis(now_ms.saturating_sub(last_ms)) > age_max;
            for (n, slot) in slots[..active].iter().enumerate().skip(first) {
                match self.last(slot)? {
                    Last::Ms(last_ms) if is_too_old(last_ms) => first = n + 1,
                    // It goes with the next that is too old.
                    Last::None => {}
                    Last::Ms(_) | Last::Unknown => break,
                }
            }
        }
        Ok(slots[first].base)
    }

    fn store_bytes(&self, slot: &Arc<Slot<B>>) -> Thin<u64> {
        if let Some(known) = slot.facts.known().store_bytes {
            return Ok(known);
        }
        let ask = |segment: &SegmentReader<B::File>| Ok(segment.store_bytes());
        let found = self.ask(slot, ask, |known, bytes| known.store_bytes = Some(*bytes))?;
        Ok(found.unwrap_or(0))
    }

    fn last(&self, slot: &Arc<Slot<B>>) -> Thin<Last> {
        if let Some(known) = slot.facts.known().last {
            return Ok(known);
        }
        let found = self.ask(slot, last_of, |known, last| known.last = Some(*last))?;
        Ok(found.unwrap_or(Last::Unknown))
    }

    /// Asks a segment, if it is still there, and keeps in mind what it says.
    fn ask<T>(
        &self,
        slot: &Arc<Slot<B>>,
        ask: impl FnOnce(&SegmentReader<B::File>) -> Thin<T>,
        keep: impl FnOnce(&mut Known, &T),
    ) -> Thin<Option<T>> {
        let asked = self.open_segment(slot, false).and_then(|segment| {
            let found = ask(&segment)?;
            Ok((segment, found))
        });
        let (segment, found) = match asked {
            Err(e) if e.is_not_found() => {
                return Ok(None);
            }
            asked => asked?,
        };
        let mut known = slot.facts.known();
        // Unless it was written anew meanwhile.
        if slot
            .reading()
            .as_ref()
            .is_some_and(|now| Arc::ptr_eq(now, &segment))
        {
            keep(&mut known, &found);
        }
        Ok(Some(found))
    }
}

/// The timestamp of a segment's last record that has one. They never decrease, so it is the latest.
fn last_of<F: crate::BackendFile>(segment: &SegmentReader<F>) -> Thin<Last> {
    let mut end = segment.next_offset();
    let mut if_none = Last::None;
    for _ in 0..RECORDS_READ_MAX {
        if end <= segment.base() {
            return Ok(if_none);
        }
        let last = Offset(end.0 - 1);
        end = match segment.read(last).map(|record| record.timestamp_ms()) {
            Ok(Some(last_ms)) => return Ok(Last::Ms(last_ms)),
            Err(e) if let Error::Gap { first, .. } = *e => first,
            Err(e) if !e.is_corrupt() => return Err(e),
            Ok(None) | Err(_) => {
                if_none = Last::Unknown;
                last
            }
        };
    }
    Ok(Last::Unknown)
}
