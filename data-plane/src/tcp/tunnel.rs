//! TCP through an HTTP proxy: `tunneling_config`. The upstream is asked to CONNECT; once it has said yes, the connection
//! (HTTP/1) or the stream (HTTP/2) carries the client's bytes. Or the bodies of a POST carry them. Tunnels over HTTP/2
//! share the connections of a pool.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
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
use crate::stats::Traffic;
use crate::stream_info::StreamInfo;
use crate::{http1, http2};

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
            let (head, body) = response.into_parts();
            let Body::Streamed(body) = body else { return Err(failed("the stream has ended")) };
            (Stream::Tunnel(Box::new(http2::Tunnel::new(body.into_handle()))), head.headers)
        }
        Some(write) => {
            let (head, body) = response.into_parts();
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
    traffic: Traffic,
) -> Result<(Opened, HeaderMap), PoolError> {
    let Opened { stream, info } = connector.open().await?;
    let ask = by_http1(stream, request, connector.http1, traffic);
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

/// The connection is the tunnel from the answer on, or its bodies are.
async fn by_http1(
    stream: Stream,
    mut request: Head,
    mut options: http1::Options,
    traffic: Traffic,
) -> Result<(Stream, HeaderMap), PoolError> {
    // Who wants the answer's trailers asks for them in the tunnel's own configuration.
    options.form.trailers = true;
    let mut write = None;
    let request = if *request.method() == Method::POST {
        // The path alone stands in the request's line.
        *request.uri_mut() = request.uri().path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        let (writer, body) = posted::body();
        write = Some(writer);
        request.map(|()| Body::boxed(body))
    } else {
        request.map(|()| Body::Empty)
    };
    let connection = http1::Connection::new(stream, options, Rc::default(), traffic);
    let connection = Rc::new(RefCell::new(connection));
    connection.borrow_mut().begin(request);
    let response = poll_fn(|context| connection.borrow_mut().poll_response(context)).await;
    let (head, ()) = accepted(response.map_err(failed)?)?.into_parts();
    let stream = match write {
        Some(write) => {
            let body = Body::Received(http1::Connection::body(&connection));
            Some(Stream::Posted(Box::new(Posted::new(write, body))))
        }
        None => connection.borrow_mut().take_stream(),
    };
    Ok((stream.ok_or_else(|| failed("the connection has ended"))?, head.headers))
}

fn accepted<B>(response: http::Response<B>) -> Result<http::Response<B>, PoolError> {
    if !response.status().is_success() {
        let status = response.status();
        return Err(PoolError::Connect(format!("the tunnel was refused: {status}").into()));
    }
    Ok(response)
}
