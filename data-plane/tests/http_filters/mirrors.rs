//! Copies of requests. What they look like was written by Envoy.

use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use super::h2::{self, Message};
use super::setup::{HTTP2, agrees, bootstrap, cluster, line};
use super::support::{Proxy, wait};

const PATIENCE: Duration = Duration::from_secs(20);

const SEEN: [&str; 9] = [
    "x-added",
    "x-copied",
    "x-envoy-attempt-count",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-internal",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-mine",
    "x-secret",
];

/// A server that takes copies.
fn copies() -> (SocketAddr, Receiver<Message>) {
    let (send, seen) = mpsc::channel();
    let send = Mutex::new(send);
    let address = h2::serve(move |asked| {
        send.lock().unwrap().send(asked.clone()).unwrap();
        Message::default()
    });
    (address, seen)
}

fn app() -> SocketAddr {
    h2::serve(|_| Message { body: b"app".to_vec(), ..Message::default() })
}

fn start(routes: &str, clusters: &[(&str, SocketAddr)]) -> Proxy {
    let clusters: String = clusters.iter().map(|(name, to)| cluster(name, &[*to], HTTP2)).collect();
    let text = bootstrap("", routes, &clusters);
    Proxy::ready(&format!("{text}layered_runtime: {{layers: [{{name: admin, admin_layer: {{}}}}]}}\n"), &[])
}

#[test]
fn look_as_envoys_do() {
    let (to, seen) = copies();
    let routes = "{match: {prefix: /plain}, route: {cluster: app, prefix_rewrite: /rewritten, timeout: 7s, request_mirror_policies: \
        [{cluster: copy}]}, request_headers_to_add: [{header: {key: x-added, value: by-route}}], request_headers_to_remove: [x-secret]}, \
        {match: {prefix: /suffix}, route: {cluster: app, request_mirror_policies: [{cluster: copy, disable_shadow_host_suffix_append: true}]}}, \
        {match: {prefix: /host}, route: {cluster: app, host_rewrite_literal: other.test, request_mirror_policies: [{cluster: copy}]}}, \
        {match: {prefix: /literal}, route: {cluster: app, request_mirror_policies: [{cluster: copy, host_rewrite_literal: copy.test}]}}, \
        {match: {prefix: /mutated}, route: {cluster: app, request_mirror_policies: [{cluster: copy, request_headers_mutations: \
        [{append: {header: {key: x-copied, value: \"%REQ(:PATH)% %REQ(x-mine)%\"}}}, {remove: x-secret}, \
        {append: {header: {key: x-mine, value: theirs}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}}]}]}}";
    let proxy = start(routes, &[("app", app()), ("copy", to)]);
    let to = proxy.listener("l");
    let mut lines = Vec::new();
    for (path, body, trailers) in [
        ("/plain", "", &[][..]),
        ("/plain", "payload", &[]),
        ("/plain", "payload", &[("x-end", "1")]),
        ("/suffix", "", &[]),
        ("/host", "", &[]),
        ("/literal", "", &[]),
        ("/mutated", "", &[]),
    ] {
        let head = [("x-mine", "1"), ("x-secret", "s")];
        let answer = h2::call(to, "POST", path, &head, &[body.as_bytes()], trailers);
        assert_eq!(answer.text(), "app");
        let mut copy = seen.recv_timeout(PATIENCE).unwrap();
        // It is the machine's own.
        if let Some(value) = copy.head.get_mut("x-forwarded-for")
            && value.to_str().unwrap().parse::<std::net::IpAddr>().is_ok()
        {
            *value = "here".parse().unwrap();
        }
        lines.push(line(&format!("{} {} {}", copy.method, copy.host, copy.path), &copy, &SEEN));
    }
    wait("the last answer", || (proxy.stat("cluster.copy.upstream_rq_200")? == 7).then_some(()));
    assert_eq!(proxy.stat("cluster.copy.upstream_rq_total"), Some(7));
    agrees("mirrors", &lines);
}

#[test]
fn do_not_wait_for_the_original() {
    let (to, seen) = copies();
    let seen = Mutex::new(seen);
    // It answers once the copy has been seen.
    let app = h2::serve(move |_| {
        let copy = seen.lock().unwrap().recv_timeout(PATIENCE);
        Message { body: copy.map_or("alone".into(), |copy| copy.body), ..Message::default() }
    });
    let routes = "{match: {prefix: /}, route: {cluster: app, timeout: 60s, request_mirror_policies: [{cluster: copy}]}}";
    let proxy = start(routes, &[("app", app), ("copy", to)]);
    let answer = h2::call(proxy.listener("l"), "POST", "/", &[], &[b"payload"], &[]);
    assert_eq!(answer.text(), "payload");
}

#[test]
fn are_whole_however_large() {
    let (to, seen) = copies();
    let routes = "{match: {prefix: /}, route: {cluster: app, request_mirror_policies: [{cluster: copy}]}}";
    let proxy = start(routes, &[("app", app()), ("copy", to)]);
    let pieces: Vec<Vec<u8>> = (0..50_u8).map(|number| vec![number; 100_000]).collect();
    let slices: Vec<&[u8]> = pieces.iter().map(|piece| &**piece).collect();
    let answer = h2::call(proxy.listener("l"), "POST", "/", &[], &slices, &[("x-end", "1")]);
    assert_eq!(answer.text(), "app");
    let copy = seen.recv_timeout(PATIENCE).unwrap();
    assert!(copy.body == pieces.concat(), "{} bytes", copy.body.len());
    assert_eq!(copy.trailer("x-end"), "1");
}

#[test]
fn delay_nobody() {
    // It takes connections, and nothing more.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let routes = "{match: {prefix: /}, route: {cluster: app, timeout: 0s, request_mirror_policies: [{cluster: copy}]}}";
    let proxy = start(routes, &[("app", app()), ("copy", silent.local_addr().unwrap())]);
    let to = proxy.listener("l");
    for body in [&b""[..], b"payload", &vec![b'x'; 3_000_000]] {
        assert_eq!(h2::call(to, "POST", "/", &[], &[body], &[]).text(), "app");
    }
    assert_eq!(proxy.stat("cluster.copy.upstream_rq_active"), Some(3));
}

#[test]
fn have_the_routes_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let routes = "{match: {prefix: /}, route: {cluster: app, timeout: 0.2s, request_mirror_policies: [{cluster: copy}]}}";
    let proxy = start(routes, &[("app", app()), ("copy", silent.local_addr().unwrap())]);
    assert_eq!(h2::call(proxy.listener("l"), "POST", "/", &[], &[b"payload"], &[]).text(), "app");
    wait("the copy's end", || (proxy.stat("cluster.copy.upstream_rq_timeout")? == 1).then_some(()));
    assert_eq!(proxy.stat("cluster.copy.upstream_rq_active"), Some(0));
    assert_eq!(proxy.stat("cluster.copy.upstream_rq_504"), Some(1));
}

#[test]
fn fail_by_themselves() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let routes = "{match: {prefix: /}, route: {cluster: app, request_mirror_policies: [{cluster: copy}, {cluster: more}]}}";
    let (to, seen) = copies();
    let proxy = start(routes, &[("app", app()), ("copy", closed), ("more", to)]);
    assert_eq!(h2::call(proxy.listener("l"), "POST", "/", &[], &[b"payload"], &[]).text(), "app");
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap().text(), "payload");
    wait("the copy's end", || (proxy.stat("cluster.copy.upstream_rq_503")? == 1).then_some(()));
    assert_eq!(proxy.stat("cluster.app.upstream_rq_5xx"), None);
}

#[test]
fn are_made_of_as_many_as_the_runtime_says() {
    let (to, seen) = copies();
    let fraction = "runtime_fraction: {runtime_key: copied, default_value: {numerator: 0}}";
    let routes = format!(
        "{{match: {{prefix: /named}}, route: {{cluster: app, request_mirror_policies: [{{cluster_header: x-copy}}]}}}}, \
         {{match: {{prefix: /}}, route: {{cluster: app, request_mirror_policies: [{{cluster: copy, {fraction}}}]}}}}"
    );
    let proxy = start(&routes, &[("app", app()), ("copy", to)]);
    let to = proxy.listener("l");
    let ask = |path: &str, head: &[(&str, &str)]| {
        assert_eq!(h2::call(to, "GET", path, head, &[], &[]).text(), "app", "{path}");
    };
    ask("/none", &[]);
    ask("/named/nobody", &[]);
    ask("/named/unknown", &[("x-copy", "unknown")]);
    ask("/named/known", &[("x-copy", "copy")]);
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap().path, "/named/known");
    assert_eq!(proxy.admin("POST", "/runtime_modify?copied=100").status, 200);
    ask("/all", &[]);
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap().path, "/all");
    assert_eq!(proxy.stat("cluster.copy.upstream_rq_total"), Some(2));
}
