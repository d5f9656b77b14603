//! What can go wrong, one variant for each thing a caller would do about it.

use std::{io, ops::Deref};

use crate::{Gap, GapCause, Offset};

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What functions of this crate that are not public return. Its error is one word, which stays in a register where an
/// [`Error`] would be copied at every return; `?` takes one for the other.
pub(crate) type Thin<T> = std::result::Result<T, Boxed>;

const _: () = assert!(size_of::<Thin<()>>() == size_of::<usize>());

/// Why an operation on a log failed.
///
/// A kind of its own exists only where a caller would act differently; match on the variant, never
/// on the text. The text says what to do.
///
/// ```
/// # use proglog::{Log, MemoryBackend, Offset, Options};
/// # let log = Log::open_on(MemoryBackend::new(), Options::new())?;
/// use proglog::Error;
/// match log.read(Offset(7)) {
///     Ok(record) => println!("{record:?}"),
///     Err(Error::OffsetOutOfRange { lowest, next, .. }) => println!("there are {lowest}..{next}"),
///     Err(Error::Gap { next, .. }) => println!("not there on purpose; go on at {next}"),
///     Err(e @ Error::Corrupt { .. }) => eprintln!("{e}"), // those around it can be read
///     Err(e) => return Err(e),
/// }
/// # Ok::<(), proglog::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No record has this offset: it is below the lowest or not given yet.
    #[error("offset {offset} is not in the log, which {}", held(*lowest, *next))]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The first offset the log holds.
        lowest: Offset,
        /// The offset the next append will give.
        next: Offset,
    },

    /// Records were truncated that stood before the one that a [`Subscription`](crate::Subscription) is at, so that
    /// others will have, or have by now, offsets that it has passed.
    #[error(
        "the log was truncated to offset {next}, and record {offset} was to come; go on from {next}"
    )]
    Truncated {
        /// The offset of the record that was to come.
        offset: Offset,
        /// The first offset that is given again.
        next: Offset,
    },

    /// The bytes of this record are damaged. Nothing was changed or cut off; records around it can
    /// be read.
    #[error(
        "record {offset} is damaged: {reason} (segment {segment}, position {position}); \
         the records around it can still be read"
    )]
    Corrupt {
        /// The base offset of the segment, which names its files.
        segment: Offset,
        /// The offset of the record.
        offset: Offset,
        /// The byte in the store file where its frame starts, or would start.
        position: u64,
        /// What is wrong with it.
        reason: Damaged,
    },

    /// The offset is deliberately not there, by word of the log itself: nothing is damaged. Iterating steps over it.
    #[error("offset {offset} {cause}; go on at {next}")]
    Gap {
        /// The offset asked for.
        offset: Offset,
        /// Why it is not there.
        cause: GapCause,
        /// The first of the offsets beside it that are not there for the same reason.
        first: Offset,
        /// The offset after the last of them.
        next: Offset,
    },

    /// An earlier write or sync failed, so it is unknown what the disk holds. Reads go on; appends
    /// are refused until the log is opened again.
    #[error("an earlier write or sync failed ({cause}); open the log again before appending")]
    Poisoned {
        /// The failure that poisoned the log.
        cause: String,
    },

    /// Another process, or another [`Log`](crate::Log) of this one, has the directory open for writing.
    #[error("{directory} is in use by another writer; close that one, or open this log read-only")]
    Locked {
        /// The directory.
        directory: String,
    },

    /// The log was opened read-only.
    #[error("the log was opened read-only; open it for writing to change it")]
    ReadOnly,

    /// The log was closed.
    #[error("the log is closed; open it again")]
    Closed,

    /// A record or batch is larger than the log takes. Nothing was appended.
    #[error("{what} of {bytes} bytes is larger than the {bytes_max} bytes this log takes{advice}")]
    TooLarge {
        /// "a record" or "a batch".
        what: &'static str,
        /// Its size, in bytes.
        bytes: u64,
        /// The largest size taken, in bytes.
        bytes_max: u64,
        /// What to do about it, as the end of the message.
        advice: &'static str,
    },

    /// The next record would not get the offset that was expected: others were appended, or removed, meanwhile.
    /// Nothing was appended.
    #[error(
        "the next record would be {next_offset}, not {expected} as expected; nothing was appended: \
         read what is there now, and decide anew"
    )]
    Conflict {
        /// The offset that was expected.
        expected: Offset,
        /// The one that the next record would have got.
        next_offset: Offset,
    },

    /// The producer's sequence does not come after that of its last record, and what was appended is none of its
    /// batches that are remembered. Nothing was appended.
    #[error(
        "sequence {sequence} is not after {last_sequence}, the producer's last, which is record {last_offset}; \
         nothing was appended: go on after {last_sequence}"
    )]
    SequenceConflict {
        /// The first sequence of what was to be appended.
        sequence: u64,
        /// The sequence of the producer's last record.
        last_sequence: u64,
        /// The offset of that record.
        last_offset: Offset,
    },

    /// An index has no room for another entry; the segment must be rolled. [`Log`](crate::Log) does so
    /// by itself, only users of [`Index`](crate::Index) and [`Segment`](crate::Segment) see this.
    #[error("the index is full: {entries} entries")]
    IndexFull {
        /// How many entries it holds.
        entries: u64,
    },

    /// An argument or option makes no sense. Nothing was changed.
    #[error("{0}")]
    InvalidArgument(String),

    /// The file system, or whatever holds the files, failed.
    #[error("could not {action} {file}: {source}")]
    Io {
        /// What was attempted: "read", "write", "sync" and so on.
        action: &'static str,
        /// The file or directory.
        file: String,
        /// The failure.
        source: io::Error,
    },
}

/// What is wrong with a damaged record.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Damaged {
    /// The frame's length runs past the end of the store, or leaves no room for a record.
    #[error("its length does not fit the store")]
    Length,
    /// The checksum does not match the bytes.
    #[error("its checksum does not match its bytes")]
    Checksum,
    /// The bytes are no record.
    #[error("its bytes are not a record")]
    Malformed,
    /// A record stands there, but it has another offset.
    #[error("another record stands in its place")]
    Misplaced,
    /// Its bytes are gone: the store ends before it.
    #[error("its bytes are missing from the store")]
    Missing,
}

/// An [`Error`] of one word. No `Box`, of which the conversion would be public.
#[derive(Debug)]
pub(crate) struct Boxed(Box<Error>);

impl From<Error> for Boxed {
    #[cold]
    fn from(error: Error) -> Self {
        Self(Box::new(error))
    }
}

impl From<Boxed> for Error {
    fn from(boxed: Boxed) -> Self {
        *boxed.0
    }
}

impl Deref for Boxed {
    type Target = Error;

    fn deref(&self) -> &Error {
        &self.0
    }
}

impl Error {
    #[cold]
    pub(crate) fn invalid(message: String) -> Boxed {
        Self::InvalidArgument(message).into()
    }

    #[cold]
    pub(crate) fn io(action: &'static str, file: impl Into<String>, source: io::Error) -> Boxed {
        // The numbers of WASI's errors mean other errors to who reads the message outside.
        #[cfg(target_os = "wasi")]
        let source = match source.to_string().split_once(" (os error ") {
            Some((text, _)) => {
                // Which the standard library has no kinds for here.
                let full = rustix::io::Errno::NOSPC.raw_os_error();
                let quota = rustix::io::Errno::DQUOT.raw_os_error();
                let kind = match source.raw_os_error() {
                    Some(number) if number == full => io::ErrorKind::StorageFull,
                    Some(number) if number == quota => io::ErrorKind::QuotaExceeded,
                    _ => source.kind(),
                };
                io::Error::new(kind, text)
            }
            None => source,
        };
        Self::Io {
            action,
            file: file.into(),
            source,
        }
        .into()
    }
}

impl Error {
    /// Whether a file has to be opened first, between calls: see [`Backend::open`](crate::Backend::open). It is to be
    /// passed on, and not taken for an answer.
    pub(crate) fn is_not_yet(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether it is of a damaged record.
    pub(crate) fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// Whether it is of one whose bytes are gone.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(
            self,
            Self::Corrupt {
                reason: Damaged::Missing,
                ..
            }
        )
    }

    pub(crate) fn is_out_of_range(&self) -> bool {
        matches!(self, Self::OffsetOutOfRange { .. })
    }

    /// The gap that the offset asked for is one of.
    pub(crate) fn gap(&self) -> Option<Gap> {
        match *self {
            Self::Gap {
                cause, first, next, ..
            } => Some(Gap::new(first, next, cause)),
            _ => None,
        }
    }

    /// Whether the files could not have this done to them: "write", "sync" and so on.
    pub(crate) fn is_of(&self, attempted: &str) -> bool {
        matches!(self, Self::Io { action, .. } if *action == attempted)
    }

    /// Whether there is no such file.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// Whether there is no more space to be had, on the disk or of what one is allowed: no reason for what can do
    /// without to fail.
    pub(crate) fn is_for_want_of_space(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

fn held(lowest: Offset, next: Offset) -> String {
    if lowest == next {
        format!("is empty; the next record will be {next}")
    } else {
        format!("holds {lowest} to {}", next.0 - 1)
    }
}
