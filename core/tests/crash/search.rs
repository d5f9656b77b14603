//! Every stop of many workloads, and every state that it may leave.

use std::{
    env, fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use proglog::{Durability, Fault, FaultBackend};

use crate::{
    check::{How, check},
    held::{Held, Stopped},
    sabotage::{Bug, Disk},
    workload::Workload,
};

/// The sectors of older disks and of newer ones.
const SECTOR_BYTES: [usize; 2] = [512, 4096];

const DURABILITIES: [Durability; 3] = [
    Durability::Synced,
    Durability::Written,
    Durability::Buffered,
];

const FAULTS: [Fault; 3] = [Fault::Half, Fault::Error, Fault::Full];

/// How many workloads were stopped how often, and how many states of the disk that left.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    pub(crate) workloads: u64,
    pub(crate) stops: u64,
    pub(crate) states: u64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.workloads += other.workloads;
        self.stops += other.stops;
        self.states += other.states;
    }
}

/// One state that was found wanting.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) case: Case,
    what: String,
    /// How many states were sound before it.
    pub(crate) states: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n\nTo see it again:\n{}", self.what, self.case)
    }
}

/// A run of a workload up to one stop, and what is looked at then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    workload: Workload,
    bug: Bug,
    durability: Durability,
    sector_bytes: usize,
    /// The operation that fails.
    stop: u64,
    fault: Fault,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The run itself, up to the stop.
    Run,
    Killed,
    PowerCut(usize),
}

/// Tries workloads with every durability and sector size, with this bug in the disk.
pub(crate) fn search(
    workloads: impl Iterator<Item = Workload>,
    bug: Bug,
) -> Result<Stats, Failure> {
    let mut stats = Stats::default();
    for workload in workloads {
        for durability in DURABILITIES {
            for sector_bytes in SECTOR_BYTES {
                let case = Case {
                    workload,
                    bug,
                    durability,
                    sector_bytes,
                    stop: u64::MAX,
                    fault: Fault::Error,
                    state: State::Run,
                };
                let every_stop = case.every_stop(&mut stats);
                every_stop.map_err(|(case, what)| Failure {
                    case,
                    what,
                    states: stats.states,
                })?;
                stats.workloads += 1;
            }
        }
    }
    Ok(stats)
}

impl Case {
    fn every_stop(self, stats: &mut Stats) -> Result<(), (Self, String)> {
        let disk = self.disk();
        self.caught(|| self.run(&disk).map(drop))?;
        for stop in 0..=disk.inner.operations() {
            let faults = match self.workload {
                Workload::Short { .. } => &FAULTS[..1],
                Workload::Seeded(seed) => {
                    let fault = (seed + stop) as usize % FAULTS.len();
                    &FAULTS[fault..=fault]
                }
            };
            for &fault in faults {
                Self {
                    stop,
                    fault,
                    ..self
                }
                .every_state(stats)?;
            }
        }
        Ok(())
    }

    fn every_state(mut self, stats: &mut Stats) -> Result<(), (Self, String)> {
        let disk = self.disk();
        let mut stopped = None;
        self.caught(|| {
            stopped = Some(self.run(&disk)?);
            Ok(())
        })?;
        let Some(stopped) = stopped else {
            return Ok(());
        };
        stats.stops += 1;
        self.state = State::Killed;
        self.caught(|| {
            let chance = self.stop;
            check(&disk.killed(), self.workload, &stopped, How::Killed, chance)
        })?;
        stats.states += 1;
        for (number, state) in disk.power_cuts(self.states_max(), self.stop).enumerate() {
            self.state = State::PowerCut(number);
            let chance = self.stop + number as u64;
            self.caught(|| check(&state, self.workload, &stopped, How::PowerCut, chance))?;
            stats.states += 1;
        }
        Ok(())
    }

    fn disk(self) -> Disk {
        let inner = FaultBackend::with_sector_bytes(self.sector_bytes);
        inner.fail(self.stop, self.fault);
        Disk::new(inner, self.bug, self.workload.prepares())
    }

    fn run(self, disk: &Disk) -> Result<Stopped, String> {
        self.workload.run(disk, Held::default(), self.durability)
    }

    /// How many states are tried after one stop.
    fn states_max(self) -> usize {
        match self.workload {
            Workload::Short { steps: ..=2, .. } => 64,
            Workload::Short { .. } => 4,
            Workload::Seeded(_) => 12,
        }
    }

    /// A panic is a failure like any other.
    fn caught(self, check: impl FnOnce() -> Result<(), String>) -> Result<(), (Self, String)> {
        let done = catch_unwind(AssertUnwindSafe(check)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panicked: {}", text.unwrap_or_default()))
        });
        done.map_err(|what| (self, what))
    }

    /// Looks at the one state that this names.
    fn again(self) -> Result<(), String> {
        let disk = self.disk();
        let stopped = self.run(&disk)?;
        println!("{stopped:?}");
        let (state, how, chance) = match self.state {
            State::Run => return Ok(()),
            State::Killed => (disk.killed(), How::Killed, self.stop),
            State::PowerCut(number) => {
                let state = disk.power_cuts(self.states_max(), self.stop).nth(number);
                let state = state.ok_or("there is no such state")?;
                (state, How::PowerCut, self.stop + number as u64)
            }
        };
        for (name, bytes) in state.files() {
            println!("{name} {}", bytes.len());
        }
        check(&state, self.workload, &stopped, how, chance)
    }
}

/// The case as the environment that replays it.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.workload {
            Workload::Seeded(seed) => write!(f, "PROGLOG_CRASH_SEED={seed}")?,
            Workload::Short { steps, number } => write!(f, "PROGLOG_CRASH_SEED={steps}-{number}")?,
        }
        let Self {
            durability,
            sector_bytes,
            stop,
            fault,
            ..
        } = self;
        write!(
            f,
            " PROGLOG_CRASH_CASE={durability:?}/{sector_bytes}/{stop}/{fault:?}/"
        )?;
        match self.state {
            State::Run => write!(f, "run")?,
            State::Killed => write!(f, "killed")?,
            State::PowerCut(number) => write!(f, "{number}")?,
        }
        if self.bug != Bug::None {
            write!(f, " PROGLOG_CRASH_BUG={:?}", self.bug)?;
        }
        write!(
            f,
            " cargo test -p proglog --test crash -- --exact replay --nocapture"
        )
    }
}

/// Looks again at the state that the environment names, if it names one.
pub(crate) fn replay() -> Result<(), String> {
    let (Ok(seed), Ok(case)) = (
        env::var("PROGLOG_CRASH_SEED"),
        env::var("PROGLOG_CRASH_CASE"),
    ) else {
        return Ok(());
    };
    let bug = env::var("PROGLOG_CRASH_BUG").unwrap_or_default();
    parse(&seed, &case, &bug)
        .ok_or_else(|| format!("{seed}, {case}, {bug} name no case"))?
        .again()
}

fn parse(seed: &str, case: &str, bug: &str) -> Option<Case> {
    let workload = match seed.split_once('-') {
        Some((steps, number)) => Workload::Short {
            steps: steps.parse().ok()?,
            number: number.parse().ok()?,
        },
        None => Workload::Seeded(seed.parse().ok()?),
    };
    let mut parts = case.split('/');
    let mut part = || parts.next();
    Some(Case {
        workload,
        bug: named(Bug::ALL, bug).unwrap_or(Bug::None),
        durability: named(DURABILITIES, part()?)?,
        sector_bytes: part()?.parse().ok()?,
        stop: part()?.parse().ok()?,
        fault: named(FAULTS, part()?)?,
        state: match part()? {
            "run" => State::Run,
            "killed" => State::Killed,
            number => State::PowerCut(number.parse().ok()?),
        },
    })
}

fn named<T: fmt::Debug>(all: impl IntoIterator<Item = T>, name: &str) -> Option<T> {
    all.into_iter().find(|one| format!("{one:?}") == name)
}
