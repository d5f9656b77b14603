//! Logs with offsets left out, of which a bit is flipped or a store is cut: it is told, no offset is given again, and all
//! else is read as before.
#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

use std::{collections::BTreeMap, thread};

use proglog::{
    Backend, Clock, Error, Gap, GapCause, Log, MemoryBackend, Offset, Options, Record, Result,
};

/// More than an index has room for here, so that they are a segment of their own.
const WIDE: u64 = 25;

/// What logs are made of: `r` a record, `b` a batch of two, `o` one offset that is left out, `n` three of them, `l` two
/// that were lost, `w` so many that they are a segment, `s` the next segment, `t` a truncation by one offset.
const LOGS: [&str; 22] = [
    "n", "nr", "rn", "rnr", "rno", "rnlr", "bnb", "rl", "rsn", "rsnr", "rnsrnr", "w", "wr", "rw",
    "rwrr", "rnwnr", "rwwr", "bwnbsl", "rnt", "rntr", "rwt", "rwtr",
];

fn options() -> Options {
    Options::new().clock(Clock::NONE).index_bytes_max(12 * 20)
}

type Files = BTreeMap<String, Vec<u8>>;

fn files_of(backend: &MemoryBackend) -> Files {
    let names = backend.list().unwrap();
    let with_bytes = names.into_iter().map(|name| {
        let bytes = backend.get(&name).unwrap();
        (name, bytes)
    });
    with_bytes.collect()
}

fn memory(files: &Files) -> MemoryBackend {
    let backend = MemoryBackend::new();
    for (name, bytes) in files {
        backend.insert(name.clone(), bytes.clone());
    }
    backend
}

/// A log as it is left when it is closed, or when the process is killed.
fn written(what: &str, closed: bool) -> Result<Files> {
    let backend = MemoryBackend::new();
    let mut log = Log::open_on(backend.clone(), options())?;
    for part in what.chars() {
        let next = log.next_offset();
        let skip = |log: &Log<_>, offsets, cause| log.skip_to_because(next.plus(offsets), cause);
        match part {
            'r' => drop(log.append(format!("record {next}").as_str())?),
            'b' => {
                log.append_batch(["first of two", "second of two"])?;
            }
            'o' => skip(&log, 1, GapCause::Skipped)?,
            'n' => skip(&log, 3, GapCause::Compacted)?,
            'l' => skip(&log, 2, GapCause::Lost)?,
            't' => log.truncate_after(Offset(next.0 - 2))?,
            'w' => skip(&log, WIDE, GapCause::Skipped)?,
            _ => {
                // A segment that is full is followed by the next.
                log.close()?;
                log = Log::open_on(backend.clone(), options().segment_bytes_max(1))?;
                log.append("in a segment of its own")?;
                log.close()?;
                log = Log::open_on(backend.clone(), options())?;
            }
        }
    }
    if closed {
        log.close()?;
        return Ok(files_of(&backend));
    }
    let files = files_of(&backend);
    drop(log);
    Ok(files)
}

/// What an offset gives.
#[derive(Clone, Debug, PartialEq)]
enum Held {
    Value(Vec<u8>),
    Gap(GapCause),
    Damaged,
}

fn held(log: &Log<MemoryBackend>, offset: u64) -> Held {
    match log.read(Offset(offset)) {
        Ok(record) => Held::Value(record.value().to_vec()),
        Err(Error::Gap { cause, .. }) => Held::Gap(cause),
        Err(Error::Corrupt { .. }) => Held::Damaged,
        Err(error) => panic!("{offset}: {error}"),
    }
}

/// A frame: its store, where it stands, and the offsets that it is of.
struct Frame {
    store: String,
    position: usize,
    bytes: usize,
    first: u64,
    last: u64,
}

fn frames_of(files: &Files) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (store, bytes) in files.iter().filter(|(name, _)| name.ends_with(".store")) {
        let mut position = 0;
        while position < bytes.len() {
            let rest = &bytes[position..];
            let whole = 8 + u64::from_be_bytes(*rest.first_chunk().unwrap()) as usize;
            let frame = rest[..whole].to_vec();
            let (first, last) = match Gap::from_frame(&frame) {
                Some(gap) => (gap.first.0, gap.last.0),
                None => {
                    let record = Record::from_frame(frame.into()).unwrap();
                    (record.offset().0, record.offset().0)
                }
            };
            frames.push(Frame {
                store: store.clone(),
                position,
                bytes: whole,
                first,
                last,
            });
            position += whole;
        }
    }
    frames
}

struct Sound {
    files: Files,
    frames: Vec<Frame>,
    held: BTreeMap<u64, Held>,
    next: u64,
}

impl Sound {
    fn of(files: Files) -> Result<Self> {
        let log = Log::open_read_only_on(memory(&files), options())?;
        assert!(log.verify()?.is_sound());
        let next = log.next_offset().0;
        let held = (0..next).map(|offset| (offset, held(&log, offset)));
        Ok(Self {
            held: held.collect(),
            frames: frames_of(&files),
            next,
            files,
        })
    }

    /// Looks at the log with this store in place of its own, whose frames that are not right any more are these.
    fn check(
        &self,
        store: &str,
        bytes: Vec<u8>,
        bad: impl Fn(&Frame) -> bool,
        what: &str,
    ) -> Result<()> {
        let mut files = self.files.clone();
        files.insert(store.to_owned(), bytes);
        let is_bad = |offset: u64| {
            let mut frames = self
                .frames
                .iter()
                .filter(|frame| (frame.first..=frame.last).contains(&offset));
            frames.any(&bad)
        };
        let log = Log::open_read_only_on(memory(&files), options())?;
        assert!(!log.verify()?.is_sound(), "{what}: {:?}", log.verify()?);
        self.check_offsets(&log, &is_bad, what);
        drop(log);
        let backend = memory(&files);
        for again in 0..2 {
            let log = Log::open_on(backend.clone(), options())?;
            let what = format!("{what}, opened {again}: {:?}", log.recovery_report());
            self.check_offsets(&log, &is_bad, &what);
            let offset = log.append("goes on")?;
            assert!(offset.0 >= self.next + again, "{what}");
            assert!(!log.verify()?.is_sound(), "{what}");
            let whole = self
                .held
                .iter()
                .filter(|(offset, held)| matches!(held, Held::Value(_)) && !is_bad(**offset));
            let whole = whole.count() as u64 + again + 1;
            let scanned = log.scan(..).filter_map(Result::ok).count() as u64;
            assert_eq!(scanned, whole, "{what}");
            if again == 0 {
                log.close()?;
            }
        }
        Ok(())
    }

    fn check_offsets(&self, log: &Log<MemoryBackend>, is_bad: &impl Fn(u64) -> bool, what: &str) {
        assert!(log.next_offset().0 >= self.next, "{what}");
        for (&offset, before) in &self.held {
            let now = held(log, offset);
            if is_bad(offset) {
                assert_eq!(now, Held::Damaged, "{what}: {offset}");
            } else {
                assert_eq!(&now, before, "{what}: {offset}");
            }
        }
    }
}

/// Each log closed, and as a killed process leaves it; side by side, for who reads a log looks at what is wrong at its end
/// again after a moment. Gives how much was tried.
fn every_log(check: impl Fn(&Sound, &str) -> u64 + Sync) -> u64 {
    let logs = LOGS.iter().flat_map(|what| [(what, true), (what, false)]);
    thread::scope(|scope| {
        let check = &check;
        let checked: Vec<_> = logs
            .map(|(what, closed)| {
                scope.spawn(move || {
                    let sound = Sound::of(written(what, closed).unwrap()).unwrap();
                    check(&sound, &format!("{what}, closed: {closed}"))
                })
            })
            .collect();
        let tried = checked.into_iter().map(|checked| checked.join().unwrap());
        tried.sum()
    })
}

#[test]
fn every_flipped_bit_is_told_and_no_offset_is_given_again() {
    let flips = every_log(|sound, what| {
        let mut flips = 0;
        for flipped in &sound.frames {
            let (store, position) = (&flipped.store, flipped.position);
            let bad = |frame: &Frame| (&frame.store, frame.position) == (store, position);
            for bit in 0..8 * flipped.bytes {
                let mut bytes = sound.files[store].clone();
                bytes[position + bit / 8] ^= 1 << (bit % 8);
                let what = format!("{what}, bit {bit} of {store} at {position}");
                sound.check(store, bytes, bad, &what).unwrap();
                flips += 1;
            }
        }
        flips
    });
    assert!(flips > 20_000, "{flips}");
}

#[test]
fn every_cut_is_told_and_no_offset_is_given_again() {
    let cuts = every_log(|sound, what| {
        let mut cuts = 0;
        for last in &sound.frames {
            let store = &last.store;
            for end in last.position..last.position + last.bytes {
                let bad =
                    |frame: &Frame| &frame.store == store && frame.position + frame.bytes > end;
                let what = format!("{what}, {store} cut to {end}");
                let bytes = sound.files[store][..end].to_vec();
                sound.check(store, bytes, bad, &what).unwrap();
                cuts += 1;
            }
        }
        cuts
    });
    assert!(cuts > 2_000, "{cuts}");
}
