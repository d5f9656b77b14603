//! Opening the log in a directory that the command line names.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use proglog::{Backend, FsBackend, Log, Offset, Options, Report};
use proglog_host::{Engine, EngineKind, ErrorKind, Mode, open};

use super::{
    failure::Failure,
    text::{count, note},
};

/// Opens a log to read, beside a writer too.
pub(crate) fn open_to_read(kind: EngineKind, directory: &Path) -> Result<Box<dyn Engine>, Failure> {
    require_directory(directory)?;
    open(kind, directory, Mode::Read, Options::new()).map_err(|error| match error.kind() {
        // The options make sense, so that it can be nothing else.
        ErrorKind::InvalidArgument => Failure::no_log(directory),
        _ => error.into(),
    })
}

/// Looks whether there is a directory to read.
pub(crate) fn require_directory(directory: &Path) -> Result<(), Failure> {
    match fs::metadata(directory) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(not_a_directory(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::no_log(directory)),
        Err(error) => Err(Failure::io("open", directory, &error)),
    }
}

/// Looks whether there is a log, for a verb that makes none.
pub(crate) fn require_log(kind: EngineKind, directory: &Path) -> Result<(), Failure> {
    let opened = open_to_read(kind, directory);
    let opened = opened.map_err(|failure| failure.of_work_on(directory));
    Ok(opened?.close()?)
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

/// A directory before a log is opened there, which may be the first.
pub(crate) struct Place {
    directory: PathBuf,
    names: Vec<String>,
    /// Of this directory and those that it is in, which are to be made; it first.
    missing: Vec<PathBuf>,
}

impl Place {
    pub(crate) fn before(directory: &Path) -> Self {
        let files = FsBackend::open_read_only(directory).ok();
        let names = files.and_then(|files| files.list().ok());
        let above = directory.ancestors();
        let above = above.filter(|path| !path.as_os_str().is_empty());
        let missing = above.take_while(|path| !path.exists());
        Self {
            directory: directory.to_owned(),
            names: names.unwrap_or_default(),
            missing: missing.map(Path::to_owned).collect(),
        }
    }

    /// After a failure, once the log is closed: takes an empty log away again that was made since.
    pub(crate) fn restore(&self) {
        let had_log = self.names.iter().any(|name| is_of_segment(name));
        if had_log || !self.directory.is_dir() {
            return;
        }
        // Under its lock: if another writer was faster, the log is that one's.
        let Ok(files) = FsBackend::open(&self.directory) else {
            return;
        };
        let names = files.list().unwrap_or_default();
        let made: Vec<&String> = names.iter().filter(|name| is_of_segment(name)).collect();
        let bytes =
            |name: &String| fs::metadata(self.directory.join(name)).map(|found| found.len());
        if made.iter().any(|name| !matches!(bytes(name), Ok(0))) {
            return;
        }
        for name in made {
            let _ = files.remove(name);
        }
        for directory in &self.missing {
            // Only if nothing is in it.
            let _ = fs::remove_dir(directory);
        }
    }
}

/// The base offset in the name of a store or an index, in decimal and not padded.
pub(crate) fn base_in_name(name: &str, suffix: &str) -> Option<Offset> {
    let base: u64 = name.strip_suffix(suffix)?.parse().ok()?;
    (name == format!("{base}{suffix}")).then_some(Offset(base))
}

fn is_of_segment(name: &str) -> bool {
    let base = base_in_name(name, ".store");
    base.or_else(|| base_in_name(name, ".index")).is_some()
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
