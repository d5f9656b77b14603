//! A progress bar.

use std::{
    fmt::Write,
    io::{self, IsTerminal},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use super::{input::Input, text::note};

/// How long something takes before its progress is worth showing.
const PROGRESS_AFTER: Duration = Duration::from_millis(500);
/// How often it is asked how far something has come.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const MIB: f64 = 1024.0 * 1024.0;

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
            self.bar = Some(new_bar(self.bytes_total, self.started));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.bytes);
        }
    }

    /// Does something that is at `bytes` meanwhile.
    pub(crate) fn meanwhile<T>(
        &mut self,
        bytes: impl Fn() -> u64 + Send,
        work: impl FnOnce() -> T,
    ) -> T {
        if !self.is_wanted {
            return work();
        }
        thread::scope(|scope| {
            let (done, is_done) = channel::<()>();
            scope.spawn(move || {
                while is_done.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                    // Something may be read twice.
                    let bytes = bytes().min(self.bytes_total.unwrap_or(u64::MAX));
                    self.advance(bytes.saturating_sub(self.bytes));
                }
            });
            let worked = work();
            drop(done);
            worked
        })
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

/// The bar counts from when it is shown, so that how fast it goes is told by the time of the beginning.
fn new_bar(bytes_total: Option<u64>, started: Instant) -> ProgressBar {
    let rate = move |bytes: u64| bytes as f64 / started.elapsed().as_secs_f64().max(0.001);
    let (bar, template) = match bytes_total {
        Some(total) => (
            ProgressBar::new(total),
            "{wide_bar} {binary_bytes}/{binary_total_bytes} {rate} {left}",
        ),
        None => (
            ProgressBar::new_spinner(),
            "{spinner} {binary_bytes} {rate}",
        ),
    };
    let style = ProgressStyle::with_template(template).map(|style| {
        style
            .with_key("rate", move |state: &ProgressState, out: &mut dyn Write| {
                // Nothing depends on its being shown.
                let _ = write!(out, "{:.1} MiB/s", rate(state.pos()) / MIB);
            })
            .with_key("left", move |state: &ProgressState, out: &mut dyn Write| {
                let bytes = bytes_total.unwrap_or(0).saturating_sub(state.pos());
                let seconds = bytes as f64 / rate(state.pos()).max(1.0);
                let _ = write!(
                    out,
                    "{} left",
                    HumanDuration(Duration::from_secs_f64(seconds))
                );
            })
    });
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
