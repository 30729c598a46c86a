//! What the main thread does for clusters: names resolved, hosts checked, hosts that fail ejected and let back in.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::net::TcpListener;

use support::{Backend, Proxy, call, wait};

/// A listener that leads to one cluster, of which this is the rest.
fn bootstrap(cluster: &str) -> String {
    format!(
        r#"
static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config:
            virtual_hosts: [{{name: v, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: c}}}}]}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: c
    connect_timeout: 1s
{cluster}
"#
    )
}

fn endpoints(host: &str, ports: &[u16]) -> String {
    let one = |port: &u16| {
        format!("{{endpoint: {{address: {{socket_address: {{address: \"{host}\", port_value: {port}}}}}}}}}")
    };
    let all: Vec<String> = ports.iter().map(one).collect();
    format!("    load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{}]}}]}}\n", all.join(", "))
}

/// A port where nobody listens.
fn closed() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn names_are_resolved() {
    let backend = Backend::start("by name");
    let cluster = "    type: STRICT_DNS\n    dns_lookup_family: V4_ONLY\n".to_owned();
    let proxy =
        Proxy::ready(&bootstrap(&(cluster + &endpoints("localhost", &[backend.address.port()]))), &[]);
    assert_eq!(call(proxy.listener("in"), "GET", "/", &[]).unwrap().body, "by name");
    let clusters = proxy.admin("GET", "/clusters").body;
    assert!(clusters.contains(&format!("c::{}::hostname::localhost\n", backend.address)), "{clusters}");
}

#[test]
fn a_host_that_fails_its_checks_gets_nothing() {
    let backend = Backend::start("well");
    let checks = "    type: STATIC\n    health_checks: [{timeout: 1s, interval: 0.05s, no_traffic_interval: 0.05s, \
                  unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /healthz}}]\n";
    let ports = [closed(), backend.address.port()];
    let proxy = Proxy::ready(&bootstrap(&(checks.to_owned() + &endpoints("127.0.0.1", &ports))), &[]);
    wait("one host in health", || (proxy.stat("cluster.c.membership_healthy")? == 1).then_some(()));
    wait("the other out of it", || (proxy.stat("cluster.c.health_check.failure")? > 0).then_some(()));
    let listener = proxy.listener("in");
    for _ in 0..10 {
        assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "well");
    }
    assert!(backend.next().starts_with("GET /healthz HTTP/1.1"));
}

#[test]
fn a_host_that_fails_is_ejected_and_let_back_in() {
    let backend = Backend::start("well");
    let detection = "    type: STATIC\n    outlier_detection: {consecutive_5xx: 1, interval: 0.1s, \
                     base_ejection_time: 0.3s, max_ejection_percent: 100, enforcing_success_rate: 0}\n";
    let ports = [closed(), backend.address.port()];
    let proxy = Proxy::ready(&bootstrap(&(detection.to_owned() + &endpoints("127.0.0.1", &ports))), &[]);
    let listener = proxy.listener("in");
    wait("a failure", || (call(listener, "GET", "/", &[]).unwrap().status == 503).then_some(()));
    let enforced = proxy.stat("cluster.c.outlier_detection.ejections_enforced_consecutive_5xx");
    assert_eq!(enforced, Some(1));
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "well");
    wait("its return", || (proxy.stat("cluster.c.outlier_detection.ejections_active")? == 0).then_some(()));
    wait("a failure again", || (call(listener, "GET", "/", &[]).unwrap().status == 503).then_some(()));
}
