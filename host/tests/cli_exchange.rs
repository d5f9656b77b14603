//! `proglog export` and `proglog import`: the same log comes out.
#![cfg(unix)]

mod program;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use proglog::{
    AppendOptions, Clock, Compaction, Durability, GapCause, Header, Log, NewRecord, Offset,
    Options, Record,
};
use program::{
    NewLog, Running, failed, flip_a_bit, json_lines, on_both_engines, printed, proglog, run, stderr,
};
use rustix::process::Signal;
use serde_json::json;
use tempfile::tempdir;

on_both_engines!(
    random_logs_come_out_the_same,
    a_line_has_all_of_a_record,
    what_the_book_wrote_comes_out_the_same,
    a_part_is_what_was_asked_for,
    damage_stops_an_export_or_is_marked,
    a_gap_is_refused_or_kept_but_never_closed,
    a_gap_at_either_end_is_kept_too,
    what_is_left_of_a_batch_is_told,
    an_import_goes_on_where_it_stopped,
    another_log_is_not_gone_on_with,
    bad_input_keeps_what_stands_before_it,
    large_records_need_to_be_allowed,
    an_import_that_was_killed_goes_on,
    ctrl_c_stops_an_import,
    files_are_not_written_over,
    nothing_makes_no_log,
    gaps_and_producers_come_out_the_same,
    an_import_of_gaps_goes_on,
    a_part_of_a_gap_is_exported,
    what_is_left_of_two_producers_batches_is_told_apart,
);

/// Numbers that look random, the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn one_of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let byte = |_| u8::try_from(self.below(256)).unwrap();
        (0..count).map(byte).collect()
    }
}

/// A log with records of every kind, and a lowest offset of some kind.
fn random_log(dir: &Path, seed: u64) {
    let mut numbers = Numbers(seed | 1);
    let first = numbers.one_of(&[0, 7, 1 << 40]);
    let options = Options::new()
        .initial_offset(first)
        .clock(Clock::NONE)
        .segment_bytes_max(numbers.one_of(&[200, 5_000, 1 << 20]));
    let log = Log::open(dir, options).unwrap();
    let mut now_ms = 0;
    for _ in 0..30 {
        let records = numbers.one_of(&[1, 1, 2, 7]);
        let mut batch = Vec::new();
        for _ in 0..records {
            let value_bytes = numbers.one_of(&[0, 1, 20, 20, 300, 70_000]);
            let key_bytes = numbers.one_of(&[0, 0, 8, 255]);
            let names = ["", "a", "a", "\u{0}\n\"\\ü"];
            let headers: Vec<Header> = (0..numbers.below(4))
                .map(|n| {
                    let bytes = numbers.below(30);
                    Header::new(names[n], numbers.bytes(bytes))
                })
                .collect();
            now_ms += numbers.one_of(&[0, 1_000_000_007]);
            let timestamp_ms = if numbers.below(3) == 0 { 0 } else { now_ms };
            batch.push((
                numbers.bytes(value_bytes),
                numbers.bytes(key_bytes),
                headers,
                timestamp_ms,
            ));
        }
        let batch = batch.iter().map(|(value, key, headers, timestamp_ms)| {
            NewRecord::new(value)
                .key(key)
                .headers(headers)
                .timestamp_ms(*timestamp_ms)
        });
        log.append_batch(batch).unwrap();
    }
    if numbers.below(2) == 0 {
        let middle = Offset((first + log.next_offset().0) / 2);
        log.truncate_before(middle).unwrap();
    }
    log.close().unwrap();
}

fn random_logs_come_out_the_same(engine: &str) {
    for seed in 1..=12 {
        let log = NewLog::new(engine);
        random_log(&log.dir, u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        for format in ["ndjson", "binary"] {
            let copy = log.path().join(format);
            let piped = exported(&log, &["--format", format]).stdout;
            let import = proglog(engine, "import", &[&copy, &"--format", &format]);
            printed(import, &piped);
            assert_eq!(frames(&copy), frames(&log.dir), "seed {seed}, {format}");
            printed(proglog(engine, "verify", &[&copy]), b"");
        }
    }
}

fn a_line_has_all_of_a_record(engine: &str) {
    let log = NewLog::new(engine);
    let described = ["--key", "k", "--header", "a=1", "--header", "a="];
    log.append(
        &[&described[..], &["--timestamp-ms", "7"]].concat(),
        b"x\ny",
    );
    log.append(&["--timestamp-ms", "0"], b"\n");
    let output = exported(&log, &[]);
    assert_eq!(stderr(&output), "exported 0..=2 (3 records)\n");
    let headers = json!([{ "name": "a", "value": "MQ==" }, { "name": "a", "value": "" }]);
    assert_eq!(
        json_lines(&output.stdout),
        [
            json!({
                "offset": 0, "timestamp_ms": 7, "key": "aw==", "value": "eA==", "headers": headers,
                "batch_remaining": 1,
            }),
            json!({
                "offset": 1, "timestamp_ms": 7, "key": "aw==", "value": "eQ==", "headers": headers,
                "batch_records": 2,
            }),
            json!({ "offset": 2, "value": "" }),
        ]
    );
    // What `read --json` prints can be imported too; it does not tell batches.
    let copy = log.path().join("copy");
    let printed_json = log.all(&["--json"]);
    printed(proglog(engine, "import", &[&copy]), &printed_json);
    let remaining: Vec<_> = records(&copy).iter().map(Record::batch_remaining).collect();
    assert_eq!(remaining, [0, 0, 0]);

    let binary = exported(&log, &["--format", "binary"]).stdout;
    assert_eq!(binary, fs::read(log.dir.join("0.store")).unwrap());
}

fn what_the_book_wrote_comes_out_the_same(engine: &str) {
    let log = NewLog::new(engine);
    fs::create_dir(&log.dir).unwrap();
    let store = b"\0\0\0\0\0\0\0\x0d\x0a\x0bhello world\0\0\0\0\0\0\0\x05\x0a\x01b\x10\x01\
        \0\0\0\0\0\0\0\x02\x10\x02\0\0\0\0\0\0\0\x05\x0a\x01x\x10\x03";
    fs::write(log.dir.join("0.store"), store).unwrap();
    for format in ["ndjson", "binary"] {
        let copy = log.path().join(format);
        let piped = exported(&log, &["--format", format]).stdout;
        printed(
            proglog(engine, "import", &[&copy, &"--format", &format]),
            &piped,
        );
        let values: Vec<_> = records(&copy)
            .iter()
            .map(|record| (record.value().to_vec(), record.timestamp_ms()))
            .collect();
        let written = [&b"hello world"[..], b"b", b"", b"x"];
        assert_eq!(values, written.map(|value| (value.to_vec(), None)));
    }
}

fn a_part_is_what_was_asked_for(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&["--initial-offset", "5"], b"a\nb\nc\n");
    log.append(&[], b"d");
    let offsets = |args: &[&str]| {
        let output = exported(&log, args);
        let lines = json_lines(&output.stdout);
        let offsets: Vec<_> = lines
            .iter()
            .map(|l| l["offset"].as_u64().unwrap())
            .collect();
        (offsets, stderr(&output))
    };
    assert_eq!(offsets(&["--to", "5"]).0, [5]);
    assert_eq!(offsets(&["--from", "8"]).0, [8]);
    let (found, told) = offsets(&["--from", "6", "--to", "6"]);
    assert_eq!(found, [6]);
    assert!(
        told.contains("record 6 is not the first of its batch"),
        "{told}"
    );
    assert!(told.contains("not the last of its batch"), "{told}");
    let (found, told) = offsets(&["--from", "9", "--json"]);
    let nothing = json!({ "first": null, "last": null, "records": 0, "absent": 0, "damaged": [] });
    assert_eq!(
        (found, json_lines(told.as_bytes())),
        (vec![], vec![nothing])
    );
    for args in [["--from", "4"], ["--from", "10"], ["--to", "9"]] {
        let mut export = log.verb("export", &[]);
        export.args(args);
        let (exit, error) = failed(export, b"");
        assert_eq!(exit, 3, "{error}");
        assert!(
            error.contains("is not in the log, which holds 5 to 8"),
            "{error}"
        );
    }
    let (exit, error) = failed(log.verb("export", &[&"--from", &"7", &"--to", &"6"]), b"");
    assert_eq!(
        (exit, error.contains("--to 6 is below 7")),
        (2, true),
        "{error}"
    );
}

/// A log of six records in two segments, of which 1, 2 and 4 are damaged.
fn damaged_log(engine: &str) -> NewLog {
    let log = NewLog::new(engine);
    for value in ["zero", "one1", "two2", "three", "four", "five"] {
        log.append(&["--segment-bytes-max", "150"], value.as_bytes());
    }
    let stores = ["0.store", "4.store", "5.store", "3.store"].map(|name| log.dir.join(name));
    for value in ["one1", "two2", "four"] {
        let store = stores.iter().find(|store| {
            fs::read(store).is_ok_and(|bytes| {
                bytes
                    .windows(value.len())
                    .any(|window| window == value.as_bytes())
            })
        });
        flip_a_bit(store.unwrap(), value.as_bytes());
    }
    log
}

fn damage_stops_an_export_or_is_marked(engine: &str) {
    let log = damaged_log(engine);
    for (format, json) in [("ndjson", "--json"), ("binary", "--json")] {
        let export = log.verb("export", &[&"--format", &format, &json]);
        let output = run(export, b"");
        assert_eq!(output.status.code(), Some(1));
        let error = &json_lines(&output.stderr)[0];
        assert_eq!(error["kind"], json!("corrupt"));
        let told = error["error"].as_str().unwrap();
        assert!(told.starts_with("record 1 is damaged"), "{told}");
        assert!(
            told.contains("what stands before 1 was exported; --skip-damaged leaves it out"),
            "{told}"
        );
        let first = exported(&log, &["--to", "0", "--format", format]).stdout;
        assert_eq!(output.stdout, first);
    }
    let output = run(log.verb("export", &[&"--skip-damaged", &"--json"]), b"");
    assert_eq!(output.status.code(), Some(0));
    let told = stderr(&output);
    let notes: Vec<_> = told.lines().collect();
    assert!(
        notes[0].starts_with("proglog: left out records 1..=2: its checksum"),
        "{told}"
    );
    assert!(
        notes[1].starts_with("proglog: left out record 4: its checksum"),
        "{told}"
    );
    let damaged = json!([{ "first": 1, "last": 2 }, { "first": 4, "last": 4 }]);
    let summary = json!({ "first": 0, "last": 5, "records": 3, "absent": 0, "damaged": damaged });
    assert_eq!(json_lines(notes[2].as_bytes()), [summary]);
    let lines = json_lines(&output.stdout);
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[1], json!({ "damaged": { "first": 1, "last": 2 } }));
    assert_eq!(lines[3], json!({ "damaged": { "first": 4, "last": 4 } }));
}

fn a_gap_is_refused_or_kept_but_never_closed(engine: &str) {
    let log = damaged_log(engine);
    for format in ["ndjson", "binary"] {
        let input = exported(&log, &["--format", format, "--skip-damaged"]).stdout;
        let copy = log.path().join(format);
        let import = |more: &str| {
            let mut import = proglog(engine, "import", &[&copy, &"--format", &format]);
            run(import.args(more.split_whitespace()).take(), &input)
        };
        let output = import("");
        assert_eq!(output.status.code(), Some(4));
        let told = stderr(&output);
        assert!(
            told.contains("2 of the input, after record 0, comes after records 1..=2"),
            "{told}"
        );
        assert!(
            told.contains("0..=0 were imported, and --resume goes on from 1"),
            "{told}"
        );
        assert_eq!(output.stdout, b"imported 0..=0 (1 record)\n");

        let output = import("--resume --keep-gaps");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(
            output.stdout,
            b"imported 3..=5 (2 records); 3 offsets not there; the log had 1 record\n"
        );
        let told = stderr(&output);
        assert!(
            told.contains("records 1..=2: not in the input, and left out of the log"),
            "{told}"
        );
        for (offset, value) in [("0", "zero"), ("3", "three"), ("5", "five")] {
            let read = printed(proglog(engine, "read", &[&copy, &offset]), b"");
            assert_eq!(read, format!("{value}\n").into_bytes());
        }
        for offset in ["1", "2", "4"] {
            let (exit, error) = failed(proglog(engine, "read", &[&copy, &offset]), b"");
            assert_eq!((exit, error.contains("was left out")), (3, true), "{error}");
        }
        let verify = run(proglog(engine, "verify", &[&copy, &"--json"]), b"");
        assert_eq!(verify.status.code(), Some(0));
        let verdict = &json_lines(&verify.stdout)[0];
        assert_eq!(verdict["sound"], json!(true));
        assert_eq!(verdict["records"], json!(3));
        let skipped = verdict["segments"].as_array().unwrap().iter();
        let skipped = skipped.map(|segment| segment["gaps"]["skipped"].as_u64().unwrap());
        assert_eq!(skipped.sum::<u64>(), 3);
        let told = printed(proglog(engine, "verify", &[&copy]), b"");
        let told = String::from_utf8(told).unwrap();
        assert!(told.contains("3 offsets left out"), "{told}");
        // They are stepped over, and counted for nothing.
        let read = printed(
            proglog(engine, "read", &[&copy, &"1", &"--count", &"2"]),
            b"",
        );
        assert_eq!(read, b"three\nfive\n");
        let tail = printed(proglog(engine, "tail", &[&copy, &"-n", &"3"]), b"");
        assert_eq!(tail, b"zero\nthree\nfive\n");
        let dumped = json_lines(&printed(proglog(engine, "dump", &[&copy, &"--json"]), b""));
        let types: Vec<_> = dumped
            .iter()
            .map(|line| line["type"].as_str().unwrap())
            .collect();
        let expected = [
            "segment", "record", "gap", "segment", "record", "gap", "segment", "record",
        ];
        assert_eq!(types, expected, "{dumped:?}");
        assert_eq!(dumped[2]["first"], json!(1));
        assert_eq!(dumped[2]["last"], json!(2));
        assert_eq!(dumped[2]["cause"], json!("skipped"));
        // The copy of the copy leaves them out as well.
        let again = exported_from(engine, &copy, &[]).stdout;
        assert_eq!(json_lines(&again).len(), 5);
        // Appends go on after it, and the same import finds nothing left to do.
        assert_eq!(
            import("--resume --keep-gaps").stdout,
            b"imported nothing; the log had 3 records\n"
        );
        let appended = printed(proglog(engine, "append", &[&copy]), b"six");
        assert_eq!(appended, b"appended 6..=6 (1 record)\n");
    }
}

fn a_gap_at_either_end_is_kept_too(engine: &str) {
    let log = NewLog::new(engine);
    for value in ["zero", "one1", "two2"] {
        log.append(&[], value.as_bytes());
    }
    flip_a_bit(&log.dir.join("0.store"), b"zero");
    flip_a_bit(&log.dir.join("0.store"), b"two2");
    let input = exported(&log, &["--skip-damaged"]).stdout;
    assert_eq!(json_lines(&input).len(), 3);
    let copy = log.path().join("copy");
    let (exit, told) = failed(proglog(engine, "import", &[&copy]), &input);
    assert_eq!(
        (exit, told.contains("nothing was imported")),
        (4, true),
        "{told}"
    );
    let import = proglog(engine, "import", &[&copy, &"--keep-gaps", &"--resume"]);
    assert_eq!(
        run(import, &input).stdout,
        b"imported 1..=1 (1 record); 2 offsets not there\n"
    );
    let info = json_lines(&printed(proglog(engine, "info", &[&copy, &"--json"]), b"")).remove(0);
    assert_eq!(info["lowest_offset"], json!(0));
    assert_eq!(info["next_offset"], json!(3));
    for offset in ["0", "2"] {
        assert_eq!(failed(proglog(engine, "read", &[&copy, &offset]), b"").0, 3);
    }
    // What is left out is no damage that would have to be told again.
    let again = exported_from(engine, &copy, &[]).stdout;
    let gap = |first, last| json!({ "gap": { "first": first, "last": last, "cause": "skipped" } });
    let lines = json_lines(&again);
    assert_eq!(lines.len(), 3);
    assert_eq!((&lines[0], &lines[2]), (&gap(0, 0), &gap(2, 2)));
}

fn what_is_left_of_a_batch_is_told(engine: &str) {
    let log = NewLog::new(engine);
    let writer = Log::open(&log.dir, Options::new()).unwrap();
    writer.append_batch(["a", "b", "c"]).unwrap();
    writer.truncate_after(Offset(1)).unwrap();
    writer.append("lone").unwrap();
    writer.append_batch(["d", "e"]).unwrap();
    writer.close().unwrap();
    for format in ["ndjson", "binary"] {
        let copy = log.path().join(format);
        let input = exported(&log, &["--format", format]).stdout;
        let output = run(
            proglog(engine, "import", &[&copy, &"--format", &format]),
            &input,
        );
        assert_eq!(output.status.code(), Some(0));
        let told = stderr(&output);
        assert_eq!(
            told,
            "proglog: records 0..=1: the input has only a part of this batch, which is a batch of its own now\n"
        );
        let batches: Vec<_> = records(&copy)
            .iter()
            .map(|record| (record.batch_remaining(), record.batch_records()))
            .collect();
        assert_eq!(batches, [(1, 0), (0, 2), (0, 0), (1, 0), (0, 2)]);

        // An input that ends within a batch may have been cut.
        let input = exported(&log, &["--format", format, "--to", "3"]).stdout;
        let cut = log.path().join(format!("cut-{format}"));
        let import = |more: &str| {
            let mut import = proglog(engine, "import", &[&cut, &"--format", &format]);
            run(import.args(more.split_whitespace()).take(), &input)
        };
        let output = import("");
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{told}");
        assert!(
            told.contains("the input ends within a batch, 1 of which are to follow record 3"),
            "{told}"
        );
        assert!(
            told.contains("0..=2 were imported, and --resume goes on from 3"),
            "{told}"
        );
        let output = import("--resume --cut-batch");
        assert_eq!(
            output.stdout,
            b"imported 3..=3 (1 record); the log had 3 records\n"
        );
        assert_eq!(records(&cut)[3].batch_remaining(), 0);
    }
}

fn an_import_goes_on_where_it_stopped(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], b"a\nb\n");
    log.append(&[], b"c\nd\n");
    let input = exported(&log, &[]).stdout;
    let lines: Vec<_> = input.split_inclusive(|&byte| byte == b'\n').collect();
    let copy = log.path().join("copy");
    let import = |more: &str, input: &[u8]| {
        let mut import = proglog(engine, "import", &[&copy]);
        run(import.args(more.split_whitespace()).take(), input)
    };
    assert_eq!(import("", &lines[..2].concat()).status.code(), Some(0));
    // Only when told to, and only what fits.
    let output = import("", &lines[2..].concat());
    assert_eq!(output.status.code(), Some(4));
    assert!(
        stderr(&output).contains("there is a log in"),
        "{}",
        stderr(&output)
    );
    let output = import("--append", &lines[3..].concat());
    assert_eq!(output.status.code(), Some(4));
    assert!(
        stderr(&output).contains("the input begins at 3, and the next record"),
        "{}",
        stderr(&output)
    );
    let output = import("--append", &input);
    assert!(
        stderr(&output).contains("--resume to pass over"),
        "{}",
        stderr(&output)
    );
    let output = import("--append", &lines[2..].concat());
    assert_eq!(output.stdout, b"imported 2..=3 (2 records)\n");
    assert_eq!(frames(&copy), frames(&log.dir));
    log.append(&[], b"e");
    let output = import("--resume --json", &exported(&log, &[]).stdout);
    let summary = json!({ "first": 4, "last": 4, "records": 1, "absent": 0, "passed_over": 4, "not_compared": 0 });
    assert_eq!(json_lines(&output.stdout), [summary]);
    assert_eq!(frames(&copy), frames(&log.dir));
}

fn another_log_is_not_gone_on_with(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], b"a\nb");
    let other = NewLog::new(engine);
    other.append(&[], b"a\nB\nc\n");
    let input = exported(&other, &[]).stdout;
    let before = frames(&log.dir);
    // By its value, or by when it was appended.
    let (exit, error) = failed(log.verb("import", &[&"--resume"]), &input);
    assert_eq!(exit, 4);
    assert!(
        error.contains("is not what the log has: record 0 has another timestamp_ms in the log"),
        "{error}"
    );
    assert_eq!(frames(&log.dir), before);
}

fn bad_input_keeps_what_stands_before_it(engine: &str) {
    let good = concat!(
        r#"{"offset":0,"value":"YQ==","timestamp_ms":9}"#,
        "\n\n",
        r#"{"offset":1,"value":"Yg=="}"#,
        "\n",
    );
    for (bad, what) in [
        ("x", "is no record to import: expected value, at column 1"),
        (
            r#"{"offset":2,"value":"!"}"#,
            "is no record to import: not standard base64",
        ),
        (
            r#"{"offset":2,"valu":""}"#,
            "is no record to import: unknown field `valu`",
        ),
        (
            r#"{"offset":1,"value":""}"#,
            "its offset is 1, which is not above 1",
        ),
        (
            r#"{"offset":0,"value":""}"#,
            "its offset is 0, which is not above 1",
        ),
        (
            r#"{"offset":9,"value":""}"#,
            "comes after records 2..=8, which the input does not have",
        ),
        (
            r#"{"offset":18446744073709551615,"value":""}"#,
            "no record can have the offset",
        ),
        (
            r#"{"offset":2,"value":"","timestamp_ms":8}"#,
            "its timestamp_ms is 8, and 9 that of a record before",
        ),
        (
            r#"{"damaged":{"first":1,"last":2}}"#,
            "its offset is 1, which is not above 1",
        ),
        (
            r#"{"damaged":{"first":2,"last":2}}"#,
            "comes after record 2, which",
        ),
        ("\0\0\0", "is no record to import"),
    ] {
        let log = NewLog::new(engine);
        let after = r#"{"offset":2,"value":""}"#;
        let input = format!("{good}{bad}\n{after}\n");
        let output = run(log.verb("import", &[&"--json"]), input.as_bytes());
        assert_eq!(output.status.code(), Some(4), "{bad}");
        let told = json_lines(&output.stderr)[0]["error"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            told.starts_with("line 4 of the input, after record 1, "),
            "{told}"
        );
        assert!(told.contains(what), "{told}");
        assert!(
            told.ends_with("0..=1 were imported, and --resume goes on from 2"),
            "{told}"
        );
        let summary = json!({
            "first": 0, "last": 1, "records": 2, "absent": 0, "passed_over": 0, "not_compared": 0,
        });
        assert_eq!(json_lines(&output.stdout), [summary]);
        assert_eq!(log.all(&[]), b"a\nb\n");

        // Mended, it goes on.
        let output = run(
            log.verb("import", &[&"--resume"]),
            format!("{good}{after}").as_bytes(),
        );
        assert_eq!(
            output.stdout,
            b"imported 2..=2 (1 record); the log had 2 records\n"
        );
    }

    let log = NewLog::new(engine);
    log.append(&[], b"a\nb\nc\n");
    let mut frames = exported(&log, &["--format", "binary"]).stdout;
    let end = frames.len();
    frames[end - 3] ^= 4;
    let copy = log.path().join("copy");
    let binary = proglog(engine, "import", &[&copy, &"--format", &"binary"]);
    let (exit, told) = failed(binary, &frames);
    assert_eq!(exit, 4);
    assert!(
        told.contains("frame 3 of the input, after record 1, is no record to import: its checksum"),
        "{told}"
    );
    // Of its batch not all was there.
    assert!(told.contains("nothing was imported"), "{told}");
}

fn large_records_need_to_be_allowed(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], b"small");
    log.append(&[], &[b'x'; 5000]);
    for format in ["ndjson", "binary"] {
        let input = exported(&log, &["--format", format]).stdout;
        let copy = log.path().join(format);
        let import = |more: &[&str]| {
            let mut import = proglog(engine, "import", &[&copy, &"--format", &format]);
            run(import.args(more).take(), &input)
        };
        let output = import(&["--record-bytes-max", "1K"]);
        let told = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{told}");
        assert!(told.contains("--record-bytes-max"), "{told}");
        assert!(told.contains("--resume goes on from 1"), "{told}");
        assert_eq!(import(&["--resume"]).status.code(), Some(0));
        assert_eq!(frames(&copy), frames(&log.dir));
        // Without an end in sight it is given up early.
        let endless = log.path().join(format!("endless-{format}"));
        let mut import = proglog(
            engine,
            "import",
            &[
                &endless,
                &"--format",
                &format,
                &"--record-bytes-max",
                &"64K",
            ],
        );
        let mut child = import.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let block = [0x20; 1 << 16];
        let written = (0..1 << 14)
            .take_while(|_| stdin.write_all(&block).is_ok())
            .count();
        let output = child.wait_with_output().unwrap();
        assert!(written < 200, "{written}");
        assert_eq!(output.status.code(), Some(4));
        assert!(
            stderr(&output).contains("is too large"),
            "{}",
            stderr(&output)
        );
        assert!(!endless.exists());
    }
}

fn an_import_that_was_killed_goes_on(engine: &str) {
    let log = NewLog::new(engine);
    let writer = Log::open(&log.dir, Options::new().segment_bytes_max(20_000)).unwrap();
    for number in 0..400 {
        let value = vec![u8::try_from(number % 256).unwrap(); 500];
        writer.append_batch(vec![&value; number % 3 + 1]).unwrap();
    }
    writer.close().unwrap();
    let input = exported(&log, &[]).stdout;
    let copy = log.path().join("copy");
    for kill_at in [1, 100_000, 200_000, 400_000] {
        let mut import = Running::start(proglog(
            engine,
            "import",
            &[&copy, &"--resume", &"--segment-bytes-max", &"20000"],
        ));
        import.write(&input[..kill_at.min(input.len())]);
        import.signal(Signal::KILL);
        import.end();
    }
    let import = proglog(
        engine,
        "import",
        &[&copy, &"--resume", &"--segment-bytes-max", &"20000"],
    );
    let output = run(import, &input);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(frames(&copy), frames(&log.dir));
}

fn ctrl_c_stops_an_import(engine: &str) {
    let log = NewLog::new(engine);
    let mut import = Running::start(log.verb("import", &[]));
    let lines =
        "{\"offset\":3,\"value\":\"\"}\n{\"offset\":4,\"value\":\"\",\"batch_remaining\":1}\n";
    import.write(lines.as_bytes());
    // What came is synced when the input pauses, so that it can be waited for.
    while !fs::metadata(log.dir.join("3.store")).is_ok_and(|found| found.len() > 0) {
        std::thread::yield_now();
    }
    import.signal(Signal::INT);
    let (exit, out, err) = import.end();
    assert_eq!(
        (exit, &*out, &*err),
        (Some(130), "imported 3..=3 (1 record)\n", "")
    );
    assert_eq!(records(&log.dir).len(), 1);
}

fn files_are_not_written_over(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], b"a");
    let file = log.path().join("file");
    assert_eq!(
        printed(log.verb("export", &[&file]), b""),
        b"exported 0..=0 (1 record)\n"
    );
    assert_eq!(fs::read(&file).unwrap(), exported(&log, &[]).stdout);
    let (exit, told) = failed(log.verb("export", &[&file]), b"");
    assert_eq!(
        (exit, told.contains("is there already; give a name")),
        (4, true),
        "{told}"
    );
    let copy = log.path().join("copy");
    assert_eq!(
        printed(proglog(engine, "import", &[&copy, &file]), b""),
        b"imported 0..=0 (1 record)\n"
    );
}

fn nothing_makes_no_log(engine: &str) {
    let log = NewLog::new(engine);
    for input in [&b""[..], b"\n \n"] {
        assert_eq!(
            printed(log.verb("import", &[]), input),
            b"imported nothing\n"
        );
        assert!(!log.dir.exists());
    }
    let (exit, told) = failed(log.verb("import", &[]), b"{");
    assert_eq!(exit, 4, "{told}");
    assert!(!log.dir.exists());
}

/// Of logs larger than a process may have memory: `ulimit -v` would stop one that held them.
#[test]
fn memory_does_not_grow_with_the_log() {
    let root = tempdir().unwrap();
    let (dir, copy) = (root.path().join("log"), root.path().join("copy"));
    let log = Log::open(&dir, Options::new().segment_bytes_max(4 << 20)).unwrap();
    let value = vec![b'x'; 100_000];
    for _ in 0..100 {
        log.append_batch(vec![&value; 10]).unwrap();
    }
    log.close().unwrap();
    let peak = |output: &Output| -> u64 {
        let text = stderr(output);
        let line = text.lines().find(|line| line.contains("peak")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    // The shell says how much memory its child had at the most.
    let program = env!("CARGO_BIN_EXE_proglog");
    let script = format!(
        "'{program}' export --engine native '{}' | python3 -c '
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(\"peak\", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)' '{program}' import --engine native '{}'",
        dir.display(),
        copy.display()
    );
    if Command::new("python3")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_err()
    {
        return;
    }
    let mut shell = Command::new("sh");
    let output = shell.args(["-c", &script]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(frames(&copy), frames(&dir));
    // 100 MB of records; mapped files count, and one is open at the end.
    assert!(peak(&output) < 90_000, "{} KiB", peak(&output));
}

fn exported(log: &NewLog, args: &[&str]) -> Output {
    exported_from(log.engine(), &log.dir, args)
}

fn exported_from(engine: &str, dir: &Path, args: &[&str]) -> Output {
    let mut export = proglog(engine, "export", &[&PathBuf::from(dir)]);
    export.args(args);
    let output = run(export, b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    output
}

fn records(dir: &Path) -> Vec<Record> {
    let log = Log::open_read_only(dir, Options::new()).unwrap();
    log.scan(..).map(Result::unwrap).collect()
}

/// The bytes of each record, checksum and all.
fn frames(dir: &Path) -> Vec<Vec<u8>> {
    let records = records(dir);
    records
        .iter()
        .map(|record| record.frame().to_vec())
        .collect()
}

trait Take {
    fn take(&mut self) -> Command;
}

impl Take for Command {
    /// The command that was put together.
    fn take(&mut self) -> Command {
        std::mem::replace(self, Command::new(""))
    }
}

/// A log with records of every kind, and offsets that are not there for every cause.
fn log_with_gaps(dir: &Path) {
    let options = Options::new()
        .clock(Clock::NONE)
        .segment_bytes_max(300)
        .durability(Durability::Buffered);
    let log = Log::open(dir, options).unwrap();
    log.skip_to_because(Offset(1 << 40), GapCause::Lost)
        .unwrap();
    let headers = [Header::new("a", b"\xff\0"), Header::new("", "")];
    for n in 0..12 {
        let key = format!("key {}", n % 3);
        let record = NewRecord::new(b"\0\xff\n").timestamp_ms(n + 1);
        log.append(record.producer("\0one", n * 2)).unwrap();
        let batch = [
            NewRecord::new("first").key(&key).headers(&headers),
            NewRecord::new("second"),
            NewRecord::new("third").key("always the same"),
        ];
        let batch = (0..)
            .zip(batch)
            .map(|(at, record)| record.producer("two", n * 3 + at));
        log.append_batch(batch).unwrap();
        match n {
            4 => log.skip_to(log.next_offset().plus(3)).unwrap(),
            // Next to each other, for two causes.
            7 => {
                log.skip_to(log.next_offset().plus(2)).unwrap();
                let next = log.next_offset().plus(5);
                log.skip_to_because(next, GapCause::Lost).unwrap();
            }
            _ => {}
        }
    }
    // Again, after it was forgotten.
    let again = NewRecord::new("again").producer("two", 1);
    let copied = AppendOptions::new().copied();
    log.append_with(again, copied).unwrap();
    let compacted = log.compact(&Compaction::new()).unwrap();
    assert!(compacted.records_removed > 10 && compacted.left_alone.is_empty());
    log.skip_to(log.next_offset().plus(1000)).unwrap();
    log.close().unwrap();
}

/// What a log has, but for how far its batches go; of offsets that are not there for the same cause the first.
fn held(dir: &Path) -> Vec<(Offset, String)> {
    let log = Log::open_read_only(dir, Options::new()).unwrap();
    let mut held: Vec<(Offset, String)> = Vec::new();
    let mut at = log.lowest_offset();
    while at < log.next_offset() {
        let (what, next) = match log.locate(at).unwrap().gap {
            Some(gap) => (format!("{:?}", gap.cause), gap.next()),
            None => (format!("{:?}", log.read(at).unwrap()), at.next()),
        };
        if held.last().is_none_or(|(_, before)| *before != what) {
            held.push((at, what));
        }
        at = next;
    }
    held.push((at, "the next".to_owned()));
    held
}

fn gaps_and_producers_come_out_the_same(engine: &str) {
    let log = NewLog::new(engine);
    log_with_gaps(&log.dir);
    let expected = held(&log.dir);
    for cause in ["Lost", "Skipped", "Compacted"] {
        assert!(expected.iter().any(|(_, what)| what == cause), "{cause}");
    }
    let gaps_of = |dir: &Path| {
        let log = Log::open_read_only(dir, Options::new()).unwrap();
        let report = log.verify().unwrap();
        assert!(report.is_sound(), "{report:?}");
        let gaps = report.gaps();
        (gaps.compacted, gaps.lost, gaps.skipped)
    };
    for format in ["ndjson", "binary"] {
        let copy = log.path().join(format);
        let output = exported(&log, &["--format", format]);
        assert!(
            stderr(&output).contains(" offsets not there)"),
            "{}",
            stderr(&output)
        );
        let import = proglog(engine, "import", &[&copy, &"--format", &format]);
        let told = printed(import, &output.stdout);
        assert!(
            String::from_utf8(told)
                .unwrap()
                .contains(" offsets not there")
        );
        assert_eq!(held(&copy), expected, "{format}");
        assert_eq!(gaps_of(&copy), gaps_of(&log.dir), "{format}");
        assert_eq!(
            run(proglog(engine, "verify", &[&copy]), b"").status.code(),
            Some(0)
        );
        let again = exported_from(engine, &copy, &["--format", format]).stdout;
        let copy_of_copy = log.path().join("again");
        let other = if engine == "wasm" { "native" } else { "wasm" };
        printed(
            proglog(other, "import", &[&copy_of_copy, &"--format", &format]),
            &again,
        );
        assert_eq!(held(&copy_of_copy), expected, "{format}");
        fs::remove_dir_all(copy_of_copy).unwrap();

        // One form of JSON for all.
        if format == "ndjson" {
            for line in json_lines(&output.stdout) {
                if line["producer"].is_null() {
                    continue;
                }
                let mut line = line;
                let fields = line.as_object_mut().unwrap();
                fields.retain(|name, _| !name.starts_with("batch_"));
                let offset = fields["offset"].to_string();
                let read = log.verb("read", &[&offset, &"--json"]);
                assert_eq!(json_lines(&printed(read, b"")), [line]);
                break;
            }
        }
        // What a producer appends again is known in the copy too.
        let copied = Log::open(&copy, Options::new()).unwrap();
        let source = Log::open(&log.dir, Options::new()).unwrap();
        for id in ["\0one", "two"] {
            let last = source.producer_last(id).unwrap();
            assert!(last.is_some());
            assert_eq!(copied.producer_last(id).unwrap(), last);
        }
    }
}

/// Wherever it stopped.
fn an_import_of_gaps_goes_on(engine: &str) {
    let log = NewLog::new(engine);
    log_with_gaps(&log.dir);
    let expected = held(&log.dir);
    let input = exported(&log, &[]).stdout;
    let lines: Vec<_> = input.split_inclusive(|&byte| byte == b'\n').collect();
    for stop in (0..=lines.len()).step_by(7) {
        let copy = log.path().join(stop.to_string());
        let import = |more: &[&str], input: &[u8]| {
            let mut import = proglog(engine, "import", &[&copy]);
            let output = run(import.args(more).take(), input);
            assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        };
        import(&["--cut-batch"], &lines[..stop].concat());
        import(&["--resume", "--cut-batch"], &input);
        import(&["--resume", "--cut-batch"], &input);
        assert_eq!(held(&copy), expected, "{stop}");
    }
    // A record that another log leaves out is none of this one.
    let copy = log.path().join("other");
    let gap = br#"{"gap":{"first":0,"last":0,"cause":"skipped"}}"#;
    printed(proglog(engine, "import", &[&copy]), gap);
    let record = br#"{"offset":0,"value":""}"#;
    let (exit, error) = failed(proglog(engine, "import", &[&copy, &"--resume"]), record);
    assert_eq!(
        (exit, error.contains("record 0 was left out in the log")),
        (4, true),
        "{error}"
    );
}

fn a_part_of_a_gap_is_exported(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], b"zero");
    let writer = Log::open(&log.dir, Options::new()).unwrap();
    writer
        .skip_to_because(Offset(5), GapCause::Compacted)
        .unwrap();
    writer.append("damaged").unwrap();
    writer.append("six").unwrap();
    writer.close().unwrap();
    flip_a_bit(&log.dir.join("5.store"), b"damaged");
    let gap =
        |first, last| json!({ "gap": { "first": first, "last": last, "cause": "compacted" } });
    let output = exported(&log, &["--from", "2", "--to", "3"]);
    assert_eq!(json_lines(&output.stdout), [gap(2, 3)]);
    assert_eq!(
        stderr(&output),
        "exported 2..=3 (0 records; 2 offsets not there)\n"
    );
    let output = run(log.verb("export", &[&"--from", &"4"]), b"");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json_lines(&output.stdout), [gap(4, 4)]);
    let lines = json_lines(&exported(&log, &["--skip-damaged"]).stdout);
    assert_eq!(lines[1], gap(1, 4));
    assert_eq!(lines[2], json!({ "damaged": { "first": 5, "last": 5 } }));
    assert_eq!(lines.len(), 4);
}

fn what_is_left_of_two_producers_batches_is_told_apart(engine: &str) {
    let log = NewLog::new(engine);
    let writer = Log::open(&log.dir, Options::new()).unwrap();
    let batch = |id: &'static str, records: u64| {
        (0..records).map(move |n| NewRecord::new("value").producer(id, n))
    };
    writer.append_batch(batch("a", 3)).unwrap();
    writer.truncate_after(Offset(0)).unwrap();
    // It could go on with what is left of the other, by its number of records.
    writer.append_batch(batch("b", 2)).unwrap();
    writer.close().unwrap();
    let copy = log.path().join("copy");
    let output = run(
        proglog(engine, "import", &[&copy]),
        &exported(&log, &[]).stdout,
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(held(&copy), held(&log.dir));
    let batches: Vec<_> = records(&copy).iter().map(Record::batch_records).collect();
    assert_eq!(batches, [0, 0, 2]);
}
