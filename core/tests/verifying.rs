//! Several threads find the same as one.

use std::{
    num::NonZero,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use proglog::{
    Access, Backend, BackendFile, Durability, Log, MemoryBackend, Offset, Options, Report,
};

fn options() -> Options {
    Options::new().segment_bytes_max(100)
}

/// A closed log of a dozen segments.
fn log() -> MemoryBackend {
    let files = MemoryBackend::new();
    let log = Log::open_on(files.clone(), options()).unwrap();
    for n in 0..30 {
        log.append(&format!("record {n}")).unwrap();
    }
    log.append_batch(["a", "batch", "of", "four"]).unwrap();
    log.close().unwrap();
    files
}

/// What is found with so many threads, after checking that each segment was told of once, in order.
fn found<B: Backend>(log: &Log<B>, threads: usize, what: &str) -> Report
where
    Log<B>: Sync,
{
    let mut told = Vec::new();
    let report = log.verify_with(NonZero::new(threads).unwrap(), |segment| {
        told.push(segment.clone());
    });
    let report = report.unwrap();
    assert_eq!(told, report.segments, "{what}");
    report
}

fn check(files: &MemoryBackend, what: &str) -> Report {
    let read_only = Log::open_read_only_on(files.clone(), options()).unwrap();
    let expected = read_only.verify().unwrap();
    for threads in [1, 2, 3, 64] {
        let what = format!("{what}, {threads} threads");
        assert_eq!(found(&read_only, threads, &what), expected, "{what}");
    }
    // Opening it to write mends what can be mended.
    let ours = Log::open_on(files.clone(), options()).unwrap();
    let expected_of_ours = ours.verify().unwrap();
    for threads in [2, 5] {
        let what = format!("{what}, {threads} threads, to write");
        assert_eq!(found(&ours, threads, &what), expected_of_ours, "{what}");
    }
    expected
}

/// Changes a file of each log and says whether there was something to change.
type Spoil = fn(&MemoryBackend, &str);

#[test]
fn they_find_the_same_whatever_is_wrong() {
    let spoils: [(&str, Spoil); 4] = [
        ("a flipped bit", |files, name| {
            let file = files.open(name, Access::Write).unwrap();
            let mut byte = [0];
            file.read_at(&mut byte, 20).unwrap();
            file.write_at(&[byte[0] ^ 4], 20).unwrap();
        }),
        ("a cut", |files, name| {
            let file = files.open(name, Access::Write).unwrap();
            file.set_len(file.len().unwrap() - 7).unwrap();
        }),
        ("zeros at the end", |files, name| {
            let file = files.open(name, Access::Write).unwrap();
            file.set_len(file.len().unwrap() + 40).unwrap();
        }),
        ("a removal", |files, name| files.remove(name).unwrap()),
    ];
    assert!(check(&log(), "nothing").is_sound());
    let names = log().list().unwrap();
    assert!(names.len() > 20, "{names:?}");
    let mut damaged = 0;
    for name in &names {
        for (what, spoil) in &spoils {
            let files = log();
            spoil(&files, name);
            damaged += u32::from(!check(&files, &format!("{what} of {name}")).is_sound());
        }
    }
    assert!(damaged > 20, "{damaged}");
    // All over.
    let files = log();
    for name in names.iter().filter(|name| name.ends_with(".store")) {
        spoils[0].1(&files, name);
    }
    let report = check(&files, "each store");
    assert!(report.segments.iter().all(|found| !found.damage.is_empty()));
}

#[test]
fn what_cannot_be_read_is_told() {
    let files = log();
    // A log opened read-only would take it for what a writer beside it did.
    let log = Log::open_on(files.clone(), options()).unwrap();
    let gone = log.segments()[3].base;
    files.remove(&format!("{gone}.store")).unwrap();
    let mut seen = 0;
    let failed = log.verify_with(NonZero::new(4).unwrap(), |_| seen += 1);
    assert_eq!(
        failed.unwrap_err().to_string(),
        log.verify().unwrap_err().to_string()
    );
    assert_eq!(seen, 3);
}

#[test]
fn nothing_is_damaged_beside_a_writer_that_truncates() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Log::open(directory.path(), options());
    let writer = open().unwrap();
    writer.append_batch(["a"; 3]).unwrap();
    let ended = AtomicBool::new(false);
    let (mut looked, mut segments) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..30 {
                for _ in 0..20 {
                    let batch = ["record"; 3];
                    writer
                        .append_batch_with(batch, Durability::Written)
                        .unwrap();
                }
                let (lowest, next) = (writer.lowest_offset().0, writer.next_offset().0);
                match round % 3 {
                    0 => writer.truncate_after(Offset(next - 40)),
                    1 => writer.truncate_before(Offset(lowest + 20)),
                    _ => writer.reset(),
                }
                .unwrap();
            }
            ended.store(true, Relaxed);
        });
        while !ended.load(Relaxed) {
            let reader = Log::open_read_only(directory.path(), options()).unwrap();
            let report = reader.verify_with(NonZero::new(3).unwrap(), |_| segments += 1);
            let report = report.unwrap();
            assert!(report.is_sound(), "{report:?}");
            looked += 1;
        }
    });
    assert!(looked > 3 && segments > looked, "{looked}, {segments}");
}
