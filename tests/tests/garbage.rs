//! Random bytes as stores and indexes: opening never panics, never hangs, never allocates what a length
//! only claims, and never removes a sound record. The seed of a failure is printed.

use std::process::ExitCode;

use fastrand::Rng;
use proglog::{Clock, NewRecord, Offset, Options};
use proglog_host::{Engine, ErrorKind, Mode};
use proglog_tests::{
    cases,
    schema::{Fields, frames, index_of},
    seeds,
    subject::{Files, Subject},
    trials,
};

fn main() -> ExitCode {
    trials::main(cases![
        random_bytes,
        sound_records_among_garbage,
        random_files_of_random_names
    ])
}

fn rounds(subject: &dyn Subject, round: impl Fn(&mut Rng)) {
    let count = if subject.path().is_some() { 60 } else { 2000 };
    seeds::for_each("GARBAGE", count, |rng| {
        for name in subject.files().keys() {
            subject.remove(name);
        }
        round(rng);
    });
}

fn random_bytes(subject: &dyn Subject) {
    rounds(subject, |rng| {
        // Far enough apart that not both can hold an offset.
        for base in [0, 100 + rng.u64(0..50)] {
            let mut files = [Vec::new(), Vec::new()];
            if rng.bool() {
                files[0] = random_store(base, rng);
                files[1] = index_of(&files[0]);
            }
            for (file, name) in files.iter_mut().zip(["store", "index"]) {
                for _ in 0..rng.usize(0..3) {
                    let at = rng.usize(0..=file.len());
                    let end = if rng.bool() {
                        at
                    } else {
                        rng.usize(at..=file.len())
                    };
                    let length = rng.usize(0..200);
                    file.splice(at..end, bytes(rng, length));
                }
                subject.write(&format!("{base}.{name}"), file);
            }
        }
        exercise(subject);
    });
}

fn sound_records_among_garbage(subject: &dyn Subject) {
    rounds(subject, |rng| {
        let mut store = random_store(0, rng);
        let sound: Vec<_> = frames(&store.clone()).map(<[u8]>::to_vec).collect();
        let (before, mut index) = (store.clone(), index_of(&store));
        for _ in 0..rng.usize(1..4) {
            mutate(&mut store, rng);
        }
        let vouched = rng.bool();
        if !vouched {
            mutate(&mut index, rng);
        }
        let padding = if rng.bool() { rng.usize(0..100) } else { 0 };
        subject.write("0.store", &store);
        subject.write("0.index", &[index, vec![0; padding]].concat());
        exercise(subject);

        // Where no index vouches for what stands after bad bytes, it may belong to a torn record's value.
        let untouched = before
            .iter()
            .zip(&store)
            .take_while(|(a, b)| a == b)
            .count();
        let kept = if vouched {
            &store[..]
        } else {
            &store[..untouched]
        };
        let files = subject.files();
        for frame in sound.iter().filter(|frame| contains(kept, frame)) {
            let found = files
                .iter()
                .any(|(name, bytes)| name.ends_with(".store") && contains(bytes, frame));
            assert!(
                found,
                "a sound frame is gone: {} of {}",
                hex::encode(frame),
                hex::encode(&store)
            );
        }
    });
}

fn random_files_of_random_names(subject: &dyn Subject) {
    rounds(subject, |rng| {
        let mut strays = Files::new();
        for _ in 0..rng.usize(1..8) {
            // The last offsets there are. In wasm they are half as many.
            let last = if subject.path().is_some() {
                (1 << 63) - 2
            } else {
                u64::MAX
            };
            let last = [last, last - 1].map(|base| base.to_string());
            let name = ["0", "100", "700", &last[0], &last[1], "x", "00", "-1"][rng.usize(0..8)];
            let suffix = [".store", ".index", ".store.index", ""][rng.usize(0..4)];
            let length = rng.usize(0..100);
            let (name, bytes) = (format!("{name}{suffix}"), bytes(rng, length));
            subject.write(&name, &bytes);
            if !is_ours(&name) {
                strays.insert(name, bytes);
            }
        }
        exercise(subject);
        let files = subject.files();
        for (name, bytes) in strays {
            assert_eq!(files[&name], bytes, "{name} is left alone");
        }
    });
}

/// Opens, reads all, verifies, appends and closes; every failure is an error that says so.
fn exercise(subject: &dyn Subject) {
    for mode in [Mode::Read, Mode::Write] {
        let before = subject.files();
        let log = match subject.open(mode, options()) {
            Ok(log) => log,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
                continue;
            }
        };
        let held = read_all(&*log);
        let report = log.verify().unwrap();
        assert_eq!(
            report.records(),
            held.len() as u64,
            "verify counts what can be read: {report:?}"
        );
        if mode == Mode::Read {
            log.close().unwrap();
            assert_eq!(before, subject.files(), "a reader changes nothing");
            continue;
        }
        let next = log.next_offset().unwrap();
        let appended = log.append_batch(&[NewRecord::new("appended")]);
        if next.0 < u64::MAX {
            assert_eq!(appended.unwrap().start, next);
        }
        log.close().unwrap();

        let log = subject.open(Mode::Write, options()).unwrap();
        let again = read_all(&*log);
        assert_eq!(
            again[..held.len()],
            held[..],
            "what was read is there again"
        );
        if next.0 < u64::MAX {
            assert_eq!(log.read(next).unwrap().value(), b"appended");
        }
        log.close().unwrap();
    }
}

/// The frames of all records that can be read.
fn read_all(log: &dyn Engine) -> Vec<Vec<u8>> {
    let (lowest, next) = (log.lowest_offset().unwrap(), log.next_offset().unwrap());
    assert!(lowest <= next);
    let mut all = Vec::new();
    let mut at = lowest;
    while at < next {
        match log.read_batch(at, 4096) {
            Ok(batch) => {
                assert!(!batch.is_empty(), "at least one record");
                for record in batch {
                    let record = record.unwrap();
                    assert_eq!(record.offset(), at);
                    all.push(record.frame().to_vec());
                    at = at.next();
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                at = after_damage(log, at);
            }
        }
    }
    all
}

/// The offset after a damaged stretch, which may be long: as long as a gap between two segments.
fn after_damage(log: &dyn Engine, damaged: Offset) -> Offset {
    let report = log.verify().unwrap();
    let stretch = report
        .damage()
        .find(|d| (d.first..=d.last).contains(&damaged));
    stretch
        .unwrap_or_else(|| panic!("{damaged} cannot be read, but {report:?}"))
        .last
        .next()
}

/// A store of a few sound records.
fn random_store(base: u64, rng: &mut Rng) -> Vec<u8> {
    let mut store = Vec::new();
    for offset in base..base + rng.u64(1..12) {
        let length = rng.usize(0..60);
        store.extend(Fields::new(offset, bytes(rng, length)).frame());
    }
    store
}

/// What a disk or a crash may do to a file: bytes overwritten, zeroed, flipped, cut off or left over at
/// the end. The others stay where they are.
fn mutate(file: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.usize(0..=file.len());
    let length = rng.usize(0..40);
    let end = (at + length).min(file.len());
    match rng.u8(0..5) {
        0 => file.truncate(at),
        1 => file.extend(bytes(rng, length)),
        2 => file[at..end].fill(0),
        3 => file[at..end].copy_from_slice(&bytes(rng, end - at)),
        _ => {
            if let Some(byte) = file.get_mut(at) {
                *byte ^= 1 << rng.u32(0..8);
            }
        }
    }
}

/// Random bytes; half of the time small ones, which look more like lengths and tags.
fn bytes(rng: &mut Rng, length: usize) -> Vec<u8> {
    let small = rng.bool();
    (0..length)
        .map(|_| if small { rng.u8(0..24) } else { rng.u8(..) })
        .collect()
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

fn is_ours(name: &str) -> bool {
    let base = name.strip_suffix(".store").or(name.strip_suffix(".index"));
    base.is_some_and(|base| {
        base.parse::<u64>()
            .is_ok_and(|number| number.to_string() == base)
    })
}

fn options() -> Options {
    Options::new().clock(Clock::NONE).segment_bytes_max(300)
}
