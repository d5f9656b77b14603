//! Where a module keeps logs.

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
pub(crate) mod browser;

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
use proglog::FsBackend;
use proglog::{Backend, Error, MemoryBackend, Result};

/// Finds the files of a log by the name given to `open`.
pub trait Storage {
    /// What holds them.
    type Backend: Backend;

    /// The files of this name. To write, they are made if there are none.
    ///
    /// # Errors
    ///
    /// They cannot be had.
    fn open(&mut self, name: &str, read_only: bool) -> Result<Self::Backend>;
}

/// Logs in directories: the name is a path.
#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
#[derive(Debug, Default)]
pub struct Directories;

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
impl Storage for Directories {
    type Backend = FsBackend;

    fn open(&mut self, name: &str, read_only: bool) -> Result<FsBackend> {
        if read_only {
            FsBackend::open_read_only(name)
        } else {
            FsBackend::open(name)
        }
    }
}

/// Logs in memory. A log that was closed is found again under its name.
#[derive(Debug, Default)]
pub struct Memory {
    directories: Vec<(String, MemoryBackend)>,
}

impl Storage for Memory {
    type Backend = MemoryBackend;

    fn open(&mut self, name: &str, read_only: bool) -> Result<MemoryBackend> {
        match self.directories.iter().find(|(other, _)| other == name) {
            Some((_, files)) => Ok(files.clone()),
            None if read_only => Err(Error::InvalidArgument(format!(
                "there is no log \"{name}\" to read"
            ))),
            None => {
                let files = MemoryBackend::default();
                self.directories.push((name.to_owned(), files.clone()));
                Ok(files)
            }
        }
    }
}
