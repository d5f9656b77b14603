//! The frame that tells of offsets that are not there.

use prost::encoding::encode_varint;

use super::{
    CHECKSUM, CHECKSUM_BYTES, Check, FIXED64, GAP_CAUSE, GAP_RECORDS, LENGTH_BYTES, Layout, OFFSET,
    VARINT, number_field_len, parse_frame, varint, xxh3_64,
};
use crate::{Gap, GapCause, Offset, error::Damaged};

/// Such a frame is never longer.
pub(crate) const GAP_FRAME_BYTES_MAX: usize =
    LENGTH_BYTES + 2 * (1 + 10) + (1 + 5) + CHECKSUM_BYTES;
/// Nor shorter.
pub(crate) const GAP_FRAME_BYTES_MIN: usize = LENGTH_BYTES + 2 + CHECKSUM_BYTES;

const _: () = assert!(GAP_RECORDS == 12 << 3 | VARINT && GAP_CAUSE == 13 << 3 | VARINT);
const _: () = assert!(CHECKSUM & 7 == FIXED64);

/// What a frame is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Framed {
    Record(Layout),
    Gap(Gap),
}

impl Framed {
    /// The first offset it is of.
    pub(crate) fn first(&self) -> Offset {
        match self {
            Self::Record(layout) => layout.offset,
            Self::Gap(gap) => gap.first,
        }
    }

    /// The offset after the last it is of.
    pub(crate) fn next(&self) -> Offset {
        match self {
            Self::Record(layout) => layout.offset.next(),
            Self::Gap(gap) => gap.next(),
        }
    }

    /// Whether a checksum vouches for it.
    pub(crate) fn is_checked(&self) -> bool {
        match self {
            Self::Record(layout) => layout.checked,
            Self::Gap(_) => true,
        }
    }
}

/// Reads a whole frame, a record's or one that tells of a gap. Allocates little.
#[inline(never)]
pub(crate) fn parse_framed(frame: &[u8]) -> Result<Framed, Damaged> {
    match parse_frame(frame, Check::Checksum) {
        Ok(layout) => Ok(Framed::Record(layout)),
        Err(reason) => parse_gap(frame).map(Framed::Gap).ok_or(reason),
    }
}

/// Reads a whole frame that tells of a gap: none unless it is, to the byte, as it is written.
pub(crate) fn parse_gap(frame: &[u8]) -> Option<Gap> {
    if !(GAP_FRAME_BYTES_MIN..=GAP_FRAME_BYTES_MAX).contains(&frame.len()) {
        return None;
    }
    let mut rest = &frame[LENGTH_BYTES..];
    let last = number(OFFSET, &mut rest)?;
    let records = number(GAP_RECORDS, &mut rest)?;
    let cause = u32::try_from(number(GAP_CAUSE, &mut rest)?).ok()?;
    // No offset is before 0, and none is the last number there is.
    let before = records.checked_sub(1)?;
    let gap = Gap {
        first: Offset(last.checked_sub(before)?),
        last: Offset(last),
        cause: GapCause::of(cause),
    };
    (last < u64::MAX && encode_gap(gap) == frame).then_some(gap)
}

/// The number of a field if it comes next, otherwise 0.
fn number(tag: u8, rest: &mut &[u8]) -> Option<u64> {
    match rest.split_first() {
        Some((&first, after)) if first == tag => {
            *rest = after;
            varint(rest)
        }
        _ => Some(0),
    }
}

/// The frame that tells of a gap.
pub(crate) fn encode_gap(gap: Gap) -> Vec<u8> {
    let fields = [
        (OFFSET, gap.last.0),
        (GAP_RECORDS, gap.last.0 - gap.first.0 + 1),
        (GAP_CAUSE, u64::from(gap.cause.code())),
    ];
    let numbers = fields.iter().map(|&(_, number)| number_field_len(number));
    let record_bytes = numbers.sum::<u64>() + CHECKSUM_BYTES as u64;
    let mut frame = Vec::with_capacity(GAP_FRAME_BYTES_MAX);
    frame.extend_from_slice(&record_bytes.to_be_bytes());
    for (tag, number) in fields.into_iter().filter(|&(_, number)| number != 0) {
        frame.push(tag);
        encode_varint(number, &mut frame);
    }
    let checksum = xxh3_64(&frame);
    frame.push(CHECKSUM);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps() -> Vec<Gap> {
        let causes = [1, 2, 3, 0, 4, u32::MAX].map(GapCause::of);
        let lasts = (0..64).map(|bits| 1_u64 << bits).chain([0, u64::MAX - 1]);
        let of = |last: u64| {
            let firsts = [0, 1, last / 2, last].into_iter();
            firsts
                .filter(move |&first| first <= last)
                .map(move |first| (first, last))
        };
        lasts
            .flat_map(of)
            .flat_map(|(first, last)| {
                causes.map(|cause| Gap::new(Offset(first), Offset(last + 1), cause))
            })
            .collect()
    }

    #[test]
    fn a_gap_comes_back_and_is_no_record() {
        for gap in gaps() {
            let frame = encode_gap(gap);
            assert!((GAP_FRAME_BYTES_MIN..=GAP_FRAME_BYTES_MAX).contains(&frame.len()));
            assert_eq!(parse_gap(&frame), Some(gap));
            assert_eq!(
                parse_frame(&frame, Check::Checksum),
                Err(Damaged::Malformed)
            );
            assert!(parse_frame(&frame, Check::Structure).is_err());
        }
    }

    #[test]
    fn no_other_bytes_are_one() {
        for gap in gaps().into_iter().step_by(7) {
            let mut frame = encode_gap(gap);
            for bit in 0..8 * frame.len() {
                frame[bit / 8] ^= 1 << (bit % 8);
                assert!(parse_framed(&frame).is_err(), "{gap:?} {bit}");
                frame[bit / 8] ^= 1 << (bit % 8);
            }
            for end in 0..frame.len() {
                assert!(parse_framed(&frame[..end]).is_err());
            }
        }
    }

    /// Frames of these fields, with a right length and a right checksum.
    fn crafted(fields: &[u8]) -> Vec<u8> {
        let length = fields.len() + CHECKSUM_BYTES;
        let mut frame = (length as u64).to_be_bytes().to_vec();
        frame.extend_from_slice(fields);
        let checksum = xxh3_64(&frame);
        frame.push(CHECKSUM);
        frame.extend_from_slice(&checksum.to_le_bytes());
        frame
    }

    #[test]
    fn what_is_crafted_is_neither_gap_nor_record() {
        let max = [0xff; 9];
        let field = |tag: u8, rest: &[u8]| [&[tag], rest].concat();
        let sound = [OFFSET, 5, GAP_RECORDS, 3, GAP_CAUSE, 1];
        assert!(parse_gap(&crafted(&sound)).is_some());
        let cases = [
            vec![OFFSET, 5, GAP_RECORDS, 0, GAP_CAUSE, 1],
            vec![OFFSET, 5, GAP_CAUSE, 1],
            vec![OFFSET, 5, GAP_RECORDS, 7, GAP_CAUSE, 1],
            [&[OFFSET, 5][..], &field(GAP_RECORDS, &max), &[1]].concat(),
            [&field(OFFSET, &max)[..], &[1, GAP_RECORDS, 1]].concat(),
            vec![GAP_RECORDS, 3, OFFSET, 5],
            vec![OFFSET, 5, GAP_RECORDS, 3, GAP_RECORDS, 3],
            vec![OFFSET, 5, GAP_RECORDS, 0x83, 0],
            [&sound[..], &[0x0a, 1, b'v']].concat(),
            [&[0x0a, 1, b'v'][..], &sound].concat(),
            [&sound[..], &[0x32, 1, b'k']].concat(),
            [&sound[..4], &[0x40, 1]].concat(),
            [&sound[..4], &[GAP_CAUSE, 0xff, 0xff, 0xff, 0xff, 0x7f]].concat(),
            vec![OFFSET, 5, 12 << 3 | 2, 1, 1],
        ];
        for fields in cases {
            assert!(parse_framed(&crafted(&fields)).is_err(), "{fields:02x?}");
        }
        // Nor without a checksum.
        let mut bare = (sound.len() as u64).to_be_bytes().to_vec();
        bare.extend_from_slice(&sound);
        assert!(parse_framed(&bare).is_err());
    }
}
