//! Telling space that was never written from damage.

use super::{Scan, zeros};
use crate::{
    Offset,
    backend::BackendFile,
    error::Thin,
    record::{FRAME_BYTES_MIN, LENGTH_BYTES, RECORD_BYTES_LIMIT},
};

/// No disk writes less than this whole or not at all; the sectors of others are multiples of it.
const SECTOR_BYTES: u64 = 512;

/// A length is at most [`RECORD_BYTES_LIMIT`].
const LENGTH_ZEROS_MIN: u64 = (RECORD_BYTES_LIMIT.leading_zeros() / 8) as u64;
const _: () = assert!(LENGTH_ZEROS_MIN == 4);

impl<F: BackendFile> Scan<'_, F> {
    /// Whether the bad bytes at `start`, before the record at `end`, show that a sector of them was never
    /// written: a power cut that keeps later writes leaves that. `FORMAT.md` ("What a power cut leaves")
    /// says why there always is one then.
    pub(super) fn shows_unwritten_space(
        &mut self,
        start: u64,
        expected: Offset,
        end: u64,
    ) -> Thin<bool> {
        let mut sector_end = self.sector_end(start);
        let whole = end - start;
        let record = self.is_record_with_length(start, whole, expected)?;
        if self.is_zero(start, sector_end)? {
            // Of a length that was written the first bytes are zeros too: four at least, and more where the
            // frame ends as it says, or is right but for its length and as short as that.
            let zeros = sector_end - start;
            let length = whole.saturating_sub(LENGTH_BYTES as u64);
            let says = self.window.get(start, LENGTH_BYTES)? == length.to_be_bytes();
            // Not if it would hold no more than what stands before a value that looks like records.
            let could_be = whole >= FRAME_BYTES_MIN || self.claimed_end(start)? == end;
            let as_it_says = says && could_be;
            let short = u64::from(length.leading_zeros() / 8) >= zeros;
            if zeros > LENGTH_ZEROS_MIN && !as_it_says && !(record && short) {
                return Ok(true);
            }
        }
        // Bytes that with the right length are the record expected were all written.
        if record {
            return Ok(false);
        }
        while sector_end < end {
            let sector = sector_end;
            sector_end = self.sector_end(sector);
            if self.is_zero(sector, sector_end)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Where the sector of a position ends, or the store.
    fn sector_end(&self, position: u64) -> u64 {
        let next = position - position % SECTOR_BYTES + SECTOR_BYTES;
        next.min(self.window.length())
    }

    fn is_zero(&mut self, start: u64, end: u64) -> Thin<bool> {
        let bytes = usize::try_from(end - start).unwrap_or(usize::MAX);
        Ok(zeros::all(self.window.get(start, bytes)?))
    }
}
