//! A log that opens without a scan holds what a scan of it finds, whatever became of its last segment's files.
//!
//! `PROGLOG_REST_ROUNDS` says how many logs are tried, `PROGLOG_REST_SEED` with which the seeds begin.
#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

use std::{collections::BTreeMap, env, ops::Range};

use proglog::{Backend, Clock, Log, MemoryBackend, Offset, Options, Result};

const ENTRY_BYTES: usize = 12;

type Files = BTreeMap<String, Vec<u8>>;

#[test]
fn what_opens_without_a_scan_holds_what_a_scan_finds() {
    let first = number("PROGLOG_REST_SEED", 0);
    let rounds = number("PROGLOG_REST_ROUNDS", 2000);
    let (mut without_scan, mut before_zeros) = (0, 0);
    for seed in first..first + rounds {
        let random = &mut fastrand::Rng::with_seed(seed);
        let options = Options::new()
            .clock(Clock::NONE)
            .segment_bytes_max([300, 1500, 1 << 20][random.usize(..3)])
            .initial_offset([0, 0, 7, 300][random.usize(..4)]);
        let mut files = written(random, &options).unwrap();
        spoil(random, &mut files);
        let Some(to_scan) = to_be_scanned(&files) else {
            continue;
        };
        let lengths = files.iter().map(|(name, bytes)| (name, bytes.len()));
        let what = format!("seed {seed}: {:?}", lengths.collect::<Vec<_>>());
        let (found, false) = opened(&files, &options, &what) else {
            continue;
        };
        let (found_by_scan, true) = opened(&to_scan, &options, &what) else {
            panic!("there was no scan, {what}");
        };
        assert_eq!(found, found_by_scan, "{what}");
        without_scan += 1;
        before_zeros += u64::from(files[&last(&files, "store")].ends_with(&[0; 100]));
    }
    println!("{without_scan} of {rounds} without a scan, {before_zeros} of them before zeros");
    assert!(without_scan >= rounds / 8 && before_zeros >= rounds / 10);
}

fn number(variable: &str, default: u64) -> u64 {
    let set = env::var(variable).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// The files of a log that was killed.
fn written(random: &mut fastrand::Rng, options: &Options) -> Result<Files> {
    let disk = MemoryBackend::new();
    let mut log = Log::open_on(disk.clone(), options.clone())?;
    for _ in 0..random.usize(1..13) {
        match random.u8(..12) {
            0..6 => drop(log.append(&value(random))?),
            6 | 7 => {
                let values: Vec<_> = (0..random.usize(2..5)).map(|_| value(random)).collect();
                log.append_batch(&values)?;
            }
            8 => log.skip_to(log.next_offset().plus([1, 3, 40][random.usize(..3)]))?,
            9 => {
                let (lowest, next) = (log.lowest_offset().0, log.next_offset().0);
                if next > lowest {
                    log.truncate_after(Offset(random.u64(lowest..next)))?;
                }
            }
            kind => {
                let next = log.next_offset().0;
                log.close()?;
                if kind == 10 {
                    append_as_the_book(&disk, next, &value(random));
                }
                log = Log::open_on(disk.clone(), options.clone())?;
            }
        }
    }
    Ok(files_of(&disk))
}

fn value(random: &mut fastrand::Rng) -> Vec<u8> {
    let below = [1, 40, 200, 900][random.usize(..4)];
    let length = random.usize(..below);
    let first = random.usize(..256);
    match random.u8(..3) {
        0 => vec![0; length],
        _ => (0..length).map(|n| (first + n) as u8).collect(),
    }
}

/// Appends a record without a checksum, as the book's program does.
fn append_as_the_book(disk: &MemoryBackend, offset: u64, value: &[u8]) {
    let files = files_of(disk);
    let (store_name, index_name) = (last(&files, "store"), last(&files, "index"));
    let (mut store, mut index) = (files[&store_name].clone(), files[&index_name].clone());
    // To a scan eight zeros are its empty one only before a record.
    let value = if offset == 0 && value.is_empty() {
        b"x"
    } else {
        value
    };
    let value = &value[..value.len().min(127)];
    let mut record = Vec::new();
    if !value.is_empty() {
        record.extend([0x0a, value.len() as u8]);
        record.extend(value);
    }
    if offset > 0 {
        record.push(0x10);
        let mut rest = offset;
        while rest > 127 {
            record.push(rest as u8 | 128);
            rest >>= 7;
        }
        record.push(rest as u8);
    }
    index.extend(((index.len() / ENTRY_BYTES) as u32).to_be_bytes());
    index.extend((store.len() as u64).to_be_bytes());
    store.extend((record.len() as u64).to_be_bytes());
    store.extend(record);
    disk.insert(store_name, store);
    disk.insert(index_name, index);
}

/// Makes the last segment's files longer or shorter, or zeros of parts of them.
fn spoil(random: &mut fastrand::Rng, files: &mut Files) {
    let (store_name, index_name) = (last(files, "store"), last(files, "index"));
    let (mut store, mut index) = (files[&store_name].clone(), files[&index_name].clone());
    let begins: Vec<usize> = index
        .chunks_exact(ENTRY_BYTES)
        .map(|entry| u64::from_be_bytes(entry[4..].try_into().unwrap()) as usize)
        .collect();
    for _ in 0..random.usize(1..4) {
        let (bytes, entries) = (store.len(), index.len() / ENTRY_BYTES);
        // Where a frame begins, or anywhere.
        let mut position = || match random.bool() {
            true if !begins.is_empty() => begins[random.usize(..begins.len())].min(bytes),
            _ => random.usize(..=bytes),
        };
        let (from, to) = (position(), position());
        match random.u8(..12) {
            0..5 => store.resize(bytes + random.usize(1..=2000), 0),
            5 => store[from..].fill(0),
            6 => store.truncate(from),
            7 => store[from..to.max(from)].fill(0),
            8 => index.truncate(random.usize(..=entries) * ENTRY_BYTES),
            9 => {
                let from = random.usize(..=entries);
                let to = random.usize(from..=entries);
                index[from * ENTRY_BYTES..to * ENTRY_BYTES].fill(0);
            }
            10 => {
                index.extend((entries as u32).to_be_bytes());
                index.extend(((bytes + random.usize(..60)) as u64).to_be_bytes());
            }
            _ => index.clear(),
        }
    }
    files.insert(store_name, store);
    files.insert(index_name, index);
}

/// The same with one more byte in the last index, so that it does not look closed. `None` if it has none: one byte tells
/// that the segments before were sealed.
fn to_be_scanned(files: &Files) -> Option<Files> {
    let mut files = files.clone();
    let index = files.get_mut(&last(&files, "index"))?;
    let is_begun = !index.is_empty();
    index.push(0);
    is_begun.then_some(files)
}

/// All that is seen of a log.
#[derive(Debug, PartialEq)]
struct Seen {
    to_be_read: Held,
    to_be_written: Held,
    /// Where nothing is damaged. Otherwise it is not known where bad bytes end and zeros begin.
    stores: Option<Files>,
    appended: Offset,
    batch: Range<Offset>,
    then: Held,
    again: Held,
}

/// Opens it, appends to it, and opens it again. Also whether its last segment was scanned at first.
fn opened(files: &Files, options: &Options, what: &str) -> (Seen, bool) {
    let disk = MemoryBackend::new();
    for (name, bytes) in files {
        disk.insert(name.clone(), bytes.clone());
    }
    let open = || Log::open_on(disk.clone(), options.clone()).unwrap();
    let to_be_read = held(&Log::open_read_only_on(disk.clone(), options.clone()).unwrap());
    let log = open();
    let mut stores = files_of(&disk);
    // Another segment may have been begun where the index does not tell what stands before the end.
    stores.retain(|name, _| name.ends_with(".store") && files.contains_key(name));
    let is_sound = log.verify().unwrap().is_sound();
    let report = log.recovery_report();
    let is_scanned = report
        .segments
        .last()
        .is_some_and(|scanned| last(files, "store") == format!("{}.store", scanned.base));
    let seen = Seen {
        to_be_read,
        to_be_written: held(&log),
        stores: is_sound.then_some(stores),
        appended: log.append("more").unwrap(),
        batch: log.append_batch(["a", "b"]).unwrap(),
        then: held(&log),
        again: {
            drop(log);
            held(&open())
        },
    };
    assert!(seen.to_be_read.durable <= seen.to_be_written.next, "{what}");
    assert_eq!(seen.appended, seen.to_be_written.next, "{what}");
    assert_eq!(seen.again, seen.then, "{what}");
    let before = &seen.to_be_written.records;
    assert!(seen.then.records.starts_with(before), "{what}");
    (seen, is_scanned)
}

#[derive(Debug, PartialEq)]
struct Held {
    lowest: Offset,
    next: Offset,
    durable: Offset,
    /// What is read of each offset, or why there is nothing.
    records: Vec<String>,
}

fn held(log: &Log<MemoryBackend>) -> Held {
    let (lowest, next) = (log.lowest_offset(), log.next_offset());
    let read = |offset| match log.read(Offset(offset)) {
        Ok(record) => {
            let value = record.value();
            let sum: u64 = value.iter().map(|&byte| u64::from(byte)).sum();
            format!("{} bytes of the sum {sum}", value.len())
        }
        Err(e) => e.to_string(),
    };
    Held {
        lowest,
        next,
        durable: log.durable_offset(),
        records: (lowest.0..next.0).map(read).collect(),
    }
}

fn files_of(disk: &MemoryBackend) -> Files {
    let names = disk.list().unwrap().into_iter();
    names
        .map(|name| (name.clone(), disk.get(&name).unwrap()))
        .collect()
}

/// The name of the last segment's file of a kind.
fn last(files: &Files, kind: &str) -> String {
    let bases = files.keys().filter_map(|name| name.strip_suffix(".store"));
    let base = bases.filter_map(|base| base.parse::<u64>().ok()).max();
    format!("{}.{kind}", base.expect("a segment"))
}
