//! HTTP filters that need nobody else, through the real binary. What is expected here is what Envoy does.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::{Value, json};
use support::{Backend, Proxy, call};

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.http";

fn cluster(name: &str, to: SocketAddr) -> Value {
    json!({"name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address":
            {"address": to.ip(), "port_value": to.port()}}}}]}]}})
}

/// A proxy with these filters before the router, these routes, and the clusters `app` and `other`.
fn proxy(filters: &[(&str, Value)], routes: &Value, app: SocketAddr, other: SocketAddr) -> Proxy {
    let mut all: Vec<Value> = filters
        .iter()
        .map(|(message, config)| {
            let mut config = config.clone();
            config["@type"] = format!("{FILTERS}.{message}").into();
            json!({"name": message.split('.').next(), "typed_config": config})
        })
        .collect();
    all.push(json!({"name": "router", "typed_config": {"@type": format!("{FILTERS}.router.v3.Router")}}));
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in", "http_filters": all,
        "route_config": {"name": "r", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
    });
    let resources = json!({
        "listeners": [{"name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}],
        "clusters": [cluster("app", app), cluster("other", other)],
        "secrets": [{"name": "password", "generic_secret": {"secret": {"inline_string": "hunter2"}}}]});
    let text = format!("node: {{id: n, cluster: c}}\nstatic_resources: {resources}\n");
    Proxy::ready(&text, &[])
}

fn to_app() -> Value {
    json!([{"match": {"prefix": "/"}, "route": {"cluster": "app"}}])
}

/// One request with a body, and what comes back.
fn send(to: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let length = body.len();
    let request =
        format!("{head}\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// A server that gives the same answer to everybody.
fn answering(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut seen = Vec::new();
                let mut piece = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut piece) {
                    seen.extend_from_slice(&piece[..count]);
                    if seen.windows(4).any(|end| end == b"\r\n\r\n") {
                        let _ = stream.write_all(answer.as_bytes());
                        seen.clear();
                    }
                }
            });
        }
    });
    address
}

#[test]
fn json_bodies_become_metadata() {
    let app = Backend::start("app");
    let entry = |key: &str, more: Value| {
        let mut entry = json!({"metadata_namespace": "ns", "key": key});
        entry.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        entry
    };
    let rules = json!({"request_rules": {"rules": [
        {"selectors": [{"key": "a"}, {"key": "b"}], "on_present": entry("b", json!({})),
            "on_missing": entry("b", json!({"value": "missing"})), "on_error": entry("b", json!({"value": "error"}))},
        {"selectors": [{"key": "n"}], "on_present": entry("n", json!({"type": "STRING"}))},
    ]}});
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "app"}, "request_headers_to_add": [
        {"header": {"key": "x-b", "value": "%DYNAMIC_METADATA(ns:b)%"}},
        {"header": {"key": "x-n", "value": "%DYNAMIC_METADATA(ns:n)%"}}]}]);
    let proxy = proxy(&[("json_to_metadata.v3.JsonToMetadata", rules)], &routes, app.address, app.address);
    for (kind, body, expected) in [
        ("application/json", r#"{"a": {"b": "deep"}, "n": 12.5}"#, "x-b: deep\r\nx-n: 12.500000\r\n"),
        ("application/json", r#"{"a": {"b": {}}}"#, "x-b: missing\r\n"),
        ("application/json", "{", "x-b: error\r\n"),
        ("text/plain", "{}", "x-b: error\r\n"),
        ("application/json", "", "x-b: missing\r\n"),
    ] {
        let head = format!("POST / HTTP/1.1\r\ncontent-type: {kind}");
        let answer = send(proxy.listener("l"), &head, body);
        assert!(answer.ends_with("app"), "{answer}");
        let request = app.next();
        assert!(request.contains(expected) && request.ends_with(&format!("\r\n\r\n{body}")), "{request}");
    }
    assert_eq!(proxy.stat("json_to_metadata.rq.success"), Some(2));
    assert_eq!(proxy.stat("json_to_metadata.rq.invalid_json_body"), Some(1));
    assert_eq!(proxy.stat("json_to_metadata.rq.mismatched_content_type"), Some(1));
    assert_eq!(proxy.stat("json_to_metadata.rq.no_body"), Some(1));
}

#[test]
fn credentials_are_put_in() {
    let app = Backend::start("app");
    let generic = |name: &str| {
        json!({"credential": {"name": "c", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.generic.v3.Generic",
            "credential": {"name": name}, "header_value_prefix": "Bearer "}}})
    };
    let message = "credential_injector.v3.CredentialInjector";
    let running = proxy(&[(message, generic("password"))], &to_app(), app.address, app.address);
    assert_eq!(call(running.listener("l"), "GET", "/", &[]).unwrap().status, 200);
    assert!(app.next().contains("authorization: Bearer hunter2\r\n"));
    assert_eq!(call(running.listener("l"), "GET", "/", &[("authorization", "mine")]).unwrap().status, 200);
    assert!(app.next().contains("authorization: mine\r\n"));
    assert_eq!(running.stat("http.in.credential_injector.injected"), Some(1));
    assert_eq!(running.stat("http.in.credential_injector.already_exists"), Some(1));
    let running = proxy(&[(message, generic("nobody"))], &to_app(), app.address, app.address);
    let answer = call(running.listener("l"), "GET", "/", &[]).unwrap();
    assert_eq!((answer.status, &*answer.body), (401, "Failed to inject credential."));
    assert_eq!(running.stat("http.in.credential_injector.failed"), Some(1));
}

#[test]
fn tokens_are_fetched_once() {
    let app = Backend::start("app");
    let tokens = Backend::start(r#"{"access_token": "abc", "expires_in": 3600}"#);
    let config = json!({"overwrite": true, "credential": {"name": "c", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.http.injected_credentials.oauth2.v3.OAuth2",
        "token_endpoint": {"uri": "http://tokens/get", "cluster": "other", "timeout": "5s"},
        "scopes": ["read", "write"],
        "client_credentials": {"client_id": "me", "client_secret": {"name": "password"}}}}});
    let proxy = proxy(
        &[("credential_injector.v3.CredentialInjector", config)],
        &to_app(),
        app.address,
        tokens.address,
    );
    for _ in 0..2 {
        assert_eq!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().status, 200);
        assert!(app.next().contains("authorization: Bearer abc\r\n"));
    }
    let request = tokens.next();
    assert!(request.starts_with("POST /get HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: Basic bWU6aHVudGVyMg==\r\n"), "{request}");
    assert!(request.ends_with("grant_type=client_credentials&scope=read%20write"), "{request}");
    assert!(tokens.seen.try_recv().is_err());
    assert_eq!(proxy.stat("http.in.credential_injector.oauth2.token_fetched"), Some(1));
}

#[test]
fn connect_clients_talk_to_grpc_servers() {
    let app = Backend::start("12345hello");
    let filter = [("connect_grpc_bridge.v3.FilterConfig", json!({}))];
    let failing = answering(
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc+proto\r\ngrpc-status: 9\r\ngrpc-message: not now\r\n\
         content-length: 0\r\n\r\n",
    );
    let fine = answering(
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc+json\r\ngrpc-status: 0\r\nx-own: 1\r\n\
         content-length: 10\r\n\r\n12345hello",
    );
    let head = "POST /p HTTP/1.1\r\nconnect-protocol-version: 1\r\nconnect-timeout-ms: 5000\r\ncontent-type: \
                application/proto";
    let running = proxy(&filter, &to_app(), app.address, app.address);
    send(running.listener("l"), head, "abc");
    let request = app.next();
    for line in ["content-type: application/grpc+proto", "te: trailers", "grpc-timeout: 5000m"] {
        assert!(request.contains(line), "{request}");
    }
    assert!(
        request.ends_with("\r\n\r\n\0\0\0\0\u{3}abc") || request.ends_with("\0\0\0\0\u{3}abc\r\n0\r\n"),
        "{request}"
    );
    drop(running);
    let running = proxy(&filter, &to_app(), failing, failing);
    let answer = send(running.listener("l"), head, "abc");
    assert!(answer.starts_with("HTTP/1.1 412 "), "{answer}");
    assert!(answer.contains("content-type: application/json\r\n") && !answer.contains("grpc-"), "{answer}");
    let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body, json!({"code": "failed_precondition", "message": "not now"}));
    let head = "POST /p HTTP/1.1\r\ncontent-type: application/connect+proto";
    let answer = send(running.listener("l"), head, "hello");
    assert!(answer.contains("content-type: application/connect+proto\r\n"), "{answer}");
    assert!(answer.contains(r#"{"error":{"code":"failed_precondition","message":"not now"}}"#), "{answer}");
    drop(running);
    let running = proxy(&filter, &to_app(), fine, fine);
    let head = "GET /p?connect=v1&message=YWJj&base64=1&encoding=json HTTP/1.1";
    let answer = send(running.listener("l"), head, "");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(answer.contains("content-type: application/json\r\n") && answer.contains("x-own: 1"), "{answer}");
}

#[test]
fn requests_come_from_the_clients_address() {
    support::with_transparent_sockets("requests_come_from_the_clients_address", from_the_client);
}

fn from_the_client() {
    let listener = support::listen();
    let app = listener.local_addr().unwrap();
    let peer = std::thread::spawn(move || {
        let (mut stream, peer) = listener.accept().unwrap();
        let mut piece = [0; 4096];
        let _ = stream.read(&mut piece).unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
        peer
    });
    let filters = [("original_src.v3.OriginalSrc", json!({})), ("on_demand.v3.OnDemand", json!({}))];
    let proxy = proxy(&filters, &to_app(), app, app);
    // Every address of 127.0.0.0/8 is ours.
    let socket = std::net::SocketAddrV4::new([127, 0, 0, 7].into(), 0);
    let stream = bound(socket.into(), proxy.listener("l"));
    let mut stream = stream;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(peer.join().unwrap().ip().to_string(), "127.0.0.7");
}

/// A connection from an address.
fn bound(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&from.into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

fn status_is(status: &str, action: &Value) -> Value {
    json!({"predicate": {"single_predicate": {
        "input": {"name": "i", "typed_config":
            {"@type": "type.googleapis.com/envoy.type.matcher.v3.HttpResponseStatusCodeMatchInput"}},
        "value_match": {"exact": status}}}, "on_match": {"action": {"name": "a", "typed_config": action}}})
}

#[test]
fn other_answers_take_the_place_of_some() {
    let policies = "type.googleapis.com/envoy.extensions.http.custom_response";
    let local = json!({"@type": format!("{policies}.local_response_policy.v3.LocalResponsePolicy"),
        "status_code": 499, "body": {"inline_string": "not allowed"},
        "body_format": {"json_format": {"status": "%RESPONSE_CODE%", "message": "%LOCAL_REPLY_BODY%"}},
        "response_headers_to_add": [{"header": {"key": "foo", "value": "x-bar"}}]});
    let elsewhere = json!({"@type": format!("{policies}.redirect_policy.v3.RedirectPolicy"),
        "status_code": 299, "uri": "http://foo.example/gone?x=1",
        "response_headers_to_add": [{"header": {"key": "foo2", "value": "x-bar2"}}],
        "request_headers_to_add": [{"header": {"key": "foo3", "value": "x-bar3"}}]});
    let config = json!({"custom_response_matcher": {"matcher_list": {"matchers":
        [status_is("503", &local), status_is("404", &elsewhere)]}}});
    let routes = json!([
        {"match": {"prefix": "/gone"}, "route": {"cluster": "other"}},
        {"match": {"prefix": "/down"}, "direct_response": {"status": 503}},
        {"match": {"prefix": "/lost"}, "direct_response": {"status": 404}},
        {"match": {"prefix": "/"}, "route": {"cluster": "app"}},
    ]);
    let (app, other) = (Backend::start("app"), Backend::start("other"));
    let proxy = proxy(&[("custom_response.v3.CustomResponse", config)], &routes, app.address, other.address);
    let address = proxy.listener("l");
    assert_eq!(call(address, "GET", "/", &[]).unwrap().body, "app");
    let answer = call(address, "GET", "/down", &[]).unwrap();
    assert_eq!(answer.status, 499);
    assert!(answer.head.contains("foo: x-bar"), "{}", answer.head);
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body, json!({"status": 503, "message": "not allowed"}));
    let answer = send(address, "GET /lost HTTP/1.1\r\nx-mine: 1", "");
    assert!(answer.starts_with("HTTP/1.1 299 ") && answer.ends_with("\r\n\r\nother"), "{answer}");
    assert!(answer.contains("foo2: x-bar2\r\n"), "{answer}");
    let request = other.next();
    assert!(request.starts_with("GET /gone?x=1 HTTP/1.1\r\n"), "{request}");
    for line in ["host: foo.example", "foo3: x-bar3", "x-mine: 1"] {
        assert!(request.contains(line), "{request}");
    }
}

#[test]
fn requests_choose_their_filters() {
    let app = Backend::start("app");
    let mutation = |value: &str| {
        json!({"name": "m", "typed_config": {"@type": format!("{FILTERS}.header_mutation.v3.HeaderMutation"),
            "mutations": {"request_mutations":
                [{"append": {"header": {"key": "x-saw", "value": value}}}]}}})
    };
    let action = |value: Value| {
        let mut value = value;
        value["@type"] = format!("{FILTERS}.composite.v3.ExecuteFilterAction").into();
        json!({"action": {"name": "a", "typed_config": value}})
    };
    let matcher = json!({"matcher_tree": {
    "input": {"name": "i", "typed_config": {
        "@type": "type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
        "header_name": "which"}},
    "exact_match_map": {"map": {
        "one": action(json!({"typed_config": mutation("one")})),
        "two": action(json!({"filter_chain": {"typed_config": [mutation("first"), mutation("second")]}})),
        "named": action(json!({"filter_chain_name": "known"})),
        "lost": action(json!({"filter_chain_name": "unknown"})),
    }}}});
    let config =
        json!({"matcher": matcher, "named_filter_chains": {"known": {"typed_config": [mutation("named")]}}});
    let proxy = proxy(&[("composite.v3.Composite", config)], &to_app(), app.address, app.address);
    for (which, saw) in
        [("one", "one"), ("two", "first second"), ("named", "named"), ("lost", ""), ("none", "")]
    {
        assert_eq!(call(proxy.listener("l"), "GET", "/", &[("which", which)]).unwrap().status, 200);
        let request = app.next();
        let all: Vec<&str> = request.lines().filter_map(|line| line.strip_prefix("x-saw: ")).collect();
        assert_eq!(all.join(" "), saw, "{request}");
    }
}
