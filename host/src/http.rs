//! The REST server: the book's API at `/`, and the page for browsers.
//!
//! | request | answer |
//! |---|---|
//! | `POST /` `{"record":{"value":"<base64>"}}` or `{"record":"<base64>"}` | `{"offset":N}`, once the record is as durable as the log promises |
//! | the same with `"expected_next_offset":N` beside `record` | likewise, if the record gets the offset N |
//! | `GET /producers/{id}` | `{"sequence":N,"offset":N}`, the last record of a producer that the log remembers |
//! | `GET /producers/{id}?search=log` | likewise, and where the log does not remember it, all of it is looked through |
//! | `POST /producers/{id}/records`, frames | `{"sequence":N,"offset":N,"appended":N,"known":N}`: see "Shipping" below |
//! | `GET /` with the body `{"offset":N}`, or `GET /?offset=N` | `{"record":{"value":"<base64>","offset":N}}` |
//! | `GET /records?from=N` | the frames of records from the offset N on, as they stand in the stores; see "Records" below |
//! | `GET /healthz` | `{"status":"ok","lowest_offset":…,"next_offset":…,"durable_offset":…}` |
//! | `GET /` from a browser (`Accept: text/html`, no body, no query) | the page |
//!
//! A posted record may also have `key` (base64), `headers` (`[{"name":"…","value":"<base64>"}]`),
//! `timestamp_ms` (0 for none) and `producer` (`{"id":"<base64>","sequence":N}`): such a record is appended once,
//! however often it is posted, as [`proglog::Log::append`] describes; the id has 1 to 32 bytes. Posted again with an
//! `expected_next_offset`, it gives the offset that it got, whatever is expected by then. An answer has those the record has. In a path,
//! where `/` and `+` mean something, a producer's id is base64 of the URL's alphabet (`-` and `_`), with or without
//! padding. Base64 is the standard alphabet
//! with padding, as Go's `encoding/json` reads and writes it. The content type of a request is not
//! looked at: the book's `curl` sends a form's.
//!
//! # Records
//!
//! `GET /records?from=N` answers the frames of consecutive records from N on, with checksums and all, and with the frames
//! that tell of [gaps](proglog::Gap) between them: as many as are not more than 1 MiB, or `bytes_max=B` if that is less,
//! but one at least; nothing where the log ends. With `wait_ms=W` it waits there so long for the next record, at most five
//! seconds: who asks again and again follows the log.
//!
//! # Shipping
//!
//! `POST /producers/{id}/records` appends the records of another log, as a browser's that was offline: the body is
//! frames as they stand in that log's store, in their order, whose checksums so prove that they arrived as they were
//! written. The other log is the producer, with an id of its choice that no other has, and a record's offset there its
//! sequence here; so what is sent again, in whatever parts, is there once. (A producer that a record names itself is not
//! kept.) Batches are batches here too: one whose end is not in the body is not appended, and is to be sent again, whole.
//! Values, keys, headers and timestamps are kept. But a log's timestamps never decrease: a record that arrives more than
//! a second after its timestamp has that in the header `source-timestamp-ms` too, in decimal digits. The answer comes
//! once all is durable. It tells the last record of the source that is here, how many were appended, and how many
//! were `known` before. Who goes on later asks where to `GET /producers/{id}?search=log`.
//!
//! # Browsers
//!
//! Pages of other origins get nothing, unless their origins are in [`HttpOptions::allowed_origins`]
//! (`proglog serve --allow-origin`).
//!
//! # Errors
//!
//! Every error is JSON, `{"error":"what to do about it","kind":"…"}`:
//!
//! | status | kind | |
//! |---|---|---|
//! | 400 | `bad_request`, `invalid_argument` | the JSON, the base64, a field or an option makes no sense |
//! | 403 | `cross_origin` | a browser posts on behalf of another site |
//! | 404 | `offset_out_of_range`, `not_found`, `producer_not_found` | no record has the offset; no such path; the log remembers no record of the producer |
//! | 410 | `gap` | the record was compacted, given up by a repair, or left out |
//! | 409 | `conflict` | the next record would get another offset than expected: `expected_next_offset`, `next_offset` |
//! | 409 | `sequence_conflict` | the producer's sequence does not come after its last: `last_sequence`, `last_offset` |
//! | 405 | `method_not_allowed` | see the `Allow` header |
//! | 408 | `timeout` | the body took too long to arrive |
//! | 413 | `too_large` | the body, or the record in it, is over its limit |
//! | 500 | `corrupt`, `io`, `bug`, … | the record is damaged; the disk failed; the server is at fault |
//! | 503 | `poisoned`, `trapped`, `locked`, `closed`, `busy` | nothing is wrong with the request: restart the server, or try again |

mod answer;
mod body;
mod problem;
mod record;
mod request;
mod serve;
mod ship;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, RawQuery, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use proglog::{Clock, Next, Offset};
use serde::Serialize;
use tokio::{
    sync::{
        Semaphore,
        oneshot::{self, error::TryRecvError},
    },
    task::spawn_blocking,
    time::timeout,
};
use tower_http::cors::CorsLayer;

use self::{
    answer::{AnswerRoom, Attempt},
    body::{BodyLimit, read_body, room_for},
    problem::Problem,
    request::{AppendRequest, RecordsRequest},
};
use crate::{Engine, ErrorKind, Result, page};

pub use problem::{ConflictJson, kind_name};
pub use record::RecordJson;
pub use serve::{GRACE, serve};

/// The body of a `GET` holds one number.
const GET_BODY: BodyLimit = BodyLimit {
    bytes_max: 4 << 10,
    advice: "a read needs no more than {\"offset\":0}; records are appended with POST",
};
const POST_ADVICE: &str = "`proglog serve --body-bytes-max` and `--record-bytes-max` raise that";
/// How much memory the bodies of all requests take at most, and more where one alone may take more.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// How many calls of the engine go on at once, more than processors: most wait for the disk.
const ENGINE_CALLS_MAX: usize = 64;
/// How many requests wait at once for records to come. Each has a thread meanwhile.
const WAITING_MAX: usize = 64;
/// How soon what waits for a client that has left ends: a server that is to stop waits for it, too.
const LEFT_AFTER: Duration = Duration::from_millis(100);
/// How long a request waits for its turn at the engine.
const ENGINE_WAIT: Duration = Duration::from_secs(30);

/// For how long a browser need not ask again whether a page may send something.
const CORS_AGE_MAX: Duration = Duration::from_secs(60 * 60);

/// How the REST server behaves.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// The most bytes of a request's body.
    pub body_bytes_max: usize,
    /// The origins whose pages may append and read, such as `https://app.example`; the server's own may in any case.
    pub allowed_origins: Vec<HeaderValue>,
}

impl HttpOptions {
    /// Bodies large enough for a record of `record_bytes_max` bytes, which base64 makes larger by a
    /// third, and for the JSON around it.
    #[must_use]
    pub fn for_records(record_bytes_max: u64) -> Self {
        let bytes = record_bytes_max
            .saturating_mul(4)
            .div_ceil(3)
            .saturating_add(64 << 10);
        Self {
            body_bytes_max: usize::try_from(bytes).unwrap_or(usize::MAX),
            allowed_origins: Vec::new(),
        }
    }

    fn cors(&self) -> CorsLayer {
        CorsLayer::new()
            .allow_origin(self.allowed_origins.clone())
            .allow_methods([Method::GET, Method::POST])
            .allow_headers([header::CONTENT_TYPE])
            // From a page of the internet to a server on its reader's own machine.
            .allow_private_network(true)
            .max_age(CORS_AGE_MAX)
    }
}

/// The REST API and the page over a log.
///
/// The log is shared rather than taken, so that who serves it can close it afterwards.
pub fn app(engine: Arc<Box<dyn Engine>>, options: HttpOptions) -> Router {
    let (cors, has_origins) = (options.cors(), !options.allowed_origins.is_empty());
    let server = Server {
        engine,
        allowed_origins: options.allowed_origins.into(),
        calls: Arc::new(Semaphore::new(ENGINE_CALLS_MAX)),
        health: Arc::default(),
        post_body: BodyLimit {
            bytes_max: options.body_bytes_max,
            advice: POST_ADVICE,
        },
        answers: AnswerRoom::default(),
        waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        room: room_for(options.body_bytes_max.max(BODIES_BYTES_MAX)),
    };
    let app = Router::new()
        .route("/", get(read).post(append))
        .route("/records", get(records))
        .route("/healthz", get(health))
        .route("/producers/{id}", get(producer))
        .route("/producers/{id}/records", post(ship))
        .with_state(server)
        .merge(page::router())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method);
    if has_origins { app.layer(cors) } else { app }
}

/// What the handlers share.
#[derive(Clone)]
struct Server {
    engine: Arc<Box<dyn Engine>>,
    allowed_origins: Arc<[HeaderValue]>,
    calls: Arc<Semaphore>,
    health: Arc<Health>,
    post_body: BodyLimit,
    answers: AnswerRoom,
    room: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Server {
    /// Whether a page may append.
    fn refuse_other_origins(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let origin = headers.get(header::ORIGIN);
        let is_allowed = origin.is_some_and(|origin| self.allowed_origins.contains(origin));
        if is_cross_origin(headers) && !is_allowed {
            return Err(Problem::cross_origin());
        }
        Ok(())
    }

    /// Runs `work`, which blocks, where it holds up no other request.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Engine) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let turn = timeout(ENGINE_WAIT, Arc::clone(&self.calls).acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            return Err(Problem::busy());
        };
        let engine = Arc::clone(&self.engine);
        let work = spawn_blocking(move || {
            let _turn = turn;
            work(&**engine)
        });
        work.await.unwrap_or_else(|_| Err(Problem::bug()))
    }
}

/// Whether the log takes appends, as far as the last one tells.
#[derive(Default)]
struct Health {
    failure: Mutex<Option<String>>,
}

impl Health {
    fn note<T>(&self, appended: &Result<T>) {
        let failure = match appended {
            Ok(_) => None,
            Err(error) => match error.kind() {
                ErrorKind::Poisoned | ErrorKind::Io | ErrorKind::Trapped => Some(error.to_string()),
                // The request's own fault says nothing of the log.
                _ => return,
            },
        };
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    fn failure(&self) -> Option<String> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn append(State(server): State<Server>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    server.refuse_other_origins(&parts.headers)?;
    if parts.uri.query().is_some_and(|query| !query.is_empty()) {
        return Err(Problem::bad_request(
            "an append takes no query; send the record as the body, {\"record\":{\"value\":\"<base64>\"}}",
        ));
    }
    let body = read_body(&parts.headers, body, server.post_body, &server.room).await?;
    let health = Arc::clone(&server.health);
    let appended = server.call(move |engine| {
        let request = AppendRequest::parse(&body.bytes)?;
        drop(body);
        let record = request.record.as_new_record();
        let appended = engine.append_batch_with(&[record], request.options());
        health.note(&appended);
        Ok(OffsetJson {
            offset: appended?.start,
        })
    });
    Ok(json(StatusCode::OK, &appended.await?))
}

async fn read(State(server): State<Server>, request: Request) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let body = read_body(&parts.headers, body, GET_BODY, &server.room).await?;
    let query = parts.uri.query().unwrap_or_default();
    if query.is_empty() && body.bytes.is_empty() && accepts_html(&parts.headers) {
        return Ok(page::index());
    }
    let offset = request::parse_offset(query, &body.bytes)?;
    let mut taken = None;
    loop {
        let (answers, room) = (server.answers.clone(), taken.take());
        let attempt = server.call(move |engine| Ok(answers.answer(engine.read(offset)?, room)));
        match attempt.await? {
            Attempt::Made(response) => return Ok(response),
            // Reading the record again costs less than all who wait holding theirs.
            Attempt::NeedsRoom(bytes) => taken = Some(server.answers.take(bytes).await?),
        }
    }
}

async fn records(
    State(server): State<Server>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let RecordsRequest {
        from,
        bytes_max,
        wait,
    } = RecordsRequest::parse(&query.unwrap_or_default())?;
    if !wait.is_zero()
        // With as many waiting as may, one more is answered at once.
        && let Ok(place) = Arc::clone(&server.waiting).try_acquire_owned()
    {
        let engine = Arc::clone(&server.engine);
        // Dropped with this request where its client leaves.
        let (waits, mut left) = oneshot::channel::<()>();
        let waited = spawn_blocking(move || {
            let _place = place;
            let until = Instant::now() + wait;
            let mut subscription = engine.subscribe(from);
            // What fails is told below.
            while let Ok(Next::NotYet) = subscription.next_timeout(
                until
                    .saturating_duration_since(Instant::now())
                    .min(LEFT_AFTER),
            ) && Instant::now() < until
                && left.try_recv() == Err(TryRecvError::Empty)
            {}
        });
        waited.await.map_err(|_| Problem::bug())?;
        drop(waits);
    }
    let mut taken = None;
    loop {
        let (answers, room) = (server.answers.clone(), taken.take());
        let attempt = server.call(move |engine| {
            let frames = engine.read_batch(from, bytes_max)?;
            Ok(answers.answer_frames(&frames, room))
        });
        match attempt.await? {
            Attempt::Made(response) => return Ok(response),
            Attempt::NeedsRoom(bytes) => taken = Some(server.answers.take(bytes).await?),
        }
    }
}

async fn producer(
    State(server): State<Server>,
    Path(id): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let id = request::parse_producer_id(&id)?;
    let searches = request::parse_search(&query.unwrap_or_default())?;
    let last = server.call(move |engine| match searches {
        true => ship::find_last(engine, &id),
        false => Ok(engine.producer_last(&id)?),
    });
    match last.await? {
        Some(last) => Ok(json(StatusCode::OK, &last)),
        None => Err(Problem::no_such_producer()),
    }
}

async fn ship(
    State(server): State<Server>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    server.refuse_other_origins(&parts.headers)?;
    let id = request::parse_producer_id(&id)?;
    let body = read_body(&parts.headers, body, server.post_body, &server.room).await?;
    let health = Arc::clone(&server.health);
    let shipped = server.call(move |engine| {
        let now_ms = Clock::default().now_ms().unwrap_or_default();
        let frames = Bytes::from_owner(body.bytes);
        ship::ship(engine, &health, &id, &frames, now_ms)
    });
    Ok(json(StatusCode::OK, &shipped.await?))
}

async fn health(State(server): State<Server>) -> Result<Response, Problem> {
    let failure = server.health.failure();
    let health = server
        .call(move |engine| {
            Ok(HealthJson {
                status: if failure.is_none() { "ok" } else { "failed" },
                error: failure,
                lowest_offset: engine.lowest_offset()?,
                next_offset: engine.next_offset()?,
                durable_offset: engine.durable_offset()?,
            })
        })
        .await?;
    let status = if health.error.is_none() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    Ok(json(status, &health))
}

async fn no_such_path() -> Problem {
    Problem::not_found()
}

async fn no_such_method(method: Method) -> Problem {
    Problem::method_not_allowed(&method)
}

fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|accept| {
        accept
            .to_str()
            .is_ok_and(|accept| accept.contains("text/html"))
    })
}

/// Whether a browser sends this for a page of another site. As the content type is not looked at,
/// browsers ask no permission before they post, so any site could append to a log on this machine.
/// The rule is that of Go's `http.CrossOriginProtection`; other clients send none of these headers.
fn is_cross_origin(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => !matches!(site, "same-origin" | "none"),
        (None, Some(origin)) => {
            origin.split_once("://").map(|(_, authority)| authority) != text("host")
        }
        (None, None) => false,
    }
}

#[derive(Serialize)]
struct OffsetJson {
    offset: Offset,
}

#[derive(Serialize)]
struct HealthJson {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    lowest_offset: Offset,
    next_offset: Offset,
    durable_offset: Offset,
}

/// A line of JSON: the newline is Go's too, and a terminal's prompt then stands below it.
fn json(status: StatusCode, answer: &impl Serialize) -> Response {
    match serde_json::to_vec(answer) {
        Ok(mut body) => {
            body.push(b'\n');
            json_answer(status, body.into())
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn json_answer(status: StatusCode, body: Bytes) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
