//! Clients that ask for much and take nothing of it: they hold no upstream for ever.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use crate::frames::{END_HEADERS, END_STREAM, HEADERS, Peer, RST_STREAM, frame, get};
use crate::gate;
use crate::support::{Proxy, wait};

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
