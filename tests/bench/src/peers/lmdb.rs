//! LMDB by heed 0.22: a memory-mapped B+ tree without checksums; keys are the records' numbers.

use std::{
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use heed::{
    Database, Env, EnvFlags, EnvOpenOptions, PutFlags, WithoutTls,
    byteorder::BigEndian,
    types::{Bytes, U64},
};

use crate::{
    subject::{Group, Kind, Promise, Setup, Subject},
    values::{self, Seen, Values},
};

const fn kept(promise: Promise) -> &'static str {
    match promise {
        Promise::Synced => "power cut",
        Promise::Buffered | Promise::Written => "kill -9 (MDB_NOSYNC)",
    }
}

/// A transaction a read.
pub const KIND: Kind = Kind {
    name: "LMDB",
    group: Group::Peer,
    open: |setup| open(setup, false),
    kept,
};

/// One transaction for all reads.
pub const KIND_HELD: Kind = Kind {
    name: "LMDB, transaction held",
    group: Group::Peer,
    open: |setup| open(setup, true),
    kept,
};

struct Peer {
    env: Env<WithoutTls>,
    database: Database<U64<BigEndian>, Bytes>,
    next: Mutex<u64>,
    hold: bool,
}

fn open(setup: &Setup, hold: bool) -> Result<Box<dyn Subject>> {
    let mut options = EnvOpenOptions::new().read_txn_without_tls();
    options.map_size(32 << 30);
    if setup.promise != Promise::Synced {
        // SAFETY: the directory is only this process's; a lost sync loses no more than measured.
        unsafe { options.flags(EnvFlags::NO_SYNC) };
    }
    // SAFETY: no one else opens the directory meanwhile.
    let env = unsafe { options.open(&setup.directory)? };
    let mut transaction = env.write_txn()?;
    let database = env.create_database(&mut transaction, None)?;
    transaction.commit()?;
    Ok(Box::new(Peer {
        env,
        database,
        next: Mutex::new(if setup.exists { setup.records } else { 0 }),
        hold,
    }))
}

impl Peer {
    fn put<'a>(&self, values: impl Iterator<Item = &'a [u8]>) -> Result<MutexGuard<'_, u64>> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let mut transaction = self.env.write_txn()?;
        for value in values {
            self.database
                .put_with_flags(&mut transaction, PutFlags::APPEND, &next, value)?;
            *next += 1;
        }
        transaction.commit()?;
        Ok(next)
    }
}

impl Subject for Peer {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_shared(value)
    }

    fn append_shared(&self, value: &[u8]) -> Result<()> {
        self.put(std::iter::once(value)).map(drop)
    }

    fn append_batch(&mut self, values: &Values, range: Range<u64>) -> Result<()> {
        self.put(values.range(range)).map(drop)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn fills_in_batches(&self) -> bool {
        true
    }

    fn scan(&self) -> Result<Seen> {
        let transaction = self.env.read_txn()?;
        let mut seen = Seen::default();
        for entry in self.database.iter(&transaction)? {
            seen.add(entry?.1);
        }
        Ok(seen)
    }

    fn read(&self, n: u64) -> Result<u64> {
        let transaction = self.env.read_txn()?;
        let value = self.database.get(&transaction, &n)?.context("not there")?;
        Ok(values::fold(value))
    }

    fn read_all(&self, numbers: &mut dyn Iterator<Item = u64>) -> Result<u64> {
        let mut sum = 0_u64;
        if !self.hold {
            for n in numbers {
                sum = sum.wrapping_add(self.read(n)?);
            }
            return Ok(sum);
        }
        let transaction = self.env.read_txn()?;
        for n in numbers {
            let value = self.database.get(&transaction, &n)?.context("not there")?;
            sum = sum.wrapping_add(values::fold(value));
        }
        Ok(sum)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.env.force_sync()?)
    }
}
