//! What ill-meant clients do: each is refused or made harmless, and the others are served as before.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/certs.rs"]
mod certs;
#[path = "support/frames.rs"]
mod frames;
mod support;

#[path = "hardness/floods.rs"]
mod floods;
#[path = "hardness/idle.rs"]
mod idle;
#[path = "hardness/noise.rs"]
mod noise;
#[path = "hardness/paths.rs"]
mod paths;
#[path = "hardness/pseudo.rs"]
mod pseudo;
#[path = "hardness/smuggling.rs"]
mod smuggling;
#[path = "hardness/stuck.rs"]
mod stuck;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use support::{Backend, Proxy};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "{name: envoy.filters.http.router, typed_config: {\"@type\": \
    type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
const NO_ADMIN: &str = "{name: envoy.filters.http.rbac, typed_config: {\"@type\": \
    type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {action: DENY, policies: {admin: \
    {permissions: [{url_path: {path: {prefix: /admin}}}], principals: [{any: true}]}}}}}, ";

/// How long an answer may take before it counts as none.
const PATIENCE: Duration = Duration::from_secs(10);

/// A proxy that forwards everything but `/admin` to one backend.
fn gate(address: SocketAddr, routes: &str, more: &str) -> Proxy {
    Proxy::ready(&bootstrap(address, routes, more), &[])
}

fn bootstrap(address: SocketAddr, routes: &str, more: &str) -> String {
    format!(
        "node: {{id: n, cluster: c}}\nstatic_resources:\n  listeners:\n  - name: l\n    address: {{socket_address: \
         {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains: [{{filters: [{{name: hcm, typed_config: \
         {{\"@type\": {HCM}, stat_prefix: l, {more} route_config: {{virtual_hosts: [{{name: v, domains: [\"*\"], \
         routes: [{routes}{{match: {{prefix: /}}, route: {{cluster: a}}}}]}}]}}, http_filters: [{NO_ADMIN}{ROUTER}]}}}}]}}]\n  \
         clusters:\n  - {{name: a, type: STATIC, connect_timeout: 1s, load_assignment: {{cluster_name: a, endpoints: \
         [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}\n",
        address.ip(),
        address.port()
    )
}

/// A proxy before a backend that tells what reached it.
struct Gate {
    backend: Backend,
    to: SocketAddr,
    proxy: Proxy,
}

impl Gate {
    fn new(routes: &str, more: &str) -> Self {
        let backend = Backend::start("a");
        let proxy = gate(backend.address, routes, more);
        Self { to: proxy.listener("l"), backend, proxy }
    }

    /// One that looks for TLS and HTTP in the first bytes.
    fn inspecting() -> Self {
        let backend = Backend::start("a");
        let kind = "type.googleapis.com/envoy.extensions.filters.listener";
        let filters = format!(
            "    listener_filters: [{{name: t, typed_config: {{\"@type\": {kind}.tls_inspector.v3.TlsInspector}}}}, \
             {{name: h, typed_config: {{\"@type\": {kind}.http_inspector.v3.HttpInspector}}}}]\n    filter_chains:"
        );
        let text = bootstrap(backend.address, "", "").replacen("    filter_chains:", &filters, 1);
        let proxy = Proxy::ready(&text, &[]);
        Self { to: proxy.listener("l"), backend, proxy }
    }

    /// A counter or gauge of the proxy.
    fn stat(&self, name: &str) -> Option<i64> {
        self.proxy.stat(name)
    }

    /// Everything that reached the backend since the last call.
    fn seen(&self) -> Vec<String> {
        self.backend.seen.try_iter().collect()
    }

    /// The same, once a well-behaved client was served: the backend has then heard what came before.
    fn seen_after(&self, what: &str) -> Vec<String> {
        assert!(serves(self.to), "{what} harmed others");
        let mut all = self.seen();
        // The backend knows no chunks and answers them, too: such an answer may have come first.
        while !all.iter().any(|seen| seen.starts_with("GET /fine ")) {
            all.push(self.backend.next());
        }
        let count = all.len();
        all.retain(|seen| !seen.starts_with("GET /fine "));
        assert_eq!(all.len() + 1, count, "{what}");
        all
    }
}

/// Sends bytes and reads all that comes until the proxy closes, or is silent for too long.
fn talk(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // The proxy may have heard enough before the end.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Whether a well-behaved client is served.
fn serves(to: SocketAddr) -> bool {
    let answer = talk(to, b"GET /fine HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    answer.starts_with(b"HTTP/1.1 200")
}
