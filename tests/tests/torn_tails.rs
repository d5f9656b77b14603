//! What an unclean stop leaves at the end of the last store is cut off, whole batches at a time, and
//! nothing else is.

use std::process::ExitCode;

use proglog::{Clock, IndexState, NewRecord, Offset, Options};
use proglog_host::{ErrorKind, Mode};
use proglog_tests::{
    cases,
    schema::{ENTRY_BYTES, Fields, frames, index_of},
    script::assert_same_files,
    subject::{Files, Subject},
    trials,
};

fn main() -> ExitCode {
    trials::main(cases![
        every_length_of_the_last_store,
        every_length_of_the_last_store_then_zeros,
        a_torn_tail_without_an_index,
        a_torn_tail_is_left_alone_by_a_reader,
        records_without_checksums_before_a_torn_tail,
        bytes_after_the_last_record_are_a_torn_tail,
        a_frame_that_the_index_vouches_for_is_never_cut_off,
        a_sealed_store_is_never_cut,
    ])
}

/// The base of the last segment, after one that is sealed.
const BASE: u64 = 2;
/// The records of the last segment, batch by batch.
const BATCHES: [&[&str]; 5] = [
    &["alone"],
    &["one", "two", "three"],
    &[""],
    &["x", "y"],
    &["the last one"],
];

fn every_length_of_the_last_store(subject: &dyn Subject) {
    let store = last_store();
    for length in (0..=store.len()).step_by(step(subject)) {
        // An index lags, but never leads: none, some or all of the batches that are whole.
        let whole = usize::try_from(whole_batches(length).0).unwrap();
        for entries in [0, whole / 2, whole] {
            recovers(subject, &store[..length], entries, 0);
        }
    }
}

fn every_length_of_the_last_store_then_zeros(subject: &dyn Subject) {
    let store = last_store();
    for (length, zeros) in (0..=store.len())
        .step_by(2 * step(subject))
        .zip([1, 7, 8, 9, 500].into_iter().cycle())
    {
        recovers(subject, &store[..length], 0, zeros);
    }
}

/// Every length in memory. Syncs take their time on a disk: there some.
fn step(subject: &dyn Subject) -> usize {
    if subject.path().is_some() { 5 } else { 1 }
}

/// Opens the log whose last store has `bytes`, then `zeros` zeros, and an index of so many entries,
/// padded: it holds whole batches, and is clean from then on.
fn recovers(subject: &dyn Subject, bytes: &[u8], entries: usize, zeros: usize) {
    let what = format!("{} bytes, {zeros} zeros, {entries} entries", bytes.len());
    let store = last_store();
    write_sealed(subject);
    subject.write("2.store", &[bytes, &vec![0; zeros]].concat());
    subject.write(
        "2.index",
        &[&index_of(&store)[..entries * ENTRY_BYTES], &[0; 1024]].concat(),
    );

    let (records, kept) = whole_batches(bytes.len());
    let next = Offset(BASE + records);
    let log = subject.open(Mode::Write, options()).unwrap();
    assert_eq!(
        (log.lowest_offset().unwrap(), log.next_offset().unwrap()),
        (Offset(0), next),
        "{what}"
    );
    let report = log.recovery_report().unwrap();
    assert!(report.is_sound(), "{report:?}, {what}");
    let torn = report
        .torn_tail()
        .map(|torn| (torn.segment, torn.position, torn.bytes));
    let cut = bytes.len() + zeros - kept;
    assert_eq!(
        torn,
        (cut > 0).then_some((Offset(BASE), kept as u64, cut as u64)),
        "{what}"
    );
    for (value, offset) in BATCHES.concat().iter().zip(BASE..next.0) {
        assert_eq!(
            log.read(Offset(offset)).unwrap().value(),
            value.as_bytes(),
            "{what}"
        );
    }
    assert_eq!(
        log.read(next).unwrap_err().kind(),
        ErrorKind::OffsetOutOfRange,
        "{what}"
    );
    log.close().unwrap();

    let closed = subject.files();
    assert_eq!(closed["2.store"], store[..kept], "{what}");
    assert_eq!(closed["2.index"], index_of(&store[..kept]), "{what}");
    let log = subject.open(Mode::Write, options()).unwrap();
    assert_eq!(
        log.recovery_report().unwrap().torn_tail(),
        None,
        "a second opening cuts nothing, {what}"
    );
    log.close().unwrap();
    assert_same_files(&closed, &subject.files(), &what);

    let log = subject.open(Mode::Write, options()).unwrap();
    assert_eq!(
        log.append_batch(&[NewRecord::new("next")]).unwrap().start,
        next,
        "{what}"
    );
    log.close().unwrap();
    let grown = [&store[..kept], &Fields::new(next.0, "next").frame()].concat();
    assert_eq!(subject.files()["2.store"], grown, "{what}");
}

fn a_torn_tail_without_an_index(subject: &dyn Subject) {
    let store = last_store();
    let length = store.len() - 4;
    let (records, kept) = whole_batches(length);
    for index in [None, Some(&b"\0\0\0"[..])] {
        write_sealed(subject);
        subject.write("2.store", &store[..length]);
        if let Some(bytes) = index {
            subject.write("2.index", bytes);
        }
        let log = subject.open(Mode::Write, options()).unwrap();
        assert_eq!(log.next_offset().unwrap(), Offset(BASE + records));
        let report = log.recovery_report().unwrap();
        let expected = if index.is_some() {
            IndexState::Unfinished
        } else {
            IndexState::Missing
        };
        assert_eq!(report.segments.last().unwrap().index, expected);
        log.close().unwrap();
        assert_eq!(subject.files()["2.index"], index_of(&store[..kept]));
        subject.remove("2.index");
    }
}

fn a_torn_tail_is_left_alone_by_a_reader(subject: &dyn Subject) {
    let store = last_store();
    let length = store.len() - 1;
    let (records, kept) = whole_batches(length);
    write_sealed(subject);
    subject.write("2.store", &store[..length]);
    subject.write("2.index", &[0; 1024]);
    let before = subject.files();
    let log = subject.open(Mode::Read, options()).unwrap();
    assert_eq!(log.next_offset().unwrap(), Offset(BASE + records));
    assert_eq!(
        log.verify().unwrap().torn_tail().unwrap().position,
        kept as u64
    );
    let refused = log.append_batch(&[NewRecord::new("no")]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    log.close().unwrap();
    assert_same_files(&before, &subject.files(), "a reader changes nothing");
}

/// Without a checksum it is the record itself that says where it ends.
fn records_without_checksums_before_a_torn_tail(subject: &dyn Subject) {
    let values = ["first", "second", "third"];
    let frames: Vec<_> = (0..)
        .zip(values)
        .map(|(n, value)| Fields::new(n, value).book_frame())
        .collect();
    let tails: [&[u8]; 5] = [
        b"\0",
        &[0; 40],
        &[0xff; 40],
        &frames[1][..9],
        b"some text, but no frame",
    ];
    for records in 1..=values.len() {
        let store = frames[..records].concat();
        for (tail, padding) in tails.into_iter().flat_map(|tail| [(tail, 0), (tail, 100)]) {
            subject.write("0.store", &[&store, tail].concat());
            subject.write("0.index", &[index_of(&store), vec![0; padding]].concat());
            for mode in [Mode::Read, Mode::Write, Mode::Read] {
                let what = format!(
                    "{records} records, {mode:?}, padding {padding}, tail {}",
                    hex::encode(tail)
                );
                let log = subject.open(mode, options()).unwrap();
                assert_eq!(log.next_offset().unwrap(), Offset(records as u64), "{what}");
                for (offset, value) in (0..).zip(&values[..records]) {
                    let read = log
                        .read(Offset(offset))
                        .unwrap_or_else(|error| panic!("{error}; {what}"));
                    assert_eq!(read.value(), value.as_bytes(), "{what}");
                }
                log.close().unwrap();
            }
        }
    }
}

fn bytes_after_the_last_record_are_a_torn_tail(subject: &dyn Subject) {
    let store = last_store();
    let sector = vec![0xa5; 512];
    let halves = [&store[..10], &[0xff; 40]].concat();
    let tails: [&[u8]; 8] = [
        b"\0",
        b"\xff",
        &[0; 8],
        &[0xff; 8],
        b"not a frame at all, but text",
        &sector,
        &halves,
        &[1; 11],
    ];
    for tail in tails {
        write_sealed(subject);
        subject.write("2.store", &[&store[..], tail].concat());
        subject.write("2.index", &[index_of(&store), vec![0; 1024]].concat());
        let log = subject.open(Mode::Write, options()).unwrap();
        let torn = log.recovery_report().unwrap().torn_tail().cloned().unwrap();
        assert_eq!(
            (torn.position, torn.bytes),
            (store.len() as u64, tail.len() as u64)
        );
        assert_eq!(torn.zeros, tail.iter().all(|&byte| byte == 0), "{tail:x?}");
        log.close().unwrap();
        assert_eq!(subject.files()["2.store"], store, "{tail:x?}");
    }
}

/// Its record was on stable storage once: that it is not whole is damage, and told for ever.
fn a_frame_that_the_index_vouches_for_is_never_cut_off(subject: &dyn Subject) {
    let store = last_store();
    let last = frames(&store).last().unwrap();
    let next = Offset(BASE + BATCHES.concat().len() as u64);
    for cut in (1..last.len()).step_by(step(subject)) {
        let short = &store[..store.len() - cut];
        for padding in [0, 1000] {
            write_sealed(subject);
            subject.write("2.store", short);
            subject.write("2.index", &[index_of(&store), vec![0; padding]].concat());
            let log = subject.open(Mode::Write, options()).unwrap();
            assert_eq!(
                log.next_offset().unwrap(),
                next,
                "its offset is not given again, {cut} bytes cut"
            );
            let lost = log.read(Offset(next.0 - 1)).unwrap_err();
            assert_eq!(lost.kind(), ErrorKind::Corrupt, "{lost}");
            assert!(!log.verify().unwrap().is_sound());
            assert_eq!(
                log.append_batch(&[NewRecord::new("after")]).unwrap().start,
                next
            );
            log.close().unwrap();
            let files = subject.files();
            assert!(files["2.store"].starts_with(short), "nothing is cut off");
            let log = subject.open(Mode::Write, options()).unwrap();
            assert_eq!(log.read(next).unwrap().value(), b"after");
            assert_eq!(
                log.read(Offset(next.0 - 1)).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
            log.close().unwrap();
            for name in files.keys() {
                subject.remove(name);
            }
        }
    }
}

fn a_sealed_store_is_never_cut(subject: &dyn Subject) {
    let store = sealed_store();
    for length in (0..store.len()).step_by(step(subject)) {
        write_sealed(subject);
        subject.write("0.store", &store[..length]);
        subject.write("2.store", &last_store());
        let log = subject.open(Mode::Write, options()).unwrap();
        assert_eq!(
            log.next_offset().unwrap(),
            Offset(BASE + BATCHES.concat().len() as u64)
        );
        let whole = whole_records(&store[..length]) as u64;
        for offset in 0..BASE {
            let read = log.read(Offset(offset));
            assert_eq!(
                read.err().map(|e| e.kind()),
                (offset >= whole).then_some(ErrorKind::Corrupt),
                "{offset} of {length} bytes"
            );
        }
        let lost: Vec<_> = log
            .verify()
            .unwrap()
            .damage()
            .flat_map(|d| d.first.0..=d.last.0)
            .collect();
        assert_eq!(lost, (whole..BASE).collect::<Vec<_>>(), "{length} bytes");
        log.close().unwrap();
        assert_eq!(subject.files()["0.store"], store[..length]);
    }
}

fn sealed_store() -> Vec<u8> {
    (0..BASE)
        .flat_map(|offset| Fields::new(offset, "sealed").frame())
        .collect()
}

fn write_sealed(subject: &dyn Subject) {
    let store = sealed_store();
    let files = Files::from([
        ("0.index".into(), index_of(&store)),
        ("0.store".into(), store),
    ]);
    for (name, bytes) in files {
        subject.write(&name, &bytes);
    }
}

fn last_store() -> Vec<u8> {
    let mut store = Vec::new();
    let mut offset = BASE;
    for batch in BATCHES {
        for (n, value) in batch.iter().enumerate() {
            store.extend(Fields::new(offset, *value).in_batch(n, batch.len()).frame());
            offset += 1;
        }
    }
    store
}

/// How many records a store of so many bytes has in batches that are whole, and how many bytes those.
fn whole_batches(length: usize) -> (u64, usize) {
    let store = last_store();
    let mut frames = frames(&store);
    let (mut records, mut bytes) = (0, 0);
    for batch in BATCHES {
        let more: usize = frames.by_ref().take(batch.len()).map(<[u8]>::len).sum();
        if bytes + more > length {
            break;
        }
        bytes += more;
        records += batch.len() as u64;
    }
    (records, bytes)
}

fn whole_records(bytes: &[u8]) -> usize {
    let (mut records, mut position) = (0, 0);
    while let Some(length) = bytes
        .get(position..)
        .and_then(|rest| rest.first_chunk::<8>())
    {
        position += 8 + usize::try_from(u64::from_be_bytes(*length)).unwrap();
        records += usize::from(position <= bytes.len());
    }
    records
}

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}
