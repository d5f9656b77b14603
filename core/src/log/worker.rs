//! The thread that does what appends should not wait for: sealing full segments, preparing space, and
//! syncing in time. Only logs in a directory have one, and only once there is something to do.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{SegmentReader, Shared};
use crate::Backend;
#[cfg(not(target_family = "wasm"))]
use crate::{FsBackend, Log, Offset};

/// What the worker is to do.
pub(super) struct Wanted<B: Backend> {
    pub(super) seal: bool,
    pub(super) sync_new_files: bool,
    /// Whether segments are to be removed that are not to be kept.
    pub(super) retain: bool,
    /// The segment in which zeros should be written, and how far.
    pub(super) prepare: Option<(Arc<SegmentReader<B::File>>, u64)>,
    /// The memory that should be mapped.
    pub(super) map: Option<MapAhead<B>>,
    pub(super) sync_at: Option<Duration>,
    /// Whether space is to be prepared once appends rest.
    prepare_at_rest: bool,
    stop: bool,
}

impl<B: Backend> Default for Wanted<B> {
    fn default() -> Self {
        Self {
            seal: false,
            sync_new_files: false,
            retain: false,
            prepare: None,
            map: None,
            sync_at: None,
            prepare_at_rest: false,
            stop: false,
        }
    }
}

/// A segment, from where on its memory should be mapped, and how much.
type MapAhead<B> = (Arc<SegmentReader<<B as Backend>::File>>, u64, usize);

/// Starts the thread of a log's worker.
type Start<B> = fn(Arc<Shared<B>>) -> std::io::Result<JoinHandle<()>>;

/// A log's worker, if it has one.
pub(super) struct Worker<B: Backend> {
    start: OnceLock<Start<B>>,
    /// Whether its thread runs.
    employed: AtomicBool,
    /// Whether it waits for appends to rest.
    watches: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
    wanted: Mutex<Wanted<B>>,
    changed: Condvar,
}

impl<B: Backend> Default for Worker<B> {
    fn default() -> Self {
        Self {
            start: OnceLock::new(),
            employed: false.into(),
            watches: false.into(),
            thread: Mutex::default(),
            wanted: Mutex::default(),
            changed: Condvar::new(),
        }
    }
}

impl<B: Backend> fmt::Debug for Worker<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl<B: Backend> Worker<B> {
    pub(super) fn is_employed(&self) -> bool {
        self.employed.load(Acquire)
    }

    /// Whether there will be one once there is something to do.
    pub(super) fn can_be_employed(&self) -> bool {
        self.start.get().is_some()
    }

    /// Ends the thread, once it has done what it is at.
    pub(super) fn stop(&self) {
        self.wanted().stop = true;
        self.changed.notify_all();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // One that panicked has poisoned the log.
            let _ = thread.join();
        }
        self.employed.store(false, Release);
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted<B>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> Shared<B> {
    /// Tells the worker what to do; `false` if there is none, and the caller has to do it.
    pub(super) fn wake_worker(self: &Arc<Self>, want: impl FnOnce(&mut Wanted<B>)) -> bool {
        let worker = &self.worker;
        if !worker.is_employed() && !self.start_worker() {
            return false;
        }
        let mut wanted = worker.wanted();
        if wanted.stop {
            return false;
        }
        want(&mut wanted);
        worker.changed.notify_all();
        true
    }

    fn start_worker(self: &Arc<Self>) -> bool {
        let Some(start) = self.worker.start.get() else {
            return false;
        };
        let mut thread = self
            .worker
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() && !self.worker.wanted().stop {
            // Without a thread the work is done by those who append.
            *thread = start(Arc::clone(self)).ok();
            self.worker.employed.store(thread.is_some(), Release);
        }
        thread.is_some()
    }

    /// Has the worker prepare space once appends rest for a while.
    pub(super) fn prepare_at_rest(self: &Arc<Self>) {
        if !self.worker.watches.load(Relaxed) {
            self.wake_worker(|wanted| wanted.prepare_at_rest = true);
        }
    }

    /// What the thread does until it is stopped.
    #[cfg(not(target_family = "wasm"))]
    fn work(self: &Arc<Self>) {
        let worker = &self.worker;
        let _ended = PoisonIfPanicking(self);
        // What was appended when it was looked last whether appends rest.
        let mut watched: Option<Offset> = None;
        let mut wanted = worker.wanted();
        while !wanted.stop {
            let now = self.now().unwrap_or_default();
            let sync = wanted.sync_at.is_some_and(|at| at <= now);
            if sync {
                wanted.sync_at = None;
            }
            let seal = std::mem::take(&mut wanted.seal);
            let new_files = std::mem::take(&mut wanted.sync_new_files);
            let retain = std::mem::take(&mut wanted.retain);
            let (prepare, map) = (wanted.prepare.take(), wanted.map.take());
            if std::mem::take(&mut wanted.prepare_at_rest) || prepare.is_some() {
                worker.watches.store(true, Relaxed);
                watched.get_or_insert_with(|| self.appended());
            }
            if seal || new_files || retain || sync || prepare.is_some() || map.is_some() {
                drop(wanted);
                // What fails poisons the log, which the next append tells.
                if new_files {
                    let _ = self.poison_if_failed(self.sync_new_files());
                }
                if let Some((segment, start, bytes)) = map {
                    segment.map_ahead(start, bytes);
                }
                if let Some((segment, to)) = prepare {
                    let _ = self.prepare(&segment, to, || true);
                }
                if seal {
                    let _ = self.lead().seal_all();
                }
                if sync {
                    let _ = self.sync();
                }
                if retain {
                    // What cannot be looked up now is, when the next segment is full.
                    let _ = self.enforce_retention();
                }
                wanted = worker.wanted();
                continue;
            }
            let until_sync = wanted.sync_at.map(|at| at.saturating_sub(now));
            let until_rest = watched.map(|_| AT_REST);
            let wait = until_rest.into_iter().chain(until_sync).min();
            let timed_out = match wait {
                Some(wait) => {
                    let waited = worker.changed.wait_timeout(wanted, wait);
                    let (woken, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                    wanted = woken;
                    waited.timed_out()
                }
                None => {
                    let waited = worker.changed.wait(wanted);
                    wanted = waited.unwrap_or_else(PoisonError::into_inner);
                    false
                }
            };
            if timed_out && let Some(appended) = watched {
                drop(wanted);
                let now = self.appended();
                watched = (now != appended).then_some(now);
                if watched.is_none() {
                    worker.watches.store(false, Relaxed);
                    self.prepare_until_appended(appended);
                }
                wanted = worker.wanted();
            }
        }
    }

    /// Prepares as much as was synced so far, for as long as nothing more is appended.
    #[cfg(not(target_family = "wasm"))]
    fn prepare_until_appended(&self, appended: Offset) {
        let ahead = self.commit.synced_bytes().min(self.backend.prepare_bytes());
        let (segment, end) = {
            let mut writer = self.writer_anyway();
            let active = writer.active();
            (Arc::clone(active.reader()), active.store_bytes())
        };
        let at_rest = || self.appended() == appended && !self.worker.wanted().stop;
        let _ = self.prepare(&segment, end.saturating_add(ahead), at_rest);
    }
}

/// Without its thread, what is left to that would not be done, and no one told.
#[cfg(not(target_family = "wasm"))]
struct PoisonIfPanicking<'a, B: Backend>(&'a Shared<B>);

#[cfg(not(target_family = "wasm"))]
impl<B: Backend> Drop for PoisonIfPanicking<'_, B> {
    fn drop(&mut self) {
        self.0.poison_if_panicking("working for the log");
    }
}

/// After how long a log is taken to be at rest.
#[cfg(not(target_family = "wasm"))]
const AT_REST: Duration = Duration::from_millis(50);

#[cfg(not(target_family = "wasm"))]
impl Log<FsBackend> {
    /// From now on there is a worker when there is something to do for it.
    pub(super) fn employ_worker(&self) {
        let start: Start<FsBackend> = |shared| {
            std::thread::Builder::new()
                .name("proglog".to_owned())
                .spawn(move || shared.work())
        };
        let _ = self.shared.worker.start.set(start);
    }
}

#[cfg(all(
    target_family = "wasm",
    not(all(target_arch = "wasm32", target_os = "unknown"))
))]
impl crate::Log<crate::FsBackend> {
    /// There are no threads.
    pub(super) fn employ_worker(&self) {}
}
