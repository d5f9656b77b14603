//! `tail -f` for a log that another program writes: prints the last ten records, and then each as it comes. Where the
//! log was truncated under it, it says so and goes on.
//!
//! ```sh
//! cargo run --example follow -- ./orders
//! ```

use std::{
    env,
    error::Error,
    io::{Write, stdout},
};

use proglog::{Error as LogError, Log, Offset, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args().nth(1).ok_or("usage: follow DIRECTORY")?;
    let log = Log::open_read_only(directory, Options::new())?;
    let last_ten = log.next_offset().0.saturating_sub(10);
    let mut records = log.subscribe(Offset(last_ten).max(log.lowest_offset()));
    while let Some(record) = records.next() {
        match record {
            Ok(record) => {
                let mut out = stdout().lock();
                write!(out, "{} ", record.offset())?;
                out.write_all(record.value())?;
                out.write_all(b"\n")?;
            }
            // It was too slow for the one who removes old records.
            Err(LogError::OffsetOutOfRange { lowest, .. }) => {
                eprintln!("records up to {lowest} are gone");
                records.seek(lowest);
            }
            Err(LogError::Truncated { next, .. }) => {
                eprintln!("truncated to {next}");
                records.seek(next);
            }
            // It goes on after the damaged record.
            Err(e @ LogError::Corrupt { .. }) => eprintln!("{e}"),
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
