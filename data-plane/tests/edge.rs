//! The edge of the real binary: listener filters, filter chains, TLS.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/certs.rs"]
mod certs;
mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use certs::{Authority, replace, serial};
use support::{Proxy, wait};

const ECHO: &str = "{name: echo, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}";

fn respond(text: &str) -> String {
    format!(
        "{{name: respond, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.filters.network.direct_response.v3.Config, \
         response: {{inline_string: \"{text}\"}}}}}}"
    )
}

fn listener(name: &str, filters: &str, chains: &str) -> String {
    format!(
        "  - name: {name}\n    address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    \
         listener_filters: [{filters}]\n    filter_chains: [{chains}]\n"
    )
}

fn bootstrap(listeners: &[String], clusters: &str) -> String {
    format!(
        "node: {{id: n, cluster: c}}\nstatic_resources:\n  listeners:\n{}  clusters: [{clusters}]\n",
        listeners.concat()
    )
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn tls(certificate: &str, more: &str) -> String {
    format!(
        "transport_socket: {{name: tls, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, {more} \
         common_tls_context: {{{certificate}}}}}}}"
    )
}

#[test]
fn certificate_files_are_followed_and_connections_stay() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (cert, key) = authority.sign(1, &["a.test"]).write(dir.path());
    let files = format!(
        "tls_certificates: [{{certificate_chain: {{filename: {}}}, private_key: {{filename: {}}}}}]",
        cert.display(),
        key.display()
    );
    let chain = format!("{{filters: [{ECHO}], {}}}", tls(&files, ""));
    let proxy = Proxy::ready(&bootstrap(&[listener("l", "", &chain)], ""), &[]);
    let address = proxy.listener("l");
    let mut old = authority.connect(address, "a.test", None).unwrap();
    assert_eq!(serial(&old), "1");
    // The first of the two files alone fits no key: what was there goes on.
    let new = authority.sign(2, &["a.test"]);
    replace(dir.path(), "tls.crt", &new.cert);
    assert_eq!(serial(&authority.connect(address, "a.test", None).unwrap()), "1");
    new.write(dir.path());
    wait("the new certificate", || {
        (serial(&authority.connect(address, "a.test", None).unwrap()) == "2").then_some(())
    });
    old.write_all(b"still here").unwrap();
    let mut back = [0; 10];
    old.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"still here");
    assert_eq!(proxy.stat("listener_manager.listener_modified").unwrap_or(0), 0);
}

#[test]
fn clients_are_checked_for_roots_names_and_revocation() {
    let authority = Authority::new();
    let inline = |text: &str| serde_json::to_string(text).unwrap();
    let server = authority.sign(1, &["a.test"]);
    let other = authority.sign(2, &["*.b.test"]);
    let certificate = |signed: &certs::Signed| {
        format!(
            "{{certificate_chain: {{inline_string: {}}}, private_key: {{inline_string: {}}}}}",
            inline(&signed.cert),
            inline(&signed.key)
        )
    };
    let context = format!(
        "tls_certificates: [{}, {}], validation_context: {{trusted_ca: {{inline_string: {}}}, \
         crl: {{inline_string: {}}}, match_typed_subject_alt_names: [{{san_type: URI, matcher: {{prefix: \
         \"spiffe://cluster.local/ns/a/\"}}}}]}}",
        certificate(&server),
        certificate(&other),
        inline(&authority.pem),
        inline(&authority.revoke(13))
    );
    let chain = format!("{{filters: [{ECHO}], {}}}", tls(&context, "require_client_certificate: true,"));
    let proxy = Proxy::ready(&bootstrap(&[listener("l", "", &chain)], ""), &[]);
    let address = proxy.listener("l");
    let try_it = |client: Option<&certs::Signed>, name: &str| -> std::io::Result<String> {
        let mut tls = authority.connect(address, name, client)?;
        tls.write_all(b"x")?;
        tls.read_exact(&mut [0])?;
        Ok(serial(&tls))
    };
    let good = authority.sign(11, &["spiffe://cluster.local/ns/a/sa/x"]);
    assert_eq!(try_it(Some(&good), "a.test").unwrap(), "1");
    assert_eq!(try_it(Some(&good), "x.b.test").unwrap(), "2", "the name chooses the certificate");
    let misnamed = authority.sign(12, &["spiffe://cluster.local/ns/b/sa/x"]);
    let revoked = authority.sign(13, &["spiffe://cluster.local/ns/a/sa/x"]);
    let stranger = Authority::new().sign(14, &["spiffe://cluster.local/ns/a/sa/x"]);
    for (client, why) in [
        (None, "no certificate"),
        (Some(&misnamed), "another name"),
        (Some(&revoked), "revoked"),
        (Some(&stranger), "another root"),
    ] {
        assert!(try_it(client, "a.test").is_err(), "{why}");
    }
    wait("the statistics", || {
        let body = proxy.admin("GET", "/stats?usedonly").body;
        let counted = |name: &str| body.lines().any(|line| line.contains(name) && line.ends_with(": 1"));
        (counted("ssl.fail_verify_san") && counted("ssl.fail_verify_no_cert")).then_some(())
    });
}

#[test]
fn the_proxy_protocol_is_read_and_sent_on() {
    let upstream = support::listen();
    let cluster = format!(
        "{{name: a, type: STATIC, connect_timeout: 1s, load_assignment: {{cluster_name: a, endpoints: [{{lb_endpoints: \
         [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}}}}}]}}]}}, \
         transport_socket: {{name: pp, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, \
         config: {{version: V2, pass_through_tlvs: {{match_type: INCLUDE, tlv_type: [234]}}}}, \
         transport_socket: {{name: envoy.transport_sockets.raw_buffer}}}}}}}}",
        upstream.local_addr().unwrap().port()
    );
    let filter = "{name: pp, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol, \
        pass_through_tlvs: {match_type: INCLUDE_ALL}, \
        rules: [{tlv_type: 234, on_tlv_present: {key: endpoint}}]}}";
    let chain = "{filters: [{name: tcp, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: a, \
        access_log: [{name: file, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: $DIR/log, log_format: \
        {text_format_source: {inline_string: \"%DOWNSTREAM_REMOTE_ADDRESS% \
        %DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:endpoint)%\\n\"}}}}]}}]}";
    let proxy = Proxy::ready(&bootstrap(&[listener("l", filter, chain)], &cluster), &[]);
    let address = proxy.listener("l");
    // 192.0.2.1:4096 to 198.51.100.2:443, one TLV that goes on and one that does not.
    let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11";
    let addresses = b"\xc0\0\x02\x01\xc6\x33\x64\x02\x10\0\x01\xbb";
    let header = [&head[..], b"\0\x18", addresses, b"\xea\0\x04vpce", b"\x01\0\x02h2"].concat();
    let mut client = connect(address);
    client.write_all(&header).unwrap();
    client.write_all(b"ping").unwrap();
    let (mut seen, _) = upstream.accept().unwrap();
    let expected = [&head[..], b"\0\x13", addresses, b"\xea\0\x04vpce", b"ping"].concat();
    let mut got = vec![0; expected.len()];
    seen.read_exact(&mut got).unwrap();
    assert_eq!(got, expected);
    drop((client, seen));
    let log = wait("the log", || {
        std::fs::read_to_string(proxy.dir.path().join("log")).ok().filter(|log| log.ends_with('\n'))
    });
    assert_eq!(log, "192.0.2.1:4096 vpce\n");
    let mut without = connect(address);
    without.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(without.read(&mut [0]).unwrap_or(0), 0, "no header, no service");
    assert_eq!(proxy.stat("proxy_proto.not_found_disallowed"), Some(1));
}

#[test]
fn whom_the_proxy_protocol_names_is_the_client_of_requests() {
    let filter = "{name: pp, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol}}";
    let hcm = "{name: hcm, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.network.\
        http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, use_remote_address: true, route_config: \
        {virtual_hosts: [{name: v, domains: [\"*\"], routes: [{match: {prefix: /}, direct_response: {status: 200, \
        body_format: {text_format_source: {inline_string: \"%REQ(X-FORWARDED-FOR)% \
        %REQ(X-ENVOY-EXTERNAL-ADDRESS)% %DOWNSTREAM_REMOTE_ADDRESS%\"}}}}]}]}, http_filters: [{name: router, \
        typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}}";
    let proxy = Proxy::ready(&bootstrap(&[listener("l", filter, &format!("{{filters: [{hcm}]}}"))], ""), &[]);
    let mut client = connect(proxy.listener("l"));
    client.write_all(b"PROXY TCP4 192.0.2.1 198.51.100.2 11 22\r\n").unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("192.0.2.1 192.0.2.1 192.0.2.1:11"), "{answer}");
}

#[test]
fn chains_are_chosen_by_name_and_limits_hold() {
    let inspector = "{name: tls, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}}";
    let chain = |matching: &str, text: &str| {
        format!("{{filter_chain_match: {{{matching}}}, filters: [{}]}}", respond(text))
    };
    let chains = [
        chain("server_names: [\"*.a.test\"]", "wild"),
        chain("server_names: [b.a.test]", "exact"),
        chain("transport_protocol: raw_buffer", "plain"),
        chain("transport_protocol: tls", "other"),
    ];
    let limit = "{name: limit, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit, stat_prefix: one, \
        max_connections: 1}}";
    let limited = format!("{{filters: [{limit}, {ECHO}]}}");
    let few = "{name: few, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit, stat_prefix: few, \
        token_bucket: {max_tokens: 1, fill_interval: 3600s}}}";
    let text = bootstrap(
        &[
            listener("names", inspector, &chains.join(", ")),
            listener("limit", "", &limited),
            listener("few", few, &format!("{{filters: [{}]}}", respond("served"))),
        ],
        "",
    );
    let proxy = Proxy::ready(&text, &[]);
    let address = proxy.listener("names");
    let answer = |bytes: &[u8]| {
        let mut stream = connect(address);
        stream.write_all(bytes).unwrap();
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    };
    for (name, expect) in [("x.a.test", "wild"), ("b.a.test", "exact"), ("c.test", "other")] {
        assert_eq!(answer(&hello(name)), expect, "{name}");
    }
    assert_eq!(answer(b"hello"), "plain");

    let address = proxy.listener("limit");
    let mut first = connect(address);
    first.write_all(b"x").unwrap();
    first.read_exact(&mut [0]).unwrap();
    assert_eq!(connect(address).read(&mut [0]).unwrap_or(0), 0, "the second is one too many");
    drop(first);
    wait("the place to be free", || {
        let mut next = connect(address);
        next.write_all(b"x").ok()?;
        next.read_exact(&mut [0]).ok()
    });

    let address = proxy.listener("few");
    let mut text = String::new();
    connect(address).read_to_string(&mut text).unwrap();
    assert_eq!(text, "served");
    assert_eq!(connect(address).read(&mut [0]).unwrap_or(0), 0, "no token is left");
}

#[test]
fn tcp_goes_through_tunnels_of_both_versions() {
    let old = support::listen();
    let (new, heads) = http2_proxy();
    let cluster = |name: &str, port: u16, more: &str| {
        format!(
            "{{name: {name}, type: STATIC, connect_timeout: 5s, load_assignment: {{cluster_name: {name}, endpoints: \
             [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}]}}]}}{more}}}"
        )
    };
    let http2 = ", typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
        {\"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
        explicit_http_config: {http2_protocol_options: {}}}}";
    let clusters =
        [cluster("old", old.local_addr().unwrap().port(), ""), cluster("new", new.port(), http2)].join(", ");
    let chain = |cluster: &str| {
        format!(
            "{{filters: [{{name: tcp, typed_config: {{\"@type\": \
             type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, \
             cluster: {cluster}, tunneling_config: {{hostname: \"far.test:443\", headers_to_add: \
             [{{header: {{key: x-from, value: \"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\"}}}}]}}}}}}]}}"
        )
    };
    let text =
        bootstrap(&[listener("old", "", &chain("old")), listener("new", "", &chain("new"))], &clusters);
    let proxy = Proxy::ready(&text, &[]);
    let mut client = connect(proxy.listener("old"));
    client.write_all(b"ping").unwrap();
    let (mut upstream, _) = old.accept().unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        upstream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("connect far.test:443 http/1.1\r\n"), "{head}");
    assert!(head.contains("host: far.test:443\r\n") && head.contains("x-from: 127.0.0.1\r\n"), "{head}");
    // The answer and the first bytes of the other side come together.
    upstream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").unwrap();
    let mut got = [0; 5];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    upstream.read_exact(&mut got[..4]).unwrap();
    assert_eq!(&got[..4], b"ping");

    let mut client = connect(proxy.listener("new"));
    client.write_all(b"ping").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut back = String::new();
    client.read_to_string(&mut back).unwrap();
    assert_eq!(back, "ping", "an echo, and its end");
    assert_eq!(heads.recv_timeout(Duration::from_secs(20)).unwrap(), "CONNECT far.test:443 127.0.0.1");
}

/// An HTTP/2 proxy that echoes what comes through its tunnels, and tells what it was asked.
fn http2_proxy() -> (SocketAddr, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (send, heads) = std::sync::mpsc::channel();
    let serve = move |mut request: http::Request<hyper::body::Incoming>| {
        let from = request.headers()["x-from"].to_str().unwrap().to_owned();
        send.send(format!("{} {} {from}", request.method(), request.uri())).unwrap();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let io = hyper_util::rt::TokioIo::new(upgrade.await.unwrap());
            let (mut read, mut write) = tokio::io::split(io);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
        });
        let response = http::Response::new(http_body_util::Empty::<bytes::Bytes>::new());
        std::future::ready(Ok::<_, std::convert::Infallible>(response))
    };
    // It ends with the test's process.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(serve);
            let builder = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new());
            let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
        });
    });
    (address, heads)
}

/// A client's first TLS message.
fn hello(name: &str) -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = name.to_owned().try_into().unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}
