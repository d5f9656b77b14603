//! The log as simply as it can be said, in memory, its frames made by [`schema`](crate::schema). The
//! vectors are checked against it, and random scripts expect what it does.

use proglog::Options;
use serde_json::{Value, json};

use crate::{
    schema::{Fields, frames, index_of, record_of},
    subject::Files,
    vector::{Number, Operation, RecordRead, RecordToAppend, Settings},
};

/// The model of a log. It does not do damage.
#[derive(Debug)]
pub struct Model {
    first: Settings,
    options: Options,
    /// Lowest first; never empty.
    segments: Vec<Segment>,
    /// No record gets an earlier timestamp.
    latest_ms: u64,
    /// What producers appended, oldest first, once someone asked.
    sent: Option<Vec<Sent>>,
    /// Files that are none of the log's.
    strays: Files,
}

/// A batch of a producer.
#[derive(Debug)]
struct Sent {
    producer: Vec<u8>,
    first: u64,
    sequences: Vec<u64>,
}

#[derive(Debug)]
struct Segment {
    base: u64,
    records: Vec<Stored>,
}

#[derive(Debug)]
struct Stored {
    fields: Fields,
    frame: Vec<u8>,
    checked: bool,
}

/// What an operation gives, or the kind of error it fails with.
pub type Outcome = Result<Option<Value>, &'static str>;

impl Model {
    /// A log in a directory of these files, all sound.
    ///
    /// # Panics
    ///
    /// A store is not sound.
    #[must_use]
    pub fn open(given: &Files, first: Settings) -> Self {
        let options = first.options();
        let mut segments: Vec<_> = given
            .iter()
            .filter_map(|(name, bytes)| Segment::read(name, bytes))
            .collect();
        segments.sort_by_key(|segment| segment.base);
        if segments.is_empty() {
            segments.push(Segment::new(options.initial_offset.0));
        }
        let strays = given.iter().filter(|(name, _)| base_of(name).is_none());
        let strays = strays
            .map(|(name, bytes)| (name.clone(), bytes.clone()))
            .collect();
        let mut model = Self {
            first,
            options,
            segments,
            latest_ms: 0,
            sent: None,
            strays,
        };
        model.find_latest();
        model
    }

    fn find_latest(&mut self) {
        let records = self
            .segments
            .iter()
            .rev()
            .flat_map(|s| s.records.iter().rev());
        let mut timestamps = records.take(64).map(|record| record.fields.timestamp_ms);
        self.latest_ms = timestamps.find(|&ms| ms != 0).unwrap_or(0);
    }

    /// The files of the directory, once the log is closed.
    #[must_use]
    pub fn files(&self) -> Files {
        let mut files = self.strays.clone();
        for segment in &self.segments {
            let store = segment
                .records
                .iter()
                .flat_map(|record| record.frame.clone())
                .collect::<Vec<_>>();
            files.insert(format!("{}.index", segment.base), index_of(&store));
            files.insert(format!("{}.store", segment.base), store);
        }
        files
    }

    /// The offset of the first record.
    #[must_use]
    pub fn lowest(&self) -> u64 {
        self.segments[0].base
    }

    /// The offset of the next record.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.active().next()
    }

    /// Does one operation.
    ///
    /// # Errors
    ///
    /// The kind of error the operation fails with.
    pub fn perform(&mut self, operation: &Operation) -> Outcome {
        let (lowest, next) = (self.lowest(), self.next());
        Ok(match operation {
            Operation::Append(record) => {
                let (first, _) = self.send(std::slice::from_ref(record), None)?;
                Some(json!(Number(first)))
            }
            Operation::AppendBatch(records) => {
                let (first, end) = self.send(records, None)?;
                Some(json!([Number(first), Number(end)]))
            }
            Operation::AppendExpecting {
                expected_next_offset,
                records,
            } => {
                let (first, end) = self.send(records, Some(expected_next_offset.0))?;
                Some(json!([Number(first), Number(end)]))
            }
            Operation::ProducerLast(id) if !(1..=32).contains(&id.0.len()) => {
                return Err("invalid_argument");
            }
            Operation::ProducerLast(id) => {
                let sent = self.sent();
                let last = sent.iter().rev().find(|sent| sent.producer == id.0);
                Some(last.map_or(json!([]), |last| {
                    let count = last.sequences.len() as u64;
                    json!([Number(last.last()), Number(last.first + count - 1)])
                }))
            }
            Operation::Read(offset) => Some(self.record(offset.0)?),
            Operation::ReadBatch { from, bytes_max } => Some(self.read_batch(from.0, *bytes_max)?),
            Operation::Scan { from, to } if from.0 < to.0.min(next) => Some(
                (from.0..to.0.min(next))
                    .map(|offset| self.record(offset))
                    .collect::<Result<_, _>>()?,
            ),
            Operation::Scan { from, to } if from.0 < to.0 && from.0 > next => {
                return Err("offset_out_of_range");
            }
            Operation::Scan { .. } => Some(json!([])),
            Operation::TruncateBefore(offset) => self.truncate_before(offset.0)?,
            Operation::TruncateAfter(offset) if offset.0.saturating_add(1) < lowest => {
                return Err("offset_out_of_range");
            }
            Operation::TruncateAfter(offset) => self.truncate_to(offset.0.saturating_add(1)),
            Operation::Reset => {
                self.segments = vec![Segment::new(self.options.initial_offset.0)];
                self.latest_ms = 0;
                self.sent = None;
                None
            }
            Operation::Sync => None,
            Operation::Reopen(settings) => {
                let options = settings.or(self.first).options();
                if options.segment_bytes_max == 0
                    || options.index_bytes_max < 12
                    || options.record_bytes_max == 0
                {
                    return Err("invalid_argument");
                }
                self.options = options;
                self.sent = None;
                self.find_latest();
                None
            }
            Operation::LowestOffset => Some(json!(Number(lowest))),
            Operation::NextOffset | Operation::DurableOffset => Some(json!(Number(next))),
            Operation::Locate(offset) => {
                let (segment, at) = self.find(offset.0)?;
                let position: usize = segment.records[..at]
                    .iter()
                    .map(|record| record.frame.len())
                    .sum();
                Some(json!([Number(segment.base), position]))
            }
            Operation::Segments => {
                let summary = |s: &Segment| json!([Number(s.base), Number(s.next()), s.bytes()]);
                Some(self.segments.iter().map(summary).collect())
            }
            Operation::Verify => {
                let unchecked = self
                    .segments
                    .iter()
                    .flat_map(|s| &s.records)
                    .filter(|record| !record.checked)
                    .count();
                Some(json!({"sound": true, "records": next - lowest, "unchecked": unchecked}))
            }
        })
    }

    /// Appends records that are not there already, and gives the first offset and the one after the last.
    fn send(
        &mut self,
        records: &[RecordToAppend],
        expected: Option<u64>,
    ) -> Result<(u64, u64), &'static str> {
        let producer = |record: &RecordToAppend| record.fields(0).producer;
        let ids: Vec<_> = records.iter().map(|record| producer(record).0).collect();
        let sequences: Vec<_> = records.iter().map(|record| producer(record).1).collect();
        let id = ids.first().cloned().unwrap_or_default();
        let is_mixed = ids.iter().any(|other| *other != id);
        let has_producer = !id.is_empty();
        if is_mixed || id.len() > 32 || has_producer && !sequences.is_sorted_by(|a, b| a < b) {
            return Err("invalid_argument");
        }
        if has_producer {
            let theirs: Vec<_> = self
                .sent()
                .iter()
                .filter(|sent| sent.producer == id)
                .collect();
            let theirs = &theirs[theirs.len().saturating_sub(16)..];
            // Every run of theirs in which each begins where the one before ends.
            for from in 0..theirs.len() {
                let mut run = Vec::new();
                let mut end = theirs[from].first;
                for sent in theirs[from..].iter().take_while(|sent| {
                    let follows = sent.first == end;
                    end += sent.sequences.len() as u64;
                    follows
                }) {
                    run.extend(&sent.sequences);
                    let same = |at: fn(&[u64]) -> Option<&u64>| at(&run) == at(&sequences);
                    if same(<[u64]>::first) && same(<[u64]>::last) && run.len() == sequences.len() {
                        let first = theirs[from].first;
                        return Ok((first, first + run.len() as u64));
                    }
                }
            }
            if theirs
                .last()
                .is_some_and(|last| last.last() >= sequences[0])
            {
                return Err("sequence_conflict");
            }
        }
        let first = self.next();
        if expected.is_some_and(|expected| expected != first) {
            return Err("conflict");
        }
        self.append(records)?;
        if has_producer {
            self.sent().push(Sent {
                producer: id,
                first,
                sequences,
            });
        }
        Ok((first, self.next()))
    }

    /// What producers appended, of what the log held when it was opened or cut, and since.
    fn sent(&mut self) -> &mut Vec<Sent> {
        let segments = &self.segments;
        self.sent.get_or_insert_with(|| {
            let mut all: Vec<Sent> = Vec::new();
            for segment in segments {
                let records = segment.records.iter().map(|record| &record.fields);
                let mut remaining = 0;
                for fields in records {
                    let (id, sequence) = &fields.producer;
                    match all.last_mut() {
                        Some(sent) if remaining > 0 && !id.is_empty() => {
                            sent.sequences.push(*sequence);
                        }
                        _ if id.is_empty() => {}
                        _ => all.push(Sent {
                            producer: id.clone(),
                            first: fields.offset,
                            sequences: vec![*sequence],
                        }),
                    }
                    remaining = fields.batch_remaining;
                }
            }
            all
        })
    }

    fn append(&mut self, records: &[RecordToAppend]) -> Result<(), &'static str> {
        let first = self.next();
        let mut latest_ms = self.latest_ms;
        let mut batch = Vec::new();
        for (n, record) in records.iter().enumerate() {
            let mut fields = record.fields(first + n as u64).in_batch(n, records.len());
            if fields.timestamp_ms != 0 {
                latest_ms = latest_ms.max(fields.timestamp_ms);
                fields.timestamp_ms = latest_ms;
            }
            let frame = fields.frame();
            if frame.len() as u64 - 8 > self.options.record_bytes_max {
                return Err("too_large");
            }
            batch.push(Stored {
                fields,
                frame,
                checked: true,
            });
        }
        let entries_max =
            usize::try_from(self.options.index_bytes_max / 12).expect("a small index");
        if batch.len() > entries_max {
            return Err("invalid_argument");
        }
        let bytes: usize = batch.iter().map(|record| record.frame.len()).sum();
        let active = self.active();
        let has_room = (active.bytes() + bytes) as u64 <= self.options.segment_bytes_max
            && active.records.len() + batch.len() <= entries_max;
        if !batch.is_empty() && !has_room && !active.records.is_empty() {
            self.segments.push(Segment::new(first));
        }
        self.active_mut().records.extend(batch);
        self.latest_ms = latest_ms;
        Ok(())
    }

    fn read_batch(&self, from: u64, bytes_max: usize) -> Result<Value, &'static str> {
        if from == self.next() {
            return Ok(json!([]));
        }
        let (segment, at) = self.find(from)?;
        let mut bytes = 0;
        let fits = |record: &&Stored| {
            bytes += record.frame.len();
            bytes <= bytes_max || bytes == record.frame.len()
        };
        Ok(segment.records[at..]
            .iter()
            .take_while(fits)
            .map(Stored::read)
            .collect())
    }

    fn truncate_before(&mut self, offset: u64) -> Outcome {
        if offset > self.next() {
            return Err("offset_out_of_range");
        }
        if offset == self.next() && !self.active().records.is_empty() {
            self.segments.push(Segment::new(offset));
        }
        let kept = self
            .segments
            .iter()
            .position(|segment| segment.next() > offset);
        self.segments
            .drain(..kept.unwrap_or(self.segments.len() - 1));
        Ok(None)
    }

    fn truncate_to(&mut self, next: u64) -> Option<Value> {
        if next >= self.next() {
            return None;
        }
        while self.segments.len() > 1 && self.active().base >= next {
            self.segments.pop();
        }
        let active = self.active_mut();
        active.records.retain(|record| record.fields.offset < next);
        if active
            .records
            .last()
            .is_some_and(|last| last.fields.batch_remaining > 0)
        {
            // A batch that was cut on purpose is not mistaken for one that a crash cut: what is appended
            // goes to another segment.
            self.segments.push(Segment::new(next));
        }
        self.find_latest();
        self.sent = None;
        None
    }

    fn record(&self, offset: u64) -> Result<Value, &'static str> {
        let (segment, at) = self.find(offset)?;
        Ok(segment.records[at].read())
    }

    fn find(&self, offset: u64) -> Result<(&Segment, usize), &'static str> {
        let segment = self
            .segments
            .iter()
            .rev()
            .find(|segment| segment.base <= offset);
        let segment = segment
            .filter(|segment| offset < segment.next())
            .ok_or("offset_out_of_range")?;
        Ok((
            segment,
            usize::try_from(offset - segment.base).expect("a small segment"),
        ))
    }

    fn active(&self) -> &Segment {
        self.segments.last().expect("a log has a segment")
    }

    fn active_mut(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("a log has a segment")
    }
}

impl Segment {
    fn new(base: u64) -> Self {
        Self {
            base,
            records: Vec::new(),
        }
    }

    fn read(name: &str, bytes: &[u8]) -> Option<Self> {
        let base = base_of(name).filter(|_| name.ends_with(".store"))?;
        let record = |frame: &[u8]| {
            let (fields, checked) = record_of(frame);
            Stored {
                fields,
                frame: frame.to_vec(),
                checked,
            }
        };
        Some(Self {
            base,
            records: frames(bytes).map(record).collect(),
        })
    }

    fn next(&self) -> u64 {
        self.base + self.records.len() as u64
    }

    fn bytes(&self) -> usize {
        self.records.iter().map(|record| record.frame.len()).sum()
    }
}

impl Sent {
    fn last(&self) -> u64 {
        *self.sequences.last().expect("a batch has records")
    }
}

impl Stored {
    fn read(&self) -> Value {
        json!(RecordRead::new(&self.fields, self.checked))
    }
}

/// The base offset in the name of a store or an index.
fn base_of(name: &str) -> Option<u64> {
    let digits = name
        .strip_suffix(".store")
        .or(name.strip_suffix(".index"))?;
    let base: u64 = digits.parse().ok()?;
    (base.to_string() == digits).then_some(base)
}
