//! What happens to outbound traffic that nobody knows the destination of.

use mesh_api::mesh_config::OutboundTrafficMode;
use saild_model::{Mesh, Scope};

use crate::naming;
use crate::route::Otherwise;

/// The Sidecar's word, else the mesh's.
pub(crate) fn otherwise(mesh: &Mesh, scope: &Scope) -> Otherwise {
    let own = scope.sidecar.as_ref().and_then(|sidecar| sidecar.spec.outbound_traffic_policy.as_ref());
    if let Some(proxy) = own.and_then(|policy| policy.egress_proxy.as_ref()) {
        let port = proxy.port.unwrap_or_default();
        return Otherwise::Proxy(naming::outbound(port, &proxy.subset, &proxy.host));
    }
    let mode = match own {
        Some(policy) => OutboundTrafficMode::from(policy.mode),
        None => mesh.settings().outbound_traffic_policy.mode,
    };
    if mode == OutboundTrafficMode::RegistryOnly { Otherwise::Block } else { Otherwise::Allow }
}

/// The cluster of connections to unknown destinations.
pub(crate) fn cluster(mesh: &Mesh, scope: &Scope) -> String {
    match otherwise(mesh, scope) {
        Otherwise::Proxy(cluster) => cluster,
        Otherwise::Allow => naming::PASSTHROUGH.to_owned(),
        Otherwise::Block | Otherwise::NotFound => naming::BLACK_HOLE.to_owned(),
    }
}
