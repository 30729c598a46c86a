//! TCP through an HTTP proxy: `tunneling_config`. The upstream is asked to CONNECT; once it has said yes, the connection
//! (HTTP/1) or the stream (HTTP/2) carries the client's bytes.

use std::time::Duration;

use bytes::Bytes;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Uri, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use sail_proxy_config::cluster::UpstreamProtocol;
use sail_proxy_config::network_filter::Tunneling;
use sail_proxy_decide::headers::{AddValue, AppendAction};

use crate::access_log;
use crate::net::Stream;
use crate::pool::PoolError;
use crate::pool::connect::{Connector, Opened};
use crate::rt::LocalExec;
use crate::stream_info::StreamInfo;

type Connect = Request<Empty<Bytes>>;

/// The request that asks for a tunnel.
pub(super) fn request(config: &Tunneling, info: &StreamInfo) -> Result<Connect, PoolError> {
    let wanted = access_log::text(&config.hostname, info);
    let authority: Authority = wanted
        .parse()
        .map_err(|_| PoolError::Connect(format!("{wanted:?} cannot be asked for by CONNECT").into()))?;
    let mut request = Request::new(Empty::new());
    *request.method_mut() = Method::CONNECT;
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = Uri::from(authority);
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

/// Connects, and asks for the tunnel.
pub(super) async fn open(
    connector: &Connector,
    protocol: UpstreamProtocol,
    request: Connect,
    limit: Duration,
) -> Result<Opened, PoolError> {
    let Opened { stream, info } = connector.open().await?;
    let negotiated = info.tls.as_ref().and_then(|tls| tls.info.alpn.as_deref());
    let http2 = match protocol {
        UpstreamProtocol::Http2 => true,
        UpstreamProtocol::Http1 | UpstreamProtocol::UseDownstream => false,
        UpstreamProtocol::Auto => negotiated == Some("h2"),
    };
    let ask =
        async { if http2 { over_http2(stream, request).await } else { over_http1(stream, request).await } };
    let stream = tokio::time::timeout(limit, ask).await.unwrap_or(Err(PoolError::Timeout))?;
    Ok(Opened { stream, info })
}

fn failed(error: hyper::Error) -> PoolError {
    PoolError::Connect(format!("the tunnel was not opened: {error}").into())
}

async fn over_http1(stream: Stream, request: Connect) -> Result<Stream, PoolError> {
    let (mut send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // It ends when the connection becomes a tunnel, or breaks.
    tokio::task::spawn_local(async move {
        let _ = connection.with_upgrades().await;
    });
    let upgraded = upgraded(send.send_request(request).await.map_err(failed)?).await?;
    match upgraded.downcast::<TokioIo<Stream>>() {
        Ok(parts) => Ok(parts.io.into_inner().rewound(parts.read_buf)),
        Err(upgraded) => Ok(Stream::Tunnel(Box::new(TokioIo::new(upgraded)))),
    }
}

async fn over_http2(stream: Stream, mut request: Connect) -> Result<Stream, PoolError> {
    // `:authority` says it.
    request.headers_mut().remove(header::HOST);
    let (mut send, connection) = http2::handshake(LocalExec, TokioIo::new(stream)).await.map_err(failed)?;
    // It ends with its only stream.
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
    let upgraded = upgraded(send.send_request(request).await.map_err(failed)?).await?;
    Ok(Stream::Tunnel(Box::new(TokioIo::new(upgraded))))
}

async fn upgraded(
    response: http::Response<hyper::body::Incoming>,
) -> Result<hyper::upgrade::Upgraded, PoolError> {
    if !response.status().is_success() {
        let status = response.status();
        return Err(PoolError::Connect(format!("the tunnel was refused: {status}").into()));
    }
    hyper::upgrade::on(response).await.map_err(failed)
}
