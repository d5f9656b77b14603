//! The values that every subject appends and reads, and how a reader proves that it has seen them.

use std::ops::Range;

/// Values begin at multiples of this in the pool.
const STRIDE_BYTES: usize = 1048;
/// The pool stays in a core's second-level cache, as a record would that a program has just made.
const POOL_BYTES: usize = 256 << 10;
/// After this many values they repeat: `POOL_BYTES` over the greatest common divisor of both.
const PERIOD: u64 = (POOL_BYTES / 8) as u64;

/// Random bytes, the same in every run.
pub struct Values {
    pool: Vec<u8>,
    value_bytes: usize,
    folds: Vec<u64>,
}

impl Values {
    pub fn new(value_bytes: usize) -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let pool = (0..(POOL_BYTES + value_bytes).div_ceil(8))
            .flat_map(|_| {
                state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
                state.to_le_bytes()
            })
            .collect();
        let mut values = Self {
            pool,
            value_bytes,
            folds: Vec::new(),
        };
        values.folds = (0..PERIOD).map(|n| fold(values.value(n))).collect();
        values
    }

    #[inline]
    pub fn value(&self, n: u64) -> &[u8] {
        let start = (n as usize).wrapping_mul(STRIDE_BYTES) & (POOL_BYTES - 1);
        &self.pool[start..start + self.value_bytes]
    }

    pub fn range(&self, range: Range<u64>) -> impl ExactSizeIterator<Item = &[u8]> + Clone {
        (range.start as usize..range.end as usize).map(|n| self.value(n as u64))
    }

    #[inline]
    pub fn fold_of(&self, n: u64) -> u64 {
        self.folds[(n % PERIOD) as usize]
    }

    /// What a scan of the first `records` values has seen.
    pub fn seen(&self, records: u64) -> Seen {
        let turns = self.folds.iter().fold(0_u64, |a, b| a.wrapping_add(*b));
        let rest = (0..records % PERIOD).fold(0_u64, |a, n| a.wrapping_add(self.fold_of(n)));
        Seen {
            records,
            fold: turns.wrapping_mul(records / PERIOD).wrapping_add(rest),
        }
    }
}

/// How many values were read, and the sum of all their bytes as words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub records: u64,
    pub fold: u64,
}

impl Seen {
    #[inline]
    pub fn add(&mut self, value: &[u8]) {
        self.records += 1;
        self.fold = self.fold.wrapping_add(fold(value));
    }
}

/// Adds up a value's bytes as little-endian words: it touches every byte, at the speed of memory, so
/// that who verifies no checksum still reads what it returns.
#[inline]
pub fn fold(value: &[u8]) -> u64 {
    let (words, rest) = value.as_chunks::<8>();
    let mut sum = words.iter().fold(0_u64, |sum, word| {
        sum.wrapping_add(u64::from_le_bytes(*word))
    });
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        sum = sum.wrapping_add(u64::from_le_bytes(word));
    }
    sum
}

/// The `n`th of a row of pseudo-random numbers below `below`.
#[inline]
pub fn random_below(n: u64, below: u64) -> u64 {
    ((u128::from(mix(n)) * u128::from(below)) >> 64) as u64
}

/// The finisher of splitmix64 (<https://prng.di.unimi.it/splitmix64.c>).
#[inline]
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
