//! The one directory that a guest sees, and what it may do there.
//!
//! Under wasip1 a guest has no lock and cannot sync a directory. Here the host does both: it holds the
//! directory's lock as long as a log is open for writing, and a file that the guest makes, renames or removes
//! is so on stable storage when the call returns to it.

use std::{
    any::Any,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use proglog::{Backend, FsBackend};
use wasi_common::{
    Error, ErrorExt, WasiDir,
    dir::{OpenResult, ReaddirCursor, ReaddirEntity},
    file::{FdFlags, FileType, Filestat, OFlags},
    snapshots::preview_1::types::Errno,
    sync::{Dir, ambient_authority, dir::Dir as Files},
};

use super::files::OpenFile;
use crate::{ErrorKind, Mode, Result};

/// A directory for a guest: regular files by their plain names, no links, no directories, and in
/// [`Mode::Read`] nothing that writes.
#[derive(Clone)]
pub(super) struct Sandbox {
    shared: Arc<Shared>,
}

struct Shared {
    mode: Mode,
    /// For what the guest cannot do; open for writing it holds the lock.
    host: FsBackend,
    entries: Dir,
    files: Files,
    /// The names as they were when the guest began to list them.
    listing: Mutex<Vec<ReaddirEntity>>,
    /// The file that was opened last, until it is fetched.
    opened: Mutex<Option<OpenFile>>,
    /// How much was read of its files.
    bytes_read: Arc<AtomicU64>,
    /// How often a file got a name in it that was not there.
    names_made: AtomicU64,
}

/// A file takes as long as so many bytes, however few it has: it is opened, and perhaps written anew and synced.
const FILE_BYTES_MIN: u64 = 1 << 20;

impl Sandbox {
    /// In [`Mode::Write`] the directory is made if it is missing, and locked.
    pub(super) fn open(directory: &Path, mode: Mode) -> Result<Self> {
        let host = match mode {
            Mode::Write => FsBackend::open(directory)?,
            Mode::Read => FsBackend::open_read_only(directory)?,
        };
        let open = || Dir::open_ambient_dir(directory, ambient_authority());
        let (entries, files) = open()
            .and_then(|entries| Ok((entries.try_clone()?, entries)))
            .map_err(|e| {
                let name = directory.display();
                crate::Error::new(
                    ErrorKind::Io,
                    format!("could not open directory {name}: {e}"),
                )
            })?;
        let files = Files::from_cap_std(files);
        let listing = Mutex::default();
        Ok(Self {
            shared: Arc::new(Shared {
                mode,
                host,
                entries,
                files,
                listing,
                opened: Mutex::default(),
                bytes_read: Arc::default(),
                names_made: AtomicU64::default(),
            }),
        })
    }

    /// The file that was opened last, once.
    pub(super) fn take_opened(&self) -> Option<OpenFile> {
        self.shared.opened().take()
    }

    /// How many bytes guests have read of the files in it.
    pub(super) fn bytes_read(&self) -> u64 {
        self.shared.bytes_read.load(Relaxed)
    }

    /// How often guests have made a file in it, or given one another name. A log does so for a new segment, and no
    /// append without one.
    pub(super) fn names_made(&self) -> u64 {
        self.shared.names_made.load(Relaxed)
    }

    /// How many bytes the files in it have, where a small one counts for more.
    pub(super) fn bytes(&self) -> u64 {
        let entries = self
            .shared
            .entries
            .entries()
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| Some(entry.metadata().ok()?.len().max(FILE_BYTES_MIN)))
            .sum()
    }
}

impl Shared {
    fn may_write(&self) -> Result<(), Error> {
        if self.mode == Mode::Write {
            Ok(())
        } else {
            Err(Errno::Rofs.into())
        }
    }

    fn opened(&self) -> MutexGuard<'_, Option<OpenFile>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync_directory(&self) -> Result<(), Error> {
        self.host.sync_directory().map_err(|e| for_guest(e.into()))
    }

    fn list(&self) -> Result<Vec<ReaddirEntity>, Error> {
        let directories = [".", ".."].map(|name| (name.to_owned(), FileType::Directory));
        let mut names = Vec::from(directories);
        for entry in self.entries.entries()? {
            let entry = entry?;
            let file_type = match entry.file_type()? {
                it if it.is_file() => FileType::RegularFile,
                it if it.is_dir() => FileType::Directory,
                it if it.is_symlink() => FileType::SymbolicLink,
                _ => FileType::Unknown,
            };
            // A name that is not Unicode cannot be told to the guest, and is none of a log's.
            names.extend(
                entry
                    .file_name()
                    .into_string()
                    .ok()
                    .map(|name| (name, file_type)),
            );
        }
        let entities = names
            .into_iter()
            .zip(1..)
            .map(|((name, filetype), number)| ReaddirEntity {
                next: ReaddirCursor::from(number),
                // The guest does not ask for it, but 0 would have its library look it up, file by file.
                inode: number,
                name,
                filetype,
            });
        Ok(entities.collect())
    }
}

#[async_trait::async_trait]
impl WasiDir for Sandbox {
    fn as_any(&self) -> &dyn Any {
        self
    }

    async fn open_file(
        &self,
        _symlink_follow: bool,
        path: &str,
        oflags: OFlags,
        read: bool,
        write: bool,
        fdflags: FdFlags,
    ) -> Result<OpenResult, Error> {
        let shared = &*self.shared;
        let makes = oflags.contains(OFlags::CREATE);
        let writes = write || makes || oflags.contains(OFlags::TRUNCATE);
        if path == "." {
            // To list it.
            return if writes {
                Err(Errno::Isdir.into())
            } else {
                Ok(OpenResult::Dir(Box::new(self.clone())))
            };
        }
        require_plain(path)?;
        if writes {
            shared.may_write()?;
        }
        // Opening must not wait, as it would for a pipe, nor lead elsewhere, as a link would.
        let is_there = match shared.files.get_path_filestat(path, false).await {
            Ok(stat) if stat.filetype == FileType::RegularFile => true,
            Ok(_) => return Err(Error::invalid_argument().context("not a regular file")),
            Err(e) if is_not_found(&e) && makes => false,
            Err(e) => return Err(for_guest(e)),
        };
        let oflags = match is_there {
            true if oflags.contains(OFlags::EXCLUSIVE) => return Err(Error::exist()),
            true => oflags - OFlags::CREATE,
            false => oflags | OFlags::EXCLUSIVE,
        };
        let opened = shared
            .files
            .open_file(false, path, oflags, read, write, fdflags)
            .await
            .map_err(for_guest)?;
        if !is_there {
            shared.names_made.fetch_add(1, Relaxed);
            shared.sync_directory()?;
        }
        match opened {
            OpenResult::File(file) => {
                *shared.opened() = OpenFile::of(&*file, read, write, &shared.bytes_read);
                Ok(OpenResult::File(file))
            }
            OpenResult::Dir(_) => Err(Error::invalid_argument().context("not a regular file")),
        }
    }

    async fn readdir(
        &self,
        cursor: ReaddirCursor,
    ) -> Result<Box<dyn Iterator<Item = Result<ReaddirEntity, Error>> + Send>, Error> {
        let listed = usize::try_from(u64::from(cursor)).unwrap_or(usize::MAX);
        let mut listing = self
            .shared
            .listing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if listed == 0 {
            *listing = self.shared.list().map_err(for_guest)?;
        }
        // The guest takes a buffer's worth of them and calls again.
        const ENTITIES_MAX: usize = 4096;
        let rest = listing
            .iter()
            .skip(listed)
            .take(ENTITIES_MAX)
            .cloned()
            .map(Ok)
            .collect::<Vec<_>>();
        Ok(Box::new(rest.into_iter()))
    }

    async fn unlink_file(&self, path: &str) -> Result<(), Error> {
        require_plain(path)?;
        self.shared.may_write()?;
        self.shared
            .files
            .unlink_file(path)
            .await
            .map_err(for_guest)?;
        self.shared.sync_directory()
    }

    async fn rename(&self, from: &str, to_dir: &dyn WasiDir, to: &str) -> Result<(), Error> {
        require_plain(from)?;
        require_plain(to)?;
        let shared = &*self.shared;
        shared.may_write()?;
        // There is no other directory that the guest could have.
        if !to_dir.as_any().is::<Self>() {
            return Err(Errno::Notcapable.into());
        }
        for path in [from, to] {
            match shared.files.get_path_filestat(path, false).await {
                Ok(stat) if stat.filetype == FileType::RegularFile => {}
                Ok(_) => return Err(Error::invalid_argument().context("not a regular file")),
                Err(e) if is_not_found(&e) && path == to => {}
                Err(e) => return Err(for_guest(e)),
            }
        }
        let renamed = shared.files.rename_(from, &shared.files, to);
        renamed.map_err(for_guest)?;
        shared.names_made.fetch_add(1, Relaxed);
        shared.sync_directory()
    }

    async fn get_filestat(&self) -> Result<Filestat, Error> {
        self.shared.files.get_filestat().await.map_err(for_guest)
    }

    async fn get_path_filestat(&self, path: &str, _follow: bool) -> Result<Filestat, Error> {
        if path == "." {
            return self.get_filestat().await;
        }
        require_plain(path)?;
        self.shared
            .files
            .get_path_filestat(path, false)
            .await
            .map_err(for_guest)
    }
}

/// Refuses a path that is not the plain name of something in the directory.
fn require_plain(path: &str) -> Result<(), Error> {
    let plain = !matches!(path, "" | "." | "..") && !path.contains(['/', '\\', '\0']);
    if plain {
        Ok(())
    } else {
        Err(Errno::Notcapable.into())
    }
}

/// An error that the guest's library has a number for: others would end the guest.
pub(super) fn for_guest(error: Error) -> Error {
    match error.downcast() {
        Ok(errno) => errno.into(),
        Err(other) => match other.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ReadOnlyFilesystem) => Errno::Rofs.into(),
            _ => Errno::Io.into(),
        },
    }
}

fn is_not_found(error: &Error) -> bool {
    matches!(error.downcast_ref(), Some(Errno::Noent))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;
    use wiggle::run_in_dummy_executor as run;

    use super::*;

    fn sandbox(mode: Mode) -> (TempDir, Sandbox) {
        let directory = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::open(directory.path(), mode).unwrap();
        (directory, sandbox)
    }

    fn open(sandbox: &Sandbox, path: &str, oflags: OFlags, write: bool) -> Result<(), Errno> {
        errno(run(sandbox.open_file(true, path, oflags, true, write, FdFlags::empty())).unwrap())
    }

    fn errno<T>(result: Result<T, Error>) -> Result<(), Errno> {
        result
            .map(drop)
            .map_err(|error| error.downcast().expect("an error that the guest is told"))
    }

    fn names(sandbox: &Sandbox) -> Vec<String> {
        let entries = run(sandbox.readdir(ReaddirCursor::from(0)))
            .unwrap()
            .ok()
            .unwrap();
        let mut names = entries
            .map(|entry| entry.ok().unwrap().name)
            .collect::<Vec<_>>();
        names.sort();
        names
    }

    #[test]
    fn only_plain_names_are_taken() {
        let (directory, sandbox) = sandbox(Mode::Write);
        let outside = directory.path().with_extension("outside");
        fs::write(&outside, "secret").unwrap();
        let outside_name = outside.file_name().unwrap().to_str().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        fs::write(directory.path().join("sub/file"), "").unwrap();
        let paths = [
            format!("../{outside_name}"),
            outside.to_str().unwrap().to_owned(),
            "..".to_owned(),
            String::new(),
            "sub/file".to_owned(),
            "./0.store".to_owned(),
            "0.store/".to_owned(),
            "a\\b".to_owned(),
            "a\0b".to_owned(),
        ];
        for path in &paths {
            for oflags in [OFlags::empty(), OFlags::CREATE] {
                assert_eq!(
                    open(&sandbox, path, oflags, true),
                    Err(Errno::Notcapable),
                    "{path}"
                );
            }
            let stat = errno(run(sandbox.get_path_filestat(path, true)).unwrap());
            assert_eq!(stat, Err(Errno::Notcapable), "{path}");
            let removed = errno(run(sandbox.unlink_file(path)).unwrap());
            assert_eq!(removed, Err(Errno::Notcapable), "{path}");
        }
        assert_eq!(fs::read(&outside).unwrap(), b"secret");
        fs::remove_file(outside).unwrap();
    }

    #[test]
    fn only_regular_files_are_opened() {
        let (directory, sandbox) = sandbox(Mode::Write);
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        fs::create_dir(directory.path().join("0.store")).unwrap();
        assert_eq!(
            open(&sandbox, "0.store", OFlags::empty(), false),
            Err(Errno::Inval)
        );
        #[cfg(unix)]
        {
            let link = directory.path().join("link");
            std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
            assert_eq!(
                open(&sandbox, "link", OFlags::empty(), false),
                Err(Errno::Inval)
            );
            assert_eq!(
                open(&sandbox, "link", OFlags::CREATE, true),
                Err(Errno::Inval)
            );
            let dangling = directory.path().join("dangling");
            std::os::unix::fs::symlink(elsewhere.path().with_extension("made"), dangling).unwrap();
            assert_eq!(
                open(&sandbox, "dangling", OFlags::CREATE, true),
                Err(Errno::Inval)
            );
            let socket = directory.path().join("socket");
            let _listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
            assert_eq!(
                open(&sandbox, "socket", OFlags::empty(), false),
                Err(Errno::Inval)
            );
            assert!(!elsewhere.path().with_extension("made").exists());
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_listed_as_what_it_is_and_not_opened() {
        let (directory, sandbox) = sandbox(Mode::Write);
        let path = |name| directory.path().join(name);
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        fs::write(path("0.store"), "").unwrap();
        fs::create_dir(path("1.store")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), path("2.store")).unwrap();
        std::os::unix::fs::symlink(path("nowhere"), path("3.store")).unwrap();
        let mkfifo = std::process::Command::new("mkfifo")
            .arg(path("4.store"))
            .status();
        assert!(mkfifo.unwrap().success());

        let types = [
            ("0.store", FileType::RegularFile),
            ("1.store", FileType::Directory),
            ("2.store", FileType::SymbolicLink),
            ("3.store", FileType::SymbolicLink),
            // WASI has no word for a pipe.
            ("4.store", FileType::Unknown),
        ];
        let entries = run(sandbox.readdir(ReaddirCursor::from(0)))
            .unwrap()
            .ok()
            .unwrap();
        let mut listed = entries
            .map(|entry| entry.ok().unwrap())
            .map(|entry| (entry.name, entry.filetype))
            .collect::<Vec<_>>();
        listed.sort_by(|a, b| a.0.cmp(&b.0));
        let expected = types.map(|(name, filetype)| (name.to_owned(), filetype));
        assert_eq!(listed[2..], expected);

        for (name, filetype) in types {
            for follow in [false, true] {
                let stat = run(sandbox.get_path_filestat(name, follow)).unwrap();
                assert_eq!(stat.ok().unwrap().filetype, filetype, "{name}");
            }
            if filetype == FileType::RegularFile {
                continue;
            }
            // Opening a pipe would wait for who opens its other end.
            for (oflags, write) in [
                (OFlags::empty(), false),
                (OFlags::empty(), true),
                (OFlags::CREATE, true),
                (OFlags::TRUNCATE, true),
                (OFlags::DIRECTORY, false),
            ] {
                assert_eq!(
                    open(&sandbox, name, oflags, write),
                    Err(Errno::Inval),
                    "{name} with {oflags:?}"
                );
            }
        }
        assert!(!path("nowhere").exists());
    }

    #[test]
    fn the_directory_opens_as_itself_and_is_listed() {
        let (directory, sandbox) = sandbox(Mode::Write);
        open(&sandbox, "0.store", OFlags::CREATE, true).unwrap();
        let opened = sandbox.open_file(true, ".", OFlags::DIRECTORY, true, false, FdFlags::empty());
        let Ok(OpenResult::Dir(listed)) = run(opened).unwrap() else {
            panic!("no directory")
        };
        let escape = listed.open_file(true, "../x", OFlags::CREATE, true, true, FdFlags::empty());
        assert_eq!(errno(run(escape).unwrap()), Err(Errno::Notcapable));
        assert_eq!(names(&sandbox), [".", "..", "0.store"]);
        assert_eq!(open(&sandbox, ".", OFlags::CREATE, true), Err(Errno::Isdir));

        // A listing goes on where it was, whatever came and went since.
        let rest = run(listed.readdir(ReaddirCursor::from(2)))
            .unwrap()
            .ok()
            .unwrap();
        fs::remove_file(directory.path().join("0.store")).unwrap();
        assert_eq!(rest.count(), 1);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_name_that_is_no_text_is_no_obstacle() {
        use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

        let (directory, sandbox) = sandbox(Mode::Write);
        fs::write(directory.path().join(OsStr::from_bytes(b"\xff.store")), "").unwrap();
        open(&sandbox, "0.store", OFlags::CREATE, true).unwrap();
        assert_eq!(names(&sandbox), [".", "..", "0.store"]);
    }

    #[test]
    fn files_are_made_and_removed_only_to_write() {
        let (directory, sandbox) = sandbox(Mode::Write);
        open(&sandbox, "0.store", OFlags::CREATE, true).unwrap();
        open(&sandbox, "0.store", OFlags::CREATE, true).unwrap();
        let exclusive = OFlags::CREATE | OFlags::EXCLUSIVE;
        assert_eq!(
            open(&sandbox, "0.store", exclusive, true),
            Err(Errno::Exist)
        );
        assert_eq!(
            open(&sandbox, "1.store", OFlags::empty(), true),
            Err(Errno::Noent)
        );

        let reader = Sandbox::open(directory.path(), Mode::Read).unwrap();
        assert_eq!(open(&reader, "0.store", OFlags::empty(), false), Ok(()));
        assert_eq!(
            open(&reader, "0.store", OFlags::empty(), true),
            Err(Errno::Rofs)
        );
        assert_eq!(
            open(&reader, "0.store", OFlags::TRUNCATE, false),
            Err(Errno::Rofs)
        );
        assert_eq!(
            open(&reader, "1.store", OFlags::CREATE, false),
            Err(Errno::Rofs)
        );
        assert_eq!(
            errno(run(reader.unlink_file("0.store")).unwrap()),
            Err(Errno::Rofs)
        );
        assert_eq!(
            errno(run(reader.create_dir("d")).unwrap()),
            Err(Errno::Notsup)
        );
        assert_eq!(names(&reader), [".", "..", "0.store"]);

        assert_eq!(errno(run(sandbox.unlink_file("0.store")).unwrap()), Ok(()));
        assert_eq!(
            errno(run(sandbox.unlink_file("0.store")).unwrap()),
            Err(Errno::Noent)
        );
        assert_eq!(
            errno(run(sandbox.create_dir("d")).unwrap()),
            Err(Errno::Notsup)
        );
        assert_eq!(names(&sandbox), [".", ".."]);
    }

    #[test]
    fn only_regular_files_are_renamed_and_only_here_to_write() {
        let (directory, sandbox) = sandbox(Mode::Write);
        let rename = |sandbox: &Sandbox, from: &str, to: &str| {
            errno(run(sandbox.rename(from, sandbox, to)).unwrap())
        };
        fs::write(directory.path().join("0.store.cut"), "short").unwrap();
        fs::write(directory.path().join("0.store"), "long").unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();

        let reader = Sandbox::open(directory.path(), Mode::Read).unwrap();
        assert_eq!(rename(&reader, "0.store", "1.store"), Err(Errno::Rofs));
        for (from, to) in [("0.store", "../x"), ("0.store", "sub/x"), ("../x", "x")] {
            assert_eq!(rename(&sandbox, from, to), Err(Errno::Notcapable));
        }
        assert_eq!(rename(&sandbox, "sub", "x"), Err(Errno::Inval));
        assert_eq!(rename(&sandbox, "0.store", "sub"), Err(Errno::Inval));
        assert_eq!(rename(&sandbox, "1.store", "0.store"), Err(Errno::Noent));

        assert_eq!(rename(&sandbox, "0.store.cut", "0.store"), Ok(()));
        assert_eq!(names(&sandbox), [".", "..", "0.store", "sub"]);
        let bytes = fs::read(directory.path().join("0.store")).unwrap();
        assert_eq!(bytes, b"short");
    }

    /// A directory that was moved away can still be written through its handle, but not synced by its
    /// name: so what needs a sync fails, and what does not, does not.
    #[cfg(unix)]
    #[test]
    fn making_and_removing_a_file_syncs_the_directory() {
        let (directory, sandbox) = sandbox(Mode::Write);
        open(&sandbox, "0.store", OFlags::CREATE, true).unwrap();
        let moved = directory.path().with_extension("moved");
        fs::rename(directory.path(), &moved).unwrap();
        assert_eq!(open(&sandbox, "0.store", OFlags::CREATE, true), Ok(()));
        assert_eq!(
            open(&sandbox, "0.index", OFlags::CREATE, true),
            Err(Errno::Noent)
        );
        assert_eq!(
            errno(run(sandbox.unlink_file("0.store")).unwrap()),
            Err(Errno::Noent)
        );
        fs::rename(&moved, directory.path()).unwrap();
        assert_eq!(open(&sandbox, "1.store", OFlags::CREATE, true), Ok(()));
    }
}
