//! Appending, reading, truncating and compacting at once, in a directory: each record that stays is seen once, in order,
//! and is what was appended.
#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use proglog::{
    Backend, Compaction, Durability, Error, FaultBackend, Log, NewRecord, Offset, Options, Record,
    Result,
};

const RECORDS: u64 = 30_000;
const KEYS: u64 = 200;

fn options() -> Options {
    Options::new()
        .segment_bytes_max(20_000)
        .durability(Durability::Written)
}

fn value(offset: u64) -> String {
    format!("value of {offset}")
}

/// Every hundredth record has no key, and stays.
fn key(offset: u64) -> String {
    match offset % 100 {
        0 => String::new(),
        _ => format!("key {}", offset * 7 % KEYS),
    }
}

fn check<F: AsRef<[u8]>>(record: &Record<F>, seen: &mut BTreeSet<u64>) {
    let offset = record.offset().0;
    assert!(
        seen.last().is_none_or(|&last| last < offset),
        "{offset} comes back"
    );
    assert_eq!(record.value(), value(offset).as_bytes());
    assert_eq!(record.key().unwrap_or_default(), key(offset).as_bytes());
    seen.insert(offset);
}

/// What a reader saw of the records below an offset.
struct Seen {
    who: &'static str,
    below: u64,
    offsets: BTreeSet<u64>,
}

fn scans<B: Backend>(
    who: &'static str,
    log: &Log<B>,
    refresh: impl Fn(),
    done: &AtomicBool,
) -> Vec<Seen> {
    let mut all = Vec::new();
    for n in 0.. {
        let is_last = done.load(SeqCst);
        refresh();
        let below = log.next_offset().0;
        let mut offsets = BTreeSet::new();
        if n % 2 == 0 {
            let mut scan = log.scan(..Offset(below));
            while let Some(record) = scan.next_borrowed() {
                check(&record.unwrap(), &mut offsets);
            }
        } else {
            let mut next = Offset(0);
            while next.0 < below {
                let batch = log.read_batch(next, 3000).unwrap();
                if batch.is_empty() {
                    break;
                }
                for record in batch {
                    let record = record.unwrap();
                    check(&record, &mut offsets);
                    next = record.offset().next();
                }
            }
        }
        all.push(Seen {
            who,
            below,
            offsets,
        });
        if is_last {
            return all;
        }
    }
    all
}

/// Reads on from where it was, as a subscriber does.
fn follow<B: Backend>(log: &Log<B>, done: &AtomicBool) -> Seen {
    let mut offsets = BTreeSet::new();
    let mut next = Offset(0);
    loop {
        let is_last = done.load(SeqCst);
        for record in log.scan(next..) {
            let record = record.unwrap();
            check(&record, &mut offsets);
            next = record.offset().next();
        }
        if is_last {
            return Seen {
                who: "follower",
                below: RECORDS,
                offsets,
            };
        }
    }
}

#[test]
fn readers_see_each_record_that_stays_once_and_in_order() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), options())?;
    let done = AtomicBool::new(false);
    let compactions = AtomicU64::new(0);
    let begun = Instant::now();
    let seen = thread::scope(|scope| {
        let reading = [
            scope.spawn(|| scans("scan", &log, || (), &done)),
            scope.spawn(|| {
                // As in another process.
                let reader = Log::open_read_only(directory.path(), options()).unwrap();
                scans("reader", &reader, || reader.refresh().unwrap(), &done)
            }),
            scope.spawn(|| {
                let every = || drop(Log::open_read_only(directory.path(), options()).unwrap());
                let reader = Log::open_read_only(directory.path(), options()).unwrap();
                let refresh = || {
                    every();
                    reader.refresh().unwrap();
                };
                scans("another reader", &reader, refresh, &done)
            }),
            scope.spawn(|| vec![follow(&log, &done)]),
        ];
        scope.spawn(|| {
            while !done.load(SeqCst) {
                let compacted = log.compact(&Compaction::new()).unwrap();
                assert_eq!(compacted.left_alone, []);
                compactions.fetch_add(1, SeqCst);
            }
        });
        for offset in 0..RECORDS {
            let (key, value) = (key(offset), value(offset));
            log.append(NewRecord::new(&value).key(&key)).unwrap();
        }
        while compactions.load(SeqCst) < 3 && begun.elapsed() < Duration::from_secs(60) {
            thread::yield_now();
        }
        done.store(true, SeqCst);
        reading
            .map(|reading| reading.join().unwrap())
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    });
    log.compact(&Compaction::new())?;
    let stays: Vec<u64> = log
        .scan(..)
        .map(|record| record.unwrap().offset().0)
        .collect();
    assert!(stays.len() < RECORDS as usize / 10, "{}", stays.len());
    for Seen {
        who,
        below,
        offsets,
    } in &seen
    {
        let missed: Vec<_> = stays
            .iter()
            .filter(|offset| *offset < below && !offsets.contains(offset))
            .collect();
        assert!(
            missed.is_empty(),
            "the {who} missed {missed:?} of those below {below}"
        );
    }
    println!(
        "{} compactions, {} readings, {} records stay, {:?}",
        compactions.into_inner(),
        seen.len(),
        stays.len(),
        begun.elapsed()
    );
    assert!(log.verify()?.is_sound());
    log.close()?;
    let log = Log::open(directory.path(), Options::new())?;
    assert!(
        log.scan(..)
            .map(|record| record.unwrap().offset().0)
            .eq(stays)
    );
    Ok(())
}

/// What a truncation makes the latest record of a key stays, though a compaction that began before found a later one.
#[test]
fn a_truncation_meanwhile_keeps_what_it_made_the_latest() -> Result<()> {
    let begun = Instant::now();
    let mut left_alone = 0;
    for round in 0..200_u64 {
        let disk = FaultBackend::new();
        let log = Log::open_on(disk.clone(), options().segment_bytes_max(200))?;
        for n in 0..60_u64 {
            log.append(NewRecord::new(&value(n)).key(&format!("{}", n % 5)))?;
        }
        let mut there = false;
        thread::scope(|scope| -> Result<()> {
            let compacting = scope.spawn(|| log.compact(&Compaction::new()));
            for _ in 0..round * 40 {
                std::hint::spin_loop();
            }
            log.truncate_after(Offset(29))?;
            // Of each key one is left now, unless the compaction was before.
            let latest: Vec<_> = (25..30).map(|n| log.read(Offset(n)).is_ok()).collect();
            let compacted = compacting.join().unwrap()?;
            left_alone += compacted.left_alone.len();
            for (n, was_there) in (25..30).zip(latest) {
                let is_there = match log.read(Offset(n)) {
                    Ok(_) => true,
                    Err(Error::Gap { .. }) => false,
                    Err(e) => panic!("{n}: {e}"),
                };
                assert_eq!(is_there, was_there, "round {round}: {n}");
                there |= is_there;
            }
            Ok(())
        })?;
        assert!(log.verify()?.is_sound(), "round {round}");
        assert_eq!(log.append("more")?, Offset(30), "round {round} {there}");
        // Nor does anything come back of what was truncated.
        log.close()?;
        let names = disk.list().unwrap();
        assert!(
            !names.iter().any(|name| name.contains("rewritten")),
            "{names:?}"
        );
        let log = Log::open_on(disk, options())?;
        assert_eq!(log.next_offset(), Offset(31), "round {round}: {names:?}");
        assert!(log.verify()?.is_sound(), "round {round}");
    }
    println!(
        "{left_alone} segments were left alone, {:?}",
        begun.elapsed()
    );
    assert!(left_alone > 0);
    Ok(())
}
