//! The page for browsers: its files and the package's, of `www/`, and the browser's wasm module, from inside the binary.

use std::{
    hash::{DefaultHasher, Hasher},
    sync::LazyLock,
};

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const WASM: &str = "application/wasm";

/// Scripts, workers, styles, pictures and requests of this server alone, nothing inline, no frames around it.
/// `wasm-unsafe-eval` lets the page compile the wasm module, and no more than that.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; \
     style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// A file of `www/`, at the path of its name.
macro_rules! file {
    ($name:literal, $content_type:expr) => {
        File::new(
            concat!("/", $name),
            $content_type,
            include_bytes!(concat!("../../www/", $name)),
        )
    };
}

/// The page's files but `/`, each at its own path.
pub(crate) fn router() -> Router {
    FILES.iter().fold(Router::new(), |router, file| {
        router.route(
            file.path,
            get(async |request: HeaderMap| {
                let known = request
                    .get(header::IF_NONE_MATCH)
                    .and_then(|tags| tags.to_str().ok());
                if known.is_some_and(|tags| names(tags, &file.etag)) {
                    (StatusCode::NOT_MODIFIED, headers(file)).into_response()
                } else {
                    file.into_response()
                }
            }),
        )
    })
}

/// The page itself, for `/`, which is also the REST API's path.
pub(crate) fn index() -> Response {
    static INDEX: LazyLock<File> =
        LazyLock::new(|| File::new("/", HTML, include_bytes!("../../www/index.html")));
    let mut response = INDEX.into_response();
    // Only who accepts HTML gets the page here.
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    vec![
        file!("browser.js", JAVASCRIPT),
        file!("dom.js", JAVASCRIPT),
        file!("dump.js", JAVASCRIPT),
        file!("frame.js", JAVASCRIPT),
        file!("latency.js", JAVASCRIPT),
        file!("main.js", JAVASCRIPT),
        file!("panel.js", JAVASCRIPT),
        file!("picture.js", JAVASCRIPT),
        file!("plug.js", JAVASCRIPT),
        file!("records.js", JAVASCRIPT),
        file!("server.js", JAVASCRIPT),
        file!("shipping.js", JAVASCRIPT),
        file!("storage.js", JAVASCRIPT),
        file!("text.js", JAVASCRIPT),
        file!("src/appended.js", JAVASCRIPT),
        file!("src/base.js", JAVASCRIPT),
        file!("src/check.js", JAVASCRIPT),
        file!("src/error.js", JAVASCRIPT),
        file!("src/files.js", JAVASCRIPT),
        file!("src/index.js", JAVASCRIPT),
        file!("src/leader.js", JAVASCRIPT),
        file!("src/open_log.js", JAVASCRIPT),
        file!("src/report.js", JAVASCRIPT),
        file!("src/scope.js", JAVASCRIPT),
        file!("src/ship.js", JAVASCRIPT),
        file!("src/shipment.js", JAVASCRIPT),
        file!("src/sources.js", JAVASCRIPT),
        file!("src/spawn.js", JAVASCRIPT),
        file!("src/tabs.js", JAVASCRIPT),
        file!("src/tar.js", JAVASCRIPT),
        file!("src/wasm.js", JAVASCRIPT),
        file!("src/worker.js", JAVASCRIPT),
        file!("style.css", CSS),
        file!("icon.svg", SVG),
        // What the package's build puts there.
        File::new(
            "/dist/proglog.js",
            JAVASCRIPT,
            crate::browser_js().as_bytes(),
        ),
        File::new("/dist/proglog_bg.wasm", WASM, crate::browser_wasm()),
    ]
});

/// A file of the page.
struct File {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
    /// Names the bytes, so that a browser that has them is not sent them again.
    etag: String,
}

impl File {
    fn new(path: &'static str, content_type: &'static str, bytes: &'static [u8]) -> Self {
        let mut hasher = DefaultHasher::new();
        hasher.write(bytes);
        Self {
            path,
            content_type,
            bytes,
            etag: format!("\"{:016x}\"", hasher.finish()),
        }
    }
}

impl IntoResponse for &'static File {
    fn into_response(self) -> Response {
        let content_type = HeaderValue::from_static(self.content_type);
        (
            headers(self),
            [(header::CONTENT_TYPE, content_type)],
            self.bytes,
        )
            .into_response()
    }
}

/// The headers of every answer about a file, those without its bytes included.
fn headers(file: &File) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut fixed = |name, value| headers.insert(name, HeaderValue::from_static(value));
    // Kept, but asked about each time: another version of the server may have taken over the address.
    fixed(header::CACHE_CONTROL, "no-cache");
    fixed(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    fixed(header::REFERRER_POLICY, "no-referrer");
    if let Ok(etag) = HeaderValue::from_str(&file.etag) {
        headers.insert(header::ETAG, etag);
    }
    headers
}

/// Whether an `If-None-Match` names this tag: as one of a list, or with the mark of a weak one.
fn names(tags: &str, etag: &str) -> bool {
    tags.split(',')
        .map(str::trim)
        .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
}
