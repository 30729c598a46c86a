//! The HTTP server under every service: HTTP/1.1 and HTTP/2 on one port, a `/health` page, an end on SIGTERM that
//! lets requests under way finish.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// A request with its body read.
pub(crate) type Received = Request<Bytes>;
/// A response with its body made.
pub(crate) type Outgoing = Response<Full<Bytes>>;

/// No request of these services has a body worth more.
const BODY_LIMIT: usize = 1 << 20;
/// Under Kubernetes' default grace of 30 s.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// What a service answers.
pub(crate) trait Handler: Send + Sync {
    /// The answer to a request that is not for `/health`.
    fn handle(&self, request: Received) -> BoxFuture<'_, Outgoing>;
}

/// Serves until SIGTERM or SIGINT.
pub(crate) async fn serve(address: SocketAddr, handler: Arc<dyn Handler>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    tracing::info!(address = %listener.local_addr()?, "listening");
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let graceful = GracefulShutdown::new();
    let server = auto::Builder::new(TokioExecutor::new());
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, most likely: it passes when connections close.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        // Small answers must not wait for acknowledgements; a socket that refuses is merely slower.
        let _ = stream.set_nodelay(true);
        let handler = Arc::clone(&handler);
        let service = service_fn(move |request| answer(Arc::clone(&handler), request));
        let connection =
            graceful.watch(server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
    drop(listener);
    tracing::info!("draining");
    let _ = tokio::time::timeout(DRAIN_LIMIT, graceful.shutdown()).await;
    Ok(())
}

async fn answer(handler: Arc<dyn Handler>, request: Request<Incoming>) -> Result<Outgoing, Infallible> {
    if request.uri().path() == "/health" {
        return Ok(json(StatusCode::OK, &serde_json::json!({"status": "healthy"})));
    }
    let (head, body) = request.into_parts();
    Ok(match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => handler.handle(Request::from_parts(head, body.to_bytes())).await,
        Err(error) if error.is::<LengthLimitError>() => {
            text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")
        }
        Err(_) => text(StatusCode::BAD_REQUEST, "the body did not arrive"),
    })
}

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: &impl serde::Serialize) -> Outgoing {
    match serde_json::to_vec(body) {
        Ok(bytes) => with_type(status, "application/json", bytes),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// A plain-text answer.
pub(crate) fn text(status: StatusCode, body: &str) -> Outgoing {
    with_type(status, "text/plain; charset=utf-8", body.as_bytes().to_vec())
}

/// A page.
pub(crate) fn html(status: StatusCode, body: String) -> Outgoing {
    with_type(status, "text/html; charset=utf-8", body.into_bytes())
}

/// The answer to a method or path that a service does not have.
pub(crate) fn not_found(method: &Method, path: &str) -> Outgoing {
    json(StatusCode::NOT_FOUND, &serde_json::json!({"error": format!("nothing is at {method} {path}")}))
}

fn with_type(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Outgoing {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The number in a path such as `/reviews/7`: `prefix` is `/reviews/`.
pub(crate) fn number_after(path: &str, prefix: &str) -> Option<u32> {
    path.strip_prefix(prefix)?.parse().ok()
}
