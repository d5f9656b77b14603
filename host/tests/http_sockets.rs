//! The REST server: its connections and its end, by sockets.
#![cfg(unix)]

mod program;
mod server;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use proglog_host::http::serve;
use program::{Running, failed, on_both_engines, printed, proglog};
use rustix::process::Signal;
use serde_json::{Value, json};
use server::{Server, base64};
use tempfile::{TempDir, tempdir};
use tokio::{net::TcpListener, sync::oneshot, task::spawn_blocking};

on_both_engines!(
    it_serves_over_sockets,
    a_stop_while_appending_loses_nothing_acknowledged,
    a_stop_lets_a_request_in_flight_finish,
    a_stop_waits_for_no_one_who_left,
    a_second_signal_ends_at_once,
    a_port_that_is_taken_is_told,
    buffered_records_are_synced_in_time,
);

#[test]
fn a_stop_does_not_wait_for_ever() {
    let server = Server::new("native");
    let app = server.app.clone();
    server.runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { drop(stopped.await) };
        let serving = tokio::spawn(serve(listener, app, stopped, Duration::from_millis(50)));
        let request = spawn_blocking(move || begin_append(&url));
        let mut request = request.await.unwrap();
        drop(stop);
        assert!(!serving.await.unwrap(), "a request was cut off");
        let end = spawn_blocking(move || request.read(&mut [0]).map_err(|error| error.kind()));
        assert!(matches!(
            end.await.unwrap(),
            Ok(0) | Err(ErrorKind::ConnectionReset)
        ));
    });
}

fn it_serves_over_sockets(engine: &str) {
    let log = tempdir().unwrap();
    let (served, url) = start(engine, &log, &["--body-bytes-max", "1M"]);
    let agent = agent();
    // As the book's curl: a form's content type, a GET with a body.
    let produce = agent
        .post(&url)
        .content_type("application/x-www-form-urlencoded");
    let mut produced = produce
        .send(r#"{"record":{"value":"TGV0J3MgR28gIzEK"}}"#)
        .unwrap();
    assert_eq!(
        produced.body_mut().read_to_string().unwrap(),
        "{\"offset\":0}\n"
    );
    let mut consumed = agent
        .get(&url)
        .force_send_body()
        .send(r#"{"offset":0}"#)
        .unwrap();
    let consumed: Value =
        serde_json::from_str(&consumed.body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!(consumed["record"]["value"], json!("TGV0J3MgR28gIzEK"));
    assert_eq!(
        agent
            .get(format!("{url}/?offset=1"))
            .call()
            .unwrap()
            .status(),
        404
    );

    // Clients that first send it all and then listen get the answer about a body that is too large,
    // whether they announced its length or send it in chunks.
    for head in ["Content-Length: 3000000", "Transfer-Encoding: chunked"] {
        let mut stream = connect(&url);
        write!(
            stream,
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n\r\n"
        )
        .unwrap();
        let chunked = head.starts_with("Transfer");
        for _ in 0..30 {
            let part = [b'x'; 100_000];
            if chunked {
                stream.write_all(b"186a0\r\n").unwrap();
            }
            stream.write_all(&part).unwrap();
            if chunked {
                stream.write_all(b"\r\n").unwrap();
            }
        }
        if chunked {
            stream.write_all(b"0\r\n\r\n").unwrap();
        }
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{head}: {answer}");
    }
    // One that asks first is told before it sends.
    let mut stream = connect(&url);
    let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n";
    write!(stream, "{head}Content-Length: 3000000\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");

    // A client that leaves in the middle of its body appends nothing.
    let mut stream = connect(&url);
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{{\"rec"
    )
    .unwrap();
    stream.shutdown(Shutdown::Both).unwrap();

    served.signal(Signal::TERM);
    assert_eq!(served.end(), (Some(0), String::new(), String::new()));
    let read = proglog(engine, "tail", &[&log.path(), &"--from", &"0"]);
    assert_eq!(printed(read, b""), b"Let's Go #1\n\n");
}

fn a_stop_while_appending_loses_nothing_acknowledged(engine: &str) {
    let log = tempdir().unwrap();
    let (served, url) = start(engine, &log, &[]);
    let enough = AtomicBool::new(false);
    let acknowledged = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|client| {
                let (url, enough) = (&url, &enough);
                scope.spawn(move || append_until_refused(url, client, enough))
            })
            .collect();
        while !enough.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        served.signal(Signal::TERM);
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect::<Vec<_>>()
    });
    assert_eq!(served.end(), (Some(0), String::new(), String::new()));
    assert!(acknowledged.len() > 50);

    let text = printed(
        proglog(engine, "tail", &[&log.path(), &"--from", &"0"]),
        b"",
    );
    let records: Vec<_> = text.split(|&byte| byte == b'\n').collect();
    for (offset, value) in acknowledged {
        assert_eq!(records[offset], value.as_bytes(), "record {offset}");
    }
    let info = printed(proglog(engine, "info", &[&log.path(), &"--json"]), b"");
    let info: Value = serde_json::from_slice(&info).unwrap();
    assert_eq!(info["needs_recovery"], json!(false));
    assert_eq!(
        info["index_bytes"].as_u64().unwrap(),
        12 * info["next_offset"].as_u64().unwrap()
    );
}

/// Appends until that fails, and returns what was acknowledged. Says when there is enough.
fn append_until_refused(url: &str, client: usize, enough: &AtomicBool) -> Vec<(usize, String)> {
    let agent = agent();
    let mut acknowledged = Vec::new();
    for n in 0.. {
        // Of letters and digits, four at a time, so that it is base64 of something without newlines.
        let value = format!("client/{client}/record/{n:08}");
        let body = json!({ "record": base64(value.as_bytes()) }).to_string();
        let Ok(mut answer) = agent.post(url).send(body) else {
            break;
        };
        let Ok(text) = answer.body_mut().read_to_string() else {
            break;
        };
        assert_eq!(answer.status(), 200, "{text}");
        let offset = serde_json::from_str::<Value>(&text).unwrap()["offset"]
            .as_u64()
            .unwrap();
        acknowledged.push((usize::try_from(offset).unwrap(), value));
        if n == 20 {
            enough.store(true, Ordering::Relaxed);
        }
    }
    acknowledged
}

fn a_stop_lets_a_request_in_flight_finish(engine: &str) {
    let log = tempdir().unwrap();
    let (served, url) = start(engine, &log, &[]);
    // Accepted before the other, which is known to be.
    let mut idle = connect(&url);
    let mut request = begin_append(&url);
    served.signal(Signal::TERM);
    wait_until(|| TcpStream::connect(address(&url)).is_err());
    // The one that waits for nothing is closed, the other is served.
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    write!(request, "}}").unwrap();
    let mut answer = String::new();
    request.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("{\"offset\":0}\n"), "{answer}");
    assert_eq!(served.end().0, Some(0));
    assert_eq!(
        printed(proglog(engine, "read", &[&log.path(), &"0"]), b""),
        b"hi\n"
    );
}

fn a_stop_waits_for_no_one_who_left(engine: &str) {
    let log = tempdir().unwrap();
    let (served, url) = start(engine, &log, &[]);
    let mut follower = TcpStream::connect(address(&url)).unwrap();
    follower
        .write_all(b"GET /records?from=0&wait_ms=5000 HTTP/1.1\r\nhost: test\r\n\r\n")
        .unwrap();
    // So that it waits when its client leaves.
    thread::sleep(Duration::from_millis(300));
    drop(follower);
    let stopped = Instant::now();
    served.signal(Signal::TERM);
    assert_eq!(served.end().0, Some(0));
    let took = stopped.elapsed();
    assert!(took < Duration::from_secs(3), "it took {took:?}");
}

fn a_second_signal_ends_at_once(engine: &str) {
    let log = tempdir().unwrap();
    let (served, url) = start(engine, &log, &[]);
    let _request = begin_append(&url);
    served.signal(Signal::TERM);
    wait_until(|| TcpStream::connect(address(&url)).is_err());
    served.signal(Signal::INT);
    assert_eq!(served.end().0, Some(130));
    printed(proglog(engine, "verify", &[&log.path()]), b"");
}

fn buffered_records_are_synced_in_time(engine: &str) {
    let log = tempdir().unwrap();
    let options = ["--durability", "buffered", "--sync-interval-ms", "20"];
    let (served, url) = start(engine, &log, &options);
    let posted = agent().post(&url).send(r#"{"record":"aGk="}"#).unwrap();
    assert_eq!(posted.status(), StatusCode::OK);
    let started = Instant::now();
    wait_until(|| {
        assert!(started.elapsed() < Duration::from_secs(30), "not synced");
        let health = agent().get(format!("{url}/healthz")).call();
        let health = health.unwrap().body_mut().read_to_string().unwrap();
        health.contains(r#""durable_offset":1"#)
    });
    served.signal(Signal::TERM);
    assert_eq!(served.end().0, Some(0));
}

fn a_port_that_is_taken_is_told(engine: &str) {
    let (first, second) = (tempdir().unwrap(), tempdir().unwrap());
    let (_served, url) = start(engine, &first, &[]);
    let taken = address(&url);
    let (exit, error) = failed(
        proglog(
            engine,
            "serve",
            &[&"--dir", &second.path(), &"--listen", &taken],
        ),
        b"",
    );
    assert_eq!(exit, 4);
    assert!(
        error.starts_with(&format!("proglog: could not listen at {taken}: ")),
        "{error}"
    );
    assert!(
        fs::read_dir(second.path()).unwrap().next().is_none(),
        "it did not touch the log"
    );
    // And a log that is taken.
    let listen: [&dyn AsRef<std::ffi::OsStr>; 4] =
        [&"--dir", &first.path(), &"--listen", &"127.0.0.1:0"];
    let (exit, error) = failed(proglog(engine, "serve", &listen), b"");
    assert_eq!(exit, 5, "{error}");
}

/// Starts the program on a port of its choice, and returns its URL.
fn start(engine: &str, log: &TempDir, args: &[&str]) -> (Running, String) {
    let mut command = proglog(engine, "serve", &[&"--dir", &log.path()]);
    command.args(["--listen", "127.0.0.1:0"]).args(args);
    let mut served = Running::start(command);
    let line = served.line();
    let url = line
        .split_whitespace()
        .find(|word| word.starts_with("http://"));
    let url = url
        .unwrap_or_else(|| panic!("no URL in {line:?}"))
        .to_owned();
    (served, url)
}

fn address(url: &str) -> String {
    url.strip_prefix("http://").unwrap().to_owned()
}

fn connect(url: &str) -> TcpStream {
    let stream = TcpStream::connect(address(url)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
}

/// Sends an append without its last byte, and returns once the server is reading the body.
fn begin_append(url: &str) -> TcpStream {
    let mut stream = connect(url);
    let body = r#"{"record":"aGk=""#;
    let head = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue";
    write!(
        stream,
        "{head}\r\nContent-Length: {}\r\n\r\n",
        body.len() + 1
    )
    .unwrap();
    let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut told = [0; 25];
    stream.read_exact(&mut told).unwrap();
    assert_eq!(&told, go_on);
    write!(stream, "{body}").unwrap();
    stream
}

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::sleep(Duration::from_millis(5));
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config
        .timeout_global(Some(Duration::from_secs(60)))
        .build()
        .into()
}
