//! Numbers in a growing row, which one thread adds to and any number read without a lock.

use std::sync::{
    OnceLock,
    atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

/// The first stretch of memory holds so many, each next one twice as many as the one before.
const FIRST: u64 = 256;
/// Enough for 2^32 numbers and a few more.
const STRETCHES: usize = 26;

/// The positions of records.
#[derive(Debug, Default)]
pub(super) struct Positions {
    stretches: [OnceLock<Box<[AtomicU64]>>; STRETCHES],
    len: AtomicU64,
}

impl Positions {
    #[inline]
    pub(super) fn len(&self) -> u64 {
        self.len.load(Acquire)
    }

    #[inline]
    pub(super) fn get(&self, n: u64) -> Option<u64> {
        if n >= self.len() {
            return None;
        }
        let (stretch, at) = place(n);
        Some(self.stretches.get(stretch)?.get()?.get(at)?.load(Relaxed))
    }

    /// Those from number `n` on that stand together in memory: all there are, or the first of them.
    pub(super) fn some_from(&self, n: u64) -> impl Iterator<Item = u64> {
        let count = usize::try_from(self.len().saturating_sub(n)).unwrap_or(usize::MAX);
        let (stretch, at) = place(n);
        let numbers = self.stretches.get(stretch).and_then(OnceLock::get);
        let numbers = numbers.and_then(|numbers| numbers.get(at..));
        let numbers = numbers.unwrap_or_default();
        let numbers = &numbers[..count.min(numbers.len())];
        numbers.iter().map(|number| number.load(Relaxed))
    }

    /// Adds one. By one thread at a time; `false` if there is no room for so many.
    #[inline]
    pub(super) fn push(&self, position: u64) -> bool {
        let n = self.len.load(Relaxed);
        let (stretch, at) = place(n);
        let Some(numbers) = self.stretches.get(stretch) else {
            return false;
        };
        let numbers = numbers.get_or_init(|| {
            let capacity = FIRST << stretch;
            (0..capacity).map(|_| AtomicU64::new(0)).collect()
        });
        let Some(number) = numbers.get(at) else {
            return false;
        };
        number.store(position, Relaxed);
        self.len.store(n + 1, Release);
        true
    }
}

/// In which stretch number `n` stands, and where there.
#[inline]
fn place(n: u64) -> (usize, usize) {
    let n = n + FIRST;
    let stretch = n.ilog2() - FIRST.ilog2();
    let at = usize::try_from(n - (FIRST << stretch));
    (stretch as usize, at.unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_place() {
        let positions = Positions::default();
        for n in 0..100_000 {
            assert_eq!(positions.get(n), None);
            assert!(positions.push(n * 3));
        }
        for n in 0..100_000 {
            assert_eq!(positions.get(n), Some(n * 3));
        }
        assert_eq!(positions.len(), 100_000);
        let mut all = Vec::new();
        while all.len() < 100_000 {
            let before = all.len();
            all.extend(positions.some_from(before as u64));
            assert!(all.len() > before);
        }
        assert!(all.into_iter().eq((0..100_000).map(|n| n * 3)));
        assert_eq!(positions.some_from(100_000).next(), None);
    }
}
