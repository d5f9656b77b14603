//! What a module does between its exports and the log: handles, buffers, results and errors.

#[cfg(test)]
mod tests;

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
    last_failure: Option<Box<Failure>>,
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

/// Why a call failed. What functions return is a box of it: one word, where all of it would be copied at every return.
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
            last_failure: None,
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
    pub fn dealloc(&mut self, buffer: Span) -> Result<(), Box<Failure>> {
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
    ) -> Result<i32, Box<Failure>> {
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
    ) -> Result<i64, Box<Failure>> {
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
    ) -> Result<i64, Box<Failure>> {
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
    ) -> Result<i64, Box<Failure>> {
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
    pub fn producer_last(&mut self, handle: i32, id: Input<'_>) -> Result<&[u8], Box<Failure>> {
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
    pub fn read(&mut self, handle: i32, offset: i64) -> Result<&[u8], Box<Failure>> {
        let record = log(&self.logs, handle)?.read(offset_arg(offset)?)?;
        Ok(self.hold(Held::Record(record)))
    }

    /// Consecutive frames from an offset on; none at the end of the log.
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn read_batch(
        &mut self,
        handle: i32,
        from: i64,
        bytes_max: i32,
    ) -> Result<&[u8], Box<Failure>> {
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
    pub fn truncate_before(&mut self, handle: i32, offset: i64) -> Result<(), Box<Failure>> {
        Ok(log(&self.logs, handle)?.truncate_before(offset_arg(offset)?)?)
    }

    /// As [`Log::truncate_after`].
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn truncate_after(&mut self, handle: i32, offset: i64) -> Result<(), Box<Failure>> {
        Ok(log(&self.logs, handle)?.truncate_after(offset_arg(offset)?)?)
    }

    /// As [`Log::reset`].
    ///
    /// # Errors
    ///
    /// The log's.
    pub fn reset(&mut self, handle: i32) -> Result<(), Box<Failure>> {
        Ok(log(&self.logs, handle)?.reset()?)
    }

    /// As [`Log::skip_to_because`], of the cause with this number.
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn skip_to(&mut self, handle: i32, next: i64, cause: i32) -> Result<(), Box<Failure>> {
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
    ) -> Result<&[u8], Box<Failure>> {
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
    ) -> Result<(), Box<Failure>> {
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
    pub fn sync(&mut self, handle: i32) -> Result<(), Box<Failure>> {
        Ok(log(&self.logs, handle)?.sync()?)
    }

    /// As [`Log::refresh`].
    ///
    /// # Errors
    ///
    /// The log's.
    pub fn refresh(&mut self, handle: i32) -> Result<(), Box<Failure>> {
        Ok(log(&self.logs, handle)?.refresh()?)
    }

    /// Closes a log. Whatever this returns, the handle is void.
    ///
    /// # Errors
    ///
    /// The log's.
    pub fn close(&mut self, handle: i32) -> Result<(), Box<Failure>> {
        let place = self.logs.iter().position(|open| open.handle == handle);
        let place = place.ok_or_else(|| not_open(handle))?;
        Ok(self.logs.swap_remove(place).log.close()?)
    }

    /// As [`Log::lowest_offset`].
    ///
    /// # Errors
    ///
    /// The handle is refused.
    pub fn lowest_offset(&self, handle: i32) -> Result<i64, Box<Failure>> {
        result(log(&self.logs, handle)?.lowest_offset())
    }

    /// As [`Log::next_offset`].
    ///
    /// # Errors
    ///
    /// The handle is refused.
    pub fn next_offset(&self, handle: i32) -> Result<i64, Box<Failure>> {
        result(log(&self.logs, handle)?.next_offset())
    }

    /// As [`Log::durable_offset`].
    ///
    /// # Errors
    ///
    /// The handle is refused.
    pub fn durable_offset(&self, handle: i32) -> Result<i64, Box<Failure>> {
        result(log(&self.logs, handle)?.durable_offset())
    }

    /// Where a record stands: `u64` LE segment, `u64` LE position.
    ///
    /// # Errors
    ///
    /// An argument is refused, or the log's error.
    pub fn locate(&mut self, handle: i32, offset: i64) -> Result<&[u8], Box<Failure>> {
        let place = log(&self.logs, handle)?.locate(offset_arg(offset)?)?;
        Ok(self.hold(Held::Bytes(abi::place_bytes(place))))
    }

    /// [`Log::recovery_report`] as JSON.
    ///
    /// # Errors
    ///
    /// The handle is refused.
    pub fn recovery_report(&mut self, handle: i32) -> Result<&[u8], Box<Failure>> {
        let report = log(&self.logs, handle)?.recovery_report();
        self.hold_json(&report)
    }

    /// [`Log::verify`] as JSON.
    ///
    /// # Errors
    ///
    /// The log's.
    pub fn verify(&mut self, handle: i32) -> Result<&[u8], Box<Failure>> {
        let report = log(&self.logs, handle)?.verify()?;
        self.hold_json(&report)
    }

    /// [`Log::segments`] as JSON.
    ///
    /// # Errors
    ///
    /// The handle is refused.
    pub fn segments(&mut self, handle: i32) -> Result<&[u8], Box<Failure>> {
        let segments = log(&self.logs, handle)?.segments();
        self.hold_json(&segments)
    }

    /// Remembers the message of a failed call and gives its status.
    pub fn fail(&mut self, failure: Box<Failure>) -> Status {
        let status = failure.status;
        if let Some(conflict) = &failure.conflict {
            self.last_conflict = conflict.encode();
        }
        self.last_failure = Some(failure);
        status
    }

    /// The message of the last call that failed.
    pub fn last_error(&self) -> &str {
        self.last_failure
            .as_ref()
            .map_or("", |failure| &failure.message)
    }

    /// The numbers of the last call that failed because of a [`Conflict`].
    pub fn last_conflict(&self) -> &[u8] {
        &self.last_conflict
    }

    fn hold_json(&mut self, value: &impl Serialize) -> Result<&[u8], Box<Failure>> {
        // What is written to memory, of maps with keys that are text, does not fail.
        let json = serde_json::to_vec(value)
            .map_err(|_| Failure::new(Status::Io, "the answer is no JSON"))?;
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

impl Failure {
    /// One that is no [`Conflict`].
    #[cold]
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            status,
            message: message.into(),
            conflict: None,
        })
    }
}

impl From<Error> for Box<Failure> {
    #[cold]
    fn from(error: Error) -> Self {
        Box::new(Failure {
            status: Status::of(&error),
            message: error.to_string(),
            conflict: Conflict::of(&error),
        })
    }
}

fn bytes_of<'a>(input: Input<'a>, buffers: &'a Buffers) -> Result<&'a [u8], Box<Failure>> {
    match input {
        Input::Bytes(bytes) => Ok(bytes),
        Input::Buffer(span) => buffers.get(span).ok_or_else(|| not_a_buffer(span)),
    }
}

fn log<S: Storage>(logs: &[OpenLog<S>], handle: i32) -> Result<&Log<S::Backend>, Box<Failure>> {
    open_log(logs, handle).map(|open| &open.log)
}

fn open_log<S: Storage>(logs: &[OpenLog<S>], handle: i32) -> Result<&OpenLog<S>, Box<Failure>> {
    let open = logs.iter().find(|open| open.handle == handle);
    open.ok_or_else(|| not_open(handle))
}

impl<S: Storage> OpenLog<S> {
    /// What an append with these arguments promises and expects.
    fn append_options(&self, promise: i32, expected: i64) -> Result<AppendOptions, Box<Failure>> {
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
fn require_room<B: Backend>(log: &Log<B>, records: u64) -> Result<(), Box<Failure>> {
    let next = log.next_offset();
    match next.0.checked_add(records).map(Offset).map(result) {
        Some(Ok(_)) => Ok(()),
        _ => Err(invalid(format_args!(
            "appending {records} at offset {next} would go beyond offset {OFFSET_LAST}, the last that \
             the wasm engine gives; use the native engine for such a log"
        ))),
    }
}

fn offset_arg(offset: i64) -> Result<Offset, Box<Failure>> {
    Ok(Offset(unsigned("offset", offset)?))
}

fn unsigned(name: &str, number: i64) -> Result<u64, Box<Failure>> {
    u64::try_from(number).map_err(|_| invalid(format_args!("{name} is {number}; give 0 or more")))
}

/// A number of which 0 is the default, or none.
fn set(name: &str, number: i64) -> Result<Option<u64>, Box<Failure>> {
    Ok(Some(unsigned(name, number)?).filter(|&number| number != 0))
}

fn result(offset: Offset) -> Result<i64, Box<Failure>> {
    i64::try_from(offset.0).map_err(|_| {
        invalid(format_args!(
            "offset {offset} is beyond {}, the last that the wasm engine knows; use the native engine \
             for such a log",
            i64::MAX
        ))
    })
}

#[cold]
fn invalid(message: impl Display) -> Box<Failure> {
    Failure::new(Status::InvalidArgument, message.to_string())
}

fn not_open(handle: i32) -> Box<Failure> {
    invalid(format_args!("{handle} is no open log's handle"))
}

fn not_a_buffer(span: Span) -> Box<Failure> {
    invalid(format_args!(
        "{} bytes at {:#x} do not lie in a buffer of alloc",
        span.len, span.ptr
    ))
}
