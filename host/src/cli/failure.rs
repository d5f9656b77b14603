//! Why a verb failed, told to people and scripts.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use proglog_host::{
    Error, ErrorKind,
    http::{ConflictJson, kind_name},
};
use serde_json::json;

/// The exit codes, which every `--help` lists.
pub(crate) mod exit {
    pub(crate) const DAMAGED: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const OFFSET_OUT_OF_RANGE: u8 = 3;
    pub(crate) const FAILED: u8 = 4;
    pub(crate) const LOCKED: u8 = 5;
    pub(crate) const CONFLICT: u8 = 6;
}

/// Why a verb failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Whoever read the output has gone: `proglog tail ./log | head -1`. No failure at all.
    OutputClosed,
    /// This is what to say.
    Told {
        exit: u8,
        kind: &'static str,
        message: String,
        conflict: Option<ConflictJson>,
    },
}

impl Failure {
    fn told(exit: u8, kind: &'static str, message: impl Into<String>) -> Self {
        Self::Told {
            exit,
            kind,
            message: without_error_number(message.into()),
            conflict: None,
        }
    }

    /// Something about a file or directory of the caller's, not the log.
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self::told(exit::FAILED, kind, message)
    }

    /// A command line that makes no sense.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::told(exit::USAGE, "invalid_argument", message)
    }

    /// What the library refused before it did anything: that is the command line's fault.
    pub(crate) fn of_options(error: Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidArgument => Self::usage(in_flags(&error)),
            _ => error.into(),
        }
    }

    /// The one answer to every verb that reads where there is nothing to read.
    pub(crate) fn no_log(directory: &Path) -> Self {
        let name = directory.display();
        let message = format!("there is no log in {name}; `proglog append {name}` makes one");
        Self::new("not_found", message)
    }

    /// Where there is no log, the answer to a verb that works on one: an append would give it nothing to do.
    pub(crate) fn of_work_on(self, directory: &Path) -> Self {
        if !self.is_not_found() {
            return self;
        }
        let name = directory.display();
        let message = format!(
            "there is no log in {name}; give the directory that holds one, with files such as 0.store"
        );
        Self::new("not_found", message)
    }

    pub(crate) fn io(action: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(
            "io",
            format!("could not {action} {}: {error}", path.display()),
        )
    }

    /// An offset that was there when it was asked for.
    pub(crate) fn out_of_range(message: impl Into<String>) -> Self {
        Self::told(exit::OFFSET_OUT_OF_RANGE, "offset_out_of_range", message)
    }

    /// Of standard output.
    pub(crate) fn of_output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::new("io", format!("could not write to standard output: {error}"))
    }

    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        Self::told(exit::DAMAGED, "corrupt", message)
    }

    /// Whether there is no log.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Told {
                kind: "not_found",
                ..
            }
        )
    }

    /// Adds what else to know or do.
    pub(crate) fn context(mut self, more: &str) -> Self {
        if let Self::Told { message, .. } = &mut self {
            message.push_str("; ");
            message.push_str(more);
        }
        self
    }

    pub(crate) fn report(&self, as_json: bool) -> ExitCode {
        match self {
            Self::OutputClosed => ExitCode::SUCCESS,
            Self::Told {
                exit,
                kind,
                message,
                conflict,
            } => {
                let line = if as_json {
                    let mut line = json!(conflict);
                    line["error"] = json!(message);
                    line["kind"] = json!(kind);
                    line.to_string()
                } else {
                    format!("proglog: {message}")
                };
                // If standard error is gone too, the exit code has to do.
                let _ = writeln!(io::stderr(), "{line}");
                ExitCode::from(*exit)
            }
        }
    }
}

/// What the library says to do, and what its user does on the command line.
const IN_FLAGS: [(ErrorKind, &str, &str); 8] = [
    (
        ErrorKind::InvalidArgument,
        "segment_bytes_max",
        "--segment-bytes-max",
    ),
    (
        ErrorKind::InvalidArgument,
        "index_bytes_max",
        "--index-bytes-max",
    ),
    (
        ErrorKind::InvalidArgument,
        "record_bytes_max",
        "--record-bytes-max",
    ),
    (
        ErrorKind::InvalidArgument,
        "initial_offset",
        "--initial-offset",
    ),
    (
        ErrorKind::InvalidArgument,
        "use the native engine for such a log",
        "give a lower one, or --engine native",
    ),
    (
        ErrorKind::TooLarge,
        "record_bytes_max",
        "--record-bytes-max",
    ),
    (
        ErrorKind::Locked,
        "close that one, or open this log read-only",
        "stop that one first, or read beside it with `proglog tail`",
    ),
    (
        ErrorKind::Poisoned,
        "open the log again before appending",
        "the next `proglog append` or `proglog serve` opens the log anew",
    ),
];

/// An error of the library's, as the command line says it.
pub(crate) fn in_flags(error: &Error) -> String {
    IN_FLAGS
        .iter()
        .filter(|(kind, ..)| *kind == error.kind())
        .fold(error.to_string(), |message, (_, option, flag)| {
            message.replace(option, flag)
        })
}

/// The system's number of an error says no more than the words before it, and the wasm engine has none.
fn without_error_number(mut message: String) -> String {
    const NUMBER: &str = " (os error ";
    while let Some(start) = message.find(NUMBER)
        && let Some(bytes) = message[start..].find(')')
    {
        message.replace_range(start..=start + bytes, "");
    }
    message
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::Corrupt => exit::DAMAGED,
            ErrorKind::OffsetOutOfRange | ErrorKind::Gap => exit::OFFSET_OUT_OF_RANGE,
            ErrorKind::Locked => exit::LOCKED,
            ErrorKind::Conflict | ErrorKind::SequenceConflict => exit::CONFLICT,
            _ => exit::FAILED,
        };
        Self::Told {
            exit,
            kind: kind_name(error.kind()),
            message: without_error_number(in_flags(&error)),
            conflict: error.conflict().map(ConflictJson::from),
        }
    }
}

/// Of standard output, the one stream that verbs write with `?`.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::of_output(&error)
    }
}

#[cfg(test)]
mod tests {
    use proglog::{Error as LogError, Options};

    use super::{IN_FLAGS, in_flags, without_error_number};

    /// The library's messages with something to do about them that a command line can meet.
    fn messages() -> Vec<String> {
        let refused = [
            Options::new().segment_bytes_max(0),
            Options::new().index_bytes_max(1),
            Options::new().record_bytes_max(0),
            Options::new().initial_offset(u64::MAX),
        ];
        let mut errors: Vec<LogError> = refused
            .iter()
            .map(|options| options.validate().unwrap_err())
            .collect();
        let log = proglog::Log::open_on(
            proglog::MemoryBackend::new(),
            Options::new().record_bytes_max(9),
        );
        errors.push(log.unwrap().append("too large for it").unwrap_err());
        errors.push(LogError::Locked {
            directory: "log".to_owned(),
        });
        errors.push(LogError::Poisoned {
            cause: "no".to_owned(),
        });
        let mut errors: Vec<proglog_host::Error> = errors.into_iter().map(Into::into).collect();
        let beyond = Options::new().initial_offset(1 << 63);
        let mode = proglog_host::Mode::Write;
        let wasm = proglog_host::WasmLog::open("never made", mode, beyond);
        errors.extend(wasm.err());
        errors.iter().map(in_flags).collect()
    }

    #[test]
    fn messages_name_flags_and_not_options() {
        let messages = messages();
        for (_, option, flag) in IN_FLAGS {
            let is_said = messages.iter().any(|message| message.contains(flag));
            assert!(is_said, "the library no longer says {option:?}");
        }
        for message in messages {
            assert!(!message.contains("_bytes_max"), "{message}");
            assert!(!message.contains("_offset"), "{message}");
        }
    }

    #[test]
    fn numbers_of_errors_are_left_out() {
        let message = "could not open a: No such file or directory (os error 2); give a file";
        assert_eq!(
            without_error_number(message.to_owned()),
            "could not open a: No such file or directory; give a file"
        );
    }
}
