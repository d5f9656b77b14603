//! `proglog serve`

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use axum::http::{HeaderValue, Uri};
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
  proglog serve --dir ./log --allow-origin https://app.example      # whose pages may ship their logs here
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
    /// Let the pages of another site append and read, given by its origin; may be given more than once
    ///
    /// Without it only this server's own page may. Programs that are no browsers always may.
    #[arg(long = "allow-origin", value_name = "ORIGIN", value_parser = parse_origin)]
    allowed_origins: Vec<HeaderValue>,
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
        let mut options = HttpOptions::for_records(self.storage.sizes.record_bytes_max);
        if let Some(bytes) = self.body_bytes_max {
            options.body_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        options.allowed_origins.clone_from(&self.allowed_origins);
        options
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
    let Some((_, port)) = text.rsplit_once(':').filter(|(host, _)| !host.is_empty()) else {
        return Err("give HOST:PORT, such as 127.0.0.1:8080".to_owned());
    };
    match port.parse::<u16>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("give a port of 0 to 65535, such as 127.0.0.1:8080".to_owned()),
    }
}

/// An origin as browsers send it: to the letter, for it is compared so.
fn parse_origin(text: &str) -> Result<HeaderValue, String> {
    let advice = "give SCHEME://HOST or SCHEME://HOST:PORT, such as https://app.example";
    let uri: Uri = text.parse().map_err(|_| advice.to_owned())?;
    let is_origin = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme @ ("http" | "https")), Some(authority)) => {
            let default_port = match scheme {
                "http" => 80,
                _ => 443,
            };
            uri.port_u16() != Some(default_port)
                && !text.contains('@')
                && text == format!("{scheme}://{authority}").to_ascii_lowercase()
        }
        _ => false,
    };
    match HeaderValue::from_str(text) {
        Ok(origin) if is_origin => Ok(origin),
        _ => Err(format!(
            "{advice}: in lower case, without a path, and without the port that the scheme has anyway"
        )),
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
