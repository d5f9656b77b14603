//! Floors that read: a file of frames, and the positions of its frames in an array.

use std::{fs::File, os::unix::fs::FileExt, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use memmap2::Mmap;

use super::{
    space::Space,
    write::{Call, Each},
};
use crate::{
    frame::{self, frame_bytes},
    subject::{Setup, Subject},
    values::{self, Seen},
};

/// How the file is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Mmap {
        checked: bool,
    },
    Pread {
        checked: bool,
    },
    /// The value's bytes from the mapping into a buffer, and no more.
    Memcpy,
}

pub struct Reader {
    file: File,
    map: Mmap,
    positions: Vec<u64>,
    way: Way,
    value_bytes: usize,
}

impl Reader {
    pub fn open(setup: &Setup, way: Way) -> Result<Box<dyn Subject>> {
        if !setup.exists {
            return Each::open(setup, Space::Growing, Call::Write, false);
        }
        let file = File::open(setup.directory.join("floor"))?;
        // SAFETY: no one writes to the file any more.
        let map = unsafe { Mmap::map(&file)? };
        let step = frame_bytes(setup.value_bytes) as u64;
        Ok(Box::new(Self {
            file,
            map,
            positions: (0..setup.records).map(|n| n * step).collect(),
            way,
            value_bytes: setup.value_bytes,
        }))
    }
}

impl Subject for Reader {
    fn append(&mut self, _value: &[u8]) -> Result<()> {
        bail!("a reader")
    }

    fn sync(&mut self) -> Result<()> {
        bail!("a reader")
    }

    fn scan(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut at = 0;
        match self.way {
            Way::Mmap { checked } => {
                while let Some(value) = frame::decode(&self.map, at, checked) {
                    seen.add(value);
                    at += frame_bytes(value.len());
                }
            }
            Way::Memcpy => {
                let mut buffer = vec![0; self.value_bytes];
                for &position in &self.positions {
                    let start = position as usize + frame::LENGTH_BYTES;
                    buffer.copy_from_slice(&self.map[start..start + self.value_bytes]);
                    seen.add(&buffer);
                }
            }
            Way::Pread { checked } => {
                let mut buffer = vec![0; 256 << 10];
                let mut position = 0;
                loop {
                    let read = self.file.read_at(&mut buffer, position)?;
                    let mut at = 0;
                    while let Some(value) = frame::decode(&buffer[..read], at, checked) {
                        seen.add(value);
                        at += frame_bytes(value.len());
                    }
                    if at == 0 {
                        break;
                    }
                    position += at as u64;
                }
            }
        }
        Ok(seen)
    }

    #[inline]
    fn read(&self, n: u64) -> Result<u64> {
        let position = self.positions[n as usize];
        let at = position as usize;
        let value = |value: Option<&[u8]>| value.map(values::fold).context("no such frame");
        match self.way {
            Way::Mmap { checked } => value(frame::decode(&self.map, at, checked)),
            Way::Memcpy => {
                let mut buffer = vec![0; self.value_bytes];
                let start = at + frame::LENGTH_BYTES;
                buffer.copy_from_slice(&self.map[start..start + self.value_bytes]);
                Ok(values::fold(&buffer))
            }
            Way::Pread { checked } => {
                let mut buffer = vec![0; frame_bytes(self.value_bytes)];
                self.file.read_exact_at(&mut buffer, position)?;
                value(frame::decode(&buffer, 0, checked))
            }
        }
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Checks every frame of the store that proglog wrote last: what a recovery of the active segment has to
/// do at least.
pub fn check_newest_store(directory: &Path) -> Result<()> {
    let base = |path: &Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
    let newest = std::fs::read_dir(directory)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "store"))
        .filter(|path| path.metadata().is_ok_and(|metadata| metadata.len() > 0))
        .max_by_key(|path| base(path))
        .context("no store")?;
    let file = File::open(newest)?;
    // SAFETY: the process that wrote to it is dead.
    let map = unsafe { Mmap::map(&file)? };
    let mut at = 0;
    while let Some(value) = frame::decode(&map, at, true) {
        at += frame_bytes(value.len());
    }
    ensure!(at > 0, "no frame");
    Ok(())
}
