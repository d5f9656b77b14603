//! What recovery makes of bad bytes: torn tails are cut off, damage stays and is read around.
#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

use std::time::{Duration, Instant};

use proglog::{
    Damaged, Error, FaultBackend, Log, MemoryBackend, NewRecord, Offset, Options, Result,
};

fn options() -> Options {
    Options::new().clock(proglog::Clock::NONE)
}

/// A closed log of these records, each appended by itself.
fn log_of(values: &[&[u8]]) -> Result<MemoryBackend> {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options())?;
    for value in values {
        log.append(*value)?;
    }
    log.close()?;
    Ok(files)
}

fn store(files: &MemoryBackend) -> Vec<u8> {
    files.get("0.store").unwrap_or_default()
}

/// A directory of this store alone, as a power cut may leave it.
fn store_alone(store: impl Into<Vec<u8>>) -> MemoryBackend {
    let files = MemoryBackend::new();
    files.insert("0.store", store);
    files
}

fn values(log: &Log<MemoryBackend>) -> Vec<Option<Vec<u8>>> {
    log.scan(..)
        .map(|record| record.ok().map(|record| record.value().to_vec()))
        .collect()
}

#[test]
fn a_torn_record_is_not_read_by_what_its_value_looks_like() -> Result<()> {
    // The value is a piece of another log, whose record 1 would fit here.
    let other = store(&log_of(&[b"other 0", b"other 1", b"other 2", b"other 3"])?);
    let whole = store(&log_of(&[b"first", &other])?);
    for cut in 1..other.len() {
        let log = Log::open_on(store_alone(&whole[..whole.len() - cut]), options())?;
        assert_eq!(values(&log), [Some(b"first".to_vec())], "cut by {cut}");
        let report = log.recovery_report();
        assert!(
            report.is_sound() && report.torn_tail().is_some(),
            "cut by {cut}"
        );
        assert_eq!(log.append("second")?, Offset(1));
    }
    Ok(())
}

#[test]
fn a_flipped_length_is_damage_wherever_it_leads() -> Result<()> {
    let whole = store(&log_of(&[b"zero", b"one", b"two", b"three"])?);
    let second = 8 + u64::from_be_bytes(*whole.first_chunk().unwrap()) as usize;
    for bit in 0..64 {
        let mut flipped = whole.clone();
        flipped[second + bit / 8] ^= 0x80 >> (bit % 8);
        let files = store_alone(flipped.clone());
        let log = Log::open_on(files.clone(), options())?;
        let expected = [b"zero".as_slice(), b"", b"two", b"three"];
        for (offset, expected) in expected.into_iter().enumerate() {
            match log.read(Offset(offset as u64)) {
                Ok(record) => assert_eq!(record.value(), expected, "bit {bit}"),
                Err(Error::Corrupt {
                    offset: Offset(1),
                    segment: Offset(0),
                    position,
                    ..
                }) => {
                    assert_eq!(position, second as u64, "bit {bit}");
                }
                Err(e) => panic!("bit {bit}, offset {offset}: {e}"),
            }
        }
        assert!(!log.verify()?.is_sound(), "bit {bit}");
        assert_eq!(log.append("four")?, Offset(4), "bit {bit}");
        log.close()?;
        assert!(
            store(&files).starts_with(&flipped),
            "bit {bit}: bytes were cut off"
        );
    }
    Ok(())
}

#[test]
fn damage_at_the_end_of_a_closed_log_is_kept_and_appends_go_on_after_it() -> Result<()> {
    let files = log_of(&[b"zero", b"one", b"two"])?;
    let mut flipped = store(&files);
    let last = flipped.len() - 12;
    flipped[last] ^= 1;
    files.insert("0.store", flipped.clone());

    let log = Log::open_on(files.clone(), options())?;
    assert!(!log.recovery_report().is_sound());
    assert_eq!(log.append("three")?, Offset(3));
    assert!(matches!(
        log.read(Offset(2)),
        Err(Error::Corrupt {
            reason: Damaged::Checksum,
            ..
        })
    ));
    assert_eq!(log.read(Offset(3))?.value(), b"three");
    assert_eq!(log.scan(..).filter(Result::is_ok).count(), 3);
    // Left as by kill -9: the damage is still damage.
    std::mem::forget(log);
    assert_eq!(store(&files), flipped);
    let log = Log::open_on(files, options())?;
    assert_eq!(log.next_offset(), Offset(4));
    assert!(matches!(log.read(Offset(2)), Err(Error::Corrupt { .. })));
    Ok(())
}

#[test]
fn a_batch_with_a_hole_at_the_end_of_the_log_is_dropped_whole() -> Result<()> {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options())?;
    log.append("before")?;
    let start = log.segments()[0].store_bytes as usize;
    log.append_batch(["one", "two", "three"])?;
    std::mem::forget(log);
    let whole = store(&files);
    for hole in start..whole.len() {
        let mut holed = whole.clone();
        // As a sector that was not written. (A flipped bit in the last record's length would be told by
        // its checksum, and kept as damage.)
        let end = whole.len().min(hole + 16);
        holed[hole..end].fill(0);
        let log = Log::open_on(store_alone(holed), options())?;
        assert_eq!(values(&log), [Some(b"before".to_vec())], "hole at {hole}");
        assert!(log.recovery_report().is_sound(), "hole at {hole}");
    }
    Ok(())
}

#[test]
fn a_batch_with_a_hole_before_other_records_is_damage() -> Result<()> {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options())?;
    log.append_batch(["zero", "one", "two"])?;
    log.append("three")?;
    std::mem::forget(log);
    let mut holed = store(&files);
    holed[12] ^= 1;
    let log = Log::open_on(store_alone(holed), options())?;
    let held = [
        None,
        Some(b"one".to_vec()),
        Some(b"two".to_vec()),
        Some(b"three".to_vec()),
    ];
    assert_eq!(values(&log), held);
    assert!(!log.recovery_report().is_sound());
    Ok(())
}

#[test]
fn a_truncation_inside_a_batch_survives_a_crash() -> Result<()> {
    let disk = FaultBackend::new();
    let log = Log::open_on(disk.clone(), options())?;
    log.append("zero")?;
    log.append_batch(["one", "two", "three"])?;
    log.truncate_after(Offset(2))?;
    for seed in 0..20 {
        let log = Log::open_on(disk.power_cut(seed), options())?;
        assert_eq!(log.next_offset(), Offset(3));
        assert_eq!(log.read(Offset(2))?.value(), b"two");
        assert_eq!(log.append("instead")?, Offset(3));
        std::mem::forget(log);
    }
    Ok(())
}

#[test]
fn a_missing_segment_is_damage_and_the_others_read() -> Result<()> {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options().segment_bytes_max(40))?;
    for n in 0..6 {
        log.append(&[n; 10])?;
    }
    let middle = log.segments()[2].base;
    log.close()?;
    proglog::Backend::remove(&files, &format!("{middle}.store")).unwrap();

    let log = Log::open_on(files, options())?;
    assert!(matches!(
        log.read(middle),
        Err(Error::Corrupt { reason: Damaged::Missing, offset, .. }) if offset == middle
    ));
    assert_eq!(log.read(middle.next())?.value(), [middle.0 as u8 + 1; 10]);
    let found: Vec<_> = log.scan(..).collect();
    assert_eq!(found.iter().filter(|record| record.is_err()).count(), 1);
    assert!(!log.verify()?.is_sound());
    Ok(())
}

#[test]
fn records_with_other_offsets_are_never_cut_off() -> Result<()> {
    // The book's program, its index lost, gives offset 0 again.
    let mut bytes = Vec::new();
    for (offset, value) in [(0, b'a'), (1, b'b'), (0, b'c'), (1, b'd')] {
        let record: &[u8] = if offset == 0 {
            &[0x0a, 1, value]
        } else {
            &[0x0a, 1, value, 0x10, 1]
        };
        bytes.extend_from_slice(&(record.len() as u64).to_be_bytes());
        bytes.extend_from_slice(record);
    }
    let files = store_alone(bytes.clone());
    let log = Log::open_on(files.clone(), options())?;
    assert_eq!(log.read(Offset(1))?.value(), b"b");
    assert_eq!(log.append("new")?, Offset(4));
    assert!(matches!(
        log.read(Offset(2)),
        Err(Error::Corrupt {
            reason: Damaged::Misplaced,
            ..
        })
    ));
    log.close()?;
    assert_eq!(store(&files), bytes);
    Ok(())
}

#[test]
fn zeros_after_the_records_are_space_that_was_never_written() -> Result<()> {
    let mut bytes = store(&log_of(&[b"zero", b"one"])?);
    bytes.extend_from_slice(&[0; 5000]);
    let log = Log::open_on(store_alone(bytes), options())?;
    assert_eq!(log.next_offset(), Offset(2));
    assert!(
        log.recovery_report()
            .torn_tail()
            .is_some_and(|tail| tail.zeros && tail.bytes == 5000)
    );

    let log = Log::open_on(store_alone([0; 64]), options())?;
    assert_eq!(log.next_offset(), Offset(0), "zeros are no records");
    Ok(())
}

#[test]
fn eight_zeros_before_bad_bytes_are_no_record() -> Result<()> {
    // Alone or before another record they are the book's empty one. The index has the entry of offset 0.
    let mut bytes = vec![0; 8];
    bytes.extend_from_slice(&[0xff; 100]);
    let files = store_alone(bytes);
    files.insert("0.index", [0; 24]);
    let log = Log::open_read_only_on(files, options())?;
    assert_eq!(log.verify()?.records(), 0);
    assert!(matches!(log.read(Offset(0)), Err(Error::Corrupt { .. })));
    Ok(())
}

#[test]
fn no_bytes_make_recovery_slow() -> Result<()> {
    // At every position what may be a record that runs to the end: a search that believed each would
    // hash the rest for each.
    let mut crafted = vec![0xff; 8];
    let length = 4 << 20;
    while crafted.len() < length {
        let rest = (length - crafted.len() - 8) as u64;
        crafted.extend_from_slice(&rest.to_be_bytes());
        crafted.push(0x79);
    }
    crafted.truncate(length);
    crafted[length - 9] = 0x79;
    // And the book's, nested, with what may be a checksum at their ends.
    let mut nested = vec![0xff; 8];
    while nested.len() + 16 < length {
        let rest = (length - nested.len() - 8) as u64;
        nested.extend_from_slice(&rest.to_be_bytes());
        nested.push(0x0a);
        let mut value = rest - 5;
        while value >= 0x80 {
            nested.push(value as u8 | 0x80);
            value >>= 7;
        }
        nested.push(value as u8);
    }
    nested.resize(length, 0);
    nested[length - 9] = 0x79;
    // Sound records, each with another offset than expected.
    let other = log_of(&[b"x".as_slice(); 50_000])?;
    let misplaced = store(&other)[20..].repeat(4);
    for bytes in [crafted, nested, misplaced] {
        let started = Instant::now();
        let log = Log::open_on(store_alone(bytes), options())?;
        log.append("goes on")?;
        let took = started.elapsed();
        assert!(took < Duration::from_secs(10), "{took:?}");
        println!("{took:?}");
    }
    Ok(())
}

#[test]
fn a_length_without_bytes_allocates_nothing() -> Result<()> {
    for length in [u64::MAX, u64::MAX - 8, 1 << 62, 1 << 40, 1 << 30] {
        let mut bytes = store(&log_of(&[b"zero"])?);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(b"\x0a\x05hello");
        let log = Log::open_on(store_alone(bytes), options())?;
        assert_eq!(log.next_offset(), Offset(1));
    }
    Ok(())
}

#[test]
fn a_scan_gives_what_of_its_range_the_log_holds() -> Result<()> {
    let log = Log::open_on(MemoryBackend::new(), options().segment_bytes_max(60))?;
    for n in 0..10_u8 {
        log.append(&[n; 10])?;
    }
    log.truncate_before(Offset(4))?;
    let lowest = log.lowest_offset().0;
    assert!((1..=4).contains(&lowest));
    let offsets = |range: (std::ops::Bound<u64>, std::ops::Bound<u64>)| -> Vec<u64> {
        let range = (range.0.map(Offset), range.1.map(Offset));
        log.scan(range)
            .map(|record| record.map_or(u64::MAX, |record| record.offset().0))
            .collect()
    };
    use std::ops::Bound::{Excluded, Included, Unbounded};
    assert_eq!(
        offsets((Unbounded, Unbounded)),
        (lowest..10).collect::<Vec<_>>()
    );
    assert_eq!(offsets((Included(6), Excluded(8))), [6, 7]);
    assert_eq!(offsets((Excluded(6), Included(8))), [7, 8]);
    assert_eq!(offsets((Included(9), Included(u64::MAX))), [9]);
    assert_eq!(offsets((Included(8), Excluded(8))), []);
    assert_eq!(offsets((Included(10), Unbounded)), []);
    assert_eq!(offsets((Included(u64::MAX), Unbounded)), []);
    Ok(())
}

#[test]
fn headers_keys_and_times_come_back() -> Result<()> {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options())?;
    let headers = [
        proglog::Header::new("a", [0, 1]),
        proglog::Header::new("", []),
        proglog::Header::new("é", "x"),
    ];
    let record = NewRecord::new("value")
        .key("key")
        .headers(&headers)
        .timestamp_ms(77);
    log.append(record)?;
    log.close()?;
    let log = Log::open_on(files, options())?;
    let read = log.read(Offset(0))?;
    assert_eq!(
        (read.value(), read.key(), read.timestamp_ms()),
        (&b"value"[..], Some(&b"key"[..]), Some(77))
    );
    assert_eq!(
        read.headers()
            .map(proglog::Header::from)
            .collect::<Vec<_>>(),
        headers
    );
    Ok(())
}

#[test]
fn bytes_after_a_sealed_segment_take_nothing_from_the_next() -> Result<()> {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options().segment_bytes_max(40))?;
    log.append("zero, sealed with it alone")?;
    log.append("one, in the next")?;
    log.close()?;
    let mut longer = store(&files);
    longer.extend_from_slice(b"garbage");
    files.insert("0.store", longer.clone());
    let log = Log::open_on(files.clone(), options())?;
    assert_eq!(values(&log).iter().flatten().count(), 2);
    assert!(log.verify()?.is_sound());
    assert_eq!(
        log.verify()?.segments[0]
            .torn_tail
            .as_ref()
            .map(|tail| tail.bytes),
        Some(7)
    );
    log.close()?;
    assert_eq!(store(&files), longer);
    Ok(())
}

#[test]
fn records_of_two_segments_with_the_same_offsets_are_not_sound() -> Result<()> {
    let files = log_of(&[b"0", b"1", b"2", b"3", b"4", b"5"])?;
    let other = MemoryBackend::new();
    let log = Log::open_on(other.clone(), options().initial_offset(4))?;
    log.append_batch(["other 4", "other 5", "other 6"])?;
    log.close()?;
    for name in ["4.store", "4.index"] {
        files.insert(name, other.get(name).unwrap());
    }
    let log = Log::open_on(files.clone(), options())?;
    let damage: Vec<_> = log
        .verify()?
        .damage()
        .map(|d| (d.first.0, d.last.0))
        .collect();
    assert_eq!(damage, [(4, 5)]);
    let scanned: Vec<_> = log.scan(..).map(|record| record.unwrap()).collect();
    assert_eq!(scanned.len(), 7);
    for record in &scanned {
        assert_eq!(log.read(record.offset())?.value(), record.value());
    }
    assert_eq!(scanned[4].value(), b"other 4");
    assert_eq!(log.read_batch(Offset(3), 1 << 20)?.count(), 1);
    Ok(())
}

#[test]
fn a_hole_at_the_end_of_a_segment_takes_no_memory_for_what_it_may_have_held() -> Result<()> {
    let files = log_of(&[b"zero", b"one"])?;
    let mut bytes = store(&files);
    bytes.resize(bytes.len() + (8 << 20), 0);
    files.insert("0.store", bytes);
    files.insert("900000000.store", []);
    let log = Log::open_on(files.clone(), options())?;
    assert_eq!(log.next_offset(), Offset(900_000_000));
    assert!(matches!(log.read(Offset(2)), Err(Error::Corrupt { .. })));
    assert!(matches!(
        log.read(Offset(899_999_999)),
        Err(Error::Corrupt { .. })
    ));
    assert_eq!(log.scan(..).filter(Result::is_ok).count(), 2);
    log.close()?;
    assert!(files.get("0.index").unwrap().len() < 100_000);
    Ok(())
}

/// Frame by frame.
fn frames(store: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = store;
    let mut frames = Vec::new();
    while let Some(length) = rest.first_chunk() {
        let (frame, after) = rest.split_at(8 + u64::from_be_bytes(*length) as usize);
        frames.push(frame.to_vec());
        rest = after;
    }
    frames
}

#[test]
fn bytes_that_were_put_before_a_record_cost_no_record() -> Result<()> {
    let values: [&[u8]; 4] = [b"first", b"second", b"third", b"fourth"];
    let frames = frames(&store(&log_of(&values)?));
    for inserted in [&[0xa5; 7][..], &[0xff; 30], &[0; 21], b"x"] {
        for before in 0..frames.len() {
            let mut parts = frames.clone();
            parts.insert(before, inserted.to_vec());
            let files = store_alone(parts.concat());
            let log = Log::open_on(files.clone(), options())?;
            let found = self::values(&log);
            assert_eq!(found, values.map(|value| Some(value.to_vec())), "{before}");
            let report = log.verify()?;
            assert!(!report.is_sound());
            let damage: Vec<_> = report.damage().collect();
            assert_eq!(damage.len(), 1);
            let damage = damage[0];
            assert!(damage.bytes_only && damage.offsets() == 0, "{damage:?}");
            assert_eq!(damage.first, Offset(before as u64));
            assert_eq!(damage.bytes, inserted.len() as u64);
            log.close()?;
            let repair = Log::repair_on(files.clone(), options())?;
            assert_eq!(repair.offsets_lost(), 0);
            assert_eq!(repair.set_aside.len(), 1);
            assert_eq!(store(&files), frames.concat());
        }
    }
    Ok(())
}

/// Of a log whose values are frames of another with the same offsets, no damaged record is read as the one in its value.
#[test]
fn a_record_in_the_value_of_another_is_not_that() -> Result<()> {
    let inner = frames(&store(&log_of(&[b"in 0", b"in 1", b"in 2", b"in 3"])?));
    let values: Vec<&[u8]> = inner.iter().map(Vec::as_slice).collect();
    let whole = store(&log_of(&values)?);
    let outer = frames(&whole);
    for n in 0..outer.len() {
        let at: usize = outer[..n].iter().map(Vec::len).sum();
        for bytes in 1..16 {
            let mut store = whole.clone();
            store[at..at + bytes].fill(0xff);
            let log = Log::open_on(store_alone(store), options())?;
            for (offset, value) in values.iter().enumerate() {
                if let Ok(record) = log.read(Offset(offset as u64)) {
                    assert_eq!(record.value(), *value, "{bytes} of {n}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_wrong_entry_of_the_index_costs_no_record_after_a_damaged_one() -> Result<()> {
    let values: [&[u8]; 4] = [b"first", b"second", b"third", b"fourth"];
    let files = log_of(&values)?;
    let mut store = store(&files);
    let at = store.windows(6).position(|w| w == b"second").unwrap();
    store[at] ^= 1;
    let mut index = files.get("0.index").unwrap_or_default();
    // That of the third, and of none before the fourth's is it right.
    index[2 * 12 + 11] ^= 3;
    files.insert("0.store", store);
    files.insert("0.index", index);
    let log = Log::open_on(files, options())?;
    log.verify()?;
    let lost: Vec<_> = log.verify()?.damage().map(|d| (d.first, d.last)).collect();
    assert_eq!(lost, [(Offset(1), Offset(1))]);
    assert_eq!(log.read(Offset(2))?.value(), b"third");
    Ok(())
}
