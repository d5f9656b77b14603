//! `proglog read`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use proglog::Offset;
use proglog_host::ErrorKind;

use super::{
    Done,
    directory::open_to_read,
    options::{EngineArgs, parse_number, parse_offset},
    records::{OutputArgs, RecordWriter, with_advice},
};

/// Print the record at an offset, or several from there on
///
/// Stops at the end of the log, and before a damaged record with exit code 1. Several are printed from the next
/// record on where the offset is not there, since it was compacted, given up or left out; one alone is then none,
/// with exit code 3.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog read ./log 41
  proglog read ./log 0 --count 100 --json | jq -r '.value | @base64d'")]
pub(crate) struct Read {
    /// The directory of the log
    dir: PathBuf,
    /// The offset of the first record to print
    #[arg(value_parser = parse_offset, allow_negative_numbers = true)]
    offset: Offset,
    /// Print at most so many records
    #[arg(short = 'n', long, default_value = "1", value_name = "N", value_parser = parse_number, allow_negative_numbers = true)]
    count: u64,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl Read {
    pub(crate) fn run(&self) -> Done {
        let log = open_to_read(self.engine.engine, &self.dir)?;
        let mut next = self.offset;
        // The end of the log is a place to read on from, but this asks for a record. The engine has
        // the words for one that is not there.
        if next < log.lowest_offset()? || next >= log.next_offset()? {
            log.read(next)?;
        }
        if self.count == 1
            && let Err(error) = log.read(next)
            && error.kind() == ErrorKind::Gap
        {
            return Err(error.into());
        }
        RecordWriter::new(self.output)
            .copy(&*log, &mut next, self.count)
            .map_err(|failure| with_advice(failure, &self.dir))?;
        log.close()?;
        Ok(ExitCode::SUCCESS)
    }
}
