//! Memory that one writer fills and any number of readers read, without a lock.

use std::{fmt, io, mem::ManuallyDrop, slice, sync::Arc};

use bytes::Bytes;

/// A stretch of memory that is filled from its start on, once: bytes that were handed out for reading
/// never change. Records are encoded into it in place.
///
/// It is the heap's ([`Tail::heap`]) or a mapped file's, as [`BackendFile::map_tail`] gives it.
///
/// [`BackendFile::map_tail`]: crate::BackendFile::map_tail
pub struct Tail {
    memory: Arc<Memory>,
    filled: usize,
    /// All of the memory. Only what was filled is ever read through it.
    view: Bytes,
    /// Told of what was filled, where the memory is not a file's but stands for one.
    on_fill: Option<OnFill>,
}

type OnFill = Box<dyn FnMut(usize, &[u8]) + Send + Sync>;

/// A stretch of memory, and who frees it.
struct Memory {
    start: *mut u8,
    capacity: usize,
    owner: Owner,
}

enum Owner {
    Heap,
    /// Unmaps it when dropped.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Mapped {
        _map: memmap2::MmapRaw,
    },
}

// SAFETY: the memory is not bound to a thread. It is written only through the one `Tail` (by `&mut`),
// in parts of which no reader has a slice yet; handing them over orders the writes before the reads.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        if matches!(self.owner, Owner::Heap) {
            // SAFETY: `Tail::heap` made it of a vector of this capacity, and nothing else frees it.
            drop(unsafe { Vec::from_raw_parts(self.start, 0, self.capacity) });
        }
    }
}

/// Keeps the memory for those who read it.
struct Held(Arc<Memory>);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the memory lives as long as `self` and all of it is initialised. Called once, when the
        // view of all is made; from then on slices are made of filled parts only, which no one writes.
        unsafe { slice::from_raw_parts(self.0.start, self.0.capacity) }
    }
}

impl Tail {
    /// Memory of the heap.
    ///
    /// # Errors
    ///
    /// The memory cannot be allocated.
    pub fn heap(capacity: usize) -> io::Result<Self> {
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(capacity)
            .map_err(|_| io::ErrorKind::OutOfMemory)?;
        bytes.resize(capacity, 0_u8);
        let mut bytes = ManuallyDrop::new(bytes);
        Ok(Self::of(Memory {
            start: bytes.as_mut_ptr(),
            capacity: bytes.capacity(),
            owner: Owner::Heap,
        }))
    }

    /// Memory of the heap that stands for a file's: `on_fill` is told where bytes were put and which.
    /// For a backend without mapping whose behaviour in a crash is to be tried all the same.
    ///
    /// # Errors
    ///
    /// The memory cannot be allocated.
    pub fn standing_for(
        capacity: usize,
        on_fill: impl FnMut(usize, &[u8]) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let mut tail = Self::heap(capacity)?;
        tail.on_fill = Some(Box::new(on_fill));
        Ok(tail)
    }

    /// A mapped file's memory, of which the first bytes are filled already.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(crate) fn mapped(map: memmap2::MmapRaw, filled: usize) -> Self {
        let mut tail = Self::of(Memory {
            start: map.as_mut_ptr(),
            capacity: map.len(),
            owner: Owner::Mapped { _map: map },
        });
        tail.filled = filled;
        tail
    }

    fn of(memory: Memory) -> Self {
        let memory = Arc::new(memory);
        let view = Bytes::from_owner(Held(Arc::clone(&memory)));
        Self {
            memory,
            filled: 0,
            view,
            on_fill: None,
        }
    }

    /// How many bytes it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// How many bytes of it count.
    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    /// The memory that was not filled yet.
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        let spare = self.capacity() - self.filled;
        // SAFETY: the stretch is inside the memory, and initialised. No one else has a slice of it: readers
        // get slices of filled parts, and what is filled is never spare again while they may have one
        // (see `reuse`). `&mut self` makes it the only slice for writing.
        unsafe { slice::from_raw_parts_mut(self.memory.start.add(self.filled), spare) }
    }

    /// Counts the next `bytes` bytes as filled: what was put there.
    #[inline]
    pub(crate) fn fill(&mut self, bytes: usize) {
        let from = self.filled;
        assert!(bytes <= self.capacity() - from, "more than there is");
        self.filled += bytes;
        if let Some(on_fill) = &mut self.on_fill {
            on_fill(from, &self.view[from..from + bytes]);
        }
    }

    /// Counts the first `bytes` bytes as filled: the file has them.
    pub(crate) fn begin_at(&mut self, bytes: usize) {
        assert!(
            bytes >= self.filled && bytes <= self.capacity(),
            "not there"
        );
        self.filled = bytes;
    }

    /// The filled bytes from `from` on.
    pub(crate) fn filled_from(&self, from: usize) -> &[u8] {
        &self.view[from..self.filled]
    }

    /// All of the memory, for readers; they slice what they were told is filled.
    pub(crate) fn view(&self) -> Bytes {
        self.view.clone()
    }

    /// The heap's memory to be filled anew, unless someone can still read it. A file's stays that file's.
    pub(crate) fn reuse(self) -> Option<Self> {
        let Self {
            memory,
            view,
            on_fill,
            ..
        } = self;
        drop(view);
        // Every view keeps one more of these.
        let memory = Arc::into_inner(memory)?;
        let is_heap = on_fill.is_none() && matches!(memory.owner, Owner::Heap);
        is_heap.then(|| Self::of(memory))
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("filled", &self.filled)
            .field("capacity", &self.capacity())
            .finish_non_exhaustive()
    }
}
