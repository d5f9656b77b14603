//! Every single flipped bit of a small closed log: no wrong bytes for any offset, and damage is told.

use std::collections::BTreeMap;

use proglog::{
    Clock, Error, Gap, GapCause, Header, Log, MemoryBackend, NewRecord, Offset, Options, Record,
};
use proglog_tests::{
    schema::{Fields, frames, index_of},
    subject::{Files, files_of, memory_of},
};

#[test]
fn a_flipped_bit_of_a_store_is_told_and_hurts_one_record() {
    let sound = closed_log();
    for frame in frames_of(&sound.files) {
        for bit in 0..frame.bytes.len() * 8 {
            let files = flipped(&sound.files, &frame.store, frame.position * 8 + bit);
            let log = Log::open_read_only_on(memory_of(&files), options()).unwrap();
            let what = format!(
                "bit {} of byte {} of {} ({})",
                bit % 8,
                bit / 8,
                frame.first,
                frame.store
            );
            check_reads(&log, &sound, &frame, bit, &what);
            check_report(&log, &sound, &frame, bit, &what);
            assert_eq!(files, files_of(&memory_of(&files)), "{what}");
        }
    }
}

/// Opened for writing, nothing is cut off, and appends go on after what is damaged.
#[test]
fn a_flipped_bit_of_a_store_loses_nothing_else_when_appends_go_on() {
    let sound = closed_log();
    for frame in frames_of(&sound.files) {
        for bit in 0..frame.bytes.len() * 8 {
            let files = flipped(&sound.files, &frame.store, frame.position * 8 + bit);
            let what = format!(
                "bit {} of byte {} of {} ({})",
                bit % 8,
                bit / 8,
                frame.first,
                frame.store
            );
            let backend = memory_of(&files);
            let log = Log::open_on(backend.clone(), options()).unwrap();
            let next = sound.next();
            assert_eq!(log.append(NewRecord::new("after")).unwrap(), next, "{what}");
            check_reads(&log, &sound, &frame, bit, &what);
            assert_eq!(log.read(next).unwrap().value(), b"after", "{what}");
            log.close().unwrap();
            let after = files_of(&backend);
            for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".store")) {
                assert!(
                    after[name].starts_with(bytes),
                    "{name} keeps its bytes; {what}"
                );
            }
            let log = Log::open_read_only_on(backend, options()).unwrap();
            check_reads(&log, &sound, &frame, bit, &what);
            assert_eq!(log.read(next).unwrap().value(), b"after", "{what}");
        }
    }
}

/// An index is derived: whatever it says, the log is the same.
#[test]
fn a_flipped_bit_of_an_index_changes_nothing() {
    let sound = closed_log();
    for (name, bytes) in sound
        .files
        .iter()
        .filter(|(name, _)| name.ends_with(".index"))
    {
        for bit in 0..bytes.len() * 8 {
            let what = format!("bit {bit} of {name}");
            let backend = memory_of(&flipped(&sound.files, name, bit));
            let log = Log::open_read_only_on(backend.clone(), options()).unwrap();
            check_sound(&log, &sound, &what);
            let log = Log::open_on(backend.clone(), options()).unwrap();
            check_sound(&log, &sound, &what);
            log.close().unwrap();
            assert_eq!(
                files_of(&backend),
                sound.files,
                "every index is right again; {what}"
            );
        }
    }
}

/// As a crash leaves it: no index at all to tell where records stand.
#[test]
fn a_flipped_bit_of_a_store_without_an_index_gives_no_wrong_bytes() {
    let mut sound = closed_log();
    sound.files.retain(|name, _| name.ends_with(".store"));
    for frame in frames_of(&sound.files) {
        for bit in 0..frame.bytes.len() * 8 {
            let what = format!(
                "bit {} of byte {} of {} ({})",
                bit % 8,
                bit / 8,
                frame.first,
                frame.store
            );
            let files = flipped(&sound.files, &frame.store, frame.position * 8 + bit);
            let log = Log::open_on(memory_of(&files), options()).unwrap();
            // The very last batch may be taken for a torn one; all before it is there.
            let last_batch = sound.next().0 - LAST_BATCH;
            for (&offset, record) in &sound.records {
                match log.read(offset) {
                    Ok(read) => check_value(&read, record, &frame, bit, &what),
                    Err(Error::Corrupt { offset, .. }) => {
                        assert_eq!(offset, frame.first, "{what}")
                    }
                    Err(Error::OffsetOutOfRange { .. }) => {
                        assert!(
                            offset.0 >= last_batch && frame.first.0 >= last_batch,
                            "{offset} is gone; {what}"
                        );
                    }
                    Err(error) => panic!("{error}; {what}"),
                }
            }
        }
    }
}

/// A log of several segments: the book's records, then checked ones, alone and in batches, with offsets left out among
/// them and before a segment.
struct Sound {
    files: Files,
    records: BTreeMap<Offset, Record>,
    next: Offset,
}

/// How many records the last batch has.
const LAST_BATCH: u64 = 3;

impl Sound {
    fn next(&self) -> Offset {
        self.next
    }
}

fn closed_log() -> Sound {
    let book = ["hello world", "b", "", "x", "0123456789"];
    let store: Vec<u8> = book
        .iter()
        .zip(0..)
        .flat_map(|(value, n)| Fields::new(n, *value).book_frame())
        .collect();
    let backend = memory_of(&Files::from([
        ("0.index".into(), index_of(&store)),
        ("0.store".into(), store),
    ]));
    let log = Log::open_on(backend.clone(), options()).unwrap();
    let headers = [Header::new("trace", "4bf9"), Header::new("", "")];
    log.append(NewRecord::new("checked").timestamp_ms(1_700_000_000_000))
        .unwrap();
    log.append(NewRecord::new("with a key").key("k")).unwrap();
    log.append_batch(["first of two", "second of two"].map(NewRecord::new))
        .unwrap();
    log.append(NewRecord::new("with headers").headers(&headers))
        .unwrap();
    let skip = |offsets, cause| {
        let next = log.next_offset().plus(offsets);
        log.skip_to_because(next, cause).unwrap();
    };
    skip(3, GapCause::Skipped);
    log.append(NewRecord::new("")).unwrap();
    skip(5000, GapCause::Compacted);
    log.append(NewRecord::new(&[b'v'; 130])).unwrap();
    // What a damaged length might take for a record: one whole inside another's value.
    let after = log.next_offset().0 + 1;
    log.append(NewRecord::new(&Fields::new(after, "inner").frame()))
        .unwrap();
    skip(1, GapCause::Skipped);
    skip(2, GapCause::Lost);
    log.append_batch(["one", "two", "three"].map(NewRecord::new))
        .unwrap();
    let records: BTreeMap<_, _> = log
        .scan(..)
        .map(|record| record.unwrap())
        .map(|r| (r.offset(), r))
        .collect();
    assert!(log.segments().len() >= 3, "{:?}", log.segments());
    let next = log.next_offset();
    log.close().unwrap();
    assert_eq!(records.len(), 16);
    Sound {
        files: files_of(&backend),
        records,
        next,
    }
}

fn options() -> Options {
    Options::new().clock(Clock::NONE).segment_bytes_max(200)
}

/// A frame and where it stands.
struct Frame {
    store: String,
    position: usize,
    /// The offsets it is of: of a record one, of a gap as far as its segment has them.
    first: Offset,
    last: Offset,
    is_gap: bool,
    bytes: Vec<u8>,
    /// The bytes of the value, if no checksum vouches for them.
    unprotected: std::ops::Range<usize>,
}

fn frames_of(files: &Files) -> Vec<Frame> {
    let mut all = Vec::new();
    for (store, bytes) in files.iter().filter(|(name, _)| name.ends_with(".store")) {
        let mut position = 0;
        for frame in frames(bytes) {
            let gap = Gap::from_frame(frame);
            let (first, last, unprotected) = match gap {
                Some(gap) => {
                    let base = store.strip_suffix(".store").unwrap().parse().unwrap();
                    (gap.first.max(Offset(base)), gap.last, 0..0)
                }
                None => {
                    let record = Record::from_frame(frame.to_vec().into()).unwrap();
                    // The book's records: eight bytes of length, a tag, a byte of length, the value.
                    let unprotected = if record.is_checked() {
                        0..0
                    } else {
                        10..10 + record.value().len()
                    };
                    (record.offset(), record.offset(), unprotected)
                }
            };
            all.push(Frame {
                store: store.clone(),
                position,
                first,
                last,
                is_gap: gap.is_some(),
                bytes: frame.to_vec(),
                unprotected,
            });
            position += frame.len();
        }
    }
    all
}

fn flipped(files: &Files, name: &str, bit: usize) -> Files {
    let mut files = files.clone();
    files.get_mut(name).unwrap()[bit / 8] ^= 1 << (bit % 8);
    files
}

fn check_reads(log: &Log<MemoryBackend>, sound: &Sound, frame: &Frame, bit: usize, what: &str) {
    assert!(log.next_offset() >= sound.next(), "{what}");
    for (&offset, record) in &sound.records {
        match log.read(offset) {
            Ok(read) => check_value(&read, record, frame, bit, what),
            Err(Error::Corrupt { offset: told, .. }) => {
                assert_eq!(
                    (offset, told),
                    (frame.first, frame.first),
                    "the record that is damaged; {what}"
                );
            }
            Err(error) => panic!("record {offset}: {error}; {what}"),
        }
    }
    let scanned: Vec<_> = log
        .scan(..sound.next())
        .filter_map(|record| record.map(|r| r.offset()).ok())
        .collect();
    let expected: Vec<_> = sound
        .records
        .keys()
        .filter_map(|&offset| log.read(offset).map(|r| r.offset()).ok())
        .collect();
    assert_eq!(scanned, expected, "a scan tells the same as reads; {what}");
}

/// A record that was read is right; only in the value of one without checksum may a bit be wrong.
fn check_value(read: &Record, sound: &Record, frame: &Frame, bit: usize, what: &str) {
    let undetectable = frame.unprotected.contains(&(bit / 8));
    if sound.offset() != frame.first {
        assert_eq!(read.frame(), sound.frame(), "{what}");
    } else {
        assert!(undetectable, "damage is accepted as {read:?}; {what}");
        let mut bytes = frame.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(read.frame(), bytes, "{what}");
    }
}

fn check_report(log: &Log<MemoryBackend>, sound: &Sound, frame: &Frame, bit: usize, what: &str) {
    let report = log.verify().unwrap();
    if frame.unprotected.contains(&(bit / 8)) {
        assert!(
            report.is_sound(),
            "no checksum, so no one can tell: {report:?}; {what}"
        );
    } else {
        // What a gap before its segment told of is missing then.
        let damage: Vec<_> = report
            .damage()
            .filter(|damage| damage.bytes > 0)
            .map(|damage| (damage.first, damage.last))
            .collect();
        assert_eq!(damage, [(frame.first, frame.last)], "{what}");
        let missing = report.damage().any(|damage| damage.bytes == 0);
        assert!(frame.is_gap || !missing, "{what}");
        let records = sound.records.len() as u64 - u64::from(!frame.is_gap);
        assert_eq!(report.records(), records, "{what}");
    }
    assert_eq!(report.torn_tail(), None, "{what}");
}

fn check_sound(log: &Log<MemoryBackend>, sound: &Sound, what: &str) {
    assert_eq!(
        (log.lowest_offset(), log.next_offset()),
        (Offset(0), sound.next()),
        "{what}"
    );
    for (&offset, record) in &sound.records {
        let read = log
            .read(offset)
            .unwrap_or_else(|error| panic!("{error}; {what}"));
        assert_eq!(read.frame(), record.frame(), "{what}");
    }
    // What is not there has entries too.
    for segment in log.segments() {
        for offset in (segment.base.0..segment.next.0).map(Offset) {
            if !sound.records.contains_key(&offset) {
                let read = log.read(offset);
                assert!(matches!(read, Err(Error::Gap { .. })), "{read:?}; {what}");
            }
        }
    }
    assert!(log.verify().unwrap().is_sound(), "{what}");
}
