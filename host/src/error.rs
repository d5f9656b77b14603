//! What can go wrong, whichever engine runs the log.

use proglog_wasm::abi::{Conflict, Status};

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed. Decide by [`Error::kind`]; the text is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: ErrorKind,
    message: String,
    conflict: Option<Conflict>,
}

/// What a caller would do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument or option makes no sense. Nothing was changed.
    InvalidArgument,
    /// No record has this offset.
    OffsetOutOfRange,
    /// The bytes of this record are damaged.
    Corrupt,
    /// The offset is deliberately not there: its record was compacted, given up or left out.
    Gap,
    /// An earlier write or sync failed; open the log again.
    Poisoned,
    /// Another writer has the directory.
    Locked,
    /// The log was opened read-only.
    ReadOnly,
    /// The log is closed.
    Closed,
    /// A record or batch is larger than the log takes. Nothing was appended.
    TooLarge,
    /// The next record would not get the offset that was expected. Nothing was appended; [`Error::conflict`] tells more.
    Conflict,
    /// The producer's sequence does not come after its last. Nothing was appended; [`Error::conflict`] tells more.
    SequenceConflict,
    /// The file system failed.
    Io,
    /// The wasm module stopped working and was discarded, or could not be started. It is not known
    /// whether the operation was carried out.
    Trapped,
}

impl Error {
    /// An error of this kind.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            conflict: None,
        }
    }

    /// The same, of a conflict.
    pub(crate) fn with_conflict(self, conflict: Option<Conflict>) -> Self {
        Self { conflict, ..self }
    }

    /// What a caller would do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What stood in the way of an append: with [`ErrorKind::Conflict`] and [`ErrorKind::SequenceConflict`].
    #[must_use]
    pub fn conflict(&self) -> Option<Conflict> {
        self.conflict
    }
}

impl From<proglog::Error> for Error {
    fn from(error: proglog::Error) -> Self {
        Self::new(Status::of(&error).into(), error.to_string()).with_conflict(Conflict::of(&error))
    }
}

impl From<Status> for ErrorKind {
    fn from(status: Status) -> Self {
        match status {
            Status::InvalidArgument => Self::InvalidArgument,
            Status::OffsetOutOfRange => Self::OffsetOutOfRange,
            Status::Corrupt => Self::Corrupt,
            Status::Gap => Self::Gap,
            Status::Poisoned => Self::Poisoned,
            Status::Locked => Self::Locked,
            Status::ReadOnly => Self::ReadOnly,
            Status::Closed => Self::Closed,
            Status::Conflict => Self::Conflict,
            Status::SequenceConflict => Self::SequenceConflict,
            // Memory runs out because of something large.
            Status::TooLarge | Status::OutOfMemory => Self::TooLarge,
            // A log rolls its segments before an index is full.
            Status::IndexFull | Status::Io | Status::StorageFull => Self::Io,
        }
    }
}
