//! Following a log in a guest.

use std::{
    thread,
    time::{Duration, Instant},
};

use proglog::{Next, Offset};

use super::{WasmLog, guest::Guest, scan::WasmScan};
use crate::{Engine, ErrorKind, Result, Subscription};

/// How long to wait at the least, and at the most, before the log is looked at again: as
/// [`proglog::Subscription`] does.
const WAIT_MIN: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(100);

/// The records of a [`WasmLog`] from some offset on.
pub(super) struct WasmSubscription<'a> {
    log: &'a WasmLog,
    next: Offset,
    scan: Option<WasmScan<'a>>,
    /// Where the log ended when that was asked last, or further if records from there on were given since.
    end: Offset,
    ended: bool,
    /// Whether there was no record when it was looked last.
    at_end: bool,
    /// When a record was found last, after it was waited for.
    found: Instant,
    due: Instant,
}

impl<'a> WasmSubscription<'a> {
    pub(super) fn new(log: &'a WasmLog, from: Offset) -> Self {
        let now = Instant::now();
        Self {
            log,
            next: from,
            scan: None,
            end: Offset(0),
            ended: false,
            at_end: false,
            found: now,
            due: now,
        }
    }

    /// The next record, if the guest's log has it.
    fn try_next(&mut self) -> Result<Next> {
        if self.ended {
            return Ok(Next::Ended);
        }
        self.at_end = false;
        let (log, next) = (self.log, self.next);
        let scan = self.scan.get_or_insert_with(|| WasmScan::new(log, next));
        match scan.next() {
            Some(Ok(record)) if record.offset() == next => {
                self.next = next.next();
                self.end = self.end.max(self.next);
                Ok(Next::Record(record))
            }
            // The scan goes on where the log now begins.
            Some(Ok(_)) => {
                self.scan = None;
                self.end_with(log.read(next).map(|_| Next::NotYet))
            }
            Some(Err(e)) => {
                self.scan = None;
                match e.kind() {
                    ErrorKind::OffsetOutOfRange if next >= log.call(Guest::lowest_offset)? => {
                        self.at_end()
                    }
                    ErrorKind::Corrupt => {
                        self.next = next.next();
                        Err(e)
                    }
                    _ => self.end_with(Err(e)),
                }
            }
            None => {
                self.scan = None;
                self.at_end()
            }
        }
    }

    /// There is no record yet, unless it was truncated.
    fn at_end(&mut self) -> Result<Next> {
        let end = self.log.call(Guest::next_offset)?;
        let before = std::mem::replace(&mut self.end, end);
        if end < before && end < self.next {
            let offset = self.next;
            let truncated = proglog::Error::Truncated { offset, next: end };
            return self.end_with(Err(truncated.into()));
        }
        self.at_end = true;
        Ok(Next::NotYet)
    }

    fn end_with(&mut self, found: Result<Next>) -> Result<Next> {
        self.ended = found.is_err();
        self.at_end &= !self.ended;
        found
    }
}

impl Subscription for WasmSubscription<'_> {
    fn next_timeout(&mut self, timeout: Duration) -> Result<Next> {
        // At the end of the log it is time to look when it is due, and not before.
        let mut found = Ok(Next::NotYet);
        if !self.at_end {
            found = self.try_next();
            if !matches!(found, Ok(Next::NotYet)) {
                return found;
            }
        }
        let deadline = Instant::now().checked_add(timeout);
        loop {
            let mut now = Instant::now();
            // Rather than to be woken twice.
            if now + WAIT_MIN > self.due {
                if let Err(e) = self.log.refresh() {
                    return self.end_with(Err(e));
                }
                found = self.try_next();
                now = Instant::now();
                if !matches!(found, Ok(Next::NotYet)) {
                    self.found = now;
                    return found;
                }
                self.due = now + ((now - self.found) / 8).clamp(WAIT_MIN, WAIT_MAX);
            }
            if deadline.is_some_and(|deadline| now >= deadline) {
                return found;
            }
            let until = deadline.map_or(self.due, |deadline| deadline.min(self.due));
            thread::sleep(until.saturating_duration_since(now));
        }
    }

    fn offset(&self) -> Offset {
        self.next
    }

    fn seek(&mut self, to: Offset) {
        self.next = to;
        self.scan = None;
        self.end = Offset(0);
        self.ended = false;
        self.at_end = false;
    }
}
