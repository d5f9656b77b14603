//! `proglog export` and `proglog import`: the same log comes out.
#![cfg(unix)]

mod exchange;
mod program;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use exchange::{damaged_log, exported, frames, records};
use proglog::{Clock, Header, Log, NewRecord, Offset, Options, Record};
use program::{NewLog, failed, json_lines, on_both_engines, printed, proglog, run, stderr};
use serde_json::json;
use tempfile::tempdir;

on_both_engines!(
    random_logs_come_out_the_same,
    a_line_has_all_of_a_record,
    what_the_book_wrote_comes_out_the_same,
    a_part_is_what_was_asked_for,
    damage_stops_an_export_or_is_marked,
    files_are_not_written_over,
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
