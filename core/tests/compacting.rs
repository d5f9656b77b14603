//! Appending, reading, truncating and compacting at once, in a directory: each record that stays is seen once, in order,
//! and is what was appended.
#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

use std::{
    collections::BTreeSet,
    fmt, io,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use proglog::{
    Access, Backend, BackendFile, Compaction, Durability, Error, LeftAloneReason, Log,
    MemoryBackend, MemoryFile, NewRecord, Offset, Options, Record, Result,
};

const RECORDS: u64 = 30_000;
const KEYS: u64 = 200;

fn options() -> Options {
    Options::new()
        .segment_bytes_max(20_000)
        .durability(Durability::Written)
}

fn value(offset: u64) -> String {
    format!("value of {offset}")
}

/// Every hundredth record has no key, and stays.
fn key(offset: u64) -> String {
    match offset % 100 {
        0 => String::new(),
        _ => format!("key {}", offset * 7 % KEYS),
    }
}

fn check<F: AsRef<[u8]>>(record: &Record<F>, seen: &mut BTreeSet<u64>) {
    let offset = record.offset().0;
    assert!(
        seen.last().is_none_or(|&last| last < offset),
        "{offset} comes back"
    );
    assert_eq!(record.value(), value(offset).as_bytes());
    assert_eq!(record.key().unwrap_or_default(), key(offset).as_bytes());
    seen.insert(offset);
}

/// What a reader saw of the records below an offset.
struct Seen {
    who: &'static str,
    below: u64,
    offsets: BTreeSet<u64>,
}

fn scans<B: Backend>(
    who: &'static str,
    log: &Log<B>,
    refresh: impl Fn(),
    done: &AtomicBool,
) -> Vec<Seen> {
    let mut all = Vec::new();
    for n in 0.. {
        let is_last = done.load(SeqCst);
        refresh();
        let below = log.next_offset().0;
        let mut offsets = BTreeSet::new();
        if n % 2 == 0 {
            let mut scan = log.scan(..Offset(below));
            while let Some(record) = scan.next_borrowed() {
                check(&record.unwrap(), &mut offsets);
            }
        } else {
            let mut next = Offset(0);
            while next.0 < below {
                let batch = log.read_batch(next, 3000).unwrap();
                if batch.is_empty() {
                    break;
                }
                for record in batch {
                    let record = record.unwrap();
                    check(&record, &mut offsets);
                    next = record.offset().next();
                }
            }
        }
        all.push(Seen {
            who,
            below,
            offsets,
        });
        if is_last {
            return all;
        }
    }
    all
}

/// Reads on from where it was, as a subscriber does.
fn follow<B: Backend>(log: &Log<B>, done: &AtomicBool) -> Seen {
    let mut offsets = BTreeSet::new();
    let mut next = Offset(0);
    loop {
        let is_last = done.load(SeqCst);
        for record in log.scan(next..) {
            let record = record.unwrap();
            check(&record, &mut offsets);
            next = record.offset().next();
        }
        if is_last {
            return Seen {
                who: "follower",
                below: RECORDS,
                offsets,
            };
        }
    }
}

#[test]
fn readers_see_each_record_that_stays_once_and_in_order() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), options())?;
    let done = AtomicBool::new(false);
    let compactions = AtomicU64::new(0);
    let begun = Instant::now();
    let seen = thread::scope(|scope| {
        let reading = [
            scope.spawn(|| scans("scan", &log, || (), &done)),
            scope.spawn(|| {
                // As in another process.
                let reader = Log::open_read_only(directory.path(), options()).unwrap();
                scans("reader", &reader, || reader.refresh().unwrap(), &done)
            }),
            scope.spawn(|| {
                let every = || drop(Log::open_read_only(directory.path(), options()).unwrap());
                let reader = Log::open_read_only(directory.path(), options()).unwrap();
                let refresh = || {
                    every();
                    reader.refresh().unwrap();
                };
                scans("another reader", &reader, refresh, &done)
            }),
            scope.spawn(|| vec![follow(&log, &done)]),
        ];
        scope.spawn(|| {
            while !done.load(SeqCst) {
                let compacted = log.compact(&Compaction::new()).unwrap();
                assert_eq!(compacted.left_alone, []);
                compactions.fetch_add(1, SeqCst);
            }
        });
        for offset in 0..RECORDS {
            let (key, value) = (key(offset), value(offset));
            log.append(NewRecord::new(&value).key(&key)).unwrap();
        }
        while compactions.load(SeqCst) < 3 && begun.elapsed() < Duration::from_secs(60) {
            thread::yield_now();
        }
        done.store(true, SeqCst);
        reading
            .map(|reading| reading.join().unwrap())
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
    });
    log.compact(&Compaction::new())?;
    let stays: Vec<u64> = log
        .scan(..)
        .map(|record| record.unwrap().offset().0)
        .collect();
    assert!(stays.len() < RECORDS as usize / 10, "{}", stays.len());
    for Seen {
        who,
        below,
        offsets,
    } in &seen
    {
        let missed: Vec<_> = stays
            .iter()
            .filter(|offset| *offset < below && !offsets.contains(offset))
            .collect();
        assert!(
            missed.is_empty(),
            "the {who} missed {missed:?} of those below {below}"
        );
    }
    println!(
        "{} compactions, {} readings, {} records stay, {:?}",
        compactions.into_inner(),
        seen.len(),
        stays.len(),
        begun.elapsed()
    );
    assert!(log.verify()?.is_sound());
    log.close()?;
    let log = Log::open(directory.path(), Options::new())?;
    assert!(
        log.scan(..)
            .map(|record| record.unwrap().offset().0)
            .eq(stays)
    );
    Ok(())
}

/// A directory in memory where something is done at the moment that a certain file is begun.
#[derive(Clone)]
struct Moments {
    files: MemoryBackend,
    at: Arc<Mutex<Moment>>,
}

#[derive(Default)]
struct Moment {
    /// How many such files are begun before.
    left: u64,
    act: Option<Box<dyn FnOnce() + Send>>,
}

impl Moments {
    /// `act` is done once so many files were begun by which others are to be replaced.
    fn set(&self, left: u64, act: impl FnOnce() + Send + 'static) {
        let act: Box<dyn FnOnce() + Send> = Box::new(act);
        *self.at.lock().unwrap() = Moment {
            left,
            act: Some(act),
        };
    }

    fn pass(&self) {
        let mut moment = self.at.lock().unwrap();
        if moment.left > 0 {
            moment.left -= 1;
            return;
        }
        let act = moment.act.take();
        drop(moment);
        act.into_iter().for_each(|act| act());
    }

    fn is_over(&self) -> bool {
        self.at.lock().unwrap().act.is_none()
    }
}

impl fmt::Debug for Moments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Moments")
    }
}

impl Backend for Moments {
    type File = MemoryFile;

    fn name(&self) -> String {
        self.files.name()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.files.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<MemoryFile> {
        if name.ends_with(".rewritten") && access == Access::Create {
            self.pass();
        }
        self.files.open(name, access)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(from, to)
    }

    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        self.files.cut(name, bytes)
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.files.sync_directory()
    }
}

/// A log of small segments, whose keys have twelve records each.
fn with_moments() -> Result<(Moments, Arc<Log<Moments>>)> {
    let files = Moments {
        files: MemoryBackend::new(),
        at: Arc::default(),
    };
    let log = Log::open_on(files.clone(), options().segment_bytes_max(200))?;
    for n in 0..60_u64 {
        log.append(NewRecord::new(&value(n)).key(&format!("{}", n % 5)))?;
    }
    Ok((files, Arc::new(log)))
}

/// What is there of some offsets.
fn there<B: Backend>(log: &Log<B>, offsets: Range<u64>) -> Vec<u64> {
    let is_there = |offset: &u64| match log.read(Offset(*offset)) {
        Ok(_) => true,
        Err(Error::Gap { .. }) => false,
        Err(e) => panic!("{offset}: {e}"),
    };
    offsets.filter(is_there).collect()
}

/// What a truncation makes the latest record of a key stays, though a compaction that began before found a later one;
/// and what it removes does not come back.
#[test]
fn a_truncation_meanwhile_keeps_what_it_made_the_latest() -> Result<()> {
    let mut kept = 0;
    for moment in 0.. {
        let (files, log) = with_moments()?;
        let (sender, found) = channel();
        let truncating = Arc::clone(&log);
        files.set(moment, move || {
            truncating.truncate_after(Offset(29)).unwrap();
            sender.send(there(&truncating, 0..30)).unwrap();
        });
        let compacted = log.compact(&Compaction::new())?;
        if !files.is_over() {
            assert!(moment > 10, "{moment}");
            break;
        }
        let was_there = found.recv().unwrap();
        kept += was_there.iter().filter(|&&offset| offset >= 25).count();
        assert_eq!(there(&log, 0..30), was_there, "{moment}");
        assert!(!compacted.left_alone.is_empty(), "{moment}");
        let left = compacted.left_alone.iter();
        assert!(
            left.into_iter()
                .all(|left| left.reason == LeftAloneReason::Truncated)
        );
        assert_eq!(log.append("more")?, Offset(30), "{moment}");
        drop(log);
        let names = files.list().unwrap();
        assert!(
            !names.iter().any(|name| name.contains("rewritten")),
            "{names:?}"
        );
        let log = Log::open_on(files, options())?;
        assert_eq!(log.next_offset(), Offset(31), "{moment}: {names:?}");
        assert!(log.verify()?.is_sound(), "{moment}");
        assert_eq!(there(&log, 0..30), was_there, "{moment}");
    }
    assert!(kept > 0);
    Ok(())
}

/// Records from before a truncation or a reset do not replace those that came after it under the same name.
#[test]
fn what_is_begun_anew_meanwhile_is_not_replaced() -> Result<()> {
    for moment in 0..4 {
        for act in [
            |log: &Log<Moments>| log.reset(),
            |log: &Log<Moments>| log.truncate_after(Offset(0)),
        ] {
            let (files, log) = with_moments()?;
            let acting = Arc::clone(&log);
            files.set(moment, move || {
                act(&acting).unwrap();
                for n in acting.next_offset().0..60 {
                    acting.append(&format!("anew {n}")).unwrap();
                }
            });
            let compacted = log.compact(&Compaction::new())?;
            assert!(files.is_over() && !compacted.left_alone.is_empty());
            drop(log);
            let log = Log::open_on(files, options())?;
            assert!(log.verify()?.is_sound());
            for n in 1..60 {
                let record = log.read(Offset(n))?;
                assert_eq!(record.value(), format!("anew {n}").as_bytes(), "{moment}");
            }
        }
    }
    Ok(())
}

/// Damage that came after the keys were looked at is not copied, and named.
#[test]
fn damage_is_found_while_it_would_be_copied() -> Result<()> {
    for at in [12, 40, 100] {
        let (files, log) = with_moments()?;
        let store = files.files.open("0.store", Access::Write).unwrap();
        files.set(0, move || {
            let mut byte = [0];
            store.read_at(&mut byte, at).unwrap();
            store.write_at(&[byte[0] ^ 1], at).unwrap();
        });
        let compacted = log.compact(&Compaction::new())?;
        assert_eq!(compacted.left_alone.len(), 1, "{at}");
        assert_eq!(compacted.left_alone[0].base, Offset(0), "{at}");
        assert_eq!(
            compacted.left_alone[0].reason,
            LeftAloneReason::Damaged,
            "{at}"
        );
        assert!(compacted.segments.len() > 3, "{at}");
        assert!(!log.verify()?.is_sound(), "{at}");
    }
    Ok(())
}
