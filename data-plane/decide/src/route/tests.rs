//! Tables as a whole: which virtual host and route a request gets, and in which order headers change.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{
    Action, ClusterSpecifier, HostIndex, MaxStreamDuration, PathMatch, PathRewrite, PerFilter, Priority,
    RequireTls, Route, RouteAction, RouteContext, RouteMatch, RouteTable, Timeouts, VirtualHost,
};
use crate::format::{Attributes, Operator};
use crate::head::{HeaderKey, RequestHead};
use crate::headers::{AddValue, AppendAction, HeaderAdd, HeaderOps};
use crate::matcher::{HeaderMatch, HeaderMatcher, RegexRewrite, StringMatcher};

struct Nothing;

impl Attributes for Nothing {
    fn text(&self, _: &Operator) -> Option<std::borrow::Cow<'_, str>> {
        None
    }
}

fn action(cluster: &str) -> RouteAction {
    RouteAction {
        cluster: ClusterSpecifier::Name(cluster.into()),
        cluster_not_found_status: StatusCode::SERVICE_UNAVAILABLE,
        metadata_match: None,
        path_rewrite: None,
        host_rewrite: None,
        append_x_forwarded_host: false,
        timeout: Some(Duration::from_secs(15)),
        idle_timeout: None,
        flush_timeout: None,
        max_stream_duration: None,
        max_grpc_timeout: None,
        grpc_timeout_offset: None,
        retry: None,
        hedge_on_per_try_timeout: None,
        mirrors: Box::default(),
        priority: Priority::Default,
        hash_policy: Box::default(),
        cors: None,
        upgrades: Box::default(),
        internal_redirect: None,
        rate_limits: Default::default(),
    }
}

fn route(name: &str, matching: RouteMatch) -> Arc<Route> {
    let action = Action::Route(Box::new(action(name)));
    Arc::new(Route { name: name.into(), matching, action, request_headers: set(name), ..Route::to_https() })
}

/// Sets `x-who`.
fn set(who: &str) -> HeaderOps {
    let add = HeaderAdd {
        name: HeaderName::from_static("x-who"),
        value: AddValue::Literal(HeaderValue::from_str(who).unwrap()),
        action: AppendAction::OverwriteIfExistsOrAdd,
        keep_empty_value: false,
    };
    HeaderOps { add: [add].into(), remove: Box::default() }
}

fn table(require_tls: RequireTls, routes: Vec<Arc<Route>>) -> RouteTable {
    let host = VirtualHost {
        name: "host".into(),
        routes: routes.into(),
        require_tls,
        tls_redirect: Some(Arc::new(Route::to_https())),
        request_headers: set("host"),
        response_headers: HeaderOps::default(),
        mirrors: Box::default(),
        retry: None,
        hedge_on_per_try_timeout: None,
        virtual_clusters: Box::default(),
        matcher: None,
        include_request_attempt_count: false,
        include_attempt_count_in_response: false,
        include_is_timeout_retry_header: false,
        request_body_buffer_limit: None,
        cors: None,
        per_filter: PerFilter::default(),
        metadata: None,
        rate_limits: Box::default(),
    };
    let mut hosts = HostIndex::default();
    hosts.insert("a.com", 0).unwrap();
    RouteTable {
        name: "table".into(),
        virtual_hosts: Box::new([Arc::new(host)]),
        hosts,
        host_header: None,
        ignore_port_in_host_matching: false,
        request_headers: set("table"),
        response_headers: HeaderOps::default(),
        most_specific_header_mutations_wins: false,
        internal_only_headers: Box::default(),
        mirrors: Box::default(),
        per_filter: PerFilter::default(),
        ignore_path_parameters: false,
        version: 0,
    }
}

fn head<'a>(path: &'a str, headers: &'a HeaderMap) -> RequestHead<'a> {
    RequestHead { method: "GET", scheme: "http", authority: "a.com", path, protocol: None, headers }
}

#[test]
fn the_first_match_wins() {
    let jason = HeaderMatcher {
        name: HeaderKey::parse("end-user").unwrap(),
        rule: HeaderMatch::String(StringMatcher::exact("jason")),
        invert: false,
        treat_missing_as_empty: false,
    };
    let exact = |path: &str| RouteMatch { path: PathMatch::Exact(path.into()), ..RouteMatch::prefix("") };
    let separated = RouteMatch {
        path: PathMatch::PathSeparatedPrefix("/api".into()),
        case_sensitive: false,
        ..RouteMatch::prefix("")
    };
    let table = table(
        RequireTls::None,
        vec![
            route("jason", RouteMatch { headers: Box::new([jason]), ..RouteMatch::prefix("/reviews") }),
            route("exact", exact("/exact")),
            route("api", separated),
            route("grpc", RouteMatch { grpc: true, ..RouteMatch::prefix("/") }),
            route("rest", RouteMatch::prefix("/reviews")),
        ],
    );
    let check = |path: &str, header: Option<(&'static str, &'static str)>, expected: Option<&str>| {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let found = table.find(&head(path, &headers), &RouteContext::default()).unwrap();
        assert_eq!(found.route.map(|route| &*route.name), expected, "{path} {header:?}");
    };
    check("/reviews/1", Some(("end-user", "jason")), Some("jason"));
    check("/reviews/1", Some(("end-user", "anna")), Some("rest"));
    check("/reviews?x=/exact", None, Some("rest"));
    check("/exact?x", None, Some("exact"));
    check("/exact/", None, None);
    check("/API/x", None, Some("api"));
    check("/apix", None, None);
    check("/any", Some(("content-type", "application/grpc+proto")), Some("grpc"));
    let headers = HeaderMap::new();
    let other = RequestHead { authority: "b.com", ..head("/", &headers) };
    assert!(table.find(&other, &RouteContext::default()).is_none());
}

#[test]
fn what_is_not_tls_is_sent_there() {
    let table = table(RequireTls::All, vec![route("rest", RouteMatch::prefix("/"))]);
    let headers = HeaderMap::new();
    let plain = head("/x?y=1", &headers);
    let found = table.find(&plain, &RouteContext::default()).unwrap();
    let Some(Action::Redirect(redirect)) = found.route.map(|route| &route.action) else {
        panic!("no redirect")
    };
    assert_eq!(redirect.location(&plain, &PathMatch::Prefix("/".into()), &Nothing), "https://a.com/x?y=1");
    let tls = RequestHead { scheme: "https", ..plain };
    let found = table.find(&tls, &RouteContext::default()).unwrap();
    assert_eq!(found.route.map(|route| &*route.name), Some("rest"));
}

#[test]
fn the_table_has_the_last_word_on_headers_unless_told_otherwise() {
    let mut table = table(RequireTls::None, vec![route("route", RouteMatch::prefix("/"))]);
    let who = |table: &RouteTable| {
        let host = &table.virtual_hosts[0];
        let mut headers = HeaderMap::new();
        table
            .request_header_ops(host, &host.routes[0], None)
            .for_each(|ops| ops.apply(&mut headers, &Nothing));
        headers.get("x-who").unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(who(&table), "table");
    table.most_specific_header_mutations_wins = true;
    assert_eq!(who(&table), "route");
}

#[test]
fn rewrites_keep_the_query() {
    let check = |rewrite: &PathRewrite, matched: PathMatch, path: &str, expected: &str| {
        assert_eq!(rewrite.apply(path, &matched, &Nothing).as_deref(), Some(expected));
    };
    let prefix = PathRewrite::Prefix("/new".into());
    check(&prefix, PathMatch::Prefix("/old".into()), "/old/x?q=/old", "/new/x?q=/old");
    check(&prefix, PathMatch::Exact("/old".into()), "/old?q", "/new?q");
    let regex = PathRewrite::Regex(RegexRewrite::new("^/v([0-9])", r"/version/\1").unwrap());
    check(&regex, PathMatch::Prefix("/".into()), "/v1/x?a=/v1", "/version/1/x?a=/v1");
}

#[test]
fn timeouts() {
    let mut headers = HeaderMap::new();
    let seconds = Duration::from_secs;
    let all = |action: &RouteAction, headers: &HeaderMap| action.timeouts(&head("/", headers), None, false);
    let plain = action("c");
    assert_eq!(all(&plain, &headers), Timeouts { global: Some(seconds(15)), ..Timeouts::default() });
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-timeout", HeaderValue::from_static("5S"));
    assert_eq!(
        all(&plain, &headers).global,
        Some(seconds(15)),
        "grpc-timeout is heeded where that is configured"
    );
    let heeding = RouteAction { timeout: None, max_grpc_timeout: Some(Duration::ZERO), ..action("c") };
    assert_eq!(all(&heeding, &headers).global, Some(seconds(5)));
    let capped = RouteAction { max_grpc_timeout: Some(seconds(2)), ..action("c") };
    assert_eq!(all(&capped, &headers).global, Some(seconds(2)));
    let stream =
        MaxStreamDuration { grpc_timeout_header_max: Some(Duration::ZERO), ..MaxStreamDuration::default() };
    let stream = RouteAction { max_stream_duration: Some(stream), ..action("c") };
    // Where the stream is limited, nothing else is.
    assert_eq!(all(&stream, &headers), Timeouts::default());
    assert_eq!(stream.stream_limit(&head("/", &headers)), Some(Some(seconds(5))));
    headers.remove("grpc-timeout");
    assert_eq!(stream.stream_limit(&head("/", &headers)), None, "left to the connection manager");
    assert_eq!(plain.stream_limit(&head("/", &headers)), None);
}

#[test]
fn an_earlier_proxys_expectation_stands_above_where_it_is_respected() {
    let mut headers = HeaderMap::new();
    headers.insert("x-envoy-upstream-rq-timeout-ms", HeaderValue::from_static("700"));
    headers.insert("x-envoy-expected-rq-timeout-ms", HeaderValue::from_static("300"));
    headers.insert("x-envoy-upstream-rq-timeout-alt-response", HeaderValue::from_static(""));
    let all = |respected| action("c").timeouts(&head("/", &headers), None, respected);
    assert_eq!(all(false).global, Some(Duration::from_millis(700)));
    assert_eq!(all(true).global, Some(Duration::from_millis(300)));
    assert!(all(true).quiet);
}
