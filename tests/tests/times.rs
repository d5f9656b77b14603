//! `Log::scan_from_time` and scans backward, against a search from one end to the other.
//!
//! PROGLOG_TIMES_ROUNDS says how many logs, PROGLOG_TIMES_SEED where the seeds start.

use std::fs;

use fastrand::Rng;
use proglog::{
    Backend, Clock, Error, FileAccess, FsBackend, Log, MemoryBackend, NewRecord, Offset, Options,
};
use proglog_tests::{seeds, subject::files_of};
use tempfile::TempDir;

const ROUNDS: u64 = 300;
/// A record that a scan gave: its offset, and its timestamp, unless it was damaged.
type Given = (u64, Option<Option<u64>>);

#[test]
fn scans_by_time_and_backward_find_what_a_search_through_all_finds() {
    seeds::for_each("TIMES", ROUNDS, |rng| {
        let options = Options::new()
            .clock(Clock::NONE)
            .initial_offset(rng.u64(..3) * 1000)
            .index_bytes_max(12 * rng.u64(1..30));
        let backend = MemoryBackend::new();
        let given = append(&backend, &options, rng);
        if rng.bool() {
            damage(&backend, rng);
        }
        let log = Log::open_on(backend.clone(), options.clone()).unwrap();
        check(&log, &given, rng);
        log.close().unwrap();

        let directory = TempDir::new().unwrap();
        for (name, bytes) in files_of(&backend) {
            fs::write(directory.path().join(name), bytes).unwrap();
        }
        let files = FsBackend::open(directory.path()).unwrap();
        let log = Log::open_on(files.file_access(FileAccess::Mapped), options.clone()).unwrap();
        check(&log, &given, rng);
        log.close().unwrap();
        let log = Log::open_read_only(directory.path(), options).unwrap();
        check(&log, &given, rng);
    });
}

/// Appends records with timestamps of all kinds. Gives for each the one that it has to get.
fn append(backend: &MemoryBackend, options: &Options, rng: &mut Rng) -> Vec<Option<u64>> {
    let mut log = Log::open_on(backend.clone(), options.clone()).unwrap();
    let mut expected = Vec::new();
    let mut latest = 0;
    // Seldom many without one: that a log goes on from an earlier time is promised for 64 of them.
    let mut since_latest = 0;
    let kind = rng.u8(..5);
    for _ in 0..rng.u64(..150) {
        let given = match kind {
            // Few different ones, in order.
            0 => Some(latest + rng.u64(..2)),
            // Any order.
            1 => Some(rng.u64(1..50)),
            2 if since_latest < 40 => rng.bool().then(|| latest + rng.u64(..20)),
            3 if since_latest < 40 => (rng.u8(..10) == 0).then(|| rng.u64(1..100)),
            4 if since_latest < 60 => None,
            _ => Some(latest + 1),
        };
        let gets = given
            .filter(|&given| given > 0)
            .map(|given| given.max(latest));
        since_latest = if gets.is_some() { 0 } else { since_latest + 1 };
        latest = gets.unwrap_or(latest);
        let record = NewRecord::new("value");
        log.append(match given {
            Some(given) => record.timestamp_ms(given),
            None => record,
        })
        .unwrap();
        expected.push(gets);
        if rng.u8(..30) == 0 {
            log.close().unwrap();
            log = Log::open_on(backend.clone(), options.clone()).unwrap();
        }
    }
    log.close().unwrap();
    expected
}

/// Flips bits in stores.
fn damage(backend: &MemoryBackend, rng: &mut Rng) {
    for (name, mut bytes) in files_of(backend) {
        if name.ends_with(".store") && !bytes.is_empty() && rng.bool() {
            for _ in 0..rng.usize(1..6) {
                let at = rng.usize(..bytes.len());
                bytes[at] ^= 1 << rng.u8(..8);
            }
            backend.insert(name, bytes);
        }
    }
}

fn check<B: Backend>(log: &Log<B>, appended: &[Option<u64>], rng: &mut Rng) {
    let lowest = log.lowest_offset().0;
    let read: Vec<Given> = (lowest..log.next_offset().0)
        .map(|offset| match log.read(Offset(offset)) {
            Ok(record) => {
                let n = usize::try_from(offset - lowest).unwrap();
                assert_eq!(record.timestamp_ms(), appended[n], "record {offset}");
                (offset, Some(record.timestamp_ms()))
            }
            Err(Error::Corrupt { .. }) => (offset, None),
            Err(e) => panic!("{e}"),
        })
        .collect();
    assert!(read.len() <= appended.len());

    let forward: Vec<Given> = log.scan(..).map(given).collect();
    check_held(&forward, &read);
    let mut backward: Vec<Given> = log.scan(..).rev().map(given).collect();
    backward.reverse();
    check_held(&backward, &read);
    for _ in 0..10 {
        from_both_ends(log, &read, rng);
    }

    let latest = appended.iter().flatten().max().copied().unwrap_or(0);
    for timestamp_ms in 0..=(latest + 2).min(300) {
        let before = read.iter().rposition(|(_, read)| {
            read.flatten()
                .is_some_and(|timestamp| timestamp < timestamp_ms)
        });
        let first = before.map_or(0, |before| before + 1);
        let found: Vec<Given> = log
            .scan_from_time(timestamp_ms)
            .unwrap()
            .map(given)
            .collect();
        let found_first = found.first().map(|(offset, _)| *offset);
        let expected_first = read.get(first).map(|(offset, _)| *offset);
        assert_eq!(
            found_first, expected_first,
            "from {timestamp_ms} in {read:?}"
        );
        check_held(&found, &read[first..]);
    }
}

/// That a scan gave what reads gave. A stretch that no segment holds is one to a scan.
fn check_held(scanned: &[Given], read: &[Given]) {
    let sound = |given: &[Given]| -> Vec<Given> {
        let sound = given.iter().filter(|(_, found)| found.is_some());
        sound.copied().collect()
    };
    assert_eq!(sound(scanned), sound(read));
    for (offset, found) in scanned {
        assert!(read.contains(&(*offset, *found)));
    }
    assert_eq!(scanned.is_empty(), read.is_empty());
}

/// A scan taken from its front and its back in turn gives each record once.
fn from_both_ends<B: Backend>(log: &Log<B>, read: &[Given], rng: &mut Rng) {
    let (Some((first, _)), Some((last, _))) = (read.first(), read.last()) else {
        return;
    };
    let from = rng.u64(*first..=*last);
    let to = rng.u64(from..=*last + 1);
    let mut scan = log.scan(Offset(from)..Offset(to));
    let (mut front, mut back) = (Vec::new(), Vec::new());
    loop {
        let (end, next) = if rng.bool() {
            (&mut front, scan.next())
        } else {
            (&mut back, scan.next_back())
        };
        match next {
            Some(record) => end.push(given(record)),
            None => break,
        }
    }
    assert!(scan.next().is_none() && scan.next_back().is_none());
    front.extend(back.into_iter().rev());
    let sound = |given: &[Given]| -> Vec<Given> {
        let in_range = given
            .iter()
            .filter(|(offset, found)| found.is_some() && (from..to).contains(offset));
        in_range.copied().collect()
    };
    assert_eq!(sound(&front), sound(read), "{from} to {to}");
    assert!(
        front.windows(2).all(|pair| pair[0].0 < pair[1].0),
        "{front:?}"
    );
}

fn given(record: Result<proglog::Record, Error>) -> Given {
    match record {
        Ok(record) => (record.offset().0, Some(record.timestamp_ms())),
        Err(Error::Corrupt { offset, .. }) => (offset.0, None),
        Err(e) => panic!("{e}"),
    }
}
