//! Names of the containers and volumes that injection adds.

/// The container of agent and proxy.
pub const PROXY: &str = "istio-proxy";
/// The init container that applies the capture rules.
pub const INIT: &str = "istio-init";
/// The init container that checks the rules which the CNI plugin applied.
pub const VALIDATION: &str = "istio-validation";
/// The init container that dumps cores where that is switched on.
pub const ENABLE_CORE_DUMP: &str = "enable-core-dump";

/// The workload's SDS socket.
pub const VOLUME_WORKLOAD_SOCKET: &str = "workload-socket";
/// The gateway's credential socket.
pub const VOLUME_CREDENTIAL_SOCKET: &str = "credential-socket";
/// Certificates that somebody else provides.
pub const VOLUME_WORKLOAD_CERTS: &str = "workload-certs";
/// The control plane's root.
pub const VOLUME_ISTIOD_CA: &str = "istiod-ca-cert";
/// Revocations by the control plane's CA.
pub const VOLUME_CA_CRL: &str = "istio-ca-crl";
/// Scratch space.
pub const VOLUME_DATA: &str = "istio-data";
/// Bootstrap and sockets, in memory.
pub const VOLUME_ENVOY: &str = "istio-envoy";
/// The projected token.
pub const VOLUME_TOKEN: &str = "istio-token";
/// Labels and annotations.
pub const VOLUME_POD_INFO: &str = "istio-podinfo";

/// The ConfigMap with the control plane's root, in every namespace.
pub const CONFIG_MAP_ROOT: &str = "istio-ca-root-cert";
/// The ConfigMap with the CA's revocations.
pub const CONFIG_MAP_CRL: &str = "istio-ca-crl";
/// The audience of the projected token.
pub const TOKEN_AUDIENCE: &str = "istio-ca";
/// The lifetime that is asked for the projected token, in seconds.
pub const TOKEN_EXPIRATION_SECONDS: i64 = 43_200;
