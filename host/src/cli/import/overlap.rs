//! What `proglog import --resume` passes over: what the log has already, which is to be the same.

use proglog::{Gap, GapCause, Offset};
use proglog_host::{Engine, Error, ErrorKind};

use super::super::{
    exchange::{Carried, Stretch, continues},
    failure::Failure,
};

/// The input up to where the log ended when the import began, beside the log.
pub(super) struct Overlap {
    /// Where the log begins: what is below cannot be compared.
    lowest: Offset,
    /// Where it ends.
    end: Offset,
    /// Whether a batch of the input may be several in the log, as --cut-batch makes them.
    takes_parts: bool,
    batch: Option<Batch>,
    /// How many records were passed over.
    pub(super) passed_over: u64,
    /// How many of them lie below the lowest offset.
    pub(super) not_compared: u64,
    begins_below: bool,
    is_compared: bool,
}

/// Why the import cannot go on.
pub(super) enum Mismatch {
    /// The log has something else, in words.
    Differs(String),
    /// Nothing of the input is in the log, which begins here by now.
    NotComparable(Offset),
    Failed(Failure),
}

impl Overlap {
    pub(super) fn new(lowest: Offset, end: Offset, takes_parts: bool) -> Self {
        Self {
            lowest,
            end,
            takes_parts,
            batch: None,
            passed_over: 0,
            not_compared: 0,
            begins_below: false,
            is_compared: false,
        }
    }

    /// Whether the log has, or had, what comes at this offset.
    pub(super) fn reaches(&self, offset: Offset) -> bool {
        offset < self.end
    }

    /// A record that the log is to have.
    pub(super) fn pass_record(
        &mut self,
        log: &dyn Engine,
        record: &Carried,
    ) -> Result<(), Mismatch> {
        self.passed_over += 1;
        let found = if record.offset < self.lowest {
            self.not_compared += 1;
            self.begins_below = true;
            None
        } else {
            self.compare(log, record)?
        };
        let goes_on = |batch: &Batch| continues(&batch.last, batch.records, record);
        if !self.batch.as_ref().is_some_and(goes_on) {
            self.end_batch()?;
        }
        let batch = self.batch.get_or_insert_with(Batch::default);
        batch.add(record, found);
        if record.batch_remaining == 0 {
            self.end_batch()?;
        }
        Ok(())
    }

    /// How much of its batch follows in the log, and how many records that has; nothing if the record was compacted
    /// there.
    fn compare(
        &mut self,
        log: &dyn Engine,
        record: &Carried,
    ) -> Result<Option<(u32, u32)>, Mismatch> {
        let offset = record.offset;
        let found = match log.read(offset) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::Gap => {
                return match log.locate(offset)?.gap {
                    // It was there, if it was.
                    None => Ok(None),
                    Some(gap) if gap.cause == GapCause::Compacted => Ok(None),
                    Some(gap) => Err(Mismatch::Differs(format!(
                        "record {offset} {} in the log",
                        was(gap.cause)
                    ))),
                };
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(what) = record.difference(&found) {
            let what = format!("record {offset} has another {what} in the log");
            return Err(Mismatch::Differs(what));
        }
        self.is_compared = true;
        Ok(Some((found.batch_remaining(), found.batch_records())))
    }

    /// Offsets that are not there by word of the input, and are to be so in the log for the same cause.
    pub(super) fn pass_gap(&mut self, log: &dyn Engine, gap: Gap) -> Result<(), Mismatch> {
        self.end_batch()?;
        self.begins_below |= gap.first < self.lowest;
        let mut at = gap.first.max(self.lowest);
        while at <= gap.last && at < self.end {
            let Some(found) = log.locate(at)?.gap else {
                // If it is damaged, that is what to say.
                log.read(at)?;
                let was = was(gap.cause);
                let what = format!("the log has record {at}, which {was} by word of the input");
                return Err(Mismatch::Differs(what));
            };
            if found.cause != gap.cause {
                let (there, here) = (was(found.cause), was(gap.cause));
                let what = format!("record {at} {there} in the log, and {here} in the input");
                return Err(Mismatch::Differs(what));
            }
            self.is_compared = true;
            at = found.next();
        }
        Ok(())
    }

    /// Offsets from `from` to before `to`, which the input does not have. Those that the log has, from the first record
    /// on.
    pub(super) fn pass_left_out(
        &mut self,
        log: &dyn Engine,
        from: Offset,
        to: Offset,
    ) -> Result<Option<Stretch>, Mismatch> {
        self.end_batch()?;
        let (mut at, to) = (from.max(self.lowest), to.min(self.end));
        while at < to {
            match log.read(at) {
                Ok(_) => {
                    let last = Offset(to.0 - 1);
                    return Ok(Some(Stretch { first: at, last }));
                }
                Err(error) if error.kind() == ErrorKind::Gap => {
                    at = log.locate(at)?.gap.map_or(at.next(), |gap| gap.next());
                }
                // Nor has the log.
                Err(error) if error.kind() == ErrorKind::Corrupt => at = at.next(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    /// Before anything is imported, and at the end: whether this is the input that the log is of.
    pub(super) fn finish(&mut self) -> Result<(), Mismatch> {
        self.end_batch()?;
        if self.begins_below && !self.is_compared {
            return Err(Mismatch::NotComparable(self.lowest));
        }
        Ok(())
    }

    fn end_batch(&mut self) -> Result<(), Mismatch> {
        let batch = self.batch.take();
        batch.map_or(Ok(()), |batch| batch.end(self.takes_parts))
    }
}

/// A batch of the input, or what there is of it up to where the log ends, beside the records of the log.
#[derive(Default)]
struct Batch {
    /// How many records of it came, the last of them without its bytes.
    records: u64,
    last: Carried,
    /// Where the log first says something else of it.
    difference: Option<String>,
    parts: Parts,
}

impl Batch {
    /// Adds a record, and how much of its batch follows in the log and how many records that has, if it is there.
    fn add(&mut self, record: &Carried, found: Option<(u32, u32)>) {
        if let Some((remaining, records)) = found {
            self.parts.add(self.records, remaining, records);
            if found != Some((record.batch_remaining, record.batch_records)) {
                self.difference.get_or_insert_with(|| {
                    format!(
                        "record {} has batch_remaining {} and batch_records {}, and in the log {remaining} and {records}",
                        record.offset, record.batch_remaining, record.batch_records
                    )
                });
            }
        }
        self.records += 1;
        self.last = Carried {
            offset: record.offset,
            producer: record.producer.clone(),
            batch_remaining: record.batch_remaining,
            batch_records: record.batch_records,
            ..Carried::default()
        };
    }

    /// Whether the log has it as it is in the input, or as an import makes it of what there is of it.
    fn end(self, takes_parts: bool) -> Result<(), Mismatch> {
        let Some(what) = self.difference else {
            return Ok(());
        };
        let parts = self.parts;
        let is_within = parts.are_batches && parts.end < self.records;
        let is_made =
            is_within && parts.count == 1 && parts.is_whole && parts.end + 1 == self.records;
        if is_made || (is_within && takes_parts) {
            return Ok(());
        }
        Err(Mismatch::Differs(if is_within && parts.count > 1 {
            format!("{what}; if --cut-batch imported it so, give that again")
        } else {
            what
        }))
    }
}

/// The batches of the log among the records of one of the input, which are counted from 0 on.
struct Parts {
    count: u64,
    /// The first record and the last of the one that is looked at.
    start: u64,
    end: u64,
    /// Whether each goes as far as its records say, and none has more of them than it can.
    are_batches: bool,
    /// Whether those that ended have as many records as they say; others were compacted.
    is_whole: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            count: 0,
            start: 0,
            end: 0,
            are_batches: true,
            is_whole: true,
        }
    }
}

impl Parts {
    fn add(&mut self, at: u64, remaining: u32, records: u32) {
        let end = at + u64::from(remaining);
        if self.count == 0 || at > self.end {
            self.start = if self.count == 0 { 0 } else { self.end + 1 };
            self.count += 1;
            self.end = end;
        }
        self.are_batches &= end == self.end;
        if remaining == 0 {
            let (found, said) = (at - self.start + 1, u64::from(records));
            self.are_batches &= said.max(1) <= found;
            self.is_whole &= said == if found == 1 { 0 } else { found };
        }
    }
}

/// What a gap says of a record.
fn was(cause: GapCause) -> String {
    match cause {
        GapCause::Compacted => "was compacted".to_owned(),
        GapCause::Lost => "was lost".to_owned(),
        GapCause::Skipped => "was left out".to_owned(),
        other => other.to_string(),
    }
}

impl From<Error> for Mismatch {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}
