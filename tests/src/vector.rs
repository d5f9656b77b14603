//! The vectors in `vectors/*.json`: scripts of operations and what each must give, in a form that
//! any language can read. `vectors/README.md` describes it.

use std::{collections::BTreeMap, path::Path};

use proglog::{Clock, Header, NewRecord, Offset, Options, Record};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{schema::Fields, subject::Files};

/// A script, what it starts from and what it must leave behind.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    /// What it shows.
    pub about: String,
    /// How the log is opened first.
    #[serde(default)]
    pub options: Settings,
    /// Files that are there before.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub given: BTreeMap<String, FileBytes>,
    /// What is done, in order.
    pub script: Vec<Step>,
    /// All files of the directory after the log was closed.
    #[serde(default)]
    pub files: BTreeMap<String, FileBytes>,
}

/// An operation and its outcome: `gives`, or `fails` with a kind of error, or neither for one that
/// gives nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The operation.
    #[serde(rename = "do")]
    pub operation: Operation,
    /// What it gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gives: Option<serde_json::Value>,
    /// The kind of error it fails with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails: Option<String>,
}

/// What can be done with a log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Operation {
    /// Gives the offset.
    Append(RecordToAppend),
    /// Gives the first offset and the one after the last.
    AppendBatch(Vec<RecordToAppend>),
    /// Gives the first offset and the one after the last, if the first is the one that is expected.
    AppendExpecting {
        /// The offset of the first.
        expected_next_offset: Number,
        /// The records.
        records: Vec<RecordToAppend>,
    },
    /// Gives the sequence and the offset of a producer's last record, nothing of one that is not known.
    ProducerLast(Data),
    /// Gives the record.
    Read(Number),
    /// Gives the records, or fails.
    ReadBatch {
        /// The first.
        from: Number,
        /// The most bytes of frames.
        bytes_max: usize,
    },
    /// Gives the records, and `{"offset": N, "fails": KIND}` in the place of a damaged one.
    Scan {
        /// The first.
        from: Number,
        /// The one after the last.
        to: Number,
    },
    /// Gives nothing.
    TruncateBefore(Number),
    /// Gives nothing.
    TruncateAfter(Number),
    /// Gives nothing.
    Reset,
    /// Gives nothing.
    Sync,
    /// Closes the log and opens it with these settings; where one is missing, with the vector's.
    Reopen(Settings),
    /// Gives an offset.
    LowestOffset,
    /// Gives an offset.
    NextOffset,
    /// Gives an offset.
    DurableOffset,
    /// Gives the segment's base offset and the frame's position in its store.
    Locate(Number),
    /// Gives each segment's base offset, next offset and bytes of store.
    Segments,
    /// Gives whether the log is sound, and the number of its records and of the unchecked among them.
    Verify,
}

/// Options; what is missing has the core's default. There is never a clock.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// See [`Options`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment_bytes_max: Option<u64>,
    /// See [`Options`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index_bytes_max: Option<u64>,
    /// See [`Options`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_bytes_max: Option<u64>,
    /// See [`Options`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_offset: Option<Number>,
}

impl Settings {
    /// These, and the other's where one is missing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            segment_bytes_max: self.segment_bytes_max.or(other.segment_bytes_max),
            index_bytes_max: self.index_bytes_max.or(other.index_bytes_max),
            record_bytes_max: self.record_bytes_max.or(other.record_bytes_max),
            initial_offset: self.initial_offset.or(other.initial_offset),
        }
    }

    /// The core's options.
    #[must_use]
    pub fn options(self) -> Options {
        let mut options = Options::new().clock(Clock::NONE);
        if let Some(bytes) = self.segment_bytes_max {
            options = options.segment_bytes_max(bytes);
        }
        if let Some(bytes) = self.index_bytes_max {
            options = options.index_bytes_max(bytes);
        }
        if let Some(bytes) = self.record_bytes_max {
            options = options.record_bytes_max(bytes);
        }
        if let Some(offset) = self.initial_offset {
            options = options.initial_offset(offset.0);
        }
        options
    }
}

/// A record to append.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RecordToAppend {
    /// Its value.
    pub value: Data,
    /// Its key; empty for none.
    #[serde(skip_serializing_if = "Data::is_empty")]
    pub key: Data,
    /// Its headers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, Data)>,
    /// Its timestamp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp_ms: Option<Number>,
    /// Whose it is, and which of theirs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer: Option<(Data, Number)>,
}

impl RecordToAppend {
    /// A record of a value alone.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self {
            value: Data(value.into()),
            ..Self::default()
        }
    }

    /// What it is in the log, alone.
    #[must_use]
    pub fn fields(&self, offset: u64) -> Fields {
        Fields {
            value: self.value.0.clone(),
            offset,
            timestamp_ms: self.timestamp_ms.map_or(0, |ms| ms.0),
            key: self.key.0.clone(),
            headers: self
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), value.0.clone()))
                .collect(),
            producer: self
                .producer
                .as_ref()
                // A number of no one's is none.
                .filter(|(id, _)| !id.is_empty())
                .map_or_else(Default::default, |(id, sequence)| {
                    (id.0.clone(), sequence.0)
                }),
            ..Fields::default()
        }
    }

    /// Its headers, as the core takes them.
    #[must_use]
    pub fn headers(&self) -> Vec<Header> {
        self.headers
            .iter()
            .map(|(name, value)| Header::new(name, value.0.clone()))
            .collect()
    }

    /// The record, as the core takes it.
    #[must_use]
    pub fn borrowed<'a>(&'a self, headers: &'a [Header]) -> NewRecord<'a> {
        let mut record = NewRecord::new(&self.value.0)
            .key(&self.key.0)
            .headers(headers);
        if let Some((id, sequence)) = &self.producer {
            record = record.producer(&id.0, sequence.0);
        }
        match self.timestamp_ms {
            Some(ms) => record.timestamp_ms(ms.0),
            None => record,
        }
    }
}

/// A record as it was read.
#[derive(Debug, Serialize)]
pub struct RecordRead {
    offset: Number,
    value: Data,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Data>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, Data)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp_ms: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<(Data, Number)>,
    #[serde(skip_serializing_if = "is_zero")]
    batch_remaining: u32,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unchecked: bool,
}

impl RecordRead {
    /// A record of these fields.
    #[must_use]
    pub fn new(fields: &Fields, checked: bool) -> Self {
        Self {
            offset: Number(fields.offset),
            value: Data(fields.value.clone()),
            key: (!fields.key.is_empty()).then(|| Data(fields.key.clone())),
            headers: fields
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), Data(value.clone())))
                .collect(),
            timestamp_ms: (fields.timestamp_ms != 0).then_some(Number(fields.timestamp_ms)),
            producer: (!fields.producer.0.is_empty())
                .then(|| (Data(fields.producer.0.clone()), Number(fields.producer.1))),
            batch_remaining: fields.batch_remaining,
            unchecked: !checked,
        }
    }
}

impl From<&Record> for RecordRead {
    fn from(record: &Record) -> Self {
        Self {
            offset: record.offset().into(),
            value: Data(record.value().to_vec()),
            key: record.key().map(|key| Data(key.to_vec())),
            headers: record
                .headers()
                .map(|(name, value)| (name.to_owned(), Data(value.to_vec())))
                .collect(),
            timestamp_ms: record.timestamp_ms().map(Number),
            producer: record
                .producer()
                .map(|producer| (Data(producer.id.to_vec()), Number(producer.sequence))),
            batch_remaining: record.batch_remaining(),
            unchecked: !record.is_checked(),
        }
    }
}

/// A `u64`: a number below 2^53, which JavaScript can hold, and a string of digits from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub u64);

impl From<Offset> for Number {
    fn from(offset: Offset) -> Self {
        Self(offset.0)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 < 1 << 53 {
            serializer.serialize_u64(self.0)
        } else {
            serializer.collect_str(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Digits(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(Self(number)),
            Form::Digits(digits) => digits.parse().map(Self).map_err(D::Error::custom),
        }
    }
}

/// Bytes: a string of printable text, or `{"hex": …}`, or `{"repeat": "a", "times": 4096}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum DataForm {
    Text(String),
    Hex { hex: String },
    Repeat { repeat: char, times: usize },
}

impl Data {
    #[must_use]
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let printable = |text: &&str| !text.chars().any(char::is_control);
        let form = match (
            std::str::from_utf8(&self.0).ok().filter(printable),
            self.0.first(),
        ) {
            (Some(_), Some(&byte)) if self.0.len() > 64 && self.0.iter().all(|&b| b == byte) => {
                DataForm::Repeat {
                    repeat: char::from(byte),
                    times: self.0.len(),
                }
            }
            (Some(text), _) => DataForm::Text(text.to_owned()),
            (None, _) => DataForm::Hex {
                hex: hex::encode(&self.0),
            },
        };
        form.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match DataForm::deserialize(deserializer)? {
            DataForm::Text(text) => text.into_bytes(),
            DataForm::Hex { hex } => hex::decode(hex).map_err(D::Error::custom)?,
            DataForm::Repeat { repeat, times } => repeat.to_string().repeat(times).into_bytes(),
        }))
    }
}

/// A file's bytes, in hexadecimal; of a larger one its length and XXH3-64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum FileBytes {
    /// Its bytes.
    Small {
        /// In hexadecimal.
        hex: String,
    },
    /// What vouches for its bytes.
    Large {
        /// How many bytes.
        bytes: usize,
        /// Their XXH3-64 with seed 0, 16 hexadecimal digits.
        xxh3: String,
    },
}

impl FileBytes {
    /// Of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.len() <= 1024 {
            Self::Small {
                hex: hex::encode(bytes),
            }
        } else {
            let xxh3 = format!("{:016x}", twox_hash::XxHash3_64::oneshot(bytes));
            Self::Large {
                bytes: bytes.len(),
                xxh3,
            }
        }
    }
}

impl Vector {
    /// The files that are there before.
    ///
    /// # Panics
    ///
    /// They are not given in hexadecimal.
    #[must_use]
    pub fn given(&self) -> Files {
        let bytes = |file: &FileBytes| match file {
            FileBytes::Small { hex } => hex::decode(hex).expect("hexadecimal digits"),
            FileBytes::Large { .. } => panic!("a file that is given has its bytes in hexadecimal"),
        };
        self.given
            .iter()
            .map(|(name, file)| (name.clone(), bytes(file)))
            .collect()
    }

    /// All vectors, by name.
    #[must_use]
    pub fn all() -> BTreeMap<String, Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
        let files = crate::subject::files_in(&directory);
        let vectors = files
            .into_iter()
            .filter_map(|(file, bytes)| Some((file.strip_suffix(".json")?.to_owned(), bytes)));
        vectors
            .map(|(name, bytes)| {
                let vector = serde_json::from_slice(&bytes)
                    .unwrap_or_else(|error| panic!("vectors/{name}.json: {error}"));
                (name, vector)
            })
            .collect()
    }
}

/// What a kind of error is called in a vector.
pub use proglog_host::http::kind_name;

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}
