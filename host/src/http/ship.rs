//! Records that another log ships here, in the frames of its stores.

use std::ops::Range;

use axum::body::Bytes;
use proglog::{AppendOptions, Durability, Gap, Header, NewRecord, Offset, ProducerLast, Record};
use serde::Serialize;

use super::{Health, problem::Problem};
use crate::{Engine, Result};

/// The header that says when a record was appended to the log it comes from, as decimal milliseconds since 1970. A log's
/// timestamps never decrease, so one that was offline for a while could not keep its own here.
const SOURCE_TIMESTAMP_HEADER: &str = "source-timestamp-ms";
/// So much later than it was appended a record may arrive without that header: as much as clocks differ, or less.
const ARRIVES_WITHIN_MS: u64 = 1000;
/// The bytes of the length that a frame begins with.
const LENGTH_BYTES: usize = size_of::<u64>();

/// What was done with the records that were shipped.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Shipped {
    /// The source's last record that is here, and where.
    #[serde(flatten)]
    last: Option<ProducerLast>,
    /// How many of those in the request were appended.
    appended: u64,
    /// How many of them were here before.
    known: u64,
}

/// Appends what of `frames` is not here yet: a record's producer is the log it comes from, `source`, and its sequence its
/// offset there. All that is told of is durable.
///
/// Each batch is one here too. One whose end is not among the frames waits for a request that has it.
pub(super) fn ship(
    engine: &dyn Engine,
    health: &Health,
    source: &[u8],
    frames: &Bytes,
    now_ms: u64,
) -> Result<Shipped, Problem> {
    let mut shipped = Shipped {
        last: engine.producer_last(source)?,
        ..Shipped::default()
    };
    let mut batches = Batches::of(frames.clone());
    // Before anything is appended: a request that makes no sense changes nothing.
    let mut whole = 0;
    while let Some(batch) = batches.next()? {
        whole += u64::from(batch.is_whole);
    }
    if whole == 0 && !frames.is_empty() {
        return Err(Problem::bad_request(
            "there is no whole batch in the body; send one with all its records, and more in another request",
        ));
    }
    let mut batches = Batches::of(frames.clone());
    while let Some(batch) = batches.next()?.filter(|batch| batch.is_whole) {
        let records = batch.records.len() as u64;
        let sequence = batch.last.0;
        if shipped.last.is_some_and(|last| sequence <= last.sequence) {
            shipped.known += records;
            continue;
        }
        let appended = append(engine, source, &batch.records, now_ms);
        health.note(&appended);
        let offsets = appended?;
        shipped.last = Some(ProducerLast::new(sequence, Offset(offsets.end.0 - 1)));
        shipped.appended += records;
    }
    let synced = engine.sync();
    health.note(&synced);
    synced?;
    Ok(shipped)
}

fn append(
    engine: &dyn Engine,
    source: &[u8],
    records: &[Record],
    now_ms: u64,
) -> Result<Range<Offset>> {
    let headers: Vec<Vec<Header>> = records
        .iter()
        .map(|record| headers(record, now_ms))
        .collect();
    let records: Vec<NewRecord<'_>> = records
        .iter()
        .zip(&headers)
        .map(|(record, headers)| {
            NewRecord::new(record.value())
                .key(record.key().unwrap_or_default())
                .headers(headers)
                .timestamp_ms(record.timestamp_ms().unwrap_or_default())
                .producer(source, record.offset().0)
        })
        .collect();
    // One sync for all, by who calls.
    engine.append_batch_with(&records, AppendOptions::from(Durability::Buffered))
}

fn headers(record: &Record, now_ms: u64) -> Vec<Header> {
    let headers = record.headers().map(Header::from);
    let late = record
        .timestamp_ms()
        .filter(|then_ms| then_ms.saturating_add(ARRIVES_WITHIN_MS) < now_ms);
    let has = record
        .headers()
        .any(|(name, _)| name == SOURCE_TIMESTAMP_HEADER);
    let source = late
        .filter(|_| !has)
        .map(|ms| Header::new(SOURCE_TIMESTAMP_HEADER, ms.to_string()));
    headers.chain(source).collect()
}

/// The last record here that came from `source`, wherever in the log it is: also where so many others came since that the
/// log has forgotten it. That reads the log from its beginning.
pub(super) fn find_last(
    engine: &dyn Engine,
    source: &[u8],
) -> Result<Option<ProducerLast>, Problem> {
    if let Some(last) = engine.producer_last(source)? {
        return Ok(Some(last));
    }
    let mut found = None;
    for record in engine.scan(engine.lowest_offset()?) {
        let record = record?;
        if let Some(producer) = record.producer().filter(|producer| producer.id == source) {
            found = Some(ProducerLast::new(producer.sequence, record.offset()));
        }
    }
    Ok(found)
}

/// Records that were appended together.
struct Batch {
    records: Vec<Record>,
    /// The last offset of it, be its record there or not.
    last: Offset,
    /// Whether it is known that nothing of it comes after these records.
    is_whole: bool,
}

/// The batches of frames as they stand in a store.
struct Batches {
    rest: Bytes,
    /// The first record of the next one.
    first: Option<Record>,
    /// The offset before which no more may come.
    next: Offset,
}

enum Frame {
    Record(Record),
    Gap(Gap),
}

impl Batches {
    fn of(frames: Bytes) -> Self {
        Self {
            rest: frames,
            first: None,
            next: Offset(0),
        }
    }

    fn next(&mut self) -> Result<Option<Batch>, Problem> {
        let mut batch: Option<Batch> = None;
        loop {
            let frame = match self.first.take() {
                Some(record) => Frame::Record(record),
                None => match self.frame()? {
                    Some(frame) => frame,
                    None => return Ok(batch),
                },
            };
            match (frame, &mut batch) {
                (Frame::Record(record), None) => {
                    let last = record.offset().plus(record.batch_remaining().into());
                    batch = Some(Batch {
                        is_whole: record.batch_remaining() == 0,
                        records: vec![record],
                        last,
                    });
                }
                (Frame::Record(record), Some(before)) if record.offset() <= before.last => {
                    before.is_whole = record.offset() == before.last;
                    before.records.push(record);
                }
                (Frame::Record(record), Some(before)) => {
                    before.is_whole = true;
                    self.first = Some(record);
                    return Ok(batch);
                }
                (Frame::Gap(_), None) => {}
                (Frame::Gap(gap), Some(before)) => before.is_whole |= gap.last >= before.last,
            }
            if batch.as_ref().is_some_and(|batch| batch.is_whole) {
                return Ok(batch);
            }
        }
    }

    fn frame(&mut self) -> Result<Option<Frame>, Problem> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let frame = self.split_frame()?;
        let bad = |what: String| {
            Problem::bad_request(format!("{what}; send frames as they stand in a store"))
        };
        let (first, last, frame) = match Record::from_frame(frame.clone()) {
            Ok(record) => (record.offset(), record.offset(), Frame::Record(record)),
            Err(reason) => match Gap::from_frame(&frame) {
                Some(gap) => (gap.first, gap.last, Frame::Gap(gap)),
                None => {
                    let next = self.next;
                    return Err(bad(format!(
                        "the frame at or after offset {next} is damaged: {reason}"
                    )));
                }
            },
        };
        if last < self.next || last.0 == u64::MAX {
            return Err(bad(format!(
                "offset {first} does not come after those before it in the body"
            )));
        }
        self.next = last.next();
        Ok(Some(frame))
    }

    fn split_frame(&mut self) -> Result<Bytes, Problem> {
        let length = self
            .rest
            .first_chunk()
            .map(|length| u64::from_be_bytes(*length));
        let bytes = length
            .and_then(|length| usize::try_from(length).ok()?.checked_add(LENGTH_BYTES))
            .filter(|&bytes| bytes <= self.rest.len());
        match bytes {
            Some(bytes) => Ok(self.rest.split_to(bytes)),
            None => Err(Problem::bad_request(
                "the body ends within a frame; send whole frames, as they stand in a store",
            )),
        }
    }
}
