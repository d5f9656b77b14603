//! `proglog snapshot`: a copy that is a log, beside a writer, and that nothing changes afterwards.
#![cfg(unix)]

mod program;

use std::fs;

use program::{NewLog, Running, failed, files, json_lines, on_both_engines, printed, proglog};
use serde_json::json;

on_both_engines!(
    a_copy_is_a_log_and_neither_changes_the_other,
    a_copy_is_taken_beside_a_writer,
    it_goes_only_where_nothing_is,
);

fn a_copy_is_a_log_and_neither_changes_the_other(engine: &str) {
    let log = NewLog::new(engine);
    for value in 0..9 {
        log.append(
            &["--segment-bytes-max", "96"],
            format!("{value:03}").as_bytes(),
        );
    }
    let copy = log.path().join("copy");
    let told = printed(log.verb("snapshot", &[&copy, &"--json"]), b"");
    let held = json!({ "lowest_offset": 0, "next_offset": 9, "segments": 3 });
    let told = json_lines(&told).remove(0);
    for field in ["lowest_offset", "next_offset", "segments"] {
        assert_eq!(told[field], held[field]);
    }
    let (source_files, copy_files) = (files(&log.dir), files(&copy));
    assert_eq!(source_files, copy_files);
    // To the end of a segment whose store both have, which has room by now.
    printed(proglog(engine, "truncate", &[&copy, &"--after", &"5"]), b"");
    printed(proglog(engine, "append", &[&copy]), b"other");
    assert_eq!(files(&log.dir), source_files);
    let copy_files = files(&copy);
    printed(log.verb("truncate", &[&"--after", &"2"]), b"");
    log.append(&[], b"another");
    assert_eq!(files(&copy), copy_files);
    assert_eq!(log.all(&[]), b"000\n001\n002\nanother\n");
    let all = printed(proglog(engine, "tail", &[&copy]), b"");
    assert_eq!(all, b"000\n001\n002\n003\n004\n005\nother\n");
    printed(proglog(engine, "verify", &[&copy]), b"");
    printed(log.verb("verify", &[]), b"");
}

fn a_copy_is_taken_beside_a_writer(engine: &str) {
    let log = NewLog::new(engine);
    let mut append = Running::start(log.verb("append", &[&"--acks"]));
    for n in 0..5 {
        append.write(b"line\n");
        assert_eq!(append.line(), format!("{n}\n"));
        let copy = log.path().join(n.to_string());
        let told = printed(log.verb("snapshot", &[&copy]), b"");
        let told = String::from_utf8(told).unwrap();
        assert!(
            told.starts_with(&format!("copied 0..={n} (in 1 segment, ")),
            "{told}"
        );
        printed(proglog(engine, "verify", &[&copy]), b"");
        let info = printed(proglog(engine, "info", &[&copy, &"--json"]), b"");
        assert_eq!(json_lines(&info)[0]["needs_recovery"], json!(false));
    }
}

fn it_goes_only_where_nothing_is(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], b"a");
    let full = log.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("file"), "kept").unwrap();
    for (dest, why) in [
        (
            full.clone(),
            "is not empty; give a directory that is not there yet",
        ),
        (
            full.join("file"),
            "is a file; give a directory that is not there yet",
        ),
        (
            log.dir.join("in"),
            "is within the log; give a directory outside it",
        ),
    ] {
        let (exit, error) = failed(log.verb("snapshot", &[&dest]), b"");
        assert_eq!((exit, error.contains(why)), (4, true), "{error}");
    }
    assert_eq!(fs::read(full.join("file")).unwrap(), b"kept");
    assert_eq!(log.all(&[]), b"a\n");
}
