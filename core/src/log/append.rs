//! Appending: one writer at a time, and what it does when a segment is full.

use std::{
    ops::Range,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::Ordering::{Acquire, Release},
    },
    time::Duration,
};

use super::{Segment, SegmentReader, Shared};
use crate::{Backend, Durability, Error, NewRecord, Offset, Result, segment::Batch};

/// So many segments may wait to be sealed: they are looked through when the log is opened after a crash.
pub(super) const UNSEALED_MAX: usize = 16;

/// So many are left to wait when no one asks for a sync, so that their bytes are not written to the disk in the
/// appends' way before they need be.
const UNSEALED_KEPT: usize = 4;

/// Once so much was appended since the last sync, records are put into the file's memory. A sync would also write
/// the space that is prepared there, so where there are many they are not.
const UNSYNCED_BYTES_MAPPED: u64 = 16 << 20;

/// Who appends, holds it.
#[derive(Debug)]
pub(super) struct Writer<B: Backend> {
    active: Segment<B>,
    /// How many bytes were appended since the last sync, if there was one.
    unsynced_bytes: Option<u64>,
    /// When the first of the records was appended that no sync was asked for yet.
    unsynced_since: Option<Duration>,
}

impl<B: Backend> Writer<B> {
    pub(super) fn new(active: Segment<B>) -> Self {
        Self {
            active,
            unsynced_bytes: None,
            unsynced_since: None,
        }
    }

    pub(super) fn active(&mut self) -> &mut Segment<B> {
        &mut self.active
    }

    /// The active segment, for one who has no more use for the writer.
    pub(super) fn into_active(self) -> Segment<B> {
        self.active
    }

    /// Takes another active segment, and gives the one there was.
    pub(super) fn replace(&mut self, active: Segment<B>) -> Segment<B> {
        std::mem::replace(&mut self.active, active)
    }
}

impl<B: Backend> Shared<B> {
    /// Appends records, all or none, and returns once `durability` is kept.
    #[inline]
    pub(super) fn append(
        self: &Arc<Self>,
        records: &[NewRecord<'_>],
        durability: Durability,
    ) -> Result<Range<Offset>> {
        let (offsets, segment) = loop {
            let mut writer = self.writer()?;
            let batch = writer.active.batch(records)?;
            if records.is_empty() {
                return Ok(batch.first..batch.first);
            }
            if !writer.active.has_room_for(&batch) && batch.first > writer.active.base() {
                self.check_fits_index(&batch)?;
                if self.commit.unsealed() < UNSEALED_MAX {
                    let rolled = self.roll(&mut writer);
                    self.poison_if_failed(rolled)?;
                    // Without a worker it is done before the next segment is made.
                    self.wake_worker(|wanted| wanted.sync_new_files = true);
                    if self.commit.unsealed() >= UNSEALED_KEPT {
                        drop(writer);
                        self.seal_soon()?;
                    }
                } else {
                    drop(writer);
                    self.lead().seal_all()?;
                }
                continue;
            }
            self.check_fits_index(&batch)?;
            let mapped = writer
                .unsynced_bytes
                .is_none_or(|bytes| bytes > UNSYNCED_BYTES_MAPPED);
            let appended = writer.active.append_frames(&batch, durability, mapped);
            let offsets = self.poison_if_failed(appended)?;
            self.commit.appended(offsets.end);
            writer.unsynced_bytes = writer.unsynced_bytes.map(|bytes| bytes + batch.bytes);
            if durability == Durability::Synced {
                break (offsets, Arc::clone(writer.active.reader()));
            }
            writer.active.reader().show(offsets.end);
            if let Some((start, bytes)) = writer.active.take_wanted() {
                let segment = Arc::clone(writer.active.reader());
                // Without a worker it is mapped when it is needed.
                self.wake_worker(|wanted| wanted.map = Some((segment, start, bytes)));
            }
            if let Some(interval) = self.options.sync_interval {
                let due = self.sync_due(&mut writer, interval);
                drop(writer);
                if due {
                    self.commit(offsets.end)?;
                }
            }
            return Ok(offsets);
        };
        self.commit(offsets.end)?;
        segment.show(offsets.end);
        Ok(offsets)
    }

    fn check_fits_index(&self, batch: &Batch<'_>) -> Result<()> {
        let (records, entries) = (batch.records(), self.options.index_entries_max());
        if records <= entries {
            return Ok(());
        }
        Err(Error::InvalidArgument(format!(
            "a batch of {records} records is more than an index of {entries} entries holds; \
             append it in parts, or raise index_bytes_max"
        )))
    }

    /// Leaves the active segment to be sealed and begins the next.
    pub(super) fn roll(&self, writer: &mut Writer<B>) -> Result<()> {
        writer.active.flush()?;
        let base = writer.active.next_offset();
        let create = || Segment::create(&self.backend, base, &self.options);
        let mut next = self.make_new_files(create)?;
        next.not_before(writer.active.timestamp_ms_min());
        let view = self.view.load();
        let rolled = view.rolled(next.reader());
        // Before it stands in the way of the offsets after it.
        writer.active.reader().show(base);
        let old = writer.replace(next);
        // Before it can be sealed, and then be forgotten in the view that readers have.
        self.view.store(Arc::new(rolled));
        self.commit.leave_unsealed(view.active(), &old);
        Ok(())
    }

    /// Finds the timestamp of the last record, than which the next one's may not be earlier. Records
    /// without one are passed over, though not for ever.
    pub(super) fn continue_timestamps(&self, writer: &mut Writer<B>) {
        const RECORDS_READ_MAX: u64 = 64;
        let view = self.view.load();
        let next = view.next_offset();
        let from = Offset(next.0.saturating_sub(RECORDS_READ_MAX)).max(view.lowest());
        let found = (from.0..next.0).rev().find_map(|offset| {
            let slot = view.slot_of(Offset(offset))?;
            let segment = self.open_segment(&view, slot, false).ok()?;
            segment.read(Offset(offset)).ok()?.timestamp_ms()
        });
        writer.active.not_before(found.unwrap_or_default());
    }

    /// Whether the records that were appended with a weaker promise have to be synced now, by the
    /// appender.
    fn sync_due(self: &Arc<Self>, writer: &mut Writer<B>, interval: Duration) -> bool {
        let Some(now) = self.now() else { return false };
        match writer.unsynced_since {
            None => {
                writer.unsynced_since = Some(now);
                !self.wake_worker(|wanted| wanted.sync_at = Some(now + interval))
                    && interval.is_zero()
            }
            Some(since) => !self.worker.is_employed() && now.saturating_sub(since) >= interval,
        }
    }

    /// The time, on a clock that only goes on where there is one.
    pub(super) fn now(&self) -> Option<Duration> {
        #[cfg(not(target_family = "wasm"))]
        {
            use std::{sync::LazyLock, time::Instant};
            static START: LazyLock<Instant> = LazyLock::new(Instant::now);
            Some(START.elapsed())
        }
        // A sandbox has none but what its host gives it.
        #[cfg(target_family = "wasm")]
        self.options.clock.now_ms().map(Duration::from_millis)
    }

    /// Hands what waits in the buffer to the operating system.
    pub(super) fn flush(&self) -> Result<()> {
        let mut writer = self.writer()?;
        let flushed = writer.active.flush();
        self.poison_if_failed(flushed)
    }

    /// The offset before which a sync makes all durable that there is now.
    pub(super) fn next_to_sync(&self) -> Result<Offset> {
        let mut writer = self.writer()?;
        // Also if it turns out that all is durable already.
        writer.unsynced_since = None;
        Ok(writer.active.next_offset())
    }

    /// Flushes, and tells what a sync then makes durable.
    pub(super) fn flush_for_sync(&self) -> Result<(Arc<SegmentReader<B::File>>, Offset)> {
        let mut writer = self.writer()?;
        writer.active.flush()?;
        writer.unsynced_since = None;
        writer.unsynced_bytes = Some(0);
        let next = writer.active.next_offset();
        Ok((Arc::clone(writer.active.reader()), next))
    }

    /// The writer, if there is nothing against appending.
    #[inline]
    pub(super) fn writer(&self) -> Result<MutexGuard<'_, Writer<B>>> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        let writer = self.writer.lock().unwrap_or_else(|poisoned| {
            let cause = "a thread panicked while appending".to_owned();
            let _ = self.poison.set(cause);
            poisoned.into_inner()
        });
        self.check_poisoned()?;
        if self.closed.load(Acquire) {
            return Err(Error::Closed);
        }
        Ok(writer)
    }

    /// The writer, come what may.
    pub(super) fn writer_anyway(&self) -> MutexGuard<'_, Writer<B>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells how far the log is durable after it was cut or begun anew.
    pub(super) fn durable_is(&self, next: Offset) {
        self.durable.store(next.0, Release);
    }
}
