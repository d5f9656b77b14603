//! `proglog export`

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use proglog::{Gap, Location, Offset, Report};
use proglog_host::{Engine, ErrorKind};
use serde_json::json;

use super::{
    Done,
    directory::open_to_read,
    exchange::{Format, Stretch},
    failure::Failure,
    options::{EngineArgs, parse_offset},
    progress::Progress,
    records::with_advice,
    text::{count, note},
};

/// How much is written at a time.
const WRITE_BYTES: usize = 256 << 10;

/// Write the records of a log to a file or to standard output, for `proglog import`
///
/// All of a record is in it: offset, timestamp, key, value, headers, and where its batch ends. A line of
/// JSON is {"offset":0,"timestamp_ms":1,"key":"…","value":"…","headers":[{"name":"…","value":"…"}],
/// "batch_remaining":2}: keys, values and header values as standard base64, what a record does not have
/// left out; batch_remaining is how many records of the same batch follow, and the last of them has
/// batch_records, how many they are; a producer is {"id":"…","sequence":7}, the id as base64 too. Offsets that are not
/// there, for they were compacted, lost or skipped, are a line of their own,
/// {"gap":{"first":3,"last":4,"cause":"compacted"}}, or the frame that tells of them. The log is the one there is when the export begins; what a writer
/// appends meanwhile is not waited for. If it removes what is to be exported, that is exit code 3.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog export ./log > log.ndjson
  proglog export ./log --from 1000 --to 1999 | gzip > part.ndjson.gz
  proglog export ./log --format binary | ssh host proglog import ./copy --format binary
  proglog export ./log | jq -r '.value | @base64d'")]
pub(crate) struct Export {
    /// The directory of the log
    dir: PathBuf,
    /// The file to write, which may not be there yet; standard output if it is - or not given
    file: Option<PathBuf>,
    /// How it is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Export from this offset on [default: the lowest]
    #[arg(long, value_name = "OFFSET", value_parser = parse_offset, allow_negative_numbers = true)]
    from: Option<Offset>,
    /// Export up to this offset, it too [default: the last]
    #[arg(long, value_name = "OFFSET", value_parser = parse_offset, allow_negative_numbers = true)]
    to: Option<Offset>,
    /// Leave damaged records out and say which on standard error, instead of stopping before them with
    /// exit code 1. JSON has {"damaged":{"first":3,"last":4}} in their place, frames have nothing
    #[arg(long)]
    skip_damaged: bool,
    /// Print the summary as {"first":0,"last":41,"records":42,"absent":0,"damaged":[]}
    ///
    /// The summary goes to standard error where the records go to standard output.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    engine: EngineArgs,
}

impl Export {
    pub(crate) fn run(&self) -> Done {
        let log = open_to_read(self.engine.engine, &self.dir)?;
        let (lowest, next) = (log.lowest_offset()?, log.next_offset()?);
        let from = self.from.unwrap_or(lowest);
        // The engine has the words for what is not there.
        if from < lowest || from > next {
            log.read(from)?;
        }
        if let Some(to) = self.to {
            if to < from {
                return Err(Failure::usage(format!(
                    "--to {to} is below {from}, where the export begins; give a higher one"
                )));
            }
            if to >= next {
                log.read(to)?;
            }
        }
        let end = self.to.map_or(next, Offset::next);
        let out = Output::open(self.file.as_deref())?;
        let mut exporter = Exporter {
            export: self,
            log: &*log,
            progress: Progress::of_log(out.path.is_none(), || frame_bytes(&*log, from, end)),
            out,
            next: from,
            records: 0,
            absent: 0,
            last_remaining: 0,
            damaged: Vec::new(),
            verified: None,
        };
        exporter.tell_cut_beginning(from, lowest);
        let done = exporter.export(end);
        exporter.progress.clear();
        // What was found before a failure is worth having.
        let finished = exporter.out.finish();
        let summary = exporter.summary(from);
        done.map_err(|failure| with_advice(failure, &self.dir))?;
        finished?;
        exporter.tell_cut_end();
        if exporter.out.path.is_none() {
            // The records are out, whoever hears of it.
            let _ = writeln!(io::stderr(), "{summary}");
        } else {
            writeln!(io::stdout(), "{summary}")?;
        }
        log.close()?;
        Ok(ExitCode::SUCCESS)
    }
}

struct Exporter<'a> {
    export: &'a Export,
    log: &'a dyn Engine,
    progress: Progress,
    out: Output<'a>,
    next: Offset,
    records: u64,
    /// How many offsets are not there.
    absent: u64,
    /// How many records of its batch follow the last one.
    last_remaining: u32,
    damaged: Vec<Stretch>,
    /// What is damaged, asked for when the first damage is met: it takes reading the whole log.
    verified: Option<Report>,
}

impl Exporter<'_> {
    fn export(&mut self, end: Offset) -> Result<(), Failure> {
        while self.next < end {
            let mut records = self.log.scan(self.next);
            let met_damage = loop {
                if self.next >= end {
                    return Ok(());
                }
                match records.next() {
                    Some(Ok(record)) if self.may_come(record.offset())? => {
                        self.tell_gaps(record.offset().min(end))?;
                        if record.offset() >= end {
                            return Ok(());
                        }
                        let written = self.export.format.write_record(&mut self.out, &record);
                        written.map_err(|error| self.out.failed("write", &error))?;
                        self.last_remaining = record.batch_remaining();
                        self.records += 1;
                        self.progress.advance(record.frame().len() as u64);
                        self.next = record.offset().next();
                    }
                    // Up to the end no offset is there.
                    None if self.log.next_offset()? >= end => return self.tell_gaps(end),
                    Some(Err(error)) if error.kind() == ErrorKind::Corrupt => break error.into(),
                    Some(Err(error)) if error.kind() != ErrorKind::OffsetOutOfRange => {
                        return Err(error.into());
                    }
                    _ => return Err(self.removed()),
                }
            };
            drop(records);
            self.tell_gaps_to_damage(end)?;
            if self.next < end {
                self.skip(met_damage, end)?;
            }
        }
        Ok(())
    }

    /// Whether this is the next record, or the offsets up to it are not there, rather than removed just now.
    fn may_come(&self, offset: Offset) -> Result<bool, Failure> {
        let is_next = offset == self.next;
        Ok(is_next || (offset > self.next && self.log.lowest_offset()? <= self.next))
    }

    /// Tells of the offsets that are not there, from the next one to before `end`.
    fn tell_gaps(&mut self, end: Offset) -> Result<(), Failure> {
        while self.next < end {
            let Some(gap) = self.log.locate(self.next)?.gap else {
                return Err(self.removed());
            };
            self.tell_gap(gap, end)?;
        }
        Ok(())
    }

    /// As [`Exporter::tell_gaps`], up to what is damaged.
    fn tell_gaps_to_damage(&mut self, end: Offset) -> Result<(), Failure> {
        while self.next < end
            && let Ok(Location { gap: Some(gap), .. }) = self.log.locate(self.next)
        {
            self.tell_gap(gap, end)?;
        }
        Ok(())
    }

    fn tell_gap(&mut self, gap: Gap, end: Offset) -> Result<(), Failure> {
        let last = gap.last.min(Offset(end.0 - 1));
        if let Some(gap) = Gap::of(self.next..=last, gap.cause) {
            let written = self.export.format.write_gap(&mut self.out, gap);
            written.map_err(|error| self.out.failed("write", &error))?;
            self.absent += gap.offsets();
        }
        self.next = last.next();
        Ok(())
    }

    /// Passes over the damage that the next offset lies in, if it may.
    fn skip(&mut self, failure: Failure, end: Offset) -> Result<(), Failure> {
        if !self.export.skip_damaged {
            let exported = match self.records {
                0 => "nothing was exported".to_owned(),
                _ => format!("what stands before {} was exported", self.next),
            };
            return Err(failure.context(&format!("{exported}; --skip-damaged leaves it out")));
        }
        if self.verified.is_none() {
            self.verified = Some(self.log.verify()?);
        }
        let next = self.next;
        let known = self.verified.iter().flat_map(Report::damage);
        let damage = known
            .filter(|damage| damage.contains(next))
            .max_by_key(|damage| damage.last);
        // It was sound when all was verified: someone is writing here, or the disk is failing.
        let last = damage.map_or(next, |damage| damage.last.min(Offset(end.0 - 1)));
        let reason = match damage {
            Some(damage) => damage.reason.to_string(),
            None => "it was sound when it was looked at again".to_owned(),
        };
        let skipped = Stretch { first: next, last };
        let left_out = format!("left out {}: {reason}", skipped.describe());
        self.progress.note(&left_out);
        let marked = self.export.format.write_damaged(&mut self.out, skipped);
        marked.map_err(|error| self.out.failed("write", &error))?;
        self.damaged.push(skipped);
        self.next = last.next();
        Ok(())
    }

    /// Says that another process removed what was to come.
    fn removed(&self) -> Failure {
        let next = self.next;
        Failure::out_of_range(format!(
            "record {next} was removed before it was exported; what stands before it was, export the rest anew"
        ))
    }

    /// Says that the first record is not the first of its batch.
    fn tell_cut_beginning(&self, from: Offset, lowest: Offset) {
        if from <= lowest {
            return;
        }
        let read = |offset| self.log.read(offset).ok();
        if let (Some(before), Some(first)) = (read(Offset(from.0 - 1)), read(from))
            && before.batch_remaining().checked_sub(1) == Some(first.batch_remaining())
        {
            note(&format!(
                "record {from} is not the first of its batch; from here on it is a batch of its own when it is imported"
            ));
        }
    }

    /// Says that the last record is not the last of its batch.
    fn tell_cut_end(&self) {
        if self.last_remaining > 0 {
            note(
                "the last record is not the last of its batch; `proglog import` takes that with --cut-batch",
            );
        }
    }

    fn summary(&self, first: Offset) -> String {
        let last = Offset(self.next.0.saturating_sub(1));
        let is_empty = self.next == first;
        if self.export.json {
            let (first, last) = ((!is_empty).then_some(first), (!is_empty).then_some(last));
            return json!({
                "first": first, "last": last, "records": self.records, "absent": self.absent,
                "damaged": self.damaged,
            })
            .to_string();
        }
        if is_empty {
            return "exported nothing: there is no record".to_owned();
        }
        let records = count(self.records, "record");
        let absent = match self.absent {
            0 => String::new(),
            offsets => format!("; {} not there", count(offsets, "offset")),
        };
        format!("exported {first}..={last} ({records}{absent})")
    }
}

/// The bytes of the frames from `from` to before `end`, where that can be told.
fn frame_bytes(log: &dyn Engine, from: Offset, end: Offset) -> Option<u64> {
    let (segments, next) = (log.segments().ok()?, log.next_offset().ok()?);
    let before = |offset: Offset| {
        let (segment, position) = if offset >= next {
            (next, 0)
        } else {
            let location = log.locate(offset).ok()?;
            (location.segment, location.position)
        };
        let whole = segments.iter().take_while(|found| found.base < segment);
        Some(whole.map(|found| found.store_bytes).sum::<u64>() + position)
    };
    before(end)?.checked_sub(before(from)?)
}

impl Stretch {
    /// `record 3`, `records 3..=4`.
    pub(crate) fn describe(self) -> String {
        if self.first == self.last {
            format!("record {}", self.first)
        } else {
            format!("records {}..={}", self.first, self.last)
        }
    }
}

/// Where an export goes.
struct Output<'a> {
    out: BufWriter<Box<dyn Write>>,
    /// The file, if it is one, and what to sync it by.
    path: Option<(&'a Path, File)>,
}

impl<'a> Output<'a> {
    fn open(path: Option<&'a Path>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| *path != Path::new("-")) else {
            return Ok(Self {
                out: BufWriter::with_capacity(WRITE_BYTES, Box::new(io::stdout())),
                path: None,
            });
        };
        let opened = File::create_new(path).and_then(|file| Ok((file.try_clone()?, file)));
        let (file, to_sync) = opened.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Failure::new(
                "exists",
                format!(
                    "{} is there already; give a name that is not, or remove it",
                    path.display()
                ),
            ),
            _ => Failure::io("make", path, &error),
        })?;
        Ok(Self {
            out: BufWriter::with_capacity(WRITE_BYTES, Box::new(file)),
            path: Some((path, to_sync)),
        })
    }

    /// Writes what is left, and returns once a file is on stable storage.
    fn finish(&mut self) -> Result<(), Failure> {
        let flushed = self.out.flush();
        flushed.map_err(|error| self.failed("write", &error))?;
        if let Some((_, file)) = &self.path {
            let synced = file.sync_all();
            synced.map_err(|error| self.failed("sync", &error))?;
        }
        Ok(())
    }

    fn failed(&self, action: &str, error: &io::Error) -> Failure {
        match self.path {
            Some((path, _)) => Failure::io(action, path, error),
            None => Failure::of_output(error),
        }
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
