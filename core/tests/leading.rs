//! The right to sync, seal and truncate, which one thread has at a time: no one waits for it without end, and it is
//! not lost with a thread that panics.
#![cfg(not(target_family = "wasm"))]

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread,
    time::Duration,
};

use proglog::{
    Access, Backend, BackendFile, Error, FaultBackend, FaultFile, Log, Offset, Options, Result,
};

/// A disk that counts its syncs, which take a while, or panic.
#[derive(Clone, Debug, Default)]
struct Disk {
    inner: FaultBackend,
    syncs: Arc<AtomicU64>,
    panics: Arc<AtomicBool>,
}

#[derive(Debug)]
struct File {
    inner: FaultFile,
    disk: Disk,
}

impl Backend for Disk {
    type File = File;

    fn name(&self) -> String {
        self.inner.name()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<File> {
        let inner = self.inner.open(name, access)?;
        let disk = self.clone();
        Ok(File { inner, disk })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.inner.sync_directory()
    }
}

impl BackendFile for File {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.inner.write_at(bytes, position)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.inner.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        assert!(!self.disk.panics.load(SeqCst), "as was asked for");
        thread::sleep(Duration::from_micros(20));
        self.disk.syncs.fetch_add(1, Relaxed);
        self.inner.sync()
    }
}

#[test]
fn a_truncation_waits_for_no_more_than_the_sync_that_runs() {
    // More where this thread had to wait for a processor.
    let mut longest: Vec<u64> = (0..5).map(|_| longest_wait()).collect();
    longest.sort_unstable();
    assert!(longest[2] <= 20, "{longest:?} syncs");
}

/// For how many syncs of others one of several truncations waited, at the most.
fn longest_wait() -> u64 {
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), Options::new()).expect("opened");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                while !stop.load(Relaxed) {
                    log.append("again and again").expect("appended");
                }
            });
        }
        let waits = (0..40).map(|_| {
            // All others are at it.
            let go_on = disk.syncs.load(Relaxed) + 20;
            while disk.syncs.load(Relaxed) < go_on {
                thread::yield_now();
            }
            let before = disk.syncs.load(Relaxed);
            log.truncate_before(Offset(0)).expect("truncated");
            disk.syncs.load(Relaxed) - before
        });
        let longest = waits.max().unwrap_or_default();
        stop.store(true, Relaxed);
        longest
    })
}

#[test]
fn a_panic_while_syncing_poisons() -> Result<()> {
    let disk = Disk::default();
    let log = Log::open_on(disk.clone(), Options::new())?;
    log.append("kept")?;
    disk.panics.store(true, SeqCst);
    let append = AssertUnwindSafe(|| log.append("unknown").map(drop));
    assert!(catch_unwind(append).is_err());
    disk.panics.store(false, SeqCst);
    for refused in [log.append("refused").map(drop), log.sync()] {
        match refused {
            Err(Error::Poisoned { cause }) => assert!(cause.contains("panicked"), "{cause}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(log.read(Offset(0))?.value(), b"kept");
    assert_eq!(log.durable_offset(), Offset(1));
    drop(log);
    let log = Log::open_on(disk, Options::new())?;
    log.append("goes on")?;
    Ok(())
}
