//! How a host is connected to: socket options, TLS, HTTP version. Requests that need the same share connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use sail_proxy_config::cluster::{Bind, Cluster as Config, UpstreamProtocol};
use sail_proxy_config::tls::{AddedTlv, ProxyProtocolVersion, TlvValue, UpstreamSocket};
use sail_proxy_decide::host::Host;
use sail_proxy_decide::route::Priority;
use socket2::TcpKeepalive;

use super::Cluster;
use crate::access_log;
use crate::http::exchange::Exchange;
use crate::net::proxy_protocol::{self, Tlv, Version};
use crate::net::socket::ConnectOptions;
use crate::pool::connect::{Connector, Protocol, Transport};
use crate::pool::{Ahead, PoolOptions, Tally};
use crate::stream_info::{Direction, DownstreamInfo, StreamInfo, UpstreamInfo, UpstreamSource};
use crate::worker::state::Worker;
use crate::{http1, http2};

/// Streams on one HTTP/2 connection where the configuration says nothing.
const MAX_STREAMS: u32 = 1024;

/// What an upstream has to send on a stream to begin with, where a cluster says nothing of it.
const STREAM_WINDOW: u32 = 2 << 20;

/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 5 << 20;

/// How long TCP connections wait for their clients.
const TCP_IDLE: Duration = Duration::from_secs(600);

/// As many headers as can be told apart.
const MOST_HEADERS: usize = 1 << 15;

/// What tells the pools of one host apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PoolKey {
    pub(crate) protocol: Protocol,
    /// Which of the cluster's sockets, by the address of its TLS context.
    socket: usize,
    pub(crate) alpn: Option<Arc<[Vec<u8>]>>,
    /// The server's name, as the request has it (`auto_sni`).
    pub(crate) sni: Option<Arc<str>>,
    pub(crate) high_priority: bool,
    /// With `connection_pool_per_downstream_connection`: whose.
    downstream: Option<u64>,
    /// What of the downstream connection the upstream one shows.
    pub(super) via: Via,
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
        let tls = !matches!(carrier(socket), UpstreamSocket::Raw);
        let wanted = tls && config.http.auto_sni;
        let sni =
            wanted.then(|| exchange.server_name(config.http.override_auto_sni_header.as_ref())).flatten();
        let asked =
            if tls { exchange.state().alpn.as_ref().and_then(|alpn| alpn.of(protocol)) } else { None };
        let alpn = asked.or_else(|| fallback_alpn(socket, protocol));
        Self {
            protocol,
            socket: socket_id(socket),
            alpn,
            sni,
            high_priority: priority == Priority::High,
            downstream: config
                .connection_pool_per_downstream_connection
                .then(|| exchange.connection.downstream.connection_id),
            via: Via::of(socket, host, exchange),
        }
    }
}

impl PoolKey {
    /// For TCP connections, and for tunnels of them through an HTTP/2 connection that others share.
    pub(super) fn tunnel(
        cluster: &Cluster,
        host: &Host,
        downstream: &DownstreamInfo,
        tlvs: &[Tlv],
        protocol: Protocol,
    ) -> Self {
        let config = &cluster.config;
        let socket = config.socket_for(&host.metadata);
        Self {
            protocol,
            socket: socket_id(socket),
            alpn: fallback_alpn(socket, protocol),
            sni: None,
            high_priority: false,
            downstream: config.connection_pool_per_downstream_connection.then_some(downstream.connection_id),
            via: Via::new(socket, host, downstream, tlvs),
        }
    }

    /// For requests that the proxy makes of its own accord.
    pub(super) fn own(cluster: &Cluster, host: &Host) -> Self {
        let config = &cluster.config;
        let protocol = match config.http.protocol {
            UpstreamProtocol::Http1 | UpstreamProtocol::UseDownstream => Protocol::Http1,
            UpstreamProtocol::Http2 => Protocol::Http2,
            UpstreamProtocol::Auto => Protocol::Negotiated,
        };
        let socket = config.socket_for(&host.metadata);
        Self {
            protocol,
            socket: socket_id(socket),
            alpn: fallback_alpn(socket, protocol),
            sni: None,
            high_priority: false,
            downstream: None,
            via: Via::own(socket, host),
        }
    }
}

/// What of the downstream connection an upstream one shows: connections that differ in it are not shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Via {
    /// `original_src`
    source: Option<UpstreamSource>,
    /// The PROXY protocol's header.
    header: Option<Rc<[u8]>>,
}

impl Via {
    fn new(socket: &UpstreamSocket, host: &Host, downstream: &DownstreamInfo, tlvs: &[Tlv]) -> Self {
        Self {
            source: downstream.state.upstream_source,
            header: header(socket, host, Some((downstream, tlvs))),
        }
    }

    /// For a request, whose filters may want it to come from elsewhere.
    fn of(socket: &UpstreamSocket, host: &Host, exchange: &Exchange) -> Self {
        let downstream = &exchange.connection.downstream;
        let mut via = Self::new(socket, host, downstream, &downstream.state.tlvs);
        if let Some(source) = exchange.wishes().as_ref().and_then(|wishes| wishes.source) {
            via.source = Some(source);
        }
        via
    }

    /// The proxy speaks for itself.
    fn own(socket: &UpstreamSocket, host: &Host) -> Self {
        Self { source: None, header: header(socket, host, None) }
    }
}

/// What precedes everything else on a connection: for a downstream one with these TLVs, or for the proxy itself.
fn header(
    socket: &UpstreamSocket,
    host: &Host,
    downstream: Option<(&DownstreamInfo, &[Tlv])>,
) -> Option<Rc<[u8]>> {
    let outer = match socket {
        UpstreamSocket::ProxyProtocol(outer) => outer,
        UpstreamSocket::Internal(inner) | UpstreamSocket::TcpStats(inner, _) => {
            return header(inner, host, downstream);
        }
        UpstreamSocket::Raw | UpstreamSocket::Tls(_) => return None,
    };
    let version = match outer.version {
        ProxyProtocolVersion::V1 => Version::V1,
        ProxyProtocolVersion::V2 => Version::V2,
    };
    let mut tlvs = added_tlvs(&outer.added, || upstream_view(host, downstream.map(|(info, _)| info)));
    for (kind, value) in downstream.iter().flat_map(|(_, tlvs)| *tlvs) {
        if outer.pass.passes(*kind) && outer.added.iter().all(|added| added.kind != *kind) {
            tlvs.push((*kind, value.clone()));
        }
    }
    let addresses = downstream.map(|(info, _)| (info.remote_address, info.local_address));
    let addresses = addresses.filter(|(source, _)| !source.ip().is_unspecified());
    Some(proxy_protocol::write(version, addresses, &tlvs).into())
}

/// TLVs of our own, for a stream that is described where one of them asks for it.
pub(crate) fn added_tlvs(added: &[AddedTlv], describe: impl Fn() -> StreamInfo) -> Vec<Tlv> {
    let mut info = None;
    let mut value = |value: &TlvValue| match value {
        TlvValue::Literal(bytes) => bytes.clone(),
        TlvValue::Format(format) => access_log::text(format, info.get_or_insert_with(&describe)).into(),
    };
    added.iter().map(|tlv| (tlv.kind, value(&tlv.value))).collect()
}

/// What an upstream connection knows of itself, before it is made: its peer is the host.
fn upstream_view(host: &Host, downstream: Option<&DownstreamInfo>) -> StreamInfo {
    let unspecified = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let peer = host.address.socket_addr().unwrap_or(unspecified);
    let connection = DownstreamInfo {
        connection_id: downstream.map_or(0, |info| info.connection_id),
        remote_address: peer,
        direct_remote_address: peer,
        local_address: unspecified,
        direct_local_address: unspecified,
        server_name: None,
        tls: None,
        direction: Direction::Unspecified,
        state: downstream.map(|info| info.state.clone()).unwrap_or_default(),
    };
    let upstream = UpstreamInfo { host: super::upstream_address(&host.address), ..UpstreamInfo::default() };
    StreamInfo { upstream: Some(upstream), ..StreamInfo::new(Rc::new(connection)) }
}

/// What carries the bytes behind a PROXY protocol header.
fn carrier(socket: &UpstreamSocket) -> &UpstreamSocket {
    match socket {
        UpstreamSocket::ProxyProtocol(outer) => carrier(&outer.inner),
        UpstreamSocket::Internal(inner) | UpstreamSocket::TcpStats(inner, _) => carrier(inner),
        UpstreamSocket::Raw | UpstreamSocket::Tls(_) => socket,
    }
}

/// What is offered where the configuration offers nothing: the protocols that are spoken.
fn fallback_alpn(socket: &UpstreamSocket, protocol: Protocol) -> Option<Arc<[Vec<u8>]>> {
    let UpstreamSocket::Tls(tls) = carrier(socket) else { return None };
    if !tls.common.alpn_protocols.is_empty() {
        return None;
    }
    let names: &[&str] = match protocol {
        Protocol::Http1 => &["http/1.1"],
        Protocol::Http2 => &["h2"],
        Protocol::Negotiated => &["h2", "http/1.1"],
        Protocol::Tcp => return None,
    };
    Some(names.iter().map(|name| name.as_bytes().to_vec()).collect())
}

fn socket_id(socket: &UpstreamSocket) -> usize {
    match socket {
        UpstreamSocket::Raw => 0,
        UpstreamSocket::Tls(tls) => Arc::as_ptr(tls) as usize,
        UpstreamSocket::ProxyProtocol(inner) => Arc::as_ptr(inner) as usize,
        UpstreamSocket::Internal(inner) => socket_id(inner),
        UpstreamSocket::TcpStats(inner, _) => std::ptr::from_ref(&**inner) as usize,
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
    Connector {
        transport: transport(config, host, key.alpn.clone(), key.sni.clone()),
        options: Rc::new(connect_options(config, host, &key.via)),
        header: key.via.header.clone(),
        host: host.clone(),
        timeout: config.connect_timeout,
        protocol: key.protocol,
        http2: http2_options(config),
        keepalive: config.http.http2.keepalive,
        http1: http1_options(config),
        counts: cluster.tls_counts().clone(),
        tcp_stats: config.socket_for(&host.metadata).tcp_stats(),
        worker: worker.clone(),
    }
}

/// How HTTP/1 is spoken to the hosts of a cluster.
fn http1_options(config: &Config) -> http1::Options {
    let (http, protocol) = (&config.http, &config.http.http1);
    let limits = http1::Limits {
        headers: http.max_response_headers_count.min(MOST_HEADERS),
        bytes: http.max_response_headers_kb.unwrap_or(80) as usize * 1024,
    };
    http1::Options {
        rules: http1::Rules {
            limits,
            keeps_names: protocol.header_case.is_kept(),
            requests: http1::RequestRules::default(),
        },
        form: http1::Form::of(protocol),
    }
}

/// How HTTP/2 is spoken to the hosts of a cluster.
fn http2_options(config: &Config) -> http2::Options {
    let (http, protocol) = (&config.http, &config.http.http2);
    http2::Options {
        stream_window: protocol.initial_stream_window_size.unwrap_or(STREAM_WINDOW),
        connection_window: protocol.initial_connection_window_size.unwrap_or(CONNECTION_WINDOW),
        max_streams: None,
        table: protocol.hpack_table_size.unwrap_or(4096),
        heads: http1::Limits {
            headers: http.max_response_headers_count.min(MOST_HEADERS),
            bytes: http.max_response_headers_kb.unwrap_or(60) as usize * 1024,
        },
        max_field: protocol.max_header_field_bytes,
        connect: false,
        stream_errors: protocol.stream_errors,
        huffman: protocol.huffman,
        asks_after: protocol.keepalive.and_then(|keepalive| keepalive.connection_idle_interval),
        limits: protocol.limits,
    }
}

/// How a TCP connection reaches a host, with the TLVs that its downstream connection brings.
pub(crate) fn tcp_connector(
    cluster: &Cluster,
    host: &Arc<Host>,
    downstream: &DownstreamInfo,
    tlvs: &[Tlv],
    worker: &Rc<Worker>,
) -> Connector {
    let config = &cluster.config;
    let via = Via::new(config.socket_for(&host.metadata), host, downstream, tlvs);
    Connector {
        transport: transport(config, host, None, None),
        options: Rc::new(connect_options(config, host, &via)),
        header: via.header,
        host: host.clone(),
        timeout: config.connect_timeout,
        protocol: Protocol::Http1,
        http2: http2_options(config),
        keepalive: config.http.http2.keepalive,
        http1: http1_options(config),
        counts: cluster.tls_counts().clone(),
        tcp_stats: config.socket_for(&host.metadata).tcp_stats(),
        worker: worker.clone(),
    }
}

fn transport(config: &Config, host: &Host, alpn: Option<Arc<[Vec<u8>]>>, sni: Option<Arc<str>>) -> Transport {
    let socket = carrier(config.socket_for(&host.metadata)).clone();
    let must_bear = sni.clone().filter(|_| config.http.auto_san_validation);
    Transport { socket, alpn, sni, must_bear, hostname: host.hostname.clone() }
}

fn connect_options(config: &Config, host: &Host, via: &Via) -> ConnectOptions {
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
    let options = config.bind.as_ref().map(|bind| bind.socket_options.clone()).unwrap_or_default();
    let freebind = config.bind.as_ref().is_some_and(|bind| bind.freebind);
    match via.source {
        Some(source) => ConnectOptions {
            bind: Some(source.address),
            keepalive,
            mark: (source.mark != 0).then_some(source.mark),
            transparent: true,
            freebind,
            options,
        },
        None => ConnectOptions { bind, keepalive, mark: None, transparent: false, freebind, options },
    }
}

fn source(bind: &Bind, destination: SocketAddr) -> Option<SocketAddr> {
    bind.source
        .iter()
        .chain(&bind.extra_sources)
        .find(|source| source.is_ipv4() == destination.is_ipv4())
        .copied()
}

/// How connections of a cluster to a host are used.
pub(super) fn pool_options(
    config: &Config,
    protocol: Protocol,
    host: &Host,
    tally: Option<&Rc<Tally>>,
) -> PoolOptions {
    let max_streams = config.http.http2.max_concurrent_streams.unwrap_or(MAX_STREAMS);
    PoolOptions {
        idle_timeout: if protocol == Protocol::Tcp { Some(TCP_IDLE) } else { config.http.idle_timeout },
        max_requests: config.http.max_requests_per_connection.filter(|max| *max > 0),
        max_streams: max_streams as usize,
        max_duration: config.http.max_connection_duration,
        ahead: match (&config.preconnect, tally) {
            (Some(policy), Some(tally)) => Some(Box::new(Ahead::new(policy, host, tally))),
            _ => None,
        },
    }
}
