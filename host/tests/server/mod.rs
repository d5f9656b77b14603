//! The REST server without sockets.
#![allow(dead_code, reason = "each test crate uses a part of it")]

pub(crate) mod scripted;

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, Request, StatusCode},
};
use proglog::Options;
use proglog_host::{
    Engine, EngineKind, Mode,
    http::{HttpOptions, app},
    open,
};
use serde_json::Value;
use tempfile::{TempDir, tempdir};
use tower::ServiceExt;

use self::scripted::{Failing, Scripted};

/// The server's answers, without sockets.
pub(crate) struct Server {
    pub(crate) app: Router,
    log: Option<(EngineKind, TempDir)>,
    pub(crate) engine: Arc<Box<dyn Engine>>,
    pub(crate) runtime: tokio::runtime::Runtime,
}

impl Server {
    pub(crate) fn new(engine: &str) -> Self {
        Self::with(engine, Options::new(), HttpOptions::for_records(16 << 20))
    }

    pub(crate) fn with(engine: &str, options: Options, http: HttpOptions) -> Self {
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

    pub(crate) fn over(engine: Box<dyn Engine>, log: Option<(EngineKind, TempDir)>) -> Self {
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
    pub(crate) fn scripted() -> (Failing, Self) {
        let failing = Failing::default();
        let engine = Scripted {
            failing: Arc::clone(&failing),
            wait: None,
        };
        (failing, Self::over(Box::new(engine), None))
    }

    /// Closes the log, does something to its directory, and opens it again.
    pub(crate) fn reopened(self, between: impl FnOnce(&std::path::Path)) -> Self {
        let (kind, directory) = self.log.unwrap();
        drop(self.app);
        Arc::into_inner(self.engine).unwrap().close().unwrap();
        between(directory.path());
        let log = open(kind, directory.path(), Mode::Write, Options::new()).unwrap();
        Self::over(log, Some((kind, directory)))
    }

    pub(crate) fn call(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Bytes) {
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

    pub(crate) fn call_json(&self, request: Request<Body>) -> (StatusCode, Value) {
        let (status, _, body) = self.call(request);
        (status, serde_json::from_slice(&body).unwrap())
    }

    pub(crate) fn post(&self, body: &str) -> (StatusCode, Value) {
        self.call_json(request("POST", "/", &[], body))
    }

    pub(crate) fn get(&self, path: &str, body: &str) -> (StatusCode, Value) {
        self.call_json(request("GET", path, &[], body))
    }
}

pub(crate) fn request(
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl AsRef<[u8]>,
) -> Request<Body> {
    let builder = Request::builder().method(method).uri(path);
    let builder = headers.iter().fold(builder, |builder, (name, value)| {
        builder.header(*name, *value)
    });
    builder.body(Body::from(body.as_ref().to_vec())).unwrap()
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(bytes)
}
