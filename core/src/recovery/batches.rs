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
    /// Whether a batch goes on here.
    in_batch: bool,
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
            in_batch: false,
        }
    }

    pub(super) fn drops_records(self, scanned: &Scanned) -> bool {
        self.next < scanned.next
    }

    /// Makes all from here on a torn tail: the records in it belong to a batch that is not whole, or
    /// stand after space that was never written.
    pub(super) fn cut(self, scanned: &mut Scanned, base: Offset, length: u64) {
        scanned.torn_tail = Some(TornTail {
            segment: base,
            position: self.position,
            bytes: length - self.position,
            records: scanned.records - self.records,
            zeros: false,
            sealed: false,
        });
        scanned.end = self.position;
        scanned.next = self.next;
        scanned.entries.truncate(self.entries);
        scanned.records = self.records;
        scanned.unchecked_records = self.unchecked_records;
        scanned.damage.truncate(self.damage);
        scanned.forget_gaps_after(self.position);
        scanned.ends_in_batch = self.in_batch;
    }
}

/// Follows the batches of a scan, to tell at its end from where on none is whole.
pub(super) struct Batches {
    /// From here on no index entry vouches for anything; `None` in a sealed segment, where all counts.
    vouched: Option<Offset>,
    /// Where that is. Nothing before it is ever cut: of a batch that was cut on purpose the index vouches
    /// for what is left, also while its other bytes are going.
    vouched_mark: Option<Mark>,
    /// The batch of which more records are to come: where it starts, and how many.
    pub(super) open: Option<(Mark, u32)>,
    /// Bad bytes, or the start of the batch they stand in, as long as all that follows them may be of
    /// the batch they stand in: then they are what a power cut leaves of one unsynced write.
    holed: Option<Hole>,
    /// Where the first space begins that was never written, or the batch that it stands in.
    unwritten: Option<Mark>,
}

struct Hole {
    mark: Mark,
    /// The first record that is lost.
    first: Offset,
    /// The offset after the last.
    next: Offset,
}

impl Batches {
    pub(super) fn new(end: End) -> Self {
        Self {
            vouched: match end {
                End::MayBeTorn { vouched } => Some(vouched),
                End::Sealed { .. } => None,
            },
            vouched_mark: None,
            open: None,
            holed: None,
            unwritten: None,
        }
    }

    pub(super) fn record(&mut self, layout: &Layout, before: &Scanned) {
        let here = self.pass(Mark::of(before));
        let continues = self
            .open
            .filter(|&(_, remaining)| remaining == layout.batch_remaining);
        let start = continues.map_or(here, |(mark, _)| mark);
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

    /// Offsets that are deliberately not there: as far as a batch goes on, they were of it, and it is whole without
    /// them. Otherwise they are like a record alone.
    pub(super) fn gap(&mut self, offsets: u64, before: &Scanned) {
        let here = self.pass(Mark::of(before));
        let start = self.open.map_or(here, |(mark, _)| mark);
        self.open = self.open.and_then(|(mark, remaining)| {
            let remaining = u64::from(remaining).checked_sub(offsets)?;
            Some((mark, u32::try_from(remaining).ok()?))
        });
        if self.open.is_none() {
            // It was left out after all before it was whole.
            self.holed.take_if(|hole| hole.next <= start.next);
        }
    }

    pub(super) fn damage(&mut self, before: Mark, next: Offset) {
        let here = self.pass(before);
        let mark = self.open.take().map_or(here, |(mark, _)| mark);
        let first = before.next;
        if self.vouched.is_some_and(|vouched| first < vouched) {
            self.holed = None;
        } else if let Some(hole) = &mut self.holed {
            hole.next = next;
        } else {
            self.holed = Some(Hole { mark, first, next });
        }
    }

    /// Bytes that are none of any record: a batch goes on after them.
    pub(super) fn bytes(&mut self, before: Mark) {
        self.pass(before);
    }

    /// Space that was never written from `before` on. What follows it was written later than what it was
    /// for, so none of it was ever promised.
    pub(super) fn unwritten(&mut self, before: Mark, next: Offset) {
        let here = self.pass(before);
        if self.unwritten.is_none() {
            let mark = self.open.map_or(here, |(mark, _)| mark);
            self.unwritten = self.unvouched(mark);
        }
        self.damage(before, next);
    }

    /// A torn tail at the end of what was scanned.
    pub(super) fn torn_tail(&mut self, before: Mark) {
        self.pass(before);
    }

    /// Damage to the end of the store is known to be that.
    pub(super) fn damage_to_end(&mut self) {
        self.open = None;
        self.holed = None;
    }

    /// From where on nothing counts.
    pub(super) fn incomplete_from(&self) -> Option<Mark> {
        let hole = self
            .holed
            .as_ref()
            .filter(|hole| self.vouched.is_some_and(|vouched| hole.first >= vouched))
            .map(|hole| hole.mark);
        let open = self.open.map(|(mark, _)| mark);
        let first = |a: Mark, b: Mark| if b.position < a.position { b } else { a };
        let batch = hole.or(open).and_then(|mark| self.unvouched(mark));
        [self.unwritten, batch].into_iter().flatten().reduce(first)
    }

    /// Takes note of a place that the scan comes by.
    fn pass(&mut self, mut here: Mark) -> Mark {
        here.in_batch = self.open.is_some();
        if self.vouched == Some(here.next) {
            self.vouched_mark.get_or_insert(here);
        }
        here
    }

    /// The mark, or where the index ceases to vouch if that is later.
    fn unvouched(&self, mark: Mark) -> Option<Mark> {
        if mark.next >= self.vouched? {
            Some(mark)
        } else {
            self.vouched_mark
        }
    }
}
