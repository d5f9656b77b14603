//! `proglog upgrade`: what the book's Go program leaves, whatever its bugs did to it, becomes a log with checksums.
#![cfg(unix)]

mod program;

use std::{
    fs,
    ops::Range,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use program::{NewLog, Running, failed, files, json_lines, on_both_engines, printed, proglog, run};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

on_both_engines!(
    what_is_in_order_is_taken_over,
    a_padded_index,
    an_index_whose_size_is_no_multiple_of_12,
    a_missing_index,
    an_index_of_a_smaller_limit,
    a_5_byte_index,
    a_corrupt_length,
    records_after_space_that_was_never_written,
    stray_files,
    orphans_after_failed_appends,
    offsets_that_were_given_again,
    empty_segments_in_the_way,
    records_that_were_in_a_buffer,
    terms_and_types,
    lost_records_stay_lost,
    a_store_far_away_is_told,
    a_segment_that_is_not_there_before_an_empty_last_one_is_told,
    a_record_of_the_last_number_is_told,
    what_a_truncation_or_a_reset_leaves,
    a_log_with_checksums_keeps_all_it_has,
    nothing_is_left_where_it_fails,
    it_tells_people_too,
    a_stop_leaves_no_copy,
);

/// A directory of the book's program, and a place for the copy.
struct Book {
    engine: String,
    root: TempDir,
    dir: PathBuf,
    copy: PathBuf,
}

impl Book {
    fn new(engine: &str, files: &[(&str, Vec<u8>)]) -> Self {
        let root = tempdir().unwrap();
        let (dir, copy) = (root.path().join("book"), root.path().join("copy"));
        fs::create_dir(&dir).unwrap();
        for (name, bytes) in files {
            fs::write(dir.join(name), bytes).unwrap();
        }
        Self {
            engine: engine.to_owned(),
            root,
            dir,
            copy,
        }
    }

    /// Upgrades it and checks what never differs. What is told, and the offsets that the copy has.
    fn upgrade(&self, exit: i32) -> (Value, Vec<u64>) {
        let before = files(&self.dir);
        let upgrade = proglog(&self.engine, "upgrade", &[&self.dir, &self.copy, &"--json"]);
        let output = run(upgrade, b"");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        assert_eq!(output.status.code(), Some(exit));
        assert_eq!(files(&self.dir), before, "the source was written");
        let told = json_lines(&output.stdout).remove(0);
        assert!(!self.root.path().join("copy.unfinished").exists());

        let on_copy = |verb, args: &[&str]| {
            let mut command = proglog(&self.engine, verb, &[&self.copy]);
            command.args(args);
            run(command, b"")
        };
        let verified = on_copy("verify", &["--json"]);
        let verified = json_lines(&verified.stdout).remove(0);
        for segment in verified["segments"].as_array().unwrap() {
            assert_eq!(segment["unchecked_records"], json!(0), "{verified}");
            // That of a segment at whose end records are missing says so.
            let is_sound = segment["damage"] == json!([]);
            assert!(
                !is_sound || segment["index"] == json!("sound"),
                "{verified}"
            );
        }
        assert_eq!(verified["records"], told["records"]);
        assert_eq!(verified["sound"], json!(true), "{verified}");
        // What was lost is not there, by the copy's own word.
        let lost_to_copy = verified["segments"].as_array().unwrap().iter();
        let lost_to_copy: u64 = lost_to_copy
            .map(|segment| segment["gaps"]["lost"].as_u64().unwrap())
            .sum();
        let lost = told["lost"].as_array().unwrap().iter();
        let lost =
            lost.map(|lost| lost["last"].as_u64().unwrap() - lost["first"].as_u64().unwrap() + 1);
        assert_eq!(lost_to_copy, lost.sum::<u64>(), "{verified}");
        let exported = on_copy("export", &["--skip-damaged"]);
        let mut offsets = Vec::new();
        for line in json_lines(&exported.stdout) {
            let Some(offset) = line["offset"].as_u64() else {
                continue;
            };
            assert_eq!(line, json!({ "offset": offset, "value": base64(offset) }));
            offsets.push(offset);
        }
        let appended = printed(
            proglog(&self.engine, "append", &[&self.copy, &"--json"]),
            b"a",
        );
        assert_eq!(json_lines(&appended)[0]["first"], told["next_offset"]);
        (told, offsets)
    }

    /// As [`Book::upgrade`], where nothing is lost.
    fn upgrades_whole(&self, offsets: Range<u64>) -> Value {
        let (told, held) = self.upgrade(0);
        assert_eq!(held, Vec::from_iter(offsets.clone()));
        assert_eq!(told["lowest_offset"], json!(offsets.start));
        assert_eq!(told["next_offset"], json!(offsets.end));
        assert_eq!(told["unchecked_records"], told["records"]);
        for none in ["lost", "orphans"] {
            assert_eq!(told[none], json!([]), "{told}");
        }
        told
    }
}

/// The value of a record: its offset in decimal, with some to fill a base64 group.
fn value(offset: u64) -> Vec<u8> {
    format!("{offset:03}").into_bytes()
}

fn base64(offset: u64) -> String {
    let bits = value(offset)
        .iter()
        .fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte));
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |shift: u32| char::from(digits[(bits >> shift) as usize & 63]);
    [18, 12, 6, 0].map(digit).iter().collect()
}

/// A frame as the book's program writes it.
fn frame(offset: u64) -> Vec<u8> {
    frame_with(offset, &[])
}

fn frame_with(offset: u64, more: &[u8]) -> Vec<u8> {
    let value = value(offset);
    let mut record = vec![0x0a, u8::try_from(value.len()).unwrap()];
    record.extend(value);
    if offset > 0 {
        record.push(0x10);
        let mut left = offset;
        while left > 127 {
            record.push(u8::try_from(left & 127).unwrap() | 128);
            left >>= 7;
        }
        record.push(u8::try_from(left).unwrap());
    }
    record.extend(more);
    [&(record.len() as u64).to_be_bytes()[..], &record].concat()
}

fn store(offsets: Range<u64>) -> Vec<u8> {
    offsets.flat_map(frame).collect()
}

/// The index of a store that begins with the frame of `offsets.start`.
fn index(offsets: Range<u64>) -> Vec<u8> {
    let mut position = 0;
    let entry = |(n, offset): (u32, u64)| {
        let entry = [&n.to_be_bytes()[..], &u64::to_be_bytes(position)].concat();
        position += frame(offset).len() as u64;
        entry
    };
    (0..).zip(offsets).flat_map(entry).collect()
}

fn what_is_in_order_is_taken_over(engine: &str) {
    let sealed = [("0.store", store(0..3)), ("0.index", index(0..3))];
    let last = [("3.store", store(3..5)), ("3.index", index(3..5))];
    let told = Book::new(engine, &[sealed, last].concat()).upgrades_whole(0..5);
    assert_eq!(
        (&told["indexes"], &told["torn_tails"]),
        (&json!([]), &json!([]))
    );
    // Not from 0 on; and one that holds no record, but an offset to go on from.
    Book::new(
        engine,
        &[("7.store", store(7..9)), ("7.index", index(7..9))],
    )
    .upgrades_whole(7..9);
    Book::new(engine, &[("7.store", vec![]), ("7.index", vec![])]).upgrades_whole(7..7);
    let emptied = [("7.store", store(7..9)), ("9.store", vec![])];
    Book::new(engine, &emptied).upgrades_whole(7..9);
    assert!(Book::new(engine, &[("0.store", vec![0; 8])]).upgrade_of_empty_value());
}

impl Book {
    /// Whether the book's empty record at offset 0, eight zero bytes, is taken over.
    fn upgrade_of_empty_value(&self) -> bool {
        let upgrade = proglog(&self.engine, "upgrade", &[&self.dir, &self.copy, &"--json"]);
        let told = json_lines(&printed(upgrade, b"")).remove(0);
        let read = printed(proglog(&self.engine, "read", &[&self.copy, &"0"]), b"");
        told["records"] == json!(1) && read == b"\n"
    }
}

fn a_padded_index(engine: &str) {
    for padding in [12, 16, 976, 4096] {
        let padded = [index(0..4), vec![0; padding]].concat();
        let told = Book::new(engine, &[("0.store", store(0..4)), ("0.index", padded)]);
        let told = told.upgrades_whole(0..4);
        assert_eq!(
            told["indexes"],
            json!([{ "segment": 0, "state": "unfinished" }])
        );
    }
}

fn an_index_whose_size_is_no_multiple_of_12(engine: &str) {
    // 1024, the book's own default: 85 entries and four bytes over, in each segment.
    let padded = |offsets| [index(offsets), vec![0; 4]].concat();
    let files = [
        ("0.store", store(0..85)),
        ("0.index", padded(0..85)),
        ("85.store", store(85..100)),
        ("85.index", [index(85..100), vec![0; 844]].concat()),
    ];
    let told = Book::new(engine, &files).upgrades_whole(0..100);
    let states =
        json!([{ "segment": 0, "state": "unfinished" }, { "segment": 85, "state": "unfinished" }]);
    assert_eq!(told["indexes"], states);
}

fn a_missing_index(engine: &str) {
    let files = [("0.store", store(0..3)), ("3.store", store(3..5))];
    let told = Book::new(engine, &files).upgrades_whole(0..5);
    let states =
        json!([{ "segment": 0, "state": "missing" }, { "segment": 3, "state": "missing" }]);
    assert_eq!(told["indexes"], states);
}

fn an_index_of_a_smaller_limit(engine: &str) {
    let cut = index(0..10)[..24].to_vec();
    Book::new(engine, &[("0.store", store(0..10)), ("0.index", cut)]).upgrades_whole(0..10);
}

fn a_5_byte_index(engine: &str) {
    for five in [index(0..3)[..5].to_vec(), vec![0; 5], vec![0xff; 5]] {
        Book::new(engine, &[("0.store", store(0..3)), ("0.index", five)]).upgrades_whole(0..3);
    }
}

fn a_corrupt_length(engine: &str) {
    for length in [1 << 20, 1 << 31, 1 << 40, u64::MAX - 8, u64::MAX] {
        let mut damaged = store(0..6);
        let position = store(0..3).len();
        damaged[position..][..8].copy_from_slice(&length.to_be_bytes());
        let book = Book::new(engine, &[("0.store", damaged), ("0.index", index(0..6))]);
        let (told, held) = book.upgrade(1);
        assert_eq!(held, [0, 1, 2, 4, 5], "{length}");
        let lost = &told["lost"][0];
        assert_eq!((&lost["first"], &lost["last"]), (&json!(3), &json!(3)));
        assert_eq!(
            (&lost["position"], &told["next_offset"]),
            (&json!(position), &json!(6))
        );

        // At the end, after an unclean stop: no record at all.
        let torn = [
            store(0..3),
            length.to_be_bytes().to_vec(),
            b"\x0a\x05hello".to_vec(),
        ]
        .concat();
        let padded = [index(0..3), vec![0; 100]].concat();
        let told =
            Book::new(engine, &[("0.store", torn), ("0.index", padded)]).upgrades_whole(0..3);
        assert_eq!(told["torn_tails"][0]["position"], json!(position));
        assert_eq!(told["torn_tails"][0]["bytes"], json!(15));
    }
}

/// As a power cut leaves it that kept later sectors and not earlier ones.
fn records_after_space_that_was_never_written(engine: &str) {
    let torn = [store(0..3), vec![0; 1024], store(4..6)].concat();
    let (position, bytes) = (store(0..3).len(), torn.len() - store(0..3).len());
    let book = Book::new(engine, &[("0.store", torn)]);
    let (told, held) = book.upgrade(1);
    assert_eq!((held, &told["lost"]), (vec![0, 1, 2], &json!([])));
    let tail = &told["torn_tails"][0];
    assert_eq!(
        (&tail["position"], &tail["bytes"]),
        (&json!(position), &json!(bytes))
    );
    assert_eq!(tail["records"], json!(2));
    let again = book.root.path().join("again");
    let output = run(proglog(engine, "upgrade", &[&book.dir, &again]), b"");
    let said = format!(
        "LEFT OUT   segment 0: {bytes} bytes at its end, with 2 whole records, from position {position} on are not"
    );
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains(&said), "{told}");
}

fn stray_files(engine: &str) {
    let strays = [
        " 1.store",
        "+1.store",
        "00.store",
        "07.index",
        "18446744073709551616.store",
        "9",
        "x.store",
    ];
    let mut files = vec![("0.store", store(0..2)), ("0.index", index(0..2))];
    files.extend(strays.map(|name| (name, b"not ours".to_vec())));
    files.push(("99.index", index(0..2)));
    let book = Book::new(engine, &files);
    for name in ["1.store", "lost+found"] {
        fs::create_dir(book.dir.join(name)).unwrap();
    }
    let upgrade = proglog(engine, "upgrade", &[&book.dir, &book.copy, &"--json"]);
    let told = json_lines(&printed(upgrade, b"")).remove(0);
    let mut others = strays.to_vec();
    others.extend(["1.store", "99.index", "lost+found"]);
    others.sort_unstable();
    assert_eq!(told["other_files"], json!(others));
    let copied: Vec<_> = program::files(&book.copy)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(copied, ["0.index", "0.store"]);
}

/// It takes the zeros of the index for entries of offset 0, so that each attempt leaves a record of offset 1. That
/// they were not acknowledged cannot be told: what stands in the place of records is taken for that of lost ones.
fn orphans_after_failed_appends(engine: &str) {
    let orphaned = [store(0..4), frame(1), frame(1)].concat();
    let (position, bytes) = (store(0..4).len(), frame(1).len());
    let padded = [index(0..4), vec![0; 976]].concat();
    let book = Book::new(engine, &[("0.store", orphaned), ("0.index", padded)]);
    let (told, held) = book.upgrade(1);
    assert_eq!((held, &told["next_offset"]), (vec![0, 1, 2, 3], &json!(6)));
    let orphan = |position| json!({ "segment": 0, "position": position, "offset": 1 });
    assert_eq!(
        told["orphans"],
        json!([orphan(position), orphan(position + bytes)])
    );
    let lost = &told["lost"][0];
    assert_eq!((&lost["first"], &lost["last"]), (&json!(4), &json!(5)));
    assert_eq!(lost["reason"], json!("misplaced"));
}

fn offsets_that_were_given_again(engine: &str) {
    // A missing index, then appends, which are acknowledged with offsets that others have.
    let given_again = [store(0..3), store(0..2)].concat();
    let position = store(0..3).len() as u64;
    let entries = [(0_u32, position), (1, position + frame(0).len() as u64)];
    let entry =
        |(n, position): (u32, u64)| [&n.to_be_bytes()[..], &position.to_be_bytes()].concat();
    let made_anew: Vec<u8> = entries.into_iter().flat_map(entry).collect();
    for index in [made_anew.clone(), [made_anew, vec![0; 1000]].concat()] {
        let book = Book::new(
            engine,
            &[("0.store", given_again.clone()), ("0.index", index)],
        );
        let (told, held) = book.upgrade(1);
        assert_eq!(held, [0, 1, 2], "{told}");
        let offsets: Vec<_> = told["orphans"]
            .as_array()
            .unwrap()
            .iter()
            .map(|o| &o["offset"])
            .collect();
        assert_eq!(offsets, [&json!(0), &json!(1)], "{told}");
    }
}

/// A segment begun at the offset that the zeros of the index before it say is next.
fn empty_segments_in_the_way(engine: &str) {
    let padded = [index(0..4), vec![0; 976]].concat();
    let files = [
        ("0.store", store(0..4)),
        ("0.index", padded),
        ("1.store", vec![]),
        ("1.index", vec![0; 1024]),
        ("2.store", vec![]),
    ];
    let told = Book::new(engine, &files).upgrades_whole(0..4);
    assert_eq!(told["empty_segments"], json!([1, 2]));
    assert_eq!(told["other_files"], json!([]));
}

fn records_that_were_in_a_buffer(engine: &str) {
    let padded = [index(0..6), vec![0; 952]].concat();
    let book = Book::new(engine, &[("0.store", store(0..4)), ("0.index", padded)]);
    let (told, held) = book.upgrade(1);
    assert_eq!(held, [0, 1, 2, 3]);
    assert_eq!(told["next_offset"], json!(6), "their offsets were given");
    assert_eq!(told["lost"][0]["reason"], json!("missing"), "{told}");
}

fn terms_and_types(engine: &str) {
    let store = [
        frame(0),
        frame_with(1, &[0x18, 2]),
        frame_with(2, &[0x18, 2, 0x20, 1]),
    ]
    .concat();
    let told = Book::new(engine, &[("0.store", store)]).upgrades_whole(0..3);
    assert_eq!(told["records_with_other_fields"], json!(2));
}

fn lost_records_stay_lost(engine: &str) {
    // The first, one in the middle, the last; the only one.
    for (records, lost) in [(6, 0), (6, 3), (6, 5), (1, 0)] {
        let mut damaged = store(0..records);
        let position = store(0..lost).len();
        damaged[position + 8] = 0xff;
        let book = Book::new(
            engine,
            &[("0.store", damaged), ("0.index", index(0..records))],
        );
        let (told, held) = book.upgrade(1);
        assert_eq!(
            held,
            Vec::from_iter((0..records).filter(|&offset| offset != lost))
        );
        assert_eq!(told["lowest_offset"], json!(0));
        assert_eq!(told["next_offset"], json!(records));
        let read = proglog(engine, "read", &[&book.copy, &lost.to_string()]);
        let (exit, error) = failed(read, b"");
        assert_eq!((exit, error.contains("was lost")), (3, true), "{error}");
    }
    // A whole segment.
    let files = [("0.store", store(0..3)), ("5.store", store(5..7))];
    let (told, held) = Book::new(engine, &files).upgrade(1);
    assert_eq!(
        (held, &told["next_offset"]),
        (vec![0, 1, 2, 5, 6], &json!(7))
    );
}

/// A store far away may be of another log; all between is told.
fn a_store_far_away_is_told(engine: &str) {
    let files = [
        ("0.store", store(0..3)),
        ("9000000000.store", b"x".to_vec()),
    ];
    let (told, held) = Book::new(engine, &files).upgrade(1);
    assert_eq!(held, [0, 1, 2]);
    let lost = &told["lost"][0];
    assert_eq!(lost["last"], json!(8_999_999_999_u64));
}

/// The program had closed it: the empty segment's index is empty too.
fn a_segment_that_is_not_there_before_an_empty_last_one_is_told(engine: &str) {
    let empty = || [("5.store", vec![]), ("5.index", vec![])];
    let mut found = vec![("0.store", store(0..3)), ("0.index", index(0..3))];
    found.extend(empty());
    found.push(("3.index", index(3..5)));
    let book = Book::new(engine, &found);
    let (told, held) = book.upgrade(1);
    assert_eq!((held, &told["next_offset"]), (vec![0, 1, 2], &json!(5)));
    let lost = json!({
        "segment": 0, "first": 3, "last": 4, "position": store(0..3).len(), "bytes": 0, "reason": "missing",
    });
    assert_eq!(told["lost"], json!([lost]));
    assert_eq!(told["other_files"], json!(["3.index"]));

    fs::remove_dir_all(&book.copy).unwrap();
    let output = run(proglog(engine, "upgrade", &[&book.dir, &book.copy]), b"");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "LOST       segment 0, offsets 3..=4: the segments after it are not there, but for an empty one at 5\n\
         note       \"3.index\" is of a store that is not there\n\
         upgraded   0..=4 (3 records)\n"
    );
    // One right after the last record, and one that begins a log, tell of nothing that is missing.
    let mut found = vec![("0.store", store(0..5)), ("0.index", index(0..5))];
    found.extend(empty());
    Book::new(engine, &found).upgrades_whole(0..5);
    let told = Book::new(engine, &empty()).upgrade(0).0;
    assert_eq!(
        (&told["lowest_offset"], &told["next_offset"]),
        (&json!(5), &json!(5))
    );
}

/// The log has no place for it: its next offset would be none.
fn a_record_of_the_last_number_is_told(engine: &str) {
    const LAST: u64 = u64::MAX;
    let segment = format!("{}.store", LAST - 1);
    let none = format!("{LAST}.store");
    let first = frame(LAST - 1).len();
    let both = [frame(LAST - 1), frame(LAST)].concat();
    for (files, position, next) in [
        (vec![(&*segment, both)], first, LAST),
        (vec![("0.store", store(0..2)), (&*none, frame(LAST))], 0, 2),
    ] {
        let book = Book::new(engine, &files);
        let base = files.last().unwrap().0.strip_suffix(".store").unwrap();
        let said = format!(
            "LEFT OUT   segment {base}, position {position}: a record of offset {LAST}, which no record can have\n"
        );
        let output = run(proglog(engine, "upgrade", &[&book.dir, &book.copy]), b"");
        let told = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.starts_with(&said), "{told}");
        assert!(!told.contains("LOST"), "{told}");
        let info = proglog("native", "info", &[&book.copy, &"--json"]);
        assert_eq!(
            json_lines(&printed(info, b""))[0]["next_offset"],
            json!(next)
        );
    }
    let book = Book::new(engine, &[(&none, frame(LAST))]);
    let (exit, error) = failed(proglog(engine, "upgrade", &[&book.dir, &book.copy]), b"");
    let said =
        format!("is {none}, and no record can have that offset; there is nothing to upgrade\n");
    assert!(error.ends_with(&said), "{error}");
    assert_eq!(exit, 4);
}

/// The directory is empty, or gone.
fn what_a_truncation_or_a_reset_leaves(engine: &str) {
    let book = Book::new(engine, &[]);
    for _ in 0..2 {
        let upgrade = proglog(engine, "upgrade", &[&book.dir, &book.copy]);
        let (exit, error) = failed(upgrade, b"");
        assert_eq!(
            (exit, error.contains("there is no log in")),
            (4, true),
            "{error}"
        );
        let _ = fs::remove_dir(&book.dir);
    }
    assert!(!book.dir.exists() && !book.copy.exists());
}

fn a_log_with_checksums_keeps_all_it_has(engine: &str) {
    let log = NewLog::new(engine);
    let input = "{\"offset\":3,\"value\":\"YQ==\"}\n\
                 {\"offset\":4,\"timestamp_ms\":7,\"key\":\"aw==\",\"value\":\"\",\"batch_remaining\":1}\n\
                 {\"offset\":5,\"timestamp_ms\":9,\"value\":\"Yg==\",\"headers\":[{\"name\":\"n\",\"value\":\"dg==\"}],\"batch_records\":2}\n";
    printed(log.verb("import", &[]), input.as_bytes());
    let copy = log.path().join("copy");
    printed(log.verb("upgrade", &[&copy]), b"");
    assert_eq!(files(&copy), files(&log.dir));
}

fn nothing_is_left_where_it_fails(engine: &str) {
    let book = Book::new(engine, &[("0.store", store(0..3))]);
    let fails = |copy: &PathBuf, said: &str| {
        let (exit, error) = failed(proglog(engine, "upgrade", &[&book.dir, copy]), b"");
        assert_eq!((exit, error.contains(said)), (4, true), "{error}");
    };
    fs::create_dir(&book.copy).unwrap();
    fs::write(book.copy.join("file"), "kept").unwrap();
    fails(
        &book.copy,
        "is not empty; give a directory that is not there yet",
    );
    assert_eq!(fs::read(book.copy.join("file")).unwrap(), b"kept");
    fails(
        &book.copy.join("file"),
        "is a file; give a directory that is not there yet",
    );
    fails(
        &book.dir.join("deep/down"),
        "is within the log; give a directory outside it",
    );
    assert_eq!(files(&book.dir).len(), 1);

    // What fails in the middle.
    let new = book.root.path().join("new");
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -f 0 && exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_proglog"))
        .arg("upgrade")
        .args([&book.dir, &new])
        .args(["--engine", engine])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (exit, error) = failed(shell, b"");
    assert_eq!((exit, error.contains("could not")), (4, true), "{error}");
    assert!(!new.exists() && !book.root.path().join("new.unfinished").exists());
    // An empty directory is as good as none.
    fs::create_dir(&new).unwrap();
    printed(proglog(engine, "upgrade", &[&book.dir, &new]), b"");
}

fn it_tells_people_too(engine: &str) {
    let mut damaged = [store(0..4), frame(1)].concat();
    damaged[frame(0).len() + 8] = 0xff;
    let book = Book::new(
        engine,
        &[
            ("0.store", damaged),
            ("0.index", [index(0..4), vec![0; 12]].concat()),
            ("x", vec![]),
        ],
    );
    let output = run(proglog(engine, "upgrade", &[&book.dir, &book.copy]), b"");
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stdout).unwrap();
    for line in [
        "LOST       segment 0, offsets 1..=1, position 13, ",
        "LEFT OUT   segment 0, position 58: a record of offset 1, which another has\n",
        "note       segment 0: its index is unfinished; the copy's is made anew\n",
        "note       \"x\" is not of the log\n",
        "upgraded   0..=4 (3 records)\n",
    ] {
        assert!(told.contains(line), "{line} in {told}");
    }
    let torn = [store(0..2), vec![0, 1]].concat();
    let book = Book::new(engine, &[("0.store", torn), ("1.store", vec![])]);
    let upgrade = proglog(engine, "upgrade", &[&book.dir, &book.copy]);
    let told = String::from_utf8(printed(upgrade, b"")).unwrap();
    assert_eq!(
        told,
        "note       segment 0: 2 bytes at its end from position 28 on are not of the log\n\
         note       segment 1: it is empty, and the one before it has its offsets\n\
         note       segment 0: its index is missing; the copy's is made anew\n\
         upgraded   0..=1 (2 records)\n"
    );
}

/// It is stopped while it copies: that takes longer than to ask it to.
fn a_stop_leaves_no_copy(engine: &str) {
    let book = Book::new(engine, &[("0.store", store(0..300_000))]);
    let upgrade = Running::start(proglog(engine, "upgrade", &[&book.dir, &book.copy]));
    let unfinished = book.root.path().join("copy.unfinished");
    while !unfinished.join("0.store").exists() {
        thread::sleep(Duration::from_millis(1));
    }
    upgrade.signal(Signal::INT);
    assert_eq!(upgrade.end(), (Some(130), String::new(), String::new()));
    assert!(!unfinished.exists() && !book.copy.exists());
}
