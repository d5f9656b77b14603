//! `proglog tail`

use std::{
    io,
    path::PathBuf,
    process::ExitCode,
    sync::mpsc::{RecvTimeoutError, channel},
    time::Duration,
};

use clap::Args;
use proglog::Offset;

use super::{
    Done,
    directory::open_to_read,
    options::{EngineArgs, parse_number, parse_offset},
    records::{OutputArgs, RecordWriter, with_advice},
    signals::on_stop,
};

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(75);

/// Print the last records, and with --follow those that are appended from now on
///
/// Stops before a damaged record with exit code 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog tail ./log -n 3
  proglog tail ./log --from 0 > all.txt
  proglog tail ./log -n 0 --follow --json")]
pub(crate) struct Tail {
    /// The directory of the log
    dir: PathBuf,
    /// How many of the last records to print
    #[arg(
        short = 'n',
        long,
        default_value = "10",
        value_name = "N",
        value_parser = parse_number,
        allow_negative_numbers = true,
        conflicts_with = "from"
    )]
    count: u64,
    /// Print from this offset on to the end
    #[arg(long, value_name = "OFFSET", value_parser = parse_offset, allow_negative_numbers = true)]
    from: Option<Offset>,
    /// Go on with what this or another process appends, until Ctrl-C, SIGTERM, or the output is closed
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl Tail {
    pub(crate) fn run(&self) -> Done {
        let log = open_to_read(self.engine.engine, &self.dir)?;
        let from = match self.from {
            Some(offset) => offset,
            None => {
                let next = log.next_offset()?;
                Offset(next.0.saturating_sub(self.count)).max(log.lowest_offset()?)
            }
        };
        let (stop, stopped) = channel::<()>();
        if self.follow {
            // A second signal ends the process, so that this one may go unheard.
            on_stop(move |_| drop(stop))?;
        }
        let mut writer = RecordWriter::new(self.output);
        let mut next = from;
        loop {
            next = writer
                .copy(&*log, next, u64::MAX)
                .map_err(|failure| with_advice(failure, &self.dir))?;
            if !self.follow || stopped.recv_timeout(POLL) != Err(RecvTimeoutError::Timeout) {
                break;
            }
            if is_closed(&io::stdout()) {
                break;
            }
            log.refresh()?;
        }
        log.close()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether whoever read the output has gone, which one who has nothing to write does not hear of.
#[cfg(unix)]
fn is_closed(output: &impl std::os::fd::AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut output = [PollFd::new(output, PollFlags::empty())];
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut output, Some(&at_once)).is_ok()
        && output[0]
            .revents()
            .intersects(PollFlags::ERR | PollFlags::HUP)
}

#[cfg(not(unix))]
fn is_closed<T>(_output: &T) -> bool {
    false
}
