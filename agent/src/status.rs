//! The status server: readiness, merged metrics, the application's probes, and orders to drain or quit.

mod app_probe;
mod metrics;
mod ready;
mod tls;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agent_contract::paths;
use agent_contract::probes::AppProbers;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::admin::Admin;
use crate::dns::NameTables;
use crate::secrets::SecretsWatch;
use crate::stats::AgentStats;
use crate::supervise::Order;

pub use metrics::Merge;
pub use ready::Readiness;

/// Request heads must arrive within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Why there is no status server.
#[derive(Debug, thiserror::Error)]
#[error("the status server cannot listen on port {port}; ProxyConfig.statusPort chooses another")]
pub struct Error {
    port: u16,
    #[source]
    source: io::Error,
}

/// What the server answers from.
#[derive(Debug)]
pub struct Status {
    /// The proxy.
    pub admin: Admin,
    /// Whether the proxy is ready.
    pub readiness: Readiness,
    /// The application's probes.
    pub probers: AppProbers,
    /// Where probes are sent; localhost when unknown.
    pub instance_ip: Option<IpAddr>,
    /// What is merged into the metrics.
    pub merge: Merge,
    /// The agent's own numbers.
    pub stats: Arc<AgentStats>,
    /// The certificate, for its expiry.
    pub secrets: SecretsWatch,
    /// The name table, where the agent answers DNS.
    pub names: Option<Arc<NameTables>>,
    /// Where orders go.
    pub orders: mpsc::Sender<Order>,
}

type Reply = Response<Full<Bytes>>;

/// Listens on all addresses of both families, or of the older one where there is no other.
pub async fn listen(port: u16) -> Result<TcpListener, Error> {
    let v6: SocketAddr = ("::".parse::<IpAddr>().unwrap_or(IpAddr::from([0, 0, 0, 0])), port).into();
    let v4: SocketAddr = (IpAddr::from([0, 0, 0, 0]), port).into();
    match TcpListener::bind(v6).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind(v4).await.map_err(|source| Error { port, source }),
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, status: Arc<Status>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                connections.spawn(serve_one(stream, peer, Arc::clone(&status)));
            }
            // Out of file descriptors, mostly: a pause keeps this from becoming a busy loop.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn serve_one(stream: TcpStream, peer: SocketAddr, status: Arc<Status>) {
    let service = hyper::service::service_fn(move |request| {
        let status = Arc::clone(&status);
        async move { Ok::<_, Infallible>(status.answer(request, peer.ip()).await) }
    });
    // A broken client ends its connection only.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Status {
    async fn answer(&self, request: Request<Incoming>, peer: IpAddr) -> Reply {
        let path = request.uri().path();
        match path {
            paths::READY => self.ready().await,
            paths::METRICS | paths::STATS_PROMETHEUS => self.metrics().await,
            paths::QUIT => self.order(&request, peer, Order::Quit),
            paths::DRAIN => self.order(&request, peer, Order::Drain),
            paths::DEBUG_NDS => self.name_table(peer),
            path if path.starts_with(paths::APP_HEALTH) || path.starts_with(paths::APP_LIFECYCLE) => {
                self.probe_application(&request).await
            }
            _ => text(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    async fn ready(&self) -> Reply {
        match self.readiness.check(&self.admin).await {
            Ok(()) => text(StatusCode::OK, ""),
            Err(error) => {
                let error = format!("proxy not ready: {:#}\n", anyhow::Error::from(error));
                text(StatusCode::SERVICE_UNAVAILABLE, error)
            }
        }
    }

    async fn metrics(&self) -> Reply {
        let expiry = self
            .secrets
            .borrow()
            .workload
            .as_ref()
            .map(|svid| svid.leaf().not_after.duration_since(jiff::Timestamp::now()).as_secs_f64());
        let body = self.merge.collect(&self.admin, &self.stats, self.stats.render(expiry)).await;
        let mut reply = text(StatusCode::OK, body);
        let kind = http::HeaderValue::from_static(metrics::CONTENT_TYPE);
        reply.headers_mut().insert(header::CONTENT_TYPE, kind);
        reply
    }

    /// Orders come from the pod itself, by POST.
    fn order(&self, request: &Request<Incoming>, peer: IpAddr, order: Order) -> Reply {
        if !is_local(peer) {
            return text(StatusCode::FORBIDDEN, "only requests from localhost are allowed\n");
        }
        if request.method() != Method::POST {
            return text(StatusCode::METHOD_NOT_ALLOWED, "POST it\n");
        }
        // A full queue holds orders enough.
        let _ = self.orders.try_send(order);
        text(StatusCode::OK, "OK\n")
    }

    fn name_table(&self, peer: IpAddr) -> Reply {
        if !is_local(peer) {
            return text(StatusCode::FORBIDDEN, "only requests from localhost are allowed\n");
        }
        match &self.names {
            None => text(StatusCode::NOT_FOUND, "DNS is not captured here\n"),
            Some(tables) => text(StatusCode::OK, format!("{:#}\n", tables.dump())),
        }
    }

    async fn probe_application(&self, request: &Request<Incoming>) -> Reply {
        let Some(prober) = self.probers.get(request.uri().path()) else {
            return text(StatusCode::BAD_REQUEST, "no such probe\n");
        };
        match app_probe::run(prober, self.instance_ip, request.headers()).await {
            Ok(outcome) => {
                let mut reply = Response::new(Full::new(outcome.body));
                *reply.status_mut() = outcome.status;
                reply
            }
            Err(error) => {
                let error = format!("{:#}\n", anyhow::Error::from(error));
                text(StatusCode::INTERNAL_SERVER_ERROR, error)
            }
        }
    }
}

fn is_local(peer: IpAddr) -> bool {
    match peer {
        IpAddr::V4(ip) => ip.is_loopback(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback()),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply
}
