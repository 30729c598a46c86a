//! Configuration that changes all the time under load: no request fails, no connection breaks.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/certs.rs"]
mod certs;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use certs::Authority;
use serde_json::{Value, json};
use support::xds::Server;
use support::{Backend, Proxy, wait};
use xds_api::codec::Codec;
use xds_api::envoy::config::cluster::v3::Cluster;
use xds_api::envoy::config::endpoint::v3::ClusterLoadAssignment;
use xds_api::envoy::config::listener::v3::Listener;
use xds_api::type_url;

/// How often something changes.
const PERIOD: Duration = Duration::from_millis(100);

const CLIENTS: usize = 4;

fn bootstrap(server: &Server) -> String {
    let xds = json!({ "address": "127.0.0.1", "port_value": server.address.port() });
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    format!(
        "node: {{id: n, cluster: c}}\ndynamic_resources:\n  ads_config: {{api_type: DELTA_GRPC, \
         transport_api_version: V3, grpc_services: [{{envoy_grpc: {{cluster_name: xds}}}}]}}\n  cds_config: {{ads: {{}}, \
         resource_api_version: V3}}\n  lds_config: {{ads: {{}}, resource_api_version: V3}}\nstatic_resources:\n  clusters:\n  \
         - {{name: xds, type: STATIC, typed_extension_protocol_options: {{{options}: {{\"@type\": \
         type.googleapis.com/{options}, explicit_http_config: {{http2_protocol_options: {{}}}}}}}}, load_assignment: \
         {{cluster_name: xds, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {xds}}}}}}}]}}]}}}}\n"
    )
}

struct Resources(Codec);

impl Resources {
    /// A cluster that is another one with each version, and needs its endpoints anew.
    fn cluster(&self, version: u64) -> Cluster {
        let ads = json!({ "ads": {}, "resource_api_version": "V3" });
        let policy = if version.is_multiple_of(2) { "ROUND_ROBIN" } else { "LEAST_REQUEST" };
        let text = json!({
            "name": "app", "type": "EDS", "eds_cluster_config": { "eds_config": ads }, "lb_policy": policy,
            "connect_timeout": format!("{}s", 1 + version % 5),
        });
        self.0.from_json_value(&text).unwrap()
    }

    fn endpoints(&self, backends: &[&Backend]) -> ClusterLoadAssignment {
        let endpoint = |backend: &&Backend| {
            let address = json!({ "address": "127.0.0.1", "port_value": backend.address.port() });
            json!({ "endpoint": { "address": { "socket_address": address } } })
        };
        let hosts: Vec<Value> = backends.iter().map(endpoint).collect();
        let text = json!({ "cluster_name": "app", "endpoints": [{ "lb_endpoints": hosts }] });
        self.0.from_json_value(&text).unwrap()
    }

    /// A listener whose responses tell which one it is.
    fn listener(&self, version: u64, files: &Path) -> Listener {
        let google = "type.googleapis.com/envoy.extensions";
        let router = json!({ "@type": format!("{google}.filters.http.router.v3.Router") });
        let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": "app" } });
        let hcm = json!({
            "@type": format!("{google}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "in",
            "server_name": format!("version-{version}"),
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
            "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": router }],
        });
        let certificate = json!({
            "certificate_chain": { "filename": files.join("tls.crt") },
            "private_key": { "filename": files.join("tls.key") },
        });
        let tls = json!({
            "@type": format!("{google}.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": { "tls_certificates": [certificate] },
        });
        let text = json!({
            "name": "in",
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
            "filter_chains": [{
                "filters": [{ "name": "hcm", "typed_config": hcm }],
                "transport_socket": { "name": "tls", "typed_config": tls },
            }],
        });
        self.0.from_json_value(&text).unwrap()
    }
}

/// Asks until told to stop; a connection is left only when the proxy says so. Returns how many requests it made.
fn client(
    authority: &Authority,
    to: SocketAddr,
    stop: &AtomicBool,
    connections: &AtomicU64,
) -> Result<u64, String> {
    let mut requests = 0;
    while !stop.load(Relaxed) {
        connections.fetch_add(1, Relaxed);
        let mut tls =
            authority.connect(to, "a.test", None).map_err(|error| format!("connecting: {error}"))?;
        loop {
            let head = ask(&mut tls).map_err(|error| format!("request {requests}: {error}"))?;
            requests += 1;
            if !head.starts_with("http/1.1 200 ") {
                return Err(format!("request {requests}: {head}"));
            }
            if head.contains("connection: close") || stop.load(Relaxed) {
                break;
            }
        }
    }
    Ok(requests)
}

/// One request on a connection; the response's head comes back, lower-cased.
fn ask(tls: &mut (impl Read + Write)) -> std::io::Result<String> {
    tls.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\n\r\n")?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        tls.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
    tls.read_exact(&mut vec![0; length.unwrap_or(0)])?;
    Ok(head)
}

fn churn(time: Duration) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::new());
    authority.sign(1, &["a.test"]).write(dir.path());
    let (resources, one, two) = (Resources(Codec::new()), Backend::start("1"), Backend::start("2"));
    let mut server = Server::start(None);
    let proxy = Proxy::start(&bootstrap(&server), &[]);
    server.subscription(type_url::CLUSTER);
    server.send(&[("app", resources.cluster(0))], &[]);
    server.subscription(type_url::ENDPOINT);
    server.send(&[("app", resources.endpoints(&[&one]))], &[]);
    server.subscription(type_url::LISTENER);
    server.send(&[("in", resources.listener(0, dir.path()))], &[]);
    wait("readiness", || (proxy.admin("GET", "/ready").status == 200).then_some(()));
    let to = proxy.listener("in");

    let stop = Arc::new(AtomicBool::new(false));
    let connections = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (authority, stop, connections) = (authority.clone(), stop.clone(), connections.clone());
            thread::spawn(move || client(&authority, to, &stop, &connections))
        })
        .collect();
    let start = Instant::now();
    let mut change = 0;
    while start.elapsed() < time && !clients.iter().any(thread::JoinHandle::is_finished) {
        change += 1;
        match change % 4 {
            0 => {
                let answer = server.send(&[("in", resources.listener(change, dir.path()))], &[]);
                assert_eq!(answer.error_detail, None);
            }
            1 => {
                let sets: [&[&Backend]; 3] = [&[&one, &two], &[&two], &[&one]];
                let hosts = sets[usize::try_from(change / 4 % 3).unwrap()];
                server.send(&[("app", resources.endpoints(hosts))], &[]);
            }
            2 => {
                let answer = server.send(&[("app", resources.cluster(change))], &[]);
                assert_eq!(answer.error_detail, None);
                // A cluster that changed warms: it asks for its endpoints again, or has those that are known.
                server.send(&[("app", resources.endpoints(&[&one, &two]))], &[]);
            }
            _ => {
                authority.sign(change, &["a.test"]).write(dir.path());
            }
        }
        // The pace of the changes, not a wait for one.
        thread::sleep(
            PERIOD.saturating_sub(start.elapsed().saturating_sub(PERIOD * change as u32)).min(PERIOD),
        );
    }
    stop.store(true, Relaxed);
    let results: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    let requests: u64 = results.iter().map(|result| *result.as_ref().expect("no request fails")).sum();
    let connections = connections.load(Relaxed);
    println!("{change} changes, {requests} requests on {connections} connections, none failed");
    assert!(change > 5 && requests > change, "{change} changes, {requests} requests");
    assert!(connections > CLIENTS as u64, "nobody was told that its listener had changed");
    for name in ["http.in.downstream_rq_5xx", "cluster.app.upstream_cx_connect_fail"] {
        assert_eq!(proxy.stat(name).unwrap_or(0), 0, "{name}");
    }
}

#[test]
fn seconds_of_churn_fail_no_request() {
    churn(Duration::from_secs(4));
}

#[test]
#[ignore = "takes a minute: bench/README.md has the command"]
fn a_minute_of_churn_fails_no_request() {
    churn(Duration::from_secs(60));
}

/// Asks until the proxy says that the connection ends; every request that was sent has its answer.
fn until_the_end(to: SocketAddr, asked: &AtomicU64) -> Result<(), String> {
    let mut stream = TcpStream::connect(to).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).map_err(|error| error.to_string())?;
    loop {
        let head = ask(&mut stream).map_err(|error| format!("after {asked:?} requests: {error}"))?;
        asked.fetch_add(1, Relaxed);
        if !head.starts_with("http/1.1 200 ") {
            return Err(head);
        }
        if head.contains("connection: close") {
            return Ok(());
        }
    }
}

#[test]
fn who_is_told_to_end_finishes_what_it_does() {
    let backend = Backend::start("1");
    let hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let mut proxy = Proxy::ready(
        &format!(
            "node: {{id: n, cluster: c}}\nstatic_resources:\n  listeners:\n  - name: l\n    address: {{socket_address: \
             {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains: [{{filters: [{{name: hcm, typed_config: \
             {{\"@type\": {hcm}, stat_prefix: l, route_config: {{virtual_hosts: [{{name: v, domains: [\"*\"], routes: \
             [{{match: {{prefix: /}}, route: {{cluster: a}}}}]}}]}}, http_filters: [{{name: router, typed_config: \
             {{\"@type\": {router}}}}}]}}}}]}}]\n  clusters:\n  - {{name: a, type: STATIC, load_assignment: {{cluster_name: a, \
             endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: \
             {}}}}}}}}}]}}]}}}}\n",
            backend.address.port()
        ),
        &[],
    );
    let to = proxy.listener("l");
    // An HTTP/2 client that only listens: it is told where the connection ends.
    let mut http2 = TcpStream::connect(to).unwrap();
    http2.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    http2.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let asked = asked.clone();
            thread::spawn(move || until_the_end(to, &asked))
        })
        .collect();
    wait("load", || (asked.load(Relaxed) > 200).then_some(()));
    proxy.terminate();
    for client in clients {
        client.join().unwrap().unwrap();
    }
    let mut frames = Vec::new();
    http2.read_to_end(&mut frames).unwrap();
    let mut rest = frames.as_slice();
    let mut kinds = Vec::new();
    while let [high, middle, low, kind, _, _, _, _, _, after @ ..] = rest {
        kinds.push(*kind);
        rest = &after[u32::from_be_bytes([0, *high, *middle, *low]) as usize..];
    }
    assert!(kinds.contains(&7), "no GOAWAY among frames of kind {kinds:?}");
    assert!(proxy.exit().success());
}
