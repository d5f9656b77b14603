//! Leaving offsets out.

use super::{Shared, append::Writer, commit::Leading};
use crate::{Backend, Error, Offset, Result, index::ENTRY_BYTES};

/// So many are left out at once: the index has an entry of each.
const SKIPPED_MAX: u64 = (1 << 30) / ENTRY_BYTES;

impl<B: Backend> Shared<B> {
    pub(super) fn skip_to(&self, next: Offset) -> Result<()> {
        self.check_writable()?;
        let leading = self.lead();
        let mut writer = self.writer()?;
        let given = writer.active().next_offset();
        if next < given {
            return Err(Error::InvalidArgument(format!(
                "offset {next} was given already; the next one is {given}"
            )));
        }
        if next.since(given) > SKIPPED_MAX || next.0 == u64::MAX {
            return Err(Error::InvalidArgument(format!(
                "from {given} to {next} are more than the {SKIPPED_MAX} records that can be left out; begin another \
                 log there"
            )));
        }
        if next == given {
            return Ok(());
        }
        let skipped = self.skip_records(&leading, &mut writer, next);
        self.poison_if_failed(skipped)
    }

    /// To readers and to recovery it is as if their records had been cut off the store: the index vouches for them.
    fn skip_records(
        &self,
        leading: &Leading<'_, B>,
        writer: &mut Writer<B>,
        next: Offset,
    ) -> Result<()> {
        writer.active().flush()?;
        leading.seal_all()?;
        // The index may not lead: what it vouches for in the store is there first.
        writer.active().seal()?;
        writer.active().reaches_to(next)?;
        writer.active().seal()?;
        self.durable_is(next);
        // Only now: a segment that does not follow on the one before would be taken for a leftover.
        self.roll(writer)
    }
}
