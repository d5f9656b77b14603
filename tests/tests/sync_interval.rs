//! `Options::sync_interval`: what was appended with a weaker promise is durable in time.

use std::{
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use proglog::{
    Clock, Durability, Error, Fault, FaultBackend, FsBackend, Log, MemoryBackend, Offset, Options,
};
use tempfile::TempDir;

const INTERVAL: Duration = Duration::from_millis(60);
/// So much later is in time on a busy machine.
const LATE: Duration = Duration::from_secs(3);
const WEAKER: [Durability; 2] = [Durability::Written, Durability::Buffered];

#[test]
fn records_become_durable_without_another_call() {
    for durability in WEAKER {
        let directory = TempDir::new().unwrap();
        let log = Log::open(directory.path(), options()).unwrap();
        // More than once: the time starts anew with the first record after a sync.
        for round in 1..=4 {
            let since = Instant::now();
            for _ in 0..10 {
                log.append_with("in time", durability).unwrap();
            }
            wait_until_durable(&log, Offset(round * 10), since);
        }
        // A batch, and what rolls a segment.
        let since = Instant::now();
        let large = vec![7; 300_000];
        let offsets = log.append_batch_with([&large, &large], durability).unwrap();
        wait_until_durable(&log, offsets.end, since);
        assert!(log.segments().len() > 1);
        log.close().unwrap();
    }
}

#[test]
fn appends_that_go_on_do_not_put_it_off() {
    let directory = TempDir::new().unwrap();
    let log = Log::open(directory.path(), options()).unwrap();
    let end = Instant::now() + Duration::from_secs(2);
    let mut appended = Vec::new();
    let mut latest = Duration::ZERO;
    while Instant::now() < end {
        let durability = WEAKER[appended.len() % 2];
        let offset = log.append_with("and on", durability).unwrap();
        appended.push(Instant::now());
        let durable = usize::try_from(log.durable_offset().0).unwrap();
        assert!(durable <= appended.len());
        if let Some(since) = appended.get(durable) {
            latest = latest.max(since.elapsed());
        }
        assert_eq!(offset.0 + 1, appended.len() as u64);
        thread::sleep(Duration::from_micros(200));
    }
    assert!(latest < INTERVAL + LATE, "{latest:?}");
    assert!(log.durable_offset() > Offset(0));
}

#[test]
fn without_an_interval_nothing_is_synced_by_itself() {
    let directory = TempDir::new().unwrap();
    let log = Log::open(directory.path(), Options::new()).unwrap();
    for durability in WEAKER {
        log.append_with("when you like", durability).unwrap();
    }
    thread::sleep(INTERVAL * 4);
    assert_eq!(log.durable_offset(), Offset(0));
    log.sync().unwrap();
    assert_eq!(log.durable_offset(), Offset(2));
}

#[test]
fn what_became_durable_in_time_is_in_the_file() {
    let directory = TempDir::new().unwrap();
    let log = Log::open(directory.path(), options()).unwrap();
    let since = Instant::now();
    log.append_with("seen by others", Durability::Buffered)
        .unwrap();
    wait_until_durable(&log, Offset(1), since);
    let beside = Log::open_read_only(directory.path(), Options::new()).unwrap();
    assert_eq!(beside.read(Offset(0)).unwrap().value(), b"seen by others");
}

#[test]
fn closing_and_dropping_do_not_wait_for_it() {
    let directory = TempDir::new().unwrap();
    let options = Options::new().sync_interval(Duration::from_secs(3600));
    for n in 0..2 {
        let log = Log::open(directory.path(), options.clone()).unwrap();
        assert_eq!(log.next_offset(), Offset(n));
        log.append_with("soon", Durability::Buffered).unwrap();
        let since = Instant::now();
        if n == 0 {
            log.close().unwrap();
        } else {
            drop(log);
        }
        assert!(since.elapsed() < LATE);
    }
    let log = Log::open(directory.path(), options).unwrap();
    assert_eq!(log.next_offset(), Offset(2));
    assert!(log.recovery_report().segments.is_empty());
}

#[test]
fn on_another_backend_the_next_append_syncs() {
    static NOW_MS: AtomicU64 = AtomicU64::new(1);
    for durability in WEAKER {
        let clock = Clock::custom(|| NOW_MS.load(SeqCst));
        let log = Log::open_on(MemoryBackend::new(), options().clock(clock)).unwrap();
        log.append_with("waits", durability).unwrap();
        thread::sleep(INTERVAL * 2);
        assert_eq!(log.durable_offset(), Offset(0));
        log.append_with("is late", durability).unwrap();
        assert_eq!(log.durable_offset(), Offset(2));
        log.append_with("waits again", durability).unwrap();
        assert_eq!(log.durable_offset(), Offset(2));
    }
}

#[test]
fn an_interval_of_zero_syncs_at_once_on_another_backend() {
    let options = Options::new().sync_interval(Duration::ZERO);
    for durability in WEAKER {
        let log = Log::open_on(MemoryBackend::new(), options.clone()).unwrap();
        for n in 1..5 {
            log.append_with("at once", durability).unwrap();
            assert_eq!(log.durable_offset(), Offset(n));
        }
    }
}

#[test]
fn on_a_directory_opened_as_a_backend_the_next_append_syncs() {
    let directory = TempDir::new().unwrap();
    let backend = FsBackend::open(directory.path()).unwrap();
    let log = Log::open_on(backend, options()).unwrap();
    log.append_with("waits", Durability::Written).unwrap();
    thread::sleep(INTERVAL * 2);
    log.append_with("is late", Durability::Written).unwrap();
    assert_eq!(log.durable_offset(), Offset(2));
}

/// The thread that syncs in time fails on a full disk: `full_disk.rs` has that.
#[test]
fn a_sync_that_fails_poisons() {
    let options = Options::new().sync_interval(Duration::ZERO);
    let mut operations = 1;
    let mut nth = 0;
    // Whichever of the operations fails that writing and syncing a record takes.
    while nth < operations {
        let backend = FaultBackend::new();
        let log = Log::open_on(backend.clone(), options.clone()).unwrap();
        log.append_with("synced", Durability::Written).unwrap();
        let before = backend.operations();
        log.append_with("synced", Durability::Written).unwrap();
        operations = backend.operations() - before;
        assert!(operations >= 2, "a write and a sync");

        backend.fail(backend.operations() + nth, Fault::Error);
        let failed = log.append_with("not synced", Durability::Written);
        assert!(matches!(failed, Err(Error::Io { .. })), "{failed:?}");
        assert_eq!(log.durable_offset(), Offset(2));
        backend.heal();
        for durability in WEAKER {
            let refused = log.append_with("refused", durability);
            assert!(
                matches!(refused, Err(Error::Poisoned { .. })),
                "{refused:?}"
            );
        }
        assert!(matches!(log.sync(), Err(Error::Poisoned { .. })));
        assert_eq!(log.read(Offset(1)).unwrap().value(), b"synced");
        nth += 1;
    }
}

fn options() -> Options {
    Options::new()
        .sync_interval(INTERVAL)
        .segment_bytes_max(100_000)
}

fn wait_until_durable(log: &Log, end: Offset, since: Instant) {
    while log.durable_offset() < end {
        let late = since.elapsed();
        assert!(late < INTERVAL + LATE, "{} of {end}", log.durable_offset());
        thread::sleep(Duration::from_millis(2));
    }
}
