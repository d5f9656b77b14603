//! The REST server: its answers by calling it, its connections and its end by sockets.
#![cfg(unix)]

mod program;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Request, StatusCode},
};
use proglog::{
    AppendOptions, Compacted, Compaction, Frames, Location, Log, NewRecord, Offset, Options,
    ProducerLast, Record, Report, Retention, SegmentSummary,
};
use proglog_host::{
    Engine, EngineKind, Error, Mode, Records, Result, Subscription,
    http::{HttpOptions, app, serve},
    open,
};
use program::{Running, failed, on_both_engines, printed, proglog};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};
use tokio::{net::TcpListener, sync::oneshot, task::spawn_blocking};
use tower::ServiceExt;

on_both_engines!(
    the_books_append_and_read,
    reading_past_the_end_is_not_found,
    keys_headers_and_timestamps_travel,
    what_a_producer_posts_again_is_there_once,
    a_record_comes_where_it_is_expected,
    bodies_over_the_limit_are_refused,
    concurrent_appends_get_offsets_of_their_own,
    damage_is_told,
    what_is_not_there_is_gone,
    it_serves_over_sockets,
    a_stop_while_appending_loses_nothing_acknowledged,
    a_stop_lets_a_request_in_flight_finish,
    a_stop_waits_for_no_one_who_left,
    a_second_signal_ends_at_once,
    a_port_that_is_taken_is_told,
    buffered_records_are_synced_in_time,
);

/// The book's `testCommitLog`-like case, by its own words: what was appended is read back.
fn the_books_append_and_read(engine: &str) {
    let server = Server::new(engine);
    for (offset, value) in ["TGV0J3MgR28gIzEK", "TGV0J3MgR28gIzIK", ""]
        .iter()
        .enumerate()
    {
        let produced = server.post(&format!(r#"{{"record": {{"value": "{value}"}}}}"#));
        assert_eq!(produced, (StatusCode::OK, json!({ "offset": offset })));
        let consumed = server.get("/", &format!(r#"{{"offset": {offset}}}"#));
        assert_eq!(consumed.0, StatusCode::OK);
        assert_eq!(consumed.1["record"]["value"], json!(value));
        assert_eq!(consumed.1["record"]["offset"], json!(offset));
        assert_eq!(server.get(&format!("/?offset={offset}"), ""), consumed);
    }
    // The short form of the book's README, and what a Go client sends of the book's Record.
    assert_eq!(
        server.post(r#"{"record":"aGk="}"#).1,
        json!({ "offset": 3 })
    );
    assert_eq!(
        server.post(r#"{"record":{"value":"aGk=","offset":99}}"#).1,
        json!({ "offset": 4 })
    );
    assert_eq!(
        server.get("/?offset=4", "").1["record"]["value"],
        json!("aGk=")
    );
    // Answers end with a newline, as Go's do.
    let (_, headers, body) = server.call(request("GET", "/?offset=3", &[], ""));
    assert_eq!(headers["content-type"], "application/json");
    assert!(body.ends_with(b"}}\n"), "{body:?}");
}

/// The book's `testConsumePastBoundary`.
fn reading_past_the_end_is_not_found(engine: &str) {
    let server = Server::new(engine);
    for (path, body) in [("/?offset=0", ""), ("/", r#"{"offset":0}"#)] {
        let (status, answer) = server.get(path, body);
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(answer["kind"], json!("offset_out_of_range"));
    }
    server.post(r#"{"record":""}"#);
    assert_eq!(server.get("/?offset=0", "").0, StatusCode::OK);
    for offset in ["1", "18446744073709551615"] {
        let (status, answer) = server.get(&format!("/?offset={offset}"), "");
        assert_eq!(status, StatusCode::NOT_FOUND);
        let error = answer["error"].as_str().unwrap();
        assert!(
            error.contains(&format!("offset {offset} is not in the log")),
            "{error}"
        );
    }
}

fn keys_headers_and_timestamps_travel(engine: &str) {
    let server = Server::new(engine);
    let record = json!({
        "value": "/w==", "key": "aw==", "timestamp_ms": 7,
        "headers": [{ "name": "a", "value": "YQ==" }, { "name": "b", "value": "" }],
    });
    assert_eq!(
        server.post(&json!({ "record": record }).to_string()).0,
        StatusCode::OK
    );
    let mut expected = record;
    expected["offset"] = json!(0);
    assert_eq!(
        server.get("/?offset=0", "").1,
        json!({ "record": expected })
    );

    server.post(r#"{"record":{"value":"","timestamp_ms":0}}"#);
    assert_eq!(
        server.get("/?offset=1", "").1,
        json!({ "record": { "value": "", "offset": 1 } })
    );
    server.post(r#"{"record":{"value":""}}"#);
    assert!(server.get("/?offset=2", "").1["record"]["timestamp_ms"].is_u64());
}

fn what_a_producer_posts_again_is_there_once(engine: &str) {
    let server = Server::new(engine);
    let post = |id: &str, sequence: u64| {
        let producer = json!({ "id": id, "sequence": sequence });
        server.post(&json!({ "record": { "value": "", "producer": producer } }).to_string())
    };
    for _ in 0..3 {
        for (sequence, offset) in [(7, 0), (9, 1)] {
            assert_eq!(
                post("/+8=", sequence),
                (StatusCode::OK, json!({ "offset": offset }))
            );
        }
    }
    assert_eq!(
        server.get("/?offset=1", "").1["record"]["producer"],
        json!({ "id": "/+8=", "sequence": 9 })
    );
    let (status, answer) = post("/+8=", 8);
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(answer["kind"], "sequence_conflict");
    assert_eq!(
        (&answer["last_sequence"], &answer["last_offset"]),
        (&json!(9), &json!(1))
    );
    for id in ["_-8", "_-8="] {
        let last = server.get(&format!("/producers/{id}"), "");
        assert_eq!(
            last,
            (StatusCode::OK, json!({ "sequence": 9, "offset": 1 }))
        );
    }
    let (status, answer) = server.get("/producers/YQ", "");
    assert_eq!(
        (status, &answer["kind"]),
        (StatusCode::NOT_FOUND, &json!("producer_not_found"))
    );
    let long = "a".repeat(44);
    for (status, answer) in [
        server.get("/producers/*", ""),
        server.get(&format!("/producers/{long}"), ""),
        post(&long, 1),
    ] {
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    }
    let (status, answer) = post("", 1);
    let error = answer["error"].as_str().unwrap();
    let said = "the `id` of a `producer` has 0 bytes, and is to have 1 to 32";
    assert!(error.contains(said), "{error}");
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(server.get("/healthz", "").1["next_offset"], 2);
}

fn a_record_comes_where_it_is_expected(engine: &str) {
    let server = Server::new(engine);
    let post = |offset: u64| {
        server.post(&json!({ "record": "", "expected_next_offset": offset }).to_string())
    };
    assert_eq!(post(0), (StatusCode::OK, json!({ "offset": 0 })));
    for expected in [0, 2, u64::MAX >> 1] {
        let (status, answer) = post(expected);
        assert_eq!(
            (status, &answer["kind"]),
            (StatusCode::CONFLICT, &json!("conflict"))
        );
        assert_eq!(answer["expected_next_offset"], expected);
        assert_eq!(answer["next_offset"], 1);
    }
    assert_eq!(post(u64::MAX).0, StatusCode::CONFLICT);
    assert_eq!(post(1), (StatusCode::OK, json!({ "offset": 1 })));
    // Sent again, because no answer came, it is where it was, whatever was appended meanwhile.
    let post = |sequence: u64, offset: u64| {
        let record = json!({ "value": "", "producer": { "id": "cA==", "sequence": sequence } });
        server.post(&json!({ "record": record, "expected_next_offset": offset }).to_string())
    };
    for expected in [2, 2, 3, 0] {
        assert_eq!(post(7, expected), (StatusCode::OK, json!({ "offset": 2 })));
    }
    assert_eq!(post(8, 2).0, StatusCode::CONFLICT);
    assert_eq!(post(8, 3), (StatusCode::OK, json!({ "offset": 3 })));
    assert_eq!(post(7, 2), (StatusCode::OK, json!({ "offset": 2 })));
}

fn bodies_over_the_limit_are_refused(engine: &str) {
    let server = Server::with(
        engine,
        Options::new(),
        HttpOptions {
            body_bytes_max: 100,
            ..HttpOptions::for_records(0)
        },
    );
    let body = |bytes: usize| format!("{{\"record\":\"\"{}}}", " ".repeat(bytes - 13));
    assert_eq!(body(100).len(), 100);
    assert_eq!(server.post(&body(100)).0, StatusCode::OK);
    let (status, answer) = server.post(&body(101));
    assert_eq!(
        (status, &answer["kind"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_large"))
    );
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("larger than the 100 bytes"),
        "{answer}"
    );

    // No option raises the limit of a read's.
    let (status, answer) = server.get("/", &" ".repeat(4097));
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let error = answer["error"].as_str().unwrap();
    assert!(
        error.contains("4096 bytes") && !error.contains("--"),
        "{error}"
    );

    // Nothing is read of one that announces more. (Those above announced nothing.)
    let announced = [("content-length", "101")];
    let (status, _) = server.call_json(request("POST", "/", &announced, &body(100)));
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);

    // The log's own limit.
    let options = Options::new().record_bytes_max(100);
    let server = Server::with(engine, options, HttpOptions::for_records(100));
    let (status, answer) = server.post(&format!(r#"{{"record":"{}"}}"#, "A".repeat(200)));
    assert_eq!(
        (status, &answer["kind"]),
        (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_large"))
    );
    assert_eq!(
        server.get("/healthz", "").0,
        StatusCode::OK,
        "nothing is wrong with the log"
    );
}

fn concurrent_appends_get_offsets_of_their_own(engine: &str) {
    let server = Server::new(engine);
    let appends = (0..100).map(|n| {
        let (app, value) = (server.app.clone(), format!("{n:04}"));
        server.runtime.spawn(async move {
            let body = json!({ "record": value }).to_string();
            let answer = app.oneshot(request("POST", "/", &[], &body)).await.unwrap();
            let answer = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            (value, answer["offset"].as_u64().unwrap())
        })
    });
    let appends: Vec<_> = appends.collect();
    let mut offsets = Vec::new();
    for append in appends {
        let (value, offset) = server.runtime.block_on(append).unwrap();
        let read = server.get(&format!("/?offset={offset}"), "").1;
        assert_eq!(read["record"]["value"], json!(value));
        offsets.push(offset);
    }
    offsets.sort_unstable();
    assert!(offsets.into_iter().eq(0..100));
}

fn what_is_not_there_is_gone(engine: &str) {
    let server = Server::new(engine);
    server.post(r#"{"record":"YQ=="}"#);
    let server = server.reopened(|directory| {
        let log = Log::open(directory, Options::new()).unwrap();
        log.skip_to(Offset(5)).unwrap();
        log.close().unwrap();
    });
    let (status, answer) = server.get("/?offset=3", "");
    assert_eq!((status, &answer["kind"]), (StatusCode::GONE, &json!("gap")));
    let told = answer["error"].as_str().unwrap();
    assert!(told.contains("offset 3 was left out"), "{told}");
    assert!(told.contains("go on at 5"), "{told}");
    assert_eq!(
        server.post(r#"{"record":"Yg=="}"#).1,
        json!({ "offset": 5 })
    );
}

fn damage_is_told(engine: &str) {
    let server = Server::new(engine);
    for value in ["YWFhYQ==", "YmJiYg==", "Y2NjYw=="] {
        server.post(&json!({ "record": value }).to_string());
    }
    let server = server.reopened(|directory| {
        let store = directory.join("0.store");
        let mut bytes = fs::read(&store).unwrap();
        let at = bytes
            .windows(4)
            .position(|window| window == b"bbbb")
            .unwrap();
        bytes[at] ^= 1;
        fs::write(store, bytes).unwrap();
    });
    let (status, answer) = server.get("/?offset=1", "");
    assert_eq!(
        (status, &answer["kind"]),
        (StatusCode::INTERNAL_SERVER_ERROR, &json!("corrupt"))
    );
    for sound in [0, 2] {
        assert_eq!(
            server.get(&format!("/?offset={sound}"), "").0,
            StatusCode::OK
        );
    }
    assert_eq!(server.post(r#"{"record":""}"#).1, json!({ "offset": 3 }));
    assert_eq!(server.get("/healthz", "").0, StatusCode::OK);
}

#[test]
fn what_makes_no_sense_is_refused_with_advice() {
    let server = Server::new("native");
    let append = |body: &str| server.call_json(request("POST", "/", &[], body));
    let read = |body: &str| server.call_json(request("GET", "/", &[], body));
    let query = |query: &str| server.call_json(request("GET", &format!("/?{query}"), &[], ""));
    for ((status, answer), said) in [
        (append(""), "the body is empty; send JSON like"),
        (append("record"), "expected value at line 1 column 1"),
        (
            append(r#"{"record":{"value":"aGk"}}"#),
            "not standard base64",
        ),
        (
            append(r#"{"record":{"value":"aGk=","size":2}}"#),
            "unknown field `size`",
        ),
        (append(r#"{"value":"aGk="}"#), "unknown field `value`"),
        (append("\u{0}\u{1}"), "expected value"),
        (read("{}"), "missing field `offset`"),
        (read(r#"{"offset":-1}"#), "a whole number from 0"),
        (read(r#"{"offset":1.0}"#), "a whole number from 0"),
        (read(r#"{"offset":"1"}"#), "a whole number from 0"),
        (read(""), "which record?"),
        (query("offset=x"), "offset=x is none: give a whole number"),
        (query("offset=-1"), "a whole number from 0"),
        (query("from=1"), "unknown query parameter `from`"),
        (
            server.call_json(request("GET", "/?offset=1", &[], r#"{"offset":1}"#)),
            "both the query and the body",
        ),
        (
            server.call_json(request("POST", "/?offset=1", &[], "{}")),
            "an append takes no query",
        ),
    ] {
        assert_eq!(status, StatusCode::BAD_REQUEST, "{said}");
        assert_eq!(answer["kind"], json!("bad_request"));
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(said), "{said}: {error}");
    }
    assert_eq!(
        server.get("/?offset=0", "").0,
        StatusCode::NOT_FOUND,
        "nothing was appended"
    );
    let (status, answer) = server.get("/", &"x".repeat(5000));
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{answer}");
}

#[test]
fn other_paths_and_methods_are_told_apart() {
    let server = Server::new("native");
    for (method, path, expected, allow) in [
        ("GET", "/nothing", 404, ""),
        ("POST", "/nothing", 404, ""),
        ("PUT", "/", 405, "GET,HEAD,POST"),
        ("DELETE", "/", 405, "GET,HEAD,POST"),
        ("OPTIONS", "/", 405, "GET,HEAD,POST"),
        ("POST", "/healthz", 405, "GET,HEAD"),
    ] {
        let (status, headers, body) = server.call(request(method, path, &[], ""));
        assert_eq!(status, expected, "{method} {path}");
        let mut allowed: Vec<_> = headers
            .get("allow")
            .map_or("", |v| v.to_str().unwrap())
            .split(',')
            .collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow, "{method} {path}");
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert!(answer["error"].is_string(), "{answer}");
    }
}

#[test]
fn browsers_get_the_page_and_programs_the_records() {
    let server = Server::new("native");
    server.post(r#"{"record":"aGk="}"#);
    let browser = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    let (status, headers, _) = server.call(request("GET", "/", &[browser], ""));
    assert_eq!(status, StatusCode::OK);
    assert!(
        headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
    for request in [
        request("GET", "/?offset=0", &[browser], ""),
        request("GET", "/", &[browser], r#"{"offset":0}"#),
        request("GET", "/?offset=0", &[], ""),
    ] {
        assert_eq!(
            server.call_json(request).1["record"]["value"],
            json!("aGk=")
        );
    }
    let (status, headers, body) = server.call(request("HEAD", "/?offset=0", &[], ""));
    assert_eq!((status, body.len()), (StatusCode::OK, 0));
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(
        server.call(request("HEAD", "/?offset=1", &[], "")).0,
        StatusCode::NOT_FOUND
    );
}

#[test]
fn all_that_the_page_asks_for_is_there() {
    let server = Server::new("native");
    let html = ("accept", "text/html");
    let (_, _, page) = server.call(request("GET", "/", &[html], ""));
    let mut paths = named_in(str::from_utf8(&page).unwrap(), "/");
    let mut at = 0;
    while let Some(path) = paths.get(at).cloned() {
        at += 1;
        let (status, headers, body) = server.call(request("GET", &path, &[], ""));
        assert_eq!(
            status,
            StatusCode::OK,
            "{path} is asked for, and not in the table of host/src/page.rs"
        );
        if headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/javascript")
        {
            let script = str::from_utf8(&body).unwrap();
            for named in named_in(script, &path) {
                if !paths.contains(&named) {
                    paths.push(named);
                }
            }
        }
    }
    for path in ["/style.css", "/src/worker.js", "/dist/proglog_bg.wasm"] {
        assert!(paths.contains(&path.to_owned()), "{path} of {paths:?}");
    }
}

/// The paths of this site that a file names in its code: what HTML links to, and what a script imports or has the URL of.
fn named_in(file: &str, path: &str) -> Vec<String> {
    let (directory, _) = path.rsplit_once('/').unwrap();
    let lines = file.lines().map(str::trim_start);
    let code = lines.filter(|line| !line.starts_with('*') && !line.starts_with('/'));
    let mut paths = Vec::new();
    for line in code {
        for before in [
            "href=\"",
            "src=\"",
            " from \"",
            "import(\"",
            "new URL(\"",
            "new URL('",
        ] {
            for part in line.split(before).skip(1) {
                let Some((named, rest)) = part.split_once(['"', '\'']) else {
                    continue;
                };
                if before.starts_with("new") && !rest.starts_with(", import.meta.url") {
                    continue;
                }
                let whole = format!("{directory}/{named}");
                let mut segments: Vec<&str> = Vec::new();
                for segment in whole.split('/') {
                    match segment {
                        "" | "." => {}
                        ".." => drop(segments.pop()),
                        _ => segments.push(segment),
                    }
                }
                paths.push(format!("/{}", segments.join("/")));
            }
        }
    }
    paths
}

#[test]
fn pages_of_other_sites_may_not_append() {
    let server = Server::new("native");
    let host = ("host", "127.0.0.1:8080");
    for (headers, expected) in [
        (&[host][..], 200),
        (&[host, ("origin", "http://127.0.0.1:8080")], 200),
        (&[host, ("origin", "http://127.0.0.1:9090")], 403),
        (&[host, ("origin", "https://example.org")], 403),
        (&[host, ("origin", "null")], 403),
        (
            &[
                host,
                ("sec-fetch-site", "same-origin"),
                ("origin", "https://behind.proxy"),
            ],
            200,
        ),
        (&[host, ("sec-fetch-site", "none")], 200),
        (&[host, ("sec-fetch-site", "cross-site")], 403),
        (&[host, ("sec-fetch-site", "same-site")], 403),
    ] {
        let (status, answer) = server.call_json(request("POST", "/", headers, r#"{"record":""}"#));
        assert_eq!(status, expected, "{headers:?} {answer}");
    }
}

#[test]
fn health_tells_offsets_and_failure() {
    let server = Server::new("native");
    server.post(r#"{"record":""}"#);
    let expected =
        json!({ "status": "ok", "lowest_offset": 0, "next_offset": 1, "durable_offset": 1 });
    assert_eq!(server.get("/healthz", ""), (StatusCode::OK, expected));

    let (failing, server) = Server::scripted();
    let poison = || proglog::Error::Poisoned {
        cause: "no space left".to_owned(),
    };
    failing.lock().unwrap().replace(poison);
    let (status, answer) = server.post(r#"{"record":""}"#);
    assert_eq!(
        (status, &answer["kind"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("poisoned"))
    );
    let (status, health) = server.get("/healthz", "");
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health["status"], json!("failed"));
    assert!(
        health["error"].as_str().unwrap().contains("no space left"),
        "{health}"
    );
    // The log was opened again, say.
    failing.lock().unwrap().take();
    assert_eq!(server.post(r#"{"record":""}"#).0, StatusCode::OK);
    assert_eq!(server.get("/healthz", "").0, StatusCode::OK);
}

#[test]
fn each_kind_of_error_has_its_status() {
    let (failing, server) = Server::scripted();
    let errors: [(Failure, u16, &str); 5] = [
        (
            || proglog::Error::Locked {
                directory: String::new(),
            },
            503,
            "locked",
        ),
        (|| proglog::Error::Closed, 503, "closed"),
        (|| proglog::Error::ReadOnly, 500, "read_only"),
        (
            || proglog::Error::InvalidArgument(String::new()),
            400,
            "invalid_argument",
        ),
        (
            || proglog::Error::Io {
                action: "write",
                file: "0.store".to_owned(),
                source: std::io::ErrorKind::StorageFull.into(),
            },
            500,
            "io",
        ),
    ];
    for (error, expected, kind) in errors {
        failing.lock().unwrap().replace(error);
        let (status, answer) = server.post(r#"{"record":""}"#);
        assert_eq!((status.as_u16(), &answer["kind"]), (expected, &json!(kind)));
    }
}

#[test]
fn an_append_that_takes_long_holds_up_no_one() {
    let (go_on, wait) = channel();
    let engine = Scripted {
        failing: Arc::default(),
        wait: Some(Mutex::new(wait)),
    };
    let server = Server::over(Box::new(engine), None);
    let append = server.runtime.spawn({
        let app = server.app.clone();
        async move {
            app.oneshot(request("POST", "/", &[], r#"{"record":""}"#))
                .await
        }
    });
    for _ in 0..100 {
        assert_eq!(server.get("/healthz", "").0, StatusCode::OK);
    }
    assert!(!append.is_finished());
    go_on.send(()).unwrap();
    assert_eq!(
        server.runtime.block_on(append).unwrap().unwrap().status(),
        StatusCode::OK
    );
}

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

fn base64(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}

/// The server's answers, without sockets.
struct Server {
    app: Router,
    log: Option<(EngineKind, TempDir)>,
    engine: Arc<Box<dyn Engine>>,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    fn new(engine: &str) -> Self {
        Self::with(engine, Options::new(), HttpOptions::for_records(16 << 20))
    }

    fn with(engine: &str, options: Options, http: HttpOptions) -> Self {
        let kind = if engine == "wasm" {
            EngineKind::Wasm
        } else {
            EngineKind::Native
        };
        let directory = tempdir().unwrap();
        let log = open(kind, directory.path(), Mode::Write, options).unwrap();
        let mut server = Self::over(log, Some((kind, directory)));
        server.app = app(Arc::clone(&server.engine), http);
        server
    }

    fn over(engine: Box<dyn Engine>, log: Option<(EngineKind, TempDir)>) -> Self {
        let engine = Arc::new(engine);
        let app = app(Arc::clone(&engine), HttpOptions::for_records(1000));
        Self {
            app,
            log,
            engine,
            runtime: tokio::runtime::Runtime::new().unwrap(),
        }
    }

    /// A server whose appends fail as told.
    fn scripted() -> (Failing, Self) {
        let failing = Failing::default();
        let engine = Scripted {
            failing: Arc::clone(&failing),
            wait: None,
        };
        (failing, Self::over(Box::new(engine), None))
    }

    /// Closes the log, does something to its directory, and opens it again.
    fn reopened(self, between: impl FnOnce(&std::path::Path)) -> Self {
        let (kind, directory) = self.log.unwrap();
        drop(self.app);
        Arc::into_inner(self.engine).unwrap().close().unwrap();
        between(directory.path());
        let log = open(kind, directory.path(), Mode::Write, Options::new()).unwrap();
        Self::over(log, Some((kind, directory)))
    }

    fn call(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Bytes) {
        self.runtime.block_on(async {
            let (parts, body) = self
                .app
                .clone()
                .oneshot(request)
                .await
                .unwrap()
                .into_parts();
            (
                parts.status,
                parts.headers,
                to_bytes(body, usize::MAX).await.unwrap(),
            )
        })
    }

    fn call_json(&self, request: Request<Body>) -> (StatusCode, Value) {
        let (status, _, body) = self.call(request);
        (status, serde_json::from_slice(&body).unwrap())
    }

    fn post(&self, body: &str) -> (StatusCode, Value) {
        self.call_json(request("POST", "/", &[], body))
    }

    fn get(&self, path: &str, body: &str) -> (StatusCode, Value) {
        self.call_json(request("GET", path, &[], body))
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path);
    let builder = headers.iter().fold(builder, |builder, (name, value)| {
        builder.header(*name, *value)
    });
    builder.body(Body::from(body.to_owned())).unwrap()
}

type Failure = fn() -> proglog::Error;
type Failing = Arc<Mutex<Option<Failure>>>;

/// An engine of one empty log whose appends fail, or wait, as told.
struct Scripted {
    failing: Failing,
    wait: Option<Mutex<Receiver<()>>>,
}

impl Engine for Scripted {
    fn append_batch(&self, _: &[NewRecord<'_>]) -> Result<Range<Offset>> {
        if let Some(wait) = &self.wait {
            wait.lock().unwrap().recv().unwrap();
        }
        match *self.failing.lock().unwrap() {
            Some(error) => Err(error().into()),
            None => Ok(Offset(0)..Offset(1)),
        }
    }

    fn append_batch_with(
        &self,
        records: &[NewRecord<'_>],
        _: AppendOptions,
    ) -> Result<Range<Offset>> {
        self.append_batch(records)
    }

    fn producer_last(&self, _: &[u8]) -> Result<Option<ProducerLast>> {
        unasked()
    }

    fn lowest_offset(&self) -> Result<Offset> {
        Ok(Offset(0))
    }

    fn next_offset(&self) -> Result<Offset> {
        Ok(Offset(0))
    }

    fn durable_offset(&self) -> Result<Offset> {
        Ok(Offset(0))
    }

    fn read(&self, _: Offset) -> Result<Record> {
        unasked()
    }

    fn read_batch(&self, _: Offset, _: usize) -> Result<Frames> {
        unasked()
    }

    fn scan(&self, _: Offset) -> Records<'_> {
        Box::new(std::iter::once(unasked()))
    }

    fn subscribe(&self, _: Offset) -> Box<dyn Subscription + Send + '_> {
        unimplemented!("not asked for")
    }

    fn truncate_before(&self, _: Offset) -> Result<()> {
        unasked()
    }

    fn truncate_after(&self, _: Offset) -> Result<()> {
        unasked()
    }

    fn reset(&self) -> Result<()> {
        unasked()
    }

    fn skip_to_because(&self, _: Offset, _: proglog::GapCause) -> Result<()> {
        unasked()
    }

    fn compact(&self, _: &Compaction) -> Result<Compacted> {
        unasked()
    }

    fn enforce_retention(&self) -> Result<()> {
        unasked()
    }

    fn enforce_retention_with(&self, _: &Retention, _: Option<u64>) -> Result<()> {
        unasked()
    }

    fn sync(&self) -> Result<()> {
        unasked()
    }

    fn recovery_report(&self) -> Result<Report> {
        unasked()
    }

    fn verify(&self) -> Result<Report> {
        unasked()
    }

    fn segments(&self) -> Result<Vec<SegmentSummary>> {
        unasked()
    }

    fn locate(&self, _: Offset) -> Result<Location> {
        unasked()
    }

    fn refresh(&self) -> Result<()> {
        unasked()
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

fn unasked<T>() -> Result<T> {
    Err(Error::from(proglog::Error::Closed))
}
