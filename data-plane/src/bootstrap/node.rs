//! The node: what the bootstrap and the command line say of it, and what this build can do.

use xds_api::envoy::config::core::v3::{BuildVersion, Extension, Locality, Node, node::UserAgentVersionType};
use xds_api::envoy::r#type::v3::SemanticVersion;
use xds_api::google::protobuf::{Struct, Value, value::Kind};

use crate::cli::Cli;

/// Extensions that stand in no table of the configuration's: category, name, type without its prefix.
const OTHERS: &[(&str, &str, &str)] = &[
    (
        "envoy.filters.upstream_network",
        "istio.metadata_exchange",
        "envoy.tcp.metadataexchange.config.MetadataExchange",
    ),
    (
        "envoy.access_loggers",
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    ),
    (
        "envoy.access_loggers",
        "envoy.access_loggers.stdout",
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    ),
    (
        "envoy.access_loggers",
        "envoy.access_loggers.stderr",
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
    ),
    ("envoy.tracers", "envoy.tracers.zipkin", "envoy.config.trace.v3.ZipkinConfig"),
    ("envoy.tracers", "envoy.tracers.opentelemetry", "envoy.config.trace.v3.OpenTelemetryConfig"),
    (
        "envoy.resource_monitors",
        "envoy.resource_monitors.fixed_heap",
        "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
    ),
    (
        "envoy.resource_monitors",
        "envoy.resource_monitors.global_downstream_max_connections",
        "envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
    ),
    (
        "envoy.upstream_options",
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    ),
    ("envoy.request_id", "envoy.request_id.uuid", "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig"),
];

/// The extensions that this build has: category, name, type. What the configuration takes is what is announced: both
/// are read off the same tables.
pub fn extensions() -> impl Iterator<Item = (&'static str, String, &'static str)> {
    use sail_proxy_config::{http_filter, listener, network_filter, tls};
    let tables = [
        ("envoy.filters.http", http_filter::known().collect::<Vec<_>>()),
        ("envoy.filters.network", network_filter::KNOWN.to_vec()),
        ("envoy.filters.listener", listener::KNOWN.to_vec()),
        ("envoy.transport_sockets.downstream", tls::KNOWN_DOWNSTREAM.to_vec()),
        ("envoy.transport_sockets.upstream", tls::KNOWN_UPSTREAM.to_vec()),
    ];
    let known = tables.into_iter().flat_map(|(category, types)| {
        let types = types.into_iter().filter(|name| cfg!(feature = "wasm") || !name.contains(".wasm."));
        types.map(move |name| (category, extension_name(category, name), name))
    });
    known.chain(OTHERS.iter().map(|(category, name, of)| (*category, (*name).to_owned(), *of)))
}

/// The name under which Envoy registers an extension with this configuration:
/// `envoy.extensions.filters.http.rbac.v3.RBAC` is `envoy.filters.http.rbac`.
fn extension_name(category: &str, of: &str) -> String {
    match of {
        "stats.PluginConfig" => return "istio.stats".to_owned(),
        "io.istio.http.peer_metadata.Config" | "envoy.tcp.metadataexchange.config.MetadataExchange" => {
            return "istio.metadata_exchange".to_owned();
        }
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig" => return "istio.alpn".to_owned(),
        _ => {}
    }
    // The folder before the version.
    let folder = of.rsplit('.').nth(2).unwrap_or(of);
    let (family, upstream) = match category {
        "envoy.transport_sockets.downstream" => ("envoy.transport_sockets", false),
        "envoy.transport_sockets.upstream" => ("envoy.transport_sockets", true),
        other => (other, false),
    };
    match folder {
        "proxy_protocol" if upstream => format!("{family}.upstream_proxy_protocol"),
        _ => format!("{family}.{folder}"),
    }
}

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
    node.extensions = extensions()
        .map(|(category, name, of)| Extension {
            name,
            category: category.to_owned(),
            type_urls: vec![format!("type.googleapis.com/{of}")],
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_control_planes_look_for() {
        let all: Vec<_> = extensions().collect();
        for (category, name) in [
            ("envoy.filters.http", "envoy.filters.http.router"),
            ("envoy.filters.http", "istio.stats"),
            ("envoy.filters.http", "istio.alpn"),
            ("envoy.filters.http", "istio.metadata_exchange"),
            ("envoy.filters.network", "istio.metadata_exchange"),
            ("envoy.filters.network", "envoy.filters.network.tcp_proxy"),
            ("envoy.filters.listener", "envoy.filters.listener.proxy_protocol"),
            ("envoy.transport_sockets.downstream", "envoy.transport_sockets.tls"),
            ("envoy.transport_sockets.upstream", "envoy.transport_sockets.upstream_proxy_protocol"),
            ("envoy.transport_sockets.upstream", "envoy.transport_sockets.internal_upstream"),
        ] {
            assert!(all.iter().any(|(of, known, _)| *of == category && *known == name), "{category} {name}");
        }
    }
}
