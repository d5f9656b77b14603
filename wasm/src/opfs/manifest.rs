//! Which file of a log is which of the browser's: in three copies, one of which is always whole.

use std::{collections::BinaryHeap, io};

use xxhash_rust::xxh3::xxh3_64;

/// How many copies there are, each a file of its own. With two the one that is durable would be all there is while
/// names change again and again before a flush; with three there is another that a kill leaves.
pub const COPIES: usize = 3;

/// What a copy begins with, and the version of all this.
const MAGIC: [u8; 8] = *b"proglog\x01";
const CHECKSUM_BYTES: usize = size_of::<u64>();
/// The file of a copy has a multiple of this, so that most changes need no more space: also where there is none left.
const BLOCK_BYTES: usize = 4 << 10;
/// A file that is longer is none of ours. It would name a million files.
pub(super) const BYTES_MAX: u64 = 64 << 20;
/// The longest name of a file.
pub(super) const NAME_BYTES_MAX: usize = u8::MAX as usize;

/// The names of a log's files, and the numbers by which the browser has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Of two copies that differ the one with the higher generation is the later.
    pub generation: u64,
    /// The number of each name.
    pub files: Names,
}

/// Names with a number each, in order. In a vector, for there are some hundreds at the most that matter: a `BTreeMap`
/// is five times the code, which a browser would have to load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<(String, u32)>);

impl Names {
    /// The number of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u32> {
        self.place(name).ok().map(|at| self.0[at].1)
    }

    /// Gives a name a number. The one that it had before, if it had one.
    pub fn insert(&mut self, name: &str, number: u32) -> Option<u32> {
        match self.place(name) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, number)),
            Err(at) => {
                self.0.insert(at, (name.to_owned(), number));
                None
            }
        }
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<u32> {
        let at = self.place(name).ok()?;
        Some(self.0.remove(at).1)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = u32> {
        self.0.iter().map(|(_, number)| *number)
    }

    /// Where a name is, or would be.
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }
}

impl Manifest {
    /// As it stands in a copy.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.generation.to_be_bytes());
        // Names have numbers of 32 bits each.
        bytes.extend((self.files.0.len() as u64).to_be_bytes());
        for (name, number) in &self.files.0 {
            bytes.extend(number.to_be_bytes());
            let length = name.len().min(NAME_BYTES_MAX);
            bytes.push(length.to_le_bytes()[0]);
            bytes.extend(&name.as_bytes()[..length]);
        }
        bytes.extend(xxh3_64(&bytes).to_be_bytes());
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        bytes
    }

    /// From a copy; none if that is not whole. What stands after it is passed over.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&MAGIC)?;
        let generation = u64::from_be_bytes(take(&mut rest)?);
        let count = u64::from_be_bytes(take(&mut rest)?);
        let mut files: Vec<(String, u32)> = Vec::new();
        for _ in 0..count {
            let number = u32::from_be_bytes(take(&mut rest)?);
            let [length] = take(&mut rest)?;
            let (name, after) = rest.split_at_checked(length.into())?;
            rest = after;
            let name = std::str::from_utf8(name).ok()?;
            // As they were put.
            if files.last().is_some_and(|(before, _)| &**before >= name) {
                return None;
            }
            files.push((name.to_owned(), number));
        }
        let covered = &bytes[..bytes.len() - rest.len()];
        let checksum: [u8; CHECKSUM_BYTES] = take(&mut rest)?;
        let files = Names(files);
        let manifest = Self { generation, files };
        let numbers = manifest.numbers();
        let is_whole = xxh3_64(covered) == u64::from_be_bytes(checksum)
            && numbers.windows(2).all(|pair| pair[0] != pair[1]);
        is_whole.then_some(manifest)
    }

    /// All numbers, in order.
    pub(super) fn numbers(&self) -> Vec<u32> {
        // A heap takes a tenth of the code of a sort, which a browser would have to load.
        let numbers: BinaryHeap<_> = self.files.numbers().collect();
        numbers.into_sorted_vec()
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

/// What the copies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing yet: no log was ever here.
    Nothing,
    /// This, in the copy of this number.
    Manifest {
        /// The copy's number.
        copy: usize,
        /// The latest there is.
        manifest: Manifest,
    },
}

/// Finds the latest of the copies. `has_files`: whether there is any file beside them.
///
/// # Errors
///
/// No copy is whole, though one was.
pub fn find(copies: &[Vec<u8>; COPIES], has_files: bool) -> io::Result<Found> {
    let whole = copies.iter().enumerate().filter_map(|(copy, bytes)| {
        let manifest = Manifest::decode(bytes)?;
        Some(Found::Manifest { copy, manifest })
    });
    let latest = whole.max_by_key(|found| match found {
        Found::Manifest { manifest, .. } => manifest.generation,
        Found::Nothing => 0,
    });
    if let Some(latest) = latest {
        return Ok(latest);
    }
    // The first is written and flushed before there is a second, and before there is any other file.
    let begun = copies.iter().filter(|bytes| !bytes.is_empty()).count();
    if begun <= 1 && !has_files {
        return Ok(Found::Nothing);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "none of the three copies of its manifest is whole, so that it is not known which file is which; the files are \
         left as they are: restore an export, or delete the log",
    ))
}
