//! Where a log's files live.

pub(crate) mod fault;
#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
pub(crate) mod fs;
pub(crate) mod memory;

use std::{
    fmt,
    io::{self, IoSlice},
};

use crate::{Tail, Views};

/// A directory of files, as a log needs it: the file system ([`FsBackend`](crate::FsBackend)), memory
/// ([`MemoryBackend`](crate::MemoryBackend)), or one of your own. Everything that the log promises
/// rests on what is promised here.
///
/// It need not be `Send`; a `Log<B>` is `Send` and `Sync` where the backend and its files are.
///
/// ```
/// use proglog::{Access, Backend, BackendFile, MemoryBackend};
/// let files = MemoryBackend::new();
/// let file = files.open("a", Access::Create)?;
/// file.write_at(b"bytes", 3)?; // the gap reads as zeros
/// file.sync()?;
/// files.sync_directory()?;
/// let mut bytes = [0; 8];
/// assert_eq!(file.read_at(&mut bytes, 0)?, 8);
/// assert_eq!(&bytes, b"\0\0\0bytes");
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait Backend: fmt::Debug {
    /// An open file.
    type File: BackendFile + fmt::Debug;

    /// What to call this directory in a message.
    fn name(&self) -> String;

    /// The names of the files in it, in any order. Names that are not text, and directories, may be
    /// left out.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens a file. With [`Access::Create`] one that is missing is made, empty; with the others it
    /// is an error of kind [`io::ErrorKind::NotFound`]. An existing file keeps its bytes.
    ///
    /// Where files can be opened only between calls, as in a browser, an error of kind [`io::ErrorKind::WouldBlock`] says
    /// that this one is to be opened first. Nothing is concluded from it: whatever was read can be called again then, and
    /// so can the opening of a log. What changes the log needs its files open beforehand: it would poison it.
    ///
    /// # Errors
    ///
    /// The file cannot be opened.
    fn open(&self, name: &str, access: Access) -> io::Result<Self::File>;

    /// Removes a file; open handles of it may go on reading it or fail. A missing file is an error of
    /// kind [`io::ErrorKind::NotFound`].
    ///
    /// # Errors
    ///
    /// The file cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, in the place of the file that has it, if one does: that is then as if removed, and at
    /// no moment does the name lead to neither. In a power cut before the directory is synced it has either.
    /// Needed to leave offsets out, to rewrite segments, and where [`Backend::prepare_bytes`] is not 0.
    ///
    /// # Errors
    ///
    /// The file has its old name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let _ = (from, to);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Cuts a file to its first `bytes` bytes, durably. Where another reads it meanwhile, be it memory mapped by
    /// [`BackendFile::map`] or the open file of a log that was opened read-only, the file is replaced by a shorter
    /// copy, so that the old one keeps its bytes and [tells](BackendFile::is_removed) that it was replaced.
    ///
    /// # Errors
    ///
    /// The file then has either length.
    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        let file = self.open(name, Access::Write)?;
        file.set_len(bytes)?;
        file.sync()
    }

    /// How many bytes past its records a log is to fill with zeros ahead of time, in the active store and in files
    /// that become the next ones, so that a sync writes records alone and not where they are. 0 where that gains
    /// nothing.
    fn prepare_bytes(&self) -> u64 {
        0
    }

    /// Whether files can be made ahead too, which become the next stores. If not, it is the active store alone that is
    /// prepared.
    fn prepares_files(&self) -> bool {
        true
    }

    /// How many bytes may still be written, if that can be told.
    ///
    /// # Errors
    ///
    /// It is then taken to be unknown.
    fn available_bytes(&self) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// Returns once all files made and removed before are so on stable storage.
    ///
    /// # Errors
    ///
    /// It is then unknown which are.
    fn sync_directory(&self) -> io::Result<()>;

    /// Lets another have the directory to write in: the log that had it is closed, and no longer changes anything. Reads
    /// may go on, and files be opened with [`Access::Read`].
    fn release(&self) {}

    /// Removes the directory itself if nothing is left in it. What is left is no error.
    ///
    /// # Errors
    ///
    /// An empty directory cannot be removed.
    fn remove_directory(&self) -> io::Result<()> {
        Ok(())
    }
}

/// An open file of a [`Backend`]. Reads and writes are positional: there is no cursor.
pub trait BackendFile {
    /// Its length in bytes.
    ///
    /// # Errors
    ///
    /// The length cannot be had.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    ///
    /// # Errors
    ///
    /// The length cannot be had.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads from `position` into `buffer` and returns how many bytes it read: fewer than asked only
    /// at the end of the file, or where the caller may simply ask again for the rest; 0 only at or
    /// past the end.
    ///
    /// # Errors
    ///
    /// The bytes cannot be read; what is in `buffer` is then undefined.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `position`, growing the file where needed. A gap reads as zeros.
    ///
    /// # Errors
    ///
    /// Any part of the bytes may then have been written.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;

    /// Cuts the file, or grows it with zeros, to `bytes`.
    ///
    /// # Errors
    ///
    /// It may then have either length.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Returns once all that was written, and the length, is on stable storage.
    ///
    /// # Errors
    ///
    /// It is then unknown what is, and trying again must not be taken for an answer: the log poisons
    /// itself.
    fn sync(&self) -> io::Result<()>;

    /// Writes all of `parts`, one after the other, from `position` on, as one write where that can be.
    ///
    /// # Errors
    ///
    /// Those of [`BackendFile::write_at`].
    fn write_vectored_at(&self, parts: &[IoSlice<'_>], mut position: u64) -> io::Result<()> {
        for part in parts {
            self.write_at(part, position)?;
            position += part.len() as u64;
        }
        Ok(())
    }

    /// Whether the name it was opened by no longer leads to it: it was removed, or replaced. A log opened
    /// read-only tells by this that a writer truncated it; where it is always `false` none may beside it.
    ///
    /// # Errors
    ///
    /// That cannot be told.
    fn is_removed(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// Whether the file has another name too, by which it may be part of another log: nothing is appended to it then.
    ///
    /// # Errors
    ///
    /// That cannot be told.
    fn is_shared(&self) -> io::Result<bool> {
        Ok(false)
    }

    /// The first `bytes` bytes of the file as memory that shows what is written to it, for reading
    /// without a call or a copy. They may be more than the file has; what is past its end is not
    /// touched. `None` where files cannot be so mapped: then they are read.
    ///
    /// # Errors
    ///
    /// None that matters: one is taken for `None`.
    fn map(&self, bytes: u64) -> io::Result<Option<Views>> {
        let _ = bytes;
        Ok(None)
    }

    /// Memory that is the file's bytes from `position` on: what is put there is with the operating
    /// system at once. `bytes` of it or a few less; the file is made as long as that, with zeros whose space
    /// is really there, so that no write to the memory can fail. `None` where that cannot be promised: then
    /// the file is written.
    ///
    /// # Errors
    ///
    /// The space cannot be had, and the file is as it was.
    fn map_tail(&self, position: u64, bytes: usize) -> io::Result<Option<Tail>> {
        let _ = (position, bytes);
        Ok(None)
    }
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To read; it must exist.
    Read,
    /// To read and write; it must exist.
    Write,
    /// To read and write; it is made if it does not exist.
    Create,
}
