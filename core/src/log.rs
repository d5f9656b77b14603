//! The log: a directory of segments, the last of which takes appends.

mod open;
mod scan;

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
use std::path::Path;
use std::{
    ops::{Bound, Range, RangeBounds},
    slice,
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use self::open::{open_segments, segment_bases};
pub use self::scan::Scan;
#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
use crate::FsBackend;
use crate::{
    Backend, DefaultBackend, Durability, Error, Frames, Location, NewRecord, Offset, Options,
    Record, Report, Result, SegmentSummary,
    segment::{Batch, Place, Segment, remove_files},
};

/// With [`Durability::Buffered`], frames go to the operating system when so many bytes wait.
const BUFFER_BYTES: u64 = 64 << 10;
/// How many sealed segments are kept open for reading.
const SEALED_OPEN_MAX: usize = 32;

/// An append-only log of records, durable and numbered from 0 (or an initial offset) without gaps.
///
/// All methods but [`Log::close`] and [`Log::remove`] take `&self`; a log whose backend can cross
/// threads can be shared between them. Dropping it closes it, but only [`Log::close`] tells whether
/// that went well.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path().join("orders");
/// use proglog::{Log, Offset, Options};
///
/// let log = Log::open(&directory, Options::new())?;
/// let offset = log.append("hello")?; // on stable storage when this returns
/// assert_eq!(log.read(offset)?.value(), b"hello");
///
/// log.append_batch(["all", "or", "nothing"])?;
/// for record in log.scan(Offset(1)..) {
///     println!("{:?}", record?.value());
/// }
/// log.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Log<B: Backend = DefaultBackend> {
    backend: B,
    options: Options,
    read_only: bool,
    state: RwLock<State<B>>,
    /// Sealed segments that were read lately, the last one last.
    sealed_open: Mutex<Vec<Arc<Segment<B>>>>,
    report: Report,
}

#[derive(Debug)]
struct State<B: Backend> {
    sealed: Vec<SegmentSummary>,
    active: Segment<B>,
    /// All records below it are on stable storage.
    durable: Offset,
    /// The failure after which it is unknown what the files hold.
    poisoned: Option<String>,
    closed: bool,
}

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
impl Log<FsBackend> {
    /// Opens the log in a directory, made if it is missing, for reading and appending. After an
    /// unclean stop it is recovered: see [`Log::recovery_report`].
    ///
    /// A log that was closed opens without a scan. After an unclean stop its last segment is scanned.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when another writer has the directory, [`Error::Io`],
    /// [`Error::InvalidArgument`] for options that make no sense. Damage is no error here: it is one
    /// when the damaged record is read.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        options.validate()?;
        Self::open_on(FsBackend::open(directory)?, options)
    }

    /// Opens the log in a directory for reading only, beside a writer too. Nothing is ever written, no
    /// lock taken. It holds what the log held then; [`Log::refresh`] takes in what came since.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when there is no such directory or it cannot be read, [`Error::InvalidArgument`]
    /// when there is no log in it.
    pub fn open_read_only(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        Self::open_read_only_on(FsBackend::open_read_only(directory)?, options)
    }
}

impl<B: Backend> Log<B> {
    /// Opens the log on a backend, for reading and appending.
    ///
    /// # Errors
    ///
    /// As `Log::open`; that no one else writes is the caller's to see to.
    pub fn open_on(backend: B, options: Options) -> Result<Self> {
        options.validate()?;
        let (state, report) = open_segments(&backend, &options, true)?;
        Ok(Self::of(backend, options, false, state, report))
    }

    /// Opens the log on a backend for reading only. Nothing is ever written.
    ///
    /// # Errors
    ///
    /// As `Log::open_read_only`.
    pub fn open_read_only_on(backend: B, options: Options) -> Result<Self> {
        options.validate()?;
        let (state, report) = open_segments(&backend, &options, false)?;
        Ok(Self::of(backend, options, true, state, report))
    }

    fn of(backend: B, options: Options, read_only: bool, state: State<B>, report: Report) -> Self {
        let state = RwLock::new(state);
        Self {
            backend,
            options,
            read_only,
            state,
            sealed_open: Mutex::default(),
            report,
        }
    }

    /// Appends a record and returns its offset, once the promise of [`Options::durability`] is kept.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] for a record larger than [`Options::record_bytes_max`]; nothing is appended.
    /// [`Error::Io`] when the files cannot be written or synced: whether the record is in the log is then
    /// known only when it is opened again, and until then appends give [`Error::Poisoned`].
    /// [`Error::ReadOnly`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, NewRecord, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// assert_eq!(log.append("a value alone")?, Offset(0));
    /// assert_eq!(log.append(NewRecord::new("paid").key("order-7"))?, Offset(1));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn append<'a>(&self, record: impl Into<NewRecord<'a>>) -> Result<Offset> {
        Ok(self.append_all(slice::from_ref(&record.into()))?.start)
    }

    /// Appends records as a batch and returns their offsets: all of them or none, also after a crash.
    /// They share one write and one sync. An empty batch appends nothing.
    ///
    /// # Errors
    ///
    /// Those of [`Log::append`]; [`Error::TooLarge`] also when all are larger than 1 GiB, and
    /// [`Error::InvalidArgument`] when there are more of them than an index holds.
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// assert_eq!(log.append_batch(["debit", "credit"])?, Offset(0)..Offset(2));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn append_batch<'a, R: Into<NewRecord<'a>>>(
        &self,
        records: impl IntoIterator<Item = R>,
    ) -> Result<Range<Offset>> {
        let records: Vec<NewRecord<'a>> = records.into_iter().map(Into::into).collect();
        self.append_all(&records)
    }

    fn append_all(&self, records: &[NewRecord<'_>]) -> Result<Range<Offset>> {
        let mut state = self.write()?;
        let state = &mut *state;
        let next = state.active.next_offset();
        if records.is_empty() {
            return Ok(next..next);
        }
        let batch = Batch::new(records, next, &self.options)?;
        if records.len() as u64 > self.options.index_entries_max() {
            return Err(Error::InvalidArgument(format!(
                "a batch of {} records is more than an index of {} entries holds; \
                 append it in parts, or raise index_bytes_max",
                records.len(),
                self.options.index_entries_max()
            )));
        }
        if !state.active.has_room_for(&batch) && next > state.active.base() {
            let rolled = self.roll(state);
            state.poison_if_failed(rolled)?;
        }
        let store_bytes = state.active.store_bytes();
        let offsets = match state.active.append_frames(&batch) {
            Ok(offsets) => offsets,
            Err(e) => {
                state.active.take_back(next, store_bytes);
                return Err(e);
            }
        };
        let kept = match self.options.durability {
            Durability::Synced => state.sync(),
            Durability::Written => state.active.flush(),
            Durability::Buffered if state.active.waiting_bytes() < BUFFER_BYTES => Ok(()),
            Durability::Buffered => state.active.flush(),
        };
        if kept.is_err() {
            // It was not acknowledged, so it is not shown, though it may be in the file.
            state.active.take_back(next, store_bytes);
        }
        state.poison_if_failed(kept)?;
        Ok(offsets)
    }

    /// Seals the active segment and begins the next.
    fn roll(&self, state: &mut State<B>) -> Result<()> {
        state.active.seal()?;
        state.durable = state.active.next_offset();
        let next = Segment::create(&self.backend, state.durable, &self.options)?;
        let sealed = std::mem::replace(&mut state.active, next);
        state.sealed.push(summary(&sealed));
        Ok(())
    }

    /// Reads a record. Its checksum is verified.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] when the log does not hold this offset, [`Error::Corrupt`] when the
    /// record is damaged (others can be read), [`Error::Io`], [`Error::Closed`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Error, Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append("first")?;
    /// assert_eq!(log.read(Offset(0))?.value(), b"first");
    /// assert!(matches!(log.read(Offset(1)), Err(Error::OffsetOutOfRange { .. })));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn read(&self, offset: Offset) -> Result<Record> {
        self.read_in_segment(offset, |segment| segment.read(offset))
    }

    /// Reads consecutive records from `from` on in one go: at least one, more as long as all are within
    /// `bytes_max` bytes of frames. It ends early before a damaged record and at the end of a segment, and
    /// is empty only where `from` is the next offset.
    ///
    /// # Errors
    ///
    /// Those of [`Log::read`], for the record at `from`.
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append_batch(["a", "b", "c"])?;
    /// let records: Vec<_> = log.read_batch(Offset(1), 1 << 20)?.collect::<Result<_, _>>().unwrap();
    /// assert_eq!(records.len(), 2);
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn read_batch(&self, from: Offset, bytes_max: usize) -> Result<Frames> {
        if from == self.next_offset() {
            return Ok(Frames::default());
        }
        self.read_in_segment(from, |segment| segment.read_batch(from, bytes_max))
    }

    /// Where a record stands: its segment, and the position in that segment's store.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`], [`Error::Io`]. A damaged record has a place too.
    pub fn locate(&self, offset: Offset) -> Result<Location> {
        self.read_in_segment(offset, |segment| {
            // Read first: only a record that was seen proves its entry.
            if let Err(e @ Error::Corrupt { .. }) = segment.read(offset)
                && !segment.is_proven()
            {
                return Err(e);
            }
            Ok(Location {
                segment: segment.base(),
                position: segment.position(offset)?,
            })
        })
    }

    /// Runs `read` on the segment of an offset. If it finds damage where the index was not proven, the
    /// index may be what is wrong: it is made anew, once.
    fn read_in_segment<T>(
        &self,
        offset: Offset,
        read: impl Fn(&Segment<B>) -> Result<T>,
    ) -> Result<T> {
        let state = self.state()?;
        state.check_range(offset)?;
        if offset >= state.active.base() {
            let found = read(&state.active);
            if !matches!(found, Err(Error::Corrupt { .. })) || state.active.is_proven() {
                return found;
            }
            drop(state);
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if !state.active.is_proven() {
                state.active.prove()?;
            }
            state.check_range(offset)?;
            if offset >= state.active.base() {
                return read(&state.active);
            }
            drop(state);
            return self.read_in_segment(offset, read);
        }
        let at = state
            .sealed
            .partition_point(|segment| segment.base <= offset)
            - 1;
        let SegmentSummary {
            base,
            next,
            store_bytes,
        } = state.sealed[at];
        if offset >= next {
            // No segment holds it: the next one begins after it.
            let reason = crate::Damaged::Missing;
            return Err(Error::Corrupt {
                segment: base,
                offset,
                position: store_bytes,
                reason,
            });
        }
        let segment = self.sealed_segment(&state, at, false)?;
        match read(&segment) {
            Err(Error::Corrupt { .. }) if !segment.is_proven() => {
                read(&*self.sealed_segment(&state, at, true)?)
            }
            found => found,
        }
    }

    /// Opens a sealed segment, or finds it open.
    fn sealed_segment(&self, state: &State<B>, at: usize, proven: bool) -> Result<Arc<Segment<B>>> {
        let base = state.sealed[at].base;
        let mut open = self
            .sealed_open
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = open.iter().position(|segment| segment.base() == base) {
            let segment = open.remove(found);
            if segment.is_proven() || !proven {
                open.push(Arc::clone(&segment));
                return Ok(segment);
            }
        }
        let place = Place::Sealed {
            next: state.place_end(at),
        };
        let options = &self.options;
        let scan = |mend| Segment::scan_files(&self.backend, base, place, mend, options);
        let open_files = || {
            if !proven {
                Segment::recover(&self.backend, base, place, false, options)
            } else if self.read_only {
                scan(false)
            } else {
                // Its index is wrong, so it is put right, if only in memory where it cannot be in the file.
                scan(true).or_else(|_| scan(false))
            }
        };
        let opened = match open_files() {
            Err(Error::Io { .. }) if !open.is_empty() => {
                // Perhaps the process may not have more files open.
                open.clear();
                open_files()?
            }
            opened => opened?,
        };
        let segment = Arc::new(opened.segment);
        if open.len() >= SEALED_OPEN_MAX {
            open.remove(0);
        }
        open.push(Arc::clone(&segment));
        Ok(segment)
    }

    fn forget_sealed(&self) {
        self.sealed_open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }

    /// Iterates over the records of a range, those that the log holds; a bound below the lowest offset
    /// is the lowest. The end of the log is where it is when the scan gets there.
    ///
    /// A damaged record is an `Err` and the scan goes on after it; any other error ends it.
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append_batch(["a", "b", "c"])?;
    /// let mut values = Vec::new();
    /// for record in log.scan(Offset(1)..) {
    ///     values.extend_from_slice(record?.value());
    /// }
    /// assert_eq!(values, b"bc");
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn scan(&self, range: impl RangeBounds<Offset>) -> Scan<'_, B> {
        let from = match range.start_bound() {
            Bound::Included(&from) => from,
            Bound::Excluded(&before) => before.next(),
            Bound::Unbounded => Offset(0),
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => Some(last.next()),
            Bound::Excluded(&end) => Some(end),
            Bound::Unbounded => None,
        };
        Scan::new(self, from.max(self.lowest_offset()), end)
    }

    /// Removes the segments all of whose records are below `offset`, lowest first: whole segments, so
    /// that some records below it may remain. Offsets go on where they were, also in a log that is empty
    /// afterwards. Durable when it returns; in a crash some of the segments may remain.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] when `offset` is above the next offset; [`Error::Io`], which poisons
    /// the log; [`Error::ReadOnly`], [`Error::Poisoned`].
    pub fn truncate_before(&self, offset: Offset) -> Result<()> {
        let mut state = self.write()?;
        if offset > state.active.next_offset() {
            return Err(state.out_of_range(offset));
        }
        let truncated = self.truncate_segments_before(&mut state, offset);
        state.poison_if_failed(truncated)
    }

    fn truncate_segments_before(&self, state: &mut State<B>, offset: Offset) -> Result<()> {
        let next = state.active.next_offset();
        if offset == next && next > state.active.base() {
            // Appends need a segment to go to before their present one is removed.
            self.roll(state)?;
        }
        self.forget_sealed();
        while !state.sealed.is_empty() && state.place_end(0) <= offset {
            remove_files(&self.backend, state.sealed[0].base)?;
            state.sealed.remove(0);
        }
        Ok(())
    }

    /// Removes every record above `offset`; the next append gets the offset after it. Durable when it
    /// returns; in a crash a part of the removed records may remain, from the lowest on.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] when `offset` is further than one below the lowest; [`Error::Io`],
    /// which poisons the log; [`Error::ReadOnly`], [`Error::Poisoned`].
    pub fn truncate_after(&self, offset: Offset) -> Result<()> {
        let mut state = self.write()?;
        let next = offset.next();
        if next < state.lowest() {
            return Err(state.out_of_range(offset));
        }
        if next >= state.active.next_offset() {
            return Ok(());
        }
        let truncated = self.truncate_to(&mut state, next);
        state.poison_if_failed(truncated)
    }

    fn truncate_to(&self, state: &mut State<B>, next: Offset) -> Result<()> {
        self.forget_sealed();
        state.durable = state.durable.min(next);
        // Highest first, so that what a crash leaves has no gap.
        while state.active.base() >= next && !state.sealed.is_empty() {
            let base = state.active.base();
            let Some(below) = state.sealed.pop() else {
                break;
            };
            let opened =
                Segment::recover(&self.backend, below.base, Place::Last, true, &self.options)?;
            state.active = opened.segment;
            remove_files(&self.backend, base)?;
        }
        if next < state.active.next_offset() {
            state.active.truncate(next)?;
        }
        if next > state.active.next_offset() || !state.active.takes_appends()? {
            state.active.seal()?;
            let new = Segment::create(&self.backend, next, &self.options)?;
            state
                .sealed
                .push(summary(&std::mem::replace(&mut state.active, new)));
        }
        Ok(())
    }

    /// Removes every record; the next append gets [`Options::initial_offset`]. Durable when it returns;
    /// in a crash a part of the records may remain, from the lowest on.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], which poisons the log; [`Error::ReadOnly`], [`Error::Poisoned`].
    pub fn reset(&self) -> Result<()> {
        let mut state = self.write()?;
        let state = &mut *state;
        self.forget_sealed();
        let reset = (|| {
            let first = self.options.initial_offset;
            remove_files(&self.backend, state.active.base())?;
            while let Some(segment) = state.sealed.pop() {
                remove_files(&self.backend, segment.base)?;
            }
            state.durable = first;
            state.active = Segment::create(&self.backend, first, &self.options)?;
            Ok(())
        })();
        state.poison_if_failed(reset)
    }

    /// The first offset the log holds; the next offset if it holds none.
    #[must_use]
    pub fn lowest_offset(&self) -> Offset {
        self.state_anyway().lowest()
    }

    /// The offset the next append gives. Equal to the lowest if the log is empty.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.state_anyway().active.next_offset()
    }

    /// Every record below this offset is on stable storage. On a log opened read-only it is what the
    /// writer is known to have synced.
    #[must_use]
    pub fn durable_offset(&self) -> Offset {
        self.state_anyway().durable
    }

    /// The segments, lowest first.
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentSummary> {
        let state = self.state_anyway();
        state
            .sealed
            .iter()
            .cloned()
            .chain([summary(&state.active)])
            .collect()
    }

    /// What opening the log had to scan and found there; empty after a clean close. Damage in other
    /// segments is found when they are read, or by [`Log::verify`].
    #[must_use]
    pub fn recovery_report(&self) -> Report {
        self.report.clone()
    }

    /// Checks every byte of every segment and changes nothing. Appends wait meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when a file cannot be read. Damage is in the report.
    pub fn verify(&self) -> Result<Report> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        if !self.read_only && !state.closed && state.poisoned.is_none() {
            let flushed = state.active.flush();
            state.poison_if_failed(flushed)?;
        }
        let mut report = Report::default();
        for (at, segment) in state.sealed.iter().enumerate() {
            let place = Place::Sealed {
                next: state.place_end(at),
            };
            report.segments.push(Segment::verify(
                &self.backend,
                segment.base,
                place,
                &self.options,
            )?);
        }
        let active = state.active.base();
        report.segments.push(Segment::verify(
            &self.backend,
            active,
            Place::Last,
            &self.options,
        )?);
        Ok(report)
    }

    /// Returns once every record is on stable storage.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], which poisons the log: it is then unknown which records are. [`Error::Poisoned`],
    /// [`Error::ReadOnly`].
    pub fn sync(&self) -> Result<()> {
        let mut state = self.write()?;
        let synced = state.sync();
        state.poison_if_failed(synced)
    }

    /// On a log opened read-only: takes in what a writer appended or removed since. On another it does
    /// nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn refresh(&self) -> Result<()> {
        if !self.read_only {
            return Ok(());
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let bases = segment_bases(&self.backend)?;
        if bases.last() == Some(&state.active.base())
            && bases.first() == Some(&state.lowest())
            && state.active.refresh()?
        {
            return Ok(());
        }
        self.forget_sealed();
        *state = open_segments(&self.backend, &self.options, false)?.0;
        Ok(())
    }

    /// Whether it was opened for reading only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Closes the log: every record is on stable storage, and the next open needs no scan.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Poisoned`] when an earlier failure left it unknown what the files hold.
    pub fn close(self) -> Result<()> {
        self.close_files()
    }

    /// Closes the log and removes its files, and the directory if nothing else is in it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`].
    pub fn remove(self) -> Result<()> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.closed = true;
        self.forget_sealed();
        for base in state
            .sealed
            .iter()
            .map(|segment| segment.base)
            .chain([state.active.base()])
            .rev()
        {
            remove_files(&self.backend, base)?;
        }
        let directory = self.backend.remove_directory();
        directory.map_err(|e| Error::io("remove directory", self.backend.name(), e))
    }

    fn close_files(&self) -> Result<()> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.closed || self.read_only {
            return Ok(());
        }
        state.check_poisoned()?;
        state.closed = true;
        state.active.seal()
    }

    fn state(&self) -> Result<RwLockReadGuard<'_, State<B>>> {
        let state = self.state_anyway();
        if state.closed {
            Err(Error::Closed)
        } else {
            Ok(state)
        }
    }

    fn state_anyway(&self) -> RwLockReadGuard<'_, State<B>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, to be changed.
    fn write(&self) -> Result<RwLockWriteGuard<'_, State<B>>> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        let state = self.state.write().unwrap_or_else(|poisoned| {
            let mut state = poisoned.into_inner();
            state
                .poisoned
                .get_or_insert_with(|| "a thread panicked while appending".to_owned());
            state
        });
        state.check_poisoned()?;
        if state.closed {
            Err(Error::Closed)
        } else {
            Ok(state)
        }
    }
}

impl<B: Backend> Drop for Log<B> {
    fn drop(&mut self) {
        // What fails here is found, and mended, when the log is opened again.
        let _ = self.close_files();
    }
}

impl<B: Backend> State<B> {
    fn lowest(&self) -> Offset {
        self.sealed
            .first()
            .map_or(self.active.base(), |segment| segment.base)
    }

    /// Where the segment after a sealed one begins.
    fn place_end(&self, at: usize) -> Offset {
        self.sealed
            .get(at + 1)
            .map_or(self.active.base(), |segment| segment.base)
    }

    fn check_range(&self, offset: Offset) -> Result<()> {
        let held = (self.lowest()..self.active.next_offset()).contains(&offset);
        if held {
            Ok(())
        } else {
            Err(self.out_of_range(offset))
        }
    }

    fn out_of_range(&self, offset: Offset) -> Error {
        let (lowest, next) = (self.lowest(), self.active.next_offset());
        Error::OffsetOutOfRange {
            offset,
            lowest,
            next,
        }
    }

    fn sync(&mut self) -> Result<()> {
        self.active.sync()?;
        self.durable = self.active.next_offset();
        Ok(())
    }

    fn check_poisoned(&self) -> Result<()> {
        match &self.poisoned {
            Some(cause) => Err(Error::Poisoned {
                cause: cause.clone(),
            }),
            None => Ok(()),
        }
    }

    /// After a failed write or sync no one knows what the files hold, so nothing more is appended.
    fn poison_if_failed<T>(&mut self, done: Result<T>) -> Result<T> {
        if let Err(e) = &done {
            self.poisoned.get_or_insert_with(|| e.to_string());
        }
        done
    }
}

fn summary<B: Backend>(segment: &Segment<B>) -> SegmentSummary {
    SegmentSummary {
        base: segment.base(),
        next: segment.next_offset(),
        store_bytes: segment.store_bytes(),
    }
}
