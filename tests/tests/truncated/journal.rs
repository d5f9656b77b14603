//! What the writer tells of itself in a file, before and after it does something, for the readers to judge what they
//! see by.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    ops::Range,
    path::Path,
};

/// One thing told. A removal at the end begins a new generation: records of its offsets are given anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// All records from an offset on are about to be removed.
    CutBegins { from: u64 },
    /// They are, and the next record gets this offset.
    CutEnds { next: u64 },
    /// Segments below an offset are about to be removed.
    RemovalBegins { before: u64 },
    /// They are, and this is the lowest offset left.
    RemovalEnds { lowest: u64 },
    /// All records before an offset are with the operating system.
    Written { next: u64 },
    /// All records before an offset are on stable storage.
    Synced { next: u64 },
}

const ENTRY_BYTES: usize = 9;

impl Entry {
    fn encode(self) -> [u8; ENTRY_BYTES] {
        let (kind, number) = match self {
            Self::CutBegins { from } => (0, from),
            Self::CutEnds { next } => (1, next),
            Self::RemovalBegins { before } => (2, before),
            Self::RemovalEnds { lowest } => (3, lowest),
            Self::Written { next } => (4, next),
            Self::Synced { next } => (5, next),
        };
        let mut bytes = [kind; ENTRY_BYTES];
        bytes[1..].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn decode(bytes: [u8; ENTRY_BYTES]) -> Self {
        let [kind, number @ ..] = bytes;
        let number = u64::from_be_bytes(number);
        match kind {
            0 => Self::CutBegins { from: number },
            1 => Self::CutEnds { next: number },
            2 => Self::RemovalBegins { before: number },
            3 => Self::RemovalEnds { lowest: number },
            4 => Self::Written { next: number },
            5 => Self::Synced { next: number },
            _ => panic!("{bytes:?} is no entry"),
        }
    }
}

/// The file, and what was read of it.
pub(crate) struct Journal {
    /// Only the writer has it open for writing, and not with the cursor that reads.
    appended: Option<File>,
    file: File,
    unread: Vec<u8>,
    told: Told,
}

impl Journal {
    pub(crate) fn create(path: &Path) -> Self {
        let appended = OpenOptions::new().append(true).create(true).open(path);
        Self {
            appended: Some(appended.unwrap()),
            ..Self::open(path)
        }
    }

    pub(crate) fn open(path: &Path) -> Self {
        Self {
            appended: None,
            file: File::open(path).unwrap(),
            unread: Vec::new(),
            told: Told::default(),
        }
    }

    pub(crate) fn tell(&mut self, entry: Entry) {
        let file = self.appended.as_mut().expect("the writer");
        file.write_all(&entry.encode()).unwrap();
    }

    /// What is told by now.
    pub(crate) fn read(&mut self) -> &Told {
        self.file.read_to_end(&mut self.unread).unwrap();
        let (entries, rest) = self.unread.as_chunks();
        for &entry in entries {
            self.told.take(Entry::decode(entry));
        }
        self.unread = rest.to_vec();
        &self.told
    }
}

/// What is known of the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// From where on each generation's records stand; the first is the generation 0.
    pub cuts: Vec<u64>,
    /// Whether the last cut is not over.
    pub is_cutting: bool,
    /// The removals at the beginning: before which offset.
    pub removals: Vec<u64>,
    pub is_removing: bool,
    /// No record has a lower offset.
    pub lowest: u64,
    /// All records before it are written.
    pub written: u64,
    pub synced: u64,
    entries: u64,
}

impl Told {
    fn take(&mut self, entry: Entry) {
        self.entries += 1;
        match entry {
            Entry::CutBegins { from } => {
                if let Some(killed) = self.cuts.last_mut().filter(|_| self.is_cutting) {
                    // It went no further than to where the next one begins.
                    *killed = u64::MAX;
                }
                self.cuts.push(from);
                self.is_cutting = true;
            }
            Entry::CutEnds { next } => {
                self.is_cutting = false;
                self.is_removing = false;
                self.written = next;
                self.synced = self.synced.min(next);
                self.lowest = self.lowest.min(next);
            }
            Entry::RemovalBegins { before } => {
                self.removals.push(before);
                self.is_removing = true;
            }
            Entry::RemovalEnds { lowest } => {
                self.is_removing = false;
                self.lowest = lowest;
            }
            Entry::Written { next } => self.written = next,
            Entry::Synced { next } => self.synced = next,
        }
    }

    pub(crate) fn has_written(&self) -> bool {
        self.entries > 2
    }

    /// The generation that records appended now are of, if no cut is going on.
    pub(crate) fn generation(&self) -> u64 {
        self.cuts.len() as u64
    }

    /// The oldest generation that a record of this offset may be of.
    pub(crate) fn oldest(&self, offset: u64) -> u64 {
        let over = self.cuts.len() - usize::from(self.is_cutting);
        let cut = self.cuts[..over].iter().rposition(|&from| from <= offset);
        cut.map_or(0, |cut| cut as u64 + 1)
    }

    /// Whether a record of this offset may have been removed since `before` was told.
    pub(crate) fn may_have_removed(&self, before: &Self, offset: u64) -> bool {
        let cuts = &self.cuts[before.cuts.len() - usize::from(before.is_cutting)..];
        let removals = &self.removals[before.removals.len() - usize::from(before.is_removing)..];
        cuts.iter().any(|&from| from <= offset) || removals.iter().any(|&first| first > offset)
    }

    /// Whether anything was removed since `before` was told.
    pub(crate) fn has_removed_since(&self, before: &Self) -> bool {
        !self.is_uncut_since(before)
            || before.is_removing
            || self.removals.len() > before.removals.len()
    }

    /// Whether nothing was removed at the end since `before` was told.
    pub(crate) fn is_uncut_since(&self, before: &Self) -> bool {
        !before.is_cutting && self.cuts.len() == before.cuts.len()
    }

    /// Whether a cut since this generation was in this batch: a beginning of it is then left.
    pub(crate) fn is_cut_in(&self, generation: u64, batch: &Range<u64>) -> bool {
        let later = usize::try_from(generation).unwrap();
        self.cuts[later..]
            .iter()
            .any(|from| batch.contains(from) && batch.start != *from)
    }

    pub(crate) fn summary(&self) -> String {
        let Self { cuts, removals, .. } = self;
        format!(
            "{} cuts at the end, {} removals at the beginning, {} entries",
            cuts.len(),
            removals.len(),
            self.entries
        )
    }
}
