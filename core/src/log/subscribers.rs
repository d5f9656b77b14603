//! Those who wait for records, and how they are woken.
//!
//! Whoever shows records looks whether anyone waits; whoever waits says so, and then looks once more whether
//! something is shown. One of the two sees the other, so that no wake-up is lost (Dekker's algorithm):
//!
//! ```text
//!  shows records                          waits for them
//!  1  next.fetch_max(.., SeqCst)          3  waiting.fetch_add(1, SeqCst)
//!                                            leaves its waker, under the lock
//!                                            fence(SeqCst)
//!  2  waiting.load(SeqCst)                4  view.load(), next.load(Acquire)
//!     not 0: takes and wakes all wakers      nothing: sleeps until it is woken
//! ```
//!
//! If 2 finds 0, it comes before 3 in the single order of all `SeqCst` operations, and so does 1; the fence is
//! after 3 in it, and what is loaded after the fence is not older than what was stored before it in that order: 4
//! finds what 1 stored, or something later. The same holds for a view with a new segment, which is swapped in
//! (`SeqCst` in `arc_swap`) before anything is shown in it. If 2 finds another number, and the waker is not there
//! yet when all are taken, it is left after the lock was released by who took them, and so 4 comes after 1.
//!
//! Thus an append pays for a load, of a line that no one writes to who does not wait: 1 is a locked instruction
//! anyway. Nor does a subscriber who has enough to read cost it anything: it does not wait.
//!
//! Of the library for this, `event-listener`, a thread that is woken waits for a lock that the one who wakes holds
//! while it wakes: from append to wake it took twice as long.

#[cfg(not(target_family = "wasm"))]
use std::time::Instant;
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Acquire, Release, SeqCst},
            fence,
        },
    },
    task::Waker,
};

#[cfg(not(target_family = "wasm"))]
pub(super) use waiting::Sleeper;
#[cfg(any(not(target_family = "wasm"), feature = "stream"))]
pub(super) use waiting::Waiting;

use crate::Offset;

/// The subscriptions of a log.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    /// How many wait, or are about to.
    pub(super) waiting: AtomicUsize,
    wakers: Mutex<Wakers>,
    truncations: Mutex<Vec<Weak<Truncation>>>,
    /// When one of them looked last what another process did.
    #[cfg(not(target_family = "wasm"))]
    looked: Mutex<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Wakers {
    /// How many there ever were.
    #[cfg(any(not(target_family = "wasm"), feature = "stream"))]
    count: u64,
    /// Each with its number, in the order of these.
    left: Vec<(u64, Waker)>,
}

/// What a subscription has not heard yet of truncations: the lowest offset that one of them went down to.
#[derive(Debug)]
pub(super) struct Truncation(AtomicU64);

/// There was none.
const NONE: u64 = u64::MAX;

impl Subscribers {
    /// Wakes all who wait, after something was shown by a `SeqCst` operation.
    #[cfg_attr(not(target_os = "unknown"), inline(always))]
    pub(super) fn wake(&self) {
        if self.waiting.load(SeqCst) > 0 {
            self.wake_all();
        }
    }

    /// Wakes all who wait, whatever happened.
    pub(super) fn wake_anyway(&self) {
        fence(SeqCst);
        self.wake();
    }

    #[cold]
    fn wake_all(&self) {
        let wakers = std::mem::take(&mut lock(&self.wakers).left);
        // Not under the lock, which those who are woken may want.
        for (_, waker) in wakers {
            waker.wake();
        }
    }

    /// Held by the one that looks.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn looked(&self) -> MutexGuard<'_, Option<Instant>> {
        lock(&self.looked)
    }

    /// What a new subscription is told truncations by.
    pub(super) fn subscribe(&self) -> Arc<Truncation> {
        let truncation = Arc::new(Truncation(NONE.into()));
        let mut truncations = lock(&self.truncations);
        if truncations.len() == truncations.capacity() {
            truncations.retain(|other| other.strong_count() > 0);
        }
        truncations.push(Arc::downgrade(&truncation));
        truncation
    }

    /// Tells all subscriptions that no record from `next` on is any more what it was. Before readers can find others in
    /// their place, and again once they no longer find those: a subscription that heard of it may have gone back and
    /// read some of them once more.
    pub(super) fn truncated_to(&self, next: Offset) {
        for truncation in lock(&self.truncations).iter().filter_map(Weak::upgrade) {
            truncation.0.fetch_min(next.0, Release);
        }
        self.wake_anyway();
    }

    #[cfg(test)]
    pub(super) fn known(&self) -> usize {
        lock(&self.truncations).len()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Truncation {
    #[inline]
    pub(super) fn is_untold(&self) -> bool {
        self.0.load(Acquire) != NONE
    }

    /// Down to where records were truncated since this was asked last.
    pub(super) fn take(&self) -> Option<Offset> {
        self.is_untold()
            .then(|| Offset(self.0.swap(NONE, Acquire)))
            .filter(|to| to.0 != NONE)
    }
}

/// Waiting itself, for which there has to be another thread or an executor.
#[cfg(any(not(target_family = "wasm"), feature = "stream"))]
mod waiting {
    #[cfg(not(target_family = "wasm"))]
    use std::{
        sync::atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
        task::Wake,
        thread::{self, Thread},
        time::Instant,
    };
    use std::{
        sync::{
            Arc,
            atomic::{
                Ordering::{Relaxed, SeqCst},
                fence,
            },
        },
        task::Waker,
    };

    use super::lock;
    use crate::{Backend, log::Shared};

    /// One who waits to be woken, once. Whoever begins to looks once more for what it is going to wait for.
    #[derive(Debug)]
    pub(in crate::log) struct Waiting<B: Backend> {
        shared: Arc<Shared<B>>,
        number: u64,
    }

    impl<B: Backend> Waiting<B> {
        pub(in crate::log) fn begin(shared: &Arc<Shared<B>>, waker: Waker) -> Self {
            let subscribers = &shared.subscribers;
            subscribers.waiting.fetch_add(1, SeqCst);
            let mut wakers = lock(&subscribers.wakers);
            let number = wakers.count;
            wakers.count += 1;
            wakers.left.push((number, waker));
            drop(wakers);
            fence(SeqCst);
            Self {
                shared: Arc::clone(shared),
                number,
            }
        }

        /// Whether it was woken; if not, it is this waker from now on that is.
        #[cfg(feature = "stream")]
        pub(in crate::log) fn is_woken_or(&self, waker: &Waker) -> bool {
            let mut wakers = lock(&self.shared.subscribers.wakers);
            let Ok(at) = wakers.position(self.number) else {
                return true;
            };
            let left = &mut wakers.left[at].1;
            let before = (!left.will_wake(waker)).then(|| std::mem::replace(left, waker.clone()));
            drop(wakers);
            // Not under the lock: with it may go a task, and with that another stream that waits.
            drop(before);
            false
        }
    }

    impl super::Wakers {
        fn position(&self, number: u64) -> Result<usize, usize> {
            self.left
                .binary_search_by_key(&number, |(number, _)| *number)
        }
    }

    impl<B: Backend> Drop for Waiting<B> {
        fn drop(&mut self) {
            let subscribers = &self.shared.subscribers;
            let mut wakers = lock(&subscribers.wakers);
            let left = wakers.position(self.number);
            let left = left.ok().map(|at| wakers.left.remove(at));
            drop(wakers);
            drop(left);
            subscribers.waiting.fetch_sub(1, Relaxed);
        }
    }

    /// A thread that sleeps until it is woken.
    #[cfg(not(target_family = "wasm"))]
    #[derive(Debug)]
    pub(in crate::log) struct Sleeper {
        thread: Thread,
        woken: AtomicBool,
    }

    #[cfg(not(target_family = "wasm"))]
    impl Sleeper {
        /// This thread.
        pub(in crate::log) fn new() -> Arc<Self> {
            Arc::new(Self {
                thread: thread::current(),
                woken: false.into(),
            })
        }

        /// Returns once it was woken, or at this time.
        pub(in crate::log) fn sleep(&self, until: Option<Instant>) {
            // It may have been unparked for something else.
            while !self.woken.load(Acquire) {
                let Some(until) = until else {
                    thread::park();
                    continue;
                };
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                thread::park_timeout(left);
            }
        }
    }

    #[cfg(not(target_family = "wasm"))]
    impl Wake for Sleeper {
        fn wake(self: Arc<Self>) {
            self.woken.store(true, Release);
            self.thread.unpark();
        }
    }
}
