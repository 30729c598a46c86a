//! `ClusterLoadAssignment`: hosts by locality, resolved or still to be.

use std::sync::Arc;

use sail_proxy_decide::host::{
    AssignmentPolicy, Endpoints, Group, HealthCheckTarget, HealthStatus, Host, HostState, Locality,
};

use super::{DnsGroup, DnsTarget};
use crate::convert::address::Named;
use crate::convert::{Cx, address, arc, values};
use crate::pb;
use crate::pb::endpoint as pe;

/// An assignment of IP addresses: static clusters and EDS.
pub(crate) fn assignment(
    cx: &mut Cx<'_>,
    value: pe::ClusterLoadAssignment,
    version: u64,
    previous: Option<&Endpoints>,
) -> Option<Endpoints> {
    let (groups, policy) = groups(cx, value);
    // Each host gets a state of its own as the sets are built.
    let unset = Arc::<HostState>::default();
    let resolved = groups.into_iter().map(|group| Group {
        locality: group.locality,
        priority: group.priority,
        weight: group.weight,
        hosts: group.entries.into_iter().filter_map(|entry| host(cx, entry, &unset)).collect(),
    });
    let resolved = resolved.collect();
    Some(Endpoints::build(resolved, policy, version, previous))
}

/// An assignment of names: DNS clusters.
pub(crate) fn names(
    cx: &mut Cx<'_>,
    value: pe::ClusterLoadAssignment,
) -> (Box<[DnsGroup]>, AssignmentPolicy) {
    let (groups, policy) = groups(cx, value);
    let named = groups.into_iter().map(|group| DnsGroup {
        locality: group.locality,
        priority: group.priority,
        weight: group.weight,
        targets: group.entries.into_iter().filter_map(|entry| target(cx, entry)).collect(),
    });
    (named.collect(), policy)
}

struct RawGroup {
    locality: Arc<Locality>,
    priority: u32,
    weight: Option<u32>,
    entries: Vec<Entry>,
}

struct Entry {
    field: String,
    address: Named,
    additional: Vec<sail_proxy_decide::address::Address>,
    hostname: String,
    weight: u32,
    metadata: sail_proxy_decide::route::Metadata,
    health_status: HealthStatus,
    health_check: Option<Arc<HealthCheckTarget>>,
}

fn host(cx: &mut Cx<'_>, entry: Entry, unset: &Arc<HostState>) -> Option<Host> {
    let address = match entry.address {
        Named::Address(address) => address,
        Named::Host(name, _) => {
            cx.error(
                &entry.field,
                format_args!(
                    "{name:?} is not an IP address; names need a cluster of type STRICT_DNS or LOGICAL_DNS"
                ),
            );
            return None;
        }
    };
    Some(Host {
        address,
        additional_addresses: entry.additional.into(),
        hostname: arc(entry.hostname),
        weight: entry.weight,
        priority: 0,
        locality: Arc::default(),
        metadata: entry.metadata,
        health_status: entry.health_status,
        health_check: entry.health_check,
        state: Arc::clone(unset),
    })
}

fn target(cx: &mut Cx<'_>, entry: Entry) -> Option<DnsTarget> {
    let (address, port) = match entry.address {
        Named::Host(name, port) => (name, port),
        Named::Address(address) => match address.socket_addr() {
            Some(address) => (address.ip().to_string(), address.port()),
            None => {
                cx.error(&entry.field, "a DNS cluster takes names and IP addresses only");
                return None;
            }
        },
    };
    Some(DnsTarget {
        hostname: if entry.hostname.is_empty() { Arc::from(&*address) } else { arc(entry.hostname) },
        address: arc(address),
        port,
        weight: entry.weight,
        metadata: entry.metadata,
        health_status: entry.health_status,
        health_check: entry.health_check,
    })
}

fn groups(cx: &mut Cx<'_>, value: pe::ClusterLoadAssignment) -> (Vec<RawGroup>, AssignmentPolicy) {
    let pe::ClusterLoadAssignment { cluster_name: _, endpoints, named_endpoints, policy } = value;
    cx.refuse("named_endpoints", &named_endpoints);
    let policy = cx.option("policy", policy, self::policy).unwrap_or_default();
    let mut at = 0;
    let groups = cx.each("endpoints", endpoints, |cx, value| {
        at += 1;
        group(cx, value, at - 1)
    });
    (groups, policy)
}

fn policy(cx: &mut Cx<'_>, value: pe::cluster_load_assignment::Policy) -> Option<AssignmentPolicy> {
    let pe::cluster_load_assignment::Policy {
        drop_overloads,
        overprovisioning_factor,
        endpoint_stale_after,
        weighted_priority_health,
    } = value;
    cx.ignore("endpoint_stale_after", &endpoint_stale_after, "endpoints stay until they are replaced");
    if drop_overloads.len() > 1 {
        cx.error("drop_overloads", "there can be one");
    }
    let drop_overload = cx.each("drop_overloads", drop_overloads, |cx, value| {
        cx.option("drop_percentage", value.drop_percentage, values::fraction)
    });
    Some(AssignmentPolicy {
        overprovisioning_factor: values::u32_or(overprovisioning_factor, 140).max(1),
        weighted_priority_health,
        drop_overload: drop_overload.into_iter().next(),
    })
}

fn group(cx: &mut Cx<'_>, value: pe::LocalityLbEndpoints, group: usize) -> Option<RawGroup> {
    use pe::locality_lb_endpoints::LbConfig;
    let pe::LocalityLbEndpoints {
        locality,
        metadata,
        lb_endpoints,
        load_balancing_weight,
        priority,
        proximity: _,
        lb_config,
    } = value;
    cx.ignore("metadata", &metadata, "nothing here reads a locality's metadata");
    // Priorities are indexes of a list: a wild one must not make a wild list.
    if priority > 128 {
        cx.error("priority", "it must not be above 128");
        return None;
    }
    let endpoints = match lb_config {
        Some(LbConfig::LoadBalancerEndpoints(list)) => list.lb_endpoints,
        Some(LbConfig::LedsClusterLocalityConfig(_)) => {
            cx.error("leds_cluster_locality_config", "it is not supported");
            return None;
        }
        None => lb_endpoints,
    };
    let pb::core::Locality { region, zone, sub_zone } = locality.unwrap_or_default();
    let locality = Locality { region: arc(region), zone: arc(zone), sub_zone: arc(sub_zone) };
    let mut at = 0;
    let entries = cx.each("lb_endpoints", endpoints, |cx, value| {
        at += 1;
        entry(cx, value, format!("endpoints[{group}].lb_endpoints[{}]", at - 1))
    });
    Some(RawGroup {
        locality: Arc::new(locality),
        priority,
        weight: weight(cx, load_balancing_weight),
        entries,
    })
}

fn entry(cx: &mut Cx<'_>, value: pe::LbEndpoint, field: String) -> Option<Entry> {
    use pe::lb_endpoint::HostIdentifier;
    let pe::LbEndpoint { health_status, metadata, load_balancing_weight, host_identifier } = value;
    let endpoint = match host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(HostIdentifier::EndpointName(name)) => {
            cx.refuse("endpoint_name", &name);
            return None;
        }
        None => {
            cx.error("endpoint", "it must be set");
            return None;
        }
    };
    let pe::Endpoint { address, health_check_config, hostname, additional_addresses, observability_name: _ } =
        endpoint;
    let address = cx.required("endpoint.address", address, address::named)?;
    let additional = cx.each("endpoint.additional_addresses", additional_addresses, |cx, value| {
        cx.required("address", value.address, address::resolved)
    });
    Some(Entry {
        field: field + ".endpoint.address",
        address,
        additional,
        hostname,
        weight: weight(cx, load_balancing_weight).unwrap_or(1),
        metadata: values::metadata(cx, "metadata", metadata),
        health_status: health(health_status),
        health_check: cx
            .option("endpoint.health_check_config", health_check_config, health_check)
            .map(Arc::new),
    })
}

/// The weight of a host or of a locality: nobody weighs nothing.
fn weight(cx: &mut Cx<'_>, value: Option<pb::UInt32Value>) -> Option<u32> {
    values::bounded(cx, "load_balancing_weight", value, 1..=u32::MAX)
}

/// `HealthStatus`
pub(super) fn health(status: i32) -> HealthStatus {
    match pb::core::HealthStatus::try_from(status) {
        Ok(pb::core::HealthStatus::Unknown) | Err(_) => HealthStatus::Unknown,
        Ok(pb::core::HealthStatus::Healthy) => HealthStatus::Healthy,
        Ok(pb::core::HealthStatus::Unhealthy) => HealthStatus::Unhealthy,
        Ok(pb::core::HealthStatus::Draining) => HealthStatus::Draining,
        Ok(pb::core::HealthStatus::Timeout) => HealthStatus::Timeout,
        Ok(pb::core::HealthStatus::Degraded) => HealthStatus::Degraded,
    }
}

fn health_check(cx: &mut Cx<'_>, value: pe::endpoint::HealthCheckConfig) -> Option<HealthCheckTarget> {
    let pe::endpoint::HealthCheckConfig { port_value, hostname, address, disable_active_health_check } =
        value;
    let port = if port_value == 0 { None } else { values::port(cx, "port_value", port_value) };
    Some(HealthCheckTarget {
        address: cx.option("address", address, address::resolved),
        port,
        hostname: arc(hostname),
        disabled: disable_active_health_check,
    })
}
