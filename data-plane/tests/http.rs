//! What the HTTP connection manager does besides routing, seen from both ends of the real binary.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use support::{Backend, Proxy, call, wait};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "{name: envoy.filters.http.router, typed_config: {\"@type\": \
    type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";

/// One listener `l` with these routes and further fields, and clusters by name and address.
fn bootstrap(routes: &str, more: &str, clusters: &[(&str, SocketAddr)]) -> String {
    let clusters: String = clusters
        .iter()
        .map(|(name, address)| {
            format!(
                "  - {{name: {name}, type: STATIC, connect_timeout: 1s, metadata: {{filter_metadata: {{ns: {{k: cluster}}}}}}, \
                 load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: \
                 {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}\n",
                address.ip(),
                address.port()
            )
        })
        .collect();
    format!(
        "node: {{id: node-id, cluster: node-cluster}}\nstatic_resources:\n  listeners:\n  - name: l\n    \
         metadata: {{filter_metadata: {{ns: {{k: listener}}}}}}\n    \
         address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains: [{{name: chain, \
         filters: [{{name: hcm, typed_config: {{\"@type\": {HCM}, stat_prefix: l, {more} route_config: {{name: r, validate_clusters: false, \
         virtual_hosts: [{{name: v, domains: [\"*\"], metadata: {{filter_metadata: {{ns: {{k: vhost}}}}}}, \
         routes: [{routes}]}}]}}, http_filters: [{ROUTER}]}}}}]}}]\n  clusters:\n{clusters}"
    )
}

const TO_A: &str = "{match: {prefix: /}, route: {cluster: a}}";

/// Sends bytes, and reads until the other side closes.
fn raw(to: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

/// A server that reads a head and then answers this, or nothing if it is empty.
fn server(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut head, mut byte) = (Vec::new(), [0]);
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
                    head.push(byte[0]);
                }
                if answer.is_empty() {
                    let _ = stream.read(&mut [0]);
                }
                stream.write_all(answer.as_bytes())
            });
        }
    });
    address
}

/// The JSON lines of the access log that is written to `$DIR/log`, once there are so many.
fn log_lines(proxy: &Proxy, count: usize) -> Vec<serde_json::Value> {
    wait("the access log", || {
        let text = std::fs::read_to_string(proxy.dir.path().join("log")).ok()?;
        let lines: Vec<_> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() >= count).then_some(lines)
    })
}

fn json_log(fields: &str, filter: &str) -> String {
    format!(
        "access_log: [{{name: f, {filter} typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: $DIR/log, \
         log_format: {{json_format: {{{fields}}}}}}}}}],"
    )
}

#[test]
fn local_replies_are_rewritten() {
    let more = "via: me, local_reply_config: {mappers: [{filter: {status_code_filter: {comparison: {op: EQ, value: \
        {default_value: 404, runtime_key: x}}}}, status_code: 410, body: {inline_string: gone}, headers_to_add: \
        [{header: {key: x-m, value: \"%REQ(x-a)% %RESPONSE_CODE%\"}}]}], body_format: {json_format: \
        {b: \"%LOCAL_REPLY_BODY%\", c: \"%RESPONSE_CODE%\", m: \"%REQ(:METHOD)%\"}}},";
    let routes = "{match: {prefix: /d}, direct_response: {status: 200, body: {inline_string: hello}}}";
    let proxy = Proxy::ready(&bootstrap(routes, more, &[]), &[]);
    let to = proxy.listener("l");
    let answer = call(to, "GET", "/none", &[("x-a", "1")]).unwrap();
    assert_eq!(answer.head.lines().next(), Some("HTTP/1.1 410 Gone"));
    assert!(answer.head.contains("x-m: 1 404\r\n"), "{}", answer.head);
    assert!(answer.head.contains("content-type: application/json\r\n") && answer.head.contains("via: me"));
    assert_eq!(answer.body, "{\"b\":\"gone\",\"c\":410,\"m\":\"GET\"}\n");
    assert_eq!(call(to, "GET", "/d", &[]).unwrap().body, "{\"b\":\"hello\",\"c\":200,\"m\":\"GET\"}\n");
    let grpc = call(to, "POST", "/none", &[("content-type", "application/grpc")]).unwrap();
    assert!(grpc.head.contains("grpc-status: 2\r\n"), "{}", grpc.head);
    assert!(
        grpc.head.contains("grpc-message: {\"b\":\"gone\",\"c\":410,\"m\":\"POST\"}%0A\r\n"),
        "{}",
        grpc.head
    );
}

#[test]
fn timeouts_of_streams() {
    let silent = server("");
    let routes = "{match: {prefix: /idle}, route: {cluster: s, timeout: 0s, idle_timeout: 0.1s}}, \
                  {match: {prefix: /}, route: {cluster: s, timeout: 0s}}";
    let more = "request_timeout: 0.3s, common_http_protocol_options: {max_stream_duration: 0.6s},";
    let proxy = Proxy::ready(&bootstrap(routes, more, &[("s", silent)]), &[]);
    let to = proxy.listener("l");
    let idle = call(to, "GET", "/idle", &[]).unwrap();
    assert_eq!((idle.status, &*idle.body), (504, "stream timeout"));
    let slow = raw(to, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n");
    assert!(slow.starts_with("HTTP/1.1 408 ") && slow.ends_with("request timeout"), "{slow}");
    let long = call(to, "GET", "/", &[]).unwrap();
    assert_eq!((long.status, &*long.body), (504, "downstream duration timeout"));
    for stat in ["idle_timeout", "timeout", "max_duration_reached"] {
        assert_eq!(proxy.stat(&format!("http.l.downstream_rq_{stat}")), Some(1), "{stat}");
    }
}

#[test]
fn headers_that_take_too_long_end_the_connection() {
    let proxy = Proxy::ready(&bootstrap(TO_A, "request_headers_timeout: 0.1s,", &[]), &[]);
    let answer = raw(proxy.listener("l"), "GET / HTTP/1.1\r\nhost: ");
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(proxy.stat("http.l.downstream_rq_header_timeout"), Some(1));
}

#[test]
fn a_connection_has_so_many_requests() {
    let proxy = Proxy::ready(
        &bootstrap(
            "{match: {prefix: /}, direct_response: {status: 204}}",
            "common_http_protocol_options: {max_requests_per_connection: 2},",
            &[],
        ),
        &[],
    );
    let one = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let answers = raw(proxy.listener("l"), &one.repeat(2));
    assert_eq!(answers.matches("HTTP/1.1 204").count(), 2, "{answers}");
    assert_eq!(answers.matches("connection: close").count(), 1);
}

#[test]
fn old_clients_are_answered_where_that_is_asked_for() {
    let a = Backend::start("a");
    let strict = Proxy::ready(&bootstrap(TO_A, "", &[("a", a.address)]), &[]);
    let answer = raw(strict.listener("l"), "GET / HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 426 ") || answer.starts_with("HTTP/1.0 426 "), "{answer}");
    assert!(answer.ends_with("Upgrade Required"));
    let more = "http_protocol_options: {accept_http_10: true, default_host_for_http_10: old.example},";
    let lenient = Proxy::ready(&bootstrap(TO_A, more, &[("a", a.address)]), &[]);
    let answer = raw(lenient.listener("l"), "GET / HTTP/1.0\r\n\r\n");
    assert!(answer.contains(" 200 ") && answer.ends_with("\r\na"), "{answer}");
    assert!(a.next().to_lowercase().contains("host: old.example\r\n"));
}

#[test]
fn header_names_keep_their_spelling() {
    let shout = server("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-ShOut: 1\r\n\r\n");
    let routes = "{match: {prefix: /}, route: {cluster: a}}";
    let preserve = "http_protocol_options: {header_key_format: {stateful_formatter: {name: preserve_case, typed_config: \
        {\"@type\": type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}}},";
    let proxy = Proxy::ready(&bootstrap(routes, preserve, &[("a", shout)]), &[]);
    assert!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().head.contains("x-shout: 1"));
    let proper = "http_protocol_options: {header_key_format: {proper_case_words: {}}},";
    let proxy = Proxy::ready(&bootstrap(routes, proper, &[("a", shout)]), &[]);
    assert!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().head.contains("X-Shout: 1"));
}

#[test]
fn headers_with_underscores() {
    let a = Backend::start("a");
    let action = |action: &str| {
        let more = format!("common_http_protocol_options: {{headers_with_underscores_action: {action}}},");
        Proxy::ready(&bootstrap(TO_A, &more, &[("a", a.address)]), &[])
    };
    let reject = action("REJECT_REQUEST");
    assert_eq!(call(reject.listener("l"), "GET", "/", &[("a_b", "1")]).unwrap().status, 400);
    let drop = action("DROP_HEADER");
    assert_eq!(call(drop.listener("l"), "GET", "/", &[("a_b", "1")]).unwrap().status, 200);
    assert!(!a.next().contains("a_b"));
}

#[test]
fn the_edge_believes_nobody() {
    let a = Backend::start("a");
    let more = "use_remote_address: true, append_x_forwarded_port: true, via: me, add_user_agent: true, \
        early_header_mutation_extensions: [{name: m, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation, \
        mutations: [{remove: x-early}]}}],";
    let proxy = Proxy::ready(&bootstrap(TO_A, more, &[("a", a.address)]), &[]);
    let to = proxy.listener("l");
    let sent = [
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "mine"),
        ("x-envoy-upstream-rq-timeout-ms", "1"),
        ("via", "other"),
        ("x-early", "1"),
    ];
    call(to, "GET", "/", &sent).unwrap();
    let seen = a.next().to_lowercase();
    let port = format!("x-forwarded-port: {}\r\n", to.port());
    for expect in [
        "x-forwarded-for: 1.1.1.1,",
        "x-forwarded-proto: http\r\n",
        "x-envoy-external-address: 127.0.0.1\r\n",
        "via: other, me\r\n",
        "user-agent: node-cluster\r\n",
        "x-envoy-downstream-service-node: node-id\r\n",
        &port,
    ] {
        assert!(seen.contains(expect), "{expect:?} is missing in {seen}");
    }
    assert!(!seen.contains("x-request-id: mine") && !seen.contains("x-early"), "{seen}");
    let inside = "use_remote_address: true, preserve_external_request_id: true, internal_address_config: {cidr_ranges: \
        [{address_prefix: 127.0.0.0, prefix_len: 8}]},";
    let proxy = Proxy::ready(&bootstrap(TO_A, inside, &[("a", a.address)]), &[]);
    call(proxy.listener("l"), "GET", "/", &[("x-request-id", "mine")]).unwrap();
    let seen = a.next().to_lowercase();
    assert!(seen.contains("x-envoy-internal: true\r\n") && seen.contains("x-request-id: mine\r\n"), "{seen}");
}

#[test]
fn scopes_choose_route_tables() {
    let table = |status: u16| {
        format!(
            "route_configuration: {{name: t{status}, virtual_hosts: [{{name: v, domains: [\"*\"], routes: [{{match: \
             {{prefix: /}}, direct_response: {{status: {status}}}}}]}}]}}"
        )
    };
    let scoped = format!(
        "scoped_routes: {{name: s, scope_key_builder: {{fragments: [{{header_value_extractor: {{name: x-scope, \
         element_separator: \";\", element: {{separator: \"=\", key: tenant}}}}}}]}}, scoped_route_configurations_list: \
         {{scoped_route_configurations: [{{name: a, {}, key: {{fragments: [{{string_key: a}}]}}}}, {{name: b, {}, key: \
         {{fragments: [{{string_key: b}}]}}}}]}}}}",
        table(201),
        table(202)
    );
    let text = bootstrap("", "", &[]);
    let (before, rest) = text.split_once("route_config: ").unwrap();
    let rest = &rest[rest.find(", http_filters").unwrap()..];
    let proxy = Proxy::ready(&format!("{before}{scoped}{rest}"), &[]);
    let to = proxy.listener("l");
    for (header, status) in [("x=1;tenant=a", 201), ("tenant=b", 202), ("tenant=c", 404), ("", 404)] {
        assert_eq!(call(to, "GET", "/", &[("x-scope", header)]).unwrap().status, status, "{header}");
    }
}

#[test]
fn logs_tell_what_envoys_tell() {
    let a = Backend::start("a");
    let fields = "cel: \"%CEL(request.headers['x-any'] + '!')%\", path: \"%PATH(NQ)%\", orig: \"%PATH(WQ:ORIG)%\", q: \"%QUERY_PARAM(q)%\", listener: \
        \"%METADATA(LISTENER:ns:k)%\", vhost: \"%METADATA(VIRTUAL_HOST:ns:k)%\", route: \"%METADATA(ROUTE:ns:k)%\", \
        cluster: \"%CLUSTER_METADATA(ns:k)%\", chain: \"%FILTER_CHAIN_NAME%\", port: \"%UPSTREAM_REMOTE_PORT%\", \
        hosts: \"%UPSTREAM_HOSTS_ATTEMPTED%\", env: \"%ENVIRONMENT(PATH)%\", nothing: \"%REQ(x-none)%\", \
        mixed: \"a %REQ(x-none)% b\", first: '%COALESCE({\"operators\": [{\"command\": \"REQ\", \"param\": \"x-none\"}, \
        \"PROTOCOL\"]})%', host: \"%HOSTNAME%\", kind: \"%ACCESS_LOG_TYPE%\", n: 7, list: [\"%RESPONSE_CODE%\", true]";
    let routes = "{match: {prefix: /up}, metadata: {filter_metadata: {ns: {k: route}}}, route: {cluster: a, prefix_rewrite: /new}}";
    let more =
        format!("{} access_log_options: {{flush_access_log_on_new_request: true}},", json_log(fields, ""));
    let proxy = Proxy::ready(&bootstrap(routes, &more, &[("a", a.address)]), &[]);
    call(proxy.listener("l"), "GET", "/up?q=1", &[("x-any", "a")]).unwrap();
    let lines = log_lines(&proxy, 2);
    assert_eq!(lines[0]["kind"], "DownstreamStart");
    let line = &lines[1];
    let expect = serde_json::json!({
        "cel": "a!", "path": "/up", "orig": "/up?q=1", "q": "1", "listener": "listener", "vhost": "vhost", "route": "route",
        "cluster": "cluster", "chain": "chain", "port": a.address.port(), "hosts": a.address.to_string(),
        "nothing": null, "mixed": "a - b", "first": "HTTP/1.1", "kind": "DownstreamEnd", "n": 7, "list": [200, true],
    });
    for (key, value) in expect.as_object().unwrap() {
        assert_eq!(&line[key], value, "{key} in {line}");
    }
    assert!(line["env"].as_str().unwrap().contains('/') && !line["host"].as_str().unwrap().is_empty());
}

#[test]
fn runtime_keys_have_effect_at_once() {
    let routes = "{match: {prefix: /, runtime_fraction: {default_value: {numerator: 0}, runtime_key: share}}, \
        direct_response: {status: 201}}, {match: {prefix: /}, direct_response: {status: 202}}";
    let filter = "filter: {and_filter: {filters: [{status_code_filter: {comparison: {op: GE, value: {default_value: 999, \
        runtime_key: least}}}}, {extension_filter: {name: cel, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter, expression: \
        \"response.code == 201 && request.method == 'GET'\"}}}]}},";
    let proxy = Proxy::ready(&bootstrap(routes, &json_log("c: \"%RESPONSE_CODE%\"", filter), &[]), &[]);
    let to = proxy.listener("l");
    assert_eq!(call(to, "GET", "/", &[]).unwrap().status, 202);
    assert_eq!(proxy.admin("POST", "/runtime_modify?share=100&least=200").status, 200);
    assert_eq!(call(to, "GET", "/", &[]).unwrap().status, 201);
    assert_eq!(log_lines(&proxy, 1), [serde_json::json!({ "c": 201 })]);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    for (field, name) in [
        ("http_protocol_options: {ignore_http_11_upgrade: [{exact: x}]},", "ignore_http_11_upgrade"),
        ("proxy_status_config: {remove_details: true},", "proxy_status_config"),
        (
            "access_log: [{name: f, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, \
          path: /dev/null, log_format: {text_format_source: {inline_string: \"%SECRET(x)%\"}}}}],",
            "SECRET",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.yaml");
        std::fs::write(&path, bootstrap(TO_A, field, &[])).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_sail-proxy"))
            .args(["-c", path.to_str().unwrap(), "--mode", "validate"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(name), "{field}: {said}");
    }
}

/// A server that keeps the bodies of the HTTP/2 requests that it gets, by path, and answers as gRPC does.
fn collector() -> (SocketAddr, std::sync::mpsc::Receiver<(String, Vec<u8>)>) {
    use http_body_util::BodyExt;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (send, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let send = send.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(
                        move |mut request: http::Request<hyper::body::Incoming>| {
                            let send = send.clone();
                            async move {
                                // Frame by frame: a stream of logs has no end.
                                let path = request.uri().path().to_owned();
                                while let Some(Ok(frame)) = request.body_mut().frame().await {
                                    if let Ok(data) = frame.into_data() {
                                        let _ = send.send((path.clone(), data.to_vec()));
                                    }
                                }
                                let body = http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5]));
                                let trailers = http::HeaderMap::from_iter([(
                                    http::HeaderName::from_static("grpc-status"),
                                    http::HeaderValue::from_static("0"),
                                )]);
                                let body = body.with_trailers(async move { Some(Ok(trailers)) });
                                let kind = http::HeaderValue::from_static("application/grpc");
                                let mut response = http::Response::new(body);
                                response.headers_mut().insert("content-type", kind);
                                Ok::<_, std::convert::Infallible>(response)
                            }
                        },
                    );
                    let _ = hyper::server::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                        .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
                        .await;
                });
            }
        });
    });
    (address, seen)
}

/// A message of a gRPC frame.
fn grpc_message<M: prost::Message + Default>(frame: &[u8]) -> M {
    M::decode(&frame[5..]).unwrap()
}

/// Makes a cluster of the bootstrap speak HTTP/2.
fn http2_cluster(text: &str, name: &str) -> String {
    text.replace(
        &format!("{{name: {name}, type: STATIC,"),
        &format!("{{name: {name}, type: STATIC, http2_protocol_options: {{}},"),
    )
}

#[test]
fn logs_reach_envoys_service() {
    use xds_api::envoy::service::accesslog::v3::StreamAccessLogsMessage;
    use xds_api::envoy::service::accesslog::v3::stream_access_logs_message::LogEntries;
    let (address, seen) = collector();
    let more = "access_log: [{name: als, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig, \
        additional_request_headers_to_log: [x-a], common_config: {log_name: mine, transport_api_version: V3, \
        buffer_flush_interval: 0.05s, grpc_service: {envoy_grpc: {cluster_name: als}}}}}],";
    let routes = "{match: {prefix: /}, direct_response: {status: 201, body: {inline_string: hi}}}";
    let proxy = Proxy::ready(&http2_cluster(&bootstrap(routes, more, &[("als", address)]), "als"), &[]);
    call(proxy.listener("l"), "GET", "/x?y", &[("x-a", "1"), ("user-agent", "me")]).unwrap();
    let (path, frame) = seen.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(path, "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs");
    let message: StreamAccessLogsMessage = grpc_message(&frame);
    let identifier = message.identifier.unwrap();
    assert_eq!((&*identifier.log_name, &*identifier.node.unwrap().id), ("mine", "node-id"));
    let Some(LogEntries::HttpLogs(logs)) = message.log_entries else { panic!("no HTTP entries") };
    let entry = &logs.log_entry[0];
    let (request, response) = (entry.request.as_ref().unwrap(), entry.response.as_ref().unwrap());
    assert_eq!((&*request.path, &*request.user_agent, &*request.request_headers["x-a"]), ("/x?y", "me", "1"));
    assert_eq!(response.response_code.unwrap().value, 201);
    assert_eq!(response.response_code_details, "direct_response");
    wait("the count", || (proxy.stat("access_logs.grpc_access_log.logs_written")? == 1).then_some(()));
}

#[test]
fn logs_reach_opentelemetry() {
    let (address, seen) = collector();
    let more = "access_log: [{name: otel, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig, \
        log_name: mine, buffer_flush_interval: 0.05s, grpc_service: {envoy_grpc: {cluster_name: otel}}, \
        body: {string_value: \"%REQ(:METHOD)% %PROTOCOL%\"}, attributes: {values: [{key: code, value: {string_value: \
        \"%RESPONSE_CODE%\"}}]}, resource_attributes: {values: [{key: region, value: {string_value: here}}]}}}],";
    let routes = "{match: {prefix: /}, direct_response: {status: 201}}";
    let proxy = Proxy::ready(&http2_cluster(&bootstrap(routes, more, &[("otel", address)]), "otel"), &[]);
    call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    let (path, frame) = seen.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(path, "/opentelemetry.proto.collector.logs.v1.LogsService/Export");
    // The message is the collector's; the texts in it tell enough.
    let text = String::from_utf8_lossy(&frame[5..]).into_owned();
    for expect in ["GET HTTP/1.1", "region", "here", "log_name", "mine", "node-cluster", "code"] {
        assert!(text.contains(expect), "{expect} is missing in {text:?}");
    }
}

#[test]
fn spans_reach_opentelemetry() {
    let (address, seen) = collector();
    let more = "tracing: {random_sampling: {value: 100}, custom_tags: [{tag: lit, literal: {value: fixed}}, {tag: hdr, \
        request_header: {name: x-a, default_value: none}}, {tag: meta, metadata: {kind: {route: {}}, metadata_key: {key: ns, \
        path: [{key: k}]}}}], provider: {name: otel, typed_config: {\"@type\": \
        type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig, service_name: shop, grpc_service: \
        {envoy_grpc: {cluster_name: otel}}}}},";
    let routes = "{match: {prefix: /}, metadata: {filter_metadata: {ns: {k: of-route}}}, direct_response: {status: 200}}";
    let proxy = Proxy::ready(&http2_cluster(&bootstrap(routes, more, &[("otel", address)]), "otel"), &[]);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    call(proxy.listener("l"), "GET", "/x", &[("traceparent", parent), ("x-a", "told")]).unwrap();
    let (path, frame) = seen.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
    let bytes = &frame[5..];
    let text = String::from_utf8_lossy(bytes).into_owned();
    for expect in ["shop", "http.status_code", "200", "lit", "fixed", "hdr", "told", "meta", "of-route"] {
        assert!(text.contains(expect), "{expect} is missing in {text:?}");
    }
    let has = |id: &str| {
        let id = hex::decode(id).unwrap();
        bytes.windows(id.len()).any(|window| window == id)
    };
    assert!(has("4bf92f3577b34da6a3ce929d0e0e4736") && has("00f067aa0ba902b7"), "the caller's trace goes on");
    wait("the count", || (proxy.stat("tracing.opentelemetry.spans_sent")? == 1).then_some(()));
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// Asks, and reads an answer that has no body.
fn ask(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(GET).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
}

#[test]
fn what_ends_a_rest_is_counted_once() {
    let routes = "{match: {prefix: /}, direct_response: {status: 204}}";
    let proxy = Proxy::ready(&bootstrap(routes, "", &[]), &[]);
    let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
    ask(&mut stream);
    // After two to four seconds of silence the connection lets go of its codec.
    std::thread::sleep(Duration::from_millis(4500));
    ask(&mut stream);
    assert_eq!(proxy.stat("http.l.downstream_cx_rx_bytes_total"), Some(2 * GET.len() as i64));
}

#[test]
fn what_one_side_sends_the_other_receives() {
    let direct = "{match: {prefix: /}, direct_response: {status: 204}}";
    let http1 = |to: SocketAddr| bootstrap("{match: {prefix: /}, route: {cluster: up}}", "", &[("up", to)]);
    let http2 = |to: SocketAddr| http2_cluster(&http1(to), "up");
    for (name, text) in [("HTTP/1.1", &http1 as &dyn Fn(SocketAddr) -> String), ("HTTP/2", &http2)] {
        let far = Proxy::ready(&bootstrap(direct, "", &[]), &[]);
        let near = Proxy::ready(&text(far.listener("l")), &[]);
        ask(&mut TcpStream::connect(near.listener("l")).unwrap());
        wait(name, || {
            let bytes = [
                near.stat("cluster.up.upstream_cx_tx_bytes_total")?,
                far.stat("http.l.downstream_cx_rx_bytes_total")?,
                near.stat("cluster.up.upstream_cx_rx_bytes_total")?,
                far.stat("http.l.downstream_cx_tx_bytes_total")?,
            ];
            (bytes[0] > 50 && bytes[0] == bytes[1] && bytes[2] > 50 && bytes[2] == bytes[3]).then_some(())
        });
    }
}

#[test]
fn a_connection_that_is_to_end_still_answers_for_the_drain_timeout() {
    let more = "drain_timeout: 2s, common_http_protocol_options: {idle_timeout: 0.2s},";
    let proxy =
        Proxy::ready(&bootstrap("{match: {prefix: /}, direct_response: {status: 204}}", more, &[]), &[]);
    // Connections whose clients have said something; what they are told is read off.
    let open = || {
        let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
        ask(&mut stream);
        stream
    };
    let mut stream = open();
    wait("the idle timeout", || proxy.stat("http.l.downstream_cx_idle_timeout").filter(|count| *count == 1));
    stream.write_all(GET).unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let text = String::from_utf8_lossy(&all);
    assert!(text.starts_with("HTTP/1.1 204 ") && text.contains("connection: close\r\n"), "{text}");
    // Nobody asks: it ends when the time is over.
    let began = std::time::Instant::now();
    assert_eq!(open().read(&mut [0]).unwrap(), 0);
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[test]
fn a_client_that_says_nothing_is_let_go_after_the_idle_timeout() {
    let more = "common_http_protocol_options: {idle_timeout: 0.2s},";
    let proxy =
        Proxy::ready(&bootstrap("{match: {prefix: /}, direct_response: {status: 204}}", more, &[]), &[]);
    let mut stream = TcpStream::connect(proxy.listener("l")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    assert_eq!(proxy.stat("http.l.downstream_cx_idle_timeout"), Some(1));
}
