//! What a power cut may leave of a disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use super::{Change, Content, Disk, FaultBackend, NameChange};

/// States that a power cut may leave, by [`FaultBackend::power_cuts`].
#[derive(Clone, Debug)]
pub struct PowerCuts {
    sector_bytes: usize,
    names: BTreeMap<String, usize>,
    name_changes: Vec<NameChange>,
    /// The durable bytes of each file.
    files: Vec<Vec<u8>>,
    /// What is in doubt; a state picks one of each.
    doubts: Vec<Doubt>,
    next: usize,
    states: usize,
    are_all: bool,
    chance: Chance,
}

/// Something that was changed since it was last synced. Its choices are numbered, the durable one is 0,
/// the newest the last.
#[derive(Clone, Debug)]
enum Doubt {
    /// Whether a change of a name happened, by its number.
    Name(usize),
    Length {
        file: usize,
        lengths: Vec<usize>,
    },
    Sector {
        file: usize,
        number: usize,
        versions: Vec<Vec<u8>>,
    },
}

/// Which of the doubts are settled for the newest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nothing,
    Everything,
    Names,
    Lengths,
    Bytes,
    AllBytesButOne(usize),
    NamesAndLengthsAndOneSector(usize),
}

/// The states taken in any case where there are too many to take all, besides single sectors.
const EXTREMES: [Kept; 5] = [
    Kept::Nothing,
    Kept::Everything,
    Kept::Names,
    Kept::Lengths,
    Kept::Bytes,
];

impl PowerCuts {
    pub(super) fn new(disk: &Disk, states_max: usize, seed: u64) -> Self {
        let mut doubts: Vec<_> = (0..disk.names_unsynced.len()).map(Doubt::Name).collect();
        // A file that has no name in any state is not looked at.
        let named: BTreeSet<usize> = disk
            .names_durable
            .values()
            .copied()
            .chain(disk.names_unsynced.iter().filter_map(NameChange::file))
            .collect();
        for file in named {
            disk.files[file].doubts(file, disk.sector_bytes, &mut doubts);
        }
        let all = doubts.iter().try_fold(1_usize, |states, doubt| {
            states
                .checked_mul(doubt.choices())
                .filter(|&states| states <= states_max)
        });
        Self {
            sector_bytes: disk.sector_bytes,
            names: disk.names_durable.clone(),
            name_changes: disk.names_unsynced.clone(),
            files: disk.files.iter().map(|file| file.durable.clone()).collect(),
            doubts,
            next: 0,
            states: all.unwrap_or(states_max),
            are_all: all.is_some(),
            chance: Chance(seed),
        }
    }

    /// Whether these are all the states that there may be.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.are_all
    }

    /// The state of a seed.
    pub(super) fn sample(&self, seed: u64) -> FaultBackend {
        self.state(&self.by_chance(&mut Chance(seed)))
    }

    /// The choices of the state of a number.
    fn choices(&mut self, number: usize) -> Vec<usize> {
        if self.are_all {
            let mut rest = number;
            let digit = |doubt: &Doubt| {
                let digit = rest % doubt.choices();
                rest /= doubt.choices();
                digit
            };
            return self.doubts.iter().map(digit).collect();
        }
        if let Some(&kept) = EXTREMES.get(number) {
            return self.settled(kept);
        }
        let sectors: Vec<_> = (0..self.doubts.len())
            .filter(|&i| matches!(self.doubts[i], Doubt::Sector { .. }))
            .collect();
        // Half of what is left goes to single sectors, spread over all of them.
        let single = number - EXTREMES.len();
        let room = (self.states - EXTREMES.len().min(self.states)) / 2;
        let singles = (2 * sectors.len()).min(room);
        if single < singles {
            let sector = sectors[single * sectors.len() / singles];
            return self.settled(if single.is_multiple_of(2) {
                Kept::AllBytesButOne(sector)
            } else {
                Kept::NamesAndLengthsAndOneSector(sector)
            });
        }
        let mut chance = mem::replace(&mut self.chance, Chance(0));
        let choices = self.by_chance(&mut chance);
        self.chance = chance;
        choices
    }

    fn settled(&self, kept: Kept) -> Vec<usize> {
        let choice = |(i, doubt): (usize, &Doubt)| {
            let newest = match (kept, doubt) {
                (Kept::Nothing, _) => false,
                (Kept::Everything, _) => true,
                (Kept::AllBytesButOne(lost), _) => i != lost,
                (Kept::NamesAndLengthsAndOneSector(one), Doubt::Sector { .. }) => i == one,
                (Kept::NamesAndLengthsAndOneSector(_), _) => true,
                (kept, Doubt::Name(_)) => kept == Kept::Names,
                (kept, Doubt::Length { .. }) => kept == Kept::Lengths,
                (kept, Doubt::Sector { .. }) => kept == Kept::Bytes,
            };
            if newest { doubt.choices() - 1 } else { 0 }
        };
        self.doubts.iter().enumerate().map(choice).collect()
    }

    fn by_chance(&self, chance: &mut Chance) -> Vec<usize> {
        // Nearly all lost, some, or nearly all kept: among many sectors even chances would hardly ever
        // keep a whole record.
        let newest_in_8 = [1, 4, 7][chance.below(3)];
        let choice = |doubt: &Doubt| {
            if chance.below(8) < newest_in_8 {
                doubt.choices() - 1
            } else {
                chance.below(doubt.choices())
            }
        };
        self.doubts.iter().map(choice).collect()
    }

    fn state(&self, choices: &[usize]) -> FaultBackend {
        let mut names = self.names.clone();
        let mut files = self.files.clone();
        // The lengths last: a sector may stand past the end.
        for (doubt, &choice) in self.doubts.iter().zip(choices) {
            match doubt {
                Doubt::Name(number) if choice == 1 => {
                    self.name_changes[*number].apply_to(&mut names);
                }
                Doubt::Sector {
                    file,
                    number,
                    versions,
                } => {
                    let sector = Change::Write {
                        position: number * self.sector_bytes,
                        bytes: versions[choice].clone(),
                    };
                    sector.apply_to(&mut files[*file]);
                }
                Doubt::Name(_) | Doubt::Length { .. } => {}
            }
        }
        let mut lengths: Vec<_> = self.files.iter().map(Vec::len).collect();
        for (doubt, &choice) in self.doubts.iter().zip(choices) {
            if let Doubt::Length { file, lengths: had } = doubt {
                lengths[*file] = had[choice];
            }
        }
        let content = |(mut bytes, length): (Vec<u8>, usize)| {
            bytes.resize(length, 0);
            Content {
                now: bytes.clone(),
                durable: bytes,
                unsynced: Vec::new(),
            }
        };
        FaultBackend::of(Disk {
            sector_bytes: self.sector_bytes,
            names_durable: names.clone(),
            names,
            files: files.into_iter().zip(lengths).map(content).collect(),
            ..Disk::default()
        })
    }
}

impl Iterator for PowerCuts {
    type Item = FaultBackend;

    fn next(&mut self) -> Option<FaultBackend> {
        if self.next == self.states {
            return None;
        }
        let choices = self.choices(self.next);
        self.next += 1;
        Some(self.state(&choices))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.states - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for PowerCuts {}

impl Doubt {
    fn choices(&self) -> usize {
        match self {
            Self::Name(_) => 2,
            Self::Length { lengths, .. } => lengths.len(),
            Self::Sector { versions, .. } => versions.len(),
        }
    }
}

impl Content {
    /// What of this file is in doubt.
    fn doubts(&self, file: usize, sector_bytes: usize, doubts: &mut Vec<Doubt>) {
        let mut lengths = vec![self.durable.len()];
        let mut sectors = BTreeMap::new();
        let mut bytes = self.durable.clone();
        for change in &self.unsynced {
            let before = bytes.len();
            change.apply_to(&mut bytes);
            if bytes.len() != before {
                add(&mut lengths, bytes.len());
            }
            let touched = match change {
                Change::Write {
                    position,
                    bytes: new,
                } => *position..position + new.len(),
                // What is cut off becomes zeros, in its own time; what is grown is that already.
                Change::Length(length) => *length..before,
            };
            if touched.is_empty() {
                continue;
            }
            for number in touched.start / sector_bytes..=(touched.end - 1) / sector_bytes {
                let versions = sectors
                    .entry(number)
                    .or_insert_with(|| vec![sector(&self.durable, number, sector_bytes)]);
                add(versions, sector(&bytes, number, sector_bytes));
            }
        }
        if lengths.len() > 1 {
            doubts.push(Doubt::Length { file, lengths });
        }
        for (number, versions) in sectors {
            if versions.len() > 1 {
                doubts.push(Doubt::Sector {
                    file,
                    number,
                    versions,
                });
            }
        }
    }
}

/// Adds a version, the newest. It may have been there before.
fn add<T: PartialEq>(versions: &mut Vec<T>, version: T) {
    // The durable one stays the first: it is what "lost" means.
    match versions.iter().position(|old| *old == version) {
        Some(0) => versions.push(version),
        Some(old) => {
            versions.remove(old);
            versions.push(version);
        }
        None => versions.push(version),
    }
    if let [first, last] = &versions[..]
        && first == last
    {
        versions.pop();
    }
}

/// A sector, with zeros past the end of the file.
fn sector(bytes: &[u8], number: usize, sector_bytes: usize) -> Vec<u8> {
    let start = (number * sector_bytes).min(bytes.len());
    let end = (start + sector_bytes).min(bytes.len());
    let mut sector = bytes[start..end].to_vec();
    sector.resize(sector_bytes, 0);
    sector
}

/// Seeded chance: splitmix64, <https://prng.di.unimi.it/splitmix64.c>.
#[derive(Clone, Debug)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::FaultBackend;
    use crate::{Access, Backend, BackendFile};

    fn states(disk: &FaultBackend) -> BTreeSet<Option<Vec<u8>>> {
        let cuts = disk.power_cuts(64, 0);
        assert!(cuts.are_all());
        cuts.map(|disk| disk.get("f")).collect()
    }

    #[test]
    fn a_sector_is_as_after_any_of_its_writes_but_none_is_skipped() {
        let disk = FaultBackend::with_sector_bytes(4);
        let file = disk.open("f", Access::Create).unwrap();
        file.write_at(&[1; 8], 0).unwrap();
        file.sync().unwrap();
        disk.sync_directory().unwrap();
        file.write_at(&[2; 2], 0).unwrap();
        file.write_at(&[3; 4], 2).unwrap();
        let first = [[1, 1, 1, 1], [2, 2, 1, 1], [2, 2, 3, 3]];
        let second = [[1, 1, 1, 1], [3, 3, 1, 1]];
        let expected = first
            .iter()
            .flat_map(|first| second.iter().map(|second| Some([*first, *second].concat())))
            .collect();
        assert_eq!(states(&disk), expected);
    }

    #[test]
    fn a_length_may_be_ahead_of_its_bytes_and_behind() {
        let disk = FaultBackend::with_sector_bytes(2);
        let file = disk.open("f", Access::Create).unwrap();
        disk.sync_directory().unwrap();
        file.write_at(&[1; 3], 0).unwrap();
        let expected: &[&[u8]] = &[&[], &[0, 0, 0], &[1, 1, 0], &[0, 0, 1], &[1, 1, 1]];
        let expected = expected.iter().map(|bytes| Some(bytes.to_vec())).collect();
        assert_eq!(states(&disk), expected);
    }

    #[test]
    fn what_was_cut_comes_back_only_while_the_cut_is_not_synced() {
        let disk = FaultBackend::with_sector_bytes(2);
        let file = disk.open("f", Access::Create).unwrap();
        file.write_at(&[1; 4], 0).unwrap();
        file.sync().unwrap();
        disk.sync_directory().unwrap();
        file.set_len(1).unwrap();
        file.set_len(4).unwrap();
        assert_eq!(disk.get("f").unwrap(), [1, 0, 0, 0]);
        assert!(states(&disk).contains(&Some(vec![1, 0, 1, 1])));
        file.set_len(1).unwrap();
        file.sync().unwrap();
        file.set_len(4).unwrap();
        let expected = [vec![1], vec![1, 0, 0, 0]].map(Some);
        assert_eq!(states(&disk), expected.into());
    }

    #[test]
    fn names_are_made_removed_and_renamed_or_not() {
        let disk = FaultBackend::new();
        disk.open("a", Access::Create).unwrap();
        disk.open("b", Access::Create).unwrap();
        disk.sync_directory().unwrap();
        disk.rename("a", "c").unwrap();
        disk.remove("b").unwrap();
        let found: BTreeSet<_> = disk
            .power_cuts(64, 0)
            .map(|disk| disk.list().unwrap().concat())
            .collect();
        let expected = ["ab", "a", "bc", "c"].map(str::to_owned);
        assert_eq!(found, expected.into());
    }

    #[test]
    fn of_too_many_states_the_extremes_are_taken() {
        let disk = FaultBackend::new();
        let file = disk.open("f", Access::Create).unwrap();
        file.write_at(&[1; 20 * 512], 0).unwrap();
        let cuts = disk.power_cuts(32, 0);
        assert!(!cuts.are_all());
        let found: Vec<_> = cuts.map(|disk| disk.get("f")).collect();
        assert_eq!(found.len(), 32);
        assert_eq!(found[..2], [None, Some(vec![1; 20 * 512])]);
    }
}
