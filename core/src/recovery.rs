//! Finding out what a store holds: the records, a torn tail, damage. Changes nothing.
//!
//! The rules are `FORMAT.md`'s ("Recovery").

mod batches;
mod gaps;
mod missing;
mod search;
mod unwritten;
mod window;
pub(crate) mod zeros;

pub(crate) use self::gaps::{leading_gap, leads};
use self::{
    batches::{Batches, Mark},
    search::{After, search_budget_bytes},
    window::Window,
};
use crate::{
    Error, Gap, Offset, Result,
    backend::BackendFile,
    error::{Damaged, Thin},
    index::{Index, push_entry},
    record::{CHECKSUM_BYTES, Check, Framed, LENGTH_BYTES, frame_bytes, parse_frame, parse_framed},
    report::{Damage, Gaps, TornTail},
    store::StoreReader,
};

/// What a scan found.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// The entries of all records, lost ones too, as they stand in an index.
    pub(crate) entries: Vec<u8>,
    /// Where the store ends once a torn tail is cut off.
    pub(crate) end: u64,
    /// The offset after the last record.
    pub(crate) next: Offset,
    pub(crate) records: u64,
    pub(crate) unchecked_records: u64,
    pub(crate) torn_tail: Option<TornTail>,
    pub(crate) damage: Vec<Damage>,
    pub(crate) gaps: Gaps,
    /// Where a torn tail may go back before some of them: which, and where each frame ends.
    gaps_met: Vec<(u64, Gap)>,
    /// Where the frame ends that tells of offsets before the segment, if there is one.
    led_to: u64,
    /// Whether the last record says that more of its batch follow.
    pub(crate) ends_in_batch: bool,
}

impl Scanned {
    /// Nothing yet: the state before the first byte of a segment.
    pub(crate) fn at_start(base: Offset) -> Self {
        Self::at(base, 0)
    }

    /// Nothing yet, starting at a record that is known to begin at `position`.
    pub(crate) fn at(next: Offset, position: u64) -> Self {
        Self {
            entries: Vec::new(),
            end: position,
            next,
            records: 0,
            unchecked_records: 0,
            torn_tail: None,
            damage: Vec::new(),
            gaps: Gaps::default(),
            gaps_met: Vec::new(),
            led_to: 0,
            ends_in_batch: false,
        }
    }

    /// Whether appends can follow. Not on bad bytes that must stay, for after a crash a torn append could
    /// not be told from them; nor on a batch that was cut on purpose, which a crash would drop; nor in a segment that
    /// has nothing but a gap from before it on, for which its index vouches as it is.
    pub(crate) fn takes_appends(&self) -> bool {
        let is_of_gap = self.led_to > 0 && self.led_to == self.end;
        !self.ends_in_damage() && !self.ends_in_batch && !is_of_gap
    }

    fn ends_in_damage(&self) -> bool {
        self.damage
            .last()
            .is_some_and(|last| last.position + last.bytes >= self.end)
    }
}

/// What stands at the end of a store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// The last segment's: a torn tail may, from the offset on that no index entry vouches for which points into it.
    MayBeTorn { vouched: Offset },
    /// A sealed segment's, which reaches to the base of the next one, or to the gap that that begins with.
    Sealed { next: Offset, gap_from: Offset },
}

/// Scans a store from `scanned` on. The index is believed in nothing that the store can tell, but where bytes are bad
/// it tells where to look first, and where the last store ends, what it may have lost. Where more than `entries_max`
/// offsets, and more than [`GAP_ENTRIES_MAX`] and than the index has, would be in the segment by word of a gap, that is
/// none.
pub(crate) fn scan<F: BackendFile>(
    store: &StoreReader<F>,
    index: Option<&Index<F>>,
    base: Offset,
    end: End,
    entries_max: u64,
    scanned: Scanned,
) -> Thin<Scanned> {
    scan_to(store, index, base, end, entries_max, scanned, false)
}

/// Scans what another process appended to a store after `scanned`. Space that was prepared is not looked through.
pub(crate) fn scan_appended<F: BackendFile>(
    store: &StoreReader<F>,
    base: Offset,
    scanned: Scanned,
) -> Thin<Scanned> {
    let end = End::MayBeTorn {
        vouched: scanned.next,
    };
    scan_to(store, None, base, end, GAP_ENTRIES_MAX, scanned, true)
}

/// As [`scan`], with `to_zeros` only as far as there is not a length of zeros in a record's place.
fn scan_to<F: BackendFile>(
    store: &StoreReader<F>,
    index: Option<&Index<F>>,
    base: Offset,
    end: End,
    entries_max: u64,
    mut scanned: Scanned,
    to_zeros: bool,
) -> Thin<Scanned> {
    let length = store.len();
    let budget_bytes = search_budget_bytes(length);
    let mut scan = Scan {
        window: Window::new(store),
        index,
        base,
        limit: match end {
            End::Sealed { next, .. } => next,
            End::MayBeTorn { .. } => Offset(u64::MAX),
        },
        entries_max: entries_max
            .max(GAP_ENTRIES_MAX)
            .max(index.map_or(0, Index::entries))
            .min(1 << 32),
        budget_bytes,
        zeros_from: None,
    };
    if matches!(end, End::MayBeTorn { .. }) && !to_zeros {
        // Before the records: beside a writer, what it appends while so many zeros are looked through would seem to
        // stand after bad bytes.
        scan.zeros_from()?;
    }
    let mut batches = Batches::new(end);
    while scanned.end < length {
        scan.checked_records(&mut scanned, &mut batches)?;
        if scanned.end == length {
            break;
        }
        match scan.frame_at(scanned.end, scanned.next)? {
            Ok((Framed::Gap(gap), bytes)) => {
                batches.gap(gap.next().since(scanned.next), &scanned);
                scan.take_gap(&mut scanned, gap, bytes)?;
            }
            Ok(_) if matches!(end, End::Sealed { next, .. } if scanned.next >= next) => {
                scan.overlap(&mut scanned)?;
                batches.damage_to_end();
            }
            Ok((Framed::Record(layout), bytes)) => {
                batches.record(&layout, &scanned);
                scan.push(&mut scanned, 1)?;
                scanned.records += 1;
                scanned.unchecked_records += u64::from(!layout.checked);
                scanned.end += bytes;
            }
            Err(_) if to_zeros && scan.has_no_length_at(scanned.end)? => {
                batches.torn_tail(Mark::of(&scanned));
                break;
            }
            Err(reason) => {
                let before = Mark::of(&scanned);
                match scan.bad_bytes(&mut scanned, reason, end)? {
                    Bad::TornTail => {
                        batches.torn_tail(before);
                        break;
                    }
                    Bad::Unwritten => batches.unwritten(before, scanned.next),
                    Bad::Damage => batches.damage(before, scanned.next),
                    Bad::Bytes => batches.bytes(before),
                    Bad::DamageToEnd => batches.damage_to_end(),
                }
            }
        }
    }
    scanned.ends_in_batch = batches.open.is_some();
    if let Some(mark) = batches.incomplete_from()
        && mark.drops_records(&scanned)
    {
        mark.cut(&mut scanned, base, length);
        // It has not the right entries of what was sound and is cut: so it is none of this store, and vouches for nothing
        // past the end of that.
        scan.index = None;
    }
    scan.missing_records(&mut scanned, end)?;
    Ok(scanned)
}

/// What bad bytes are.
enum Bad {
    TornTail,
    /// Space that was never written, records after it.
    Unwritten,
    /// Damage, records after it.
    Damage,
    /// Damage by which no record is lost: the one expected comes after it.
    Bytes,
    DamageToEnd,
}

struct Scan<'a, F> {
    window: Window<'a, F>,
    index: Option<&'a Index<F>>,
    base: Offset,
    /// The base of the next segment: no record here has this offset or a higher one.
    limit: Offset,
    /// The most offsets that a gap can say are in the segment.
    entries_max: u64,
    /// How many bytes may still be read in looking for records among bad bytes, where crafted bytes
    /// could make every position look like the start of a long record.
    budget_bytes: u64,
    /// From where on the store is all zeros, once that was asked.
    zeros_from: Option<u64>,
}

impl<F: BackendFile> Scan<'_, F> {
    /// Takes in the checked records in the window that follow one another as they should: nearly all there
    /// are. At any other it stops.
    fn checked_records(&mut self, scanned: &mut Scanned, batches: &mut Batches) -> Thin<()> {
        let mut rest = self.window.get_some(scanned.end)?;
        while let Some(bytes) = frame_bytes(rest, rest.len() as u64)
            && let Ok(layout) = parse_frame(&rest[..bytes], Check::Checksum)
            && layout.checked
            && layout.offset == scanned.next
            && layout.offset < self.limit
            && let Ok(relative) = u32::try_from(layout.offset.since(self.base))
        {
            batches.record(&layout, scanned);
            push_entry(&mut scanned.entries, relative, scanned.end);
            scanned.next = scanned.next.next();
            scanned.records += 1;
            scanned.end += bytes as u64;
            rest = &rest[bytes..];
        }
        Ok(())
    }

    /// The frame at `position`, if it is whole and of the offset expected, or begins with it.
    fn frame_at(
        &mut self,
        position: u64,
        expected: Offset,
    ) -> Thin<Result<(Framed, u64), Damaged>> {
        let found = self.any_frame_at(position)?;
        let (layout, bytes) = match found {
            Ok((Framed::Record(layout), bytes)) => (layout, bytes),
            Ok((Framed::Gap(gap), _)) if !self.is_in_place(&gap, position, expected) => {
                return Ok(Err(Damaged::Misplaced));
            }
            found => return Ok(found),
        };
        if layout.offset != expected {
            let zeros = bytes == LENGTH_BYTES as u64;
            let reason = if zeros {
                Damaged::Malformed
            } else {
                Damaged::Misplaced
            };
            return Ok(Err(reason));
        }
        if bytes == LENGTH_BYTES as u64 {
            // Eight zeros: the book's empty record at offset 0, or space that was never written. It is a
            // record where nothing or another record follows.
            let after = position + bytes;
            let alone = after == self.window.length();
            let confirmed = alone
                || self
                    .any_frame_at(after)?
                    .is_ok_and(|(next, _)| next.first() == expected.next());
            if !confirmed {
                return Ok(Err(Damaged::Malformed));
            }
        }
        if !layout.checked && self.is_cut_short(position, bytes)? {
            return Ok(Err(Damaged::Length));
        }
        Ok(Ok((Framed::Record(layout), bytes)))
    }

    /// The frame at `position`, whatever its offset.
    fn any_frame_at(&mut self, position: u64) -> Thin<Result<(Framed, u64), Damaged>> {
        let room = self.window.length() - position;
        let Some(bytes) = frame_bytes(self.window.get(position, LENGTH_BYTES)?, room) else {
            return Ok(Err(Damaged::Length));
        };
        let frame = self.window.get(position, bytes)?;
        Ok(parse_framed(frame).map(|framed| (framed, bytes as u64)))
    }

    /// Whether zeros stand where a frame's length would.
    fn has_no_length_at(&mut self, position: u64) -> Thin<bool> {
        Ok(self.window.get(position, LENGTH_BYTES)? == [0; LENGTH_BYTES])
    }

    /// Whether this unchecked frame is a checked one with a flipped bit in its length, so that its
    /// checksum is left out.
    fn is_cut_short(&mut self, position: u64, bytes: u64) -> Thin<bool> {
        // The rest of its fields would follow. After a record of the book's comes the next one's length,
        // whose first byte is zero.
        match self.window.peek(position + bytes)? {
            None | Some(0) => return Ok(false),
            Some(_) => {}
        }
        let record_bytes = bytes - LENGTH_BYTES as u64;
        for bit in 0..30 {
            let whole = (record_bytes ^ (1 << bit)) + LENGTH_BYTES as u64;
            if whole > bytes
                && self.ends_in_checksum(position, whole)?
                && self.is_checked_with_length(position, whole)?
            {
                return Ok(true);
            }
        }
        // Once too much was read to go on looking, it is not believed.
        Ok(self.budget_bytes == 0)
    }

    /// Bad bytes at the end of what was scanned: a torn tail or damage.
    fn bad_bytes(&mut self, scanned: &mut Scanned, reason: Damaged, end: End) -> Thin<Bad> {
        let position = scanned.end;
        let first = scanned.next;
        let length = self.window.length();
        let found = self.next_record(position, first)?;
        let promised = match end {
            End::MayBeTorn { vouched } => vouched,
            End::Sealed { gap_from, .. } => gap_from,
        };
        // Nothing that was promised, or that another segment does not hold.
        if first >= promised
            && (matches!(found, After::Nothing { .. })
                || matches!((&found, end), (After::Misplaced { .. }, End::Sealed { .. })))
        {
            scanned.torn_tail = Some(TornTail {
                segment: self.base,
                position,
                bytes: length - position,
                records: 0,
                zeros: matches!(found, After::Nothing { zeros: true }),
                sealed: matches!(end, End::Sealed { .. }),
            });
            return Ok(Bad::TornTail);
        }
        let (mut bad, after, lost) = match found {
            After::Record {
                position: after,
                offset,
            } => {
                let unwritten = matches!(end, End::MayBeTorn { .. })
                    && first >= promised
                    && self.shows_unwritten_space(position, first, after)?;
                let bad = if unwritten {
                    Bad::Unwritten
                } else {
                    Bad::Damage
                };
                (bad, after, offset.since(first))
            }
            // To the end of the store. How many records that were is told by what follows the segment, by
            // the index, or by what misplaced records stand there.
            After::Misplaced { records } => {
                let lost = match end {
                    End::MayBeTorn { .. } => promised.since(first).max(records),
                    End::Sealed { .. } => promised.since(first),
                };
                (Bad::DamageToEnd, self.damage_end(position, end)?, lost)
            }
            After::Nothing { .. } => {
                let lost = promised.since(first);
                (Bad::DamageToEnd, self.damage_end(position, end)?, lost)
            }
        };
        let bytes_only = lost == 0 && !matches!(bad, Bad::DamageToEnd);
        if bytes_only && matches!(bad, Bad::Damage) {
            bad = Bad::Bytes;
        }
        let next = if bytes_only {
            first
        } else {
            first.plus(lost.max(1))
        };
        scanned.damage.push(Damage {
            segment: self.base,
            first,
            last: first.max(Offset(next.0.saturating_sub(1))),
            position,
            bytes: after - position,
            reason,
            bytes_only,
        });
        // Where records follow, each lost one needs its entry. At the end a record without one is lost
        // anyway, and bad bytes may claim to have been more records than there is memory for.
        let vouched = self.vouched_entries(end).since(first);
        let entries = match bad {
            Bad::DamageToEnd => vouched.max(LOST_ENTRIES_MAX),
            _ => lost,
        };
        self.push(scanned, entries.min(next.since(first)))?;
        scanned.next = next;
        scanned.end = after;
        Ok(bad)
    }

    /// Where damage ends that no record follows. Space that was prepared and never written is none of it.
    fn damage_end(&mut self, position: u64, end: End) -> Thin<u64> {
        let length = self.window.length();
        let zeros_from = self.zeros_from()?;
        if matches!(end, End::Sealed { .. }) || position >= zeros_from {
            return Ok(length);
        }
        // By its own word, if that is past all other bytes. Otherwise a record may end in zeros, but in no
        // more than its checksum has bytes.
        let claimed = self.claimed_end(position)?;
        let ends = if claimed < zeros_from {
            zeros_from.saturating_add((CHECKSUM_BYTES - 1) as u64)
        } else {
            claimed
        };
        Ok(ends.min(length))
    }

    fn vouched_entries(&self, end: End) -> Offset {
        match end {
            End::MayBeTorn { vouched } => vouched,
            End::Sealed { .. } => self.base,
        }
    }

    /// Whole records that continue a sealed segment past the base of the next: someone put the files
    /// of two logs together. Those of the next segment are read; these are damage, not lost silently.
    fn overlap(&mut self, scanned: &mut Scanned) -> Thin<()> {
        let position = scanned.end;
        let records = self.misplaced_records(position)?.max(1);
        let length = self.window.length();
        scanned.damage.push(Damage {
            segment: self.base,
            first: scanned.next,
            last: Offset(scanned.next.plus(records).0 - 1),
            position,
            bytes: length - position,
            reason: Damaged::Misplaced,
            bytes_only: false,
        });
        scanned.end = length;
        Ok(())
    }

    /// Adds the entries of `records` records, all at the end of what was scanned.
    fn push(&self, scanned: &mut Scanned, records: u64) -> Thin<()> {
        for _ in 0..records {
            let Ok(relative) = u32::try_from(scanned.next.since(self.base)) else {
                return Err(Error::invalid(format!(
                    "{} holds more than 4,294,967,296 records, which no index can hold",
                    self.window.store().name()
                )));
            };
            push_entry(&mut scanned.entries, relative, scanned.end);
            scanned.next = scanned.next.next();
        }
        Ok(())
    }
}

/// How many lost records at the end of a segment have entries, if none vouches for more.
const LOST_ENTRIES_MAX: u64 = 4096;

/// How many offsets a gap can say are in a segment, if neither the options nor the index are for more.
pub(crate) const GAP_ENTRIES_MAX: u64 = 1 << 24;
