//! A log after every kind of stop, at every operation: nothing durable is lost, the rest is a prefix
//! of whole batches, a second open changes nothing, appends go on.

#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

use proglog::{Backend, Error, Fault, FaultBackend, Log, NewRecord, Offset, Options};

/// What a workload did and was promised.
#[derive(Default, Clone)]
struct Expected {
    /// Batches in order: the values of each.
    batches: Vec<Vec<Vec<u8>>>,
    /// How many of them were acknowledged.
    acknowledged: usize,
}

impl Expected {
    fn values(&self) -> Vec<&[u8]> {
        self.batches.iter().flatten().map(Vec::as_slice).collect()
    }

    fn acknowledged_records(&self) -> usize {
        self.batches[..self.acknowledged].iter().map(Vec::len).sum()
    }

    /// The record counts at which a log may end.
    fn batch_ends(&self) -> Vec<usize> {
        let mut ends = vec![0];
        for batch in &self.batches {
            ends.push(ends[ends.len() - 1] + batch.len());
        }
        ends
    }
}

fn options() -> Options {
    Options::new()
        .segment_bytes_max(1500)
        .index_bytes_max(12 * 20)
}

fn value(seed: u64, batch: usize, record: usize) -> Vec<u8> {
    let length = (seed as usize * 31 + batch * 97 + record * 13) % 700;
    (0..length)
        .map(|i| (seed as usize + batch * 7 + record * 3 + i) as u8)
        .collect()
}

/// Appends until something fails or it is done.
fn run(disk: &FaultBackend, seed: u64) -> Expected {
    let mut expected = Expected::default();
    let Ok(log) = Log::open_on(disk.clone(), options()) else {
        return expected;
    };
    for batch in 0..8 {
        let count = 1 + (seed as usize + batch) % 3;
        let values: Vec<_> = (0..count)
            .map(|record| value(seed, batch, record))
            .collect();
        expected.batches.push(values.clone());
        let records = values
            .iter()
            .map(|value| NewRecord::new(value).timestamp_ms(5));
        if log.append_batch(records).is_err() {
            std::mem::forget(log);
            return expected;
        }
        expected.acknowledged += 1;
        assert_eq!(log.durable_offset(), log.next_offset());
    }
    if seed.is_multiple_of(2) {
        std::mem::forget(log);
    } else {
        let _ = log.close();
    }
    expected
}

fn check(disk: &FaultBackend, expected: &Expected, what: &str) {
    let log = Log::open_on(disk.clone(), options()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let values = expected.values();
    let records: Vec<_> = log
        .scan(..)
        .map(|record| record.unwrap_or_else(|e| panic!("{what}: {e}: {:?}", log.recovery_report())))
        .collect();
    assert!(
        records.len() >= expected.acknowledged_records(),
        "{what}: acknowledged records are lost"
    );
    assert!(
        expected.batch_ends().contains(&records.len()),
        "{what}: a batch was split"
    );
    for (n, record) in records.iter().enumerate() {
        assert_eq!(record.offset(), Offset(n as u64), "{what}");
        assert_eq!(record.value(), values[n], "{what}: record {n}");
        assert_eq!(
            log.read(record.offset()).unwrap().value(),
            values[n],
            "{what}"
        );
    }
    assert!(
        log.verify().unwrap().is_sound(),
        "{what}: {:?}",
        log.verify()
    );
    let next = log.next_offset();
    std::mem::forget(log);

    // Nothing was left undone: another crash right after changes nothing.
    let log = Log::open_on(disk.power_cut(1), options()).unwrap();
    assert_eq!(log.next_offset(), next, "{what}: the second open differs");
    assert_eq!(log.append("after").unwrap(), next, "{what}");
    drop(log);
    let _ = disk.list();
}

#[test]
fn a_stop_at_every_operation_loses_nothing_acknowledged() {
    let mut states = 0;
    for seed in 0..6 {
        let whole = FaultBackend::new();
        run(&whole, seed);
        for stop in 0..=whole.operations() {
            for fault in [Fault::Error, Fault::Half, Fault::Full] {
                let disk = FaultBackend::new();
                disk.fail(stop, fault);
                let expected = run(&disk, seed);
                let what = format!("seed {seed}, operation {stop}, {fault:?}");
                check(&disk.killed(), &expected, &format!("{what}, killed"));
                for cut in 0..8 {
                    check(
                        &disk.power_cut(cut),
                        &expected,
                        &format!("{what}, power cut {cut}"),
                    );
                    states += 1;
                }
            }
        }
    }
    println!("{states} power cuts");
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
        log.append(&vec![n; 200])?;
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
