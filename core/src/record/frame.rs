//! The frame that holds a record in a store: `FORMAT.md`'s bytes, read and written.
//!
//! Protobuf's wire format is described at <https://protobuf.dev/programming-guides/encoding/>.

mod draft;
mod gap;

use std::ops::Range;

use prost::encoding::{encode_varint, encoded_len_varint};
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

pub(crate) use self::{
    draft::Draft,
    gap::{Framed, GAP_FRAME_BYTES_MAX, GAP_FRAME_BYTES_MIN, encode_gap, parse_framed, parse_gap},
};
use super::{Header, NewRecord, Producer};
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
const PRODUCER_ID: u8 = (10 << 3) | BYTES;
const PRODUCER_SEQUENCE: u8 = (11 << 3) | VARINT;
const GAP_RECORDS: u8 = (12 << 3) | VARINT;
const GAP_CAUSE: u8 = (13 << 3) | VARINT;
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
    #[inline]
    pub(super) fn of(self, frame: &[u8]) -> &[u8] {
        &frame[self.range()]
    }

    #[inline]
    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// What a frame holds, and where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) offset: Offset,
    pub(crate) batch_remaining: u32,
    pub(super) batch_records: u32,
    pub(crate) checked: bool,
    has_headers: bool,
    has_producer: bool,
    pub(super) timestamp_ms: u64,
    pub(super) value: Span,
    pub(super) key: Span,
}

impl Layout {
    /// The headers, name and value, of the frame this is the layout of.
    pub(super) fn headers(self, frame: &[u8]) -> impl Iterator<Item = (&str, &[u8])> {
        let mut fields = self.fields(frame);
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

    /// Whose record it is, of the frame this is the layout of.
    pub(super) fn producer(self, frame: &[u8]) -> Option<Producer<'_>> {
        if !self.has_producer {
            return None;
        }
        let mut producer = Producer {
            id: &[],
            sequence: 0,
        };
        let mut fields = self.fields(frame);
        while !fields.is_empty() {
            match next_field(&mut fields)? {
                (PRODUCER_ID, Field::Bytes(id)) => producer.id = id,
                (PRODUCER_SEQUENCE, Field::Varint(sequence)) => producer.sequence = sequence,
                _ => {}
            }
        }
        Some(producer)
    }

    /// The fields before the checksum.
    fn fields(self, frame: &[u8]) -> &[u8] {
        let checksum = if self.checked { CHECKSUM_BYTES } else { 0 };
        &frame[LENGTH_BYTES..frame.len() - checksum]
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
            | PRODUCER_ID
            | GAP_RECORDS
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
        VALUE | KEY | HEADERS | PRODUCER_ID => bytes_len(varint(&mut rest)?) < length,
        tag => is_field_tag(tag),
    };
    fits.then_some(length + LENGTH_BYTES as u64)
}

/// Reads a whole frame, its length included. Allocates nothing.
///
/// Inlined with the little that most frames take: the layout would otherwise be copied from one place in memory to
/// the next, in larger parts than it was just written there in, for which a processor has to wait. For browsers
/// (`target_os = "unknown"`) neither this nor what else is inlined elsewhere is: they load the code.
#[cfg_attr(not(target_os = "unknown"), inline(always))]
pub(crate) fn parse_frame(frame: &[u8], check: Check) -> Result<Layout, Damaged> {
    if frame_bytes(frame, frame.len() as u64) == Some(frame.len())
        && (check == Check::Structure || checksum_matches(frame))
        && let Some(layout) = parse_in_order(frame)
    {
        return Ok(layout);
    }
    parse_any_frame(frame, check)
}

#[cold]
fn parse_any_frame(frame: &[u8], check: Check) -> Result<Layout, Damaged> {
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

/// The layout of a frame that ends with a checksum field and holds what most do, in the order in which it is
/// written: as [`parse_checked`], without its loop.
#[inline(always)]
fn parse_in_order(frame: &[u8]) -> Option<Layout> {
    let mut rest = frame.get(LENGTH_BYTES..)?;
    let value = bytes_of(VALUE, frame, &mut rest)?;
    let offset = number_of(OFFSET, &mut rest)?;
    let timestamp_ms = number_of(TIMESTAMP_MS, &mut rest)?;
    let key = bytes_of(KEY, frame, &mut rest)?;
    let batch_remaining = number_of(BATCH_REMAINING, &mut rest)?;
    let batch_records = number_of(BATCH_RECORDS, &mut rest)?;
    if rest.len() != CHECKSUM_BYTES || rest[0] != CHECKSUM {
        return None;
    }
    Some(Layout {
        offset: Offset(offset),
        batch_remaining: u32::try_from(batch_remaining).ok()?,
        batch_records: u32::try_from(batch_records).ok()?,
        checked: true,
        has_headers: false,
        has_producer: false,
        timestamp_ms,
        value,
        key,
    })
}

/// The number of a field, if it comes next, or 0. `None` where it needs a closer look.
#[inline(always)]
fn number_of(tag: u8, rest: &mut &[u8]) -> Option<u64> {
    // There are as many up to the end of the checksum, or something is amiss.
    let [first, word @ ..] = rest.first_chunk::<{ 1 + size_of::<u64>() }>()?;
    if *first != tag {
        return Some(0);
    }
    let (number, bytes) = varint_in_word(u64::from_le_bytes(*word))?;
    *rest = &rest[1 + bytes..];
    Some(number)
}

/// Likewise the bytes of a field, or none.
#[inline(always)]
fn bytes_of(tag: u8, frame: &[u8], rest: &mut &[u8]) -> Option<Span> {
    let before = rest.len();
    let length = number_of(tag, rest)?;
    if rest.len() == before {
        return Some(Span::default());
    }
    let (bytes, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    span(frame, bytes, frame.len() - after.len())
}

/// The layout of a frame that ends with a checksum field.
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
            (PRODUCER_ID, Field::Bytes(id)) => layout.has_producer = !id.is_empty(),
            (PRODUCER_SEQUENCE, Field::Varint(_)) => {}
            // A known field of another type is no record; a field of a later version is skipped.
            (tag, _) if (1..=11).contains(&(tag >> 3)) && !matches!(tag >> 3, 3 | 4) => {
                return None;
            }
            // A frame that tells of a gap is none either.
            (tag, _) if matches!(tag >> 3, 12 | 13) => return None,
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

/// Takes a number off `rest`: as prost's `decode_varint`, for a slice that is cut.
#[inline]
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

/// The number that begins with the lowest byte of `word`, and its bytes, if it ends in it.
#[inline(always)]
fn varint_in_word(word: u64) -> Option<(u64, usize)> {
    // Most are of one byte or two.
    if word & 0x80 == 0 {
        return Some((word & 0x7f, 1));
    }
    if word & 0x8000 == 0 {
        return Some(((word & 0x7f) | (word >> 1 & 0x3f80), 2));
    }
    // The last byte of a number is the first without its highest bit.
    let ends = !word & 0x8080_8080_8080_8080;
    if ends == 0 {
        return None;
    }
    let bits = ends.trailing_zeros() + 1;
    // Groups of 7 bits become groups of 14, of 28, and one of 56.
    let sevens = word & (u64::MAX >> (64 - bits)) & 0x7f7f_7f7f_7f7f_7f7f;
    let fourteens = (sevens & 0x007f_007f_007f_007f) | (sevens & 0x7f00_7f00_7f00_7f00) >> 1;
    let halves = (fourteens & 0x0000_3fff_0000_3fff) | (fourteens & 0x3fff_0000_3fff_0000) >> 2;
    let number = (halves & 0x0fff_ffff) | (halves & 0x0fff_ffff_0000_0000) >> 4;
    Some((number, bits as usize / 8))
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
    pub(crate) record: &'a NewRecord<'a>,
    pub(crate) offset: Offset,
    pub(crate) timestamp_ms: u64,
    pub(crate) batch_remaining: u32,
    /// On the last record of a batch of more than one: how many they are. 0 on all others.
    pub(crate) batch_records: u32,
}

/// No field that is a number takes more: a tag and ten bytes.
const NUMBER_FIELD_BYTES_MAX: u64 = 1 + 10;
/// Nor a tag and a length, of a record that is not too large.
const TAG_AND_LENGTH_BYTES_MAX: u64 = 1 + 5;
/// Nor a frame, beside its value, its key and its headers.
const FRAME_BYTES_BESIDE_MAX: u64 = LENGTH_BYTES as u64
    + 2 * TAG_AND_LENGTH_BYTES_MAX
    + 4 * NUMBER_FIELD_BYTES_MAX
    + CHECKSUM_BYTES as u64;

/// The bytes that this record's frame has at the most, whatever its offset and the like: found with less work than how
/// many they are. Only a record larger than the limit can have more.
#[inline]
pub(crate) fn frame_bytes_max(record: &NewRecord<'_>) -> u64 {
    let parts = record.value.len() as u64 + record.key.len() as u64;
    let headers = if record.headers.is_empty() {
        0
    } else {
        headers_bytes_max(record.headers)
    };
    let producer = match record.producer {
        None => 0,
        Some(Producer { id, .. }) => {
            TAG_AND_LENGTH_BYTES_MAX + id.len() as u64 + NUMBER_FIELD_BYTES_MAX
        }
    };
    FRAME_BYTES_BESIDE_MAX + parts + headers + producer
}

/// Not inlined where records mostly have none.
#[inline(never)]
fn headers_bytes_max(headers: &[Header]) -> u64 {
    let bytes_max = |header: &Header| {
        3 * TAG_AND_LENGTH_BYTES_MAX + header.name.len() as u64 + header.value.len() as u64
    };
    headers.iter().map(bytes_max).sum()
}

impl FrameToWrite<'_> {
    /// The bytes of the encoded record, without the frame's length.
    pub(crate) fn record_bytes(&self) -> u64 {
        let headers = self.record.headers.iter();
        bytes_field_len(self.record.value)
            + number_field_len(self.offset.0)
            + number_field_len(self.timestamp_ms)
            + bytes_field_len(self.record.key)
            + headers.map(|h| 1 + bytes_len(header_len(h))).sum::<u64>()
            + number_field_len(u64::from(self.batch_remaining))
            + number_field_len(u64::from(self.batch_records))
            + self.record.producer.map_or(0, producer_len)
            + CHECKSUM_BYTES as u64
    }

    /// Encodes the frame into the beginning of `out`, which has [as much room](frame_bytes_max) as it may need, or as
    /// it does. Gives how many bytes it has.
    #[inline]
    pub(crate) fn encode(&self, out: &mut [u8]) -> usize {
        let mut fields = self.put_fields(out);
        let checksum = xxh3_64(&fields.out[..fields.at]);
        fields.put_checksum(checksum);
        fields.at
    }

    /// As [`FrameToWrite::encode`], but for the checksum, which is left to whoever finishes the frame.
    pub(crate) fn encode_draft(&self, out: &mut [u8]) -> usize {
        let mut fields = self.put_fields(out);
        fields.put_checksum(0);
        fields.at
    }

    #[inline]
    fn put_fields<'a>(&self, out: &'a mut [u8]) -> Fields<'a> {
        let at = LENGTH_BYTES;
        let mut fields = Fields { out, at };
        fields.put_bytes(VALUE, self.record.value);
        self.put_rest(&mut fields);
        let record_bytes = (fields.at - LENGTH_BYTES + CHECKSUM_BYTES) as u64;
        fields.put_array(0, record_bytes.to_be_bytes());
        fields
    }

    /// Encodes what stands before the value and what stands after it, so that the value can be written
    /// from where it is.
    pub(crate) fn encode_around_value(&self) -> (Vec<u8>, Vec<u8>) {
        let value = self.record.value;
        let record_bytes = self.record_bytes();
        let frame_bytes = LENGTH_BYTES + usize::try_from(record_bytes).unwrap_or(usize::MAX);
        let mut around = vec![0; frame_bytes - value.len()];
        let mut fields = Fields {
            out: &mut around,
            at: 0,
        };
        fields.put(&record_bytes.to_be_bytes());
        fields.put_nonzero(VALUE, value.len() as u64);
        let head_bytes = fields.at;
        self.put_rest(&mut fields);
        let (head, rest) = fields.out[..fields.at].split_at(head_bytes);
        let mut hasher = Xxh3Default::new();
        for part in [head, value, rest] {
            hasher.update(part);
        }
        fields.put_checksum(hasher.digest());
        let rest = around.split_off(head_bytes);
        (around, rest)
    }

    /// The fields after the value, but for the checksum.
    #[inline]
    fn put_rest(&self, fields: &mut Fields<'_>) {
        fields.put_nonzero(OFFSET, self.offset.0);
        fields.put_nonzero(TIMESTAMP_MS, self.timestamp_ms);
        fields.put_bytes(KEY, self.record.key);
        for header in self.record.headers {
            fields.put_number(HEADERS, header_len(header));
            fields.put_bytes(HEADER_NAME, header.name.as_bytes());
            fields.put_bytes(HEADER_VALUE, &header.value);
        }
        fields.put_nonzero(BATCH_REMAINING, u64::from(self.batch_remaining));
        fields.put_nonzero(BATCH_RECORDS, u64::from(self.batch_records));
        if let Some(producer) = self.record.producer {
            fields.at += put_producer(producer, &mut fields.out[fields.at..]);
        }
    }
}

/// Puts fields into memory that is at least as long as they and a checksum. Numbers are put eight bytes at a time, over
/// what comes next: there is always as much, for the checksum comes last.
struct Fields<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Fields<'_> {
    /// Puts bytes there, and counts none. Compiled for size, a copy of a slice would be a call that asks how long it is.
    #[inline(always)]
    fn put_array<const BYTES: usize>(&mut self, at: usize, bytes: [u8; BYTES]) {
        let free = self.out.get_mut(at..).unwrap_or_default();
        match free.first_chunk_mut() {
            Some(first) => *first = bytes,
            None => no_room(),
        }
    }

    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    /// A field that is a number, or the beginning of one that has so many bytes.
    #[inline(always)]
    fn put_number(&mut self, tag: u8, number: u64) {
        match word_of_number(tag, number) {
            Some((word, bytes)) => {
                self.put_array(self.at, word.to_le_bytes());
                self.at += bytes;
            }
            None => self.at += put_long_number(tag, number, &mut self.out[self.at..]),
        }
    }

    /// As [`Fields::put_number`], and nothing if it is 0.
    #[inline(always)]
    fn put_nonzero(&mut self, tag: u8, number: u64) {
        if number != 0 {
            self.put_number(tag, number);
        }
    }

    #[inline(always)]
    fn put_bytes(&mut self, tag: u8, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.put_number(tag, bytes.len() as u64);
            self.put(bytes);
        }
    }

    #[inline(always)]
    fn put_checksum(&mut self, checksum: u64) {
        let [a, b, c, d, e, f, g, h] = checksum.to_le_bytes();
        self.put_array(self.at, [CHECKSUM, a, b, c, d, e, f, g, h]);
        self.at += CHECKSUM_BYTES;
    }
}

#[cold]
fn no_room() -> ! {
    unreachable!("a frame takes no more than frame_bytes_max says");
}

/// Puts whose record it is at the beginning of `out`, and gives how many bytes that takes. Not inlined where records
/// mostly are no one's in particular.
#[inline(never)]
fn put_producer(producer: Producer<'_>, out: &mut [u8]) -> usize {
    let mut fields = Fields { out, at: 0 };
    fields.put_bytes(PRODUCER_ID, producer.id);
    fields.put_nonzero(PRODUCER_SEQUENCE, producer.sequence);
    fields.at
}

/// As [`Fields::put_number`], at the beginning of `out`: how many bytes it takes. Who calls it for a large number once
/// in a while would otherwise keep its fields in memory for it.
#[cold]
fn put_long_number(tag: u8, number: u64, out: &mut [u8]) -> usize {
    out[0] = tag;
    encode_varint(number, &mut &mut out[1..]);
    1 + encoded_len_varint(number)
}

/// A tag and a number of no more than 49 bits as they are encoded, and in how many bytes: [`varint_in_word`], back.
#[inline(always)]
fn word_of_number(tag: u8, number: u64) -> Option<(u64, usize)> {
    let tag = u64::from(tag);
    // Most are of one byte or two.
    if number < 1 << 7 {
        return Some((tag | number << 8, 2));
    }
    if number < 1 << 14 {
        return Some((
            tag | 0x8000 | (number & 0x7f) << 8 | (number & 0x3f80) << 9,
            3,
        ));
    }
    if number >> 49 != 0 {
        return None;
    }
    // One group of 56 bits becomes groups of 28, of 14, and of 7.
    let halves = (number & 0x0fff_ffff) | (number & 0x00ff_ffff_f000_0000) << 4;
    let fourteens = (halves & 0x0000_3fff_0000_3fff) | (halves & 0x0fff_c000_0fff_c000) << 2;
    let sevens = (fourteens & 0x007f_007f_007f_007f) | (fourteens & 0x3f80_3f80_3f80_3f80) << 1;
    let bytes = encoded_len_varint(number);
    // All but the last are marked.
    let marks = 0x8080_8080_8080_8080 & !(u64::MAX << (8 * bytes - 8));
    Some((tag | (sevens | marks) << 8, 1 + bytes))
}

/// The bytes of a field of this number: none if it is 0.
#[inline]
fn number_field_len(number: u64) -> u64 {
    match number {
        0 => 0,
        number => 1 + encoded_len_varint(number) as u64,
    }
}

/// The bytes of a field of these bytes: none if there are none.
#[inline]
fn bytes_field_len(bytes: &[u8]) -> u64 {
    match bytes.len() as u64 {
        0 => 0,
        length => 1 + bytes_len(length),
    }
}

fn bytes_len(length: u64) -> u64 {
    (encoded_len_varint(length) as u64).saturating_add(length)
}

fn header_len(header: &Header) -> u64 {
    bytes_field_len(header.name.as_bytes()) + bytes_field_len(&header.value)
}

fn producer_len(producer: Producer<'_>) -> u64 {
    bytes_field_len(producer.id) + number_field_len(producer.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of every mix of fields, with numbers and lengths of every number of bytes.
    fn frames() -> Vec<Vec<u8>> {
        let headers = [Header::new("name", "value")];
        let long = [7; 300];
        let numbers = (0..64)
            .step_by(7)
            .flat_map(|bits| [1 << bits, (1_u64 << bits) - 1]);
        let mut frames = Vec::new();
        for number in numbers.chain([u64::MAX - 1]) {
            for (n, value) in [&[][..], &long[..1], &long[..127], &long[..128], &long]
                .into_iter()
                .enumerate()
            {
                for fields in 0..16 {
                    let has = |field: usize| (fields >> field) & 1 == 1;
                    let record = NewRecord {
                        value,
                        key: if has(0) { &long[..n * 50] } else { &[] },
                        headers: if has(1) { &headers } else { &[] },
                        timestamp_ms: None,
                        producer: has(3).then_some(Producer {
                            id: &long[..1 + n * 7],
                            sequence: number,
                        }),
                    };
                    let batch = if has(2) {
                        u32::try_from(number).unwrap_or(0)
                    } else {
                        0
                    };
                    let frame = FrameToWrite {
                        record: &record,
                        offset: Offset(number),
                        timestamp_ms: if has(0) { number } else { 0 },
                        batch_remaining: batch,
                        batch_records: batch / 2,
                    };
                    let bytes_max = usize::try_from(frame_bytes_max(&record)).unwrap();
                    let mut out = vec![0xff; bytes_max];
                    let bytes = frame.encode(&mut out);
                    assert_eq!(bytes as u64, LENGTH_BYTES as u64 + frame.record_bytes());
                    // Nothing past it is touched, nor is more room needed.
                    assert!(out[bytes..].iter().all(|&byte| byte == 0xff));
                    let mut exact = vec![0; bytes];
                    assert_eq!(frame.encode(&mut exact), bytes);
                    assert_eq!(exact, out[..bytes]);
                    let (mut around, rest) = frame.encode_around_value();
                    around.extend_from_slice(value);
                    around.extend_from_slice(&rest);
                    assert_eq!(around, exact);
                    frames.push(exact);
                }
            }
        }
        frames
    }

    #[test]
    fn numbers_are_put_as_protobuf_does() {
        for bits in 0..64 {
            for number in [1 << bits, (1 << bits) - 1, (1 << bits) | 0x55] {
                let mut expected = vec![OFFSET];
                encode_varint(number, &mut expected);
                let mut out = [0xff; 20];
                let mut fields = Fields {
                    out: &mut out,
                    at: 1,
                };
                fields.put_number(OFFSET, number);
                assert_eq!(fields.at, 1 + expected.len(), "{number}");
                assert_eq!(out[1..1 + expected.len()], expected, "{number}");
            }
        }
    }

    /// What reads a frame in order and what reads any frame agree, also about frames with a byte that is wrong
    /// though the checksum is right.
    #[test]
    fn the_short_way_and_the_long_way_read_the_same() {
        let mut read = 0;
        for mut frame in frames() {
            let fields_end = frame.len() - CHECKSUM_BYTES;
            let any = parse_checked(&frame, fields_end).expect("a record");
            match parse_in_order(&frame) {
                Some(in_order) => assert_eq!(in_order, any),
                // Nine bytes of number are taken the long way.
                None => assert!(
                    any.has_headers
                        || any.has_producer
                        || any.offset.0.max(any.timestamp_ms) >> 56 > 0
                ),
            }
            // Of a value or a key only the ends matter.
            let interesting =
                (LENGTH_BYTES..fields_end).filter(|at| at % 50 < 4 || fields_end - at < 40);
            for at in interesting {
                let byte = frame[at];
                for wrong in [
                    0,
                    1,
                    0x0a,
                    0x10,
                    0x28,
                    0x32,
                    0x3a,
                    0x40,
                    0x48,
                    0x52,
                    0x58,
                    0x79,
                    0x7f,
                    0x80,
                    0xff,
                    byte ^ 0x80,
                ] {
                    frame[at] = wrong;
                    if let Some(in_order) = parse_in_order(&frame) {
                        assert_eq!(
                            Some(in_order),
                            parse_checked(&frame, fields_end),
                            "{frame:02x?}"
                        );
                        read += 1;
                    }
                }
                frame[at] = byte;
            }
        }
        assert!(read > 10_000, "{read}");
    }
}
