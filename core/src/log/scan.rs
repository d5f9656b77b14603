//! Iterating over a log.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::Log;
use crate::{
    Backend, Damaged, DefaultBackend, Error, Offset, Record, Result, segment::SegmentReader,
};

/// How much a scan reads at a time, where what it reads is not mapped.
const SCAN_BYTES: usize = 256 << 10;

/// An iterator over the records of a [`Log`], forward and backward: see [`Log::scan`].
#[derive(Debug)]
pub struct Scan<'a, B: Backend = DefaultBackend> {
    log: &'a Log<B>,
    next: Offset,
    /// Where it ends; unless told, where the log does when the scan gets there.
    end: Option<Offset>,
    /// The bytes from the next record on, and the segment they are of.
    chunk: Option<(Arc<SegmentReader<B::File>>, Bytes)>,
    ended: bool,
}

impl<B: Backend> Iterator for Scan<'_, B> {
    type Item = Result<Record>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.end.is_some_and(|end| self.next >= end) {
            return None;
        }
        if let Some((segment, bytes)) = &mut self.chunk
            && self.next < segment.next_offset()
            && let Some(record) = segment.record_in(bytes, self.next)
        {
            bytes.advance(record.frame().len());
            self.next = self.next.next();
            return Some(Ok(record));
        }
        self.next_from_log()
    }
}

impl<B: Backend> DoubleEndedIterator for Scan<'_, B> {
    /// The last record that was not given yet. From then on the scan ends where the log ended.
    fn next_back(&mut self) -> Option<Self::Item> {
        let log_end = self.log.next_offset();
        let end = self.end.map_or(log_end, |end| end.min(log_end));
        self.end = Some(end);
        if self.ended || self.next >= end {
            return None;
        }
        let last = Offset(end.0 - 1);
        let record = self.log.read(last);
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
            ended: false,
        }
    }

    /// The next record where there is none in the chunk: because it ends, or because something is wrong.
    #[cold]
    fn next_from_log(&mut self) -> Option<Result<Record>> {
        self.chunk = None;
        if self.next >= self.log.next_offset() {
            return None;
        }
        // By the log, which knows what to do about what is not right.
        let found = self
            .log
            .shared
            .in_segment(self.next, |segment| segment.read(self.next));
        match found {
            Ok(record) => {
                self.next = self.next.next();
                // What cannot be had now is asked for again.
                self.chunk = self.log.chunk(self.next, SCAN_BYTES).ok();
                Some(Ok(record))
            }
            Err(Error::OffsetOutOfRange { .. }) if self.next < self.log.lowest_offset() => {
                self.next = self.log.lowest_offset();
                self.next()
            }
            // What it was about to give was truncated meanwhile.
            Err(Error::OffsetOutOfRange { .. }) if self.next >= self.log.next_offset() => None,
            Err(e) => Some(Err(self.pass_over(e))),
        }
    }

    /// After a damaged record the scan goes on; where a whole stretch without bytes is missing, after
    /// that.
    fn pass_over(&mut self, e: Error) -> Error {
        match &e {
            Error::Corrupt {
                reason: Damaged::Missing,
                segment,
                offset,
                ..
            } => {
                let view = self.log.shared.view.load();
                let after = view.slots().iter().find(|later| later.base > *segment);
                self.next = after.map_or(offset.next(), |later| later.base);
            }
            Error::Corrupt { offset, .. } => self.next = offset.next(),
            _ => self.ended = true,
        }
        e
    }
}

impl<B: Backend> Log<B> {
    /// The bytes from a record on, and the segment they are of.
    fn chunk(
        &self,
        from: Offset,
        bytes_max: usize,
    ) -> Result<(Arc<SegmentReader<B::File>>, Bytes)> {
        let view = self.shared.view.load();
        let slot = view.slot_of(from);
        let slot = slot.ok_or_else(|| view.out_of_range(from))?;
        let segment = self.shared.open_segment(&view, slot, false)?;
        let bytes = segment.chunk(from, bytes_max)?;
        Ok((segment, bytes))
    }

    /// The offset after the last record that a segment holds.
    fn end_of_segment(&self, base: Offset) -> Option<Offset> {
        let view = self.shared.view.load();
        let slot = view.slots().iter().find(|slot| slot.base == base)?;
        let segment = self.shared.open_segment(&view, slot, false).ok()?;
        Some(segment.next_offset())
    }
}
