//! HTTP filters, in Istio's order.

use mesh_api::authorization_policy::Action;
use mesh_api::wasm_plugin::PluginPhase;
use prost::{Message, Name};
use xds_api::any::pack;
use xds_api::envoy::extensions::filters::http as envoy;
use xds_api::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use xds_api::istio::{alpn, peer_metadata};

use super::{Class, HttpInputs};
use crate::authz::{AuthzInputs, EXT_AUTHZ, External};
use crate::telemetry::metrics;
use crate::traits::{ALPN, METADATA_EXCHANGE, STATS, Traits};
use crate::wasm;

/// The filters of a connection manager.
pub(super) fn filters(inputs: &HttpInputs, traits: Traits) -> Vec<hcm::HttpFilter> {
    let rbac = "envoy.filters.http.rbac";
    let mut out = Vec::new();
    let plugins = |phase, out: &mut Vec<hcm::HttpFilter>| {
        out.extend(inputs.wasm.iter().filter(|plugin| plugin.phase == phase).map(wasm::filter));
    };
    if traits.http_exchange {
        out.push(filter(METADATA_EXCHANGE, &exchange(inputs.class)));
    }
    if inputs.class != Class::SidecarOutbound {
        let custom = |authz: &&AuthzInputs| authz.action == Action::Custom;
        // Before tokens are read, as who decides there reads them itself.
        for authz in inputs.authz.iter().filter(custom) {
            out.push(filter(rbac, &authz.http()));
            let asks = authz.external.as_ref().and_then(External::http);
            out.extend(asks.map(|config| filter(EXT_AUTHZ, &config)));
        }
    }
    plugins(PluginPhase::Authn, &mut out);
    if let Some(jwt) = inputs.jwt.as_ref().filter(|_| inputs.class != Class::SidecarOutbound) {
        out.push(filter("envoy.filters.http.jwt_authn", &crate::authn::jwt_filter(jwt)));
    }
    plugins(PluginPhase::Authz, &mut out);
    if inputs.class != Class::SidecarOutbound {
        let standard = inputs.authz.iter().filter(|authz| authz.action != Action::Custom);
        out.extend(standard.map(|authz| filter(rbac, &authz.http())));
    }
    plugins(PluginPhase::Stats, &mut out);
    plugins(PluginPhase::Unspecified, &mut out);
    if inputs.grpc_web {
        out.push(filter("envoy.filters.http.grpc_web", &envoy::grpc_web::v3::GrpcWeb::default()));
    }
    let grpc_stats = envoy::grpc_stats::v3::FilterConfig { emit_filter_state: true, ..Default::default() };
    out.push(filter("envoy.filters.http.grpc_stats", &grpc_stats));
    if traits.alpn && inputs.class != Class::SidecarInbound {
        out.push(filter(ALPN, &alpn_override()));
    }
    out.push(filter("envoy.filters.http.fault", &envoy::fault::v3::HttpFault::default()));
    out.push(filter("envoy.filters.http.cors", &envoy::cors::v3::Cors {}));
    if traits.stats {
        out.push(filter(STATS, &metrics::plugin(&inputs.metrics)));
    }
    out.push(filter("envoy.filters.http.router", &envoy::router::v3::Router::default()));
    out
}

fn filter<M: Message + Name>(name: &str, config: &M) -> hcm::HttpFilter {
    hcm::HttpFilter {
        name: name.to_owned(),
        config_type: Some(hcm::http_filter::ConfigType::TypedConfig(pack(config))),
        ..Default::default()
    }
}

/// Who learns of whom: a server reads its client's headers and answers with its own, a client the other way round.
fn exchange(class: Class) -> peer_metadata::Config {
    use peer_metadata::config::{
        DiscoveryMethod, IstioHeaders, PropagationMethod, WorkloadDiscovery, discovery_method,
        propagation_method,
    };
    let headers = |skip_external_clusters| IstioHeaders { skip_external_clusters };
    let discover = |method| DiscoveryMethod { method_specifier: Some(method) };
    let by_headers = discover(discovery_method::MethodSpecifier::IstioHeaders(headers(false)));
    let by_workload = discover(discovery_method::MethodSpecifier::WorkloadDiscovery(WorkloadDiscovery {}));
    let propagate = |skip| PropagationMethod {
        method_specifier: Some(propagation_method::MethodSpecifier::IstioHeaders(headers(skip))),
    };
    let methods = vec![by_headers, by_workload];
    match class {
        Class::SidecarInbound => peer_metadata::Config {
            downstream_discovery: methods,
            downstream_propagation: vec![propagate(false)],
            ..Default::default()
        },
        Class::SidecarOutbound | Class::Gateway => peer_metadata::Config {
            upstream_discovery: methods,
            upstream_propagation: vec![propagate(true)],
            ..Default::default()
        },
    }
}

fn alpn_override() -> alpn::FilterConfig {
    use alpn::filter_config::{AlpnOverride, Protocol};
    let entry = |protocol: Protocol, names: [&str; 3]| AlpnOverride {
        upstream_protocol: protocol as i32,
        alpn_override: names.map(str::to_owned).to_vec(),
    };
    alpn::FilterConfig {
        alpn_override: vec![
            entry(Protocol::Http10, ["istio-http/1.0", "istio", "http/1.0"]),
            entry(Protocol::Http11, ["istio-http/1.1", "istio", "http/1.1"]),
            entry(Protocol::Http2, ["istio-h2", "istio", "h2"]),
        ],
    }
}
