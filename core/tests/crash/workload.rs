//! What is done to a log before it stops.

use std::{io::ErrorKind, time::Duration};

use proglog::{
    Compaction, Durability, Error, Log, MemoryBackend, NewRecord, Offset, Options, Retention,
};

use crate::{
    held::{Held, Sent, Stopped},
    sabotage::{Disk, Prepares},
};

/// How long a seeded workload is.
const STEPS: usize = 10;

/// The steps of short workloads, all of which are tried.
const ALPHABET: [&str; 12] = [
    "small", "large", "batch", "huge", "sync", "before", "after", "reset", "reopen", "reserve",
    "skip", "compact",
];

/// One step of a workload.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Append(Vec<Vec<u8>>),
    Sync,
    TruncateBefore(u64),
    TruncateAfter(u64),
    Reset,
    Reopen,
    Reserve(u64),
    SkipTo(u64),
    Compact,
}

/// A workload, by the number that tells all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Of so many steps of the alphabet.
    Short {
        steps: u32,
        number: u64,
    },
    Seeded(u64),
}

impl Workload {
    /// All workloads of so many steps.
    pub(crate) fn short(steps: u32) -> impl Iterator<Item = Self> {
        (0..(ALPHABET.len() as u64).pow(steps)).map(move |number| Self::Short { steps, number })
    }

    /// How the disk prepares stores ahead: in each way by turns.
    pub(crate) fn prepares(self) -> Prepares {
        let number = match self {
            Self::Short { steps, number } => (0..steps).map(|at| letter(number, at)).sum(),
            // Some with each of the options.
            Self::Seeded(seed) => seed / 4,
        };
        [Prepares::Nothing, Prepares::Files, Prepares::Zeros][number as usize % 3]
    }

    /// Whether a producer appends: in every other two.
    fn has_producers(self) -> bool {
        match self {
            Self::Short { steps, number } => {
                let sum: u64 = (0..steps).map(|at| letter(number, at)).sum();
                sum / 2 % 2 == 1
            }
            Self::Seeded(seed) => seed / 8 % 2 == 1,
        }
    }

    pub(crate) fn options(self) -> Options {
        let segment_bytes_max = match self {
            Self::Short { .. } => 1800,
            // Records larger than a segment, some records to one, or all in one.
            Self::Seeded(seed) => [600, 1500, 6000, 1 << 20][seed as usize % 4],
        };
        let retention = match self.retained_bytes() {
            Some(bytes_max) => Retention::new().bytes_max(bytes_max),
            None => Retention::new(),
        };
        Options::new()
            .segment_bytes_max(segment_bytes_max)
            .index_bytes_max(12 * 20)
            .retention(retention)
    }

    /// How many bytes are kept, if not all are: in every third.
    pub(crate) fn retained_bytes(self) -> Option<u64> {
        match self {
            Self::Seeded(seed) if seed % 3 == 2 => Some(4000),
            _ => None,
        }
    }

    fn steps(self) -> usize {
        match self {
            Self::Short { steps, .. } => steps as usize,
            Self::Seeded(_) => STEPS,
        }
    }

    fn step(self, at: usize, held: &Held, random: &mut Random) -> Step {
        match self {
            Self::Seeded(_) => random.step(held),
            Self::Short { number, .. } => {
                let letter = ALPHABET[letter(number, at as u32) as usize];
                let mut values = |lengths: &[u64]| {
                    Step::Append(lengths.iter().map(|&n| random.value(n, held)).collect())
                };
                match letter {
                    "small" => values(&[20]),
                    "large" => values(&[900]),
                    "batch" => values(&[300, 0, 500]),
                    "huge" => values(&[2500]),
                    "sync" => Step::Sync,
                    "before" => Step::TruncateBefore(held.next()),
                    "after" if held.values.is_empty() => Step::Sync,
                    // Of three records two are left, of two one.
                    "after" => {
                        Step::TruncateAfter(held.lowest + (held.values.len() as u64 - 1) / 2)
                    }
                    "reset" => Step::Reset,
                    "reserve" => Step::Reserve(4000),
                    // Among records, or so many that they are a segment of their own.
                    "skip" => Step::SkipTo(held.next() + [3, 30][(number as usize + at) % 2]),
                    "compact" => Step::Compact,
                    _ => Step::Reopen,
                }
            }
        }
    }

    /// Does it to a log that holds `held`, until something fails or it is done. The log is left as by
    /// `kill -9`. An error says what the log did wrong all by itself.
    pub(crate) fn run(
        self,
        disk: &Disk,
        held: Held,
        durability: Durability,
    ) -> Result<Stopped, String> {
        let options = self.options().durability(durability);
        let mut random = Random(match self {
            Self::Seeded(seed) => seed,
            Self::Short { number, .. } => number,
        });
        let mut stopped = Stopped {
            durable: held.next(),
            held,
            in_step: Some(Step::Reopen),
            durability,
            sending: None,
            retained_bytes: self.retained_bytes(),
        };
        let Ok(mut log) = Log::open_on(disk.clone(), options.clone()) else {
            return Ok(stopped);
        };
        for at in 0..self.steps() {
            let step = self.step(at, &stopped.held, &mut random);
            stopped.in_step = Some(step.clone());
            stopped.sending = None;
            if let Step::Append(values) = &step {
                let sent = stopped.held.send(values);
                stopped.sending = Some(sent).filter(|_| self.has_producers());
            }
            if let Step::Reopen = step {
                let closed = log.close();
                match closed.and_then(|()| Log::open_on(disk.clone(), options.clone())) {
                    Ok(opened) => log = opened,
                    Err(_) => return Ok(stopped),
                }
            } else if apply(&log, &step, stopped.sending.as_ref()).is_err() || disk.is_dead() {
                disk.kill(log);
                return Ok(stopped);
            }
            stopped
                .held
                .after(&step, stopped.sending.take(), &log, stopped.retained_bytes)?;
            stopped.durable = log.durable_offset().0;
            if stopped.durable < stopped.held.next()
                && (durability == Durability::Synced || matches!(step, Step::Sync))
            {
                return Err(format!("{step:?} left records that are not durable"));
            }
        }
        disk.kill(log);
        stopped.in_step = None;
        Ok(stopped)
    }
}

/// Which letter of the alphabet a short workload has at a step.
fn letter(number: u64, at: u32) -> u64 {
    let letters = ALPHABET.len() as u64;
    number / letters.pow(at) % letters
}

fn apply(log: &Log<Disk>, step: &Step, sending: Option<&Sent>) -> proglog::Result<()> {
    match step {
        Step::Append(_) if let Some(sending) = sending => sending.append(log).map(drop),
        Step::Append(values) => {
            let records = values
                .iter()
                .map(|value| NewRecord::new(value).key(key_of(value)).timestamp_ms(5));
            log.append_batch(records).map(drop)
        }
        Step::Sync => log.sync(),
        Step::TruncateBefore(offset) => log.truncate_before(Offset(*offset)),
        Step::TruncateAfter(offset) => log.truncate_after(Offset(*offset)),
        Step::Reset => log.reset(),
        Step::Reserve(bytes) => match log.reserve(*bytes) {
            // A full disk is no failure of the log.
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::StorageFull => Ok(()),
            reserved => reserved,
        },
        Step::SkipTo(next) => log.skip_to(Offset(*next)),
        Step::Compact => {
            let compaction = Compaction::new().tombstones_kept(Duration::ZERO);
            let compacted = log.compact(&compaction)?;
            match compacted.left_alone.first() {
                // The disk is full, or broken.
                Some(left) => Err(Error::InvalidArgument(format!("{left:?}"))),
                None => Ok(()),
            }
        }
        Step::Reopen => Ok(()),
    }
}

/// The key of the record of a value. An empty one deletes it.
pub(crate) fn key_of(value: &[u8]) -> &'static [u8] {
    match value.first() {
        Some(first) if first % 3 == 0 => b"",
        Some(first) if first % 3 == 1 => b"other",
        _ => b"key",
    }
}

/// A small generator, so that a seed tells the whole workload.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn step(&mut self, held: &Held) -> Step {
        match self.below(29) {
            0..14 => {
                let count = [1, 1, 2, 4][self.below(4) as usize];
                Step::Append((0..count).map(|_| self.sized_value(held)).collect())
            }
            14..16 => Step::Sync,
            16 | 17 => Step::TruncateBefore(held.lowest + self.below(held.values.len() as u64 + 1)),
            18..21 if !held.values.is_empty() => {
                Step::TruncateAfter(held.lowest + self.below(held.values.len() as u64))
            }
            21 => Step::Reset,
            22 => Step::Reserve(self.below(9000)),
            23 | 24 => Step::SkipTo(held.next() + [1, 3, 60][self.below(3) as usize]),
            25..28 => Step::Compact,
            _ => Step::Reopen,
        }
    }

    fn sized_value(&mut self, held: &Held) -> Vec<u8> {
        // None, within a sector, over some, over several of the larger ones; seldom that much.
        let below = [1, 40, 700, 700, 700, 3000, 3000, 9000][self.below(8) as usize];
        let length = self.below(below);
        self.value(length, held)
    }

    fn value(&mut self, length: u64, held: &Held) -> Vec<u8> {
        let first = self.below(256);
        match self.below(12) {
            0 => vec![0; length as usize],
            1 if length > 60 => records_like_the_next(held.next() + 1, length),
            _ => (0..length).map(|i| (first + i) as u8).collect(),
        }
    }
}

/// A value that is a piece of a log, whose records would fit after this one.
fn records_like_the_next(next: u64, length: u64) -> Vec<u8> {
    let files = MemoryBackend::new();
    let options = Options::new().initial_offset(next);
    let log = Log::open_on(files.clone(), options).expect("a log in memory");
    for _ in 0..length / 60 {
        log.append(NewRecord::new("never appended").timestamp_ms(5))
            .expect("room");
    }
    log.close().expect("a log in memory");
    let mut value = files.get(&format!("{next}.store")).unwrap_or_default();
    value.resize(length as usize, 1);
    value
}
