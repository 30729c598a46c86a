//! Which stats the proxy keeps, and which parts of their names become tags: the names are Istio's, so that dashboards
//! find them.

use serde_json::{Value, json};

use super::resources::split;
use crate::config::AgentConfig;

/// Always kept.
const PREFIXES: &[&str] = &[
    "reporter=",
    "cluster_manager",
    "listener_manager",
    "server",
    "cluster.xds-grpc",
    "wasm",
    "component",
    "istio",
];
/// Always kept.
const SUFFIXES: &[&str] = &["rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied"];
/// What a draining agent looks at.
const ACTIVE_CONNECTIONS: &str = "downstream_cx_active";

/// A tag and the expression whose first group is cut out of the name, the second being the tag's value.
const TAGS: &[(&str, &str)] = &[
    ("cluster_name", r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    (
        "http_conn_manager_listener_prefix",
        r"^listener\..*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    ("http_conn_manager_prefix", r"^http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("listener_address", r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("mongo_prefix", r"^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$"),
];

/// `stats_config`
pub(super) fn config(config: &AgentConfig) -> Value {
    let tags: Vec<Value> =
        TAGS.iter().map(|(name, regex)| json!({ "tag_name": name, "regex": regex })).collect();
    json!({
        "use_all_default_tags": false,
        "stats_tags": tags,
        "stats_matcher": { "inclusion_list": { "patterns": patterns(config) } },
    })
}

fn patterns(config: &AgentConfig) -> Vec<Value> {
    let wanted = &config.proxy.stats_matcher;
    let own = |list: &[String], kind: &str| -> Vec<Value> {
        list.iter().map(|text| json!({ kind: text })).collect()
    };
    let mut patterns: Vec<Value> = PREFIXES.iter().map(|text| json!({ "prefix": text })).collect();
    patterns.extend(own(&wanted.prefixes, "prefix"));
    patterns.extend(SUFFIXES.iter().map(|text| json!({ "suffix": text })));
    patterns.extend(own(&wanted.suffixes, "suffix"));
    if config.env.exit_on_zero_connections {
        patterns.push(json!({ "suffix": ACTIVE_CONNECTIONS }));
    }
    patterns.extend(wanted.regexps.iter().map(|text| json!({ "safe_regex": { "regex": text } })));
    patterns
}

/// `stats_sinks`
pub(super) fn sinks(config: &AgentConfig) -> Option<Value> {
    let (host, port) = split(&config.proxy.statsd_udp_address)?;
    Some(json!([ {
        "name": "envoy.stat_sinks.statsd",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.metrics.v3.StatsdSink",
            "address": { "socket_address": { "protocol": "UDP", "address": host, "port_value": port } },
        },
    } ]))
}
