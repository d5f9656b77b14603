//! What tells of a segment that it was sealed, where its end is missing.

use super::{
    Place, Segment,
    examine::examine,
    files::{index_name, replace_file, rewritten_name, sync_directory},
    rewrite::Out,
};
use crate::{
    Backend, Error, Offset, Options,
    error::Thin,
    index::{ENTRY_BYTES, encode_entry},
};

impl<B: Backend> Segment<B> {
    /// Makes the index of a sealed segment anew, durably, with an entry of every offset up to the next segment, or to
    /// the gap which that begins with: so also of those that are missing at its end. Then it is known that the segment
    /// was sealed, though the next one should tell nothing.
    pub(crate) fn reach(backend: &B, base: Offset, next: Offset, options: &Options) -> Thin<()> {
        let place = Place::Sealed { next };
        let gap_from = Self::gap_before(backend, next)?;
        let (store, index) = Self::open_files(backend, base, place, false, options)?;
        let (scanned, _) = examine(&store, index.as_ref(), base, place, gap_from, options)?;
        let name = index_name(base);
        let made = rewritten_name(&name);
        let mut out = Out::new(backend, &made)?;
        out.put(&scanned.entries)?;
        let there = scanned.entries.len() as u64 / ENTRY_BYTES;
        for n in there..gap_from.unwrap_or(next).since(base) {
            let Ok(relative) = u32::try_from(n) else {
                return Err(Error::IndexFull { entries: n }.into());
            };
            out.put(&encode_entry(relative, scanned.end))?;
        }
        out.finish()?;
        replace_file(backend, &made, &name)?;
        sync_directory(backend)
    }
}
