//! Records that the store does not have, and of which something else tells that they were there.

use super::{End, Scan, Scanned};
use crate::{
    Offset,
    backend::BackendFile,
    error::{Damaged, Thin},
    index::{ENTRY_BYTES, Index},
    record::{LENGTH_BYTES, RECORD_BYTES_LIMIT},
    report::Damage,
};

impl<F: BackendFile> Scan<'_, F> {
    /// Adds the records that are missing after those that were found: up to the base of the next segment, or all for
    /// which the index vouches.
    pub(super) fn missing_records(&self, scanned: &mut Scanned, end: End) -> Thin<()> {
        let first = scanned.next;
        let next = match end {
            End::Sealed { gap_from, .. } => gap_from,
            End::MayBeTorn { .. } => {
                self.take_entries_past_end(scanned)?;
                scanned.next
            }
        };
        if first < next {
            scanned.damage.push(Damage {
                segment: self.base,
                first,
                last: Offset(next.0 - 1),
                position: scanned.end,
                bytes: 0,
                reason: Damaged::Missing,
                bytes_only: false,
            });
        }
        Ok(())
    }

    /// Takes in the entries that vouch for records past the store's end, as they stand in the index: were they
    /// written anew, a crash could leave fewer.
    ///
    /// An index that does not tell what the store holds is none of this store, and vouches for none of them.
    fn take_entries_past_end(&self, scanned: &mut Scanned) -> Thin<()> {
        let held = entries_of(scanned);
        let Some(index) = self.index else {
            return Ok(());
        };
        if index.entries() <= held
            || self.base.plus(held) != scanned.next
            || !self.tells_what_was_found(index, scanned)?
        {
            return Ok(());
        }
        let (length, end) = (self.window.length(), scanned.end);
        let ends_in_damage = scanned.ends_in_damage();
        let mut before = None;
        index.read_entries_while(&mut scanned.entries, |position| {
            match before.replace(position) {
                Some(before) => may_follow(before, position),
                // Where bad bytes end, no one knows.
                None => position >= length && (position == end || ends_in_damage),
            }
        })?;
        if held == 0 && index.is_lone(entries_of(scanned))? {
            scanned.entries.clear();
        }
        scanned.next = self.base.plus(entries_of(scanned));
        Ok(())
    }

    /// Whether the index has the entry of every sound record that was found. What it has of damaged ones is neither
    /// right nor wrong.
    fn tells_what_was_found(&self, index: &Index<F>, scanned: &Scanned) -> Thin<bool> {
        let held = entries_of(scanned);
        let mut n = 0;
        loop {
            n += index.agreeing(n, &scanned.entries)?;
            if n >= held {
                return Ok(true);
            }
            let offset = self.base.plus(n);
            let at = scanned
                .damage
                .partition_point(|damage| damage.last < offset);
            // Before those of the first that is not sound may stand bytes alone.
            let mut from = scanned.damage[at..].iter();
            match from.find(|damage| !damage.bytes_only) {
                Some(damage) if damage.first <= offset => {
                    n = damage.last.next().since(self.base);
                }
                _ => return Ok(false),
            }
        }
    }
}

fn entries_of(scanned: &Scanned) -> u64 {
    scanned.entries.len() as u64 / ENTRY_BYTES
}

/// Whether a record's position can come after another's. Those of records that were lost before this one was have
/// the same.
fn may_follow(before: u64, position: u64) -> bool {
    let shortest = before.saturating_add(LENGTH_BYTES as u64);
    let longest = shortest.saturating_add(RECORD_BYTES_LIMIT);
    position == before || (shortest..=longest).contains(&position)
}
