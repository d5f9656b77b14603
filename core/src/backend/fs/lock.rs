//! One writer a directory.

use std::path::Path;

#[cfg(not(target_os = "wasi"))]
use super::show;
#[cfg(not(target_os = "wasi"))]
use crate::Error;
use crate::Result;

/// The advisory lock of a log's directory. It is the operating system's (`flock` on the directory
/// itself, so no file is left lying about), and is released when this is dropped or the process ends,
/// however it ends.
///
/// [`FsBackend::open`](super::FsBackend::open) takes it by itself. Only who writes to the directory
/// by other means, such as a wasm module's host, needs it.
#[derive(Debug)]
pub struct DirectoryLock {
    #[cfg(not(target_os = "wasi"))]
    file: std::fs::File,
}

#[cfg(not(target_os = "wasi"))]
impl Drop for DirectoryLock {
    /// Closing the file would do, were it not for a child process that another thread starts just now:
    /// until it runs its program it has the file open too.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl DirectoryLock {
    /// Takes the lock of an existing directory, or fails at once.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when another holds it, [`Error::Io`] when it cannot be asked for.
    #[cfg(not(target_os = "wasi"))]
    pub fn acquire(directory: impl AsRef<Path>) -> Result<Self> {
        use std::fs::TryLockError;

        let directory = directory.as_ref();
        let file = open(directory).map_err(|e| Error::io("open directory", show(directory), e))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked {
                directory: show(directory),
            }),
            Err(TryLockError::Error(e)) => Err(Error::io("lock", show(directory), e).into()),
        }
    }

    /// There are no locks under wasip1: the host holds it.
    ///
    /// # Errors
    ///
    /// None.
    #[cfg(target_os = "wasi")]
    pub fn acquire(_directory: impl AsRef<Path>) -> Result<Self> {
        Ok(Self {})
    }
}

#[cfg(unix)]
fn open(directory: &Path) -> std::io::Result<std::fs::File> {
    std::fs::File::open(directory)
}

/// A directory cannot be locked here, so a file in it is: `proglog.lock`, which stays, and is ignored.
#[cfg(windows)]
fn open(directory: &Path) -> std::io::Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(directory.join("proglog.lock"))
}
