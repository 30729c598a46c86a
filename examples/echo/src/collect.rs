//! A stand-in for a trace collector: keeps the spans that Zipkin exporters send to `POST /api/v2/spans`, and gives them
//! back at `GET /spans`.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::Value;
use tokio::net::TcpListener;

/// Older spans make room: the collector is for looking at what just happened.
const MOST_SPANS: usize = 10_000;

#[derive(Clone, clap::Args)]
pub(crate) struct Options {
    /// The address to listen on.
    #[arg(long, default_value_t = Ipv4Addr::UNSPECIFIED.into())]
    address: IpAddr,
    /// The port to listen on.
    #[arg(long, default_value_t = 9411)]
    port: u16,
}

type Spans = Arc<Mutex<Vec<Value>>>;

pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let address = SocketAddr::new(options.address, options.port);
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let spans = Spans::default();
    loop {
        let (stream, _) = listener.accept().await?;
        let spans = Arc::clone(&spans);
        let service = service_fn(move |request| answer(Arc::clone(&spans), request));
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "connection ended");
            }
        });
    }
}

async fn answer(spans: Spans, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let (status, text) = match (&head.method, head.uri.path()) {
        (&Method::POST, "/api/v2/spans") => {
            let received =
                body.collect().await.ok().and_then(|body| serde_json::from_slice(&body.to_bytes()).ok());
            match received {
                Some(Value::Array(received)) => {
                    let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
                    spans.extend(received);
                    let surplus = spans.len().saturating_sub(MOST_SPANS);
                    spans.drain(..surplus);
                    (StatusCode::ACCEPTED, String::new())
                }
                _ => (StatusCode::BAD_REQUEST, "the body is not a list of spans".to_owned()),
            }
        }
        (&Method::GET, "/spans") => {
            let spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
            (StatusCode::OK, Value::Array(spans.clone()).to_string())
        }
        (&Method::GET, "/health") => (StatusCode::OK, "healthy".to_owned()),
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    Ok(response)
}
