//! How long it takes from an append to the subscription that waits for it, beside what it takes to wake a thread at
//! all: `make bench-tail`.
//!
//! One thread sends, the other waits; each time the receiver is given time to fall asleep. What is timed begins before
//! the append (or before the condition variable is notified, or the futex woken) and ends when the other thread has the
//! record (or runs). The kinds take turns in one run, so that all meet the same machine.
//!
//! PROGLOG_TAIL_WAKES says how many of each.

use std::{
    env,
    hint::black_box,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use futures_lite::{StreamExt, future};
use proglog::{Backend, Clock, Durability, FsBackend, Log, MemoryBackend, Offset, Options};

/// Of each kind.
const WAKES: usize = 20_000;
/// In a turn.
const TURN: usize = 500;
/// Long enough to fall asleep.
const PAUSE: Duration = Duration::from_micros(150);

fn main() {
    // As a test it is only to run.
    let is_test = !env::args().any(|argument| argument == "--bench");
    let wakes = env::var("PROGLOG_TAIL_WAKES").ok();
    let wakes = wakes.map_or(if is_test { TURN } else { WAKES }, |text| {
        text.parse().expect("PROGLOG_TAIL_WAKES is a number")
    });
    let directory = tempfile::tempdir().expect("a directory");
    let in_memory = || Log::open_on(MemoryBackend::new(), options()).expect("opened");
    let mut logs = 0;
    let mut on_disk = || {
        logs += 1;
        let path = directory.path().join(logs.to_string());
        Log::open(path, options()).expect("opened")
    };
    let mut kinds: Vec<Kind> = vec![
        Kind::new("floor: condition variable", condvar()),
        #[cfg(target_os = "linux")]
        Kind::new("floor: futex", futex()),
        Kind::new(
            "append in memory",
            blocking(in_memory(), Durability::Buffered),
        ),
        Kind::new(
            "append Buffered",
            blocking::<FsBackend>(on_disk(), Durability::Buffered),
        ),
        Kind::new("append Written", blocking(on_disk(), Durability::Written)),
        Kind::new(
            "append Written, stream",
            stream(on_disk(), Durability::Written),
        ),
    ];
    while kinds[0].taken.len() < wakes {
        for kind in &mut kinds {
            for _ in 0..TURN {
                let taken = (kind.wake)();
                kind.taken.push(taken);
            }
        }
    }
    println!(
        "{:<28} {:>9} {:>9} {:>9}",
        "microseconds to wake", "p50", "p99", "p99.9"
    );
    for kind in &mut kinds {
        kind.taken.sort_unstable();
        let at = |part: f64| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss
            )]
            let at = (kind.taken.len() as f64 * part) as usize;
            kind.taken[at].as_secs_f64() * 1e6
        };
        println!(
            "{:<28} {:>9.2} {:>9.2} {:>9.2}",
            kind.name,
            at(0.5),
            at(0.99),
            at(0.999)
        );
    }
}

struct Kind {
    name: &'static str,
    /// Wakes the other thread once, and says how long that took.
    wake: Box<dyn FnMut() -> Duration>,
    taken: Vec<Duration>,
}

impl Kind {
    fn new(name: &'static str, wake: impl FnMut() -> Duration + 'static) -> Self {
        let (wake, taken) = (Box::new(wake), Vec::new());
        Self { name, wake, taken }
    }
}

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}

/// When the other thread woke last, in nanoseconds.
struct Woken {
    start: Instant,
    at: AtomicU64,
}

impl Woken {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            at: AtomicU64::new(0),
        })
    }

    fn now(&self) {
        let at = u64::try_from(self.start.elapsed().as_nanos()).expect("a short run");
        self.at.store(at, SeqCst);
    }

    /// How long after `wake` began it did.
    fn time(&self, wake: impl FnOnce()) -> Duration {
        thread::sleep(PAUSE);
        self.at.store(0, SeqCst);
        let began = self.start.elapsed();
        wake();
        loop {
            match self.at.load(SeqCst) {
                0 => thread::yield_now(),
                at => return Duration::from_nanos(at) - began,
            }
        }
    }
}

fn condvar() -> impl FnMut() -> Duration {
    let woken = Woken::new();
    let sent = Arc::new((Mutex::new(0_u64), Condvar::new()));
    thread::spawn({
        let (woken, sent) = (Arc::clone(&woken), Arc::clone(&sent));
        move || {
            let mut seen = 0;
            let mut number = sent.0.lock().expect("no one panics");
            loop {
                while *number == seen {
                    number = sent.1.wait(number).expect("no one panics");
                }
                seen = *number;
                woken.now();
            }
        }
    });
    move || {
        woken.time(|| {
            *sent.0.lock().expect("no one panics") += 1;
            sent.1.notify_one();
        })
    }
}

#[cfg(target_os = "linux")]
fn futex() -> impl FnMut() -> Duration {
    use rustix::thread::futex::{Flags, wait, wake};
    let woken = Woken::new();
    let sent = Arc::new(AtomicU32::new(0));
    thread::spawn({
        let (woken, sent) = (Arc::clone(&woken), Arc::clone(&sent));
        move || {
            let mut seen = 0;
            loop {
                while sent.load(SeqCst) == seen {
                    let _ = wait(&sent, Flags::PRIVATE, seen, None);
                }
                seen = sent.load(SeqCst);
                woken.now();
            }
        }
    });
    move || {
        woken.time(|| {
            sent.fetch_add(1, SeqCst);
            wake(&sent, Flags::PRIVATE, 1).expect("woken");
        })
    }
}

fn blocking<B>(log: Log<B>, durability: Durability) -> impl FnMut() -> Duration
where
    B: Backend + Send + Sync + 'static,
    B::File: Send + Sync,
{
    let woken = Woken::new();
    let subscription = log.subscribe(Offset(0));
    thread::spawn({
        let woken = Arc::clone(&woken);
        move || {
            for record in subscription {
                let record = record.expect("a record");
                woken.now();
                black_box(record);
            }
        }
    });
    move || woken.time(|| append(&log, durability))
}

fn stream(log: Log, durability: Durability) -> impl FnMut() -> Duration {
    let woken = Woken::new();
    let mut records = log.subscribe(Offset(0)).into_stream();
    thread::spawn({
        let woken = Arc::clone(&woken);
        move || {
            future::block_on(async {
                while let Some(record) = records.next().await {
                    let record = record.expect("a record");
                    woken.now();
                    black_box(record);
                }
            });
        }
    });
    move || woken.time(|| append(&log, durability))
}

fn append<B: Backend>(log: &Log<B>, durability: Durability) {
    let value = [7; 100];
    log.append_with(&value[..], durability).expect("appended");
}
