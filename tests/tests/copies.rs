//! Copies of randomly damaged logs: a copy has the next offset of the log, and tells of the same records that they are
//! lost.

use std::collections::BTreeSet;

use fastrand::Rng;
use proglog::{Clock, Log, Options, Repair, Report};
use proglog_tests::{
    damage::{bases, damaged, files_in, memory_directory, written},
    seeds,
};

#[test]
fn a_copy_loses_what_the_log_loses_and_gives_no_offset_again() {
    let lost = std::cell::Cell::new(0);
    seeds::for_each("COPIES", 500, |rng| lost.set(lost.get() + round(rng)));
    assert!(lost.get() > 500, "{lost:?}");
}

fn round(rng: &mut Rng) -> usize {
    let root = memory_directory();
    let (directory, copy) = (root.path().join("log"), root.path().join("copy"));
    std::fs::create_dir(&directory).unwrap();
    let options = Options::new()
        .segment_bytes_max(rng.u64(150..1200))
        .clock(Clock::NONE);
    let (original, closed) = written(&directory, &options, rng);
    damaged(&directory, &original, rng);
    let files = files_in(&directory);
    if bases(&files).is_empty() {
        return 0;
    }
    let reader = Log::open_read_only(&directory, options.clone()).unwrap();
    let next = reader.next_offset();
    let found = reader.verify().unwrap();
    let what = format!("closed: {closed}, next {next}, {found:#?}");
    let offsets = reader.snapshot(&copy).unwrap();
    assert_eq!(offsets, reader.lowest_offset()..next, "{what}");
    let of_log = Log::plan_repair(&directory, options.clone()).unwrap();

    // However often it is opened.
    for _ in 0..2 {
        let log = Log::open(&copy, options.clone()).unwrap();
        assert_eq!(log.next_offset(), next, "{what}");
        assert_eq!(
            damaged_offsets(&log.verify().unwrap()),
            damaged_offsets(&found),
            "{what}"
        );
        log.close().unwrap();
    }
    let repair = Log::repair(&copy, options.clone()).unwrap();
    let mut lost = lost_offsets(&repair);
    let log = Log::open_read_only(&copy, options.clone()).unwrap();
    lost.extend(damaged_offsets(&log.verify().unwrap()));
    drop(log);
    assert_eq!(lost, lost_offsets(&of_log), "{what}");
    let in_place = Log::repair(&directory, options.clone()).unwrap();
    assert_eq!(lost_offsets(&in_place), lost, "{what}");
    for directory in [&copy, &directory] {
        let log = Log::open(directory, options.clone()).unwrap();
        assert_eq!(log.append("after").unwrap(), next, "{what}");
    }
    lost.len()
}

fn lost_offsets(repair: &Repair) -> BTreeSet<u64> {
    let lost = repair.lost.iter();
    lost.flat_map(|lost| lost.first.0..=lost.last.0).collect()
}

/// Also those that a copy gave up by itself.
fn damaged_offsets(report: &Report) -> BTreeSet<u64> {
    let damage = report.damage().filter(|damage| !damage.bytes_only);
    let damaged = damage.flat_map(|damage| damage.first.0..=damage.last.0);
    let gaps = report.gaps().lost_stretches;
    let lost = gaps.iter().flat_map(|gap| gap.first.0..=gap.last.0);
    damaged.chain(lost).collect()
}
