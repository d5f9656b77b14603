//! Writing a sealed segment anew without some of its records.

use std::io;

use bytes::Bytes;

use super::{
    SegmentReader,
    files::{
        index_name, open_file, remove_file, replace_file, rewritten_name, store_name,
        sync_directory,
    },
};
use crate::{
    Error, Gap, GapCause, Offset, Result,
    backend::{Access, Backend, BackendFile},
    error::{Boxed, Damaged, Thin},
    index::encode_entry,
    record::{Framed, LENGTH_BYTES, encode_gap, frame_bytes, parse_framed},
    recovery::leads,
    report::Damage,
};

/// How much is read and written at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// What is to become of a segment.
pub(crate) trait Goes {
    /// Why the record of this offset is to go, if it is.
    fn goes(&mut self, offset: Offset) -> Option<GapCause>;
}

impl<F: FnMut(Offset) -> Option<GapCause>> Goes for F {
    fn goes(&mut self, offset: Offset) -> Option<GapCause> {
        self(offset)
    }
}

/// The files of a segment written anew, durably, beside those in whose place they are to be.
#[derive(Debug)]
pub(crate) struct Rewritten {
    base: Offset,
    pub(crate) removed: Removed,
}

/// What of a segment a rewriting leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) records: u64,
    /// The bytes of their frames.
    pub(crate) record_bytes: u64,
    /// The store's length before.
    pub(crate) store_bytes_before: u64,
    /// And now.
    pub(crate) store_bytes: u64,
}

impl Rewritten {
    /// Writes the files. All frames that stay are checked, and copied to the byte; `damage` is what is given up, as a
    /// scan of the segment found it: its offsets become lost. Anything else that is not sound is an error. Nothing is
    /// changed yet.
    pub(crate) fn write<B: Backend>(
        backend: &B,
        segment: &SegmentReader<B::File>,
        damage: &[Damage],
        goes: &mut impl Goes,
    ) -> Thin<Self> {
        let base = segment.base();
        let (store, index) = copies(base);
        let written = (|| {
            let mut copy = Copy {
                source: Source::new(segment),
                out: Out::new(backend, &store)?,
                base,
                next: base,
                gap: None,
                index: Out::new(backend, &index)?,
                entries: 0,
                removed: Removed::default(),
            };
            copy.copy(damage, goes)?;
            copy.out.finish()?;
            // The store before the index: an index may lag, never lead.
            copy.index.finish()?;
            // A crash in which the index has its new name leaves the store under the one that tells of it.
            sync_directory(backend)?;
            Ok(copy.removed)
        })();
        match written {
            Ok(removed) => Ok(Self { base, removed }),
            Err(e) => {
                // What stays of them is removed when the log is opened.
                let _ = remove_file(backend, &store).and_then(|()| remove_file(backend, &index));
                Err(e)
            }
        }
    }

    /// Puts the index in the place of the segment's. The store is to follow; where this fails, nothing was changed.
    ///
    /// The index goes first, durably: so one that was opened before a store, and still has its name after, is that store's.
    /// And a crash can leave the new one beside the old store, but never the other way round: then the new store is left
    /// under the name that it has until then, which tells who opens the log to make the index anew.
    pub(crate) fn put_index_in_place<B: Backend>(&self, backend: &B) -> Thin<()> {
        let (_, index) = copies(self.base);
        replace_file(backend, &index, &index_name(self.base))
    }

    /// Puts the store in the place of the segment's, durably. At any moment, also in a crash, whichever store has its name
    /// is whole.
    pub(crate) fn put_store_in_place<B: Backend>(&self, backend: &B) -> Thin<()> {
        let (store, _) = copies(self.base);
        sync_directory(backend)?;
        replace_file(backend, &store, &store_name(self.base))?;
        sync_directory(backend)
    }

    /// Removes the files.
    pub(crate) fn discard<B: Backend>(&self, backend: &B) {
        let (store, index) = copies(self.base);
        let _ = remove_file(backend, &store).and_then(|()| remove_file(backend, &index));
    }
}

/// The names of the files while they are being written.
fn copies(base: Offset) -> (String, String) {
    (
        rewritten_name(&store_name(base)),
        rewritten_name(&index_name(base)),
    )
}

/// Copies a segment's store, as it is, to a file of this name, durably. At any moment that has all of it or is not there.
pub(crate) fn set_aside<B: Backend>(backend: &B, base: Offset, name: &str) -> Thin<()> {
    let store = store_name(base);
    let file = open_file(backend, &store, Access::Read)?;
    // Who opens the log removes it if it is left behind.
    let copy = rewritten_name(&store);
    let mut out = Out::new(backend, &copy)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = file.read_at(&mut chunk, out.end());
        match read.map_err(|e| Error::io("read", &store, e))? {
            0 => break,
            read => out.put(&chunk[..read])?,
        }
    }
    out.finish()?;
    replace_file(backend, &copy, name)?;
    sync_directory(backend)
}

/// Makes a sealed segment that tells of a gap and holds nothing else, named by the last of its offsets, durably. At any
/// moment it is there, whole, or it is not.
pub(crate) fn make_of_gap<B: Backend>(backend: &B, gap: Gap) -> Thin<()> {
    let base = gap.last;
    let (made, _) = copies(base);
    // Without a store the index is nothing.
    let mut index = Out::new(backend, &index_name(base))?;
    index.put(&encode_entry(0, 0))?;
    index.finish()?;
    let mut store = Out::new(backend, &made)?;
    store.put(&encode_gap(gap))?;
    store.finish()?;
    sync_directory(backend)?;
    replace_file(backend, &made, &store_name(base))?;
    sync_directory(backend)
}

/// Says what to do where a file cannot be made, as what has its name is none.
fn in_the_way<B: Backend>(e: Boxed, backend: &B, name: &str) -> Boxed {
    match backend.open(name, Access::Read) {
        Err(found) if found.kind() == io::ErrorKind::InvalidInput => {
            let path = format!("{}/{name}", backend.name());
            let what = format!("{found}; remove it, or give it another name");
            Error::io("make", path, io::Error::new(found.kind(), what))
        }
        _ => e,
    }
}

/// A segment while it is copied.
struct Copy<'a, F, G: BackendFile> {
    source: Source<'a, F>,
    out: Out<G>,
    base: Offset,
    /// The offset of which nothing was copied yet.
    next: Offset,
    /// What ends there and was not written yet.
    gap: Option<Gap>,
    index: Out<G>,
    /// How many the index has.
    entries: u64,
    removed: Removed,
}

impl<F: BackendFile, G: BackendFile> Copy<'_, F, G> {
    fn copy(&mut self, damage: &[Damage], goes: &mut impl Goes) -> Thin<()> {
        let end = self.source.segment.store_bytes();
        self.removed.store_bytes_before = end;
        let mut damage = damage.iter().peekable();
        while self.source.position < end {
            let position = self.source.position;
            if let Some(stretch) = damage.next_if(|stretch| stretch.position == position) {
                self.give_up(stretch)?;
                continue;
            }
            let damaged_from = damage.peek().map(|stretch| stretch.position);
            match self.source.frame(damaged_from)? {
                Ok((Framed::Gap(gap), bytes)) if self.is_next(&gap, position) => {
                    self.add_gap(gap)?;
                    self.source.position += bytes;
                }
                Ok((Framed::Record(layout), bytes)) if layout.offset == self.next => {
                    if let Some(cause) = goes.goes(self.next) {
                        self.add_gap(Gap::new(self.next, self.next.next(), cause))?;
                        self.removed.records += 1;
                        self.removed.record_bytes += bytes;
                    } else {
                        self.write_gap()?;
                        self.push_entries(self.next.next())?;
                        self.out.put(&self.source.bytes_of_frame(bytes)?)?;
                    }
                    self.source.position += bytes;
                }
                found => {
                    let reason = found.err().unwrap_or(Damaged::Misplaced);
                    return Err(self.damaged(reason));
                }
            }
        }
        // Records without bytes.
        while let Some(stretch) = damage.next_if(|stretch| stretch.position == end) {
            self.give_up(stretch)?;
        }
        self.write_gap()?;
        if self.next < self.source.segment.next_offset() {
            return Err(self.damaged(Damaged::Missing));
        }
        self.removed.store_bytes = self.out.end();
        Ok(())
    }

    /// Whether a gap goes on where this stands.
    fn is_next(&self, gap: &Gap, position: u64) -> bool {
        let leads = position == 0 && leads(gap, self.base);
        (gap.first == self.next || leads) && gap.next() <= self.source.segment.next_offset()
    }

    /// Leaves a stretch of damage out, and makes its offsets a gap.
    fn give_up(&mut self, stretch: &Damage) -> Thin<()> {
        if !stretch.bytes_only && stretch.last >= self.next {
            self.add_gap(Gap::new(self.next, stretch.last.next(), GapCause::Lost))?;
        }
        self.removed.record_bytes += stretch.bytes;
        self.source.position += stretch.bytes;
        Ok(())
    }

    fn damaged(&self, reason: Damaged) -> Boxed {
        let position = self.source.position;
        self.source.segment.corrupt(self.next, position, reason)
    }

    /// Takes in a gap that goes on where this stands: one with what came before, if that is of the same cause.
    fn add_gap(&mut self, gap: Gap) -> Thin<()> {
        self.next = gap.next();
        match &mut self.gap {
            Some(before) if before.cause == gap.cause => before.last = gap.last,
            _ => {
                self.write_gap()?;
                self.gap = Some(gap);
            }
        }
        Ok(())
    }

    fn write_gap(&mut self) -> Thin<()> {
        if let Some(gap) = self.gap.take() {
            self.push_entries(gap.next())?;
            self.out.put(&encode_gap(gap))?;
        }
        Ok(())
    }

    /// Adds the entries of the offsets before `next` that have none yet: of what is written next.
    fn push_entries(&mut self, next: Offset) -> Thin<()> {
        while self.entries < next.since(self.base) {
            let n = u32::try_from(self.entries).map_err(|_| self.damaged(Damaged::Misplaced))?;
            self.index.put(&encode_entry(n, self.out.end()))?;
            self.entries += 1;
        }
        self.next = self.next.max(next);
        Ok(())
    }
}

/// The store that is copied, a part of it in memory.
struct Source<'a, F> {
    segment: &'a SegmentReader<F>,
    position: u64,
    start: u64,
    bytes: Bytes,
}

impl<'a, F: BackendFile> Source<'a, F> {
    fn new(segment: &'a SegmentReader<F>) -> Self {
        Self {
            segment,
            position: 0,
            start: 0,
            bytes: Bytes::new(),
        }
    }

    /// The frame at the position, checked. Damage that is known begins at `damaged_from`.
    fn frame(&mut self, damaged_from: Option<u64>) -> Thin<Result<(Framed, u64), Damaged>> {
        let room = self.segment.store_bytes() - self.position;
        let length = self.get(LENGTH_BYTES)?;
        let Some(bytes) = frame_bytes(&length, room) else {
            return Ok(Err(Damaged::Length));
        };
        let frame = self.get(bytes)?;
        let framed = parse_framed(&frame).map(|framed| (framed, bytes as u64));
        let Ok((framed, whole)) = framed else {
            return Ok(framed);
        };
        if !framed.is_checked()
            && whole < room
            && damaged_from != Some(self.position + whole)
            && self.first_at(self.position + whole)? != Some(framed.next())
        {
            // By itself it says too little: what comes next has to follow it.
            return Ok(Err(Damaged::Length));
        }
        Ok(Ok((framed, whole)))
    }

    /// The first offset of the frame at a position, if one is there.
    fn first_at(&self, position: u64) -> Thin<Option<Offset>> {
        let mut after = Self {
            position,
            ..Self::new(self.segment)
        };
        after.start = position;
        let room = self.segment.store_bytes() - position;
        let length = after.get(LENGTH_BYTES)?;
        let Some(bytes) = frame_bytes(&length, room) else {
            return Ok(None);
        };
        let framed = parse_framed(&after.get(bytes)?);
        Ok(framed.ok().map(|framed| framed.first()))
    }

    fn bytes_of_frame(&mut self, bytes: u64) -> Thin<Bytes> {
        self.get(usize::try_from(bytes).unwrap_or(usize::MAX))
    }

    /// So many bytes from the position on, fewer at the end of the store.
    fn get(&mut self, bytes: usize) -> Thin<Bytes> {
        let room = self.segment.store_bytes().saturating_sub(self.position);
        let bytes = bytes.min(usize::try_from(room).unwrap_or(usize::MAX));
        let at = usize::try_from(self.position - self.start).unwrap_or(usize::MAX);
        if at.saturating_add(bytes) <= self.bytes.len() {
            return Ok(self.bytes.slice(at..at + bytes));
        }
        self.bytes = Bytes::new();
        self.bytes = self
            .segment
            .bytes_from(self.position, bytes.max(CHUNK_BYTES))?;
        self.start = self.position;
        if self.bytes.len() < bytes {
            let end = io::ErrorKind::UnexpectedEof.into();
            return Err(Error::io("read", self.segment.store_file(), end));
        }
        Ok(self.bytes.slice(..bytes))
    }
}

/// A file that is written from its beginning to its end.
pub(super) struct Out<G> {
    file: G,
    name: String,
    waiting: Vec<u8>,
    written: u64,
}

impl<G: BackendFile> Out<G> {
    pub(super) fn new<B: Backend<File = G>>(backend: &B, name: &str) -> Thin<Self> {
        // What was left behind is another's.
        remove_file(backend, name).map_err(|e| in_the_way(e, backend, name))?;
        Ok(Self {
            file: open_file(backend, name, Access::Create)?,
            name: name.to_owned(),
            waiting: Vec::with_capacity(CHUNK_BYTES),
            written: 0,
        })
    }

    fn end(&self) -> u64 {
        self.written + self.waiting.len() as u64
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Thin<()> {
        if self.waiting.len() + bytes.len() > CHUNK_BYTES {
            self.flush()?;
        }
        if bytes.len() > CHUNK_BYTES {
            return self.write(bytes);
        }
        self.waiting.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Thin<()> {
        let mut waiting = std::mem::take(&mut self.waiting);
        self.write(&waiting)?;
        waiting.clear();
        self.waiting = waiting;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Thin<()> {
        if !bytes.is_empty() {
            let written = self.file.write_at(bytes, self.written);
            written.map_err(|e| Error::io("write", &self.name, e))?;
            self.written += bytes.len() as u64;
        }
        Ok(())
    }

    /// Returns once it is on stable storage.
    pub(super) fn finish(&mut self) -> Thin<()> {
        self.flush()?;
        let synced = self.file.sync();
        synced.map_err(|e| Error::io("sync", &self.name, e))
    }
}
