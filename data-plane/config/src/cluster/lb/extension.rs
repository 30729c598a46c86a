//! `load_balancing_policy`: the first policy of the list that is known.

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::lb::{
    CommonLb, LbPolicy, LocalityLb, MetadataPath, OverrideHost, OverrideSource, ReportedWeights,
};

use super::{choices, ring, slow_start, subset, table};
use crate::convert::{Cx, headers, type_name, values};
use crate::pb;
use crate::pb::cluster as pc;
use crate::pb::load_balancing_policies as policies;

/// The first policy that is known, as Envoy takes it.
pub(super) fn policy(
    cx: &mut Cx<'_>,
    value: pc::LoadBalancingPolicy,
    common: &mut CommonLb,
) -> Option<LbPolicy> {
    let mut names = Vec::new();
    for (at, entry) in value.policies.into_iter().enumerate() {
        let any = entry.typed_extension_config.and_then(|config| config.typed_config).unwrap_or_default();
        let path = format!("policies[{at}].typed_extension_config.typed_config");
        match cx.within(path, |cx| one(cx, &any, common)) {
            Known::Yes(policy) => return policy,
            Known::No => names.push(type_name(&any).to_owned()),
        }
    }
    cx.error("policies", format_args!("none of them is supported: {names:?}"));
    None
}

enum Known {
    Yes(Option<LbPolicy>),
    No,
}

fn one(cx: &mut Cx<'_>, any: &pb::Any, common: &mut CommonLb) -> Known {
    let converted = match type_name(any) {
        "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin" => round_robin(cx, any, common),
        "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest" => {
            new_least_request(cx, any, common)
        }
        "envoy.extensions.load_balancing_policies.random.v3.Random" => {
            cx.unpack::<policies::random::v3::Random>(any).map(|config| {
                locality(cx, config.locality_lb_config, common);
                LbPolicy::Random
            })
        }
        "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash" => ring_hash(cx, any, common),
        "envoy.extensions.load_balancing_policies.maglev.v3.Maglev" => maglev(cx, any, common),
        "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided" => {
            Some(LbPolicy::ClusterProvided)
        }
        "envoy.extensions.load_balancing_policies.wrr_locality.v3.WrrLocality" => {
            let config: Option<policies::wrr_locality::v3::WrrLocality> = cx.unpack(any);
            common.locality = LocalityLb::Weighted;
            config.and_then(|config| {
                cx.required("endpoint_picking_policy", config.endpoint_picking_policy, |cx, value| {
                    policy(cx, value, common)
                })
            })
        }
        "envoy.extensions.load_balancing_policies.subset.v3.Subset" => subset_policy(cx, any, common),
        "envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin" => {
            reported_weights(cx, any)
        }
        "envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost" => {
            override_host(cx, any, common)
        }
        _ => return Known::No,
    };
    Known::Yes(converted)
}

fn round_robin(cx: &mut Cx<'_>, any: &pb::Any, common: &mut CommonLb) -> Option<LbPolicy> {
    let policies::round_robin::v3::RoundRobin { slow_start_config, locality_lb_config } = cx.unpack(any)?;
    locality(cx, locality_lb_config, common);
    Some(LbPolicy::RoundRobin {
        slow_start: cx.option("slow_start_config", slow_start_config, new_slow_start),
    })
}

fn new_least_request(cx: &mut Cx<'_>, any: &pb::Any, common: &mut CommonLb) -> Option<LbPolicy> {
    let policies::least_request::v3::LeastRequest {
        choice_count,
        active_request_bias,
        slow_start_config,
        locality_lb_config,
        enable_full_scan,
        selection_method,
    } = cx.unpack(any)?;
    use policies::least_request::v3::least_request::SelectionMethod;
    let full_scan = enable_full_scan.is_some_and(|value| value.value)
        || selection_method == SelectionMethod::FullScan as i32;
    locality(cx, locality_lb_config, common);
    Some(LbPolicy::LeastRequest {
        choice_count: choices(cx, "choice_count", choice_count),
        active_request_bias: active_request_bias.map_or(1.0, |value| value.default_value),
        full_scan,
        slow_start: cx.option("slow_start_config", slow_start_config, new_slow_start),
    })
}

fn ring_hash(cx: &mut Cx<'_>, any: &pb::Any, common: &mut CommonLb) -> Option<LbPolicy> {
    let policies::ring_hash::v3::RingHash {
        hash_function,
        minimum_ring_size,
        maximum_ring_size,
        use_hostname_for_hashing,
        hash_balance_factor,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = cx.unpack(any)?;
    let murmur = hash_function == policies::ring_hash::v3::ring_hash::HashFunction::MurmurHash2 as i32;
    common.use_hostname_for_hashing |= use_hostname_for_hashing;
    common.hash_balance_factor = hash_balance_factor.map(|value| value.value).or(common.hash_balance_factor);
    consistent(cx, consistent_hashing_lb_config, common);
    if locality_weighted_lb_config.is_some() {
        common.locality = LocalityLb::Weighted;
    }
    ring(cx, (minimum_ring_size, maximum_ring_size), murmur)
}

fn maglev(cx: &mut Cx<'_>, any: &pb::Any, common: &mut CommonLb) -> Option<LbPolicy> {
    let policies::maglev::v3::Maglev {
        table_size,
        consistent_hashing_lb_config,
        locality_weighted_lb_config,
    } = cx.unpack(any)?;
    consistent(cx, consistent_hashing_lb_config, common);
    if locality_weighted_lb_config.is_some() {
        common.locality = LocalityLb::Weighted;
    }
    Some(LbPolicy::Maglev { table_size: table(cx, "table_size", table_size) })
}

fn consistent(
    cx: &mut Cx<'_>,
    value: Option<policies::common::v3::ConsistentHashingLbConfig>,
    common: &mut CommonLb,
) {
    let Some(value) = value else { return };
    cx.refuse("consistent_hashing_lb_config.hash_policy", &value.hash_policy);
    common.use_hostname_for_hashing |= value.use_hostname_for_hashing;
    common.hash_balance_factor =
        value.hash_balance_factor.map(|value| value.value).or(common.hash_balance_factor);
}

fn locality(cx: &mut Cx<'_>, value: Option<policies::common::v3::LocalityLbConfig>, common: &mut CommonLb) {
    use policies::common::v3::locality_lb_config::LocalityConfigSpecifier;
    match value.and_then(|value| value.locality_config_specifier) {
        None => {}
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => common.locality = LocalityLb::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
            use policies::common::v3::locality_lb_config::zone_aware_lb_config::LocalityBasis;
            let force = zone.force_local_zone.map(|force| values::u32_or(force.min_size, 1));
            #[expect(deprecated, reason = "Envoy still takes it")]
            let direct = zone.force_locality_direct_routing.then_some(1);
            let enabled = "locality_lb_config.zone_aware_lb_config.routing_enabled";
            common.locality = LocalityLb::ZoneAware {
                routing_enabled: values::percent(cx, enabled, zone.routing_enabled, 100.0),
                min_cluster_size: zone.min_cluster_size.map_or(6, |value| value.value),
                fail_traffic_on_panic: zone.fail_traffic_on_panic,
                force_local_zone: force.or(direct),
                by_weight: zone.locality_basis == LocalityBasis::HealthyHostsWeight as i32,
            };
        }
    }
}

fn subset_policy(cx: &mut Cx<'_>, any: &pb::Any, common: &mut CommonLb) -> Option<LbPolicy> {
    let mut config: policies::subset::v3::Subset = cx.unpack(any)?;
    let child = cx.required("subset_lb_policy", config.subset_lb_policy.take(), |cx, value| {
        policy(cx, value, common)
    })?;
    Some(LbPolicy::Subset(Arc::new(subset::new(cx, config, child)?)))
}

fn override_host(cx: &mut Cx<'_>, any: &pb::Any, common: &mut CommonLb) -> Option<LbPolicy> {
    let policies::override_host::v3::OverrideHost {
        override_host_sources,
        selected_host_key,
        fallback_policy,
    } = cx.unpack(any)?;
    let selected = cx.option("selected_host_key", selected_host_key, |cx, key| {
        if key.path.is_empty() {
            cx.error("path", "it must not be empty");
        }
        metadata_path(cx, key)
    });
    if override_host_sources.is_empty() {
        cx.error("override_host_sources", "it must not be empty");
    }
    let sources = cx.each("override_host_sources", override_host_sources, |cx, source| {
        let policies::override_host::v3::override_host::OverrideHostSource { header, metadata } = source;
        match metadata {
            Some(_) if !header.is_empty() => {
                cx.error("metadata", "header is set already: a source has one of them");
                None
            }
            Some(key) => {
                let (namespace, path) = cx.within("metadata", |cx| metadata_path(cx, key))?;
                Some(OverrideSource::Metadata(namespace, path))
            }
            None => headers::name(cx, "header", &header).map(OverrideSource::Header),
        }
    });
    let fallback = cx.required("fallback_policy", fallback_policy, |cx, value| policy(cx, value, common))?;
    Some(LbPolicy::OverrideHost(Arc::new(OverrideHost { sources: sources.into(), selected, fallback })))
}

fn metadata_path(
    cx: &mut Cx<'_>,
    value: xds_api::envoy::r#type::metadata::v3::MetadataKey,
) -> Option<MetadataPath> {
    use xds_api::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
    if value.key.is_empty() {
        cx.error("key", "it must be set");
    }
    let path = cx.each("path", value.path, |cx, segment| match segment.segment {
        Some(Segment::Key(key)) => Some(key.into()),
        _ => {
            cx.error("key", "it must be set: only keys are supported");
            None
        }
    });
    Some((value.key.into(), path.into()))
}

fn reported_weights(cx: &mut Cx<'_>, any: &pb::Any) -> Option<LbPolicy> {
    let policies::client_side_weighted_round_robin::v3::ClientSideWeightedRoundRobin {
        enable_oob_load_report,
        oob_reporting_period,
        blackout_period,
        weight_expiration_period,
        weight_update_period,
        error_utilization_penalty,
        metric_names_for_computing_utilization,
        slow_start_config,
        ..
    } = cx.unpack(any)?;
    if values::bool_or(enable_oob_load_report, false) {
        cx.error("enable_oob_load_report", "it is not supported: reports come with responses");
    } else {
        cx.ignore("oob_reporting_period", &oob_reporting_period, "reports come with responses");
    }
    let or = |cx: &mut Cx<'_>, field: &str, value, default| {
        values::duration(cx, field, value).unwrap_or(Duration::from_secs(default))
    };
    let penalty = error_utilization_penalty.map_or(1.0, |value| f64::from(value.value));
    if penalty < 0.0 {
        cx.error("error_utilization_penalty", "it must not be below 0");
    }
    let update = or(cx, "weight_update_period", weight_update_period, 1);
    Some(LbPolicy::ClientSideWeightedRoundRobin(Arc::new(ReportedWeights {
        blackout_period: or(cx, "blackout_period", blackout_period, 10),
        expiration_period: or(cx, "weight_expiration_period", weight_expiration_period, 180),
        update_period: update.max(Duration::from_millis(100)),
        error_utilization_penalty: penalty,
        metric_names: metric_names_for_computing_utilization.into_iter().map(Into::into).collect(),
        slow_start: cx.option("slow_start_config", slow_start_config, new_slow_start),
    })))
}

fn new_slow_start(
    cx: &mut Cx<'_>,
    value: policies::common::v3::SlowStartConfig,
) -> Option<sail_proxy_decide::lb::SlowStart> {
    let policies::common::v3::SlowStartConfig { slow_start_window, aggression, min_weight_percent } = value;
    slow_start(cx, slow_start_window, aggression, min_weight_percent)
}
