//! The application's own probes, run from inside the pod: HTTP, HTTPS, HTTP/2 over TLS, TCP, gRPC. The connection
//! comes from 127.0.0.6, which the capture rules let pass to the application.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use agent_contract::ports;
use agent_contract::probes::{Grpc, HttpGet, Prober};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tonic::transport::{Endpoint, Uri};

use crate::frames::RawCodec;
use crate::http_client::{self, Fetch, Fetched, connect_from, exchange};

/// Kubernetes' default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);
/// As the kubelet.
const MAX_REDIRECTS: usize = 10;
const MAX_BODY: usize = 10 << 10;
/// `grpc.health.v1.HealthCheckResponse{status: SERVING}`
const SERVING: &[u8] = &[0x08, 0x01];
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// Why a probe failed without an answer of the application.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("connecting to the application at port {0}")]
    Connect(u16, #[source] io::Error),
    #[error("TLS with the application")]
    Tls(#[source] io::Error),
    #[error("TLS set-up")]
    TlsConfig(#[source] rustls::Error),
    #[error(transparent)]
    Http(#[from] http_client::Error),
    #[error("HTTP/2 with the application")]
    Http2(#[source] hyper::Error),
    #[error("the probe's request is not valid")]
    Request(#[source] http::Error),
    #[error("reading the application's answer: {0}")]
    Body(String),
    #[error("header {0:?} of the probe cannot be sent")]
    Header(String),
    #[error("the application redirected more than {MAX_REDIRECTS} times")]
    Redirects,
    #[error("gRPC health check: {}", .0.message())]
    Grpc(Box<tonic::Status>),
    #[error("gRPC with the application")]
    GrpcConnect(#[source] tonic::transport::Error),
    #[error("the application says that it is not serving")]
    NotServing,
    #[error("the probe names no action")]
    NoAction,
    #[error("the application did not answer within {0:?}")]
    Timeout(Duration),
}

/// What the kubelet is told.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Outcome {
    fn ok() -> Self {
        Self { status: StatusCode::OK, body: Bytes::new() }
    }
}

/// Runs one probe. `headers` are those of the kubelet's request.
pub(super) async fn run(
    prober: &Prober,
    instance: Option<IpAddr>,
    headers: &HeaderMap,
) -> Result<Outcome, Error> {
    let host = instance.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let timeout = match prober.timeout_seconds {
        0 => DEFAULT_TIMEOUT,
        seconds => Duration::from_secs(seconds.into()),
    };
    let probe = async {
        if let Some(get) = &prober.http_get {
            http(get, host, headers, timeout).await
        } else if let Some(tcp) = &prober.tcp_socket {
            connect(host, tcp.port).await.map(|_| Outcome::ok())
        } else if let Some(check) = &prober.grpc {
            grpc(check, host).await
        } else {
            Err(Error::NoAction)
        }
    };
    tokio::time::timeout(timeout, probe).await.map_err(|_| Error::Timeout(timeout))?
}

async fn connect(host: IpAddr, port: u16) -> Result<TcpStream, Error> {
    let source = match host {
        IpAddr::V4(_) => ports::INBOUND_PASSTHROUGH_BIND_V4,
        IpAddr::V6(_) => ports::INBOUND_PASSTHROUGH_BIND_V6,
    };
    connect_from(source.parse().ok(), host, port).await.map_err(|source| Error::Connect(port, source))
}

async fn http(get: &HttpGet, host: IpAddr, headers: &HeaderMap, timeout: Duration) -> Result<Outcome, Error> {
    let headers = request_headers(get, host, headers)?;
    let mut path = format!("/{}", get.path.trim_start_matches('/'));
    for _ in 0..=MAX_REDIRECTS {
        let fetched = fetch(get, host, &path, headers.clone(), timeout).await?;
        match redirect(&fetched) {
            Some(next) => path = next,
            None => return Ok(Outcome { status: fetched.status, body: fetched.body }),
        }
    }
    Err(Error::Redirects)
}

/// A redirect within the application is followed; one that leads elsewhere is an answer, and a good one.
fn redirect(fetched: &Fetched) -> Option<String> {
    if !fetched.status.is_redirection() {
        return None;
    }
    let location = fetched.headers.get(header::LOCATION)?.to_str().ok()?;
    let is_path = location.starts_with('/') && !location.starts_with("//");
    is_path.then(|| location.to_owned())
}

async fn fetch(
    get: &HttpGet,
    host: IpAddr,
    path: &str,
    headers: HeaderMap,
    timeout: Duration,
) -> Result<Fetched, Error> {
    let stream = connect(host, get.port).await?;
    let name = host.to_string();
    let mut fetch = Fetch::get(&name, get.port, path, timeout);
    fetch.headers = headers;
    let peer = format!("{host}:{}", get.port);
    if !get.scheme.eq_ignore_ascii_case("https") {
        return Ok(exchange(stream, fetch, peer).await?);
    }
    let config = super::tls::config().map_err(Error::TlsConfig)?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::IpAddress(host.into()), stream).await.map_err(Error::Tls)?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        return exchange_h2(stream, fetch, &peer).await;
    }
    Ok(exchange(stream, fetch, peer).await?)
}

async fn exchange_h2<S>(stream: S, fetch: Fetch<'_>, peer: &str) -> Result<Fetched, Error>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(Error::Http2)?;
    let _connection = base::task::Supervised::spawn(async move {
        // Its errors are those of the request as well.
        let _ = connection.await;
    });
    let host = fetch.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or(peer);
    let uri = format!("https://{host}{}", fetch.path);
    let mut request = http::Request::builder().method(fetch.method).uri(uri);
    if let Some(headers) = request.headers_mut() {
        headers.extend(fetch.headers.clone());
        headers.remove(header::HOST);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(Error::Request)?;
    let (head, body) = sender.send_request(request).await.map_err(Error::Http2)?.into_parts();
    let body =
        Limited::new(body, MAX_BODY).collect().await.map_err(|error| Error::Body(error.to_string()))?;
    Ok(Fetched { status: head.status, headers: head.headers, body: body.to_bytes() })
}

/// The kubelet's own header fields, then the probe's; a `Host` is the probe's only.
fn request_headers(get: &HttpGet, host: IpAddr, incoming: &HeaderMap) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in incoming {
        if !is_hop_by_hop(name) && *name != header::HOST {
            headers.append(name.clone(), value.clone());
        }
    }
    for field in &get.http_headers {
        let refuse = || Error::Header(field.name.clone());
        let name = HeaderName::try_from(field.name.as_str()).map_err(|_| refuse())?;
        let value = HeaderValue::try_from(field.value.as_str()).map_err(|_| refuse())?;
        headers.insert(name, value);
    }
    if !headers.contains_key(header::HOST) {
        let host = match host {
            IpAddr::V4(ip) => format!("{ip}:{}", get.port),
            IpAddr::V6(ip) => format!("[{ip}]:{}", get.port),
        };
        headers.insert(header::HOST, HeaderValue::try_from(host).map_err(|_| Error::NoAction)?);
    }
    Ok(headers)
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    const NAMES: [HeaderName; 5] =
        [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TE, header::CONTENT_LENGTH];
    NAMES.contains(name)
}

async fn grpc(check: &Grpc, host: IpAddr) -> Result<Outcome, Error> {
    let port = check.port;
    let connector = tower::service_fn(move |_: Uri| async move {
        connect(host, port).await.map(TokioIo::new).map_err(|error| io::Error::other(error.to_string()))
    });
    let endpoint = Endpoint::from_static("http://application");
    let channel = endpoint.connect_with_connector(connector).await.map_err(Error::GrpcConnect)?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(Error::GrpcConnect)?;
    let mut message = BytesMut::new();
    if let Some(service) = check.service.as_ref().filter(|service| !service.is_empty()) {
        prost::encoding::string::encode(1, service, &mut message);
    }
    message.put_slice(&[]);
    let path = http::uri::PathAndQuery::from_static(HEALTH_CHECK);
    let response = client
        .unary(tonic::Request::new(message.freeze()), path, RawCodec)
        .await
        .map_err(|status| Error::Grpc(Box::new(status)))?;
    if response.into_inner().starts_with(SERVING) { Ok(Outcome::ok()) } else { Err(Error::NotServing) }
}
