//! What is about to be appended.

use std::slice;

use crate::{
    Clock, Error, NewRecord, Offset, Options,
    error::{Boxed, Thin},
    record::{FrameToWrite, LENGTH_BYTES, RECORD_BYTES_LIMIT, frame_bytes_max},
};

/// Refuses a record that the log does not take.
#[inline]
pub(super) fn check_record_bytes(bytes: u64, options: &Options) -> Thin<()> {
    if bytes <= options.record_bytes_max {
        return Ok(());
    }
    Err(Error::TooLarge {
        what: "a record",
        bytes,
        bytes_max: options.record_bytes_max,
        advice: "; raise record_bytes_max, or split it",
    }
    .into())
}

/// Refuses a batch that no log takes.
#[inline]
pub(super) fn check_batch_bytes(bytes: u64) -> Thin<()> {
    if bytes <= RECORD_BYTES_LIMIT {
        return Ok(());
    }
    Err(Error::TooLarge {
        what: "a batch",
        bytes,
        bytes_max: RECORD_BYTES_LIMIT,
        advice: "; append it in parts",
    }
    .into())
}

#[cold]
fn used_up(records: usize, first: Offset) -> Boxed {
    Error::invalid(format!(
        "{records} records do not fit after offset {first}: offsets are used up"
    ))
}

/// Records to append together, with the offsets they will have.
#[derive(Debug)]
pub(crate) struct Batch<'a> {
    pub(super) records: &'a [NewRecord<'a>],
    pub(crate) first: Offset,
    /// For records that bring no timestamp.
    now_ms: u64,
    /// No record may have an earlier timestamp.
    timestamp_ms_min: u64,
    /// What all frames take, or a little more.
    pub(crate) bytes_max: u64,
    /// Likewise the largest.
    frame_bytes_max: u64,
}

impl<'a> Batch<'a> {
    /// One that is to be [checked](Self::check) before it is appended.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    pub(crate) fn new(
        records: &'a [NewRecord<'a>],
        first: Offset,
        timestamp_ms_min: u64,
        clock: Clock,
    ) -> Self {
        let (mut bytes_max, mut largest, mut asks_clock) = (0_u64, 0, false);
        for record in records {
            let frame_bytes = frame_bytes_max(record);
            bytes_max = bytes_max.saturating_add(frame_bytes);
            largest = frame_bytes.max(largest);
            asks_clock |= record.timestamp_ms.is_none();
        }
        let now_ms = asks_clock.then(|| clock.now_ms()).flatten();
        Self {
            records,
            first,
            now_ms: now_ms.unwrap_or(0),
            timestamp_ms_min,
            bytes_max,
            frame_bytes_max: largest,
        }
    }

    /// Refuses what a log does not take.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    pub(crate) fn check(&self, options: &Options) -> Thin<()> {
        let count = self.records.len();
        if self.first.0.checked_add(count as u64).is_none() || u32::try_from(count).is_err() {
            return Err(used_up(count, self.first));
        }
        if self.frame_bytes_max > options.record_bytes_max || self.bytes_max > RECORD_BYTES_LIMIT {
            return self.check_bytes(options);
        }
        Ok(())
    }

    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    fn check_bytes(&self, options: &Options) -> Thin<()> {
        let mut bytes = 0;
        for frame in self.frames() {
            let record_bytes = frame.record_bytes();
            check_record_bytes(record_bytes, options)?;
            bytes += LENGTH_BYTES as u64 + record_bytes;
        }
        check_batch_bytes(bytes)
    }

    /// All frames' bytes, counted.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    pub(crate) fn bytes(&self) -> u64 {
        self.frames()
            .map(|frame| LENGTH_BYTES as u64 + frame.record_bytes())
            .sum()
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> u64 {
        self.records.len() as u64
    }

    pub(crate) fn next(&self) -> Offset {
        self.first.plus(self.records.len() as u64)
    }

    #[inline]
    pub(super) fn frames(&self) -> FramesToWrite<'a> {
        // Checked to fit when the batch was made.
        let count = u32::try_from(self.records.len()).unwrap_or(u32::MAX);
        FramesToWrite {
            records: self.records.iter(),
            next: self.first,
            remaining: count,
            closing: if count > 1 { count } else { 0 },
            now_ms: self.now_ms,
            timestamp_ms_max: self.timestamp_ms_min,
        }
    }
}

/// The frames of a batch, to be encoded one after the other.
#[derive(Debug)]
pub(super) struct FramesToWrite<'a> {
    records: slice::Iter<'a, NewRecord<'a>>,
    next: Offset,
    remaining: u32,
    /// What the last one says of how many they are.
    closing: u32,
    now_ms: u64,
    /// The latest timestamp so far.
    pub(super) timestamp_ms_max: u64,
}

impl<'a> Iterator for FramesToWrite<'a> {
    type Item = FrameToWrite<'a>;

    #[inline]
    fn next(&mut self) -> Option<FrameToWrite<'a>> {
        let record = self.records.next()?;
        let offset = self.next;
        self.next = offset.next();
        self.remaining -= 1;
        let given_ms = record.timestamp_ms.unwrap_or(self.now_ms);
        Some(FrameToWrite {
            record,
            offset,
            timestamp_ms: not_before(&mut self.timestamp_ms_max, given_ms),
            batch_remaining: self.remaining,
            batch_records: if self.remaining == 0 { self.closing } else { 0 },
        })
    }
}

/// The timestamp of a record that was given this one: no earlier than any before it, so that a time can be found by
/// halving. 0 is none.
#[inline]
pub(super) fn not_before(latest_ms: &mut u64, given_ms: u64) -> u64 {
    if given_ms == 0 {
        return 0;
    }
    *latest_ms = given_ms.max(*latest_ms);
    *latest_ms
}

#[cfg(test)]
mod tests {
    use crate::{Log, MemoryBackend, NewRecord, Offset, Options};

    /// Small records, which share memory, among such as fill most of it and such as are written from where they are.
    #[test]
    fn records_of_all_sizes_in_one_batch_are_read_again() {
        let log = Log::open_on(MemoryBackend::new(), Options::new()).unwrap();
        let sizes = [0, 1, 100, 20_000, 32_600, 32_700, 32_800, 70_000, 127, 128];
        let values: Vec<Vec<u8>> = (0..200)
            .map(|n: u8| vec![n; sizes[usize::from(n) * 7 % 10] + usize::from(n % 3)])
            .collect();
        let records = values.iter().map(NewRecord::new);
        assert_eq!(log.append_batch(records).unwrap(), Offset(0)..Offset(200));
        for (n, value) in values.iter().enumerate() {
            let record = log.read(Offset(n as u64)).unwrap();
            assert_eq!(record.value(), value);
            assert_eq!(u64::from(record.batch_remaining()), 199 - n as u64);
        }
        assert!(log.verify().unwrap().is_sound());
    }
}
