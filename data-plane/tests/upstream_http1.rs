//! What upstreams may do over HTTP/1.1, and what becomes of the connection afterwards.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use support::{Proxy, call, wait};

const PATIENCE: Duration = Duration::from_secs(20);

/// An upstream that does with each connection what it is told, and hands every head it reads to the test.
struct Upstream {
    address: SocketAddr,
    connections: mpsc::Receiver<usize>,
}

impl Upstream {
    /// The script is given each connection and its number.
    fn start(script: impl Fn(&mut TcpStream, usize) + Clone + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (send, connections) = mpsc::channel();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let (script, send) = (script.clone(), send.clone());
                std::thread::spawn(move || {
                    let mut stream = stream;
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let _ = send.send(number);
                    script(&mut stream, number);
                });
            }
        });
        Self { address, connections }
    }

    /// Answers every request with these bytes, for as long as the connection lasts.
    fn answers(answer: &'static str) -> Self {
        Self::start(move |stream, _| {
            while !head(stream).is_empty() {
                stream.write_all(answer.as_bytes()).unwrap();
            }
        })
    }

    /// How many connections there were.
    fn count(&self) -> usize {
        self.connections.try_iter().count()
    }
}

/// A head with its empty line, or what came before the end.
fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count > 0) {
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap().to_lowercase()
}

/// A proxy before this upstream; more of the route, and of the cluster.
fn before(upstream: &Upstream, route: &str, cluster: &str) -> Proxy {
    let port = upstream.address.port();
    let text = format!(
        "node: {{id: n, cluster: c}}\nstatic_resources:\n  listeners:\n  - name: l\n    \
         address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains: [{{filters: [{{name: hcm, \
         typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: h, http_protocol_options: {{enable_trailers: true}}, upgrade_configs: [{{upgrade_type: websocket}}], \
         access_log: [{{name: f, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: $DIR/log, \
         log_format: {{text_format_source: {{inline_string: \"%RESPONSE_CODE% %RESPONSE_FLAGS%\\n\"}}}}}}}}], \
         route_config: {{virtual_hosts: [{{name: v, domains: [\"*\"], routes: [{{match: {{prefix: /}}, \
         route: {{cluster: a{route}}}}}]}}]}}, http_filters: [{{name: router, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]\n  clusters:\n  \
         - {{name: a, connect_timeout: 2s{cluster}, load_assignment: {{cluster_name: a, endpoints: [{{lb_endpoints: \
         [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}}}\n"
    );
    Proxy::ready(&text, &[])
}

fn log(proxy: &Proxy, lines: usize) -> Vec<String> {
    wait("the access log", || {
        let text = std::fs::read_to_string(proxy.dir.path().join("log")).ok()?;
        let found: Vec<_> = text.lines().map(str::to_owned).collect();
        (found.len() >= lines).then_some(found)
    })
}

#[test]
fn bad_framing_is_a_protocol_error() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nx",
        "HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\rb\r\n\r\n",
        "not HTTP at all",
    ] {
        let upstream = Upstream::answers(answer);
        let proxy = before(&upstream, "", "");
        let got = call(proxy.listener("l"), "GET", "/", &[]).unwrap();
        assert_eq!(got.status, 502, "{answer:?}: {got:?}");
        assert!(got.body.ends_with("reset reason: protocol error"), "{got:?}");
        assert_eq!(log(&proxy, 1), ["502 UPE"]);
        assert_eq!(proxy.stat("cluster.a.upstream_cx_protocol_error"), Some(1));
        wait("the connection's end", || {
            (proxy.stat("cluster.a.upstream_cx_active") == Some(0)).then_some(())
        });
    }
}

#[test]
fn a_bad_chunk_breaks_the_response() {
    let upstream =
        Upstream::answers("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n");
    let proxy = before(&upstream, "", "");
    let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    assert!(!text.ends_with("0\r\n\r\n"), "{text}");
    wait("the connection's end", || (proxy.stat("cluster.a.upstream_cx_active") == Some(0)).then_some(()));
}

#[test]
fn connections_serve_one_request_after_another() {
    let upstream =
        Upstream::answers("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
    let proxy = before(&upstream, "", "");
    for _ in 0..5 {
        let got = call(proxy.listener("l"), "GET", "/", &[]).unwrap();
        assert_eq!((got.status, &*got.body), (200, "ok"));
    }
    assert_eq!(upstream.count(), 1);
    assert_eq!(proxy.stat("cluster.a.upstream_cx_active"), Some(1));
}

#[test]
fn some_responses_end_their_connection() {
    for answer in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        // What nobody asked for cannot be told from the next response.
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    ] {
        let upstream = Upstream::answers(answer);
        let proxy = before(&upstream, "", "");
        for _ in 0..3 {
            let got = call(proxy.listener("l"), "GET", "/", &[]).unwrap();
            assert_eq!((got.status, &*got.body), (200, "ok"), "{answer:?}");
        }
        assert_eq!(upstream.count(), 3, "{answer:?}");
    }
    let kept = Upstream::answers("HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok");
    let proxy = before(&kept, "", "");
    for _ in 0..3 {
        assert_eq!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().body, "ok");
    }
    assert_eq!(kept.count(), 1);
}

#[test]
fn a_body_may_last_until_the_connection_ends() {
    let upstream = Upstream::start(|stream, _| {
        head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nto the ").unwrap();
        stream.write_all(b"end").unwrap();
    });
    let proxy = before(&upstream, "", "");
    let got = call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    assert_eq!((got.status, &*got.body), (200, "to the end"));
}

#[test]
fn an_early_end_is_told_apart() {
    let silent = Upstream::start(|stream, _| {
        head(stream);
    });
    let proxy = before(&silent, "", "");
    let got = call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    assert_eq!(got.status, 503);
    assert!(got.body.ends_with("reset reason: connection termination"), "{got:?}");
    let part = Upstream::start(|stream, _| {
        head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart").unwrap();
    });
    let proxy = before(&part, "", "");
    let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    assert!(text.ends_with("\r\n\r\npart"), "{text}");
    assert_eq!(log(&proxy, 1), ["200 UPE"]);
}

#[test]
fn a_reset_on_reuse_is_tried_again() {
    let upstream = Upstream::start(|stream, number| {
        head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
        if number > 0 {
            head(stream);
        }
        // The first connection ends when its second request is on it.
        let mut some = [0; 1];
        let _ = stream.read(&mut some);
    });
    let proxy = before(&upstream, ", retry_policy: {retry_on: reset, num_retries: 1}", "");
    assert_eq!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().status, 200);
    assert_eq!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().status, 200);
    assert_eq!(proxy.stat("cluster.a.upstream_rq_retry_success"), Some(1));
    assert_eq!(upstream.count(), 2);
}

#[test]
fn what_ends_while_it_is_idle_is_not_used() {
    let upstream = Upstream::start(|stream, _| {
        head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").unwrap();
    });
    let proxy = before(&upstream, "", "");
    for count in 1..=3 {
        assert_eq!(call(proxy.listener("l"), "POST", "/", &[]).unwrap().status, 200);
        // Without anybody asking for it.
        wait("the connection's end", || {
            (proxy.stat("cluster.a.upstream_cx_destroy") == Some(count)).then_some(())
        });
    }
}

#[test]
fn informational_responses_are_passed_over() {
    let upstream = Upstream::answers(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n\
         HTTP/1.1 200 Fine\r\ncontent-length: 2\r\n\r\nok",
    );
    let proxy = before(&upstream, "", "");
    for _ in 0..2 {
        let got = call(proxy.listener("l"), "GET", "/", &[]).unwrap();
        assert_eq!((got.status, &*got.body), (200, "ok"));
        assert!(!got.head.contains("link") && got.head.starts_with("HTTP/1.1 200 OK"), "{got:?}");
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn responses_without_a_body_leave_the_connection() {
    let upstream = Upstream::start(|stream, _| {
        loop {
            let asked = head(stream);
            let answer: &[u8] = if asked.starts_with("head ") {
                b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n"
            } else if asked.starts_with("get /304") {
                b"HTTP/1.1 304 Not Modified\r\ncontent-length: 100\r\n\r\n"
            } else if asked.is_empty() {
                return;
            } else {
                b"HTTP/1.1 204 No Content\r\n\r\n"
            };
            stream.write_all(answer).unwrap();
        }
    });
    let proxy = before(&upstream, "", "");
    let to = proxy.listener("l");
    for (method, path, status) in [("HEAD", "/", 200), ("GET", "/304", 304), ("GET", "/204", 204)] {
        assert_eq!(call(to, method, path, &[]).unwrap().status, status);
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn an_early_response_ends_the_request() {
    let upstream = Upstream::start(|stream, _| {
        assert!(head(stream).contains("transfer-encoding: chunked\r\n"));
        stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno").unwrap();
        // Whatever else comes.
        let _ = std::io::copy(stream, &mut std::io::sink());
    });
    let proxy = before(&upstream, "", "");
    for _ in 0..2 {
        let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .unwrap();
        let answer = head(&mut stream);
        assert!(answer.starts_with("http/1.1 413 "), "{answer}");
        wait("the connection's end", || {
            (proxy.stat("cluster.a.upstream_cx_active") == Some(0)).then_some(())
        });
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn both_directions_stream_at_once() {
    let upstream = Upstream::start(|stream, _| {
        head(stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
        let mut bytes = [0; 256];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            // Chunks go back as they came, and so does the last one.
            stream.write_all(&bytes[..count]).unwrap();
        }
    });
    let proxy = before(&upstream, "", "");
    let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    assert!(head(&mut stream).starts_with("http/1.1 200 "));
    for chunk in ["3\r\nabc\r\n", "2\r\nde\r\n", "0\r\n\r\n"] {
        stream.write_all(chunk.as_bytes()).unwrap();
        let mut back = vec![0; chunk.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(String::from_utf8(back).unwrap(), chunk);
    }
}

#[test]
fn a_request_goes_on_while_nobody_reads_its_response() {
    const SIZE: usize = 16 << 20;
    let upstream = Upstream::start(|stream, _| {
        head(stream);
        let mut answer = stream.try_clone().unwrap();
        let write = std::thread::spawn(move || {
            answer.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n").as_bytes())?;
            answer.write_all(&vec![b'a'; SIZE])
        });
        assert_eq!(std::io::copy(&mut stream.take(SIZE as u64), &mut std::io::sink()).unwrap(), SIZE as u64);
        write.join().unwrap().unwrap();
    });
    let proxy = before(&upstream, "", "");
    let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {SIZE}\r\n\r\n").as_bytes())
        .unwrap();
    // All of it, before anything of the response is read.
    stream.write_all(&vec![b'b'; SIZE]).unwrap();
    assert!(head(&mut stream).starts_with("http/1.1 200 "));
    let mut body = vec![0; SIZE];
    stream.read_exact(&mut body).unwrap();
    assert!(body.iter().all(|byte| *byte == b'a'));
    assert_eq!(upstream.count(), 1);
}

#[test]
fn what_was_said_before_the_connection_broke_is_the_answer() {
    let upstream = Upstream::start(|stream, _| {
        head(stream);
        stream
            .write_all(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")
            .unwrap();
        // What it has not read makes this a reset.
    });
    let proxy = before(&upstream, "", "");
    for _ in 0..8 {
        let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n");
        let _ = stream.write_all(&[b'b'; 300_000]);
        let answer = head(&mut stream);
        assert!(answer.starts_with("http/1.1 413 "), "{answer}");
    }
}

/// What is left of trailers: of the request's, and of the response's.
fn trailers(cluster: &str) -> (String, String) {
    let (send, seen) = std::sync::mpsc::channel();
    let upstream = Upstream::start(move |stream, _| {
        head(stream);
        let _ = send.send(head(stream));
        stream
            .write_all(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-down: 2\r\n\r\n",
            )
            .unwrap();
    });
    let proxy = before(&upstream, "", cluster);
    let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
    stream
        .write_all(
            b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\
              x-up: 1\r\n\r\n",
        )
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (_, down) = text.split_once("\r\n\r\n").unwrap();
    (seen.recv_timeout(PATIENCE).unwrap(), down.to_owned())
}

#[test]
fn trailers_pass_where_both_sides_let_them() {
    let enabled = ", typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {\"@type\": \
        type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
        explicit_http_config: {http_protocol_options: {enable_trailers: true}}}}";
    let (up, down) = trailers(enabled);
    assert_eq!(up, "1\r\na\r\n0\r\nx-up: 1\r\n\r\n");
    assert_eq!(down, "2\r\nok\r\n0\r\nx-down: 2\r\n\r\n");
    let (up, down) = trailers("");
    assert_eq!(up, "1\r\na\r\n0\r\n\r\n");
    assert_eq!(down, "2\r\nok\r\n0\r\n\r\n");
}

#[test]
fn large_bodies_pass_whole() {
    let upstream = Upstream::start(|stream, _| {
        let length = |head: &str| {
            let (_, rest) = head.split_once("content-length: ").unwrap();
            rest.split("\r\n").next().unwrap().parse::<usize>().unwrap()
        };
        loop {
            let asked = head(stream);
            if asked.is_empty() {
                return;
            }
            let mut body = vec![0; length(&asked)];
            stream.read_exact(&mut body).unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).unwrap();
            stream.write_all(&body).unwrap();
        }
    });
    let proxy = before(&upstream, "", "");
    let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for size in [1, 4_096, 4_097, 70_000, 3_000_000] {
        let body: Vec<u8> = (0..size).map(|at: u32| at.to_le_bytes()[at as usize % 3]).collect();
        write!(stream, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n").unwrap();
        let mut writer = stream.try_clone().unwrap();
        let sent = body.clone();
        let write = std::thread::spawn(move || writer.write_all(&sent).unwrap());
        assert!(head(&mut stream).contains(&format!("content-length: {size}\r\n")));
        let mut back = vec![0; body.len()];
        stream.read_exact(&mut back).unwrap();
        assert!(back == body, "{size} bytes came back changed");
        write.join().unwrap();
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn a_switched_connection_keeps_what_came_with_the_switch() {
    let upstream = Upstream::start(|stream, _| {
        assert!(head(stream).contains("upgrade: websocket\r\n"));
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello",
            )
            .unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let _ = std::io::copy(stream, &mut std::io::sink());
    });
    let proxy = before(&upstream, "", "");
    let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .unwrap();
    assert!(head(&mut stream).starts_with("http/1.1 101 "));
    stream.write_all(b"ping").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "helloping");
    drop(stream);
    wait("the connection's end", || (proxy.stat("cluster.a.upstream_cx_active") == Some(0)).then_some(()));
}

#[test]
fn a_client_that_leaves_ends_the_upstream_connection() {
    let (send, ended) = mpsc::channel();
    let (tell, asked) = mpsc::channel();
    let upstream = Upstream::start(move |stream, _| {
        let _ = tell.send(head(stream));
        // The end, not a time-out.
        let _ = send.send(stream.read(&mut [0; 1]).ok());
    });
    let proxy = before(&upstream, "", "");
    let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert!(asked.recv_timeout(PATIENCE).unwrap().starts_with("get / "));
    drop(stream);
    assert_eq!(ended.recv_timeout(PATIENCE).unwrap(), Some(0));
}
