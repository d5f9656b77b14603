//! `proglog info` says what opening a log tells, and claims no more.
#![cfg(unix)]

mod program;

use std::fs;

use program::{NewLog, Running, flip_a_bit, on_both_engines, printed, run};
use rustix::process::Signal;
use serde_json::json;

on_both_engines!(
    it_says_what_there_is,
    offsets_that_are_told_of_are_no_damage,
    damage_in_a_sealed_segment_is_not_counted_as_records,
    damage_that_was_met_is_told,
    a_log_that_was_killed_or_is_open_is_not_called_closed,
    an_empty_log_has_no_records,
);

fn it_says_what_there_is(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], b"a\nb\n");
    let text = text(&log);
    for line in [
        &format!("log        {}", log.dir.display()),
        &format!("engine     {engine}"),
        "offsets    0..=1",
        "segments   1",
        "indexes    24 bytes",
        "recovery   not needed: the end of the log is in order",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let info = log.info();
    assert_eq!(info["next_offset"], json!(2));
    let store_bytes = fs::metadata(log.dir.join("0.store")).unwrap().len();
    assert_eq!(info["store_bytes"], json!(store_bytes));

    fs::remove_file(log.dir.join("0.index")).unwrap();
    let text = self::text(&log);
    assert!(text.contains("recovery   needed"), "{text}");
    assert!(text.contains("segment 0: its index is missing"), "{text}");
    assert!(text.contains("records    2\n"), "{text}");
    assert_eq!(log.info()["needs_recovery"], json!(true));

    // A stray file is no reason to count records that never were.
    fs::write(log.dir.join("9000000000.store"), "").unwrap();
    assert_eq!(log.info()["records"], json!(null));
    let text = self::text(&log);
    let missing = "DAMAGED    offsets 2..=8999999999 are in no segment\n";
    assert!(text.contains(missing), "{text}");
    let missing = json!([{ "first": 2, "last": 8_999_999_999_u64 }]);
    assert_eq!(log.info()["missing"], missing);
}

fn offsets_that_are_told_of_are_no_damage(engine: &str) {
    let log = NewLog::new(engine);
    let lines = br#"{"offset":0,"value":"YQ=="}
{"gap":{"first":1,"last":3,"cause":"skipped"}}
{"offset":4,"value":"YQ=="}
"#;
    printed(log.verb("import", &[]), lines);
    let text = text(&log);
    assert!(!text.contains("DAMAGED"), "{text}");
    assert_eq!(log.info()["missing"], json!([]));
}

fn damage_in_a_sealed_segment_is_not_counted_as_records(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&["--segment-bytes-max", "40"], b"zero\none\ntwo\n");
    flip_a_bit(&log.dir.join("1.store"), b"one");
    assert_eq!(run(log.verb("verify", &[]), b"").status.code(), Some(1));
    let text = text(&log);
    let records = format!(
        "records    not verified; `proglog verify {}` counts and checks them\n",
        log.dir.display()
    );
    assert!(text.contains(&records), "{text}");
    assert!(!text.contains("clean"), "{text}");
    assert_eq!(log.info()["records"], json!(null));
}

fn damage_that_was_met_is_told(engine: &str) {
    let log = NewLog::new(engine);
    for line in [b"zero", b"once", b"twos"] {
        log.append(&[], line);
    }
    flip_a_bit(&log.dir.join("0.store"), b"once");
    fs::remove_file(log.dir.join("0.index")).unwrap();
    let text = text(&log);
    assert!(text.contains("records    2\n"), "{text}");
    assert!(
        text.contains("DAMAGED    segment 0, offsets 1..=1"),
        "{text}"
    );
    assert_eq!(log.info()["records"], json!(2));
}

/// The wasm engine keeps its index as a clean stop leaves it, the native one has space in it.
fn a_log_that_was_killed_or_is_open_is_not_called_closed(engine: &str) {
    let log = NewLog::new(engine);
    let mut append = Running::start(log.verb("append", &[&"--acks"]));
    append.write(b"one\n");
    append.line();
    for killed in [false, true] {
        if killed {
            append.signal(Signal::KILL);
        }
        let text = text(&log);
        let recovery = match engine {
            "native" => "needed, unless a writer has the log now",
            _ => "not needed: the end of the log is in order",
        };
        assert!(text.contains(&format!("recovery   {recovery}\n")), "{text}");
        assert_eq!(log.info()["needs_recovery"], json!(engine == "native"));
    }
    append.end();
}

fn an_empty_log_has_no_records(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&["--initial-offset", "7"], b"");
    let text = text(&log);
    assert!(
        text.contains("offsets    none; the next record will be 7\n"),
        "{text}"
    );
    assert!(text.contains("records    0\n"), "{text}");
}

fn text(log: &NewLog) -> String {
    String::from_utf8(printed(log.verb("info", &[]), b"")).unwrap()
}
