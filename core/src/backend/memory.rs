//! Files in memory.

use std::{
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
    files: Arc<Mutex<Files>>,
}

/// Files by name, in order.
#[derive(Debug, Default)]
struct Files(Vec<(String, MemoryFile)>);

impl Files {
    fn get(&self, name: &str) -> Option<&MemoryFile> {
        self.place(name).ok().map(|at| &self.0[at].1)
    }

    /// Puts a file in the place of the one that has the name, which is removed.
    fn insert(&mut self, name: &str, file: MemoryFile) {
        match self.place(name) {
            Ok(at) => std::mem::replace(&mut self.0[at].1, file).removed(),
            Err(at) => self.0.insert(at, (name.to_owned(), file)),
        }
    }

    fn remove(&mut self, name: &str) -> io::Result<MemoryFile> {
        match self.place(name) {
            Ok(at) => Ok(self.0.remove(at).1),
            Err(_) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Where a name is, or would be.
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

impl MemoryBackend {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a file of these bytes into the directory, in place of one of the same name.
    pub fn insert(&self, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.files()
            .insert(&name.into(), MemoryFile::of(bytes.into()));
    }

    /// The bytes of a file.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.files().get(name).map(|file| file.bytes().clone())
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for MemoryBackend {
    type File = MemoryFile;

    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let files = self.files();
        Ok(files.0.iter().map(|(name, _)| name.clone()).collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<MemoryFile> {
        let mut files = self.files();
        match files.get(name) {
            Some(file) => Ok(file.clone()),
            None if access == Access::Create => {
                let file = MemoryFile::default();
                files.insert(name, file.clone());
                Ok(file)
            }
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name)?.removed();
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.files();
        let file = files.remove(from)?;
        files.insert(to, file);
        Ok(())
    }

    /// The file is replaced, so that who reads the old one goes on.
    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut files = self.files();
        let file = files.get(name).ok_or(io::ErrorKind::NotFound)?;
        let mut kept = file.bytes().clone();
        kept.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
        files.insert(name, MemoryFile::of(kept));
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
