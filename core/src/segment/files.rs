//! A segment's files, by name.

use std::io;

use crate::{
    Error, Offset, Result,
    backend::{Access, Backend},
};

/// The base offset in a store's file name: decimal, not padded. Any other name is none of ours.
pub(crate) fn store_base(name: &str) -> Option<Offset> {
    base_of(name, ".store")
}

/// The base offset in an index's file name.
pub(crate) fn index_base(name: &str) -> Option<Offset> {
    base_of(name, ".index")
}

fn base_of(name: &str, suffix: &str) -> Option<Offset> {
    let digits = name.strip_suffix(suffix)?;
    let base = digits.parse::<u64>().ok()?;
    (base.to_string() == digits).then_some(Offset(base))
}

pub(super) fn store_name(base: Offset) -> String {
    format!("{base}.store")
}

pub(super) fn index_name(base: Offset) -> String {
    format!("{base}.index")
}

/// Removes a segment's files. Without its store a segment is gone; an index left behind is nothing.
pub(crate) fn remove_files<B: Backend>(backend: &B, base: Offset) -> Result<()> {
    for name in [store_name(base), index_name(base)] {
        match backend.remove(&name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", file_path(backend, &name), e));
            }
            _ => {}
        }
    }
    sync_directory(backend)
}

pub(crate) fn sync_directory<B: Backend>(backend: &B) -> Result<()> {
    backend
        .sync_directory()
        .map_err(|e| Error::io("sync directory", backend.name(), e))
}

pub(super) fn open_file<B: Backend>(backend: &B, name: &str, access: Access) -> Result<B::File> {
    backend
        .open(name, access)
        .map_err(|e| Error::io("open", file_path(backend, name), e))
}

fn file_path<B: Backend>(backend: &B, name: &str) -> String {
    format!("{}/{name}", backend.name())
}
