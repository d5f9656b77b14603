//! A log's files in a browser's origin private file system, which opens, makes and removes files only between calls.
//!
//! A log needs files made, renamed and removed at once, in order and durably. So its names are not the browser's: a
//! [`Manifest`] says which of the browser's files, which have numbers, has which name, and a change of names is one
//! write of that. A file that is made is a *spare*, which was opened beforehand and is empty; one that is removed
//! becomes a spare once the manifest without it is durable. As SQLite's opfs-sahpool has it
//! (<https://sqlite.org/wasm/doc/trunk/persistence.md>), but for the manifest, which makes renaming atomic.
//!
//! What is open is up to who drives this, between calls: [`Opfs::take_wanted`] tells what a call would have needed.

mod file;
mod handle;
mod manifest;
mod state;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
mod sync_access;

use std::{
    cell::{RefCell, RefMut},
    fmt, io,
    rc::Rc,
};

use proglog::{Access, Backend};

#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
pub use self::sync_access::SyncAccessHandle;
pub use self::{
    file::OpfsFile,
    handle::Handle,
    manifest::{COPIES, Found, Manifest, Names, find},
};
use self::{
    handle::read_all,
    manifest::{BYTES_MAX, NAME_BYTES_MAX},
    state::{Left, Physical, State},
};

/// So many zeros are written ahead of a log's records at the most: a flush of records that the file has room for takes a
/// little more than half as long in Chromium on ext4, for the file system has nothing to write beside them.
const PREPARED_BYTES: u64 = 1 << 20;

/// So many spares are kept of files that were removed; who drives this makes others.
pub const SPARES_MAX: usize = 8;

/// A directory of a log's files in the browser. Clones share it.
pub struct Opfs<H: Handle> {
    name: Rc<str>,
    state: Rc<RefCell<State<H>>>,
}

impl<H: Handle> Clone for Opfs<H> {
    fn clone(&self) -> Self {
        Self {
            name: Rc::clone(&self.name),
            state: Rc::clone(&self.state),
        }
    }
}

impl<H: Handle> fmt::Debug for Opfs<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opfs")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<H: Handle> Opfs<H> {
    /// The directory whose manifest is in these files, all three open, and empty at first. `numbers` are those of all
    /// other files there are.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] where no copy of the manifest is whole; the files cannot be read or written.
    pub fn open(name: &str, copies: [H; COPIES], numbers: &[u32]) -> io::Result<Self> {
        let mut bytes = [const { Vec::new() }; COPIES];
        for (copy, bytes) in copies.iter().zip(&mut bytes) {
            *bytes = read_all(copy, BYTES_MAX)?;
        }
        let (manifest, latest, unsynced) = match find(&bytes, !numbers.is_empty())? {
            Found::Manifest { copy, manifest } => (manifest, copy, false),
            Found::Nothing => (Manifest::default(), COPIES - 1, true),
        };
        let named = manifest.files.numbers();
        let last = named.chain(numbers.iter().copied()).max();
        let mut state = State {
            copies,
            durable: latest,
            latest,
            unsynced,
            flush_failed: false,
            open: Vec::new(),
            spares: Vec::new(),
            left_unsynced: Vec::new(),
            left: Vec::new(),
            unneeded: Vec::new(),
            wanted: Vec::new(),
            lacked_spare: false,
            importing: Vec::new(),
            next_number: last.map_or(0, |last| last.saturating_add(1)),
            uses: Rc::default(),
            manifest,
        };
        if unsynced {
            state.write_manifest()?;
            state.sync()?;
        } else {
            // A process that was killed may have written it and not flushed it.
            state.copies[latest].flush()?;
            state.copy_manifest_to(1);
            state.copy_manifest_to(2);
        }
        let named = state.manifest.numbers();
        let others = numbers
            .iter()
            .filter(|number| named.binary_search(number).is_err());
        state.unneeded = others.copied().collect();
        Ok(Self {
            name: name.into(),
            state: Rc::new(RefCell::new(state)),
        })
    }

    fn state(&self) -> RefMut<'_, State<H>> {
        self.state.borrow_mut()
    }

    /// The number that a new file is to have, which is then given to [`Opfs::add_spare`].
    ///
    /// # Errors
    ///
    /// They are used up: four milliards.
    pub fn next_number(&self) -> io::Result<u32> {
        let mut state = self.state();
        let number = state.next_number;
        let next = number.checked_add(1);
        state.next_number = next.ok_or_else(|| io::Error::other("no number is left for a file"))?;
        Ok(number)
    }

    /// How many files can be made before others have to be added.
    #[must_use]
    pub fn spares(&self) -> usize {
        let mut state = self.state();
        state.recycle();
        state.spares.len()
    }

    /// Adds a file that can be given a name; what it holds goes.
    ///
    /// # Errors
    ///
    /// It cannot be emptied; then it is closed.
    pub fn add_spare(&self, number: u32, handle: H) -> io::Result<()> {
        self.state().add_spare(number, handle)
    }

    /// The numbers of the files that calls asked for in vain since this was last called.
    #[must_use]
    pub fn take_wanted(&self) -> Vec<u32> {
        let mut state = self.state();
        let wanted = std::mem::take(&mut state.wanted);
        let is_missing = |number: &u32| !state.is_open(*number);
        wanted.into_iter().filter(is_missing).collect()
    }

    /// Whether a call had no spare to make a file of since this was last called.
    #[must_use]
    pub fn take_lacked_spare(&self) -> bool {
        std::mem::take(&mut self.state().lacked_spare)
    }

    /// The numbers of all files that have a name and are not open.
    #[must_use]
    pub fn closed_files(&self) -> Vec<u32> {
        let state = self.state();
        let numbers = state.manifest.files.numbers();
        numbers.filter(|&number| !state.is_open(number)).collect()
    }

    /// Adds a file that was opened. If it has lost its name meanwhile, it is closed.
    pub fn add_open(&self, number: u32, handle: H) {
        let mut state = self.state();
        let has_name = state.manifest.files.numbers().any(|named| named == number);
        if !has_name || state.is_open(number) {
            handle.close();
            return;
        }
        let file = Physical::new(number, handle);
        file.used.set(state.use_now());
        state.open.push(Rc::new(file));
    }

    /// Closes files that no one reads, those first that were not opened for the longest, until `open_max` with a name
    /// are left open.
    pub fn close_least_used(&self, open_max: usize) {
        let mut state = self.state();
        while state.open.len() > open_max {
            let idle = state.open.iter().enumerate();
            let idle = idle.filter(|(_, file)| Rc::strong_count(file) == 1);
            let Some((at, _)) = idle.min_by_key(|(_, file)| file.used.get()) else {
                return;
            };
            state.open.swap_remove(at).handle.close();
        }
    }

    /// The numbers of files that can be deleted: they have no name, durably, and are not open.
    #[must_use]
    pub fn take_unneeded(&self) -> Vec<u32> {
        let mut state = self.state();
        state.recycle();
        std::mem::take(&mut state.unneeded)
    }

    /// How many bytes a file has.
    ///
    /// # Errors
    ///
    /// There is none of this name, or it is not open; or the browser's.
    pub fn file_bytes(&self, name: &str) -> io::Result<u64> {
        self.state().file(name)?.handle.len()
    }

    /// A file of a log that is being brought here: it gets its name with the others, by [`Opfs::finish_import`].
    ///
    /// # Errors
    ///
    /// No spare is left: [`io::ErrorKind::WouldBlock`]; the name is too long, or taken.
    pub fn import(&self, name: &str) -> io::Result<OpfsFile<H>> {
        let mut state = self.state();
        let is_taken = state.manifest.files.get(name).is_some();
        if is_taken || name.len() > NAME_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let begun = state.importing.iter().find(|(begun, _)| begun == name);
        let file = match begun {
            Some((_, file)) => Rc::clone(file),
            None => {
                let file = Rc::new(state.take_spare()?);
                state.importing.push((name.to_owned(), Rc::clone(&file)));
                file
            }
        };
        Ok(OpfsFile::of(file))
    }

    /// Gives the files that were imported their names, all or none, durably.
    ///
    /// # Errors
    ///
    /// The browser's.
    pub fn finish_import(&self) -> io::Result<()> {
        let mut state = self.state();
        for (_, file) in &state.importing {
            file.handle.flush()?;
        }
        let before = state.manifest.files.clone();
        for (name, file) in std::mem::take(&mut state.importing) {
            state.manifest.files.insert(&name, file.number);
            state.open.push(file);
        }
        state.write_manifest_or(before)?;
        state.sync()
    }

    /// Closes all files. Whatever is called afterwards fails, as the browser's does.
    pub fn close(&self) {
        let state = self.state();
        let open = state.open.iter().map(|file| &file.handle);
        let spares = state.spares.iter().map(|file| &file.handle);
        let importing = state.importing.iter().map(|(_, file)| &file.handle);
        let left = state.left.iter().chain(&state.left_unsynced);
        let left = left.filter_map(|left| match left {
            Left::Open(file) => Some(&file.handle),
            Left::Closed(_) => None,
        });
        let all = open.chain(spares).chain(importing).chain(left);
        all.chain(&state.copies).for_each(H::close);
    }
}

impl<H: Handle> Backend for Opfs<H> {
    type File = OpfsFile<H>;

    fn name(&self) -> String {
        self.name.to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self
            .state()
            .manifest
            .files
            .names()
            .map(str::to_owned)
            .collect())
    }

    fn open(&self, name: &str, access: Access) -> io::Result<OpfsFile<H>> {
        let mut state = self.state();
        if access != Access::Create || state.manifest.files.get(name).is_some() {
            return Ok(OpfsFile::of(Rc::clone(state.file(name)?)));
        }
        if name.len() > NAME_BYTES_MAX {
            return Err(io::ErrorKind::InvalidFilename.into());
        }
        let file = Rc::new(state.take_spare()?);
        let before = state.manifest.files.clone();
        state.manifest.files.insert(name, file.number);
        if let Err(e) = state.write_manifest_or(before) {
            // That may have reached the manifest, so that it may not be another's now.
            state.left_unsynced.push(Left::Open(file));
            return Err(e);
        }
        file.used.set(state.use_now());
        state.open.push(Rc::clone(&file));
        Ok(OpfsFile::of(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let before = state.manifest.files.clone();
        let number = state.manifest.files.remove(name);
        let number = number.ok_or(io::ErrorKind::NotFound)?;
        state.write_manifest_or(before)?;
        state.leave(number);
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let before = state.manifest.files.clone();
        let number = state.manifest.files.remove(from);
        let number = number.ok_or(io::ErrorKind::NotFound)?;
        let replaced = state.manifest.files.insert(to, number);
        state.write_manifest_or(before)?;
        if let Some(replaced) = replaced {
            state.leave(replaced);
        }
        Ok(())
    }

    /// Where it is open elsewhere, it is replaced by a shorter copy.
    fn cut(&self, name: &str, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        let file = Rc::clone(state.file(name)?);
        // The directory has it, and we do.
        if Rc::strong_count(&file) == 2 {
            file.handle.truncate(bytes)?;
            return file.handle.flush();
        }
        let copy = Rc::new(state.copy(&file, bytes)?);
        let before = state.manifest.files.clone();
        state.manifest.files.insert(name, copy.number);
        if let Err(e) = state.write_manifest_or(before) {
            state.left_unsynced.push(Left::Open(copy));
            return Err(e);
        }
        state.leave(file.number);
        state.open.push(copy);
        state.sync()
    }

    fn prepare_bytes(&self) -> u64 {
        PREPARED_BYTES
    }

    /// They would take the spares that a roll needs.
    fn prepares_files(&self) -> bool {
        false
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.state().sync()
    }
}
