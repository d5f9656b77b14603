//! What the suites run on: each implementation of the log, with a directory of its own.

use std::{collections::BTreeMap, fs, path::Path};

use proglog::{Access, Backend, BackendFile, FileAccess, FsBackend, Log, MemoryBackend, Options};
use proglog_host::{Engine, EngineKind, Mode, Result};
use tempfile::TempDir;

/// The files of a log's directory: their names and bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Every implementation. One more is one more line here, and an `impl Subject` if it lives elsewhere.
pub const SUBJECTS: [Kind; 4] = [
    Kind {
        name: "memory",
        place: Place::Memory,
    },
    Kind {
        name: "fs_mmap",
        place: Place::Directory(open_native),
    },
    Kind {
        name: "fs_file_index",
        place: Place::Directory(open_file_index),
    },
    Kind {
        name: "wasm",
        place: Place::Directory(open_wasm),
    },
];

/// An implementation of the log.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What its tests are called.
    pub name: &'static str,
    /// Where its files live.
    pub place: Place,
}

/// Where the files of an implementation live.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// In memory.
    Memory,
    /// In a directory of the file system; how the log in it is opened.
    Directory(OpenDirectory),
}

/// Opens the log in a directory of the file system.
pub type OpenDirectory = fn(&Path, Mode, Options) -> Result<Box<dyn Engine>>;

impl Kind {
    /// One with an empty directory.
    ///
    /// # Panics
    ///
    /// There is no place for a temporary directory.
    #[must_use]
    pub fn subject(&self) -> Box<dyn Subject> {
        match self.place {
            Place::Memory => Box::new(MemorySubject(MemoryBackend::new())),
            Place::Directory(open) => {
                let directory = TempDir::new().expect("a temporary directory");
                Box::new(FsSubject { directory, open })
            }
        }
    }

    /// How to open the log in a directory of the file system, if it can.
    #[must_use]
    pub fn open_directory(&self) -> Option<OpenDirectory> {
        match self.place {
            Place::Memory => None,
            Place::Directory(open) => Some(open),
        }
    }
}

/// An implementation of the log with a directory of its own, which may hold a log or not.
pub trait Subject {
    /// Opens the log in the directory.
    ///
    /// # Errors
    ///
    /// Those of [`Log::open`].
    fn open(&self, mode: Mode, options: Options) -> Result<Box<dyn Engine>>;

    /// What the directory holds.
    fn files(&self) -> Files;

    /// Writes a whole file, made if it is missing, while the log is closed.
    fn write(&self, name: &str, bytes: &[u8]);

    /// Removes a file, while the log is closed.
    fn remove(&self, name: &str);

    /// The directory, if it is one of the file system.
    fn path(&self) -> Option<&Path> {
        None
    }
}

struct MemorySubject(MemoryBackend);

impl Subject for MemorySubject {
    fn open(&self, mode: Mode, options: Options) -> Result<Box<dyn Engine>> {
        open_on(self.0.clone(), mode, options)
    }

    fn files(&self) -> Files {
        files_of(&self.0)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        write_file(&self.0, name, bytes);
    }

    fn remove(&self, name: &str) {
        Backend::remove(&self.0, name).expect("a file to remove");
    }
}

/// A directory in memory that holds these files.
#[must_use]
pub fn memory_of(files: &Files) -> MemoryBackend {
    let backend = MemoryBackend::new();
    for (name, bytes) in files {
        write_file(&backend, name, bytes);
    }
    backend
}

/// The files of a directory in memory.
#[must_use]
pub fn files_of(backend: &MemoryBackend) -> Files {
    let read = |name: String| {
        let file = backend
            .open(&name, Access::Read)
            .expect("a listed file opens");
        let mut bytes =
            vec![0; usize::try_from(file.len().expect("a length")).expect("a small file")];
        let mut read_bytes = 0;
        while read_bytes < bytes.len() {
            let more = file
                .read_at(&mut bytes[read_bytes..], read_bytes as u64)
                .expect("a read");
            assert_ne!(more, 0, "{name} ends before its length");
            read_bytes += more;
        }
        (name, bytes)
    };
    backend
        .list()
        .expect("a listing")
        .into_iter()
        .map(read)
        .collect()
}

fn write_file(backend: &MemoryBackend, name: &str, bytes: &[u8]) {
    let file = backend.open(name, Access::Create).expect("a new file");
    file.set_len(0).expect("an empty file");
    file.write_at(bytes, 0).expect("a write");
}

struct FsSubject {
    directory: TempDir,
    open: OpenDirectory,
}

impl Subject for FsSubject {
    fn open(&self, mode: Mode, options: Options) -> Result<Box<dyn Engine>> {
        (self.open)(self.directory.path(), mode, options)
    }

    fn files(&self) -> Files {
        files_in(self.directory.path())
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.directory.path().join(name), bytes).expect("a new file");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.directory.path().join(name)).expect("a file to remove");
    }

    fn path(&self) -> Option<&Path> {
        Some(self.directory.path())
    }
}

/// The files of a directory of the file system. Directories in it are left out.
#[must_use]
pub fn files_in(directory: &Path) -> Files {
    let entries = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry"));
    entries
        .filter(|entry| entry.file_type().expect("a file type").is_file())
        .map(|entry| {
            let name = entry
                .file_name()
                .into_string()
                .expect("a name that is text");
            (name, fs::read(entry.path()).expect("a readable file"))
        })
        .collect()
}

fn open_native(directory: &Path, mode: Mode, options: Options) -> Result<Box<dyn Engine>> {
    proglog_host::open(EngineKind::Native, directory, mode, options)
}

fn open_wasm(directory: &Path, mode: Mode, options: Options) -> Result<Box<dyn Engine>> {
    proglog_host::open(EngineKind::Wasm, directory, mode, options)
}

fn open_file_index(directory: &Path, mode: Mode, options: Options) -> Result<Box<dyn Engine>> {
    let backend = match mode {
        Mode::Write => FsBackend::open(directory)?,
        Mode::Read => FsBackend::open_read_only(directory)?,
    };
    open_on(backend.file_access(FileAccess::Calls), mode, options)
}

fn open_on<B>(backend: B, mode: Mode, options: Options) -> Result<Box<dyn Engine>>
where
    B: Backend + 'static,
    Log<B>: Engine,
{
    Ok(match mode {
        Mode::Write => Box::new(Log::open_on(backend, options)?),
        Mode::Read => Box::new(Log::open_read_only_on(backend, options)?),
    })
}
