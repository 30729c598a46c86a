//! Filters that ask services, through the real binary.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/grpc.rs"]
mod grpc;
mod support;

use std::net::SocketAddr;
use std::sync::mpsc;

use support::{Backend, Proxy, call};
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::service::auth::v3 as auth;

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";

/// A proxy with these filters before the router, these routes (to clusters `app` and `service`), and the two clusters;
/// the service's speaks HTTP/2.
fn proxy(filters: &str, routes: &str, app: SocketAddr, service: SocketAddr, http2: bool) -> Proxy {
    let cluster = |name: &str, to: SocketAddr, more: &str| {
        format!(
            "  - {{name: {name}, type: STATIC, connect_timeout: 1s, {more}load_assignment: {{cluster_name: {name}, \
             endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: \
             {}}}}}}}}}]}}]}}}}\n",
            to.ip(),
            to.port()
        )
    };
    let http2 = if http2 { "http2_protocol_options: {}, " } else { "" };
    let text = format!(
        "node: {{id: n, cluster: c}}\nstatic_resources:\n  listeners:\n  - name: l\n    address: {{socket_address: \
         {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains: [{{filters: [{{name: hcm, typed_config: \
         {{\"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, \
         stat_prefix: in, route_config: {{name: r, virtual_hosts: [{{name: v, domains: [\"*\"], routes: [{routes}]}}]}}, \
         http_filters: [{filters}{{name: router, typed_config: {{\"@type\": {FILTERS}.router.v3.Router}}}}]}}}}]}}]\n  \
         clusters:\n{}{}",
        cluster("app", app, ""),
        cluster("service", service, http2),
    );
    Proxy::ready(&text, &[])
}

const APP: &str = "{match: {prefix: /}, route: {cluster: app}}";

fn filter(name: &str, config: &str) -> String {
    format!("{{name: {name}, typed_config: {{\"@type\": {FILTERS}.{config}}}}}, ")
}

fn header(key: &str, value: &str) -> core::HeaderValueOption {
    let header = core::HeaderValue { key: key.into(), value: value.into(), ..Default::default() };
    core::HeaderValueOption { header: Some(header), ..Default::default() }
}

/// Consents to `/ok`, refuses the rest, and tells what it was asked.
fn authorization() -> (SocketAddr, mpsc::Receiver<auth::AttributeContext>) {
    let (send, asked) = mpsc::channel();
    let address = grpc::serve(move || {
        let send = send.clone();
        move |request: auth::CheckRequest| {
            use auth::check_response::HttpResponse;
            let attributes = request.attributes.unwrap();
            let path = attributes.request.as_ref().unwrap().http.as_ref().unwrap().path.clone();
            send.send(attributes).unwrap();
            let (code, response) = if path.starts_with("/ok") {
                let response = auth::OkHttpResponse {
                    headers: vec![header("x-user", "jason")],
                    headers_to_remove: vec!["x-secret".into()],
                    response_headers_to_add: vec![header("x-seen", "yes")],
                    ..Default::default()
                };
                (0, HttpResponse::OkResponse(response))
            } else {
                let status = xds_api::envoy::r#type::v3::HttpStatus { code: 401 };
                let response = auth::DeniedHttpResponse {
                    status: Some(status),
                    headers: vec![header("www-authenticate", "Basic")],
                    body: "who are you?".into(),
                };
                (7, HttpResponse::DeniedResponse(response))
            };
            vec![auth::CheckResponse {
                status: Some(xds_api::google::rpc::Status { code, ..Default::default() }),
                http_response: Some(response),
                ..Default::default()
            }]
        }
    });
    (address, asked)
}

#[test]
fn ext_authz_asks_over_grpc() {
    let app = Backend::start("app");
    let (service, asked) = authorization();
    let filters = filter(
        "authz",
        "ext_authz.v3.ExtAuthz, grpc_service: {envoy_grpc: {cluster_name: service}, timeout: 5s}, \
         with_request_body: {max_request_bytes: 10}",
    );
    let off = format!(
        "{{match: {{prefix: /free}}, route: {{cluster: app}}, typed_per_filter_config: {{authz: {{\"@type\": \
         {FILTERS}.ext_authz.v3.ExtAuthzPerRoute, disabled: true}}}}}}, "
    );
    let more = format!(
        "{{match: {{prefix: /}}, route: {{cluster: app}}, typed_per_filter_config: {{authz: {{\"@type\": \
         {FILTERS}.ext_authz.v3.ExtAuthzPerRoute, check_settings: {{context_extensions: {{a: b}}}}}}}}}}"
    );
    let proxy = proxy(&filters, &(off + &more), app.address, service, true);
    let address = proxy.listener("l");
    let answer = call(address, "GET", "/ok", &[("x-secret", "1")]).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, "app"));
    assert!(answer.head.contains("x-seen: yes"), "{}", answer.head);
    let request = app.next();
    assert!(request.contains("x-user: jason") && !request.contains("x-secret"), "{request}");
    let seen = asked.recv().unwrap();
    assert_eq!(seen.context_extensions["a"], "b");
    assert_eq!(seen.request.unwrap().http.unwrap().headers["x-secret"], "1");
    let answer = call(address, "GET", "/no", &[]).unwrap();
    assert_eq!((answer.status, &*answer.body), (401, "who are you?"));
    assert!(answer.head.contains("www-authenticate: Basic"), "{}", answer.head);
    assert_eq!(call(address, "GET", "/free", &[]).unwrap().status, 200);
    assert_eq!(proxy.stat("http.in.ext_authz.ok"), Some(1));
    assert_eq!(proxy.stat("http.in.ext_authz.denied"), Some(1));
}

#[test]
fn ext_authz_asks_over_http_and_fails_as_it_is_told() {
    let app = Backend::start("app");
    let service = Backend::start("fine");
    let asks = "http_service: {server_uri: {uri: 'http://authz', cluster: service, timeout: 5s}, path_prefix: /check}";
    let filters = filter("authz", &format!("ext_authz.v3.ExtAuthz, {asks}"));
    let proxy = proxy(&filters, APP, app.address, service.address, false);
    let address = proxy.listener("l");
    let answer = call(address, "GET", "/a?b", &[("authorization", "me"), ("x-other", "1")]).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, "app"));
    let request = service.next();
    assert!(
        request.starts_with("GET /check/a?b HTTP/1.1\r\n") && request.contains("authorization: me"),
        "{request}"
    );
    assert!(request.contains("host: test") && !request.contains("x-other"), "{request}");
    drop(proxy);
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (more, status) in [("status_on_error: {code: 503}", 503), ("failure_mode_allow: true", 200)] {
        let filters = filter("authz", &format!("ext_authz.v3.ExtAuthz, {more}, {asks}"));
        let proxy = self::proxy(&filters, APP, app.address, nobody, false);
        assert_eq!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().status, status);
        assert_eq!(proxy.stat("http.in.ext_authz.error"), Some(1));
    }
}

#[test]
fn ratelimit_asks_with_the_routes_descriptors() {
    use xds_api::envoy::service::ratelimit::v3::{
        RateLimitRequest, RateLimitResponse, rate_limit_response::Code,
    };
    let app = Backend::start("app");
    let (send, asked) = mpsc::channel();
    let service = grpc::serve(move || {
        let send = send.clone();
        move |request: RateLimitRequest| {
            let over = request.descriptors[0].entries.iter().any(|entry| entry.value == "greedy");
            send.send(request).unwrap();
            let code = if over { Code::OverLimit } else { Code::Ok };
            vec![RateLimitResponse { overall_code: code as i32, ..Default::default() }]
        }
    });
    let filters = filter(
        "rl",
        "ratelimit.v3.RateLimit, domain: d, timeout: 5s, rate_limit_service: {transport_api_version: V3, \
         grpc_service: {envoy_grpc: {cluster_name: service}}}",
    );
    let routes = "{match: {prefix: /}, route: {cluster: app, rate_limits: [{actions: [{generic_key: {descriptor_value: \
                  k}}, {request_headers: {header_name: x-user, descriptor_key: user}}]}]}}";
    let proxy = proxy(&filters, routes, app.address, service, true);
    let address = proxy.listener("l");
    assert_eq!(call(address, "GET", "/", &[]).unwrap().status, 200);
    assert_eq!(call(address, "GET", "/", &[("x-user", "modest")]).unwrap().status, 200);
    let request = asked.recv().unwrap();
    let entries: Vec<_> =
        request.descriptors[0].entries.iter().map(|entry| (&*entry.key, &*entry.value)).collect();
    assert_eq!((&*request.domain, entries), ("d", vec![("generic_key", "k"), ("user", "modest")]));
    let limited = call(address, "GET", "/", &[("x-user", "greedy")]).unwrap();
    assert_eq!(limited.status, 429);
    assert!(limited.head.contains("x-envoy-ratelimited: true"), "{}", limited.head);
    assert_eq!(proxy.stat("cluster.app.ratelimit.over_limit"), Some(1));
    assert_eq!(proxy.stat("cluster.app.ratelimit.ok"), Some(1));
}

#[test]
fn local_ratelimit_has_buckets_for_descriptors() {
    let app = Backend::start("app");
    let bucket = |most: u32| format!("{{max_tokens: {most}, tokens_per_fill: {most}, fill_interval: 1000s}}");
    let filters = filter(
        "local",
        &format!(
            "local_ratelimit.v3.LocalRateLimit, stat_prefix: l, token_bucket: {}, enable_retry_after_header: true, \
             filter_enabled: {{default_value: {{numerator: 100}}}}, filter_enforced: {{default_value: {{numerator: \
             100}}}}, rate_limits: [{{actions: [{{request_headers: {{header_name: x-user, descriptor_key: user}}}}]}}], \
             descriptors: [{{entries: [{{key: user}}], token_bucket: {}}}]",
            bucket(100),
            bucket(1)
        ),
    );
    let proxy = proxy(&filters, APP, app.address, app.address, false);
    let address = proxy.listener("l");
    let ask = |user: &str| call(address, "GET", "/", &[("x-user", user)]).unwrap();
    assert_eq!((ask("a").status, ask("b").status), (200, 200));
    let limited = ask("a");
    assert_eq!(limited.status, 429);
    assert!(limited.head.contains("retry-after: "), "{}", limited.head);
    assert_eq!(call(address, "GET", "/", &[]).unwrap().status, 200);
}

#[test]
fn bodies_are_compressed_and_bounded() {
    let app = Backend::start("a body of more than thirty bytes, so that it is worth the while");
    let library = |name: &str| {
        format!(
            "{{name: {name}, typed_config: {{\"@type\": \
             type.googleapis.com/envoy.extensions.compression.{name}.compressor.v3.{}{}}}}}",
            name[..1].to_uppercase(),
            &name[1..]
        )
    };
    let compressor = |name: &str| {
        filter(name, &format!("compressor.v3.Compressor, compressor_library: {}", library(name)))
    };
    let buffer = filter("buffer", "buffer.v3.Buffer, max_request_bytes: 10");
    let filters = compressor("gzip") + &compressor("brotli") + &compressor("zstd") + &buffer;
    let proxy = proxy(&filters, APP, app.address, app.address, false);
    let address = proxy.listener("l");
    for encoding in ["gzip", "br", "zstd"] {
        let answer = call(address, "GET", "/", &[("accept-encoding", encoding)]).unwrap();
        assert!(answer.head.contains(&format!("content-encoding: {encoding}")), "{}", answer.head);
        assert!(answer.head.contains("vary: Accept-Encoding"), "{}", answer.head);
        assert!(!answer.head.contains("content-length"), "{}", answer.head);
    }
    assert!(call(address, "GET", "/", &[]).unwrap().body.starts_with("a body"));
    assert_eq!(proxy.stat("http.in.compressor.gzip.gzip.compressed"), Some(1));
}

/// A processor that marks what it sees, upper-cases bodies, and answers `/no` itself.
fn processor() -> SocketAddr {
    use xds_api::envoy::service::ext_proc::v3 as proc;
    use xds_api::envoy::service::ext_proc::v3::processing_request::Request;
    use xds_api::envoy::service::ext_proc::v3::processing_response::Response;
    grpc::serve(|| {
        |message: proc::ProcessingRequest| {
            let headers = |name: &str| proc::HeadersResponse {
                response: Some(proc::CommonResponse {
                    header_mutation: Some(proc::HeaderMutation {
                        set_headers: vec![header(name, "seen")],
                        remove_headers: vec!["x-secret".into()],
                    }),
                    ..Default::default()
                }),
            };
            let body = |body: proc::HttpBody| {
                let mutation = proc::body_mutation::Mutation::Body(body.body.to_ascii_uppercase());
                proc::BodyResponse {
                    response: Some(proc::CommonResponse {
                        body_mutation: Some(proc::BodyMutation { mutation: Some(mutation) }),
                        ..Default::default()
                    }),
                }
            };
            let refused = |message: &proc::HttpHeaders| {
                let all = &message.headers.as_ref().unwrap().headers;
                all.iter().any(|header| header.key == ":path" && header.raw_value == b"/no")
            };
            let response = match message.request.unwrap() {
                Request::RequestHeaders(message) if refused(&message) => {
                    Response::ImmediateResponse(proc::ImmediateResponse {
                        status: Some(xds_api::envoy::r#type::v3::HttpStatus { code: 418 }),
                        body: b"no tea".to_vec(),
                        ..Default::default()
                    })
                }
                Request::RequestHeaders(_) => Response::RequestHeaders(headers("x-request")),
                Request::ResponseHeaders(_) => Response::ResponseHeaders(headers("x-response")),
                Request::RequestBody(message) => Response::RequestBody(body(message)),
                Request::ResponseBody(message) => Response::ResponseBody(body(message)),
                _ => return Vec::new(),
            };
            vec![proc::ProcessingResponse { response: Some(response), ..Default::default() }]
        }
    })
}

#[test]
fn ext_proc_sees_and_changes_both_ways() {
    let app = Backend::start("answer");
    let service = processor();
    for mode in ["BUFFERED", "STREAMED", "BUFFERED_PARTIAL"] {
        let filters = filter(
            "proc",
            &format!(
                "ext_proc.v3.ExternalProcessor, grpc_service: {{envoy_grpc: {{cluster_name: service}}}}, \
                 message_timeout: 10s, processing_mode: {{response_body_mode: {mode}}}"
            ),
        );
        let proxy = proxy(&filters, APP, app.address, service, true);
        let address = proxy.listener("l");
        let answer = call(address, "GET", "/", &[("x-secret", "1")]).unwrap();
        assert_eq!((answer.status, &*answer.body), (200, "ANSWER"), "{mode}");
        assert!(answer.head.contains("x-response: seen"), "{}", answer.head);
        let request = app.next();
        assert!(request.contains("x-request: seen") && !request.contains("x-secret"), "{request}");
        let refused = call(address, "GET", "/no", &[]).unwrap();
        assert_eq!((refused.status, &*refused.body), (418, "no tea"));
        assert_eq!(proxy.stat("http.in.ext_proc.streams_started"), Some(2));
    }
}

#[test]
fn ext_proc_fails_as_it_is_told() {
    let app = Backend::start("app");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (more, status) in
        [("", 500), ("failure_mode_allow: true,", 200), ("status_on_error: {code: 503},", 503)]
    {
        let filters = filter(
            "proc",
            &format!(
                "ext_proc.v3.ExternalProcessor, {more} grpc_service: {{envoy_grpc: {{cluster_name: service}}}}"
            ),
        );
        let proxy = proxy(&filters, APP, app.address, nobody, true);
        assert_eq!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().status, status);
        assert_eq!(proxy.stat("http.in.ext_proc.streams_failed"), Some(1));
    }
}
