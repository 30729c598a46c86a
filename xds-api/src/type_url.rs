//! The type URLs of the resources that xDS carries.

/// `envoy.config.cluster.v3.Cluster` (CDS).
pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
/// `envoy.config.listener.v3.Listener` (LDS).
pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// `envoy.config.route.v3.RouteConfiguration` (RDS).
pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
/// `envoy.config.route.v3.ScopedRouteConfiguration` (SRDS).
pub const SCOPED_ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
/// `envoy.config.route.v3.VirtualHost` (VHDS).
pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
/// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// `envoy.config.core.v3.TypedExtensionConfig` (ECDS).
pub const EXTENSION_CONFIG: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// `envoy.service.runtime.v3.Runtime` (RTDS).
pub const RUNTIME: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
/// `envoy.config.bootstrap.v3.Bootstrap` (BDS).
pub const BOOTSTRAP: &str = "type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap";
/// `istio.networking.nds.v1.NameTable` (NDS): the agent's DNS.
pub const NAME_TABLE: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";
/// `istio.mesh.v1alpha1.ProxyConfig` (PCDS): trust bundles for the agent.
pub const PROXY_CONFIG: &str = "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig";
/// `istio.workload.Address`: workloads and services together.
pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
/// `istio.workload.Workload`: workloads alone.
pub const WORKLOAD: &str = "type.googleapis.com/istio.workload.Workload";
/// `istio.v1.HealthInformation`: sent by an agent to say whether its workload is healthy.
pub const HEALTH_INFORMATION: &str = "type.googleapis.com/istio.v1.HealthInformation";
/// The prefix of debug resources: the path after it is one of saild's debug pages.
pub const DEBUG_PREFIX: &str = "istio.io/debug";

/// The name of the message that a type URL stands for: what comes before its last slash is free.
pub fn message(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or_default()
}

/// `CDS` for a cluster's type URL and so on, as metrics and status pages say it; the URL itself where there is no
/// such word.
pub fn short_name(type_url: &str) -> &str {
    match type_url {
        CLUSTER => "CDS",
        ENDPOINT => "EDS",
        LISTENER => "LDS",
        ROUTE => "RDS",
        SCOPED_ROUTE => "SRDS",
        VIRTUAL_HOST => "VHDS",
        SECRET => "SDS",
        EXTENSION_CONFIG => "ECDS",
        RUNTIME => "RTDS",
        BOOTSTRAP => "BDS",
        NAME_TABLE => "NDS",
        PROXY_CONFIG => "PCDS",
        ADDRESS => "WDS",
        other => other,
    }
}
