//! Reading: no lock, and no system call where files are mapped.

use std::{
    io,
    sync::{Arc, atomic::Ordering::Acquire},
};

use super::{
    Log, Segment, SegmentReader, Shared,
    append::Writer,
    follow::Patience,
    view::{Slot, View, summary},
};
use crate::{
    Backend, Damaged, Error, Frames, Location, Offset, Record, Result, SegmentSummary,
    error::{Boxed, Thin},
    segment::Place,
};
#[cfg(doc)]
use crate::{Gap, Options};

impl<B: Backend> Log<B> {
    /// Reads a record. Its checksum is verified, unless [`Options::verify`] says
    /// that once is enough.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] when the log does not hold this offset, [`Error::Gap`] when it is deliberately
    /// not there, [`Error::Corrupt`] when the record is damaged (others can be read), [`Error::Io`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Error, Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append("first")?;
    /// assert_eq!(log.read(Offset(0))?.value(), b"first");
    /// assert!(matches!(log.read(Offset(1)), Err(Error::OffsetOutOfRange { .. })));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    #[inline]
    pub fn read(&self, offset: Offset) -> Result<Record> {
        Ok(self.shared.read(offset)?)
    }

    /// Reads consecutive records from `from` on in one go: at least one, more as long as all are within
    /// `bytes_max` bytes of frames. It ends early before a damaged record and at the end of a segment, and
    /// is empty only where no record is at `from` or after it. Offsets that are [not there](Gap) are stepped over.
    ///
    /// # Errors
    ///
    /// Those of [`Log::read`], for the record at `from`, or the first one after it where that is not there.
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append_batch(["a", "b", "c"])?;
    /// let records: Vec<_> = log.read_batch(Offset(1), 1 << 20)?.collect::<Result<_, _>>().unwrap();
    /// assert_eq!(records.len(), 2);
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn read_batch(&self, from: Offset, bytes_max: usize) -> Result<Frames> {
        let read = self
            .shared
            .batch_from(from, |segment, from| segment.read_batch(from, bytes_max));
        Ok(read?.unwrap_or_default())
    }

    /// As [`Log::read_batch`], into `buffer`, and gives how many bytes of it the frames are: 0 only where there are no
    /// more records. For who reads again and again: the buffer grows where it has to, and is not cleared.
    ///
    /// # Errors
    ///
    /// Those of [`Log::read_batch`]. What the buffer holds is then undefined.
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Frames, Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append_batch(["a", "b", "c"])?;
    /// let mut buffer = Vec::new();
    /// let bytes = log.read_batch_into(Offset(1), 1 << 20, &mut buffer)?;
    /// assert_eq!(&buffer[..bytes], log.read_batch(Offset(1), 1 << 20)?.as_bytes());
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn read_batch_into(
        &self,
        from: Offset,
        bytes_max: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<usize> {
        let read = self.shared.batch_from(from, |segment, from| {
            segment.read_batch_into(from, bytes_max, buffer)
        });
        Ok(read?.unwrap_or_default())
    }

    /// Where a record stands: its segment, and the position in that segment's store.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`], [`Error::Io`]. A damaged record has a place too, and so has what tells that an
    /// offset is [not there](Gap).
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append_batch(["a", "b"])?;
    /// let (first, second) = (log.locate(Offset(0))?, log.locate(Offset(1))?);
    /// assert_eq!((first.segment, first.position), (Offset(0), 0));
    /// assert_eq!(second.position, log.read(Offset(0))?.frame().len() as u64);
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn locate(&self, offset: Offset) -> Result<Location> {
        let found = self.shared.in_segment(offset, |segment| {
            // Read first: only a record that was seen proves its entry.
            let gap = match segment.read(offset) {
                Err(e) if e.is_corrupt() && !segment.is_proven() => return Err(e),
                Err(e) => e.gap(),
                Ok(_) => None,
            };
            Ok(Location {
                segment: segment.base(),
                position: segment.position(offset)?,
                gap,
            })
        });
        match found {
            // The segment after it begins with that.
            Err(e) if let Some(gap) = e.gap() => {
                let view = self.shared.view.load();
                let after = view.slot_after(offset);
                Ok(Location {
                    segment: after.map_or(gap.next(), |slot| slot.base),
                    position: 0,
                    gap: Some(gap),
                })
            }
            found => Ok(found?),
        }
    }
}

impl<B: Backend> Shared<B> {
    #[inline]
    pub(super) fn read(&self, offset: Offset) -> Thin<Record> {
        let view = self.view.load();
        if let Some(slot) = view.slot_of(offset)
            && let Some(segment) = &*slot.reading()
            // Who asks whether there is more may do so often: one error is enough.
            && offset < segment.next_offset()
            && let Ok(record) = segment.read(offset)
        {
            return Ok(record);
        }
        drop(view);
        self.in_segment(offset, |segment| segment.read(offset))
    }

    /// Runs `read` on the segment of an offset. If it finds damage where the index was not proven, the
    /// index may be what is wrong: it is made anew, once. If a log opened read-only finds other files than it
    /// listed, it looks at what there is now.
    #[cold]
    pub(super) fn in_segment<T>(
        &self,
        offset: Offset,
        mut read: impl FnMut(&SegmentReader<B::File>) -> Thin<T>,
    ) -> Thin<T> {
        let mut patience = Patience::default();
        loop {
            let view = self.view.load_full();
            if offset < view.lowest() || offset >= view.next_offset() {
                if Arc::ptr_eq(&view, &self.view.load()) {
                    // Who asks whether there is more does not wait for it.
                    return Err(view.out_of_range(offset));
                }
                continue;
            }
            let found = self.in_view(&view, offset, &mut read);
            // Files that are being removed or cut just now are read in vain; then the log is another.
            match &found {
                Err(e) if self.is_to_try_again(&view, Some(e), &mut patience)? => {}
                _ => return found,
            }
        }
    }

    /// Reads records from an offset on, or from the first one after it where it is not there. `None`: there are no more.
    pub(super) fn batch_from<T>(
        &self,
        mut from: Offset,
        mut read: impl FnMut(&SegmentReader<B::File>, Offset) -> Thin<T>,
    ) -> Thin<Option<T>> {
        if from == self.view.load().next_offset() {
            return Ok(None);
        }
        loop {
            match self.in_segment(from, |segment| read(segment, from)) {
                Err(e) if let Error::Gap { next, .. } = *e => from = next,
                read => return read.map(Some),
            }
            if from >= self.view.load().next_offset() {
                return Ok(None);
            }
        }
    }

    /// The segments, as far as they can be opened.
    pub(super) fn segments(&self) -> Vec<SegmentSummary> {
        let mut patience = Patience::default();
        loop {
            let view = self.view.load_full();
            let mut failure = None;
            let summarize = |slot: &Arc<Slot<B>>| match self.open_segment(slot, false) {
                Ok(reader) => summary::<B>(&reader),
                Err(e) => {
                    failure.get_or_insert(e);
                    SegmentSummary {
                        base: slot.base,
                        next: slot.next.unwrap_or(slot.base),
                        store_bytes: 0,
                    }
                }
            };
            let summaries = view.slots().iter().map(summarize).collect();
            let Some(e) = &failure else { return summaries };
            if !matches!(
                self.is_to_try_again(&view, Some(e), &mut patience),
                Ok(true)
            ) {
                return summaries;
            }
        }
    }

    fn in_view<T>(
        &self,
        view: &View<B>,
        offset: Offset,
        read: &mut impl FnMut(&SegmentReader<B::File>) -> Thin<T>,
    ) -> Thin<T> {
        let Some(slot) = view.slot_of(offset).filter(|_| offset < view.next_offset()) else {
            return Err(view.out_of_range(offset));
        };
        let segment = self.open_segment(slot, false)?;
        if slot.next.is_some() && offset >= segment.next_offset() {
            return Err(self.between(view, &segment, offset)?);
        }
        match read(&segment) {
            Err(e) if e.is_corrupt() && !segment.is_proven() => {
                read(&*self.open_segment(slot, true)?)
            }
            found => found,
        }
    }

    /// What reading an offset gives that no segment holds, for the one after `segment` begins after it: whether that
    /// tells that it is not there.
    fn between(
        &self,
        view: &View<B>,
        segment: &SegmentReader<B::File>,
        offset: Offset,
    ) -> Thin<Boxed> {
        if let Some(after) = view.slot_after(offset) {
            let after = self.open_segment(after, false)?;
            if let Some(gap) = after.leading_gap()?.filter(|gap| gap.contains(offset)) {
                return Ok(gap.error(offset));
            }
        }
        Ok(segment.corrupt(offset, segment.store_bytes(), Damaged::Missing))
    }

    /// Reads a record with the indexes as they are, for who keeps others from making them anew.
    pub(super) fn read_as_it_is(&self, view: &View<B>, offset: Offset) -> Thin<Record> {
        let slot = view.slot_of(offset);
        let slot = slot.ok_or_else(|| view.out_of_range(offset))?;
        let segment = self.open_segment(slot, false)?;
        if slot.next.is_some() && offset >= segment.next_offset() {
            return Err(self.between(view, &segment, offset)?);
        }
        segment.read(offset)
    }

    /// Opens a segment, or finds it open; with `proven` its index is made anew unless it is known to be
    /// right.
    pub(super) fn open_segment(
        &self,
        slot: &Arc<Slot<B>>,
        proven: bool,
    ) -> Thin<Arc<SegmentReader<B::File>>> {
        if let Some(segment) = &*slot.reading()
            && (segment.is_proven() || !proven)
        {
            return Ok(Arc::clone(segment));
        }
        if slot.next.is_some() {
            if proven && !self.read_only && self.commit.is_unsealed(slot.base) {
                // Its index may not lead: what it will vouch for is on stable storage first.
                let leading = self.lead();
                if !self.closed.load(Acquire) {
                    leading.seal_all()?;
                }
            }
            let (backend, options) = (&self.backend, &self.options);
            let another_may_write = || self.read_only || self.closed.load(Acquire);
            return self.opened.open(
                backend,
                &self.view,
                slot,
                proven,
                another_may_write,
                options,
            );
        }
        self.prove_active(slot)
    }

    /// Makes the index of the active segment anew.
    fn prove_active(&self, slot: &Arc<Slot<B>>) -> Thin<Arc<SegmentReader<B::File>>> {
        let _leading = (!self.read_only).then(|| self.lead());
        let mut writer = self.writer_anyway();
        if writer.active().base() != slot.base {
            return Ok(Arc::clone(writer.active().reader()));
        }
        self.prove_writer(&mut writer)
    }

    /// Makes the index of the active segment anew, unless it is known to be right.
    pub(super) fn prove_writer(&self, writer: &mut Writer<B>) -> Thin<Arc<SegmentReader<B::File>>> {
        let active = writer.active();
        if active.reader().is_proven() {
            return Ok(Arc::clone(active.reader()));
        }
        let can_write = !self.read_only && !self.closed.load(Acquire);
        if can_write && self.poison.get().is_some() {
            // What readers were not shown, for its sync failed, is none of theirs; a scan would find it.
            return Ok(Arc::clone(active.reader()));
        }
        let proven = if can_write {
            let proven = active.prove(&self.backend);
            self.poison_if_failed(proven)?
        } else {
            let next = active.reader().next_offset();
            let (backend, options) = (&self.backend, &self.options);
            let base = active.base();
            let opened = Segment::scan_files(backend, base, Place::Last, false, options)?;
            if active.reader().is_removed()? {
                // By now its name may be another file's.
                let replaced = io::ErrorKind::NotFound.into();
                return Err(Error::io("open", backend.name(), replaced));
            }
            let mut proven = opened.segment;
            proven.reaches_to(next)?;
            proven
        };
        let reader = Arc::clone(proven.reader());
        // Not in the slot that was asked for: a truncation may have put another in its place meanwhile.
        self.view.load().active().prove(&reader);
        // It may reach further than what was shown.
        self.subscribers.wake_anyway();
        writer.replace(proven);
        Ok(reader)
    }

    /// The first offset whose record's timestamp is not before `timestamp_ms`.
    pub(super) fn first_since(&self, timestamp_ms: u64) -> Thin<Offset> {
        let view = self.view.load_full();
        let (lowest, next) = (view.lowest(), view.next_offset());
        // The segment in which it must be: the last one that begins before it.
        let slots = view.slots();
        let (mut low, mut high) = (0, slots.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let end = slots[middle].next.unwrap_or(next);
            match self.timestamp_from(slots[middle].base, end)? {
                Some((_, found_ms)) if found_ms < timestamp_ms => low = middle + 1,
                // One without any is as the one after it.
                None if middle + 1 < slots.len() => {
                    let after = self.timestamp_from(slots[middle].base, next)?;
                    match after {
                        Some((_, found_ms)) if found_ms < timestamp_ms => low = middle + 1,
                        _ => high = middle,
                    }
                }
                _ => high = middle,
            }
        }
        let segment = &slots[low.saturating_sub(1)];
        let (mut low, mut high) = (segment.base, segment.next.unwrap_or(next).min(next));
        while low < high {
            let middle = Offset(low.0 + (high.0 - low.0) / 2);
            match self.timestamp_from(middle, high)? {
                Some((at, found_ms)) if found_ms < timestamp_ms => low = at.next(),
                _ => high = middle,
            }
        }
        Ok(low.max(lowest))
    }

    /// The first record from `from` on and before `end` that has a timestamp, and that. Damaged ones are
    /// passed over.
    fn timestamp_from(&self, from: Offset, end: Offset) -> Thin<Option<(Offset, u64)>> {
        let mut offset = from;
        while offset < end {
            match self.read(offset) {
                Ok(record) => {
                    if let Some(timestamp_ms) = record.timestamp_ms() {
                        return Ok(Some((offset, timestamp_ms)));
                    }
                }
                Err(e) if e.is_corrupt() => {}
                Err(e) if let Error::Gap { next, .. } = *e => {
                    offset = next;
                    continue;
                }
                // It was truncated meanwhile.
                Err(e) if e.is_out_of_range() => return Ok(None),
                Err(e) => return Err(e),
            }
            offset = offset.next();
        }
        Ok(None)
    }
}
