//! The functions that the module exports, as [`crate::abi`] describes them.
//!
//! They only turn numbers into a [`Session`]'s arguments and its results into numbers. The build
//! drops `proglog_` from their names: in the source, `read`, `open` and `close` would be taken for the C
//! library's.

use std::cell::RefCell;

use crate::{
    Failure, Input, Session,
    abi::{Span, Status, VERSION},
};

#[cfg(not(target_os = "unknown"))]
pub(crate) type Place = crate::Directories;
#[cfg(target_os = "unknown")]
pub(crate) type Place = crate::storage::browser::Browser;

thread_local! {
    static SESSION: RefCell<Session<Place>> = RefCell::new(Session::new(Place::default()));
}

/// Calls a function on the module's one session. None while a call is under way, which only a
/// function that the module imports can bring about.
pub(crate) fn with_session<T>(call: impl FnOnce(&mut Session<Place>) -> T) -> Option<T> {
    SESSION.with(|session| {
        session
            .try_borrow_mut()
            .ok()
            .map(|mut session| call(&mut session))
    })
}

fn number<T: From<i32>>(call: impl FnOnce(&mut Session<Place>) -> Result<T, Box<Failure>>) -> T {
    let result = with_session(|session| match call(session) {
        Ok(number) => number,
        Err(failure) => session.fail(failure).code().into(),
    });
    result.unwrap_or_else(|| Status::InvalidArgument.code().into())
}

fn status(call: impl FnOnce(&mut Session<Place>) -> Result<(), Box<Failure>>) -> i32 {
    number(|session| call(session).map(|()| 0))
}

fn packed(call: impl FnOnce(&mut Session<Place>) -> Result<&[u8], Box<Failure>>) -> i64 {
    number(|session| call(session).and_then(pack))
}

fn pack(bytes: &[u8]) -> Result<i64, Box<Failure>> {
    let ptr = u32::try_from(bytes.as_ptr().addr());
    let len = u32::try_from(bytes.len());
    let span = ptr.ok().zip(len.ok()).map(|(ptr, len)| Span { ptr, len });
    span.and_then(Span::pack).ok_or_else(|| {
        let message = format!("a result of {} bytes cannot be returned", bytes.len());
        Failure::new(Status::TooLarge, message)
    })
}

fn buffer(ptr: i32, len: i32) -> Input<'static> {
    Input::Buffer(Span::from_args(ptr, len))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_abi_version() -> i32 {
    VERSION
}

#[unsafe(no_mangle)]
extern "C" fn proglog_alloc(len: i32) -> i32 {
    with_session(|session| session.buffers().alloc(len.cast_unsigned()))
        .flatten()
        .map_or(0, |buffer| buffer.ptr.cast_signed())
}

#[unsafe(no_mangle)]
extern "C" fn proglog_dealloc(ptr: i32, len: i32) -> i32 {
    status(|session| session.dealloc(Span::from_args(ptr, len)))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_open(
    name_ptr: i32,
    name_len: i32,
    flags: i32,
    segment_bytes_max: i64,
    index_bytes_max: i64,
    record_bytes_max: i64,
    initial_offset: i64,
) -> i32 {
    let name = buffer(name_ptr, name_len);
    number(|session| {
        session.open(
            name,
            flags,
            segment_bytes_max,
            index_bytes_max,
            record_bytes_max,
            initial_offset,
        )
    })
}

#[unsafe(no_mangle)]
extern "C" fn proglog_append(
    handle: i32,
    value_ptr: i32,
    value_len: i32,
    timestamp_ms: i64,
    promise: i32,
    expected: i64,
) -> i64 {
    let value = buffer(value_ptr, value_len);
    number(|session| session.append(handle, value, timestamp_ms, promise, expected))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_append_batch(
    handle: i32,
    ptr: i32,
    len: i32,
    promise: i32,
    expected: i64,
) -> i64 {
    number(|session| session.append_batch(handle, buffer(ptr, len), promise, expected))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_append_drafts(
    handle: i32,
    ptr: i32,
    len: i32,
    promise: i32,
    expected: i64,
) -> i64 {
    number(|session| session.append_drafts(handle, Span::from_args(ptr, len), promise, expected))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_producer_last(handle: i32, id_ptr: i32, id_len: i32) -> i64 {
    packed(|session| session.producer_last(handle, buffer(id_ptr, id_len)))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_read(handle: i32, offset: i64) -> i64 {
    packed(|session| session.read(handle, offset))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_read_batch(handle: i32, from: i64, bytes_max: i32) -> i64 {
    packed(|session| session.read_batch(handle, from, bytes_max))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_truncate_before(handle: i32, offset: i64) -> i32 {
    status(|session| session.truncate_before(handle, offset))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_truncate_after(handle: i32, offset: i64) -> i32 {
    status(|session| session.truncate_after(handle, offset))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_reset(handle: i32) -> i32 {
    status(|session| session.reset(handle))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_skip_to(handle: i32, next: i64, cause: i32) -> i32 {
    status(|session| session.skip_to(handle, next, cause))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_compact(
    handle: i32,
    memory_bytes_max: i64,
    tombstones_kept_ms: i64,
    now_ms: i64,
) -> i64 {
    packed(|session| session.compact(handle, memory_bytes_max, tombstones_kept_ms, now_ms))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_enforce_retention(
    handle: i32,
    bytes_max: i64,
    age_max_ms: i64,
    now_ms: i64,
) -> i32 {
    status(|session| session.enforce_retention(handle, bytes_max, age_max_ms, now_ms))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_sync(handle: i32) -> i32 {
    status(|session| session.sync(handle))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_refresh(handle: i32) -> i32 {
    status(|session| session.refresh(handle))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_close(handle: i32) -> i32 {
    status(|session| session.close(handle))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_lowest_offset(handle: i32) -> i64 {
    number(|session| session.lowest_offset(handle))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_next_offset(handle: i32) -> i64 {
    number(|session| session.next_offset(handle))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_durable_offset(handle: i32) -> i64 {
    number(|session| session.durable_offset(handle))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_locate(handle: i32, offset: i64) -> i64 {
    packed(|session| session.locate(handle, offset))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_recovery_report(handle: i32) -> i64 {
    packed(|session| session.recovery_report(handle))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_verify(handle: i32) -> i64 {
    packed(|session| session.verify(handle))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_segments(handle: i32) -> i64 {
    packed(|session| session.segments(handle))
}

#[unsafe(no_mangle)]
extern "C" fn proglog_last_error() -> i64 {
    with_session(|session| pack(session.last_error().as_bytes()).ok())
        .flatten()
        .unwrap_or_else(|| Status::InvalidArgument.code().into())
}

#[unsafe(no_mangle)]
extern "C" fn proglog_last_conflict() -> i64 {
    with_session(|session| pack(session.last_conflict()).ok())
        .flatten()
        .unwrap_or_else(|| Status::InvalidArgument.code().into())
}
