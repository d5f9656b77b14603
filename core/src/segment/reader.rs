//! A segment as its readers share it with the one who appends to it. Reading waits for no one.

use std::{
    io,
    sync::{
        OnceLock,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
        },
    },
};

use bytes::Bytes;

use crate::{
    Error, Frames, Gap, Offset, Record, Result, Verify,
    backend::BackendFile,
    error::{Boxed, Damaged, Thin},
    index::Index,
    record::{
        Check, LENGTH_BYTES, Layout, checksum_matches, frame_bytes, parse_frame, parse_framed,
        parse_gap,
    },
    recovery::leading_gap,
    store::{StoreReader, out_of_memory},
};

/// A store and its index, for reading.
#[derive(Debug)]
pub(crate) struct SegmentReader<F> {
    base: Offset,
    /// The offset after the last record that readers are shown, unless it was truncated.
    next: AtomicU64,
    /// From here on records were truncated: for good, whoever still shows what it appended before.
    truncated: AtomicU64,
    pub(super) store: StoreReader<F>,
    pub(super) index: Index<F>,
    /// Whether every entry of the index was seen to be right. Otherwise a record that is not where its
    /// entry says is looked for before it is called damaged.
    proven: AtomicBool,
    verify: Verify,
    /// Which records were verified since the file was mapped, a bit each.
    verified: OnceLock<Box<[AtomicU64]>>,
}

impl<F: BackendFile> SegmentReader<F> {
    pub(super) fn new(
        base: Offset,
        next: Offset,
        store: StoreReader<F>,
        index: Index<F>,
        proven: bool,
        verify: Verify,
    ) -> Self {
        Self {
            base,
            next: next.0.into(),
            truncated: u64::MAX.into(),
            store,
            index,
            proven: proven.into(),
            verify,
            verified: OnceLock::new(),
        }
    }

    pub(crate) fn base(&self) -> Offset {
        self.base
    }

    /// The offset after the last record that is shown.
    #[inline]
    pub(crate) fn next_offset(&self) -> Offset {
        Offset(self.next.load(Acquire).min(self.truncated.load(Acquire)))
    }

    /// Shows readers what was appended, up to `next`. Whether they were not shown that before: then those who wait for
    /// it are to be woken, for which it is a `SeqCst` operation.
    #[inline]
    pub(crate) fn show(&self, next: Offset) -> bool {
        self.next.fetch_max(next.0, SeqCst) < next.0
    }

    /// Shows readers no more than what stands before `next`: the rest was truncated.
    pub(crate) fn show_no_more(&self, next: Offset) {
        self.truncated.fetch_min(next.0.max(self.base.0), Release);
    }

    /// The bytes of its frames.
    pub(crate) fn store_bytes(&self) -> u64 {
        self.store.len()
    }

    /// Whether its store's file goes on after its end, with space that was prepared.
    pub(crate) fn has_prepared_space(&self) -> Thin<bool> {
        Ok(self.store.file_bytes()? > self.store.len())
    }

    /// Whether it is read from memory for good, without its files being open.
    pub(crate) fn is_mapped(&self) -> bool {
        self.store.is_sealed()
    }

    /// Whether every entry of the index was seen to be right.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven.load(Relaxed)
    }

    /// Reads a record.
    #[inline]
    pub(crate) fn read(&self, offset: Offset) -> Thin<Record> {
        let next = self.next_offset();
        if offset < self.base || offset >= next {
            let lowest = self.base;
            return Err(Error::OffsetOutOfRange {
                offset,
                lowest,
                next,
            }
            .into());
        }
        let position = self.position(offset)?;
        self.record_at(offset, position)
    }

    /// Whole frames from the record `from` on, at least one, in at most `bytes_max` bytes if more than one; up to
    /// the first that is not right. Frames that tell of gaps may stand before each.
    pub(crate) fn read_batch(&self, from: Offset, bytes_max: usize) -> Thin<Frames> {
        let chunk = self.chunk(from, bytes_max)?;
        let whole = self.whole_frames(&chunk[..chunk.len().min(bytes_max)], from);
        if whole > 0 {
            return Ok(Frames::new(chunk.slice(..whole)));
        }
        // Larger than was read, or not right.
        Ok(Frames::new(self.read(from)?.into_frame()))
    }

    /// As [`SegmentReader::read_batch`], into `buffer`; gives how many bytes of it the frames are.
    pub(crate) fn read_batch_into(
        &self,
        from: Offset,
        bytes_max: usize,
        buffer: &mut Vec<u8>,
    ) -> Thin<usize> {
        let position = self.position(from)?;
        let bytes = self.store.read_into(position, bytes_max, buffer)?;
        let whole = self.whole_frames(&buffer[..bytes], from);
        if whole > 0 {
            return Ok(whole);
        }
        let frame = self.read(from)?.into_frame();
        buffer.clear();
        buffer
            .try_reserve_exact(frame.len())
            .map_err(|_| out_of_memory(self.store.name()))?;
        buffer.extend_from_slice(&frame);
        Ok(frame.len())
    }

    /// How many bytes are whole frames, right and of one record after the other from `from` on, but for gaps.
    fn whole_frames(&self, bytes: &[u8], from: Offset) -> usize {
        let next = self.next_offset();
        let (mut whole, mut at, mut expected) = (0, 0, from);
        while expected < next {
            if let Some((_, frame_bytes)) = self.layout_in(&bytes[at..], expected) {
                at += frame_bytes;
                expected = expected.next();
                whole = at;
            } else if let Some((gap, frame_bytes)) = self.gap_in(&bytes[at..], expected) {
                at += frame_bytes;
                expected = gap.next();
            } else {
                break;
            }
        }
        whole
    }

    /// The gap of which the frame tells that starts `bytes`, and that frame's bytes, if it is right and the offset
    /// expected is one of it.
    #[cold]
    pub(crate) fn gap_in(&self, bytes: &[u8], expected: Offset) -> Option<(Gap, usize)> {
        let whole = frame_bytes(bytes, bytes.len() as u64)?;
        let gap = self.gap_of(&bytes[..whole], expected)?;
        Some((gap, whole))
    }

    fn gap_of(&self, frame: &[u8], offset: Offset) -> Option<Gap> {
        let gap = parse_gap(frame).filter(|gap| gap.contains(offset))?;
        // Before the entry of what comes next, for beside appends that may get both meanwhile.
        let end = self.store.len();
        // As far as the index goes, it has the same place for all of them, and another for what comes next.
        let position = self.position(offset).ok()?;
        let begins = if gap.first < self.base {
            position == 0
        } else {
            self.position(gap.first).ok()? == position
        };
        // Also while a truncation shows less of it.
        let is_appended = gap.next().0 <= self.next.load(Acquire);
        let is_so = begins
            && is_appended
            && self.position(gap.last).ok()? == position
            && self
                .ends_at(gap.last, position + frame.len() as u64, end)
                .ok()?;
        is_so.then_some(gap)
    }

    /// The gap that the segment begins with, of offsets before its base.
    pub(crate) fn leading_gap(&self) -> Thin<Option<Gap>> {
        let gap = leading_gap(&self.store, self.base)?;
        Ok(gap.map(|(gap, _)| gap))
    }

    /// The bytes from a record on that can be had at once: all where they are in memory, else about
    /// `bytes_max`. They may end anywhere.
    pub(crate) fn chunk(&self, from: Offset, bytes_max: usize) -> Thin<Bytes> {
        self.bytes_from(self.position(from)?, bytes_max)
    }

    /// The store's bytes from a position on: all where they are in memory, else `bytes_max`.
    pub(super) fn bytes_from(&self, position: u64, bytes_max: usize) -> Thin<Bytes> {
        let room = self.store.len().saturating_sub(position);
        let room = usize::try_from(room).unwrap_or(usize::MAX);
        self.store.read_some(position, room, bytes_max)
    }

    pub(super) fn store_file(&self) -> &str {
        self.store.name()
    }

    /// What the record holds that starts `bytes`, and the bytes of its frame, if it is whole, right and has the
    /// offset expected. If not, [`SegmentReader::read`] tells why.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    pub(crate) fn layout_in(&self, bytes: &[u8], expected: Offset) -> Option<(Layout, usize)> {
        let whole = frame_bytes(bytes, bytes.len() as u64)?;
        let layout = self.checked(expected, &bytes[..whole]).ok()?;
        if layout.offset != expected {
            return None;
        }
        if !layout.checked {
            let position = self.position(expected).ok()?;
            if !self.is_believed(expected, position, whole as u64).ok()? {
                return None;
            }
        }
        Some((layout, whole))
    }

    /// The position that the index gives for a record.
    #[inline]
    pub(crate) fn position(&self, offset: Offset) -> Thin<u64> {
        // The next one, or a lost one without an entry: it would stand at the end.
        self.entry(offset)?.map_or_else(|| Ok(self.store.len()), Ok)
    }

    /// The positions that the index gives for the offsets before this one, from `lowest` on or of the last ones.
    pub(crate) fn positions_before(&self, offset: Offset, lowest: Offset) -> Thin<Vec<u64>> {
        let (end, lowest) = (offset.since(self.base), lowest.since(self.base));
        self.index.positions_before(end, lowest)
    }

    #[inline]
    fn entry(&self, offset: Offset) -> Thin<Option<u64>> {
        let n = offset.since(self.base);
        let entry = self.index.entry(n)?;
        #[cfg(test)]
        tests::was_looked_up(offset);
        match entry {
            Some((relative, position)) if u64::from(relative) == n => Ok(Some(position)),
            Some((_, position)) => Err(self.corrupt(offset, position, Damaged::Misplaced)),
            None => Ok(None),
        }
    }

    /// Whether the record after this one starts at `position`, or the store ended at `end` and did there. (Or bytes stand
    /// between them that are none of any record, where a scan found that.)
    fn ends_at(&self, offset: Offset, position: u64, end: u64) -> Thin<bool> {
        let next = self.entry(offset.next())?.unwrap_or(end);
        Ok(next == position || (next > position && self.is_proven()))
    }

    /// Whether an unchecked frame of so many bytes is a record. By itself it says too little: the next one has to follow,
    /// and it may not be the beginning of a checked one with a flipped bit in its length.
    fn is_believed(&self, offset: Offset, position: u64, bytes: u64) -> Thin<bool> {
        let (length, end) = (self.store.len(), position + bytes);
        if !self.ends_at(offset, end, length)? {
            return Ok(false);
        }
        if bytes == LENGTH_BYTES as u64 {
            // Eight zeros before bytes that are no record: to a scan they were never written.
            return Ok(end == length || self.begins_with(offset.next(), end)?);
        }
        if self.entry(offset.next())?.unwrap_or(length) == end {
            return Ok(true);
        }
        for bit in 0..30 {
            let record_bytes = (bytes - LENGTH_BYTES as u64) ^ (1 << bit);
            let whole = record_bytes + LENGTH_BYTES as u64;
            if whole <= bytes || whole > length - position {
                continue;
            }
            let Ok(whole) = usize::try_from(whole) else {
                continue;
            };
            let mut frame = Vec::from(self.store.read_exact(position, whole)?);
            frame[..LENGTH_BYTES].copy_from_slice(&record_bytes.to_be_bytes());
            if checksum_matches(&frame) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a frame stands at `position` that is right and begins with this offset.
    fn begins_with(&self, offset: Offset, position: u64) -> Thin<bool> {
        let room = self.store.len().saturating_sub(position);
        let mut length = [0; LENGTH_BYTES];
        let read = self.store.read_at(&mut length, position)?;
        let Some(bytes) = frame_bytes(&length[..read], room) else {
            return Ok(false);
        };
        let frame = self.store.read_exact(position, bytes)?;
        Ok(parse_framed(&frame).is_ok_and(|framed| framed.first() == offset))
    }

    #[inline]
    fn record_at(&self, offset: Offset, position: u64) -> Thin<Record> {
        let room = self.store.len().saturating_sub(position);
        if room == 0 {
            return Err(self.corrupt(offset, position, Damaged::Missing));
        }
        let frame = self.frame_at(offset, position, room)?;
        let bytes = frame.len() as u64;
        match self.checked(offset, &frame) {
            Ok(layout) if layout.offset == offset => {
                if layout.checked || self.is_believed(offset, position, bytes)? {
                    Ok(Record::of(frame, layout))
                } else {
                    Err(self.corrupt(offset, position, Damaged::Length))
                }
            }
            Ok(_) => Err(self.corrupt(offset, position, Damaged::Misplaced)),
            Err(reason) => Err(match self.gap_of(&frame, offset) {
                Some(gap) => gap.error(offset),
                None => self.corrupt(offset, position, reason),
            }),
        }
    }

    /// The bytes of the frame at `position`, where the store has `room` more.
    #[inline]
    fn frame_at(&self, offset: Offset, position: u64, room: u64) -> Thin<Bytes> {
        let all = usize::try_from(room).unwrap_or(usize::MAX);
        if let Some(mut found) = self.store.in_memory(position, all) {
            match frame_bytes(&found, room) {
                Some(bytes) if bytes <= found.len() => {
                    found.truncate(bytes);
                    return Ok(found);
                }
                None if found.len() >= LENGTH_BYTES.min(all) => {
                    return Err(self.corrupt(offset, position, Damaged::Length));
                }
                _ => {}
            }
        }
        let mut length = [0; LENGTH_BYTES];
        let read = self.store.read_at(&mut length, position)?;
        match frame_bytes(&length[..read], room) {
            Some(bytes) => self.store.read_exact(position, bytes),
            None => Err(self.corrupt(offset, position, Damaged::Length)),
        }
    }

    /// What a frame holds, its checksum verified as the options ask.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    fn checked(&self, offset: Offset, frame: &[u8]) -> Result<Layout, Damaged> {
        if self.verify == Verify::EveryRead {
            parse_frame(frame, Check::Checksum)
        } else {
            self.checked_once(offset, frame)
        }
    }

    fn checked_once(&self, offset: Offset, frame: &[u8]) -> Result<Layout, Damaged> {
        let n = offset.since(self.base);
        let (word, bit) = (usize::try_from(n / 64).unwrap_or(usize::MAX), 1 << (n % 64));
        let verified = self.verified.get_or_init(|| {
            let words = if self.store.is_sealed() {
                self.index.entries().div_ceil(64)
            } else {
                0
            };
            (0..words).map(|_| AtomicU64::new(0)).collect()
        });
        let Some(word) = verified.get(word) else {
            return parse_frame(frame, Check::Checksum);
        };
        if word.load(Relaxed) & bit != 0 {
            return parse_frame(frame, Check::Structure);
        }
        let layout = parse_frame(frame, Check::Checksum)?;
        if layout.checked {
            word.fetch_or(bit, Relaxed);
        }
        Ok(layout)
    }

    pub(crate) fn corrupt(&self, offset: Offset, position: u64, reason: Damaged) -> Boxed {
        Boxed::from(Error::Corrupt {
            segment: self.base,
            offset,
            position,
            reason,
        })
    }

    /// Returns once all that was flushed is on stable storage, and the index vouches for what stands
    /// before `next`.
    pub(crate) fn sync(&self, next: Offset) -> Thin<()> {
        // The store before the index: an index may lag, never lead.
        self.store.sync()?;
        self.index.flush_to(next.since(self.base))?;
        self.index.sync_begun()
    }

    /// Syncs, and cuts both files to what they hold: the segment then opens without a scan.
    pub(crate) fn seal(&self) -> Thin<()> {
        self.end_preparing();
        self.store.trim()?;
        self.index.trim()
    }

    /// As [`SegmentReader::seal`], but entries for which a full disk has no space stay in memory. The
    /// segment is then found again by a scan.
    pub(super) fn seal_where_space(&self) -> Thin<()> {
        self.store.end_preparing();
        self.store.trim()?;
        self.index.trim_where_space()
    }

    /// Takes in records that were found after the last one.
    pub(super) fn extend(&self, entries: &[u8], next: Offset, end: u64) -> Thin<()> {
        // Should records have been replaced meanwhile, reads find out and look again.
        self.proven.fetch_and(entries.is_empty(), Relaxed);
        self.index.extend(entries)?;
        self.store.end_at(end);
        self.store.end_is_known();
        self.show(next);
        Ok(())
    }

    /// See [`StoreReader::end_preparing`].
    pub(crate) fn end_preparing(&self) {
        self.store.end_preparing();
    }

    /// Cuts off what was prepared, and has no more of it.
    pub(super) fn give_back_prepared(&self) -> Thin<()> {
        self.store.end_preparing();
        self.store.trim()
    }

    /// See [`StoreReader::prepare`].
    pub(crate) fn prepare(&self, end: u64, go_on: impl FnMut() -> bool) -> Thin<Option<io::Error>> {
        self.store.prepare(end, go_on)
    }

    /// See [`StoreReader::prepared_to`].
    pub(crate) fn prepared_to(&self) -> u64 {
        self.store.prepared_to()
    }

    /// See [`StoreReader::map_ahead`].
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn map_ahead(&self, start: u64, bytes: usize) {
        self.store.map_ahead(start, bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc, sync::Arc};

    use crate::{Durability, Gap, GapCause, MemoryBackend, NewRecord, Offset, Options, Segment};

    type Meanwhile = (Offset, Box<dyn FnOnce()>);

    thread_local! {
        /// What another thread does as soon as the entry of an offset was looked up.
        static MEANWHILE: RefCell<Option<Meanwhile>> = const { RefCell::new(None) };
    }

    pub(super) fn was_looked_up(offset: Offset) {
        let meanwhile = MEANWHILE.take();
        match meanwhile {
            Some((of, append)) if of == offset => append(),
            other => MEANWHILE.set(other),
        }
    }

    /// The end of the store counts as it was before the next entry was looked up: both may come in between.
    #[test]
    fn what_is_appended_meanwhile_does_not_make_the_last_frame_another() {
        // The book's record ends where the store does, and so does a gap. As it was closed, nothing is proven.
        let files = MemoryBackend::new();
        files.insert("0.store", b"\0\0\0\0\0\0\0\x03\x0a\x01a");
        files.insert("0.index", [0; 12]);
        let segment = Segment::open(&files, Offset(0), &Options::new()).unwrap();
        let segment = Rc::new(RefCell::new(segment));
        let reader = Arc::clone(segment.borrow().reader());
        for last in [Offset(0), Offset(3)] {
            assert_eq!(reader.next_offset(), last.next());
            let appending = Rc::clone(&segment);
            let append = move || {
                let record = NewRecord::new("meanwhile");
                appending.borrow_mut().append(&record).unwrap();
            };
            MEANWHILE.set(Some((last.next(), Box::new(append))));
            let found = reader.read(last);
            assert!(MEANWHILE.take().is_none(), "nothing was appended");
            match last {
                Offset(0) => assert_eq!(found.unwrap().value(), b"a"),
                _ => {
                    let is_gap = found.as_ref().is_err_and(|e| e.gap().is_some());
                    assert!(is_gap, "{found:?}");
                }
            }
            let gap = Gap::new(reader.next_offset(), last.plus(4), GapCause::Skipped);
            let appended = segment
                .borrow_mut()
                .append_gap(gap, Durability::Buffered, true);
            reader.show(appended.unwrap().end);
        }
    }
}
