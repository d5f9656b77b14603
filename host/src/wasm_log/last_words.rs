//! What a guest wrote to its error output: why it panicked.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

/// Keeps the first bytes written to it.
#[derive(Clone, Default)]
pub(super) struct LastWords {
    bytes: Arc<Mutex<Vec<u8>>>,
}

const BYTES_MAX: usize = 4096;

impl LastWords {
    /// The text on one line; none if there is none.
    pub(super) fn text(&self) -> Option<String> {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&bytes);
        let mut words = text.split_whitespace().peekable();
        words.peek()?;
        Some(words.collect::<Vec<_>>().join(" "))
    }
}

impl io::Write for LastWords {
    fn write(&mut self, written: &[u8]) -> io::Result<usize> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let room = BYTES_MAX.saturating_sub(bytes.len());
        bytes.extend_from_slice(&written[..written.len().min(room)]);
        Ok(written.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
