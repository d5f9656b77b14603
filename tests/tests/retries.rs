//! A storm of retries: what is sent once, twice or three times to a server that is killed again and again is there
//! once, at the offset that every answer gave.
//!
//! PROGLOG_RETRIES_RECORDS says how many records, PROGLOG_RETRIES_SEED where the random moments start.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use fastrand::Rng;
use proglog::{Offset, Options};
use proglog_host::{EngineKind, Mode, open};
use proglog_tests::{
    program::{self, Running, durability_beyond_a_kill},
    seeds,
};
use tempfile::TempDir;

const RECORDS: u64 = 1000;
/// Each has a thread that sends its records.
const PRODUCERS: usize = 4;
/// Small segments, so that many kills meet the making of one.
const LIMITS: [&str; 4] = ["--segment-bytes-max", "8K", "--index-bytes-max", "6K"];

#[test]
fn the_wasm_engine_is_sent_records_again() {
    storm("wasm");
}

#[test]
fn the_native_engine_is_sent_records_again() {
    storm("native");
}

fn storm(engine: &str) {
    let records = seeds::variable("RETRIES", "RECORDS").unwrap_or(RECORDS);
    let seed = seeds::first_or_new("RETRIES");
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let directory = TempDir::new().unwrap();
    let server = Mutex::new(Server::start(engine, &directory, &mut rng));
    let counts = Counts::default();
    let each = records / PRODUCERS as u64;
    let acknowledged = thread::scope(|scope| {
        let clients: Vec<_> = (0..PRODUCERS as u64)
            .map(|producer| {
                let (server, counts, rng) = (&server, &counts, rng.fork());
                scope.spawn(move || Client::new(producer, server, counts, rng).send_all(each))
            })
            .collect();
        while clients.iter().any(|client| !client.is_finished()) {
            // In the middle of a request, after some more were answered or not.
            let sent = counts.sent.load(Relaxed) + rng.u64(0..40);
            while counts.sent.load(Relaxed) < sent
                && clients.iter().any(|client| !client.is_finished())
            {
                thread::sleep(Duration::from_micros(100));
            }
            thread::sleep(Duration::from_micros(rng.u64(0..2000)));
            let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
            server.program.kill();
            *server = Server::start(engine, &directory, &mut rng);
            counts.kills.fetch_add(1, Relaxed);
        }
        let clients = clients.into_iter().map(|client| client.join().unwrap());
        clients.collect::<Vec<_>>()
    });
    println!("{counts:?}");
    drop(server);

    let log = open(
        EngineKind::Native,
        directory.path(),
        Mode::Read,
        Options::new(),
    )
    .unwrap();
    assert!(log.verify().unwrap().is_sound());
    let mut next = [0; PRODUCERS];
    for record in log.scan(Offset(0)) {
        let record = record.unwrap();
        let producer = record.producer().expect("all have one");
        let number = u64::from(producer.id[0]);
        let next = &mut next[usize::try_from(number).unwrap()];
        assert_eq!(
            producer.sequence, *next,
            "of producer {number}, once and in order"
        );
        assert_eq!(record.value(), value(number, *next));
        let acknowledged = &acknowledged[usize::try_from(number).unwrap()];
        assert_eq!(acknowledged[next], record.offset());
        *next += 1;
    }
    assert_eq!(next, [each; PRODUCERS]);
    // That it was a storm.
    let [kills, again, unanswered] =
        [&counts.kills, &counts.again, &counts.unanswered].map(|count| count.load(Relaxed));
    assert!(kills >= records / 25, "only {kills} kills");
    assert!(again >= records / 2, "only {again} records were sent again");
    assert!(unanswered >= kills / 2, "only {unanswered} got no answer");
}

/// How often it happened.
#[derive(Debug, Default)]
struct Counts {
    kills: AtomicU64,
    sent: AtomicU64,
    /// That a record was sent again that had been acknowledged.
    again: AtomicU64,
    /// That no answer came, or half of one.
    unanswered: AtomicU64,
}

struct Server {
    program: Running,
    address: SocketAddr,
}

impl Server {
    fn start(engine: &str, directory: &TempDir, rng: &mut Rng) -> Self {
        let mut serve = program::proglog();
        serve.args(["serve", "--listen", "127.0.0.1:0", "--engine", engine]);
        serve.args(["--durability", durability_beyond_a_kill(rng)]);
        serve.args(LIMITS).arg("--dir").arg(directory.path());
        let mut program = Running::start(&mut serve);
        let (_, output, _) = program.pipes();
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).unwrap();
        let address = line
            .split("http://")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        let address = address.unwrap_or_else(|| panic!("it says {line:?}"));
        Self {
            program,
            address: address.parse().unwrap(),
        }
    }
}

/// A producer that sends its records, each until it is acknowledged, and some again.
struct Client<'a> {
    producer: u64,
    server: &'a Mutex<Server>,
    counts: &'a Counts,
    rng: Rng,
    connection: Option<BufReader<TcpStream>>,
    acknowledged: BTreeMap<u64, Offset>,
}

impl<'a> Client<'a> {
    fn new(producer: u64, server: &'a Mutex<Server>, counts: &'a Counts, rng: Rng) -> Self {
        Self {
            producer,
            server,
            counts,
            rng,
            connection: None,
            acknowledged: BTreeMap::new(),
        }
    }

    fn send_all(mut self, records: u64) -> BTreeMap<u64, Offset> {
        for sequence in 0..records {
            self.send(sequence);
            // Some once or twice more, at once or later.
            for _ in 0..self.rng.u8(0..3) {
                let again = sequence.saturating_sub(self.rng.u64(0..16));
                self.send(again);
                self.counts.again.fetch_add(1, Relaxed);
            }
        }
        self.acknowledged
    }

    fn send(&mut self, sequence: u64) {
        let offset = loop {
            match self.try_to_send(sequence) {
                Ok(offset) => break offset,
                Err(_) => {
                    self.connection = None;
                    self.counts.unanswered.fetch_add(1, Relaxed);
                }
            }
        };
        let first = *self.acknowledged.entry(sequence).or_insert(offset);
        assert_eq!(
            offset, first,
            "record {sequence} of producer {}",
            self.producer
        );
    }

    fn try_to_send(&mut self, sequence: u64) -> io::Result<Offset> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => {
                // Waits for a server that is being started.
                let address = self
                    .server
                    .lock()
                    .map_err(|_| io::Error::other("no server"))?
                    .address;
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                self.connection.insert(BufReader::new(stream))
            }
        };
        let value = serde_json::to_string(&STANDARD.encode(value(self.producer, sequence)))?;
        let id = STANDARD.encode([u8::try_from(self.producer).unwrap()]);
        let body = format!(
            r#"{{"record":{{"value":{value},"producer":{{"id":"{id}","sequence":{sequence}}}}}}}"#
        );
        let request = format!(
            "POST / HTTP/1.1\r\nHost: log\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.counts.sent.fetch_add(1, Relaxed);
        connection.get_mut().write_all(request.as_bytes())?;
        let (status, answer) = read_answer(connection)?;
        assert_eq!(status, "HTTP/1.1 200 OK", "record {sequence}: {answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        Ok(Offset(answer["offset"].as_u64().expect("an offset")))
    }
}

/// The first line of an answer, and its body.
fn read_answer(connection: &mut impl BufRead) -> io::Result<(String, String)> {
    let mut line = || {
        let mut line = String::new();
        match connection.read_line(&mut line)? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof)),
            _ => Ok(line.trim_end().to_owned()),
        }
    };
    let status = line()?;
    let mut bytes = 0;
    loop {
        let header = line()?.to_ascii_lowercase();
        if header.is_empty() {
            break;
        }
        if let Some(length) = header.strip_prefix("content-length:") {
            bytes = length.trim().parse().expect("a length");
        }
    }
    let mut body = vec![0; bytes];
    connection.read_exact(&mut body)?;
    Ok((status, String::from_utf8(body).expect("text")))
}

/// What a producer's record holds.
fn value(producer: u64, sequence: u64) -> Vec<u8> {
    let mut rng = Rng::with_seed(producer << 32 | sequence);
    let bytes = rng.usize(0..300);
    (0..bytes).map(|_| rng.u8(..)).collect()
}
