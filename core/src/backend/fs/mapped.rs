//! Files mapped into memory.

use std::{fs::File, io};

use memmap2::{MmapOptions, MmapRaw};

use crate::{Tail, Views};

/// A read-only map. Its first bytes are the file's.
struct Map(MmapRaw);

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the memory is mapped as long as `self` lives. The slice is cut into records before it is
        // read, of which the log knows that they were written: those bytes never change, since a log only
        // appends, and a truncation replaces the file (`FsBackend::cut`) rather than cut it. Another process
        // that breaks the directory's lock can change them, which checksums find, or cut the
        // file, which ends this process by SIGBUS, as with every mapped file.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.0.len()) }
    }
}

/// Maps the first `bytes` bytes of the file for reading; they may be more than it has.
pub(super) fn map(file: &File, bytes: u64) -> Option<Views> {
    let length = usize::try_from(bytes).ok().filter(|&length| length > 0)?;
    let map = MmapOptions::new()
        .len(length)
        .map_raw_read_only(file)
        .ok()?;
    Some(Views::new(Map(map)))
}

/// Maps `bytes` bytes from `position` on for writing, their space really there: writing to a mapped hole on
/// a full disk would kill the process (SIGBUS), so there are no holes. `None` where the system cannot
/// promise that.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn map_tail(file: &File, position: u64, bytes: usize) -> io::Result<Option<Tail>> {
    if !keeps_allocated_space(file)? {
        return Ok(None);
    }
    let old_bytes = file.metadata()?.len();
    if let Err(e) = fill_with_zeros(file, old_bytes, position + bytes as u64) {
        // What was had before the disk was full is needed for records.
        let _ = file.set_len(old_bytes);
        return Err(e);
    }
    // A map starts with a page of the file.
    let before = position % PAGE_BYTES;
    let mut options = MmapOptions::new();
    options.offset(position - before);
    let (Ok(before), Ok(map)) = (
        usize::try_from(before),
        options
            .len(bytes + usize::try_from(before).unwrap_or(0))
            .map_raw(file),
    ) else {
        return Ok(None);
    };
    Ok(Some(Tail::mapped(map, before)))
}

/// Writes zeros from the file's end on. That is faster than to allocate its blocks alone: their pages are then
/// in memory, and large, so that few faults map them.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn fill_with_zeros(file: &File, mut from: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt;

    const ZEROS: &[u8] = &[0; 64 << 10];
    while from < end {
        // Whole pages, however the file ended.
        let part = (ZEROS.len() as u64 - from % ZEROS.len() as u64).min(end - from);
        let part = usize::try_from(part).unwrap_or(ZEROS.len());
        file.write_all_at(&ZEROS[..part], from)?;
        from += part as u64;
    }
    Ok(())
}

/// Elsewhere a full disk may show only when the memory is written, too late.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn map_tail(_: &File, _: u64, _: usize) -> io::Result<Option<Tail>> {
    Ok(None)
}

/// No page is smaller, and 64 KiB is the largest there is.
#[cfg(any(target_os = "linux", target_os = "android"))]
const PAGE_BYTES: u64 = 64 << 10;

/// Whether what was allocated can be written without asking for more space, as file systems cannot that
/// write every block to a new place.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn keeps_allocated_space(file: &File) -> io::Result<bool> {
    const EXT: i64 = 0xef53;
    const XFS: i64 = 0x5846_5342;
    const TMPFS: i64 = 0x0102_1994;
    let kind = rustix::fs::fstatfs(file)?.f_type;
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_lossless,
        reason = "its type differs between platforms"
    )]
    let kind = kind as i64;
    Ok([EXT, XFS, TMPFS].contains(&kind))
}
