//! What a segment's files hold. Changes nothing.

use super::Place;
use crate::{
    Offset, Options,
    backend::BackendFile,
    error::Thin,
    index::{ENTRY_BYTES, Index},
    record::{Framed, LENGTH_BYTES, frame_bytes, parse_framed},
    recovery::{End, Scanned, scan, zeros},
    report::{IndexState, SegmentReport},
    store::StoreReader,
};

/// The end of a segment, as its index has it.
pub(super) struct Ending {
    pub(super) next: Offset,
    /// The last frame, if there is any of the segment's offsets.
    pub(super) last: Option<Framed>,
    /// Where it ends in the store.
    position: u64,
}

/// Where the index is a whole number of entries and the last one's frame is valid and has the right offset.
fn ending<F: BackendFile>(
    store: &StoreReader<F>,
    index: &Index<F>,
    base: Offset,
) -> Thin<Option<Ending>> {
    let entries = index.entries();
    if index.file_bytes()? != Some(entries * ENTRY_BYTES) {
        return Ok(None);
    }
    let next = base.plus(entries);
    let Some((_, begins)) = index.read(-1)? else {
        return Ok(Some(Ending {
            next,
            last: None,
            position: 0,
        }));
    };
    let framed = frame_before(store, begins, store.len())?;
    let framed = framed.filter(|(framed, _)| framed.next() == next);
    Ok(framed.map(|(framed, position)| Ending {
        next,
        last: Some(framed),
        position,
    }))
}

/// Where the store ends as the index has it.
pub(super) fn closed_cleanly<F: BackendFile>(
    store: &StoreReader<F>,
    index: &Index<F>,
    base: Offset,
) -> Thin<Option<Ending>> {
    let ending = ending(store, index, base)?;
    Ok(ending.filter(|ending| ending.position == store.len()))
}

/// So much space that was prepared is looked through, which is more than there mostly is.
const PREPARED_BYTES_MAX: u64 = 4 << 20;
const CHUNK: usize = 64 << 10;

/// As [`closed_cleanly`], of the last segment, also where a store that was not closed has nothing but zeros after its last
/// frame, which the store then ends with: so a log that was stopped between two appends opens without a scan. A checksum
/// has to vouch for the frame then, for without one it may be zeros too.
pub(super) fn at_rest<F: BackendFile>(
    store: &StoreReader<F>,
    index: &Index<F>,
    base: Offset,
) -> Thin<Option<Ending>> {
    let Some(ending) = ending(store, index, base)? else {
        return Ok(None);
    };
    if ending.position < store.len() {
        let is_checked = ending.last.as_ref().is_some_and(Framed::is_checked);
        if !is_checked || !is_prepared_from(store, ending.position)? {
            return Ok(None);
        }
        store.end_at(ending.position);
    }
    Ok(Some(ending))
}

/// Whether there is nothing but zeros from `position` on, and not too many.
fn is_prepared_from<F: BackendFile>(store: &StoreReader<F>, mut position: u64) -> Thin<bool> {
    if store.len().saturating_sub(position) > PREPARED_BYTES_MAX {
        return Ok(false);
    }
    let mut chunk = vec![0; CHUNK];
    loop {
        match store.read_at(&mut chunk, position)? {
            0 => return Ok(true),
            read if zeros::all(&chunk[..read]) => position += read as u64,
            _ => return Ok(false),
        }
    }
}

/// How many gaps next to each other are looked at to find what stands before them.
const GAPS_PASSED_MAX: u32 = 16;

/// Whether appends can follow this last frame of a segment that was closed: not if it begins or is in a batch of which
/// not all is there, or if nothing else stands in a segment than a gap from before it on; nor where that cannot be told
/// by a few frames, as the index has them.
pub(super) fn takes_appends<F: BackendFile>(
    store: &StoreReader<F>,
    index: &Index<F>,
    base: Offset,
    last: Framed,
) -> Thin<bool> {
    let next = last.next();
    let mut framed = last;
    for _ in 0..=GAPS_PASSED_MAX {
        let gap = match framed {
            Framed::Record(record) => {
                // What is not there counts as if it were.
                let gone = next.since(record.offset.next());
                return Ok(u64::from(record.batch_remaining) <= gone);
            }
            Framed::Gap(gap) if gap.first <= base => return Ok(gap.first == base),
            Framed::Gap(gap) => gap,
        };
        let n = gap.first.since(base);
        let (Some((_, before)), Some((_, begins))) = (index.entry(n - 1)?, index.entry(n)?) else {
            return Ok(false);
        };
        match frame_before(store, before, begins)? {
            Some((found, end)) if end == begins && found.next() == gap.first => framed = found,
            _ => return Ok(false),
        }
    }
    Ok(false)
}

/// The valid frame that begins at a position and ends at or before another, if one does, and where it ends.
fn frame_before<F: BackendFile>(
    store: &StoreReader<F>,
    begins: u64,
    end: u64,
) -> Thin<Option<(Framed, u64)>> {
    let room = end.min(store.len()).saturating_sub(begins);
    let mut length = [0; LENGTH_BYTES];
    let read = store.read_at(&mut length, begins)?;
    let Some(bytes) = frame_bytes(&length[..read], room) else {
        return Ok(None);
    };
    let framed = parse_framed(&store.read_exact(begins, bytes)?).ok();
    Ok(framed.map(|framed| (framed, begins + bytes as u64)))
}

/// Scans a segment's files and says what they hold. From `gap_from` on, up to the base of the next segment, offsets
/// are not there by word of that.
pub(super) fn examine<F: BackendFile>(
    store: &StoreReader<F>,
    index: Option<&Index<F>>,
    base: Offset,
    place: Place,
    gap_from: Option<Offset>,
    options: &Options,
) -> Thin<(Scanned, SegmentReport)> {
    let end = match place {
        Place::Last => End::MayBeTorn {
            vouched: vouched(store, index, base)?,
        },
        Place::Sealed { next } => End::Sealed {
            next,
            gap_from: gap_from.unwrap_or(next),
        },
    };
    let entries_max = options.index_entries_max();
    let scanned = scan(
        store,
        index,
        base,
        end,
        entries_max,
        Scanned::at_start(base),
    )?;
    let state = match index {
        Some(index) => index_state(index, &scanned.entries)?,
        None => IndexState::Missing,
    };
    let report = SegmentReport {
        base,
        next: scanned.next,
        store_bytes: store.len(),
        records: scanned.records,
        unchecked_records: scanned.unchecked_records,
        index: state,
        torn_tail: scanned.torn_tail.clone(),
        damage: scanned.damage.clone(),
        gaps: scanned.gaps.clone(),
    };
    Ok((scanned, report))
}

fn index_state<F: BackendFile>(index: &Index<F>, entries: &[u8]) -> Thin<IndexState> {
    let agreeing = index.agreeing(0, entries)? * ENTRY_BYTES;
    let whole = agreeing == entries.len() as u64;
    Ok(if whole && index.file_bytes()? == Some(agreeing) {
        IndexState::Sound
    } else if index.is_zero_from(agreeing)? {
        IndexState::Unfinished
    } else {
        IndexState::Disagrees
    })
}

/// The offset before which every record was on stable storage once, for the index has its entry and
/// an index never leads.
pub(super) fn vouched<F: BackendFile>(
    store: &StoreReader<F>,
    index: Option<&Index<F>>,
    base: Offset,
) -> Thin<Offset> {
    let Some(index) = index else { return Ok(base) };
    if let Some(closed) = closed_cleanly(store, index, base)? {
        return Ok(closed.next);
    }
    // Those past the store's end need more looking at: a scan does that.
    let (mut inside, mut past) = (0, index.entries());
    while inside < past {
        let middle = inside + (past - inside) / 2;
        let entry = index.read(i64::try_from(middle).unwrap_or(i64::MAX))?;
        if entry.is_some_and(|(_, position)| position < store.len()) {
            inside = middle + 1;
        } else {
            past = middle;
        }
    }
    if index.is_lone(index.entries())? {
        inside = 0;
    }
    Ok(base.plus(inside))
}
