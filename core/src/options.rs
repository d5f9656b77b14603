//! How a log is opened, and what an append promises.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{Error, Offset, Result, error::Thin, index::ENTRY_BYTES, record::RECORD_BYTES_LIMIT};

/// How to open a log. Start from [`Options::new`] and change what matters.
///
/// ```
/// use proglog::{Durability, Options};
/// let options = Options::new().segment_bytes_max(16 << 20).durability(Durability::Written);
/// ```
///
/// With serde, a missing field has its default and an unknown one is refused; the clock is not
/// part of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// See [`Options::segment_bytes_max`](Self::segment_bytes_max()).
    pub segment_bytes_max: u64,
    /// See [`Options::index_bytes_max`](Self::index_bytes_max()).
    pub index_bytes_max: u64,
    /// See [`Options::record_bytes_max`](Self::record_bytes_max()).
    pub record_bytes_max: u64,
    /// See [`Options::initial_offset`](Self::initial_offset()).
    pub initial_offset: Offset,
    /// See [`Options::durability`](Self::durability()).
    pub durability: Durability,
    /// See [`Options::sync_interval`](Self::sync_interval()).
    pub sync_interval: Option<Duration>,
    /// See [`Options::verify`](Self::verify()).
    pub verify: Verify,
    /// See [`Options::retention`](Self::retention()).
    pub retention: Retention,
    /// See [`Options::clock`](Self::clock()).
    #[serde(skip)]
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            segment_bytes_max: 64 << 20,
            index_bytes_max: 8 << 20,
            record_bytes_max: 16 << 20,
            initial_offset: Offset(0),
            durability: Durability::default(),
            sync_interval: None,
            verify: Verify::default(),
            retention: Retention::default(),
            clock: Clock::default(),
        }
    }
}

impl Options {
    /// The defaults: segments of at most 64 MiB with an index of at most 8 MiB, records of at most
    /// 16 MiB, [`Durability::Synced`], the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The most bytes of a store file, after which a new segment is begun. A single record or batch
    /// that is larger than this gets a segment of its own.
    #[must_use]
    pub fn segment_bytes_max(mut self, bytes: u64) -> Self {
        self.segment_bytes_max = bytes;
        self
    }

    /// The most bytes of an index file, rounded down to whole entries of 12 bytes. Memory is bounded
    /// by it too: entries not yet written wait there. At least 12.
    #[must_use]
    pub fn index_bytes_max(mut self, bytes: u64) -> Self {
        self.index_bytes_max = bytes;
        self
    }

    /// The most bytes of a record as it is encoded: value, key, headers and some 30 bytes. At most
    /// 1 GiB. Reading is not limited by it.
    #[must_use]
    pub fn record_bytes_max(mut self, bytes: u64) -> Self {
        self.record_bytes_max = bytes;
        self
    }

    /// The first record's offset in a log that is made anew, or begun again by
    /// [`Log::reset`](crate::Log::reset). An existing log keeps its own.
    #[must_use]
    pub fn initial_offset(mut self, offset: impl Into<Offset>) -> Self {
        self.initial_offset = offset.into();
        self
    }

    /// What an append promises when it returns, unless it is told
    /// otherwise ([`Log::append_with`](crate::Log::append_with)).
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// How long a record appended with a weaker promise than [`Durability::Synced`] may stay unsynced; no limit
    /// unless told. A log opened by `Log::open` keeps to it by itself, one opened by
    /// [`Log::open_on`](crate::Log::open_on) only when something is appended.
    #[must_use]
    pub fn sync_interval(mut self, interval: Duration) -> Self {
        self.sync_interval = Some(interval);
        self
    }

    /// When the checksum of a record that is read is verified: at every read unless told otherwise.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// How much of the log is kept: all of it unless told otherwise.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Where the timestamp of a record comes from that brings none.
    #[must_use]
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    pub(crate) fn index_entries_max(&self) -> u64 {
        // An entry's offset is a u32 on disk.
        (self.index_bytes_max / ENTRY_BYTES).min(1 << 32)
    }

    /// Checks that the options make sense; opening a log does so by itself.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`], which says what to give instead.
    pub fn validate(&self) -> Result<()> {
        Ok(self.check()?)
    }

    pub(crate) fn check(&self) -> Thin<()> {
        let refuse = |what: String| Err(Error::invalid(what));
        if self.index_entries_max() == 0 {
            return refuse(format!(
                "index_bytes_max is {}, which holds no entry; give at least {ENTRY_BYTES}",
                self.index_bytes_max
            ));
        }
        if self.segment_bytes_max == 0 {
            return refuse("segment_bytes_max is 0; give at least 1".to_owned());
        }
        if self.record_bytes_max == 0 || self.record_bytes_max > RECORD_BYTES_LIMIT {
            return refuse(format!(
                "record_bytes_max is {}; give 1 to {RECORD_BYTES_LIMIT}",
                self.record_bytes_max
            ));
        }
        if self.initial_offset.0 == u64::MAX {
            return refuse(format!(
                "initial_offset is {}, which leaves no offset for a record; give a lower one",
                self.initial_offset
            ));
        }
        Ok(())
    }
}

/// How to append, where that is not as the log does by itself. A [`Durability`] alone becomes one too.
///
/// ```
/// # use proglog::{Error, Log, MemoryBackend, Options};
/// use proglog::{AppendOptions, Durability, Offset};
/// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
/// let first = AppendOptions::new().expected_next_offset(Offset(0)).durability(Durability::Written);
/// log.append_with("the one who comes first", first)?;
/// assert!(matches!(log.append_with("and no other", first), Err(Error::Conflict { .. })));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppendOptions {
    /// See [`AppendOptions::durability`](Self::durability()).
    pub durability: Option<Durability>,
    /// See [`AppendOptions::expected_next_offset`](Self::expected_next_offset()).
    pub expected_next_offset: Option<Offset>,
    /// See [`AppendOptions::copied`](Self::copied()).
    pub copied: bool,
}

impl AppendOptions {
    /// As the log does.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What the append promises; [`Options::durability`] unless told.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// The offset that the first record has to get: if it would get another, nothing is appended, and
    /// [`Error::Conflict`] tells which. So of several that decide by the same records what to append, one does.
    ///
    /// Records of a [producer](crate::NewRecord::producer) that were appended already are found before that is
    /// looked at: they give the offsets that they got.
    #[must_use]
    pub fn expected_next_offset(mut self, offset: impl Into<Offset>) -> Self {
        self.expected_next_offset = Some(offset.into());
        self
    }

    /// The records are those of another log, which has them all: whatever their [producer](crate::NewRecord::producer)
    /// appended before, they are appended. A log may have a record of a producer twice where the first one was
    /// forgotten when the second came, and so does its copy.
    #[must_use]
    pub fn copied(mut self) -> Self {
        self.copied = true;
        self
    }
}

impl From<Durability> for AppendOptions {
    fn from(durability: Durability) -> Self {
        Self::new().durability(durability)
    }
}

/// How much of a log is kept. What is not goes in whole segments, the lowest first, when a segment is full
/// and by [`Log::enforce_retention`](crate::Log::enforce_retention); never the active one. Who reads there then gets
/// [`Error::OffsetOutOfRange`](crate::Error::OffsetOutOfRange).
///
/// ```
/// use std::time::Duration;
/// use proglog::{Options, Retention};
/// let week = Duration::from_secs(7 * 24 * 60 * 60);
/// let options = Options::new().retention(Retention::new().bytes_max(10 << 30).age_max(week));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Retention {
    /// See [`Retention::bytes_max`](Self::bytes_max()).
    pub bytes_max: Option<u64>,
    /// See [`Retention::age_max`](Self::age_max()).
    pub age_max: Option<Duration>,
}

impl Retention {
    /// All is kept.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Segments go while the stores have more bytes than this together.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = Some(bytes);
        self
    }

    /// Segments go whose last record is older than this, by its timestamp and [`Options::clock`]. One without
    /// timestamps stays, and so do those after it; one of which no record is left, as all were compacted, goes with the
    /// next that does.
    #[must_use]
    pub fn age_max(mut self, age: Duration) -> Self {
        self.age_max = Some(age);
        self
    }

    pub(crate) fn is_unlimited(&self) -> bool {
        self.bytes_max.is_none() && self.age_max.is_none()
    }
}

/// What an append promises when it returns.
///
/// A reader may see records that are not durable yet; below
/// [`Log::durable_offset`](crate::Log::durable_offset) it sees only those that are.
///
/// ```
/// # use proglog::{Log, MemoryBackend, Offset, Options};
/// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
/// use proglog::Durability;
/// log.append("survives a power cut")?; // Synced, unless the log was opened with another
/// log.append_with("survives the process being killed", Durability::Written)?;
/// log.append_with("survives once it is synced", Durability::Buffered)?;
/// log.sync()?;
/// # Ok::<(), proglog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The record is on stable storage: it survives power loss. Threads that append at the same time share a sync.
    /// Where one takes less than 0.2 ms they wait for it awake, letting others run, for to be woken takes as long.
    #[default]
    Synced,
    /// The record is with the operating system: it survives the process being killed, not power loss. What a
    /// power cut leaves of such records is a prefix of them, save for the rare hole described in
    /// [`format`](mod@crate::format), which is reported as damage.
    Written,
    /// The record may wait in this process's memory, until 256 KiB have gathered or
    /// [`Log::sync`](crate::Log::sync) or [`Log::close`](crate::Log::close) is called. Until then it survives neither a
    /// killed process nor a power cut. (Where the store is mapped, small records reach the operating system at once;
    /// do not rely on it.)
    Buffered,
}

/// When the checksum of a record that is read is verified.
///
/// ```
/// use proglog::{Log, MemoryBackend, Options, Verify};
/// let options = Options::new().verify(Verify::Once);
/// let log = Log::open_on(MemoryBackend::new(), options)?;
/// # Ok::<(), proglog::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// At every read.
    #[default]
    EveryRead,
    /// At a record's first read since its segment was mapped into memory; where it is not mapped, such as in
    /// the active segment or anywhere in a sandbox, at every read.
    Once,
}

/// Where the timestamp of a record comes from that brings none, in milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy)]
pub struct Clock(Option<fn() -> u64>);

impl Clock {
    /// No clock: such a record gets no timestamp.
    pub const NONE: Self = Self(None);

    /// The system's clock. Not on wasm32-unknown-unknown, which has none.
    #[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
    pub const SYSTEM: Self = Self(Some(system_ms));

    /// A clock of the caller's.
    ///
    /// ```
    /// use proglog::Clock;
    /// assert_eq!(Clock::custom(|| 1_700_000_000_000).now_ms(), Some(1_700_000_000_000));
    /// ```
    #[must_use]
    pub const fn custom(now_ms: fn() -> u64) -> Self {
        Self(Some(now_ms))
    }

    /// The time it tells.
    #[must_use]
    #[inline]
    pub fn now_ms(self) -> Option<u64> {
        self.0.map(|now_ms| now_ms())
    }
}

impl Default for Clock {
    /// [`Clock::SYSTEM`], or [`Clock::NONE`] where there is none.
    fn default() -> Self {
        #[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
        return Self::SYSTEM;
        #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
        Self::NONE
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() {
            "Clock"
        } else {
            "Clock::NONE"
        })
    }
}

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
fn system_ms() -> u64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    // A clock set before 1970 gives 0, which is "no timestamp".
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // `as_millis` divides 128 bits, which takes as long as to read the clock.
    since.as_secs().saturating_mul(1000) + u64::from(since.subsec_millis())
}
