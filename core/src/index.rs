//! The index: the file of 12-byte entries that maps an offset to a position.

mod positions;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use self::positions::Positions;
use crate::{
    Error, Result, Tail, Views,
    backend::BackendFile,
    error::{Boxed, Thin},
    store::out_of_memory,
};

/// An entry: the offset less the segment's base (u32), then the position (u64), both big-endian.
const ENTRY: usize = size_of::<u32>() + size_of::<u64>();
pub(crate) const ENTRY_BYTES: u64 = ENTRY as u64;
const _: () = assert!(ENTRY_BYTES == 12);

/// The longest file in which a first entry, which is all zeros, vouches for its record though nothing
/// but zeros follows it. What is prepared is longer.
pub(crate) const LONE_ENTRY_BYTES_MAX: u64 = 2 * ENTRY_BYTES;

/// What is prepared of a file at first.
const PREPARED_BYTES_MIN: u64 = 64 << 10;
/// So many entries are handed to the file at a time: those of a batch at once, for a call costs more than they do.
const ENTRIES_AT_A_TIME: usize = (64 << 10) / ENTRY;
/// What is read of the file at a time, where much is.
const CHUNK: usize = 1024 * ENTRY;
const CHUNK_ENTRIES: u64 = CHUNK as u64 / ENTRY_BYTES;
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
    /// The entries of the file that count and were there when it was opened.
    opened: u64,
    /// Those of them that are mapped, once one was read.
    views: OnceLock<Option<Views>>,
    /// The positions of the entries after those.
    recent: Positions,
    writing: Mutex<Writing>,
}

/// What only who writes the file has to know of it.
#[derive(Debug)]
struct Writing {
    /// The entries of the file that count.
    written: u64,
    /// The bytes the file was prepared for, once it was.
    prepared_bytes: u64,
    /// How large it is expected to get, at the most.
    expected_bytes: u64,
    /// Whether it is known to have entries on stable storage.
    begun: bool,
    /// The file's memory from the next entry on.
    tail: Option<Tail>,
}

impl<F: BackendFile> Index<F> {
    /// An index on an open file with room for `bytes_max`, rounded down to whole entries. Of the
    /// entries in the file those count that follow from the first; zeros after them do not.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the file cannot be read.
    pub fn new(file: F, name: impl Into<String>, bytes_max: u64) -> Result<Self> {
        Ok(Self::of(file, name.into(), bytes_max)?)
    }

    pub(crate) fn of(file: F, name: String, bytes_max: u64) -> Thin<Self> {
        let length = file.len().map_err(|e| Error::io("measure", &name, e))?;
        let mut index = Self::in_memory(name, bytes_max);
        index.file = Some(file);
        let opened = index.leading_entries(length / ENTRY_BYTES)?;
        index.opened = opened;
        index.writing().written = opened;
        Ok(index)
    }

    /// An index without a file.
    pub(crate) fn in_memory(name: impl Into<String>, bytes_max: u64) -> Self {
        Self {
            file: None,
            name: name.into(),
            entries_max: (bytes_max / ENTRY_BYTES).min(ENTRIES_LIMIT),
            opened: 0,
            views: OnceLock::new(),
            recent: Positions::default(),
            writing: Mutex::new(Writing {
                written: 0,
                prepared_bytes: 0,
                expected_bytes: bytes_max,
                begun: false,
                tail: None,
            }),
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
        match u64::try_from(n).ok().or_else(from_end) {
            Some(n) => Ok(self.entry(n)?),
            None => Ok(None),
        }
    }

    /// Entry `n`, without a call or a lock where the file is mapped.
    #[inline]
    pub(crate) fn entry(&self, n: u64) -> Thin<Option<(u32, u64)>> {
        let Some(recent) = n.checked_sub(self.opened) else {
            return self.opened_entry(n).map(Some);
        };
        Ok(self
            .recent
            .get(recent)
            .and_then(|position| Some((u32::try_from(n).ok()?, position))))
    }

    #[inline]
    fn opened_entry(&self, n: u64) -> Thin<(u32, u64)> {
        let mapped = self.views().and_then(|views| {
            let at = bytes_in_memory(n);
            views.bytes().get(at..)?.first_chunk()
        });
        match mapped {
            Some(&entry) => Ok(decode(entry)),
            None => {
                let mut entry = [0; ENTRY];
                self.read_file(&mut entry, n)?;
                Ok(decode(entry))
            }
        }
    }

    #[inline]
    fn views(&self) -> Option<&Views> {
        let made = || {
            let file = self.file.as_ref()?;
            file.map(self.opened * ENTRY_BYTES).ok().flatten()
        };
        self.views.get_or_init(made).as_ref()
    }

    /// The positions of the entries before number `end`, from number `lowest` on or of the last ones, in order; read by one
    /// call where the file is not mapped. Of entries that are not there they are zero.
    pub(crate) fn positions_before(&self, end: u64, lowest: u64) -> Thin<Vec<u64>> {
        let start = end.saturating_sub(CHUNK_ENTRIES).max(lowest);
        let is_mapped = |n| n >= self.opened || self.views().is_some();
        if is_mapped(start) {
            let positions = (start..end).map(|n| Ok(self.entry(n)?.unwrap_or_default().1));
            return positions.collect();
        }
        let mut bytes = [0; CHUNK];
        let in_file = bytes_in_memory(self.opened.min(end) - start);
        self.read_bytes(&mut bytes[..in_file], start * ENTRY_BYTES)?;
        let entries = bytes[..in_file].as_chunks().0.iter();
        let recent = self.opened.max(start)..end;
        let recent = recent.map(|n| self.recent.get(n - self.opened).unwrap_or_default());
        Ok(entries
            .map(|&entry| decode(entry).1)
            .chain(recent)
            .collect())
    }

    /// Adds the entry of the next offset.
    ///
    /// # Errors
    ///
    /// [`Error::IndexFull`] when there is no room, [`Error::InvalidArgument`] when `offset` is not the
    /// number of entries before it: an index has no gaps.
    pub fn write(&mut self, offset: u32, position: u64) -> Result<()> {
        if self.is_full() {
            return Err(self.full().into());
        }
        if u64::from(offset) != self.entries() {
            return Err(Error::InvalidArgument(format!(
                "{} takes entry {} next, not {offset}",
                self.name,
                self.entries()
            )));
        }
        Ok(self.push(position)?)
    }

    /// Adds an entry, be there room or not. By one thread at a time.
    #[inline]
    pub(crate) fn push(&self, position: u64) -> Thin<()> {
        if self.recent.push(position) {
            Ok(())
        } else {
            Err(self.full())
        }
    }

    pub(crate) fn full(&self) -> Boxed {
        Boxed::from(Error::IndexFull {
            entries: self.entries(),
        })
    }

    /// How many entries it holds.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.opened + self.recent.len()
    }

    /// Whether there is room for no more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room() == 0
    }

    /// How many more entries there is room for. Never for more than an entry's offset, a `u32`, can number.
    pub(crate) fn room(&self) -> u64 {
        self.entries_max.saturating_sub(self.entries())
    }

    /// Hands the entries that wait in memory to the file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.flush_to(self.entries())?)
    }

    /// Hands the entries before `end` to the file.
    pub(crate) fn flush_to(&self, end: u64) -> Thin<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let mut writing = self.writing();
        let end = end.min(self.entries());
        let count = end.saturating_sub(writing.written);
        if count == 0 {
            return Ok(());
        }
        let count = usize::try_from(count).map_or(ENTRIES_AT_A_TIME, |n| n.min(ENTRIES_AT_A_TIME));
        let mut entries = Vec::new();
        let reserved = entries.try_reserve_exact(count);
        reserved.map_err(|_| out_of_memory(&self.name))?;
        while writing.written < end {
            entries.clear();
            let mut next = writing.written;
            // Positions that follow one another may stand apart in memory.
            while next < end && entries.len() < count {
                let positions = self.recent.some_from(next - self.opened);
                let numbered = (next..end).zip(positions).take(count - entries.len());
                // There are never more.
                let relative = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
                entries.extend(numbered.map(|(n, position)| encode_entry(relative(n), position)));
                next = writing.written + entries.len() as u64;
            }
            self.write_file(file, &mut writing, entries.as_flattened())?;
        }
        Ok(())
    }

    /// Returns once the file durably has bytes, if it has entries: that there are any tells that the segments
    /// before it were sealed. Costs a sync once.
    pub(crate) fn sync_begun(&self) -> Thin<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let mut writing = self.writing();
        if !writing.begun && writing.written > 0 {
            self.sync_file(file, &mut writing)?;
        }
        Ok(())
    }

    /// Returns once the file is on stable storage as it is, whoever made it so.
    pub(crate) fn sync(&self) -> Thin<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        self.sync_file(file, &mut self.writing())
    }

    fn sync_file(&self, file: &F, writing: &mut Writing) -> Thin<()> {
        file.sync().map_err(|e| Error::io("sync", &self.name, e))?;
        writing.begun = writing.written > 0;
        Ok(())
    }

    fn write_file(&self, file: &F, writing: &mut Writing, entries: &[u8]) -> Thin<()> {
        let start = writing.written * ENTRY_BYTES;
        let end = start + entries.len() as u64;
        if end > writing.prepared_bytes {
            // A little at first, then twice as much each time: an index is small beside its store.
            let more = writing
                .prepared_bytes
                .saturating_mul(2)
                .max(start + PREPARED_BYTES_MIN);
            let least = end.max(LONE_ENTRY_BYTES_MAX + ENTRY_BYTES);
            let bytes = more.min(writing.expected_bytes).max(least);
            writing.prepared_bytes = bytes;
            // The old one first: two views of one file's memory are one too many.
            writing.tail = None;
            let length = usize::try_from(bytes - start).unwrap_or(usize::MAX);
            // Where it cannot be mapped it is written; a full disk shows then.
            writing.tail = file.map_tail(start, length).ok().flatten();
        }
        match &mut writing.tail {
            Some(tail) if tail.capacity() - tail.filled() >= entries.len() => {
                tail.spare()[..entries.len()].copy_from_slice(entries);
                tail.fill(entries.len());
            }
            tail => {
                *tail = None;
                let written = file.write_at(entries, start);
                written.map_err(|e| Error::io("write", &self.name, e))?;
            }
        }
        writing.written = end / ENTRY_BYTES;
        Ok(())
    }

    /// Flushes, cuts the file to its entries and returns once they are on stable storage.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn close(self) -> Result<()> {
        Ok(self.trim()?)
    }

    /// As [`Index::close`], and more entries may follow.
    pub(crate) fn trim(&self) -> Thin<()> {
        self.flush_to(self.entries())?;
        self.cut_to_written()
    }

    /// As [`Index::trim`], but entries for which a full disk has no space stay in memory, for a later flush.
    pub(crate) fn trim_where_space(&self) -> Thin<()> {
        match self.flush_to(self.entries()) {
            Err(e) if e.is_for_want_of_space() => {}
            flushed => flushed?,
        }
        self.cut_to_written()
    }

    fn cut_to_written(&self) -> Thin<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let mut writing = self.writing();
        writing.tail = None;
        let bytes = writing.written * ENTRY_BYTES;
        let length = self.file_bytes()?.unwrap_or_default();
        if length != bytes || writing.prepared_bytes != 0 {
            writing.prepared_bytes = 0;
            file.set_len(bytes)
                .map_err(|e| Error::io("truncate", &self.name, e))?;
            self.sync_file(file, &mut writing)?;
        }
        Ok(())
    }

    /// Nothing more will be written: the file is mapped now, and then no longer kept open.
    pub(crate) fn seal(mut self) -> Self {
        let bytes = bytes_in_memory(self.opened);
        let mapped = self.views().is_some_and(|views| views.len() >= bytes);
        if mapped && self.recent.len() == 0 {
            self.file = None;
        }
        self
    }

    /// Replaces all entries, before any is read. Those of the file that are so already stay; the others are
    /// written by the next flush.
    pub(crate) fn replace(&mut self, entries: &[u8]) -> Thin<()> {
        let kept = self.agreeing(0, entries)?;
        self.opened = kept;
        self.recent = Positions::default();
        self.views = OnceLock::new();
        self.writing().written = kept;
        self.extend(&entries[bytes_in_memory(kept)..])
    }

    /// Adds entries as they stand in a file, be there room or not.
    pub(crate) fn extend(&self, entries: &[u8]) -> Thin<()> {
        for entry in entries.chunks_exact(ENTRY) {
            self.push(entry.try_into().map(decode).unwrap_or_default().1)?;
        }
        Ok(())
    }

    /// How many of `entries`, which are those of offsets from the base on, the file has as they are, from entry `n` on.
    pub(crate) fn agreeing(&self, n: u64, entries: &[u8]) -> Thin<u64> {
        let start = bytes_in_memory(n);
        let mut chunk = [0; CHUNK];
        let mut at = start;
        while at < entries.len() {
            let part = CHUNK.min(entries.len() - at);
            let read = self.read_bytes(&mut chunk[..part], at as u64)?;
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
        Ok(at.saturating_sub(start) as u64 / ENTRY_BYTES)
    }

    /// Adds to `entries`, which are those of offsets from the base on, the ones that follow them in the file and
    /// were there when it was opened, as long as each is in its place and `goes_on` with its position.
    pub(crate) fn read_entries_while(
        &self,
        entries: &mut Vec<u8>,
        mut goes_on: impl FnMut(u64) -> bool,
    ) -> Thin<()> {
        let opened = bytes_in_memory(self.opened);
        let mut chunk = [0; CHUNK];
        while entries.len() < opened {
            let part = CHUNK.min(opened - entries.len());
            let read = self.read_bytes(&mut chunk[..part], entries.len() as u64)?;
            let n = entries.len() as u64 / ENTRY_BYTES;
            let found = chunk[..read].as_chunks().0.iter().zip(n..);
            let following = found
                .take_while(|&(&entry, n)| {
                    let (relative, position) = decode(entry);
                    u64::from(relative) == n && goes_on(position)
                })
                .count()
                * ENTRY;
            entries.extend_from_slice(&chunk[..following]);
            if following < part {
                break;
            }
        }
        Ok(())
    }

    /// Whether so many entries are but one, of zeros, that cannot be told from space that was prepared and never
    /// written.
    pub(crate) fn is_lone(&self, entries: u64) -> Thin<bool> {
        Ok(entries == 1
            && self.file_bytes()? > Some(LONE_ENTRY_BYTES_MAX)
            && self.read(0)? == Some((0, 0)))
    }

    /// The file's length in bytes, if there is one.
    pub(crate) fn file_bytes(&self) -> Thin<Option<u64>> {
        let length = self.file.as_ref().map(BackendFile::len).transpose();
        length.map_err(|e| Error::io("measure", &self.name, e))
    }

    /// Whether the file has any bytes: it gets its first once a record of its segment is on stable storage.
    pub(crate) fn is_begun(&self) -> Thin<bool> {
        Ok(self.file_bytes()?.is_some_and(|bytes| bytes > 0))
    }

    /// Whether the file holds nothing but zeros from byte `position` on.
    pub(crate) fn is_zero_from(&self, mut position: u64) -> Thin<bool> {
        let mut chunk = [0; 4096];
        loop {
            let read = self.read_bytes(&mut chunk, position)?;
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
    pub(crate) fn expect_bytes(&self, bytes: u64) {
        self.writing().expected_bytes = bytes.min(self.entries_max * ENTRY_BYTES);
    }

    /// Whether the name it was opened by leads to another file by now, or to none.
    pub(crate) fn is_removed(&self) -> Thin<bool> {
        let removed = self.file.as_ref().map_or(Ok(false), F::is_removed);
        removed.map_err(|e| Error::io("measure", &self.name, e))
    }

    /// Whether there is a file.
    pub(crate) fn has_file(&self) -> bool {
        self.file.is_some()
    }

    /// How many of its first `end` entries the file has by now, where another process writes it: `known` of them
    /// are known to be there.
    pub(crate) fn entries_in_file(&self, known: u64, end: u64) -> Thin<u64> {
        let Some(bytes) = self.file_bytes()? else {
            return Ok(0);
        };
        let is_there = |n: u64| -> Thin<bool> {
            let mut entry = [0; ENTRY];
            self.read_file(&mut entry, n)?;
            Ok(self.entry(n)? == Some(decode(entry)))
        };
        let (mut there, mut end) = (known, end.min(bytes / ENTRY_BYTES));
        // Mostly it is all of them or no more than before.
        if there < end && is_there(end - 1)? {
            there = end;
        } else if there < end && !is_there(there)? {
            end = there;
        }
        while there < end {
            let middle = there + (end - there) / 2;
            if is_there(middle)? {
                there = middle + 1;
            } else {
                end = middle;
            }
        }
        Ok(if self.is_lone(there)? { 0 } else { there })
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries the file begins with that follow one another; zeros or anything else may come
    /// after. Found by halving: between an entry that is in its place and one that is not.
    fn leading_entries(&self, whole: u64) -> Thin<u64> {
        let in_place = |n: u64| -> Thin<bool> {
            let mut entry = [0; ENTRY];
            self.read_file(&mut entry, n)?;
            Ok(u64::from(decode(entry).0) == n)
        };
        let all = whole.min(ENTRIES_LIMIT);
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

    fn read_file(&self, entry: &mut [u8; ENTRY], n: u64) -> Thin<()> {
        // A file that became shorter gives zeros, and no entry is believed unless its record is there.
        self.read_bytes(entry, n * ENTRY_BYTES).map(drop)
    }

    /// Reads the file's bytes from `position` on, and gives how many there were: none where there is no file.
    fn read_bytes(&self, buffer: &mut [u8], position: u64) -> Thin<usize> {
        let Some(file) = &self.file else { return Ok(0) };
        read_full(file, buffer, position).map_err(|e| Error::io("read", &self.name, e))
    }
}

/// The bytes of so many entries, in memory.
fn bytes_in_memory(entries: u64) -> usize {
    usize::try_from(entries)
        .unwrap_or(usize::MAX)
        .saturating_mul(ENTRY)
}

/// Appends an entry as it stands in the file.
#[inline]
pub(crate) fn push_entry(entries: &mut Vec<u8>, offset: u32, position: u64) {
    entries.extend_from_slice(&encode_entry(offset, position));
}

/// An entry as it stands in the file.
#[inline]
pub(crate) fn encode_entry(offset: u32, position: u64) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..size_of::<u32>()].copy_from_slice(&offset.to_be_bytes());
    entry[size_of::<u32>()..].copy_from_slice(&position.to_be_bytes());
    entry
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
