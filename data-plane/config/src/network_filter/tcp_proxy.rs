//! `envoy.filters.network.tcp_proxy`: ends a chain with a connection to a cluster.

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::format::Format;
use sail_proxy_decide::headers::HeaderOps;
use sail_proxy_decide::route::Metadata;
use sail_proxy_decide::route::hash::{HashPolicy, HashSource};

use crate::access_log::{self, AccessLog};
use crate::convert::{Cx, arc, headers, values};
use crate::tls::{self, AddedTlv};
use crate::{hcm, pb};

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
    /// By how many per cent more it may last, at random.
    pub duration_jitter_percent: f64,
    /// How often a connection is tried; 1 by default.
    pub max_connect_attempts: u32,
    /// How long to wait between tries; `None`: not at all.
    pub backoff: Option<ConnectBackoff>,
    /// What the load balancer hashes: source IP or filter state.
    pub hash_policy: Box<[HashPolicy]>,
    /// Logs.
    pub access_logs: Box<[Arc<AccessLog>]>,
    /// How often a log is written while the connection lasts.
    pub access_log_flush_interval: Option<Duration>,
    /// Whether a log is written once it is connected.
    pub flush_access_log_on_connected: bool,
    /// Whether a log is written when a connection begins.
    pub flush_access_log_on_start: bool,
    /// What is added to the TLVs that go upstream.
    pub tlvs: Option<Box<ProxyTlvs>>,
    /// When the upstream is connected to.
    pub connect_mode: ConnectMode,
    /// A tunnel by CONNECT.
    pub tunneling: Option<Box<Tunneling>>,
}

/// `UpstreamConnectMode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectMode {
    /// When the connection begins and its handshake is done.
    Immediate,
    /// When its first bytes have arrived; so many are read ahead at most.
    OnDownstreamData(u32),
}

/// `proxy_protocol_tlvs`
#[derive(Clone, Debug)]
pub struct ProxyTlvs {
    /// The TLVs.
    pub entries: Box<[AddedTlv]>,
    /// What becomes of those that the client's side sent.
    pub merge: TlvMerge,
}

/// `ProxyProtocolTlvMergePolicy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlvMerge {
    /// Ours count only where the client's side sent no header.
    AddIfAbsent,
    /// Ours replace those of their types.
    OverwriteByType,
    /// Ours follow theirs.
    Append,
}

/// `BackoffStrategy`: exponential, with full jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectBackoff {
    /// The first wait, at most.
    pub base: Duration,
    /// The longest.
    pub max: Duration,
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
    /// Headers to add.
    pub headers: HeaderOps,
    /// The path of a POST that stands in place of CONNECT.
    pub post_path: Option<Arc<str>>,
    /// Whether the answer's headers are kept in filter state.
    pub propagate_response_headers: bool,
    /// Whether the answer's trailers are.
    pub propagate_response_trailers: bool,
    /// The id that a request for a tunnel gets.
    pub request_id: Option<TunnelRequestId>,
}

/// The id of a request for a tunnel: where it is written.
#[derive(Clone, Debug)]
pub struct TunnelRequestId {
    /// The header.
    pub header: ::http::HeaderName,
    /// The key of dynamic metadata.
    pub metadata_key: Arc<str>,
}

pub(super) fn tcp_proxy(
    cx: &mut Cx<'_>,
    value: pb::filters::network::tcp_proxy::v3::TcpProxy,
) -> Option<TcpProxy> {
    let pb::filters::network::tcp_proxy::v3::TcpProxy {
        stat_prefix,
        on_demand,
        metadata_match,
        idle_timeout,
        downstream_idle_timeout,
        upstream_idle_timeout,
        access_log,
        max_connect_attempts,
        backoff_options,
        hash_policy,
        tunneling_config,
        max_downstream_connection_duration,
        max_downstream_connection_duration_jitter_percentage,
        access_log_flush_interval,
        flush_access_log_on_connected,
        access_log_options,
        proxy_protocol_tlvs,
        proxy_protocol_tlv_merge_policy,
        upstream_connect_mode,
        max_early_data_bytes,
        check_drain_close,
        cluster_specifier,
    } = value;
    if let Some(on_demand) = on_demand {
        // What remains has no effect without it.
        cx.refuse("on_demand.odcds_config", &on_demand.odcds_config);
    }
    cx.ignore("downstream_idle_timeout", &downstream_idle_timeout, "it has no effect in Envoy either");
    cx.ignore("upstream_idle_timeout", &upstream_idle_timeout, "it has no effect in Envoy either");
    cx.ignore("check_drain_close", &check_drain_close, "connections close when their listener has drained");
    let mut flush_interval = access_log_flush_interval;
    let mut on_connected = flush_access_log_on_connected;
    let mut on_start = false;
    if let Some(options) = access_log_options {
        on_start = options.flush_access_log_on_start;
        flush_interval = options.access_log_flush_interval.or(flush_interval);
        on_connected |= options.flush_access_log_on_connected;
    }
    let cluster = tcp_cluster(cx, cluster_specifier);
    Some(TcpProxy {
        stat_prefix: arc(stat_prefix),
        metadata_match: values::metadata(cx, "metadata_match", metadata_match),
        idle_timeout: values::limit(cx, "idle_timeout", idle_timeout, Some(Duration::from_secs(3600))),
        max_downstream_connection_duration: values::limit(
            cx,
            "max_downstream_connection_duration",
            max_downstream_connection_duration,
            None,
        ),
        duration_jitter_percent: values::percent(
            cx,
            "max_downstream_connection_duration_jitter_percentage",
            max_downstream_connection_duration_jitter_percentage,
            0.0,
        ),
        max_connect_attempts: values::u32_or(max_connect_attempts, 1).max(1),
        backoff: cx.option("backoff_options", backoff_options, backoff),
        hash_policy: cx.each("hash_policy", hash_policy, tcp_hash).into(),
        access_logs: access_log::all(cx, "access_log", access_log),
        access_log_flush_interval: values::limit(cx, "access_log_flush_interval", flush_interval, None),
        flush_access_log_on_connected: on_connected,
        flush_access_log_on_start: on_start,
        tlvs: tlvs(cx, proxy_protocol_tlvs, proxy_protocol_tlv_merge_policy).map(Box::new),
        connect_mode: connect_mode(cx, upstream_connect_mode, max_early_data_bytes),
        tunneling: cx.option("tunneling_config", tunneling_config, tunneling).map(Box::new),
        cluster: cluster?,
    })
}

fn tlvs(cx: &mut Cx<'_>, values: Vec<pb::core::TlvEntry>, merge: i32) -> Option<ProxyTlvs> {
    use pb::filters::network::tcp_proxy::v3::ProxyProtocolTlvMergePolicy as Policy;
    let entries = cx.each("proxy_protocol_tlvs", values, tls::added_tlv);
    let merge = match Policy::try_from(merge) {
        Ok(Policy::AddIfAbsent) => TlvMerge::AddIfAbsent,
        Ok(Policy::OverwriteByTypeIfExistsOrAdd) => TlvMerge::OverwriteByType,
        Ok(Policy::AppendIfExistsOrAdd) => TlvMerge::Append,
        Err(_) => {
            cx.error("proxy_protocol_tlv_merge_policy", "it is not known");
            return None;
        }
    };
    (!entries.is_empty()).then(|| ProxyTlvs { entries: entries.into(), merge })
}

/// Bytes that are read before there is an upstream, at most.
const MOST_EARLY_DATA: u32 = 1024 * 1024;

fn connect_mode(cx: &mut Cx<'_>, mode: i32, early: Option<pb::UInt32Value>) -> ConnectMode {
    use pb::filters::network::tcp_proxy::v3::UpstreamConnectMode as Mode;
    let early = early.map(|value| value.value);
    if early.is_some_and(|early| early > MOST_EARLY_DATA) {
        cx.error("max_early_data_bytes", format_args!("it must be at most {MOST_EARLY_DATA}"));
    }
    let mode = Mode::try_from(mode);
    if early.is_none() && matches!(mode, Ok(Mode::OnDownstreamData | Mode::OnDownstreamTlsHandshake)) {
        cx.error("max_early_data_bytes", "it must be set with this upstream_connect_mode");
    }
    match mode {
        // Network filters run after the handshake, so that both moments are one. The kernel keeps what comes early.
        Ok(Mode::Immediate | Mode::OnDownstreamTlsHandshake) => ConnectMode::Immediate,
        Ok(Mode::OnDownstreamData) => ConnectMode::OnDownstreamData(early.unwrap_or_default()),
        Err(_) => {
            cx.error("upstream_connect_mode", "it is not known");
            ConnectMode::Immediate
        }
    }
}

fn backoff(cx: &mut Cx<'_>, value: pb::core::BackoffStrategy) -> Option<ConnectBackoff> {
    let pb::core::BackoffStrategy { base_interval, max_interval } = value;
    let base = values::duration(cx, "base_interval", base_interval).filter(|base| !base.is_zero());
    let Some(base) = base else {
        cx.error("base_interval", "it must be above 0");
        return None;
    };
    let max = values::duration(cx, "max_interval", max_interval).unwrap_or(base * 10);
    if max < base {
        cx.error("max_interval", "it is below base_interval");
    }
    Some(ConnectBackoff { base, max })
}

fn tcp_hash(cx: &mut Cx<'_>, value: pb::ty::HashPolicy) -> Option<HashPolicy> {
    use pb::ty::hash_policy::PolicySpecifier;
    let source = match value.policy_specifier {
        Some(PolicySpecifier::SourceIp(_)) => HashSource::SourceIp,
        Some(PolicySpecifier::FilterState(state)) => HashSource::FilterState(state.key.into()),
        None => {
            cx.error("policy_specifier", "it must be set");
            return None;
        }
    };
    Some(HashPolicy { source, terminal: false })
}

fn tcp_cluster(
    cx: &mut Cx<'_>,
    value: Option<pb::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier>,
) -> Option<TcpCluster> {
    use pb::filters::network::tcp_proxy::v3::tcp_proxy::{ClusterSpecifier, weighted_cluster::ClusterWeight};
    match value {
        Some(ClusterSpecifier::Cluster(name)) => Some(TcpCluster::Name(arc(name))),
        Some(ClusterSpecifier::WeightedClusters(value)) => {
            let entries = cx.each("weighted_clusters.clusters", value.clusters, |cx, value| {
                let ClusterWeight { name, weight, metadata_match } = value;
                let metadata_match = values::metadata(cx, "metadata_match", metadata_match);
                Some(TcpClusterWeight { name: arc(name), weight, metadata_match })
            });
            if entries.iter().all(|entry| entry.weight == 0) {
                cx.error("weighted_clusters.clusters", "the sum of the weights must be above 0");
            }
            Some(TcpCluster::Weighted(entries.into()))
        }
        None => {
            cx.error("cluster_specifier", "it must be set");
            None
        }
    }
}

fn tunneling(
    cx: &mut Cx<'_>,
    value: pb::filters::network::tcp_proxy::v3::tcp_proxy::TunnelingConfig,
) -> Option<Tunneling> {
    let pb::filters::network::tcp_proxy::v3::tcp_proxy::TunnelingConfig {
        hostname,
        use_post,
        headers_to_add,
        propagate_response_headers,
        post_path,
        propagate_response_trailers,
        request_id_extension,
        request_id_header,
        request_id_metadata_key,
        formatters,
    } = value;
    if !post_path.is_empty() && !use_post {
        cx.error("post_path", "it needs use_post");
    }
    if propagate_response_trailers && !use_post {
        cx.error(
            "propagate_response_trailers",
            "it needs use_post: what follows a CONNECT is the tunnel's alone",
        );
    }
    let request_id = request_id_extension.and_then(|extension| {
        cx.within("request_id_extension", |cx| hcm::convert::request_id(cx, extension))?;
        let header = if request_id_header.is_empty() { "x-request-id" } else { &request_id_header };
        let key = Some(request_id_metadata_key).filter(|key| !key.is_empty());
        Some(TunnelRequestId {
            header: cx.ok("request_id_header", header.parse::<::http::HeaderName>())?,
            metadata_key: key.map_or_else(|| Arc::from("tunnel_request_id"), arc),
        })
    });
    access_log::formatters(cx, formatters);
    Some(Tunneling {
        hostname: cx.within("hostname", |cx| headers::format(cx, &hostname))?,
        headers: HeaderOps {
            add: cx.each("headers_to_add", headers_to_add, headers::add).into(),
            remove: Box::default(),
        },
        post_path: use_post.then(|| arc(if post_path.is_empty() { "/".to_owned() } else { post_path })),
        propagate_response_headers,
        propagate_response_trailers,
        request_id,
    })
}
