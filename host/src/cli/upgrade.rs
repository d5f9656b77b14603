//! `proglog upgrade`

use std::{
    fmt::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use proglog::{
    AppendOptions, Damage, Durability, Error, GapCause, IndexState, Log, NewRecord, Offset,
    Options, Record, TornTail, Unfinished,
};
use serde::Serialize;

use super::{
    Done,
    book::{BookLog, FoundIndex, Missing, Orphan},
    destination,
    directory::{base_in_name, open_to_read},
    exchange::{Carried, goes_on_with},
    failure::{Failure, exit},
    info::damage_note,
    options::EngineArgs,
    progress::Progress,
    signals::Stopped,
    text::{count, offsets, print_json, print_report},
};

/// A batch has at most so many bytes, and with them at most so many entries in an index.
const BYTES_MAX: u64 = 1 << 30;

/// Make a log with checksums of a directory of the book's Go program
///
/// Every record gets a checksum, and keeps its offset and its value; records that have one already keep
/// their timestamps, keys, headers, producers and batches too. What the program leaves of an unclean stop and of its
/// bugs is told and left out: padded, wrong or missing indexes, which are made anew; half records; records
/// whose offsets were given before; segments that hold nothing; stray files. Of the offsets of lost records the copy
/// says that they were lost: reading one is exit code 3, and none is given again.
///
/// The directory is read only. No program may be writing to it meanwhile. The copy is compared with it,
/// and is there, on stable storage, when this ends, or not at all. Exit code 1 if records were lost or
/// left out: the copy is there then too. Native code does it; --engine is what checks the copy.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog upgrade ./book ./log
  proglog upgrade ./book ./log --json | jq '.lost[], .orphans[]'")]
pub(crate) struct Upgrade {
    /// The directory of the book's program
    #[arg(value_name = "SRC")]
    dir: PathBuf,
    /// The directory for the log, which is not there yet or is empty
    dest: PathBuf,
    /// Print {"lowest_offset":0,"next_offset":42,"records":42,"unchecked_records":42,"lost":[],"orphans":[],
    /// "torn_tails":[],"empty_segments":[],"indexes":[],"records_with_other_fields":0,"other_files":[]}
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

/// What was taken over and what was not.
#[derive(Serialize)]
struct Outcome<'a> {
    lowest_offset: Offset,
    next_offset: Offset,
    records: u64,
    /// How many had no checksum.
    unchecked_records: u64,
    /// As `proglog verify` tells it of the source.
    lost: Vec<Lost<'a>>,
    /// Whole records that stand where none of their offset can be: another has it.
    orphans: Vec<Orphan>,
    /// What else stood at the ends of stores: what is no whole record, batches that are not whole, and what comes
    /// after space that was never written.
    torn_tails: Vec<&'a TornTail>,
    /// Segments without records, whose offsets others have.
    empty_segments: &'a [Offset],
    /// Those that were not in order. All are made anew.
    indexes: &'a [FoundIndex],
    /// How many had a term or a type, which are not taken over.
    records_with_other_fields: u64,
    /// What is no part of the log.
    other_files: Vec<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Lost<'a> {
    Damaged(&'a Damage),
    Missing(Missing),
}

impl Outcome<'_> {
    /// Whether nothing was lost or left out that is or was a record.
    fn has_all_records(&self) -> bool {
        let mut tails = self.torn_tails.iter();
        self.lost.is_empty() && self.orphans.is_empty() && tails.all(|tail| tail.records == 0)
    }
}

impl Upgrade {
    pub(crate) fn run(&self) -> Done {
        let source = BookLog::open(&self.dir)?;
        let found = &source.found;
        let copy = destination::begin(&self.dir, &self.dest)?;
        let stopped = Stopped::listen(|| {})?;
        let store_bytes = found.segments.iter().map(|segment| segment.store_bytes);
        // Once to copy them, once to compare.
        let bytes_total = store_bytes.sum::<u64>().saturating_mul(2);
        let mut copier = Copier {
            source: &source,
            stopped: &stopped,
            batch: Vec::new(),
            next: source.log.lowest_offset(),
            records: 0,
            records_with_other_fields: 0,
            progress: Progress::of_log(false, || Some(bytes_total)),
        };
        let done = copier.copy_and_compare(&copy);
        copier.progress.clear();
        done?;
        if let Some(exit) = stopped.exit() {
            return Ok(exit);
        }
        self.check(&copy)?;
        let outcome = Outcome {
            lowest_offset: source.log.lowest_offset(),
            next_offset: copier.next,
            records: copier.records,
            unchecked_records: found.segments.iter().map(|s| s.unchecked_records).sum(),
            lost: found
                .damage()
                .filter(|damage| !damage.bytes_only)
                .map(Lost::Damaged)
                .chain(source.missing.map(Lost::Missing))
                .collect(),
            orphans: source.orphans()?,
            torn_tails: found.torn_tails().collect(),
            empty_segments: &source.in_the_way,
            indexes: &source.indexes,
            records_with_other_fields: copier.records_with_other_fields,
            other_files: source.other_names()?,
        };
        copy.finish().map_err(of_log)?;
        self.tell(&outcome)?;
        let is_whole = outcome.has_all_records();
        Ok(ExitCode::from(if is_whole { 0 } else { exit::DAMAGED }))
    }

    /// Looks at the copy as who uses it will.
    fn check(&self, copy: &Unfinished) -> Result<(), Failure> {
        let log = open_to_read(self.engine.engine, copy.path())?;
        let report = log.verify()?;
        log.close()?;
        let mut segments = report.segments.iter();
        if segments.all(|segment| segment.unchecked_records == 0) {
            Ok(())
        } else {
            let message =
                "the copy has records without a checksum, so that it is not kept; try again";
            Err(Failure::new("copy_differs", message))
        }
    }

    fn tell(&self, outcome: &Outcome<'_>) -> Result<(), Failure> {
        if self.json {
            return print_json(outcome);
        }
        let mut told = String::new();
        // Text takes whatever is written to it.
        let _ = outcome.write(&mut told);
        print_report(&told)
    }
}

impl Outcome<'_> {
    /// What people are told.
    fn write(&self, out: &mut String) -> fmt::Result {
        for lost in &self.lost {
            let what = match lost {
                Lost::Damaged(damage) => damage_note(damage),
                Lost::Missing(missing) => format!(
                    "segment {}, offsets {}..={}: the segments after it are not there, but for an empty one at {}",
                    missing.segment,
                    missing.first,
                    missing.last,
                    missing.last.next()
                ),
            };
            writeln!(out, "LOST       {what}")?;
        }
        for orphan in &self.orphans {
            let Orphan {
                segment,
                position,
                offset,
            } = orphan;
            let why = match *offset {
                Offset(u64::MAX) => "no record can have",
                _ => "another has",
            };
            writeln!(
                out,
                "LEFT OUT   segment {segment}, position {position}: a record of offset {offset}, which {why}"
            )?;
        }
        for tail in &self.torn_tails {
            let (segment, bytes, position) = (tail.segment, tail.bytes, tail.position);
            let (mark, with) = match (tail.zeros, tail.records) {
                (true, _) => ("note    ", ", all zeros,".to_owned()),
                (false, 0) => ("note    ", String::new()),
                // After space that was never written, or of a batch that is not whole.
                (false, whole) => (
                    "LEFT OUT",
                    format!(", with {},", count(whole, "whole record")),
                ),
            };
            writeln!(
                out,
                "{mark}   segment {segment}: {} at its end{with} from position {position} on are not of the log",
                count(bytes, "byte")
            )?;
        }
        for base in self.empty_segments {
            writeln!(
                out,
                "note       segment {base}: it is empty, and the one before it has its offsets"
            )?;
        }
        for FoundIndex { segment, state } in self.indexes {
            let state = match state {
                IndexState::Unfinished => "is unfinished",
                IndexState::Missing => "is missing",
                _ => "disagrees with its store",
            };
            writeln!(
                out,
                "note       segment {segment}: its index {state}; the copy's is made anew"
            )?;
        }
        if self.records_with_other_fields > 0 {
            let records = count(self.records_with_other_fields, "record");
            writeln!(
                out,
                "note       {records} with a term or a type, which the copy does not have"
            )?;
        }
        for name in &self.other_files {
            let what = match base_in_name(name, ".index") {
                Some(_) => "is of a store that is not there",
                None => "is not of the log",
            };
            writeln!(out, "note       {name:?} {what}")?;
        }
        let held = offsets(self.lowest_offset, self.next_offset);
        let records = count(self.records, "record");
        writeln!(out, "upgraded   {held} ({records})")
    }
}

/// An upgrade under way.
struct Copier<'a> {
    source: &'a BookLog,
    stopped: &'a Stopped,
    /// The records of a batch that is not whole yet.
    batch: Vec<Carried>,
    /// The copy's next offset.
    next: Offset,
    records: u64,
    records_with_other_fields: u64,
    progress: Progress,
}

impl Copier<'_> {
    /// Returns also where it was stopped.
    fn copy_and_compare(&mut self, copy: &Unfinished) -> Result<(), Failure> {
        let options = Options::new()
            .initial_offset(self.next)
            // Closing it makes it durable.
            .durability(Durability::Buffered)
            .record_bytes_max(BYTES_MAX)
            .index_bytes_max(BYTES_MAX);
        let log = Log::open(copy.path(), options).map_err(of_log)?;
        let copied = self.copy_all(&log);
        let closed = log.close().map_err(of_log);
        copied?;
        closed?;
        let log = Log::open_read_only(copy.path(), Options::new()).map_err(of_log)?;
        self.compare(&log)
    }

    fn copy_all(&mut self, log: &Log) -> Result<(), Failure> {
        let source = self.source;
        for record in sound(&source.log) {
            if self.stopped.exit().is_some() {
                return Ok(());
            }
            let record = record?;
            self.progress.advance(record.frame().len() as u64);
            self.records += 1;
            self.records_with_other_fields += u64::from(has_other_fields(&record));
            let expected = self.next.plus(self.batch.len() as u64);
            let carried = Carried::from(&record);
            if record.offset() != expected || !goes_on_with(&self.batch, &carried) {
                self.append_batch(log)?;
            }
            self.skip_to(log, record.offset())?;
            let is_last = record.batch_remaining() == 0;
            self.batch.push(carried);
            if is_last {
                self.append_batch(log)?;
            }
        }
        self.append_batch(log)?;
        self.skip_to(log, source.next_offset())
    }

    fn append_batch(&mut self, log: &Log) -> Result<(), Failure> {
        let (Some(first), Some(last)) = (self.batch.first(), self.batch.last()) else {
            return Ok(());
        };
        if last.batch_remaining > 0
            || u64::from(last.batch_records.max(1)) != self.batch.len() as u64
        {
            let (first, last) = (first.offset, last.offset);
            self.progress.note(&format!(
                "records {first}..={last} are a part of a batch, and a batch of their own in the copy"
            ));
        }
        let records: Vec<NewRecord<'_>> = self.batch.iter().map(Carried::to_append).collect();
        let appended =
            log.append_batch_with(records, AppendOptions::from(Durability::Buffered).copied());
        self.next = appended.map_err(of_log)?.end;
        self.batch.clear();
        Ok(())
    }

    /// Has the copy say of lost records that they are, up to the next batch; and of what the source says it does not
    /// have, the same.
    fn skip_to(&mut self, log: &Log, to: Offset) -> Result<(), Failure> {
        while self.batch.is_empty() && to > self.next {
            let next = self.next;
            let place = self.source.log.locate(next);
            let (end, cause) = match place.ok().and_then(|place| place.gap) {
                Some(gap) => (gap.next(), gap.cause),
                None => {
                    let mut lost = self.source.found.damage();
                    let lost = lost.find(|lost| lost.contains(next));
                    (lost.map_or(to, |lost| lost.last.next()), GapCause::Lost)
                }
            };
            let end = end.min(to);
            log.skip_to_because(end, cause).map_err(of_log)?;
            self.next = end;
        }
        Ok(())
    }

    /// Whether every record is in the copy as it was, and nothing else.
    fn compare(&mut self, copy: &Log) -> Result<(), Failure> {
        let mut copied = sound(copy);
        for record in sound(&self.source.log) {
            if self.stopped.exit().is_some() {
                return Ok(());
            }
            let record = record?;
            self.progress.advance(record.frame().len() as u64);
            let is_same = match copied.next() {
                Some(copied) => is_same(&record, &copied?),
                None => false,
            };
            if !is_same {
                return Err(changed(record.offset()));
            }
        }
        match copied.next() {
            Some(more) => Err(changed(more?.offset())),
            None => Ok(()),
        }
    }
}

/// The sound records of a log.
fn sound<B: proglog::Backend>(log: &Log<B>) -> impl Iterator<Item = Result<Record, Failure>> + '_ {
    log.scan(..).filter_map(|record| match record {
        Err(Error::Corrupt { .. }) => None,
        record => Some(record.map_err(of_log)),
    })
}

fn is_same(record: &Record, copied: &Record) -> bool {
    Carried::from(record).difference(copied).is_none() && copied.is_checked()
}

fn changed(offset: Offset) -> Failure {
    let message = format!(
        "record {offset} is not in the copy as it is in the source, so that the copy is not kept; stop what writes to \
         the source, and try again"
    );
    Failure::new("copy_differs", message)
}

/// Whether a record of the book's has more than a value and an offset.
fn has_other_fields(record: &Record) -> bool {
    let number_bytes =
        |number: u64| u64::from((u64::BITS - (number | 1).leading_zeros()).div_ceil(7));
    let value_bytes = record.value().len() as u64;
    let value = match value_bytes {
        0 => 0,
        bytes => 1 + number_bytes(bytes) + bytes,
    };
    let offset = match record.offset() {
        Offset(0) => 0,
        Offset(offset) => 1 + number_bytes(offset),
    };
    !record.is_checked() && record.frame().len() as u64 != 8 + value + offset
}

fn of_log(error: Error) -> Failure {
    proglog_host::Error::from(error).into()
}
