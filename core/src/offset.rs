//! The number of a record.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A record's number in the log: 0 or [`Options::initial_offset`](crate::Options::initial_offset)
/// for the first, one more for each next.
///
/// An offset counts records; a byte's place in a store file is a *position* and is a plain `u64`.
///
/// ```
/// use proglog::Offset;
/// assert_eq!(Offset(41).next(), Offset(42));
/// assert_eq!(Offset(42).to_string(), "42");
/// ```
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset after this one. Saturates at `u64::MAX`, which no record can have.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// The offset `records` further on, saturating at `u64::MAX`.
    #[must_use]
    pub const fn plus(self, records: u64) -> Self {
        Self(self.0.saturating_add(records))
    }

    /// How many records lie between `earlier` and this offset; 0 when `earlier` is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<u64> for Offset {
    fn from(number: u64) -> Self {
        Self(number)
    }
}
