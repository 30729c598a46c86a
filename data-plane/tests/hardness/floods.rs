//! Clients that ask for more work or memory than they are due: bounded, and the others are served meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::frames::{
    CONTINUATION, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, Peer, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    block, frame, get, has_status,
};
use crate::support::{Backend, Proxy, wait};
use crate::{PATIENCE, bootstrap, gate, serves, talk};

/// As much as an attacker may cost, in KiB.
const ALLOWANCE: u64 = 32 * 1024;

/// The proxy under attack, and what it held before.
struct Victim {
    proxy: Proxy,
    to: SocketAddr,
    before: u64,
}

impl Victim {
    fn new(backend: SocketAddr, more: &str) -> Self {
        Self::of(gate(backend, "", more))
    }

    fn of(proxy: Proxy) -> Self {
        let to = proxy.listener("l");
        assert!(serves(to));
        let before = proxy.resident();
        Self { proxy, to, before }
    }

    /// Others are served soon, and memory is bounded.
    fn stands(&self, what: &str) {
        let start = Instant::now();
        assert!(serves(self.to), "{what}: others are not served");
        assert!(start.elapsed() < Duration::from_secs(3), "{what}: others wait for {:?}", start.elapsed());
        let grown = self.proxy.resident().saturating_sub(self.before);
        assert!(grown < ALLOWANCE, "{what}: {grown} KiB");
    }
}

#[test]
fn rapid_resets_are_bounded() {
    let backend = Backend::start("a");
    let victim = Victim::new(backend.address, "");
    let mut peer = Peer::connect(victim.to, &[]);
    let block = get("/x");
    for stream in (1..40_001).step_by(2) {
        let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, &block);
        bytes.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        if !peer.send(&bytes) {
            break;
        }
    }
    victim.stands("rapid reset");
}

#[test]
fn endless_heads_end() {
    let backend = Backend::start("a");
    let victim = Victim::new(backend.address, "");
    let mut peer = Peer::connect(victim.to, &[]);
    peer.send(&frame(HEADERS, 0, 1, &get("/x")));
    let filler = block(&[("a", &"x".repeat(16_000))]);
    let went = (0..4_000).take_while(|_| peer.send(&frame(CONTINUATION, 0, 1, &filler))).count();
    assert!(went < 4_000, "a head of 64 MB was taken");
    victim.stands("CONTINUATION flood");
    // The same without a byte in it.
    let mut peer = Peer::connect(victim.to, &[]);
    peer.send(&frame(HEADERS, 0, 1, &get("/x")));
    let empty = frame(CONTINUATION, 0, 1, &[]).repeat(1000);
    let went = (0..1_000).take_while(|_| peer.send(&empty)).count();
    assert!(went < 1_000, "a million empty frames were taken");
    victim.stands("empty CONTINUATION flood");
}

#[test]
fn control_frames_without_end_are_bounded() {
    let backend = Backend::start("a");
    let victim = Victim::new(backend.address, "");
    for (what, bytes) in [
        ("SETTINGS", frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0])),
        ("PING", frame(PING, 0, 0, &[7; 8])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0])),
        ("unknown", frame(0xbe, 0, 0, &[7; 64])),
    ] {
        let mut peer = Peer::connect(victim.to, &[]);
        peer.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        // Nobody reads the answers: at some time the proxy stops to read, too, or ends the connection.
        let many = bytes.repeat(1000);
        let _ = (0..200).take_while(|_| peer.send(&many)).count();
        victim.stands(what);
    }
}

#[test]
fn big_heads_are_refused() {
    let backend = Backend::start("a");
    let victim = Victim::new(backend.address, "");
    let bombs = [
        format!("GET /x HTTP/1.1\r\nhost: test\r\na: {}\r\n\r\n", "x".repeat(1 << 20)),
        format!("GET /x HTTP/1.1\r\nhost: test\r\n{}\r\n", "a: b\r\n".repeat(1000)),
        format!("GET /{} HTTP/1.1\r\nhost: test\r\n\r\n", "x".repeat(1 << 20)),
    ];
    for bomb in bombs {
        let answer = String::from_utf8_lossy(&talk(victim.to, bomb.as_bytes())).into_owned();
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(answer.is_empty() || ["431", "414", "400"].contains(&status), "{}: {answer}", &bomb[..40]);
        victim.stands(&bomb[..40]);
    }
    // A kilobyte in the table, and a head that names it a thousand times.
    let mut peer = Peer::connect(victim.to, &[]);
    let mut bomb = get("/x");
    bomb.extend([0x40, 1, b'a', 0x7f, 0xe9, 6]);
    bomb.extend([b'x'; 1000]);
    bomb.extend([0xbe; 8000]);
    peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb));
    let outcome = peer.outcome(1);
    assert!(outcome.is_none_or(|frame| !has_status(&frame, 200)), "a head of 8 MB was taken");
    victim.stands("HPACK bomb");
}

/// A server of endless answers, each connection's in a thread of its own.
fn firehose() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let count = stream.read(&mut head).unwrap_or(0);
                if head[..count].starts_with(b"GET /fine") {
                    let _ = stream
                        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    return;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n");
                while stream.write_all(&[b'x'; 65_536]).is_ok() {}
            });
        }
    });
    address
}

#[test]
fn streams_that_nobody_reads_hold_little() {
    let victim = Victim::new(firehose(), "");
    // An initial window of nothing: no byte of a body may be sent.
    let mut peer = Peer::connect(victim.to, &[0, 4, 0, 0, 0, 0]);
    for stream in (1..101).step_by(2) {
        peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &get("/big")));
    }
    let mut answered = 0;
    while answered < 50 {
        let frame = peer.next().expect("the connection lives on");
        answered += usize::from(has_status(&frame, 200));
    }
    victim.stands("zero windows");
    // The same over HTTP/1: 20 clients that ask and do not read.
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = TcpStream::connect(victim.to).unwrap();
            client.write_all(b"GET /big HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
            client
        })
        .collect();
    for client in &clients {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(client.peek(&mut [0; 12]).unwrap_or(0), 12);
    }
    victim.stands("slow readers");
}

#[test]
fn slow_heads_keep_nobody_waiting() {
    let backend = Backend::start("a");
    let victim = Victim::new(backend.address, "");
    let slow: Vec<_> = (0..200)
        .map(|_| {
            let mut client = TcpStream::connect(victim.to).unwrap();
            client.write_all(b"GET /x HTTP/1.1\r\nhost: ").unwrap();
            client
        })
        .collect();
    victim.stands("slow heads");
    drop(slow);
}

#[test]
fn idle_connections_cost_little() {
    let backend = Backend::start("a");
    let victim = Victim::new(backend.address, "");
    let idle: Vec<_> = (0..400)
        .map(|_| {
            let mut client = TcpStream::connect(victim.to).unwrap();
            client.write_all(b"GET /x HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
            client
        })
        .collect();
    for client in &idle {
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(client.peek(&mut [0; 12]).unwrap_or(0), 12);
    }
    wait("all requests to be answered", || {
        (victim.proxy.stat("http.l.downstream_rq_active") == Some(0)).then_some(())
    });
    victim.stands("idle connections");
}

#[test]
fn a_connection_that_breaks_the_rules_is_told_so() {
    let backend = Backend::start("a");
    let victim = Victim::new(backend.address, "");
    let mut peer = Peer::connect(victim.to, &[]);
    // DATA on a stream that was never opened.
    peer.send(&frame(0, END_STREAM, 5, b"x"));
    assert!(peer.outcome(5).is_some_and(|frame| frame.kind == GOAWAY));
    victim.stands("DATA on an idle stream");
}

/// A server whose answers are 64 MiB of zeros, packed.
fn bomber() -> SocketAddr {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..64 {
        packer.write_all(&[0; 1 << 20]).unwrap();
    }
    let bomb = packer.finish().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let bomb = bomb.clone();
            std::thread::spawn(move || {
                let mut head = [0; 4096];
                let count = stream.read(&mut head).unwrap_or(0);
                let (coding, body) = match head[..count].starts_with(b"GET /fine") {
                    true => ("", &b""[..]),
                    false => ("content-encoding: gzip\r\n", &bomb[..]),
                };
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 200 OK\r\n{coding}content-length: {length}\r\nconnection: close\r\n\r\n"
                );
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(body);
            });
        }
    });
    address
}

#[test]
fn what_was_packed_to_burst_is_bounded() {
    let kind = "type.googleapis.com/envoy.extensions";
    let filter = format!(
        "http_filters: [{{name: envoy.filters.http.decompressor, typed_config: {{\"@type\": \
         {kind}.filters.http.decompressor.v3.Decompressor, decompressor_library: {{name: gzip, typed_config: \
         {{\"@type\": {kind}.compression.gzip.decompressor.v3.Gzip}}}}}}}}, "
    );
    let text = bootstrap(bomber(), "", "").replacen("http_filters: [", &filter, 1);
    let victim = Victim::of(Proxy::ready(&text, &[]));
    let clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = TcpStream::connect(victim.to).unwrap();
            client.write_all(b"GET /big HTTP/1.1\r\nhost: test\r\n\r\n").unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client
        })
        .collect();
    for client in &clients {
        // A part of the answer, or the end: the decompressor refuses what grows too much.
        client.peek(&mut [0; 12]).unwrap();
    }
    victim.stands("packed answers that nobody reads");
    // One who reads gets all of it, or a broken connection: never more at once than fits.
    let mut one = clients.into_iter().next().unwrap();
    let (mut taken, mut space) = (0, vec![0; 65_536]);
    while let Ok(count @ 1..) = one.read(&mut space) {
        taken += count;
        if taken > 8 << 20 {
            break;
        }
    }
    victim.stands("a packed answer that is read");
}
