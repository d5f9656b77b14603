//! `proglog compact`

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use proglog::{Compacted, Compaction, LeftAlone, LeftAloneReason, Options};

use super::{
    Done,
    directory::{open_natively_to_write, require_log},
    failure::{Failure, exit},
    options::{EngineArgs, parse_bytes, parse_duration},
    text::{bytes, count, note},
};

/// Keep of the records of each key the latest alone
///
/// A record with a key and no value deletes its key, and goes itself once it is old enough. Records without a key stay,
/// and so do all in the last segment, which takes appends. Offsets stay what they are: those of what was removed are
/// not there any more, which is no damage. Each segment is written anew on stable storage before the next one; if it is
/// stopped, those that were done are. No other writer may have the log, but readers may. Native code does it; --engine
/// is what the log is opened with before.
///
/// Damaged segments are left alone, and then the exit code is 1, as it is with `proglog verify`; or 4 if another could
/// not be written.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog compact ./log
  proglog compact ./log --tombstones-kept 7d --verbose
  proglog compact ./log --json | jq .bytes_removed")]
pub(crate) struct Compact {
    /// The directory of the log
    dir: PathBuf,
    /// How long a record that deletes its key stays after its timestamp, so that who reads along hears of it; 0s is
    /// not at all
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = parse_duration, allow_hyphen_values = true)]
    tombstones_kept: Duration,
    /// How much memory the keys may take that are looked at at once; with more of them the log is read several times
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = parse_bytes, allow_hyphen_values = true)]
    memory_bytes_max: u64,
    /// Say of each segment that was written anew what was removed from it
    #[arg(long, short)]
    verbose: bool,
    /// Print {"records_removed":2,"bytes_removed":93,"store_bytes_before":300,"store_bytes_after":230,
    /// "segments":[…],"left_alone":[{"base":7,"reason":"damaged"}]}
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

impl Compact {
    pub(crate) fn run(&self) -> Done {
        require_log(self.engine.engine, &self.dir)?;
        let log = open_natively_to_write(&self.dir, Options::new())?;
        let compaction = Compaction::new()
            .tombstones_kept(self.tombstones_kept)
            .memory_bytes_max(self.memory_bytes_max);
        let compacted = log.compact(&compaction).map_err(proglog_host::Error::from);
        let closed = log.close().map_err(proglog_host::Error::from);
        let compacted = compacted.map_err(Failure::from)?;
        self.tell(&compacted)?;
        closed?;
        Ok(exit_code(&compacted.left_alone))
    }

    fn tell(&self, compacted: &Compacted) -> io::Result<()> {
        for LeftAlone { base, reason, .. } in &compacted.left_alone {
            note(&match reason {
                LeftAloneReason::Damaged => format!(
                    "segment {base} is damaged and was left as it is; `proglog verify {}` lists what is damaged",
                    self.dir.display()
                ),
                LeftAloneReason::Failed(what) => {
                    format!("segment {base} could not be written anew: {what}")
                }
                _ => format!("segment {base} was left as it is: the log was truncated meanwhile"),
            });
        }
        let mut out = io::stdout().lock();
        if self.json {
            let told = serde_json::to_string(compacted).map_err(io::Error::from)?;
            return writeln!(out, "{told}");
        }
        if self.verbose {
            for segment in &compacted.segments {
                writeln!(
                    out,
                    "segment {}: removed {}; {} of {} left",
                    segment.base,
                    count(segment.records_removed, "record"),
                    segment.store_bytes_after,
                    bytes(segment.store_bytes_before),
                )?;
            }
        }
        if compacted.segments.is_empty() {
            return writeln!(out, "removed nothing");
        }
        writeln!(
            out,
            "removed {}, {}; {} written anew",
            count(compacted.records_removed, "record"),
            bytes(compacted.bytes_removed),
            count(compacted.segments.len() as u64, "segment"),
        )
    }
}

/// What `proglog verify` would say, unless something else failed.
fn exit_code(left_alone: &[LeftAlone]) -> ExitCode {
    let is_damage = |left: &LeftAlone| matches!(left.reason, LeftAloneReason::Damaged);
    match left_alone {
        [] => ExitCode::SUCCESS,
        all if all.iter().all(is_damage) => ExitCode::from(exit::DAMAGED),
        _ => ExitCode::from(exit::FAILED),
    }
}
