//! Giving up what is damaged, so that all the rest is sound.

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
use std::path::Path;
use std::{collections::BTreeMap, io};

use serde::{Deserialize, Serialize};

use super::{
    Log,
    open::{OpenedLog, open_to_look, open_to_write},
};
#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
use crate::FsBackend;
use crate::{
    Access, Backend, Damage, Damaged, Error, Gap, GapCause, IndexState, Offset, Options, Report,
    Result, SegmentReport,
    error::Thin,
    recovery::GAP_ENTRIES_MAX,
    segment::{Place, Rewritten, Segment, damaged_name, make_of_gap, set_aside, sync_directory},
};

/// What a repair did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Repair {
    /// The offsets whose records were given up, lowest first: reading them gives [`Error::Gap`] with
    /// [`GapCause::Lost`] from then on.
    pub lost: Vec<Lost>,
    /// Bytes that were taken out by which no offset is lost.
    pub set_aside: Vec<SetAside>,
    /// The bases of the segments that were written anew, lowest first.
    pub rewritten: Vec<Offset>,
    /// The bases of segments that were made to tell of lost offsets, and hold nothing else.
    pub made: Vec<Offset>,
}

/// A row of offsets whose records were given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Lost {
    /// The base offset of the segment in which they were damaged, or after whose end they are missing.
    pub segment: Offset,
    /// The first of them.
    pub first: Offset,
    /// The last of them.
    pub last: Offset,
    /// What is wrong with the first.
    pub reason: Damaged,
    /// The bytes that stood there; none where they are missing.
    pub bytes: Option<Kept>,
}

/// Bytes that were taken out of a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SetAside {
    /// The base offset of the segment.
    pub segment: Offset,
    /// What they are.
    pub reason: SetAsideReason,
    /// How many whole records that were never promised are among them.
    pub records: u64,
    /// The bytes.
    pub bytes: Kept,
}

/// What bytes are by which no offset is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SetAsideReason {
    /// What an unclean stop left at the end of the log: see [`TornTail`](crate::TornTail).
    TornTail,
    /// Bytes after the last record of a sealed segment.
    Trailing,
    /// Records of offsets that the next segment holds.
    Overlap,
    /// Bad bytes before a record that is sound, and the very one expected there.
    Stray,
}

/// Bytes that a repair kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Kept {
    /// The file in the log's directory that has them by now: a copy of the whole store as it was. `None` of what a
    /// repair would do.
    pub file: Option<String>,
    /// Where they start in it, as in the store before.
    pub position: u64,
    /// How many they are.
    pub bytes: u64,
}

impl Repair {
    /// Whether there was nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lost.is_empty() && self.set_aside.is_empty()
    }

    /// How many offsets are lost.
    #[must_use]
    pub fn offsets_lost(&self) -> u64 {
        let offsets = self.lost.iter().map(|lost| lost.last.since(lost.first));
        offsets.fold(0, |sum, more| sum.saturating_add(more).saturating_add(1))
    }

    /// Names the file that has what was taken out of a segment.
    fn kept_in(&mut self, segment: Offset, file: &str) {
        let lost = self.lost.iter_mut();
        let lost = lost.filter(|lost| lost.segment == segment);
        let lost = lost.filter_map(|lost| lost.bytes.as_mut());
        let others = self.set_aside.iter_mut();
        let others = others.filter(|other| other.segment == segment);
        for kept in lost.chain(others.map(|other| &mut other.bytes)) {
            kept.file.get_or_insert_with(|| file.to_owned());
        }
    }
}

#[cfg(not(all(target_arch = "wasm32", target_os = "unknown")))]
impl Log<FsBackend> {
    /// Makes the log in a directory sound again where it is damaged, in place of opening it: gives up every record
    /// that is damaged or missing, for good, and tells which. [`Log::verify`] then finds no damage. All that can be
    /// read stays, to the byte and at its offset, and segments without damage are not touched.
    ///
    /// What is taken out is kept: the store of a damaged segment is copied as it is to `{base}.store.damaged-{n}`
    /// first, which no log takes for its own, and so is that of the last segment before a torn tail is cut off, as
    /// opening does. The disk needs room for two copies of a damaged segment. After a crash each segment is as it was
    /// or as it is to be, and the repair can be done again.
    ///
    /// What `Options` say of segments and the index is as on opening the log.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] when there is no log; [`Error::Locked`] when another writer has it;
    /// [`Error::Io`].
    ///
    /// # Example
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let directory = directory.path();
    /// use proglog::{Error, GapCause, Log, Offset, Options};
    ///
    /// let log = Log::open(directory, Options::new())?;
    /// log.append_batch(["a", "b", "c"])?;
    /// log.close()?;
    /// let store = directory.join("0.store");
    /// let mut bytes = std::fs::read(&store)?;
    /// let in_b = bytes.len() / 2;
    /// bytes[in_b] ^= 1;
    /// std::fs::write(&store, bytes)?;
    ///
    /// let repair = Log::repair(directory, Options::new())?;
    /// assert_eq!((repair.lost[0].first, repair.lost[0].last), (Offset(1), Offset(1)));
    /// assert!(directory.join("0.store.damaged-1").exists());
    ///
    /// let log = Log::open(directory, Options::new())?;
    /// assert!(log.verify()?.is_sound());
    /// assert!(matches!(log.read(Offset(1)), Err(Error::Gap { cause: GapCause::Lost, .. })));
    /// assert_eq!(log.read(Offset(2))?.value(), b"c");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn repair(directory: impl AsRef<Path>, options: Options) -> Result<Repair> {
        // A directory that is not there is not made.
        FsBackend::open_read_only(&directory)?;
        Self::repair_on(FsBackend::open(directory)?, options)
    }

    /// What [`Log::repair`] would do. Nothing is changed; that no one else writes meanwhile is seen to.
    ///
    /// # Errors
    ///
    /// Those of [`Log::repair`].
    pub fn plan_repair(directory: impl AsRef<Path>, options: Options) -> Result<Repair> {
        FsBackend::open_read_only(&directory)?;
        Self::plan_repair_on(FsBackend::open(directory)?, options)
    }
}

impl<B: Backend> Log<B> {
    /// As `Log::repair`, on a backend.
    ///
    /// # Errors
    ///
    /// As `Log::repair`; that no one else writes is the caller's to see to.
    pub fn repair_on(backend: B, options: Options) -> Result<Repair> {
        let mut repairing = Repairing::begin(&backend, &options)?;
        let found = repairing.look()?;
        let is_torn = found.report.torn_tails().any(|tail| !tail.sealed)
            || found.active.reader().has_prepared_space()?;
        if repairing.plan(&found)?.is_empty() && !is_torn {
            // But for indexes that are wrong, which opening for writing does not see.
            let last = found.active.base();
            repairing.each(&found.sealed, last, Repairing::repair_segment)?;
            backend.release();
            return Ok(repairing.repair);
        }
        let planned = std::mem::take(&mut repairing.repair);
        repairing.found = planned.lost;
        repairing.keep_torn_tails(&found.report)?;
        drop(found);
        let mut opened = open_to_write(&backend, &options)?;
        if repairing.is_damaged(&opened)? {
            // So that it can be written anew.
            let next = opened.active.next_offset();
            opened.active.seal()?;
            opened.sealed.push(opened.active.base());
            opened.active = Segment::create(&backend, next, &options)?;
            sync_directory(&backend)?;
        }
        let next = opened.active.base();
        repairing.each(&opened.sealed, next, Repairing::repair_segment)?;
        opened.active.close()?;
        backend.release();
        Ok(repairing.repair)
    }

    /// As `Log::plan_repair`, on a backend.
    ///
    /// # Errors
    ///
    /// As `Log::plan_repair`; that no one else writes is the caller's to see to.
    pub fn plan_repair_on(backend: B, options: Options) -> Result<Repair> {
        let mut repairing = Repairing::begin(&backend, &options)?;
        let found = repairing.look()?;
        repairing.plan(&found)?;
        backend.release();
        Ok(repairing.repair)
    }
}

struct Repairing<'a, B> {
    backend: &'a B,
    options: &'a Options,
    repair: Repair,
    /// What is lost, as it was found before anything was changed: once zeros after it are cut off, bad bytes may claim more
    /// than there is.
    found: Vec<Lost>,
    /// The last segment but one, and how its index was found before anything was changed.
    last_sealed: Option<(Offset, IndexState)>,
    /// The sealed segments of which nothing is to be mended, and the base of the one after each. They need no second look.
    sound: BTreeMap<Offset, Offset>,
}

impl<'a, B: Backend> Repairing<'a, B> {
    fn begin(backend: &'a B, options: &'a Options) -> Thin<Self> {
        options.check()?;
        Ok(Self {
            backend,
            options,
            repair: Repair::default(),
            found: Vec::new(),
            last_sealed: None,
            sound: BTreeMap::new(),
        })
    }

    /// What there is, before anything is changed.
    fn look(&self) -> Thin<OpenedLog<B>> {
        open_to_look(self.backend, self.options)?.ok_or_else(|| {
            let name = self.backend.name();
            Error::invalid(format!("there is no log in {name}; give its directory"))
        })
    }

    /// Takes in what is to be done.
    fn plan(&mut self, found: &OpenedLog<B>) -> Thin<&Repair> {
        self.take_torn_tails(&found.report);
        let last = found.active.base();
        self.each(&found.sealed, last, |repairing, base, next| {
            let found = repairing.verify(base, Place::Sealed { next })?;
            repairing.last_sealed = Some((base, found.index));
            let is_whole = found.damage.is_empty() && found.torn_tail.is_none();
            if is_whole && found.index == IndexState::Sound {
                repairing.sound.insert(base, next);
            }
            let plan = Plan::of(&found, Some(next));
            repairing.take(base, &plan);
            Ok(())
        })?;
        let active = self.verify(last, Place::Last)?;
        let plan = Plan::of(&active, None);
        self.take(last, &plan);
        Ok(&self.repair)
    }

    /// Whether the last segment is.
    fn is_damaged(&self, opened: &OpenedLog<B>) -> Thin<bool> {
        let found = self.verify(opened.active.base(), Place::Last)?;
        Ok(!found.damage.is_empty())
    }

    fn take_torn_tails(&mut self, report: &Report) {
        for tail in report.torn_tails() {
            if !tail.sealed && !tail.zeros && tail.bytes > 0 {
                self.repair.set_aside.push(SetAside {
                    segment: tail.segment,
                    reason: SetAsideReason::TornTail,
                    records: tail.records,
                    bytes: Kept::at(tail.position, tail.bytes),
                });
            }
        }
    }

    /// Opening cuts them off.
    fn keep_torn_tails(&mut self, report: &Report) -> Thin<()> {
        self.take_torn_tails(report);
        let torn = self.repair.set_aside.iter();
        let torn: Vec<Offset> = torn.map(|tail| tail.segment).collect();
        torn.into_iter().try_for_each(|base| self.keep(base))
    }

    /// Keeps a copy of a segment's store, beside those that were kept before.
    fn keep(&mut self, base: Offset) -> Thin<()> {
        let names = self.backend.list();
        let names = names.map_err(|e| Error::io("list", self.backend.name(), e))?;
        let mut n = 1;
        loop {
            let name = damaged_name(base, n);
            // What has the name may be no file, which is not listed.
            if !names.contains(&name) && is_free(self.backend, &name) {
                set_aside(self.backend, base, &name)?;
                self.repair.kept_in(base, &name);
                return Ok(());
            }
            n += 1;
        }
    }

    /// Does something to each sealed segment, of which the last reaches to `end`.
    fn each(
        &mut self,
        sealed: &[Offset],
        end: Offset,
        mut repair: impl FnMut(&mut Self, Offset, Offset) -> Thin<()>,
    ) -> Thin<()> {
        let nexts = sealed.iter().skip(1).copied().chain([end]);
        for (&base, next) in sealed.iter().zip(nexts) {
            repair(self, base, next)?;
        }
        Ok(())
    }

    fn take(&mut self, base: Offset, plan: &Plan) {
        let lost = plan.lost.iter().map(|lost| as_found(&self.found, lost));
        self.repair.lost.extend(lost);
        self.repair.set_aside.extend_from_slice(&plan.set_aside);
        self.repair.made.extend(plan.told_after.map(|gap| gap.last));
        if plan.is_to_rewrite {
            self.repair.rewritten.push(base);
        }
    }

    fn verify(&self, base: Offset, place: Place) -> Thin<SegmentReport> {
        Segment::verify(self.backend, base, place, false, self.options)
    }

    fn repair_segment(&mut self, base: Offset, mut next: Offset) -> Thin<()> {
        if self.sound.get(&base) == Some(&next) {
            return Ok(());
        }
        let mut found = self.verify(base, Place::Sealed { next })?;
        if let Some((last_sealed, index)) = self.last_sealed
            && base == last_sealed
        {
            // Opening for writing may have made it anew, to tell of what is missing after a segment that is sound.
            found.index = index;
        }
        let plan = Plan::of(&found, Some(next));
        self.take(base, &plan);
        // First: were the index cut before something else tells of what it vouched for, a crash could end the log there.
        if let Some(gap) = plan.told_after {
            make_of_gap(self.backend, gap)?;
            next = gap.last;
        }
        let place = Place::Sealed { next };
        if plan.is_to_rewrite {
            self.keep(base)?;
            let opened = Segment::scan_files(self.backend, base, place, false, self.options)?;
            let mut damage = opened.report.map_or_else(Vec::new, |found| found.damage);
            for stretch in &mut damage {
                stretch.last = stretch.last.min(Offset(next.0 - 1));
            }
            let segment = opened.segment.reader();
            let written = Rewritten::write(self.backend, segment, &damage, &mut |_| None)?;
            written.put_index_in_place(self.backend)?;
            written.put_store_in_place(self.backend)?;
        } else if !matches!(found.index, IndexState::Sound) {
            // It is derived, and may stay as it is.
            let _ = Segment::scan_files(self.backend, base, place, true, self.options);
        }
        Ok(())
    }
}

/// What is lost, for the reason it was `found` for.
fn as_found(found: &[Lost], lost: &Lost) -> Lost {
    let at = found.partition_point(|found| found.first < lost.first);
    let before = found.get(at).filter(|found| found.first == lost.first);
    Lost {
        reason: before.map_or(lost.reason, |found| found.reason),
        ..lost.clone()
    }
}

/// Whether nothing has a name; also where that cannot be told, for then what it is for tells why.
fn is_free<B: Backend>(backend: &B, name: &str) -> bool {
    let opened = backend.open(name, Access::Read);
    opened.is_err_and(|e| e.kind() != io::ErrorKind::InvalidInput)
}

/// What is to be done about a segment.
#[derive(Default)]
struct Plan {
    lost: Vec<Lost>,
    set_aside: Vec<SetAside>,
    is_to_rewrite: bool,
    /// What a segment after it is to tell.
    told_after: Option<Gap>,
}

impl Plan {
    /// Of one before `next`, or of the last one, as it is before it is sealed.
    fn of(found: &SegmentReport, next: Option<Offset>) -> Self {
        let mut plan = Self::default();
        let base = found.base;
        for damage in &found.damage {
            let first = damage.first;
            let last = damage
                .last
                .min(next.map_or(damage.last, |next| Offset(next.0 - 1)));
            if damage.bytes_only || first > last {
                plan.set_aside.push(SetAside::of(damage, base));
                continue;
            }
            match plan.lost.last_mut() {
                // At the end of the last segment: bad bytes, and what the index says of what was after them.
                Some(before) if damage.bytes == 0 && before.end() == Some(damage.position) => {
                    before.last = last;
                }
                _ => plan.lost.push(Lost::of(damage, first, last)),
            }
        }
        let tail = found.torn_tail.as_ref().filter(|tail| tail.sealed);
        plan.set_aside.extend(tail.map(|tail| SetAside {
            segment: base,
            reason: SetAsideReason::Trailing,
            records: tail.records,
            bytes: Kept::at(tail.position, tail.bytes),
        }));
        let has_bytes = found.damage.iter().any(|damage| damage.bytes > 0);
        plan.is_to_rewrite = has_bytes || tail.is_some();
        let at_end = plan.lost.last();
        let Some(at_end) =
            at_end.filter(|lost| lost.end().is_none_or(|end| end == found.store_bytes))
        else {
            return plan;
        };
        // An index that goes on after the store tells that the store was cut. Otherwise the segment may be sound, and
        // what comes after it missing as a whole.
        let was_cut = next.is_none() || found.index == IndexState::Disagrees || at_end.last == base;
        let fits = at_end.last.next().since(base) <= GAP_ENTRIES_MAX;
        if (plan.is_to_rewrite || was_cut) && fits {
            plan.is_to_rewrite = true;
        } else {
            let gap = Gap::new(at_end.first, at_end.last.next(), GapCause::Lost);
            plan.told_after = Some(gap);
        }
        plan
    }
}

impl Lost {
    fn of(damage: &Damage, first: Offset, last: Offset) -> Self {
        Self {
            segment: damage.segment,
            first,
            last,
            reason: damage.reason,
            bytes: (damage.bytes > 0).then(|| Kept::at(damage.position, damage.bytes)),
        }
    }

    /// Where its bytes end.
    fn end(&self) -> Option<u64> {
        self.bytes.as_ref().map(|kept| kept.position + kept.bytes)
    }
}

impl SetAside {
    /// Of damage by which no offset of the segment is lost.
    fn of(damage: &Damage, base: Offset) -> Self {
        Self {
            segment: base,
            reason: match damage.bytes_only {
                true => SetAsideReason::Stray,
                false => SetAsideReason::Overlap,
            },
            records: 0,
            bytes: Kept::at(damage.position, damage.bytes),
        }
    }
}

impl Kept {
    fn at(position: u64, bytes: u64) -> Self {
        Self {
            file: None,
            position,
            bytes,
        }
    }
}
