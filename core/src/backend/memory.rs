//! Files in memory.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
};

use super::{Access, Backend, BackendFile};

/// A directory of files in memory. Clones share it, so a log that was closed can be opened again on
/// a clone; when the last clone is gone, so are the files.
///
/// ```
/// use proglog::{Log, MemoryBackend, Offset, Options};
/// let files = MemoryBackend::new();
/// let log = Log::open_on(files.clone(), Options::new())?;
/// log.append("kept")?;
/// log.close()?;
/// let log = Log::open_on(files, Options::new())?;
/// assert_eq!(log.read(Offset(0))?.value(), b"kept");
/// # Ok::<(), proglog::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct MemoryBackend {
    files: Arc<Mutex<BTreeMap<String, MemoryFile>>>,
}

impl MemoryBackend {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file of these bytes into the directory, in place of one of the same name.
    pub fn insert(&self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        let replaced = self
            .files()
            .insert(name.into(), MemoryFile::of(bytes.into()));
        replaced.inspect(MemoryFile::removed);
    }

    /// The bytes of a file.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.files().get(name).map(|file| file.bytes().clone())
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<String, MemoryFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for MemoryBackend {
    type File = MemoryFile;

    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<MemoryFile> {
        let mut files = self.files();
        match files.get(name) {
            Some(file) => Ok(file.clone()),
            None if access == Access::Create => {
                Ok(files.entry(name.to_owned()).or_default().clone())
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let removed = self.files().remove(name);
        removed.ok_or(io::ErrorKind::NotFound)?.removed();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        let replaced = files.insert(to.to_owned(), file);
        replaced.inspect(MemoryFile::removed);
        Ok(())
    }

    /// The file is replaced, so that who reads the old one goes on.
    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut files = self.files();
        let file = files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        let mut kept = file.bytes().clone();
        kept.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        std::mem::replace(file, MemoryFile::of(kept)).removed();
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A file of a [`MemoryBackend`].
#[derive(Clone, Debug, Default)]
pub struct MemoryFile {
    bytes: Arc<Mutex<Vec<u8>>>,
    is_removed: Arc<AtomicBool>,
}

impl MemoryFile {
    fn of(bytes: Vec<u8>) -> Self {
        Self {
            bytes: Arc::new(Mutex::new(bytes)),
            is_removed: Arc::default(),
        }
    }

    fn removed(&self) {
        self.is_removed.store(true, Release);
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BackendFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let bytes = self.bytes();
        let rest = usize::try_from(position)
            .ok()
            .and_then(|at| bytes.get(at..))
            .unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, new: &[u8], position: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        let start = usize::try_from(position).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let end = start
            .checked_add(new.len())
            .ok_or(io::ErrorKind::OutOfMemory)?;
        if end > bytes.len() {
            grow(&mut bytes, end)?;
        }
        bytes[start..end].copy_from_slice(new);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut bytes = self.bytes();
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
        if length > bytes.len() {
            return grow(&mut bytes, length);
        }
        bytes.truncate(length);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_removed(&self) -> io::Result<bool> {
        Ok(self.is_removed.load(Acquire))
    }
}

/// Grows with zeros. Memory that cannot be had is an error, as a full disk is.
fn grow(bytes: &mut Vec<u8>, length: usize) -> io::Result<()> {
    bytes
        .try_reserve(length - bytes.len())
        .map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.resize(length, 0);
    Ok(())
}
