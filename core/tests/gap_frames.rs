//! Frames that tell of offsets that are not there: what is right is read right, what is not is bad bytes, and nothing
//! that they say costs more than they may.
#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

use std::{collections::BTreeMap, time::Instant};

use proglog::{
    Backend, Clock, Error, Gap, GapCause, Log, MemoryBackend, NewRecord, Offset, Options, Result,
};
use twox_hash::XxHash3_64;

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}

fn number(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// A frame of these fields, its length and its checksum right.
fn framed(fields: &[u8]) -> Vec<u8> {
    let mut frame = (fields.len() as u64 + 9).to_be_bytes().to_vec();
    frame.extend_from_slice(fields);
    let checksum = XxHash3_64::oneshot(&frame);
    frame.push(0x79);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame
}

/// A frame that tells of `records` offsets up to `last`.
fn gap(last: u64, records: u64, cause: u64) -> Vec<u8> {
    let mut fields = Vec::new();
    for (tag, field) in [(0x10, last), (0x60, records), (0x68, cause)] {
        if field != 0 {
            fields.push(tag);
            number(field, &mut fields);
        }
    }
    framed(&fields)
}

fn record(offset: u64) -> Vec<u8> {
    record_of(offset, 0, 0)
}

fn record_of(offset: u64, remaining: u8, records: u8) -> Vec<u8> {
    let value = value(offset);
    let mut fields = vec![0x0a, value.len() as u8];
    fields.extend_from_slice(&value);
    for (tag, field) in [
        (0x10, offset),
        (0x40, remaining.into()),
        (0x48, records.into()),
    ] {
        if field != 0 {
            fields.push(tag);
            number(field, &mut fields);
        }
    }
    framed(&fields)
}

fn value(offset: u64) -> Vec<u8> {
    format!("record {offset}").into_bytes()
}

/// Segments that tell of gaps of every cause, and the offsets of their records.
fn stores() -> (BTreeMap<u64, Vec<Vec<u8>>>, Vec<u64>) {
    let stores = [
        (
            0,
            vec![
                gap(1, 2, 1),
                record(2),
                record(3),
                gap(200, 197, 1),
                record(201),
                gap(202, 1, 2),
                gap(204, 2, 3),
                record(205),
                gap(209, 4, 9),
            ],
        ),
        (219, vec![gap(219, 10, 3), record(220), record(221)]),
        (222, vec![gap(225, 4, 1), gap(226, 1, 2)]),
        (227, vec![record(227), gap(230, 3, 1), record(231)]),
    ];
    let records = vec![2, 3, 201, 205, 220, 221, 227, 231];
    (stores.into(), records)
}

fn files(stores: &BTreeMap<u64, Vec<Vec<u8>>>) -> MemoryBackend {
    let files = MemoryBackend::new();
    for (base, frames) in stores {
        files.insert(format!("{base}.store"), frames.concat());
    }
    files
}

fn copy(files: &MemoryBackend) -> MemoryBackend {
    let copy = MemoryBackend::new();
    for name in files.list().unwrap() {
        copy.insert(name.clone(), files.get(&name).unwrap());
    }
    copy
}

/// As [`files`], with indexes, as a log that was closed leaves them.
fn closed(stores: &BTreeMap<u64, Vec<Vec<u8>>>) -> Result<MemoryBackend> {
    let files = files(stores);
    for &base in stores.keys() {
        // Each as the last one, so that its index is made.
        let alone = MemoryBackend::new();
        let name = |what| format!("{base}.{what}");
        alone.insert(name("store"), files.get(&name("store")).unwrap());
        let log = Log::open_on(alone.clone(), options())?;
        log.scan(..).count();
        log.close()?;
        files.insert(name("index"), alone.get(&name("index")).unwrap());
    }
    Ok(files)
}

/// What each offset gives: its value, or why there is none.
fn held<B: Backend>(log: &Log<B>) -> BTreeMap<u64, Result<Vec<u8>, Error>> {
    (log.lowest_offset().0..log.next_offset().0)
        .map(|offset| {
            let read = log.read(Offset(offset));
            (offset, read.map(|record| record.value().to_vec()))
        })
        .collect()
}

#[test]
fn what_is_there_is_read_in_every_way() -> Result<()> {
    let (stores, records) = stores();
    for files in [files(&stores), closed(&stores)?] {
        let before = copy(&files);
        for again in 0..3 {
            let log = Log::open_on(files.clone(), options())?;
            let what = format!("{again}: {:?}", log.recovery_report());
            assert_eq!(log.lowest_offset(), Offset(0));
            assert_eq!(log.next_offset(), Offset(232), "{what}");
            for (offset, read) in held(&log) {
                match read {
                    Ok(read) => assert_eq!(read, value(offset)),
                    Err(Error::Gap { first, next, .. }) => {
                        assert!((first..next).contains(&Offset(offset)));
                        assert!(!records.contains(&offset));
                        let place = log.locate(Offset(offset))?;
                        assert_eq!(place.gap.map(|gap| gap.first), Some(first));
                    }
                    Err(e) => panic!("{offset}: {e}, {what}"),
                }
                // From here on in batches of any size.
                let expected: Vec<_> = records.iter().copied().filter(|&n| n >= offset).collect();
                for bytes_max in [1, 60, 1 << 20] {
                    let (mut read, mut next) = (Vec::new(), Offset(offset));
                    loop {
                        let mut batch = log.read_batch(next, bytes_max)?.peekable();
                        if batch.peek().is_none() {
                            break;
                        }
                        let mut buffer = Vec::new();
                        let bytes = log.read_batch_into(next, bytes_max, &mut buffer)?;
                        assert_eq!(
                            &buffer[..bytes],
                            log.read_batch(next, bytes_max)?.as_bytes()
                        );
                        for record in batch {
                            let record = record.unwrap();
                            next = record.offset().next();
                            read.push(record.offset().0);
                        }
                    }
                    assert_eq!(read, expected, "from {offset}, {bytes_max} bytes");
                }
                let scanned = log.scan(Offset(offset)..).map(|r| r.unwrap().offset().0);
                assert!(scanned.eq(expected.iter().copied()), "from {offset}");
                let up_to = log.scan(..Offset(offset)).map(|r| r.unwrap().offset().0);
                assert!(up_to.eq(records.iter().copied().filter(|&n| n < offset)));
                let backward = log
                    .scan(Offset(offset)..)
                    .rev()
                    .map(|r| r.unwrap().offset().0);
                assert!(backward.eq(expected.iter().rev().copied()), "from {offset}");
            }
            let mut borrowed = log.scan(..);
            let mut count = 0;
            while let Some(record) = borrowed.next_borrowed() {
                assert_eq!(record?.offset().0, records[count]);
                count += 1;
            }
            assert_eq!(count, records.len());
            let report = log.verify()?;
            assert!(report.is_sound(), "{report:?}");
            let gaps = report.gaps();
            assert_eq!(
                (gaps.compacted, gaps.lost, gaps.skipped, gaps.other),
                (2 + 197 + 4 + 3, 2, 12, 4)
            );
            let lost: Vec<_> = gaps.lost_stretches.iter().map(|gap| gap.first.0).collect();
            assert_eq!(lost, [202, 226]);
            assert_eq!(report.records(), records.len() as u64);
            for base in stores.keys() {
                let name = format!("{base}.store");
                assert_eq!(files.get(&name), before.get(&name));
            }
            drop(log);
        }
        let log = Log::open_on(files, options())?;
        assert_eq!(log.append("more")?, Offset(232));
        assert_eq!(log.scan(..).count(), records.len() + 1);
    }
    Ok(())
}

/// No bit of them changes what is read without that being told, and none costs more than the frame it is in.
#[test]
fn every_flipped_bit_is_seen() -> Result<()> {
    let (stores, records) = stores();
    let with_index = closed(&stores)?;
    let without = files(&stores);
    for (base, frames) in &stores {
        let name = format!("{base}.store");
        let mut at = 0;
        for (number, frame) in frames.iter().enumerate() {
            for bit in 0..8 * frame.len() {
                for files in [&with_index, &without] {
                    let files = copy(files);
                    let mut store = files.get(&name).unwrap();
                    store[at + bit / 8] ^= 1 << (bit % 8);
                    files.insert(name.clone(), store);
                    let what = format!("{name}, frame {number}, bit {bit}");
                    flipped_bit_is_seen(&files, &records, &what)?;
                }
            }
            at += frame.len();
        }
    }
    Ok(())
}

fn flipped_bit_is_seen(files: &MemoryBackend, records: &[u64], what: &str) -> Result<()> {
    let log = Log::open_read_only_on(files.clone(), options())?;
    let report = log.verify()?;
    let opened = log.recovery_report();
    let torn = report.torn_tail().or(opened.torn_tail());
    assert!(!report.is_sound() || torn.is_some(), "{what}: {report:?}");
    let mut lost = 0;
    for (offset, read) in held(&log) {
        match read {
            Ok(read) => {
                assert_eq!(read, value(offset), "{what}");
                assert!(records.contains(&offset), "{what}: {offset}");
            }
            Err(Error::Gap { .. }) => assert!(!records.contains(&offset), "{what}: {offset}"),
            Err(Error::Corrupt { .. }) => lost += u64::from(records.contains(&offset)),
            Err(e) => panic!("{what}: {e}"),
        }
    }
    let next = log.next_offset().0;
    lost += records.iter().filter(|&&offset| offset >= next).count() as u64;
    assert!(lost <= 1, "{what}: {lost} records are lost: {report:?}");
    let scanned = log.scan(..).filter_map(Result::ok).count();
    assert_eq!(scanned, records.len() - lost as usize, "{what}");
    drop(log);
    // To write, twice.
    for _ in 0..2 {
        let log = Log::open_on(files.clone(), options())?;
        let offset = log.append(NewRecord::new("more"))?;
        assert_eq!(log.read(offset)?.value(), b"more", "{what}");
        let scanned = log.scan(..).filter_map(Result::ok);
        let sound = scanned.filter(|record| record.value() != b"more").count();
        assert!(sound >= records.len() - 1, "{what}: {sound} are left");
        log.close()?;
    }
    Ok(())
}

/// Crafted frames in the middle of a segment, and as the first of one.
#[test]
fn what_is_out_of_place_is_damage() -> Result<()> {
    let max = u64::MAX;
    let with_value = {
        let mut fields = vec![0x0a, 1, b'v'];
        fields.extend_from_slice(&[0x10, 3, 0x60, 2, 0x68, 1]);
        framed(&fields)
    };
    let unchecked = {
        let fields = [0x10, 3, 0x60, 2, 0x68, 1];
        [&(fields.len() as u64).to_be_bytes()[..], &fields].concat()
    };
    let bad = [
        ("of no offset", framed(&[0x10, 3, 0x60, 0, 0x68, 1])),
        ("of none, left out", framed(&[0x10, 3, 0x68, 1])),
        ("that begins earlier", gap(3, 3, 1)),
        ("that begins later", gap(3, 1, 1)),
        ("that begins before 0", framed(&[0x10, 3, 0x60, 9, 0x68, 1])),
        ("of the last number there is", gap(max, max - 1, 1)),
        ("of all but that", gap(max - 1, max - 2, 1)),
        (
            "of more than a segment has",
            gap((1 << 24) + 2, (1 << 24) + 1, 1),
        ),
        ("of 2^32 and more", gap((1 << 33) + 1, 1 << 33, 1)),
        ("with a value", with_value),
        ("without a checksum", unchecked),
    ];
    for (what, frame) in bad {
        let started = Instant::now();
        // In the last segment, and in one that another follows.
        for next in [None, Some(7)] {
            let store = [record(0), record(1), frame.clone(), record(4), record(5)].concat();
            let files = MemoryBackend::new();
            files.insert("0.store", store);
            if let Some(next) = next {
                files.insert(format!("{next}.store"), record(next));
            }
            let log = Log::open_read_only_on(files, options())?;
            let report = log.verify()?;
            assert!(!report.is_sound(), "a gap {what}: {report:?}");
            for offset in [0, 1, 4, 5] {
                let read = log.read(Offset(offset));
                assert!(read.is_ok(), "a gap {what}: {offset} {report:?}");
                assert_eq!(read?.value(), value(offset), "a gap {what}");
            }
            assert!(
                matches!(log.read(Offset(2)), Err(Error::Corrupt { .. })),
                "a gap {what}"
            );
        }
        assert!(started.elapsed().as_secs() < 5, "a gap {what}");
    }
    // As the first frame of a segment.
    let firsts = [
        ("that ends early", gap(8, 4, 3)),
        ("that ends right before it", gap(9, 5, 3)),
        ("that is not of its base", gap(12, 2, 3)),
        (
            "of more than a segment has",
            gap((1 << 24) + 11, (1 << 24) + 5, 3),
        ),
    ];
    for (what, frame) in firsts {
        let files = MemoryBackend::new();
        files.insert("0.store", [record(0), record(1)].concat());
        files.insert("10.store", [frame, record(11), record(12)].concat());
        let log = Log::open_read_only_on(files, options())?;
        assert!(!log.verify()?.is_sound(), "a gap {what}");
        for offset in [0, 1, 11, 12] {
            let read = log.read(Offset(offset));
            assert_eq!(read?.value(), value(offset), "a gap {what}");
        }
        for offset in [5, 10] {
            let read = log.read(Offset(offset));
            assert!(
                matches!(read, Err(Error::Corrupt { .. })),
                "a gap {what}: {offset} {read:?}"
            );
        }
    }
    // What begins before the base and is not first counts for nothing.
    let files = MemoryBackend::new();
    files.insert("10.store", [record(10), gap(12, 4, 1), record(13)].concat());
    let log = Log::open_read_only_on(files, options())?;
    assert!(!log.verify()?.is_sound());
    assert_eq!(log.read(Offset(13))?.value(), value(13));
    Ok(())
}

/// A gap that goes on to where the next segment has records takes none of them.
#[test]
fn a_gap_over_the_next_segment_is_damage() -> Result<()> {
    let files = MemoryBackend::new();
    files.insert("0.store", [record(0), gap(9, 9, 1)].concat());
    files.insert("5.store", [record(5), record(6)].concat());
    let log = Log::open_on(files, options())?;
    assert!(!log.verify()?.is_sound());
    assert_eq!(log.read(Offset(5))?.value(), value(5));
    assert_eq!(log.scan(..).filter(Result::is_ok).count(), 3);
    Ok(())
}

#[test]
fn many_gaps_cost_no_more_than_their_bytes() -> Result<()> {
    const GAPS: u64 = 200_000;
    let mut store = Vec::new();
    for n in 0..GAPS {
        store.extend(gap(n, 1, 1));
    }
    store.extend(record(GAPS));
    let files = MemoryBackend::new();
    files.insert("0.store", store.clone());
    let started = Instant::now();
    let log = Log::open_on(files.clone(), options().index_bytes_max(12 << 20))?;
    assert_eq!(log.scan(..).count(), 1);
    assert_eq!(log.scan(..).rev().count(), 1);
    assert_eq!(log.read_batch(Offset(0), 1)?.count(), 1);
    log.close()?;
    // The largest that fits, without an index and then with one.
    files.insert(
        "0.store",
        [record(0), gap((1 << 24) - 1, (1 << 24) - 1, 2)].concat(),
    );
    files.remove("0.index").unwrap();
    let log = Log::open_on(files.clone(), options())?;
    assert_eq!(log.next_offset(), Offset(1 << 24));
    assert!(log.verify()?.is_sound());
    log.close()?;
    println!("{:?}", started.elapsed());
    assert!(started.elapsed().as_secs() < 60);
    Ok(())
}

/// A damaged gap of many offsets is told from the record after it by the index, or by what one bit makes of it.
#[test]
fn what_comes_after_a_damaged_gap_is_found() -> Result<()> {
    const MANY: u64 = 3_000_000;
    let frames = [record(0), gap(MANY, MANY, 1), record(MANY + 1)];
    let last = vec![record(MANY + 2)];
    let stores = [(0, frames.to_vec()), (MANY + 2, last)].into();
    for (files, bits) in [
        (closed(&stores)?, &[1_u8, 0xff][..]),
        (files(&stores), &[1]),
    ] {
        for flip in bits {
            let files = copy(&files);
            let mut store = files.get("0.store").unwrap();
            store[frames[0].len() + 12] ^= flip;
            files.insert("0.store", store);
            let log = Log::open_read_only_on(files, options())?;
            assert_eq!(log.read(Offset(MANY + 1))?.value(), value(MANY + 1));
            assert!(matches!(log.read(Offset(5)), Err(Error::Corrupt { .. })));
            let damage = log.verify()?;
            let damage: Vec<_> = damage.damage().map(|d| (d.first.0, d.last.0)).collect();
            assert_eq!(damage, [(1, MANY)]);
        }
    }
    Ok(())
}

#[test]
fn a_batch_is_whole_without_what_was_compacted() -> Result<()> {
    let cases: [(&str, Vec<Vec<u8>>, u64); 6] = [
        (
            "whole",
            vec![record_of(0, 2, 0), record_of(1, 1, 0), record_of(2, 0, 3)],
            3,
        ),
        (
            "its middle",
            vec![record_of(0, 2, 0), gap(1, 1, 1), record_of(2, 0, 3)],
            3,
        ),
        ("its end", vec![record_of(0, 2, 0), gap(2, 2, 1)], 3),
        (
            "its end and more",
            vec![record_of(0, 2, 0), gap(4, 4, 1), record(5)],
            6,
        ),
        ("its beginning", vec![gap(1, 2, 1), record_of(2, 0, 3)], 3),
        ("not its end", vec![record_of(0, 2, 0), gap(1, 1, 1)], 0),
    ];
    for (what, frames, next) in cases {
        let files = MemoryBackend::new();
        files.insert("0.store", frames.concat());
        for _ in 0..2 {
            let log = Log::open_on(files.clone(), options())?;
            assert_eq!(log.next_offset(), Offset(next), "{what}");
            assert!(log.verify()?.is_sound(), "{what}");
        }
        let log = Log::open_on(files, options())?;
        assert_eq!(log.append("more")?, Offset(next), "{what}");
    }
    Ok(())
}

/// A segment that was closed takes appends if the batch at its end is whole without what is not there; else a crash would
/// drop it with them.
#[test]
fn appends_go_on_behind_a_batch_that_is_whole_without_its_end() -> Result<()> {
    for (following, gone, takes_appends) in [
        (0, 0, true),
        (1, 1, true),
        (2, 2, true),
        (2, 5, true),
        (1, 0, false),
        (2, 1, false),
        (9, 8, false),
    ] {
        let mut frames = vec![record(0), record_of(1, following, 0)];
        let mut entries = vec![0, frames[0].len()];
        if gone > 0 {
            entries.extend(vec![frames.concat().len(); gone]);
            frames.push(gap(1 + gone as u64, gone as u64, 1));
        }
        let index = entries.iter().zip(0_u32..).flat_map(|(&position, n)| {
            let position = (position as u64).to_be_bytes();
            n.to_be_bytes().into_iter().chain(position)
        });
        let files = MemoryBackend::new();
        files.insert("0.store", frames.concat());
        files.insert("0.index", index.collect::<Vec<_>>());
        let what = format!("{following} follow, {gone} are not there");
        let log = Log::open_on(files, options())?;
        assert!(log.recovery_report().segments.is_empty(), "{what}");
        let next = Offset(2 + gone as u64);
        assert_eq!(log.append("more")?, next, "{what}");
        let last = log.segments().last().map(|segment| segment.base);
        let expected = if takes_appends { Offset(0) } else { next };
        assert_eq!(last, Some(expected), "{what}");
    }
    Ok(())
}

#[test]
fn truncating_anywhere_keeps_what_stands_before() -> Result<()> {
    let (stores, records) = stores();
    let closed = closed(&stores)?;
    for last in 0..231 {
        let files = copy(&closed);
        let log = Log::open_on(files.clone(), options())?;
        let before = held(&log);
        log.truncate_after(Offset(last))?;
        for again in 0..2 {
            let opened = Log::open_on(copy(&files), options())?;
            let log = if again == 0 { &log } else { &opened };
            assert_eq!(log.next_offset(), Offset(last + 1), "after {last}");
            let report = log.verify()?;
            assert!(report.is_sound(), "after {last}: {report:?}");
            for (offset, read) in held(log) {
                match (&before[&offset], read) {
                    (Ok(before), Ok(now)) => assert_eq!(*before, now, "after {last}"),
                    (Err(Error::Gap { cause, .. }), Err(Error::Gap { cause: now, .. })) => {
                        assert_eq!(*cause, now, "after {last}: {offset}");
                    }
                    (before, now) => panic!("after {last}: {offset} {before:?} {now:?}"),
                }
            }
        }
        assert_eq!(log.append("more")?, Offset(last + 1));
        log.append("and more")?;
        log.close()?;
        let log = Log::open_on(files, options())?;
        assert!(log.verify()?.is_sound(), "after {last}");
        let kept = records.iter().filter(|&&offset| offset <= last).count();
        assert_eq!(
            log.scan(..).map(Result::unwrap).count(),
            kept + 2,
            "after {last}"
        );
    }
    Ok(())
}

#[test]
fn the_message_says_why_and_where_to_go_on() -> Result<()> {
    let (stores, _) = stores();
    let log = Log::open_on(files(&stores), options())?;
    let message = |offset| log.read(Offset(offset)).unwrap_err().to_string();
    assert_eq!(
        message(7),
        "offset 7 was compacted: a later record has its key, or deleted it; go on at 201"
    );
    assert_eq!(
        message(202),
        "offset 202 was lost: its record was damaged and has been given up; go on at 203"
    );
    let gap = Gap::of(Offset(205)..=Offset(205), GapCause::Lost);
    assert_eq!(gap.map(|gap| gap.offsets()), Some(1));
    Ok(())
}
