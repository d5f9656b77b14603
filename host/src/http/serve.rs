//! Connections, and their orderly end.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    pin, select,
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};

/// How many connections are open at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 512;
/// How long a connection may take to send the head of a request, or stay idle before the next.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// How long requests in flight may take to finish once the server was told to stop.
pub const GRACE: Duration = Duration::from_secs(10);

/// Serves `app` until `stop` comes true, then lets the requests in flight finish, for at most `grace`.
/// Whether all finished is returned.
///
/// # Errors
///
/// None that ends serving: a connection that cannot be accepted is tried again.
pub async fn serve(
    listener: TcpListener,
    app: Router,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> bool {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    pin!(stop);
    loop {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (place, accept(&listener).await)
        };
        let (place, stream) = select! {
            accepted = accepted => accepted,
            () = &mut stop => break,
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WAIT)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app.clone()));
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            // How a connection ends is the client's affair: its requests were answered, or it left.
            let _ = connection.await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    // From here on, new connections are refused.
    drop(listener);
    let finished = timeout(grace, graceful.shutdown()).await.is_ok();
    connections.shutdown().await;
    finished
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Answers are small and whole: waiting to fill a packet only delays them.
                let _ = stream.set_nodelay(true);
                return stream;
            }
            Err(error) if is_of_the_connection(&error) => {}
            // Out of file descriptors, say: some come back when connections end.
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}
