//! The guest's open files, for the calls that appends and reads are made of: one write or read at a position.
//!
//! wasi-common opens the files, decides what may be done with them, and does all else. Its way of reading and
//! writing takes longer than the system call, for a small record: allocations for futures and lists of parts, a
//! lock, two look-ups.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use proglog_wasm::abi::Span;
use wasi_common::{WasiFile, snapshots::preview_1::types::Errno};

use super::{sandbox::for_guest, wasi::range_of};

/// A file that the guest has open, and what it may do with it.
pub(super) struct OpenFile {
    #[cfg_attr(not(unix), allow(dead_code, reason = "there is none"))]
    file: File,
    reads: bool,
    writes: bool,
    /// Of all files of the guest's.
    bytes_read: Arc<AtomicU64>,
}

impl OpenFile {
    /// The same open file. None where that cannot be had: then wasi-common does it all. What is read is added to
    /// `bytes_read`.
    #[cfg(unix)]
    pub(super) fn of(
        file: &dyn WasiFile,
        reads: bool,
        writes: bool,
        bytes_read: &Arc<AtomicU64>,
    ) -> Option<Self> {
        let file = file.pollable()?.try_clone_to_owned().ok()?.into();
        Some(Self {
            file,
            reads,
            writes,
            bytes_read: Arc::clone(bytes_read),
        })
    }

    #[cfg(not(unix))]
    pub(super) fn of(
        _file: &dyn WasiFile,
        _reads: bool,
        _writes: bool,
        _bytes_read: &Arc<AtomicU64>,
    ) -> Option<Self> {
        None
    }

    #[cfg(unix)]
    fn read_at(&self, bytes: &mut [u8], position: u64) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(&self.file, bytes, position)?;
        self.bytes_read.fetch_add(read as u64, Relaxed);
        Ok(read)
    }

    #[cfg(unix)]
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(&self.file, bytes, position)
    }

    #[cfg(not(unix))]
    fn read_at(&self, _bytes: &mut [u8], _position: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    #[cfg(not(unix))]
    fn write_at(&self, _bytes: &[u8], _position: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Open files by the guest's number.
#[derive(Default)]
pub(super) struct OpenFiles {
    files: BTreeMap<i32, OpenFile>,
}

/// The arguments of `fd_pread` and `fd_pwrite`: where the list of parts is and how long, the position, and
/// where the number of bytes goes.
#[derive(Clone, Copy)]
pub(super) struct Transfer {
    pub(super) parts: i32,
    pub(super) len: i32,
    pub(super) at: i64,
    pub(super) done: i32,
}

impl OpenFiles {
    pub(super) fn opened(&mut self, fd: i32, file: OpenFile) {
        self.files.insert(fd, file);
    }

    pub(super) fn closed(&mut self, fd: i32) {
        self.files.remove(&fd);
    }

    /// `fd_pread`, if it is of one part, and nothing about it is out of the ordinary.
    pub(super) fn read(&self, memory: &mut [u8], fd: i32, transfer: Transfer) -> Option<i32> {
        let file = self.files.get(&fd).filter(|file| file.reads)?;
        let (part, done) = transfer.ranges(memory)?;
        let read = file.read_at(&mut memory[part], transfer.at.cast_unsigned());
        Some(finish(memory, done, read))
    }

    /// `fd_pwrite`, likewise.
    pub(super) fn write(&self, memory: &mut [u8], fd: i32, transfer: Transfer) -> Option<i32> {
        let file = self.files.get(&fd).filter(|file| file.writes)?;
        let (part, done) = transfer.ranges(memory)?;
        let written = file.write_at(&memory[part], transfer.at.cast_unsigned());
        Some(finish(memory, done, written))
    }
}

impl Transfer {
    /// The bytes of the only part, and of the number: none if they are not all in the guest's memory.
    fn ranges(self, memory: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
        let place = |ptr: i32, len| {
            let ptr = ptr.cast_unsigned();
            // wasi-common says what is wrong with others.
            let range = range_of(Span { ptr, len })?;
            (ptr.is_multiple_of(4) && range.end <= memory.len()).then_some(range)
        };
        if self.len != 1 {
            return None;
        }
        let (&[ptr, len], []) = memory[place(self.parts, 8)?].as_chunks::<4>() else {
            return None;
        };
        let (ptr, len) = (u32::from_le_bytes(ptr), u32::from_le_bytes(len));
        let part = range_of(Span { ptr, len })?;
        (len > 0 && part.end <= memory.len()).then_some((part, place(self.done, 4)?))
    }
}

/// Tells the guest how many bytes it were, or the error's number.
fn finish(memory: &mut [u8], done: Range<usize>, result: io::Result<usize>) -> i32 {
    let bytes = result.map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX));
    match bytes {
        Ok(bytes) => {
            memory[done].copy_from_slice(&bytes.to_le_bytes());
            Errno::Success as i32
        }
        Err(e) => for_guest(e.into()).downcast().unwrap_or(Errno::Io) as i32,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;

    use wasi_common::{
        WasiDir,
        file::{FdFlags, OFlags},
    };
    use wiggle::run_in_dummy_executor as run;

    use super::{super::sandbox::Sandbox, *};
    use crate::Mode;

    const FD: i32 = 7;

    /// Files of which one, with ten bytes, was opened by the sandbox.
    fn opened(reads: bool, writes: bool) -> (tempfile::TempDir, OpenFiles) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("0.store"), "0123456789").unwrap();
        let sandbox = Sandbox::open(directory.path(), Mode::Write).unwrap();
        let open = |name| {
            let (oflags, fdflags) = (OFlags::empty(), FdFlags::empty());
            run(sandbox.open_file(true, name, oflags, reads, writes, fdflags)).unwrap()
        };
        assert!(sandbox.take_opened().is_none());
        open("0.store").ok().unwrap();
        let mut files = OpenFiles::default();
        files.opened(FD, sandbox.take_opened().unwrap());
        assert!(sandbox.take_opened().is_none());
        assert!(open("1.store").is_err());
        assert!(sandbox.take_opened().is_none());
        (directory, files)
    }

    /// 64 bytes: at 0 a list of one part, at 8 the number of bytes, from 16 on `x`.
    fn memory(ptr: u32, len: u32) -> Vec<u8> {
        let mut memory = [ptr.to_le_bytes(), len.to_le_bytes(), [0xff; 4], [0; 4]].concat();
        memory.resize(64, b'x');
        memory
    }

    fn transfer(at: i64) -> Transfer {
        Transfer {
            parts: 0,
            len: 1,
            at,
            done: 8,
        }
    }

    fn done(memory: &[u8]) -> u32 {
        u32::from_le_bytes(memory[8..12].try_into().unwrap())
    }

    #[test]
    fn a_part_is_read_and_written_where_it_is() {
        let (directory, mut files) = opened(true, true);
        let mut bytes = memory(20, 6);
        assert_eq!(files.read(&mut bytes, FD, transfer(2)), Some(0));
        assert_eq!((done(&bytes), &bytes[16..30]), (6, &b"xxxx234567xxxx"[..]));
        assert_eq!(files.read(&mut bytes, FD, transfer(8)), Some(0));
        assert_eq!((done(&bytes), &bytes[16..30]), (2, &b"xxxx894567xxxx"[..]));
        assert_eq!(files.read(&mut bytes, FD, transfer(10)), Some(0));
        assert_eq!(done(&bytes), 0);
        assert_eq!(files.write(&mut bytes, FD, transfer(9)), Some(0));
        assert_eq!(done(&bytes), 6);
        let written = fs::read(directory.path().join("0.store")).unwrap();
        assert_eq!(written, b"012345678894567");
        for read in [true, false] {
            let mut bytes = memory(20, 6);
            let negative = match read {
                true => files.read(&mut bytes, FD, transfer(-1)),
                false => files.write(&mut bytes, FD, transfer(-1)),
            };
            assert_eq!(negative, Some(Errno::Inval as i32));
            assert_eq!(bytes, memory(20, 6));
        }
        files.closed(FD);
        assert_eq!(files.read(&mut bytes, FD, transfer(0)), None);
        assert_eq!(files.write(&mut bytes, FD, transfer(0)), None);
    }

    #[test]
    fn what_a_file_was_not_opened_for_is_left_to_wasi_common() {
        let mut bytes = memory(16, 4);
        let (_directory, files) = opened(true, false);
        assert_eq!(files.write(&mut bytes, FD, transfer(0)), None);
        assert_eq!(files.read(&mut bytes, FD, transfer(0)), Some(0));
        let (_directory, files) = opened(false, true);
        assert_eq!(files.read(&mut bytes, FD, transfer(0)), None);
        assert_eq!(files.write(&mut bytes, FD, transfer(0)), Some(0));
        assert_eq!(files.write(&mut bytes, FD + 1, transfer(0)), None);
    }

    #[test]
    fn so_is_whatever_does_not_lie_in_memory() {
        let (directory, files) = opened(true, true);
        let parts = [
            (16, 0),
            (16, 49),
            (64, 1),
            (u32::MAX, 1),
            (1, u32::MAX),
            (u32::MAX, u32::MAX),
        ];
        let mut attempts: Vec<_> = parts
            .map(|(ptr, len)| (memory(ptr, len), transfer(0)))
            .into();
        let whole = transfer(0);
        attempts.extend(
            [
                Transfer { parts: 2, ..whole },
                Transfer { parts: 60, ..whole },
                Transfer { parts: -8, ..whole },
                Transfer { len: 0, ..whole },
                Transfer { len: 2, ..whole },
                Transfer { len: -1, ..whole },
                Transfer { done: 9, ..whole },
                Transfer { done: 64, ..whole },
                Transfer { done: -4, ..whole },
            ]
            .map(|transfer| (memory(16, 4), transfer)),
        );
        for (mut bytes, transfer) in attempts {
            let before = bytes.clone();
            assert_eq!(files.read(&mut bytes, FD, transfer), None);
            assert_eq!(files.write(&mut bytes, FD, transfer), None);
            assert_eq!(bytes, before);
        }
        let kept = fs::read(directory.path().join("0.store")).unwrap();
        assert_eq!(kept, b"0123456789");
    }
}
