//! fjall 3: a log-structured merge tree; keys are the records' numbers.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use anyhow::{Context as _, Result};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::{
    subject::{Group, Kind, Promise, Setup, Subject},
    values::{self, Seen, Values},
};

pub const KIND: Kind = Kind {
    name: "fjall",
    group: Group::Peer,
    open,
    kept: |promise| match promise {
        Promise::Buffered => "nothing",
        Promise::Written => "kill -9",
        Promise::Synced => "power cut",
    },
};

struct Peer {
    database: Database,
    keyspace: Keyspace,
    next: AtomicU64,
    promise: Promise,
}

fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    let manual = setup.promise == Promise::Buffered;
    let database = Database::builder(&setup.directory)
        .manual_journal_persist(manual)
        .open()?;
    let keyspace = database.keyspace("log", || {
        KeyspaceCreateOptions::default().manual_journal_persist(manual)
    })?;
    let next = if setup.exists { setup.records } else { 0 };
    Ok(Box::new(Peer {
        database,
        keyspace,
        next: next.into(),
        promise: setup.promise,
    }))
}

impl Subject for Peer {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_shared(value)
    }

    fn append_shared(&self, value: &[u8]) -> Result<()> {
        let n = self.next.fetch_add(1, Relaxed);
        self.keyspace.insert(n.to_be_bytes(), value)?;
        if self.promise == Promise::Synced {
            self.database.persist(PersistMode::SyncData)?;
        }
        Ok(())
    }

    fn append_batch(&mut self, values: &Values, range: Range<u64>) -> Result<()> {
        let mut batch = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for value in values.range(range) {
            let n = self.next.fetch_add(1, Relaxed);
            batch.insert(&self.keyspace, n.to_be_bytes(), value);
        }
        Ok(batch.commit()?)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(self.database.persist(PersistMode::Buffer)?)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn fills_in_batches(&self) -> bool {
        true
    }

    fn scan(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        for guard in self.keyspace.iter() {
            seen.add(&guard.value()?);
        }
        Ok(seen)
    }

    fn read(&self, n: u64) -> Result<u64> {
        let value = self.keyspace.get(n.to_be_bytes())?.context("not there")?;
        Ok(values::fold(&value))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}
