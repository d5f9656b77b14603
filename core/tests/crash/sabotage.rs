//! A disk that tells lies, to see that the search finds out, or that prepares stores ahead.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use proglog::{Access, Backend, BackendFile, FaultBackend, FaultFile, Log, Tail};
use twox_hash::XxHash3_64;

/// What is wrong with the disk: as if the log had forgotten it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// A store's sync does nothing.
    StoreSync,
    /// A store's sync does nothing every other time.
    EveryOtherStoreSync,
    /// An index's sync does nothing.
    IndexSync,
    /// The index is on stable storage before the records it vouches for.
    IndexLeads,
    /// The directory's sync does nothing.
    DirectorySync,
    /// No record says that it is one of a batch.
    BatchFields,
    /// No record says whose it is.
    ProducerFields,
    /// A store's sync leaves the length where it was before the last append.
    LengthSync,
    /// A store is not cut.
    Cut,
    /// What was cut off a store comes back where the store is longer than what was written.
    CutBytes,
    /// What is to take a store's name is not synced.
    RewrittenSync,
    /// The index of a segment that is nothing but a gap is not synced.
    GapIndexSync,
    /// A segment that is written anew keeps its old index.
    IndexNotReplaced,
    /// A segment that is written anew gets its store before its index.
    StoreBeforeIndex,
}

impl Bug {
    pub(crate) const ALL: [Self; 14] = [
        Self::StoreSync,
        Self::EveryOtherStoreSync,
        Self::IndexSync,
        Self::IndexLeads,
        Self::DirectorySync,
        Self::BatchFields,
        Self::ProducerFields,
        Self::LengthSync,
        Self::Cut,
        Self::CutBytes,
        Self::RewrittenSync,
        Self::GapIndexSync,
        Self::IndexNotReplaced,
        Self::StoreBeforeIndex,
    ];
}

#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) inner: FaultBackend,
    pub(crate) bug: Bug,
    prepares: Prepares,
    /// Whether the process is being killed: nothing it does reaches the disk.
    dead: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
}

/// How a store is made longer than its records ahead of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepares {
    /// It is not.
    Nothing,
    /// As in a directory: the next stores are prepared too, and all files are mapped.
    Files,
    /// As in a browser: with zeros alone, written by who appends.
    Zeros,
}

/// How far ahead a store is prepared.
const PREPARED_BYTES: u64 = 5000;
/// How much of a file is mapped at a time.
const MAPPED_BYTES: usize = 3000;

/// What the bugs need to know of the stores.
#[derive(Clone, Debug, Default)]
struct Seen {
    syncs: u64,
    /// Stores whose sync waits until the index is written.
    late: Vec<FaultFile>,
    /// The length at the last sync and at the one before.
    lengths: BTreeMap<String, (u64, u64)>,
    /// Which index is to get which name once its store has its own.
    index_to_come: Option<(String, String)>,
    /// What was cut off, and where it stood.
    cut: BTreeMap<String, (u64, Vec<u8>)>,
}

impl Disk {
    pub(crate) fn new(inner: FaultBackend, bug: Bug, prepares: Prepares) -> Self {
        Self {
            inner,
            bug,
            prepares,
            dead: Arc::default(),
            seen: Arc::default(),
        }
    }

    /// As the process leaves it when it is killed.
    pub(crate) fn killed(&self) -> Self {
        Self {
            inner: self.inner.killed(),
            bug: self.bug,
            prepares: self.prepares,
            dead: Arc::default(),
            seen: Arc::new(Mutex::new(self.seen().clone())),
        }
    }

    /// Ends a log as `kill -9` does: what it does while it is dropped is not done.
    pub(crate) fn kill(&self, log: Log<Self>) {
        self.dead.store(true, Relaxed);
        drop(log);
        self.dead.store(false, Relaxed);
    }

    /// Whether the process was killed.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Relaxed)
    }

    fn alive(&self) -> io::Result<()> {
        if self.dead.load(Relaxed) {
            return Err(io::Error::other("killed"));
        }
        Ok(())
    }

    pub(crate) fn power_cut(&self, seed: u64) -> Self {
        self.spoilt(self.inner.power_cut(seed))
    }

    pub(crate) fn power_cuts(&self, states_max: usize, seed: u64) -> impl Iterator<Item = Self> {
        self.inner
            .power_cuts(states_max, seed)
            .map(|state| self.spoilt(state))
    }

    /// The names and bytes of all files.
    pub(crate) fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let names = self.inner.list().expect("a list");
        let bytes = |name: String| {
            let bytes = self.inner.get(&name).unwrap_or_default();
            (name, bytes)
        };
        names.into_iter().map(bytes).collect()
    }

    /// A state that a power cut leaves, made worse where the bug is the disk's.
    fn spoilt(&self, state: FaultBackend) -> Self {
        let seen = self.seen();
        for (name, &(_, before)) in &seen.lengths {
            if self.bug == Bug::LengthSync
                && let Ok(file) = state.open(name, Access::Write)
                && file.len().expect("a length") > before
            {
                file.set_len(before).expect("a cut");
                file.sync().expect("a sync");
            }
        }
        for (name, (position, bytes)) in &seen.cut {
            let Some(now) = state.get(name).filter(|_| self.bug == Bug::CutBytes) else {
                continue;
            };
            let file = state.open(name, Access::Write).expect("a store");
            let end = now.len().min(*position as usize + bytes.len());
            let mut at = *position as usize;
            while at < end {
                let sector_end = (at - at % 512 + 512).min(end);
                if now[at..sector_end].iter().all(|&byte| byte == 0) {
                    let old = &bytes[at - *position as usize..sector_end - *position as usize];
                    file.write_at(old, at as u64).expect("a write");
                }
                at = sector_end;
            }
            file.sync().expect("a sync");
        }
        Self::new(state, self.bug, self.prepares)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no panic meanwhile")
    }
}

impl Backend for Disk {
    type File = DiskFile;

    fn name(&self) -> String {
        "sabotaged".to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }

    fn open(&self, name: &str, access: Access) -> io::Result<DiskFile> {
        self.alive()?;
        let inner = self.inner.open(name, access)?;
        Ok(DiskFile {
            inner,
            disk: self.clone(),
            name: name.to_owned(),
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.alive()?;
        self.inner.remove(name)?;
        self.seen().lengths.remove(name);
        self.seen().cut.remove(name);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.alive()?;
        let is_index = from.ends_with(".index.rewritten");
        match self.bug {
            Bug::IndexNotReplaced if is_index => self.inner.remove(from),
            Bug::StoreBeforeIndex if is_index => {
                self.seen().index_to_come = Some((from.to_owned(), to.to_owned()));
                Ok(())
            }
            _ => {
                self.inner.rename(from, to)?;
                // The store is durably there before the index is.
                let index = self.seen().index_to_come.take();
                index.map_or(Ok(()), |(from, to)| {
                    self.inner.sync_directory()?;
                    self.inner.rename(&from, &to)
                })
            }
        }
    }

    fn prepare_bytes(&self) -> u64 {
        match self.prepares {
            Prepares::Nothing => 0,
            Prepares::Files | Prepares::Zeros => PREPARED_BYTES,
        }
    }

    fn prepares_files(&self) -> bool {
        self.prepares == Prepares::Files
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.alive()?;
        if self.bug == Bug::DirectorySync {
            return Ok(());
        }
        self.inner.sync_directory()
    }
}

#[derive(Debug)]
pub(crate) struct DiskFile {
    inner: FaultFile,
    disk: Disk,
    name: String,
}

impl DiskFile {
    fn is_store(&self) -> bool {
        self.name.ends_with(".store")
    }

    /// Whether it is an index with entries, made before its store.
    fn is_of_no_store_yet(&self) -> io::Result<bool> {
        let Some(base) = self.name.strip_suffix(".index") else {
            return Ok(false);
        };
        let store = format!("{base}.store");
        Ok(self.inner.len()? > 0 && !self.disk.inner.list()?.contains(&store))
    }

    fn sync_late_stores(&self) -> io::Result<()> {
        let late = std::mem::take(&mut self.disk.seen().late);
        late.iter().try_for_each(BackendFile::sync)
    }
}

impl BackendFile for DiskFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, position)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.disk.alive()?;
        match (self.disk.bug, self.is_store()) {
            (Bug::BatchFields | Bug::ProducerFields, true) => {
                let bytes = without_fields(bytes, self.disk.bug);
                self.inner.write_at(&bytes, position)
            }
            (Bug::IndexLeads, false) => {
                self.inner.write_at(bytes, position)?;
                self.inner.sync()?;
                self.sync_late_stores()
            }
            (Bug::IndexLeads, true) => {
                self.sync_late_stores()?;
                self.inner.write_at(bytes, position)
            }
            _ => self.inner.write_at(bytes, position),
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.disk.alive()?;
        let length = self.inner.len()?;
        if self.is_store() && bytes < length {
            if self.disk.bug == Bug::Cut {
                return Ok(());
            }
            let mut tail = vec![0; (length - bytes) as usize];
            self.inner.read_at(&mut tail, bytes)?;
            self.disk
                .seen()
                .cut
                .insert(self.name.clone(), (bytes, tail));
            self.disk.seen().lengths.remove(&self.name);
        }
        self.inner.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.alive()?;
        let mut seen = self.disk.seen();
        match (self.disk.bug, self.is_store()) {
            (Bug::StoreSync, true) | (Bug::IndexSync, false) => Ok(()),
            (Bug::RewrittenSync, _) if self.name.ends_with(".store.rewritten") => Ok(()),
            (Bug::GapIndexSync, false) if self.is_of_no_store_yet()? => Ok(()),
            (Bug::EveryOtherStoreSync, true) => {
                seen.syncs += 1;
                if seen.syncs.is_multiple_of(2) {
                    return Ok(());
                }
                self.inner.sync()
            }
            (Bug::IndexLeads, true) => {
                seen.late.push(self.inner.clone());
                Ok(())
            }
            (Bug::LengthSync, true) => {
                let length = self.inner.len()?;
                let lengths = seen.lengths.entry(self.name.clone()).or_insert((0, 0));
                *lengths = (length, lengths.0.min(length));
                self.inner.sync()
            }
            _ => self.inner.sync(),
        }
    }

    /// A window of a mapped file, smaller than asked for.
    fn map_tail(&self, position: u64, bytes: usize) -> io::Result<Option<Tail>> {
        if self.disk.prepares != Prepares::Files {
            return Ok(None);
        }
        let bytes = bytes.min(MAPPED_BYTES);
        let end = position + bytes as u64;
        if self.len()? < end {
            self.set_len(end)?;
        }
        let (disk, file) = (self.disk.clone(), self.inner.clone());
        let bug = Some(self.disk.bug)
            .filter(|bug| self.is_store() && matches!(bug, Bug::BatchFields | Bug::ProducerFields));
        let on_fill = move |at: usize, bytes: &[u8]| {
            if disk.alive().is_ok() {
                let bytes = match bug {
                    Some(bug) => without_fields(bytes, bug),
                    None => bytes.to_vec(),
                };
                if file.write_at(&bytes, position + at as u64).is_err() {
                    // A stop there is a process killed while it writes to its memory.
                    disk.dead.store(true, Relaxed);
                }
            }
        };
        Tail::standing_for(bytes, on_fill).map(Some)
    }
}

/// The same frames, each field that tells of a batch, or of a producer, made one that means nothing.
fn without_fields(frames: &[u8], bug: Bug) -> Vec<u8> {
    let mut frames = frames.to_vec();
    let mut rest = &mut frames[..];
    while let Some(length) = rest.first_chunk() {
        let whole = 8 + u64::from_be_bytes(*length) as usize;
        if whole > rest.len() {
            break;
        }
        let (frame, after) = std::mem::take(&mut rest).split_at_mut(whole);
        let checksum = whole - 8;
        let mut at = 8;
        while at < checksum - 1 {
            let tag = frame[at];
            let fields = if bug == Bug::BatchFields {
                8..10
            } else {
                10..12
            };
            if fields.contains(&(tag >> 3)) {
                frame[at] = 14 << 3 | tag & 7;
            }
            at += 1;
            let number = varint(frame, &mut at);
            // Our fields are numbers or bytes.
            at += if tag & 7 == 2 { number } else { 0 };
        }
        let sum = XxHash3_64::oneshot(&frame[..checksum - 1]);
        frame[checksum..].copy_from_slice(&sum.to_le_bytes());
        rest = after;
    }
    frames
}

fn varint(bytes: &[u8], at: &mut usize) -> usize {
    let mut number = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[*at];
        *at += 1;
        number |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    number
}
