//! `proglog verify`

use std::{
    fs,
    io::{self, Write},
    num::NonZero,
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
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
    progress::Progress,
    text::{bytes, count},
};

/// Check every byte of a log; exit 0 if it is sound, 1 if it is damaged
///
/// Never writes. A torn tail or a bad index is a note, not damage: no acknowledged record is lost by
/// it, and the next append mends it. The native engine looks at several segments at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog verify ./log
  proglog verify ./log --engine native --threads 4
  proglog verify ./log --json | jq '.segments[].damage[]'")]
pub(crate) struct Verify {
    /// The directory of the log
    dir: PathBuf,
    /// Look at no more segments than these at once; the wasm engine looks at one at a time
    /// [default: as many as there are processors]
    #[arg(long, value_name = "N", value_parser = parse_threads, allow_negative_numbers = true)]
    threads: Option<NonZero<usize>>,
    /// Print the report as an object of JSON: whether the log is sound, and of each segment how many
    /// records it holds, how its index is, what is damaged
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
        let threads = self
            .threads
            .or_else(|| thread::available_parallelism().ok())
            .unwrap_or(NonZero::<usize>::MIN);
        let mut progress = Progress::of_log(false, || store_bytes(&self.dir));
        let report = match log.bytes_read() {
            // It tells of the segments at its end alone.
            Some(before) => {
                let bytes_read = || log.bytes_read().unwrap_or(before) - before;
                progress.meanwhile(bytes_read, || log.verify())
            }
            None => log.verify_with(threads, &mut |segment| {
                progress.advance(segment.store_bytes);
            }),
        };
        progress.clear();
        let report = report?;
        log.close()?;
        let verdict = Verdict {
            sound: report.is_sound(),
            records: report.records(),
            damaged_records: report
                .damage()
                .map(proglog::Damage::offsets)
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

/// The bytes of all stores, where that can be told.
fn store_bytes(directory: &Path) -> Option<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).ok()? {
        let entry = entry.ok()?;
        if Path::new(&entry.file_name()).extension() == Some("store".as_ref()) {
            bytes += entry.metadata().ok()?.len();
        }
    }
    Some(bytes)
}

/// How many threads may look.
fn parse_threads(text: &str) -> Result<NonZero<usize>, String> {
    let number = text.parse();
    number.map_err(|_| "give a whole number, from 1".to_owned())
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
