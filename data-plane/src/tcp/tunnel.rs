//! TCP through an HTTP proxy: `tunneling_config`. The upstream is asked to CONNECT; once it has said yes, the connection
//! (HTTP/1) or the stream (HTTP/2) carries the client's bytes. Or the bodies of a POST carry them. Tunnels over HTTP/2
//! share the connections of a pool.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rand::RngCore;
use sail_proxy_config::network_filter::{TunnelRequestId, Tunneling};
use sail_proxy_decide::headers::{AddValue, AppendAction};

use super::posted::{self, Posted};
use crate::access_log;
use crate::http::body::Body;
use crate::http::request_id;
use crate::net::Stream;
use crate::pool::connect::{Connector, Opened};
use crate::pool::lease::{Hold, Lease};
use crate::pool::{Pool, PoolError};
use crate::stream_info::StreamInfo;

/// Under which key the answer's headers are kept.
pub(super) const RESPONSE_HEADERS: &str = "envoy.tcp_proxy.propagate_response_headers";

/// Under which its trailers are.
pub(super) const RESPONSE_TRAILERS: &str = "envoy.tcp_proxy.propagate_response_trailers";

/// The namespace of a tunnel's own metadata.
const NAMESPACE: &str = "envoy.filters.network.tcp_proxy";

/// So many shared connections may turn out to have ended before a tunnel gets none.
const STALE_CONNECTIONS: u32 = 5;

/// A request without its body.
pub(super) type Head = Request<()>;

/// The request that asks for a tunnel; its id, if it has one, is noted.
pub(super) fn request(
    config: &Tunneling,
    info: &mut StreamInfo,
    rng: &mut impl RngCore,
) -> Result<Head, PoolError> {
    let mut request = described(config, info)?;
    if let Some(TunnelRequestId { header, metadata_key }) = &config.request_id {
        let id = request_id::generate(rng);
        info.dynamic_metadata.set(NAMESPACE, metadata_key, String::from_utf8_lossy(&id).into());
        if let Ok(value) = HeaderValue::from_maybe_shared(id) {
            request.headers_mut().insert(header.clone(), value);
        }
    }
    Ok(request)
}

fn described(config: &Tunneling, info: &StreamInfo) -> Result<Head, PoolError> {
    let wanted = access_log::text(&config.hostname, info);
    let authority: Authority = wanted
        .parse()
        .map_err(|_| PoolError::Connect(format!("{wanted:?} cannot be asked for by CONNECT").into()))?;
    let mut request = Request::new(());
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(header::HOST, host);
    }
    match &config.post_path {
        None => {
            *request.method_mut() = Method::CONNECT;
            *request.uri_mut() = Uri::from(authority);
        }
        Some(path) => {
            *request.method_mut() = Method::POST;
            let uri = Uri::builder().scheme("http").authority(authority).path_and_query(&**path).build();
            *request.uri_mut() = uri.map_err(|error| PoolError::Connect(error.to_string().into()))?;
        }
    }
    for add in &config.headers.add {
        let value = match &add.value {
            AddValue::Literal(value) => Some(value.clone()),
            AddValue::Format(format) => HeaderValue::try_from(access_log::text(format, info)).ok(),
        };
        let Some(value) = value.filter(|value| !value.is_empty() || add.keep_empty_value) else { continue };
        let headers = request.headers_mut();
        match add.action {
            AppendAction::AppendIfExistsOrAdd => {
                headers.append(add.name.clone(), value);
            }
            AppendAction::AddIfAbsent if headers.contains_key(&add.name) => {}
            AppendAction::OverwriteIfExists if !headers.contains_key(&add.name) => {}
            _ => {
                headers.insert(add.name.clone(), value);
            }
        }
    }
    Ok(request)
}

/// Asks for the tunnel on a connection that other tunnels share; `None`: the host does not speak HTTP/2. The lease lasts
/// as long as the tunnel.
pub(super) async fn share(
    pool: &Rc<Pool>,
    request: &Head,
    limit: Duration,
    hold: impl FnOnce() -> Option<Hold>,
) -> Result<Option<(Stream, HeaderMap, Lease)>, PoolError> {
    let mut lease = pool.acquire().await?;
    if !lease.is_http2() {
        return Ok(None);
    }
    lease.hold(hold().ok_or(PoolError::Overflow)?);
    let mut stale = 0;
    let (write, response) = loop {
        let (request, write) = with_body(request);
        match tokio::time::timeout(limit, lease.send(request)).await {
            Err(_) => return Err(PoolError::Timeout),
            Ok(Ok(response)) => break (write, accepted(response)?),
            Ok(Err(failure)) => {
                stale += 1;
                if failure.unsent.is_none() || stale > STALE_CONNECTIONS {
                    return Err(failed(failure.error));
                }
            }
        }
        // The connection had ended while it was idle, and nothing was sent.
        let hold = lease.take_hold();
        lease = pool.acquire().await?;
        if let Some(hold) = hold {
            lease.hold(hold);
        }
    };
    let (stream, headers) = match write {
        None => {
            let (upgraded, headers) = upgraded(response).await?;
            (Stream::Tunnel(Box::new(TokioIo::new(upgraded))), headers)
        }
        Some(write) => {
            let (head, body) = response.into_parts();
            // Shared connections are HTTP/2's.
            let Body::Incoming(body) = body else { return Ok(None) };
            (Stream::Posted(Box::new(Posted::new(write, body))), head.headers)
        }
    };
    Ok(Some((stream, headers, lease)))
}

/// The request as HTTP/2 has it; a POST's body comes from the writer.
fn with_body(head: &Head) -> (Request<Body>, Option<posted::Writer>) {
    let mut request = Request::new(());
    request.method_mut().clone_from(head.method());
    request.uri_mut().clone_from(head.uri());
    request.headers_mut().clone_from(head.headers());
    // `:authority` says it.
    request.headers_mut().remove(header::HOST);
    if *head.method() == Method::CONNECT {
        return (request.map(|()| Body::Empty), None);
    }
    let (write, body) = posted::body();
    (request.map(|()| Body::boxed(body)), Some(write))
}

/// Connects, and asks for the tunnel by HTTP/1, which has the connection for itself. The answer's headers come with it.
pub(super) async fn open(
    connector: &Connector,
    request: Head,
    limit: Duration,
) -> Result<(Opened, HeaderMap), PoolError> {
    let Opened { stream, info } = connector.open().await?;
    let ask = async {
        if *request.method() == Method::POST {
            by_post(stream, request).await
        } else {
            by_connect(stream, request.map(|()| Empty::new())).await
        }
    };
    let (stream, headers) = tokio::time::timeout(limit, ask).await.unwrap_or(Err(PoolError::Timeout))?;
    Ok((Opened { stream, info }, headers))
}

/// Headers as an object, the last of a name for all.
pub(super) fn as_json(headers: &HeaderMap) -> String {
    let fields = headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), serde_json::Value::from(value))
    });
    serde_json::Value::Object(fields.collect()).to_string()
}

fn failed(error: impl std::fmt::Display) -> PoolError {
    PoolError::Connect(format!("the tunnel was not opened: {error}").into())
}

type Tunneled = Result<(Stream, HeaderMap), PoolError>;

async fn by_connect(stream: Stream, request: Request<Empty<Bytes>>) -> Tunneled {
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // It ends when the connection becomes a tunnel, or breaks.
    tokio::task::spawn_local(async move {
        let _ = connection.with_upgrades().await;
    });
    let (upgraded, headers) = upgraded(send.send_request(request).await.map_err(failed)?).await?;
    let stream = match upgraded.downcast::<TokioIo<Stream>>() {
        Ok(parts) => parts.io.into_inner().rewound(parts.read_buf),
        Err(upgraded) => Stream::Tunnel(Box::new(TokioIo::new(upgraded))),
    };
    Ok((stream, headers))
}

/// The bytes go as bodies.
async fn by_post(stream: Stream, mut request: Head) -> Tunneled {
    let (write, body) = posted::body();
    // The path alone stands in the request's line.
    *request.uri_mut() = request.uri().path_and_query().cloned().map_or_else(Uri::default, Uri::from);
    let request = request.map(|()| body);
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let response = send.send_request(request).await;
    let response = accepted(response.map_err(failed)?)?;
    let (head, body) = response.into_parts();
    Ok((Stream::Posted(Box::new(Posted::new(write, body))), head.headers))
}

async fn upgraded<B>(
    response: http::Response<B>,
) -> Result<(hyper::upgrade::Upgraded, HeaderMap), PoolError> {
    let response = accepted(response)?;
    let headers = response.headers().clone();
    Ok((hyper::upgrade::on(response).await.map_err(failed)?, headers))
}

fn accepted<B>(response: http::Response<B>) -> Result<http::Response<B>, PoolError> {
    if !response.status().is_success() {
        let status = response.status();
        return Err(PoolError::Connect(format!("the tunnel was refused: {status}").into()));
    }
    Ok(response)
}
