//! The proxy's bootstrap: an Envoy bootstrap in JSON, the same for every proxy that reads such files.

mod resources;
mod stats;

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::config::AgentConfig;

/// What the bootstrap is made from.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// The agent's configuration.
    pub config: &'a AgentConfig,
    /// The socket from which the proxy gets its certificates.
    pub sds_socket: PathBuf,
    /// The socket from which the proxy gets its configuration.
    pub xds_socket: PathBuf,
}

/// Renders the bootstrap.
pub fn render(inputs: &Inputs<'_>) -> Value {
    let config = inputs.config;
    let mut bootstrap = json!({
        "node": node(config),
        "admin": {
            "address": address(loopback(config), config.proxy.admin_port),
            "profile_path": "/var/lib/istio/data/envoy.prof",
        },
        "dynamic_resources": dynamic_resources(config),
        "static_resources": {
            "clusters": resources::clusters(inputs),
            "listeners": resources::listeners(config),
        },
        "layered_runtime": { "layers": [
            { "name": "global config", "static_layer": runtime(config) },
            { "name": "admin", "admin_layer": {} },
        ] },
        "overload_manager": { "resource_monitors": [ {
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": 2_147_483_647,
            },
        } ] },
        "stats_config": stats::config(config),
        "cluster_manager": { "outlier_detection": {} },
    });
    let mut set = |field: &str, value: Value| {
        if let Value::Object(bootstrap) = &mut bootstrap {
            bootstrap.insert(field.to_owned(), value);
        }
    };
    if let Some(tracing) = tracing(config) {
        set("tracing", tracing);
    }
    if let Some(sinks) = stats::sinks(config) {
        set("stats_sinks", sinks);
    }
    bootstrap
}

/// The address of a socket.
fn address(host: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": host, "port_value": port } })
}

/// Agent and proxy meet on the loopback address of the pod's family.
fn loopback(config: &AgentConfig) -> &'static str {
    if config.node.is_ipv4() { "127.0.0.1" } else { "::1" }
}

fn node(config: &AgentConfig) -> Value {
    let node = &config.node;
    let mut value = json!({ "id": node.id, "cluster": node.cluster, "metadata": node.metadata });
    let [region, zone, sub_zone] = node.locality.clone().unwrap_or_default();
    let mut locality = Map::new();
    for (field, part) in [("region", region), ("zone", zone), ("sub_zone", sub_zone)] {
        if !part.is_empty() {
            locality.insert(field.to_owned(), part.into());
        }
    }
    value["locality"] = Value::Object(locality);
    value
}

fn dynamic_resources(config: &AgentConfig) -> Value {
    let ads = json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
    json!({
        "lds_config": ads,
        "cds_config": ads,
        "ads_config": {
            "api_type": if config.env.delta_xds { "DELTA_GRPC" } else { "GRPC" },
            "set_node_on_first_message_only": true,
            "transport_api_version": "V3",
            "grpc_services": [ { "envoy_grpc": { "cluster_name": agent_contract::sds::XDS_CLUSTER } } ],
        },
    })
}

fn runtime(config: &AgentConfig) -> Value {
    let mut layer = json!({
        "re2.max_program_size.error_level": "32768",
        "envoy.reloadable_features.http_reject_path_with_fragment": false,
    });
    for (key, value) in &config.proxy.runtime_values {
        // Texts that are numbers or booleans are meant as such.
        layer[key] = serde_json::from_str(value).unwrap_or_else(|_| value.clone().into());
    }
    layer
}

fn tracing(config: &AgentConfig) -> Option<Value> {
    if config.proxy.zipkin_address.is_empty() {
        return None;
    }
    Some(json!({ "http": {
        "name": "envoy.tracers.zipkin",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig",
            "collector_cluster": resources::ZIPKIN_CLUSTER,
            "collector_endpoint": "/api/v2/spans",
            "collector_endpoint_version": "HTTP_JSON",
            "trace_id_128bit": true,
            "shared_span_context": false,
        },
    } }))
}
