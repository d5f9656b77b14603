//! The log in a wasm module, under wasmtime.

mod files;
mod guest;
mod last_words;
#[allow(
    unsafe_code,
    reason = "wasmtime cannot know that machine code is its compiler's"
)]
mod module;
mod sandbox;
mod scan;
mod subscription;
#[cfg(test)]
#[allow(unsafe_code, reason = "as in `module`")]
mod tests;
mod ticker;
mod timer;
mod wasi;

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use proglog::{
    AppendOptions, Compacted, Compaction, Durability, Frames, GapCause, Location, NewRecord,
    Offset, Options, ProducerLast, Record, Report, Retention, SegmentSummary,
};
use proglog_wasm::abi::Flags;

use self::{
    guest::{Fault, Guest},
    module::GuestModule,
    sandbox::Sandbox,
    scan::WasmScan,
    subscription::WasmSubscription,
    timer::SyncTimer,
};
use crate::{Engine, Error, ErrorKind, Mode, Records, Result, Subscription};

/// A log that runs in a sandbox: a wasm module that sees the log's directory and nothing else, no
/// clock, no environment, no network, and whose memory and time are limited.
///
/// It is `Send` and `Sync`; one call runs at a time. A module that traps, returns what it must not, or
/// does not return in time is discarded, and the log opened again in a new one: that call fails with
/// [`ErrorKind::Trapped`], and says so. Opening a log, also again, takes milliseconds.
///
/// ```
/// use proglog::{NewRecord, Offset, Options};
/// use proglog_host::{Engine, Mode, WasmLog};
///
/// # let directory = tempfile::tempdir()?;
/// # let directory = directory.path();
/// let log = WasmLog::open(directory, Mode::Write, Options::new())?;
/// let offsets = log.append_batch(&[NewRecord::new("hello")])?;
/// assert_eq!(offsets, Offset(0)..Offset(1));
/// assert_eq!(log.read(Offset(0))?.value(), b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WasmLog {
    shared: Arc<Shared>,
    /// If records are to be synced in time.
    timer: Option<SyncTimer>,
}

/// What the log's callers and its timer share.
struct Shared {
    guest: Mutex<State>,
    opening: Opening,
    /// Whether records may be in the guest's memory alone.
    buffered: AtomicBool,
    /// Why the guest broke when no caller of its own waited for it, until an appender was told.
    untold: Mutex<Option<Error>>,
}

/// Dropped first of a [`Shared`], so that the guest is gone before the directory's lock.
enum State {
    Open(Box<Guest>),
    /// The last guest broke, and no other could be opened since.
    Broken,
    Closed,
}

/// All that it takes to open the log again.
struct Opening {
    module: GuestModule,
    sandbox: Sandbox,
    with: OpenWith,
    options: Options,
    limits: Limits,
}

/// The arguments of the module's `open`.
struct OpenWith {
    /// What the host calls the guest's directory.
    directory: PathBuf,
    flags: Flags,
    /// `segment_bytes_max`, `index_bytes_max`, `record_bytes_max`, `initial_offset`.
    numbers: [i64; 4],
}

/// How much a module may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The most bytes of its memory; at most 4 GiB. An append needs a few times the bytes of its
    /// records.
    pub memory_bytes_max: u64,
    /// The longest that a call may take. Opening, verifying, compacting and enforcing retention may take longer, as the
    /// bytes in the directory do.
    pub call_timeout: Duration,
}

impl Limits {
    /// What a log with these options needs: 1 GiB of memory, or as much as four of the largest
    /// record, up to 4 GiB; and a minute a call.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        let records_bytes = options.record_bytes_max.saturating_mul(4);
        Self {
            memory_bytes_max: records_bytes.clamp(1 << 30, 1 << 32),
            call_timeout: Duration::from_secs(60),
        }
    }
}

impl WasmLog {
    /// Opens the log in a directory. In [`Mode::Write`] the directory is made if it is missing, and
    /// its lock is held until the log is closed or dropped; in [`Mode::Read`] nothing is ever written.
    /// [`Options::sync_interval`] is kept by a thread, `proglog-sync`, that starts once there is something to do
    /// for it. [`Options::retention`] is enforced by the append that began a new segment, before it returns. [`Options::verify`] has no effect: it is about mapped files, of which a module has none.
    ///
    /// # Errors
    ///
    /// Those of [`proglog::Log::open`] and [`proglog::Log::open_read_only`], and
    /// [`ErrorKind::Trapped`] when the module cannot be run.
    pub fn open(directory: impl AsRef<Path>, mode: Mode, options: Options) -> Result<Self> {
        let limits = Limits::of(&options);
        Self::open_with_limits(directory, mode, options, limits)
    }

    /// As [`WasmLog::open`], with other limits than [`Limits::of`] the options.
    ///
    /// # Errors
    ///
    /// As [`WasmLog::open`].
    pub fn open_with_limits(
        directory: impl AsRef<Path>,
        mode: Mode,
        options: Options,
        limits: Limits,
    ) -> Result<Self> {
        let module = GuestModule::log().map_err(|reason| not_started(&reason))?;
        Self::open_module(module.clone(), directory.as_ref(), mode, options, limits)
    }

    fn open_module(
        module: GuestModule,
        directory: &Path,
        mode: Mode,
        options: Options,
        limits: Limits,
    ) -> Result<Self> {
        // Refuse bad options before a directory is made.
        options.validate()?;
        let with = OpenWith::new(directory.to_owned(), mode, &options)?;
        let sandbox = Sandbox::open(directory, mode)?;
        let opening = Opening {
            module,
            sandbox,
            with,
            options,
            limits,
        };
        let guest = opening.start()?;
        let sync_interval = opening.options.sync_interval;
        let shared = Arc::new(Shared {
            guest: Mutex::new(State::Open(guest)),
            buffered: (opening.with.flags.durability == Durability::Buffered).into(),
            opening,
            untold: Mutex::default(),
        });
        let for_timer = Arc::clone(&shared);
        let sync = Arc::new(move || for_timer.sync_in_time());
        Ok(Self {
            shared,
            timer: sync_interval.map(|interval| SyncTimer::new(interval, sync)),
        })
    }

    fn append(&self, records: &[NewRecord<'_>], how: AppendOptions) -> Result<Range<Offset>> {
        if how.durability == Some(Durability::Buffered) {
            self.shared.buffered.store(true, Relaxed);
        }
        let Opening {
            options, sandbox, ..
        } = &self.shared.opening;
        let is_all_kept = options.retention == Retention::new();
        if (self.timer.is_some() || !is_all_kept)
            && let Some(error) = self.shared.untold().take()
        {
            return Err(error);
        }
        let (first, has_rolled) = self.call(|guest| {
            let names_made = sandbox.names_made();
            let first = guest.append_batch(records, how, options)?;
            Ok((first, sandbox.names_made() != names_made))
        })?;
        if has_rolled && !is_all_kept {
            self.shared.in_passing(|guest| {
                guest.enforce_retention(&options.retention, None, options.clock)
            });
        }
        if let Some(timer) = &self.timer
            && how.durability.unwrap_or(options.durability) != Durability::Synced
            && !records.is_empty()
        {
            timer.appended();
        }
        Ok(first..first.plus(records.len() as u64))
    }

    fn call<T>(&self, call: impl FnOnce(&mut Guest) -> Result<T, Fault>) -> Result<T> {
        self.shared.call(call)
    }

    fn shut(&self) -> Result<()> {
        if let Some(timer) = &self.timer {
            timer.stop();
        }
        self.shared.shut()
    }
}

impl Shared {
    /// Syncs for the timer.
    fn sync_in_time(&self) {
        self.in_passing(Guest::sync);
    }

    /// Makes a call for which no caller waits. What fails is told to who appends next: where the log refused, by the
    /// log, which is poisoned.
    fn in_passing(&self, call: impl FnOnce(&mut Guest) -> Result<(), Fault>) {
        if let Err(error) = self.call(call)
            && error.kind() == ErrorKind::Trapped
        {
            *self.untold() = Some(error);
        }
    }

    fn untold(&self) -> MutexGuard<'_, Option<Error>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls the guest, in a new one if the last one broke.
    fn call<T>(&self, call: impl FnOnce(&mut Guest) -> Result<T, Fault>) -> Result<T> {
        let mut state = self.state();
        // Until the call is over: a panic in it leaves no guest to trust.
        let mut guest = match std::mem::replace(&mut *state, State::Broken) {
            State::Open(guest) => guest,
            State::Broken => self.opening.start()?,
            State::Closed => {
                *state = State::Closed;
                return Err(proglog::Error::Closed.into());
            }
        };
        match call(&mut guest) {
            Err(Fault::Broken(reason)) => {
                drop(guest);
                let reopened = self.opening.open();
                let error = self.trapped(&reason, reopened.as_ref().err());
                if let Ok(guest) = reopened {
                    *state = State::Open(Box::new(guest));
                }
                Err(error)
            }
            Err(Fault::Refused(error)) => {
                *state = State::Open(guest);
                Err(error)
            }
            Ok(result) => {
                *state = State::Open(guest);
                Ok(result)
            }
        }
    }

    fn trapped(&self, reason: &str, reopening: Option<&Fault>) -> Error {
        let lost = self.what_is_lost();
        let then = match reopening {
            None => "the log was opened again, so go on".to_owned(),
            Some(Fault::Refused(error)) => {
                format!("opening the log again failed, and the next call tries once more: {error}")
            }
            Some(Fault::Broken(reason)) => {
                format!("opening the log again failed, and the next call tries once more: {reason}")
            }
        };
        let message = format!("the wasm module was discarded: {reason}. {lost}; {then}");
        Error::new(ErrorKind::Trapped, message)
    }

    fn broke_on_closing(&self, reason: &str) -> Error {
        let lost = self.what_is_lost();
        let message = format!("the wasm module was discarded on closing: {reason}. {lost}");
        Error::new(ErrorKind::Trapped, message)
    }

    fn what_is_lost(&self) -> &'static str {
        match (
            self.opening.with.flags.read_only,
            self.buffered.load(Relaxed),
        ) {
            (true, _) => "Nothing is lost",
            (false, true) => {
                "Records appended since the last sync may be lost, as they may be when buffered"
            }
            (false, false) => "Nothing that was acknowledged is lost",
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic left behind is a broken guest, which is dealt with.
        self.guest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes the guest's log, so that the next opening finds it as it should be. Where the last guest
    /// broke, that takes another.
    fn shut(&self) -> Result<()> {
        let mut guest = match std::mem::replace(&mut *self.state(), State::Closed) {
            State::Open(guest) => guest,
            State::Broken => self.opening.start()?,
            State::Closed => return Ok(()),
        };
        guest.close().map_err(|fault| match fault {
            Fault::Refused(error) => error,
            Fault::Broken(reason) => self.broke_on_closing(&reason),
        })
    }
}

impl Engine for WasmLog {
    fn append_batch(&self, records: &[NewRecord<'_>]) -> Result<Range<Offset>> {
        self.append(records, AppendOptions::new())
    }

    fn append_batch_with(
        &self,
        records: &[NewRecord<'_>],
        options: AppendOptions,
    ) -> Result<Range<Offset>> {
        self.append(records, options)
    }

    fn producer_last(&self, id: &[u8]) -> Result<Option<ProducerLast>> {
        self.call(|guest| guest.producer_last(id))
    }

    fn read(&self, offset: Offset) -> Result<Record> {
        self.call(|guest| guest.read(offset))
    }

    fn read_batch(&self, from: Offset, bytes_max: usize) -> Result<Frames> {
        self.call(|guest| guest.read_batch(from, bytes_max))
    }

    fn scan(&self, from: Offset) -> Records<'_> {
        Box::new(WasmScan::new(self, from))
    }

    fn subscribe(&self, from: Offset) -> Box<dyn Subscription + Send + '_> {
        Box::new(WasmSubscription::new(self, from))
    }

    fn truncate_before(&self, offset: Offset) -> Result<()> {
        self.call(|guest| guest.truncate_before(offset))
    }

    fn truncate_after(&self, offset: Offset) -> Result<()> {
        self.call(|guest| guest.truncate_after(offset))
    }

    fn reset(&self) -> Result<()> {
        self.call(Guest::reset)
    }

    fn skip_to_because(&self, next: Offset, cause: GapCause) -> Result<()> {
        self.call(|guest| guest.skip_to(next, cause))?;
        if let Some(timer) = &self.timer
            && self.shared.opening.options.durability != Durability::Synced
        {
            timer.appended();
        }
        Ok(())
    }

    fn compact(&self, compaction: &Compaction) -> Result<Compacted> {
        let clock = self.shared.opening.options.clock;
        self.call(|guest| guest.compact(compaction, clock))
    }

    fn enforce_retention(&self) -> Result<()> {
        self.enforce_retention_with(&self.shared.opening.options.retention, None)
    }

    fn enforce_retention_with(&self, retention: &Retention, now_ms: Option<u64>) -> Result<()> {
        let clock = self.shared.opening.options.clock;
        self.call(|guest| guest.enforce_retention(retention, now_ms, clock))
    }

    fn lowest_offset(&self) -> Result<Offset> {
        self.call(Guest::lowest_offset)
    }

    fn next_offset(&self) -> Result<Offset> {
        self.call(Guest::next_offset)
    }

    fn durable_offset(&self) -> Result<Offset> {
        self.call(Guest::durable_offset)
    }

    fn sync(&self) -> Result<()> {
        self.call(Guest::sync)
    }

    fn recovery_report(&self) -> Result<Report> {
        self.call(Guest::recovery_report)
    }

    fn verify(&self) -> Result<Report> {
        self.call(Guest::verify)
    }

    fn bytes_read(&self) -> Option<u64> {
        cfg!(unix).then(|| self.shared.opening.sandbox.bytes_read())
    }

    fn segments(&self) -> Result<Vec<SegmentSummary>> {
        self.call(Guest::segments)
    }

    fn locate(&self, offset: Offset) -> Result<Location> {
        self.call(|guest| guest.locate(offset))
    }

    fn refresh(&self) -> Result<()> {
        self.call(Guest::refresh)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.shut()
    }
}

impl Drop for WasmLog {
    fn drop(&mut self) {
        // No one is left to be told of an error, nor to wait for another guest; `close` is for who wants
        // to know.
        if let Some(timer) = &self.timer {
            timer.stop();
        }
        if !matches!(*self.shared.state(), State::Broken) {
            let _ = self.shared.shut();
        }
    }
}

impl Opening {
    fn open(&self) -> Result<Guest, Fault> {
        Guest::open(&self.module, &self.sandbox, &self.with, &self.limits)
    }

    /// Opens the log where no guest has it.
    fn start(&self) -> Result<Box<Guest>> {
        match self.open() {
            Ok(guest) => Ok(Box::new(guest)),
            Err(Fault::Refused(error)) => Err(error),
            Err(Fault::Broken(reason)) => Err(not_started(&reason)),
        }
    }
}

impl OpenWith {
    /// The options are valid: to the module 0 is a default, and to no one else.
    fn new(directory: PathBuf, mode: Mode, options: &Options) -> Result<Self> {
        // More than this and this are the same: no disk holds either.
        let limit = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let initial_offset = options.initial_offset;
        Ok(Self {
            directory,
            flags: Flags {
                read_only: mode == Mode::Read,
                durability: options.durability,
            },
            numbers: [
                limit(options.segment_bytes_max),
                limit(options.index_bytes_max),
                limit(options.record_bytes_max),
                i64::try_from(initial_offset.0).map_err(|_| {
                    let beyond = i64::MAX;
                    invalid(format!(
                        "initial_offset {initial_offset} is beyond the wasm engine's last, {beyond}; use \
                         the native engine for such a log"
                    ))
                })?,
            ],
        })
    }
}

fn not_started(reason: &str) -> Error {
    Error::new(
        ErrorKind::Trapped,
        format!("the wasm module could not be started: {reason}"),
    )
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidArgument, message)
}
