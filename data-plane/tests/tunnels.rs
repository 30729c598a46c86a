//! CONNECT and upgrades through the real binary: ended here, sent on, and from one HTTP version to the other.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Proxy, call, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// A listener with these routes and upgrades; a cluster `tcp`, and the same as `h2`.
fn bootstrap(routes: &str, upgrades: &str, upstream: SocketAddr) -> String {
    let cluster = |name: &str, more: &str| {
        format!(
            "  - {{name: {name}, type: STATIC, {more} load_assignment: {{cluster_name: {name}, endpoints: \
             [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]}}}}\n",
            upstream.port()
        )
    };
    format!(
        "static_resources:\n  listeners:\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, \
         port_value: 0}}}}\n    filter_chains: [{{filters: [{{name: hcm, typed_config: {{\"@type\": {HCM}, \
         stat_prefix: l, http2_protocol_options: {{allow_connect: true}}, upgrade_configs: [{upgrades}], access_log: \
         [{{name: f, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: $DIR/log, log_format: \
         {{text_format_source: {{inline_string: \"%RESPONSE_CODE% %BYTES_RECEIVED% %BYTES_SENT% %RESPONSE_FLAGS% \
         %RESPONSE_CODE_DETAILS%\\n\"}}}}}}}}], route_config: {{name: r, virtual_hosts: [{{name: v, domains: [\"*\"], \
         routes: [{routes}]}}]}}, http_filters: [{{name: envoy.filters.http.router, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]\n  clusters:\n{}{}",
        cluster("tcp", ""),
        cluster("h2", "http2_protocol_options: {},")
    )
}

fn log(proxy: &Proxy, lines: usize) -> String {
    wait("the access log", || {
        let text = std::fs::read_to_string(proxy.dir.path().join("log")).ok()?;
        (text.lines().count() >= lines).then_some(text)
    })
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

/// A server that says what it got first, then echoes.
fn echo(greeting: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                stream.write_all(greeting.as_bytes()).unwrap();
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..count]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

type Http2 = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

async fn http2(to: SocketAddr) -> Http2 {
    let stream = tokio::net::TcpStream::connect(to).await.unwrap();
    let (send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    send
}

/// Sends `ping` through what a response became, ends that direction, and reads all that comes back.
async fn ping(response: Response<Incoming>) -> String {
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(b"ping").await.unwrap();
    io.shutdown().await.unwrap();
    let mut back = String::new();
    tokio::time::timeout(Duration::from_secs(20), io.read_to_string(&mut back)).await.unwrap().unwrap();
    back
}

const TERMINATED: &str = "{match: {connect_matcher: {}}, route: {cluster: tcp, upgrade_configs: [{upgrade_type: CONNECT, \
    connect_config: {proxy_protocol_config: {version: V1}}}]}}, {match: {prefix: /post}, route: {cluster: tcp, \
    upgrade_configs: [{upgrade_type: CONNECT, connect_config: {allow_post: true}}]}}, \
    {match: {prefix: /}, direct_response: {status: 204}}";

#[test]
fn connect_ends_here() {
    let text = bootstrap(TERMINATED, "{upgrade_type: CONNECT}", echo("hello "));
    let proxy = Proxy::ready(&text, &[]);
    let to = proxy.listener("l");
    let mut client = connect(to);
    // What comes behind the head belongs to the tunnel.
    client.write_all(b"CONNECT far.test:443 HTTP/1.1\r\nhost: far.test:443\r\n\r\nping").unwrap();
    let answer = head(&mut client);
    assert!(answer.starts_with("http/1.1 200 ok\r\n"), "{answer}");
    for absent in ["transfer-encoding", "content-length", "x-envoy-upstream-service-time"] {
        assert!(!answer.contains(absent), "{answer}");
    }
    let local = client.local_addr().unwrap();
    let expect = format!("hello PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nping", local.port(), to.port());
    let mut got = vec![0; expect.len()];
    client.read_exact(&mut got).unwrap();
    assert_eq!(String::from_utf8(got).unwrap(), expect);
    assert_eq!(proxy.stat("http.l.downstream_cx_upgrades_active"), Some(1));
    assert_eq!(proxy.stat("http.l.downstream_cx_active"), Some(1));
    assert_eq!(proxy.stat("cluster.tcp.upstream_cx_active"), Some(1));
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    let sent = expect.len();
    assert_eq!(log(&proxy, 1), format!("200 4 {sent} DC downstream_remote_disconnect\n"));
    wait("the end", || (proxy.stat("cluster.tcp.upstream_cx_active")? == 0).then_some(()));
    wait("the end", || (proxy.stat("http.l.downstream_cx_active")? == 0).then_some(()));
    let bytes = |name: &str| usize::try_from(proxy.stat(name).unwrap()).unwrap();
    let asked = "CONNECT far.test:443 HTTP/1.1\r\nhost: far.test:443\r\n\r\nping".len();
    assert_eq!(bytes("http.l.downstream_cx_rx_bytes_total"), asked);
    assert_eq!(bytes("http.l.downstream_cx_tx_bytes_total"), answer.len() + sent);
    assert_eq!(bytes("cluster.tcp.upstream_cx_tx_bytes_total"), 4);
    assert_eq!(bytes("cluster.tcp.upstream_cx_rx_bytes_total"), sent);
    // Other methods go elsewhere.
    assert_eq!(call(to, "GET", "/", &[]).unwrap().status, 204);
}

#[test]
fn connect_over_http2_and_post_end_here() {
    let proxy = Proxy::ready(&bootstrap(TERMINATED, "{upgrade_type: CONNECT}", echo("")), &[]);
    let to = proxy.listener("l");
    runtime().block_on(async {
        let mut send = http2(to).await;
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = "far.test:443".parse().unwrap();
        let response = send.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let back = ping(response).await;
        assert!(back.starts_with("PROXY TCP4 ") && back.ends_with("\r\nping"), "{back}");

        let post = Request::post("http://far.test/post").body(Full::from("payload")).unwrap();
        let response = send.send_request(post).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "payload");
    });
    assert!(log(&proxy, 2).contains("200 7 7 - via_upstream\n"), "{}", log(&proxy, 2));
}

#[test]
fn connect_is_refused_where_nobody_allows_it() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let routes = "{match: {connect_matcher: {}}, route: {cluster: tcp}}";
    let ask = |proxy: &Proxy| {
        let mut client = connect(proxy.listener("l"));
        client.write_all(b"CONNECT far.test:443 HTTP/1.1\r\nhost: far.test:443\r\n\r\n").unwrap();
        head(&mut client)
    };
    let answer = ask(&Proxy::ready(&bootstrap(routes, "", port), &[]));
    assert!(answer.starts_with("http/1.1 403 "), "{answer}");
    // Routes on paths do not take what has none.
    let answer = ask(&Proxy::ready(&bootstrap("{match: {prefix: /}, route: {cluster: tcp}}", "", port), &[]));
    assert!(answer.starts_with("http/1.1 404 "), "{answer}");
    // Nobody listens there.
    let answer = ask(&Proxy::ready(&bootstrap(TERMINATED, "{upgrade_type: CONNECT}", port), &[]));
    assert!(answer.starts_with("http/1.1 503 "), "{answer}");
}

#[test]
fn connect_goes_on_to_another_proxy() {
    let listener = support::listen();
    let routes = "{match: {connect_matcher: {}}, route: {cluster: tcp}}";
    let proxy =
        Proxy::ready(&bootstrap(routes, "{upgrade_type: CONNECT}", listener.local_addr().unwrap()), &[]);
    let mut client = connect(proxy.listener("l"));
    client.write_all(b"CONNECT far.test:443 HTTP/1.1\r\nhost: far.test:443\r\n\r\n").unwrap();
    let (mut upstream, _) = listener.accept().unwrap();
    let asked = head(&mut upstream);
    assert!(asked.starts_with("connect far.test:443 http/1.1\r\n"), "{asked}");
    upstream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").unwrap();
    let answer = head(&mut client);
    assert!(answer.starts_with("http/1.1 200 ok\r\n"), "{answer}");
    let mut got = [0; 5];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    client.write_all(b"ping").unwrap();
    upstream.read_exact(&mut got[..4]).unwrap();
    assert_eq!(&got[..4], b"ping");
}

#[test]
fn udp_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    let text = bootstrap(TERMINATED, "{upgrade_type: CONNECT-UDP}", ([127, 0, 0, 1], 1).into());
    std::fs::write(&path, text).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sail-proxy"))
        .args(["-c", path.to_str().unwrap(), "--mode", "validate"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("CONNECT-UDP is not supported"), "{said}");
}

/// An HTTP/2 server that takes WebSockets by extended CONNECT, and echoes.
fn http2_echo() -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (send, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime().block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let send = send.clone();
                let serve = move |mut request: Request<Incoming>| {
                    let protocol = request.extensions().get::<hyper::ext::Protocol>().cloned();
                    let protocol = protocol.map(|protocol| protocol.as_str().to_owned()).unwrap_or_default();
                    let target = request
                        .uri()
                        .path_and_query()
                        .map_or(request.uri().authority().unwrap().as_str(), |path| path.as_str());
                    let ours = |name: &str| name.starts_with("x-") || name == "te";
                    let mut names: Vec<_> = request
                        .headers()
                        .keys()
                        .map(|name| name.as_str())
                        .filter(|name| !ours(name))
                        .collect();
                    names.sort_unstable();
                    let told = format!("{} {target} {protocol} {}", request.method(), names.join(" "));
                    send.send(told.trim_end().to_owned()).unwrap();
                    if request.headers().contains_key("x-refuse") {
                        let mut refusal = Response::new(Full::from("not you"));
                        *refusal.status_mut() = http::StatusCode::FORBIDDEN;
                        return std::future::ready(Ok::<_, Infallible>(refusal));
                    }
                    let upgrade = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move {
                        let io = TokioIo::new(upgrade.await.unwrap());
                        let (mut read, mut write) = tokio::io::split(io);
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                        let _ = write.shutdown().await;
                    });
                    std::future::ready(Ok(Response::new(Full::<Bytes>::default())))
                };
                let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                builder.enable_connect_protocol();
                let service = hyper::service::service_fn(serve);
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    (address, seen)
}

#[test]
fn websockets_go_up_over_http2() {
    let (address, seen) = http2_echo();
    let text = bootstrap("{match: {prefix: /}, route: {cluster: h2}}", "{upgrade_type: websocket}", address);
    let proxy = Proxy::ready(&text, &[]);
    for _ in 0..2 {
        let mut client = connect(proxy.listener("l"));
        client
            .write_all(b"GET /chat HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\nsec-websocket-key: k\r\n\r\n")
            .unwrap();
        let answer = head(&mut client);
        assert!(answer.starts_with("http/1.1 101 ") && answer.contains("upgrade: websocket\r\n"), "{answer}");
        // As the client spelled it.
        assert_eq!(
            seen.recv_timeout(Duration::from_secs(20)).unwrap(),
            "CONNECT /chat WebSocket sec-websocket-key"
        );
        client.write_all(b"ping").unwrap();
        let mut got = [0; 4];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"ping");
    }
}

#[test]
fn websockets_come_down_over_http2() {
    let listener = support::listen();
    let address = listener.local_addr().unwrap();
    let routes = "{match: {prefix: /, headers: [{name: \":method\", string_match: {exact: GET}}]}, route: {cluster: tcp}}";
    let proxy = Proxy::ready(&bootstrap(routes, "{upgrade_type: websocket}", address), &[]);
    let server = std::thread::spawn(move || {
        let (mut upstream, _) = listener.accept().unwrap();
        let asked = head(&mut upstream);
        upstream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            )
            .unwrap();
        let mut got = [0; 4];
        upstream.read_exact(&mut got).unwrap();
        upstream.write_all(&got).unwrap();
        asked
    });
    let to = proxy.listener("l");
    runtime().block_on(async {
        let mut send = http2(to).await;
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = "http://x/chat".parse().unwrap();
        request.extensions_mut().insert(hyper::ext::Protocol::from_static("websocket"));
        // With an answer the server's settings have come: they say that this is understood.
        let plain = Request::post("http://x/none").body(Full::<Bytes>::default()).unwrap();
        assert_eq!(send.send_request(plain).await.unwrap().status(), 404);
        let response = send.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("upgrade"), "{response:?}");
        let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        io.write_all(b"ping").await.unwrap();
        let mut back = [0; 4];
        tokio::time::timeout(Duration::from_secs(20), io.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, b"ping");
    });
    let asked = server.join().unwrap();
    assert!(
        asked.starts_with("get /chat http/1.1\r\n") && asked.contains("upgrade: websocket\r\n"),
        "{asked}"
    );
}

fn websocket(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: k\r\n{more}\r\n"
    )
}

/// A request for a tunnel over HTTP/2.
fn extended(target: &str, protocol: Option<&'static str>) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = target.parse().unwrap();
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(hyper::ext::Protocol::from_static(protocol));
    }
    request
}

/// A client whose server has told its settings.
async fn settled(to: SocketAddr) -> Http2 {
    let mut send = http2(to).await;
    let plain = Request::post("http://x/none").body(Full::<Bytes>::default()).unwrap();
    send.send_request(plain).await.unwrap();
    send
}

/// What is said through a tunnel comes back.
async fn echoes(response: Response<Incoming>) {
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    for text in [b"ping", b"pong"] {
        io.write_all(text).await.unwrap();
        let mut back = [0; 4];
        tokio::time::timeout(Duration::from_secs(20), io.read_exact(&mut back)).await.unwrap().unwrap();
        assert_eq!(&back, text);
    }
}

const ONWARD: &str = "{match: {connect_matcher: {}}, route: {cluster: h2}}, {match: {path: /none}, direct_response: {status: 204}}, \
    {match: {prefix: /}, route: {cluster: h2}}";
const ALL: &str = "{upgrade_type: CONNECT}, {upgrade_type: websocket}";

#[test]
fn connect_goes_on_over_http2() {
    let (address, seen) = http2_echo();
    let proxy = Proxy::ready(&bootstrap(ONWARD, ALL, address), &[]);
    let mut client = connect(proxy.listener("l"));
    client.write_all(b"CONNECT far.test:443 HTTP/1.1\r\nhost: far.test:443\r\n\r\nping").unwrap();
    let answer = head(&mut client);
    assert!(answer.starts_with("http/1.1 200 ok\r\n"), "{answer}");
    assert!(!answer.contains("transfer-encoding") && !answer.contains("content-length"), "{answer}");
    let mut got = [0; 4];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"ping");
    assert_eq!(seen.recv_timeout(Duration::from_secs(20)).unwrap(), "CONNECT far.test:443");
    runtime().block_on(async {
        let mut send = settled(proxy.listener("l")).await;
        let response = send.send_request(extended("near.test:80", None)).await.unwrap();
        assert_eq!(response.status(), 200);
        echoes(response).await;
    });
    assert_eq!(seen.recv_timeout(Duration::from_secs(20)).unwrap(), "CONNECT near.test:80");
}

#[test]
fn websockets_go_from_http2_to_http2() {
    let (address, seen) = http2_echo();
    let proxy = Proxy::ready(&bootstrap(ONWARD, ALL, address), &[]);
    runtime().block_on(async {
        let mut send = settled(proxy.listener("l")).await;
        let response = send.send_request(extended("http://x/chat?a=1", Some("websocket"))).await.unwrap();
        assert_eq!(response.status(), 200);
        echoes(response).await;
    });
    assert_eq!(seen.recv_timeout(Duration::from_secs(20)).unwrap(), "CONNECT /chat?a=1 websocket");
}

#[test]
fn what_is_no_tunnel_is_an_answer() {
    let (address, _seen) = http2_echo();
    let proxy = Proxy::ready(&bootstrap(ONWARD, ALL, address), &[]);
    let to = proxy.listener("l");
    let mut client = connect(to);
    client.write_all(websocket("/chat", "x-refuse: 1\r\n").as_bytes()).unwrap();
    let answer = head(&mut client);
    assert!(answer.starts_with("http/1.1 403 ") && !answer.contains("\r\nupgrade:"), "{answer}");
    let mut body = [0; 7];
    client.read_exact(&mut body).unwrap();
    assert_eq!(&body, b"not you");
    runtime().block_on(async {
        for (target, protocol) in [("http://x/chat", Some("websocket")), ("far.test:443", None)] {
            let mut send = settled(to).await;
            let mut request = extended(target, protocol);
            request.headers_mut().insert("x-refuse", "1".parse().unwrap());
            let response = send.send_request(request).await.unwrap();
            assert_eq!(response.status(), 403, "{target}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body, "not you", "{target}");
        }
    });
    assert_eq!(proxy.stat("http.l.downstream_cx_upgrades_active").unwrap_or(0), 0);
}

#[test]
fn the_end_of_one_side_is_the_other_sides() {
    // It says a word and ends.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if head(&mut stream).starts_with("connect ") {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbye").unwrap();
            } else {
                let switch = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nbye";
                stream.write_all(switch).unwrap();
            }
        }
    });
    let routes = "{match: {connect_matcher: {}}, route: {cluster: tcp}}, {match: {path: /none}, direct_response: {status: 204}}, \
        {match: {prefix: /}, route: {cluster: tcp}}";
    let proxy = Proxy::ready(&bootstrap(routes, ALL, address), &[]);
    let to = proxy.listener("l");
    for request in
        [websocket("/", ""), "CONNECT far.test:443 HTTP/1.1\r\nhost: far.test:443\r\n\r\n".to_owned()]
    {
        let mut client = connect(to);
        client.write_all(request.as_bytes()).unwrap();
        head(&mut client);
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "bye");
    }
    runtime().block_on(async {
        let mut send = settled(to).await;
        let response = send.send_request(extended("http://x/chat", Some("websocket"))).await.unwrap();
        let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        let mut rest = String::new();
        tokio::time::timeout(Duration::from_secs(20), io.read_to_string(&mut rest)).await.unwrap().unwrap();
        assert_eq!(rest, "bye");
    });
    wait("the end", || (proxy.stat("http.l.downstream_cx_upgrades_active")? == 0).then_some(()));
    wait("the end", || (proxy.stat("cluster.tcp.upstream_cx_active")? == 0).then_some(()));
}

/// An upstream that opens the tunnel, unless it is `bare`. `A`: it reads to the end and then speaks; `B`: it speaks and
/// ends its direction. It tells what it read.
fn one_sided(bare: bool) -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (send, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if bare {
            } else if head(&mut stream).starts_with("connect ") {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            } else {
                let switch =
                    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                stream.write_all(switch).unwrap();
            }
            let mut kind = [0];
            stream.read_exact(&mut kind).unwrap();
            if kind == *b"B" {
                stream.write_all(b"bye").unwrap();
                stream.shutdown(std::net::Shutdown::Write).unwrap();
            }
            stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut got = Vec::new();
            // Where the client's end has no sign, it is the silence that tells.
            let ended = stream.read_to_end(&mut got).is_ok();
            if kind == *b"A" {
                // Who does not want to hear it has closed.
                let _ = stream.write_all(b"late");
            }
            let got = String::from_utf8(got).unwrap();
            send.send(format!("{got} {}", if ended { "ended" } else { "silent" })).unwrap();
        }
    });
    (address, told)
}

/// As in Envoy: HTTP/1 has no half of a connection, an HTTP/2 stream has.
#[test]
fn one_direction_ends_before_the_other() {
    let routes = "{match: {connect_matcher: {}, headers: [{name: x-end, present_match: true}]}, route: {cluster: tcp, \
        upgrade_configs: [{upgrade_type: CONNECT, connect_config: {}}]}}, {match: {connect_matcher: {}}, route: {cluster: \
        tcp}}, {match: {path: /none}, direct_response: {status: 204}}, {match: {prefix: /}, route: {cluster: tcp}}";
    let connect_head = |more: &str| format!("CONNECT x:1 HTTP/1.1\r\nhost: x:1\r\n{more}\r\n");
    for (bare, request) in
        [(false, websocket("/", "")), (false, connect_head("")), (true, connect_head("x-end: 1\r\n"))]
    {
        let (address, told) = one_sided(bare);
        let proxy = Proxy::ready(&bootstrap(routes, ALL, address), &[]);
        for kind in ["A", "B"] {
            let mut client = connect(proxy.listener("l"));
            client.write_all(request.as_bytes()).unwrap();
            head(&mut client);
            client.write_all(kind.as_bytes()).unwrap();
            if kind == "A" {
                client.write_all(b"ping").unwrap();
                client.shutdown(std::net::Shutdown::Write).unwrap();
            }
            let mut rest = String::new();
            client.read_to_string(&mut rest).unwrap();
            let expect = if kind == "A" { ("", "ping ended") } else { ("bye", " ended") };
            assert_eq!((&*rest, &*told.recv().unwrap()), expect, "{request}");
        }
    }
    for (bare, protocol, got, rest) in [
        (false, true, "ping silent", "late"),
        (false, false, "ping ended", ""),
        (true, false, "ping ended", "late"),
    ] {
        let (address, told) = one_sided(bare);
        let proxy = Proxy::ready(&bootstrap(routes, ALL, address), &[]);
        runtime().block_on(async {
            for kind in ["A", "B"] {
                let mut send = settled(proxy.listener("l")).await;
                let target = if protocol { "http://x/" } else { "x:1" };
                let mut request = extended(target, protocol.then_some("websocket"));
                if bare {
                    request.headers_mut().insert("x-end", http::HeaderValue::from_static("1"));
                }
                let response = send.send_request(request).await.unwrap();
                assert_eq!(response.status(), 200);
                let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
                io.write_all(kind.as_bytes()).await.unwrap();
                if kind == "A" {
                    io.write_all(b"ping").await.unwrap();
                    io.shutdown().await.unwrap();
                }
                let mut back = Vec::new();
                // A broken upstream may reset the stream.
                let _ =
                    tokio::time::timeout(Duration::from_secs(20), io.read_to_end(&mut back)).await.unwrap();
                let expect = if kind == "A" { (rest, got) } else { ("bye", " ended") };
                assert_eq!(
                    (&*String::from_utf8(back).unwrap(), &*told.recv().unwrap()),
                    expect,
                    "{kind} {target} {bare}"
                );
            }
        });
    }
}
