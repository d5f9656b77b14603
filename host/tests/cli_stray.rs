//! Bytes between two records that are none of either are shown for what they are: no record is lost by them.
#![cfg(unix)]

mod program;

use std::fs;

use program::{NewLog, files, json_lines, on_both_engines, printed, run};
use serde_json::{Value, json};

on_both_engines!(
    info_tells_of_them,
    verify_tells_of_them,
    dump_shows_them_between_the_records,
    records_are_read_around_them,
);

const NOTE: &str = "DAMAGED  segment 0, before offset 1, position 22, 11 bytes that are none of any record; \
                    none is lost by them";

/// Four records, with eleven bytes before the second one.
fn log(engine: &str) -> NewLog {
    let log = NewLog::new(engine);
    log.append(&["--timestamp-ms", "0"], b"a\nb\nc\nd\n");
    let store = log.dir.join("0.store");
    let mut bytes = fs::read(&store).unwrap();
    bytes.splice(22..22, [0xff; 11]);
    fs::write(store, bytes).unwrap();
    log
}

fn damage() -> Value {
    json!([{
        "segment": 0,
        "first": 1,
        "last": 1,
        "position": 22,
        "bytes": 11,
        "reason": "length",
        "bytes_only": true,
    }])
}

/// What a verb prints, with one space where there are many, and its exit code; it changes nothing.
fn shown(log: &NewLog, verb: &str, args: &[&str]) -> (String, Option<i32>) {
    let before = files(&log.dir);
    let mut command = log.verb(verb, &[]);
    command.args(args);
    let output = run(command, b"");
    assert_eq!(output.stderr, b"");
    assert_eq!(files(&log.dir), before);
    let text = String::from_utf8(output.stdout).unwrap();
    (text, output.status.code())
}

/// Whether a line of it is the note, however many spaces are in it.
fn has_note(text: &str) -> bool {
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    text.lines().any(|line| words(line) == words(NOTE))
}

fn info_tells_of_them(engine: &str) {
    let log = log(engine);
    let (text, exit) = shown(&log, "info", &[]);
    assert!(has_note(&text) && text.contains("records    4\n"), "{text}");
    assert_eq!(exit, Some(0));
    let info = log.info();
    assert_eq!(info["records"], json!(4));
    assert_eq!(info["scanned"]["segments"][0]["damage"], damage());
}

fn verify_tells_of_them(engine: &str) {
    let log = log(engine);
    let (text, exit) = shown(&log, "verify", &[]);
    assert!(has_note(&text), "{text}");
    assert!(
        text.ends_with("damaged    0 records lost; 4 sound records in 1 segment, 105 bytes\n"),
        "{text}"
    );
    assert_eq!(exit, Some(1));
    let (text, exit) = shown(&log, "verify", &["--json"]);
    let report = &json_lines(text.as_bytes())[0];
    assert_eq!(
        (
            &report["sound"],
            &report["records"],
            &report["damaged_records"]
        ),
        (&json!(false), &json!(4), &json!(0))
    );
    assert_eq!(report["segments"][0]["damage"], damage());
    assert_eq!(exit, Some(1));
}

fn dump_shows_them_between_the_records(engine: &str) {
    let log = log(engine);
    for args in [&[][..], &["--segment", "0"]] {
        let (text, exit) = shown(&log, "dump", args);
        let lines: Vec<&str> = text.lines().collect();
        let at = lines.iter().position(|line| has_note(line)).expect(&text);
        assert!(
            lines[at - 1].ends_with("\"a\"") && lines[at + 1].ends_with("\"b\""),
            "{text}"
        );
        assert_eq!(text.matches("DAMAGED").count(), 1, "{text}");
        assert_eq!(exit, Some(1));
    }
    let (text, exit) = shown(&log, "dump", &["--json"]);
    let items = json_lines(text.as_bytes());
    let types: Vec<_> = items
        .iter()
        .map(|item| item["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        ["segment", "record", "damage", "record", "record", "record"]
    );
    let mut expected = damage()[0].take();
    expected["type"] = json!("damage");
    assert_eq!(items[2], expected);
    assert_eq!(items[3]["position"], json!(33));
    assert_eq!(exit, Some(1));
}

fn records_are_read_around_them(engine: &str) {
    let log = log(engine);
    assert_eq!(log.all(&[]), b"a\nb\nc\nd\n");
    assert_eq!(printed(log.verb("read", &[&"1"]), b""), b"b\n");
}
