//! Iterating over a log.

use std::{
    ops::{Bound, Range, RangeBounds},
    sync::Arc,
};

use bytes::Bytes;

use super::{Log, Shared};
#[cfg(doc)]
use crate::Gap;
use crate::{
    Backend, Damaged, DefaultBackend, Error, Offset, Record, Result,
    error::{Boxed, Thin},
    record::Layout,
    segment::SegmentReader,
};

/// How much a scan reads at a time, where what it reads is not mapped.
const SCAN_BYTES: usize = 256 << 10;

/// An iterator over the records of a [`Log`], forward and backward: see [`Log::scan`].
///
/// ```
/// # use proglog::{Log, MemoryBackend, Offset, Options};
/// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
/// log.append_batch(["a", "b", "c"])?;
/// let values = |scan: proglog::Scan<'_, _>| -> proglog::Result<Vec<Vec<u8>>> {
///     scan.map(|record| Ok(record?.value().to_vec())).collect()
/// };
/// assert_eq!(values(log.scan(Offset(1)..))?, [b"b", b"c"]);
/// let newest = log.scan(..).rev().next().transpose()?;
/// assert_eq!(newest.map(|record| record.offset()), Some(Offset(2)));
/// # Ok::<(), proglog::Error>(())
/// ```
#[derive(Debug)]
pub struct Scan<'a, B: Backend = DefaultBackend> {
    log: &'a Log<B>,
    next: Offset,
    /// Where it ends; unless told, where the log does when the scan gets there.
    end: Option<Offset>,
    chunk: Option<Chunk<B>>,
    /// The record that was read by itself, if the last one was.
    alone: Option<Record>,
    ended: bool,
}

/// Bytes of a segment that are read ahead.
#[derive(Debug)]
pub(super) struct Chunk<B: Backend> {
    segment: Arc<SegmentReader<B::File>>,
    bytes: Bytes,
    /// Where the next record starts in them.
    at: usize,
}

impl<B: Backend> Iterator for Scan<'_, B> {
    type Item = Result<Record>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if let Some((chunk, frame, layout)) = self.next_in_chunk() {
            return Some(Ok(Record::of(chunk.slice(frame), layout)));
        }
        self.next_from_log()
    }
}

impl<B: Backend> DoubleEndedIterator for Scan<'_, B> {
    /// The last record that was not given yet. From then on the scan ends where the log ended.
    fn next_back(&mut self) -> Option<Self::Item> {
        let log_end = self.log.next_offset();
        let mut end = self.end.map_or(log_end, |end| end.min(log_end));
        let (last, record) = loop {
            self.end = Some(end);
            if self.ended || self.next >= end {
                return None;
            }
            let last = Offset(end.0 - 1);
            match self.log.read(last) {
                Err(Error::Gap { first, .. }) => end = first,
                record => break (last, record),
            }
        };
        self.end = Some(last);
        Some(record.inspect_err(|e| match e {
            Error::Corrupt {
                reason: Damaged::Missing,
                segment,
                ..
            } => {
                // As one, for the whole stretch that no segment holds.
                let held = self.log.end_of_segment(*segment);
                self.end = Some(held.map_or(last, |held| held.max(self.next).min(last)));
            }
            Error::Corrupt { .. } => {}
            _ => self.ended = true,
        }))
    }
}

impl<'a, B: Backend> Scan<'a, B> {
    pub(super) fn new(log: &'a Log<B>, next: Offset, end: Option<Offset>) -> Self {
        Self {
            log,
            next,
            end,
            chunk: None,
            alone: None,
            ended: false,
        }
    }

    /// As [`Iterator::next`], but the record stays where it is and is gone with the next one. That spares counting
    /// who holds the memory, and so is the fastest way through a log.
    ///
    /// # Errors
    ///
    /// Those of [`Log::scan`]: after a damaged record it goes on.
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append_batch(["a", "b", "c"])?;
    /// let mut bytes = 0;
    /// let mut scan = log.scan(..);
    /// while let Some(record) = scan.next_borrowed() {
    ///     bytes += record?.value().len();
    /// }
    /// assert_eq!(bytes, 3);
    /// # Ok::<(), proglog::Error>(())
    /// ```
    // Inlined for the same reason as `parse_frame`.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    pub fn next_borrowed(&mut self) -> Option<Result<Record<&[u8]>>> {
        // The borrow checker does not see that only one of the two is returned from.
        if let Some((_, frame, layout)) = self.next_in_chunk() {
            let bytes = &self.chunk.as_ref()?.bytes;
            return Some(Ok(Record::of(&bytes[frame], layout)));
        }
        match self.next_from_log()? {
            Ok(record) => Some(Ok(self.alone.insert(record).as_borrowed())),
            Err(e) => Some(Err(e)),
        }
    }

    /// The next record in the chunk, if it is there and right: the chunk, where its frame is in it, and what
    /// that holds.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    fn next_in_chunk(&mut self) -> Option<(&Bytes, Range<usize>, Layout)> {
        if self.ended || self.end.is_some_and(|end| self.next >= end) {
            return None;
        }
        let found = self.chunk.as_mut()?.next(self.next)?;
        self.next = self.next.next();
        Some(found)
    }

    /// The next record where there is none in the chunk: because it ends, or a gap is to be stepped over, or something
    /// is wrong.
    #[cold]
    fn next_from_log(&mut self) -> Option<Result<Record>> {
        if self.steps_over_gap()
            && let Some((chunk, frame, layout)) = self.next_in_chunk()
        {
            return Some(Ok(Record::of(chunk.slice(frame), layout)));
        }
        self.chunk = None;
        loop {
            let at_end = self.end.is_some_and(|end| self.next >= end);
            if self.ended || at_end || self.next >= self.log.next_offset() {
                return None;
            }
            // By the log, which knows what to do about what is not right.
            let found = self
                .log
                .shared
                .in_segment(self.next, |segment| segment.read(self.next));
            return match found {
                Ok(record) => {
                    self.next = self.next.next();
                    // What cannot be had now is asked for again.
                    self.chunk = self.log.shared.chunk(self.next, SCAN_BYTES).ok();
                    Some(Ok(record))
                }
                Err(e) if let Error::Gap { next, .. } = *e => {
                    self.next = next;
                    continue;
                }
                Err(e) if e.is_out_of_range() && self.next < self.log.lowest_offset() => {
                    self.next = self.log.lowest_offset();
                    continue;
                }
                // What it was about to give was truncated meanwhile.
                Err(e) if e.is_out_of_range() && self.next >= self.log.next_offset() => None,
                Err(e) => Some(Err(self.pass_over(e).into())),
            };
        }
    }

    /// Passes by what tells of gaps in the chunk, and says whether there was any.
    fn steps_over_gap(&mut self) -> bool {
        let before = self.next;
        if let Some(chunk) = &mut self.chunk {
            self.next = chunk.after_gaps(before);
        }
        self.next > before
    }

    /// After a damaged record the scan goes on.
    fn pass_over(&mut self, e: Boxed) -> Boxed {
        match self.log.shared.after_damage(&e) {
            Some(after) => self.next = after,
            None => self.ended = true,
        }
        e
    }
}

impl<B: Backend> Chunk<B> {
    /// The record of this offset, if it is the next in these bytes, right, and still in the log: where its frame
    /// is, and what that holds.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    pub(super) fn next(&mut self, offset: Offset) -> Option<(&Bytes, Range<usize>, Layout)> {
        let Chunk { segment, bytes, at } = self;
        if offset >= segment.next_offset() {
            return None;
        }
        let start = *at;
        let (layout, frame_bytes) = segment.layout_in(&bytes[start..], offset)?;
        *at = start + frame_bytes;
        Some((bytes, start..*at, layout))
    }

    /// Passes by what tells of gaps from this offset on, and gives the one after them.
    pub(super) fn after_gaps(&mut self, mut offset: Offset) -> Offset {
        let Chunk { segment, bytes, at } = self;
        while offset < segment.next_offset()
            && let Some((gap, frame_bytes)) = segment.gap_in(&bytes[*at..], offset)
        {
            *at += frame_bytes;
            offset = gap.next();
        }
        offset
    }
}

impl<B: Backend> Log<B> {
    /// Iterates over the records of a range, those that the log holds; a bound below the lowest offset
    /// is the lowest. The end of the log is where it is when the scan gets there, also if that is lower than
    /// it was, since records were truncated. Offsets that are [not there](Gap) are stepped over.
    ///
    /// A damaged record is an `Err` and the scan goes on after it; any other error ends it.
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append_batch(["a", "b", "c"])?;
    /// let mut values = Vec::new();
    /// for record in log.scan(Offset(1)..) {
    ///     values.extend_from_slice(record?.value());
    /// }
    /// assert_eq!(values, b"bc");
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn scan(&self, range: impl RangeBounds<Offset>) -> Scan<'_, B> {
        let from = match range.start_bound() {
            Bound::Included(&from) => from,
            Bound::Excluded(&before) => before.next(),
            Bound::Unbounded => Offset(0),
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => Some(last.next()),
            Bound::Excluded(&end) => Some(end),
            Bound::Unbounded => None,
        };
        Scan::new(self, from.max(self.lowest_offset()), end)
    }

    /// Iterates over the records from the first on whose timestamp is not before `timestamp_ms`,
    /// milliseconds since 1970-01-01 UTC. Found by halving, for timestamps never decrease from one record to the
    /// next: an append with an earlier one gets that of the record before it. Records without a timestamp
    /// count as of the same time as the one after them.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, NewRecord, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// for hour in 0..24 {
    ///     log.append(NewRecord::new("tick").timestamp_ms(1_700_000_000_000 + hour * 3_600_000))?;
    /// }
    /// let afternoon = log.scan_from_time(1_700_000_000_000 + 12 * 3_600_000)?;
    /// assert_eq!(afternoon.count(), 12);
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn scan_from_time(&self, timestamp_ms: u64) -> Result<Scan<'_, B>> {
        Ok(self.scan(self.shared.first_since(timestamp_ms)?..))
    }
}

impl<B: Backend> Shared<B> {
    /// The bytes from a record on.
    pub(super) fn chunk(&self, from: Offset, bytes_max: usize) -> Thin<Chunk<B>> {
        let view = self.view.load();
        let slot = view.slot_of(from);
        let slot = slot.ok_or_else(|| view.out_of_range(from))?;
        let segment = self.open_segment(slot, false)?;
        let bytes = segment.chunk(from, bytes_max)?;
        Ok(Chunk {
            segment,
            bytes,
            at: 0,
        })
    }

    /// Where to go on after a damaged record; where a whole stretch without bytes is missing, after that.
    pub(super) fn after_damage(&self, e: &Error) -> Option<Offset> {
        match e {
            Error::Corrupt {
                reason: Damaged::Missing,
                segment,
                offset,
                ..
            } => {
                let view = self.view.load();
                let after = view.slots().iter().find(|later| later.base > *segment);
                Some(after.map_or(offset.next(), |later| later.base))
            }
            Error::Corrupt { offset, .. } => Some(offset.next()),
            _ => None,
        }
    }
}

impl<B: Backend> Log<B> {
    /// The offset after the last record that a segment holds.
    fn end_of_segment(&self, base: Offset) -> Option<Offset> {
        let view = self.shared.view.load();
        let slot = view.slots().iter().find(|slot| slot.base == base)?;
        let segment = self.shared.open_segment(slot, false).ok()?;
        Some(segment.next_offset())
    }
}
