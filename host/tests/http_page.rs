//! The REST server: the page that it gives browsers, and what pages of other sites may do.
#![cfg(unix)]

mod server;

use axum::http::StatusCode;
use serde_json::json;
use server::{Server, request};

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
