//! What is timed: a floor, proglog or a peer, each behind the same few operations.

use std::{ops::Range, path::PathBuf};

use anyhow::{Result, bail};

use crate::values::{Seen, Values};

/// What an append is asked to promise when it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// Nothing, until a sync.
    Buffered,
    /// The record survives `kill -9`.
    Written,
    /// The record survives a power cut.
    Synced,
}

/// What a subject is opened for.
#[derive(Clone, Debug)]
pub struct Setup {
    pub directory: PathBuf,
    pub promise: Promise,
    /// What the directory holds, or will at most: floors prepare as much.
    pub records: u64,
    pub value_bytes: usize,
    /// The log is there already.
    pub exists: bool,
    /// Checksums are verified once a segment, where there is a choice, not at every read.
    pub verify_once: bool,
    /// The most bytes of a segment, where it is not the default.
    pub segment_bytes: Option<u64>,
}

impl Setup {
    pub fn payload_bytes(&self) -> u64 {
        self.records * self.value_bytes as u64
    }
}

/// A log, or what stands for one. What a subject cannot do it refuses with [`cannot`].
pub trait Subject: Send + Sync {
    /// What is done after everything was written back, and before the clock starts.
    fn ready(&mut self) -> Result<()> {
        Ok(())
    }

    /// Appends under the promise that the subject was opened with.
    fn append(&mut self, value: &[u8]) -> Result<()>;

    /// A loop of appends, in one call so that it is compiled for each subject.
    fn append_all(&mut self, values: &Values, range: Range<u64>) -> Result<()> {
        values.range(range).try_for_each(|value| self.append(value))
    }

    /// Appends from several threads.
    fn append_shared(&self, _value: &[u8]) -> Result<()> {
        bail!("cannot append from several threads")
    }

    /// Appends records that a sync follows, in the way that is fastest here.
    fn append_batch(&mut self, values: &Values, range: Range<u64>) -> Result<()> {
        self.append_all(values, range)
    }

    /// Hands what is buffered to the operating system.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Makes all that was appended survive a power cut.
    fn sync(&mut self) -> Result<()>;

    /// Reads every record in order.
    fn scan(&self) -> Result<Seen> {
        bail!("cannot scan")
    }

    /// A log that was appended to in batches reads faster, or at least no slower.
    fn fills_in_batches(&self) -> bool {
        false
    }

    /// A second scan would find nothing.
    fn scans_once(&self) -> bool {
        false
    }

    /// Reads the record with this number; the fold of its value.
    fn read(&self, _n: u64) -> Result<u64> {
        bail!("cannot read by number")
    }

    /// A loop of random reads: the sum of what was read.
    fn read_all(&self, numbers: &mut dyn Iterator<Item = u64>) -> Result<u64> {
        let mut sum = 0_u64;
        for n in numbers {
            sum = sum.wrapping_add(self.read(n)?);
        }
        Ok(sum)
    }

    fn close(self: Box<Self>) -> Result<()>;
}

/// What kind of subject it is, for the tables and the plots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Floor,
    Proglog,
    Peer,
}

/// A subject before it is opened.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub group: Group,
    pub open: fn(&Setup) -> Result<Box<dyn Subject>>,
    /// What an append that was asked for a promise really keeps.
    pub kept: fn(Promise) -> &'static str,
}
