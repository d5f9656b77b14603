//! Leaving offsets out.

use super::{Shared, append::Writer, commit::Leading};
use crate::{Backend, Error, Gap, GapCause, Offset, Result, segment::Segment};

impl<B: Backend> Shared<B> {
    pub(super) fn skip_to(&self, next: Offset, cause: GapCause) -> Result<()> {
        self.check_writable()?;
        let leading = self.lead();
        let mut writer = self.writer()?;
        let given = writer.active().next_offset();
        if next < given {
            return Err(Error::InvalidArgument(format!(
                "offset {next} was given already; the next one is {given}"
            )));
        }
        if next.0 == u64::MAX {
            return Err(Error::InvalidArgument(format!(
                "offset {next} leaves none for a record; give a lower one"
            )));
        }
        if next == given {
            return Ok(());
        }
        let gap = Gap::new(given, next, cause);
        let skipped = self.begin_after(&leading, &mut writer, gap);
        self.poison_if_failed(skipped)
    }

    /// The next segment begins with what tells of the gap. All before it is sealed first, durably: it is told by the
    /// next one's base, where that was begun, that those before it were.
    fn begin_after(
        &self,
        leading: &Leading<'_, B>,
        writer: &mut Writer<B>,
        gap: Gap,
    ) -> Result<()> {
        writer.active().flush()?;
        leading.seal_all()?;
        writer.active().seal()?;
        self.roll_to(writer, || {
            Segment::create_after_gap(&self.backend, gap, &self.options)
        })?;
        self.durable_is(gap.next());
        Ok(())
    }
}
