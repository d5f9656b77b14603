//! A segment's files, by name.

use std::io;

use crate::{
    Error, Offset,
    backend::{Access, Backend},
    error::Thin,
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

/// The name of the file whose cutting this one is left of, if it is.
pub(crate) fn cut_name(name: &str) -> Option<&str> {
    let cut = name.strip_suffix(".cut")?;
    (store_base(cut).is_some() || index_base(cut).is_some()).then_some(cut)
}

/// The name of a file that will take the place of another, or its name.
pub(super) fn rewritten_name(name: &str) -> String {
    format!("{name}.rewritten")
}

/// The name that a file of this name was about to have, if it was.
pub(crate) fn rewritten_to(name: &str) -> Option<&str> {
    let to = name.strip_suffix(".rewritten")?;
    (store_base(to).is_some() || index_base(to).is_some()).then_some(to)
}

/// The name of a copy of a segment's store that a repair kept, the `n`th one.
pub(crate) fn damaged_name(base: Offset, n: u64) -> String {
    format!("{}.damaged-{n}", store_name(base))
}

/// Gives a file the name of another, in whose place it is then.
pub(super) fn replace_file<B: Backend>(backend: &B, from: &str, to: &str) -> Thin<()> {
    let renamed = backend.rename(from, to);
    renamed.map_err(|e| Error::io("replace", file_path(backend, to), e))
}

pub(crate) fn store_name(base: Offset) -> String {
    format!("{base}.store")
}

pub(crate) fn index_name(base: Offset) -> String {
    format!("{base}.index")
}

/// Removes the files of segments, one after the other, durably. Without its store a segment is gone; an index
/// left behind is nothing. The other way round it would be something: a segment of which nothing tells
/// that it was sealed.
pub(crate) fn remove_files<B: Backend>(
    backend: &B,
    bases: impl IntoIterator<Item = Offset>,
) -> Thin<()> {
    for base in bases {
        remove_store(backend, base)?;
        remove_file(backend, &index_name(base))?;
    }
    // Before an index of the same name is made.
    sync_directory(backend)
}

/// Removes a segment's store, durably.
pub(crate) fn remove_store<B: Backend>(backend: &B, base: Offset) -> Thin<()> {
    remove_file(backend, &store_name(base))?;
    sync_directory(backend)
}

/// Removes the index that a segment without a store has left, durably.
pub(crate) fn remove_index<B: Backend>(backend: &B, base: Offset) -> Thin<()> {
    remove_file(backend, &index_name(base))?;
    sync_directory(backend)
}

pub(super) fn remove_file<B: Backend>(backend: &B, name: &str) -> Thin<()> {
    match backend.remove(name) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", file_path(backend, name), e))
        }
        _ => Ok(()),
    }
}

/// Cuts a file to its first `bytes` bytes, durably.
pub(super) fn cut_file<B: Backend>(backend: &B, name: &str, bytes: u64) -> Thin<()> {
    let cut = backend.cut(name, bytes);
    cut.map_err(|e| Error::io("truncate", file_path(backend, name), e))
}

pub(crate) fn sync_directory<B: Backend>(backend: &B) -> Thin<()> {
    backend
        .sync_directory()
        .map_err(|e| Error::io("sync directory", backend.name(), e))
}

pub(super) fn open_file<B: Backend>(backend: &B, name: &str, access: Access) -> Thin<B::File> {
    backend
        .open(name, access)
        .map_err(|e| Error::io("open", file_path(backend, name), e))
}

fn file_path<B: Backend>(backend: &B, name: &str) -> String {
    format!("{}/{name}", backend.name())
}
