//! Tokens: keys from elsewhere that grow old, and rules by filter state.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::h2::{self, Message, call};
use super::setup::{APP, HTTP2, agrees, cluster, filter, line, mirror, proxy};
use super::support::wait;

fn bearer(issuer: &str) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"secret");
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"k"}"#);
    let text = format!("{header}.{}", URL_SAFE_NO_PAD.encode(json!({"iss": issuer}).to_string()));
    format!("Bearer {text}.{}", URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, text.as_bytes())))
}

fn keys() -> String {
    json!({"keys": [{"kty": "oct", "alg": "HS256", "kid": "k", "k": URL_SAFE_NO_PAD.encode("secret")}]})
        .to_string()
}

/// Has keys when it is asked for the first time, and none from then on.
fn failing() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let address = h2::serve(move |_| match count.fetch_add(1, Relaxed) {
        0 => Message { status: 200, body: keys().into(), ..Default::default() },
        _ => Message { status: 503, body: b"no".to_vec(), ..Default::default() },
    });
    (address, asked)
}

#[test]
fn keys_that_cannot_be_renewed() {
    let mut seen = Vec::new();
    for (case, more) in [("when asked", ""), ("ahead", ", async_fetch: {failed_refetch_duration: 0.2s}")] {
        let (service, asked) = failing();
        let app = mirror(&[], |_| Message::default());
        let config = format!(
            "jwt_authn.v3.JwtAuthentication, providers: {{p: {{issuer: i, remote_jwks: {{http_uri: {{uri: \
             \"http://keys/jwks\", cluster: keys, timeout: 5s}}, cache_duration: 1s{more}}}}}}}, rules: [{{match: \
             {{prefix: /}}, requires: {{provider_name: p}}}}]"
        );
        let clusters = cluster("app", &[app], HTTP2) + &cluster("keys", &[service], HTTP2);
        let proxy = proxy(&filter("jwt", &config), APP, &clusters);
        let token = bearer("i");
        let ask = || call(proxy.listener("l"), "GET", "/", &[("authorization", &token)], &[], &[]);
        seen.push(line(&format!("{case}, at first"), &ask(), &[]));
        let later = wait("another fetch", || {
            let answer = ask();
            (asked.load(Relaxed) >= 3).then_some(answer)
        });
        seen.push(line(&format!("{case}, when there are no more"), &later, &[]));
    }
    agrees("jwt_stale", &seen);
}

#[test]
fn filter_state_may_say_what_is_needed() {
    let app = mirror(&[], |_| Message::default());
    let set = "set_filter_state.v3.Config, on_request_headers: [{object_key: wanted, factory_key: envoy.string, \
               format_string: {text_format_source: {inline_string: \"%REQ(x-wanted)%\"}}}]";
    let config = format!(
        "jwt_authn.v3.JwtAuthentication, providers: {{p: {{issuer: i, local_jwks: {{inline_string: '{}'}}}}, q: {{issuer: \
         j, local_jwks: {{inline_string: '{}'}}}}}}, filter_state_rules: {{name: wanted, requires: {{one: {{provider_name: \
         p}}, two: {{provider_name: q}}}}}}",
        keys(),
        keys()
    );
    let filters = filter("set", set) + &filter("jwt", &config);
    let proxy = proxy(&filters, APP, &cluster("app", &[app], HTTP2));
    let mut seen = Vec::new();
    for (wanted, issuer) in [("one", "i"), ("one", "j"), ("two", "j"), ("none", ""), ("one", "")] {
        let token = bearer(issuer);
        let mut head = vec![("x-wanted", wanted)];
        if !issuer.is_empty() {
            head.push(("authorization", &*token));
        }
        let answer = call(proxy.listener("l"), "GET", "/", &head, &[], &[]);
        seen.push(line(&format!("{wanted} {issuer}"), &answer, &["www-authenticate"]));
    }
    agrees("jwt_filter_state", &seen);
}
