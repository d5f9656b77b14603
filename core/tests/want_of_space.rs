//! A disk whose space is counted: what was prepared ahead of the records keeps nothing from being appended.

use std::{cell::Cell, io, rc::Rc};

use proglog::{
    Access, Backend, BackendFile, Error, Log, MemoryBackend, MemoryFile, Offset, Options, Result,
};

/// A disk with so many bytes, which has them for files alone, and zeros written ahead as in a browser.
#[derive(Clone, Debug)]
struct Small {
    disk: MemoryBackend,
    free: Rc<Cell<u64>>,
    prepare_bytes: u64,
    /// Whether the next stores are made ahead too.
    prepares_files: bool,
    /// Whether it says how much is free.
    tells_free: bool,
}

#[derive(Debug)]
struct SmallFile(MemoryFile, Rc<Cell<u64>>);

impl Small {
    fn new(bytes: u64, prepare_bytes: u64) -> Self {
        Self {
            disk: MemoryBackend::new(),
            free: Rc::new(Cell::new(bytes)),
            prepare_bytes,
            prepares_files: false,
            tells_free: false,
        }
    }

    fn bytes_of(&self, name: &str) -> io::Result<u64> {
        self.disk.open(name, Access::Read)?.len()
    }
}

impl Backend for Small {
    type File = SmallFile;

    fn name(&self) -> String {
        self.disk.name()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<SmallFile> {
        let file = self.disk.open(name, access)?;
        Ok(SmallFile(file, Rc::clone(&self.free)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let bytes = self.bytes_of(name)?;
        self.free.set(self.free.get() + bytes);
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn prepare_bytes(&self) -> u64 {
        self.prepare_bytes
    }

    fn prepares_files(&self) -> bool {
        self.prepares_files
    }

    fn available_bytes(&self) -> io::Result<Option<u64>> {
        Ok(self.tells_free.then(|| self.free.get()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.disk.sync_directory()
    }
}

impl SmallFile {
    /// Takes what a file of so many bytes has more than there is, or gives it back.
    fn grow(&self, bytes: u64) -> io::Result<()> {
        let (had, free) = (self.0.len()?, self.1.get());
        let left = (free + had).checked_sub(bytes);
        self.1.set(left.ok_or(io::ErrorKind::StorageFull)?);
        Ok(())
    }
}

impl BackendFile for SmallFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.0.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.grow(self.0.len()?.max(position + bytes.len() as u64))?;
        self.0.write_at(bytes, position)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.grow(bytes)?;
        self.0.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}

const SEGMENT_BYTES_MAX: u64 = 1 << 20;
const PREPARED_BYTES: u64 = 1 << 20;

fn open(disk: &Small) -> Result<Log<Small>> {
    Log::open_on(
        disk.clone(),
        Options::new().segment_bytes_max(SEGMENT_BYTES_MAX),
    )
}

/// Appends until the disk is full, and gives how many records there are then.
fn fill(log: &Log<Small>, value: &[u8]) -> u64 {
    loop {
        match log.append(value) {
            Ok(_) => {}
            Err(Error::Io { source, .. }) => {
                assert_eq!(source.kind(), io::ErrorKind::StorageFull);
                return log.durable_offset().0;
            }
            Err(e) => panic!("{e}"),
        }
    }
}

#[test]
fn zeros_written_ahead_keep_no_record_from_being_appended() -> Result<()> {
    for bytes in [40_000, 100_000, 300_000, 1_000_000, 3_000_000] {
        for value in [&[7; 20][..], &[7; 200], &[7; 3000]] {
            let plain = Small::new(bytes, 0);
            let records = fill(&open(&plain)?, value);
            let small = Small::new(bytes, PREPARED_BYTES);
            let log = open(&small)?;
            let appended = fill(&log, value);
            // One is not acknowledged for want of its entry, where space is lacking for that alone.
            assert!(
                appended + 1 >= records,
                "{bytes}, {}: {appended} of {records}",
                value.len()
            );
            drop(log);

            let log = open(&small)?;
            assert!(log.next_offset().0 >= appended);
            for offset in 0..appended {
                assert_eq!(log.read(Offset(offset))?.value(), value);
            }
            assert!(log.verify()?.is_sound());
        }
    }
    Ok(())
}

#[test]
fn where_others_fill_the_disk_the_index_has_what_was_prepared() -> Result<()> {
    let small = Small::new(10_000_000, PREPARED_BYTES);
    let log = open(&small)?;
    for _ in 0..500 {
        log.append(&[7; 200])?;
    }
    small.free.set(0);
    for offset in 500..700 {
        assert_eq!(log.append(&[7; 200])?, Offset(offset));
    }
    log.close()?;
    let log = open(&small)?;
    assert_eq!(log.next_offset(), Offset(700));
    assert!(log.verify()?.is_sound());
    Ok(())
}

#[test]
fn where_the_index_had_what_was_prepared_there_is_more_once_it_is_asked_for() -> Result<()> {
    let small = Small::new(10_000_000, PREPARED_BYTES);
    let log = open(&small)?;
    for _ in 0..500 {
        log.append(&[7; 200])?;
    }
    let free = small.free.replace(0);
    for _ in 500..700 {
        log.append(&[7; 200])?;
    }
    small.free.set(free);
    let frames = small.bytes_of("0.store").unwrap();
    log.reserve(1000)?;
    assert!(small.bytes_of("0.store").unwrap() >= frames + 1000);
    // It goes further than that, and is not filled over.
    log.append(&[8; 40_000])?;
    log.reserve(100_000)?;
    assert!(small.bytes_of("0.store").unwrap() >= frames + 140_000);
    log.append("last")?;
    log.close()?;
    let log = open(&small)?;
    assert!(log.verify()?.is_sound());
    assert_eq!(log.next_offset(), Offset(702));
    Ok(())
}

#[test]
fn files_that_were_prepared_are_given_back_too() -> Result<()> {
    let small = Small {
        prepares_files: true,
        ..Small::new(20_000_000, PREPARED_BYTES)
    };
    let log = open(&small)?;
    log.append("first")?;
    log.reserve(4 * SEGMENT_BYTES_MAX)?;
    small.free.set(0);
    let records = fill(&log, &[7; 1000]);
    let taken = records * 1000;
    assert!(
        taken > 7 * SEGMENT_BYTES_MAX / 2,
        "{taken} bytes were appended"
    );
    drop(log);
    let log = open(&small)?;
    assert!(log.next_offset().0 >= records);
    assert!(log.verify()?.is_sound());
    Ok(())
}

#[test]
fn a_disk_that_is_nearly_full_is_left_alone_once_it_had_what_was_prepared() -> Result<()> {
    let small = Small {
        prepares_files: true,
        tells_free: true,
        ..Small::new(20_000_000, PREPARED_BYTES)
    };
    let log = open(&small)?;
    for _ in 0..1500 {
        log.append(&[7; 200])?;
    }
    small.free.set(0);
    for _ in 0..1000 {
        log.append(&[7; 200])?;
    }
    small.free.set(1_500_000);
    log.append(&[7; 200])?;
    let names = small.list().unwrap();
    assert!(
        !names.iter().any(|name| name.ends_with(".prepared")),
        "{names:?}"
    );
    Ok(())
}
