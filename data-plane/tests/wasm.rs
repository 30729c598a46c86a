//! Wasm filters, through the real binary. What the module does is said in its text.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]
#![cfg(feature = "wasm")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::process::Command;

use support::{Backend, Proxy, call, wait};

const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/wasm/testdata/probe.wat");
const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";

fn cluster(name: &str, to: SocketAddr) -> String {
    format!(
        "  - {{name: {name}, type: STATIC, connect_timeout: 1s, load_assignment: {{cluster_name: {name}, endpoints: \
         [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}\n",
        to.ip(),
        to.port()
    )
}

/// A plugin in this mode, with more in its configuration.
fn plugin(mode: &str, code: &str, more: &str) -> String {
    format!(
        "{{name: w, typed_config: {{\"@type\": {FILTERS}.wasm.v3.Wasm, config: {{name: probe, root_id: r, \
         configuration: {{\"@type\": type.googleapis.com/google.protobuf.StringValue, value: {mode}}}, {more}\
         vm_config: {{vm_id: {mode}, runtime: envoy.wasm.runtime.v8, code: {code}}}}}}}}}, "
    )
}

fn local() -> String {
    format!("{{local: {{filename: {MODULE}}}}}")
}

fn bootstrap(filters: &str, app: SocketAddr, side: SocketAddr) -> String {
    format!(
        "node: {{id: n, cluster: c}}\nstatic_resources:\n  listeners:\n  - name: l\n    address: {{socket_address: \
         {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains: [{{filters: [{{name: hcm, typed_config: \
         {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: in, route_config: {{name: r, virtual_hosts: [{{name: v, domains: [\"*\"], routes: [{{name: rt, \
         match: {{prefix: /}}, route: {{cluster: app}}}}]}}]}}, http_filters: [{filters}{{name: router, typed_config: \
         {{\"@type\": {FILTERS}.router.v3.Router}}}}]}}}}]}}]\n  clusters:\n{}{}",
        cluster("app", app),
        cluster("side", side),
    )
}

fn proxy(mode: &str, more: &str, app: &Backend, side: &Backend) -> Proxy {
    Proxy::ready(&bootstrap(&plugin(mode, &local(), more), app.address, side.address), &[])
}

#[test]
fn a_module_changes_answers_and_asks() {
    let (app, side) = (Backend::start("app"), Backend::start("side"));
    let run = |mode: &str| proxy(mode, "", &app, &side);

    let changes = run("h");
    let answer = call(changes.listener("l"), "GET", "/", &[]).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, "app"));
    assert!(answer.head.contains("x-wasm: response"), "{}", answer.head);
    assert!(app.next().contains("x-wasm: request"));
    assert_eq!(changes.stat("wasm.envoy.wasm.runtime.v8.active"), Some(1));

    let answers = run("a");
    let answer = call(answers.listener("l"), "GET", "/", &[]).unwrap();
    assert_eq!((answer.status, &*answer.body), (403, "denied"));
    assert!(answer.head.contains("x-probe: 1"), "{}", answer.head);

    let asks = run("c");
    assert_eq!(call(asks.listener("l"), "GET", "/", &[]).unwrap().status, 200);
    assert!(side.next().starts_with("GET /side HTTP/1.1"));
    assert!(app.next().contains("x-call: 200"));
}

#[test]
fn properties_are_what_is_known() {
    let (app, side) = (Backend::start("app"), Backend::start("side"));
    let proxy = proxy("p", "", &app, &side);
    for (path, expected) in [
        ("/request.url_path", "/request.url_path"),
        ("/request.headers.x-a", "1"),
        ("/xds.node.id", "n"),
        ("/xds.route_name", "rt"),
        ("/xds.cluster_name", "app"),
        ("/plugin_name", "probe"),
        ("/plugin_root_id", "r"),
        ("/request.protocol", "HTTP/1.1"),
    ] {
        assert_eq!(call(proxy.listener("l"), "GET", path, &[("x-a", "1")]).unwrap().status, 200);
        let request = app.next();
        // The path has its dots replaced in the module's own memory only.
        assert!(request.contains(&format!("x-wasm: {expected}\r\n")), "{path}: {request}");
    }
}

#[test]
fn a_module_that_fails_is_treated_as_configured() {
    let (app, side) = (Backend::start("app"), Backend::start("side"));
    let status = |proxy: &Proxy| call(proxy.listener("l"), "GET", "/", &[]).unwrap().status;

    let closed = proxy("t", "", &app, &side);
    assert_eq!((status(&closed), status(&closed)), (503, 503));

    let open = proxy("t", "fail_open: true, ", &app, &side);
    assert_eq!((status(&open), status(&open)), (200, 200));

    let backoff = "failure_policy: FAIL_RELOAD, reload_config: {backoff: {base_interval: 3600s}}, ";
    let reloads = proxy("t", backoff, &app, &side);
    assert_eq!((status(&reloads), status(&reloads), status(&reloads)), (503, 503, 503));
    assert_eq!(reloads.stat("wasm.probe.vm_reload_success"), Some(1));
    assert_eq!(reloads.stat("wasm.probe.vm_reload_backoff"), Some(1));
}

#[test]
fn a_module_that_does_not_return_blocks_nobody_for_long() {
    let (app, side) = (Backend::start("app"), Backend::start("side"));
    let proxy = proxy("s", "", &app, &side);
    assert_eq!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().status, 503);
}

#[test]
fn ticks_queues_and_metrics_go_on_without_requests() {
    let (app, side) = (Backend::start("app"), Backend::start("side"));
    let proxy = proxy("k", "", &app, &side);
    wait("ticks and what they put into the queue", || {
        proxy.stat("wasmcustom.ticks").filter(|&count| count > 14_000)
    });
    let prometheus = proxy.admin("GET", "/stats/prometheus").body;
    assert!(prometheus.contains("# TYPE ticks counter\nticks{}"), "{prometheus}");
}

#[test]
fn a_module_is_fetched_through_a_cluster() {
    use sha2::Digest as _;
    let app = Backend::start("app");
    let code = std::fs::read(MODULE).unwrap();
    let hash = hex::encode(sha2::Sha256::digest(&code));
    let serves = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let side = serves.local_addr().unwrap();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in serves.incoming().flatten() {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head);
            let head =
                format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", code.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&code));
        }
    });
    let remote = |hash: &str| {
        format!(
            "{{remote: {{http_uri: {{uri: 'http://x/m.wat', cluster: side, timeout: 5s}}, sha256: '{hash}'}}}}"
        )
    };
    let good = Proxy::ready(&bootstrap(&plugin("h", &remote(&hash), ""), app.address, side), &[]);
    let answer = call(good.listener("l"), "GET", "/", &[]).unwrap();
    assert!(answer.head.contains("x-wasm: response"), "{}", answer.head);
    assert_eq!(good.stat("wasm.remote_load_fetch_successes"), Some(1));
    let wrong = Proxy::ready(&bootstrap(&plugin("h", &remote("00"), ""), app.address, side), &[]);
    assert_eq!(call(wrong.listener("l"), "GET", "/", &[]).unwrap().status, 503);
}

#[test]
fn what_cannot_be_run_is_refused() {
    let app = Backend::start("app");
    let refused = |filter: &str, why: &str| {
        let text = bootstrap(filter, app.address, app.address);
        let command = Command::new(env!("CARGO_BIN_EXE_sail-proxy"))
            .args(["--config-yaml", &text, "--mode", "validate"])
            .output()
            .unwrap();
        let said =
            String::from_utf8_lossy(&command.stdout).into_owned() + &String::from_utf8_lossy(&command.stderr);
        assert!(!command.status.success() && said.contains(why), "{said}");
    };
    refused(&plugin("n", &local(), ""), "proxy_on_configure returned false");
    refused(&plugin("h", "{local: {inline_string: '(module)'}}", ""), "vm_config.code");
    refused(&plugin("h", &local(), "").replace("runtime.v8", "runtime.null"), "envoy.wasm.runtime.null");
}
