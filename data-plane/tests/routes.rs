//! Routing as the real binary does it: tries, weights, trees, scopes, redirects that are followed here, and what is
//! counted of all this.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use support::{Backend, Proxy, call, wait};

const HCM: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// Makes the tests' requests internal: their `x-envoy-` headers are heeded.
const INTERNAL: &str = "use_remote_address: true, internal_address_config: {cidr_ranges: [{address_prefix: 127.0.0.0, \
    prefix_len: 8}]},";

/// A cluster of one host.
fn cluster(name: &str, address: SocketAddr) -> String {
    format!(
        "{{name: {name}, type: STATIC, connect_timeout: 5s, load_assignment: {{cluster_name: {name}, endpoints: \
         [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}",
        address.ip(),
        address.port()
    )
}

/// A listener whose connection manager has these fields, and whose virtual host `v` has those.
fn bootstrap(manager: &str, host: &str, clusters: &[(&str, SocketAddr)]) -> String {
    let clusters: Vec<String> = clusters.iter().map(|(name, address)| cluster(name, *address)).collect();
    format!(
        "static_resources:\n  listeners:\n  - name: l\n    address: {{socket_address: {{address: 127.0.0.1, \
         port_value: 0}}}}\n    filter_chains: [{{filters: [{{name: state, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config, on_new_connection: \
         [{{object_key: k, factory_key: envoy.string, format_string: {{text_format_source: {{inline_string: there}}}}}}]}}}}, \
         {{name: hcm, typed_config: {{\"@type\": {HCM}, stat_prefix: l, {manager} route_config: {{name: r, \
         virtual_hosts: [{{name: v, domains: [\"*\"], {host}}}]}}, http_filters: [{{name: envoy.filters.http.router, \
         typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]\n  \
         clusters: [{}]\n",
        clusters.join(", ")
    )
}

/// A server that answers its requests one after the other with these, each after so many milliseconds.
fn server(answers: &'static [(u64, &'static str)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let next = next.clone();
            std::thread::spawn(move || one_by_one(stream, answers, &next));
        }
    });
    address
}

fn one_by_one(
    mut stream: TcpStream,
    answers: &[(u64, &str)],
    next: &std::sync::atomic::AtomicUsize,
) -> Option<()> {
    loop {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).ok()? == 0 {
                return None;
            }
            head.push(byte[0]);
        }
        let (delay, answer) = answers.get(next.fetch_add(1, std::sync::atomic::Ordering::SeqCst))?;
        std::thread::sleep(Duration::from_millis(*delay));
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// The head of a response on a connection that stays.
fn ask(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes()).unwrap();
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfine";

#[test]
fn a_slow_try_goes_on_beside_the_next() {
    let slow = server(&[(600, OK), (5000, OK)]);
    let retry = "retry_policy: {retry_on: 5xx, num_retries: 1, per_try_timeout: 0.15s}, timeout: 3s";
    let routes = format!(
        "routes: [{{match: {{prefix: /hedged}}, route: {{cluster: a, {retry}, hedge_policy: \
         {{hedge_on_per_try_timeout: true}}}}}}, {{match: {{prefix: /}}, route: {{cluster: b, {retry}}}}}]"
    );
    let other = server(&[(600, OK), (5000, OK), (600, OK), (5000, OK)]);
    let proxy = Proxy::ready(&bootstrap(INTERNAL, &routes, &[("a", slow), ("b", other)]), &[]);
    let to = proxy.listener("l");
    let answer = call(to, "GET", "/hedged", &[]).unwrap();
    assert_eq!((answer.status, &*answer.body), (200, "fine"), "the first try's response is as good as any");
    assert_eq!(proxy.stat("cluster.a.upstream_rq_retry"), Some(1));
    assert_eq!(proxy.stat("cluster.a.upstream_rq_per_try_timeout"), None, "no try was ended by its limit");
    assert_eq!(call(to, "GET", "/", &[]).unwrap().status, 504);
    let asked = call(to, "GET", "/", &[("x-envoy-hedge-on-per-try-timeout", "true")]).unwrap();
    assert_eq!(asked.status, 200, "by the request's own word");
}

#[test]
fn a_try_under_way_may_bring_what_the_last_did_not() {
    let a = server(&[(400, OK), (0, "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")]);
    let routes = "routes: [{match: {prefix: /}, route: {cluster: a, timeout: 3s, retry_policy: {retry_on: 5xx, \
        num_retries: 1, per_try_timeout: 0.1s}, hedge_policy: {hedge_on_per_try_timeout: true}}}]";
    let proxy = Proxy::ready(&bootstrap("", routes, &[("a", a)]), &[]);
    let answer = call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    // The second one failed, and there is no third; the first still runs.
    assert_eq!(answer.status, 200);
}

#[test]
fn requests_name_headers_that_are_retried() {
    let a = server(&[(0, "HTTP/1.1 200 OK\r\nx-again: 1\r\ncontent-length: 0\r\n\r\n"), (0, OK)]);
    let routes = "routes: [{match: {prefix: /}, route: {cluster: a}}]";
    let proxy = Proxy::ready(&bootstrap(INTERNAL, routes, &[("a", a)]), &[]);
    let headers =
        [("x-envoy-retry-on", "retriable-headers"), ("x-envoy-retriable-header-names", "x-other, x-again")];
    assert_eq!(call(proxy.listener("l"), "GET", "/", &headers).unwrap().body, "fine");
}

#[test]
fn weights_follow_the_runtime_and_hashes() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let routes = "routes: [{match: {prefix: /hash}, route: {hash_policy: [{header: {header_name: x-user}}], \
        weighted_clusters: {use_hash_policy: true, clusters: [{name: a, weight: 50}, {name: b, weight: 50}]}}}, \
        {match: {prefix: /}, route: {weighted_clusters: {runtime_key_prefix: split, clusters: [{name: a, weight: 100}, \
        {name: b, weight: 0}]}}}]";
    let proxy = Proxy::ready(&bootstrap("", routes, &[("a", a.address), ("b", b.address)]), &[]);
    let to = proxy.listener("l");
    assert_eq!(call(to, "GET", "/", &[]).unwrap().body, "a");
    assert_eq!(proxy.admin("POST", "/runtime_modify?split.a=0&split.b=1").status, 200);
    assert_eq!(call(to, "GET", "/", &[]).unwrap().body, "b");
    let mut met = std::collections::BTreeSet::new();
    for user in 0..20 {
        let user = user.to_string();
        let first = call(to, "GET", "/hash", &[("x-user", &user)]).unwrap().body;
        for _ in 0..3 {
            assert_eq!(call(to, "GET", "/hash", &[("x-user", &user)]).unwrap().body, first);
        }
        met.insert(first);
    }
    assert_eq!(met.len(), 2);
}

#[test]
fn routes_match_on_filter_state_and_in_trees() {
    let state = |value: &str, status: u16| {
        format!(
            "{{match: {{prefix: /, filter_state: [{{key: k, string_match: {{exact: {value}}}}}]}}, \
             direct_response: {{status: {status}}}}}"
        )
    };
    let routes = format!("routes: [{}, {}]", state("elsewhere", 201), state("there", 202));
    let proxy = Proxy::ready(&bootstrap("", &routes, &[]), &[]);
    assert_eq!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().status, 202);

    let route = |prefix: &str, status: u16| {
        format!(
            "{{\"@type\": type.googleapis.com/envoy.config.route.v3.Route, match: {{prefix: {prefix}}}, \
             direct_response: {{status: {status}}}}}"
        )
    };
    let tree = format!(
        "matcher: {{matcher_tree: {{input: {{name: i, typed_config: {{\"@type\": \
         type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput, header_name: x-kind}}}}, \
         exact_match_map: {{map: {{one: {{action: {{name: a, typed_config: {}}}}}, two: {{action: {{name: b, \
         typed_config: {{\"@type\": type.googleapis.com/envoy.config.route.v3.RouteList, routes: [{{match: \
         {{prefix: /x}}, direct_response: {{status: 203}}}}, {{match: {{prefix: /}}, direct_response: {{status: \
         205}}}}]}}}}}}}}}}}}}}",
        route("/", 201)
    );
    let proxy = Proxy::ready(&bootstrap("", &tree, &[]), &[]);
    let to = proxy.listener("l");
    for (kind, path, status) in
        [("one", "/", 201), ("two", "/x", 203), ("two", "/", 205), ("three", "/", 404)]
    {
        assert_eq!(call(to, "GET", path, &[("x-kind", kind)]).unwrap().status, status, "{kind} {path}");
    }
}

#[test]
fn virtual_clusters_and_routes_are_counted() {
    let a = server(&[(0, OK), (0, "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"), (0, OK)]);
    let host = "virtual_clusters: [{name: users, headers: [{name: \":path\", string_match: {prefix: /users}}]}], routes: \
        [{match: {prefix: /users}, stat_prefix: them, route: {cluster: a, retry_policy: {retry_on: 5xx}}}, \
        {match: {prefix: /}, route: {cluster: a}}]";
    let proxy = Proxy::ready(&bootstrap("", host, &[("a", a)]), &[]);
    let to = proxy.listener("l");
    assert_eq!(call(to, "GET", "/none", &[]).unwrap().status, 200);
    assert_eq!(call(to, "GET", "/users", &[]).unwrap().status, 200);
    for (stat, count) in [
        ("vhost.v.vcluster.other.upstream_rq_200", 1),
        ("vhost.v.vcluster.users.upstream_rq_total", 2),
        ("vhost.v.vcluster.users.upstream_rq_retry", 1),
        ("vhost.v.vcluster.users.upstream_rq_2xx", 1),
        ("vhost.v.route.them.upstream_rq_retry_success", 1),
        ("vhost.v.route.them.upstream_rq_completed", 1),
    ] {
        assert_eq!(proxy.stat(stat), Some(count), "{stat}");
    }
    let metrics = proxy.admin("GET", "/stats/prometheus?usedonly").body;
    let line = "envoy_vhost_vcluster_upstream_rq_retry{envoy_virtual_host=\"v\",envoy_virtual_cluster=\"users\"} 1\n";
    let sorted = "envoy_vhost_vcluster_upstream_rq_retry{envoy_virtual_cluster=\"users\",envoy_virtual_host=\"v\"} 1\n";
    assert!(metrics.contains(line) || metrics.contains(sorted), "{metrics}");
    assert!(metrics.contains("envoy_vhost_route_upstream_rq_retry{"), "{metrics}");
}

#[test]
fn mirrors_have_headers_hosts_and_traces_of_their_own() {
    let (a, b, collector) = (Backend::start("a"), Backend::start("b"), Backend::start("c"));
    let tracing = "tracing: {random_sampling: {value: 100}, provider: {name: z, typed_config: {\"@type\": \
        type.googleapis.com/envoy.config.trace.v3.ZipkinConfig, collector_cluster: c, collector_endpoint: /spans, \
        collector_endpoint_version: HTTP_JSON}}},";
    let routes = "routes: [{match: {prefix: /}, route: {cluster: a, request_mirror_policies: [{cluster_header: x-copy, \
        trace_sampled: false, host_rewrite_literal: copy.test, request_headers_mutations: [{append: {header: {key: x-copied, \
        value: \"%REQ(:PATH)%\"}}}, {remove: x-secret}]}]}}]";
    let clusters = [("a", a.address), ("b", b.address), ("c", collector.address)];
    let proxy = Proxy::ready(&bootstrap(tracing, routes, &clusters), &[]);
    let headers = [("x-copy", "b"), ("x-secret", "s")];
    assert_eq!(call(proxy.listener("l"), "GET", "/p", &headers).unwrap().body, "a");
    let (original, copy) = (a.next().to_lowercase(), b.next().to_lowercase());
    assert!(original.contains("x-b3-sampled: 1\r\n") && original.contains("x-secret: s\r\n"), "{original}");
    assert!(copy.contains("x-b3-sampled: 0\r\n") && copy.contains("host: copy.test\r\n"), "{copy}");
    assert!(copy.contains("x-copied: /p\r\n") && !copy.contains("x-secret"), "{copy}");
}

#[test]
fn traces_stay_here_where_they_are_to() {
    let (a, collector) = (Backend::start("a"), Backend::start("c"));
    let tracing = "tracing: {random_sampling: {value: 100}, no_context_propagation: true, provider: {name: z, \
        typed_config: {\"@type\": type.googleapis.com/envoy.config.trace.v3.ZipkinConfig, collector_cluster: c, \
        collector_endpoint: /spans, collector_endpoint_version: HTTP_JSON}}},";
    let routes = "routes: [{match: {prefix: /}, route: {cluster: a}}]";
    let clusters = [("a", a.address), ("c", collector.address)];
    let proxy = Proxy::ready(&bootstrap(tracing, routes, &clusters), &[]);
    call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    assert!(!a.next().to_lowercase().contains("x-b3-"));
    assert!(collector.next().contains("\"traceId\""), "but spans are told");
}

#[test]
fn logs_are_opened_anew() {
    let more = "access_log: [{name: f, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: $DIR/log}}],";
    let proxy = Proxy::ready(
        &bootstrap(more, "routes: [{match: {prefix: /}, direct_response: {status: 204}}]", &[]),
        &[],
    );
    let (log, moved) = (proxy.dir.path().join("log"), proxy.dir.path().join("moved"));
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
    call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    wait("a line", || (lines(&log) == 1).then_some(()));
    std::fs::rename(&log, &moved).unwrap();
    assert_eq!(proxy.admin("POST", "/reopen_logs").status, 200);
    call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    wait("a line in the new file", || (lines(&log) == 1).then_some(()));
    assert_eq!(lines(&moved), 1);
}

#[test]
fn a_gradual_drain_closes_few_connections_at_first() {
    let routes = "routes: [{match: {prefix: /}, direct_response: {status: 204}}]";
    let closed = |flags: &[&str]| {
        let proxy = Proxy::ready(&bootstrap("", routes, &[]), flags);
        let mut all: Vec<TcpStream> = (0..20).map(|_| connect(proxy.listener("l"))).collect();
        all.iter_mut().for_each(|stream| assert!(ask(stream, "/").starts_with("HTTP/1.1 204")));
        assert_eq!(proxy.admin("POST", "/drain_listeners?graceful").status, 200);
        wait("the drain", || {
            let mut probe = connect(proxy.listener("l"));
            (ask(&mut probe, "/").contains("connection: close") || flags[1] == "gradual").then_some(())
        });
        all.iter_mut()
            .filter_map(|stream| ask(stream, "/").contains("connection: close").then_some(()))
            .count()
    };
    assert_eq!(closed(&["--drain-strategy", "immediate", "--drain-time-s", "600"]), 20);
    assert!(closed(&["--drain-strategy", "gradual", "--drain-time-s", "600"]) <= 5);
}

#[test]
fn histograms_have_the_bounds_that_are_asked_for() {
    let text = bootstrap("", "routes: [{match: {prefix: /}, direct_response: {status: 204}}]", &[]);
    let stats = "stats_config: {histogram_bucket_settings: [{match: {prefix: http.l.}, buckets: [7, 70]}]}\n";
    let proxy = Proxy::ready(&format!("{stats}{text}"), &[]);
    call(proxy.listener("l"), "GET", "/", &[]).unwrap();
    let metrics = proxy.admin("GET", "/stats/prometheus?usedonly").body;
    let buckets: Vec<&str> =
        metrics.lines().filter(|line| line.starts_with("envoy_http_downstream_rq_time_bucket")).collect();
    assert_eq!(buckets.len(), 3, "{buckets:?}");
    assert!(buckets[0].contains("le=\"7\"") && buckets[1].contains("le=\"70\""), "{buckets:?}");
    let bad = proxy.dir.path().join("bad.yaml");
    std::fs::write(&bad, format!("{}{text}", stats.replace("7, 70", "70, 7"))).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_sail-proxy"))
        .args(["-c", bad.to_str().unwrap(), "--mode", "validate"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("histogram_bucket_settings[0].buckets"), "{said}");
}

#[test]
fn a_response_reaches_a_client_that_still_sends() {
    let routes = "routes: [{match: {prefix: /}, direct_response: {status: 403, body: {inline_string: no}}}]";
    let proxy = Proxy::ready(&bootstrap("", routes, &[]), &[]);
    let mut client = connect(proxy.listener("l"));
    client
        .write_all(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 4000000\r\n\r\n")
        .unwrap();
    // Not all of it: the answer comes before.
    client.write_all(&vec![b'x'; 1_000_000]).unwrap();
    let mut all = String::new();
    client.read_to_string(&mut all).unwrap();
    assert!(all.starts_with("HTTP/1.1 403") && all.ends_with("\r\nno"), "{all}");
}

#[test]
fn redirects_are_followed_here_as_far_as_the_policy_goes() {
    let redirect = |to: &str| {
        format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\nx-told: yes\r\ncontent-length: 0\r\n\r\n")
    };
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let first = leak(redirect("http://other.test/b?q=1"));
    let answers: &'static [(u64, &'static str)] = Box::leak(vec![(0, first); 10].into_boxed_slice());
    let a = server(answers);
    let b = Backend::start("b");
    let policy = |more: &str| format!("internal_redirect_policy: {{max_internal_redirects: 1, {more}}}");
    let predicate = |kind: &str, more: &str| {
        format!(
            "predicates: [{{name: p, typed_config: {{\"@type\": \
             type.googleapis.com/envoy.extensions.internal_redirect.{kind}{more}}}}}]"
        )
    };
    let allow = |name: &str| {
        predicate(
            "allow_listed_routes.v3.AllowListedRoutesConfig",
            &format!(", allowed_route_names: [{name}]"),
        )
    };
    let routes = format!(
        "routes: [{{match: {{prefix: /b}}, name: b, route: {{cluster: b}}}}, \
         {{match: {{prefix: /plain}}, route: {{cluster: a, {}}}}}, \
         {{match: {{prefix: /allowed}}, route: {{cluster: a, {}}}}}, \
         {{match: {{prefix: /refused}}, route: {{cluster: a, {}}}}}, \
         {{match: {{prefix: /codes}}, route: {{cluster: a, {}}}}}, \
         {{match: {{prefix: /off}}, route: {{cluster: a}}}}]",
        policy("response_headers_to_copy: [x-told]"),
        policy(&allow("b")),
        policy(&allow("c")),
        policy("redirect_response_codes: [307]"),
    );
    let proxy = Proxy::ready(&bootstrap("", &routes, &[("a", a), ("b", b.address)]), &[]);
    let to = proxy.listener("l");
    assert_eq!(call(to, "GET", "/plain", &[("x-mine", "1")]).unwrap().body, "b");
    let seen = b.next().to_lowercase();
    for expect in [
        "get /b?q=1 http/1.1\r\n",
        "host: other.test\r\n",
        "x-envoy-original-url: http://test/plain\r\n",
        "x-told: yes\r\n",
        "x-mine: 1\r\n",
    ] {
        assert!(seen.contains(expect), "{expect:?} is missing in {seen}");
    }
    assert_eq!(call(to, "GET", "/allowed", &[]).unwrap().body, "b");
    for path in ["/refused", "/codes", "/off"] {
        assert_eq!(call(to, "GET", path, &[]).unwrap().status, 302, "{path}");
    }
    assert_eq!(proxy.stat("cluster.a.upstream_internal_redirect_succeeded_total"), Some(2));
    assert_eq!(proxy.stat("http.l.passthrough_internal_redirect_predicate"), Some(1));
}

#[test]
fn redirects_in_circles_end() {
    let to_self = "HTTP/1.1 302 Found\r\nlocation: http://test/again\r\ncontent-length: 0\r\n\r\n";
    let cross = "HTTP/1.1 302 Found\r\nlocation: https://test/again\r\ncontent-length: 0\r\n\r\n";
    let a = server(Box::leak(vec![(0, to_self); 10].into_boxed_slice()));
    let b = server(Box::leak(vec![(0, cross); 10].into_boxed_slice()));
    let previous = "predicates: [{name: p, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig}}]";
    let routes = format!(
        "routes: [{{match: {{prefix: /again}}, route: {{cluster: a, internal_redirect_policy: \
         {{max_internal_redirects: 3}}}}}}, {{match: {{prefix: /cross}}, route: {{cluster: b, \
         internal_redirect_policy: {{}}}}}}, {{match: {{prefix: /once}}, route: {{cluster: a, \
         internal_redirect_policy: {{max_internal_redirects: 5, {previous}}}}}}}]"
    );
    let proxy = Proxy::ready(&bootstrap("", &routes, &[("a", a), ("b", b)]), &[]);
    let to = proxy.listener("l");
    assert_eq!(call(to, "GET", "/again", &[]).unwrap().status, 302);
    assert_eq!(proxy.stat("cluster.a.upstream_rq_total"), Some(4));
    assert_eq!(proxy.stat("http.l.passthrough_internal_redirect_too_many_redirects"), Some(1));
    assert_eq!(call(to, "GET", "/cross", &[]).unwrap().status, 302);
    assert_eq!(proxy.stat("http.l.passthrough_internal_redirect_unsafe_scheme"), Some(1));
}

#[test]
fn a_try_that_falls_silent_is_given_up() {
    let a = server(&[(5000, OK), (0, OK)]);
    let routes = "routes: [{match: {prefix: /}, route: {cluster: a, timeout: 10s, retry_policy: {retry_on: 5xx, \
        num_retries: 1, per_try_idle_timeout: 0.1s}}}]";
    let proxy = Proxy::ready(&bootstrap("", routes, &[("a", a)]), &[]);
    assert_eq!(call(proxy.listener("l"), "GET", "/", &[]).unwrap().body, "fine");
    assert_eq!(proxy.stat("cluster.a.upstream_rq_per_try_idle_timeout"), Some(1));
}

#[test]
fn spellings_of_headers_are_kept_both_ways() {
    let a = server(&[(0, "HTTP/1.1 200 OK\r\nX-ReSpOnSe: 1\r\nContent-Length: 4\r\n\r\nfine")]);
    let plain = Backend::start("b");
    let case = "header_key_format: {stateful_formatter: {name: preserve_case, typed_config: {\"@type\": \
        type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig}}}";
    let manager = format!("http_protocol_options: {{{case}}},");
    let routes =
        "routes: [{match: {prefix: /a}, route: {cluster: a}}, {match: {prefix: /}, route: {cluster: b}}]";
    let text = bootstrap(&manager, routes, &[("a", a), ("b", plain.address)])
        .replace(
            "{name: a, type: STATIC,",
            &format!("{{name: a, type: STATIC, http_protocol_options: {{{case}}},"),
        )
        .replace(
            "{name: b, type: STATIC,",
            &format!("{{name: b, type: STATIC, http_protocol_options: {{{case}}},"),
        );
    let proxy = Proxy::ready(&text, &[]);
    let to = proxy.listener("l");
    let answer = call(to, "GET", "/a", &[]).unwrap();
    assert!(answer.head.contains("X-ReSpOnSe: 1\r\n"), "{}", answer.head);
    call(to, "GET", "/b", &[("X-OdD-cAsE", "1")]).unwrap();
    let seen = plain.next();
    assert!(seen.contains("X-OdD-cAsE: 1\r\n"), "{seen}");
}

#[test]
fn scopes_and_their_tables_come_by_discovery() {
    let file =
        |name: &str| format!("{{path_config_source: {{path: $DIR/{name}}}, resource_api_version: V3}}");
    let builder = "scope_key_builder: {fragments: [{header_value_extractor: {name: x-scope, index: 0}}]}";
    let srds = format!(
        "scoped_routes: {{name: s, {builder}, rds_config_source: {}, scoped_rds: {{scoped_rds_config_source: {}}}}}",
        file("rds.yaml"),
        file("srds.yaml")
    );
    let text = bootstrap("", "", &[]);
    let (before, rest) = text.split_once("route_config: ").unwrap();
    let rest = &rest[rest.find(", http_filters").unwrap()..];
    let proxy = Proxy::start(&format!("node: {{id: n, cluster: c}}\n{before}{srds}{rest}"), &[]);
    let put = |name: &str, kind: &str, resources: &[String]| {
        let kind = format!("type.googleapis.com/envoy.config.route.v3.{kind}");
        let each: Vec<String> =
            resources.iter().map(|resource| format!("{{\"@type\": {kind}, {resource}}}")).collect();
        let text = format!("version_info: \"1\"\nresources: [{}]\n", each.join(", "));
        let (new, path) = (proxy.dir.path().join("new"), proxy.dir.path().join(name));
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, path).unwrap();
    };
    let table = |name: &str, status: u16| {
        format!(
            "name: {name}, virtual_hosts: [{{name: v, domains: [\"*\"], routes: [{{match: {{prefix: /}}, \
             direct_response: {{status: {status}}}}}]}}]"
        )
    };
    let scope = |key: &str, table: &str| {
        format!(
            "name: scope-{key}, route_configuration_name: {table}, key: {{fragments: [{{string_key: {key}}}]}}"
        )
    };
    put("rds.yaml", "RouteConfiguration", &[table("one", 201), table("two", 202)]);
    put("srds.yaml", "ScopedRouteConfiguration", &[scope("a", "one"), scope("b", "two")]);
    let to = proxy.listener("l");
    let gives = |key: &str, status: u16| {
        wait(&format!("{status} for {key}"), || {
            (call(to, "GET", "/", &[("x-scope", key)]).ok()?.status == status).then_some(())
        });
    };
    gives("a", 201);
    gives("b", 202);
    gives("c", 404);
    put("srds.yaml", "ScopedRouteConfiguration", &[scope("a", "two"), scope("c", "one")]);
    gives("a", 202);
    gives("c", 201);
    gives("b", 404);
}
