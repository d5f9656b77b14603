//! Iterating over a log.

use super::Log;
use crate::{Backend, Damaged, DefaultBackend, Error, Frames, Offset, Record, Result};

/// How much a scan reads at a time.
const SCAN_BYTES: usize = 256 << 10;

/// An iterator over the records of a [`Log`]: see [`Log::scan`].
#[derive(Debug)]
pub struct Scan<'a, B: Backend = DefaultBackend> {
    log: &'a Log<B>,
    next: Offset,
    end: Option<Offset>,
    frames: Frames,
    ended: bool,
}

impl<B: Backend> Iterator for Scan<'_, B> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended || self.end.is_some_and(|end| self.next >= end) {
            return None;
        }
        if self.frames.is_empty() {
            if self.next >= self.log.next_offset() {
                return None;
            }
            match self.log.read_batch(self.next, SCAN_BYTES) {
                Ok(frames) => self.frames = frames,
                Err(e) => return Some(Err(self.pass_over(e))),
            }
        }
        let record = self.frames.next()?;
        match record {
            Ok(record) => {
                self.next = record.offset().next();
                Some(Ok(record))
            }
            // They were right when they were read, so this is not reached.
            Err(_) => {
                self.ended = true;
                None
            }
        }
    }
}

impl<'a, B: Backend> Scan<'a, B> {
    pub(super) fn new(log: &'a Log<B>, next: Offset, end: Option<Offset>) -> Self {
        Self {
            log,
            next,
            end,
            frames: Frames::default(),
            ended: false,
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
                let segments = self.log.segments();
                let after = segments.iter().find(|later| later.base > *segment);
                self.next = after.map_or(offset.next(), |later| later.base);
            }
            Error::Corrupt { offset, .. } => self.next = offset.next(),
            _ => self.ended = true,
        }
        e
    }
}
