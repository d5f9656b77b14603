//! The directory that the book's program leaves behind, as bytes, with its index in every state: the
//! same records, the same next offset, and the right index after a close.

use std::process::ExitCode;

use proglog::{Clock, NewRecord, Offset, Options};
use proglog_host::{Engine, ErrorKind, Mode};
use proglog_tests::{
    schema::{ENTRY_BYTES, Fields, index, index_of},
    script::assert_same_files,
    subject::{Files, Subject},
    trials::{self, Case},
};

const STORE: &str = "000000000000000d0a0b68656c6c6f20776f726c64\
                     00000000000000050a01621001\
                     00000000000000021002\
                     00000000000000050a01781003";
const ENTRIES: [(u32, u64); 4] = [(0, 0), (1, 0x15), (2, 0x22), (3, 0x2c)];
const VALUES: [&str; 4] = ["hello world", "b", "", "x"];

fn main() -> ExitCode {
    let mut cases: Vec<_> = index_states()
        .into_iter()
        .map(|(name, index)| {
            Case::new(name, move |subject| {
                opens_reads_and_appends(subject, index.as_deref())
            })
        })
        .collect();
    cases.extend(leading_indexes().into_iter().map(|(name, index, lost)| {
        Case::new(name, move |subject| {
            tells_what_was_lost(subject, &index, lost);
        })
    }));
    let leading = leading_indexes()
        .into_iter()
        .map(|(name, index, _)| (name, Some(index)));
    cases.extend(
        index_states()
            .into_iter()
            .chain(leading)
            .map(|(name, index)| {
                Case::new(format!("truncates_{name}"), move |subject| {
                    truncates(subject, index.as_deref())
                })
            }),
    );
    cases.extend(proglog_tests::cases![
        an_empty_record_at_offset_0_is_eight_zeros,
        appends_of_the_book_give_its_values
    ]);
    trials::main(cases)
}

/// What the index file may hold; `None` where there is none.
fn index_states() -> Vec<(&'static str, Option<Vec<u8>>)> {
    let sound = index(&ENTRIES);
    let padded = |bytes: usize| [&sound[..], &vec![0; bytes - sound.len()]].concat();
    let lying =
        |change: fn(u32, u64) -> (u32, u64)| index(&ENTRIES.map(|(offset, at)| change(offset, at)));
    let with = |more: &[(u32, u64)]| index(&[&ENTRIES[..], more].concat());
    let [e0, e1, e2, e3] = ENTRIES;
    vec![
        ("index_sound", Some(sound.clone())),
        ("index_missing", None),
        ("index_empty", Some(Vec::new())),
        ("index_5_bytes", Some(sound[..5].to_vec())),
        ("index_5_zeros", Some(vec![0; 5])),
        ("index_padded_to_1024", Some(padded(1024))),
        ("index_padded_to_1020", Some(padded(1020))),
        ("index_padded_by_one_entry", Some(padded(60))),
        ("index_padded_by_5_bytes", Some(padded(53))),
        ("index_only_zeros", Some(vec![0; 1024])),
        ("index_of_zeros_with_the_right_length", Some(vec![0; 48])),
        ("index_cut_within_an_entry", Some(sound[..43].to_vec())),
        ("index_too_few_entries", Some(sound[..24].to_vec())),
        ("index_one_entry", Some(sound[..12].to_vec())),
        ("index_extra_entry_past_the_end", Some(with(&[(4, 0x3a)]))),
        (
            "index_extra_entry_far_past_the_end",
            Some(with(&[(4, 1 << 40)])),
        ),
        (
            "index_extra_entry_at_the_end_and_a_wrong_position",
            Some(index(&[e0, e1, (2, 0x23), e3, (4, 0x39)])),
        ),
        ("index_last_entry_twice", Some(with(&[(3, 0x2c)]))),
        (
            "index_wrong_positions",
            Some(lying(|offset, at| (offset, at + 1))),
        ),
        (
            "index_wrong_positions_but_the_last",
            Some(index(&[(0, 3), (1, 0x16), (2, 0x2c), e3])),
        ),
        (
            "index_all_positions_0",
            Some(lying(|offset, _| (offset, 0))),
        ),
        (
            "index_wrong_offsets",
            Some(lying(|offset, at| (offset + 1, at))),
        ),
        (
            "index_wrong_offsets_but_the_last",
            Some(index(&[(7, 0), (9, 0x15), (0, 0x22), e3])),
        ),
        (
            "index_huge_offsets",
            Some(lying(|offset, at| (u32::MAX - offset, at))),
        ),
        (
            "index_swapped_positions",
            Some(index(&[e0, (1, 0x22), (2, 0x15), e3])),
        ),
        ("index_swapped_entries", Some(index(&[e0, e2, e1, e3]))),
        ("index_reversed", Some(index(&[e3, e2, e1, e0]))),
        (
            "index_past_the_end",
            Some(lying(|offset, at| (offset, at + 0x39))),
        ),
        (
            "index_positions_u64_max",
            Some(lying(|offset, _| (offset, u64::MAX))),
        ),
        ("index_all_ones", Some(vec![0xff; 48])),
        ("index_text", Some(b"this file is no index at all".to_vec())),
    ]
}

/// Indexes that are right of all the records there are, and go on where the store ends; and how many records more
/// they have. The book's program leaves that when it is killed: it has the entry of a record in the file at once, and
/// the record in a buffer. It had acknowledged it, so the record is lost, and its offset is not given again.
fn leading_indexes() -> Vec<(&'static str, Vec<u8>, u64)> {
    let with = |more: &[(u32, u64)]| index(&[&ENTRIES[..], more].concat());
    let padded = |index: Vec<u8>| [&index[..], &[0; 1024]].concat();
    let longer = with(&[(4, 0x39), (5, 0x50), (6, 0x70)]);
    vec![
        ("index_extra_entry_at_the_end", with(&[(4, 0x39)]), 1),
        ("index_extra_entries_of_a_longer_log", longer.clone(), 3),
        ("index_extra_entries_of_a_killed_log", padded(longer), 3),
    ]
}

fn tells_what_was_lost(subject: &dyn Subject, index_bytes: &[u8], lost: u64) {
    let store = hex::decode(STORE).unwrap();
    subject.write("0.store", &store);
    subject.write("0.index", index_bytes);
    let next = Offset(4 + lost);
    let check = |log: &dyn Engine| {
        for (value, offset) in VALUES.iter().zip(0..) {
            assert_eq!(log.read(Offset(offset)).unwrap().value(), value.as_bytes());
        }
        for offset in 4..next.0 {
            let error = log.read(Offset(offset)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        }
        let report = log.verify().unwrap();
        let damage: Vec<_> = report.damage().map(|d| (d.first, d.last)).collect();
        assert_eq!(damage, [(Offset(4), Offset(next.0 - 1))]);
    };
    let given = subject.files();
    let log = subject.open(Mode::Read, options()).unwrap();
    assert_eq!(log.next_offset().unwrap(), next);
    check(&*log);
    log.close().unwrap();
    assert_same_files(
        &given,
        &subject.files(),
        "a log opened to read changes nothing",
    );

    for more in 0..3 {
        let log = subject.open(Mode::Write, options()).unwrap();
        let appended = log.append_batch(&[NewRecord::new("next")]).unwrap();
        assert_eq!(appended.start, next.plus(more));
        check(&*log);
        log.close().unwrap();
    }
    let files = subject.files();
    assert_eq!(files["0.store"], store);
    let entries = (4 + usize::try_from(lost).unwrap()) * ENTRY_BYTES;
    assert_eq!(files["0.index"], index_bytes[..entries]);
    assert_eq!(
        files.len(),
        4,
        "appends go to one segment: {:?}",
        files.keys()
    );
}

fn opens_reads_and_appends(subject: &dyn Subject, index_bytes: Option<&[u8]>) {
    let store = hex::decode(STORE).unwrap();
    subject.write("0.store", &store);
    if let Some(bytes) = index_bytes {
        subject.write("0.index", bytes);
    }
    let given = subject.files();

    reads_all(subject, Mode::Read);
    assert_same_files(
        &given,
        &subject.files(),
        "a log opened to read changes nothing",
    );

    reads_all(subject, Mode::Write);
    let restored = Files::from([
        ("0.store".into(), store.clone()),
        ("0.index".into(), index(&ENTRIES)),
    ]);
    assert_same_files(
        &restored,
        &subject.files(),
        "after a close the index is right",
    );

    if let Some(bytes) = index_bytes {
        subject.write("0.index", bytes);
    } else {
        subject.remove("0.index");
    }
    let log = subject.open(Mode::Write, options()).unwrap();
    let offsets = log.append_batch(&[NewRecord::new("next")]).unwrap();
    assert_eq!(offsets, Offset(4)..Offset(5), "the next append");
    assert_eq!(log.read(Offset(4)).unwrap().value(), b"next");
    assert_eq!(log.read(Offset(1)).unwrap().value(), b"b");
    log.close().unwrap();
    let store = [store, Fields::new(4, "next").frame()].concat();
    let grown = Files::from([
        ("0.index".into(), index_of(&store)),
        ("0.store".into(), store),
    ]);
    assert_same_files(&grown, &subject.files(), "after an append and a close");
}

/// What is cut off is what the records say, not the index.
fn truncates(subject: &dyn Subject, index_bytes: Option<&[u8]>) {
    let store = hex::decode(STORE).unwrap();
    for last in 0..4 {
        subject.write("0.store", &store);
        match index_bytes {
            Some(bytes) => subject.write("0.index", bytes),
            None if last > 0 => subject.remove("0.index"),
            None => {}
        }
        let log = subject.open(Mode::Write, options()).unwrap();
        log.truncate_after(Offset(last)).unwrap();
        log.close().unwrap();
        let (entries, _) = ENTRIES.split_at(usize::try_from(last).unwrap() + 1);
        let end = ENTRIES
            .get(entries.len())
            .map_or(store.len(), |&(_, at)| usize::try_from(at).unwrap());
        assert_eq!(
            hex::encode(&subject.files()["0.store"]),
            hex::encode(&store[..end]),
            "after record {last}"
        );
        let log = subject.open(Mode::Write, options()).unwrap();
        assert_eq!(
            log.append_batch(&[NewRecord::new("a")]).unwrap().start,
            Offset(last + 1)
        );
        for offset in 0..=last + 1 {
            log.read(Offset(offset)).unwrap();
        }
        assert!(log.verify().unwrap().is_sound());
        log.close().unwrap();
    }
}

fn reads_all(subject: &dyn Subject, mode: Mode) {
    let log = subject.open(mode, options()).unwrap();
    assert_eq!(
        (log.lowest_offset().unwrap(), log.next_offset().unwrap()),
        (Offset(0), Offset(4))
    );
    for (value, offset) in VALUES.iter().zip(0..) {
        let record = log.read(Offset(offset)).unwrap();
        assert_eq!(record.value(), value.as_bytes(), "record {offset}");
        assert_eq!(
            (record.offset(), record.is_checked()),
            (Offset(offset), false)
        );
    }
    let report = log.verify().unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.torn_tail(), None, "{report:?}");
    assert_eq!(
        (report.records(), report.segments[0].unchecked_records),
        (4, 4)
    );
    log.close().unwrap();
}

/// The book's program leaves nothing of a record whose offset is 0 and whose value is empty.
fn an_empty_record_at_offset_0_is_eight_zeros(subject: &dyn Subject) {
    for index_bytes in [vec![0; 12], Vec::new(), vec![0; 1024], vec![0; 5]] {
        subject.write("0.store", &[0; 8]);
        subject.write("0.index", &index_bytes);
        let log = subject.open(Mode::Write, options()).unwrap();
        assert_eq!(
            log.next_offset().unwrap(),
            Offset(1),
            "with an index of {} bytes",
            index_bytes.len()
        );
        assert_eq!(log.read(Offset(0)).unwrap().value(), b"");
        assert_eq!(
            log.append_batch(&[NewRecord::new("a")]).unwrap().start,
            Offset(1)
        );
        log.close().unwrap();
        let store = [vec![0; 8], Fields::new(1, "a").frame()].concat();
        let files = Files::from([
            ("0.store".into(), store),
            ("0.index".into(), index(&[(0, 0), (1, 8)])),
        ]);
        assert_same_files(&files, &subject.files(), "after an append");
    }
}

/// The four appends that made the golden directory, by this log: the same values at the same offsets.
fn appends_of_the_book_give_its_values(subject: &dyn Subject) {
    let log = subject.open(Mode::Write, options()).unwrap();
    for (value, offset) in VALUES.iter().zip(0..) {
        assert_eq!(
            log.append_batch(&[NewRecord::new(value)]).unwrap().start,
            Offset(offset)
        );
    }
    log.close().unwrap();
    let store: Vec<u8> = VALUES
        .iter()
        .zip(0..)
        .flat_map(|(value, offset)| Fields::new(offset, *value).frame())
        .collect();
    let files = Files::from([
        ("0.index".into(), index_of(&store)),
        ("0.store".into(), store),
    ]);
    assert_same_files(
        &files,
        &subject.files(),
        "the bytes of the same records with checksums",
    );
}

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}
