//! A segment: one store and its index, named by the base offset.

mod batch;
mod drafts;
mod examine;
mod files;
mod open;
mod prepared;
mod reach;
mod reader;
mod rewrite;

use std::{ops::Range, sync::Arc};

#[cfg(not(target_family = "wasm"))]
pub(crate) use self::files::{index_name, store_name};
pub(crate) use self::{
    batch::Batch,
    drafts::DraftedBatch,
    files::{
        cut_name, damaged_name, index_base, remove_files, remove_index, remove_store, rewritten_to,
        store_base, sync_directory,
    },
    open::{Opened, Place},
    prepared::{PreparedStore, is_prepared},
    reader::SegmentReader,
    rewrite::{Goes, Removed, Rewritten, make_of_gap, set_aside},
};
pub use drafts::Drafts;

#[cfg(doc)]
use crate::Error;
use crate::{
    Durability, Gap, NewRecord, Offset, Options, Record, Result,
    backend::Backend,
    error::{Damaged, Thin},
    index::{ENTRY_BYTES, Index},
    record::{FRAME_BYTES_MIN, encode_gap, frame_bytes_max},
    store::{StoreReader, StoreWriter, out_of_memory},
};

/// Records of no more than so many bytes are put into the file's memory, unless they are to be synced at once:
/// a call each would cost more than they do.
const MAPPED_RECORD_BYTES_MAX: u64 = 4 << 10;

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
    reader: Arc<SegmentReader<B::File>>,
    writer: StoreWriter,
    next: Offset,
    /// No record may have an earlier timestamp.
    timestamp_ms_min: u64,
    options: Options,
}

impl<B: Backend> Segment<B> {
    /// Opens a log's last segment for appends, made if it is missing; recovers it after an unclean
    /// stop.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Corrupt`] when it ends in damage or in a batch that was cut, or has nothing but a
    /// [gap](crate::Gap) from before it on, so that appends have to go to the next segment.
    pub fn open(backend: &B, base: Offset, options: &Options) -> Result<Self> {
        options.check()?;
        match Self::recover(backend, base, Place::Last, true, options) {
            Err(e) if e.is_not_found() => {
                let segment = Self::create(backend, base, options)?;
                sync_directory(backend)?;
                Ok(segment)
            }
            Err(e) => Err(e.into()),
            Ok(Opened {
                segment,
                takes_appends: true,
                ..
            }) => Ok(segment),
            Ok(Opened { segment, .. }) => {
                let last = Offset(segment.next.0.saturating_sub(1));
                let end = segment.store_bytes();
                Err(segment.reader.corrupt(last, end, Damaged::Malformed).into())
            }
        }
    }

    fn of(
        base: Offset,
        next: Offset,
        store: StoreReader<B::File>,
        index: Index<B::File>,
        options: &Options,
        proven: bool,
    ) -> Self {
        // With the smallest records there can be no more entries than this, save for a batch larger than
        // a segment.
        let entries = options.segment_bytes_max / FRAME_BYTES_MIN + 1;
        index.expect_bytes(entries.saturating_mul(ENTRY_BYTES));
        store.end_is_known();
        let writer = StoreWriter::after(&store);
        Self {
            reader: Arc::new(SegmentReader::new(
                base,
                next,
                store,
                index,
                proven,
                options.verify,
            )),
            writer,
            next,
            timestamp_ms_min: 0,
            options: options.clone(),
        }
    }

    /// The segment as its readers share it.
    pub(crate) fn reader(&self) -> &Arc<SegmentReader<B::File>> {
        &self.reader
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
    /// up. Nothing is appended then. [`Error::Io`] when there is no memory or no space: nothing more must be
    /// appended until the segment is opened again.
    pub fn append_batch(&mut self, records: &[NewRecord<'_>]) -> Result<Range<Offset>> {
        let batch = self.batch(records)?;
        if self.room() < batch.records.len() as u64 {
            return Err(self.reader.index.full().into());
        }
        let offsets = self.append_frames(&batch, Durability::Buffered, true)?;
        self.reader.show(offsets.end);
        Ok(offsets)
    }

    /// The batch that these records would be.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    pub(crate) fn batch<'a>(&self, records: &'a [NewRecord<'a>]) -> Thin<Batch<'a>> {
        let clock = self.options.clock;
        let batch = Batch::new(records, self.next, self.timestamp_ms_min, clock);
        batch.check(&self.options)?;
        Ok(batch)
    }

    /// Appends a batch that was made for this segment and that there is [room](Self::has_room_for) for;
    /// with the operating system when it returns, if it is to be written. With `mapped` its records may be
    /// put into the file's memory. Readers are not shown it yet. After an error nothing more may be appended.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    pub(crate) fn append_frames(
        &mut self,
        batch: &Batch<'_>,
        durability: Durability,
        mapped: bool,
    ) -> Thin<Range<Offset>> {
        debug_assert_eq!(batch.first, self.next);
        let Self { reader, writer, .. } = self;
        let (store, index) = (&reader.store, &reader.index);
        let records = batch.records.len() as u64;
        let mapped = mapped
            && durability != Durability::Synced
            && batch.bytes_max <= MAPPED_RECORD_BYTES_MAX.saturating_mul(records);
        let bytes_max = |record| usize::try_from(frame_bytes_max(record)).unwrap_or(usize::MAX);
        let mut frames = batch.frames();
        let mut next = frames.next();
        while let Some(mut frame) = next {
            let start = writer.end();
            let Some(spare) = writer.spare(store, bytes_max(frame.record), mapped)? else {
                index.push(start)?;
                if cfg!(target_os = "unknown") {
                    // A checksum of parts takes code that a browser would have to load, and its files take what is
                    // put together.
                    let mut whole = zeros(bytes_max(frame.record), store.name())?;
                    let bytes = frame.encode(&mut whole);
                    writer.write(store, &[&whole[..bytes]])?;
                } else {
                    let (head, rest) = frame.encode_around_value();
                    writer.write(store, &[&head, frame.record.value, &rest])?;
                }
                next = frames.next();
                continue;
            };
            // As many as there is room for, and then counted at once.
            let mut filled = 0;
            loop {
                index.push(start + filled as u64)?;
                filled += frame.encode(&mut spare[filled..]);
                next = frames.next();
                let Some(following) = next else { break };
                let bytes = bytes_max(following.record);
                if bytes > spare.len() - filled || StoreWriter::is_large(bytes) {
                    break;
                }
                frame = following;
            }
            writer.fill(store, filled);
        }
        let timestamp_ms_max = frames.timestamp_ms_max;
        // What is to be synced is flushed by who syncs, for all who wait in one write.
        if durability == Durability::Written {
            writer.flush(store)?;
        }
        self.timestamp_ms_min = timestamp_ms_max;
        self.next = batch.next();
        Ok(batch.first..self.next)
    }

    /// As [`Segment::append_frames`], of drafts, which [can be](DraftedBatch::can_be) what they will be here.
    pub(crate) fn append_drafts(
        &mut self,
        batch: &mut DraftedBatch<'_>,
        durability: Durability,
    ) -> Thin<Range<Offset>> {
        let Self { reader, writer, .. } = self;
        let (store, index) = (&reader.store, &reader.index);
        let mut position = writer.end();
        let finished = batch.finish(self.next, self.timestamp_ms_min, |bytes| {
            index.push(position)?;
            position += bytes as u64;
            Ok(())
        });
        let timestamp_ms_max = finished?;
        let bytes = batch.frames.len();
        if let Some(spare) = writer.spare(store, bytes, false)? {
            spare[..bytes].copy_from_slice(batch.frames);
            writer.fill(store, bytes);
            if durability == Durability::Written {
                writer.flush(store)?;
            }
        } else {
            writer.write(store, &[batch.frames])?;
        }
        self.timestamp_ms_min = timestamp_ms_max;
        let first = self.next;
        self.next = first.plus(batch.records());
        Ok(first..self.next)
    }

    /// As [`Segment::append_frames`], of the frame that tells of a gap from the next offset on, which there is
    /// [room](Self::has_room_for) for.
    pub(crate) fn append_gap(
        &mut self,
        gap: Gap,
        durability: Durability,
        mapped: bool,
    ) -> Thin<Range<Offset>> {
        debug_assert_eq!(gap.first, self.next);
        let Self { reader, writer, .. } = self;
        let (store, index) = (&reader.store, &reader.index);
        let position = writer.end();
        for _ in 0..gap.offsets() {
            index.push(position)?;
        }
        let frame = encode_gap(gap);
        let mapped = mapped && durability != Durability::Synced;
        match writer.spare(store, frame.len(), mapped)? {
            Some(spare) => {
                spare[..frame.len()].copy_from_slice(&frame);
                writer.fill(store, frame.len());
            }
            None => writer.write(store, &[&frame])?,
        }
        if durability == Durability::Written {
            writer.flush(store)?;
        }
        self.next = gap.next();
        Ok(gap.first..self.next)
    }

    /// Which memory of the file will be needed soon: from where on, and how much. Told once.
    #[inline]
    pub(crate) fn take_wanted(&mut self) -> Option<(u64, usize)> {
        self.writer.take_wanted()
    }

    /// Reads a record.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`], [`Error::Corrupt`], [`Error::Io`].
    pub fn read(&self, offset: Offset) -> Result<Record> {
        Ok(self.reader.read(offset)?)
    }

    /// Whether it has reached the most bytes or entries of a segment, so that the next record belongs
    /// in a new one.
    #[must_use]
    pub fn is_maxed(&self) -> bool {
        self.writer.end() >= self.options.segment_bytes_max || self.reader.index.is_full()
    }

    /// Whether there is room for a batch of so many records and bytes.
    #[inline]
    pub(crate) fn has_room_for(&self, records: u64, bytes: u64) -> bool {
        let bytes = self.writer.end().saturating_add(bytes);
        bytes <= self.options.segment_bytes_max && records <= self.room()
    }

    /// How many more records it can number: each has an entry.
    #[inline]
    fn room(&self) -> u64 {
        debug_assert_eq!(
            self.reader.index.entries(),
            self.next.since(self.reader.base())
        );
        self.reader.index.room()
    }

    /// Hands what was appended to the operating system.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.write_out()?)
    }

    pub(crate) fn write_out(&mut self) -> Thin<()> {
        self.writer.flush(&self.reader.store)
    }

    /// Returns once all that was appended is on stable storage.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn sync(&mut self) -> Result<()> {
        self.write_out()?;
        Ok(self.reader.sync(self.next)?)
    }

    /// Cuts off the zeros after its frames, if there are any, and has no more written until
    /// [it is asked](Segment::prepare_again), so that other files have the space. Not where they are memory that frames
    /// are put into.
    pub(crate) fn give_back_prepared(&mut self) -> Thin<bool> {
        if self.writer.is_mapped() || !self.reader.has_prepared_space()? {
            return Ok(false);
        }
        self.write_out()?;
        self.reader.give_back_prepared()?;
        Ok(true)
    }

    /// From now on zeros may be written after its frames, if none were to be.
    pub(crate) fn prepare_again(&mut self) -> Thin<()> {
        self.writer.prepare_again(&self.reader.store)
    }

    /// Syncs, and cuts the files to what they hold: the segment then opens without a scan.
    pub(crate) fn seal(&mut self) -> Thin<()> {
        self.write_out()?;
        self.reader.seal()
    }

    /// As [`Segment::seal`], but a disk without space for the rest of its index is no reason to fail.
    pub(crate) fn seal_where_space(&mut self) -> Thin<()> {
        self.write_out()?;
        self.reader.seal_where_space()
    }

    /// Closes it cleanly.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn close(mut self) -> Result<()> {
        Ok(self.seal()?)
    }

    /// Closes it and removes its files.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn remove(self, backend: &B) -> Result<()> {
        let base = self.base();
        drop(self);
        Ok(remove_files(backend, [base])?)
    }

    /// Its base offset.
    #[must_use]
    pub fn base(&self) -> Offset {
        self.reader.base()
    }

    /// The offset the next record will get.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// The bytes of its store that are frames.
    #[must_use]
    pub fn store_bytes(&self) -> u64 {
        self.writer.end()
    }

    /// The timestamp that the next record may have at the least, in milliseconds since 1970.
    pub(crate) fn timestamp_ms_min(&self) -> u64 {
        self.timestamp_ms_min
    }

    /// Sets it to that of the segment before, where that is later.
    pub(crate) fn not_before(&mut self, timestamp_ms: u64) {
        self.timestamp_ms_min = self.timestamp_ms_min.max(timestamp_ms);
    }
}

/// So many bytes, all zero.
fn zeros(bytes: usize, name: &str) -> Thin<Vec<u8>> {
    let mut zeros = Vec::new();
    let reserved = zeros.try_reserve_exact(bytes);
    reserved.map_err(|_| out_of_memory(name))?;
    zeros.resize(bytes, 0);
    Ok(zeros)
}
