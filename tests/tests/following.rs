//! `Log::open_read_only` beside a writer: also where the writer has filled its store with zeros ahead of time, and
//! while it goes on.
//!
//! PROGLOG_FOLLOWING_SECONDS says how long, PROGLOG_FOLLOWING_SEED where the randomness starts.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    ops::Range,
    path::Path,
    process::{Child, ChildStdout, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use proglog::{
    Clock, Durability, Error, FileAccess, FsBackend, Log, NewRecord, Next, Offset, Options, Record,
};
use proglog_host::{EngineKind, ErrorKind, Mode, open};
use proglog_tests::{program, seeds};
use tempfile::TempDir;

const SECONDS: u64 = 3;
/// Longer than anything takes, unless it never comes.
const LONG: Duration = Duration::from_secs(600);

#[test]
fn prepared_space_is_no_record_to_a_reader() {
    let directory = TempDir::new().unwrap();
    let writer = Log::open(directory.path(), options()).unwrap();
    for n in 0..40 {
        append(&writer, n..n + 1, Durability::Synced);
    }
    let store_bytes = || {
        let store = directory.path().join("0.store");
        fs::metadata(store).unwrap().len()
    };
    let held = writer.segments()[0].store_bytes;
    let since = Instant::now();
    while store_bytes() == held {
        assert!(
            since.elapsed() < Duration::from_secs(10),
            "nothing is prepared"
        );
        thread::sleep(Duration::from_millis(5));
    }
    let reader = Log::open_read_only(directory.path(), options()).unwrap();
    let mut next = 40;
    for round in 0..40 {
        assert_eq!(reader.next_offset(), Offset(next), "round {round}");
        assert!(reader.durable_offset() <= writer.durable_offset());
        assert!(reader.recovery_report().is_sound());
        assert!(reader.verify().unwrap().is_sound());
        check_all(&reader, 0..next);
        let fresh = Log::open_read_only(directory.path(), options()).unwrap();
        check_all(&fresh, 0..next);
        // What it wrote is seen once it was asked for, and not before.
        let batch = next..next + 1 + round;
        append(
            &writer,
            batch.clone(),
            [Durability::Written, Durability::Synced][usize::try_from(round % 2).unwrap()],
        );
        assert_eq!(reader.next_offset(), Offset(next));
        reader.refresh().unwrap();
        next = batch.end;
        if round % 8 == 0 {
            // So that it prepares at rest.
            thread::sleep(Duration::from_millis(120));
        }
    }
    // Closed, it gives the space back; the reader goes on.
    writer.close().unwrap();
    reader.refresh().unwrap();
    check_all(&reader, 0..next);
    assert!(reader.verify().unwrap().is_sound());
    let files: u64 = Log::open_read_only(directory.path(), options())
        .unwrap()
        .segments()
        .iter()
        .map(|segment| segment.store_bytes)
        .sum();
    let stores = fs::read_dir(directory.path()).unwrap().map(Result::unwrap);
    let on_disk: u64 = stores
        .filter(|entry| entry.path().extension().is_some_and(|kind| kind == "store"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert_eq!(files, on_disk);
}

#[test]
fn a_reader_learns_how_far_the_log_is_durable() {
    let directory = TempDir::new().unwrap();
    let options = options().segment_bytes_max(2_000);
    let writer = Log::open(directory.path(), options.clone()).unwrap();
    append(&writer, 0..3, Durability::Synced);
    let reader = Log::open_read_only(directory.path(), options).unwrap();
    assert_eq!(reader.durable_offset(), Offset(3));
    append(&writer, 3..5, Durability::Written);
    reader.refresh().unwrap();
    assert_eq!(reader.next_offset(), Offset(5));
    assert_eq!(reader.durable_offset(), Offset(3));
    writer.sync().unwrap();
    assert_eq!(reader.durable_offset(), Offset(3));
    reader.refresh().unwrap();
    assert_eq!(reader.durable_offset(), Offset(5));
    // Over many segments, of which the last ones may wait to be sealed.
    for next in 5..60 {
        append(&writer, next..next + 1, Durability::Written);
        reader.refresh().unwrap();
        assert_eq!(reader.next_offset(), Offset(next + 1));
        assert!(reader.durable_offset() <= reader.next_offset());
    }
    assert!(writer.segments().len() > 3);
    writer.sync().unwrap();
    reader.refresh().unwrap();
    // The first entry of an index alone says nothing.
    assert!(reader.durable_offset() >= Offset(59));
    append(&writer, 60..62, Durability::Synced);
    reader.refresh().unwrap();
    assert!(reader.durable_offset() >= Offset(61));
    // It goes back with the log.
    writer.truncate_after(Offset(1)).unwrap();
    reader.refresh().unwrap();
    assert_eq!(reader.durable_offset(), Offset(2));
    assert_eq!(reader.next_offset(), Offset(2));
    writer.close().unwrap();
}

#[test]
fn a_reader_of_a_log_that_is_begun_anew() {
    let directory = TempDir::new().unwrap();
    let options = options().segment_bytes_max(500);
    let writer = Log::open(directory.path(), options.clone()).unwrap();
    append(&writer, 0..40, Durability::Synced);
    append(&writer, 40..41, Durability::Synced);
    let fresh = || Log::open_read_only(directory.path(), options.clone()).unwrap();
    let (reader, other) = (fresh(), fresh());
    check_all(&reader, 0..41);
    // What is removed may have other names.
    let copy = TempDir::new().unwrap();
    for entry in fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        fs::hard_link(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    writer.reset().unwrap();
    // What was read is still there, until the log is looked at again. So it is where it was not read yet.
    check_all(&reader, 0..41);
    reader.refresh().unwrap();
    assert_eq!(reader.next_offset(), Offset(0));
    match other.read(Offset(3)) {
        Err(Error::OffsetOutOfRange { lowest, next, .. }) => {
            assert_eq!((lowest, next), (Offset(0), Offset(0)));
        }
        found => panic!("{found:?}"),
    }
    writer.close().unwrap();

    // A writer that was killed before it made the first segment.
    for name in ["0.store", "0.index"] {
        fs::remove_file(directory.path().join(name)).unwrap();
    }
    for log in [&reader, &other] {
        log.refresh().unwrap();
        assert_eq!(log.lowest_offset(), log.next_offset());
        assert_eq!(log.scan(..).count(), 0);
    }
    let absent = Log::open_read_only(directory.path(), options.clone());
    assert!(matches!(absent, Err(Error::InvalidArgument(_))));
    let writer = Log::open(directory.path(), options.clone()).unwrap();
    append(&writer, 0..2, Durability::Synced);
    for log in [&reader, &other] {
        log.refresh().unwrap();
        check_all(log, 0..2);
    }
    writer.close().unwrap();
}

#[test]
fn a_reader_opens_a_log_that_is_being_begun_anew() {
    let directory = TempDir::new().unwrap();
    // All that there is between the last of the old stores and the first of the new ones.
    fs::write(directory.path().join("7.index"), [0; 12]).unwrap();
    let writer = thread::spawn({
        let directory = directory.path().to_owned();
        move || {
            thread::sleep(Duration::from_millis(60));
            let writer = Log::open(directory, options()).unwrap();
            append(&writer, 0..1, Durability::Synced);
            writer.close().unwrap();
        }
    });
    let reader = Log::open_read_only(directory.path(), options()).unwrap();
    writer.join().unwrap();
    reader.refresh().unwrap();
    check_all(&reader, 0..1);
}

#[test]
fn a_reader_follows_a_writer_that_appends_and_rolls() {
    follow(FileAccess::Mapped);
}

#[test]
fn a_reader_by_calls_follows_a_writer_that_appends_and_rolls() {
    follow(FileAccess::Calls);
}

/// With either engine: a process appends, line by line as it is told to, and another truncates.
#[test]
fn a_subscription_follows_another_process() {
    for engine in [EngineKind::Native, EngineKind::Wasm] {
        let directory = TempDir::new().unwrap();
        let mut writer = Writer::start(directory.path());
        writer.append("first");
        let reader = open(engine, directory.path(), Mode::Read, Options::new()).unwrap();
        let mut subscription = reader.subscribe(Offset(0));
        let mut expect = |value: &str| match subscription.next_timeout(LONG) {
            Ok(Next::Record(record)) => assert_eq!(record.value(), value.as_bytes()),
            found => panic!("{engine:?}: {found:?} for {value}"),
        };
        expect("first");
        for n in 0..40 {
            let value = format!("{n} in segments of its own now and then");
            writer.append(&value);
            expect(&value);
        }
        writer.end();
        assert!(reader.segments().unwrap().len() > 2);
        assert!(matches!(
            subscription.next_timeout(Duration::ZERO),
            Ok(Next::NotYet)
        ));
        let log = Log::open(directory.path(), Options::new()).unwrap();
        log.truncate_after(Offset(2)).unwrap();
        log.close().unwrap();
        // Perhaps it saw a part of it.
        while subscription.offset() != Offset(3) {
            let e = subscription.next_timeout(LONG).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::OffsetOutOfRange, "{e}");
            assert!(matches!(subscription.next_timeout(LONG), Ok(Next::Ended)));
            subscription.seek(reader.next_offset().unwrap());
        }
        let mut writer = Writer::start(directory.path());
        writer.append("in its place");
        match subscription.next_timeout(LONG) {
            Ok(Next::Record(record)) => assert_eq!(record.value(), b"in its place"),
            found => panic!("{engine:?}: {found:?}"),
        }
        // Retention passes it.
        subscription.seek(Offset(0));
        for _ in 0..20 {
            writer.append("more, so that there are several segments again");
        }
        writer.end();
        let log = Log::open(directory.path(), Options::new()).unwrap();
        log.truncate_before(Offset(20)).unwrap();
        let lowest = log.lowest_offset();
        assert!(lowest > Offset(3));
        log.close().unwrap();
        reader.refresh().unwrap();
        let e = subscription.next_timeout(LONG).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OffsetOutOfRange);
        assert!(e.to_string().contains(&format!("holds {lowest} to")), "{e}");
        drop(subscription);
        reader.close().unwrap();
    }
}

/// With either engine, also where it was never at the end.
#[test]
fn a_subscription_is_told_what_was_truncated_below_it() {
    for engine in [EngineKind::Native, EngineKind::Wasm] {
        let directory = TempDir::new().unwrap();
        let log = open(engine, directory.path(), Mode::Write, Options::new()).unwrap();
        let values = [NewRecord::new(b"any"); 10];
        log.append_batch(&values).unwrap();
        let mut subscription = log.subscribe(Offset(0));
        for n in 0..10 {
            match subscription.next_timeout(LONG) {
                Ok(Next::Record(record)) => assert_eq!(record.offset(), Offset(n)),
                found => panic!("{engine:?}: {found:?}"),
            }
        }
        log.truncate_after(Offset(3)).unwrap();
        let e = subscription
            .next_timeout(Duration::from_secs(1))
            .unwrap_err();
        assert_eq!(e.kind(), ErrorKind::OffsetOutOfRange, "{e}");
        assert!(matches!(subscription.next_timeout(LONG), Ok(Next::Ended)));
        subscription.seek(Offset(4));
        log.append_batch(&values[..1]).unwrap();
        match subscription.next_timeout(LONG) {
            Ok(Next::Record(record)) => assert_eq!(record.offset(), Offset(4)),
            found => panic!("{engine:?}: {found:?}"),
        }
        drop(subscription);
        log.close().unwrap();
    }
}

/// A process that appends what it is told to.
struct Writer {
    program: Child,
    acknowledged: BufReader<ChildStdout>,
}

impl Writer {
    fn start(directory: &Path) -> Self {
        let mut program = program::proglog()
            .arg("append")
            .arg(directory)
            .args(["--acks", "--segment-bytes-max", "500", "--engine", "native"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let acknowledged = BufReader::new(program.stdout.take().unwrap());
        Self {
            program,
            acknowledged,
        }
    }

    /// Returns once it is appended.
    fn append(&mut self, line: &str) {
        let input = self.program.stdin.as_mut().unwrap();
        writeln!(input, "{line}").unwrap();
        let mut offset = String::new();
        self.acknowledged.read_line(&mut offset).unwrap();
        assert!(offset.trim().parse::<u64>().is_ok(), "{offset}");
    }

    fn end(mut self) {
        drop(self.program.stdin.take());
        assert!(self.program.wait().unwrap().success());
    }
}

fn follow(access: FileAccess) {
    let seconds = seeds::variable("FOLLOWING", "SECONDS").unwrap_or(SECONDS);
    let seed = seeds::first_or_new("FOLLOWING");
    println!("PROGLOG_FOLLOWING_SEED={seed}");
    let directory = TempDir::new().unwrap();
    let options = options().segment_bytes_max(100_000);
    let writer = Log::open(directory.path(), options.clone()).unwrap();
    append(&writer, 0..1, Durability::Synced);
    let ended = AtomicBool::new(false);
    // All below it is with the operating system.
    let written = AtomicU64::new(1);
    let end = Instant::now() + Duration::from_secs(seconds);
    thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let _ended = End(&ended);
            let backend = FsBackend::open_read_only(directory.path()).unwrap();
            let backend = backend.file_access(access);
            let reader = Log::open_read_only_on(backend, options).unwrap();
            let mut at = 0;
            let mut refreshes = 0_u64;
            while !ended.load(SeqCst) {
                let expected = written.load(SeqCst);
                reader.refresh().unwrap();
                refreshes += 1;
                let (lowest, next) = (reader.lowest_offset().0, reader.next_offset().0);
                assert!(next >= expected, "{next} of {expected}");
                assert_eq!(lowest, 0);
                assert!(reader.durable_offset().0 <= next);
                // It may be back at what was acknowledged.
                check_all(&reader, at.min(next)..next);
                at = next;
            }
            println!("{refreshes} refreshes, {at} records");
        });
        {
            let _ended = End(&ended);
            let mut rng = Rng::with_seed(seed);
            while Instant::now() < end && !ended.load(SeqCst) {
                let next = writer.next_offset().0;
                match rng.u32(..400) {
                    0..30 => thread::sleep(Duration::from_micros(rng.u64(..4000))),
                    _ => {
                        let records = if rng.u8(..3) == 0 { rng.u64(2..60) } else { 1 };
                        let durability = match rng.u8(..6) {
                            0 => Durability::Synced,
                            1 => Durability::Buffered,
                            _ => Durability::Written,
                        };
                        append(&writer, next..next + records, durability);
                        if durability != Durability::Buffered {
                            written.store(next + records, SeqCst);
                        }
                    }
                }
            }
        }
        follower.join().unwrap();
    });
    assert!(writer.verify().unwrap().is_sound());
    writer.close().unwrap();
}

/// Ends it for both when one ends.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// That the log has these records, and its last batch as a whole.
fn check_all(log: &Log, offsets: Range<u64>) {
    let mut next = offsets.start;
    for record in log.scan(Offset(offsets.start)..Offset(offsets.end)) {
        check(&record.unwrap(), next);
        next += 1;
    }
    assert_eq!(next, offsets.end);
    if let Some(any) = offsets
        .end
        .checked_sub(1)
        .filter(|&any| any >= offsets.start)
    {
        match log.read(Offset(any)) {
            Ok(record) => assert_eq!(check(&record, any).end, offsets.end),
            Err(e @ Error::Corrupt { .. }) => panic!("{e}"),
            Err(e) => panic!("{any} in {offsets:?}: {e}"),
        }
    }
}

/// Gives the offsets of the record's batch.
fn check(record: &Record, at: u64) -> Range<u64> {
    assert_eq!(record.offset(), Offset(at));
    let number = |n: usize| {
        let bytes = record.value().get(n * 8..).and_then(<[u8]>::first_chunk);
        u64::from_be_bytes(*bytes.expect("a value of ours"))
    };
    let batch = number(0)..number(1);
    assert!(batch.contains(&at), "{at} in {batch:?}");
    assert_eq!(u64::from(record.batch_remaining()), batch.end - 1 - at);
    assert!(record.value() == value(at, &batch), "record {at}");
    batch
}

fn value(offset: u64, batch: &Range<u64>) -> Vec<u8> {
    let mut value = batch.start.to_be_bytes().to_vec();
    value.extend_from_slice(&batch.end.to_be_bytes());
    let mut rng = Rng::with_seed(offset);
    let bytes = if rng.u8(..100) == 0 {
        rng.usize(30_000..50_000)
    } else {
        rng.usize(..300)
    };
    value.resize_with(16 + bytes, || rng.u8(..));
    value
}

fn append(log: &Log, batch: Range<u64>, durability: Durability) {
    let values: Vec<_> = batch.clone().map(|offset| value(offset, &batch)).collect();
    let offsets = log.append_batch_with(&values, durability).unwrap();
    assert_eq!(offsets, Offset(batch.start)..Offset(batch.end));
}

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}
