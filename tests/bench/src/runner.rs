//! How rows are run: interleaved rounds, each measurement a process with a fresh directory, and nothing of
//! another's left to write back.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::{
    rows::{Contender, Row},
    workload::Data,
};

/// What a measurement's output begins its number with.
pub const NUMBER: &str = "number ";
const TIMEOUT: Duration = Duration::from_secs(240);
/// Who takes longer than this for a measurement is measured twice and no more.
const SLOW: Duration = Duration::from_secs(4);

pub struct Runner {
    directory: PathBuf,
    quick: bool,
    rounds: usize,
    /// Logs that are there, or why they cannot be made.
    made: BTreeMap<PathBuf, Result<(), String>>,
}

/// A row's numbers: for each contender one a round, or why there are none.
pub struct Outcome {
    pub row: Row,
    pub numbers: Vec<Result<Vec<f64>, String>>,
}

impl Outcome {
    pub fn of(&self, name: &str) -> Option<&[f64]> {
        let at = self.row.contenders.iter().position(|c| c.name == name)?;
        self.numbers[at].as_deref().ok()
    }
}

impl Runner {
    pub fn new(directory: PathBuf, quick: bool, rounds: usize) -> Result<Self> {
        remove(&directory)?;
        fs::create_dir_all(directory.join("data"))?;
        // What else was read lately would take the memory that the logs of 10 GiB need. Only root may, and only
        // on Linux; elsewhere it stays.
        let _ = fs::write("/proc/sys/vm/drop_caches", "1");
        Ok(Self {
            directory,
            quick,
            rounds,
            made: BTreeMap::new(),
        })
    }

    /// Runs every contender once a round, in an order that is rotated.
    pub fn run(&mut self, row: Row) -> Outcome {
        let rounds = if row.once { 1 } else { self.rounds };
        let mut numbers = vec![Ok(Vec::new()); row.contenders.len()];
        let mut slow = vec![false; row.contenders.len()];
        for round in 0..rounds {
            for turn in 0..row.contenders.len() {
                let at = (turn + round) % row.contenders.len();
                let Ok(of_contender) = &mut numbers[at] else {
                    continue;
                };
                if round >= 2 && slow[at] {
                    continue;
                }
                let start = Instant::now();
                match self.measure(&row, &row.contenders[at]) {
                    Ok(number) => of_contender.push(number),
                    Err(e) => numbers[at] = Err(format!("{e:#}")),
                }
                slow[at] |= round > 0 && start.elapsed() > SLOW;
            }
        }
        Outcome { row, numbers }
    }

    fn measure(&mut self, row: &Row, contender: &Contender) -> Result<f64> {
        let data = contender.workload.data();
        let directory = match data {
            Data::Fresh => self.fresh()?,
            Data::Closed { .. } | Data::Grown { .. } | Data::Segments { .. } => {
                self.made(row, contender, data)?
            }
            Data::Killed => {
                let made = self.made(row, contender, data)?;
                let fresh = self.fresh()?;
                copy(&made, &fresh)?;
                fresh
            }
        };
        if let Data::Grown { .. } = data {
            // Two logs of 10 GiB are more than the page cache holds.
            for (other, made) in &self.made {
                if *other != directory && made.is_ok() {
                    forget_cached(other)?;
                }
            }
        }
        settle(&self.directory)?;
        let output = self.run_process("measure", row, contender, &directory)?;
        remove(&self.directory.join("fresh"))?;
        let number = output.lines().find_map(|line| line.strip_prefix(NUMBER));
        Ok(number.context("no number")?.trim().parse()?)
    }

    /// An empty directory.
    fn fresh(&self) -> Result<PathBuf> {
        let path = self.directory.join("fresh");
        remove(&path)?;
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// The log that the workload finds, made by the first who needs it.
    fn made(&mut self, row: &Row, contender: &Contender, data: Data) -> Result<PathBuf> {
        // The floor of a recovery reads what proglog left.
        let of = if data == Data::Killed && contender.kind.name == crate::floors::CHECK_NEWEST.name
        {
            "proglog"
        } else {
            contender.kind.name
        };
        let path = self.data_path(of, data);
        if !self.made.contains_key(&path) {
            fs::create_dir(&path)?;
            let filler = row.contenders.iter().find(|c| c.kind.name == of);
            let filler = filler.filter(|_| contender.kind.name != of);
            let made = self.run_process("fill", row, filler.unwrap_or(contender), &path);
            let made = made.and_then(|_| {
                settle(&path)?;
                forget_cached(&path)
            });
            let made = made.map_err(|e| format!("{e:#}"));
            self.made.insert(path.clone(), made);
        }
        match &self.made[&path] {
            Ok(()) => Ok(path),
            Err(e) => Err(anyhow!("its log could not be made: {e}")),
        }
    }

    fn data_path(&self, name: &str, data: Data) -> PathBuf {
        let what = format!("{name} {data:?}");
        let slug = what.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        self.directory.join("data").join(slug)
    }

    /// Removes the logs that none of the later rows reads.
    pub fn forget_all_but(&mut self, later: &[Row]) -> Result<()> {
        let contenders = || later.iter().flat_map(|row| &row.contenders);
        let needed: Vec<PathBuf> = contenders()
            .map(|c| self.data_path(c.kind.name, c.workload.data()))
            .collect();
        let unneeded: Vec<PathBuf> = self
            .made
            .keys()
            .filter(|p| !needed.contains(p))
            .cloned()
            .collect();
        for path in unneeded {
            remove(&path)?;
            self.made.remove(&path);
        }
        Ok(())
    }

    pub fn finish(self) -> Result<()> {
        remove(&self.directory)
    }

    /// This program again, for one measurement.
    fn run_process(
        &self,
        what: &str,
        row: &Row,
        contender: &Contender,
        directory: &Path,
    ) -> Result<String> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([what, row.id, contender.name]).arg(directory);
        if self.quick {
            command.arg("--quick");
        }
        let child = command
            .env("WALRUS_QUIET", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let killed = contender.workload.data() == Data::Killed && what == "fill";
        wait(child, killed)
    }
}

/// Waits for a measurement; what it said.
fn wait(mut child: Child, killed: bool) -> Result<String> {
    let read = |mut from: Box<dyn io::Read + Send>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            from.read_to_end(&mut text).map(|_| text)
        })
    };
    let stdout = read(Box::new(child.stdout.take().context("no stdout")?));
    let stderr = read(Box::new(child.stderr.take().context("no stderr")?));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > TIMEOUT {
            child.kill()?;
            child.wait()?;
            bail!("not done after {} s", TIMEOUT.as_secs());
        }
        thread::sleep(Duration::from_millis(1));
    };
    let text = |reader: thread::JoinHandle<io::Result<Vec<u8>>>| -> Result<String> {
        let text = reader.join().ok().context("a reader panicked")??;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    let (stdout, stderr) = (text(stdout)?, text(stderr)?);
    let as_asked = status.success() || (killed && status.code().is_none());
    if !as_asked {
        let lines: Vec<&str> = stderr
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let said = lines.iter().find(|line| line.starts_with("Error: "));
        let said = said.or(lines.last()).copied().unwrap_or("no word");
        bail!("{}", said.trim_start_matches("Error: "));
    }
    Ok(stdout)
}

/// Writes back what is dirty, so that it does not fall on who is timed next.
pub fn settle(directory: &Path) -> Result<()> {
    let directory = File::open(directory)?;
    // SAFETY: the descriptor is open for as long as `directory` lives.
    let code = unsafe { libc::syncfs(directory.as_raw_fd()) };
    ensure!(code == 0, "syncfs: {}", io::Error::last_os_error());
    Ok(())
}

/// Takes the files out of the page cache, so that who reads them next has them in the folios that the
/// kernel's read-ahead makes, and not in those of the writes that made them.
fn forget_cached(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            forget_cached(&path)?;
            continue;
        }
        let file = File::open(path)?;
        // SAFETY: the descriptor is open for as long as `file` lives; the advice changes no byte.
        let code =
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        ensure!(code == 0, "posix_fadvise: {code}");
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}

/// Copies a directory with its holes.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp")
        .args(["--archive", "--sparse=auto"])
        .arg(from.join("."))
        .arg(to)
        .status()?;
    ensure!(status.success(), "cp failed");
    Ok(())
}
