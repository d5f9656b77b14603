//! Compaction: of the records of each key the latest stays.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    ops::Range,
    sync::{Arc, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Log, view::Slot};
#[cfg(doc)]
use crate::NewRecord;
use crate::{Backend, Error, GapCause, Offset, Record, Result, error::Thin};

/// How to [compact](Log::compact) a log.
///
/// ```
/// use std::time::Duration;
/// let compaction = proglog::Compaction::new().tombstones_kept(Duration::from_secs(3600));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Compaction {
    /// See [`Compaction::memory_bytes_max`](Self::memory_bytes_max()).
    pub memory_bytes_max: u64,
    /// See [`Compaction::tombstones_kept`](Self::tombstones_kept()).
    pub tombstones_kept: Duration,
    /// See [`Compaction::now_ms`](Self::now_ms()).
    pub now_ms: Option<u64>,
}

impl Default for Compaction {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 << 20,
            tombstones_kept: Duration::from_secs(24 * 60 * 60),
            now_ms: None,
        }
    }
}

impl Compaction {
    /// The defaults: 64 MiB of memory, tombstones are kept for 24 hours.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How much memory the keys may take that are looked at at once, in bytes, though one at least is. Where they are
    /// more, the log is read once for each part of them. About a bit for each record comes on top, or some 100 bytes for
    /// one that no other of the next 500 offsets stands beside.
    #[must_use]
    pub fn memory_bytes_max(mut self, bytes: u64) -> Self {
        self.memory_bytes_max = bytes;
        self
    }

    /// How long a record without a value, which deletes its key, stays at the least after its timestamp, so that who
    /// reads along hears of it. It is removed by the first compaction then that finds no older record of the key, so
    /// that no one who reads the log meanwhile can have met one and miss the deletion. One without a timestamp
    /// stays, and so do all where it is not known what time it is. 0 is not at all: it goes at once.
    #[must_use]
    pub fn tombstones_kept(mut self, kept: Duration) -> Self {
        self.tombstones_kept = kept;
        self
    }

    /// What time it is, in milliseconds since 1970-01-01 UTC; by [`Options::clock`](crate::Options::clock) unless told.
    #[must_use]
    pub fn now_ms(mut self, now_ms: u64) -> Self {
        self.now_ms = Some(now_ms);
        self
    }
}

/// What a compaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Compacted {
    /// How many records were removed.
    pub records_removed: u64,
    /// The bytes of their frames.
    pub bytes_removed: u64,
    /// The bytes of the stores that were written anew, before. Their indexes are as large as they were.
    pub store_bytes_before: u64,
    /// And after.
    pub store_bytes_after: u64,
    /// The segments that were written anew, lowest first.
    pub segments: Vec<CompactedSegment>,
    /// Those that were not, though there is something to remove or to mend in them; also the last one, if it is damaged.
    pub left_alone: Vec<LeftAlone>,
}

/// A segment that was written anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CompactedSegment {
    /// Its base offset.
    pub base: Offset,
    /// How many records were removed from it.
    pub records_removed: u64,
    /// The bytes of its store before.
    pub store_bytes_before: u64,
    /// And after.
    pub store_bytes_after: u64,
}

/// A segment that a compaction left as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LeftAlone {
    /// Its base offset.
    pub base: Offset,
    /// Why.
    pub reason: LeftAloneReason,
}

/// Why a compaction left a segment as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LeftAloneReason {
    /// It is damaged, or records after it are missing.
    Damaged,
    /// The log was truncated meanwhile.
    Truncated,
    /// It could not be written anew: what failed.
    Failed(String),
}

impl<B: Backend> Log<B> {
    /// Removes the records that a later one of the same key has made obsolete, and the keys that were deleted: a record
    /// with a key and without a value, a *tombstone*, deletes its key, and goes in its turn (see
    /// [`Compaction::tombstones_kept`]). What a [producer](NewRecord::producer) appended last stays until it appended
    /// more, so that it is known when it is sent again: a reader then meets an older record of a key before the newer
    /// one. Records without a key stay, and so does all in the active segment. Offsets stay
    /// what they are; those of what was removed are [not there](crate::Gap).
    ///
    /// Sealed segments are written anew one after the other, the lowest first, each durably before the next; for that
    /// the disk needs room for one of them. Appends and reads go on meanwhile. After a crash each is as it was or as
    /// it is to be. Damaged segments are left alone and named, and then tombstones in those after them stay.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the log cannot be read, or when it is unknown what its files are, which poisons it; that a
    /// segment cannot be written anew is told by what this returns. [`Error::ReadOnly`], [`Error::Poisoned`].
    ///
    /// # Example
    ///
    /// ```
    /// # use proglog::{Compaction, Error, Log, MemoryBackend, NewRecord, Offset, Options};
    /// let options = Options::new().segment_bytes_max(100);
    /// let log = Log::open_on(MemoryBackend::new(), options)?;
    /// for price in ["9", "10", "11"] {
    ///     log.append(NewRecord::new(price).key("apples"))?;
    ///     log.append("weather")?;
    /// }
    /// let compacted = log.compact(&Compaction::new())?;
    /// assert_eq!(compacted.records_removed, 2);
    /// assert!(matches!(log.read(Offset(0)), Err(Error::Gap { .. })));
    /// assert_eq!(log.scan(..).count(), 4);
    /// # Ok::<(), Error>(())
    /// ```
    pub fn compact(&self, compaction: &Compaction) -> Result<Compacted> {
        let shared = &self.shared;
        shared.check_writable()?;
        // One at a time.
        let _compacting = shared
            .compacting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Before the sync, so that none of it can be lost once what its producer appended before is gone.
        let kept = Kept(shared.last_batches()?);
        let end = self.next_offset();
        // What makes a record obsolete is on stable storage before that goes.
        shared.sync()?;
        shared.lead().seal_all()?;
        let view = shared.view.load_full();
        let sealed = view.slots().iter().take_while(|slot| {
            // One may have become full just now.
            slot.next.is_some() && !shared.commit.is_unsealed(slot.base)
        });
        let mut marks = Marks::of(sealed);
        self.mark_obsolete(compaction, end, &kept, &mut marks)?;
        Ok(self.rewrite_marked(marks)?)
    }

    /// Finds what is to go: by the keys, as many at a time as there is memory for.
    fn mark_obsolete(
        &self,
        compaction: &Compaction,
        end: Offset,
        kept: &Kept,
        marks: &mut Marks<B>,
    ) -> Thin<()> {
        let now_ms = compaction
            .now_ms
            .or_else(|| self.shared.options.clock.now_ms());
        let hasher = RandomState::new();
        let mut parts = vec![Part::default()];
        while let Some(part) = parts.pop() {
            let mut keys = Keys::new(part, compaction.memory_bytes_max, &hasher, kept);
            let mut records = self.scan(..end);
            while let Some(record) = records.next_borrowed() {
                match record {
                    Ok(record) => {
                        let obsolete = keys.take(&record, &mut parts);
                        if let Some(obsolete) = obsolete.filter(|&offset| !kept.has(offset)) {
                            marks.obsolete(obsolete);
                        }
                    }
                    Err(Error::Corrupt { segment, .. }) => {
                        if let Err(at) = marks.damaged.binary_search(&segment) {
                            marks.damaged.insert(at, segment);
                        }
                    }
                    Err(e) => return Err(e.into()),
                }
            }
            for latest in keys.latest.into_values() {
                let goes = latest.is_tombstone_to_go(compaction.tombstones_kept, now_ms);
                if goes && !kept.has(latest.offset) {
                    marks.tombstone(latest.offset);
                }
            }
        }
        Ok(())
    }

    fn rewrite_marked(&self, marks: Marks<B>) -> Thin<Compacted> {
        let mut compacted = Compacted::default();
        let segments = marks.segments.iter();
        let bases: Vec<Offset> = segments.map(|segment| segment.slot.base).collect();
        for segment in marks.segments {
            let base = segment.slot.base;
            // A tombstone goes once nothing below it can hold an older record of its key.
            let with_tombstones = compacted.left_alone.is_empty();
            let mut goes = |offset: Offset| {
                let n = offset.since(base);
                let is_to_go =
                    segment.obsolete.has(n) || with_tombstones && segment.tombstones.has(n);
                is_to_go.then_some(GapCause::Compacted)
            };
            let has_any =
                segment.obsolete.has_any() || with_tombstones && segment.tombstones.has_any();
            let reason = if marks.damaged.binary_search(&base).is_ok() {
                LeftAloneReason::Damaged
            } else if !has_any {
                continue;
            } else {
                match self.shared.rewrite(&segment.slot, &[], &mut goes) {
                    Ok(Some(removed)) => {
                        compacted.records_removed += removed.records;
                        compacted.bytes_removed += removed.record_bytes;
                        compacted.store_bytes_before += removed.store_bytes_before;
                        compacted.store_bytes_after += removed.store_bytes;
                        compacted.segments.push(CompactedSegment {
                            base,
                            records_removed: removed.records,
                            store_bytes_before: removed.store_bytes_before,
                            store_bytes_after: removed.store_bytes,
                        });
                        continue;
                    }
                    Ok(None) => LeftAloneReason::Truncated,
                    Err(e) if e.is_corrupt() => LeftAloneReason::Damaged,
                    Err(e) if matches!(*e, Error::Closed | Error::Poisoned { .. }) => {
                        return Err(e);
                    }
                    Err(e) if e.is_not_yet() => return Err(e),
                    Err(e) => {
                        self.shared.check_poisoned()?;
                        LeftAloneReason::Failed(e.to_string())
                    }
                }
            };
            compacted.left_alone.push(LeftAlone { base, reason });
        }
        // The last one takes appends, and is left as it is anyway.
        for base in marks.damaged {
            if bases.binary_search(&base).is_err() {
                let reason = LeftAloneReason::Damaged;
                compacted.left_alone.push(LeftAlone { base, reason });
            }
        }
        Ok(compacted)
    }
}

/// The offsets of what each producer appended last, lowest first, which stays.
struct Kept(Vec<Range<Offset>>);

impl Kept {
    fn has(&self, offset: Offset) -> bool {
        let after = self.0.partition_point(|batch| batch.start <= offset);
        let batch = after.checked_sub(1).and_then(|at| self.0.get(at));
        batch.is_some_and(|batch| offset < batch.end)
    }
}

/// Some of the keys, told by the lowest bits of their hashes.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    bits: u32,
    value: u64,
}

impl Part {
    fn has(self, hash: u64) -> bool {
        hash & ((1 << self.bits) - 1) == self.value
    }

    /// Makes it half of what it was, and gives the other half.
    fn halve(&mut self) -> Self {
        let other = Self {
            bits: self.bits + 1,
            value: self.value | 1 << self.bits,
        };
        self.bits += 1;
        other
    }
}

/// The latest record of each key of a part.
struct Keys<'a> {
    part: Part,
    hasher: &'a RandomState,
    kept: &'a Kept,
    latest: HashMap<Box<[u8]>, Latest>,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Clone, Copy)]
struct Latest {
    offset: Offset,
    is_tombstone: bool,
    /// Whether there is an older one.
    has_older: bool,
    /// Whether one of those stays.
    has_kept: bool,
    timestamp_ms: Option<u64>,
}

/// What a key takes beside its bytes: its place in the table, of which up to half are empty and which is copied as it
/// grows, and what the allocator needs.
const KEY_BYTES_BESIDE: u64 = 128;

impl<'a> Keys<'a> {
    fn new(part: Part, bytes_max: u64, hasher: &'a RandomState, kept: &'a Kept) -> Self {
        Self {
            part,
            hasher,
            kept,
            latest: HashMap::new(),
            bytes: 0,
            bytes_max,
        }
    }

    /// Takes in a record, and gives the one that it makes obsolete. If there is no memory for more keys, those of a
    /// half of the part are left to another time.
    fn take(&mut self, record: &Record<&[u8]>, parts: &mut Vec<Part>) -> Option<Offset> {
        let key = record.key()?;
        if !self.part.has(self.hasher.hash_one(key)) {
            return None;
        }
        let mut latest = Latest {
            offset: record.offset(),
            is_tombstone: record.value().is_empty(),
            has_older: false,
            has_kept: false,
            timestamp_ms: record.timestamp_ms(),
        };
        if let Some(before) = self.latest.get_mut(key) {
            latest.has_older = true;
            latest.has_kept = before.has_kept || self.kept.has(before.offset);
            return Some(std::mem::replace(before, latest).offset);
        }
        self.bytes += key.len() as u64 + KEY_BYTES_BESIDE;
        self.latest.insert(key.into(), latest);
        while self.bytes > self.bytes_max && self.latest.len() > 1 && self.part.bits < 63 {
            parts.push(self.part.halve());
            let (part, hasher) = (self.part, self.hasher);
            self.latest
                .retain(|key, _| part.has(hasher.hash_one(&**key)));
            let keys = self.latest.keys();
            self.bytes = keys.map(|key| key.len() as u64 + KEY_BYTES_BESIDE).sum();
        }
        None
    }
}

impl Latest {
    fn is_tombstone_to_go(&self, kept: Duration, now_ms: Option<u64>) -> bool {
        // Without it, an older one that stays would be the key's again.
        if !self.is_tombstone || self.has_kept {
            return false;
        }
        if kept.is_zero() {
            return true;
        }
        let age = self.timestamp_ms.zip(now_ms);
        let age =
            age.map(|(then_ms, now_ms)| Duration::from_millis(now_ms.saturating_sub(then_ms)));
        !self.has_older && age.is_some_and(|age| age >= kept)
    }
}

/// What is to go.
struct Marks<B: Backend> {
    /// Those that may be written anew, lowest first.
    segments: Vec<Marked<B>>,
    /// The bases of those that have damage, likewise.
    damaged: Vec<Offset>,
}

struct Marked<B: Backend> {
    slot: Arc<Slot<B>>,
    obsolete: Bits,
    tombstones: Bits,
}

impl<B: Backend> Marks<B> {
    fn of<'a>(slots: impl Iterator<Item = &'a Arc<Slot<B>>>) -> Self
    where
        B: 'a,
    {
        let marked = |slot: &Arc<Slot<B>>| Marked {
            slot: Arc::clone(slot),
            obsolete: Bits::default(),
            tombstones: Bits::default(),
        };
        Self {
            segments: slots.map(marked).collect(),
            damaged: Vec::new(),
        }
    }

    fn obsolete(&mut self, offset: Offset) {
        if let Some(segment) = self.segment_of(offset) {
            segment.obsolete.set(offset.since(segment.slot.base));
        }
    }

    fn tombstone(&mut self, offset: Offset) {
        if let Some(segment) = self.segment_of(offset) {
            segment.tombstones.set(offset.since(segment.slot.base));
        }
    }

    fn segment_of(&mut self, offset: Offset) -> Option<&mut Marked<B>> {
        let after = self
            .segments
            .partition_point(|segment| segment.slot.base <= offset);
        let segment = self.segments.get_mut(after.checked_sub(1)?)?;
        let is_in = segment.slot.next.is_some_and(|next| offset < next);
        is_in.then_some(segment)
    }
}

/// A set of numbers: about a bit for each where they are next to each other, and a few words for one by itself, for there
/// may be very wide gaps between them, by word of a few bytes.
#[derive(Debug, Default)]
struct Bits(HashMap<u64, Box<[u64; PAGE_WORDS]>>);

const PAGE_WORDS: usize = 8;

impl Bits {
    fn set(&mut self, n: u64) {
        let (page, word, bit) = place(n);
        self.0.entry(page).or_default()[word] |= bit;
    }

    fn has(&self, n: u64) -> bool {
        let (page, word, bit) = place(n);
        self.0
            .get(&page)
            .is_some_and(|words| words[word] & bit != 0)
    }

    fn has_any(&self) -> bool {
        !self.0.is_empty()
    }
}

fn place(n: u64) -> (u64, usize, u64) {
    let page = n / (64 * PAGE_WORDS as u64);
    let word = (n / 64 % PAGE_WORDS as u64) as usize;
    (page, word, 1 << (n % 64))
}
