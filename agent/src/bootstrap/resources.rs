//! Static clusters and listeners: the agent's sockets, health and metrics.

use std::path::Path;

use agent_contract::{paths, sds};
use serde_json::{Value, json};

use super::{Inputs, address, loopback};
use crate::config::AgentConfig;

/// The proxy's own admin interface.
const PROMETHEUS_CLUSTER: &str = "prometheus_stats";
/// The agent's status server.
const AGENT_CLUSTER: &str = "agent";
/// The collector of traces.
pub(super) const ZIPKIN_CLUSTER: &str = "zipkin";

const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The static clusters.
pub(super) fn clusters(inputs: &Inputs<'_>) -> Value {
    let config = inputs.config;
    let host = loopback(config);
    let mut clusters = vec![
        local(PROMETHEUS_CLUSTER, host, config.proxy.admin_port),
        local(AGENT_CLUSTER, host, config.proxy.status_port),
        socket(sds::CLUSTER, &inputs.sds_socket),
        xds(&inputs.xds_socket),
    ];
    let credentials = Path::new(paths::CREDENTIAL_SOCKET);
    if credentials.exists() {
        clusters.push(socket(sds::EXTERNAL_CLUSTER, credentials));
    }
    if let Some((host, port)) = split(&config.proxy.zipkin_address) {
        clusters.push(json!({
            "name": ZIPKIN_CLUSTER,
            "type": "STRICT_DNS",
            "respect_dns_ttl": true,
            "dns_lookup_family": if config.node.is_ipv4() { "V4_PREFERRED" } else { "AUTO" },
            "dns_refresh_rate": "30s",
            "connect_timeout": "1s",
            "lb_policy": "ROUND_ROBIN",
            "load_assignment": assignment(ZIPKIN_CLUSTER, &address(&host, port)),
        }));
    }
    Value::Array(clusters)
}

fn local(name: &str, host: &str, port: u16) -> Value {
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.250s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": assignment(name, &address(host, port)),
    })
}

fn socket(name: &str, path: &Path) -> Value {
    let pipe = json!({ "pipe": { "path": path } });
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "lb_policy": "ROUND_ROBIN",
        "typed_extension_protocol_options": { HTTP_OPTIONS: {
            "@type": format!("type.googleapis.com/{HTTP_OPTIONS}"),
            "explicit_http_config": { "http2_protocol_options": {} },
        } },
        "load_assignment": assignment(name, &pipe),
    })
}

fn xds(path: &Path) -> Value {
    let mut cluster = socket(sds::XDS_CLUSTER, path);
    let limits = |priority: &str| {
        json!({
            "priority": priority,
            "max_connections": 100_000,
            "max_pending_requests": 100_000,
            "max_requests": 100_000,
        })
    };
    cluster["circuit_breakers"] = json!({ "thresholds": [limits("DEFAULT"), limits("HIGH")] });
    cluster["upstream_connection_options"] = json!({ "tcp_keepalive": { "keepalive_time": 300 } });
    cluster["max_requests_per_connection"] = json!(1);
    cluster
}

fn assignment(name: &str, address: &Value) -> Value {
    json!({
        "cluster_name": name,
        "endpoints": [ { "lb_endpoints": [ { "endpoint": { "address": address } } ] } ],
    })
}

/// The static listeners: metrics and health, open to the pod's network.
pub(super) fn listeners(config: &AgentConfig) -> Value {
    let any = if config.node.is_ipv4() { "0.0.0.0" } else { "::" };
    json!([
        listener("prometheus", any, config.env.prometheus_port, paths::STATS_PROMETHEUS, PROMETHEUS_CLUSTER),
        listener("agent", any, config.env.health_port, paths::READY, AGENT_CLUSTER),
    ])
}

fn listener(what: &str, host: &str, port: u16, path: &str, cluster: &str) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "codec_type": "AUTO",
        "stat_prefix": if what == "prometheus" { "stats" } else { what },
        "route_config": { "virtual_hosts": [ {
            "name": "backend",
            "domains": ["*"],
            "routes": [ { "match": { "prefix": path }, "route": { "cluster": cluster } } ],
        } ] },
        "http_filters": [ {
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        } ],
    });
    json!({
        "name": format!("{what}_listener"),
        "address": address(host, port),
        "filter_chains": [ { "filters": [ {
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": manager,
        } ] } ],
    })
}

/// `host:port`, the host perhaps in brackets.
pub(super) fn split(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return None;
    }
    Some((host.to_owned(), port.parse().ok()?))
}
