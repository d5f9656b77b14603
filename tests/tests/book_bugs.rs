//! The bugs of the book's program, each one as a test that it is not here.

use std::{fs, process::ExitCode};

use proglog::{Clock, NewRecord, Offset, Options};
use proglog_host::{Engine, ErrorKind, Mode};
use proglog_tests::{
    cases,
    schema::{Fields, framed, index, index_of},
    subject::Subject,
    trials::{self, Case},
};

fn main() -> ExitCode {
    let mut cases = cases![
        an_unclean_stop_leaves_a_padded_index_that_reads_as_entries,
        an_index_size_that_is_no_multiple_of_12_reads_as_entries,
        reset_always_fails,
        truncating_everything_loses_the_next_append,
        a_missing_index_reissues_offset_0,
        a_smaller_index_limit_on_reopen_panics,
        a_5_byte_index_hangs,
        a_corrupt_length_allocates_until_it_panics,
        a_stray_file_becomes_a_segment,
        a_stray_index_becomes_a_segment,
        the_record_passed_in_is_changed,
        highest_offset_is_0_both_for_empty_and_for_one_record,
    ];
    let on_directories = cases![a_stray_directory_becomes_a_segment];
    cases.extend(on_directories.into_iter().map(Case::only_on_directories));
    trials::main(cases)
}

fn an_unclean_stop_leaves_a_padded_index_that_reads_as_entries(subject: &dyn Subject) {
    let store = book_store(0..4);
    for padding in [12, 16, 976, 4096] {
        subject.write("0.store", &store);
        subject.write("0.index", &[index_of(&store), vec![0; padding]].concat());
        // It failed for ever, and left a new segment behind at each attempt.
        for attempt in 0..3 {
            let log = open(subject, options());
            assert_eq!(append(&*log, "again"), Offset(4 + attempt));
            log.close().unwrap();
        }
        assert_holds(subject, 0..7);
        assert_eq!(names(subject), ["0.index", "0.store"], "no orphans");
    }
}

fn an_index_size_that_is_no_multiple_of_12_reads_as_entries(subject: &dyn Subject) {
    // 1024, the book's own default: 85 entries and four bytes over.
    let options = options().index_bytes_max(1024);
    let log = open(subject, options.clone());
    for offset in 0..200 {
        assert_eq!(append(&*log, "a"), Offset(offset));
    }
    // As a process that is killed leaves it.
    let killed = subject.files();
    log.close().unwrap();
    let bases = [("0", 85), ("85", 85), ("170", 30)];
    for (base, entries) in bases {
        assert_eq!(
            subject.files()[&format!("{base}.index")].len(),
            entries * 12,
            "{base}.index"
        );
    }
    for (name, bytes) in &killed {
        subject.write(name, bytes);
    }
    let log = open(subject, options);
    assert_eq!(append(&*log, "b"), Offset(200));
    log.close().unwrap();
    assert_holds(subject, 0..201);
    assert_eq!(names(subject).len(), 2 * bases.len());
}

fn reset_always_fails(subject: &dyn Subject) {
    let log = open(subject, options().segment_bytes_max(64));
    for offset in 0..10 {
        assert_eq!(append(&*log, "before"), Offset(offset));
    }
    log.reset().unwrap();
    assert_eq!(
        (log.lowest_offset().unwrap(), log.next_offset().unwrap()),
        (Offset(0), Offset(0))
    );
    assert_eq!(
        log.read(Offset(0)).unwrap_err().kind(),
        ErrorKind::OffsetOutOfRange
    );
    assert_eq!(append(&*log, "after"), Offset(0));
    log.close().unwrap();
    assert_holds(subject, 0..1);
    assert_eq!(names(subject), ["0.index", "0.store"]);
}

fn truncating_everything_loses_the_next_append(subject: &dyn Subject) {
    let log = open(subject, options().segment_bytes_max(64));
    for _ in 0..10 {
        append(&*log, "gone");
    }
    log.truncate_before(Offset(10)).unwrap();
    assert_eq!(
        (log.lowest_offset().unwrap(), log.next_offset().unwrap()),
        (Offset(10), Offset(10))
    );
    assert_eq!(append(&*log, "kept"), Offset(10));
    log.close().unwrap();
    let log = open(subject, options());
    assert_eq!(log.read(Offset(10)).unwrap().value(), b"kept");
    assert_eq!(
        (log.lowest_offset().unwrap(), log.next_offset().unwrap()),
        (Offset(10), Offset(11))
    );

    // Emptied and closed, it does not forget where it was.
    log.truncate_before(Offset(11)).unwrap();
    log.close().unwrap();
    let log = open(subject, options());
    assert_eq!(
        (log.lowest_offset().unwrap(), log.next_offset().unwrap()),
        (Offset(11), Offset(11))
    );
    assert_eq!(append(&*log, "kept"), Offset(11));
    log.close().unwrap();
}

fn a_missing_index_reissues_offset_0(subject: &dyn Subject) {
    subject.write("0.store", &book_store(0..3));
    let log = open(subject, options());
    assert_eq!(log.next_offset().unwrap(), Offset(3));
    assert_eq!(append(&*log, "a"), Offset(3));
    log.close().unwrap();
    assert_holds(subject, 0..4);
}

fn a_smaller_index_limit_on_reopen_panics(subject: &dyn Subject) {
    let log = open(subject, options());
    for _ in 0..10 {
        append(&*log, "a");
    }
    log.close().unwrap();
    // Room for two entries, where there are ten.
    let log = open(subject, options().index_bytes_max(24));
    for offset in 10..15 {
        assert_eq!(append(&*log, "b"), Offset(offset));
    }
    log.close().unwrap();
    assert_eq!(
        subject.files()["0.index"].len(),
        120,
        "the entries that were there stay"
    );
    assert_eq!(
        names(subject).len(),
        8,
        "two records a segment from there on"
    );
    assert_holds(subject, 0..15);
}

fn a_5_byte_index_hangs(subject: &dyn Subject) {
    let store = book_store(0..3);
    for index in [&index_of(&store)[..5], &[0; 5], &[0xff; 5]] {
        subject.write("0.store", &store);
        subject.write("0.index", index);
        let log = open(subject, options());
        assert_eq!(append(&*log, "a"), Offset(3));
        log.close().unwrap();
        assert_holds(subject, 0..4);
    }
}

fn a_corrupt_length_allocates_until_it_panics(subject: &dyn Subject) {
    let sound = book_store(0..3);
    for length in [
        1 << 20,
        (1 << 30) - 1,
        1 << 31,
        1 << 40,
        1 << 62,
        u64::MAX - 8,
        u64::MAX,
    ] {
        // In the middle: the record is damaged, those around it are not.
        let mut store = [sound.clone(), book_store(3..6)].concat();
        store[sound.len()..][..8].copy_from_slice(&length.to_be_bytes());
        subject.write("0.store", &store);
        subject.write("0.index", &index_of(&book_store(0..6)));
        let log = open(subject, options());
        assert_eq!(
            log.read(Offset(3)).unwrap_err().kind(),
            ErrorKind::Corrupt,
            "length {length}"
        );
        assert_eq!(append(&*log, "after"), Offset(6));
        for offset in [0, 1, 2, 4, 5, 6] {
            log.read(Offset(offset)).unwrap();
        }
        log.close().unwrap();

        // At the end, after an unclean stop: no record at all.
        let torn = [&sound[..], &length.to_be_bytes(), b"\x0a\x05hello"].concat();
        subject.write("0.store", &torn);
        subject.write("0.index", &[index_of(&sound), vec![0; 100]].concat());
        let log = open(subject, options());
        assert_eq!(append(&*log, "after"), Offset(3), "length {length}");
        log.close().unwrap();
        assert_holds(subject, 0..4);
    }
}

const STRAY_NAMES: [&str; 18] = [
    "0.store.bak",
    "00.store",
    "07.index",
    "-1.store",
    "+1.store",
    "1_000.store",
    " 1.store",
    "1 .store",
    "1e3.store",
    "0x10.store",
    "x.store",
    ".store",
    "store",
    "9",
    "9.Store",
    "18446744073709551616.store",
    "99999999999999999999999.store",
    "9.store~",
];

fn a_stray_file_becomes_a_segment(subject: &dyn Subject) {
    for name in STRAY_NAMES {
        subject.write(name, b"not ours");
    }
    let log = open(subject, options());
    assert_eq!(log.next_offset().unwrap(), Offset(0));
    for offset in 0..3 {
        assert_eq!(append(&*log, "a"), Offset(offset));
    }
    log.close().unwrap();
    assert_holds(subject, 0..3);
    let log = open(subject, options());
    log.reset().unwrap();
    log.close().unwrap();
    let files = subject.files();
    for name in STRAY_NAMES {
        assert_eq!(files[name], b"not ours", "{name} is left alone");
    }
}

/// As a crash between the removal of a segment's two files may leave it.
fn a_stray_index_becomes_a_segment(subject: &dyn Subject) {
    for base in [0, 2, 7] {
        subject.write(&format!("{base}.index"), &index(&[(0, 0), (1, 8), (2, 16)]));
    }
    let one_each = || options().segment_bytes_max(1);
    let log = open(subject, one_each());
    assert_eq!(log.next_offset().unwrap(), Offset(0));
    for offset in 0..5 {
        assert_eq!(append(&*log, "a"), Offset(offset));
    }
    log.close().unwrap();
    assert_holds(subject, 0..5);
    let files = subject.files();
    for base in 0..5 {
        assert_eq!(
            files[&format!("{base}.index")],
            index(&[(0, 0)]),
            "{base}.index"
        );
    }
}

fn a_stray_directory_becomes_a_segment(subject: &dyn Subject) {
    let directory = subject.path().unwrap();
    for name in ["1.store", "lost+found", "2.index"] {
        fs::create_dir(directory.join(name)).unwrap();
    }
    let log = open(subject, options());
    assert_eq!(append(&*log, "a"), Offset(0));
    log.close().unwrap();
    assert_holds(subject, 0..1);
    assert_eq!(names(subject), ["0.index", "0.store"]);
    assert!(directory.join("1.store").is_dir());
}

fn the_record_passed_in_is_changed(subject: &dyn Subject) {
    let log = open(subject, options());
    let value = b"mine".to_vec();
    let record = NewRecord::new(&value);
    // One record, appended again and again: each append has an offset of its own.
    assert_eq!(log.append_batch(&[record]).unwrap(), Offset(0)..Offset(1));
    assert_eq!(
        log.append_batch(&[record, record]).unwrap(),
        Offset(1)..Offset(3)
    );
    for offset in 0..3 {
        let read = log.read(Offset(offset)).unwrap();
        assert_eq!((read.offset(), read.value()), (Offset(offset), &value[..]));
    }
    log.close().unwrap();
}

fn highest_offset_is_0_both_for_empty_and_for_one_record(subject: &dyn Subject) {
    for records in 0..2 {
        let log = open(subject, options());
        assert_eq!(
            log.next_offset().unwrap(),
            Offset(records),
            "with {records} records"
        );
        assert_eq!(log.lowest_offset().unwrap(), Offset(0));
        append(&*log, "a");
        log.close().unwrap();
    }
}

/// A store of records without checksum, whose values are their offsets.
fn book_store(offsets: std::ops::Range<u64>) -> Vec<u8> {
    let frame = |offset: u64| match offset {
        // Not empty, so that no two are alike.
        0 => framed(b"\x0a\x01\x30"),
        _ => Fields::new(offset, offset.to_string()).book_frame(),
    };
    offsets.flat_map(frame).collect()
}

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}

fn open(subject: &dyn Subject, options: Options) -> Box<dyn Engine> {
    subject.open(Mode::Write, options).unwrap()
}

fn append(log: &dyn Engine, value: &str) -> Offset {
    log.append_batch(&[NewRecord::new(value)]).unwrap().start
}

fn names(subject: &dyn Subject) -> Vec<String> {
    subject.files().into_keys().collect()
}

/// A log opened again holds exactly these offsets, all sound.
fn assert_holds(subject: &dyn Subject, offsets: std::ops::Range<u64>) {
    let log = subject.open(Mode::Read, options()).unwrap();
    assert_eq!(
        log.lowest_offset().unwrap().0..log.next_offset().unwrap().0,
        offsets
    );
    for offset in offsets {
        assert_eq!(log.read(Offset(offset)).unwrap().offset(), Offset(offset));
    }
    let report = log.verify().unwrap();
    assert!(report.is_sound(), "{report:?}");
    log.close().unwrap();
}
