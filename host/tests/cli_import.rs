//! `proglog import --resume` goes on with what the log is of and with nothing else, and an import that fails leaves
//! nothing behind that was not there.
#![cfg(unix)]

mod program;

use std::{fs, path::Path};

use proglog::{Clock, Compaction, GapCause, Header, Log, NewRecord, Offset, Options};
use program::{NewLog, files, json_lines, on_both_engines, proglog, run, stderr};
use serde_json::{Value, json};

on_both_engines!(
    whatever_differs_from_the_log_is_refused,
    what_the_log_does_not_say_otherwise_is_passed_over,
    what_lies_below_the_log_is_told,
    records_that_the_input_leaves_out_are_told,
    batches_are_compared,
    a_failed_import_leaves_no_log_behind,
    a_producer_without_an_id_is_refused,
    offsets_beyond_the_wasm_engines_are_told,
);

/// A log of records, a batch, and offsets that are not there: 4 and 5 were left out, 7 and 8 lost.
fn source(dir: &Path) {
    let options = Options::new().clock(Clock::NONE).segment_bytes_max(120);
    let log = Log::open(dir, options).unwrap();
    let headers = [Header::new("a", "1"), Header::new("b", "2")];
    log.append(NewRecord::new("zero").key("k").timestamp_ms(5))
        .unwrap();
    let batch = (1..=3).map(|n| {
        NewRecord::new("of a batch")
            .headers(&headers)
            .timestamp_ms(6)
            .producer("p", n)
    });
    log.append_batch(batch).unwrap();
    log.skip_to(Offset(6)).unwrap();
    log.append(NewRecord::new("six").key("k")).unwrap();
    log.skip_to_because(Offset(9), GapCause::Lost).unwrap();
    for value in ["nine", "ten"] {
        log.append(value).unwrap();
    }
    log.close().unwrap();
}

fn exported(engine: &str, dir: &Path) -> Vec<Value> {
    let output = run(proglog(engine, "export", &[&dir]), b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    json_lines(&output.stdout)
}

fn as_input(lines: &[Value]) -> Vec<u8> {
    let lines = lines.iter().map(|line| format!("{line}\n"));
    lines.collect::<String>().into_bytes()
}

/// Imports with more arguments: the exit code, and what it said on standard output and standard error.
fn import(engine: &str, dir: &Path, args: &[&str], lines: &[Value]) -> (i32, String, String) {
    let mut import = proglog(engine, "import", &[&dir]);
    import.args(args);
    let output = run(import, &as_input(lines));
    let told = String::from_utf8(output.stdout.clone()).unwrap();
    (output.status.code().unwrap(), told, stderr(&output))
}

fn line_of(lines: &[Value], offset: u64) -> usize {
    let is_it = |line: &Value| line["offset"] == offset || line["gap"]["first"] == offset;
    lines.iter().position(is_it).unwrap()
}

fn whatever_differs_from_the_log_is_refused(engine: &str) {
    let log = NewLog::new(engine);
    source(&log.dir);
    let copy = log.path().join("copy");
    let lines = exported(engine, &log.dir);
    assert_eq!(import(engine, &copy, &[], &lines).0, 0);
    let before = files(&copy);
    let gap = |first: u64, last: u64, cause: &str| json!({ "gap": { "first": first, "last": last, "cause": cause } });
    let changes: [(u64, &str, Value, &str); 12] = [
        (
            0,
            "value",
            json!("eA=="),
            "record 0 has another value in the log",
        ),
        (
            0,
            "key",
            json!("eA=="),
            "record 0 has another key in the log",
        ),
        (
            0,
            "timestamp_ms",
            json!(4),
            "record 0 has another timestamp_ms in the log",
        ),
        (
            2,
            "headers",
            json!([]),
            "record 2 has another set of headers in the log",
        ),
        (
            2,
            "producer",
            json!({ "id": "cA==", "sequence": 7 }),
            "record 2 has another producer in the log",
        ),
        // The end of a batch comes too late, and too early.
        (
            1,
            "batch_remaining",
            json!(0),
            "record 1 has batch_remaining 0 and batch_records 0, and in the log 2 and 0",
        ),
        (
            3,
            "batch_records",
            json!(2),
            "record 3 has batch_remaining 0 and batch_records 2, and in the log 0 and 3",
        ),
        (
            4,
            "gap",
            gap(4, 5, "lost")["gap"].clone(),
            "record 4 was left out in the log, and was lost in the input",
        ),
        (
            7,
            "gap",
            gap(7, 8, "compacted")["gap"].clone(),
            "record 7 was lost in the log, and was compacted in the input",
        ),
        (
            4,
            "gap",
            gap(4, 6, "skipped")["gap"].clone(),
            "the log has record 6, which was left out by word of the input",
        ),
        (
            7,
            "gap",
            gap(7, 7, "lost")["gap"].clone(),
            "record 8 was lost in the log",
        ),
        (6, "key", json!(null), "record 6 has another key in the log"),
    ];
    for (offset, field, value, what) in changes {
        let mut changed = lines.clone();
        let at = line_of(&changed, offset);
        changed[at][field] = value.clone();
        if what.contains("the log has record 6") {
            changed.remove(line_of(&lines, 6));
        }
        if what.contains("record 8") {
            changed.insert(at + 1, json!({ "offset": 8, "value": "" }));
        }
        let (exit, told, error) = import(engine, &copy, &["--resume"], &changed);
        assert_eq!(exit, 4, "{offset} {field} {value}: {told}{error}");
        let told = format!(
            "is not what the log has: {what}; give the input that it is of; nothing was imported\n"
        );
        assert!(error.ends_with(&told), "{field}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert_eq!(files(&copy), before, "{field}");
    }
    // What is new is not imported after what is not the same.
    let mut longer = lines.clone();
    longer[0]["value"] = json!("eA==");
    longer.push(json!({ "offset": 11, "value": "" }));
    assert_eq!(import(engine, &copy, &["--resume"], &longer).0, 4);
    assert_eq!(files(&copy), before);
}

fn what_the_log_does_not_say_otherwise_is_passed_over(engine: &str) {
    let log = NewLog::new(engine);
    source(&log.dir);
    let lines = exported(engine, &log.dir);
    // An input that says less, and a log that was compacted since.
    for (compacts, keep) in [(false, lines.len()), (false, 2), (true, lines.len())] {
        let copy = log.path().join(format!("{compacts}-{keep}"));
        assert_eq!(import(engine, &copy, &[], &lines).0, 0);
        if compacts {
            let writer = Log::open(&copy, Options::new()).unwrap();
            writer.append("the next").unwrap();
            writer.compact(&Compaction::new()).unwrap();
            assert!(writer.read(Offset(0)).is_err());
            writer.close().unwrap();
        }
        let kept = &lines[..keep];
        let (exit, told, error) = import(engine, &copy, &["--resume", "--cut-batch"], kept);
        let records = kept.iter().filter(|line| line["gap"].is_null()).count();
        let noun = if records == 1 { "record" } else { "records" };
        assert_eq!((exit, &*error), (0, ""));
        assert_eq!(
            told,
            format!("imported nothing; the log had {records} {noun}\n")
        );
    }
}

fn what_lies_below_the_log_is_told(engine: &str) {
    let log = NewLog::new(engine);
    source(&log.dir);
    let mut lines = exported(engine, &log.dir);
    let copy = log.path().join("copy");
    let whole = ["--segment-bytes-max", "120"];
    assert_eq!(import(engine, &copy, &whole, &lines).0, 0);
    let writer = Log::open(&copy, Options::new()).unwrap();
    writer.truncate_before(Offset(6)).unwrap();
    assert_eq!(writer.lowest_offset(), Offset(6));
    writer.close().unwrap();

    lines.push(json!({ "offset": 11, "value": "" }));
    let (exit, told, error) = import(engine, &copy, &["--resume", "--json"], &lines);
    assert_eq!(exit, 0, "{error}");
    let summary = json!({
        "first": 11, "last": 11, "records": 1, "absent": 0, "passed_over": 7, "not_compared": 4,
    });
    assert_eq!(json_lines(told.as_bytes()), [summary]);
    let (_, told, _) = import(engine, &copy, &["--resume"], &lines);
    let expected = "imported nothing; the log had 4 records; 4 records below its lowest offset, not compared\n";
    assert_eq!(told, expected);

    // Nothing says that this is the log of the input.
    let writer = Log::open(&copy, Options::new()).unwrap();
    writer.truncate_before(Offset(12)).unwrap();
    writer.close().unwrap();
    let before = files(&copy);
    lines.push(json!({ "offset": 12, "value": "" }));
    for keep in [3, lines.len()] {
        let (exit, told, error) = import(engine, &copy, &["--resume"], &lines[..keep]);
        assert_eq!(exit, 4, "{told}");
        let said = "cannot be compared with the log, nor can what was before it: that begins at 12 by now; give what \
                    goes on from there, with --append, or an input that has more; nothing was imported\n";
        assert!(error.ends_with(said), "{error}");
        assert_eq!(files(&copy), before);
    }
    let rest = &lines[lines.len() - 1..];
    assert_eq!(import(engine, &copy, &["--append"], rest).0, 0);
}

fn records_that_the_input_leaves_out_are_told(engine: &str) {
    let log = NewLog::new(engine);
    source(&log.dir);
    let lines = exported(engine, &log.dir);
    let damaged = json!({ "damaged": { "first": 9, "last": 9 } });
    for (offset, marked) in [(6, None), (9, None), (9, Some(damaged))] {
        let copy = log.path().join(format!("{offset}-{}", marked.is_some()));
        assert_eq!(import(engine, &copy, &[], &lines).0, 0);
        let before = files(&copy);
        let mut fewer = lines.clone();
        let at = line_of(&fewer, offset);
        fewer.splice(at..=at, marked);
        let (exit, told, error) = import(engine, &copy, &["--resume"], &fewer);
        assert_eq!(exit, 4, "{told}");
        let said = format!(
            "comes after record {offset}, which the log has and the input does not; give an input"
        );
        assert!(error.contains(&said), "{error}");
        let (exit, told, error) = import(engine, &copy, &["--resume", "--keep-gaps"], &fewer);
        let said =
            format!("proglog: record {offset}: not in the input; what the log has of that stays\n");
        assert_eq!((exit, error), (0, said));
        assert_eq!(told, "imported nothing; the log had 6 records\n");
        assert_eq!(files(&copy), before);
    }
}

fn batches_are_compared(engine: &str) {
    let log = NewLog::new(engine);
    let writer = Log::open(&log.dir, Options::new().clock(Clock::NONE)).unwrap();
    for batch in [&["a", "b", "c"][..], &["d"], &["e", "f"]] {
        writer.append_batch(batch.iter().copied()).unwrap();
    }
    writer.close().unwrap();
    let lines = exported(engine, &log.dir);

    // All lone, as `proglog read --json` tells them.
    let mut lone = lines.clone();
    for line in &mut lone {
        let line = line.as_object_mut().unwrap();
        line.retain(|name, _| !name.starts_with("batch_"));
    }
    let copy = log.path().join("lone");
    assert_eq!(import(engine, &copy, &[], &lone).0, 0);
    let (exit, _, error) = import(engine, &copy, &["--resume"], &lines);
    let said = "record 0 has batch_remaining 2 and batch_records 0, and in the log 0 and 0; if --cut-batch imported it \
                so, give that again;";
    assert_eq!((exit, error.contains(said)), (4, true), "{error}");
    assert_eq!(import(engine, &copy, &["--resume"], &lone).0, 0);
    // Nor the other way round.
    for args in [&["--resume"][..], &["--resume", "--cut-batch"]] {
        let (exit, _, error) = import(engine, &log.dir, args, &lone);
        let said = "record 0 has batch_remaining 0 and batch_records 0, and in the log 2 and 0; give the input";
        assert_eq!((exit, error.contains(said)), (4, true), "{error}");
    }

    // What an import made of the beginning of a batch is gone on with, and is in parts then.
    let copy = log.path().join("parts");
    assert_eq!(import(engine, &copy, &["--cut-batch"], &lines[..2]).0, 0);
    let (exit, told, error) = import(engine, &copy, &["--resume"], &lines);
    assert_eq!(exit, 0, "{error}");
    assert_eq!(told, "imported 2..=5 (4 records); the log had 2 records\n");
    let (exit, _, error) = import(engine, &copy, &["--resume"], &lines);
    assert_eq!(
        (exit, error.contains("if --cut-batch imported it so")),
        (4, true),
        "{error}"
    );
    assert_eq!(
        import(engine, &copy, &["--resume", "--cut-batch"], &lines).0,
        0
    );

    // A truncation leaves the beginning of a batch as it was.
    let copy = log.path().join("truncated");
    assert_eq!(import(engine, &copy, &[], &lines).0, 0);
    let writer = Log::open(&copy, Options::new()).unwrap();
    writer.truncate_after(Offset(1)).unwrap();
    writer.close().unwrap();
    let (exit, told, error) = import(engine, &copy, &["--resume"], &lines);
    assert_eq!(exit, 0, "{error}");
    assert_eq!(told, "imported 2..=5 (4 records); the log had 2 records\n");

    // What has only a part of a batch makes a batch of that, and goes on with what it made.
    let copy = log.path().join("from");
    assert_eq!(import(engine, &copy, &[], &lines[1..]).0, 0);
    let (exit, told, error) = import(engine, &copy, &["--resume"], &lines[1..]);
    assert_eq!((exit, &*error), (0, ""));
    assert_eq!(told, "imported nothing; the log had 5 records\n");

    // An input that ends within a batch says nothing else of it.
    let (exit, told, error) = import(engine, &log.dir, &["--resume"], &lines[..2]);
    assert_eq!(
        (exit, &*told),
        (0, "imported nothing; the log had 2 records\n"),
        "{error}"
    );
}

/// But the directory stays if it was there, with what is in it.
fn a_failed_import_leaves_no_log_behind(engine: &str) {
    let record = |offset: u64| json!({ "offset": offset, "value": "eA==" });
    let cut = json!({ "offset": 3, "value": "", "batch_remaining": 1 });
    let large = json!({ "offset": 3, "value": "A".repeat(400) });
    let gap = json!({ "gap": { "first": 1, "last": 2, "cause": "skipped" } });
    let damaged = json!({ "damaged": { "first": 1, "last": 2 } });
    let inputs: [&[Value]; 6] = [
        std::slice::from_ref(&cut),
        &[cut.clone(), record(9)],
        std::slice::from_ref(&large),
        &[damaged],
        &[gap.clone(), record(0)],
        &[json!("no record")],
    ];
    for lines in inputs {
        let log = NewLog::new(engine);
        let deep = log.path().join("a/b");
        let args = ["--record-bytes-max", "64"];
        let (exit, _, error) = import(engine, &deep, &args, lines);
        assert_eq!(exit, 4, "{lines:?}");
        assert!(error.contains("nothing was imported"), "{error}");
        assert!(!log.path().join("a").exists(), "{lines:?}: {error}");

        fs::create_dir(&log.dir).unwrap();
        fs::write(log.dir.join("mine"), "").unwrap();
        assert_eq!(import(engine, &log.dir, &args, lines).0, 4);
        assert_eq!(files(&log.dir), [("mine".to_owned(), vec![])]);
        // A log that was there stays, also an empty one.
        log.append(&["--initial-offset", "3"], b"");
        let before = files(&log.dir);
        assert_eq!(
            import(
                engine,
                &log.dir,
                &["--append"],
                &[large.clone(), cut.clone()]
            )
            .0,
            4
        );
        let names =
            |files: &[(String, Vec<u8>)]| files.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
        assert_eq!(names(&files(&log.dir)), names(&before));
    }
    // What was imported before stays.
    let log = NewLog::new(engine);
    assert_eq!(import(engine, &log.dir, &[], &[gap, record(3), cut]).0, 4);
    assert_eq!(log.info()["next_offset"], json!(4));
}

fn a_producer_without_an_id_is_refused(engine: &str) {
    for id in ["", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="] {
        let log = NewLog::new(engine);
        let line = json!({ "offset": 0, "value": "", "producer": { "id": id, "sequence": 7 } });
        let (exit, _, error) = import(engine, &log.dir, &[], &[line]);
        assert_eq!(exit, 4);
        let said = "line 1 of the input is no record to import: the `id` of a `producer` has ";
        assert!(error.contains(said), "{error}");
        assert!(error.contains(" bytes; give 1 to 32; nothing"), "{error}");
        assert!(!log.dir.exists());
    }
}

fn offsets_beyond_the_wasm_engines_are_told(engine: &str) {
    const LAST: u64 = i64::MAX as u64 - 1;
    for offsets in [[LAST + 1, LAST + 2], [LAST, LAST + 1]] {
        let log = NewLog::new(engine);
        let lines = offsets.map(|offset| json!({ "offset": offset, "value": "" }));
        let (exit, told, error) = import(engine, &log.dir, &[], &lines);
        if engine == "native" {
            assert_eq!((exit, &*error), (0, ""), "{told}");
            continue;
        }
        assert_eq!(exit, 4);
        let beyond = offsets.iter().find(|&&offset| offset > LAST).unwrap();
        let said = format!(
            "has the offset {beyond}, beyond {LAST}, the last that the wasm engine gives; use --engine native; "
        );
        assert!(error.contains(&said), "{error}");
        assert_eq!(log.dir.exists(), offsets[0] == LAST);
    }
}
