//! Offsets that are deliberately not there.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::{
    Error, Offset,
    error::Boxed,
    record::{encode_gap, parse_gap},
};

/// A row of offsets that are deliberately not there, as a frame of its own tells in the store, under a checksum. It is
/// no damage: reading one of them gives [`Error::Gap`], and iterating steps over them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Gap {
    /// The first of them.
    pub first: Offset,
    /// The last of them.
    pub last: Offset,
    /// Why they are not there.
    pub cause: GapCause,
}

/// Why offsets are not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GapCause {
    /// A later record has the key, or the key was deleted.
    #[error("was compacted: a later record has its key, or deleted it")]
    Compacted,
    /// The record was damaged, and was given up.
    #[error("was lost: its record was damaged and has been given up")]
    Lost,
    /// It was left out when the log was written: see [`Log::skip_to`](crate::Log::skip_to).
    #[error("was left out when the log was written")]
    Skipped,
    /// A cause of a later version, by its number.
    #[error("is not there, for a reason that this version does not know ({0})")]
    Other(u32),
}

impl Gap {
    /// The gap of `first..next`, which is not empty.
    pub(crate) fn new(first: Offset, next: Offset, cause: GapCause) -> Self {
        debug_assert!(first < next);
        let last = Offset(next.0.saturating_sub(1)).max(first);
        Self { first, last, cause }
    }

    /// The gap of these offsets, if they are any. The last number there is, is none's.
    #[must_use]
    pub fn of(offsets: RangeInclusive<Offset>, cause: GapCause) -> Option<Self> {
        let (first, last) = offsets.into_inner();
        (first <= last && last.0 < u64::MAX).then_some(Self { first, last, cause })
    }

    /// The offset after the last of them.
    #[must_use]
    pub fn next(&self) -> Offset {
        self.last.next()
    }

    /// How many they are.
    #[must_use]
    pub fn offsets(&self) -> u64 {
        self.next().since(self.first)
    }

    /// Whether an offset is one of them.
    #[must_use]
    pub fn contains(&self, offset: Offset) -> bool {
        (self.first..=self.last).contains(&offset)
    }

    /// The frame that tells of it, as it stands in a store.
    ///
    /// ```
    /// use proglog::{Gap, GapCause, Offset};
    ///
    /// let gap = Gap::of(Offset(3)..=Offset(9), GapCause::Compacted);
    /// assert_eq!(gap.and_then(|gap| Gap::from_frame(&gap.to_frame())), gap);
    /// ```
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        encode_gap(*self)
    }

    /// The gap of a whole frame, the eight bytes of length too: none unless it tells of one, to the byte.
    #[must_use]
    pub fn from_frame(frame: &[u8]) -> Option<Self> {
        parse_gap(frame)
    }

    /// What reading one of them gives.
    pub(crate) fn error(self, offset: Offset) -> Boxed {
        Boxed::from(Error::Gap {
            offset,
            cause: self.cause,
            first: self.first,
            next: self.next(),
        })
    }
}

impl GapCause {
    /// Its number in a frame.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Compacted => 1,
            Self::Lost => 2,
            Self::Skipped => 3,
            Self::Other(code) => code,
        }
    }

    /// The cause of this number.
    #[must_use]
    pub fn of(code: u32) -> Self {
        match code {
            1 => Self::Compacted,
            2 => Self::Lost,
            3 => Self::Skipped,
            other => Self::Other(other),
        }
    }
}
