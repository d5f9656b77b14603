//! Offsets that were left out are lost to the log, and stay so whatever stops it.

use proglog::{Backend, Damaged, Error, Fault, FaultBackend, Log, MemoryBackend, Offset, Options};

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
    for offset in 0..next {
        let found = log.read(Offset(offset));
        if (before..to).contains(&offset) {
            let is_missing = matches!(
                found,
                Err(Error::Corrupt {
                    reason: Damaged::Missing,
                    ..
                })
            );
            assert!(is_missing, "{what}: {found:?}");
        } else {
            assert_eq!(found.unwrap().value(), RECORD.as_bytes(), "{what}");
        }
    }
    let report = log.verify().unwrap();
    let lost: Vec<_> = report.damage().map(|d| (d.first.0, d.last.0)).collect();
    let is_lost = before < next;
    assert_eq!(
        lost,
        Vec::from_iter(is_lost.then(|| (before, next.min(to) - 1))),
        "{what}"
    );
    let scanned: Vec<_> = log
        .scan(..)
        .filter_map(Result::ok)
        .map(|r| r.offset().0)
        .collect();
    let held: Vec<_> = (0..next)
        .filter(|offset| !(before..to).contains(offset))
        .collect();
    assert_eq!(scanned, held, "{what}");
}

#[test]
fn what_was_left_out_is_missing_from_then_on() {
    for before in 0..8 {
        for to in [before + 1, before + 2, before + 50, before + 2_000] {
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
            let lost = log.verify().unwrap();
            let lost: u64 = lost.damage().map(|d| d.last.next().since(d.first)).sum();
            assert_eq!(lost, 3, "{before}");
            log.close().unwrap();
        }
    }
}

#[test]
fn a_stop_at_any_moment_leaves_them_missing_or_not_given_yet() {
    for (before, to) in [(0, 1), (0, 4), (1, 2), (2, 50), (4, 6)] {
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
    for to in [0, 2, 1 << 40, u64::MAX] {
        let skipped = log.skip_to(Offset(to));
        assert!(matches!(skipped, Err(Error::InvalidArgument(_))), "{to}");
    }
    assert_eq!(log.append(RECORD).unwrap(), Offset(3));
}
