//! A small HTTP server for debug pages, metrics and webhooks: a table of paths, each with a handler.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use base::drain;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming as Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tracing::debug;

use crate::transport::{Incoming, Peer};

/// The largest body that is read: a pod with everything that a webhook is told of it is far smaller.
const MAX_BODY: usize = 8 * 1024 * 1024;
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A request, read completely.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `POST`, …
    pub method: http::Method,
    /// Without the query.
    pub path: String,
    /// The query's parameters; the last of a name counts.
    pub query: BTreeMap<String, String>,
    /// Headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Who asks.
    pub peer: Peer,
}

/// A response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: http::StatusCode,
    /// Its `content-type`.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Response {
    /// 200 with text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::of(http::StatusCode::OK, text)
    }

    /// Text with a status.
    pub fn of(status: http::StatusCode, text: impl Into<String>) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: text.into().into() }
    }

    /// 200 with JSON for people to read.
    pub fn json(value: &Value) -> Self {
        let body = format!("{value:#}\n").into();
        Self { status: http::StatusCode::OK, content_type: "application/json", body }
    }

    /// 200 with JSON for programs.
    pub fn compact_json(value: &Value) -> Self {
        let body = value.to_string().into();
        Self { status: http::StatusCode::OK, content_type: "application/json", body }
    }

    /// 404.
    pub fn not_found(text: impl Into<String>) -> Self {
        Self::of(http::StatusCode::NOT_FOUND, text)
    }

    /// 400.
    pub fn bad_request(text: impl Into<String>) -> Self {
        Self::of(http::StatusCode::BAD_REQUEST, text)
    }
}

type Handler = Arc<dyn Fn(Request) -> BoxFuture<'static, Response> + Send + Sync>;

/// Paths and their handlers. A path that ends with `/` stands for all below it.
#[derive(Clone, Default)]
pub struct Router {
    routes: BTreeMap<String, Handler>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.routes.keys()).finish()
    }
}

impl Router {
    /// Without any path.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a path, or replaces its handler.
    pub fn route<F, R>(mut self, path: impl Into<String>, handler: F) -> Self
    where
        F: Fn(Request) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        self.routes.insert(path.into(), Arc::new(move |request| Box::pin(handler(request))));
        self
    }

    async fn answer(&self, request: Request) -> Response {
        let exact = self.routes.get(&request.path);
        let handler = exact.or_else(|| {
            let mut below = self.routes.iter().filter(|(path, _)| path.ends_with('/'));
            below.rfind(|(path, _)| request.path.starts_with(path.as_str())).map(|(_, handler)| handler)
        });
        match handler {
            Some(handler) => handler(request).await,
            None => {
                let paths: Vec<&str> = self.routes.keys().map(String::as_str).collect();
                Response::not_found(format!(
                    "{} is not here; there is:\n{}\n",
                    request.path,
                    paths.join("\n")
                ))
            }
        }
    }
}

/// Serves until the drain begins, then finishes what is under way.
pub async fn serve(mut incoming: Incoming, router: Router, mut drain: drain::Watch) {
    let router = Arc::new(router);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = drain.signaled() => break,
            Some(connection) = incoming.next() => {
                while connections.try_join_next().is_some() {}
                let Ok(connection) = connection else { continue };
                let (router, drain) = (Arc::clone(&router), drain.clone());
                connections.spawn(serve_connection(connection, router, drain));
            }
            else => break,
        }
    }
    drop(incoming);
    while connections.join_next().await.is_some() {}
}

async fn serve_connection(
    connection: crate::transport::Connection,
    router: Arc<Router>,
    drain: drain::Watch,
) {
    let peer = connection.peer().clone();
    let service = service_fn(move |request: http::Request<Body>| {
        let (router, peer) = (Arc::clone(&router), peer.clone());
        async move { Ok::<_, Infallible>(into_http(handle(&router, request, peer).await)) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let serving = builder.serve_connection(TokioIo::new(connection), service);
    let mut serving = std::pin::pin!(serving);
    let mut signal = drain.clone();
    let result = tokio::select! {
        result = &mut serving => result,
        () = signal.signaled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        debug!("an HTTP connection ended: {error}");
    }
    drop(drain);
}

async fn handle(router: &Router, request: http::Request<Body>, peer: Peer) -> Response {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return Response::bad_request(format!("the body cannot be read: {error}\n")),
    };
    let request = Request {
        method: parts.method,
        path: parts.uri.path().to_owned(),
        query: parse_query(parts.uri.query().unwrap_or_default()),
        headers: parts.headers,
        body,
        peer,
    };
    router.answer(request).await
}

fn into_http(response: Response) -> http::Response<Full<Bytes>> {
    let mut out = http::Response::new(Full::new(response.body));
    *out.status_mut() = response.status;
    out.headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(response.content_type));
    out
}

/// The parameters of a query, with `%XX` and `+` read.
pub fn parse_query(query: &str) -> BTreeMap<String, String> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescape(key), unescape(value))
        })
        .collect()
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = |offset: usize| bytes.get(at + offset).and_then(|digit| char::from(*digit).to_digit(16));
        match (byte, hex(1), hex(2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                at += 3;
                continue;
            }
            (b'+', _, _) => out.push(b' '),
            _ => out.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_queries() {
        let query = parse_query("proxyID=a.b&x=%2Fy+z&flag&bad=%zz");
        assert_eq!(query["proxyID"], "a.b");
        assert_eq!(query["x"], "/y z");
        assert_eq!(query["flag"], "");
        assert_eq!(query["bad"], "%zz");
    }
}
