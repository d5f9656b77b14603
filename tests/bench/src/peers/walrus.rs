//! walrus-rust 0.2: a log of topics; here one. It writes by `pwrite` into sparse files of 1 GB.

use std::{ops::Range, time::Duration};

use anyhow::{Result, bail};
use walrus_rust::{FsyncSchedule, ReadConsistency, Walrus};

use crate::{
    subject::{Group, Kind, Promise, Setup, Subject},
    values::{Seen, Values},
};

pub const KIND: Kind = Kind {
    name: "walrus",
    group: Group::Peer,
    open,
    kept: |promise| match promise {
        Promise::Synced => "power cut",
        Promise::Buffered | Promise::Written => "kill -9",
    },
};

const TOPIC: &str = "log";
/// It rolls back a batch that meets a running one, and refuses more than this.
const BATCH_RECORDS: u64 = 2000;

struct Peer {
    log: Walrus,
}

fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    // SAFETY: a measurement is a process, and has no other thread yet.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("WALRUS_DATA_DIR", &setup.directory);
        std::env::set_var("WALRUS_QUIET", "1");
    }
    let schedule = match setup.promise {
        Promise::Synced => FsyncSchedule::SyncEach,
        Promise::Buffered | Promise::Written => FsyncSchedule::NoFsync,
    };
    let consistency = ReadConsistency::AtLeastOnce {
        persist_every: u32::MAX,
    };
    let log = Walrus::with_consistency_and_schedule(consistency, schedule)?;
    Ok(Box::new(Peer { log }))
}

impl Subject for Peer {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        Ok(self.log.append_for_topic(TOPIC, value)?)
    }

    fn append_shared(&self, value: &[u8]) -> Result<()> {
        Ok(self.log.append_for_topic(TOPIC, value)?)
    }

    /// It syncs every batch.
    fn append_batch(&mut self, values: &Values, range: Range<u64>) -> Result<()> {
        let records: Vec<&[u8]> = values.range(range).collect();
        for batch in records.chunks(BATCH_RECORDS as usize) {
            self.log.batch_append_for_topic(TOPIC, batch)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn scan(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        while let Some(entry) = self.log.read_next(TOPIC, true)? {
            seen.add(&entry.data);
        }
        Ok(seen)
    }

    fn scans_once(&self) -> bool {
        true
    }

    fn read(&self, _n: u64) -> Result<u64> {
        bail!("it only reads on from a cursor")
    }

    fn close(self: Box<Self>) -> Result<()> {
        // Its threads write back on their own and cannot be waited for.
        std::thread::sleep(Duration::from_millis(1));
        Ok(())
    }
}
