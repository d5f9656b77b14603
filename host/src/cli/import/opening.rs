//! The log that is imported into.

use proglog::Offset;
use proglog_host::Engine;

use super::{
    super::{
        directory::{open_to_read, open_to_write},
        failure::Failure,
    },
    Importer, Overlap,
};

/// How far back a log looks for the timestamp that the next one may not be below.
const TIMESTAMPS_READ_MAX: u64 = 64;

impl Importer<'_> {
    /// Opens the log that is there, once, if it is one to import into.
    pub(super) fn begin(&mut self, first: Offset) -> Result<(), Failure> {
        if self.is_begun {
            return Ok(());
        }
        let (import, dir) = (self.import, self.import.dir.display());
        let may_exist = import.append || import.resume;
        if !self.has_log()? {
            (self.is_begun, self.next) = (true, first);
            return Ok(());
        }
        if !may_exist {
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
            first == next
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
        self.overlap = (first < next).then(|| Overlap::new(lowest, next, import.cut_batch));
        (self.is_begun, self.next) = (true, next);
        self.log = Some(log);
        Ok(())
    }

    /// Makes a new log, now that there is something to be in it.
    pub(super) fn make_log(&mut self) -> Result<(), Failure> {
        if self.log.is_none() {
            let import = self.import;
            let options = import.options(self.next);
            let log = open_to_write(import.engine.engine, &import.dir, options)?;
            let next = log.next_offset()?;
            if next != self.next {
                let expected = self.next;
                let what = format!(
                    "another writer was faster: the next record of the log is {next}, not {expected}"
                );
                return Err(Failure::new("out_of_place", what));
            }
            self.log = Some(log);
        }
        Ok(())
    }

    fn has_log(&self) -> Result<bool, Failure> {
        match open_to_read(self.import.engine.engine, &self.import.dir) {
            Ok(_) => Ok(true),
            Err(failure) if failure.is_not_found() => Ok(false),
            Err(failure) => Err(failure),
        }
    }
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
