//! The store: the file of frames of one segment.

mod reader;
mod writer;

use bytes::Bytes;

pub(crate) use self::{
    reader::StoreReader,
    writer::{StoreWriter, out_of_memory},
};
use crate::{
    Error, Result,
    backend::BackendFile,
    error::Damaged,
    record::{LENGTH_BYTES, frame_bytes},
};

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
    reader: StoreReader<F>,
    writer: StoreWriter,
}

impl<F: BackendFile> Store<F> {
    /// A store on an open file, whose bytes it holds. `name` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the file's length cannot be had.
    pub fn new(file: F, name: impl Into<String>) -> Result<Self> {
        let reader = StoreReader::new(file, name)?;
        reader.is_ours();
        let writer = StoreWriter::after(&reader);
        Ok(Self { reader, writer })
    }

    /// Appends one frame and returns its length, the eight bytes included, and its position.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when there is no memory for it, or no space in the file.
    pub fn append(&mut self, record: &[u8]) -> Result<(u64, u64)> {
        let position = self.len();
        let bytes = LENGTH_BYTES + record.len();
        let length = (record.len() as u64).to_be_bytes();
        if let Some(spare) = self.writer.spare(&self.reader, bytes, false)? {
            let (head, rest) = spare.split_at_mut(LENGTH_BYTES);
            head.copy_from_slice(&length);
            rest[..record.len()].copy_from_slice(record);
            self.writer.fill(&self.reader, bytes);
        } else {
            self.writer.write(&self.reader, &[&length, record])?;
        }
        Ok((bytes as u64, position))
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
                self.reader.name(),
                Damaged::Length
            ))
        })?;
        let frame = self.reader.read_exact(position, bytes)?;
        Ok(frame.slice(LENGTH_BYTES..))
    }

    /// Reads into `buffer` from `position` and returns how many bytes there were: fewer than asked
    /// only at the end of the store.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<usize> {
        Ok(self.reader.read_at(buffer, position)?)
    }

    /// The bytes of its frames, those in the buffer included.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.reader.len()
    }

    /// Whether it holds no frames.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Hands what waits in the buffer to the file: it then survives the process being killed.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.writer.flush(&self.reader)?)
    }

    /// Returns once all frames are on stable storage.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; it is then unknown which frames are.
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        Ok(self.reader.sync()?)
    }

    /// Flushes and syncs.
    ///
    /// # Errors
    ///
    /// Those of [`Store::sync`].
    pub fn close(mut self) -> Result<()> {
        self.sync()
    }
}
