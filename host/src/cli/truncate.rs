//! `proglog truncate`

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use proglog::{Offset, Options, Retention, SegmentSummary};
use proglog_host::Engine;
use serde::Serialize;

use super::{
    Done,
    directory::{open_to_read, open_to_write, require_log},
    failure::Failure,
    options::{EngineArgs, parse_bytes, parse_duration, parse_offset},
    retention::kept_from,
    text::{count, offsets, print_json, print_report},
};

/// Remove the records at the beginning or at the end of a log
///
/// What is removed is gone for good. It is so on stable storage when this ends; if it is stopped before,
/// a part of what was to be removed may remain. No other writer may have the log, but readers may.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog truncate ./log --before 1000 --dry-run
  proglog truncate ./log --before 1000    # whole segments: some records below 1000 may remain
  proglog truncate ./log --after 41       # the next append gets 42
  proglog truncate ./log --older-than 7d
  proglog truncate ./log --bytes-max 10G")]
pub(crate) struct Truncate {
    /// The directory of the log
    dir: PathBuf,
    #[command(flatten)]
    what: What,
    /// Only say what would be removed; nothing is written, and another writer may have the log
    #[arg(long)]
    dry_run: bool,
    /// Print {"removed":{"first":0,"last":41},"segments":1,"lowest_offset":42,"next_offset":50,"dry_run":false}
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = false)]
struct What {
    /// Remove the segments all of whose records are below this offset; the others stay whole, so that
    /// some records below it may remain. With the next offset the log is empty then
    #[arg(long, value_name = "OFFSET", value_parser = parse_offset, allow_negative_numbers = true)]
    before: Option<Offset>,
    /// Remove every record above this offset; their offsets are given again. To remove all of a log that
    /// begins above 0, give the offset before its lowest
    #[arg(long, value_name = "OFFSET", value_parser = parse_offset, allow_negative_numbers = true)]
    after: Option<Offset>,
    /// Remove the oldest segments while the stores have more bytes than this together; never the last one, which takes
    /// appends
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, allow_hyphen_values = true)]
    bytes_max: Option<u64>,
    /// Remove the segments whose last record is older than this, by its timestamp, such as 36h or 7d; never the last
    /// one. One without timestamps stays, and so do those after it
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    older_than: Option<Duration>,
}

/// Where a log is to begin or to end.
#[derive(Clone, Copy)]
enum Cut {
    Before(Offset),
    After(Offset),
}

/// What a log holds, or would.
#[derive(Clone, Copy)]
struct Held {
    lowest: Offset,
    next: Offset,
}

#[derive(Serialize)]
struct Removed {
    first: Offset,
    last: Offset,
}

impl Truncate {
    pub(crate) fn run(&self) -> Done {
        require_log(self.engine.engine, &self.dir)?;
        if self.dry_run {
            let read = open_to_read(self.engine.engine, &self.dir)?;
            let (before, segments) = (Held::by(&*read)?, read.segments()?);
            let cut = self.what.cut(&*read)?;
            let after = would_hold(&*read, cut, before, &segments)?;
            read.close()?;
            return self.tell(before, after, &segments);
        }
        let log = open_to_write(self.engine.engine, &self.dir, Options::new())?;
        let (before, segments) = (Held::by(&*log)?, log.segments()?);
        match self.what.cut(&*log)? {
            Cut::Before(offset) => log.truncate_before(offset)?,
            Cut::After(offset) => log.truncate_after(offset)?,
        }
        let after = Held::by(&*log)?;
        log.close()?;
        self.tell(before, after, &segments)
    }

    fn tell(&self, before: Held, after: Held, segments: &[SegmentSummary]) -> Done {
        let removed = if after.lowest > before.lowest {
            before.lowest..after.lowest
        } else {
            after.next..before.next
        };
        let records = removed.end.since(removed.start);
        let removed = (records > 0).then(|| Removed {
            first: removed.start,
            last: Offset(removed.end.0 - 1),
        });
        let is_gone = |segment: &&SegmentSummary| {
            segment.base < after.lowest
                || (segment.base >= after.next && segment.base < before.next)
        };
        let segments = segments.iter().filter(is_gone).count() as u64;
        if self.json {
            print_json(&serde_json::json!({
                "removed": removed, "segments": segments,
                "lowest_offset": after.lowest, "next_offset": after.next, "dry_run": self.dry_run,
            }))?;
            return Ok(ExitCode::SUCCESS);
        }
        let would = if self.dry_run {
            "would remove"
        } else {
            "removed"
        };
        let removed = match removed {
            None => "nothing".to_owned(),
            Some(Removed { first, last }) => format!(
                "{first}..={last} ({}, {})",
                count(records, "record"),
                count(segments, "whole segment"),
            ),
        };
        let left = offsets(after.lowest, after.next);
        print_report(&format!("{would} {removed}\nleft: {left}\n"))?;
        Ok(ExitCode::SUCCESS)
    }
}

impl What {
    /// Where to cut this log.
    fn cut(self, log: &dyn Engine) -> Result<Cut, Failure> {
        if let Some(offset) = self.after {
            return Ok(Cut::After(offset));
        }
        if let Some(offset) = self.before {
            return Ok(Cut::Before(offset));
        }
        let mut retention = Retention::new();
        retention.bytes_max = self.bytes_max;
        retention.age_max = self.older_than;
        Ok(Cut::Before(kept_from(log, &retention)?))
    }
}

/// What the log would hold, as the library would have it.
fn would_hold(
    log: &dyn Engine,
    cut: Cut,
    held: Held,
    segments: &[SegmentSummary],
) -> Result<Held, Failure> {
    let Held { lowest, next } = held;
    match cut {
        Cut::Before(offset) => {
            if offset > next {
                // The engine has the words.
                log.read(offset)?;
            }
            let bases = segments.iter().map(|segment| segment.base);
            let lowest = match bases.take_while(|&base| base <= offset).last() {
                _ if offset == next => next,
                first_left => first_left.unwrap_or(lowest),
            };
            Ok(Held { lowest, next })
        }
        Cut::After(offset) => {
            let end = offset.next();
            if end < lowest {
                log.read(Offset(end.0 - 1))?;
            }
            let next = next.min(end);
            Ok(Held { lowest, next })
        }
    }
}

impl Held {
    fn by(log: &dyn Engine) -> Result<Self, Failure> {
        Ok(Self {
            lowest: log.lowest_offset()?,
            next: log.next_offset()?,
        })
    }
}
