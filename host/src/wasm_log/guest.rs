//! One instance of the module with one log open in it, and the calls into it.
//!
//! The module is not trusted: whatever it returns is checked before it is used.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use proglog::{
    AppendOptions, Clock, Compacted, Compaction, Drafts, Frames, GapCause, LeftAloneReason,
    Location, NewRecord, Offset, Options, ProducerLast, Record, Retention,
};
use proglog_wasm::abi::{self, Conflict, Expected, Flags, Promise, Span, Status};
use serde::de::DeserializeOwned;
use wasmtime::{
    Instance, Memory, Store, StoreLimitsBuilder, Trap, TypedFunc, UpdateDeadline, WasmParams,
    WasmResults,
};

use super::{
    Limits, OpenWith,
    module::{GuestModule, Runtime},
    sandbox::Sandbox,
    ticker,
    wasi::{GUEST_PATH, State, bytes_of},
};
use crate::{Error, ErrorKind};

/// The request buffer is never smaller, and one that grew beyond the second is given back after use.
const REQUEST_BYTES_MIN: u32 = 64 << 10;
const REQUEST_BYTES_KEPT: u32 = 16 << 20;
/// The most bytes of frames asked for at once.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// The most bytes of a message taken from a guest.
const MESSAGE_BYTES_MAX: u32 = 64 << 10;
/// What a slow disk reads in a second: there is time for all of a directory.
const SCAN_BYTES_PER_SECOND_MIN: u64 = 10 << 20;

/// Of a guest's memory, the keys of a compaction may take one part of so many.
const COMPACT_MEMORY_PART: u64 = 4;

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// The log said no. The guest is well.
    Refused(Error),
    /// The guest trapped, or returned what it must not, and cannot be called again.
    Broken(String),
}

type Result<T, E = Fault> = std::result::Result<T, E>;

pub(super) struct Guest {
    store: Store<State>,
    memory: Memory,
    exports: Exports,
    call_timeout: Duration,
    memory_bytes_max: u64,
    /// A buffer of the guest's `alloc`, kept for the next request. Empty if there is none.
    request: Span,
    /// What the host calls the guest's directory.
    directory: PathBuf,
    /// Of the open log.
    handle: i32,
    /// The offset that the next append will likely give, so that a batch can be laid out for it.
    next: Option<Offset>,
}

impl Guest {
    /// Instantiates the module and opens the log in it.
    pub(super) fn open(
        module: &GuestModule,
        sandbox: &Sandbox,
        open: &OpenWith,
        limits: &Limits,
    ) -> Result<Self> {
        let broken = |e: anyhow::Error| Fault::Broken(format!("{e:#}"));
        let memory_bytes_max = usize::try_from(limits.memory_bytes_max).unwrap_or(usize::MAX);
        let store_limits = StoreLimitsBuilder::new()
            .memory_size(memory_bytes_max)
            .memories(1)
            .tables(1)
            .table_elements(1 << 16)
            .instances(1)
            .build();
        let state =
            State::new(sandbox.clone(), store_limits).map_err(|e| Fault::Broken(e.to_string()))?;
        let mut store = Store::new(module.instance.module().engine(), state);
        store.limiter(|state| &mut state.limits);
        store.epoch_deadline_callback(|mut context| {
            let state = context.data_mut();
            let Some(scans_left) = state.scans_left.checked_sub(1) else {
                return Err(Trap::Interrupt.into());
            };
            state.scans_left = scans_left;
            let more = state.sandbox.bytes() / SCAN_BYTES_PER_SECOND_MIN;
            Ok(UpdateDeadline::Continue(ticker::epochs(
                Duration::from_secs(more),
            )))
        });
        // What runs on instantiation has no more time than a call.
        store.set_epoch_deadline(ticker::epochs(limits.call_timeout));
        let runtime = Runtime::get().map_err(Fault::Broken)?;
        let call = runtime.ticker.call();
        let instance = module.instance.instantiate(&mut store).map_err(broken)?;
        let memory = instance
            .get_memory(&mut store, "memory")
            .ok_or_else(|| Fault::Broken("it exports no memory".to_owned()))?;
        store.data_mut().memory = Some(memory);
        // Where the C library gets ready, if it has something to.
        if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut store, "_initialize") {
            initialize.call(&mut store, ()).map_err(broken)?;
        }
        drop(call);
        let exports = Exports::of(&instance, &mut store).map_err(broken)?;
        let mut guest = Self {
            store,
            memory,
            exports,
            call_timeout: limits.call_timeout,
            memory_bytes_max: limits.memory_bytes_max,
            request: Span::default(),
            directory: open.directory.clone(),
            handle: 0,
            next: None,
        };
        let version = guest.call(|exports| &exports.abi_version, ())?;
        if version != abi::VERSION {
            return Err(Fault::Broken(format!(
                "its ABI has version {version}, not {}",
                abi::VERSION
            )));
        }
        guest.handle = guest.open_log(open)?;
        Ok(guest)
    }

    fn open_log(&mut self, open: &OpenWith) -> Result<i32> {
        let name = GUEST_PATH.as_bytes();
        let request = self.request(name.len() as u64)?;
        self.span_mut(request)?.copy_from_slice(name);
        let [
            segment_bytes_max,
            index_bytes_max,
            record_bytes_max,
            initial_offset,
        ] = open.numbers;
        let Span { ptr, len } = request;
        let params = (
            ptr.cast_signed(),
            len.cast_signed(),
            Flags::encode(open.flags),
            segment_bytes_max,
            index_bytes_max,
            record_bytes_max,
            initial_offset,
        );
        let opened = self.scan(|exports| &exports.open, params)?;
        match self.checked(opened.into())? {
            1.. => Ok(opened),
            _ => Err(Fault::Broken(
                "it opened a log and gave no handle".to_owned(),
            )),
        }
    }

    /// Appends records, all or none; gives the first one's offset. Of the options it uses the clock and the
    /// size of the largest record.
    pub(super) fn append_batch(
        &mut self,
        records: &[NewRecord<'_>],
        how: AppendOptions,
        options: &Options,
    ) -> Result<Offset> {
        let terms = (
            Promise {
                durability: how.durability,
                copied: how.copied,
            }
            .encode(),
            Expected(how.expected_next_offset).encode(),
        );
        // After a failure it is not known.
        let expected = self.next.take();
        let result = match (records, expected) {
            ([record], _)
                if record.key.is_empty()
                    && record.headers.is_empty()
                    && record.producer.is_none() =>
            {
                self.append_value(record, terms, options)?
            }
            ([_, ..], Some(first)) => match Drafts::new(records, first, options) {
                Ok(drafts) => self.append_drafts(&drafts, terms)?,
                // The guest says what is wrong, unless something else is.
                Err(_) => self.append_entries(records, terms, options)?,
            },
            _ => self.append_entries(records, terms, options)?,
        };
        if self.request.len > REQUEST_BYTES_KEPT {
            self.release_request()?;
        }
        let first = self.offset(result)?;
        // What a producer had appended before tells nothing of what comes next.
        if expected.is_none_or(|expected| first >= expected) {
            self.next = first.0.checked_add(records.len() as u64).map(Offset);
        }
        Ok(first)
    }

    fn append_value(
        &mut self,
        record: &NewRecord<'_>,
        terms: Terms,
        options: &Options,
    ) -> Result<i64> {
        let timestamp_ms = record
            .timestamp_ms
            .or_else(|| options.clock.now_ms())
            .unwrap_or(0);
        let Ok(timestamp_ms) = i64::try_from(timestamp_ms) else {
            return self.append_entries(std::slice::from_ref(record), terms, options);
        };
        let request = self.request(record.value.len() as u64)?;
        self.span_mut(request)?.copy_from_slice(record.value);
        let (ptr, len) = (request.ptr.cast_signed(), request.len.cast_signed());
        self.call(
            |exports| &exports.append,
            (self.handle, ptr, len, timestamp_ms, terms.0, terms.1),
        )
    }

    fn append_drafts(&mut self, drafts: &Drafts<'_>, terms: Terms) -> Result<i64> {
        let request = self.request(drafts.bytes())?;
        drafts.write(self.span_mut(request)?);
        let (ptr, len) = (request.ptr.cast_signed(), request.len.cast_signed());
        let params = (self.handle, ptr, len, terms.0, terms.1);
        self.call(|exports| &exports.append_drafts, params)
    }

    fn append_entries(
        &mut self,
        records: &[NewRecord<'_>],
        terms: Terms,
        options: &Options,
    ) -> Result<i64> {
        // Asked once: the records of a batch are of the same time. 0 is none.
        let now_ms = options.clock.now_ms().unwrap_or(0);
        let timestamp_ms = |record: &NewRecord<'_>| record.timestamp_ms.unwrap_or(now_ms);
        let bytes = records
            .iter()
            .map(|record| abi::entry_bytes(record, timestamp_ms(record)));
        let request = self.request(bytes.sum())?;
        let mut out = self.span_mut(request)?;
        for record in records {
            abi::put_entry(record, timestamp_ms(record), &mut out);
        }
        let (ptr, len) = (request.ptr.cast_signed(), request.len.cast_signed());
        let params = (self.handle, ptr, len, terms.0, terms.1);
        self.call(|exports| &exports.append_batch, params)
    }

    pub(super) fn producer_last(&mut self, id: &[u8]) -> Result<Option<ProducerLast>> {
        let request = self.request(id.len() as u64)?;
        self.span_mut(request)?.copy_from_slice(id);
        let (ptr, len) = (request.ptr.cast_signed(), request.len.cast_signed());
        let params = (self.handle, ptr, len);
        let result = self.scan(|exports| &exports.producer_last, params)?;
        let last = self.bytes(result)?;
        match abi::pair(last) {
            Some([sequence, offset]) => Ok(Some(ProducerLast::new(sequence, Offset(offset)))),
            None if last.is_empty() => Ok(None),
            None => Err(Fault::Broken(
                "it gave a producer's last record that is not 16 bytes".to_owned(),
            )),
        }
    }

    pub(super) fn read(&mut self, offset: Offset) -> Result<Record> {
        let at = self.offset_arg(offset)?;
        let result = self.call(|exports| &exports.read, (self.handle, at))?;
        let frame = Bytes::copy_from_slice(self.bytes(result)?);
        let record = Record::from_frame(frame)
            .map_err(|damaged| Fault::Broken(format!("it gave a record of which {damaged}")))?;
        if record.offset() != offset {
            let given = record.offset();
            return Err(Fault::Broken(format!(
                "it gave record {given} for record {offset}"
            )));
        }
        Ok(record)
    }

    /// As [`Guest::read_batch`], but the bytes may be anything.
    pub(super) fn read_unchecked(&mut self, from: Offset, bytes_max: usize) -> Result<Frames> {
        let at = self.offset_arg(from)?;
        let bytes_max = i32::try_from(bytes_max.min(BATCH_BYTES_MAX)).unwrap_or(i32::MAX);
        let params = (self.handle, at, bytes_max);
        let result = self.call(|exports| &exports.read_batch, params)?;
        Ok(Frames::new(Bytes::copy_from_slice(self.bytes(result)?)))
    }

    pub(super) fn read_batch(&mut self, from: Offset, bytes_max: usize) -> Result<Frames> {
        let frames = self.read_unchecked(from, bytes_max)?;
        let mut expected = from;
        for record in frames.clone() {
            // Offsets may be left out between them, never come back.
            let Some(record) = record.ok().filter(|record| record.offset() >= expected) else {
                let message = format!("it gave records of which {expected} is not as it should be");
                return Err(Fault::Broken(message));
            };
            expected = record.offset().next();
        }
        Ok(frames)
    }

    pub(super) fn truncate_before(&mut self, offset: Offset) -> Result<()> {
        if i64::try_from(offset.0).is_err() {
            // It removes nothing, but is refused where the log may not be changed.
            self.done(|exports| &exports.truncate_before, (self.handle, 0))?;
        }
        let at = self.offset_arg(offset)?;
        self.done(|exports| &exports.truncate_before, (self.handle, at))
    }

    pub(super) fn truncate_after(&mut self, offset: Offset) -> Result<()> {
        let at = match i64::try_from(offset.0) {
            Ok(at) => at,
            Err(_) => {
                // Nothing is above either of them, if the guest can say what its next offset is.
                self.next_offset()?;
                i64::MAX
            }
        };
        self.done(|exports| &exports.truncate_after, (self.handle, at))
    }

    pub(super) fn reset(&mut self) -> Result<()> {
        self.done(|exports| &exports.reset, self.handle)
    }

    pub(super) fn skip_to(&mut self, next: Offset, cause: GapCause) -> Result<()> {
        let Ok(to) = i64::try_from(next.0) else {
            let message =
                format!("offset {next} is above what a wasm module has; use the native engine");
            return Err(Fault::Refused(
                proglog::Error::InvalidArgument(message).into(),
            ));
        };
        let cause = cause.code().cast_signed();
        self.done(|exports| &exports.skip_to, (self.handle, to, cause))
    }

    /// Compacts the log, with the time of this clock unless another is told.
    pub(super) fn compact(&mut self, compaction: &Compaction, clock: Clock) -> Result<Compacted> {
        // To the guest 0 is the default.
        let memory_bytes_max = compaction
            .memory_bytes_max
            .min(self.memory_bytes_max / COMPACT_MEMORY_PART)
            .max(1);
        // As long at least.
        let kept_ms = compaction.tombstones_kept.as_nanos().div_ceil(1_000_000);
        let params = (
            self.handle,
            i64::try_from(memory_bytes_max).unwrap_or(i64::MAX),
            i64::try_from(kept_ms).unwrap_or(i64::MAX),
            time_arg(compaction.now_ms, clock),
        );
        let bytes = self.store.data().sandbox.bytes();
        let scans = compaction_scans(bytes, memory_bytes_max);
        let result = self.scans(scans, |exports| &exports.compact, params)?;
        let mut compacted: Compacted = self.json(result)?;
        for left_alone in &mut compacted.left_alone {
            if let LeftAloneReason::Failed(message) = &mut left_alone.reason {
                *message = self.with_real_path(message);
            }
        }
        Ok(compacted)
    }

    /// Removes what is not to be kept, at the time of this clock unless another is told.
    pub(super) fn enforce_retention(
        &mut self,
        retention: &Retention,
        now_ms: Option<u64>,
        clock: Clock,
    ) -> Result<()> {
        // To the guest 0 is no bound, and 1 removes the same: there are no stores of one byte, and what is that young
        // stays for a millisecond.
        let bound = |bound: Option<u128>| match bound {
            Some(bound) => i64::try_from(bound.max(1)).unwrap_or(i64::MAX),
            None => 0,
        };
        let params = (
            self.handle,
            bound(retention.bytes_max.map(u128::from)),
            bound(retention.age_max.map(|age| age.as_millis())),
            time_arg(now_ms, clock),
        );
        let result = self.scan(|exports| &exports.enforce_retention, params)?;
        self.nothing(result)
    }

    pub(super) fn sync(&mut self) -> Result<()> {
        self.done(|exports| &exports.sync, self.handle)
    }

    pub(super) fn refresh(&mut self) -> Result<()> {
        self.done(|exports| &exports.refresh, self.handle)
    }

    pub(super) fn close(&mut self) -> Result<()> {
        self.done(|exports| &exports.close, self.handle)
    }

    pub(super) fn lowest_offset(&mut self) -> Result<Offset> {
        let result = self.call(|exports| &exports.lowest_offset, self.handle)?;
        self.offset(result)
    }

    pub(super) fn next_offset(&mut self) -> Result<Offset> {
        let result = self.call(|exports| &exports.next_offset, self.handle)?;
        self.offset(result)
    }

    pub(super) fn durable_offset(&mut self) -> Result<Offset> {
        let result = self.call(|exports| &exports.durable_offset, self.handle)?;
        self.offset(result)
    }

    pub(super) fn locate(&mut self, offset: Offset) -> Result<Location> {
        let at = self.offset_arg(offset)?;
        let result = self.call(|exports| &exports.locate, (self.handle, at))?;
        abi::place_of(self.bytes(result)?)
            .ok_or_else(|| Fault::Broken("it gave a place that is none".to_owned()))
    }

    pub(super) fn recovery_report<T: DeserializeOwned>(&mut self) -> Result<T> {
        let result = self.call(|exports| &exports.recovery_report, self.handle)?;
        self.json(result)
    }

    pub(super) fn verify<T: DeserializeOwned>(&mut self) -> Result<T> {
        let result = self.scan(|exports| &exports.verify, self.handle)?;
        self.json(result)
    }

    pub(super) fn segments<T: DeserializeOwned>(&mut self) -> Result<T> {
        let result = self.call(|exports| &exports.segments, self.handle)?;
        self.json(result)
    }

    #[cfg(test)]
    pub(super) fn overwrite_memory(&mut self, byte: u8) {
        self.memory.data_mut(&mut self.store).fill(byte);
    }

    /// Calls an export that may read the whole log: it has the time to, beside a call's.
    fn scan<P: WasmParams, R: WasmResults>(
        &mut self,
        export: impl FnOnce(&Exports) -> &TypedFunc<P, R>,
        params: P,
    ) -> Result<R> {
        self.scans(1, export, params)
    }

    /// Calls an export that may read or write the whole log so many times.
    fn scans<P: WasmParams, R: WasmResults>(
        &mut self,
        scans: u64,
        export: impl FnOnce(&Exports) -> &TypedFunc<P, R>,
        params: P,
    ) -> Result<R> {
        self.store.data_mut().scans_left = scans;
        let result = self.call(export, params);
        self.store.data_mut().scans_left = 0;
        result
    }

    /// Calls an export, for no longer than a call may take.
    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        export: impl FnOnce(&Exports) -> &TypedFunc<P, R>,
        params: P,
    ) -> Result<R> {
        let runtime = Runtime::get().map_err(Fault::Broken)?;
        let _call = runtime.ticker.call();
        self.store
            .set_epoch_deadline(ticker::epochs(self.call_timeout));
        export(&self.exports)
            .call(&mut self.store, params)
            .map_err(|error| {
                let reason = match error.downcast_ref::<Trap>() {
                    Some(Trap::Interrupt) => format!("it took more than {:?}", self.call_timeout),
                    Some(trap) => match self.store.data().last_words.text() {
                        Some(words) => format!("{trap}: {words}"),
                        None => trap.to_string(),
                    },
                    None => error.root_cause().to_string(),
                };
                Fault::Broken(reason)
            })
    }

    /// Calls an export that gives 0 or a status.
    fn done<P: WasmParams>(
        &mut self,
        export: impl FnOnce(&Exports) -> &TypedFunc<P, i32>,
        params: P,
    ) -> Result<()> {
        let result = self.call(export, params)?;
        self.nothing(result)
    }

    /// A result that is 0, or a status.
    fn nothing(&mut self, result: i32) -> Result<()> {
        match self.checked(result.into())? {
            0 => Ok(()),
            other => Err(Fault::Broken(format!("it gave {other} for a status"))),
        }
    }

    /// A result that is no status.
    fn checked(&mut self, result: i64) -> Result<i64> {
        if result >= 0 {
            return Ok(result);
        }
        let Some(status) = Status::from_result(result) else {
            return Err(Fault::Broken(format!(
                "it gave {result}, which is no status"
            )));
        };
        let message = self.call(|exports| &exports.last_error, ())?;
        let span = Span::unpack(message).filter(|span| span.len <= MESSAGE_BYTES_MAX);
        let bytes = span.and_then(|span| bytes_of(self.memory.data(&self.store), span));
        let Some(message) = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
            return Err(Fault::Broken(
                "it failed with a message that cannot be read".to_owned(),
            ));
        };
        let message = self.with_real_path(message);
        let message = match status {
            Status::OutOfMemory => format!("{message}; it may use {} bytes", self.memory_bytes_max),
            _ => message,
        };
        let conflict = match status {
            Status::Conflict | Status::SequenceConflict => Some(self.last_conflict(status)?),
            _ => None,
        };
        Err(Fault::Refused(
            Error::new(status.into(), message).with_conflict(conflict),
        ))
    }

    /// A message that names files as the native log does.
    fn with_real_path(&self, message: &str) -> String {
        message.replace(GUEST_PATH, &self.directory.display().to_string())
    }

    fn last_conflict(&mut self, status: Status) -> Result<Conflict> {
        let packed = self.call(|exports| &exports.last_conflict, ())?;
        Span::unpack(packed)
            .and_then(|span| bytes_of(self.memory.data(&self.store), span))
            .and_then(|bytes| Conflict::decode(status, bytes))
            .ok_or_else(|| Fault::Broken("it gave a conflict that is not 16 bytes".to_owned()))
    }

    fn offset(&mut self, result: i64) -> Result<Offset> {
        Ok(Offset(self.checked(result)?.cast_unsigned()))
    }

    /// The bytes of a packed result.
    fn bytes(&mut self, result: i64) -> Result<&[u8]> {
        let result = self.checked(result)?;
        Span::unpack(result)
            .and_then(|span| bytes_of(self.memory.data(&self.store), span))
            .ok_or_else(|| Fault::Broken("it gave bytes outside its memory".to_owned()))
    }

    fn json<T: DeserializeOwned>(&mut self, result: i64) -> Result<T> {
        serde_json::from_slice(self.bytes(result)?)
            .map_err(|e| Fault::Broken(format!("it gave a report that cannot be read: {e}")))
    }

    /// The guest speaks of offsets up to `i64::MAX`: one above is none of its log's, or the guest
    /// refuses to say what its log holds.
    fn offset_arg(&mut self, offset: Offset) -> Result<i64> {
        match i64::try_from(offset.0) {
            Ok(offset) => Ok(offset),
            Err(_) => {
                let lowest = self.lowest_offset()?;
                let next = self.next_offset()?;
                let error = proglog::Error::OffsetOutOfRange {
                    offset,
                    lowest,
                    next,
                };
                Err(Fault::Refused(error.into()))
            }
        }
    }

    /// Room for a request of so many bytes in the guest's memory.
    fn request(&mut self, bytes: u64) -> Result<Span> {
        let too_large = |why: String| Fault::Refused(Error::new(ErrorKind::TooLarge, why));
        let len = match u32::try_from(bytes) {
            Ok(len) if len <= abi::BUFFER_BYTES_MAX => len,
            _ => {
                return Err(too_large(format!(
                    "{bytes} bytes at once are more than the {} the wasm engine takes; append fewer \
                     records at a time",
                    abi::BUFFER_BYTES_MAX
                )));
            }
        };
        if self.request.len < len {
            self.release_request()?;
            let grown = len
                .checked_next_power_of_two()
                .unwrap_or(len)
                .max(REQUEST_BYTES_MIN);
            let params = grown.cast_signed();
            let ptr = self.call(|exports| &exports.alloc, params)?.cast_unsigned();
            if ptr == 0 {
                return Err(too_large(format!(
                    "the wasm module has no memory for {bytes} bytes at once, of the {} it may use",
                    self.memory_bytes_max
                )));
            }
            let request = Span { ptr, len: grown };
            if bytes_of(self.memory.data(&self.store), request).is_none() {
                return Err(Fault::Broken(
                    "it gave a buffer outside its memory".to_owned(),
                ));
            }
            self.request = request;
        }
        Ok(Span {
            len,
            ..self.request
        })
    }

    fn release_request(&mut self) -> Result<()> {
        let Span { ptr, len } = std::mem::take(&mut self.request);
        if len == 0 {
            return Ok(());
        }
        self.done(
            |exports| &exports.dealloc,
            (ptr.cast_signed(), len.cast_signed()),
        )
    }

    fn span_mut(&mut self, span: Span) -> Result<&mut [u8]> {
        let start = span.ptr as usize;
        self.memory
            .data_mut(&mut self.store)
            .get_mut(start..start + span.len as usize)
            .ok_or_else(|| Fault::Broken("it gave a buffer outside its memory".to_owned()))
    }
}

/// How often a compaction reads or writes as much as a log of so many bytes, at the most. It looks at no fewer keys at a
/// time than half of the memory has room for. A key takes no more than four times what its record and entry do.
pub(super) fn compaction_scans(bytes: u64, memory_bytes_max: u64) -> u64 {
    /// What the smallest key takes, so that there is always room for one.
    const KEY_BYTES_MIN: u64 = 128;
    let parts = bytes.saturating_mul(8) / memory_bytes_max.max(KEY_BYTES_MIN);
    // One more part, that is not full; and then what stays is read and written.
    parts + 3
}

/// The time as the guest takes it: 0 is not known.
fn time_arg(now_ms: Option<u64>, clock: Clock) -> i64 {
    let now_ms = now_ms.or_else(|| clock.now_ms()).unwrap_or(0);
    i64::try_from(now_ms).unwrap_or(i64::MAX)
}

/// What an append promises, and where it is expected.
type Terms = (i32, i64);

type OpenParams = (i32, i32, i32, i64, i64, i64, i64);

/// The functions that a guest exports, as [`proglog_wasm::abi`] describes them.
struct Exports {
    abi_version: TypedFunc<(), i32>,
    alloc: TypedFunc<i32, i32>,
    dealloc: TypedFunc<(i32, i32), i32>,
    open: TypedFunc<OpenParams, i32>,
    append: TypedFunc<(i32, i32, i32, i64, i32, i64), i64>,
    append_batch: TypedFunc<(i32, i32, i32, i32, i64), i64>,
    append_drafts: TypedFunc<(i32, i32, i32, i32, i64), i64>,
    producer_last: TypedFunc<(i32, i32, i32), i64>,
    read: TypedFunc<(i32, i64), i64>,
    read_batch: TypedFunc<(i32, i64, i32), i64>,
    truncate_before: TypedFunc<(i32, i64), i32>,
    truncate_after: TypedFunc<(i32, i64), i32>,
    reset: TypedFunc<i32, i32>,
    skip_to: TypedFunc<(i32, i64, i32), i32>,
    compact: TypedFunc<(i32, i64, i64, i64), i64>,
    enforce_retention: TypedFunc<(i32, i64, i64, i64), i32>,
    sync: TypedFunc<i32, i32>,
    refresh: TypedFunc<i32, i32>,
    close: TypedFunc<i32, i32>,
    lowest_offset: TypedFunc<i32, i64>,
    next_offset: TypedFunc<i32, i64>,
    durable_offset: TypedFunc<i32, i64>,
    locate: TypedFunc<(i32, i64), i64>,
    recovery_report: TypedFunc<i32, i64>,
    verify: TypedFunc<i32, i64>,
    segments: TypedFunc<i32, i64>,
    last_error: TypedFunc<(), i64>,
    last_conflict: TypedFunc<(), i64>,
}

impl Exports {
    fn of(instance: &Instance, store: &mut Store<State>) -> anyhow::Result<Self> {
        macro_rules! exports {
            ($($name:ident),* $(,)?) => {
                Self {
                    $($name: instance.get_typed_func(&mut *store, stringify!($name))?,)*
                }
            };
        }
        Ok(exports!(
            abi_version,
            alloc,
            dealloc,
            open,
            append,
            append_batch,
            append_drafts,
            producer_last,
            read,
            read_batch,
            truncate_before,
            truncate_after,
            reset,
            skip_to,
            compact,
            enforce_retention,
            sync,
            refresh,
            close,
            lowest_offset,
            next_offset,
            durable_offset,
            locate,
            recovery_report,
            verify,
            segments,
            last_error,
            last_conflict,
        ))
    }
}
