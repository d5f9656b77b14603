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
use tokio_io_timeout::TimeoutStream;

/// How many connections are open at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 512;
/// How long a connection may take to send the head of a request, or stay idle before the next.
const HEAD_WAIT: Duration = Duration::from_secs(30);
/// How long a client may read nothing of an answer that waits for it.
const WRITE_WAIT: Duration = Duration::from_secs(30);
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
    let limits = Limits {
        connections_max: CONNECTIONS_MAX,
        write_wait: WRITE_WAIT,
    };
    serve_within(limits, listener, app, stop, grace).await
}

#[derive(Clone, Copy)]
struct Limits {
    connections_max: usize,
    write_wait: Duration,
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    app: Router,
    stop: impl Future<Output = ()>,
    grace: Duration,
) -> bool {
    let room = Arc::new(Semaphore::new(limits.connections_max));
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
        let mut stream = TimeoutStream::new(stream);
        // A client that stays and reads nothing would keep its place, and its answer in memory, for good.
        stream.set_write_timeout(Some(limits.write_wait));
        let stream = TokioIo::new(Box::pin(stream));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_WAIT)
            .serve_connection(stream, TowerToHyperService::new(app.clone()));
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

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use axum::{Router, body::Bytes, routing::get};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::{Semaphore, oneshot},
        time::timeout,
    };

    use super::{Limits, serve_within};
    use crate::http::answer::Charged;

    const CONNECTIONS: u32 = 3;

    async fn ask(address: std::net::SocketAddr, path: &str) -> TcpStream {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        client
    }

    #[tokio::test]
    async fn clients_that_do_not_read_lose_their_place_and_their_answers_memory() {
        let room = Arc::new(Semaphore::new(CONNECTIONS as usize));
        let taken = Arc::clone(&room);
        // More than the sockets' buffers hold.
        let large = move || async move {
            let room = Some(taken.try_acquire_owned().unwrap());
            Bytes::from_owner(Charged::new(vec![0; 32 << 20], room))
        };
        let app = Router::new()
            .route("/large", get(large))
            .route("/healthz", get(|| async { "well" }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits {
            connections_max: CONNECTIONS as usize,
            write_wait: Duration::from_secs(1),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let server = tokio::spawn(serve_within(limits, listener, app, stopped, Duration::ZERO));

        let wait = Duration::from_secs(60);
        let mut stalled = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut client = ask(address, "/large").await;
            // Its answer has begun.
            timeout(wait, client.read_u8()).await.unwrap().unwrap();
            stalled.push(client);
        }
        assert_eq!(
            room.available_permits(),
            0,
            "an answer is charged until it is sent, not until it is handed on"
        );

        let mut answer = String::new();
        let mut client = ask(address, "/healthz").await;
        let read = timeout(wait, client.read_to_string(&mut answer)).await;
        read.expect("the stalled clients are cut off").unwrap();
        assert!(answer.ends_with("well"), "{answer}");
        let all = timeout(wait, room.acquire_many(CONNECTIONS)).await;
        drop(all.expect("their answers are dropped").unwrap());

        drop(stalled);
        drop(stop);
        server.await.unwrap();
    }
}
