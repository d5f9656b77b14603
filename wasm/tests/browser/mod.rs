//! A browser's file system, natively: files by number on a disk that fails, is killed and loses power, and what opens
//! and deletes them between calls.

use std::{cell::Cell, io, rc::Rc};

use proglog::{Access, Backend, BackendFile, Error, FaultBackend, FaultFile, Log, Options, Result};
use proglog_wasm::opfs::{COPIES, Handle, Opfs};

/// An open file, which writes and reads only a part of what it is asked to.
#[derive(Debug)]
pub(crate) struct FaultHandle {
    file: FaultFile,
    calls: Calls,
}

/// How often a file was written and flushed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Calls {
    pub(crate) writes: Rc<Cell<u64>>,
    pub(crate) flushes: Rc<Cell<u64>>,
    /// The most that is written or read at once.
    pub(crate) bytes_max: Rc<Cell<Option<usize>>>,
    /// By how many bytes all files may still grow, if that is limited.
    pub(crate) room_bytes: Rc<Cell<Option<u64>>>,
    /// Whether files tell of more bytes than they were asked for, as Chromium does of a failure.
    pub(crate) lies: Rc<Cell<bool>>,
    /// How many files are open.
    pub(crate) open: Rc<Cell<usize>>,
}

impl Calls {
    fn part(&self, bytes: usize) -> usize {
        self.bytes_max.get().map_or(bytes, |max| max.min(bytes))
    }
}

impl Handle for FaultHandle {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        if self.calls.lies.get() {
            return Ok(usize::MAX);
        }
        let part = self.calls.part(buffer.len());
        self.file.read_at(&mut buffer[..part], position)
    }

    fn write(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        self.calls.writes.set(self.calls.writes.get() + 1);
        if self.calls.lies.get() {
            return Ok(bytes.len() + 1);
        }
        let mut part = self.calls.part(bytes.len());
        if let Some(room) = self.calls.room_bytes.get() {
            // What the file has already is none of the quota's.
            let length = self.file.len()?;
            let end_max = length.max(position) + room;
            let fits = usize::try_from(end_max - position).unwrap();
            if fits == 0 {
                return Err(io::ErrorKind::QuotaExceeded.into());
            }
            part = part.min(fits);
            let grown = (position + part as u64).saturating_sub(length);
            self.calls.room_bytes.set(Some(room.saturating_sub(grown)));
        }
        self.file.write_at(&bytes[..part], position)?;
        Ok(part)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn flush(&self) -> io::Result<()> {
        self.calls.flushes.set(self.calls.flushes.get() + 1);
        self.file.sync()
    }

    fn close(&self) {
        self.calls.open.set(self.calls.open.get() - 1);
    }
}

/// What a page's worker does: it has files opened, made and deleted between calls.
#[derive(Debug)]
pub(crate) struct Browser {
    pub(crate) disk: FaultBackend,
    pub(crate) files: Opfs<FaultHandle>,
    pub(crate) calls: Calls,
    /// How many files with a name may be open after a call.
    pub(crate) open_max: usize,
}

impl Browser {
    pub(crate) fn on(disk: FaultBackend) -> io::Result<Self> {
        let calls = Calls::default();
        let open = |name: String| handle(&disk, &calls, &name);
        let copies = [0, 1, 2].map(|copy| open(format!("manifest-{copy}")));
        const { assert!(COPIES == 3) };
        let [first, second, third] = copies;
        let numbers: Vec<u32> = disk
            .list()?
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        let files = Opfs::open("log", [first?, second?, third?], &numbers)?;
        let browser = Self {
            disk,
            files,
            calls,
            open_max: 4,
        };
        browser.tidy()?;
        Ok(browser)
    }

    /// What is done between calls.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        for number in self.files.take_unneeded() {
            self.disk.remove(&number.to_string())?;
            // Browsers delete without being asked to make it durable.
            self.disk.sync_directory()?;
        }
        self.files.close_least_used(self.open_max);
        while self.files.spares() < 4 {
            let number = self.files.next_number()?;
            let handle = handle(&self.disk, &self.calls, &number.to_string())?;
            self.files.add_spare(number, handle)?;
        }
        Ok(())
    }

    /// Calls again for as long as files have to be opened for it.
    pub(crate) fn again<T>(&self, mut call: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            let called = call();
            let wanted = self.files.take_wanted();
            let lacked_spare = self.files.take_lacked_spare();
            if wanted.is_empty() && !lacked_spare {
                return called;
            }
            self.open_files(&wanted);
            if lacked_spare {
                self.tidy().unwrap();
            }
        }
    }

    pub(crate) fn open_files(&self, numbers: &[u32]) {
        for &number in numbers {
            let handle = handle(&self.disk, &self.calls, &number.to_string()).unwrap();
            self.files.add_open(number, handle);
        }
    }

    /// Calls what changes more than the end of the log: all that it may need is open.
    pub(crate) fn with_all_open<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        self.open_files(&self.files.closed_files());
        let called = call();
        assert!(self.files.take_wanted().is_empty());
        called
    }

    pub(crate) fn log(&self, options: &Options) -> Result<Log<Opfs<FaultHandle>>> {
        self.again(|| Log::open_on(self.files.clone(), options.clone()))
    }

    /// The log's files, whole.
    pub(crate) fn directory(&self) -> Vec<(String, Vec<u8>)> {
        self.open_files(&self.files.closed_files());
        let names = self.files.list().unwrap();
        let read = |name: String| {
            let file = self.files.open(&name, Access::Read).unwrap();
            let bytes = read_all(&file);
            (name, bytes)
        };
        names.into_iter().map(read).collect()
    }
}

pub(crate) fn read_all(file: &impl BackendFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    let mut read = 0;
    while read < bytes.len() {
        let part = file.read_at(&mut bytes[read..], read as u64).unwrap();
        assert_ne!(part, 0);
        read += part;
    }
    bytes
}

/// A file of the disk, made if it is missing, as durably as if it had been there for long.
fn handle(disk: &FaultBackend, calls: &Calls, name: &str) -> io::Result<FaultHandle> {
    let is_new = disk.get(name).is_none();
    let file = disk.open(name, Access::Create)?;
    if is_new {
        disk.sync_directory()?;
    }
    calls.open.set(calls.open.get() + 1);
    let calls = calls.clone();
    Ok(FaultHandle { file, calls })
}

/// Whether it is one that a stop leads to.
pub(crate) fn is_io(error: &Error) -> bool {
    matches!(error, Error::Io { .. } | Error::Poisoned { .. })
}
