//! Unix sockets on both sides, and what logs call the ends of a connection. Envoy passes these tests, too.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use serde_json::{Value, json};
use support::{Proxy, wait};

/// A connection manager that logs these operators.
fn manager(routes: &Value, operators: &[&str]) -> Value {
    let router = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"});
    let line = format!("{}\n", operators.join("|"));
    let log = json!({"name": "file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "$DIR/log", "log_format": {"text_format_source": {"inline_string": line}},
    }});
    json!({"name": "hcm", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
                  HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "router", "typed_config": router}],
        "access_log": [log],
    }})
}

fn route(prefix: &str, cluster: &str) -> Value {
    json!({"match": {"prefix": prefix}, "route": {"cluster": cluster}})
}

fn pipe(name: &str, path: &str) -> Value {
    let address = json!({"pipe": {"path": path}});
    let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": address}}]}]);
    json!({"name": name, "connect_timeout": "1s", "load_assignment": {"cluster_name": name, "endpoints": endpoints}})
}

/// Starts a proxy with a backend behind `$DIR/up.sock`.
fn start(listener: &Value) -> Proxy {
    let clusters = [pipe("up", "$DIR/up.sock"), pipe("gone", "$DIR/none.sock")];
    let fixed = json!({"clusters": clusters, "listeners": [listener]});
    let proxy = Proxy::ready(&format!("static_resources: {fixed}\n"), &[]);
    let backend = UnixListener::bind(proxy.dir.path().join("up.sock")).unwrap();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in backend.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
    });
    proxy
}

/// Sends a request after this prefix, and returns what the log says of it, with the folder's name left out.
fn logged(
    proxy: &Proxy,
    mut stream: impl std::io::Read + std::io::Write,
    before: &str,
    path: &str,
) -> String {
    let log = proxy.dir.path().join("log");
    let read = |log: &Path| std::fs::read_to_string(log).unwrap_or_default();
    let old = read(&log).len();
    let request = format!("{before}GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    let line = wait("the log", || Some(read(&log)[old..].to_owned()).filter(|line| line.ends_with('\n')));
    line.trim_end().replace(proxy.dir.path().to_str().unwrap(), "")
}

#[test]
fn a_unix_socket_is_called_by_its_path() {
    let operators = [
        "%DOWNSTREAM_REMOTE_ADDRESS%",
        "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "%DOWNSTREAM_REMOTE_PORT%",
        "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
        "%DOWNSTREAM_LOCAL_ADDRESS%",
        "%DOWNSTREAM_LOCAL_PORT%",
        "%UPSTREAM_HOST%",
        "%UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "%UPSTREAM_REMOTE_PORT%",
        "%RESPONSE_FLAGS%",
        "%RESPONSE_CODE_DETAILS%",
    ];
    let filter = manager(&json!([route("/gone", "gone"), route("/", "up")]), &operators[..9]);
    let address = json!({"pipe": {"path": "$DIR/in.sock"}});
    let proxy = start(&json!({"name": "l", "address": address, "filter_chains": [{"filters": [filter]}]}));
    let connect = || UnixStream::connect(proxy.dir.path().join("in.sock")).unwrap();
    assert_eq!(
        logged(&proxy, connect(), "", "/"),
        "/in.sock|/in.sock||/in.sock|/in.sock||/up.sock|/up.sock|"
    );

    let filter = manager(&json!([route("/gone", "gone")]), &operators[9..]);
    let address = json!({"pipe": {"path": "$DIR/in.sock"}});
    let proxy = start(&json!({"name": "l", "address": address, "filter_chains": [{"filters": [filter]}]}));
    let stream = UnixStream::connect(proxy.dir.path().join("in.sock")).unwrap();
    assert_eq!(
        logged(&proxy, stream, "", "/gone"),
        "UF|upstream_reset_before_response_started{remote_connection_failure|immediate_connect_error:\
         _No_such_file_or_directory|remote_address:/none.sock}"
    );
}

#[test]
fn the_sockets_own_address_stays_beside_what_the_proxy_protocol_says() {
    let operators =
        ["%DOWNSTREAM_LOCAL_ADDRESS%", "%DOWNSTREAM_DIRECT_LOCAL_ADDRESS%", "%DOWNSTREAM_DIRECT_LOCAL_PORT%"];
    let filter = json!({"name": "pp", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"}});
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    let chain = json!({"filters": [manager(&json!([route("/", "up")]), &operators)]});
    let proxy = start(&json!({"name": "l", "address": address, "listener_filters": [filter],
        "filter_chains": [chain]}));
    let at = proxy.listener("l");
    let stream = TcpStream::connect(at).unwrap();
    let header = "PROXY TCP4 192.0.2.1 198.51.100.2 11 22\r\n";
    assert_eq!(logged(&proxy, stream, header, "/"), format!("198.51.100.2:22|{at}|{}", at.port()));
}
