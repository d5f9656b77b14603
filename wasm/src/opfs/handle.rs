//! An open file of the browser's.

use std::{fmt, io};

/// An open file, as a browser's `FileSystemSyncAccessHandle` gives it: no one else has it open.
pub trait Handle: fmt::Debug {
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

    /// Reads from `position` on and gives how many bytes, 0 only at the end.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    fn read(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Writes at `position` and gives how many bytes it wrote, which may be fewer; a gap reads as zeros.
    ///
    /// # Errors
    ///
    /// They cannot be written; where there is no space, of kind [`io::ErrorKind::QuotaExceeded`].
    fn write(&self, bytes: &[u8], position: u64) -> io::Result<usize>;

    /// Cuts it, or grows it with zeros.
    ///
    /// # Errors
    ///
    /// It has either length.
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// Returns once all that was written is where the browser keeps it for good.
    ///
    /// # Errors
    ///
    /// It is unknown what is.
    fn flush(&self) -> io::Result<()>;

    /// Closes it; nothing else may be called afterwards.
    fn close(&self);
}

/// Writes all of `bytes`.
pub(super) fn write_all<H: Handle>(
    handle: &H,
    mut bytes: &[u8],
    mut position: u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = at_most(handle.write(bytes, position)?, bytes.len())?;
        if written == 0 {
            // It took a part of what it was given before, and has no room for more.
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        bytes = &bytes[written..];
        position += written as u64;
    }
    Ok(())
}

/// How many bytes it was, if no more than were asked for: who tells of more has done something else.
pub(super) fn at_most(bytes: usize, asked: usize) -> io::Result<usize> {
    if bytes > asked {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(bytes)
}

/// Reads all there is, of a file that may have `bytes_max`.
pub(super) fn read_all<H: Handle>(handle: &H, bytes_max: u64) -> io::Result<Vec<u8>> {
    let length = handle.len()?;
    if length > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("it has {length} bytes, more than the {bytes_max} that it may have"),
        ));
    }
    let mut bytes = Vec::new();
    let length = usize::try_from(length).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes
        .try_reserve_exact(length)
        .map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.resize(length, 0);
    let mut read = 0;
    while read < length {
        let part = handle.read(&mut bytes[read..], read as u64)?;
        if part == 0 {
            break;
        }
        read += at_most(part, length - read)?;
    }
    bytes.truncate(read);
    Ok(bytes)
}
