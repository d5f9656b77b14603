//! Space that is reserved, as who maps the store meanwhile and who follows it find it.
#![cfg(target_os = "linux")]

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use proglog::{
    Access, Backend, BackendFile, Durability, FsBackend, FsFile, Log, Options, Tail, Views,
};

/// A directory in which other threads get their turn before a file is mapped, and what is read by calls is counted.
#[derive(Debug)]
struct Watched(FsBackend, Arc<AtomicU64>);

#[derive(Debug)]
struct WatchedFile(FsFile, Arc<AtomicU64>);

impl Backend for Watched {
    type File = WatchedFile;

    fn name(&self) -> String {
        self.0.name()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<WatchedFile> {
        let file = self.0.open(name, access)?;
        Ok(WatchedFile(file, Arc::clone(&self.1)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn prepare_bytes(&self) -> u64 {
        self.0.prepare_bytes()
    }

    /// Asked for once it is known how far the records reach, before any space is made.
    fn available_bytes(&self) -> io::Result<Option<u64>> {
        thread::sleep(Duration::from_millis(40));
        self.0.available_bytes()
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.0.sync_directory()
    }
}

impl BackendFile for WatchedFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let read = self.0.read_at(buffer, position)?;
        self.1.fetch_add(read as u64, Relaxed);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.0.write_at(bytes, position)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn map(&self, bytes: u64) -> io::Result<Option<Views>> {
        self.0.map(bytes)
    }

    fn map_tail(&self, position: u64, bytes: usize) -> io::Result<Option<Tail>> {
        thread::sleep(Duration::from_millis(80));
        self.0.map_tail(position, bytes)
    }
}

/// A mapped hole that is written on a full disk ends the process.
#[test]
fn what_is_mapped_has_no_holes_while_space_is_reserved() {
    let directory = tempfile::tempdir().expect("a directory");
    let backend = FsBackend::open(directory.path()).expect("opened");
    let backend = Watched(backend, Arc::default());
    let log = Log::open_on(backend, Options::new().durability(Durability::Buffered));
    let log = log.expect("opened");
    let together = Barrier::new(2);
    thread::scope(|threads| {
        threads.spawn(|| {
            together.wait();
            log.reserve(1 << 20).expect("reserved");
        });
        together.wait();
        thread::sleep(Duration::from_millis(20));
        log.append("a").expect("appended");
    });
    let store = fs::metadata(directory.path().join("0.store")).expect("there");
    assert!(store.len() >= 1 << 20);
    let there = store.blocks() * 512;
    assert!(there >= store.len(), "{there} of {} bytes", store.len());
}

#[test]
fn a_follower_does_not_look_through_what_is_reserved() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options::new().durability(Durability::Written);
    let log = Log::open(directory.path(), options.clone()).expect("opened");
    let read = Arc::new(AtomicU64::new(0));
    let backend = FsBackend::open_read_only(directory.path()).expect("opened");
    let backend = Watched(backend, Arc::clone(&read));
    let reader = Log::open_read_only_on(backend, options).expect("opened");
    log.reserve(8 << 20).expect("reserved");
    for n in 0..20 {
        // Also before the first record: from offset 0 on zeros could be one.
        reader.refresh().expect("refreshed");
        assert_eq!(reader.next_offset().0, n);
        log.append("a").expect("appended");
    }
    let read = read.load(Relaxed);
    assert!(read < 4 << 20, "{read} bytes were read");
}

#[test]
fn a_log_with_space_reserved_is_opened_to_read_while_it_is_appended_to() {
    const APPENDED_FOR: Duration = Duration::from_secs(5);

    let directory = tempfile::tempdir().expect("a directory");
    let options = Options::new().durability(Durability::Written);
    let log = Log::open(directory.path(), options.clone()).expect("opened");
    log.append("a").expect("appended");
    log.reserve(32 << 20).expect("reserved");
    let (stop, since) = (AtomicBool::new(false), Instant::now());
    thread::scope(|threads| {
        threads.spawn(|| {
            while !stop.load(Relaxed) && since.elapsed() < APPENDED_FOR {
                log.append("a").expect("appended");
                thread::sleep(Duration::from_millis(1));
            }
        });
        let reader = Log::open_read_only(directory.path(), options).expect("opened");
        let report = reader.verify().expect("looked through");
        let took = since.elapsed();
        stop.store(true, Relaxed);
        assert!(report.is_sound());
        assert!(took < APPENDED_FOR, "not before no one appended any more");
    });
}
