//! What saild answers until it knows the registry's objects: that one should come back. A probe learns that saild is not
//! ready, a proxy that it is unavailable, and neither waits for an answer that does not come.

use std::convert::Infallible;
use std::os::fd::AsFd as _;

use base::task::Supervised;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const WHY: &str = "the objects of the registry are not known yet; try again";

/// Answers while it lives.
pub(crate) struct Waiting {
    _tasks: Vec<Supervised<()>>,
}

impl Waiting {
    /// Answers on these sockets, which stay their owner's. TLS has no certificate yet: there connections are closed,
    /// which clients of gRPC understand in the same way.
    pub(crate) fn start(plain: [&TcpListener; 3], tls: [&TcpListener; 2]) -> std::io::Result<Self> {
        let mut tasks = Vec::new();
        for listener in plain {
            tasks.push(Supervised::spawn(answer(shared(listener)?)));
        }
        for listener in tls {
            tasks.push(Supervised::spawn(close(shared(listener)?)));
        }
        Ok(Self { _tasks: tasks })
    }
}

/// The same socket once more.
fn shared(listener: &TcpListener) -> std::io::Result<TcpListener> {
    let socket = std::net::TcpListener::from(listener.as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket)
}

async fn answer(listener: TcpListener) {
    // They end with this.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let service = service_fn(|request| async move { Ok::<_, Infallible>(response(&request)) });
            let server = auto::Builder::new(TokioExecutor::new());
            // Whoever hangs up has no more questions.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn response<B>(request: &http::Request<B>) -> http::Response<Full<Bytes>> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/grpc")) {
        return tonic::Status::unavailable(WHY).into_http();
    }
    let mut response = http::Response::new(Full::from(format!("{WHY}\n")));
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    response
}

async fn close(listener: TcpListener) {
    loop {
        // Dropped at once.
        let _ = listener.accept().await;
    }
}
