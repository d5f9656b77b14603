//! The REST server: its answers, by calling it.
#![cfg(unix)]

mod program;
mod server;

use std::{
    fs,
    sync::{Arc, Mutex, mpsc::channel},
};

use axum::{body::to_bytes, http::StatusCode};
use proglog::{Log, Offset, Options};
use proglog_host::http::HttpOptions;
use program::on_both_engines;
use serde_json::{Value, json};
use server::{
    Server, request,
    scripted::{Failure, Scripted},
};
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
    let (status, _) = server.call_json(request("POST", "/", &announced, body(100)));
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
