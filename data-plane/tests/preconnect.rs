//! Connections that are made before anybody needs them, to the hosts that the next requests will go to. With
//! `PROXY_UNDER_TEST` the same holds for Envoy.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/clusters.rs"]
mod cluster;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use cluster::{Scripted, endpoint, hosts, ok, simple};
use support::{Backend, Proxy, call, wait};

/// Servers that answer with their place in the list, and not at all under `/held`.
fn servers(count: usize) -> Vec<Scripted> {
    let answer = |at: usize| move |head: &str| (!head.starts_with("GET /held")).then(|| ok(&at.to_string()));
    (0..count).map(|at| Scripted::start(answer(at))).collect()
}

fn addresses(servers: &[Scripted]) -> Vec<SocketAddr> {
    servers.iter().map(|server| server.address).collect()
}

fn cluster(policy: &str, more: &str, servers: &[Scripted]) -> String {
    format!(
        "{{name: c, type: STATIC, connect_timeout: 5s, preconnect_policy: {{{policy}}}, {more}{}}}",
        hosts("c", &addresses(servers))
    )
}

/// Waits until so many connections came to each, in their order from here on.
fn settled(proxy: &Proxy, servers: &[Scripted], first: usize, wanted: &[usize]) {
    let total: usize = wanted.iter().sum();
    let found = || -> Vec<usize> {
        let turned = servers.iter().cycle().skip(first).take(servers.len());
        turned.map(Scripted::connections).collect()
    };
    wait(&format!("{wanted:?}, not {:?}", found()), || (found() == wanted).then_some(()));
    assert_eq!(proxy.stat("cluster.c.upstream_cx_total"), Some(total.try_into().unwrap()));
}

/// One request, up to its end on both sides; who answered it.
fn ask(proxy: &Proxy, listener: SocketAddr) -> usize {
    let answer = call(listener, "GET", "/", &[]).unwrap();
    wait("its end", || (proxy.stat("cluster.c.upstream_rq_active") == Some(0)).then_some(()));
    answer.body.parse().unwrap()
}

/// A request that is answered by nobody, for as long as this lives.
fn hold(proxy: &Proxy, listener: SocketAddr, already: i64) -> TcpStream {
    let mut stream = TcpStream::connect(listener).unwrap();
    stream.write_all(b"GET /held HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    let active = || proxy.stat("cluster.c.upstream_rq_active") == Some(already + 1);
    wait("the request", || active().then_some(()));
    stream
}

#[test]
fn the_next_hosts_are_connected_to() {
    let servers = servers(5);
    let policy = "predictive_preconnect_ratio: 2";
    let proxy = Proxy::ready(&simple(cluster(policy, "lb_policy: ROUND_ROBIN, ", &servers)), &[]);
    let listener = proxy.listener("in");
    let first = ask(&proxy, listener);
    // Twice the one request that is about to come, and its own.
    settled(&proxy, &servers, first, &[1, 1, 1, 0, 0]);
    for next in 1..3 {
        assert_eq!(ask(&proxy, listener), (first + next) % 5, "as foreseen");
    }
    settled(&proxy, &servers, first, &[1, 1, 1, 0, 0]);
    assert_eq!(proxy.stat("cluster.c.upstream_rq_pending_total"), Some(1), "two waited for nothing");
    assert_eq!(ask(&proxy, listener), (first + 3) % 5);
    settled(&proxy, &servers, first, &[1, 1, 1, 1, 0]);
    // There is room for twice what is there, at the hosts that come next.
    let mut held = Vec::new();
    for (already, wanted) in
        [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 2, 1, 1], [1, 1, 2, 2, 2]].iter().enumerate()
    {
        held.push(hold(&proxy, listener, i64::try_from(already).unwrap()));
        settled(&proxy, &servers, first, wanted);
    }
}

#[test]
fn loads_are_not_foreseen() {
    let servers = servers(3);
    let policy = "predictive_preconnect_ratio: 3";
    let proxy = Proxy::ready(&simple(cluster(policy, "lb_policy: LEAST_REQUEST, ", &servers)), &[]);
    ask(&proxy, proxy.listener("in"));
    assert_eq!(proxy.stat("cluster.c.upstream_cx_total"), Some(1));
}

#[test]
fn shared_connections_have_room() {
    let servers = servers(4);
    let policy = "predictive_preconnect_ratio: 2";
    let more = "http2_protocol_options: {}, lb_policy: ROUND_ROBIN, ";
    let proxy = Proxy::ready(&simple(cluster(policy, more, &servers)), &[]);
    let mut stream = TcpStream::connect(proxy.listener("in")).unwrap();
    stream.write_all(b"GET /held HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
    wait("both connections", || {
        (servers.iter().map(Scripted::connections).sum::<usize>() == 2).then_some(())
    });
    assert_eq!(proxy.stat("cluster.c.upstream_cx_total"), Some(2));
}

#[test]
fn both_ratios_are_met() {
    let servers = servers(5);
    let policy = "predictive_preconnect_ratio: 2, per_upstream_preconnect_ratio: 2";
    let proxy = Proxy::ready(&simple(cluster(policy, "lb_policy: ROUND_ROBIN, ", &servers)), &[]);
    let listener = proxy.listener("in");
    let first = ask(&proxy, listener);
    settled(&proxy, &servers, first, &[2, 1, 1, 0, 0]);
    // A connection that is ready is taken, and another made in its place.
    assert_eq!(ask(&proxy, listener), (first + 1) % 5);
    settled(&proxy, &servers, first, &[2, 2, 1, 0, 0]);
}

#[test]
fn metadata_say_which_hosts_are_connected_to() {
    let servers = servers(2);
    let eager = "metadata: {filter_metadata: {envoy.lb: {eager: true}}}";
    let policy = "per_upstream_preconnect_ratio: 3, preconnect_enabled_metadata: {filter: envoy.lb, path: [{key: \
                  eager}], value: {bool_match: true}}";
    let cluster = format!(
        "{{name: c, type: STATIC, connect_timeout: 5s, lb_policy: ROUND_ROBIN, preconnect_policy: {{{policy}}}, \
         load_assignment: {{cluster_name: c, endpoints: [{{lb_endpoints: [{{{}, {eager}}}, {{{}}}]}}]}}}}",
        endpoint(servers[0].address),
        endpoint(servers[1].address)
    );
    let proxy = Proxy::ready(&simple(cluster), &[]);
    let listener = proxy.listener("in");
    let mut asked = [ask(&proxy, listener), ask(&proxy, listener)];
    asked.sort_unstable();
    assert_eq!(asked, [0, 1]);
    settled(&proxy, &servers, 0, &[3, 1]);
    assert_eq!(proxy.stat("cluster.c.upstream_cx_preconnect_skipped"), Some(1));
}

/// A listener of TCP that leads to the cluster.
fn tcp(cluster: &str) -> String {
    format!(
        "static_resources:\n  listeners:\n  - name: in\n    address: {{socket_address: {{address: 127.0.0.1, \
         port_value: 0}}}}\n    filter_chains: [{{filters: [{{name: t, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: \
         c}}}}]}}]\n  clusters:\n  - {cluster}\n"
    )
}

#[test]
fn clients_of_tcp_find_their_connections() {
    let servers = servers(5);
    let policy = "predictive_preconnect_ratio: 2";
    let proxy = Proxy::ready(&tcp(&cluster(policy, "lb_policy: ROUND_ROBIN, ", &servers)), &[]);
    let listener = proxy.listener("in");
    let ask = || {
        let mut stream = TcpStream::connect(listener).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut answer = [0; 64];
        let count = stream.read(&mut answer).unwrap();
        let body = String::from_utf8_lossy(&answer[..count]).chars().last().unwrap();
        (stream, usize::try_from(body.to_digit(10).unwrap()).unwrap())
    };
    let (_one, first) = ask();
    settled(&proxy, &servers, first, &[1, 1, 1, 0, 0]);
    let (_two, second) = ask();
    assert_eq!(second, (first + 1) % 5);
    settled(&proxy, &servers, first, &[1, 1, 1, 1, 0]);
    let (_three, third) = ask();
    assert_eq!(third, (first + 2) % 5);
    settled(&proxy, &servers, first, &[2, 1, 1, 1, 1]);
    assert_eq!(proxy.stat("cluster.c.upstream_rq_pending_total"), Some(1));
    assert_eq!(proxy.stat("cluster.c.upstream_rq_total"), Some(3));
}

#[test]
fn what_a_server_says_first_waits_for_its_client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            std::thread::spawn(move || {
                let mut stream = stream;
                write!(stream, "{number} ").unwrap();
                let mut rest = Vec::new();
                // One that is not used is closed by its server.
                if number != 1 && stream.read_to_end(&mut rest).is_ok() {
                    stream.write_all(&rest).unwrap();
                }
            });
        }
    });
    let cluster = format!(
        "{{name: c, type: STATIC, connect_timeout: 5s, preconnect_policy: {{per_upstream_preconnect_ratio: 3}}, {}}}",
        hosts("c", &[address])
    );
    let proxy = Proxy::ready(&tcp(&cluster), &[]);
    let to = proxy.listener("in");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut greeting = [0; 2];
        stream.read_exact(&mut greeting).unwrap();
        stream.write_all(b"bye").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = String::new();
        let _ = stream.read_to_string(&mut rest);
        assert!(seen.insert(greeting), "a connection has one client");
    }
}

/// With a policy, nobody's requests get lost, whatever becomes of connections.
#[test]
fn many_requests_pass() {
    let backends = [Backend::start("a"), Backend::start("b"), Backend::start("c")];
    let all: Vec<SocketAddr> = backends.iter().map(|backend| backend.address).collect();
    let policy = "predictive_preconnect_ratio: 3, per_upstream_preconnect_ratio: 1.5";
    let cluster = format!(
        "{{name: c, type: STATIC, connect_timeout: 5s, lb_policy: RANDOM, preconnect_policy: {{{policy}}}, \
         circuit_breakers: {{thresholds: [{{max_connections: 4}}]}}, {}}}",
        hosts("c", &all)
    );
    let proxy = Proxy::ready(&simple(cluster), &[]);
    let to = proxy.listener("in");
    let clients: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                (0..40).all(|_| call(to, "GET", "/", &[]).is_ok_and(|answer| answer.status == 200))
            })
        })
        .collect();
    assert!(clients.into_iter().all(|client| client.join().unwrap()));
}
