//! When tries are logged: with their connection, while they go on, at their end. With `PROXY_UNDER_TEST` the same holds
//! for Envoy.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/clusters.rs"]
mod cluster;
mod support;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};

use cluster::{Scripted, bootstrap, hosts, ok};
use support::{Proxy, call, wait};

const ROUTES: &str = "{match: {connect_matcher: {}}, route: {cluster: c, upgrade_configs: [{upgrade_type: CONNECT, \
                      connect_config: {}}]}}, {match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: 5xx, \
                      retry_back_off: {base_interval: 0.001s}}}}";

fn proxy(options: &str, to: SocketAddr) -> Proxy {
    let cluster = format!("{{name: c, type: STATIC, connect_timeout: 5s, {}}}", hosts("c", &[to]));
    let log = "upstream_log: [{name: f, typed_config: {\"@type\": \
               type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: $DIR/log, log_format: \
               {text_format_source: {inline_string: \"%ACCESS_LOG_TYPE% %RESPONSE_CODE% %UPSTREAM_HOST%\\n\"}}}}]";
    let router = format!("router.v3.Router, {log}, upstream_log_options: {{{options}}}}}");
    let config = bootstrap(&[ROUTES], "", &[cluster]).replace("router.v3.Router}", &router);
    Proxy::ready(&config, &[])
}

/// The log's lines up to this many, without the host, which is the cluster's in each of them.
fn lines(proxy: &Proxy, to: SocketAddr, count: usize) -> Vec<String> {
    let suffix = format!(" {to}");
    wait("the log's lines", || {
        let text = std::fs::read_to_string(proxy.dir.path().join("log")).ok()?;
        let lines = text.lines().map(|line| line.strip_suffix(&suffix).unwrap().to_owned());
        let lines: Vec<String> = lines.collect();
        (lines.len() >= count).then_some(lines)
    })
}

/// It fails once, and answers everything but this.
fn server() -> Scripted {
    let failed = AtomicBool::new(false);
    Scripted::start(move |head| match head {
        _ if head.starts_with("GET /held") => None,
        _ if failed.swap(true, Ordering::SeqCst) => Some(ok("fine")),
        _ => Some("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".into()),
    })
}

#[test]
fn each_try_is_logged_when_it_has_its_connection() {
    let server = server();
    let proxy = proxy("flush_upstream_log_on_upstream_stream: true", server.address);
    assert_eq!(call(proxy.listener("in"), "GET", "/", &[]).unwrap().status, 200);
    let wanted = ["UpstreamPoolReady 0", "UpstreamEnd 503", "UpstreamPoolReady 0", "UpstreamEnd 200"];
    assert_eq!(lines(&proxy, server.address, 4), wanted);
}

#[test]
fn tries_are_logged_while_they_go_on() {
    let server = server();
    let proxy = proxy("upstream_log_flush_interval: 0.05s", server.address);
    let mut stream = TcpStream::connect(proxy.listener("in")).unwrap();
    stream.write_all(b"GET /held HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    assert!(lines(&proxy, server.address, 3).iter().all(|line| line == "UpstreamPeriodic 0"));
    drop(stream);
    let ended = || lines(&proxy, server.address, 1).pop().filter(|last| last == "UpstreamEnd 0");
    wait("its end", ended);
}

#[test]
fn tunnels_are_logged_while_they_last() {
    let server = server();
    let options = "flush_upstream_log_on_upstream_stream: true, upstream_log_flush_interval: 0.05s";
    let proxy = proxy(options, server.address);
    let mut stream = TcpStream::connect(proxy.listener("in")).unwrap();
    stream.write_all(b"CONNECT test:80 HTTP/1.1\r\nhost: test:80\r\n\r\n").unwrap();
    let found = lines(&proxy, server.address, 3);
    assert_eq!(found[..3], ["UpstreamPoolReady 0", "UpstreamPeriodic 200", "UpstreamPeriodic 200"]);
    drop(stream);
    let ended = || lines(&proxy, server.address, 1).pop().filter(|last| last.starts_with("UpstreamEnd"));
    wait("its end", ended);
}
