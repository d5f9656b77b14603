//! What opening or verifying a log found.

use serde::{Deserialize, Serialize};

use crate::{Gap, GapCause, Offset, error::Damaged};

/// What was found in a log's files: by [`Log::recovery_report`](crate::Log::recovery_report) in the
/// segments that had to be scanned on opening, by [`Log::verify`](crate::Log::verify) in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The segments looked at, lowest first.
    pub segments: Vec<SegmentReport>,
}

impl Report {
    /// Whether nothing is damaged. A torn tail or a bad index is no damage: no acknowledged record
    /// is lost by either.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.segments
            .iter()
            .all(|segment| segment.damage.is_empty())
    }

    /// The damaged stretches of all segments.
    pub fn damage(&self) -> impl Iterator<Item = &Damage> {
        self.segments.iter().flat_map(|segment| &segment.damage)
    }

    /// What stands after the last records of segments: a torn tail in the last one, which opening for
    /// writing cuts off; in a [sealed](TornTail::sealed) one bytes that stay.
    pub fn torn_tails(&self) -> impl Iterator<Item = &TornTail> {
        self.segments
            .iter()
            .filter_map(|segment| segment.torn_tail.as_ref())
    }

    /// The offsets that are deliberately not there, in all segments.
    #[must_use]
    pub fn gaps(&self) -> Gaps {
        let mut gaps = Gaps::default();
        for segment in &self.segments {
            gaps.add_all(&segment.gaps);
        }
        gaps
    }

    /// The torn tail of the last segment, if there is one.
    #[must_use]
    pub fn torn_tail(&self) -> Option<&TornTail> {
        self.torn_tails().find(|tail| !tail.sealed)
    }

    /// How many sound records were seen.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.segments.iter().map(|segment| segment.records).sum()
    }
}

/// What was found in one segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SegmentReport {
    /// Its base offset, which names its files.
    pub base: Offset,
    /// The offset after its last record.
    pub next: Offset,
    /// The length of its store, a torn tail included, in bytes.
    pub store_bytes: u64,
    /// How many sound records it holds.
    pub records: u64,
    /// How many of them carry no checksum: the book's program wrote them.
    pub unchecked_records: u64,
    /// How its index was found.
    pub index: IndexState,
    /// Bytes at the end of the store that hold no record that was promised: an unclean stop left them
    /// behind. Opening for writing cuts them off in the last segment, and leaves them in others.
    pub torn_tail: Option<TornTail>,
    /// What is damaged, in order.
    pub damage: Vec<Damage>,
    /// The offsets that are deliberately not there, which is no damage.
    #[serde(default)]
    pub gaps: Gaps,
}

impl SegmentReport {
    /// The segment came after one that a power cut left torn, so it goes as a whole: a part of the torn tail.
    pub(crate) fn dropped(mut self) -> Self {
        self.torn_tail = Some(TornTail {
            segment: self.base,
            position: 0,
            bytes: self.store_bytes,
            records: self.records,
            zeros: false,
            sealed: false,
        });
        self.next = self.base;
        self.records = 0;
        self.unchecked_records = 0;
        self.damage.clear();
        self.gaps = Gaps::default();
        self
    }
}

/// How an index was found. It is derived from the store, so none of these loses anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IndexState {
    /// It agrees with the store, as far as that goes.
    Sound,
    /// It agrees as far as it goes, then zeros or nothing follow: the log is open, or was not closed.
    Unfinished,
    /// There is none.
    Missing,
    /// It says other than the store. Opening for writing makes it anew.
    Disagrees,
}

/// Bytes at the end of a store that hold nothing that was promised: what is no whole record, a batch
/// that is not whole, space that was never written and what stands after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TornTail {
    /// The segment's base offset.
    pub segment: Offset,
    /// Where it starts in the store.
    pub position: u64,
    /// How many bytes it has.
    pub bytes: u64,
    /// How many whole records in it are dropped: those of a batch that is not whole, and those that stand
    /// after space that was never written.
    #[serde(alias = "batch_records")]
    pub records: u64,
    /// Whether all its bytes are zeros: space that was never written.
    pub zeros: bool,
    /// Whether the segment is sealed: its bytes are left where they are.
    #[serde(default)]
    pub sealed: bool,
}

/// A stretch of a store that holds no readable record, where some were, or where none should stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Damage {
    /// The segment's base offset.
    pub segment: Offset,
    /// The first record lost.
    pub first: Offset,
    /// The last record lost.
    pub last: Offset,
    /// Where the stretch starts in the store.
    pub position: u64,
    /// How many bytes it has; 0 where they are missing.
    pub bytes: u64,
    /// What is wrong with the first.
    pub reason: Damaged,
    /// Whether no record is lost: the bytes stand before the very record that is expected there, and `first` and `last`
    /// are the offset of that one, which is sound.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bytes_only: bool,
}

impl Damage {
    /// How many records are lost.
    #[must_use]
    pub fn offsets(&self) -> u64 {
        match self.bytes_only {
            true => 0,
            false => self.last.next().since(self.first),
        }
    }

    /// Whether the record of an offset is lost by it.
    #[must_use]
    pub fn contains(&self, offset: Offset) -> bool {
        !self.bytes_only && (self.first..=self.last).contains(&offset)
    }
}

/// How many offsets are deliberately not there, by cause: see [`Gap`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Gaps {
    /// How many were compacted.
    pub compacted: u64,
    /// How many were left out when the log was written.
    pub skipped: u64,
    /// How many were given up because their records were damaged: the sum of the stretches.
    pub lost: u64,
    /// Which those are.
    pub lost_stretches: Vec<Gap>,
    /// How many are not there for a reason of a later version.
    pub other: u64,
}

impl Gaps {
    /// How many offsets they are.
    #[must_use]
    pub fn offsets(&self) -> u64 {
        let counts = [self.compacted, self.skipped, self.lost, self.other];
        counts.into_iter().fold(0, u64::saturating_add)
    }

    pub(crate) fn add(&mut self, gap: Gap) {
        let count = match gap.cause {
            GapCause::Compacted => &mut self.compacted,
            GapCause::Skipped => &mut self.skipped,
            GapCause::Lost => {
                self.lost_stretches.push(gap);
                &mut self.lost
            }
            GapCause::Other(_) => &mut self.other,
        };
        *count = count.saturating_add(gap.offsets());
    }

    fn add_all(&mut self, other: &Self) {
        for (count, more) in [
            (&mut self.compacted, other.compacted),
            (&mut self.skipped, other.skipped),
            (&mut self.lost, other.lost),
            (&mut self.other, other.other),
        ] {
            *count = count.saturating_add(more);
        }
        self.lost_stretches.extend_from_slice(&other.lost_stretches);
    }

    /// Takes back the last that was added.
    pub(crate) fn take_back(&mut self, gap: Gap) {
        let count = match gap.cause {
            GapCause::Compacted => &mut self.compacted,
            GapCause::Skipped => &mut self.skipped,
            GapCause::Lost => {
                self.lost_stretches.pop();
                &mut self.lost
            }
            GapCause::Other(_) => &mut self.other,
        };
        *count = count.saturating_sub(gap.offsets());
    }
}

/// One segment of a log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SegmentSummary {
    /// Its base offset, which names its files.
    pub base: Offset,
    /// The offset after its last record.
    pub next: Offset,
    /// The length of its store, in bytes.
    pub store_bytes: u64,
}

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The base offset of its segment.
    pub segment: Offset,
    /// The byte of the store where its frame starts.
    pub position: u64,
    /// If the offset is one of a gap: which. The frame is then the one that tells of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
}
