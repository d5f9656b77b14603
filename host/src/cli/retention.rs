//! How much of a log is kept, whatever runs it.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use clap::Args;
use proglog::{Clock, Offset, Retention};
use proglog_host::{Engine, ErrorKind, Result};
use tokio::time::interval;

use super::{
    options::{parse_bytes, parse_duration},
    text::note,
};

/// How often a server looks at what is to go.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How many records are looked at for one with a timestamp.
const RECORDS_READ_MAX: u32 = 64;

/// What a server keeps.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Storage")]
pub(crate) struct RetentionArgs {
    /// Remove the oldest segments while the stores have more bytes than this together; never the last one, which takes
    /// appends. Looked at every ten seconds
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, allow_hyphen_values = true)]
    retain_bytes: Option<u64>,
    /// Remove segments whose last record is older than this, such as 36h or 7d; never the last one. Looked at every
    /// ten seconds
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, allow_hyphen_values = true)]
    retain_age: Option<Duration>,
}

impl RetentionArgs {
    pub(crate) fn retention(self) -> Retention {
        let mut retention = Retention::new();
        retention.bytes_max = self.retain_bytes;
        retention.age_max = self.retain_age;
        retention
    }
}

/// The base of the first segment that is to be kept, as [`proglog::Log::enforce_retention`] has it.
pub(crate) fn kept_from(log: &dyn Engine, retention: &Retention) -> Result<Offset> {
    let segments = log.segments()?;
    let Some((active, mut sealed)) = segments.split_last() else {
        return log.lowest_offset();
    };
    if let Some(bytes_max) = retention.bytes_max {
        let stores = segments.iter().map(|segment| segment.store_bytes);
        let mut bytes = stores.fold(0, u64::saturating_add);
        while bytes > bytes_max
            && let Some((oldest, later)) = sealed.split_first()
        {
            bytes -= oldest.store_bytes.min(bytes);
            sealed = later;
        }
    }
    if let Some(age_max) = retention.age_max
        && let Some(now_ms) = Clock::SYSTEM.now_ms()
    {
        while let Some((oldest, later)) = sealed.split_first()
            && let Some(last_ms) = last_timestamp_ms(log, oldest.base, oldest.next)?
            && Duration::from_millis(now_ms.saturating_sub(last_ms)) > age_max
        {
            sealed = later;
        }
    }
    Ok(sealed.first().unwrap_or(active).base)
}

/// The timestamp of the last record that has one. They never decrease, so it is the latest.
fn last_timestamp_ms(log: &dyn Engine, base: Offset, mut end: Offset) -> Result<Option<u64>> {
    for _ in 0..RECORDS_READ_MAX {
        if end <= base {
            break;
        }
        let last = Offset(end.0 - 1);
        end = match log.read(last) {
            Ok(record) if record.timestamp_ms().is_some() => return Ok(record.timestamp_ms()),
            Err(e) if e.kind() == ErrorKind::Gap => {
                log.locate(last)?.gap.map_or(last, |gap| gap.first)
            }
            Err(e) if e.kind() != ErrorKind::Corrupt => return Err(e),
            _ => last,
        };
    }
    Ok(None)
}

/// Removes what is not to be kept, again and again, as long as the log is open.
pub(crate) async fn retain(log: Weak<Box<dyn Engine>>, retention: Retention) {
    let mut told = String::new();
    let mut ticks = interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let Some(log) = log.upgrade() else { return };
        let retention = retention.clone();
        let done = tokio::task::spawn_blocking(move || remove_old(&log, &retention)).await;
        let failed = match done {
            Ok(Ok(())) => String::new(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if !failed.is_empty() && failed != told {
            note(&format!("old segments could not be removed: {failed}"));
        }
        told = failed;
    }
}

fn remove_old(log: &Arc<Box<dyn Engine>>, retention: &Retention) -> Result<()> {
    let from = kept_from(&***log, retention)?;
    if from > log.lowest_offset()? {
        log.truncate_before(from)?;
    }
    Ok(())
}
