//! An index file, as it stands.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use proglog::Offset;
use serde::Serialize;

use super::failure::Failure;

/// The bytes of an entry.
const ENTRY: usize = 12;
pub(crate) const ENTRY_BYTES: u64 = ENTRY as u64;

/// An index whose entries are asked for in order, mostly.
pub(crate) struct IndexFile {
    path: PathBuf,
    /// None if it is missing.
    file: Option<BufReader<File>>,
    bytes: u64,
    /// Where the file is read next.
    at: u64,
}

/// An entry, be it right or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    /// After the segment's base.
    pub(crate) relative_offset: u32,
    pub(crate) position: u64,
}

/// What an index file is like as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct IndexSummary {
    pub(crate) segment: Offset,
    /// Of the file; null if it is missing.
    pub(crate) file_bytes: Option<u64>,
    /// How many entries of the segment's records it has room for.
    pub(crate) entries: u64,
    /// What stands after them.
    pub(crate) bytes_after: u64,
    /// Whether that is nothing but zeros.
    pub(crate) zeros_after: bool,
}

impl IndexFile {
    pub(crate) fn open(directory: &Path, base: Offset) -> Result<Self, Failure> {
        let path = directory.join(format!("{base}.index"));
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (bytes, file) = match opened {
            Ok((bytes, file)) => (bytes, Some(BufReader::new(file))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (0, None),
            Err(error) => return Err(Failure::io("open", &path, &error)),
        };
        Ok(Self {
            path,
            file,
            bytes,
            at: 0,
        })
    }

    /// Entry `n`, if the file reaches so far.
    pub(crate) fn entry(&mut self, n: u64) -> Result<Option<Entry>, Failure> {
        let start = n.saturating_mul(ENTRY_BYTES);
        if start.saturating_add(ENTRY_BYTES) > self.bytes {
            return Ok(None);
        }
        let Some(file) = &mut self.file else {
            return Ok(None);
        };
        let mut entry = [0; ENTRY];
        let read = (|| {
            if start != self.at {
                file.seek(SeekFrom::Start(start))?;
            }
            file.read_exact(&mut entry)
        })();
        match read {
            Ok(()) => self.at = start + ENTRY_BYTES,
            // Cut since it was opened, by a writer.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.bytes = start;
                self.at = u64::MAX;
                return Ok(None);
            }
            Err(error) => return Err(Failure::io("read", &self.path, &error)),
        }
        let [a, b, c, d, position @ ..] = entry;
        Ok(Some(Entry {
            relative_offset: u32::from_be_bytes([a, b, c, d]),
            position: u64::from_be_bytes(position),
        }))
    }

    /// What it is like, of a segment from `base` to before `end`.
    pub(crate) fn summary(&mut self, base: Offset, end: Offset) -> Result<IndexSummary, Failure> {
        let entries = end.since(base).min(self.bytes / ENTRY_BYTES);
        let start = entries * ENTRY_BYTES;
        let zeros_after = match &mut self.file {
            None => true,
            Some(file) => file
                .seek(SeekFrom::Start(start))
                .and_then(|_| is_zeros(file))
                .map_err(|error| Failure::io("read", &self.path, &error))?,
        };
        self.at = u64::MAX;
        Ok(IndexSummary {
            segment: base,
            file_bytes: self.file.as_ref().map(|_| self.bytes),
            entries,
            bytes_after: self.bytes - start,
            zeros_after,
        })
    }
}

fn is_zeros(mut source: impl Read) -> io::Result<bool> {
    let mut block = [0; 8 << 10];
    loop {
        let bytes = source.read(&mut block)?;
        if bytes == 0 {
            return Ok(true);
        }
        if block[..bytes].iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
    }
}
