//! Exports, and what a log holds.
#![allow(dead_code, reason = "each test crate uses a part of it")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use proglog::{Log, Options, Record};

use crate::program::{NewLog, flip_a_bit, proglog, run, stderr};

pub(crate) fn exported(log: &NewLog, args: &[&str]) -> Output {
    exported_from(log.engine(), &log.dir, args)
}

pub(crate) fn exported_from(engine: &str, dir: &Path, args: &[&str]) -> Output {
    let mut export = proglog(engine, "export", &[&PathBuf::from(dir)]);
    export.args(args);
    let output = run(export, b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    output
}

pub(crate) fn records(dir: &Path) -> Vec<Record> {
    let log = Log::open_read_only(dir, Options::new()).unwrap();
    log.scan(..).map(Result::unwrap).collect()
}

/// The bytes of each record, checksum and all.
pub(crate) fn frames(dir: &Path) -> Vec<Vec<u8>> {
    let records = records(dir);
    records
        .iter()
        .map(|record| record.frame().to_vec())
        .collect()
}

pub(crate) trait Take {
    fn take(&mut self) -> Command;
}

impl Take for Command {
    /// The command that was put together.
    fn take(&mut self) -> Command {
        std::mem::replace(self, Command::new(""))
    }
}

/// A log of six records in two segments, of which 1, 2 and 4 are damaged.
pub(crate) fn damaged_log(engine: &str) -> NewLog {
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
