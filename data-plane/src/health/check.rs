//! One check of one host.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Request, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use sail_proxy_config::cluster::{Cluster, HealthCheck, HealthChecker};
use sail_proxy_decide::address::Address;
use sail_proxy_decide::host::Host;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

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
    #[error("it answered {0}")]
    Refused(String),
}

/// Checks the host once.
pub(super) async fn check(
    cluster: &Arc<Cluster>,
    host: &Arc<Host>,
    config: &HealthCheck,
    tls: &Tls,
) -> Result<(), Error> {
    let stream = connect(cluster, host, config, tls).await?;
    match &config.checker {
        HealthChecker::Tcp { send, receive } => tcp(stream, send.as_ref(), receive).await,
        HealthChecker::Http { host: name, path, method, expected_statuses, http2, .. } => {
            let target = host.health_check.as_ref().map(|target| &target.hostname);
            let name = target.filter(|name| !name.is_empty()).unwrap_or(name);
            let name = if name.is_empty() { &cluster.name } else { name };
            let request = Request::builder()
                .method(method.clone())
                .uri(if *http2 { format!("http://{name}{path}") } else { path.to_string() })
                .header(header::HOST, &**name)
                .header(header::USER_AGENT, "Envoy/HC")
                .body(Empty::<Bytes>::new())?;
            let status = http(stream, request, *http2).await?;
            let good = match expected_statuses.as_ref() {
                [] => status == 200,
                ranges => ranges.iter().any(|range| range.contains(&status)),
            };
            if good { Ok(()) } else { Err(Error::Refused(status.to_string())) }
        }
        HealthChecker::Grpc { service, authority, .. } => {
            let authority = if authority.is_empty() { &cluster.name } else { authority };
            grpc(stream, service, authority).await
        }
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
                return Err(Error::Refused("too much".to_owned()));
            }
            if stream.read_buf(&mut seen).await? == 0 {
                return Err(Error::Refused("something else".to_owned()));
            }
        }
    }
    Ok(())
}

async fn http(stream: Stream, request: Request<Empty<Bytes>>, http2: bool) -> Result<u16, Error> {
    let io = TokioIo::new(stream);
    let response = if http2 {
        let (mut send, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        let _task = base::task::Supervised::spawn(async move { drop(connection.await) });
        let response = send.send_request(request).await?;
        let status = response.status();
        let _ = Limited::new(response.into_body(), 64 * 1024).collect().await;
        status
    } else {
        let (mut send, connection) = hyper::client::conn::http1::handshake(io).await?;
        let _task = base::task::Supervised::spawn(async move { drop(connection.await) });
        let response = send.send_request(request).await?;
        let status = response.status();
        let _ = Limited::new(response.into_body(), 64 * 1024).collect().await;
        status
    };
    Ok(response.as_u16())
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

async fn grpc(stream: Stream, service: &str, authority: &str) -> Result<(), Error> {
    let refused = |status: tonic::Status| Error::Refused(status.to_string());
    let mut grpc = crate::dial::grpc_over(stream, authority).await?;
    grpc.ready().await?;
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthRequest, HealthResponse>::default();
    let request = tonic::Request::new(HealthRequest { service: service.to_owned() });
    let response = grpc.unary(request, path, codec).await.map_err(refused)?.into_inner();
    if response.status == SERVING {
        Ok(())
    } else {
        Err(Error::Refused(format!("status {}", response.status)))
    }
}
