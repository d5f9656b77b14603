//! Threads that append, read, truncate and follow at once, on real files: what is read is what was
//! written, whatever the others do. `make tsan` runs it under ThreadSanitizer.
//!
//! `PROGLOG_RACES_SECONDS` says for how long each of the stresses runs.
//!
//! Nothing here is shared but the log and relaxed atomics: a lock of the test's own would order what the
//! log has to order by itself, and hide from the sanitizer that it does not.
#![cfg(not(target_family = "wasm"))]

use std::{
    collections::VecDeque,
    env,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use proglog::{Clock, Durability, Error, Log, NewRecord, Offset, Options, Record, Result};

/// How long a stress runs where nothing else is said.
const SECONDS: u64 = 1;
/// Small segments, so that many are begun, sealed and removed.
const SEGMENT_BYTES_MAX: u64 = 256 << 10;
/// How many records a reader keeps, to see that their bytes stay as they were.
const HELD: usize = 64;

fn options() -> Options {
    Options::new()
        .segment_bytes_max(SEGMENT_BYTES_MAX)
        .sync_interval(Duration::from_millis(5))
        .clock(Clock::NONE)
}

fn deadline() -> Instant {
    let seconds = env::var("PROGLOG_RACES_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("PROGLOG_RACES_SECONDS is a number"));
    Instant::now() + Duration::from_secs(seconds.unwrap_or(SECONDS))
}

/// A value that tells whether it is whole: a number, and bytes that follow from it.
fn value(tag: u64, bytes: usize) -> Vec<u8> {
    let mut value = tag.to_be_bytes().to_vec();
    value.extend((0..bytes).map(|at| filler(tag, at)));
    value
}

fn filler(tag: u64, at: usize) -> u8 {
    tag.to_be_bytes()[at % 8] ^ at.to_be_bytes()[7]
}

/// The number of a value, after a look at its bytes.
fn tag(record: &Record) -> u64 {
    let (tag, rest) = record.value().split_first_chunk().expect("a value of ours");
    let tag = u64::from_be_bytes(*tag);
    let whole = rest
        .iter()
        .enumerate()
        .all(|(at, &byte)| byte == filler(tag, at));
    assert!(
        whole,
        "record {} of tag {tag} is not as it was written",
        record.offset()
    );
    tag
}

/// What the threads of a stress know of one another.
#[derive(Default)]
struct Stress {
    tags: AtomicU64,
    /// Truncations that were begun, and ended.
    begun: AtomicU64,
    ended: AtomicU64,
    reads: AtomicU64,
    appends: AtomicU64,
}

impl Stress {
    /// The truncations so far, where none is going on.
    fn undisturbed(&self) -> Option<u64> {
        let ended = self.ended.load(Relaxed);
        (self.begun.load(Relaxed) == ended).then_some(ended)
    }

    /// Runs `check`, and then `expect` on what it gave if no truncation went on meanwhile.
    fn unless_truncated<T>(&self, check: impl FnOnce() -> T, expect: impl FnOnce(&T)) -> T {
        let before = self.undisturbed();
        let found = check();
        if before.is_some() && before == self.undisturbed() {
            expect(&found);
        }
        found
    }

    fn append(&self, log: &Log, random: &mut fastrand::Rng) {
        let durability = match random.u8(..16) {
            0 => Durability::Synced,
            1..6 => Durability::Written,
            _ => Durability::Buffered,
        };
        let count = if random.u8(..4) == 0 {
            random.u64(1..20)
        } else {
            1
        };
        let bytes = if random.u8(..64) == 0 {
            300_000
        } else {
            random.usize(..3000)
        };
        let tags = self.tags.fetch_add(count, Relaxed);
        let values: Vec<Vec<u8>> = (tags..tags + count).map(|tag| value(tag, bytes)).collect();
        let records = values.iter().map(NewRecord::new);
        let _appended = self.unless_truncated(
            || {
                let offsets = log
                    .append_batch_with(records, durability)
                    .expect("appended");
                let read = log.read(offsets.start);
                (offsets, read, log.durable_offset())
            },
            |(offsets, read, durable)| {
                let read = read.as_ref().expect("what was appended is read");
                assert_eq!(tag(read), tags, "{offsets:?}");
                assert!(durability != Durability::Synced || *durable >= offsets.end);
            },
        );
        self.appends.fetch_add(count, Relaxed);
    }

    fn read(&self, log: &Log, random: &mut fastrand::Rng, held: &mut VecDeque<(u64, Record)>) {
        self.unless_truncated(
            || (log.next_offset(), log.next_offset()),
            |(before, after)| assert!(before <= after, "{before} was next, then {after}"),
        );
        let (lowest, next) = (log.lowest_offset(), log.next_offset());
        let offset = match random.u8(..3) {
            0 => Offset(next.0.saturating_sub(1)),
            1 => lowest,
            _ => Offset(random.u64(lowest.0..=next.0.max(lowest.0))),
        };
        let records: Vec<Record> = match random.u8(..8) {
            0 => expect_found(log.scan(offset..).take(20).collect()),
            1 => expect_found(log.read_batch(offset, 64 << 10))
                .map(|frames| frames.map(|frame| frame.expect("a whole frame")).collect()),
            _ => expect_found(log.read(offset)).map(|record| vec![record]),
        }
        .unwrap_or_default();
        self.reads.fetch_add(records.len() as u64, Relaxed);
        held.extend(records.into_iter().map(|record| (tag(&record), record)));
        while held.len() > HELD {
            let (was, record) = held.pop_front().expect("one of many");
            assert_eq!(tag(&record), was, "bytes that were handed out have changed");
        }
    }

    fn truncate(&self, log: &Log, random: &mut fastrand::Rng) {
        let (lowest, next) = (log.lowest_offset(), log.next_offset());
        let offset = Offset(random.u64(lowest.0..=next.0.max(lowest.0)));
        self.begun.fetch_add(1, Relaxed);
        let truncated = match random.u8(..16) {
            0 => log.reset(),
            1..6 => log.truncate_after(Offset(next.0.saturating_sub(random.u64(1..200)))),
            _ => log.truncate_before(offset),
        };
        // Others append and truncate: the offset may be none of the log's any more.
        expect_found(truncated);
        self.ended.fetch_add(1, Relaxed);
    }
}

fn reserve(log: &Log, random: &mut fastrand::Rng) {
    let bytes = random.u64(..4 * SEGMENT_BYTES_MAX);
    log.reserve(bytes).expect("reserved");
}

/// What there is, unless it was truncated.
fn expect_found<T>(found: Result<T>) -> Option<T> {
    match found {
        Ok(found) => Some(found),
        Err(Error::OffsetOutOfRange { .. }) => None,
        Err(e) => panic!("{e}"),
    }
}

/// Everything in the log can be read, and nothing is missing.
fn expect_whole(path: &Path) {
    let log = Log::open(path, options()).expect("opened");
    assert!(
        log.recovery_report().is_sound(),
        "{:?}",
        log.recovery_report()
    );
    let expected = log.next_offset().since(log.lowest_offset());
    let records = log.scan(..).map(|record| tag(&record.expect("a record")));
    assert_eq!(records.count() as u64, expected);
}

#[test]
fn a_log_shared_by_many() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let log = Log::open(&path, options()).expect("opened");
    let (stress, deadline) = (Stress::default(), deadline());
    let repeat = |seed: u64, act: &dyn Fn(&mut fastrand::Rng)| {
        let mut random = fastrand::Rng::with_seed(seed);
        while Instant::now() < deadline {
            act(&mut random);
        }
    };
    thread::scope(|threads| {
        let (log, stress, repeat) = (&log, &stress, &repeat);
        for seed in 0..2 {
            threads.spawn(move || repeat(seed, &|random| stress.append(log, random)));
        }
        for seed in 2..4 {
            threads.spawn(move || {
                let held = std::cell::RefCell::default();
                repeat(seed, &|random| {
                    stress.read(log, random, &mut held.borrow_mut());
                });
            });
        }
        threads.spawn(move || {
            repeat(5, &|random| {
                thread::sleep(Duration::from_millis(random.u64(..20)));
                reserve(log, random);
            });
        });
        threads.spawn(move || {
            repeat(4, &|random| {
                thread::sleep(Duration::from_millis(random.u64(..20)));
                match random.u8(..8) {
                    0 => log.sync().expect("synced"),
                    1 => drop(log.segments()),
                    2 => reserve(log, random),
                    _ => stress.truncate(log, random),
                }
            });
        });
    });
    println!(
        "{:?} appends, {:?} reads, {:?} truncations",
        stress.appends, stress.reads, stress.ended
    );
    log.close().expect("closed");
    expect_whole(&path);
}

#[test]
fn synced_appends_of_many_threads() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let log = Log::open(&path, options()).expect("opened");
    let (stress, deadline) = (Stress::default(), deadline());
    thread::scope(|threads| {
        let (log, stress) = (&log, &stress);
        for _ in 0..4 {
            threads.spawn(move || {
                while Instant::now() < deadline {
                    let own = stress.tags.fetch_add(1, Relaxed);
                    let offset = log.append(&value(own, 100)).expect("appended");
                    assert!(log.durable_offset() > offset);
                    assert_eq!(tag(&log.read(offset).expect("read")), own);
                }
            });
        }
    });
    let appended = stress.tags.load(Relaxed);
    println!("{appended} synced appends");
    assert_eq!(log.next_offset(), Offset(appended));
    log.close().expect("closed");
    expect_whole(&path);
}

/// A writer that is opened and closed again and again, so that what it prepared of its files is cut off,
/// and a reader of the same directory.
#[test]
fn a_follower_beside_a_writer() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    Log::open(&path, options())
        .expect("made")
        .close()
        .expect("closed");
    let (stress, stop, deadline) = (Stress::default(), AtomicBool::new(false), deadline());
    thread::scope(|threads| {
        let (stress, stop, path) = (&stress, &stop, &path);
        threads.spawn(move || {
            let mut random = fastrand::Rng::with_seed(5);
            while Instant::now() < deadline {
                let log = Log::open(path, options()).expect("opened");
                for _ in 0..random.u8(..100) {
                    stress.append(&log, &mut random);
                    if random.u8(..32) == 0 {
                        reserve(&log, &mut random);
                    }
                }
                thread::sleep(Duration::from_micros(random.u64(..500)));
                log.close().expect("closed");
            }
            stop.store(true, Relaxed);
        });
        threads.spawn(move || {
            let mut seen = Offset(0);
            while !stop.load(Relaxed) {
                let log = Log::open_read_only(path, options()).expect("opened to read");
                for _ in 0..20 {
                    log.refresh().expect("refreshed");
                    let next = log.next_offset();
                    assert!(next >= seen, "{seen} was next, then {next}");
                    for record in log.scan(Offset(next.0.saturating_sub(10))..next) {
                        tag(&record.expect("a record"));
                        stress.reads.fetch_add(1, Relaxed);
                    }
                    seen = next;
                }
            }
        });
    });
    println!("{:?} appends, {:?} reads", stress.appends, stress.reads);
    expect_whole(&path);
}

/// The worker maps more of the file, and fills it with zeros, when a small record asked for it. Meanwhile a
/// large one is written there.
#[test]
fn a_large_record_after_a_small_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options::new().durability(Durability::Buffered);
    let log = Log::open(directory.path().join("log"), options).expect("opened");
    let deadline = deadline();
    let (small, large) = (value(0, 10), value(1, 1 << 20));
    while Instant::now() < deadline {
        let from = log.append(&small).expect("appended");
        log.append(&large).expect("appended");
        for (offset, value) in [(from, &small), (from.next(), &large)] {
            let read = log.read(offset).expect("what was appended is read");
            assert!(read.value() == value, "record {offset}");
        }
        if from.0.is_multiple_of(512) {
            log.truncate_before(log.next_offset()).expect("truncated");
        }
    }
}

/// Full segments are sealed, and forgotten to be opened anew, while the next one begins.
#[test]
fn the_end_never_goes_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = options().durability(Durability::Written);
    let log = Log::open(directory.path().join("log"), options).expect("opened");
    let (stop, deadline) = (AtomicBool::new(false), deadline());
    thread::scope(|threads| {
        let (log, stop) = (&log, &stop);
        threads.spawn(move || {
            let value = value(0, 2_000);
            while !stop.load(Relaxed) {
                log.append(&value).expect("appended");
            }
        });
        let mut before = Offset(0);
        while Instant::now() < deadline {
            let next = log.next_offset();
            if next < before {
                stop.store(true, Relaxed);
            }
            assert!(next >= before, "{before} was next, then {next}");
            before = next;
        }
        stop.store(true, Relaxed);
    });
}

/// Segments are sealed, and so their files cut to their frames, while all are looked through.
#[test]
fn verified_beside_appends() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = options()
        .durability(Durability::Written)
        .segment_bytes_max(1 << 20);
    let log = Log::open(directory.path().join("log"), options).expect("opened");
    let (stop, deadline) = (AtomicBool::new(false), deadline());
    thread::scope(|threads| {
        let (log, stop) = (&log, &stop);
        threads.spawn(move || {
            let value = value(0, 700);
            while !stop.load(Relaxed) {
                log.append(&value).expect("appended");
            }
        });
        while Instant::now() < deadline {
            let report = log.verify().expect("looked through");
            assert!(report.is_sound(), "{report:?}");
            // One who truncates while it looks would find files gone.
            log.truncate_before(Offset(log.next_offset().0.saturating_sub(10_000)))
                .expect("truncated");
        }
        stop.store(true, Relaxed);
    });
}
