//! Opening the segments of a directory.

use std::{io, ops::RangeInclusive};

use crate::{
    Backend, Error, Offset, Options, Report, Result,
    segment::{
        Opened, Place, Segment, cut_name, index_base, remove_files, store_base, sync_directory,
    },
};

use super::append::UNSEALED_MAX;

/// What was found in a directory.
pub(super) struct OpenedLog<B: Backend> {
    /// The bases of all segments but the last.
    pub(super) sealed: Vec<Offset>,
    pub(super) active: Segment<B>,
    pub(super) durable: Offset,
    pub(super) report: Report,
}

/// The bases of the segments in a directory, in order. Files of other names are left alone.
pub(super) fn segment_bases<B: Backend>(backend: &B) -> Result<Vec<Offset>> {
    Ok(bases(&list(backend)?))
}

fn bases(names: &[String]) -> Vec<Offset> {
    let mut bases: Vec<Offset> = names.iter().filter_map(|name| store_base(name)).collect();
    bases.sort_unstable();
    bases
}

fn list<B: Backend>(backend: &B) -> Result<Vec<String>> {
    backend
        .list()
        .map_err(|e| Error::io("list", backend.name(), e))
}

/// So often files are opened anew that a writer beside this reader removed or cut meanwhile.
const TRIES_BESIDE_WRITER: usize = 50;

/// Opens the segments of a directory. Beside a writer files may be cut to their records, or removed, while they
/// are looked at: then they are looked at again.
pub(super) fn open_segments<B: Backend>(
    backend: &B,
    options: &Options,
    writable: bool,
) -> Result<OpenedLog<B>> {
    let mut tries = 0;
    loop {
        match open_segments_now(backend, options, writable) {
            Err(Error::Io { source, .. })
                if !writable
                    && tries < TRIES_BESIDE_WRITER
                    && matches!(
                        source.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
                    ) =>
            {
                tries += 1;
                #[cfg(not(target_family = "wasm"))]
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            opened => return opened,
        }
    }
}

fn open_segments_now<B: Backend>(
    backend: &B,
    options: &Options,
    writable: bool,
) -> Result<OpenedLog<B>> {
    if writable {
        // A killed process may have made or removed files and not synced the directory.
        sync_directory(backend)?;
    }
    let names = list(backend)?;
    let mut sealed = bases(&names);
    let Some(last) = sealed.pop() else {
        if !writable {
            return Err(Error::InvalidArgument(format!(
                "there is no log in {}; append to it, or open it for writing, to make one",
                backend.name()
            )));
        }
        let first = options.initial_offset;
        remove_leftovers(backend, &names, first..=first);
        let active = Segment::create(backend, first, options)?;
        sync_directory(backend)?;
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
        &names,
        &mut sealed,
        last,
        writable,
        options,
        &mut report,
    )?;
    if writable {
        let active = opened.segment.base();
        let lowest = sealed.first().copied().unwrap_or(active);
        remove_leftovers(backend, &names, lowest..=active);
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
) -> Result<Opened<B>> {
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
        if opened.segment.next_offset() == next && !torn {
            if writable {
                opened.segment.seal_where_space()?;
            }
            sealed.push(base);
            continue;
        }
        let dropped = unsealed[at + 1..].iter().copied().chain([last]);
        let dropped: Vec<Offset> = dropped.rev().collect();
        for &base in dropped.iter().rev() {
            let found = Segment::<B>::verify(backend, base, Place::Last, options)?;
            report.segments.push(found.dropped());
        }
        if writable {
            remove_files(backend, dropped)?;
        }
        return Ok(opened);
    }
    let mut opened = Segment::recover(backend, last, Place::Last, writable, options)?;
    report.segments.extend(opened.report.take());
    if !unsealed.is_empty() && !writable {
        // What stands before it is not known to be durable.
        opened.durable = opened.durable.min(unsealed[0]);
    }
    Ok(opened)
}

/// From which of the segments before the last on they may not have been sealed: the number of those that were.
fn first_unsealed<B: Backend>(
    backend: &B,
    sealed: &[Offset],
    last: Offset,
    has_index: impl Fn(Offset) -> bool,
    options: &Options,
) -> Result<usize> {
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
/// beginning of a copy.
fn remove_leftovers<B: Backend>(backend: &B, names: &[String], held: RangeInclusive<Offset>) {
    for name in names {
        if index_base(name).is_some_and(|base| !held.contains(&base)) || cut_name(name).is_some() {
            // It does no harm if it stays.
            let _ = backend.remove(name);
        }
    }
}
