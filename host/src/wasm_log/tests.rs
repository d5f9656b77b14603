//! Guests that behave and guests that do not.

use std::{collections::BTreeMap, fs, path::Path, time::Instant};

use proglog::{Clock, Header, Log};
use tempfile::TempDir;

use super::*;

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// A guest of `tests/guests/`, which build.rs compiles.
macro_rules! guest {
    ($name:literal) => {{
        // SAFETY: build.rs made these bytes, with wasmtime's own compiler of the same version.
        unsafe {
            GuestModule::load(include_bytes!(concat!(
                env!("OUT_DIR"),
                "/",
                $name,
                ".cwasm"
            )))
        }
    }};
}

mod keeping;
mod skipping;

/// A guest that keeps the ABI's shape and nothing else.
fn unruly(directory: &Path) -> WasmLog {
    open_guest(guest!("unruly").unwrap(), directory)
}

fn open_guest(module: GuestModule, directory: &Path) -> WasmLog {
    let options = Options::new();
    let limits = Limits {
        call_timeout: Duration::from_millis(300),
        ..Limits::of(&options)
    };
    WasmLog::open_module(module, directory, Mode::Write, options, limits).unwrap()
}

/// That a call broke the guest, that the error says so, and that another took its place.
fn assert_discarded<T>(log: &WasmLog, result: Result<T>, reason: &str) {
    let Err(error) = result else {
        panic!("it succeeded")
    };
    assert_eq!(error.kind(), ErrorKind::Trapped, "{error}");
    let message = error.to_string();
    assert!(message.contains(reason), "{message}");
    assert!(
        message.contains("Nothing that was acknowledged is lost"),
        "{message}"
    );
    assert!(message.contains("opened again"), "{message}");
    // It counts its calls: this is the first.
    assert_eq!(log.next_offset(), Ok(Offset(1)), "after: {message}");
}

#[test]
fn records_come_back() {
    let directory = directory();
    let log = WasmLog::open(directory.path(), Mode::Write, Options::new()).unwrap();
    let headers = [Header::new("trace", "4bf9")];
    let records = [
        NewRecord::new("one"),
        NewRecord::new("two")
            .key("k")
            .headers(&headers)
            .timestamp_ms(4_000_000_000_000),
        NewRecord::new("").timestamp_ms(0),
    ];
    assert_eq!(log.append_batch(&records), Ok(Offset(0)..Offset(3)));
    assert_eq!(
        log.append_batch(&[NewRecord::new("four")]),
        Ok(Offset(3)..Offset(4))
    );
    assert_eq!(log.append_batch(&[]), Ok(Offset(4)..Offset(4)));

    let two = log.read(Offset(1)).unwrap();
    assert_eq!(
        (two.value(), two.key(), two.timestamp_ms()),
        (&b"two"[..], Some(&b"k"[..]), Some(4_000_000_000_000))
    );
    assert_eq!(two.headers().collect::<Vec<_>>(), [("trace", &b"4bf9"[..])]);
    assert!(
        log.read(Offset(0))
            .unwrap()
            .timestamp_ms()
            .is_some_and(|ms| ms > 1_700_000_000_000)
    );
    assert_eq!(log.read(Offset(2)).unwrap().timestamp_ms(), None);
    assert!(log.read(Offset(3)).unwrap().timestamp_ms().is_some());

    let mut values = Vec::new();
    for record in log.read_batch(Offset(0), 1 << 20).unwrap() {
        values.push(record.unwrap().value().to_vec());
    }
    assert_eq!(values, [&b"one"[..], b"two", b"", b"four"]);
    assert!(log.read_batch(Offset(4), 1 << 20).unwrap().is_empty());

    assert_eq!(
        log.read(Offset(4)).unwrap_err().kind(),
        ErrorKind::OffsetOutOfRange
    );
    assert_eq!(
        log.read(Offset(u64::MAX)).unwrap_err().kind(),
        ErrorKind::OffsetOutOfRange
    );
    assert_eq!(log.durable_offset(), Ok(Offset(4)));
    assert_eq!(log.locate(Offset(0)).unwrap().position, 0);
    assert_eq!(log.segments().unwrap().len(), 1);
    assert!(log.verify().unwrap().is_sound());
    log.reset().unwrap();
    assert_eq!(log.next_offset(), Ok(Offset(0)));
}

#[test]
fn what_was_compacted_is_read_as_by_the_native_log() {
    let directory = directory();
    let options = || Options::new().segment_bytes_max(1000);
    let log = Log::open(directory.path(), options()).unwrap();
    for n in 0..100 {
        let key = format!("{}", n * n % 31);
        log.append(NewRecord::new(&format!("value {n}")).key(&key))
            .unwrap();
    }
    log.skip_to(Offset(200)).unwrap();
    log.append("last").unwrap();
    assert!(
        log.compact(&proglog::Compaction::new())
            .unwrap()
            .records_removed
            > 60
    );
    log.close().unwrap();
    let native: Box<dyn Engine> =
        Box::new(Log::open_read_only(directory.path(), options()).unwrap());
    let wasm: Box<dyn Engine> =
        Box::new(WasmLog::open(directory.path(), Mode::Read, options()).unwrap());
    let outcome = |read: Result<Record>| {
        read.map(|record| record.frame().to_vec())
            .map_err(|e| (e.kind(), e.to_string()))
    };
    let (mut gaps, mut between) = (0, 0);
    for offset in (0..=201).map(Offset) {
        let read = outcome(native.read(offset));
        gaps += u32::from(
            read.as_ref()
                .is_err_and(|(kind, _)| *kind == ErrorKind::Gap),
        );
        assert_eq!(outcome(wasm.read(offset)), read);
        assert_eq!(wasm.locate(offset), native.locate(offset));
        for bytes_max in [1, 300, 1 << 20] {
            let batch = |log: &dyn Engine| log.read_batch(offset, bytes_max).unwrap();
            let (expected, found) = (batch(&*native), batch(&*wasm));
            assert_eq!(found.as_bytes(), expected.as_bytes());
            let records: Vec<_> = found.map(|r| r.unwrap().offset().0).collect();
            between += records
                .windows(2)
                .filter(|pair| pair[1] > pair[0] + 1)
                .count();
        }
        let scanned = |log: &dyn Engine| -> Vec<_> { log.scan(offset).map(outcome).collect() };
        assert_eq!(scanned(&*wasm), scanned(&*native), "{offset}");
    }
    assert!(gaps > 160 && between > 50, "{gaps} {between}");
    assert_eq!(wasm.verify(), native.verify());
}

#[test]
fn the_same_calls_leave_the_same_bytes_as_the_native_log() {
    let (wasm, native) = (directory(), directory());
    let options = || Options::new().segment_bytes_max(4096).clock(Clock::NONE);
    let engines: [Box<dyn Engine>; 2] = [
        Box::new(WasmLog::open(wasm.path(), Mode::Write, options()).unwrap()),
        Box::new(Log::open(native.path(), options()).unwrap()),
    ];
    for log in engines {
        for n in 0..200_u32 {
            let value = n.to_string().repeat(n as usize % 40);
            log.append_batch(&[NewRecord::new(&value), NewRecord::new("x").key(&value)])
                .unwrap();
        }
        // As large ones are, they are written from where they were framed.
        let large = vec![7; 30_000];
        let headers = [Header::new("trace", "4bf9"), Header::new("", "")];
        for timestamp_ms in [0, 1_700_000_000_000, 1_600_000_000_000, 5] {
            let records = [
                NewRecord::new(&large).timestamp_ms(timestamp_ms),
                NewRecord::new("x").headers(&headers).key("k"),
                NewRecord::new(&large),
            ];
            log.append_batch(&records).unwrap();
        }
        log.truncate_before(Offset(100)).unwrap();
        log.close().unwrap();
    }
    let files = files(wasm.path());
    assert!(files.len() > 4, "{:?}", files.keys());
    assert_eq!(files, self::files(native.path()));
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

#[test]
fn opening_takes_milliseconds() {
    let directory = directory();
    let open = || WasmLog::open(directory.path(), Mode::Write, Options::new()).unwrap();
    // The first loads the module.
    let began = Instant::now();
    drop(open());
    let first = began.elapsed();
    let mut times = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        let log = open();
        times.push(began.elapsed());
        drop(log);
    }
    times.sort();
    println!(
        "the first opening took {first:?}, others {:?} in the median",
        times[25]
    );
    assert!(times[25] < Duration::from_millis(20), "{times:?}");
}

#[test]
fn a_scan_gives_what_is_there_and_goes_on_where_the_log_begins() {
    let directory = directory();
    let options = Options::new().segment_bytes_max(64 << 10);
    let log = WasmLog::open(directory.path(), Mode::Write, options).unwrap();
    let values: Vec<String> = (0..2000_u32).map(|n| n.to_string().repeat(100)).collect();
    for values in values.chunks(100) {
        let records: Vec<_> = values.iter().map(NewRecord::new).collect();
        log.append_batch(&records).unwrap();
    }
    // Larger than what is read at a time.
    let large = vec![1; 3 << 20];
    log.append_batch(&[NewRecord::new(&large)]).unwrap();
    log.append_batch(&[NewRecord::new("last")]).unwrap();
    let mut expected: Vec<&[u8]> = values.iter().map(String::as_bytes).collect();
    expected.extend([&large[..], b"last"]);
    for from in [0, 1, 1234, 1999, 2000, 2001, 2002] {
        let seen: Vec<_> = log.scan(Offset(from as u64)).map(Result::unwrap).collect();
        let seen: Vec<_> = seen.iter().map(Record::value).collect();
        assert_eq!(seen, expected[from..]);
    }
    for from in [2003, u64::MAX] {
        let error = log.scan(Offset(from)).next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    }

    let mut scan = log.scan(Offset(0));
    assert_eq!(scan.next().unwrap().unwrap().offset(), Offset(0));
    log.truncate_before(Offset(1500)).unwrap();
    let lowest = log.lowest_offset().unwrap();
    let rest: Vec<_> = scan.map(|record| record.unwrap().offset()).collect();
    let jump = rest.iter().position(|&offset| offset == lowest).unwrap();
    assert!(
        rest[..jump]
            .iter()
            .zip(1..)
            .all(|(offset, n)| offset.0 == n)
    );
    assert!(
        rest[jump..]
            .iter()
            .zip(lowest.0..)
            .all(|(offset, n)| offset.0 == n)
    );
    assert_eq!(rest.last(), Some(&Offset(2001)));
    let error = log.scan(Offset(0)).next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
}

#[test]
fn a_scan_of_a_log_that_always_begins_later_ends() {
    let directory = directory();
    let log = open_guest(guest!("receding").unwrap(), directory.path());
    let mut scan = log.scan(Offset(3));
    assert_eq!(scan.next().unwrap().unwrap().value(), b"x");
    let error = scan.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    assert!(scan.next().is_none());
}

#[test]
fn an_append_has_a_promise_of_its_own() {
    let directory = directory();
    let log = WasmLog::open(directory.path(), Mode::Write, Options::new()).unwrap();
    let records = [NewRecord::new("a"), NewRecord::new("b").key("k")];
    let (one, both) = (&records[..1], &records[..]);
    for (records, next) in [(one, 1), (both, 3), (both, 5)] {
        let offsets = log.append_batch_with(records, Durability::Buffered.into());
        assert_eq!(offsets.unwrap().end, Offset(next));
        assert_eq!(log.durable_offset(), Ok(Offset(0)));
    }
    log.append_batch(one).unwrap();
    assert_eq!(log.durable_offset(), Ok(Offset(6)));
    match &mut *log.shared.state() {
        State::Open(guest) => guest.overwrite_memory(0xa5),
        _ => panic!("no guest"),
    }
    let error = log.next_offset().unwrap_err().to_string();
    assert!(
        error.contains("may be lost, as they may be when buffered"),
        "{error}"
    );
}

#[test]
fn weaker_promises_are_synced_in_time() {
    let directory = directory();
    let interval = Duration::from_millis(50);
    let options = Options::new().sync_interval(interval);
    let log = WasmLog::open(directory.path(), Mode::Write, options).unwrap();
    let mut next = 0;
    for durability in [
        Durability::Buffered,
        Durability::Written,
        Durability::Buffered,
    ] {
        let began = Instant::now();
        for _ in 0..3 {
            let records = [NewRecord::new("in"), NewRecord::new("time")];
            let offsets = log.append_batch_with(&records, durability.into()).unwrap();
            next = offsets.end.0;
        }
        while log.durable_offset().unwrap() < Offset(next) {
            assert!(began.elapsed() < Duration::from_secs(5), "it never is");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(began.elapsed() >= interval, "{:?}", began.elapsed());
    }

    // If the guest breaks just then, who appends next is told.
    let records = [NewRecord::new("x")];
    log.append_batch_with(&records, Durability::Buffered.into())
        .unwrap();
    match &mut *log.shared.state() {
        State::Open(guest) => guest.overwrite_memory(0xa5),
        _ => panic!("no guest"),
    }
    let began = Instant::now();
    while log.shared.untold().is_none() {
        assert!(began.elapsed() < Duration::from_secs(5), "it never broke");
        std::thread::sleep(Duration::from_millis(2));
    }
    let error = log.append_batch(&records).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Trapped);
    assert!(error.to_string().contains("may be lost"), "{error}");
    log.append_batch(&records).unwrap();

    // Closing waits for no interval, dropping neither.
    drop(log);
    let options = Options::new().sync_interval(Duration::from_secs(3600));
    let log = WasmLog::open(directory.path(), Mode::Write, options).unwrap();
    log.append_batch_with(&records, Durability::Written.into())
        .unwrap();
    let began = Instant::now();
    Box::new(log).close().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_guest_that_traps_is_replaced() {
    let directory = directory();
    let log = unruly(directory.path());
    assert_discarded(&log, log.read(Offset(0)), "panicked: no more");
    assert_discarded(&log, log.read(Offset(2)), "stack");
    // Until it is asked for the wrong thing again, the new one works.
    assert_eq!(log.read(Offset(3)).unwrap().value(), b"x");
}

#[test]
fn a_guest_that_does_not_return_is_stopped() {
    let directory = directory();
    let log = unruly(directory.path());
    let began = Instant::now();
    assert_discarded(&log, log.read(Offset(1)), "it took more than 300ms");
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    // Verifying has the time to read the directory: a second for each 10 MiB of it.
    fs::File::create(directory.path().join("large"))
        .unwrap()
        .set_len(15 << 20)
        .unwrap();
    let began = Instant::now();
    assert_discarded(&log, log.verify(), "it took more than 300ms");
    assert!(
        began.elapsed() > Duration::from_millis(1300),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_guest_that_lies_is_replaced() {
    let directory = directory();
    let log = unruly(directory.path());
    assert_discarded(&log, log.read(Offset(4)), "outside its memory");
    assert_discarded(&log, log.read(Offset(5)), "outside its memory");
    assert_discarded(&log, log.read(Offset(6)), "length does not fit");
    assert_discarded(&log, log.read(Offset(7)), "record 3 for record 7");
    assert_discarded(&log, log.read(Offset(8)), "-77");
    assert_discarded(&log, log.read(Offset(10)), "message that cannot be read");
    assert_discarded(
        &log,
        log.read_batch(Offset(3), 1),
        "4 is not as it should be",
    );
    assert_discarded(
        &log,
        log.read_batch(Offset(5), 1),
        "5 is not as it should be",
    );
    let mut scan = log.scan(Offset(3));
    assert_eq!(scan.next().unwrap().unwrap().value(), b"x");
    let lied = scan.next().unwrap();
    assert!(scan.next().is_none());
    drop(scan);
    assert_discarded(&log, lied, "4 is not as it should be");
    let lied = log.scan(Offset(5)).next().unwrap();
    assert_discarded(&log, lied, "5 is not as it should be");
    assert_discarded(&log, log.truncate_before(Offset(0)), "5 for a status");
    assert_discarded(&log, log.truncate_after(Offset(0)), "no status");
    assert_discarded(&log, log.lowest_offset(), "no status");
    assert_discarded(&log, log.locate(Offset(0)), "a place that is none");
    assert_discarded(&log, log.producer_last(b"a"), "not 16 bytes");
    assert_discarded(&log, log.producer_last(b"ab"), "a conflict that is not");
    assert_discarded(&log, log.recovery_report(), "report that cannot be read");
    assert_discarded(&log, log.segments(), "report that cannot be read");
    assert_discarded(
        &log,
        log.compact(&Compaction::new()),
        "report that cannot be read",
    );
    assert_discarded(&log, log.enforce_retention(), "5 for a status");
    assert_discarded(
        &log,
        log.append_batch(&[NewRecord::new("x")]),
        "message that cannot be read",
    );
    let large = vec![0; 1 << 20];
    assert_discarded(
        &log,
        log.append_batch(&[NewRecord::new(&large)]),
        "buffer outside its memory",
    );
}

#[test]
fn a_guest_that_refuses_is_kept() {
    let directory = directory();
    let log = unruly(directory.path());
    assert_eq!(log.next_offset(), Ok(Offset(1)));
    let error = log.read(Offset(9)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    assert_eq!(error.to_string(), "it is in a bad mood");
    let batch = [NewRecord::new("x"), NewRecord::new("y")];
    assert_eq!(
        log.append_batch(&batch).unwrap_err().kind(),
        ErrorKind::TooLarge
    );
    assert_eq!(log.next_offset(), Ok(Offset(2)));
}

#[test]
fn a_guest_has_no_more_files_open_than_it_may() {
    let directory = directory();
    let log = unruly(directory.path());
    let most = u64::from(wasi::OPEN_FILES_MAX);
    assert_eq!(log.durable_offset(), Ok(Offset(most)));
    // One was closed.
    assert_eq!(log.durable_offset(), Ok(Offset(1)));
}

#[test]
fn what_cannot_run_is_not_started() {
    let directory = directory();
    let module = guest!("future").unwrap();
    let options = Options::new();
    let limits = Limits::of(&options);
    let opened = WasmLog::open_module(module, directory.path(), Mode::Write, options, limits);
    let error = opened.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Trapped);
    assert!(
        error.to_string().contains("could not be started"),
        "{error}"
    );

    let refused = guest!("reaching").err().unwrap();
    assert!(refused.contains("sock_accept"), "{refused}");
}

#[test]
fn acknowledged_records_outlive_a_guest() {
    let directory = directory();
    let log = WasmLog::open(directory.path(), Mode::Write, Options::new()).unwrap();
    for n in 0..10_u64 {
        let offset = log
            .append_batch(&[NewRecord::new(&n.to_string())])
            .unwrap()
            .start;
        assert_eq!(offset, Offset(n));
        // Its memory, code's tables and all, is overwritten under it.
        match &mut *log.shared.state() {
            State::Open(guest) => guest.overwrite_memory(0xa5),
            _ => panic!("no guest"),
        }
        let error = log.append_batch(&[NewRecord::new("lost")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Trapped, "{error}");
        for n in 0..=n {
            assert_eq!(
                log.read(Offset(n)).unwrap().value(),
                n.to_string().as_bytes()
            );
        }
        assert_eq!(log.next_offset(), Ok(Offset(n + 1)));
    }
    Box::new(log).close().unwrap();
    let log = Log::open(directory.path(), Options::new()).unwrap();
    assert_eq!(log.next_offset(), Offset(10));
}

#[test]
fn memory_is_limited() {
    let directory = directory();
    let options = Options::new();
    let limits = Limits {
        memory_bytes_max: 12 << 20,
        ..Limits::of(&options)
    };
    let log = WasmLog::open_with_limits(directory.path(), Mode::Write, options, limits).unwrap();
    log.append_batch(&[NewRecord::new("kept")]).unwrap();

    // There is no room for the request.
    let larger = vec![b'x'; 15 << 20];
    let error = log.append_batch(&[NewRecord::new(&larger)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(error.to_string().contains("12582912"), "{error}");
    // Here there is: the log writes it from where it is.
    let large = vec![b'x'; 7 << 20];
    log.append_batch(&[NewRecord::new(&large)]).unwrap();

    assert_eq!(log.read(Offset(0)).unwrap().value(), b"kept");
    let next = log.next_offset().unwrap();
    assert_eq!(
        log.append_batch(&[NewRecord::new("more")]).unwrap().start,
        next
    );
    assert_eq!(log.read(next).unwrap().value(), b"more");
}

#[test]
fn one_writer_at_a_time_whatever_the_engine() {
    let directory = directory();
    let kind = |opened: Result<WasmLog>| opened.err().map(|error| error.kind());
    let open = |mode| WasmLog::open(directory.path(), mode, Options::new());
    let log = open(Mode::Write).unwrap();
    assert_eq!(kind(open(Mode::Write)), Some(ErrorKind::Locked));
    assert!(matches!(
        Log::open(directory.path(), Options::new()),
        Err(proglog::Error::Locked { .. })
    ));
    assert_eq!(kind(open(Mode::Read)), None);
    drop(log);
    let native = Log::open(directory.path(), Options::new()).unwrap();
    assert_eq!(kind(open(Mode::Write)), Some(ErrorKind::Locked));
    drop(native);
    assert_eq!(kind(open(Mode::Write)), None);
}

#[test]
fn it_is_told_how_much_was_read() {
    let directory = directory();
    let log = WasmLog::open(directory.path(), Mode::Write, Options::new()).unwrap();
    let value = vec![b'a'; 1 << 20];
    for _ in 0..3 {
        log.append_batch(&[NewRecord::new(&value)]).unwrap();
    }
    let before = log.bytes_read().unwrap();
    log.verify().unwrap();
    let read = log.bytes_read().unwrap() - before;
    assert!((3 << 20..5 << 20).contains(&read), "{read}");
}

#[test]
fn reading_writes_nothing() {
    let directory = directory();
    let options = || Options::new().clock(Clock::NONE);
    let log = WasmLog::open(directory.path(), Mode::Write, options()).unwrap();
    log.append_batch(&[NewRecord::new("one"), NewRecord::new("two")])
        .unwrap();
    Box::new(log).close().unwrap();
    // As a crash would leave it: a torn tail, and an index padded with zeros.
    let append = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, [fs::read(&path).unwrap(), bytes.to_vec()].concat()).unwrap();
    };
    append("0.store", &[0, 0, 0, 0, 0, 0, 0, 40, 1, 2]);
    append("0.index", &[0; 48]);
    let before = files(directory.path());

    let log = WasmLog::open(directory.path(), Mode::Read, options()).unwrap();
    assert_eq!(log.read(Offset(1)).unwrap().value(), b"two");
    assert_eq!(log.next_offset(), Ok(Offset(2)));
    let refused = log.append_batch(&[NewRecord::new("three")]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    assert_eq!(log.reset().unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(
        log.truncate_before(Offset(2)).unwrap_err().kind(),
        ErrorKind::ReadOnly
    );
    log.verify().unwrap();
    Box::new(log).close().unwrap();
    assert_eq!(files(directory.path()), before);

    let missing = directory.path().join("missing");
    assert!(WasmLog::open(&missing, Mode::Read, options()).is_err());
    assert!(!missing.exists());
}

#[test]
fn a_reader_follows_a_writer() {
    let directory = directory();
    let open = |mode| WasmLog::open(directory.path(), mode, Options::new()).unwrap();
    let (writer, reader) = (open(Mode::Write), open(Mode::Read));
    for n in 0..3 {
        writer.append_batch(&[NewRecord::new("x")]).unwrap();
        reader.refresh().unwrap();
        assert_eq!(reader.read(Offset(n)).unwrap().value(), b"x");
    }
}

#[test]
fn options_are_checked_before_a_directory_is_made() {
    let directory = directory();
    let path = directory.path().join("log");
    for options in [
        Options::new().segment_bytes_max(0),
        Options::new().index_bytes_max(0),
        Options::new().record_bytes_max(0),
        Options::new().index_bytes_max(1),
        Options::new().record_bytes_max(u64::MAX),
        Options::new().initial_offset(u64::MAX),
    ] {
        let error = WasmLog::open(&path, Mode::Write, options.clone())
            .err()
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert_eq!(error, options.validate().unwrap_err().into());
        assert!(!path.exists());
    }
    let beyond = Options::new().initial_offset(1 << 63);
    let error = WasmLog::open(&path, Mode::Write, beyond).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    assert!(
        error.to_string().contains("use the native engine"),
        "{error}"
    );
    assert!(!path.exists());
    let log = WasmLog::open(&path, Mode::Write, Options::new().initial_offset(40)).unwrap();
    assert_eq!(
        log.append_batch(&[NewRecord::new("x")]),
        Ok(Offset(40)..Offset(41))
    );
}

#[test]
fn offsets_beyond_the_guests_are_refused_as_by_the_native_log() {
    type Open = fn(&Path, Mode) -> Box<dyn Engine>;
    for records in [0, 3] {
        let (wasm, native) = (directory(), directory());
        let records = vec![NewRecord::new("x"); records];
        let open: [Open; 2] = [
            |at, mode| Box::new(WasmLog::open(at, mode, Options::new()).unwrap()),
            |at, mode| match mode {
                Mode::Write => Box::new(Log::open(at, Options::new()).unwrap()),
                Mode::Read => Box::new(Log::open_read_only(at, Options::new()).unwrap()),
            },
        ];
        let [found, expected] =
            [(open[0], wasm.path()), (open[1], native.path())].map(|(open, at)| {
                let mut outcomes = Vec::new();
                for mode in [Mode::Write, Mode::Read] {
                    let log = open(at, mode);
                    if mode == Mode::Write {
                        log.append_batch(&records).unwrap();
                    }
                    for offset in [1 << 63, u64::MAX - 1].map(Offset) {
                        outcomes.push(log.read(offset).map(drop));
                        outcomes.push(log.read_batch(offset, 1).map(drop));
                        outcomes.push(log.locate(offset).map(drop));
                        outcomes.push(log.truncate_before(offset));
                        outcomes.push(log.truncate_after(offset));
                    }
                    assert_eq!(log.next_offset(), Ok(Offset(records.len() as u64)));
                    log.close().unwrap();
                }
                outcomes
            });
        assert_eq!(found, expected);
        assert_eq!(
            found[0].as_ref().unwrap_err().kind(),
            ErrorKind::OffsetOutOfRange
        );
    }
}

#[test]
fn offsets_that_the_guest_cannot_say_are_not_given() {
    let directory = directory();
    let initial = i64::MAX.cast_unsigned() - 1;
    let options = Options::new().initial_offset(initial);
    let log = WasmLog::open(directory.path(), Mode::Write, options).unwrap();
    let refused = log
        .append_batch(&[NewRecord::new("x"), NewRecord::new("y")])
        .unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    assert!(
        refused.to_string().contains("use the native engine"),
        "{refused}"
    );
    assert_eq!(log.next_offset(), Ok(Offset(initial)));
    let offsets = log.append_batch(&[NewRecord::new("x")]).unwrap();
    assert_eq!(log.read(offsets.start).unwrap().value(), b"x");
    assert_eq!(log.next_offset(), Ok(offsets.end));
    Box::new(log).close().unwrap();

    // One more of the native log's, and the guest must not cut it off.
    let native = Log::open(directory.path(), Options::new()).unwrap();
    native
        .append_batch([NewRecord::new("y"), NewRecord::new("z")])
        .unwrap();
    native.close().unwrap();
    let log = WasmLog::open(directory.path(), Mode::Write, Options::new()).unwrap();
    let last = Offset(initial + 2);
    for refused in [log.read(last).map(drop), log.truncate_after(last)] {
        let refused = refused.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
        assert!(
            refused.to_string().contains("use the native engine"),
            "{refused}"
        );
    }
    Box::new(log).close().unwrap();
    let native = Log::open(directory.path(), Options::new()).unwrap();
    assert_eq!(native.read(last).unwrap().value(), b"z");
}

#[cfg(unix)]
#[test]
fn closing_says_so_when_it_could_not() {
    let directory = directory();
    let store = directory.path().join("0.store");
    let moved = directory.path().join("moved");
    let broken = || {
        let log = WasmLog::open(directory.path(), Mode::Write, Options::new()).unwrap();
        log.append_batch(&[NewRecord::new("kept")]).unwrap();
        match &mut *log.shared.state() {
            State::Open(guest) => guest.overwrite_memory(0xa5),
            _ => panic!("no guest"),
        }
        // A link is none of a log's files.
        fs::rename(&store, &moved).unwrap();
        std::os::unix::fs::symlink(&moved, &store).unwrap();
        let error = log.sync().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Trapped, "{error}");
        assert!(
            error.to_string().contains("opening the log again failed"),
            "{error}"
        );
        log
    };
    let mend = || fs::rename(&moved, &store).unwrap();

    let error = Box::new(broken()).close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(error.to_string().contains("0.store"), "{error}");
    mend();

    let log = broken();
    mend();
    assert_eq!(Box::new(log).close(), Ok(()));
    let log = Log::open(directory.path(), Options::new()).unwrap();
    assert_eq!(log.next_offset(), Offset(2));
}

#[test]
fn a_log_is_used_from_many_threads() {
    let directory = directory();
    let options = Options::new().durability(Durability::Written);
    let log = WasmLog::open(directory.path(), Mode::Write, options).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let offset = log.append_batch(&[NewRecord::new("x")]).unwrap().start;
                    assert_eq!(log.read(offset).unwrap().value(), b"x");
                }
            });
        }
    });
    assert_eq!(log.next_offset(), Ok(Offset(200)));
}
