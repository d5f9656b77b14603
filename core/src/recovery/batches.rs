//! Which batches of a scan are whole.

use super::{End, Scanned};
use crate::{Offset, record::Layout, report::TornTail};

/// A state of the scan to go back to.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    position: u64,
    next: Offset,
    entries: usize,
    records: u64,
    unchecked_records: u64,
    damage: usize,
}

impl Mark {
    pub(super) fn of(scanned: &Scanned) -> Self {
        Self {
            position: scanned.end,
            next: scanned.next,
            entries: scanned.entries.len(),
            records: scanned.records,
            unchecked_records: scanned.unchecked_records,
            damage: scanned.damage.len(),
        }
    }

    /// Makes all from here on a torn tail: the records in it belong to a batch that is not whole.
    pub(super) fn cut(self, scanned: &mut Scanned, base: Offset, length: u64) {
        scanned.torn_tail = Some(TornTail {
            segment: base,
            position: self.position,
            bytes: length - self.position,
            batch_records: scanned.records - self.records,
            zeros: false,
            sealed: false,
        });
        scanned.end = self.position;
        scanned.next = self.next;
        scanned.entries.truncate(self.entries);
        scanned.records = self.records;
        scanned.unchecked_records = self.unchecked_records;
        scanned.damage.truncate(self.damage);
        scanned.ends_in_batch = false;
    }
}

/// Follows the batches of a scan, to tell at its end from where on none is whole.
#[derive(Default)]
pub(super) struct Batches {
    /// The batch of which more records are to come: where it starts, and how many.
    pub(super) open: Option<(Mark, u32)>,
    /// Bad bytes, or the start of the batch they stand in, as long as all that follows them may be of
    /// the batch they stand in: then they are what a power cut leaves of one unsynced write.
    holed: Option<Hole>,
}

struct Hole {
    mark: Mark,
    /// The first record that is lost.
    first: Offset,
    /// The offset after the last.
    next: Offset,
}

impl Batches {
    pub(super) fn record(&mut self, layout: &Layout, before: &Scanned) {
        let continues = self
            .open
            .filter(|&(_, remaining)| remaining == layout.batch_remaining);
        let start = continues.map_or_else(|| Mark::of(before), |(mark, _)| mark);
        self.open = layout
            .batch_remaining
            .checked_sub(1)
            .map(|remaining| (start, remaining));
        if self.open.is_none()
            && self
                .holed
                .as_ref()
                .is_some_and(|h| h.next <= layout.batch_first())
        {
            // A later batch is whole, so the bytes before it were whole once.
            self.holed = None;
        }
    }

    pub(super) fn damage(&mut self, before: Mark, next: Offset, end: End) {
        let mark = self.open.take().map_or(before, |(mark, _)| mark);
        let first = before.next;
        match (&mut self.holed, end) {
            (_, End::MayBeTorn { vouched }) if first < vouched => self.holed = None,
            (Some(hole), _) => hole.next = next,
            (holed, _) => *holed = Some(Hole { mark, first, next }),
        }
    }

    pub(super) fn incomplete_from(self, vouched: Offset) -> Option<Mark> {
        let hole = self
            .holed
            .filter(|hole| hole.first >= vouched)
            .map(|hole| hole.mark);
        let open = self
            .open
            .map(|(mark, _)| mark)
            .filter(|mark| mark.next >= vouched);
        hole.or(open)
    }
}
