//! Runs a vector's script on a subject.

use proglog::{AppendOptions, Offset, Options};
use proglog_host::{Engine, ErrorKind, Mode, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    subject::{Files, Subject},
    vector::{
        FileBytes, Number, Operation, RecordRead, RecordToAppend, Settings, Vector, kind_name,
    },
};

/// Runs the vector on a subject whose directory is empty.
///
/// # Panics
///
/// An outcome or a file is not what the vector says.
pub fn run(vector: &Vector, subject: &dyn Subject) {
    for (name, bytes) in &vector.given() {
        subject.write(name, bytes);
    }
    let mut session = Session::open(subject, vector.options);
    for (number, step) in vector.script.iter().enumerate() {
        let (gives, fails) = match session.perform(&step.operation) {
            Ok(value) => (value, None),
            Err(error) => {
                assert!(!error.to_string().is_empty(), "an error without a message");
                (None, Some(kind_name(error.kind()).to_owned()))
            }
        };
        assert_eq!(
            (&gives, &fails),
            (&step.gives, &step.fails),
            "step {number}, {}: left is what it gave or failed with, right what it should",
            json!(step.operation)
        );
    }
    session.finish();
    let files = subject
        .files()
        .into_iter()
        .map(|(name, bytes)| (name, FileBytes::of(&bytes)));
    assert_eq!(
        json!(files.collect::<std::collections::BTreeMap<_, _>>()),
        json!(vector.files),
        "the files it left"
    );
}

/// A log that is open on a subject, and what to open it with again.
pub struct Session<'a> {
    subject: &'a dyn Subject,
    first: Settings,
    options: Options,
    log: Option<Box<dyn Engine>>,
}

impl<'a> Session<'a> {
    /// Opens the subject's log.
    ///
    /// # Panics
    ///
    /// It does not open.
    pub fn open(subject: &'a dyn Subject, first: Settings) -> Self {
        let options = first.options();
        let log = subject
            .open(Mode::Write, options.clone())
            .expect("the log opens");
        Self {
            subject,
            first,
            options,
            log: Some(log),
        }
    }

    /// Does one operation and gives its outcome as a vector would say it.
    ///
    /// # Errors
    ///
    /// The operation's.
    pub fn perform(&mut self, operation: &Operation) -> Result<Option<Value>> {
        if let Operation::Reopen(settings) = operation {
            if let Some(log) = self.log.take() {
                log.close()?;
            }
            self.options = settings.or(self.first).options();
            self.log = Some(self.subject.open(Mode::Write, self.options.clone())?);
            return Ok(None);
        }
        let log = self
            .log
            .as_deref()
            .expect("an open log: the last reopen failed");
        Ok(match operation {
            Operation::Reopen(_) => None,
            Operation::Append(record) => {
                let offsets = append(log, std::slice::from_ref(record), AppendOptions::new())?;
                assert_eq!(offsets.start.next(), offsets.end, "one record, one offset");
                some(Number::from(offsets.start))
            }
            Operation::AppendBatch(records) => {
                let offsets = append(log, records, AppendOptions::new())?;
                some([Number::from(offsets.start), Number::from(offsets.end)])
            }
            Operation::AppendExpecting {
                expected_next_offset,
                records,
            } => {
                let options = AppendOptions::new().expected_next_offset(expected_next_offset.0);
                let offsets = append(log, records, options)?;
                some([Number::from(offsets.start), Number::from(offsets.end)])
            }
            Operation::ProducerLast(id) => {
                let last = log.producer_last(&id.0)?;
                some(last.map_or(Vec::new(), |last| {
                    vec![Number(last.sequence), Number::from(last.offset)]
                }))
            }
            Operation::Read(offset) => {
                let record = log.read(Offset(offset.0))?;
                assert_eq!(record.offset().0, offset.0, "the record asked for");
                some(RecordRead::from(&record))
            }
            Operation::ReadBatch { from, bytes_max } => {
                some(read_batch(log, Offset(from.0), *bytes_max)?)
            }
            Operation::Scan { from, to } => {
                let records = scan(log, *from, *to, 1 << 20)?;
                // Blocks of every size hold the same records.
                for bytes_max in [0, 100] {
                    assert_eq!(json!(records), json!(scan(log, *from, *to, bytes_max)?));
                }
                let to_error = records
                    .iter()
                    .position(|record| record.get("fails").is_some());
                let up_to_error = &records[..to_error.map_or(records.len(), |at| at + 1)];
                assert_eq!(up_to_error, scan_up_to_error(log, *from, *to));
                some(records)
            }
            Operation::TruncateBefore(offset) => nothing(log.truncate_before(Offset(offset.0))?),
            Operation::TruncateAfter(offset) => nothing(log.truncate_after(Offset(offset.0))?),
            Operation::Reset => nothing(log.reset()?),
            Operation::Sync => nothing(log.sync()?),
            Operation::LowestOffset => some(Number::from(log.lowest_offset()?)),
            Operation::NextOffset => some(Number::from(log.next_offset()?)),
            Operation::DurableOffset => some(Number::from(log.durable_offset()?)),
            Operation::Locate(offset) => {
                let location = log.locate(Offset(offset.0))?;
                some([Number::from(location.segment), Number(location.position)])
            }
            Operation::Segments => {
                let summary = |s: &proglog::SegmentSummary| {
                    [s.base.into(), s.next.into(), Number(s.store_bytes)]
                };
                some(log.segments()?.iter().map(summary).collect::<Vec<_>>())
            }
            Operation::Verify => {
                let report = log.verify()?;
                let unchecked: u64 = report
                    .segments
                    .iter()
                    .map(|segment| segment.unchecked_records)
                    .sum();
                some(
                    json!({"sound": report.is_sound(), "records": report.records(), "unchecked": unchecked}),
                )
            }
        })
    }

    /// Closes the log. Then opening it once more, to read and to write, must change neither a file
    /// nor what it holds.
    ///
    /// # Panics
    ///
    /// It does.
    pub fn finish(self) {
        let Some(log) = self.log else { return };
        let held = contents(&*log);
        log.close().expect("the log closes");
        let files = self.subject.files();
        for mode in [Mode::Read, Mode::Write] {
            let log = self
                .subject
                .open(mode, self.options.clone())
                .expect("a closed log opens");
            assert_eq!(
                held,
                contents(&*log),
                "what a log opened again holds ({mode:?})"
            );
            log.close().expect("the log closes");
            assert_same_files(
                &files,
                &self.subject.files(),
                "opening and closing changes no file",
            );
        }
    }
}

/// All that a log holds, as a vector would say it.
///
/// # Panics
///
/// It cannot be read.
pub fn contents(log: &dyn Engine) -> Value {
    let (lowest, next) = (
        log.lowest_offset().expect("the lowest"),
        log.next_offset().expect("the next"),
    );
    let records = scan(log, lowest.into(), next.into(), 1 << 20).expect("a scan");
    json!({"lowest": Number::from(lowest), "next": Number::from(next), "records": records})
}

/// Fails with the names of the files that differ.
///
/// # Panics
///
/// They differ.
pub fn assert_same_files(left: &Files, right: &Files, what: &str) {
    let told = |files: &Files| {
        json!(
            files
                .iter()
                .map(|(name, bytes)| (name, FileBytes::of(bytes)))
                .collect::<Vec<_>>()
        )
    };
    assert!(
        left == right,
        "{what}\n left: {}\nright: {}",
        told(left),
        told(right)
    );
}

fn append(
    log: &dyn Engine,
    records: &[RecordToAppend],
    options: AppendOptions,
) -> Result<std::ops::Range<Offset>> {
    let headers: Vec<_> = records.iter().map(RecordToAppend::headers).collect();
    let borrowed: Vec<_> = records
        .iter()
        .zip(&headers)
        .map(|(record, headers)| record.borrowed(headers))
        .collect();
    log.append_batch_with(&borrowed, options)
}

fn read_batch(log: &dyn Engine, from: Offset, bytes_max: usize) -> Result<Vec<Value>> {
    let records = log
        .read_batch(from, bytes_max)?
        .map(|record| record.expect("a sound frame"));
    Ok(records
        .map(|record| json!(RecordRead::from(&record)))
        .collect())
}

fn scan(log: &dyn Engine, from: Number, to: Number, bytes_max: usize) -> Result<Vec<Value>> {
    let mut records = Vec::new();
    let mut at = Offset(from.0);
    while at.0 < to.0 {
        match read_batch(log, at, bytes_max) {
            Ok(batch) if batch.is_empty() => break,
            Ok(batch) => {
                at = at.plus(batch.len() as u64);
                records.extend(batch);
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                records.push(json!({"offset": Number::from(at), "fails": kind_name(error.kind())}));
                at = at.next();
            }
            Err(error) => return Err(error),
        }
    }
    records.truncate(usize::try_from(to.0.saturating_sub(from.0)).unwrap_or(usize::MAX));
    Ok(records)
}

/// What the engine's own scan gives.
fn scan_up_to_error(log: &dyn Engine, from: Number, to: Number) -> Vec<Value> {
    let count = usize::try_from(to.0.saturating_sub(from.0)).unwrap_or(usize::MAX);
    let offsets = (from.0..).map(Offset);
    let records = log.scan(Offset(from.0)).take(count).zip(offsets);
    let told = records.map(|(record, at)| match record {
        Ok(record) => {
            assert_eq!(record.offset(), at, "one record after the other");
            json!(RecordRead::from(&record))
        }
        Err(error) => json!({"offset": Number::from(at), "fails": kind_name(error.kind())}),
    });
    told.collect()
}

#[expect(clippy::unnecessary_wraps, reason = "an arm like the others")]
fn some(outcome: impl Serialize) -> Option<Value> {
    Some(json!(outcome))
}

fn nothing((): ()) -> Option<Value> {
    None
}
