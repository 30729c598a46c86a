//! What listener and network filters do with whole connections, through the real binary: services that judge them, names
//! that they go to, values that they carry, tunnels that they go through.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/grpc.rs"]
mod grpc;
mod support;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use support::{Proxy, wait};
use xds_api::envoy::service::auth::v3 as auth;
use xds_api::envoy::service::ratelimit::v3 as ratelimit;

const TYPES: &str = "type.googleapis.com/envoy.extensions";

fn filter(config: &str) -> String {
    format!("{{name: filter, typed_config: {{\"@type\": {TYPES}.filters.{config}}}}}")
}

/// A TCP proxy to this cluster, which logs this.
fn tcp_proxy(cluster: &str, more: &str, log: &str) -> String {
    let log = format!(
        "access_log: [{{name: file, typed_config: {{\"@type\": {TYPES}.access_loggers.file.v3.FileAccessLog, path: \
         $DIR/log, log_format: {{text_format_source: {{inline_string: \"{log}\\n\"}}}}}}}}]"
    );
    filter(&format!("network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: {cluster}, {more}{log}"))
}

fn cluster(name: &str, to: SocketAddr, more: &str) -> String {
    format!(
        "  - {{name: {name}, type: STATIC, connect_timeout: 5s, {more}load_assignment: {{cluster_name: {name}, \
         endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: \
         {}}}}}}}}}]}}]}}}}\n",
        to.ip(),
        to.port()
    )
}

const HTTP2: &str = "http2_protocol_options: {}, ";

/// One listener with these listener filters and network filters, and these clusters.
fn proxy(listener_filters: &str, filters: &[String], clusters: &[String]) -> Proxy {
    Proxy::ready(
        &format!(
            "static_resources:\n  listeners:\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, \
             port_value: 0}}}}\n    listener_filters: [{listener_filters}]\n    filter_chains: [{{filters: [{}]}}]\n  \
             clusters:\n{}",
            filters.join(", "),
            clusters.concat()
        ),
        &[],
    )
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// A server that sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    address
}

/// Whether a connection reaches its echo.
fn echoes(to: SocketAddr) -> bool {
    let mut stream = connect(to);
    let mut back = [0; 4];
    stream.write_all(b"ping").is_ok() && stream.read_exact(&mut back).is_ok() && &back == b"ping"
}

fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn log(proxy: &Proxy) -> String {
    wait("a line of the log", || {
        let text = std::fs::read_to_string(proxy.dir.path().join("log")).ok()?;
        text.lines().next().map(str::to_owned)
    })
}

#[test]
fn a_service_says_who_may_connect() {
    let (send, asked) = mpsc::channel();
    let service = grpc::serve(move || {
        let send = send.clone();
        let mut first = false;
        move |request: auth::CheckRequest| {
            first = !first;
            send.send(request.attributes.unwrap()).unwrap();
            let fields = [("who".to_owned(), "jason".into())];
            vec![auth::CheckResponse {
                status: Some(xds_api::google::rpc::Status { code: 0, ..Default::default() }),
                dynamic_metadata: Some(xds_api::google::protobuf::Struct {
                    fields: fields
                        .into_iter()
                        .map(|(key, value): (String, String)| (key, text(value)))
                        .collect(),
                }),
                ..Default::default()
            }]
        }
    });
    let asks = |more: &str| {
        filter(&format!(
            "network.ext_authz.v3.ExtAuthz, stat_prefix: a, {more}grpc_service: {{envoy_grpc: {{cluster_name: \
             service}}, timeout: 5s}}"
        ))
    };
    let to_echo = tcp_proxy("echo", "", "%DYNAMIC_METADATA(envoy.filters.network.ext_authz:who)%");
    let clusters = |service| [cluster("echo", echo(), ""), cluster("service", service, HTTP2)];
    let open = proxy("", &[asks(""), to_echo.clone()], &clusters(service));
    assert!(echoes(open.listener("l")));
    let attributes = asked.recv_timeout(Duration::from_secs(20)).unwrap();
    let address = attributes.destination.unwrap().address.unwrap().address.unwrap();
    let xds_api::envoy::config::core::v3::address::Address::SocketAddress(address) = address else {
        panic!()
    };
    assert_eq!(address.address, "127.0.0.1");
    assert_eq!(log(&open), "jason");
    assert_eq!(open.stat("ext_authz.a.ok"), Some(1));

    let refusing = grpc::serve(|| {
        |_: auth::CheckRequest| {
            let status = xds_api::google::rpc::Status { code: 7, ..Default::default() };
            vec![auth::CheckResponse { status: Some(status), ..Default::default() }]
        }
    });
    let shut = proxy("", &[asks(""), to_echo.clone()], &clusters(refusing));
    assert!(!echoes(shut.listener("l")));
    let stat = |proxy: &Proxy, name: &str| proxy.stat(&format!("ext_authz.a.{name}")).unwrap_or(0);
    assert_eq!([stat(&shut, "denied"), stat(&shut, "cx_closed")], [1, 1]);

    let broken = proxy("", &[asks(""), to_echo.clone()], &clusters(closed()));
    assert!(!echoes(broken.listener("l")));
    assert_eq!([stat(&broken, "error"), stat(&broken, "cx_closed")], [1, 1]);
    let lenient = proxy("", &[asks("failure_mode_allow: true, "), to_echo], &clusters(closed()));
    assert!(echoes(lenient.listener("l")));
    assert_eq!([stat(&lenient, "error"), stat(&lenient, "failure_mode_allowed")], [1, 1]);
}

fn text(value: String) -> xds_api::google::protobuf::Value {
    let kind = xds_api::google::protobuf::value::Kind::StringValue(value);
    xds_api::google::protobuf::Value { kind: Some(kind) }
}

#[test]
fn a_service_counts_connections() {
    let (send, asked) = mpsc::channel();
    let service = grpc::serve(move || {
        let send = send.clone();
        move |request: ratelimit::RateLimitRequest| {
            use ratelimit::rate_limit_response::Code;
            let entry = request.descriptors[0].entries[0].clone();
            let code = if entry.key == "busy" { Code::OverLimit } else { Code::Ok };
            send.send((request.domain, entry.key, entry.value)).unwrap();
            vec![ratelimit::RateLimitResponse { overall_code: code as i32, ..Default::default() }]
        }
    });
    let limit = |key: &str, more: &str| {
        filter(&format!(
            "network.ratelimit.v3.RateLimit, stat_prefix: r, domain: d, {more}descriptors: [{{entries: [{{key: {key}, \
             value: \"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%\"}}]}}], timeout: 5s, rate_limit_service: \
             {{transport_api_version: V3, grpc_service: {{envoy_grpc: {{cluster_name: service}}}}}}"
        ))
    };
    let to_echo = tcp_proxy("echo", "", "-");
    let clusters = |service| [cluster("echo", echo(), ""), cluster("service", service, HTTP2)];
    let stat = |proxy: &Proxy, name: &str| proxy.stat(&format!("ratelimit.r.{name}")).unwrap_or(0);
    let free = proxy("", &[limit("free", ""), to_echo.clone()], &clusters(service));
    assert!(echoes(free.listener("l")));
    let seen = asked.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(seen, ("d".to_owned(), "free".to_owned(), "127.0.0.1".to_owned()));
    assert_eq!([stat(&free, "total"), stat(&free, "ok"), stat(&free, "cx_closed")], [1, 1, 0]);
    let busy = proxy("", &[limit("busy", ""), to_echo.clone()], &clusters(service));
    assert!(!echoes(busy.listener("l")));
    assert_eq!([stat(&busy, "over_limit"), stat(&busy, "cx_closed")], [1, 1]);
    let broken = proxy("", &[limit("free", ""), to_echo.clone()], &clusters(closed()));
    assert!(echoes(broken.listener("l")));
    assert_eq!([stat(&broken, "error"), stat(&broken, "failure_mode_allowed")], [1, 1]);
    let strict = proxy("", &[limit("free", "failure_mode_deny: true, "), to_echo], &clusters(closed()));
    assert!(!echoes(strict.listener("l")));
}

#[test]
fn the_server_name_is_where_a_connection_goes() {
    let backend = support::listen();
    let port = backend.local_addr().unwrap().port();
    let cache = "dns_cache_config: {name: cache, dns_lookup_family: V4_ONLY}";
    let inspector = filter("listener.tls_inspector.v3.TlsInspector");
    let forward = filter(&format!(
        "network.sni_dynamic_forward_proxy.v3.FilterConfig, port_value: 1, save_upstream_address: true, {cache}"
    ));
    // Another port than the configured one.
    let state = filter(&format!(
        "network.set_filter_state.v3.Config, on_new_connection: [{{object_key: envoy.upstream.dynamic_port, \
         format_string: {{text_format_source: {{inline_string: \"{port}\"}}}}}}]"
    ));
    let names = format!(
        "  - {{name: names, connect_timeout: 5s, lb_policy: CLUSTER_PROVIDED, cluster_type: {{name: forward, \
         typed_config: {{\"@type\": {TYPES}.clusters.dynamic_forward_proxy.v3.ClusterConfig, {cache}}}}}}}\n"
    );
    let line = "%UPSTREAM_HOST% %FILTER_STATE(envoy.stream.upstream_address:PLAIN)%";
    let proxy = proxy(&inspector, &[state, forward, tcp_proxy("names", "", line)], &[names]);
    let first = hello("localhost");
    let mut client = connect(proxy.listener("l"));
    client.write_all(&first).unwrap();
    let (mut upstream, _) = backend.accept().unwrap();
    let mut got = vec![0; first.len()];
    upstream.read_exact(&mut got).unwrap();
    assert_eq!(got, first, "the bytes are the client's own");
    drop((client, upstream));
    assert_eq!(log(&proxy), format!("127.0.0.1:{port} 127.0.0.1:{port}"));
    let mut nowhere = connect(proxy.listener("l"));
    nowhere.write_all(&hello("no-such-host.invalid")).unwrap();
    assert_eq!(nowhere.read(&mut [0]).unwrap_or(0), 0);
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

#[test]
fn filters_set_values_that_logs_read() {
    let value = |key: &str, text: &str| {
        format!(
            "{{object_key: {key}, factory_key: envoy.string, format_string: {{text_format_source: {{inline_string: \
             \"{text}\"}}}}}}"
        )
    };
    let early = filter(&format!(
        "listener.set_filter_state.v3.Config, on_accept: [{}, {}]",
        value("from", "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"),
        value("again", "<%FILTER_STATE(from:PLAIN)%>")
    ));
    let late = filter(&format!(
        "network.set_filter_state.v3.Config, on_new_connection: [{}]",
        value("late", "%FILTER_STATE(again:PLAIN)%!")
    ));
    let line = "%FILTER_STATE(from:PLAIN)% %FILTER_STATE(late:PLAIN)%";
    let proxy = proxy(&early, &[late, tcp_proxy("echo", "", line)], &[cluster("echo", echo(), "")]);
    assert!(echoes(proxy.listener("l")));
    assert_eq!(log(&proxy), "127.0.0.1 <127.0.0.1>!");
}

#[test]
fn tunnels_go_through_a_post() {
    let far = support::listen();
    let tunneling = "tunneling_config: {hostname: \"far.test:443\", use_post: true, post_path: /tunnel, \
                     propagate_response_headers: true}, ";
    let kept = "%FILTER_STATE(envoy.tcp_proxy.propagate_response_headers:PLAIN)%";
    let to = far.local_addr().unwrap();
    let proxy = proxy("", &[tcp_proxy("far", tunneling, kept)], &[cluster("far", to, "")]);
    let mut client = connect(proxy.listener("l"));
    client.write_all(b"ping").unwrap();
    let (mut upstream, _) = far.accept().unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        upstream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("post /tunnel http/1.1\r\n"), "{head}");
    assert!(head.contains("host: far.test:443\r\n") && head.contains("transfer-encoding: chunked"), "{head}");
    upstream
        .write_all(b"HTTP/1.1 200 OK\r\nx-by: far\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .unwrap();
    let mut got = [0; 5];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    let mut piece = [0; 9];
    upstream.read_exact(&mut piece).unwrap();
    assert_eq!(&piece, b"4\r\nping\r\n");
    client.shutdown(Shutdown::Write).unwrap();
    let mut end = [0; 5];
    upstream.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"0\r\n\r\n", "the client's end is the body's");
    upstream.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(client.read(&mut got).unwrap(), 0);
    drop(client);
    let line = log(&proxy);
    assert!(line.contains(r#""x-by":"far""#), "{line}");
}

#[test]
fn upstream_connections_come_from_the_client() {
    support::with_transparent_sockets("upstream_connections_come_from_the_client", from_the_client);
}

fn from_the_client() {
    let backend = support::listen();
    let to = backend.local_addr().unwrap();
    let from_client = filter("listener.original_src.v3.OriginalSrc");
    let proxy = proxy(&from_client, &[tcp_proxy("c", "", "-")], &[cluster("c", to, "")]);
    // Of this machine, so that no route has to lead back: the port must be another then.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
    socket.connect(&proxy.listener("l").into()).unwrap();
    let mut client = TcpStream::from(socket);
    client.write_all(b"x").unwrap();
    let (_upstream, peer) = backend.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.2");
}

#[test]
fn filters_of_connections_are_found_by_discovery() {
    let resource = |name: &str, config: &str| {
        format!(
            "[{{\"@type\": {CONFIG}, name: {name}, typed_config: {{\"@type\": {TYPES}.filters.{config}}}}}]"
        )
    };
    const CONFIG: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
    let value = |key: &str, text: &str| {
        format!(
            "[{{object_key: {key}, factory_key: envoy.string, format_string: {{text_format_source: {{inline_string: \
             {text}}}}}}}]"
        )
    };
    let early = |text: &str| {
        resource(
            "early",
            &format!("listener.set_filter_state.v3.Config, on_accept: {}", value("early", text)),
        )
    };
    let late = |text: &str| {
        resource(
            "late",
            &format!("network.set_filter_state.v3.Config, on_new_connection: {}", value("late", text)),
        )
    };
    let files = tempfile::tempdir().unwrap();
    let put = |name: &str, resources: String| {
        let (path, temporary) = (files.path().join(name), files.path().join(format!(".{name}")));
        std::fs::write(&temporary, format!("resources: {resources}\n")).unwrap();
        std::fs::rename(temporary, path).unwrap();
    };
    put("early.yaml", early("one"));
    put("late.yaml", late("one"));
    let discovered = |name: &str, kind: &str| {
        let path = files.path().join(format!("{name}.yaml"));
        format!(
            "{{name: {name}, config_discovery: {{type_urls: [{TYPES}.filters.{kind}.set_filter_state.v3.Config], \
             config_source: {{resource_api_version: V3, path_config_source: {{path: {}}}}}}}}}",
            path.display()
        )
    };
    let line = "%FILTER_STATE(early:PLAIN)% %FILTER_STATE(late:PLAIN)%";
    let filters = [discovered("late", "network"), tcp_proxy("echo", "", line)];
    let proxy = proxy(&discovered("early", "listener"), &filters, &[cluster("echo", echo(), "")]);
    let listener = proxy.listener("l");
    let logged = |line: &str| {
        assert!(echoes(listener));
        let text = std::fs::read_to_string(proxy.dir.path().join("log")).unwrap_or_default();
        text.lines().any(|other| other == line).then_some(())
    };
    wait("the values", || logged("one one"));
    put("early.yaml", early("two"));
    put("late.yaml", late("two"));
    wait("other values", || logged("two two"));
    assert_eq!(proxy.stat("listener_manager.listener_modified").unwrap_or(0), 0);
}

/// A connection manager whose connections live so long.
fn mortal(more: &str) -> Proxy {
    let manager = filter(&format!(
        "network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: in, drain_timeout: 0.1s, \
         common_http_protocol_options: {{max_connection_duration: 0.2s, {more}}}, route_config: {{virtual_hosts: [{{name: v, \
         domains: [\"*\"], routes: [{{match: {{prefix: /}}, direct_response: {{status: 204}}}}]}}]}}, http_filters: [{{name: \
         router, typed_config: {{\"@type\": {TYPES}.filters.http.router.v3.Router}}}}]"
    ));
    proxy("", &[manager], &[])
}

#[test]
fn connections_end_after_so_long_and_a_random_share_of_it() {
    for more in ["", "max_connection_duration_jitter: {value: 100}"] {
        let proxy = mortal(more);
        let began = std::time::Instant::now();
        let mut client = connect(proxy.listener("l"));
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut all = String::new();
        client.read_to_string(&mut all).unwrap();
        assert!(all.starts_with("HTTP/1.1 204 ") && !all.contains("connection: close"), "{all}");
        assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());
        assert_eq!(proxy.stat("http.in.downstream_cx_max_duration_reached"), Some(1), "{more}");
    }
}

#[test]
fn busy_connections_are_told_that_they_end() {
    let proxy = mortal("");
    let mut client = connect(proxy.listener("l"));
    // As soon as the time is up, an answer says that it is the last.
    let last = wait("the last answer", || {
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        head.contains("connection: close").then_some(head)
    });
    assert!(last.starts_with("HTTP/1.1 204 "), "{last}");
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
}
