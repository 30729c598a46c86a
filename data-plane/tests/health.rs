//! Health of hosts: checks of every kind, what the control plane says of them, ejection; and what follows for requests.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/certs.rs"]
mod certs;
#[path = "support/clusters.rs"]
mod cluster;
#[path = "support/grpc.rs"]
mod grpc;
mod support;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use certs::{Authority, Signed};
use cluster::{Scripted, becomes, bootstrap, checked, closed, endpoint, hex, hosts, ok, simple};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use support::{Backend, Proxy, call, wait};

#[test]
fn http_checks_look_at_status_headers_and_body() {
    let backend = Scripted::start(|head| {
        let asked = head.starts_with("HEAD /h ") || head.starts_with("GET /h ");
        let known = head.contains("host: checked.example") && head.contains("x-check: yes");
        let name = if asked && known { "reviews" } else { "other" };
        Some(format!("HTTP/1.1 204 No Content\r\nx-envoy-upstream-healthchecked-cluster: {name}-1\r\n\r\n"))
    });
    let check = "http_health_check: {path: /h, host: checked.example, expected_statuses: [{start: 200, end: 300}], \
                 request_headers_to_add: [{header: {key: x-check, value: \"yes\"}}], service_name_matcher: \
                 {prefix: reviews}}";
    let proxy = Proxy::ready(&simple(checked(backend.address, check)), &[]);
    becomes(&proxy, 1);
    assert_eq!(backend.connections(), 1, "one connection serves all checks");
    let events = std::fs::read_to_string(proxy.dir.path().join("events")).unwrap();
    assert!(events.contains(r#""add_healthy_event":{"first_check":true}"#), "{events}");
    drop(proxy);
    let wrong = check.replace("reviews", "ratings");
    let proxy = Proxy::ready(&simple(checked(backend.address, &wrong)), &[]);
    becomes(&proxy, 0);
    assert_eq!(call(proxy.listener("in"), "GET", "/", &[]).unwrap().status, 503);
    let clusters = proxy.admin("GET", "/clusters").body;
    assert!(clusters.contains("::health_flags::/failed_active_hc\n"), "{clusters}");
}

#[test]
fn http_checks_read_bodies() {
    let backend = Scripted::start(|_| Some(ok("all is well")));
    let text = hex(b"is well");
    let check = format!("http_health_check: {{path: /h, receive: [{{text: \"{text}\"}}]}}");
    becomes(&Proxy::ready(&simple(checked(backend.address, &check)), &[]), 1);
    let other = check.replace(&text, &hex(b"is bad"));
    becomes(&Proxy::ready(&simple(checked(backend.address, &other)), &[]), 0);
}

#[test]
fn http_checks_send_bodies() {
    let backend = Scripted::start(|head| {
        let asked = head.starts_with("POST /h ") && head.contains("content-length: 4\r\n");
        asked.then(|| ok("there"))
    });
    let check =
        format!("http_health_check: {{path: /h, method: POST, send: {{text: \"{}\"}}}}", hex(b"ping"));
    let cluster = checked(backend.address, &check).replace("[{timeout", "[{reuse_connection: false, timeout");
    becomes(&Proxy::ready(&simple(cluster), &[]), 1);
}

#[test]
fn tcp_checks_send_and_receive() {
    let backend = Scripted::start(|head| head.starts_with("PING").then(|| "xxPONGxx".to_owned()));
    let ping = hex(b"PING\r\n\r\n");
    let check = |receive: &[u8]| {
        format!("tcp_health_check: {{send: {{text: \"{ping}\"}}, receive: [{{text: \"{}\"}}]}}", hex(receive))
    };
    becomes(&Proxy::ready(&simple(checked(backend.address, &check(b"PONG"))), &[]), 1);
    let slow = checked(backend.address, &check(b"GONE"))
        .replace("timeout: 1s, interval", "timeout: 0.05s, interval");
    becomes(&Proxy::ready(&simple(slow), &[]), 0);
}

#[test]
fn a_host_that_fails_its_checks_gets_nothing() {
    let backend = Backend::start("well");
    let cluster = format!(
        "{{name: c, type: STATIC, connect_timeout: 1s, health_checks: [{{timeout: 1s, interval: 0.05s, \
         no_traffic_interval: 0.05s, unhealthy_threshold: 1, healthy_threshold: 1, http_health_check: \
         {{path: /healthz}}}}], {}}}",
        hosts("c", &[closed(), backend.address])
    );
    let proxy = Proxy::ready(&simple(cluster), &[]);
    assert_eq!(
        proxy.stat("cluster.c.membership_healthy"),
        Some(1),
        "the first round is over before it is ready"
    );
    let listener = proxy.listener("in");
    for _ in 0..10 {
        assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "well");
    }
    assert!(backend.next().starts_with("GET /healthz HTTP/1.1"));
}

#[test]
fn a_host_that_fails_is_ejected_and_let_back_in() {
    let backend = Backend::start("well");
    let cluster = format!(
        "{{name: c, type: STATIC, connect_timeout: 1s, outlier_detection: {{consecutive_5xx: 1, interval: 0.1s, \
         base_ejection_time: 0.3s, max_ejection_percent: 100, enforcing_success_rate: 0}}, {}}}",
        hosts("c", &[closed(), backend.address])
    );
    let proxy = Proxy::ready(&simple(cluster), &[]);
    let listener = proxy.listener("in");
    wait("a failure", || (call(listener, "GET", "/", &[]).unwrap().status == 503).then_some(()));
    let enforced = proxy.stat("cluster.c.outlier_detection.ejections_enforced_consecutive_5xx");
    assert_eq!(enforced, Some(1));
    assert_eq!(call(listener, "GET", "/", &[]).unwrap().body, "well");
    wait("its return", || (proxy.stat("cluster.c.outlier_detection.ejections_active")? == 0).then_some(()));
    wait("a failure again", || (call(listener, "GET", "/", &[]).unwrap().status == 503).then_some(()));
}

/// `grpc.health.v1.HealthCheckRequest`
#[derive(Clone, PartialEq, prost::Message)]
struct HealthRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`
#[derive(Clone, PartialEq, prost::Message)]
struct HealthResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

#[test]
fn grpc_checks_ask_for_their_service() {
    let status = Arc::new(AtomicI32::new(1));
    let told = status.clone();
    let server = grpc::serve(move || {
        let told = told.clone();
        move |request: HealthRequest| {
            let known = request.service == "reviews";
            vec![HealthResponse { status: if known { told.load(Ordering::SeqCst) } else { 3 } }]
        }
    });
    let check = |service: &str| format!("grpc_health_check: {{service_name: {service}, authority: a.test}}");
    let proxy = Proxy::ready(&simple(checked(server, &check("reviews"))), &[]);
    becomes(&proxy, 1);
    status.store(2, Ordering::SeqCst);
    becomes(&proxy, 0);
    status.store(1, Ordering::SeqCst);
    becomes(&proxy, 1);
    becomes(&Proxy::ready(&simple(checked(server, &check("ratings"))), &[]), 0);
    let nobody = Proxy::ready(&simple(checked(closed(), &check("reviews"))), &[]);
    becomes(&nobody, 0);
    assert!(nobody.stat("cluster.c.health_check.network_failure").unwrap() > 0);
}

#[test]
fn hosts_are_checked_before_the_first_request() {
    let open = Arc::new(AtomicBool::new(false));
    let may = open.clone();
    let backend = Scripted::start(move |_| may.load(Ordering::SeqCst).then(|| ok("there")));
    let check = "http_health_check: {path: /h}";
    let cluster = checked(backend.address, check).replace("timeout: 1s, interval", "timeout: 20s, interval");
    let proxy = Proxy::start(&simple(cluster), &[]);
    wait("the first check", || (backend.requests() == 1).then_some(()));
    assert_eq!(proxy.admin("GET", "/ready").status, 503);
    let waiting = proxy.admin("GET", "/init_dump").body;
    assert!(waiting.contains("cluster c"), "{waiting}");
    drop(proxy);
    let eager = checked(backend.address, check)
        .replace("timeout: 1s, interval", "timeout: 20s, interval")
        .replace("{name: c,", "{name: c, wait_for_warm_on_init: false,");
    let proxy = Proxy::ready(&simple(eager), &[]);
    assert_eq!(call(proxy.listener("in"), "GET", "/", &[]).unwrap().status, 503);
    open.store(true, Ordering::SeqCst);
    let proxy = Proxy::ready(&simple(checked(backend.address, check)), &[]);
    assert_eq!(call(proxy.listener("in"), "GET", "/", &[]).unwrap().body, "there");
}

/// A server that says yes over TLS.
fn over_tls(signed: &Signed) -> SocketAddr {
    let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(signed.cert.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(signed.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(certs::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certs.unwrap(), key);
    let config = Arc::new(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let server = rustls::ServerConnection::new(config.clone()).unwrap();
            std::thread::spawn(move || {
                let mut tls = rustls::StreamOwned::new(server, stream);
                while let Ok(1..) = tls.read(&mut [0; 4096]) {
                    if tls.write_all(ok("secret").as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

#[test]
fn checks_go_over_the_clusters_tls() {
    let (authority, other) = (Authority::new(), Authority::new());
    let server = over_tls(&authority.sign(1, &["a.test"]));
    let start = |trusted: &Authority| {
        let tls = "transport_socket: {name: tls, typed_config: {\"@type\": \
                   type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: a.test, \
                   common_tls_context: {validation_context_sds_secret_config: {name: root}}}}, ";
        let cluster = checked(server, "http_health_check: {path: /h}")
            .replace("type: STATIC, ", &format!("type: STATIC, {tls}"));
        let root = serde_json::to_string(&trusted.pem).unwrap();
        let secrets = format!(
            "static_resources:\n  secrets: [{{name: root, validation_context: {{trusted_ca: {{inline_string: {root}}}}}}}]\n"
        );
        Proxy::ready(&simple(cluster).replace("static_resources:\n", &secrets), &[])
    };
    let proxy = start(&authority);
    assert_eq!(proxy.stat("cluster.c.membership_healthy"), Some(1));
    assert_eq!(call(proxy.listener("in"), "GET", "/", &[]).unwrap().body, "secret");
    assert_eq!(start(&other).stat("cluster.c.membership_healthy"), Some(0));
}

#[test]
fn connections_end_with_their_hosts_health() {
    let well = Arc::new(AtomicBool::new(true));
    let is_well = well.clone();
    let backend = Scripted::start(move |head| {
        let check = head.starts_with("GET /h ");
        let bad = "HTTP/1.1 500 Bad\r\ncontent-length: 0\r\n\r\n".to_owned();
        if check { Some(if is_well.load(Ordering::SeqCst) { ok("") } else { bad }) } else { None }
    });
    let cluster = checked(backend.address, "http_health_check: {path: /h}")
        .replace("{name: c,", "{name: c, close_connections_on_host_health_failure: true,");
    let proxy = Proxy::ready(&simple(cluster), &[]);
    let mut stream = TcpStream::connect(proxy.listener("in")).unwrap();
    stream.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    wait("the request at the backend", || (proxy.stat("cluster.c.upstream_rq_active")? == 1).then_some(()));
    well.store(false, Ordering::SeqCst);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(proxy.stat("cluster.c.membership_healthy"), Some(0));
}

/// How often each backend answers so many requests.
fn shares(to: SocketAddr, count: usize) -> BTreeMap<String, usize> {
    let mut all = BTreeMap::new();
    for _ in 0..count {
        *all.entry(call(to, "GET", "/", &[]).unwrap().body).or_default() += 1;
    }
    all
}

#[test]
fn hosts_are_used_as_the_control_plane_says() {
    let backends = ["healthy", "draining", "degraded", "unhealthy"].map(|name| (name, Backend::start(name)));
    let cluster = |which: &[&str]| {
        let hosts: Vec<String> = backends
            .iter()
            .filter(|(name, _)| which.contains(name))
            .map(|(name, backend)| {
                format!("{{{}, health_status: {}}}", endpoint(backend.address), name.to_uppercase())
            })
            .collect();
        format!(
            "{{name: c, type: STATIC, connect_timeout: 1s, common_lb_config: {{healthy_panic_threshold: {{value: 0}}}}, \
             load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{}]}}]}}}}",
            hosts.join(", ")
        )
    };
    let ask = |which: &[&str]| {
        let proxy = Proxy::ready(&simple(cluster(which)), &[]);
        shares(proxy.listener("in"), 40).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(ask(&["healthy", "draining", "unhealthy"]), ["healthy"]);
    // Below so many healthy hosts the degraded ones take over a part.
    assert_eq!(ask(&["healthy", "degraded", "draining"]), ["degraded", "healthy"]);
    assert_eq!(ask(&["degraded", "unhealthy"]), ["degraded"]);
    assert_eq!(ask(&["draining"]), ["no healthy upstream"]);
    let proxy = Proxy::ready(&simple(cluster(&["healthy", "draining", "degraded"])), &[]);
    let clusters = proxy.admin("GET", "/clusters").body;
    assert!(clusters.contains("::health_flags::/eds_status_draining\n"), "{clusters}");
    assert!(clusters.contains("::health_flags::/degraded_eds_health\n"), "{clusters}");
    let stat = |name: &str| proxy.stat(&format!("cluster.c.membership_{name}"));
    assert_eq!([stat("total"), stat("healthy"), stat("degraded")], [Some(3), Some(1), Some(1)]);
}

#[test]
fn requests_stay_in_the_zone() {
    let backends: Vec<(&str, Backend)> =
        ["here", "here", "there", "there"].into_iter().map(|zone| (zone, Backend::start(zone))).collect();
    let groups = |name: &str, counts: [usize; 2]| {
        let group = |zone: &str, count: usize| {
            let hosts: Vec<String> = backends
                .iter()
                .filter(|(other, _)| *other == zone)
                .take(count)
                .map(|(_, backend)| format!("{{{}}}", endpoint(backend.address)))
                .collect();
            format!("{{locality: {{region: r, zone: {zone}}}, lb_endpoints: [{}]}}", hosts.join(", "))
        };
        format!(
            "load_assignment: {{cluster_name: {name}, endpoints: [{}, {}]}}",
            group("here", counts[0]),
            group("there", counts[1])
        )
    };
    let run = |counts: [usize; 2]| {
        let clusters = [
            format!("{{name: self, type: STATIC, connect_timeout: 1s, {}}}", groups("self", [1, 1])),
            format!(
                "{{name: c, type: STATIC, connect_timeout: 1s, common_lb_config: {{zone_aware_lb_config: \
                 {{min_cluster_size: 1}}}}, {}}}",
                groups("c", counts)
            ),
        ];
        let local = "node: {id: n, cluster: c, locality: {region: r, zone: here}}\ncluster_manager: \
                     {local_cluster_name: self}\n";
        let routes = &["{match: {prefix: /}, route: {cluster: c}}"];
        let proxy = Proxy::ready(&format!("{local}{}", bootstrap(routes, "", &clusters)), &[]);
        let found = shares(proxy.listener("in"), 60);
        let stat = |name: &str| proxy.stat(&format!("cluster.c.lb_zone_routing_{name}")).unwrap_or(0);
        (found, [stat("all_directly"), stat("sampled") + stat("cross_zone")])
    };
    let (all, [direct, others]) = run([2, 2]);
    assert_eq!((all.get("here"), all.get("there"), direct, others), (Some(&60), None, 60, 0));
    // A third of the hosts cannot take half of the requests: some go to the other zone.
    let (all, [direct, others]) = run([1, 2]);
    assert!(all["here"] > all["there"] && all["there"] > 5, "{all:?}");
    assert_eq!((direct, others), (0, 60));
}
