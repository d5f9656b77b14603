//! Threads that sync together: who leads waits for those who are about to come, and who waits stays awake.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

/// So long are others waited for, and no longer than a sync takes. Threads are woken in less.
const PATIENCE_MAX: Duration = Duration::from_micros(200);
/// A thread that let others run for longer than this is in the way of some that have work to do.
const YIELD_MAX: Duration = Duration::from_micros(30);

/// What a leader leaves to the next.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Gathering {
    /// How many had arrived when the last sync took what there was.
    taken: u64,
    /// For how many of them it was.
    served: u64,
    /// How many will have arrived once those come back.
    expected: u64,
    sync_started: Option<Instant>,
    sync_time: Duration,
    /// How long they are waited for.
    patience: Duration,
}

impl Gathering {
    /// Lets those come that were woken by the last sync, rather than sync for oneself alone while they get ready
    /// for the next: as long as they do come, and no longer than it can be worth. `arrived` counts who came.
    pub(super) fn gather(mut self, arrived: &AtomicU64) -> Self {
        if self.expected > self.taken + 1 {
            let all_came = || arrived.load(Relaxed) >= self.expected;
            let start = Instant::now();
            while !all_came() && start.elapsed() < self.patience {
                thread::yield_now();
            }
            let longest = self.sync_time.min(PATIENCE_MAX);
            self.patience = if all_came() {
                longest
            } else {
                // They have something else to do.
                (self.patience / 2).max(longest / 16)
            };
        }
        let taken = arrived.load(Relaxed);
        self.served = taken - self.taken;
        self.taken = taken;
        self.sync_started = Some(Instant::now());
        self
    }

    /// What the next leader is to know, once the sync is done.
    pub(super) fn synced(mut self, arrived: &AtomicU64) -> Self {
        self.expected = arrived.load(Relaxed) + self.served;
        if let Some(started) = self.sync_started.take() {
            self.sync_time = started.elapsed();
        }
        self
    }

    /// Waits for a sync without falling asleep, where it takes no longer than to be woken: that would take as long
    /// again. As RocksDB's writers do (`WriteThread::AwaitState`). Whether it came; `is_led` tells if it still may.
    pub(super) fn stay_awake(self, came: impl Fn() -> bool, is_led: impl Fn() -> bool) -> bool {
        if self.sync_time > PATIENCE_MAX {
            return false;
        }
        let start = Instant::now();
        let mut now = start;
        while !came() {
            thread::yield_now();
            let before = now;
            now = Instant::now();
            if !is_led() || now - start > self.sync_time * 3 / 2 || now - before > YIELD_MAX {
                return false;
            }
        }
        true
    }
}
