//! Ctrl-C and SIGTERM: the first asks to stop, the second ends the process at once.

use std::{
    io,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread,
};

use tokio::runtime::Builder;

use super::failure::Failure;

/// The signals that ask the process to stop.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Takes the signals over from the system, which would end the process. Within a tokio runtime.
    pub(crate) fn take() -> Result<Self, Failure> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let take = |kind| signal(kind).map_err(|error| unwatched(&error));
            Ok(Self {
                interrupt: take(SignalKind::interrupt())?,
                terminate: take(SignalKind::terminate())?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// The next of them, as the exit code that a shell gives a process which it ended.
    pub(crate) async fn next(&mut self) -> u8 {
        #[cfg(unix)]
        return tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        };
        #[cfg(not(unix))]
        {
            // Without a handler there is nothing to wait for.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
            130
        }
    }
}

/// Has a write past the limit of a file's size (`ulimit -f`) fail with an error instead of a signal
/// that ends the process.
pub(crate) fn take_file_size_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        // The handler stays when the runtime has gone. Without it, all else works the same.
        if let Ok(runtime) = Builder::new_current_thread().enable_io().build() {
            let _in_runtime = runtime.enter();
            let _ = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
        }
    }
}

/// Calls `stop` on the first signal, from a thread of its own.
pub(crate) fn on_stop(stop: impl FnOnce(u8) + Send + 'static) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_io().build();
    let runtime = runtime.map_err(|error| unwatched(&error))?;
    let mut signals = {
        let _in_runtime = runtime.enter();
        Signals::take()?
    };
    thread::spawn(move || {
        runtime.block_on(async {
            let exit = signals.next().await;
            stop(exit);
            std::process::exit(signals.next().await.into());
        });
    });
    Ok(())
}

/// Whether a signal asked to stop, for one who looks between two steps.
pub(crate) struct Stopped(Arc<AtomicU8>);

impl Stopped {
    /// Listens from now on, and calls `wake` once.
    pub(crate) fn listen(wake: impl FnOnce() + Send + 'static) -> Result<Self, Failure> {
        let stopped = Arc::new(AtomicU8::new(0));
        let tell = Arc::clone(&stopped);
        on_stop(move |exit| {
            tell.store(exit, Ordering::Relaxed);
            wake();
        })?;
        Ok(Self(stopped))
    }

    /// The exit code that it asked for.
    pub(crate) fn exit(&self) -> Option<ExitCode> {
        let exit = self.0.load(Ordering::Relaxed);
        (exit != 0).then(|| ExitCode::from(exit))
    }
}

fn unwatched(error: &io::Error) -> Failure {
    Failure::new("io", format!("could not watch for signals: {error}"))
}
