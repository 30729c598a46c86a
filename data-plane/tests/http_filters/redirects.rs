//! Redirects that the router follows itself. What is expected was written by Envoy.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::h2::{self, Message};
use super::setup::{HTTP2, agrees, bootstrap, cluster, filter, line};
use super::support::{Proxy, wait};

const SEEN: [&str; 6] =
    ["content-length", "x-envoy-original-url", "x-forwarded-proto", "x-pass", "x-told", "x-mine"];

/// An upstream that leads from `/a` to `/b` and back, and from elsewhere to where the request says; what comes to
/// `/final` is told as it came.
fn upstream() -> SocketAddr {
    h2::serve(|asked| {
        if asked.path.starts_with("/final") {
            let told = line(&format!("{} {} {}", asked.method, asked.host, asked.path), asked, &SEEN);
            let told = if asked.method == "HEAD" { String::new() } else { told };
            return Message { body: told.into_bytes(), ..Message::default() };
        }
        let location = match &*asked.path {
            "/a" => "http://test/b",
            "/b" => "http://test/a",
            _ => asked.header("x-location"),
        };
        let mut said =
            Message { status: asked.header("x-status").parse().unwrap_or(302), ..Message::default() };
        if !location.is_empty() {
            said.head.insert("location", location.parse().unwrap());
        }
        for value in asked.header("x-tell").split(' ').filter(|value| !value.is_empty()) {
            said.head.append("x-told", value.parse().unwrap());
        }
        if asked.method != "HEAD" {
            said.body = b"moved".to_vec();
        }
        said
    })
}

fn predicate(kind: &str, more: &str) -> String {
    format!(
        "predicates: [{{name: p, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.internal_redirect.{kind}Config{more}}}}}]"
    )
}

fn route(path: &str, policy: &str) -> String {
    format!(
        "{{match: {{prefix: {path}}}, name: {}, route: {{cluster: app, internal_redirect_policy: {{{policy}}}}}}}",
        path.trim_start_matches('/')
    )
}

fn start() -> Proxy {
    let routes = [
        "{match: {prefix: /final}, name: final, route: {cluster: app}}".to_owned(),
        route("/plain", ""),
        route("/codes", "redirect_response_codes: [303, 307, 308]"),
        route("/cross", "allow_cross_scheme_redirect: true"),
        route("/safe", &format!("allow_cross_scheme_redirect: true, {}", predicate("safe_cross_scheme.v3.SafeCrossScheme", ""))),
        route("/copy", "response_headers_to_copy: [x-told]"),
        route("/listed", &predicate("allow_listed_routes.v3.AllowListedRoutes", ", allowed_route_names: [final]")),
        route("/unlisted", &predicate("allow_listed_routes.v3.AllowListedRoutes", ", allowed_route_names: [plain]")),
        route("/a", &format!("max_internal_redirects: 5, {}", predicate("previous_routes.v3.PreviousRoutes", ""))),
        route("/b", &format!("max_internal_redirects: 5, {}", predicate("previous_routes.v3.PreviousRoutes", ""))),
        route("/loop", "max_internal_redirects: 3"),
        "{match: {prefix: /rewritten}, route: {cluster: app, prefix_rewrite: /x, host_rewrite_literal: inner.test, \
         internal_redirect_policy: {}}, request_headers_to_add: [{header: {key: x-pass, value: route}}]}"
            .to_owned(),
    ];
    let passes = filter(
        "envoy.filters.http.header_mutation",
        "header_mutation.v3.HeaderMutation, mutations: {request_mutations: [{append: {header: {key: x-pass, value: \"1\"}}}], \
         response_mutations: [{append: {header: {key: x-back, value: \"1\"}}}]}",
    );
    Proxy::ready(&bootstrap(&passes, &routes.join(", "), &cluster("app", &[upstream()], HTTP2)), &[])
}

fn counters(proxy: &Proxy) -> Vec<String> {
    let body = proxy.admin("GET", "/stats?usedonly").body;
    let wanted = |line: &&str| {
        line.contains("internal_redirect")
            || line.contains("upstream_rq_3")
            || line.contains("in.downstream_rq_3")
            || line.contains("http.in.downstream_rq_completed")
            || line.contains("http.in.downstream_rq_total")
            || line.contains("in.rq_total")
    };
    let mut found: Vec<_> = body.lines().filter(wanted).map(ToOwned::to_owned).collect();
    found.sort();
    found
}

/// A name, a method and a path, headers, a body and trailers.
type Case<'a> = (&'a str, &'a str, &'a str, Pairs<'a>, &'a [u8], Pairs<'a>);
type Pairs<'a> = &'a [(&'a str, &'a str)];

#[test]
fn are_followed_as_envoy_follows_them() {
    let proxy = start();
    let to = proxy.listener("l");
    let large = vec![b'x'; 100_000];
    let vast = vec![b'x'; 20_000_000];
    let huge = vec![b'x'; 3_000_000];
    let there = ("x-location", "http://other.test/final?q=1");
    let test = ("x-location", "http://test/final");
    let cases: &[Case<'_>] = &[
        ("elsewhere", "GET", "/plain", &[there, ("x-mine", "1")], b"", &[]),
        ("to a port", "GET", "/plain", &[("x-location", "http://test:80/final")], b"", &[]),
        ("relative", "GET", "/plain", &[("x-location", "/final")], b"", &[]),
        ("nowhere", "GET", "/plain", &[], b"", &[]),
        ("without a route", "GET", "/plain", &[("x-location", "http://test/nowhere")], b"", &[]),
        ("to https", "GET", "/plain", &[("x-location", "https://test/final")], b"", &[]),
        ("to ftp", "GET", "/plain", &[("x-location", "ftp://test/final")], b"", &[]),
        ("with a fragment", "GET", "/plain", &[("x-location", "http://test/final?a#b")], b"", &[]),
        ("another code", "GET", "/plain", &[test, ("x-status", "301")], b"", &[]),
        ("no redirect", "GET", "/plain", &[test, ("x-status", "200")], b"", &[]),
        ("a body", "POST", "/plain", &[test], b"payload", &[]),
        ("a body and trailers", "POST", "/plain", &[test], b"payload", &[("x-end", "1")]),
        ("a large body", "POST", "/plain", &[test], &large, &[]),
        ("a huge body", "POST", "/plain", &[test], &huge, &[]),
        ("a vast body", "POST", "/plain", &[test], &vast, &[]),
        ("to see", "POST", "/codes", &[test, ("x-status", "303"), ("content-length", "7")], b"payload", &[]),
        ("to see the head", "HEAD", "/codes", &[test, ("x-status", "303")], b"", &[]),
        ("kept", "PUT", "/codes", &[test, ("x-status", "308")], b"payload", &[]),
        ("302 is not among them", "GET", "/codes", &[test], b"", &[]),
        ("cross", "GET", "/cross", &[("x-location", "https://test/final")], b"", &[]),
        ("safe", "GET", "/safe", &[("x-location", "https://test/final")], b"", &[]),
        ("copied", "GET", "/copy", &[test, ("x-tell", "one two"), ("x-told", "mine")], b"", &[]),
        ("nothing to copy", "GET", "/copy", &[test, ("x-told", "mine")], b"", &[]),
        ("listed", "GET", "/listed", &[test], b"", &[]),
        ("unlisted", "GET", "/unlisted", &[test], b"", &[]),
        ("there and back", "GET", "/a", &[], b"", &[]),
        ("rewritten", "GET", "/rewritten/a", &[test], b"", &[]),
        ("in circles", "GET", "/loop", &[("x-location", "http://test/loop")], b"", &[]),
        ("refused by the next", "GET", "/loop", &[("x-location", "http://test/unlisted")], b"", &[]),
    ];
    let mut seen = Vec::new();
    let mut logged = 0;
    for (name, method, path, head, body, trailers) in cases {
        let before = counters(&proxy);
        let mut answer = h2::call(to, method, path, head, &[body], trailers);
        if answer.body.len() > 2000 {
            let text = answer.text();
            let (told, rest) = text.split_once('[').unwrap();
            answer.body = format!("{told}[{} bytes", rest.len() - 1).into_bytes();
        }
        seen.push(line(name, &answer, &["location", "x-back", "x-told"]));
        let log = wait("the log", || {
            let text = std::fs::read_to_string(proxy.dir.path().join("log")).ok()?;
            let lines: Vec<_> = text.lines().skip(logged).map(ToOwned::to_owned).collect();
            // A stream that was given up for another is logged before the one that took its place.
            let last = lines.last()?;
            (!last.contains("internal_redirect")).then_some(lines)
        });
        logged += log.len();
        seen.extend(log.iter().map(|line| format!("  log: {line}")));
        let changed = counters(&proxy).into_iter().filter(|line| !before.contains(line));
        seen.extend(changed.map(|line| format!("  {line}")));
    }
    agrees("redirects", &seen);
}

/// A request that is still being sent cannot be sent anew.
#[test]
fn wait_for_no_request() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let clusters = cluster("app", &[upstream.local_addr().unwrap()], "");
    let proxy = Proxy::ready(&bootstrap("", &route("/", ""), &clusters), &[]);
    let mut client = TcpStream::connect(proxy.listener("l")).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.write_all(b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nhalf").unwrap();
    let (mut server, _) = upstream.accept().unwrap();
    let (mut seen, mut buffer) = (Vec::new(), [0; 1024]);
    while !seen.ends_with(b"half") {
        let count = server.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..count]);
    }
    server.write_all(b"HTTP/1.1 302 Found\r\nlocation: http://test/\r\ncontent-length: 0\r\n\r\n").unwrap();
    let count = client.read(&mut buffer).unwrap();
    let answer = String::from_utf8_lossy(&buffer[..count]);
    assert!(answer.starts_with("HTTP/1.1 302 "), "{answer}");
    assert_eq!(proxy.stat("cluster.app.upstream_internal_redirect_failed_total"), Some(1));
}
