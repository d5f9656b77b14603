//! `kill -9` while eight threads append to one log: what was acknowledged to any of them is there, byte for
//! byte, what was told to be durable is not beyond what is there, and batches are whole.
//!
//! PROGLOG_KILL_THREADS_ROUNDS says how often for each engine, PROGLOG_KILL_THREADS_SEED where the seeds start.

use std::{
    collections::HashMap,
    env, fmt,
    io::{self, BufRead, BufReader, Write},
    ops::Range,
    panic,
    path::Path,
    process::{self, Child, Command, ExitCode, Stdio},
    str::FromStr,
    sync::{
        Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use fastrand::Rng;
use libtest_mimic::{Arguments, Trial};
use proglog::{Clock, Durability, Log, NewRecord, Offset, Options};
use proglog_host::{Engine, EngineKind, Mode, WasmLog, open};
use proglog_tests::seeds;
use tempfile::TempDir;
use twox_hash::XxHash3_64;

const ROUNDS: u64 = 10;
/// After so many a new log is begun.
const ROUNDS_A_LOG: u64 = 5;
const THREADS: u64 = 8;
/// The exit code of a child that found something wrong.
const FAILED: i32 = 3;
/// Tells this program, run again, to be the one that is killed: the engine, the round's seed and the directory.
const CHILD: &str = "PROGLOG_KILL_THREADS_CHILD";

fn main() -> ExitCode {
    if let Ok(child) = env::var(CHILD) {
        append_until_killed(&child);
    }
    let trials = ["native", "wasm"].map(|engine| {
        Trial::test(
            format!("appends_of_threads_are_killed::{engine}"),
            move || {
                kill_again_and_again(engine);
                Ok(())
            },
        )
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

fn kill_again_and_again(engine: &str) {
    let rounds = seeds::variable("KILL_THREADS", "ROUNDS").unwrap_or(ROUNDS);
    let first_seed = seeds::first_or_new("KILL_THREADS");
    let mut directory = TempDir::new().unwrap();
    let mut held = Vec::new();
    let mut acknowledged = 0;
    for round in 0..rounds {
        if round % ROUNDS_A_LOG == 0 {
            directory = TempDir::new().unwrap();
            held.clear();
        }
        let seed = first_seed + round;
        println!(
            "{engine}: round {round}, seed {seed}: the log holds {} records",
            held.len()
        );
        let mut rng = Rng::with_seed(seed);
        let told = append_and_kill(engine, seed, directory.path(), &mut rng);
        acknowledged += told.acknowledged.len();
        check(directory.path(), seed, &mut held, &told, &mut rng);
    }
    println!("{engine}: {rounds} rounds, {acknowledged} appends were acknowledged");
    assert!(acknowledged > 0, "no kill met an append");
}

/// What the child told before it was killed.
#[derive(Default)]
struct Told {
    acknowledged: Vec<Append>,
    durable: u64,
}

/// An append of one record or a batch, and where it went.
#[derive(Clone, Copy, Debug)]
struct Append {
    id: AppendId,
    first: u64,
    checksum: u64,
}

/// Says which append it is, and so what its records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct AppendId {
    seed: u64,
    thread: u64,
    n: u64,
    records: u64,
}

impl AppendId {
    /// Each record's value tells what it is of; the rest is random, mostly short and now and then large.
    fn values(self) -> Vec<Vec<u8>> {
        let mut rng = Rng::with_seed(self.seed ^ self.thread << 56 ^ self.n << 24 ^ self.records);
        let value = |index| {
            let mut value = format!("{self} {index} ").into_bytes();
            let bytes = if rng.u8(0..64) == 0 {
                rng.usize(10_000..90_000)
            } else {
                rng.usize(0..300)
            };
            value.resize_with(value.len() + bytes, || rng.u8(..));
            value
        };
        (0..self.records).map(value).collect()
    }

    /// What a value says that it is of, and the how manieth.
    fn of(value: &[u8]) -> (Self, u64) {
        let numbers: Vec<u64> = value
            .split(|&byte| byte == b' ')
            .take(5)
            .map(number)
            .collect();
        let &[seed, thread, n, records, index] = numbers.as_slice() else {
            panic!("no value of ours: {value:?}");
        };
        let id = Self {
            seed,
            thread,
            n,
            records,
        };
        (id, index)
    }
}

impl fmt::Display for AppendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            thread,
            n,
            records,
        } = self;
        write!(f, "{seed} {thread} {n} {records}")
    }
}

fn number<T: FromStr>(text: &[u8]) -> T {
    let parsed = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    parsed.unwrap_or_else(|| panic!("no number: {:?}", String::from_utf8_lossy(text)))
}

/// How the log of a round is opened. Where it is not `Synced`, each append has a durability of its own if the
/// engine lets it.
fn options_of(seed: u64) -> Options {
    let mut rng = Rng::with_seed(!seed);
    // Small segments, so that many kills meet the making of one.
    let segment_bytes_max = [16 << 10, 200 << 10, 64 << 20][rng.usize(..3)];
    let index_bytes_max = [1200, 8 << 20, 8 << 20][rng.usize(..3)];
    let durability = if rng.u8(0..3) == 0 {
        Durability::Written
    } else {
        Durability::Synced
    };
    Options::new()
        .clock(Clock::NONE)
        .segment_bytes_max(segment_bytes_max)
        .index_bytes_max(index_bytes_max)
        .durability(durability)
}

/// The child: threads append and tell each acknowledgement in a line of its own.
fn append_until_killed(child: &str) -> ! {
    let mut words = child.splitn(3, ' ');
    let mut word = || words.next().expect("three words");
    let (engine, seed, directory) = (word(), number(word().as_bytes()), Path::new(word()));
    let options = options_of(seed);
    let durability = options.durability;
    // A thread that panics ends it all, or no one would hear of it.
    panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        process::exit(FAILED);
    }));
    let log = match engine {
        "native" => Appended::Native(Log::open(directory, options).expect("the log opens")),
        _ => Appended::Wasm(
            WasmLog::open(directory, Mode::Write, options)
                .expect("the log opens")
                .into(),
        ),
    };
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let log = &log;
            scope.spawn(move || {
                append_for_ever(log, seed, thread, durability);
            });
        }
    });
    unreachable!("it is killed")
}

/// The log of the child. An engine's trait has no durability of each append.
enum Appended {
    Native(Log),
    Wasm(Box<WasmLog>),
}

impl Appended {
    /// Gives the first offset, and below which all is durable.
    fn append(&self, values: &[Vec<u8>], durability: Durability) -> (u64, u64) {
        let records = || values.iter().map(NewRecord::new);
        match self {
            Self::Native(log) => {
                let first = match values {
                    [value] => log.append_with(value, durability).unwrap(),
                    _ => log.append_batch_with(records(), durability).unwrap().start,
                };
                (first.0, log.durable_offset().0)
            }
            Self::Wasm(log) => {
                let records: Vec<_> = records().collect();
                let first = log.append_batch(&records).unwrap().start;
                (first.0, log.durable_offset().unwrap().0)
            }
        }
    }
}

fn append_for_ever(log: &Appended, seed: u64, thread: u64, weakest: Durability) {
    let mut rng = Rng::with_seed(seed ^ thread << 48);
    for n in 0.. {
        let records = if rng.u8(0..8) == 0 { rng.u64(2..30) } else { 1 };
        let id = AppendId {
            seed,
            thread,
            n,
            records,
        };
        let values = id.values();
        if let Appended::Native(log) = log
            && rng.u8(0..32) == 0
        {
            log.reserve(rng.u64(0..400_000)).unwrap();
        }
        let durability = match log {
            Appended::Native(_) if weakest == Durability::Written && rng.u8(0..4) == 0 => {
                Durability::Synced
            }
            _ => weakest,
        };
        let (first, durable) = log.append(&values, durability);
        assert!(
            durability != Durability::Synced || durable >= first + records,
            "{id} is at {first} and synced, but all below {durable} is durable"
        );
        let checksum = checksum(&values);
        // One call: lines of threads do not mix, and none is told by halves but the last.
        let line = format!("{id} {first} {checksum} {durable}\n");
        io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}

fn checksum(values: &[Vec<u8>]) -> u64 {
    XxHash3_64::oneshot(&values.concat())
}

/// Runs the child until a random moment, and gives what it told.
fn append_and_kill(engine: &str, seed: u64, directory: &Path, rng: &mut Rng) -> Told {
    let mut child = Command::new(env::current_exe().unwrap());
    child.env(CHILD, format!("{engine} {seed} {}", directory.display()));
    child.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let output = child.stdout.take().unwrap();
    let (acknowledge, first_ack) = channel();
    let told = Mutex::new(Told::default());
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).unwrap() > 0 {
                // Half a line was never told.
                if let Some(line) = line.strip_suffix(b"\n") {
                    told.lock().unwrap().hear(line);
                    let _ = acknowledge.send(());
                }
                line.clear();
            }
        });
        wait(&first_ack, &mut child, rng);
        child.kill().unwrap();
        if child.wait().unwrap().code() == Some(FAILED) {
            fail(&mut child);
        }
    });
    told.into_inner().unwrap()
}

impl Told {
    fn hear(&mut self, line: &[u8]) {
        let numbers: Vec<u64> = line.split(|&byte| byte == b' ').map(number).collect();
        let &[seed, thread, n, records, first, checksum, durable] = numbers.as_slice() else {
            panic!("{}", String::from_utf8_lossy(line));
        };
        let id = AppendId {
            seed,
            thread,
            n,
            records,
        };
        self.acknowledged.push(Append {
            id,
            first,
            checksum,
        });
        self.durable = self.durable.max(durable);
    }
}

/// Waits for a random moment: some time after the start, or after an acknowledgement.
fn wait(first_ack: &Receiver<()>, child: &mut Child, rng: &mut Rng) {
    if rng.u8(0..8) > 0 {
        let _ = first_ack.recv_timeout(Duration::from_secs(60));
    }
    thread::sleep(Duration::from_micros(rng.u64(0..60_000)));
    if child.try_wait().unwrap().is_some() {
        fail(child);
    }
}

fn fail(child: &mut Child) -> ! {
    let told = io::read_to_string(child.stderr.take().unwrap()).unwrap();
    panic!("it ended by itself: {told}");
}

/// Opens what was left with either engine. `held` are the checksums of the records that it has to hold from
/// earlier rounds, and gets those that came.
fn check(directory: &Path, seed: u64, held: &mut Vec<u64>, told: &Told, rng: &mut Rng) {
    let engine = if rng.bool() {
        EngineKind::Wasm
    } else {
        EngineKind::Native
    };
    let options = options_of(rng.u64(..));
    let log = open(engine, directory, Mode::Write, options).unwrap();
    let report = log.recovery_report().unwrap();
    assert!(report.is_sound(), "{report:?}");
    let next = log.next_offset().unwrap().0;
    assert!(
        told.durable <= next,
        "all below {} was told to be durable, and {next} is next",
        told.durable
    );
    let values = read(&*log, 0..next);
    assert!(
        values.len() >= held.len(),
        "{} of {}",
        values.len(),
        held.len()
    );
    for (offset, (value, held)) in values.iter().zip(&*held).enumerate() {
        let found = XxHash3_64::oneshot(value);
        assert_eq!(found, *held, "record {offset}, of an earlier round");
    }
    let new = &values[held.len()..];
    let found = appends(new, held.len() as u64, seed);
    let mut unacknowledged = found.clone();
    for append in &told.acknowledged {
        let Append {
            id,
            first,
            checksum: told,
        } = append;
        assert_eq!(
            found.get(id),
            Some(first),
            "{append:?} was acknowledged; {next} is next, the log held {} before",
            held.len()
        );
        assert_eq!(*told, checksum(&id.values()), "{append:?}");
        unacknowledged.remove(id);
    }
    // Each thread waits for its append before it begins another.
    for thread in 0..THREADS {
        let of_thread = unacknowledged.keys().filter(|id| id.thread == thread);
        assert!(of_thread.count() <= 1, "{unacknowledged:?}");
    }
    held.extend(new.iter().map(|value| XxHash3_64::oneshot(value)));
    assert!(log.verify().unwrap().is_sound());
    log.close().unwrap();
}

/// The values of these records.
fn read(log: &dyn Engine, offsets: Range<u64>) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    let mut at = offsets.start;
    while at < offsets.end {
        for record in log.read_batch(Offset(at), 1 << 20).unwrap() {
            let record = record.unwrap();
            assert_eq!(record.offset(), Offset(at));
            values.push(record.value().to_vec());
            at += 1;
        }
    }
    assert_eq!(at, offsets.end);
    values
}

/// The appends whose records these are, all of each and nothing else, and their first offsets.
fn appends(values: &[Vec<u8>], first: u64, seed: u64) -> HashMap<AppendId, u64> {
    let mut found = HashMap::new();
    let mut next_of: HashMap<u64, u64> = HashMap::new();
    let mut at = 0;
    while at < values.len() {
        let (id, index) = AppendId::of(&values[at]);
        assert_eq!((id.seed, index), (seed, 0), "record {at}: {id}");
        let expected = id.values();
        let batch = &values[at..values.len().min(at + expected.len())];
        assert!(batch == expected, "record {at}: {id}");
        let next = next_of.entry(id.thread).or_default();
        assert_eq!(id.n, *next, "a thread's appends come in order: {id}");
        *next += 1;
        found.insert(id, first + at as u64);
        at += batch.len();
    }
    found
}
