//! Old segments go when the log is too large or they are too old, and no others.
#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use proglog::{
    Backend, Clock, Compaction, Error, Log, MemoryBackend, NewRecord, Offset, Options, Result,
    Retention,
};

/// Ten records of 40 bytes and some to a segment.
fn options(retention: Retention) -> Options {
    Options::new()
        .segment_bytes_max(10 * 80)
        .index_bytes_max(12 * 10)
        .retention(retention)
}

fn append(log: &Log<impl Backend>, records: u64) -> Result<()> {
    for _ in 0..records {
        log.append(NewRecord::new(&[7; 40]).timestamp_ms(5))?;
    }
    Ok(())
}

fn bytes(log: &Log<impl Backend>) -> Vec<u64> {
    log.segments()
        .iter()
        .map(|segment| segment.store_bytes)
        .collect()
}

#[test]
fn the_lowest_segments_go_while_there_are_too_many_bytes() -> Result<()> {
    for bytes_max in [0, 1, 500, 1200, 5000, 1 << 40] {
        let log = Log::open_on(
            MemoryBackend::new(),
            options(Retention::new().bytes_max(bytes_max)),
        )?;
        for n in 0..100 {
            append(&log, 1)?;
            let (active, sealed) = (bytes(&log).pop().unwrap(), bytes(&log));
            let sealed: u64 = sealed[..sealed.len() - 1].iter().sum();
            assert!(sealed <= bytes_max, "{bytes_max}: {sealed}");
            // No more than need be went: another segment would be too much.
            if log.lowest_offset() > Offset(0) {
                assert!(sealed + 10 * 70 > bytes_max, "{bytes_max}: {sealed}");
            }
            assert!(active > 0);
            assert_eq!(log.next_offset(), Offset(n + 1));
            assert!(log.read(Offset(n)).is_ok());
        }
        log.enforce_retention()?;
        let total: u64 = bytes(&log).iter().sum();
        assert!(
            total <= bytes_max || log.segments().len() == 1,
            "{bytes_max}: {total}"
        );
        let below = Offset(log.lowest_offset().0.saturating_sub(1));
        if below < log.lowest_offset() {
            assert!(matches!(
                log.read(below),
                Err(Error::OffsetOutOfRange { .. })
            ));
        }
        assert!(log.verify()?.is_sound());
    }
    Ok(())
}

#[test]
fn as_many_bytes_as_are_kept_are_kept() -> Result<()> {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options(Retention::new()))?;
    append(&log, 35)?;
    let all: u64 = bytes(&log).iter().sum();
    log.close()?;
    for (bytes_max, lowest) in [(all, 0), (all - 1, 10)] {
        let kept = options(Retention::new().bytes_max(bytes_max));
        let log = Log::open_on(files.clone(), kept)?;
        log.enforce_retention()?;
        assert_eq!(log.lowest_offset(), Offset(lowest));
    }
    Ok(())
}

static NOW_MS: AtomicU64 = AtomicU64::new(0);

#[test]
fn segments_go_once_their_last_record_is_too_old() -> Result<()> {
    let clock = Clock::custom(|| NOW_MS.load(Relaxed));
    let hour = Duration::from_secs(3600);
    let files = MemoryBackend::new();
    let options = options(Retention::new().age_max(hour)).clock(clock);
    let log = Log::open_on(files.clone(), options.clone())?;
    for n in 1..=30 {
        NOW_MS.store(n * 60_000, Relaxed);
        log.append(&[7; 40])?;
    }
    // The last one of the first is of the tenth minute.
    for (minute, lowest) in [
        (30, 0),
        (70, 0),
        (71, 10),
        (80, 10),
        (81, 20),
        (1 << 30, 20),
    ] {
        NOW_MS.store(minute * 60_000, Relaxed);
        log.enforce_retention()?;
        assert_eq!(log.lowest_offset(), Offset(lowest), "minute {minute}");
    }
    log.close()?;
    // Also in one that is opened, when the next is full.
    let log = Log::open_on(files, options.clone())?;
    append(&log, 1)?;
    assert_eq!(log.lowest_offset(), Offset(30));
    assert_eq!(log.next_offset(), Offset(31));

    // Those without timestamps stay, and without a clock all do.
    for clock in [clock, Clock::NONE] {
        let log = Log::open_on(MemoryBackend::new(), options.clone().clock(clock))?;
        for _ in 0..30 {
            log.append(NewRecord::new(&[7; 40]).timestamp_ms(0))?;
        }
        log.enforce_retention()?;
        assert_eq!(log.lowest_offset(), Offset(0));
    }
    Ok(())
}

#[test]
fn what_was_compacted_counts_as_small_as_it_is() -> Result<()> {
    let log = Log::open_on(
        MemoryBackend::new(),
        options(Retention::new().bytes_max(2500)),
    )?;
    for _ in 0..30 {
        log.append(NewRecord::new(&[7; 40]).key("k"))?;
        log.compact(&Compaction::new())?;
    }
    for _ in 0..30 {
        log.append(&[7; 40])?;
    }
    assert_eq!(log.lowest_offset(), Offset(0));
    Ok(())
}

#[test]
fn a_reader_may_not() -> Result<()> {
    let files = MemoryBackend::new();
    append(&Log::open_on(files.clone(), Options::new())?, 1)?;
    let reader = Log::open_read_only_on(files, options(Retention::new().bytes_max(0)))?;
    assert!(matches!(reader.enforce_retention(), Err(Error::ReadOnly)));
    Ok(())
}

/// In a directory it is done beside the appends.
#[test]
fn the_worker_does_it() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), options(Retention::new().bytes_max(2000)))?;
    append(&log, 200)?;
    let begun = Instant::now();
    loop {
        let sealed = bytes(&log);
        let sealed: u64 = sealed[..sealed.len() - 1].iter().sum();
        if sealed <= 2000 && log.lowest_offset() > Offset(100) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{sealed} bytes");
        std::thread::sleep(Duration::from_millis(1));
    }
    log.close()?;
    let log = Log::open(directory.path(), Options::new())?;
    assert!(log.verify()?.is_sound());
    assert_eq!(log.next_offset(), Offset(200));
    Ok(())
}

#[test]
fn segments_of_which_nothing_is_left_keep_no_others() -> Result<()> {
    let options = Options::new().segment_bytes_max(1);
    let log = Log::open_on(MemoryBackend::new(), options)?;
    // Each in a segment of its own: of the first four nothing is left, then there are three, and the active one.
    for n in 1..=8 {
        let key = if n <= 5 { "k" } else { "" };
        log.append(NewRecord::new("v").key(key).timestamp_ms(n * 1000))?;
    }
    assert_eq!(log.compact(&Compaction::new())?.segments.len(), 4);
    let retention = Retention::new().age_max(Duration::from_secs(10));
    for (now_ms, lowest) in [(15_000, 0), (15_001, 5), (16_001, 6)] {
        log.enforce_retention_with(&retention, Some(now_ms))?;
        assert_eq!(log.lowest_offset(), Offset(lowest));
    }
    Ok(())
}
