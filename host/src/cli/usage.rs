//! Command lines that the parser refuses, told as all other errors are.

use std::process::ExitCode;

use clap::{Command, Error, error::ErrorKind};

use super::failure::{Failure, exit};

/// Prints what was asked for instead of a verb, or says what is wrong with these arguments.
pub(crate) fn report(error: &Error, command: &Command, args: &[String]) -> ExitCode {
    let as_json = args.iter().any(|arg| arg == "--json");
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // Whoever reads it may have gone: `proglog --help | head -1`.
            let _ = error.print();
            ExitCode::SUCCESS
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let failure = Failure::usage("no command was given; choose one of these");
            failure.report(as_json);
            // On standard error; the exit code tells it too.
            let _ = error.print();
            ExitCode::from(exit::USAGE)
        }
        _ => {
            let verb = args.get(1).and_then(|arg| command.find_subcommand(arg));
            let verb = verb.map_or(String::new(), |verb| format!(" {}", verb.get_name()));
            let message = format!("{}; see `proglog{verb} --help`", on_one_line(error));
            Failure::usage(message).report(as_json)
        }
    }
}

/// What is wrong and the parser's tips. It puts the usage and where to find help after them, which `--help` has.
fn on_one_line(error: &Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (text, _) = text.split_once("\nUsage: ").unwrap_or((text, ""));
    let (text, _) = text
        .split_once("\nFor more information")
        .unwrap_or((text, ""));
    let mut line = String::new();
    for part in text.lines().map(str::trim).filter(|part| !part.is_empty()) {
        match part.strip_prefix("tip: ") {
            Some(tip) => line = line + "; " + tip,
            None if line.is_empty() => part.clone_into(&mut line),
            None => line = line + " " + part,
        }
    }
    line
}
