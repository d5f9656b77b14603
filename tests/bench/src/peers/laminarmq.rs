//! laminarmq 0.0.5: the segmented log of a message queue, asynchronous, here on one thread of tokio's. Its
//! flush closes the files and opens them again; nothing syncs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result, anyhow};
use laminarmq::{
    common::{cache::NoOpCache, serde_compat::bincode::BinCode},
    storage::{
        AsyncConsume as _, AsyncIndexedRead as _,
        commit_log::segmented_log::{Config, MetaWithIdx, Record, SegmentedLog, segment},
        impls::{
            common::DiskBackedSegmentStorageProvider,
            tokio::storage::std_random_read::{
                StdRandomReadFileStorage, StdRandomReadFileStorageProvider,
            },
        },
    },
};
use tokio::runtime::{Builder, Runtime};

use crate::{
    subject::{Group, Kind, Promise, Setup, Subject},
    values::{self, Seen},
};

pub const KIND: Kind = Kind {
    name: "laminarmq",
    group: Group::Peer,
    open,
    kept: |promise| match promise {
        Promise::Buffered => "nothing",
        Promise::Written => "kill -9",
        Promise::Synced => "power cut (fdatasync by the benchmark)",
    },
};

type Files = DiskBackedSegmentStorageProvider<
    StdRandomReadFileStorage,
    StdRandomReadFileStorageProvider,
    u64,
>;
type Log = SegmentedLog<
    StdRandomReadFileStorage,
    (),
    crc32fast::Hasher,
    u64,
    u64,
    BinCode,
    Files,
    NoOpCache<usize, ()>,
>;

struct Peer {
    state: Mutex<State>,
    directory: PathBuf,
    promise: Promise,
}

struct State {
    runtime: Runtime,
    log: Log,
}

fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    let runtime = Builder::new_current_thread().build()?;
    let config = Config {
        num_index_cached_read_segments: None,
        segment_config: segment::Config {
            max_store_size: 64 << 20,
            max_store_overflow: 1 << 20,
            max_index_size: 64 << 20,
        },
        initial_index: 0,
    };
    let files = Files::with_storage_directory_path_and_provider(
        &setup.directory,
        StdRandomReadFileStorageProvider,
    )?;
    let log = runtime.block_on(Log::new(config, files));
    let log = log.map_err(|e| anyhow!("{e:?}"))?;
    Ok(Box::new(Peer {
        state: State { runtime, log }.into(),
        directory: setup.directory.clone(),
        promise: setup.promise,
    }))
}

impl State {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        let record = Record {
            metadata: MetaWithIdx {
                metadata: (),
                index: None,
            },
            value,
        };
        let append = self.log.append_record_with_contiguous_bytes(&record);
        self.runtime
            .block_on(append)
            .map_err(|e| anyhow!("{e:?}"))?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let flushed = self.runtime.block_on(self.log.flush());
        flushed.map_err(|e| anyhow!("{e:?}"))
    }

    fn sync(&mut self, directory: &Path) -> Result<()> {
        self.flush()?;
        let number = |path: &Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
        let newest = fs::read_dir(directory)?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|e| e == "store"))
            .max_by_key(|path| number(path))
            .context("no store")?;
        Ok(fs::File::open(newest)?.sync_data()?)
    }

    fn read(&self, n: u64) -> Result<Vec<u8>> {
        let record = self.runtime.block_on(self.log.read(&n));
        Ok(record.map_err(|e| anyhow!("{e:?}"))?.value)
    }
}

impl Peer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subject for Peer {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        let state = self.state.get_mut().ok().context("poisoned")?;
        state.append(value)?;
        match self.promise {
            Promise::Buffered => Ok(()),
            Promise::Written => state.flush(),
            Promise::Synced => state.sync(&self.directory),
        }
    }

    fn append_shared(&self, value: &[u8]) -> Result<()> {
        let mut state = self.state();
        state.append(value)?;
        state.sync(&self.directory)
    }

    fn fills_in_batches(&self) -> bool {
        true
    }

    fn flush(&mut self) -> Result<()> {
        self.state().flush()
    }

    fn sync(&mut self) -> Result<()> {
        self.state().sync(&self.directory)
    }

    fn scan(&self) -> Result<Seen> {
        let state = self.state();
        let mut seen = Seen::default();
        while seen.records < state.log.highest_index() {
            seen.add(&state.read(seen.records)?);
        }
        Ok(seen)
    }

    fn read(&self, n: u64) -> Result<u64> {
        Ok(values::fold(&self.state().read(n)?))
    }

    fn close(self: Box<Self>) -> Result<()> {
        let State { runtime, log } = self.state.into_inner().ok().context("poisoned")?;
        runtime.block_on(log.close()).map_err(|e| anyhow!("{e:?}"))
    }
}
