//! Load-balancing policies: the older fields and `load_balancing_policy`.

use std::time::Duration;

use sail_proxy_decide::lb::{CommonLb, HashFunction, LbPolicy, LocalityLb, SlowStart};

use crate::convert::{Cx, type_name, values};
use crate::pb;
use crate::pb::cluster as pc;
use crate::pb::load_balancing_policies as policies;

/// The cluster's fields about load balancing.
pub(super) struct Fields {
    pub(super) policy: i32,
    pub(super) config: Option<pc::cluster::LbConfig>,
    pub(super) common: Option<pc::cluster::CommonLbConfig>,
    pub(super) extension: Option<pc::LoadBalancingPolicy>,
}

pub(super) fn policy(cx: &mut Cx<'_>, fields: Fields) -> Option<(LbPolicy, CommonLb)> {
    let mut common = cx.option("common_lb_config", fields.common, self::common).unwrap_or_default();
    let policy = match fields.extension {
        Some(value) => cx.within("load_balancing_policy", |cx| extension(cx, value, &mut common))?,
        None => old(cx, fields.policy, fields.config)?,
    };
    Some((policy, common))
}

const RING_MIN: u64 = 1024;
const RING_MAX: u64 = 8 * 1024 * 1024;
const MAGLEV: u64 = 65537;

fn old(cx: &mut Cx<'_>, policy: i32, config: Option<pc::cluster::LbConfig>) -> Option<LbPolicy> {
    use pc::cluster::{LbConfig, LbPolicy as Old};
    Some(match (Old::try_from(policy), config) {
        (Ok(Old::RoundRobin), Some(LbConfig::RoundRobinLbConfig(config))) => LbPolicy::RoundRobin {
            slow_start: cx.option(
                "round_robin_lb_config.slow_start_config",
                config.slow_start_config,
                old_slow_start,
            ),
        },
        (Ok(Old::RoundRobin), _) => LbPolicy::RoundRobin { slow_start: None },
        (Ok(Old::LeastRequest), Some(LbConfig::LeastRequestLbConfig(config))) => {
            let pc::cluster::LeastRequestLbConfig { choice_count, active_request_bias, slow_start_config } =
                config;
            LbPolicy::LeastRequest {
                choice_count: choices(cx, "least_request_lb_config.choice_count", choice_count),
                active_request_bias: active_request_bias.map_or(1.0, |value| value.default_value),
                slow_start: cx.option(
                    "least_request_lb_config.slow_start_config",
                    slow_start_config,
                    old_slow_start,
                ),
            }
        }
        (Ok(Old::LeastRequest), _) => least_request(),
        (Ok(Old::Random), _) => LbPolicy::Random,
        (Ok(Old::RingHash), config) => {
            use pc::cluster::ring_hash_lb_config::HashFunction as Function;
            let config = match config {
                Some(LbConfig::RingHashLbConfig(config)) => config,
                _ => pc::cluster::RingHashLbConfig::default(),
            };
            let murmur = config.hash_function == Function::MurmurHash2 as i32;
            let sizes = (config.minimum_ring_size, config.maximum_ring_size);
            cx.within("ring_hash_lb_config", |cx| ring(cx, sizes, murmur))?
        }
        (Ok(Old::Maglev), Some(LbConfig::MaglevLbConfig(config))) => {
            LbPolicy::Maglev { table_size: table(cx, "maglev_lb_config.table_size", config.table_size) }
        }
        (Ok(Old::Maglev), _) => LbPolicy::Maglev { table_size: MAGLEV },
        (Ok(Old::ClusterProvided), _) => LbPolicy::ClusterProvided,
        (Ok(Old::LoadBalancingPolicyConfig), _) => {
            cx.error("load_balancing_policy", "lb_policy says that it is set, but it is not");
            return None;
        }
        (Err(_), _) => {
            cx.error("lb_policy", "it is not known");
            return None;
        }
    })
}

fn least_request() -> LbPolicy {
    LbPolicy::LeastRequest { choice_count: 2, active_request_bias: 1.0, slow_start: None }
}

fn choices(cx: &mut Cx<'_>, field: &str, value: Option<pb::UInt32Value>) -> u32 {
    let count = values::u32_or(value, 2);
    if count < 2 {
        cx.error(field, "it must be 2 at least");
    }
    count
}

fn ring(
    cx: &mut Cx<'_>,
    sizes: (Option<pb::UInt64Value>, Option<pb::UInt64Value>),
    murmur: bool,
) -> Option<LbPolicy> {
    let minimum_ring_size = sizes.0.map_or(RING_MIN, |value| value.value);
    let maximum_ring_size = sizes.1.map_or(RING_MAX, |value| value.value);
    if maximum_ring_size > RING_MAX || minimum_ring_size > maximum_ring_size {
        cx.error(
            "minimum_ring_size",
            format_args!("it must not be above maximum_ring_size, nor that above {RING_MAX}"),
        );
        return None;
    }
    let function = if murmur { HashFunction::MurmurHash2 } else { HashFunction::XxHash };
    Some(LbPolicy::RingHash { minimum_ring_size, maximum_ring_size, function })
}

fn table(cx: &mut Cx<'_>, field: &str, size: Option<pb::UInt64Value>) -> u64 {
    let size = size.map_or(MAGLEV, |value| value.value);
    let prime = size > 1
        && (2..)
            .take_while(|divisor| divisor * divisor <= size)
            .all(|divisor: u64| !size.is_multiple_of(divisor));
    if size > 5_000_011 || !prime {
        cx.error(field, "it must be a prime, 5000011 at most");
        return MAGLEV;
    }
    size
}

fn slow_start(
    cx: &mut Cx<'_>,
    window: Option<pb::Duration>,
    aggression: Option<pb::core::RuntimeDouble>,
    least: Option<pb::ty::Percent>,
) -> Option<SlowStart> {
    let window =
        values::duration(cx, "slow_start_window", window).filter(|window| *window > Duration::ZERO)?;
    let aggression = aggression.map_or(1.0, |value| value.default_value);
    if aggression <= 0.0 {
        cx.error("aggression", "it must be above 0");
    }
    Some(SlowStart {
        window,
        aggression,
        min_weight_percent: values::percent(cx, "min_weight_percent", least, 10.0),
    })
}

fn old_slow_start(cx: &mut Cx<'_>, value: pc::cluster::SlowStartConfig) -> Option<SlowStart> {
    let pc::cluster::SlowStartConfig { slow_start_window, aggression, min_weight_percent } = value;
    slow_start(cx, slow_start_window, aggression, min_weight_percent)
}

fn new_slow_start(cx: &mut Cx<'_>, value: policies::common::v3::SlowStartConfig) -> Option<SlowStart> {
    let policies::common::v3::SlowStartConfig { slow_start_window, aggression, min_weight_percent } = value;
    slow_start(cx, slow_start_window, aggression, min_weight_percent)
}

fn common(cx: &mut Cx<'_>, value: pc::cluster::CommonLbConfig) -> Option<CommonLb> {
    use pc::cluster::common_lb_config::{ConsistentHashingLbConfig, LocalityConfigSpecifier};
    let pc::cluster::CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window: _,
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = value;
    cx.ignore(
        "close_connections_on_host_set_change",
        &close_connections_on_host_set_change,
        "connections of hosts that stay are kept",
    );
    cx.ignore("override_host_status", &override_host_status, "no filter here names hosts");
    let ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor } =
        consistent_hashing_lb_config.unwrap_or_default();
    let locality = match locality_config_specifier {
        None => LocalityLb::None,
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => LocalityLb::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => {
            cx.warn("zone_aware_lb_config", "zones share traffic by their number of hosts");
            LocalityLb::ZoneAware {
                routing_enabled: values::percent(
                    cx,
                    "zone_aware_lb_config.routing_enabled",
                    zone.routing_enabled,
                    100.0,
                ),
                min_cluster_size: zone.min_cluster_size.map_or(6, |value| value.value),
                fail_traffic_on_panic: zone.fail_traffic_on_panic,
            }
        }
    };
    Some(CommonLb {
        panic_threshold: values::percent(cx, "healthy_panic_threshold", healthy_panic_threshold, 50.0),
        locality,
        use_hostname_for_hashing,
        hash_balance_factor: hash_balance_factor.map(|value| value.value),
        close_connections_on_host_set_change,
        ignore_new_hosts_until_first_health_check: ignore_new_hosts_until_first_hc,
    })
}

/// The first policy that is known, as Envoy takes it.
fn extension(cx: &mut Cx<'_>, value: pc::LoadBalancingPolicy, common: &mut CommonLb) -> Option<LbPolicy> {
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
                    extension(cx, value, common)
                })
            })
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
    cx.refuse("enable_full_scan", &enable_full_scan);
    cx.refuse("selection_method", &selection_method);
    locality(cx, locality_lb_config, common);
    Some(LbPolicy::LeastRequest {
        choice_count: choices(cx, "choice_count", choice_count),
        active_request_bias: active_request_bias.map_or(1.0, |value| value.default_value),
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
            cx.warn(
                "locality_lb_config.zone_aware_lb_config",
                "zones share traffic by their number of hosts",
            );
            cx.refuse("locality_lb_config.zone_aware_lb_config.force_local_zone", &zone.force_local_zone);
            cx.refuse("locality_lb_config.zone_aware_lb_config.locality_basis", &zone.locality_basis);
            let enabled = "locality_lb_config.zone_aware_lb_config.routing_enabled";
            common.locality = LocalityLb::ZoneAware {
                routing_enabled: values::percent(cx, enabled, zone.routing_enabled, 100.0),
                min_cluster_size: zone.min_cluster_size.map_or(6, |value| value.value),
                fail_traffic_on_panic: zone.fail_traffic_on_panic,
            };
        }
    }
}
