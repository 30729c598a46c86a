//! How a cluster's hosts are found.

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::format::MetadataSource;
use sail_proxy_decide::host::{AssignmentPolicy, Endpoints};

use xds_api::envoy::extensions::clusters::dns::v3::DnsCluster as DnsExtension;
use xds_api::envoy::extensions::clusters::original_dst::v3::OriginalDstCluster;

use super::{Discovery, DnsCache, DnsCluster, DnsFamily, DnsGroup, OriginalDst, endpoint, lb};
use crate::convert::{Cx, address, arc, headers, type_name, values};
use crate::pb;
use crate::pb::cluster as pc;

/// The cluster's fields about discovery.
pub(super) struct Fields<'a> {
    pub(super) name: &'a str,
    pub(super) kind: Option<pc::cluster::ClusterDiscoveryType>,
    pub(super) eds: Option<pc::cluster::EdsClusterConfig>,
    pub(super) assignment: Option<pb::endpoint::ClusterLoadAssignment>,
    pub(super) dns: DnsFields,
    pub(super) original_dst: Option<pc::cluster::OriginalDstLbConfig>,
    pub(super) cleanup_interval: Option<pb::Duration>,
    pub(super) previous: Option<&'a Endpoints>,
}

/// The cluster's fields about DNS.
pub(super) struct DnsFields {
    pub(super) refresh_rate: Option<pb::Duration>,
    pub(super) jitter: Option<pb::Duration>,
    pub(super) failure_refresh_rate: Option<pc::cluster::RefreshRate>,
    pub(super) respect_ttl: bool,
    pub(super) family: i32,
    pub(super) resolvers: Vec<pb::core::Address>,
    pub(super) use_tcp: bool,
    pub(super) resolution_config: Option<pb::core::DnsResolutionConfig>,
    pub(super) resolver: Option<pb::core::TypedExtensionConfig>,
}

pub(super) fn discovery(cx: &mut Cx<'_>, fields: Fields<'_>) -> Option<Discovery> {
    use pc::cluster::{ClusterDiscoveryType, DiscoveryType};
    let kind = match fields.kind {
        None => DiscoveryType::Static,
        Some(ClusterDiscoveryType::Type(kind)) => cx.ok("type", DiscoveryType::try_from(kind))?,
        Some(ClusterDiscoveryType::ClusterType(custom)) => {
            let pc::cluster::CustomClusterType { name, typed_config } = custom;
            let any = typed_config.unwrap_or_default();
            if type_name(&any) == FORWARD_PROXY {
                return cx.within("cluster_type.typed_config", |cx| {
                    forward_proxy(cx, fields.name, &any, fields.dns)
                });
            }
            let assignment = fields.assignment;
            return cx.within("cluster_type.typed_config", |cx| custom_type(cx, &name, &any, assignment));
        }
    };
    if kind != DiscoveryType::Eds && fields.eds.is_some() {
        cx.error("eds_cluster_config", "the cluster is not of type EDS");
    }
    match kind {
        DiscoveryType::Static => {
            let assignment = fields.assignment.unwrap_or_default();
            let endpoints =
                cx.within("load_assignment", |cx| endpoint::assignment(cx, assignment, 0, fields.previous))?;
            Some(Discovery::Static(Arc::new(endpoints)))
        }
        DiscoveryType::Eds => {
            let pc::cluster::EdsClusterConfig { eds_config, service_name } =
                cx.required("eds_cluster_config", fields.eds, |_, eds| Some(eds))?;
            let source = cx.required("eds_cluster_config.eds_config", eds_config, values::config_source)?;
            let service_name = if service_name.is_empty() { fields.name } else { &service_name };
            Some(Discovery::Eds { service_name: Arc::from(service_name), source })
        }
        DiscoveryType::StrictDns | DiscoveryType::LogicalDns => {
            let dns = dns(cx, fields.dns, fields.assignment)?;
            if kind == DiscoveryType::StrictDns {
                return Some(Discovery::StrictDns(Box::new(dns)));
            }
            one_target(cx, &dns.groups);
            Some(Discovery::LogicalDns(Box::new(dns)))
        }
        DiscoveryType::OriginalDst => {
            if fields.assignment.is_some_and(|assignment| !assignment.endpoints.is_empty()) {
                cx.error("load_assignment", "a cluster of type ORIGINAL_DST finds its hosts by itself");
            }
            let config = fields.original_dst.unwrap_or_default();
            let mut found = cx.within("original_dst_lb_config", |cx| original_dst(cx, config))?;
            let interval = values::duration(cx, "cleanup_interval", fields.cleanup_interval);
            found.cleanup_interval = interval.unwrap_or(Duration::from_secs(5));
            Some(Discovery::OriginalDst(Box::new(found)))
        }
    }
}

fn one_target(cx: &mut Cx<'_>, groups: &[DnsGroup]) {
    if groups.len() != 1 || groups.iter().any(|group| group.targets.len() != 1) {
        cx.error("load_assignment", "a cluster of type LOGICAL_DNS has one locality with one endpoint");
    }
}

fn dns(
    cx: &mut Cx<'_>,
    fields: DnsFields,
    assignment: Option<pb::endpoint::ClusterLoadAssignment>,
) -> Option<DnsCluster> {
    let (groups, policy) = names(cx, assignment);
    let mut resolvers = cx.each("dns_resolvers", fields.resolvers, address::resolved);
    let mut use_tcp = fields.use_tcp;
    if let Some(pb::core::DnsResolutionConfig { resolvers: more, dns_resolver_options }) =
        fields.resolution_config
    {
        resolvers.extend(cx.each("dns_resolution_config.resolvers", more, address::resolved));
        use_tcp |= dns_resolver_options.is_some_and(|options| options.use_tcp_for_dns_lookups);
    }
    if let Some(found) = cx.option("typed_dns_resolver_config", fields.resolver, resolver) {
        resolvers.extend(found.0);
        use_tcp |= found.1;
    }
    let failure_refresh = cx.option("dns_failure_refresh_rate", fields.failure_refresh_rate, |cx, value| {
        let pc::cluster::RefreshRate { base_interval, max_interval } = value;
        failure_rate(cx, base_interval, max_interval)
    });
    Some(DnsCluster {
        groups,
        policy,
        refresh_rate: refresh_rate(cx, fields.refresh_rate),
        jitter: values::duration(cx, "dns_jitter", fields.jitter).unwrap_or_default(),
        failure_refresh,
        respect_ttl: fields.respect_ttl,
        min_refresh_rate: Duration::ZERO,
        family: family(fields.family),
        resolvers: resolvers.into(),
        use_tcp,
    })
}

fn names(
    cx: &mut Cx<'_>,
    value: Option<pb::endpoint::ClusterLoadAssignment>,
) -> (Box<[DnsGroup]>, AssignmentPolicy) {
    cx.within("load_assignment", |cx| endpoint::names(cx, value.unwrap_or_default()))
}

fn refresh_rate(cx: &mut Cx<'_>, value: Option<pb::Duration>) -> Duration {
    let rate = values::duration(cx, "dns_refresh_rate", value).unwrap_or(Duration::from_secs(5));
    rate.max(Duration::from_millis(1))
}

fn failure_rate(
    cx: &mut Cx<'_>,
    base: Option<pb::Duration>,
    max: Option<pb::Duration>,
) -> Option<(Duration, Duration)> {
    let base = values::duration(cx, "base_interval", base)?.max(Duration::from_millis(1));
    let max = values::duration(cx, "max_interval", max).unwrap_or(base.saturating_mul(10));
    Some((base, max.max(base)))
}

fn resolver(
    cx: &mut Cx<'_>,
    value: pb::core::TypedExtensionConfig,
) -> Option<(Vec<sail_proxy_decide::address::Address>, bool)> {
    use xds_api::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
    let any = value.typed_config.unwrap_or_default();
    match type_name(&any) {
        "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig" => None,
        "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig" => {
            // Tries, timeouts and caches are the resolver's own business; they change no answer.
            let config: CaresDnsResolverConfig = cx.unpack(&any)?;
            let servers = cx.each("typed_config.resolvers", config.resolvers, address::resolved);
            Some((
                servers,
                config.dns_resolver_options.is_some_and(|options| options.use_tcp_for_dns_lookups),
            ))
        }
        other => {
            cx.error("typed_config", format_args!("there is no DNS resolver {other:?}"));
            None
        }
    }
}

fn family(value: i32) -> DnsFamily {
    use pc::cluster::DnsLookupFamily;
    match DnsLookupFamily::try_from(value) {
        Ok(DnsLookupFamily::Auto) | Err(_) => DnsFamily::Auto,
        Ok(DnsLookupFamily::V4Only) => DnsFamily::V4Only,
        Ok(DnsLookupFamily::V6Only) => DnsFamily::V6Only,
        Ok(DnsLookupFamily::V4Preferred) => DnsFamily::V4Preferred,
        Ok(DnsLookupFamily::All) => DnsFamily::All,
    }
}

fn original_dst(cx: &mut Cx<'_>, value: pc::cluster::OriginalDstLbConfig) -> Option<OriginalDst> {
    use xds_api::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
    let pc::cluster::OriginalDstLbConfig {
        use_http_header,
        http_header_name,
        upstream_port_override,
        metadata_key,
    } = value;
    if !use_http_header && !http_header_name.is_empty() {
        cx.error("http_header_name", "it goes with use_http_header");
    }
    let header = if http_header_name.is_empty() { "x-envoy-original-dst-host" } else { &http_header_name };
    let metadata_key = cx.option("metadata_key", metadata_key, |cx, key| {
        let path = cx.each("path", key.path, |cx, segment| match segment.segment {
            Some(Segment::Key(key)) => Some(key.into()),
            _ => {
                cx.error("", "only keys are supported");
                None
            }
        });
        Some((MetadataSource::Dynamic, arc(key.key), path.into()))
    });
    Some(OriginalDst {
        http_header: if use_http_header { headers::key(cx, "http_header_name", header) } else { None },
        port_override: match upstream_port_override {
            Some(value) => Some(values::port(cx, "upstream_port_override", value.value)?),
            None => None,
        },
        metadata_key,
        cleanup_interval: Duration::from_secs(5),
    })
}

fn custom_type(
    cx: &mut Cx<'_>,
    name: &str,
    any: &pb::Any,
    assignment: Option<pb::endpoint::ClusterLoadAssignment>,
) -> Option<Discovery> {
    match type_name(any) {
        "envoy.extensions.clusters.aggregate.v3.ClusterConfig" => {
            let config: xds_api::envoy::extensions::clusters::aggregate::v3::ClusterConfig =
                cx.unpack(any)?;
            if config.clusters.is_empty() {
                cx.error("clusters", "it must not be empty");
            }
            Some(Discovery::Aggregate(config.clusters.into_iter().map(arc).collect()))
        }
        "envoy.extensions.clusters.original_dst.v3.OriginalDstCluster" => {
            let OriginalDstCluster {
                use_http_header,
                http_header_name,
                upstream_port_override,
                metadata_key,
            } = cx.unpack(any)?;
            if assignment.is_some_and(|assignment| !assignment.endpoints.is_empty()) {
                cx.error("", "such a cluster finds its hosts by itself: it has no load_assignment");
            }
            let fields = pc::cluster::OriginalDstLbConfig {
                use_http_header,
                http_header_name,
                upstream_port_override,
                metadata_key,
            };
            original_dst(cx, fields).map(|found| Discovery::OriginalDst(Box::new(found)))
        }
        "envoy.extensions.clusters.dns.v3.DnsCluster" => {
            let value: DnsExtension = cx.unpack(any)?;
            let one = value.all_addresses_in_single_endpoint;
            let cluster = dns_extension(cx, value, assignment)?;
            if one {
                one_target(cx, &cluster.groups);
                return Some(Discovery::LogicalDns(Box::new(cluster)));
            }
            Some(Discovery::StrictDns(Box::new(cluster)))
        }
        other => {
            cx.error("", format_args!("there is no cluster type {name:?} ({other:?})"));
            None
        }
    }
}

/// `DnsCluster`
fn dns_extension(
    cx: &mut Cx<'_>,
    value: DnsExtension,
    assignment: Option<pb::endpoint::ClusterLoadAssignment>,
) -> Option<DnsCluster> {
    use xds_api::envoy::extensions::clusters::dns::v3::dns_cluster::RefreshRate;
    let DnsExtension {
        dns_refresh_rate,
        dns_failure_refresh_rate,
        respect_dns_ttl,
        dns_jitter,
        typed_dns_resolver_config,
        dns_lookup_family,
        all_addresses_in_single_endpoint: _,
        dns_min_refresh_rate,
    } = value;
    let (groups, policy) = names(cx, assignment);
    let found =
        cx.option("typed_dns_resolver_config", typed_dns_resolver_config, resolver).unwrap_or_default();
    Some(DnsCluster {
        groups,
        policy,
        refresh_rate: refresh_rate(cx, dns_refresh_rate),
        jitter: values::duration(cx, "dns_jitter", dns_jitter).unwrap_or_default(),
        failure_refresh: cx.option("dns_failure_refresh_rate", dns_failure_refresh_rate, |cx, value| {
            let RefreshRate { base_interval, max_interval } = value;
            failure_rate(cx, base_interval, max_interval)
        }),
        respect_ttl: respect_dns_ttl,
        min_refresh_rate: values::duration(cx, "dns_min_refresh_rate", dns_min_refresh_rate)
            .unwrap_or_default(),
        // This enumeration has a member for "unspecified" before the others.
        family: family((dns_lookup_family - 1).max(0)),
        resolvers: found.0.into(),
        use_tcp: found.1,
    })
}

const FORWARD_PROXY: &str = "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig";

fn forward_proxy(cx: &mut Cx<'_>, cluster: &str, any: &pb::Any, fields: DnsFields) -> Option<Discovery> {
    use forward::cluster_config::ClusterImplementationSpecifier as Kind;
    use xds_api::envoy::extensions::clusters::dynamic_forward_proxy::v3 as forward;
    let forward::ClusterConfig {
        allow_insecure_cluster_options: _,
        allow_coalesced_connections,
        cluster_implementation_specifier,
    } = cx.unpack(any)?;
    cx.refuse("allow_coalesced_connections", &allow_coalesced_connections);
    let cache = match cluster_implementation_specifier {
        Some(Kind::DnsCacheConfig(cache)) => cx.within("dns_cache_config", |cx| dns_cache(cx, cache))?,
        Some(Kind::SubClustersConfig(config)) => {
            cx.within("sub_clusters_config", |cx| sub_clusters(cx, cluster, config, fields))?
        }
        None => {
            cx.error("dns_cache_config", "it must be set");
            return None;
        }
    };
    Some(Discovery::DynamicForwardProxy(Arc::new(cache)))
}

/// `SubClustersConfig`: a cache of the cluster's own, whose names are used with all their addresses.
fn sub_clusters(
    cx: &mut Cx<'_>,
    cluster: &str,
    value: xds_api::envoy::extensions::clusters::dynamic_forward_proxy::v3::SubClustersConfig,
    fields: DnsFields,
) -> Option<DnsCache> {
    use xds_api::envoy::extensions::clusters::dynamic_forward_proxy::v3::SubClustersConfig;
    let SubClustersConfig {
        lb_policy,
        max_sub_clusters,
        sub_cluster_ttl,
        preresolve_clusters,
        dns_cluster_config,
    } = value;
    let policy = lb::plain(cx, "lb_policy", lb_policy)?;
    let dns = match dns_cluster_config {
        Some(config) => cx.within("dns_cluster_config", |cx| dns_extension(cx, config, None))?,
        None => dns(cx, fields, None)?,
    };
    if max_sub_clusters.is_some_and(|most| most.value == 0) {
        cx.error("max_sub_clusters", "it must be above 0");
    }
    let shortest = dns.min_refresh_rate.max(Duration::from_millis(500));
    Some(DnsCache {
        // No name of a cache begins so unless somebody wants it to.
        name: format!("sub_clusters/{cluster}").into(),
        family: dns.family,
        refresh_rate: dns.refresh_rate,
        min_refresh_rate: if dns.respect_ttl { shortest } else { dns.refresh_rate },
        failure_refresh: dns.failure_refresh,
        host_ttl: values::duration(cx, "sub_cluster_ttl", sub_cluster_ttl)
            .unwrap_or(Duration::from_secs(300)),
        max_hosts: values::u32_or(max_sub_clusters, 1024),
        max_pending_requests: u32::MAX,
        preresolve: preresolved(cx, "preresolve_clusters", preresolve_clusters),
        query_timeout: Some(Duration::from_secs(5)),
        resolvers: dns.resolvers,
        use_tcp: dns.use_tcp,
        sub_clusters: Some(policy),
    })
}

fn preresolved(cx: &mut Cx<'_>, field: &str, values: Vec<pb::core::SocketAddress>) -> Box<[(Arc<str>, u16)]> {
    use pb::core::socket_address::PortSpecifier;
    let names = cx.each(field, values, |cx, value| match value.port_specifier {
        Some(PortSpecifier::PortValue(port)) => {
            Some((arc(value.address), values::port(cx, "port_value", port)?))
        }
        _ => {
            cx.error("port_value", "it must be set");
            None
        }
    });
    names.into()
}

/// `DnsCacheConfig`
pub(crate) fn dns_cache(
    cx: &mut Cx<'_>,
    value: xds_api::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig,
) -> Option<DnsCache> {
    use xds_api::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
    let DnsCacheConfig {
        name,
        dns_lookup_family,
        dns_refresh_rate,
        dns_min_refresh_rate,
        host_ttl,
        max_hosts,
        disable_dns_refresh_on_failure,
        dns_failure_refresh_rate,
        dns_cache_circuit_breaker,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        typed_dns_resolver_config,
        preresolve_hostnames,
        dns_query_timeout,
        key_value_config,
        resolved_address_filter,
    } = value;
    if name.is_empty() {
        cx.error("name", "it must be set");
    }
    cx.refuse("disable_dns_refresh_on_failure", &disable_dns_refresh_on_failure);
    cx.refuse("key_value_config", &key_value_config);
    cx.refuse("resolved_address_filter", &resolved_address_filter);
    let mut use_tcp = use_tcp_for_dns_lookups;
    let mut resolvers = Vec::new();
    if let Some(pb::core::DnsResolutionConfig { resolvers: more, dns_resolver_options }) =
        dns_resolution_config
    {
        resolvers = cx.each("dns_resolution_config.resolvers", more, address::resolved);
        use_tcp |= dns_resolver_options.is_some_and(|options| options.use_tcp_for_dns_lookups);
    }
    if let Some(found) = cx.option("typed_dns_resolver_config", typed_dns_resolver_config, resolver) {
        resolvers = found.0;
        use_tcp = found.1;
    }
    let or = |cx: &mut Cx<'_>, field: &str, value, default| {
        values::duration(cx, field, value).unwrap_or(Duration::from_secs(default))
    };
    let pending = dns_cache_circuit_breaker.and_then(|breaker| breaker.max_pending_requests);
    Some(DnsCache {
        name: arc(name),
        family: family(dns_lookup_family),
        refresh_rate: or(cx, "dns_refresh_rate", dns_refresh_rate, 60).max(Duration::from_millis(1)),
        min_refresh_rate: or(cx, "dns_min_refresh_rate", dns_min_refresh_rate, 5),
        failure_refresh: cx.option("dns_failure_refresh_rate", dns_failure_refresh_rate, |cx, value| {
            failure_rate(cx, value.base_interval, value.max_interval)
        }),
        host_ttl: or(cx, "host_ttl", host_ttl, 300),
        max_hosts: values::u32_or(max_hosts, 1024),
        max_pending_requests: values::u32_or(pending, 1024),
        preresolve: preresolved(cx, "preresolve_hostnames", preresolve_hostnames),
        query_timeout: values::limit(
            cx,
            "dns_query_timeout",
            dns_query_timeout,
            Some(Duration::from_secs(5)),
        ),
        resolvers: resolvers.into(),
        use_tcp,
        sub_clusters: None,
    })
}
