//! The clusters that every proxy has: pass on, drop, and inbound without a service.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use saild_model::{Mesh, ProxyType, ProxyView};
use xds_api::any::pack;
use xds_api::envoy::config::cluster::v3 as cds;
use xds_api::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};

use super::{inbound, policy, transport};
use crate::cache::version_of;
use crate::resource::NamedResource;
use crate::{naming, pb};

pub(super) fn clusters(mesh: &Mesh, proxy: &ProxyView) -> Vec<Arc<NamedResource>> {
    let timeout = mesh.settings().connect_timeout;
    let mut all = vec![black_hole(timeout)];
    if proxy.kind == ProxyType::Sidecar {
        all.push(passthrough(timeout));
        all.push(inbound_passthrough(timeout));
    }
    all.into_iter().map(resource).collect()
}

fn resource(cluster: cds::Cluster) -> Arc<NamedResource> {
    // Their maps have one entry at most: equal clusters have equal bytes.
    let version = version_of(&cluster.encode_to_vec());
    Arc::new(NamedResource { name: cluster.name.as_str().into(), version, any: pack(&cluster) })
}

fn base(name: &str, kind: DiscoveryType, timeout: Duration) -> cds::Cluster {
    cds::Cluster {
        name: name.to_owned(),
        connect_timeout: pb::duration(timeout),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(kind as i32)),
        ..Default::default()
    }
}

fn black_hole(timeout: Duration) -> cds::Cluster {
    base(naming::BLACK_HOLE, DiscoveryType::Static, timeout)
}

fn passthrough(timeout: Duration) -> cds::Cluster {
    let mut cluster = base(naming::PASSTHROUGH, DiscoveryType::OriginalDst, timeout);
    cluster.lb_policy = LbPolicy::ClusterProvided as i32;
    policy::connection_pool(&mut cluster, None, None, None);
    transport::use_downstream_protocol(&mut cluster, Some(Duration::from_secs(300)));
    cluster
}

fn inbound_passthrough(timeout: Duration) -> cds::Cluster {
    let mut cluster = base(naming::INBOUND_PASSTHROUGH, DiscoveryType::OriginalDst, timeout);
    cluster.lb_policy = LbPolicy::ClusterProvided as i32;
    cluster.upstream_bind_config = Some(inbound::bind());
    policy::connection_pool(&mut cluster, None, None, None);
    transport::use_downstream_protocol(&mut cluster, None);
    cluster
}
