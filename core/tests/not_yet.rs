//! Files that can be opened only between calls, as in a browser: a call that needs one more says so and has changed
//! nothing, and gives what it always does once the file is open.
#![cfg(not(target_family = "wasm"))]

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    io,
    rc::Rc,
};

use proglog::{
    Access, Backend, BackendFile, Clock, Compaction, Error, Fault, FaultBackend, FaultFile, Log,
    NewRecord, Offset, Options, Result, Retention,
};

/// A disk whose files have to be asked for once before they can be opened.
#[derive(Clone, Debug, Default)]
struct Disk {
    files: FaultBackend,
    ready: Rc<RefCell<BTreeSet<String>>>,
    refused: Rc<Cell<u32>>,
    /// How many more files can be made before others are made ready, if that is limited.
    spares: Rc<Cell<Option<u32>>>,
}

impl Disk {
    /// Has every file asked for anew, and gives how often one was refused.
    fn forget(&self) -> u32 {
        self.ready.borrow_mut().clear();
        self.refused.take()
    }

    fn refuse(&self) -> io::Error {
        self.refused.set(self.refused.get() + 1);
        io::ErrorKind::WouldBlock.into()
    }

    /// As who opens them all before a call that changes something.
    fn open_all(&self) {
        self.ready
            .borrow_mut()
            .extend(self.files.list().unwrap_or_default());
    }
}

impl Backend for Disk {
    type File = FaultFile;

    fn name(&self) -> String {
        self.files.name()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<FaultFile> {
        let is_there = self.files.get(name).is_some();
        if self.ready.borrow_mut().insert(name.to_owned()) && is_there {
            return Err(self.refuse());
        }
        if !is_there && access == Access::Create {
            match self.spares.get() {
                Some(0) => {
                    self.spares.set(Some(4));
                    return Err(self.refuse());
                }
                spares => self.spares.set(spares.map(|spares| spares - 1)),
            }
        }
        self.files.open(name, access)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.ready.borrow_mut().insert(to.to_owned());
        self.files.rename(from, to)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.files.sync_directory()
    }
}

/// Calls again for as long as a file has to be opened first.
fn again<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => {}
            called => return called,
        }
    }
}

fn options() -> Options {
    Options::new()
        .segment_bytes_max(150)
        .index_bytes_max(120)
        .clock(Clock::NONE)
}

fn open(disk: &Disk) -> Log<Disk> {
    again(|| Log::open_on(disk.clone(), options())).unwrap()
}

fn keyed(n: u8) -> NewRecord<'static> {
    const VALUES: [&str; 4] = ["a", "bb", "ccc", ""];
    NewRecord::new(VALUES[usize::from(n % 4)])
        .key(["k", "l", "m"][usize::from(n % 3)])
        .timestamp_ms(1000 + u64::from(n))
        .producer("p", u64::from(n))
}

/// Some segments, with records that are not there and others skipped.
fn filled(disk: &Disk) -> Log<Disk> {
    let log = open(disk);
    for n in 0..20 {
        log.append(keyed(n)).unwrap();
    }
    log.skip_to(Offset(30)).unwrap();
    for n in 20..40 {
        log.append(keyed(n)).unwrap();
    }
    log
}

/// All that can be read.
fn contents(log: &Log<Disk>) -> Vec<String> {
    let offsets = (0..log.next_offset().0 + 2).map(Offset);
    let mut all: Vec<String> = offsets
        .map(|offset| match again(|| log.read(offset)) {
            Ok(record) => format!("{offset} {:?} {:?}", record.key(), record.value()),
            Err(e) => e.to_string(),
        })
        .collect();
    all.push(format!("{:?}", again(|| log.verify()).unwrap()));
    let since = again(|| log.scan_from_time(1022)?.next().transpose()).unwrap();
    all.push(format!("{:?}", since.map(|record| record.offset())));
    all.push(format!("{:?}", again(|| log.producer_last(b"p")).unwrap()));
    all
}

/// A filled log that was closed, as [`contents`] gives it.
fn closed(disk: &Disk) -> Vec<String> {
    let log = filled(disk);
    disk.open_all();
    let all = contents(&log);
    log.close().unwrap();
    all
}

#[test]
fn what_is_read_is_the_same_once_the_files_are_open() {
    let disk = Disk::default();
    let expected = closed(&disk);
    disk.forget();
    let log = open(&disk);
    assert_eq!(contents(&log), expected);
    assert!(disk.forget() > 10);
    // And nothing that was refused stands in the way of appends.
    let next = log.next_offset();
    assert_eq!(log.append(keyed(41)).unwrap(), next);
    log.close().unwrap();
}

#[test]
fn what_the_next_segment_tells_of_is_not_called_missing() {
    let disk = Disk::default();
    let log = filled(&disk);
    disk.open_all();
    let expected = log.verify().unwrap();
    log.close().unwrap();
    let log = open(&disk);
    for name in disk.files.list().unwrap() {
        disk.open_all();
        disk.ready.borrow_mut().remove(&name);
        assert_eq!(again(|| log.verify()).unwrap(), expected, "{name}");
    }
}

#[test]
fn segments_that_were_opened_stay_so_whatever_else_has_to_be() {
    let disk = Disk::default();
    filled(&disk).close().unwrap();
    let log = open(&disk);
    again(|| log.read(Offset(0))).unwrap();
    disk.forget();
    assert!(log.read(Offset(15)).is_err());
    assert_eq!(log.read(Offset(0)).unwrap().offset(), Offset(0));
}

#[test]
fn indexes_are_made_anew_with_the_gap_that_the_next_segment_tells_of() {
    let disk = Disk::default();
    let expected = closed(&disk);
    let mut indexes = disk.files.list().unwrap();
    indexes.retain(|name| name.ends_with(".index"));
    let as_closed: Vec<_> = indexes.iter().map(|name| disk.files.get(name)).collect();
    for name in &indexes {
        let index = disk.files.open(name, Access::Write).unwrap();
        let bytes = index.len().unwrap();
        index.set_len(bytes - 5).unwrap();
    }
    disk.forget();
    let log = open(&disk);
    assert_eq!(contents(&log), expected);
    log.close().unwrap();
    // In the files too.
    let mended = indexes.iter().zip(&as_closed);
    let mended = mended.filter(|(name, as_closed)| disk.files.get(name) == **as_closed);
    assert_eq!(mended.count(), indexes.len());
}

#[test]
fn timestamps_go_on_where_a_segment_before_has_to_be_opened() {
    let disk = Disk::default();
    let log = open(&disk);
    // By itself in its segment.
    let value = "x".repeat(200);
    log.append(NewRecord::new(&value).timestamp_ms(5000))
        .unwrap();
    while log.segments().len() < 4 {
        log.append("without a timestamp").unwrap();
    }
    log.skip_to(log.next_offset().next()).unwrap();
    log.close().unwrap();
    disk.forget();
    let log = open(&disk);
    let offset = log.append(NewRecord::new("x").timestamp_ms(7)).unwrap();
    let record = again(|| log.read(offset)).unwrap();
    assert_eq!(record.timestamp_ms(), Some(5000));
}

#[test]
fn a_compaction_that_was_refused_leaves_nothing_alone() {
    let disk = Disk::default();
    let log = filled(&disk);
    log.close().unwrap();
    let plain = Disk::default();
    let expected = {
        let log = filled(&plain);
        plain.open_all();
        log.compact(&Compaction::new()).unwrap()
    };
    disk.forget();
    let log = open(&disk);
    disk.spares.set(Some(0));
    let compacted = again(|| log.compact(&Compaction::new())).unwrap();
    // What it did before it was refused stays done.
    assert!(compacted.left_alone.is_empty(), "{compacted:?}");
    assert!(compacted.records_removed < expected.records_removed);
    assert!(disk.refused.get() > 3);
    let left = log.scan(..).count() as u64;
    assert_eq!(left, 40 - expected.records_removed);
}

#[test]
fn what_changes_the_log_needs_nothing_more_once_all_is_open() {
    let disk = Disk::default();
    filled(&disk).close().unwrap();
    for change in [
        (|log| log.truncate_before(Offset(12))) as fn(&Log<Disk>) -> Result<()>,
        |log| log.truncate_after(Offset(34)),
        |log| log.truncate_after(Offset(15)),
        |log| log.enforce_retention_with(&Retention::new().bytes_max(300), None),
        |log| log.append(keyed(50)).map(drop),
        |log| log.reset(),
    ] {
        disk.forget();
        let log = open(&disk);
        disk.open_all();
        disk.refused.set(0);
        change(&log).unwrap();
        log.append("goes on").unwrap();
        assert_eq!(disk.refused.get(), 0);
        log.close().unwrap();
    }
}

#[test]
fn a_killed_log_is_recovered_once_its_files_are_open() {
    let disk = Disk::default();
    let log = filled(&disk);
    disk.open_all();
    let expected = contents(&log);
    let operations = disk.files.operations();
    disk.files.fail(operations, Fault::Half);
    assert!(log.append("torn").is_err());
    let killed = Disk {
        files: disk.files.killed(),
        ..Disk::default()
    };
    let log = open(&killed);
    assert!(killed.forget() >= 2);
    let found = contents(&log);
    assert_eq!(found[..50], expected[..50]);
}
