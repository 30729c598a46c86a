//! Clusters.

mod breakers;
pub(crate) mod convert;
mod discovery;
pub(crate) mod endpoint;
mod health;
mod http_options;
mod lb;

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::address::Address;
use sail_proxy_decide::format::MetadataSource;
use sail_proxy_decide::host::{AssignmentPolicy, Endpoints, HealthCheckTarget, HealthStatus, Host, Locality};
use sail_proxy_decide::lb::{CommonLb, LbPolicy};
use sail_proxy_decide::matcher::MetadataMatcher;
use sail_proxy_decide::outlier::OutlierDetection;
use sail_proxy_decide::route::Metadata;
use xds_api::istio::metadata_exchange::MetadataExchange;

pub use breakers::{CircuitBreakers, RetryBudget, Thresholds};
pub(crate) use discovery::dns_cache;

use crate::hcm::{Http1Options, Http2Options};
use crate::http_filter::HttpFilter;
use crate::listener::{SocketOption, TcpKeepalive};
use crate::source::ConfigSource;
use crate::tls::UpstreamSocket;

/// `Cluster`
#[derive(Debug)]
pub struct Cluster {
    /// Its name.
    pub name: Arc<str>,
    /// What its statistics are called: its name or `alt_stat_name`.
    pub stat_name: Arc<str>,
    /// How its hosts are found.
    pub discovery: Discovery,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// Whether the sizes of requests and responses are recorded.
    pub tracks_sizes: bool,
    /// Whether each host has statistics of its own.
    pub tracks_endpoints: bool,
    /// Whether it is recorded how much of their time requests take.
    pub tracks_timeout_budgets: bool,
    /// Which host a request goes to.
    pub lb: LbPolicy,
    /// What policies share.
    pub common_lb: CommonLb,
    /// Limits: default and high priority.
    pub circuit_breakers: Arc<CircuitBreakers>,
    /// Which hosts are left alone for a while.
    pub outlier_detection: Option<Box<OutlierDetection>>,
    /// How hosts are checked.
    pub health_checks: Box<[HealthCheck]>,
    /// How bytes are carried.
    pub socket: UpstreamSocket,
    /// How bytes are carried to hosts with certain metadata; the first match wins.
    pub socket_matches: Box<[SocketMatch]>,
    /// How HTTP is spoken.
    pub http: Arc<UpstreamHttp>,
    /// What each try passes on its way to a connection; where there is nothing, the router may have something.
    pub upstream_filters: Arc<[HttpFilter]>,
    /// Where connections come from.
    pub bind: Option<Box<Bind>>,
    /// Keep-alive of connections.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// The TCP metadata exchange filter, if it is there.
    pub metadata_exchange: Option<Arc<MetadataExchange>>,
    /// Metadata, by namespace.
    pub metadata: Metadata,
    /// Whether connections are closed when their host fails a health check.
    pub close_connections_on_host_health_failure: bool,
    /// Whether hosts go away at once, rather than when they fail a health check.
    pub ignore_health_on_host_removal: bool,
    /// Whether each downstream connection has upstream connections of its own.
    pub connection_pool_per_downstream_connection: bool,
    /// Connections that are made before requests need them.
    pub preconnect: Option<Box<Preconnect>>,
    /// Whether the start of the process waits until it has its hosts and their first health checks.
    pub wait_for_warm_on_init: bool,
    /// A hash of the protobuf that it was built from: an equal one is not built again.
    pub version: u64,
}

impl Cluster {
    /// How bytes are carried to a host with this metadata.
    pub fn socket_for(&self, host: &Metadata) -> &UpstreamSocket {
        self.socket_by(host.as_ref().and_then(|all| all.get("envoy.transport_socket_match")))
    }

    /// How bytes are carried where these criteria hold.
    pub fn socket_by(&self, criteria: Option<&serde_json::Value>) -> &UpstreamSocket {
        let found = self.socket_matches.iter().find(|entry| {
            entry
                .criteria
                .iter()
                .all(|(key, value)| criteria.and_then(|found| found.get(&**key)) == Some(value))
        });
        found.map_or(&self.socket, |entry| &entry.socket)
    }

    /// The limits for a priority.
    pub fn limits(&self, priority: sail_proxy_decide::route::Priority) -> &Thresholds {
        match priority {
            sail_proxy_decide::route::Priority::Default => &self.circuit_breakers.default,
            sail_proxy_decide::route::Priority::High => &self.circuit_breakers.high,
        }
    }
}

/// `PreconnectPolicy`
#[derive(Clone, Debug, PartialEq)]
pub struct Preconnect {
    /// So many times the connections that a host's requests need are made; 1 by default.
    pub per_upstream_ratio: f64,
    /// So many times the connections that the requests of all hosts need are made; 1 by default.
    pub predictive_ratio: f64,
    /// Which hosts, by their metadata; `None`: all.
    pub enabled: Option<MetadataMatcher>,
}

impl Preconnect {
    /// Whether connections are made ahead of requests to a host.
    pub fn is_enabled(&self, host: &Host) -> bool {
        let of = |matcher: &MetadataMatcher| {
            matcher.is_match(host.metadata.as_ref().and_then(|all| all.get(&*matcher.filter)))
        };
        self.enabled.as_ref().is_none_or(of)
    }
}

/// How hosts are found.
#[derive(Debug)]
pub enum Discovery {
    /// They are given.
    Static(Arc<Endpoints>),
    /// By EDS.
    Eds {
        /// The assignment's name.
        service_name: Arc<str>,
        /// Where it comes from.
        source: ConfigSource,
    },
    /// All addresses of DNS names.
    StrictDns(Box<DnsCluster>),
    /// One address of a DNS name, the current one.
    LogicalDns(Box<DnsCluster>),
    /// Where the client wanted to go.
    OriginalDst(Box<OriginalDst>),
    /// Where the request's host says.
    DynamicForwardProxy(Arc<DnsCache>),
    /// Other clusters, each taking what those before it cannot.
    Aggregate(Box<[Arc<str>]>),
}

/// A cluster of DNS names.
#[derive(Clone, Debug)]
pub struct DnsCluster {
    /// The names, by locality.
    pub groups: Box<[DnsGroup]>,
    /// How hosts are used.
    pub policy: AssignmentPolicy,
    /// How often names are resolved; 5 s by default.
    pub refresh_rate: Duration,
    /// Up to so much is added at random.
    pub jitter: Duration,
    /// How often after failures: base and longest.
    pub failure_refresh: Option<(Duration, Duration)>,
    /// Whether the answer's TTL decides.
    pub respect_ttl: bool,
    /// The shortest TTL that is heeded.
    pub min_refresh_rate: Duration,
    /// Which addresses.
    pub family: DnsFamily,
    /// Which servers; the system's if empty.
    pub resolvers: Box<[Address]>,
    /// Whether servers are asked by TCP.
    pub use_tcp: bool,
}

/// `DnsCacheConfig`: names that requests bring, resolved once for all workers.
#[derive(Clone, Debug, PartialEq)]
pub struct DnsCache {
    /// Its name; caches of one name are one.
    pub name: Arc<str>,
    /// How names are resolved.
    pub family: DnsFamily,
    /// How often a name is resolved again; 60 s by default.
    pub refresh_rate: Duration,
    /// Never more often than this, whatever a TTL says; 5 s by default.
    pub min_refresh_rate: Duration,
    /// How often after failures: base and longest.
    pub failure_refresh: Option<(Duration, Duration)>,
    /// How long a name is kept that nobody asks for; 5 min by default.
    pub host_ttl: Duration,
    /// How many names there may be; 1024 by default.
    pub max_hosts: u32,
    /// How many requests may wait for names; 1024 by default.
    pub max_pending_requests: u32,
    /// Names to resolve at once.
    pub preresolve: Box<[(Arc<str>, u16)]>,
    /// How long a query may take; 5 s by default, `None`: as long as the resolver takes.
    pub query_timeout: Option<Duration>,
    /// Which servers; the system's if empty.
    pub resolvers: Box<[Address]>,
    /// Whether servers are asked by TCP.
    pub use_tcp: bool,
    /// With `sub_clusters_config`: each name is a cluster of all its addresses, balanced so.
    pub sub_clusters: Option<LbPolicy>,
}

/// Names of one locality.
#[derive(Clone, Debug)]
pub struct DnsGroup {
    /// Where.
    pub locality: Arc<Locality>,
    /// 0 is the highest.
    pub priority: u32,
    /// The locality's share.
    pub weight: Option<u32>,
    /// The names.
    pub targets: Box<[DnsTarget]>,
}

/// A name to resolve; an IP address stands for itself.
#[derive(Clone, Debug)]
pub struct DnsTarget {
    /// The name.
    pub address: Arc<str>,
    /// The port.
    pub port: u16,
    /// What its hosts are called; the name, if empty.
    pub hostname: Arc<str>,
    /// Their share.
    pub weight: u32,
    /// Their metadata.
    pub metadata: Metadata,
    /// What the control plane says of them.
    pub health_status: HealthStatus,
    /// Where their health is checked, if elsewhere.
    pub health_check: Option<Arc<HealthCheckTarget>>,
}

/// `DnsLookupFamily`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DnsFamily {
    /// IPv6, and IPv4 if there is none.
    #[default]
    Auto,
    /// IPv4.
    V4Only,
    /// IPv6.
    V6Only,
    /// IPv4, and IPv6 if there is none.
    V4Preferred,
    /// Both.
    All,
}

/// Where metadata are: whose, namespace, path.
pub type MetadataKey = (MetadataSource, Arc<str>, Box<[Box<str>]>);

/// `OriginalDstLbConfig`
#[derive(Clone, Debug, Default)]
pub struct OriginalDst {
    /// A header that names the destination.
    pub http_header: Option<sail_proxy_decide::head::HeaderKey>,
    /// Another port than the destination's.
    pub port_override: Option<u16>,
    /// Metadata that name the destination: whose, namespace, path.
    pub metadata_key: Option<MetadataKey>,
    /// How long an unused host is kept; 5 s by default.
    pub cleanup_interval: Duration,
}

/// `HealthCheck`
#[derive(Clone, Debug)]
pub struct HealthCheck {
    /// How long a check may take.
    pub timeout: Duration,
    /// How often.
    pub interval: Duration,
    /// Up to so much is added at random to the first wait.
    pub initial_jitter: Duration,
    /// Up to so much is added at random to every wait.
    pub interval_jitter: Duration,
    /// Up to such a share (in percent) is added at random to every wait.
    pub interval_jitter_percent: u32,
    /// So many failures in a row make a host unhealthy.
    pub unhealthy_threshold: u32,
    /// So many successes in a row make it healthy.
    pub healthy_threshold: u32,
    /// How often, while a host is unhealthy.
    pub unhealthy_interval: Duration,
    /// How often, right after a host became unhealthy.
    pub unhealthy_edge_interval: Duration,
    /// How often, right after a host became healthy.
    pub healthy_edge_interval: Duration,
    /// How often, while the cluster has no traffic; 60 s by default.
    pub no_traffic_interval: Duration,
    /// How often, for healthy hosts without traffic.
    pub no_traffic_healthy_interval: Duration,
    /// Another port.
    pub alt_port: Option<u16>,
    /// Whether the connection is kept; on by default.
    pub reuse_connection: bool,
    /// ALPN of checks.
    pub alpn_protocols: Box<[Box<str>]>,
    /// What is checked.
    pub checker: HealthChecker,
    /// Where changes of health are written, a JSON object a line.
    pub event_log: Option<Arc<str>>,
    /// Whether every failure is written, not just the first.
    pub always_log_failures: bool,
    /// Whether every success is written.
    pub always_log_successes: bool,
    /// What the transport socket is chosen by, in place of the host's metadata.
    pub socket_criteria: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What a health check does.
#[derive(Clone, Debug)]
pub enum HealthChecker {
    /// An HTTP request.
    Http {
        /// The host header; empty: the cluster's name.
        host: Arc<str>,
        /// The path.
        path: Arc<str>,
        /// The method.
        method: ::http::Method,
        /// The request's body.
        send: Option<bytes::Bytes>,
        /// Statuses that are good, as half-open ranges; 200 by default.
        expected_statuses: Box<[std::ops::Range<u16>]>,
        /// Statuses that do not count at once.
        retriable_statuses: Box<[std::ops::Range<u16>]>,
        /// Whether HTTP/2 is spoken.
        http2: bool,
        /// Header operations.
        headers: sail_proxy_decide::headers::HeaderOps,
        /// What the body must hold, in this order.
        receive: Box<[bytes::Bytes]>,
        /// How much of the body is looked at; 1 KiB by default, 0: all.
        response_buffer_size: u64,
        /// What the host must call itself (`x-envoy-upstream-healthchecked-cluster`).
        service_name: Option<sail_proxy_decide::matcher::StringMatcher>,
    },
    /// A connection, perhaps with bytes to send and to expect.
    Tcp {
        /// To send.
        send: Option<bytes::Bytes>,
        /// To expect.
        receive: Box<[bytes::Bytes]>,
    },
    /// `grpc.health.v1.Health/Check`
    Grpc {
        /// The service.
        service: Arc<str>,
        /// The authority; empty: the cluster's name.
        authority: Arc<str>,
        /// Header operations.
        headers: sail_proxy_decide::headers::HeaderOps,
    },
}

/// `TransportSocketMatch`
#[derive(Clone, Debug)]
pub struct SocketMatch {
    /// Its name.
    pub name: Arc<str>,
    /// What the host's metadata must hold.
    pub criteria: Box<[(Box<str>, serde_json::Value)]>,
    /// How bytes are carried then.
    pub socket: UpstreamSocket,
}

/// How HTTP is spoken upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamHttp {
    /// Which version.
    pub protocol: UpstreamProtocol,
    /// HTTP/1 alone.
    pub http1: Http1Options,
    /// HTTP/2 alone.
    pub http2: Http2Options,
    /// How long a connection may be idle; 1 h by default, `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long a connection may last.
    pub max_connection_duration: Option<Duration>,
    /// How long a stream may last.
    pub max_stream_duration: Option<Duration>,
    /// How many requests a connection may have; `None`: any number.
    pub max_requests_per_connection: Option<u32>,
    /// How many response headers; 100 by default.
    pub max_response_headers_count: usize,
    /// How large they may be; 80 KiB over HTTP/1 and 60 KiB over HTTP/2 by default.
    pub max_response_headers_kb: Option<u32>,
    /// Whether the request's host is the SNI.
    pub auto_sni: bool,
    /// Whether the server's certificate must be for that host.
    pub auto_san_validation: bool,
    /// The header that is the SNI, in place of the host.
    pub override_auto_sni_header: Option<::http::HeaderName>,
}

/// Which version of HTTP is spoken upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1
    Http1,
    /// HTTP/2
    Http2,
    /// As ALPN says.
    Auto,
    /// As the downstream request does.
    UseDownstream,
}

/// `BindConfig`
#[derive(Clone, Debug)]
pub struct Bind {
    /// The source address.
    pub source: Option<std::net::SocketAddr>,
    /// For connections of the other family.
    pub extra_sources: Box<[std::net::SocketAddr]>,
    /// Whether the address need not be there.
    pub freebind: bool,
    /// Options of sockets.
    pub socket_options: Box<[SocketOption]>,
}
