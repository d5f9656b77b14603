//! Randomly damaged directories are repaired: what a comparison of bytes calls intact is still there, what was lost is
//! told, and nothing else is changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use fastrand::Rng;
use proglog::{Clock, Error, GapCause, Log, Offset, Options, Repair, SetAsideReason};
use proglog_tests::{
    damage::{Damaged, Frame, Original, bases, damaged, files_in, memory_directory, written},
    seeds,
    subject::Files,
};

/// What was met of a frame. From `UncheckedValue` on: what the rules of `FORMAT.md` cannot tell, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Frame,
    Intact,
    Lost,
    /// Stores removed at the beginning of the log, or at the end.
    StoresRemoved,
    /// A value of the book's records, which no checksum vouches for.
    UncheckedValue,
    /// A checked record whose length is damaged by more than a bit, so that it ends where one without a checksum would.
    CutShort,
    /// Intact, but a damaged length before it claims its bytes.
    Claimed,
    /// Intact, but more records are lost before it than the bytes there can have been.
    CutOut,
    /// Of the book's, intact, with neither an intact one next to it nor the end of the store.
    UncheckedAlone,
    /// A gap from before its segment on, intact, but not the first in its store any more.
    GapNotFirst,
    /// At the end of the log, where no right index vouches for them.
    TornTail,
    /// In a segment that the log was not known to have sealed, or a later one.
    Unsealed,
}

/// How often what was met. A frame counts once, of however many offsets its gap is.
#[derive(Debug, Default)]
struct Met {
    directories: u64,
    frames: BTreeMap<Of, u64>,
    /// What repairs did.
    rewritten: usize,
    made: usize,
    torn_tails: usize,
    trailing: usize,
}

impl Met {
    fn count(&self, of: &[Of]) -> u64 {
        of.iter().filter_map(|of| self.frames.get(of)).sum()
    }
}

#[test]
fn what_is_intact_stays_and_what_is_lost_is_told() {
    let met = std::cell::RefCell::new(Met::default());
    seeds::for_each("REPAIR", 1000, |rng| round(rng, &mut met.borrow_mut()));
    let met = met.into_inner();
    println!("{met:?}");
    if met.directories >= 900 {
        let claimed = met.count(&[Of::Claimed, Of::CutOut, Of::UncheckedAlone, Of::GapNotFirst]);
        let unsure = [Of::UncheckedValue, Of::CutShort, Of::TornTail, Of::Unsealed];
        let cannot_tell = claimed + met.count(&unsure);
        let (frames, lost) = (met.count(&[Of::Frame]), met.count(&[Of::Lost]));
        assert!(lost > 900 && met.count(&[Of::Intact]) > 20_000, "{met:?}");
        assert!(cannot_tell * 200 < frames, "{met:?}");
        assert!(claimed * 30 < lost, "{met:?}");
        assert!(met.rewritten > 100 && met.made > 10, "{met:?}");
        assert!(met.torn_tails > 10 && met.trailing > 5, "{met:?}");
    }
}

fn round(rng: &mut Rng, met: &mut Met) {
    let directory = memory_directory();
    let directory = directory.path();
    let options = Options::new()
        .segment_bytes_max(rng.u64(150..1200))
        .clock(Clock::NONE);
    let (original, closed) = written(directory, &options, rng);
    let damaged = damaged(directory, &original, rng);
    Round {
        directory,
        options,
        closed,
        before: files_in(directory),
        original,
        damaged,
        what: String::new(),
    }
    .check(met);
}

struct Round<'a> {
    directory: &'a Path,
    options: Options,
    closed: bool,
    original: Original,
    damaged: BTreeMap<String, Damaged>,
    before: Files,
    what: String,
}

impl Round<'_> {
    fn check(mut self, met: &mut Met) {
        if bases(&self.before).is_empty() {
            let refused = Log::repair(self.directory, self.options.clone());
            assert!(matches!(refused, Err(Error::InvalidArgument(_))));
            return;
        }
        let inodes = self.inodes();
        let plan = Log::plan_repair(self.directory, self.options.clone()).unwrap();
        assert_eq!(
            files_in(self.directory),
            self.before,
            "a plan changes nothing"
        );
        let repair = Log::repair(self.directory, self.options.clone()).unwrap();
        self.what = format!("closed: {}, {repair:?}", self.closed);
        assert_eq!(planned(&repair), planned(&plan), "{}", self.what);

        let log = Log::open_read_only(self.directory, self.options.clone()).unwrap();
        let report = log.verify().unwrap();
        assert!(report.is_sound(), "{report:#?} {}", self.what);
        assert_eq!(report.torn_tails().count(), 0, "{report:#?} {}", self.what);
        self.check_offsets(&log, &repair, met);
        drop(log);
        self.check_kept(&repair);
        self.check_untouched(&inodes);
        self.check_goes_on();
    }

    /// Each offset gives its record, or is told to be lost because it is.
    fn check_offsets(&self, log: &Log, repair: &Repair, met: &mut Met) {
        met.directories += 1;
        met.rewritten += repair.rewritten.len();
        met.made += repair.made.len();
        let set_aside = |reason| {
            repair
                .set_aside
                .iter()
                .filter(|other| other.reason == reason)
                .count()
        };
        met.torn_tails += set_aside(SetAsideReason::TornTail);
        met.trailing += set_aside(SetAsideReason::Trailing);
        let told: BTreeSet<u64> = repair
            .lost
            .iter()
            .flat_map(|lost| lost.first.0..=lost.last.0)
            .collect();
        assert_eq!(told.len() as u64, repair.offsets_lost(), "{}", self.what);
        let mut unaccounted = told.clone();
        let next = log.next_offset().0;
        for (n, frame) in self.original.frames.iter().enumerate() {
            let stands = self.position_of(frame);
            let mut of = BTreeSet::new();
            for offset in frame.first.max(self.original.lowest)..=frame.last {
                let what = format!(
                    "offset {offset} of segment {}, intact: {stands:?}, {}",
                    frame.base, self.what
                );
                of.insert(Of::Frame);
                of.extend(stands.map(|_| Of::Intact));
                unaccounted.remove(&offset);
                let is_told = told.contains(&offset);
                match log.read(Offset(offset)) {
                    Ok(read) => {
                        assert!(!is_told && !frame.is_gap, "{what}");
                        if read.frame() != frame.bytes {
                            assert!(stands.is_none(), "{what}");
                            let store = &self.before[&format!("{}.store", frame.base)];
                            assert!(
                                store.windows(read.frame().len()).any(|b| b == read.frame()),
                                "{what}"
                            );
                            if frame.is_checked {
                                assert!(is_cut_short(&frame.bytes, read.frame()), "{what}");
                                of.insert(Of::CutShort);
                            } else {
                                of.insert(Of::UncheckedValue);
                            }
                        }
                    }
                    Err(Error::Gap { cause, .. }) if !is_told => {
                        // It was not there before.
                        assert!(frame.is_gap && cause != GapCause::Lost, "{what}");
                    }
                    Err(Error::Gap { cause, .. }) => {
                        assert_eq!(cause, GapCause::Lost, "{what}");
                        of.insert(Of::Lost);
                        if let Some(position) = stands {
                            of.insert(self.intact_but_lost(repair, n, offset, position, &what));
                        }
                    }
                    Err(Error::OffsetOutOfRange { lowest, .. }) => {
                        assert!(!is_told, "{what}");
                        if offset < lowest.0 {
                            self.check_below(frame, lowest.0, &what);
                            of.insert(Of::StoresRemoved);
                        } else {
                            assert!(offset >= next, "{what}");
                            of.insert(self.check_beyond(n, next, &what));
                        }
                    }
                    Err(error) => panic!("{error}: {what}"),
                }
            }
            for of in of {
                *met.frames.entry(of).or_default() += 1;
            }
        }
        assert!(unaccounted.is_empty(), "{unaccounted:?} {}", self.what);
    }

    fn store(&self, base: u64) -> Option<&Damaged> {
        self.damaged.get(&format!("{base}.store"))
    }

    fn position_of(&self, frame: &Frame) -> Option<usize> {
        self.store(frame.base)?.position_of(frame)
    }

    fn intact_but_lost(
        &self,
        repair: &Repair,
        n: usize,
        offset: u64,
        position: usize,
        what: &str,
    ) -> Of {
        let frames = &self.original.frames;
        if frames[n].is_gap && frames[n].first < frames[n].base && position > 0 {
            return Of::GapNotFirst;
        }
        let stretch = repair
            .lost
            .iter()
            .find(|lost| (lost.first.0..=lost.last.0).contains(&offset))
            .unwrap();
        let kept = stretch.bytes.as_ref().expect(what);
        let from = usize::try_from(kept.position).unwrap();
        let bytes = &self.before[&format!("{}.store", frames[n].base)];
        // What stands where the bad bytes begin says how long it is.
        let claims = bytes[from..].first_chunk().is_some_and(|length| {
            let claimed = u64::from_be_bytes(*length);
            claimed <= 1 << 30 && kept.position + 8 + claimed > position as u64
        });
        let beside = |other: Option<&Frame>| {
            other.is_some_and(|f| f.base == frames[n].base && self.position_of(f).is_some())
        };
        // Or a record of the book's, of which bytes are gone, or to which some were added, ends elsewhere.
        let before = frames[..n].iter().rfind(|f| f.base == frames[n].base);
        let follows_unchecked =
            before.is_some_and(|f| !f.is_checked && self.position_of(f).is_none());
        // So few bytes are left before it that not all the records can have stood there.
        let lost_before = offset - stretch.first.0;
        let is_cut_out = position >= from && lost_before > (position - from).div_ceil(8) as u64;
        if is_cut_out {
            return Of::CutOut;
        }
        if (claims && from < position) || follows_unchecked {
            return Of::Claimed;
        }
        assert!(
            !frames[n].is_checked && !beside(frames.get(n + 1)),
            "intact, and lost: {what}"
        );
        Of::UncheckedAlone
    }

    /// The lowest stores are removed.
    fn check_below(&self, frame: &Frame, lowest: u64, what: &str) {
        let lowest_store = bases(&self.before)[0];
        assert_eq!(lowest, lowest_store, "{what}");
        assert!(frame.base < lowest || frame.first < lowest, "{what}");
    }

    /// The last stores are removed, or what stood at the end was no longer vouched for.
    fn check_beyond(&self, n: usize, next: u64, what: &str) -> Of {
        let frames = &self.original.frames;
        let last_store = *bases(&self.before).last().unwrap();
        if frames[n].base > last_store {
            return Of::StoresRemoved;
        }
        if next < last_store {
            // Then the last ones were taken for not begun, as their indexes have nothing by now, if they ever had.
            for base in bases(&self.before).into_iter().filter(|&base| base > next) {
                assert!(
                    !self.index_is_right(base) || self.entries(base) == 0,
                    "{what}"
                );
            }
            return Of::Unsealed;
        }
        assert_eq!(frames[n].base, last_store, "{what}");
        // Nothing before the first that is not intact is gone, but for what is of its batch.
        let of_last = frames.iter().filter(|frame| frame.base == last_store);
        let first_bad = of_last
            .clone()
            .find(|frame| self.position_of(frame).is_none())
            .unwrap_or_else(|| panic!("nothing is damaged: {what}"));
        assert!(next >= first_bad.batch_first, "{what}");
        // And only where no index vouches for it.
        let mut of_last = of_last;
        let moved = of_last.any(|frame| {
            self.position_of(frame)
                .is_some_and(|at| at != frame.position)
        });
        // One entry says nothing while the index is longer, and none says nothing.
        let entries = self.entries(last_store);
        let says_nothing = entries == 0 || (entries == 1 && !self.closed);
        assert!(
            !self.index_is_right(last_store) || moved || says_nothing,
            "{what}"
        );
        Of::TornTail
    }

    fn index_is_right(&self, base: u64) -> bool {
        let index = format!("{base}.index");
        self.before.get(&index) == self.original.files.get(&index)
    }

    /// How many entries the index of a segment had.
    fn entries(&self, base: u64) -> u64 {
        let frames = self.original.frames.iter();
        let of_segment = frames.filter(|frame| frame.base == base);
        let next = of_segment.map(|frame| frame.last + 1).max();
        next.unwrap_or(base).saturating_sub(base)
    }

    /// What was taken out is where the repair says.
    fn check_kept(&self, repair: &Repair) {
        let now = files_in(self.directory);
        let lost = repair.lost.iter().map(|lost| (lost.segment, &lost.bytes));
        let lost = lost.filter_map(|(base, kept)| Some((base, kept.as_ref()?)));
        let others = repair
            .set_aside
            .iter()
            .map(|other| (other.segment, &other.bytes));
        for (base, kept) in lost.chain(others) {
            let store = &self.before[&format!("{base}.store")];
            let file = &now[kept.file.as_ref().unwrap()];
            // A torn tail that was cut off before stands in a copy of its own.
            assert!(store.starts_with(file), "{}", self.what);
            assert!(
                kept.position + kept.bytes <= file.len() as u64,
                "{}",
                self.what
            );
            assert!(kept.bytes > 0, "{}", self.what);
        }
        let torn = repair.set_aside.iter();
        let torn = torn.filter(|other| other.reason == SetAsideReason::TornTail);
        for other in torn {
            let store = &self.before[&format!("{}.store", other.segment)];
            let file = &now[other.bytes.file.as_ref().unwrap()];
            assert_eq!(store, file, "{}", self.what);
        }
        for base in &repair.rewritten {
            let kept = now
                .keys()
                .any(|name| name.starts_with(&format!("{base}.store.damaged-")));
            assert!(kept, "{}", self.what);
        }
    }

    fn is_as_before(&self, base: u64) -> bool {
        ["store", "index"].iter().all(|kind| {
            let name = format!("{base}.{kind}");
            self.before.get(&name) == self.original.files.get(&name)
        })
    }

    #[cfg(unix)]
    fn inodes(&self) -> BTreeMap<String, u64> {
        use std::os::unix::fs::MetadataExt;
        let inode = |name: &String| fs::metadata(self.directory.join(name)).unwrap().ino();
        let names = self.before.keys();
        names.map(|name| (name.clone(), inode(name))).collect()
    }

    #[cfg(not(unix))]
    fn inodes(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    /// Segments without damage have the files they had.
    fn check_untouched(&self, before: &BTreeMap<String, u64>) {
        let now = files_in(self.directory);
        let inodes_now = Round {
            directory: self.directory,
            options: self.options.clone(),
            original: Original::of(self.original.files.clone()),
            damaged: BTreeMap::new(),
            before: now.clone(),
            closed: self.closed,
            what: String::new(),
        }
        .inodes();
        let bases = bases(&self.before);
        for &base in &bases[..bases.len() - 1] {
            let store = format!("{base}.store");
            if self.is_as_before(base) && now.contains_key(&store) {
                assert_eq!(now[&store], self.before[&store], "{store} {}", self.what);
                assert_eq!(inodes_now.get(&store), before.get(&store), "{}", self.what);
            }
        }
    }

    /// It is an ordinary log now.
    fn check_goes_on(&self) {
        let again = Log::repair(self.directory, self.options.clone()).unwrap();
        assert!(again.is_empty(), "{again:?} {}", self.what);
        let log = Log::open(self.directory, self.options.clone()).unwrap();
        assert!(log.recovery_report().is_sound(), "{}", self.what);
        let offset = log.append("after").unwrap();
        log.close().unwrap();
        let log = Log::open_read_only(self.directory, self.options.clone()).unwrap();
        assert_eq!(log.read(offset).unwrap().value(), b"after");
        assert!(log.verify().unwrap().is_sound(), "{}", self.what);
    }
}

/// Whether these bytes are a frame's but for its length, in which more than a bit is another.
fn is_cut_short(frame: &[u8], read: &[u8]) -> bool {
    let (length, record) = frame.split_at(8);
    let (other, rest) = read.split_at(8);
    let bits = |(a, b): (&u8, &u8)| (a ^ b).count_ones();
    record.starts_with(rest) && length.iter().zip(other).map(bits).sum::<u32>() > 1
}

/// What a plan tells of a repair.
fn planned(repair: &Repair) -> Repair {
    let mut repair = repair.clone();
    for lost in &mut repair.lost {
        if let Some(kept) = &mut lost.bytes {
            kept.file = None;
        }
    }
    for other in &mut repair.set_aside {
        other.bytes.file = None;
    }
    repair
}
