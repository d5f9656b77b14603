//! Where a browser's module keeps logs: in the directories that JavaScript opened, others in memory.

use std::io::{self, IoSlice};

use proglog::{Access, Backend, BackendFile, MemoryBackend, MemoryFile, Result};

use crate::{
    Memory, Storage,
    opfs::{Opfs, OpfsFile, SyncAccessHandle},
};

/// Logs by name: in a directory of the browser's, if one was given for it, in memory otherwise.
#[derive(Debug, Default)]
pub(crate) struct Browser {
    directories: Vec<(String, Opfs<SyncAccessHandle>)>,
    memory: Memory,
}

impl Browser {
    /// From now on the log of this name is in this directory. False: it is in another one.
    pub(crate) fn add(&mut self, name: &str, files: Opfs<SyncAccessHandle>) -> bool {
        let is_new = self.find(name).is_none();
        if is_new {
            self.directories.push((name.to_owned(), files));
        }
        is_new
    }

    /// From now on it is not.
    pub(crate) fn remove(&mut self, name: &str) {
        self.directories.retain(|(other, _)| other != name);
    }

    fn find(&self, name: &str) -> Option<&Opfs<SyncAccessHandle>> {
        let found = self.directories.iter().find(|(other, _)| other == name);
        found.map(|(_, files)| files)
    }
}

impl Storage for Browser {
    type Backend = BrowserFiles;

    fn open(&mut self, name: &str, read_only: bool) -> Result<BrowserFiles> {
        Ok(match self.find(name) {
            Some(files) => BrowserFiles::Opfs(files.clone()),
            None => BrowserFiles::Memory(self.memory.open(name, read_only)?),
        })
    }
}

/// A log's files, wherever they are.
#[derive(Debug)]
pub(crate) enum BrowserFiles {
    Memory(MemoryBackend),
    Opfs(Opfs<SyncAccessHandle>),
}

/// One of them.
#[derive(Debug)]
pub(crate) enum BrowserFile {
    Memory(MemoryFile),
    Opfs(OpfsFile<SyncAccessHandle>),
}

/// Calls the same on either.
macro_rules! either {
    ($of:expr, $it:ident => $call:expr) => {
        match $of {
            Self::Memory($it) => $call,
            Self::Opfs($it) => $call,
        }
    };
}

impl Backend for BrowserFiles {
    type File = BrowserFile;

    fn name(&self) -> String {
        either!(self, files => files.name())
    }

    fn list(&self) -> io::Result<Vec<String>> {
        either!(self, files => files.list())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<BrowserFile> {
        match self {
            Self::Memory(files) => files.open(name, access).map(BrowserFile::Memory),
            Self::Opfs(files) => files.open(name, access).map(BrowserFile::Opfs),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        either!(self, files => files.remove(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        either!(self, files => files.rename(from, to))
    }

    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        either!(self, files => files.cut(name, bytes))
    }

    fn prepare_bytes(&self) -> u64 {
        either!(self, files => files.prepare_bytes())
    }

    fn prepares_files(&self) -> bool {
        false
    }

    fn sync_directory(&self) -> io::Result<()> {
        either!(self, files => files.sync_directory())
    }
}

impl BackendFile for BrowserFile {
    fn len(&self) -> io::Result<u64> {
        either!(self, file => file.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        either!(self, file => file.read_at(buffer, position))
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        either!(self, file => file.write_at(bytes, position))
    }

    fn write_vectored_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        either!(self, file => file.write_vectored_at(parts, position))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        either!(self, file => file.set_len(bytes))
    }

    fn sync(&self) -> io::Result<()> {
        either!(self, file => file.sync())
    }

    fn is_removed(&self) -> io::Result<bool> {
        either!(self, file => file.is_removed())
    }
}
