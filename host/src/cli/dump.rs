//! `proglog dump`

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use proglog::{Damage, Gap, Location, Offset, Record, Report, SegmentSummary, TornTail};
use proglog_host::{Engine, ErrorKind, http::RecordJson};
use serde::Serialize;

use super::{
    Done,
    directory::open_to_read,
    failure::{Failure, exit},
    index_file::{Entry, IndexFile, IndexSummary},
    info::{damage_note, tail_note},
    options::{EngineArgs, parse_number, parse_offset},
    text::{count, offsets, preview, time},
};

/// How much is read from the log at a time.
const READ_BYTES: usize = 1 << 20;
/// How much of a value is shown.
const PREVIEW_CHARS: usize = 60;

/// Show the frames of a log as they stand in its stores
///
/// Damage and a torn tail are marked where they stand, and what tells of offsets that are not there; what
/// follows is shown too. Exit code 1 if a
/// damaged stretch was met.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog dump ./log
  proglog dump ./log --from 1000 --count 5
  proglog dump ./log --segment 1000    # 1000.store, with 1000.index beside it
  proglog dump ./log --json | jq 'select(.type == \"damage\")'")]
pub(crate) struct Dump {
    /// The directory of the log
    dir: PathBuf,
    /// Show frames from this offset on
    #[arg(long, value_name = "OFFSET", value_parser = parse_offset, allow_negative_numbers = true)]
    from: Option<Offset>,
    /// Show the segment with this base offset alone, and beside each frame the entry that the index file
    /// has for it, RELATIVE_OFFSET@POSITION; at its end what else is in that file
    #[arg(long, value_name = "BASE", value_parser = parse_offset, allow_negative_numbers = true)]
    segment: Option<Offset>,
    /// Show at most so many frames
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_number, allow_negative_numbers = true)]
    count: Option<u64>,
    /// Print a line of JSON for each segment, record, gap, damage, torn tail and, with --segment, index, told
    /// apart by `type`
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What stands in a store, one after the other.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Item<'a> {
    Segment(&'a SegmentSummary),
    Record {
        segment: Offset,
        position: u64,
        /// Of the frame: eight bytes of length, and the record.
        bytes: usize,
        checksum: Checksum,
        batch_remaining: u32,
        /// If it was looked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        index_entry: Option<Option<Entry>>,
        #[serde(flatten)]
        fields: RecordJson,
        #[serde(skip)]
        record: &'a Record,
    },
    Gap {
        segment: Offset,
        position: u64,
        #[serde(flatten)]
        gap: Gap,
    },
    Damage(&'a Damage),
    TornTail(&'a TornTail),
    Index(IndexSummary),
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Checksum {
    Sound,
    /// The book's program writes none.
    None,
}

impl Dump {
    pub(crate) fn run(&self) -> Done {
        let log = open_to_read(self.engine.engine, &self.dir)?;
        let index = match self.segment {
            Some(base) => Some(self.index_of(&*log, base)?),
            None => None,
        };
        let from = self.from.or(self.segment);
        let from = from.unwrap_or(log.lowest_offset()?);
        if from < log.lowest_offset()? || from > log.next_offset()? {
            log.read(from)?;
        }
        let mut dumper = Dumper {
            log: &*log,
            out: BufWriter::new(io::stdout().lock()),
            json: self.json,
            segment: self.segment,
            index,
            next: from,
            records_left: self.count.unwrap_or(u64::MAX),
            verified: None,
            met_damage: false,
            ended: None,
        };
        let done = dumper.dump();
        // What was found before a failure is worth showing.
        dumper.out.flush()?;
        done?;
        let exit = if dumper.met_damage { exit::DAMAGED } else { 0 };
        log.close()?;
        Ok(ExitCode::from(exit))
    }
}

impl Dump {
    /// The index file of the segment that alone is to be shown.
    fn index_of(&self, log: &dyn Engine, base: Offset) -> Result<IndexFile, Failure> {
        let segments = log.segments()?;
        let Some(segment) = segments.iter().find(|segment| segment.base == base) else {
            let name = self.dir.display();
            let holds = segments.iter().rev().find(|segment| segment.base < base);
            let advice = match holds {
                Some(holds) => format!("the one before it begins at {}", holds.base),
                None => format!("`proglog info {name} --json` lists them"),
            };
            let message = format!("no segment of {name} begins at {base}; {advice}");
            return Err(Failure::new("not_found", message));
        };
        if let Some(from) = self.from
            && (from < base || from > segment.next)
        {
            let held = offsets(base, segment.next);
            return Err(Failure::usage(format!(
                "--from {from} is not in segment {base}, which holds {held}; give one that is"
            )));
        }
        IndexFile::open(&self.dir, base)
    }
}

struct Dumper<'a> {
    log: &'a dyn Engine,
    out: BufWriter<io::StdoutLock<'static>>,
    json: bool,
    /// The base of the one segment to show, and its index.
    segment: Option<Offset>,
    index: Option<IndexFile>,
    next: Offset,
    records_left: u64,
    /// What is damaged, asked for when the first damage is met: it takes reading the whole log.
    verified: Option<Report>,
    met_damage: bool,
    /// In which segment what was shown last ends, and where.
    ended: Option<(Offset, u64)>,
}

impl Dumper<'_> {
    fn dump(&mut self) -> Result<(), Failure> {
        let scanned = self.log.recovery_report()?;
        let segments = self.log.segments()?;
        for (n, segment) in segments.iter().enumerate() {
            if self.records_left == 0 {
                return Ok(());
            }
            if self.segment.is_some_and(|base| base != segment.base) {
                continue;
            }
            // Damage at the end of a store may claim offsets that the next segment has.
            let end = segments
                .get(n + 1)
                .map_or(segment.next, |after| after.base.min(segment.next));
            // The last segment has a place even if it holds nothing yet.
            if end > self.next || segment.base == end {
                self.show(&Item::Segment(segment))?;
            }
            while self.next < end && self.records_left > 0 {
                self.dump_some(end)?;
            }
            // The next one's first frame tells of those.
            let after = segments.get(n + 1).map_or(end, |after| after.base);
            if self.next >= end && self.next < after && self.records_left > 0 {
                self.dump_gaps(after)?;
            }
            if self.next == end && self.records_left > 0 {
                self.dump_end(segment.base, end, &scanned)?;
                if let Some(index) = &mut self.index {
                    let summary = index.summary(segment.base, end)?;
                    self.show(&Item::Index(summary))?;
                }
            }
        }
        Ok(())
    }

    /// Shows what stands in a store after its last record, and should not.
    fn dump_end(&mut self, base: Offset, end: Offset, scanned: &Report) -> io::Result<()> {
        for damage in scanned.damage() {
            if damage.segment == base && damage.first >= end {
                self.met_damage = true;
                self.show(&Item::Damage(damage))?;
            }
        }
        match scanned.torn_tails().find(|tail| tail.segment == base) {
            Some(tail) => self.show(&Item::TornTail(tail)),
            None => Ok(()),
        }
    }

    /// Shows the next frames that can be read at once, or the next damage.
    fn dump_some(&mut self, end: Offset) -> Result<(), Failure> {
        let frames = match self.log.read_batch(self.next, READ_BYTES) {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                return self.dump_damage(error.into());
            }
            frames => frames?,
        };
        // Of what is not there nothing is read.
        self.dump_gaps(end)?;
        if frames.is_empty() || self.next >= end {
            self.next = end.max(self.next);
            return Ok(());
        }
        let mut at = self.log.locate(self.next)?;
        for record in frames {
            let record = record.map_err(|reason| {
                Failure::damaged(format!("record {} is damaged: {reason}", self.next))
            })?;
            if record.offset() != self.next {
                self.dump_gaps(record.offset())?;
                at = self.log.locate(record.offset())?;
            }
            if self.records_left == 0 || record.offset() != self.next {
                return Ok(());
            }
            self.dump_bytes_before(&at)?;
            let bytes = record.frame().len();
            let index_entry = match &mut self.index {
                Some(index) => Some(index.entry(record.offset().since(at.segment))?),
                None => None,
            };
            self.show(&Item::Record {
                segment: at.segment,
                position: at.position,
                bytes,
                checksum: if record.is_checked() {
                    Checksum::Sound
                } else {
                    Checksum::None
                },
                batch_remaining: record.batch_remaining(),
                index_entry,
                fields: RecordJson::from(&record),
                record: &record,
            })?;
            at.position += bytes as u64;
            self.ended = Some((at.segment, at.position));
            self.next = record.offset().next();
            self.records_left -= 1;
        }
        Ok(())
    }

    /// Shows what tells of offsets that are not there, from the next one on and before `end`.
    fn dump_gaps(&mut self, end: Offset) -> Result<(), Failure> {
        while self.next < end && self.records_left > 0 {
            let place = self.log.locate(self.next)?;
            let Some(gap) = place.gap else { break };
            self.dump_bytes_before(&place)?;
            self.show(&Item::Gap {
                segment: place.segment,
                position: place.position,
                gap,
            })?;
            self.ended = Some((place.segment, place.position + gap.to_frame().len() as u64));
            self.next = gap.next();
            self.records_left -= 1;
        }
        Ok(())
    }

    /// Shows the damage that the next offset lies in, and steps over it.
    fn dump_damage(&mut self, failure: Failure) -> Result<(), Failure> {
        self.met_damage = true;
        let report = match self.verified.take() {
            Some(report) => report,
            None => self.log.verify()?,
        };
        let damage = report.damage().find(|d| d.contains(self.next));
        let Some(damage) = damage else {
            // It was sound when all was verified: someone is writing here, or the disk is failing.
            return Err(failure);
        };
        self.show(&Item::Damage(damage))?;
        self.ended = Some((damage.segment, damage.position + damage.bytes));
        self.next = damage.last.next();
        self.records_left = self.records_left.saturating_sub(1);
        self.verified = Some(report);
        Ok(())
    }

    /// Shows the bytes before a frame that are none of any record.
    fn dump_bytes_before(&mut self, place: &Location) -> Result<(), Failure> {
        let (segment, end) = self.ended.unwrap_or((place.segment, place.position));
        let end = if segment == place.segment { end } else { 0 };
        if end >= place.position {
            return Ok(());
        }
        if self.verified.is_none() {
            self.verified = Some(self.log.verify()?);
        }
        let report = self.verified.take().unwrap_or_default();
        let is_before = |damage: &&Damage| {
            damage.bytes_only
                && damage.segment == place.segment
                && damage.position + damage.bytes == place.position
        };
        let damage = report.damage().find(is_before);
        self.met_damage |= damage.is_some();
        let shown = damage.map_or(Ok(()), |damage| self.show(&Item::Damage(damage)));
        self.verified = Some(report);
        Ok(shown?)
    }

    fn show(&mut self, item: &Item<'_>) -> io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut self.out, item)?;
            return self.out.write_all(b"\n");
        }
        match item {
            Item::Segment(segment) => {
                writeln!(
                    self.out,
                    "{base}.store, {}, next offset {}",
                    count(segment.store_bytes, "byte"),
                    segment.next,
                    base = segment.base,
                )?;
                write!(
                    self.out,
                    "{:>10} {:>10} {:>8}  {:<8}  ",
                    "offset", "position", "bytes", "checksum",
                )?;
                if self.index.is_some() {
                    write!(self.out, "{:<16}  ", "index")?;
                }
                writeln!(self.out, "{:<24}  value", "timestamp")
            }
            Item::Record {
                segment,
                position,
                bytes,
                checksum,
                index_entry,
                record,
                ..
            } => {
                let checksum = match checksum {
                    Checksum::Sound => "sound",
                    Checksum::None => "none",
                };
                write!(
                    self.out,
                    "{:>10} {position:>10} {bytes:>8}  {checksum:<8}  ",
                    record.offset().0,
                )?;
                if let Some(entry) = index_entry {
                    let relative = record.offset().since(*segment);
                    write!(
                        self.out,
                        "{:<16}  ",
                        entry_note(*entry, relative, *position)
                    )?;
                }
                write!(
                    self.out,
                    "{:<24}  {}",
                    time(record.timestamp_ms()),
                    preview(record.value(), PREVIEW_CHARS),
                )?;
                if let Some(key) = record.key() {
                    write!(self.out, "  key {}", preview(key, PREVIEW_CHARS))?;
                }
                for (name, value) in record.headers() {
                    write!(self.out, "  {name:?}={}", preview(value, PREVIEW_CHARS))?;
                }
                writeln!(self.out)
            }
            Item::Gap { position, gap, .. } => writeln!(
                self.out,
                "{:>10} {position:>10}           not there: {}..={} {}",
                gap.first.0, gap.first, gap.last, gap.cause,
            ),
            Item::Damage(damage) => writeln!(self.out, "  DAMAGED  {}", damage_note(damage)),
            Item::TornTail(tail) => writeln!(self.out, "  note: {}", tail_note(tail)),
            Item::Index(summary) => writeln!(self.out, "{}", index_note(summary)),
        }
    }
}

/// An entry as it stands, and whether it is what it should be.
fn entry_note(entry: Option<Entry>, relative_offset: u64, position: u64) -> String {
    match entry {
        None => "-".to_owned(),
        Some(entry) => {
            let is_right =
                u64::from(entry.relative_offset) == relative_offset && entry.position == position;
            let wrong = if is_right { "" } else { " WRONG" };
            format!("{}@{}{wrong}", entry.relative_offset, entry.position)
        }
    }
}

fn index_note(index: &IndexSummary) -> String {
    let name = format!("{}.index", index.segment);
    let Some(bytes) = index.file_bytes else {
        return format!("{name} is missing");
    };
    let noun = if index.entries == 1 {
        "entry"
    } else {
        "entries"
    };
    let held = format!("{name}, {}: {} {noun}", count(bytes, "byte"), index.entries);
    match (index.bytes_after, index.zeros_after) {
        (0, _) => held,
        (after, true) => format!("{held}, then {after} bytes of zeros"),
        (after, false) => format!(
            "{held}, then {} that are not all zeros",
            count(after, "byte")
        ),
    }
}
