//! Reading a log in a guest from one record to the next.

use proglog::{Frames, Offset, Record};

use super::{
    WasmLog,
    guest::{Fault, Guest},
};
use crate::{Error, ErrorKind, Result};

/// How much is asked for at a time: what the guest has of it and what the host has of it are in the
/// processor's cache together.
const SCAN_BYTES: usize = 256 << 10;

/// How often in a row the log may begin later than where the scan was about to go on.
const TRUNCATIONS_MAX: u32 = 8;

/// An iterator over the records of a [`WasmLog`].
pub(super) struct WasmScan<'a> {
    log: &'a WasmLog,
    next: Offset,
    /// Those that the guest gave. It verified their checksums; that they are what they must be is seen here,
    /// one by one.
    frames: Frames,
    began: bool,
    ended: bool,
}

impl<'a> WasmScan<'a> {
    pub(super) fn new(log: &'a WasmLog, from: Offset) -> Self {
        Self {
            log,
            next: from,
            frames: Frames::default(),
            began: false,
            ended: false,
        }
    }

    /// Frames from the next record on; none at the end of the log.
    fn read_on(&mut self) -> Result<Frames> {
        let log = self.log;
        // It may be truncated meanwhile: then the scan goes on where the log now begins, or is at the log's end. Not
        // for ever, should a guest say so each time.
        for _ in 0..TRUNCATIONS_MAX {
            let next = self.next;
            match log.call(|guest| guest.read_unchecked(next, SCAN_BYTES)) {
                Err(e) if e.kind() == ErrorKind::OffsetOutOfRange && self.began => {
                    let lowest = log.call(Guest::lowest_offset)?;
                    if lowest > next {
                        self.next = lowest;
                    } else if next >= log.call(Guest::next_offset)? {
                        return Ok(Frames::default());
                    }
                }
                read => return read,
            }
        }
        let next = self.next;
        log.call(|guest| guest.read_unchecked(next, SCAN_BYTES))
    }

    /// The guest gave something else than the next record, and is discarded.
    #[cold]
    fn broke(&self) -> Error {
        let next = self.next;
        let reason = format!("it gave records of which {next} is not as it should be");
        let broken: Result<()> = self.log.call(|_| Err(Fault::Broken(reason.clone())));
        broken
            .err()
            .unwrap_or_else(|| Error::new(ErrorKind::Trapped, reason))
    }
}

impl Iterator for WasmScan<'_> {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.frames.is_empty() {
            match self.read_on() {
                Ok(frames) => self.frames = frames,
                Err(e) => {
                    self.ended = true;
                    return Some(Err(e));
                }
            }
        }
        let record = match self.frames.next() {
            // Offsets may be left out between them, never come back.
            Some(Ok(record)) if record.offset() >= self.next => {
                self.next = record.offset().next();
                Ok(record)
            }
            Some(_) => {
                self.ended = true;
                Err(self.broke())
            }
            None => {
                self.ended = true;
                return None;
            }
        };
        self.began = true;
        Some(record)
    }
}
