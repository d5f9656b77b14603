//! `Log::subscribe`: every record once, in order and in time, whatever else goes on.
//!
//! No test measures how fast a subscription wakes, `make bench-tail` does; here one that is not woken hangs until its
//! timeout, and fails.
#![cfg(not(target_family = "wasm"))]

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc::channel,
    },
    thread,
    time::{Duration, Instant},
};

use proglog::{
    Backend, Clock, Durability, Error, Fault, FaultBackend, FsBackend, Log, MemoryBackend, Next,
    Offset, Options, Record, Subscription,
};
use tempfile::TempDir;

/// Longer than anything here takes, unless it never comes; also where the process is stopped for a while.
const LONG: Duration = Duration::from_secs(600);
const DURABILITIES: [Durability; 3] = [
    Durability::Synced,
    Durability::Written,
    Durability::Buffered,
];

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}

fn in_memory() -> Log<MemoryBackend> {
    Log::open_on(MemoryBackend::new(), options().segment_bytes_max(500)).unwrap()
}

fn on_disk(directory: &Path) -> Log {
    Log::open(directory, options().segment_bytes_max(500)).unwrap()
}

fn record<B: Backend>(subscription: &mut Subscription<B>) -> Record {
    match subscription.next_timeout(LONG) {
        Ok(Next::Record(record)) => record,
        found => panic!("{found:?} at {}", subscription.offset()),
    }
}

fn expect_nothing<B: Backend>(subscription: &mut Subscription<B>) {
    let found = subscription.try_next();
    assert!(matches!(found, Ok(Next::NotYet)), "{found:?}");
}

fn expect_end<B: Backend>(subscription: &mut Subscription<B>) {
    for _ in 0..2 {
        let found = subscription.next_timeout(LONG);
        assert!(matches!(found, Ok(Next::Ended)), "{found:?}");
    }
    assert!(subscription.next().is_none());
}

#[test]
fn timeout_record_and_end_are_different_things() {
    let log = in_memory();
    let mut subscription = log.subscribe(Offset(0));
    expect_nothing(&mut subscription);
    for timeout in [Duration::ZERO, Duration::from_millis(5)] {
        let began = Instant::now();
        let found = subscription.next_timeout(timeout);
        assert!(matches!(found, Ok(Next::NotYet)), "{found:?}");
        assert!(began.elapsed() >= timeout);
    }
    log.append_batch(["a", "b"]).unwrap();
    assert_eq!(record(&mut subscription).value(), b"a");
    assert_eq!(subscription.offset(), Offset(1));
    assert_eq!(record(&mut subscription).value(), b"b");
    expect_nothing(&mut subscription);
    subscription.seek(Offset(1));
    assert_eq!(record(&mut subscription).value(), b"b");
    // No later time can be told.
    log.append("c").unwrap();
    assert!(matches!(
        subscription.next_timeout(Duration::MAX),
        Ok(Next::Record(_))
    ));
    log.close().unwrap();
    expect_end(&mut subscription);
    subscription.seek(Offset(2));
    assert_eq!(record(&mut subscription).value(), b"c");
    expect_end(&mut subscription);
}

#[test]
fn from_past_the_end_it_waits_for_that_offset() {
    let log = in_memory();
    let waiting = thread::spawn({
        let mut subscription = log.subscribe(Offset(25));
        move || record(&mut subscription).offset()
    });
    for _ in 0..30 {
        log.append("any").unwrap();
    }
    assert_eq!(waiting.join().unwrap(), Offset(25));
}

#[test]
fn everyone_gets_every_record_in_memory() {
    everyone_gets_every_record(in_memory());
}

#[test]
fn everyone_gets_every_record_on_disk() {
    let directory = TempDir::new().unwrap();
    everyone_gets_every_record(on_disk(directory.path()));
}

/// Appenders of every promise, over many segments, the lowest of which are removed again and again.
fn everyone_gets_every_record<B: Backend + Send + Sync + 'static>(log: Log<B>)
where
    B::File: Send + Sync,
{
    const APPENDS: u64 = 400;
    const KEPT: u64 = 300;
    let subscribers: Vec<_> = (0..4_u64)
        .map(|number| {
            let mut subscription = log.subscribe(Offset(0));
            thread::spawn(move || {
                let (mut records, mut skips) = (0_u64, 0_u64);
                // The last number of each appender.
                let mut last = BTreeMap::new();
                loop {
                    let expected = subscription.offset();
                    match subscription.next_timeout(LONG) {
                        Ok(Next::Record(record)) => {
                            assert_eq!(record.offset(), expected);
                            let (appender, n) = parse(&record);
                            let before = last.insert(appender, n);
                            match before {
                                Some(before) if skips == 0 => assert_eq!(n, before + 1),
                                Some(before) => assert!(n > before, "{appender}: {before}, {n}"),
                                None => assert!(n == 0 || skips > 0),
                            }
                            records += 1;
                            if number == 0 && records.is_multiple_of(100) {
                                thread::sleep(Duration::from_millis(2));
                            }
                        }
                        Err(Error::OffsetOutOfRange { offset, lowest, .. }) => {
                            assert_eq!(offset, expected);
                            assert!(lowest > offset);
                            expect_end(&mut subscription);
                            skips += lowest.since(offset);
                            subscription.seek(lowest);
                        }
                        Ok(Next::Ended) => return (records + skips, subscription.offset()),
                        found => panic!("{found:?} at {expected}"),
                    }
                }
            })
        })
        .collect();
    thread::scope(|scope| {
        for (appender, durability) in (0..).zip(DURABILITIES) {
            let log = &log;
            scope.spawn(move || {
                let mut n = 0;
                while n < APPENDS {
                    let batch = if n.is_multiple_of(7) { 5 } else { 1 };
                    let values: Vec<_> = (n..n + batch).map(|n| value(appender, n)).collect();
                    log.append_batch_with(&values, durability).unwrap();
                    n += batch;
                    if n % 50 < batch {
                        let before = log.next_offset().0.saturating_sub(KEPT);
                        log.truncate_before(Offset(before)).unwrap();
                    }
                }
            });
        }
    });
    let end = log.next_offset();
    assert!(end.0 >= 3 * APPENDS);
    log.close().unwrap();
    for subscriber in subscribers {
        let (told, offset) = subscriber.join().unwrap();
        assert_eq!((told, offset), (end.0, end));
    }
}

fn value(appender: u64, n: u64) -> Vec<u8> {
    [appender.to_be_bytes(), n.to_be_bytes()].concat()
}

fn parse(record: &Record) -> (u64, u64) {
    let number = |at: usize| u64::from_be_bytes(record.value()[at..at + 8].try_into().unwrap());
    (number(0), number(8))
}

/// Two logs, each with a thread that answers in it whatever the other is appended: any wake-up that is lost ends it.
#[test]
fn no_wake_up_is_lost() {
    const ROUNDS: u64 = 100_000;
    let options = || options().durability(Durability::Buffered);
    let [here, there] = [0; 2]
        .map(|_| Log::open_on(MemoryBackend::new(), options().segment_bytes_max(1 << 20)).unwrap());
    let mut answers = there.subscribe(Offset(0));
    let mut questions = here.subscribe(Offset(0));
    let answering = thread::spawn(move || {
        while let Next::Record(question) = questions.next_timeout(LONG).unwrap() {
            there.append(question.value()).unwrap();
        }
    });
    for round in 0..ROUNDS {
        here.append(&round.to_be_bytes()[..]).unwrap();
        let answer = record(&mut answers);
        assert_eq!(answer.offset(), Offset(round));
        assert_eq!(answer.value(), round.to_be_bytes());
        if round.is_multiple_of(1000) {
            // So that both sleep.
            thread::sleep(Duration::from_millis(1));
            here.truncate_before(here.next_offset()).unwrap();
        }
    }
    here.close().unwrap();
    answering.join().unwrap();
}

/// As many waiters as appenders, each woken by the appends of all, over syncs and rolls.
#[test]
fn none_of_many_is_left_asleep() {
    const APPENDS: u64 = 300;
    for durability in DURABILITIES {
        let directory = TempDir::new().unwrap();
        let log = on_disk(directory.path());
        thread::scope(|scope| {
            for _ in 0..4 {
                let log = &log;
                scope.spawn(move || {
                    for _ in 0..APPENDS {
                        let offset = log.append_with("any", durability).unwrap();
                        // It may have been shown by now, or be by another's sync.
                        let mut subscription = log.subscribe(offset);
                        assert_eq!(record(&mut subscription).offset(), offset);
                    }
                });
                let mut subscription = log.subscribe(Offset(0));
                scope.spawn(move || {
                    for n in 0..4 * APPENDS {
                        assert_eq!(record(&mut subscription).offset(), Offset(n));
                    }
                });
            }
        });
    }
}

#[test]
fn closing_and_dropping_end_every_wait() {
    for close in [true, false] {
        let directory = TempDir::new().unwrap();
        let log = on_disk(directory.path());
        log.append_batch(["a", "b"]).unwrap();
        let (caught_up, is_caught_up) = channel();
        let waiting: Vec<_> = (0..8)
            .map(|_| {
                let subscription = log.subscribe(Offset(0));
                let caught_up = caught_up.clone();
                thread::spawn(move || {
                    let count = subscription
                        .inspect(|record| {
                            if record.as_ref().unwrap().offset() == Offset(1) {
                                caught_up.send(()).unwrap();
                            }
                        })
                        .count();
                    assert_eq!(count, 2);
                })
            })
            .collect();
        // That one is dropped is no one else's matter.
        let dropped = log.subscribe(Offset(0));
        for _ in &waiting {
            is_caught_up.recv().unwrap();
        }
        drop(dropped);
        thread::sleep(Duration::from_millis(20));
        if close {
            log.close().unwrap();
        } else {
            drop(log);
        }
        for thread in waiting {
            thread.join().unwrap();
        }
    }
}

#[test]
fn a_closed_log_can_be_opened_again_beside_its_subscriptions() {
    let directory = TempDir::new().unwrap();
    let log = on_disk(directory.path());
    for n in 0..40_u64 {
        log.append(&value(0, n)).unwrap();
    }
    let mut early = log.subscribe(Offset(0));
    let mut late = log.subscribe(Offset(0));
    let mut at_end = log.subscribe(Offset(39));
    assert_eq!(record(&mut at_end).offset(), Offset(39));
    log.close().unwrap();

    let next = on_disk(directory.path());
    next.append(&value(1, 40)).unwrap();
    expect_end(&mut at_end);
    for n in 0..40 {
        assert_eq!(parse(&record(&mut early)), (0, n));
    }
    expect_end(&mut early);
    // Others stand in their place by now, which it never gives for those it was to.
    next.truncate_after(Offset(10)).unwrap();
    for n in 11..60 {
        next.append(&value(1, n)).unwrap();
    }
    let mut given = 0;
    for found in late.by_ref() {
        match found {
            Ok(record) => {
                assert_eq!(parse(&record), (0, given));
                given += 1;
            }
            Err(Error::Io { .. }) => {}
            Err(e) => panic!("{e}"),
        }
    }
    assert!((11..=40).contains(&given), "{given}");
    expect_end(&mut late);
    next.close().unwrap();
    on_disk(directory.path()).remove().unwrap();
}

#[test]
fn a_subscription_that_fell_behind_is_told_the_lowest_offset() {
    let log = in_memory();
    for _ in 0..60 {
        log.append("any").unwrap();
    }
    let mut subscription = log.subscribe(Offset(0));
    log.truncate_before(Offset(50)).unwrap();
    let lowest = log.lowest_offset();
    assert!(lowest > Offset(0));
    match subscription.next_timeout(LONG) {
        Err(Error::OffsetOutOfRange {
            offset,
            lowest: named,
            next,
        }) => assert_eq!((offset, named, next), (Offset(0), lowest, Offset(60))),
        found => panic!("{found:?}"),
    }
    // It goes on where it is told to, and not by itself.
    expect_end(&mut subscription);
    assert_eq!(subscription.offset(), Offset(0));
    subscription.seek(lowest);
    for n in lowest.0..60 {
        assert_eq!(record(&mut subscription).offset(), Offset(n));
    }
    // All that was there is gone, but it has had that.
    log.truncate_before(Offset(60)).unwrap();
    expect_nothing(&mut subscription);
    log.append("more").unwrap();
    assert_eq!(record(&mut subscription).offset(), Offset(60));
}

#[test]
fn a_truncated_end_is_told_before_what_takes_its_place() {
    let log = in_memory();
    let fill = |to: u64| {
        while log.next_offset() < Offset(to) {
            log.append("any").unwrap();
        }
    };
    let expect_truncated = |subscription: &mut Subscription<MemoryBackend>, at, to| {
        match subscription.next_timeout(LONG) {
            Err(Error::Truncated { offset, next }) => {
                assert_eq!((offset, next), (Offset(at), Offset(to)));
            }
            found => panic!("{found:?}"),
        }
        expect_end(subscription);
        assert_eq!(subscription.offset(), Offset(at));
        subscription.seek(Offset(to));
    };
    fill(60);
    let mut behind = log.subscribe(Offset(0));
    assert_eq!(record(&mut behind).offset(), Offset(0));
    let mut waiting = log.subscribe(Offset(60));
    let mut within = log.subscribe(Offset(40));
    assert_eq!(record(&mut within).offset(), Offset(40));
    let mut at_cut = log.subscribe(Offset(30));
    let mut ahead = log.subscribe(Offset(100));
    log.truncate_after(Offset(29)).unwrap();
    expect_truncated(&mut waiting, 60, 30);
    expect_nothing(&mut waiting);
    // Others have their offsets by the time that these look.
    log.append("new").unwrap();
    fill(80);
    expect_truncated(&mut within, 41, 30);
    expect_truncated(&mut ahead, 100, 30);
    for subscription in [&mut within, &mut waiting, &mut at_cut] {
        assert_eq!(record(subscription).value(), b"new");
    }
    for n in 1..80 {
        let record = record(&mut behind);
        assert_eq!(record.offset(), Offset(n));
        let expected = if n == 30 { "new" } else { "any" };
        assert_eq!(record.value(), expected.as_bytes());
    }
    // The lowest of several.
    log.truncate_after(Offset(19)).unwrap();
    fill(30);
    log.truncate_after(Offset(24)).unwrap();
    fill(90);
    expect_truncated(&mut behind, 80, 20);
    // Who is waiting is woken to be told.
    behind.seek(Offset(90));
    let waiting = thread::spawn(move || behind.next_timeout(LONG));
    thread::sleep(Duration::from_millis(20));
    log.reset().unwrap();
    let found = waiting.join().unwrap();
    assert!(
        matches!(
            found,
            Err(Error::Truncated {
                next: Offset(0),
                ..
            })
        ),
        "{found:?}"
    );
}

/// Records name their generation, which a truncation begins: none is passed over unless it is told.
#[test]
fn truncations_beside_subscriptions() {
    let log = Log::open_on(MemoryBackend::new(), options().segment_bytes_max(2000)).unwrap();
    let (ended, generation) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let reading = [0; 2].map(|_| {
            let mut subscription = log.subscribe(Offset(0));
            let ended = &ended;
            scope.spawn(move || {
                let (mut generations, mut truncations) = (Vec::new(), 0);
                while !ended.load(SeqCst) {
                    let expected = subscription.offset();
                    match subscription.next_timeout(Duration::from_millis(50)) {
                        Ok(Next::Record(record)) => {
                            assert_eq!(record.offset(), expected);
                            let (generation, _) = parse(&record);
                            let before = generations.last().copied().unwrap_or(0);
                            assert!(generation >= before, "{generation} after {before}");
                            generations.push(generation);
                        }
                        Ok(Next::NotYet) => {}
                        Err(Error::Truncated { offset, next }) => {
                            assert!(offset == expected && next < offset);
                            generations.truncate(usize::try_from(next.0).unwrap());
                            truncations += 1;
                            subscription.seek(next);
                        }
                        found => panic!("{found:?}"),
                    }
                }
                println!("{truncations} truncations told");
                // What it was given last for each offset is what is there.
                let end = Instant::now() + LONG;
                loop {
                    match subscription.next_timeout(Duration::ZERO) {
                        Ok(Next::Record(record)) => generations.push(parse(&record).0),
                        Ok(Next::NotYet) => break,
                        Err(Error::Truncated { next, .. }) => {
                            generations.truncate(usize::try_from(next.0).unwrap());
                            subscription.seek(next);
                        }
                        found => panic!("{found:?}"),
                    }
                    assert!(Instant::now() < end);
                }
                generations
            })
        });
        let mut rng = fastrand::Rng::with_seed(7);
        let end = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < end {
            for _ in 0..rng.u64(1..60) {
                let generation = generation.load(SeqCst);
                log.append_with(&value(generation, 0), Durability::Buffered)
                    .unwrap();
            }
            generation.fetch_add(1, SeqCst);
            match rng.u8(..10) {
                0 => log.reset().unwrap(),
                _ => {
                    let next = log.next_offset().0;
                    let last = next.saturating_sub(rng.u64(1..80));
                    log.truncate_after(Offset(last)).unwrap();
                }
            }
        }
        ended.store(true, SeqCst);
        let held = log.scan(..).map(|record| parse(&record.unwrap()).0);
        let held: Vec<_> = held.collect();
        for reader in reading {
            assert_eq!(reader.join().unwrap(), held);
        }
    });
}

#[test]
fn a_damaged_record_is_told_and_passed_over() {
    let directory = TempDir::new().unwrap();
    let log = on_disk(directory.path());
    for n in 0..30 {
        log.append(&value(0, n)).unwrap();
    }
    assert!(log.segments().len() > 1);
    log.close().unwrap();
    let store = directory.path().join("0.store");
    let mut bytes = fs::read(&store).unwrap();
    let frame = bytes.windows(16).position(|bytes| bytes == value(0, 3));
    bytes[frame.unwrap()] ^= 1;
    fs::write(&store, bytes).unwrap();
    let log = on_disk(directory.path());
    let mut subscription = log.subscribe(Offset(0));
    for n in 0..30 {
        match subscription.next().unwrap() {
            Ok(record) => assert_eq!(parse(&record), (0, n)),
            Err(Error::Corrupt { offset, .. }) => assert_eq!((n, offset), (3, Offset(3))),
            Err(e) => panic!("{e}"),
        }
    }
    expect_nothing(&mut subscription);
}

#[test]
fn a_poisoned_log_is_told_to_those_who_wait() {
    let disk = FaultBackend::new();
    let log = Log::open_on(disk.clone(), options()).unwrap();
    log.append("before").unwrap();
    let mut behind = log.subscribe(Offset(0));
    let waiting = thread::spawn({
        let mut subscription = log.subscribe(Offset(1));
        move || {
            let found = subscription.next_timeout(LONG);
            assert!(matches!(found, Err(Error::Poisoned { .. })), "{found:?}");
            expect_end(&mut subscription);
        }
    });
    thread::sleep(Duration::from_millis(20));
    disk.fail(disk.operations() + 1, Fault::Error);
    log.append("never").unwrap_err();
    waiting.join().unwrap();
    assert_eq!(record(&mut behind).value(), b"before");
    assert!(matches!(behind.next(), Some(Err(Error::Poisoned { .. }))));
    assert!(behind.next().is_none());
}

#[test]
fn a_slow_subscription_does_not_hold_up_appends() {
    let directory = TempDir::new().unwrap();
    let log = Log::open(directory.path(), options().segment_bytes_max(1 << 20)).unwrap();
    log.append("first").unwrap();
    let never_read = log.subscribe(Offset(0));
    let mut began = log.subscribe(Offset(0));
    assert_eq!(record(&mut began).offset(), Offset(0));
    let value = vec![7; 10_000];
    for n in 1..3000_u64 {
        log.append_with(&value, Durability::Buffered).unwrap();
        if n.is_multiple_of(300) {
            log.truncate_before(Offset(n - 150)).unwrap();
        }
    }
    // Its segment is gone, and what it had of it with it.
    let end = loop {
        match began.next().unwrap() {
            Ok(record) => assert_eq!(record.value(), value),
            Err(e) => break e,
        }
    };
    assert!(matches!(end, Error::OffsetOutOfRange { lowest, .. } if lowest == log.lowest_offset()));
    assert_eq!(never_read.offset(), Offset(0));
}

#[test]
fn a_log_opened_read_only_is_followed() {
    for durability in DURABILITIES {
        let directory = TempDir::new().unwrap();
        let writer = on_disk(directory.path());
        writer.append("0").unwrap();
        let reader = Log::open_read_only(directory.path(), options()).unwrap();
        let mut subscription = reader.subscribe(Offset(0));
        assert_eq!(record(&mut subscription).value(), b"0");
        let reading = thread::spawn(move || {
            for n in 1..60_u64 {
                assert_eq!(record(&mut subscription).value(), n.to_string().as_bytes());
            }
            subscription
        });
        for n in 1..60_u64 {
            writer.append_with(&n.to_string(), durability).unwrap();
            if durability == Durability::Buffered && n.is_multiple_of(4) || n == 59 {
                writer.sync().unwrap();
            }
            if n.is_multiple_of(9) {
                thread::sleep(Duration::from_millis(15));
            }
        }
        let mut subscription = reading.join().unwrap();
        // Below where it is, and perhaps seen a segment at a time.
        writer.truncate_after(Offset(40)).unwrap();
        while subscription.offset() != Offset(41) {
            match subscription.next_timeout(LONG) {
                Err(Error::Truncated { offset, next }) => {
                    assert_eq!(offset, subscription.offset());
                    assert!(next < offset && next >= Offset(41));
                    subscription.seek(next);
                }
                found => panic!("{found:?}"),
            }
        }
        writer.append("in its place").unwrap();
        assert_eq!(record(&mut subscription).value(), b"in its place");
        subscription.seek(Offset(0));
        writer.truncate_before(Offset(40)).unwrap();
        let lowest = writer.lowest_offset();
        assert!(lowest > Offset(0));
        reader.refresh().unwrap();
        match subscription.next_timeout(LONG) {
            Err(Error::OffsetOutOfRange { lowest: named, .. }) => assert_eq!(named, lowest),
            found => panic!("{found:?}"),
        }
        subscription.seek(Offset(42));
        let waiting = thread::spawn(move || expect_end(&mut subscription));
        thread::sleep(Duration::from_millis(20));
        reader.close().unwrap();
        waiting.join().unwrap();
    }
}

#[test]
fn a_removed_log_ends_its_subscriptions() {
    let directory = TempDir::new().unwrap();
    let log = on_disk(&directory.path().join("log"));
    for n in 0..40 {
        log.append(&value(0, n)).unwrap();
    }
    let mut at_end = log.subscribe(Offset(40));
    let mut behind = log.subscribe(Offset(0));
    log.remove().unwrap();
    expect_end(&mut at_end);
    let left = behind.by_ref().filter(Result::is_ok).count();
    assert!(left <= 40);
    expect_end(&mut behind);
}

#[cfg(feature = "stream")]
mod stream {
    use std::{
        sync::{Arc, Mutex},
        task::{Context, Poll, Wake, Waker},
    };

    use futures_lite::{StreamExt, future};
    use proglog::SubscriptionStream;

    use super::*;

    #[test]
    fn a_stream_wakes_and_ends() {
        const ROUNDS: u64 = 20_000;
        let options = options().durability(Durability::Buffered);
        let log = Log::open_on(MemoryBackend::new(), options).unwrap();
        let mut records = log.subscribe(Offset(0)).into_stream();
        let (said, heard) = channel();
        let reading = thread::spawn(move || {
            future::block_on(async {
                let mut expected = 0;
                while let Some(record) = records.next().await {
                    assert_eq!(record.unwrap().offset(), Offset(expected));
                    expected += 1;
                    said.send(()).unwrap();
                }
                assert!(records.next().await.is_none());
                expected
            })
        });
        for _ in 0..ROUNDS {
            log.append("any").unwrap();
            heard.recv_timeout(LONG).unwrap();
        }
        log.close().unwrap();
        assert_eq!(reading.join().unwrap(), ROUNDS);
    }

    #[test]
    fn a_stream_gives_errors_and_can_be_told_where_to_go_on() {
        let log = in_memory();
        for _ in 0..60 {
            log.append("any").unwrap();
        }
        log.truncate_before(Offset(50)).unwrap();
        let mut records = log.subscribe(Offset(0)).into_stream();
        future::block_on(async {
            let found = records.next().await.unwrap();
            let Err(Error::OffsetOutOfRange { lowest, .. }) = found else {
                panic!("{found:?}");
            };
            assert!(records.next().await.is_none());
            records.subscription().seek(lowest);
            let record = records.next().await.unwrap().unwrap();
            assert_eq!(record.offset(), lowest);
        });
        let mut subscription = records.into_subscription();
        assert_eq!(subscription.offset(), Offset(log.lowest_offset().0 + 1));
        record(&mut subscription);
    }

    #[test]
    fn a_stream_of_a_log_opened_read_only_wakes_when_that_is_refreshed() {
        let directory = TempDir::new().unwrap();
        let writer = on_disk(directory.path());
        writer.append("a").unwrap();
        let reader = Log::open_read_only(directory.path(), options()).unwrap();
        let mut records = reader.subscribe(Offset(1)).into_stream();
        let reading =
            thread::spawn(move || future::block_on(records.next()).unwrap().unwrap().offset());
        writer.append("b").unwrap();
        thread::sleep(Duration::from_millis(20));
        reader.refresh().unwrap();
        assert_eq!(reading.join().unwrap(), Offset(1));
    }

    /// What a writer did is taken in by a read that meets it, too.
    #[test]
    fn a_stream_of_a_log_opened_read_only_wakes_when_a_read_finds_more() {
        let directory = TempDir::new().unwrap();
        let writer = on_disk(directory.path());
        let fill = |to: u64| (writer.next_offset().0..to).for_each(|n| append(&writer, n));
        fill(40);
        let reader = Log::open_read_only(directory.path(), options()).unwrap();
        let mut records = reader.subscribe(Offset(40)).into_stream();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        assert!(records.poll_next(&mut context).is_pending());
        // Nothing new is nothing to wake for.
        reader.refresh().unwrap();
        assert!(!woken.0.load(SeqCst));
        fill(60);
        writer.truncate_before(Offset(30)).unwrap();
        let found = reader.read(Offset(0));
        assert!(
            matches!(found, Err(Error::OffsetOutOfRange { .. })),
            "{found:?}"
        );
        assert_eq!(reader.next_offset(), Offset(60));
        assert!(woken.0.load(SeqCst));
        assert!(matches!(
            records.poll_next(&mut context),
            Poll::Ready(Some(Ok(_)))
        ));
    }

    fn append(log: &Log, n: u64) {
        log.append(&value(0, n)).unwrap();
    }

    /// A stream goes from task to task, and with the last waker of one that has ended goes another stream.
    #[test]
    fn a_waker_may_take_a_stream_with_it() {
        let log = in_memory();
        let mut records = log.subscribe(Offset(0)).into_stream();
        let mut other = log.subscribe(Offset(0)).into_stream();
        let mut nothing = Context::from_waker(Waker::noop());
        assert!(other.poll_next(&mut nothing).is_pending());
        let task = Arc::new(Task {
            _stream: Mutex::new(other),
        });
        let mut poll = move |waker: &Waker| {
            let mut context = Context::from_waker(waker);
            assert!(records.poll_next(&mut context).is_pending());
        };
        poll(&Waker::from(task));
        let (ended, has_ended) = channel();
        thread::spawn(move || {
            poll(Waker::noop());
            ended.send(()).unwrap();
        });
        has_ended.recv_timeout(LONG).expect("no deadlock");
    }

    struct Task {
        _stream: Mutex<SubscriptionStream<MemoryBackend>>,
    }

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }
}

#[test]
fn subscriptions_go_where_their_log_goes() {
    fn goes_anywhere<T: Send + 'static>() {}
    goes_anywhere::<Subscription<FsBackend>>();
    goes_anywhere::<Subscription<MemoryBackend>>();
}

#[test]
fn offsets_that_are_not_there_are_stepped_over() {
    let log = in_memory();
    let mut early = log.subscribe(Offset(0));
    for n in 0..40 {
        let value = format!("value {n}");
        log.append(proglog::NewRecord::new(&value).key(if n % 5 == 0 { "kept" } else { &value }))
            .unwrap();
        if n < 3 {
            assert_eq!(record(&mut early).offset(), Offset(n));
        }
    }
    log.skip_to(Offset(100)).unwrap();
    log.append("after").unwrap();
    let compacted = log.compact(&proglog::Compaction::new()).unwrap();
    assert!(compacted.records_removed > 0, "{compacted:?}");
    log.skip_to(Offset(200)).unwrap();

    let expected: Vec<_> = log
        .scan(..)
        .map(|record| record.unwrap().offset())
        .collect();
    assert!(!expected.contains(&Offset(5)) && expected.contains(&Offset(100)));
    let mut late = log.subscribe(Offset(0));
    let found: Vec<_> = expected
        .iter()
        .map(|_| record(&mut late).offset())
        .collect();
    assert_eq!(found, expected);
    expect_nothing(&mut late);
    // One that held files from before may give what is compacted by now, never twice or out of order.
    let mut found = vec![];
    while let Ok(Next::Record(record)) = early.try_next() {
        found.push(record.offset());
    }
    assert!(found.is_sorted() && found[0] == Offset(3));
    assert!(
        expected
            .iter()
            .skip_while(|o| o.0 < 3)
            .all(|o| found.contains(o))
    );
    log.append("at last").unwrap();
    assert_eq!(record(&mut late).offset(), Offset(200));
    assert_eq!(record(&mut early).offset(), Offset(200));
}
