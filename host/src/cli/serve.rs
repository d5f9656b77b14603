//! `proglog serve`

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::{Args, ValueEnum};
use proglog::Retention;
use proglog_host::{
    Engine,
    http::{GRACE, HttpOptions, app, serve},
};
use tokio::{
    net::TcpListener,
    runtime::Builder,
    sync::oneshot,
    time::{Instant, sleep},
};

use super::{
    Done,
    directory::open_to_write,
    failure::Failure,
    options::{EngineArgs, StorageArgs, parse_bytes},
    retention::{RetentionArgs, retain},
    signals::Signals,
    text::note,
};

/// Serve a log over HTTP: REST for programs, a page for browsers
///
/// Ctrl-C or SIGTERM lets the requests in flight finish, closes the log, after which all of it is on
/// stable storage, and ends with exit code 0; a second one ends at once, with what was acknowledged
/// kept as --durability says.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  proglog serve --dir ./log
  proglog serve --dir ./log --retain-bytes 10G --retain-age 7d
  curl -X POST localhost:8080 -d '{\"record\":{\"value\":\"TGV0J3MgR28gIzEK\"}}'    # {\"offset\":0}
  curl -X GET localhost:8080 -d '{\"offset\":0}'
  curl 'localhost:8080/?offset=0'
  curl localhost:8080/healthz")]
pub(crate) struct Serve {
    /// The directory of the log, made if it is not there
    #[arg(long)]
    dir: PathBuf,
    /// The address to listen at; port 0 takes a free one. There is no authentication: whoever reaches it
    /// can append and read
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "HOST:PORT", value_parser = parse_address)]
    listen: String,
    /// Refuse requests with a larger body [default: 4/3 of --record-bytes-max, and 64K]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, allow_hyphen_values = true)]
    body_bytes_max: Option<u64>,
    #[command(flatten)]
    engine: EngineArgs,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    retention: RetentionArgs,
}

impl Serve {
    pub(crate) fn run(&self) -> Done {
        let runtime = Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new("io", format!("could not start threads: {error}")))?;
        let done = runtime.block_on(self.serve());
        // Not waiting for a call that is stuck: all that can be waited for was.
        runtime.shutdown_background();
        done
    }

    async fn serve(&self) -> Done {
        // Listen first: a port that is taken should not have touched the log.
        let listener = TcpListener::bind(&self.listen).await.map_err(|error| {
            Failure::new(
                "io",
                format!(
                    "could not listen at {}: {error}; choose another --listen HOST:PORT",
                    self.listen
                ),
            )
        })?;
        let retention = self.retention.retention();
        // The native engine also looks whenever a segment is full.
        let options = self.storage.options().retention(retention.clone());
        let log = open_to_write(self.engine.engine, &self.dir, options)?;
        let mut signals = Signals::take()?;
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(async move {
            signals.next().await;
            drop(stop);
            std::process::exit(signals.next().await.into());
        });

        self.tell_listening(&listener);
        let log = Arc::new(log);
        if retention != Retention::new() {
            tokio::spawn(retain(Arc::downgrade(&log), retention));
        }
        let app = app(Arc::clone(&log), self.http_options());
        let stopped = async {
            // Err is the sender being dropped: the signal came.
            let _ = stopped.await;
        };
        if !serve(listener, app, stopped, GRACE).await {
            note("some requests did not finish in time and were cut off");
        }
        close(log).await
    }

    fn http_options(&self) -> HttpOptions {
        match self.body_bytes_max {
            Some(bytes) => HttpOptions {
                body_bytes_max: usize::try_from(bytes).unwrap_or(usize::MAX),
            },
            None => HttpOptions::for_records(self.storage.sizes.record_bytes_max),
        }
    }

    /// Prints the URL, for people and for whoever gave port 0. Serving does not depend on being heard.
    fn tell_listening(&self, listener: &TcpListener) {
        let Ok(address) = listener.local_addr() else {
            return;
        };
        let engine = self.engine.engine.to_possible_value();
        let _ = writeln!(
            io::stdout(),
            "proglog serves {} at http://{address} with the {} engine",
            self.dir.display(),
            engine.as_ref().map_or("", |value| value.get_name()),
        );
    }
}

/// What can be listened at, as far as it can be told without looking its host up.
fn parse_address(text: &str) -> Result<String, String> {
    match text.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("give HOST:PORT, such as 127.0.0.1:8080".to_owned()),
    }
}

/// Closes the log once no call of a request that was cut off uses it any more.
async fn close(mut log: Arc<Box<dyn Engine>>) -> Done {
    let deadline = Instant::now() + GRACE;
    loop {
        match Arc::try_unwrap(log) {
            Ok(log) => {
                log.close()?;
                return Ok(ExitCode::SUCCESS);
            }
            Err(shared) if Instant::now() < deadline => log = shared,
            Err(_) => {
                return Err(Failure::new(
                    "io",
                    "the log is still busy and was not closed; what was acknowledged is kept, and the \
                     next start checks the rest",
                ));
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}
