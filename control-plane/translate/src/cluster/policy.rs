//! The traffic policy of one port of one subset, and how it is written in a cluster.

use std::time::Duration;

use mesh_api::destination_rule::{
    ClientTls, ConnectionPool, HashAlgorithm, HttpSettings, LoadBalancer, OutlierDetection, ProxyProtocol,
    RetryBudget, SimpleLb, TcpKeepalive, TrafficPolicy, Tunnel,
};
use saild_model::{Mesh, Rule};
use xds_api::envoy::config::cluster::v3 as cds;
use xds_api::envoy::config::cluster::v3::cluster::{LbConfig, LbPolicy};
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::r#type::v3::Percent;

use crate::pb;

/// What applies to one cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Policy {
    /// How endpoints are chosen.
    pub load_balancer: Option<LoadBalancer>,
    /// Limits.
    pub connection_pool: Option<ConnectionPool>,
    /// Which endpoints are left out for a while.
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS as configured.
    pub tls: Option<ClientTls>,
    /// A PROXY header before each connection.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How many retries may be in flight.
    pub retry_budget: Option<RetryBudget>,
    /// The HTTP request that TCP connections are carried in.
    pub tunnel: Option<Tunnel>,
}

impl Policy {
    /// The mesh's defaults, overlaid with the rule's policy, block by block, with the subset's; settings of the port replace
    /// all of these.
    pub(crate) fn effective(rule: Option<&Rule>, subset: &str, port: u16, mesh: &Mesh) -> Self {
        let defaults = mesh.settings().default_traffic_policy.as_ref();
        let mut policy = Self {
            connection_pool: defaults.and_then(|d| d.connection_pool.clone()),
            outlier_detection: defaults.and_then(|d| d.outlier_detection.clone()),
            ..Self::default()
        };
        let Some(rule) = rule else { return policy };
        let of_subset =
            rule.subsets.iter().find(|s| s.name == subset).and_then(|s| s.traffic_policy.as_ref());
        let layers: Vec<&TrafficPolicy> = rule.traffic_policy.iter().chain(of_subset).collect();
        for layer in &layers {
            overlay(&mut policy.load_balancer, &layer.load_balancer);
            overlay(&mut policy.connection_pool, &layer.connection_pool);
            overlay(&mut policy.outlier_detection, &layer.outlier_detection);
            overlay(&mut policy.tls, &layer.tls);
            overlay(&mut policy.proxy_protocol, &layer.proxy_protocol);
            overlay(&mut policy.retry_budget, &layer.retry_budget);
            overlay(&mut policy.tunnel, &layer.tunnel);
        }
        let of_port =
            layers.iter().rev().find_map(|l| l.port_level_settings.iter().find(|p| p.port == Some(port)));
        if let Some(own) = of_port {
            policy.load_balancer.clone_from(&own.load_balancer);
            policy.connection_pool.clone_from(&own.connection_pool);
            policy.outlier_detection.clone_from(&own.outlier_detection);
            policy.tls.clone_from(&own.tls);
        }
        policy
    }

    /// The HTTP part of the pool.
    pub(crate) fn http(&self) -> Option<&HttpSettings> {
        self.connection_pool.as_ref()?.http.as_ref()
    }

    /// Whether requests with equal keys go to the same endpoint.
    pub(crate) fn is_consistent_hash(&self) -> bool {
        self.load_balancer.as_ref().is_some_and(|lb| lb.consistent_hash.is_some())
    }

    /// Whether traffic may go to other localities when endpoints are ejected.
    pub(crate) fn locality_aware(&self, mesh_enabled: bool) -> bool {
        let setting = self.load_balancer.as_ref().and_then(|lb| lb.locality_lb_setting.as_ref());
        let enabled = setting.and_then(|s| s.enabled).unwrap_or(mesh_enabled || setting.is_some());
        let distribute = setting.is_some_and(|s| !s.distribute.is_empty());
        enabled && (distribute || self.outlier_detection.is_some())
    }
}

fn overlay<T: Clone>(into: &mut Option<T>, from: &Option<T>) {
    if from.is_some() {
        into.clone_from(from);
    }
}

/// Writes connection limits.
pub(super) fn connection_pool(
    cluster: &mut cds::Cluster,
    pool: Option<&ConnectionPool>,
    budget: Option<&RetryBudget>,
    keepalive: Option<&TcpKeepalive>,
) {
    let tcp = pool.and_then(|pool| pool.tcp.as_ref());
    let http = pool.and_then(|pool| pool.http.as_ref());
    let limit = |value: Option<u32>| pb::u32v(value.filter(|v| *v > 0).unwrap_or(u32::MAX));
    let threshold = cds::circuit_breakers::Thresholds {
        max_connections: limit(tcp.and_then(|t| t.max_connections)),
        max_pending_requests: limit(http.map(|h| h.http1_max_pending_requests)),
        max_requests: limit(http.map(|h| h.http2_max_requests)),
        max_retries: limit(http.map(|h| h.max_retries)),
        track_remaining: true,
        retry_budget: budget.map(|budget| cds::circuit_breakers::thresholds::RetryBudget {
            budget_percent: Some(Percent { value: budget.percent.map_or(20.0, |p| p.get()) }),
            budget_interval: budget.budget_interval.and_then(pb::duration),
            min_retry_concurrency: pb::u32v(budget.min_retry_concurrency.unwrap_or(3)),
        }),
        ..Default::default()
    };
    cluster.circuit_breakers =
        Some(cds::CircuitBreakers { thresholds: vec![threshold], ..Default::default() });
    if let Some(timeout) = tcp.and_then(|t| t.connect_timeout) {
        cluster.connect_timeout = pb::duration(timeout);
    }
    if let Some(keepalive) = tcp.and_then(|t| t.tcp_keepalive.as_ref()).or(keepalive) {
        let seconds = |d: Option<Duration>| d.and_then(|d| pb::u32v(pb::whole_seconds(d)));
        cluster.upstream_connection_options = Some(cds::UpstreamConnectionOptions {
            tcp_keepalive: Some(core::TcpKeepalive {
                keepalive_probes: keepalive.probes.and_then(pb::u32v),
                keepalive_time: seconds(keepalive.time),
                keepalive_interval: seconds(keepalive.interval),
            }),
            ..Default::default()
        });
    }
}

/// Writes outlier detection.
pub(super) fn outlier_detection(cluster: &mut cds::Cluster, outlier: &OutlierDetection) {
    let mut out = cds::OutlierDetection {
        enforcing_success_rate: pb::u32v(0),
        interval: outlier.interval.and_then(pb::duration),
        base_ejection_time: outlier.base_ejection_time.and_then(pb::duration),
        split_external_local_origin_errors: outlier.split_external_local_origin_errors,
        ..Default::default()
    };
    let enforced = |count: u32| pb::u32v(if count > 0 { 100 } else { 0 });
    if let Some(count) = outlier.consecutive_5xx_errors {
        out.consecutive_5xx = pb::u32v(count);
        out.enforcing_consecutive_5xx = enforced(count);
    }
    let old = Some(outlier.consecutive_errors).filter(|count| *count > 0);
    if let Some(count) = outlier.consecutive_gateway_errors.or(old) {
        out.consecutive_gateway_failure = pb::u32v(count);
        out.enforcing_consecutive_gateway_failure = enforced(count);
    }
    if let Some(count) = outlier.consecutive_local_origin_failures {
        out.consecutive_local_origin_failure = pb::u32v(count);
        out.enforcing_consecutive_local_origin_failure = enforced(count);
    }
    if outlier.split_external_local_origin_errors {
        out.enforcing_local_origin_success_rate = pb::u32v(0);
    }
    if outlier.max_ejection_percent > 0 {
        out.max_ejection_percent = pb::u32v(outlier.max_ejection_percent);
    }
    cluster.outlier_detection = Some(out);
    let common = cluster.common_lb_config.get_or_insert_default();
    common.healthy_panic_threshold = Some(Percent { value: f64::from(outlier.min_health_percent) });
}

/// Writes how endpoints are chosen.
pub(super) fn load_balancer(cluster: &mut cds::Cluster, lb: Option<&LoadBalancer>) {
    let simple = lb.and_then(|lb| lb.simple).unwrap_or_default();
    let slow_start = lb.and_then(slow_start);
    if let Some(hash) = lb.and_then(|lb| lb.consistent_hash.as_ref()) {
        match &hash.algorithm {
            HashAlgorithm::RingHash(ring) => {
                let size = ring.minimum_ring_size.unwrap_or(1024);
                cluster.lb_policy = LbPolicy::RingHash as i32;
                cluster.lb_config = Some(LbConfig::RingHashLbConfig(cds::cluster::RingHashLbConfig {
                    minimum_ring_size: pb::u64v(size),
                    // The default maximum is below what may be asked for as minimum.
                    maximum_ring_size: (size > 8 * 1024 * 1024).then_some(size).and_then(pb::u64v),
                    ..Default::default()
                }));
            }
            HashAlgorithm::Maglev(maglev) => {
                cluster.lb_policy = LbPolicy::Maglev as i32;
                let table_size = maglev.table_size.and_then(pb::u64v);
                cluster.lb_config =
                    Some(LbConfig::MaglevLbConfig(cds::cluster::MaglevLbConfig { table_size }));
            }
        }
        return;
    }
    match simple {
        SimpleLb::RoundRobin => {
            cluster.lb_policy = LbPolicy::RoundRobin as i32;
            cluster.lb_config = slow_start.map(|slow| {
                LbConfig::RoundRobinLbConfig(cds::cluster::RoundRobinLbConfig {
                    slow_start_config: Some(slow),
                })
            });
        }
        SimpleLb::Random => cluster.lb_policy = LbPolicy::Random as i32,
        SimpleLb::Passthrough => {
            use cds::cluster::{ClusterDiscoveryType, DiscoveryType};
            cluster.lb_policy = LbPolicy::ClusterProvided as i32;
            cluster.cluster_discovery_type =
                Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32));
            cluster.eds_cluster_config = None;
            cluster.load_assignment = None;
        }
        SimpleLb::Unspecified | SimpleLb::LeastConn | SimpleLb::LeastRequest => {
            cluster.lb_policy = LbPolicy::LeastRequest as i32;
            cluster.lb_config = slow_start.map(|slow| {
                LbConfig::LeastRequestLbConfig(cds::cluster::LeastRequestLbConfig {
                    slow_start_config: Some(slow),
                    ..Default::default()
                })
            });
        }
    }
}

fn slow_start(lb: &LoadBalancer) -> Option<cds::cluster::SlowStartConfig> {
    let warmup = lb.warmup.as_ref();
    let window = warmup.and_then(|w| w.duration).or(lb.warmup_duration_secs)?;
    let aggression = warmup.and_then(|w| w.aggression).map_or(1.0, |a| a.get());
    let minimum = warmup.and_then(|w| w.minimum_percent).map_or(10.0, |p| p.get());
    Some(cds::cluster::SlowStartConfig {
        slow_start_window: pb::duration(window),
        aggression: Some(core::RuntimeDouble {
            default_value: aggression,
            runtime_key: "upstream.slow_start.aggression".to_owned(),
        }),
        min_weight_percent: Some(Percent { value: minimum }),
    })
}
