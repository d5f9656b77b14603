//! A directory as the book's program may leave it, to be read and never written.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read, Seek, SeekFrom},
    num::NonZero,
    path::{Path, PathBuf},
    thread,
};

use bytes::Bytes;
use proglog::{
    Access, Backend, FsBackend, FsFile, IndexState, Log, Offset, Options, Record, Report,
    SegmentReport,
};
use proglog_host::ErrorKind;
use serde::Serialize;

use super::{
    directory::{base_in_name, require_directory},
    failure::Failure,
};

/// Files of a directory, without those that are in the way.
#[derive(Debug)]
pub(crate) struct BookFiles {
    files: FsBackend,
    hidden: Vec<String>,
}

/// The log in such a directory.
pub(crate) struct BookLog {
    pub(crate) log: Log<BookFiles>,
    /// What is wrong with it.
    pub(crate) found: Report,
    /// How the indexes were found that were not in order.
    pub(crate) indexes: Vec<FoundIndex>,
    /// The bases of empty segments that say that offsets are theirs which a segment before them holds.
    pub(crate) in_the_way: Vec<Offset>,
    /// Offsets after its last record that are those of segments which are not there: an empty one comes after them.
    pub(crate) missing: Option<Missing>,
    /// The bases of all empty segments.
    empty: Vec<Offset>,
    directory: PathBuf,
}

/// Offsets of which the log itself does not tell that they are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    /// The segment after whose end they are missing.
    pub(crate) segment: Offset,
    pub(crate) first: Offset,
    pub(crate) last: Offset,
    position: u64,
    bytes: u64,
    reason: &'static str,
}

/// A segment of this base can have no record.
const BASE_OF_NONE: Offset = Offset(u64::MAX);

/// An index that was not in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FoundIndex {
    pub(crate) segment: Offset,
    pub(crate) state: IndexState,
}

/// A whole record where none of its offset can be: it was given to another before, or is the last number there is,
/// which is none's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Orphan {
    pub(crate) segment: Offset,
    pub(crate) position: u64,
    pub(crate) offset: Offset,
}

impl BookLog {
    /// Opens it, and looks at all of it.
    ///
    /// An empty segment is in the way if its base is that of a record of a segment before it, as the book's program
    /// begins one where it takes the zeros of an index for entries. An empty last one after all records keeps the next
    /// offset of a log.
    ///
    /// An index that disagrees with its store is not looked at: one that was made anew after it was missing knows
    /// nothing of the records before.
    pub(crate) fn open(directory: &Path) -> Result<Self, Failure> {
        require_directory(directory).map_err(|failure| failure.of_work_on(directory))?;
        let (mut empty, mut lowest, mut has_none) = (Vec::new(), Offset(u64::MAX), false);
        for (name, bytes) in names(directory)? {
            match (base_in_name(&name, ".store"), bytes) {
                (Some(BASE_OF_NONE), Some(_)) => has_none = true,
                (Some(base), Some(0)) => empty.push(base),
                (Some(base), Some(_)) => lowest = lowest.min(base),
                _ => {}
            }
        }
        empty.sort_unstable();
        if has_none && empty.is_empty() && lowest == BASE_OF_NONE {
            let message = format!(
                "the only store in {} is {BASE_OF_NONE}.store, and no record can have that offset; there is nothing to \
                 upgrade",
                directory.display()
            );
            return Err(Failure::new("invalid_argument", message));
        }
        let all_empty = empty.clone();
        empty.retain(|&base| base > lowest);
        let without = |empty: &[Offset]| {
            let mut hidden = store_names(empty);
            hidden.extend(store_names(&[BASE_OF_NONE]));
            hidden
        };
        let next = open_without(directory, without(&empty))?.next_offset();
        empty.retain(|&base| base < next);
        let mut hidden = without(&empty);

        let mut log = open_without(directory, hidden.clone())?;
        let mut found = verify(&log)?;
        let not_in_order = |segment: &SegmentReport| segment.index != IndexState::Sound;
        let indexes = found
            .segments
            .iter()
            .filter(|segment| not_in_order(segment));
        let indexes: Vec<FoundIndex> = indexes
            .map(|segment| FoundIndex {
                segment: segment.base,
                state: segment.index,
            })
            .collect();
        let disagree = indexes
            .iter()
            .filter(|index| index.state == IndexState::Disagrees);
        let hidden_before = hidden.len();
        hidden.extend(disagree.map(|index| format!("{}.index", index.segment)));
        if hidden.len() > hidden_before {
            log = open_without(directory, hidden)?;
            found = verify(&log)?;
        }
        Ok(Self {
            missing: missing_after(&log, &all_empty),
            log,
            found,
            indexes,
            in_the_way: empty,
            empty: all_empty,
            directory: directory.to_owned(),
        })
    }

    /// Where the copy is to go on.
    pub(crate) fn next_offset(&self) -> Offset {
        let missing = self.missing.map(|missing| missing.last.next());
        missing.unwrap_or(self.log.next_offset())
    }

    /// The names of what else is in the directory, in order.
    pub(crate) fn other_names(&self) -> Result<Vec<String>, Failure> {
        let bases: Vec<Offset> = self.log.segments().iter().map(|found| found.base).collect();
        let is_ours = |(name, bytes): &(String, Option<u64>)| {
            let base = base_in_name(name, ".store").or_else(|| base_in_name(name, ".index"));
            let is_segments = |base| bases.contains(&base) || self.empty.contains(&base);
            bytes.is_some() && base.is_some_and(is_segments)
        };
        let mut names = names(&self.directory)?;
        names.retain(|found| !is_ours(found));
        names.sort();
        Ok(names.into_iter().map(|(name, _)| name).collect())
    }

    /// The whole records that stand in the stores where no record of their offset can be.
    pub(crate) fn orphans(&self) -> Result<Vec<Orphan>, Failure> {
        let mut orphans = Vec::new();
        for segment in &self.found.segments {
            let damage = segment.damage.iter();
            let damage = damage.map(|damage| (damage.position, damage.bytes, damage.first));
            let tail = segment.torn_tail.iter();
            let tail = tail.map(|tail| (tail.position, tail.bytes, segment.next));
            for (position, bytes, expected) in damage.chain(tail) {
                let path = self.directory.join(format!("{}.store", segment.base));
                let whole = whole_records(&path, segment.base, position, bytes);
                let whole = whole.map_err(|error| Failure::io("read", &path, &error))?;
                // Others are of a batch that is not whole, or come after what is damaged.
                orphans.extend(whole.into_iter().filter(|whole| whole.offset < expected));
            }
        }
        orphans.extend(self.records_of_none()?);
        Ok(orphans)
    }

    /// Records whose offset is the last number there is: after all others, or in a segment of their own.
    fn records_of_none(&self) -> Result<Vec<Orphan>, Failure> {
        let last = Offset(u64::MAX - 1);
        let after_all = self.log.read(last).ok().and_then(|record| {
            let place = self.log.locate(last).ok()?;
            let frame_bytes = record.frame().len() as u64;
            Some((place.segment, place.position + frame_bytes))
        });
        let mut found = Vec::new();
        for (segment, position) in after_all.into_iter().chain([(BASE_OF_NONE, 0)]) {
            let path = self.directory.join(format!("{segment}.store"));
            match whole_records(&path, segment, position, u64::MAX) {
                Ok(whole) => found.extend(whole),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::io("read", &path, &error)),
            }
        }
        found.retain(|record| record.offset == BASE_OF_NONE);
        Ok(found)
    }
}

/// What is missing between the last record and the last empty segment, which the log takes for one that was never
/// promised, for its index is empty too.
fn missing_after(log: &Log<BookFiles>, empty: &[Offset]) -> Option<Missing> {
    let (first, last) = (log.next_offset(), empty.last()?.0.checked_sub(1)?);
    let before = log.segments().pop()?;
    (first.0 <= last).then_some(Missing {
        segment: before.base,
        first,
        last: Offset(last),
        position: before.store_bytes,
        bytes: 0,
        reason: "missing",
    })
}

/// The whole records that a stretch of a store begins with.
fn whole_records(
    path: &Path,
    segment: Offset,
    mut position: u64,
    bytes: u64,
) -> io::Result<Vec<Orphan>> {
    let file = File::open(path)?;
    let bytes = bytes.min(file.metadata()?.len().saturating_sub(position));
    let mut store = BufReader::new(file);
    store.seek(SeekFrom::Start(position))?;
    let mut store = store.take(bytes);
    let mut records = Vec::new();
    loop {
        let mut frame = Vec::new();
        store.by_ref().take(8).read_to_end(&mut frame)?;
        let length = frame.first_chunk();
        let length = length.map_or(0, |&length| u64::from_be_bytes(length));
        // Zeros are no record here, and no more is read than there is.
        if length == 0 || length > store.limit() {
            return Ok(records);
        }
        store.by_ref().take(length).read_to_end(&mut frame)?;
        let bytes = frame.len() as u64;
        let Ok(record) = Record::from_frame(Bytes::from(frame)) else {
            return Ok(records);
        };
        records.push(Orphan {
            segment,
            position,
            offset: record.offset(),
        });
        position += bytes;
    }
}

fn verify(log: &Log<BookFiles>) -> Result<Report, Failure> {
    let threads = thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let found = log.verify_with(threads, |_| {});
    found.map_err(|error| proglog_host::Error::from(error).into())
}

fn store_names(bases: &[Offset]) -> Vec<String> {
    bases.iter().map(|base| format!("{base}.store")).collect()
}

fn open_without(directory: &Path, hidden: Vec<String>) -> Result<Log<BookFiles>, Failure> {
    let opened = FsBackend::open_read_only(directory)
        .and_then(|files| Log::open_read_only_on(BookFiles { files, hidden }, Options::new()));
    opened.map_err(|error| match proglog_host::Error::from(error) {
        // The options make sense, so that it can be nothing else.
        error if error.kind() == ErrorKind::InvalidArgument => {
            Failure::no_log(directory).of_work_on(directory)
        }
        error => error.into(),
    })
}

/// What is in a directory: names, and the lengths of what is a file.
fn names(directory: &Path) -> Result<Vec<(String, Option<u64>)>, Failure> {
    let listed: io::Result<_> = (|| {
        let entries = fs::read_dir(directory)?.map(|entry| {
            let entry = entry?;
            let (name, found) = (entry.file_name(), entry.metadata()?);
            let bytes = found.is_file().then_some(found.len());
            Ok((name.to_string_lossy().into_owned(), bytes))
        });
        entries.collect()
    })();
    listed.map_err(|error| Failure::io("list", directory, &error))
}

impl Backend for BookFiles {
    type File = FsFile;

    fn name(&self) -> String {
        self.files.name()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = self.files.list()?;
        names.retain(|name| !self.hidden.contains(name));
        Ok(names)
    }

    fn open(&self, name: &str, access: Access) -> io::Result<FsFile> {
        match access {
            _ if self.hidden.iter().any(|hidden| hidden == name) => {
                Err(io::ErrorKind::NotFound.into())
            }
            Access::Read => self.files.open(name, access),
            _ => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    fn remove(&self, _name: &str) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync_directory(&self) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }
}
