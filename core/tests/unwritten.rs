//! Space that a power cut left unwritten is told from damage: it and what stands after it are a torn
//! tail, where no index entry vouches for it.

use std::time::{Duration, Instant};

use proglog::{
    Clock, Damaged, Durability, Error, FaultBackend, Log, MemoryBackend, Offset, Options, Result,
};

const SECTOR: usize = 512;

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}

/// The store of a closed log of these records, each appended by itself, and its index.
fn files_of(values: &[Vec<u8>]) -> Result<(Vec<u8>, Vec<u8>)> {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options())?;
    for value in values {
        log.append(value)?;
    }
    log.close()?;
    let bytes = |name| files.get(name).unwrap_or_default();
    Ok((bytes("0.store"), bytes("0.index")))
}

/// A directory of this store, and of nothing else that tells of its records.
fn store_alone(store: impl Into<Vec<u8>>) -> MemoryBackend {
    let files = MemoryBackend::new();
    files.insert("0.store", store);
    files
}

/// Values of which the first ends so that the second's frame starts `before` bytes before a sector ends.
fn values_starting(before: usize) -> Vec<Vec<u8>> {
    let bytes_around = 8 + 3 + 9;
    vec![
        vec![1; SECTOR - before - bytes_around],
        vec![2; 1200],
        vec![3; 1200],
        vec![4; 40],
    ]
}

/// The frames of a log that begins at an offset: a value that looks like records.
fn frames_from(first: u64, bytes: usize) -> Result<Vec<u8>> {
    let log = Log::open_on(MemoryBackend::new(), options().initial_offset(first))?;
    for _ in 0..bytes / 40 {
        log.append("never appended")?;
    }
    let mut value = log.read_batch(Offset(first), bytes)?.as_bytes().to_vec();
    value.resize(bytes, 7);
    Ok(value)
}

#[test]
fn whatever_sectors_are_lost_a_prefix_is_left() -> Result<()> {
    for before in (3..10).chain([40]) {
        let values = values_starting(before);
        lose_sectors(&values, before)?;
        let like_records = [
            values[0].clone(),
            frames_from(2, 1200)?,
            frames_from(3, 1200)?,
            values[3].clone(),
        ];
        lose_sectors(&like_records, before)?;
    }
    Ok(())
}

fn lose_sectors(values: &[Vec<u8>], before: usize) -> Result<()> {
    let disk = FaultBackend::new();
    let log = Log::open_on(disk.clone(), options().durability(Durability::Written))?;
    log.append(&values[0])?;
    log.sync()?;
    for value in &values[1..] {
        log.append(value)?;
    }
    let states = disk.power_cuts(1 << 14, 0);
    assert!(states.are_all());
    for (number, state) in states.enumerate() {
        let what = format!("{before} bytes before the end of a sector, state {number}");
        let log = Log::open_on(state, options())?;
        let report = log.recovery_report();
        assert!(
            report.is_sound() && log.next_offset() >= Offset(1),
            "{what}: {report:?}"
        );
        for (record, value) in log.scan(..).zip(values) {
            assert_eq!(record?.value(), value, "{what}");
        }
        assert!(log.verify()?.is_sound(), "{what}");
    }
    Ok(())
}

#[test]
fn a_flipped_bit_is_damage_wherever_it_is() -> Result<()> {
    for before in [1, 3, 4, 5, 6, 7, 8, 9, 100] {
        let values = values_starting(before);
        let (whole, _) = files_of(&values)?;
        let start = SECTOR - before;
        for bit in (0..160).chain((160..1220 * 8).step_by(97)) {
            let mut flipped = whole.clone();
            flipped[start + bit / 8] ^= 0x80 >> (bit % 8);
            if before == 7 && flipped[start..SECTOR] == [0; 7] {
                // The one bit of the length that this sector holds: as if the sector were lost.
                continue;
            }
            let log = Log::open_on(store_alone(flipped.clone()), options())?;
            let what = format!("bit {bit} of a frame {before} bytes before the end of a sector");
            assert_eq!(log.next_offset(), Offset(4), "{what}");
            assert!(
                matches!(log.read(Offset(1)), Err(Error::Corrupt { .. })),
                "{what}"
            );
            assert_eq!(
                log.scan(..).filter(|record| record.is_ok()).count(),
                3,
                "{what}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_lost_sector_that_the_index_vouches_for_is_damage() -> Result<()> {
    let (mut store, index) = files_of(&values_starting(100))?;
    store[SECTOR..2 * SECTOR].fill(0);
    for (entries, damaged) in [(0, false), (1, false), (2, true), (3, true), (4, true)] {
        let files = store_alone(store.clone());
        files.insert("0.index", [&index[..12 * entries], &[0; 1024]].concat());
        let log = Log::open_on(files.clone(), options())?;
        let report = log.recovery_report();
        assert_eq!(report.is_sound(), !damaged, "{entries} entries");
        if damaged {
            assert_eq!(log.next_offset(), Offset(4));
            assert_eq!(log.read(Offset(3))?.value(), [4; 40]);
        } else {
            let torn = report.torn_tail().unwrap();
            assert_eq!((torn.position, torn.records), (SECTOR as u64 - 100, 2));
            assert_eq!(log.append("instead")?, Offset(1));
        }
    }
    Ok(())
}

#[test]
fn a_batch_with_a_lost_sector_goes_with_all_that_follows() -> Result<()> {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options())?;
    log.append("zero")?;
    log.append_batch(&values_starting(100)[..3])?;
    log.append("four")?;
    log.close()?;
    let mut store = files.get("0.store").unwrap_or_default();
    store[3 * SECTOR..4 * SECTOR].fill(0);
    let log = Log::open_on(store_alone(store), options())?;
    assert_eq!(log.next_offset(), Offset(1));
    let report = log.recovery_report();
    let torn = report.torn_tail().unwrap();
    // The two that are not hit: the first of the batch, and the one after it.
    assert_eq!(
        (report.is_sound(), torn.records, torn.zeros),
        (true, 2, false)
    );
    Ok(())
}

#[test]
fn a_record_is_not_read_from_the_value_of_a_damaged_one() -> Result<()> {
    let value = frames_from(2, 2 * SECTOR)?;
    let values = [b"zero".to_vec(), value, b"two".to_vec(), b"three".to_vec()];
    let (mut store, _) = files_of(&values)?;
    store[SECTOR] ^= 1;
    let log = Log::open_on(store_alone(store.clone()), options())?;
    assert!(matches!(
        log.read(Offset(1)),
        Err(Error::Corrupt {
            reason: Damaged::Checksum,
            ..
        })
    ));
    assert_eq!(log.read(Offset(2))?.value(), b"two");
    assert_eq!(log.next_offset(), Offset(4));
    // Nor where all after it is lost.
    store[SECTOR..].fill(0);
    let log = Log::open_on(store_alone(store), options())?;
    assert_eq!(log.next_offset(), Offset(1));
    assert!(log.recovery_report().is_sound());
    Ok(())
}

#[test]
fn prepared_space_is_recognised_at_once_and_is_no_damage() -> Result<()> {
    let (store, index) = files_of(&values_starting(100))?;
    let records = store.len() as u64;
    let mut prepared = store.clone();
    prepared.resize(64 << 20, 0);

    let started = Instant::now();
    let files = store_alone(prepared.clone());
    let log = Log::open_on(files.clone(), options())?;
    let took = started.elapsed();
    let report = log.recovery_report();
    let torn = report.torn_tail().unwrap();
    assert_eq!(
        (torn.position, torn.zeros, torn.records),
        (records, true, 0)
    );
    assert_eq!(log.next_offset(), Offset(4));
    assert!(took < Duration::from_secs(1), "{took:?}");
    println!("{took:?}");

    // A damaged last record before it stays, but not all the zeros.
    prepared[store.len() - 20] ^= 1;
    let files = store_alone(prepared);
    files.insert("0.index", [index, vec![0; 1024]].concat());
    let log = Log::open_on(files.clone(), options())?;
    let damage: Vec<_> = log.recovery_report().damage().cloned().collect();
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].position + damage[0].bytes, records);
    assert_eq!(log.append("next")?, Offset(4));
    assert_eq!(
        files.get("0.store").map(|store| store.len() as u64),
        Some(records)
    );
    Ok(())
}
