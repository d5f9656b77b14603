//! `proglog truncate` removes what it says, and says what it removes.
#![cfg(unix)]

mod program;

use proglog::{Log, Offset, Options};
use program::{NewLog, Running, failed, files, json_lines, on_both_engines, printed};
use serde_json::{Value, json};

on_both_engines!(
    whole_segments_go_from_the_beginning,
    any_records_go_from_the_end,
    a_dry_run_tells_the_same_and_writes_nothing,
    it_needs_the_log_to_itself_and_a_dry_run_does_not,
    what_is_not_there_cannot_be_removed,
);

/// Records 5 to 13, three in each segment.
fn log(engine: &str) -> NewLog {
    let log = NewLog::new(engine);
    for value in 5..14 {
        let args = ["--initial-offset", "5", "--segment-bytes-max", "96"];
        log.append(&args, format!("{value:03}").as_bytes());
    }
    assert_eq!(log.info()["segments"].as_array().unwrap().len(), 3);
    log
}

fn truncate(log: &NewLog, args: &[&str]) -> Value {
    let mut truncate = log.verb("truncate", &[&"--json"]);
    truncate.args(args);
    json_lines(&printed(truncate, b"")).remove(0)
}

fn values(log: &NewLog) -> Vec<u64> {
    let all = String::from_utf8(printed(log.verb("tail", &[&"-n", &"99"]), b"")).unwrap();
    all.lines().map(|line| line.parse().unwrap()).collect()
}

fn whole_segments_go_from_the_beginning(engine: &str) {
    for (before, left, removed, segments) in [
        (0, 5..14, json!(null), 0),
        (7, 5..14, json!(null), 0),
        (8, 8..14, json!({ "first": 5, "last": 7 }), 1),
        (10, 8..14, json!({ "first": 5, "last": 7 }), 1),
        (13, 11..14, json!({ "first": 5, "last": 10 }), 2),
        (14, 14..14, json!({ "first": 5, "last": 13 }), 3),
    ] {
        let log = log(engine);
        let told = truncate(&log, &["--before", &before.to_string()]);
        assert_eq!(
            told,
            json!({
                "removed": removed, "segments": segments, "lowest_offset": left.start,
                "next_offset": 14, "dry_run": false,
            })
        );
        assert_eq!(values(&log), Vec::from_iter(left));
        assert_eq!(log.append(&[], b"014"), "appended 14..=14 (1 record)\n");
    }
}

fn any_records_go_from_the_end(engine: &str) {
    for (after, left, removed, segments) in [
        (4, 5..5, json!({ "first": 5, "last": 13 }), 3),
        (5, 5..6, json!({ "first": 6, "last": 13 }), 2),
        (7, 5..8, json!({ "first": 8, "last": 13 }), 2),
        (11, 5..12, json!({ "first": 12, "last": 13 }), 0),
        (13, 5..14, json!(null), 0),
        (u64::MAX, 5..14, json!(null), 0),
    ] {
        let log = log(engine);
        let told = truncate(&log, &["--after", &after.to_string()]);
        assert_eq!(
            told,
            json!({
                "removed": removed, "segments": segments, "lowest_offset": 5,
                "next_offset": left.end, "dry_run": false,
            })
        );
        let next = left.end;
        assert_eq!(values(&log), Vec::from_iter(left));
        let appended = log.append(&[], b"999");
        assert_eq!(appended, format!("appended {next}..={next} (1 record)\n"));
    }
    let log = log(engine);
    let told = printed(log.verb("truncate", &[&"--after", &"7"]), b"");
    let told = String::from_utf8(told).unwrap();
    assert_eq!(
        told,
        "removed 8..=13 (6 records, 2 whole segments)\nleft: 5..=7\n"
    );
    let told = printed(log.verb("truncate", &[&"--before", &"8"]), b"");
    let told = String::from_utf8(told).unwrap();
    assert_eq!(
        told,
        "removed 5..=7 (3 records, 1 whole segment)\nleft: none; the next record will be 8\n"
    );
}

fn a_dry_run_tells_the_same_and_writes_nothing(engine: &str) {
    for what in ["--before", "--after"] {
        for offset in 4..=14 {
            let log = log(engine);
            let before = files(&log.dir);
            let offset = offset.to_string();
            let mut told = truncate(&log, &[what, &offset, "--dry-run"]);
            assert_eq!(files(&log.dir), before, "{what} {offset}");
            told["dry_run"] = json!(false);
            assert_eq!(told, truncate(&log, &[what, &offset]), "{what} {offset}");
        }
    }
}

fn it_needs_the_log_to_itself_and_a_dry_run_does_not(engine: &str) {
    let log = log(engine);
    let mut writer = Running::start(log.verb("append", &[&"--acks"]));
    writer.write(b"014\n");
    assert_eq!(writer.line(), "14\n");
    let (exit, error) = failed(log.verb("truncate", &[&"--after", &"7"]), b"");
    assert_eq!(
        (exit, error.contains("is in use by another writer")),
        (5, true),
        "{error}"
    );
    let told = truncate(&log, &["--after", "7", "--dry-run"]);
    assert_eq!(told["next_offset"], json!(8));
    assert_eq!(values(&log).len(), 10);
}

fn what_is_not_there_cannot_be_removed(engine: &str) {
    let log = log(engine);
    for args in [["--before", "15"], ["--after", "3"]] {
        for more in [&[][..], &["--dry-run"]] {
            let mut truncate = log.verb("truncate", &[]);
            truncate.args(args).args(more);
            let (exit, error) = failed(truncate, b"");
            assert_eq!(exit, 3, "{error}");
            assert!(
                error.contains("is not in the log, which holds 5 to 13"),
                "{error}"
            );
        }
    }
    assert_eq!(values(&log).len(), 9);
    let held = Log::open_read_only(&log.dir, Options::new()).unwrap();
    assert_eq!(held.lowest_offset(), Offset(5));
}
