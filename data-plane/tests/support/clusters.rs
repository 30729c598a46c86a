//! A listener that leads to clusters, and the servers behind them.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "every test file uses its part; what fails here fails the test"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Proxy, wait};

const ROUTER: &str = "- name: envoy.filters.http.router\n            typed_config: {\"@type\": \
                      type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}";

/// A listener with these routes and filters, and these clusters, each a line of flow YAML.
pub fn bootstrap(routes: &[&str], filters: &str, clusters: &[String]) -> String {
    let clusters: String = clusters.iter().map(|cluster| format!("  - {cluster}\n")).collect();
    format!(
        r#"
static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: ingress
          route_config:
            virtual_hosts: [{{name: v, domains: ["*"], routes: [{}]}}]
          http_filters:
          {filters}{ROUTER}
  clusters:
{clusters}"#,
        routes.join(", ")
    )
}

pub fn simple(cluster: String) -> String {
    bootstrap(&["{match: {prefix: /}, route: {cluster: c}}"], "", &[cluster])
}

pub fn endpoint(address: SocketAddr) -> String {
    format!(
        "endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}",
        address.ip(),
        address.port()
    )
}

pub fn hosts(name: &str, addresses: &[SocketAddr]) -> String {
    let all: Vec<String> = addresses.iter().map(|address| format!("{{{}}}", endpoint(*address))).collect();
    format!("load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{}]}}]}}", all.join(", "))
}

/// A port where nobody listens.
pub fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A server that answers every request of a connection with this, and counts connections and requests.
pub struct Scripted {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl Scripted {
    pub fn start(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen, asked, answer) = (connections.clone(), requests.clone(), Arc::new(answer));
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                seen.fetch_add(1, Ordering::SeqCst);
                let (asked, answer) = (asked.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &*answer, &asked));
            }
        });
        Self { address, connections, requests }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

/// Without an answer, the connection is held open in silence.
fn serve(mut stream: TcpStream, answer: &dyn Fn(&str) -> Option<String>, asked: &AtomicUsize) {
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..count]);
        while let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = seen.drain(..end + 4).collect();
            asked.fetch_add(1, Ordering::SeqCst);
            if let Some(answer) = answer(&String::from_utf8_lossy(&head))
                && stream.write_all(answer.as_bytes()).is_err()
            {
                return;
            }
        }
    }
}

pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A cluster of one host that is checked often, by this.
pub fn checked(address: SocketAddr, checker: &str) -> String {
    format!(
        "{{name: c, type: STATIC, connect_timeout: 1s, common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}, \
         health_checks: [{{timeout: 1s, interval: 0.03s, no_traffic_interval: 0.03s, unhealthy_threshold: 1, \
         healthy_threshold: 1, event_logger: [{{name: file, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink, \
         event_log_path: $DIR/events}}}}], {checker}}}], {}}}",
        hosts("c", &[address])
    )
}

pub fn becomes(proxy: &Proxy, healthy: i64) {
    wait("another health", || {
        (proxy.stat("cluster.c.health_check.attempt")? > 1
            && proxy.stat("cluster.c.membership_healthy")? == healthy)
            .then_some(())
    });
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
