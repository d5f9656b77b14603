//! Readers against a writer that appends, rolls, truncates at both ends and begins anew: no wrong bytes, no half
//! batch, no damage; and what was read stays as it was.
//!
//! PROGLOG_READERS_SECONDS says how long for each backend, PROGLOG_READERS_SEED where the randomness starts.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{
        RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use proglog::{
    Backend, Clock, Durability, Error, FileAccess, FsBackend, Log, MemoryBackend, Offset, Options,
    Record, Verify,
};
use proglog_tests::seeds;
use tempfile::TempDir;

const SECONDS: u64 = 5;
const READERS: u64 = 4;
/// So many records each reader keeps for a while.
const KEPT: usize = 500;

#[test]
fn readers_against_a_writer_mapped() {
    let directory = TempDir::new().unwrap();
    run(|options| Log::open(directory.path(), options));
}

#[test]
fn readers_against_a_writer_by_calls() {
    let directory = TempDir::new().unwrap();
    run(|options| {
        let backend = FsBackend::open(directory.path())?;
        Log::open_on(backend.file_access(FileAccess::Calls), options)
    });
}

#[test]
fn readers_against_a_writer_in_memory() {
    let backend = MemoryBackend::new();
    run(|options| Log::open_on(backend.clone(), options));
}

/// What the readers may see.
#[derive(Default)]
struct World {
    /// Which generation the writer is at. It is counted up before records are removed at the end.
    generation: AtomicU64,
    /// The first offset of each generation, once the removal before it is over.
    begun: RwLock<Vec<(u64, u64)>>,
    /// Counted up before and after each removal, at either end: odd during one.
    removals: AtomicU64,
    ended: AtomicBool,
    reads: AtomicU64,
}

fn run<B>(open: impl Fn(Options) -> Result<Log<B>, Error>)
where
    B: Backend + Send + Sync,
    B::File: Send + Sync,
{
    let seconds = seeds::variable("READERS", "SECONDS").unwrap_or(SECONDS);
    let seed = seeds::first_or_new("READERS");
    println!("PROGLOG_READERS_SEED={seed}");
    let world = World::default();
    let mut rng = Rng::with_seed(seed);
    let end = Instant::now() + Duration::from_secs(seconds);
    // Opened again now and then, with other options.
    let mut held = (Offset(0), Offset(0));
    let rounds = if seconds > 10 { 8 } else { 2 };
    for round in 1..=rounds {
        let part = Duration::from_secs(seconds) / rounds * (rounds - round);
        let options = Options::new()
            .clock(Clock::NONE)
            .segment_bytes_max(20 << rng.u32(9..15))
            .index_bytes_max(12 * rng.u64(100..5000))
            .verify(if round % 2 == 0 {
                Verify::Once
            } else {
                Verify::EveryRead
            });
        let log = open(options).unwrap();
        assert_eq!((log.lowest_offset(), log.next_offset()), held);
        world.ended.store(false, SeqCst);
        thread::scope(|scope| {
            for _ in 0..READERS {
                let (log, world, rng) = (&log, &world, rng.fork());
                scope.spawn(move || {
                    let ended = EndOnPanic(world);
                    Reader::new(log, world, rng).read_until_ended();
                    std::mem::forget(ended);
                });
            }
            let ended = EndOnPanic(&world);
            write_until(end - part, &log, &world, &mut rng);
            drop(ended);
        });
        assert!(log.verify().unwrap().is_sound());
        held = (log.lowest_offset(), log.next_offset());
        log.close().unwrap();
    }
    println!(
        "{} reads, {} removals",
        world.reads.load(SeqCst),
        world.removals.load(SeqCst) / 2
    );
}

/// Ends it for all when one ends.
struct EndOnPanic<'a>(&'a World);

impl Drop for EndOnPanic<'_> {
    fn drop(&mut self) {
        self.0.ended.store(true, SeqCst);
    }
}

fn write_until<B: Backend>(end: Instant, log: &Log<B>, world: &World, rng: &mut Rng) {
    while Instant::now() < end && !world.ended.load(SeqCst) {
        let next = log.next_offset().0;
        let lowest = log.lowest_offset().0;
        let held = next - lowest;
        match rng.u32(..1000) {
            // Seldom: there should be something to read.
            0..4 => world.remove(|| {
                log.truncate_before(Offset(rng.u64(lowest..=next))).unwrap();
            }),
            4..8 if held > 0 => {
                let last = next - 1 - rng.u64(..held.min(200));
                world.remove_end(last + 1, || log.truncate_after(Offset(last)).unwrap());
            }
            8 if rng.u8(..10) == 0 => world.remove_end(0, || log.reset().unwrap()),
            9..12 => log.sync().unwrap(),
            _ => append(log, world, rng, next),
        }
        if rng.u8(..200) == 0 {
            thread::sleep(Duration::from_micros(rng.u64(..3000)));
        }
    }
}

fn append<B: Backend>(log: &Log<B>, world: &World, rng: &mut Rng, next: u64) {
    let durability = match rng.u8(..8) {
        0 => Durability::Synced,
        1..4 => Durability::Buffered,
        _ => Durability::Written,
    };
    let generation = world.generation.load(SeqCst);
    let records = if rng.u8(..4) == 0 { rng.u64(2..40) } else { 1 };
    let batch = next..next + records;
    let values: Vec<_> = batch
        .clone()
        .map(|offset| value(generation, offset, &batch))
        .collect();
    let first = match values.as_slice() {
        [value] => log.append_with(value, durability).unwrap(),
        _ => log.append_batch_with(&values, durability).unwrap().start,
    };
    assert_eq!(first, Offset(next));
}

impl World {
    fn remove(&self, remove: impl FnOnce()) {
        self.removals.fetch_add(1, SeqCst);
        remove();
        self.removals.fetch_add(1, SeqCst);
    }

    /// From `next` on the records are of another generation.
    fn remove_end(&self, next: u64, remove: impl FnOnce()) {
        let generation = self.generation.fetch_add(1, SeqCst) + 1;
        self.remove(|| {
            remove();
            self.begun.write().unwrap().push((generation, next));
        });
    }

    /// The oldest generation that a record of this offset may be of.
    fn oldest(&self, offset: u64) -> u64 {
        let begun = self.begun.read().unwrap();
        let found = begun.iter().rev().find(|(_, first)| *first <= offset);
        found.map_or(0, |(generation, _)| *generation)
    }

    /// Whether a part of these records, of a generation, was removed at the end since.
    fn is_cut(&self, generation: u64, offsets: &Range<u64>) -> bool {
        let begun = self.begun.read().unwrap();
        let mut later = begun
            .iter()
            .rev()
            .take_while(|(later, _)| *later > generation);
        later.any(|(_, first)| *first < offsets.end)
    }
}

/// A value that says what it should be: its generation, its offset, its batch; the rest follows from these.
fn value(generation: u64, offset: u64, batch: &Range<u64>) -> Vec<u8> {
    let mut value = Vec::new();
    for number in [generation, offset, batch.start, batch.end] {
        value.extend_from_slice(&number.to_be_bytes());
    }
    let mut rng = Rng::with_seed(generation << 40 ^ offset);
    let bytes = if rng.u8(..100) == 0 {
        rng.usize(30_000..70_000)
    } else {
        rng.usize(..300)
    };
    value.resize_with(32 + bytes, || rng.u8(..));
    value
}

struct Reader<'a, B: Backend> {
    log: &'a Log<B>,
    world: &'a World,
    rng: Rng,
    kept: VecDeque<(Record, Vec<u8>)>,
    reads: u64,
}

impl<'a, B: Backend> Reader<'a, B> {
    fn new(log: &'a Log<B>, world: &'a World, rng: Rng) -> Self {
        Self {
            log,
            world,
            rng,
            kept: VecDeque::new(),
            reads: 0,
        }
    }

    fn read_until_ended(mut self) {
        while !self.world.ended.load(SeqCst) {
            let (lowest, next) = (self.log.lowest_offset().0, self.log.next_offset().0);
            if lowest >= next {
                thread::yield_now();
                continue;
            }
            let at = if self.rng.bool() {
                self.rng.u64(lowest..next)
            } else {
                // At the end, where it changes.
                next - 1 - self.rng.u64(..(next - lowest).min(50))
            };
            match self.rng.u8(..8) {
                0 => self.scan(at),
                1 => self.scan_backward(at),
                2 => self.read_batch(at),
                _ => {
                    self.read(at);
                }
            }
        }
        while self.compare_kept() {}
        self.world.reads.fetch_add(self.reads, SeqCst);
    }

    fn read(&mut self, at: u64) -> bool {
        let oldest = self.world.oldest(at);
        match self.log.read(Offset(at)) {
            Ok(record) => {
                self.check(&record, at, oldest);
                self.check_batch(&record);
                self.keep(record);
                true
            }
            Err(Error::OffsetOutOfRange { .. }) => false,
            Err(e) => panic!("{at}: {e}"),
        }
    }

    fn scan(&mut self, from: u64) {
        let log = self.log;
        let mut before = None;
        let mut scan = log.scan(Offset(from)..);
        for _ in 0..self.rng.usize(1..300) {
            match scan.next() {
                Some(Ok(record)) => {
                    let at = record.offset().0;
                    assert!(at >= from && before.is_none_or(|before| at > before));
                    before = Some(at);
                    // A scan has records from when it was there.
                    self.check(&record, at, 0);
                    if self.rng.u8(..16) == 0 {
                        self.keep(record);
                    }
                }
                Some(Err(Error::OffsetOutOfRange { .. })) | None => return,
                Some(Err(e)) => panic!("scan from {from} after {before:?}: {e}"),
            }
        }
    }

    fn scan_backward(&mut self, from: u64) {
        let log = self.log;
        let mut before = u64::MAX;
        for record in log.scan(Offset(from)..).rev().take(self.rng.usize(1..100)) {
            match record {
                Ok(record) => {
                    let at = record.offset().0;
                    assert!(at >= from && at < before);
                    before = at;
                    self.check(&record, at, 0);
                }
                Err(Error::OffsetOutOfRange { .. }) => return,
                Err(e) => panic!("scan backward to {from} after {before}: {e}"),
            }
        }
    }

    fn read_batch(&mut self, from: u64) {
        let oldest = self.world.oldest(from);
        let bytes_max = 1 << self.rng.u32(8..18);
        match self.log.read_batch(Offset(from), bytes_max) {
            Ok(frames) => {
                for (at, record) in (from..).zip(frames) {
                    let oldest = if at == from { oldest } else { 0 };
                    self.check(&record.unwrap(), at, oldest);
                }
            }
            Err(Error::OffsetOutOfRange { .. }) => {}
            Err(e) => panic!("{from}: {e}"),
        }
    }

    /// That the record is one that stood there, of a generation from `oldest` on.
    fn check(&mut self, record: &Record, at: u64, oldest: u64) {
        self.reads += 1;
        assert_eq!(record.offset(), Offset(at));
        let (generation, batch) = told(record);
        assert!(
            (oldest..=self.world.generation.load(SeqCst)).contains(&generation),
            "record {at} is of generation {generation}, which is before {oldest} or yet to come"
        );
        assert!(
            record.value() == value(generation, at, &batch),
            "record {at}"
        );
    }

    /// That all of a record's batch is there when one is, unless something was removed.
    fn check_batch(&self, record: &Record) {
        let (generation, batch) = told(record);
        let removals = self.world.removals.load(SeqCst);
        let is_cut = self.world.is_cut(generation, &batch);
        let first = self.log.read(Offset(batch.start)).map(|first| told(&first));
        let last = self.log.read(Offset(batch.end - 1)).map(|last| told(&last));
        let next = self.log.next_offset().0;
        // The record itself may have gone since it was read.
        let is_gone = is_cut || self.log.lowest_offset().0 > batch.start;
        if is_gone || removals % 2 == 1 || removals != self.world.removals.load(SeqCst) {
            return;
        }
        assert!(next >= batch.end, "{next} is in {batch:?}");
        let whole = (generation, batch);
        assert_eq!(first.unwrap(), whole);
        assert_eq!(last.unwrap(), whole);
    }

    fn keep(&mut self, record: Record) {
        let copy = record.value().to_vec();
        self.kept.push_back((record, copy));
        if self.kept.len() > KEPT {
            self.compare_kept();
        }
    }

    fn compare_kept(&mut self) -> bool {
        let Some((record, copy)) = self.kept.pop_front() else {
            return false;
        };
        assert!(
            record.value() == copy,
            "record {} changed while it was held",
            record.offset()
        );
        true
    }
}

/// What a record says of itself.
fn told(record: &Record) -> (u64, Range<u64>) {
    let number = |n: usize| {
        let bytes = record.value().get(n * 8..).and_then(<[u8]>::first_chunk);
        u64::from_be_bytes(*bytes.expect("a value of ours"))
    };
    (number(0), number(2)..number(3))
}
