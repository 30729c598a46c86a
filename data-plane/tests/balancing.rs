//! Hosts that requests, filters and hosts themselves have a say in: forward proxies, overrides, reported weights.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/clusters.rs"]
mod cluster;
mod support;

use std::net::SocketAddr;

use cluster::{Scripted, bootstrap, hosts};
use support::{Backend, Proxy, call, wait};

const TYPES: &str = "type.googleapis.com/envoy.extensions";

fn filter(config: &str) -> String {
    format!(
        "- name: filter\n            typed_config: {{\"@type\": {TYPES}.filters.http.{config}}}\n          "
    )
}

fn forward(config: &str) -> String {
    format!(
        "{{name: c, connect_timeout: 1s, lb_policy: CLUSTER_PROVIDED, dns_lookup_family: V4_ONLY, cluster_type: {{name: \
         forward, typed_config: {{\"@type\": {TYPES}.clusters.dynamic_forward_proxy.v3.ClusterConfig, {config}}}}}}}"
    )
}

/// The upstream's address as filter state has it comes back in a header.
const TELLS: &str = "{match: {prefix: /}, route: {cluster: c}, response_headers_to_add: [{header: {key: x-up, value: \
    \"%FILTER_STATE(envoy.stream.upstream_address:PLAIN)%\"}}]}";

fn told(head: &str) -> &str {
    head.lines().find_map(|line| line.strip_prefix("x-up: ")).unwrap_or_default()
}

#[test]
fn names_are_clusters_of_their_own() {
    let backend = Backend::start("forwarded");
    let wanted =
        filter("dynamic_forward_proxy.v3.FilterConfig, sub_cluster_config: {}, save_upstream_address: true");
    let cluster = forward("sub_clusters_config: {lb_policy: LEAST_REQUEST, max_sub_clusters: 2}");
    let proxy = Proxy::ready(&bootstrap(&[TELLS], &wanted, &[cluster]), &[]);
    let listener = proxy.listener("in");
    let host = format!("localhost:{}", backend.address.port());
    for _ in 0..2 {
        let answer = call(listener, "GET", "/", &[("host", &host)]).unwrap();
        assert_eq!((&*answer.body, told(&answer.head)), ("forwarded", &*backend.address.to_string()));
    }
    // A name that has no host is a cluster without one.
    let answer = call(listener, "GET", "/", &[("host", "no-such-host.invalid")]).unwrap();
    assert_eq!((answer.status, &*answer.body), (503, "no healthy upstream"));
    let numeric = backend.address.to_string();
    assert_eq!(call(listener, "GET", "/", &[("host", &numeric)]).unwrap().body, "forwarded");
    let answer = call(listener, "GET", "/", &[("host", "127.0.0.9:1")]).unwrap();
    assert_eq!((answer.status, &*answer.body), (503, "Sub cluster overflow"));
    assert!(proxy.admin("GET", "/clusters").body.contains("::hostname::localhost\n"));
}

#[test]
fn filter_state_names_host_and_port() {
    let backend = Backend::start("forwarded");
    let cache = "dns_cache_config: {name: cache, dns_lookup_family: V4_ONLY}";
    let value = |key: &str, value: &str| {
        format!(
            "{{object_key: {key}, format_string: {{text_format_source: {{inline_string: \"{value}\"}}}}}}"
        )
    };
    let state = filter(&format!(
        "set_filter_state.v3.Config, on_request_headers: [{}, {}]",
        value("envoy.upstream.dynamic_host", "localhost"),
        value("envoy.upstream.dynamic_port", &backend.address.port().to_string())
    ));
    let run = |allowed: bool| {
        let wanted = filter(&format!(
            "dynamic_forward_proxy.v3.FilterConfig, {cache}, save_upstream_address: true, \
             allow_dynamic_host_from_filter_state: {allowed}"
        ));
        let filters = format!("{state}{wanted}");
        let proxy = Proxy::ready(&bootstrap(&[TELLS], &filters, &[forward(cache)]), &[]);
        call(proxy.listener("in"), "GET", "/", &[("host", "no-such-host.invalid")]).unwrap()
    };
    let answer = run(true);
    assert_eq!((&*answer.body, told(&answer.head)), ("forwarded", &*backend.address.to_string()));
    assert_eq!(run(false).body, "DNS resolution failure");
}

fn balanced(policy: &str, addresses: &[SocketAddr]) -> String {
    format!(
        "{{name: c, type: STATIC, connect_timeout: 1s, load_balancing_policy: {{policies: [{{typed_extension_config: \
         {{name: p, typed_config: {{\"@type\": {TYPES}.load_balancing_policies.{policy}}}}}}}]}}, {}}}",
        hosts("c", addresses)
    )
}

#[test]
fn metadata_override_the_choice_of_a_host() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let policy = format!(
        "override_host.v3.OverrideHost, override_host_sources: [{{metadata: {{key: envoy.lb, path: [{{key: to}}]}}}}, \
         {{header: x-other}}], fallback_policy: {{policies: [{{typed_extension_config: {{name: r, typed_config: \
         {{\"@type\": {TYPES}.load_balancing_policies.round_robin.v3.RoundRobin}}}}}}]}}"
    );
    let learn = filter(
        "header_to_metadata.v3.Config, request_rules: [{header: x-to, on_header_present: {metadata_namespace: \
         envoy.lb, key: to, type: STRING}}]",
    );
    let cluster = balanced(&policy, &[one.address, two.address]);
    let routes = &["{match: {prefix: /}, route: {cluster: c}}"];
    let proxy = Proxy::ready(&bootstrap(routes, &learn, &[cluster]), &[]);
    let listener = proxy.listener("in");
    let (to, other) = (format!("127.0.0.9:1, {}", two.address), one.address.to_string());
    for _ in 0..4 {
        let headers = [("x-to", &*to), ("x-other", &*other)];
        assert_eq!(call(listener, "GET", "/", &headers).unwrap().body, "two", "metadata come first");
        assert_eq!(call(listener, "GET", "/", &[("x-other", &other)]).unwrap().body, "one");
    }
    let both: std::collections::BTreeSet<String> =
        (0..4).map(|_| call(listener, "GET", "/", &[]).unwrap().body).collect();
    assert_eq!(both.len(), 2);
}

#[test]
fn hosts_report_their_weights() {
    // One in its head, the other behind its body.
    let idle = Scripted::start(|_| {
        let report = r#"JSON {"cpu_utilization": 0.1, "rps_fractional": 10}"#;
        Some(format!("HTTP/1.1 200 OK\r\nendpoint-load-metrics: {report}\r\ncontent-length: 4\r\n\r\nidle"))
    });
    let busy = Scripted::start(|_| {
        let report = "TEXT cpu_utilization=1,rps_fractional=10";
        Some(format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: endpoint-load-metrics\r\n\r\n4\r\nbusy\r\n0\r\n\
             endpoint-load-metrics: {report}\r\n\r\n"
        ))
    });
    let policy = "client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin, blackout_period: 0s, \
                  weight_update_period: 0.1s";
    let trailers = "name: c, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
        {\"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
        explicit_http_config: {http_protocol_options: {enable_trailers: true}}}}";
    let cluster = balanced(policy, &[idle.address, busy.address]).replacen("name: c", trailers, 1);
    let proxy = Proxy::ready(&bootstrap(&["{match: {prefix: /}, route: {cluster: c}}"], "", &[cluster]), &[]);
    let listener = proxy.listener("in");
    // Ten to one, once both have reported.
    wait("the weights", || {
        let before = (idle.requests(), busy.requests());
        for _ in 0..44 {
            assert_eq!(call(listener, "GET", "/", &[]).unwrap().status, 200);
        }
        let (idle, busy) = (idle.requests() - before.0, busy.requests() - before.1);
        (idle + busy == 44 && (3..=5).contains(&busy)).then_some(())
    });
}
