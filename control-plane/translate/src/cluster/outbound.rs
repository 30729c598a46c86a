//! The cluster of one port of one service, or of one of its subsets.

use saild_model::{Location, Resolution};
use xds_api::envoy::config::cluster::v3 as cds;
use xds_api::envoy::config::cluster::v3::cluster::{
    ClusterDiscoveryType, CommonLbConfig, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy,
};
use xds_api::google::protobuf::Struct;

use super::{ClusterInputs, policy, transport};
use crate::{endpoint, naming, pb};

/// The cluster of these inputs.
pub fn cluster(inputs: &ClusterInputs) -> cds::Cluster {
    let host = &inputs.service.hostname;
    let name = if inputs.sni_name {
        naming::outbound_sni(inputs.port.number, &inputs.subset, host)
    } else {
        naming::outbound(inputs.port.number, &inputs.subset, host)
    };
    let mut cluster = cds::Cluster {
        name,
        connect_timeout: pb::duration(inputs.mesh.connect_timeout),
        common_lb_config: Some(CommonLbConfig::default()),
        metadata: Some(pb::metadata("istio", metadata(inputs))),
        filters: transport::exchange_filter(inputs).into_iter().collect(),
        ..Default::default()
    };
    discovery(&mut cluster, inputs);
    let pool = inputs.policy.connection_pool.as_ref();
    let keepalive = inputs.mesh.tcp_keepalive.as_ref();
    policy::connection_pool(&mut cluster, pool, inputs.policy.retry_budget.as_ref(), keepalive);
    if let Some(outlier) = &inputs.policy.outlier_detection {
        policy::outlier_detection(&mut cluster, outlier);
    }
    if inputs.policy.locality_aware(true) {
        use cds::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
        cluster.common_lb_config.get_or_insert_default().locality_config_specifier =
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {}));
    }
    if !inputs.sni_name {
        transport::http_options(&mut cluster, inputs);
        transport::sockets(&mut cluster, inputs);
    }
    cluster
}

#[expect(deprecated, reason = "the extension that replaces these fields is newer than many proxies")]
fn discovery(cluster: &mut cds::Cluster, inputs: &ClusterInputs) {
    let kind = |kind: DiscoveryType| Some(ClusterDiscoveryType::Type(kind as i32));
    match inputs.service.resolution {
        Resolution::ClientSide => {
            cluster.cluster_discovery_type = kind(DiscoveryType::Eds);
            cluster.eds_cluster_config =
                Some(EdsClusterConfig { eds_config: pb::ads(), service_name: cluster.name.clone() });
            policy::load_balancer(cluster, inputs.policy.load_balancer.as_ref());
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {
            let logical = inputs.service.resolution == Resolution::DnsRoundRobin;
            cluster.cluster_discovery_type =
                kind(if logical { DiscoveryType::LogicalDns } else { DiscoveryType::StrictDns });
            cluster.dns_lookup_family = DnsLookupFamily::V4Only as i32;
            cluster.dns_refresh_rate = pb::duration(inputs.mesh.dns_refresh_rate);
            cluster.respect_dns_ttl = true;
            cluster.load_assignment = Some(endpoint::inline(&cluster.name, &inputs.dns, logical));
            policy::load_balancer(cluster, inputs.policy.load_balancer.as_ref());
        }
        // Names behind a wildcard are resolved when they are asked for: the client did, if it sent the traffic here.
        Resolution::Passthrough | Resolution::DynamicDns => {
            cluster.cluster_discovery_type = kind(DiscoveryType::OriginalDst);
            cluster.lb_policy = LbPolicy::ClusterProvided as i32;
        }
    }
}

/// What the proxy and its users read about where a cluster comes from.
fn metadata(inputs: &ClusterInputs) -> Struct {
    let service = &inputs.service;
    let mut fields = pb::fields([(
        "services",
        pb::list(vec![pb::nested(pb::fields([
            ("host", pb::text(&*service.hostname)),
            ("name", pb::text(&*service.name)),
            ("namespace", pb::text(&*service.namespace)),
        ]))]),
    )]);
    let mut add = |key: &str, value| fields.fields.insert(key.to_owned(), value);
    if let Some((namespace, name)) = &inputs.rule {
        add(
            "config",
            pb::text(format!("/apis/networking.istio.io/v1/namespaces/{namespace}/destination-rule/{name}")),
        );
    }
    if !inputs.subset.is_empty() {
        add("subset", pb::text(&inputs.subset));
    }
    if service.location == Location::External {
        add("external", pb::text("true"));
    }
    if inputs.policy.tls.is_some() && !mesh_tls(inputs) {
        // The ALPN filter must not offer the mesh's protocols to a server that is told nothing of them.
        add("alpn_override", pb::text("false"));
    }
    fields
}

fn mesh_tls(inputs: &ClusterInputs) -> bool {
    use mesh_api::destination_rule::ClientTlsMode;
    inputs.policy.tls.as_ref().is_some_and(|tls| tls.mode == ClientTlsMode::IstioMutual)
}
