//! `kill -9` in the middle of `proglog append`, at random moments: what was acknowledged is there with its
//! bytes, and nothing else but what comes next in the input.
//!
//! PROGLOG_KILL_ROUNDS says how often, PROGLOG_KILL_SEED where the random moments start.

use std::{
    io::{self, BufRead, BufReader, Write},
    process::{ChildStdin, ChildStdout},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::Duration,
};

use fastrand::Rng;
use proglog::{Clock, NewRecord, Offset, Options};
use proglog_host::{Engine, EngineKind, Mode, open};
use proglog_tests::{
    program::{self, Running, durability_beyond_a_kill},
    seeds,
    subject::files_in,
};
use tempfile::TempDir;

const ROUNDS: u64 = 50;
/// Small segments, so that many kills meet the making of one.
const LIMITS: [&str; 4] = ["--segment-bytes-max", "100K", "--index-bytes-max", "6K"];

#[test]
fn appends_of_the_wasm_engine_are_killed() {
    kill_again_and_again("wasm");
}

#[test]
fn appends_of_the_native_engine_are_killed() {
    kill_again_and_again("native");
}

fn kill_again_and_again(engine: &str) {
    let rounds = seeds::variable("KILL", "ROUNDS").unwrap_or(ROUNDS);
    let first_seed = seeds::first_or_new("KILL");
    let directory = TempDir::new().unwrap();
    let mut held = 0;
    let mut killed_while_appending = 0;
    for round in 0..rounds {
        let seed = first_seed + round;
        println!("round {round}, seed {seed}: the log holds {held} records");
        let mut rng = Rng::with_seed(seed);
        let found = Killed::append_and_kill(engine, &directory, held, &mut rng);
        killed_while_appending += u64::from(found.acknowledged > held);
        held = check(&directory, held, &found, &mut rng);
    }
    check_all(&directory, held);
    let directory = directory.path().to_str().unwrap();
    let after = program::run(["tail", directory, "-n", "1", "--engine", engine]);
    assert_eq!(after.stdout, line(held - 1));
    assert!(
        killed_while_appending * 4 > rounds,
        "only {killed_while_appending} of {rounds} kills met an append"
    );
}

/// What is known of an append that was killed.
struct Killed {
    /// All offsets below it were acknowledged.
    acknowledged: u64,
    /// All lines from this one on were never given to it.
    fed: u64,
}

impl Killed {
    fn append_and_kill(engine: &str, directory: &TempDir, first: u64, rng: &mut Rng) -> Self {
        let mut append = program::proglog();
        append.args(["append", "--acks", "--timestamp-ms", "0"]);
        append.args(["--durability", durability_beyond_a_kill(rng)]);
        append.args(["--engine", engine]).args(LIMITS);
        let mut append = Running::start(append.arg(directory.path()));
        let (input, output, mut errors) = append.pipes();
        let fed = Arc::new(AtomicU64::new(first));
        let feeder = feed(input, Arc::clone(&fed), first, rng.fork());
        let (reader, acknowledged) = listen(output, first);
        let first_ack = wait(&acknowledged, rng);
        if let Some(status) = append.ended() {
            let told = io::read_to_string(&mut errors).unwrap();
            panic!("it ended by itself: {status}, {told}");
        }
        append.kill();
        feeder.join().unwrap();
        reader.join().unwrap();
        let acknowledged = acknowledged.iter().last().or(first_ack).unwrap_or(first);
        Self {
            acknowledged,
            fed: fed.load(Ordering::SeqCst),
        }
    }
}

/// Waits for a random moment: some time after the start, or after an acknowledgement.
fn wait(acknowledged: &Receiver<u64>, rng: &mut Rng) -> Option<u64> {
    let moment = Duration::from_micros(rng.u64(0..60_000));
    let first_ack = match rng.u8(0..4) {
        0 => None,
        _ => acknowledged.recv().ok(),
    };
    thread::sleep(moment);
    first_ack
}

/// Gives it lines for ever, in pieces of random length.
fn feed(
    mut input: ChildStdin,
    fed: Arc<AtomicU64>,
    first: u64,
    mut rng: Rng,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut next = first;
        loop {
            let many = rng.u8(0..8) == 0;
            let lines = rng.u64(1..if many { 3000 } else { 20 });
            let piece: Vec<u8> = (next..next + lines).flat_map(line).collect();
            next += lines;
            // Counted first: a part of the piece may arrive.
            fed.store(next, Ordering::SeqCst);
            if input.write_all(&piece).is_err() {
                return;
            }
            if rng.u8(0..8) == 0 {
                thread::sleep(Duration::from_millis(rng.u64(0..30)));
            }
        }
    })
}

/// Hears its acknowledgements: each is the offset after the last that was acknowledged.
fn listen(output: ChildStdout, first: u64) -> (thread::JoinHandle<()>, Receiver<u64>) {
    let (acknowledge, acknowledged) = channel();
    let listener = thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut ack = String::new();
        let mut before = first;
        while output.read_line(&mut ack).unwrap() > 0 {
            // Half a line was never told.
            if let Some(last) = ack.strip_suffix('\n') {
                let next = last.parse::<u64>().unwrap() + 1;
                assert!(
                    next > before,
                    "acknowledgements go up: {before}, then {next}"
                );
                before = next;
                acknowledge.send(next).unwrap();
            }
            ack.clear();
        }
    });
    (listener, acknowledged)
}

/// Opens what was left and returns how many records it holds.
fn check(directory: &TempDir, held: u64, killed: &Killed, rng: &mut Rng) -> u64 {
    // As it was left, untouched; unless it was killed before there was a log.
    let verify = if rng.bool() { "wasm" } else { "native" };
    if held > 0
        || files_in(directory.path())
            .keys()
            .any(|name| name.ends_with(".store"))
    {
        program::run([
            "verify",
            directory.path().to_str().unwrap(),
            "--engine",
            verify,
        ]);
    }

    let engine = if rng.bool() {
        EngineKind::Wasm
    } else {
        EngineKind::Native
    };
    let log = open(engine, directory.path(), Mode::Write, options()).unwrap();
    let report = log.recovery_report().unwrap();
    assert!(report.is_sound(), "{report:?}");
    let next = log.next_offset().unwrap().0;
    let Killed { acknowledged, fed } = killed;
    assert!(
        next >= *acknowledged,
        "offsets below {acknowledged} were acknowledged, those below {next} are there"
    );
    assert!(
        next <= *fed,
        "there are records of which no line was given: {next} of {fed}"
    );
    check_lines(&*log, held..next);
    // Appends go on.
    let offsets = log
        .append_batch(&[NewRecord::new(value(&line(next)))])
        .unwrap();
    assert_eq!(offsets.start, Offset(next));
    log.close().unwrap();
    next + 1
}

fn check_all(directory: &TempDir, held: u64) {
    let log = open(EngineKind::Native, directory.path(), Mode::Read, options()).unwrap();
    assert_eq!(log.next_offset().unwrap(), Offset(held));
    check_lines(&*log, 0..held);
    assert!(log.verify().unwrap().is_sound());
}

fn check_lines(log: &dyn Engine, offsets: std::ops::Range<u64>) {
    let mut at = offsets.start;
    while at < offsets.end {
        for record in log.read_batch(Offset(at), 1 << 20).unwrap() {
            let record = record.unwrap();
            assert_eq!(record.offset(), Offset(at));
            assert_eq!(record.value(), value(&line(at)), "record {at}");
            at += 1;
        }
    }
    assert_eq!(at, offsets.end);
}

/// Line `n` of the input, which becomes record `n`.
fn line(n: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(n);
    let mut line = n.to_string().into_bytes();
    line.resize(line.len() + rng.usize(0..120), rng.alphanumeric() as u8);
    line.push(b'\n');
    line
}

fn value(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap()
}

fn options() -> Options {
    Options::new().clock(Clock::NONE)
}
