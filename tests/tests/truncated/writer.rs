//! The other process: it does to its log all that can be done, until it is killed.

use std::{path::Path, thread, time::Duration};

use fastrand::Rng;
use proglog::{Clock, Durability, NewRecord, Offset, Options};
use proglog_host::Engine;

use crate::{
    Kind,
    journal::{Entry, Journal},
    record::value,
};

/// What the child is told: its engine, its seed, the directory, the journal.
pub(crate) fn write_until_killed(child: &str) -> ! {
    let [kind, seed, directory, journal] = child.split('\n').collect::<Vec<_>>()[..] else {
        panic!("{child:?}");
    };
    let kinds = [Kind::Mapped, Kind::Calls, Kind::Wasm];
    let kind = kinds.into_iter().find(|it| format!("{it:?}") == kind);
    let mut writer = Writer {
        kind: kind.unwrap(),
        directory: Path::new(directory),
        journal: Journal::create(Path::new(journal)),
        rng: Rng::with_seed(seed.parse().unwrap()),
        durability: Durability::Synced,
        timestamp_ms: 0,
    };
    let log = writer.open();
    writer.is_anew(&*log);
    writer.go_on(log);
}

struct Writer<'a> {
    kind: Kind,
    directory: &'a Path,
    journal: Journal,
    rng: Rng,
    durability: Durability,
    timestamp_ms: u64,
}

impl Writer<'_> {
    fn go_on(mut self, mut log: Box<dyn Engine>) -> ! {
        loop {
            match self.rng.u32(..1000) {
                0..60 => self.truncate_before(&*log),
                60..120 => self.truncate_after(&*log),
                120..140 => self.reset(&*log),
                140..190 => {
                    log.sync().unwrap();
                    self.synced(&*log);
                }
                190..230 => thread::sleep(Duration::from_micros(self.rng.u64(..4000))),
                230..245 => {
                    let next = log.next_offset().unwrap();
                    log.close().unwrap();
                    log = self.open();
                    assert_eq!(log.next_offset().unwrap(), next);
                    self.synced(&*log);
                }
                _ => self.append(&*log),
            }
        }
    }

    fn open(&mut self) -> Box<dyn Engine> {
        let rng = &mut self.rng;
        self.durability = match rng.u8(..4) {
            0 => Durability::Synced,
            1 => Durability::Buffered,
            _ => Durability::Written,
        };
        let segment_bytes_max = if rng.u8(..4) == 0 {
            rng.u64(20_000..100_000)
        } else {
            rng.u64(200..4_000)
        };
        let options = Options::new()
            .clock(Clock::NONE)
            .durability(self.durability)
            .segment_bytes_max(segment_bytes_max)
            .index_bytes_max(12 * rng.u64(8..200))
            .initial_offset(Offset([0, 0, 0, 7, 1000][rng.usize(..5)]));
        let log = self.kind.open_to_write(self.directory, options).unwrap();
        assert!(log.recovery_report().unwrap().is_sound());
        log
    }

    /// After a kill: what was not written, or was about to be removed, may be gone.
    fn is_anew(&mut self, log: &dyn Engine) {
        let next = log.next_offset().unwrap().0;
        self.timestamp_ms = self.journal.read().generation() << 20;
        self.journal.tell(Entry::CutBegins { from: next });
        self.journal.tell(Entry::CutEnds { next });
    }

    fn append(&mut self, log: &dyn Engine) {
        let generation = self.journal.read().generation();
        let next = log.next_offset().unwrap().0;
        let records = if self.rng.u8(..4) == 0 {
            self.rng.u64(2..8)
        } else {
            1
        };
        let batch = next..next + records;
        let values: Vec<_> = batch
            .clone()
            .map(|offset| value(generation, offset, &batch))
            .collect();
        self.timestamp_ms += 1;
        let records: Vec<_> = values
            .iter()
            .map(|value| NewRecord::new(value).timestamp_ms(self.timestamp_ms))
            .collect();
        let offsets = log.append_batch(&records).unwrap();
        assert_eq!(offsets, Offset(batch.start)..Offset(batch.end));
        if self.durability != Durability::Buffered {
            self.journal.tell(Entry::Written { next: batch.end });
        }
        if self.durability == Durability::Synced {
            self.journal.tell(Entry::Synced { next: batch.end });
        }
    }

    fn synced(&mut self, log: &dyn Engine) {
        let next = log.next_offset().unwrap().0;
        self.journal.tell(Entry::Written { next });
        self.journal.tell(Entry::Synced { next });
    }

    fn truncate_before(&mut self, log: &dyn Engine) {
        let (lowest, next) = offsets(log);
        let before = self.rng.u64(lowest..=next);
        self.journal.tell(Entry::RemovalBegins { before });
        log.truncate_before(Offset(before)).unwrap();
        let (lowest, _) = offsets(log);
        self.journal.tell(Entry::RemovalEnds { lowest });
    }

    fn truncate_after(&mut self, log: &dyn Engine) {
        let (lowest, next) = offsets(log);
        if next - lowest < 2 {
            return;
        }
        // One at least is removed: otherwise nothing is done, and what waits in the buffer goes on to.
        let last = next - 2 - self.rng.u64(..(next - 1 - lowest).min(60));
        self.journal.tell(Entry::CutBegins { from: last + 1 });
        log.truncate_after(Offset(last)).unwrap();
        self.journal.tell(Entry::CutEnds { next: last + 1 });
    }

    fn reset(&mut self, log: &dyn Engine) {
        self.journal.tell(Entry::CutBegins { from: 0 });
        log.reset().unwrap();
        let (_, next) = offsets(log);
        self.journal.tell(Entry::CutEnds { next });
    }
}

fn offsets(log: &dyn Engine) -> (u64, u64) {
    let (lowest, next) = (log.lowest_offset(), log.next_offset());
    (lowest.unwrap().0, next.unwrap().0)
}
