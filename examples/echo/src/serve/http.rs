//! HTTP. `/status/CODE` answers that status, `/delay/MILLISECONDS` answers late, `/flaky/N` succeeds every N-th time,
//! `/count` tells how many requests came, `/files/NAME` gives a file, `/ws` is a WebSocket, `/health` is for probes; every
//! other path tells what reached it.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::net::TcpListener;

use super::{Server, accept, headers_as_text, websocket};

pub(super) async fn serve(listener: TcpListener, server: Arc<Server>) {
    let http = auto::Builder::new(TokioExecutor::new());
    loop {
        let stream = accept(&listener).await;
        let server = Arc::clone(&server);
        let service = service_fn(move |request| answer(Arc::clone(&server), request));
        let connection = http.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

async fn answer(
    server: Arc<Server>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if path == "/health" {
        return Ok(text(StatusCode::OK, "healthy\n"));
    }
    if path == "/count" {
        return Ok(text(StatusCode::OK, &server.requests.load(Ordering::Relaxed).to_string()));
    }
    let seen = server.requests.fetch_add(1, Ordering::Relaxed) + 1;
    if let (Some(folder), Some(name)) = (&server.files, path.strip_prefix("/files/")) {
        return Ok(file(folder, name).await);
    }
    if websocket::is_upgrade(&request) {
        return Ok(websocket::accept(request, &server.version));
    }
    let argument = |prefix: &str| path.strip_prefix(prefix).and_then(|rest| rest.parse::<u64>().ok());
    let mut status = if server.fail { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    if let Some(code) = argument("/status/") {
        status = u16::try_from(code)
            .ok()
            .and_then(|code| StatusCode::from_u16(code).ok())
            .unwrap_or(StatusCode::BAD_REQUEST);
    } else if let Some(delay) = argument("/delay/") {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    } else if argument("/flaky/").is_some_and(|every| !seen.is_multiple_of(every)) {
        status = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(tell(&server, request, status).await)
}

async fn tell(server: &Server, request: Request<Incoming>, status: StatusCode) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return text(StatusCode::BAD_REQUEST, "the body did not arrive\n");
    };
    let told = json!({
        "version": server.version,
        "pod": server.pod,
        "method": head.method.as_str(),
        "path": head.uri.path_and_query().map(ToString::to_string),
        "protocol": format!("{:?}", head.version),
        "headers": headers_as_text(&head.headers),
        "body": String::from_utf8_lossy(&body.to_bytes()),
    });
    let mut response = text(status, &(told.to_string() + "\n"));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A file of the folder itself: a name that leads elsewhere is not found.
async fn file(folder: &Path, name: &str) -> Response<Full<Bytes>> {
    if name.contains('/') || name == ".." {
        return text(StatusCode::NOT_FOUND, "");
    }
    match tokio::fs::read(folder.join(name)).await {
        Ok(content) => Response::new(Full::new(Bytes::from(content))),
        Err(_) => text(StatusCode::NOT_FOUND, ""),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *response.status_mut() = status;
    response
}
