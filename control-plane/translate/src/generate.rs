//! The way in: the resources of one type for one proxy.

use saild_model::proxy::RawNode;
use saild_model::{ChangeSet, ConfigKey, Locality, Mesh, ProxyType, ProxyView};
use xds_api::envoy::config::core::v3::Node;
use xds_api::type_url;

use crate::resource::{Generated, Names};
use crate::{
    Cache, cluster, endpoint, envoy_filter, listener, nametable, pb, route, secret, unsupported, wasm,
};

/// Why a node is not served.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the node cannot be understood")]
pub struct NodeError(#[from] saild_model::proxy::Error);

/// Reads a node as it comes over xDS. The caller then puts what it authenticated into `namespace` and
/// `service_account`.
pub fn proxy_view(node: &Node) -> Result<ProxyView, NodeError> {
    let metadata = node
        .metadata
        .as_ref()
        .map(|fields| fields.fields.iter().map(|(key, value)| (key.clone(), pb::to_json(value))).collect());
    let locality = node.locality.clone().unwrap_or_default();
    let raw = RawNode {
        id: &node.id,
        metadata: metadata.unwrap_or_default(),
        locality: Locality { region: locality.region, zone: locality.zone, subzone: locality.sub_zone },
        // Filters of different kinds share names: types tell them apart.
        extensions: node
            .extensions
            .iter()
            .flat_map(|extension| {
                extension.type_urls.iter().map(|url| typed(url)).chain([extension.name.clone()])
            })
            .collect(),
    };
    Ok(ProxyView::parse(raw)?)
}

/// A type with the prefix that type URLs have, which lists of extensions may leave out.
fn typed(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("type.googleapis.com/{name}") }
}

/// The resources of a type for a proxy. An unknown type gives nothing.
///
/// Names asked for are honoured for endpoints, routes and secrets; the other types are given whole, as proxies subscribe
/// to them with a wildcard.
pub fn generate(mesh: &Mesh, proxy: &ProxyView, type_url: &str, names: &Names, cache: &Cache) -> Generated {
    let mut out = Generated::default();
    match type_url {
        type_url::CLUSTER => out.resources = cluster::clusters(mesh, proxy, cache),
        type_url::LISTENER => {
            out.resources = listener::listeners(mesh, proxy, cache, &mut out.warnings);
            out.warnings.extend(unsupported::warnings(mesh, proxy));
            out.warnings.extend(envoy_filter::problems(mesh, proxy, cache));
        }
        type_url::ENDPOINT => out = endpoint::endpoints(mesh, proxy, names, cache),
        type_url::ROUTE => out = route::routes(mesh, proxy, names, cache),
        type_url::SECRET => out = secret::secrets(mesh, proxy, names),
        type_url::EXTENSION_CONFIG => out = wasm::extensions(mesh, proxy, names),
        type_url::NAME_TABLE => out.resources = vec![nametable::resource(mesh, proxy)],
        _ => {}
    }
    if matches!(type_url, type_url::CLUSTER | type_url::LISTENER | type_url::ROUTE) {
        out.resources = envoy_filter::patch(mesh, proxy, type_url, out.resources, cache);
    }
    out.warnings.sort();
    out.warnings.dedup();
    out
}

/// Whether a change may alter a proxy's resources of a type. It may say yes where nothing changed: resources carry versions
/// that tell.
pub fn affected(change: &ChangeSet, proxy: &ProxyView, type_url: &str) -> bool {
    if change.full {
        return true;
    }
    let kind_matters = |kind: &str| match kind {
        "Gateway" => proxy.kind == ProxyType::Router,
        "Sidecar" => proxy.kind == ProxyType::Sidecar,
        "Secret" | "ConfigMap" => type_url == type_url::SECRET,
        "RequestAuthentication" | "AuthorizationPolicy" | "Telemetry" => type_url == type_url::LISTENER,
        "WasmPlugin" => matches!(type_url, type_url::LISTENER | type_url::EXTENSION_CONFIG),
        _ if type_url == type_url::EXTENSION_CONFIG => false,
        // What proxies read of pods they read from endpoints, and of WorkloadGroups nothing.
        "Pod" | "WorkloadGroup" | "ProxyConfig" | "ServiceAccount" | "Node" => false,
        _ => true,
    };
    let local = |key: &ConfigKey| match key.kind.as_str() {
        "Secret" => key.namespace == proxy.namespace,
        _ => true,
    };
    let by_config = change.configs.iter().any(|key| kind_matters(&key.kind) && local(key));
    let own = || proxy.addresses.iter().any(|ip| change.addresses.contains(ip));
    by_config
        || match type_url {
            type_url::SECRET => false,
            type_url::ENDPOINT => !change.endpoints.is_empty(),
            // Clusters name who may serve, listeners and names tell the pods of headless services.
            type_url::CLUSTER | type_url::LISTENER | type_url::NAME_TABLE => {
                !change.reshaped.is_empty() || own()
            }
            _ => own(),
        }
}
