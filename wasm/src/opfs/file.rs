//! An open file of a log in the browser.

use std::{
    io::{self, IoSlice},
    rc::Rc,
};

use proglog::BackendFile;

use super::{
    Handle, Physical,
    handle::{at_most, write_all},
};

/// Parts of no more than so many bytes are put together for one write: a call costs more than that copy.
const GATHERED_BYTES_MAX: usize = 1 << 20;

/// A file of an [`Opfs`](super::Opfs). It can be read for as long as this is there, also once it has lost its name.
#[derive(Debug)]
pub struct OpfsFile<H: Handle> {
    file: Rc<Physical<H>>,
}

impl<H: Handle> OpfsFile<H> {
    pub(super) fn of(file: Rc<Physical<H>>) -> Self {
        Self { file }
    }
}

impl<H: Handle> BackendFile for OpfsFile<H> {
    fn len(&self) -> io::Result<u64> {
        self.file.handle.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let read = self.file.handle.read(buffer, position)?;
        at_most(read, buffer.len())
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        write_all(&self.file.handle, bytes, position)
    }

    fn write_vectored_at(&self, parts: &[IoSlice<'_>], mut position: u64) -> io::Result<()> {
        if let [part] = parts {
            return self.write_at(part, position);
        }
        let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        if bytes <= GATHERED_BYTES_MAX {
            let mut gathered = Vec::with_capacity(bytes);
            parts
                .iter()
                .for_each(|part| gathered.extend_from_slice(part));
            return self.write_at(&gathered, position);
        }
        for part in parts {
            self.write_at(part, position)?;
            position += part.len() as u64;
        }
        Ok(())
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.handle.truncate(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.handle.flush()
    }

    fn is_removed(&self) -> io::Result<bool> {
        Ok(self.file.is_removed.get())
    }
}
