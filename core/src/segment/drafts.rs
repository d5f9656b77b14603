//! Batches that are framed before the log has them.

use crate::{
    Error, Header, NewRecord, Offset, Options, Producer, Record, Result,
    error::Thin,
    record::{Draft, LENGTH_BYTES, frame_bytes},
    segment::{
        Batch,
        batch::{check_batch_bytes, check_record_bytes, not_before},
    },
};

/// Records laid out as the frames they will be, for [`Log::append_drafts`](crate::Log::append_drafts): where
/// they have to be copied anyway, as into a wasm module's memory, they need not be again.
///
/// Offsets and timestamps are those that the log is expected to give. It gives others where it must: at little
/// cost as long as they take the same number of bytes.
///
/// ```
/// use proglog::{Drafts, Durability, Log, MemoryBackend, NewRecord, Offset, Options};
/// let options = Options::new();
/// let log = Log::open_on(MemoryBackend::new(), options.clone())?;
/// let records = [NewRecord::new("debit"), NewRecord::new("credit")];
/// let drafts = Drafts::new(&records, log.next_offset(), &options)?;
/// let mut memory = vec![0; usize::try_from(drafts.bytes()).unwrap()];
/// drafts.write(&mut memory);
/// let offsets = log.append_drafts(&mut memory, Durability::Synced)?;
/// assert_eq!(offsets, Offset(0)..Offset(2));
/// assert_eq!(log.read(Offset(1))?.value(), b"credit");
/// # Ok::<(), proglog::Error>(())
/// ```
#[derive(Debug)]
pub struct Drafts<'a> {
    batch: Batch<'a>,
    bytes: u64,
}

impl<'a> Drafts<'a> {
    /// Drafts of these records, as if the next offset were `first`. Of the options it uses
    /// [`Options::clock`] and [`Options::record_bytes_max`].
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] and [`Error::InvalidArgument`], as [`Log::append_batch`](crate::Log::append_batch).
    pub fn new(records: &'a [NewRecord<'a>], first: Offset, options: &Options) -> Result<Self> {
        let batch = Batch::new(records, first, 0, options.clock);
        batch.check(options)?;
        let bytes = batch.bytes();
        Ok(Self { batch, bytes })
    }

    /// How many bytes they take.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many stand in these bytes, going by their lengths.
    #[must_use]
    pub fn count(mut drafts: &[u8]) -> u64 {
        let mut count = 0;
        while let Some(bytes) = frame_bytes(drafts, drafts.len() as u64) {
            drafts = &drafts[bytes..];
            count += 1;
        }
        count
    }

    /// Writes them.
    ///
    /// # Panics
    ///
    /// `out` is shorter than [`Drafts::bytes`].
    pub fn write(&self, mut out: &mut [u8]) {
        for frame in self.batch.frames() {
            let bytes = frame.encode_draft(out);
            out = &mut out[bytes..];
        }
    }
}

/// Drafts that were read.
#[derive(Debug)]
pub(crate) struct DraftedBatch<'a> {
    pub(super) frames: &'a mut [u8],
    drafts: Vec<Draft>,
}

impl<'a> DraftedBatch<'a> {
    /// Reads what [`Drafts::write`] wrote.
    pub(crate) fn read(frames: &'a mut [u8], options: &Options) -> Thin<Self> {
        let mut drafts = Vec::new();
        let mut rest = &*frames;
        while !rest.is_empty() {
            let draft = Draft::read(rest).ok_or_else(|| {
                let n = drafts.len();
                Error::InvalidArgument(format!(
                    "draft {n} of the batch is not as the log encodes a record"
                ))
            })?;
            let record_bytes = (draft.bytes() - LENGTH_BYTES) as u64;
            check_record_bytes(record_bytes, options)?;
            rest = &rest[draft.bytes()..];
            drafts.push(draft);
        }
        let bytes = frames.len() as u64;
        check_batch_bytes(bytes)?;
        let count = drafts.len() as u64;
        for (draft, following) in drafts.iter().zip((0..count).rev()) {
            let closes = if following == 0 && count > 1 {
                count
            } else {
                0
            };
            if (draft.batch_remaining, draft.batch_records) != (following, closes) {
                return Err(Error::invalid(format!(
                    "the drafts of the batch do not say that they are {count}"
                )));
            }
        }
        Ok(Self { frames, drafts })
    }

    /// How many records there are.
    pub(crate) fn records(&self) -> u64 {
        self.drafts.len() as u64
    }

    /// All frames' bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.frames.len() as u64
    }

    /// Of each record whose it is.
    pub(crate) fn producers(&self) -> impl Iterator<Item = Option<Producer<'_>>> {
        let mut at = 0;
        self.drafts.iter().map(move |draft| {
            let frame = &self.frames[at..at + draft.bytes()];
            at += draft.bytes();
            draft.producer(frame)
        })
    }

    /// Whether they can be finished where they stand.
    pub(crate) fn can_be(&self, first: Offset, timestamp_ms_min: u64) -> bool {
        first.0.checked_add(self.records()).is_some()
            && self
                .as_they_will_be(first, timestamp_ms_min)
                .all(|(draft, offset, timestamp_ms)| draft.can_be(offset, timestamp_ms))
    }

    /// Makes them frames, from the first on; tells of each how many bytes it has. Gives the latest timestamp.
    pub(super) fn finish(
        &mut self,
        first: Offset,
        timestamp_ms_min: u64,
        mut finished: impl FnMut(usize) -> Thin<()>,
    ) -> Thin<u64> {
        let mut timestamp_ms_max = timestamp_ms_min;
        let mut at = 0;
        let Self { frames, drafts } = self;
        for (draft, offset, timestamp_ms) in as_they_will_be(drafts, first, timestamp_ms_min) {
            let bytes = draft.bytes();
            draft.finish(&mut frames[at..at + bytes], offset, timestamp_ms);
            timestamp_ms_max = timestamp_ms_max.max(timestamp_ms);
            at += bytes;
            finished(bytes)?;
        }
        Ok(timestamp_ms_max)
    }

    /// The records, to be encoded anew.
    pub(crate) fn decode(&self) -> DecodedDrafts {
        let mut at = 0;
        let records = self.drafts.iter().map(|draft| {
            let frame = &self.frames[at..at + draft.bytes()];
            at += draft.bytes();
            let record = draft.record(frame);
            let headers = record.headers().map(Header::from).collect();
            (record, headers)
        });
        DecodedDrafts(records.collect())
    }

    fn as_they_will_be(
        &self,
        first: Offset,
        timestamp_ms_min: u64,
    ) -> impl Iterator<Item = (&Draft, Offset, u64)> {
        as_they_will_be(&self.drafts, first, timestamp_ms_min)
    }
}

/// Each draft with the offset and timestamp that its record gets.
fn as_they_will_be(
    drafts: &[Draft],
    first: Offset,
    timestamp_ms_min: u64,
) -> impl Iterator<Item = (&Draft, Offset, u64)> {
    let mut latest_ms = timestamp_ms_min;
    drafts.iter().enumerate().map(move |(i, draft)| {
        let timestamp_ms = not_before(&mut latest_ms, draft.timestamp_ms());
        (draft, first.plus(i as u64), timestamp_ms)
    })
}

/// Records of drafts that could not be finished where they stood.
pub(crate) struct DecodedDrafts(Vec<(Record, Vec<Header>)>);

impl DecodedDrafts {
    pub(crate) fn records(&self) -> Vec<NewRecord<'_>> {
        let records = self.0.iter().map(|(record, headers)| NewRecord {
            producer: record.producer(),
            ..NewRecord::new(record.value())
                .key(record.key().unwrap_or_default())
                .headers(headers)
                .timestamp_ms(record.timestamp_ms().unwrap_or(0))
        });
        records.collect()
    }
}
