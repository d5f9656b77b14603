//! `proglog repair`

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use proglog::{Kept, Log, Lost, Options, Repair as Repaired, SetAside, SetAsideReason};
use proglog_host::ErrorKind;
use serde::Serialize;

use super::{
    Done,
    directory::open_to_read,
    failure::{Failure, exit},
    options::EngineArgs,
    text::count,
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
    /// Tell what a repair would do, and change nothing
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
        open_to_read(engine, &self.dir)?.close()?;
        let dir = self.to.as_ref().unwrap_or(&self.dir);
        if let Some(to) = &self.to {
            let copied =
                Log::open_read_only(&self.dir, Options::new()).and_then(|log| log.snapshot(to));
            copied.map_err(|error| {
                let error = proglog_host::Error::from(error);
                match error.kind() {
                    ErrorKind::InvalidArgument => Failure::new("exists", error.to_string()),
                    _ => Failure::from(error),
                }
            })?;
        }
        let repair = if self.dry_run {
            Log::plan_repair(dir, Options::new())
        } else {
            Log::repair(dir, Options::new())
        };
        let repair = repair.map_err(proglog_host::Error::from)?;
        let mut out = io::stdout().lock();
        if self.json {
            let told = Told {
                offsets_lost: repair.offsets_lost(),
                repair: &repair,
            };
            let told = serde_json::to_string(&told).map_err(io::Error::from)?;
            writeln!(out, "{told}")?;
        } else {
            print(&mut out, &repair, dir, self.dry_run)?;
        }
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
        Ok(if repair.lost.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(exit::DAMAGED)
        })
    }
}

fn print(out: &mut impl Write, repair: &Repaired, dir: &Path, dry: bool) -> io::Result<()> {
    for lost in &repair.lost {
        writeln!(out, "LOST       {}", lost_note(lost, dir))?;
    }
    for other in &repair.set_aside {
        writeln!(out, "set aside  {}", set_aside_note(other, dir))?;
    }
    if repair.is_empty() {
        return writeln!(out, "sound      there is nothing to repair");
    }
    let lost = count(repair.offsets_lost(), "record");
    let segments = count(
        (repair.rewritten.len() + repair.made.len()) as u64,
        "segment",
    );
    if dry {
        writeln!(
            out,
            "to repair  {lost} to be lost; {segments} to be written anew"
        )
    } else {
        writeln!(out, "repaired   {lost} lost; {segments} written anew")
    }
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
        SetAsideReason::Leading => "bad bytes before its first record",
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
