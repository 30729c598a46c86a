//! One check of one host.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use base::task::Supervised;
use bytes::{Bytes, BytesMut};
use http::{Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use sail_proxy_config::cluster::{Cluster, HealthCheck, HealthChecker};
use sail_proxy_decide::address::Address;
use sail_proxy_decide::format::{Attributes, Operator};
use sail_proxy_decide::headers::HeaderOps;
use sail_proxy_decide::host::Host;
use sail_proxy_decide::matcher::StringMatcher;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::state::Outcome;
use crate::dial::Connect;

type Stream = Box<dyn Connect>;

/// Puts the cluster's transport socket round a connection to one of its hosts.
pub type Tls =
    Rc<dyn Fn(Arc<Cluster>, Arc<Host>, Stream) -> Pin<Box<dyn Future<Output = io::Result<Stream>>>>>;

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The host's address is of a kind that is not checked.
    #[error("{0} cannot be checked")]
    Address(Address),
    /// No connection, or it broke.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// It does not speak HTTP.
    #[error("HTTP failed")]
    Http(#[from] hyper::Error),
    /// The request cannot be made of the configuration.
    #[error("the check's request is not valid")]
    Request(#[from] http::Error),
    /// It answered that it is not well.
    #[error("it answered {status}")]
    Refused {
        /// The HTTP status; 0 where there is none.
        status: u16,
        /// It counts as no answer does.
        retriable: bool,
    },
}

const REFUSED: Error = Error::Refused { status: 0, retriable: false };

/// What checks of a host share: the connection, if it is kept.
#[derive(Default)]
pub(super) struct Session(Option<Open>);

/// An HTTP connection.
struct Open {
    send: Send,
    _task: Supervised<()>,
}

enum Send {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(hyper::client::conn::http2::SendRequest<Full<Bytes>>),
}

impl Open {
    async fn new(stream: Stream, http2: bool) -> Result<Self, Error> {
        let io = TokioIo::new(stream);
        Ok(if http2 {
            let (send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            let task = Supervised::spawn(async move { drop(connection.await) });
            Self { send: Send::Http2(send), _task: task }
        } else {
            let (send, connection) = hyper::client::conn::http1::handshake(io).await?;
            let task = Supervised::spawn(async move { drop(connection.await) });
            Self { send: Send::Http1(send), _task: task }
        })
    }

    fn is_ready(&self) -> bool {
        match &self.send {
            Send::Http1(send) => send.is_ready(),
            Send::Http2(send) => send.is_ready(),
        }
    }

    async fn call(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match &mut self.send {
            Send::Http1(send) => send.send_request(request).await,
            Send::Http2(send) => send.send_request(request).await,
        }
    }
}

/// What an HTTP check asks and expects.
struct Wanted<'a> {
    expected: &'a [Range<u16>],
    retriable: &'a [Range<u16>],
    receive: &'a [Bytes],
    body_limit: usize,
    service: Option<&'a StringMatcher>,
}

impl Session {
    /// Checks the host once.
    pub(super) async fn check(
        &mut self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        config: &HealthCheck,
        tls: &Tls,
    ) -> Outcome {
        match self.once(cluster, host, config, tls).await {
            Ok(degraded) => Outcome::Success { degraded },
            Err(Error::Refused { status, retriable }) => Outcome::Refused { status, retriable },
            Err(error) => {
                self.0 = None;
                tracing::debug!(cluster = &*cluster.name, host = %host.address, %error, "a health check failed");
                Outcome::Network
            }
        }
    }

    /// Whether the host is degraded.
    async fn once(
        &mut self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        config: &HealthCheck,
        tls: &Tls,
    ) -> Result<bool, Error> {
        let target = host.health_check.as_ref().map(|target| &target.hostname);
        let named = |name: &Arc<str>| {
            let name = target.filter(|name| !name.is_empty()).unwrap_or(name);
            if name.is_empty() { cluster.name.clone() } else { name.clone() }
        };
        match &config.checker {
            HealthChecker::Tcp { send, receive } => {
                let stream = connect(cluster, host, config, tls).await?;
                tcp(stream, send.as_ref(), receive).await.map(|()| false)
            }
            HealthChecker::Grpc { service, authority, headers } => {
                let stream = connect(cluster, host, config, tls).await?;
                grpc(stream, service, &named(authority), headers).await.map(|()| false)
            }
            HealthChecker::Http {
                host: name,
                path,
                method,
                send,
                expected_statuses,
                retriable_statuses,
                http2,
                headers,
                receive,
                response_buffer_size,
                service_name,
            } => {
                let name = named(name);
                let mut request = Request::builder()
                    .method(method.clone())
                    .uri(if *http2 { format!("http://{name}{path}") } else { path.to_string() })
                    .header(header::HOST, &*name)
                    .header(header::USER_AGENT, "Envoy/HC")
                    .body(Full::new(send.clone().unwrap_or_default()))?;
                if let Some(body) = send {
                    request.headers_mut().insert(header::CONTENT_LENGTH, body.len().into());
                }
                headers.apply(request.headers_mut(), &Constants);
                if self.0.as_ref().is_none_or(|open| !open.is_ready()) {
                    let stream = connect(cluster, host, config, tls).await?;
                    self.0 = Some(Open::new(stream, *http2).await?);
                }
                let limit = usize::try_from(*response_buffer_size).unwrap_or(usize::MAX);
                let wanted = Wanted {
                    expected: expected_statuses,
                    retriable: retriable_statuses,
                    receive,
                    body_limit: if limit == 0 { usize::MAX } else { limit },
                    service: service_name.as_ref(),
                };
                let Some(open) = &mut self.0 else { return Err(REFUSED) };
                let answer = http(open, request, &wanted).await;
                if !config.reuse_connection || answer.as_ref().is_ok_and(|answer| !answer.reusable) {
                    self.0 = None;
                }
                answer?.verdict
            }
        }
    }
}

/// What an HTTP check brought.
struct Answer {
    /// Whether the host is degraded.
    verdict: Result<bool, Error>,
    /// Whether the connection may serve the next check.
    reusable: bool,
}

/// As much of a body as is read to keep its connection.
const BODY_LIMIT: usize = 64 * 1024;

async fn http(open: &mut Open, request: Request<Full<Bytes>>, wanted: &Wanted<'_>) -> Result<Answer, Error> {
    let (head, body) = open.call(request).await?.into_parts();
    let body = Limited::new(body, BODY_LIMIT).collect().await;
    let reusable = body.is_ok();
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let status = head.status.as_u16();
    let within = |ranges: &[Range<u16>]| ranges.iter().any(|range| range.contains(&status));
    let says = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let refused = |retriable| Err(Error::Refused { status, retriable });
    let verdict = if says("x-envoy-immediate-health-check-fail").is_some() {
        refused(false)
    } else if within(wanted.retriable) && !within(wanted.expected) {
        refused(true)
    } else if !within(wanted.expected)
        || !holds(&body[..body.len().min(wanted.body_limit)], wanted.receive)
        || wanted.service.is_some_and(|matcher| {
            !says("x-envoy-upstream-healthchecked-cluster")
                .is_some_and(|name| matcher.is_match(name.as_bytes()))
        })
    {
        refused(false)
    } else {
        Ok(says("x-envoy-degraded").is_some())
    };
    Ok(Answer { verdict, reusable })
}

/// Whether bytes hold these pieces, in this order.
fn holds(bytes: &[u8], pieces: &[Bytes]) -> bool {
    let mut rest = bytes;
    pieces.iter().all(|piece| match memchr::memmem::find(rest, piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

/// Header operations of checks have no request to read from.
struct Constants;

impl Attributes for Constants {
    fn text(&self, _: &Operator) -> Option<Cow<'_, str>> {
        None
    }
}

async fn connect(
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    config: &HealthCheck,
    tls: &Tls,
) -> Result<Stream, Error> {
    let target = host.health_check.as_deref();
    let address = target.and_then(|target| target.address.as_ref()).unwrap_or(&host.address);
    let port = target.and_then(|target| target.port).or(config.alt_port);
    let stream: Stream = match address {
        Address::Ip(address) => {
            let address = SocketAddr::new(address.ip(), port.unwrap_or(address.port()));
            Box::new(TcpStream::connect(address).await?)
        }
        Address::Pipe(path) => Box::new(UnixStream::connect(path).await?),
        Address::Internal { .. } => return Err(Error::Address(address.clone())),
    };
    Ok(tls(cluster.clone(), host.clone(), stream).await?)
}

async fn tcp(mut stream: Stream, send: Option<&Bytes>, receive: &[Bytes]) -> Result<(), Error> {
    if let Some(send) = send {
        stream.write_all(send).await?;
    }
    // Each piece must come after the one before it, with anything between.
    let mut seen = BytesMut::new();
    let mut at = 0;
    for wanted in receive {
        loop {
            if let Some(found) = memchr::memmem::find(&seen[at..], wanted) {
                at += found + wanted.len();
                break;
            }
            if seen.len() > 64 * 1024 {
                return Err(REFUSED);
            }
            if stream.read_buf(&mut seen).await? == 0 {
                return Err(Error::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
    Ok(())
}

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, Message)]
struct HealthResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

async fn grpc(stream: Stream, service: &str, authority: &str, headers: &HeaderOps) -> Result<(), Error> {
    let mut grpc = crate::dial::grpc_over(stream, authority).await?;
    grpc.ready().await?;
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthRequest, HealthResponse>::default();
    let mut added = http::HeaderMap::new();
    headers.apply(&mut added, &Constants);
    let mut request = tonic::Request::new(HealthRequest { service: service.to_owned() });
    *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(added);
    match grpc.unary(request, path, codec).await {
        Ok(response) if response.get_ref().status == SERVING => Ok(()),
        // The transport's own failures are no answers.
        Err(status) if status.code() == tonic::Code::Unavailable => Err(io::Error::other(status).into()),
        _ => Err(REFUSED),
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, holds};

    #[test]
    fn pieces_are_found_in_their_order() {
        let pieces = [Bytes::from_static(b"a"), Bytes::from_static(b"bc")];
        assert!(holds(b"xxaxxbcxx", &pieces));
        assert!(!holds(b"bc a", &pieces));
        assert!(holds(b"", &[]));
    }
}
