//! Why a pod cannot be injected.

/// The error, in words for whoever applies the pod.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An annotation cannot be used.
    #[error("annotation {name}: {value:?} is not {expected}")]
    Annotation {
        /// Which.
        name: String,
        /// As written.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The proxy's configuration in the pod's annotation is wrong.
    #[error("annotation proxy.istio.io/config")]
    ProxyConfig(#[from] mesh_api::mesh_config::MeshConfigError),
    /// The injector's own configuration is wrong.
    #[error("ConfigMap istio-sidecar-injector, key config")]
    InjectorConfig(#[source] mesh_api::mesh_config::MeshConfigError),
    /// A template that does not exist.
    #[error("annotation inject.istio.io/templates: {0:?} is not supported: use sidecar or gateway")]
    Template(String),
    /// A probe's port is not among the container's.
    #[error("container {container}: the {probe} probe's port {port:?} is none of its ports")]
    ProbePort {
        /// The container.
        container: String,
        /// The probe.
        probe: &'static str,
        /// The port as written.
        port: String,
    },
    /// The installation's values are wrong.
    #[error("injection values")]
    Values(#[from] serde_norway::Error),
    /// Something made could not be written down.
    #[error("{what}")]
    Json {
        /// What.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}
