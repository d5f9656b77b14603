//! Writing sealed segments anew, without some of their records.

use std::sync::{Arc, atomic::Ordering::Acquire};

use super::{Shared, view::Slot};
use crate::{
    Backend, Damage, Error,
    error::Thin,
    segment::{Goes, Removed, Rewritten},
};

impl<B: Backend> Shared<B> {
    /// Writes a sealed segment anew without what is to go, and has it take the place of the old one, durably. `None`:
    /// by now the segment is another, for the log was truncated, and nothing was changed.
    ///
    /// Appends and reads go on meanwhile; only for putting the new files in place are syncs kept off. By who keeps
    /// others from doing so too.
    pub(super) fn rewrite(
        &self,
        slot: &Arc<Slot<B>>,
        damage: &[Damage],
        goes: &mut impl Goes,
    ) -> Thin<Option<Removed>> {
        let written = self
            .open_segment(slot, false)
            .and_then(|segment| Rewritten::write(&self.backend, &segment, damage, goes));
        let written = match written {
            // Its files may be gone.
            Err(_) if !self.view.load().has(slot) => return Ok(None),
            written => written?,
        };
        let removed = written.removed;
        // Who truncates, seals or looks at the files by their names does so alone.
        let _leading = self.lead();
        let may = self
            .check_poisoned()
            .and_then(|()| match self.closed.load(Acquire) {
                true => Err(Error::Closed.into()),
                false => Ok(()),
            });
        if let Err(e) = may {
            written.discard(&self.backend);
            return Err(e);
        }
        let mut index_in_place = Ok(());
        let replaced = self.opened.replace_files(&self.view, slot, || {
            index_in_place = written.put_index_in_place(&self.backend);
            if index_in_place.is_ok() {
                // From now on it is not known which files a crash leaves.
                let put = written.put_store_in_place(&self.backend);
                return self.poison_if_failed(put).map(|()| true);
            }
            Ok(false)
        })?;
        if !replaced {
            written.discard(&self.backend);
            index_in_place?;
        }
        Ok(replaced.then_some(removed))
    }
}
