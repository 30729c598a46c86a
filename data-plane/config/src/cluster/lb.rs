//! Load-balancing policies: the older fields and `load_balancing_policy`.

mod extension;
mod subset;

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::lb::{CommonLb, HashFunction, LbPolicy, LocalityLb, SlowStart, StatusSet};

use super::endpoint;
use crate::convert::{Cx, values};
use crate::pb;
use crate::pb::cluster as pc;

/// The cluster's fields about load balancing.
pub(super) struct Fields {
    pub(super) policy: i32,
    pub(super) config: Option<pc::cluster::LbConfig>,
    pub(super) common: Option<pc::cluster::CommonLbConfig>,
    pub(super) extension: Option<pc::LoadBalancingPolicy>,
    pub(super) subset: Option<pc::cluster::LbSubsetConfig>,
}

pub(super) fn policy(cx: &mut Cx<'_>, fields: Fields) -> Option<(LbPolicy, CommonLb)> {
    let mut common = cx.option("common_lb_config", fields.common, self::common).unwrap_or_default();
    let policy = match fields.extension {
        Some(value) => {
            cx.ignore("lb_subset_config", &fields.subset, "load_balancing_policy stands in its place");
            cx.within("load_balancing_policy", |cx| extension::policy(cx, value, &mut common))?
        }
        None => {
            let child = old(cx, fields.policy, fields.config)?;
            // A configuration without selectors divides nothing.
            match fields.subset.filter(|subset| !subset.subset_selectors.is_empty()) {
                Some(_) if child == LbPolicy::ClusterProvided => {
                    cx.error("lb_subset_config", "it does not go with CLUSTER_PROVIDED");
                    return None;
                }
                Some(value) => {
                    let subset = cx.within("lb_subset_config", |cx| subset::old(cx, &value, child))?;
                    LbPolicy::Subset(Arc::new(subset))
                }
                None => child,
            }
        }
    };
    Some((policy, common))
}

/// A policy of this number, with nothing said about it; it chooses among hosts itself.
pub(super) fn plain(cx: &mut Cx<'_>, field: &str, policy: i32) -> Option<LbPolicy> {
    let policy = cx.within(field, |cx| old(cx, policy, None))?;
    if policy == LbPolicy::ClusterProvided {
        cx.error(field, "it must not be CLUSTER_PROVIDED");
        return None;
    }
    Some(policy)
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
                full_scan: false,
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
    LbPolicy::LeastRequest { choice_count: 2, active_request_bias: 1.0, full_scan: false, slow_start: None }
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

fn common(cx: &mut Cx<'_>, value: pc::cluster::CommonLbConfig) -> Option<CommonLb> {
    use pc::cluster::common_lb_config::{ConsistentHashingLbConfig, LocalityConfigSpecifier};
    let pc::cluster::CommonLbConfig {
        healthy_panic_threshold,
        update_merge_window,
        ignore_new_hosts_until_first_hc,
        close_connections_on_host_set_change,
        consistent_hashing_lb_config,
        override_host_status,
        locality_config_specifier,
    } = value;
    cx.ignore("update_merge_window", &update_merge_window, "updates take effect as they come");
    let ConsistentHashingLbConfig { use_hostname_for_hashing, hash_balance_factor } =
        consistent_hashing_lb_config.unwrap_or_default();
    let locality = match locality_config_specifier {
        None => LocalityLb::None,
        Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(_)) => LocalityLb::Weighted,
        Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zone)) => LocalityLb::ZoneAware {
            routing_enabled: values::percent(
                cx,
                "zone_aware_lb_config.routing_enabled",
                zone.routing_enabled,
                100.0,
            ),
            min_cluster_size: zone.min_cluster_size.map_or(6, |value| value.value),
            fail_traffic_on_panic: zone.fail_traffic_on_panic,
            force_local_zone: None,
            by_weight: false,
        },
    };
    if hash_balance_factor.is_some_and(|factor| factor.value < 100) {
        cx.error("consistent_hashing_lb_config.hash_balance_factor", "it must be 100 at least");
    }
    Some(CommonLb {
        panic_threshold: values::percent(cx, "healthy_panic_threshold", healthy_panic_threshold, 50.0),
        locality,
        use_hostname_for_hashing,
        hash_balance_factor: hash_balance_factor.map(|value| value.value),
        close_connections_on_host_set_change,
        ignore_new_hosts_until_first_health_check: ignore_new_hosts_until_first_hc,
        override_host_status: override_host_status
            .map(|set| StatusSet::new(set.statuses.into_iter().map(endpoint::health)))
            .unwrap_or_default(),
    })
}
