//! Compaction and retention, as by the native log.

use super::*;
use crate::wasm_log::guest::compaction_scans;

/// The two engines, each with a log in a directory of its own.
pub(super) fn both(options: &Options) -> [(TempDir, Box<dyn Engine>); 2] {
    let (wasm, native) = (directory(), directory());
    let engines: [Box<dyn Engine>; 2] = [
        Box::new(WasmLog::open(wasm.path(), Mode::Write, options.clone()).unwrap()),
        Box::new(Log::open(native.path(), options.clone()).unwrap()),
    ];
    let [on_wasm, on_native] = engines;
    [(wasm, on_wasm), (native, on_native)]
}

/// Appends a record of each key and value, at times one second apart.
fn append(log: &dyn Engine, numbers: Range<u64>, record: impl Fn(u64) -> (String, String)) {
    for n in numbers {
        let (key, value) = record(n);
        let record = NewRecord::new(&value).key(&key).timestamp_ms(n * 1000);
        log.append_batch(&[record]).unwrap();
    }
}

#[test]
fn either_engine_compacts_to_the_same_bytes() {
    let options = Options::new()
        .segment_bytes_max(1000)
        .clock(Clock::custom(|| 500_000));
    let logs = both(&options);
    // Some keys come and are deleted.
    let record = |n: u64| match n % 10 {
        3 => (format!("gone {}", n / 10), "x".to_owned()),
        4 => (format!("gone {}", n / 10), String::new()),
        _ => (format!("key {}", n * n % 31), format!("value {n}")),
    };
    // The time of the first deletion that is still told of.
    let first_deletion = |log: &dyn Engine| {
        let mut records = log.scan(log.lowest_offset().unwrap()).map(Result::unwrap);
        records
            .find(|record| record.value().is_empty())
            .and_then(|record| record.timestamp_ms())
    };
    let hour = Duration::from_secs(3600);
    let compactions = [
        Compaction::new(),
        Compaction::new().memory_bytes_max(0),
        Compaction::new()
            .memory_bytes_max(700)
            .tombstones_kept(Duration::from_secs(350)),
        Compaction::new().tombstones_kept(hour).now_ms(3_800_000),
        Compaction::new()
            .tombstones_kept(Duration::ZERO)
            .memory_bytes_max(u64::MAX),
    ];
    let mut numbers = 0..100;
    for (compaction, first) in compactions
        .iter()
        .zip([4_000, 4_000, 154_000, 204_000, 324_000])
    {
        let [by_wasm, by_native] = logs.each_ref().map(|(_, log)| {
            append(&**log, numbers.clone(), record);
            log.compact(compaction).unwrap()
        });
        assert_eq!(by_wasm, by_native, "{compaction:?}");
        assert!(by_wasm.records_removed > 40, "{by_wasm:?}");
        // What is compacted again without need stays as it is.
        for (_, log) in &logs {
            assert_eq!(log.compact(compaction), Ok(proglog::Compacted::default()));
            assert_eq!(first_deletion(&**log), Some(first), "{compaction:?}");
        }
        numbers = numbers.end..numbers.end + 60;
    }
    let [wasm, native] = logs.map(|(directory, log)| {
        assert!(log.verify().unwrap().is_sound());
        log.close().unwrap();
        directory
    });
    assert!(files(wasm.path()).len() > 10);
    assert_eq!(files(wasm.path()), files(native.path()));
}

#[test]
fn either_engine_keeps_the_same_segments() {
    let cases = [
        (Retention::new(), 0),
        (Retention::new().bytes_max(1500), 500_000),
        (Retention::new().bytes_max(0), 0),
        (Retention::new().bytes_max(u64::MAX), 0),
        (Retention::new().age_max(Duration::from_secs(60)), 100_000),
        (Retention::new().age_max(Duration::from_secs(60)), 50_000),
        (Retention::new().age_max(Duration::ZERO), 99_500),
        (Retention::new().age_max(Duration::MAX), u64::MAX),
        (
            Retention::new()
                .age_max(Duration::from_secs(60))
                .bytes_max(4000),
            100_000,
        ),
        (
            Retention::new()
                .age_max(Duration::from_secs(60))
                .bytes_max(1500),
            90_000,
        ),
    ];
    let mut lowest = Vec::new();
    for (retention, now_ms) in cases {
        let logs = both(&Options::new().segment_bytes_max(500).clock(Clock::NONE));
        let [wasm, native] = logs.map(|(directory, log)| {
            append(&*log, 0..100, |n| {
                (format!("key {n}"), format!("value {n}"))
            });
            // Without a clock nothing is too old.
            let mut age_alone = retention.clone();
            age_alone.bytes_max = None;
            log.enforce_retention_with(&age_alone, None).unwrap();
            assert_eq!(log.lowest_offset(), Ok(Offset(0)));
            log.enforce_retention_with(&retention, Some(now_ms))
                .unwrap();
            let left = (log.lowest_offset().unwrap(), log.segments().unwrap());
            log.close().unwrap();
            (directory, left)
        });
        assert_eq!(wasm.1, native.1, "{retention:?}");
        lowest.push(wasm.1.0.0);
        assert_eq!(
            files(wasm.0.path()),
            files(native.0.path()),
            "{retention:?}"
        );
    }
    let mut differing = lowest.clone();
    differing.sort_unstable();
    differing.dedup();
    assert!(differing.len() == 4, "{lowest:?}");
    assert_eq!(
        (lowest[0], lowest[3], lowest[5], lowest[7]),
        (0, 0, 0, 0),
        "{lowest:?}"
    );
}

#[test]
fn retention_is_enforced_when_a_segment_is_full() {
    let bytes_max = 2000;
    let in_bytes = Retention::new().bytes_max(bytes_max);
    let in_time = Retention::new().age_max(Duration::from_secs(20));
    for retention in [in_bytes.clone(), in_time.clone()] {
        let options = Options::new()
            .segment_bytes_max(500)
            .retention(retention.clone())
            .clock(Clock::custom(|| 60_000));
        let directory = directory();
        let log = WasmLog::open(directory.path(), Mode::Write, options).unwrap();
        let mut segments = Vec::new();
        for n in 0..100 {
            append(&log, n..n + 1, |n| {
                (format!("key {n}"), format!("value {n}"))
            });
            let now = log.segments().unwrap();
            let active = now.last().unwrap().base;
            if segments.last() != Some(&active) {
                segments.push(active);
                let bytes: u64 = now.iter().map(|segment| segment.store_bytes).sum();
                let is_too_old = |next: Offset| (next.0 - 1) * 1000 + 20_000 < 60_000;
                if retention == in_bytes {
                    assert!(bytes <= bytes_max, "{now:?}");
                    assert!(n < 40 || bytes + 600 > bytes_max, "{now:?}");
                } else {
                    let sealed = &now[..now.len() - 1];
                    assert!(
                        !sealed.iter().any(|segment| is_too_old(segment.next)),
                        "{now:?}"
                    );
                }
            }
        }
        let lowest = log.lowest_offset().unwrap().0;
        if retention == in_bytes {
            assert!(lowest > 40, "{lowest}");
        } else {
            assert!((30..41).contains(&lowest), "{lowest}");
        }
        assert_eq!(log.read(Offset(99)).unwrap().value(), b"value 99");
    }
}

#[test]
fn time_passes_where_nothing_is_appended() {
    let age_max = Duration::from_millis(100);
    let options = Options::new()
        .segment_bytes_max(1)
        .retention(Retention::new().age_max(age_max));
    for (_directory, log) in both(&options) {
        for _ in 0..5 {
            log.append_batch(&[NewRecord::new("x")]).unwrap();
        }
        std::thread::sleep(age_max + Duration::from_millis(10));
        log.enforce_retention().unwrap();
        assert_eq!(log.lowest_offset(), Ok(Offset(4)));
    }
}

#[test]
fn a_reader_neither_compacts_nor_removes() {
    let directory = directory();
    let retention = Retention::new().bytes_max(1);
    let options = || {
        Options::new()
            .segment_bytes_max(1)
            .retention(retention.clone())
    };
    let writer = WasmLog::open(
        directory.path(),
        Mode::Write,
        Options::new().segment_bytes_max(1),
    );
    append(&writer.unwrap(), 0..5, |_| ("k".to_owned(), "v".to_owned()));
    let readers: [Box<dyn Engine>; 2] = [
        Box::new(WasmLog::open(directory.path(), Mode::Read, options()).unwrap()),
        Box::new(Log::open_read_only(directory.path(), options()).unwrap()),
    ];
    for log in readers {
        let refused = [
            log.compact(&Compaction::new()).unwrap_err(),
            log.enforce_retention().unwrap_err(),
        ];
        assert_eq!(refused.map(|error| error.kind()), [ErrorKind::ReadOnly; 2]);
        assert_eq!(log.lowest_offset(), Ok(Offset(0)));
    }
}

#[test]
fn compacting_takes_no_more_memory_than_the_guest_has() {
    let directory = directory();
    let options = Options::new().segment_bytes_max(1 << 20);
    let limits = Limits {
        memory_bytes_max: 12 << 20,
        ..Limits::of(&options)
    };
    let log = WasmLog::open_with_limits(directory.path(), Mode::Write, options, limits).unwrap();
    // Of all of them the keys take some 16 MB.
    let keys: u32 = 120_000;
    for _ in 0..2 {
        for first in (0..keys).step_by(1000) {
            let keys: Vec<_> = (first..first + 1000).map(|n| n.to_string()).collect();
            let records: Vec<_> = keys
                .iter()
                .map(|key| NewRecord::new("v").key(key))
                .collect();
            log.append_batch(&records).unwrap();
        }
    }
    let compacted = log.compact(&Compaction::new()).unwrap();
    assert_eq!(compacted.records_removed, u64::from(keys));
}

/// The time that a compaction is given is that of so many scans.
#[test]
fn compacting_reads_no_more_than_there_is_time_for() {
    let directory = directory();
    let options = Options::new().segment_bytes_max(2000);
    let log = WasmLog::open(directory.path(), Mode::Write, options).unwrap();
    append(&log, 0..400, |n| (format!("{}", n % 300), String::new()));
    let bytes = || {
        files(directory.path())
            .values()
            .map(|file| file.len() as u64)
            .sum()
    };
    for memory_bytes_max in [1, 1000, 5000, 1 << 20] {
        let (bytes, before): (u64, _) = (bytes(), log.bytes_read().unwrap());
        let compaction = Compaction::new().memory_bytes_max(memory_bytes_max);
        log.compact(&compaction).unwrap();
        let read = log.bytes_read().unwrap() - before;
        let scans = compaction_scans(bytes, memory_bytes_max);
        assert!(read <= scans * bytes, "{read} in {scans} scans of {bytes}");
        // With little memory it takes many.
        assert!(
            memory_bytes_max > 1000 || read > 3 * bytes,
            "{read} of {bytes}"
        );
    }
}

#[test]
fn a_compaction_that_does_not_return_is_stopped() {
    let directory = directory();
    let log = unruly(directory.path());
    let for_ever = Compaction::new().tombstones_kept(Duration::ZERO);
    let began = Instant::now();
    assert_discarded(&log, log.compact(&for_ever), "it took more than 300ms");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    // With more to read it has more time.
    let file = fs::File::create(directory.path().join("0.store")).unwrap();
    file.set_len(15 << 20).unwrap();
    let began = Instant::now();
    assert_discarded(&log, log.compact(&for_ever), "it took more than 300ms");
    assert!(
        began.elapsed() > Duration::from_millis(3300),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn what_breaks_in_passing_is_told_to_the_next_appender() {
    let directory = directory();
    let options = Options::new()
        .durability(Durability::Written)
        .retention(Retention::new().bytes_max(1));
    let limits = Limits::of(&options);
    let module = guest!("unruly").unwrap();
    let log = WasmLog::open_module(module, directory.path(), Mode::Write, options, limits).unwrap();
    let append = || log.append_batch_with(&[NewRecord::new("x")], Durability::Written.into());
    // It makes a file, and so retention is enforced, at which the guest breaks.
    assert_eq!(append(), Ok(Offset(0)..Offset(1)));
    assert_discarded(&log, append(), "5 for a status");
    // Now the file is there.
    for _ in 0..3 {
        assert_eq!(append(), Ok(Offset(0)..Offset(1)));
    }
}

#[test]
fn what_cannot_be_written_anew_is_named_as_the_host_names_it() {
    let directory = directory();
    let options = Options::new().segment_bytes_max(200);
    let log = WasmLog::open(directory.path(), Mode::Write, options).unwrap();
    append(&log, 0..30, |n| ("k".to_owned(), format!("{n}")));
    let second = log.segments().unwrap()[1].base;
    let in_the_way = format!("{second}.store.rewritten");
    fs::create_dir(directory.path().join(&in_the_way)).unwrap();
    let compacted = log.compact(&Compaction::new()).unwrap();
    assert!(compacted.segments.len() > 2, "{compacted:?}");
    let [left_alone] = &compacted.left_alone[..] else {
        panic!("{compacted:?}")
    };
    let proglog::LeftAloneReason::Failed(message) = &left_alone.reason else {
        panic!("{left_alone:?}")
    };
    let path = directory.path().join(&in_the_way);
    assert!(message.contains(path.to_str().unwrap()), "{message}");
}
