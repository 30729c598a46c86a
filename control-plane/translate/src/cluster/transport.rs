//! How connections of a cluster are secured, and which HTTP version they speak.

use mesh_api::destination_rule::{ClientTls, ClientTlsMode, H2UpgradePolicy, ProxyProtocolVersion};
use xds_api::any::pack;
use xds_api::envoy::config::cluster::v3 as cds;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use xds_api::envoy::extensions::transport_sockets::tls::v3 as tls;
use xds_api::envoy::extensions::upstreams::http::v3 as http;

use super::{AutoTls, ClusterInputs};
use crate::tls::{ALPN_EXCHANGE, ALPN_ISTIO, TLS};
use crate::{naming, pb};

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const RAW_BUFFER: &str = "envoy.transport_sockets.raw_buffer";

/// Which HTTP version is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// HTTP/1.1.
    One,
    /// HTTP/2.
    Two,
    /// That of the client.
    Downstream,
}

pub(super) fn version(inputs: &ClusterInputs) -> Version {
    let protocol = inputs.port.protocol;
    if protocol.is_http2() {
        return Version::Two;
    }
    let settings = inputs.policy.http();
    if protocol.is_auto() || settings.is_some_and(|s| s.use_client_protocol) {
        return Version::Downstream;
    }
    let upgrade = match settings.map(|s| s.h2_upgrade_policy).unwrap_or_default() {
        H2UpgradePolicy::Default => inputs.mesh.h2_upgrade,
        H2UpgradePolicy::DoNotUpgrade => false,
        H2UpgradePolicy::Upgrade => true,
    };
    if upgrade && protocol.is_http() { Version::Two } else { Version::One }
}

/// Writes the HTTP options, where they differ from Envoy's own.
pub(super) fn http_options(cluster: &mut cds::Cluster, inputs: &ClusterInputs) {
    let version = version(inputs);
    let settings = inputs.policy.http();
    let max_duration =
        inputs.policy.connection_pool.as_ref().and_then(|p| p.tcp.as_ref()?.max_connection_duration);
    let common = core::HttpProtocolOptions {
        idle_timeout: settings.and_then(|s| s.idle_timeout).and_then(pb::duration),
        max_connection_duration: max_duration.and_then(pb::duration),
        max_requests_per_connection: settings
            .map(|s| s.max_requests_per_connection)
            .filter(|n| *n > 0)
            .and_then(pb::u32v),
        ..Default::default()
    };
    let external_tls = inputs.policy.tls.as_ref().filter(|t| is_external(t));
    let upstream = external_tls.map(|tls| core::UpstreamHttpProtocolOptions {
        auto_sni: tls.sni.is_empty(),
        auto_san_validation: tls.sni.is_empty()
            && tls.subject_alt_names.is_empty()
            && inputs.sans.is_empty()
            && tls.insecure_skip_verify != Some(true),
        ..Default::default()
    });
    let speaks_http = inputs.port.protocol.is_http() || inputs.port.protocol.is_auto();
    let upstream = upstream.filter(|u| speaks_http && u.auto_sni);
    if version == Version::One && common == core::HttpProtocolOptions::default() && upstream.is_none() {
        return;
    }
    let two = || core::Http2ProtocolOptions {
        max_concurrent_streams: settings
            .map(|s| s.max_concurrent_streams)
            .filter(|n| *n > 0)
            .and_then(pb::u32v),
        connection_keepalive: settings.and_then(|s| s.http2_keep_alive.as_ref()).map(|k| {
            core::KeepaliveSettings {
                interval: k.interval.and_then(pb::duration),
                timeout: k.timeout.and_then(pb::duration),
                ..Default::default()
            }
        }),
        ..Default::default()
    };
    use http::http_protocol_options::explicit_http_config::ProtocolConfig;
    use http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig};
    let explicit = |config| {
        UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
    };
    let options = match version {
        Version::One => explicit(ProtocolConfig::HttpProtocolOptions(Default::default())),
        Version::Two => explicit(ProtocolConfig::Http2ProtocolOptions(two())),
        Version::Downstream => {
            UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
                http_protocol_options: Some(Default::default()),
                http2_protocol_options: Some(two()),
                ..Default::default()
            })
        }
    };
    let config = http::HttpProtocolOptions {
        common_http_protocol_options: (common != Default::default()).then_some(common),
        upstream_http_protocol_options: upstream,
        upstream_protocol_options: Some(options),
        ..Default::default()
    };
    cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), pack(&config));
}

/// The HTTP options of a cluster that speaks what its client speaks.
pub(super) fn use_downstream_protocol(cluster: &mut cds::Cluster, idle: Option<std::time::Duration>) {
    use http::http_protocol_options::{UpstreamProtocolOptions, UseDownstreamHttpConfig};
    let config = http::HttpProtocolOptions {
        common_http_protocol_options: idle
            .map(|idle| core::HttpProtocolOptions { idle_timeout: pb::duration(idle), ..Default::default() }),
        upstream_protocol_options: Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(
            UseDownstreamHttpConfig {
                http_protocol_options: Some(Default::default()),
                http2_protocol_options: Some(Default::default()),
                ..Default::default()
            },
        )),
        ..Default::default()
    };
    cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), pack(&config));
}

/// The HTTP options of a cluster that speaks HTTP/2.
pub(super) fn http2(cluster: &mut cds::Cluster) {
    use http::http_protocol_options::explicit_http_config::ProtocolConfig;
    use http::http_protocol_options::{ExplicitHttpConfig, UpstreamProtocolOptions};
    let config = http::HttpProtocolOptions {
        upstream_protocol_options: Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
            protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(Default::default())),
        })),
        ..Default::default()
    };
    cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), pack(&config));
}

fn is_external(tls: &ClientTls) -> bool {
    matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual)
}

/// Writes the transport sockets.
pub(super) fn sockets(cluster: &mut cds::Cluster, inputs: &ClusterInputs) {
    match &inputs.policy.tls {
        Some(tls) => match tls.mode {
            ClientTlsMode::Disable => {}
            ClientTlsMode::IstioMutual => {
                let sans =
                    if tls.subject_alt_names.is_empty() { &inputs.sans } else { &tls.subject_alt_names };
                cluster.transport_socket = Some(mutual(inputs, &tls.sni, sans));
            }
            ClientTlsMode::Simple | ClientTlsMode::Mutual => {
                cluster.transport_socket = Some(external(inputs, tls));
            }
        },
        None => match inputs.auto_tls {
            AutoTls::Off => {}
            AutoTls::Always => cluster.transport_socket = Some(mutual(inputs, "", &inputs.sans)),
            AutoTls::ByEndpoint => cluster.transport_socket_matches = matches(inputs),
        },
    }
    if let Some(proxy_protocol) = &inputs.policy.proxy_protocol {
        let inner = cluster.transport_socket.take().unwrap_or_else(raw);
        cluster.transport_socket = Some(with_proxy_protocol(inner, proxy_protocol.version));
        for entry in &mut cluster.transport_socket_matches {
            let inner = entry.transport_socket.take().unwrap_or_else(raw);
            entry.transport_socket = Some(with_proxy_protocol(inner, proxy_protocol.version));
        }
    }
}

fn matches(inputs: &ClusterInputs) -> Vec<cds::cluster::TransportSocketMatch> {
    vec![
        cds::cluster::TransportSocketMatch {
            name: "tlsMode-istio".to_owned(),
            r#match: Some(pb::fields([("tlsMode", pb::text("istio"))])),
            transport_socket: Some(mutual(inputs, "", &inputs.sans)),
        },
        cds::cluster::TransportSocketMatch {
            name: "tlsMode-disabled".to_owned(),
            r#match: Some(Default::default()),
            transport_socket: Some(raw()),
        },
    ]
}

fn raw() -> core::TransportSocket {
    pb::transport_socket(RAW_BUFFER, &RawBuffer {})
}

fn with_proxy_protocol(inner: core::TransportSocket, version: ProxyProtocolVersion) -> core::TransportSocket {
    use xds_api::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
    let version = match version {
        ProxyProtocolVersion::V1 => core::proxy_protocol_config::Version::V1,
        ProxyProtocolVersion::V2 => core::proxy_protocol_config::Version::V2,
    };
    let config = ProxyProtocolUpstreamTransport {
        config: Some(core::ProxyProtocolConfig { version: version as i32, ..Default::default() }),
        transport_socket: Some(inner),
        ..Default::default()
    };
    pb::transport_socket("envoy.transport_sockets.upstream_proxy_protocol", &config)
}

/// The mesh's mutual TLS. A proxy that does not choose the ALPN by request says what the port is declared to speak.
fn mutual(inputs: &ClusterInputs, sni: &str, sans: &[String]) -> core::TransportSocket {
    let own = naming::outbound_sni(inputs.port.number, &inputs.subset, &inputs.service.hostname);
    let sni = if sni.is_empty() { &own } else { sni };
    let two = version(inputs) == Version::Two;
    let alpn: Vec<&str> = if inputs.traits.alpn {
        let exchange = inputs.traits.tcp_exchange.then_some(ALPN_EXCHANGE);
        exchange.into_iter().chain([ALPN_ISTIO]).chain(two.then_some("h2")).collect()
    } else if two {
        vec!["istio-h2", ALPN_ISTIO, "h2"]
    } else if inputs.port.protocol.is_http() {
        vec!["istio-http/1.1", ALPN_ISTIO, "http/1.1"]
    } else {
        vec![ALPN_ISTIO, "http/1.1"]
    };
    crate::tls::outbound_mutual(sni, sans, alpn)
}

/// TLS that a DestinationRule asks for towards a server that may be none of the mesh's.
fn external(inputs: &ClusterInputs, settings: &ClientTls) -> core::TransportSocket {
    let by_sds = !settings.credential_name.is_empty();
    let name = credential(&settings.credential_name);
    let secret = |path_name: String| {
        if by_sds { crate::tls::ads_secret(&name) } else { crate::tls::agent_secret(&path_name) }
    };
    let certificates = if settings.mode == ClientTlsMode::Mutual {
        vec![secret(format!("file-cert:{}~{}", settings.client_certificate, settings.private_key))]
    } else {
        Vec::new()
    };
    let sans = if settings.subject_alt_names.is_empty() { &inputs.sans } else { &settings.subject_alt_names };
    let roots = if by_sds {
        crate::tls::ads_secret(&format!("{name}-cacert"))
    } else if settings.ca_certificates.is_empty() {
        crate::tls::agent_secret("file-root:system")
    } else {
        crate::tls::agent_secret(&format!("file-root:{}", settings.ca_certificates))
    };
    let skip = settings.insecure_skip_verify == Some(true);
    let validation = if skip {
        None
    } else {
        Some(crate::tls::validation(roots, sans.iter().map(|san| pb::exact(san)).collect()))
    };
    let two = version(inputs) == Version::Two;
    let context = tls::UpstreamTlsContext {
        sni: settings.sni.clone(),
        common_tls_context: Some(tls::CommonTlsContext {
            alpn_protocols: if two { vec!["h2".to_owned()] } else { Vec::new() },
            tls_certificate_sds_secret_configs: certificates,
            validation_context_type: validation,
            ..Default::default()
        }),
        ..Default::default()
    };
    pb::transport_socket(TLS, &context)
}

/// The name of a credential as a resource.
fn credential(name: &str) -> String {
    if name.contains("://") { name.to_owned() } else { format!("kubernetes://{name}") }
}

/// The upstream filter that exchanges metadata over TCP.
pub(super) fn exchange_filter(inputs: &ClusterInputs) -> Option<cds::Filter> {
    let wanted = inputs.traits.tcp_exchange && inputs.traits.alpn && !inputs.port.protocol.is_http();
    wanted.then(|| cds::Filter {
        name: crate::traits::METADATA_EXCHANGE.to_owned(),
        typed_config: Some(pack(&xds_api::istio::metadata_exchange::MetadataExchange {
            protocol: ALPN_EXCHANGE.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    })
}
