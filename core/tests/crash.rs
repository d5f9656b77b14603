//! A log after every kind of stop, at every operation of a workload: what was acknowledged is there
//! byte for byte, of the rest whole batches and whole truncations' steps, a second open changes
//! nothing, appends go on.
#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

use proglog::{Durability, Error, Fault, FaultBackend, Log, NewRecord, Offset, Options};

/// How long a workload is.
const STEPS: usize = 12;

/// One step of a workload.
#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Vec<u8>>),
    TruncateBefore(u64),
    TruncateAfter(u64),
    Reset,
    Reopen,
}

/// What a log holds: values from the lowest offset on.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    lowest: u64,
    values: Vec<Vec<u8>>,
}

impl Held {
    fn next(&self) -> u64 {
        self.lowest + self.values.len() as u64
    }
}

/// Where a workload stopped: what the log held before the last step, and that step unless it was done.
struct Stopped {
    held: Held,
    in_step: Option<Step>,
    /// The log's own word for what was on stable storage.
    durable: u64,
}

fn options() -> Options {
    Options::new()
        .segment_bytes_max(1500)
        .index_bytes_max(12 * 20)
}

/// A small generator, so that a seed tells the whole workload.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn step(&mut self, held: &Held) -> Step {
        match self.below(20) {
            0..14 => {
                let count = 1 + self.below(4);
                let value = |random: &mut Self| -> Vec<u8> {
                    let length = random.below(700);
                    let first = random.below(256);
                    (0..length).map(|i| (first + i) as u8).collect()
                };
                Step::Append((0..count).map(|_| value(self)).collect())
            }
            14 | 15 => Step::TruncateBefore(held.lowest + self.below(held.values.len() as u64 + 1)),
            16 | 17 if !held.values.is_empty() => {
                Step::TruncateAfter(held.lowest + self.below(held.values.len() as u64))
            }
            18 => Step::Reset,
            _ => Step::Reopen,
        }
    }
}

/// Runs a seed's workload until something fails or it is done. The log is left as by `kill -9`.
fn run(disk: &FaultBackend, seed: u64, durability: Durability) -> Stopped {
    let options = options().durability(durability);
    let mut random = Random(seed);
    let mut held = Held::default();
    let mut durable = 0;
    let stopped = |held: &Held, step, durable| Stopped {
        held: held.clone(),
        in_step: Some(step),
        durable,
    };
    let Ok(mut log) = Log::open_on(disk.clone(), options.clone()) else {
        return stopped(&held, Step::Reopen, 0);
    };
    for _ in 0..STEPS {
        let step = random.step(&held);
        let mut after = held.clone();
        let done = match &step {
            Step::Append(values) => {
                after.values.extend_from_slice(values);
                let records = values
                    .iter()
                    .map(|value| NewRecord::new(value).timestamp_ms(5));
                log.append_batch(records).map(drop)
            }
            Step::TruncateBefore(offset) => log.truncate_before(Offset(*offset)),
            Step::TruncateAfter(offset) => {
                after.values.truncate((offset + 1 - held.lowest) as usize);
                log.truncate_after(Offset(*offset))
            }
            Step::Reset => {
                after = Held::default();
                log.reset()
            }
            Step::Reopen => {
                let closed = log.close();
                match closed.and_then(|()| Log::open_on(disk.clone(), options.clone())) {
                    Ok(opened) => log = opened,
                    Err(_) => return stopped(&held, step, durable),
                }
                Ok(())
            }
        };
        if done.is_err() {
            std::mem::forget(log);
            return stopped(&held, step, durable);
        }
        durable = log.durable_offset().0;
        if durability == Durability::Synced {
            assert_eq!(durable, log.next_offset().0);
        }
        // Whole segments go, so the log says how many.
        after
            .values
            .drain(..(log.lowest_offset().0 - after.lowest) as usize);
        after.lowest = log.lowest_offset().0;
        assert_eq!(after.next(), log.next_offset().0, "seed {seed}: {step:?}");
        held = after;
    }
    std::mem::forget(log);
    Stopped {
        held,
        in_step: None,
        durable,
    }
}

/// Whether a log that stopped so may hold this.
fn may_hold(stopped: &Stopped, found: &Held) -> bool {
    let before = &stopped.held;
    let is_prefix = before.lowest == found.lowest && before.values.starts_with(&found.values);
    match &stopped.in_step {
        _ if found == before => true,
        None | Some(Step::Reopen) => false,
        Some(Step::Append(values)) => {
            let mut whole = before.clone();
            whole.values.extend_from_slice(values);
            *found == whole
        }
        Some(Step::TruncateBefore(offset)) => {
            (before.lowest..=*offset).contains(&found.lowest)
                && before.values[(found.lowest - before.lowest) as usize..] == found.values
        }
        Some(Step::TruncateAfter(offset)) => is_prefix && found.next() > *offset,
        Some(Step::Reset) => is_prefix || *found == Held::default(),
    }
}

fn check(disk: &FaultBackend, stopped: &Stopped, what: &str) {
    let log = Log::open_on(disk.clone(), options()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let mut found = Held {
        lowest: log.lowest_offset().0,
        values: Vec::new(),
    };
    for record in log.scan(..) {
        let record = record.unwrap_or_else(|e| panic!("{what}: {e}: {:?}", log.recovery_report()));
        assert_eq!(record.offset().0, found.next(), "{what}");
        assert_eq!(
            log.read(record.offset()).unwrap().value(),
            record.value(),
            "{what}"
        );
        found.values.push(record.value().to_vec());
    }
    assert_eq!(found.next(), log.next_offset().0, "{what}");
    if !may_hold(stopped, &found) {
        let lengths = |held: &Held| {
            (
                held.lowest,
                held.values.iter().map(Vec::len).collect::<Vec<_>>(),
            )
        };
        panic!(
            "{what}: held {:?} before {:?}, but {:?} now: {:?}",
            lengths(&stopped.held),
            stopped.in_step,
            lengths(&found),
            log.recovery_report()
        );
    }
    assert!(
        log.verify().unwrap().is_sound(),
        "{what}: {:?}",
        log.verify()
    );
    std::mem::forget(log);

    // Nothing was left undone: another power cut right after changes nothing.
    let log = Log::open_on(disk.power_cut(1), options()).unwrap();
    assert_eq!(
        log.lowest_offset().0,
        found.lowest,
        "{what}: the second open differs"
    );
    assert_eq!(
        log.next_offset().0,
        found.next(),
        "{what}: the second open differs"
    );
    assert_eq!(log.append("after").unwrap().0, found.next(), "{what}");
    std::mem::forget(log);

    // What is appended then stands on sound ground.
    let log = Log::open_on(disk.power_cut(2), options()).unwrap();
    assert!(
        log.verify().unwrap().is_sound(),
        "{what}: {:?}",
        log.verify()
    );
}

/// After a power cut a log of weaker durability has what it said was durable; the rest may be missing,
/// or reported as damage, but is never wrong.
fn check_durable(disk: &FaultBackend, stopped: &Stopped, what: &str) {
    let log = Log::open_on(disk.clone(), options()).unwrap_or_else(|e| panic!("{what}: {e}"));
    if !matches!(stopped.in_step, None | Some(Step::Append(_))) {
        return;
    }
    let held = &stopped.held;
    for (value, offset) in held.values.iter().zip(held.lowest..) {
        match log.read(Offset(offset)) {
            Ok(record) => assert_eq!(record.value(), value, "{what}: record {offset}"),
            Err(_) if offset >= stopped.durable => {}
            Err(e) => panic!("{what}: {e}, but durable was {}", stopped.durable),
        }
    }
}

#[test]
fn a_stop_at_every_operation_loses_nothing_acknowledged() {
    let mut states = 0;
    for seed in 0..40 {
        let whole = FaultBackend::new();
        run(&whole, seed, Durability::Synced);
        for stop in 0..=whole.operations() {
            for fault in [Fault::Error, Fault::Half, Fault::Full] {
                let disk = FaultBackend::new();
                disk.fail(stop, fault);
                let stopped = run(&disk, seed, Durability::Synced);
                let what = format!("seed {seed}, operation {stop}, {fault:?}");
                check(&disk.killed(), &stopped, &format!("{what}, killed"));
                for cut in 0..4 {
                    check(
                        &disk.power_cut(cut),
                        &stopped,
                        &format!("{what}, power cut {cut}"),
                    );
                }
                states += 5;
            }
        }
    }
    println!("{states} states");
    assert!(states > 20_000);
}

#[test]
fn a_stop_at_every_operation_keeps_the_weaker_promises() {
    for seed in 100..130 {
        for durability in [Durability::Written, Durability::Buffered] {
            let whole = FaultBackend::new();
            run(&whole, seed, durability);
            for stop in 0..=whole.operations() {
                let disk = FaultBackend::new();
                disk.fail(stop, Fault::Half);
                let stopped = run(&disk, seed, durability);
                let what = format!("seed {seed}, operation {stop}, {durability:?}");
                if durability == Durability::Written {
                    check(&disk.killed(), &stopped, &format!("{what}, killed"));
                }
                for cut in 0..4 {
                    let what = format!("{what}, power cut {cut}");
                    check_durable(&disk.power_cut(cut), &stopped, &what);
                }
            }
        }
    }
}

#[test]
fn a_failed_sync_poisons_until_the_log_is_opened_again() -> Result<(), Error> {
    let disk = FaultBackend::new();
    let log = Log::open_on(disk.clone(), options())?;
    log.append("kept")?;
    disk.fail(disk.operations() + 1, Fault::Error);
    assert!(matches!(
        log.append("unknown"),
        Err(Error::Io { action: "sync", .. })
    ));
    assert!(matches!(log.append("refused"), Err(Error::Poisoned { .. })));
    assert!(matches!(log.sync(), Err(Error::Poisoned { .. })));
    assert_eq!(log.next_offset(), Offset(1));
    assert_eq!(log.read(Offset(0))?.value(), b"kept");
    assert!(matches!(log.close(), Err(Error::Poisoned { .. })));

    let log = Log::open_on(disk, options())?;
    assert_eq!(log.read(Offset(0))?.value(), b"kept");
    log.append("goes on")?;
    Ok(())
}

#[test]
fn a_full_disk_leaves_a_log_that_reads_and_can_be_truncated() -> Result<(), Error> {
    let disk = FaultBackend::new();
    let log = Log::open_on(disk.clone(), options())?;
    for n in 0..20 {
        log.append(&[n; 200])?;
    }
    disk.fail(disk.operations(), Fault::Full);
    assert!(matches!(log.append(&[1; 200]), Err(Error::Io { .. })));
    assert_eq!(log.read(Offset(19))?.value(), [19; 200]);
    drop(log);

    // Still full: it opens, reads, and makes room.
    let log = Log::open_on(disk.clone(), options())?;
    assert_eq!(log.scan(..).count(), 20);
    log.truncate_before(Offset(15))?;
    disk.heal();
    assert_eq!(log.append("fits again")?, Offset(20));
    Ok(())
}
