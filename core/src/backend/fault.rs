//! Files in memory that fail, fill up and lose power, for tests.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Access, Backend, BackendFile};

/// A sector: what a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

/// A directory in memory that does what disks do on bad days, for tests of what stands on a log, and
/// of the log itself. Clones share it.
///
/// Every change of a file or of the directory is an *operation*, counted from 0. One can be made to
/// fail ([`FaultBackend::fail`]), and at any time a copy can be had of what a killed process
/// ([`FaultBackend::killed`]) or a power cut ([`FaultBackend::power_cut`]) leaves behind.
///
/// ```
/// use proglog::{Error, Fault, FaultBackend, Log, Options};
/// let disk = FaultBackend::new();
/// let log = Log::open_on(disk.clone(), Options::new())?;
/// log.append("durable")?;
/// disk.fail(disk.operations(), Fault::Error);
/// assert!(matches!(log.append("lost"), Err(Error::Io { .. })));
/// assert!(matches!(log.append("refused"), Err(Error::Poisoned { .. })));
///
/// let log = Log::open_on(disk.power_cut(7), Options::new())?;
/// assert_eq!(log.next_offset().0, 1);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct FaultBackend {
    disk: Arc<Mutex<Disk>>,
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// With an I/O error; nothing was done.
    Error,
    /// With an I/O error after the first half of a write was done. As [`Fault::Error`] for all else.
    Half,
    /// The disk is full: this and every later operation that needs space fails.
    Full,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    /// What the running process sees.
    names: BTreeMap<String, usize>,
    /// The directory as it is on stable storage.
    names_durable: BTreeMap<String, usize>,
    files: Vec<Content>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    full: bool,
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// What was done since the last sync.
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    Length(usize),
}

impl FaultBackend {
    /// An empty directory on a disk without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many operations there were.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Makes an operation fail, by its number.
    pub fn fail(&self, operation: u64, fault: Fault) {
        self.disk().fault = Some((operation, fault));
    }

    /// Takes back what was planned, and gives a full disk room again.
    pub fn heal(&self) {
        let mut disk = self.disk();
        disk.fault = None;
        disk.full = false;
    }

    /// What is left when the process is killed now: all that was written.
    #[must_use]
    pub fn killed(&self) -> Self {
        let mut disk = self.disk().clone();
        (disk.fault, disk.full) = (None, false);
        Self {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    /// What is left when power is cut now: what was synced, and of the rest whatever the seed says.
    /// Each unsynced write is kept, lost, or kept in some of its 512-byte sectors, each name made or
    /// removed since the directory's last sync is so or not.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        let old = self.disk().clone();
        let mut chance = Chance(seed);
        let mut names = old.names_durable.clone();
        for name in old.names.keys().chain(old.names_durable.keys()) {
            if chance.half() {
                match old.names.get(name) {
                    Some(&file) => names.insert(name.clone(), file),
                    None => names.remove(name),
                };
            }
        }
        let files = old
            .files
            .iter()
            .map(|content| content.after_power_cut(&mut chance))
            .collect();
        let names_durable = names.clone();
        let disk = Disk {
            names,
            names_durable,
            files,
            ..Disk::default()
        };
        Self {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    /// The bytes of a file, as the running process sees them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names
            .get(name)
            .map(|&file| disk.files[file].now.clone())
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk {
    /// Counts an operation and says whether it fails.
    fn operation(&mut self, needs_space: bool) -> Result<(), Fault> {
        let number = self.operations;
        self.operations += 1;
        match self.fault {
            Some((at, fault)) if at == number => {
                self.full |= fault == Fault::Full;
                Err(fault)
            }
            _ if self.full && needs_space => Err(Fault::Full),
            _ => Ok(()),
        }
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Full => io::ErrorKind::StorageFull.into(),
            Self::Error | Self::Half => io::Error::other("injected fault"),
        }
    }
}

impl Content {
    fn write(bytes: &mut Vec<u8>, position: usize, new: &[u8]) {
        let end = position + new.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[position..end].copy_from_slice(new);
    }

    fn change(&mut self, change: Change) {
        change.apply_to(&mut self.now);
        self.unsynced.push(change);
    }

    fn after_power_cut(&self, chance: &mut Chance) -> Self {
        let mut durable = self.durable.clone();
        for change in &self.unsynced {
            match (chance.next() % 3, change) {
                (0, _) => {}
                (1, change) => change.apply_to(&mut durable),
                (_, Change::Length(_)) => change.apply_to(&mut durable),
                (_, Change::Write { position, bytes }) => {
                    // The length may be there before the data.
                    let end = position + bytes.len();
                    if chance.half() && durable.len() < end {
                        durable.resize(end, 0);
                    }
                    let first = SECTOR_BYTES - position % SECTOR_BYTES;
                    let mut at = 0;
                    while at < bytes.len() {
                        let sector = if at == 0 { first } else { SECTOR_BYTES };
                        let sector_end = (at + sector).min(bytes.len());
                        if chance.half() {
                            Self::write(&mut durable, position + at, &bytes[at..sector_end]);
                        }
                        at = sector_end;
                    }
                }
            }
        }
        Self {
            now: durable.clone(),
            durable,
            unsynced: Vec::new(),
        }
    }
}

impl Change {
    fn apply_to(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { position, bytes } => Content::write(to, *position, bytes),
            Self::Length(length) => to.resize(*length, 0),
        }
    }
}

impl Backend for FaultBackend {
    type File = FaultFile;

    fn name(&self) -> String {
        "fault".to_owned()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.disk().names.keys().cloned().collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<FaultFile> {
        let mut disk = self.disk();
        let file = match disk.names.get(name) {
            Some(&file) => file,
            None if access == Access::Create => {
                disk.operation(true).map_err(Fault::error)?;
                let file = disk.files.len();
                disk.files.push(Content::default());
                disk.names.insert(name.to_owned(), file);
                file
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(FaultFile {
            disk: self.clone(),
            file,
        })
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        if !disk.names.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        disk.operation(false).map_err(Fault::error)?;
        disk.names.remove(name);
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operation(false).map_err(Fault::error)?;
        disk.names_durable = disk.names.clone();
        Ok(())
    }
}

/// A file of a [`FaultBackend`].
#[derive(Clone, Debug)]
pub struct FaultFile {
    disk: FaultBackend,
    file: usize,
}

impl BackendFile for FaultFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.disk().files[self.file].now.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let disk = self.disk.disk();
        let bytes = &disk.files[self.file].now;
        let rest = usize::try_from(position)
            .ok()
            .and_then(|at| bytes.get(at..))
            .unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        let position = usize::try_from(position).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let done = disk.operation(true);
        let written = match done {
            Ok(()) => bytes,
            Err(Fault::Half | Fault::Full) => &bytes[..bytes.len() / 2],
            Err(Fault::Error) => &[],
        };
        if !written.is_empty() {
            disk.files[self.file].change(Change::Write {
                position,
                bytes: written.to_vec(),
            });
        }
        done.map_err(Fault::error)
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        let length = usize::try_from(bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let grows = length > disk.files[self.file].now.len();
        disk.operation(grows).map_err(Fault::error)?;
        disk.files[self.file].change(Change::Length(length));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.operation(false).map_err(Fault::error)?;
        let content = &mut disk.files[self.file];
        content.durable.clone_from(&content.now);
        content.unsynced.clear();
        Ok(())
    }

    /// Padded with zeros, as a mapped index is.
    fn prepare(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}

/// Seeded chance: splitmix64, <https://prng.di.unimi.it/splitmix64.c>.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn half(&mut self) -> bool {
        self.next().is_multiple_of(2)
    }
}
