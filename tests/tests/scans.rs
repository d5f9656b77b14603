//! `Log::scan`: every kind of range, over segments, damage and the ends of the log.

use std::ops::{Bound, RangeBounds};

use proglog::{
    Clock, Error, Header, Log, MemoryBackend, NewRecord, Offset, Options, Record, Result,
};
use proglog_tests::subject::{Files, files_of, memory_of};

/// The log holds offsets 4 to 11, two records a segment.
const HELD: std::ops::Range<u64> = 4..12;

#[test]
fn a_scan_gives_the_records_of_its_range_that_are_there() {
    let log = Log::open_on(memory_of(&closed_log()), options()).unwrap();
    for start in 0..14 {
        for end in 0..14 {
            let (from, to) = (Offset(start), Offset(end));
            check(&log, from..to, start..end);
            check(&log, from..=to, start..end + 1);
            check(
                &log,
                (Bound::Excluded(from), Bound::Excluded(to)),
                start + 1..end,
            );
            check(&log, ..to, 0..end);
            check(&log, ..=to, 0..end + 1);
        }
        check(&log, Offset(start).., start..u64::MAX);
    }
    check(&log, .., 0..u64::MAX);
    check(&log, Offset(u64::MAX).., u64::MAX..u64::MAX);
    check(&log, ..=Offset(u64::MAX), 0..u64::MAX);
}

#[test]
fn a_scan_ends_where_the_log_ends_when_it_gets_there() {
    let log = Log::open_on(memory_of(&closed_log()), options()).unwrap();
    let mut scan = log.scan(Offset(11)..);
    assert_eq!(scan.next().unwrap().unwrap().offset(), Offset(11));
    log.append("late").unwrap();
    assert_eq!(scan.next().unwrap().unwrap().value(), b"late");
    assert!(scan.next().is_none());
}

#[test]
fn a_scan_tells_each_damaged_record_and_goes_on() {
    for damaged in HELD {
        let mut files = closed_log();
        let name = format!("{}.store", damaged / 2 * 2);
        let store = files.get_mut(&name).unwrap();
        let middle = store.len() / 2;
        store[if damaged % 2 == 0 {
            middle - 1
        } else {
            middle + 10
        }] ^= 1;
        let log = Log::open_on(memory_of(&files), options()).unwrap();
        let told: Vec<_> = log.scan(..).map(told).collect();
        let expected: Vec<_> = HELD
            .map(|offset| {
                if offset == damaged {
                    Err(offset)
                } else {
                    Ok(offset)
                }
            })
            .collect();
        assert_eq!(told, expected);
        // Borrowed, and borrowed and kept in turn, they are the same.
        for kept in [usize::MAX, 2, 3] {
            let mut scan = log.scan(..);
            let next = |n: usize| match n % kept {
                1 => scan.next().map(self::told),
                _ => scan.next_borrowed().map(self::told),
            };
            let borrowed: Vec<_> = (0..).map_while(next).collect();
            assert_eq!(borrowed, expected, "{kept}");
        }
    }
}

#[test]
fn a_borrowed_record_is_the_kept_one() {
    let log = Log::open_on(memory_of(&closed_log()), options()).unwrap();
    log.append(
        NewRecord::new("with all")
            .key("key")
            .headers(&[Header::new("name", "value")]),
    )
    .unwrap();
    let mut borrowed = log.scan(..);
    for kept in log.scan(..) {
        let kept = kept.unwrap();
        let record = borrowed.next_borrowed().unwrap().unwrap();
        assert_eq!(record.frame(), kept.frame());
        assert_eq!(format!("{record:?}"), format!("{kept:?}"));
        let own = record.to_record();
        assert_eq!(
            (own.value(), own.key(), own.frame()),
            (kept.value(), kept.key(), kept.frame())
        );
        assert!(own.headers().eq(kept.headers()));
    }
    assert!(borrowed.next_borrowed().is_none());
}

/// The offset of a record, or of a damaged one.
fn told<F: AsRef<[u8]>>(record: Result<Record<F>>) -> Result<u64, u64> {
    match record {
        Ok(record) => Ok(record.offset().0),
        Err(Error::Corrupt { offset, .. }) => Err(offset.0),
        Err(error) => panic!("{error}"),
    }
}

fn check(
    log: &Log<MemoryBackend>,
    range: impl RangeBounds<Offset> + std::fmt::Debug,
    offsets: std::ops::Range<u64>,
) {
    let what = format!("{range:?}");
    let scanned: Vec<_> = log
        .scan(range)
        .map(|record| record.unwrap().offset().0)
        .collect();
    let expected: Vec<_> = HELD.filter(|offset| offsets.contains(offset)).collect();
    assert_eq!(scanned, expected, "{what}");
}

fn closed_log() -> Files {
    let backend = MemoryBackend::new();
    let log = Log::open_on(backend.clone(), options()).unwrap();
    for n in 0..HELD.end {
        log.append(&format!("value {n:2}")).unwrap();
    }
    log.truncate_before(Offset(HELD.start)).unwrap();
    log.close().unwrap();
    let files = files_of(&backend);
    assert_eq!(files.len(), 8, "four segments");
    files
}

fn options() -> Options {
    Options::new().clock(Clock::NONE).index_bytes_max(24)
}
