//! The frame that floors write: proglog's length and checksum around the bare value.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

pub const LENGTH_BYTES: usize = 8;
/// A tag and XXH3-64.
pub const CHECKSUM_BYTES: usize = 9;
const CHECKSUM_TAG: u8 = 0x79;

pub const fn frame_bytes(value_bytes: usize) -> usize {
    LENGTH_BYTES + value_bytes + CHECKSUM_BYTES
}

/// Writes a frame into `out`, which is as long as the frame.
#[inline]
pub fn encode(value: &[u8], out: &mut [u8], checked: bool) {
    let covered = LENGTH_BYTES + value.len();
    out[..LENGTH_BYTES].copy_from_slice(&length(value));
    out[LENGTH_BYTES..covered].copy_from_slice(value);
    let checksum = if checked { xxh3_64(&out[..covered]) } else { 0 };
    out[covered..].copy_from_slice(&checksum_field(checksum));
}

/// What stands before and after a value that is written without a copy.
pub fn around(value: &[u8]) -> ([u8; LENGTH_BYTES], [u8; CHECKSUM_BYTES]) {
    let length = length(value);
    let mut hash = Xxh3::new();
    hash.update(&length);
    hash.update(value);
    (length, checksum_field(hash.digest()))
}

/// The value of the frame at `at`, if there is one and, if asked, its checksum is right.
#[inline]
pub fn decode(bytes: &[u8], at: usize, checked: bool) -> Option<&[u8]> {
    let length = bytes.get(at..at + LENGTH_BYTES)?;
    let record_bytes = u64::from_be_bytes(length.try_into().ok()?) as usize;
    let frame = bytes.get(at..at.checked_add(LENGTH_BYTES + record_bytes)?)?;
    let (covered, field) = frame.split_at_checked(frame.len().checked_sub(CHECKSUM_BYTES)?)?;
    if field[0] != CHECKSUM_TAG {
        return None;
    }
    if checked && xxh3_64(covered) != u64::from_le_bytes(field[1..].try_into().ok()?) {
        return None;
    }
    covered.get(LENGTH_BYTES..)
}

fn length(value: &[u8]) -> [u8; LENGTH_BYTES] {
    ((value.len() + CHECKSUM_BYTES) as u64).to_be_bytes()
}

fn checksum_field(checksum: u64) -> [u8; CHECKSUM_BYTES] {
    let mut field = [CHECKSUM_TAG; CHECKSUM_BYTES];
    field[1..].copy_from_slice(&checksum.to_le_bytes());
    field
}
