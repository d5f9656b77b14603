//! Space made ready for records to come: in the active store, and in files that become the next ones.

use std::{
    collections::VecDeque,
    io,
    sync::{Mutex, MutexGuard, PoisonError, TryLockError},
};

use super::{Log, SegmentReader, Shared};
use crate::{Backend, Error, Result, error::Thin, segment::PreparedStore};

/// No file is made for less: it is a segment that begins in it.
const FILE_BYTES_MIN: u64 = 64 << 10;
/// So many files may be there at a time.
const FILES_MAX: usize = 1024;
/// What is taken without being asked for must be there so many times.
const AVAILABLE_MIN: u64 = 4;

/// The files that become the next stores.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    files: Mutex<VecDeque<PreparedStore>>,
    /// The number of the next file. Held by who makes one.
    next_number: Mutex<u64>,
}

impl Reserve {
    /// The next one, for a segment to begin in.
    pub(super) fn take(&self) -> Option<PreparedStore> {
        self.files().pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files().is_empty()
    }

    fn bytes(&self) -> u64 {
        self.files().iter().map(PreparedStore::bytes).sum()
    }

    /// Gives all of it back.
    pub(super) fn give_back<B: Backend>(&self, backend: &B) {
        for file in std::mem::take(&mut *self.files()) {
            file.remove(backend);
        }
    }

    /// Gives the last one back, if there is any.
    pub(super) fn give_back_last<B: Backend>(&self, backend: &B) -> bool {
        let last = self.files().pop_back();
        last.map(|file| file.remove(backend)).is_some()
    }

    /// The right to make files.
    fn filling(&self) -> Filling<'_> {
        let next_number = self.next_number.lock();
        Filling {
            reserve: self,
            next_number: next_number.unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// The right to make files, unless another has it.
    fn try_filling(&self) -> Option<Filling<'_>> {
        let next_number = match self.next_number.try_lock() {
            Ok(next_number) => next_number,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        Some(Filling {
            reserve: self,
            next_number,
        })
    }

    fn files(&self) -> MutexGuard<'_, VecDeque<PreparedStore>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to make files, which one has at a time.
struct Filling<'a> {
    reserve: &'a Reserve,
    next_number: MutexGuard<'a, u64>,
}

impl Filling<'_> {
    /// Makes files until they have `bytes` bytes, of which each has `file_bytes`, or `go_on` says that it is enough.
    /// What was in the way, if something was.
    fn fill<B: Backend>(
        &mut self,
        backend: &B,
        bytes: u64,
        file_bytes: u64,
        mut go_on: impl FnMut() -> bool,
    ) -> Option<io::Error> {
        while go_on() {
            let (held, last) = {
                let mut files = self.reserve.files();
                let held: u64 = files.iter().map(PreparedStore::bytes).sum();
                if held >= bytes {
                    return None;
                }
                let is_short = |last: &PreparedStore| last.bytes() < file_bytes;
                let last = files.pop_back_if(|last| is_short(last));
                if last.is_none() && files.len() >= FILES_MAX {
                    return None;
                }
                (held, last)
            };
            let mut file = last.unwrap_or_else(|| {
                *self.next_number += 1;
                PreparedStore::new(*self.next_number - 1)
            });
            let more = (bytes - held).max(FILE_BYTES_MIN);
            let short = file.fill(
                backend,
                file.bytes().saturating_add(more).min(file_bytes),
                &mut go_on,
            );
            if short.is_some() || file.bytes() == 0 {
                file.remove(backend);
                return short;
            }
            self.reserve.files().push_back(file);
        }
        None
    }
}

impl<B: Backend> Log<B> {
    /// Makes space ready for about `bytes` more bytes of frames, and returns once it is on stable storage: filled with
    /// zeros, in the active segment and in files that become the next ones, at most 1,024. A sync of records that go
    /// there writes them alone, and not where they are, which takes half the time where they are many; and there is room
    /// for them on the disk, though not for their indexes, 12 bytes a record. It takes as long as to write so many
    /// bytes.
    ///
    /// The space is used up by appends, and given back when the log is closed. A log in a directory makes some ready
    /// by itself when appends rest; see [`FsBackend::prepare`](crate::FsBackend::prepare), also for how to have none.
    /// Where there are only memory or a sandbox, or none is wanted, this does nothing; where more is asked for than 1,024
    /// segments have, or than the active one where no [files](Backend::prepares_files) are made ahead, so much is made
    /// ready, and that is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the disk has not so much space; what could be had is kept, but for the last file, and the log
    /// is as it was. A sync of the active segment that fails poisons it. [`Error::ReadOnly`], [`Error::Poisoned`].
    ///
    /// # Example
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let directory = directory.path();
    /// use proglog::{Log, Options};
    ///
    /// let log = Log::open(directory, Options::new())?;
    /// log.reserve(8 << 20)?;
    /// for order in 0..1000 {
    ///     log.append(&format!("order {order}"))?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reserve(&self, bytes: u64) -> Result<()> {
        Ok(self.shared.reserve(bytes)?)
    }
}

impl<B: Backend> Shared<B> {
    /// Makes space ready after `segment`'s position `to` without being asked, as long as `go_on` says so. A disk that
    /// is nearly full is left alone.
    pub(super) fn prepare(
        &self,
        segment: &SegmentReader<B::File>,
        to: u64,
        go_on: impl FnMut() -> bool,
    ) -> Thin<()> {
        // Who reserves makes space as well, and may be at it for long.
        let Some(mut filling) = self.reserve.try_filling() else {
            return Ok(());
        };
        // Where no more is prepared in it, files are.
        let ready = segment.prepared_to().min(self.end_of(segment));
        let wanted = to.saturating_sub(ready);
        let available = self.backend.available_bytes().ok().flatten();
        if available.is_some_and(|available| available / AVAILABLE_MIN < wanted) {
            return Ok(());
        }
        // A full disk is no failure of the log.
        self.fill_ahead(&mut filling, segment, to, go_on).map(drop)
    }

    /// Fills what is ahead with zeros, durably: the store of `segment` up to its position `to`, and past the most
    /// bytes of a segment as much of the stores after it. What was in the way, if something was.
    fn fill_ahead(
        &self,
        filling: &mut Filling<'_>,
        segment: &SegmentReader<B::File>,
        to: u64,
        mut go_on: impl FnMut() -> bool,
    ) -> Thin<Option<io::Error>> {
        let file_bytes = self.options.segment_bytes_max;
        let segment_end = self.end_of(segment);
        let short = self.poison_if_failed(segment.prepare(to.min(segment_end), &mut go_on))?;
        if short.is_some() || to <= segment_end || !self.backend.prepares_files() {
            return Ok(short);
        }
        Ok(filling.fill(&self.backend, to - segment_end, file_bytes, go_on))
    }

    /// Where space in a segment ends. A batch may be larger than one.
    fn end_of(&self, segment: &SegmentReader<B::File>) -> u64 {
        self.options.segment_bytes_max.max(segment.store_bytes())
    }

    /// Makes space ready for `bytes` bytes of frames, before it returns.
    pub(super) fn reserve(&self, bytes: u64) -> Thin<()> {
        let (segment, end) = {
            let mut writer = self.writer()?;
            if self.backend.prepare_bytes() == 0 {
                return Ok(());
            }
            let active = writer.active();
            active.prepare_again()?;
            (active.reader().clone(), active.store_bytes())
        };
        let mut filling = self.reserve.filling();
        let to = end.saturating_add(bytes);
        let failed = |e| Error::io("reserve space in", self.backend.name(), e);
        let ahead = segment.prepared_to().saturating_sub(end);
        let ready = ahead.saturating_add(self.reserve.bytes());
        let wanted = bytes.saturating_sub(ready).min(self.reserve_bytes_max());
        let available = self.backend.available_bytes().ok().flatten();
        if let Some(available) = available.filter(|&available| available < with_index(wanted)) {
            // It is not filled up only to find that out.
            let short = format!("{wanted} bytes more are to be had, and {available} are available");
            return Err(failed(io::Error::new(io::ErrorKind::StorageFull, short)));
        }
        self.fill_ahead(&mut filling, &segment, to, || true)?
            .map_or(Ok(()), |e| Err(failed(e)))
    }

    fn reserve_bytes_max(&self) -> u64 {
        let files = FILES_MAX as u64 + 1;
        files.saturating_mul(self.options.segment_bytes_max)
    }
}

/// Space for records needs some for their index.
fn with_index(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / 8)
}
