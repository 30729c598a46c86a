//! Hosts that requests name, by a session or by a header, and that may not be fit. What is expected was written by Envoy.

use std::net::SocketAddr;

use base64::Engine as _;

use super::setup::{FILTERS, agrees, bootstrap, filter, logged};
use super::support::{Backend, Proxy, call};

const STATE: &str = "{name: envoy.http.stateful_session.header, typed_config: {\"@type\": \
    type.googleapis.com/envoy.extensions.http.stateful_session.header.v3.HeaderBasedSessionState, name: x-session}}";

const STATUSES: [&str; 6] = ["UNKNOWN", "HEALTHY", "UNHEALTHY", "DRAINING", "TIMEOUT", "DEGRADED"];

/// A cluster of one fit host and one of this status.
fn hosts(name: &str, more: &str, fit: SocketAddr, other: SocketAddr, status: &str) -> String {
    let endpoint = |to: SocketAddr, status: &str| {
        format!(
            "{{health_status: {status}, endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}",
            to.ip(),
            to.port()
        )
    };
    format!(
        "  - {{name: {name}, type: STATIC, connect_timeout: 1s, {more}load_assignment: {{cluster_name: {name}, endpoints: \
         [{{lb_endpoints: [{}, {}]}}]}}}}\n",
        endpoint(fit, "HEALTHY"),
        endpoint(other, status)
    )
}

#[test]
fn sessions_whose_host_is_not_fit() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let (mut routes, mut clusters, mut cases) = (String::new(), String::new(), Vec::new());
    for status in STATUSES {
        for (set, allowed) in [
            ("default", ""),
            ("some", ", override_host_status: {statuses: [HEALTHY, DRAINING]}"),
            ("bad", ", override_host_status: {statuses: [DEGRADED]}"),
        ] {
            let name = format!("{status}-{set}");
            let more = format!("common_lb_config: {{healthy_panic_threshold: {{value: 0}}{allowed}}}, ");
            clusters += &hosts(&name, &more, a.address, b.address, status);
            for strict in [false, true] {
                if !strict && ["UNKNOWN", "HEALTHY", "DEGRADED"].contains(&status) {
                    // It may be its turn anyway.
                    continue;
                }
                let path = format!("/{name}/{strict}");
                routes += &format!(
                    "{{match: {{path: {path}}}, route: {{cluster: {name}}}, typed_per_filter_config: {{session: {{\"@type\": \
                     {FILTERS}.stateful_session.v3.StatefulSessionPerRoute, stateful_session: {{strict: {strict}, \
                     session_state: {STATE}}}}}}}}}, "
                );
                cases.push(path);
            }
        }
    }
    let sessions = filter("session", "stateful_session.v3.StatefulSession");
    let proxy = Proxy::ready(&bootstrap(&sessions, &routes, &clusters), &[]);
    let session = base64::engine::general_purpose::STANDARD.encode(b.address.to_string());
    let mut lines = Vec::new();
    for path in cases {
        let answer = call(proxy.listener("l"), "GET", &path, &[("x-session", &session)]).unwrap();
        let set = if answer.head.contains("x-session: ") { " and a new session" } else { "" };
        lines.push(format!("{path}: {} {}{set}", answer.status, answer.body));
        lines.push(format!("  {}", logged(&proxy, lines.len() / 2 + 1)));
    }
    agrees("override_host_sessions", &lines);
}

#[test]
fn hosts_that_headers_name() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let policy = "load_balancing_policy: {policies: [{typed_extension_config: {name: o, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost, override_host_sources: \
        [{header: x-first}, {header: x-second}, {metadata: {key: hosts, path: [{key: to}]}}], \
        selected_host_key: {key: chosen, path: [{key: by}, {key: policy}]}, fallback_policy: {policies: \
        [{typed_extension_config: {name: r, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin}}}]}}}}]}, \
        common_lb_config: {healthy_panic_threshold: {value: 0}}, ";
    let mut clusters: String =
        STATUSES.iter().map(|status| hosts(status, policy, a.address, b.address, status)).collect();
    clusters += &hosts("CLOSED", policy, a.address, closed, "HEALTHY");
    let retry = "retry_policy: {retry_on: connect-failure, num_retries: 1}";
    let mut routes: String = STATUSES
        .iter()
        .map(|status| format!("{{match: {{path: /{status}}}, route: {{cluster: {status}}}}}, "))
        .collect();
    routes += &format!(
        "{{match: {{path: /CLOSED}}, route: {{cluster: CLOSED}}}}, {{match: {{path: /RETRIED}}, route: {{cluster: CLOSED, {retry}}}}}"
    );
    let metadata = filter(
        "metadata",
        "header_to_metadata.v3.Config, request_rules: [{header: x-to, on_header_present: {metadata_namespace: hosts, key: to}}]",
    );
    let told = filter(
        "told",
        "header_mutation.v3.HeaderMutation, mutations: {response_mutations: [{append: {header: {key: x-told, value: \
         \"%DYNAMIC_METADATA(chosen:by:policy)% %UPSTREAM_HOST%\"}}}]}",
    );
    let proxy = Proxy::ready(&bootstrap(&(metadata + &told), &routes, &clusters), &[]);
    let to = proxy.listener("l");
    let mut lines = Vec::new();
    let (there, gone) = (b.address.to_string(), "127.0.0.1:1".to_owned());
    let mut ask = |name: &str, path: &str, head: &[(&str, &str)]| {
        // Were it not for the header, it would be another's turn each time.
        let answers = [(); 2].map(|()| call(to, "GET", path, head).unwrap());
        for answer in &answers {
            let line = answer.head.lines().find_map(|line| line.strip_prefix("x-told: ")).unwrap_or("- -");
            let (told, chosen) = line.split_once(' ').unwrap();
            assert_eq!(told, chosen, "{name}");
        }
        let seen = answers.map(|answer| format!("{} {}", answer.status, answer.body));
        let seen = if seen[0] == seen[1] { seen[0].clone() } else { "in turn".to_owned() };
        lines.push(format!("{name}: {seen}"));
    };
    for status in STATUSES {
        ask(status, &format!("/{status}"), &[("x-first", &there)]);
    }
    ask("the second header", "/HEALTHY", &[("x-second", &there)]);
    ask(
        "one that there is not, and the second header",
        "/HEALTHY",
        &[("x-first", &gone), ("x-second", &there)],
    );
    ask("one that there is not", "/HEALTHY", &[("x-first", &gone)]);
    ask("no address", "/HEALTHY", &[("x-first", "b")]);
    ask("none", "/HEALTHY", &[]);
    ask("metadata", "/HEALTHY", &[("x-to", &there)]);
    ask("a list", "/HEALTHY", &[("x-first", &format!("{gone},{there}"))]);
    ask("a list with a space", "/HEALTHY", &[("x-first", &format!("{gone}, {there}"))]);
    ask(
        "a list, the first of which is not fit",
        "/UNHEALTHY",
        &[("x-first", &format!("{there},{}", a.address))],
    );
    ask("nobody listens", "/CLOSED", &[("x-first", &closed.to_string())]);
    ask(
        "nobody listens, then another of the list",
        "/RETRIED",
        &[("x-first", &format!("{closed},{}", a.address))],
    );
    ask("nobody listens, then whoever is next", "/RETRIED", &[("x-first", &closed.to_string())]);
    agrees("override_host_headers", &lines);
}
