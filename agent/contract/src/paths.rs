//! Files, directories and HTTP paths. File paths are relative to the agent's working directory, which is `/` in a
//! container; so several agents run on one machine, each in a directory of its own.

/// Where the bootstrap file and the agent's xDS socket lie.
pub const CONFIG: &str = "./etc/istio/proxy";
/// The agent's xDS socket, below the configuration directory.
pub const XDS_SOCKET: &str = "XDS";
/// The mesh configuration, if it is mounted.
pub const MESH_CONFIG: &str = "./etc/istio/config/mesh";
/// Labels and annotations of the pod, from the downward API.
pub const POD_INFO: &str = "./etc/istio/pod";
/// The file of labels below [`POD_INFO`].
pub const POD_LABELS: &str = "./etc/istio/pod/labels";
/// The file of annotations below [`POD_INFO`].
pub const POD_ANNOTATIONS: &str = "./etc/istio/pod/annotations";
/// A custom bootstrap, merged over the generated one.
pub const CUSTOM_BOOTSTRAP: &str = "./etc/istio/custom-bootstrap/custom_bootstrap.json";
/// The directory of the root certificate of the control plane.
pub const ISTIOD_CA_DIR: &str = "./var/run/secrets/istio";
/// The root certificate of the control plane.
pub const ISTIOD_ROOT_CERT: &str = "./var/run/secrets/istio/root-cert.pem";
/// The directory of the service-account token.
pub const TOKEN_DIR: &str = "./var/run/secrets/tokens";
/// The service-account token with the audience `istio-ca`.
pub const TOKEN: &str = "./var/run/secrets/tokens/istio-token";
/// The directory of the workload's SDS socket.
pub const WORKLOAD_SOCKET_DIR: &str = "./var/run/secrets/workload-spiffe-uds";
/// The workload's SDS socket. One that is there already (SPIRE's) is used.
pub const WORKLOAD_SOCKET: &str = "./var/run/secrets/workload-spiffe-uds/socket";
/// Certificates that somebody else provides: `cert-chain.pem`, `key.pem`, `root-cert.pem` in this directory.
pub const WORKLOAD_CREDENTIALS: &str = "./var/run/secrets/workload-spiffe-credentials";
/// The socket from which gateways get the secrets named by their `credentialName`, where one is provided.
pub const CREDENTIAL_SOCKET: &str = "./var/run/secrets/credential-uds/socket";
/// The directory of [`CREDENTIAL_SOCKET`].
pub const CREDENTIAL_SOCKET_DIR: &str = "./var/run/secrets/credential-uds";
/// Certificates that are mounted when `FILE_MOUNTED_CERTS` is set.
pub const FILE_MOUNTED_CERTS: &str = "./etc/certs";
/// Scratch space of the agent.
pub const DATA: &str = "./var/lib/istio/data";

/// File name of a certificate chain.
pub const CERT_CHAIN: &str = "cert-chain.pem";
/// File name of a private key.
pub const KEY: &str = "key.pem";
/// File name of roots.
pub const ROOT_CERT: &str = "root-cert.pem";

/// Readiness, on the status port and, through the proxy, on the health port.
pub const READY: &str = "/healthz/ready";
/// The agent's and, merged, the proxy's and the application's metrics.
pub const METRICS: &str = "/metrics";
/// The same; what Prometheus is told to scrape.
pub const STATS_PROMETHEUS: &str = "/stats/prometheus";
/// Ends proxy and agent at once.
pub const QUIT: &str = "/quitquitquit";
/// Begins to drain.
pub const DRAIN: &str = "/drain";
/// The prefix of rewritten probes.
pub const APP_HEALTH: &str = "/app-health/";
/// The prefix of rewritten lifecycle hooks.
pub const APP_LIFECYCLE: &str = "/app-lifecycle/";
/// The name table that the agent's DNS answers from.
pub const DEBUG_NDS: &str = "/debug/ndsz";
