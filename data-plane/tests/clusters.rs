//! Cluster types, balancing, limits and health checks, over real sockets.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use support::{Backend, Proxy, call, wait};

const ROUTER: &str = "- name: envoy.filters.http.router\n            typed_config: {\"@type\": \
                      type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}";

/// A listener with these routes and filters, and these clusters, each a line of flow YAML.
fn bootstrap(routes: &[&str], filters: &str, clusters: &[String]) -> String {
    let clusters: String = clusters.iter().map(|cluster| format!("  - {cluster}\n")).collect();
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
            virtual_hosts: [{{name: v, domains: ["*"], routes: [{}]}}]
          http_filters:
          {filters}{ROUTER}
  clusters:
{clusters}"#,
        routes.join(", ")
    )
}

fn simple(cluster: String) -> String {
    bootstrap(&["{match: {prefix: /}, route: {cluster: c}}"], "", &[cluster])
}

fn endpoint(address: SocketAddr) -> String {
    format!(
        "endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}",
        address.ip(),
        address.port()
    )
}

fn hosts(name: &str, addresses: &[SocketAddr]) -> String {
    let all: Vec<String> = addresses.iter().map(|address| format!("{{{}}}", endpoint(*address))).collect();
    format!("load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}", all.join(", "))
}

/// A port where nobody listens.
fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server that answers every request of a connection with this, and counts connections and requests.
struct Scripted {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Scripted {
    fn start(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen, asked, answer) = (connections.clone(), requests.clone(), Arc::new(answer));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                seen.fetch_add(1, Ordering::SeqCst);
                let (asked, answer) = (asked.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &*answer, &asked));
            }
        });
        Self { address, connections, requests }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Without an answer, the connection is held open in silence.
fn serve(mut stream: TcpStream, answer: &dyn Fn(&str) -> Option<String>, asked: &AtomicUsize) {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
        while let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = seen.drain(..end + 4).collect();
            asked.fetch_add(1, Ordering::SeqCst);
            if let Some(answer) = answer(&String::from_utf8_lossy(&head))
                && stream.write_all(answer.as_bytes()).is_err()
            {
                return;
            }
        }
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_route_reaches_its_subset() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let with = |backend: &Backend, version| {
        let metadata = format!("metadata: {{filter_metadata: {{envoy.lb: {{version: {version}}}}}}}");
        format!("{{{}, {metadata}}}", endpoint(backend.address))
    };
    let cluster = format!(
        "{{name: c, type: STATIC, connect_timeout: 1s, lb_subset_config: {{fallback_policy: NO_FALLBACK, \
         subset_selectors: [{{keys: [version]}}]}}, load_assignment: {{cluster_name: c, endpoints: \
         [{{lb_endpoints: [{}, {}]}}]}}}}",
        with(&one, "v1"),
        with(&two, "v2")
    );
    let route = |prefix, version| {
        format!(
            "{{match: {{prefix: {prefix}}}, route: {{cluster: c, metadata_match: {{filter_metadata: \
             {{envoy.lb: {{version: {version}}}}}}}}}}}"
        )
    };
    let routes = [route("/1", "v1"), route("/2", "v2"), route("/3", "v3")];
    let routes: Vec<&str> = routes.iter().map(String::as_str).collect();
    let proxy = Proxy::ready(&bootstrap(&routes, "", &[cluster]), &[]);
    let listener = proxy.listener("in");
    for _ in 0..5 {
        assert_eq!(call(listener, "GET", "/1", &[]).unwrap().body, "one");
        assert_eq!(call(listener, "GET", "/2", &[]).unwrap().body, "two");
    }
    assert_eq!(call(listener, "GET", "/3", &[]).unwrap().status, 503);
    assert_eq!(proxy.stat("cluster.c.lb_subsets_active"), Some(2));
    assert_eq!(proxy.stat("cluster.c.lb_subsets_selected"), Some(10));
}

#[test]
fn an_aggregate_falls_over_to_its_next_cluster() {
    let second = Backend::start("second");
    let checks = "health_checks: [{timeout: 1s, interval: 0.05s, no_traffic_interval: 0.05s, \
                  unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: {path: /h}}]";
    let common = "common_lb_config: {healthy_panic_threshold: {value: 0}}";
    let clusters = [
        "{name: c, connect_timeout: 1s, lb_policy: CLUSTER_PROVIDED, cluster_type: {name: \
         envoy.clusters.aggregate, typed_config: {\"@type\": \
         type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig, clusters: [a, b]}}}"
            .to_owned(),
        format!(
            "{{name: a, type: STATIC, connect_timeout: 1s, {common}, {checks}, {}}}",
            hosts("a", &[closed()])
        ),
        format!("{{name: b, type: STATIC, connect_timeout: 1s, {}}}", hosts("b", &[second.address])),
    ];
    let proxy = Proxy::ready(&bootstrap(&["{match: {prefix: /}, route: {cluster: c}}"], "", &clusters), &[]);
    wait("the first cluster's failure", || (proxy.stat("cluster.a.health_check.failure")? > 0).then_some(()));
    let listener = proxy.listener("in");
    for _ in 0..5 {
        assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "second");
    }
    assert_eq!(proxy.stat("cluster.b.upstream_rq_total"), Some(5), "the member answers for itself");
}

#[test]
fn a_header_names_the_destination() {
    let backend = Backend::start("there");
    let cluster = "{name: c, type: ORIGINAL_DST, connect_timeout: 1s, lb_policy: CLUSTER_PROVIDED, \
                   original_dst_lb_config: {use_http_header: true}}";
    let proxy = Proxy::ready(&simple(cluster.to_owned()), &[]);
    let to = backend.address.to_string();
    let listener = proxy.listener("in");
    let answer = call(listener, "GET", "/", &[("x-envoy-original-dst-host", &to)]).unwrap();
    assert_eq!(answer.body, "there");
    let answer = call(listener, "GET", "/", &[("x-envoy-original-dst-host", "nowhere")]).unwrap();
    assert_eq!(answer.status, 503);
    let clusters = proxy.admin("GET", "/clusters").body;
    assert!(clusters.contains(&format!("c::{to}::health_flags::healthy\n")), "{clusters}");
}

#[test]
fn names_that_requests_bring_are_resolved() {
    let backend = Backend::start("forwarded");
    let cache = "dns_cache_config: {name: cache, dns_lookup_family: V4_ONLY}";
    let filter = format!(
        "- name: envoy.filters.http.dynamic_forward_proxy\n            typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig, {cache}}}\n          "
    );
    let cluster = format!(
        "{{name: c, connect_timeout: 1s, lb_policy: CLUSTER_PROVIDED, cluster_type: {{name: \
         envoy.clusters.dynamic_forward_proxy, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig, {cache}}}}}}}"
    );
    let routes = &["{match: {prefix: /}, route: {cluster: c}}"];
    let proxy = Proxy::ready(&bootstrap(routes, &filter, &[cluster]), &[]);
    let listener = proxy.listener("in");
    let host = format!("localhost:{}", backend.address.port());
    assert_eq!(call(listener, "GET", "/", &[("host", &host)]).unwrap().body, "forwarded");
    let numeric = backend.address.to_string();
    assert_eq!(call(listener, "GET", "/", &[("host", &numeric)]).unwrap().body, "forwarded");
    let answer = call(listener, "GET", "/", &[("host", "no-such-host.invalid")]).unwrap();
    assert_eq!((answer.status, &*answer.body), (503, "DNS resolution failure"));
    assert!(proxy.admin("GET", "/clusters").body.contains("::hostname::localhost\n"));
}

#[test]
fn what_exceeds_a_limit_is_refused_and_counted() {
    let backend = Scripted::start(|head| (!head.starts_with("GET /hang")).then(|| ok("free")));
    let breakers = "circuit_breakers: {thresholds: [{max_connections: 1, max_pending_requests: 1, \
                    track_remaining: true}]}";
    let cluster = format!(
        "{{name: c, type: STATIC, connect_timeout: 1s, {breakers}, {}}}",
        hosts("c", &[backend.address])
    );
    let proxy = Proxy::ready(&simple(cluster), &[]);
    let listener = proxy.listener("in");
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "free");
    let stat = |name: &str| proxy.stat(&format!("cluster.c.circuit_breakers.default.{name}"));
    assert_eq!([stat("remaining_cx"), stat("remaining_pending")], [Some(0), Some(1)]);
    assert_eq!(
        [stat("cx_open"), stat("rq_pending_open"), stat("remaining_rq")],
        [Some(1), Some(0), Some(1024)]
    );
    // One holds the connection, one waits for it, the third is too many.
    let hold = || {
        let mut stream = TcpStream::connect(listener).unwrap();
        stream.write_all(b"GET /hang HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        stream
    };
    let _first = hold();
    wait("a request on the connection", || (backend.requests() == 2).then_some(()));
    let _second = hold();
    wait("a request in line", || (proxy.stat("cluster.c.upstream_rq_pending_active")? == 1).then_some(()));
    assert_eq!(stat("rq_pending_open"), Some(1));
    let answer = call(listener, "GET", "/", &[]).unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("x-envoy-overloaded: true"), "{}", answer.head);
    assert_eq!(proxy.stat("cluster.c.upstream_rq_pending_overflow"), Some(1));
    assert_eq!(backend.connections(), 1);
}

#[test]
fn connections_end_after_so_many_requests_or_so_long() {
    let backend = Scripted::start(|_| Some(ok("again")));
    let options = |common: &str| {
        format!(
            "{{name: c, type: STATIC, connect_timeout: 1s, typed_extension_protocol_options: \
             {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{\"@type\": \
             type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
             common_http_protocol_options: {{{common}}}, explicit_http_config: {{http_protocol_options: {{}}}}}}}}, \
             {}}}",
            hosts("c", &[backend.address])
        )
    };
    let proxy = Proxy::ready(&simple(options("max_requests_per_connection: 2")), &[]);
    for _ in 0..4 {
        assert_eq!(call(proxy.listener("in"), "GET", "/", &[]).unwrap().body, "again");
    }
    assert_eq!(backend.connections(), 2);
    let proxy = Proxy::ready(&simple(options("max_connection_duration: 0.05s")), &[]);
    assert_eq!(call(proxy.listener("in"), "GET", "/", &[]).unwrap().body, "again");
    wait("the connection's end", || {
        assert_eq!(call(proxy.listener("in"), "GET", "/", &[]).unwrap().body, "again");
        (proxy.stat("cluster.c.upstream_cx_max_duration_reached")? > 0).then_some(())
    });
}

/// A cluster of one host that is checked often, by this.
fn checked(address: SocketAddr, checker: &str) -> String {
    format!(
        "{{name: c, type: STATIC, connect_timeout: 1s, common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}, \
         health_checks: [{{timeout: 1s, interval: 0.03s, no_traffic_interval: 0.03s, unhealthy_threshold: 1, \
         healthy_threshold: 1, event_logger: [{{name: file, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink, \
         event_log_path: $DIR/events}}}}], {checker}}}], {}}}",
        hosts("c", &[address])
    )
}

fn becomes(proxy: &Proxy, healthy: i64) {
    wait("another health", || {
        (proxy.stat("cluster.c.health_check.attempt")? > 1
            && proxy.stat("cluster.c.membership_healthy")? == healthy)
            .then_some(())
    });
}

#[test]
fn http_checks_look_at_status_headers_and_body() {
    let backend = Scripted::start(|head| {
        let asked = head.starts_with("HEAD /h ") || head.starts_with("GET /h ");
        let known = head.contains("host: checked.example") && head.contains("x-check: yes");
        let name = if asked && known { "reviews" } else { "other" };
        Some(format!("HTTP/1.1 204 No Content\r\nx-envoy-upstream-healthchecked-cluster: {name}-1\r\n\r\n"))
    });
    let check = "http_health_check: {path: /h, host: checked.example, expected_statuses: [{start: 200, end: 300}], \
                 request_headers_to_add: [{header: {key: x-check, value: \"yes\"}}], service_name_matcher: \
                 {prefix: reviews}}";
    let proxy = Proxy::ready(&simple(checked(backend.address, check)), &[]);
    becomes(&proxy, 1);
    assert_eq!(backend.connections(), 1, "one connection serves all checks");
    let events = std::fs::read_to_string(proxy.dir.path().join("events")).unwrap();
    assert!(events.contains(r#""add_healthy_event":{"first_check":true}"#), "{events}");
    drop(proxy);
    let wrong = check.replace("reviews", "ratings");
    let proxy = Proxy::ready(&simple(checked(backend.address, &wrong)), &[]);
    becomes(&proxy, 0);
    assert_eq!(call(proxy.listener("in"), "GET", "/", &[]).unwrap().status, 503);
    let clusters = proxy.admin("GET", "/clusters").body;
    assert!(clusters.contains("::health_flags::/failed_active_hc\n"), "{clusters}");
}

#[test]
fn http_checks_read_bodies() {
    let backend = Scripted::start(|_| Some(ok("all is well")));
    let text = hex(b"is well");
    let check = format!("http_health_check: {{path: /h, receive: [{{text: \"{text}\"}}]}}");
    becomes(&Proxy::ready(&simple(checked(backend.address, &check)), &[]), 1);
    let other = check.replace(&text, &hex(b"is bad"));
    becomes(&Proxy::ready(&simple(checked(backend.address, &other)), &[]), 0);
}

#[test]
fn tcp_checks_send_and_receive() {
    let backend = Scripted::start(|head| head.starts_with("PING").then(|| "xxPONGxx".to_owned()));
    let ping = hex(b"PING\r\n\r\n");
    let check = |receive: &[u8]| {
        format!("tcp_health_check: {{send: {{text: \"{ping}\"}}, receive: [{{text: \"{}\"}}]}}", hex(receive))
    };
    becomes(&Proxy::ready(&simple(checked(backend.address, &check(b"PONG"))), &[]), 1);
    let slow = checked(backend.address, &check(b"GONE"))
        .replace("timeout: 1s, interval", "timeout: 0.05s, interval");
    becomes(&Proxy::ready(&simple(slow), &[]), 0);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_name_that_is_logical_has_one_host() {
    let backend = Backend::start("logical");
    let assignment = hosts("c", &[backend.address]).replace("127.0.0.1", "localhost");
    let cluster = format!(
        "{{name: c, type: LOGICAL_DNS, connect_timeout: 1s, dns_lookup_family: V4_ONLY, respect_dns_ttl: true, \
         {assignment}}}"
    );
    let proxy = Proxy::ready(&simple(cluster), &[]);
    assert_eq!(call(proxy.listener("in"), "GET", "/", &[]).unwrap().body, "logical");
    assert_eq!(proxy.stat("cluster.c.membership_total"), Some(1));
}

#[test]
fn a_header_overrides_the_choice_of_a_host() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let cluster = format!(
        "{{name: c, type: STATIC, connect_timeout: 1s, load_balancing_policy: {{policies: [{{typed_extension_config: \
         {{name: o, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost, \
         override_host_sources: [{{header: x-to}}], fallback_policy: {{policies: [{{typed_extension_config: {{name: r, \
         typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin}}}}}}]}}}}}}}}]}}, {}}}",
        hosts("c", &[one.address, two.address])
    );
    let proxy = Proxy::ready(&simple(cluster), &[]);
    let listener = proxy.listener("in");
    let to = two.address.to_string();
    for _ in 0..4 {
        assert_eq!(call(listener, "GET", "/", &[("x-to", &to)]).unwrap().body, "two");
    }
    let both: std::collections::BTreeSet<String> =
        (0..4).map(|_| call(listener, "GET", "/", &[]).unwrap().body).collect();
    assert_eq!(both.len(), 2);
}
