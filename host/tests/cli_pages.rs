//! What is made of the command line's own description: completions for shells, and manual pages.
#![cfg(unix)]

use std::{
    fs,
    io::Write,
    process::{Command, Output, Stdio},
};

use tempfile::tempdir;

fn proglog(args: &[&str]) -> Output {
    let mut proglog = Command::new(env!("CARGO_BIN_EXE_proglog"));
    proglog.args(args).output().unwrap()
}

fn printed(args: &[&str]) -> String {
    let output = proglog(args);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that the overview lists.
fn verbs() -> Vec<String> {
    let help = printed(&["--help"]);
    let (_, listed) = help.split_once("\nCommands:\n").unwrap();
    let (listed, _) = listed.split_once("\n\n").unwrap();
    let names = listed.lines().filter(|line| !line.starts_with("    "));
    let names = names.map(|line| line.split_whitespace().next().unwrap().to_owned());
    names.filter(|name| name != "help").collect()
}

/// The options that a verb's help lists.
fn options(verb: &str) -> Vec<String> {
    let help = printed(&[verb, "--help"]);
    let starts = help.lines().filter_map(|line| {
        let line = line.trim_start();
        let option = &line[line.find("--")?..];
        (line.starts_with('-')).then(|| option.split([' ', ',']).next().unwrap().to_owned())
    });
    starts.collect()
}

#[test]
fn bash_completes_every_verb_and_option() {
    let script = printed(&["completions", "bash"]);
    let directory = tempdir().unwrap();
    let path = directory.path().join("proglog.bash");
    fs::write(&path, &script).unwrap();
    let parsed = Command::new("bash").arg("-n").arg(&path).output().unwrap();
    assert!(parsed.status.success(), "{parsed:?}");

    let complete = |words: &[&str]| {
        let typed = format!(
            "source '{}'; COMP_WORDS=(proglog {}); COMP_CWORD={}; _proglog proglog \"${{COMP_WORDS[COMP_CWORD]}}\" \
             \"${{COMP_WORDS[COMP_CWORD-1]}}\"; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            path.display(),
            words.join(" "),
            words.len(),
        );
        let output = Command::new("bash").args(["-c", &typed]).output().unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        let replies = String::from_utf8(output.stdout).unwrap();
        replies.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["trunc"]), ["truncate"]);
    assert_eq!(complete(&["verify", "--thr"]), ["--threads"]);
    let verbs = verbs();
    assert!(verbs.len() > 10, "{verbs:?}");
    for verb in &verbs {
        assert_eq!(complete(&[verb]), [verb.as_str()]);
        let options = options(verb);
        assert!(options.contains(&"--help".to_owned()), "{options:?}");
        for option in options {
            assert!(
                complete(&[verb, &option]).contains(&option),
                "{verb} {option}"
            );
        }
    }
}

#[test]
fn there_are_completions_for_other_shells() {
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let script = printed(&["completions", shell]);
        for verb in verbs() {
            assert!(script.contains(&verb), "{shell} {verb}");
        }
    }
}

#[test]
fn every_verb_has_its_page_with_options_examples_and_exit_codes() {
    let directory = tempdir().unwrap();
    let pages = directory.path().join("share/man1");
    let dir = pages.to_str().unwrap();
    let verbs = verbs();
    let told = printed(&["man", "--dir", dir]);
    assert_eq!(told, format!("wrote {} pages to {dir}\n", verbs.len() + 1));
    let mut names: Vec<_> = fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let named = verbs.iter().map(|verb| format!("proglog-{verb}.1"));
    let mut expected: Vec<_> = named.chain(["proglog.1".to_owned()]).collect();
    names.sort();
    expected.sort();
    assert_eq!(names, expected);

    let help = printed(&["--help"]);
    let (_, codes) = help.split_once("for every command:\n").unwrap();
    let codes: Vec<_> = codes
        .lines()
        .map_while(|row| row.trim_start().split_once("  "))
        .collect();
    assert_eq!(codes.len(), 9);
    for name in names {
        let page = fs::read_to_string(pages.join(&name)).unwrap();
        // Without what roff needs.
        let text = page
            .replace("\\-", "-")
            .replace("\\fB", "")
            .replace("\\fR", "");
        for section in ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES"] {
            assert!(
                page.contains(&format!("\n.SH {section}\n")),
                "{section} of {name}"
            );
        }
        let (_, status) = text.split_once(".SH \"EXIT STATUS\"\n").unwrap();
        for (code, meaning) in &codes {
            let row = format!(".TP\n{code}\n{meaning}\n");
            assert!(status.contains(&row), "{row} of {name}: {status}");
        }
        let verb = name
            .strip_prefix("proglog-")
            .and_then(|name| name.strip_suffix(".1"));
        let (_, examples) = text.split_once(".SH EXAMPLES\n.nf\n").unwrap();
        let (examples, _) = examples.split_once(".fi\n").unwrap();
        assert!(
            examples.contains(&format!("proglog {}", verb.unwrap_or_default())),
            "{page}"
        );
        assert!(!examples.contains("Example"), "{examples}");
        match verb {
            Some(verb) => {
                for option in options(verb) {
                    assert!(text.contains(&option), "{option} of {name}");
                }
                assert_eq!(printed(&["man", verb]), page);
            }
            None => {
                for verb in &verbs {
                    assert!(text.contains(&format!("proglog-{verb}(1)")), "{verb}");
                }
                assert_eq!(printed(&["man"]), page);
            }
        }
        assert_reads(&page, &name);
    }
    let told = printed(&["man", "--dir", dir, "--json"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["pages"].as_array().unwrap().len(), verbs.len() + 1);
    assert_eq!(told["pages"][0], "proglog.1");
}

/// Where there is a program to read it, it has nothing to say against it.
fn assert_reads(page: &str, name: &str) {
    let groff = Command::new("groff")
        // But that a line of JSON has no place to be broken.
        .args(["-Kutf8", "-man", "-Tutf8", "-Wbreak", "-z"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut groff) = groff else { return };
    groff
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let output = groff.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{name}: {output:?}");
}
