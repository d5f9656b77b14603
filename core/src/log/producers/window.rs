//! The end of the log in which producers are looked for.

use std::ops::Range;

use crate::{
    Backend, BackendFile, Offset,
    error::Thin,
    log::{SegmentReader, Shared},
};

/// The end of a log: so many bytes of frames, and so many of them, at most. They are counted, and not offsets, for one may
/// tell of very many offsets that are not there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    bytes: u64,
    frames: u64,
}

/// They are found in this part of the log.
pub(super) const WINDOW: Window = Window {
    bytes: 256 << 20,
    frames: 1_000_000,
};

impl<B: Backend> Shared<B> {
    /// Where the records begin that are looked through.
    pub(super) fn window_start(&self, next: Offset, window: Window) -> Thin<Offset> {
        let view = self.view.load_full();
        let lowest = view.lowest();
        let Window {
            bytes: mut bytes_left,
            frames: mut frames_left,
        } = window;
        for slot in view.slots().iter().rev() {
            let segment = self.open_segment(slot, false)?;
            let end = slot.next.unwrap_or(next).min(segment.next_offset());
            let bytes = segment.store_bytes();
            let from = if bytes <= bytes_left {
                slot.base
            } else {
                // Where the index cannot be read, more is looked through.
                let is_before = |offset| {
                    segment
                        .position(offset)
                        .is_ok_and(|position| position < bytes - bytes_left)
                };
                first_in(slot.base..end, |offset| !is_before(offset))
            };
            let (start, frames) = if end.since(lowest) <= frames_left {
                (from, 0)
            } else {
                last_frames(&segment, from..end, frames_left)?
            };
            if start > slot.base {
                return Ok(start);
            }
            bytes_left = bytes_left.saturating_sub(bytes);
            frames_left -= frames;
        }
        Ok(lowest)
    }
}

/// Where the last frames of a range of offsets begin, `frames_max` of them at most, and how many they are, as the index of
/// their segment has it: offsets next to each other have one position if it is of what tells that they are not there, or of
/// bad bytes.
fn last_frames<F: BackendFile>(
    segment: &SegmentReader<F>,
    offsets: Range<Offset>,
    frames_max: u64,
) -> Thin<(Offset, u64)> {
    let (mut start, mut frames, mut row) = (offsets.end, 0, None);
    while start > offsets.start {
        let positions = segment.positions_before(start, offsets.start)?;
        if row.is_some() && positions.first().copied() == row {
            // A long one: positions never decrease. They are asked for as these were, for an entry that is not there, or
            // wrong, is a position here too.
            let position = |offset: Offset| segment.positions_before(offset.next(), offset).ok();
            let is_of_row =
                |offset| position(offset).is_some_and(|found| found.first() == row.as_ref());
            let known = Offset(start.0 - positions.len() as u64);
            start = first_in(offsets.start..known, is_of_row);
            continue;
        }
        for position in positions.into_iter().rev() {
            if row != Some(position) {
                if frames == frames_max {
                    return Ok((start, frames));
                }
                frames += 1;
                row = Some(position);
            }
            start = Offset(start.0 - 1);
        }
    }
    Ok((start, frames))
}

/// The first offset of a range from which on `holds` does, found by halving; its end if there is none.
pub(super) fn first_in(range: Range<Offset>, holds: impl Fn(Offset) -> bool) -> Offset {
    let Range {
        start: mut low,
        end: mut high,
    } = range;
    while low < high {
        let middle = Offset(low.0 + (high.0 - low.0) / 2);
        if holds(middle) {
            high = middle;
        } else {
            low = middle.next();
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, Log, MemoryBackend, Options};

    /// Where each frame begins, its first offset first, and how many bytes it has.
    fn frames(log: &Log<MemoryBackend>) -> Vec<(Offset, u64)> {
        let (mut frames, mut at) = (Vec::new(), log.lowest_offset());
        while at < log.next_offset() {
            frames.push(match log.read(at) {
                Ok(record) => (at, record.frame().len() as u64),
                Err(Error::Gap {
                    cause, first, next, ..
                }) => {
                    at = next;
                    let frame = crate::record::encode_gap(crate::Gap::new(first, next, cause));
                    frames.push((first, frame.len() as u64));
                    continue;
                }
                Err(e) => panic!("{e}"),
            });
            at = at.next();
        }
        frames
    }

    #[test]
    fn the_window_has_as_many_whole_frames_as_fit() {
        for gaps in [&[][..], &[1, 30], &[2, 4097], &[5000, 3, 1 << 40]] {
            let options = Options::new().segment_bytes_max(300);
            let log = Log::open_on(MemoryBackend::new(), options).unwrap();
            let mut gaps = gaps.iter();
            for n in 0..40 {
                log.append(&vec![0; n * 7 % 90]).unwrap();
                if n % 12 == 11
                    && let Some(&offsets) = gaps.next()
                {
                    log.skip_to(log.next_offset().plus(offsets)).unwrap();
                }
            }
            assert!(log.segments().len() > 5);
            let next = log.next_offset();
            let all = frames(&log);
            for bytes in 0..all.iter().map(|(_, bytes)| bytes).sum::<u64>() + 2 {
                for frames in [0, 1, 7, 39, 40, 1000] {
                    let window = Window { bytes, frames };
                    let (mut room, mut expected) = (bytes, next);
                    for (_, &(first, bytes)) in (0..frames).zip(all.iter().rev()) {
                        if bytes > room {
                            break;
                        }
                        room -= bytes;
                        expected = first;
                    }
                    let start = log.shared.window_start(next, window).unwrap();
                    assert_eq!(
                        frames_from(&all, start),
                        frames_from(&all, expected),
                        "{window:?}"
                    );
                }
            }
        }
    }

    /// Those that are looked through from an offset on.
    fn frames_from(frames: &[(Offset, u64)], from: Offset) -> &[(Offset, u64)] {
        &frames[frames.partition_point(|&(first, _)| first < from)..]
    }

    /// Of gaps of many offsets, read from memory and from a file.
    #[test]
    fn a_row_of_offsets_is_one_frame_however_long() {
        let disk = MemoryBackend::new();
        let log = Log::open_on(disk.clone(), Options::new()).unwrap();
        let mut first = Vec::new();
        for offsets in [1, 1023, 1024, 1025, 4096, 2, 3000] {
            first.push(log.append("a record").unwrap());
            first.push(log.next_offset());
            log.skip_to(log.next_offset().plus(offsets)).unwrap();
        }
        let next = log.next_offset();
        log.close().unwrap();
        for log in [
            Log::open_on(disk.clone(), Options::new()),
            Log::open_read_only_on(disk, Options::new()),
        ] {
            let log = log.unwrap();
            for (n, &expected) in first.iter().rev().enumerate() {
                let window = Window {
                    bytes: 1 << 20,
                    frames: n as u64 + 1,
                };
                assert_eq!(log.shared.window_start(next, window).unwrap(), expected);
            }
        }
    }
}
