//! `proglog completions`

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;
use clap_complete::{Shell, generate};

use super::{Done, command};

/// Print what has a shell complete the command line of proglog
///
/// To be put where the shell looks for it, or to be sourced; made by this very version of the program, so
/// that it is to be printed anew after an update.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog completions bash > ~/.local/share/bash-completion/completions/proglog
  proglog completions zsh > ~/.zfunc/_proglog    # in a directory of $fpath
  proglog completions fish > ~/.config/fish/completions/proglog.fish
  source <(proglog completions bash)             # in this shell alone")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self) -> Done {
        // In memory first: it panics where it cannot write.
        let mut script = Vec::new();
        generate(self.shell, &mut command(), "proglog", &mut script);
        io::stdout().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
