//! Who may talk to a workload, and how: PeerAuthentication and RequestAuthentication.

mod jwt;

use mesh_api::peer_authentication::{MutualTlsMode, PeerAuthentication};
use saild_model::mesh::{is_selective, selects};
use saild_model::{Labels, Mesh};

pub(crate) use jwt::{JwtInputs, filter as jwt_filter, inputs as jwt_inputs, problems};

/// The mode of a workload's port; never `Unset`.
pub(crate) fn mode(mesh: &Mesh, namespace: &str, labels: &Labels, port: Option<u16>) -> MutualTlsMode {
    let policies = &mesh.config().peer_authentications;
    let general = |namespace: &str| {
        policies
            .in_namespace(namespace)
            .find(|o| !is_selective(o.spec.selector.as_ref()))
            .map_or(MutualTlsMode::Unset, |o| own(&o.spec))
    };
    let mut mode = MutualTlsMode::Permissive;
    let mut narrow = |next: MutualTlsMode| {
        if next != MutualTlsMode::Unset {
            mode = next;
        }
    };
    narrow(general(mesh.root_namespace()));
    if namespace != mesh.root_namespace() {
        narrow(general(namespace));
    }
    let workload = policies.in_namespace(namespace).find(|o| {
        let selector = o.spec.selector.as_ref();
        is_selective(selector) && selects(selector, labels)
    });
    if let Some(policy) = workload {
        narrow(own(&policy.spec));
        if let Some(port) = port.and_then(|port| policy.spec.port_level_mtls.get(&port)) {
            narrow(port.mode);
        }
    }
    mode
}

fn own(policy: &PeerAuthentication) -> MutualTlsMode {
    policy.mtls.as_ref().map(|mtls| mtls.mode).unwrap_or_default()
}

/// Whether a workload's port refuses mutual TLS.
pub(crate) fn disabled(mesh: &Mesh, namespace: &str, labels: &Labels, port: u16) -> bool {
    any_disabled(mesh) && mode(mesh, namespace, labels, Some(port)) == MutualTlsMode::Disable
}

/// Whether any policy refuses mutual TLS anywhere: most meshes have none, and need not look at each endpoint.
pub(crate) fn any_disabled(mesh: &Mesh) -> bool {
    mesh.config().peer_authentications.all().iter().any(|o| {
        own(&o.spec) == MutualTlsMode::Disable
            || o.spec.port_level_mtls.values().any(|port| port.mode == MutualTlsMode::Disable)
    })
}

/// Ports of a workload that its policy names.
pub(crate) fn ports(mesh: &Mesh, namespace: &str, labels: &Labels) -> Vec<u16> {
    let policies = mesh.config().peer_authentications.in_namespace(namespace);
    let own = policies.into_iter().find(|o| {
        let selector = o.spec.selector.as_ref();
        is_selective(selector) && selects(selector, labels)
    });
    own.map(|o| o.spec.port_level_mtls.keys().copied().collect()).unwrap_or_default()
}
