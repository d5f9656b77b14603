//! raft-engine 0.4: TiKV's log of many Raft groups; here one. Its compression is off, for the values are
//! random.

use std::ops::Range;

use anyhow::{Context as _, Result};
use protobuf::descriptor::UninterpretedOption;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::{
    subject::{Group, Kind, Promise, Setup, Subject},
    values::{self, Seen, Values},
};

pub const KIND: Kind = Kind {
    name: "raft-engine",
    group: Group::Peer,
    open,
    kept: |promise| match promise {
        Promise::Synced => "power cut",
        Promise::Buffered | Promise::Written => "kill -9",
    },
};

const GROUP: u64 = 1;
const SCAN_RECORDS: u64 = 256;

/// Entries are protobuf messages. This one, which protobuf brings along, has a number and bytes.
struct Message;

impl MessageExt for Message {
    type Entry = UninterpretedOption;

    fn index(entry: &Self::Entry) -> u64 {
        entry.get_positive_int_value()
    }
}

struct Peer {
    engine: Engine,
    /// Raft numbers its entries itself.
    next: std::sync::Mutex<u64>,
    sync: bool,
}

fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    let config = Config {
        dir: setup.directory.to_str().context("not UTF-8")?.to_owned(),
        batch_compression_threshold: ReadableSize(0),
        purge_threshold: ReadableSize::gb(64),
        ..Config::default()
    };
    let engine = Engine::open(config)?;
    let next = engine.last_index(GROUP).map_or(0, |last| last + 1);
    Ok(Box::new(Peer {
        engine,
        next: next.into(),
        sync: setup.promise == Promise::Synced,
    }))
}

fn entry(n: u64, value: &[u8]) -> UninterpretedOption {
    let mut entry = UninterpretedOption::new();
    entry.set_positive_int_value(n);
    entry.set_string_value(value.to_vec());
    entry
}

impl Subject for Peer {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        let next = self.next.get_mut().ok().context("poisoned")?;
        let mut batch = LogBatch::with_capacity(1);
        batch.add_entries::<Message>(GROUP, &[entry(*next, value)])?;
        self.engine.write(&mut batch, self.sync)?;
        *next += 1;
        Ok(())
    }

    /// Each thread is a group of its own: in one group numbers must not overtake each other.
    fn append_shared(&self, value: &[u8]) -> Result<()> {
        thread_local!(static NEXT: std::cell::Cell<(u64, u64)> = const { std::cell::Cell::new((0, 0)) });
        let (mut group, n) = NEXT.get();
        if group == 0 {
            let mut groups = self.next.lock().ok().context("poisoned")?;
            *groups += 1;
            group = GROUP + *groups;
        }
        let mut batch = LogBatch::with_capacity(1);
        batch.add_entries::<Message>(group, &[entry(n, value)])?;
        self.engine.write(&mut batch, true)?;
        NEXT.set((group, n + 1));
        Ok(())
    }

    fn append_batch(&mut self, values: &Values, range: Range<u64>) -> Result<()> {
        let next = self.next.get_mut().ok().context("poisoned")?;
        let entries: Vec<_> = values
            .range(range)
            .zip(*next..)
            .map(|(value, n)| entry(n, value))
            .collect();
        let mut batch = LogBatch::with_capacity(entries.len());
        batch.add_entries::<Message>(GROUP, &entries)?;
        *next += entries.len() as u64;
        // With the sync in it: `Engine::sync` writes an empty batch, which returns at once.
        self.engine.write(&mut batch, true)?;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    fn scan(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut entries = Vec::new();
        let end = self.engine.last_index(GROUP).map_or(0, |last| last + 1);
        while seen.records < end {
            entries.clear();
            let to = (seen.records + SCAN_RECORDS).min(end);
            self.engine
                .fetch_entries_to::<Message>(GROUP, seen.records, to, None, &mut entries)?;
            entries
                .iter()
                .for_each(|entry| seen.add(entry.get_string_value()));
        }
        Ok(seen)
    }

    fn read(&self, n: u64) -> Result<u64> {
        let entry = self
            .engine
            .get_entry::<Message>(GROUP, n)?
            .context("not there")?;
        Ok(values::fold(entry.get_string_value()))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
