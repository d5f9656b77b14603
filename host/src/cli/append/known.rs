//! Where what is appended again stands.

use proglog::{Offset, ProducerLast};
use proglog_host::{Engine, Records, Result};

/// The records of one producer that the log had before, asked for in order.
pub(super) struct Known<'a> {
    log: &'a dyn Engine,
    id: &'a [u8],
    /// The last of them.
    last: ProducerLast,
    /// From the lowest offset on, once they were found not to stand next to each other.
    records: Option<Records<'a>>,
    /// The one that was read last.
    read: Option<(u64, Offset)>,
}

impl<'a> Known<'a> {
    pub(super) fn new(log: &'a dyn Engine, id: &'a [u8], last: ProducerLast) -> Self {
        Self {
            log,
            id,
            last,
            records: None,
            read: None,
        }
    }

    /// The sequence of the last of them.
    pub(super) fn last_sequence(&self) -> u64 {
        self.last.sequence
    }

    /// The offset of the last record with a sequence from `first` to `last`, which is not above that of the last of
    /// them. `None` if none of them is there any more, or stands behind damage.
    pub(super) fn last_of(&mut self, first: u64, last: u64) -> Result<Option<Offset>> {
        if last == self.last.sequence {
            return Ok(Some(self.last.offset));
        }
        // Sequences increase from each to the next: if none of anyone stands between, that is where it is.
        let after = self.last.sequence - last;
        if self.records.is_none()
            && let Some(offset) = self.last.offset.0.checked_sub(after).map(Offset)
            && offset >= self.log.lowest_offset()?
            && let Ok(record) = self.log.read(offset)
            && self.is_of_it(record.producer()) == Some(last)
        {
            return Ok(Some(offset));
        }
        if self.records.is_none() {
            self.records = Some(self.log.scan(self.log.lowest_offset()?));
        }
        let mut found = None;
        while let Some((sequence, offset)) = self.next()
            && sequence <= last
        {
            self.read = None;
            if sequence >= first {
                found = Some(offset);
            }
        }
        Ok(found)
    }

    /// The next of them, until it is taken out of `read`.
    fn next(&mut self) -> Option<(u64, Offset)> {
        while self.read.is_none()
            && let Some(Ok(record)) = self.records.as_mut().and_then(Iterator::next)
        {
            let sequence = self.is_of_it(record.producer());
            self.read = sequence.map(|sequence| (sequence, record.offset()));
        }
        self.read
    }

    fn is_of_it(&self, producer: Option<proglog::Producer<'_>>) -> Option<u64> {
        let producer = producer.filter(|producer| producer.id == self.id);
        producer.map(|producer| producer.sequence)
    }
}
