//! Removing records: whole segments from the front, any number from the end, or all.

use std::sync::Arc;

use super::{Log, Shared, append::Writer, commit::Leading, skip::is_wide, view::View};
#[cfg(doc)]
use crate::Options;
use crate::{
    Backend, Durability, Error, Gap, Offset, Result,
    error::Thin,
    record::GAP_FRAME_BYTES_MAX,
    segment::{Segment, make_of_gap, remove_files, remove_index, remove_store, sync_directory},
};

impl<B: Backend> Log<B> {
    /// Removes the segments all of whose records are below `offset`, lowest first: whole segments, so
    /// that some records below it may remain. Offsets go on where they were, also in a log that is empty
    /// afterwards. Durable when it returns; in a crash some of the segments may remain.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] when `offset` is above the next offset; [`Error::Io`], which poisons
    /// the log; [`Error::ReadOnly`], [`Error::Poisoned`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new().segment_bytes_max(100))?;
    /// for n in 0..10 {
    ///     log.append(&format!("a record of some {n} bytes"))?;
    /// }
    /// log.truncate_before(Offset(7))?;
    /// assert!(log.lowest_offset() > Offset(0) && log.lowest_offset() <= Offset(7));
    /// assert_eq!(log.next_offset(), Offset(10));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn truncate_before(&self, offset: Offset) -> Result<()> {
        Ok(self.shared.truncate_before(offset)?)
    }

    /// Removes every record above `offset`; the next append gets the offset after it. Durable when it
    /// returns; in a crash a part of the removed records may remain, from the lowest on. Where `offset` is [not
    /// there](Gap), the log may also end before that gap then.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] when `offset` is further than one below the lowest; [`Error::Io`],
    /// which poisons the log; [`Error::ReadOnly`], [`Error::Poisoned`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append_batch(["a", "b", "c"])?;
    /// log.truncate_after(Offset(0))?;
    /// assert_eq!(log.append("d")?, Offset(1));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn truncate_after(&self, offset: Offset) -> Result<()> {
        Ok(self.shared.truncate_after(offset)?)
    }

    /// Removes every record; the next append gets [`Options::initial_offset`]. Durable when it returns;
    /// in a crash a part of the records may remain, from the lowest on.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], which poisons the log; [`Error::ReadOnly`], [`Error::Poisoned`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Log, MemoryBackend, Offset, Options};
    /// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
    /// log.append_batch(["a", "b"])?;
    /// log.reset()?;
    /// assert_eq!(log.append("c")?, Offset(0));
    /// # Ok::<(), proglog::Error>(())
    /// ```
    pub fn reset(&self) -> Result<()> {
        Ok(self.shared.reset()?)
    }
}

impl<B: Backend> Shared<B> {
    pub(super) fn truncate_before(&self, offset: Offset) -> Thin<()> {
        self.check_writable()?;
        let leading = self.lead();
        let mut writer = self.writer()?;
        if offset > writer.active().next_offset() {
            return Err(self.view.load().out_of_range(offset));
        }
        let truncated = self.remove_segments_before(&leading, &mut writer, offset);
        self.poison_if_failed(truncated)
    }

    pub(super) fn remove_segments_before(
        &self,
        leading: &Leading<'_, B>,
        writer: &mut Writer<B>,
        offset: Offset,
    ) -> Thin<()> {
        let next = writer.active().next_offset();
        if offset == next && next > writer.active().base() {
            // Appends need a segment to go to before their present one is removed. Others that wait to be sealed are
            // first: there may be no more of them than recovery looks for.
            leading.seal_all()?;
            self.roll(writer)?;
        }
        leading.seal_all()?;
        sync_directory(&self.backend)?;
        let view = self.view.load_full();
        let removed = view
            .slots()
            .iter()
            .take_while(|slot| slot.next.is_some_and(|next| next <= offset))
            .count();
        let _closed = self.opened.close();
        self.view.store(Arc::new(view.without_first(removed)));
        remove_files(
            &self.backend,
            view.slots()[..removed].iter().map(|slot| slot.base),
        )
    }

    pub(super) fn truncate_after(&self, offset: Offset) -> Thin<()> {
        self.check_writable()?;
        let leading = self.lead();
        let mut writer = self.writer()?;
        let next = offset.next();
        let view = self.view.load_full();
        if next < view.lowest() {
            return Err(view.out_of_range(offset));
        }
        if next >= writer.active().next_offset() {
            return Ok(());
        }
        let truncated = self.truncate_to(&leading, &mut writer, &view, next);
        self.poison_if_failed(truncated)
    }

    fn truncate_to(
        &self,
        leading: &Leading<'_, B>,
        writer: &mut Writer<B>,
        view: &View<B>,
        next: Offset,
    ) -> Thin<()> {
        writer.active().write_out()?;
        leading.seal_all()?;
        writer.active().seal()?;
        // Offsets that are not there are so by word of a frame, which cannot be cut: it goes, and another tells of those
        // that stay.
        let gap = self.gap_around(writer, view, next)?;
        let kept = gap.map_or(next, |gap| gap.first);
        self.durable_is(self.durable().min(next));
        self.subscribers.truncated_to(next);
        // Scans that are at it end there.
        view.show_no_more(next);
        let closed = self.opened.close();
        // Highest first, so that what a crash leaves has no gap.
        let mut bases = view.sealed_bases().to_vec();
        let mut last = writer.active().base();
        let mut removed = Vec::new();
        while last >= kept
            && let Some(below) = bases.pop()
        {
            removed.push(last);
            last = below;
        }
        remove_files(&self.backend, removed)?;
        let mut opened = Segment::cut(&self.backend, last, kept.max(last), &self.options)?;
        let first = opened.segment.next_offset();
        let left = gap.map(|gap| Gap::new(gap.first.max(first), next, gap.cause));
        let (wide, among_records) = match left {
            Some(gap) if is_wide(gap, &self.options) => (Some(gap), None),
            left => (None, left),
        };
        let begin = among_records.map_or(next, |gap| gap.first);
        let takes_it = among_records.is_none_or(|gap| {
            let bytes_max = GAP_FRAME_BYTES_MAX as u64;
            opened.segment.has_room_for(gap.offsets(), bytes_max)
        });
        if begin > first || !opened.takes_appends || !takes_it {
            opened.segment.seal()?;
            bases.push(last);
            if let Some(gap) = wide {
                make_of_gap(&self.backend, gap)?;
                bases.push(gap.last);
            }
            opened.segment = Segment::create(&self.backend, begin, &self.options)?;
            sync_directory(&self.backend)?;
        }
        let mut active = opened.segment;
        if let Some(gap) = among_records {
            active.append_gap(gap, Durability::Synced, false)?;
            active.sync()?;
            active.reader().show(next);
        }
        self.view
            .store(Arc::new(View::new(&bases, active.reader())));
        self.subscribers.truncated_to(next);
        writer.replace_after_removal(active);
        drop(closed);
        self.continue_timestamps(writer)
    }

    /// The gap that the offset before `next` is one of, and `next` too.
    fn gap_around(
        &self,
        writer: &mut Writer<B>,
        view: &View<B>,
        next: Offset,
    ) -> Thin<Option<Gap>> {
        if next == view.lowest() {
            return Ok(None);
        }
        let last = Offset(next.0 - 1);
        let mut found = self.read_as_it_is(view, last);
        if let Err(e) = &found
            && let Error::Corrupt { segment, .. } = **e
        {
            // Perhaps it is the index that is wrong.
            match view.slot_of(segment).filter(|slot| slot.next.is_some()) {
                Some(slot) => drop(self.open_segment(slot, true)?),
                None => drop(self.prove_writer(writer)?),
            }
            found = self.read_as_it_is(view, last);
        }
        Ok(match found {
            Err(e) => e.gap().filter(|gap| gap.next() > next),
            Ok(_) => None,
        })
    }

    pub(super) fn reset(&self) -> Thin<()> {
        self.check_writable()?;
        let leading = self.lead();
        let mut writer = self.writer()?;
        let reset = self.remove_and_begin(&leading, &mut writer);
        self.poison_if_failed(reset)
    }

    fn remove_and_begin(&self, leading: &Leading<'_, B>, writer: &mut Writer<B>) -> Thin<()> {
        // Those not sealed yet first are: else a crash could leave them torn with others after them.
        writer.active().write_out()?;
        leading.seal_all()?;
        let first = self.options.initial_offset;
        let _closed = self.opened.close();
        let view = self.view.load_full();
        self.subscribers.truncated_to(first);
        view.show_no_more(Offset(0));
        let lowest = view.lowest();
        let others = view.slots()[1..].iter().rev();
        remove_files(&self.backend, others.map(|slot| slot.base))?;
        // Its index stays until there is a store again: so readers know that there will be.
        remove_store(&self.backend, lowest)?;
        self.durable_is(first);
        let active = Segment::create(&self.backend, first, &self.options)?;
        sync_directory(&self.backend)?;
        if lowest != first {
            remove_index(&self.backend, lowest)?;
        }
        self.view.store(Arc::new(View::new(&[], active.reader())));
        self.subscribers.truncated_to(first);
        writer.replace_after_removal(active);
        Ok(())
    }
}
