//! `proglog snapshot`

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::{
    Done,
    destination::snapshot,
    directory::{open_to_read, require_log},
    options::EngineArgs,
    text::{bytes, count, offsets},
};

/// Copy a log, as it is at one moment, into another directory
///
/// Beside a writer too: the copy holds the log up to some record, and batches whole. Where the file system
/// has hard links, the stores of sealed segments are linked and take no space; what is done to either log
/// afterwards does not change the other, but a disk that damages such a file damages both. The copy is on
/// stable storage when this ends. It opens as a log, to append too. Native code links and copies the files;
/// --engine is what the copy is then opened with.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog snapshot ./log ./log-today
  proglog snapshot ./log ./copy && tar c ./copy | ssh host tar x && rm -r ./copy")]
pub(crate) struct Snapshot {
    /// The directory of the log
    dir: PathBuf,
    /// The directory for the copy, which is not there yet or is empty
    dest: PathBuf,
    /// Print {"lowest_offset":0,"next_offset":42,"segments":1,"store_bytes":1300}
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

impl Snapshot {
    pub(crate) fn run(&self) -> Done {
        require_log(self.engine.engine, &self.dir)?;
        snapshot(&self.dir, &self.dest)?;
        let copy = open_to_read(self.engine.engine, &self.dest)?;
        let (lowest, next) = (copy.lowest_offset()?, copy.next_offset()?);
        let segments = copy.segments()?;
        copy.close()?;
        let store_bytes: u64 = segments.iter().map(|segment| segment.store_bytes).sum();
        let mut out = io::stdout();
        if self.json {
            let told = json!({
                "lowest_offset": lowest, "next_offset": next, "segments": segments.len(),
                "store_bytes": store_bytes,
            });
            writeln!(out, "{told}")?;
        } else {
            writeln!(
                out,
                "copied {} (in {}, {})",
                offsets(lowest, next),
                count(segments.len() as u64, "segment"),
                bytes(store_bytes),
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
