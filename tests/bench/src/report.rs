//! The tables, as Markdown, and the file they are in.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    judge::judge,
    plot,
    proglog::RESERVED,
    rows::{Check, Unit},
    runner::Outcome,
    stats::Spread,
    subject::Group,
    workload::Workload,
};

/// How it was run.
pub struct Run {
    pub rounds: usize,
    pub seconds: u64,
    pub quick: bool,
    pub long: bool,
    pub directory: PathBuf,
    /// The load average when it began.
    pub load: String,
}

/// Writes `BENCHMARKS.md` and the plots below `root`.
pub fn write(root: &Path, run: &Run, outcomes: &[Outcome]) -> Result<()> {
    let plots = Path::new("tests/bench/plots");
    match fs::remove_dir_all(root.join(plots)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
        _ => fs::create_dir_all(root.join(plots))?,
    }
    let path = root.join("BENCHMARKS.md");
    let before = fs::read_to_string(&path).unwrap_or_default();
    let mut text = head(run);
    text.push_str(&goals(outcomes));
    for heading in BY_HAND {
        text.push_str(&kept(&before, heading));
    }
    text.push_str(READING);
    for outcome in outcomes {
        text.push_str(&table(outcome));
        if let Some(svg) = plot::bars(outcome) {
            let path = plots.join(format!("{}.svg", outcome.row.id));
            fs::write(root.join(&path), svg)?;
            writeln!(text, "![{}]({})\n", outcome.row.title, path.display())?;
        }
    }
    Ok(fs::write(path, text.trim_end().to_owned() + "\n")?)
}

/// The parts that are written by hand.
const BY_HAND: [&str; 4] = [
    "## Missed, and why\n",
    "## In the browser\n",
    "## Append to wake\n",
    "## Compression, and why not\n",
];

/// A part as it stood before.
fn kept(before: &str, heading: &str) -> String {
    let text = before.split_once(heading).map_or("", |(_, after)| after);
    let text = text.split("\n## ").next().unwrap_or_default().trim();
    format!("{heading}\n{text}\n\n")
}

const READING: &str = "\
## How to read the tables

Only ratios travel: the machine's own speed drifts by a third within minutes, and more when it has other
work. So every subject runs once a round, the order rotates, and a ratio is taken within a round; medians
are shown, with the least and the greatest. Each measurement is a process of its own with a fresh directory
(logs that are only read are made once and shared), after everything dirty was written back. Files that are
read are in the page cache, where they came by being read from the disk. A part takes 200 ms, or less where
512 MiB are written before; who takes more than 4 s is run twice only.

* A *floor* is the least that has to be done, in a few lines of our own: values in a frame of eight bytes of
  length and nine of checksum, XXH3 as in proglog, unless \"no checksum\" is said. *Zero-filled*: zeros were
  written to the file beforehand, by 64 KiB a `pwrite` unless said, and synced; their pages are still
  cached. *Fallocated*: blocks reserved, nothing written. *Growing*, or nothing said: neither.
* *proglog, space reserved*: `Log::reserve` made as much ready beforehand as a floor that is zero-filled has. Without
  it a new log grows, and is then beside the floors that grow; one that has rested is in between.
* *Kept* is what a record survives at the moment that the append returns (for batches, that the sync
  returns): nothing, `kill -9`, or a power cut. Some peers have no weaker promise to offer, or no stronger.
* Peers run in the configuration that was found fastest for the promise asked for, with compression off or
  without effect: values are random bytes. `-` is followed by the reason below the table. laminarmq reads
  some 30 thousand records a second, and so takes part only in what appends.
* Every reader adds up all bytes of all values, and the sums are compared.

";

fn head(run: &Run) -> String {
    let mut command = format!("make bench ROUNDS={}", run.rounds);
    if run.quick {
        command.push_str(" QUICK=1");
    }
    if !run.long {
        command.push_str(" LONG=");
    }
    format!(
        "# Benchmarks\n\n\
         Written by `{command}`, but for what is under *Missed, and why*, *In the browser*, *Append to wake* and *Compression, and why not*. It took {} min {} s.\n\n\
         | | |\n|-|-|\n\
         | machine | {} |\n| kernel | {} |\n| file system | {} |\n| compiler | {} |\n\
         | commit | {} |\n| date | {} |\n\
         | load before | {} (1 is one core busy with something else) |\n\n",
        run.seconds / 60,
        run.seconds % 60,
        machine(),
        said("uname", &["-sr"]),
        file_system(&run.directory),
        said("rustc", &["--version"]),
        commit(),
        said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        run.load,
    )
}

fn machine() -> String {
    let of = |path, key: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map_or("?".to_owned(), |l| {
            l.trim_matches([':', ' ', '\t']).to_owned()
        })
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kib = of("/proc/meminfo", "MemTotal:");
    let kib: u64 = kib.trim_end_matches(" kB").parse().unwrap_or(0);
    let virtual_machine = of("/proc/cpuinfo", "flags").contains("hypervisor");
    format!(
        "{}, {cores} cores, {} GiB{}",
        of("/proc/cpuinfo", "model name"),
        (kib + (1 << 19)) >> 20,
        if virtual_machine { ", virtual" } else { "" }
    )
}

fn file_system(directory: &Path) -> String {
    let path = directory
        .parent()
        .unwrap_or(directory)
        .to_string_lossy()
        .into_owned();
    let of = said("df", &["--output=fstype,source", &path]);
    let line = of.lines().last().unwrap_or_default();
    line.split_whitespace().collect::<Vec<_>>().join(" on ")
}

fn commit() -> String {
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"]);
    let changed = said("git", &["status", "--porcelain", "--untracked-files=no"]);
    let ours =
        |line: &&str| !line.ends_with("BENCHMARKS.md") && !line.contains("tests/bench/plots/");
    if changed.lines().filter(ours).count() > 0 {
        commit + ", with changes"
    } else {
        commit
    }
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "?".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// Every goal beside its result.
pub fn goals(outcomes: &[Outcome]) -> String {
    let mut text = "## Goals\n\n\
        | workload | goal | proglog | ratio, median (min–max) | to | met |\n|-|-|-|-|-|-|\n"
        .to_owned();
    let mut counts = [0; 2];
    for outcome in outcomes {
        for goal in &outcome.row.goals {
            let verdict = judge(goal, outcome, outcomes);
            let own = match goal.check {
                Check::Ratio { own, .. }
                | Check::Slowdown { own, .. }
                | Check::Limit { own, .. } => own,
            };
            let result = outcome.of(own).and_then(Spread::of);
            let result = result.map_or("-".to_owned(), |s| spread(s, outcome.row.unit));
            let ratio = match (verdict.to, verdict.spread) {
                (Some(_), Some(s)) => format!("{:.2} ({:.2}–{:.2})", s.median, s.min, s.max),
                _ => String::new(),
            };
            let met = match verdict.met {
                Some(met) => {
                    counts[usize::from(met)] += 1;
                    if met { "yes" } else { "**no**" }
                }
                None => "not measured",
            };
            let to = verdict.to.unwrap_or_default();
            let title = match own {
                own if own == RESERVED.name => format!("{}, space reserved", outcome.row.title),
                _ => outcome.row.title.to_owned(),
            };
            let _ = writeln!(
                text,
                "| {title} | {} | {result} | {ratio} | {to} | {met} |",
                goal.text
            );
        }
    }
    let [missed, met] = counts;
    let _ = writeln!(text, "\n{met} met, {missed} missed.\n");
    text
}

/// One row's table, with the reasons for what is missing.
pub fn table(outcome: &Outcome) -> String {
    let row = &outcome.row;
    let with_kept = matches!(
        row.contenders[0].workload,
        Workload::Append { .. } | Workload::BatchSync | Workload::Synced { .. }
    );
    let own = row
        .contenders
        .iter()
        .find(|c| c.kind.group == Group::Proglog)
        .and_then(|c| Some((c.name, outcome.of(c.name)?)));
    let unit = match row.unit {
        Unit::Records => "records/s",
        Unit::MiB { .. } => "MiB/s",
        Unit::Milliseconds => "ms",
        Unit::Times => "× the payload",
        Unit::Memory => "MiB",
    };
    let mut text = format!("### {}\n\n| | {unit} |", row.title);
    let mut rule = "|-|-|".to_owned();
    if let Some((name, _)) = own {
        let _ = write!(text, " {name} is … × |");
        rule.push_str("-|");
    }
    if with_kept {
        text.push_str(" kept |");
        rule.push_str("-|");
    }
    let _ = writeln!(text, "\n{rule}");

    let mut reasons: Vec<(&str, &str)> = Vec::new();
    for (contender, numbers) in row.contenders.iter().zip(&outcome.numbers) {
        let name = match contender.kind.group {
            Group::Proglog => format!("**{}**", contender.name),
            Group::Floor => format!("*floor:* {}", contender.name),
            Group::Peer => contender.name.to_owned(),
        };
        let number = match numbers {
            Ok(numbers) => Spread::of(numbers).map_or("-".to_owned(), |s| spread(s, row.unit)),
            Err(reason) => {
                reasons.push((contender.name, reason));
                "-".to_owned()
            }
        };
        let _ = write!(text, "| {name} | {number} |");
        if let Some((_, ours)) = own {
            let ratio = numbers.as_ref().ok().and_then(|theirs| {
                if row.unit.more_is_better() {
                    Spread::of_ratio(ours, theirs)
                } else {
                    Spread::of_ratio(theirs, ours)
                }
            });
            let ratio = ratio.filter(|_| contender.kind.group != Group::Proglog);
            let _ = write!(text, " {} |", ratio.map_or(String::new(), ratio_text));
        }
        if with_kept {
            let kept = numbers
                .as_ref()
                .map(|_| (contender.kind.kept)(contender.workload.promise()));
            let _ = write!(text, " {} |", kept.unwrap_or("-"));
        }
        text.push('\n');
    }
    if !reasons.is_empty() {
        text.push('\n');
        for (name, reason) in reasons {
            let _ = writeln!(text, "* {name}: {}", reason.trim_end_matches('.'));
        }
    }
    if !row.note.is_empty() {
        let _ = writeln!(text, "\n{}", row.note);
    }
    text.push('\n');
    text
}

fn ratio_text(ratio: Spread) -> String {
    let digits = if ratio.median < 10.0 { 2 } else { 0 };
    format!("{:.digits$}", ratio.median)
}

/// A median with its range, as readable as its size allows.
fn spread(spread: Spread, unit: Unit) -> String {
    if spread.min == spread.max {
        return number(spread.median, unit);
    }
    format!(
        "{} ({}–{})",
        number(spread.median, unit),
        number(spread.min, unit),
        number(spread.max, unit)
    )
}

pub fn number(number: f64, unit: Unit) -> String {
    match unit {
        Unit::Records if number >= 999_500.0 => format!("{:.2} M", number / 1e6),
        Unit::Records if number >= 1e3 => format!("{:.1} k", number / 1e3),
        Unit::Records => format!("{number:.0}"),
        Unit::MiB { .. } => format!("{:.0}", shown(number, unit)),
        Unit::Milliseconds if number < 10.0 => format!("{number:.2}"),
        Unit::Milliseconds => format!("{number:.0}"),
        Unit::Times => format!("{number:.3}"),
        Unit::Memory => format!("{number:.1}"),
    }
}

/// The number in the unit's own terms.
fn shown(number: f64, unit: Unit) -> f64 {
    match unit {
        Unit::MiB { value_bytes } => number * value_bytes as f64 / f64::from(1 << 20),
        _ => number,
    }
}
