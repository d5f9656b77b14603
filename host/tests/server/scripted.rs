//! An engine that does as it is told.

use std::{
    ops::Range,
    sync::{Arc, Mutex, mpsc::Receiver},
};

use proglog::{
    AppendOptions, Compacted, Compaction, Frames, Location, NewRecord, Offset, ProducerLast,
    Record, Report, Retention, SegmentSummary,
};
use proglog_host::{Engine, Error, Records, Result, Subscription};

pub(crate) type Failure = fn() -> proglog::Error;
pub(crate) type Failing = Arc<Mutex<Option<Failure>>>;

/// An engine of one empty log whose appends fail, or wait, as told.
pub(crate) struct Scripted {
    pub(crate) failing: Failing,
    pub(crate) wait: Option<Mutex<Receiver<()>>>,
}

impl Engine for Scripted {
    fn append_batch(&self, _: &[NewRecord<'_>]) -> Result<Range<Offset>> {
        if let Some(wait) = &self.wait {
            wait.lock().unwrap().recv().unwrap();
        }
        match *self.failing.lock().unwrap() {
            Some(error) => Err(error().into()),
            None => Ok(Offset(0)..Offset(1)),
        }
    }

    fn append_batch_with(
        &self,
        records: &[NewRecord<'_>],
        _: AppendOptions,
    ) -> Result<Range<Offset>> {
        self.append_batch(records)
    }

    fn producer_last(&self, _: &[u8]) -> Result<Option<ProducerLast>> {
        unasked()
    }

    fn lowest_offset(&self) -> Result<Offset> {
        Ok(Offset(0))
    }

    fn next_offset(&self) -> Result<Offset> {
        Ok(Offset(0))
    }

    fn durable_offset(&self) -> Result<Offset> {
        Ok(Offset(0))
    }

    fn read(&self, _: Offset) -> Result<Record> {
        unasked()
    }

    fn read_batch(&self, _: Offset, _: usize) -> Result<Frames> {
        unasked()
    }

    fn scan(&self, _: Offset) -> Records<'_> {
        Box::new(std::iter::once(unasked()))
    }

    fn subscribe(&self, _: Offset) -> Box<dyn Subscription + Send + '_> {
        unimplemented!("not asked for")
    }

    fn truncate_before(&self, _: Offset) -> Result<()> {
        unasked()
    }

    fn truncate_after(&self, _: Offset) -> Result<()> {
        unasked()
    }

    fn reset(&self) -> Result<()> {
        unasked()
    }

    fn skip_to_because(&self, _: Offset, _: proglog::GapCause) -> Result<()> {
        unasked()
    }

    fn compact(&self, _: &Compaction) -> Result<Compacted> {
        unasked()
    }

    fn enforce_retention(&self) -> Result<()> {
        unasked()
    }

    fn enforce_retention_with(&self, _: &Retention, _: Option<u64>) -> Result<()> {
        unasked()
    }

    fn sync(&self) -> Result<()> {
        unasked()
    }

    fn recovery_report(&self) -> Result<Report> {
        unasked()
    }

    fn verify(&self) -> Result<Report> {
        unasked()
    }

    fn segments(&self) -> Result<Vec<SegmentSummary>> {
        unasked()
    }

    fn locate(&self, _: Offset) -> Result<Location> {
        unasked()
    }

    fn refresh(&self) -> Result<()> {
        unasked()
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

fn unasked<T>() -> Result<T> {
    Err(Error::from(proglog::Error::Closed))
}
