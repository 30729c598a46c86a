//! Labels of namespaces, pods and services.

/// `enabled` or `disabled`, on a namespace.
pub const INJECTION: &str = "istio-injection";
/// The revision or tag that injects, on a namespace or a pod.
pub const REVISION: &str = "istio.io/rev";
/// `true` or `false`, on a pod.
pub const INJECT: &str = "sidecar.istio.io/inject";
/// `istio` on a pod whose proxy accepts mesh mTLS.
pub const TLS_MODE: &str = "security.istio.io/tlsMode";
/// The value of [`TLS_MODE`].
pub const TLS_MODE_ISTIO: &str = "istio";
/// The service that a workload counts as in metrics.
pub const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
/// The revision of that service.
pub const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
/// The workload's name.
pub const WORKLOAD_NAME: &str = "service.istio.io/workload-name";
/// The network of a workload.
pub const NETWORK: &str = "topology.istio.io/network";
/// The cluster of a workload.
pub const CLUSTER: &str = "topology.istio.io/cluster";
/// The subzone of a node.
pub const SUBZONE: &str = "topology.istio.io/subzone";
/// The region of a node.
pub const REGION: &str = "topology.kubernetes.io/region";
/// The zone of a node.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// `region.zone.subzone`, on a pod.
pub const LOCALITY: &str = "istio-locality";
/// `http` where a workload accepts HBONE.
pub const TUNNEL: &str = "networking.istio.io/tunnel";
/// The port of a gateway between networks.
pub const GATEWAY_PORT: &str = "networking.istio.io/gatewayPort";
/// `ambient`, `sidecar` or `none`.
pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// The waypoint of a namespace, service or pod.
pub const USE_WAYPOINT: &str = "istio.io/use-waypoint";
/// Kubernetes' recommended name of an application.
pub const APP_KUBERNETES_NAME: &str = "app.kubernetes.io/name";
/// Kubernetes' recommended version of an application.
pub const APP_KUBERNETES_VERSION: &str = "app.kubernetes.io/version";
/// The older name of an application.
pub const APP: &str = "app";
/// The older version of an application.
pub const VERSION: &str = "version";
/// Reroute traffic that arrives over these interfaces (annotation or label of a virtual machine's pod).
pub const REROUTE_VIRTUAL_INTERFACES: &str = "istio.io/reroute-virtual-interfaces";
