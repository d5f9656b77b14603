//! Offsets that are left out, as by the native log.

use super::{keeping::both, *};

/// What a call gave, as far as the engines are to agree: the browser's and the sandbox's offsets are below 2^63.
fn outcome<T>(done: Result<T>) -> std::result::Result<T, (ErrorKind, String)> {
    done.map_err(|e| (e.kind(), e.to_string()))
}

#[test]
fn either_engine_leaves_the_same_offsets_out_in_the_same_bytes() {
    let options = Options::new()
        .segment_bytes_max(1000)
        .clock(Clock::custom(|| 500_000));
    let stores = both(&options).map(|(directory, log)| {
        let append = || {
            log.append_batch(&[NewRecord::new("a record")])
                .unwrap()
                .start
        };
        // Among records, next to each other, as a segment of its own, and at a segment's beginning.
        let mut told = Vec::new();
        for (offsets, cause) in [
            (1, GapCause::Skipped),
            (7, GapCause::Lost),
            (4096, GapCause::Compacted),
            (5000, GapCause::Skipped),
            (1 << 40, GapCause::Lost),
            (3, GapCause::Skipped),
        ] {
            let first = append().next();
            let next = first.plus(offsets);
            log.skip_to_because(next, cause).unwrap();
            assert_eq!(log.next_offset(), Ok(next));
            // What was left out is left out once.
            log.skip_to_because(next, cause).unwrap();
            assert_eq!(append(), next);
            for offset in [first, Offset(next.0 - 1)] {
                let read = log.read(offset).unwrap_err();
                assert_eq!(read.kind(), ErrorKind::Gap, "{offset}: {read}");
                let place = log.locate(offset).unwrap();
                let gap = place.gap.expect("it is one of the gap");
                assert_eq!((gap.first, gap.next(), gap.cause), (first, next, cause));
                told.push((read.to_string(), place));
            }
        }
        log.skip_to_because(log.next_offset().unwrap().plus(2), GapCause::Skipped)
            .unwrap();
        // What was given already, and what leaves no offset for a record.
        let given = log.next_offset().unwrap();
        for refused in [Offset(0), Offset(given.0 - 1)] {
            let done = log.skip_to_because(refused, GapCause::Skipped);
            told.push((outcome(done).unwrap_err().1, log.locate(Offset(0)).unwrap()));
        }
        let kind = |next| {
            outcome(log.skip_to_because(next, GapCause::Skipped))
                .unwrap_err()
                .0
        };
        assert_eq!(kind(Offset(u64::MAX)), ErrorKind::InvalidArgument);
        assert_eq!(kind(Offset(given.0 - 1)), ErrorKind::InvalidArgument);
        assert_eq!(log.next_offset(), Ok(given));
        let records: Vec<_> = log.scan(Offset(0)).map(|r| r.unwrap().offset()).collect();
        assert_eq!(records.len(), 12);
        assert!(log.verify().unwrap().is_sound());
        log.close().unwrap();
        let opened = Log::open_read_only(directory.path(), options.clone()).unwrap();
        assert_eq!(opened.next_offset(), given);
        (files(directory.path()), told, records)
    });
    let [on_wasm, on_native] = stores;
    assert_eq!(on_wasm, on_native);
}

#[test]
fn a_log_opened_to_read_leaves_none_out() {
    let (directory, log) = both(&Options::new()).into_iter().next().unwrap();
    log.append_batch(&[NewRecord::new("a record")]).unwrap();
    log.close().unwrap();
    let log = WasmLog::open(directory.path(), Mode::Read, Options::new()).unwrap();
    let refused = log.skip_to_because(Offset(9), GapCause::Skipped);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ReadOnly);
    assert_eq!(log.next_offset(), Ok(Offset(1)));
}
