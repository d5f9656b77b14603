//! Records on standard output.

use std::io::{self, BufWriter, StdoutLock, Write};

use clap::Args;
use proglog::{Offset, Record};
use proglog_host::{Engine, http::RecordJson};

use super::{failure::Failure, text::note};

/// How records are printed.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Output (default: each value, then a newline)")]
pub(crate) struct OutputArgs {
    /// Print a NUL byte after each value instead of a newline
    #[arg(long, conflicts_with_all = ["raw", "json"])]
    null: bool,
    /// Print the values with nothing between them
    #[arg(long, conflicts_with = "json")]
    raw: bool,
    /// Print each record as a line of JSON: value, offset, and timestamp_ms, key, headers and producer where it
    /// has them; values, keys and header values as base64
    #[arg(long)]
    pub(crate) json: bool,
}

/// Prints records.
pub(crate) struct RecordWriter {
    out: BufWriter<StdoutLock<'static>>,
    format: OutputArgs,
}

impl RecordWriter {
    pub(crate) fn new(format: OutputArgs) -> Self {
        Self {
            out: BufWriter::with_capacity(64 << 10, io::stdout().lock()),
            format,
        }
    }

    /// Prints the records from `next` on, at most `records_max` of them, and moves it past the last. Those
    /// before a damaged one are printed before that is told.
    pub(crate) fn copy(
        &mut self,
        log: &dyn Engine,
        next: &mut Offset,
        records_max: u64,
    ) -> Result<(), Failure> {
        let copied = self.copy_records(log, next, records_max);
        self.out.flush()?;
        copied
    }

    fn copy_records(
        &mut self,
        log: &dyn Engine,
        next: &mut Offset,
        mut records_left: u64,
    ) -> Result<(), Failure> {
        let mut records = log.scan(*next);
        while records_left > 0
            && let Some(record) = records.next()
        {
            let record = record?;
            // Between records there may be offsets that are not there, which is nothing to tell.
            if record.offset() > *next && log.lowest_offset()? > *next {
                note_removed(*next, record.offset());
            }
            self.write(&record)?;
            *next = record.offset().next();
            records_left -= 1;
        }
        Ok(())
    }

    /// Hands on what was written.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    pub(crate) fn write(&mut self, record: &Record) -> io::Result<()> {
        if self.format.json {
            serde_json::to_writer(&mut self.out, &RecordJson::from(record))?;
            return self.out.write_all(b"\n");
        }
        self.out.write_all(record.value())?;
        match (self.format.raw, self.format.null) {
            (true, _) => Ok(()),
            (false, true) => self.out.write_all(b"\0"),
            (false, false) => self.out.write_all(b"\n"),
        }
    }
}

/// Says which records were not printed because another process removed them first.
pub(crate) fn note_removed(from: Offset, lowest: Offset) {
    let last = lowest.0.saturating_sub(1);
    note(&format!(
        "records {from}..={last} were removed before they were read; going on from {lowest}"
    ));
}

/// Says where to look when a record is damaged.
pub(crate) fn with_advice(failure: Failure, directory: &std::path::Path) -> Failure {
    match failure {
        Failure::Told {
            kind: "corrupt", ..
        } => failure.context(&format!(
            "`proglog verify {}` lists what is damaged",
            directory.display()
        )),
        other => other,
    }
}
