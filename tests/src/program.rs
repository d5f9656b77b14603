//! The program `proglog`, run as a user runs it.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
};

use fastrand::Rng;

/// The engines by their names on the command line.
pub const ENGINES: [&str; 2] = ["wasm", "native"];

/// A command that runs the program as it stands in this workspace: it is built first if it has to be.
/// PROGLOG_BIN names another one.
#[must_use]
pub fn proglog() -> Command {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    let program =
        PROGRAM.get_or_init(|| env::var_os("PROGLOG_BIN").map_or_else(build, PathBuf::from));
    Command::new(program)
}

/// Runs the program with these arguments to its end.
///
/// # Panics
///
/// It fails.
pub fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    let mut command = proglog();
    let output = command.args(arguments).output().expect("the program runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?} gives {}: {told}",
        output.status
    );
    output
}

/// What acknowledges records that survive the process being killed, as an option's value.
pub fn durability_beyond_a_kill(rng: &mut Rng) -> &'static str {
    if rng.bool() { "synced" } else { "written" }
}

/// A program that runs until it is killed, at the latest when this is dropped.
pub struct Running(Child);

impl Running {
    /// Starts it, and talks to it over pipes.
    ///
    /// # Panics
    ///
    /// It cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(command.spawn().expect("the program runs"))
    }

    /// Its ends of the pipes; once.
    ///
    /// # Panics
    ///
    /// They were taken.
    pub fn pipes(&mut self) -> (ChildStdin, ChildStdout, ChildStderr) {
        let Child {
            stdin,
            stdout,
            stderr,
            ..
        } = &mut self.0;
        let pipes = stdin.take().zip(stdout.take()).zip(stderr.take());
        let ((stdin, stdout), stderr) = pipes.expect("the pipes were not taken");
        (stdin, stdout, stderr)
    }

    /// How it ended, if it did by itself.
    ///
    /// # Panics
    ///
    /// The system does not know it.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().expect("it is a child of this process")
    }

    /// `kill -9`; it is gone when this returns.
    ///
    /// # Panics
    ///
    /// It cannot be killed.
    pub fn kill(&mut self) {
        self.0.kill().expect("it is a child of this process");
        self.0.wait().expect("it is a child of this process");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds the program with the profile and into the directory of this test, and says where it is. Cargo
/// does not do it for a test of another package.
fn build() -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let directory = test
        .ancestors()
        .nth(2)
        .expect("target/PROFILE/deps/TEST")
        .to_owned();
    let target = directory.parent().expect("target/PROFILE");
    let profile = match directory.file_name().and_then(OsStr::to_str) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args([
        "build",
        "--quiet",
        "--package",
        "proglog-host",
        "--bin",
        "proglog",
        "--profile",
        profile,
    ]);
    cargo
        .arg("--target-dir")
        .arg(target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    // What cargo tells the tests of this package is not meant for a build of another.
    for (name, _) in
        env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_PKG_"))
    {
        cargo.env_remove(name);
    }
    let output = cargo
        .output()
        .unwrap_or_else(|error| panic!("{cargo:?}: {error}"));
    assert!(
        output.status.success(),
        "{cargo:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    directory.join(format!("proglog{}", env::consts::EXE_SUFFIX))
}
