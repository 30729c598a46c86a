//! Network filters from their `Any`s.

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::headers::HeaderOps;
use sail_proxy_decide::rate_limit::TokenBucketConfig;
use sail_proxy_decide::rbac::RbacConfig;
use sail_proxy_decide::route::hash::{HashPolicy, HashSource};

use super::{
    ConnectionLimit, FilterStateValue, NetworkFilter, NetworkLocalRateLimit, NetworkRbac, Shared, TcpCluster,
    TcpClusterWeight, TcpProxy, Tunneling,
};
use crate::convert::{Cx, arc, headers, type_name, values};
use crate::pb;
use crate::{access_log, hcm, rbac};

/// All filters of a chain; the last one must end it.
pub(crate) fn chain(cx: &mut Cx<'_>, values: Vec<pb::listener::Filter>) -> Box<[NetworkFilter]> {
    let last = values.len().checked_sub(1);
    let mut at = 0;
    let filters = cx.each("filters", values, |cx, value| {
        let filter = filter(cx, value);
        if let Some(filter) = &filter
            && ends(filter) != (Some(at) == last)
        {
            let problem = if ends(filter) {
                "a filter that ends a chain must be the last"
            } else {
                "the last filter must end the chain"
            };
            cx.error("", problem);
        }
        at += 1;
        filter
    });
    filters.into()
}

fn ends(filter: &NetworkFilter) -> bool {
    matches!(
        filter,
        NetworkFilter::HttpConnectionManager(_)
            | NetworkFilter::TcpProxy(_)
            | NetworkFilter::DirectResponse(_)
            | NetworkFilter::Echo
    )
}

fn filter(cx: &mut Cx<'_>, value: pb::listener::Filter) -> Option<NetworkFilter> {
    use pb::listener::filter::ConfigType;
    let pb::listener::Filter { name, config_type } = value;
    match config_type {
        Some(ConfigType::TypedConfig(any)) => cx.within("typed_config", |cx| typed(cx, &any)),
        Some(ConfigType::ConfigDiscovery(_)) => {
            cx.error("config_discovery", "it is not supported for network filters");
            None
        }
        None => {
            cx.error("typed_config", format_args!("the filter {name:?} has no configuration"));
            None
        }
    }
}

fn typed(cx: &mut Cx<'_>, any: &pb::Any) -> Option<NetworkFilter> {
    use pb::filters::network as filters;
    Some(match type_name(any) {
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            let value = cx.unpack(any)?;
            NetworkFilter::HttpConnectionManager(Arc::new(hcm::convert::manager(cx, value)?))
        }
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
            let value = cx.unpack(any)?;
            NetworkFilter::TcpProxy(Arc::new(tcp_proxy(cx, value)?))
        }
        "envoy.extensions.filters.network.rbac.v3.RBAC" => {
            let value = cx.unpack(any)?;
            NetworkFilter::Rbac(Arc::new(network_rbac(cx, value)?))
        }
        "envoy.extensions.filters.network.direct_response.v3.Config" => {
            let filters::direct_response::v3::Config { response } = cx.unpack(any)?;
            let response = cx.option("response", response, values::data).map(|(bytes, _)| bytes);
            NetworkFilter::DirectResponse(response.unwrap_or_default().into())
        }
        "envoy.extensions.filters.network.echo.v3.Echo" => NetworkFilter::Echo,
        "envoy.extensions.filters.network.set_filter_state.v3.Config" => {
            let filters::set_filter_state::v3::Config {
                on_new_connection,
                on_downstream_tls_handshake,
                on_downstream_data,
            } = cx.unpack(any)?;
            cx.refuse("on_downstream_tls_handshake", &on_downstream_tls_handshake);
            cx.refuse("on_downstream_data", &on_downstream_data);
            let values = cx.each("on_new_connection", on_new_connection, filter_state);
            NetworkFilter::SetFilterState(values.into())
        }
        "envoy.extensions.filters.network.sni_cluster.v3.SniCluster" => NetworkFilter::SniCluster,
        "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit" => {
            let filters::connection_limit::v3::ConnectionLimit {
                stat_prefix,
                max_connections,
                delay,
                runtime_enabled,
            } = cx.unpack(any)?;
            NetworkFilter::ConnectionLimit(Arc::new(ConnectionLimit {
                stat_prefix: arc(stat_prefix),
                max_connections: cx
                    .required("max_connections", max_connections, |_, value| Some(value.value))?,
                delay: values::limit(cx, "delay", delay, None),
                enabled: flag(runtime_enabled, true),
            }))
        }
        "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit" => {
            let filters::local_ratelimit::v3::LocalRateLimit {
                stat_prefix,
                token_bucket,
                runtime_enabled,
                share_key,
            } = cx.unpack(any)?;
            cx.refuse("share_key", &share_key);
            NetworkFilter::LocalRateLimit(Arc::new(NetworkLocalRateLimit {
                stat_prefix: arc(stat_prefix),
                bucket: cx.required("token_bucket", token_bucket, self::token_bucket)?,
                enabled: flag(runtime_enabled, true),
            }))
        }
        "stats.PluginConfig" => NetworkFilter::IstioStats(Arc::new(cx.unpack(any)?)),
        "envoy.tcp.metadataexchange.config.MetadataExchange" => {
            NetworkFilter::MetadataExchange(Arc::new(cx.unpack(any)?))
        }
        other => {
            cx.error("", format_args!("there is no network filter {other:?}"));
            return None;
        }
    })
}

fn flag(value: Option<pb::core::RuntimeFeatureFlag>, default: bool) -> bool {
    value.and_then(|flag| flag.default_value).map_or(default, |value| value.value)
}

/// `TokenBucket`
pub(crate) fn token_bucket(cx: &mut Cx<'_>, value: pb::ty::TokenBucket) -> Option<TokenBucketConfig> {
    let pb::ty::TokenBucket { max_tokens, tokens_per_fill, fill_interval } = value;
    if max_tokens == 0 {
        cx.error("max_tokens", "it must be above 0");
    }
    let fill_interval =
        values::duration(cx, "fill_interval", fill_interval).filter(|interval| !interval.is_zero());
    let Some(fill_interval) = fill_interval else {
        cx.error("fill_interval", "it must be above 0");
        return None;
    };
    Some(TokenBucketConfig { max_tokens, tokens_per_fill: values::u32_or(tokens_per_fill, 1), fill_interval })
}

/// `FilterStateValue`
pub(crate) fn filter_state(
    cx: &mut Cx<'_>,
    value: pb::filters::common::set_filter_state::v3::FilterStateValue,
) -> Option<FilterStateValue> {
    use pb::filters::common::set_filter_state::v3::filter_state_value::{Key, SharedWithUpstream, Value};
    let pb::filters::common::set_filter_state::v3::FilterStateValue {
        factory_key,
        read_only,
        shared_with_upstream,
        skip_if_empty,
        key,
        value,
    } = value;
    let Some(Key::ObjectKey(key)) = key else {
        cx.error("object_key", "it must be set");
        return None;
    };
    let format = match value {
        Some(Value::FormatString(value)) => {
            cx.within("format_string", |cx| match access_log::format(cx, value)? {
                access_log::LogFormat::Text { format, .. } => Some(format),
                access_log::LogFormat::Json { .. } => {
                    cx.error("json_format", "it is not supported here");
                    None
                }
            })?
        }
        None => {
            cx.error("value", "it must be set");
            return None;
        }
    };
    let shared_with_upstream = match SharedWithUpstream::try_from(shared_with_upstream) {
        Ok(SharedWithUpstream::Once) => Shared::Once,
        Ok(SharedWithUpstream::Transitive) => Shared::Transitive,
        _ => Shared::None,
    };
    Some(FilterStateValue {
        factory: if factory_key.is_empty() { arc(key.clone()) } else { arc(factory_key) },
        key: arc(key),
        value: format,
        read_only,
        shared_with_upstream,
        skip_if_empty,
    })
}

fn network_rbac(cx: &mut Cx<'_>, value: pb::filters::network::rbac::v3::Rbac) -> Option<NetworkRbac> {
    use pb::filters::network::rbac::v3 as network;
    let network::Rbac {
        rules,
        matcher,
        shadow_rules,
        shadow_matcher,
        shadow_rules_stat_prefix,
        stat_prefix,
        enforcement_type,
        delay_deny,
    } = value;
    cx.refuse("matcher", &matcher);
    cx.refuse("shadow_matcher", &shadow_matcher);
    cx.ignore("delay_deny", &delay_deny, "refused connections are closed at once");
    Some(NetworkRbac {
        stat_prefix: arc(stat_prefix),
        config: RbacConfig {
            rules: cx.option("rules", rules, rbac::rules),
            shadow_rules: cx.option("shadow_rules", shadow_rules, rbac::rules),
            rules_stat_prefix: Arc::from(""),
            shadow_rules_stat_prefix: arc(shadow_rules_stat_prefix),
            track_per_rule_stats: false,
        },
        continuous: enforcement_type == network::rbac::EnforcementType::Continuous as i32,
        delay_deny: values::limit(cx, "delay_deny", delay_deny, None),
    })
}

fn tcp_proxy(cx: &mut Cx<'_>, value: pb::filters::network::tcp_proxy::v3::TcpProxy) -> Option<TcpProxy> {
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
    cx.refuse("on_demand", &on_demand);
    cx.ignore("downstream_idle_timeout", &downstream_idle_timeout, "it has no effect in Envoy either");
    cx.ignore("upstream_idle_timeout", &upstream_idle_timeout, "it has no effect in Envoy either");
    cx.refuse("backoff_options", &backoff_options);
    cx.refuse(
        "max_downstream_connection_duration_jitter_percentage",
        &max_downstream_connection_duration_jitter_percentage,
    );
    cx.refuse("proxy_protocol_tlvs", &proxy_protocol_tlvs);
    cx.refuse("proxy_protocol_tlv_merge_policy", &proxy_protocol_tlv_merge_policy);
    cx.refuse("upstream_connect_mode", &upstream_connect_mode);
    cx.refuse("max_early_data_bytes", &max_early_data_bytes);
    cx.ignore("check_drain_close", &check_drain_close, "connections close when their listener has drained");
    cx.unserved("tunneling_config", &tunneling_config);
    let mut flush_interval = access_log_flush_interval;
    let mut on_connected = flush_access_log_on_connected;
    if let Some(options) = access_log_options {
        cx.refuse("access_log_options.flush_access_log_on_start", &options.flush_access_log_on_start);
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
        max_connect_attempts: values::u32_or(max_connect_attempts, 1).max(1),
        hash_policy: cx.each("hash_policy", hash_policy, tcp_hash).into(),
        access_logs: access_log::all(cx, "access_log", access_log),
        access_log_flush_interval: values::limit(cx, "access_log_flush_interval", flush_interval, None),
        flush_access_log_on_connected: on_connected,
        tunneling: cx.option("tunneling_config", tunneling_config, tunneling).map(Box::new),
        cluster: cluster?,
    })
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
    cx.refuse("request_id_extension", &request_id_extension);
    cx.refuse("request_id_header", &request_id_header);
    cx.refuse("request_id_metadata_key", &request_id_metadata_key);
    access_log::formatters(cx, formatters);
    Some(Tunneling {
        hostname: cx.within("hostname", |cx| headers::format(cx, &hostname))?,
        use_post,
        post_path: if post_path.is_empty() { "/".into() } else { post_path.into() },
        headers: HeaderOps {
            add: cx.each("headers_to_add", headers_to_add, headers::add).into(),
            remove: Box::default(),
        },
        propagate_response_headers,
        propagate_response_trailers,
    })
}
