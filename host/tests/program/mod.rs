//! Runs the real program.
#![allow(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "each test crate uses a part of it"
)]

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Output, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::{TempDir, tempdir};

/// Makes a test of each function for each engine, which the function is told by name.
macro_rules! on_both_engines {
    ($($test:ident),* $(,)?) => {
        mod wasm { $(#[test] fn $test() { super::$test("wasm"); })* }
        mod native { $(#[test] fn $test() { super::$test("native"); })* }
    };
}
pub(crate) use on_both_engines;

/// The program with a verb, an engine and more arguments.
pub(crate) fn proglog(engine: &str, verb: &str, args: &[&dyn AsRef<OsStr>]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_proglog"));
    command
        .arg(verb)
        .args(["--engine", engine])
        .args(args.iter().map(|arg| arg.as_ref()));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it with an input, to its end.
pub(crate) fn run(mut command: Command, input: &[u8]) -> Output {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        // It may end without reading all of its input.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().unwrap()
    })
}

/// Runs it and returns what it printed, after checking that it did well and quietly.
pub(crate) fn printed(command: Command, input: &[u8]) -> Vec<u8> {
    let output = run(command, input);
    assert_eq!(stderr(&output), "");
    assert_eq!(output.status.code(), Some(0));
    output.stdout
}

/// Runs it and returns its exit code and what it said on standard error.
pub(crate) fn failed(command: Command, input: &[u8]) -> (i32, String) {
    let output = run(command, input);
    (output.status.code().unwrap(), stderr(&output))
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// The names and bytes of the files of a directory.
pub(crate) fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

/// A program that goes on running. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
    stderr: BufReader<ChildStderr>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().map(BufReader::new);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self {
            child,
            stdin,
            stdout,
            stderr,
        }
    }

    pub(crate) fn write(&mut self, input: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(input).unwrap();
    }

    /// Waits for the next line it prints, and returns it with its newline.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        line
    }

    /// Waits for the next line it says on standard error, and returns it with its newline.
    pub(crate) fn error_line(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line
    }

    /// Closes the pipe that it prints to.
    pub(crate) fn close_stdout(&mut self) {
        self.stdout = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for its end, and returns its exit code and what was left of its output and errors.
    pub(crate) fn end(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut err) = (String::new(), String::new());
        if let Some(mut stdout) = self.stdout.take() {
            stdout.read_to_string(&mut out).unwrap();
        }
        self.stderr.read_to_string(&mut err).unwrap();
        (self.child.wait().unwrap().code(), out, err)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A log that is made by the first append.
pub(crate) struct NewLog {
    engine: String,
    root: TempDir,
    pub(crate) dir: PathBuf,
}

impl NewLog {
    pub(crate) fn new(engine: &str) -> Self {
        let root = tempdir().unwrap();
        let dir = root.path().join("log");
        Self {
            engine: engine.to_owned(),
            root,
            dir,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn engine(&self) -> &str {
        &self.engine
    }

    pub(crate) fn verb(&self, verb: &str, args: &[&dyn AsRef<OsStr>]) -> Command {
        let mut all: Vec<&dyn AsRef<OsStr>> = vec![&self.dir];
        all.extend(args);
        proglog(&self.engine, verb, &all)
    }

    pub(crate) fn append(&self, args: &[&str], input: &[u8]) -> String {
        let mut append = self.verb("append", &[]);
        append.args(args);
        String::from_utf8(printed(append, input)).unwrap()
    }

    pub(crate) fn append_json(&self, args: &[&str], input: &[u8]) -> Value {
        let appended = self.append(&[args, &["--json"]].concat(), input);
        json_lines(appended.as_bytes()).remove(0)
    }

    /// Every record, printed by tail.
    pub(crate) fn all(&self, args: &[&str]) -> Vec<u8> {
        let mut tail = self.verb("tail", &[&"--from", &"0"]);
        tail.args(args);
        printed(tail, b"")
    }

    pub(crate) fn info(&self) -> Value {
        json_lines(&printed(self.verb("info", &[&"--json"]), b"")).remove(0)
    }
}

pub(crate) fn json_lines(text: &[u8]) -> Vec<Value> {
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// Flips a bit of the first of these bytes in a file, and returns where.
pub(crate) fn flip_a_bit(file: &Path, bytes: &[u8]) -> u64 {
    let mut contents = fs::read(file).unwrap();
    let at = contents
        .windows(bytes.len())
        .position(|window| window == bytes)
        .unwrap();
    contents[at] ^= 1;
    fs::write(file, contents).unwrap();
    at as u64
}
