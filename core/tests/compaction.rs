//! What a compaction leaves: the latest record of each key, to the byte, and nothing damaged.
#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

use std::{collections::BTreeMap, time::Duration};

use proglog::{
    Access, Backend, BackendFile, Clock, Compaction, Error, Fault, FaultBackend, GapCause,
    IndexState, LeftAloneReason, Log, MemoryBackend, NewRecord, Offset, Options, Result,
};

const NOW_MS: u64 = 1_700_000_000_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn options() -> Options {
    Options::new()
        .segment_bytes_max(600)
        .clock(Clock::custom(|| NOW_MS))
}

fn at_once() -> Compaction {
    Compaction::new().tombstones_kept(Duration::ZERO)
}

/// A small generator.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// All frames of a log, by their offsets.
fn frames<B: Backend>(log: &Log<B>) -> BTreeMap<u64, Vec<u8>> {
    let records = log.scan(..).map(Result::unwrap);
    records
        .map(|record| (record.offset().0, record.frame().to_vec()))
        .collect()
}

/// Values by their keys.
type Keyed = BTreeMap<Vec<u8>, Vec<u8>>;

/// The value of each key that is there, and the values without a key.
fn live<B: Backend>(log: &Log<B>) -> (Keyed, Vec<Vec<u8>>) {
    let (mut keys, mut others) = (BTreeMap::new(), Vec::new());
    for record in log.scan(..) {
        let record = record.unwrap();
        match (record.key(), record.value()) {
            (None, value) => others.push(value.to_vec()),
            (Some(key), b"") => drop(keys.remove(key)),
            (Some(key), value) => drop(keys.insert(key.to_vec(), value.to_vec())),
        }
    }
    (keys, others)
}

/// No record but those of the active segment is there in vain.
fn nothing_is_obsolete<B: Backend>(log: &Log<B>, what: &str) {
    let active = log.segments().last().unwrap().base;
    let records: Vec<_> = log.scan(..).map(Result::unwrap).collect();
    for (n, record) in records
        .iter()
        .enumerate()
        .filter(|(_, r)| r.offset() < active)
    {
        let Some(key) = record.key() else { continue };
        let is_latest = records[n + 1..]
            .iter()
            .all(|later| later.key() != Some(key));
        assert!(is_latest, "{what}: {}", record.offset());
        assert!(!record.value().is_empty(), "{what}: {}", record.offset());
    }
}

fn fill(log: &Log<MemoryBackend>, random: &mut Random, steps: u64) -> Result<()> {
    for _ in 0..steps {
        let records: Vec<(String, String)> = (0..[1, 1, 1, 3][random.below(4) as usize])
            .map(|_| {
                let key = match random.below(12) {
                    0 | 1 => String::new(),
                    n => format!("key {n}"),
                };
                let value = match random.below(5) {
                    0 => String::new(),
                    n => format!("{}{}", random.below(1000), "x".repeat(20 * n as usize)),
                };
                (key, value)
            })
            .collect();
        let records = records
            .iter()
            .map(|(key, value)| NewRecord::new(value).key(key));
        log.append_batch(records)?;
    }
    Ok(())
}

#[test]
fn random_logs_keep_what_lives() -> Result<()> {
    let mut removed = 0;
    for seed in 0..60 {
        let mut random = Random(seed);
        let files = MemoryBackend::new();
        let mut log = Log::open_on(files.clone(), options())?;
        for round in 0..6 {
            let what = format!("seed {seed}, round {round}");
            fill(&log, &mut random, 40)?;
            match random.below(6) {
                0 => log.skip_to(log.next_offset().plus(random.below(9)))?,
                1 => log.truncate_before(Offset(log.next_offset().0 / 2))?,
                2 => {
                    let held = log.next_offset().since(log.lowest_offset());
                    log.truncate_after(log.lowest_offset().plus(held * 9 / 10))?;
                }
                _ => {}
            }
            let (before, all) = (live(&log), frames(&log));
            let bounds = (log.lowest_offset(), log.next_offset());
            // The keys one by one, some at a time, or all.
            let memory = [1, 700, 64 << 20][random.below(3) as usize];
            let compacted = log.compact(&at_once().memory_bytes_max(memory))?;
            assert_eq!(compacted.left_alone, [], "{what}");
            assert_eq!(live(&log), before, "{what}");
            assert_eq!((log.lowest_offset(), log.next_offset()), bounds, "{what}");
            nothing_is_obsolete(&log, &what);
            let now = frames(&log);
            for (offset, frame) in &now {
                assert_eq!(Some(frame), all.get(offset), "{what}: {offset}");
            }
            assert_eq!(
                compacted.records_removed,
                (all.len() - now.len()) as u64,
                "{what}"
            );
            removed += compacted.records_removed;
            let report = log.verify()?;
            assert!(report.is_sound(), "{what}: {report:?}");
            assert_eq!(report.torn_tails().count(), 0, "{what}: {report:?}");
            let sealed = &report.segments[..report.segments.len() - 1];
            assert!(
                sealed.iter().all(|s| s.index == IndexState::Sound),
                "{what}: {report:?}"
            );
            let again = log.compact(&at_once())?;
            assert_eq!(again.segments, [], "{what}: twice");
            if random.below(2) == 0 {
                log.close()?;
                log = Log::open_on(files.clone(), options())?;
                assert_eq!(frames(&log), now, "{what}: opened again");
            }
            let names = files.list().unwrap();
            assert!(
                !names.iter().any(|name| name.contains("rewritten")),
                "{names:?}"
            );
        }
    }
    println!("{removed} records were removed");
    assert!(removed > 5000, "{removed}");
    Ok(())
}

/// Segments of one record each.
fn one_each(records: &[(&str, &str, u64)]) -> Result<(MemoryBackend, Log<MemoryBackend>)> {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options().segment_bytes_max(1))?;
    for (key, value, timestamp_ms) in records {
        log.append(NewRecord::new(value).key(key).timestamp_ms(*timestamp_ms))?;
    }
    log.append("the active one")?;
    Ok((files, log))
}

fn offsets<B: Backend>(log: &Log<B>) -> Vec<u64> {
    frames(log).into_keys().collect()
}

#[test]
fn tombstones_stay_for_as_long_as_they_may_be_needed() -> Result<()> {
    let old = NOW_MS - DAY_MS;
    // Young, or of an unknown age: none goes however often.
    for timestamp_ms in [NOW_MS, old + 1, 0] {
        let (_, log) = one_each(&[("k", "v", 1), ("k", "", timestamp_ms), ("other", "w", 0)])?;
        for _ in 0..3 {
            log.compact(&Compaction::new())?;
            assert_eq!(offsets(&log), [1, 2, 3], "{timestamp_ms}");
        }
    }
    // Old enough: the first compaction takes what it deleted, the next one takes it.
    let (_, log) = one_each(&[("k", "v", 1), ("k", "", old), ("other", "w", old)])?;
    log.compact(&Compaction::new())?;
    assert_eq!(offsets(&log), [1, 2, 3]);
    let compacted = log.compact(&Compaction::new())?;
    assert_eq!((compacted.records_removed, offsets(&log)), (1, vec![2, 3]));
    // Not to be kept at all.
    let (_, log) = one_each(&[("k", "v", 1), ("k", "", NOW_MS), ("k", "", 0)])?;
    log.compact(&at_once())?;
    assert_eq!(offsets(&log), [3]);
    // That of the active segment stays, and what it deleted goes.
    let (_, log) = one_each(&[("k", "v", 1)])?;
    log.append(NewRecord::new("").key("k"))?;
    log.compact(&at_once())?;
    assert_eq!(offsets(&log), [1, 2]);
    // Without a clock no one knows how old they are.
    let files = MemoryBackend::new();
    let log = Log::open_on(files, options().segment_bytes_max(1).clock(Clock::NONE))?;
    log.append(NewRecord::new("").key("k").timestamp_ms(5))?;
    log.append("active")?;
    log.compact(&Compaction::new())?;
    assert_eq!(offsets(&log), [0, 1]);
    Ok(())
}

#[test]
fn damaged_segments_are_left_alone_and_tombstones_above_them_stay() -> Result<()> {
    let records = [
        ("a", "1", 1),
        ("k", "old", 1),
        ("a", "2", 1),
        ("k", "", 1),
        ("a", "3", 1),
    ];
    // Which one is damaged, and what is left.
    for (damaged, left) in [(1, vec![3, 4, 5]), (4, vec![2, 5]), (0, vec![3, 4, 5])] {
        let (files, log) = one_each(&records)?;
        log.close()?;
        let name = format!("{damaged}.store");
        let mut store = files.get(&name).unwrap();
        store[12] ^= 1;
        files.insert(name.clone(), store.clone());
        let log = Log::open_on(files.clone(), options().segment_bytes_max(1))?;
        let compacted = log.compact(&at_once())?;
        assert_eq!(compacted.left_alone.len(), 1, "{compacted:?}");
        assert_eq!(compacted.left_alone[0].base, Offset(damaged));
        assert_eq!(compacted.left_alone[0].reason, LeftAloneReason::Damaged);
        assert_eq!(files.get(&name), Some(store));
        let found: Vec<_> = log.scan(..).flatten().map(|r| r.offset().0).collect();
        assert_eq!(found, left, "{damaged}");
        assert_eq!(log.verify()?.damage().count(), 1);
    }
    Ok(())
}

#[test]
fn missing_records_are_no_reason_to_remove_a_tombstone() -> Result<()> {
    let (files, log) = one_each(&[("a", "1", 1), ("k", "old", 1), ("k", "", 1), ("a", "2", 1)])?;
    log.close()?;
    for name in ["1.store", "1.index"] {
        files.remove(name).unwrap();
    }
    let log = Log::open_on(files, options().segment_bytes_max(1))?;
    let compacted = log.compact(&at_once())?;
    assert_eq!(compacted.left_alone[0].base, Offset(0));
    let found: Vec<_> = log.scan(..).flatten().map(|r| r.offset().0).collect();
    assert_eq!(found, [0, 2, 3, 4]);
    Ok(())
}

#[test]
fn records_of_the_book_and_those_without_a_key_stay_to_the_byte() -> Result<()> {
    let files = MemoryBackend::new();
    let book = b"\0\0\0\0\0\0\0\x0d\x0a\x0bhello world\0\0\0\0\0\0\0\x05\x0a\x01b\x10\x01\0\0\0\0\0\0\0\x02\x10\x02";
    files.insert("0.store", book);
    let log = Log::open_on(files.clone(), options())?;
    log.append(NewRecord::new("old").key("k"))?;
    log.append(NewRecord::new(&[7; 600]).key("k"))?;
    log.append("active")?;
    let compacted = log.compact(&at_once())?;
    assert_eq!(compacted.records_removed, 1);
    assert!(files.get("0.store").unwrap().starts_with(book));
    assert_eq!(offsets(&log), [0, 1, 2, 4, 5]);
    assert_eq!(log.verify()?.segments[0].unchecked_records, 3);
    // An empty one of eight zeros too, before a gap.
    let files = MemoryBackend::new();
    files.insert("0.store", [0; 8]);
    let log = Log::open_on(files.clone(), options())?;
    log.append(NewRecord::new("old").key("k"))?;
    log.append(NewRecord::new(&[7; 600]).key("k"))?;
    log.compact(&at_once())?;
    for _ in 0..2 {
        let log = Log::open_on(files.clone(), options())?;
        assert_eq!(offsets(&log), [0, 2]);
        assert!(log.verify()?.is_sound());
    }
    Ok(())
}

#[test]
fn gaps_next_to_each_other_become_one() -> Result<()> {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options().segment_bytes_max(1000))?;
    for round in 0..5 {
        for n in 0..20 {
            log.append(NewRecord::new(&format!("{round}")).key(&format!("{n}")))?;
        }
        log.compact(&Compaction::new())?;
    }
    log.compact(&Compaction::new())?;
    let store = files.get("0.store").unwrap();
    assert!(store.len() < 40, "{} bytes", store.len());
    assert!(matches!(
        log.read(Offset(3)),
        Err(Error::Gap {
            cause: GapCause::Compacted,
            first: Offset(0),
            ..
        })
    ));
    assert_eq!(log.scan(..).count(), 20 + live_in_active(&log));
    Ok(())
}

/// Records of the active segment that are obsolete.
fn live_in_active<B: Backend>(log: &Log<B>) -> usize {
    log.scan(..).count() - live(log).0.len()
}

/// A process that stops anywhere in between, and what is then left: also nothing of a file that was not finished.
#[test]
fn what_is_left_of_a_stopped_one_is_removed_and_indexes_are_right() -> Result<()> {
    let filled = |disk: &FaultBackend| -> Result<Log<FaultBackend>> {
        let log = Log::open_on(disk.clone(), options().segment_bytes_max(200))?;
        for n in 0..30 {
            log.append(NewRecord::new(&format!("{n}")).key(&format!("{}", n % 4)))?;
        }
        Ok(log)
    };
    let disk = FaultBackend::new();
    let log = filled(&disk)?;
    let before = disk.operations();
    log.compact(&at_once())?;
    let after = disk.operations();
    let mut mixed = 0;
    for stop in before..after {
        let disk = FaultBackend::new();
        let log = filled(&disk)?;
        disk.fail(stop, Fault::Error);
        let _ = log.compact(&at_once());
        std::mem::forget(log);
        let states = disk.power_cuts(40, stop);
        for state in states.chain([disk.killed()]) {
            let indexes = |log: &Log<FaultBackend>| -> Result<bool> {
                let report = log.verify()?;
                assert!(report.is_sound(), "{stop}: {report:?}");
                let mut segments = report.segments.iter();
                Ok(segments.all(|segment| segment.index != IndexState::Disagrees))
            };
            let reader = Log::open_read_only_on(state.clone(), options())?;
            mixed += u32::from(!indexes(&reader)?);
            let log = Log::open_on(state.clone(), options())?;
            assert!(indexes(&log)?, "{stop}: {:?}", log.verify()?);
            let names = state.list().unwrap();
            assert!(
                !names.iter().any(|name| name.contains("rewritten")),
                "{names:?}"
            );
            let keys = live(&log).0;
            let latest: Vec<_> = keys.values().map(|v| String::from_utf8_lossy(v)).collect();
            assert_eq!(latest, ["28", "29", "26", "27"], "{stop}");
        }
    }
    println!(
        "{} stops, {mixed} states with an index of another store",
        after - before
    );
    assert!(mixed > 0);
    Ok(())
}

#[test]
fn a_full_disk_leaves_the_log_as_it_was() -> Result<()> {
    let disk = FaultBackend::new();
    let log = Log::open_on(disk.clone(), options().segment_bytes_max(200))?;
    for n in 0..30 {
        log.append(NewRecord::new(&format!("{n}")).key(&format!("{}", n % 4)))?;
    }
    let before = frames(&log);
    disk.fail(disk.operations(), Fault::Full);
    let compacted = log.compact(&at_once())?;
    assert_eq!(compacted.segments, []);
    assert!(matches!(
        compacted.left_alone[0].reason,
        LeftAloneReason::Failed(_)
    ));
    assert_eq!(frames(&log), before);
    disk.heal();
    assert_eq!(log.append("more")?, Offset(30));
    assert_eq!(log.compact(&at_once())?.left_alone, []);
    assert!(log.verify()?.is_sound());
    Ok(())
}

#[test]
fn a_failure_while_files_change_places_poisons() -> Result<()> {
    let run = |stop: Option<u64>| -> Result<(u64, Result<()>, bool)> {
        let disk = FaultBackend::new();
        let log = Log::open_on(disk.clone(), options().segment_bytes_max(1))?;
        for _ in 0..3 {
            log.append(NewRecord::new("v").key("k"))?;
        }
        log.sync()?;
        let begun = disk.operations();
        if let Some(stop) = stop {
            disk.fail(begun + stop, Fault::Error);
        }
        let done = log.compact(&at_once()).map(drop);
        let is_poisoned = matches!(log.sync(), Err(Error::Poisoned { .. }));
        assert!(log.read(Offset(2)).is_ok());
        Ok((disk.operations() - begun, done, is_poisoned))
    };
    let (operations, done, _) = run(None)?;
    done?;
    let mut poisoned = 0;
    for stop in 0..operations {
        let (_, done, is_poisoned) = run(Some(stop))?;
        assert_eq!(done.is_err(), is_poisoned, "{stop}: {done:?}");
        poisoned += u32::from(is_poisoned);
    }
    println!("{poisoned} of {operations} operations");
    assert!(poisoned >= 6 && u64::from(poisoned) < operations);
    Ok(())
}

#[test]
fn a_reader_may_not_and_a_closed_reader_sees_it() -> Result<()> {
    let (files, log) = one_each(&[("k", "1", 1), ("k", "2", 1), ("k", "3", 1)])?;
    let reader = Log::open_read_only_on(files.clone(), options())?;
    assert!(matches!(reader.compact(&at_once()), Err(Error::ReadOnly)));
    let early = reader.read(Offset(0))?;
    let mut scan = reader.scan(..);
    assert_eq!(scan.next().unwrap()?.offset(), Offset(0));
    log.compact(&at_once())?;
    assert_eq!(early.value(), b"1");
    // It is in a segment that was open, and goes on in what there is by now.
    assert!(scan.all(|record| record.is_ok_and(|record| record.offset() >= Offset(1))));
    reader.refresh()?;
    assert_eq!(offsets(&log), [2, 3]);
    let seen: Vec<_> = reader
        .scan(Offset(1)..)
        .map(|r| r.unwrap().offset().0)
        .collect();
    assert!(seen.ends_with(&[2, 3]), "{seen:?}");
    let file = files.open("0.store", Access::Read).unwrap();
    assert!(file.len().unwrap() < 30);
    Ok(())
}

/// Wherever it stops: what deletes a key goes after what it deleted.
#[test]
fn a_deleted_key_does_not_come_back() -> Result<()> {
    let filled = |disk: &FaultBackend| -> Result<Log<FaultBackend>> {
        let log = Log::open_on(disk.clone(), options().segment_bytes_max(1))?;
        for (key, value) in [
            ("k", "old"),
            ("a", "1"),
            ("k", "older"),
            ("k", ""),
            ("a", "2"),
        ] {
            log.append(NewRecord::new(value).key(key))?;
        }
        log.append("active")?;
        log.sync()?;
        Ok(log)
    };
    let mut states = 0;
    for stop in 0.. {
        let disk = FaultBackend::new();
        let log = filled(&disk)?;
        disk.fail(disk.operations() + stop, Fault::Half);
        let compacted = log.compact(&at_once());
        let is_done = compacted
            .as_ref()
            .is_ok_and(|done| done.left_alone.is_empty());
        std::mem::forget(log);
        let cuts = disk.power_cuts(300, stop);
        for state in cuts.chain([disk.killed()]) {
            let log = Log::open_on(state, options())?;
            let (keys, others) = live(&log);
            assert_eq!(keys, [(b"a".to_vec(), b"2".to_vec())].into(), "{stop}");
            assert_eq!(others, [b"active"], "{stop}");
            assert!(log.verify()?.is_sound(), "{stop}");
            states += 1;
        }
        if is_done {
            assert!(stop > 30, "{stop}");
            break;
        }
    }
    println!("{states} states");
    Ok(())
}

#[test]
fn a_damaged_last_segment_is_told() -> Result<()> {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options())?;
    for n in 0..3 {
        log.append(NewRecord::new(&format!("{n}")).key("key"))?;
    }
    log.close()?;
    let mut store = files.get("0.store").unwrap();
    store[12] ^= 1;
    files.insert("0.store", store);
    let log = Log::open_on(files, options())?;
    let compacted = log.compact(&at_once())?;
    assert_eq!(compacted.left_alone.len(), 1);
    assert_eq!(compacted.left_alone[0].reason, LeftAloneReason::Damaged);
    Ok(())
}
