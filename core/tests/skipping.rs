//! Offsets that were left out are not there by the log's own word, and stay so whatever stops it.

use proglog::{
    Backend, Error, Fault, FaultBackend, GapCause, Log, MemoryBackend, Next, Offset, Options,
};

const RECORD: &str = "a record";

/// A log of `before` records, in segments of three, that goes on at `to` with one more.
fn skip<B: Backend>(backend: B, before: u64, to: u64) -> (u64, Result<(), Error>) {
    let mut kept = 0;
    let done = (|| {
        let log = Log::open_on(backend, Options::new().segment_bytes_max(110))?;
        for n in 1..=before {
            log.append(RECORD)?;
            kept = n;
        }
        log.skip_to(Offset(to))?;
        kept = to;
        assert_eq!(log.next_offset(), Offset(to));
        assert_eq!(log.append(RECORD)?, Offset(to));
        kept = to + 1;
        log.close()
    })();
    (kept, done)
}

/// What a log that stopped somewhere there holds, if all below `kept` was promised.
fn check<B: Backend>(log: &Log<B>, before: u64, to: u64, kept: u64, what: &str) {
    let next = log.next_offset().0;
    assert_eq!(log.lowest_offset(), Offset(0), "{what}");
    assert!(
        (kept..=to + 1).contains(&next),
        "{what}: {next}, not {kept}"
    );
    assert!(next <= before || next >= to, "{what}: {next}");
    // Of very many the first and the last.
    let far = (before + 3).min(next)..(to.saturating_sub(3)).min(next);
    for offset in (0..next)
        .take_while(|&offset| offset < far.start || far.is_empty())
        .chain(far.end..next)
    {
        let found = log.read(Offset(offset));
        if (before..to).contains(&offset) {
            let is_gap = matches!(
                found,
                Err(Error::Gap {
                    cause: GapCause::Skipped,
                    first,
                    next,
                    ..
                }) if (first, next) == (Offset(before), Offset(to))
            );
            assert!(is_gap, "{what}: {found:?}");
            let place = log.locate(Offset(offset)).unwrap();
            let is_wide = to - before > 4096;
            let segment = if is_wide { to - 1..to } else { 0..before + 1 };
            assert!(segment.contains(&place.segment.0), "{what}: {place:?}");
            assert_eq!(place.gap.map(|gap| gap.last), Some(Offset(to - 1)));
            // From there on, the first record after it.
            let batch = log.read_batch(Offset(offset), 1).unwrap();
            let read: Vec<_> = batch.map(|record| record.unwrap().offset().0).collect();
            assert_eq!(read, Vec::from_iter((next > to).then_some(to)), "{what}");
        } else {
            assert_eq!(found.unwrap().value(), RECORD.as_bytes(), "{what}");
        }
    }
    let report = log.verify().unwrap();
    assert!(report.is_sound(), "{what}: {report:?}");
    assert!(report.torn_tails().all(|tail| tail.zeros), "{what}");
    let skipped = if next >= to { to - before } else { 0 };
    assert_eq!(report.gaps().skipped, skipped, "{what}");
    assert_eq!(report.gaps().offsets(), skipped, "{what}");
    let scanned: Vec<_> = log
        .scan(..)
        .filter_map(Result::ok)
        .map(|r| r.offset().0)
        .collect();
    let held: Vec<_> = (0..before.min(next)).chain(to..next).collect();
    assert_eq!(scanned, held, "{what}");
    let backward: Vec<_> = log.scan(..).rev().map(|r| r.unwrap().offset().0).collect();
    assert!(backward.into_iter().rev().eq(held), "{what}");
}

#[test]
fn what_was_left_out_is_not_there_from_then_on() {
    for before in 0..8 {
        for to in [1, 2, 50, 2_000, 4_096, 4_097].map(|offsets| before + offsets) {
            let files = MemoryBackend::new();
            let (kept, done) = skip(files.clone(), before, to);
            done.unwrap();
            for again in 0..3 {
                let log = Log::open_on(files.clone(), Options::new()).unwrap();
                check(
                    &log,
                    before,
                    to,
                    kept,
                    &format!("{before} to {to}, {again}"),
                );
                drop(log);
            }
            let log = Log::open_on(files, Options::new()).unwrap();
            assert_eq!(log.append(RECORD).unwrap(), Offset(to + 1));
        }
    }
}

#[test]
fn a_log_may_end_with_them() {
    for before in 0..5 {
        let files = MemoryBackend::new();
        let log = Log::open_on(files.clone(), Options::new()).unwrap();
        for _ in 0..before {
            log.append(RECORD).unwrap();
        }
        log.skip_to(Offset(before + 1)).unwrap();
        log.skip_to(Offset(before + 3)).unwrap();
        log.close().unwrap();
        for _ in 0..3 {
            let log = Log::open_on(files.clone(), Options::new()).unwrap();
            assert_eq!(log.next_offset(), Offset(before + 3), "{before}");
            let report = log.verify().unwrap();
            assert!(report.is_sound(), "{before}: {report:?}");
            assert_eq!(report.gaps().skipped, 3, "{before}");
            assert_eq!(log.scan(..).count() as u64, before);
            assert_eq!(log.scan(..).rev().count() as u64, before);
            assert!(log.read_batch(Offset(before), 1).unwrap().is_empty());
            log.close().unwrap();
        }
    }
}

#[test]
fn a_stop_at_any_moment_leaves_them_out_or_not_given_yet() {
    for (before, to) in [(0, 1), (0, 4), (1, 2), (2, 50), (4, 6), (3, 1 << 40)] {
        let disk = FaultBackend::new();
        skip(disk.clone(), before, to).1.unwrap();
        for operation in 0..disk.operations() {
            let disk = FaultBackend::new();
            disk.fail(operation, Fault::Error);
            let (kept, done) = skip(disk.clone(), before, to);
            let what = format!("{before} to {to}, operation {operation}, {done:?}");
            let states = disk.power_cuts(40, operation);
            for (n, state) in states.chain([disk.killed()]).enumerate() {
                let what = format!("{what}, state {n}");
                let log = Log::open_on(state, Options::new()).unwrap();
                check(&log, before, to, kept, &what);
            }
        }
    }
}

#[test]
fn no_offset_is_left_out_that_was_given() {
    let log = Log::open_on(MemoryBackend::new(), Options::new()).unwrap();
    log.append_batch([RECORD; 3]).unwrap();
    log.skip_to(Offset(3)).unwrap();
    assert!(log.verify().unwrap().is_sound());
    for to in [0, 2, u64::MAX] {
        let skipped = log.skip_to(Offset(to));
        assert!(matches!(skipped, Err(Error::InvalidArgument(_))), "{to}");
    }
    assert_eq!(log.append(RECORD).unwrap(), Offset(3));
    // However far.
    log.skip_to(Offset(u64::MAX - 1)).unwrap();
    assert_eq!(log.append(RECORD).unwrap(), Offset(u64::MAX - 1));
    assert!(matches!(log.append(RECORD), Err(Error::InvalidArgument(_))));
    assert_eq!(log.scan(..).count(), 5);
    assert_eq!(log.verify().unwrap().gaps().skipped, u64::MAX - 5);
}

#[test]
fn truncating_keeps_what_is_left_of_them() {
    for (before, to) in [(0, 4), (3, 9), (5, 700)] {
        for last in 0..=to + 1 {
            let files = MemoryBackend::new();
            skip(files.clone(), before, to).1.unwrap();
            let log = Log::open_on(files.clone(), Options::new()).unwrap();
            log.append(RECORD).unwrap();
            log.truncate_after(Offset(last)).unwrap();
            let what = format!("{before} to {to} after {last}");
            let next = last + 1;
            assert_eq!(log.next_offset(), Offset(next), "{what}");
            let skipped = next.min(to).saturating_sub(before);
            for again in 0..3 {
                let log = Log::open_on(files.clone(), Options::new()).unwrap();
                let next = next + again;
                let report = log.verify().unwrap();
                assert!(report.is_sound(), "{what}: {report:?}");
                assert_eq!(report.gaps().skipped, skipped, "{what}");
                let found = log.scan(..).filter(Result::is_ok).count() as u64;
                assert_eq!(found, next - skipped, "{what}");
                assert_eq!(log.append(RECORD).unwrap(), Offset(next), "{what}");
            }
        }
    }
}

#[test]
fn timestamps_go_on_after_them() {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), Options::new()).unwrap();
    log.append(proglog::NewRecord::new(RECORD).timestamp_ms(5000))
        .unwrap();
    log.skip_to(Offset(1000)).unwrap();
    log.close().unwrap();
    let log = Log::open_on(files, Options::new()).unwrap();
    let early = proglog::NewRecord::new(RECORD).timestamp_ms(3000);
    let offset = log.append(early).unwrap();
    assert_eq!(log.read(offset).unwrap().timestamp_ms(), Some(5000));
    log.append(proglog::NewRecord::new(RECORD).timestamp_ms(7000))
        .unwrap();
    for (from_ms, first) in [(0, 0), (5000, 0), (5001, 1001), (7000, 1001), (7001, 1002)] {
        let found = log.scan_from_time(from_ms).unwrap().next();
        let found = found.map_or(1002, |record| record.unwrap().offset().0);
        assert_eq!(found, first, "{from_ms}");
    }
}

#[test]
fn each_cause_is_told_as_it_was_given() {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), Options::new()).unwrap();
    let causes = [
        GapCause::Lost,
        GapCause::Compacted,
        GapCause::Skipped,
        GapCause::Other(9),
    ];
    for cause in causes {
        log.append(RECORD).unwrap();
        log.skip_to_because(log.next_offset().plus(2), cause)
            .unwrap();
    }
    log.close().unwrap();
    let log = Log::open_on(files, Options::new()).unwrap();
    for (n, cause) in (0..).zip(causes) {
        let gap = log.locate(Offset(n * 3 + 1)).unwrap().gap.unwrap();
        assert_eq!((gap.cause, gap.offsets()), (cause, 2));
    }
    let gaps = log.verify().unwrap().gaps();
    let counts = (gaps.lost, gaps.compacted, gaps.skipped, gaps.other);
    assert_eq!(counts, (2, 2, 2, 2));
}

/// Who reads one while it is being left out, or as what comes next is appended, finds it or nothing yet.
#[test]
#[cfg(not(target_family = "wasm"))]
fn readers_beside_appends_find_them_whole() {
    use std::{sync::atomic::AtomicBool, sync::atomic::Ordering::Relaxed, thread};
    let options = Options::new().durability(proglog::Durability::Buffered);
    let log = Log::open_on(MemoryBackend::new(), options).unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..100_000 {
                log.skip_to(log.next_offset().plus(2)).unwrap();
                log.append(RECORD).unwrap();
            }
            done.store(true, Relaxed);
        });
        let mut met = 0;
        while !done.load(Relaxed) {
            let next = log.next_offset();
            for back in (1..6).filter(|back| *back <= next.0) {
                let offset = Offset(next.0 - back);
                let found = log.read(offset);
                match offset.0 % 3 {
                    2 => assert!(found.is_ok(), "{offset}: {found:?}"),
                    _ => assert!(
                        matches!(found, Err(Error::Gap { .. })),
                        "{offset}: {found:?}"
                    ),
                }
                met += 1;
            }
        }
        assert!(met > 0);
    });
}

#[test]
fn a_subscription_steps_over_them_and_waits_behind_them() {
    let log = Log::open_on(MemoryBackend::new(), Options::new()).unwrap();
    let mut subscription = log.subscribe(Offset(0));
    let mut next = || match subscription.try_next().unwrap() {
        Next::Record(record) => Some(record.offset().0),
        _ => None,
    };
    log.append(RECORD).unwrap();
    assert_eq!(next(), Some(0));
    for (offsets, after) in [(3, 4), (5000, 5005)] {
        log.skip_to(log.next_offset().plus(offsets)).unwrap();
        assert_eq!(next(), None);
        assert_eq!(log.append(RECORD).unwrap(), Offset(after));
        assert_eq!(next(), Some(after));
    }
}

/// After a clean close the record before them tells whether appends can follow: they do in the same segment.
#[test]
fn appends_go_on_behind_them_in_the_same_segment() {
    let files = MemoryBackend::new();
    for round in 0..3_u64 {
        let log = Log::open_on(files.clone(), Options::new()).unwrap();
        log.append_batch([RECORD; 2]).unwrap();
        log.skip_to(log.next_offset().plus(2)).unwrap();
        log.skip_to_because(log.next_offset().plus(1), GapCause::Lost)
            .unwrap();
        assert_eq!(log.next_offset(), Offset((round + 1) * 5));
        assert_eq!(log.segments().len(), 1, "{round}");
        log.close().unwrap();
    }
    let log = Log::open_on(files, Options::new()).unwrap();
    assert_eq!(log.append(RECORD).unwrap(), Offset(15));
    assert_eq!(log.segments().len(), 1);
}

/// As durable as the log's promise says: with a weaker one, what is not synced may go with its offsets.
#[test]
fn they_are_as_durable_as_the_log_promises() {
    for durability in [proglog::Durability::Buffered, proglog::Durability::Synced] {
        let disk = FaultBackend::new();
        let log = Log::open_on(disk.clone(), Options::new().durability(durability)).unwrap();
        log.append(RECORD).unwrap();
        log.skip_to(Offset(4)).unwrap();
        let is_synced = durability == proglog::Durability::Synced;
        assert_eq!(log.durable_offset() == Offset(4), is_synced);
        log.sync().unwrap();
        assert_eq!(log.durable_offset(), Offset(4));
        for state in disk.power_cuts(20, 0) {
            let log = Log::open_on(state, Options::new()).unwrap();
            assert_eq!(log.next_offset(), Offset(4));
        }
    }
}
