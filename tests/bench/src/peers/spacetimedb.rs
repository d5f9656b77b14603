//! SpacetimeDB's commitlog 1.3, the last line for this Rust: appends wait in memory for a commit, which
//! one `write` puts into the file. Several records in a commit have no lengths of their own.

use std::num::NonZeroU16;

use anyhow::{Context as _, Result, bail};
use spacetimedb_commitlog::{Commitlog, Decoder, Encode, Options, error::Traversal};
use spacetimedb_paths::{FromPathUnchecked as _, server::CommitLogDir};
use spacetimedb_sats::buffer::{BufReader, BufWriter, DecodeError};

use crate::{
    subject::{Group, Kind, Promise, Setup, Subject},
    values::{self, Seen},
};

pub const KIND: Kind = Kind {
    name: "spacetimedb",
    group: Group::Peer,
    open,
    kept: |promise| match promise {
        Promise::Buffered => "nothing",
        Promise::Written => "kill -9",
        Promise::Synced => "power cut",
    },
};

/// As many records wait in memory as 1 MiB holds.
const WAITING_BYTES: usize = 1 << 20;

struct Peer {
    log: Commitlog<Value>,
    promise: Promise,
    decoder: Fixed,
}

struct Value(Vec<u8>);

impl Encode for Value {
    fn encode_record<W: BufWriter>(&self, writer: &mut W) {
        writer.put_slice(&self.0);
    }
}

/// Decodes values of one length.
struct Fixed(usize);

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Traversal(#[from] Traversal),
}

impl Decoder for Fixed {
    type Record = Value;
    type Error = ReadError;

    fn decode_record<'a, R: BufReader<'a>>(
        &self,
        _version: u8,
        _offset: u64,
        reader: &mut R,
    ) -> Result<Value, ReadError> {
        Ok(Value(reader.get_slice(self.0)?.to_vec()))
    }

    fn skip_record<'a, R: BufReader<'a>>(
        &self,
        _version: u8,
        _offset: u64,
        reader: &mut R,
    ) -> Result<(), ReadError> {
        reader.get_slice(self.0)?;
        Ok(())
    }
}

fn open(setup: &Setup) -> Result<Box<dyn Subject>> {
    let records = (WAITING_BYTES / setup.value_bytes).clamp(1, 65_535) as u16;
    let options = Options {
        max_segment_size: 64 << 20,
        max_records_in_commit: NonZeroU16::new(records).context("zero")?,
        ..Options::DEFAULT
    };
    let directory = CommitLogDir::from_path_unchecked(&setup.directory);
    Ok(Box::new(Peer {
        log: Commitlog::open(directory, options)?,
        promise: setup.promise,
        decoder: Fixed(setup.value_bytes),
    }))
}

impl Subject for Peer {
    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_shared(value)
    }

    fn append_shared(&self, value: &[u8]) -> Result<()> {
        if self.log.append_maybe_flush(Value(value.to_vec())).is_err() {
            bail!("append failed");
        }
        match self.promise {
            Promise::Buffered => {}
            Promise::Written => drop(self.log.flush()?),
            Promise::Synced => drop(self.log.flush_and_sync()?),
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.log.flush()?;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.log.flush_and_sync()?;
        Ok(())
    }

    fn scan(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        for transaction in self.log.transactions(&self.decoder) {
            seen.add(&transaction?.txdata.0);
        }
        Ok(seen)
    }

    fn read(&self, n: u64) -> Result<u64> {
        let mut from = self.log.transactions_from(n, &self.decoder);
        let transaction = from.next().context("not there")??;
        Ok(values::fold(&transaction.txdata.0))
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
