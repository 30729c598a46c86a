//! The HTTP connection manager.

use xds_api::any::pack;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::config::listener::v3 as lds;
use xds_api::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use xds_api::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use xds_api::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as part;
use xds_api::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;

use super::{Class, HttpInputs, Normalization, Routes, filters, tcp};
use crate::pb;
use crate::telemetry::{access_log, tracing};
use crate::traits::Traits;

/// The network filter that reads requests.
pub(super) fn connection_manager(inputs: &HttpInputs, traits: Traits) -> lds::Filter {
    let routes = match &inputs.routes {
        Routes::Rds(name) => {
            part::RouteSpecifier::Rds(hcm::Rds { config_source: pb::ads(), route_config_name: name.clone() })
        }
        Routes::Inbound(route) => part::RouteSpecifier::RouteConfig(crate::route::inbound(route)),
        Routes::Passthrough(name) => part::RouteSpecifier::RouteConfig(crate::route::passthrough(name)),
    };
    let mut manager = HttpConnectionManager {
        codec_type: part::CodecType::Auto as i32,
        stat_prefix: inputs.stat_prefix.clone(),
        route_specifier: Some(routes),
        http_filters: filters::filters(inputs, traits),
        access_log: access_log::access_logs(&inputs.logs, access_log::Subject::Http),
        tracing: inputs.tracing.as_ref().map(tracing::tracing),
        use_remote_address: pb::boolv(inputs.class == Class::Gateway),
        xff_num_trusted_hops: inputs.trusted_hops,
        stream_idle_timeout: pb::seconds(0),
        proxy_100_continue: true,
        upgrade_configs: vec![part::UpgradeConfig {
            upgrade_type: "websocket".to_owned(),
            ..Default::default()
        }],
        request_id_extension: Some(hcm::RequestIdExtension {
            typed_config: Some(pack(&UuidRequestIdConfig {
                use_request_id_for_trace_sampling: pb::boolv(
                    inputs.tracing.as_ref().is_none_or(|tracing| tracing.by_request_id),
                ),
                ..Default::default()
            })),
        }),
        server_name: if inputs.class == Class::SidecarOutbound {
            String::new()
        } else {
            "istio-envoy".to_owned()
        },
        ..Default::default()
    };
    normalization(&mut manager, inputs.normalization);
    client_certificates(&mut manager, inputs);
    if inputs.http10 {
        manager.http_protocol_options =
            Some(core::Http1ProtocolOptions { accept_http_10: true, ..Default::default() });
    }
    tcp::filter("envoy.filters.network.http_connection_manager", &manager)
}

fn normalization(manager: &mut HttpConnectionManager, how: Normalization) {
    use part::PathWithEscapedSlashesAction as Escaped;
    manager.normalize_path = pb::boolv(how != Normalization::None);
    manager.merge_slashes = matches!(how, Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes);
    manager.path_with_escaped_slashes_action = match how {
        Normalization::DecodeAndMergeSlashes => Escaped::UnescapeAndForward,
        _ => Escaped::KeepUnchanged,
    } as i32;
}

fn client_certificates(manager: &mut HttpConnectionManager, inputs: &HttpInputs) {
    use part::ForwardClientCertDetails as Details;
    let current = part::SetCurrentClientCertDetails {
        subject: pb::boolv(true),
        dns: true,
        uri: true,
        cert: inputs.class == Class::Gateway,
        ..Default::default()
    };
    match inputs.class {
        Class::SidecarInbound if inputs.client_certificates => {
            manager.forward_client_cert_details = Details::AppendForward as i32;
            manager.set_current_client_cert_details = Some(current);
        }
        // In plain text nobody proved what the header says; it is passed on as the application would get it without a mesh.
        Class::SidecarInbound => manager.forward_client_cert_details = Details::AppendForward as i32,
        Class::SidecarOutbound => {}
        Class::Gateway => {
            manager.forward_client_cert_details = Details::SanitizeSet as i32;
            manager.set_current_client_cert_details = Some(current);
        }
    }
}
