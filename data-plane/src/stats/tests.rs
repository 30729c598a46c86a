//! What is written is what is read, over workers, resets and renderings.

use regex::Regex;

use super::sets::{cluster, http, istio_http};
use super::{
    BOUNDS, Buckets, Query, Rules, Scope, Store, TagRule, attach_worker, prometheus, set_workers, text,
};

fn used() -> Query {
    Query { used_only: true, ..Query::default() }
}

#[test]
fn shards_add_up_and_outlive_their_threads() {
    set_workers(2);
    let store = Store::new();
    let scope: Scope<cluster::Set> = store.scope("outbound|9080||reviews.default.svc.cluster.local");
    std::thread::scope(|threads| {
        for worker in 0..2 {
            let scope = scope.clone();
            threads.spawn(move || {
                attach_worker(worker);
                for _ in 0..1000 {
                    scope.inc(cluster::upstream_rq_total);
                }
                scope.move_by(cluster::upstream_rq_active, 2);
                scope.move_by(cluster::upstream_rq_active, -3);
                scope.record(cluster::upstream_rq_time, 7);
                scope.code(503);
            });
        }
    });
    scope.inc(cluster::upstream_rq_total);
    assert_eq!(scope.counter(cluster::upstream_rq_total), 2001);
    assert_eq!(scope.gauge(cluster::upstream_rq_active), -2);
    assert_eq!(scope.buckets(cluster::upstream_rq_time).count(), 2);
    let out = text(&store, &Rules::default(), &used());
    assert!(
        out.contains("cluster.outbound|9080||reviews.default.svc.cluster.local.upstream_rq_503: 2\n"),
        "{out}"
    );

    store.reset_counters();
    assert_eq!(scope.counter(cluster::upstream_rq_total), 0);
    scope.inc(cluster::upstream_rq_total);
    assert_eq!(scope.counter(cluster::upstream_rq_total), 1);
    assert_eq!(scope.gauge(cluster::upstream_rq_active), -2, "gauges are not reset");
}

#[test]
fn a_scope_lives_as_long_as_its_holders() {
    let store = Store::new();
    let first: Scope<cluster::Set> = store.scope("a");
    first.inc(cluster::upstream_cx_total);
    let again: Scope<cluster::Set> = store.scope("a");
    drop(first);
    assert_eq!(again.counter(cluster::upstream_cx_total), 1);
    drop(again);
    assert_eq!(text(&store, &Rules::default(), &Query::default()), "");
    let new: Scope<cluster::Set> = store.scope("a");
    assert_eq!(new.counter(cluster::upstream_cx_total), 0);
}

#[test]
fn a_used_gauge_of_zero_is_listed() {
    let store = Store::new();
    let gauge = store.gauge("server.state");
    let query = Query { filter: Some(Regex::new(r"^server\.state$").unwrap()), ..used() };
    assert_eq!(text(&store, &Rules::default(), &query), "");
    gauge.set(super::sets::single_gauge::value, 0);
    assert_eq!(text(&store, &Rules::default(), &query), "server.state: 0\n");
}

#[test]
fn prometheus_has_envoys_labels() {
    let store = Store::new();
    let cluster: Scope<cluster::Set> = store.scope("outbound|80||a.b");
    cluster.inc(cluster::upstream_rq_2xx);
    cluster.code(200);
    let http: Scope<http::Set> = store.scope("ingress_http");
    http.record(http::downstream_rq_time, 3);
    let out = prometheus(&store, &Rules::default(), &used());
    for line in [
        "# TYPE envoy_cluster_upstream_rq_xx counter",
        r#"envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="outbound|80||a.b"} 1"#,
        r#"envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="outbound|80||a.b"} 1"#,
        r#"envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="ingress_http",le="1"} 0"#,
        r#"envoy_http_downstream_rq_time_bucket{envoy_http_conn_manager_prefix="ingress_http",le="5"} 1"#,
        r#"envoy_http_downstream_rq_time_sum{envoy_http_conn_manager_prefix="ingress_http"} 3"#,
    ] {
        assert!(out.lines().any(|l| l == line), "{line} is not in\n{out}");
    }
}

fn rule(name: &str, regex: &str) -> TagRule {
    TagRule::Regex(name.to_owned(), fancy_regex::Regex::new(regex).unwrap())
}

/// Istio's bootstrap has one that looks ahead.
#[test]
fn a_tag_may_look_ahead() {
    let store = Store::new();
    let stats: Scope<cluster::Set> = store.scope("a");
    stats.inc(cluster::upstream_rq_2xx);
    let tags = vec![
        rule("cluster_name", r"^cluster(?=\.).*?\.?((\w+?)\.)(?!x)"),
        rule("code", r"_rq(_(?=2)(\dxx))$"),
    ];
    let out = prometheus(&store, &Rules { tags, defaults: false, ..Rules::default() }, &used());
    assert!(out.ends_with("envoy_cluster_upstream_rq{cluster_name=\"a\",code=\"2xx\"} 1\n"), "{out}");
}

#[test]
fn prometheus_follows_the_bootstraps_tags() {
    let store = Store::new();
    let cluster: Scope<cluster::Set> = store.scope("outbound|80||a.default.svc.cluster.local");
    cluster.inc(cluster::upstream_rq_2xx);
    let rules = Rules {
        tags: vec![
            rule("cluster_name", r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)"),
            rule("response_code_class", r"_rq(_(\dxx))$"),
        ],
        defaults: false,
        ..Rules::default()
    };
    let out = prometheus(&store, &rules, &used());
    assert_eq!(
        out,
        "# TYPE envoy_cluster_upstream_rq counter\nenvoy_cluster_upstream_rq{cluster_name=\
         \"outbound|80||a.default.svc.cluster.local\",response_code_class=\"2xx\"} 1\n"
    );
}

#[test]
fn label_sets_are_printed_as_they_are() {
    let store = Store::new();
    store
        .pinned::<istio_http::Set>(r#"reporter="source",response_code="200""#)
        .inc(istio_http::requests_total);
    let out = prometheus(&store, &Rules::default(), &used());
    assert_eq!(
        out,
        "# TYPE istio_requests_total counter\nistio_requests_total{reporter=\"source\",response_code=\"200\"} 1\n"
    );
}

#[test]
fn quantiles_lie_within_their_bucket() {
    let store = Store::new();
    let histogram = store.histogram("h");
    for value in 1..=100 {
        histogram.record(super::sets::single_histogram::value, value);
    }
    let buckets = histogram.buckets(super::sets::single_histogram::value);
    for (q, expect) in [(0.25, 25.0), (0.5, 50.0), (0.99, 99.0)] {
        let value = buckets.quantile(q);
        assert!((value - expect).abs() <= 1.0, "{q}: {value}");
    }
    assert_eq!(Buckets::default().quantile(0.5), 0.0);
    assert!(BOUNDS.is_sorted());
    for (label, place) in super::histogram::DEFAULT {
        let bound: f64 = label.parse().unwrap();
        assert_eq!(bound.floor() as u64, BOUNDS[place]);
    }
}
