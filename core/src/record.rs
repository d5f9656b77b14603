//! A record: what a user appends and what a read gives.

mod frame;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub(crate) use self::frame::{
    CHECKSUM, CHECKSUM_BYTES, Check, Draft, FRAME_BYTES_MIN, FrameToWrite, Framed,
    GAP_FRAME_BYTES_MAX, GAP_FRAME_BYTES_MIN, LENGTH_BYTES, Layout, RECORD_BYTES_LIMIT,
    checksum_matches, claimed_bytes, encode_gap, frame_bytes, frame_bytes_max, is_field_tag,
    parse_frame, parse_framed, parse_gap,
};
use crate::{Offset, error::Damaged};

/// A record to append: a value and, optionally, a key, headers and a timestamp. It borrows, and is
/// not changed.
///
/// References to bytes and strings convert into it: `log.append("hello")`, `log.append(&bytes)`.
///
/// ```
/// use proglog::{Header, NewRecord};
/// let headers = [Header::new("trace", "4bf9")];
/// let record = NewRecord::new(b"paid").key(b"order-7").headers(&headers).timestamp_ms(1_700_000_000_000);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct NewRecord<'a> {
    /// Its value.
    pub value: &'a [u8],
    /// Its key; empty is none.
    pub key: &'a [u8],
    /// Its headers.
    pub headers: &'a [Header],
    /// When it happened, in milliseconds since 1970-01-01 UTC; 0 is no timestamp, `None` asks the
    /// log's clock.
    pub timestamp_ms: Option<u64>,
    /// Whose record it is, and which of theirs.
    pub producer: Option<Producer<'a>>,
}

impl<'a> NewRecord<'a> {
    /// A record of a value alone. Its timestamp will be the log's clock's.
    #[must_use]
    pub fn new(value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self {
            value: value.as_ref(),
            ..Self::default()
        }
    }

    /// With a key. An empty key is none.
    #[must_use]
    pub fn key(mut self, key: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        self.key = key.as_ref();
        self
    }

    /// With headers.
    #[must_use]
    pub fn headers(mut self, headers: &'a [Header]) -> Self {
        self.headers = headers;
        self
    }

    /// With a timestamp, in milliseconds since 1970-01-01 UTC. 0 is none, and then the log's clock is
    /// not asked either. A log's timestamps never decrease: one that is earlier than that of a record before
    /// becomes that one. So one that is far in the future, microseconds say, is that of all that come after it.
    #[must_use]
    pub fn timestamp_ms(mut self, timestamp_ms: u64) -> Self {
        self.timestamp_ms = Some(timestamp_ms);
        self
    }

    /// With whose record it is, and which of theirs: so that appending it again, because no answer came to the first
    /// time, appends it once. See [`Log::append`](crate::Log::append). An empty id is none; it has at most
    /// [`Producer::ID_BYTES_MAX`] bytes.
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// use proglog::NewRecord;
    /// let record = NewRecord::new("paid").producer("outbox", 4711);
    /// assert_eq!(log.append(record)?, Offset(0));
    /// assert_eq!(log.append(record)?, Offset(0)); // the answer was lost, and it was sent again
    /// assert_eq!(log.next_offset(), Offset(1));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    #[must_use]
    pub fn producer(mut self, id: &'a (impl AsRef<[u8]> + ?Sized), sequence: u64) -> Self {
        let id = id.as_ref();
        self.producer = (!id.is_empty()).then_some(Producer { id, sequence });
        self
    }
}

impl<'a, T: AsRef<[u8]> + ?Sized> From<&'a T> for NewRecord<'a> {
    fn from(value: &'a T) -> Self {
        Self::new(value)
    }
}

/// Who appends a record, and which of theirs it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Producer<'a> {
    /// Who: bytes of the appender's choice, never empty.
    pub id: &'a [u8],
    /// A number that increases from each of their records to the next: an outbox's row, another log's offset.
    pub sequence: u64,
}

impl Producer<'_> {
    /// The most bytes of an id.
    pub const ID_BYTES_MAX: usize = 32;
}

/// The last record of a producer: see [`Log::producer_last`](crate::Log::producer_last).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProducerLast {
    /// Which of theirs it is.
    pub sequence: u64,
    /// Its offset in the log.
    pub offset: Offset,
}

impl ProducerLast {
    /// A record of this sequence, at this offset.
    #[must_use]
    pub fn new(sequence: u64, offset: Offset) -> Self {
        Self { sequence, offset }
    }
}

/// A name and a value that travel with a record.
///
/// ```
/// # use proglog::{Log, MemoryBackend, Offset, Options};
/// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
/// use proglog::{Header, NewRecord};
/// let headers = [Header::new("trace", "4bf9")];
/// log.append(NewRecord::new("paid").headers(&headers))?;
/// let record = log.read(Offset(0))?;
/// assert_eq!(record.headers().next(), Some(("trace", &b"4bf9"[..])));
/// # Ok::<(), proglog::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
}

impl Header {
    /// A header of this name and value.
    #[must_use]
    pub fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }
}

impl From<(&str, &[u8])> for Header {
    fn from((name, value): (&str, &[u8])) -> Self {
        Self::new(name, value)
    }
}

/// A record as it stands in the log: it holds the memory its bytes are in, which may be the mapped file's.
/// Nothing is copied, and the record stays whole if it is truncated away meanwhile. Cheap to clone.
///
/// A `Record<&[u8]>` borrows them instead, as [`Scan::next_borrowed`](crate::Scan::next_borrowed) gives it.
///
/// ```
/// # use proglog::{Log, MemoryBackend, Offset, Options};
/// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
/// use proglog::NewRecord;
/// log.append(NewRecord::new("paid").key("order-7").timestamp_ms(1_700_000_000_000))?;
/// let record = log.read(Offset(0))?;
/// assert_eq!((record.value(), record.key()), (&b"paid"[..], Some(&b"order-7"[..])));
/// assert_eq!(record.timestamp_ms(), Some(1_700_000_000_000));
/// assert!(record.is_checked());
/// # Ok::<(), proglog::Error>(())
/// ```
#[derive(Clone, Copy)]
pub struct Record<F = Bytes> {
    frame: F,
    layout: Layout,
}

impl<F: AsRef<[u8]>> Record<F> {
    /// Its number in the log.
    #[must_use]
    #[inline]
    pub fn offset(&self) -> Offset {
        self.layout.offset
    }

    /// What was appended.
    #[must_use]
    #[inline]
    pub fn value(&self) -> &[u8] {
        self.layout.value.of(self.frame())
    }

    /// Its key, if it has one.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        let key = self.layout.key.of(self.frame());
        (!key.is_empty()).then_some(key)
    }

    /// Its headers, name and value, in the order they were given.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.layout.headers(self.frame())
    }

    /// When it was appended, in milliseconds since 1970-01-01 UTC, if that was recorded.
    #[must_use]
    pub fn timestamp_ms(&self) -> Option<u64> {
        (self.layout.timestamp_ms != 0).then_some(self.layout.timestamp_ms)
    }

    /// Who appended it and which of theirs it is, if that was said.
    #[must_use]
    pub fn producer(&self) -> Option<Producer<'_>> {
        self.layout.producer(self.frame())
    }

    /// How many records of the same batch follow it.
    #[must_use]
    pub fn batch_remaining(&self) -> u32 {
        self.layout.batch_remaining
    }

    /// On the last record of a batch of more than one, how many they were; 0 on any other. So a record that follows the
    /// beginning of a batch whose end was truncated is told from that end.
    #[must_use]
    pub fn batch_records(&self) -> u32 {
        self.layout.batch_records
    }

    /// Whether a checksum vouches for its bytes. The book's program writes none.
    #[must_use]
    #[inline]
    pub fn is_checked(&self) -> bool {
        self.layout.checked
    }

    /// Its frame as it stands in the store: eight bytes of length, then the encoded record.
    #[must_use]
    #[inline]
    pub fn frame(&self) -> &[u8] {
        self.frame.as_ref()
    }

    /// The record of a frame that was parsed.
    #[inline]
    pub(crate) fn of(frame: F, layout: Layout) -> Self {
        Self { frame, layout }
    }
}

impl Record {
    /// What was appended, sharing the record's bytes.
    #[must_use]
    pub fn value_bytes(&self) -> Bytes {
        self.frame.slice(self.layout.value.range())
    }

    /// Reads a record from a whole frame, checking everything.
    ///
    /// # Errors
    ///
    /// What is wrong with the bytes.
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// use proglog::Record;
    /// log.append("paid")?;
    /// let frame = log.read(Offset(0))?.frame().to_vec(); // as it is on disk, to be sent elsewhere
    /// let record = Record::from_frame(frame.into()).expect("its checksum is right");
    /// assert_eq!(record.value(), b"paid");
    /// # Ok::<(), proglog::Error>(())
    /// ```
    #[inline]
    pub fn from_frame(frame: Bytes) -> Result<Self, Damaged> {
        let layout = parse_frame(&frame, Check::Checksum)?;
        Ok(Self { frame, layout })
    }

    /// The same record, borrowed.
    #[must_use]
    pub fn as_borrowed(&self) -> Record<&[u8]> {
        Record::of(&self.frame, self.layout)
    }

    pub(crate) fn into_frame(self) -> Bytes {
        self.frame
    }
}

impl Record<&[u8]> {
    /// The same record in memory of its own, to be kept. This copies it.
    #[must_use]
    pub fn to_record(self) -> Record {
        Record::of(Bytes::copy_from_slice(self.frame), self.layout)
    }
}

impl<F: AsRef<[u8]>> fmt::Debug for Record<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Record");
        debug
            .field("offset", &self.offset().0)
            .field("value", &Bytes::copy_from_slice(self.value()));
        if let Some(key) = self.key() {
            debug.field("key", &Bytes::copy_from_slice(key));
        }
        if self.headers().next().is_some() {
            debug.field("headers", &self.headers().collect::<Vec<_>>());
        }
        if let Some(Producer { id, sequence }) = self.producer() {
            debug.field("producer", &(Bytes::copy_from_slice(id), sequence));
        }
        debug
            .field("timestamp_ms", &self.timestamp_ms())
            .finish_non_exhaustive()
    }
}

/// Consecutive records in one buffer, as their frames stand in the store. Between them there may be frames that tell of
/// offsets that are not there ([`Gap`](crate::Gap)); they are stepped over.
///
/// Given by [`Log::read_batch`](crate::Log::read_batch); also the shape in which records cross from
/// and to a wasm module.
///
/// ```
/// # use proglog::{Log, MemoryBackend, Offset, Options};
/// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
/// use proglog::Frames;
/// log.append_batch(["a", "b"])?;
/// let sent = log.read_batch(Offset(0), 1 << 20)?.as_bytes().to_vec();
/// let values: Vec<_> = Frames::new(sent).map(|record| record.unwrap().value_bytes()).collect();
/// assert_eq!(values, ["a", "b"]);
/// # Ok::<(), proglog::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Frames {
    bytes: Bytes,
}

impl Frames {
    /// Frames that stand one after the other in `bytes`. Nothing is checked until they are read.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self {
            bytes: bytes.into(),
        }
    }

    /// The frames' bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Iterator for Frames {
    type Item = Result<Record, Damaged>;

    /// The next record. Its structure is checked here, so no bytes can make this panic; its checksum
    /// was checked by whoever read the frames from the store.
    fn next(&mut self) -> Option<Self::Item> {
        while !self.bytes.is_empty() {
            let Some(frame_bytes) = frame_bytes(&self.bytes, self.bytes.len() as u64) else {
                self.bytes.clear();
                return Some(Err(Damaged::Length));
            };
            let frame = self.bytes.split_to(frame_bytes);
            match parse_frame(&frame, Check::Structure) {
                Ok(layout) => return Some(Ok(Record { frame, layout })),
                Err(_) if parse_gap(&frame).is_some() => {}
                Err(reason) => return Some(Err(reason)),
            }
        }
        None
    }
}
