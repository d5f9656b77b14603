//! Why a verb failed, told to people and scripts.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use proglog_host::{Error, ErrorKind, http::kind_name};
use serde_json::json;

/// The exit codes, which `proglog --help` lists.
pub(crate) mod exit {
    pub(crate) const DAMAGED: u8 = 1;
    pub(crate) const USAGE: u8 = 2;
    pub(crate) const OFFSET_OUT_OF_RANGE: u8 = 3;
    pub(crate) const FAILED: u8 = 4;
    pub(crate) const LOCKED: u8 = 5;
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
    },
}

impl Failure {
    /// Something about a file or directory of the caller's, not the log.
    pub(crate) fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self::Told {
            exit: exit::FAILED,
            kind,
            message: message.into(),
        }
    }

    /// Options that make no sense, as far as the parser of the command line cannot tell.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Told {
            exit: exit::USAGE,
            kind: "invalid_argument",
            message: message.into(),
        }
    }

    pub(crate) fn io(action: &str, path: &Path, error: &io::Error) -> Self {
        Self::new(
            "io",
            format!("could not {action} {}: {error}", path.display()),
        )
    }

    pub(crate) fn damaged(message: impl Into<String>) -> Self {
        Self::Told {
            exit: exit::DAMAGED,
            kind: "corrupt",
            message: message.into(),
        }
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
            } => {
                let line = if as_json {
                    json!({ "error": message, "kind": kind }).to_string()
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

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::Corrupt => exit::DAMAGED,
            ErrorKind::OffsetOutOfRange => exit::OFFSET_OUT_OF_RANGE,
            ErrorKind::Locked => exit::LOCKED,
            _ => exit::FAILED,
        };
        Self::Told {
            exit,
            kind: kind_name(error.kind()),
            message: error.to_string(),
        }
    }
}

/// Of standard output, the one stream that verbs write with `?`.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::new("io", format!("could not write to standard output: {error}"))
    }
}
