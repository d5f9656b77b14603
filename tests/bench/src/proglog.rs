//! proglog itself, from the sources beside this workspace.

use std::ops::Range;

use anyhow::Result;
use proglog::{Clock, Durability, Log, Offset, Options};

use crate::{
    frame::frame_bytes,
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

/// With its default clock: every record has a timestamp.
pub const PROGLOG: Kind = Kind {
    name: "proglog",
    group: Group::Proglog,
    open: |setup| open(setup, Clock::default()),
    kept,
};

/// Without timestamps.
pub const NO_CLOCK: Kind = Kind {
    name: "proglog, no clock",
    group: Group::Proglog,
    open: |setup| open(setup, Clock::NONE),
    kept,
};

/// With space made ready for what will be appended, as the floors that are zero-filled have.
pub const RESERVED: Kind = Kind {
    name: "proglog, space reserved",
    group: Group::Proglog,
    open: |setup| {
        let log = Log::open(&setup.directory, options(setup))?;
        log.reserve(setup.records * frame_bytes(setup.value_bytes) as u64)?;
        Ok(Box::new(Native { log, keeps: false }))
    },
    kept,
};

/// Whose scan gives records to keep.
pub const KEPT: Kind = Kind {
    name: "proglog, records kept",
    group: Group::Proglog,
    open: |setup| {
        let options = verify(setup, options(setup));
        Ok(Box::new(Native {
            log: Log::open(&setup.directory, options)?,
            keeps: true,
        }))
    },
    kept,
};

pub fn options(setup: &Setup) -> Options {
    let options = Options::new().durability(match setup.promise {
        Promise::Buffered => Durability::Buffered,
        Promise::Written => Durability::Written,
        Promise::Synced => Durability::Synced,
    });
    match setup.segment_bytes {
        Some(bytes) => options.segment_bytes_max(bytes),
        None => options,
    }
}

fn open(setup: &Setup, clock: Clock) -> Result<Box<dyn Subject>> {
    let options = verify(setup, options(setup).clock(clock));
    Ok(Box::new(Native {
        log: Log::open(&setup.directory, options)?,
        keeps: false,
    }))
}

fn verify(setup: &Setup, options: Options) -> Options {
    options.verify(match setup.verify_once {
        true => proglog::Verify::Once,
        false => proglog::Verify::EveryRead,
    })
}

struct Native {
    log: Log,
    /// Whether a scan gives records to keep, rather than borrowed ones.
    keeps: bool,
}

impl Subject for Native {
    #[inline]
    fn append(&mut self, value: &[u8]) -> Result<()> {
        self.append_shared(value)
    }

    #[inline]
    fn append_shared(&self, value: &[u8]) -> Result<()> {
        self.log.append(value)?;
        Ok(())
    }

    fn append_batch(&mut self, values: &Values, range: Range<u64>) -> Result<()> {
        self.log.append_batch(values.range(range))?;
        Ok(())
    }

    /// There is no call that only writes: what is not in the file yet waits for the buffer to fill, as in
    /// a program that goes on appending.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.log.sync()?)
    }

    fn scan(&self) -> Result<Seen> {
        let mut seen = Seen::default();
        let mut scan = self.log.scan(..);
        if self.keeps {
            for record in scan {
                seen.add(record?.value());
            }
            return Ok(seen);
        }
        while let Some(record) = scan.next_borrowed() {
            seen.add(record?.value());
        }
        Ok(seen)
    }

    #[inline]
    fn read(&self, n: u64) -> Result<u64> {
        Ok(values::fold(self.log.read(Offset(n))?.value()))
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.log.close()?)
    }
}
