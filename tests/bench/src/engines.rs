//! proglog behind the host's engines: as native code, and as a wasm module in a sandbox.

use std::ops::Range;

use anyhow::{Result, anyhow};
use proglog::{FileAccess, FsBackend, Log, NewRecord, Offset};
use proglog_host::{Engine, EngineKind, Mode};

use crate::{
    proglog::options,
    subject::{Group, Kind, Promise, Setup, Subject},
    values::{self, Seen, Values},
};

const fn kept(promise: Promise) -> &'static str {
    match promise {
        Promise::Buffered => "nothing",
        Promise::Written => "kill -9",
        Promise::Synced => "power cut",
    }
}

/// By the same path as the wasm engine: files read and written by calls, for a sandbox can map none, and
/// no thread of the log's own.
pub const NATIVE: Kind = Kind {
    name: "native engine, files by calls",
    group: Group::Floor,
    open: |setup| {
        let files = FsBackend::open(&setup.directory)?.file_access(FileAccess::Calls);
        Ok(Box::new(Hosted(Box::new(Log::open_on(
            files,
            options(setup),
        )?))))
    },
    kept,
};

/// As it is opened unless told otherwise.
pub const NATIVE_MAPPED: Kind = Kind {
    name: "native engine, files mapped",
    group: Group::Floor,
    open: |setup| open(setup, EngineKind::Native),
    kept,
};

pub const WASM: Kind = Kind {
    name: "wasm engine",
    group: Group::Proglog,
    open: |setup| open(setup, EngineKind::Wasm),
    kept,
};

struct Hosted(Box<dyn Engine>);

fn open(setup: &Setup, kind: EngineKind) -> Result<Box<dyn Subject>> {
    let engine = proglog_host::open(kind, &setup.directory, Mode::Write, options(setup));
    Ok(Box::new(Hosted(engine.map_err(|e| anyhow!("{e}"))?)))
}

impl Subject for Hosted {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        let appended = self.0.append_batch(&[NewRecord::new(value)]);
        appended.map(drop).map_err(|e| anyhow!("{e}"))
    }

    fn append_batch(&mut self, values: &Values, range: Range<u64>) -> Result<()> {
        let records: Vec<NewRecord<'_>> = values.range(range).map(NewRecord::new).collect();
        let appended = self.0.append_batch(&records);
        appended.map(drop).map_err(|e| anyhow!("{e}"))
    }

    fn sync(&mut self) -> Result<()> {
        self.0.sync().map_err(|e| anyhow!("{e}"))
    }

    fn scan(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        for record in self.0.scan(Offset(0)) {
            seen.add(record.map_err(|e| anyhow!("{e}"))?.value());
        }
        Ok(seen)
    }

    fn read(&self, n: u64) -> Result<u64> {
        let record = self.0.read(Offset(n)).map_err(|e| anyhow!("{e}"))?;
        Ok(values::fold(record.value()))
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.0.close().map_err(|e| anyhow!("{e}"))
    }
}
