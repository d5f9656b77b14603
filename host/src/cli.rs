//! The command line: one file for each verb.

mod append;
mod directory;
mod dump;
mod failure;
mod info;
mod input;
mod options;
mod read;
mod records;
mod serve;
mod signals;
mod tail;
mod text;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::failure::Failure;

const EXIT_CODES: &str = "\
Exit codes:
    0  done; or whoever read the output needed no more of it
    1  the log, or a record asked for, is damaged
    2  the command line makes no sense
    3  no record has the offset asked for
    4  something else failed, for example the disk
    5  another writer has the log
  130  append was stopped by Ctrl-C, 143 by SIGTERM, before the end of its input

Errors go to standard error as `proglog: MESSAGE`, or with --json as {\"error\":\"MESSAGE\",\"kind\":\"…\"}.
In JSON, values, keys and header values are standard base64, and offsets are numbers up to 2^64-1.

Example:
  seq 5 | proglog append ./log && proglog tail ./log";

/// An append-only commit log: the same files on servers, in wasm sandboxes and in browsers.
#[derive(Debug, Parser)]
#[command(name = "proglog", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Append(append::Append),
    Read(read::Read),
    Tail(tail::Tail),
    Info(info::Info),
    Dump(dump::Dump),
    Verify(verify::Verify),
    Serve(serve::Serve),
}

/// Does what the command line says.
pub(crate) fn run() -> ExitCode {
    let verb = Cli::parse().verb;
    signals::take_file_size_signal();
    let (json, done) = match &verb {
        Verb::Append(append) => (append.json, append.run()),
        Verb::Read(read) => (read.output.json, read.run()),
        Verb::Tail(tail) => (tail.output.json, tail.run()),
        Verb::Info(info) => (info.json, info.run()),
        Verb::Dump(dump) => (dump.json, dump.run()),
        Verb::Verify(verify) => (verify.json, verify.run()),
        Verb::Serve(serve) => (false, serve.run()),
    };
    done.unwrap_or_else(|failure| failure.report(json))
}

/// What a verb comes to.
type Done = Result<ExitCode, Failure>;
