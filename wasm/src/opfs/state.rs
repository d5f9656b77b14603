//! What a directory in the browser is made of, and how its names change.

use std::{cell::Cell, io, rc::Rc};

use super::{
    COPIES, Handle, Manifest, SPARES_MAX,
    handle::{at_most, write_all},
    manifest::Names,
};

/// What is copied at a time.
const COPIED_BYTES: usize = 64 << 10;

pub(super) struct State<H: Handle> {
    pub(super) copies: [H; COPIES],
    pub(super) manifest: Manifest,
    /// The copy that has the manifest durably, perhaps of an earlier generation.
    pub(super) durable: usize,
    /// The copy that was written last with another content.
    pub(super) latest: usize,
    pub(super) unsynced: bool,
    /// Whether a flush failed, after which what was written may be nowhere.
    pub(super) flush_failed: bool,
    /// Files with a name that are open.
    pub(super) open: Vec<Rc<Physical<H>>>,
    pub(super) spares: Vec<Physical<H>>,
    /// Files that lost their name since the manifest was last durable, and before.
    pub(super) left_unsynced: Vec<Left<H>>,
    pub(super) left: Vec<Left<H>>,
    /// Files that have no name, durably, and are not open: to be deleted.
    pub(super) unneeded: Vec<u32>,
    /// Files that were asked for and are not open, each once.
    pub(super) wanted: Vec<u32>,
    /// Whether a file was to be made and there was no spare.
    pub(super) lacked_spare: bool,
    /// Files that were written and get their names together.
    pub(super) importing: Vec<(String, Rc<Physical<H>>)>,
    pub(super) next_number: u32,
    /// Counts what files are used, to tell which was not for the longest.
    pub(super) uses: Rc<Cell<u64>>,
}

/// A file of the browser's, open.
#[derive(Debug)]
pub(super) struct Physical<H: Handle> {
    pub(super) number: u32,
    pub(super) handle: H,
    /// Whether its name leads elsewhere by now, or nowhere.
    pub(super) is_removed: Cell<bool>,
    pub(super) used: Cell<u64>,
}

/// A file that lost its name.
pub(super) enum Left<H: Handle> {
    Open(Rc<Physical<H>>),
    Closed(u32),
}

impl<H: Handle> State<H> {
    /// The open file of a name.
    pub(super) fn file(&mut self, name: &str) -> io::Result<&Rc<Physical<H>>> {
        let number = self.manifest.files.get(name);
        let number = number.ok_or(io::ErrorKind::NotFound)?;
        if !self.is_open(number) {
            self.want(name);
        }
        let used = self.use_now();
        let file = self.open.iter().find(|file| file.number == number);
        let file = file.ok_or_else(not_open)?;
        file.used.set(used);
        Ok(file)
    }

    pub(super) fn is_open(&self, number: u32) -> bool {
        self.open.iter().any(|file| file.number == number)
    }

    /// Notes what has to be opened: both files of a segment, for who needs one needs the other.
    pub(super) fn want(&mut self, name: &str) {
        let other = match name.rsplit_once('.') {
            Some((base, "store")) => format!("{base}.index"),
            Some((base, "index")) => format!("{base}.store"),
            _ => String::new(),
        };
        let numbers = [name, &other].map(|name| self.manifest.files.get(name));
        for number in numbers.into_iter().flatten() {
            if !self.wanted.contains(&number) {
                self.wanted.push(number);
            }
        }
    }

    pub(super) fn use_now(&self) -> u64 {
        self.uses.set(self.uses.get() + 1);
        self.uses.get()
    }

    pub(super) fn add_spare(&mut self, number: u32, handle: H) -> io::Result<()> {
        let emptied = handle.is_empty().and_then(|is_empty| {
            if is_empty {
                return Ok(());
            }
            // Old bytes may not come back to life under another name.
            handle.truncate(0)?;
            handle.flush()
        });
        if let Err(e) = emptied {
            handle.close();
            self.unneeded.push(number);
            return Err(e);
        }
        self.spares.push(Physical::new(number, handle));
        Ok(())
    }

    pub(super) fn take_spare(&mut self) -> io::Result<Physical<H>> {
        if self.spares.is_empty() {
            self.recycle();
        }
        let spare = self.spares.pop();
        self.lacked_spare |= spare.is_none();
        spare.ok_or_else(not_open)
    }

    /// Makes spares of files that lost their names durably and that no one reads any more.
    pub(super) fn recycle(&mut self) {
        for left in std::mem::take(&mut self.left) {
            match left {
                Left::Closed(number) => self.unneeded.push(number),
                Left::Open(file) => match Rc::try_unwrap(file) {
                    Err(file) => self.left.push(Left::Open(file)),
                    Ok(file) if self.spares.len() < SPARES_MAX => {
                        // One that cannot be emptied is deleted.
                        let _ = self.add_spare(file.number, file.handle);
                    }
                    Ok(file) => {
                        file.handle.close();
                        self.unneeded.push(file.number);
                    }
                },
            }
        }
    }

    /// The file of this number has no name any more.
    pub(super) fn leave(&mut self, number: u32) {
        let open = self.open.iter().position(|file| file.number == number);
        self.left_unsynced.push(match open {
            Some(at) => {
                let file = self.open.swap_remove(at);
                file.is_removed.set(true);
                Left::Open(file)
            }
            None => Left::Closed(number),
        });
    }

    /// Writes the manifest, and goes back to these names if it cannot.
    pub(super) fn write_manifest_or(&mut self, before: Names) -> io::Result<()> {
        self.write_manifest()
            .inspect_err(|_| self.manifest.files = before)
    }

    /// Writes the manifest to a copy that is neither the one on stable storage nor the latest: should this be cut
    /// short, by a kill or a power cut, there is that.
    pub(super) fn write_manifest(&mut self) -> io::Result<()> {
        self.manifest.generation += 1;
        let bytes = self.manifest.encode();
        let copy = self.copy_to_write();
        write_all(&self.copies[copy], &bytes, 0)?;
        self.latest = copy;
        self.unsynced = true;
        Ok(())
    }

    pub(super) fn copy_to_write(&self) -> usize {
        let after = (1..COPIES).map(|n| (self.latest + n) % COPIES);
        after
            .filter(|&copy| copy != self.durable)
            .last()
            .unwrap_or((self.durable + 1) % COPIES)
    }

    /// Returns once all names are on stable storage.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if !self.unsynced {
            return Ok(());
        }
        if self.flush_failed {
            self.write_manifest()?;
        }
        self.flush_failed = true;
        self.copies[self.latest].flush()?;
        self.flush_failed = false;
        self.durable = self.latest;
        self.unsynced = false;
        self.left.append(&mut self.left_unsynced);
        self.copy_manifest_to(1);
        Ok(())
    }

    /// Writes the manifest to the copy that comes so many after the one that has it durably, so that damage of one is
    /// none of the log's. It need not be durable.
    pub(super) fn copy_manifest_to(&mut self, after: usize) {
        let copy = (self.durable + after) % COPIES;
        let _ = write_all(&self.copies[copy], &self.manifest.encode(), 0);
    }

    /// A copy of the first `bytes` bytes of a file, durably.
    pub(super) fn copy(&mut self, from: &Physical<H>, bytes: u64) -> io::Result<Physical<H>> {
        let to = self.take_spare()?;
        let copied = (|| {
            let mut buffer = vec![0; COPIED_BYTES];
            let mut at = 0;
            while at < bytes {
                let part =
                    usize::try_from(bytes - at).map_or(COPIED_BYTES, |rest| rest.min(COPIED_BYTES));
                let read = at_most(from.handle.read(&mut buffer[..part], at)?, part)?;
                if read == 0 {
                    break;
                }
                write_all(&to.handle, &buffer[..read], at)?;
                at += read as u64;
            }
            // Where it is to be longer, with zeros.
            if at < bytes {
                to.handle.truncate(bytes)?;
            }
            to.handle.flush()
        })();
        match copied {
            Ok(()) => Ok(to),
            Err(e) => {
                self.left.push(Left::Open(Rc::new(to)));
                Err(e)
            }
        }
    }
}

impl<H: Handle> Physical<H> {
    pub(super) fn new(number: u32, handle: H) -> Self {
        Self {
            number,
            handle,
            is_removed: Cell::new(false),
            used: Cell::new(0),
        }
    }
}

pub(super) fn not_open() -> io::Error {
    io::Error::new(
        io::ErrorKind::WouldBlock,
        "the browser has to open a file for that, which it does between calls",
    )
}
