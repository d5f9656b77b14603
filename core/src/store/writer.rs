//! How frames get into a store: by memory, or large ones at once.

use std::{io::IoSlice, ops::RangeInclusive};

use super::StoreReader;
use crate::{
    Error, Tail,
    backend::BackendFile,
    error::{Boxed, Thin},
};

/// How much memory frames are put into before it is written to the file, where that has its space already: no more at a
/// time than zeros were written, which is what the kernel keeps together.
const BUFFER_BYTES: usize = 64 << 10;
/// And where the file grows: the kernel finds space for so much at once with less work.
const BUFFER_BYTES_MAX: usize = 256 << 10;
/// From this size on a frame is written from where it is instead.
const LARGE_BYTES: usize = BUFFER_BYTES / 2;
/// How much of a file is mapped at first, where frames are put into its memory, and at the most.
const MAPPED_BYTES: RangeInclusive<usize> = 256 << 10..=4 << 20;

/// The one who appends to a store.
#[derive(Debug)]
pub(crate) struct StoreWriter {
    tail: Option<Tail>,
    /// The position of the memory's first byte.
    tail_start: u64,
    /// Whether the memory is the file's.
    mapped: bool,
    /// Whether the file could not be mapped, so that it is not tried again.
    refused: bool,
    /// How much is mapped next.
    mapped_bytes: usize,
    /// From where on the next memory is to be mapped, until someone was told.
    wanted: Option<u64>,
    /// Memory that was used.
    spare: Option<Tail>,
    end: u64,
    written: u64,
    /// How far the file is known to hold zeros, or to be no one else's to fill.
    claimed: u64,
}

impl StoreWriter {
    /// One that goes on where the store ends.
    pub(crate) fn after<F: BackendFile>(store: &StoreReader<F>) -> Self {
        let end = store.len();
        Self {
            tail: None,
            tail_start: end,
            mapped: false,
            refused: false,
            mapped_bytes: *MAPPED_BYTES.start(),
            wanted: None,
            spare: None,
            end,
            written: end,
            claimed: 0,
        }
    }

    /// Memory for a frame of `bytes` bytes, perhaps more, to be put there and [filled](Self::fill);
    /// `None` when it is [so large](Self::is_large) that it is better [written](Self::write). With
    /// `mapped` the memory is the file's where that can be, so that the frame need not be flushed.
    #[inline]
    pub(crate) fn spare<F: BackendFile>(
        &mut self,
        store: &StoreReader<F>,
        bytes: usize,
        mapped: bool,
    ) -> Thin<Option<&mut [u8]>> {
        if Self::is_large(bytes) {
            return Ok(None);
        }
        if self.room() < bytes || (mapped && !self.mapped && !self.refused) {
            self.turn_over(store, mapped)?;
            if self.room() < bytes {
                self.turn_over(store, false)?;
            }
        }
        Ok(self.tail.as_mut().map(Tail::spare))
    }

    /// Whether a frame of so many bytes is better written from where it is.
    #[inline]
    pub(crate) fn is_large(bytes: usize) -> bool {
        bytes >= LARGE_BYTES
    }

    #[inline]
    fn room(&self) -> usize {
        let room = |tail: &Tail| tail.capacity() - tail.filled();
        self.tail.as_ref().map_or(0, room)
    }

    /// Flushes, and takes other memory.
    #[cold]
    fn turn_over<F: BackendFile>(&mut self, store: &StoreReader<F>, mapped: bool) -> Thin<()> {
        self.flush(store)?;
        if mapped && !self.refused {
            match self.map(store) {
                Ok(Some(tail)) => {
                    // The next overlaps it by as much as may be left of it unused.
                    let end = self.end - tail.filled() as u64 + tail.capacity() as u64;
                    self.wanted = Some(end.saturating_sub(BUFFER_BYTES as u64));
                    self.show(store, tail, true);
                    return Ok(());
                }
                // A full disk too: for what it still has, the frames are written.
                Ok(None) | Err(_) => self.refused = true,
            }
        }
        let has_space = self.claimed >= self.end + BUFFER_BYTES as u64;
        let capacity = if has_space {
            BUFFER_BYTES
        } else {
            BUFFER_BYTES_MAX
        };
        let tail = match self.spare.take() {
            Some(spare) if spare.capacity() == capacity => spare,
            _ => {
                let made = Tail::heap(capacity);
                made.map_err(|e| store.failed("find memory for", e))?
            }
        };
        self.show(store, tail, false);
        Ok(())
    }

    /// The file's memory from the end on: what was mapped ahead, or mapped now.
    fn map<F: BackendFile>(&mut self, store: &StoreReader<F>) -> std::io::Result<Option<Tail>> {
        if let Some(tail) = self.mapped_ahead(store) {
            return Ok(Some(tail));
        }
        let bytes = self.mapped_bytes;
        self.mapped_bytes = (bytes * 2).min(*MAPPED_BYTES.end());
        // Held meanwhile: zeros written further on would make a hole of what is missing in the file, and not be filled.
        let mut prepared = store.prepared();
        // It may just have been at it.
        if let Some(tail) = self.mapped_ahead(store) {
            return Ok(Some(tail));
        }
        let tail = store.file()?.map_tail(self.end, bytes)?;
        if tail.is_some() {
            *prepared = (self.end + bytes as u64).max(*prepared);
        }
        Ok(tail)
    }

    /// The file's memory that was mapped ahead, if the end is in it.
    fn mapped_ahead<F: BackendFile>(&self, store: &StoreReader<F>) -> Option<Tail> {
        let (start, mut tail) = store.take_next_tail()?;
        let before = usize::try_from(self.end.checked_sub(start)?).ok()?;
        (before >= tail.filled() && before + LARGE_BYTES <= tail.capacity()).then(|| {
            tail.begin_at(before);
            tail
        })
    }

    /// Where more memory is to be mapped ahead, and how much, if it is: told once.
    #[inline]
    pub(crate) fn take_wanted(&mut self) -> Option<(u64, usize)> {
        let start = self.wanted.take()?;
        Some((start, self.mapped_bytes))
    }

    /// Puts memory in the place of the one there was. All of that was written.
    fn show<F: BackendFile>(&mut self, store: &StoreReader<F>, tail: Tail, mapped: bool) {
        self.tail_start = self.end - tail.filled() as u64;
        self.mapped = mapped;
        store.show_tail(Some((self.tail_start, tail.view())));
        let old = self.tail.replace(tail);
        self.spare = old.and_then(Tail::reuse).or(self.spare.take());
    }

    /// Counts the `bytes` bytes of frames that were put at the start of the [spare](Self::spare) memory.
    #[inline]
    pub(crate) fn fill<F: BackendFile>(&mut self, store: &StoreReader<F>, bytes: usize) {
        if let Some(tail) = &mut self.tail {
            tail.fill(bytes);
            self.end += bytes as u64;
            store.appended(self.end);
            if self.mapped {
                self.written = self.end;
                store.wrote(self.written);
            }
        }
    }

    /// Writes a frame of these parts to the file, after all before it.
    pub(crate) fn write<F: BackendFile>(
        &mut self,
        store: &StoreReader<F>,
        parts: &[&[u8]],
    ) -> Thin<()> {
        self.flush(store)?;
        // What it holds is in the file, and what comes after the frame stands elsewhere.
        store.show_tail(None);
        if let Some(tail) = self.tail.take().filter(|_| !self.mapped) {
            self.spare = tail.reuse();
        }
        let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        let end = self.end + bytes as u64;
        self.claim(store, end);
        let written = store
            .file()
            .and_then(|file| file.write_vectored_at(&parts, self.end));
        written.map_err(|e| store.failed("write", e))?;
        (self.end, self.written) = (end, end);
        store.wrote(end);
        store.appended(end);
        Ok(())
    }

    /// Hands what waits in memory to the file.
    #[inline]
    pub(crate) fn flush<F: BackendFile>(&mut self, store: &StoreReader<F>) -> Thin<()> {
        if self.written == self.end {
            return Ok(());
        }
        self.claim(store, self.end);
        let Some(tail) = &self.tail else {
            return Ok(());
        };
        let from = usize::try_from(self.written - self.tail_start).unwrap_or(usize::MAX);
        let written = store
            .file()
            .and_then(|file| file.write_at(tail.filled_from(from), self.written));
        written.map_err(|e| store.failed("write", e))?;
        self.written = self.end;
        store.wrote(self.written);
        Ok(())
    }

    /// Whether frames are put into the file's memory.
    pub(crate) fn is_mapped(&self) -> bool {
        self.mapped
    }

    /// Has zeros be written after the end, if no more were to be.
    pub(crate) fn prepare_again<F: BackendFile>(&mut self, store: &StoreReader<F>) -> Thin<()> {
        if store.prepare_again(self.end)? {
            // No more was, while no one filled anything.
            self.claimed = self.end;
        }
        Ok(())
    }

    /// Where the store ends.
    #[inline]
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Makes sure that what is about to be written is not filled with zeros meanwhile.
    #[inline]
    fn claim<F: BackendFile>(&mut self, store: &StoreReader<F>, end: u64) {
        if end > self.claimed {
            self.claimed = store.claim(end);
        }
    }
}

/// What is there when memory is asked for and there is none.
pub(crate) fn out_of_memory(name: &str) -> Boxed {
    Error::io(
        "find memory for",
        name,
        std::io::ErrorKind::OutOfMemory.into(),
    )
}
