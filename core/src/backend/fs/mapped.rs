//! An index file mapped into memory. The only unsafe code of this crate.

use std::{fs::File, io};

use memmap2::MmapMut;

/// A file that is mapped from its start, all its blocks allocated.
#[derive(Debug)]
pub(super) struct Map {
    bytes: MmapMut,
}

impl Map {
    /// Gives the file `bytes` of length, really allocated, and maps it; `None` where that cannot be, and
    /// the file is as it was.
    ///
    /// A write to a mapped hole on a full disk would kill the process (SIGBUS), so there are no holes.
    pub(super) fn of(file: &File, bytes: u64) -> Option<Self> {
        let length = usize::try_from(bytes).ok().filter(|&length| length > 0)?;
        let old_bytes = file.metadata().ok()?.len();
        if allocate(file, bytes).is_err() {
            // What was allocated before the disk was full is needed for records.
            let _ = file.set_len(old_bytes);
            return None;
        }
        // SAFETY: the memory stays valid and unaliased as long as the file is not cut below `length` or
        // written by others meanwhile. This crate cuts it only in `FsFile::set_len`, which drops the
        // map first, and writes it only through this map; another process that keeps to the
        // directory's lock never opens it for writing. Who breaks the lock can make reads here give
        // other bytes, which no index entry is trusted not to be, or end the process by SIGBUS.
        let mapped = unsafe { memmap2::MmapOptions::new().len(length).map_mut(file) };
        mapped.ok().map(|bytes| Self { bytes })
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], position: u64) -> usize {
        let rest = usize::try_from(position)
            .ok()
            .and_then(|at| self.bytes.get(at..))
            .unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        read
    }

    pub(super) fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        let target = usize::try_from(position)
            .ok()
            .and_then(|at| self.bytes.get_mut(at..at.checked_add(bytes.len())?))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "past the mapped end"))?;
        target.copy_from_slice(bytes);
        Ok(())
    }

    #[cfg(windows)]
    pub(super) fn flush(&self) -> io::Result<()> {
        self.bytes.flush()
    }
}

/// Grows the file to `bytes` with its blocks allocated.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::{fs::FallocateFlags, io::Errno};

    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::INTR) => {}
            done => return Ok(done?),
        }
    }
}

/// Elsewhere the blocks are allocated by writing zeros past the end.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn allocate(mut file: &File, bytes: u64) -> io::Result<()> {
    use std::io::{Seek, SeekFrom, Write};

    const ZEROS: [u8; 1 << 16] = [0; 1 << 16];
    let mut position = file.seek(SeekFrom::End(0))?;
    while position < bytes {
        let part = usize::try_from(bytes - position).unwrap_or(usize::MAX);
        let part = part.min(ZEROS.len());
        file.write_all(&ZEROS[..part])?;
        position += part as u64;
    }
    Ok(())
}
