//! `proglog export` and `proglog import` of logs with offsets that are not there.
#![cfg(unix)]

mod exchange;
mod program;

use std::{fs, path::Path};

use exchange::{Take, damaged_log, exported, exported_from, records};
use proglog::{
    AppendOptions, Clock, Compaction, Durability, GapCause, Header, Log, NewRecord, Offset,
    Options, Record,
};
use program::{
    NewLog, failed, flip_a_bit, json_lines, on_both_engines, printed, proglog, run, stderr,
};
use serde_json::json;

on_both_engines!(
    a_gap_is_refused_or_kept_but_never_closed,
    a_gap_at_either_end_is_kept_too,
    what_is_left_of_a_batch_is_told,
    gaps_and_producers_come_out_the_same,
    an_import_of_gaps_goes_on,
    a_part_of_a_gap_is_exported,
    what_is_left_of_two_producers_batches_is_told_apart,
);

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
        let expected = ["segment", "record", "gap", "record", "gap", "record"];
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
    flip_a_bit(&log.dir.join("0.store"), b"damaged");
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
