//! The frame that holds a record in a store: `FORMAT.md`'s bytes, read and written.
//!
//! Protobuf's wire format is described at <https://protobuf.dev/programming-guides/encoding/>.

mod draft;

use std::ops::Range;

use bytes::BufMut;
use prost::encoding::{encode_varint, encoded_len_varint};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

pub(crate) use self::draft::Draft;
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
pub(crate) enum Check {
    Checksum,
    Structure,
}

/// The bytes of the whole frame that starts `bytes`, if its length fits in `room`.
#[inline]
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

/// How many bytes the frame that begins with `head` says it has, if that is what a frame can begin
/// with: a length that could be, and a first field that fits it.
pub(crate) fn claimed_bytes(head: &[u8]) -> Option<u64> {
    let (length, mut rest) = head.split_first_chunk::<LENGTH_BYTES>()?;
    let length = u64::from_be_bytes(*length);
    if length > RECORD_BYTES_LIMIT {
        return None;
    }
    let fits = match *rest.split_off_first()? {
        VALUE | KEY | HEADERS => bytes_len(varint(&mut rest)?) < length,
        tag => is_field_tag(tag),
    };
    fits.then_some(length + LENGTH_BYTES as u64)
}

/// Reads a whole frame, its length included. Allocates nothing.
#[inline]
pub(crate) fn parse_frame(frame: &[u8], check: Check) -> Result<Layout, Damaged> {
    if frame_bytes(frame, frame.len() as u64) != Some(frame.len()) {
        return Err(Damaged::Length);
    }
    let fields_end = frame.len().wrapping_sub(CHECKSUM_BYTES);
    if fields_end >= LENGTH_BYTES && fields_end < frame.len() && frame[fields_end] == CHECKSUM {
        // The last nine bytes look like a checksum: it decides.
        if check == Check::Structure || checksum_matches(frame) {
            if let Some(layout) = parse_checked(frame, fields_end) {
                return Ok(layout);
            }
            if check == Check::Checksum {
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
#[inline]
pub(crate) fn checksum_matches(frame: &[u8]) -> bool {
    let Some((head, checksum)) = frame.split_last_chunk::<8>() else {
        return false;
    };
    match head.split_last() {
        Some((&CHECKSUM, covered)) => xxh3_64(covered) == u64::from_le_bytes(*checksum),
        _ => false,
    }
}

#[inline]
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

/// Takes a number off `rest`: as prost's `decode_varint`, but small enough to be inlined, for every read
/// does it half a dozen times.
#[inline(always)]
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for (i, &byte) in rest.iter().take(10).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *rest = &rest[i + 1..];
            // The tenth byte has room for one bit.
            return (i < 9 || byte <= 1).then_some(number);
        }
    }
    None
}

enum Field<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Other,
}

/// Takes the next field off `rest`. Its tag is the first byte for fields 1 to 15, 0 for higher ones.
#[inline]
fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u8, Field<'a>)> {
    let tag = varint(rest)?;
    if tag < 8 || tag > u64::from(u32::MAX) {
        return None;
    }
    let field = match (tag & 7) as u8 {
        VARINT => Field::Varint(varint(rest)?),
        BYTES => {
            let length = usize::try_from(varint(rest)?).ok()?;
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
#[inline]
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
    #[inline]
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

    /// Encodes the frame into `out`, which is as long as it.
    #[inline]
    pub(crate) fn encode(&self, record_bytes: u64, out: &mut [u8]) {
        let fields_end = out.len() - CHECKSUM_BYTES;
        let mut rest = &mut out[..fields_end];
        rest.put_u64(record_bytes);
        put_bytes(VALUE, self.record.value, &mut rest);
        self.put_rest(&mut rest);
        debug_assert!(rest.is_empty());
        let checksum = xxh3_64(&out[..fields_end]);
        put_checksum(checksum, &mut &mut out[fields_end..]);
    }

    /// Encodes what stands before the value and what stands after it, so that the value can be written
    /// from where it is.
    pub(crate) fn encode_around_value(&self, record_bytes: u64) -> (Vec<u8>, Vec<u8>) {
        let value = self.record.value;
        let mut head = Vec::with_capacity(LENGTH_BYTES + 1 + 10);
        head.put_u64(record_bytes);
        if !value.is_empty() {
            head.push(VALUE);
            encode_varint(value.len() as u64, &mut head);
        }
        let mut rest = Vec::with_capacity(64);
        self.put_rest(&mut rest);
        let mut hasher = Xxh3::new();
        for part in [&head, value, &rest] {
            hasher.update(part);
        }
        put_checksum(hasher.digest(), &mut rest);
        (head, rest)
    }

    /// The fields after the value, but for the checksum.
    #[inline]
    fn put_rest(&self, out: &mut impl BufMut) {
        put_number(OFFSET, self.offset.0, out);
        put_number(TIMESTAMP_MS, self.timestamp_ms, out);
        put_bytes(KEY, self.record.key, out);
        for header in self.record.headers {
            out.put_u8(HEADERS);
            encode_varint(header_len(header), out);
            put_bytes(HEADER_NAME, header.name.as_bytes(), out);
            put_bytes(HEADER_VALUE, &header.value, out);
        }
        put_number(BATCH_REMAINING, u64::from(self.batch_remaining), out);
        put_number(BATCH_RECORDS, u64::from(self.batch_records), out);
    }
}

fn put_checksum(checksum: u64, out: &mut impl BufMut) {
    out.put_u8(CHECKSUM);
    out.put_u64_le(checksum);
}

fn bytes_len(length: u64) -> u64 {
    (encoded_len_varint(length) as u64).saturating_add(length)
}

fn header_len(header: &Header) -> u64 {
    [header.name.as_bytes(), &header.value]
        .iter()
        .filter(|part| !part.is_empty())
        .map(|part| 1 + bytes_len(part.len() as u64))
        .sum()
}

#[inline]
fn put_bytes(tag: u8, bytes: &[u8], out: &mut impl BufMut) {
    if !bytes.is_empty() {
        out.put_u8(tag);
        encode_varint(bytes.len() as u64, out);
        out.put_slice(bytes);
    }
}

#[inline]
fn put_number(tag: u8, number: u64, out: &mut impl BufMut) {
    if number != 0 {
        out.put_u8(tag);
        encode_varint(number, out);
    }
}
