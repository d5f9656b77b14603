//! What a request is answered that cannot be done.

use axum::{
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use proglog::Offset;
use proglog_wasm::abi::Conflict;

use super::{body::BodyLimit, json};
use crate::{Error, ErrorKind};

/// An error as an answer: `{"error":"…","kind":"…"}`, and the numbers of a conflict.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    kind: &'static str,
    pub(super) message: String,
    conflict: Option<Conflict>,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            conflict: None,
        }
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    pub(super) fn body_too_large(limit: BodyLimit) -> Self {
        let BodyLimit { bytes_max, advice } = limit;
        let message =
            format!("the body is larger than the {bytes_max} bytes this server takes; {advice}");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub(super) fn timeout() -> Self {
        let message = "the body took too long to arrive; send it again, faster or in smaller parts";
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
    }

    pub(super) fn cross_origin() -> Self {
        let message = "a page of another site may not append; post from this server's own page, \
                       or from a program that is no browser";
        Self::new(StatusCode::FORBIDDEN, "cross_origin", message)
    }

    pub(super) fn busy() -> Self {
        let message = "too many requests wait for the log; try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", message)
    }

    pub(super) fn bug() -> Self {
        let message = "the request met a bug in proglog; whether it was done is unknown, \
                       see the server's standard error";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", message)
    }

    pub(super) fn not_found() -> Self {
        let message = "there is nothing at this path; records are appended and read at /";
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    pub(super) fn no_such_producer() -> Self {
        let message = "the log remembers no record of this producer; append its first";
        Self::new(StatusCode::NOT_FOUND, "producer_not_found", message)
    }

    pub(super) fn method_not_allowed(method: &Method) -> Self {
        let message = format!("{method} does nothing here; the Allow header says what does");
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            message,
        )
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::InvalidArgument => StatusCode::BAD_REQUEST,
            ErrorKind::OffsetOutOfRange => StatusCode::NOT_FOUND,
            ErrorKind::Gap => StatusCode::GONE,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Conflict | ErrorKind::SequenceConflict => StatusCode::CONFLICT,
            ErrorKind::Poisoned | ErrorKind::Trapped | ErrorKind::Locked | ErrorKind::Closed => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            ErrorKind::Corrupt | ErrorKind::ReadOnly | ErrorKind::Io => {
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        Self {
            conflict: error.conflict(),
            ..Self::new(status, kind_name(error.kind()), error.to_string())
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct ProblemJson<'a> {
            error: &'a str,
            kind: &'a str,
            #[serde(flatten)]
            conflict: Option<ConflictJson>,
        }
        json(
            self.status,
            &ProblemJson {
                error: &self.message,
                kind: self.kind,
                conflict: self.conflict.map(ConflictJson::from),
            },
        )
    }
}

/// The numbers of a conflict, as the JSON of the server and of the command line names them.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum ConflictJson {
    /// The offset that was expected, and the one that the next record would have got.
    Offset {
        /// The offset that was expected.
        expected_next_offset: Offset,
        /// The one that the next record would have got.
        next_offset: Offset,
    },
    /// The producer's last record.
    Sequence {
        /// Its sequence.
        last_sequence: u64,
        /// Its offset.
        last_offset: Offset,
    },
}

impl From<Conflict> for ConflictJson {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::Offset {
                expected,
                next_offset,
            } => Self::Offset {
                expected_next_offset: expected,
                next_offset,
            },
            Conflict::Sequence {
                last_sequence,
                last_offset,
            } => Self::Sequence {
                last_sequence,
                last_offset,
            },
        }
    }
}

/// An error's kind as the JSON of the server and of the command line names it.
#[must_use]
pub fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidArgument => "invalid_argument",
        ErrorKind::OffsetOutOfRange => "offset_out_of_range",
        ErrorKind::Corrupt => "corrupt",
        ErrorKind::Gap => "gap",
        ErrorKind::Poisoned => "poisoned",
        ErrorKind::Locked => "locked",
        ErrorKind::ReadOnly => "read_only",
        ErrorKind::Closed => "closed",
        ErrorKind::TooLarge => "too_large",
        ErrorKind::Conflict => "conflict",
        ErrorKind::SequenceConflict => "sequence_conflict",
        ErrorKind::Io => "io",
        ErrorKind::Trapped => "trapped",
    }
}
