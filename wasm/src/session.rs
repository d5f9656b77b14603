//! What a module does between its exports and the log: handles, buffers, results and errors.

use std::{fmt::Display, time::Duration};

use proglog::{
    AppendOptions, Backend, Clock, Compaction, Drafts, Durability, Error, GapCause, Log, NewRecord,
    Offset, Options, Record, Retention,
};
use serde::Serialize;

use crate::{
    Buffers, Storage,
    abi::{self, Conflict, Expected, Flags, Promise, Span, Status},
};

/// The last offset that is given to a record: the one after it must be a result too.
const OFFSET_LAST: i64 = i64::MAX - 1;

/// A block that was larger than this is given back before the next is read.
const BLOCK_BYTES_KEPT: usize = 4 << 20;

/// The open logs and buffers of one module instance. Nothing passed to its functions can make them
/// panic.
pub struct Session<S: Storage> {
    storage: S,
    /// A few.
    logs: Vec<OpenLog<S>>,
    /// Handles are not used again, so that one that was closed stays refused.
    next_handle: i32,
    buffers: Buffers,
    result: Held,
    /// What the last batch was read into, for the next.
    block: Vec<u8>,
    last_error: String,
    last_conflict: [u8; 16],
}

struct OpenLog<S: Storage> {
    handle: i32,
    name: String,
    read_only: bool,
    durability: Durability,
    log: Log<S::Backend>,
}

/// The bytes of the last result, which stand until the next call.
enum Held {
    Record(Record),
    Bytes(Vec<u8>),
}

/// Bytes that a caller gives.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// In a buffer of `alloc`.
    Buffer(Span),
    /// Elsewhere.
    Bytes(&'a [u8]),
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it returns.
    pub status: Status,
    /// What `last_error` gives.
    pub message: String,
    /// What `last_conflict` gives, if it is one.
    pub conflict: Option<Conflict>,
}

impl<S: Storage> Session<S> {
    /// No log is open yet.
    pub fn new(storage: S) -> Self {
        Self {
            storage,
            logs: Vec::new(),
            next_handle: 1,
            buffers: Buffers::default(),
            result: Held::Bytes(Vec::new()),
            block: Vec::new(),
            last_error: String::new(),
            last_conflict: [0; 16],
        }
    }

    /// Where logs are kept.
    pub fn storage(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Memory for the caller to write to.
    pub fn buffers(&mut self) -> &mut Buffers {
        &mut self.buffers
    }

    /// Gives a buffer back.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn dealloc(&mut self, buffer: Span) -> Result<(), Failure> {
        if self.buffers.dealloc(buffer) {
            Ok(())
        } else {
            Err(not_a_buffer(buffer))
        }
    }

    /// Opens a log and gives its handle, at least 1. The numbers' default is 0.
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log cannot be opened.
    pub fn open(
        &mut self,
        name: Input<'_>,
        flags: i32,
        segment_bytes_max: i64,
        index_bytes_max: i64,
        record_bytes_max: i64,
        initial_offset: i64,
    ) -> Result<i32, Failure> {
        let name = std::str::from_utf8(bytes_of(name, &self.buffers)?)
            .map_err(|_| invalid("the log's name is not UTF-8"))?
            .to_owned();
        let Flags {
            read_only,
            durability,
        } = Flags::decode(flags)
            .ok_or_else(|| invalid(format_args!("flags {flags:#x} have bits that mean nothing")))?;
        let mut options = Options::new().durability(durability).clock(Clock::NONE);
        if let Some(bytes) = set("segment_bytes_max", segment_bytes_max)? {
            options = options.segment_bytes_max(bytes);
        }
        if let Some(bytes) = set("index_bytes_max", index_bytes_max)? {
            options = options.index_bytes_max(bytes);
        }
        if let Some(bytes) = set("record_bytes_max", record_bytes_max)? {
            options = options.record_bytes_max(bytes);
        }
        if let Some(offset) = set("initial_offset", initial_offset)? {
            options = options.initial_offset(offset);
        }
        // Before storage makes a place for the log.
        options.validate()?;
        if !read_only
            && self
                .logs
                .iter()
                .any(|open| !open.read_only && open.name == name)
        {
            return Err(Error::Locked { directory: name }.into());
        }
        let handle = self.next_handle;
        let next_handle = handle
            .checked_add(1)
            .ok_or_else(|| invalid("no handle is left"))?;
        let files = self.storage.open(&name, read_only)?;
        let log = if read_only {
            Log::open_read_only_on(files, options)?
        } else {
            Log::open_on(files, options)?
        };
        self.logs.push(OpenLog {
            handle,
            name,
            read_only,
            durability,
            log,
        });
        self.next_handle = next_handle;
        Ok(handle)
    }

    /// Appends a record of a value alone and gives its offset. A timestamp of 0 is none. For `promise` and
    /// `expected` see [`Promise`] and [`Expected`].
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn append(
        &mut self,
        handle: i32,
        value: Input<'_>,
        timestamp_ms: i64,
        promise: i32,
        expected: i64,
    ) -> Result<i64, Failure> {
        let open = open_log(&self.logs, handle)?;
        require_room(&open.log, 1)?;
        let value = bytes_of(value, &self.buffers)?;
        let timestamp_ms = unsigned("timestamp_ms", timestamp_ms)?;
        let options = open.append_options(promise, expected)?;
        let record = NewRecord::new(value).timestamp_ms(timestamp_ms);
        result(open.log.append_with(record, options)?)
    }

    /// Appends the records of a [request](abi::put_entry), all or none, and gives the first one's
    /// offset: the next offset, if there are none. For `promise` and `expected` see [`Promise`] and [`Expected`].
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn append_batch(
        &mut self,
        handle: i32,
        request: Input<'_>,
        promise: i32,
        expected: i64,
    ) -> Result<i64, Failure> {
        let open = open_log(&self.logs, handle)?;
        let request = bytes_of(request, &self.buffers)?;
        let entries = abi::entries(request).map_err(invalid)?;
        require_room(&open.log, entries.len() as u64)?;
        let options = open.append_options(promise, expected)?;
        let records = entries.iter().map(abi::Entry::record);
        result(open.log.append_batch_with(records, options)?.start)
    }

    /// Appends [drafts](proglog::Drafts) that stand in a buffer of `alloc`, all or none, and gives the first
    /// one's offset. They are framed there. For `promise` and `expected` see [`Promise`] and [`Expected`].
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn append_drafts(
        &mut self,
        handle: i32,
        drafts: Span,
        promise: i32,
        expected: i64,
    ) -> Result<i64, Failure> {
        let open = open_log(&self.logs, handle)?;
        let options = open.append_options(promise, expected)?;
        let drafts = self
            .buffers
            .get_mut(drafts)
            .ok_or_else(|| not_a_buffer(drafts))?;
        // They are counted only where it matters.
        if require_room(&open.log, drafts.len() as u64).is_err() {
            require_room(&open.log, Drafts::count(drafts))?;
        }
        result(open.log.append_drafts(drafts, options)?.start)
    }

    /// The last record of a producer: `u64` LE sequence, `u64` LE offset; nothing if there is none.
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn producer_last(&mut self, handle: i32, id: Input<'_>) -> Result<&[u8], Failure> {
        let id = bytes_of(id, &self.buffers)?;
        let last = log(&self.logs, handle)?.producer_last(id)?;
        let bytes = last.map_or(Vec::new(), |last| {
            [last.sequence.to_le_bytes(), last.offset.0.to_le_bytes()].concat()
        });
        Ok(self.hold(Held::Bytes(bytes)))
    }

    /// A record's frame.
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn read(&mut self, handle: i32, offset: i64) -> Result<&[u8], Failure> {
        let record = log(&self.logs, handle)?.read(offset_arg(offset)?)?;
        Ok(self.hold(Held::Record(record)))
    }

    /// Consecutive frames from an offset on; none at the end of the log.
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn read_batch(&mut self, handle: i32, from: i64, bytes_max: i32) -> Result<&[u8], Failure> {
        let bytes_max = usize::try_from(bytes_max)
            .map_err(|_| invalid(format_args!("bytes_max is {bytes_max}; give 0 or more")))?;
        self.result = Held::Bytes(Vec::new());
        if self.block.len() > BLOCK_BYTES_KEPT {
            self.block = Vec::new();
        }
        let log = log(&self.logs, handle)?;
        let bytes = log.read_batch_into(offset_arg(from)?, bytes_max, &mut self.block)?;
        Ok(&self.block[..bytes])
    }

    /// As [`Log::truncate_before`].
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn truncate_before(&mut self, handle: i32, offset: i64) -> Result<(), Failure> {
        Ok(log(&self.logs, handle)?.truncate_before(offset_arg(offset)?)?)
    }

    /// As [`Log::truncate_after`].
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn truncate_after(&mut self, handle: i32, offset: i64) -> Result<(), Failure> {
        Ok(log(&self.logs, handle)?.truncate_after(offset_arg(offset)?)?)
    }

    /// As [`Log::reset`].
    ///
    /// # Errors
    ///
    /// The log's.
    pub fn reset(&mut self, handle: i32) -> Result<(), Failure> {
        Ok(log(&self.logs, handle)?.reset()?)
    }

    /// As [`Log::skip_to_because`], of the cause with this number.
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn skip_to(&mut self, handle: i32, next: i64, cause: i32) -> Result<(), Failure> {
        let next = Offset(unsigned("next", next)?);
        let cause = GapCause::of(cause.cast_unsigned());
        Ok(log(&self.logs, handle)?.skip_to_because(next, cause)?)
    }

    /// As [`Log::compact`]; gives what it did as JSON. Memory of 0 is the default, and the time 0 is not known.
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn compact(
        &mut self,
        handle: i32,
        memory_bytes_max: i64,
        tombstones_kept_ms: i64,
        now_ms: i64,
    ) -> Result<&[u8], Failure> {
        let log = log(&self.logs, handle)?;
        let kept_ms = unsigned("tombstones_kept_ms", tombstones_kept_ms)?;
        let mut compaction = Compaction::new().tombstones_kept(Duration::from_millis(kept_ms));
        if let Some(bytes) = set("memory_bytes_max", memory_bytes_max)? {
            compaction = compaction.memory_bytes_max(bytes.min(abi::COMPACT_MEMORY_BYTES_MAX));
        }
        compaction.now_ms = set("now_ms", now_ms)?;
        let compacted = log.compact(&compaction)?;
        self.hold_json(&compacted)
    }

    /// As [`Log::enforce_retention_with`]. A bound of 0 is none, and the time 0 is not known.
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn enforce_retention(
        &mut self,
        handle: i32,
        bytes_max: i64,
        age_max_ms: i64,
        now_ms: i64,
    ) -> Result<(), Failure> {
        let log = log(&self.logs, handle)?;
        let mut retention = Retention::new();
        retention.bytes_max = set("bytes_max", bytes_max)?;
        retention.age_max = set("age_max_ms", age_max_ms)?.map(Duration::from_millis);
        Ok(log.enforce_retention_with(&retention, set("now_ms", now_ms)?)?)
    }

    /// As [`Log::sync`].
    ///
    /// # Errors
    ///
    /// The log's.
    pub fn sync(&mut self, handle: i32) -> Result<(), Failure> {
        Ok(log(&self.logs, handle)?.sync()?)
    }

    /// As [`Log::refresh`].
    ///
    /// # Errors
    ///
    /// The log's.
    pub fn refresh(&mut self, handle: i32) -> Result<(), Failure> {
        Ok(log(&self.logs, handle)?.refresh()?)
    }

    /// Closes a log. Whatever this returns, the handle is void.
    ///
    /// # Errors
    ///
    /// The log's.
    pub fn close(&mut self, handle: i32) -> Result<(), Failure> {
        let place = self.logs.iter().position(|open| open.handle == handle);
        let place = place.ok_or_else(|| not_open(handle))?;
        Ok(self.logs.swap_remove(place).log.close()?)
    }

    /// As [`Log::lowest_offset`].
    ///
    /// # Errors
    ///
    /// The handle is refused.
    pub fn lowest_offset(&self, handle: i32) -> Result<i64, Failure> {
        result(log(&self.logs, handle)?.lowest_offset())
    }

    /// As [`Log::next_offset`].
    ///
    /// # Errors
    ///
    /// The handle is refused.
    pub fn next_offset(&self, handle: i32) -> Result<i64, Failure> {
        result(log(&self.logs, handle)?.next_offset())
    }

    /// As [`Log::durable_offset`].
    ///
    /// # Errors
    ///
    /// The handle is refused.
    pub fn durable_offset(&self, handle: i32) -> Result<i64, Failure> {
        result(log(&self.logs, handle)?.durable_offset())
    }

    /// Where a record stands: `u64` LE segment, `u64` LE position.
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn locate(&mut self, handle: i32, offset: i64) -> Result<&[u8], Failure> {
        let place = log(&self.logs, handle)?.locate(offset_arg(offset)?)?;
        Ok(self.hold(Held::Bytes(abi::place_bytes(place))))
    }

    /// [`Log::recovery_report`] as JSON.
    ///
    /// # Errors
    ///
    /// The handle is refused.
    pub fn recovery_report(&mut self, handle: i32) -> Result<&[u8], Failure> {
        let report = log(&self.logs, handle)?.recovery_report();
        self.hold_json(&report)
    }

    /// [`Log::verify`] as JSON.
    ///
    /// # Errors
    ///
    /// The log's.
    pub fn verify(&mut self, handle: i32) -> Result<&[u8], Failure> {
        let report = log(&self.logs, handle)?.verify()?;
        self.hold_json(&report)
    }

    /// [`Log::segments`] as JSON.
    ///
    /// # Errors
    ///
    /// The handle is refused.
    pub fn segments(&mut self, handle: i32) -> Result<&[u8], Failure> {
        let segments = log(&self.logs, handle)?.segments();
        self.hold_json(&segments)
    }

    /// Remembers the message of a failed call and gives its status.
    pub fn fail(&mut self, failure: Failure) -> Status {
        self.last_error = failure.message;
        if let Some(conflict) = failure.conflict {
            self.last_conflict = conflict.encode();
        }
        failure.status
    }

    /// The message of the last call that failed.
    pub fn last_error(&self) -> &str {
        &self.last_error
    }

    /// The numbers of the last call that failed because of a [`Conflict`].
    pub fn last_conflict(&self) -> &[u8] {
        &self.last_conflict
    }

    fn hold_json(&mut self, value: &impl Serialize) -> Result<&[u8], Failure> {
        let json = serde_json::to_vec(value).map_err(|e| Failure {
            status: Status::Io,
            message: e.to_string(),
            conflict: None,
        })?;
        Ok(self.hold(Held::Bytes(json)))
    }

    fn hold(&mut self, result: Held) -> &[u8] {
        self.result = result;
        match &self.result {
            Held::Record(record) => record.frame(),
            Held::Bytes(bytes) => bytes,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            status: Status::of(&error),
            message: error.to_string(),
            conflict: Conflict::of(&error),
        }
    }
}

fn bytes_of<'a>(input: Input<'a>, buffers: &'a Buffers) -> Result<&'a [u8], Failure> {
    match input {
        Input::Bytes(bytes) => Ok(bytes),
        Input::Buffer(span) => buffers.get(span).ok_or_else(|| not_a_buffer(span)),
    }
}

fn log<S: Storage>(logs: &[OpenLog<S>], handle: i32) -> Result<&Log<S::Backend>, Failure> {
    open_log(logs, handle).map(|open| &open.log)
}

fn open_log<S: Storage>(logs: &[OpenLog<S>], handle: i32) -> Result<&OpenLog<S>, Failure> {
    let open = logs.iter().find(|open| open.handle == handle);
    open.ok_or_else(|| not_open(handle))
}

impl<S: Storage> OpenLog<S> {
    /// What an append with these arguments promises and expects.
    fn append_options(&self, promise: i32, expected: i64) -> Result<AppendOptions, Failure> {
        let promise = Promise::decode(promise)
            .ok_or_else(|| invalid(format_args!("promise {promise} means nothing; give 0 to 7")))?;
        let expected = Expected::decode(expected).ok_or_else(|| {
            invalid(format_args!(
                "expected {expected} means nothing; give an offset, or -1 for any"
            ))
        })?;
        let mut options = AppendOptions::from(promise.durability.unwrap_or(self.durability));
        options.copied = promise.copied;
        options.expected_next_offset = expected.0;
        Ok(options)
    }
}

/// Refuses records after which the log's next offset could not be a result.
fn require_room<B: Backend>(log: &Log<B>, records: u64) -> Result<(), Failure> {
    let next = log.next_offset();
    match next.0.checked_add(records).map(Offset).map(result) {
        Some(Ok(_)) => Ok(()),
        _ => Err(invalid(format_args!(
            "appending {records} at offset {next} would go beyond offset {OFFSET_LAST}, the last that \
             the wasm engine gives; use the native engine for such a log"
        ))),
    }
}

fn offset_arg(offset: i64) -> Result<Offset, Failure> {
    Ok(Offset(unsigned("offset", offset)?))
}

fn unsigned(name: &str, number: i64) -> Result<u64, Failure> {
    u64::try_from(number).map_err(|_| invalid(format_args!("{name} is {number}; give 0 or more")))
}

/// A number of which 0 is the default, or none.
fn set(name: &str, number: i64) -> Result<Option<u64>, Failure> {
    Ok(Some(unsigned(name, number)?).filter(|&number| number != 0))
}

fn result(offset: Offset) -> Result<i64, Failure> {
    i64::try_from(offset.0).map_err(|_| {
        invalid(format_args!(
            "offset {offset} is beyond {}, the last that the wasm engine knows; use the native engine \
             for such a log",
            i64::MAX
        ))
    })
}

fn invalid(message: impl Display) -> Failure {
    Failure {
        status: Status::InvalidArgument,
        message: message.to_string(),
        conflict: None,
    }
}

fn not_open(handle: i32) -> Failure {
    invalid(format_args!("{handle} is no open log's handle"))
}

fn not_a_buffer(span: Span) -> Failure {
    invalid(format_args!(
        "{} bytes at {:#x} do not lie in a buffer of alloc",
        span.len, span.ptr
    ))
}

#[cfg(test)]
mod tests {
    use proglog::Frames;

    use super::*;
    use crate::{Directories, Memory};

    /// A session with a log open in memory.
    fn memory() -> (Session<Memory>, i32) {
        let mut session = Session::new(Memory::default());
        let handle = open(&mut session, b"log", 0).unwrap();
        (session, handle)
    }

    fn open<S: Storage>(session: &mut Session<S>, name: &[u8], flags: i32) -> Result<i32, Failure> {
        session.open(Input::Bytes(name), flags, 0, 0, 0, 0)
    }

    /// Puts bytes into a buffer of `alloc`.
    fn buffer<S: Storage>(session: &mut Session<S>, bytes: &[u8]) -> Span {
        let span = session
            .buffers()
            .alloc(u32::try_from(bytes.len()).unwrap())
            .unwrap();
        session
            .buffers()
            .get_mut(span)
            .unwrap()
            .copy_from_slice(bytes);
        span
    }

    fn status<T>(result: Result<T, Failure>) -> Status {
        match result {
            Ok(_) => panic!("it succeeded"),
            Err(failure) => {
                assert!(!failure.message.is_empty());
                failure.status
            }
        }
    }

    fn value(frame: &[u8]) -> Vec<u8> {
        Record::from_frame(frame.to_vec().into())
            .unwrap()
            .value()
            .to_vec()
    }

    #[test]
    fn records_come_back_through_buffers() {
        let (mut session, log) = memory();
        let hello = buffer(&mut session, b"hello, world");
        assert_eq!(session.append(log, Input::Buffer(hello), 5, 0, -1), Ok(0));
        let part = Span {
            ptr: hello.ptr + 7,
            len: 5,
        };
        assert_eq!(session.append(log, Input::Buffer(part), 0, 0, -1), Ok(1));
        assert_eq!(session.dealloc(hello), Ok(()));

        let frame = session.read(log, 0).unwrap().to_vec();
        let record = Record::from_frame(frame.into()).unwrap();
        assert_eq!(
            (record.value(), record.timestamp_ms()),
            (&b"hello, world"[..], Some(5))
        );
        assert_eq!(value(session.read(log, 1).unwrap()), b"world");
        let frames = Frames::new(session.read_batch(log, 0, 1 << 20).unwrap().to_vec());
        assert_eq!(frames.count(), 2);
        assert_eq!(session.read_batch(log, 2, 1 << 20).unwrap(), b"");
        let at = session.locate(log, 1).unwrap();
        assert_eq!((at.len(), &at[..8]), (16, &[0; 8][..]));
    }

    #[test]
    fn drafts_are_framed_in_their_buffer() {
        let (mut session, log) = memory();
        let records = ["a", "b"].map(|value| NewRecord::new(value).timestamp_ms(9));
        for first in [0, 2, 77, 1 << 50] {
            let drafts = Drafts::new(&records, Offset(first), &Options::new()).unwrap();
            let mut bytes = vec![0; usize::try_from(drafts.bytes()).unwrap()];
            drafts.write(&mut bytes);
            let given = buffer(&mut session, &bytes);
            let next = session.next_offset(log).unwrap();
            assert_eq!(session.append_drafts(log, given, 2, -1), Ok(next));
            assert_eq!(value(session.read(log, next + 1).unwrap()), b"b");

            let torn = Span {
                len: given.len - 1,
                ..given
            };
            for (drafts, promise) in [(torn, 0), (Span { ptr: 4, len: 9 }, 0), (given, 8)] {
                let refused = status(session.append_drafts(log, drafts, promise, -1));
                assert_eq!(refused, Status::InvalidArgument);
            }
            assert_eq!(session.next_offset(log), Ok(next + 2));
        }
    }

    #[test]
    fn an_append_has_a_promise_of_its_own() {
        let (mut session, log) = memory();
        let x = Input::Bytes(b"x");
        assert_eq!(session.append(log, x, 0, 3, -1), Ok(0));
        assert_eq!(session.append_batch(log, Input::Bytes(&[]), 3, -1), Ok(1));
        assert_eq!(session.durable_offset(log), Ok(0));
        assert_eq!(session.append(log, x, 0, 0, -1), Ok(1));
        assert_eq!(session.durable_offset(log), Ok(2));
        for promise in [-1, 8, i32::MAX] {
            assert_eq!(
                status(session.append(log, x, 0, promise, -1)),
                Status::InvalidArgument
            );
            assert_eq!(
                status(session.append_batch(log, Input::Bytes(&[]), promise, -1)),
                Status::InvalidArgument
            );
        }
    }

    #[test]
    fn what_is_sent_again_is_there_once() {
        let (mut session, log) = memory();
        let send_as = |session: &mut Session<Memory>, sequence, promise, expected| {
            let mut request = Vec::new();
            let record = NewRecord::new("x").producer("a", sequence);
            abi::put_entry(&record, 0, &mut request);
            session.append_batch(log, Input::Bytes(&request), promise, expected)
        };
        let send = |session: &mut Session<Memory>, sequence, expected| {
            send_as(session, sequence, 0, expected)
        };
        let a = Input::Bytes(b"a");
        assert_eq!(session.producer_last(log, a).unwrap(), b"");
        for _ in 0..2 {
            assert_eq!(send(&mut session, 7, -1), Ok(0));
            assert_eq!(send(&mut session, 8, 1), Ok(1));
        }
        let last = session.producer_last(log, a).unwrap();
        assert_eq!(abi::pair(last), Some([8, 1]));
        let refused = send(&mut session, 6, -1).unwrap_err();
        let conflict = Conflict::Sequence {
            last_sequence: 8,
            last_offset: Offset(1),
        };
        assert_eq!(refused.conflict, Some(conflict));
        assert_eq!(session.fail(refused), Status::SequenceConflict);
        assert_eq!(session.last_conflict(), conflict.encode());

        let x = Input::Bytes(b"x");
        let refused = session.append(log, x, 0, 0, 1).unwrap_err();
        let conflict = Conflict::Offset {
            expected: Offset(1),
            next_offset: Offset(2),
        };
        assert_eq!(refused.conflict, Some(conflict));
        assert_eq!(session.append(log, x, 0, 0, 2), Ok(2));
        for expected in [-2, i64::MIN] {
            let refused = status(session.append(log, x, 0, 0, expected));
            assert_eq!(refused, Status::InvalidArgument);
        }
        // Unless they are copied.
        assert_eq!(send_as(&mut session, 8, 4, 3), Ok(3));
        for id in [&b""[..], &[1; 33]] {
            let refused = status(session.producer_last(log, Input::Bytes(id)));
            assert_eq!(refused, Status::InvalidArgument);
        }
    }

    #[test]
    fn a_batch_is_appended_whole_or_not_at_all() {
        let (mut session, log) = memory();
        let mut request = Vec::new();
        abi::put_entry(&NewRecord::new("one").key("k"), 7, &mut request);
        abi::put_entry(&NewRecord::new("two"), 0, &mut request);
        let torn = buffer(&mut session, &request[..request.len() - 1]);
        assert_eq!(
            status(session.append_batch(log, Input::Buffer(torn), 0, -1)),
            Status::InvalidArgument
        );
        assert_eq!(session.next_offset(log), Ok(0));

        let whole = buffer(&mut session, &request);
        assert_eq!(
            session.append_batch(log, Input::Buffer(whole), 0, -1),
            Ok(0)
        );
        assert_eq!(session.append_batch(log, Input::Bytes(&[]), 0, -1), Ok(2));
        assert_eq!(session.next_offset(log), Ok(2));
        let record = Record::from_frame(session.read(log, 0).unwrap().to_vec().into()).unwrap();
        assert_eq!(
            (record.key(), record.timestamp_ms()),
            (Some(&b"k"[..]), Some(7))
        );
    }

    #[test]
    fn a_handle_is_refused_unless_its_log_is_open() {
        let (mut session, log) = memory();
        assert_eq!(session.close(log), Ok(()));
        for handle in [log, 0, -1, 2, i32::MIN, i32::MAX] {
            let refused = [
                status(session.append(handle, Input::Bytes(b"x"), 0, 0, -1)),
                status(session.append_batch(handle, Input::Bytes(b""), 0, -1)),
                status(session.producer_last(handle, Input::Bytes(b"x"))),
                status(session.read(handle, 0)),
                status(session.read_batch(handle, 0, 1)),
                status(session.truncate_before(handle, 0)),
                status(session.truncate_after(handle, 0)),
                status(session.reset(handle)),
                status(session.skip_to(handle, 0, 3)),
                status(session.compact(handle, 0, 0, 0)),
                status(session.enforce_retention(handle, 0, 0, 0)),
                status(session.sync(handle)),
                status(session.refresh(handle)),
                status(session.close(handle)),
                status(session.lowest_offset(handle)),
                status(session.next_offset(handle)),
                status(session.durable_offset(handle)),
                status(session.locate(handle, 0)),
                status(session.recovery_report(handle)),
                status(session.verify(handle)),
                status(session.segments(handle)),
            ];
            assert_eq!(refused, [Status::InvalidArgument; 21], "{handle}");
        }
        // And its number is not another log's.
        assert_ne!(open(&mut session, b"log", 0).unwrap(), log);
    }

    #[test]
    fn pointers_outside_a_buffer_are_refused() {
        let (mut session, log) = memory();
        let hello = buffer(&mut session, b"hello");
        let spans = [
            Span { ptr: 0, len: 1 },
            Span {
                ptr: hello.ptr,
                len: 6,
            },
            Span {
                ptr: hello.ptr.wrapping_sub(1),
                len: 2,
            },
            Span {
                ptr: hello.ptr,
                len: u32::MAX,
            },
            Span {
                ptr: u32::MAX,
                len: u32::MAX,
            },
        ];
        for span in spans {
            let input = Input::Buffer(span);
            assert_eq!(
                status(session.append(log, input, 0, 0, -1)),
                Status::InvalidArgument
            );
            assert_eq!(
                status(session.append_batch(log, input, 0, -1)),
                Status::InvalidArgument
            );
            assert_eq!(
                status(session.open(input, 0, 0, 0, 0, 0)),
                Status::InvalidArgument
            );
            assert_eq!(status(session.dealloc(span)), Status::InvalidArgument);
        }
        assert_eq!(session.dealloc(hello), Ok(()));
        assert_eq!(
            status(session.append(log, Input::Buffer(hello), 0, 0, -1)),
            Status::InvalidArgument
        );
        assert_eq!(session.next_offset(log), Ok(0));
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let (mut session, log) = memory();
        for number in [-1, i64::MIN] {
            let x = Input::Bytes(b"x");
            assert_eq!(
                status(session.append(log, x, number, 0, -1)),
                Status::InvalidArgument
            );
            assert_eq!(status(session.read(log, number)), Status::InvalidArgument);
            assert_eq!(
                status(session.read_batch(log, number, 1)),
                Status::InvalidArgument
            );
            assert_eq!(
                status(session.truncate_before(log, number)),
                Status::InvalidArgument
            );
            assert_eq!(
                status(session.truncate_after(log, number)),
                Status::InvalidArgument
            );
            assert_eq!(
                status(session.skip_to(log, number, 3)),
                Status::InvalidArgument
            );
            assert_eq!(status(session.locate(log, number)), Status::InvalidArgument);
            for at in 0..3 {
                let mut numbers = [0; 3];
                numbers[at] = number;
                let [first, second, now_ms] = numbers;
                let compacted = session.compact(log, first, second, now_ms);
                assert_eq!(status(compacted), Status::InvalidArgument, "{numbers:?}");
                let enforced = session.enforce_retention(log, first, second, now_ms);
                assert_eq!(status(enforced), Status::InvalidArgument, "{numbers:?}");
            }
            for at in 0..4 {
                let mut numbers = [0; 4];
                numbers[at] = number;
                let [segment, index, record, initial] = numbers;
                let opened = session.open(x, 0, segment, index, record, initial);
                assert_eq!(status(opened), Status::InvalidArgument, "{numbers:?}");
            }
        }
        assert_eq!(
            status(session.read_batch(log, 0, -1)),
            Status::InvalidArgument
        );
        assert_eq!(
            status(session.read(log, i64::MAX)),
            Status::OffsetOutOfRange
        );
        assert_eq!(status(session.read(log, 0)), Status::OffsetOutOfRange);
    }

    #[test]
    fn names_and_flags_are_checked() {
        let mut session = Session::new(Memory::default());
        assert_eq!(
            status(open(&mut session, &[0xff, 0xfe], 0)),
            Status::InvalidArgument
        );
        for flags in [6, 8, -1, i32::MIN] {
            assert_eq!(
                status(open(&mut session, b"log", flags)),
                Status::InvalidArgument
            );
        }
        assert_eq!(
            status(open(&mut session, b"nowhere", 1)),
            Status::InvalidArgument
        );
    }

    #[test]
    fn no_offset_beyond_a_result_is_given() {
        let mut session = Session::new(Memory::default());
        let last = Input::Bytes(b"last");
        let log = session.open(last, 0, 0, 0, 0, i64::MAX - 1).unwrap();
        assert_eq!(
            session.append(log, Input::Bytes(b"x"), 0, 0, -1),
            Ok(i64::MAX - 1)
        );
        assert_eq!(session.next_offset(log), Ok(i64::MAX));
        let refused = session
            .append(log, Input::Bytes(b"x"), 0, 0, -1)
            .unwrap_err();
        assert_eq!(refused.status, Status::InvalidArgument);
        assert!(
            refused.message.contains("use the native engine"),
            "{}",
            refused.message
        );
        assert_eq!(
            session.append_batch(log, Input::Bytes(b""), 0, -1),
            Ok(i64::MAX)
        );
        assert_eq!(session.next_offset(log), Ok(i64::MAX));
    }

    #[test]
    fn no_part_of_a_batch_is_beyond_a_result() {
        let mut session = Session::new(Memory::default());
        let mut request = Vec::new();
        for n in 0..5 {
            abi::put_entry(&NewRecord::new(&[n]), 0, &mut request);
        }
        for (room, fits) in [(1, false), (4, false), (5, true)] {
            let name = format!("with room for {room}");
            let initial = i64::MAX - room;
            let log = session
                .open(Input::Bytes(name.as_bytes()), 0, 0, 0, 0, initial)
                .unwrap();
            let appended = session.append_batch(log, Input::Bytes(&request), 0, -1);
            if fits {
                assert_eq!(appended, Ok(initial));
                for (n, offset) in (0..).zip(initial..i64::MAX) {
                    assert_eq!(value(session.read(log, offset).unwrap()), [n]);
                }
            } else {
                assert_eq!(status(appended), Status::InvalidArgument, "{room}");
                assert_eq!(session.next_offset(log), Ok(initial));
            }
        }
    }

    #[test]
    fn a_log_beyond_a_result_is_the_native_engines() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::new().initial_offset(1 << 63);
        let log = Log::open(directory.path(), options).unwrap();
        log.append(NewRecord::new("x")).unwrap();
        log.close().unwrap();

        let name = directory.path().to_str().unwrap().as_bytes();
        let mut session = Session::new(Directories);
        let log = open(&mut session, name, 1).unwrap();
        for refused in [session.lowest_offset(log), session.next_offset(log)] {
            let refused = refused.unwrap_err();
            assert_eq!(refused.status, Status::InvalidArgument);
            assert!(
                refused.message.contains("use the native engine"),
                "{}",
                refused.message
            );
        }
    }

    #[test]
    fn one_handle_writes_and_others_read() {
        let (mut session, log) = memory();
        assert_eq!(session.append(log, Input::Bytes(b"x"), 0, 0, -1), Ok(0));
        assert_eq!(status(open(&mut session, b"log", 0)), Status::Locked);
        let reader = open(&mut session, b"log", 1).unwrap();
        assert_eq!(value(session.read(reader, 0).unwrap()), b"x");
        assert_eq!(
            status(session.append(reader, Input::Bytes(b"y"), 0, 0, -1)),
            Status::ReadOnly
        );
        assert_eq!(session.append(log, Input::Bytes(b"y"), 0, 0, -1), Ok(1));
        assert_eq!(session.refresh(reader), Ok(()));
        assert_eq!(session.next_offset(reader), Ok(2));
        assert_eq!(session.close(log), Ok(()));
        assert!(open(&mut session, b"log", 0).is_ok());
    }

    #[test]
    fn a_log_is_found_again_under_its_name() {
        let (mut session, log) = memory();
        assert_eq!(session.append(log, Input::Bytes(b"kept"), 0, 0, -1), Ok(0));
        assert_eq!(session.close(log), Ok(()));
        let other = open(&mut session, b"other", 0).unwrap();
        assert_eq!(session.next_offset(other), Ok(0));
        let log = open(&mut session, b"log", 0).unwrap();
        assert_eq!(value(session.read(log, 0).unwrap()), b"kept");
    }

    #[test]
    fn reports_are_json() {
        let (mut session, log) = memory();
        assert_eq!(session.append(log, Input::Bytes(b"x"), 0, 0, -1), Ok(0));
        let segments =
            serde_json::from_slice::<Vec<proglog::SegmentSummary>>(session.segments(log).unwrap())
                .unwrap();
        assert_eq!((segments.len(), segments[0].next), (1, Offset(1)));
        let report =
            serde_json::from_slice::<proglog::Report>(session.verify(log).unwrap()).unwrap();
        assert_eq!((report.is_sound(), report.records()), (true, 1));
        serde_json::from_slice::<proglog::Report>(session.recovery_report(log).unwrap()).unwrap();
    }

    /// A log of small segments: five of key `k`, one second apart from 1000 on, then a tombstone and others.
    fn keyed(session: &mut Session<Memory>) -> i32 {
        let name = Input::Bytes(b"keyed");
        let log = session.open(name, 0, 40, 0, 0, 0).unwrap();
        for (n, value) in (1..).zip(["a", "b", "c", "d", "e", "", "x"]) {
            let mut request = Vec::new();
            let record = NewRecord::new(value).key(if value == "x" { "l" } else { "k" });
            abi::put_entry(&record, n * 1000, &mut request);
            session
                .append_batch(log, Input::Bytes(&request), 0, -1)
                .unwrap();
        }
        log
    }

    #[test]
    fn a_log_is_compacted_at_the_time_that_is_told() {
        let mut session = Session::new(Memory::default());
        let log = keyed(&mut session);
        let mut removed = |memory, kept_ms, now_ms| {
            let json = session.compact(log, memory, kept_ms, now_ms).unwrap();
            let compacted = serde_json::from_slice::<proglog::Compacted>(json).unwrap();
            compacted.records_removed
        };
        assert_eq!(removed(0, 100, 6099), 5);
        // The tombstone is of 6000; at no known time it stays.
        for now_ms in [0, 5000, 6099] {
            assert_eq!(removed(i64::MAX, 100, now_ms), 0, "{now_ms}");
        }
        assert_eq!(removed(1, 100, 6100), 1);
        assert_eq!(status(session.read(log, 5)), Status::Gap);
        assert_eq!(value(session.read(log, 6).unwrap()), b"x");
    }

    #[test]
    fn what_is_too_much_or_too_old_at_the_time_that_is_told_goes() {
        let mut session = Session::new(Memory::default());
        let log = keyed(&mut session);
        let lowest = |session: &mut Session<Memory>, bytes_max, age_max_ms, now_ms| {
            session
                .enforce_retention(log, bytes_max, age_max_ms, now_ms)
                .unwrap();
            session.lowest_offset(log).unwrap()
        };
        assert_eq!(lowest(&mut session, 0, 0, i64::MAX), 0);
        assert_eq!(lowest(&mut session, 0, 1, 0), 0);
        assert_eq!(lowest(&mut session, i64::MAX, 500, 1500), 0);
        assert_eq!(lowest(&mut session, i64::MAX, 500, 1501), 1);
        let segments = |session: &mut Session<Memory>| {
            let json = session.segments(log).unwrap();
            serde_json::from_slice::<Vec<proglog::SegmentSummary>>(json).unwrap()
        };
        let bytes = |segments: &[proglog::SegmentSummary]| -> i64 {
            let bytes = segments.iter().map(|segment| segment.store_bytes);
            bytes.sum::<u64>().cast_signed()
        };
        let before = segments(&mut session);
        let bytes_max = bytes(&before[2..]);
        let expected = before[2].base.0.cast_signed();
        assert_eq!(lowest(&mut session, bytes_max, 0, 0), expected);
        assert_eq!(segments(&mut session), before[2..]);
        // Never the active one.
        let last = before[before.len() - 1].base.0.cast_signed();
        assert_eq!(lowest(&mut session, 1, 0, 0), last);
    }

    #[test]
    fn the_last_failure_stays_until_the_next() {
        let (mut session, log) = memory();
        let failure = session.read(log, 3).unwrap_err();
        assert_eq!(session.fail(failure), Status::OffsetOutOfRange);
        assert!(
            session.last_error().contains("offset 3"),
            "{}",
            session.last_error()
        );
        assert_eq!(session.next_offset(log), Ok(0));
        assert!(session.last_error().contains("offset 3"));
    }

    #[test]
    fn directories_are_opened_by_path() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().to_str().unwrap().as_bytes();
        let mut session = Session::new(Directories);
        let log = open(&mut session, name, 0).unwrap();
        assert_eq!(session.append(log, Input::Bytes(b"x"), 0, 0, -1), Ok(0));
        assert_eq!(session.close(log), Ok(()));
        assert!(directory.path().join("0.store").exists());
    }

    #[test]
    fn options_are_checked_before_a_directory_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let name = Input::Bytes(path.to_str().unwrap().as_bytes());
        let mut session = Session::new(Directories);
        for (index_bytes_max, record_bytes_max) in [(1, 0), (0, i64::MAX)] {
            let opened = session.open(name, 0, 0, index_bytes_max, record_bytes_max, 0);
            assert_eq!(status(opened), Status::InvalidArgument);
            assert!(!path.exists());
        }
    }
}
