//! Operators of access logs that tell of connections: their moments, their ends, their certificates' names.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use support::{Backend, Proxy, call, wait};

/// A listener of HTTP and one of TCP, each with a log of its own, before one cluster.
fn bootstrap(backend: SocketAddr, http: &str, tcp: &str) -> String {
    let log = |path: &str, format: &str| {
        format!(
            "[{{name: a, typed_config: {{'@type': type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, \
             path: $DIR/{path}, log_format: {{text_format_source: {{inline_string: \"{format}\\n\"}}}}}}}}]"
        )
    };
    let (http, tcp) = (log("http.log", http), log("tcp.log", tcp));
    format!(
        "
static_resources:
  listeners:
  - name: http
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: x
          access_log: {http}
          route_config:
            virtual_hosts:
            - name: v
              domains: ['*']
              virtual_clusters: [{{name: books, headers: [{{name: ':path', string_match: {{prefix: /books}}}}]}}]
              routes: [{{match: {{prefix: /}}, route: {{cluster: b}}}}]
          http_filters:
          - name: router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  - name: tcp
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: x
          cluster: b
          idle_timeout: 0.3s
          access_log: {tcp}
  clusters:
  - name: b
    type: STATIC
    load_assignment:
      cluster_name: b
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]
",
        backend.port()
    )
}

/// The log's lines, once there are so many.
fn lines(proxy: &Proxy, log: &str, count: usize) -> Vec<String> {
    let path = proxy.dir.path().join(log);
    wait("lines of the log", || {
        let text = std::fs::read_to_string(&path).ok()?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn a_requests_line_tells_moments_of_its_connections() {
    let backend = Backend::start("b");
    let format = "%VIRTUAL_CLUSTER_NAME% %DOWNSTREAM_DETECTED_CLOSE_TYPE% %UPSTREAM_DETECTED_CLOSE_TYPE% \
                  %DOWNSTREAM_LOCAL_CLOSE_REASON% %DOWNSTREAM_HANDSHAKE_DURATION% %DOWNSTREAM_TLS_SESSION_ID% \
                  %COMMON_DURATION(US_CX_END:US_HS_END:us)% %COMMON_DURATION(DS_CX_BEG:DS_CX_END:us)% | \
                  %DOWNSTREAM_CX_RTT% %COMMON_DURATION(DS_CX_BEG:DS_RX_BEG:us)% \
                  %COMMON_DURATION(DS_RX_BEG:DS_RX_HDR_END:us)% %COMMON_DURATION(US_CX_BEG:US_CX_END:us)% \
                  %COMMON_DURATION(US_RX_BEG:US_RX_BODY_BEG:us)% %FILE_CONTENT($DIR/bootstrap.yaml):4%";
    let proxy = Proxy::ready(&bootstrap(backend.address, format, "-"), &[]);
    let http = proxy.listener("http");
    assert_eq!(call(http, "GET", "/books/1", &[]).unwrap().status, 200);
    assert_eq!(call(http, "GET", "/", &[]).unwrap().status, 200);
    let lines = lines(&proxy, "http.log", 2);
    for (line, group) in lines.iter().zip(["books", "-"]) {
        let (said, numbers) = line.split_once(" | ").unwrap();
        assert_eq!(said, format!("{group} Normal Normal - - - - -"));
        let mut numbers: Vec<&str> = numbers.split(' ').collect();
        assert_eq!(numbers.pop(), Some("admi"));
        assert_eq!(numbers.len(), 5, "{line}");
        assert!(numbers.iter().all(|number| number.parse::<u32>().is_ok()), "{line}");
    }
}

#[test]
fn a_file_that_is_not_there_is_refused() {
    let backend = Backend::start("b");
    let config = bootstrap(backend.address, "%FILE_CONTENT(/nowhere/at/all)%", "-");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sail-proxy"))
        .args(["--mode", "validate", "--config-yaml", &config])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("cannot read /nowhere/at/all"), "{said}");
}

/// A server that resets each connection once it has read something.
fn resetting() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 64]);
            reset(stream);
        }
    });
    address
}

fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

const ENDS: &str = "%RESPONSE_FLAGS% %DOWNSTREAM_DETECTED_CLOSE_TYPE% %UPSTREAM_DETECTED_CLOSE_TYPE% \
                    %DOWNSTREAM_LOCAL_CLOSE_REASON% %UPSTREAM_LOCAL_CLOSE_REASON%";

#[test]
fn an_upstreams_reset_resets_the_client() {
    let proxy = Proxy::ready(&bootstrap(resetting(), "-", ENDS), &[]);
    let mut client = TcpStream::connect(proxy.listener("tcp")).unwrap();
    client.write_all(b"x").unwrap();
    let error = client.read(&mut [0; 64]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(lines(&proxy, "tcp.log", 1), ["UR LocalReset RemoteReset - -"]);
}

#[test]
fn a_tcp_line_tells_how_it_ended() {
    let silent = support::listen();
    let proxy = Proxy::ready(&bootstrap(silent.local_addr().unwrap(), "-", ENDS), &[]);
    let tcp = proxy.listener("tcp");
    let mut idle = TcpStream::connect(tcp).unwrap();
    assert_eq!(idle.read(&mut [0; 64]).unwrap(), 0);
    let (mut upstream, _) = silent.accept().unwrap();
    assert_eq!(upstream.read(&mut [0; 64]).unwrap(), 0);
    let mut client = TcpStream::connect(tcp).unwrap();
    client.write_all(b"x").unwrap();
    let (mut upstream, _) = silent.accept().unwrap();
    assert_eq!(upstream.read(&mut [0; 64]).unwrap(), 1);
    reset(client);
    assert_eq!(upstream.read(&mut [0; 64]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let reason = "tcp_session_idle_timeout";
    assert_eq!(
        lines(&proxy, "tcp.log", 2),
        [format!("- Normal Normal {reason} {reason}"), "- RemoteReset Normal - -".to_owned()]
    );
}
