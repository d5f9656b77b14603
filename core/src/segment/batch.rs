//! What is about to be appended.

use crate::{
    Error, NewRecord, Offset, Options, Result,
    record::{FrameToWrite, LENGTH_BYTES, RECORD_BYTES_LIMIT, frame_bytes_max},
};

/// Refuses a record that the log does not take.
#[inline]
pub(super) fn check_record_bytes(bytes: u64, options: &Options) -> Result<()> {
    if bytes <= options.record_bytes_max {
        return Ok(());
    }
    Err(Error::TooLarge {
        what: "a record",
        bytes,
        bytes_max: options.record_bytes_max,
        advice: "; raise record_bytes_max, or split it",
    })
}

/// Refuses a batch that no log takes.
#[inline]
pub(super) fn check_batch_bytes(bytes: u64) -> Result<()> {
    if bytes <= RECORD_BYTES_LIMIT {
        return Ok(());
    }
    Err(Error::TooLarge {
        what: "a batch",
        bytes,
        bytes_max: RECORD_BYTES_LIMIT,
        advice: "; append it in parts",
    })
}

#[cold]
fn used_up(records: usize, first: Offset) -> Error {
    Error::InvalidArgument(format!(
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
}

impl<'a> Batch<'a> {
    // Inlined, so that it is not copied.
    #[inline(always)]
    pub(crate) fn new(
        records: &'a [NewRecord<'a>],
        first: Offset,
        timestamp_ms_min: u64,
        options: &Options,
    ) -> Result<Self> {
        if first.0.checked_add(records.len() as u64).is_none()
            || u32::try_from(records.len()).is_err()
        {
            return Err(used_up(records.len(), first));
        }
        let (mut bytes_max, mut largest, mut asks_clock) = (0_u64, 0, false);
        for record in records {
            let frame_bytes = frame_bytes_max(record);
            bytes_max = bytes_max.saturating_add(frame_bytes);
            largest = largest.max(frame_bytes);
            asks_clock |= record.timestamp_ms.is_none();
        }
        let now_ms = if asks_clock {
            options.clock.now_ms().unwrap_or(0)
        } else {
            0
        };
        let batch = Self {
            records,
            first,
            now_ms,
            timestamp_ms_min,
            bytes_max,
        };
        if largest > options.record_bytes_max || bytes_max > RECORD_BYTES_LIMIT {
            batch.check_bytes(options)?;
        }
        Ok(batch)
    }

    /// Refuses what is too large.
    #[cold]
    fn check_bytes(&self, options: &Options) -> Result<()> {
        let mut bytes = 0;
        for frame in self.frames() {
            let record_bytes = frame.record_bytes();
            check_record_bytes(record_bytes, options)?;
            bytes += LENGTH_BYTES as u64 + record_bytes;
        }
        check_batch_bytes(bytes)
    }

    /// All frames' bytes, counted.
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

    pub(super) fn frames(&self) -> impl Iterator<Item = FrameToWrite<'a>> + '_ {
        let (first, now_ms, count) = (self.first, self.now_ms, self.records.len());
        let mut latest_ms = self.timestamp_ms_min;
        self.records.iter().enumerate().map(move |(i, record)| {
            let given_ms = record.timestamp_ms.unwrap_or(now_ms);
            // 0 is none. Otherwise it is no earlier than any before it, so that a time can be found
            // by halving.
            let timestamp_ms = if given_ms == 0 {
                0
            } else {
                latest_ms = latest_ms.max(given_ms);
                latest_ms
            };
            FrameToWrite {
                record,
                offset: first.plus(i as u64),
                timestamp_ms,
                // Checked to fit when the batch was made.
                batch_remaining: u32::try_from(count - 1 - i).unwrap_or(u32::MAX),
                batch_records: if i > 0 && i + 1 == count {
                    u32::try_from(count).unwrap_or(u32::MAX)
                } else {
                    0
                },
            }
        })
    }
}
