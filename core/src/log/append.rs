//! Appending: one writer at a time, and what it does when a segment is full.

use std::{
    ops::Range,
    slice,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::Ordering::{Acquire, Release},
    },
    time::Duration,
};

use super::{
    Segment, SegmentReader, Shared,
    producers::{Admitted, Numbered, Producers},
};
use crate::{
    AppendOptions, Backend, Durability, Error, Gap, NewRecord, Offset, error::Thin,
    segment::DraftedBatch,
};

/// So many segments may wait to be sealed: they are looked through when the log is opened after a crash.
pub(super) const UNSEALED_MAX: usize = 16;

/// So many are left to wait when no one asks for a sync, so that their bytes are not written to the disk in the
/// appends' way before they need be.
const UNSEALED_KEPT: usize = 4;

/// Once so much was appended since the last sync, records are put into the file's memory. A sync would also write
/// the space that is prepared there, so where there are many they are not.
const UNSYNCED_BYTES_MAPPED: u64 = 16 << 20;

/// The writer after an append, the offsets of what was appended, and the bytes of its frames.
type Appended<'a, B> = (MutexGuard<'a, Writer<B>>, Range<Offset>, u64);

/// Who appends, holds it.
#[derive(Debug)]
pub(super) struct Writer<B: Backend> {
    active: Segment<B>,
    /// How many bytes were appended since the last sync, if there was one.
    unsynced_bytes: Option<u64>,
    /// When the first of the records was appended that no sync was asked for yet.
    unsynced_since: Option<Duration>,
    /// Who appended what last, once someone wanted to know.
    producers: Option<Box<Producers>>,
    /// How often records were removed from the end.
    removals: u64,
}

impl<B: Backend> Writer<B> {
    pub(super) fn new(active: Segment<B>) -> Self {
        Self {
            active,
            unsynced_bytes: None,
            unsynced_since: None,
            producers: None,
            removals: 0,
        }
    }

    pub(super) fn active(&mut self) -> &mut Segment<B> {
        &mut self.active
    }

    /// The active segment, for one who has no more use for the writer.
    pub(super) fn into_active(self) -> Segment<B> {
        self.active
    }

    /// Whether frames may be put into the file's memory.
    #[inline]
    pub(super) fn maps(&self) -> bool {
        self.unsynced_bytes
            .is_none_or(|bytes| bytes > UNSYNCED_BYTES_MAPPED)
    }

    /// Who appended what last, if that is known.
    pub(super) fn producers(&mut self) -> Option<&mut Producers> {
        self.producers.as_deref_mut()
    }

    pub(super) fn removals(&self) -> u64 {
        self.removals
    }

    /// Learns who appended what last, of records none of which was removed since there were so many removals.
    pub(super) fn producers_are(&mut self, found: Producers, removals: u64) {
        if self.removals == removals {
            self.producers = Some(Box::new(found));
        }
    }

    /// Remembers that records of a producer were appended.
    fn note(&mut self, numbered: Option<&Numbered>, first: Offset) {
        if let (Some(numbered), Some(producers)) = (numbered, &mut self.producers) {
            producers.note(numbered, first);
        }
    }

    /// Takes an active segment from which records were removed, or before which.
    pub(super) fn replace_after_removal(&mut self, active: Segment<B>) {
        self.replace(active);
        self.producers = None;
        self.removals += 1;
    }

    /// Takes another active segment, and gives the one there was.
    pub(super) fn replace(&mut self, active: Segment<B>) -> Segment<B> {
        std::mem::replace(&mut self.active, active)
    }
}

impl<B: Backend> Shared<B> {
    /// Appends a record, and returns once what is promised is kept.
    pub(super) fn append(
        self: &Arc<Self>,
        record: &NewRecord<'_>,
        options: AppendOptions,
    ) -> Thin<Offset> {
        let offsets = self.append_all(slice::from_ref(record), options)?;
        Ok(offsets.start)
    }

    /// Appends records, all or none, and returns once what is promised is kept.
    // Not made anew for every kind of iterator that records come from.
    #[inline(never)]
    pub(super) fn append_batch(
        self: &Arc<Self>,
        records: &[NewRecord<'_>],
        options: AppendOptions,
    ) -> Thin<Range<Offset>> {
        self.append_all(records, options)
    }

    // Inlined, so that of one record it is known that it is one.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    fn append_all(
        self: &Arc<Self>,
        records: &[NewRecord<'_>],
        options: AppendOptions,
    ) -> Thin<Range<Offset>> {
        if options.expected_next_offset.is_some()
            || records.iter().any(|record| record.producer.is_some())
        {
            return self.append_if_admitted(records, options);
        }
        let durability = options.durability.unwrap_or(self.options.durability);
        loop {
            let writer = self.writer()?;
            if let Some((writer, offsets, bytes)) = self.append_by(writer, records, durability)? {
                return self.keep_promise(writer, offsets, bytes, durability);
            }
        }
    }

    /// As [`Shared::append_batch`], of records of a producer, or such as are expected to come somewhere.
    #[cold]
    #[inline(never)]
    fn append_if_admitted(
        self: &Arc<Self>,
        records: &[NewRecord<'_>],
        options: AppendOptions,
    ) -> Thin<Range<Offset>> {
        let numbered = Numbered::of(records.iter().map(|record| record.producer))?;
        let durability = options.durability.unwrap_or(self.options.durability);
        loop {
            let writer = match self.admit(numbered.as_ref(), options, durability)? {
                Admitted::Now(writer) => writer,
                Admitted::Before(offsets) => return Ok(offsets),
            };
            let appended = self.append_by(writer, records, durability)?;
            if let Some((mut writer, offsets, bytes)) = appended {
                writer.note(numbered.as_ref(), offsets.start);
                return self.keep_promise(writer, offsets, bytes, durability);
            }
        }
    }

    /// Appends records, and gives the writer back, their offsets and how many bytes they take. `None` if there was
    /// no room, and is now or will be.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    fn append_by<'a>(
        self: &'a Arc<Self>,
        mut writer: MutexGuard<'a, Writer<B>>,
        records: &[NewRecord<'_>],
        durability: Durability,
    ) -> Thin<Option<Appended<'a, B>>> {
        let batch = writer.active.batch(records)?;
        if records.is_empty() {
            return Ok(Some((writer, batch.first..batch.first, 0)));
        }
        if !writer.active.has_room_for(batch.records(), batch.bytes_max) {
            let Some(with_room) = self.with_room(writer, batch.records(), batch.bytes())? else {
                return Ok(None);
            };
            writer = with_room;
        }
        let before = writer.active.store_bytes();
        let mapped = writer.maps();
        let appended = writer.active.append_frames(&batch, durability, mapped);
        let offsets = self.poison_if_failed(appended)?;
        let bytes = writer.active.store_bytes() - before;
        Ok(Some((writer, offsets, bytes)))
    }

    /// As [`Shared::append_batch`], of what [`Drafts`](crate::Drafts) wrote.
    pub(super) fn append_drafts(
        self: &Arc<Self>,
        drafts: &mut [u8],
        options: AppendOptions,
    ) -> Thin<Range<Offset>> {
        let durability = options.durability.unwrap_or(self.options.durability);
        let mut writer = self.writer()?;
        if drafts.is_empty() {
            drop(writer);
            return self.append_batch(&[], options);
        }
        let mut batch = DraftedBatch::read(drafts, &self.options)?;
        // They spare hosts of a module a copy. What finishes them is code that a browser would have to load.
        if cfg!(target_os = "unknown") {
            drop(writer);
            return self.append_batch(&batch.decode().records(), options);
        }
        let numbered = Numbered::of(batch.producers())?;
        let is_free = numbered.is_none() && options.expected_next_offset.is_none();
        let offsets = loop {
            if !is_free {
                drop(writer);
                writer = match self.admit(numbered.as_ref(), options, durability)? {
                    Admitted::Now(writer) => writer,
                    Admitted::Before(offsets) => return Ok(offsets),
                };
            }
            let active = &writer.active;
            if !batch.can_be(active.next_offset(), active.timestamp_ms_min()) {
                drop(writer);
                return self.append_batch(&batch.decode().records(), options);
            }
            let Some(with_room) = self.with_room(writer, batch.records(), batch.bytes())? else {
                writer = self.writer()?;
                continue;
            };
            writer = with_room;
            let appended = writer.active.append_drafts(&mut batch, durability);
            break self.poison_if_failed(appended)?;
        };
        writer.note(numbered.as_ref(), offsets.start);
        self.keep_promise(writer, offsets, batch.bytes(), durability)
    }

    /// The writer, if its active segment has room for a batch; otherwise the next one was begun, or is about to
    /// be.
    #[cold]
    pub(super) fn with_room<'a>(
        self: &'a Arc<Self>,
        mut writer: MutexGuard<'a, Writer<B>>,
        records: u64,
        bytes: u64,
    ) -> Thin<Option<MutexGuard<'a, Writer<B>>>> {
        self.check_fits_index(records)?;
        let active = &writer.active;
        if active.has_room_for(records, bytes) || active.next_offset() == active.base() {
            return Ok(Some(writer));
        }
        if self.commit.unsealed() < UNSEALED_MAX {
            let rolled = self.roll(&mut writer);
            self.poison_if_failed(rolled)?;
            // Without a worker it is done before the next segment is made.
            self.wake_worker(|wanted| wanted.sync_new_files = true);
            drop(writer);
            if self.commit.unsealed() >= UNSEALED_KEPT {
                self.seal_soon()?;
            }
            self.retain_soon()?;
        } else {
            drop(writer);
            self.lead().seal_all()?;
        }
        Ok(None)
    }

    /// Returns once what was just appended is as durable as was asked.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    pub(super) fn keep_promise(
        self: &Arc<Self>,
        mut writer: MutexGuard<'_, Writer<B>>,
        offsets: Range<Offset>,
        bytes: u64,
        durability: Durability,
    ) -> Thin<Range<Offset>> {
        self.commit.appended(offsets.end);
        if let Some(unsynced) = &mut writer.unsynced_bytes {
            *unsynced += bytes;
        }
        let segment = writer.active.reader();
        if durability == Durability::Synced {
            let segment = Arc::clone(segment);
            drop(writer);
            self.commit(offsets.end)?;
            self.show(&segment, offsets.end);
            return Ok(offsets);
        }
        segment.show(offsets.end);
        if let Some((start, bytes)) = writer.active.take_wanted() {
            let segment = Arc::clone(writer.active.reader());
            // Without a worker it is mapped when it is needed.
            self.wake_worker(|wanted| wanted.map = Some((segment, start, bytes)));
        }
        if let Some(interval) = self.options.sync_interval
            && self.sync_due(&mut writer, interval)
        {
            drop(writer);
            self.subscribers.wake();
            self.commit(offsets.end)?;
            return Ok(offsets);
        }
        // Not while others wait for it.
        drop(writer);
        self.subscribers.wake();
        Ok(offsets)
    }

    /// Shows readers the records of a segment before `next`, and wakes who waits for them.
    #[inline]
    pub(super) fn show(&self, segment: &SegmentReader<B::File>, next: Offset) {
        if segment.show(next) {
            self.subscribers.wake();
        }
    }

    /// Returns once what others appended before `end` is as durable as was asked, and can be read.
    pub(super) fn keep_promise_of_before(
        self: &Arc<Self>,
        mut writer: MutexGuard<'_, Writer<B>>,
        end: Offset,
        durability: Durability,
    ) -> Thin<()> {
        let segment = Arc::clone(writer.active.reader());
        match durability {
            Durability::Synced => {
                drop(writer);
                self.commit(end)?;
            }
            Durability::Written => {
                let flushed = writer.active.write_out();
                self.poison_if_failed(flushed)?;
            }
            Durability::Buffered => {}
        }
        self.show(&segment, end);
        Ok(())
    }

    fn check_fits_index(&self, records: u64) -> Thin<()> {
        let entries = self.options.index_entries_max();
        if records <= entries {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a batch of {records} records is more than an index of {entries} entries holds; \
             append it in parts, or raise index_bytes_max"
        )))
    }

    /// Leaves the active segment to be sealed and begins the next.
    pub(super) fn roll(&self, writer: &mut Writer<B>) -> Thin<()> {
        self.roll_past(writer, None)
    }

    /// As [`Shared::roll`], past a gap of which a segment between the two was made to tell.
    pub(super) fn roll_past(&self, writer: &mut Writer<B>, gap: Option<Gap>) -> Thin<()> {
        let base = gap.map_or(writer.active.next_offset(), |gap| gap.next());
        let prepared = self.reserve.take();
        writer.active.write_out()?;
        let mut next = self
            .make_new_files(|| Segment::create_in(&self.backend, base, prepared, &self.options))?;
        next.not_before(writer.active.timestamp_ms_min());
        let view = self.view.load();
        let rolled = view.rolled(gap.map(|gap| gap.last), next.reader());
        // Before it stands in the way of the offsets after it.
        writer.active.reader().show(writer.active.next_offset());
        let old = writer.replace(next);
        // Before it can be sealed, and then be forgotten in the view that readers have.
        self.view.store(Arc::new(rolled));
        self.subscribers.wake();
        self.commit.leave_unsealed(view.active(), &old);
        Ok(())
    }

    /// Finds the timestamp of the last record, than which the next one's may not be earlier. Records
    /// without one are passed over, though not for ever.
    pub(super) fn continue_timestamps(&self, writer: &mut Writer<B>) -> Thin<()> {
        const RECORDS_READ_MAX: u64 = 64;
        let view = self.view.load();
        let (lowest, mut end) = (view.lowest(), view.next_offset());
        for _ in 0..RECORDS_READ_MAX {
            if end <= lowest {
                break;
            }
            let last = Offset(end.0 - 1);
            end = match self.read_as_it_is(&view, last) {
                Ok(record) => match record.timestamp_ms() {
                    Some(timestamp_ms) => {
                        writer.active.not_before(timestamp_ms);
                        break;
                    }
                    None => last,
                },
                Err(e) if let Error::Gap { first, .. } = *e => first,
                Err(e) if e.is_not_yet() => return Err(e),
                Err(_) => last,
            };
        }
        Ok(())
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

    /// The offset before which a sync makes all durable that there is now.
    pub(super) fn next_to_sync(&self) -> Thin<Offset> {
        let mut writer = self.writer()?;
        // Also if it turns out that all is durable already.
        writer.unsynced_since = None;
        Ok(writer.active.next_offset())
    }

    /// Flushes, and tells what a sync then makes durable.
    pub(super) fn flush_for_sync(&self) -> Thin<(Arc<SegmentReader<B::File>>, Offset)> {
        let mut writer = self.writer()?;
        writer.active.write_out()?;
        writer.unsynced_since = None;
        writer.unsynced_bytes = Some(0);
        let next = writer.active.next_offset();
        Ok((Arc::clone(writer.active.reader()), next))
    }

    /// Has the disk take back some of what was prepared, if there is any: in the active segment, or else a file.
    pub(super) fn give_back_prepared(&self) -> Thin<bool> {
        let is_given_back = self.writer()?.active.give_back_prepared()?;
        Ok(is_given_back || self.reserve.give_back_last(&self.backend))
    }

    /// The writer, if there is nothing against appending.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    pub(super) fn writer(&self) -> Thin<MutexGuard<'_, Writer<B>>> {
        if self.read_only {
            return Err(Error::ReadOnly.into());
        }
        let writer = self.writer.lock().unwrap_or_else(|poisoned| {
            self.appender_panicked();
            poisoned.into_inner()
        });
        self.check_poisoned()?;
        if self.closed.load(Acquire) {
            return Err(Error::Closed.into());
        }
        Ok(writer)
    }

    #[cold]
    fn appender_panicked(&self) {
        self.poison_with("a thread panicked while appending".to_owned());
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
