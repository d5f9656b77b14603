//! Snapshots: a log as it was at one moment, which nothing changes afterwards.
#![cfg(not(target_family = "wasm"))]

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use proglog::{Durability, Error, Log, Offset, Options};
use tempfile::tempdir;

const SNAPSHOTS: usize = 50;

fn options() -> Options {
    Options::new().segment_bytes_max(4 << 10)
}

fn append(log: &Log, values: &[&str]) {
    for value in values {
        log.append(value).unwrap();
    }
}

/// The offsets and values of a log that must be sound.
fn held(directory: &Path) -> Vec<(u64, String)> {
    let log = Log::open_read_only(directory, Options::new()).unwrap();
    let report = log.verify().unwrap();
    assert!(report.is_sound(), "{report:?}");
    let held: Vec<_> = log
        .scan(..)
        .map(|record| {
            let record = record.unwrap();
            let value = String::from_utf8_lossy(record.value()).into_owned();
            (record.offset().0, value)
        })
        .collect();
    assert_eq!(
        held.len() as u64,
        log.next_offset().since(log.lowest_offset())
    );
    held
}

fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_copy_holds_what_the_log_held_and_opens_without_a_scan() {
    let root = tempdir().unwrap();
    let (source, copy) = (root.path().join("log"), root.path().join("a/copy"));
    let log = Log::open(&source, options().initial_offset(7)).unwrap();
    let values: Vec<String> = (0..500).map(|n| format!("value {n}")).collect();
    for part in values.chunks(5) {
        log.append_batch(part).unwrap();
    }
    log.append_with("in the buffer", Durability::Buffered)
        .unwrap();
    assert_eq!(log.snapshot(&copy).unwrap(), Offset(7)..log.next_offset());
    assert_eq!(held(&copy), held(&source));
    assert_eq!(held(&copy).len(), 501);
    let opened = Log::open(&copy, options()).unwrap();
    assert!(opened.recovery_report().segments.is_empty());
    // From a log opened read-only too.
    let reader = Log::open_read_only(&source, options()).unwrap();
    let again = root.path().join("again");
    fs::create_dir(&again).unwrap();
    reader.snapshot(&again).unwrap();
    assert_eq!(held(&again), held(&source));
}

#[test]
fn an_empty_log_keeps_its_next_offset() {
    let root = tempdir().unwrap();
    let log = Log::open(root.path().join("log"), options()).unwrap();
    let copy = root.path().join("new");
    assert_eq!(log.snapshot(&copy).unwrap(), Offset(0)..Offset(0));
    append(&log, &["a", "b"]);
    log.truncate_before(Offset(2)).unwrap();
    let copy = root.path().join("emptied");
    assert_eq!(log.snapshot(&copy).unwrap(), Offset(2)..Offset(2));
    let copy = Log::open(copy, options()).unwrap();
    assert_eq!(copy.append("c").unwrap(), Offset(2));
}

/// Whichever segment's end the one is cut at, or within which: what either appends then is not in the other.
#[test]
fn neither_log_changes_the_other() {
    let records = 24;
    for after in 0..records {
        let root = tempdir().unwrap();
        let (source, copy) = (root.path().join("log"), root.path().join("copy"));
        let options = || Options::new().durability(Durability::Written);
        let log = Log::open(&source, options().segment_bytes_max(100)).unwrap();
        for n in 0..records {
            log.append(&format!("record {n}")).unwrap();
        }
        assert!(log.segments().len() > 5);
        log.snapshot(&copy).unwrap();
        let before = (held(&source), files(&source));
        let other = (held(&copy), files(&copy));
        assert_eq!(before.0, other.0);

        // A segment that was full has room again.
        log.close().unwrap();
        let log = Log::open(&source, options()).unwrap();
        log.truncate_after(Offset(after)).unwrap();
        for _ in 0..9 {
            log.append("another").unwrap();
        }
        log.close().unwrap();
        assert_eq!((held(&copy), files(&copy)), other, "after {after}");
        let before = (held(&source), files(&source));

        let copied = Log::open(&copy, options()).unwrap();
        copied.truncate_after(Offset(after)).unwrap();
        for _ in 0..9 {
            copied.append("a third").unwrap();
        }
        drop(copied);
        assert_eq!((held(&source), files(&source)), before, "after {after}");
        let copied = Log::open(&copy, options()).unwrap();
        copied.truncate_before(Offset(after)).unwrap();
        copied.append("more").unwrap();
        copied.reset().unwrap();
        drop(copied);
        assert_eq!((held(&source), files(&source)), before, "after {after}");
    }
}

#[test]
#[cfg(unix)]
fn sealed_stores_are_linked_and_nothing_else() {
    use std::os::unix::fs::MetadataExt;
    let root = tempdir().unwrap();
    let (source, copy) = (root.path().join("log"), root.path().join("copy"));
    let log = Log::open(&source, Options::new().segment_bytes_max(100)).unwrap();
    append(&log, &["a record"; 9]);
    log.snapshot(&copy).unwrap();
    let active = log.segments().pop().unwrap().base;
    for (path, _) in files(&copy) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let is_linked = fs::metadata(&path).unwrap().nlink() > 1;
        let is_sealed = name.ends_with(".store") && name != format!("{active}.store");
        assert_eq!(is_linked, is_sealed, "{name}");
    }
}

#[test]
fn damage_is_copied_as_it_is() {
    let root = tempdir().unwrap();
    let (source, copy) = (root.path().join("log"), root.path().join("copy"));
    let log = Log::open(&source, options()).unwrap();
    append(&log, &["first", "second", "third"]);
    log.close().unwrap();
    // The last record, which without the index's word would be a torn tail.
    for victim in ["third", "second"] {
        let store = source.join("0.store");
        let mut bytes = fs::read(&store).unwrap();
        let at = bytes
            .windows(victim.len())
            .position(|w| w == victim.as_bytes());
        bytes[at.unwrap()] ^= 1;
        fs::write(&store, bytes).unwrap();
        let reader = Log::open_read_only(&source, options()).unwrap();
        assert_eq!(reader.snapshot(&copy).unwrap(), Offset(0)..Offset(3));
        let opened = Log::open(&copy, options()).unwrap();
        let damage = |log: &Log| Vec::from_iter(log.verify().unwrap().damage().cloned());
        assert_eq!(damage(&opened), damage(&reader));
        assert!(matches!(opened.read(Offset(2)), Err(Error::Corrupt { .. })));
        assert_eq!(opened.append("fourth").unwrap(), Offset(3));
        drop(opened);
        fs::remove_dir_all(&copy).unwrap();
    }
}

/// However it is said; what no directory can be renamed to is refused before anything is copied.
#[test]
#[cfg(unix)]
fn a_place_is_told_by_its_name() {
    use std::os::unix::fs::symlink;

    let root = tempdir().unwrap();
    let (source, empty) = (root.path().join("log"), root.path().join("empty"));
    let log = Log::open(&source, options()).unwrap();
    append(&log, &["a"]);
    fs::create_dir(&empty).unwrap();
    symlink(&empty, root.path().join("link")).unwrap();
    symlink("nowhere", root.path().join("dangling")).unwrap();
    for link in ["link", "link/", "link/.", "dangling"] {
        let refused = proglog::Unfinished::begin(&source, root.path().join(link)).unwrap_err();
        assert!(matches!(refused, Error::InvalidArgument(_)), "{refused}");
        assert!(refused.to_string().contains("symbolic link"), "{refused}");
    }
    for place in ["copy", "another/", "third/.", "not/there/yet/.", "empty/."] {
        let place = root.path().join(place);
        assert_eq!(log.snapshot(&place).unwrap(), Offset(0)..Offset(1));
        assert_eq!(held(&place), [(0, "a".to_owned())]);
    }
    let missing = root.path().join("no-log");
    let failed = proglog::Unfinished::begin(&missing, root.path().join("other")).unwrap_err();
    assert!(failed.to_string().contains("no-log"), "{failed}");
}

#[test]
fn it_goes_only_where_nothing_is() {
    let root = tempdir().unwrap();
    let source = root.path().join("log");
    let log = Log::open(&source, options()).unwrap();
    append(&log, &["a"]);
    let full = root.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("file"), "").unwrap();
    let within = [source.join("within"), source.join("made/within")];
    for directory in [&full, &full.join("file"), &source, &within[0], &within[1]] {
        let refused = log.snapshot(directory);
        assert!(
            matches!(refused, Err(Error::InvalidArgument(_))),
            "{refused:?}"
        );
    }
    assert!(!source.join("made").exists());
    fs::create_dir(root.path().join("copy.unfinished")).unwrap();
    let refused = log.snapshot(root.path().join("copy"));
    assert!(
        matches!(refused, Err(Error::InvalidArgument(_))),
        "{refused:?}"
    );
    assert!(!root.path().join("copy").exists());
    assert_eq!(held(&source), [(0, "a".to_owned())]);
}

/// What another process did to the log, in order: the number of records that it appended or none, and what the log
/// held then.
type Done = (u64, u64, u64);

/// The writer of the next test, where it is started with a directory.
#[test]
fn writer() {
    let Ok(directory) = env::var("PROGLOG_SNAPSHOTS_WRITER") else {
        return;
    };
    let log = Log::open(&directory, options()).unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |end: u32| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        u32::try_from(random >> 33).unwrap() % end
    };
    let mut out = std::io::stdout().lock();
    for step in 0_u64.. {
        let next = log.next_offset().0;
        let mut appended = 0;
        match below(20) {
            // At most so far that there are a few segments.
            0 => log.truncate_after(Offset(
                next.saturating_sub(below(200).into())
                    .max(log.lowest_offset().0),
            )),
            1 => log.truncate_before(Offset(next.saturating_sub(400 + u64::from(below(400))))),
            2 => log.sync(),
            // To the end of a segment, so that it takes appends again.
            3 => {
                let segments = log.segments();
                let at = segments.len().saturating_sub(2);
                let end = segments[at].next.0;
                if end > segments[0].base.0 {
                    log.truncate_after(Offset(end - 1))
                } else {
                    Ok(())
                }
            }
            n => {
                let durability = [
                    Durability::Synced,
                    Durability::Written,
                    Durability::Buffered,
                ];
                let durability = durability[n as usize % 3];
                let records = 1 + below(8);
                appended = u64::from(records);
                let value = format!("{step} {}", "x".repeat(below(200) as usize));
                log.append_batch_with(vec![&value; records as usize], durability)
                    .map(drop)
            }
        }
        .unwrap();
        let line = format!(
            "done {appended} {} {}\n",
            log.lowest_offset(),
            log.next_offset()
        );
        if out
            .write_all(line.as_bytes())
            .and_then(|()| out.flush())
            .is_err()
        {
            return;
        }
    }
}

#[test]
fn beside_a_writer_each_is_a_prefix_of_what_the_log_was() {
    let root = tempdir().unwrap();
    let source = root.path().join("log");
    let mut writer = Command::new(env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture"])
        .env("PROGLOG_SNAPSHOTS_WRITER", &source)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(writer.stdout.take().unwrap());
    let journal = thread::spawn(move || -> Vec<Done> {
        let lines = out.lines().map_while(Result::ok);
        let done = lines.filter_map(|line| {
            let (_, done) = line.split_once("done ")?;
            let mut numbers = done.split(' ').map(|n| n.parse::<u64>().ok());
            Some((numbers.next()??, numbers.next()??, numbers.next()??))
        });
        done.collect()
    });
    while Log::open_read_only(&source, options()).is_err() {
        thread::yield_now();
    }
    let mut copies = Vec::new();
    for n in 0..SNAPSHOTS {
        let copy = root.path().join(format!("copy {n}"));
        let log = Log::open_read_only(&source, options()).unwrap();
        let offsets = log.snapshot(&copy).unwrap();
        let held = steps(&copy);
        assert_eq!(held.len() as u64, offsets.end.since(offsets.start));
        copies.push((copy, offsets.start.0, held));
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    let journal = journal.join().unwrap();
    assert!(journal.len() > SNAPSHOTS, "{}", journal.len());
    let mut left: Vec<_> = copies.iter().collect();
    let mut log: Vec<u64> = Vec::new();
    // One that took in the step that the kill cut short is looked at as if it had been done.
    for (step, &(appended, lowest, next)) in journal.iter().enumerate() {
        log.truncate(usize::try_from(next).unwrap());
        let step = step as u64;
        log.extend((0..appended).map(|_| step));
        assert_eq!(log.len() as u64, next);
        left.retain(|(_, from, held)| {
            let from_at = usize::try_from(*from).unwrap();
            let is_prefix = *from >= lowest
                && log
                    .get(from_at..from_at + held.len())
                    .is_some_and(|part| part == held);
            !is_prefix
        });
    }
    left.retain(|(_, _, held)| !held.contains(&(journal.len() as u64)));
    assert!(left.is_empty(), "{left:?}");
    // The log went on, and was truncated: that changed none of them.
    let opened = Log::open(&source, options()).unwrap();
    opened.reset().unwrap();
    append(&opened, &["after"]);
    for (copy, _, held) in &copies {
        assert_eq!(&steps(copy), held);
        let log = Log::open(copy, options()).unwrap();
        assert!(log.recovery_report().segments.is_empty());
        log.truncate_after(log.next_offset()).unwrap();
        append(&log, &["after"]);
    }
    for (copy, from, held) in &copies {
        let log = Log::open_read_only(copy, options()).unwrap();
        assert!(log.verify().unwrap().is_sound());
        let next = log.next_offset().0;
        assert_eq!(next, from + held.len() as u64 + 1);
    }
    assert_eq!(held(&source), [(0, "after".to_owned())]);
}

/// The step that appended each record; of whole batches.
fn steps(directory: &Path) -> Vec<u64> {
    let step = |value: &str| value.split(' ').next().unwrap().parse().unwrap();
    held(directory)
        .iter()
        .map(|(_, value)| step(value))
        .collect()
}

/// Records that are missing by word of the index, and the base of a last segment that is torn, beside a writer too.
#[test]
fn a_copy_of_a_log_whose_end_is_missing_gives_no_offset_again() {
    for torn in [false, true] {
        for writes in [false, true] {
            let root = tempdir().unwrap();
            let (source, copy) = (root.path().join("log"), root.path().join("copy"));
            let options = || Options::new().segment_bytes_max(80);
            let log = Log::open(&source, options()).unwrap();
            append(&log, &["first", "second", "third"]);
            assert_eq!(log.segments().len(), 2);
            log.close().unwrap();
            // The second record is cut off, of which nothing tells but the next segment's base.
            let cut = |name: &str, bytes| {
                let opened = fs::OpenOptions::new().write(true).open(source.join(name));
                opened.unwrap().set_len(bytes)
            };
            let bytes = fs::metadata(source.join("0.store")).unwrap().len();
            cut("0.store", bytes / 2).unwrap();
            cut("0.index", 12).unwrap();
            if torn {
                cut("2.store", 9).unwrap();
                // It was begun, which tells that those before it were sealed.
                fs::write(source.join("2.index"), [1; 12]).unwrap();
            }
            let writer = writes.then(|| Log::open(&source, options()).unwrap());
            let reader = Log::open_read_only(&source, options()).unwrap();
            let next = Offset(3 - u64::from(torn));
            assert_eq!(reader.next_offset(), next);
            assert_eq!(reader.snapshot(&copy).unwrap().end, next, "{torn}");
            let damage = |log: &Log| Vec::from_iter(log.verify().unwrap().damage().cloned());
            drop(writer);
            for directory in [&source, &copy, &source, &copy] {
                let log = Log::open(directory, options()).unwrap();
                assert_eq!(damage(&log), damage(&reader), "{torn}");
                assert_eq!(log.next_offset(), next, "{torn}");
                log.close().unwrap();
            }
        }
    }
}
