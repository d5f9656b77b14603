//! sled 0.34: a log-structured tree; keys are the records' numbers. Its flush is a `sync_file_range`, which
//! neither flushes the disk's cache nor commits metadata.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context as _, Result, ensure};

use crate::{
    subject::{Group, Kind, Promise, Setup, Subject},
    values::{self, Seen},
};

pub const KIND: Kind = Kind {
    name: "sled",
    group: Group::Peer,
    open,
    kept: |promise| match promise {
        Promise::Buffered => "nothing",
        Promise::Written => "-",
        Promise::Synced => "kill -9 (sync_file_range, no flush of the disk)",
    },
};

struct Peer {
    tree: sled::Db,
    next: AtomicU64,
    sync: bool,
}

fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    ensure!(
        setup.promise != Promise::Written,
        "it writes when its buffer is full, or syncs"
    );
    let tree = sled::Config::new()
        .path(&setup.directory)
        .flush_every_ms(None)
        .open()?;
    Ok(Box::new(Peer {
        tree,
        next: AtomicU64::new(if setup.exists { setup.records } else { 0 }),
        sync: setup.promise == Promise::Synced,
    }))
}

impl Subject for Peer {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_shared(value)
    }

    fn append_shared(&self, value: &[u8]) -> Result<()> {
        let n = self.next.fetch_add(1, Relaxed);
        self.tree.insert(n.to_be_bytes(), value)?;
        if self.sync {
            self.tree.flush()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.tree.flush()?;
        Ok(())
    }

    fn fills_in_batches(&self) -> bool {
        true
    }

    fn scan(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        for entry in self.tree.iter() {
            seen.add(&entry?.1);
        }
        Ok(seen)
    }

    fn read(&self, n: u64) -> Result<u64> {
        let value = self.tree.get(n.to_be_bytes())?.context("not there")?;
        Ok(values::fold(&value))
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
