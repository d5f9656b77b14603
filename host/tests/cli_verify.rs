//! `proglog verify`: every segment, by as many threads as are wanted, with one verdict.
#![cfg(unix)]

mod program;

use std::fs;

use program::{NewLog, flip_a_bit, json_lines, on_both_engines, printed, run};
use serde_json::json;

on_both_engines!(
    it_finds_the_same_with_any_number_of_threads,
    the_report_has_each_segment,
);

/// A log of nine segments.
fn log(engine: &str) -> NewLog {
    let log = NewLog::new(engine);
    let values: String = (0..9).map(|n| format!("{n:03}\n")).collect();
    log.append(&["--segment-bytes-max", "1"], values.as_bytes());
    log
}

fn it_finds_the_same_with_any_number_of_threads(engine: &str) {
    let log = log(engine);
    let verify = |threads: Option<&str>, more: &[&str]| {
        let mut verify = log.verb("verify", &[]);
        verify.args(
            threads
                .into_iter()
                .flat_map(|threads| ["--threads", threads]),
        );
        verify.args(more);
        let output = run(verify, b"");
        (output.status.code(), output.stdout, output.stderr)
    };
    for damaged in [None, Some(4), Some(7)] {
        if let Some(n) = damaged {
            let value = format!("{n:03}");
            flip_a_bit(&log.dir.join(format!("{n}.store")), value.as_bytes());
        }
        for more in [&[][..], &["--json"]] {
            let told = verify(Some("1"), more);
            assert_eq!(told.0, Some(i32::from(damaged.is_some())));
            for threads in [None, Some("2"), Some("50")] {
                assert_eq!(verify(threads, more), told, "{threads:?}");
            }
        }
    }
    let (_, told, _) = verify(None, &[]);
    let told = String::from_utf8(told).unwrap();
    assert!(
        told.contains("DAMAGED    segment 4, offsets 4..=4, "),
        "{told}"
    );
    assert!(
        told.contains("DAMAGED    segment 7, offsets 7..=7, "),
        "{told}"
    );
    assert!(
        told.contains("damaged    2 records lost; 7 sound records in 9 segments, "),
        "{told}"
    );
}

fn the_report_has_each_segment(engine: &str) {
    let log = log(engine);
    fs::remove_file(log.dir.join("2.index")).unwrap();
    let told = json_lines(&printed(log.verb("verify", &[&"--json"]), b"")).remove(0);
    assert_eq!(
        (&told["sound"], &told["records"]),
        (&json!(true), &json!(9))
    );
    let segments = told["segments"].as_array().unwrap();
    assert_eq!(segments.len(), 9);
    for (n, segment) in segments.iter().enumerate() {
        let store = fs::metadata(log.dir.join(format!("{n}.store")))
            .unwrap()
            .len();
        let index = if n == 2 { "missing" } else { "sound" };
        let expected = json!({
            "base": n, "next": n + 1, "store_bytes": store, "records": 1, "unchecked_records": 0,
            "index": index, "torn_tail": null, "damage": [],
            "gaps": { "compacted": 0, "lost": 0, "lost_stretches": [], "other": 0, "skipped": 0 },
        });
        assert_eq!(segment, &expected);
    }
}
