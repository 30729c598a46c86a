//! h2spec's cases of RFC 7540 and RFC 7541, all of them, in the clear and over TLS. `make h2spec` gets the tool and runs this.
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test: what fails here fails the test"
)]

#[path = "support/certs.rs"]
mod certs;
mod support;

use std::net::SocketAddr;
use std::process::Command;

use certs::Authority;
use support::Proxy;

const TYPE: &str = "type.googleapis.com/envoy.extensions";

/// A listener for each of `clear` and `tls`, and one behind both that answers requests once they are whole.
fn bootstrap() -> String {
    let signed = Authority::new().sign(1, &["localhost"]);
    let quoted = |pem: &str| serde_json::to_string(pem).unwrap();
    let tls = format!(
        "transport_socket: {{name: tls, typed_config: {{\"@type\": {TYPE}.transport_sockets.tls.v3.DownstreamTlsContext, \
         common_tls_context: {{alpn_protocols: [h2], tls_certificates: [{{certificate_chain: {{inline_string: {}}}, \
         private_key: {{inline_string: {}}}}}]}}}}}}, ",
        quoted(&signed.cert),
        quoted(&signed.key)
    );
    let filter = |name: &str, kind: &str, more: &str| {
        format!("{{name: {name}, typed_config: {{\"@type\": {TYPE}.filters.http.{name}.v3.{kind}{more}}}}}")
    };
    let listener = |name: &str, address: &str, tls: &str, codec: &str, action: &str| {
        let buffer = filter("buffer", "Buffer", ", max_request_bytes: 1000000");
        let router = filter("router", "Router", "");
        format!(
            "  - name: {name}\n    address: {{{address}}}\n    filter_chains:\n    - {{{tls}filters: [{{name: http, typed_config: \
             {{\"@type\": {TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: {name}, \
             codec_type: {codec}, http_filters: [{buffer}, {router}], route_config: {{virtual_hosts: [{{name: v, \
             domains: [\"*\"], routes: [{{match: {{prefix: /}}, {action}}}]}}]}}}}}}]}}\n"
        )
    };
    let port = "socket_address: {address: 127.0.0.1, port_value: 0}";
    let pipe = "pipe: {path: $DIR/answers}";
    let answer = format!("direct_response: {{status: 200, body: {{inline_string: {}}}}}", "a".repeat(200));
    let listeners = [
        listener("clear", port, "", "HTTP2", "route: {cluster: answers}"),
        listener("tls", port, &tls, "AUTO", "route: {cluster: answers}"),
        listener("answers", pipe, "", "HTTP1", &answer),
    ];
    format!(
        "static_resources:\n  clusters:\n  - {{name: answers, type: STATIC, load_assignment: {{cluster_name: answers, \
         endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{{pipe}}}}}}}]}}]}}}}\n  listeners:\n{}",
        listeners.concat()
    )
}

fn passes(address: SocketAddr, options: &[&str]) {
    let port = address.port().to_string();
    let output = Command::new("h2spec")
        .args(["--strict", "--timeout", "2", "--host", "127.0.0.1", "--port", &port])
        .args(options)
        .output()
        .expect("h2spec is on PATH, as `make h2spec` provides it");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(", 0 failed"), "{said}");
}

#[test]
#[ignore = "wants h2spec: make h2spec"]
fn h2spec_passes_whole() {
    let proxy = Proxy::ready(&bootstrap(), &[]);
    passes(proxy.listener("clear"), &[]);
    passes(proxy.listener("tls"), &["--tls", "--insecure"]);
}
