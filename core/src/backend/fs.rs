//! Files of the file system.

mod lock;
#[cfg(unix)]
#[allow(
    unsafe_code,
    reason = "mapping a file is unsafe; each block says why it holds"
)]
mod mapped;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

pub use lock::DirectoryLock;

use super::{Access, Backend, BackendFile};
use crate::{Error, Result};
#[cfg(unix)]
use crate::{Tail, Views};

/// A directory of the file system.
///
/// Open for writing it holds the directory's [`DirectoryLock`]. On wasm32-wasip1 there are neither
/// locks nor a way to sync a directory: there both are the host's to do, as `proglog-host` does.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// use proglog::{FileAccess, FsBackend, Log, Options};
/// let files = FsBackend::open(directory)?.file_access(FileAccess::Calls).prepare(0);
/// let log = Log::open_on(files, Options::new())?;
/// log.append("hello")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct FsBackend {
    directory: PathBuf,
    access: FileAccess,
    prepare_bytes: u64,
    /// Until the log is closed, or the backend dropped.
    lock: Mutex<Option<DirectoryLock>>,
}

/// How the bytes of files are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FileAccess {
    /// Mapped into memory, stores and indexes. Where that cannot be, as [`FileAccess::Calls`].
    #[default]
    Mapped,
    /// Read and written by calls. The only way on wasm32-wasip1.
    Calls,
}

/// How far ahead of its records a log is filled with zeros, so that a sync writes records alone.
const PREPARE_BYTES: u64 = if cfg!(target_os = "wasi") {
    0
} else {
    64 << 20
};

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
            access: FileAccess::default(),
            prepare_bytes: PREPARE_BYTES,
            lock: Mutex::new(Some(lock)),
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
            access: FileAccess::default(),
            prepare_bytes: 0,
            lock: Mutex::default(),
        })
    }

    /// The directory.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a directory and those above it, each durably.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn make_directory(directory: &Path) -> crate::error::Thin<()> {
        make_directory(directory).map_err(|e| Error::io("make directory", show(directory), e))
    }

    /// Chooses how the bytes of files are reached.
    #[must_use]
    pub fn file_access(mut self, access: FileAccess) -> Self {
        self.access = access;
        self
    }

    /// How many bytes past its records a log fills with zeros ahead of time by itself, at the most: 64 MiB unless told
    /// otherwise, 0 is none, and none for [`Log::reserve`](crate::Log::reserve) either. A sync is then faster, for
    /// where the records stand is on the disk already. It is done only in a log that was synced a few times; while
    /// appends go on no more than 4 MiB ahead, and when they rest no more than was synced before. Past the end of the
    /// segment it is files `{n}.prepared`, which become the next stores. Closing the log gives the space back.
    #[must_use]
    pub fn prepare(mut self, bytes: u64) -> Self {
        self.prepare_bytes = bytes;
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
            #[cfg(not(windows))]
            path,
            #[cfg(unix)]
            access: self.access,
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.directory.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.directory.join(from), self.directory.join(to))
    }

    /// The file is replaced by a copy: who reads the old one's memory goes on, also in another process, and can
    /// tell by [`BackendFile::is_removed`]. Windows does not replace a file that is open.
    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        let path = self.directory.join(name);
        if cfg!(windows) {
            let file = OpenOptions::new().write(true).open(path)?;
            file.set_len(bytes)?;
            return file.sync_all();
        }
        let copy_path = self.directory.join(format!("{name}{CUT_SUFFIX}"));
        let copied = (|| {
            let mut copy = File::create(&copy_path)?;
            let copied = io::copy(&mut File::open(&path)?.take(bytes), &mut copy)?;
            if copied != bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            copy.sync_all()
        })();
        if let Err(e) = copied {
            let _ = fs::remove_file(&copy_path);
            return Err(e);
        }
        fs::rename(&copy_path, &path)?;
        sync_directory(&self.directory)
    }

    fn prepare_bytes(&self) -> u64 {
        self.prepare_bytes
    }

    #[cfg(unix)]
    fn available_bytes(&self) -> io::Result<Option<u64>> {
        let found = rustix::fs::statvfs(&self.directory)?;
        // One without blocks does not tell, or has no limit, as a tmpfs of size 0.
        let told = found.f_blocks > 0;
        Ok(told.then(|| found.f_bavail.saturating_mul(found.f_frsize)))
    }

    fn sync_directory(&self) -> io::Result<()> {
        sync_directory(&self.directory)
    }

    fn release(&self) {
        self.lock
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    fn remove_directory(&self) -> io::Result<()> {
        if fs::read_dir(&self.directory)?.next().is_some() {
            return Ok(());
        }
        fs::remove_dir(&self.directory)?;
        self.directory.parent().map_or(Ok(()), sync_directory)
    }
}

/// What a file is called while it is being cut.
const CUT_SUFFIX: &str = ".cut";

/// A file of an [`FsBackend`].
#[derive(Debug)]
pub struct FsFile {
    file: File,
    /// What it was opened by.
    #[cfg(not(windows))]
    path: PathBuf,
    #[cfg(unix)]
    access: FileAccess,
}

impl BackendFile for FsFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        uninterrupted(|| platform::read_at(&self.file, buffer, position))
    }

    fn write_at(&self, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = uninterrupted(|| platform::write_at(&self.file, bytes, position))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
            position += written as u64;
        }
        Ok(())
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn write_vectored_at(&self, parts: &[io::IoSlice<'_>], mut position: u64) -> io::Result<()> {
        let mut parts = parts.to_vec();
        let mut parts = parts.as_mut_slice();
        while !parts.is_empty() {
            let written = uninterrupted(|| Ok(rustix::io::pwritev(&self.file, parts, position)?))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            io::IoSlice::advance_slices(&mut parts, written);
            position += written as u64;
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        // Also what was written through a map: it is the page cache that this writes back.
        platform::sync_data(&self.file)
    }

    /// By its name: a file that was removed may have other names still, as where a directory is copied by links.
    #[cfg(not(windows))]
    fn is_removed(&self) -> io::Result<bool> {
        match platform::identity_at(&self.path) {
            Ok(found) => Ok(found != platform::identity(&self.file)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(e) => Err(e),
        }
    }

    #[cfg(not(windows))]
    fn is_shared(&self) -> io::Result<bool> {
        platform::has_other_names(&self.file)
    }

    #[cfg(unix)]
    fn map(&self, bytes: u64) -> io::Result<Option<Views>> {
        Ok(match self.access {
            FileAccess::Mapped => mapped::map(&self.file, bytes),
            FileAccess::Calls => None,
        })
    }

    #[cfg(unix)]
    fn map_tail(&self, position: u64, bytes: usize) -> io::Result<Option<Tail>> {
        match self.access {
            FileAccess::Mapped => mapped::map_tail(&self.file, position, bytes),
            FileAccess::Calls => Ok(None),
        }
    }
}

/// Calls again what a signal has interrupted.
fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
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

    #[cfg(not(windows))]
    use std::path::Path;

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

    /// The device and the inode of a file: no other has both while it is open.
    #[cfg(unix)]
    pub(super) fn identity(file: &File) -> io::Result<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let found = file.metadata()?;
        Ok((found.dev(), found.ino()))
    }

    #[cfg(unix)]
    pub(super) fn identity_at(path: &Path) -> io::Result<(u64, u64)> {
        use std::os::unix::fs::MetadataExt;
        let found = std::fs::symlink_metadata(path)?;
        Ok((found.dev(), found.ino()))
    }

    #[cfg(unix)]
    pub(super) fn has_other_names(file: &File) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        Ok(file.metadata()?.nlink() > 1)
    }

    #[cfg(target_os = "wasi")]
    pub(super) fn has_other_names(file: &File) -> io::Result<bool> {
        Ok(rustix::fs::fstat(file)?.st_nlink > 1)
    }

    #[cfg(target_os = "wasi")]
    pub(super) fn identity(file: &File) -> io::Result<(u64, u64)> {
        let found = rustix::fs::fstat(file)?;
        Ok((found.st_dev, found.st_ino))
    }

    #[cfg(target_os = "wasi")]
    pub(super) fn identity_at(path: &Path) -> io::Result<(u64, u64)> {
        let found = rustix::fs::lstat(path)?;
        Ok((found.st_dev, found.st_ino))
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
