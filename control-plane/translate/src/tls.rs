//! TLS contexts: the mesh's own mutual TLS in both directions, and what users configure for clients and servers.

use saild_model::Mesh;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::extensions::transport_sockets::tls::v3 as tls;
use xds_api::envoy::r#type::matcher::v3::StringMatcher;

use crate::pb;

/// The name of the transport socket.
pub(crate) const TLS: &str = "envoy.transport_sockets.tls";
/// The ALPN of mesh connections: the peers exchange metadata.
pub(crate) const ALPN_EXCHANGE: &str = "istio-peer-exchange";
/// The ALPN that says: this is the mesh's mutual TLS.
pub(crate) const ALPN_ISTIO: &str = "istio";
/// The ALPN of HTTP in the mesh's mutual TLS.
pub(crate) const ALPN_ISTIO_HTTP: [&str; 3] = ["istio-http/1.0", "istio-http/1.1", "istio-h2"];

const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// A secret from the agent's socket.
pub(crate) fn agent_secret(name: &str) -> tls::SdsSecretConfig {
    use core::config_source::ConfigSourceSpecifier;
    use core::grpc_service::{EnvoyGrpc, TargetSpecifier};
    let service = core::GrpcService {
        target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: "sds-grpc".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let api = core::ApiConfigSource {
        api_type: core::api_config_source::ApiType::Grpc as i32,
        transport_api_version: core::ApiVersion::V3 as i32,
        grpc_services: vec![service],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    tls::SdsSecretConfig {
        name: name.to_owned(),
        sds_config: Some(core::ConfigSource {
            resource_api_version: core::ApiVersion::V3 as i32,
            initial_fetch_timeout: pb::seconds(0),
            config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(api)),
            ..Default::default()
        }),
    }
}

/// A secret from the control plane.
pub(crate) fn ads_secret(name: &str) -> tls::SdsSecretConfig {
    tls::SdsSecretConfig { name: name.to_owned(), sds_config: pb::ads() }
}

/// A validation context whose roots come over SDS.
pub(crate) fn validation(
    roots: tls::SdsSecretConfig,
    sans: Vec<StringMatcher>,
) -> tls::common_tls_context::ValidationContextType {
    combined(
        roots,
        tls::CertificateValidationContext {
            match_typed_subject_alt_names: typed_sans(sans),
            ..Default::default()
        },
    )
}

/// A validation context whose roots come over SDS, with further conditions.
pub(crate) fn combined(
    roots: tls::SdsSecretConfig,
    default: tls::CertificateValidationContext,
) -> tls::common_tls_context::ValidationContextType {
    tls::common_tls_context::ValidationContextType::CombinedValidationContext(
        tls::common_tls_context::CombinedCertificateValidationContext {
            default_validation_context: Some(default),
            validation_context_sds_secret_config: Some(roots),
            ..Default::default()
        },
    )
}

/// Subject alternative names of any type that a certificate may carry.
pub(crate) fn typed_sans(sans: Vec<StringMatcher>) -> Vec<tls::SubjectAltNameMatcher> {
    use tls::subject_alt_name_matcher::SanType;
    let mut out = Vec::new();
    for matcher in sans {
        let uri_only = match &matcher.match_pattern {
            Some(
                xds_api::envoy::r#type::matcher::v3::string_matcher::MatchPattern::Exact(text)
                | xds_api::envoy::r#type::matcher::v3::string_matcher::MatchPattern::Prefix(text),
            ) => text.starts_with("spiffe://"),
            _ => false,
        };
        if uri_only {
            out.push(tls::SubjectAltNameMatcher {
                san_type: SanType::Uri as i32,
                matcher: Some(matcher),
                ..Default::default()
            });
        } else {
            for san_type in [SanType::Dns, SanType::Uri] {
                out.push(tls::SubjectAltNameMatcher {
                    san_type: san_type as i32,
                    matcher: Some(matcher.clone()),
                    ..Default::default()
                });
            }
        }
    }
    out
}

/// What ports of a mesh workload accept inside mutual TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alpn {
    /// HTTP.
    Http,
    /// Bytes.
    Tcp,
}

/// The prefixes of SPIFFE ids that peers may have.
pub(crate) fn trust_domain_prefixes(domains: &[String]) -> Vec<StringMatcher> {
    domains.iter().map(|domain| pb::prefix(&format!("spiffe://{domain}/"))).collect()
}

/// The mesh's mutual TLS towards clients.
pub(crate) fn inbound_mutual(alpn: Alpn, trust_domains: &[String]) -> core::TransportSocket {
    let alpn_protocols = match alpn {
        Alpn::Http => vec!["h2", "http/1.1"],
        Alpn::Tcp => vec![ALPN_EXCHANGE, "h2", "http/1.1"],
    };
    let context = tls::DownstreamTlsContext {
        require_client_certificate: pb::boolv(true),
        common_tls_context: Some(tls::CommonTlsContext {
            alpn_protocols: alpn_protocols.into_iter().map(str::to_owned).collect(),
            tls_certificate_sds_secret_configs: vec![agent_secret("default")],
            validation_context_type: Some(validation(
                agent_secret("ROOTCA"),
                trust_domain_prefixes(trust_domains),
            )),
            tls_params: Some(mesh_parameters()),
            ..Default::default()
        }),
        ..Default::default()
    };
    pb::transport_socket(TLS, &context)
}

/// The versions and ciphers of the mesh.
pub(crate) fn mesh_parameters() -> tls::TlsParameters {
    tls::TlsParameters {
        tls_minimum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv12 as i32,
        tls_maximum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13 as i32,
        cipher_suites: CIPHERS.map(str::to_owned).to_vec(),
        ..Default::default()
    }
}

/// The mesh's mutual TLS towards servers.
pub(crate) fn outbound_mutual(sni: &str, sans: &[String], alpn: Vec<&str>) -> core::TransportSocket {
    let context = tls::UpstreamTlsContext {
        sni: sni.to_owned(),
        common_tls_context: Some(tls::CommonTlsContext {
            alpn_protocols: alpn.into_iter().map(str::to_owned).collect(),
            tls_certificate_sds_secret_configs: vec![agent_secret("default")],
            validation_context_type: Some(validation(
                agent_secret("ROOTCA"),
                sans.iter().map(|san| pb::exact(san)).collect(),
            )),
            tls_params: Some(tls::TlsParameters {
                tls_minimum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv12 as i32,
                tls_maximum_protocol_version: tls::tls_parameters::TlsProtocol::TlSv13 as i32,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    pb::transport_socket(TLS, &context)
}

/// The trust domain and its aliases.
pub(crate) fn trust_domains(mesh: &Mesh) -> Vec<String> {
    let settings = mesh.settings();
    let mut domains = vec![settings.trust_domain.clone()];
    domains.extend(settings.trust_domain_aliases.iter().cloned());
    domains
}
