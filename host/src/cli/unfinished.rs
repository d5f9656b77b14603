//! Copies of a log: a directory is made beside the place it is for, and takes it when all is in it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use proglog::{Log, Options};
use proglog_host::ErrorKind;

use super::failure::Failure;

/// Copies a log, as it is at one moment, to a place of which the library requires the same as [`Unfinished`] does.
pub(crate) fn snapshot(source: &Path, destination: &Path) -> Result<(), Failure> {
    let log = Log::open_read_only(source, Options::new());
    let copied = log.and_then(|log| log.snapshot(destination));
    let copied = copied.map_err(proglog_host::Error::from);
    copied.map(|_| ()).map_err(|error| match error.kind() {
        ErrorKind::InvalidArgument => Failure::new("exists", error.to_string()),
        _ => Failure::from(error),
    })
}

/// A directory `DEST.unfinished`, which becomes `DEST` when all is in it. Removed when dropped before.
pub(crate) struct Unfinished {
    directory: PathBuf,
    destination: PathBuf,
    is_finished: bool,
}

impl Unfinished {
    /// Makes it, unless something is in its place; that may be an empty directory.
    pub(crate) fn begin(source: &Path, destination: &Path) -> Result<Self, Failure> {
        let refuse = |what: &str| {
            let name = destination.display();
            Err(Failure::new("exists", format!("{name} {what}")))
        };
        match fs::read_dir(destination).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return refuse("is not empty; give a directory that is not there yet"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                return refuse("is a file; give a directory that is not there yet");
            }
            Err(error) => return Err(Failure::io("open", destination, &error)),
        }
        let Some(name) = destination.file_name() else {
            return refuse("has no name of its own; give one");
        };
        let mut name = name.to_owned();
        name.push(".unfinished");
        let (directory, parent) = (destination.with_file_name(name), parent_of(destination));
        // Before a directory is made there.
        let existing = parent.ancestors().find(|found| found.is_dir());
        let existing = existing.unwrap_or(Path::new("."));
        let is_within = || Ok(fs::canonicalize(existing)?.starts_with(fs::canonicalize(source)?));
        if is_within().map_err(|error| Failure::io("open", parent, &error))? {
            return refuse("is within the log; give a directory outside it");
        }
        fs::create_dir_all(parent)
            .map_err(|error| Failure::io("make directory", parent, &error))?;
        match fs::create_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let name = directory.display();
                return Err(Failure::new(
                    "exists",
                    format!(
                        "{name} is there, so another copy is being made, or one was stopped; remove it if none is"
                    ),
                ));
            }
            made => made.map_err(|error| Failure::io("make directory", &directory, &error))?,
        }
        Ok(Self {
            directory,
            destination: destination.to_owned(),
            is_finished: false,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.directory
    }

    /// Gives it its name, durably.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        // An empty directory is replaced, one that is not is none to replace.
        fs::rename(&self.directory, &self.destination)
            .map_err(|error| Failure::io("make directory", &self.destination, &error))?;
        self.is_finished = true;
        let parent = parent_of(&self.destination);
        if cfg!(unix) {
            let synced = File::open(parent).and_then(|parent| parent.sync_all());
            synced.map_err(|error| Failure::io("sync directory", parent, &error))?;
        }
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}
