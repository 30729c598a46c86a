//! Changes of headers.

use mesh_api::virtual_service::{HeaderOperations, Headers};
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use xds_api::envoy::config::route::v3 as rds;
use xds_api::envoy::config::route::v3::weighted_cluster::{
    ClusterWeight, cluster_weight::HostRewriteSpecifier,
};

/// Writes the changes of a route.
pub(super) fn of_route(route: &mut rds::Route, changes: &Headers) {
    route.request_headers_to_add = added(&changes.request);
    route.request_headers_to_remove.clone_from(&changes.request.remove);
    route.response_headers_to_add = added(&changes.response);
    route.response_headers_to_remove.clone_from(&changes.response.remove);
}

/// Writes the changes of one destination.
pub(super) fn of_cluster(weight: &mut ClusterWeight, changes: &Headers) {
    weight.request_headers_to_add = added(&changes.request);
    weight.request_headers_to_remove.clone_from(&changes.request.remove);
    weight.response_headers_to_add = added(&changes.response);
    weight.response_headers_to_remove.clone_from(&changes.response.remove);
    weight.host_rewrite_specifier =
        authority(&changes.request).map(|host| HostRewriteSpecifier::HostRewriteLiteral(host.to_owned()));
}

/// The host that is set like a header, which Envoy takes as a rewrite.
pub(super) fn authority(operations: &HeaderOperations) -> Option<&str> {
    let found = operations.set.iter().find(|(name, _)| is_authority(name));
    found.map(|(_, value)| value.as_str())
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

fn added(operations: &HeaderOperations) -> Vec<core::HeaderValueOption> {
    let option = |(key, value): (&String, &String), action: HeaderAppendAction| core::HeaderValueOption {
        header: Some(core::HeaderValue { key: key.clone(), value: value.clone(), ..Default::default() }),
        append_action: action as i32,
        ..Default::default()
    };
    let set = operations.set.iter().filter(|(name, _)| !is_authority(name));
    set.map(|entry| option(entry, HeaderAppendAction::OverwriteIfExistsOrAdd))
        .chain(operations.add.iter().map(|entry| option(entry, HeaderAppendAction::AppendIfExistsOrAdd)))
        .collect()
}
