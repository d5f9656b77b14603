//! Options that several verbs share.

use std::time::Duration;

use clap::{Args, ValueEnum};
use proglog::{Durability, Offset, Options};
use proglog_host::EngineKind;

/// How large its parts may get.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Storage")]
pub(crate) struct SizeArgs {
    /// Begin a new segment when the store would exceed this; a batch that is larger has one alone
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = parse_bytes, allow_hyphen_values = true)]
    pub(crate) segment_bytes_max: u64,
    /// Begin a new segment when the index would exceed this: 12 bytes a record
    #[arg(long, value_name = "BYTES", default_value = "8M", value_parser = parse_bytes, allow_hyphen_values = true)]
    pub(crate) index_bytes_max: u64,
    /// Refuse larger records: value, key, headers and some 30 bytes; at most 1G
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = parse_bytes, allow_hyphen_values = true)]
    pub(crate) record_bytes_max: u64,
}

impl SizeArgs {
    pub(crate) fn options(self) -> Options {
        Options::new()
            .segment_bytes_max(self.segment_bytes_max)
            .index_bytes_max(self.index_bytes_max)
            .record_bytes_max(self.record_bytes_max)
    }
}

/// How a log is written.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Storage")]
pub(crate) struct StorageArgs {
    /// Where a record is once it is acknowledged, and what it survives there
    ///
    /// With any of them all records are on stable storage once the log was closed: at the end of the
    /// input, and after the first Ctrl-C or SIGTERM.
    #[arg(long, value_enum, default_value_t)]
    durability: DurabilityArg,
    /// Sync what was written or buffered this long ago; without it, only a full segment or the end does
    #[arg(long, value_name = "MS", value_parser = parse_number, allow_negative_numbers = true)]
    sync_interval_ms: Option<u64>,
    #[command(flatten)]
    pub(crate) sizes: SizeArgs,
    /// The first record's offset in a new log; one that is there keeps its own
    #[arg(long, value_name = "OFFSET", default_value = "0", value_parser = parse_offset, allow_negative_numbers = true)]
    initial_offset: Offset,
}

impl StorageArgs {
    pub(crate) fn options(&self) -> Options {
        let mut options = self.sizes.options();
        if let Some(ms) = self.sync_interval_ms {
            options = options.sync_interval(Duration::from_millis(ms));
        }
        options
            .durability(self.durability.into())
            .initial_offset(self.initial_offset)
    }
}

/// Which engine runs the log.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct EngineArgs {
    /// What runs the log; both read and write the same bytes
    #[arg(long, value_enum, default_value_t)]
    pub(crate) engine: EngineKind,
}

/// `proglog`'s [`Durability`], for the command line.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum DurabilityArg {
    /// On stable storage: survives power loss, and the process being killed
    #[default]
    Synced,
    /// With the operating system: survives the process being killed, not power loss
    Written,
    /// In the process's buffer, until that fills or --sync-interval-ms has passed: survives neither
    Buffered,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::Synced => Self::Synced,
            DurabilityArg::Written => Self::Written,
            DurabilityArg::Buffered => Self::Buffered,
        }
    }
}

/// A record's number.
pub(crate) fn parse_offset(text: &str) -> Result<Offset, String> {
    let offset = text.parse().map(Offset);
    offset.map_err(|_| format!("an offset is a record's number, from 0 to {}", u64::MAX))
}

/// How many of something there are.
pub(crate) fn parse_number(text: &str) -> Result<u64, String> {
    let number = text.parse();
    number.map_err(|_| format!("give a whole number, from 0 to {}", u64::MAX))
}

/// A number of bytes: `65536`, `64K`, `16M`, `1G`, and so with `KiB`, `MiB`, `GiB`.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    const HOW: &str = "give a number of bytes, such as 65536, 64K, 16M or 1G";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" | "B" => 0,
        "K" | "k" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err(HOW.to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| HOW.to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "that is more than 2^64 bytes".to_owned())
}

/// How long: `90s`, `36h`, `7d`, `1h 30m`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text);
    duration.map_err(|_| "give how long, such as 90s, 36h or 7d".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{parse_bytes, parse_duration, parse_number, parse_offset};

    #[test]
    fn reads_bytes_with_units() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65536),
            ("64K", 65536),
            ("16M", 16 << 20),
            ("1GiB", 1 << 30),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "K", "-1", "1.5M", "1T", "16 M", "18446744073709551615K"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_how_long() {
        for (text, seconds) in [("0s", 0), ("90s", 90), ("7d", 604_800), ("1h 30m", 5_400)] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in ["", "7", "-1s", "d", "99999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_offsets_and_numbers() {
        let most = u64::MAX.to_string();
        assert_eq!(parse_number(&most), Ok(u64::MAX));
        assert_eq!(parse_offset(&most), Ok(u64::MAX.into()));
        for text in ["", "abc", "-1", "1.0", "18446744073709551616"] {
            assert!(parse_number(text).is_err(), "{text}");
            assert!(parse_offset(text).is_err(), "{text}");
        }
    }
}
