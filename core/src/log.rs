//! The log: a directory of segments, the last of which takes appends.

mod append;
mod commit;
mod compact;
mod follow;
#[cfg_attr(target_family = "wasm", path = "log/gather/alone.rs")]
mod gather;
mod open;
mod producers;
mod read;
mod repair;
mod reserve;
mod retain;
mod rewrite;
mod scan;
mod skip;
#[cfg(not(target_family = "wasm"))]
mod snapshot;
mod subscribe;
mod subscribers;
mod truncate;
#[cfg(not(target_family = "wasm"))]
mod unfinished;
mod verify;
mod view;
mod worker;

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
use std::path::Path;
use std::{
    ops::Range,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Release},
        },
    },
};

use crate::swap::ArcSwap;

#[cfg(feature = "stream")]
pub use self::subscribe::SubscriptionStream;
#[cfg(not(target_family = "wasm"))]
pub use self::unfinished::Unfinished;
use self::{
    append::Writer,
    commit::{Commit, Leading},
    follow::Patience,
    open::{Listed, open_beside_writer, open_to_write},
    reserve::Reserve,
    subscribers::Subscribers,
    view::{OpenedSegments, View},
    worker::Worker,
};
pub use self::{
    compact::{Compacted, CompactedSegment, Compaction, LeftAlone, LeftAloneReason},
    repair::{Kept, Lost, Repair, SetAside, SetAsideReason},
    scan::Scan,
    subscribe::{Next, Subscription},
};
#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
use crate::FsBackend;
use crate::{
    AppendOptions, Backend, DefaultBackend, Error, NewRecord, Offset, Options, ProducerLast,
    Report, Result, SegmentSummary,
    error::{Boxed, Thin},
    segment::{Segment, SegmentReader, remove_files},
};

/// An append-only log of records, durable and numbered from 0 (or an initial offset) without gaps, but for
/// [those](crate::Gap) that were made on purpose.
///
/// All methods but [`Log::close`] and [`Log::remove`] take `&self`; a log whose backend can cross
/// threads can be shared between them. Appends from several threads share a sync. Reads wait for
/// no one. Dropping the log closes it, but only [`Log::close`] tells whether that went well.
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
    shared: Arc<Shared<B>>,
}

/// What the log's callers and its worker share.
#[derive(Debug)]
struct Shared<B: Backend> {
    backend: B,
    options: Options,
    read_only: bool,
    report: Report,
    /// What readers see.
    view: ArcSwap<View<B>>,
    opened: OpenedSegments<B>,
    /// All records below it are on stable storage.
    durable: AtomicU64,
    writer: Mutex<Writer<B>>,
    /// Held by who finds out who appended what.
    finding_producers: Mutex<()>,
    commit: Commit<B>,
    worker: Worker<B>,
    reserve: Reserve,
    subscribers: Subscribers,
    /// Held by who writes segments anew.
    compacting: Mutex<()>,
    /// The failure after which it is unknown what the files hold.
    poison: OnceLock<String>,
    closed: AtomicBool,
}

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
impl Log<FsBackend> {
    /// Opens the log in a directory, made if it is missing, for reading and appending. After an
    /// unclean stop it is recovered: see [`Log::recovery_report`].
    ///
    /// It maps files into memory, and starts a thread, `proglog`, once there is something to do for it: full
    /// segments to be sealed, space to be prepared (see [`FsBackend::prepare`]), [`Options::sync_interval`]. What
    /// fails there poisons the log as a failed append does.
    ///
    /// A log that was closed opens without a scan, and so does one that was stopped between two appends. After any other
    /// stop its last segment is scanned, and those before it that were not sealed yet.
    ///
    /// # Errors
    ///
    /// [`Error::Locked`] when another writer has the directory, [`Error::Io`],
    /// [`Error::InvalidArgument`] for options that make no sense. Damage is no error here: it is one
    /// when the damaged record is read.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        options.check()?;
        let log = Self::open_on(FsBackend::open(directory)?, options)?;
        log.employ_worker();
        Ok(log)
    }

    /// Opens the log in a directory for reading only, beside a writer of this or another process too. Nothing is
    /// ever written, no lock taken.
    ///
    /// It holds what the log held at one moment since the call began, and goes on to do so: what a writer
    /// appends or removes is taken in by [`Log::refresh`]. Until then a record that was removed can still be read
    /// where its segment is open; where it is not, the reading call finds its file gone, or another in its place,
    /// and refreshes the log by itself, so that it answers from what there is now: [`Error::OffsetOutOfRange`], or the
    /// record that has this offset by then. Each record is one that the log held at some time, as it was
    /// appended. Those of one [`Log::read_batch`] were there together; a [`Log::scan`] may go on in a later state
    /// of the log than it began in, never in an earlier one.
    ///
    /// Where it meets a truncation or a reset that is under way, a part of what is being removed is still
    /// there, from the lowest offset on; all may be gone, too, before the next offset is where it will be. A
    /// log that is being reset as it is opened is waited for, a quarter of a second or so.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let directory = directory.path();
    /// use proglog::{Error, Log, Offset, Options};
    ///
    /// let writer = Log::open(directory, Options::new())?;
    /// writer.append_batch(["a", "b", "c"])?;
    /// let reader = Log::open_read_only(directory, Options::new())?;
    /// writer.truncate_after(Offset(0))?;
    /// writer.append("d")?;
    /// reader.refresh()?;
    /// assert_eq!(reader.read(Offset(1))?.value(), b"d");
    /// assert!(matches!(reader.read(Offset(2)), Err(Error::OffsetOutOfRange { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when there is no such directory or it cannot be read, or when its files were others each
    /// time they were looked at; [`Error::InvalidArgument`] when there is no log in it.
    pub fn open_read_only(directory: impl AsRef<Path>, options: Options) -> Result<Self> {
        Self::open_read_only_on(FsBackend::open_read_only(directory)?, options)
    }
}

impl<B: Backend> Log<B> {
    /// Opens the log on a backend, for reading and appending. It has no thread of its own: what that does for
    /// `Log::open` (sealing full segments, preparing space, [`Options::sync_interval`]) is done by appends.
    ///
    /// # Errors
    ///
    /// As `Log::open`; that no one else writes is the caller's to see to.
    ///
    /// # Example
    ///
    /// ```
    /// use proglog::{Log, MemoryBackend, Offset, Options};
    /// let files = MemoryBackend::new();
    /// let log = Log::open_on(files.clone(), Options::new())?;
    /// log.append("hello")?;
    /// log.close()?;
    /// assert_eq!(Log::open_on(files, Options::new())?.next_offset(), Offset(1));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn open_on(backend: B, options: Options) -> Result<Self> {
        Ok(Self::open_as(backend, options, false)?)
    }

    /// Opens the log on a backend for reading only. Nothing is ever written. Beside a writer that truncates or
    /// resets only where [`BackendFile::is_removed`](crate::BackendFile::is_removed) tells what was removed: not on
    /// Windows.
    ///
    /// # Errors
    ///
    /// As `Log::open_read_only`.
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Error, Log, MemoryBackend, Offset, Options};
    /// let files = MemoryBackend::new();
    /// Log::open_on(files.clone(), Options::new())?.append("hello")?;
    /// let log = Log::open_read_only_on(files, Options::new())?;
    /// assert_eq!(log.read(Offset(0))?.value(), b"hello");
    /// assert!(matches!(log.append("no"), Err(Error::ReadOnly)));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn open_read_only_on(backend: B, options: Options) -> Result<Self> {
        Ok(Self::open_as(backend, options, true)?)
    }

    fn open_as(backend: B, options: Options, read_only: bool) -> Thin<Self> {
        options.check()?;
        let opened = if read_only {
            open_existing(&backend, &options)?
        } else {
            open_to_write(&backend, &options)?
        };
        let view = View::new(&opened.sealed, opened.active.reader());
        let shared = Arc::new(Shared {
            backend,
            options,
            read_only,
            report: opened.report,
            view: ArcSwap::from_pointee(view),
            opened: OpenedSegments::default(),
            durable: opened.durable.0.into(),
            writer: Mutex::new(Writer::new(opened.active)),
            finding_producers: Mutex::default(),
            commit: Commit::default(),
            worker: Worker::default(),
            reserve: Reserve::default(),
            subscribers: Subscribers::default(),
            compacting: Mutex::default(),
            poison: OnceLock::new(),
            closed: false.into(),
        });
        if read_only {
            let mut writer = shared.writer_anyway();
            shared.learn_durable(&shared.view.load(), writer.active().reader());
        } else {
            shared.continue_timestamps(&mut shared.writer_anyway())?;
        }
        Ok(Self { shared })
    }

    /// Appends a record and returns its offset, once the promise of [`Options::durability`] is kept.
    ///
    /// A record that says whose it is, and which of theirs ([`NewRecord::producer`]), is appended once, however often
    /// it is sent: by who had no answer, or was stopped before it came, or read the record anew from where it comes
    /// from. Their sequences increase from each record to the next in the log, with gaps if they like. Then
    ///
    /// * one above the producer's last is appended,
    /// * one that was appended is not again: it gives the offset it got, once that is as durable as is asked now. Known
    ///   are the last 16 batches, or records by themselves, of each of the 1,024 producers that appended last, as far
    ///   as they are in the last 256 MiB of frames and the last 1,000,000 records of the log (a row of offsets that are
    ///   not there counts as one),
    /// * any other is refused with [`Error::SequenceConflict`], which tells where to go on.
    ///
    /// So a record is appended twice only if its producer is forgotten: after 1,024 others appended, or, once the log
    /// was opened again, after so many bytes or records of others. What the log knows is read from those bytes when a producer
    /// first appends; there is no other file. It goes with the records, where they are truncated.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] for a record larger than [`Options::record_bytes_max`]; nothing is appended.
    /// [`Error::Io`] when the files cannot be written or synced: whether the record is in the log is then
    /// known only when it is opened again, and until then appends give [`Error::Poisoned`].
    /// [`Error::SequenceConflict`], [`Error::ReadOnly`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, NewRecord, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// assert_eq!(log.append("a value alone")?, Offset(0));
    /// assert_eq!(log.append(NewRecord::new("paid").key("order-7"))?, Offset(1));
    ///
    /// let from_outbox = NewRecord::new("sent").producer("outbox", 4711);
    /// assert_eq!(log.append(from_outbox)?, Offset(2));
    /// assert_eq!(log.append(from_outbox)?, Offset(2)); // there already
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn append<'a>(&self, record: impl Into<NewRecord<'a>>) -> Result<Offset> {
        self.append_with(record, AppendOptions::new())
    }

    /// As [`Log::append`], with a promise of its own, or where it is expected to come: see [`AppendOptions`].
    ///
    /// What was appended before it and waits in the buffer goes with it: nothing is ever on stable storage
    /// without all that stands before it.
    ///
    /// # Errors
    ///
    /// Those of [`Log::append`], and [`Error::Conflict`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Durability, Log, MemoryBackend, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append_with("page viewed", Durability::Buffered)?;
    /// log.append_with("order paid", Durability::Synced)?; // both are durable now
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn append_with<'a>(
        &self,
        record: impl Into<NewRecord<'a>>,
        options: impl Into<AppendOptions>,
    ) -> Result<Offset> {
        let record = record.into();
        Ok(self.shared.append(&record, options.into())?)
    }

    /// Appends records as a batch and returns their offsets: all of them or none, also after a crash.
    /// They share one write and one sync. An empty batch appends nothing.
    ///
    /// Records of a [producer](NewRecord::producer) are all of the same one, and their sequences increase; then the
    /// batch is appended once, as [`Log::append`] describes. Sent again it is known by its first and last sequence
    /// and how many records it has, also if they were appended in parts with nothing of others between.
    ///
    /// # Errors
    ///
    /// Those of [`Log::append`]; [`Error::TooLarge`] also when all are larger than 1 GiB, and
    /// [`Error::InvalidArgument`] when there are more of them than an index holds, or they are not of one producer in
    /// order.
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
        self.append_batch_with(records, AppendOptions::new())
    }

    /// As [`Log::append_batch`], with a promise of its own, or where they are expected to come: see
    /// [`AppendOptions`].
    ///
    /// # Errors
    ///
    /// Those of [`Log::append_batch`], and [`Error::Conflict`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// use proglog::Durability;
    /// let offsets = log.append_batch_with(["a", "b"], Durability::Buffered)?;
    /// assert_eq!(offsets, Offset(0)..Offset(2));
    /// log.sync()?; // now they survive a power cut
    /// assert_eq!(log.durable_offset(), Offset(2));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn append_batch_with<'a, R: Into<NewRecord<'a>>>(
        &self,
        records: impl IntoIterator<Item = R>,
        options: impl Into<AppendOptions>,
    ) -> Result<Range<Offset>> {
        let records: Vec<NewRecord<'a>> = records.into_iter().map(Into::into).collect();
        Ok(self.shared.append_batch(&records, options.into())?)
    }

    /// Appends the records that [`Drafts`](crate::Drafts) wrote into `drafts`, as [`Log::append_batch_with`] does.
    /// They become frames where they stand, and go from there to the file in one write, if they are not few.
    ///
    /// # Errors
    ///
    /// Those of [`Log::append_batch_with`], and [`Error::InvalidArgument`] for bytes that are no drafts of one batch.
    /// What `drafts` holds afterwards is undefined.
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// use proglog::{AppendOptions, Drafts, NewRecord};
    /// let records = [NewRecord::new("a"), NewRecord::new("b").key("k")];
    /// let drafts = Drafts::new(&records, log.next_offset(), &Options::new())?;
    /// let mut bytes = vec![0; drafts.bytes() as usize];
    /// drafts.write(&mut bytes);
    /// log.append_drafts(&mut bytes, AppendOptions::new())?;
    /// assert_eq!(log.read(Offset(1))?.key(), Some(&b"k"[..]));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn append_drafts(
        &self,
        drafts: &mut [u8],
        options: impl Into<AppendOptions>,
    ) -> Result<Range<Offset>> {
        Ok(self.shared.append_drafts(drafts, options.into())?)
    }

    /// The last record of a [producer](NewRecord::producer), once it is as durable as [`Options::durability`]
    /// promises: what they have to append comes after it. `None` if the log knows nothing of them, which is what
    /// [`Log::append`] knows too.
    ///
    /// On a log opened read-only it reads the end of the log each time.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for an id of no bytes, or of more than [`Producer::ID_BYTES_MAX`](crate::Producer::ID_BYTES_MAX);
    /// [`Error::Io`], [`Error::Poisoned`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, NewRecord, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append(NewRecord::new("sent").producer("outbox", 4711))?;
    /// let last = log.producer_last("outbox")?.expect("it has appended");
    /// assert_eq!((last.sequence, last.offset), (4711, Offset(0)));
    /// assert_eq!(log.producer_last("inbox")?, None);
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn producer_last(&self, id: impl AsRef<[u8]>) -> Result<Option<ProducerLast>> {
        Ok(self.shared.producer_last(id.as_ref())?)
    }

    /// The first offset the log holds; the next offset if it holds none.
    #[must_use]
    pub fn lowest_offset(&self) -> Offset {
        self.shared.view.load().lowest()
    }

    /// The offset after the last record that can be read: the next append's, unless others append too.
    /// Equal to the lowest if the log is empty.
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append_batch(["a", "b"])?;
    /// assert_eq!(log.next_offset(), Offset(2));
    /// let last = log.scan(..).rev().next();
    /// assert_eq!(last.transpose()?.map(|record| record.offset()), Some(Offset(1)));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        self.shared.view.load().next_offset()
    }

    /// Every record below this offset is on stable storage. On a log opened read-only: what its indexes told of
    /// that when it was opened or refreshed last, as an entry is written once its record is synced. It
    /// is then never further than the writer has synced, and behind that at most by the first record of the last
    /// segment and by what is not below [`Log::next_offset`] yet.
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// use proglog::Durability;
    /// log.append_with("kept", Durability::Synced)?;
    /// log.append_with("not yet", Durability::Buffered)?;
    /// assert_eq!(log.durable_offset(), Offset(1));
    /// log.sync()?;
    /// assert_eq!(log.durable_offset(), Offset(2));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    #[must_use]
    pub fn durable_offset(&self) -> Offset {
        self.shared.durable()
    }

    /// The segments, lowest first. Opens each that is not open yet; one whose files cannot be opened has
    /// `store_bytes` 0.
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new().segment_bytes_max(100))?;
    /// log.append(&[b'x'; 80])?;
    /// log.append(&[b'y'; 80])?;
    /// let bases: Vec<Offset> = log.segments().iter().map(|segment| segment.base).collect();
    /// assert_eq!(bases, [Offset(0), Offset(1)]); // 0.store, 1.store
    /// # Ok::<(), proglog::Error>(())
    /// ```
    #[must_use]
    pub fn segments(&self) -> Vec<SegmentSummary> {
        self.shared.segments()
    }

    /// What opening the log had to scan and found there; empty after a clean close. Damage in other
    /// segments is found when they are read, or by [`Log::verify`].
    ///
    /// ```
    /// use proglog::{Log, MemoryBackend, Offset, Options};
    /// let files = MemoryBackend::new();
    /// let log = Log::open_on(files.clone(), Options::new())?;
    /// log.append("whole")?;
    /// log.close()?;
    /// let mut store = files.get("0.store").unwrap_or_default();
    /// let whole = store.len() as u64;
    /// store.extend(b"half a record"); // as a kill in the middle of a write leaves it
    /// files.insert("0.store", store);
    ///
    /// let log = Log::open_on(files, Options::new())?;
    /// let report = log.recovery_report();
    /// let tail = report.torn_tails().next().expect("it was cut off");
    /// assert_eq!((tail.position, tail.bytes), (whole, 13));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    #[must_use]
    pub fn recovery_report(&self) -> Report {
        self.shared.report.clone()
    }

    /// Returns once every record is on stable storage.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], which poisons the log: it is then unknown which records are. [`Error::Poisoned`],
    /// [`Error::ReadOnly`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// use proglog::Durability;
    /// for line in ["a", "b", "c"] {
    ///     log.append_with(line, Durability::Buffered)?;
    /// }
    /// log.sync()?; // once for all of them
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn sync(&self) -> Result<()> {
        Ok(self.shared.sync()?)
    }

    /// On a log opened read-only: takes in what a writer appended, synced or removed before the call. From then on
    /// no call gives a record that was removed before; see `Log::open_read_only` for what they give until then. While
    /// there is no segment, since a reset is under way or was interrupted, the log is empty. On a log
    /// opened for writing it does nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the directory is gone or cannot be read, or when its files were others each time they were
    /// looked at, for a quarter of a second or so. The log is then as it was before.
    pub fn refresh(&self) -> Result<()> {
        if !self.shared.read_only {
            return Ok(());
        }
        Ok(self.shared.refresh()?)
    }

    /// Whether it was opened for reading only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.shared.read_only
    }

    /// Closes the log: every record is on stable storage, and the next open needs no scan. [Subscriptions](Subscription)
    /// end once they have given what there is.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Poisoned`] when an earlier failure left it unknown what the files hold.
    ///
    /// # Example
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let directory = directory.path();
    /// use proglog::{Log, Options};
    /// let log = Log::open(directory, Options::new())?;
    /// log.append("a")?;
    /// log.close()?;
    /// assert!(Log::open(directory, Options::new())?.recovery_report().segments.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(self) -> Result<()> {
        Ok(self.shared.close_files()?)
    }

    /// Closes the log and removes its files, and the directory if nothing else is in it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::ReadOnly`].
    ///
    /// # Example
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// let directory = directory.path().join("scratch");
    /// use proglog::{Log, Options};
    /// let log = Log::open(&directory, Options::new())?;
    /// log.append("a")?;
    /// log.remove()?;
    /// assert!(!directory.exists());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remove(self) -> Result<()> {
        Ok(self.shared.remove_all()?)
    }
}

/// Opens a log that there is, or is again once a writer that begins it anew has done so.
fn open_existing<B: Backend>(backend: &B, options: &Options) -> Thin<open::OpenedLog<B>> {
    let mut patience = Patience::for_reset();
    loop {
        if let Some(opened) = open_beside_writer(backend, options)? {
            return Ok(opened);
        }
        if !Listed::now(backend)?.is_log(backend) || !patience.wait() {
            return Err(Error::invalid(format!(
                "there is no log in {}; append to it, or open it for writing, to make one",
                backend.name()
            )));
        }
    }
}

impl<B: Backend> Drop for Log<B> {
    fn drop(&mut self) {
        // What fails here is found, and mended, when the log is opened again.
        let _ = self.shared.close_files();
    }
}

impl<B: Backend> Shared<B> {
    fn durable(&self) -> Offset {
        Offset(self.durable.load(Acquire))
    }

    fn check_poisoned(&self) -> Thin<()> {
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned {
                cause: cause.clone(),
            }
            .into()),
            None => Ok(()),
        }
    }

    /// After a failed write or sync no one knows what the files hold, so nothing more is appended.
    #[inline]
    fn poison_if_failed<T>(&self, done: Thin<T>) -> Thin<T> {
        done.map_err(|e| self.poisoned_by(e))
    }

    #[cold]
    fn poisoned_by(&self, e: Boxed) -> Boxed {
        self.poison_with(e.to_string());
        e
    }

    fn poison_with(&self, cause: String) {
        let _ = self.poison.set(cause);
        self.subscribers.wake_anyway();
    }

    /// Nor where a thread ends in the middle of it.
    fn poison_if_panicking(&self, what: &str) {
        #[cfg(not(target_family = "wasm"))]
        if std::thread::panicking() {
            self.poison_with(format!("a thread panicked while {what}"));
        }
        #[cfg(target_family = "wasm")]
        let _ = what;
    }

    /// Closes it, once, whoever still reads: seals the last segment, and lets others have the directory.
    fn close_files(&self) -> Thin<()> {
        if self.read_only {
            self.closed.store(true, Release);
            self.subscribers.wake_anyway();
            return Ok(());
        }
        self.worker.stop();
        let leading = self.lead();
        let mut writer = self.writer_anyway();
        // Held, as the other two are, by those who change files where they only mean to read them.
        let opened = self.opened.hold();
        let was_closed = self.closed.swap(true, Release);
        drop(opened);
        let sealed = if was_closed {
            Ok(())
        } else {
            self.seal_last(&leading, &mut writer)
        };
        self.backend.release();
        self.subscribers.wake_anyway();
        sealed
    }

    fn seal_last(&self, leading: &Leading<'_, B>, writer: &mut Writer<B>) -> Thin<()> {
        self.reserve.give_back(&self.backend);
        self.check_poisoned()?;
        writer.active().write_out()?;
        leading.seal_all()?;
        writer.active().seal()
    }

    fn remove_all(&self) -> Thin<()> {
        if self.read_only {
            return Err(Error::ReadOnly.into());
        }
        self.worker.stop();
        let _leading = self.lead();
        let _writer = self.writer_anyway();
        self.closed.store(true, Release);
        let _closed = self.opened.close();
        self.reserve.give_back(&self.backend);
        let view = self.view.load_full();
        remove_files(
            &self.backend,
            view.slots().iter().rev().map(|slot| slot.base),
        )?;
        let directory = self.backend.remove_directory();
        directory.map_err(|e| Error::io("remove directory", self.backend.name(), e))
    }
}
