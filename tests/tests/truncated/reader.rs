//! What readers see, and whether they may.

use std::{
    collections::VecDeque,
    ops::Range,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use fastrand::Rng;
use proglog::{Clock, Error, FileAccess, FsBackend, Log, Offset, Options, Record};
use proglog_host::{Engine, ErrorKind, Mode, WasmLog};

use crate::{
    End, Kind,
    journal::{Journal, Told},
    record::check,
};

/// So many records each reader keeps for a while.
const KEPT: usize = 300;

/// Reads until `ended`.
pub(crate) fn read_until(
    ended: &AtomicBool,
    kind: Kind,
    directory: &Path,
    journal: &Path,
    mut rng: Rng,
) {
    let mut journal = Journal::open(journal);
    let mut kept = VecDeque::new();
    let (mut opened, mut refreshes, mut reads) = (0_u64, 0_u64, 0_u64);
    while !ended.load(SeqCst) {
        let before = journal.read().clone();
        let log = Opened::open(kind, directory);
        let mut reader = Reader {
            log: &log,
            journal: &mut journal,
            before,
            kept: &mut kept,
            reads: 0,
        };
        opened += 1;
        assert!(log.engine().recovery_report().unwrap().is_sound());
        reader.check_bounds();
        let (done, forked) = (AtomicBool::new(false), rng.fork());
        thread::scope(|scope| {
            let _done = End(&done);
            scope.spawn(|| read_beside(&log, &done, forked));
            for _ in 0..rng.u32(..60) {
                if ended.load(SeqCst) {
                    break;
                }
                reader.look(&mut rng);
                reader.refresh();
                refreshes += 1;
            }
        });
        reads += reader.reads;
    }
    println!("{opened} times opened, {refreshes} refreshes, {reads} reads");
}

/// Reads in another thread than the one that refreshes the log.
fn read_beside(log: &Opened, done: &AtomicBool, mut rng: Rng) {
    let log = log.engine();
    while !done.load(SeqCst) {
        let (lowest, next) = (log.lowest_offset(), log.next_offset());
        let (lowest, next) = (lowest.unwrap().0, next.unwrap().0);
        if lowest < next {
            let at = rng.u64(lowest..next);
            match log.read(Offset(at)) {
                Ok(record) => drop(check(&record, at)),
                Err(e) => assert_eq!(e.kind(), ErrorKind::OffsetOutOfRange, "{at}: {e}"),
            }
        }
        thread::sleep(Duration::from_micros(rng.u64(..300)));
    }
}

/// A log opened read-only.
enum Opened {
    Native(Box<Log>),
    Wasm(Box<WasmLog>),
}

impl Opened {
    fn open(kind: Kind, directory: &Path) -> Self {
        let options = Options::new().clock(Clock::NONE);
        let native = |access| {
            let backend = FsBackend::open_read_only(directory).unwrap();
            let log = Log::open_read_only_on(backend.file_access(access), options.clone());
            Self::Native(Box::new(log.unwrap()))
        };
        match kind {
            Kind::Mapped => native(FileAccess::Mapped),
            Kind::Calls => native(FileAccess::Calls),
            Kind::Wasm => {
                let log = WasmLog::open(directory, Mode::Read, options.clone());
                Self::Wasm(Box::new(log.unwrap()))
            }
        }
    }

    fn engine(&self) -> &dyn Engine {
        match self {
            Self::Native(log) => &**log,
            Self::Wasm(log) => &**log,
        }
    }
}

struct Reader<'a> {
    log: &'a Opened,
    journal: &'a mut Journal,
    /// What was told before the log was opened, or refreshed last.
    before: Told,
    kept: &'a mut VecDeque<(Record, Vec<u8>)>,
    reads: u64,
}

impl Reader<'_> {
    fn refresh(&mut self) {
        self.before = self.journal.read().clone();
        self.log.engine().refresh().unwrap();
        self.check_bounds();
    }

    fn offsets(&self) -> (u64, u64) {
        let log = self.log.engine();
        let (lowest, next) = (log.lowest_offset(), log.next_offset());
        (lowest.unwrap().0, next.unwrap().0)
    }

    /// That it has taken in all that was over before.
    fn check_bounds(&mut self) {
        let durable = self.log.engine().durable_offset().unwrap().0;
        let (lowest, next) = self.offsets();
        let now = self.journal.read();
        let before = &self.before;
        if !now.is_uncut_since(before) {
            return;
        }
        let Told {
            written, synced, ..
        } = *before;
        assert!(next >= written, "next {next}, but {written} was written");
        let told = before.lowest;
        assert!(lowest >= told, "lowest {lowest}, but {told} was");
        assert!(durable <= next, "durable {durable} of {next}");
        // The first entry of an index alone says nothing.
        assert!(
            durable + 1 >= synced,
            "durable {durable}, but {synced} was synced; {lowest} to {next}"
        );
    }

    fn look(&mut self, rng: &mut Rng) {
        for _ in 0..rng.u32(1..20) {
            let (lowest, next) = self.offsets();
            if lowest >= next {
                thread::sleep(Duration::from_micros(200));
                return;
            }
            let at = if rng.bool() {
                rng.u64(lowest..next)
            } else {
                next - 1 - rng.u64(..(next - lowest).min(50))
            };
            match rng.u8(..12) {
                0 => self.scan(at, rng),
                1 => self.scan_backward(at, rng),
                2 => self.scan_from_time(rng),
                3 | 4 => self.read_batch(at, rng),
                5 => self.locate(at),
                6 if rng.bool() => self.verify(),
                7 => self.segments(),
                8 => self.read_last(),
                9 => thread::sleep(Duration::from_micros(rng.u64(..5000))),
                _ => drop(self.read(at)),
            }
        }
    }

    fn read(&mut self, at: u64) -> Option<(u64, Range<u64>)> {
        match self.log.engine().read(Offset(at)) {
            Ok(record) => {
                self.keep(&record);
                Some(self.check(&record, at))
            }
            Err(e) => {
                self.check_refused(at, e.kind(), &e);
                None
            }
        }
    }

    /// That batches are whole, unless they were cut.
    fn read_last(&mut self) {
        let (_, next) = self.offsets();
        let Some((generation, batch)) = self.read(next - 1) else {
            return;
        };
        if batch.end > next && self.offsets().1 == next {
            let now = self.journal.read();
            assert!(
                now.is_cut_in(generation, &batch),
                "{batch:?} ends at {next}"
            );
        }
    }

    fn read_batch(&mut self, from: u64, rng: &mut Rng) {
        let bytes_max = 1 << rng.u32(6..16);
        match self.log.engine().read_batch(Offset(from), bytes_max) {
            Ok(frames) => {
                let mut generation_before = 0;
                for (at, record) in (from..).zip(frames) {
                    let (generation, _) = self.check(&record.unwrap(), at);
                    assert!(generation >= generation_before);
                    generation_before = generation;
                }
            }
            Err(e) => self.check_refused(from, e.kind(), &e),
        }
    }

    fn locate(&mut self, at: u64) {
        match self.log.engine().locate(Offset(at)) {
            Ok(place) => assert!(place.segment.0 <= at),
            Err(e) => self.check_refused(at, e.kind(), &e),
        }
    }

    fn verify(&mut self) {
        let report = self.log.engine().verify().unwrap();
        assert!(report.is_sound(), "{report:?}");
    }

    fn segments(&mut self) {
        let segments = self.log.engine().segments().unwrap();
        assert!(!segments.is_empty());
        assert!(segments.is_sorted_by(|a, b| a.next <= b.base));
    }

    fn scan(&mut self, from: u64, rng: &mut Rng) {
        let Opened::Native(log) = self.log else {
            return self.read_to_end(from);
        };
        let first = log.lowest_offset();
        let log = &**log;
        let mut found = Vec::new();
        let all = rng.bool();
        let from = if all { first.0 } else { from };
        let mut scan = log.scan(Offset(from)..);
        for _ in 0..if all { usize::MAX } else { rng.usize(1..100) } {
            match scan.next() {
                Some(record) => found.push(record),
                None => break,
            }
        }
        self.check_in_order(from, found);
    }

    /// What a scan is where there is none.
    fn read_to_end(&mut self, mut from: u64) {
        let mut generation_before = 0;
        loop {
            match self.log.engine().read_batch(Offset(from), 2000) {
                Ok(frames) if frames.clone().next().is_none() => return,
                Ok(frames) => {
                    for record in frames {
                        let (generation, _) = self.check(&record.unwrap(), from);
                        assert!(generation >= generation_before);
                        generation_before = generation;
                        from += 1;
                    }
                }
                Err(e) => return self.check_refused(from, e.kind(), &e),
            }
        }
    }

    /// A later record is never of an older generation: what was seen is a state the log had, or it and then one
    /// that came after.
    fn check_in_order(&mut self, from: u64, found: Vec<Result<Record, Error>>) {
        let (mut at, mut generation_before) = (from, 0);
        for record in found {
            let record = record.unwrap_or_else(|e| panic!("scan from {from}, at {at}: {e}"));
            let offset = record.offset().0;
            if offset != at {
                assert!(offset > at, "{offset} after {at}");
                let now = self.journal.read();
                assert!(
                    now.may_have_removed(&self.before, offset - 1),
                    "{at} to {offset} were passed over"
                );
            }
            let (generation, _) = self.check(&record, offset);
            assert!(
                generation >= generation_before,
                "{offset} is of {generation}, the one before of {generation_before}"
            );
            (at, generation_before) = (offset + 1, generation);
            self.keep(&record);
        }
    }

    fn scan_backward(&mut self, from: u64, rng: &mut Rng) {
        let Opened::Native(log) = self.log else {
            return;
        };
        let scan = log.scan(Offset(from)..).rev().take(rng.usize(1..60));
        let found: Vec<_> = scan.collect();
        let mut before = u64::MAX;
        for record in found {
            match record {
                Ok(record) => {
                    let at = record.offset().0;
                    assert!(at >= from && at < before);
                    before = at;
                    self.check(&record, at);
                }
                Err(Error::OffsetOutOfRange { offset, .. }) => {
                    let now = self.journal.read();
                    assert!(now.may_have_removed(&self.before, offset.0), "{offset}");
                }
                Err(e) => panic!("scan backward to {from} after {before}: {e}"),
            }
        }
    }

    fn scan_from_time(&mut self, rng: &mut Rng) {
        let Opened::Native(log) = self.log else {
            return;
        };
        let generation = rng.u64(..=self.before.generation() + 1);
        let timestamp_ms = (generation << 20) + rng.u64(..100);
        let scan = log.scan_from_time(timestamp_ms);
        let scan = scan.unwrap_or_else(|e| panic!("scan from {timestamp_ms} ms: {e}"));
        let found: Vec<_> = scan.take(20).collect();
        for record in found {
            let record = record.unwrap_or_else(|e| panic!("scan from {timestamp_ms} ms: {e}"));
            let at = record.offset().0;
            self.check(&record, at);
            // Where something was removed, what there is now was looked at, and that may be later but too early.
            let now = self.journal.read();
            assert!(
                record.timestamp_ms() >= Some(timestamp_ms) || now.has_removed_since(&self.before),
                "{at} is before {timestamp_ms} ms"
            );
        }
    }

    /// That the record is one that was in the log since this was refreshed.
    fn check(&mut self, record: &Record, at: u64) -> (u64, Range<u64>) {
        self.reads += 1;
        let (generation, batch) = check(record, at);
        let oldest = self.before.oldest(at);
        let newest = self.journal.read().generation();
        assert!(
            (oldest..=newest).contains(&generation),
            "record {at} is of generation {generation}, not of {oldest} to {newest}"
        );
        (generation, batch)
    }

    /// That an offset which the log listed is out of its range for a reason.
    fn check_refused(&mut self, at: u64, kind: ErrorKind, error: &dyn std::fmt::Display) {
        assert_eq!(kind, ErrorKind::OffsetOutOfRange, "{at}: {error}");
        let now = self.journal.read();
        assert!(
            now.may_have_removed(&self.before, at),
            "{at} was not removed: {error}"
        );
    }

    fn keep(&mut self, record: &Record) {
        let copy = record.value().to_vec();
        self.kept.push_back((record.clone(), copy));
        if self.kept.len() > KEPT
            && let Some((record, copy)) = self.kept.pop_front()
        {
            let offset = record.offset();
            assert!(record.value() == copy, "record {offset} changed");
        }
    }
}
