//! gRPC for clients that do not speak it: gRPC-Web and the HTTP/1.1 bridge.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::h2::{self, Message, call};
use super::setup::{APP, HTTP2, agrees, cluster, counted, filter, http1, line, logged, mirror, proxy};

/// What it got; on some paths an error, or nothing but an error.
fn server() -> std::net::SocketAddr {
    mirror(&[], |asked| {
        let kind = ("content-type", "application/grpc");
        match asked.path.split('?').next().unwrap() {
            "/error" => Message {
                head: h2::map(&[kind]),
                status: 200,
                body: b"\0\0\0\0\x02no".to_vec(),
                trailers: h2::map(&[("grpc-status", "5"), ("grpc-message", "not here")]),
                ..Default::default()
            },
            "/only" => Message {
                head: h2::map(&[kind, ("grpc-status", "7"), ("grpc-message", "no entry")]),
                status: 200,
                ..Default::default()
            },
            "/html" => Message {
                head: h2::map(&[("content-type", "text/html")]),
                status: 503,
                body: b"<p>".to_vec(),
                ..Default::default()
            },
            _ => Message {
                head: h2::map(&[kind]),
                status: 200,
                body: {
                    let said = line(&asked.path, asked, &["content-type", "te", "grpc-accept-encoding"]);
                    let mut framed = vec![0];
                    framed.extend_from_slice(&u32::try_from(said.len()).unwrap().to_be_bytes());
                    framed.extend_from_slice(said.as_bytes());
                    framed
                },
                trailers: h2::map(&[("grpc-status", "0"), ("x-own", "t")]),
                ..Default::default()
            },
        }
    })
}

const SHOWN: &[&str] = &["content-type", "grpc-status", "grpc-message", "content-length"];

#[test]
fn browsers_get_trailers_in_bodies() {
    let clusters = cluster("app", &[server()], HTTP2);
    let proxy = proxy(&filter("web", "grpc_web.v3.GrpcWeb"), APP, &clusters);
    let to = proxy.listener("l");
    let message = b"\0\0\0\0\x05hello";
    let text = STANDARD.encode(message);
    let mut seen = Vec::new();
    for kind in
        ["grpc-web", "grpc-web+proto", "grpc-web-text", "grpc-web-text+proto", "grpc", "grpc-web+json"]
    {
        let body = if kind.contains("text") { text.as_bytes() } else { &message[..] };
        let kind = format!("application/{kind}");
        for path in ["/ok", "/error", "/only", "/html"] {
            let answer = call(to, "POST", path, &[("content-type", &kind)], &[body], &[]);
            seen.push(line(&format!("h2 {kind} {path}"), &answer, SHOWN));
        }
        let answer = http1(to, "POST", "/ok", &[("content-type", &kind), ("accept", &kind)], body);
        seen.push(line(&format!("h1 {kind}"), &answer, SHOWN));
    }
    let mixed = [("content-type", "application/grpc-web"), ("accept", "application/grpc-web-text")];
    seen.push(line("text wanted", &call(to, "POST", "/ok", &mixed, &[message], &[]), SHOWN));
    let head = [("content-type", "application/grpc-web-text")];
    seen.push(line(
        "in pieces",
        &call(to, "POST", "/ok", &head, &[&text.as_bytes()[..3], &text.as_bytes()[3..]], &[]),
        SHOWN,
    ));
    seen.push(line("not base64", &http1(to, "POST", "/ok", &head, b"%%%%"), SHOWN));
    seen.push(logged(&proxy, 33));
    seen.push(counted(&proxy, "cluster.app.grpc"));
    agrees("grpc_web", &seen);
}

#[test]
fn clients_without_trailers_get_them_as_headers() {
    let clusters = cluster("app", &[server()], HTTP2);
    let config = "grpc_http1_bridge.v3.Config, upgrade_protobuf_to_grpc: true, ignore_query_parameters: true";
    let proxy = proxy(&filter("bridge", config), APP, &clusters);
    let to = proxy.listener("l");
    let mut seen = Vec::new();
    for (kind, body) in [
        ("application/grpc", &b"\0\0\0\0\x05hello"[..]),
        ("application/x-protobuf", b"hello"),
        ("text/plain", b"hello"),
    ] {
        for path in ["/ok?a=b", "/error", "/only", "/html"] {
            let answer = http1(to, "POST", path, &[("content-type", kind)], body);
            let shown = &SHOWN[..if matches!(path, "/html" | "/only") { 3 } else { 4 }];
            seen.push(line(&format!("h1 {kind} {path}"), &answer, shown));
        }
        let answer = call(to, "POST", "/ok?a=b", &[("content-type", kind)], &[body], &[]);
        seen.push(line(&format!("h2 {kind}"), &answer, SHOWN));
    }
    agrees("grpc_http1_bridge", &seen);
}
