//! A record that is found damaged in the active segment has its index made anew, while appends go on and
//! a worker prepares the file.
#![cfg(not(target_family = "wasm"))]

use std::{thread, time::Duration};

use proglog::{
    Access, Backend, BackendFile, Clock, Durability, Error, Fault, FaultBackend, FsBackend, Log,
    Offset, Options,
};

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}

/// Spoils a byte of record 0, which must be longer than that.
fn damage(files: &impl Backend) {
    let store = files.open("0.store", Access::Write).expect("a store");
    store.write_at(b"X", 25).expect("written");
}

/// An open log on a disk where record 0 is damaged, which was not noticed yet; record 1 waits to be written.
fn damaged(disk: &FaultBackend) -> Log<FaultBackend> {
    let log = Log::open_on(disk.clone(), options()).expect("opened");
    log.append("to be damaged").expect("appended");
    log.close().expect("closed");
    let log = Log::open_on(disk.clone(), options()).expect("opened");
    let appended = log.append_with("good", Durability::Buffered);
    appended.expect("appended");
    damage(disk);
    log
}

/// The worker had been told to write zeros, by someone who knew nothing of these appends.
#[test]
fn later_appends_stay() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("log");
    let log = Log::open(&path, options()).expect("opened");
    log.append("to be damaged").expect("appended");
    log.close().expect("closed");
    let log = Log::open(&path, options()).expect("opened");
    let value = vec![1; 60_000];
    for _ in 0..120 {
        log.append(&value).expect("appended");
    }
    // Some time after so many syncs more is prepared.
    damage(&FsBackend::open_read_only(&path).expect("a directory"));
    assert!(matches!(log.read(Offset(0)), Err(Error::Corrupt { .. })));
    for _ in 0..300 {
        let appended = log.append_with(&value, Durability::Written);
        appended.expect("appended");
    }
    thread::sleep(Duration::from_millis(300));
    for record in log.scan(Offset(1)..) {
        assert_eq!(record.expect("what was appended is read").value(), value);
    }
}

#[test]
fn a_failed_write_poisons() {
    for operation in 0.. {
        let disk = FaultBackend::new();
        let log = damaged(&disk);
        disk.fail(disk.operations() + operation, Fault::Error);
        match log.read(Offset(0)) {
            Err(Error::Io { .. }) => {
                let appended = log.append("after that");
                assert!(
                    matches!(appended, Err(Error::Poisoned { .. })),
                    "{operation}: {appended:?}"
                );
            }
            // It was not reached any more.
            found => {
                assert!(matches!(found, Err(Error::Corrupt { .. })), "{found:?}");
                assert!(operation > 0);
                return;
            }
        }
    }
}

#[test]
fn a_record_whose_sync_failed_is_not_shown() {
    let disk = FaultBackend::new();
    let log = damaged(&disk);
    assert_eq!(log.next_offset(), Offset(2));
    // The first is the write.
    disk.fail(disk.operations() + 1, Fault::Error);
    assert!(matches!(log.append("unsynced"), Err(Error::Io { .. })));
    assert_eq!(log.next_offset(), Offset(2));
    assert!(matches!(log.read(Offset(0)), Err(Error::Corrupt { .. })));
    assert_eq!(log.next_offset(), Offset(2));
}
