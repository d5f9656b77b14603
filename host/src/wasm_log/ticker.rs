//! The clock that stops a guest which does not return.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use wasmtime::EngineWeak;

/// How often the engine's epoch goes up while calls are under way.
const TICK: Duration = Duration::from_millis(10);
/// For how many ticks without a call it goes on, so that calls in quick succession need not wake it.
const IDLE_TICKS: u32 = 1;

/// Raises an engine's epoch while calls are under way. With none for two ticks its thread sleeps
/// until the next; it ends with the process.
pub(super) struct Ticker {
    shared: Arc<Shared>,
}

struct Shared {
    /// How many calls were begun, and how many ended.
    begun: AtomicU64,
    ended: AtomicU64,
    asleep: AtomicBool,
    mutex: Mutex<()>,
    woken: Condvar,
}

/// A call that is under way, until this is dropped.
pub(super) struct Call<'a> {
    shared: &'a Shared,
}

impl Ticker {
    pub(super) fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            mutex: Mutex::new(()),
            woken: Condvar::new(),
        });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("proglog-ticker".to_owned())
            .spawn(move || of_thread.run(&engine))?;
        Ok(Self { shared })
    }

    /// Says that a call begins.
    pub(super) fn call(&self) -> Call<'_> {
        let shared = &*self.shared;
        shared.begun.fetch_add(1, SeqCst);
        // Either this sees that the thread sleeps, or the thread sees the call before it does.
        if shared.asleep.load(SeqCst) {
            let _guard = shared.mutex.lock().unwrap_or_else(PoisonError::into_inner);
            shared.asleep.store(false, SeqCst);
            shared.woken.notify_one();
        }
        Call { shared }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.shared.ended.fetch_add(1, SeqCst);
    }
}

/// The epochs within which a call of this duration ends.
pub(super) fn epochs(timeout: Duration) -> u64 {
    let ticks = timeout.as_nanos().div_ceil(TICK.as_nanos());
    // One more, for the tick that is about to come.
    u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1)
}

impl Shared {
    fn run(&self, engine: &EngineWeak) {
        let mut seen = 0;
        let mut idle_ticks = 0;
        loop {
            thread::sleep(TICK);
            let Some(engine) = engine.upgrade() else {
                return;
            };
            engine.increment_epoch();
            let begun = self.begun.load(SeqCst);
            idle_ticks = if begun == seen && self.is_idle() {
                idle_ticks + 1
            } else {
                0
            };
            seen = begun;
            if idle_ticks > IDLE_TICKS {
                self.sleep(begun);
                idle_ticks = 0;
            }
        }
    }

    fn is_idle(&self) -> bool {
        // In this order: a call that ends in between was begun before.
        let ended = self.ended.load(SeqCst);
        self.begun.load(SeqCst) == ended
    }

    fn sleep(&self, seen: u64) {
        let mut guard = self.mutex.lock().unwrap_or_else(PoisonError::into_inner);
        self.asleep.store(true, SeqCst);
        if self.begun.load(SeqCst) != seen {
            self.asleep.store(false, SeqCst);
        }
        while self.asleep.load(SeqCst) {
            guard = self
                .woken
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
