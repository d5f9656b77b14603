//! Leaving offsets out.

use std::sync::{Arc, MutexGuard};

use super::{Log, Segment, Shared, append::Writer, commit::Leading};
use crate::{
    Backend, Error, Gap, GapCause, Offset, Options, Result, error::Thin,
    record::GAP_FRAME_BYTES_MAX, segment::make_of_gap,
};

/// The most offsets of a gap that stands among records. Each takes an entry of the index, so a gap of more is a segment
/// of its own.
const OFFSETS_AMONG_RECORDS_MAX: u64 = 4096;

/// Whether a gap is left out by a segment that tells of nothing else.
pub(super) fn is_wide(gap: Gap, options: &Options) -> bool {
    gap.offsets() > OFFSETS_AMONG_RECORDS_MAX.min(options.index_entries_max())
}

impl<B: Backend> Log<B> {
    /// Leaves offsets out: the next append gets `next`. Those between are [not there](Gap), by word of the log: reading
    /// one gives [`Error::Gap`], iterating steps over them, and they are no damage. It is for copies of logs whose records
    /// keep their offsets.
    ///
    /// Up to 4,096 offsets are left out as a record is appended: the promise of [`Options::durability`] is kept when it
    /// returns, and each takes an entry of the index. More, or more than an index has room for, are a segment of their
    /// own; that takes some syncs, and is durable when it returns. In a crash all are left out or none.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] when `next` is below the next offset; [`Error::Io`], which poisons the log;
    /// [`Error::ReadOnly`], [`Error::Poisoned`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Error, Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append("zero")?;
    /// log.skip_to(Offset(3))?;
    /// assert_eq!(log.append("three")?, Offset(3));
    /// assert!(matches!(log.read(Offset(2)), Err(Error::Gap { next: Offset(3), .. })));
    /// assert_eq!(log.scan(..).count(), 2);
    /// assert!(log.verify()?.is_sound());
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn skip_to(&self, next: Offset) -> Result<()> {
        self.skip_to_because(next, GapCause::Skipped)
    }

    /// As [`Log::skip_to`], and says why the offsets are not there: so that a copy of a log has its gaps too.
    ///
    /// # Errors
    ///
    /// Those of [`Log::skip_to`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// use proglog::{Error, GapCause};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.skip_to_because(Offset(3), GapCause::Compacted)?;
    /// assert!(matches!(log.read(Offset(2)), Err(Error::Gap { cause: GapCause::Compacted, .. })));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn skip_to_because(&self, next: Offset, cause: GapCause) -> Result<()> {
        Ok(self.shared.skip_to(next, cause)?)
    }
}

impl<B: Backend> Shared<B> {
    pub(super) fn skip_to(self: &Arc<Self>, next: Offset, cause: GapCause) -> Thin<()> {
        self.check_writable()?;
        loop {
            let mut writer = self.writer()?;
            let Some(gap) = gap_to(next, cause, writer.active())? else {
                return Ok(());
            };
            if is_wide(gap, &self.options) {
                drop(writer);
                if self.skip_far(next, cause)? {
                    return Ok(());
                }
                continue;
            }
            let bytes_max = GAP_FRAME_BYTES_MAX as u64;
            if let Some(writer) = self.with_room(writer, gap.offsets(), bytes_max)? {
                return self.append_gap(writer, gap);
            }
        }
    }

    /// Appends what tells of a gap, as a record.
    fn append_gap(self: &Arc<Self>, mut writer: MutexGuard<'_, Writer<B>>, gap: Gap) -> Thin<()> {
        let durability = self.options.durability;
        let mapped = writer.maps();
        let before = writer.active().store_bytes();
        let appended = writer.active().append_gap(gap, durability, mapped);
        let offsets = self.poison_if_failed(appended)?;
        let bytes = writer.active().store_bytes() - before;
        self.keep_promise(writer, offsets, bytes, durability)
            .map(drop)
    }

    /// Leaves out what is a segment of its own. `false`: others appended meanwhile, so that it is not.
    fn skip_far(&self, next: Offset, cause: GapCause) -> Thin<bool> {
        let leading = self.lead();
        let mut writer = self.writer()?;
        let gap = gap_to(next, cause, writer.active())?;
        let Some(gap) = gap.filter(|&gap| is_wide(gap, &self.options)) else {
            return Ok(false);
        };
        let skipped = self.begin_after(&leading, &mut writer, gap);
        self.poison_if_failed(skipped).map(|()| true)
    }

    /// A segment tells of the gap, and the next one begins. All before it is sealed first, durably: it is told by that
    /// segment's index, which has an entry from the beginning, that those before it were.
    fn begin_after(&self, leading: &Leading<'_, B>, writer: &mut Writer<B>, gap: Gap) -> Thin<()> {
        writer.active().write_out()?;
        leading.seal_all()?;
        writer.active().seal()?;
        make_of_gap(&self.backend, gap)?;
        self.roll_past(writer, Some(gap))?;
        self.durable_is(gap.next());
        Ok(())
    }
}

/// The gap from where a segment ends to `next`; none if it ends there.
fn gap_to<B: Backend>(next: Offset, cause: GapCause, active: &Segment<B>) -> Thin<Option<Gap>> {
    let given = active.next_offset();
    if next < given {
        return Err(Error::invalid(format!(
            "offset {next} was given already; the next one is {given}"
        )));
    }
    if next.0 == u64::MAX {
        return Err(Error::invalid(format!(
            "offset {next} leaves none for a record; give a lower one"
        )));
    }
    Ok((given < next).then(|| Gap::new(given, next, cause)))
}
