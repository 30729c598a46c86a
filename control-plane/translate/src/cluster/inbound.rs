//! The cluster that leads from a sidecar to a port of its own workload.

use std::sync::Arc;
use std::time::Duration;

use mesh_api::destination_rule::ConnectionPool;
use mesh_api::mesh_config::InboundTrafficMode;
use saild_model::{Mesh, Protocol, ProxyView};
use xds_api::envoy::config::cluster::v3 as cds;
use xds_api::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::config::endpoint::v3 as eds;

use super::{MeshDefaults, policy, transport};
use crate::workload::Inbound;
use crate::{naming, pb};

/// What an inbound cluster is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InboundClusterInputs {
    /// The workload's port.
    pub port: u16,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where connections go.
    pub target: InboundTarget,
    /// `connectTimeout`.
    pub connect_timeout: Duration,
    /// Limits, from the Sidecar.
    pub connection_pool: Option<ConnectionPool>,
    /// Host name, name and namespace of the services on this port.
    pub services: Vec<(Arc<str>, Arc<str>, Arc<str>)>,
}

/// Where an inbound cluster leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InboundTarget {
    /// To the address that the client meant, from 127.0.0.6: the source tells the capture rules to let it pass.
    Original,
    /// To an address and port.
    Address(String, u16),
    /// To a Unix socket.
    Unix(String),
}

/// The inputs of each inbound port.
pub(super) fn inputs(
    mesh: &Mesh,
    proxy: &ProxyView,
    inbound: &Inbound,
    defaults: &MeshDefaults,
) -> Vec<InboundClusterInputs> {
    let localhost = mesh.settings().inbound_traffic_policy.mode == InboundTrafficMode::Localhost;
    let captured = proxy.interception_mode != saild_model::InterceptionMode::None;
    inbound
        .ports
        .iter()
        .map(|port| InboundClusterInputs {
            port: port.number,
            protocol: port.protocol,
            target: match port.endpoint.as_deref() {
                Some(endpoint) => target(endpoint, proxy),
                None if localhost || !captured => InboundTarget::Address("127.0.0.1".to_owned(), port.number),
                None => InboundTarget::Original,
            },
            connect_timeout: defaults.connect_timeout,
            connection_pool: port.connection_pool.clone(),
            services: port
                .services
                .iter()
                .map(|s| (s.hostname.clone(), s.name.clone(), s.namespace.clone()))
                .collect(),
        })
        .collect()
}

/// Reads `defaultEndpoint`. `0.0.0.0` and `[::]` mean the workload's own address.
fn target(endpoint: &str, proxy: &ProxyView) -> InboundTarget {
    if let Some(path) = endpoint.strip_prefix("unix://") {
        return InboundTarget::Unix(path.to_owned());
    }
    let (host, port) = endpoint.rsplit_once(':').unwrap_or((endpoint, "0"));
    let port = port.parse().unwrap_or_default();
    let own = |v6: bool| proxy.addresses.iter().find(|ip| ip.is_ipv6() == v6).map(ToString::to_string);
    let host = match host {
        "0.0.0.0" => own(false).unwrap_or_else(|| "127.0.0.1".to_owned()),
        "[::]" => own(true).unwrap_or_else(|| "::1".to_owned()),
        other => other.trim_matches(['[', ']']).to_owned(),
    };
    InboundTarget::Address(host, port)
}

/// The source of connections to the own workload.
pub(super) fn bind() -> core::BindConfig {
    core::BindConfig {
        source_address: Some(pb::socket("127.0.0.6", 0)),
        extra_source_addresses: vec![core::ExtraSourceAddress {
            address: Some(pb::socket("::6", 0)),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The cluster of these inputs.
pub fn inbound(inputs: &InboundClusterInputs) -> cds::Cluster {
    let kind = match inputs.target {
        InboundTarget::Original => DiscoveryType::OriginalDst,
        InboundTarget::Address(..) | InboundTarget::Unix(_) => DiscoveryType::Static,
    };
    let services = inputs.services.iter().map(|(host, name, namespace)| {
        pb::nested(pb::fields([
            ("host", pb::text(&**host)),
            ("name", pb::text(&**name)),
            ("namespace", pb::text(&**namespace)),
        ]))
    });
    let mut cluster = cds::Cluster {
        name: naming::inbound(inputs.port),
        connect_timeout: pb::duration(inputs.connect_timeout),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind as i32)),
        metadata: Some(pb::metadata("istio", pb::fields([("services", pb::list(services.collect()))]))),
        common_lb_config: Some(Default::default()),
        ..Default::default()
    };
    let address = match &inputs.target {
        InboundTarget::Original => {
            cluster.lb_policy = LbPolicy::ClusterProvided as i32;
            cluster.upstream_bind_config = Some(bind());
            None
        }
        InboundTarget::Address(host, port) => pb::address(host, *port),
        InboundTarget::Unix(path) => pb::pipe(path),
    };
    if let Some(address) = address {
        cluster.load_assignment = Some(assignment(&cluster.name, address));
    }
    policy::connection_pool(&mut cluster, inputs.connection_pool.as_ref(), None, None);
    if inputs.protocol.is_http2() {
        transport::http2(&mut cluster);
    } else if inputs.protocol.is_auto() {
        transport::use_downstream_protocol(&mut cluster, None);
    }
    cluster
}

fn assignment(name: &str, address: core::Address) -> eds::ClusterLoadAssignment {
    let endpoint = eds::Endpoint { address: Some(address), ..Default::default() };
    eds::ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![eds::LocalityLbEndpoints {
            lb_endpoints: vec![eds::LbEndpoint {
                host_identifier: Some(eds::lb_endpoint::HostIdentifier::Endpoint(endpoint)),
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..Default::default()
    }
}
