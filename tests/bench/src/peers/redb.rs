//! redb 4: a copy-on-write B+ tree; keys are the records' numbers.

use std::{
    ops::Range,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};

use crate::{
    subject::{Group, Kind, Promise, Setup, Subject},
    values::{self, Seen, Values},
};

pub const KIND: Kind = Kind {
    name: "redb",
    group: Group::Peer,
    open,
    kept: |promise| match promise {
        Promise::Buffered => "nothing (Durability::None)",
        Promise::Written => "-",
        Promise::Synced => "power cut",
    },
};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

struct Peer {
    database: Database,
    next: Mutex<u64>,
    durability: Durability,
}

fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    ensure!(
        setup.promise != Promise::Written,
        "a commit that does not sync is lost when the process is killed"
    );
    Ok(Box::new(Peer {
        database: Database::create(setup.directory.join("log.redb"))?,
        next: Mutex::new(if setup.exists { setup.records } else { 0 }),
        durability: match setup.promise {
            Promise::Synced => Durability::Immediate,
            Promise::Buffered | Promise::Written => Durability::None,
        },
    }))
}

impl Peer {
    fn put<'a>(
        &self,
        values: impl Iterator<Item = &'a [u8]>,
        durability: Durability,
    ) -> Result<()> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            for value in values {
                table.insert(*next, value)?;
                *next += 1;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Subject for Peer {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_shared(value)
    }

    fn append_shared(&self, value: &[u8]) -> Result<()> {
        self.put(std::iter::once(value), self.durability)
    }

    fn append_batch(&mut self, values: &Values, range: Range<u64>) -> Result<()> {
        self.put(values.range(range), Durability::Immediate)
    }

    fn sync(&mut self) -> Result<()> {
        self.put(std::iter::empty(), Durability::Immediate)
    }

    fn fills_in_batches(&self) -> bool {
        true
    }

    fn scan(&self) -> Result<Seen> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let mut seen = Seen::default();
        for entry in table.iter()? {
            seen.add(entry?.1.value());
        }
        Ok(seen)
    }

    fn read(&self, n: u64) -> Result<u64> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let value = table.get(n)?.context("not there")?;
        Ok(values::fold(value.value()))
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
