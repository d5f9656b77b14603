//! Space that is made ready ahead of the records, in real files.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use proglog::{Clock, Durability, Error, FsBackend, Log, NewRecord, Offset, Options};
use proglog_host::{Engine, Mode, WasmLog};
use tempfile::TempDir;

const SEGMENT_BYTES: u64 = 100_000;

fn options() -> Options {
    Options::new()
        .clock(Clock::NONE)
        .segment_bytes_max(SEGMENT_BYTES)
}

/// The files of this kind, and their bytes, by name.
fn files(directory: &Path, kind: &str) -> Vec<(String, u64)> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let mut files: Vec<_> = entries
        .filter(|entry| entry.path().extension().is_some_and(|found| found == kind))
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, entry.metadata().unwrap().len())
        })
        .collect();
    files.sort();
    files
}

fn value(n: u64) -> Vec<u8> {
    let first = u8::try_from(n % 251).unwrap();
    (0..1000)
        .map(|i: u64| first ^ u8::try_from(i % 256).unwrap())
        .collect()
}

fn check_all(log: &Log, records: u64) {
    assert_eq!(log.next_offset(), Offset(records));
    let mut scan = log.scan(..);
    for n in 0..records {
        assert_eq!(scan.next().unwrap().unwrap().value(), value(n));
    }
}

#[test]
fn segments_begin_in_reserved_files_and_closing_gives_back_the_rest() {
    for durability in [
        Durability::Synced,
        Durability::Written,
        Durability::Buffered,
    ] {
        let directory = TempDir::new().unwrap();
        let directory = directory.path();
        let log = Log::open(directory, options().durability(durability)).unwrap();
        log.append(&value(0)).unwrap();
        log.reserve(5 * SEGMENT_BYTES).unwrap();
        // Or more, where it is mapped.
        let stores = files(directory, "store");
        assert!(
            stores.len() == 1 && stores[0].1 >= SEGMENT_BYTES,
            "{stores:?}"
        );
        let prepared = files(directory, "prepared");
        let bytes: u64 = prepared.iter().map(|(_, bytes)| bytes).sum();
        assert_eq!(prepared.len(), 5, "{prepared:?}");
        // And the record that is there already.
        assert!((4 * SEGMENT_BYTES + 1000..=5 * SEGMENT_BYTES).contains(&bytes));
        // What is there already is not made again.
        log.reserve(5 * SEGMENT_BYTES).unwrap();
        log.reserve(1).unwrap();
        assert_eq!(files(directory, "prepared"), prepared);
        let reader = Log::open_read_only(directory, options()).unwrap();
        check_all(&reader, 1);
        for n in 1..350 {
            log.append(&value(n)).unwrap();
            if n % 50 == 0 {
                check_all(&log, n + 1);
                reader.refresh().unwrap();
                let fresh = Log::open_read_only(directory, options()).unwrap();
                assert!(fresh.recovery_report().is_sound());
                assert!(fresh.verify().unwrap().is_sound());
                if durability != Durability::Buffered {
                    check_all(&reader, n + 1);
                    check_all(&fresh, n + 1);
                }
            }
        }
        // The fourth segment is the active one.
        assert_eq!(files(directory, "prepared"), prepared[3..]);
        assert!(log.verify().unwrap().is_sound());
        log.close().unwrap();
        assert_eq!(files(directory, "prepared"), []);
        let stores: u64 = files(directory, "store")
            .iter()
            .map(|(_, bytes)| bytes)
            .sum();
        assert!(stores < 350 * 1040, "{stores} bytes");
        reader.refresh().unwrap();
        check_all(&reader, 350);
        let log = Log::open(directory, options()).unwrap();
        assert!(log.recovery_report().segments.is_empty());
        check_all(&log, 350);
    }
}

fn copy_of(directory: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    copy
}

/// A directory as `kill -9` leaves it, for another to open.
fn killed_with_space_reserved() -> TempDir {
    let directory = TempDir::new().unwrap();
    let log = Log::open(directory.path(), options()).unwrap();
    for n in 0..150 {
        log.append(&value(n)).unwrap();
        if n == 0 {
            log.reserve(4 * SEGMENT_BYTES).unwrap();
        }
    }
    let copy = copy_of(directory.path());
    assert!(files(copy.path(), "prepared").len() > 1);
    // Names that only look like one.
    for name in ["01.prepared", "x.prepared", ".prepared", "1.prepared.txt"] {
        fs::write(copy.path().join(name), "kept").unwrap();
    }
    copy
}

fn only_others_files_stay(directory: &Path) {
    let left = files(directory, "prepared");
    let names: Vec<_> = left.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [".prepared", "01.prepared", "x.prepared"].map(str::to_owned)[1..]
    );
    assert_eq!(fs::read(directory.join(".prepared")).unwrap(), b"kept");
    assert_eq!(fs::read(directory.join("1.prepared.txt")).unwrap(), b"kept");
}

#[test]
fn what_a_killed_process_had_reserved_is_given_back() {
    let directory = killed_with_space_reserved();
    let reader = Log::open_read_only(directory.path(), options()).unwrap();
    check_all(&reader, 150);
    let log = Log::open(directory.path(), options()).unwrap();
    only_others_files_stay(directory.path());
    check_all(&log, 150);
    assert!(log.verify().unwrap().is_sound());
    // Numbers of before are free again.
    log.reserve(3 * SEGMENT_BYTES).unwrap();
    for n in 150..400 {
        log.append(&value(n)).unwrap();
    }
    check_all(&log, 400);
}

#[test]
fn the_wasm_engine_gives_it_back_too() {
    let directory = killed_with_space_reserved();
    let log = WasmLog::open(directory.path(), Mode::Write, options()).unwrap();
    only_others_files_stay(directory.path());
    assert_eq!(log.read(Offset(149)).unwrap().value(), value(149));
    log.append_batch(&[NewRecord::new(&value(150))]).unwrap();
    drop(log);
    check_all(&Log::open(directory.path(), options()).unwrap(), 151);
}

#[test]
fn removing_the_log_removes_what_it_reserved() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("log");
    let log = Log::open(&directory, options()).unwrap();
    log.reserve(3 * SEGMENT_BYTES).unwrap();
    log.remove().unwrap();
    assert!(!directory.exists());
}

#[test]
fn reserved_space_outlives_truncation_and_reset() {
    let directory = TempDir::new().unwrap();
    let log = Log::open(
        directory.path(),
        // Synced often, it would make more ready by itself.
        options().durability(Durability::Written),
    )
    .unwrap();
    for n in 0..120 {
        log.append(&value(n)).unwrap();
    }
    log.reserve(3 * SEGMENT_BYTES).unwrap();
    let reserved = files(directory.path(), "prepared").len();
    log.truncate_after(Offset(49)).unwrap();
    log.truncate_before(Offset(50)).unwrap();
    assert_eq!(log.lowest_offset(), Offset(50));
    log.reset().unwrap();
    for n in 0..300 {
        log.append(&value(n)).unwrap();
    }
    check_all(&log, 300);
    assert!(files(directory.path(), "prepared").len() < reserved);
}

#[test]
fn of_segments_that_are_small_no_more_are_reserved_than_would_do_harm() {
    // In memory, where a sync costs nothing.
    let shared = Path::new("/dev/shm");
    let directory = if shared.is_dir() {
        TempDir::new_in(shared).unwrap()
    } else {
        TempDir::new().unwrap()
    };
    let log = Log::open(directory.path(), options().segment_bytes_max(100)).unwrap();
    log.reserve(u64::MAX).unwrap();
    assert_eq!(files(directory.path(), "prepared").len(), 1024);
    log.append("a").unwrap();
}

#[test]
fn where_it_cannot_be_it_is_refused_or_does_nothing() {
    let directory = TempDir::new().unwrap();
    let backend = FsBackend::open(directory.path()).unwrap().prepare(0);
    let log = Log::open_on(backend, options()).unwrap();
    log.reserve(SEGMENT_BYTES).unwrap();
    assert_eq!(
        files(directory.path(), "store"),
        [("0.store".to_owned(), 0)]
    );
    let reader = Log::open_read_only(directory.path(), options()).unwrap();
    assert!(matches!(reader.reserve(1), Err(Error::ReadOnly)));
}

#[test]
fn a_log_that_was_synced_much_makes_space_ready_when_it_rests() {
    let directory = TempDir::new().unwrap();
    let directory = directory.path();
    let log = Log::open(directory, options().segment_bytes_max(2 << 20)).unwrap();
    // More at a time than is prepared for while it goes on.
    let values: Vec<_> = (0..300).map(value).collect();
    for _ in 0..10 {
        log.append_batch(&values).unwrap();
    }
    let since = Instant::now();
    while files(directory, "prepared")
        .iter()
        .map(|(_, bytes)| bytes)
        .sum::<u64>()
        < 1 << 20
    {
        assert!(
            since.elapsed() < Duration::from_secs(20),
            "nothing is prepared"
        );
        thread::sleep(Duration::from_millis(5));
    }
    let reader = Log::open_read_only(directory, options()).unwrap();
    assert_eq!(reader.next_offset(), Offset(3000));
    for _ in 0..10 {
        log.append_batch(&values).unwrap();
    }
    assert!(log.verify().unwrap().is_sound());
    log.close().unwrap();
    assert_eq!(files(directory, "prepared"), []);
    assert_eq!(
        Log::open(directory, options()).unwrap().scan(..).count(),
        6000
    );
}

#[test]
fn eight_reserved_bytes_are_no_record() {
    let directory = TempDir::new().unwrap();
    let log = Log::open(directory.path(), options()).unwrap();
    // As many as the book's empty record at offset 0 has, all of them zeros.
    log.reserve(8).unwrap();
    let reader = Log::open_read_only(directory.path(), options()).unwrap();
    check_all(&reader, 0);
    assert!(log.verify().unwrap().segments[0].records == 0);
    let killed = copy_of(directory.path());
    check_all(&Log::open(killed.path(), options()).unwrap(), 0);
    log.append(&value(0)).unwrap();
    reader.refresh().unwrap();
    check_all(&reader, 1);
}

#[test]
fn what_a_batch_has_past_the_most_of_a_segment_is_not_reserved_once_more() {
    let directory = TempDir::new().unwrap();
    let log = Log::open(directory.path(), options()).unwrap();
    let values: Vec<_> = (0..1000).map(value).collect();
    log.append_batch(&values).unwrap();
    log.reserve(1).unwrap();
    let prepared = files(directory.path(), "prepared");
    let bytes: u64 = prepared.iter().map(|(_, bytes)| bytes).sum();
    assert!((1..=64 << 10).contains(&bytes), "{prepared:?}");
}

#[test]
fn records_are_synced_in_time_while_space_is_reserved() {
    let directory = TempDir::new().unwrap();
    let interval = Duration::from_millis(20);
    let log = Log::open(
        directory.path(),
        options()
            .segment_bytes_max(64 << 10)
            .sync_interval(interval),
    )
    .unwrap();
    // The log makes space ready by itself when it rests.
    let values: Vec<_> = (0..200).map(value).collect();
    for _ in 0..10 {
        log.append_batch(&values).unwrap();
    }
    let reserved = AtomicBool::new(false);
    thread::scope(|threads| {
        threads.spawn(|| {
            log.reserve(64 << 20).unwrap();
            reserved.store(true, SeqCst);
        });
        thread::sleep(Duration::from_millis(100));
        let since = Instant::now();
        let offset = log.append_with(&value(0), Durability::Written).unwrap();
        while log.durable_offset() <= offset {
            assert!(
                !reserved.load(SeqCst) || since.elapsed() < Duration::from_millis(300),
                "it was not synced before all was reserved"
            );
            thread::sleep(Duration::from_millis(1));
        }
    });
}
