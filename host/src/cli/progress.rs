//! A progress bar.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::{input::Input, text::note};

/// How long something takes before its progress is worth showing.
const PROGRESS_AFTER: Duration = Duration::from_millis(500);

/// How far something has come that takes long, on a terminal.
pub(crate) struct Progress {
    bytes_total: Option<u64>,
    bytes: u64,
    bar: Option<ProgressBar>,
    started: Instant,
    is_wanted: bool,
}

impl Progress {
    /// Of so many bytes, if that is known.
    fn of_bytes(bytes_total: Option<u64>) -> Self {
        Self {
            bytes_total,
            bytes: 0,
            bar: None,
            started: Instant::now(),
            is_wanted: io::stderr().is_terminal(),
        }
    }

    /// Of reading an input.
    pub(crate) fn of_input(input: &Input) -> Self {
        let mut progress = Self::of_bytes(input.bytes());
        progress.is_wanted &= !input.is_terminal();
        progress
    }

    /// Of reading a log, whose bytes are looked for if they are to be shown. What `prints` meanwhile may be on the
    /// terminal itself.
    pub(crate) fn of_log(prints: bool, bytes_total: impl FnOnce() -> Option<u64>) -> Self {
        let mut progress = Self::of_bytes(None);
        progress.is_wanted &= !(prints && io::stdout().is_terminal());
        if progress.is_wanted {
            progress.bytes_total = bytes_total();
        }
        progress
    }

    pub(crate) fn advance(&mut self, bytes: u64) {
        self.bytes += bytes;
        if self.is_wanted && self.bar.is_none() && self.started.elapsed() > PROGRESS_AFTER {
            self.bar = Some(new_bar(self.bytes_total));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.bytes);
        }
    }

    /// Says something above the bar.
    pub(crate) fn note(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| note(text)),
            None => note(text),
        }
    }

    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn new_bar(bytes_total: Option<u64>) -> ProgressBar {
    let (bar, template) = match bytes_total {
        Some(total) => (
            ProgressBar::new(total),
            "{wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {binary_bytes} {binary_bytes_per_sec}",
        ),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
