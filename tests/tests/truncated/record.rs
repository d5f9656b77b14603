//! Values that say what they should be.

use std::ops::Range;

use fastrand::Rng;
use proglog::{Offset, Record};

const HEAD_BYTES: usize = 32;

/// The value of a record: its generation, its offset, its batch; the rest follows from these.
pub(crate) fn value(generation: u64, offset: u64, batch: &Range<u64>) -> Vec<u8> {
    let mut value = Vec::new();
    for number in [generation, offset, batch.start, batch.end] {
        value.extend_from_slice(&number.to_be_bytes());
    }
    let mut rng = Rng::with_seed(generation << 40 ^ offset);
    let bytes = if rng.u8(..50) == 0 {
        rng.usize(3_000..9_000)
    } else {
        // Often of one length, so that those of another generation stand in the same place.
        [40, rng.usize(..200)][usize::from(rng.u8(..4) == 0)]
    };
    value.resize_with(HEAD_BYTES + bytes, || rng.u8(..));
    value
}

/// Checks a record's every byte and gives its generation and batch.
pub(crate) fn check(record: &Record, at: u64) -> (u64, Range<u64>) {
    assert_eq!(record.offset(), Offset(at));
    let number = |n: usize| {
        let bytes = record.value().get(n * 8..).and_then(<[u8]>::first_chunk);
        u64::from_be_bytes(*bytes.expect("a value of ours"))
    };
    let (generation, batch) = (number(0), number(2)..number(3));
    assert!(batch.contains(&at), "{at} in {batch:?}");
    assert_eq!(u64::from(record.batch_remaining()), batch.end - 1 - at);
    assert!(
        record.value() == value(generation, at, &batch),
        "record {at} is not what generation {generation} appended"
    );
    (generation, batch)
}
