//! `proglog tail`

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::mpsc::{TryRecvError, channel},
    thread,
    time::Duration,
};

use clap::Args;
use proglog::{Next, Offset};
use proglog_host::{Engine, ErrorKind};

use super::{
    Done,
    directory::open_to_read,
    failure::Failure,
    options::{EngineArgs, parse_number, parse_offset},
    records::{OutputArgs, RecordWriter, note_removed, with_advice},
    signals::on_stop,
    text::note,
};

/// How often it is seen whether anyone still wants what is followed, and whether it is still there.
const CHECK: Duration = Duration::from_millis(100);

/// How many records may be printed meanwhile.
const RECORDS_UNCHECKED_MAX: u32 = 4096;

/// Print the last records, and with --follow those that are appended from now on
///
/// Stops before a damaged record with exit code 1. With --follow it goes on when another process
/// truncates or resets the log: where the records it was at are gone, it says so on standard error and
/// goes on from where the log now ends, or from its lowest offset if that is above. What was appended in
/// place of truncated records before it noticed, within a tenth of a second, it does not print. It ends
/// with exit code 4 when the directory is removed, also if another is made in its place.
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
    /// Go on with what other processes append, until Ctrl-C, SIGTERM, or the output is closed; exit
    /// code 0 then
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

impl Tail {
    pub(crate) fn run(&self) -> Done {
        let directory = identity(&self.dir).ok();
        let log = open_to_read(self.engine.engine, &self.dir)?;
        let from = match self.from {
            Some(offset) => offset,
            None => first_of_last(&*log, self.count)?,
        };
        let mut writer = RecordWriter::new(self.output);
        let mut next = from;
        writer
            .copy(&*log, &mut next, u64::MAX)
            .map_err(|failure| with_advice(failure, &self.dir))?;
        if self.follow {
            self.follow(&*log, next, &mut writer, directory)?;
        }
        log.close()?;
        Ok(ExitCode::SUCCESS)
    }

    /// Prints what comes, until it is told to stop.
    fn follow(
        &self,
        log: &dyn Engine,
        next: Offset,
        writer: &mut RecordWriter,
        directory: Option<Identity>,
    ) -> Result<(), Failure> {
        let (stop, stopped) = channel::<()>();
        // A second signal ends the process, so that this one may go unheard.
        on_stop(move |_| drop(stop))?;
        let check_there = || {
            if identity(&self.dir).ok() == directory {
                return Ok(());
            }
            let name = self.dir.display();
            let message = format!("{name} was removed or replaced; follow it again");
            Err(Failure::new("not_found", message))
        };
        let mut subscription = log.subscribe(next);
        while stopped.try_recv() == Err(TryRecvError::Empty) && !is_closed(&io::stdout()) {
            let mut found = subscription.next_timeout(CHECK);
            // An engine may hold on to a directory that is gone.
            check_there()?;
            let mut records = 0;
            while let Ok(Next::Record(record)) = &found {
                writer.write(record)?;
                records += 1;
                let timeout = Duration::ZERO;
                found = if records < RECORDS_UNCHECKED_MAX {
                    subscription.next_timeout(timeout)
                } else {
                    Ok(Next::NotYet)
                };
            }
            writer.flush()?;
            match found {
                Ok(Next::Ended) => break,
                Ok(_) => {}
                Err(e) => {
                    check_there()?;
                    if e.kind() != ErrorKind::OffsetOutOfRange {
                        return Err(with_advice(e.into(), &self.dir));
                    }
                    let next = still_there(log, subscription.offset());
                    check_there()?;
                    subscription.seek(next?);
                }
            }
        }
        Ok(())
    }
}

/// Where the last so many records begin, between which offsets may not be there.
fn first_of_last(log: &dyn Engine, count: u64) -> Result<Offset, Failure> {
    let (lowest, next) = (log.lowest_offset()?, log.next_offset()?);
    let mut offsets = count;
    loop {
        let from = Offset(next.0.saturating_sub(offsets)).max(lowest);
        if from == next {
            return Ok(next);
        }
        // A damaged one ends it: that is told once it is printed.
        let read = |record: &proglog_host::Result<_>| record.is_ok();
        let found = log.scan(from).take_while(read).count() as u64;
        if found >= count || from == lowest || found == next.since(from) {
            let passed = usize::try_from(found.saturating_sub(count)).unwrap_or(usize::MAX);
            let first = log.scan(from).nth(passed).and_then(Result::ok);
            return Ok(first.map_or(from, |record| record.offset()));
        }
        if log.scan(from).any(|record| record.is_err()) {
            return Ok(from);
        }
        offsets = offsets.saturating_mul(2);
    }
}

/// Where to go on in a log that was truncated below or above the next record.
fn still_there(log: &dyn Engine, next: Offset) -> Result<Offset, Failure> {
    let mut end = log.next_offset()?;
    if next > end {
        // It may be under way: a segment at a time.
        thread::sleep(CHECK);
        log.refresh()?;
        end = end.min(log.next_offset()?);
    }
    let lowest = log.lowest_offset()?;
    if next > end {
        note(&format!(
            "the log was truncated and ends before record {next}, which was to come; going on from {end}"
        ));
        return Ok(end.max(lowest));
    }
    if next < lowest {
        note_removed(next, lowest);
    }
    Ok(next.max(lowest))
}

/// A device and a file's number in it.
type Identity = (u64, u64);

/// What tells the directory of this name from another that takes its place.
#[cfg(unix)]
fn identity(directory: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(directory)?;
    Ok((found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn identity(directory: &Path) -> io::Result<Identity> {
    let found = fs::metadata(directory)?;
    Ok((found.is_dir().into(), 0))
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
