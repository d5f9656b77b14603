//! `proglog import` that stops before its end: at bad input, by a signal, or killed.
#![cfg(unix)]

mod exchange;
mod program;

use std::{fs, io::Write};

use exchange::{Take, exported, frames, records};
use proglog::{Log, Options};
use program::{
    NewLog, Running, failed, json_lines, on_both_engines, printed, proglog, run, stderr,
};
use rustix::process::Signal;
use serde_json::json;

on_both_engines!(
    an_import_goes_on_where_it_stopped,
    another_log_is_not_gone_on_with,
    bad_input_keeps_what_stands_before_it,
    large_records_need_to_be_allowed,
    an_import_that_was_killed_goes_on,
    ctrl_c_stops_an_import,
    nothing_makes_no_log,
);

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
    let (_, told) = failed(proglog(engine, "import", &[&copy]), &frames);
    assert!(told.contains("exported with --format binary"), "{told}");
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
