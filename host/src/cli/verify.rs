//! `proglog verify`

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use proglog::Report;
use serde::Serialize;

use super::{
    Done,
    directory::open_to_read,
    failure::exit,
    info::print_findings,
    options::EngineArgs,
    text::{bytes, count},
};

/// Check every byte of a log; exit 0 if it is sound, 1 if it is damaged
///
/// Never writes. A torn tail or a bad index is a note, not damage: no acknowledged record is lost by
/// it, and the next append mends it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog verify ./log
  proglog verify ./log --json | jq '.segments[].damage[]'")]
pub(crate) struct Verify {
    /// The directory of the log
    dir: PathBuf,
    /// Print the report as an object of JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Serialize)]
struct Verdict<'a> {
    sound: bool,
    records: u64,
    damaged_records: u64,
    #[serde(flatten)]
    report: &'a Report,
}

impl Verify {
    pub(crate) fn run(&self) -> Done {
        let log = open_to_read(self.engine.engine, &self.dir)?;
        let report = log.verify()?;
        log.close()?;
        let verdict = Verdict {
            sound: report.is_sound(),
            records: report.records(),
            damaged_records: report
                .damage()
                .map(|damage| damage.last.next().since(damage.first))
                .fold(0, u64::saturating_add),
            report: &report,
        };
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(
                out,
                "{}",
                serde_json::to_string(&verdict).map_err(io::Error::from)?
            )?;
        } else {
            print(&mut out, &verdict)?;
        }
        Ok(if verdict.sound {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(exit::DAMAGED)
        })
    }
}

fn print(out: &mut impl Write, verdict: &Verdict<'_>) -> io::Result<()> {
    let segments = &verdict.report.segments;
    print_findings(out, verdict.report)?;
    let unchecked: u64 = segments
        .iter()
        .map(|segment| segment.unchecked_records)
        .sum();
    if unchecked > 0 {
        writeln!(
            out,
            "note       {} without a checksum",
            count(unchecked, "record")
        )?;
    }
    let stores = segments.iter().map(|segment| segment.store_bytes).sum();
    let place = format!(
        "in {}, {}",
        count(segments.len() as u64, "segment"),
        bytes(stores)
    );
    if verdict.sound {
        let records = count(verdict.records, "record");
        writeln!(out, "sound      {records} {place}")
    } else {
        let lost = count(verdict.damaged_records, "record");
        let left = count(verdict.records, "sound record");
        writeln!(out, "damaged    {lost} lost; {left} {place}")
    }
}
