//! Network filters of chains that carry bytes.

use prost::{Message, Name};
use xds_api::any::pack;
use xds_api::envoy::config::listener::v3 as lds;
use xds_api::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use xds_api::envoy::r#type::v3 as kinds;
use xds_api::istio::metadata_exchange::MetadataExchange;

use super::{Class, TcpInputs};
use crate::authz::{AuthzInputs, External, TCP_EXT_AUTHZ};
use crate::pb;
use crate::telemetry::{access_log, metrics};
use crate::traits::{METADATA_EXCHANGE, STATS, Traits};

/// The filters, in order.
pub(super) fn filters(inputs: &TcpInputs, traits: Traits) -> Vec<lds::Filter> {
    let mut out = Vec::new();
    if inputs.exchange {
        let config =
            MetadataExchange { protocol: crate::tls::ALPN_EXCHANGE.to_owned(), ..Default::default() };
        out.push(filter(METADATA_EXCHANGE, &config));
    }
    if inputs.class != Class::SidecarOutbound {
        // Who is asked about requests alone has no say here.
        let heard = |authz: &&AuthzInputs| !authz.external.as_ref().is_some_and(External::is_http_only);
        for authz in inputs.authz.iter().filter(heard) {
            out.push(filter("envoy.filters.network.rbac", &authz.tcp()));
            let asks = authz.external.as_ref().and_then(External::tcp);
            out.extend(asks.map(|config| filter(TCP_EXT_AUTHZ, &config)));
        }
    }
    if traits.stats {
        out.push(filter(STATS, &metrics::plugin(&inputs.metrics)));
    }
    out.push(filter("envoy.filters.network.tcp_proxy", &tcp_proxy(inputs)));
    out
}

pub(super) fn filter<M: Message + Name>(name: &str, config: &M) -> lds::Filter {
    lds::Filter {
        name: name.to_owned(),
        config_type: Some(lds::filter::ConfigType::TypedConfig(pack(config))),
    }
}

fn tcp_proxy(inputs: &TcpInputs) -> tcp::TcpProxy {
    use tcp::tcp_proxy::{ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight};
    let specifier = match inputs.clusters.as_slice() {
        [] => ClusterSpecifier::Cluster(crate::naming::BLACK_HOLE.to_owned()),
        [(cluster, _)] => ClusterSpecifier::Cluster(cluster.clone()),
        several => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: several
                .iter()
                .map(|(name, weight)| ClusterWeight {
                    name: name.clone(),
                    weight: *weight,
                    ..Default::default()
                })
                .collect(),
        }),
    };
    let source_ip = kinds::HashPolicy {
        policy_specifier: Some(kinds::hash_policy::PolicySpecifier::SourceIp(Default::default())),
    };
    tcp::TcpProxy {
        stat_prefix: inputs.stat_prefix.clone(),
        cluster_specifier: Some(specifier),
        access_log: access_log::access_logs(&inputs.logs, access_log::Subject::Tcp),
        idle_timeout: inputs.idle_timeout.and_then(pb::duration),
        max_downstream_connection_duration: inputs.max_duration.and_then(pb::duration),
        tunneling_config: inputs.tunnel.as_ref().map(|tunnel| tcp::tcp_proxy::TunnelingConfig {
            hostname: authority(&tunnel.target_host, tunnel.target_port),
            use_post: tunnel.protocol == "POST",
            ..Default::default()
        }),
        hash_policy: if inputs.hash_source_ip { vec![source_ip] } else { Vec::new() },
        ..Default::default()
    }
}

/// A host and port as requests name them (RFC 9110 §7.2): IPv6 addresses in brackets.
fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}
