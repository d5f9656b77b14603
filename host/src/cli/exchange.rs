//! What `proglog export` writes and `proglog import` reads.

mod decoder;
mod line;

use std::io::{self, Write};

use clap::ValueEnum;
use proglog::{Gap, Header, NewRecord, Offset, Record};
use serde::Serialize;

pub(crate) use self::decoder::{Bad, Decoder};
use self::line::{DamagedLine, GapLine, RecordLine};

/// How an export is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A line of JSON for each record and each gap
    #[default]
    Ndjson,
    /// The frames as they stand in the stores: eight bytes of length, big-endian, then the record with its
    /// checksum; see core/FORMAT.md, "Store"
    Binary,
}

/// What is in an export, one after the other.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Record(Carried),
    /// Offsets that are not there, by word of the log that was exported.
    Gap(Gap),
    /// Offsets whose records were damaged in the log that was exported.
    Damaged(Stretch),
}

/// Offsets from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stretch {
    pub(crate) first: Offset,
    pub(crate) last: Offset,
}

/// A record between two logs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) offset: Offset,
    /// 0 is none.
    pub(crate) timestamp_ms: u64,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: Vec<Header>,
    /// Whose record it is, and its sequence.
    pub(crate) producer: Option<(Vec<u8>, u64)>,
    pub(crate) batch_remaining: u32,
    pub(crate) batch_records: u32,
}

impl Carried {
    pub(crate) fn to_append(&self) -> NewRecord<'_> {
        let record = NewRecord::new(&self.value)
            .key(&self.key)
            .headers(&self.headers)
            .timestamp_ms(self.timestamp_ms);
        match &self.producer {
            Some((id, sequence)) => record.producer(id, *sequence),
            None => record,
        }
    }

    /// What it takes in memory, roughly.
    pub(crate) fn bytes(&self) -> u64 {
        let headers = self
            .headers
            .iter()
            .map(|h| size_of::<Header>() + h.name.len() + h.value.len());
        let producer = self.producer.as_ref().map_or(0, |(id, _)| id.len());
        let lengths = self.key.len() + self.value.len() + headers.sum::<usize>() + producer;
        (size_of::<Self>() + lengths) as u64
    }

    /// What of it a log has otherwise, if anything. How much of its batch is there does not matter.
    pub(crate) fn difference(&self, record: &Record) -> Option<&'static str> {
        let headers = self.headers.iter().map(|h| (&*h.name, &*h.value));
        let producer = self.producer.as_ref();
        let producer = producer.map(|(id, sequence)| (&**id, *sequence));
        let differences = [
            (self.offset != record.offset(), "offset"),
            (self.value != record.value(), "value"),
            (self.key != record.key().unwrap_or_default(), "key"),
            (
                self.timestamp_ms != record.timestamp_ms().unwrap_or_default(),
                "timestamp_ms",
            ),
            (!headers.eq(record.headers()), "set of headers"),
            (
                producer != record.producer().map(|p| (p.id, p.sequence)),
                "producer",
            ),
        ];
        let mut differences = differences.into_iter();
        differences.find_map(|(differs, what)| differs.then_some(what))
    }
}

/// Whether a record is of the batch of which these are the first ones.
pub(crate) fn goes_on_with(batch: &[Carried], record: &Carried) -> bool {
    let before = batch.last();
    before.is_none_or(|before| continues(before, batch.len() as u64, record))
}

/// Whether a record is of the batch that so many records are of, the last of them `before`.
pub(crate) fn continues(before: &Carried, records: u64, record: &Carried) -> bool {
    before.batch_remaining.checked_sub(1) == Some(record.batch_remaining)
        // The end of a batch says so: after a batch that was cut there may be a lone record.
        && (record.batch_remaining > 0 || u64::from(record.batch_records) > records)
        && match (&before.producer, &record.producer) {
            (None, None) => true,
            (Some((id, before)), Some((own, sequence))) => id == own && before < sequence,
            _ => false,
        }
}

impl From<&Record> for Carried {
    fn from(record: &Record) -> Self {
        let headers = record.headers();
        Self {
            offset: record.offset(),
            timestamp_ms: record.timestamp_ms().unwrap_or_default(),
            key: record.key().unwrap_or_default().to_vec(),
            value: record.value().to_vec(),
            headers: headers.map(Header::from).collect(),
            producer: record.producer().map(|p| (p.id.to_vec(), p.sequence)),
            batch_remaining: record.batch_remaining(),
            batch_records: record.batch_records(),
        }
    }
}

impl Format {
    pub(crate) fn write_record(self, out: &mut impl Write, record: &Record) -> io::Result<()> {
        match self {
            Self::Ndjson => {
                serde_json::to_writer(&mut *out, &RecordLine(record))?;
                out.write_all(b"\n")
            }
            Self::Binary => out.write_all(record.frame()),
        }
    }

    pub(crate) fn write_gap(self, out: &mut impl Write, gap: Gap) -> io::Result<()> {
        match self {
            Self::Ndjson => {
                serde_json::to_writer(&mut *out, &GapLine { gap })?;
                out.write_all(b"\n")
            }
            Self::Binary => out.write_all(&gap.to_frame()),
        }
    }

    /// Marks where damaged records were left out. Between frames the next one's offset tells.
    pub(crate) fn write_damaged(self, out: &mut impl Write, damaged: Stretch) -> io::Result<()> {
        match self {
            Self::Ndjson => {
                serde_json::to_writer(&mut *out, &DamagedLine { damaged })?;
                out.write_all(b"\n")
            }
            Self::Binary => Ok(()),
        }
    }

    /// What its items are called in a message.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Ndjson => "line",
            Self::Binary => "frame",
        }
    }
}
