//! `proglog`: a commit log on the command line and over REST.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
