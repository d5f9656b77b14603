//! Finding out what a store holds: the records, a torn tail, damage. Changes nothing.
//!
//! The rules are `FORMAT.md`'s ("Recovery").

mod batches;
mod window;

use bytes::Bytes;

use self::{
    batches::{Batches, Mark},
    window::Window,
};
use crate::{
    Error, Offset, Result,
    backend::BackendFile,
    error::Damaged,
    index::{Index, push_entry},
    record::{
        CHECKSUM, CHECKSUM_BYTES, FRAME_BYTES_MIN, LENGTH_BYTES, Layout, Verify, checksum_matches,
        claims_past_end, frame_bytes, is_field_tag, parse_frame,
    },
    report::{Damage, TornTail},
    store::Store,
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
            ends_in_batch: false,
        }
    }

    /// Whether appends can follow. Not on bad bytes that must stay, for after a crash a torn append could
    /// not be told from them; nor on a batch that was cut on purpose, which a crash would drop.
    pub(crate) fn takes_appends(&self) -> bool {
        let damaged = self
            .damage
            .last()
            .is_some_and(|last| last.position + last.bytes >= self.end);
        !damaged && !self.ends_in_batch
    }
}

/// What stands at the end of a store.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// The last segment's: a torn tail may, from the offset on that no index entry vouches for.
    MayBeTorn { vouched: Offset },
    /// A sealed segment's, which reaches to the base of the next one.
    Sealed { next: Offset },
}

/// Scans a store from `scanned` on. The index is believed in nothing, but where bytes are bad it tells
/// where to look first.
pub(crate) fn scan<F: BackendFile>(
    store: &Store<F>,
    index: Option<&Index<F>>,
    base: Offset,
    end: End,
    mut scanned: Scanned,
) -> Result<Scanned> {
    let length = store.len();
    let budget_bytes = search_budget_bytes(length);
    let mut scan = Scan {
        window: Window::new(store),
        index,
        base,
        limit: match end {
            End::Sealed { next } => next,
            End::MayBeTorn { .. } => Offset(u64::MAX),
        },
        budget_bytes,
    };
    let mut batches = Batches::default();
    while scanned.end < length {
        match scan.record_at(scanned.end, scanned.next)? {
            Ok(_) if matches!(end, End::Sealed { next } if scanned.next >= next) => {
                scan.overlap(&mut scanned)?;
                batches = Batches::default();
            }
            Ok((layout, bytes)) => {
                batches.record(&layout, &scanned);
                scan.push(&mut scanned, 1)?;
                scanned.records += 1;
                scanned.unchecked_records += u64::from(!layout.checked);
                scanned.end += bytes;
            }
            Err(reason) => {
                let before = Mark::of(&scanned);
                scan.bad_bytes(&mut scanned, reason, end)?;
                if scanned.torn_tail.is_some() {
                    break;
                }
                if scanned.end < length {
                    batches.damage(before, scanned.next, end);
                } else {
                    // Damage to the end is known to be that.
                    batches = Batches::default();
                }
            }
        }
    }
    scanned.ends_in_batch = batches.open.is_some();
    if let End::MayBeTorn { vouched } = end
        && let Some(mark) = batches.incomplete_from(vouched)
    {
        mark.cut(&mut scanned, base, length);
    }
    Ok(scanned)
}

struct Scan<'a, F> {
    window: Window<'a, F>,
    index: Option<&'a Index<F>>,
    base: Offset,
    /// The base of the next segment: no record here has this offset or a higher one.
    limit: Offset,
    /// How many bytes may still be read in looking for records among bad bytes, where crafted bytes
    /// could make every position look like the start of a long record.
    budget_bytes: u64,
}

impl<F: BackendFile> Scan<'_, F> {
    /// The record at `position`, if it is whole and has the offset expected.
    fn record_at(
        &mut self,
        position: u64,
        expected: Offset,
    ) -> Result<Result<(Layout, u64), Damaged>> {
        let found = self.any_record_at(position)?;
        let Ok((layout, bytes)) = found else {
            return Ok(found);
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
                    .any_record_at(after)?
                    .is_ok_and(|(next, _)| next.offset == expected.next());
            if !confirmed {
                return Ok(Err(Damaged::Malformed));
            }
        }
        if !layout.checked && self.is_cut_short(position, bytes)? {
            return Ok(Err(Damaged::Length));
        }
        Ok(Ok((layout, bytes)))
    }

    /// The record at `position`, whatever its offset.
    fn any_record_at(&mut self, position: u64) -> Result<Result<(Layout, u64), Damaged>> {
        let room = self.window.length() - position;
        let Some(bytes) = frame_bytes(self.window.get(position, LENGTH_BYTES)?, room) else {
            return Ok(Err(Damaged::Length));
        };
        let frame = self.window.get(position, bytes)?;
        Ok(parse_frame(frame, Verify::Checksum).map(|layout| (layout, bytes as u64)))
    }

    /// Whether this unchecked frame is a checked one with a flipped bit in its length, so that its
    /// checksum is left out.
    fn is_cut_short(&mut self, position: u64, bytes: u64) -> Result<bool> {
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

    /// Whether a frame of `whole` bytes would fit at `position` and have a checksum field at its end.
    fn ends_in_checksum(&mut self, position: u64, whole: u64) -> Result<bool> {
        if whole < FRAME_BYTES_MIN || whole > self.window.length() - position {
            return Ok(false);
        }
        Ok(self.window.peek(position + whole - CHECKSUM_BYTES as u64)? == Some(CHECKSUM))
    }

    /// Whether the bytes from `position` are a checked frame of `whole` bytes, but for its length.
    fn is_checked_with_length(&mut self, position: u64, whole: u64) -> Result<bool> {
        Ok(self
            .with_length(position, whole)?
            .is_some_and(|frame| checksum_matches(&frame)))
    }

    /// Whether the bytes from `position` are the record expected, in a frame of `whole` bytes, but for
    /// the frame's length.
    fn is_record_with_length(
        &mut self,
        position: u64,
        whole: u64,
        expected: Offset,
    ) -> Result<bool> {
        let frame = self.with_length(position, whole)?;
        let layout = frame.map(|frame| parse_frame(&frame, Verify::Checksum));
        Ok(layout.is_some_and(|layout| layout.is_ok_and(|layout| layout.offset == expected)))
    }

    /// The frame of `whole` bytes at `position`, its length set right; `None` once enough was read.
    fn with_length(&mut self, position: u64, whole: u64) -> Result<Option<Vec<u8>>> {
        let Some(frame) = self.read_aside(position, whole)? else {
            return Ok(None);
        };
        let mut frame = Vec::from(frame);
        if let Some(length) = frame.first_chunk_mut() {
            *length = (whole - LENGTH_BYTES as u64).to_be_bytes();
        }
        Ok(Some(frame))
    }

    /// The frame at `position`, read past the window so that it need not move; `None` once enough was
    /// read in this way.
    fn read_aside(&mut self, position: u64, whole: u64) -> Result<Option<Bytes>> {
        match usize::try_from(whole) {
            Ok(bytes) if self.spend(whole.max(READ_COST_BYTES)) => {
                self.window.store().read_exact(position, bytes).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Bad bytes at the end of what was scanned: a torn tail or damage.
    fn bad_bytes(&mut self, scanned: &mut Scanned, reason: Damaged, end: End) -> Result<()> {
        let position = scanned.end;
        let first = scanned.next;
        let to_end = self.window.length() - position;
        let (bytes, lost) = match (self.next_record(position, first)?, end) {
            (
                After::Record {
                    position: after,
                    offset,
                },
                _,
            ) => (after - position, offset.since(first)),
            // Nothing that was promised, or that another segment does not hold.
            (
                found,
                End::MayBeTorn {
                    vouched: first_lost,
                }
                | End::Sealed { next: first_lost },
            ) if first >= first_lost
                && (matches!(end, End::Sealed { .. })
                    || matches!(found, After::Nothing { .. })) =>
            {
                scanned.torn_tail = Some(TornTail {
                    segment: self.base,
                    position,
                    bytes: to_end,
                    batch_records: 0,
                    zeros: matches!(found, After::Nothing { zeros: true }),
                    sealed: matches!(end, End::Sealed { .. }),
                });
                return Ok(());
            }
            // To the end of the store. How many records that were is told by what follows the segment, by
            // the index, or by what misplaced records stand there.
            (_, End::Sealed { next }) => (to_end, next.since(first)),
            (After::Misplaced { records }, End::MayBeTorn { vouched }) => {
                (to_end, vouched.since(first).max(records))
            }
            (After::Nothing { .. }, End::MayBeTorn { vouched }) => (to_end, vouched.since(first)),
        };
        let next = first.plus(lost.max(1));
        scanned.damage.push(Damage {
            segment: self.base,
            first,
            last: Offset(next.0 - 1),
            position,
            bytes,
            reason,
        });
        // Where records follow, each lost one needs its entry. At the end a record without one is lost
        // anyway, and bad bytes may claim to have been more records than there is memory for.
        let vouched = self.vouched_entries(end).since(first);
        let entries = if bytes < to_end {
            lost
        } else {
            vouched.max(LOST_ENTRIES_MAX)
        };
        self.push(scanned, entries.min(next.since(first)))?;
        scanned.next = next;
        scanned.end = position + bytes;
        Ok(())
    }

    fn vouched_entries(&self, end: End) -> Offset {
        match end {
            End::MayBeTorn { vouched } => vouched,
            End::Sealed { .. } => self.base,
        }
    }

    /// Whole records that continue a sealed segment past the base of the next: someone put the files
    /// of two logs together. Those of the next segment are read; these are damage, not lost silently.
    fn overlap(&mut self, scanned: &mut Scanned) -> Result<()> {
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
        });
        scanned.end = length;
        Ok(())
    }

    /// Adds the entries of `records` records, all at the end of what was scanned.
    fn push(&self, scanned: &mut Scanned, records: u64) -> Result<()> {
        for _ in 0..records {
            let Ok(relative) = u32::try_from(scanned.next.since(self.base)) else {
                return Err(Error::InvalidArgument(format!(
                    "{} holds more than 4,294,967,296 records, which no index can hold",
                    self.window.store().name()
                )));
            };
            push_entry(&mut scanned.entries, relative, scanned.end);
            scanned.next = scanned.next.next();
        }
        Ok(())
    }

    /// Looks for a record after the bad bytes at `start`, where `expected` should stand.
    fn next_record(&mut self, start: u64, expected: Offset) -> Result<After> {
        let length = self.window.length();
        if let Some(found) = self.next_record_of_index(start, expected)? {
            return Ok(found);
        }
        // A whole beginning of a record that runs past the end of the store holds all the rest, however
        // much its value may look like records. Unless its length is what is damaged: then, with a
        // shorter one, it is the record expected.
        let head = self.window.get(start, HEAD_BYTES)?;
        let claims_rest = claims_past_end(head, length - start);
        if claims_rest && self.is_checked_with_length(start, length - start)? {
            return Ok(After::Misplaced { records: 1 });
        }
        let mut at = start;
        while at < length {
            let chunk = self.window.get_some(at)?;
            let last_start = (chunk.len() as u64).saturating_sub(LENGTH_BYTES as u64);
            let candidate = chunk
                .windows(LENGTH_BYTES + 1)
                .enumerate()
                .position(|(i, bytes)| at + i as u64 > start && may_start_frame(bytes));
            let Some(candidate) = candidate else {
                at += last_start.max(1);
                continue;
            };
            at += candidate as u64;
            if let Some(offset) = self.record_after(start, expected, at)?
                && (!claims_rest || self.is_record_with_length(start, at - start, expected)?)
            {
                return Ok(After::Record {
                    position: at,
                    offset,
                });
            }
            if self.budget_bytes == 0 {
                // Bytes made to look like records at every turn: they are kept.
                return Ok(After::Misplaced {
                    records: most_records(length - start),
                });
            }
            at += 1;
        }
        Ok(match self.misplaced_records(start)? {
            0 => After::Nothing {
                zeros: self.is_zero_from(start)?,
            },
            records => After::Misplaced { records },
        })
    }

    fn is_zero_from(&mut self, mut position: u64) -> Result<bool> {
        while position < self.window.length() {
            let chunk = self.window.get_some(position)?;
            if chunk.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            position += chunk.len() as u64;
        }
        Ok(true)
    }

    /// The next record that is where its index entry says.
    fn next_record_of_index(&mut self, start: u64, expected: Offset) -> Result<Option<After>> {
        let Some(index) = self.index else {
            return Ok(None);
        };
        let mut offset = expected.next();
        while let Ok(n) = i64::try_from(offset.since(self.base))
            && let Some((relative, position)) = index.read(n)?
            && u64::from(relative) == offset.since(self.base)
            && offset < self.limit
            && self.budget_bytes > 0
        {
            if position > start
                && position < self.window.length()
                && self
                    .record_aside(position)?
                    .is_some_and(|(layout, _)| layout.offset == offset)
            {
                return Ok(Some(After::Record { position, offset }));
            }
            // Entries cost little each, but there may be many.
            self.spend(READ_COST_BYTES / 8);
            offset = offset.next();
        }
        Ok(None)
    }

    /// How many whole records stand one after the other from `start` on. They have other offsets than
    /// they should, but someone wrote them, so they are never cut off.
    fn misplaced_records(&mut self, start: u64) -> Result<u64> {
        let (mut records, mut at) = (0, start);
        while at < self.window.length()
            && let Ok((_, bytes)) = self.any_record_at(at)?
            && bytes > LENGTH_BYTES as u64
        {
            records += 1;
            at += bytes;
        }
        Ok(records)
    }

    /// The offset of the record at `position`, if one stands there that can come after bad bytes from
    /// `start` on, in place of `expected`.
    fn record_after(
        &mut self,
        start: u64,
        expected: Offset,
        position: u64,
    ) -> Result<Option<Offset>> {
        let Some(layout) = self.record_aside(position)? else {
            return Ok(None);
        };
        let (layout, whole) = layout;
        let gap = layout.offset.since(expected);
        if gap == 0 || gap > most_records(position - start) || layout.offset >= self.limit {
            return Ok(None);
        }
        // Without a checksum it counts only if its neighbour confirms it.
        let after = position + whole;
        let confirmed = layout.checked
            || after == self.window.length()
            || self
                .record_aside(after)?
                .is_some_and(|(next, _)| next.offset == layout.offset.next());
        Ok(confirmed.then_some(layout.offset))
    }

    /// As [`Scan::any_record_at`], within the budget.
    fn record_aside(&mut self, position: u64) -> Result<Option<(Layout, u64)>> {
        let mut length = [0; LENGTH_BYTES];
        let read = self.window.store().read_at(&mut length, position)?;
        let room = self.window.length() - position;
        let Some(bytes) = frame_bytes(&length[..read], room) else {
            return Ok(None);
        };
        let whole = bytes as u64;
        // A checked record is hashed once, what might be a damaged one up to forty times.
        let checked = self.ends_in_checksum(position, whole)?;
        let Some(frame) = self.read_aside(position, whole)? else {
            return Ok(None);
        };
        if checked && !checksum_matches(&frame) && !self.spend(whole.saturating_mul(40)) {
            return Ok(None);
        }
        let layout = parse_frame(&frame, Verify::Checksum);
        Ok(layout.ok().map(|layout| (layout, whole)))
    }

    fn spend(&mut self, bytes: u64) -> bool {
        let enough = self.budget_bytes >= bytes;
        self.budget_bytes = if enough { self.budget_bytes - bytes } else { 0 };
        enough
    }
}

/// Whether these nine bytes may be a frame's length and the first tag of its record.
fn may_start_frame(bytes: &[u8]) -> bool {
    bytes[..4] == [0; 4] && bytes[4..8] != [0; 4] && bytes[4] <= 0x40 && is_field_tag(bytes[8])
}

/// What stands after bad bytes.
enum After {
    /// A record of a later offset.
    Record { position: u64, offset: Offset },
    /// No such record, but at least that many were written there.
    Misplaced { records: u64 },
    /// Nothing, to the end of the store.
    Nothing { zeros: bool },
}

/// Enough of a frame to tell how long its value claims to be.
const HEAD_BYTES: usize = LENGTH_BYTES + 1 + 10;

/// The most records that can have stood in so many bytes: at least one, where there are any.
fn most_records(bytes: u64) -> u64 {
    bytes.div_ceil(LENGTH_BYTES as u64)
}

/// How many lost records at the end of a segment have entries, if none vouches for more.
const LOST_ENTRIES_MAX: u64 = 4096;

/// What a read past the window counts at the least.
const READ_COST_BYTES: u64 = 512;

/// Some passes over the store: far more than honest bytes need, little enough to end soon.
fn search_budget_bytes(length: u64) -> u64 {
    length.saturating_mul(8).saturating_add(64 << 20)
}
