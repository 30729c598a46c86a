//! The node: what the bootstrap and the command line say of it, and what this build can do.

use xds_api::envoy::config::core::v3::{BuildVersion, Extension, Locality, Node, node::UserAgentVersionType};
use xds_api::envoy::r#type::v3::SemanticVersion;
use xds_api::google::protobuf::{Struct, Value, value::Kind};

use crate::cli::Cli;

/// The extensions that this build has: category, name, type URLs without their prefix.
pub const EXTENSIONS: &[(&str, &str, &[&str])] = &[
    ("envoy.filters.http", "envoy.filters.http.router", &["envoy.extensions.filters.http.router.v3.Router"]),
    ("envoy.filters.http", "envoy.filters.http.rbac", &["envoy.extensions.filters.http.rbac.v3.RBAC"]),
    ("envoy.filters.http", "envoy.filters.http.cors", &["envoy.extensions.filters.http.cors.v3.Cors"]),
    ("envoy.filters.http", "envoy.filters.http.fault", &["envoy.extensions.filters.http.fault.v3.HTTPFault"]),
    (
        "envoy.filters.http",
        "envoy.filters.http.grpc_stats",
        &["envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"],
    ),
    (
        "envoy.filters.http",
        "envoy.filters.http.jwt_authn",
        &["envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"],
    ),
    ("envoy.filters.http", "istio.metadata_exchange", &["io.istio.http.peer_metadata.Config"]),
    ("envoy.filters.http", "istio.alpn", &["istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"]),
    ("envoy.filters.http", "istio.stats", &["stats.PluginConfig"]),
    (
        "envoy.filters.network",
        "envoy.filters.network.http_connection_manager",
        &["envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"],
    ),
    (
        "envoy.filters.network",
        "envoy.filters.network.tcp_proxy",
        &["envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"],
    ),
    (
        "envoy.filters.network",
        "envoy.filters.network.rbac",
        &["envoy.extensions.filters.network.rbac.v3.RBAC"],
    ),
    ("envoy.filters.network", "istio.stats", &["stats.PluginConfig"]),
    (
        "envoy.filters.network",
        "istio.metadata_exchange",
        &["envoy.tcp.metadataexchange.config.MetadataExchange"],
    ),
    (
        "envoy.filters.upstream_network",
        "istio.metadata_exchange",
        &["envoy.tcp.metadataexchange.config.MetadataExchange"],
    ),
    (
        "envoy.filters.listener",
        "envoy.filters.listener.original_dst",
        &["envoy.extensions.filters.listener.original_dst.v3.OriginalDst"],
    ),
    (
        "envoy.filters.listener",
        "envoy.filters.listener.tls_inspector",
        &["envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"],
    ),
    (
        "envoy.filters.listener",
        "envoy.filters.listener.http_inspector",
        &["envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"],
    ),
    (
        "envoy.filters.listener",
        "envoy.filters.listener.proxy_protocol",
        &["envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"],
    ),
    (
        "envoy.transport_sockets.downstream",
        "envoy.transport_sockets.tls",
        &["envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"],
    ),
    (
        "envoy.transport_sockets.downstream",
        "envoy.transport_sockets.raw_buffer",
        &["envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"],
    ),
    (
        "envoy.transport_sockets.upstream",
        "envoy.transport_sockets.tls",
        &["envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"],
    ),
    (
        "envoy.transport_sockets.upstream",
        "envoy.transport_sockets.raw_buffer",
        &["envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"],
    ),
    (
        "envoy.access_loggers",
        "envoy.access_loggers.file",
        &["envoy.extensions.access_loggers.file.v3.FileAccessLog"],
    ),
    (
        "envoy.access_loggers",
        "envoy.access_loggers.stdout",
        &["envoy.extensions.access_loggers.stream.v3.StdoutAccessLog"],
    ),
    (
        "envoy.access_loggers",
        "envoy.access_loggers.stderr",
        &["envoy.extensions.access_loggers.stream.v3.StderrAccessLog"],
    ),
    ("envoy.tracers", "envoy.tracers.zipkin", &["envoy.config.trace.v3.ZipkinConfig"]),
    ("envoy.tracers", "envoy.tracers.opentelemetry", &["envoy.config.trace.v3.OpenTelemetryConfig"]),
    (
        "envoy.upstream_options",
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        &["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"],
    ),
    (
        "envoy.request_id",
        "envoy.request_id.uuid",
        &["envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"],
    ),
];

/// The bootstrap's node with the command line's words over it and this build's description.
pub fn complete(node: Option<Node>, cli: &Cli) -> Node {
    let mut node = node.unwrap_or_default();
    if let Some(id) = &cli.service_node {
        node.id.clone_from(id);
    }
    if let Some(cluster) = &cli.service_cluster {
        node.cluster.clone_from(cluster);
    }
    if let Some(zone) = &cli.service_zone {
        node.locality.get_or_insert_with(Locality::default).zone.clone_from(zone);
    }
    node.user_agent_name = "envoy".to_owned();
    node.user_agent_version_type = Some(UserAgentVersionType::UserAgentBuildVersion(build_version()));
    node.extensions = EXTENSIONS
        .iter()
        .map(|(category, name, types)| Extension {
            name: (*name).to_owned(),
            category: (*category).to_owned(),
            type_urls: types.iter().map(|name| format!("type.googleapis.com/{name}")).collect(),
            ..Extension::default()
        })
        .collect();
    node.client_features = ["envoy.lb.does_not_support_overprovisioning", "xds.config.resource-in-sotw"]
        .map(str::to_owned)
        .to_vec();
    node
}

/// Control planes compare this with Envoy's releases: it is the Envoy whose configuration this build runs.
fn build_version() -> BuildVersion {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.to_owned())) };
    let mut metadata = Struct::default();
    metadata.fields.insert("build.label".to_owned(), text(concat!("sail-proxy/", env!("CARGO_PKG_VERSION"))));
    metadata.fields.insert("build.type".to_owned(), text("RELEASE"));
    metadata.fields.insert("revision.status".to_owned(), text("Clean"));
    metadata.fields.insert("ssl.version".to_owned(), text("rustls"));
    BuildVersion {
        version: Some(SemanticVersion { major_number: 1, minor_number: 36, patch: 0 }),
        metadata: Some(metadata),
    }
}
