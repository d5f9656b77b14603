//! The store: the file of frames of one segment.

use bytes::Bytes;

use crate::{
    Error, Result,
    backend::BackendFile,
    error::Damaged,
    record::{LENGTH_BYTES, frame_bytes},
};

/// A buffer that has grown past this is given back once it is written.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// The frames of one segment, one after the other: eight bytes of length (big-endian), then the
/// record. A store knows nothing of what the records hold.
///
/// Appended frames wait in a buffer until [`Store::flush`] hands them to the file and
/// [`Store::sync`] to stable storage; reads see them at once.
///
/// ```
/// use proglog::{Access, Backend, MemoryBackend, Store};
/// let file = MemoryBackend::new().open("0.store", Access::Create)?;
/// let mut store = Store::new(file, "0.store")?;
/// let (bytes, position) = store.append(b"hello world")?;
/// assert_eq!((bytes, position), (19, 0));
/// assert_eq!(store.read(position)?, b"hello world".as_slice());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Store<F> {
    file: F,
    name: String,
    /// The bytes of the file that are frames; the buffer's stand after them.
    written_bytes: u64,
    buffer: Vec<u8>,
    /// Whether anything was written since the last sync.
    unsynced: bool,
}

impl<F: BackendFile> Store<F> {
    /// A store on an open file, whose bytes it holds. `name` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the file's length cannot be had.
    pub fn new(file: F, name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let written_bytes = file.len().map_err(|e| Error::io("measure", &name, e))?;
        Ok(Self {
            file,
            name,
            written_bytes,
            buffer: Vec::new(),
            unsynced: false,
        })
    }

    /// Appends one frame and returns its length, the eight bytes included, and its position.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when there is no memory for it.
    pub fn append(&mut self, record: &[u8]) -> Result<(u64, u64)> {
        let position = self.len();
        let bytes = (LENGTH_BYTES + record.len()) as u64;
        self.reserve(bytes)?;
        self.buffer
            .extend_from_slice(&(record.len() as u64).to_be_bytes());
        self.buffer.extend_from_slice(record);
        Ok((bytes, position))
    }

    /// Reads the record whose frame starts at `position`, without its eight bytes of length.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] when no frame that fits the store starts there, [`Error::Io`].
    pub fn read(&self, position: u64) -> Result<Bytes> {
        let mut length = [0; LENGTH_BYTES];
        let room = self.len().saturating_sub(position);
        let read = self.read_at(&mut length, position)?;
        let bytes = frame_bytes(&length[..read], room).ok_or_else(|| {
            Error::InvalidArgument(format!(
                "no frame of {} starts at position {position}: {}",
                self.name,
                Damaged::Length
            ))
        })?;
        Ok(self.read_exact(position, bytes)?.slice(LENGTH_BYTES..))
    }

    /// Reads into `buffer` from `position` and returns how many bytes there were: fewer than asked
    /// only at the end of the store.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            let at = position.saturating_add(read as u64);
            let part = if at < self.written_bytes {
                let rest = usize::try_from(self.written_bytes - at).unwrap_or(usize::MAX);
                let end = buffer.len().min(read.saturating_add(rest));
                let got = self.file.read_at(&mut buffer[read..end], at);
                got.map_err(|e| Error::io("read", &self.name, e))?
            } else {
                let waiting = usize::try_from(at - self.written_bytes).ok();
                let rest = waiting
                    .and_then(|at| self.buffer.get(at..))
                    .unwrap_or_default();
                let part = rest.len().min(buffer.len() - read);
                buffer[read..read + part].copy_from_slice(&rest[..part]);
                part
            };
            if part == 0 {
                break;
            }
            read += part;
        }
        Ok(read)
    }

    /// The bytes of all frames, those in the buffer included.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.written_bytes + self.buffer.len() as u64
    }

    /// Whether it holds no frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands what waits in the buffer to the file: it then survives the process being killed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; any part of it may then have been written.
    pub fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.unsynced = true;
        let written = self.file.write_at(&self.buffer, self.written_bytes);
        written.map_err(|e| Error::io("write", &self.name, e))?;
        self.written_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        Ok(())
    }

    /// Flushes, then returns once all frames are on stable storage.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; it is then unknown which frames are.
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        if self.unsynced {
            self.file
                .sync()
                .map_err(|e| Error::io("sync", &self.name, e))?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Flushes and syncs.
    ///
    /// # Errors
    ///
    /// Those of [`Store::sync`].
    pub fn close(mut self) -> Result<()> {
        self.sync()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Room for `bytes` more in the buffer.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<()> {
        let reserved = usize::try_from(bytes).map(|bytes| self.buffer.try_reserve(bytes));
        match reserved {
            Ok(Ok(())) => Ok(()),
            _ => Err(out_of_memory(&self.name)),
        }
    }

    /// The bytes in the buffer.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.buffer.len() as u64
    }

    /// Where frames are encoded in place.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Takes back frames that are still in the buffer.
    pub(crate) fn take_back(&mut self, length: u64) {
        if let Some(kept) = length.checked_sub(self.written_bytes) {
            self.buffer
                .truncate(usize::try_from(kept).unwrap_or(usize::MAX));
        }
    }

    /// Exactly `bytes` from `position`. The caller has checked them against the store's length.
    pub(crate) fn read_exact(&self, position: u64, bytes: usize) -> Result<Bytes> {
        let mut buffer = Vec::new();
        buffer
            .try_reserve_exact(bytes)
            .map_err(|_| out_of_memory(&self.name))?;
        buffer.resize(bytes, 0);
        if self.read_at(&mut buffer, position)? < bytes {
            return Err(Error::io(
                "read",
                &self.name,
                std::io::ErrorKind::UnexpectedEof.into(),
            ));
        }
        Ok(buffer.into())
    }

    /// Cuts the store to `length` bytes, durably.
    pub(crate) fn truncate(&mut self, length: u64) -> Result<()> {
        self.flush()?;
        self.file
            .set_len(length)
            .map_err(|e| Error::io("truncate", &self.name, e))?;
        self.written_bytes = length;
        self.unsynced = true;
        self.sync()
    }

    /// Takes in what another process appended.
    pub(crate) fn refresh(&mut self) -> Result<()> {
        self.written_bytes = self
            .file
            .len()
            .map_err(|e| Error::io("measure", &self.name, e))?;
        Ok(())
    }

    /// What was there on opening may be only in the operating system's memory.
    pub(crate) fn assume_unsynced(&mut self) {
        self.unsynced = true;
    }
}

fn out_of_memory(name: &str) -> Error {
    Error::io(
        "find memory for",
        name,
        std::io::ErrorKind::OutOfMemory.into(),
    )
}
