//! okaywal 0.3: a write-ahead log. Appends that wait for no sync are chunks of one open entry, which a
//! crash takes away whole; a commit syncs, and several share one.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, bail, ensure};
use okaywal::{
    Configuration, Entry, EntryId, EntryWriter, LogManager, LogPosition, ReadChunkResult,
    SegmentReader, WriteAheadLog,
};
use std::io::{self, Read as _};

use crate::{
    subject::{Group, Kind, Promise, Setup, Subject},
    values::{self, Seen},
};

pub const KIND: Kind = Kind {
    name: "okaywal",
    group: Group::Peer,
    open,
    kept: |promise| match promise {
        Promise::Buffered => "nothing (one open entry)",
        Promise::Written => "-",
        Promise::Synced => "power cut",
    },
};

struct Peer {
    /// Leaked, for an open entry borrows it.
    log: &'static WriteAheadLog,
    entry: Option<EntryWriter<'static>>,
    recovered: Arc<Mutex<Recovered>>,
    promise: Promise,
    setup: Setup,
}

#[derive(Debug, Default)]
struct Recovered {
    positions: Vec<LogPosition>,
    seen: Seen,
}

/// Remembers where the chunks are: positions are the only way to read one again.
#[derive(Debug)]
struct Manager(Arc<Mutex<Recovered>>);

impl LogManager for Manager {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let mut recovered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Chunks are read whole: after one that was skipped, recovery ends without an error.
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            recovered.positions.push(chunk.log_position());
            let value = chunk.read_all()?;
            if !chunk.check_crc()? {
                return Err(io::ErrorKind::InvalidData.into());
            }
            recovered.seen.add(&value);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _last: EntryId,
        _entries: &mut SegmentReader,
        _log: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    ensure!(
        setup.promise != Promise::Written,
        "a commit always syncs, and what is not committed is lost"
    );
    let (log, recovered) = recover(setup)?;
    Ok(Box::new(Peer {
        log: Box::leak(Box::new(log)),
        entry: None,
        recovered,
        promise: setup.promise,
        setup: setup.clone(),
    }))
}

fn recover(setup: &Setup) -> Result<(WriteAheadLog, Arc<Mutex<Recovered>>)> {
    let recovered = Arc::<Mutex<Recovered>>::default();
    let log = Configuration::default_for(&setup.directory)
        .preallocate_bytes(64 << 20)
        .checkpoint_after_bytes(u64::MAX)
        .buffer_bytes(64 << 10)
        .open(Manager(Arc::clone(&recovered)))?;
    Ok((log, recovered))
}

impl Subject for Peer {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        if self.promise == Promise::Synced {
            return self.append_shared(value);
        }
        let entry = match &mut self.entry {
            Some(entry) => entry,
            None => self.entry.insert(self.log.begin_entry()?),
        };
        entry.write_chunk(value)?;
        Ok(())
    }

    fn append_shared(&self, value: &[u8]) -> Result<()> {
        let mut entry = self.log.begin_entry()?;
        entry.write_chunk(value)?;
        entry.commit()?;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        if let Some(entry) = self.entry.take() {
            entry.commit()?;
        }
        Ok(())
    }

    fn fills_in_batches(&self) -> bool {
        true
    }

    /// By recovery: there is no other way to read in order.
    fn scan(&self) -> Result<Seen> {
        let (_log, recovered) = recover(&self.setup)?;
        let seen = recovered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .seen;
        Ok(seen)
    }

    fn read_all(&self, numbers: &mut dyn Iterator<Item = u64>) -> Result<u64> {
        let recovered = self
            .recovered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let positions = recovered.positions.clone();
        drop(recovered);
        let mut value = Vec::new();
        let mut sum = 0_u64;
        for n in numbers {
            let position = positions.get(n as usize).context("not there")?;
            let mut chunk = self.log.read_at(*position)?;
            value.clear();
            chunk.read_to_end(&mut value)?;
            if !chunk.crc_is_valid()? {
                bail!("damaged");
            }
            sum = sum.wrapping_add(values::fold(&value));
        }
        Ok(sum)
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
