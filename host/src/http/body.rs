//! Reading a request's body, within limits of size and time.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
};
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};

use super::problem::Problem;

/// How long a client may send nothing.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// How long a whole body may take.
const BODY_WAIT: Duration = Duration::from_secs(120);
/// How long the rest of a body that is too large is read and thrown away: closing the connection
/// before would take the answer from a client that first sends and then listens.
const DISCARD_WAIT: Duration = Duration::from_secs(2);

/// How much memory the bodies of all requests may take: room for `bytes` of them.
pub(super) fn room_for(bytes: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS)))
}

/// How large a body may be.
#[derive(Clone, Copy)]
pub(super) struct BodyLimit {
    pub(super) bytes_max: usize,
    /// What to do about one that is larger.
    pub(super) advice: &'static str,
}

/// A body as it has arrived, and the room it takes until it is dropped.
pub(super) struct ReceivedBody {
    pub(super) bytes: Vec<u8>,
    room: Option<OwnedSemaphorePermit>,
}

/// The whole body, if it is within its limit. What is held in memory is what has arrived,
/// whatever the client announced.
pub(super) async fn read_body(
    headers: &HeaderMap,
    mut body: Body,
    limit: BodyLimit,
    room: &Arc<Semaphore>,
) -> Result<ReceivedBody, Problem> {
    let bytes_max = limit.bytes_max;
    if announced_bytes(headers).is_some_and(|bytes| bytes > bytes_max as u64) {
        // A client that waits for 100 Continue must not be told to go on: nothing is read for it.
        if !headers.contains_key(header::EXPECT) {
            discard(body).await;
        }
        return Err(Problem::body_too_large(limit));
    }
    let deadline = Instant::now() + BODY_WAIT;
    let mut received = ReceivedBody {
        bytes: Vec::new(),
        room: None,
    };
    loop {
        let frame = timeout(PAUSE_MAX, body.frame());
        let Ok(Ok(frame)) = timeout_at(deadline, frame).await else {
            return Err(Problem::timeout());
        };
        let Some(frame) = frame else {
            return Ok(received);
        };
        let frame = frame.map_err(|error| {
            Problem::bad_request(format!("the body did not arrive whole: {error}"))
        })?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if data.len() > bytes_max - received.bytes.len() {
            discard(body).await;
            return Err(Problem::body_too_large(limit));
        }
        if !received.add(data, room) {
            discard(body).await;
            return Err(Problem::busy());
        }
    }
}

impl ReceivedBody {
    /// Adds what has arrived, if there is room.
    fn add(&mut self, data: &Bytes, room: &Arc<Semaphore>) -> bool {
        let Ok(bytes) = u32::try_from(data.len()) else {
            return false;
        };
        let Ok(more) = Arc::clone(room).try_acquire_many_owned(bytes) else {
            return false;
        };
        match &mut self.room {
            Some(room) => room.merge(more),
            none => *none = Some(more),
        }
        self.bytes.extend_from_slice(data);
        true
    }
}

fn announced_bytes(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

async fn discard(mut body: Body) {
    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
    // Too slow is as good as done.
    let _ = timeout(DISCARD_WAIT, rest).await;
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;

    use super::{Body, BodyLimit, HeaderMap, read_body, room_for};

    fn limit(bytes_max: usize) -> BodyLimit {
        BodyLimit {
            bytes_max,
            advice: "",
        }
    }

    async fn refused(body: &'static str, bytes_max: usize, room: usize) -> Option<StatusCode> {
        let (headers, room) = (HeaderMap::new(), room_for(room));
        let read = read_body(&headers, Body::from(body), limit(bytes_max), &room);
        read.await.err().map(|problem| problem.status)
    }

    #[tokio::test]
    async fn keeps_to_the_limits() {
        assert_eq!(refused("12345", 5, 5).await, None);
        assert_eq!(refused("", 0, 0).await, None);
        let too_large = Some(StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(refused("12345", 4, 100).await, too_large);
        let busy = Some(StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(refused("12345", 100, 4).await, busy);
    }

    #[tokio::test]
    async fn gives_back_the_room_of_a_body_that_is_done() {
        let (headers, room) = (HeaderMap::new(), room_for(5));
        let read = || read_body(&headers, Body::from("123"), limit(5), &room);
        let first = read().await.map_err(|problem| problem.message).unwrap();
        assert_eq!(first.bytes, b"123");
        assert!(read().await.is_err());
        drop(first);
        assert!(read().await.is_ok());
    }
}
