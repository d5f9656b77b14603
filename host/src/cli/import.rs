//! `proglog import`

use std::{
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use clap::Args;
use proglog::{AppendOptions, Durability, Gap, GapCause, NewRecord, Offset, Options};
use proglog_host::{Engine, Error, ErrorKind};
use serde_json::json;

use super::{
    Done,
    directory::{open_to_read, open_to_write},
    exchange::{Bad, Carried, Decoder, Format, Item, Stretch, goes_on_with},
    failure::{Failure, in_flags},
    input::{Input, Piece},
    options::{EngineArgs, SizeArgs},
    progress::Progress,
    signals::on_stop,
    text::{count, note},
};

/// How much is appended between two syncs.
const SYNC_BYTES: u64 = 8 << 20;
/// The most that a log takes at once.
const BATCH_BYTES_MAX: u64 = 1 << 30;
/// The bytes of an entry of an index.
const ENTRY_BYTES: u64 = 12;
/// What a gap counts of what is appended between two syncs: about its frame's bytes.
const GAP_BYTES: u64 = 32;
/// How far back a log looks for the timestamp that the next one may not be below.
const TIMESTAMPS_READ_MAX: u64 = 64;

/// Make a log of what `proglog export` wrote, with the same records at the same offsets
///
/// Also their timestamps, keys, headers, producers and batches are the same; what had no timestamp gets none. Offsets
/// that were not there, for they were compacted, lost or skipped, are not there in the copy for the same cause. A new log begins at the
/// first offset. Each batch is imported whole or not at all; when
/// something is wrong with the input, what stands before it stays, and --resume goes on from there once
/// it is mended. All that was imported is on stable storage when it ends.
///
/// Offsets are never changed. Where the input leaves some out and does not say why, or says that they were damaged, as
/// an export with --skip-damaged does, it stops with exit code 4, or with --keep-gaps makes a log that says of these
/// offsets that they are not there: reading one is exit code 3, and `proglog verify` tells how many they are.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog import ./copy log.ndjson
  proglog export ./log | proglog import ./copy
  proglog import ./copy log.ndjson --resume    # after it was stopped, or the input mended
  echo '{\"offset\":7,\"value\":\"aGVsbG8=\"}' | proglog import ./from-seven")]
pub(crate) struct Import {
    /// The directory of the log, made if it is not there
    dir: PathBuf,
    /// The file to import; standard input if it is - or not given
    file: Option<PathBuf>,
    /// How it is written; a line may also be one of `proglog read --json`
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Import into a log that is there, if the first record's offset is its next
    #[arg(long)]
    append: bool,
    /// Import into a log that is there, what it does not have yet: records of offsets that it has must
    /// be the same, and are passed over
    #[arg(long, conflicts_with = "append")]
    resume: bool,
    /// Where the input leaves offsets out, or marks them as damaged, have the log leave them out too
    #[arg(long)]
    keep_gaps: bool,
    /// Where the input ends within a batch, import what there is of it as a batch
    #[arg(long)]
    cut_batch: bool,
    /// Print {"first":0,"last":41,"records":42,"absent":0,"passed_over":0}
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    sizes: SizeArgs,
}

impl Import {
    pub(crate) fn run(&self) -> Done {
        // Before anything is read: the limit of a record is that of a line.
        let options = self.options(Offset(0)).validate();
        options.map_err(|error| Failure::of_options(error.into()))?;
        let input = Input::open(self.file.as_deref())?;
        if input.is_terminal() && io::stderr().is_terminal() {
            note("each line is a record as `proglog export` writes it; Ctrl-D ends");
        }
        let stopped = Arc::new(AtomicU8::new(0));
        let (wake, tell) = (input.waker(), Arc::clone(&stopped));
        on_stop(move |exit| {
            tell.store(exit, Ordering::Relaxed);
            wake();
        })?;
        let mut importer = Importer {
            import: self,
            decoder: Decoder::new(self.format, self.sizes.record_bytes_max),
            log: None,
            expected: None,
            batch: Vec::new(),
            batch_bytes: 0,
            gap: None,
            left_out: None,
            is_after_gap: false,
            imported: None,
            next: Offset(0),
            records: 0,
            absent: 0,
            passed_over: 0,
            unsynced_bytes: 0,
            timestamp_ms_min: 0,
            progress: Progress::of_input(&input),
        };
        let done = importer.import_all(&input, &stopped);
        importer.progress.clear();
        // Closing makes all durable that was imported.
        let closed = importer.close();
        let told = importer.tell_summary();
        let exit = done?;
        closed?;
        told?;
        Ok(exit)
    }

    fn options(&self, initial_offset: Offset) -> Options {
        // It is synced as it goes on, and at the end.
        let options = self.sizes.options().durability(Durability::Buffered);
        options.initial_offset(initial_offset)
    }

    fn has_log(&self) -> Result<bool, Failure> {
        match open_to_read(self.engine.engine, &self.dir) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_not_found() => Ok(false),
            Err(failure) => Err(failure),
        }
    }
}

/// An import under way.
struct Importer<'a> {
    import: &'a Import,
    decoder: Decoder,
    /// Opened once the first offset is known.
    log: Option<Box<dyn Engine>>,
    /// The offset that comes next in the input.
    expected: Option<Offset>,
    /// The records of a batch that is not whole yet.
    batch: Vec<Carried>,
    batch_bytes: u64,
    /// Offsets that are not there before the next record, and will not be in the log.
    gap: Option<Gap>,
    /// Those of them that the input left out.
    left_out: Option<Stretch>,
    /// Whether the batch comes after such offsets.
    is_after_gap: bool,
    /// The first and the last record that were imported.
    imported: Option<Stretch>,
    /// The log's next offset.
    next: Offset,
    records: u64,
    absent: u64,
    passed_over: u64,
    unsynced_bytes: u64,
    /// An earlier timestamp would not stay as it is.
    timestamp_ms_min: u64,
    progress: Progress,
}

impl Importer<'_> {
    fn import_all(&mut self, input: &Input, stopped: &AtomicU8) -> Done {
        loop {
            let exit = stopped.load(Ordering::Relaxed);
            if exit != 0 {
                return Ok(ExitCode::from(exit));
            }
            match input.next(self.unsynced_bytes > 0) {
                Piece::Bytes(bytes) => {
                    self.progress.advance(bytes.len() as u64);
                    self.decoder.push(&bytes);
                    self.take_all()?;
                }
                Piece::Pause => self.sync()?,
                Piece::Stop => {}
                Piece::End => {
                    self.decoder.end();
                    self.take_all()?;
                    self.finish()?;
                    return Ok(ExitCode::SUCCESS);
                }
                Piece::Failed(error) => {
                    let name = self.import.file.as_deref();
                    let name = name.unwrap_or("standard input".as_ref());
                    return Err(self.with_advice(Failure::io("read", name, &error)));
                }
            }
        }
    }

    fn take_all(&mut self) -> Result<(), Failure> {
        while let Some(item) = self.decoder.next() {
            match item {
                Ok(item) => self.take(item)?,
                Err(Bad::Malformed(what)) => return Err(self.bad(&what)),
                Err(Bad::TooLarge(what)) => {
                    return Err(self.refuse(
                        "too_large",
                        &format!("is too large: {what}; raise that if it is a record"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, item: Item) -> Result<(), Failure> {
        let held = match &item {
            Item::Record(record) => Stretch {
                first: record.offset,
                last: record.offset,
            },
            Item::Gap(gap) => Stretch {
                first: gap.first,
                last: gap.last,
            },
            Item::Damaged(damaged) => *damaged,
        };
        if held.last == Offset(u64::MAX) {
            return Err(self.bad("no record can have the offset 18446744073709551615"));
        }
        if let Some(expected) = self.expected
            && held.first < expected
        {
            let (first, last) = (held.first, expected.0 - 1);
            return Err(self.bad(&format!(
                "its offset is {first}, which is not above {last}, the one before"
            )));
        }
        self.open(held.first)?;
        if let Some(expected) = self.expected
            && expected < held.first
        {
            self.leave_out(expected, held.first)?;
        }
        match item {
            Item::Record(record) => self.take_record(record),
            Item::Gap(gap) => self.take_gap(gap),
            Item::Damaged(_) => self.leave_out(held.first, held.last.next()),
        }?;
        self.expected = Some(held.last.next());
        Ok(())
    }

    /// Opens the log, or makes it, once.
    fn open(&mut self, first: Offset) -> Result<(), Failure> {
        if self.log.is_some() {
            return Ok(());
        }
        let (import, dir) = (self.import, self.import.dir.display());
        let may_exist = import.append || import.resume;
        if !may_exist && import.has_log()? {
            return Err(Failure::new(
                "exists",
                format!(
                    "there is a log in {dir} already; give another directory, or --append to add to it, or \
                     --resume to go on with an import"
                ),
            ));
        }
        let log = open_to_write(import.engine.engine, &import.dir, import.options(first))?;
        let (lowest, next) = (log.lowest_offset()?, log.next_offset()?);
        let fits = if import.resume {
            first <= next
        } else {
            first == next && (may_exist || lowest == next)
        };
        if !fits {
            return Err(Failure::new(
                "out_of_place",
                format!(
                    "the input begins at {first}, and the next record of the log in {dir} is {next}; give what \
                     goes on from there{}",
                    if first < next && !import.resume {
                        ", or --resume to pass over what the log has"
                    } else {
                        ""
                    }
                ),
            ));
        }
        self.timestamp_ms_min = last_timestamp_ms(&*log)?;
        self.next = next;
        self.log = Some(log);
        Ok(())
    }

    /// Offsets from `from` to before `to` are not in the input.
    fn leave_out(&mut self, from: Offset, to: Offset) -> Result<(), Failure> {
        self.append_batch(Cut::No)?;
        let from = from.max(self.next);
        if from >= to {
            return Ok(());
        }
        let left_out = Stretch {
            first: self.left_out.map_or(from, |before| before.first),
            last: Offset(to.0 - 1),
        };
        if !self.import.keep_gaps {
            return Err(self.refuse(
                "gap",
                &format!(
                    "comes after {}, which the input does not have; give an input that does, or --keep-gaps to \
                     have the log leave them out too",
                    left_out.describe()
                ),
            ));
        }
        self.widen_gap(Gap::of(from..=left_out.last, GapCause::Skipped))?;
        self.left_out = Some(left_out);
        Ok(())
    }

    /// These offsets are not there in the log that was exported.
    fn take_gap(&mut self, gap: Gap) -> Result<(), Failure> {
        self.append_batch(Cut::ByGap)?;
        // What the log has beyond that is no loss.
        self.widen_gap(Gap::of(gap.first.max(self.next)..=gap.last, gap.cause))
    }

    fn widen_gap(&mut self, gap: Option<Gap>) -> Result<(), Failure> {
        let Some(mut gap) = gap else { return Ok(()) };
        match self.gap {
            Some(before) if before.cause == gap.cause => gap.first = before.first,
            Some(_) => self.make_gap()?,
            None => {}
        }
        self.gap = Some(gap);
        Ok(())
    }

    fn take_record(&mut self, record: Carried) -> Result<(), Failure> {
        if record.offset < self.next {
            return self.pass_over(&record);
        }
        if record.timestamp_ms != 0 {
            if record.timestamp_ms < self.timestamp_ms_min {
                let (found, before) = (record.timestamp_ms, self.timestamp_ms_min);
                return Err(self.bad(&format!(
                    "its timestamp_ms is {found}, and {before} that of a record before, which a log does not keep \
                     so"
                )));
            }
            self.timestamp_ms_min = record.timestamp_ms;
        }
        if !goes_on_with(&self.batch, &record) {
            self.append_batch(Cut::No)?;
        }
        self.make_gap()?;
        let is_last = record.batch_remaining == 0;
        self.batch_bytes += record.bytes();
        self.batch.push(record);
        let records_max = (self.import.sizes.index_bytes_max / ENTRY_BYTES).max(1);
        if self.batch_bytes > BATCH_BYTES_MAX || self.batch.len() as u64 > records_max {
            return Err(self.refuse(
                "too_large",
                "is of a batch that is larger than 1 GiB or than --index-bytes-max has entries for, 12 bytes each",
            ));
        }
        if is_last {
            self.append_batch(Cut::No)
        } else {
            Ok(())
        }
    }

    /// The log has a record of this offset already.
    fn pass_over(&mut self, record: &Carried) -> Result<(), Failure> {
        if let Some(log) = &self.log
            && record.offset >= log.lowest_offset()?
        {
            let offset = record.offset;
            let is_there = match log.read(offset) {
                Ok(found) => record.is(&found),
                // It was there, if it was.
                Err(error) if error.kind() == ErrorKind::Gap => log
                    .locate(offset)?
                    .gap
                    .is_some_and(|gap| gap.cause == GapCause::Compacted),
                Err(error) => return Err(error.into()),
            };
            if !is_there {
                return Err(self.refuse(
                    "out_of_place",
                    &format!("is another record {offset} than the log has; this is not the input it is of"),
                ));
            }
        }
        self.passed_over += 1;
        Ok(())
    }

    /// Appends the records of the batch, be they all or not.
    fn append_batch(&mut self, cut: Cut) -> Result<(), Failure> {
        let (Some(log), Some(last)) = (&self.log, self.batch.last()) else {
            return Ok(());
        };
        let records: Vec<NewRecord<'_>> = self.batch.iter().map(Carried::to_append).collect();
        let how = AppendOptions::from(Durability::Buffered).copied();
        let offsets = match log.append_batch_with(&records, how) {
            Ok(offsets) => offsets,
            Err(error) => return Err(self.not_appended(error)),
        };
        let count = self.batch.len() as u64;
        let is_cut_by_gap = std::mem::take(&mut self.is_after_gap) || cut == Cut::ByGap;
        if is_cut_by_gap {
            // The input says why.
        } else if last.batch_remaining > 0 || u64::from(last.batch_records.max(1)) != count {
            let (first, last) = (offsets.start, Offset(offsets.end.0 - 1));
            note(&format!(
                "{}: the input has only a part of this batch, which is a batch of its own now",
                Stretch { first, last }.describe()
            ));
        }
        let last = Offset(offsets.end.0 - 1);
        let first = self.imported.map_or(offsets.start, |before| before.first);
        self.imported = Some(Stretch { first, last });
        self.next = offsets.end;
        self.records += count;
        self.unsynced_bytes += self.batch_bytes;
        self.batch.clear();
        self.batch_bytes = 0;
        if self.unsynced_bytes >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// Leaves the offsets out that the input left out before the next one.
    fn make_gap(&mut self) -> Result<(), Failure> {
        let Some(gap) = self.gap.take() else {
            return Ok(());
        };
        let to = gap.last.next();
        if let Some(log) = &self.log {
            let skipped = log.skip_to_because(to, gap.cause);
            skipped.map_err(|error| self.not_appended(error))?;
            self.unsynced_bytes += GAP_BYTES;
        }
        match self.left_out.take() {
            Some(left_out) => note(&format!(
                "{}: not in the input, and left out of the log",
                left_out.describe()
            )),
            None => self.is_after_gap = true,
        }
        self.absent += gap.offsets();
        self.next = to;
        Ok(())
    }

    /// At the end of the input.
    fn finish(&mut self) -> Result<(), Failure> {
        if let (Some(first), Some(last)) = (self.batch.first(), self.batch.last()) {
            if !self.import.cut_batch {
                let waiting = Stretch {
                    first: first.offset,
                    last: last.offset,
                };
                return Err(self.with_advice(Failure::new(
                    "bad_input",
                    format!(
                        "the input ends within a batch, {} of which are to follow {}; --cut-batch imports it \
                         without them",
                        last.batch_remaining,
                        waiting.describe()
                    ),
                )));
            }
            self.append_batch(Cut::No)?;
        }
        self.make_gap()?;
        self.sync()
    }

    fn sync(&mut self) -> Result<(), Failure> {
        if let Some(log) = &self.log
            && self.unsynced_bytes > 0
        {
            log.sync().map_err(|error| self.not_appended(error))?;
            self.unsynced_bytes = 0;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<(), Failure> {
        match self.log.take() {
            Some(log) => log.close().map_err(|error| self.not_appended(error)),
            None => Ok(()),
        }
    }

    fn not_appended(&self, error: Error) -> Failure {
        match error.kind() {
            ErrorKind::TooLarge | ErrorKind::InvalidArgument => {
                let kind = proglog_host::http::kind_name(error.kind());
                self.refuse(kind, &format!("cannot be imported: {}", in_flags(&error)))
            }
            _ => Failure::from(error).context(&format!(
                "what was imported of {} may not be in the log; --resume goes on from what is",
                count(self.records, "record")
            )),
        }
    }

    fn bad(&self, what: &str) -> Failure {
        self.refuse("bad_input", &format!("is no record to import: {what}"))
    }

    /// Says what is wrong where in the input.
    fn refuse(&self, kind: &'static str, what: &str) -> Failure {
        let (noun, number) = (self.import.format.noun(), self.decoder.number());
        let after = self.expected.and_then(|next| next.0.checked_sub(1));
        let after = after.map_or(String::new(), |last| format!(", after record {last},"));
        let message = format!("{noun} {number} of the input{after} {what}");
        self.with_advice(Failure::new(kind, message))
    }

    /// Says what was imported, and how to go on.
    fn with_advice(&self, failure: Failure) -> Failure {
        match self.imported {
            None => failure.context("nothing was imported"),
            Some(Stretch { first, last }) => failure.context(&format!(
                "{first}..={last} were imported, and --resume goes on from {}",
                self.next
            )),
        }
    }

    fn tell_summary(&self) -> Result<(), Failure> {
        let mut out = io::stdout();
        if self.import.json {
            let summary = json!({
                "first": self.imported.map(|imported| imported.first),
                "last": self.imported.map(|imported| imported.last),
                "records": self.records,
                "absent": self.absent,
                "passed_over": self.passed_over,
            });
            return Ok(writeln!(out, "{summary}")?);
        }
        let imported = match self.imported {
            None => "imported nothing".to_owned(),
            Some(Stretch { first, last }) => format!(
                "imported {first}..={last} ({})",
                count(self.records, "record")
            ),
        };
        let absent = match self.absent {
            0 => String::new(),
            offsets => format!("; {} not there", count(offsets, "offset")),
        };
        let passed_over = match self.passed_over {
            0 => String::new(),
            records => format!("; the log had {}", count(records, "record")),
        };
        Ok(writeln!(out, "{imported}{absent}{passed_over}")?)
    }
}

/// Why a batch ends where it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Its last record is there, or the input does not say why not.
    No,
    /// The next offset is not there.
    ByGap,
}

/// The timestamp below which the next one may not be.
fn last_timestamp_ms(log: &dyn Engine) -> Result<u64, Failure> {
    let (lowest, next) = (log.lowest_offset()?, log.next_offset()?);
    let from = Offset(next.0.saturating_sub(TIMESTAMPS_READ_MAX)).max(lowest);
    let found = (from.0..next.0)
        .rev()
        .find_map(|offset| log.read(Offset(offset)).ok()?.timestamp_ms());
    Ok(found.unwrap_or_default())
}
