//! The index: the file of 12-byte entries that maps an offset to a position.

use crate::{Error, Result, backend::BackendFile};

/// An entry: the offset less the segment's base (u32), then the position (u64), both big-endian.
const ENTRY: usize = size_of::<u32>() + size_of::<u64>();
pub(crate) const ENTRY_BYTES: u64 = ENTRY as u64;
const _: () = assert!(ENTRY_BYTES == 12);

/// What is prepared of a file at first.
const PREPARED_BYTES_MIN: u64 = 1 << 20;
/// An entry's offset is a `u32`.
const ENTRIES_LIMIT: u64 = 1 << 32;

/// The entries of one segment, dense: entry *n* is that of offset base + *n*.
///
/// It is derived from the store and can be made anew from it. Entries wait in memory until
/// [`Index::flush`]; a log flushes them only once their records are on stable storage, so the file
/// may lag behind the store and never leads.
///
/// ```
/// use proglog::{Access, Backend, Index, MemoryBackend};
/// let file = MemoryBackend::new().open("0.index", Access::Create)?;
/// let mut index = Index::new(file, "0.index", 1024)?;
/// index.write(0, 0)?;
/// index.write(1, 21)?;
/// assert_eq!(index.read(0)?, Some((0, 0)));
/// assert_eq!(index.read(-1)?, Some((1, 21)));
/// assert_eq!(index.read(2)?, None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Index<F> {
    /// `None`: there is no file, all entries are in memory.
    file: Option<F>,
    name: String,
    entries_max: u64,
    /// The entries of the file that count.
    written: u64,
    /// The entries after those.
    waiting: Vec<u8>,
    /// The bytes the file was prepared for, once it was.
    prepared_bytes: u64,
    /// How large it is expected to get, at the most.
    expected_bytes: u64,
}

impl<F: BackendFile> Index<F> {
    /// An index on an open file with room for `bytes_max`, rounded down to whole entries. Of the
    /// entries in the file those count that follow from the first; zeros after them do not.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the file cannot be read.
    pub fn new(file: F, name: impl Into<String>, bytes_max: u64) -> Result<Self> {
        let name = name.into();
        let length = file.len().map_err(|e| Error::io("measure", &name, e))?;
        let mut index = Self::in_memory(name, bytes_max);
        index.file = Some(file);
        // As if all counted, so that they can be read.
        index.written = length / ENTRY_BYTES;
        index.written = index.leading_entries()?;
        Ok(index)
    }

    /// An index without a file.
    pub(crate) fn in_memory(name: impl Into<String>, bytes_max: u64) -> Self {
        Self {
            file: None,
            name: name.into(),
            entries_max: (bytes_max / ENTRY_BYTES).min(ENTRIES_LIMIT),
            written: 0,
            waiting: Vec::new(),
            prepared_bytes: 0,
            expected_bytes: bytes_max,
        }
    }

    /// Reads entry `n`: the offset less the base, and the position. A negative `n` counts from the
    /// end, -1 is the last. `None` where there is no such entry.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn read(&self, n: i64) -> Result<Option<(u32, u64)>> {
        let from_end = || self.entries().checked_sub(n.unsigned_abs());
        let Some(n) = u64::try_from(n).ok().or_else(from_end) else {
            return Ok(None);
        };
        if n >= self.entries() {
            return Ok(None);
        }
        let mut entry = [0; ENTRY];
        if n < self.written {
            self.read_file(&mut entry, n)?;
        } else {
            let at = bytes_in_memory(n - self.written);
            entry.copy_from_slice(&self.waiting[at..at + ENTRY]);
        }
        Ok(Some(decode(entry)))
    }

    /// Adds the entry of the next offset.
    ///
    /// # Errors
    ///
    /// [`Error::IndexFull`] when there is no room, [`Error::InvalidArgument`] when `offset` is not the
    /// number of entries before it: an index has no gaps.
    pub fn write(&mut self, offset: u32, position: u64) -> Result<()> {
        if self.is_full() {
            return Err(Error::IndexFull {
                entries: self.entries(),
            });
        }
        if u64::from(offset) != self.entries() {
            return Err(Error::InvalidArgument(format!(
                "{} takes entry {} next, not {offset}",
                self.name,
                self.entries()
            )));
        }
        push_entry(&mut self.waiting, offset, position);
        Ok(())
    }

    /// How many entries it holds.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.written + self.waiting.len() as u64 / ENTRY_BYTES
    }

    /// Whether there is room for no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// How many more entries there is room for.
    pub(crate) fn room(&self) -> u64 {
        self.entries_max.saturating_sub(self.entries())
    }

    /// Hands the entries that wait in memory to the file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn flush(&mut self) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        if self.waiting.is_empty() {
            return Ok(());
        }
        let start = self.written * ENTRY_BYTES;
        let end = start + self.waiting.len() as u64;
        if end > self.prepared_bytes {
            // A little at first, then twice as much each time: an index is small beside its store.
            let more = self
                .prepared_bytes
                .saturating_mul(2)
                .max(PREPARED_BYTES_MIN);
            let bytes = more.min(self.expected_bytes).max(end);
            let prepared = file.prepare(bytes);
            prepared.map_err(|e| Error::io("prepare", &self.name, e))?;
            self.prepared_bytes = bytes;
        }
        let written = file.write_at(&self.waiting, start);
        written.map_err(|e| Error::io("write", &self.name, e))?;
        self.written = end / ENTRY_BYTES;
        self.waiting.clear();
        Ok(())
    }

    /// Flushes, cuts the file to its entries and returns once they are on stable storage.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn close(mut self) -> Result<()> {
        self.trim()
    }

    /// As [`Index::close`], and more entries may follow.
    pub(crate) fn trim(&mut self) -> Result<()> {
        self.flush()?;
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let bytes = self.written * ENTRY_BYTES;
        let length = file
            .len()
            .map_err(|e| Error::io("measure", &self.name, e))?;
        if length != bytes || self.prepared_bytes != 0 {
            self.prepared_bytes = 0;
            file.set_len(bytes)
                .map_err(|e| Error::io("truncate", &self.name, e))?;
            file.sync().map_err(|e| Error::io("sync", &self.name, e))?;
        }
        Ok(())
    }

    /// Takes back all entries past the first `entries`. The file's are forgotten, not overwritten,
    /// until it is trimmed or others take their place.
    pub(crate) fn truncate(&mut self, entries: u64) {
        self.waiting
            .truncate(bytes_in_memory(entries.saturating_sub(self.written)));
        self.written = self.written.min(entries);
    }

    /// Replaces all entries. Those of the file that are so already stay; the others are written by the
    /// next flush.
    pub(crate) fn replace(&mut self, mut entries: Vec<u8>) -> Result<()> {
        let kept = self.agreeing(&entries)?;
        entries.drain(..bytes_in_memory(kept));
        self.written = kept;
        self.waiting = entries;
        Ok(())
    }

    /// Adds entries as they stand in a file, be there room or not.
    pub(crate) fn extend(&mut self, entries: &[u8]) {
        self.waiting.extend_from_slice(entries);
    }

    /// How many of `entries` the file begins with.
    pub(crate) fn agreeing(&self, entries: &[u8]) -> Result<u64> {
        const CHUNK: usize = 1024 * ENTRY;
        let Some(file) = &self.file else { return Ok(0) };
        let mut chunk = [0; CHUNK];
        let mut at = 0;
        while at < entries.len() {
            let part = CHUNK.min(entries.len() - at);
            let read = read_full(file, &mut chunk[..part], at as u64)
                .map_err(|e| Error::io("read", &self.name, e))?;
            let same = chunk[..read]
                .iter()
                .zip(&entries[at..])
                .take_while(|(a, b)| a == b)
                .count();
            at += same;
            if same < part {
                break;
            }
        }
        Ok(at as u64 / ENTRY_BYTES)
    }

    /// The file's length in bytes, if there is one.
    pub(crate) fn file_bytes(&self) -> Result<Option<u64>> {
        let length = self.file.as_ref().map(BackendFile::len).transpose();
        length.map_err(|e| Error::io("measure", &self.name, e))
    }

    /// Whether the file holds nothing but zeros from byte `position` on.
    pub(crate) fn is_zero_from(&self, mut position: u64) -> Result<bool> {
        let Some(file) = &self.file else {
            return Ok(true);
        };
        let mut chunk = [0; 4096];
        loop {
            let read = read_full(file, &mut chunk, position)
                .map_err(|e| Error::io("read", &self.name, e))?;
            if read == 0 {
                return Ok(true);
            }
            if chunk[..read].iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            position += read as u64;
        }
    }

    /// How large the file is expected to get, in bytes.
    pub(crate) fn expect_bytes(&mut self, bytes: u64) {
        self.expected_bytes = bytes.min(self.entries_max * ENTRY_BYTES);
    }

    /// The entries the file begins with that follow one another; zeros or anything else may come
    /// after. Found by halving: between an entry that is in its place and one that is not.
    fn leading_entries(&self) -> Result<u64> {
        let in_place = |n: u64| -> Result<bool> {
            let mut entry = [0; ENTRY];
            self.read_file(&mut entry, n)?;
            Ok(u64::from(decode(entry).0) == n)
        };
        let all = self.written.min(ENTRIES_LIMIT);
        if all == 0 || in_place(all - 1)? {
            return Ok(all);
        }
        let (mut good, mut bad) = (0, all - 1);
        while good < bad {
            let middle = good + (bad - good) / 2;
            if in_place(middle)? {
                good = middle + 1
            } else {
                bad = middle
            }
        }
        Ok(good)
    }

    fn read_file(&self, entry: &mut [u8; ENTRY], n: u64) -> Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let read = read_full(file, entry, n * ENTRY_BYTES);
        // A file that became shorter gives zeros, and no entry is believed unless its record is there.
        read.map(drop).map_err(|e| Error::io("read", &self.name, e))
    }
}

/// The bytes of so many entries, in memory.
fn bytes_in_memory(entries: u64) -> usize {
    usize::try_from(entries)
        .unwrap_or(usize::MAX)
        .saturating_mul(ENTRY)
}

/// Appends an entry as it stands in the file.
pub(crate) fn push_entry(entries: &mut Vec<u8>, offset: u32, position: u64) {
    entries.extend_from_slice(&offset.to_be_bytes());
    entries.extend_from_slice(&position.to_be_bytes());
}

fn decode(entry: [u8; ENTRY]) -> (u32, u64) {
    let [a, b, c, d, position @ ..] = entry;
    (
        u32::from_be_bytes([a, b, c, d]),
        u64::from_be_bytes(position),
    )
}

fn read_full(file: &impl BackendFile, buffer: &mut [u8], position: u64) -> std::io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], position + read as u64)? {
            0 => break,
            part => read += part,
        }
    }
    Ok(read)
}
