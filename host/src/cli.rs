//! The command line: one file for each verb.

mod append;
mod book;
mod compact;
mod completions;
mod destination;
mod directory;
mod dump;
mod exchange;
mod export;
mod failure;
mod import;
mod index_file;
mod info;
mod input;
mod man;
mod options;
mod progress;
mod read;
mod records;
mod repair;
mod retention;
mod serve;
mod signals;
mod snapshot;
mod tail;
mod text;
mod truncate;
mod upgrade;
mod usage;
mod verify;

use std::{env, process::ExitCode};

use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use self::failure::Failure;

/// Of every verb; README.md has the same.
const EXIT_CODES: &str = "\
Exit codes, the same for every command:
    0  done; or whoever read the output needed no more of it
    1  the log, or a record asked for, is damaged; repair: records were given up
    2  the command line makes no sense
    3  no record has the offset asked for
    4  something else failed: there is no log, a record is too large, the disk is full
    5  another writer has the log
    6  the first record would not get the offset that --expect-next says
  130  stopped by Ctrl-C before it was done; serve and tail --follow end with 0 then
  143  stopped by SIGTERM, likewise";

const ERRORS: &str = "\
Errors go to standard error as `proglog: WHAT IS WRONG; WHAT TO DO`, or with --json as
{\"error\":\"MESSAGE\",\"kind\":\"…\"}.
In JSON, values, keys and header values are standard base64, and offsets are numbers up to 2^64-1.";

const EXAMPLE: &str = "\
Example:
  seq 5 | proglog append ./log && proglog tail ./log";

/// An append-only commit log: the same files on servers, in wasm sandboxes and in browsers.
#[derive(Debug, Parser)]
#[command(name = "proglog", version, max_term_width = 100, after_help = format!("{EXIT_CODES}\n\n{ERRORS}\n\n{EXAMPLE}"))]
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
    Repair(repair::Repair),
    Export(export::Export),
    Import(import::Import),
    Truncate(truncate::Truncate),
    Compact(compact::Compact),
    Snapshot(snapshot::Snapshot),
    Upgrade(upgrade::Upgrade),
    Serve(serve::Serve),
    Completions(completions::Completions),
    Man(man::Man),
}

/// Does what the command line says.
pub(crate) fn run() -> ExitCode {
    let verb = match parse() {
        Ok(cli) => cli.verb,
        Err(exit) => return exit,
    };
    signals::take_file_size_signal();
    let (json, done) = match &verb {
        Verb::Append(append) => (append.json, append.run()),
        Verb::Read(read) => (read.output.json, read.run()),
        Verb::Tail(tail) => (tail.output.json, tail.run()),
        Verb::Info(info) => (info.json, info.run()),
        Verb::Dump(dump) => (dump.json, dump.run()),
        Verb::Verify(verify) => (verify.json, verify.run()),
        Verb::Repair(repair) => (repair.json, repair.run()),
        Verb::Export(export) => (export.json, export.run()),
        Verb::Import(import) => (import.json, import.run()),
        Verb::Truncate(truncate) => (truncate.json, truncate.run()),
        Verb::Compact(compact) => (compact.json, compact.run()),
        Verb::Snapshot(snapshot) => (snapshot.json, snapshot.run()),
        Verb::Upgrade(upgrade) => (upgrade.json, upgrade.run()),
        Verb::Serve(serve) => (false, serve.run()),
        Verb::Completions(completions) => (false, completions.run()),
        Verb::Man(man) => (man.json, man.run()),
    };
    done.unwrap_or_else(|failure| failure.report(json))
}

/// The command line, or what its being none comes to.
fn parse() -> Result<Cli, ExitCode> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(env::args_os());
    matches
        .and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches))
        .map_err(|error| {
            let args: Vec<_> = env::args_os()
                .map(|arg| arg.to_string_lossy().into_owned())
                .collect();
            usage::report(&error, &command, &args)
        })
}

/// The command line that there can be.
fn command() -> Command {
    Cli::command().mut_subcommands(|verb| {
        let examples = verb.get_after_help().cloned().unwrap_or_default();
        verb.after_long_help(format!("{examples}\n\n{EXIT_CODES}"))
    })
}

/// What a verb comes to.
type Done = Result<ExitCode, Failure>;
