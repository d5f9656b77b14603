//! A log after every kind of stop, at every operation of many workloads, in every state that a power
//! cut may leave: what was promised is there byte for byte, the rest is a prefix of what was appended
//! with whole batches, a second opening changes nothing, appends go on.
//!
//! `PROGLOG_CRASH_ROUNDS` multiplies how much is tried, `PROGLOG_CRASH_SEED` says where the seeds begin.
//! What fails names the line that replays it.
#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

mod check;
mod held;
mod sabotage;
mod search;
mod workload;

use std::{env, ops::Range, time::Instant};

use proglog::{
    Access, Backend, BackendFile, Durability, Error, Fault, FaultBackend, Log, Offset, Options,
};

use self::{
    sabotage::Bug,
    search::{Failure, Stats, search},
    workload::Workload,
};

fn number(variable: &str, default: u64) -> u64 {
    let set = env::var(variable).ok();
    set.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Seeds of which every test takes its own.
fn seeds(of: Range<u64>) -> impl Iterator<Item = Workload> {
    let first = number("PROGLOG_CRASH_SEED", 0);
    let rounds = number("PROGLOG_CRASH_ROUNDS", 1);
    let more = (of.end - of.start) * rounds;
    (of.start..of.start + more).map(move |seed| Workload::Seeded(first + seed))
}

fn sound(workloads: impl Iterator<Item = Workload>, states_min: u64) {
    let started = Instant::now();
    match search(workloads, Bug::None) {
        Ok(Stats {
            workloads,
            stops,
            states,
        }) => {
            println!(
                "{workloads} workloads, {stops} stops, {states} states in {:?}",
                started.elapsed()
            );
            assert!(states >= states_min, "{states} states are too few");
        }
        Err(failure) => panic!("{failure}"),
    }
}

#[test]
fn short_workloads_survive_every_stop() {
    sound((0..=2).flat_map(Workload::short), 10_000);
}

#[test]
fn workloads_of_three_steps_survive_every_stop() {
    sound(Workload::short(3), 10_000);
}

#[test]
fn seeded_workloads_survive_every_stop() {
    sound(seeds(0..20), 10_000);
}

#[test]
fn other_seeded_workloads_survive_every_stop() {
    sound(seeds(1_000_000..1_000_020), 10_000);
}

/// Does nothing unless the environment names a case, as a failure of the search does.
#[test]
fn replay() {
    if let Err(what) = search::replay() {
        panic!("{what}");
    }
}

#[test]
fn the_search_finds_every_planted_bug() {
    for bug in Bug::ALL {
        let workloads = seeds(0..20).chain((1..=2).flat_map(Workload::short));
        match search(workloads, bug) {
            Ok(stats) => panic!("{bug:?} was not found in {stats:?}"),
            Err(Failure { states, case, .. }) => {
                println!("{bug:?} was found after {states} states: {case}");
            }
        }
    }
}

fn options() -> Options {
    Options::new()
        .segment_bytes_max(1500)
        .index_bytes_max(12 * 20)
}

#[test]
fn an_index_that_was_left_behind_vouches_for_nothing() -> Result<(), Error> {
    let disk = FaultBackend::new();
    let log = Log::open_on(disk.clone(), options())?;
    log.append_batch(&[[1; 100]; 5])?;
    log.close()?;
    // As a reset leaves it in which the power is cut.
    disk.remove("0.store").unwrap();
    disk.sync_directory().unwrap();
    let log = Log::open_on(disk.clone(), options().durability(Durability::Written))?;
    log.append(&[2; 600])?;
    log.append(&[3; 600])?;
    for state in disk.power_cuts(256, 0) {
        let log = Log::open_on(state, options())?;
        assert!(log.verify()?.is_sound(), "{:?}", log.recovery_report());
        assert!(log.scan(..).all(|record| record.is_ok()));
    }
    Ok(())
}

/// A process that is killed while it empties the index that a reset leaves: what it did is not on stable storage.
#[test]
fn an_index_that_was_emptied_by_a_killed_process_vouches_for_nothing() -> Result<(), Error> {
    let disk = FaultBackend::new();
    let log = Log::open_on(disk.clone(), options())?;
    log.append_batch(&[[1; 100]; 5])?;
    log.close()?;
    disk.remove("0.store").unwrap();
    disk.sync_directory().unwrap();
    let index = disk.open("0.index", Access::Write).unwrap();
    index.set_len(0).unwrap();
    let disk = disk.killed();
    let log = Log::open_on(disk.clone(), options().durability(Durability::Written))?;
    log.append(&[2; 600])?;
    log.append(&[3; 600])?;
    for state in disk.power_cuts(256, 0) {
        let log = Log::open_on(state, options())?;
        assert!(log.verify()?.is_sound(), "{:?}", log.recovery_report());
        assert!(log.scan(..).all(|record| record.is_ok()));
    }
    Ok(())
}

/// A process that is killed while it cuts a batch that was cut before: the index, which vouches for what was left of that, is
/// cut, but not on stable storage. The power is cut while the log is opened again.
#[test]
fn an_index_that_was_cut_by_a_killed_process_vouches_for_no_more() -> Result<(), Error> {
    let truncated_until = |stop| -> Result<_, Error> {
        let disk = FaultBackend::new();
        let log = Log::open_on(disk.clone(), options())?;
        log.append_batch(&[[1; 100]; 4])?;
        log.truncate_after(Offset(1))?;
        disk.fail(disk.operations() + stop, Fault::Error);
        let truncated = log.truncate_after(Offset(0));
        Ok((truncated.is_ok(), disk.killed()))
    };
    let mut states = 0;
    for stop in 0.. {
        let (is_done, _) = truncated_until(stop)?;
        for stop_again in 0.. {
            let (_, disk) = truncated_until(stop)?;
            disk.fail(disk.operations() + stop_again, Fault::Error);
            let is_open = Log::open_on(disk.clone(), options()).is_ok();
            for state in disk.power_cuts(64, stop_again) {
                let log = Log::open_on(state, options())?;
                let what = format!("{stop}, {stop_again}: {:?}", log.recovery_report());
                assert!(log.verify()?.is_sound(), "{what}");
                assert!(log.next_offset() <= Offset(2), "{what}");
                states += 1;
            }
            if is_open {
                break;
            }
        }
        if is_done {
            break;
        }
    }
    assert!(states > 100, "{states}");
    Ok(())
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
    for full in [Fault::Full, Fault::Quota] {
        a_full_disk_leaves_a_log(full, Durability::Synced)?;
        // Whose index is to be written by who opens it.
        a_full_disk_leaves_a_log(full, Durability::Written)?;
    }
    Ok(())
}

fn a_full_disk_leaves_a_log(full: Fault, durability: Durability) -> Result<(), Error> {
    let disk = FaultBackend::new();
    let log = Log::open_on(disk.clone(), options().durability(durability))?;
    for n in 0..20 {
        log.append(&[n; 200])?;
    }
    disk.fail(disk.operations(), full);
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
