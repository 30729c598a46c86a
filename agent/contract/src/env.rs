//! Environment variables that the agent reads: one table.

/// One variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnvVar {
    /// Its name.
    pub name: &'static str,
    /// What holds when it is not set.
    pub default: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

macro_rules! variables {
    ($($ident:ident = $name:literal, $default:literal, $doc:literal;)+) => {
        $(#[doc = $doc] pub const $ident: EnvVar =
            EnvVar { name: $name, default: $default, doc: $doc };)+
        /// All of them.
        pub const ALL: &[EnvVar] = &[$($ident),+];
    };
}

variables! {
    PILOT_CERT_PROVIDER = "PILOT_CERT_PROVIDER", "istiod", "Who signs the control plane's own certificate: istiod, kubernetes, custom, none.";
    CA_ADDR = "CA_ADDR", "", "The certificate authority's address; the discovery address when empty.";
    CA_PROVIDER = "CA_PROVIDER", "Citadel", "Which kind of certificate authority CA_ADDR is.";
    CA_ROOT_CA = "CA_ROOT_CA", "", "Root of the certificate authority's server certificate; SYSTEM for the system's roots.";
    XDS_ROOT_CA = "XDS_ROOT_CA", "", "Root of the discovery server's certificate; SYSTEM for the system's roots.";
    PROV_CERT = "PROV_CERT", "", "Directory of a certificate that authenticates the agent in place of a token.";
    OUTPUT_CERTS = "OUTPUT_CERTS", "", "Directory to which certificate, key and roots are written as well.";
    FILE_MOUNTED_CERTS = "FILE_MOUNTED_CERTS", "false", "Whether the certificates lie in ./etc/certs.";
    TRUST_DOMAIN = "TRUST_DOMAIN", "cluster.local", "The trust domain of the workload's identity.";
    ISTIOD_SAN = "ISTIOD_SAN", "", "The name that the discovery server's certificate must bear, where it differs from the address.";
    POD_NAME = "POD_NAME", "", "The pod.";
    POD_NAMESPACE = "POD_NAMESPACE", "", "The pod's namespace.";
    INSTANCE_IP = "INSTANCE_IP", "", "The pod's address.";
    HOST_IP = "HOST_IP", "", "The node's address.";
    SERVICE_ACCOUNT = "SERVICE_ACCOUNT", "default", "The pod's service account.";
    ISTIO_CPU_LIMIT = "ISTIO_CPU_LIMIT", "", "CPU limit of the container, which bounds the proxy's workers.";
    PROXY_CONFIG = "PROXY_CONFIG", "", "ProxyConfig as JSON or YAML.";
    SECRET_TTL = "SECRET_TTL", "24h0m0s", "The lifetime that is asked for the certificate.";
    SECRET_GRACE_PERIOD_RATIO = "SECRET_GRACE_PERIOD_RATIO", "0.5", "The share of the lifetime that remains when a certificate is renewed.";
    SECRET_GRACE_PERIOD_RATIO_JITTER = "SECRET_GRACE_PERIOD_RATIO_JITTER", "0.01", "How far that share may be off, at random.";
    ECC_SIGNATURE_ALGORITHM = "ECC_SIGNATURE_ALGORITHM", "ECDSA", "ECDSA, or empty for RSA.";
    ECC_CURVE = "ECC_CURVE", "P256", "P256 or P384.";
    WORKLOAD_RSA_KEY_SIZE = "WORKLOAD_RSA_KEY_SIZE", "2048", "Bits of an RSA key.";
    WORKLOAD_IDENTITY_SOCKET_FILE = "WORKLOAD_IDENTITY_SOCKET_FILE", "socket", "File name of the workload's SDS socket.";
    ISTIO_KUBE_APP_PROBERS = "ISTIO_KUBE_APP_PROBERS", "", "The application's own probes, as JSON.";
    ISTIO_PROMETHEUS_ANNOTATIONS = "ISTIO_PROMETHEUS_ANNOTATIONS", "", "The application's own Prometheus annotations, as JSON.";
    ISTIO_BOOTSTRAP_OVERRIDE = "ISTIO_BOOTSTRAP_OVERRIDE", "", "A bootstrap file that is merged over the generated one.";
    ISTIO_BOOTSTRAP = "ISTIO_BOOTSTRAP", "", "A bootstrap template; not supported: the generated one can be overridden.";
    ENVOY_STATUS_PORT = "ENVOY_STATUS_PORT", "15021", "The proxy's health listener.";
    ENVOY_PROMETHEUS_PORT = "ENVOY_PROMETHEUS_PORT", "15090", "The proxy's Prometheus listener.";
    DISABLE_ENVOY = "DISABLE_ENVOY", "false", "Run the agent without a proxy.";
    PROXY_XDS_VIA_AGENT = "PROXY_XDS_VIA_AGENT", "true", "Kept for compatibility: xDS always goes through the agent.";
    ISTIO_DELTA_XDS = "ISTIO_DELTA_XDS", "true", "Whether the proxy speaks delta xDS.";
    XDS_AUTH_PROVIDER = "XDS_AUTH_PROVIDER", "", "Where the token for xDS comes from.";
    CREDENTIAL_FETCHER_TYPE = "CREDENTIAL_FETCHER_TYPE", "JWT", "Where credentials come from; JWT reads the token file.";
    GRPC_XDS_BOOTSTRAP = "GRPC_XDS_BOOTSTRAP", "", "Where to write a bootstrap for gRPC clients that speak xDS themselves.";
    DNS_PROXY_ADDR = "DNS_PROXY_ADDR", "localhost:15053", "Where the agent's DNS server listens.";
    DNS_FORWARD_PARALLEL = "DNS_FORWARD_PARALLEL", "false", "Whether upstream DNS servers are asked at once.";
    ISTIO_META_DNS_CAPTURE = "ISTIO_META_DNS_CAPTURE", "", "Whether DNS queries are captured; switches the agent's DNS server on.";
    EXIT_ON_ZERO_ACTIVE_CONNECTIONS = "EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "false", "Whether a draining proxy ends as soon as no connection is active.";
    MINIMUM_DRAIN_DURATION = "MINIMUM_DRAIN_DURATION", "5s", "How long such a drain takes at least.";
    PEER_METADATA_DISCOVERY = "PEER_METADATA_DISCOVERY", "", "Whether the proxy learns of peers by workload discovery.";
    ISTIO_META_CLUSTER_ID = "ISTIO_META_CLUSTER_ID", "Kubernetes", "The cluster.";
    ISTIO_META_NODE_NAME = "ISTIO_META_NODE_NAME", "", "The node.";
    ISTIO_META_POD_PORTS = "ISTIO_META_POD_PORTS", "", "The application's ports, as JSON.";
    ISTIO_META_APP_CONTAINERS = "ISTIO_META_APP_CONTAINERS", "", "The application's containers, separated by commas.";
    ISTIO_META_INTERCEPTION_MODE = "ISTIO_META_INTERCEPTION_MODE", "REDIRECT", "REDIRECT, TPROXY or NONE.";
    ISTIO_META_NETWORK = "ISTIO_META_NETWORK", "", "The pod's network.";
    ISTIO_META_WORKLOAD_NAME = "ISTIO_META_WORKLOAD_NAME", "", "The workload.";
    ISTIO_META_OWNER = "ISTIO_META_OWNER", "", "The object that owns the pod.";
    ISTIO_META_MESH_ID = "ISTIO_META_MESH_ID", "", "The mesh.";
    CLOUD_PLATFORM = "CLOUD_PLATFORM", "", "Kept for compatibility.";
    GOMEMLIMIT = "GOMEMLIMIT", "", "Kept for compatibility with manifests of Istio.";
    INVALID_DROP = "INVALID_DROP", "false", "Capture: drop packets of connections that conntrack calls invalid.";
    ISTIO_OUTBOUND_OWNER_GROUPS = "ISTIO_OUTBOUND_OWNER_GROUPS", "*", "Capture: groups whose outbound traffic is captured.";
    ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE = "ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "", "Capture: groups whose outbound traffic is not.";
}

/// What begins with this becomes node metadata, without the prefix.
pub const META_PREFIX: &str = "ISTIO_META_";
/// As [`META_PREFIX`], with a value that is JSON.
pub const META_JSON_PREFIX: &str = "ISTIO_METAJSON_";
/// What begins with this becomes a header of xDS streams.
pub const XDS_HEADER_PREFIX: &str = "XDS_HEADER_";
/// What begins with this becomes a header of certificate requests.
pub const CA_HEADER_PREFIX: &str = "CA_HEADER_";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_variable_stands_once() {
        let names: BTreeSet<_> = ALL.iter().map(|var| var.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(ALL.iter().all(|var| !var.doc.is_empty()));
    }
}
