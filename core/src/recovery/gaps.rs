//! Offsets that are deliberately not there, as a scan meets them.

use super::{Scan, Scanned};
use crate::{
    Gap, Offset,
    backend::BackendFile,
    error::Thin,
    record::{
        CHECKSUM, CHECKSUM_BYTES, GAP_FRAME_BYTES_MAX, GAP_FRAME_BYTES_MIN, LENGTH_BYTES,
        frame_bytes, parse_gap,
    },
    store::StoreReader,
};

/// The gap that a store begins with, of offsets before the segment's base up to that, or further.
pub(crate) fn leading_gap<F: BackendFile>(
    store: &StoreReader<F>,
    base: Offset,
) -> Thin<Option<(Gap, u64)>> {
    let mut head = [0; GAP_FRAME_BYTES_MAX];
    let read = store.read_at(&mut head, 0)?;
    let frame = frame_bytes(&head[..read], read as u64).map(|bytes| &head[..bytes]);
    let gap = frame.and_then(|frame| Some((parse_gap(frame)?, frame.len() as u64)));
    Ok(gap.filter(|(gap, _)| leads(gap, base)))
}

/// Whether a gap can be the first of a segment though it begins before that does. The segment's base is one of it, so
/// that the index has an entry of it, which vouches for it.
pub(crate) fn leads(gap: &Gap, base: Offset) -> bool {
    gap.first < base && gap.next() > base
}

impl Scanned {
    /// Makes of the gaps what they were when the scan was at a position.
    pub(super) fn forget_gaps_after(&mut self, position: u64) {
        while let Some((_, gap)) = self.gaps_met.pop_if(|(end, _)| *end > position) {
            self.gaps.take_back(gap);
        }
    }
}

impl<F: BackendFile> Scan<'_, F> {
    /// Whether a gap can stand where this offset is expected.
    pub(super) fn is_in_place(&self, gap: &Gap, position: u64, expected: Offset) -> bool {
        let begins = gap.first == expected || (position == 0 && leads(gap, self.base));
        begins && self.fits(gap)
    }

    /// Whether all its offsets can be the segment's. Each has an entry, so a few bytes that were made to tell of very
    /// many of them are bad ones.
    pub(super) fn fits(&self, gap: &Gap) -> bool {
        gap.next() <= self.limit && gap.next().since(self.base) <= self.entries_max
    }

    /// Takes in a gap that is in its place.
    pub(super) fn take_gap(&self, scanned: &mut Scanned, gap: Gap, bytes: u64) -> Thin<()> {
        self.push(scanned, gap.next().since(scanned.next))?;
        scanned.gaps.add(gap);
        scanned.end += bytes;
        if gap.first < self.base {
            scanned.led_to = scanned.end;
        }
        if self.limit == Offset(u64::MAX) {
            scanned.gaps_met.push((scanned.end, gap));
        }
        Ok(())
    }

    /// Where the bad bytes at `start` end, and at which offset, if they are the gap that was expected but for one bit.
    /// They are few, and may be of more offsets than so many bytes can be of records.
    pub(super) fn flipped_gap(
        &mut self,
        start: u64,
        expected: Offset,
    ) -> Thin<Option<(u64, Offset)>> {
        let head = self.window.get(start, GAP_FRAME_BYTES_MAX)?.to_vec();
        let as_it_says = frame_bytes(&head, head.len() as u64);
        for whole in GAP_FRAME_BYTES_MIN..=head.len() {
            let mut frame = head[..whole].to_vec();
            if as_it_says == Some(whole) {
                let bits = 8 * LENGTH_BYTES..8 * whole;
                if !self.spend((whole * bits.len()) as u64) {
                    return Ok(None);
                }
                for bit in bits {
                    frame[bit / 8] ^= 1 << (bit % 8);
                    if let Some(next) = self.gap_to(&frame, start, expected) {
                        return Ok(Some((start + whole as u64, next)));
                    }
                    frame[bit / 8] ^= 1 << (bit % 8);
                }
            } else if frame[whole - CHECKSUM_BYTES] == CHECKSUM {
                let length = (whole - LENGTH_BYTES) as u64;
                frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
                if let Some(next) = self.gap_to(&frame, start, expected) {
                    return Ok(Some((start + whole as u64, next)));
                }
            }
        }
        Ok(None)
    }

    fn gap_to(&self, frame: &[u8], start: u64, expected: Offset) -> Option<Offset> {
        let gap = parse_gap(frame)?;
        self.is_in_place(&gap, start, expected)
            .then_some(gap.next())
    }
}
