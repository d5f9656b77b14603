//! The memory that answers take until they are sent.

use std::sync::Arc;

use axum::{
    body::Bytes,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use proglog::{Frames, Record};
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{ENGINE_WAIT, json_answer, problem::Problem, record::RecordJson};

/// How much memory large answers take together at most; one alone may take more.
const ANSWERS_BYTES_MAX: u32 = 256 << 20;
/// Records up to this make small answers, which the number of connections alone bounds: they are
/// answered even while clients that read slowly take all room.
const SMALL_RECORD_BYTES: usize = 64 << 10;
/// What making an answer takes at most, for each byte of the record: the record, its base64, and the
/// JSON around that.
const COST_FACTOR: usize = 4;

#[derive(Serialize)]
struct AnsweredRecord {
    record: RecordJson,
}

/// The room for answers.
#[derive(Clone)]
pub(super) struct AnswerRoom {
    free: Arc<Semaphore>,
    bytes: u32,
}

/// Room that was taken, given back when dropped.
pub(super) type Taken = OwnedSemaphorePermit;

/// What became of an answer.
pub(super) enum Attempt {
    Made(Response),
    /// There is no room now: wait for this many bytes, then try again.
    NeedsRoom(u32),
}

impl Default for AnswerRoom {
    fn default() -> Self {
        Self::new(ANSWERS_BYTES_MAX)
    }
}

impl AnswerRoom {
    fn new(bytes: u32) -> Self {
        Self {
            free: Arc::new(Semaphore::new(bytes as usize)),
            bytes,
        }
    }

    /// Waits for room, as long as a request waits for the engine.
    pub(super) async fn take(&self, bytes: u32) -> Result<Taken, Problem> {
        let taken = Arc::clone(&self.free).acquire_many_owned(bytes);
        match timeout(ENGINE_WAIT, taken).await {
            Ok(Ok(taken)) => Ok(taken),
            _ => Err(Problem::busy()),
        }
    }

    /// Makes the answer that holds `record`, in room that was `taken` before or is free now.
    pub(super) fn answer(&self, record: Record, taken: Option<Taken>) -> Attempt {
        let record_bytes = record.frame().len();
        let mut room = match self.room(record_bytes, self.cost(record_bytes), taken) {
            Ok(room) => room,
            Err(needed) => return Attempt::NeedsRoom(needed),
        };
        let answer = AnsweredRecord {
            record: RecordJson::from(&record),
        };
        drop(record);
        // Base64 takes 4 bytes for 3. Twice the size while a vector grows would be over the cost.
        let mut body = Vec::with_capacity(record_bytes / 3 * 4 + 512);
        if serde_json::to_writer(&mut body, &answer).is_err() {
            return Attempt::Made(StatusCode::INTERNAL_SERVER_ERROR.into_response());
        }
        body.push(b'\n');
        // What only the making took is given back at once.
        let kept = room
            .as_mut()
            .and_then(|room| room.split(body.len().min(room.num_permits())));
        let body = Bytes::from_owner(Charged::new(body, kept));
        Attempt::Made(json_answer(StatusCode::OK, body))
    }

    /// Makes the answer that is these frames, likewise.
    pub(super) fn answer_frames(&self, frames: &Frames, taken: Option<Taken>) -> Attempt {
        let bytes = frames.as_bytes();
        let needed = u32::try_from(bytes.len()).map_or(self.bytes, |bytes| bytes.min(self.bytes));
        let room = match self.room(bytes.len(), needed, taken) {
            Ok(room) => room,
            Err(needed) => return Attempt::NeedsRoom(needed),
        };
        let body = Bytes::from_owner(Charged::new(bytes.to_vec(), room));
        let head = [(header::CONTENT_TYPE, "application/octet-stream")];
        Attempt::Made((StatusCode::OK, head, body).into_response())
    }

    /// The room for an answer: that which was taken before, if it is enough, or what is free now, or none, if it is a small
    /// one. Or else how much to wait for.
    fn room(&self, bytes: usize, needed: u32, taken: Option<Taken>) -> Result<Option<Taken>, u32> {
        if bytes <= SMALL_RECORD_BYTES {
            return Ok(None);
        }
        let taken = taken.filter(|taken| taken.num_permits() >= needed as usize);
        let room = taken.or_else(|| Arc::clone(&self.free).try_acquire_many_owned(needed).ok());
        room.map(Some).ok_or(needed)
    }

    fn cost(&self, record_bytes: usize) -> u32 {
        u32::try_from(record_bytes.saturating_mul(COST_FACTOR))
            .map_or(self.bytes, |cost| cost.min(self.bytes))
    }
}

/// The bytes of an answer, with the room they take. They travel as the owner of [`Bytes`], since a
/// body is dropped when the connection has queued its bytes, which is before they are sent.
pub(super) struct Charged {
    bytes: Vec<u8>,
    _room: Option<Taken>,
}

impl Charged {
    pub(super) fn new(bytes: Vec<u8>, room: Option<Taken>) -> Self {
        Self { bytes, _room: room }
    }
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::to_bytes, response::Response};
    use proglog::{Log, NewRecord, Offset, Options, Record};

    use super::{AnswerRoom, Attempt};

    fn record(value_bytes: usize) -> Record {
        let directory = tempfile::tempdir().unwrap();
        let log = Log::open(directory.path(), Options::new()).unwrap();
        log.append(NewRecord::new(&vec![b'x'; value_bytes]))
            .unwrap();
        log.read(Offset(0)).unwrap()
    }

    fn made(attempt: Attempt) -> Option<Response> {
        match attempt {
            Attempt::Made(response) => Some(response),
            Attempt::NeedsRoom(_) => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn large_answers_wait_for_room_and_small_ones_do_not() {
        let (small, large) = (record(10), record(100_000));
        let room = AnswerRoom::new(450_000);
        let first = made(room.answer(large.clone(), None)).unwrap();
        let Attempt::NeedsRoom(needed) = room.answer(large.clone(), None) else {
            panic!("there is room for one");
        };
        assert!(made(room.answer(small, None)).is_some());
        let busy = room.take(needed).await.err().unwrap();
        assert_eq!(busy.status, 503);

        let body = to_bytes(first.into_body(), usize::MAX).await.unwrap();
        assert!(body.len() > 133_000);
        assert!(room.take(needed).await.is_err(), "the bytes are still held");
        drop(body);
        let taken = room.take(needed).await.ok();
        assert!(made(room.answer(large, taken)).is_some());
        assert_eq!(room.free.available_permits(), 450_000);
    }

    #[tokio::test]
    async fn one_answer_may_take_more_than_all_room() {
        let room = AnswerRoom::new(1000);
        let answer = made(room.answer(record(100_000), None)).unwrap();
        assert_eq!(room.free.available_permits(), 0);
        drop(answer);
        assert_eq!(room.free.available_permits(), 1000);
    }
}
