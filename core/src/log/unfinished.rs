//! A directory that gets its name when all is in it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    Backend, Error, FsBackend, Result,
    error::{Boxed, Thin},
};

/// A directory for a copy of a log, beside the place it is for: of the same name and `.unfinished`. It takes the place when
/// all is in it. Removed when dropped before.
///
/// # Example
///
/// ```
/// # let root = tempfile::tempdir()?;
/// # let (directory, copy) = (root.path().join("log"), root.path().join("copy"));
/// use proglog::{Log, Options, Unfinished};
/// let log = Log::open(&directory, Options::new())?;
/// log.append("a")?;
/// let unfinished = Unfinished::begin(&directory, &copy)?;
/// let half = Log::open(unfinished.path(), Options::new())?;
/// for record in log.scan(..) {
///     half.append(record?.value())?;
/// }
/// half.close()?;
/// assert!(!copy.exists());
/// unfinished.finish()?;
/// assert!(copy.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Unfinished {
    directory: PathBuf,
    destination: PathBuf,
    is_finished: bool,
}

impl Unfinished {
    /// Makes it, for a copy of the log in the directory `source`. The place may be an empty directory; those above it are
    /// made if they are not there.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] when something is in the place, it is a symbolic link or within the log's own directory, or there is such
    /// a directory already; [`Error::Io`].
    pub fn begin(source: impl AsRef<Path>, destination: impl AsRef<Path>) -> Result<Self> {
        let (source, destination) = (source.as_ref(), destination.as_ref());
        let refuse = |what: &str| {
            let name = destination.display();
            Err(Error::InvalidArgument(format!("{name} {what}")))
        };
        match fs::read_dir(destination).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return refuse("is not empty; give a directory that is not there yet"),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                return refuse("is a file; give a directory that is not there yet");
            }
            Err(e) => return Err(failed("open directory", destination, e).into()),
        }
        let Some(name) = destination.file_name() else {
            return refuse("has no name of its own; give one");
        };
        // Without what may come after the name, such as `/.`, which no directory can be renamed to.
        let place = destination.with_file_name(name);
        if place.is_symlink() {
            // Nor can one be to a link, wherever it leads.
            return refuse("is a symbolic link; give the directory itself");
        }
        let mut name = name.to_owned();
        name.push(".unfinished");
        let (directory, parent) = (place.with_file_name(name), parent_of(&place));
        // Before a directory is made there.
        let existing = parent.ancestors().find(|found| found.is_dir());
        let existing = existing.unwrap_or(Path::new("."));
        let real = |path| fs::canonicalize(path).map_err(|e| failed("open directory", path, e));
        if real(existing)?.starts_with(real(source)?) {
            return refuse("is within the log; give a directory outside it");
        }
        FsBackend::make_directory(parent)?;
        match fs::create_dir(&directory) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::InvalidArgument(format!(
                    "{} is there, so another copy is being made, or one was stopped; remove it if none is",
                    directory.display()
                )));
            }
            made => made.map_err(|e| failed("make directory", &directory, e))?,
        }
        Ok(Self {
            directory,
            destination: place,
            is_finished: false,
        })
    }

    /// Where it is until it is finished.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// Gives it its name, durably. The files in it are the caller's to sync.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], also when something is in the place by now.
    pub fn finish(mut self) -> Result<()> {
        // An empty directory is replaced, one that is not is none to replace.
        let renamed = fs::rename(&self.directory, &self.destination);
        renamed.map_err(|e| failed("make directory", &self.destination, e))?;
        self.is_finished = true;
        Ok(sync_directory(parent_of(&self.destination))?)
    }

    /// Removes what was put into it.
    pub(super) fn clear(&self) -> Thin<()> {
        let removed = (|| {
            for entry in fs::read_dir(&self.directory)? {
                fs::remove_file(entry?.path())?;
            }
            Ok(())
        })();
        removed.map_err(|e| failed("empty", &self.directory, e))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

pub(super) fn parent_of(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

pub(super) fn sync_directory(directory: &Path) -> Thin<()> {
    let backend = FsBackend::open_read_only(directory)?;
    let synced = backend.sync_directory();
    synced.map_err(|e| failed("sync directory", directory, e))
}

pub(super) fn failed(action: &'static str, path: &Path, e: io::Error) -> Boxed {
    Error::io(action, path.display().to_string(), e)
}
