//! `proglog man`

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Command};
use clap_mangen::{
    Man as Page,
    roff::{Roff, bold, roman},
};
use serde_json::json;

use super::{Done, ERRORS, EXAMPLE, EXIT_CODES, command, failure::Failure, text::count};

/// Print the manual page of proglog or of one of its commands, or write all of them into a directory
///
/// As roff, which man(1) reads. All of it is in --help too.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog man | man -l -
  proglog man append | man -l -
  proglog man --dir ~/.local/share/man/man1 && man proglog-append")]
pub(crate) struct Man {
    /// The command whose page to print; that of proglog itself if none is given
    command: Option<String>,
    /// Write all pages into this directory, made if it is not there: proglog.1, proglog-append.1, …;
    /// files of these names are replaced
    #[arg(long, conflicts_with = "command")]
    dir: Option<PathBuf>,
    /// With --dir, print {"pages":["proglog.1","proglog-append.1",…]}
    #[arg(long, requires = "dir")]
    pub(crate) json: bool,
}

impl Man {
    pub(crate) fn run(&self) -> Done {
        // Without the one that clap adds, which has no options.
        let mut whole = command().disable_help_subcommand(true);
        whole.build();
        match (&self.dir, &self.command) {
            (Some(dir), _) => self.write_all(&whole, dir)?,
            (None, Some(name)) => {
                let verb = whole.find_subcommand(name).ok_or_else(|| {
                    Failure::usage(format!(
                        "there is no command {name}; see `proglog --help`, which lists them"
                    ))
                })?;
                io::stdout().write_all(&page(verb, false)?)?;
            }
            (None, None) => io::stdout().write_all(&page(&whole, true)?)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn write_all(&self, whole: &Command, dir: &Path) -> Result<(), Failure> {
        fs::create_dir_all(dir).map_err(|error| Failure::io("make directory", dir, &error))?;
        let mut names = Vec::new();
        for (at, command) in [whole]
            .into_iter()
            .chain(whole.get_subcommands())
            .enumerate()
        {
            let name = Page::new(command.clone()).get_filename();
            let path = dir.join(&name);
            fs::write(&path, page(command, at == 0)?)
                .map_err(|error| Failure::io("write", &path, &error))?;
            names.push(name);
        }
        let mut out = io::stdout();
        if self.json {
            writeln!(out, "{}", json!({ "pages": names }))?;
        } else {
            let pages = count(names.len() as u64, "page");
            writeln!(out, "wrote {pages} to {}", dir.display())?;
        }
        Ok(())
    }
}

/// The page of a command.
fn page(command: &Command, is_whole: bool) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let program = concat!("proglog ", env!("CARGO_PKG_VERSION"));
    let page = Page::new(command.clone()).source(program).manual("proglog");
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    page.render_synopsis_section(&mut out)?;
    page.render_description_section(&mut out)?;
    page.render_options_section(&mut out)?;
    let examples = if is_whole {
        page.render_subcommands_section(&mut out)?;
        EXAMPLE.to_owned()
    } else {
        command
            .get_after_help()
            .map(ToString::to_string)
            .unwrap_or_default()
    };
    let mut roff = Roff::new();
    exit_status(&mut roff);
    if is_whole {
        roff.control("SH", ["ERRORS"]);
        roff.text([roman(ERRORS)]);
    }
    roff.control("SH", ["EXAMPLES"]);
    roff.control("nf", []);
    // After the line that says that they are examples.
    for line in examples.lines().skip(1) {
        roff.text([roman(line.strip_prefix("  ").unwrap_or(line))]);
    }
    roff.control("fi", []);
    if !is_whole {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([bold("proglog"), roman("(1)")]);
    }
    roff.to_writer(&mut out)?;
    Ok(out)
}

/// The table of them as a list.
fn exit_status(roff: &mut Roff) {
    roff.control("SH", ["EXIT STATUS"]);
    let rows = EXIT_CODES.lines().skip(1);
    for (code, meaning) in rows.filter_map(|row| row.trim_start().split_once("  ")) {
        roff.control("TP", []);
        roff.text([bold(code)]);
        roff.text([roman(meaning)]);
    }
}
