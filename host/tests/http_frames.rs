//! Records in frames over REST: those of another log shipped to the server, and the server's own.
#![cfg(unix)]

mod program;
mod server;

use std::{
    thread,
    time::{Duration, Instant},
};

use axum::{body::to_bytes, http::StatusCode};
use proglog::{
    Compaction, Gap, GapCause, Header, Log, MemoryBackend, NewRecord, Offset, Options, Record,
};
use proglog_host::http::HttpOptions;
use program::on_both_engines;
use serde_json::{Value, json};
use server::{Server, request};
use tower::ServiceExt;

on_both_engines!(
    what_is_shipped_is_there_once_and_in_order,
    batches_stay_whole,
    records_come_as_they_stand_in_the_stores,
    one_that_the_log_forgot_is_found,
);

const LATE: &str = "source-timestamp-ms";

fn what_is_shipped_is_there_once_and_in_order(engine: &str) {
    let server = serving(engine);
    let source = source();
    source
        .append(
            NewRecord::new(b"\xff\0")
                .key("k")
                .headers(&[Header::new("h", "1")])
                .timestamp_ms(1000)
                .producer("another", 7),
        )
        .unwrap();
    source.append(NewRecord::new("b").timestamp_ms(0)).unwrap();
    let sent = |from| frames(&source, from);
    // The answer got lost, and the sender sends it again, with more.
    for (appended, known) in [(2, 0), (0, 2)] {
        let answer = ship(&server, "_-8", sent(0));
        let expected = json!({ "sequence": 1, "offset": 1, "appended": appended, "known": known });
        assert_eq!(answer, (StatusCode::OK, expected));
    }
    source
        .append(NewRecord::new("c").timestamp_ms(1001))
        .unwrap();
    let answer = ship(&server, "_-8", sent(1));
    let expected = json!({ "sequence": 2, "offset": 2, "appended": 1, "known": 1 });
    assert_eq!(answer, (StatusCode::OK, expected));
    // Nothing is nothing, and tells what is there.
    let expected = json!({ "sequence": 2, "offset": 2, "appended": 0, "known": 0 });
    assert_eq!(ship(&server, "_-8", Vec::new()), (StatusCode::OK, expected));
    assert_eq!(
        ship(&server, "bmV3", Vec::new()).1,
        json!({ "appended": 0, "known": 0 })
    );

    let there = records(&server);
    assert_eq!(there.len(), 3);
    for (n, record) in there.iter().enumerate() {
        let from = source.read(Offset(n as u64)).unwrap();
        assert_eq!(record.value(), from.value());
        assert_eq!(record.key(), from.key());
        let producer = record.producer().unwrap();
        assert_eq!(
            (producer.id, producer.sequence),
            (&b"\xff\xef"[..], n as u64)
        );
    }
    let headers: Vec<_> = there[0].headers().collect();
    assert_eq!(headers, [("h", &b"1"[..]), (LATE, b"1000")]);
    assert_eq!(there[0].timestamp_ms(), Some(1000));
    assert_eq!(there[1].timestamp_ms(), None);
    assert_eq!(there[1].headers().count(), 0);
    // Durable, without a word.
    let health = server.get("/healthz", "").1;
    assert_eq!(health["durable_offset"], json!(3));
}

fn batches_stay_whole(engine: &str) {
    let server = serving(engine);
    let source = source();
    source.append("0").unwrap();
    source.append_batch(["1", "2", "3"]).unwrap();
    source.append("4").unwrap();
    let ends: Vec<usize> = (0..5u64)
        .scan(0, |end, n| {
            *end += source.read(Offset(n)).unwrap().frame().len();
            Some(*end)
        })
        .collect();
    let all = frames(&source, 0);
    // A part of the batch waits for the rest.
    let answer = ship(&server, "YQ", all[..ends[2]].to_vec());
    assert_eq!(answer.1["appended"], json!(1), "{answer:?}");
    let (status, answer) = ship(&server, "YQ", all[ends[0]..ends[2]].to_vec());
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        answer["error"].as_str().unwrap().contains("no whole batch"),
        "{answer}"
    );
    let answer = ship(&server, "YQ", all[ends[0]..].to_vec());
    assert_eq!(answer.1["appended"], json!(4), "{answer:?}");
    let batches: Vec<_> = records(&server)
        .iter()
        .map(|record| (record.batch_remaining(), record.batch_records()))
        .collect();
    assert_eq!(batches, [(0, 0), (2, 0), (1, 0), (0, 3), (0, 0)]);

    // Those that were compacted are no reason to wait, be they at the end of the batch, in it, or all before it.
    let source = Log::open_on(MemoryBackend::new(), Options::new().segment_bytes_max(200)).unwrap();
    let record = |value: &'static str, key: &'static str| NewRecord::new(value).key(key);
    source
        .append_batch([record("5", "a"), record("6", ""), record("7", "b")])
        .unwrap();
    source
        .append_batch([record("8", "a"), record("9", "b"), record("10", "")])
        .unwrap();
    while source.segments().len() < 2 {
        source.append(&[b'x'; 90]).unwrap();
    }
    let compacted = source.compact(&Compaction::new()).unwrap();
    assert_eq!(compacted.records_removed, 2);
    let answer = ship(&server, "Yg", frames(&source, 1));
    assert_eq!(answer.0, StatusCode::OK, "{answer:?}");
    let values: Vec<Vec<u8>> = records(&server)[5..9]
        .iter()
        .map(|record| record.value().to_vec())
        .collect();
    assert_eq!(
        values,
        [b"6".to_vec(), b"8".to_vec(), b"9".to_vec(), b"10".to_vec()]
    );
    let answer = server.get("/producers/Yg", "").1;
    assert_eq!(answer["sequence"], json!(source.next_offset().0 - 1));
}

fn records_come_as_they_stand_in_the_stores(engine: &str) {
    let server = serving(engine);
    let records = |query: &str| {
        let (status, headers, body) = server.call(request(
            "GET",
            &format!("/records?{query}"),
            &[],
            Vec::new(),
        ));
        assert_eq!(status, StatusCode::OK, "{query}");
        assert_eq!(headers["content-type"], "application/octet-stream");
        body
    };
    let began = Instant::now();
    assert!(records("from=0&wait_ms=200").is_empty());
    assert!(began.elapsed() >= Duration::from_millis(200));
    server
        .engine
        .append_batch(&[NewRecord::new("a"), NewRecord::new("b")])
        .unwrap();
    let large = vec![b'x'; 100_000];
    server
        .engine
        .append_batch(&[NewRecord::new(&large)])
        .unwrap();
    let frame = |n| server.engine.read(Offset(n)).unwrap().frame().to_vec();
    let small = [frame(0), frame(1)].concat();
    assert_eq!(records("from=0"), [small.clone(), frame(2)].concat());
    assert_eq!(records("bytes_max=1000&from=0"), small);
    assert_eq!(records("from=1&bytes_max=0"), frame(1));
    assert_eq!(records("from=2&bytes_max=1000&wait_ms=9999999"), frame(2));
    assert!(records("from=3").is_empty());
    // Who waits is woken.
    let waits = server.app.clone().oneshot(request(
        "GET",
        "/records?from=3&wait_ms=5000",
        &[],
        Vec::new(),
    ));
    let waits = server.runtime.spawn(waits);
    thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    server.engine.append_batch(&[NewRecord::new("c")]).unwrap();
    let answer = server.runtime.block_on(waits).unwrap().unwrap();
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let body = server
        .runtime
        .block_on(to_bytes(answer.into_body(), usize::MAX))
        .unwrap();
    assert_eq!(body, frame(3));

    for (query, status, said) in [
        ("from=5", 404, "offset 5 is not in the log"),
        ("from=5&wait_ms=100", 404, "offset 5 is not in the log"),
        ("", 400, "from which record on?"),
        ("from=x", 400, "from=x is none: give a whole number"),
        ("from=1&from=1", 400, "more than one `from`"),
        (
            "from=1&until=2",
            400,
            "expected `from`, `bytes_max`, `wait_ms`",
        ),
    ] {
        let (found, answer) = server.get(&format!("/records?{query}"), "");
        assert_eq!(found, status, "{query}: {answer}");
        assert!(
            answer["error"].as_str().unwrap().contains(said),
            "{query}: {answer}"
        );
    }
}

fn one_that_the_log_forgot_is_found(engine: &str) {
    let server = serving(engine);
    let source = source();
    source.append_batch(["a", "b"]).unwrap();
    assert_eq!(ship(&server, "YQ", frames(&source, 0)).0, StatusCode::OK);
    for n in 0..1024_u32 {
        let id = n.to_be_bytes();
        let record = NewRecord::new("").producer(&id, 1);
        server.engine.append_batch(&[record]).unwrap();
    }
    assert_eq!(server.get("/producers/YQ", "").0, StatusCode::NOT_FOUND);
    assert_eq!(
        server.get("/producers/YQ?search=log", ""),
        (StatusCode::OK, json!({ "sequence": 1, "offset": 1 }))
    );
    assert_eq!(
        server.get("/producers/Yg?search=log", "").0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        server.get("/producers/YQ?search=", "").0,
        StatusCode::BAD_REQUEST
    );
}

#[test]
fn what_makes_no_sense_changes_nothing() {
    let server = serving("native");
    let source = source();
    source.append("a").unwrap();
    source.append("b").unwrap();
    let all = frames(&source, 0);
    let first = source.read(Offset(0)).unwrap().frame().len();
    let twice = [&all[..], &all[..first]].concat();
    let huge = [&[0xff; 8], &all[..]].concat();
    let none = Gap::of(Offset(2)..=Offset(9), GapCause::Skipped)
        .unwrap()
        .to_frame();
    let back = [&all[..], &none[..], &all[first..]].concat();
    for (body, said) in [
        (all[..all.len() - 1].to_vec(), "ends within a frame"),
        (all[..7].to_vec(), "ends within a frame"),
        (huge, "ends within a frame"),
        (twice, "offset 0 does not come after"),
        (back, "offset 1 does not come after"),
        (none, "no whole batch"),
    ] {
        let (status, answer) = ship(&server, "YQ", body);
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(
            answer["error"].as_str().unwrap().contains(said),
            "{said}: {answer}"
        );
    }
    // Every flipped bit is found, but where it makes of the frames others that are right.
    for bit in 0..8 * all.len() {
        let mut flipped = all.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let (status, answer) = ship(&server, "YQ", flipped);
        assert_eq!(status, StatusCode::BAD_REQUEST, "bit {bit}: {answer}");
    }
    for id in ["", "*", &"a".repeat(44)] {
        let (status, _) = ship(&server, id, all.clone());
        assert!(status.is_client_error(), "{id}");
    }
    assert_eq!(records(&server).len(), 0);
}

#[test]
fn pages_of_other_origins_may_where_it_is_allowed() {
    let mut options = HttpOptions::for_records(1000);
    let closed = with("native", options.clone());
    options.allowed_origins = vec!["https://app.example".parse().unwrap()];
    let open = with("native", options);
    let asks = |server: &Server, origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type"),
        ];
        server.call(request(
            "OPTIONS",
            "/producers/YQ/records",
            &headers,
            Vec::new(),
        ))
    };
    let allowed = "access-control-allow-origin";
    let (status, headers, _) = asks(&open, "https://app.example");
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[allowed], "https://app.example");
    assert_eq!(headers["access-control-allow-headers"], "content-type");
    for (server, origin) in [
        (&open, "https://evil.example"),
        (&closed, "https://app.example"),
    ] {
        assert!(!asks(server, origin).1.contains_key(allowed), "{origin}");
    }
    let posts = |server: &Server, path: &str, origin: &str| {
        let headers = [("origin", origin), ("sec-fetch-site", "cross-site")];
        server.call(request("POST", path, &headers, br#"{"record":""}"#))
    };
    let (status, headers, _) = posts(&open, "/", "https://app.example");
    assert_eq!(status, StatusCode::OK);
    assert_eq!(headers[allowed], "https://app.example");
    for path in ["/", "/producers/YQ/records"] {
        for (server, origin) in [
            (&open, "https://evil.example"),
            (&closed, "https://app.example"),
        ] {
            assert_eq!(
                posts(server, path, origin).0,
                StatusCode::FORBIDDEN,
                "{path} {origin}"
            );
        }
    }
}

fn source() -> Log<MemoryBackend> {
    Log::open_on(MemoryBackend::new(), Options::new()).unwrap()
}

/// All that there is from an offset on, as it stands in the stores.
fn frames(log: &Log<MemoryBackend>, from: u64) -> Vec<u8> {
    let (mut frames, mut from) = (Vec::new(), Offset(from));
    while from < log.next_offset() {
        let batch = log.read_batch(from, 1 << 20).unwrap();
        frames.extend_from_slice(batch.as_bytes());
        from = batch.last().unwrap().unwrap().offset().next();
    }
    frames
}

fn serving(engine: &str) -> Server {
    with(engine, HttpOptions::for_records(1 << 20))
}

fn with(engine: &str, http: HttpOptions) -> Server {
    Server::with(engine, Options::new(), http)
}

fn ship(server: &Server, id: &str, frames: Vec<u8>) -> (StatusCode, Value) {
    let path = format!("/producers/{id}/records");
    server.call_json(request("POST", &path, &[], frames))
}

fn records(server: &Server) -> Vec<Record> {
    server.engine.scan(Offset(0)).map(Result::unwrap).collect()
}
