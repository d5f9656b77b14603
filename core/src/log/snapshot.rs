//! A copy of a log as it was at one moment, also while another process writes it.
//!
//! It is taken as a reader beside the writer would: see `FORMAT.md`, "Reading beside a writer". Stores of sealed
//! segments are linked, for nothing is written to them any more: who truncates replaces files, and who appends after
//! a truncation does not append to a store that has another name (`Segment::recover`). All else is copied.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    ops::Range,
    path::Path,
    sync::Arc,
};

use super::{
    Log, SegmentReader,
    follow::{Patience, may_pass},
    open::Listed,
    unfinished::{Unfinished, failed, parent_of, sync_directory},
    view::Slot,
};
use crate::{
    Access, Backend, Error, FsBackend, FsFile, GapCause, Offset, Options, Result,
    error::Thin,
    index::{ENTRY_BYTES, Index, LONE_ENTRY_BYTES_MAX},
    segment::{Segment, index_name, store_base, store_name},
};

const ENTRY: usize = 12;
const _: () = assert!(ENTRY as u64 == ENTRY_BYTES);

impl Log<FsBackend> {
    /// Copies the log, as it is at one moment of the call, into another directory, where it opens as a log. Returns
    /// the offsets that the copy holds. It is on stable storage then, also what was not yet in the log itself.
    ///
    /// Neither appends nor reads of this or another process have to wait. What they append meanwhile is in the copy up
    /// to some record, and batches whole. Segments that are sealed share their records' file with the copy where the
    /// file system has hard links, so that a copy takes little more space and time than its last segment. Whatever
    /// is done to either log afterwards, the other stays as it is; but damage to such a file is damage to both.
    ///
    /// The directory must not be there yet, or be empty. It appears as a whole: what a crash leaves of an unfinished
    /// copy is a directory beside it, of its name and `.unfinished`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] when there is something in the directory or it is within the log's own;
    /// [`Error::Io`], also when a writer truncated the log each time it was tried. Then nothing is left of the copy.
    ///
    /// # Example
    ///
    /// ```
    /// # let root = tempfile::tempdir()?;
    /// # let (directory, copy) = (root.path().join("log"), root.path().join("copy"));
    /// use proglog::{Log, Offset, Options};
    /// let log = Log::open(&directory, Options::new())?;
    /// log.append_batch(["a", "b"])?;
    /// assert_eq!(log.snapshot(&copy)?, Offset(0)..Offset(2));
    /// log.reset()?;
    /// assert_eq!(Log::open(&copy, Options::new())?.read(Offset(1))?.value(), b"b");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn snapshot(&self, directory: impl AsRef<Path>) -> Result<Range<Offset>> {
        if !self.shared.read_only {
            // What waits in this process is for no reader to see.
            self.sync()?;
        }
        let source = self.shared.backend.directory();
        let copy = Unfinished::begin(source, directory)?;
        let mut patience = Patience::default();
        let next = loop {
            match copy_log(source, copy.path()) {
                Ok(Some(next)) => break next,
                Err(e) if !may_pass(&e) || !patience.wait() => return Err(e.into()),
                Ok(None) if !patience.wait() => {
                    let changed = "it was truncated each time it was copied";
                    let changed = io::Error::new(io::ErrorKind::NotFound, changed);
                    return Err(Error::io("copy", self.shared.backend.name(), changed).into());
                }
                _ => copy.clear()?,
            }
        };
        // What a killed writer would leave, the next one puts in order.
        let log = Self::open(copy.path(), Options::new())?;
        // Whatever told of them in the log: in no copy are offsets given again.
        if log.next_offset() < next {
            log.shared.skip_to(next, GapCause::Lost)?;
        }
        let offsets = log.lowest_offset()..log.next_offset();
        log.close()?;
        copy.finish()?;
        Ok(offsets)
    }
}

/// Copies what there is at one moment, durably, and says which offset comes next. `None`: what was copied may be of
/// several.
fn copy_log(source: &Path, directory: &Path) -> Thin<Option<Offset>> {
    let log = Log::open_read_only(source, Options::new())?;
    let view = log.shared.view.load_full();
    let Some(active) = view.active().reading().clone() else {
        return Ok(None);
    };
    let next = active.next_offset();
    for slot in view.slots() {
        let copied = match slot.next {
            Some(next) => copy_sealed(&log, slot, next, directory),
            None => copy_active(source, &active, next, directory),
        };
        match copied {
            // Those below it were removed before it, so that they are no part of the log any more.
            Err(e) if may_pass(&e) && slot.next.is_some() => remove_stores(directory)?,
            copied => copied?,
        }
    }
    sync_directory(directory)?;
    // While it has its name, what was found by other names is what was there when it was opened.
    if active.is_removed()? {
        return Ok(None);
    }
    if let [.., before, _] = view.slots() {
        keep_sealed(directory, before.base, active.base())?;
    }
    Ok(Some(next))
}

/// Has it be known of the copy, as it is of the log, that the last segment but one was sealed, where its end is missing
/// and the last one holds nothing by now that tells so.
fn keep_sealed(directory: &Path, base: Offset, last: Offset) -> Thin<()> {
    let backend = FsBackend::open_read_only(directory)?;
    let bases: Vec<Offset> = Listed::now(&backend)?.bases().to_vec();
    let options = Options::new();
    if bases.contains(&base)
        && !Segment::<FsBackend>::is_begun(&backend, last, &options)?
        && Segment::<FsBackend>::may_be_unsealed(&backend, base, last, &options)?
    {
        Segment::<FsBackend>::reach(&backend, base, last, &options)?;
    }
    Ok(())
}

fn copy_sealed(
    log: &Log<FsBackend>,
    slot: &Arc<Slot<FsBackend>>,
    next: Offset,
    directory: &Path,
) -> Thin<()> {
    let backend = &log.shared.backend;
    let source = backend.directory();
    let is_closed = Segment::is_closed_to(backend, slot.base, next, &log.shared.options)?;
    let index = index_name(slot.base);
    // It may be written still: one that is wrong is put right where it is.
    match copy_file(&source.join(&index), &directory.join(&index), u64::MAX) {
        Err(e) if e.is_not_found() => {}
        copied => drop(copied?),
    }
    let store = store_name(slot.base);
    let (from, to) = (source.join(&store), directory.join(&store));
    if is_closed && link(&from, &to)? {
        return Ok(());
    }
    copy_file(&from, &to, u64::MAX).map(drop)
}

/// Gives a file another name. `false`: not on this file system.
fn link(from: &Path, to: &Path) -> Thin<bool> {
    if !cfg!(unix) {
        // Where it is not told how many names a file has.
        return Ok(false);
    }
    match fs::hard_link(from, to) {
        Ok(()) => {
            let synced = File::open(to).and_then(|file| file.sync_all());
            synced.map_err(|e| failed("sync", to, e))?;
            Ok(true)
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(failed("link", from, e)),
        Err(_) => Ok(false),
    }
}

fn copy_active(
    source: &Path,
    active: &SegmentReader<FsFile>,
    next: Offset,
    directory: &Path,
) -> Thin<()> {
    let end = active.store_bytes();
    // The index first: what it vouches for is in the store by then.
    let name = index_name(active.base());
    copy_entries(
        &source.join(&name),
        &directory.join(&name),
        next.since(active.base()),
    )?;
    let name = store_name(active.base());
    let copied = copy_file(&source.join(&name), &directory.join(&name), end)?;
    if copied < end {
        let cut = io::ErrorKind::UnexpectedEof.into();
        return Err(failed("read", &source.join(&name), cut));
    }
    Ok(())
}

/// Copies the entries that an index has, as it is read, at most so many.
fn copy_entries(from: &Path, to: &Path, entries_max: u64) -> Thin<()> {
    let file = match File::open(from) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(|e| failed("open", from, e))?,
    };
    let mut entries = Vec::new();
    let read = file
        .take(index_bytes(from, entries_max)?)
        .read_to_end(&mut entries);
    read.map_err(|e| failed("read", from, e))?;
    // The last of those in a file is in its place, or some of them are not.
    let whole = entries.as_chunks::<ENTRY>().0.iter().zip(0_u32..);
    let in_place = whole.filter(|(entry, n)| entry[..size_of::<u32>()] == n.to_be_bytes());
    let in_place = in_place.last().map_or(0, |(_, n)| n as usize + 1);
    // That cannot be told from space that was prepared, unless the file is as short as it will be here.
    let bytes = fs::metadata(from).map_or(0, |found| found.len());
    let is_lone = in_place == 1 && entries[..ENTRY] == [0; ENTRY] && bytes > LONE_ENTRY_BYTES_MAX;
    let kept = if is_lone { 0 } else { in_place * ENTRY };
    let written = File::create(to).and_then(|mut file| {
        file.write_all(&entries[..kept])?;
        file.sync_all()
    });
    written.map_err(|e| failed("write", to, e))
}

/// How many bytes of an index are entries, at most so many.
fn index_bytes(path: &Path, entries_max: u64) -> Thin<u64> {
    let backend = FsBackend::open_read_only(parent_of(path))?;
    let name = path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let file = backend.open(&name, Access::Read);
    let file = file.map_err(|e| failed("open", path, e))?;
    let index = Index::of(file, name, u64::MAX)?;
    Ok(index.entries().min(entries_max).saturating_mul(ENTRY_BYTES))
}

/// Copies a file's first bytes, durably, and says how many there were.
fn copy_file(from: &Path, to: &Path, bytes_max: u64) -> Thin<u64> {
    let source = File::open(from).map_err(|e| failed("open", from, e))?;
    let copied = File::create(to).and_then(|mut file| {
        let copied = io::copy(&mut source.take(bytes_max), &mut file)?;
        file.sync_all()?;
        Ok(copied)
    });
    copied.map_err(|e| failed("copy", from, e))
}

/// Removes the segments that were copied so far.
fn remove_stores(directory: &Path) -> Thin<()> {
    let backend = FsBackend::open_read_only(directory)?;
    let names = backend.list();
    for name in names.map_err(|e| failed("list", directory, e))? {
        let base = store_base(&name).or_else(|| crate::segment::index_base(&name));
        if base.is_some() {
            let path = directory.join(name);
            fs::remove_file(&path).map_err(|e| failed("remove", &path, e))?;
        }
    }
    Ok(())
}
