//! What the program says where it cannot do what it is told: one form, one exit code a reason, the same words
//! whichever engine runs the log.
#![cfg(unix)]

mod program;

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use proglog::{Log, Options};
use program::{NewLog, failed, flip_a_bit, json_lines, on_both_engines, printed, proglog, stderr};
use serde_json::json;
use tempfile::tempdir;

const VERBS: [&str; 14] = [
    "append", "read", "tail", "info", "dump", "verify", "repair", "export", "import", "truncate",
    "compact", "snapshot", "upgrade", "serve",
];
/// Those that no log is given.
const VERBS_WITHOUT_LOG: [&str; 2] = ["completions", "man"];

/// Command lines, and for each of them its exit code and what it says.
const FAILURES: &str = include_str!("program/failures.txt");

#[test]
fn each_failure_has_one_form_and_the_same_words_from_both_engines() {
    let root = tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    for engine in ["wasm", "native"] {
        let log = |name: &str, input: &[u8]| {
            printed(proglog(engine, "append", &[&path(name)]), input);
        };
        log("log", b"zero\none\n");
        log("begun", b"");
        log("damaged", b"zero\none\n");
        log("locked", b"");
        flip_a_bit(&path("damaged").join("0.store"), b"zero");
        for name in ["empty", "linked", "folder/0.store"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink("nowhere", path("linked/0.store")).unwrap();
        let _writer = Log::open(path("locked"), Options::new()).unwrap();

        let mut lines = FAILURES
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut cases = 0;
        while let (Some(typed), Some(told)) = (lines.next(), lines.next()) {
            let mut shell = Command::new("sh");
            shell.args(["-c", &shell_line(typed, engine)]);
            shell.current_dir(root.path());
            shell
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let (exit, error) = failed(shell, b"");
            assert_eq!(
                format!("{exit} {error}"),
                format!("{told}\n"),
                "{typed} with {engine}"
            );
            cases += 1;
        }
        assert!(cases > 40, "{cases}");
        for name in ["missing", "new"] {
            assert!(!path(name).exists(), "{name} was made");
        }
        assert_eq!(fs::read(path("file")).unwrap(), b"text");
        for entry in fs::read_dir(root.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            }
        }
    }
}

/// As it is typed, but of the program that was built, and with an engine.
fn shell_line(typed: &str, engine: &str) -> String {
    let (before, args) = typed
        .strip_prefix("$ ")
        .and_then(|typed| typed.split_once("proglog "))
        .unwrap();
    let verb = args.split(' ').next().unwrap();
    let engine = if VERBS_WITHOUT_LOG.contains(&verb) {
        String::new()
    } else {
        format!("--engine {engine}")
    };
    format!(
        "{before}'{}' {args} {engine}",
        env!("CARGO_BIN_EXE_proglog")
    )
}

on_both_engines!(failures_are_json_where_that_is_asked_for);

#[cfg(target_os = "linux")]
mod full_output {
    use super::{a_report_that_standard_output_does_not_take_is_told, on_both_engines};

    on_both_engines!(a_report_that_standard_output_does_not_take_is_told);
}

fn failures_are_json_where_that_is_asked_for(engine: &str) {
    let log = NewLog::new(engine);
    for verb in ["read", "tail", "info", "dump", "verify", "export"] {
        let offset: &[&str] = if verb == "read" { &["0"] } else { &[] };
        let failed_json = |more: &[&str]| {
            let mut command = log.verb(verb, &[&"--json"]);
            command.args(offset).args(more);
            let (exit, error) = failed(command, b"");
            let told = json_lines(error.as_bytes()).remove(0);
            assert_eq!(error.lines().count(), 1, "{error}");
            (exit, told["kind"].clone())
        };
        assert_eq!(failed_json(&[]), (4, json!("not_found")), "{verb}");
        assert_eq!(
            failed_json(&["--no-such"]),
            (2, json!("invalid_argument")),
            "{verb}"
        );
        assert!(!log.dir.exists());
    }
}

#[test]
fn no_command_at_all_is_told_what_there_is() {
    let mut nothing = Command::new(env!("CARGO_BIN_EXE_proglog"));
    let output = nothing.output().unwrap();
    assert_eq!((output.status.code(), &*output.stdout), (Some(2), &b""[..]));
    let error = stderr(&output);
    let said = "proglog: no command was given; choose one of these\n";
    assert!(error.starts_with(said), "{error}");
    for verb in VERBS.iter().chain(&VERBS_WITHOUT_LOG) {
        assert!(error.contains(&format!("\n  {verb} ")), "{error}");
    }
}

#[test]
fn help_has_examples_and_exit_codes_for_every_verb() {
    let help = |args: &[&str]| {
        let mut proglog = Command::new(env!("CARGO_BIN_EXE_proglog"));
        String::from_utf8(proglog.args(args).output().unwrap().stdout).unwrap()
    };
    let overview = help(&["--help"]);
    assert_eq!(help(&["help"]), overview);
    let codes = exit_codes(&overview);
    let numbers: Vec<_> = codes.iter().map(|(code, _)| *code).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 130, 143]);
    for verb in VERBS.into_iter().chain(VERBS_WITHOUT_LOG) {
        assert!(overview.contains(&format!("  {verb} ")), "{overview}");
        let text = help(&[verb, "--help"]);
        assert!(text.contains(&format!("  proglog {verb} ")), "{text}");
        let has_engine = text.contains("--engine <ENGINE>");
        assert_eq!(has_engine, VERBS.contains(&verb), "{text}");
        assert_eq!(exit_codes(&text), codes, "{verb}");
        assert_eq!(help(&["help", verb]), text);
    }

    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    for (code, meaning) in codes {
        let row = format!("| {code} | {meaning} |\n");
        assert!(readme.contains(&row), "README.md has no {row}");
    }
}

#[test]
fn help_says_what_survives_what() {
    for verb in ["append", "serve"] {
        let mut help = Command::new(env!("CARGO_BIN_EXE_proglog"));
        let help = help.args([verb, "--help"]).output().unwrap().stdout;
        let help = String::from_utf8(help).unwrap();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for said in [
            "synced: On stable storage: survives power loss, and the process being killed",
            "written: With the operating system: survives the process being killed, not power loss",
            "buffered: In the process's buffer, until that fills or --sync-interval-ms has passed: survives neither",
        ] {
            assert!(help.contains(said), "{said} in {help}");
        }
        // Only `synced` promises that.
        assert!(!help.contains("durable"), "{help}");
    }
}

/// The table of them in a text of help.
fn exit_codes(help: &str) -> Vec<(u8, &str)> {
    let (_, table) = help
        .split_once("Exit codes, the same for every command:\n")
        .unwrap();
    table
        .lines()
        .map_while(|line| line.trim_start().split_once("  "))
        .map_while(|(code, meaning)| Some((code.parse().ok()?, meaning)))
        .collect()
}

/// What was done cannot be asked for again.
#[cfg(target_os = "linux")]
fn a_report_that_standard_output_does_not_take_is_told(engine: &str) {
    let on_full = |verb: &str, args: &[&dyn AsRef<OsStr>]| {
        let mut command = proglog(engine, verb, args);
        let full = File::options().write(true).open("/dev/full").unwrap();
        command.stdout(full);
        let (exit, error) = failed(command, b"x\n");
        let said = "proglog: could not write to standard output: No space left on device; it was done all the same, as \
                    said before this\n";
        let told = error
            .strip_suffix(said)
            .unwrap_or_else(|| panic!("{error}"));
        (exit, told.to_owned())
    };
    let log = NewLog::new(engine);
    let appended = "appended 0..=0 (1 record)\n".to_owned();
    assert_eq!(on_full("append", &[&log.dir]), (4, appended));
    log.append(&[], b"second");
    flip_a_bit(&log.dir.join("0.store"), b"second");
    let (exit, told) = on_full("repair", &[&log.dir]);
    assert!(
        told.starts_with("LOST       segment 0, offsets 1..=1: "),
        "{told}"
    );
    assert!(
        told.ends_with("repaired   1 record lost; 1 segment written anew\n"),
        "{told}"
    );
    assert_eq!(exit, 4);
    let removed = "removed 1..=1 (1 record, 0 whole segments)\nleft: 0..=0\n".to_owned();
    let after = on_full("truncate", &[&log.dir, &"--after", &"0"]);
    assert_eq!(after, (4, removed));
    let copy = log.path().join("copy");
    let (exit, told) = on_full("upgrade", &[&log.dir, &copy]);
    assert!(told.ends_with("upgraded   0..=0 (1 record)\n"), "{told}");
    assert_eq!(exit, 4);
}
