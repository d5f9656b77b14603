//! Who appended what last, so that what is appended again is there once.
//!
//! Nothing of it is on disk but what the records themselves say: it is read from the end of the log when it is first
//! needed, and then kept up by appends.

mod window;

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{Arc, MutexGuard, PoisonError},
};

use self::window::{WINDOW, first_in};
use super::{Shared, append::Writer};
use crate::{
    AppendOptions, Backend, Durability, Error, Offset, Producer, ProducerLast, Record, error::Thin,
};

/// So many producers are remembered: those that appended last.
const PRODUCERS_MAX: usize = 1024;
/// So many ends of what they appended are kept to find who has not for longest.
const ENDS_MAX: usize = 4 * PRODUCERS_MAX;
/// Of each producer so many batches are remembered, or records that were appended alone.
const BATCHES_MAX: usize = 16;
/// How much of them is read at a time.
const READ_BYTES: usize = 256 << 10;

/// A producer's id, with zeros after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id([u8; Producer::ID_BYTES_MAX], u8);

impl Id {
    fn of(id: &[u8]) -> Option<Self> {
        let mut bytes = [0; Producer::ID_BYTES_MAX];
        bytes.get_mut(..id.len())?.copy_from_slice(id);
        Some(Self(bytes, u8::try_from(id.len()).ok()?))
    }

    /// That of one who appends, or asks.
    pub(super) fn checked(id: &[u8]) -> Thin<Self> {
        Self::of(id).filter(|_| !id.is_empty()).ok_or_else(|| {
            let bytes = id.len();
            let bytes_max = Producer::ID_BYTES_MAX;
            Error::invalid(format!(
                "a producer's id has {bytes} bytes; give 1 to {bytes_max}"
            ))
        })
    }
}

/// Records of one producer that are appended together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbered {
    id: Id,
    sequences: Sequences,
}

/// How a producer numbers such records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sequences {
    first: u64,
    last: u64,
    count: u64,
}

impl Sequences {
    fn one(sequence: u64) -> Self {
        Self {
            first: sequence,
            last: sequence,
            count: 1,
        }
    }

    fn and(self, later: Self) -> Self {
        Self {
            first: self.first,
            last: later.last,
            count: self.count + later.count,
        }
    }
}

impl Numbered {
    /// Of records with these producers: `None` if they have none.
    pub(super) fn of<'a>(
        mut producers: impl Iterator<Item = Option<Producer<'a>>>,
    ) -> Thin<Option<Self>> {
        let refuse = |what: &str| Err(Error::invalid(what.to_owned()));
        let mixed = "the records of the batch are not all of one producer; append those of each by themselves";
        let Some(Some(first)) = producers.next() else {
            return if producers.all(|producer| producer.is_none()) {
                Ok(None)
            } else {
                refuse(mixed)
            };
        };
        let mut numbered = Self {
            id: Id::checked(first.id)?,
            sequences: Sequences::one(first.sequence),
        };
        for producer in producers {
            let Some(Producer { sequence, .. }) =
                producer.filter(|producer| Id::of(producer.id) == Some(numbered.id))
            else {
                return refuse(mixed);
            };
            if sequence <= numbered.sequences.last {
                return refuse(
                    "the producer's sequence does not increase from each record of the batch to the next; \
                     give each a higher one than the one before",
                );
            }
            numbered.sequences = numbered.sequences.and(Sequences::one(sequence));
        }
        Ok(Some(numbered))
    }
}

/// Records that were appended together, and where.
#[derive(Clone, Copy, Debug)]
struct Appended {
    sequences: Sequences,
    first: Offset,
}

impl Appended {
    fn end(&self) -> Offset {
        self.first.plus(self.sequences.count)
    }

    fn last(&self) -> ProducerLast {
        let offset = Offset(self.end().0.saturating_sub(1));
        ProducerLast::new(self.sequences.last, offset)
    }
}

/// What is known of records that are to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// They come after all that their producer appended.
    New,
    /// They were appended, from this offset on.
    Before(Offset),
    /// They do not, and are not remembered.
    Passed(ProducerLast),
}

/// The producers that appended last.
#[derive(Debug, Default)]
pub(super) struct Producers {
    /// What each of them appended last, oldest first: never nothing.
    appended: HashMap<Id, VecDeque<Appended>>,
    /// Who appended, oldest first, and where that ended: each of them, and also some who appended again since.
    by_end: VecDeque<(Offset, Id)>,
}

impl Producers {
    fn known(&self, numbered: &Numbered) -> Known {
        let sequences = numbered.sequences;
        let Some(appended) = self.appended.get(&numbered.id) else {
            return Known::New;
        };
        let last = match appended.back().map(Appended::last) {
            Some(last) if sequences.first <= last.sequence => last,
            _ => return Known::New,
        };
        // As they were appended; or in parts, with nothing of others between them.
        for (at, first) in appended.iter().enumerate() {
            let mut whole = *first;
            let mut later = appended.range(at + 1..);
            while whole.sequences != sequences
                && let Some(next) = later.next()
                && next.first == whole.end()
            {
                whole.sequences = whole.sequences.and(next.sequences);
            }
            if whole.sequences == sequences {
                return Known::Before(whole.first);
            }
        }
        Known::Passed(last)
    }

    /// The last record of a producer.
    pub(super) fn last(&self, id: Id) -> Option<ProducerLast> {
        Some(self.appended.get(&id)?.back()?.last())
    }

    /// The offsets of what each of them appended last, lowest first.
    fn last_batches(&self) -> Vec<Range<Offset>> {
        let ends = self.by_end.iter();
        let last = ends.filter_map(|&(end, id)| Some(last_to(&self.appended, id, end)?.first..end));
        last.collect()
    }

    /// Remembers records that were appended after all others.
    pub(super) fn note(&mut self, numbered: &Numbered, first: Offset) {
        let Numbered { id, sequences } = *numbered;
        let new = Appended { sequences, first };
        let appended = self.appended.entry(id).or_default();
        if let Some(last) = appended.back()
            && last.sequences.last >= sequences.first
        {
            // When these were appended, those before were forgotten.
            appended.clear();
        }
        if appended.len() == BATCHES_MAX {
            appended.pop_front();
        }
        appended.push_back(new);
        self.by_end.push_back((new.end(), id));
        if self.by_end.len() > ENDS_MAX {
            let appended = &self.appended;
            self.by_end
                .retain(|&(end, id)| last_to(appended, id, end).is_some());
        }
        while self.appended.len() > PRODUCERS_MAX
            && let Some((end, id)) = self.by_end.pop_front()
        {
            if last_to(&self.appended, id, end).is_some() {
                self.appended.remove(&id);
            }
        }
    }
}

/// What a producer appended last, if it ends there.
fn last_to(appended: &HashMap<Id, VecDeque<Appended>>, id: Id, end: Offset) -> Option<&Appended> {
    let last = appended.get(&id)?.back()?;
    (last.end() == end).then_some(last)
}

/// Whether records may be appended.
pub(super) enum Admitted<'a, B: Backend> {
    /// By who holds this.
    Now(MutexGuard<'a, Writer<B>>),
    /// They were already.
    Before(Range<Offset>),
}

impl<B: Backend> Shared<B> {
    /// Lets records be appended that come where they are expected and were not appended before, or are copied. What it tells of
    /// others is as durable as was asked.
    pub(super) fn admit(
        self: &Arc<Self>,
        numbered: Option<&Numbered>,
        options: AppendOptions,
        durability: Durability,
    ) -> Thin<Admitted<'_, B>> {
        let mut writer = match numbered {
            Some(_) => self.writer_with_producers()?,
            None => self.writer()?,
        };
        // First, for what was appended is no longer where it would come.
        if let (Some(numbered), Some(producers)) = (numbered, writer.producers())
            && !options.copied
        {
            match producers.known(numbered) {
                Known::New => {}
                Known::Before(first) => {
                    let end = first.plus(numbered.sequences.count);
                    self.keep_promise_of_before(writer, end, durability)?;
                    return Ok(Admitted::Before(first..end));
                }
                Known::Passed(last) => {
                    self.keep_promise_of_before(writer, last.offset.next(), durability)?;
                    return Err(Error::SequenceConflict {
                        sequence: numbered.sequences.first,
                        last_sequence: last.sequence,
                        last_offset: last.offset,
                    }
                    .into());
                }
            }
        }
        let next_offset = writer.active().next_offset();
        match options.expected_next_offset {
            Some(expected) if expected != next_offset => {
                self.keep_promise_of_before(writer, next_offset, durability)?;
                Err(Error::Conflict {
                    expected,
                    next_offset,
                }
                .into())
            }
            _ => Ok(Admitted::Now(writer)),
        }
    }

    /// The last record of a producer, once it is as durable as the log promises.
    pub(super) fn producer_last(self: &Arc<Self>, id: &[u8]) -> Thin<Option<ProducerLast>> {
        let id = Id::checked(id)?;
        if self.read_only {
            return Ok(self.find_producers()?.last(id));
        }
        let mut writer = self.writer_with_producers()?;
        let last = writer.producers().and_then(|producers| producers.last(id));
        if let Some(last) = last {
            self.keep_promise_of_before(writer, last.offset.next(), self.options.durability)?;
        }
        Ok(last)
    }

    /// What each producer appended last that is found in the log, lowest first.
    pub(super) fn last_batches(&self) -> Thin<Vec<Range<Offset>>> {
        let known = self.writer()?.producers().map(|found| found.last_batches());
        match known {
            Some(last) => Ok(last),
            None => Ok(self.find_producers()?.last_batches()),
        }
    }

    /// The writer, once it knows who appended what.
    fn writer_with_producers(&self) -> Thin<MutexGuard<'_, Writer<B>>> {
        loop {
            let mut writer = self.writer()?;
            if writer.producers().is_some() {
                return Ok(writer);
            }
            drop(writer);
            // Not by who holds the writer: what is read may have to be mended first, and others append meanwhile.
            // None of them as a producer, for all of those wait here.
            let _finding = self
                .finding_producers
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let mut writer = self.writer()?;
            if writer.producers().is_some() {
                return Ok(writer);
            }
            let removals = writer.removals();
            drop(writer);
            let found = self.find_producers()?;
            self.writer()?.producers_are(found, removals);
        }
    }

    /// Reads who appended what from the end of the log. Damaged records are stepped over.
    fn find_producers(&self) -> Thin<Producers> {
        let next = self.view.load().next_offset();
        let mut found = Finding::default();
        let mut at = self.window_start(next, WINDOW)?;
        let mut read_bytes = READ_BYTES;
        while at < next {
            if self.view.load().bases().binary_search(&at).is_ok() {
                // No batch goes on in another segment; but a truncated one may seem to.
                found.end_batch();
            }
            match self.in_segment(at, |segment| segment.read_batch(at, read_bytes)) {
                Ok(frames) => {
                    read_bytes = READ_BYTES;
                    for record in frames {
                        if let Ok(record) = &record {
                            if record.offset() != at {
                                // Nor over what is not there.
                                found.end_batch();
                                at = record.offset();
                            }
                            found.note(record);
                        }
                        at = at.next();
                    }
                }
                Err(e) if e.is_missing() => {
                    let after = self.after_damage(&e).unwrap_or(next);
                    at = after.max(at.next());
                }
                Err(e) if let Error::Corrupt { position, .. } = *e => {
                    // It may be one of many.
                    read_bytes = 0;
                    at = self.after_bad_bytes(at, position)?;
                }
                Err(e) if let Error::Gap { next, .. } = *e => {
                    found.end_batch();
                    at = next;
                }
                // They were truncated meanwhile.
                Err(e)
                    if let Error::OffsetOutOfRange { lowest, .. } = *e
                        && at < lowest =>
                {
                    at = lowest
                }
                Err(e) if e.is_out_of_range() => break,
                Err(e) => return Err(e),
            }
        }
        found.end_batch();
        Ok(found.producers)
    }

    /// The record after a damaged one that is not a part of the same bad bytes.
    fn after_bad_bytes(&self, damaged: Offset, bad_position: u64) -> Thin<Offset> {
        let view = self.view.load_full();
        let Some(slot) = view.slot_of(damaged) else {
            return Ok(damaged.next());
        };
        let segment = self.open_segment(slot, false)?;
        let is_in_it = |offset| {
            segment
                .position(offset)
                .is_ok_and(|position| position <= bad_position)
        };
        let end = segment.next_offset().max(damaged.next());
        Ok(first_in(damaged.next()..end, |offset| !is_in_it(offset)))
    }
}

/// Producers that are being found, record by record.
#[derive(Debug, Default)]
struct Finding {
    producers: Producers,
    /// The beginning of a batch, and how many of it follow.
    begun: Option<(Numbered, Offset, u32)>,
}

impl Finding {
    fn note(&mut self, record: &Record) {
        let Some(Producer { id, sequence }) = record.producer() else {
            return;
        };
        // A longer one was not written by an append.
        let Some(id) = Id::of(id) else { return };
        let (offset, remaining) = (record.offset(), record.batch_remaining());
        let one = Sequences::one(sequence);
        let (mut numbered, mut first) = (Numbered { id, sequences: one }, offset);
        if let Some((begun, begun_at, following)) = self.begun.take() {
            let goes_on = begun.id == id
                && begun.sequences.last < sequence
                && begun_at.plus(begun.sequences.count) == offset
                && remaining.checked_add(1) == Some(following);
            if goes_on {
                numbered.sequences = begun.sequences.and(one);
                first = begun_at;
            } else {
                // Some between are damaged.
                self.producers.note(&begun, begun_at);
            }
        }
        if remaining == 0 {
            self.producers.note(&numbered, first);
        } else {
            self.begun = Some((numbered, first, remaining));
        }
    }

    /// Of what is begun nothing follows.
    fn end_batch(&mut self) {
        if let Some((begun, at, _)) = self.begun.take() {
            self.producers.note(&begun, at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Log, MemoryBackend, NewRecord, Options};

    #[test]
    fn who_has_not_appended_for_longest_is_forgotten() {
        let mut producers = Producers::default();
        // Oldest first.
        let mut appended: VecDeque<(Id, u64)> = VecDeque::new();
        let mut random = 1_u64;
        for n in 0..30_000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005) | 1;
            // Some again and again, some once.
            let name = if n % 3 == 0 { n } else { (random >> 33) % 900 };
            let id = Id::checked(&name.to_le_bytes()).unwrap();
            let sequences = Sequences::one(n);
            producers.note(&Numbered { id, sequences }, Offset(n));
            appended.retain(|(other, _)| *other != id);
            appended.push_back((id, n));
            let forgotten = (appended.len() > PRODUCERS_MAX).then(|| appended.pop_front());
            if let Some(Some((forgotten, _))) = forgotten {
                assert!(producers.last(forgotten).is_none(), "{n}");
            }
            assert_eq!(producers.appended.len(), appended.len());
            assert!(producers.by_end.len() <= ENDS_MAX);
        }
        let batches: Vec<_> = appended
            .iter()
            .map(|&(_, n)| Offset(n)..Offset(n + 1))
            .collect();
        assert_eq!(producers.last_batches(), batches);
        for (id, n) in appended {
            assert_eq!(producers.last(id), Some(ProducerLast::new(n, Offset(n))));
        }
    }

    /// Compaction looks them up by halving.
    #[test]
    fn what_is_found_of_a_damaged_log_is_in_order() {
        let mut random = 1_u64;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005) | 1;
            usize::try_from(random >> 33).unwrap() % below
        };
        let mut found = 0;
        for _ in 0..300 {
            let files = MemoryBackend::new();
            let options = Options::new().segment_bytes_max(2000);
            let log = Log::open_on(files.clone(), options.clone()).unwrap();
            let mut sequence = 0;
            for _ in 0..40 {
                let id = [b"a", b"b", b"c", b"d"][next(4)];
                let copied = AppendOptions::new().copied();
                let batch: Vec<_> = (0..=next(5))
                    .map(|n| NewRecord::from("a record").producer(id, sequence + n as u64))
                    .collect();
                // Some begin again, and some are of no one.
                sequence = if next(9) == 0 { 0 } else { sequence + 9 };
                log.append_batch_with(batch, copied).unwrap();
                if next(4) == 0 {
                    log.append("of no one").unwrap();
                }
            }
            log.close().unwrap();
            for name in files.list().unwrap() {
                let mut bytes = files.get(&name).unwrap();
                for _ in 0..next(4) {
                    let at = next(bytes.len());
                    let end = bytes.len().min(at + next(150));
                    bytes[at..end].fill(0);
                }
                files.insert(name, bytes);
            }
            let log = Log::open_on(files, options).unwrap();
            let batches = log.shared.last_batches().unwrap();
            let is_in_order = batches.is_sorted_by(|a, b| a.start < a.end && a.end <= b.start);
            assert!(is_in_order, "{batches:?}");
            found += batches.len();
        }
        assert!(found > 600, "{found}");
    }
}
