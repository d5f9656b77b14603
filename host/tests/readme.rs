//! Runs what README.md shows: its commands print what it says they do, its programs are examples that run.
#![cfg(unix)]

mod program;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use program::{Running, printed, proglog};
use rustix::process::Signal;
use tempfile::tempdir;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A fenced block: its language, the number of its first line, its lines.
struct Block {
    language: String,
    line: usize,
    text: String,
}

fn blocks() -> Vec<Block> {
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in readme.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block {
                    language: language.to_owned(),
                    line: number + 2,
                    text: String::new(),
                });
            }
            (Some(_), _) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "README.md: the last block has no end");
    blocks
}

fn blocks_of(languages: &[&str]) -> Vec<Block> {
    let blocks: Vec<Block> = blocks()
        .into_iter()
        .filter(|block| languages.contains(&block.language.as_str()))
        .collect();
    assert!(!blocks.is_empty());
    blocks
}

#[test]
fn there_is_no_block_that_is_not_tried() {
    for block in blocks() {
        // Those of js by www/test/package.test.js, in a browser.
        let tried = ["text", "sh", "toml", "rust", "console", "js"];
        assert!(
            tried.contains(&block.language.as_str()),
            "README.md:{}: {:?} blocks are not tried here",
            block.line,
            block.language
        );
    }
}

#[test]
fn make_has_the_targets() {
    for block in blocks_of(&["sh"]) {
        for line in block.text.lines().filter(|line| !line.trim().is_empty()) {
            let command = line.split('#').next().unwrap();
            assert!(command.starts_with("make "), "{line}");
            let dry = format!("{} --dry-run", command.trim());
            printed(shell(&dry, Path::new(ROOT)), b"");
        }
    }
}

#[test]
fn the_packages_are_where_it_says() {
    for block in blocks_of(&["toml"]) {
        for line in block.text.lines().filter(|line| line.contains("path =")) {
            let (name, rest) = line.split_once('=').unwrap();
            let path = rest.split('"').nth(1).unwrap();
            let path = path.strip_prefix("../proglog/").expect("beside the clone");
            let manifest = Path::new(ROOT).join(path).join("Cargo.toml");
            let manifest = fs::read_to_string(manifest).unwrap();
            assert!(manifest.contains(&format!("name = \"{}\"", name.trim())));
        }
    }
}

/// The programs are those of `examples/`, word for word below their first lines, and they run.
#[test]
fn the_programs_run() {
    let examples: Vec<PathBuf> = ["core/examples", "host/examples"]
        .iter()
        .flat_map(|directory| fs::read_dir(Path::new(ROOT).join(directory)).unwrap())
        .map(|entry| entry.unwrap().path())
        .collect();
    for block in blocks_of(&["rust"]) {
        let example = examples.iter().find(|example| {
            let text = fs::read_to_string(example).unwrap();
            let program = text.lines().skip_while(|line| line.starts_with("//!"));
            program
                .skip_while(|line| line.is_empty())
                .eq(block.text.lines())
        });
        let Some(example) = example else {
            panic!("README.md:{}: no example is this program", block.line);
        };
        let directory = tempdir().unwrap();
        let mut run = example_program(example.file_stem().unwrap().to_str().unwrap());
        run.current_dir(&directory);
        printed(run, b"");
    }
}

#[test]
fn the_sandboxed_example_prints_all_there_is() {
    let directory = tempdir().unwrap();
    let embed = |event: &str| {
        let mut command = example_program("embed");
        command.current_dir(&directory).args(["events", event]);
        String::from_utf8(printed(command, b"")).unwrap()
    };
    assert_eq!(embed("started"), "0 started\n");
    assert_eq!(embed("stopped"), "0 started\n1 stopped\n");
}

/// Cargo builds the examples of a package with all its tests, beside them. What is not there yet is built now.
fn example_program(name: &str) -> Command {
    let mut path = env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.extend(["examples", name]);
    if !path.exists() {
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--workspace", "--example", name])
            .current_dir(ROOT)
            .status()
            .unwrap();
        assert!(built.success());
    }
    let mut command = Command::new(path);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The commands of each block, one after the other, print what stands below each; all blocks in one directory, as
/// one who goes through the page would have it.
#[test]
fn the_commands_print_what_it_says() {
    let directory = tempdir().unwrap();
    let server = Server::start(&directory.path().join("data"));
    for block in blocks_of(&["console"]) {
        let mut lines = block.text.lines().enumerate().peekable();
        while let Some((number, line)) = lines.next() {
            let command = line
                .strip_prefix("$ ")
                .expect("a command, or what one printed");
            let mut expected = String::new();
            while let Some((_, line)) = lines.next_if(|(_, line)| !line.starts_with("$ ")) {
                expected.push_str(line);
                expected.push('\n');
            }
            let command = server.found_in(command);
            let found = if goes_on(&command) {
                stopped(shell(&command, directory.path()))
            } else {
                let shell = shell(&command, directory.path());
                String::from_utf8(printed(shell, b"")).unwrap()
            };
            // What goes on says where, or what there was before: not all of it is shown.
            if goes_on(&command) && expected.is_empty() {
                continue;
            }
            assert_eq!(
                without_times(&found).trim_end(),
                without_times(&expected).trim_end(),
                "README.md:{}: {command}",
                block.line + number
            );
        }
    }
}

/// Whether a command ends only when it is told to.
fn goes_on(command: &str) -> bool {
    command.contains(" serve ") || command.contains(" --follow")
}

/// Starts it, lets it work, stops it as Ctrl-C does, and gives what it printed.
fn stopped(command: Command) -> String {
    let running = Running::start(command);
    thread::sleep(Duration::from_secs(1));
    running.signal(Signal::INT);
    let (code, out, err) = running.end();
    assert_eq!(code, Some(0), "{err}");
    out
}

/// A shell that finds the program, in this directory.
fn shell(command: &str, directory: &Path) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_proglog"));
    let path = env::join_paths(
        [program.parent().unwrap().to_owned()]
            .into_iter()
            .chain(env::split_paths(&env::var_os("PATH").unwrap())),
    );
    let mut shell = Command::new("bash");
    // As the program itself, that a signal reaches it.
    let command = match goes_on(command) {
        true => format!("exec {command}"),
        false => command.to_owned(),
    };
    shell
        .args(["-euo", "pipefail", "-c", &command])
        .env("PATH", path.unwrap())
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    shell
}

/// What `make run` starts, on a port that is free.
struct Server {
    _running: Running,
    address: String,
}

impl Server {
    fn start(data: &Path) -> Self {
        let listen = &"127.0.0.1:0";
        let serve = proglog("wasm", "serve", &[&"--dir", &data, &"--listen", listen]);
        let mut running = Running::start(serve);
        let line = running.line();
        let address = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix("http://"))
            .unwrap_or_else(|| panic!("no address in {line:?}"));
        Self {
            address: address.trim_end_matches('/').to_owned(),
            _running: running,
        }
    }

    /// A command that finds this server where it says the other.
    fn found_in(&self, command: &str) -> String {
        command
            .replace("-sS ", "")
            .replace("curl ", "curl -sS ")
            .replace("localhost:8080", &self.address)
            .replace("127.0.0.1:8080", &self.address)
            .replace("127.0.0.1:8082", "127.0.0.1:0")
    }
}

/// With the same time wherever one stands.
fn without_times(text: &str) -> String {
    let mut rest = text;
    let mut result = String::new();
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let end = rest[start..]
            .find(|c: char| !(c.is_ascii_digit() || "-:TZ.".contains(c)))
            .map_or(rest.len(), |length| start + length);
        let word = &rest[start..end];
        // 2026-11-22T12:45:58.520Z, or milliseconds since 1970.
        let is_time = word.len() == 24 && word.ends_with('Z')
            || word.len() == 13 && word.bytes().all(|byte| byte.is_ascii_digit());
        result.push_str(&rest[..start]);
        result.push_str(if is_time { "TIME" } else { word });
        rest = &rest[end..];
    }
    result + rest
}
