//! The thread that does what appends should not wait for: sealing full segments, preparing space, and
//! syncing in time. Only logs in a directory have one, and only once there is something to do.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
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
    /// The segment in which zeros should be written, and how far.
    pub(super) prepare: Option<(Arc<SegmentReader<B::File>>, u64)>,
    /// The memory that should be mapped.
    pub(super) map: Option<MapAhead<B>>,
    pub(super) sync_at: Option<Duration>,
    stop: bool,
}

impl<B: Backend> Default for Wanted<B> {
    fn default() -> Self {
        Self {
            seal: false,
            sync_new_files: false,
            prepare: None,
            map: None,
            sync_at: None,
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
    thread: Mutex<Option<JoinHandle<()>>>,
    wanted: Mutex<Wanted<B>>,
    changed: Condvar,
}

impl<B: Backend> Default for Worker<B> {
    fn default() -> Self {
        Self {
            start: OnceLock::new(),
            employed: false.into(),
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
            // A panic there has poisoned what it touched.
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

    /// What the thread does until it is stopped.
    #[cfg(not(target_family = "wasm"))]
    fn work(self: &Arc<Self>) {
        let worker = &self.worker;
        let mut idle = None;
        let mut wanted = worker.wanted();
        while !wanted.stop {
            let now = self.now().unwrap_or_default();
            let sync = wanted.sync_at.is_some_and(|at| at <= now);
            if sync {
                wanted.sync_at = None;
            }
            let seal = std::mem::take(&mut wanted.seal);
            let new_files = std::mem::take(&mut wanted.sync_new_files);
            let (prepare, map) = (wanted.prepare.take(), wanted.map.take());
            if seal || new_files || sync || prepare.is_some() || map.is_some() {
                drop(wanted);
                // What fails poisons the log, which the next append tells.
                if new_files {
                    let _ = self.poison_if_failed(self.sync_new_files());
                }
                if let Some((segment, start, bytes)) = map {
                    segment.map_ahead(start, bytes);
                }
                if let Some((segment, to)) = prepare {
                    let _ = self.poison_if_failed(segment.prepare(to, || true));
                    idle = Some(Idle {
                        segment,
                        appended: self.appended(),
                    });
                }
                if seal {
                    let _ = self.lead().seal_all();
                }
                if sync {
                    let _ = self.sync();
                }
                wanted = worker.wanted();
                continue;
            }
            let until_sync = wanted.sync_at.map(|at| at.saturating_sub(now));
            let wait = idle
                .as_ref()
                .map(|_| IDLE)
                .into_iter()
                .chain(until_sync)
                .min();
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
            if timed_out && let Some(at_rest) = idle.take() {
                drop(wanted);
                idle = self.prepare_at_rest(at_rest);
                wanted = worker.wanted();
            }
        }
    }

    /// Prepares more of a segment when nothing was appended for a while; until then it is watched.
    #[cfg(not(target_family = "wasm"))]
    fn prepare_at_rest(&self, idle: Idle<B>) -> Option<Idle<B>> {
        let appended = self.appended();
        if appended != idle.appended {
            return Some(Idle { appended, ..idle });
        }
        let segment_end = self.options.segment_bytes_max;
        let ahead = self.commit.synced_bytes().min(self.backend.prepare_bytes());
        let to = idle.segment.store_bytes().saturating_add(ahead);
        let at_rest = || self.appended() == appended && !self.worker.wanted().stop;
        let prepared = idle.segment.prepare(to.min(segment_end), at_rest);
        let _ = self.poison_if_failed(prepared);
        None
    }
}

/// After how long a log is taken to be at rest.
#[cfg(not(target_family = "wasm"))]
const IDLE: Duration = Duration::from_millis(50);

/// A segment of which more may be prepared, if what was appended stays so.
#[cfg(not(target_family = "wasm"))]
struct Idle<B: Backend> {
    segment: Arc<SegmentReader<B::File>>,
    appended: Offset,
}

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
