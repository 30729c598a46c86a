//! Names of SDS resources that the agent serves.

/// The workload's own certificate and key.
pub const WORKLOAD: &str = "default";
/// The mesh's roots.
pub const ROOT: &str = "ROOTCA";
/// Prefix of a certificate from files: `file-cert:<chain>~<key>`.
pub const FILE_CERT_PREFIX: &str = "file-cert:";
/// Prefix of roots from a file: `file-root:<path>`.
pub const FILE_ROOT_PREFIX: &str = "file-root:";
/// The system's roots.
pub const FILE_ROOT_SYSTEM: &str = "file-root:system";
/// Between chain and key of [`FILE_CERT_PREFIX`].
pub const FILE_SEPARATOR: char = '~';
/// Prefix of a secret that the control plane serves to gateways.
pub const KUBERNETES_PREFIX: &str = "kubernetes://";
/// The cluster of the agent's SDS socket in the proxy's bootstrap.
pub const CLUSTER: &str = "sds-grpc";
/// The cluster of the credential socket, where there is one.
pub const EXTERNAL_CLUSTER: &str = "sds-external";
/// The cluster of the agent's xDS socket in the proxy's bootstrap.
pub const XDS_CLUSTER: &str = "xds-grpc";
