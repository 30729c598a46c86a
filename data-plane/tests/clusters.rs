//! Cluster types, balancing and limits, over real sockets.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/clusters.rs"]
mod cluster;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;

use cluster::{Scripted, bootstrap, closed, endpoint, hosts, ok, simple};
use support::{Backend, Proxy, call, wait};

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
    let extension = "{name: c, connect_timeout: 1s, lb_policy: CLUSTER_PROVIDED, cluster_type: {name: o, \
                     typed_config: {\"@type\": type.googleapis.com/envoy.extensions.clusters.original_dst.v3.\
                     OriginalDstCluster, use_http_header: true, http_header_name: \":authority\"}}}";
    let proxy = Proxy::ready(&simple(extension.to_owned()), &[]);
    assert_eq!(call(proxy.listener("in"), "GET", "/", &[("host", &to)]).unwrap().body, "there");
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

#[test]
fn names_are_resolved() {
    let backend = Backend::start("by name");
    let assignment = hosts("c", &[backend.address]).replace("127.0.0.1", "localhost");
    let cluster = format!(
        "{{name: c, type: STRICT_DNS, connect_timeout: 1s, dns_lookup_family: V4_ONLY, {assignment}}}"
    );
    let proxy = Proxy::ready(&simple(cluster), &[]);
    assert_eq!(call(proxy.listener("in"), "GET", "/", &[]).unwrap().body, "by name");
    let clusters = proxy.admin("GET", "/clusters").body;
    assert!(clusters.contains(&format!("c::{}::hostname::localhost\n", backend.address)), "{clusters}");
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

#[test]
fn a_load_assignment_may_have_requests_dropped() {
    let backend = Scripted::start(|_| Some(ok("served")));
    let cluster = |name: &str, percent: u32| {
        let policy = format!(
            "policy: {{drop_overloads: [{{category: c, drop_percentage: {{numerator: {percent}}}}}]}}"
        );
        let hosts = hosts(name, &[backend.address]).replace(" endpoints:", &format!(" {policy}, endpoints:"));
        format!("{{name: {name}, type: STATIC, connect_timeout: 1s, {hosts}}}")
    };
    let routes = ["all", "most", "none"]
        .map(|name| format!("{{match: {{path: /{name}}}, route: {{cluster: {name}}}}}"));
    let routes: Vec<_> = routes.iter().map(String::as_str).collect();
    let clusters = [cluster("all", 100), cluster("most", 50), cluster("none", 0)];
    let proxy = Proxy::ready(&bootstrap(&routes, "", &clusters), &[]);
    let get = |path: &str| call(proxy.listener("in"), "GET", path, &[]).unwrap();
    let answer = get("/all");
    assert_eq!((answer.status, &*answer.body), (503, "unconditional drop overload"));
    assert!(answer.head.contains("x-envoy-unconditional-drop-overload: true"), "{}", answer.head);
    assert_eq!(proxy.stat("cluster.all.upstream_rq_503"), Some(1));
    assert_eq!(get("/none").body, "served");
    // With a chance of 2^-60 none of them, or all, would be dropped.
    let dropped: Vec<_> = (0..60).map(|_| get("/most")).filter(|answer| answer.status == 503).collect();
    assert!((1..60).contains(&dropped.len()), "{} of 60 were dropped", dropped.len());
    assert_eq!(dropped[0].body, "drop overload");
    assert!(dropped[0].head.contains("x-envoy-drop-overload: true"), "{}", dropped[0].head);
}

#[test]
fn servers_are_asked_for_by_a_header_or_else_the_host() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let (send, hellos) = std::sync::mpsc::channel();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut hello = vec![0; 4096];
            let count = stream.unwrap().read(&mut hello).unwrap();
            let _ = send.send(String::from_utf8_lossy(&hello[..count]).into_owned());
        }
    });
    let cluster = format!(
        "{{name: c, type: STATIC, connect_timeout: 1s, transport_socket: {{name: tls, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext}}}}, \
         typed_extension_protocol_options: {{envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{\"@type\": \
         type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, upstream_http_protocol_options: \
         {{auto_sni: true, override_auto_sni_header: x-server}}, explicit_http_config: {{http_protocol_options: \
         {{}}}}}}}}, {}}}",
        hosts("c", &[address])
    );
    let proxy = Proxy::ready(&simple(cluster), &[]);
    let hello = |headers: &[(&str, &str)]| {
        assert_eq!(call(proxy.listener("in"), "GET", "/", headers).unwrap().status, 503);
        hellos.recv_timeout(std::time::Duration::from_secs(10)).unwrap()
    };
    assert!(hello(&[("host", "by-host.test:80")]).contains("by-host.test"));
    let by_header = hello(&[("host", "by-host.test"), ("x-server", "by-header.test")]);
    assert!(by_header.contains("by-header.test") && !by_header.contains("by-host.test"));
}

/// `track_cluster_stats.per_endpoint_stats`
#[test]
fn hosts_may_have_statistics_of_their_own() {
    let (backend, nobody) = (Backend::start("one"), closed());
    let named = format!(
        "{{endpoint: {{hostname: named, address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}",
        backend.address.port()
    );
    let cluster = format!(
        "{{name: c, type: STATIC, connect_timeout: 1s, track_cluster_stats: {{per_endpoint_stats: true}}, \
         load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{named}, {}]}}]}}}}",
        endpoint(nobody)
    );
    let proxy = Proxy::ready(&simple(cluster), &[]);
    let listener = proxy.listener("in");
    let mut statuses = [(); 4].map(|()| call(listener, "GET", "/", &[]).unwrap().status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503, 503]);
    let of = |port: u16, stat: &str| proxy.stat(&format!("cluster.c.endpoint.127.0.0.1_{port}.{stat}"));
    for (port, stat, expected) in [
        (backend.address.port(), "rq_total", 2),
        (backend.address.port(), "rq_success", 2),
        (backend.address.port(), "healthy", 1),
        (nobody.port(), "cx_connect_fail", 2),
        (nobody.port(), "rq_error", 2),
        (nobody.port(), "rq_total", 0),
    ] {
        assert_eq!(of(port, stat), Some(expected), "{stat} of {port}");
    }
    let page = proxy.admin("GET", "/stats/prometheus?filter=rq_success").body;
    let labels = format!("envoy_endpoint_address=\"{}\",envoy_endpoint_hostname=\"named\"", backend.address);
    let line = format!("envoy_cluster_endpoint_rq_success{{envoy_cluster_name=\"c\",{labels}}} 2\n");
    assert!(page.contains(&line), "{page}");
}
