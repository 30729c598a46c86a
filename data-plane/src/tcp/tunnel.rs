//! TCP through an HTTP proxy: `tunneling_config`. The upstream is asked to CONNECT; once it has said yes, the connection
//! (HTTP/1) or the stream (HTTP/2) carries the client's bytes. Or the bodies of a POST carry them.

use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use sail_proxy_config::cluster::UpstreamProtocol;
use sail_proxy_config::network_filter::Tunneling;
use sail_proxy_decide::headers::{AddValue, AppendAction};

use super::posted::{self, Posted};
use crate::access_log;
use crate::net::Stream;
use crate::pool::PoolError;
use crate::pool::connect::{Connector, Opened};
use crate::rt::LocalExec;
use crate::stream_info::StreamInfo;

/// Under which key the answer's headers are kept.
pub(super) const RESPONSE_HEADERS: &str = "envoy.tcp_proxy.propagate_response_headers";

/// A request without its body.
type Head = Request<()>;

/// The request that asks for a tunnel.
pub(super) fn request(config: &Tunneling, info: &StreamInfo) -> Result<Head, PoolError> {
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

/// Connects, and asks for the tunnel. The answer's headers come with it.
pub(super) async fn open(
    connector: &Connector,
    protocol: UpstreamProtocol,
    request: Head,
    limit: Duration,
) -> Result<(Opened, HeaderMap), PoolError> {
    let Opened { stream, info } = connector.open().await?;
    let negotiated = info.tls.as_ref().and_then(|tls| tls.info.alpn.as_deref());
    let http2 = match protocol {
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Http1 | UpstreamProtocol::UseDownstream => false,
        UpstreamProtocol::Auto => negotiated == Some("h2"),
    };
    let ask = async {
        match (*request.method() == Method::POST, http2) {
            (true, _) => by_post(stream, request, http2).await,
            (false, true) => over_http2(stream, request.map(|()| Empty::new())).await,
            (false, false) => over_http1(stream, request.map(|()| Empty::new())).await,
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

fn failed(error: hyper::Error) -> PoolError {
    PoolError::Connect(format!("the tunnel was not opened: {error}").into())
}

type Tunneled = Result<(Stream, HeaderMap), PoolError>;

async fn over_http1(stream: Stream, request: Request<Empty<Bytes>>) -> Tunneled {
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

async fn over_http2(stream: Stream, mut request: Request<Empty<Bytes>>) -> Tunneled {
    // `:authority` says it.
    request.headers_mut().remove(header::HOST);
    let (mut send, connection) = http2::handshake(LocalExec, TokioIo::new(stream)).await.map_err(failed)?;
    // It ends with its only stream.
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let (upgraded, headers) = upgraded(send.send_request(request).await.map_err(failed)?).await?;
    Ok((Stream::Tunnel(Box::new(TokioIo::new(upgraded))), headers))
}

/// The bytes go as bodies.
async fn by_post(stream: Stream, mut request: Head, http2: bool) -> Tunneled {
    let (write, body) = posted::body();
    let response = if http2 {
        request.headers_mut().remove(header::HOST);
        let request = request.map(|()| body);
        let (mut send, connection) =
            http2::handshake(LocalExec, TokioIo::new(stream)).await.map_err(failed)?;
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        send.send_request(request).await
    } else {
        // The path alone stands in the request's line.
        *request.uri_mut() = request.uri().path_and_query().cloned().map_or_else(Uri::default, Uri::from);
        let request = request.map(|()| body);
        let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        tokio::task::spawn_local(async move {
            let _ = connection.await;
        });
        send.send_request(request).await
    };
    let response = accepted(response.map_err(failed)?)?;
    let (head, body) = response.into_parts();
    Ok((Stream::Posted(Box::new(Posted::new(write, body))), head.headers))
}

async fn upgraded(
    response: http::Response<hyper::body::Incoming>,
) -> Result<(hyper::upgrade::Upgraded, HeaderMap), PoolError> {
    let response = accepted(response)?;
    let headers = response.headers().clone();
    Ok((hyper::upgrade::on(response).await.map_err(failed)?, headers))
}

fn accepted(
    response: http::Response<hyper::body::Incoming>,
) -> Result<http::Response<hyper::body::Incoming>, PoolError> {
    if !response.status().is_success() {
        let status = response.status();
        return Err(PoolError::Connect(format!("the tunnel was refused: {status}").into()));
    }
    Ok(response)
}
