//! What the module and its caller agree on.
//!
//! Both builds of the module export these functions (the build drops the `proglog_` that they have in
//! the source), beside their `memory`:
//!
//! | export | gives |
//! |---|---|
//! | `abi_version() -> i32` | [`VERSION`] |
//! | `alloc(len: i32) -> i32` | the address of a zeroed buffer, or 0 when it cannot be had |
//! | `dealloc(ptr: i32, len: i32) -> i32` | 0 or a status |
//! | `open(name_ptr: i32, name_len: i32, flags: i32, segment_bytes_max: i64, index_bytes_max: i64, record_bytes_max: i64, initial_offset: i64) -> i32` | a handle, at least 1, or a status; [`Flags`], and numbers of which 0 is the default |
//! | `append(handle: i32, value_ptr: i32, value_len: i32, timestamp_ms: i64, promise: i32, expected: i64) -> i64` | the offset, or a status; timestamp 0 is none, [`Promise`] 0 the log's own, [`Expected`] -1 none |
//! | `append_batch(handle: i32, ptr: i32, len: i32, promise: i32, expected: i64) -> i64` | the first offset, or a status; all or nothing of [entries](put_entry) |
//! | `append_drafts(handle: i32, ptr: i32, len: i32, promise: i32, expected: i64) -> i64` | as `append_batch`, of [`proglog::Drafts`], which are framed where they are; the bytes are undefined afterwards |
//! | `producer_last(handle: i32, id_ptr: i32, id_len: i32) -> i64` | packed: `u64` LE sequence, `u64` LE offset, no bytes if there is none; or a status |
//! | `read(handle: i32, offset: i64) -> i64` | the record's frame, [packed](Span::pack), or a status |
//! | `read_batch(handle: i32, from: i64, bytes_max: i32) -> i64` | consecutive frames, packed, none at the end of the log; or a status. Before each record's there may be frames that tell of offsets that are not there |
//! | `truncate_before(handle: i32, offset: i64) -> i32` | 0 or a status |
//! | `truncate_after(handle: i32, offset: i64) -> i32` | 0 or a status |
//! | `skip_to(handle: i32, next: i64, cause: i32) -> i32` | 0 or a status; the next record gets `next`, and the offsets before it are [not there](proglog::Gap), because of the [cause](proglog::GapCause::of) with this unsigned number |
//! | `reset(handle: i32) -> i32`, `sync`, `refresh`, `close` | 0 or a status |
//! | `lowest_offset(handle: i32) -> i64`, `next_offset`, `durable_offset` | the offset, or a status |
//! | `locate(handle: i32, offset: i64) -> i64` | packed: `u64` LE segment, `u64` LE position, and where the offset is [not there](proglog::Gap) the `u64` LE first and last of those and the `u64` LE number of the cause; or a status |
//! | `compact(handle: i32, memory_bytes_max: i64, tombstones_kept_ms: i64, now_ms: i64) -> i64` | packed JSON of [`proglog::Compacted`], or a status; memory 0 is the default and no more than [`COMPACT_MEMORY_BYTES_MAX`] is taken, tombstones kept for 0 go at once, time 0 is not known |
//! | `enforce_retention(handle: i32, bytes_max: i64, age_max_ms: i64, now_ms: i64) -> i32` | 0 or a status; a bound of 0 is none, time 0 is not known: then nothing is too old |
//! | `recovery_report(handle: i32) -> i64`, `verify`, `segments` | packed JSON, or a status |
//! | `last_error() -> i64` | the packed UTF-8 message of the last call that failed |
//! | `last_conflict() -> i64` | packed: the two `u64` LE of the last [`Conflict`], 0 before the first |
//!
//! A negative result is a [`Status`]. Addresses and lengths are unsigned 32-bit numbers in a signed
//! type. A pointer that the caller gives must lie in a buffer of `alloc`; one that it gets stands until
//! the next call into the module. The module has no clock: timestamps come with the record, and what time it is, in
//! milliseconds since 1970-01-01 UTC, with the call.

use std::io;

use proglog::{Durability, Error, Gap, GapCause, Header, Location, NewRecord, Offset, Producer};
use prost::{
    bytes::BufMut,
    encoding::{decode_varint, encode_varint, encoded_len_varint},
};

/// The version of this contract, which `abi_version` gives.
pub const VERSION: i32 = 3;

/// The most bytes that `alloc` gives in one buffer: 1 GiB.
pub const BUFFER_BYTES_MAX: u32 = 1 << 30;

/// The most memory that the keys of a `compact` take: a quarter of what a module can have.
pub const COMPACT_MEMORY_BYTES_MAX: u64 = 1 << 30;

/// Why a call failed, as a negative result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// An argument makes no sense: also a handle, pointer, length or flag, or text that is not UTF-8.
    InvalidArgument = -1,
    /// No record has the offset.
    OffsetOutOfRange = -2,
    /// The record is damaged.
    Corrupt = -3,
    /// An earlier write or sync failed.
    Poisoned = -4,
    /// Another handle has the log open for writing.
    Locked = -5,
    /// The log was opened read-only.
    ReadOnly = -6,
    /// The log was closed.
    Closed = -7,
    /// The record or batch, or the result, is too large.
    TooLarge = -8,
    /// The index is full.
    IndexFull = -9,
    /// The files failed.
    Io = -10,
    /// There is no memory for it.
    OutOfMemory = -11,
    /// The next record would not get the offset that was expected.
    Conflict = -12,
    /// The producer's sequence does not come after its last.
    SequenceConflict = -13,
    /// The offset is deliberately not there.
    Gap = -14,
    /// There is no space left for the files, on the disk or of what one is allowed.
    StorageFull = -15,
}

impl Status {
    const ALL: [Self; 15] = [
        Self::InvalidArgument,
        Self::OffsetOutOfRange,
        Self::Corrupt,
        Self::Poisoned,
        Self::Locked,
        Self::ReadOnly,
        Self::Closed,
        Self::TooLarge,
        Self::IndexFull,
        Self::Io,
        Self::OutOfMemory,
        Self::Conflict,
        Self::SequenceConflict,
        Self::Gap,
        Self::StorageFull,
    ];

    /// The status that a log's error becomes.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        match error {
            Error::InvalidArgument(_) => Self::InvalidArgument,
            Error::OffsetOutOfRange { .. } | Error::Truncated { .. } => Self::OffsetOutOfRange,
            Error::Corrupt { .. } => Self::Corrupt,
            Error::Gap { .. } => Self::Gap,
            Error::Poisoned { .. } => Self::Poisoned,
            Error::Locked { .. } => Self::Locked,
            Error::ReadOnly => Self::ReadOnly,
            Error::Closed => Self::Closed,
            Error::TooLarge { .. } => Self::TooLarge,
            Error::IndexFull { .. } => Self::IndexFull,
            Error::Conflict { .. } => Self::Conflict,
            Error::SequenceConflict { .. } => Self::SequenceConflict,
            Error::Io { source, .. } if is_for_want_of_space(source) => Self::StorageFull,
            // And what may be added to it.
            _ => Self::Io,
        }
    }

    /// The status that a call's result is, if it is one.
    #[must_use]
    pub fn from_result(result: i64) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|status| i64::from(status.code()) == result)
    }

    /// The number that a call returns.
    #[must_use]
    pub const fn code(self) -> i32 {
        self as i32
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidArgument => "InvalidArgument",
            Self::OffsetOutOfRange => "OffsetOutOfRange",
            Self::Corrupt => "Corrupt",
            Self::Poisoned => "Poisoned",
            Self::Locked => "Locked",
            Self::ReadOnly => "ReadOnly",
            Self::Closed => "Closed",
            Self::TooLarge => "TooLarge",
            Self::IndexFull => "IndexFull",
            Self::Io => "Io",
            Self::OutOfMemory => "OutOfMemory",
            Self::Conflict => "Conflict",
            Self::SequenceConflict => "SequenceConflict",
            Self::Gap => "Gap",
            Self::StorageFull => "StorageFull",
        }
    }
}

pub(crate) fn is_for_want_of_space(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

/// What stood in the way of an append, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    /// Of [`Status::Conflict`].
    Offset {
        /// The offset that was expected.
        expected: Offset,
        /// The one that the next record would have got.
        next_offset: Offset,
    },
    /// Of [`Status::SequenceConflict`]: the producer's last record.
    Sequence {
        /// Its sequence.
        last_sequence: u64,
        /// Its offset.
        last_offset: Offset,
    },
}

impl Conflict {
    /// The conflict that a log's error is, if it is one.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        match *error {
            Error::Conflict {
                expected,
                next_offset,
            } => Some(Self::Offset {
                expected,
                next_offset,
            }),
            Error::SequenceConflict {
                last_sequence,
                last_offset,
                ..
            } => Some(Self::Sequence {
                last_sequence,
                last_offset,
            }),
            _ => None,
        }
    }

    /// Its numbers, in the order of its fields.
    #[must_use]
    pub fn numbers(self) -> [u64; 2] {
        match self {
            Self::Offset {
                expected,
                next_offset,
            } => [expected.0, next_offset.0],
            Self::Sequence {
                last_sequence,
                last_offset,
            } => [last_sequence, last_offset.0],
        }
    }

    /// As `last_conflict` gives it.
    #[must_use]
    pub fn encode(self) -> [u8; 16] {
        let [first, second] = self.numbers();
        (u128::from(second) << 64 | u128::from(first)).to_le_bytes()
    }

    /// From what `last_conflict` gives after this status; none if that is no conflict's, or these are not 16 bytes.
    #[must_use]
    pub fn decode(status: Status, bytes: &[u8]) -> Option<Self> {
        let [first, second] = pair(bytes)?;
        match status {
            Status::Conflict => Some(Self::Offset {
                expected: Offset(first),
                next_offset: Offset(second),
            }),
            Status::SequenceConflict => Some(Self::Sequence {
                last_sequence: first,
                last_offset: Offset(second),
            }),
            _ => None,
        }
    }
}

/// Two `u64` LE, if these bytes are that.
#[must_use]
pub fn pair(bytes: &[u8]) -> Option<[u64; 2]> {
    match bytes.as_chunks::<8>() {
        (&[first, second], []) => Some([first, second].map(u64::from_le_bytes)),
        _ => None,
    }
}

/// Bytes in the module's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The address of the first.
    pub ptr: u32,
    /// How many.
    pub len: u32,
}

impl Span {
    /// The span of these two arguments.
    #[must_use]
    pub const fn from_args(ptr: i32, len: i32) -> Self {
        Self {
            ptr: ptr.cast_unsigned(),
            len: len.cast_unsigned(),
        }
    }

    /// `len << 32 | ptr`, never negative; none if it is 2 GiB or more.
    #[must_use]
    pub fn pack(self) -> Option<i64> {
        let len = i32::try_from(self.len).ok()?;
        Some(i64::from(len) << 32 | i64::from(self.ptr))
    }

    /// The span that a result is, unless it is a status.
    #[must_use]
    pub fn unpack(result: i64) -> Option<Self> {
        let len = u32::try_from(result >> 32).ok()?;
        let ptr = u32::try_from(result & i64::from(u32::MAX)).ok()?;
        Some(Self { ptr, len })
    }
}

/// The flags of `open`: bit 0 is read-only, bits 1 and 2 are the durability (0 synced, 1 written, 2
/// buffered), and the others are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    /// To read only, beside a writer too.
    pub read_only: bool,
    /// What an append promises.
    pub durability: Durability,
}

impl Flags {
    /// As the argument of `open`.
    #[must_use]
    pub const fn encode(self) -> i32 {
        let durability = match self.durability {
            Durability::Synced => 0,
            Durability::Written => 1,
            Durability::Buffered => 2,
        };
        self.read_only as i32 | durability << 1
    }

    /// From the argument of `open`; none if it has bits that mean nothing.
    #[must_use]
    pub const fn decode(flags: i32) -> Option<Self> {
        let durability = match flags >> 1 {
            0 => Durability::Synced,
            1 => Durability::Written,
            2 => Durability::Buffered,
            _ => return None,
        };
        Some(Self {
            read_only: flags & 1 == 1,
            durability,
        })
    }
}

/// The argument `promise` of an append: 0 is what the log was opened with, 1 synced, 2 written, 3 buffered; and 4 more
/// where the records are [copied](proglog::AppendOptions::copied()).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promise {
    /// None is what the log was opened with.
    pub durability: Option<Durability>,
    /// See [`AppendOptions::copied`](proglog::AppendOptions::copied()).
    pub copied: bool,
}

impl Promise {
    const COPIED: i32 = 4;

    /// As the argument.
    #[must_use]
    pub const fn encode(self) -> i32 {
        let durability = match self.durability {
            None => 0,
            Some(Durability::Synced) => 1,
            Some(Durability::Written) => 2,
            Some(Durability::Buffered) => 3,
        };
        if self.copied {
            durability | Self::COPIED
        } else {
            durability
        }
    }

    /// From the argument; none if it means nothing.
    #[must_use]
    pub const fn decode(promise: i32) -> Option<Self> {
        let durability = match promise & !Self::COPIED {
            0 => None,
            1 => Some(Durability::Synced),
            2 => Some(Durability::Written),
            3 => Some(Durability::Buffered),
            _ => return None,
        };
        Some(Self {
            durability,
            copied: promise & Self::COPIED != 0,
        })
    }
}

/// The argument `expected` of an append: the offset that its first record has to get; -1 is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected(pub Option<Offset>);

impl Expected {
    /// As the argument. An offset that no log of a module has is the highest of all.
    #[must_use]
    pub fn encode(self) -> i64 {
        self.0
            .map_or(-1, |offset| i64::try_from(offset.0).unwrap_or(i64::MAX))
    }

    /// From the argument; none if it means nothing.
    #[must_use]
    pub fn decode(expected: i64) -> Option<Self> {
        match u64::try_from(expected) {
            Ok(offset) => Some(Self(Some(Offset(offset)))),
            Err(_) => (expected == -1).then_some(Self(None)),
        }
    }
}

/// What `locate` gives.
#[must_use]
pub fn place_bytes(place: Location) -> Vec<u8> {
    let mut numbers = vec![place.segment.0, place.position];
    if let Some(gap) = place.gap {
        numbers.extend([gap.first.0, gap.last.0, u64::from(gap.cause.code())]);
    }
    numbers.into_iter().flat_map(u64::to_le_bytes).collect()
}

/// What `locate` gave; none if that is not of a place.
#[must_use]
pub fn place_of(bytes: &[u8]) -> Option<Location> {
    let (numbers, []) = bytes.as_chunks::<8>() else {
        return None;
    };
    let (&[segment, position], gap) = numbers.split_first_chunk()?;
    let (segment, position) = (
        Offset(u64::from_le_bytes(segment)),
        u64::from_le_bytes(position),
    );
    let gap = match *gap {
        [] => None,
        [first, last, cause] => {
            let [first, last] = [first, last].map(|offset| Offset(u64::from_le_bytes(offset)));
            let cause = u32::try_from(u64::from_le_bytes(cause)).ok()?;
            Some(Gap::of(first..=last, GapCause::of(cause))?)
        }
        _ => return None,
    };
    Some(Location {
        segment,
        position,
        gap,
    })
}

const LENGTH_BYTES: usize = 8;
const TAG_VALUE: u64 = 1 << 3 | 2;
const TAG_TIMESTAMP_MS: u64 = 5 << 3;
const TAG_KEY: u64 = 6 << 3 | 2;
const TAG_HEADERS: u64 = 7 << 3 | 2;
const TAG_PRODUCER_ID: u64 = 10 << 3 | 2;
const TAG_PRODUCER_SEQUENCE: u64 = 11 << 3;
const TAG_HEADER_NAME: u64 = 1 << 3 | 2;
const TAG_HEADER_VALUE: u64 = 2 << 3 | 2;

/// The bytes of a record's entry in the request of `append_batch`.
#[must_use]
pub fn entry_bytes(record: &NewRecord<'_>, timestamp_ms: u64) -> u64 {
    LENGTH_BYTES as u64 + encoded_bytes(record, timestamp_ms)
}

/// Appends a record's entry to the request of `append_batch`: eight bytes of length, big endian, then
/// the fields `value`, `timestamp_ms`, `key`, `headers`, `producer_id` and `producer_sequence` of the record as
/// protobuf. A timestamp of
/// 0 is none; the record's own is not looked at.
///
/// # Panics
///
/// When `out` has less room than [`entry_bytes`].
pub fn put_entry(record: &NewRecord<'_>, timestamp_ms: u64, out: &mut impl BufMut) {
    let NewRecord {
        value,
        key,
        headers,
        ..
    } = *record;
    out.put_u64(encoded_bytes(record, timestamp_ms));
    put_bytes(TAG_VALUE, value, out);
    put_number(TAG_TIMESTAMP_MS, timestamp_ms, out);
    put_bytes(TAG_KEY, key, out);
    for header in headers {
        encode_varint(TAG_HEADERS, out);
        encode_varint(header_bytes(header), out);
        put_bytes(TAG_HEADER_NAME, header.name.as_bytes(), out);
        put_bytes(TAG_HEADER_VALUE, &header.value, out);
    }
    if let Some(Producer { id, sequence, .. }) = record.producer {
        put_bytes(TAG_PRODUCER_ID, id, out);
        put_number(TAG_PRODUCER_SEQUENCE, sequence, out);
    }
}

fn encoded_bytes(record: &NewRecord<'_>, timestamp_ms: u64) -> u64 {
    let NewRecord {
        value,
        key,
        headers,
        ..
    } = *record;
    let producer = record.producer.map_or(0, |producer| {
        field_bytes(producer.id) + number_bytes(producer.sequence)
    });
    let headers = headers.iter().map(|header| {
        let bytes = header_bytes(header);
        1 + encoded_len_varint(bytes) as u64 + bytes
    });
    field_bytes(value)
        + number_bytes(timestamp_ms)
        + field_bytes(key)
        + headers.sum::<u64>()
        + producer
}

fn header_bytes(header: &Header) -> u64 {
    field_bytes(header.name.as_bytes()) + field_bytes(&header.value)
}

fn field_bytes(part: &[u8]) -> u64 {
    let bytes = part.len() as u64;
    if bytes == 0 {
        0
    } else {
        1 + encoded_len_varint(bytes) as u64 + bytes
    }
}

fn number_bytes(number: u64) -> u64 {
    if number == 0 {
        0
    } else {
        1 + encoded_len_varint(number) as u64
    }
}

fn put_number(tag: u64, number: u64, out: &mut impl BufMut) {
    if number != 0 {
        encode_varint(tag, out);
        encode_varint(number, out);
    }
}

fn put_bytes(tag: u64, part: &[u8], out: &mut impl BufMut) {
    if !part.is_empty() {
        encode_varint(tag, out);
        encode_varint(part.len() as u64, out);
        out.put_slice(part);
    }
}

/// An entry of a request. It borrows from it all but the headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The record's value.
    pub value: &'a [u8],
    /// Its key; empty is none.
    pub key: &'a [u8],
    /// Its headers.
    pub headers: Vec<Header>,
    /// Its timestamp; 0 is none.
    pub timestamp_ms: u64,
    /// Whose it is; empty is no one's.
    pub producer_id: &'a [u8],
    /// And which of theirs.
    pub producer_sequence: u64,
}

impl Entry<'_> {
    /// The record to append.
    #[must_use]
    pub fn record(&self) -> NewRecord<'_> {
        NewRecord::new(self.value)
            .key(self.key)
            .headers(&self.headers)
            .timestamp_ms(self.timestamp_ms)
            .producer(self.producer_id, self.producer_sequence)
    }
}

/// Reads the request of `append_batch`.
///
/// # Errors
///
/// The message of a [`Status::InvalidArgument`]: which entry is not as [`put_entry`] writes them.
pub fn entries(mut request: &[u8]) -> Result<Vec<Entry<'_>>, String> {
    let mut entries = Vec::new();
    while !request.is_empty() {
        let entry = take_entry(&mut request).ok_or_else(|| {
            format!(
                "entry {} of the batch is not eight bytes of length and a record of value, \
                 timestamp, key, headers and producer",
                entries.len()
            )
        })?;
        entries.push(entry);
    }
    Ok(entries)
}

fn take_entry<'a>(request: &mut &'a [u8]) -> Option<Entry<'a>> {
    let (length, rest) = request.split_first_chunk::<LENGTH_BYTES>()?;
    let (mut fields, rest) = rest.split_at_checked(u64::from_be_bytes(*length).try_into().ok()?)?;
    *request = rest;
    let mut entry = Entry::default();
    while !fields.is_empty() {
        match take_number(&mut fields)? {
            TAG_VALUE => entry.value = take_bytes(&mut fields)?,
            TAG_TIMESTAMP_MS => entry.timestamp_ms = take_number(&mut fields)?,
            TAG_KEY => entry.key = take_bytes(&mut fields)?,
            TAG_PRODUCER_ID => entry.producer_id = take_bytes(&mut fields)?,
            TAG_PRODUCER_SEQUENCE => entry.producer_sequence = take_number(&mut fields)?,
            TAG_HEADERS => entry.headers.push(decode_header(take_bytes(&mut fields)?)?),
            _ => return None,
        }
    }
    Some(entry)
}

fn decode_header(mut fields: &[u8]) -> Option<Header> {
    let (mut name, mut value) = ("", &[][..]);
    while !fields.is_empty() {
        match take_number(&mut fields)? {
            TAG_HEADER_NAME => name = std::str::from_utf8(take_bytes(&mut fields)?).ok()?,
            TAG_HEADER_VALUE => value = take_bytes(&mut fields)?,
            _ => return None,
        }
    }
    Some(Header::new(name, value))
}

fn take_bytes<'a>(fields: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_number(fields)?;
    let (part, rest) = fields.split_at_checked(length.try_into().ok()?)?;
    *fields = rest;
    Some(part)
}

/// Mostly of one byte, for which there is no need to ask for more.
#[inline(always)]
fn take_number(fields: &mut &[u8]) -> Option<u64> {
    match **fields {
        [byte @ ..0x80, ref rest @ ..] => {
            *fields = rest;
            Some(byte.into())
        }
        _ => decode_varint(fields).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(records: &[NewRecord<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for record in records {
            let timestamp_ms = record.timestamp_ms.unwrap_or(0);
            let before = out.len();
            put_entry(record, timestamp_ms, &mut out);
            assert_eq!(
                (out.len() - before) as u64,
                entry_bytes(record, timestamp_ms)
            );
        }
        out
    }

    #[test]
    fn entries_come_back_as_they_were_put() {
        let headers = [Header::new("trace", "4bf9"), Header::new("", "")];
        let request = request(&[
            NewRecord::new(b"value")
                .key(b"key")
                .headers(&headers)
                .timestamp_ms(1_700_000_000_000)
                .producer("outbox", 300),
            NewRecord::new(b""),
            NewRecord::new(&[7; 300]),
        ]);
        let entries = entries(&request).unwrap();
        assert_eq!(entries.len(), 3);
        assert_eq!(
            entries[0],
            Entry {
                value: b"value",
                key: b"key",
                headers: headers.to_vec(),
                timestamp_ms: 1_700_000_000_000,
                producer_id: b"outbox",
                producer_sequence: 300,
            }
        );
        assert_eq!(entries[1], Entry::default());
        assert_eq!(entries[2].value, [7; 300]);
    }

    #[test]
    fn every_prefix_of_a_request_is_refused_or_whole_entries() {
        let whole = request(&[
            NewRecord::new(b"value").key(b"k"),
            NewRecord::new(b"v").timestamp_ms(9),
        ]);
        let first_bytes = whole.len() - request(&[NewRecord::new(b"v").timestamp_ms(9)]).len();
        for end in 0..whole.len() {
            let read = entries(&whole[..end]);
            match end {
                0 => assert_eq!(read.unwrap().len(), 0),
                end if end == first_bytes => assert_eq!(read.unwrap().len(), 1),
                _ => assert!(read.is_err(), "{end} bytes"),
            }
        }
    }

    #[test]
    fn fields_that_only_the_log_gives_are_refused() {
        for fields in [
            &[0x10, 1][..],
            &[0x40, 1],
            &[0x79, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0x0a, 5, 1],
        ] {
            let mut request = (fields.len() as u64).to_be_bytes().to_vec();
            request.extend_from_slice(fields);
            assert!(entries(&request).is_err(), "{fields:?}");
        }
        let mut not_text = 5u64.to_be_bytes().to_vec();
        not_text.extend_from_slice(&[0x3a, 3, 0x0a, 1, 0xff]);
        assert!(entries(&not_text).is_err());
        assert!(entries(&u64::MAX.to_be_bytes()).is_err());
    }

    #[test]
    fn a_place_comes_back_and_no_other_bytes_are_one() {
        let gap = Gap::of(Offset(3)..=Offset(9), GapCause::Compacted);
        for gap in [None, gap] {
            let (segment, position) = (Offset(2), 1 << 40);
            let place = Location {
                segment,
                position,
                gap,
            };
            let mut bytes = place_bytes(place);
            assert_eq!(place_of(&bytes), Some(place));
            for end in 0..bytes.len() {
                let is_place = gap.is_some() && end == 16;
                assert_eq!(place_of(&bytes[..end]).is_some(), is_place, "{end}");
            }
            bytes.push(0);
            assert_eq!(place_of(&bytes), None);
        }
        for (first, last, cause) in [(9, 3, 1), (3, u64::MAX, 1), (3, 9, 1 << 32)] {
            let numbers = [2, 7, first, last, cause].map(u64::to_le_bytes);
            assert_eq!(place_of(numbers.as_flattened()), None);
        }
    }

    #[test]
    fn spans_and_statuses_share_a_result() {
        let span = Span {
            ptr: 0xffff_fff0,
            len: 16,
        };
        assert_eq!(Span::unpack(span.pack().unwrap()), Some(span));
        assert_eq!(
            Span {
                ptr: 0,
                len: 1 << 31
            }
            .pack(),
            None
        );
        for status in Status::ALL {
            let result = i64::from(status.code());
            assert_eq!(Status::from_result(result), Some(status));
            assert_eq!(Span::unpack(result), None);
        }
        assert_eq!(Status::from_result(-16), None);
        assert_eq!(Status::from_result(0), None);
    }

    #[test]
    fn flags_come_back_and_unknown_bits_are_refused() {
        for durability in [
            Durability::Synced,
            Durability::Written,
            Durability::Buffered,
        ] {
            for read_only in [false, true] {
                let flags = Flags {
                    read_only,
                    durability,
                };
                assert_eq!(Flags::decode(flags.encode()), Some(flags));
            }
        }
        for flags in [6, 7, 8, 1 << 30, -1, i32::MIN] {
            assert_eq!(Flags::decode(flags), None, "{flags}");
        }
        for promise in 0..8 {
            assert_eq!(Promise::decode(promise).unwrap().encode(), promise);
        }
        for promise in [-1, 8, i32::MIN, i32::MAX] {
            assert_eq!(Promise::decode(promise), None, "{promise}");
        }
        for expected in [-1, 0, 1, i64::MAX] {
            assert_eq!(Expected::decode(expected).unwrap().encode(), expected);
        }
        for expected in [-2, i64::MIN] {
            assert_eq!(Expected::decode(expected), None, "{expected}");
        }
        assert_eq!(Expected(Some(Offset(u64::MAX))).encode(), i64::MAX);
    }

    #[test]
    fn conflicts_come_back() {
        for (status, conflict) in [
            (
                Status::Conflict,
                Conflict::Offset {
                    expected: Offset(1),
                    next_offset: Offset(u64::MAX),
                },
            ),
            (
                Status::SequenceConflict,
                Conflict::Sequence {
                    last_sequence: u64::MAX,
                    last_offset: Offset(1),
                },
            ),
        ] {
            let bytes = conflict.encode();
            assert_eq!(Conflict::decode(status, &bytes), Some(conflict));
            assert_eq!(Conflict::decode(status, &bytes[1..]), None);
            assert_eq!(Conflict::decode(Status::Io, &bytes), None);
        }
    }
}
