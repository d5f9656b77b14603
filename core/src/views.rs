//! One stretch of read-only memory, shared by many threads without a common counter.

use std::{
    cell::Cell,
    fmt,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

/// As many counters as threads are likely to read at once. One thread's records count on one.
#[cfg(not(target_family = "wasm"))]
const VIEWS: usize = 8;
#[cfg(target_family = "wasm")]
const VIEWS: usize = 1;

/// A mapped file, as [`BackendFile::map`](crate::BackendFile::map) gives it. Records are slices of it,
/// which keep it mapped.
pub struct Views {
    views: [Bytes; VIEWS],
}

/// Each on a cache line of its own: two threads that read the same file would otherwise spend their
/// time handing a counter to and fro.
#[repr(align(128))]
struct Aligned<T>(Arc<T>);

impl<T: AsRef<[u8]>> AsRef<[u8]> for Aligned<T> {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl Views {
    /// Views of this memory.
    #[must_use]
    pub fn new<T: AsRef<[u8]> + Send + Sync + 'static>(memory: T) -> Self {
        let memory = Arc::new(memory);
        Self {
            views: std::array::from_fn(|_| Bytes::from_owner(Aligned(Arc::clone(&memory)))),
        }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.views[0].len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of the memory, which it keeps.
    pub(crate) fn slice(&self, range: Range<usize>) -> Bytes {
        self.views[this_thread()].slice(range)
    }

    /// The memory. What is past the file's end must not be touched.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.views[0]
    }
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views")
            .field("bytes", &self.len())
            .finish_non_exhaustive()
    }
}

/// Which of the views this thread uses.
fn this_thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    NUMBER.with(|number| {
        if number.get() == usize::MAX {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            number.set(next.checked_rem(VIEWS).unwrap_or(0));
        }
        number.get()
    })
}
