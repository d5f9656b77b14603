//! Times proglog beside floors and peers, and writes `BENCHMARKS.md`.

#![cfg_attr(
    not(feature = "wasm"),
    allow(dead_code, reason = "only the engines' rows use it")
)]

mod floors;
mod frame;
mod judge;
mod peers;
mod plot;
mod proglog;
mod report;
mod rows;
mod runner;
mod stats;
mod subject;
mod values;
mod workload;

#[cfg(feature = "wasm")]
mod engines;

use std::{fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, bail};

use crate::{
    rows::{Only, Row},
    runner::{NUMBER, Outcome, Runner},
    workload::Given,
};

const USAGE: &str = "\
bench [--only ROW,ROW…] [--rounds N] [--quick] [--long] [--directory DIR] [--output DIR]

  --only       these rows, whose tables are printed; see --list
  --rounds     how often each subject is run (3; with --quick once)
  --quick      a short form: smaller logs, shorter parts; its numbers say little
  --long       the rows that need a log of 10 GiB, too
  --directory  where the logs are made: on the disk that is to be measured
  --output     where BENCHMARKS.md and tests/bench/plots/ are written; not with --only
  --list       the rows";

#[derive(Default)]
struct Arguments {
    only: Vec<String>,
    rounds: Option<usize>,
    quick: bool,
    long: bool,
    list: bool,
    directory: Option<PathBuf>,
    output: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(what @ ("fill" | "measure")) => measurement(what, &arguments[1..]),
        _ => all(parse(arguments.into_iter())?),
    }
}

fn parse(mut given: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut arguments = Arguments::default();
    while let Some(argument) = given.next() {
        let mut value = || {
            given
                .next()
                .with_context(|| format!("{argument} what?\n\n{USAGE}"))
        };
        match argument.as_str() {
            "--only" => {
                let rows = value()?;
                let rows = rows.split([',', ' ']).filter(|id| !id.is_empty());
                arguments.only.extend(rows.map(str::to_owned));
            }
            "--rounds" => arguments.rounds = Some(value()?.parse()?),
            "--directory" => arguments.directory = Some(value()?.into()),
            "--output" => arguments.output = Some(value()?.into()),
            "--quick" => arguments.quick = true,
            "--long" => arguments.long = true,
            "--list" => arguments.list = true,
            _ => bail!("{USAGE}"),
        }
    }
    Ok(arguments)
}

fn all(arguments: Arguments) -> Result<()> {
    let mut rows = rows::all();
    if arguments.list {
        for row in rows {
            println!("{:<22} {}", row.id, row.title);
        }
        return Ok(());
    }
    if let Some(unknown) = arguments
        .only
        .iter()
        .find(|id| !rows.iter().any(|row| row.id == **id))
    {
        bail!("there is no row {unknown}; --list tells which there are");
    }
    let named = |row: &Row| arguments.only.iter().any(|id| id == row.id);
    rows.retain(|row| {
        if arguments.only.is_empty() {
            row.only != Only::Long || arguments.long
        } else {
            named(row)
        }
    });

    let rounds = arguments
        .rounds
        .unwrap_or(if arguments.quick { 1 } else { 3 })
        .max(1);
    let directory = match arguments.directory {
        Some(directory) => directory.join("proglog-bench-data"),
        // In the target directory, which is on a disk where /tmp may be memory.
        None => std::env::current_exe()?
            .parent()
            .context("no directory")?
            .join("bench-data"),
    };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let start = Instant::now();
    let mut runner = Runner::new(directory.clone(), arguments.quick, rounds)?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    while !rows.is_empty() {
        let row = rows.remove(0);
        eprintln!("{:>5.0} s  {}", start.elapsed().as_secs_f64(), row.title);
        let outcome = runner.run(row);
        if !arguments.only.is_empty() {
            println!("{}", report::table(&outcome));
        }
        outcomes.push(outcome);
        runner.forget_all_but(&rows)?;
    }
    runner.finish()?;
    let seconds = start.elapsed().as_secs();
    println!("{}", report::goals(&outcomes));
    if let (Some(output), true) = (arguments.output, arguments.only.is_empty()) {
        let run = report::Run {
            rounds,
            seconds,
            quick: arguments.quick,
            long: arguments.long,
            directory,
            load,
        };
        report::write(&output, &run, &outcomes)?;
        eprintln!(
            "{seconds:>5} s  wrote {}",
            output.join("BENCHMARKS.md").display()
        );
    }
    Ok(())
}

/// One measurement, in this process: `WHAT ROW CONTENDER DIRECTORY [--quick]`.
fn measurement(what: &str, arguments: &[String]) -> Result<()> {
    let [id, name, directory, rest @ ..] = arguments else {
        bail!("{USAGE}");
    };
    let rows = rows::all();
    let row = rows
        .iter()
        .find(|row| row.id == *id)
        .context("no such row")?;
    let contender = row.contenders.iter().find(|c| c.name == *name);
    let contender = contender.context("no such contender")?;
    let given = Given {
        directory: directory.as_ref(),
        data: contender.workload.data(),
        quick: rest.iter().any(|flag| flag == "--quick"),
    };
    if what == "fill" {
        return workload::fill(&contender.kind, &given);
    }
    let number = workload::measure(contender.workload, &contender.kind, &given)?;
    println!("{NUMBER}{number}");
    Ok(())
}
