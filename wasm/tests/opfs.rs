//! The files of a log in a browser: names, spares and what a stop at any step leaves.

mod browser;

use std::{collections::BTreeMap, io};

use proglog::{
    Access, Backend, BackendFile, Compaction, Error, Fault, FaultBackend, FsBackend, Log,
    NewRecord, Offset, Options, Result,
};
use proglog_wasm::opfs::Opfs;

use crate::browser::{Browser, FaultHandle, is_io, read_all};

type OpfsLog = Log<Opfs<FaultHandle>>;

fn options() -> Options {
    Options::new()
        .segment_bytes_max(200)
        .index_bytes_max(480)
        .clock(proglog::Clock::NONE)
}

/// What a log is to hold.
type Held = BTreeMap<u64, Vec<u8>>;

/// A step of the script: what it does to a log and to what that is to hold.
type Step = (
    &'static str,
    fn(&Browser, &OpfsLog) -> Result<()>,
    fn(&mut Held, u64) -> u64,
);

fn value(n: u64) -> Vec<u8> {
    let length = usize::try_from(n % 7 * 9).unwrap();
    format!("{n:0>length$}").into_bytes()
}

fn append(browser: &Browser, log: &OpfsLog) -> Result<()> {
    let n = log.next_offset().0;
    let value = value(n);
    browser.tidy().map_err(refused)?;
    log.append(NewRecord::new(&value).key(["a", "b"][usize::try_from(n % 2).unwrap()]))?;
    Ok(())
}

fn refused(source: io::Error) -> Error {
    let (action, file) = ("tidy", String::new());
    Error::Io {
        action,
        file,
        source,
    }
}

fn hold_next(held: &mut Held, next: u64) -> u64 {
    held.insert(next, value(next));
    next + 1
}

const APPEND: Step = ("append", append, hold_next);
const BATCH: Step = (
    "append a batch",
    |browser, log| {
        browser.tidy().map_err(refused)?;
        let n = log.next_offset().0;
        let values: Vec<_> = (n..n + 4).map(value).collect();
        let records: Vec<_> = values.iter().map(NewRecord::new).collect();
        log.append_batch(records).map(drop)
    },
    |held, next| (0..4).fold(next, |next, _| hold_next(held, next)),
);
const TRUNCATE_BEFORE: Step = (
    "truncate before",
    |browser, log| {
        browser.tidy().map_err(refused)?;
        let to = log.segments_to_keep();
        browser.with_all_open(|| log.truncate_before(to))
    },
    // How much goes is up to the segments: the rest is compared by the log itself.
    |_, next| next,
);
const TRUNCATE_AFTER: Step = (
    "truncate after",
    |browser, log| {
        browser.tidy().map_err(refused)?;
        let last = Offset(log.next_offset().0 - 6);
        browser.with_all_open(|| log.truncate_after(last))
    },
    |held, next| {
        held.retain(|&offset, _| offset < next - 5);
        next - 5
    },
);
const COMPACT: Step = (
    "compact",
    |browser, log| {
        browser.tidy().map_err(refused)?;
        browser.open_files(&browser.files.closed_files());
        let compacted = browser.again(|| log.compact(&Compaction::new()))?;
        match &*compacted.left_alone {
            [] => Ok(()),
            left => Err(refused(io::Error::other(format!("{left:?}")))),
        }
    },
    |_, next| next,
);
const SKIP: Step = (
    "skip",
    |browser, log| {
        browser.tidy().map_err(refused)?;
        let to = Offset(log.next_offset().0 + 10);
        browser.with_all_open(|| log.skip_to(to))
    },
    |_, next| next + 10,
);
const SYNC: Step = ("sync", |_, log| log.sync(), |_, next| next);

trait SegmentsToKeep {
    fn segments_to_keep(&self) -> Offset;
}

impl SegmentsToKeep for OpfsLog {
    fn segments_to_keep(&self) -> Offset {
        Offset(self.lowest_offset().0 + (self.next_offset().0 - self.lowest_offset().0) / 3)
    }
}

fn script() -> Vec<Step> {
    let mut script = vec![APPEND; 9];
    script.extend([
        BATCH,
        APPEND,
        TRUNCATE_BEFORE,
        APPEND,
        BATCH,
        TRUNCATE_AFTER,
    ]);
    script.extend([APPEND, APPEND, BATCH, COMPACT, APPEND, SKIP, APPEND, BATCH]);
    script.extend([TRUNCATE_BEFORE, APPEND, SYNC, TRUNCATE_AFTER, APPEND]);
    script
}

/// Runs the script for as long as nothing fails. Gives the step that failed, if one did, what was to be held before it
/// and after it, and the next offsets.
fn run(browser: &Browser) -> (Option<&'static str>, [(Held, u64); 2]) {
    let mut before = (Held::new(), 0);
    let log = match browser.log(&options()) {
        Ok(log) => log,
        Err(e) => {
            assert!(is_io(&e), "{e}");
            return (Some("open"), [before.clone(), before]);
        }
    };
    for (name, change, hold) in script() {
        let mut after = before.clone();
        after.1 = hold(&mut after.0, before.1);
        if let Err(e) = change(browser, &log) {
            assert!(is_io(&e), "{name}: {e}");
            drop(log);
            return (Some(name), [before, after]);
        }
        before = after;
    }
    match log.close() {
        Ok(()) => (None, [before.clone(), before]),
        Err(_) => (Some("close"), [before.clone(), before]),
    }
}

/// What a stop left opens, holds what was promised, and goes on.
fn is_sound(disk: FaultBackend, what: &str, [before, after]: &[(Held, u64); 2]) {
    let browser = Browser::on(disk).unwrap_or_else(|e| panic!("{what}: {e}"));
    let log = browser.log(&options()).unwrap();
    let next = log.next_offset().0;
    let (least, most) = (before.1.min(after.1), before.1.max(after.1));
    assert!(
        (least..=most).contains(&next),
        "{what}: {next}, {least} to {most}"
    );
    for offset in log.lowest_offset().0..next {
        let read = browser.again(|| log.read(Offset(offset)));
        match read {
            Ok(record) => assert_eq!(record.value(), value(offset), "{what}: {offset}"),
            // Compacted or skipped, and of those the latest of each key stays.
            Err(Error::Gap { .. }) => {}
            Err(e) => panic!("{what}: {e}"),
        }
    }
    let report = browser.again(|| log.verify()).unwrap();
    assert!(report.is_sound(), "{what}: {report:?}");
    for _ in 0..6 {
        append(&browser, &log).unwrap();
    }
    log.close().unwrap();
    // Nothing is left of what has no name but spares.
    let directory = browser.directory();
    browser.tidy().unwrap();
    let files = browser.disk.list().unwrap().len();
    assert!(files <= 3 + directory.len() + 8, "{what}: {files} files");
}

#[test]
fn a_log_is_sound_wherever_it_is_stopped() {
    let whole = Browser::on(FaultBackend::new()).unwrap();
    let (stopped, _) = run(&whole);
    assert_eq!(stopped, None);
    let operations = whole.disk.operations();
    assert!(operations > 300, "{operations}");
    let mut steps = BTreeMap::new();
    for at in 0..operations {
        let fault = if at % 2 == 0 {
            Fault::Error
        } else {
            Fault::Half
        };
        let disk = FaultBackend::new();
        disk.fail(at, fault);
        let Ok(browser) = Browser::on(disk.clone()) else {
            is_sound(disk.killed(), "killed at first", &Default::default());
            continue;
        };
        let (stopped, held) = run(&browser);
        let what = format!("{} at {at}", stopped.unwrap_or("done"));
        *steps.entry(stopped).or_insert(0) += 1;
        is_sound(disk.killed(), &format!("killed, {what}"), &held);
        for (n, state) in disk.power_cuts(12, at).enumerate() {
            is_sound(state, &format!("without power ({n}), {what}"), &held);
        }
    }
    println!("{operations} operations, stopped in {steps:?}");
    assert!(steps.len() > 7, "{steps:?}");
}

#[test]
fn what_is_there_is_what_the_file_system_would_have() {
    let browser = Browser::on(FaultBackend::new()).unwrap();
    browser.calls.bytes_max.set(Some(7));
    let temporary = tempfile::tempdir().unwrap();
    let native = Log::open_on(FsBackend::open(temporary.path()).unwrap(), options()).unwrap();
    let log = browser.log(&options()).unwrap();
    let record = |n: u64| ["x", "", "a value of some length"][usize::try_from(n % 3).unwrap()];
    for n in 0..60 {
        browser.tidy().unwrap();
        assert_eq!(
            log.append(record(n)).unwrap(),
            native.append(record(n)).unwrap()
        );
    }
    browser.tidy().unwrap();
    browser
        .with_all_open(|| log.truncate_before(Offset(20)))
        .unwrap();
    native.truncate_before(Offset(20)).unwrap();
    browser
        .with_all_open(|| log.truncate_after(Offset(50)))
        .unwrap();
    native.truncate_after(Offset(50)).unwrap();
    log.close().unwrap();
    native.close().unwrap();
    let mut natively: Vec<_> = std::fs::read_dir(temporary.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    natively.sort();
    assert_eq!(browser.directory(), natively);

    // And it can be brought here.
    let other = Browser::on(FaultBackend::new()).unwrap();
    for (name, bytes) in &natively {
        other.tidy().unwrap();
        other
            .files
            .import(name)
            .unwrap()
            .write_at(bytes, 0)
            .unwrap();
    }
    assert!(other.files.list().unwrap().is_empty());
    let stopped = Browser::on(other.disk.killed()).unwrap();
    assert!(stopped.files.list().unwrap().is_empty());
    other.files.finish_import().unwrap();
    assert_eq!(other.directory(), natively);
    let disk = other.disk.power_cut(1);
    let other = Browser::on(disk).unwrap();
    let log = other.log(&options()).unwrap();
    assert_eq!(log.next_offset(), Offset(51));
    assert_eq!(log.append("goes on").unwrap(), Offset(51));
}

#[test]
fn a_durable_append_is_a_write_a_flush_and_an_entry() {
    let browser = Browser::on(FaultBackend::new()).unwrap();
    let log = browser.log(&Options::new()).unwrap();
    log.append("first").unwrap();
    let calls = || (browser.calls.writes.get(), browser.calls.flushes.get());
    let (writes, flushes) = calls();
    for _ in 0..100 {
        log.append("another").unwrap();
    }
    let (writes_after, flushes_after) = calls();
    println!(
        "100 durable appends: {} writes, {} flushes",
        writes_after - writes,
        flushes_after - flushes
    );
    // Of the store, and of the index, which needs no flush. The first append made room.
    assert_eq!((writes_after - writes, flushes_after - flushes), (200, 100));
    log.append_batch(["a", "b", "c"]).unwrap();
    assert_eq!(calls(), (writes_after + 2, flushes_after + 1));
    let large = vec![b'x'; 100_000];
    log.append(&large).unwrap();
    assert_eq!(calls(), (writes_after + 4, flushes_after + 2));
}

/// A log of twenty records that was killed at rest, and how many bytes its store has past them.
fn killed_at_rest() -> (Browser, usize) {
    let browser = Browser::on(FaultBackend::new()).unwrap();
    let log = browser.log(&Options::new()).unwrap();
    for n in 0..20 {
        log.append(&value(n)).unwrap();
    }
    let killed = Browser::on(browser.disk.killed()).unwrap();
    let (_, store) = killed.directory().swap_remove(1);
    let zeros = store.iter().rev().take_while(|&&byte| byte == 0).count();
    (killed, zeros)
}

#[test]
fn a_log_that_is_killed_at_rest_opens_without_a_scan() {
    let (browser, zeros) = killed_at_rest();
    assert!(zeros > 60_000, "{zeros}");
    let log = browser.log(&Options::new()).unwrap();
    assert!(log.recovery_report().segments.is_empty());
    assert_eq!(log.next_offset(), Offset(20));
    assert_eq!(log.durable_offset(), Offset(20));
    let (name, store) = browser.directory().swap_remove(1);
    assert_eq!(name, "0.store");
    assert_ne!(store.last(), Some(&0));
    log.append(&value(20)).unwrap();
    for offset in 0..21 {
        assert_eq!(log.read(Offset(offset)).unwrap().value(), value(offset));
    }
    assert!(log.verify().unwrap().is_sound());
}

#[test]
fn what_stands_in_space_that_was_prepared_is_found_by_a_scan() {
    // A record that was written and not flushed: it counts. Another byte: it is a torn tail.
    for (bytes, kept) in [(None, 21), (Some(*b"stray"), 20)] {
        for from_end in [true, false] {
            let (browser, zeros) = killed_at_rest();
            browser.open_files(&browser.files.closed_files());
            let store = browser.files.open("0.store", Access::Write).unwrap();
            let end = store.len().unwrap() - zeros as u64;
            match bytes {
                Some(bytes) if from_end => store.write_at(&bytes, end + zeros as u64 - 5).unwrap(),
                Some(bytes) => store.write_at(&bytes, end).unwrap(),
                None => {
                    let other = Browser::on(FaultBackend::new()).unwrap();
                    let log = other.log(&Options::new()).unwrap();
                    for n in 0..21 {
                        log.append(&value(n)).unwrap();
                    }
                    drop(log);
                    let (_, whole) = other.directory().swap_remove(1);
                    let at = usize::try_from(end).unwrap();
                    store.write_at(&whole[at..], end).unwrap();
                }
            }
            drop(store);
            let log = browser.log(&Options::new()).unwrap();
            assert_eq!(log.recovery_report().segments.len(), 1, "{bytes:?}");
            assert_eq!(log.next_offset(), Offset(kept), "{bytes:?}");
            assert_eq!(log.append("next").unwrap(), Offset(kept));
            assert!(log.verify().unwrap().is_sound());
        }
    }
}

#[test]
fn who_tells_of_more_than_was_asked_is_not_believed() {
    let browser = Browser::on(FaultBackend::new()).unwrap();
    let log = browser.log(&options()).unwrap();
    append(&browser, &log).unwrap();
    browser.calls.lies.set(true);
    assert!(matches!(log.append("lost"), Err(Error::Io { .. })));
    drop(log);
    assert!(browser.log(&options()).is_err());
    browser.calls.lies.set(false);
    let log = browser.log(&options()).unwrap();
    assert_eq!(log.next_offset(), Offset(1));
    assert_eq!(log.read(Offset(0)).unwrap().value(), value(0));
}

#[test]
fn few_files_stay_open() {
    let browser = Browser::on(FaultBackend::new()).unwrap();
    let log = browser.log(&options()).unwrap();
    for n in 0..400 {
        browser.tidy().unwrap();
        assert_eq!(log.append("a value of some length").unwrap(), Offset(n));
    }
    for offset in (0..400).rev() {
        browser.again(|| log.read(Offset(offset))).unwrap();
        browser.tidy().unwrap();
        // The core keeps 32 segments open.
        assert!(
            browser.calls.open.get() < 90,
            "{}",
            browser.calls.open.get()
        );
    }
    assert!(browser.files.list().unwrap().len() > 120);
    log.close().unwrap();
    browser.tidy().unwrap();
    assert!(
        browser.calls.open.get() <= 3 + 4 + 8,
        "{}",
        browser.calls.open.get()
    );
    browser.files.close();
    assert_eq!(browser.calls.open.get(), 0);
}

#[test]
fn old_bytes_do_not_come_back_under_another_name() {
    let browser = Browser::on(FaultBackend::new()).unwrap();
    for n in 0..40 {
        let file = browser.files.open("a", Access::Create).unwrap();
        assert!(file.is_empty().unwrap());
        file.write_at(b"old bytes", 0).unwrap();
        file.sync().unwrap();
        browser.files.sync_directory().unwrap();
        if n % 2 == 0 {
            browser.files.open("b", Access::Create).unwrap();
            browser.files.rename("b", "a").unwrap();
            assert!(file.is_removed().unwrap());
            // Who has it open goes on reading it.
            assert_eq!(read_all(&file), b"old bytes");
        }
        drop(file);
        browser.files.remove("a").unwrap();
        for state in browser.disk.power_cuts(16, n) {
            let after = Browser::on(state).unwrap();
            for (name, bytes) in after.directory() {
                assert!(
                    name == "b" || bytes == b"old bytes" || n % 2 == 0,
                    "{name} {bytes:?}"
                );
            }
            after.tidy().unwrap();
            let made = after.files.open("c", Access::Create).unwrap();
            assert!(made.is_empty().unwrap());
        }
        browser.files.sync_directory().unwrap();
        browser.tidy().unwrap();
    }
}

#[test]
fn a_name_that_comes_back_has_its_bytes() {
    for n in 0..20 {
        // Of so small sectors that a manifest is torn.
        let browser = Browser::on(FaultBackend::with_sector_bytes(8)).unwrap();
        let names = ["a", "b", "c", "d"];
        for name in names {
            let file = browser.files.open(name, Access::Create).unwrap();
            file.write_at(name.as_bytes(), 0).unwrap();
            file.sync().unwrap();
        }
        browser.files.sync_directory().unwrap();
        for name in names {
            browser.files.remove(name).unwrap();
            // What has no name any more is not to be had yet.
            browser.tidy().unwrap();
            browser.files.open("other", Access::Create).unwrap();
            browser.files.remove("other").unwrap();
            for state in browser.disk.power_cuts(32, n) {
                let after = Browser::on(state).unwrap();
                for (name, bytes) in after.directory() {
                    let expected = if name == "other" { "" } else { &name };
                    assert_eq!(bytes, expected.as_bytes(), "{name}");
                }
            }
        }
    }
}

#[test]
fn who_reads_a_file_that_is_cut_keeps_it() {
    let browser = Browser::on(FaultBackend::new()).unwrap();
    let file = browser.files.open("a", Access::Create).unwrap();
    file.write_at(b"0123456789", 0).unwrap();
    browser.files.cut("a", 7).unwrap();
    assert_eq!(read_all(&file), b"0123456789");
    assert!(file.is_removed().unwrap());
    let cut = browser.files.open("a", Access::Read).unwrap();
    assert_eq!(read_all(&cut), b"0123456");
    drop((file, cut));
    browser.files.cut("a", 3).unwrap();
    assert_eq!(browser.directory(), [("a".to_owned(), b"012".to_vec())]);
}

#[test]
fn a_full_disk_is_told_and_what_was_acknowledged_stays() {
    for room_bytes in (0..300).step_by(7) {
        let browser = Browser::on(FaultBackend::new()).unwrap();
        let log = browser.log(&options()).unwrap();
        for _ in 0..10 {
            append(&browser, &log).unwrap();
        }
        browser.calls.room_bytes.set(Some(room_bytes));
        let error = (0..20).find_map(|_| append(&browser, &log).err()).unwrap();
        assert!(
            matches!(&error, Error::Io { source, .. } if source.kind() == io::ErrorKind::QuotaExceeded),
            "{error}"
        );
        let acknowledged = log.next_offset();
        drop(log);
        let log = browser.log(&options()).unwrap();
        assert!(log.next_offset() >= acknowledged);
        for offset in 0..acknowledged.0 {
            let record = browser.again(|| log.read(Offset(offset))).unwrap();
            assert_eq!(record.value(), value(offset));
        }
        // Room is made by what is removed, also by a truncation.
        browser
            .with_all_open(|| log.truncate_before(Offset(6)))
            .unwrap();
        browser.calls.room_bytes.set(None);
        for _ in 0..10 {
            append(&browser, &log).unwrap();
        }
    }
}
