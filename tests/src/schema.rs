//! Frames made without the code under test: by a full protobuf implementation, from the schemas as
//! they stand in the `.proto` files, and by another implementation of XXH3.

use std::{path::Path, sync::OnceLock};

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

/// The bytes of an index entry.
pub const ENTRY_BYTES: usize = 12;
/// The tag of the checksum field: number 15, eight bytes.
pub const CHECKSUM_TAG: u8 = 0x79;

/// What a record holds on disk. What is zero or empty is left out, as proto3 does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// Field 1.
    pub value: Vec<u8>,
    /// Field 2.
    pub offset: u64,
    /// Field 5.
    pub timestamp_ms: u64,
    /// Field 6.
    pub key: Vec<u8>,
    /// Field 7, name and value.
    pub headers: Vec<(String, Vec<u8>)>,
    /// Field 8.
    pub batch_remaining: u32,
    /// Field 9.
    pub batch_records: u32,
    /// Fields 10 and 11.
    pub producer: (Vec<u8>, u64),
}

impl Fields {
    /// A value at an offset, and nothing else.
    #[must_use]
    pub fn new(offset: u64, value: impl Into<Vec<u8>>) -> Self {
        Self {
            value: value.into(),
            offset,
            ..Self::default()
        }
    }

    /// As record `n` of a batch of so many.
    ///
    /// # Panics
    ///
    /// There are more than a `u32` counts.
    #[must_use]
    pub fn in_batch(self, n: usize, records: usize) -> Self {
        let [remaining, records] =
            [records - 1 - n, records].map(|number| u32::try_from(number).expect("a small batch"));
        // Only the last of several says how many they are.
        let batch_records = if remaining == 0 && records > 1 {
            records
        } else {
            0
        };
        Self {
            batch_remaining: remaining,
            batch_records,
            ..self
        }
    }

    /// The message of the schema, without its checksum.
    #[must_use]
    pub fn message(&self) -> DynamicMessage {
        let mut message = DynamicMessage::new(record_schema());
        let mut set = |name, value: Value, is_there| {
            if is_there {
                message.set_field_by_name(name, value);
            }
        };
        set(
            "value",
            Value::Bytes(self.value.clone().into()),
            !self.value.is_empty(),
        );
        set("offset", Value::U64(self.offset), self.offset != 0);
        set(
            "timestamp_ms",
            Value::U64(self.timestamp_ms),
            self.timestamp_ms != 0,
        );
        set(
            "key",
            Value::Bytes(self.key.clone().into()),
            !self.key.is_empty(),
        );
        let headers: Vec<_> = self.headers.iter().map(header).collect();
        set("headers", Value::List(headers), !self.headers.is_empty());
        set(
            "batch_remaining",
            Value::U32(self.batch_remaining),
            self.batch_remaining != 0,
        );
        set(
            "batch_records",
            Value::U32(self.batch_records),
            self.batch_records != 0,
        );
        let (id, sequence) = &self.producer;
        set(
            "producer_id",
            Value::Bytes(id.clone().into()),
            !id.is_empty(),
        );
        set("producer_sequence", Value::U64(*sequence), *sequence != 0);
        message
    }

    /// The frame of a record that carries a checksum.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        checked_frame(&self.message().encode_to_vec())
    }

    /// The frame that the book's program would write, which knows values and offsets only.
    #[must_use]
    pub fn book_frame(&self) -> Vec<u8> {
        let mut message = DynamicMessage::new(book_schema());
        message.set_field_by_name("value", Value::Bytes(self.value.clone().into()));
        message.set_field_by_name("offset", Value::U64(self.offset));
        framed(&message.encode_to_vec())
    }
}

/// What a frame of `log.v1.Record` holds, and whether it has a checksum.
///
/// # Panics
///
/// The frame is not sound.
#[must_use]
pub fn record_of(frame: &[u8]) -> (Fields, bool) {
    let message = DynamicMessage::decode(record_schema(), &frame[8..]).expect("a record");
    let field = |name| {
        message
            .get_field_by_name(name)
            .expect("a field of the schema")
            .into_owned()
    };
    let bytes = |name| field(name).as_bytes().expect("bytes").to_vec();
    let number = |name| field(name).as_u64().expect("a number");
    let header = |header: &Value| {
        let header = header.as_message().expect("a header");
        let field = |name| {
            header
                .get_field_by_name(name)
                .expect("a field of the schema")
                .into_owned()
        };
        (
            field("name").as_str().expect("text").to_owned(),
            field("value").as_bytes().expect("bytes").to_vec(),
        )
    };
    let fields = Fields {
        value: bytes("value"),
        offset: number("offset"),
        timestamp_ms: number("timestamp_ms"),
        key: bytes("key"),
        headers: field("headers")
            .as_list()
            .expect("a list")
            .iter()
            .map(header)
            .collect(),
        batch_remaining: field("batch_remaining").as_u32().expect("a number"),
        batch_records: field("batch_records").as_u32().expect("a number"),
        producer: (bytes("producer_id"), number("producer_sequence")),
    };
    let checked = message.has_field_by_name("checksum");
    if checked {
        let (covered, checksum) = frame.split_at(frame.len() - 9);
        assert_eq!(checksum[0], CHECKSUM_TAG);
        assert_eq!(
            number("checksum"),
            twox_hash::XxHash3_64::oneshot(covered),
            "the checksum of {fields:?}"
        );
    }
    (fields, checked)
}

/// A frame of an encoded record and its checksum.
#[must_use]
pub fn checked_frame(record: &[u8]) -> Vec<u8> {
    let mut frame = framed(record);
    let length = record.len() as u64 + 9;
    frame[..8].copy_from_slice(&length.to_be_bytes());
    let checksum = twox_hash::XxHash3_64::oneshot(&frame);
    frame.push(CHECKSUM_TAG);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame
}

/// A frame of an encoded record as it is.
#[must_use]
pub fn framed(record: &[u8]) -> Vec<u8> {
    [&(record.len() as u64).to_be_bytes(), record].concat()
}

/// The bytes of an index.
#[must_use]
pub fn index(entries: &[(u32, u64)]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|(offset, at)| [&offset.to_be_bytes()[..], &at.to_be_bytes()].concat())
        .collect()
}

/// The index that belongs to a store of sound frames.
#[must_use]
pub fn index_of(store: &[u8]) -> Vec<u8> {
    index(
        &frames(store)
            .zip(0..)
            .map(|(frame, n)| (n, position_in(store, frame)))
            .collect::<Vec<_>>(),
    )
}

/// The frames of a store, in order, told apart by nothing but their lengths.
pub fn frames(store: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = store;
    std::iter::from_fn(move || {
        let length = u64::from_be_bytes(*rest.first_chunk()?);
        let (frame, after) = rest.split_at(8 + usize::try_from(length).expect("a sound length"));
        rest = after;
        Some(frame)
    })
}

fn position_in(store: &[u8], frame: &[u8]) -> u64 {
    (frame.as_ptr().addr() - store.as_ptr().addr()) as u64
}

/// `log.v1.Record`, compiled from the core's `.proto`.
#[must_use]
pub fn record_schema() -> MessageDescriptor {
    schema("log.v1.Record")
}

/// `book.v1.Record`.
#[must_use]
pub fn book_schema() -> MessageDescriptor {
    schema("book.v1.Record")
}

fn header((name, value): &(String, Vec<u8>)) -> Value {
    let mut message = DynamicMessage::new(schema("log.v1.Header"));
    if !name.is_empty() {
        message.set_field_by_name("name", Value::String(name.clone()));
    }
    if !value.is_empty() {
        message.set_field_by_name("value", Value::Bytes(value.clone().into()));
    }
    Value::Message(message)
}

fn schema(name: &str) -> MessageDescriptor {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = protox::compile(
            ["log.proto", "book.proto"],
            [here.join("../core/proto"), here.join("proto")],
        )
        .expect("the .proto files compile");
        DescriptorPool::from_file_descriptor_set(files).expect("a pool of descriptors")
    });
    pool.get_message_by_name(name)
        .expect("the schema has this message")
}
