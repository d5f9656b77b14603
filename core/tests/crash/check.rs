//! What must hold of a log that is opened after a stop.

use std::collections::BTreeMap;

use proglog::{
    Access, Backend, BackendFile, Durability, Error, Gap, IndexState, Log, Offset, Record,
};

use crate::{
    held::{Held, Sent, Stopped},
    sabotage::Disk,
    workload::{Random, Step, Workload},
};

/// How the process stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Killed,
    PowerCut,
}

/// Opens the log that `disk` holds after a stop, and again and again. `chance` says what is tried with it
/// afterwards.
pub(crate) fn check(
    disk: &Disk,
    workload: Workload,
    stopped: &Stopped,
    how: How,
    chance: u64,
) -> Result<(), String> {
    gaps_are_vouched_for(disk)?;
    opens_as_by_a_scan(disk, workload)?;
    let found = opens(disk, workload, stopped, how)?;
    opens_again(disk, workload, &found)?;
    goes_on(&disk.power_cut(chance), workload, &found)?;
    is_sent_again(&disk.killed(), workload, stopped, &found)?;
    stops_again(disk, workload, found, chance)
}

/// A store that tells of offsets before its segment has an index with an entry of that: so that whatever becomes of the
/// frame, they are not given again.
fn gaps_are_vouched_for(disk: &Disk) -> Result<(), String> {
    let files = disk.files();
    for (name, store) in &files {
        let Some(base) = name.strip_suffix(".store") else {
            continue;
        };
        let length = store
            .first_chunk()
            .map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let frame = store.get(..8 + length as usize);
        let gap = frame.and_then(Gap::from_frame);
        let index = files.get(&format!("{base}.index"));
        if gap.is_some_and(|gap| gap.first.to_string() != base)
            && !index.is_some_and(|index| index.starts_with(&[0; 12]))
        {
            return Err(format!(
                "{name} tells of {gap:?}, and its index is {index:?}"
            ));
        }
    }
    Ok(())
}

/// Where its last segment opens without a scan, a scan finds the same, and leaves the same stores.
fn opens_as_by_a_scan(disk: &Disk, workload: Workload) -> Result<(), String> {
    let files = disk.files();
    let bases = files.keys().filter_map(|name| name.strip_suffix(".store"));
    let Some(last) = bases.filter_map(|base| base.parse::<u64>().ok()).max() else {
        return Ok(());
    };
    let name = format!("{last}.index");
    // One that has no bytes yet tells that the segment before may not be sealed.
    let is_begun = files.get(&name).is_some_and(|index| !index.is_empty());
    if !is_begun || was_scanned(&open(&disk.killed(), workload)?, last) {
        return Ok(());
    }
    let longer = disk.killed();
    let index = longer.inner.open(&name, Access::Write).expect("an index");
    let bytes = index.len().expect("a length");
    // So it does not look closed.
    index.set_len(bytes + 1).expect("one more byte");
    index.sync().expect("a sync");
    let [found, found_by_scan] = [(disk.killed(), false), (longer, true)].map(|(disk, scans)| {
        let reader = Log::open_read_only_on(disk.clone(), workload.options());
        let reader = reader.map_err(|e| format!("it does not open to be read: {e}"))?;
        let to_be_read = (held_by(&reader)?, reader.durable_offset());
        let log = open(&disk, workload)?;
        if [&reader, &log].map(|log| was_scanned(log, last)) != [scans; 2] {
            return Err(format!("{name} of {bytes} bytes, and a scan: {scans}"));
        }
        let to_be_written = (held_by(&log)?, log.durable_offset());
        disk.kill(log);
        let mut stores = disk.files();
        stores.retain(|name, _| name.ends_with(".store"));
        Ok((to_be_read, to_be_written, stores))
    });
    let (found, found_by_scan) = (found?, found_by_scan?);
    if found != found_by_scan {
        return Err(format!("{found:?}, but by a scan {found_by_scan:?}"));
    }
    Ok(())
}

/// Whether the last segment was scanned to open a log.
fn was_scanned(log: &Log<Disk>, last: u64) -> bool {
    let scanned = log.recovery_report().segments;
    scanned.last().is_some_and(|segment| segment.base.0 == last)
}

/// Opens it for the first time. What it holds is a prefix with whole batches, in which nothing that was
/// promised is missing and nothing is damaged.
fn opens(disk: &Disk, workload: Workload, stopped: &Stopped, how: How) -> Result<Held, String> {
    let log = open(disk, workload)?;
    let found = held_by(&log)?;
    let kept = match (how, stopped.durability) {
        // Every append that returned, and what was open.
        (How::Killed, Durability::Synced | Durability::Written) => stopped.held.next(),
        _ => stopped.durable,
    };
    if !stopped.may_hold(&found, kept) {
        let lengths: Vec<_> = found.lengths();
        return Err(format!(
            "{stopped:?}; {kept} promised; now from {} on {lengths:?}: {:?}",
            found.lowest,
            log.recovery_report()
        ));
    }
    let mut held = stopped.held.clone();
    let found_next = found.next();
    held.ends.retain(|&end| end < found_next);
    held.ends.push(found_next);
    (held.lowest, held.values) = (found.lowest, found.values);
    held.sent.extend(stopped.sending.clone());
    held.forget_sent();
    sound(&log, disk)?;
    disk.kill(log);
    Ok(held)
}

/// Opens it a second time: nothing is different, to the byte.
fn opens_again(disk: &Disk, workload: Workload, found: &Held) -> Result<(), String> {
    let files = disk.files();
    let disk = disk.killed();
    let log = open(&disk, workload)?;
    same(&log, found, "the second opening")?;
    disk.kill(log);
    let again = disk.files();
    if again != files {
        let changed = files
            .keys()
            .chain(again.keys())
            .find(|&name| files.get(name) != again.get(name));
        return Err(format!("the second opening changed {changed:?}"));
    }
    Ok(())
}

/// Appends to it, after a power cut right behind the recovery.
fn goes_on(disk: &Disk, workload: Workload, found: &Held) -> Result<(), String> {
    let log = open(disk, workload)?;
    same(&log, found, "an opening after another power cut")?;
    let offset = log.append("after").map_err(|e| e.to_string())?;
    if offset.0 != found.next() {
        return Err(format!("an append got {offset}, not {}", found.next()));
    }
    disk.kill(log);
    let disk = disk.power_cut(2);
    let log = open(&disk, workload)?;
    let mut after = found.clone();
    after.values.push(Some(b"after".to_vec()));
    if workload.retained_bytes().is_some() {
        let lowest = log.lowest_offset().0.clamp(after.lowest, offset.0);
        after.values.drain(..(lowest - after.lowest) as usize);
        after.lowest = lowest;
    }
    same(&log, &after, "an opening after an append")?;
    sound(&log, &disk)?;
    disk.kill(log);
    Ok(())
}

/// Has all producers send all again that they sent: what is there already is not appended, what is not is, in order.
fn is_sent_again(
    disk: &Disk,
    workload: Workload,
    stopped: &Stopped,
    found: &Held,
) -> Result<(), String> {
    if matches!(stopped.in_step, Some(Step::TruncateAfter(_) | Step::Reset)) {
        // It may have removed any part of them.
        return Ok(());
    }
    if workload.retained_bytes().is_some() {
        // What is sent again removes what was sent before it.
        return Ok(());
    }
    let sent = stopped.held.sent.iter().chain(&stopped.sending);
    let sent: Vec<Sent> = sent
        .filter(|sent| sent.next() > found.next() || found.has_all_of(sent))
        .cloned()
        .collect();
    let mut held = found.clone();
    let mut offsets = Vec::new();
    for round in ["sent again", "sent a third time"] {
        let log = open(disk, workload)?;
        for (n, batch) in sent.iter().enumerate() {
            let first = match offsets.get(n) {
                Some(&first) => first,
                None if batch.next() <= found.next() => batch.first,
                None => {
                    let first = held.next();
                    held.append(&batch.values);
                    first
                }
            };
            if offsets.len() == n {
                offsets.push(first);
            }
            let later = &sent[n + 1..];
            let is_remembered = later
                .iter()
                .filter(|later| later.producer == batch.producer);
            let is_remembered = is_remembered.count() < 16;
            match batch.append(&log) {
                Ok(appended) if appended.start.0 == first => {}
                Err(Error::SequenceConflict { .. }) if !is_remembered => {}
                appended => {
                    return Err(format!("{batch:?} {round} gave {appended:?}, not {first}"));
                }
            }
        }
        same(&log, &held, round)?;
        disk.kill(log);
    }
    Ok(())
}

/// Stops it once more, after some steps of other promises.
fn stops_again(disk: &Disk, workload: Workload, found: Held, chance: u64) -> Result<(), String> {
    let mut random = Random(chance);
    let durability = [
        Durability::Written,
        Durability::Buffered,
        Durability::Synced,
    ][random.below(3) as usize];
    let more = match workload {
        // The same options.
        Workload::Seeded(seed) => Workload::Seeded(seed % 12 + 12 * random.below(1 << 20)),
        Workload::Short { .. } => {
            let number = random.below(9 * 9);
            Workload::Short { steps: 2, number }
        }
    };
    let stopped = more.run(disk, found, durability)?;
    if stopped.in_step.is_some() {
        return Err(format!("a step failed after the recovery: {stopped:?}"));
    }
    let disk = disk.power_cut(chance);
    opens(&disk, workload, &stopped, How::PowerCut)
        .and_then(|found| is_sent_again(&disk, workload, &stopped, &found))
        .map_err(|e| format!("after another power cut: {e}"))
}

fn open(disk: &Disk, workload: Workload) -> Result<Log<Disk>, String> {
    Log::open_on(disk.clone(), workload.options()).map_err(|e| format!("it does not open: {e}"))
}

/// All records, by a scan and one by one.
fn held_by(log: &Log<Disk>) -> Result<Held, String> {
    let mut held = Held {
        lowest: log.lowest_offset().0,
        ..Held::default()
    };
    for record in log.scan(..) {
        let record = record.map_err(|e| format!("{e}: {:?}", log.recovery_report()))?;
        let read = log.read(record.offset()).map_err(|e| e.to_string())?;
        gaps_to(log, &mut held, record.offset().0)?;
        if record.offset().0 != held.next() || read.value() != record.value() {
            return Err(format!("{} is not read as scanned", record.offset()));
        }
        held.values.push(Some(record.value().to_vec()));
    }
    gaps_to(log, &mut held, log.next_offset().0)?;
    if log.next_offset() != Offset(held.next()) {
        return Err(format!(
            "{} records are scanned of {}",
            held.values.len(),
            log.next_offset()
        ));
    }
    Ok(held)
}

/// What was passed over is not there by the log's own word.
fn gaps_to(log: &Log<Disk>, held: &mut Held, next: u64) -> Result<(), String> {
    while held.next() < next {
        match log.read(Offset(held.next())) {
            Err(Error::Gap { .. }) => held.values.push(None),
            read => return Err(format!("{} is passed over, but is {read:?}", held.next())),
        }
    }
    Ok(())
}

fn same(log: &Log<Disk>, held: &Held, when: &str) -> Result<(), String> {
    let found = held_by(log)?;
    if (found.lowest, &found.values) == (held.lowest, &held.values) {
        return Ok(());
    }
    Err(format!(
        "{when} found {}..{}, not {}..{}, or other values: {:?}",
        found.lowest,
        found.next(),
        held.lowest,
        held.next(),
        log.recovery_report()
    ))
}

fn sound(log: &Log<Disk>, disk: &Disk) -> Result<(), String> {
    let report = log.verify().map_err(|e| e.to_string())?;
    if !report.is_sound() || !log.recovery_report().is_sound() {
        return Err(format!("damage: {report:?}"));
    }
    // What is read does not depend on it, so nothing else would show that it is another store's.
    let files = disk.files();
    let mut segments = report.segments.iter();
    match segments.find(|segment| {
        segment.index == IndexState::Disagrees && is_of_another_store(&files, segment.base)
    }) {
        Some(segment) => Err(format!("a wrong index: {segment:?}")),
        None => Ok(()),
    }
}

/// Whether an index has an entry that is none of its store's, be it whole or only its beginning.
fn is_of_another_store(files: &BTreeMap<String, Vec<u8>>, base: Offset) -> bool {
    let file = |kind| files.get(&format!("{base}.{kind}")).map_or(&[][..], |f| f);
    let (store, mut position, mut right) = (file("store"), 0, Vec::new());
    while let Some(length) = store[position..].first_chunk()
        && let Some(frame) = store[position..].get(..8 + u64::from_be_bytes(*length) as usize)
        && let Some(next) = Gap::from_frame(frame).map(|gap| gap.next()).or_else(|| {
            let record = Record::from_frame(frame.to_vec().into()).ok();
            record.map(|record| record.offset().next())
        })
    {
        while (right.len() as u64) < next.0.saturating_sub(base.0) * 12 {
            right.extend((right.len() as u32 / 12).to_be_bytes());
            right.extend((position as u64).to_be_bytes());
        }
        position += frame.len();
    }
    let index = file("index");
    let agreeing = index.iter().zip(&right).take_while(|(a, b)| a == b).count();
    index[agreeing..].iter().any(|&byte| byte != 0)
}
