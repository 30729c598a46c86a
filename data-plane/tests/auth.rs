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
        "node: {{id: test, cluster: c}}\nstatic_resources:\n  listeners:\n  - name: l\n    address: \
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
#[test]
fn tokens_that_are_not_good_are_told_of() {
    let backend = Backend::start("a");
    let jwt = |fields: &str| {
        let rules = format!("requires: {{extract_only_without_validation: {{{fields}}}}}");
        filter(
            "jwt_authn",
            "jwt_authn.v3.JwtAuthentication",
            &format!(
                "providers: {{p: {{issuer: i, local_jwks: {{inline_string: '{}'}}, forward: true, claim_to_headers: \
                 [{{header_name: x-sub, claim_name: sub}}]}}}}, rules: [{{match: {{prefix: /}}, {rules}}}]",
                jwks()
            ),
        )
    };
    let claims = |change: Value| {
        let mut claims = json!({"iss": "i", "sub": "me", "exp": now() + 100});
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        bearer(&claims)
    };
    for (fields, name) in [("", "x-jwt-signature-verified"), ("verification_status_header: x-seen", "x-seen")]
    {
        let (_proxy, at) = proxy(&[jwt(fields)], TO_A, &[("a", backend.address)]);
        let good = claims(json!({}));
        let bad = [
            format!("{good}AAAA"),
            claims(json!({"exp": 1})),
            claims(json!({"iss": "other"})),
            "Bearer abc".to_owned(),
        ];
        let seen = |token: Option<&str>| {
            let token = token.map(|token| ("authorization", token));
            let own = [("x-sub", "own"), (name, "true")];
            let headers: Vec<_> = token.into_iter().chain(own).collect();
            assert_eq!(get(at, "/", &headers).status, 200, "{token:?}");
            backend.next()
        };
        // What is not known to be good is told to nobody.
        for token in bad {
            let seen = seen(Some(&token));
            assert!(seen.contains(&format!("{name}: false")) && !seen.contains("true"), "{seen}");
            assert!(!seen.contains("x-sub") && seen.contains(&token), "{seen}");
        }
        // As in Envoy, the client's own word stays where there is nothing to say against it.
        let with = seen(Some(&good));
        assert!(with.contains("x-sub: me") && with.contains(&format!("{name}: true")), "{with}");
        let without = seen(None);
        assert!(!without.contains("x-sub") && without.contains(&format!("{name}: true")), "{without}");
    }
}

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
    assert_eq!(proxy.stat("http.l.rbac.dry_.shadow_denied"), Some(4));
}

#[test]
fn users_and_keys_are_asked_for() {
    let backend = Backend::start("a");
    let basic =
        "users: {inline_string: 'ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ='}, forward_username_header: x-user";
    let keys = "credentials: [{key: k1, client: one}], key_sources: [{header: x-key}, {query: key}], \
        forwarding: {header: x-client, hide_credentials: true}";
    let filters = [
        filter("basic_auth", "basic_auth.v3.BasicAuth", basic),
        filter("api_key_auth", "api_key_auth.v3.ApiKeyAuth", keys),
    ];
    let off = "{match: {prefix: /free}, route: {cluster: a}, typed_per_filter_config: {envoy.filters.http.basic_auth: \
        {\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, disabled: true}}}";
    let (proxy, at) = proxy(&filters, &format!("{off}, {TO_A}"), &[("a", backend.address)]);
    let user = ("authorization", "Basic YW5uOnNlY3JldA==");
    assert_eq!(get(at, "/?key=k1&b", &[user]).status, 200);
    let seen = backend.next();
    assert!(seen.starts_with("GET /?b HTTP/1.1") && seen.contains("x-user: ann"), "{seen}");
    assert!(seen.contains("x-client: one"), "{seen}");
    let answer = get(at, "/", &[("x-key", "k1")]);
    assert_eq!(answer.body, "User authentication failed. Missing username and password.");
    assert!(answer.head.contains("Basic realm=\"http://test/\""), "{}", answer.head);
    assert_eq!(get(at, "/free", &[("x-key", "k2")]).status, 401);
    assert_eq!(get(at, "/free", &[("x-key", "k1")]).status, 200);
    assert_eq!(proxy.stat("http.l.basic_auth.denied"), Some(1));
    assert_eq!(proxy.stat("http.l.api_key_auth.unauthorized"), Some(1));
}

#[test]
fn origins_loops_and_tags_are_seen() {
    let backend = Backend::start("a");
    let always = "filter_enabled: {default_value: {numerator: 100}}";
    let tags = "ip_tags: [{ip_tag_name: home, ip_list: [{address_prefix: 127.0.0.0, prefix_len: 8}]}]";
    let filters = [
        filter("csrf", "csrf.v3.CsrfPolicy", always),
        filter("cdn_loop", "cdn_loop.v3.CdnLoopConfig", "cdn_id: us"),
        filter("ip_tagging", "ip_tagging.v3.IPTagging", tags),
    ];
    let (proxy, at) = proxy(&filters, TO_A, &[("a", backend.address)]);
    assert_eq!(call(at, "POST", "/", &[("origin", "http://test")]).unwrap().status, 200);
    let seen = backend.next();
    assert!(seen.contains("cdn-loop: us") && seen.contains("x-envoy-ip-tags: home"), "{seen}");
    let foreign = call(at, "POST", "/", &[("origin", "http://evil")]).unwrap();
    assert_eq!((foreign.status, &*foreign.body), (403, "Invalid origin"));
    assert_eq!(get(at, "/", &[("cdn-loop", "them, us")]).status, 502);
    assert_eq!(get(at, "/", &[("cdn-loop", "a b")]).status, 400);
    assert_eq!(proxy.stat("http.l.csrf.request_invalid"), Some(1));
    assert_eq!(proxy.stat("http.l.ip_tagging.home.hit"), Some(1));
}

#[test]
fn metadata_are_set_and_decided_by() {
    let backend = Backend::start("a");
    let headers = "request_rules: [{header: x-role, on_header_present: {metadata_namespace: ns, key: role}, \
        on_header_missing: {metadata_namespace: ns, key: role, value: none}, remove: true}]";
    let fixed = "metadata: [{metadata_namespace: other, value: {kind: fixed}}, {metadata_namespace: ns, value: \
        {role: never}}]";
    let is = |namespace: &str, key: &str, value: &str| {
        format!(
            "{{metadata: {{filter: {namespace}, path: [{{key: {key}}}], value: {{string_match: {{exact: {value}}}}}}}}}"
        )
    };
    let rules = format!(
        "rules: {{action: ALLOW, policies: {{p: {{permissions: [{}], principals: [{}]}}}}}}",
        is("other", "kind", "fixed"),
        is("ns", "role", "admin")
    );
    let filters = [
        filter("header_to_metadata", "header_to_metadata.v3.Config", headers),
        filter("set_metadata", "set_metadata.v3.Config", fixed),
        filter("rbac", "rbac.v3.RBAC", &rules),
    ];
    let (proxy, at) = proxy(&filters, TO_A, &[("a", backend.address)]);
    assert_eq!(get(at, "/", &[("x-role", "admin")]).status, 200);
    assert!(!backend.next().contains("x-role"));
    assert_eq!(get(at, "/", &[]).status, 403);
    assert_eq!(proxy.stat("http.l.set_metadata.overwrite_denied"), Some(2));
}

#[test]
fn health_checks_are_answered() {
    let backend = Backend::start("a");
    let (broken, asked) = server(500, String::new());
    let checks = |path: &str, fields: &str| {
        let fields = format!("headers: [{{name: ':path', string_match: {{exact: {path}}}}}], {fields}");
        filter("health_check", "health_check.v3.HealthCheck", &fields)
    };
    let filters = [
        checks("/health", "pass_through_mode: false"),
        checks("/cluster", "pass_through_mode: false, cluster_min_healthy_percentages: {a: {value: 50}}"),
        checks("/nobody", "pass_through_mode: false, cluster_min_healthy_percentages: {empty: {value: 50}}"),
        checks("/cached", "pass_through_mode: true, cache_time: 600s"),
    ];
    let to_broken = "{match: {path: /cached}, route: {cluster: broken}}";
    let clusters = [("a", backend.address), ("broken", broken)];
    let (proxy, at) = proxy(&filters, &format!("{to_broken}, {TO_A}"), &clusters);
    assert_eq!(get(at, "/health", &[]).status, 200);
    assert_eq!(get(at, "/cluster", &[]).status, 200);
    assert_eq!(get(at, "/nobody", &[]).status, 503);
    assert_eq!((get(at, "/cached", &[]).status, get(at, "/cached", &[]).status), (500, 500));
    assert_eq!(asked.load(Relaxed), 1);
    proxy.admin("POST", "/healthcheck/fail");
    let failing = get(at, "/health", &[]);
    assert_eq!(failing.status, 503);
    assert!(failing.head.contains("x-envoy-immediate-health-check-fail: true"), "{}", failing.head);
    let other = get(at, "/other", &[]);
    assert_eq!(other.status, 200);
    assert!(other.head.contains("x-envoy-immediate-health-check-fail: true"), "{}", other.head);
    proxy.admin("POST", "/healthcheck/ok");
    assert_eq!(get(at, "/health", &[]).status, 200);
}

#[test]
fn failing_and_slow_upstreams_get_less() {
    let backend = Backend::start("a");
    let (broken, _) = server(500, String::new());
    let (large, _) = server(200, "x".repeat(3 * 1024));
    let off = |name: &str| {
        format!(
            "envoy.filters.http.{name}: {{\"@type\": type.googleapis.com/envoy.config.route.v3.FilterConfig, \
             disabled: true}}"
        )
    };
    let admission = "success_criteria: {}, max_rejection_probability: {default_value: {value: 100}}";
    let bandwidth = "stat_prefix: b, enable_mode: RESPONSE, limit_kbps: 2";
    let adaptive = "gradient_controller_config: {concurrency_limit_params: {concurrency_update_interval: 0.1s}, \
        min_rtt_calc_params: {interval: 60s, request_count: 5}}";
    let filters = [
        filter("admission_control", "admission_control.v3.AdmissionControl", admission),
        filter("bandwidth_limit", "bandwidth_limit.v3.BandwidthLimit", bandwidth),
        filter("adaptive_concurrency", "adaptive_concurrency.v3.AdaptiveConcurrency", adaptive),
        filter(
            "header_mutation",
            "header_mutation.v3.HeaderMutation",
            "mutations: {query_parameter_mutations: [{append: {record: {key: added, value: '%REQ(:METHOD)%'}}}]}",
        ),
    ];
    let route = |path: &str, cluster: &str, off: &str| {
        format!(
            "{{match: {{path: {path}}}, route: {{cluster: {cluster}}}, typed_per_filter_config: {{{off}}}}}"
        )
    };
    let routes = [
        route("/broken", "broken", &off("bandwidth_limit")),
        route("/large", "large", &off("admission_control")),
        route("/", "a", &off("admission_control")),
    ];
    let clusters = [("a", backend.address), ("broken", broken), ("large", large)];
    let (proxy, at) = proxy(&filters, &routes.join(", "), &clusters);

    assert_eq!(get(at, "/?x", &[]).status, 200);
    assert!(backend.next().starts_with("GET /?added=GET&x= HTTP/1.1"));
    let began = std::time::Instant::now();
    assert_eq!(get(at, "/large", &[]).body.len(), 3 * 1024);
    assert!(
        began.elapsed() >= std::time::Duration::from_millis(400),
        "1 KiB over the bucket takes half a second"
    );
    assert!(proxy.stat("b.http_bandwidth_limit.response_enforced").unwrap() > 0);
    let mut refused = 0;
    for _ in 0..40 {
        refused += usize::from(get(at, "/broken", &[]).status == 503);
    }
    assert!(refused > 5, "{refused} of 40 requests to a broken upstream were refused");
    assert_eq!(proxy.stat("http.l.admission_control.rq_rejected"), Some(refused.try_into().unwrap()));
    let limit = proxy.stat("http.l.adaptive_concurrency.gradient_controller.concurrency_limit");
    assert!(limit.is_some_and(|limit| limit >= 3), "{limit:?}");
}
