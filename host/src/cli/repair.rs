//! `proglog repair`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use proglog::{Kept, Log, Lost, Options, Repair as Repaired, SetAside, SetAsideReason};
use serde::Serialize;

use super::{
    Done,
    destination::snapshot,
    directory::{open_to_read, require_log},
    failure::{Failure, exit},
    options::EngineArgs,
    text::{count, print_json, print_report},
};

/// Give up what is damaged in a log, so that the rest is sound; exit 1 if records were lost
///
/// Tells which offsets are lost, why, and where the bytes are that stood there: the store of each damaged
/// segment is copied as it is to a file beside it, SEGMENT.store.damaged-N, before the segment is written
/// anew. Reading a lost offset then says that it was given up. All else stays, to the byte; segments without
/// damage are not touched. After a crash the repair can be done again. Native code does it, with the log to
/// itself; --engine is what the log is then checked with.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog repair ./log --dry-run
  proglog repair ./log --to ./repaired
  proglog repair ./log --json | jq '.lost[]'")]
pub(crate) struct Repair {
    /// The directory of the log
    dir: PathBuf,
    /// Tell what a repair would do, and change nothing. It too needs the log to itself: what a writer is at
    /// looks like damage, so that beside one it ends with exit code 5; `proglog verify` looks beside a writer
    #[arg(long, conflicts_with = "to")]
    dry_run: bool,
    /// Repair a copy in this directory, which is not there yet or is empty, and leave the log as it is. A torn
    /// tail, of no acknowledged record, is not copied
    #[arg(long, value_name = "DEST")]
    to: Option<PathBuf>,
    /// Print {"offsets_lost":1,"lost":[{"segment":0,"first":3,"last":3,"reason":"checksum","bytes":
    /// {"file":"0.store.damaged-1","position":96,"bytes":32}}],"set_aside":[],"rewritten":[0],"made":[]}
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Serialize)]
struct Told<'a> {
    offsets_lost: u64,
    #[serde(flatten)]
    repair: &'a Repaired,
}

impl Repair {
    pub(crate) fn run(&self) -> Done {
        let engine = self.engine.engine;
        require_log(engine, &self.dir)?;
        let dir = self.to.as_ref().unwrap_or(&self.dir);
        if let Some(to) = &self.to {
            snapshot(&self.dir, to)?;
        }
        let repair = if self.dry_run {
            Log::plan_repair(dir, Options::new())
        } else {
            Log::repair(dir, Options::new())
        };
        let repair = repair.map_err(proglog_host::Error::from)?;
        let told = if self.json {
            print_json(&Told {
                offsets_lost: repair.offsets_lost(),
                repair: &repair,
            })
        } else {
            print_report(&report(&repair, dir, self.dry_run))
        };
        if !self.dry_run {
            let log = open_to_read(engine, dir)?;
            let report = log.verify()?;
            log.close()?;
            if !report.is_sound() {
                return Err(Failure::new(
                    "corrupt",
                    "the log is damaged again; see `proglog verify`, and whether the disk fails",
                ));
            }
        }
        told?;
        Ok(if repair.lost.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(exit::DAMAGED)
        })
    }
}

fn report(repair: &Repaired, dir: &Path, dry: bool) -> String {
    let lost = repair.lost.iter();
    let lost = lost.map(|lost| format!("LOST       {}\n", lost_note(lost, dir)));
    let others = repair.set_aside.iter();
    let others = others.map(|other| format!("set aside  {}\n", set_aside_note(other, dir)));
    let mut report: String = lost.chain(others).collect();
    let lost = count(repair.offsets_lost(), "record");
    let segments = count(
        (repair.rewritten.len() + repair.made.len()) as u64,
        "segment",
    );
    report += &if repair.is_empty() {
        "sound      there is nothing to repair\n".to_owned()
    } else if dry {
        format!("to repair  {lost} to be lost; {segments} to be written anew\n")
    } else {
        format!("repaired   {lost} lost; {segments} written anew\n")
    };
    report
}

fn lost_note(lost: &Lost, dir: &Path) -> String {
    let place = lost
        .bytes
        .as_ref()
        .map(|kept| kept_note(kept, lost.segment.0, dir));
    format!(
        "segment {}, offsets {}..={}: {}{}",
        lost.segment,
        lost.first,
        lost.last,
        lost.reason,
        place.unwrap_or_default()
    )
}

fn set_aside_note(other: &SetAside, dir: &Path) -> String {
    let what = match other.reason {
        SetAsideReason::TornTail => {
            "what an unclean stop left at the end, of no acknowledged record"
        }
        SetAsideReason::Trailing => "bytes after its last record",
        SetAsideReason::Overlap => "records whose offsets the next segment has",
        SetAsideReason::Stray => "bad bytes before a record, which is sound",
        _ => "bytes that this version has no words for",
    };
    let place = kept_note(&other.bytes, other.segment.0, dir);
    format!("segment {}: {what}{place}", other.segment)
}

/// Where bytes are by now.
fn kept_note(kept: &Kept, segment: u64, dir: &Path) -> String {
    let store = format!("{segment}.store");
    let file = dir.join(kept.file.as_ref().unwrap_or(&store));
    let bytes = count(kept.bytes, "byte");
    format!("; {bytes} at {} of {}", kept.position, file.display())
}
