//! Who may do what, through the real binary: tokens, policies, and the small filters that guard requests.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use support::{Answer, Backend, Proxy, call};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "{name: envoy.filters.http.router, typed_config: {\"@type\": \
    type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}";
const TO_A: &str = "{match: {prefix: /}, route: {cluster: a}}";

/// A filter by its name and its configuration's fields.
fn filter(name: &str, message: &str, fields: &str) -> String {
    format!(
        "{{name: envoy.filters.http.{name}, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.filters.http.{message}, {fields}}}}}"
    )
}

/// A proxy with these filters and routes before the clusters, of which `a` is the first.
fn proxy(filters: &[String], routes: &str, clusters: &[(&str, SocketAddr)]) -> (Proxy, SocketAddr) {
    let filters: Vec<_> = filters.iter().map(|filter| format!("{filter}, ")).collect();
    let clusters: Vec<_> = clusters
        .iter()
        .map(|(name, at)| {
            format!(
                "  - {{name: {name}, type: STATIC, connect_timeout: 1s, load_assignment: {{cluster_name: {name}, \
                 endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, \
                 port_value: {}}}}}}}}}]}}]}}}}\n",
                at.ip(),
                at.port()
            )
        })
        .collect();
    let bootstrap = format!(
        "node: {{id: n, cluster: c}}\nstatic_resources:\n  listeners:\n  - name: l\n    address: \
         {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}\n    filter_chains: [{{filters: [{{name: hcm, \
         typed_config: {{\"@type\": {HCM}, stat_prefix: l, route_config: {{name: r, virtual_hosts: [{{name: v, \
         domains: [\"*\"], routes: [{routes}]}}]}}, http_filters: [{}{ROUTER}]}}}}]}}]\n  clusters:\n{}",
        filters.concat(),
        clusters.concat()
    );
    let proxy = Proxy::ready(&bootstrap, &[]);
    let address = proxy.listener("l");
    (proxy, address)
}

fn get(to: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Answer {
    call(to, "GET", path, headers).unwrap()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// The key set in which the key of [`token`] is.
fn jwks() -> String {
    json!({"keys": [{"kty": "oct", "alg": "HS256", "kid": "k", "k": URL_SAFE_NO_PAD.encode("secret")}]})
        .to_string()
}

fn token(claims: &Value) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"secret");
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"k"}"#);
    let text = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let signature = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes()));
    format!("{text}.{signature}")
}

fn bearer(claims: &Value) -> String {
    format!("Bearer {}", token(claims))
}

#[test]
fn tokens_and_their_claims_decide() {
    let backend = Backend::start("a");
    let jwt = format!(
        "providers: {{p: {{issuer: i, audiences: [aud], local_jwks: {{inline_string: '{}'}}, payload_in_metadata: \
         payload, forward_payload_header: x-payload, claim_to_headers: [{{header_name: x-sub, claim_name: sub}}], \
         normalize_payload_in_metadata: {{space_delimited_claims: [scope]}}}}}}, bypass_cors_preflight: true, \
         requirement_map: {{strict: {{provider_name: p}}}}, rules: [{{match: {{prefix: /}}, requires: \
         {{requires_any: {{requirements: [{{provider_name: p}}, {{allow_missing: {{}}}}]}}}}}}]",
        jwks()
    );
    // What a RequestAuthentication with an AuthorizationPolicy becomes.
    let rbac = "rules: {action: DENY, policies: {claims: {permissions: [{url_path: {path: {prefix: /admin}}}], \
        principals: [{not_id: {sourced_metadata: {metadata_matcher: {filter: envoy.filters.http.jwt_authn, path: \
        [{key: payload}, {key: scope}], value: {list_match: {one_of: {string_match: {exact: admin}}}}}}}}]}}}";
    let filters =
        [filter("jwt_authn", "jwt_authn.v3.JwtAuthentication", &jwt), filter("rbac", "rbac.v3.RBAC", rbac)];
    let strict = "{match: {prefix: /strict}, route: {cluster: a}, typed_per_filter_config: \
        {envoy.filters.http.jwt_authn: {\"@type\": \
        type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig, requirement_name: strict}}}";
    let (proxy, at) = proxy(&filters, &format!("{strict}, {TO_A}"), &[("a", backend.address)]);

    assert_eq!(get(at, "/", &[("x-sub", "forged")]).status, 200);
    assert!(!backend.next().contains("forged"), "clients cannot set what claims become");
    let good = json!({"iss": "i", "aud": "aud", "sub": "me", "scope": "read admin", "exp": now() + 100});
    assert_eq!(get(at, "/admin", &[("authorization", &bearer(&good))]).status, 200);
    let seen = backend.next();
    assert!(seen.contains("x-sub: me") && seen.contains("x-payload: "), "{seen}");
    assert!(!seen.contains("authorization"), "{seen}");
    assert_eq!(get(at, &format!("/admin?a=b&access_token={}", token(&good)), &[]).status, 200);
    assert!(backend.next().starts_with("GET /admin?a=b HTTP/1.1"));

    let refused = |change: Value, status: u16, body: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = get(at, "/", &[("authorization", &bearer(&claims))]);
        assert_eq!((answer.status, &*answer.body), (status, body));
        assert!(
            answer.head.contains("Bearer realm=\"http://test/\", error=\"invalid_token\""),
            "{}",
            answer.head
        );
    };
    refused(json!({"exp": 1}), 401, "Jwt is expired");
    refused(json!({"iss": "other"}), 401, "Jwt issuer is not configured");
    refused(json!({"aud": "other"}), 403, "Audiences in Jwt are not allowed");
    let missing = get(at, "/strict", &[]);
    assert_eq!((missing.status, &*missing.body), (401, "Jwt is missing"));
    assert!(!missing.head.contains("invalid_token"), "{}", missing.head);

    assert_eq!(get(at, "/admin", &[]).body, "RBAC: access denied");
    let reader = json!({"iss": "i", "aud": "aud", "scope": "read"});
    assert_eq!(get(at, "/admin", &[("authorization", &bearer(&reader))]).status, 403);
    let preflight = [("origin", "http://x"), ("access-control-request-method", "GET")];
    assert_eq!(call(at, "OPTIONS", "/strict", &preflight).unwrap().status, 200);
    assert_eq!(proxy.stat("http.l.jwt_authn.denied"), Some(4));
    assert_eq!(proxy.stat("http.l.jwt_authn.cors_preflight_bypassed"), Some(1));
    assert_eq!(proxy.stat("http.l.rbac.denied"), Some(2));
}

/// An HTTP server that answers everything with this status and body, and counts.
fn server(status: u16, body: String) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while reader.read_line(&mut line).unwrap_or(0) > 0 && line != "\r\n" {
                line.clear();
            }
            counted.fetch_add(1, Relaxed);
            let (mut stream, length) = (stream, body.len());
            let _ = write!(
                stream,
                "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
            );
        }
    });
    (address, count)
}

#[test]
fn keys_are_fetched_once() {
    let backend = Backend::start("a");
    let ((keys, asked), (broken, _)) = (server(200, jwks()), server(500, String::new()));
    let provider = |cluster: &str| {
        format!(
            "{{issuer: {cluster}, remote_jwks: {{http_uri: {{uri: 'http://keys/jwks', cluster: {cluster}, timeout: \
             5s}}, cache_duration: 600s}}}}"
        )
    };
    let jwt = format!(
        "providers: {{keys: {}, broken: {}}}, rules: [{{match: {{prefix: /}}, requires: {{requires_any: {{requirements: \
         [{{provider_name: keys}}, {{provider_name: broken}}]}}}}}}]",
        provider("keys"),
        provider("broken")
    );
    let filters = [filter("jwt_authn", "jwt_authn.v3.JwtAuthentication", &jwt)];
    let clusters = [("a", backend.address), ("keys", keys), ("broken", broken)];
    let (proxy, at) = proxy(&filters, TO_A, &clusters);
    for _ in 0..3 {
        let answer = get(at, "/", &[("authorization", &bearer(&json!({"iss": "keys"})))]);
        assert_eq!((answer.status, &*answer.body), (200, "a"));
    }
    assert_eq!(asked.load(Relaxed), 1);
    let answer = get(at, "/", &[("authorization", &bearer(&json!({"iss": "broken"})))]);
    assert_eq!((answer.status, &*answer.body), (401, "Jwks remote fetch is failed"));
    assert_eq!(proxy.stat("http.l.jwt_authn.jwks_fetch_success"), Some(1));
    assert_eq!(proxy.stat("http.l.jwt_authn.jwks_fetch_failed"), Some(1));
}

#[test]
fn policies_have_conditions_trees_and_shadows() {
    let backend = Backend::start("a");
    let is_post = "condition: {call_expr: {function: _==_, args: [{select_expr: {operand: {ident_expr: {name: \
        request}}, field: method}}, {const_expr: {string_value: POST}}]}}";
    let any = "permissions: [{any: true}], principals: [{any: true}]";
    let conditions = format!(
        "rules: {{action: DENY, policies: {{posts: {{{any}, {is_post}}}}}}}, track_per_rule_stats: true, shadow_rules: \
         {{action: DENY, policies: {{all: {{{any}}}}}}}, shadow_rules_stat_prefix: dry_"
    );
    let action = |name: &str, action: &str| {
        format!(
            "{{action: {{name: x, typed_config: {{\"@type\": type.googleapis.com/envoy.config.rbac.v3.Action, name: \
             {name}, action: {action}}}}}}}"
        )
    };
    let tree = format!(
        "matcher: {{matcher_tree: {{input: {{name: x, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: ':path'}}}}, \
         prefix_match_map: {{map: {{/open: {}, /shut: {}}}}}}}}}",
        action("open", "ALLOW"),
        action("shut", "DENY")
    );
    let filters = [filter("rbac", "rbac.v3.RBAC", &conditions), filter("rbac", "rbac.v3.RBAC", &tree)];
    let (proxy, at) = proxy(&filters, TO_A, &[("a", backend.address)]);
    assert_eq!(get(at, "/open", &[]).status, 200);
    assert_eq!(get(at, "/shut", &[]).status, 403);
    assert_eq!(get(at, "/neither", &[]).status, 403);
    assert_eq!(call(at, "POST", "/open", &[]).unwrap().status, 403);
    assert_eq!(proxy.stat("http.l.rbac.policy.posts.denied"), Some(1));
    assert_eq!(proxy.stat("http.l.rbac.dry_shadow_denied"), Some(4));
}
