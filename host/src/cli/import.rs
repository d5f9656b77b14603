//! `proglog import`

mod opening;
mod overlap;
mod told;

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use proglog::{AppendOptions, Durability, Gap, GapCause, Log, NewRecord, Offset, Options};
use proglog_host::{Engine, EngineKind, Mode, open};

use self::{
    overlap::{Mismatch, Overlap},
    told::Told,
};
use super::{
    Done,
    directory::Place,
    exchange::{Bad, Carried, Decoder, Format, Item, Stretch, goes_on_with},
    failure::Failure,
    index_file::ENTRY_BYTES,
    input::{Input, Piece},
    options::{EngineArgs, SizeArgs},
    progress::Progress,
    signals::Stopped,
    text::note,
};

/// How much is appended between two syncs.
const SYNC_BYTES: u64 = 8 << 20;
/// The most that a log takes at once.
const BATCH_BYTES_MAX: u64 = 1 << 30;
/// The last offset that a log of the wasm engine's can have.
const WASM_OFFSET_LAST: u64 = i64::MAX as u64 - 1;

/// Make a log of what `proglog export` wrote, with the same records at the same offsets
///
/// Also their timestamps, keys, headers, producers and batches are the same; what had no timestamp gets none. Offsets
/// that were not there, for they were compacted, lost or skipped, are not there in the copy for the same cause, each
/// stretch of them before a segment of its own; native code does that with either engine. A new log begins at the
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
    /// Import into a log that is there, what it does not have yet. What it has must be what this import would have made,
    /// and is passed over: records, but for those that were compacted since, batches, and offsets that are not there for
    /// the same cause. What lies below its lowest offset cannot be compared: how much that was is told
    #[arg(long, conflicts_with = "append")]
    resume: bool,
    /// Where the input leaves offsets out, or marks them as damaged, have the log leave them out too; with --resume,
    /// keep what it has of them
    #[arg(long)]
    keep_gaps: bool,
    /// Where the input ends within a batch, import what there is of it as a batch; with --resume, take what was
    /// imported so for that batch
    #[arg(long)]
    cut_batch: bool,
    /// Print {"first":0,"last":41,"records":42,"absent":0,"passed_over":0,"not_compared":0}
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
        input.tell_typist("each line is a record as `proglog export` writes it; Ctrl-D ends");
        let stopped = input.listen_for_stop()?;
        let place = Place::before(&self.dir);
        let mut importer = Importer {
            import: self,
            decoder: Decoder::new(self.format, self.sizes.record_bytes_max),
            log: None,
            is_begun: false,
            expected: None,
            overlap: None,
            batch: Vec::new(),
            batch_bytes: 0,
            gap: None,
            left_out: None,
            is_after_gap: false,
            next: Offset(0),
            told: Told::default(),
            absent: 0,
            unsynced_bytes: 0,
            timestamp_ms_min: 0,
            progress: Progress::of_input(&input),
        };
        let done = importer.import_all(&input, &stopped);
        importer.progress.clear();
        // Closing makes all durable that was imported.
        let closed = importer.close();
        if done.is_err() {
            place.restore();
        }
        let told = importer.tell_summary();
        let exit = done?;
        closed?;
        told?;
        Ok(exit)
    }

    fn options(&self, initial_offset: Offset) -> Options {
        self.sizes.options().initial_offset(initial_offset)
    }
}

/// An import under way.
struct Importer<'a> {
    import: &'a Import,
    decoder: Decoder,
    /// Opened once the first offset is known; a new one is made with its first record.
    log: Option<Box<dyn Engine>>,
    /// Whether the first offset is known.
    is_begun: bool,
    /// The offset that comes next in the input.
    expected: Option<Offset>,
    /// What the log had already, with --resume.
    overlap: Option<Overlap>,
    /// The records of a batch that is not whole yet.
    batch: Vec<Carried>,
    batch_bytes: u64,
    /// Offsets that are not there before the next record, and will not be in the log.
    gap: Option<Gap>,
    /// Those of them that the input left out.
    left_out: Option<Stretch>,
    /// Whether the batch comes after such offsets.
    is_after_gap: bool,
    /// The log's next offset.
    next: Offset,
    /// What was imported.
    told: Told,
    absent: u64,
    unsynced_bytes: u64,
    /// An earlier timestamp would not stay as it is.
    timestamp_ms_min: u64,
    progress: Progress,
}

impl Importer<'_> {
    fn import_all(&mut self, input: &Input, stopped: &Stopped) -> Done {
        loop {
            if let Some(exit) = stopped.exit() {
                return Ok(exit);
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
                Piece::Failed(failure) => return Err(self.with_advice(failure)),
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
        let is_wasm = self.import.engine.engine == EngineKind::Wasm;
        if is_wasm && held.last.0 > WASM_OFFSET_LAST {
            let what = format!(
                "has the offset {}, beyond {WASM_OFFSET_LAST}, the last that the wasm engine gives; use --engine native",
                held.last
            );
            return Err(self.refuse("invalid_argument", &what));
        }
        if let Some(expected) = self.expected
            && held.first < expected
        {
            let (first, last) = (held.first, expected.0 - 1);
            return Err(self.bad(&format!(
                "its offset is {first}, which is not above {last}, the one before"
            )));
        }
        self.begin(held.first)?;
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

    /// Compares something with what the log has already, if it has it.
    fn pass<T>(
        &mut self,
        compare: impl FnOnce(&mut Overlap, &dyn Engine) -> Result<T, Mismatch>,
    ) -> Result<Option<T>, Failure> {
        let (Some(overlap), Some(log)) = (&mut self.overlap, &self.log) else {
            return Ok(None);
        };
        match compare(overlap, &**log) {
            Ok(passed) => Ok(Some(passed)),
            Err(Mismatch::Failed(failure)) => Err(failure),
            Err(Mismatch::NotComparable(lowest)) => Err(self.refuse(
                "out_of_place",
                &format!(
                    "cannot be compared with the log, nor can what was before it: that begins at {lowest} by now; give \
                     what goes on from there, with --append, or an input that has more"
                ),
            )),
            Err(Mismatch::Differs(what)) => Err(self.refuse(
                "out_of_place",
                &format!("is not what the log has: {what}; give the input that it is of"),
            )),
        }
    }

    /// Offsets from `from` to before `to` are not in the input.
    fn leave_out(&mut self, from: Offset, to: Offset) -> Result<(), Failure> {
        let held = self.pass(|overlap, log| overlap.pass_left_out(log, from, to))?;
        if let Some(held) = held.flatten() {
            let held = held.describe();
            if !self.import.keep_gaps {
                return Err(self.refuse(
                    "gap",
                    &format!(
                        "comes after {held}, which the log has and the input does not; give an input that does, or \
                         --keep-gaps to keep what the log has"
                    ),
                ));
            }
            self.progress.note(&format!(
                "{held}: not in the input; what the log has of that stays"
            ));
        }
        let from = from.max(self.next);
        if from >= to {
            return Ok(());
        }
        let left_out = Stretch {
            first: self.left_out.map_or(from, |before| before.first),
            last: Offset(to.0 - 1),
        };
        // Before what there is of a batch: it may be whole once the input is mended.
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
        self.append_batch(Cut::No)?;
        self.widen_gap(Gap::of(from..=left_out.last, GapCause::Skipped))?;
        self.left_out = Some(left_out);
        Ok(())
    }

    /// These offsets are not there in the log that was exported.
    fn take_gap(&mut self, gap: Gap) -> Result<(), Failure> {
        self.append_batch(Cut::ByGap)?;
        self.pass(|overlap, log| overlap.pass_gap(log, gap))?;
        self.widen_gap(Gap::of(gap.first.max(self.next)..=gap.last, gap.cause))
    }

    fn widen_gap(&mut self, gap: Option<Gap>) -> Result<(), Failure> {
        let Some(mut gap) = gap else { return Ok(()) };
        match self.gap {
            Some(before) if before.cause == gap.cause => gap.first = before.first,
            Some(_) => self.end_gap()?,
            None => {}
        }
        self.gap = Some(gap);
        Ok(())
    }

    fn take_record(&mut self, record: Carried) -> Result<(), Failure> {
        let reaches = |overlap: &Overlap| overlap.reaches(record.offset);
        if self.overlap.as_ref().is_some_and(reaches) {
            self.pass(|overlap, log| overlap.pass_record(log, &record))?;
            return Ok(());
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
        self.end_gap()?;
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

    /// Appends the records of the batch, be they all or not.
    fn append_batch(&mut self, cut: Cut) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.pass(|overlap, _| overlap.finish())?;
        self.make_log()?;
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
            self.progress.note(&format!(
                "{}: the input has only a part of this batch, which is a batch of its own now",
                Stretch { first, last }.describe()
            ));
        }
        self.told.add(&offsets);
        self.next = offsets.end;
        self.unsynced_bytes += self.batch_bytes;
        self.batch.clear();
        self.batch_bytes = 0;
        if self.unsynced_bytes >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// Has the log leave out what comes before the next record.
    fn end_gap(&mut self) -> Result<(), Failure> {
        if self.gap.is_some() {
            self.pass(|overlap, _| overlap.finish())?;
            self.make_log()?;
        }
        self.make_gap()
    }

    /// Leaves the offsets out that the input left out before the next one: a segment begins after them.
    fn make_gap(&mut self) -> Result<(), Failure> {
        let Some(gap) = self.gap.take() else {
            return Ok(());
        };
        let (import, to) = (self.import, gap.last.next());
        self.close()?;
        // The wasm module has no export for that.
        let skipped = Log::open(&import.dir, import.options(gap.first)).and_then(|log| {
            log.skip_to_because(to, gap.cause)?;
            log.close()
        });
        skipped.map_err(|error| self.not_appended(error.into()))?;
        let log = open(
            import.engine.engine,
            &import.dir,
            Mode::Write,
            import.options(to),
        )?;
        let next = log.next_offset()?;
        if next != to {
            return Err(Failure::new(
                "out_of_place",
                format!(
                    "another writer was faster: the next record of the log is now {next}, not {to}"
                ),
            ));
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
        self.log = Some(log);
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
        self.pass(|overlap, _| overlap.finish())?;
        self.end_gap()?;
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
}

/// Why a batch ends where it does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Its last record is there, or the input does not say why not.
    No,
    /// The next offset is not there.
    ByGap,
}
