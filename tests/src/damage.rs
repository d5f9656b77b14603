//! A log's files before and after they were damaged, byte for byte, and what of it is still there: told by comparing
//! bytes, with nothing of the core's recovery.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use fastrand::Rng;
use proglog::{Compaction, Durability, FsBackend, Log, NewRecord, Offset, Options};
use tempfile::TempDir;

use crate::{
    schema::{Fields, frames, index_of},
    subject::Files,
};

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

/// A directory in memory, where that can be: a thousand logs are many syncs.
///
/// # Panics
///
/// The file system fails.
#[must_use]
pub fn memory_directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.unwrap()
}

/// A random log, closed or as a killed process leaves it.
///
/// # Panics
///
/// The file system fails.
#[must_use]
pub fn written(directory: &Path, options: &Options, rng: &mut Rng) -> (Original, bool) {
    let written = directory.join("written");
    fs::create_dir(&written).unwrap();
    if rng.u8(0..3) == 0 {
        let store: Vec<u8> = (0..rng.u64(1..8))
            .flat_map(|n| Fields::new(n, bytes(rng)).book_frame())
            .collect();
        fs::write(written.join("0.index"), index_of(&store)).unwrap();
        fs::write(written.join("0.store"), store).unwrap();
    }
    let durability = [Durability::Buffered, Durability::Written][rng.usize(0..2)];
    let options = options.clone().durability(durability);
    let log = Log::open_on(FsBackend::open(&written).unwrap(), options).unwrap();
    for _ in 0..rng.usize(1..40) {
        let key = format!("key {}", rng.u8(0..8));
        let value = bytes(rng);
        match rng.u8(0..20) {
            0 => {
                // Among records, or a segment of its own.
                let offsets = [rng.u64(1..30), 5000][usize::from(rng.u8(0..4) == 0)];
                log.skip_to(log.next_offset().plus(offsets)).unwrap();
            }
            1 => drop(
                log.compact(&Compaction::new().tombstones_kept(Duration::ZERO))
                    .unwrap(),
            ),
            2 => log
                .truncate_before(Offset(log.next_offset().0 / 4))
                .unwrap(),
            3..8 => {
                let records = (0..rng.usize(2..5)).map(|_| NewRecord::new(&value).key(&key));
                log.append_batch(records).unwrap();
            }
            8..13 => drop(log.append(NewRecord::new(&value).key(&key)).unwrap()),
            _ => drop(log.append(NewRecord::new(&value)).unwrap()),
        }
    }
    log.sync().unwrap();
    let closed = rng.bool();
    let files = if closed {
        log.close().unwrap();
        files_in(&written)
    } else {
        let files = files_in(&written);
        drop(log);
        files
    };
    fs::remove_dir_all(&written).unwrap();
    (Original::of(files), closed)
}

fn bytes(rng: &mut Rng) -> Vec<u8> {
    let length = [0, rng.usize(0..30), rng.usize(0..300)][rng.usize(0..3)];
    let fill = rng.u8(b'a'..=b'z');
    (0..length)
        .map(|_| if rng.bool() { fill } else { rng.u8(..) })
        .collect()
}

/// Damages some of its files, and writes them.
///
/// # Panics
///
/// The file system fails.
pub fn damaged(directory: &Path, original: &Original, rng: &mut Rng) -> BTreeMap<String, Damaged> {
    let names: Vec<&String> = original.files.keys().collect();
    let mut damaged: BTreeMap<String, Damaged> = original
        .files
        .iter()
        .map(|(name, bytes)| (name.clone(), Damaged::not_yet(bytes)))
        .collect();
    for _ in 0..rng.usize(1..6) {
        let name = names[rng.usize(0..names.len())];
        if name.ends_with(".index") && rng.bool() {
            continue;
        }
        if rng.u8(0..12) == 0 && damaged.len() > 1 {
            damaged.remove(name);
        } else if let Some(file) = damaged.get_mut(name) {
            let frames = original.frames.iter();
            let of_file = frames.filter(|frame| format!("{}.store", frame.base) == **name);
            let within = of_file.map(|frame| frame.position + frame.bytes.len());
            file.damage(within.max().unwrap_or(48), rng);
        }
    }
    for (name, file) in &damaged {
        fs::write(directory.join(name), file.bytes()).unwrap();
    }
    damaged
}

/// The files of a directory.
///
/// # Panics
///
/// The file system fails.
#[must_use]
pub fn files_in(directory: &Path) -> Files {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    files
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}
