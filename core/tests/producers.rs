//! Records of a producer are appended once, however often they are sent; others come where they are expected, or not.
#![cfg(not(target_family = "wasm"))]

use std::{ops::Range, thread, time::Duration};

use proglog::{
    AppendOptions, Backend, BackendFile, Clock, Compaction, Drafts, Durability, Error, Fault,
    FaultBackend, Log, MemoryBackend, NewRecord, Offset, Options, ProducerLast, Result,
};

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}

fn open(disk: &FaultBackend) -> Result<Log<FaultBackend>> {
    Log::open_on(disk.clone(), options())
}

fn record<'a>(id: &'a str, sequence: u64) -> NewRecord<'a> {
    NewRecord::new("value").producer(id, sequence)
}

fn batch<'a>(id: &'a str, sequences: &'a [u64]) -> impl Iterator<Item = NewRecord<'a>> {
    sequences.iter().map(move |&sequence| record(id, sequence))
}

fn offsets(range: Range<u64>) -> Range<Offset> {
    Offset(range.start)..Offset(range.end)
}

/// Which sequence, and at which offset.
fn last(last: Option<ProducerLast>) -> Option<(u64, u64)> {
    last.map(|last| (last.sequence, last.offset.0))
}

#[track_caller]
fn is_passed<T>(appended: Result<T>, last: (u64, u64)) {
    match appended {
        Err(Error::SequenceConflict {
            last_sequence,
            last_offset,
            ..
        }) => assert_eq!((last_sequence, last_offset.0), last),
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("it was appended"),
    }
}

#[track_caller]
fn is_refused<T>(appended: Result<T>) {
    assert!(matches!(appended, Err(Error::InvalidArgument(_))));
}

#[test]
fn a_record_says_whose_it_is() -> Result<()> {
    let log = open(&FaultBackend::new())?;
    log.append(record("a", 7).key("key"))?;
    log.append(record("b", 0))?;
    log.append(record("", 7))?;
    log.append(record(&"x".repeat(32), u64::MAX))?;
    let read = |offset| log.read(Offset(offset));
    let record = read(0)?;
    let producer = record.producer().expect("it was said");
    assert_eq!((producer.id, producer.sequence), (&b"a"[..], 7));
    assert_eq!(
        (record.key(), record.value()),
        (Some(&b"key"[..]), &b"value"[..])
    );
    assert_eq!(
        read(1)?.producer().map(|producer| producer.sequence),
        Some(0)
    );
    assert_eq!(read(2)?.producer(), None);
    assert_eq!(
        read(3)?.producer().map(|producer| producer.sequence),
        Some(u64::MAX)
    );
    assert!(format!("{record:?}").contains("producer"));
    is_refused(log.append(NewRecord::new("").producer(&[1; 33], 1)));
    is_refused(log.producer_last([1; 33]));
    is_refused(log.producer_last(""));
    Ok(())
}

#[test]
fn what_is_sent_again_gets_the_offset_that_it_got() -> Result<()> {
    let disk = FaultBackend::new();
    let log = open(&disk)?;
    for round in 0..3 {
        assert_eq!(log.append(record("a", 5))?, Offset(0), "{round}");
        assert_eq!(log.append_batch(batch("a", &[6, 9, 12]))?, offsets(1..4));
        // A gap, and someone with the same number.
        assert_eq!(log.append(record("a", 20))?, Offset(4));
        assert_eq!(log.append(record("b", 20))?, Offset(5));
    }
    assert_eq!(log.append("of no one")?, Offset(6));
    assert_eq!(log.append("of no one")?, Offset(7));
    assert_eq!(log.append_batch(batch("a", &[]))?, offsets(8..8));
    assert_eq!(log.next_offset(), Offset(8));
    assert_eq!(last(log.producer_last("a")?), Some((20, 4)));
    assert_eq!(last(log.producer_last("b")?), Some((20, 5)));
    assert_eq!(log.producer_last("c")?, None);
    // What is neither new nor what was appended.
    for sequences in [
        &[5, 6][..],
        &[6, 9],
        &[9, 12],
        &[4],
        &[19],
        &[6, 12],
        &[12, 20],
        &[20, 21],
    ] {
        is_passed(log.append_batch(batch("a", sequences)), (20, 4));
    }
    assert_eq!(log.next_offset(), Offset(8));

    // Nor does it matter how the log was stopped.
    for disk in [disk.killed(), disk.power_cut(1)] {
        let log = open(&disk)?;
        assert_eq!(log.append_batch(batch("a", &[6, 9, 12]))?, offsets(1..4));
        assert_eq!(log.append(record("b", 20))?, Offset(5));
        is_passed(log.append(record("a", 6)), (20, 4));
        assert_eq!(log.append(record("a", 21))?, Offset(8));
    }
    log.close()?;
    let log = open(&disk)?;
    assert_eq!(last(log.producer_last("a")?), Some((20, 4)));
    assert_eq!(log.append(record("a", 5))?, Offset(0));
    Ok(())
}

#[test]
fn what_was_appended_in_parts_is_known_as_a_whole() -> Result<()> {
    let log = open(&FaultBackend::new())?;
    for sequence in 1..=3 {
        log.append(record("a", sequence))?;
    }
    log.append_batch(batch("a", &[4, 5]))?;
    assert_eq!(
        log.append_batch(batch("a", &[1, 2, 3, 4, 5]))?,
        offsets(0..5)
    );
    assert_eq!(log.append_batch(batch("a", &[2, 3]))?, offsets(1..3));
    assert_eq!(log.append_batch(batch("a", &[3, 4, 5]))?, offsets(2..5));
    // Not as many, or some of a batch.
    is_passed(log.append_batch(batch("a", &[1, 3])), (5, 4));
    is_passed(log.append_batch(batch("a", &[3, 4])), (5, 4));
    is_passed(log.append(record("a", 4)), (5, 4));
    // With another's record between, they have no range of offsets.
    log.append("between")?;
    log.append(record("a", 6))?;
    is_passed(log.append_batch(batch("a", &[4, 5, 6])), (6, 6));
    assert_eq!(log.next_offset(), Offset(7));
    Ok(())
}

#[test]
fn a_batch_is_of_one_producer_in_order() -> Result<()> {
    let log = open(&FaultBackend::new())?;
    is_refused(log.append_batch([record("a", 1), record("b", 2)]));
    is_refused(log.append_batch([record("a", 1), NewRecord::new("x")]));
    is_refused(log.append_batch([NewRecord::new("x"), record("a", 1)]));
    is_refused(log.append_batch(batch("a", &[1, 1])));
    is_refused(log.append_batch(batch("a", &[2, 1])));
    // And is not remembered.
    assert_eq!(log.producer_last("a")?, None);
    assert_eq!(log.append_batch(batch("a", &[1, 2]))?, offsets(0..2));
    let large = vec![0; 17 << 20];
    let large = NewRecord::new(&large).producer("a", 3);
    assert!(matches!(log.append(large), Err(Error::TooLarge { .. })));
    assert_eq!(last(log.producer_last("a")?), Some((2, 1)));
    Ok(())
}

#[test]
fn sixteen_batches_of_a_producer_are_remembered() -> Result<()> {
    let disk = FaultBackend::new();
    let mut log = open(&disk)?;
    for sequence in 0..20 {
        log.append(record("a", sequence))?;
    }
    for _ in 0..2 {
        for sequence in 4..20 {
            assert_eq!(log.append(record("a", sequence))?, Offset(sequence));
        }
        for sequence in 0..4 {
            is_passed(log.append(record("a", sequence)), (19, 19));
        }
        // What is read again is what was known.
        drop(log);
        log = open(&disk)?;
    }
    Ok(())
}

#[test]
fn the_producers_are_remembered_that_appended_last() -> Result<()> {
    let disk = FaultBackend::new();
    let mut log = Log::open_on(disk.clone(), options().durability(Durability::Written))?;
    let ids: Vec<String> = (0..1025).map(|n| format!("producer {n}")).collect();
    for id in &ids[..1024] {
        log.append(record(id, 9))?;
    }
    // The first one is not the one who has not appended for longest.
    log.append(record(&ids[0], 10))?;
    log.append(record(&ids[1024], 9))?;
    for _ in 0..2 {
        assert_eq!(log.producer_last(&ids[1])?, None);
        for (n, id) in ids.iter().enumerate().skip(2) {
            let offset = if n == 1024 { 1025 } else { n as u64 };
            assert_eq!(last(log.producer_last(id)?), Some((9, offset)));
        }
        assert_eq!(last(log.producer_last(&ids[0])?), Some((10, 1024)));
        drop(log);
        log = open(&disk)?;
    }
    // Who is forgotten may begin anew, and then has not appended what came before.
    assert_eq!(log.append(record(&ids[1], 3))?, Offset(1026));
    drop(log);
    let log = open(&disk)?;
    assert_eq!(last(log.producer_last(&ids[1])?), Some((3, 1026)));
    is_passed(log.append(record(&ids[1], 2)), (3, 1026));
    assert_eq!(log.append(record(&ids[1], 9))?, Offset(1027));
    Ok(())
}

#[test]
fn what_stands_further_back_is_forgotten_once_the_log_is_opened_again() -> Result<()> {
    let files = MemoryBackend::new();
    let open = || Log::open_on(files.clone(), options().durability(Durability::Buffered));
    let log = open()?;
    log.append(record("a", 1))?;
    for _ in 0..9 {
        log.append_batch(vec![""; 111_111])?;
    }
    log.close()?;
    let log = open()?;
    assert_eq!(log.append(record("a", 1))?, Offset(0));
    log.append("one more")?;
    assert_eq!(log.append(record("a", 1))?, Offset(0));
    log.close()?;
    let log = open()?;
    assert_eq!(log.producer_last("a")?, None);
    assert_eq!(log.append(record("a", 1))?, Offset(1_000_001));
    Ok(())
}

/// Records are counted, and not the offsets that are left out between them.
#[test]
fn what_is_left_out_is_no_reason_to_forget() -> Result<()> {
    for left_out in [4096, 5000, 1 << 40] {
        let files = MemoryBackend::new();
        let open = || Log::open_on(files.clone(), options().durability(Durability::Buffered));
        let log = open()?;
        log.append_batch(batch("a", &[1, 2]))?;
        for _ in 0..300 {
            log.skip_to(log.next_offset().plus(left_out))?;
            log.append("of no one")?;
        }
        log.close()?;
        let log = open()?;
        assert_eq!(last(log.producer_last("a")?), Some((2, 1)), "{left_out}");
        assert_eq!(log.append_batch(batch("a", &[1, 2]))?, offsets(0..2));
    }
    Ok(())
}

/// What is read from the log is what was known before, whatever is not there any more.
#[test]
fn what_is_known_after_opening_is_what_was_known_before() -> Result<()> {
    let ids = ["a", "b", "c"];
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let disk = MemoryBackend::new();
        let options = || options().segment_bytes_max(400);
        let log = Log::open_on(disk.clone(), options())?;
        // Who knows nothing of producers before would have nothing to forget.
        assert_eq!(log.producer_last("a")?, None);
        let mut sent: Vec<(&str, Vec<u64>, Range<Offset>)> = Vec::new();
        for sequence in 0..rng.u64(10..60) {
            let id = ids[rng.usize(0..3)];
            let key = ["", "x", "y"][rng.usize(0..3)];
            match rng.u8(0..12) {
                0 => log.skip_to(log.next_offset().plus(rng.u64(1..9)))?,
                1 => log.skip_to(log.next_offset().plus([5000, 2_000_000][rng.usize(0..2)]))?,
                2 => drop(log.compact(&Compaction::new().tombstones_kept(Duration::ZERO))?),
                3 => drop(log.append(NewRecord::new("").key(key))?),
                _ => {
                    let sequences: Vec<u64> =
                        (0..rng.u64(1..4)).map(|n| sequence * 4 + n).collect();
                    let records = batch(id, &sequences).map(|record| record.key(key));
                    let offsets = log.append_batch(records)?;
                    sent.push((id, sequences, offsets));
                }
            }
        }
        let files = disk.list().unwrap();
        let copy = MemoryBackend::new();
        for name in files {
            copy.insert(&name, disk.get(&name).unwrap());
        }
        let again = Log::open_on(copy, options())?;
        for (id, log) in ids.iter().flat_map(|&id| [(id, &log), (id, &again)]) {
            let of_it: Vec<_> = sent.iter().rev().filter(|sent| sent.0 == id).collect();
            for (n, (_, sequences, offsets)) in of_it.iter().take(16).enumerate() {
                // It would not be appended.
                let nowhere = AppendOptions::new().expected_next_offset(Offset(u64::MAX));
                match log.append_batch_with(batch(id, sequences), nowhere) {
                    Ok(found) => assert_eq!(&found, offsets, "{seed}"),
                    // Unless a compaction removed some of it, which it does to none of what was last.
                    Err(Error::SequenceConflict { .. }) if n > 0 => {
                        let mut all = offsets.start.0..offsets.end.0;
                        assert!(all.any(|n| log.read(Offset(n)).is_err()), "{seed}");
                    }
                    Err(e) => panic!("{seed}: {e}"),
                }
            }
            let last_sent = of_it.first().map(|(_, sequences, offsets)| {
                let last = sequences.last().copied().unwrap_or_default();
                (last, offsets.end.0 - 1)
            });
            assert_eq!(last(log.producer_last(id)?), last_sent, "{seed}");
        }
    }
    Ok(())
}

#[test]
fn what_was_sent_before_is_as_durable_as_is_asked_now() -> Result<()> {
    let disk = FaultBackend::new();
    let log = open(&disk)?;
    let again = |options: AppendOptions| log.append_with(record("a", 1), options);
    again(Durability::Buffered.into())?;
    again(Durability::Buffered.into())?;
    assert_eq!(open(&disk.killed())?.next_offset(), Offset(0));
    again(Durability::Written.into())?;
    assert_eq!(open(&disk.killed())?.next_offset(), Offset(1));
    assert_eq!(log.durable_offset(), Offset(0));
    again(AppendOptions::new())?;
    assert_eq!(log.durable_offset(), Offset(1));
    assert_eq!(open(&disk.power_cut(0))?.next_offset(), Offset(1));

    // What a refusal tells of, and an answer, too.
    log.append_with(record("a", 5), Durability::Buffered)?;
    is_passed(log.append(record("a", 4)), (5, 1));
    assert_eq!(log.durable_offset(), Offset(2));
    log.append_with(record("a", 6), Durability::Buffered)?;
    assert_eq!(last(log.producer_last("a")?), Some((6, 2)));
    assert_eq!(log.durable_offset(), Offset(3));
    log.append_with("x", Durability::Buffered)?;
    let late = AppendOptions::new().expected_next_offset(Offset(3));
    assert!(matches!(
        log.append_with("y", late),
        Err(Error::Conflict { .. })
    ));
    assert_eq!(log.durable_offset(), Offset(4));

    // A log that was opened after a kill has it written, not synced.
    let killed = disk.killed();
    let log = Log::open_on(killed.clone(), options())?;
    log.append_with(record("b", 1), Durability::Written)?;
    let killed = killed.killed();
    let log = open(&killed)?;
    assert_eq!(log.append(record("b", 1))?, Offset(4));
    assert_eq!(log.durable_offset(), Offset(5));
    assert_eq!(open(&killed.power_cut(0))?.next_offset(), Offset(5));
    Ok(())
}

#[test]
fn an_append_that_failed_is_not_taken_for_one_that_is_there() -> Result<()> {
    for promise in [Durability::Synced, Durability::Written] {
        let disk = FaultBackend::new();
        let log = open(&disk)?;
        log.append(record("a", 1))?;
        disk.fail(disk.operations(), Fault::Error);
        let failed = log.append_with(record("a", 2), promise);
        assert!(matches!(failed, Err(Error::Io { .. })));
        // Also not if no more is asked for than may be there.
        for durability in [Durability::Synced, Durability::Buffered] {
            for sequence in [1, 2] {
                let refused = log.append_with(record("a", sequence), durability);
                assert!(matches!(refused, Err(Error::Poisoned { .. })));
            }
        }
        assert!(matches!(
            log.producer_last("a"),
            Err(Error::Poisoned { .. })
        ));
        drop(log);
        let log = open(&disk.power_cut(0))?;
        let next = log.next_offset();
        assert_eq!(log.append(record("a", 2))?, Offset(1));
        assert_eq!(log.next_offset(), Offset(2), "{next} before");
        assert_eq!(log.append(record("a", 1))?, Offset(0));
    }
    Ok(())
}

#[test]
fn what_is_truncated_was_not_appended() -> Result<()> {
    let disk = FaultBackend::new();
    let log = Log::open_on(disk.clone(), options().segment_bytes_max(100))?;
    for sequence in 1..=9 {
        log.append(record("a", sequence))?;
    }
    log.append(record("b", 1))?;
    log.truncate_after(Offset(4))?;
    assert_eq!(last(log.producer_last("a")?), Some((5, 4)));
    assert_eq!(log.producer_last("b")?, None);
    assert_eq!(log.append(record("a", 4))?, Offset(3));
    assert_eq!(log.append(record("a", 7))?, Offset(5));
    is_passed(log.append(record("a", 6)), (7, 5));
    // From the front it is forgotten once the log is opened again.
    log.truncate_before(Offset(6))?;
    assert_eq!(log.append(record("a", 7))?, Offset(5));
    log.close()?;
    let log = Log::open_on(disk, options().segment_bytes_max(100))?;
    assert_eq!(log.producer_last("a")?, None);
    assert_eq!(log.append(record("a", 7))?, Offset(6));
    log.reset()?;
    assert_eq!(log.producer_last("a")?, None);
    assert_eq!(log.append(record("a", 7))?, Offset(0));
    Ok(())
}

#[test]
fn half_a_batch_that_was_truncated_is_not_the_batch() -> Result<()> {
    let disk = FaultBackend::new();
    let log = open(&disk)?;
    log.append_batch(batch("a", &[1, 2, 3, 4]))?;
    log.truncate_after(Offset(1))?;
    is_passed(log.append_batch(batch("a", &[1, 2, 3, 4])), (2, 1));
    assert_eq!(log.append_batch(batch("a", &[3, 4]))?, offsets(2..4));
    assert_eq!(log.append_batch(batch("a", &[3, 4]))?, offsets(2..4));
    // Nor is what comes next a part of it, though it has as many records as are missing.
    drop(log);
    let log = open(&disk)?;
    assert_eq!(log.append_batch(batch("a", &[3, 4]))?, offsets(2..4));
    assert_eq!(log.append_batch(batch("a", &[1, 2]))?, offsets(0..2));
    Ok(())
}

#[test]
fn damaged_records_are_stepped_over() -> Result<()> {
    let disk = FaultBackend::new();
    let log = Log::open_on(disk.clone(), options().segment_bytes_max(400))?;
    for sequence in 0..40 {
        log.append(record("a", sequence))?;
    }
    log.append_batch(batch("b", &[1, 2, 3]))?;
    let damaged = [25, 26, 31, 36, 41].map(|offset| log.locate(Offset(offset)).unwrap());
    log.close()?;
    for place in damaged {
        let store = format!("{}.store", place.segment);
        let file = proglog::Backend::open(&disk, &store, proglog::Access::Write).unwrap();
        file.write_at(&[0xff], place.position + 12).unwrap();
    }
    let log = Log::open_on(disk, options().segment_bytes_max(400))?;
    assert!(log.read(Offset(31)).is_err());
    // 0 to 39, without four of them: the last 16.
    for sequence in [21, 24, 27, 30, 32, 35, 37, 39] {
        assert_eq!(log.append(record("a", sequence))?, Offset(sequence));
    }
    for sequence in [25, 26, 31, 36] {
        is_passed(log.append(record("a", sequence)), (39, 39));
    }
    is_passed(log.append(record("a", 19)), (39, 39));
    is_passed(log.append_batch(batch("b", &[1, 2, 3])), (3, 42));
    assert_eq!(log.append(record("b", 4))?, Offset(43));
    Ok(())
}

#[test]
fn a_missing_stretch_is_stepped_over_at_once() -> Result<()> {
    let disk = FaultBackend::new();
    for (initial_offset, sequence) in [(0, 1), (1 << 50, 2)] {
        let other = FaultBackend::new();
        let log = Log::open_on(other.clone(), options().initial_offset(initial_offset))?;
        log.append(record("a", sequence))?;
        log.close()?;
        for name in proglog::Backend::list(&other).unwrap() {
            let from = proglog::Backend::open(&other, &name, proglog::Access::Read).unwrap();
            let mut bytes = vec![0; usize::try_from(from.len().unwrap()).unwrap()];
            from.read_at(&mut bytes, 0).unwrap();
            let to = proglog::Backend::open(&disk, &name, proglog::Access::Create).unwrap();
            to.write_at(&bytes, 0).unwrap();
        }
    }
    let log = open(&disk)?;
    assert_eq!(log.append(record("a", 2))?, Offset(1 << 50));
    Ok(())
}

#[test]
fn bad_bytes_in_the_place_of_very_many_records_are_stepped_over_at_once() -> Result<()> {
    for initial_offset in [1000, 1_000_000, 1_000_001, 1 << 24, 1 << 32, 1 << 62] {
        let files = MemoryBackend::new();
        let log = Log::open_on(files.clone(), options().initial_offset(initial_offset))?;
        log.append(record("a", 1))?;
        log.close()?;
        let bad: Vec<u8> = (13..63).map(|n: u8| n.wrapping_mul(77)).collect();
        files.insert("0.store", bad);
        let log = Log::open_on(files, options())?;
        assert_eq!(log.lowest_offset(), Offset(0));
        assert_eq!(last(log.producer_last("a")?), Some((1, initial_offset)));
        assert_eq!(log.append(record("a", 1))?, Offset(initial_offset));
        assert_eq!(log.compact(&Compaction::new())?.records_removed, 0);
    }
    Ok(())
}

#[test]
fn an_append_comes_where_it_is_expected_or_not_at_all() -> Result<()> {
    let log = open(&FaultBackend::new())?;
    let at = |offset| AppendOptions::new().expected_next_offset(Offset(offset));
    assert_eq!(log.append_with("x", at(0))?, Offset(0));
    for expected in [0, 2, u64::MAX] {
        for appended in [
            log.append_with("y", at(expected)),
            log.append_batch_with(["y", "z"], at(expected))
                .map(|range| range.start),
            log.append_batch_with([""; 0], at(expected))
                .map(|range| range.start),
            log.append_with(record("a", 1), at(expected)),
        ] {
            match appended {
                Err(Error::Conflict {
                    expected: e,
                    next_offset,
                }) => {
                    assert_eq!((e, next_offset), (Offset(expected), Offset(1)));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(log.append_batch_with(["y", "z"], at(1))?, offsets(1..3));
    // What had landed is found before.
    assert_eq!(log.append_with(record("a", 1), at(3))?, Offset(3));
    assert_eq!(log.append_with(record("a", 1), at(3))?, Offset(3));
    is_passed(log.append_with(record("a", 0), at(3)), (1, 3));
    assert_eq!(log.next_offset(), Offset(4));
    Ok(())
}

#[test]
fn drafts_are_appended_once_and_where_they_are_expected() -> Result<()> {
    let disk = FaultBackend::new();
    let log = open(&disk)?;
    let append = |sequences: &[u64], first: u64, how: AppendOptions| {
        let records: Vec<_> = batch("a", sequences).collect();
        let drafts = Drafts::new(&records, Offset(first), &options()).unwrap();
        let mut bytes = vec![0; usize::try_from(drafts.bytes()).unwrap()];
        drafts.write(&mut bytes);
        log.append_drafts(&mut bytes, how)
    };
    let any = AppendOptions::new();
    // Laid out for where they come, and for elsewhere.
    for first in [0, 1 << 40] {
        assert_eq!(append(&[1, 2], first, any)?, offsets(0..2));
        assert_eq!(append(&[300], first, any)?, offsets(2..3));
        is_passed(append(&[3], first, any), (300, 2));
        let late = append(&[301], first, any.expected_next_offset(Offset(2)));
        assert!(matches!(late, Err(Error::Conflict { .. })));
    }
    for (first, sequence) in [(3, 400), (1 << 40, 401)] {
        let next = log.next_offset();
        let at = any.expected_next_offset(next);
        assert_eq!(append(&[sequence], first, at)?.start, next);
        assert_eq!(append(&[sequence], first, at)?.start, next);
    }
    is_refused(append(&[2, 1], 0, any));
    let producers: Vec<_> = log
        .scan(..)
        .map(|record| record.unwrap().producer().unwrap().sequence)
        .collect();
    assert_eq!(producers, [1, 2, 300, 400, 401]);
    // What is not as the log encodes it is refused: an id of no bytes, a number without an id.
    for fields in [&[0x52, 0][..], &[0x58, 1], &[0x52, 1, b'a', 0x58, 0]] {
        let length = fields.len() as u64 + 9;
        let mut draft = [&length.to_be_bytes()[..], fields, &[0x79; 9]].concat();
        is_refused(log.append_drafts(&mut draft, any));
    }
    Ok(())
}

#[test]
fn a_log_opened_read_only_tells_who_appended_what() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), options())?;
    log.append(record("a", 1))?;
    let reader = Log::open_read_only(directory.path(), options())?;
    assert_eq!(last(reader.producer_last("a")?), Some((1, 0)));
    log.append(record("a", 2))?;
    assert_eq!(last(reader.producer_last("a")?), Some((1, 0)));
    reader.refresh()?;
    assert_eq!(last(reader.producer_last("a")?), Some((2, 1)));
    assert!(matches!(
        reader.append(record("a", 2)),
        Err(Error::ReadOnly)
    ));
    Ok(())
}

/// Each producer has its own thread, and all of them share syncs. Then each sends all of it again.
#[test]
fn producers_append_at_once() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), options().segment_bytes_max(2000))?;
    let ids = ["a", "b", "c", "d"];
    let send = |id: &str| {
        (0..60)
            .map(|n| log.append(record(id, n)).unwrap())
            .collect::<Vec<_>>()
    };
    let sent: Vec<Vec<Offset>> = thread::scope(|scope| {
        let threads = ids.map(|id| scope.spawn(move || send(id)));
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(log.next_offset(), Offset(240));
    for (id, offsets) in ids.iter().zip(sent) {
        for (n, offset) in offsets.into_iter().enumerate() {
            let read = log.read(offset)?;
            let producer = read.producer().unwrap();
            assert_eq!((producer.id, producer.sequence), (id.as_bytes(), n as u64));
            match log.append(record(id, n as u64)) {
                Ok(again) => assert_eq!(again, offset),
                Err(Error::SequenceConflict {
                    last_sequence: 59, ..
                }) => assert!(n < 60 - 16),
                Err(e) => panic!("{e}"),
            }
        }
    }
    assert_eq!(log.next_offset(), Offset(240));
    Ok(())
}

/// The same is sent by two at once, also as the first that is appended: one of them appends it, both get its offset.
#[test]
fn one_of_two_who_send_the_same_appends_it() -> Result<()> {
    for durability in [Durability::Synced, Durability::Written] {
        let directory = tempfile::tempdir().unwrap();
        let options = options().segment_bytes_max(1000).durability(durability);
        let mut next = 0;
        for _ in 0..4 {
            let log = Log::open(directory.path(), options.clone())?;
            for n in next..next + 50 {
                let send = || {
                    log.append(record("a", n))
                        .map(|offset| (offset, log.next_offset()))
                };
                let sent = thread::scope(|scope| {
                    let threads = [(); 3].map(|()| scope.spawn(send));
                    threads.map(|thread| thread.join().unwrap().unwrap())
                });
                for (offset, next_offset) in sent {
                    assert_eq!(offset, Offset(n));
                    assert!(next_offset > offset, "it cannot be read yet");
                }
                assert_eq!(log.next_offset(), Offset(n + 1));
            }
            next += 50;
            log.close()?;
        }
    }
    Ok(())
}

/// Each thread appends where it read the end to be, and reads it again where another was faster.
#[test]
fn of_those_who_expect_the_same_one_appends() -> Result<()> {
    let log = open(&FaultBackend::new())?;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    loop {
                        let next = log.next_offset();
                        let here = AppendOptions::new().expected_next_offset(next);
                        match log.append_with(&next.to_string(), here) {
                            Ok(offset) => break assert_eq!(offset, next),
                            Err(Error::Conflict { next_offset, .. }) => {
                                assert!(next_offset > next);
                                // What was in the way can be read.
                                log.read(Offset(next_offset.0 - 1)).unwrap();
                            }
                            Err(e) => panic!("{e}"),
                        }
                    }
                }
            });
        }
    });
    assert_eq!(log.next_offset(), Offset(200));
    for record in log.scan(..) {
        let record = record?;
        assert_eq!(record.value(), record.offset().to_string().as_bytes());
    }
    Ok(())
}

#[test]
fn a_producer_is_found_before_and_after_what_is_not_there() {
    let disk = MemoryBackend::new();
    let options = Options::new().segment_bytes_max(300);
    let log = Log::open_on(disk.clone(), options.clone()).unwrap();
    let send = |log: &Log<MemoryBackend>, sequence: u64| {
        let value = format!("value {sequence}");
        log.append(NewRecord::new(&value).key("key").producer("a", sequence))
            .unwrap()
    };
    let offsets: Vec<_> = (1..=30).map(|sequence| send(&log, sequence)).collect();
    log.skip_to(Offset(1_000)).unwrap();
    let last = send(&log, 31);
    assert_eq!(last, Offset(1_000));
    assert!(
        log.compact(&proglog::Compaction::new())
            .unwrap()
            .records_removed
            > 0
    );
    log.close().unwrap();

    let log = Log::open_on(disk, options).unwrap();
    let next = log.next_offset();
    assert_eq!(send(&log, 31), last);
    assert_eq!(log.next_offset(), next);
    // What was compacted is not known any more, nor appended after what came later.
    let value = NewRecord::new("value 1").key("key").producer("a", 1);
    assert!(matches!(
        log.append(value),
        Err(Error::SequenceConflict {
            last_sequence: 31,
            ..
        })
    ));
    assert_eq!(log.next_offset(), next);
    assert_eq!(offsets.len(), 30);
}

#[test]
fn what_is_copied_is_appended_whatever_is_known() -> Result<()> {
    let disk = FaultBackend::new();
    let log = open(&disk)?;
    let copied = AppendOptions::new().copied();
    log.append(record("a", 5))?;
    assert_eq!(log.append(record("a", 5))?, Offset(0));
    assert_eq!(log.append_with(record("a", 5), copied)?, Offset(1));
    is_passed(log.append(record("a", 3)), (5, 1));
    assert_eq!(
        log.append_batch_with(batch("a", &[2, 3]), copied)?,
        offsets(2..4)
    );
    // By how it was appended last, as it is told when the log is opened again.
    assert_eq!(last(log.producer_last("a")?), Some((3, 3)));
    let again = Log::open_on(disk.killed(), options())?;
    assert_eq!(last(again.producer_last("a")?), Some((3, 3)));
    assert_eq!(log.append_batch(batch("a", &[2, 3]))?, offsets(2..4));
    assert_eq!(log.append(record("a", 5))?, Offset(4));
    let records = [record("a", 5)];
    let drafts = Drafts::new(&records, Offset(5), &options())?;
    let mut bytes = vec![0; usize::try_from(drafts.bytes()).unwrap()];
    drafts.write(&mut bytes);
    let appended = log.append_drafts(&mut bytes, copied)?;
    assert_eq!(appended, offsets(5..6));
    // Where it is expected all the same.
    let elsewhere = copied.expected_next_offset(Offset(0));
    let conflict = log.append_with(record("a", 5), elsewhere);
    assert!(matches!(conflict, Err(Error::Conflict { .. })));
    Ok(())
}

/// A compaction keeps what a producer appended last, whole, until it appended more.
#[test]
fn what_was_compacted_is_sent_again_in_vain() -> Result<()> {
    let disk = FaultBackend::new();
    let options = || options().segment_bytes_max(200);
    let log = Log::open_on(disk.clone(), options())?;
    let keyed = |id, sequence| record(id, sequence).key("key");
    log.append(keyed("a", 1))?;
    log.append_batch([keyed("a", 2), keyed("a", 3)])?;
    log.append(keyed("b", 7))?;
    for _ in 0..20 {
        log.append(NewRecord::new("later").key("key"))?;
    }
    let compaction = Compaction::new();
    log.compact(&compaction)?;
    assert!(matches!(log.read(Offset(0)), Err(Error::Gap { .. })));
    let next = log.next_offset();
    assert_eq!(log.append(keyed("a", 1))?, Offset(0));
    log.close()?;
    let log = Log::open_on(disk.clone(), options())?;
    // It finds no more than what was kept, which comes after it.
    is_passed(log.append(keyed("a", 1)), (3, 2));
    assert_eq!(
        log.append_batch([keyed("a", 2), keyed("a", 3)])?,
        offsets(1..3)
    );
    assert_eq!(log.append(keyed("b", 7))?, Offset(3));
    assert_eq!(log.next_offset(), next);
    // Once there is more of it, it goes.
    log.append(record("a", 4))?;
    log.compact(&compaction)?;
    assert!(matches!(log.read(Offset(2)), Err(Error::Gap { .. })));
    assert_eq!(log.read(Offset(3))?.value(), b"value");
    Ok(())
}

/// What is kept for its producer does not become its key's latest record.
#[test]
fn the_deletion_of_a_key_stays_while_a_record_of_it_does() -> Result<()> {
    let disk = FaultBackend::new();
    let log = Log::open_on(disk.clone(), options().segment_bytes_max(200))?;
    log.append(record("a", 1).key("key"))?;
    log.append(NewRecord::new("").key("key"))?;
    for _ in 0..20 {
        log.append("later")?;
    }
    let compaction = Compaction::new().tombstones_kept(Duration::ZERO);
    log.compact(&compaction)?;
    assert_eq!(log.append(record("a", 1).key("key"))?, Offset(0));
    assert_eq!(log.read(Offset(1))?.value(), b"");
    log.append(record("a", 2))?;
    log.compact(&compaction)?;
    for offset in [0, 1] {
        assert!(matches!(log.read(Offset(offset)), Err(Error::Gap { .. })));
    }
    Ok(())
}
