//! What a log holds, and what it may hold once it stopped.

use std::{
    fmt,
    ops::{Range, RangeInclusive},
};

use proglog::{Durability, Error, Log, NewRecord, Offset};

use crate::{
    sabotage::Disk,
    workload::{Step, key_of},
};

/// A batch of a producer, as it can be sent again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) producer: &'static str,
    first_sequence: u64,
    pub(crate) values: Vec<Vec<u8>>,
    /// Where it was appended, or will be.
    pub(crate) first: u64,
}

impl Sent {
    pub(crate) fn append(&self, log: &Log<Disk>) -> proglog::Result<Range<Offset>> {
        let records = self.values.iter().zip(self.first_sequence..);
        log.append_batch(records.map(|(value, sequence)| {
            NewRecord::new(value)
                .key(key_of(value))
                .timestamp_ms(5)
                .producer(self.producer, sequence)
        }))
    }

    pub(crate) fn next(&self) -> u64 {
        self.first + self.values.len() as u64
    }
}

/// Whose a record is, where it is there.
fn producer_of(log: &Log<Disk>, offset: u64) -> Option<String> {
    let record = log.read(Offset(offset)).ok()?;
    let producer = record.producer()?;
    Some(String::from_utf8_lossy(producer.id).into_owned())
}

/// What a log holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Held {
    pub(crate) lowest: u64,
    /// From the lowest offset on; none of those that are not there.
    pub(crate) values: Vec<Option<Vec<u8>>>,
    /// The offsets after which no batch goes on.
    pub(crate) ends: Vec<u64>,
    /// The beginnings of batches that were cut on purpose. They are no batches any more: where they are cut
    /// again and that is interrupted, any part of them may be left.
    pub(crate) cut: Vec<RangeInclusive<u64>>,
    /// The batches of producers, none of them cut.
    pub(crate) sent: Vec<Sent>,
    /// How many records were ever to be appended.
    pub(crate) sequences: u64,
}

impl Held {
    pub(crate) fn next(&self) -> u64 {
        self.lowest + self.values.len() as u64
    }

    pub(crate) fn append(&mut self, values: &[Vec<u8>]) {
        self.values.extend(values.iter().cloned().map(Some));
        self.ends.push(self.next());
    }

    /// The batch that is sent next, of one of two producers.
    pub(crate) fn send(&mut self, values: &[Vec<u8>]) -> Sent {
        let first_sequence = self.sequences;
        self.sequences += values.len() as u64;
        Sent {
            producer: ["a", "b"][first_sequence as usize / 2 % 2],
            first_sequence,
            values: values.to_vec(),
            first: self.next(),
        }
    }

    fn skip_to(&mut self, next: u64) {
        self.values.resize((next - self.lowest) as usize, None);
        self.ends.push(next);
    }

    /// Whether an offset has a record, or none was given it yet.
    fn has_record(&self, offset: u64) -> bool {
        let n = offset.checked_sub(self.lowest);
        let value = n.and_then(|n| self.values.get(n as usize));
        value.is_none_or(Option::is_some)
    }

    /// Where the offsets begin that are not there, of which this is the last; the one after it if it is there.
    fn gap_to(&self, last: u64) -> u64 {
        let before = &self.values[..=(last - self.lowest) as usize];
        let gone = before.iter().rev().take_while(|value| value.is_none());
        last + 1 - gone.count() as u64
    }

    /// Takes away what a compaction has, if it may have.
    fn compacted(&mut self, log: &Log<Disk>) -> Result<(), String> {
        let mut found = self.clone();
        for (offset, value) in (self.lowest..).zip(&mut found.values) {
            if matches!(log.read(Offset(offset)), Err(Error::Gap { .. })) {
                *value = None;
            }
        }
        if !self.may_become(&found) {
            return Err(format!("{:?} became {:?}", self.values, found.values));
        }
        // Whose each record is that stayed. What a producer appended last does, whole.
        let producers: Vec<Option<String>> = (self.lowest..self.next())
            .map(|offset| producer_of(log, offset))
            .collect();
        let last_of = |id: &str| producers.iter().rposition(|of| of.as_deref() == Some(id));
        let is_kept = |n: usize| {
            let id = producers[n].as_deref();
            let last = id.and_then(last_of);
            last.is_some_and(|last| producers[n..=last].iter().all(|of| of.as_deref() == id))
        };
        for sent in &self.sent {
            let last = self
                .sent
                .iter()
                .rfind(|other| other.producer == sent.producer);
            let is_last = last.is_some_and(|last| last.first == sent.first);
            let was_cut = (sent.next()..self.next())
                .any(|n| producers[(n - self.lowest) as usize].as_deref() == Some(sent.producer));
            if is_last && !was_cut && self.has_all_of(sent) && !found.has_all_of(sent) {
                return Err(format!("{sent:?} was not kept in {:?}", found.values));
            }
        }
        let active = log.segments().last().map_or(0, |last| last.base.0);
        let sealed = active.saturating_sub(self.lowest) as usize;
        for (n, value) in found.values.iter().enumerate().take(sealed) {
            if value.is_some() && self.is_obsolete(n, &self.values) && !is_kept(n) {
                return Err(format!("number {n} was left in {:?}", found.values));
            }
        }
        *self = found;
        self.forget_sent();
        Ok(())
    }

    /// Whether nothing of a batch was compacted, retained no longer, or never appended: so that it is known again.
    pub(crate) fn has_all_of(&self, sent: &Sent) -> bool {
        sent.first >= self.lowest
            && sent.next() <= self.next()
            && (sent.first..sent.next())
                .all(|offset| self.values[(offset - self.lowest) as usize].is_some())
    }

    /// Forgets what was sent of which not all is there.
    pub(crate) fn forget_sent(&mut self) {
        let sent = std::mem::take(&mut self.sent);
        let kept = sent.into_iter().filter(|sent| self.has_all_of(sent));
        self.sent = kept.collect();
    }

    /// Whether a later one of `values` has the key of number `n`.
    fn is_obsolete(&self, n: usize, values: &[Option<Vec<u8>>]) -> bool {
        let key = self.values[n]
            .as_deref()
            .map(key_of)
            .filter(|key| !key.is_empty());
        let later = values.iter().skip(n + 1).flatten();
        key.is_some_and(|key| later.into_iter().any(|later| key_of(later) == key))
    }

    /// Whether a compaction may leave this of it, or of its beginning.
    fn may_become(&self, found: &Self) -> bool {
        let beginning = &self.values[(found.lowest - self.lowest) as usize..];
        let skipped = self.values.len() - beginning.len();
        let is_same = |(n, now): (usize, &Option<Vec<u8>>)| match (&beginning[n], now) {
            (before, now) if before == now => true,
            (Some(value), None) => {
                let end = skipped + found.values.len();
                let is_deletion = value.is_empty()
                    && !found.values[..n]
                        .iter()
                        .flatten()
                        .any(|older| key_of(older) == key_of(value));
                is_deletion || self.is_obsolete(n + skipped, &self.values[..end])
            }
            _ => false,
        };
        found.values.len() <= beginning.len() && found.values.iter().enumerate().all(is_same)
    }

    pub(crate) fn lengths(&self) -> Vec<Option<usize>> {
        let length = |value: &Option<Vec<u8>>| value.as_ref().map(Vec::len);
        self.values.iter().map(length).collect()
    }

    /// What a step leaves, of which the log says how much it took away.
    pub(crate) fn after(
        &mut self,
        step: &Step,
        sent: Option<Sent>,
        log: &Log<Disk>,
        retained_bytes: Option<u64>,
    ) -> Result<(), String> {
        match step {
            Step::Append(values) => {
                self.append(values);
                self.sent.extend(sent);
            }
            Step::TruncateAfter(offset) => {
                let next = offset + 1;
                self.values.truncate((next - self.lowest) as usize);
                self.sent.retain(|sent| sent.next() <= next);
                let whole = self.ends.contains(&next);
                self.ends.retain(|&end| end < next);
                if !whole {
                    let first = self.ends.last().copied().unwrap_or(self.lowest);
                    self.cut.push(first..=next);
                }
                self.ends.push(next);
            }
            Step::Reset => {
                *self = Self {
                    sequences: self.sequences,
                    ..Self::default()
                }
            }
            Step::SkipTo(next) => self.skip_to(*next),
            Step::Compact => self.compacted(log)?,
            Step::Sync | Step::TruncateBefore(_) | Step::Reopen | Step::Reserve(_) => {}
        }
        let (lowest, next) = (log.lowest_offset().0, log.next_offset().0);
        let most = match step {
            Step::TruncateBefore(offset) => *offset,
            Step::Append(_) | Step::SkipTo(_) if retained_bytes.is_some() => next,
            _ => self.lowest,
        };
        if next != self.next() || lowest < self.lowest || lowest > most {
            return Err(format!(
                "{self:?} after {step:?}, but the log has {lowest}..{next}"
            ));
        }
        self.values.drain(..(lowest - self.lowest) as usize);
        self.lowest = lowest;
        self.sent.retain(|sent| sent.first >= lowest);
        Ok(())
    }
}

/// Where a workload stopped: what the log held before the last step, and that step unless it was done.
#[derive(Clone)]
pub(crate) struct Stopped {
    pub(crate) held: Held,
    pub(crate) in_step: Option<Step>,
    /// The log's own word for what was on stable storage.
    pub(crate) durable: u64,
    pub(crate) durability: Durability,
    /// What a producer was appending.
    pub(crate) sending: Option<Sent>,
    pub(crate) retained_bytes: Option<u64>,
}

impl Stopped {
    /// Whether the records before this offset belong to a batch that was cut before and is being cut again.
    fn is_being_cut(&self, next: u64) -> bool {
        matches!(self.in_step, Some(Step::TruncateAfter(_)))
            && self.held.cut.iter().any(|batch| batch.contains(&next))
    }

    /// Whether the log may hold this, when all records below `kept` were promised.
    pub(crate) fn may_hold(&self, found: &Held, kept: u64) -> bool {
        let mut most = self.held.clone();
        let mut lowest_max = most.lowest;
        let mut kept = kept;
        match &self.in_step {
            Some(Step::Append(values)) => {
                most.append(values);
                if self.retained_bytes.is_some() {
                    lowest_max = most.next();
                }
            }
            Some(Step::TruncateBefore(offset)) => lowest_max = *offset,
            Some(Step::TruncateAfter(offset)) => {
                most.ends.push(offset + 1);
                // What tells of offsets that are not there, and is to be cut, goes whole, before what is left of them is
                // told anew.
                if (most.lowest..most.next()).contains(offset) && !most.has_record(offset + 1) {
                    let gap = most.gap_to(*offset);
                    most.ends.extend(gap..=*offset);
                    kept = kept.min(gap);
                }
                kept = kept.min(offset + 1);
            }
            Some(Step::SkipTo(next)) => {
                most.skip_to(*next);
                if self.retained_bytes.is_some() {
                    lowest_max = most.next();
                }
            }
            Some(Step::Reset) if found.lowest == 0 && found.values.is_empty() => return true,
            Some(Step::Reset) => kept = 0,
            None | Some(Step::Sync | Step::Reopen | Step::Reserve(_) | Step::Compact) => {}
        }
        let next = found.next();
        (most.lowest..=lowest_max).contains(&found.lowest)
            && next >= kept
            && (next == found.lowest || most.ends.contains(&next) || self.is_being_cut(next))
            && match self.in_step {
                Some(Step::Compact) => most.may_become(found),
                _ => {
                    most.values[(found.lowest - most.lowest) as usize..].starts_with(&found.values)
                }
            }
    }
}

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Held { lowest, ends, .. } = &self.held;
        write!(
            f,
            "held from {lowest} on values of {:?} bytes in batches that end before {ends:?}, {} durable, ",
            self.held.lengths(),
            self.durable
        )?;
        match &self.in_step {
            Some(Step::Append(values)) => {
                let lengths: Vec<_> = values.iter().map(Vec::len).collect();
                write!(f, "in an append of {lengths:?}")
            }
            step => write!(f, "in {step:?}"),
        }
    }
}
