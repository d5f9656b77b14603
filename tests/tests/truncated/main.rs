//! Readers beside a writer of another process that does all there is to do: it appends, rolls, syncs, truncates at
//! both ends, begins anew, closes and opens again, and is killed, in tiny segments. Whatever a reader is given was
//! in the log at that time: no damage that is none, no missing log, no mixture, no wrong byte.
//!
//! PROGLOG_TRUNCATED_SECONDS says how long for each pair of engines, PROGLOG_TRUNCATED_SEED where the randomness
//! starts: it gives the writer's operations, though not when they meet the readers'.

mod journal;
mod reader;
mod record;
mod writer;

use std::{
    env,
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use fastrand::Rng;
use libtest_mimic::{Arguments, Trial};
use proglog::{FileAccess, FsBackend, Log, Options};
use proglog_host::{Engine, EngineKind, Mode, Result, open};
use proglog_tests::seeds;
use tempfile::TempDir;

const SECONDS: u64 = 2;
/// Tells this program, run again, to be the writer.
const WRITER: &str = "PROGLOG_TRUNCATED_WRITER";

/// Who writes and who reads. A writer that cuts files in place, or whose reader keeps them open, is another case
/// than one that maps them.
const PAIRS: [(Kind, Kind); 6] = [
    (Kind::Mapped, Kind::Mapped),
    (Kind::Mapped, Kind::Calls),
    (Kind::Mapped, Kind::Wasm),
    (Kind::Calls, Kind::Mapped),
    (Kind::Wasm, Kind::Mapped),
    (Kind::Wasm, Kind::Wasm),
];

/// What runs a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Natively, its files mapped.
    Mapped,
    /// Natively, its files read and written by calls.
    Calls,
    /// In the wasm module.
    Wasm,
}

impl Kind {
    fn open_to_write(self, directory: &Path, options: Options) -> Result<Box<dyn Engine>> {
        Ok(match self {
            Self::Mapped => Box::new(Log::open(directory, options)?),
            Self::Calls => {
                let backend = FsBackend::open(directory)?.file_access(FileAccess::Calls);
                Box::new(Log::open_on(backend, options)?)
            }
            Self::Wasm => open(EngineKind::Wasm, directory, Mode::Write, options)?,
        })
    }
}

fn main() -> ExitCode {
    if let Ok(child) = env::var(WRITER) {
        writer::write_until_killed(&child);
    }
    let trials = PAIRS.map(|(writer, reader)| {
        let name = format!("{reader:?}_readers_beside_a_{writer:?}_writer").to_lowercase();
        Trial::test(name, move || {
            run(writer, reader);
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

fn run(writer: Kind, reader: Kind) {
    let seconds = seeds::variable("TRUNCATED", "SECONDS").unwrap_or(SECONDS);
    let seed = seeds::first_or_new("TRUNCATED");
    println!("{writer:?} and {reader:?}: PROGLOG_TRUNCATED_SEED={seed}");
    let scratch = TempDir::new().unwrap();
    let (directory, journal) = (scratch.path().join("log"), scratch.path().join("journal"));
    let mut rng = Rng::with_seed(seed);
    let ended = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut child = Writer::start(writer, &directory, &journal, rng.u64(..));
    child.wait_until_it_writes(&journal);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (directory, journal, ended, rng) = (&directory, &journal, &ended, rng.fork());
                scope.spawn(move || {
                    let _ended = End(ended);
                    reader::read_until(ended, reader, directory, journal, rng);
                })
            })
            .collect();
        let _ended = End(&ended);
        while Instant::now() < end && !ended.load(SeqCst) {
            thread::sleep(Duration::from_millis(rng.u64(20..600)));
            if rng.bool() {
                child.kill();
                child = Writer::start(writer, &directory, &journal, rng.u64(..));
            }
            child.check_it_runs();
        }
        ended.store(true, SeqCst);
        for reader in readers {
            reader.join().unwrap();
        }
    });
    child.kill();
    let mut journal = journal::Journal::open(&journal);
    println!("{}", journal.read().summary());
}

/// Ends it for all when one ends.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// The process that writes. It is killed when this is dropped.
struct Writer(Child);

impl Writer {
    fn start(kind: Kind, directory: &Path, journal: &Path, seed: u64) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        let (directory, journal) = (directory.to_str().unwrap(), journal.to_str().unwrap());
        command.env(WRITER, format!("{kind:?}\n{seed}\n{directory}\n{journal}"));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn wait_until_it_writes(&mut self, journal: &Path) {
        while !journal.exists() || !journal::Journal::open(journal).read().has_written() {
            self.check_it_runs();
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn check_it_runs(&mut self) {
        let ended = self.0.try_wait().unwrap();
        assert!(ended.is_none(), "the writer ended by itself: {ended:?}");
    }

    fn kill(&mut self) {
        self.check_it_runs();
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
