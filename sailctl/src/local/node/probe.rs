//! Probes: HTTP, TCP, gRPC and commands, asked from the node as a kubelet asks.

use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Empty, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::net::TcpStream;

use super::Node;
use super::container::Running;

/// What a probe or a lifecycle hook does.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Http(HTTPGetAction),
    Tcp { port: IntOrString, host: Option<String> },
    Grpc { port: i32, service: String },
    Exec(Vec<String>),
    Sleep(Duration),
}

impl Action {
    pub(crate) fn of_probe(probe: &Probe) -> Option<Self> {
        if let Some(http) = &probe.http_get {
            return Some(Self::Http(http.clone()));
        }
        if let Some(tcp) = &probe.tcp_socket {
            return Some(Self::Tcp { port: tcp.port.clone(), host: tcp.host.clone() });
        }
        if let Some(grpc) = &probe.grpc {
            return Some(Self::Grpc { port: grpc.port, service: grpc.service.clone().unwrap_or_default() });
        }
        probe.exec.as_ref().map(|exec| Self::Exec(exec.command.clone().unwrap_or_default()))
    }

    pub(crate) fn of_hook(hook: &LifecycleHandler) -> Option<Self> {
        if let Some(http) = &hook.http_get {
            return Some(Self::Http(http.clone()));
        }
        if let Some(tcp) = &hook.tcp_socket {
            return Some(Self::Tcp { port: tcp.port.clone(), host: tcp.host.clone() });
        }
        if let Some(sleep) = &hook.sleep {
            return Some(Self::Sleep(Duration::from_secs(sleep.seconds.max(0).cast_unsigned())));
        }
        hook.exec.as_ref().map(|exec| Self::Exec(exec.command.clone().unwrap_or_default()))
    }

    /// Does it once.
    pub(crate) async fn run(
        &self,
        node: &Node,
        pod: &Pod,
        container: &Container,
        running: &Running,
    ) -> anyhow::Result<()> {
        let address = running.address.to_string();
        match self {
            Self::Http(action) => http_get(action, &address, container).await,
            Self::Tcp { port, host } => {
                let host = host.clone().filter(|host| !host.is_empty()).unwrap_or(address);
                let port = number(port, container)?;
                TcpStream::connect((host.as_str(), port))
                    .await
                    .map(drop)
                    .with_context(|| format!("tcp {host}:{port}"))
            }
            Self::Grpc { port, service } => grpc(&address, u16::try_from(*port)?, service).await,
            Self::Exec(command) => {
                let exit =
                    super::container::exec(node, pod, container, running, command.clone(), None).await?;
                if exit.code != 0 {
                    bail!("command {command:?} ended with {}", exit.code);
                }
                Ok(())
            }
            Self::Sleep(duration) => {
                tokio::time::sleep(*duration).await;
                Ok(())
            }
        }
    }
}

fn number(port: &IntOrString, container: &Container) -> anyhow::Result<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).with_context(|| format!("port {number}")),
        IntOrString::String(name) => {
            let found = container.ports.iter().flatten().find(|port| port.name.as_ref() == Some(name));
            let found =
                found.with_context(|| format!("container {} has no port {name:?}", container.name))?;
            Ok(u16::try_from(found.container_port)?)
        }
    }
}

async fn http_get(action: &HTTPGetAction, address: &str, container: &Container) -> anyhow::Result<()> {
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(address);
    let port = number(&action.port, container)?;
    let path = action.path.as_deref().unwrap_or("/");
    let headers = action.http_headers.iter().flatten();
    let named = headers.clone().find(|header| header.name.eq_ignore_ascii_case("host"));
    let mut request = Request::get(path).header("user-agent", "kube-probe/1.33").header("accept", "*/*");
    request =
        request.header("host", named.map_or_else(|| format!("{host}:{port}"), |header| header.value.clone()));
    for header in headers.filter(|header| !header.name.eq_ignore_ascii_case("host")) {
        request = request.header(&header.name, &header.value);
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let stream = TcpStream::connect((host, port)).await.with_context(|| format!("http {host}:{port}"))?;
    let status = if action.scheme.as_deref() == Some("HTTPS") {
        super::http::send(super::http::tls_unverified(stream).await?, request).await?.0
    } else {
        super::http::send(stream, request).await?.0
    };
    if status.is_success() || status.is_redirection() {
        return Ok(());
    }
    bail!("http {host}:{port}{path} answered {status}")
}

/// `grpc.health.v1.Health/Check`, small enough to be written by hand: field 1 is the service, and in the answer the status.
async fn grpc(address: &str, port: u16, service: &str) -> anyhow::Result<()> {
    let stream =
        TcpStream::connect((address, port)).await.with_context(|| format!("grpc {address}:{port}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let _connection = base::task::Supervised::spawn(connection);
    let mut message = Vec::new();
    if !service.is_empty() {
        message.extend([0x0a, u8::try_from(service.len()).context("grpc: the service's name is too long")?]);
        message.extend(service.as_bytes());
    }
    let mut body = vec![0];
    body.extend(u32::try_from(message.len())?.to_be_bytes());
    body.extend(message);
    let request = Request::post(format!("http://{address}:{port}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::new(Bytes::from(body)))?;
    let answer = sender.send_request(request).await?;
    let body = answer.into_body().collect().await?.to_bytes();
    if body.get(5..) == Some(&[0x08, 0x01]) {
        return Ok(());
    }
    bail!("grpc {address}:{port}: service {service:?} is not serving")
}
