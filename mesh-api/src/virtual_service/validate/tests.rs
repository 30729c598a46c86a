//! What is refused, and what is only warned of.

use serde_json::{Value, json};

/// The findings for a spec, errors first.
fn findings(spec: &str) -> Vec<String> {
    let spec: Value = serde_norway::from_str(spec).expect("yaml");
    let manifest = json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "x", "namespace": "y"},
        "spec": spec,
    });
    match crate::check(&manifest) {
        Ok((_, warnings)) => warnings.iter().map(|w| format!("warning {w}")).collect(),
        Err(crate::Error::Invalid { fields, .. }) => fields.iter().map(ToString::to_string).collect(),
        Err(other) => panic!("{other}"),
    }
}

#[track_caller]
fn check(spec: &str, expect: &[&str]) {
    assert_eq!(findings(spec), expect, "{spec}");
}

const TO_A: &str = "route: [{destination: {host: a}}]";

fn route(fields: &str) -> String {
    format!("{{hosts: [a], http: [{{{fields}}}]}}")
}

#[test]
fn hosts_and_routes_are_needed() {
    check("{hosts: [a]}", &["spec: http, tls or tcp must be set: there are no routes"]);
    check(
        &format!("{{hosts: ['*'], http: [{{{TO_A}}}]}}"),
        &["spec.hosts[0]: \"*\" cannot be used in the mesh: bind the VirtualService to a gateway"],
    );
    check(&format!("{{hosts: ['*'], gateways: [gw], http: [{{{TO_A}}}]}}"), &[]);
    check(&format!("{{hosts: [a, a], http: [{{{TO_A}}}]}}"), &["spec.hosts[1]: \"a\" is listed twice"]);
    check(&format!("{{http: [{{{TO_A}}}]}}"), &[]);
}

#[test]
fn a_route_has_one_action() {
    check(
        &route("timeout: 1s"),
        &["spec.http[0]: exactly one of route, redirect, directResponse, delegate must be set; none is"],
    );
    check(
        &route(&format!("{TO_A}, redirect: {{uri: /x}}")),
        &[
            "spec.http[0]: exactly one of route, redirect, directResponse, delegate must be set; route and redirect are",
        ],
    );
    check(
        &route("directResponse: {status: 700}"),
        &["spec.http[0].directResponse.status: must be between 200 and 599"],
    );
    check(&route("directResponse: {status: 503, body: {string: sorry}}"), &[]);
}

#[test]
fn weights_must_route_something() {
    let two = |a: i32, b: i32| {
        route(&format!(
            "route: [{{destination: {{host: a}}, weight: {a}}}, {{destination: {{host: b}}, weight: {b}}}]"
        ))
    };
    check(&two(50, 50), &[]);
    check(&two(1, 3), &[]);
    check(&two(0, 0), &["spec.http[0].route: the weights are all 0: no request could be routed"]);
    check(&two(-1, 3), &["spec.http[0].route[0].weight: must not be negative"]);
}

#[test]
fn values_are_checked() {
    let with = |fields: &str| route(&format!("{TO_A}, {fields}"));
    check(
        &with("match: [{uri: {regex: 'a('}}]"),
        &["spec.http[0].match[0].uri.regex: \"a(\" is not an RE2 expression: error: unclosed group"],
    );
    check(
        &with("match: [{uri: {exact: a, prefix: b}}]"),
        &["spec.http[0].match[0].uri: only one of exact and prefix may be set"],
    );
    check(&with("match: [{headers: {x-a: {}, '@request.auth.claims.sub': {exact: y}}}]"), &[]);
    check(
        &with("fault: {delay: {fixedDelay: 0s, percentage: {value: 1}}}"),
        &["spec.http[0].fault.delay.fixedDelay: must be at least 1ms"],
    );
    check(
        &with("fault: {abort: {httpStatus: 500, percentage: {value: 101}}}"),
        &["spec.http[0].fault.abort.percentage: 101 is not a percentage between 0 and 100"],
    );
    check(
        &with("fault: {abort: {httpStatus: 500}}"),
        &["warning spec.http[0].fault.abort.percentage: is not set: no request is aborted"],
    );
    check(
        &with("retries: {attempts: 3, retryOn: '5xx,503,nonsense'}"),
        &["spec.http[0].retries.retryOn: \"nonsense\" is neither a condition nor an HTTP status"],
    );
    check(&with("retries: {attempts: 0}, timeout: 0s"), &[]);
    check(&with("timeout: 5"), &["spec.http[0].timeout: expected a duration like \"5s\", got the number 5"]);
    check(
        &with("headers: {request: {set: {'bad name': x}}}"),
        &["spec.http[0].headers.request.set[bad name]: \"bad name\" is not the name of a header"],
    );
}

#[test]
fn unreachable_routes_are_told() {
    check(
        &format!("{{hosts: [a], http: [{{{TO_A}}}, {{match: [{{uri: {{prefix: /x}}}}], {TO_A}}}]}}"),
        &["warning spec.http[1]: is never reached: http[0] takes every request"],
    );
}

#[test]
fn tls_routes_by_covered_names() {
    let tls = |sni: &str| {
        format!("{{hosts: ['*.example.com'], tls: [{{match: [{{sniHosts: ['{sni}']}}], {TO_A}}}]}}")
    };
    check(&tls("www.example.com"), &[]);
    check(
        &tls("www.example.org"),
        &[
            "spec.tls[0].match[0].sniHosts[0]: \"www.example.org\" is not covered by any of the hosts of the VirtualService",
        ],
    );
}
