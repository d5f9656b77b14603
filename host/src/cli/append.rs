//! `proglog append`

mod known;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use proglog::{AppendOptions, Header, NewRecord, Offset, Producer};
use proglog_host::{Engine, Error, ErrorKind};
use serde_json::json;

use self::known::Known;
use super::{
    Done,
    directory::{Place, open_to_write},
    failure::{Failure, in_flags},
    index_file::ENTRY_BYTES,
    input::{Input, Piece, Records},
    options::{EngineArgs, StorageArgs, parse_number},
    progress::Progress,
    signals::Stopped,
    text::{count, note, print_report},
};

/// The most that is appended at once, each time as a batch that is there whole or not at all.
const BATCH_BYTES_MAX: u64 = 1 << 20;
const BATCH_RECORDS_MAX: u64 = 8192;
/// The most bytes of a frame besides its value, key and headers.
const FRAME_OVERHEAD_BYTES: u64 = 48;

/// Append each line of a file or of standard input as a record
///
/// Makes the directory if it is not there. Only the newline is stripped; an empty line is an empty
/// record. Records are appended in batches, each acknowledged as --durability says before the next;
/// what comes slowly is appended as soon as the input pauses.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog append ./log access.log
  printf 'a\\0b' | proglog append ./log --null
  echo paid | proglog append ./log --key order-7 --header trace=4bf9
  proglog append ./log day.log --producer-id day-1    # again and again: each line is there once
  generate | proglog append ./log --acks    # prints 41 once record 41 and all before it are kept")]
pub(crate) struct Append {
    /// The directory of the log
    dir: PathBuf,
    /// The file to append; standard input if it is - or not given
    file: Option<PathBuf>,
    /// Records end with a NUL byte instead of a newline
    #[arg(long)]
    null: bool,
    /// The key of every record
    #[arg(long)]
    key: Option<String>,
    /// A header of every record; may be given more than once
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = parse_header)]
    headers: Vec<Header>,
    /// The timestamp of every record, in milliseconds since 1970; 0 for none [default: now]
    #[arg(long, value_name = "N", value_parser = parse_number, allow_negative_numbers = true)]
    timestamp_ms: Option<u64>,
    /// Whose records they are: a line that the log has of this producer already is passed over, so that the same
    /// input can be appended again when no answer came. At most 32 bytes
    #[arg(long, value_name = "ID", value_parser = parse_producer_id)]
    producer_id: Option<String>,
    /// The producer's sequence of the first line; that of each next one is one higher
    #[arg(
        long,
        value_name = "N",
        value_parser = parse_number,
        allow_negative_numbers = true,
        default_value_t = 0,
        requires = "producer_id"
    )]
    producer_sequence: u64,
    /// Append nothing, and exit with 6, unless the first line gets this offset. What --producer-id says is there
    /// already has its offsets, wherever they are: a line after it is to get one as many higher, and where all of them
    /// are there, that is success
    #[arg(long, value_name = "N", value_parser = parse_number, allow_negative_numbers = true)]
    expect_next: Option<u64>,
    /// Print the last offset of each batch, a line each, as soon as it is acknowledged, that is kept as
    /// --durability says, also of lines that are passed over; the summary then goes to standard error
    #[arg(long)]
    acks: bool,
    /// Print {"first":0,"last":41,"records":42}; with --acks before it {"acknowledged":41} for each
    /// batch
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    storage: StorageArgs,
}

impl Append {
    pub(crate) fn run(&self) -> Done {
        let input = Input::open(self.file.as_deref())?;
        let place = Place::before(&self.dir);
        let log = open_to_write(self.engine.engine, &self.dir, self.storage.options())?;
        input.tell_typist("each line becomes a record; Ctrl-D ends");
        let stopped = input.listen_for_stop()?;
        let mut appender = Appender {
            append: self,
            log: &*log,
            records: Records::new(if self.null { 0 } else { b'\n' }),
            first: None,
            next: Offset(0),
            appended: 0,
            known: 0,
            known_records: None,
            progress: Progress::of_input(&input),
        };
        let done = appender
            .find_last()
            .and_then(|()| appender.append_all(&input, &stopped));
        appender.progress.clear();
        appender.tell_known();
        let (first, next) = (appender.first, appender.next);
        drop(appender);
        let closed = log.close();
        if done.is_err() {
            place.restore();
        }
        let told = self.tell_summary(first, next, done.is_ok() && closed.is_ok());
        let exit = done?;
        closed.map_err(not_acknowledged)?;
        told?;
        Ok(exit)
    }

    /// The record of a line, of which so many were before it.
    fn new_record<'a>(&'a self, value: &'a [u8], before: u64) -> Result<NewRecord<'a>, Failure> {
        let mut record = NewRecord::new(value).headers(&self.headers);
        if let Some(id) = &self.producer_id {
            record = record.producer(id, self.sequence(before)?);
        }
        if let Some(key) = &self.key {
            record = record.key(key);
        }
        match self.timestamp_ms {
            Some(timestamp_ms) => Ok(record.timestamp_ms(timestamp_ms)),
            None => Ok(record),
        }
    }

    fn sequence(&self, before: u64) -> Result<u64, Failure> {
        self.producer_sequence.checked_add(before).ok_or_else(|| {
            Failure::usage("the sequences after --producer-sequence are used up; give a lower one")
        })
    }

    /// What a record takes in the store besides its value, at most.
    fn overhead_bytes(&self) -> u64 {
        let headers = self
            .headers
            .iter()
            .map(|h| h.name.len() + h.value.len() + 12);
        let key = self.key.as_ref().map_or(0, String::len);
        let producer = self.producer_id.as_ref().map_or(0, |id| id.len() + 13);
        FRAME_OVERHEAD_BYTES + (key + headers.sum::<usize>() + producer) as u64
    }

    fn tell_ack(&self, last: Offset) -> Result<(), Failure> {
        if !self.acks {
            return Ok(());
        }
        let line = if self.json {
            json!({ "acknowledged": last }).to_string()
        } else {
            last.to_string()
        };
        // Standard output is line-buffered, also into a pipe. Whoever listens may leave, but the input
        // is to be appended all the same.
        match writeln!(io::stdout(), "{line}") {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn tell_summary(
        &self,
        first: Option<Offset>,
        next: Offset,
        is_whole: bool,
    ) -> Result<(), Failure> {
        let last = next.0.saturating_sub(1);
        let summary = match first {
            _ if self.json => {
                let records = first.map_or(0, |first| next.since(first));
                let last = first.map(|_| last);
                json!({ "first": first, "last": last, "records": records }).to_string()
            }
            None if is_whole => "appended nothing".to_owned(),
            None => "nothing was acknowledged".to_owned(),
            Some(first) => {
                format!(
                    "appended {first}..={last} ({})",
                    count(next.since(first), "record")
                )
            }
        };
        if self.acks && !self.json {
            // If standard error is closed, the offsets on standard output said it already.
            let _ = writeln!(io::stderr(), "{summary}");
            Ok(())
        } else {
            print_report(&format!("{summary}\n"))
        }
    }
}

/// An append under way.
struct Appender<'a> {
    append: &'a Append,
    log: &'a dyn Engine,
    records: Records,
    first: Option<Offset>,
    next: Offset,
    /// How many records of the input were appended: one less than the number of the next.
    appended: u64,
    /// How many of those the log had already.
    known: u64,
    /// The producer's records before any is appended here.
    known_records: Option<Known<'a>>,
    progress: Progress,
}

impl Appender<'_> {
    fn find_last(&mut self) -> Result<(), Failure> {
        if let Some(id) = &self.append.producer_id {
            let last = self.log.producer_last(id.as_bytes())?;
            self.known_records = last.map(|last| Known::new(self.log, id.as_bytes(), last));
        }
        Ok(())
    }

    fn tell_known(&self) {
        if self.known > 0 {
            let noun = if self.append.null { "record" } else { "line" };
            note(&format!(
                "{} in the log already, and passed over",
                match self.known {
                    1 => format!("1 {noun} was"),
                    known => format!("{} were", count(known, noun)),
                }
            ));
        }
    }

    /// Passes over those of the first lines that the log has already, and gives how many of them it has not.
    fn pass_over_known(&mut self, records: usize) -> Result<usize, Failure> {
        let Some(log_has) = &mut self.known_records else {
            return Ok(records);
        };
        let first = self.append.sequence(self.appended)?;
        let known = log_has.last_sequence().saturating_add(1);
        let known = known.saturating_sub(first);
        let known = usize::try_from(known).unwrap_or(records).min(records);
        if known > 0 && self.append.acks {
            let last = first + (known as u64 - 1);
            if let Some(offset) = log_has.last_of(first, last)? {
                self.append.tell_ack(offset)?;
            }
        }
        self.records.drop_first(known);
        self.appended += known as u64;
        self.known += known as u64;
        Ok(records - known)
    }

    fn append_all(&mut self, input: &Input, stopped: &Stopped) -> Done {
        loop {
            if let Some(exit) = stopped.exit() {
                self.append_whole()?;
                return Ok(exit);
            }
            match input.next(self.records.len() > 0) {
                Piece::Bytes(bytes) => self.take(&bytes)?,
                Piece::Pause => self.append_whole()?,
                Piece::Stop => {}
                Piece::End => {
                    self.records.finish();
                    self.make_room()?;
                    self.append_whole()?;
                    return Ok(ExitCode::SUCCESS);
                }
                Piece::Failed(failure) => {
                    self.append_whole()?;
                    return Err(failure);
                }
            }
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        self.progress.advance(bytes.len() as u64);
        while !bytes.is_empty() {
            let (taken, is_whole) = self.records.take(bytes);
            bytes = &bytes[taken..];
            if is_whole {
                self.make_room()?;
            }
            let limit = self.append.storage.sizes.record_bytes_max;
            if self.records.unfinished_bytes() as u64 > limit {
                self.append_whole()?;
                return Err(self.too_large(&format!(
                    "it has more than the {limit} bytes that --record-bytes-max allows; raise that, or split it"
                )));
            }
        }
        Ok(())
    }

    /// After one more whole record: appends those before it if they would be too many together, and
    /// it too if they are as many as may be.
    fn make_room(&mut self) -> Result<(), Failure> {
        let sizes = &self.append.storage.sizes;
        let bytes_max = BATCH_BYTES_MAX.min(sizes.segment_bytes_max);
        let records_max = BATCH_RECORDS_MAX
            .min(sizes.index_bytes_max / ENTRY_BYTES)
            .max(1);
        if self.batch_bytes() > bytes_max {
            self.append_first(self.records.len().saturating_sub(1))?;
        }
        if self.records.len() as u64 >= records_max || self.batch_bytes() >= bytes_max {
            self.append_whole()?;
        }
        Ok(())
    }

    /// What the whole records take in the store, at most.
    fn batch_bytes(&self) -> u64 {
        let records = self.records.len() as u64;
        self.records.whole_bytes() as u64 + records * self.append.overhead_bytes()
    }

    fn append_whole(&mut self) -> Result<(), Failure> {
        self.append_first(self.records.len())
    }

    fn append_first(&mut self, records: usize) -> Result<(), Failure> {
        let records = self.pass_over_known(records)?;
        let whole = self.records.whole().take(records).zip(self.appended..);
        let batch: Vec<_> = whole
            .map(|(value, before)| self.append.new_record(value, before))
            .collect::<Result<_, _>>()?;
        if batch.is_empty() {
            return Ok(());
        }
        let mut options = AppendOptions::new();
        if let Some(first) = self.append.expect_next {
            options = options.expected_next_offset(Offset(first).plus(self.appended));
        }
        let offsets = match self.log.append_batch_with(&batch, options) {
            Ok(offsets) => offsets,
            // All or nothing: halves find the one that is too large, and append those before it.
            Err(error) if error.kind() == ErrorKind::TooLarge && batch.len() > 1 => {
                self.append_first(records / 2)?;
                return self.append_first(records - records / 2);
            }
            Err(error) if error.kind() == ErrorKind::TooLarge => {
                return Err(self.too_large(&in_flags(&error)));
            }
            Err(error) => return Err(not_acknowledged(error)),
        };
        self.records.drop_first(records);
        self.first.get_or_insert(offsets.start);
        self.next = offsets.end;
        self.appended += records as u64;
        self.append
            .tell_ack(Offset(offsets.end.0.saturating_sub(1)))
    }

    /// Says which record of the input is too large.
    fn too_large(&self, what: &str) -> Failure {
        let number = self.appended + 1;
        let noun = if self.append.null { "record" } else { "line" };
        let before = match self.appended {
            0 => "nothing was appended".to_owned(),
            1 => format!("the {noun} before it was appended"),
            appended => format!("the {} before it were appended", count(appended, noun)),
        };
        let message = format!("{noun} {number} of the input is too large: {what}; {before}");
        Failure::new("too_large", message)
    }
}

/// An append that failed, which is not the same as one that did not happen.
fn not_acknowledged(error: Error) -> Failure {
    let is_unknown = matches!(
        error.kind(),
        ErrorKind::Io | ErrorKind::Poisoned | ErrorKind::Trapped
    );
    let failure = Failure::from(error);
    if is_unknown {
        failure.context(
            "nothing more was acknowledged, but some may be in the log: see `proglog tail` before \
             you append it again",
        )
    } else {
        failure
    }
}

fn parse_producer_id(text: &str) -> Result<String, String> {
    match text.len() {
        1..=Producer::ID_BYTES_MAX => Ok(text.to_owned()),
        bytes => Err(format!(
            "it has {bytes} bytes; give 1 to {}",
            Producer::ID_BYTES_MAX
        )),
    }
}

fn parse_header(text: &str) -> Result<Header, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok(Header::new(name, value)),
        _ => Err("give NAME=VALUE".to_owned()),
    }
}
