//! From this machine into the mesh: the gateway's ports on 127.0.0.1, and tunnels to pods and services.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use k8s_openapi::api::core::v1::{Pod, Service};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::{Node, Options, kube_proxy, system};
use crate::local::kind::{Key, Kind};
use crate::local::protocol::Ingress;

const TRIES: u16 = 200;

/// The machine's side of the gateway.
pub(crate) struct Listeners {
    pub(crate) ingress: Ingress,
    http: TcpListener,
    https: TcpListener,
}

impl Listeners {
    /// Takes the ports, or the next free ones. Call it before this thread's network namespace is left.
    pub(crate) fn bind(options: &Options) -> anyhow::Result<Self> {
        let http = take("--http-port", options.http_port, 8080)?;
        let https = take("--https-port", options.https_port, 8443)?;
        let ingress = Ingress { http: http.local_addr()?.port(), https: https.local_addr()?.port() };
        Ok(Self { ingress, http, https })
    }

    /// Serves them.
    pub(crate) async fn run(self, node: Arc<Node>) -> anyhow::Result<()> {
        let http = accept(node.clone(), self.http, 80);
        let https = accept(node, self.https, 443);
        tokio::try_join!(http, https).map(drop)
    }
}

fn take(flag: &str, wanted: Option<u16>, default: u16) -> anyhow::Result<TcpListener> {
    let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    if let Some(port) = wanted {
        return bind(port).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => anyhow!("{flag} {port}: another program has this port; choose another, or leave the flag out for a free one"),
            _ => anyhow!("{flag} {port}: {error}"),
        });
    }
    for port in default..default + TRIES {
        match bind(port) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            other => return other.with_context(|| format!("port {port} of 127.0.0.1")),
        }
    }
    bail!("ports {default} to {} of 127.0.0.1 are all taken; choose one with {flag}", default + TRIES - 1)
}

async fn accept(node: Arc<Node>, listener: TcpListener, port: u16) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let gateway = Key::core("Service", system::NAMESPACE, system::GATEWAY);
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let (node, gateway) = (node.clone(), gateway.clone());
        tokio::spawn(async move {
            let relayed = async {
                let _ = stream.set_nodelay(true);
                let mut inner = connect(&node, &gateway, port).await?;
                copy_bidirectional(&mut stream, &mut inner).await?;
                anyhow::Ok(())
            };
            if let Err(error) = relayed.await {
                tracing::debug!("the gateway's port {port}: {error:#}");
            }
        });
    }
}

/// A connection to a pod's port, or to one of the ready pods behind a service's port.
pub(crate) async fn connect(node: &Node, target: &Key, port: u16) -> anyhow::Result<TcpStream> {
    let address = resolve(node, target, port)?;
    let stream = TcpStream::connect(address).await.with_context(|| format!("{target}: {address}"))?;
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn resolve(node: &Node, target: &Key, port: u16) -> anyhow::Result<SocketAddr> {
    if target.kind.name == "Pod" {
        let pod: Pod = node.store.typed(target).with_context(|| format!("{target} not found"))?;
        let address = pod.status.and_then(|status| status.pod_ip).context("the pod has no address yet")?;
        return Ok(SocketAddr::new(address.parse()?, port));
    }
    let service: Service = node.store.typed(target).with_context(|| format!("{target} not found"))?;
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.clone()).unwrap_or_default();
    let found = ports.iter().find(|one| one.port == i32::from(port));
    let found = found.with_context(|| format!("{target} has no port {port}"))?;
    let pods: Vec<Pod> = node.store.list_typed(&Kind::core("Pod"));
    let endpoints = kube_proxy::endpoints(&service, &pods);
    if endpoints.is_empty() {
        bail!("{target} has no ready pod");
    }
    let (pod, address) = endpoints[rand::random_range(0..endpoints.len())];
    let port =
        kube_proxy::target_port(pod, found).with_context(|| format!("{target}: target port of {port}"))?;
    Ok(SocketAddr::new(address.into(), port))
}
