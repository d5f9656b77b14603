//! SQLite by rusqlite 0.43, bundled, in WAL mode: a table of blobs by number, without checksums of pages.

use std::{
    ops::Range,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use rusqlite::Connection;

use crate::{
    subject::{Group, Kind, Promise, Setup, Subject},
    values::{self, Seen, Values},
};

pub const KIND: Kind = Kind {
    name: "SQLite",
    group: Group::Peer,
    open,
    kept: |promise| match promise {
        Promise::Synced => "power cut (synchronous=FULL)",
        Promise::Buffered | Promise::Written => "kill -9 (synchronous=OFF)",
    },
};

const INSERT: &str = "INSERT INTO log (value) VALUES (?1)";
const SELECT: &str = "SELECT value FROM log WHERE number = ?1";

struct Peer {
    connection: Mutex<Connection>,
    path: PathBuf,
}

fn connect(path: &PathBuf) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "mmap_size", 32_i64 << 30)?;
    connection.pragma_update(None, "cache_size", -65536)?;
    Ok(connection)
}

fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    let path = setup.directory.join("log.sqlite");
    let connection = connect(&path)?;
    let synchronous = match setup.promise {
        Promise::Synced => "FULL",
        Promise::Buffered | Promise::Written => "OFF",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS log (number INTEGER PRIMARY KEY, value BLOB NOT NULL)",
    )?;
    Ok(Box::new(Peer {
        connection: connection.into(),
        path,
    }))
}

impl Subject for Peer {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_shared(value)
    }

    fn append_shared(&self, value: &[u8]) -> Result<()> {
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        connection.prepare_cached(INSERT)?.execute([value])?;
        Ok(())
    }

    fn append_batch(&mut self, values: &Values, range: Range<u64>) -> Result<()> {
        let connection = self.connection.get_mut().ok().context("poisoned")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached(INSERT)?;
            for value in values.range(range) {
                insert.execute([value])?;
            }
        }
        Ok(transaction.commit()?)
    }

    /// A commit under `synchronous=FULL` has synced already.
    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn fills_in_batches(&self) -> bool {
        true
    }

    fn scan(&self) -> Result<Seen> {
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut select = connection.prepare("SELECT value FROM log ORDER BY number")?;
        let mut rows = select.query([])?;
        let mut seen = Seen::default();
        while let Some(row) = rows.next()? {
            seen.add(row.get_ref(0)?.as_blob()?);
        }
        Ok(seen)
    }

    fn read_all(&self, numbers: &mut dyn Iterator<Item = u64>) -> Result<u64> {
        let connection = connect(&self.path)?;
        let mut select = connection.prepare(SELECT)?;
        let mut sum = 0_u64;
        for n in numbers {
            let mut rows = select.query([n as i64 + 1])?;
            let row = rows.next()?.context("not there")?;
            sum = sum.wrapping_add(values::fold(row.get_ref(0)?.as_blob()?));
        }
        Ok(sum)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
