//! Real input through the program and back, byte for byte, by both engines; and their directories are the
//! same, byte for byte.
//!
//! PROGLOG_ROUND_TRIP_LINES says how many lines are generated.

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

use fastrand::Rng;
use proglog_tests::{
    program::{self, ENGINES},
    script::assert_same_files,
    seeds,
    subject::files_in,
};
use tempfile::TempDir;

const LINES: u64 = 1_000_000;

#[test]
fn the_package_database_of_this_machine() {
    let database = Path::new("/var/lib/dpkg/status");
    if database.exists() {
        // Small segments, so that there are several.
        round_trip(database, &["--segment-bytes-max", "100K"]);
    } else {
        println!(
            "{} is not there: nothing to do on this machine",
            database.display()
        );
    }
}

#[test]
fn a_million_lines() {
    let lines = seeds::variable("ROUND_TRIP", "LINES").unwrap_or(LINES);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("lines");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    let mut rng = Rng::with_seed(lines);
    for n in 0..lines {
        let port = rng.u16(..);
        let status = [200, 200, 200, 301, 404, 500][rng.usize(0..6)];
        writeln!(
            file,
            "10.0.{}.{} GET /page/{n}?from={port} {status}",
            rng.u8(..),
            rng.u8(..)
        )
        .unwrap();
    }
    file.into_inner().unwrap().sync_all().unwrap();
    round_trip(&path, &[]);
}

#[test]
fn lines_of_every_kind() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("lines");
    let long = vec![b'l'; 3 << 20];
    let lines: [&[u8]; 9] = [
        b"",
        b"",
        b"\r",
        b"\0",
        b"\xff\xfe",
        "grüße 🦀".as_bytes(),
        &long,
        b" ",
        b"",
    ];
    let mut input = lines.join(&b'\n');
    input.extend(
        (0..=u8::MAX)
            .filter(|&byte| byte != b'\n')
            .flat_map(|byte| [byte, b'\n']),
    );
    fs::write(&path, input).unwrap();
    round_trip(&path, &["--segment-bytes-max", "1M"]);
}

fn round_trip(input: &Path, options: &[&str]) {
    let bytes = fs::read(input).unwrap();
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(
        bytes.last(),
        Some(&b'\n'),
        "each line of the input has an end"
    );
    let directories = ENGINES.map(|engine| {
        let directory = TempDir::new().unwrap();
        let at = directory.path().to_str().unwrap();
        let input = input.to_str().unwrap();
        let engine = ["--engine", engine];
        program::run(
            [
                &["append", at, input, "--timestamp-ms", "0"][..],
                &engine,
                options,
            ]
            .concat(),
        );
        let count = lines.to_string();
        let reads = [
            &["tail", at, "--from", "0"][..],
            &["read", at, "0", "--count", &count],
        ];
        for read in reads {
            let output = program::run([read, &engine].concat()).stdout;
            // Not by assert_eq, which would print both.
            assert!(
                output == bytes,
                "{read:?} gives {} bytes, but not the {} of the input",
                output.len(),
                bytes.len()
            );
        }
        program::run([&["verify", at][..], &engine].concat());
        directory
    });
    let [wasm, native] = directories
        .each_ref()
        .map(|directory| files_in(directory.path()));
    assert_same_files(&wasm, &native, "the directories of both engines");
}
