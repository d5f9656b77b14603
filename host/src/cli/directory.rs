//! Opening the log in a directory that the command line names.

use std::{fs, io, path::Path};

use proglog::{Log, Options, Report};
use proglog_host::{Engine, EngineKind, ErrorKind, Mode, open};

use super::{
    failure::Failure,
    text::{count, note},
};

/// Opens a log to read, beside a writer too.
pub(crate) fn open_to_read(kind: EngineKind, directory: &Path) -> Result<Box<dyn Engine>, Failure> {
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(not_a_directory(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::no_log(directory));
        }
        Err(error) => return Err(Failure::io("open", directory, &error)),
    }
    open(kind, directory, Mode::Read, Options::new()).map_err(|error| match error.kind() {
        // The options make sense, so that it can be nothing else.
        ErrorKind::InvalidArgument => Failure::no_log(directory),
        _ => error.into(),
    })
}

/// Opens a log to append, making the directory if it is not there, and says on standard error what an
/// unclean stop or damage had to do with it.
pub(crate) fn open_to_write(
    kind: EngineKind,
    directory: &Path,
    options: Options,
) -> Result<Box<dyn Engine>, Failure> {
    refuse_file(directory)?;
    let log = open(kind, directory, Mode::Write, options).map_err(Failure::of_options)?;
    tell_recovery(directory, &log.recovery_report()?);
    Ok(log)
}

/// As [`open_to_write`], for what the native engine alone does.
pub(crate) fn open_natively_to_write(directory: &Path, options: Options) -> Result<Log, Failure> {
    refuse_file(directory)?;
    let log = Log::open(directory, options);
    let log = log.map_err(|error| Failure::of_options(error.into()))?;
    tell_recovery(directory, &log.recovery_report());
    Ok(log)
}

fn refuse_file(directory: &Path) -> Result<(), Failure> {
    if fs::metadata(directory).is_ok_and(|found| !found.is_dir()) {
        return Err(not_a_directory(directory));
    }
    Ok(())
}

fn not_a_directory(directory: &Path) -> Failure {
    let name = directory.display();
    Failure::new(
        "invalid_argument",
        format!("{name} is a file; give the directory that holds the log"),
    )
}

fn tell_recovery(directory: &Path, report: &Report) {
    if let Some(tail) = report.torn_tail() {
        let records = match tail.records {
            0 => String::new(),
            records => format!(", {} among them,", count(records, "whole record")),
        };
        note(&format!(
            "cut off {}{records} that an unclean stop left in segment {} after the last whole append",
            count(tail.bytes, "byte"),
            tail.segment
        ));
    }
    let stretches = report.damage().count();
    if stretches > 0 {
        let what = if stretches == 1 {
            "a stretch of the log is"
        } else {
            "stretches of the log are"
        };
        note(&format!(
            "{what} damaged; `proglog verify {}` lists what is lost",
            directory.display()
        ));
    }
}
