//! Network filters: what a filter chain does with a connection.

mod convert;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sail_proxy_decide::format::Format;
use sail_proxy_decide::rate_limit::TokenBucketConfig;
use sail_proxy_decide::rbac::RbacConfig;
use sail_proxy_decide::route::Metadata;
use sail_proxy_decide::route::hash::HashPolicy;
use xds_api::istio::{metadata_exchange, stats};

use crate::access_log::AccessLog;
use crate::hcm::Hcm;

pub(crate) use convert::{chain, filter_state, token_bucket};

/// A network filter.
#[derive(Clone, Debug)]
pub enum NetworkFilter {
    /// `http_connection_manager`: ends the chain.
    HttpConnectionManager(Arc<Hcm>),
    /// `tcp_proxy`: ends the chain.
    TcpProxy(Arc<TcpProxy>),
    /// `rbac`
    Rbac(Arc<NetworkRbac>),
    /// `direct_response`: ends the chain.
    DirectResponse(Bytes),
    /// `echo`: ends the chain.
    Echo,
    /// `set_filter_state`
    SetFilterState(Arc<[FilterStateValue]>),
    /// `sni_cluster`: the SNI names the cluster.
    SniCluster,
    /// `connection_limit`
    ConnectionLimit(Arc<ConnectionLimit>),
    /// `local_ratelimit`
    LocalRateLimit(Arc<NetworkLocalRateLimit>),
    /// `istio.stats`
    IstioStats(Arc<stats::PluginConfig>),
    /// `istio.metadata_exchange`
    MetadataExchange(Arc<metadata_exchange::MetadataExchange>),
}

/// `TcpProxy`
#[derive(Debug)]
pub struct TcpProxy {
    /// What its statistics are called.
    pub stat_prefix: Arc<str>,
    /// Where to.
    pub cluster: TcpCluster,
    /// Which subset of the cluster's hosts.
    pub metadata_match: Metadata,
    /// How long both sides may be silent; 1 h by default, `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long the connection may last.
    pub max_downstream_connection_duration: Option<Duration>,
    /// How often a connection is tried; 1 by default.
    pub max_connect_attempts: u32,
    /// What the load balancer hashes: source IP or filter state.
    pub hash_policy: Box<[HashPolicy]>,
    /// Logs.
    pub access_logs: Box<[Arc<AccessLog>]>,
    /// How often a log is written while the connection lasts.
    pub access_log_flush_interval: Option<Duration>,
    /// Whether a log is written once it is connected.
    pub flush_access_log_on_connected: bool,
    /// A tunnel by CONNECT or POST.
    pub tunneling: Option<Box<Tunneling>>,
}

/// Where a TCP connection goes.
#[derive(Clone, Debug)]
pub enum TcpCluster {
    /// To this one.
    Name(Arc<str>),
    /// By weight.
    Weighted(Arc<[TcpClusterWeight]>),
}

/// One of several clusters.
#[derive(Clone, Debug)]
pub struct TcpClusterWeight {
    /// Its name.
    pub name: Arc<str>,
    /// Its share.
    pub weight: u32,
    /// Which subset of its hosts.
    pub metadata_match: Metadata,
}

impl TcpCluster {
    /// The cluster's name for a random number.
    pub fn choose(&self, random: u64) -> Option<(&Arc<str>, Option<&TcpClusterWeight>)> {
        match self {
            Self::Name(name) => Some((name, None)),
            Self::Weighted(entries) => {
                let total = entries.iter().map(|entry| u64::from(entry.weight)).sum();
                let mut rest = random.checked_rem(total)?;
                let found = entries.iter().find(|entry| {
                    let weight = u64::from(entry.weight);
                    let here = rest < weight;
                    rest = rest.saturating_sub(weight);
                    here
                })?;
                Some((&found.name, Some(found)))
            }
        }
    }
}

/// `TunnelingConfig`
#[derive(Clone, Debug)]
pub struct Tunneling {
    /// The authority that is asked for.
    pub hostname: Format,
    /// Whether POST is used rather than CONNECT.
    pub use_post: bool,
    /// The path of a POST.
    pub post_path: Box<str>,
    /// Headers to add.
    pub headers: sail_proxy_decide::headers::HeaderOps,
    /// Whether response headers are kept in filter state.
    pub propagate_response_headers: bool,
    /// Whether response trailers are kept in filter state.
    pub propagate_response_trailers: bool,
}

/// The network filter `rbac`.
#[derive(Debug)]
pub struct NetworkRbac {
    /// What its statistics are called.
    pub stat_prefix: Arc<str>,
    /// The rules.
    pub config: RbacConfig,
    /// Whether every read is checked again, rather than the first one.
    pub continuous: bool,
    /// How long a refused connection is kept.
    pub delay_deny: Option<Duration>,
}

/// `FilterStateValue`
#[derive(Clone, Debug)]
pub struct FilterStateValue {
    /// The object's key.
    pub key: Arc<str>,
    /// The factory that makes it of a string.
    pub factory: Arc<str>,
    /// The string.
    pub value: Format,
    /// Whether it cannot be replaced.
    pub read_only: bool,
    /// Whether upstream connections see it.
    pub shared_with_upstream: Shared,
    /// Whether an empty string makes no object.
    pub skip_if_empty: bool,
}

/// `SharedWithUpstream`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shared {
    /// No.
    None,
    /// With the next connection.
    Once,
    /// With all that follow.
    Transitive,
}

/// `ConnectionLimit`
#[derive(Clone, Debug)]
pub struct ConnectionLimit {
    /// What its statistics are called.
    pub stat_prefix: Arc<str>,
    /// How many connections at a time.
    pub max_connections: u64,
    /// How long a refused one is kept.
    pub delay: Option<Duration>,
    /// Whether the filter is on.
    pub enabled: bool,
}

/// The network filter `local_ratelimit`.
#[derive(Clone, Debug)]
pub struct NetworkLocalRateLimit {
    /// What its statistics are called.
    pub stat_prefix: Arc<str>,
    /// The bucket.
    pub bucket: TokenBucketConfig,
    /// Whether the filter is on.
    pub enabled: bool,
}
