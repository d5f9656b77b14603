//! What the session's functions give, and what they refuse.

use proglog::Frames;

use super::*;
use crate::{Directories, Memory};

/// A session with a log open in memory.
fn memory() -> (Session<Memory>, i32) {
    let mut session = Session::new(Memory::default());
    let handle = open(&mut session, b"log", 0).unwrap();
    (session, handle)
}

fn open<S: Storage>(
    session: &mut Session<S>,
    name: &[u8],
    flags: i32,
) -> Result<i32, Box<Failure>> {
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

fn status<T>(result: Result<T, Box<Failure>>) -> Status {
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
    let send =
        |session: &mut Session<Memory>, sequence, expected| send_as(session, sequence, 0, expected);
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
    let report = serde_json::from_slice::<proglog::Report>(session.verify(log).unwrap()).unwrap();
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
