//! A segment: one store and its index, named by the base offset.

mod batch;
mod examine;
mod files;

use std::{io, ops::Range};

use bytes::Bytes;

pub(crate) use self::batch::Batch;
pub(crate) use self::files::{index_base, remove_files, store_base, sync_directory};
use self::{
    examine::{closed_cleanly, examine, vouched},
    files::{index_name, open_file, store_name},
};
use crate::{
    Error, Frames, NewRecord, Offset, Options, Record, Result,
    backend::{Access, Backend, BackendFile},
    error::Damaged,
    index::{ENTRY_BYTES, Index, push_entry},
    record::{FRAME_BYTES_MIN, LENGTH_BYTES, Verify, frame_bytes, parse_frame},
    recovery::{End, Scanned, scan},
    report::SegmentReport,
    store::Store,
};

/// A store and its index. It gives offsets to the records appended to it, from its base on.
///
/// A [`Log`](crate::Log) is a row of these; on its own a segment is for those who follow the book.
///
/// ```
/// use proglog::{MemoryBackend, NewRecord, Offset, Options, Segment};
/// let files = MemoryBackend::new();
/// let mut segment = Segment::open(&files, Offset(16), &Options::new())?;
/// let offset = segment.append(&NewRecord::new("hello world"))?;
/// assert_eq!(offset, Offset(16));
/// assert_eq!(segment.read(offset)?.value(), b"hello world");
/// segment.close()?;
/// # Ok::<(), proglog::Error>(())
/// ```
#[derive(Debug)]
pub struct Segment<B: Backend> {
    base: Offset,
    next: Offset,
    store: Store<B::File>,
    /// Where the records end in the store. A reader may find a torn tail after it.
    end: u64,
    index: Index<B::File>,
    options: Options,
    /// Whether every entry of the index was seen to be right. Otherwise a record that is not where its
    /// entry says is looked for before it is called damaged.
    proven: bool,
}

/// Where a segment stands in its log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// The last one, which takes appends.
    Last,
    /// One before it, which reaches to the base of the one after.
    Sealed { next: Offset },
}

/// A segment as it was found.
pub(crate) struct Opened<B: Backend> {
    pub(crate) segment: Segment<B>,
    /// What was found, where it had to be scanned.
    pub(crate) report: Option<SegmentReport>,
    /// Whether it can take appends.
    pub(crate) takes_appends: bool,
    /// All records below it are known to be on stable storage.
    pub(crate) durable: Offset,
}

impl<B: Backend> Segment<B> {
    /// Opens a log's last segment for appends, made if it is missing; recovers it after an unclean
    /// stop.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Corrupt`] when it ends in damage or in a batch that was cut, so that
    /// appends have to go to the next segment.
    pub fn open(backend: &B, base: Offset, options: &Options) -> Result<Self> {
        options.validate()?;
        match Self::recover(backend, base, Place::Last, true, options) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::create(backend, base, options)
            }
            Err(e) => Err(e),
            Ok(Opened {
                segment,
                takes_appends: true,
                ..
            }) => Ok(segment),
            Ok(Opened { segment, .. }) => {
                let last = Offset(segment.next.0.saturating_sub(1));
                Err(segment.corrupt(last, segment.store.len(), Damaged::Malformed))
            }
        }
    }

    /// Makes an empty segment, its files durably in the directory.
    pub(crate) fn create(backend: &B, base: Offset, options: &Options) -> Result<Self> {
        let name = store_name(base);
        let store = Store::new(open_file(backend, &name, Access::Create)?, name)?;
        if !store.is_empty() {
            let error = io::ErrorKind::AlreadyExists.into();
            return Err(Error::io("make", store.name(), error));
        }
        let name = index_name(base);
        let mut index = open_file(backend, &name, Access::Create)?;
        // What an index without a store held counts for nothing.
        index
            .set_len(0)
            .map_err(|e| Error::io("truncate", &name, e))?;
        sync_directory(backend)?;
        let index = Index::new(index, index_name(base), options.index_bytes_max)?;
        Ok(Self::of(base, base, store, index, options, true))
    }

    /// Opens an existing segment: at once if it was closed cleanly, by a scan otherwise. With `writable`
    /// what the scan finds is put right in the files; without, nothing is written.
    pub(crate) fn recover(
        backend: &B,
        base: Offset,
        place: Place,
        writable: bool,
        options: &Options,
    ) -> Result<Opened<B>> {
        if let (mut store, Some(index)) = Self::open_files(backend, base, place, writable, options)?
            && let Some((next, last)) = closed_cleanly(&store, &index, base)?
            && !matches!(place, Place::Sealed { next: limit } if next > limit)
        {
            if writable && matches!(place, Place::Last) {
                // A killed process may have left it so without a sync, as a truncation does.
                store.assume_unsynced();
                store.sync()?;
            }
            let takes_appends = last.is_none_or(|last| last.batch_remaining == 0);
            let segment = Self::of(base, next, store, index, options, false);
            return Ok(Opened {
                segment,
                report: None,
                takes_appends,
                durable: next,
            });
        }
        Self::scan_files(backend, base, place, writable, options)
    }

    /// As [`Segment::recover`], believing nothing.
    pub(crate) fn scan_files(
        backend: &B,
        base: Offset,
        place: Place,
        writable: bool,
        options: &Options,
    ) -> Result<Opened<B>> {
        let (mut store, index) = Self::open_files(backend, base, place, writable, options)?;
        let (scanned, report) = examine(&store, index.as_ref(), base, place)?;
        let vouched = vouched(&store, index.as_ref(), base)?;
        if writable && matches!(place, Place::Last) {
            if scanned.torn_tail.is_some() {
                store.truncate(scanned.end)?;
            } else {
                // The index may not lead: what it will vouch for is on stable storage first.
                store.assume_unsynced();
                store.sync()?;
            }
        }
        let takes_appends = scanned.takes_appends();
        let mut index = match index {
            Some(index) if !writable => index,
            None if !writable => in_memory(base, options),
            old => {
                let file = open_file(backend, &index_name(base), Access::Create)?;
                if old.is_none() {
                    sync_directory(backend)?;
                }
                Index::new(file, index_name(base), options.index_bytes_max)?
            }
        };
        index.replace(scanned.entries)?;
        if writable {
            index.trim()?;
        }
        let mut segment = Self::of(base, scanned.next, store, index, options, true);
        segment.end = scanned.end;
        let durable = if writable {
            segment.next
        } else {
            vouched.min(segment.next)
        };
        Ok(Opened {
            segment,
            report: Some(report),
            takes_appends,
            durable,
        })
    }

    /// Looks at every byte; changes nothing.
    pub(crate) fn verify(
        backend: &B,
        base: Offset,
        place: Place,
        options: &Options,
    ) -> Result<SegmentReport> {
        let (store, index) = Self::open_files(backend, base, place, false, options)?;
        Ok(examine(&store, index.as_ref(), base, place)?.1)
    }

    #[expect(clippy::type_complexity, reason = "a store and perhaps an index")]
    fn open_files(
        backend: &B,
        base: Offset,
        place: Place,
        writable: bool,
        options: &Options,
    ) -> Result<(Store<B::File>, Option<Index<B::File>>)> {
        // A sealed segment is never written; its index is made anew by other means.
        let write = writable && matches!(place, Place::Last);
        let access = if write { Access::Write } else { Access::Read };
        // The index is measured first: beside a writer, what it vouches for is then in the store.
        let name = index_name(base);
        let index = match open_file(backend, &name, access) {
            Ok(file) => Some(Index::new(file, name, options.index_bytes_max)?),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let name = store_name(base);
        let store = Store::new(open_file(backend, &name, access)?, name)?;
        Ok((store, index))
    }

    fn of(
        base: Offset,
        next: Offset,
        store: Store<B::File>,
        mut index: Index<B::File>,
        options: &Options,
        proven: bool,
    ) -> Self {
        // With the smallest records there can be no more entries than this, save for a batch larger than
        // a segment.
        let entries = options.segment_bytes_max / FRAME_BYTES_MIN + 1;
        index.expect_bytes(entries.saturating_mul(ENTRY_BYTES));
        Self {
            base,
            next,
            end: store.len(),
            store,
            index,
            options: options.clone(),
            proven,
        }
    }

    /// Appends a record and returns its offset. It waits in the buffer until [`Segment::flush`].
    ///
    /// # Errors
    ///
    /// Those of [`Segment::append_batch`].
    pub fn append(&mut self, record: &NewRecord<'_>) -> Result<Offset> {
        Ok(self.append_batch(std::slice::from_ref(record))?.start)
    }

    /// Appends records as one batch, all or none, and returns their offsets.
    ///
    /// # Errors
    ///
    /// [`Error::IndexFull`] when the index has no room, [`Error::TooLarge`] when a record is larger than
    /// the log takes or all are larger than 1 GiB, [`Error::InvalidArgument`] when the offsets are used
    /// up, [`Error::Io`] when there is no memory. Nothing is appended then.
    pub fn append_batch(&mut self, records: &[NewRecord<'_>]) -> Result<Range<Offset>> {
        let batch = Batch::new(records, self.next, &self.options)?;
        self.append_frames(&batch)
    }

    /// Appends a batch that was made for this segment's next offset.
    pub(crate) fn append_frames(&mut self, batch: &Batch<'_>) -> Result<Range<Offset>> {
        debug_assert_eq!(batch.first, self.next);
        if self.room() < batch.records.len() as u64 {
            return Err(Error::IndexFull {
                entries: self.index.entries(),
            });
        }
        self.store.reserve(batch.bytes)?;
        for frame in batch.frames() {
            let relative = u32::try_from(frame.offset.since(self.base)).unwrap_or(u32::MAX);
            self.index.write(relative, self.store.len())?;
            frame.encode(frame.record_bytes(), self.store.buffer());
        }
        self.next = batch.next();
        self.end = self.store.len();
        Ok(batch.first..self.next)
    }

    /// Takes back the last batch, while it is still in the buffer.
    pub(crate) fn take_back(&mut self, next: Offset, store_bytes: u64) {
        self.store.take_back(store_bytes);
        self.index.truncate(next.since(self.base));
        (self.next, self.end) = (next, store_bytes);
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`], [`Error::Corrupt`], [`Error::Io`].
    pub fn read(&self, offset: Offset) -> Result<Record> {
        if offset < self.base || offset >= self.next {
            let (lowest, next) = (self.base, self.next);
            return Err(Error::OffsetOutOfRange {
                offset,
                lowest,
                next,
            });
        }
        let position = self.position(offset)?;
        self.record_at(offset, position)
    }

    /// Whole frames from `from` on, at least one, in at most `bytes_max` bytes if more than one; up to
    /// the first that is not right.
    pub(crate) fn read_batch(&self, from: Offset, bytes_max: usize) -> Result<Frames> {
        let position = self.position(from)?;
        let room = self.store.len().saturating_sub(position);
        let bytes = usize::try_from(room).unwrap_or(usize::MAX).min(bytes_max);
        let chunk = self.store.read_exact(position, bytes)?;
        let mut whole = 0;
        let mut expected = from;
        while expected < self.next
            && let Some(frame_bytes) = frame_bytes(&chunk[whole..], (chunk.len() - whole) as u64)
            && let Ok(layout) = parse_frame(&chunk[whole..whole + frame_bytes], Verify::Checksum)
            && layout.offset == expected
            && (layout.checked
                || self.ends_at(expected, position + (whole + frame_bytes) as u64)?)
        {
            whole += frame_bytes;
            expected = expected.next();
        }
        if whole > 0 {
            return Ok(Frames::new(chunk.slice(..whole)));
        }
        // Larger than was read, or not right.
        Ok(Frames::new(Bytes::copy_from_slice(
            self.record_at(from, position)?.frame(),
        )))
    }

    /// The position that the index gives for a record.
    pub(crate) fn position(&self, offset: Offset) -> Result<u64> {
        let n = offset.since(self.base);
        match self.index.read(i64::try_from(n).unwrap_or(i64::MAX))? {
            Some((relative, position)) if u64::from(relative) == n => Ok(position),
            Some((_, position)) => Err(self.corrupt(offset, position, Damaged::Misplaced)),
            // The next one, or a lost one without an entry: it would stand at the end.
            None => Ok(self.end),
        }
    }

    /// Whether the record after this one starts at `position`, or the store ends there. An unchecked
    /// record has to: by itself it says too little.
    fn ends_at(&self, offset: Offset, position: u64) -> Result<bool> {
        Ok(self.position(offset.next())? == position)
    }

    fn record_at(&self, offset: Offset, position: u64) -> Result<Record> {
        let room = self.store.len().saturating_sub(position);
        if room == 0 {
            return Err(self.corrupt(offset, position, Damaged::Missing));
        }
        let mut length = [0; LENGTH_BYTES];
        let read = self.store.read_at(&mut length, position)?;
        let Some(bytes) = frame_bytes(&length[..read], room) else {
            return Err(self.corrupt(offset, position, Damaged::Length));
        };
        match Record::from_frame(self.store.read_exact(position, bytes)?) {
            Ok(record) if record.offset() == offset => {
                if record.is_checked() || self.ends_at(offset, position + bytes as u64)? {
                    Ok(record)
                } else {
                    Err(self.corrupt(offset, position, Damaged::Length))
                }
            }
            Ok(_) => Err(self.corrupt(offset, position, Damaged::Misplaced)),
            Err(reason) => Err(self.corrupt(offset, position, reason)),
        }
    }

    fn corrupt(&self, offset: Offset, position: u64, reason: Damaged) -> Error {
        Error::Corrupt {
            segment: self.base,
            offset,
            position,
            reason,
        }
    }

    /// Whether every entry of the index was seen to be right.
    pub(crate) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Makes the index anew from the store, in memory.
    pub(crate) fn prove(&mut self) -> Result<()> {
        let end = End::MayBeTorn { vouched: self.next };
        let start = Scanned::at_start(self.base);
        let mut scanned = scan(&self.store, Some(&self.index), self.base, end, start)?;
        while scanned.next < self.next {
            let relative = u32::try_from(scanned.next.since(self.base)).unwrap_or(u32::MAX);
            push_entry(&mut scanned.entries, relative, scanned.end);
            scanned.next = scanned.next.next();
        }
        self.end = scanned.end;
        self.index.replace(scanned.entries)?;
        self.proven = true;
        Ok(())
    }

    /// On a segment opened only to read: takes in what was appended since. `false` when records that
    /// were there are gone, so that it has to be opened anew.
    pub(crate) fn refresh(&mut self) -> Result<bool> {
        let end = self.end_of_record_before(self.next)?;
        self.store.refresh()?;
        if self.store.len() > end {
            let scanned = Scanned::at(self.next, end);
            let may_be_torn = End::MayBeTorn { vouched: self.next };
            let scanned = scan(&self.store, None, self.base, may_be_torn, scanned)?;
            // Should records have been replaced meanwhile, reads find out and look again.
            self.proven &= scanned.entries.is_empty();
            self.index.extend(&scanned.entries);
            (self.next, self.end) = (scanned.next, scanned.end);
        }
        Ok(self.store.len() >= end)
    }

    /// Reads a record; if the index may be what is wrong, it is made anew first.
    fn read_proving(&mut self, offset: Offset) -> Result<Record> {
        match self.read(offset) {
            Err(Error::Corrupt { .. }) if !self.proven => {
                self.prove()?;
                self.read(offset)
            }
            read => read,
        }
    }

    /// The position after the last record before `next`: where the next one starts, or a torn tail.
    fn end_of_record_before(&mut self, next: Offset) -> Result<u64> {
        if next == self.base {
            return Ok(0);
        }
        let last = Offset(next.0 - 1);
        match self.read_proving(last) {
            Ok(record) => Ok(self.position(last)? + record.frame().len() as u64),
            // It is damaged; the next one's entry is right.
            Err(Error::Corrupt { .. }) => self.position(next),
            Err(e) => Err(e),
        }
    }

    /// Cuts off all records from `next` on, durably. At any moment either all are there or none.
    pub(crate) fn truncate(&mut self, next: Offset) -> Result<()> {
        let position = self.end_of_record_before(next)?;
        self.store.sync()?;
        // The index first: while the store is longer than it says, a crash undoes the truncation; once
        // the store is cut, it vouches for the rest, be that the beginning of a batch.
        self.index.truncate(next.since(self.base));
        self.index.trim()?;
        self.store.truncate(position)?;
        (self.next, self.end) = (next, position);
        Ok(())
    }

    /// Whether the last record is whole and ends its batch, so that more can be appended after it.
    pub(crate) fn takes_appends(&mut self) -> Result<bool> {
        if self.next == self.base {
            return Ok(true);
        }
        match self.read_proving(Offset(self.next.0 - 1)) {
            Ok(last) => Ok(last.batch_remaining() == 0),
            Err(Error::Corrupt { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Whether it has reached the most bytes or entries of a segment, so that the next record belongs
    /// in a new one.
    #[must_use]
    pub fn is_maxed(&self) -> bool {
        self.store.len() >= self.options.segment_bytes_max || self.index.is_full()
    }

    /// Whether there is room for a batch.
    pub(crate) fn has_room_for(&self, batch: &Batch<'_>) -> bool {
        let bytes = self.store.len().saturating_add(batch.bytes);
        bytes <= self.options.segment_bytes_max && batch.records.len() as u64 <= self.room()
    }

    /// How many more records it can number: an entry's offset is a u32.
    fn room(&self) -> u64 {
        self.index
            .room()
            .min((1 << 32) - self.next.since(self.base).min(1 << 32))
    }

    /// Hands what was appended to the operating system.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn flush(&mut self) -> Result<()> {
        self.store.flush()
    }

    /// Returns once all that was appended is on stable storage.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn sync(&mut self) -> Result<()> {
        // The store before the index: an index may lag, never lead.
        self.store.sync()?;
        self.index.flush()
    }

    /// Syncs, and cuts the index to its entries: the segment then opens without a scan.
    pub(crate) fn seal(&mut self) -> Result<()> {
        self.sync()?;
        self.index.trim()
    }

    /// Closes it cleanly.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn close(mut self) -> Result<()> {
        self.seal()
    }

    /// Closes it and removes its files.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn remove(self, backend: &B) -> Result<()> {
        let base = self.base;
        drop(self);
        remove_files(backend, base)
    }

    /// The bytes that the next flush will write.
    pub(crate) fn waiting_bytes(&self) -> u64 {
        self.store.waiting_bytes()
    }

    /// Its base offset.
    #[must_use]
    pub fn base(&self) -> Offset {
        self.base
    }

    /// The offset the next record will get.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// The length of its store, in bytes.
    #[must_use]
    pub fn store_bytes(&self) -> u64 {
        self.store.len()
    }
}

fn in_memory<F: BackendFile>(base: Offset, options: &Options) -> Index<F> {
    Index::in_memory(index_name(base), options.index_bytes_max)
}
