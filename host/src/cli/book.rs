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
use serde::Serialize;

use super::failure::Failure;

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
    directory: PathBuf,
}

/// An index that was not in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FoundIndex {
    pub(crate) segment: Offset,
    pub(crate) state: IndexState,
}

/// A whole record where none of its offset can be: it was given to another before.
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
        let (mut empty, mut lowest) = (Vec::new(), Offset(u64::MAX));
        for (name, bytes) in names(directory)? {
            match (base_of(&name, ".store"), bytes) {
                (Some(base), Some(0)) => empty.push(base),
                (Some(base), Some(_)) => lowest = lowest.min(base),
                _ => {}
            }
        }
        empty.retain(|&base| base > lowest);
        empty.sort_unstable();
        let next = open_without(directory, store_names(&empty))?.next_offset();
        empty.retain(|&base| base < next);
        let mut hidden = store_names(&empty);

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
            log,
            found,
            indexes,
            in_the_way: empty,
            directory: directory.to_owned(),
        })
    }

    /// The names of what else is in the directory, in order.
    pub(crate) fn other_names(&self) -> Result<Vec<String>, Failure> {
        let bases: Vec<Offset> = self.log.segments().iter().map(|found| found.base).collect();
        let is_ours = |(name, bytes): &(String, Option<u64>)| {
            let base = base_of(name, ".store").or_else(|| base_of(name, ".index"));
            let is_segments = |base| bases.contains(&base) || self.in_the_way.contains(&base);
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
        Ok(orphans)
    }
}

/// The whole records that a stretch of a store begins with.
fn whole_records(
    path: &Path,
    segment: Offset,
    mut position: u64,
    bytes: u64,
) -> io::Result<Vec<Orphan>> {
    let mut store = BufReader::new(File::open(path)?);
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
    opened.map_err(|error| proglog_host::Error::from(error).into())
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

/// The base offset in a file's name, in decimal and not padded.
fn base_of(name: &str, suffix: &str) -> Option<Offset> {
    let base: u64 = name.strip_suffix(suffix)?.parse().ok()?;
    (name == format!("{base}{suffix}")).then_some(Offset(base))
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
