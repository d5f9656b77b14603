//! Getting records onto stable storage: one leader syncs for all who wait.
//!
//! Group commit as databases have long had it (DeWitt et al., "Implementation techniques for main memory
//! database systems", 1984), without its timer: while one sync runs, appends gather for the next.

use std::{
    collections::VecDeque,
    ops::RangeInclusive,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
};

use super::{Segment, SegmentReader, Shared, gather::Gathering, view::Slot};
use crate::{Backend, Error, Offset, error::Thin, segment::sync_directory};

/// Who comes while a sync is running waits for that one and for the next.
const SYNCS_AWAKE: u32 = 2;
/// After so many syncs a log is taken for one that syncs often, whose space is worth preparing.
const SYNCS_BEFORE_PREPARING: u64 = 8;
/// The least to prepare at a time, and the most while appends go on.
const PREPARE_BYTES: RangeInclusive<u64> = 64 << 10..=4 << 20;
/// Where more is synced at a time, zeros written meanwhile would cost more than they save.
const SYNCED_BYTES_MAX: u64 = 128 << 10;
/// And where there is no worker, so that they are written by who appends.
const SYNCED_BYTES_MAX_ALONE: u64 = 32 << 10;

/// Who syncs, and what there is to sync beside the active segment.
#[derive(Debug)]
pub(super) struct Commit<B: Backend> {
    state: Mutex<State>,
    /// Whether a leader is at work. Changed by who holds `state`.
    led: AtomicBool,
    changed: Condvar,
    /// The offset after the last record appended.
    appended: AtomicU64,
    /// How many have come to have records synced.
    arrived: AtomicU64,
    /// Segments before the active one that are not sealed yet, lowest first.
    unsealed: Mutex<VecDeque<Unsealed<B>>>,
    unsealed_count: AtomicUsize,
    /// Whether files were made that the directory may not have durably.
    directory_unsynced: Mutex<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// How many wait for it.
    waiting: usize,
    /// How many wait to lead for something else than a sync: who comes to sync lets them.
    claims: usize,
    gathering: Gathering,
    /// The active segment when it was synced last, and the end of its store.
    synced_to: (Offset, u64),
    synced: Synced,
}

/// What was synced.
#[derive(Clone, Copy, Debug, Default)]
struct Synced {
    syncs: u64,
    /// By the last one.
    bytes: u64,
    bytes_in_all: u64,
}

impl State {
    fn synced_to(&mut self, segment: Offset, end: u64) -> Synced {
        let (segment_before, end_before) = self.synced_to;
        let bytes = if segment == segment_before {
            end.saturating_sub(end_before)
        } else {
            end
        };
        self.synced_to = (segment, end);
        self.synced = Synced {
            syncs: self.synced.syncs + 1,
            bytes,
            bytes_in_all: self.synced.bytes_in_all + bytes,
        };
        self.synced
    }
}

#[derive(Debug)]
struct Unsealed<B: Backend> {
    slot: Arc<Slot<B>>,
    reader: Arc<SegmentReader<B::File>>,
    next: Offset,
}

impl<B: Backend> Default for Commit<B> {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            led: false.into(),
            changed: Condvar::new(),
            appended: AtomicU64::new(0),
            arrived: AtomicU64::new(0),
            unsealed: Mutex::default(),
            unsealed_count: AtomicUsize::new(0),
            directory_unsynced: Mutex::default(),
        }
    }
}

impl<B: Backend> Commit<B> {
    #[inline]
    pub(super) fn appended(&self, next: Offset) {
        self.appended.store(next.0, Relaxed);
    }

    /// Leaves a segment that takes no more appends to be sealed.
    pub(super) fn leave_unsealed(&self, slot: &Arc<Slot<B>>, segment: &Segment<B>) {
        let mut unsealed = self.lock_unsealed();
        unsealed.push_back(Unsealed {
            slot: Arc::clone(slot),
            reader: Arc::clone(segment.reader()),
            next: segment.next_offset(),
        });
        self.unsealed_count.store(unsealed.len(), Release);
    }

    /// Whether this segment waits to be sealed.
    pub(super) fn is_unsealed(&self, base: Offset) -> bool {
        self.lock_unsealed()
            .iter()
            .any(|waiting| waiting.slot.base == base)
    }

    pub(super) fn unsealed(&self) -> usize {
        self.unsealed_count.load(Acquire)
    }

    /// How many bytes were synced since the log was opened.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn synced_bytes(&self) -> u64 {
        self.lock().synced.bytes_in_all
    }

    fn lock_unsealed(&self) -> MutexGuard<'_, VecDeque<Unsealed<B>>> {
        self.unsealed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to sync, seal and truncate, which one has at a time.
pub(super) struct Leading<'a, B: Backend> {
    shared: &'a Shared<B>,
}

impl<B: Backend> Drop for Leading<'_, B> {
    fn drop(&mut self) {
        self.shared.poison_if_panicking("syncing");
        self.shared.commit.lead_no_more(|_| ());
    }
}

impl<B: Backend> Leading<'_, B> {
    /// Ends it as dropping does, and does something before, while no one else can.
    fn end<T>(self, leave: impl FnOnce(&mut State) -> T) -> T {
        let commit = &self.shared.commit;
        std::mem::forget(self);
        commit.lead_no_more(leave)
    }
}

impl<B: Backend> Commit<B> {
    fn is_led(&self) -> bool {
        self.led.load(Acquire)
    }

    fn lead(&self, _state: &mut State) {
        self.led.store(true, Release);
    }

    /// Gives up the right to lead, and tells those who wait.
    fn lead_no_more<T>(&self, leave: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let left = leave(&mut state);
        self.led.store(false, Release);
        let waiting = state.waiting;
        drop(state);
        if waiting > 0 {
            self.changed.notify_all();
        }
        left
    }
}

impl<B: Backend> Shared<B> {
    /// Returns once all records before `end` are on stable storage.
    pub(super) fn commit(self: &Arc<Self>, end: Offset) -> Thin<()> {
        self.commit.arrived.fetch_add(1, Relaxed);
        let mut state = self.commit.lock();
        let mut stayed_awake = 0;
        loop {
            if self.durable() >= end {
                return Ok(());
            }
            self.check_poisoned()?;
            if !self.commit.is_led() && state.claims == 0 {
                break;
            }
            if stayed_awake < SYNCS_AWAKE {
                stayed_awake += 1;
                let gathering = state.gathering;
                drop(state);
                if gathering.stay_awake(|| self.durable() >= end, || self.commit.is_led()) {
                    return Ok(());
                }
                state = self.commit.lock();
                continue;
            }
            state.waiting += 1;
            let woken = self.commit.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        self.commit.lead(&mut state);
        let gathering = state.gathering;
        drop(state);
        let leading = Leading { shared: self };
        let gathering = gathering.gather(&self.commit.arrived);
        let synced = leading.sync();
        let (reader, end) = self.poison_if_failed(synced)?;
        let synced = leading.end(|state| {
            state.gathering = gathering.synced(&self.commit.arrived);
            state.synced_to(reader.base(), end)
        });
        self.prepare_ahead(&reader, end, synced)
    }

    /// The offset after the last record appended.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn appended(&self) -> Offset {
        Offset(self.commit.appended.load(Relaxed))
    }

    /// Waits for the right to lead.
    pub(super) fn lead(&self) -> Leading<'_, B> {
        let mut state = self.commit.lock();
        state.claims += 1;
        while self.commit.is_led() {
            state.waiting += 1;
            let woken = self.commit.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.claims -= 1;
        self.commit.lead(&mut state);
        Leading { shared: self }
    }

    /// Returns once every record is on stable storage.
    pub(super) fn sync(self: &Arc<Self>) -> Thin<()> {
        let next = self.next_to_sync()?;
        self.commit(next)
    }

    /// Seals what waits for it: by the worker if there is one, now otherwise.
    pub(super) fn seal_soon(self: &Arc<Self>) -> Thin<()> {
        if self.wake_worker(|wanted| wanted.seal = true) {
            return Ok(());
        }
        self.lead().seal_all()
    }

    /// Has zeros written past the end of the records, where that makes syncs faster.
    fn prepare_ahead(
        self: &Arc<Self>,
        reader: &Arc<SegmentReader<B::File>>,
        end: u64,
        synced: Synced,
    ) -> Thin<()> {
        let bytes_max = self.backend.prepare_bytes();
        if bytes_max == 0 || synced.syncs < SYNCS_BEFORE_PREPARING && self.worker.can_be_employed()
        {
            return Ok(());
        }
        if synced.bytes > SYNCED_BYTES_MAX && self.worker.is_employed() {
            self.prepare_at_rest();
            return Ok(());
        }
        let with_files = self.backend.prepares_files();
        if synced.bytes > SYNCED_BYTES_MAX_ALONE && !with_files {
            return Ok(());
        }
        let ahead = (2 * synced.bytes_in_all)
            .clamp(*PREPARE_BYTES.start(), *PREPARE_BYTES.end())
            .min(bytes_max);
        let segment_end = self.options.segment_bytes_max;
        let wanted = end + ahead / 2;
        if reader.prepared_to() >= wanted.min(segment_end)
            && (wanted <= segment_end || !with_files || !self.reserve.is_empty())
        {
            return Ok(());
        }
        let to = if with_files {
            end + ahead
        } else {
            (end + ahead).min(segment_end)
        };
        let for_worker = Arc::clone(reader);
        if self.wake_worker(|wanted| wanted.prepare = Some((for_worker, to))) {
            return Ok(());
        }
        self.prepare(reader, to, || true)
    }
}

impl<B: Backend> Leading<'_, B> {
    /// Syncs all that was appended, in order. Gives the segment that is active and the end of what it has.
    pub(super) fn sync(&self) -> Thin<(Arc<SegmentReader<B::File>>, u64)> {
        loop {
            match self.sync_in_order() {
                // The index may have what was prepared for records to come. A sync that failed is none that can be made
                // again.
                Err(e) if e.is_of("write") && e.is_for_want_of_space() => {
                    if !self.shared.give_back_prepared()? {
                        return Err(e);
                    }
                }
                synced => return synced,
            }
        }
    }

    fn sync_in_order(&self) -> Thin<(Arc<SegmentReader<B::File>>, u64)> {
        let shared = self.shared;
        let (reader, next) = shared.flush_for_sync()?;
        let end = reader.store_bytes();
        self.seal_unsealed()?;
        shared.sync_new_files()?;
        reader.sync(next)?;
        shared.durable.fetch_max(next.0, AcqRel);
        // For all who wait for this sync, so that subscribers are woken once.
        shared.show(&reader, next);
        Ok((reader, end))
    }

    /// Seals all segments before the active one.
    pub(super) fn seal_all(&self) -> Thin<()> {
        self.shared.check_poisoned()?;
        let sealed = self.seal_unsealed();
        self.shared.poison_if_failed(sealed)
    }

    fn seal_unsealed(&self) -> Thin<()> {
        let shared = self.shared;
        loop {
            let Some((slot, reader, next)) = shared.commit.lock_unsealed().front().map(|first| {
                (
                    Arc::clone(&first.slot),
                    Arc::clone(&first.reader),
                    first.next,
                )
            }) else {
                return Ok(());
            };
            shared.sync_new_files()?;
            reader.seal()?;
            shared.durable.fetch_max(next.0, AcqRel);
            // From now on it is read as it was sealed, and its memory is given back.
            shared.forget_unsealed(&slot);
            let mut unsealed = shared.commit.lock_unsealed();
            unsealed.pop_front();
            shared.commit.unsealed_count.store(unsealed.len(), Release);
        }
    }
}

impl<B: Backend> Shared<B> {
    /// The segment of a slot that was active until lately is opened anew from its files.
    fn forget_unsealed(&self, was_active: &Arc<Slot<B>>) {
        let view = self.view.load();
        if let Some(slot) = view
            .slots()
            .iter()
            .rev()
            .find(|slot| slot.base == was_active.base)
        {
            slot.forget();
        }
    }

    /// Returns once the directory has durably what files were made.
    pub(super) fn sync_new_files(&self) -> Thin<()> {
        self.make_files(|| Ok(()), false)
    }

    /// Makes files once those made before are durable: so only the newest segment can lose its names in a power
    /// cut, and never one before it.
    pub(super) fn make_new_files<T>(&self, make: impl FnOnce() -> Thin<T>) -> Thin<T> {
        self.make_files(make, true)
    }

    fn make_files<T>(&self, make: impl FnOnce() -> Thin<T>, unsynced_after: bool) -> Thin<T> {
        // Held meanwhile: who finds it synced may rely on that.
        let mut unsynced = self
            .commit
            .directory_unsynced
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if *unsynced {
            sync_directory(&self.backend)?;
            *unsynced = false;
        }
        let made = make()?;
        *unsynced = unsynced_after;
        Ok(made)
    }

    /// Refuses what a read-only log cannot do.
    pub(super) fn check_writable(&self) -> Thin<()> {
        if self.read_only {
            return Err(Error::ReadOnly.into());
        }
        Ok(())
    }
}
