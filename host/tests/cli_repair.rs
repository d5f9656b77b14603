//! `proglog repair`: what is damaged is given up, told and kept, and the rest is sound.
#![cfg(unix)]

mod program;

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use program::{NewLog, Running, flip_a_bit, json_lines, on_both_engines, printed, proglog, run};
use serde_json::{Value, json};

on_both_engines!(
    a_damaged_record_is_given_up_and_kept,
    a_dry_run_changes_nothing,
    a_copy_is_repaired_and_the_log_left,
    what_is_sound_stays,
    an_unclean_stop_is_told,
    one_who_hears_no_report_still_sees_the_exit_code,
);

/// A log of three segments, of which the first has a record that is damaged.
fn damaged(engine: &str) -> NewLog {
    let log = NewLog::new(engine);
    for value in 0..9 {
        log.append(
            &["--segment-bytes-max", "96"],
            format!("{value:03}").as_bytes(),
        );
    }
    flip_a_bit(&log.dir.join("0.store"), b"001");
    log
}

fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    program::files(directory).into_iter().collect()
}

fn told(command: Command, exit: i32) -> String {
    let output = run(command, b"");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*errors), (Some(exit), ""));
    String::from_utf8(output.stdout).unwrap()
}

fn json_told(command: Command, exit: i32) -> Value {
    json_lines(told(command, exit).as_bytes()).remove(0)
}

fn a_damaged_record_is_given_up_and_kept(engine: &str) {
    let log = damaged(engine);
    let before = files(&log.dir);
    let text = told(log.verb("repair", &[]), 1);
    let kept = log.dir.join("0.store.damaged-1");
    let lost = "LOST       segment 0, offsets 1..=1: its checksum does not match its bytes; 31 bytes at 29 of ";
    assert_eq!(
        text,
        format!(
            "{lost}{}\nrepaired   1 record lost; 1 segment written anew\n",
            kept.display()
        )
    );
    let mut after = files(&log.dir);
    assert_eq!(
        after.remove("0.store.damaged-1"),
        before.get("0.store").cloned()
    );
    for (name, bytes) in &before {
        assert_eq!(after[name] == *bytes, !name.starts_with("0."), "{name}");
    }
    printed(log.verb("verify", &[]), b"");
    assert_eq!(log.all(&[]), b"000\n002\n003\n004\n005\n006\n007\n008\n");
    let read = run(log.verb("read", &[&"1"]), b"");
    let error = String::from_utf8(read.stderr).unwrap();
    assert_eq!(read.status.code(), Some(3));
    assert!(error.contains("was lost"), "{error}");
    // Again: there is nothing to do, and what was kept stays.
    let files_now = files(&log.dir);
    assert_eq!(
        told(log.verb("repair", &[]), 0),
        "sound      there is nothing to repair\n"
    );
    assert_eq!(files(&log.dir), files_now);
    flip_a_bit(&log.dir.join("0.store"), b"002");
    let again = json_told(log.verb("repair", &[&"--json"]), 1);
    assert_eq!(
        again["lost"][0]["bytes"]["file"],
        json!("0.store.damaged-2")
    );
    assert_eq!(again["offsets_lost"], json!(1));
}

fn a_dry_run_changes_nothing(engine: &str) {
    let log = damaged(engine);
    fs::remove_file(log.dir.join("3.store")).unwrap();
    let before = files(&log.dir);
    let plan = json_told(log.verb("repair", &[&"--dry-run", &"--json"]), 1);
    assert_eq!(files(&log.dir), before);
    let text = told(log.verb("repair", &[&"--dry-run"]), 1);
    assert!(
        text.ends_with("\nto repair  4 records to be lost; 1 segment to be written anew\n"),
        "{text}"
    );
    let mut repair = json_told(log.verb("repair", &[&"--json"]), 1);
    assert_eq!(
        repair["lost"][0]["bytes"]["file"].take(),
        json!("0.store.damaged-1")
    );
    assert_eq!(repair, plan);
    assert_eq!(log.all(&[]), b"000\n002\n006\n007\n008\n");
}

fn a_copy_is_repaired_and_the_log_left(engine: &str) {
    let log = damaged(engine);
    let before = files(&log.dir);
    let copy = log.path().join("copy");
    told(log.verb("repair", &[&"--to", &copy]), 1);
    assert_eq!(files(&log.dir), before);
    assert_eq!(files(&copy)["0.store.damaged-1"], before["0.store"]);
    printed(proglog(engine, "verify", &[&copy]), b"");
    told(log.verb("verify", &[]), 1);
    let all = printed(proglog(engine, "tail", &[&copy]), b"");
    assert_eq!(all, b"000\n002\n003\n004\n005\n006\n007\n008\n");
}

fn what_is_sound_stays(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], b"zero\none\n");
    let before = files(&log.dir);
    assert_eq!(
        told(log.verb("repair", &[]), 0),
        "sound      there is nothing to repair\n"
    );
    assert_eq!(files(&log.dir), before);
}

fn an_unclean_stop_is_told(engine: &str) {
    let log = NewLog::new(engine);
    log.append(&[], b"zero\none\n");
    let store = log.dir.join("0.store");
    let mut bytes = fs::read(&store).unwrap();
    let end = bytes.len();
    bytes.extend_from_slice(b"half a record");
    fs::write(&store, &bytes).unwrap();
    let repair = json_told(log.verb("repair", &[&"--json"]), 0);
    assert_eq!(
        repair["set_aside"][0],
        json!({
            "segment": 0, "reason": "torn_tail", "records": 0,
            "bytes": { "file": "0.store.damaged-1", "position": end, "bytes": 13 },
        })
    );
    assert_eq!(fs::read(log.dir.join("0.store.damaged-1")).unwrap(), bytes);
    assert_eq!(fs::read(&store).unwrap(), bytes[..end]);
}

fn one_who_hears_no_report_still_sees_the_exit_code(engine: &str) {
    let log = damaged(engine);
    let mut repair = Running::start(log.verb("repair", &[]));
    repair.close_stdout();
    assert_eq!(repair.end(), (Some(1), String::new(), String::new()));
    assert_eq!(
        told(log.verb("repair", &[]), 0),
        "sound      there is nothing to repair\n"
    );
}
