//! What the command line and the REST server speak to: a log, natively or in a wasm module.

use std::{num::NonZero, ops::Range, path::Path, time::Duration};

use proglog::{
    AppendOptions, Compacted, Compaction, Frames, GapCause, Location, Log, NewRecord, Next, Offset,
    Options, ProducerLast, Record, Report, Retention, SegmentReport, SegmentSummary,
};

use crate::Result;

/// A log in a directory, whatever runs it. The methods are those of [`proglog::Log`], with the same
/// meaning, durability and errors; see there.
#[expect(missing_docs, reason = "documented on proglog::Log")]
pub trait Engine: Send + Sync {
    fn append_batch(&self, records: &[NewRecord<'_>]) -> Result<Range<Offset>>;
    fn append_batch_with(
        &self,
        records: &[NewRecord<'_>],
        options: AppendOptions,
    ) -> Result<Range<Offset>>;
    fn producer_last(&self, id: &[u8]) -> Result<Option<ProducerLast>>;
    fn read(&self, offset: Offset) -> Result<Record>;
    fn read_batch(&self, from: Offset, bytes_max: usize) -> Result<Frames>;
    /// Iterates over the records from `from` on, to where the log ends when the scan gets there. Unlike
    /// [`proglog::Log::scan`] it takes no offset below the lowest, and ends after the first error.
    fn scan(&self, from: Offset) -> Records<'_>;
    /// Gives the records from `from` on, and those that come. With the wasm engine as a [`proglog::Subscription`] on a
    /// log opened read-only is, in any case: appends do not wake it, it looks again.
    fn subscribe(&self, from: Offset) -> Box<dyn Subscription + Send + '_>;
    fn truncate_before(&self, offset: Offset) -> Result<()>;
    fn truncate_after(&self, offset: Offset) -> Result<()>;
    fn reset(&self) -> Result<()>;
    fn skip_to_because(&self, next: Offset, cause: GapCause) -> Result<()>;
    fn compact(&self, compaction: &Compaction) -> Result<Compacted>;
    fn enforce_retention(&self) -> Result<()>;
    fn enforce_retention_with(&self, retention: &Retention, now_ms: Option<u64>) -> Result<()>;
    fn lowest_offset(&self) -> Result<Offset>;
    fn next_offset(&self) -> Result<Offset>;
    fn durable_offset(&self) -> Result<Offset>;
    fn sync(&self) -> Result<()>;
    fn recovery_report(&self) -> Result<Report>;
    fn verify(&self) -> Result<Report>;
    /// As [`proglog::Log::verify_with`], where the engine has threads. What has none tells of all segments at the end.
    fn verify_with(
        &self,
        threads_max: NonZero<usize>,
        seen: &mut dyn FnMut(&SegmentReport),
    ) -> Result<Report> {
        let _ = threads_max;
        let report = self.verify()?;
        report.segments.iter().for_each(seen);
        Ok(report)
    }
    /// How many bytes of its files it has read by calls so far, also while a call of another thread goes on; where that
    /// is counted.
    fn bytes_read(&self) -> Option<u64> {
        None
    }
    fn segments(&self) -> Result<Vec<SegmentSummary>>;
    fn locate(&self, offset: Offset) -> Result<Location>;
    fn refresh(&self) -> Result<()>;
    fn close(self: Box<Self>) -> Result<()>;
}

/// The records of a log from some offset on, those that there are and those that come. The methods are those of
/// [`proglog::Subscription`]; see there.
#[expect(missing_docs, reason = "documented on proglog::Subscription")]
pub trait Subscription {
    fn next_timeout(&mut self, timeout: Duration) -> Result<Next>;
    fn offset(&self) -> Offset;
    fn seek(&mut self, to: Offset);
}

/// The records of a scan.
pub type Records<'a> = Box<dyn Iterator<Item = Result<Record>> + 'a>;

/// Which engine runs a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EngineKind {
    /// The wasm module, in wasmtime, with the log's directory and nothing else.
    #[default]
    Wasm,
    /// The core as native code.
    Native,
}

/// How a log is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// For appends too. The directory is made if it is missing; no one else may have it so.
    Write,
    /// For reads only, beside a writer too. Nothing is ever written.
    Read,
}

/// Opens the log in `directory` with the engine asked for.
///
/// # Errors
///
/// Those of [`Log::open`], or the module cannot be run.
pub fn open(
    kind: EngineKind,
    directory: &Path,
    mode: Mode,
    options: Options,
) -> Result<Box<dyn Engine>> {
    Ok(match (kind, mode) {
        (EngineKind::Native, Mode::Write) => Box::new(Log::open(directory, options)?),
        (EngineKind::Native, Mode::Read) => Box::new(Log::open_read_only(directory, options)?),
        (EngineKind::Wasm, mode) => Box::new(crate::WasmLog::open(directory, mode, options)?),
    })
}
