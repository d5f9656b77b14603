//! Records that the last segment's store does not have, though the index vouches for them: someone cut the store.
//! They are damage, and their offsets are not given again. An index that is none of that store vouches for nothing.
#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

use std::{
    fmt, io,
    ops::Range,
    sync::{Arc, Mutex},
};

use proglog::{
    Access, Backend, BackendFile, Damaged, Durability, Error, Fault, FaultBackend, Log,
    MemoryBackend, NewRecord, Offset, Options, Result,
};

const RECORDS: u64 = 9;

fn options() -> Options {
    Options::new().clock(proglog::Clock::NONE)
}

/// A closed log of records of different lengths, the last three of them a batch: its store and index.
fn closed() -> Result<(Vec<u8>, Vec<u8>)> {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options())?;
    for n in 0..RECORDS - 3 {
        log.append(&value(n))?;
    }
    log.append_batch((RECORDS - 3..RECORDS).map(|n| NewRecord::new(leaked(n))))?;
    log.close()?;
    let bytes = |name| files.get(name).unwrap_or_default();
    Ok((bytes("0.store"), bytes("0.index")))
}

fn value(n: u64) -> Vec<u8> {
    vec![n as u8; 10 * n as usize]
}

fn leaked(n: u64) -> &'static [u8] {
    value(n).leak()
}

fn directory(store: &[u8], index: &[u8]) -> MemoryBackend {
    let files = MemoryBackend::new();
    files.insert("0.store", store);
    files.insert("0.index", index);
    files
}

/// Where each record starts, by its index entry.
fn positions(index: &[u8]) -> Vec<usize> {
    let position = |entry: &[u8]| u64::from_be_bytes(*entry.last_chunk().unwrap()) as usize;
    index.chunks(12).map(position).collect()
}

fn index_of(entries: impl IntoIterator<Item = (u32, u64)>) -> Vec<u8> {
    let bytes = |(offset, position): (u32, u64)| {
        let offset = offset.to_be_bytes().into_iter();
        offset.chain(position.to_be_bytes())
    };
    entries.into_iter().flat_map(bytes).collect()
}

/// An index, also as a log that was not closed leaves it.
fn padded(index: &[u8]) -> [Vec<u8>; 2] {
    [index.to_vec(), [index, &[0; 5000]].concat()]
}

/// The log holds these offsets, of which those `lost` are missing.
fn assert_holds<B: Backend>(log: &Log<B>, all: Range<u64>, lost: &Range<u64>, what: &str) {
    assert_eq!(
        log.lowest_offset()..log.next_offset(),
        offsets(&all),
        "{what}"
    );
    for n in all {
        let read = log.read(Offset(n));
        let batch = log.read_batch(Offset(n), 1 << 20);
        if lost.contains(&n) {
            for error in [read.err(), batch.err()] {
                let Some(Error::Corrupt { offset, .. }) = error else {
                    panic!("{what}: {n} is lost, but {error:?}")
                };
                assert_eq!(offset, Offset(n), "{what}");
            }
        } else if n < RECORDS {
            assert_eq!(read.unwrap().value(), value(n), "{what}");
        } else {
            assert_eq!(read.unwrap().value(), b"after", "{what}");
        }
    }
    let report = log.verify().unwrap();
    let damage: Vec<_> = report
        .damage()
        .flat_map(|damage| damage.first.0..=damage.last.0)
        .collect();
    assert_eq!(damage, lost.clone().collect::<Vec<_>>(), "{what}");
    // Zeros that were put in place of what is lost are no part of it.
    assert!(report.torn_tail().is_none_or(|tail| tail.zeros), "{what}");
}

fn offsets(range: &Range<u64>) -> Range<Offset> {
    Offset(range.start)..Offset(range.end)
}

/// The log is opened in all ways, again and again: what is lost is told, and nothing is given twice.
fn tells_what_is_lost(files: &MemoryBackend, lost: &Range<u64>, what: &str) -> Result<()> {
    let (store, index) = (files.get("0.store"), files.get("0.index"));
    let log = Log::open_read_only_on(files.clone(), options())?;
    assert_holds(&log, 0..RECORDS, lost, what);
    assert!(!log.recovery_report().is_sound(), "{what}");
    drop(log);
    assert_eq!(
        (files.get("0.store"), &files.get("0.index")),
        (store.clone(), &index),
        "{what}"
    );

    // Left as by kill -9, twice.
    for _ in 0..2 {
        std::mem::forget(Log::open_on(files.clone(), options())?);
    }
    let mut next = RECORDS;
    for _ in 0..2 {
        let log = Log::open_on(files.clone(), options())?;
        assert_eq!(log.append("after")?, Offset(next), "{what}");
        next += 1;
        assert_holds(&log, 0..next, lost, what);
        let found = log.scan(..).filter(Result::is_ok).count() as u64;
        assert_eq!(found, next - (lost.end - lost.start), "{what}");
        assert_eq!(
            log.scan(..).rev().filter(Result::is_ok).count() as u64,
            found,
            "{what}"
        );
        log.close()?;
    }
    assert_eq!(files.list().unwrap().len(), 4, "{what}: one more segment");
    assert_eq!(files.get("0.store"), store, "{what}");
    let log = Log::open_read_only_on(files.clone(), options())?;
    assert_holds(&log, 0..next, lost, what);
    Ok(())
}

#[test]
fn a_store_that_was_cut_between_two_records_is_damaged() -> Result<()> {
    let (store, index) = closed()?;
    for (first, &end) in positions(&index).iter().enumerate() {
        for index in padded(&index) {
            let what = format!("{first} records left, an index of {} bytes", index.len());
            let files = directory(&store[..end], &index);
            tells_what_is_lost(&files, &(first as u64..RECORDS), &what)?;
            let log = Log::open_read_only_on(directory(&store[..end], &index), options())?;
            assert!(
                matches!(
                    log.read(Offset(RECORDS - 1)),
                    Err(Error::Corrupt {
                        reason: Damaged::Missing,
                        segment: Offset(0),
                        ..
                    })
                ),
                "{what}"
            );
        }
    }
    Ok(())
}

/// The record that was cut through is damage, for it has an entry; so are those after it, which have one as well.
#[test]
fn a_store_that_was_cut_within_a_record_is_damaged_from_there_to_the_last_entry() -> Result<()> {
    let (store, index) = closed()?;
    let positions = positions(&index);
    let within = |length: &usize| !positions.contains(length);
    for length in (0..store.len()).filter(within).step_by(3) {
        let first = positions.partition_point(|&position| position <= length) as u64 - 1;
        for index in padded(&index) {
            // Cut, or with zeros or others in place of what it had.
            let zeros = [&store[..length], &[0; 40]].concat();
            for store in [&store[..length], &zeros] {
                let what = format!("{length} of {} bytes", store.len());
                let files = directory(store, &index);
                let log = Log::open_read_only_on(files.clone(), options())?;
                assert_holds(&log, 0..RECORDS, &(first..RECORDS), &what);
                drop(log);
                for next in RECORDS..RECORDS + 2 {
                    let log = Log::open_on(files.clone(), options())?;
                    assert_eq!(log.append("after")?, Offset(next), "{what}");
                    assert_holds(&log, 0..next + 1, &(first..RECORDS), &what);
                    log.close()?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_damaged_record_before_the_cut_is_no_reason_to_doubt_the_index() -> Result<()> {
    let (mut store, index) = closed()?;
    let positions = positions(&index);
    // Two records, so that where the second one starts is known to the index alone.
    store[positions[2]..positions[4]].fill(0xa5);
    for remade in [false, true] {
        let files = directory(&store, &index);
        if remade {
            files.insert("0.index", []);
            Log::open_on(files.clone(), options())?.close()?;
            assert_ne!(files.get("0.index"), Some(index.clone()));
        }
        files.insert("0.store", &store[..positions[6]]);
        let log = Log::open_on(files, options())?;
        assert_eq!(log.append("after")?, Offset(RECORDS));
        let damage: Vec<_> = log
            .verify()?
            .damage()
            .map(|d| (d.first.0, d.last.0))
            .collect();
        assert_eq!(damage, [(2, 3), (6, RECORDS - 1)]);
        assert_eq!(log.read(Offset(5))?.value(), value(5));
    }
    // Cut where the damage begins: the entries that were made anew all say that.
    let files = directory(&store, &[]);
    Log::open_on(files.clone(), options())?.close()?;
    files.insert("0.store", &store[..positions[2]]);
    let log = Log::open_on(files, options())?;
    assert_eq!(log.append("after")?, Offset(RECORDS));
    Ok(())
}

#[test]
fn an_index_that_is_not_the_stores_vouches_for_nothing_past_its_end() -> Result<()> {
    let (store, sound) = closed()?;
    let starts: Vec<u64> = positions(&sound).iter().map(|&at| at as u64).collect();
    let end = starts[5];
    let entries = |change: &dyn Fn(u32, u64) -> (u32, u64)| {
        index_of(
            (0..)
                .zip(starts.iter().copied())
                .map(|(n, at)| change(n, at)),
        )
    };
    let with = |more: &[(u32, u64)]| [&sound[..60], &index_of(more.iter().copied())].concat();
    let mut flipped = sound.clone();
    flipped[12 * 2 + 11] ^= 1;
    let lies = [
        ("lags", sound[..60].to_vec()),
        ("is of no entries", Vec::new()),
        ("is of zeros", vec![0; 108]),
        ("is of ones", vec![0xff; 108]),
        (
            "is text",
            b"this file is no index at all, but long enough to be one".to_vec(),
        ),
        (
            "has a wrong bit in an entry of a record that is there",
            flipped,
        ),
        (
            "has positions that are off by one",
            entries(&|n, at| (n, at + u64::from(n > 0))),
        ),
        ("begins elsewhere", entries(&|n, at| (n, at + end))),
        ("has wrong offsets", entries(&|n, at| (n + 1, at))),
        ("has all positions 0", entries(&|n, _| (n, 0))),
        ("has all positions at the end", entries(&|n, _| (n, end))),
        ("has all positions far away", entries(&|n, _| (n, u64::MAX))),
        ("goes on past the end", with(&[(5, end + 1)])),
        (
            "goes on far past the end",
            with(&[(5, 1 << 40), (6, (1 << 40) + 40)]),
        ),
        ("goes on before the end", with(&[(5, end - 8)])),
        ("goes on with a gap", with(&[(6, end)])),
        ("goes on with zeros", with(&[(0, 0), (0, 0)])),
        (
            "goes on after zeros",
            with(&[(0, 0), (6, starts[6]), (7, starts[7])]),
        ),
    ];
    for (what, index) in lies {
        for index in padded(&index) {
            let files = directory(&store[..end as usize], &index);
            let log = Log::open_read_only_on(files.clone(), options())?;
            assert!(
                log.recovery_report().is_sound() && log.verify()?.is_sound(),
                "{what}"
            );
            assert_eq!(log.next_offset(), Offset(5), "{what}");
            drop(log);
            let log = Log::open_on(files.clone(), options())?;
            assert_eq!(log.append("after")?, Offset(5), "{what}");
            assert!(log.verify()?.is_sound(), "{what}");
            log.close()?;
            assert_eq!(files.list().unwrap().len(), 2, "{what}");
        }
    }
    Ok(())
}

/// The beginning of a batch of which the store was cut, after a damaged record: it is there, where an index of this store
/// would say, and goes as a torn tail; so its offsets are not lost.
#[test]
fn an_index_that_is_wrong_about_a_torn_tail_vouches_for_nothing_after_it() -> Result<()> {
    let (mut store, sound) = closed()?;
    let starts = positions(&sound);
    store[starts[5] + 20] ^= 1;
    store.truncate(starts[8] + 4);
    let far = 1 << 40;
    for more in [vec![], vec![(6, far)], vec![(6, far), (7, far + 40)]] {
        for index in padded(&[&sound[..12 * 6], &index_of(more.clone())].concat()) {
            let files = directory(&store, &index);
            let log = Log::open_read_only_on(files.clone(), options())?;
            let report = log.recovery_report();
            let damage: Vec<_> = report.damage().map(|d| (d.first.0, d.last.0)).collect();
            assert_eq!(damage, [(5, 5)], "{more:?}");
            let tail = report.torn_tail().expect("the batch is not whole");
            assert_eq!((tail.position, tail.records), (starts[6] as u64, 2));
            assert_eq!(log.next_offset(), Offset(6), "{more:?}");
            drop(log);
            let log = Log::open_on(files, options())?;
            assert_eq!(log.append("after")?, Offset(6), "{more:?}");
        }
    }
    Ok(())
}

/// What is no entry any more ends what the index vouches for.
#[test]
fn the_leading_entries_vouch_and_no_others() -> Result<()> {
    let (store, sound) = closed()?;
    let starts = positions(&sound);
    let end = starts[5];
    let next = starts[6] as u64;
    let with =
        |entry: (u32, u64)| [&sound[..12 * 7], &index_of([entry]), &sound[12 * 8..]].concat();
    let cases = [
        ("zeros", with((0, 0))),
        ("another offset", with((8, starts[7] as u64))),
        ("a lower position", with((7, next - 1))),
        ("one that leaves no room for a record", with((7, next + 7))),
        (
            "one further than a record can be long",
            with((7, next + (1 << 30) + 9)),
        ),
        ("the last position there is", with((7, u64::MAX))),
        ("a part of an entry", sound[..12 * 7 + 5].to_vec()),
    ];
    for (what, index) in cases {
        let files = directory(&store[..end], &index);
        let log = Log::open_on(files, options())?;
        assert_eq!(log.append("after")?, Offset(7), "{what}");
        let damage: Vec<_> = log
            .verify()?
            .damage()
            .map(|d| (d.first.0, d.last.0))
            .collect();
        assert_eq!(damage, [(5, 6)], "{what}");
    }
    Ok(())
}

#[test]
fn a_lone_entry_of_zeros_vouches_only_where_no_space_was_prepared() -> Result<()> {
    for (bytes, lost) in [
        (0, 0),
        (5, 0),
        (12, 1),
        (24, 1),
        (25, 0),
        (36, 0),
        (1024, 0),
    ] {
        let log = Log::open_on(directory(&[], &vec![0; bytes]), options())?;
        assert_eq!(log.append("after")?, Offset(lost), "{bytes} bytes");
        assert_eq!(log.verify()?.is_sound(), lost == 0, "{bytes} bytes");
    }
    Ok(())
}

/// The book's program writes its index through memory at once and keeps what the store is to get in a buffer of
/// 4 KiB, so what it leaves when it is killed is an index that leads, and is padded. What was in the buffer had been
/// acknowledged: it is lost, and that is told.
#[test]
fn what_the_books_program_had_in_its_buffer_is_told_as_lost() -> Result<()> {
    let (mut store, mut starts) = (Vec::new(), Vec::new());
    for n in 0_u8..200 {
        starts.push((u32::from(n), store.len() as u64));
        let mut record = vec![0x0a, 50];
        record.extend([n; 50]);
        match n {
            0 => {}
            1..128 => record.extend([0x10, n]),
            _ => record.extend([0x10, n, 1]),
        }
        store.extend((record.len() as u64).to_be_bytes());
        store.extend(record);
    }
    let mut index = index_of(starts.iter().copied());
    index.resize(1 << 20, 0);
    for flushed in [0, 4096, 8192] {
        let whole = starts.iter().filter(|&&(_, at)| at + 62 < flushed).count() as u64;
        let files = directory(&store[..flushed as usize], &index);
        for more in 0..3 {
            let log = Log::open_on(files.clone(), options())?;
            assert_eq!(log.append("after")?, Offset(200 + more), "{flushed}");
            let damage: Vec<_> = log
                .verify()?
                .damage()
                .map(|d| (d.first.0, d.last.0))
                .collect();
            let lost = damage.iter().flat_map(|&(first, last)| first..=last);
            assert!(lost.eq(whole..200), "{flushed} bytes: {damage:?}");
            for n in 0..whole {
                assert_eq!(log.read(Offset(n))?.value(), [n as u8; 50]);
            }
            std::mem::forget(log);
        }
        assert_eq!(
            files.list().unwrap(),
            ["0.index", "0.store", "200.index", "200.store"]
        );
    }
    Ok(())
}

/// A claim of so many records costs as many entries, which are read once and kept once.
#[test]
fn a_long_lie_is_paid_for_in_bytes_of_the_index() -> Result<()> {
    let records = 1_000_000;
    let index = index_of((0..records).map(|n| (n, 10 * u64::from(n))));
    let files = directory(&[], &index);
    let started = std::time::Instant::now();
    let log = Log::open_on(files.clone(), options())?;
    assert_eq!(log.append("after")?, Offset(u64::from(records)));
    assert_eq!(log.scan(..).count(), 2, "one error for all");
    println!("{:?}", started.elapsed());
    assert_eq!(files.get("0.index").map(|now| now == index), Some(true));
    Ok(())
}

#[test]
fn missing_records_can_be_truncated() -> Result<()> {
    let (store, index) = closed()?;
    let cut = &store[..positions(&index)[5]];
    for last in 0..RECORDS {
        let files = directory(cut, &index);
        let log = Log::open_on(files.clone(), options())?;
        log.append("goes")?;
        log.truncate_after(Offset(last))?;
        let lost = 5..(last + 1).max(5);
        assert_holds(&log, 0..last + 1, &lost, &format!("after {last}"));
        assert_eq!(log.append("instead")?, Offset(last + 1));
        std::mem::forget(log);
        let log = Log::open_on(files.clone(), options())?;
        assert_eq!(log.read(Offset(last + 1))?.value(), b"instead");
        assert_eq!(log.verify()?.is_sound(), lost.is_empty(), "after {last}");
        if !lost.is_empty() {
            assert_eq!(files.get("0.store").as_deref(), Some(cut), "after {last}");
        }
    }
    let log = Log::open_on(directory(cut, &index), options())?;
    log.truncate_before(Offset(RECORDS))?;
    assert!(log.verify()?.is_sound());
    assert_eq!(log.append("after")?, Offset(RECORDS));
    Ok(())
}

/// A crash at any operation of opening it, appending to it and truncating what is missing does not make it forget
/// what was lost.
#[test]
fn no_crash_gives_their_offsets_again() -> Result<()> {
    let mut states = 0;
    for padding in [0, 600] {
        for stop in 0.. {
            let disk = FaultBackend::new();
            let log = Log::open_on(disk.clone(), options())?;
            for n in 0..60 {
                log.append_with(&value(n % 9), Durability::Written)?;
            }
            log.close()?;
            let index = disk.open("0.index", Access::Write).unwrap();
            let mut entry = [0; 12];
            index.read_at(&mut entry, 12 * 40).unwrap();
            index.set_len(12 * 60 + padding).unwrap();
            index.sync().unwrap();
            let store = disk.open("0.store", Access::Write).unwrap();
            let end = u64::from_be_bytes(*entry.last_chunk().unwrap());
            store.set_len(end).unwrap();
            store.sync().unwrap();

            disk.fail(disk.operations() + stop, Fault::Half);
            let stopped = (|| {
                let log = Log::open_on(disk.clone(), options())?;
                log.append("after")?;
                log.truncate_after(Offset(50))
            })();
            for state in disk.power_cuts(40, stop).chain([disk.killed()]) {
                let log = Log::open_on(state, options())?;
                let next = log.next_offset().0;
                assert!((51..=61).contains(&next), "{stop}: {next}");
                assert!(stopped.is_err() || next == 51, "{stop}: {next}");
                let damage = log.verify()?;
                let first = damage.damage().next().map(|damage| damage.first);
                assert_eq!(first, Some(Offset(40)), "{stop}: {damage:?}");
                assert_eq!(log.append("again")?, Offset(next));
                states += 1;
            }
            if stopped.is_ok() {
                let store = disk.get("0.store").map(|store| store.len() as u64);
                assert_eq!(store, Some(end), "what is truncated is not put there first");
                break;
            }
        }
    }
    println!("{states} states");
    assert!(states > 30, "{states}");
    Ok(())
}

/// Reading the files of a log that a writer changes at one moment of it, whichever.
#[derive(Clone)]
struct Beside<B> {
    files: B,
    moments: Arc<Mutex<Moments>>,
}

#[derive(Default)]
struct Moments {
    /// How many operations are left until then.
    left: u64,
    change: Option<Box<dyn FnOnce() + Send>>,
}

impl<B> Beside<B> {
    fn new(files: B, moment: u64, change: impl FnOnce() + Send + 'static) -> Self {
        let moments = Moments {
            left: moment,
            change: Some(Box::new(change)),
        };
        Self {
            files,
            moments: Arc::new(Mutex::new(moments)),
        }
    }

    fn pass(&self) {
        let mut moments = self.moments.lock().unwrap();
        if moments.left > 0 {
            moments.left -= 1;
        } else if let Some(change) = moments.change.take() {
            change();
        }
    }

    fn is_over(&self) -> bool {
        self.moments.lock().unwrap().change.is_none()
    }
}

impl<B> fmt::Debug for Beside<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Beside")
    }
}

#[derive(Debug)]
struct BesideFile<B: Backend> {
    file: B::File,
    beside: Beside<B>,
}

impl<B: Backend + Clone> Backend for Beside<B> {
    type File = BesideFile<B>;

    fn name(&self) -> String {
        self.files.name()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.pass();
        self.files.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<Self::File> {
        self.pass();
        Ok(BesideFile {
            file: self.files.open(name, access)?,
            beside: self.clone(),
        })
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        unreachable!("it only reads")
    }

    fn sync_directory(&self) -> io::Result<()> {
        unreachable!("it only reads")
    }
}

impl<B: Backend> BackendFile for BesideFile<B> {
    fn len(&self) -> io::Result<u64> {
        self.beside.pass();
        self.file.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.beside.pass();
        self.file.read_at(buffer, position)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        unreachable!("it only reads")
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        unreachable!("it only reads")
    }

    fn sync(&self) -> io::Result<()> {
        unreachable!("it only reads")
    }

    fn is_removed(&self) -> io::Result<bool> {
        self.beside.pass();
        self.file.is_removed()
    }
}

/// What a writer does to its log.
type Act = fn(&Log<MemoryBackend>) -> Result<()>;

const ACTS: [Act; 5] = [
    |log| log.append_batch(["more", "and more"]).map(drop),
    |log| log.truncate_after(Offset(2)),
    |log| {
        log.truncate_after(Offset(2))?;
        log.append("instead").map(drop)
    },
    Log::reset,
    |log| {
        log.reset()?;
        log.append("anew").map(drop)
    },
];

/// An index is looked at before its store is, and is that store's: so it does not seem to lead, whatever a writer
/// does meanwhile.
#[test]
fn a_reader_beside_a_writer_misses_nothing() -> Result<()> {
    for (number, act) in ACTS.into_iter().enumerate() {
        for moment in 0.. {
            let files = MemoryBackend::new();
            let log = Log::open_on(files.clone(), options())?;
            for n in 0..6 {
                log.append(&value(n))?;
            }
            // Without an entry, so that the segment has to be scanned.
            log.append_with("written", Durability::Written)?;
            let beside = Beside::new(files, moment, move || {
                act(&log).unwrap();
                std::mem::forget(log);
            });
            let what = format!("act {number} at moment {moment}");
            let reader = Log::open_read_only_on(beside.clone(), options())?;
            assert!(reader.recovery_report().is_sound(), "{what}");
            let report = reader.verify()?;
            assert!(report.is_sound(), "{what}: {report:?}");
            reader.refresh()?;
            assert!(reader.verify()?.is_sound(), "{what}");
            for record in reader.scan(..) {
                record?;
            }
            if !beside.is_over() {
                assert!(moment > 20, "{what}");
                break;
            }
        }
    }
    Ok(())
}

/// As beside the book's program, which writes to its store what it has had in its index for a while.
#[test]
fn what_was_missing_is_found_when_it_is_there() -> Result<()> {
    let (store, index) = closed()?;
    let end = positions(&index)[4];
    let files = directory(&store[..end], &index);
    let reader = Log::open_read_only_on(files.clone(), options())?;
    assert_holds(&reader, 0..RECORDS, &(4..RECORDS), "cut");
    reader.refresh()?;
    assert_holds(&reader, 0..RECORDS, &(4..RECORDS), "refreshed");
    let file = files.open("0.store", Access::Write).unwrap();
    file.write_at(&store[end..], end as u64).unwrap();
    reader.refresh()?;
    assert_holds(&reader, 0..RECORDS, &(0..0), "whole");
    Ok(())
}
