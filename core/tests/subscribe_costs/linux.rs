//! What subscriptions cost that have nothing to read, or do not read. Nothing else runs in this process.

use std::{fs, sync::mpsc::channel, thread, time::Duration};

use proglog::{Clock, Durability, Log, MemoryBackend, Next, Offset, Options};
use rustix::time::{ClockId, clock_gettime};

pub(crate) fn main() {
    idle_subscriptions_use_no_processor();
    idle_subscriptions_on_a_log_opened_read_only_use_little();
    slow_subscriptions_hold_no_memory();
    println!("ok");
}

/// The time that all threads of this process have run.
fn processor_time() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.try_into().unwrap())
}

fn idle_subscriptions_use_no_processor() {
    let log = Log::open_on(MemoryBackend::new(), Options::new()).unwrap();
    log.append("there").unwrap();
    let (read, is_read) = channel();
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let subscription = log.subscribe(Offset(0));
            let read = read.clone();
            thread::spawn(move || subscription.inspect(|_| read.send(()).unwrap()).count())
        })
        .collect();
    for _ in &waiting {
        is_read.recv().unwrap();
    }
    thread::sleep(Duration::from_millis(100));
    let before = processor_time();
    thread::sleep(Duration::from_secs(2));
    let used = processor_time() - before;
    println!("50 idle subscriptions: {used:?} of the processor in 2 s");
    assert!(used < Duration::from_millis(20), "{used:?}");
    // They were there all the time.
    log.append("comes").unwrap();
    log.close().unwrap();
    for thread in waiting {
        assert_eq!(thread.join().unwrap(), 2);
    }
}

fn idle_subscriptions_on_a_log_opened_read_only_use_little() {
    let directory = tempfile::tempdir().unwrap();
    let writer = Log::open(directory.path(), Options::new()).unwrap();
    writer.append("there").unwrap();
    let reader = Log::open_read_only(directory.path(), Options::new()).unwrap();
    for count in [1, 50] {
        let waiting: Vec<_> = (0..count)
            .map(|_| {
                let mut subscription = reader.subscribe(Offset(1));
                thread::spawn(move || subscription.next_timeout(Duration::from_secs(4)))
            })
            .collect();
        // Until they look no more often than they do at rest.
        thread::sleep(Duration::from_millis(1500));
        let before = processor_time();
        thread::sleep(Duration::from_secs(2));
        let used = processor_time() - before;
        println!("{count} idle subscriptions beside a writer: {used:?} of the processor in 2 s");
        // One looks for all, and does not wake the others if there is nothing.
        assert!(used < Duration::from_millis(50), "{used:?}");
        for thread in waiting {
            assert!(matches!(thread.join().unwrap(), Ok(Next::NotYet)));
        }
    }
}

fn slow_subscriptions_hold_no_memory() {
    const SUBSCRIPTIONS: usize = 16;
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new()
        .segment_bytes_max(4 << 20)
        .clock(Clock::NONE)
        .durability(Durability::Written);
    let log = Log::open(directory.path(), options).unwrap();
    let value = vec![7; 16 << 10];
    log.append(&value).unwrap();
    let mut slow: Vec<_> = (0..SUBSCRIPTIONS)
        .map(|_| log.subscribe(Offset(0)))
        .collect();
    let append = |bytes: usize| {
        for _ in 0..bytes / value.len() {
            log.append(&value).unwrap();
            // The first segment, in which they are, goes with the rest.
            let next = log.next_offset().0;
            log.truncate_before(Offset(next.saturating_sub(1000)))
                .unwrap();
        }
    };
    append(4 << 20);
    let before = anonymous_bytes();
    for subscription in &mut slow {
        assert!(subscription.next().unwrap().is_ok());
    }
    append(64 << 20);
    let held = anonymous_bytes().saturating_sub(before);
    println!("{SUBSCRIPTIONS} slow subscriptions hold {} KiB", held >> 10);
    assert!(
        held < (SUBSCRIPTIONS * (300 << 10)) as u64 + (4 << 20),
        "{held}"
    );
    drop(slow);
    log.close().unwrap();
}

/// The memory of this process that is no file's.
fn anonymous_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.unwrap().trim().strip_suffix(" kB").unwrap();
    kib.parse::<u64>().unwrap() << 10
}
