//! Files in memory that fail, fill up and lose power, for tests.

mod power;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

pub use self::power::PowerCuts;
use super::{Access, Backend, BackendFile};

/// What a disk writes whole or not at all, unless another size is asked for.
const SECTOR_BYTES: usize = 512;

/// A directory in memory that does what disks do on bad days, for tests of what stands on a log, and
/// of the log itself. Clones share it.
///
/// Every change of a file or of the directory is an *operation*, counted from 0. One can be made to
/// fail ([`FaultBackend::fail`]), and at any time a copy can be had of what a killed process
/// ([`FaultBackend::killed`]) or a power cut ([`FaultBackend::power_cut`],
/// [`FaultBackend::power_cuts`]) leaves behind.
///
/// A power cut finds a page cache over a disk of sectors. What was synced is there. Of what came since,
/// each sector of each file is as it was after any one of the writes to it, or before them all,
/// whatever became of the other sectors: so a later append may be there and an earlier one gone, but
/// never a later write to a sector without the earlier ones to the same. A file's length is any it had
/// since its last sync, whatever became of its bytes: those that are within it and were not kept read
/// as they were, zeros if they were never written. Each name made, removed or
/// renamed since the directory's last sync is so or not.
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
    /// As [`Fault::Full`], where it is not the disk but what one is allowed of it.
    Quota,
}

#[derive(Clone, Debug)]
struct Disk {
    sector_bytes: usize,
    /// What the running process sees.
    names: BTreeMap<String, usize>,
    /// The directory as it is on stable storage.
    names_durable: BTreeMap<String, usize>,
    /// What was done to it since, in order.
    names_unsynced: Vec<NameChange>,
    files: Vec<Content>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    /// Why what needs space fails, if it does.
    full: Option<Fault>,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            sector_bytes: SECTOR_BYTES,
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            names_unsynced: Vec::new(),
            files: Vec::new(),
            operations: 0,
            fault: None,
            full: None,
        }
    }
}

#[derive(Clone, Debug)]
enum NameChange {
    Made {
        name: String,
        file: usize,
    },
    Removed {
        name: String,
    },
    Renamed {
        from: String,
        to: String,
        file: usize,
    },
}

#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// What was done since the last sync, in order.
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    Length(usize),
}

impl FaultBackend {
    /// An empty directory on a disk without faults, of 512-byte sectors.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty directory on a disk of other sectors: what it writes whole or not at all.
    ///
    /// # Panics
    ///
    /// If `bytes` is 0.
    #[must_use]
    pub fn with_sector_bytes(bytes: usize) -> Self {
        assert!(bytes > 0, "a sector has bytes");
        Self::of(Disk {
            sector_bytes: bytes,
            ..Disk::default()
        })
    }

    fn of(disk: Disk) -> Self {
        Self {
            disk: Arc::new(Mutex::new(disk)),
        }
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
        disk.full = None;
    }

    /// What is left when the process is killed now: all that was written, synced or not.
    #[must_use]
    pub fn killed(&self) -> Self {
        let mut disk = self.disk().clone();
        (disk.fault, disk.full) = (None, None);
        Self::of(disk)
    }

    /// What is left when power is cut now: what was synced, and of the rest whatever the seed says.
    #[must_use]
    pub fn power_cut(&self, seed: u64) -> Self {
        PowerCuts::new(&self.disk(), 0, 0).sample(seed)
    }

    /// What a power cut now may leave, one after the other: every state there is if they are at most
    /// `states_max`, otherwise so many: all lost, all kept, the newest names, lengths or bytes alone,
    /// single sectors lost or kept, and others by the seed.
    ///
    /// ```
    /// use proglog::{FaultBackend, Log, Options};
    /// let disk = FaultBackend::new();
    /// let log = Log::open_on(disk.clone(), Options::new())?;
    /// log.append("durable")?;
    /// let states = disk.power_cuts(64, 0);
    /// assert!(states.are_all());
    /// for state in states {
    ///     let log = Log::open_on(state, Options::new())?;
    ///     assert_eq!(log.next_offset().0, 1);
    /// }
    /// # Ok::<(), proglog::Error>(())
    /// ```
    #[must_use]
    pub fn power_cuts(&self, states_max: usize, seed: u64) -> PowerCuts {
        PowerCuts::new(&self.disk(), states_max, seed)
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
                if matches!(fault, Fault::Full | Fault::Quota) {
                    self.full = Some(fault);
                }
                Err(fault)
            }
            _ => match self.full.filter(|_| needs_space) {
                Some(full) => Err(full),
                None => Ok(()),
            },
        }
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply_to(&mut self.names);
        self.names_unsynced.push(change);
    }
}

impl NameChange {
    fn apply_to(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Made { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Removed { name } => {
                names.remove(name);
            }
            Self::Renamed { from, to, file } => {
                names.remove(from);
                names.insert(to.clone(), *file);
            }
        }
    }

    /// The file that has a name by this.
    fn file(&self) -> Option<usize> {
        match self {
            Self::Made { file, .. } | Self::Renamed { file, .. } => Some(*file),
            Self::Removed { .. } => None,
        }
    }
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Self::Full => io::ErrorKind::StorageFull.into(),
            Self::Quota => io::ErrorKind::QuotaExceeded.into(),
            Self::Error | Self::Half => io::Error::other("injected fault"),
        }
    }
}

impl Content {
    fn change(&mut self, change: Change) {
        change.apply_to(&mut self.now);
        self.unsynced.push(change);
    }

    fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            change.apply_to(&mut self.durable);
        }
    }
}

impl Change {
    fn apply_to(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { position, bytes } => {
                let end = position + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[*position..end].copy_from_slice(bytes);
            }
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
                disk.change_name(NameChange::Made {
                    name: name.to_owned(),
                    file,
                });
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
        disk.change_name(NameChange::Removed {
            name: name.to_owned(),
        });
        Ok(())
    }

    /// In place of what has that name: on stable storage the old name is gone and the new one is there, or neither.
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        let Some(&file) = disk.names.get(from) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        disk.operation(false).map_err(Fault::error)?;
        disk.change_name(NameChange::Renamed {
            from: from.to_owned(),
            to: to.to_owned(),
            file,
        });
        Ok(())
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.operation(false).map_err(Fault::error)?;
        disk.names_durable = disk.names.clone();
        disk.names_unsynced.clear();
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

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        let position = usize::try_from(position).map_err(|_| io::ErrorKind::OutOfMemory)?;
        let done = disk.operation(true);
        let written = match done {
            Ok(()) => bytes,
            Err(Fault::Half | Fault::Full | Fault::Quota) => &bytes[..bytes.len() / 2],
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

    fn set_len(&self, bytes: u64) -> io::Result<()> {
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
        disk.files[self.file].sync();
        Ok(())
    }
}
