//! What `proglog import` says of itself.

use std::ops::Range;

use proglog::Offset;
use proglog_host::{Error, ErrorKind, http::kind_name};
use serde_json::json;

use super::{
    super::{
        exchange::Stretch,
        failure::{Failure, in_flags},
        text::{count, print_json, print_report},
    },
    Format, Importer,
};

/// What was imported.
#[derive(Default)]
pub(super) struct Told {
    /// The first and the last record.
    imported: Option<Stretch>,
    records: u64,
}

impl Told {
    pub(super) fn add(&mut self, offsets: &Range<Offset>) {
        let first = self.imported.map_or(offsets.start, |before| before.first);
        let last = Offset(offsets.end.0 - 1);
        self.imported = Some(Stretch { first, last });
        self.records += offsets.end.since(offsets.start);
    }
}

impl Importer<'_> {
    pub(super) fn not_appended(&self, error: Error) -> Failure {
        match error.kind() {
            ErrorKind::TooLarge | ErrorKind::InvalidArgument => {
                let kind = kind_name(error.kind());
                self.refuse(kind, &format!("cannot be imported: {}", in_flags(&error)))
            }
            _ => Failure::from(error).context(&format!(
                "what was imported of {} may not be in the log; --resume goes on from what is",
                count(self.told.records, "record")
            )),
        }
    }

    pub(super) fn bad(&self, what: &str) -> Failure {
        let is_all = self.decoder.number() == 1 && self.import.format == Format::Ndjson;
        // As the first byte of a frame's length is none of JSON.
        let advice = if is_all && what.ends_with("at column 1") {
            "; if it was exported with --format binary, import it so"
        } else {
            ""
        };
        self.refuse(
            "bad_input",
            &format!("is no record to import: {what}{advice}"),
        )
    }

    /// Says what is wrong where in the input.
    pub(super) fn refuse(&self, kind: &'static str, what: &str) -> Failure {
        let (noun, number) = (self.import.format.noun(), self.decoder.number());
        let after = self.expected.and_then(|next| next.0.checked_sub(1));
        let after = after.map_or(String::new(), |last| format!(", after record {last},"));
        let message = format!("{noun} {number} of the input{after} {what}");
        self.with_advice(Failure::new(kind, message))
    }

    /// Says what was imported, and how to go on.
    pub(super) fn with_advice(&self, failure: Failure) -> Failure {
        match self.told.imported {
            None => failure.context("nothing was imported"),
            Some(Stretch { first, last }) => failure.context(&format!(
                "{first}..={last} were imported, and --resume goes on from {}",
                self.next
            )),
        }
    }

    pub(super) fn tell_summary(&self) -> Result<(), Failure> {
        let overlap = self.overlap.as_ref();
        let passed_over = overlap.map_or(0, |overlap| overlap.passed_over);
        let not_compared = overlap.map_or(0, |overlap| overlap.not_compared);
        if self.import.json {
            return print_json(&json!({
                "first": self.told.imported.map(|imported| imported.first),
                "last": self.told.imported.map(|imported| imported.last),
                "records": self.told.records,
                "absent": self.absent,
                "passed_over": passed_over,
                "not_compared": not_compared,
            }));
        }
        let imported = match self.told.imported {
            None => "imported nothing".to_owned(),
            Some(Stretch { first, last }) => format!(
                "imported {first}..={last} ({})",
                count(self.told.records, "record")
            ),
        };
        let absent = match self.absent {
            0 => String::new(),
            offsets => format!("; {} not there", count(offsets, "offset")),
        };
        let had = match passed_over - not_compared {
            0 => String::new(),
            records => format!("; the log had {}", count(records, "record")),
        };
        let below = match not_compared {
            0 => String::new(),
            records => format!(
                "; {} below its lowest offset, not compared",
                count(records, "record")
            ),
        };
        print_report(&format!("{imported}{absent}{had}{below}\n"))
    }
}
