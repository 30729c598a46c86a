//! Listeners, their filters and chains, as Envoy's protobufs.

use mesh_api::gateway::TlsProtocol;
use prost::{Message, Name};
use xds_api::any::pack;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::config::listener::v3 as lds;
use xds_api::envoy::extensions::filters::listener as listener_filters;
use xds_api::envoy::extensions::transport_sockets::tls::v3 as tls;
use xds_api::envoy::r#type::v3::Int32Range;

use super::{
    Chain, ChainMatch, Direction, Filters, Inspector, ListenerInputs, SecretRef, ServerTlsInputs, Tls, http,
    tcp,
};
use crate::pb;
use crate::telemetry::access_log;

/// The listener of these inputs.
pub fn listener(inputs: &ListenerInputs) -> lds::Listener {
    let direction = match inputs.direction {
        Direction::Inbound => core::TrafficDirection::Inbound,
        Direction::Outbound => core::TrafficDirection::Outbound,
    };
    lds::Listener {
        name: inputs.name.clone(),
        address: pb::address(&inputs.address, inputs.port),
        traffic_direction: direction as i32,
        bind_to_port: if inputs.virtual_only { pb::boolv(false) } else { None },
        use_original_dst: if inputs.use_original_dst { pb::boolv(true) } else { None },
        transparent: if inputs.transparent { pb::boolv(true) } else { None },
        listener_filters: inputs.inspectors.iter().map(inspector).collect(),
        listener_filters_timeout: inputs.inspection_timeout.and_then(pb::duration),
        continue_on_listener_filters_timeout: inputs.inspection_timeout.is_some(),
        filter_chains: inputs.chains.iter().map(|chain| filter_chain(chain, inputs)).collect(),
        default_filter_chain: inputs.default_chain.as_ref().map(|chain| filter_chain(chain, inputs)),
        access_log: access_log::access_logs(&inputs.logs, access_log::Subject::Tcp)
            .into_iter()
            .map(access_log::only_unrouted)
            .collect(),
        ..Default::default()
    }
}

fn inspector(inspector: &Inspector) -> lds::ListenerFilter {
    match inspector {
        Inspector::OriginalDst => filter(
            "envoy.filters.listener.original_dst",
            &listener_filters::original_dst::v3::OriginalDst::default(),
        ),
        Inspector::OriginalSrc => filter(
            "envoy.filters.listener.original_src",
            &listener_filters::original_src::v3::OriginalSrc { mark: 1337, ..Default::default() },
        ),
        Inspector::Tls => filter(
            "envoy.filters.listener.tls_inspector",
            &listener_filters::tls_inspector::v3::TlsInspector {
                initial_read_buffer_size: pb::u32v(512),
                ..Default::default()
            },
        ),
        Inspector::Http { except } => {
            let mut filter = filter(
                "envoy.filters.listener.http_inspector",
                &listener_filters::http_inspector::v3::HttpInspector::default(),
            );
            filter.filter_disabled = on_ports(except);
            filter
        }
        Inspector::ProxyProtocol => filter(
            "envoy.filters.listener.proxy_protocol",
            &listener_filters::proxy_protocol::v3::ProxyProtocol::default(),
        ),
    }
}

fn filter<M: Message + Name>(name: &str, config: &M) -> lds::ListenerFilter {
    lds::ListenerFilter {
        name: name.to_owned(),
        filter_disabled: None,
        config_type: Some(lds::listener_filter::ConfigType::TypedConfig(pack(config))),
    }
}

fn on_ports(ports: &[u16]) -> Option<lds::ListenerFilterChainMatchPredicate> {
    use lds::listener_filter_chain_match_predicate::{MatchSet, Rule};
    let of = |rule| lds::ListenerFilterChainMatchPredicate { rule: Some(rule) };
    let mut rules: Vec<_> = ports
        .iter()
        .map(|port| {
            let start = i32::from(*port);
            of(Rule::DestinationPortRange(Int32Range { start, end: start + 1 }))
        })
        .collect();
    match rules.len() {
        0 => None,
        1 => rules.pop(),
        _ => Some(of(Rule::OrMatch(MatchSet { rules }))),
    }
}

fn filter_chain(chain: &Chain, listener: &ListenerInputs) -> lds::FilterChain {
    let filters = match &chain.filters {
        Filters::Http(inputs) => vec![http::connection_manager(inputs, listener.traits)],
        Filters::Tcp(inputs) => tcp::filters(inputs, listener.traits),
    };
    let gateway_tls = matches!(chain.tls, Some(Tls::Server(_)));
    lds::FilterChain {
        name: chain.name.clone(),
        filter_chain_match: chain_match(&chain.matches),
        transport_socket: chain.tls.as_ref().map(transport_socket),
        transport_socket_connect_timeout: if gateway_tls { pb::seconds(15) } else { None },
        filters,
        ..Default::default()
    }
}

fn chain_match(matches: &ChainMatch) -> Option<lds::FilterChainMatch> {
    let out = lds::FilterChainMatch {
        destination_port: matches.port.and_then(|port| pb::u32v(u32::from(port))),
        prefix_ranges: matches.networks.iter().map(|net| pb::cidr(*net)).collect(),
        server_names: matches.server_names.clone(),
        transport_protocol: matches.transport.to_owned(),
        application_protocols: matches.alpn.clone(),
        source_prefix_ranges: matches.sources.iter().map(|net| pb::cidr(*net)).collect(),
        ..Default::default()
    };
    (out != lds::FilterChainMatch::default()).then_some(out)
}

fn transport_socket(tls: &Tls) -> core::TransportSocket {
    match tls {
        Tls::Mesh { http, trust_domains } => {
            let alpn = if *http { crate::tls::Alpn::Http } else { crate::tls::Alpn::Tcp };
            crate::tls::inbound_mutual(alpn, trust_domains)
        }
        Tls::Server(inputs) => server_tls(inputs),
    }
}

fn secret(secret: &SecretRef) -> tls::SdsSecretConfig {
    match secret {
        SecretRef::Agent(name) => crate::tls::agent_secret(name),
        SecretRef::ControlPlane(name) => crate::tls::ads_secret(name),
    }
}

fn server_tls(inputs: &ServerTlsInputs) -> core::TransportSocket {
    let mut sans: Vec<_> = inputs.subject_alt_names.iter().map(|san| pb::exact(san)).collect();
    sans.extend(crate::tls::trust_domain_prefixes(&inputs.trust_domains));
    let conditions = tls::CertificateValidationContext {
        match_typed_subject_alt_names: crate::tls::typed_sans(sans),
        verify_certificate_spki: inputs.spki.clone(),
        verify_certificate_hash: inputs.hashes.clone(),
        ..Default::default()
    };
    let context = tls::DownstreamTlsContext {
        require_client_certificate: pb::boolv(inputs.require_client_certificate),
        common_tls_context: Some(tls::CommonTlsContext {
            alpn_protocols: inputs.alpn.clone(),
            tls_certificate_sds_secret_configs: inputs.certificates.iter().map(secret).collect(),
            validation_context_type: inputs
                .roots
                .as_ref()
                .map(|roots| crate::tls::combined(secret(roots), conditions)),
            tls_params: Some(tls::TlsParameters {
                tls_minimum_protocol_version: version(inputs.minimum, TlsProtocol::TlsV1_2),
                tls_maximum_protocol_version: version(inputs.maximum, TlsProtocol::TlsV1_3),
                cipher_suites: inputs.ciphers.clone(),
                ecdh_curves: inputs.curves.clone(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    pb::transport_socket(crate::tls::TLS, &context)
}

fn version(version: TlsProtocol, default: TlsProtocol) -> i32 {
    use tls::tls_parameters::TlsProtocol as Envoy;
    let version = if version == TlsProtocol::TlsAuto { default } else { version };
    let version = match version {
        TlsProtocol::TlsAuto => Envoy::TlsAuto,
        TlsProtocol::TlsV1_0 => Envoy::TlSv10,
        TlsProtocol::TlsV1_1 => Envoy::TlSv11,
        TlsProtocol::TlsV1_2 => Envoy::TlSv12,
        TlsProtocol::TlsV1_3 => Envoy::TlSv13,
    };
    version as i32
}
