//! The frame that holds a record in a store: `FORMAT.md`'s bytes, read and written.
//!
//! Protobuf's wire format is described at <https://protobuf.dev/programming-guides/encoding/>.

use std::ops::Range;

use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};
use xxhash_rust::xxh3::xxh3_64;

use super::{Header, NewRecord};
use crate::{Offset, error::Damaged};

/// The bytes of a frame's length, before the record.
pub(crate) const LENGTH_BYTES: usize = 8;
/// A record is never longer: 1 GiB, so that every length in it fits a `u32`, also in wasm.
pub(crate) const RECORD_BYTES_LIMIT: u64 = 1 << 30;
/// The checksum field: a byte of tag, eight of XXH3-64.
pub(crate) const CHECKSUM_BYTES: usize = 9;
/// The least a frame takes that this library writes: its length and a checksum.
pub(crate) const FRAME_BYTES_MIN: u64 = (LENGTH_BYTES + CHECKSUM_BYTES) as u64;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;
const FIXED32: u8 = 5;

const VALUE: u8 = (1 << 3) | BYTES;
const OFFSET: u8 = (2 << 3) | VARINT;
const TIMESTAMP_MS: u8 = (5 << 3) | VARINT;
const KEY: u8 = (6 << 3) | BYTES;
const HEADERS: u8 = (7 << 3) | BYTES;
const BATCH_REMAINING: u8 = (8 << 3) | VARINT;
const BATCH_RECORDS: u8 = (9 << 3) | VARINT;
pub(crate) const CHECKSUM: u8 = (15 << 3) | FIXED64;
const HEADER_NAME: u8 = (1 << 3) | BYTES;
const HEADER_VALUE: u8 = (2 << 3) | BYTES;

const _: () = assert!(CHECKSUM == 0x79 && CHECKSUM_BYTES == 1 + size_of::<u64>());

/// A part of a frame. Half the size of a `Range<usize>`: a record carries two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Span {
    start: u32,
    end: u32,
}

impl Span {
    pub(super) fn of(self, frame: &[u8]) -> &[u8] {
        &frame[self.range()]
    }

    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// What a frame holds, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) offset: Offset,
    pub(crate) batch_remaining: u32,
    batch_records: u32,
    pub(crate) checked: bool,
    has_headers: bool,
    pub(super) timestamp_ms: u64,
    pub(super) value: Span,
    pub(super) key: Span,
}

impl Layout {
    /// The headers, name and value, of the frame this is the layout of.
    pub(super) fn headers(self, frame: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
        let checksum = if self.checked { CHECKSUM_BYTES } else { 0 };
        let mut fields = &frame[LENGTH_BYTES..frame.len() - checksum];
        // The layout was read from these bytes, so every step succeeds until they are used up.
        std::iter::from_fn(move || {
            while self.has_headers && !fields.is_empty() {
                if let (HEADERS, Field::Bytes(header)) = next_field(&mut fields)? {
                    return decode_header(header);
                }
            }
            None
        })
    }

    /// The first offset of the batch whose last record this is, its own if it is no batch's.
    pub(crate) fn batch_first(&self) -> Offset {
        Offset(
            self.offset
                .0
                .saturating_sub(u64::from(self.batch_records.max(1) - 1)),
        )
    }
}

/// How much of a frame to check: all, or its structure where the checksum is known to be right.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verify {
    Checksum,
    Structure,
}

/// The bytes of the whole frame that starts `bytes`, if its length fits in `room`.
pub(crate) fn frame_bytes(bytes: &[u8], room: u64) -> Option<usize> {
    let length = u64::from_be_bytes(*bytes.first_chunk::<LENGTH_BYTES>()?);
    let whole = length.checked_add(LENGTH_BYTES as u64)?;
    (length <= RECORD_BYTES_LIMIT && whole <= room).then_some(usize::try_from(whole).ok()?)
}

/// Whether a record that this library or the book's program wrote can begin with this byte.
pub(crate) fn is_field_tag(byte: u8) -> bool {
    matches!(
        byte,
        VALUE
            | OFFSET
            | 0x18
            | 0x20
            | TIMESTAMP_MS
            | KEY
            | HEADERS
            | BATCH_REMAINING
            | BATCH_RECORDS
            | CHECKSUM
    )
}

/// Whether `head`, the first bytes of a frame of which only `room` bytes are there, looks like the
/// beginning of a longer one: a length that could be, and a first field that fits it.
pub(crate) fn claims_past_end(head: &[u8], room: u64) -> bool {
    let Some((length, mut rest)) = head.split_first_chunk::<LENGTH_BYTES>() else {
        return false;
    };
    let length = u64::from_be_bytes(*length);
    if length > RECORD_BYTES_LIMIT || length + LENGTH_BYTES as u64 <= room {
        return false;
    }
    match rest.split_off_first() {
        Some(&VALUE) => {
            let Ok(value) = decode_varint(&mut rest) else {
                return false;
            };
            bytes_len(value) < length
        }
        Some(&(OFFSET | CHECKSUM)) => true,
        _ => false,
    }
}

/// Reads a whole frame, its length included. Allocates nothing.
pub(crate) fn parse_frame(frame: &[u8], verify: Verify) -> Result<Layout, Damaged> {
    if frame_bytes(frame, frame.len() as u64) != Some(frame.len()) {
        return Err(Damaged::Length);
    }
    let fields_end = frame.len().wrapping_sub(CHECKSUM_BYTES);
    if fields_end >= LENGTH_BYTES && fields_end < frame.len() && frame[fields_end] == CHECKSUM {
        // The last nine bytes look like a checksum: it decides.
        if verify == Verify::Structure || checksum_matches(frame) {
            if let Some(layout) = parse_checked(frame, fields_end) {
                return Ok(layout);
            }
            if verify == Verify::Checksum {
                return Err(Damaged::Malformed);
            }
        }
        // Or they are the end of the book's value, which may hold any bytes.
        return match parse_unchecked(frame) {
            Some(layout) if !is_checked_but_for_one_bit(frame) => Ok(layout),
            _ => Err(Damaged::Checksum),
        };
    }
    parse_unchecked(frame).ok_or(Damaged::Malformed)
}

/// Whether a frame's last eight bytes are the XXH3-64 of all before the checksum field.
pub(crate) fn checksum_matches(frame: &[u8]) -> bool {
    let Some((head, checksum)) = frame.split_last_chunk::<8>() else {
        return false;
    };
    match head.split_last() {
        Some((&CHECKSUM, covered)) => xxh3_64(covered) == u64::from_le_bytes(*checksum),
        _ => false,
    }
}

fn parse_checked(frame: &[u8], fields_end: usize) -> Option<Layout> {
    let mut layout = Layout {
        checked: true,
        ..Layout::default()
    };
    let mut rest = &frame[LENGTH_BYTES..fields_end];
    while !rest.is_empty() {
        let (tag, field) = next_field(&mut rest)?;
        match (tag, field) {
            (VALUE, Field::Bytes(value)) => {
                layout.value = span(frame, value, fields_end - rest.len())?
            }
            (KEY, Field::Bytes(key)) => layout.key = span(frame, key, fields_end - rest.len())?,
            (HEADERS, Field::Bytes(header)) => {
                decode_header(header)?;
                layout.has_headers = true;
            }
            (OFFSET, Field::Varint(offset)) => layout.offset = Offset(offset),
            (TIMESTAMP_MS, Field::Varint(ms)) => layout.timestamp_ms = ms,
            (BATCH_REMAINING, Field::Varint(n)) => {
                layout.batch_remaining = u32::try_from(n).ok()?
            }
            (BATCH_RECORDS, Field::Varint(n)) => layout.batch_records = u32::try_from(n).ok()?,
            // A known field of another type is no record; a field of a later version is skipped.
            (tag, _) if (1..=9).contains(&(tag >> 3)) && !matches!(tag >> 3, 3 | 4) => return None,
            _ => {}
        }
    }
    Some(layout)
}

/// A record of the book's: fields 1 to 4, each at most once, in order, never zero or empty, as Go's
/// protobuf writes them. Being strict leaves less for a flipped bit to pass as.
fn parse_unchecked(frame: &[u8]) -> Option<Layout> {
    let mut layout = Layout::default();
    let mut rest = &frame[LENGTH_BYTES..];
    let mut last_tag = 0;
    while !rest.is_empty() {
        let before = rest;
        let (tag, field) = next_field(&mut rest)?;
        if tag <= last_tag {
            return None;
        }
        last_tag = tag;
        let number = match (tag, field) {
            (VALUE, Field::Bytes(value)) if !value.is_empty() => {
                layout.value = span(frame, value, frame.len() - rest.len())?;
                value.len() as u64
            }
            (OFFSET, Field::Varint(offset)) if offset != 0 => {
                layout.offset = Offset(offset);
                offset
            }
            (0x18 | 0x20, Field::Varint(number)) if number != 0 => number,
            _ => return None,
        };
        // No longer than it need be: tag, number, and for the value its bytes.
        let bytes = if tag == VALUE {
            usize::try_from(number).ok()?
        } else {
            0
        };
        if before.len() - rest.len() != 1 + encoded_len_varint(number) + bytes {
            return None;
        }
    }
    Some(layout)
}

/// Whether this frame, taken for one of the book's, is one of ours with a flipped bit in the length
/// of its value, so that the value has swallowed the fields after it.
fn is_checked_but_for_one_bit(frame: &[u8]) -> bool {
    const TAG: usize = LENGTH_BYTES;
    if frame.get(TAG) != Some(&VALUE) {
        return false;
    }
    let mut flipped = frame.to_vec();
    (0..5 * 8).any(|bit| {
        let at = TAG + 1 + bit / 8;
        if at >= flipped.len() {
            return false;
        }
        flipped[at] ^= 1 << (bit % 8);
        let whole = checksum_matches(&flipped);
        flipped[at] ^= 1 << (bit % 8);
        whole
    })
}

enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Takes the next field off `rest`. Its tag is the first byte for fields 1 to 15, 0 for higher ones.
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u8, Field<'a>)> {
    let tag = decode_varint(rest).ok()?;
    if tag < 8 || tag > u64::from(u32::MAX) {
        return None;
    }
    let field = match (tag & 7) as u8 {
        VARINT => Field::Varint(decode_varint(rest).ok()?),
        BYTES => {
            let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
            let (bytes, after) = rest.split_at_checked(length)?;
            *rest = after;
            Field::Bytes(bytes)
        }
        FIXED64 => {
            *rest = rest.get(8..)?;
            Field::Other
        }
        FIXED32 => {
            *rest = rest.get(4..)?;
            Field::Other
        }
        _ => return None,
    };
    let one_byte = u8::try_from(tag).ok().filter(|&tag| tag < 0x80);
    Some((one_byte.unwrap_or(0), field))
}

fn decode_header(mut rest: &[u8]) -> Option<(&str, &[u8])> {
    let (mut name, mut value) = ("", &[][..]);
    while !rest.is_empty() {
        match next_field(&mut rest)? {
            (HEADER_NAME, Field::Bytes(bytes)) => name = std::str::from_utf8(bytes).ok()?,
            (HEADER_VALUE, Field::Bytes(bytes)) => value = bytes,
            (8..24, _) => return None,
            _ => {}
        }
    }
    Some((name, value))
}

/// The span of `part`, which ends at `end` of the frame.
fn span(frame: &[u8], part: &[u8], end: usize) -> Option<Span> {
    debug_assert!(end <= frame.len());
    Some(Span {
        start: u32::try_from(end - part.len()).ok()?,
        end: u32::try_from(end).ok()?,
    })
}

/// A record with all that its frame needs, ready to be encoded.
#[derive(Clone, Copy)]
pub(crate) struct FrameToWrite<'a> {
    pub(crate) record: NewRecord<'a>,
    pub(crate) offset: Offset,
    pub(crate) timestamp_ms: u64,
    pub(crate) batch_remaining: u32,
    /// On the last record of a batch of more than one: how many they are. 0 on all others.
    pub(crate) batch_records: u32,
}

impl FrameToWrite<'_> {
    /// The bytes of the encoded record, without the frame's length.
    pub(crate) fn record_bytes(&self) -> u64 {
        let bytes = |part: &[u8]| {
            if part.is_empty() {
                0
            } else {
                1 + bytes_len(part.len() as u64)
            }
        };
        let number = |n: u64| {
            if n == 0 {
                0
            } else {
                1 + encoded_len_varint(n) as u64
            }
        };
        bytes(self.record.value)
            + number(self.offset.0)
            + number(self.timestamp_ms)
            + bytes(self.record.key)
            + self
                .record
                .headers
                .iter()
                .map(|h| 1 + bytes_len(header_len(h)))
                .sum::<u64>()
            + number(u64::from(self.batch_remaining))
            + number(u64::from(self.batch_records))
            + CHECKSUM_BYTES as u64
    }

    /// Appends the frame to `out`.
    pub(crate) fn encode(&self, record_bytes: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&record_bytes.to_be_bytes());
        put_bytes(VALUE, self.record.value, out);
        put_number(OFFSET, self.offset.0, out);
        put_number(TIMESTAMP_MS, self.timestamp_ms, out);
        put_bytes(KEY, self.record.key, out);
        for header in self.record.headers {
            out.push(HEADERS);
            encode_varint(header_len(header), out);
            put_bytes(HEADER_NAME, header.name.as_bytes(), out);
            put_bytes(HEADER_VALUE, &header.value, out);
        }
        put_number(BATCH_REMAINING, u64::from(self.batch_remaining), out);
        put_number(BATCH_RECORDS, u64::from(self.batch_records), out);
        let checksum = xxh3_64(&out[start..]);
        out.push(CHECKSUM);
        out.extend_from_slice(&checksum.to_le_bytes());
        debug_assert_eq!(
            (out.len() - start) as u64,
            LENGTH_BYTES as u64 + record_bytes
        );
    }
}

fn bytes_len(length: u64) -> u64 {
    encoded_len_varint(length) as u64 + length
}

fn header_len(header: &Header) -> u64 {
    [header.name.as_bytes(), &header.value]
        .iter()
        .filter(|part| !part.is_empty())
        .map(|part| 1 + bytes_len(part.len() as u64))
        .sum()
}

fn put_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    if !bytes.is_empty() {
        out.push(tag);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(bytes);
    }
}

fn put_number(tag: u8, number: u64, out: &mut Vec<u8>) {
    if number != 0 {
        out.push(tag);
        encode_varint(number, out);
    }
}
