//! The command line, run as its users run it.
#![cfg(unix)]

mod program;

use std::{
    collections::hash_map::RandomState,
    fs::{self, File, OpenOptions},
    hash::BuildHasher,
    io::Write,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use proglog::{Log, Offset, Options};
use program::{
    NewLog, Running, failed, files, flip_a_bit, json_lines, on_both_engines, printed, run, stderr,
};
use rustix::process::Signal;
use serde_json::json;

on_both_engines!(
    round_trips_are_byte_exact,
    separators_are_the_users_choice,
    append_prints_the_offsets,
    append_reads_a_file,
    json_has_all_of_a_record,
    lines_of_a_producer_are_appended_once,
    acks_tell_of_lines_that_are_passed_over,
    acks_tell_of_each_batch_that_is_passed_over,
    append_comes_where_it_is_expected,
    slow_input_is_appended_as_it_comes,
    ctrl_c_stops_an_append_and_tells_what_was_appended,
    a_line_over_the_limit_is_named_and_what_stands_before_it_stays,
    an_endless_line_is_given_up_early,
    many_lines_fill_many_segments,
    a_clean_stop_leaves_trimmed_indexes,
    read_starts_where_it_is_told_and_stops_at_the_end,
    tail_prints_the_last_records,
    tail_follows_another_process,
    tail_follows_where_records_were_truncated,
    tail_follows_where_retention_has_passed_it,
    tail_that_follows_ends_when_its_directory_is_gone,
    tail_that_follows_ends_when_no_one_listens,
    a_closed_output_is_no_failure,
    a_kill_at_any_moment_loses_nothing_acknowledged,
    a_second_writer_is_told_so,
    a_file_over_its_limit_is_an_error_like_others,
    verify_judges_and_never_writes,
    dump_shows_frames_and_goes_on_after_damage,
);

fn round_trips_are_byte_exact(engine: &str) {
    for (input, lines, records) in [
        (&b"a\nb\n"[..], &b"a\nb\n"[..], 2),
        (b"a\nb", b"a\nb\n", 2),
        (b"a\r\nb\r", b"a\r\nb\r\n", 2),
        (b"\n\n", b"\n\n", 2),
        (b"\n", b"\n", 1),
        (b"a\n\n", b"a\n\n", 2),
        (
            b"\0\xff\xfe\x80\n\x1b[31m",
            b"\0\xff\xfe\x80\n\x1b[31m\n",
            2,
        ),
        (b"", b"", 0),
    ] {
        let log = NewLog::new(engine);
        assert_eq!(log.append_json(&[], input)["records"], json!(records));
        assert_eq!(log.all(&[]), lines, "{input:?}");
    }
}

fn separators_are_the_users_choice(engine: &str) {
    let log = NewLog::new(engine);
    let input = b"a\nb\0\xff\n\0\0last";
    assert_eq!(log.append_json(&["--null"], input)["records"], json!(4));
    assert_eq!(log.all(&["--null"]), b"a\nb\0\xff\n\0\0last\0");
    assert_eq!(log.all(&["--raw"]), b"a\nb\xff\nlast");
    assert_eq!(log.all(&[]), b"a\nb\n\xff\n\n\nlast\n");
    assert_eq!(printed(log.verb("read", &[&"1", &"--raw"]), b""), b"\xff\n");
}

fn append_prints_the_offsets(engine: &str) {
    let log = NewLog::new(engine);
    assert_eq!(
        log.append(&[], b"a\nb\nc\n"),
        "appended 0..=2 (3 records)\n"
    );
    assert_eq!(log.append(&[], b"d"), "appended 3..=3 (1 record)\n");
    assert_eq!(log.append(&[], b""), "appended nothing\n");
    let appended = log.append_json(&[], b"e\nf\n");
    assert_eq!(appended, json!({ "first": 4, "last": 5, "records": 2 }));
    let nothing = log.append_json(&[], b"");
    assert_eq!(
        nothing,
        json!({ "first": null, "last": null, "records": 0 })
    );

    let output = run(log.verb("append", &[&"--acks"]), b"g\nh\n");
    assert_eq!(output.stdout, b"7\n");
    assert_eq!(output.stderr, b"appended 6..=7 (2 records)\n");
    let acknowledged = log.append(&["--acks", "--json"], b"i");
    assert_eq!(
        acknowledged,
        "{\"acknowledged\":8}\n{\"first\":8,\"last\":8,\"records\":1}\n"
    );
}

fn append_reads_a_file(engine: &str) {
    let log = NewLog::new(engine);
    let file = log.path().join("input");
    fs::write(&file, b"a\nb").unwrap();
    let from_file = printed(log.verb("append", &[&file]), b"not this");
    assert_eq!(from_file, b"appended 0..=1 (2 records)\n");
    assert_eq!(log.append(&["-"], b"c\n"), "appended 2..=2 (1 record)\n");
    let mut from_stdin = log.verb("append", &[]);
    from_stdin.stdin(File::open(&file).unwrap());
    assert_eq!(
        from_stdin.output().unwrap().stdout,
        b"appended 3..=4 (2 records)\n"
    );
    assert_eq!(log.all(&[]), b"a\nb\nc\na\nb\n");
}

fn json_has_all_of_a_record(engine: &str) {
    let log = NewLog::new(engine);
    let described = [
        "--key",
        "k",
        "--header",
        "a=1=2",
        "--header",
        "b=",
        "--timestamp-ms",
        "7",
    ];
    log.append(&described, b"\xff\n");
    log.append(&["--timestamp-ms", "0"], b"plain\n");
    log.append(&[], b"\n");
    let records = json_lines(&log.all(&["--json"]));
    assert_eq!(
        records[0],
        json!({
            "value": "/w==", "offset": 0, "timestamp_ms": 7, "key": "aw==",
            "headers": [{ "name": "a", "value": "MT0y" }, { "name": "b", "value": "" }],
        })
    );
    assert_eq!(records[1], json!({ "value": "cGxhaW4=", "offset": 1 }));
    let (year_2025_ms, year_3000_ms) = (1_735_689_600_000, 32_503_680_000_000);
    let now_ms = records[2]["timestamp_ms"]
        .as_u64()
        .expect("a timestamp by default");
    assert!((year_2025_ms..year_3000_ms).contains(&now_ms), "{now_ms}");
}

fn lines_of_a_producer_are_appended_once(engine: &str) {
    let log = NewLog::new(engine);
    let append = |args: &[&str], input: &[u8]| {
        let mut command = log.verb("append", &[]);
        command.args(["--producer-id", "day"]).args(args);
        run(command, input)
    };
    let lines = numbered_lines(9000);
    let (some, all) = (&lines[..lines.len() / 3], &lines[..]);
    let half_a_line = some.iter().rev().position(|&byte| byte == b'\n').unwrap();
    let some = &some[..some.len() - half_a_line];
    for input in [some, all, all, some] {
        let output = append(&["--json"], input);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let output = append(&[], b"0\n1\n");
    assert_eq!(
        stderr(&output),
        "proglog: 2 lines were in the log already, and passed over\n"
    );
    assert_eq!(output.stdout, b"appended nothing\n");
    // From another line on.
    append(&["--producer-sequence", "8999"], b"8999\n9000\n");
    let records = json_lines(&log.all(&["--json"]));
    assert_eq!(records.len(), 9001);
    for (n, record) in records.iter().enumerate() {
        assert_eq!(record["producer"], json!({ "id": "ZGF5", "sequence": n }));
    }
    let output = append(&["--producer-sequence", &u64::MAX.to_string()], b"a\nb\n");
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("used up"), "{}", stderr(&output));
}

/// What an append prints to standard output; the summary is not there.
fn acks(append: Command, input: &[u8]) -> String {
    let output = run(append, input);
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn acks_tell_of_lines_that_are_passed_over(engine: &str) {
    let log = NewLog::new(engine);
    let append = |input: &[u8]| {
        acks(
            log.verb("append", &[&"--acks", &"--producer-id", &"day"]),
            input,
        )
    };
    for _ in 0..2 {
        assert_eq!(append(b"a\nb\nc\n"), "2\n");
    }
    assert_eq!(append(b"a\nb\n"), "1\n");
    assert_eq!(append(b"a\nb\nc\nd\n"), "2\n3\n");
    // Others between.
    log.append(&[], b"of no one\n");
    log.append(&["--producer-id", "night"], b"0\n1\n2\n3\n4\n5\n");
    assert_eq!(append(b"a\nb\nc\nd\ne\nf\n"), "3\n12\n");
    for (lines, ack) in [
        ("a\n", "0\n"),
        ("a\nb\nc\nd\n", "3\n"),
        ("a\nb\nc\nd\ne\n", "11\n"),
    ] {
        assert_eq!(append(lines.as_bytes()), ack, "{lines:?}");
    }
    // Where the log has not all of their sequences, the last that it has; none where it has none of them.
    log.append(
        &["--producer-id", "day", "--producer-sequence", "50"],
        b"z\n",
    );
    assert_eq!(append(b"a\nb\nc\nd\ne\nf\ng\nh\n"), "12\n");
    let from = |sequence: &str, input| {
        let mut append = log.verb("append", &[&"--acks", &"--json"]);
        append.args(["--producer-id", "day", "--producer-sequence", sequence]);
        acks(append, input)
    };
    let nothing = "{\"first\":null,\"last\":null,\"records\":0}\n";
    assert_eq!(
        from("50", b"z\n"),
        format!("{{\"acknowledged\":13}}\n{nothing}")
    );
    assert_eq!(from("20", b"x\n"), nothing);
}

/// As many batches as there were, where others stand between.
fn acks_tell_of_each_batch_that_is_passed_over(engine: &str) {
    let log = NewLog::new(engine);
    let lines = log.dir.with_extension("lines");
    fs::write(&lines, numbered_lines(20_000)).unwrap();
    let append = || {
        let append = log.verb("append", &[&lines, &"--acks", &"--producer-id", &"day"]);
        acks(append, b"")
    };
    let first = append();
    assert_eq!(first, "8191\n16383\n19999\n");
    assert_eq!(append(), first);
    log.append(&[], b"of no one\n");
    let last = ["--producer-id", "day", "--producer-sequence", "20000"];
    log.append(&last, b"later\n");
    assert_eq!(append(), first);
    fs::remove_file(lines).unwrap();
}

fn append_comes_where_it_is_expected(engine: &str) {
    let log = NewLog::new(engine);
    let append = |args: &[&str]| {
        let mut command = log.verb("append", &[]);
        command.args(args);
        run(command, b"a\nb\n")
    };
    assert!(append(&["--expect-next", "0"]).status.success());
    let output = append(&["--expect-next", "1"]);
    assert_eq!(output.status.code(), Some(6));
    assert!(
        stderr(&output).contains("would be 2, not 1"),
        "{}",
        stderr(&output)
    );
    let output = append(&["--expect-next", "1", "--json"]);
    let told: serde_json::Value = serde_json::from_str(&stderr(&output)).unwrap();
    assert_eq!(told["kind"], "conflict");
    assert_eq!(told["next_offset"], 2);
    // What is there already is where it was expected.
    for _ in 0..2 {
        let output = append(&["--expect-next", "2", "--producer-id", "p"]);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    assert_eq!(
        append(&["--expect-next", "2", "--producer-id", "q"])
            .status
            .code(),
        Some(6)
    );
    // What is there already is found before that is looked at, wherever it is; what is not comes after as much of it.
    let output = append(&["--expect-next", "9", "--producer-id", "p"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let more = |expected: &str| {
        let expects = ["--expect-next", expected, "--producer-id", "p"];
        let mut command = log.verb("append", &[]);
        command.args(expects);
        run(command, b"a\nb\nc\n").status.code()
    };
    assert_eq!(
        [more("1"), more("4"), more("2")],
        [Some(6), Some(6), Some(0)]
    );
    assert_eq!(log.info()["next_offset"], 5);
}

fn slow_input_is_appended_as_it_comes(engine: &str) {
    let log = NewLog::new(engine);
    let mut append = Running::start(log.verb("append", &[&"--acks"]));
    append.write(b"one\n");
    assert_eq!(append.line(), "0\n");
    append.write(b"two\nthr");
    assert_eq!(append.line(), "1\n");
    append.write(b"ee\n");
    assert_eq!(append.line(), "2\n");
    // Acknowledged is durable, whatever becomes of the process.
    append.signal(Signal::KILL);
    append.end();
    assert_eq!(log.all(&[]), b"one\ntwo\nthree\n");
}

fn ctrl_c_stops_an_append_and_tells_what_was_appended(engine: &str) {
    for (signal, exit) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let log = NewLog::new(engine);
        let mut append = Running::start(log.verb("append", &[&"--acks", &"--json"]));
        append.write(b"one\ntwo\nunfinished");
        assert_eq!(append.line(), "{\"acknowledged\":1}\n");
        append.signal(signal);
        let (code, rest, errors) = append.end();
        assert_eq!(rest, "{\"first\":0,\"last\":1,\"records\":2}\n");
        assert_eq!((code, &*errors), (Some(exit), ""));
        assert_eq!(log.all(&[]), b"one\ntwo\n");
    }
}

fn a_line_over_the_limit_is_named_and_what_stands_before_it_stays(engine: &str) {
    let log = NewLog::new(engine);
    let mut input = b"short\nalso short\n".to_vec();
    input.extend([b'x'; 1100]);
    input.extend(b"\nafter\n");
    let append = log.verb("append", &[&"--record-bytes-max", &"1K", &"--json"]);
    let output = run(append, &input);
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(json_lines(&output.stdout)[0]["last"], json!(1));
    let error = &json_lines(&output.stderr)[0];
    assert_eq!(error["kind"], json!("too_large"));
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .starts_with("line 3 of the input"),
        "{error}"
    );
    assert_eq!(log.all(&[]), b"short\nalso short\n");
    let (_, error) = failed(
        log.verb("append", &[&"--record-bytes-max", &"1K"]),
        &[b'x'; 1100],
    );
    assert!(
        error.starts_with("proglog: line 1 of") && error.ends_with("; nothing was appended\n"),
        "{error}"
    );

    // Within the limit alone, over it with what is stored around it: the log itself refuses it.
    let mut input = b"fits\n".repeat(9);
    input.extend([b'x'; 1020]);
    let (exit, error) = failed(log.verb("append", &[&"--record-bytes-max", &"1K"]), &input);
    assert_eq!(exit, 4);
    assert!(
        error.starts_with("proglog: line 10 of the input is too large"),
        "{error}"
    );
    assert_eq!(
        log.all(&[]),
        [&b"short\nalso short\n"[..], &b"fits\n".repeat(9)].concat()
    );
}

fn an_endless_line_is_given_up_early(engine: &str) {
    let log = NewLog::new(engine);
    let mut append = Running::start(log.verb("append", &[&"--record-bytes-max", &"1M", &"--null"]));
    append.write(b"first\0");
    let mut stdin = append.stdin.take().unwrap();
    let mut taken_bytes = 0_u64;
    while stdin.write_all(&[b'x'; 64 << 10]).is_ok() {
        taken_bytes += 64 << 10;
        assert!(
            taken_bytes < 16 << 20,
            "it goes on reading, and holds what it has read"
        );
    }
    let (exit, _, error) = append.end();
    assert_eq!(exit, Some(4));
    assert!(
        error.starts_with("proglog: record 2 of the input is too large"),
        "{error}"
    );
    assert_eq!(log.all(&[]), b"first\n");
}

fn many_lines_fill_many_segments(engine: &str) {
    let log = NewLog::new(engine);
    let input = numbered_lines(20_000);
    log.append(
        &["--segment-bytes-max", "64K", "--timestamp-ms", "0"],
        &input,
    );
    assert_eq!(log.all(&[]), input);
    let segments = log.info()["segments"].as_array().unwrap().len();
    assert!((5..60).contains(&segments), "{segments} segments");

    // Both engines leave the same bytes.
    let twin = NewLog::new(if engine == "wasm" { "native" } else { "wasm" });
    let file = twin.path().join("input");
    fs::write(&file, &input).unwrap();
    let options: [&str; 4] = ["--segment-bytes-max", "64K", "--timestamp-ms", "0"];
    let mut append = twin.verb("append", &[&file]);
    append.args(options);
    printed(append, b"");
    let again = NewLog::new(engine);
    let mut append = again.verb("append", &[&file]);
    append.args(options);
    printed(append, b"");
    assert!(
        files(&again.dir) == files(&twin.dir),
        "the directories differ"
    );
}

fn a_clean_stop_leaves_trimmed_indexes(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], b"a\nb\nc\n");
    assert_eq!(fs::metadata(log.dir.join("0.index")).unwrap().len(), 3 * 12);
    assert_eq!(log.info()["needs_recovery"], json!(false));
}

fn read_starts_where_it_is_told_and_stops_at_the_end(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&["--initial-offset", "7"], b"seven\neight\nnine\n");
    let read = |args: &[&str]| {
        let mut read = log.verb("read", &[]);
        read.args(args);
        String::from_utf8(printed(read, b"")).unwrap()
    };
    assert_eq!(read(&["7"]), "seven\n");
    assert_eq!(read(&["8", "--count", "2"]), "eight\nnine\n");
    assert_eq!(read(&["8", "-n", "99"]), "eight\nnine\n");
    assert_eq!(read(&["8", "--count", "0"]), "");
    for missing in ["6", "10", "18446744073709551615"] {
        for count in ["0", "1"] {
            let (exit, error) = failed(log.verb("read", &[&missing, &"--count", &count]), b"");
            assert_eq!(exit, 3);
            let said = format!("proglog: offset {missing} is not in the log");
            assert!(error.starts_with(&said), "{error}");
        }
    }
}

fn tail_prints_the_last_records(engine: &str) {
    let log = NewLog::new(engine);
    let input = numbered_lines(25);
    log.append(&[], &input);
    let tail = |args: &[&str]| {
        let mut tail = log.verb("tail", &[]);
        tail.args(args);
        String::from_utf8(printed(tail, b"")).unwrap()
    };
    assert_eq!(
        tail(&[]).lines().collect::<Vec<_>>()[..2],
        ["line 15", "line 16"]
    );
    assert_eq!(tail(&[]).lines().count(), 10);
    assert_eq!(tail(&["-n", "1"]), "line 24\n");
    assert_eq!(tail(&["-n", "0"]), "");
    assert_eq!(tail(&["-n", "99"]).as_bytes(), input);
    assert_eq!(tail(&["--from", "23"]), "line 23\nline 24\n");
    assert_eq!(tail(&["--from", "25"]), "");
    let (exit, error) = failed(log.verb("tail", &[&"--from", &"26"]), b"");
    assert_eq!(exit, 3, "{error}");
    let (exit, _) = failed(log.verb("tail", &[&"--from", &"0", &"-n", &"1"]), b"");
    assert_eq!(exit, 2);
}

fn tail_follows_another_process(engine: &str) {
    for signal in [Signal::INT, Signal::TERM] {
        let log = NewLog::new(engine);
        log.append(&[], b"before\nand now\n");
        let mut tail = Running::start(log.verb("tail", &[&"-n", &"1", &"--follow"]));
        assert_eq!(tail.line(), "and now\n");
        log.append(&[], b"after\n");
        assert_eq!(tail.line(), "after\n");
        log.append(&["--segment-bytes-max", "40"], &numbered_lines(9));
        for n in 0..9 {
            assert_eq!(tail.line(), format!("line {n}\n"));
        }
        tail.signal(signal);
        assert_eq!(tail.end(), (Some(0), String::new(), String::new()));
    }
}

fn tail_follows_where_records_were_truncated(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], &numbered_lines(10));
    let mut tail = Running::start(log.verb("tail", &[&"-n", &"1", &"--follow"]));
    assert_eq!(tail.line(), "line 9\n");
    let change = |change: fn(&Log) -> proglog::Result<()>| {
        let writer = Log::open(&log.dir, Options::new()).unwrap();
        change(&writer).unwrap();
        writer.close().unwrap();
    };
    change(|log| log.truncate_after(Offset(4)));
    assert_eq!(
        tail.error_line(),
        "proglog: the log was truncated and ends before record 10, which was to come; going on from 5\n"
    );
    log.append(&[], b"in the place of line 5\n");
    assert_eq!(tail.line(), "in the place of line 5\n");
    change(Log::reset);
    let said = tail.error_line();
    assert!(said.ends_with("was to come; going on from 0\n"), "{said}");
    log.append(&[], b"a new beginning\n");
    assert_eq!(tail.line(), "a new beginning\n");
    tail.signal(Signal::INT);
    assert_eq!(tail.end(), (Some(0), String::new(), String::new()));
}

fn tail_follows_where_retention_has_passed_it(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], b"first\n");
    let mut tail = Running::start(log.verb("tail", &[&"--follow"]));
    assert_eq!(tail.line(), "first\n");
    tail.signal(Signal::STOP);
    log.append(&["--segment-bytes-max", "40"], &numbered_lines(9));
    let writer = Log::open(&log.dir, Options::new()).unwrap();
    writer.truncate_before(Offset(6)).unwrap();
    assert_eq!(writer.lowest_offset(), Offset(6));
    writer.close().unwrap();
    tail.signal(Signal::CONT);
    assert_eq!(
        tail.error_line(),
        "proglog: records 1..=5 were removed before they were read; going on from 6\n"
    );
    for n in 5..9 {
        assert_eq!(tail.line(), format!("line {n}\n"));
    }
    tail.signal(Signal::INT);
    assert_eq!(tail.end(), (Some(0), String::new(), String::new()));
}

fn tail_that_follows_ends_when_its_directory_is_gone(engine: &str) {
    for made_anew in [false, true] {
        let log = NewLog::new(engine);
        log.append(&[], b"only\n");
        let mut tail = Running::start(log.verb("tail", &[&"--follow"]));
        assert_eq!(tail.line(), "only\n");
        tail.signal(Signal::STOP);
        fs::rename(&log.dir, log.path().join("elsewhere")).unwrap();
        if made_anew {
            log.append(&[], b"another\n");
        }
        tail.signal(Signal::CONT);
        let name = log.dir.display();
        let said = format!("proglog: {name} was removed or replaced; follow it again\n");
        assert_eq!(tail.end(), (Some(4), String::new(), said));
    }
}

fn tail_that_follows_ends_when_no_one_listens(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], b"only\n");
    let mut tail = Running::start(log.verb("tail", &[&"--follow"]));
    assert_eq!(tail.line(), "only\n");
    tail.close_stdout();
    let (exit, _, errors) = tail.end();
    assert_eq!((exit, &*errors), (Some(0), ""));
}

fn a_closed_output_is_no_failure(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], &numbered_lines(50_000));
    for verb in ["tail", "dump"] {
        for format in [&[][..], &["--json"]] {
            let mut command = log.verb(verb, &[&"--from", &"0"]);
            command.args(format);
            let mut printing = Running::start(command);
            assert_ne!(printing.line(), "");
            printing.close_stdout();
            let (exit, _, errors) = printing.end();
            assert_eq!((exit, &*errors), (Some(0), ""), "{verb}");
        }
    }
    // The input counts, not who listens to the acknowledgements.
    let mut append = Running::start(log.verb("append", &[&"--acks"]));
    append.write(b"one\n");
    assert_eq!(append.line(), "50000\n");
    append.close_stdout();
    append.write(b"two\n");
    while log.info()["next_offset"] != json!(50_002) {
        thread::yield_now();
    }
    append.write(b"three\n");
    append.stdin = None;
    assert_eq!(append.end().0, Some(0));
    let last = printed(log.verb("tail", &[&"-n", &"3"]), b"");
    assert_eq!(last, b"one\ntwo\nthree\n");
}

fn a_kill_at_any_moment_loses_nothing_acknowledged(engine: &str) {
    let log = NewLog::new(engine);
    let mut next = 0;
    for round in 0..50 {
        let line = move |n: u64| {
            let length = usize::try_from(n % 300).unwrap();
            format!("round {round} line {n}{}\n", "!".repeat(length))
        };
        let mut append = log.verb("append", &[&"--acks"]);
        append.args(["--segment-bytes-max", "1M"]);
        let mut append = Running::start(append);
        let mut stdin = append.stdin.take().unwrap();
        let writer =
            thread::spawn(move || (0..).all(|n| stdin.write_all(line(n).as_bytes()).is_ok()));
        let mut acknowledged: u64 = append.line().trim().parse().unwrap();
        let delay_us = RandomState::new().hash_one(round) % 30_000;
        thread::sleep(Duration::from_micros(delay_us));
        append.signal(Signal::KILL);
        // What had been printed before is acknowledged too; a line cut in two by the kill is not.
        let (_, acks, errors) = append.end();
        for ack in acks
            .split_inclusive('\n')
            .filter_map(|ack| ack.strip_suffix('\n'))
        {
            acknowledged = ack.parse().unwrap();
        }
        writer.join().unwrap();

        let at = format!("round {round}, killed after {delay_us} us; {errors}");
        assert_eq!(
            run(log.verb("verify", &[]), b"").status.code(),
            Some(0),
            "{at}"
        );
        let start = next;
        next = log.info()["next_offset"].as_u64().unwrap();
        assert!(
            acknowledged < next,
            "{acknowledged} is not below {next}: {at}"
        );
        let records = printed(log.verb("tail", &[&"--from", &start.to_string()]), b"");
        let expected: String = (0..next - start).map(line).collect();
        assert!(
            records == expected.as_bytes(),
            "other records than were appended: {at}"
        );
    }
}

fn a_second_writer_is_told_so(engine: &str) {
    let log = NewLog::new(engine);
    let mut first = Running::start(log.verb("append", &[&"--acks"]));
    first.write(b"one\n");
    first.line();
    let (exit, error) = failed(log.verb("append", &[]), b"two\n");
    assert_eq!(exit, 5, "{error}");
    assert!(error.contains("in use by another writer"), "{error}");
    // Readers go beside it.
    assert_eq!(log.all(&[]), b"one\n");
    assert_eq!(printed(log.verb("read", &[&"0"]), b""), b"one\n");
    printed(log.verb("verify", &[]), b"");
}

/// The limit is that of `ulimit -f`, in the shell's blocks of 512 or 1024 bytes.
fn a_file_over_its_limit_is_an_error_like_others(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], b"first\n");
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -f 100; exec \"$0\" \"$@\""])
        .arg(env!("CARGO_BIN_EXE_proglog"))
        .args(["append", "--engine", engine, "--index-bytes-max", "1K"])
        .arg(&log.dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = run(limited, &[b'x'; 500 << 10]);
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(4), "{error}");
    assert!(error.contains("nothing more was acknowledged"), "{error}");
    assert_eq!(output.stdout, b"nothing was acknowledged\n");
    assert_eq!(log.all(&[]), b"first\n");
}

fn verify_judges_and_never_writes(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&["--timestamp-ms", "0"], b"zero\none\ntwo\n");
    let before = files(&log.dir);
    let text = String::from_utf8(printed(log.verb("verify", &[]), b"")).unwrap();
    assert!(
        text.starts_with("sound      3 records in 1 segment"),
        "{text}"
    );

    // A torn tail is a note.
    let store = log.dir.join("0.store");
    fs::remove_file(log.dir.join("0.index")).unwrap();
    OpenOptions::new()
        .append(true)
        .open(&store)
        .unwrap()
        .write_all(&[0, 0, 0, 0, 0, 9])
        .unwrap();
    let torn = files(&log.dir);
    let text = String::from_utf8(printed(log.verb("verify", &[]), b"")).unwrap();
    assert!(
        text.contains("ends with 6 bytes that belong to no acknowledged record"),
        "{text}"
    );
    assert!(text.contains("its index is missing"), "{text}");
    assert_eq!(files(&log.dir), torn);

    let mended = run(log.verb("append", &[]), b"");
    assert!(stderr(&mended).starts_with("proglog: cut off 6 bytes that an unclean stop left"));
    assert_eq!(files(&log.dir), before);

    // A flipped bit before valid records is damage.
    let position = flip_a_bit(&store, b"one");
    let damaged = files(&log.dir);
    let output = run(log.verb("verify", &[]), b"");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("DAMAGED    segment 0, offsets 1..=1, position "),
        "{text}"
    );
    assert!(
        text.contains("its checksum does not match its bytes"),
        "{text}"
    );
    assert!(
        text.contains("damaged    1 record lost; 2 sound records in 1 segment"),
        "{text}"
    );
    let output = run(log.verb("verify", &[&"--json"]), b"");
    assert_eq!(output.status.code(), Some(1));
    let report = &json_lines(&output.stdout)[0];
    assert_eq!(report["sound"], json!(false));
    let damage = &report["segments"][0]["damage"][0];
    assert_eq!(
        (&damage["first"], &damage["last"], &damage["reason"]),
        (&json!(1), &json!(1), &json!("checksum"))
    );
    assert!(damage["position"].as_u64().unwrap() < position);
    assert_eq!(files(&log.dir), damaged);

    // Reading stops there, and says where to look.
    let output = run(log.verb("tail", &[]), b"");
    assert_eq!(
        (output.status.code(), &*output.stdout),
        (Some(1), &b"zero\n"[..])
    );
    let error = stderr(&output);
    assert!(
        error.contains("record 1 is damaged") && error.contains("proglog verify"),
        "{error}"
    );
    assert_eq!(failed(log.verb("read", &[&"1"]), b"").0, 1);
    assert_eq!(printed(log.verb("read", &[&"2"]), b""), b"two\n");
}

fn dump_shows_frames_and_goes_on_after_damage(engine: &str) {
    let log = NewLog::new(engine);
    let described = [
        "--key",
        "k",
        "--header",
        "h=v",
        "--timestamp-ms",
        "1700000000000",
    ];
    log.append(&described, b"zero\n");
    log.append(&["--timestamp-ms", "0"], b"one\n");
    log.append(&["--timestamp-ms", "0"], b"\xfftwo\n");
    let text = String::from_utf8(printed(log.verb("dump", &[]), b"")).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("0.store, "), "{text}");
    let words: Vec<_> = lines[2].split_whitespace().collect();
    assert_eq!(words[..2], ["0", "0"]);
    assert_eq!(
        words[3..],
        [
            "sound",
            "2023-11-14T22:13:20.000Z",
            "\"zero\"",
            "key",
            "\"k\"",
            "\"h\"=\"v\""
        ]
    );
    assert!(lines[4].ends_with("b\"\\xfftwo\""), "{text}");

    flip_a_bit(&log.dir.join("0.store"), b"one");
    let output = run(log.verb("dump", &[&"--json"]), b"");
    assert_eq!(output.status.code(), Some(1));
    let items = json_lines(&output.stdout);
    let types: Vec<_> = items
        .iter()
        .map(|item| item["type"].as_str().unwrap())
        .collect();
    assert_eq!(types, ["segment", "record", "damage", "record"]);
    assert_eq!(items[2]["first"], json!(1));
    assert_eq!(items[3]["value"], json!("/3R3bw=="));
    let end = items[3]["position"].as_u64().unwrap() + items[3]["bytes"].as_u64().unwrap();
    assert_eq!(items[0]["store_bytes"], json!(end));

    let some = printed(
        log.verb("dump", &[&"--from", &"2", &"--count", &"1", &"--json"]),
        b"",
    );
    assert_eq!(json_lines(&some)[1]["offset"], json!(2));
    assert_eq!(failed(log.verb("dump", &[&"--from", &"4"]), b"").0, 3);
}

fn numbered_lines(lines: usize) -> Vec<u8> {
    (0..lines)
        .flat_map(|n| format!("line {n}\n").into_bytes())
        .collect()
}
