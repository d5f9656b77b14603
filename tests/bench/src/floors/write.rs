//! Floors that append: the least that a log with our frame and checksum could do.

use std::{
    fs::File,
    io::{self, Write as _},
    os::{fd::AsRawFd, unix::fs::FileExt},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use anyhow::{Context as _, Result};
use memmap2::MmapMut;

use super::space::{Ahead, Space, zeros_ahead};
use crate::{
    frame::{self, frame_bytes},
    subject::{Setup, Subject},
};

/// The user-space buffer of the floors that have one.
const BUFFER_BYTES: usize = 64 << 10;
/// The steps in which a mapping's pages are made ready.
pub const WINDOW_BYTES: u64 = 2 << 20;
const AHEAD_BYTES: u64 = 8 << 20;

pub fn file_bytes(setup: &Setup) -> u64 {
    // A page more, so that no frame straddles the end.
    (setup.records * frame_bytes(setup.value_bytes) as u64).next_multiple_of(WINDOW_BYTES)
}

/// Copies values into a 64 KiB buffer, and nothing else.
pub struct Memcpy {
    buffer: Vec<u8>,
    at: usize,
}

impl Memcpy {
    pub fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
        Ok(Box::new(Self {
            buffer: vec![0; BUFFER_BYTES.max(setup.value_bytes)],
            at: 0,
        }))
    }
}

impl Subject for Memcpy {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        if self.at + value.len() > self.buffer.len() {
            std::hint::black_box(&mut self.buffer);
            self.at = 0;
        }
        self.buffer[self.at..self.at + value.len()].copy_from_slice(value);
        self.at += value.len();
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Where more zeros are written while a [`Buffered`] floor appends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Meanwhile {
    Nothing,
    ZerosInSameFile,
    ZerosInOtherFile,
}

/// Frames into a 64 KiB buffer, written when it is full.
pub struct Buffered {
    file: File,
    buffer: Vec<u8>,
    filled: usize,
    at: u64,
    checked: bool,
    ahead: Option<Ahead>,
}

impl Buffered {
    pub fn open(
        setup: &Setup,
        space: Space,
        checked: bool,
        meanwhile: Meanwhile,
    ) -> Result<Box<dyn Subject>> {
        let file = space.create(&setup.directory.join("floor"), file_bytes(setup))?;
        let ahead = match meanwhile {
            Meanwhile::Nothing => None,
            Meanwhile::ZerosInSameFile => {
                Some(zeros_ahead(file.try_clone()?, AHEAD_BYTES, 64 << 10))
            }
            Meanwhile::ZerosInOtherFile => {
                let other = Space::Growing.create(&setup.directory.join("other"), 0)?;
                Some(zeros_ahead(other, AHEAD_BYTES, 64 << 10))
            }
        };
        Ok(Box::new(Self {
            file,
            buffer: vec![0; BUFFER_BYTES.max(frame_bytes(setup.value_bytes))],
            filled: 0,
            at: 0,
            checked,
            ahead,
        }))
    }
}

impl Subject for Buffered {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        let bytes = frame_bytes(value.len());
        if self.filled + bytes > self.buffer.len() {
            self.flush()?;
        }
        let out = &mut self.buffer[self.filled..self.filled + bytes];
        frame::encode(value, out, self.checked);
        self.filled += bytes;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let end = self.at + self.filled as u64;
        if let Some(ahead) = &mut self.ahead {
            ahead.need(end, AHEAD_BYTES);
        }
        self.file
            .write_all_at(&self.buffer[..self.filled], self.at)?;
        self.at = end;
        self.filled = 0;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.flush()?;
        Ok(self.file.sync_data()?)
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.flush()
    }
}

/// The system call that puts a frame into the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Write,
    Pwrite,
    /// `pwritev` of length, value and checksum: the value is not copied.
    Pwritev,
    /// `pwritev2` with `RWF_DSYNC`: written and synced in one call.
    PwriteDsync,
}

/// A system call a record, and a sync each if asked.
pub struct Each {
    file: File,
    scratch: Vec<u8>,
    at: AtomicU64,
    call: Call,
    sync: bool,
}

impl Each {
    pub fn open(setup: &Setup, space: Space, call: Call, sync: bool) -> Result<Box<dyn Subject>> {
        Ok(Box::new(Self {
            file: space.create(&setup.directory.join("floor"), file_bytes(setup))?,
            scratch: vec![0; frame_bytes(setup.value_bytes)],
            at: AtomicU64::new(0),
            call,
            sync,
        }))
    }
}

impl Subject for Each {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        let bytes = frame_bytes(value.len());
        let at = *self.at.get_mut();
        if self.call == Call::Pwritev {
            let (length, checksum) = frame::around(value);
            pwritev(&self.file, &[&length, value, &checksum], at, 0)?;
        } else {
            frame::encode(value, &mut self.scratch[..bytes], true);
            let frame = &self.scratch[..bytes];
            match self.call {
                Call::Write => self.file.write_all(frame)?,
                Call::PwriteDsync => pwritev(&self.file, &[frame], at, libc::RWF_DSYNC)?,
                _ => self.file.write_all_at(frame, at)?,
            }
        }
        *self.at.get_mut() = at + bytes as u64;
        if self.sync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn append_shared(&self, value: &[u8]) -> Result<()> {
        let mut frame = vec![0; frame_bytes(value.len())];
        frame::encode(value, &mut frame, true);
        let at = self.at.fetch_add(frame.len() as u64, Relaxed);
        self.file.write_all_at(&frame, at)?;
        Ok(self.file.sync_data()?)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.file.sync_data()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

fn pwritev(file: &File, parts: &[&[u8]], at: u64, flags: libc::c_int) -> Result<()> {
    let slices: Vec<io::IoSlice<'_>> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
    // SAFETY: an IoSlice has the layout of an iovec, and the parts outlive the call.
    let written = unsafe {
        libc::pwritev2(
            file.as_raw_fd(),
            slices.as_ptr().cast(),
            slices.len() as libc::c_int,
            at as libc::off_t,
            flags,
        )
    };
    let bytes: usize = parts.iter().map(|part| part.len()).sum();
    if written < 0 {
        return Err(io::Error::last_os_error()).context("pwritev2");
    }
    anyhow::ensure!(
        written as usize == bytes,
        "pwritev2 wrote {written} of {bytes}"
    );
    Ok(())
}

/// When the pages of a mapping are made ready.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Populate {
    /// By the fault of the first write.
    Never,
    /// 2 MiB at a time, by who appends.
    Inline,
    /// 2 MiB at a time, by another thread just ahead.
    Thread,
    /// All of them before the first append.
    Before,
}

/// Frames into a mapping of the file: the kernel keeps them when the process is killed.
pub struct Mapped {
    file: File,
    map: MmapMut,
    at: usize,
    populated: usize,
    populate: Populate,
    ahead: Option<Ahead>,
    sync: bool,
}

impl Mapped {
    pub fn open(
        setup: &Setup,
        space: Space,
        populate: Populate,
        sync: bool,
    ) -> Result<Box<dyn Subject>> {
        let bytes = file_bytes(setup);
        let file = space.create(&setup.directory.join("floor"), bytes)?;
        // SAFETY: no one else has the file, which is new.
        let map = unsafe { MmapMut::map_mut(&file)? };
        let base = map.as_ptr() as usize;
        let ahead = match populate {
            Populate::Never | Populate::Inline | Populate::Before => None,
            Populate::Thread => {
                let prepare = move |at: u64, step: u64| {
                    if at + step > bytes {
                        return Ok(());
                    }
                    populate_write(base + at as usize, step as usize)
                };
                Some(Ahead::start(AHEAD_BYTES.min(bytes), WINDOW_BYTES, prepare))
            }
        };
        Ok(Box::new(Self {
            file,
            map,
            at: 0,
            populated: 0,
            populate,
            ahead,
            sync,
        }))
    }
}

impl Subject for Mapped {
    fn ready(&mut self) -> Result<()> {
        if self.populate == Populate::Before {
            populate_write(self.map.as_ptr() as usize, self.map.len())?;
        }
        Ok(())
    }

    #[inline]
    fn append(&mut self, value: &[u8]) -> Result<()> {
        let end = self.at + frame_bytes(value.len());
        if let Some(ahead) = &mut self.ahead {
            ahead.need(end as u64, AHEAD_BYTES);
        } else if self.populate == Populate::Inline && end > self.populated {
            let window = (WINDOW_BYTES as usize).min(self.map.len() - self.populated);
            populate_write(self.map.as_ptr() as usize + self.populated, window)?;
            self.populated += window;
        }
        frame::encode(value, &mut self.map[self.at..end], true);
        self.at = end;
        if self.sync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.file.sync_data()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        // The thread that populates must not outlive the mapping.
        drop(self.ahead);
        Ok(())
    }
}

fn populate_write(address: usize, bytes: usize) -> io::Result<()> {
    // SAFETY: the range lies in a mapping of the caller's; populating changes no byte.
    match unsafe {
        libc::madvise(
            address as *mut libc::c_void,
            bytes,
            libc::MADV_POPULATE_WRITE,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
