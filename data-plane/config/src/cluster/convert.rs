//! `Cluster`

use std::sync::Arc;
use std::time::Duration;

use super::{
    Bind, Cluster, Discovery, HealthCheck, Preconnect, SocketMatch, breakers, discovery, health,
    http_options, lb,
};
use crate::convert::{Cx, address, arc, matchers, type_name, values};
use crate::pb;
use crate::pb::cluster as pc;
use crate::tls::{self, UpstreamSocket};
use sail_proxy_decide::host::Endpoints;
use sail_proxy_decide::lb::LbPolicy;

/// `Cluster`; `version` is a hash of its bytes, `previous` has the hosts that an older version gave.
#[expect(clippy::too_many_lines, reason = "one message of sixty fields, taken apart field by field")]
pub(crate) fn cluster(
    cx: &mut Cx<'_>,
    value: pc::Cluster,
    version: u64,
    previous: Option<&Endpoints>,
) -> Option<Cluster> {
    let pc::Cluster {
        transport_socket_matches,
        transport_socket_matcher,
        name,
        alt_stat_name,
        stats_matcher,
        eds_cluster_config,
        connect_timeout,
        per_connection_buffer_limit_bytes,
        per_connection_buffer_high_watermark_timeout,
        lb_policy,
        load_assignment,
        health_checks,
        max_requests_per_connection,
        circuit_breakers,
        upstream_http_protocol_options,
        common_http_protocol_options,
        http_protocol_options,
        http2_protocol_options,
        typed_extension_protocol_options,
        dns_refresh_rate,
        dns_jitter,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_lookup_family,
        dns_resolvers,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        wait_for_warm_on_init,
        outlier_detection,
        cleanup_interval,
        upstream_bind_config,
        lb_subset_config,
        common_lb_config,
        transport_socket,
        metadata,
        protocol_selection,
        upstream_connection_options,
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        filters,
        load_balancing_policy,
        lrs_server,
        lrs_report_endpoint_metrics,
        track_timeout_budgets,
        upstream_config,
        track_cluster_stats,
        preconnect_policy,
        connection_pool_per_downstream_connection,
        queuing_policies,
        cluster_discovery_type,
        lb_config,
    } = value;
    if name.is_empty() {
        cx.error("name", "it must be set");
    }
    cx.refuse("transport_socket_matcher", &transport_socket_matcher);
    cx.refuse("stats_matcher", &stats_matcher);
    cx.refuse("per_connection_buffer_high_watermark_timeout", &per_connection_buffer_high_watermark_timeout);
    cx.ignore("lrs_server", &lrs_server, "load is not reported");
    cx.ignore("lrs_report_endpoint_metrics", &lrs_report_endpoint_metrics, "load is not reported");
    cx.option("upstream_config", upstream_config, connection_pools);
    cx.refuse("queuing_policies", &queuing_policies);

    let dns = discovery::DnsFields {
        refresh_rate: dns_refresh_rate,
        jitter: dns_jitter,
        failure_refresh_rate: dns_failure_refresh_rate,
        respect_ttl: respect_dns_ttl,
        family: dns_lookup_family,
        resolvers: dns_resolvers,
        use_tcp: use_tcp_for_dns_lookups,
        resolution_config: dns_resolution_config,
        resolver: typed_dns_resolver_config,
    };
    let original_dst = match &lb_config {
        Some(pc::cluster::LbConfig::OriginalDstLbConfig(config)) => Some(config.clone()),
        _ => None,
    };
    let fields = discovery::Fields {
        name: &name,
        kind: cluster_discovery_type,
        eds: eds_cluster_config,
        assignment: load_assignment,
        dns,
        original_dst,
        cleanup_interval,
        previous,
    };
    let discovery = discovery::discovery(cx, fields);
    let old = http_options::OldFields {
        max_requests_per_connection,
        upstream: upstream_http_protocol_options,
        common: common_http_protocol_options,
        http1: http_protocol_options,
        http2: http2_protocol_options,
        protocol_selection,
    };
    let http = http_options::options(cx, typed_extension_protocol_options, old);
    let balancing = lb::policy(
        cx,
        lb::Fields {
            policy: lb_policy,
            config: lb_config,
            common: common_lb_config,
            extension: load_balancing_policy,
            subset: lb_subset_config,
        },
    );
    let socket = match transport_socket {
        Some(socket) => cx.within("transport_socket", |cx| tls::upstream_socket(cx, socket)),
        None => Some(UpstreamSocket::Raw),
    };
    let connection = upstream_connection_options.unwrap_or_default();
    cx.ignore(
        "per_connection_buffer_limit_bytes",
        &per_connection_buffer_limit_bytes,
        "a connection buffers what its codec reads at once, and no more until that is passed on",
    );
    cx.ignore(
        "upstream_connection_options.set_local_interface_name_on_upstream_connections",
        &connection.set_local_interface_name_on_upstream_connections,
        "the interface's name is not read anywhere",
    );
    cx.refuse("upstream_connection_options.happy_eyeballs_config", &connection.happy_eyeballs_config);
    let track = track_cluster_stats.unwrap_or_default();
    let connect_timeout =
        values::duration(cx, "connect_timeout", connect_timeout).unwrap_or(Duration::from_secs(5));
    if connect_timeout.is_zero() {
        cx.error("connect_timeout", "it must be above 0");
    }
    let (lb, common_lb) = balancing?;
    let (http, upstream_filters) = http?;
    let discovery = discovery?;
    if lb_is_provided(&discovery) != (lb == LbPolicy::ClusterProvided) {
        let problem = if lb == LbPolicy::ClusterProvided {
            "CLUSTER_PROVIDED: clusters of this type do not choose among hosts themselves"
        } else {
            "clusters of this type choose hosts themselves: it must be CLUSTER_PROVIDED"
        };
        cx.error("lb_policy", problem);
    }
    if has_sub_clusters(&discovery) && !health_checks.is_empty() {
        cx.error(
            "health_checks",
            "the hosts of sub clusters are not checked: names come and go with requests",
        );
    }
    let name = arc(name);
    Some(Cluster {
        stat_name: if alt_stat_name.is_empty() { Arc::clone(&name) } else { arc(alt_stat_name) },
        connect_timeout,
        tracks_sizes: track.request_response_sizes,
        tracks_endpoints: track.per_endpoint_stats,
        tracks_timeout_budgets: track.timeout_budgets || track_timeout_budgets,
        lb,
        common_lb,
        circuit_breakers: Arc::new(
            cx.option("circuit_breakers", circuit_breakers, breakers::circuit_breakers).unwrap_or_default(),
        ),
        outlier_detection: cx.option("outlier_detection", outlier_detection, health::outlier).map(Box::new),
        health_checks: one_health_check(cx, health_checks).into(),
        socket_matches: cx.each("transport_socket_matches", transport_socket_matches, socket_match).into(),
        http: Arc::new(http),
        upstream_filters,
        bind: cx.option("upstream_bind_config", upstream_bind_config, bind).map(Box::new),
        tcp_keepalive: connection.tcp_keepalive.map(address::keepalive),
        metadata_exchange: filters_of(cx, filters),
        metadata: values::metadata(cx, "metadata", metadata),
        close_connections_on_host_health_failure,
        ignore_health_on_host_removal,
        connection_pool_per_downstream_connection,
        preconnect: cx.option("preconnect_policy", preconnect_policy, preconnect).flatten().map(Box::new),
        wait_for_warm_on_init: values::bool_or(wait_for_warm_on_init, true),
        version,
        name,
        discovery,
        socket: socket?,
    })
}

/// Whether clusters of this type know themselves which host a request goes to.
/// `upstream_config`: what chooses by the kind of the request, as it is without, and nothing else.
fn connection_pools(cx: &mut Cx<'_>, value: pb::core::TypedExtensionConfig) -> Option<()> {
    let any = value.typed_config.unwrap_or_default();
    match type_name(&any) {
        "envoy.extensions.upstreams.http.generic.v3.GenericConnectionPoolProto"
        | "envoy.extensions.upstreams.tcp.generic.v3.GenericConnectionPoolProto" => Some(()),
        other => {
            cx.error("typed_config", format_args!("connection pools of {other:?} are not supported"));
            None
        }
    }
}

fn lb_is_provided(discovery: &Discovery) -> bool {
    matches!(
        discovery,
        Discovery::OriginalDst(_) | Discovery::DynamicForwardProxy(_) | Discovery::Aggregate(_)
    )
}

fn has_sub_clusters(discovery: &Discovery) -> bool {
    matches!(discovery, Discovery::DynamicForwardProxy(cache) if cache.sub_clusters.is_some())
}

fn one_health_check(cx: &mut Cx<'_>, values: Vec<pb::core::HealthCheck>) -> Vec<HealthCheck> {
    if values.len() > 1 {
        cx.error("health_checks", "a cluster has one health check at most");
    }
    cx.each("health_checks", values, health::check)
}

/// `None` inside where nothing is made ahead.
fn preconnect(cx: &mut Cx<'_>, value: pc::cluster::PreconnectPolicy) -> Option<Option<Preconnect>> {
    let pc::cluster::PreconnectPolicy {
        per_upstream_preconnect_ratio,
        predictive_preconnect_ratio,
        preconnect_enabled_metadata,
    } = value;
    let mut ratio = |field: &str, value: Option<f64>| {
        let ratio = value.unwrap_or(1.0);
        if !(1.0..=3.0).contains(&ratio) {
            cx.error(field, "it must be between 1 and 3");
        }
        ratio
    };
    let per_upstream_ratio = per_upstream_preconnect_ratio.map(|value| value.value);
    let per_upstream_ratio = ratio("per_upstream_preconnect_ratio", per_upstream_ratio);
    let predictive_ratio = predictive_preconnect_ratio.map(|value| value.value);
    let predictive_ratio = ratio("predictive_preconnect_ratio", predictive_ratio);
    let enabled = cx.option("preconnect_enabled_metadata", preconnect_enabled_metadata, matchers::metadata);
    let ahead = per_upstream_ratio > 1.0 || predictive_ratio > 1.0;
    Some(ahead.then_some(Preconnect { per_upstream_ratio, predictive_ratio, enabled }))
}

fn filters_of(
    cx: &mut Cx<'_>,
    values: Vec<pc::Filter>,
) -> Option<Arc<xds_api::istio::metadata_exchange::MetadataExchange>> {
    let found = cx.each("filters", values, |cx, value| {
        let pc::Filter { name, typed_config, config_discovery } = value;
        cx.refuse("config_discovery", &config_discovery);
        let any = cx.required("typed_config", typed_config, |_, any| Some(any))?;
        if type_name(&any) != "envoy.tcp.metadataexchange.config.MetadataExchange" {
            cx.error(
                "typed_config",
                format_args!("there is no upstream network filter {:?} ({name})", type_name(&any)),
            );
            return None;
        }
        cx.unpack(&any)
    });
    found.into_iter().next().map(Arc::new)
}

fn socket_match(cx: &mut Cx<'_>, value: pc::cluster::TransportSocketMatch) -> Option<SocketMatch> {
    let pc::cluster::TransportSocketMatch { name, r#match, transport_socket } = value;
    let socket = cx.required("transport_socket", transport_socket, tls::upstream_socket)?;
    let criteria = values::object(r#match.unwrap_or_default());
    Some(SocketMatch {
        name: arc(name),
        criteria: criteria.into_iter().map(|(key, value)| (key.into(), value)).collect(),
        socket,
    })
}

fn bind(cx: &mut Cx<'_>, value: pb::core::BindConfig) -> Option<Bind> {
    let pb::core::BindConfig {
        source_address,
        freebind,
        socket_options,
        extra_source_addresses,
        additional_source_addresses,
        local_address_selector,
        validate_network_namespaces: _,
    } = value;
    cx.refuse("additional_source_addresses", &additional_source_addresses);
    cx.refuse("local_address_selector", &local_address_selector);
    Some(Bind {
        source: cx.option("source_address", source_address, address::ip),
        extra_sources: cx
            .each("extra_source_addresses", extra_source_addresses, |cx, value| {
                let pb::core::ExtraSourceAddress { address, socket_options } = value;
                cx.refuse("socket_options", &socket_options);
                cx.required("address", address, address::ip)
            })
            .into(),
        freebind: values::bool_or(freebind, false),
        socket_options: cx.each("socket_options", socket_options, address::socket_option).into(),
    })
}
