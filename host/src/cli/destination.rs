//! Places for copies of a log.

use std::path::Path;

use proglog::{Log, Options, Unfinished};
use proglog_host::ErrorKind;

use super::failure::Failure;

/// Copies a log, as it is at one moment, to a place of which the library requires the same as of [`begin`]'s.
pub(crate) fn snapshot(source: &Path, destination: &Path) -> Result<(), Failure> {
    let log = Log::open_read_only(source, Options::new());
    told(log.and_then(|log| log.snapshot(destination))).map(|_| ())
}

/// Begins a copy of a log that is made by other means.
pub(crate) fn begin(source: &Path, destination: &Path) -> Result<Unfinished, Failure> {
    told(Unfinished::begin(source, destination))
}

/// What the library cannot take for a place is told as that.
fn told<T>(copied: proglog::Result<T>) -> Result<T, Failure> {
    let copied = copied.map_err(proglog_host::Error::from);
    copied.map_err(|error| match error.kind() {
        ErrorKind::InvalidArgument => Failure::new("exists", error.to_string()),
        _ => Failure::from(error),
    })
}
