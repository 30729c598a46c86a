//! Clients that ask for much and take nothing of it: they hold no upstream for ever.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::frames::{END_HEADERS, END_STREAM, HEADERS, Peer, RST_STREAM, frame, get};
use crate::support::{Proxy, wait};
use crate::{bootstrap, gate};

/// An upstream whose answers have no end.
fn endless() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let asked = stream.read(&mut [0; 4096]);
                let mut written = asked.and_then(|_| {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 999999999999\r\n\r\n")
                });
                while written.is_ok() {
                    written = stream.write_all(&[b'x'; 65536]);
                }
            });
        }
    });
    address
}

/// Nothing of so many requests is left.
fn all_are_over(proxy: &Proxy, count: i64) {
    for (name, value) in [
        ("http.l.downstream_rq_idle_timeout", count),
        ("http.l.downstream_rq_active", 0),
        ("cluster.a.upstream_rq_active", 0),
        ("cluster.a.upstream_cx_active", 0),
    ] {
        wait(name, || (proxy.stat(name) == Some(value)).then_some(()));
    }
}

#[test]
fn a_client_that_takes_nothing_is_given_up() {
    let proxy = gate(endless(), "", "stream_idle_timeout: 0.3s, delayed_close_timeout: 0.1s,");
    let to = proxy.listener("l");
    let mut client = TcpStream::connect(to).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    all_are_over(&proxy, 1);
    wait("the connection's end", || (proxy.stat("http.l.downstream_cx_active") == Some(0)).then_some(()));
    let mut client = Peer::connect(to, &[]);
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get("/")));
    all_are_over(&proxy, 2);
    let told = std::iter::from_fn(|| client.next()).find(|frame| frame.kind == RST_STREAM);
    assert_eq!(told.map(|frame| frame.stream), Some(1));
}

/// Asks for an answer that a socket does not hold, and takes nothing of it; its connection is given up.
fn takes_nothing(asks: &str) -> Proxy {
    let routes = format!(
        "{{match: {{path: /long}}, direct_response: {{status: 200, body: {{inline_string: {}}}}}}},",
        "x".repeat(2_000_000)
    );
    let more = "common_http_protocol_options: {idle_timeout: 0.3s}, drain_timeout: 0.1s, delayed_close_timeout: 0.1s,";
    let text = bootstrap(([127, 0, 0, 1], 1).into(), &routes, more)
        .replacen("route_config: {", "route_config: {max_direct_response_body_size_bytes: 2000000, ", 1)
        // SO_SNDBUF: it does not grow.
        .replacen(
            "    filter_chains:",
            "    socket_options: [{level: 1, name: 7, int_value: 8192, state: STATE_LISTENING}]\n    filter_chains:",
            1,
        );
    let proxy = Proxy::ready(&text, &[]);
    let mut client = TcpStream::connect(proxy.listener("l")).unwrap();
    client.write_all(asks.as_bytes()).unwrap();
    let given_up = "http.l.downstream_cx_delayed_close_timeout";
    wait(given_up, || (proxy.stat(given_up) == Some(1)).then_some(()));
    wait("the connection's end", || (proxy.stat("http.l.downstream_cx_active") == Some(0)).then_some(()));
    let mut taken = Vec::new();
    // Bytes of it that the proxy's socket still held, and the end.
    let _ = client.read_to_end(&mut taken);
    assert!(taken.len() < 2_000_000, "{}", taken.len());
    proxy
}

#[test]
fn who_does_not_take_the_end_of_an_answer_is_idle() {
    let proxy = takes_nothing("GET /long HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(proxy.stat("http.l.downstream_cx_idle_timeout"), Some(1));
}

#[test]
fn who_does_not_take_the_last_answer_is_given_up() {
    let proxy = takes_nothing("GET /long HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    assert_ne!(proxy.stat("http.l.downstream_cx_idle_timeout"), Some(1));
}
