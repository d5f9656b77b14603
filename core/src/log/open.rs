//! Opening the segments of a directory.

use std::{collections::BinaryHeap, io, ops::RangeInclusive};

use crate::{
    Access, Backend, BackendFile, Error, Offset, Options, Report,
    error::Thin,
    segment::{
        Opened, Place, Segment, cut_name, index_base, is_prepared, remove_files, rewritten_to,
        store_base, sync_directory,
    },
};

use super::{
    append::UNSEALED_MAX,
    follow::{Patience, may_pass},
};

/// What was found in a directory.
pub(super) struct OpenedLog<B: Backend> {
    /// The bases of all segments but the last.
    pub(super) sealed: Vec<Offset>,
    pub(super) active: Segment<B>,
    pub(super) durable: Offset,
    pub(super) report: Report,
}

/// The files of a directory.
pub(super) struct Listed {
    names: Vec<String>,
    /// Of its segments, in order. Files of other names are left alone.
    bases: Vec<Offset>,
}

impl Listed {
    pub(super) fn now<B: Backend>(backend: &B) -> Thin<Self> {
        let names = backend.list();
        let names = names.map_err(|e| Error::io("list", backend.name(), e))?;
        // A heap takes a tenth of the code of a sort, which a browser would have to load.
        let bases: BinaryHeap<_> = names.iter().filter_map(|name| store_base(name)).collect();
        let bases = bases.into_sorted_vec();
        Ok(Self { names, bases })
    }

    pub(super) fn bases(&self) -> &[Offset] {
        &self.bases
    }

    /// Those up to `last`.
    pub(super) fn bases_to(&self, last: Offset) -> &[Offset] {
        let count = self.bases.partition_point(|&base| base <= last);
        &self.bases[..count]
    }

    /// Whether there is a log, or it looks as if one were being begun anew: one index is left then, without a store.
    pub(super) fn is_log<B: Backend>(&self, backend: &B) -> bool {
        if !self.bases.is_empty() {
            return true;
        }
        let mut indexes = self.names.iter().filter(|name| index_base(name).is_some());
        let (Some(index), None) = (indexes.next(), indexes.next()) else {
            return false;
        };
        // It begins with the entry of its base, if with any; or it is gone by now.
        let mut offset = [0; size_of::<u32>()];
        match backend.open(index, Access::Read) {
            Ok(file) => file.read_at(&mut offset, 0).is_ok() && offset == [0; 4],
            Err(e) => e.kind() == io::ErrorKind::NotFound,
        }
    }

    pub(super) fn has_index(&self, base: Offset) -> bool {
        self.names.iter().any(|name| index_base(name) == Some(base))
    }
}

/// Opens the segments of a directory for reading, beside a writer. `None`: there are none now.
///
/// Files may be removed, replaced or cut to their records while they are looked at. Then they are looked at again,
/// until all of them were there at one moment.
pub(super) fn open_beside_writer<B: Backend>(
    backend: &B,
    options: &Options,
) -> Thin<Option<OpenedLog<B>>> {
    let mut patience = Patience::default();
    loop {
        let listed = Listed::now(backend)?;
        if listed.bases.is_empty() {
            return Ok(None);
        }
        let opened = open_listed(backend, &listed, options, false)
            .and_then(|opened| still_there(backend, &listed, opened));
        match opened {
            Err(e) if may_pass(&e) && patience.wait() => {}
            opened => return opened.map(Some),
        }
    }
}

/// The segments that were opened, if all were there at one moment after they were listed: without those that are
/// gone from the beginning by now.
fn still_there<B: Backend>(
    backend: &B,
    listed: &Listed,
    mut opened: OpenedLog<B>,
) -> Thin<OpenedLog<B>> {
    let active = opened.active.base();
    let now = Listed::now(backend)?;
    let lowest = now.bases.first().copied().unwrap_or(active.next());
    // A listing may leave out what comes or goes meanwhile, so that it has a gap; the next one has that then.
    let then = listed.bases.iter().filter(|&&base| base >= lowest);
    let last = listed.bases.last().copied().unwrap_or(active);
    if lowest > active || !then.eq(now.bases_to(last)) || opened.active.reader().is_removed()? {
        let changed = io::Error::new(
            io::ErrorKind::NotFound,
            "its files were others each time they were looked at",
        );
        return Err(Error::io("open", backend.name(), changed));
    }
    opened.sealed.retain(|&base| base >= lowest);
    Ok(opened)
}

/// Opens the segments of a directory for writing.
pub(super) fn open_to_write<B: Backend>(backend: &B, options: &Options) -> Thin<OpenedLog<B>> {
    // A killed process may have made or removed files and not synced the directory.
    sync_directory(backend)?;
    let listed = Listed::now(backend)?;
    open_listed(backend, &listed, options, true)
}

/// Opens the segments of a directory that no one writes, as [`open_to_write`] does, but changes nothing. `None`: there is
/// no log.
pub(super) fn open_to_look<B: Backend>(
    backend: &B,
    options: &Options,
) -> Thin<Option<OpenedLog<B>>> {
    let listed = Listed::now(backend)?;
    if listed.bases.is_empty() {
        return Ok(None);
    }
    open_listed(backend, &listed, options, false).map(Some)
}

fn open_listed<B: Backend>(
    backend: &B,
    listed: &Listed,
    options: &Options,
    writable: bool,
) -> Thin<OpenedLog<B>> {
    let names = &listed.names;
    let mut sealed = listed.bases.clone();
    let Some(last) = sealed.pop() else {
        let first = options.initial_offset;
        let active = Segment::create(backend, first, options)?;
        sync_directory(backend)?;
        // Only now: an index that a reset left tells readers until there is a store again that there will be.
        remove_leftovers(backend, names, first..=first)?;
        return Ok(OpenedLog {
            sealed,
            active,
            durable: first,
            report: Report::default(),
        });
    };
    let mut report = Report::default();
    let mut opened = open_unsealed(
        backend,
        names,
        &mut sealed,
        last,
        writable,
        options,
        &mut report,
    )?;
    if writable {
        let active = opened.segment.base();
        heal_rewritten(backend, names, &sealed, active, options)?;
        let lowest = sealed.first().copied().unwrap_or(active);
        remove_leftovers(backend, names, lowest..=active)?;
        if !opened.takes_appends {
            opened.segment.seal_where_space()?;
            let next = opened.segment.next_offset();
            sealed.push(opened.segment.base());
            opened.segment = Segment::create(backend, next, options)?;
            sync_directory(backend)?;
        }
    }
    Ok(OpenedLog {
        sealed,
        active: opened.segment,
        durable: opened.durable,
        report,
    })
}

/// Makes anew the indexes of segments that were being written anew when the log was stopped: they may be those of stores
/// that did not get their names.
fn heal_rewritten<B: Backend>(
    backend: &B,
    names: &[String],
    sealed: &[Offset],
    active: Offset,
    options: &Options,
) -> Thin<()> {
    let left = names
        .iter()
        .filter_map(|name| store_base(rewritten_to(name)?));
    for base in left {
        if let Ok(at) = sealed.binary_search(&base) {
            let next = sealed.get(at + 1).copied().unwrap_or(active);
            let place = Place::Sealed { next };
            Segment::scan_files(backend, base, place, true, options)?;
        }
    }
    Ok(())
}

/// Opens the last segment, and before it those that were left to be sealed when the log was stopped.
///
/// A segment is sealed before any record of a later one is synced, and the later one's index gets its first bytes,
/// durably, before any of its records is promised. So where a later one's index has none, a segment may be torn
/// though it is not the last; then what comes after it was never promised, and goes.
fn open_unsealed<B: Backend>(
    backend: &B,
    names: &[String],
    sealed: &mut Vec<Offset>,
    last: Offset,
    writable: bool,
    options: &Options,
    report: &mut Report,
) -> Thin<Opened<B>> {
    let has_index = |base| names.iter().any(|name| index_base(name) == Some(base));
    let first_unsealed = first_unsealed(backend, sealed, last, has_index, options)?;
    let unsealed = sealed.split_off(first_unsealed);
    for (at, &base) in unsealed.iter().enumerate() {
        let next = unsealed.get(at + 1).copied().unwrap_or(last);
        let mut opened = Segment::recover(backend, base, Place::Last, writable, options)?;
        let torn = opened
            .report
            .as_ref()
            .is_some_and(|report| report.torn_tail.as_ref().is_some_and(|tail| !tail.zeros));
        report.segments.extend(opened.report.take());
        let reaches_to = Segment::gap_before(backend, next)?.unwrap_or(next);
        if opened.segment.next_offset() == reaches_to && !torn {
            if writable {
                opened.segment.seal_where_space()?;
            }
            sealed.push(base);
            continue;
        }
        let dropped = unsealed[at + 1..].iter().copied().chain([last]);
        let dropped: Vec<Offset> = dropped.rev().collect();
        for &base in dropped.iter().rev() {
            let found = Segment::<B>::verify(backend, base, Place::Last, false, options)?;
            report.segments.push(found.dropped());
        }
        if writable {
            remove_files(backend, dropped)?;
        }
        return Ok(opened);
    }
    let closed = Segment::recover_closed(backend, last, Place::Last, writable, options)?;
    let mut opened = match closed {
        Some(opened) if opened.segment.next_offset() > last => opened,
        // A torn tail may be cut off it.
        closed => {
            drop(closed);
            if writable && unsealed.is_empty() {
                keep_sealed(backend, sealed, last, options)?;
            }
            Segment::recover(backend, last, Place::Last, writable, options)?
        }
    };
    report.segments.extend(opened.report.take());
    if !unsealed.is_empty() && !writable {
        // What stands before it is not known to be durable.
        opened.durable = opened.durable.min(unsealed[0]);
    }
    Ok(opened)
}

/// Has it be known from now on that the last segment but one was sealed, where its end is missing and opening the last
/// one leaves nothing in that which tells so: else its base would go with it when it is opened the next time.
fn keep_sealed<B: Backend>(
    backend: &B,
    sealed: &[Offset],
    last: Offset,
    options: &Options,
) -> Thin<()> {
    let Some(&before) = sealed.last() else {
        return Ok(());
    };
    if !Segment::<B>::may_be_unsealed(backend, before, last, options)? {
        return Ok(());
    }
    let opened = Segment::recover(backend, last, Place::Last, false, options)?;
    if opened.segment.next_offset() > last {
        return Ok(());
    }
    match Segment::<B>::reach(backend, before, last, options) {
        // Then it is so the next time.
        Err(e) if e.is_for_want_of_space() => Ok(()),
        reached => reached,
    }
}

/// From which of the segments before the last on they may not have been sealed: the number of those that were.
fn first_unsealed<B: Backend>(
    backend: &B,
    sealed: &[Offset],
    last: Offset,
    has_index: impl Fn(Offset) -> bool,
    options: &Options,
) -> Thin<usize> {
    let mut first = sealed.len();
    let mut later = last;
    while first > 0
        && sealed.len() - first < UNSEALED_MAX
        && !Segment::<B>::is_begun(backend, later, options)?
        && Segment::<B>::may_be_unsealed(backend, sealed[first - 1], later, options)?
    {
        first -= 1;
        later = sealed[first];
    }
    // Their indexes are there, since only the newest segment's names are not synced; and the one before them
    // was sealed, by its index or because the first of them is begun. If not, then it is the indexes that are
    // missing or wrong, which says nothing.
    let unsealed = &sealed[first..];
    let plausible = unsealed.iter().all(|&base| has_index(base))
        && (first == 0
            || unsealed.is_empty()
            || Segment::<B>::is_begun(backend, later, options)?
            || !Segment::<B>::may_be_unsealed(backend, sealed[first - 1], later, options)?);
    Ok(if plausible { first } else { sealed.len() })
}

/// A truncation that was interrupted may have left the index of a segment that is gone, or the
/// beginning of a copy; a rewriting, what would have taken another's place; and a log that was not closed, space for
/// records to come.
fn remove_leftovers<B: Backend>(
    backend: &B,
    names: &[String],
    held: RangeInclusive<Offset>,
) -> Thin<()> {
    let mut removed = false;
    for name in names {
        if index_base(name).is_some_and(|base| !held.contains(&base))
            || cut_name(name).is_some()
            || rewritten_to(name).is_some()
            || is_prepared(name)
        {
            // It does no harm if it stays.
            removed |= backend.remove(name).is_ok();
        }
    }
    if removed {
        // But an index may not come back in the place of a later one.
        sync_directory(backend)?;
    }
    Ok(())
}
