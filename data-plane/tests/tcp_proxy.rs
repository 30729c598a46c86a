//! The TCP proxy's particulars, through the real binary: what its logs and its PROXY protocol headers tell, when it
//! connects, and tunnels that share connections.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Proxy, wait};
use tokio::io::AsyncWriteExt;

const TYPES: &str = "type.googleapis.com/envoy.extensions";

fn filter(config: &str) -> String {
    format!("{{name: filter, typed_config: {{\"@type\": {TYPES}.filters.{config}}}}}")
}

/// A TCP proxy to the cluster `c`, which logs this.
fn tcp_proxy(more: &str, log: &str) -> String {
    let log = format!(
        "access_log: [{{name: file, typed_config: {{\"@type\": {TYPES}.access_loggers.file.v3.FileAccessLog, path: \
         $DIR/log, log_format: {{text_format_source: {{inline_string: '{log}\n\n'}}}}}}}}]"
    );
    filter(&format!("network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c, {more}{log}"))
}

/// One listener with these filters, and the cluster `c`.
fn proxy(listener_filters: &str, filters: &[String], to: SocketAddr, cluster: &str) -> Proxy {
    let text = format!(
        "static_resources:\n  listeners:\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, \
         port_value: 0}}}}\n    listener_filters: [{listener_filters}]\n    filter_chains: [{{filters: [{}]}}]\n  \
         clusters:\n  - {{name: c, type: STATIC, connect_timeout: 5s, {cluster} load_assignment: {{cluster_name: c, \
         endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: \
         {}}}}}}}}}]}}]}}}}\n",
        filters.join(", "),
        to.port()
    );
    Proxy::ready(&text, &[])
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn lines(proxy: &Proxy, count: usize) -> Vec<String> {
    wait("the log", || {
        let text = std::fs::read_to_string(proxy.dir.path().join("log")).ok()?;
        let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// A header of the PROXY protocol, version 2, from 1.2.3.4 with these TLVs.
fn header(tlvs: &[(u8, &str)]) -> Vec<u8> {
    let mut body = vec![1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 2];
    for (kind, value) in tlvs {
        body.push(*kind);
        body.extend((value.len() as u16).to_be_bytes());
        body.extend(value.as_bytes());
    }
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11".to_vec();
    header.extend((body.len() as u16).to_be_bytes());
    header.extend(body);
    header
}

/// The source and the TLVs of a header that is read off a connection.
fn read_header(stream: &mut TcpStream) -> (Vec<u8>, Vec<(u8, String)>) {
    let mut head = [0; 16];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head[..12], b"\r\n\r\n\0\r\nQUIT\n");
    let mut body = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
    stream.read_exact(&mut body).unwrap();
    let mut rest = &body[12..];
    let mut tlvs = Vec::new();
    while let [kind, high, low, after @ ..] = rest {
        let (value, next) = after.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        tlvs.push((*kind, String::from_utf8(value.to_vec()).unwrap()));
        rest = next;
    }
    (body[..4].to_vec(), tlvs)
}

const PROXY_PROTOCOL: &str = "listener.proxy_protocol.v3.ProxyProtocol, allow_requests_without_proxy_protocol: true, \
    tlv_location: FILTER_STATE, pass_through_tlvs: {match_type: INCLUDE_ALL}, \
    rules: [{tlv_type: 0xEA, on_tlv_present: {key: vpc}}, {tlv_type: 0xEB, on_tlv_present: {key: two}}]";

const ADDED: &str = "proxy_protocol_tlvs: [{type: 0xF0, format_string: {text_format_source: {inline_string: \
    \"from %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\"}}}, {type: 0xEA, value: YWJj}], ";

fn upstream_header() -> String {
    format!(
        "transport_socket: {{name: pp, typed_config: {{\"@type\": \
         {TYPES}.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, config: {{version: V2, \
         pass_through_tlvs: {{match_type: INCLUDE_ALL}}, added_tlvs: [{{type: 0xF1, format_string: \
         {{text_format_source: {{inline_string: \"u=%UPSTREAM_HOST%\"}}}}}}]}}, transport_socket: {{name: raw, \
         typed_config: {{\"@type\": {TYPES}.transport_sockets.raw_buffer.v3.RawBuffer}}}}}}}},"
    )
}

/// The TLVs that an upstream gets behind this policy, of a client that sends these.
fn tlvs(policy: &str, sent: Option<&[(u8, &str)]>) -> Vec<(u8, String)> {
    let upstream = support::listen();
    let to = upstream.local_addr().unwrap();
    let more = format!("{ADDED}proxy_protocol_tlv_merge_policy: {policy}, ");
    let proxy = proxy(&filter(PROXY_PROTOCOL), &[tcp_proxy(&more, "-")], to, &upstream_header());
    let mut client = connect(proxy.listener("l"));
    let first = sent.map(header).unwrap_or_default();
    client.write_all(&first).unwrap();
    client.write_all(b"ping").unwrap();
    let (source, mut tlvs) = read_header(&mut accept(&upstream));
    assert_eq!(source, if sent.is_some() { [1, 2, 3, 4] } else { [127, 0, 0, 1] });
    assert_eq!(tlvs.remove(0), (0xF1, format!("u={to}")));
    tlvs
}

fn owned(tlvs: &[(u8, &str)]) -> Vec<(u8, String)> {
    tlvs.iter().map(|(kind, value)| (*kind, (*value).to_owned())).collect()
}

#[test]
fn tlvs_are_added_to_those_of_the_client() {
    let theirs: &[(u8, &str)] = &[(0xEA, "xyz"), (0xEC, "q")];
    assert_eq!(tlvs("ADD_IF_ABSENT", Some(theirs)), owned(theirs));
    assert_eq!(tlvs("ADD_IF_ABSENT", Some(&[])), owned(&[]), "a header without any is one");
    assert_eq!(tlvs("ADD_IF_ABSENT", None), owned(&[(0xF0, "from 127.0.0.1"), (0xEA, "abc")]));
    assert_eq!(
        tlvs("OVERWRITE_BY_TYPE_IF_EXISTS_OR_ADD", Some(theirs)),
        owned(&[(0xF0, "from 1.2.3.4"), (0xEA, "abc"), (0xEC, "q")])
    );
    assert_eq!(
        tlvs("APPEND_IF_EXISTS_OR_ADD", Some(theirs)),
        owned(&[(0xEA, "xyz"), (0xEC, "q"), (0xF0, "from 1.2.3.4"), (0xEA, "abc")])
    );
}

const LINE: &str = "%ACCESS_LOG_TYPE% %FILTER_STATE(envoy.network.proxy_protocol.tlv:PLAIN)% \
    %FILTER_STATE(envoy.network.proxy_protocol.tlv:TYPED)% %FILTER_STATE(envoy.network.proxy_protocol.tlv:FIELD:vpc)% \
    %FILTER_STATE(my.key:PLAIN)% %BYTES_RECEIVED%";

/// The log of a connection that is made in this mode and sends eight bytes.
fn logged(mode: &str) -> Vec<String> {
    let upstream = support::listen();
    let to = upstream.local_addr().unwrap();
    let on_data = filter(
        "network.set_filter_state.v3.Config, on_downstream_data: [{object_key: my.key, factory_key: envoy.string, \
         format_string: {text_format_source: {inline_string: d%BYTES_RECEIVED%}}}]",
    );
    let more = format!(
        "upstream_connect_mode: {mode}, max_early_data_bytes: 4, \
         access_log_options: {{flush_access_log_on_start: true, flush_access_log_on_connected: true}}, "
    );
    let proxy = proxy(&filter(PROXY_PROTOCOL), &[on_data, tcp_proxy(&more, LINE)], to, "");
    let mut client = connect(proxy.listener("l"));
    client.write_all(&header(&[(0xEA, "xyz")])).unwrap();
    assert!(lines(&proxy, 1)[0].starts_with("TcpConnectionStart "));
    if mode == "ON_DOWNSTREAM_DATA" {
        assert_eq!(proxy.stat("cluster.c.upstream_cx_total").unwrap_or_default(), 0);
    } else {
        wait("the connection", || (proxy.stat("cluster.c.upstream_cx_total")? == 1).then_some(()));
    }
    client.write_all(b"longping").unwrap();
    let mut upstream = accept(&upstream);
    let mut got = [0; 8];
    upstream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"longping");
    upstream.write_all(b"pong").unwrap();
    client.read_exact(&mut got[..4]).unwrap();
    drop((client, upstream));
    lines(&proxy, 3)
}

#[test]
fn values_are_set_and_upstreams_connected_when_bytes_arrive() {
    let tlv = r#"{"vpc":"xyz"} {"vpc":"xyz"} xyz"#;
    assert_eq!(
        logged("IMMEDIATE"),
        [
            format!("TcpConnectionStart {tlv} - 0"),
            format!("TcpUpstreamConnected {tlv} - 0"),
            format!("TcpConnectionEnd {tlv} d8 8")
        ]
    );
    assert_eq!(
        logged("ON_DOWNSTREAM_DATA"),
        [
            format!("TcpConnectionStart {tlv} - 0"),
            format!("TcpUpstreamConnected {tlv} d8 8"),
            format!("TcpConnectionEnd {tlv} d8 8")
        ]
    );
}

#[test]
fn filters_name_the_cluster_and_leave_tunnels_out() {
    let upstream = support::listen();
    let to = upstream.local_addr().unwrap();
    let value = |key: &str, value: &str| {
        format!(
            "{{object_key: {key}, format_string: {{text_format_source: {{inline_string: \"{value}\"}}}}}}"
        )
    };
    let set = filter(&format!(
        "network.set_filter_state.v3.Config, on_new_connection: [{}, {}, {}]",
        value("envoy.tcp_proxy.cluster", "c"),
        value("envoy.tcp_proxy.disable_tunneling", "true"),
        value("envoy.tcp_proxy.per_connection_idle_timeout_ms", "300")
    ));
    let end = tcp_proxy("tunneling_config: {hostname: far.test}, ", "%UPSTREAM_CLUSTER% %RESPONSE_FLAGS%");
    let end = end.replace("cluster: c,", "cluster: nowhere,");
    let proxy = proxy("", &[set, end], to, "");
    let mut client = connect(proxy.listener("l"));
    client.write_all(b"ping").unwrap();
    let mut upstream = accept(&upstream);
    let mut got = [0; 4];
    upstream.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"ping");
    assert_eq!(client.read(&mut got).unwrap(), 0, "it was idle for too long");
    assert_eq!(lines(&proxy, 1), ["c -"]);
}

/// An HTTP/2 server that takes tunnels and echoes; it tells of each connection and each request.
fn far() -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (send, seen) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                send.send("connection".to_owned()).unwrap();
                let send = send.clone();
                let serve = move |mut request: Request<Incoming>| {
                    let id = request.headers().get("x-tunnel-id").map(|id| id.to_str().unwrap().to_owned());
                    send.send(format!("{} {} {}", request.method(), request.uri(), id.unwrap())).unwrap();
                    let upgrade = hyper::upgrade::on(&mut request);
                    tokio::spawn(async move {
                        let (mut read, mut write) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                        let _ = write.shutdown().await;
                    });
                    std::future::ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())))
                };
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let service = hyper::service::service_fn(serve);
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    (address, seen)
}

#[test]
fn tunnels_share_a_connection_and_have_ids() {
    let (to, seen) = far();
    let tunneling = format!(
        "tunneling_config: {{hostname: \"far.test:443\", request_id_header: x-tunnel-id, request_id_extension: \
         {{typed_config: {{\"@type\": {TYPES}.request_id.uuid.v3.UuidRequestIdConfig}}}}}}, "
    );
    let line = "%DYNAMIC_METADATA(envoy.filters.network.tcp_proxy:tunnel_request_id)%";
    let proxy = proxy("", &[tcp_proxy(&tunneling, line)], to, "http2_protocol_options: {},");
    let mut clients: Vec<_> = (0..3)
        .map(|_| {
            let mut client = connect(proxy.listener("l"));
            client.write_all(b"ping").unwrap();
            let mut back = [0; 4];
            client.read_exact(&mut back).unwrap();
            assert_eq!(&back, b"ping");
            client
        })
        .collect();
    assert_eq!(seen.recv().unwrap(), "connection");
    let mut ids: Vec<_> = (0..3)
        .map(|_| seen.recv().unwrap().strip_prefix("CONNECT far.test:443 ").unwrap().to_owned())
        .collect();
    assert!(seen.try_recv().is_err(), "they share it");
    assert_eq!(proxy.stat("cluster.c.upstream_cx_active"), Some(1));
    assert_eq!(proxy.stat("cluster.c.upstream_rq_active"), Some(3));
    for client in &mut clients {
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "an end of one direction goes through, and back");
    }
    drop(clients);
    let mut logged = lines(&proxy, 3);
    ids.sort();
    logged.sort();
    assert_eq!(logged, ids);
    wait("the end", || (proxy.stat("cluster.c.upstream_rq_active")? == 0).then_some(()));
}

#[test]
fn trailers_of_a_post_are_kept() {
    let far = support::listen();
    let tunneling =
        "tunneling_config: {hostname: far.test, use_post: true, propagate_response_trailers: true}, ";
    let kept = "%FILTER_STATE(envoy.tcp_proxy.propagate_response_trailers:PLAIN)%";
    let proxy = proxy("", &[tcp_proxy(tunneling, kept)], far.local_addr().unwrap(), "");
    let mut client = connect(proxy.listener("l"));
    let mut upstream = accept(&far);
    let mut asked = [0; 20];
    upstream.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"POST / HTTP/1.1\r\nhos");
    upstream
        .write_all(b"HTTP/1.1 200 OK\r\ntrailer: x-end\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-end: yes\r\n\r\n")
        .unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut got = String::new();
    client.read_to_string(&mut got).unwrap();
    assert_eq!(got, "hi");
    drop(client);
    assert_eq!(lines(&proxy, 1), [r#"{"x-end":"yes"}"#]);
}

#[test]
fn health_checks_speak_for_the_proxy_itself() {
    let upstream = support::listen();
    let to = upstream.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let mut check = accept(&upstream);
        let mut got = [0; 20];
        check.read_exact(&mut got).unwrap();
        check.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        got
    });
    let cluster = format!(
        "{} health_checks: [{{timeout: 5s, interval: 60s, unhealthy_threshold: 1, healthy_threshold: 1, \
         http_health_check: {{path: /}}}}],",
        upstream_header()
    );
    let proxy = proxy("", &[tcp_proxy("", "-")], to, &cluster);
    assert_eq!(&server.join().unwrap(), b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0GET ");
    wait("health", || (proxy.stat("cluster.c.health_check.success")? == 1).then_some(()));
}
