//! Numbers, times and bytes as people read them.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    time::{Duration, UNIX_EPOCH},
};

use indicatif::HumanBytes;
use proglog::Offset;
use serde::Serialize;

use super::failure::Failure;

/// Says something on standard error that is worth knowing and no failure.
pub(crate) fn note(text: &str) {
    // Nothing depends on its being heard.
    let _ = writeln!(io::stderr(), "proglog: {text}");
}

/// Prints what was done, lines that cannot be asked for again: on standard error where standard output takes none.
pub(crate) fn print_report(report: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(report.as_bytes()).and_then(|()| out.flush());
    match written {
        // Whoever listened has gone.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let _ = io::stderr().write_all(report.as_bytes());
            Err(Failure::of_output(&error).context("it was done all the same, as said before this"))
        }
        _ => Ok(()),
    }
}

/// The same as a line of JSON.
pub(crate) fn print_json(report: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(report).map_err(io::Error::from)?;
    print_report(&(line + "\n"))
}

/// `1 record`, `2 records`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// `93 bytes`, `93184 bytes (91.00 KiB)`.
pub(crate) fn bytes(number: u64) -> String {
    let mut text = count(number, "byte");
    if number >= 10 << 10 {
        let _ = write!(text, " ({})", HumanBytes(number));
    }
    text
}

/// `0..=41`, or what an empty log has.
pub(crate) fn offsets(lowest: Offset, next: Offset) -> String {
    if next <= lowest {
        return format!("none; the next record will be {next}");
    }
    format!("{lowest}..={}", next.0 - 1)
}

/// `2025-11-22T11:25:01.123Z`, or `-` for no timestamp.
pub(crate) fn time(timestamp_ms: Option<u64>) -> String {
    // The end of the year 9999, after which RFC 3339 has no way to write a time.
    const LAST_MS: u64 = 253_402_300_799_999;
    match timestamp_ms {
        None => "-".to_owned(),
        Some(ms @ 0..=LAST_MS) => {
            humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(ms)).to_string()
        }
        Some(ms) => format!("{ms} ms"),
    }
}

/// The beginning of some bytes, quoted, safe on a terminal: as text where they are text.
pub(crate) fn preview(bytes: &[u8], chars_max: usize) -> String {
    let (mut shown, shown_bytes) = match text_prefix(bytes, chars_max) {
        Some(text) => (format!("{text:?}"), text.len()),
        None => {
            let start = &bytes[..bytes.len().min(chars_max)];
            (format!("b\"{}\"", start.escape_ascii()), start.len())
        }
    };
    if shown_bytes < bytes.len() {
        let _ = write!(shown, "… ({})", count(bytes.len() as u64, "byte"));
    }
    shown
}

fn text_prefix(bytes: &[u8], chars_max: usize) -> Option<&str> {
    let start = &bytes[..bytes.len().min(4 * chars_max)];
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        // Cut in the middle of a character.
        Err(error) if error.error_len().is_none() && start.len() < bytes.len() => {
            std::str::from_utf8(&start[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let end = text
        .char_indices()
        .nth(chars_max)
        .map_or(text.len(), |(at, _)| at);
    Some(&text[..end])
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, preview, time};

    #[test]
    fn shows_the_beginning_of_bytes() {
        assert_eq!(preview(b"hello", 10), r#""hello""#);
        assert_eq!(
            preview("héllo\u{1b}[0m".as_bytes(), 20),
            r#""héllo\u{1b}[0m""#
        );
        assert_eq!(preview(b"\xff\x00a", 20), r#"b"\xff\x00a""#);
        assert_eq!(preview(&[b'a'; 100], 3), r#""aaa"… (100 bytes)"#);
        assert_eq!(preview("é".repeat(9).as_bytes(), 1), r#""é"… (18 bytes)"#);
        assert_eq!(
            preview(&[0xff; 100], 4),
            r#"b"\xff\xff\xff\xff"… (100 bytes)"#
        );
    }

    #[test]
    fn shows_numbers() {
        assert_eq!(count(1, "record"), "1 record");
        assert_eq!(bytes(93), "93 bytes");
        assert_eq!(bytes(93_184), "93184 bytes (91.00 KiB)");
    }

    #[test]
    fn shows_times() {
        assert_eq!(time(None), "-");
        assert_eq!(time(Some(1_700_000_000_123)), "2023-11-14T22:13:20.123Z");
        assert_eq!(time(Some(u64::MAX)), "18446744073709551615 ms");
    }
}
