//! A store as its readers share it with the one who writes it. Nothing here waits.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use crate::swap::ArcSwapOption;
use bytes::Bytes;

use crate::{
    Error, Tail, Views,
    backend::BackendFile,
    error::{Boxed, Thin},
    record::LENGTH_BYTES,
};

/// What is zero-filled at a time; the writer may have to wait for so much. The kernel keeps what is written
/// by one call in pages of that size: larger ones make small writes slow, and smaller ones large writes.
const PREPARED_AT_A_TIME: usize = 64 << 10;

/// The frames of a store, for reading: in the file those that are with the operating system, in memory
/// the last ones.
#[derive(Debug)]
pub(crate) struct StoreReader<F> {
    /// `None` once all of it is mapped and nothing more comes.
    file: Option<F>,
    name: String,
    /// The bytes that are frames.
    end: AtomicU64,
    /// Of those the ones that the file has.
    written: AtomicU64,
    /// From where on the frames are in `tail`, `u64::MAX` if none are.
    tail_start: AtomicU64,
    tail: ArcSwapOption<TailView>,
    /// The file's memory, if it can be mapped. Made when it is first read.
    views: OnceLock<Option<Views>>,
    /// How far the file may be read by its memory. Past that another process, whose file it is, may cut it just
    /// now, and who touched it then would be ended (SIGBUS).
    mapped_to: AtomicU64,
    /// How large the file may become, where that is known: as much is mapped.
    bytes_max: AtomicU64,
    /// How far the file holds zeros, written ahead of the frames. `u64::MAX`: no more are to be written.
    prepared: Mutex<u64>,
    /// The file's memory after what the writer has, made ready for it.
    next_tail: Mutex<Option<(u64, Tail)>>,
    /// Whether anything was written since the last sync.
    unsynced: AtomicBool,
}

/// The frames in memory.
#[derive(Debug)]
pub(super) struct TailView {
    /// The position of the memory's first byte.
    pub(super) start: u64,
    pub(super) bytes: Bytes,
}

impl<F: BackendFile> StoreReader<F> {
    pub(crate) fn new(file: F, name: impl Into<String>) -> Thin<Self> {
        let name = name.into();
        let length = file.len().map_err(|e| Error::io("measure", &name, e))?;
        Ok(Self {
            file: Some(file),
            name,
            end: length.into(),
            written: length.into(),
            tail_start: u64::MAX.into(),
            tail: ArcSwapOption::empty(),
            views: OnceLock::new(),
            mapped_to: 0.into(),
            bytes_max: length.into(),
            prepared: Mutex::new(length),
            next_tail: Mutex::default(),
            unsynced: false.into(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The bytes of its frames.
    pub(crate) fn len(&self) -> u64 {
        self.end.load(Acquire)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells how large it is expected to become, before it is first read.
    pub(crate) fn expect_bytes(&self, bytes: u64) {
        self.bytes_max.fetch_max(bytes, Relaxed);
    }

    /// Tells where its frames end. A scan found out; what stands after is none.
    pub(crate) fn end_at(&self, end: u64) {
        self.written.store(end, Release);
        self.end.store(end, Release);
    }

    /// No other process cuts it: it is this one that writes it.
    pub(crate) fn is_ours(&self) {
        self.mapped_to.store(u64::MAX, Relaxed);
    }

    /// Its end is where frames end, which no one cuts off.
    pub(crate) fn end_is_known(&self) {
        self.mapped_to.fetch_max(self.len(), Release);
    }

    /// The file's length, which may be more than its frames.
    pub(crate) fn file_bytes(&self) -> Thin<u64> {
        match &self.file {
            Some(file) => file.len().map_err(|e| self.failed("measure", e)),
            None => Ok(self.len()),
        }
    }

    /// Whether the file was removed or replaced since it was opened.
    pub(crate) fn is_removed(&self) -> Thin<bool> {
        let removed = self.file.as_ref().map_or(Ok(false), F::is_removed);
        removed.map_err(|e| self.failed("measure", e))
    }

    /// Whether the file has another name too.
    pub(crate) fn is_shared(&self) -> Thin<bool> {
        let shared = self.file.as_ref().map_or(Ok(false), F::is_shared);
        shared.map_err(|e| self.failed("measure", e))
    }

    /// Nothing more will be appended: the file is mapped now, and then no longer kept open.
    pub(crate) fn seal(mut self) -> Self {
        let mapped = self.views().map_or(0, Views::len) as u64;
        if mapped >= self.len() && mapped > 0 {
            self.file = None;
        }
        self
    }

    /// Whether it is mapped for good.
    pub(crate) fn is_sealed(&self) -> bool {
        self.file.is_none()
    }

    /// As [`Store::read_at`](super::Store::read_at).
    pub(crate) fn read_at(&self, buffer: &mut [u8], position: u64) -> Thin<usize> {
        let mut read = 0;
        while read < buffer.len() {
            let at = position.saturating_add(read as u64);
            let room = usize::try_from(self.len().saturating_sub(at)).unwrap_or(usize::MAX);
            let wanted = room.min(buffer.len() - read);
            if wanted == 0 {
                break;
            }
            let into = &mut buffer[read..read + wanted];
            read += match self.in_memory(at, wanted) {
                Some(bytes) => {
                    into[..bytes.len()].copy_from_slice(&bytes);
                    bytes.len()
                }
                None => match self.file().and_then(|file| file.read_at(into, at)) {
                    Ok(0) => break,
                    Ok(part) => part,
                    Err(e) => return Err(self.failed("read", e)),
                },
            };
        }
        Ok(read)
    }

    /// Exactly `bytes` from `position`, without a copy where that can be. The caller has checked them
    /// against the store's length.
    pub(crate) fn read_exact(&self, position: u64, bytes: usize) -> Thin<Bytes> {
        match self.in_memory(position, bytes) {
            Some(found) if found.len() == bytes => return Ok(found),
            _ => {}
        }
        let mut buffer = Vec::new();
        buffer
            .try_reserve_exact(bytes)
            .map_err(|_| self.failed("find memory for", io::ErrorKind::OutOfMemory.into()))?;
        buffer.resize(bytes, 0);
        if self.read_at(&mut buffer, position)? < bytes {
            return Err(self.failed("read", io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(buffer.into())
    }

    /// Reads up to `bytes_max` bytes from `position` on into `buffer`, which grows where it has to, and gives how
    /// many there were.
    pub(crate) fn read_into(
        &self,
        position: u64,
        bytes_max: usize,
        buffer: &mut Vec<u8>,
    ) -> Thin<usize> {
        let room = self.len().saturating_sub(position);
        let bytes = usize::try_from(room).unwrap_or(usize::MAX).min(bytes_max);
        if let Some(more @ 1..) = bytes.checked_sub(buffer.len()) {
            buffer
                .try_reserve_exact(more)
                .map_err(|_| super::out_of_memory(&self.name))?;
            buffer.resize(bytes, 0);
        }
        self.read_at(&mut buffer[..bytes], position)
    }

    /// The most bytes that one read may give from `position`, up to `bytes`: all where they are in memory.
    pub(crate) fn read_some(&self, position: u64, bytes: usize, bytes_max: usize) -> Thin<Bytes> {
        match self.in_memory(position, bytes) {
            Some(found) => Ok(found),
            None => self.read_exact(position, bytes.min(bytes_max)),
        }
    }

    /// As many of `bytes` bytes from `position` as are in memory without a break: at least one if any.
    #[inline]
    pub(crate) fn in_memory(&self, position: u64, bytes: usize) -> Option<Bytes> {
        let tail_start = self.tail_start.load(Acquire);
        if position >= tail_start
            && let Some(tail) = &*self.tail.load()
            // If it does not reach back so far any more, the file does.
            && let Some(at) = position.checked_sub(tail.start)
        {
            let at = usize::try_from(at).ok()?;
            let end = at.saturating_add(bytes).min(tail.bytes.len());
            return (at < end).then(|| tail.bytes.slice(at..end));
        }
        let views = self.views()?;
        let written = self.written.load(Acquire).min(self.mapped_to.load(Acquire));
        let written = usize::try_from(written).ok()?;
        let at = usize::try_from(position).ok()?;
        let end = at.saturating_add(bytes).min(views.len()).min(written);
        (at < end).then(|| views.slice(at..end))
    }

    #[inline]
    fn views(&self) -> Option<&Views> {
        let made = || {
            let bytes = self.bytes_max.load(Relaxed).max(self.len());
            self.file.as_ref()?.map(bytes).ok().flatten()
        };
        self.views.get_or_init(made).as_ref()
    }

    /// Returns once all that was written is on stable storage.
    pub(crate) fn sync(&self) -> Thin<()> {
        // Before the call: what is written meanwhile is for the next.
        if self.unsynced.swap(false, Acquire)
            && let Err(e) = self.file().and_then(F::sync)
        {
            self.assume_unsynced();
            return Err(self.failed("sync", e));
        }
        Ok(())
    }

    /// What was there on opening may be only in the operating system's memory.
    pub(crate) fn assume_unsynced(&self) {
        self.unsynced.store(true, Release);
    }

    /// From now on no zeros are written: nothing more will be appended, or others need the space.
    pub(crate) fn end_preparing(&self) {
        *self.prepared() = u64::MAX;
        self.take_next_tail();
    }

    /// Has zeros be written again after what the file has, which is at least up to `end` once all is flushed. `false` if
    /// they could be all the time.
    pub(super) fn prepare_again(&self, end: u64) -> Thin<bool> {
        let mut prepared = self.prepared();
        if *prepared != u64::MAX {
            return Ok(false);
        }
        *prepared = self.file_bytes()?.max(end);
        Ok(true)
    }

    /// Cuts off what the file has past its frames: zeros, or a torn tail.
    pub(crate) fn trim(&self) -> Thin<()> {
        let mut prepared = self.prepared();
        if self.file_bytes()? != self.len() {
            self.assume_unsynced();
            self.file()
                .and_then(|file| file.set_len(self.len()))
                .map_err(|e| self.failed("truncate", e))?;
        }
        if *prepared != u64::MAX {
            *prepared = self.len();
        }
        drop(prepared);
        self.sync()
    }

    /// Fills the file with zeros up to `end`, durably, so that writing frames there changes nothing but
    /// those bytes. Beside the writer: never over its frames. Stops early when `go_on` says so, and when the
    /// space cannot be had, as on a full disk: then it gives why.
    pub(crate) fn prepare(
        &self,
        end: u64,
        mut go_on: impl FnMut() -> bool,
    ) -> Thin<Option<io::Error>> {
        // Eight zeros alone are an empty record, the book's.
        let end = if end == LENGTH_BYTES as u64 {
            end + 1
        } else {
            end
        };
        let zeros = vec![0; PREPARED_AT_A_TIME];
        let mut written = false;
        let mut short = None;
        while go_on() {
            let mut prepared = self.prepared();
            let bytes = usize::try_from(end.saturating_sub(*prepared)).unwrap_or(usize::MAX);
            let bytes = bytes.min(zeros.len());
            if bytes == 0 {
                break;
            }
            let file = self.file().map_err(|e| self.failed("prepare", e))?;
            if let Err(e) = file.write_at(&zeros[..bytes], *prepared) {
                // What did get there is space that the frames can have.
                short = Some(e);
                break;
            }
            *prepared += bytes as u64;
            written = true;
        }
        if written && let Err(e) = self.file().and_then(F::sync) {
            return Err(self.failed("sync", e));
        }
        Ok(short)
    }

    /// Maps the file's memory from `start` on for the writer, who will need it soon.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn map_ahead(&self, start: u64, bytes: usize) {
        let mut prepared = self.prepared();
        if *prepared == u64::MAX {
            return;
        }
        // The file's missing bytes are filled with zeros. Were it shorter than what the writer has claimed, as
        // while it writes a large frame, they would be that frame's.
        if self.file_bytes().map_or(true, |length| length < *prepared) {
            return;
        }
        // Where it cannot be had, the writer finds out.
        let mapped = self.file().and_then(|file| file.map_tail(start, bytes));
        if let Ok(Some(tail)) = mapped {
            *prepared = (start + bytes as u64).max(*prepared);
            let start = start - tail.filled() as u64;
            *self.next_tail() = Some((start, tail));
        }
    }

    /// How far zeros were written ahead.
    pub(crate) fn prepared_to(&self) -> u64 {
        *self.prepared()
    }

    fn next_tail(&self) -> MutexGuard<'_, Option<(u64, Tail)>> {
        self.next_tail
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn prepared(&self) -> MutexGuard<'_, u64> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn failed(&self, action: &'static str, e: io::Error) -> Boxed {
        Error::io(action, &self.name, e)
    }
}

/// For the writer, of which there is one.
impl<F: BackendFile> StoreReader<F> {
    pub(super) fn file(&self) -> io::Result<&F> {
        // Only what is sealed has none, and is not written.
        self.file
            .as_ref()
            .ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Makes sure that no zeros will be written before `end`, and returns how far there are some.
    pub(super) fn claim(&self, end: u64) -> u64 {
        let mut prepared = self.prepared();
        *prepared = end.max(*prepared);
        *prepared
    }

    /// The file's memory that was mapped ahead, if it was, and the position of its first byte.
    pub(super) fn take_next_tail(&self) -> Option<(u64, Tail)> {
        self.next_tail().take()
    }

    pub(super) fn appended(&self, end: u64) {
        self.end.store(end, Release);
    }

    pub(super) fn wrote(&self, written: u64) {
        self.unsynced.store(true, Release);
        self.written.store(written, Release);
    }

    /// Shows readers other memory, whose first byte is that of position `start`.
    pub(super) fn show_tail(&self, tail: Option<(u64, Bytes)>) {
        // In this order: who sees the new start and the old memory looks there in vain, then in the file.
        let start = tail.as_ref().map_or(u64::MAX, |(start, _)| *start);
        let view = tail.map(|(start, bytes)| TailView { start, bytes });
        self.tail.store(view.map(Into::into));
        self.tail_start.store(start, Release);
    }
}
