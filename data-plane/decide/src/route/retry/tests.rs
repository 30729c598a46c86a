//! Which outcomes are retried.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use super::{BackOff, RateLimitedBackOff, Reset, ResetFormat, RetryOn, RetryPolicy, RetryState, Verdict};
use crate::head::RequestHead;

fn policy(on: &str, num_retries: u32) -> RetryPolicy {
    let (on, unknown) = RetryOn::parse(on);
    assert_eq!(unknown, None);
    RetryPolicy {
        on,
        num_retries,
        per_try_timeout: None,
        per_try_idle_timeout: None,
        retriable_status_codes: [418].into(),
        retriable_headers: Box::default(),
        retriable_request_headers: Box::default(),
        back_off: BackOff::default(),
        rate_limited_back_off: None,
        host_predicates: Box::default(),
        host_selection_max_attempts: 1,
        previous_priorities: None,
    }
}

fn state(policy: &RetryPolicy, headers: &HeaderMap) -> Option<RetryState> {
    let head =
        RequestHead { method: "GET", scheme: "http", authority: "a", path: "/", protocol: None, headers };
    RetryState::new(Some(policy), &head)
}

#[test]
fn conditions_meet_statuses() {
    let check = |on: &str, status: u16, header: Option<(&'static str, &'static str)>, expected| {
        let policy = policy(on, 1);
        let mut response = HeaderMap::new();
        if let Some((name, value)) = header {
            response.insert(name, HeaderValue::from_static(value));
        }
        let mut state = state(&policy, &HeaderMap::new()).unwrap();
        assert_eq!(state.on_response(Some(&policy), status, &response), expected, "{on} {status} {header:?}");
    };
    check("5xx", 500, None, Verdict::Retry);
    check("5xx", 200, None, Verdict::No);
    check("gateway-error", 500, None, Verdict::No);
    check("gateway-error", 503, None, Verdict::Retry);
    check("retriable-4xx", 409, None, Verdict::Retry);
    check("retriable-status-codes", 418, None, Verdict::Retry);
    check("retriable-status-codes", 503, None, Verdict::No);
    check("unavailable", 200, Some(("grpc-status", "14")), Verdict::Retry);
    check("unavailable", 200, Some(("grpc-status", "1")), Verdict::No);
    check("5xx", 503, Some(("x-envoy-ratelimited", "true")), Verdict::No);
    check("envoy-ratelimited", 429, Some(("x-envoy-ratelimited", "true")), Verdict::Retry);
}

#[test]
fn resets_and_exhaustion() {
    let istio = policy("connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", 2);
    let mut retries = state(&istio, &HeaderMap::new()).unwrap();
    assert_eq!(retries.on_reset(Reset::Remote, true), Verdict::No);
    assert_eq!(retries.on_reset(Reset::Overflow, false), Verdict::No);
    assert_eq!(retries.on_reset(Reset::ConnectFailure, false), Verdict::Retry);
    assert_eq!(retries.on_reset(Reset::RefusedStream, true), Verdict::Retry);
    assert_eq!(retries.on_reset(Reset::ConnectFailure, false), Verdict::Exhausted);
    assert_eq!(retries.retries(), 2);

    let inbound = policy("reset-before-request", 2);
    let mut retries = state(&inbound, &HeaderMap::new()).unwrap();
    assert_eq!(retries.on_reset(Reset::Remote, true), Verdict::No);
    assert_eq!(retries.on_reset(Reset::Remote, false), Verdict::Retry);
}

#[test]
fn request_headers_ask_for_retries() {
    let none = policy("", 0);
    assert!(state(&none, &HeaderMap::new()).is_none());
    let mut headers = HeaderMap::new();
    headers.insert("x-envoy-retry-on", HeaderValue::from_static("5xx"));
    headers.insert("x-envoy-max-retries", HeaderValue::from_static("1"));
    let mut asked = state(&none, &headers).unwrap();
    assert_eq!(asked.on_response(Some(&none), 503, &HeaderMap::new()), Verdict::Retry);
    assert_eq!(asked.on_response(Some(&none), 503, &HeaderMap::new()), Verdict::Exhausted);
}

#[test]
fn waits_grow_and_are_bounded() {
    let back_off = BackOff::default();
    assert_eq!(back_off.wait(1, 24), Duration::from_millis(24));
    assert_eq!(back_off.wait(2, 49), Duration::from_millis(49));
    assert_eq!(back_off.wait(60, 249), Duration::from_millis(249));
    assert_eq!(back_off.wait(200, 250), Duration::ZERO);
    let limited = RateLimitedBackOff {
        reset_headers: [(http::header::RETRY_AFTER, ResetFormat::Seconds)].into(),
        max: Duration::from_secs(300),
    };
    let mut response = HeaderMap::new();
    response.insert("retry-after", HeaderValue::from_static("20"));
    assert_eq!(limited.wait(&response, 0, 5), Some(Duration::from_millis(20_005)));
    response.insert("retry-after", HeaderValue::from_static("400"));
    assert_eq!(limited.wait(&response, 0, 5), None);
}
