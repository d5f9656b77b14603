//! A frame as who appends lays it out, for the log to finish where it stands.

use super::{
    BATCH_RECORDS, BATCH_REMAINING, CHECKSUM, CHECKSUM_BYTES, Field, HEADER_NAME, HEADER_VALUE,
    HEADERS, KEY, LENGTH_BYTES, Layout, OFFSET, PRODUCER_ID, PRODUCER_SEQUENCE, Producer,
    TIMESTAMP_MS, VALUE, bytes_field_len, bytes_len, encode_varint, encoded_len_varint,
    frame_bytes, next_field, number_field_len, span, xxh3_64,
};
use crate::{Offset, Record};
use bytes::Bytes;

/// A frame that lacks its checksum, and whose offset and timestamp may yet become others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draft {
    bytes: u32,
    offset: Number,
    timestamp_ms: Number,
    pub(crate) batch_remaining: u64,
    /// 0 if there is none.
    pub(crate) batch_records: u64,
    layout: Layout,
}

/// A number, and where it is encoded. 0 is nowhere.
#[derive(Clone, Copy, Debug, Default)]
struct Number {
    number: u64,
    at: u32,
}

impl Draft {
    /// The draft that `bytes` begin with: none unless its fields are those, and stand as, a frame's do that
    /// the log itself encodes.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let frame = &bytes[..frame_bytes(bytes, bytes.len() as u64)?];
        let record_bytes = frame.len() - LENGTH_BYTES;
        let fields_end = LENGTH_BYTES + record_bytes.checked_sub(CHECKSUM_BYTES)?;
        if frame[fields_end] != CHECKSUM {
            return None;
        }
        let mut draft = Self {
            bytes: u32::try_from(frame.len()).ok()?,
            offset: Number::default(),
            timestamp_ms: Number::default(),
            batch_remaining: 0,
            batch_records: 0,
            layout: Layout {
                checked: true,
                ..Layout::default()
            },
        };
        let layout = &mut draft.layout;
        let mut headers_bytes = 0;
        let mut producer = (&[][..], 0);
        let mut rest = &frame[LENGTH_BYTES..fields_end];
        let mut last_tag = 0;
        while !rest.is_empty() {
            let (tag, field) = next_field(&mut rest)?;
            if tag <= last_tag && (tag, last_tag) != (HEADERS, HEADERS) {
                return None;
            }
            last_tag = tag;
            let end = fields_end - rest.len();
            match (tag, field) {
                (VALUE, Field::Bytes(value)) => layout.value = span(frame, value, end)?,
                (OFFSET, Field::Varint(number)) => draft.offset = Number::ending(number, end)?,
                (TIMESTAMP_MS, Field::Varint(number)) => {
                    draft.timestamp_ms = Number::ending(number, end)?;
                }
                (KEY, Field::Bytes(key)) => layout.key = span(frame, key, end)?,
                (HEADERS, Field::Bytes(header)) => {
                    check_header(header)?;
                    layout.has_headers = true;
                    headers_bytes += 1 + bytes_len(header.len() as u64);
                }
                (BATCH_REMAINING, Field::Varint(records)) => draft.batch_remaining = records,
                (BATCH_RECORDS, Field::Varint(records)) => draft.batch_records = records,
                (PRODUCER_ID, Field::Bytes(id)) => {
                    layout.has_producer = true;
                    producer.0 = id;
                }
                // Of no one, it is nothing.
                (PRODUCER_SEQUENCE, Field::Varint(sequence)) if layout.has_producer => {
                    producer.1 = sequence;
                }
                _ => return None,
            }
        }
        // That nothing is longer than it need be, nor there without need.
        let numbers = [
            draft.offset.number,
            draft.timestamp_ms.number,
            draft.batch_remaining,
            draft.batch_records,
            producer.1,
        ];
        let least = bytes_field_len(layout.value.of(frame))
            + bytes_field_len(layout.key.of(frame))
            + headers_bytes
            + bytes_field_len(producer.0)
            + numbers.into_iter().map(number_field_len).sum::<u64>()
            + CHECKSUM_BYTES as u64;
        (least == record_bytes as u64).then_some(draft)
    }

    /// The bytes of its frame.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes as usize
    }

    /// Its timestamp in milliseconds, 0 if it has none.
    pub(crate) fn timestamp_ms(&self) -> u64 {
        self.timestamp_ms.number
    }

    /// Whose record it is.
    pub(crate) fn producer<'a>(&self, frame: &'a [u8]) -> Option<Producer<'a>> {
        self.layout.producer(frame)
    }

    /// Whether it can have this offset and this timestamp where it stands, which takes numbers of the same
    /// length.
    #[inline]
    pub(crate) fn can_be(&self, offset: Offset, timestamp_ms: u64) -> bool {
        let same = |a: u64, b: u64| a == b || number_field_len(a) == number_field_len(b);
        same(self.offset.number, offset.0) && same(self.timestamp_ms.number, timestamp_ms)
    }

    /// Makes it the frame of this offset and this timestamp, which it [can be](Self::can_be).
    #[inline]
    pub(crate) fn finish(&self, frame: &mut [u8], offset: Offset, timestamp_ms: u64) {
        self.offset.replace(frame, offset.0);
        self.timestamp_ms.replace(frame, timestamp_ms);
        let fields_end = frame.len() - CHECKSUM_BYTES;
        let checksum = xxh3_64(&frame[..fields_end]);
        frame[fields_end + 1..].copy_from_slice(&checksum.to_le_bytes());
    }

    /// What it says, to be encoded anew. Its offset counts for nothing.
    pub(crate) fn record(&self, frame: &[u8]) -> Record {
        let layout = Layout {
            timestamp_ms: self.timestamp_ms.number,
            ..self.layout
        };
        Record::of(Bytes::copy_from_slice(frame), layout)
    }
}

impl Number {
    /// One whose encoding ends there.
    fn ending(number: u64, end: usize) -> Option<Self> {
        let at = u32::try_from(end - encoded_len_varint(number)).ok()?;
        Some(Self { number, at })
    }

    fn replace(self, frame: &mut [u8], number: u64) {
        if number != self.number {
            encode_varint(number, &mut &mut frame[self.at as usize..]);
        }
    }
}

/// A header as the log encodes it: a name and a value, in this order and without need of more bytes.
fn check_header(header: &[u8]) -> Option<()> {
    let (mut least, mut last_tag) = (0, 0);
    let mut rest = header;
    while !rest.is_empty() {
        let (tag, field) = next_field(&mut rest)?;
        let Field::Bytes(part) = field else {
            return None;
        };
        if tag <= last_tag || !matches!(tag, HEADER_NAME | HEADER_VALUE) || part.is_empty() {
            return None;
        }
        if tag == HEADER_NAME {
            std::str::from_utf8(part).ok()?;
        }
        last_tag = tag;
        least += bytes_field_len(part);
    }
    (least == header.len() as u64).then_some(())
}
