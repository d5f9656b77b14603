//! commitlog 0.2: a log of segments. An append is a `write(2)`; its flush writes the index back but never
//! syncs the segment (`File::flush` does nothing).

use std::{path::PathBuf, sync::Mutex};

use anyhow::{Result, anyhow, bail};
use commitlog::{
    CommitLog, LogOptions, ReadLimit,
    message::{MessageBuf, MessageSet},
};

use crate::{
    subject::{Group, Kind, Promise, Setup, Subject},
    values::{self, Seen, Values},
};

const SCAN_BYTES: usize = 1 << 20;

pub const KIND: Kind = Kind {
    name: "commitlog",
    group: Group::Peer,
    open,
    kept: |promise| match promise {
        Promise::Synced => "power cut (fdatasync by the benchmark)",
        Promise::Buffered | Promise::Written => "kill -9",
    },
};

struct Peer {
    log: Mutex<CommitLog>,
    directory: PathBuf,
    promise: Promise,
    batch: MessageBuf,
    message_bytes: usize,
}

fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    let mut options = LogOptions::new(&setup.directory);
    options
        .segment_max_bytes(64 << 20)
        .message_max_bytes(16 << 20);
    options.index_max_items(1 << 20);
    Ok(Box::new(Peer {
        log: Mutex::new(CommitLog::new(options)?),
        directory: setup.directory.clone(),
        promise: setup.promise,
        batch: MessageBuf::default(),
        message_bytes: setup.value_bytes + 64,
    }))
}

/// What it leaves undone: a sync of the segment written last.
fn sync_newest(directory: &std::path::Path) -> Result<()> {
    let newest = std::fs::read_dir(directory)?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "log"))
        .max();
    match newest {
        Some(path) => Ok(std::fs::File::open(path)?.sync_data()?),
        None => bail!("no segment to sync"),
    }
}

impl Subject for Peer {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        let log = self.log.get_mut().map_err(|_| anyhow!("poisoned"))?;
        log.append_msg(value)?;
        if self.promise == Promise::Synced {
            sync_newest(&self.directory)?;
        }
        Ok(())
    }

    fn append_shared(&self, value: &[u8]) -> Result<()> {
        let mut log = self.log.lock().map_err(|_| anyhow!("poisoned"))?;
        log.append_msg(value)?;
        sync_newest(&self.directory)
    }

    fn append_batch(&mut self, values: &Values, range: std::ops::Range<u64>) -> Result<()> {
        self.batch.clear();
        for value in values.range(range) {
            self.batch.push(value).map_err(|_| anyhow!("too large"))?;
        }
        let log = self.log.get_mut().map_err(|_| anyhow!("poisoned"))?;
        log.append(&mut self.batch)?;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        sync_newest(&self.directory)
    }

    fn scan(&self) -> Result<Seen> {
        let log = self.log.lock().map_err(|_| anyhow!("poisoned"))?;
        let mut seen = Seen::default();
        loop {
            let messages = log.read(seen.records, ReadLimit::max_bytes(SCAN_BYTES))?;
            if messages.is_empty() {
                return Ok(seen);
            }
            messages
                .iter()
                .for_each(|message| seen.add(message.payload()));
        }
    }

    fn read(&self, n: u64) -> Result<u64> {
        let log = self.log.lock().map_err(|_| anyhow!("poisoned"))?;
        let messages = log.read(n, ReadLimit::max_bytes(self.message_bytes))?;
        let message = messages.iter().next().ok_or_else(|| anyhow!("not there"))?;
        Ok(values::fold(message.payload()))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
