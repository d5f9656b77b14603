//! Opening the segments of a directory.

use super::{State, summary};
use crate::{
    Backend, Error, Offset, Options, Report, Result,
    segment::{Opened, Place, Segment, index_base, store_base, sync_directory},
};

/// The bases of the segments in a directory, in order. Files of other names are left alone.
pub(super) fn segment_bases<B: Backend>(backend: &B) -> Result<Vec<Offset>> {
    let names = list(backend)?;
    let mut bases: Vec<Offset> = names.iter().filter_map(|name| store_base(name)).collect();
    bases.sort_unstable();
    Ok(bases)
}

fn list<B: Backend>(backend: &B) -> Result<Vec<String>> {
    backend
        .list()
        .map_err(|e| Error::io("list", backend.name(), e))
}

pub(super) fn open_segments<B: Backend>(
    backend: &B,
    options: &Options,
    writable: bool,
) -> Result<(State<B>, Report)> {
    if writable {
        // A killed process may have made or removed files and not synced the directory.
        sync_directory(backend)?;
    }
    let bases = segment_bases(backend)?;
    let Some((&last, before)) = bases.split_last() else {
        if !writable {
            return Err(Error::InvalidArgument(format!(
                "there is no log in {}; append to it, or open it for writing, to make one",
                backend.name()
            )));
        }
        let active = Segment::create(backend, options.initial_offset, options)?;
        let durable = options.initial_offset;
        let state = State {
            sealed: Vec::new(),
            active,
            durable,
            poisoned: None,
            closed: false,
        };
        return Ok((state, Report::default()));
    };
    let mut report = Report::default();
    let mut sealed = Vec::with_capacity(bases.len());
    for (at, &base) in before.iter().enumerate() {
        let place = Place::Sealed {
            next: bases[at + 1],
        };
        let opened = Segment::recover(backend, base, place, writable, options)?;
        report.segments.extend(opened.report);
        sealed.push(summary(&opened.segment));
    }
    let Opened {
        segment: mut active,
        report: found,
        takes_appends,
        durable,
    } = Segment::recover(backend, last, Place::Last, writable, options)?;
    report.segments.extend(found);
    if writable {
        remove_left_over_indexes(backend, bases[0]);
        if !takes_appends {
            active.seal()?;
            let next = Segment::create(backend, active.next_offset(), options)?;
            sealed.push(summary(&std::mem::replace(&mut active, next)));
        }
    }
    Ok((
        State {
            sealed,
            active,
            durable,
            poisoned: None,
            closed: false,
        },
        report,
    ))
}

/// A truncation that was interrupted may have left the index of a segment that is gone.
fn remove_left_over_indexes<B: Backend>(backend: &B, lowest: Offset) {
    for name in list(backend).unwrap_or_default() {
        if index_base(&name).is_some_and(|base| base < lowest) {
            // It does no harm if it stays.
            let _ = backend.remove(&name);
        }
    }
}
