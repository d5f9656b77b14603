//! Command lines that the parser refuses, told as all other errors are.

use std::process::ExitCode;

use clap::{
    Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

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
            let mut what = on_one_line(error);
            if let Some(option) = option_of(error, command, args) {
                // The parser takes what begins with a hyphen for an option, and its tip for an operand.
                let (wrong, _) = what.split_once(';').unwrap_or((&what, ""));
                what = format!("{wrong}; if it is the value of {option}, write {option}=VALUE");
            } else if let Some(directory) = directory_of(error, command, args) {
                what = format!("{what}; if it is the log's directory, write --dir {directory}");
            }
            let message = format!("{what}; see `proglog{verb} --help`");
            Failure::usage(message).report(as_json)
        }
    }
}

/// The option whose value an argument seems to be that is not known.
fn option_of<'a>(error: &Error, command: &Command, args: &'a [String]) -> Option<&'a str> {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let verb = command.find_subcommand(args.get(1)?)?;
    let takes_value = |option: &str| {
        let mut known = verb.get_arguments();
        known.any(|arg| {
            arg.get_long()
                .is_some_and(|long| option == format!("--{long}"))
                && arg.get_action().takes_values()
        })
    };
    let mut pairs = args.windows(2).filter(|pair| pair[1].starts_with(unknown));
    let option = pairs.find(|pair| takes_value(&pair[0]))?[0].as_str();
    Some(option)
}

/// An argument that is not known and may be meant as the log's directory, which this verb takes by an option.
fn directory_of<'a>(error: &'a Error, command: &Command, args: &[String]) -> Option<&'a str> {
    let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let verb = command.find_subcommand(args.get(1)?)?;
    let takes_directory = verb
        .get_arguments()
        .any(|arg| arg.get_long() == Some("dir"));
    let is_operand = !unknown.starts_with('-') && !args.iter().any(|arg| arg.starts_with("--dir"));
    (takes_directory && is_operand).then_some(unknown)
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
