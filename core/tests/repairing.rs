//! A repair in every flipped bit, and in every crash.
#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

use std::{collections::BTreeMap, time::Duration};

use proglog::{
    Access, Backend, BackendFile, Clock, Compaction, Damaged, Error, Fault, FaultBackend, GapCause,
    Log, MemoryBackend, NewRecord, Offset, Options, Repair, Result,
};

fn options() -> Options {
    Options::new().segment_bytes_max(200).clock(Clock::NONE)
}

type Files = BTreeMap<String, Vec<u8>>;

fn files<B: Backend>(backend: &B) -> Files {
    let names = backend.list().unwrap();
    let read = |name: String| {
        let file = backend.open(&name, Access::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        let mut read = 0;
        while read < bytes.len() {
            read += file.read_at(&mut bytes[read..], read as u64).unwrap();
        }
        (name, bytes)
    };
    names.into_iter().map(read).collect()
}

/// Files that are on stable storage.
fn put<B: Backend>(backend: &B, files: &Files) {
    for (name, bytes) in files {
        let file = backend.open(name, Access::Create).unwrap();
        file.write_at(bytes, 0).unwrap();
        file.sync().unwrap();
    }
    backend.sync_directory().unwrap();
}

fn memory(files: &Files) -> MemoryBackend {
    let backend = MemoryBackend::new();
    put(&backend, files);
    backend
}

/// What an offset gives.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    Frame(Vec<u8>),
    Gap(GapCause),
}

/// What each offset of a sound log gives.
fn held<B: Backend>(backend: B) -> BTreeMap<u64, Held> {
    let log = Log::open_read_only_on(backend, options()).unwrap();
    assert!(log.verify().unwrap().is_sound());
    let offsets = log.lowest_offset().0..log.next_offset().0;
    offsets
        .map(|offset| match log.read(Offset(offset)) {
            Ok(record) => (offset, Held::Frame(record.frame().to_vec())),
            Err(Error::Gap { cause, .. }) => (offset, Held::Gap(cause)),
            Err(error) => panic!("{offset}: {error}"),
        })
        .collect()
}

/// A log with batches, keys, and gaps of both kinds.
fn written() -> Result<Files> {
    let backend = MemoryBackend::new();
    let log = Log::open_on(backend.clone(), options())?;
    for round in 0..6 {
        let value = format!("value {round}");
        log.append(NewRecord::new(&value).key("often"))?;
        log.append_batch([NewRecord::new(&value).key("also"), NewRecord::new("stays")])?;
        log.append(&value)?;
    }
    log.compact(&Compaction::new().tombstones_kept(Duration::ZERO))?;
    log.skip_to(Offset(40))?;
    log.append("forty")?;
    log.append_batch(["one", "two"])?;
    assert!(log.segments().len() > 4, "{:?}", log.segments());
    assert!(log.verify()?.gaps().compacted > 3);
    log.close()?;
    Ok(files(&backend))
}

#[test]
fn each_flipped_bit_loses_its_own_record_and_no_other() -> Result<()> {
    let sound = written()?;
    let before = held(memory(&sound));
    let log = Log::open_read_only_on(memory(&sound), options())?;
    let places: Vec<(u64, u64, u64)> = before
        .keys()
        .map(|&offset| {
            let place = log.locate(Offset(offset)).unwrap();
            (offset, place.segment.0, place.position)
        })
        .collect();
    let mut lost_gaps = 0;
    for (name, bytes) in sound.iter().filter(|(name, _)| name.ends_with(".store")) {
        let base: u64 = name.strip_suffix(".store").unwrap().parse().unwrap();
        for bit in 0..bytes.len() * 8 {
            let at = (bit / 8) as u64;
            let what = format!("bit {bit} of {name}");
            let in_store = places.iter().filter(|place| place.1 == base);
            let start = in_store.clone().filter(|place| place.2 <= at);
            let start = start.map(|place| place.2).max().unwrap();
            let own = in_store.filter(|place| place.2 == start);
            let own: Vec<u64> = own.map(|place| place.0).collect();

            let mut files_now = sound.clone();
            files_now.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let backend = memory(&files_now);
            let log = Log::open_read_only_on(backend.clone(), options())?;
            assert!(!log.verify()?.is_sound(), "{what}");
            let repair = Log::repair_on(backend.clone(), options())?;
            let told = repair
                .lost
                .iter()
                .flat_map(|lost| lost.first.0..=lost.last.0);
            assert_eq!(told.collect::<Vec<_>>(), own, "{what}: {repair:?}");
            let mut expected = before.clone();
            for offset in &own {
                let was = expected.insert(*offset, Held::Gap(GapCause::Lost)).unwrap();
                lost_gaps += u64::from(matches!(was, Held::Gap(_)));
            }
            assert_eq!(held(backend.clone()), expected, "{what}");
            assert_eq!(
                backend.get(&format!("{base}.store.damaged-1")).as_ref(),
                files_now.get(name),
                "{what}"
            );
            for (other, bytes) in sound.iter().filter(|(other, _)| *other != name) {
                if other.ends_with(".store") {
                    assert_eq!(backend.get(other).as_ref(), Some(bytes), "{what}: {other}");
                }
            }
        }
    }
    assert!(lost_gaps > 0);
    Ok(())
}

/// Damaged in several ways at once.
fn damaged() -> Result<[Files; 3]> {
    let mut files_now = written()?;
    let stores: Vec<String> = {
        let names = files_now.keys().filter(|name| name.ends_with(".store"));
        let mut bases: Vec<u64> = names
            .map(|name| name.strip_suffix(".store").unwrap().parse().unwrap())
            .collect();
        bases.sort_unstable();
        bases.iter().map(|base| format!("{base}.store")).collect()
    };
    files_now.remove(&stores[1]);
    files_now.get_mut(&stores[2]).unwrap()[40] ^= 1;
    let cut = files_now.get_mut(&stores[3]).unwrap();
    cut.truncate(cut.len() - 5);
    let last = stores.last().unwrap();
    let mut last_torn = files_now.clone();
    last_torn.get_mut(last).unwrap().extend_from_slice(b"torn");
    let mut last_flipped = last_torn.clone();
    last_flipped.get_mut(last).unwrap()[30] ^= 4;
    let mut last_cut = files_now;
    let cut = last_cut.get_mut(last).unwrap();
    cut.truncate(cut.len() - 3);
    Ok([last_torn, last_flipped, last_cut])
}

#[test]
fn a_crash_at_any_step_leaves_what_can_be_repaired_and_keeps_all_bytes() -> Result<()> {
    let mut states = 0;
    for damaged in damaged()? {
        let whole = memory(&damaged);
        let repair = Log::repair_on(whole.clone(), options())?;
        assert!(
            repair.rewritten.len() >= 3 || repair.set_aside.len() == 1,
            "{repair:?}"
        );
        assert!(!repair.made.is_empty(), "{repair:?}");
        let expected = held(whole);
        for step in 0.. {
            for fault in [Fault::Error, Fault::Half, Fault::Full] {
                let disk = FaultBackend::new();
                put(&disk, &damaged);
                disk.fail(disk.operations() + step, fault);
                let done = Log::repair_on(disk.clone(), options());
                disk.heal();
                let what = format!("step {step}, {fault:?}: {done:?}");
                check_crashed(&disk.killed(), &damaged, &expected, &what);
                for cut in disk.power_cuts(40, step) {
                    check_crashed(&cut, &damaged, &expected, &what);
                    states += 1;
                }
            }
            let disk = FaultBackend::new();
            put(&disk, &damaged);
            let before = disk.operations();
            Log::repair_on(disk.clone(), options())?;
            if before + step > disk.operations() {
                break;
            }
        }
    }
    assert!(states > 1000, "{states}");
    Ok(())
}

fn check_crashed(disk: &FaultBackend, damaged: &Files, expected: &BTreeMap<u64, Held>, what: &str) {
    let again: Result<Repair> = Log::repair_on(disk.clone(), options());
    let again = again.unwrap_or_else(|error| panic!("{error}; {what}"));
    assert_eq!(&held(disk.clone()), expected, "{again:?}; {what}");
    let now = files(disk);
    for (name, bytes) in damaged.iter().filter(|(name, _)| name.ends_with(".store")) {
        let kept = now.iter().any(|(other, kept)| {
            (other == name || other.starts_with(&format!("{name}.damaged-"))) && kept == bytes
        });
        assert!(kept, "{name} as it was is gone; {again:?}; {what}");
    }
    assert!(
        Log::repair_on(disk.clone(), options()).unwrap().is_empty(),
        "{what}"
    );
}

/// Zeros were prepared after bad bytes at the end that begin as a length that reaches into them: they are cut off when it
/// is repaired, and then the length would be of more than there is.
#[test]
fn what_is_lost_is_told_for_the_reason_it_was_found_for() -> Result<()> {
    let backend = MemoryBackend::new();
    let log = Log::open_on(backend.clone(), options())?;
    for _ in 0..3 {
        log.append("a record")?;
    }
    let at = log.locate(Offset(2))?.position as usize;
    log.close()?;
    let mut store = backend.get("0.store").unwrap();
    store.resize(150, 0);
    store[at + 7] += 20;
    store[at + 8] = 0xff;
    backend.insert("0.store", store);
    let plan = Log::plan_repair_on(backend.clone(), options())?;
    let repair = Log::repair_on(backend, options())?;
    for told in [plan, repair] {
        let lost: Vec<_> = told.lost.iter().map(|l| (l.first, l.reason)).collect();
        assert_eq!(lost, [(Offset(2), Damaged::Malformed)]);
    }
    Ok(())
}

#[test]
fn a_repair_with_nothing_to_do_changes_nothing() -> Result<()> {
    let backend = memory(&written()?);
    // A log whose last segment takes no appends, for it ends in a gap.
    let log = Log::open_on(backend.clone(), options())?;
    log.append("to be damaged")?;
    log.close()?;
    let mut before = files(&backend);
    let last = before
        .keys()
        .filter_map(|name| name.strip_suffix(".store")?.parse::<u64>().ok());
    let last = format!("{}.store", last.max().unwrap());
    let store = before.get_mut(&last).unwrap();
    *store.last_mut().unwrap() ^= 1;
    let backend = memory(&before);
    assert_eq!(
        Log::repair_on(backend.clone(), options())?.offsets_lost(),
        1
    );
    let repaired = files(&backend);
    for _ in 0..2 {
        assert!(Log::repair_on(backend.clone(), options())?.is_empty());
        assert_eq!(files(&backend), repaired);
    }
    Ok(())
}

#[cfg(unix)]
#[test]
fn a_directory_in_the_way_of_a_kept_store_is_passed_over() -> Result<()> {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path();
    let log = Log::open(directory, options())?;
    log.append_batch(["a", "b", "c"])?;
    log.close()?;
    let store = directory.join("0.store");
    let mut bytes = std::fs::read(&store).unwrap();
    let in_b = bytes.len() / 2;
    bytes[in_b] ^= 1;
    std::fs::write(&store, bytes).unwrap();
    std::fs::create_dir_all(directory.join("0.store.damaged-1/within")).unwrap();
    let in_the_way = directory.join("0.store.rewritten");
    std::fs::create_dir(&in_the_way).unwrap();
    let refused = Log::repair(directory, options()).unwrap_err().to_string();
    assert!(
        refused.contains("0.store.rewritten") && refused.contains("remove it"),
        "{refused}"
    );
    std::fs::remove_dir(in_the_way).unwrap();
    let repair = Log::repair(directory, options())?;
    let kept = repair.lost[0].bytes.as_ref().unwrap();
    assert_eq!(kept.file.as_deref(), Some("0.store.damaged-2"));
    Ok(())
}
