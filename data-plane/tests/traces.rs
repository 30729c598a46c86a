//! Spans as a collector gets them.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use serde_json::Value;
use support::{Backend, Proxy, call};

/// A proxy that traces to a collector, with these fields of `tracing`, before a backend.
fn traced(backend: &Backend, collector: &Backend, tracing: &str) -> Proxy {
    let tracing = format!("provider: {ZIPKIN}\n            {tracing}");
    Proxy::ready(&bootstrap(backend, collector, &tracing), &[])
}

const ZIPKIN: &str = "{name: zipkin, typed_config: {'@type': type.googleapis.com/envoy.config.trace.v3.ZipkinConfig, \
                      collector_cluster: c, collector_endpoint: /api/v2/spans, collector_endpoint_version: HTTP_JSON}}";

/// With these fields of the connection manager's `tracing`.
fn bootstrap(backend: &Backend, collector: &Backend, tracing: &str) -> String {
    let cluster = |name: &str, port: u16| {
        format!(
            "{{name: {name}, type: STATIC, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: \
             [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}}}"
        )
    };
    format!(
        "
static_resources:
  listeners:
  - name: l
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: x
          tracing:
            {tracing}
          route_config:
            virtual_hosts:
            - name: v
              domains: ['*']
              routes:
              - match: {{prefix: /own}}
                route: {{cluster: b}}
                tracing:
                  client_sampling: {{numerator: 100}}
                  random_sampling: {{numerator: 100}}
                  overall_sampling: {{numerator: 100}}
                  operation: 'own %REQ(x-a)%'
                  custom_tags:
                  - {{tag: general, literal: {{value: route}}}}
                  - {{tag: a, request_header: {{name: x-a, default_value: none}}}}
              - match: {{prefix: /}}
                route: {{cluster: b}}
          http_filters:
          - name: router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters: [{}, {}]
",
        cluster("b", backend.address.port()),
        cluster("c", collector.address.port()),
    )
}

/// So many spans that the collector got, by their kind.
fn spans(collector: &Backend, count: usize) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    while all.len() < count {
        let request = collector.next();
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        let list: Vec<Value> = serde_json::from_str(body).unwrap();
        all.extend(list);
    }
    all.sort_by_key(|span| span["kind"].to_string());
    all
}

#[test]
fn routes_have_tags_and_names_of_their_own() {
    let (backend, collector) = (Backend::start("b"), Backend::start("c"));
    let tracing = "custom_tags: [{tag: general, literal: {value: all}}, {tag: other, literal: {value: x}}]";
    let proxy = traced(&backend, &collector, tracing);
    let to = proxy.listener("l");
    assert_eq!(call(to, "GET", "/own", &[("x-a", "5")]).unwrap().status, 200);
    let span = &spans(&collector, 1)[0];
    assert_eq!(span["name"], "own 5");
    let tags = &span["tags"];
    assert_eq!((&tags["general"], &tags["a"], &tags["other"]), (&"route".into(), &"5".into(), &"x".into()));
    assert!(span.get("annotations").is_none());
    assert_eq!(call(to, "GET", "/", &[]).unwrap().status, 200);
    assert_eq!(spans(&collector, 1)[0]["tags"]["general"], "all");
}

#[test]
fn tries_are_spans_of_their_own_where_that_is_asked_for() {
    let (backend, collector) = (Backend::start("b"), Backend::start("c"));
    let proxy = traced(&backend, &collector, "spawn_upstream_span: true\n            verbose: true");
    assert_eq!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().status, 200);
    let spans = spans(&collector, 2);
    let [client, server] = spans.as_slice() else { panic!("{spans:?}") };
    assert_eq!((&client["kind"], &server["kind"]), (&"CLIENT".into(), &"SERVER".into()));
    assert_eq!(client["traceId"], server["traceId"]);
    assert_eq!(client["parentId"], server["id"]);
    assert_eq!(client["name"], "router b egress");
    assert_eq!(client["tags"]["upstream_address"], backend.address.to_string());
    assert_eq!(client["tags"]["http.status_code"], "200");
    let moments: Vec<&str> =
        server["annotations"].as_array().unwrap().iter().map(|one| one["value"].as_str().unwrap()).collect();
    assert!(moments.contains(&"first_upstream_rx_byte_received"), "{moments:?}");
    let seen = backend.next();
    let id = client["id"].as_str().unwrap();
    assert!(seen.contains(&format!("x-b3-spanid: {id}\r\n")), "{seen}");
}

#[test]
fn who_names_no_tracer_has_the_bootstraps() {
    let (backend, collector) = (Backend::start("b"), Backend::start("c"));
    let config = bootstrap(&backend, &collector, "random_sampling: {value: 100}");
    let proxy = Proxy::ready(&format!("tracing: {{http: {ZIPKIN}}}\n{config}"), &[]);
    assert_eq!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().status, 200);
    assert!(!spans(&collector, 1).is_empty());
}
