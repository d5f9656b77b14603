//! The log as native code.

use std::{iter, num::NonZero, ops::Range, time::Duration};

use proglog::{
    AppendOptions, Backend, Compacted, Compaction, Frames, GapCause, Location, Log, NewRecord,
    Next, Offset, ProducerLast, Record, Report, Retention, SegmentReport, SegmentSummary,
};

use crate::{Engine, Error, Records, Result, Subscription};

impl<B: Backend> Engine for Log<B>
where
    Self: Send + Sync,
    proglog::Subscription<B>: Send,
{
    fn append_batch(&self, records: &[NewRecord<'_>]) -> Result<Range<Offset>> {
        Ok(Log::append_batch(self, records.iter().copied())?)
    }

    fn append_batch_with(
        &self,
        records: &[NewRecord<'_>],
        options: AppendOptions,
    ) -> Result<Range<Offset>> {
        let records = records.iter().copied();
        Ok(Log::append_batch_with(self, records, options)?)
    }

    fn producer_last(&self, id: &[u8]) -> Result<Option<ProducerLast>> {
        Ok(Log::producer_last(self, id)?)
    }

    fn read(&self, offset: Offset) -> Result<Record> {
        Ok(Log::read(self, offset)?)
    }

    fn read_batch(&self, from: Offset, bytes_max: usize) -> Result<Frames> {
        Ok(Log::read_batch(self, from, bytes_max)?)
    }

    fn scan(&self, from: Offset) -> Records<'_> {
        if from != Log::next_offset(self)
            && let Err(e @ proglog::Error::OffsetOutOfRange { .. }) = Log::read(self, from)
        {
            return Box::new(iter::once(Err(e.into())));
        }
        let mut failed = false;
        Box::new(Log::scan(self, from..).map_while(move |record| {
            let go_on = !failed;
            failed |= record.is_err();
            go_on.then(|| record.map_err(Error::from))
        }))
    }

    fn subscribe(&self, from: Offset) -> Box<dyn Subscription + Send + '_> {
        Box::new(Log::subscribe(self, from))
    }

    fn truncate_before(&self, offset: Offset) -> Result<()> {
        Ok(Log::truncate_before(self, offset)?)
    }

    fn truncate_after(&self, offset: Offset) -> Result<()> {
        Ok(Log::truncate_after(self, offset)?)
    }

    fn reset(&self) -> Result<()> {
        Ok(Log::reset(self)?)
    }

    fn skip_to_because(&self, next: Offset, cause: GapCause) -> Result<()> {
        Ok(Log::skip_to_because(self, next, cause)?)
    }

    fn compact(&self, compaction: &Compaction) -> Result<Compacted> {
        Ok(Log::compact(self, compaction)?)
    }

    fn enforce_retention(&self) -> Result<()> {
        Ok(Log::enforce_retention(self)?)
    }

    fn enforce_retention_with(&self, retention: &Retention, now_ms: Option<u64>) -> Result<()> {
        Ok(Log::enforce_retention_with(self, retention, now_ms)?)
    }

    fn lowest_offset(&self) -> Result<Offset> {
        Ok(Log::lowest_offset(self))
    }

    fn next_offset(&self) -> Result<Offset> {
        Ok(Log::next_offset(self))
    }

    fn durable_offset(&self) -> Result<Offset> {
        Ok(Log::durable_offset(self))
    }

    fn sync(&self) -> Result<()> {
        Ok(Log::sync(self)?)
    }

    fn recovery_report(&self) -> Result<Report> {
        Ok(Log::recovery_report(self))
    }

    fn verify(&self) -> Result<Report> {
        Ok(Log::verify(self)?)
    }

    fn verify_with(
        &self,
        threads_max: NonZero<usize>,
        seen: &mut dyn FnMut(&SegmentReport),
    ) -> Result<Report> {
        Ok(Log::verify_with(self, threads_max, seen)?)
    }

    fn segments(&self) -> Result<Vec<SegmentSummary>> {
        Ok(Log::segments(self))
    }

    fn locate(&self, offset: Offset) -> Result<Location> {
        Ok(Log::locate(self, offset)?)
    }

    fn refresh(&self) -> Result<()> {
        Ok(Log::refresh(self)?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(Log::close(*self)?)
    }
}

impl<B: Backend> Subscription for proglog::Subscription<B> {
    fn next_timeout(&mut self, timeout: Duration) -> Result<Next> {
        Ok(Self::next_timeout(self, timeout)?)
    }

    fn offset(&self) -> Offset {
        Self::offset(self)
    }

    fn seek(&mut self, to: Offset) {
        Self::seek(self, to);
    }
}
