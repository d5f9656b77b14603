//! How a segment is made, found again, and cut.

use std::io;

use super::{
    Segment, SegmentReader,
    examine::{Ending, at_rest, closed_cleanly, examine, takes_appends, vouched},
    files::{cut_file, index_name, open_file, store_name, sync_directory},
    prepared::PreparedStore,
};
use crate::{
    Error, Offset, Options,
    backend::{Access, Backend, BackendFile},
    error::Thin,
    index::{ENTRY_BYTES, Index, LONE_ENTRY_BYTES_MAX},
    record::{FRAME_BYTES_MIN, LENGTH_BYTES, RECORD_BYTES_LIMIT},
    recovery::{End, Scanned, leading_gap, scan, scan_appended},
    report::SegmentReport,
    store::StoreReader,
};

/// Where a segment stands in its log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// The last one, which takes appends.
    Last,
    /// One before it, which reaches to the base of the one after.
    Sealed { next: Offset },
}

/// A segment as it was found.
pub(crate) struct Opened<B: Backend> {
    pub(crate) segment: Segment<B>,
    /// What was found, where it had to be scanned.
    pub(crate) report: Option<SegmentReport>,
    /// Whether it can take appends.
    pub(crate) takes_appends: bool,
    /// All records below it are known to be on stable storage.
    pub(crate) durable: Offset,
}

impl<B: Backend> Segment<B> {
    /// Makes an empty segment. Its files are in the directory durably once that is synced.
    pub(crate) fn create(backend: &B, base: Offset, options: &Options) -> Thin<Self> {
        Self::create_in(backend, base, None, options)
    }

    /// As [`Segment::create`], in a store that was prepared, if there is one.
    pub(crate) fn create_in(
        backend: &B,
        base: Offset,
        prepared: Option<PreparedStore>,
        options: &Options,
    ) -> Thin<Self> {
        Self::clear_index_left_behind(backend, base)?;
        let store = match prepared.map(|prepared| (prepared.become_store(backend, base), prepared))
        {
            Some((Ok(store), _)) => store,
            // It was worth a try.
            Some((Err(_), prepared)) => {
                prepared.remove(backend);
                Self::create_store(backend, base)?
            }
            None => Self::create_store(backend, base)?,
        };
        store.expect_bytes(options.segment_bytes_max);
        store.is_ours();
        let name = index_name(base);
        let index = open_file(backend, &name, Access::Create)?;
        let index = Index::of(index, name, options.index_bytes_max)?;
        Ok(Self::of(base, base, store, index, options, true))
    }

    fn create_store(backend: &B, base: Offset) -> Thin<StoreReader<B::File>> {
        let name = store_name(base);
        let store = StoreReader::new(open_file(backend, &name, Access::Create)?, name)?;
        if !store.is_empty() {
            let error = io::ErrorKind::AlreadyExists.into();
            return Err(Error::io("make", store.name(), error));
        }
        Ok(store)
    }

    /// What an index without a store held counts for nothing, and may not come back: its bytes would say that a record
    /// of the segment was synced. So they go before there is a store.
    fn clear_index_left_behind(backend: &B, base: Offset) -> Thin<()> {
        let name = index_name(base);
        let index = match open_file(backend, &name, Access::Write) {
            Err(e) if e.is_not_found() => {
                return Ok(());
            }
            opened => opened?,
        };
        if index.len().map_err(|e| Error::io("measure", &name, e))? == 0 {
            // A killed process may have emptied it and not synced it.
            return index.sync().map_err(|e| Error::io("sync", &name, e));
        }
        // Not in place: a reader of another process may have it mapped.
        drop(index);
        cut_file(backend, &name, 0)
    }

    /// Opens an existing segment: at once if it was closed cleanly, by a scan otherwise. With `writable`
    /// what the scan finds is put right in the files; without, nothing is written.
    pub(crate) fn recover(
        backend: &B,
        base: Offset,
        place: Place,
        writable: bool,
        options: &Options,
    ) -> Thin<Opened<B>> {
        match Self::recover_closed(backend, base, place, writable, options)? {
            Some(opened) => Ok(opened),
            None => Self::scan_files(backend, base, place, writable, options),
        }
    }

    /// As [`Segment::recover`], only if it was closed cleanly.
    pub(crate) fn recover_closed(
        backend: &B,
        base: Offset,
        place: Place,
        writable: bool,
        options: &Options,
    ) -> Thin<Option<Opened<B>>> {
        if let (store, Some(index)) = Self::open_files(backend, base, place, writable, options)?
            && let Some(Ending { next, last, .. }) = match place {
                Place::Last => at_rest(&store, &index, base)?,
                Place::Sealed { .. } => closed_cleanly(&store, &index, base)?,
            }
            && !matches!(place, Place::Sealed { next: limit } if next > limit)
        {
            if writable && matches!(place, Place::Last) {
                // A killed process may have left it so without a sync, as a truncation does.
                store.assume_unsynced();
                store.trim()?;
            }
            let takes_appends = match last {
                Some(last) => takes_appends(&store, &index, base, last)?,
                None => true,
            };
            let takes_appends = takes_appends && !store.is_shared()?;
            let (store, index) = match place {
                Place::Last => (store, index),
                Place::Sealed { .. } => (store.seal(), index.seal()),
            };
            let segment = Self::of(base, next, store, index, options, false);
            return Ok(Some(Opened {
                segment,
                report: None,
                takes_appends,
                durable: next,
            }));
        }
        Ok(None)
    }

    /// As [`Segment::recover`], believing nothing.
    pub(crate) fn scan_files(
        backend: &B,
        base: Offset,
        place: Place,
        writable: bool,
        options: &Options,
    ) -> Thin<Opened<B>> {
        let (store, index) = Self::open_files(backend, base, place, writable, options)?;
        let looks_again = !writable && matches!(place, Place::Last);
        let gap_from = Self::gap_after(backend, place)?;
        let (scanned, report) = settled(looks_again, || {
            let index = index.as_ref();
            let (scanned, report) = examine(&store, index, base, place, gap_from, options)?;
            Ok((first_bad(&scanned), (scanned, report)))
        })?;
        let vouched = vouched(&store, index.as_ref(), base)?;
        let mut store = store;
        if writable
            && matches!(place, Place::Last)
            && let Some(tail) = scanned.torn_tail.as_ref().filter(|tail| !tail.zeros)
        {
            if let Some(index) = &index {
                // A killed process may have cut it without a sync, as a truncation does: entries that come back would
                // vouch for what is cut.
                index.sync()?;
            }
            if tail.records > 0 {
                drop(store);
                store = Self::cut_records(backend, base, scanned.end, options)?;
            }
        }
        store.end_at(scanned.end);
        if writable {
            // The index may not lead: what it will vouch for is on stable storage first.
            store.assume_unsynced();
            match place {
                Place::Last => store.trim()?,
                Place::Sealed { .. } => store.sync()?,
            }
        }
        let takes_appends = scanned.takes_appends() && !store.is_shared()?;
        // An index that would get shorter stays: it tells that the segment was sealed.
        let writable = match (place, &index) {
            (Place::Sealed { .. }, Some(index)) => {
                writable && index.file_bytes()? <= Some(scanned.entries.len() as u64)
            }
            _ => writable,
        };
        let mut index = match index {
            Some(index) if !writable => index,
            None if !writable => Index::in_memory(index_name(base), options.index_bytes_max),
            old => {
                let file = open_file(backend, &index_name(base), Access::Create)?;
                if old.is_none() {
                    sync_directory(backend)?;
                }
                Index::of(file, index_name(base), options.index_bytes_max)?
            }
        };
        index.replace(&scanned.entries)?;
        if writable {
            // A full disk is no reason not to open: room is made by truncating.
            index.trim_where_space()?;
        }
        let (store, index) = match place {
            Place::Last => (store, index),
            Place::Sealed { .. } => (store.seal(), index.seal()),
        };
        let segment = Self::of(base, scanned.next, store, index, options, true);
        let durable = if writable {
            segment.next
        } else {
            vouched.min(segment.next)
        };
        Ok(Opened {
            segment,
            report: Some(report),
            takes_appends,
            durable,
        })
    }

    /// Whether the files are as the sealing leaves them, of a segment up to `next`: then its store is never written
    /// again.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn is_closed_to(
        backend: &B,
        base: Offset,
        next: Offset,
        options: &Options,
    ) -> Thin<bool> {
        let (store, index) =
            Self::open_files(backend, base, Place::Sealed { next }, false, options)?;
        let Some(index) = index else {
            return Ok(false);
        };
        let closed = closed_cleanly(&store, &index, base)?;
        let reaches_to = Self::gap_before(backend, next)?.unwrap_or(next);
        Ok(closed.is_some_and(|closed| closed.next == reaches_to))
    }

    /// Cuts whole records off a store, which a truncation that was interrupted left in it, and opens it anew. A
    /// reader of another process may have them mapped since before the truncation, so not in place; but on a full
    /// disk, where the log has to open too, that is left to the caller.
    fn cut_records(
        backend: &B,
        base: Offset,
        end: u64,
        options: &Options,
    ) -> Thin<StoreReader<B::File>> {
        let name = store_name(base);
        match cut_file(backend, &name, end) {
            Err(e) if e.is_for_want_of_space() => {}
            cut => cut?,
        }
        let store = StoreReader::new(open_file(backend, &name, Access::Write)?, name)?;
        store.expect_bytes(options.segment_bytes_max);
        store.is_ours();
        Ok(store)
    }

    /// Looks at every byte; changes nothing. The last segment is looked at again where another process may be
    /// appending to it.
    pub(crate) fn verify(
        backend: &B,
        base: Offset,
        place: Place,
        looks_again: bool,
        options: &Options,
    ) -> Thin<SegmentReport> {
        let (store, index) = Self::open_files(backend, base, place, false, options)?;
        let looks_again = looks_again && matches!(place, Place::Last);
        let gap_from = Self::gap_after(backend, place)?;
        settled(looks_again, || {
            let index = index.as_ref();
            let (scanned, report) = examine(&store, index, base, place, gap_from, options)?;
            Ok((first_bad(&scanned), report))
        })
    }

    /// From where on offsets up to the next segment's base are not there, by word of that.
    fn gap_after(backend: &B, place: Place) -> Thin<Option<Offset>> {
        let Place::Sealed { next } = place else {
            return Ok(None);
        };
        match Self::gap_before(backend, next) {
            Err(e) if e.is_not_yet() => Err(e),
            // Where it cannot be read it does not say so.
            found => Ok(found.unwrap_or_default()),
        }
    }

    /// The first of the offsets before this segment's base that are not there, by word of its store.
    pub(crate) fn gap_before(backend: &B, base: Offset) -> Thin<Option<Offset>> {
        let name = store_name(base);
        let store = StoreReader::new(open_file(backend, &name, Access::Read)?, name)?;
        Ok(leading_gap(&store, base)?.map(|(gap, _)| gap.first))
    }

    /// The offset before which an index vouches for every record of this segment and of those before it; its base
    /// if for none.
    pub(crate) fn vouched_to(backend: &B, base: Offset, options: &Options) -> Thin<Offset> {
        let (store, index) = Self::open_files(backend, base, Place::Last, false, options)?;
        vouched(&store, index.as_ref(), base)
    }

    #[expect(clippy::type_complexity, reason = "a store and perhaps an index")]
    pub(super) fn open_files(
        backend: &B,
        base: Offset,
        place: Place,
        writable: bool,
        options: &Options,
    ) -> Thin<(StoreReader<B::File>, Option<Index<B::File>>)> {
        // A sealed segment is never written; its index is made anew by other means.
        let write = writable && matches!(place, Place::Last);
        let access = if write { Access::Write } else { Access::Read };
        // The index is measured first: beside a writer, what it vouches for is then in the store.
        let name = index_name(base);
        let index = match open_file(backend, &name, access) {
            Ok(file) => Some(Index::of(file, name, options.index_bytes_max)?),
            Err(e) if e.is_not_found() => None,
            Err(e) => return Err(e),
        };
        let name = store_name(base);
        let store = StoreReader::new(open_file(backend, &name, access)?, name)?;
        if let Some(index) = index.as_ref().filter(|_| !write)
            && index.is_removed()?
        {
            // Beside a writer that truncates: it was the index of another store of this name.
            return Err(store.failed("open", io::ErrorKind::NotFound.into()));
        }
        if matches!(place, Place::Last) {
            store.expect_bytes(options.segment_bytes_max);
        }
        if write {
            store.is_ours();
        }
        Ok((store, index))
    }

    /// Whether its index has bytes, which it durably has before any of its records is promised. Then all
    /// segments before it were sealed.
    pub(crate) fn is_begun(backend: &B, base: Offset, options: &Options) -> Thin<bool> {
        let (_, index) = Self::open_files(backend, base, Place::Last, false, options)?;
        index.map_or(Ok(false), |index| index.is_begun())
    }

    /// Whether a segment that another follows looks as if it had never been sealed: its index does not
    /// reach to the next one's base, or to the gap which that begins with, which it could have reached to.
    pub(crate) fn may_be_unsealed(
        backend: &B,
        base: Offset,
        next: Offset,
        options: &Options,
    ) -> Thin<bool> {
        let next = Self::gap_before(backend, next)?.unwrap_or(next);
        let bytes_max = options.segment_bytes_max.max(RECORD_BYTES_LIMIT);
        if next.since(base) > bytes_max / FRAME_BYTES_MIN {
            return Ok(false);
        }
        let (_, index) = Self::open_files(backend, base, Place::Last, false, options)?;
        Ok(index.is_none_or(|index| base.plus(index.entries()) < next))
    }

    /// The active segment opened anew, its index made from the records of which `self` knows. Nothing is changed in
    /// the files but what a flush then writes of the index. `self` is not to be appended to any more.
    pub(crate) fn prove(&mut self, backend: &B) -> Thin<Self> {
        self.write_out()?;
        // The worker may have been told to prepare more, and does not know of the frames to come.
        self.reader.end_preparing();
        let (base, end) = (self.base(), self.writer.end());
        let (store, index) = Self::open_files(backend, base, Place::Last, true, &self.options)?;
        store.end_at(end);
        store.assume_unsynced();
        let vouched = End::MayBeTorn { vouched: self.next };
        let scanned = scan(
            &store,
            index.as_ref(),
            base,
            vouched,
            self.options.index_entries_max(),
            Scanned::at_start(base),
        )?;
        let mut index = match index {
            Some(index) => index,
            None => {
                let file = open_file(backend, &index_name(base), Access::Create)?;
                Index::of(file, index_name(base), self.options.index_bytes_max)?
            }
        };
        index.replace(&scanned.entries)?;
        store.end_at(end);
        let mut proven = Self::of(base, scanned.next, store, index, &self.options, true);
        proven.reaches_to(self.next)?;
        proven.next = self.next;
        proven.not_before(self.timestamp_ms_min);
        Ok(proven)
    }

    /// Has readers find the records before `next` missing that a scan did not find any more.
    pub(crate) fn reaches_to(&mut self, next: Offset) -> Thin<()> {
        while self.next < next {
            self.reader.index.push(self.writer.end())?;
            self.next = self.next.next();
        }
        self.reader.show(next);
        Ok(())
    }

    /// Opens the last segment of a log after all from `next` on were cut off, durably. At any moment in
    /// between either all are there or none.
    pub(crate) fn cut(
        backend: &B,
        base: Offset,
        next: Offset,
        options: &Options,
    ) -> Thin<Opened<B>> {
        let opened = Self::recover(backend, base, Place::Last, true, options)?;
        if next >= opened.segment.next {
            return Ok(opened);
        }
        let reader = opened.segment.reader();
        let reader = if reader.is_proven() {
            reader.clone()
        } else {
            let proven = Self::scan_files(backend, base, Place::Last, true, options)?;
            proven.segment.reader
        };
        let position = reader.end_of_record_before(next)?;
        reader.seal()?;
        drop((opened, reader));
        // The index first: while the store is longer than it says, a crash undoes the truncation; once
        // the store is cut, it vouches for the rest, be that the beginning of a batch.
        let index_bytes = next.since(base) * ENTRY_BYTES;
        if index_bytes == ENTRY_BYTES {
            // A lone entry is told from prepared space by the file's length, so the last cut is a short one.
            cut_file(backend, &index_name(base), LONE_ENTRY_BYTES_MAX)?;
        }
        cut_file(backend, &index_name(base), index_bytes)?;
        cut_file(backend, &store_name(base), position)?;
        Self::recover(backend, base, Place::Last, true, options)
    }
}

impl<F: BackendFile> SegmentReader<F> {
    /// The position after the last record before `next`: where the next one starts, or a torn tail.
    fn end_of_record_before(&self, next: Offset) -> Thin<u64> {
        if next == self.base() {
            return Ok(0);
        }
        let last = Offset(next.0 - 1);
        match self.read(last) {
            Ok(record) => Ok(self.position(last)? + record.frame().len() as u64),
            // If it is damaged, the next one's entry is right, but may be past the end if both are missing.
            Err(e) if e.is_corrupt() || e.gap().is_some() => {
                Ok(self.position(next)?.min(self.store.len()))
            }
            Err(e) => Err(e),
        }
    }

    /// Whether its files were removed or replaced: whatever removes records at the end of a log does that to the
    /// last segment's first.
    pub(crate) fn is_removed(&self) -> Thin<bool> {
        self.store.is_removed()
    }

    /// Whether it has an index in a file.
    pub(crate) fn has_index_file(&self) -> bool {
        self.index.has_file()
    }

    /// On a segment opened only to read: the offset before which its index vouches for every record by now. All
    /// before `known` are known to be durable.
    pub(crate) fn vouched_to(&self, known: Offset) -> Thin<Offset> {
        let shown = self.next_offset().since(self.base());
        let known = known.0.saturating_sub(self.base().0).min(shown);
        let there = self.index.entries_in_file(known, shown)?;
        Ok(self.base().plus(there))
    }

    /// On a segment opened only to read: takes in what was appended since. `false` when records that
    /// were there are gone, so that it has to be opened anew.
    pub(crate) fn refresh(&self) -> Thin<bool> {
        let (end, next) = (self.store.len(), self.next_offset());
        let length = self.store.file_bytes()?;
        if length < end || self.store.is_removed()? || self.index.is_removed()? {
            return Ok(false);
        }
        if length == end {
            return Ok(true);
        }
        if next > self.base() && self.position(Offset(next.0 - 1))? >= end {
            // Records were missing at its end: they may be there now.
            return Ok(false);
        }
        // What stands after its end counts once it is whole. Space that was prepared is not looked through.
        let scanned = settled(true, || {
            let mut head = [0; LENGTH_BYTES];
            self.store.end_at(length);
            let scanned = self.store.read_at(&mut head, end).and_then(|_| {
                if head == [0; LENGTH_BYTES] && next != Offset(0) {
                    return Ok(None);
                }
                let start = Scanned::at(next, end);
                scan_appended(&self.store, self.base(), start).map(Some)
            });
            self.store.end_at(end);
            let scanned = scanned?;
            Ok((scanned.as_ref().and_then(first_bad), scanned))
        })?;
        if let Some(scanned) = scanned {
            self.extend(&scanned.entries, scanned.next, scanned.end)?;
        }
        Ok(true)
    }
}

/// Where the first bytes stand that are no record, unless they were never written.
fn first_bad(scanned: &Scanned) -> Option<u64> {
    let torn = scanned.torn_tail.as_ref().filter(|tail| !tail.zeros);
    let torn = torn.map(|tail| tail.position);
    let damaged = scanned.damage.first().map(|damage| damage.position);
    torn.into_iter().chain(damaged).min()
}

/// Looks at a store once, or until it finds the same bad bytes twice: beside a writer, a record that is being
/// put there just now looks like damage before those after it.
fn settled<T>(again: bool, mut look: impl FnMut() -> Thin<(Option<u64>, T)>) -> Thin<T> {
    let (mut bad, mut found) = look()?;
    while again && bad.is_some() {
        #[cfg(not(target_family = "wasm"))]
        std::thread::sleep(std::time::Duration::from_millis(1));
        let before = bad;
        (bad, found) = look()?;
        if bad == before {
            break;
        }
    }
    Ok(found)
}
