//! The segments of a log as its readers see them, all at once.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::swap::{ArcSwap, ArcSwapOption, Guard};

use super::retain::Facts;
use crate::{
    Backend, Error, Offset, Options, SegmentSummary,
    error::{Boxed, Thin},
    segment::{Place, Segment, SegmentReader},
};

/// How many sealed segments are kept open for reading, where they are mapped: each takes two maps, of
/// which Linux gives a process 65,530.
const MAPPED_OPEN_MAX: usize = 16 << 10;
/// How many, where each takes two open files.
const FILES_OPEN_MAX: usize = 32;

/// The row of segments at one moment. A new one takes its place when a segment comes or goes.
#[derive(Debug)]
pub(super) struct View<B: Backend> {
    /// Their bases, to be searched.
    bases: Vec<Offset>,
    slots: Vec<Arc<Slot<B>>>,
}

/// A segment, open or not.
#[derive(Debug)]
pub(super) struct Slot<B: Backend> {
    pub(super) base: Offset,
    /// The base of the next segment; `None` for the last.
    pub(super) next: Option<Offset>,
    pub(super) facts: Facts,
    reader: ArcSwapOption<SegmentReader<B::File>>,
}

/// A segment that is open for as long as this is held.
pub(super) type Reading<B> = Guard<Option<Arc<SegmentReader<<B as Backend>::File>>>>;

impl<B: Backend> View<B> {
    /// Sealed segments of these bases, and an active one.
    pub(super) fn new(sealed: &[Offset], active: &Arc<SegmentReader<B::File>>) -> Self {
        let bases: Vec<Offset> = sealed.iter().copied().chain([active.base()]).collect();
        let slots = bases.windows(2).map(|pair| Slot::sealed(pair[0], pair[1]));
        Self {
            slots: slots.chain([Slot::active(active)]).collect(),
            bases,
        }
    }

    /// As this, and a new active segment after the last; between them a sealed one of this base, if there is one.
    pub(super) fn rolled(
        &self,
        between: Option<Offset>,
        active: &Arc<SegmentReader<B::File>>,
    ) -> Self {
        let mut slots = self.slots.clone();
        if let Some(last) = slots.last_mut() {
            *last = Arc::new(Slot {
                base: last.base,
                next: Some(between.unwrap_or(active.base())),
                facts: Facts::default(),
                reader: ArcSwapOption::new(last.reader.load_full()),
            });
        }
        slots.extend(between.map(|base| Slot::sealed(base, active.base())));
        slots.push(Slot::active(active));
        let bases = slots.iter().map(|slot| slot.base).collect();
        Self { bases, slots }
    }

    /// As this without the first `count` segments.
    pub(super) fn without_first(&self, count: usize) -> Self {
        Self {
            bases: self.bases[count..].to_vec(),
            slots: self.slots[count..].to_vec(),
        }
    }

    pub(super) fn bases(&self) -> &[Offset] {
        &self.bases
    }

    /// The bases of all but the last.
    pub(super) fn sealed_bases(&self) -> &[Offset] {
        &self.bases[..self.bases.len() - 1]
    }

    pub(super) fn slots(&self) -> &[Arc<Slot<B>>] {
        &self.slots
    }

    pub(super) fn active(&self) -> &Arc<Slot<B>> {
        &self.slots[self.slots.len() - 1]
    }

    pub(super) fn lowest(&self) -> Offset {
        self.bases[0]
    }

    /// The offset after the last record that readers are shown.
    #[inline]
    pub(super) fn next_offset(&self) -> Offset {
        let active = self.active();
        match &*active.reader.load() {
            Some(reader) => reader.next_offset(),
            None => active.base,
        }
    }

    /// The segment that an offset belongs to, if it is not below the lowest.
    #[inline]
    pub(super) fn slot_of(&self, offset: Offset) -> Option<&Arc<Slot<B>>> {
        let active = self.active();
        if offset >= active.base {
            return Some(active);
        }
        let after = self.bases.partition_point(|&base| base <= offset);
        self.slots.get(after.checked_sub(1)?)
    }

    /// The first segment that begins after an offset.
    pub(super) fn slot_after(&self, offset: Offset) -> Option<&Arc<Slot<B>>> {
        self.slots
            .get(self.bases.partition_point(|&base| base <= offset))
    }

    /// Whether this very slot is one of them.
    pub(super) fn has(&self, slot: &Arc<Slot<B>>) -> bool {
        self.slot_of(slot.base)
            .is_some_and(|found| Arc::ptr_eq(found, slot))
    }

    /// Shows readers no record from `next` on any more.
    pub(super) fn show_no_more(&self, next: Offset) {
        for slot in self
            .slots
            .iter()
            .rev()
            .take_while(|slot| slot.next.is_none_or(|end| end > next))
        {
            if let Some(reader) = &*slot.reading() {
                reader.show_no_more(next);
            }
        }
    }

    /// Shows readers nothing any more of the segments below `lowest`.
    pub(super) fn show_none_below(&self, lowest: Offset) {
        for slot in self.slots.iter().take_while(|slot| slot.base < lowest) {
            if let Some(reader) = &*slot.reading() {
                reader.show_no_more(Offset(0));
            }
        }
    }

    pub(super) fn out_of_range(&self, offset: Offset) -> Boxed {
        let (lowest, next) = (self.lowest(), self.next_offset());
        Boxed::from(Error::OffsetOutOfRange {
            offset,
            lowest,
            next,
        })
    }
}

impl<B: Backend> Slot<B> {
    fn sealed(base: Offset, next: Offset) -> Arc<Self> {
        Arc::new(Self {
            base,
            next: Some(next),
            facts: Facts::default(),
            reader: ArcSwapOption::empty(),
        })
    }

    fn active(reader: &Arc<SegmentReader<B::File>>) -> Arc<Self> {
        Arc::new(Self {
            base: reader.base(),
            next: None,
            facts: Facts::default(),
            reader: ArcSwapOption::new(Some(Arc::clone(reader))),
        })
    }

    /// The segment, if it is open. Without a lock.
    #[inline]
    pub(super) fn reading(&self) -> Reading<B> {
        self.reader.load()
    }

    /// Shows readers the active segment with an index that is right.
    pub(super) fn prove(&self, reader: &Arc<SegmentReader<B::File>>) {
        self.reader.store(Some(Arc::clone(reader)));
    }

    /// Forgets the open segment; it is opened again from its files when it is next read.
    pub(super) fn forget(&self) {
        self.reader.store(None);
    }
}

/// Which sealed segments were opened, oldest first.
#[derive(Debug)]
pub(super) struct OpenedSegments<B: Backend>(Mutex<VecDeque<Arc<Slot<B>>>>);

impl<B: Backend> Default for OpenedSegments<B> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<B: Backend> OpenedSegments<B> {
    /// Opens a sealed segment, or finds that another thread did. With `proven` its index is made anew
    /// unless it is known to be right. `view` is the one there is by now. Where `another_may_write`, its last segment
    /// tells whether the name still is this segment's.
    pub(super) fn open(
        &self,
        backend: &B,
        view: &ArcSwap<View<B>>,
        slot: &Arc<Slot<B>>,
        proven: bool,
        another_may_write: impl Fn() -> bool,
        options: &Options,
    ) -> Thin<Arc<SegmentReader<B::File>>> {
        let mut opened = self.lock();
        // Asked now that it cannot be closed meanwhile.
        let another_may_write = another_may_write();
        let last = view.load().active().reading();
        let listed_with = last.as_deref().filter(|_| another_may_write);
        // Who removes or cuts files holds it until the view is another. By then the segment is gone, or is the
        // active one, whose files are for the writer alone to open.
        if !view.load().has(slot) {
            let kind = io::ErrorKind::NotFound;
            return Err(Error::io("open", backend.name(), kind.into()));
        }
        if let Some(reader) = slot.reader.load_full()
            && (reader.is_proven() || !proven)
        {
            return Ok(reader);
        }
        let next = slot.next.unwrap_or(Offset(u64::MAX));
        let place = Place::Sealed { next };
        let open_as = |mend| {
            if proven {
                Segment::scan_files(backend, slot.base, place, mend, options)
            } else {
                Segment::recover(backend, slot.base, place, mend, options)
            }
        };
        // An index that is wrong is put right, if only in memory where it cannot be in the file.
        let open_files = || {
            if another_may_write {
                open_as(false)
            } else {
                open_as(true).or_else(|e| {
                    if e.is_not_yet() {
                        return Err(e);
                    }
                    open_as(false)
                })
            }
        };
        let found = match open_files() {
            Err(e) if matches!(*e, Error::Io { .. }) && !opened.is_empty() && !e.is_not_yet() => {
                // Perhaps the process may not have more files open.
                opened.drain(..).for_each(|slot| slot.forget());
                open_files()?
            }
            found => found?,
        };
        if let Some(last) = listed_with
            && last.is_removed()?
        {
            // By now the name may be another file's.
            return Err(Error::io(
                "open",
                backend.name(),
                io::ErrorKind::NotFound.into(),
            ));
        }
        let reader = Arc::clone(found.segment.reader());
        slot.reader.store(Some(Arc::clone(&reader)));
        let open_max = if reader.is_mapped() {
            MAPPED_OPEN_MAX
        } else {
            FILES_OPEN_MAX
        };
        if proven {
            opened.retain(|other| !Arc::ptr_eq(other, slot));
        }
        while opened.len() >= open_max {
            if let Some(oldest) = opened.pop_front() {
                oldest.forget();
            }
        }
        opened.push_back(Arc::clone(slot));
        Ok(reader)
    }

    /// Held while the log is closed, so that nothing is mended afterwards.
    pub(super) fn hold(&self) -> impl Sized + '_ {
        self.lock()
    }

    /// Has files put in the place of a segment's, while it is not opened, if it is still in the view there is by now; gives
    /// whether they were. Whoever reads it goes on with the old ones.
    pub(super) fn replace_files(
        &self,
        view: &ArcSwap<View<B>>,
        slot: &Arc<Slot<B>>,
        put_in_place: impl FnOnce() -> Thin<bool>,
    ) -> Thin<bool> {
        let mut opened = self.lock();
        if !view.load().has(slot) {
            return Ok(false);
        }
        opened.retain(|other| !Arc::ptr_eq(other, slot));
        let put = put_in_place();
        slot.forget();
        slot.facts.forget();
        put
    }

    /// Closes all. Held while files are removed or cut, so that none is opened meanwhile.
    pub(super) fn close(&self) -> impl Sized + '_ {
        let mut opened = self.lock();
        opened.drain(..).for_each(|slot| slot.forget());
        opened
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Slot<B>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn summary<B: Backend>(reader: &SegmentReader<B::File>) -> SegmentSummary {
    SegmentSummary {
        base: reader.base(),
        next: reader.next_offset(),
        store_bytes: reader.store_bytes(),
    }
}
