//! Files of the file system.

mod lock;
#[cfg(any(unix, windows))]
#[allow(
    unsafe_code,
    reason = "mapping a file is unsafe; each block says why it holds"
)]
mod mapped;

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
};

pub use lock::DirectoryLock;

use super::{Access, Backend, BackendFile};
use crate::{Error, Result};

/// A directory of the file system.
///
/// Open for writing it holds the directory's [`DirectoryLock`]. On wasm32-wasip1 there are neither
/// locks nor a way to sync a directory: there both are the host's to do, as `proglog-host` does.
#[derive(Debug)]
pub struct FsBackend {
    directory: PathBuf,
    index_mapping: IndexMapping,
    /// Released when the backend is dropped.
    _lock: Option<DirectoryLock>,
}

/// How an index file is held while its segment is active.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IndexMapping {
    /// Mapped into memory, its space allocated ahead. Where that cannot be, as [`IndexMapping::File`].
    #[default]
    Mapped,
    /// Read and written as a file. The only way on wasm32-wasip1.
    File,
}

impl FsBackend {
    /// A directory to write in, made if it is missing.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when another writer has it, [`Error::Io`] when it cannot be made or locked.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        make_directory(directory).map_err(|e| Error::io("make directory", show(directory), e))?;
        let lock = DirectoryLock::acquire(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
            index_mapping: IndexMapping::default(),
            _lock: Some(lock),
        })
    }

    /// A directory to read only. It takes no lock, so a writer may have it too.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when there is no such directory.
    pub fn open_read_only(directory: impl AsRef<Path>) -> Result<Self> {
        let directory = directory.as_ref();
        fs::read_dir(directory).map_err(|e| Error::io("open directory", show(directory), e))?;
        Ok(Self {
            directory: directory.to_owned(),
            index_mapping: IndexMapping::File,
            _lock: None,
        })
    }

    /// Chooses how index files are held.
    #[must_use]
    pub fn index_mapping(mut self, mapping: IndexMapping) -> Self {
        self.index_mapping = mapping;
        self
    }
}

impl Backend for FsBackend {
    type File = FsFile;

    fn name(&self) -> String {
        show(&self.directory)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            // A link is listed, to be refused by name when it is opened, rather than passed over as if its
            // records were not there.
            if kind.is_file() || kind.is_symlink() {
                // A name that is not Unicode is none of ours.
                names.extend(entry.file_name().into_string());
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<FsFile> {
        let path = self.directory.join(name);
        // Before it is opened: that of a pipe would wait for a writer.
        if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            let what =
                "it is not a regular file; a log's files cannot be links, directories or pipes";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(access != Access::Read)
            .create(access == Access::Create)
            .truncate(false)
            .open(&path)?;
        Ok(FsFile {
            file,
            #[cfg(any(unix, windows))]
            map: None,
            #[cfg(any(unix, windows))]
            index_mapping: self.index_mapping,
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync_directory(&self.directory)
    }

    fn remove_directory(&self) -> io::Result<()> {
        if fs::read_dir(&self.directory)?.next().is_some() {
            return Ok(());
        }
        fs::remove_dir(&self.directory)?;
        self.directory.parent().map_or(Ok(()), sync_directory)
    }
}

/// A file of an [`FsBackend`].
#[derive(Debug)]
pub struct FsFile {
    file: File,
    #[cfg(any(unix, windows))]
    map: Option<mapped::Map>,
    #[cfg(any(unix, windows))]
    index_mapping: IndexMapping,
}

impl BackendFile for FsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        #[cfg(any(unix, windows))]
        if let Some(map) = &self.map {
            return Ok(map.read_at(buffer, position));
        }
        loop {
            match platform::read_at(&self.file, buffer, position) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn write_at(&mut self, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
        #[cfg(any(unix, windows))]
        if let Some(map) = &mut self.map {
            return map.write_at(bytes, position);
        }
        while !bytes.is_empty() {
            match platform::write_at(&self.file, bytes, position) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    position += written as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        #[cfg(any(unix, windows))]
        drop(self.map.take());
        self.file.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        // Also what was written through the map: it is the page cache that fdatasync writes back.
        #[cfg(windows)]
        if let Some(map) = &self.map {
            map.flush()?;
        }
        platform::sync_data(&self.file)
    }

    fn prepare(&mut self, bytes: u64) -> io::Result<()> {
        #[cfg(any(unix, windows))]
        if self.index_mapping == IndexMapping::Mapped {
            // The old one first: the file is made longer.
            drop(self.map.take());
            self.map = mapped::Map::of(&self.file, bytes);
        }
        let _ = bytes;
        Ok(())
    }
}

/// Makes a directory and those above it, each durably.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    let parent = directory
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        make_directory(parent)?;
    }
    match fs::create_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
        made => made?,
    }
    sync_directory(parent.unwrap_or(Path::new(".")))
}

#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Windows syncs a directory's entries with its files; under wasip1 the host does.
#[cfg(not(unix))]
fn sync_directory(_directory: &Path) -> io::Result<()> {
    Ok(())
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

/// Reads and writes at a position, and syncs, by whatever the platform calls it.
mod platform {
    use std::{fs::File, io};

    #[cfg(unix)]
    pub(super) fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(file, buffer, position)
    }

    #[cfg(unix)]
    pub(super) fn write_at(file: &File, bytes: &[u8], position: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(file, bytes, position)
    }

    #[cfg(windows)]
    pub(super) fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_read(file, buffer, position)
    }

    #[cfg(windows)]
    pub(super) fn write_at(file: &File, bytes: &[u8], position: u64) -> io::Result<usize> {
        std::os::windows::fs::FileExt::seek_write(file, bytes, position)
    }

    #[cfg(not(target_os = "wasi"))]
    pub(super) fn sync_data(file: &File) -> io::Result<()> {
        file.sync_data()
    }

    /// The standard library's would sync times and all else too.
    #[cfg(target_os = "wasi")]
    pub(super) fn sync_data(file: &File) -> io::Result<()> {
        Ok(rustix::fs::fdatasync(file)?)
    }

    #[cfg(target_os = "wasi")]
    pub(super) fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        Ok(rustix::io::pread(file, buffer, position)?)
    }

    #[cfg(target_os = "wasi")]
    pub(super) fn write_at(file: &File, bytes: &[u8], position: u64) -> io::Result<usize> {
        Ok(rustix::io::pwrite(file, bytes, position)?)
    }
}
