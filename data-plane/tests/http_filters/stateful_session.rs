//! Sessions that stay with their hosts.

use super::setup::{FILTERS, cluster, filter, proxy};
use super::support::{Answer, Backend, Proxy, call};

const STATE: &str = "type.googleapis.com/envoy.extensions.http.stateful_session";

fn session(state: &str, more: &str) -> String {
    format!(
        "stateful_session.v3.StatefulSession, stat_prefix: s, {more} session_state: {{name: s, typed_config: {{\"@type\": \
         {STATE}.{state}}}}}"
    )
}

/// Two hosts in turn, and a route without sessions.
fn with_hosts(config: &str, hosts: &[&Backend]) -> Proxy {
    let hosts: Vec<_> = hosts.iter().map(|host| host.address).collect();
    let routes = format!(
        "{{match: {{prefix: /off}}, route: {{cluster: app}}, typed_per_filter_config: {{session: {{\"@type\": \
         {FILTERS}.stateful_session.v3.StatefulSessionPerRoute, disabled: true}}}}}}, {{match: {{prefix: /}}, route: \
         {{cluster: app}}}}"
    );
    proxy(&filter("session", config), &routes, &cluster("app", &hosts, ""))
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// Base64 of what stays the same in a test.
fn base64(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[test]
fn cookies_lead_to_the_host_that_served_before() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let config = session(
        "cookie.v3.CookieBasedSessionState, cookie: {name: sticky, ttl: 60s, path: /p, attributes: [{name: SameSite, \
         value: None}]}",
        "",
    );
    let proxy = with_hosts(&config, &[&a, &b]);
    let address = proxy.listener("l");
    let first = call(address, "GET", "/p/x", &[]).unwrap();
    let set = header(&first, "set-cookie").unwrap();
    assert!(set.ends_with("; Max-Age=60; Path=/p; SameSite=None; HttpOnly"), "{set}");
    let cookie = set.split(';').next().unwrap().to_owned();
    for _ in 0..4 {
        let again = call(address, "GET", "/p", &[("cookie", &cookie)]).unwrap();
        assert_eq!((&again.body, header(&again, "set-cookie")), (&first.body, None));
    }
    let all: Vec<_> = (0..4).map(|_| call(address, "GET", "/off", &[("cookie", &cookie)]).unwrap()).collect();
    assert!(all.iter().any(|answer| answer.body != first.body));
    assert!(all.iter().all(|answer| header(answer, "set-cookie").is_none()));
    assert_eq!(header(&call(address, "GET", "/other", &[]).unwrap(), "set-cookie"), None, "another path");
    // A cookie that ran out in 1970, and a host that there is not: another host serves, and is told.
    for bad in ["Cg4xMjcuMC4wLjE6OTk5ORAB".to_owned(), base64("127.0.0.1:1")] {
        let answer = call(address, "GET", "/p", &[("cookie", &format!("sticky={bad}"))]).unwrap();
        assert_eq!(answer.status, 200);
        assert!(header(&answer, "set-cookie").is_some());
    }
    assert_eq!(proxy.stat("http.in.stateful_session.s.routed"), Some(4));
    assert_eq!(proxy.stat("http.in.stateful_session.s.failed_open"), Some(3));
    assert_eq!(proxy.stat("http.in.stateful_session.s.no_session"), Some(1));
}

#[test]
fn strict_sessions_have_no_other_host() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let more = "strict: true, status_on_strict_destination_not_found: 410,";
    let proxy = with_hosts(&session("header.v3.HeaderBasedSessionState, name: x-session", more), &[&a, &b]);
    let address = proxy.listener("l");
    let first = call(address, "GET", "/", &[]).unwrap();
    let value = header(&first, "x-session").unwrap().to_owned();
    for _ in 0..3 {
        let again = call(address, "GET", "/", &[("x-session", &value)]).unwrap();
        assert_eq!((&again.body, header(&again, "x-session")), (&first.body, None));
    }
    let gone = call(address, "GET", "/", &[("x-session", &base64("127.0.0.1:1"))]).unwrap();
    assert_eq!((gone.status, &*gone.body), (410, "no healthy upstream"));
    assert_eq!(proxy.stat("http.in.stateful_session.s.failed_closed"), Some(1));
}

#[test]
fn envelopes_hold_the_upstreams_own_value() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let config = session("envelope.v3.EnvelopeSessionState, header: {name: x-own}", "");
    let mutate = filter(
        "own",
        "header_mutation.v3.HeaderMutation, mutations: {response_mutations: [{append: {header: {key: x-own, value: \
         mine}}}]}",
    );
    let hosts = [a.address, b.address];
    let filters = filter("session", &config) + &mutate;
    let proxy = proxy(&filters, super::setup::APP, &cluster("app", &hosts, ""));
    let address = proxy.listener("l");
    let first = call(address, "GET", "/", &[]).unwrap();
    let value = header(&first, "x-own").unwrap().to_owned();
    let served = if first.body == "a" { &a } else { &b };
    assert_eq!(value, format!("{};UV:{}", base64(&served.address.to_string()), base64("mine")));
    served.next();
    for _ in 0..3 {
        assert_eq!(call(address, "GET", "/", &[("x-own", &value)]).unwrap().body, first.body);
        assert!(served.next().contains("x-own: mine\r\n"));
    }
}
