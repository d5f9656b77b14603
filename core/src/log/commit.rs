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
            AtomicU64, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
};

use super::{Segment, SegmentReader, Shared, view::Slot};
use crate::{Backend, Error, Offset, Result, segment::sync_directory};

/// After so many syncs a log is taken for one that syncs often, whose space is worth preparing.
const SYNCS_BEFORE_PREPARING: u64 = 8;
/// The least to prepare at a time, and the most while appends go on.
const PREPARE_BYTES: RangeInclusive<u64> = 64 << 10..=4 << 20;
/// Where more is synced at a time, zeros written meanwhile would cost more than they save.
const SYNCED_BYTES_MAX: u64 = 128 << 10;

/// Who syncs, and what there is to sync beside the active segment.
#[derive(Debug)]
pub(super) struct Commit<B: Backend> {
    state: Mutex<State>,
    changed: Condvar,
    /// The offset after the last record appended.
    appended: AtomicU64,
    /// Segments before the active one that are not sealed yet, lowest first.
    unsealed: Mutex<VecDeque<Unsealed<B>>>,
    unsealed_count: AtomicUsize,
    /// Whether files were made that the directory may not have durably.
    directory_unsynced: Mutex<bool>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether a leader is at work.
    led: bool,
    /// How many wait for it.
    waiting: usize,
    /// How many the last one synced for beside itself.
    followers: usize,
    syncs: u64,
    /// The end of the active store when it was synced last.
    synced_to: u64,
    /// All bytes that were synced.
    synced_bytes: u64,
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
            changed: Condvar::new(),
            appended: AtomicU64::new(0),
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
        self.lock().synced_bytes
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
        let commit = &self.shared.commit;
        let mut state = commit.lock();
        state.led = false;
        state.followers = state.waiting;
        if state.waiting > 0 {
            drop(state);
            commit.changed.notify_all();
        }
    }
}

impl<B: Backend> Shared<B> {
    /// Returns once all records before `end` are on stable storage.
    pub(super) fn commit(self: &Arc<Self>, end: Offset) -> Result<()> {
        let mut state = self.commit.lock();
        loop {
            if self.durable() >= end {
                return Ok(());
            }
            self.check_poisoned()?;
            if !state.led {
                break;
            }
            state.waiting += 1;
            let woken = self.commit.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.led = true;
        let followers = state.followers;
        drop(state);
        let leading = Leading { shared: self };
        self.let_gather(followers);
        let synced = leading.sync();
        let (reader, end) = self.poison_if_failed(synced)?;
        drop(leading);
        self.prepare_ahead(&reader, end)
    }

    /// Lets those append that were woken just now, rather than sync for oneself alone while they get ready
    /// for the next: as long as it helps, and no longer.
    fn let_gather(&self, followers: usize) {
        let mut seen = self.commit.appended.load(Relaxed);
        for _ in 0..followers {
            #[cfg(not(target_family = "wasm"))]
            std::thread::yield_now();
            let appended = self.commit.appended.load(Relaxed);
            if appended == seen {
                break;
            }
            seen = appended;
        }
    }

    /// The offset after the last record appended.
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn appended(&self) -> Offset {
        Offset(self.commit.appended.load(Relaxed))
    }

    /// Waits for the right to lead.
    pub(super) fn lead(&self) -> Leading<'_, B> {
        let mut state = self.commit.lock();
        while state.led {
            state.waiting += 1;
            let woken = self.commit.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
            state.waiting -= 1;
        }
        state.led = true;
        Leading { shared: self }
    }

    /// Returns once every record is on stable storage.
    pub(super) fn sync(self: &Arc<Self>) -> Result<()> {
        let next = self.next_to_sync()?;
        self.commit(next)
    }

    /// Seals what waits for it: by the worker if there is one, now otherwise.
    pub(super) fn seal_soon(self: &Arc<Self>) -> Result<()> {
        if self.wake_worker(|wanted| wanted.seal = true) {
            return Ok(());
        }
        self.lead().seal_all()
    }

    /// Has zeros written past the end of the active store, where that makes syncs faster.
    fn prepare_ahead(
        self: &Arc<Self>,
        reader: &Arc<SegmentReader<B::File>>,
        end: u64,
    ) -> Result<()> {
        let bytes_max = self.backend.prepare_bytes();
        if bytes_max == 0 {
            return Ok(());
        }
        let mut state = self.commit.lock();
        state.syncs += 1;
        let synced = end.saturating_sub(state.synced_to);
        state.synced_to = end;
        state.synced_bytes += synced;
        if state.syncs < SYNCS_BEFORE_PREPARING && self.worker.can_be_employed() {
            return Ok(());
        }
        let ahead = (2 * state.synced_bytes)
            .clamp(*PREPARE_BYTES.start(), *PREPARE_BYTES.end())
            .min(bytes_max);
        drop(state);
        let segment_end = self.options.segment_bytes_max;
        if synced > SYNCED_BYTES_MAX && self.worker.is_employed()
            || reader.prepared_to() >= (end + ahead / 2).min(segment_end)
        {
            return Ok(());
        }
        let to = (end + ahead).min(segment_end);
        let for_worker = Arc::clone(reader);
        if self.wake_worker(|wanted| wanted.prepare = Some((for_worker, to))) {
            return Ok(());
        }
        let prepared = reader.prepare(to, || true);
        self.poison_if_failed(prepared)
    }
}

impl<B: Backend> Leading<'_, B> {
    /// Syncs all that was appended, in order. Gives the segment that is active and the end of what it has.
    pub(super) fn sync(&self) -> Result<(Arc<SegmentReader<B::File>>, u64)> {
        let shared = self.shared;
        let (reader, next) = shared.flush_for_sync()?;
        let end = reader.store_bytes();
        self.seal_unsealed()?;
        shared.sync_new_files()?;
        reader.sync(next)?;
        shared.durable.fetch_max(next.0, AcqRel);
        Ok((reader, end))
    }

    /// Seals all segments before the active one.
    pub(super) fn seal_all(&self) -> Result<()> {
        self.shared.check_poisoned()?;
        let sealed = self.seal_unsealed();
        self.shared.poison_if_failed(sealed)
    }

    fn seal_unsealed(&self) -> Result<()> {
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
    pub(super) fn sync_new_files(&self) -> Result<()> {
        self.make_files(|| Ok(()), false)
    }

    /// Makes files once those made before are durable: so only the newest segment can lose its names in a power
    /// cut, and never one before it.
    pub(super) fn make_new_files<T>(&self, make: impl FnOnce() -> Result<T>) -> Result<T> {
        self.make_files(make, true)
    }

    fn make_files<T>(&self, make: impl FnOnce() -> Result<T>, unsynced_after: bool) -> Result<T> {
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
    pub(super) fn check_writable(&self) -> Result<()> {
        if self.read_only {
            return Err(Error::ReadOnly);
        }
        Ok(())
    }
}
