//! How a host is connected to: socket options, TLS, HTTP version. Requests that need the same share connections.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use sail_proxy_config::cluster::{Bind, Cluster as Config, UpstreamProtocol};
use sail_proxy_config::tls::UpstreamSocket;
use sail_proxy_decide::host::Host;
use sail_proxy_decide::route::Priority;
use socket2::TcpKeepalive;

use super::Cluster;
use crate::http::exchange::Exchange;
use crate::net::socket::ConnectOptions;
use crate::pool::PoolOptions;
use crate::pool::connect::{Connector, Http2Options, Protocol, Transport};
use crate::worker::state::Worker;

/// Streams on one HTTP/2 connection where the configuration says nothing.
const MAX_STREAMS: u32 = 1024;

/// What tells the pools of one host apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolKey {
    pub(crate) protocol: Protocol,
    /// Which of the cluster's sockets, by the address of its TLS context.
    socket: usize,
    pub(crate) alpn: Option<Arc<[Vec<u8>]>>,
    /// Server name from the request (`auto_sni`).
    pub(crate) sni: Option<Arc<str>>,
    pub(crate) high_priority: bool,
    /// With `connection_pool_per_downstream_connection`: whose.
    downstream: Option<u64>,
}

impl PoolKey {
    pub(super) fn new(cluster: &Cluster, host: &Host, exchange: &Exchange, priority: Priority) -> Self {
        let config = &cluster.config;
        let http2 = exchange.connection.http2;
        let protocol = match config.http.protocol {
            UpstreamProtocol::Http1 => Protocol::Http1,
            UpstreamProtocol::Http2 => Protocol::Http2,
            UpstreamProtocol::Auto => Protocol::Negotiated,
            UpstreamProtocol::UseDownstream if http2 => Protocol::Http2,
            UpstreamProtocol::UseDownstream => Protocol::Http1,
        };
        let socket = config.socket_for(&host.metadata);
        let tls = !matches!(socket, UpstreamSocket::Raw);
        let sni = (tls && config.http.auto_sni).then(|| exchange.request_host()).flatten();
        let alpn = if tls { exchange.state().alpn.as_ref().and_then(|alpn| alpn.of(protocol)) } else { None };
        Self {
            protocol,
            socket: socket_id(socket),
            alpn,
            sni,
            high_priority: priority == Priority::High,
            downstream: config
                .connection_pool_per_downstream_connection
                .then(|| exchange.connection.downstream.connection_id),
        }
    }
}

impl PoolKey {
    /// For requests that the proxy makes of its own accord.
    pub(super) fn own(cluster: &Cluster, host: &Host) -> Self {
        let config = &cluster.config;
        Self {
            protocol: match config.http.protocol {
                UpstreamProtocol::Http1 | UpstreamProtocol::UseDownstream => Protocol::Http1,
                UpstreamProtocol::Http2 => Protocol::Http2,
                UpstreamProtocol::Auto => Protocol::Negotiated,
            },
            socket: socket_id(config.socket_for(&host.metadata)),
            alpn: None,
            sni: None,
            high_priority: false,
            downstream: None,
        }
    }
}

fn socket_id(socket: &UpstreamSocket) -> usize {
    match socket {
        UpstreamSocket::Raw => 0,
        UpstreamSocket::Tls(tls) => Arc::as_ptr(tls) as usize,
        UpstreamSocket::ProxyProtocol(inner) => Arc::as_ptr(inner) as usize,
        UpstreamSocket::Internal(inner) => socket_id(inner),
    }
}

/// How requests of a key reach a host.
pub(super) fn connector(
    cluster: &Cluster,
    host: &Arc<Host>,
    key: &PoolKey,
    worker: &Rc<Worker>,
) -> Connector {
    let config = &cluster.config;
    let http2 = &config.http.http2;
    Connector {
        transport: transport(config, host, key.alpn.clone(), key.sni.clone()),
        options: Rc::new(connect_options(config, host)),
        host: host.clone(),
        timeout: config.connect_timeout,
        protocol: key.protocol,
        http2: Http2Options {
            stream_window: http2.initial_stream_window_size,
            connection_window: http2.initial_connection_window_size,
        },
        worker: worker.clone(),
    }
}

/// How a TCP connection reaches a host.
pub(crate) fn tcp_connector(cluster: &Cluster, host: &Arc<Host>, worker: &Rc<Worker>) -> Connector {
    let config = &cluster.config;
    Connector {
        transport: transport(config, host, None, None),
        options: Rc::new(connect_options(config, host)),
        host: host.clone(),
        timeout: config.connect_timeout,
        protocol: Protocol::Http1,
        http2: Http2Options::default(),
        worker: worker.clone(),
    }
}

fn transport(config: &Config, host: &Host, alpn: Option<Arc<[Vec<u8>]>>, sni: Option<Arc<str>>) -> Transport {
    let socket = config.socket_for(&host.metadata).clone();
    let must_bear = sni.clone().filter(|_| config.http.auto_san_validation);
    Transport { socket, alpn, sni, must_bear, hostname: host.hostname.clone() }
}

fn connect_options(config: &Config, host: &Host) -> ConnectOptions {
    let keepalive = config.tcp_keepalive.map(|wanted| {
        let mut keepalive = TcpKeepalive::new();
        if let Some(time) = wanted.time {
            keepalive = keepalive.with_time(time);
        }
        if let Some(interval) = wanted.interval {
            keepalive = keepalive.with_interval(interval);
        }
        if let Some(probes) = wanted.probes {
            keepalive = keepalive.with_retries(probes);
        }
        keepalive
    });
    let bind = config.bind.as_ref().and_then(|bind| source(bind, host.address.socket_addr()?));
    ConnectOptions { bind, keepalive, mark: None }
}

fn source(bind: &Bind, destination: SocketAddr) -> Option<SocketAddr> {
    bind.source
        .iter()
        .chain(&bind.extra_sources)
        .find(|source| source.is_ipv4() == destination.is_ipv4())
        .copied()
}

/// How connections of a cluster are used.
pub(super) fn pool_options(config: &Config) -> PoolOptions {
    let max_streams = config.http.http2.max_concurrent_streams.unwrap_or(MAX_STREAMS);
    PoolOptions {
        idle_timeout: config.http.idle_timeout,
        max_requests: config.http.max_requests_per_connection.filter(|max| *max > 0),
        max_streams: max_streams as usize,
    }
}
