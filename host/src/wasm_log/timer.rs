//! The thread that syncs a log in time, where that was asked for: a sandbox has no clock.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Calls a function so long after something was appended, from a thread of its own that is started once it is
/// needed and ends when this is dropped.
pub(super) struct SyncTimer {
    interval: Duration,
    sync: Call,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

type Call = Arc<dyn Fn() + Send + Sync>;

#[derive(Default)]
struct Shared {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

#[derive(Default)]
struct Wanted {
    sync_at: Option<Instant>,
    stop: bool,
}

impl SyncTimer {
    pub(super) fn new(interval: Duration, sync: Call) -> Self {
        Self {
            interval,
            sync,
            shared: Arc::default(),
            thread: Mutex::default(),
        }
    }

    /// Something was appended that is to be synced in time. An interval that began with an earlier one goes on.
    pub(super) fn appended(&self) {
        let mut wanted = self.shared.wanted();
        if wanted.sync_at.is_some() {
            return;
        }
        // One that has no end is none.
        let Some(sync_at) = Instant::now().checked_add(self.interval) else {
            return;
        };
        wanted.sync_at = Some(sync_at);
        drop(wanted);
        if self.is_running() {
            self.shared.changed.notify_one();
        } else {
            // There is no thread to be had: then without delay.
            self.shared.wanted().sync_at = None;
            (self.sync)();
        }
    }

    /// Starts the thread if it was not yet.
    fn is_running(&self) -> bool {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let (shared, sync) = (Arc::clone(&self.shared), Arc::clone(&self.sync));
            let started = thread::Builder::new()
                .name("proglog-sync".to_owned())
                .spawn(move || shared.run(&*sync));
            *thread = started.ok();
        }
        thread.is_some()
    }

    /// Ends the thread, once it has done what it is at.
    pub(super) fn stop(&self) {
        self.shared.wanted().stop = true;
        self.shared.changed.notify_one();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            // A panic there has left a broken guest, which is dealt with.
            let _ = thread.join();
        }
    }
}

impl Drop for SyncTimer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn run(&self, sync: &dyn Fn()) {
        let mut wanted = self.wanted();
        while !wanted.stop {
            let wait = match wanted.sync_at {
                Some(at) => at.saturating_duration_since(Instant::now()),
                None => Duration::MAX,
            };
            if wait.is_zero() {
                // Before the sync: what is appended meanwhile is for the next.
                wanted.sync_at = None;
                drop(wanted);
                sync();
                wanted = self.wanted();
                continue;
            }
            let waited = self.changed.wait_timeout(wanted, wait);
            wanted = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
