//! What is done to a log before it stops, and what it then held.

use std::{
    fmt,
    io::ErrorKind,
    ops::{Range, RangeInclusive},
    time::Duration,
};

use proglog::{
    Compaction, Durability, Error, Log, MemoryBackend, NewRecord, Offset, Options, Retention,
};

use crate::sabotage::{Disk, Prepares};

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

/// A batch of a producer, as it can be sent again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) producer: &'static str,
    first_sequence: u64,
    pub(crate) values: Vec<Vec<u8>>,
    /// Where it was appended, or will be.
    pub(crate) first: u64,
}

impl Sent {
    pub(crate) fn append(&self, log: &Log<Disk>) -> proglog::Result<Range<Offset>> {
        let records = self.values.iter().zip(self.first_sequence..);
        log.append_batch(records.map(|(value, sequence)| {
            NewRecord::new(value)
                .key(key_of(value))
                .timestamp_ms(5)
                .producer(self.producer, sequence)
        }))
    }

    pub(crate) fn next(&self) -> u64 {
        self.first + self.values.len() as u64
    }
}

/// The key of the record of a value. An empty one deletes it.
fn key_of(value: &[u8]) -> &'static [u8] {
    match value.first() {
        Some(first) if first % 3 == 0 => b"",
        Some(first) if first % 3 == 1 => b"other",
        _ => b"key",
    }
}

/// Whose a record is, where it is there.
fn producer_of(log: &Log<Disk>, offset: u64) -> Option<String> {
    let record = log.read(Offset(offset)).ok()?;
    let producer = record.producer()?;
    Some(String::from_utf8_lossy(producer.id).into_owned())
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Held {
    pub(crate) lowest: u64,
    /// From the lowest offset on; none of those that are not there.
    pub(crate) values: Vec<Option<Vec<u8>>>,
    /// The offsets after which no batch goes on.
    pub(crate) ends: Vec<u64>,
    /// The beginnings of batches that were cut on purpose. They are no batches any more: where they are cut
    /// again and that is interrupted, any part of them may be left.
    pub(crate) cut: Vec<RangeInclusive<u64>>,
    /// The batches of producers, none of them cut.
    pub(crate) sent: Vec<Sent>,
    /// How many records were ever to be appended.
    pub(crate) sequences: u64,
}

impl Held {
    pub(crate) fn next(&self) -> u64 {
        self.lowest + self.values.len() as u64
    }

    pub(crate) fn append(&mut self, values: &[Vec<u8>]) {
        self.values.extend(values.iter().cloned().map(Some));
        self.ends.push(self.next());
    }

    /// The batch that is sent next, of one of two producers.
    fn send(&mut self, values: &[Vec<u8>]) -> Sent {
        let first_sequence = self.sequences;
        self.sequences += values.len() as u64;
        Sent {
            producer: ["a", "b"][first_sequence as usize / 2 % 2],
            first_sequence,
            values: values.to_vec(),
            first: self.next(),
        }
    }

    fn skip_to(&mut self, next: u64) {
        self.values.resize((next - self.lowest) as usize, None);
        self.ends.push(next);
    }

    /// Whether an offset has a record, or none was given it yet.
    fn has_record(&self, offset: u64) -> bool {
        let n = offset.checked_sub(self.lowest);
        let value = n.and_then(|n| self.values.get(n as usize));
        value.is_none_or(Option::is_some)
    }

    /// Where the offsets begin that are not there, of which this is the last; the one after it if it is there.
    fn gap_to(&self, last: u64) -> u64 {
        let before = &self.values[..=(last - self.lowest) as usize];
        let gone = before.iter().rev().take_while(|value| value.is_none());
        last + 1 - gone.count() as u64
    }

    /// Takes away what a compaction has, if it may have.
    fn compacted(&mut self, log: &Log<Disk>) -> Result<(), String> {
        let mut found = self.clone();
        for (offset, value) in (self.lowest..).zip(&mut found.values) {
            if matches!(log.read(Offset(offset)), Err(Error::Gap { .. })) {
                *value = None;
            }
        }
        if !self.may_become(&found) {
            return Err(format!("{:?} became {:?}", self.values, found.values));
        }
        // Whose each record is that stayed. What a producer appended last does, whole.
        let producers: Vec<Option<String>> = (self.lowest..self.next())
            .map(|offset| producer_of(log, offset))
            .collect();
        let last_of = |id: &str| producers.iter().rposition(|of| of.as_deref() == Some(id));
        let is_kept = |n: usize| {
            let id = producers[n].as_deref();
            let last = id.and_then(last_of);
            last.is_some_and(|last| producers[n..=last].iter().all(|of| of.as_deref() == id))
        };
        for sent in &self.sent {
            let last = self
                .sent
                .iter()
                .rfind(|other| other.producer == sent.producer);
            let is_last = last.is_some_and(|last| last.first == sent.first);
            let was_cut = (sent.next()..self.next())
                .any(|n| producers[(n - self.lowest) as usize].as_deref() == Some(sent.producer));
            if is_last && !was_cut && self.has_all_of(sent) && !found.has_all_of(sent) {
                return Err(format!("{sent:?} was not kept in {:?}", found.values));
            }
        }
        let active = log.segments().last().map_or(0, |last| last.base.0);
        let sealed = active.saturating_sub(self.lowest) as usize;
        for (n, value) in found.values.iter().enumerate().take(sealed) {
            if value.is_some() && self.is_obsolete(n, &self.values) && !is_kept(n) {
                return Err(format!("number {n} was left in {:?}", found.values));
            }
        }
        *self = found;
        self.forget_sent();
        Ok(())
    }

    /// Whether nothing of a batch was compacted, retained no longer, or never appended: so that it is known again.
    pub(crate) fn has_all_of(&self, sent: &Sent) -> bool {
        sent.first >= self.lowest
            && sent.next() <= self.next()
            && (sent.first..sent.next())
                .all(|offset| self.values[(offset - self.lowest) as usize].is_some())
    }

    /// Forgets what was sent of which not all is there.
    pub(crate) fn forget_sent(&mut self) {
        let sent = std::mem::take(&mut self.sent);
        let kept = sent.into_iter().filter(|sent| self.has_all_of(sent));
        self.sent = kept.collect();
    }

    /// Whether a later one of `values` has the key of number `n`.
    fn is_obsolete(&self, n: usize, values: &[Option<Vec<u8>>]) -> bool {
        let key = self.values[n]
            .as_deref()
            .map(key_of)
            .filter(|key| !key.is_empty());
        let later = values.iter().skip(n + 1).flatten();
        key.is_some_and(|key| later.into_iter().any(|later| key_of(later) == key))
    }

    /// Whether a compaction may leave this of it, or of its beginning.
    fn may_become(&self, found: &Self) -> bool {
        let beginning = &self.values[(found.lowest - self.lowest) as usize..];
        let skipped = self.values.len() - beginning.len();
        let is_same = |(n, now): (usize, &Option<Vec<u8>>)| match (&beginning[n], now) {
            (before, now) if before == now => true,
            (Some(value), None) => {
                let end = skipped + found.values.len();
                let is_deletion = value.is_empty()
                    && !found.values[..n]
                        .iter()
                        .flatten()
                        .any(|older| key_of(older) == key_of(value));
                is_deletion || self.is_obsolete(n + skipped, &self.values[..end])
            }
            _ => false,
        };
        found.values.len() <= beginning.len() && found.values.iter().enumerate().all(is_same)
    }

    pub(crate) fn lengths(&self) -> Vec<Option<usize>> {
        let length = |value: &Option<Vec<u8>>| value.as_ref().map(Vec::len);
        self.values.iter().map(length).collect()
    }

    /// What a step leaves, of which the log says how much it took away.
    fn after(
        &mut self,
        step: &Step,
        sent: Option<Sent>,
        log: &Log<Disk>,
        retained_bytes: Option<u64>,
    ) -> Result<(), String> {
        match step {
            Step::Append(values) => {
                self.append(values);
                self.sent.extend(sent);
            }
            Step::TruncateAfter(offset) => {
                let next = offset + 1;
                self.values.truncate((next - self.lowest) as usize);
                self.sent.retain(|sent| sent.next() <= next);
                let whole = self.ends.contains(&next);
                self.ends.retain(|&end| end < next);
                if !whole {
                    let first = self.ends.last().copied().unwrap_or(self.lowest);
                    self.cut.push(first..=next);
                }
                self.ends.push(next);
            }
            Step::Reset => {
                *self = Self {
                    sequences: self.sequences,
                    ..Self::default()
                }
            }
            Step::SkipTo(next) => self.skip_to(*next),
            Step::Compact => self.compacted(log)?,
            Step::Sync | Step::TruncateBefore(_) | Step::Reopen | Step::Reserve(_) => {}
        }
        let (lowest, next) = (log.lowest_offset().0, log.next_offset().0);
        let most = match step {
            Step::TruncateBefore(offset) => *offset,
            Step::Append(_) | Step::SkipTo(_) if retained_bytes.is_some() => next,
            _ => self.lowest,
        };
        if next != self.next() || lowest < self.lowest || lowest > most {
            return Err(format!(
                "{self:?} after {step:?}, but the log has {lowest}..{next}"
            ));
        }
        self.values.drain(..(lowest - self.lowest) as usize);
        self.lowest = lowest;
        self.sent.retain(|sent| sent.first >= lowest);
        Ok(())
    }
}

/// Where a workload stopped: what the log held before the last step, and that step unless it was done.
#[derive(Clone)]
pub(crate) struct Stopped {
    pub(crate) held: Held,
    pub(crate) in_step: Option<Step>,
    /// The log's own word for what was on stable storage.
    pub(crate) durable: u64,
    pub(crate) durability: Durability,
    /// What a producer was appending.
    pub(crate) sending: Option<Sent>,
    retained_bytes: Option<u64>,
}

impl Stopped {
    /// Whether the records before this offset belong to a batch that was cut before and is being cut again.
    fn is_being_cut(&self, next: u64) -> bool {
        matches!(self.in_step, Some(Step::TruncateAfter(_)))
            && self.held.cut.iter().any(|batch| batch.contains(&next))
    }

    /// Whether the log may hold this, when all records below `kept` were promised.
    pub(crate) fn may_hold(&self, found: &Held, kept: u64) -> bool {
        let mut most = self.held.clone();
        let mut lowest_max = most.lowest;
        let mut kept = kept;
        match &self.in_step {
            Some(Step::Append(values)) => {
                most.append(values);
                if self.retained_bytes.is_some() {
                    lowest_max = most.next();
                }
            }
            Some(Step::TruncateBefore(offset)) => lowest_max = *offset,
            Some(Step::TruncateAfter(offset)) => {
                most.ends.push(offset + 1);
                // What tells of offsets that are not there, and is to be cut, goes whole, before what is left of them is
                // told anew.
                if (most.lowest..most.next()).contains(offset) && !most.has_record(offset + 1) {
                    let gap = most.gap_to(*offset);
                    most.ends.extend(gap..=*offset);
                    kept = kept.min(gap);
                }
                kept = kept.min(offset + 1);
            }
            Some(Step::SkipTo(next)) => {
                most.skip_to(*next);
                if self.retained_bytes.is_some() {
                    lowest_max = most.next();
                }
            }
            Some(Step::Reset) if found.lowest == 0 && found.values.is_empty() => return true,
            Some(Step::Reset) => kept = 0,
            None | Some(Step::Sync | Step::Reopen | Step::Reserve(_) | Step::Compact) => {}
        }
        let next = found.next();
        (most.lowest..=lowest_max).contains(&found.lowest)
            && next >= kept
            && (next == found.lowest || most.ends.contains(&next) || self.is_being_cut(next))
            && match self.in_step {
                Some(Step::Compact) => most.may_become(found),
                _ => {
                    most.values[(found.lowest - most.lowest) as usize..].starts_with(&found.values)
                }
            }
    }
}

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Held { lowest, ends, .. } = &self.held;
        write!(
            f,
            "held from {lowest} on values of {:?} bytes in batches that end before {ends:?}, {} durable, ",
            self.held.lengths(),
            self.durable
        )?;
        match &self.in_step {
            Some(Step::Append(values)) => {
                let lengths: Vec<_> = values.iter().map(Vec::len).collect();
                write!(f, "in an append of {lengths:?}")
            }
            step => write!(f, "in {step:?}"),
        }
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
