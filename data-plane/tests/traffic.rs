//! What clients and backends see of requests through the real binary.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use support::{Backend, Proxy, call, wait};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "{name: envoy.filters.http.router, typed_config: {\"@type\": \
    type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";

/// A listener on a port of the kernel's choosing with these routes, further filters and further fields.
fn listener(name: &str, routes: &str, filters: &str, more: &str) -> String {
    format!(
        "  - name: {name}\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    \
         filter_chains: [{{filters: [{{name: hcm, typed_config: {{\"@type\": {HCM}, stat_prefix: {name}, {more} \
         route_config: {{name: r, validate_clusters: false, virtual_hosts: [{{name: v, domains: [\"*\"], include_request_attempt_count: true, \
         routes: [{routes}]}}]}}, http_filters: [{filters}{ROUTER}]}}}}]}}]\n"
    )
}

fn cluster(name: &str, hosts: &[SocketAddr]) -> String {
    let hosts: Vec<_> = hosts
        .iter()
        .map(|host| {
            format!(
                "{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}",
                host.ip(),
                host.port()
            )
        })
        .collect();
    format!(
        "  - {{name: {name}, type: STATIC, connect_timeout: 1s, load_assignment: {{cluster_name: {name}, \
         endpoints: [{{lb_endpoints: [{}]}}]}}}}\n",
        hosts.join(", ")
    )
}

fn bootstrap(listeners: &[String], clusters: &[String]) -> String {
    format!(
        "node: {{id: n, cluster: c}}\nstatic_resources:\n  listeners:\n{}  clusters:\n{}",
        listeners.concat(),
        clusters.concat()
    )
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server that does with each connection what it is told.
fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

#[test]
fn a_request_is_completed_and_a_response_too() {
    let backend = Backend::start("a");
    let routes = "{match: {prefix: /old/}, route: {cluster: a, prefix_rewrite: /new/, host_rewrite_literal: other}}, \
                  {match: {prefix: /}, route: {cluster: a}}";
    let text = bootstrap(
        &[listener("l", routes, "", "normalize_path: true, server_name: me,")],
        &[cluster("a", &[backend.address])],
    );
    let proxy = Proxy::ready(&text, &[]);
    let answer = call(proxy.listener("l"), "GET", "/x/../old/y?q=1", &[("te", "gzip")]).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, "a"));
    assert!(
        answer.head.contains("server: me\r\n") && answer.head.contains("x-envoy-upstream-service-time: ")
    );
    let seen = backend.next().to_lowercase();
    assert!(seen.starts_with("get /new/y?q=1 http/1.1\r\n"), "{seen}");
    for expect in
        ["host: other\r\n", "x-request-id: ", "x-forwarded-proto: http\r\n", "x-envoy-attempt-count: 1\r\n"]
    {
        assert!(seen.contains(expect), "{expect:?} is missing in {seen}");
    }
    assert!(!seen.contains("te: ") && !seen.contains("connection: close"), "{seen}");
    assert!(seen.contains("x-envoy-original-path: /old/y?q=1\r\n"), "{seen}");
}

#[test]
fn what_goes_wrong_is_told_in_envoys_words() {
    let closing = server(|mut stream| {
        read_head(&mut stream);
    });
    let silent = server(|mut stream| {
        read_head(&mut stream);
        let _ = stream.read(&mut [0]);
    });
    let routes = "{match: {prefix: /dead}, route: {cluster: dead}}, {match: {prefix: /empty}, route: {cluster: empty}}, \
                  {match: {prefix: /none}, route: {cluster: none}}, {match: {prefix: /close}, route: {cluster: closing}}, \
                  {match: {prefix: /slow}, route: {cluster: silent, timeout: 0.1s}}, \
                  {match: {prefix: /tea}, direct_response: {status: 418, body: {inline_string: teapot}}}";
    let clusters = [
        cluster("dead", &[nobody()]),
        cluster("empty", &[]),
        cluster("closing", &[closing]),
        cluster("silent", &[silent]),
    ];
    let inside = "internal_address_config: {cidr_ranges: [{address_prefix: 10.0.0.0, prefix_len: 8}]},";
    let proxy = Proxy::ready(&bootstrap(&[listener("l", routes, "", inside)], &clusters), &[]);
    let address = proxy.listener("l");
    let reset = "upstream connect error or disconnect/reset before headers. reset reason: ";
    for (path, status, body) in [
        ("/dead", 503, format!("{reset}remote connection failure")),
        ("/empty", 503, "no healthy upstream".to_owned()),
        ("/none", 503, String::new()),
        ("/close", 503, format!("{reset}connection termination")),
        ("/slow", 504, "upstream request timeout".to_owned()),
        ("/tea", 418, "teapot".to_owned()),
        ("/other", 404, String::new()),
    ] {
        let answer = call(address, "GET", path, &[]).unwrap();
        assert_eq!((answer.status, answer.body), (status, body), "{path}");
    }
    // Who asks for it must come from within.
    let within = [("x-envoy-upstream-rq-timeout-alt-response", "1"), ("x-forwarded-for", "10.0.0.1")];
    let quiet = call(address, "GET", "/slow", &within).unwrap();
    assert_eq!((quiet.status, &*quiet.body), (204, ""));
}

#[test]
fn an_old_upstream_does_not_make_us_old() {
    let old = server(|mut stream| {
        read_head(&mut stream);
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nuntil the end").unwrap();
    });
    let routes = "{match: {prefix: /}, route: {cluster: a}}";
    let text = bootstrap(&[listener("l", routes, "", "")], &[cluster("a", &[old])]);
    let proxy = Proxy::ready(&text, &[]);
    let answer = call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    assert!(answer.head.starts_with("HTTP/1.1 200 "), "{}", answer.head);
    assert_eq!(answer.body, "until the end");
}

#[test]
fn a_failed_try_is_followed_by_another() {
    let backend = Backend::start("a");
    let routes = "{match: {prefix: /}, route: {cluster: mixed, retry_policy: {retry_on: connect-failure, num_retries: 5}}}";
    let clusters = [cluster("mixed", &[nobody(), backend.address])];
    let proxy = Proxy::ready(&bootstrap(&[listener("l", routes, "", "")], &clusters), &[]);
    for _ in 0..8 {
        assert_eq!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().status, 200);
    }
    assert!(proxy.stat("cluster.mixed.upstream_rq_retry").unwrap_or(0) > 0);
}

#[test]
fn weights_mirrors_and_header_matches_choose_clusters() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let routes = "{match: {prefix: /, headers: [{name: end-user, string_match: {exact: jason}}]}, route: {cluster: b}}, \
                  {match: {prefix: /mirror}, route: {cluster: a, request_mirror_policies: [{cluster: b}]}}, \
                  {match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: a, weight: 50}, {name: b, weight: 50}]}}}";
    let text = bootstrap(
        &[listener("l", routes, "", "")],
        &[cluster("a", &[a.address]), cluster("b", &[b.address])],
    );
    let proxy = Proxy::ready(&text, &[]);
    let address = proxy.listener("l");
    assert_eq!(call(address, "GET", "/", &[("end-user", "jason")]).unwrap().body, "b");
    b.next();
    assert_eq!(call(address, "GET", "/mirror", &[("host", "svc:80")]).unwrap().body, "a");
    assert!(b.next().to_lowercase().contains("host: svc-shadow:80\r\n"));
    let hits = (0..100).filter(|_| call(address, "GET", "/", &[]).unwrap().body == "a").count();
    assert!((20..=80).contains(&hits), "{hits} of 100 went to a");
}

#[test]
fn policies_and_faults_see_the_normalized_path() {
    let backend = Backend::start("a");
    let filters = "{name: rbac, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, \
        rules: {action: DENY, policies: {p: {permissions: [{url_path: {path: {prefix: /admin}}}], principals: [{any: true}]}}}}}, \
        {name: fault, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, \
        headers: [{name: x-fault, present_match: true}], delay: {fixed_delay: 0.2s, percentage: {numerator: 100}}, \
        abort: {http_status: 555, percentage: {numerator: 100}}}}, ";
    let text = bootstrap(
        &[listener("l", "{match: {prefix: /}, route: {cluster: a}}", filters, "normalize_path: true,")],
        &[cluster("a", &[backend.address])],
    );
    let proxy = Proxy::ready(&text, &[]);
    let address = proxy.listener("l");
    let refused = call(address, "GET", "/x/%2e%2e/admin", &[]).unwrap();
    assert_eq!((refused.status, &*refused.body), (403, "RBAC: access denied"));
    assert_eq!(call(address, "GET", "/admin/../x", &[]).unwrap().status, 200);
    let began = Instant::now();
    let aborted = call(address, "GET", "/", &[("x-fault", "1")]).unwrap();
    assert_eq!((aborted.status, &*aborted.body), (555, "fault filter abort"));
    assert!(began.elapsed() >= Duration::from_millis(190));
}

#[test]
fn an_upgrade_becomes_a_tunnel_where_it_is_allowed() {
    let upstream = server(|mut stream| {
        assert!(read_head(&mut stream).to_lowercase().contains("upgrade: websocket"));
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            )
            .unwrap();
        let mut bytes = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            stream.write_all(&bytes[..count]).unwrap();
        }
    });
    let routes = "{match: {prefix: /}, route: {cluster: a}}";
    let text = bootstrap(
        &[
            listener("open", routes, "", "upgrade_configs: [{upgrade_type: websocket}],"),
            listener("shut", routes, "", ""),
        ],
        &[cluster("a", &[upstream])],
    );
    let proxy = Proxy::ready(&text, &[]);
    let ask = |name: &str| {
        let mut stream = TcpStream::connect(proxy.listener(name)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
            .unwrap();
        let head = read_head(&mut stream);
        (stream, head)
    };
    let (mut stream, head) = ask("open");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream.write_all(b"ping").unwrap();
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"ping");
    assert!(ask("shut").1.starts_with("HTTP/1.1 403 "));
}

#[test]
fn tcp_keeps_half_closes_and_every_byte() {
    let upstream = server(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
        stream.write_all(b"|end").unwrap();
    });
    let tcp = "  - name: t\n    address: {socket_address: {address: 127.0.0.1, port_value: 0}}\n    filter_chains: \
        [{filters: [{name: tcp, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: a}}]}]\n";
    let proxy = Proxy::ready(&bootstrap(&[tcp.to_owned()], &[cluster("a", &[upstream])]), &[]);
    let mut stream = TcpStream::connect(proxy.listener("t")).unwrap();
    let data: Vec<u8> = (0..3_000_000_u32).map(|number| (number * 7 % 251) as u8).collect();
    stream.write_all(&data).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    assert!(back.ends_with(b"|end") && back[..data.len()] == data[..]);
}

#[test]
fn a_drain_tells_clients_to_come_back_elsewhere() {
    let backend = Backend::start("a");
    let text = bootstrap(
        &[listener("l", "{match: {prefix: /}, route: {cluster: a}}", "", "")],
        &[cluster("a", &[backend.address])],
    );
    let proxy = Proxy::ready(&text, &["--drain-time-s", "60"]);
    let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
    let mut ask = || {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let head = read_head(&mut stream);
        stream.read_exact(&mut [0]).unwrap();
        head
    };
    assert!(!ask().contains("connection: close"));
    proxy.admin("POST", "/drain_listeners?graceful&skip_exit");
    wait("the drain", || ask().contains("connection: close").then_some(()));
}
