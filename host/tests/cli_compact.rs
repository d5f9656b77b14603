//! `proglog compact`, and what else keeps a log small: `truncate --bytes-max`, `--older-than`, and what a server retains.
#![cfg(unix)]

mod program;

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use proglog::{Clock, Durability, Log, NewRecord, Offset, Options, Retention};
use program::{
    NewLog, Running, failed, flip_a_bit, json_lines, on_both_engines, printed, proglog, run, stderr,
};
use rustix::process::Signal;
use serde_json::json;

on_both_engines!(
    it_keeps_the_latest_of_each_key,
    tombstones_go_when_they_are_old_enough,
    damaged_segments_are_left_alone,
    only_a_log_that_is_there_is_compacted,
    old_segments_are_truncated_as_the_library_does,
    a_server_keeps_what_it_is_told_to,
);

/// So many records of three keys, a tombstone for each ninth, in segments of four or five. Their bases.
fn write(dir: &Path, records: u64) -> Vec<u64> {
    let options = Options::new()
        .segment_bytes_max(200)
        .durability(Durability::Buffered)
        .clock(Clock::NONE);
    let log = Log::open(dir, options).unwrap();
    for n in 0..records {
        let (key, value) = (format!("key {}", n % 3), format!("value {n:03}"));
        let value = if n % 9 == 8 { "" } else { &value };
        log.append(NewRecord::new(value).key(&key).timestamp_ms(1000 + n))
            .unwrap();
    }
    let bases = log
        .segments()
        .iter()
        .map(|segment| segment.base.0)
        .collect();
    log.close().unwrap();
    bases
}

fn records_of(dir: &Path) -> Vec<u64> {
    let log = Log::open_read_only(dir, Options::new()).unwrap();
    assert!(log.verify().unwrap().is_sound());
    log.scan(..)
        .map(|record| record.unwrap().offset().0)
        .collect()
}

fn it_keeps_the_latest_of_each_key(engine: &str) {
    let log = NewLog::new(engine);
    // Those of the last three are the latest of their keys.
    let bases = write(&log.dir, 19);
    let last = bases[bases.len() - 1];
    assert!(bases.len() > 3 && last < 16, "{bases:?}");
    let told = printed(log.verb("compact", &[&"--json"]), b"");
    let told = json_lines(&told).remove(0);
    assert_eq!(records_of(&log.dir), Vec::from_iter(last..19));
    assert_eq!(told["records_removed"], json!(last));
    assert_eq!(told["left_alone"], json!([]));
    let segments = told["segments"].as_array().unwrap();
    let written: Vec<_> = segments
        .iter()
        .map(|s| s["base"].as_u64().unwrap())
        .collect();
    assert_eq!(written, bases[..bases.len() - 1]);
    let removed = segments
        .iter()
        .map(|s| s["records_removed"].as_u64().unwrap());
    assert_eq!(removed.sum::<u64>(), last);
    let saved =
        told["store_bytes_before"].as_u64().unwrap() - told["store_bytes_after"].as_u64().unwrap();
    let removed_bytes = told["bytes_removed"].as_u64().unwrap();
    assert!(saved > 0 && saved < removed_bytes, "{told}");
    let verify = printed(proglog(engine, "verify", &[&log.dir]), b"");
    let verify = String::from_utf8(verify).unwrap();
    assert!(
        verify.contains(&format!("{last} offsets compacted")),
        "{verify}"
    );
    assert_eq!(printed(log.verb("compact", &[]), b""), b"removed nothing\n");
    // People are told the same.
    let log = NewLog::new(engine);
    write(&log.dir, 19);
    let told = printed(log.verb("compact", &[&"--verbose"]), b"");
    let told = String::from_utf8(told).unwrap();
    assert!(
        told.starts_with(&format!("segment 0: removed {} records; ", bases[1])),
        "{told}"
    );
    let last = format!(
        "removed {last} records, {removed_bytes} bytes; {} segments written anew\n",
        segments.len()
    );
    assert!(told.ends_with(&last), "{told}");
}

fn tombstones_go_when_they_are_old_enough(engine: &str) {
    let log = NewLog::new(engine);
    let writer = Log::open(&log.dir, Options::new().segment_bytes_max(1)).unwrap();
    writer.append(NewRecord::new("").key("deleted")).unwrap();
    writer.append("the last segment stays").unwrap();
    writer.close().unwrap();
    for kept in ["24h", "1h 30m"] {
        let compact = log.verb("compact", &[&"--tombstones-kept", &kept]);
        assert_eq!(printed(compact, b""), b"removed nothing\n");
    }
    printed(log.verb("compact", &[&"--tombstones-kept", &"0s"]), b"");
    assert_eq!(records_of(&log.dir), [1]);
    let (exit, error) = failed(log.verb("compact", &[&"--tombstones-kept", &"7"]), b"");
    assert_eq!(
        (exit, error.contains("such as 90s, 36h or 7d")),
        (2, true),
        "{error}"
    );
}

fn damaged_segments_are_left_alone(engine: &str) {
    let log = NewLog::new(engine);
    let base = write(&log.dir, 19)[1];
    let store = log.dir.join(format!("{base}.store"));
    flip_a_bit(&store, format!("value {base:03}").as_bytes());
    let damaged = fs::read(&store).unwrap();
    let output = run(log.verb("compact", &[&"--json"]), b"");
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(
        told.contains(&format!("segment {base} is damaged and was left as it is")),
        "{told}"
    );
    let told = json_lines(&output.stdout).remove(0);
    assert_eq!(
        told["left_alone"],
        json!([{ "base": base, "reason": "damaged" }])
    );
    assert_eq!(fs::read(&store).unwrap(), damaged);
    assert_eq!(told["segments"][0]["base"], json!(0));
}

fn only_a_log_that_is_there_is_compacted(engine: &str) {
    let log = NewLog::new(engine);
    let (exit, error) = failed(log.verb("compact", &[]), b"");
    assert_eq!(
        (exit, error.contains("there is no log in")),
        (4, true),
        "{error}"
    );
    assert!(!log.dir.exists());
    write(&log.dir, 1);
    let _writer = Log::open(&log.dir, Options::new()).unwrap();
    assert_eq!(failed(log.verb("compact", &[]), b"").0, 5);
}

fn old_segments_are_truncated_as_the_library_does(engine: &str) {
    let hour = Duration::from_secs(3600);
    let now_ms = Clock::SYSTEM.now_ms().unwrap();
    let write = |dir: &Path| {
        let options = Options::new()
            .segment_bytes_max(150)
            .durability(Durability::Buffered);
        let log = Log::open(dir, options).unwrap();
        for hours_ago in (0..20).rev() {
            // Half an hour, so that no time that passes here matters.
            let then_ms = now_ms - hours_ago * 3_600_000 - 1_800_000;
            log.append(NewRecord::new("a record").timestamp_ms(then_ms))
                .unwrap();
        }
        log.skip_to(Offset(25)).unwrap();
        log.append("the last").unwrap();
        log.close().unwrap();
    };
    let cases = [
        ("--bytes-max", "0", Retention::new().bytes_max(0)),
        ("--bytes-max", "300", Retention::new().bytes_max(300)),
        ("--bytes-max", "1G", Retention::new().bytes_max(1 << 30)),
        (
            "--older-than",
            "0s",
            Retention::new().age_max(Duration::ZERO),
        ),
        ("--older-than", "5h", Retention::new().age_max(5 * hour)),
        ("--older-than", "12h", Retention::new().age_max(12 * hour)),
        (
            "--older-than",
            "7d",
            Retention::new().age_max(7 * 24 * hour),
        ),
    ];
    let mut lowest_seen = Vec::new();
    for (flag, amount, retention) in cases {
        let (log, other) = (NewLog::new(engine), NewLog::new(engine));
        write(&log.dir);
        write(&other.dir);
        let library = Log::open(&other.dir, Options::new().retention(retention)).unwrap();
        library.enforce_retention().unwrap();
        let lowest = library.lowest_offset();
        library.close().unwrap();
        let would = printed(
            log.verb("truncate", &[&flag, &amount, &"--dry-run", &"--json"]),
            b"",
        );
        let did = printed(log.verb("truncate", &[&flag, &amount, &"--json"]), b"");
        for told in [would, did] {
            let told = json_lines(&told).remove(0);
            assert_eq!(
                told["lowest_offset"],
                json!(lowest),
                "{flag} {amount}: {told}"
            );
            assert_eq!(told["next_offset"], json!(26));
        }
        let read = Log::open_read_only(&log.dir, Options::new()).unwrap();
        assert_eq!(read.lowest_offset(), lowest, "{flag} {amount}");
        lowest_seen.push(lowest.0);
    }
    lowest_seen.dedup();
    assert!(lowest_seen.len() >= 5, "{lowest_seen:?}");
    let log = NewLog::new(engine);
    write(&log.dir);
    let both = log.verb("truncate", &[&"--bytes-max", &"1", &"--older-than", &"1s"]);
    assert_eq!(failed(both, b"").0, 2);
}

fn a_server_keeps_what_it_is_told_to(engine: &str) {
    for (flag, amount) in [("--retain-bytes", "450"), ("--retain-age", "1h")] {
        let log = NewLog::new(engine);
        let bases = write(&log.dir, 40);
        let last = bases[bases.len() - 1];
        let listen: [&dyn AsRef<OsStr>; 6] = [
            &"--dir",
            &log.dir,
            &"--listen",
            &"127.0.0.1:0",
            &flag,
            &amount,
        ];
        let mut served = Running::start(proglog(engine, "serve", &listen));
        assert!(served.line().contains("serves"));
        // All are of 1970; the last segment stays, and of those before it what fits.
        let kept = if flag == "--retain-bytes" {
            bases[bases.len() - 2]
        } else {
            last
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let read = Log::open_read_only(&log.dir, Options::new()).unwrap();
            if read.lowest_offset() == Offset(kept) {
                break;
            }
            assert!(read.lowest_offset() < Offset(kept), "{flag}");
            assert!(
                Instant::now() < deadline,
                "{flag}: {}",
                read.lowest_offset()
            );
            thread::sleep(Duration::from_millis(20));
        }
        served.signal(Signal::TERM);
        let (exit, _, said) = served.end();
        assert_eq!((exit, &*said), (Some(0), ""));
        assert_eq!(records_of(&log.dir), Vec::from_iter(kept..40));
    }
}
