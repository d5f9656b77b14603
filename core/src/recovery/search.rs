//! Looking for records after bad bytes.

use bytes::Bytes;

use super::{Scan, window::WINDOW_BYTES, zeros};
use crate::{
    Offset,
    backend::BackendFile,
    error::Thin,
    index::Index,
    record::{
        CHECKSUM, CHECKSUM_BYTES, FRAME_BYTES_MIN, Framed, LENGTH_BYTES, RECORD_BYTES_LIMIT,
        checksum_matches, claimed_bytes, frame_bytes, is_field_tag, parse_framed,
    },
};

/// What stands after bad bytes.
pub(super) enum After {
    /// A frame that begins with a later offset.
    Record { position: u64, offset: Offset },
    /// No such record, but at least that many were written there.
    Misplaced { records: u64 },
    /// Nothing, to the end of the store.
    Nothing { zeros: bool },
}

/// Enough of a frame to tell how long its first field claims to be.
const HEAD_BYTES: usize = LENGTH_BYTES + 1 + 10;

/// What a read past the window counts at the least.
const READ_COST_BYTES: u64 = 512;

/// Some passes over the store: far more than honest bytes need, little enough to end soon.
pub(super) fn search_budget_bytes(length: u64) -> u64 {
    length.saturating_mul(8).saturating_add(64 << 20)
}

impl<F: BackendFile> Scan<'_, F> {
    /// Looks for a record after the bad bytes at `start`, where `expected` should stand.
    pub(super) fn next_record(&mut self, start: u64, expected: Offset) -> Thin<After> {
        let found = self.some_next_record(start, expected)?;
        if let After::Record { position, offset } = found {
            let before = self.next_record_before(start, expected, (position, offset))?;
            let (position, offset) = before.unwrap_or((position, offset));
            return Ok(After::Record { position, offset });
        }
        Ok(found)
    }

    fn some_next_record(&mut self, start: u64, expected: Offset) -> Thin<After> {
        let zeros_from = self.zeros_from()?;
        if start >= zeros_from {
            return Ok(After::Nothing { zeros: true });
        }
        if let Some((position, offset)) = self.next_record_of_index(start, expected)? {
            return Ok(After::Record { position, offset });
        }
        if let Some((position, offset)) = self.flipped_gap(start, expected)?
            && self
                .frame_aside(position)?
                .is_some_and(|(framed, _)| framed.first() == offset && self.may_come(&framed))
        {
            return Ok(After::Record { position, offset });
        }
        let length = self.window.length();
        let claimed_end = self.claimed_end(start)?;
        if claimed_end > length && self.is_checked_with_length(start, length - start)? {
            return Ok(After::Misplaced { records: 1 });
        }
        // Where the bad frame ends by its own word, the very next record is believed to be that, and not
        // one that this frame's value may look like.
        let said_end = self.said_end(start)?;
        for position in [claimed_end, said_end] {
            if position < length
                && let Some(offset) = self.frame_after(start, expected, position)?
                && offset == expected.next()
            {
                return Ok(After::Record { position, offset });
            }
        }
        let claimed_end = claimed_end.max(self.end_but_for_a_bit(start, expected, claimed_end)?);
        // A whole beginning of a frame holds all the bytes that it claims, however much its value may
        // look like records. Unless its length is what is damaged: then, with a shorter one, it is the
        // record expected. That is asked for as long as half the budget lasts.
        let reserve = self.budget_bytes / 2;
        let mut from = start + 1;
        loop {
            if from < claimed_end && self.budget_bytes <= reserve {
                from = claimed_end;
            }
            let Some(at) = self.next_candidate(from, zeros_from)? else {
                break;
            };
            if let Some(offset) = self.frame_after(start, expected, at)?
                && (at >= claimed_end || self.is_record_with_length(start, at - start, expected)?)
            {
                return Ok(After::Record {
                    position: at,
                    offset,
                });
            }
            if self.budget_bytes == 0 {
                // Bytes made to look like records at every turn: they are kept.
                return Ok(After::Misplaced {
                    records: most_records(length - start),
                });
            }
            from = at + 1;
        }
        Ok(match self.misplaced_records(start)? {
            0 => After::Nothing { zeros: false },
            records => After::Misplaced { records },
        })
    }

    /// A record before one that was found: of which the index is wrong, or whose bytes a damaged length claims. What looks
    /// like one in another's value does not lead there, frame by frame: the rest of that record comes after it.
    fn next_record_before(
        &mut self,
        start: u64,
        expected: Offset,
        (end, found): (u64, Offset),
    ) -> Thin<Option<(u64, Offset)>> {
        let claimed_end = self.claimed_end(start)?;
        if found == expected || (claimed_end == end && found == expected.next()) {
            return Ok(None);
        }
        // What the index is for is read too, later on.
        let reserve = self.budget_bytes / 2;
        let mut from = start + 1;
        while self.budget_bytes > reserve
            && let Some(at) = self.next_candidate(from, end)?
        {
            if let Some(offset) = self.frame_after(start, expected, at)?
                && offset < found
                && ((claimed_end..end).contains(&at) || self.leads_to(at, (end, found))?)
            {
                return Ok(Some((at, offset)));
            }
            from = at + 1;
        }
        Ok(None)
    }

    /// The first place from `at` on, and before `end`, where a frame may start by its length and first tag.
    fn next_candidate(&mut self, mut at: u64, end: u64) -> Thin<Option<u64>> {
        while at < end {
            let chunk = self.window.get_some(at)?;
            if let Some(candidate) = frame_start(chunk) {
                return Ok(Some(at + candidate as u64).filter(|&at| at < end));
            }
            // One may start in the last bytes.
            let whole = chunk.len() - chunk.len().min(LENGTH_BYTES);
            at += whole.max(1) as u64;
        }
        Ok(None)
    }

    /// Whether frames that follow one another go from `position` to a place, and to the offset that stands there.
    fn leads_to(&mut self, mut position: u64, (end, found): (u64, Offset)) -> Thin<bool> {
        let mut next = None;
        while position < end {
            let Some((framed, whole)) = self.frame_aside(position)? else {
                return Ok(false);
            };
            if next.is_some_and(|next| next != framed.first()) {
                return Ok(false);
            }
            next = Some(framed.next());
            position += whole;
        }
        Ok(position == end && next == Some(found))
    }

    /// Where the frame at `start` ends by its length alone, `start` if that cannot be.
    fn said_end(&mut self, start: u64) -> Thin<u64> {
        let head = self.window.get(start, LENGTH_BYTES)?;
        let length = head
            .first_chunk()
            .map_or(0, |length| u64::from_be_bytes(*length));
        let length = Some(length).filter(|&length| length > 0 && length <= RECORD_BYTES_LIMIT);
        Ok(length.map_or(start, |length| {
            start.saturating_add(LENGTH_BYTES as u64 + length)
        }))
    }

    /// Where the frame at `start` ends, if that is after `end`, and it is the record expected but for one bit of its
    /// length; otherwise `start`.
    fn end_but_for_a_bit(&mut self, start: u64, expected: Offset, end: u64) -> Thin<u64> {
        let head = self.window.get(start, LENGTH_BYTES)?;
        let Some(length) = head.first_chunk().map(|length| u64::from_be_bytes(*length)) else {
            return Ok(start);
        };
        for bit in 0..u64::BITS {
            let whole = (length ^ (1 << bit)).saturating_add(LENGTH_BYTES as u64);
            if whole <= RECORD_BYTES_LIMIT + LENGTH_BYTES as u64
                && start.saturating_add(whole) > end
                && self.ends_in_checksum(start, whole)?
                && self.is_record_with_length(start, whole, expected)?
            {
                return Ok(start + whole);
            }
        }
        Ok(start)
    }

    /// Where the frame at `start` ends by its own word, `start` if it says nothing that could be. It may
    /// be past the end of the store.
    pub(super) fn claimed_end(&mut self, start: u64) -> Thin<u64> {
        let head = self.window.get(start, HEAD_BYTES)?;
        Ok(claimed_bytes(head).map_or(start, |bytes| start.saturating_add(bytes)))
    }

    /// From where on the store is all zeros. They are passed over: a store may be prepared far ahead of
    /// its records, and no record begins in them.
    pub(super) fn zeros_from(&mut self) -> Thin<u64> {
        if let Some(known) = self.zeros_from {
            return Ok(known);
        }
        let mut end = self.window.length();
        let mut chunk = vec![0; WINDOW_BYTES.min(usize::try_from(end).unwrap_or(WINDOW_BYTES))];
        while end > 0 {
            let start = end.saturating_sub(chunk.len() as u64);
            let part = &mut chunk[..usize::try_from(end - start).unwrap_or(WINDOW_BYTES)];
            let read = self.window.store().read_at(part, start)?;
            let tail = zeros::tail(&part[..read]);
            if tail < read {
                end = start + (read - tail) as u64;
                break;
            }
            end = start;
        }
        self.zeros_from = Some(end);
        Ok(end)
    }

    /// The next frame that is where the entry of its first offset says.
    fn next_record_of_index(
        &mut self,
        start: u64,
        expected: Offset,
    ) -> Thin<Option<(u64, Offset)>> {
        let Some(index) = self.index else {
            return Ok(None);
        };
        // Offsets that are not there have the entries of what tells so, and there may be very many.
        let first = first_entry_past(index, expected.since(self.base), start)?;
        let mut offset = self.base.plus(first);
        while let n = offset.since(self.base)
            && let Some((relative, position)) = index.entry(n)?
            && u64::from(relative) == n
            && offset < self.limit
            && self.budget_bytes > 0
        {
            if position > start
                && position < self.window.length()
                && self
                    .frame_aside(position)?
                    .is_some_and(|(framed, _)| framed.first() == offset && self.may_come(&framed))
            {
                return Ok(Some((position, offset)));
            }
            // Entries cost little each, but there may be many.
            self.spend(READ_COST_BYTES / 8);
            offset = offset.next();
        }
        Ok(None)
    }

    /// How many whole records stand one after the other from `start` on. They have other offsets than
    /// they should, but someone wrote them, so they are never cut off.
    pub(super) fn misplaced_records(&mut self, start: u64) -> Thin<u64> {
        let (mut records, mut at) = (0, start);
        while at < self.window.length()
            && let Ok((_, bytes)) = self.any_frame_at(at)?
            && bytes > LENGTH_BYTES as u64
        {
            records += 1;
            at += bytes;
        }
        Ok(records)
    }

    /// The first offset of the frame at `position`, if one stands there that can come after bad bytes from
    /// `start` on, in place of `expected`.
    fn frame_after(&mut self, start: u64, expected: Offset, position: u64) -> Thin<Option<Offset>> {
        let Some((framed, whole)) = self.frame_aside(position)? else {
            return Ok(None);
        };
        let first = framed.first();
        let lost = first.since(expected);
        let after = position + whole;
        let comes_at_once = first == expected
            && framed.is_checked()
            && position >= self.said_end(start)?
            && self.may_be_followed(after)?;
        if (lost == 0 && !comes_at_once)
            || lost > most_records(position - start)
            || !self.may_come(&framed)
        {
            return Ok(None);
        }
        // Without a checksum it counts only if its neighbour confirms it.
        let confirmed = framed.is_checked()
            || after == self.window.length()
            || self
                .frame_aside(after)?
                .is_some_and(|(next, _)| next.first() == framed.next());
        Ok(confirmed.then_some(first))
    }

    /// Whether what stands at `position` may be a frame's beginning, or the end of the store: in the value of a record
    /// the rest of that comes after what looks like one.
    fn may_be_followed(&mut self, position: u64) -> Thin<bool> {
        if position >= self.zeros_from()? {
            return Ok(true);
        }
        let mut head = [0; LENGTH_BYTES + 1];
        let read = self.window.store().read_at(&mut head, position)?;
        Ok(read == head.len() && may_start_frame(&head))
    }

    /// Whether a frame can be this segment's.
    fn may_come(&self, framed: &Framed) -> bool {
        match framed {
            Framed::Record(layout) => layout.offset < self.limit,
            Framed::Gap(gap) => gap.first < self.limit && self.fits(gap),
        }
    }

    /// As [`Scan::any_frame_at`], within the budget.
    fn frame_aside(&mut self, position: u64) -> Thin<Option<(Framed, u64)>> {
        let mut length = [0; LENGTH_BYTES];
        let read = self.window.store().read_at(&mut length, position)?;
        let room = self.window.length().saturating_sub(position);
        let Some(bytes) = frame_bytes(&length[..read], room) else {
            return Ok(None);
        };
        let whole = bytes as u64;
        // A checked record is hashed once, what might be a damaged one up to forty times.
        let checked = self.ends_in_checksum(position, whole)?;
        let Some(frame) = self.read_aside(position, whole)? else {
            return Ok(None);
        };
        if checked && !checksum_matches(&frame) && !self.spend(whole.saturating_mul(40)) {
            return Ok(None);
        }
        Ok(parse_framed(&frame).ok().map(|framed| (framed, whole)))
    }

    /// Whether a frame of `whole` bytes would fit at `position` and have a checksum field at its end.
    pub(super) fn ends_in_checksum(&mut self, position: u64, whole: u64) -> Thin<bool> {
        if whole < FRAME_BYTES_MIN || whole > self.window.length() - position {
            return Ok(false);
        }
        Ok(self.window.peek(position + whole - CHECKSUM_BYTES as u64)? == Some(CHECKSUM))
    }

    /// Whether the bytes from `position` are a checked frame of `whole` bytes, but for its length.
    pub(super) fn is_checked_with_length(&mut self, position: u64, whole: u64) -> Thin<bool> {
        Ok(self
            .with_length(position, whole)?
            .is_some_and(|frame| checksum_matches(&frame)))
    }

    /// Whether the bytes from `position` are the record expected, or the gap, in a frame of `whole` bytes, but for
    /// the frame's length.
    pub(super) fn is_record_with_length(
        &mut self,
        position: u64,
        whole: u64,
        expected: Offset,
    ) -> Thin<bool> {
        let frame = self.with_length(position, whole)?;
        let framed = frame.map(|frame| parse_framed(&frame));
        Ok(framed.is_some_and(|framed| framed.is_ok_and(|framed| framed.first() == expected)))
    }

    /// The frame of `whole` bytes at `position`, its length set right; `None` once enough was read.
    fn with_length(&mut self, position: u64, whole: u64) -> Thin<Option<Vec<u8>>> {
        let Some(frame) = self.read_aside(position, whole)? else {
            return Ok(None);
        };
        let mut frame = Vec::from(frame);
        if let Some(length) = frame.first_chunk_mut() {
            *length = whole.saturating_sub(LENGTH_BYTES as u64).to_be_bytes();
        }
        Ok(Some(frame))
    }

    /// The frame at `position`, read past the window so that it need not move; `None` once enough was
    /// read in this way.
    fn read_aside(&mut self, position: u64, whole: u64) -> Thin<Option<Bytes>> {
        match usize::try_from(whole) {
            Ok(bytes) if self.spend(whole.max(READ_COST_BYTES)) => {
                self.window.store().read_exact(position, bytes).map(Some)
            }
            _ => Ok(None),
        }
    }

    pub(super) fn spend(&mut self, bytes: u64) -> bool {
        let enough = self.budget_bytes >= bytes;
        self.budget_bytes = if enough { self.budget_bytes - bytes } else { 0 };
        enough
    }
}

/// The first entry from number `n` on that is not of the position `start` or one before, where they are in order.
fn first_entry_past<F: BackendFile>(index: &Index<F>, mut n: u64, start: u64) -> Thin<u64> {
    let is_before = |n: u64| -> Thin<bool> {
        let entry = index.entry(n)?;
        Ok(entry.is_some_and(|(relative, position)| u64::from(relative) == n && position <= start))
    };
    if !is_before(n)? {
        return Ok(n);
    }
    let mut step = 1;
    while is_before(n.saturating_add(step))? {
        n += step;
        step *= 2;
    }
    let mut end = n.saturating_add(step);
    while n + 1 < end {
        let middle = n + (end - n) / 2;
        if is_before(middle)? {
            n = middle;
        } else {
            end = middle;
        }
    }
    Ok(end)
}

/// The most records that can have stood in so many bytes: at least one, where there are any.
fn most_records(bytes: u64) -> u64 {
    bytes.div_ceil(LENGTH_BYTES as u64)
}

/// The first place where a frame's length and the first tag of its record may stand.
fn frame_start(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(head) = bytes.get(at..=at + LENGTH_BYTES) {
        if head[3] != 0 {
            // A length begins with four zeros: none begins here, nor at the next three.
            at += 4;
        } else if may_start_frame(head) {
            return Some(at);
        } else if head[..LENGTH_BYTES] == [0; LENGTH_BYTES] {
            // Among zeros it can only begin where the last eight of them do.
            at += zeros::head(&bytes[at..]) - (LENGTH_BYTES - 1);
        } else {
            at += 1;
        }
    }
    None
}

/// Whether these nine bytes may be a frame's length and the first tag of its record.
fn may_start_frame(bytes: &[u8]) -> bool {
    bytes[..4] == [0; 4] && bytes[4..8] != [0; 4] && bytes[4] <= 0x40 && is_field_tag(bytes[8])
}

#[cfg(test)]
mod tests {
    use super::{frame_start, may_start_frame};

    #[test]
    fn no_place_where_a_frame_may_start_is_passed_over() {
        let frame = [0, 0, 0, 0, 0, 0, 0, 20, 0x0a];
        for zeros_before in 0..300 {
            for before in [&[][..], &[1], &[0xff; 7], &[0, 0, 0, 1, 0]] {
                let zeros = vec![0; zeros_before];
                let bytes = [before, &zeros, &frame, &[0; 70]].concat();
                let expected = bytes.windows(9).position(may_start_frame);
                assert!(expected.is_some());
                assert_eq!(frame_start(&bytes), expected);
                assert_eq!(frame_start(&bytes[..expected.unwrap() + 8]), None);
            }
        }
    }
}
