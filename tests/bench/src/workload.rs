//! The workloads: each takes a subject and gives one number. A measurement is a process of its own, so
//! that no subject inherits another's memory, threads or global settings.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    floors,
    runner::settle,
    subject::{Group, Kind, Promise, Setup, Subject},
    values::{Seen, Values, random_below},
};

const MIB: u64 = 1 << 20;
/// The records that fill one of proglog's segments of 64 MiB, at 1 KiB with a timestamp.
const SEGMENT_RECORDS: u64 = 63_000;

/// What is timed, or weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    Append {
        promise: Promise,
        value_bytes: usize,
    },
    BatchSync,
    /// Batches without a sync.
    EngineBatch,
    Synced {
        threads: u64,
    },
    Scan {
        verify_once: bool,
    },
    Random {
        threads: u64,
    },
    Open,
    OpenSegments {
        segments: u64,
    },
    OpenKilled,
    Disk {
        value_bytes: usize,
        closed: bool,
    },
    Memory,
    /// Appends to a log that holds so much already.
    LongAppend {
        bytes: u64,
    },
    /// Reads at random in such a log.
    LongRandom {
        bytes: u64,
    },
    /// Opens an engine a second time in a process.
    OpenAgain,
}

/// What a workload finds in its directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// Nothing.
    Fresh,
    /// A log that was closed, shared by all that only read it.
    Closed { bytes: u64 },
    /// A log that was closed, and holds at least so much: who appends to it leaves it longer.
    Grown { bytes: u64 },
    /// A log of so many segments, closed.
    Segments { segments: u64 },
    /// A copy of a log whose process was killed.
    Killed,
}

impl Workload {
    pub fn data(self) -> Data {
        match self {
            Self::Scan { .. } | Self::Random { .. } | Self::Open | Self::Memory => {
                Data::Closed { bytes: 512 * MIB }
            }
            Self::LongAppend { bytes } | Self::LongRandom { bytes } => Data::Grown { bytes },
            Self::OpenSegments { segments } => Data::Segments { segments },
            Self::OpenKilled => Data::Killed,
            _ => Data::Fresh,
        }
    }

    pub fn promise(self) -> Promise {
        match self {
            Self::Append { promise, .. } => promise,
            Self::Synced { .. } | Self::BatchSync => Promise::Synced,
            Self::OpenKilled => Promise::Written,
            _ => Promise::Buffered,
        }
    }
}

/// Linux maps so many bytes around one that is touched (`fault_around_bytes`).
const MAPPED_AT_A_TIME: u64 = 64 << 10;

/// What a measurement is given.
pub struct Given<'a> {
    pub directory: &'a Path,
    pub data: Data,
    pub quick: bool,
}

impl Given<'_> {
    fn least(&self) -> Duration {
        Duration::from_millis(if self.quick { 40 } else { 200 })
    }

    fn setup(&self, promise: Promise, value_bytes: usize, bytes: u64) -> Setup {
        Setup {
            directory: self.directory.to_owned(),
            promise,
            records: bytes / value_bytes as u64,
            value_bytes,
            exists: false,
            verify_once: false,
            segment_bytes: None,
        }
    }

    fn scaled(&self, bytes: u64) -> u64 {
        if self.quick { bytes / 8 } else { bytes }
    }

    /// How the log that [`fill`] made is opened.
    fn existing(&self) -> Setup {
        let (bytes, segment_bytes) = match self.data {
            Data::Closed { bytes } | Data::Grown { bytes } => (bytes, None),
            // Three of 1 KiB fit with what is around them.
            Data::Segments { segments } => (segments * 3 * 1024, Some(4 << 10)),
            Data::Killed if self.quick => (60_000 << 10, None),
            Data::Killed => ((7 * SEGMENT_RECORDS + 60_000) << 10, None),
            Data::Fresh => (0, None),
        };
        let bytes = match self.data {
            Data::Closed { .. } | Data::Grown { .. } | Data::Segments { .. } => self.scaled(bytes),
            _ => bytes,
        };
        Setup {
            exists: true,
            segment_bytes,
            ..self.setup(Promise::Buffered, 1 << 10, bytes)
        }
    }
}

/// Makes the log that a workload finds: record by record, each kept by `kill -9`, or in batches of 1,000,
/// each synced, whichever reads faster. Where it is to be killed, this does not return.
pub fn fill(kind: &Kind, given: &Given<'_>) -> Result<()> {
    let mut setup = Setup {
        exists: false,
        promise: Promise::Written,
        ..given.existing()
    };
    let values = Values::new(setup.value_bytes);
    let mut subject = match (kind.open)(&setup) {
        Err(_) => {
            setup.promise = Promise::Buffered;
            (kind.open)(&setup)?
        }
        opened => opened?,
    };
    for start in (0..setup.records).step_by(1000) {
        let range = start..(start + 1000).min(setup.records);
        if !subject.fills_in_batches() {
            subject.append_all(&values, range)?;
        } else {
            subject.append_batch(&values, range)?;
            subject.sync()?;
        }
    }
    if given.data == Data::Killed {
        // SAFETY: a signal to this process itself.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    }
    subject.sync()?;
    subject.close()
}

/// The workload's number for this subject.
pub fn measure(workload: Workload, kind: &Kind, given: &Given<'_>) -> Result<f64> {
    match workload {
        Workload::Append {
            promise,
            value_bytes,
        } => append(kind, given, promise, value_bytes),
        Workload::BatchSync => batches(kind, given, true),
        Workload::EngineBatch => batches(kind, given, false),
        Workload::Synced { threads: 1 } => synced(kind, given),
        Workload::Synced { threads } => synced_shared(kind, given, threads),
        Workload::Scan { verify_once } => scan(kind, given, verify_once),
        Workload::Random { threads } => random(kind, given, threads),
        Workload::Open | Workload::OpenSegments { .. } => opened(kind, given),
        Workload::OpenKilled => open_killed(kind, given),
        Workload::Disk {
            value_bytes,
            closed,
        } => disk(kind, given, value_bytes, closed),
        Workload::Memory => memory(kind, given),
        Workload::LongAppend { .. } => long_append(kind, given),
        Workload::LongRandom { .. } => random(kind, given, 1),
        Workload::OpenAgain => open_again(kind, given),
    }
}

/// Records a second, without a sync.
fn append(kind: &Kind, given: &Given<'_>, promise: Promise, value_bytes: usize) -> Result<f64> {
    let setup = given.setup(promise, value_bytes, given.scaled(512 * MIB));
    timed_appends((kind.open)(&setup)?, given, &setup)
}

/// The same, to a log that is there.
fn long_append(kind: &Kind, given: &Given<'_>) -> Result<f64> {
    let setup = given.existing();
    let more = given.setup(Promise::Buffered, 1 << 10, given.scaled(256 * MIB));
    timed_appends((kind.open)(&setup)?, given, &more)
}

fn timed_appends(mut subject: Box<dyn Subject>, given: &Given<'_>, setup: &Setup) -> Result<f64> {
    let values = Values::new(setup.value_bytes);
    let step = (MIB / setup.value_bytes as u64).max(1);
    let mut stage = Stage::new(given, setup.records, step)?;
    subject.ready()?;
    stage.start();
    while let Some(range) = stage.next() {
        subject.append_all(&values, range)?;
    }
    subject.flush()?;
    let per_second = stage.per_second();
    subject.close()?;
    Ok(per_second)
}

/// Batches of 1,000 records, each followed by a sync if asked; records a second.
fn batches(kind: &Kind, given: &Given<'_>, sync: bool) -> Result<f64> {
    let setup = given.setup(Promise::Buffered, 1 << 10, given.scaled(256 * MIB));
    let values = Values::new(setup.value_bytes);
    let mut subject = (kind.open)(&setup)?;
    let mut stage = Stage::new(given, setup.records / 1000 * 1000, 1000)?;
    subject.ready()?;
    stage.start();
    while let Some(range) = stage.next() {
        subject.append_batch(&values, range)?;
        if sync {
            subject.sync()?;
        }
    }
    let per_second = stage.per_second();
    subject.close()?;
    Ok(per_second)
}

/// Appends that are synced one by one; records a second.
fn synced(kind: &Kind, given: &Given<'_>) -> Result<f64> {
    let setup = given.setup(Promise::Synced, 1 << 10, 16 * MIB);
    let values = Values::new(setup.value_bytes);
    let mut subject = (kind.open)(&setup)?;
    let mut stage = Stage::new(given, setup.records, 1)?;
    subject.ready()?;
    stage.start();
    while let Some(range) = stage.next() {
        subject.append_all(&values, range)?;
    }
    let per_second = stage.per_second();
    subject.close()?;
    Ok(per_second)
}

/// The same from several threads.
fn synced_shared(kind: &Kind, given: &Given<'_>, threads: u64) -> Result<f64> {
    let setup = given.setup(Promise::Synced, 1 << 10, 64 * MIB);
    let values = Values::new(setup.value_bytes);
    let mut subject = (kind.open)(&setup)?;
    settle(given.directory)?;
    subject.ready()?;
    let done = AtomicU64::new(0);
    let next = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    while !stop.load(Relaxed) {
                        let n = next.fetch_add(1, Relaxed);
                        if n >= setup.records || start.elapsed() >= given.least() {
                            stop.store(true, Relaxed);
                            break;
                        }
                        subject.append_shared(values.value(n))?;
                        done.fetch_add(1, Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        for worker in workers {
            worker.join().ok().context("a thread panicked")??;
        }
        Ok(())
    })?;
    let per_second = done.into_inner() as f64 / start.elapsed().as_secs_f64();
    subject.close()?;
    Ok(per_second)
}

/// Records a second; a pass before the clock starts maps the pages and, where checksums are verified once,
/// verifies them.
fn scan(kind: &Kind, given: &Given<'_>, verify_once: bool) -> Result<f64> {
    let setup = Setup {
        verify_once,
        ..given.existing()
    };
    let expected = Values::new(setup.value_bytes).seen(setup.records);
    warm(given.directory)?;
    let subject = (kind.open)(&setup)?;
    let check = |seen: Seen| {
        ensure!(
            seen == expected,
            "a scan saw {} of {} records, or other bytes",
            seen.records,
            expected.records
        );
        Ok(())
    };
    let pass = || -> Result<Duration> {
        let start = Instant::now();
        check(subject.scan()?)?;
        Ok(start.elapsed())
    };
    let first = pass()?;
    let (mut passes, mut spent) = (1, first);
    // What is slow enough needs no second pass.
    if !subject.scans_once() && first < 5 * given.least() {
        (passes, spent) = (0, Duration::ZERO);
        while spent < given.least() {
            spent += pass()?;
            passes += 1;
        }
    }
    let per_second = (passes * setup.records) as f64 / spent.as_secs_f64();
    subject.close()?;
    Ok(per_second)
}

/// Records a second, read at random; all threads together.
fn random(kind: &Kind, given: &Given<'_>, threads: u64) -> Result<f64> {
    let setup = given.existing();
    let values = Values::new(setup.value_bytes);
    warm(given.directory)?;
    let subject = (kind.open)(&setup)?;
    // As a program that has been running for a while: every stretch was touched that the kernel maps at a time.
    let (warming, mut touched) = (Instant::now(), 0);
    let step = (MAPPED_AT_A_TIME / 2 / setup.value_bytes as u64).max(1);
    subject.read_all(&mut std::iter::from_fn(|| {
        touched += step;
        (touched < setup.records && warming.elapsed() < 20 * given.least()).then_some(touched)
    }))?;
    let rates = Mutex::new(0.0);
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (1..=threads)
            .map(|thread| {
                let (subject, values, rates) = (&subject, &values, &rates);
                scope.spawn(move || -> Result<()> {
                    let first = thread << 40;
                    let mut count = 0;
                    let start = Instant::now();
                    let mut numbers = std::iter::from_fn(|| {
                        if count % 256 == 0 && start.elapsed() >= given.least() {
                            return None;
                        }
                        count += 1;
                        Some(random_below(first + count, setup.records))
                    });
                    let sum = subject.read_all(&mut numbers)?;
                    let per_second = count as f64 / start.elapsed().as_secs_f64();
                    *rates.lock().unwrap_or_else(PoisonError::into_inner) += per_second;
                    let expected = (1..=count)
                        .map(|n| values.fold_of(random_below(first + n, setup.records)))
                        .fold(0_u64, u64::wrapping_add);
                    ensure!(sum == expected, "a read returned other bytes");
                    Ok(())
                })
            })
            .collect();
        for worker in workers {
            worker.join().ok().context("a thread panicked")??;
        }
        Ok(())
    })?;
    subject.close()?;
    Ok(rates.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Milliseconds to open what is there, in a new process, its files in the page cache.
fn opened(kind: &Kind, given: &Given<'_>) -> Result<f64> {
    let setup = given.existing();
    warm(given.directory)?;
    let start = Instant::now();
    let subject = (kind.open)(&setup)?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    subject.close()?;
    Ok(ms)
}

fn open_killed(kind: &Kind, given: &Given<'_>) -> Result<f64> {
    if kind.group == Group::Floor {
        warm(given.directory)?;
        let start = Instant::now();
        floors::check_newest_store(given.directory)?;
        return Ok(start.elapsed().as_secs_f64() * 1e3);
    }
    let setup = given.existing();
    warm(given.directory)?;
    let start = Instant::now();
    let subject = (kind.open)(&setup)?;
    let ms = start.elapsed().as_secs_f64() * 1e3;
    let expected = Values::new(setup.value_bytes).seen(setup.records);
    let seen = subject.scan()?;
    ensure!(
        seen == expected,
        "{} of {} records were there after the kill",
        seen.records,
        expected.records
    );
    subject.close()?;
    Ok(ms)
}

/// Milliseconds to open, use and close an engine that the process has had open before.
fn open_again(kind: &Kind, given: &Given<'_>) -> Result<f64> {
    let setup = given.setup(Promise::Written, 1 << 10, MIB);
    let values = Values::new(setup.value_bytes);
    let mut subject = (kind.open)(&setup)?;
    subject.append_batch(&values, 0..setup.records)?;
    subject.close()?;
    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        let subject = (kind.open)(&setup)?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        subject.close()?;
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Bytes on disk a byte of payload.
fn disk(kind: &Kind, given: &Given<'_>, value_bytes: usize, closed: bool) -> Result<f64> {
    let bytes = if value_bytes < 1024 { 128 } else { 512 } * MIB;
    let setup = given.setup(Promise::Buffered, value_bytes, given.scaled(bytes));
    let values = Values::new(value_bytes);
    let mut subject = (kind.open)(&setup)?;
    for start in (0..setup.records).step_by(1000) {
        subject.append_batch(&values, start..(start + 1000).min(setup.records))?;
    }
    subject.sync()?;
    if closed {
        subject.close()?;
        return Ok(blocks_bytes(given.directory)? as f64 / setup.payload_bytes() as f64);
    }
    let ratio = blocks_bytes(given.directory)? as f64 / setup.payload_bytes() as f64;
    subject.close()?;
    Ok(ratio)
}

fn blocks_bytes(path: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            bytes += blocks_bytes(&entry.path())?;
        } else {
            bytes += entry.metadata()?.blocks() * 512;
        }
    }
    Ok(bytes)
}

/// MiB of anonymous memory more than before, after a scan and random reads.
fn memory(kind: &Kind, given: &Given<'_>) -> Result<f64> {
    let setup = given.existing();
    let before = anonymous_bytes()?;
    let subject = (kind.open)(&setup)?;
    subject.scan()?;
    let read = subject.read_all(&mut (0..200_000).map(|n| random_below(n, setup.records)));
    let after = anonymous_bytes()?;
    subject.close()?;
    // Who cannot read at random is weighed after a scan.
    drop(read);
    Ok(after.saturating_sub(before) as f64 / MIB as f64)
}

fn anonymous_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.context("no RssAnon")?.trim().parse::<u64>()? << 10)
}

/// Reads every file, so that it is in the page cache.
fn warm(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_dir() {
            warm(&path)?;
        } else {
            std::io::copy(&mut fs::File::open(path)?, &mut std::io::sink())?;
        }
    }
    Ok(())
}

/// Deals out a workload's ranges until enough time has passed or all are done.
struct Stage {
    least: Duration,
    most: u64,
    step: u64,
    done: u64,
    started: Instant,
}

impl Stage {
    fn new(given: &Given<'_>, most: u64, step: u64) -> Result<Self> {
        if most == 0 {
            bail!("nothing to do");
        }
        settle(given.directory)?;
        Ok(Self {
            least: given.least(),
            most,
            step,
            done: 0,
            started: Instant::now(),
        })
    }

    fn start(&mut self) {
        self.started = Instant::now();
    }

    fn next(&mut self) -> Option<std::ops::Range<u64>> {
        if self.done == self.most || self.started.elapsed() >= self.least {
            return None;
        }
        let start = self.done;
        self.done = (start + self.step).min(self.most);
        Some(start..self.done)
    }

    fn per_second(&self) -> f64 {
        self.done as f64 / self.started.elapsed().as_secs_f64()
    }
}
