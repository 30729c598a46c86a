//! Proxies with filters before the router.

use std::net::SocketAddr;

use super::support::Proxy;

pub(crate) const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";

/// All to the cluster `app`.
pub(crate) const APP: &str = "{match: {prefix: /}, route: {cluster: app}}";

/// A filter of a name, with a configuration that begins with its type's last part.
pub(crate) fn filter(name: &str, config: &str) -> String {
    format!("{{name: {name}, typed_config: {{\"@type\": {FILTERS}.{config}}}}}, ")
}

/// A cluster of these hosts; `more` stands before its endpoints.
pub(crate) fn cluster(name: &str, to: &[SocketAddr], more: &str) -> String {
    let host = |to: &SocketAddr| {
        format!(
            "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}",
            to.ip(),
            to.port()
        )
    };
    let hosts: Vec<_> = to.iter().map(host).collect();
    format!(
        "  - {{name: {name}, type: STATIC, connect_timeout: 1s, {more}load_assignment: {{cluster_name: {name}, \
         endpoints: [{{lb_endpoints: [{}]}}]}}}}\n",
        hosts.join(", ")
    )
}

/// The bootstrap of a proxy with these filters before the router, routes and clusters, and a listener `l`.
pub(crate) fn bootstrap(filters: &str, routes: &str, clusters: &str) -> String {
    format!(
        "node: {{id: n, cluster: c}}\nstatic_resources:\n  listeners:\n  - name: l\n    address: {{socket_address: \
         {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains: [{{filters: [{{name: hcm, typed_config: \
         {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: in, route_config: {{name: r, virtual_hosts: [{{name: v, domains: [\"*\"], routes: [{routes}]}}]}}, \
         http_filters: [{filters}{{name: router, typed_config: {{\"@type\": {FILTERS}.router.v3.Router}}}}]}}}}]}}]\n  \
         clusters:\n{clusters}"
    )
}

/// That proxy, serving.
pub(crate) fn proxy(filters: &str, routes: &str, clusters: &str) -> Proxy {
    Proxy::ready(&bootstrap(filters, routes, clusters), &[])
}

/// What a cluster of HTTP/2 hosts says.
pub(crate) const HTTP2: &str = "http2_protocol_options: {}, ";
