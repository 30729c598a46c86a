//! What one proxy is to run, generated anew, in the form of Envoy's own config dump. Secrets are named, never shown.

use serde_json::{Value, json};
use xds_api::codec::Codec;
use xds_api::type_url;
use xds_stream::resource::Resource;

use super::decode;
use crate::connection::Connection;

fn generated(connection: &Connection, type_url: &str) -> (String, Vec<Resource>) {
    let generator = connection.view.now();
    let demand = connection.with_session(|session| session.demand(type_url, None));
    let resources = demand.map(|demand| generator.generate(type_url, &demand)).unwrap_or_default();
    (generator.version(), resources)
}

/// Everything.
pub(super) fn config(connection: &Connection, codec: &Codec) -> Value {
    let list = |type_url: &str, field: &str| {
        let (version, resources) = generated(connection, type_url);
        let entries =
            resources.iter().map(|resource| json!({"version_info": version, field: decode(codec, resource)}));
        entries.collect::<Vec<_>>()
    };
    let listeners: Vec<Value> = list(type_url::LISTENER, "listener")
        .into_iter()
        .map(|entry| json!({"name": entry["listener"]["name"], "active_state": entry}))
        .collect();
    let (_, secrets) = generated(connection, type_url::SECRET);
    let secrets: Vec<Value> = secrets.iter().map(|secret| json!({"name": secret.name.as_ref()})).collect();
    json!({"configs": [
        {
            "@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
            "dynamic_active_clusters": list(type_url::CLUSTER, "cluster"),
        },
        {
            "@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump",
            "dynamic_endpoint_configs": list(type_url::ENDPOINT, "endpoint_config"),
        },
        {
            "@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
            "dynamic_listeners": listeners,
        },
        {
            "@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
            "dynamic_route_configs": list(type_url::ROUTE, "route_config"),
        },
        {
            "@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
            "dynamic_active_secrets": secrets,
        },
    ]})
}

/// Endpoints, by cluster.
pub(super) fn endpoints(connection: &Connection, codec: &Codec) -> Value {
    let (_, resources) = generated(connection, type_url::ENDPOINT);
    resources.iter().map(|resource| decode(codec, resource)).collect()
}

/// The name table.
pub(super) fn names(connection: &Connection, codec: &Codec) -> Value {
    let (_, resources) = generated(connection, type_url::NAME_TABLE);
    resources.first().map(|resource| decode(codec, resource)).unwrap_or_default()
}
