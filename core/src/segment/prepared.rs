//! Files of zeros that become stores: a segment that begins in one is written where its blocks are already.
//!
//! As etcd makes its next log file ahead (`server/storage/wal/file_pipeline.go`), and PostgreSQL fills its own with
//! zeros (`wal_init_zero`).

use std::io;

use super::files::{open_file, store_name};
use crate::{
    Error, Offset,
    backend::{Access, Backend},
    error::Thin,
    store::StoreReader,
};

const SUFFIX: &str = ".prepared";

/// Whether a file of this name was prepared by a writer, who is gone if it is found on opening.
pub(crate) fn is_prepared(name: &str) -> bool {
    let number = name.strip_suffix(SUFFIX).unwrap_or_default();
    number
        .parse::<u64>()
        .is_ok_and(|parsed| parsed.to_string() == number)
}

/// A file that holds nothing but zeros, durably.
#[derive(Debug)]
pub(crate) struct PreparedStore {
    name: String,
    bytes: u64,
}

impl PreparedStore {
    /// One without bytes. No other may have its number.
    pub(crate) fn new(number: u64) -> Self {
        Self {
            name: format!("{number}{SUFFIX}"),
            bytes: 0,
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Makes it `bytes` long, or as long as `go_on` lets it. What was in the way, if something was.
    pub(crate) fn fill<B: Backend>(
        &mut self,
        backend: &B,
        bytes: u64,
        go_on: impl FnMut() -> bool,
    ) -> Option<io::Error> {
        let filled = (|| {
            let file = backend.open(&self.name, Access::Create)?;
            let store =
                StoreReader::new(file, &self.name).map_err(|e| io::Error::other(Error::from(e)))?;
            if self.bytes == 0 && !store.is_empty() {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let short = store
                .prepare(bytes, go_on)
                .map_err(|e| io::Error::other(Error::from(e)))?;
            self.bytes = store.prepared_to();
            short.map_or(Ok(()), Err)
        })();
        filled.err()
    }

    /// Gives it the name of a segment's store, and opens that.
    pub(super) fn become_store<B: Backend>(
        &self,
        backend: &B,
        base: Offset,
    ) -> Thin<StoreReader<B::File>> {
        let name = store_name(base);
        let renamed = match backend.open(&name, Access::Read) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => backend.rename(&self.name, &name),
            Err(e) => Err(e),
        };
        renamed.map_err(|e| crate::Error::io("make", &name, e))?;
        let store = StoreReader::new(open_file(backend, &name, Access::Write)?, name)?;
        store.end_at(0);
        Ok(store)
    }

    /// Gives its space back. If it stays it does no harm, and opening the log removes it.
    pub(crate) fn remove<B: Backend>(self, backend: &B) {
        let _ = backend.remove(&self.name);
    }
}
