//! The rows: what is measured, who takes part, and what the goal is.

use crate::{
    floors::{self, *},
    peers,
    proglog::{KEPT, NO_CLOCK, PROGLOG, RESERVED},
    subject::{Kind, Promise},
    workload::Workload,
};

/// One row of the tables, and one plot.
pub struct Row {
    pub id: &'static str,
    pub title: &'static str,
    pub unit: Unit,
    pub contenders: Vec<Contender>,
    pub goals: Vec<Goal>,
    pub only: Only,
    /// Numbers that do not vary are taken once.
    pub once: bool,
    pub note: &'static str,
}

/// Who takes part, under which name, in what.
#[derive(Clone, Copy)]
pub struct Contender {
    pub name: &'static str,
    pub kind: Kind,
    pub workload: Workload,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Records a second.
    Records,
    /// MiB a second of values of so many bytes, measured as records.
    MiB {
        value_bytes: usize,
    },
    Milliseconds,
    /// Bytes on disk a byte of payload.
    Times,
    /// MiB of memory.
    Memory,
}

impl Unit {
    pub fn more_is_better(self) -> bool {
        matches!(self, Self::Records | Self::MiB { .. })
    }
}

/// When a row is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    Always,
    /// It takes minutes.
    Long,
    /// It needs the wasm engine.
    Wasm,
}

pub struct Goal {
    pub text: &'static str,
    pub check: Check,
}

/// How a goal is judged: by medians, of ratios within a round where there are two subjects.
pub enum Check {
    /// `own` is at least `factor` times each of `others`, which are in this row or in another.
    Ratio {
        own: &'static str,
        factor: f64,
        others: Vec<Other>,
    },
    /// `own` takes at most `factor` times as long as `other`.
    Slowdown {
        own: &'static str,
        factor: f64,
        other: &'static str,
    },
    /// `own` is at most so much, in the row's unit.
    Limit { own: &'static str, most: f64 },
}

#[derive(Clone, Copy)]
pub struct Other {
    pub row: Option<&'static str>,
    pub name: &'static str,
    /// The other's number is taken so many times.
    pub scale: f64,
}

const fn here(name: &'static str) -> Other {
    Other {
        row: None,
        name,
        scale: 1.0,
    }
}

fn at_least(text: &'static str, factor: f64, others: &[Kind]) -> Goal {
    Goal {
        text,
        check: Check::Ratio {
            own: PROGLOG.name,
            factor,
            others: others.iter().map(|kind| here(kind.name)).collect(),
        },
    }
}

/// The same of a log that has its space reserved.
fn reserved(mut goal: Goal) -> Goal {
    if let Check::Ratio { own, .. } = &mut goal.check {
        *own = RESERVED.name;
    }
    goal
}

fn at_most(text: &'static str, most: f64) -> Goal {
    Goal {
        text,
        check: Check::Limit {
            own: PROGLOG.name,
            most,
        },
    }
}

fn contenders(workload: Workload, floors: &[Kind], peers: &[Kind]) -> Vec<Contender> {
    let own = [PROGLOG];
    let kinds = floors.iter().chain(&own).chain(peers);
    kinds
        .map(|&kind| Contender {
            name: kind.name,
            kind,
            workload,
        })
        .collect()
}

fn row(
    id: &'static str,
    title: &'static str,
    unit: Unit,
    workload: Workload,
    floors: &[Kind],
    peers: &[Kind],
    goals: Vec<Goal>,
) -> Row {
    Row {
        id,
        title,
        unit,
        contenders: contenders(workload, floors, peers),
        goals,
        only: Only::Always,
        once: false,
        note: "",
    }
}

/// With another form of proglog after it.
fn beside(mut row: Row, kind: Kind) -> Row {
    let own = row.contenders.iter().position(|c| c.name == PROGLOG.name);
    let workload = row.contenders[0].workload;
    row.contenders.insert(
        own.map_or(row.contenders.len(), |own| own + 1),
        Contender {
            name: kind.name,
            kind,
            workload,
        },
    );
    row
}

const KIB: usize = 1 << 10;

pub fn all() -> Vec<Row> {
    let mut rows = appends();
    rows.extend(syncs());
    rows.extend(reads());
    rows.extend(opens());
    rows.extend(sizes());
    rows.extend(engines());
    rows.extend(long());
    rows
}

fn appends() -> Vec<Row> {
    let append = |promise, value_bytes| Workload::Append {
        promise,
        value_bytes,
    };
    let buffered_floors = [
        MEMCPY,
        BUFFERED_RAW,
        BUFFERED,
        BUFFERED_RAW_ZEROED,
        BUFFERED_ZEROED,
        BUFFERED_FALLOCATED,
    ];
    let written_floors = [
        WRITE,
        PWRITE,
        PWRITE_FALLOCATED,
        PWRITE_ZEROED_4K,
        PWRITE_ZEROED,
        PWRITE_ZEROED_1M,
        MAPPED,
        MAPPED_INLINE,
        MAPPED_THREAD,
        MAPPED_BEFORE,
        MAPPED_ZEROED,
        MAPPED_ZEROED_INLINE,
        MAPPED_ZEROED_THREAD,
        MAPPED_ZEROED_BEFORE,
    ];
    let no_clock = |row| beside(row, NO_CLOCK);
    vec![
        no_clock(row(
            "append_buffered",
            "Append, buffered, 1 KiB",
            Unit::Records,
            append(Promise::Buffered, KIB),
            &buffered_floors,
            &peers::ALL,
            vec![
                at_least(
                    "≥ 0.9 × the buffered-write-with-checksum floor",
                    0.9,
                    &[BUFFERED],
                ),
                at_least(
                    "≥ 2.5 × commitlog and raft-engine",
                    2.5,
                    &[peers::COMMITLOG, peers::RAFT_ENGINE],
                ),
                at_least("> okaywal", 1.0, &[peers::OKAYWAL]),
            ],
        )),
        no_clock(row(
            "append_buffered_100",
            "Append, buffered, 100 B",
            Unit::Records,
            append(Promise::Buffered, 100),
            &buffered_floors,
            &peers::ALL,
            vec![],
        )),
        no_clock(row(
            "append_written",
            "Append, written (kept by kill -9), 1 KiB",
            Unit::Records,
            append(Promise::Written, KIB),
            &written_floors,
            &peers::ALL,
            vec![
                at_least("≥ 0.95 × the write-a-record floor", 0.95, &[WRITE]),
                at_least("> commitlog", 1.0, &[peers::COMMITLOG]),
            ],
        )),
        no_clock(row(
            "append_written_100",
            "Append, written (kept by kill -9), 100 B",
            Unit::Records,
            append(Promise::Written, 100),
            &written_floors,
            &peers::ALL,
            vec![
                at_least(
                    "≥ 0.8 × the mapped-and-populated floor (fallocated, populated inline)",
                    0.8,
                    &[MAPPED_INLINE],
                ),
                at_least("≥ 4 × commitlog", 4.0, &[peers::COMMITLOG]),
            ],
        )),
        row(
            "append_large",
            "Append, buffered, 64 KiB",
            Unit::MiB {
                value_bytes: 64 << 10,
            },
            append(Promise::Buffered, 64 << 10),
            &[MEMCPY, BUFFERED, WRITE, WRITEV, WRITEV_ZEROED],
            &peers::ALL,
            vec![at_least("≥ 0.9 × the writev floor", 0.9, &[WRITEV])],
        ),
    ]
}

fn syncs() -> Vec<Row> {
    let zeroed = || at_least("≥ 0.9 × the zero-filled floor", 0.9, &[BUFFERED_ZEROED]);
    let every_peer = || at_least("≥ 1.4 × every peer", 1.4, &peers::ALL);
    let synced_zeroed = || at_least("≥ 0.95 × the zero-filled floor", 0.95, &[SYNC_ZEROED]);
    let of_latency = || Goal {
        text: "≥ 0.6 × (8 ÷ latency of one sync)",
        check: Check::Ratio {
            own: PROGLOG.name,
            factor: 0.6,
            others: vec![Other {
                row: Some("synced_1"),
                name: SYNC_ZEROED.name,
                scale: 8.0,
            }],
        },
    };
    let sharing_peers = || {
        at_least(
            "≥ 2 × raft-engine and okaywal",
            2.0,
            &[peers::RAFT_ENGINE, peers::OKAYWAL],
        )
    };
    vec![
        beside(
            row(
                "batch_sync",
                "Append 1,000 of 1 KiB, then one sync",
                Unit::Records,
                Workload::BatchSync,
                &[
                    BUFFERED,
                    BUFFERED_FALLOCATED,
                    BUFFERED_ZEROED_4K,
                    BUFFERED_ZEROED,
                    BUFFERED_ZEROED_1M,
                    BUFFERED_ZEROS_AHEAD,
                    BUFFERED_ZEROS_ELSEWHERE,
                    BUFFERED_DEVICE_ZEROED,
                ],
                &peers::ALL,
                vec![
                    zeroed(),
                    reserved(zeroed()),
                    every_peer(),
                    reserved(every_peer()),
                ],
            ),
            RESERVED,
        ),
        beside(
            row(
                "synced_1",
                "Append, synced, 1 KiB, 1 thread",
                Unit::Records,
                Workload::Synced { threads: 1 },
                &[
                    SYNC_GROWING,
                    SYNC_FALLOCATED,
                    SYNC_ZEROED_4K,
                    SYNC_ZEROED,
                    SYNC_ZEROED_1M,
                    SYNC_DSYNC,
                    SYNC_MAPPED_4K,
                    SYNC_MAPPED,
                ],
                &peers::ALL,
                vec![synced_zeroed(), reserved(synced_zeroed())],
            ),
            RESERVED,
        ),
        beside(
            row(
                "synced_8",
                "Append, synced, 1 KiB, 8 threads",
                Unit::Records,
                Workload::Synced { threads: 8 },
                &[SYNC_GROWING, SYNC_FALLOCATED, SYNC_ZEROED_4K, SYNC_ZEROED],
                &peers::ALL,
                vec![
                    of_latency(),
                    reserved(of_latency()),
                    sharing_peers(),
                    reserved(sharing_peers()),
                ],
            ),
            RESERVED,
        ),
    ]
}

fn reads() -> Vec<Row> {
    let scan_floors = [
        READ_MEMCPY,
        READ_MMAP_RAW,
        READ_MMAP,
        READ_PREAD_RAW,
        READ_PREAD,
    ];
    let kept = |row| beside(row, KEPT);
    let random_peers = [peers::READERS, &[peers::LMDB_HELD]].concat();
    vec![
        kept(row(
            "scan",
            "Scan, every record verified, 1 KiB",
            Unit::Records,
            Workload::Scan { verify_once: false },
            &scan_floors,
            peers::READERS,
            vec![at_least(
                "≥ 0.9 × the mmap-with-checksum floor",
                0.9,
                &[READ_MMAP],
            )],
        )),
        kept(row(
            "scan_verified_once",
            "Scan, verified once before, 1 KiB",
            Unit::Records,
            Workload::Scan { verify_once: true },
            &[READ_MMAP_RAW],
            &[peers::LMDB],
            vec![at_least("≥ 0.9 × LMDB", 0.9, &[peers::LMDB])],
        )),
        row(
            "random_1",
            "Random read, 1 KiB, 1 thread",
            Unit::Records,
            Workload::Random { threads: 1 },
            &scan_floors,
            &random_peers,
            vec![
                at_least("≥ 0.9 × the mmap-with-checksum floor", 0.9, &[READ_MMAP]),
                at_least("≥ 3 × LMDB", 3.0, &[peers::LMDB]),
            ],
        ),
        row(
            "random_2",
            "Random read, 1 KiB, 2 threads",
            Unit::Records,
            Workload::Random { threads: 2 },
            &scan_floors,
            &random_peers,
            vec![Goal {
                text: "≥ 1.9 × one thread",
                check: Check::Ratio {
                    own: PROGLOG.name,
                    factor: 1.9,
                    others: vec![Other {
                        row: Some("random_1"),
                        name: PROGLOG.name,
                        scale: 1.0,
                    }],
                },
            }],
        ),
    ]
}

fn opens() -> Vec<Row> {
    vec![
        row(
            "open_closed",
            "Open 512 MiB after a clean close",
            Unit::Milliseconds,
            Workload::Open,
            &[],
            peers::READERS,
            vec![at_most("≤ 1 ms", 1.0)],
        ),
        row(
            "open_segments",
            "Open 10,000 segments",
            Unit::Milliseconds,
            Workload::OpenSegments { segments: 10_000 },
            &[],
            &[],
            vec![at_most("≤ 100 ms", 100.0)],
        ),
        Row {
            note: "The floor checks every frame of the store that proglog wrote last; proglog's last \
                   segment is 60 of 64 MiB full.",
            ..row(
                "open_killed",
                "Open about 490 MiB after kill -9",
                Unit::Milliseconds,
                Workload::OpenKilled,
                &[CHECK_NEWEST],
                peers::READERS,
                vec![at_least(
                    "active segment only, ≥ 0.8 × the checksum floor",
                    0.8,
                    &[CHECK_NEWEST],
                )],
            )
        },
    ]
}

fn sizes() -> Vec<Row> {
    let disk = |id, title, value_bytes, closed, goals| Row {
        once: true,
        ..row(
            id,
            title,
            Unit::Times,
            Workload::Disk {
                value_bytes,
                closed,
            },
            &[],
            &[&[NO_CLOCK], &peers::ALL[..]].concat(),
            goals,
        )
    };
    vec![
        disk(
            "disk",
            "Disk per payload byte, 1 KiB, closed",
            KIB,
            true,
            vec![at_most("≤ 1.04", 1.04)],
        ),
        disk(
            "disk_100",
            "Disk per payload byte, 100 B, closed",
            100,
            true,
            vec![at_most("≤ 1.40", 1.40)],
        ),
        Row {
            note: "What preparing segments ahead costs is the difference to the same row after a close.",
            ..disk(
                "disk_open",
                "Disk per payload byte, 1 KiB, while open",
                KIB,
                false,
                vec![],
            )
        },
        disk(
            "disk_open_100",
            "Disk per payload byte, 100 B, while open",
            100,
            false,
            vec![],
        ),
        Row {
            once: true,
            ..row(
                "memory",
                "Memory beyond the mappings after scanning and reading 512 MiB",
                Unit::Memory,
                Workload::Memory,
                &[],
                peers::READERS,
                vec![at_most("≤ 16 MiB", 16.0)],
            )
        },
    ]
}

#[cfg(feature = "wasm")]
fn engines() -> Vec<Row> {
    use crate::engines::{NATIVE, NATIVE_MAPPED, WASM};
    let engine_row = |id, title, unit, workload, goal| Row {
        contenders: [NATIVE_MAPPED, NATIVE, WASM]
            .map(|kind| Contender {
                name: kind.name,
                kind,
                workload,
            })
            .into(),
        only: Only::Wasm,
        ..row(id, title, unit, workload, &[], &[], vec![goal])
    };
    let slower = |text, factor| Goal {
        text,
        check: Check::Slowdown {
            own: WASM.name,
            factor,
            other: NATIVE.name,
        },
    };
    vec![
        engine_row(
            "engine_batch",
            "Engines: append batches of 1,000 of 1 KiB",
            Unit::Records,
            Workload::EngineBatch,
            slower("wasm ÷ native by calls ≤ 1.25 ×", 1.25),
        ),
        engine_row(
            "engine_single",
            "Engines: append one by one, written, 1 KiB",
            Unit::Records,
            Workload::Append {
                promise: Promise::Written,
                value_bytes: KIB,
            },
            slower("wasm ÷ native by calls ≤ 1.6 ×", 1.6),
        ),
        engine_row(
            "engine_scan",
            "Engines: scan, 1 KiB",
            Unit::Records,
            Workload::Scan { verify_once: false },
            slower("wasm ÷ native by calls ≤ 1.5 ×", 1.5),
        ),
        engine_row(
            "engine_open",
            "Engines: open an instance",
            Unit::Milliseconds,
            Workload::OpenAgain,
            Goal {
                text: "wasm ≤ 1 ms",
                check: Check::Limit {
                    own: WASM.name,
                    most: 1.0,
                },
            },
        ),
    ]
}

#[cfg(not(feature = "wasm"))]
fn engines() -> Vec<Row> {
    Vec::new()
}

fn long() -> Vec<Row> {
    const SMALL: &str = "proglog, 512 MiB";
    const LARGE: &str = "proglog, 10 GiB";
    let long_row =
        |id, title, workload: fn(u64) -> Workload, floors: &[(&'static str, Kind, u64)]| {
            let own = [(SMALL, PROGLOG, 512 << 20), (LARGE, PROGLOG, 10 << 30)];
            Row {
                contenders: floors
                    .iter()
                    .chain(&own)
                    .map(|&(name, kind, bytes)| Contender {
                        name,
                        kind,
                        workload: workload(bytes),
                    })
                    .collect(),
                only: Only::Long,
                ..row(
                    id,
                    title,
                    Unit::Records,
                    workload(0),
                    &[],
                    &[],
                    vec![Goal {
                        text: "10 GiB within 10 % of 512 MiB",
                        check: Check::Ratio {
                            own: LARGE,
                            factor: 0.9,
                            others: vec![here(SMALL)],
                        },
                    }],
                )
            }
        };
    vec![
        long_row(
            "long_append",
            "Append, buffered, 1 KiB, to a log of 10 GiB",
            |bytes| Workload::LongAppend { bytes },
            &[],
        ),
        long_row(
            "long_random",
            "Random read, 1 KiB, in a log of 10 GiB",
            |bytes| Workload::LongRandom { bytes },
            &[
                ("mmap read, 512 MiB", floors::READ_MMAP, 512 << 20),
                ("mmap read, 10 GiB", floors::READ_MMAP, 10 << 30),
            ],
        ),
    ]
}
