//! Memory that the caller may write to.

use std::{cell::Cell, ops::Range};

use crate::abi::{BUFFER_BYTES_MAX, Span};

/// The buffers given out by `alloc`. Whatever addresses a caller names, they are only ever taken for
/// bytes of one of these, so no use of them is unsafe.
#[derive(Debug, Default)]
pub struct Buffers {
    /// By address.
    buffers: Vec<Buffer>,
    /// The place of the one last looked up: a caller mostly uses the same one again.
    recent: Cell<usize>,
}

#[derive(Debug)]
struct Buffer {
    ptr: u32,
    bytes: Box<[u8]>,
}

impl Buffers {
    /// A buffer of zeros; none if there is no memory for it, or it is empty or larger than 1 GiB.
    pub fn alloc(&mut self, len: u32) -> Option<Span> {
        if len == 0 || len > BUFFER_BYTES_MAX {
            return None;
        }
        let bytes_len = usize::try_from(len).ok()?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(bytes_len).ok()?;
        self.buffers.try_reserve(1).ok()?;
        bytes.resize(bytes_len, 0);
        let bytes = bytes.into_boxed_slice();
        let ptr = self.address(&bytes)?;
        let at = self.buffers.partition_point(|buffer| buffer.ptr < ptr);
        self.buffers.insert(at, Buffer { ptr, bytes });
        self.recent.set(at);
        Some(Span { ptr, len })
    }

    /// Gives a buffer back. False if it is none of [`Buffers::alloc`].
    pub fn dealloc(&mut self, span: Span) -> bool {
        match self.place(span.ptr) {
            Some(at) if self.buffers[at].is(span) => {
                self.buffers.remove(at);
                true
            }
            _ => false,
        }
    }

    /// The bytes at these addresses, if they all lie in one buffer. An empty span may lie anywhere.
    #[must_use]
    pub fn get(&self, span: Span) -> Option<&[u8]> {
        if span.len == 0 {
            return Some(&[]);
        }
        let buffer = &self.buffers[self.place(span.ptr)?];
        buffer.bytes.get(buffer.range(span)?)
    }

    /// As [`Buffers::get`], to write.
    pub fn get_mut(&mut self, span: Span) -> Option<&mut [u8]> {
        if span.len == 0 {
            return Some(&mut []);
        }
        let at = self.place(span.ptr)?;
        let buffer = &mut self.buffers[at];
        let range = buffer.range(span)?;
        buffer.bytes.get_mut(range)
    }

    /// The place of the last buffer that starts at `ptr` or before.
    fn place(&self, ptr: u32) -> Option<usize> {
        let recent = self.recent.get();
        if self
            .buffers
            .get(recent)
            .is_some_and(|buffer| buffer.holds(ptr))
        {
            return Some(recent);
        }
        let at = self
            .buffers
            .partition_point(|buffer| buffer.ptr <= ptr)
            .checked_sub(1)?;
        self.recent.set(at);
        Some(at)
    }

    #[cfg(target_arch = "wasm32")]
    #[allow(clippy::unused_self, reason = "it is used where addresses are wider")]
    fn address(&self, bytes: &[u8]) -> Option<u32> {
        u32::try_from(bytes.as_ptr().addr()).ok()
    }

    /// Addresses do not fit an `u32` here: buffers are laid one after the other in a space of their
    /// own.
    #[cfg(not(target_arch = "wasm32"))]
    fn address(&self, _bytes: &[u8]) -> Option<u32> {
        const FIRST: u32 = 1 << 16;
        let end = |last: &Buffer| u32::try_from(last.bytes.len()).ok()?.checked_add(last.ptr);
        match self.buffers.last() {
            Some(last) => end(last)?.checked_next_multiple_of(16),
            None => Some(FIRST),
        }
    }
}

impl Buffer {
    fn is(&self, span: Span) -> bool {
        self.ptr == span.ptr && self.bytes.len() as u64 == u64::from(span.len)
    }

    /// Where in this buffer the span is; its end may be past the buffer's.
    fn range(&self, span: Span) -> Option<Range<usize>> {
        let start = usize::try_from(span.ptr.checked_sub(self.ptr)?).ok()?;
        Some(start..start.checked_add(usize::try_from(span.len).ok()?)?)
    }

    fn holds(&self, ptr: u32) -> bool {
        ptr.checked_sub(self.ptr)
            .is_some_and(|at| u64::from(at) < self.bytes.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_alloc_gave_can_be_reached() {
        let mut buffers = Buffers::default();
        let first = buffers.alloc(100).unwrap();
        let second = buffers.alloc(50).unwrap();
        assert_eq!(buffers.get(first).unwrap(), [0; 100]);
        buffers
            .get_mut(Span {
                ptr: first.ptr + 10,
                len: 3,
            })
            .unwrap()
            .copy_from_slice(b"abc");
        assert_eq!(
            buffers
                .get(Span {
                    ptr: first.ptr + 11,
                    len: 2
                })
                .unwrap(),
            b"bc"
        );
        assert_eq!(buffers.get(second).unwrap(), [0; 50]);

        for (ptr, len) in [
            (0, 1),
            (first.ptr - 1, 2),
            (first.ptr, 101),
            (first.ptr + 100, 1),
            (second.ptr + 49, 2),
            (second.ptr, u32::MAX),
            (u32::MAX, 1),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(buffers.get(Span { ptr, len }), None, "{ptr} {len}");
        }
        assert_eq!(buffers.get(Span { ptr: 12, len: 0 }).unwrap(), b"");
    }

    #[test]
    fn a_buffer_is_given_back_once_and_whole() {
        let mut buffers = Buffers::default();
        let (a, b, c) = (
            buffers.alloc(16).unwrap(),
            buffers.alloc(16).unwrap(),
            buffers.alloc(16).unwrap(),
        );
        assert!(!buffers.dealloc(Span { len: 15, ..b }));
        assert!(!buffers.dealloc(Span {
            ptr: b.ptr + 1,
            len: 15
        }));
        assert!(buffers.dealloc(b));
        assert!(!buffers.dealloc(b));
        assert_eq!(buffers.get(b), None);
        assert!(buffers.get(a).is_some() && buffers.get(c).is_some());
        assert!(buffers.dealloc(c) && buffers.dealloc(a));
        assert!(!buffers.dealloc(a));
    }

    #[test]
    fn empty_and_enormous_buffers_are_refused() {
        let mut buffers = Buffers::default();
        for len in [0, BUFFER_BYTES_MAX + 1, u32::MAX] {
            assert_eq!(buffers.alloc(len), None, "{len}");
        }
    }
}
