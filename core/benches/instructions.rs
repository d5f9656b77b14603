//! How many instructions an append, a read and an open take, by scenario. `.ci/instructions` counts them,
//! with callgrind, and compares them with `instructions.txt`.
//!
//! `instructions SCENARIO DIRECTORY` runs one scenario on a log in the directory, which must be empty;
//! `instructions` alone lists them and how many operations each runs. What is counted is `counted_work` and all
//! that it calls, in this thread: what goes before it prepares. The kernel's work is not counted.
//!
//! No worker runs beside it ([`Log::open_on`] employs none) and there is no clock. Files are written by
//! calls, save in `append_mapped_*`, and read as every log on Unix reads them, mapped.
#![cfg(not(target_family = "wasm"))]

use std::{env, hint::black_box, path::Path, process::ExitCode};

use proglog::{
    Clock, Durability, FileAccess, FsBackend, Log, NewRecord, Offset, Options, Result, Verify,
};

/// Its records are in segments before the last, which are sealed.
const SEALED_RECORDS: u64 = 4_000;
const BATCH_RECORDS: u64 = 1_000;

struct Scenario {
    name: &'static str,
    /// What the count is divided by.
    operations: u64,
    run: fn(&Path, u64) -> Result<()>,
}

const SCENARIOS: [Scenario; 12] = [
    scenario("append_buffered_100", 10_000, |path, count| {
        append(path, count, 100, Durability::Buffered)
    }),
    scenario("append_buffered_1024", 10_000, |path, count| {
        append(path, count, 1024, Durability::Buffered)
    }),
    scenario("append_written_1024", 10_000, |path, count| {
        append(path, count, 1024, Durability::Written)
    }),
    scenario("append_mapped_1024", 10_000, append_mapped),
    scenario("append_batch_1024", 20 * BATCH_RECORDS, append_batch),
    scenario("sealed_read_verified", 20_000, |path, count| {
        read_sealed(path, count, Verify::EveryRead)
    }),
    scenario("sealed_read_once", 20_000, |path, count| {
        read_sealed(path, count, Verify::Once)
    }),
    scenario("scan", SEALED_RECORDS, scan),
    scenario("scan_borrowed", SEALED_RECORDS, scan_borrowed),
    scenario("open_clean", 1, open_clean),
    scenario("open_unclean", 2_000, open_unclean),
    scenario("close", 1, close),
];

const fn scenario(
    name: &'static str,
    operations: u64,
    run: fn(&Path, u64) -> Result<()>,
) -> Scenario {
    Scenario {
        name,
        operations,
        run,
    }
}

fn main() -> ExitCode {
    // Cargo adds `--bench`.
    let arguments: Vec<String> = env::args().skip(1).filter(|it| it != "--bench").collect();
    let [name, directory] = &arguments[..] else {
        for Scenario {
            name, operations, ..
        } in SCENARIOS
        {
            println!("{name} {operations}");
        }
        return ExitCode::SUCCESS;
    };
    let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == name) else {
        eprintln!("no scenario is called {name}");
        return ExitCode::FAILURE;
    };
    match (scenario.run)(Path::new(directory), scenario.operations) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{name}: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Callgrind counts from where this is called until it returns: `.ci/instructions` knows it by name.
#[inline(never)]
fn counted_work(work: &mut dyn FnMut()) {
    work();
}

fn counted<T>(work: impl FnOnce() -> T) -> T {
    let (mut work, mut done) = (Some(work), None);
    counted_work(&mut || done = work.take().map(|work| work()));
    done.expect("it was called once")
}

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}

fn open(path: &Path, access: FileAccess, options: Options) -> Result<Log> {
    Log::open_on(FsBackend::open(path)?.file_access(access), options)
}

/// The same bytes every time, and no two records the same.
fn value(bytes: usize, seed: usize) -> Vec<u8> {
    let mix = |at: usize| (at + seed).wrapping_mul(0x9e37_79b9).to_be_bytes()[4];
    (0..bytes).map(mix).collect()
}

fn append(path: &Path, count: u64, bytes: usize, durability: Durability) -> Result<()> {
    append_to(
        &open(path, FileAccess::Calls, options())?,
        count,
        bytes,
        durability,
    )
}

fn append_mapped(path: &Path, count: u64) -> Result<()> {
    append_to(
        &open(path, FileAccess::Mapped, options())?,
        count,
        1024,
        Durability::Written,
    )
}

fn append_to(log: &Log, count: u64, bytes: usize, durability: Durability) -> Result<()> {
    let value = value(bytes, 0);
    // The first one takes memory.
    log.append_with(&value, durability)?;
    counted(|| {
        for _ in 0..count {
            black_box(log.append_with(black_box(&value), durability)?);
        }
        Ok(())
    })
}

fn append_batch(path: &Path, count: u64) -> Result<()> {
    let log = open(path, FileAccess::Calls, options())?;
    let value = value(1024, 0);
    counted(|| {
        for _ in 0..count / BATCH_RECORDS {
            let records = (0..BATCH_RECORDS).map(|_| NewRecord::new(&value));
            log.append_batch_with(records, Durability::Buffered)?;
        }
        Ok(())
    })
}

/// A log whose records, of 1 KiB, are in sealed segments; closed.
fn make_sealed(path: &Path) -> Result<()> {
    let options = options().segment_bytes_max(1 << 20);
    let log = open(path, FileAccess::Calls, options)?;
    for n in 0..SEALED_RECORDS {
        log.append_with(
            &value(1024, usize::try_from(n).unwrap_or(0)),
            Durability::Buffered,
        )?;
    }
    log.truncate_before(Offset(0))?;
    log.close()
}

fn read_sealed(path: &Path, count: u64, verify: Verify) -> Result<()> {
    make_sealed(path)?;
    let log = open(path, FileAccess::Mapped, options().verify(verify))?;
    let sealed = log.segments().last().map_or(0, |last| last.base.0);
    // What is to be done once is done, and verified once.
    for offset in 0..sealed {
        log.read(Offset(offset))?;
    }
    counted(|| {
        let mut random = 1_u64;
        for _ in 0..count {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            black_box(log.read(Offset((random >> 33) % sealed))?);
        }
        Ok(())
    })
}

fn scan(path: &Path, count: u64) -> Result<()> {
    make_sealed(path)?;
    let log = open(path, FileAccess::Mapped, options())?;
    let _opened = log.segments();
    counted(|| {
        let mut records = 0;
        for record in log.scan(..) {
            black_box(record?);
            records += 1;
        }
        assert_eq!(records, count);
        Ok(())
    })
}

fn scan_borrowed(path: &Path, count: u64) -> Result<()> {
    make_sealed(path)?;
    let log = open(path, FileAccess::Mapped, options())?;
    counted(|| {
        let mut records = 0;
        let mut scan = log.scan(..);
        while let Some(record) = scan.next_borrowed() {
            black_box(record?);
            records += 1;
        }
        assert_eq!(records, count);
        Ok(())
    })
}

fn open_clean(path: &Path, _: u64) -> Result<()> {
    make_sealed(path)?;
    let log = counted(|| open(path, FileAccess::Mapped, options()))?;
    assert_eq!(log.next_offset(), Offset(SEALED_RECORDS));
    assert!(log.recovery_report().segments.is_empty());
    Ok(())
}

/// The log is scanned that was not closed.
fn open_unclean(path: &Path, count: u64) -> Result<()> {
    let log = open(path, FileAccess::Calls, options())?;
    for n in 0..count {
        let value = value(1024, usize::try_from(n).unwrap_or(0));
        log.append_with(&value, Durability::Written)?;
    }
    // As a killed process leaves it; the lock goes with the copy's directory.
    let left = path.join("left");
    std::fs::create_dir(&left).expect("an empty directory");
    for file in ["0.store", "0.index"] {
        std::fs::copy(path.join(file), left.join(file)).expect("copied");
    }
    let log = counted(|| open(&left, FileAccess::Mapped, options()))?;
    assert_eq!(log.next_offset(), Offset(count));
    assert_eq!(log.recovery_report().segments.len(), 1);
    Ok(())
}

fn close(path: &Path, _: u64) -> Result<()> {
    let log = open(path, FileAccess::Calls, options())?;
    for _ in 0..1_000 {
        log.append_with(&value(1024, 0), Durability::Buffered)?;
    }
    counted(|| log.close())
}
