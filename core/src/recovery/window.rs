//! The bytes of a store, in bounded memory.

use std::io;

use bytes::Bytes;

use crate::{Error, backend::BackendFile, error::Thin, record::LENGTH_BYTES, store::StoreReader};

/// A part of the store in memory, moved along: all the rest of it where it is mapped.
pub(super) struct Window<'a, F> {
    store: &'a StoreReader<F>,
    start: u64,
    bytes: Bytes,
}

/// What is read at a time: little enough to stay in a processor's cache until it is hashed.
pub(super) const WINDOW_BYTES: usize = 64 << 10;

impl<'a, F: BackendFile> Window<'a, F> {
    pub(super) fn new(store: &'a StoreReader<F>) -> Self {
        Self {
            store,
            start: 0,
            bytes: Bytes::new(),
        }
    }

    pub(super) fn store(&self) -> &'a StoreReader<F> {
        self.store
    }

    pub(super) fn length(&self) -> u64 {
        self.store.len()
    }

    /// `length` bytes from `position`, fewer at the end of the store. Only as much memory is taken as
    /// the store has bytes.
    pub(super) fn get(&mut self, position: u64, length: usize) -> Thin<&[u8]> {
        let room = usize::try_from(self.length().saturating_sub(position)).unwrap_or(usize::MAX);
        let length = length.min(room);
        let held = position
            .checked_sub(self.start)
            .and_then(|at| usize::try_from(at).ok())
            .filter(|at| at.saturating_add(length) <= self.bytes.len());
        let at = match held {
            Some(at) => at,
            None => {
                let read = length.max(WINDOW_BYTES).min(room);
                // Its memory is given back first.
                self.bytes = Bytes::new();
                self.bytes = self.store.read_some(position, room, read)?;
                self.start = position;
                0
            }
        };
        self.bytes.get(at..at + length).ok_or_else(|| {
            Error::io(
                "read",
                self.store.name(),
                io::ErrorKind::UnexpectedEof.into(),
            )
        })
    }

    /// One byte, wherever it stands, without moving.
    pub(super) fn peek(&self, position: u64) -> Thin<Option<u8>> {
        let held = position
            .checked_sub(self.start)
            .and_then(|at| usize::try_from(at).ok());
        if let Some(&byte) = held.and_then(|at| self.bytes.get(at)) {
            return Ok(Some(byte));
        }
        let mut byte = [0];
        Ok((self.store.read_at(&mut byte, position)? == 1).then_some(byte[0]))
    }

    /// What is held from `position` on, or the next window: at least the room of a length, unless the
    /// store ends.
    pub(super) fn get_some(&mut self, position: u64) -> Thin<&[u8]> {
        let end = self.start + self.bytes.len() as u64;
        let held = end.saturating_sub(position.max(self.start));
        let enough = position >= self.start && held > LENGTH_BYTES as u64;
        let length = if enough {
            usize::try_from(held).unwrap_or(WINDOW_BYTES)
        } else {
            WINDOW_BYTES
        };
        self.get(position, length)
    }
}
