//! `proglog info`

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use proglog::{IndexState, Offset, Report, SegmentSummary, TornTail};
use proglog_host::Engine;
use serde::Serialize;

use super::{
    Done,
    directory::open_to_read,
    exchange::Stretch,
    options::EngineArgs,
    text::{bytes, count, offsets},
};

/// Say what a log holds: offsets, segments, bytes, and whether it needs recovery
///
/// Looks only at what opening the log looks at: all of it where it was not closed, and otherwise no more
/// than the last record. What it did not look at it calls not verified; `proglog verify` checks every
/// byte.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog info ./log
  proglog info ./log --json | jq .next_offset")]
pub(crate) struct Info {
    /// The directory of the log
    dir: PathBuf,
    /// Print an object of JSON; its `records` is null where they were not verified
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Serialize)]
struct Summary<'a> {
    directory: String,
    engine: String,
    lowest_offset: Offset,
    next_offset: Offset,
    /// Known where opening the log looked at all of them.
    records: Option<u64>,
    segments: &'a [SegmentSummary],
    /// What no segment holds, and none tells that it is not there.
    missing: Vec<Stretch>,
    store_bytes: u64,
    index_bytes: u64,
    /// Whether opening it to append would have something to mend or to make sure of. It would not after a
    /// clean stop, nor after others that left the files as one does.
    needs_recovery: bool,
    /// The segments that were scanned for that.
    scanned: &'a Report,
}

impl Info {
    pub(crate) fn run(&self) -> Done {
        let log = open_to_read(self.engine.engine, &self.dir)?;
        let (lowest, next) = (log.lowest_offset()?, log.next_offset()?);
        let (segments, scanned) = (log.segments()?, log.recovery_report()?);
        let missing = missing(&*log, &segments);
        log.close()?;
        let engine = self.engine.engine.to_possible_value();
        let summary = Summary {
            directory: self.dir.display().to_string(),
            engine: engine.map_or_else(String::new, |value| value.get_name().to_owned()),
            lowest_offset: lowest,
            next_offset: next,
            records: is_verified(&segments, &scanned).then(|| scanned.records()),
            segments: &segments,
            missing,
            store_bytes: segments.iter().map(|segment| segment.store_bytes).sum(),
            index_bytes: segments
                .iter()
                .map(|segment| index_bytes(&self.dir, segment))
                .sum(),
            needs_recovery: !scanned.segments.is_empty(),
            scanned: &scanned,
        };
        let mut out = io::stdout().lock();
        if self.json {
            writeln!(
                out,
                "{}",
                serde_json::to_string(&summary).map_err(io::Error::from)?
            )?;
        } else {
            print(&mut out, &summary)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The offsets between segments of which none tells that they are not there.
fn missing(log: &dyn Engine, segments: &[SegmentSummary]) -> Vec<Stretch> {
    let between = segments.windows(2).filter_map(|pair| {
        let (first, after) = (pair[0].next, pair[1].base);
        let is_told = || log.locate(first).is_ok_and(|place| place.gap.is_some());
        (first < after && !is_told()).then(|| Stretch {
            first,
            last: Offset(after.0 - 1),
        })
    });
    between.collect()
}

/// Whether opening the log looked at all records. Of an empty log there are none to look at.
fn is_verified(segments: &[SegmentSummary], scanned: &Report) -> bool {
    segments.iter().all(|segment| {
        segment.store_bytes == 0
            || scanned
                .segments
                .iter()
                .any(|seen| seen.base == segment.base)
    })
}

fn index_bytes(directory: &Path, segment: &SegmentSummary) -> u64 {
    // A missing index has none.
    fs::metadata(directory.join(format!("{}.index", segment.base))).map_or(0, |found| found.len())
}

fn print(out: &mut impl Write, summary: &Summary<'_>) -> io::Result<()> {
    writeln!(out, "log        {}", summary.directory)?;
    writeln!(out, "engine     {}", summary.engine)?;
    writeln!(
        out,
        "offsets    {}",
        offsets(summary.lowest_offset, summary.next_offset)
    )?;
    match summary.records {
        Some(records) => writeln!(out, "records    {records}")?,
        None => writeln!(
            out,
            "records    not verified; `proglog verify {}` counts and checks them",
            summary.directory
        )?,
    }
    writeln!(out, "segments   {}", summary.segments.len())?;
    writeln!(out, "stores     {}", bytes(summary.store_bytes))?;
    writeln!(out, "indexes    {}", bytes(summary.index_bytes))?;
    for stretch in &summary.missing {
        let offsets = offsets(stretch.first, stretch.last.next());
        writeln!(out, "DAMAGED    offsets {offsets} are in no segment")?;
    }
    if !summary.needs_recovery {
        return writeln!(out, "recovery   not needed: the end of the log is in order");
    }
    writeln!(out, "recovery   needed, unless a writer has the log now")?;
    print_findings(out, summary.scanned)
}

/// What was found in segments, besides that all is well.
pub(crate) fn print_findings(out: &mut impl Write, report: &Report) -> io::Result<()> {
    for segment in &report.segments {
        if let Some(state) = index_note(segment.index) {
            writeln!(
                out,
                "note       segment {}: its index {state}",
                segment.base
            )?;
        }
    }
    for tail in report.torn_tails() {
        writeln!(out, "note       {}", tail_note(tail))?;
    }
    for damage in report.damage() {
        writeln!(out, "DAMAGED    {}", damage_note(damage))?;
    }
    let gaps = report.gaps();
    for (offsets, what) in [
        (gaps.compacted, "compacted"),
        (gaps.skipped, "left out when the log was written"),
        (gaps.lost, "given up as lost"),
        (gaps.other, "not there for a reason of a later version"),
    ] {
        if offsets > 0 {
            writeln!(out, "note       {} {what}", count(offsets, "offset"))?;
        }
    }
    for lost in &gaps.lost_stretches {
        writeln!(out, "note       lost {}..={}", lost.first, lost.last)?;
    }
    Ok(())
}

fn index_note(state: IndexState) -> Option<&'static str> {
    match state {
        IndexState::Sound => None,
        IndexState::Unfinished => Some("is unfinished; the next append will finish it"),
        IndexState::Missing => Some("is missing; the next append will make it anew"),
        // That of a sealed segment stays as it is, where it tells of records that are missing.
        IndexState::Disagrees => Some("disagrees with its store, which is what is read"),
        _ => Some("is in a state that this version has no words for"),
    }
}

pub(crate) fn tail_note(tail: &TornTail) -> String {
    let mut note = format!(
        "segment {} ends with {} that belong to no acknowledged record (position {}",
        tail.segment,
        count(tail.bytes, "byte"),
        tail.position
    );
    if tail.zeros {
        note.push_str(", all zeros");
    }
    if tail.records > 0 {
        note.push_str(", ");
        note.push_str(&count(tail.records, "record"));
        note.push_str(" of an unfinished batch or after space that was never written");
    }
    note + if tail.sealed {
        "); they are left where they are"
    } else {
        "); the next append will cut them off"
    }
}

pub(crate) fn damage_note(damage: &proglog::Damage) -> String {
    if damage.bytes_only {
        return format!(
            "segment {}, before offset {}, position {}, {} that are none of any record; none is lost by them",
            damage.segment,
            damage.first,
            damage.position,
            count(damage.bytes, "byte"),
        );
    }
    format!(
        "segment {}, offsets {}..={}, position {}, {}: {}",
        damage.segment,
        damage.first,
        damage.last,
        damage.position,
        count(damage.bytes, "byte"),
        damage.reason
    )
}
