//! A segment that someone else removed or emptied, and then a crash: what was promised after it stays.

#![allow(
    clippy::cast_possible_truncation,
    reason = "test data of small numbers"
)]

use proglog::{
    Access, Backend, BackendFile, Durability, FaultBackend, Log, Offset, Options, Result,
};

/// Ten records of a segment, three segments.
fn options() -> Options {
    Options::new()
        .segment_bytes_max(1 << 20)
        .index_bytes_max(12 * 10)
}

const MIDDLE: u64 = 10;
const LAST: u64 = 20;

/// How the segment in the middle is lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Removed,
    StoreRemoved,
    Emptied,
    StoreEmptied,
}

const LOSSES: [Loss; 4] = [
    Loss::Removed,
    Loss::StoreRemoved,
    Loss::Emptied,
    Loss::StoreEmptied,
];

impl Loss {
    fn of_middle(self, disk: &FaultBackend) {
        let (store, index) = (format!("{MIDDLE}.store"), format!("{MIDDLE}.index"));
        let empty = |name: &str| {
            let file = disk.open(name, Access::Write).unwrap();
            file.set_len(0).unwrap();
            file.sync().unwrap();
        };
        match self {
            Self::Removed => [store, index]
                .iter()
                .for_each(|name| disk.remove(name).unwrap()),
            Self::StoreRemoved => disk.remove(&store).unwrap(),
            Self::Emptied => [store, index].iter().for_each(|name| empty(name)),
            Self::StoreEmptied => empty(&store),
        }
        disk.sync_directory().unwrap();
    }
}

/// What the last segment holds when the one in the middle is lost behind the back of an open log.
#[derive(Clone, Copy, Debug)]
enum Last {
    /// Nothing: the log was opened with it so.
    Empty,
    /// A record that was not synced: it was made just now.
    Rolled,
}

/// A log that appends to a segment at `LAST`, of whose middle segment nothing is left.
fn log_with_gap(disk: &FaultBackend, loss: Loss, last: Last) -> Result<Log<FaultBackend>> {
    let log = Log::open_on(disk.clone(), options())?;
    for n in 0..LAST {
        log.append(&[n as u8; 30])?;
    }
    if let Last::Rolled = last {
        log.append_with(&[LAST as u8; 40], Durability::Written)?;
        loss.of_middle(disk);
        return Ok(log);
    }
    log.close()?;
    for name in [format!("{LAST}.store"), format!("{LAST}.index")] {
        disk.open(&name, Access::Create).unwrap();
    }
    disk.sync_directory().unwrap();
    let log = Log::open_on(disk.clone(), options())?;
    loss.of_middle(disk);
    Ok(log)
}

fn promised_are_there(disk: FaultBackend, promised: u64, case: &str) {
    let log = Log::open_on(disk, options()).unwrap();
    assert!(
        log.next_offset() >= Offset(LAST + promised),
        "{case}: {:?}",
        log.recovery_report()
    );
    for n in LAST..LAST + promised {
        assert_eq!(
            log.read(Offset(n)).unwrap().value(),
            [n as u8; 40],
            "{case}"
        );
    }
    for n in 0..MIDDLE {
        assert_eq!(
            log.read(Offset(n)).unwrap().value(),
            [n as u8; 30],
            "{case}"
        );
    }
    assert!(log.read(Offset(MIDDLE)).is_err(), "{case}");
    log.append("goes on").unwrap();
}

fn every_stop(loss: Loss, last: Last) -> Result<u32> {
    let mut states = 0;
    for records in 1..=9 {
        let disk = FaultBackend::new();
        let log = log_with_gap(&disk, loss, last)?;
        for n in log.next_offset().0..LAST + records {
            log.append(&[n as u8; 40])?;
        }
        log.sync()?;
        // Not promised: it may be there or not.
        log.append_with("later", Durability::Written)?;
        let case = format!("{loss:?}, {last:?}, {records} records");
        promised_are_there(disk.killed(), records, &format!("{case}, killed"));
        for (number, state) in disk.power_cuts(256, records).enumerate() {
            promised_are_there(state, records, &format!("{case}, power cut {number}"));
            states += 1;
        }
    }
    Ok(states)
}

#[test]
fn what_is_promised_after_a_lost_segment_survives_a_crash() -> Result<()> {
    let mut states = 0;
    for loss in LOSSES {
        for last in [Last::Empty, Last::Rolled] {
            states += every_stop(loss, last)?;
        }
    }
    println!("{states} states after power cuts");
    assert!(states > 100, "{states}");
    Ok(())
}
