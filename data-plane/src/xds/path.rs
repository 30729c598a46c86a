//! gRPC paths of the discovery services.

use xds_api::type_url;
use xds_stream::client::Protocol;
use xds_stream::wire;

/// The path for one type's own service, or the aggregated one's.
pub fn service_path(type_url: Option<&str>, protocol: Protocol) -> Option<String> {
    let Some(type_url) = type_url else {
        return Some(match protocol {
            Protocol::Delta => wire::DELTA_PATH.to_owned(),
            Protocol::Sotw => wire::SOTW_PATH.to_owned(),
        });
    };
    let (service, noun) = match type_url {
        type_url::CLUSTER => ("cluster.v3.ClusterDiscoveryService", "Clusters"),
        type_url::ENDPOINT => ("endpoint.v3.EndpointDiscoveryService", "Endpoints"),
        type_url::LISTENER => ("listener.v3.ListenerDiscoveryService", "Listeners"),
        type_url::ROUTE => ("route.v3.RouteDiscoveryService", "Routes"),
        type_url::SCOPED_ROUTE => ("route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes"),
        type_url::SECRET => ("secret.v3.SecretDiscoveryService", "Secrets"),
        type_url::EXTENSION_CONFIG => ("extension.v3.ExtensionConfigDiscoveryService", "ExtensionConfigs"),
        _ => return None,
    };
    let verb = match protocol {
        Protocol::Delta => "Delta",
        Protocol::Sotw => "Stream",
    };
    Some(format!("/envoy.service.{service}/{verb}{noun}"))
}
