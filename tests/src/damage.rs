//! A log's files before and after they were damaged, byte for byte, and what of it is still there: told by comparing
//! bytes, with nothing of the core's recovery.

use std::{collections::BTreeMap, ops::Range};

use fastrand::Rng;

use crate::{schema::frames, subject::Files};

/// A log as it was written.
#[derive(Debug)]
pub struct Original {
    /// Its files.
    pub files: Files,
    /// Its frames, in order.
    pub frames: Vec<Frame>,
    /// Its lowest offset.
    pub lowest: u64,
    /// The offset after its last.
    pub next: u64,
}

/// A frame as it was written.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The base of its segment.
    pub base: u64,
    /// Where it stands in the store.
    pub position: usize,
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// The offset it is of; the first one of a gap.
    pub first: u64,
    /// The last one of a gap; otherwise the same.
    pub last: u64,
    /// Whether it tells of a gap.
    pub is_gap: bool,
    /// Whether it has a checksum.
    pub is_checked: bool,
    /// The first offset of the batch that its record is of.
    pub batch_first: u64,
}

impl Original {
    /// Of the files of a sound log, with as many bytes of each store as are frames.
    ///
    /// # Panics
    ///
    /// They are not those of a sound log.
    #[must_use]
    pub fn of(files: Files) -> Self {
        let mut found: Vec<Frame> = Vec::new();
        let mut batch_first;
        for base in bases(&files) {
            let store = &files[&format!("{base}.store")];
            let mut position = 0;
            batch_first = None;
            for bytes in frames(store) {
                let fields = numbers(&bytes[8..]);
                if bytes.len() == 8 && base + position as u64 > 0 {
                    // Zeros that were prepared.
                    break;
                }
                let number = |field| fields.get(&field).copied().unwrap_or(0);
                let last = number(2);
                let first = last + 1 - number(12).max(1);
                let is_gap = fields.contains_key(&12);
                let begins = batch_first.unwrap_or(first);
                if !is_gap {
                    batch_first = (number(8) > 0).then_some(begins);
                }
                found.push(Frame {
                    base,
                    position,
                    bytes: bytes.to_vec(),
                    first,
                    last,
                    is_gap,
                    is_checked: fields.contains_key(&15),
                    batch_first: begins,
                });
                position += bytes.len();
            }
        }
        let lowest = bases(&files)[0];
        let next = found.last().map_or(lowest, |frame| frame.last + 1);
        Self {
            files,
            frames: found,
            lowest,
            next,
        }
    }
}

/// The bases of the stores among files, in order.
#[must_use]
pub fn bases(files: &Files) -> Vec<u64> {
    let stores = files.keys().filter_map(|name| name.strip_suffix(".store"));
    let mut bases: Vec<u64> = stores.filter_map(|base| base.parse().ok()).collect();
    bases.sort_unstable();
    bases
}

/// The fields of a record that are numbers, and the checksum.
fn numbers(mut record: &[u8]) -> BTreeMap<u64, u64> {
    let varint = |record: &mut &[u8]| {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = record[0];
            *record = &record[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    let mut found = BTreeMap::new();
    while !record.is_empty() {
        let tag = varint(&mut record);
        match tag & 7 {
            0 => drop(found.insert(tag >> 3, varint(&mut record))),
            1 => {
                found.insert(tag >> 3, 0);
                record = &record[8..];
            }
            _ => {
                let bytes = usize::try_from(varint(&mut record)).expect("a short field");
                record = &record[bytes..];
            }
        }
    }
    found
}

/// A file that was damaged, and where each of its bytes stood before.
#[derive(Clone, Debug)]
pub struct Damaged {
    bytes: Vec<(u8, Option<usize>)>,
}

impl Damaged {
    /// Not yet.
    #[must_use]
    pub fn not_yet(bytes: &[u8]) -> Self {
        let bytes = bytes.iter().enumerate().map(|(n, &byte)| (byte, Some(n)));
        Self {
            bytes: bytes.collect(),
        }
    }

    /// Its bytes by now.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.iter().map(|(byte, _)| *byte).collect()
    }

    /// Damages it within its first `bytes` bytes, or what follows them.
    pub fn damage(&mut self, within: usize, rng: &mut Rng) {
        let within = within.min(self.bytes.len());
        let at = rng.usize(0..=within);
        let length = [1, rng.usize(1..20), rng.usize(1..700)][rng.usize(0..3)];
        let end = (at + length).min(self.bytes.len());
        match rng.u8(0..9) {
            0..3 if at < self.bytes.len() => self.bytes[at].0 ^= 1 << rng.u8(0..8),
            3 => self.bytes[at..end].iter_mut().for_each(|byte| byte.0 = 0),
            4 => {
                let overwritten = self.bytes[at..end].iter_mut();
                overwritten.for_each(|byte| byte.0 = rng.u8(..));
            }
            5 => self.bytes.truncate(at),
            6 if within > 1 => {
                let (a, b) = (rng.usize(0..within), rng.usize(0..within));
                let (of_a, of_b) = (self.bytes[a].0, self.bytes[b].0);
                (self.bytes[a].0, self.bytes[b].0) = (of_b, of_a);
            }
            7 => {
                let at = if rng.bool() { at } else { within };
                let garbage: Vec<_> = (at..at + length).map(|_| (rng.u8(..), None)).collect();
                self.bytes.splice(at..at, garbage);
            }
            _ => drop(self.bytes.drain(at..end)),
        }
    }

    /// Whether bytes of a part of it are new.
    #[must_use]
    pub fn has_inserted(&self, part: Range<usize>) -> bool {
        let part = self.bytes.get(part).unwrap_or_default();
        part.iter().any(|byte| byte.1.is_none())
    }

    /// Where a frame stands by now, if it stands there with every byte.
    #[must_use]
    pub fn position_of(&self, frame: &Frame) -> Option<usize> {
        let first = frame.position;
        let at = self.bytes.iter().position(|byte| byte.1 == Some(first))?;
        let now = self.bytes.get(at..at + frame.bytes.len())?;
        let mut stand = now.iter().zip(&frame.bytes).zip(first..);
        stand
            .all(|((now, &before), n)| *now == (before, Some(n)))
            .then_some(at)
    }
}
