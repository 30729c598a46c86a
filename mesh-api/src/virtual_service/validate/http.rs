//! HTTP routes.

use std::collections::BTreeMap;

use super::{destination, gateways, weights};
use crate::check;
use crate::field::Cx;
use crate::string_match::StringMatch;
use crate::virtual_service::{
    AbortCode, CorsPolicy, DirectResponse, DirectResponseBody, Fault, HeaderOperations, Headers, HttpMatch,
    HttpRoute, Redirect, Retry, Rewrite,
};

pub(super) fn route(cx: &mut Cx, route: &HttpRoute) {
    action(cx, route);
    cx.each("match", &route.r#match, http_match);
    cx.field("route", |cx| {
        weights(&route.route.iter().map(|r| r.weight).collect::<Vec<_>>(), cx);
    });
    cx.each("route", &route.route, |cx, target| {
        cx.field("destination", |cx| destination(cx, &target.destination));
        cx.some("headers", target.headers.as_ref(), headers);
    });
    cx.some("redirect", route.redirect.as_ref(), redirect);
    cx.some("directResponse", route.direct_response.as_ref(), direct_response);
    cx.some("rewrite", route.rewrite.as_ref(), rewrite);
    check::positive_or_zero("timeout", route.timeout, cx);
    cx.some("retries", route.retries.as_ref(), retries);
    cx.some("fault", route.fault.as_ref(), fault);
    if route.mirror.is_some() && !route.mirrors.is_empty() {
        cx.error("only one of mirror and mirrors may be set");
    }
    cx.some("mirror", route.mirror.as_ref(), destination);
    cx.each("mirrors", &route.mirrors, |cx, mirror| {
        cx.field("destination", |cx| destination(cx, &mirror.destination));
    });
    if route.mirror.is_none() && route.mirror_percentage.is_some() {
        cx.warn_at("mirrorPercentage", "has no effect without mirror");
    }
    cx.some("corsPolicy", route.cors_policy.as_ref(), cors);
    cx.some("headers", route.headers.as_ref(), headers);
}

fn action(cx: &mut Cx, route: &HttpRoute) {
    let answers = route.redirect.is_some() || route.direct_response.is_some();
    check::exactly_one(
        &[
            ("route", !route.route.is_empty()),
            ("redirect", route.redirect.is_some()),
            ("directResponse", route.direct_response.is_some()),
            ("delegate", route.delegate.is_some()),
        ],
        cx,
    );
    let contradictions = [("fault", route.fault.is_some()), ("rewrite", route.rewrite.is_some())];
    for (field, set) in contradictions {
        if set && answers {
            cx.error_at(field, "has no meaning where the proxy answers itself (redirect, directResponse)");
        }
    }
    cx.some("delegate", route.delegate.as_ref(), |cx, delegate| {
        if delegate.name.is_empty() {
            cx.error_at("name", "must be set");
        }
        if !delegate.namespace.is_empty() {
            cx.field("namespace", |cx| check::namespace(&delegate.namespace, cx));
        }
    });
}

fn http_match(cx: &mut Cx, matcher: &HttpMatch) {
    for (field, text) in [
        ("uri", &matcher.uri),
        ("scheme", &matcher.scheme),
        ("method", &matcher.method),
        ("authority", &matcher.authority),
    ] {
        cx.some(field, text.as_ref(), |cx, text| {
            match text {
                StringMatch::Present => cx.error("one of exact, prefix and regex must be set"),
                StringMatch::Exact(value) | StringMatch::Prefix(value) if value.is_empty() => {
                    cx.error("the text must not be empty");
                }
                _ => {}
            }
            regex(cx, text);
        });
    }
    for (field, map) in [("headers", &matcher.headers), ("withoutHeaders", &matcher.without_headers)] {
        each_entry(field, map, cx, |cx, name, text| {
            if !is_claim(name) {
                check::header_name(name, cx);
            }
            regex(cx, text);
        });
    }
    each_entry("queryParams", &matcher.query_params, cx, |cx, name, text| {
        if name.is_empty() {
            cx.error("the name of a parameter must not be empty");
        }
        regex(cx, text);
    });
    if let Some(port) = matcher.port {
        cx.field("port", |cx| check::port(port, cx));
    }
    check::labels("sourceLabels", &matcher.source_labels, cx);
    if !matcher.source_namespace.is_empty() {
        cx.field("sourceNamespace", |cx| check::namespace(&matcher.source_namespace, cx));
    }
    gateways("gateways", &matcher.gateways, cx);
}

/// Whether a header name stands for a claim of the request's token.
fn is_claim(name: &str) -> bool {
    name.starts_with("@request.auth.claims")
}

fn each_entry(
    field: &str,
    map: &BTreeMap<String, StringMatch>,
    cx: &mut Cx,
    mut f: impl FnMut(&mut Cx, &str, &StringMatch),
) {
    for (name, text) in map {
        cx.field(field, |cx| cx.key(name, |cx| f(cx, name, text)));
    }
}

fn regex(cx: &mut Cx, text: &StringMatch) {
    if let StringMatch::Regex(expression) = text {
        if expression.is_empty() {
            cx.error_at("regex", "must not be empty");
        } else {
            cx.field("regex", |cx| check::regex(expression, cx));
        }
    }
}

fn headers(cx: &mut Cx, headers: &Headers) {
    cx.field("request", |cx| operations(cx, &headers.request));
    cx.field("response", |cx| operations(cx, &headers.response));
}

fn operations(cx: &mut Cx, operations: &HeaderOperations) {
    for (field, map) in [("set", &operations.set), ("add", &operations.add)] {
        for name in map.keys() {
            cx.field(field, |cx| {
                cx.key(name, |cx| {
                    // Pseudo-headers may be set, as Istio allows.
                    let plain = name.strip_prefix(':').unwrap_or(name);
                    check::header_name(plain, cx);
                });
            });
        }
    }
    cx.each("remove", &operations.remove, |cx, name| check::header_name(name, cx));
}

fn redirect(cx: &mut Cx, redirect: &Redirect) {
    let says = !redirect.uri.is_empty()
        || !redirect.prefix_rewrite.is_empty()
        || !redirect.authority.is_empty()
        || !redirect.scheme.is_empty()
        || redirect.port.is_some()
        || redirect.derive_port.is_some();
    if !says {
        cx.error("one of uri, prefixRewrite, authority, scheme, port and derivePort must be set");
    }
    if !redirect.uri.is_empty() && !redirect.prefix_rewrite.is_empty() {
        cx.error("only one of uri and prefixRewrite may be set");
    }
    if redirect.port.is_some() && redirect.derive_port.is_some() {
        cx.error("only one of port and derivePort may be set");
    }
    if let Some(port) = redirect.port {
        cx.field("port", |cx| check::port(port, cx));
    }
    if !matches!(redirect.scheme.as_str(), "" | "http" | "https") {
        cx.error_at("scheme", "must be http or https");
    }
    if redirect.redirect_code.is_some_and(|code| !matches!(code, 0 | 301 | 302 | 303 | 307 | 308)) {
        cx.error_at("redirectCode", "must be 301, 302, 303, 307 or 308");
    }
}

fn direct_response(cx: &mut Cx, response: &DirectResponse) {
    const MAX: usize = 1 << 20;
    if !(200..=599).contains(&response.status) {
        cx.error_at("status", "must be between 200 and 599");
    }
    let size = match &response.body {
        None => 0,
        Some(DirectResponseBody::String(text)) => text.len(),
        Some(DirectResponseBody::Bytes(base64)) => base64.len() / 4 * 3,
    };
    if size > MAX {
        cx.error_at("body", "is larger than 1 MiB");
    } else if size > 100_000 {
        cx.warn_at("body", "is larger than 100 kB, and is held by every proxy");
    }
}

fn rewrite(cx: &mut Cx, rewrite: &Rewrite) {
    let regex = rewrite.uri_regex_rewrite.as_ref();
    if rewrite.uri.is_empty() && rewrite.authority.is_empty() && regex.is_none() {
        cx.error("one of uri, authority and uriRegexRewrite must be set");
    }
    if !rewrite.uri.is_empty() && regex.is_some() {
        cx.error("only one of uri and uriRegexRewrite may be set");
    }
    cx.some("uriRegexRewrite", regex, |cx, regex| {
        if regex.r#match.is_empty() {
            cx.error_at("match", "must be set");
        } else {
            cx.field("match", |cx| check::regex(&regex.r#match, cx));
        }
    });
}

/// Conditions of Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on`.
const RETRY_ON: [&str; 17] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
    "unknown",
];

fn retries(cx: &mut Cx, retries: &Retry) {
    if retries.attempts < 0 {
        cx.error_at("attempts", "must not be negative");
    }
    let more = retries.per_try_timeout.is_some()
        || !retries.retry_on.is_empty()
        || retries.retry_remote_localities.is_some();
    if retries.attempts == 0 && more {
        cx.error_at("attempts", "is 0, which turns retries off: the other fields have no meaning");
    }
    check::positive_or_zero("perTryTimeout", retries.per_try_timeout, cx);
    check::positive_or_zero("backoff", retries.backoff, cx);
    for condition in retries.retry_on.split(',').map(str::trim).filter(|c| !c.is_empty()) {
        let status = condition.parse::<u16>().is_ok_and(|code| (100..600).contains(&code));
        if !status && !RETRY_ON.contains(&condition) {
            cx.error_at("retryOn", format!("{condition:?} is neither a condition nor an HTTP status"));
        }
    }
}

fn fault(cx: &mut Cx, fault: &Fault) {
    if fault.delay.is_none() && fault.abort.is_none() {
        cx.error("one of delay and abort must be set");
    }
    cx.some("delay", fault.delay.as_ref(), |cx, delay| {
        if delay.fixed_delay.is_none() {
            cx.error_at("fixedDelay", "must be set");
        }
        check::positive("fixedDelay", delay.fixed_delay, cx);
        if delay.percentage.is_none() {
            cx.warn_at("percentage", "is not set: no request is delayed");
        }
    });
    cx.some("abort", fault.abort.as_ref(), |cx, abort| {
        match &abort.code {
            AbortCode::Http(status) if !(200..=599).contains(status) => {
                cx.error_at("httpStatus", "must be between 200 and 599");
            }
            AbortCode::Grpc(name) if super::super::grpc_status(name).is_none() => {
                cx.error_at("grpcStatus", format!("{name:?} is no status of gRPC"));
            }
            _ => {}
        }
        if abort.percentage.is_none() {
            cx.warn_at("percentage", "is not set: no request is aborted");
        }
    });
}

fn cors(cx: &mut Cx, cors: &CorsPolicy) {
    cx.each("allowOrigins", &cors.allow_origins, |cx, origin| {
        if *origin == StringMatch::Present {
            cx.error("one of exact, prefix and regex must be set (\".*\" for all)");
        }
        regex(cx, origin);
    });
    cx.each("allowMethods", &cors.allow_methods, |cx, method| {
        if method != "*" && !method.bytes().all(|b| b.is_ascii_alphabetic()) || method.is_empty() {
            cx.error(format!("{method:?} is not an HTTP method"));
        }
    });
    for (field, names) in [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)] {
        cx.each(field, names, |cx, name| {
            if name != "*" {
                check::header_name(name, cx);
            }
        });
    }
    check::positive_or_zero("maxAge", cors.max_age, cx);
}

/// Routes after one that takes every request are never reached.
pub(super) fn unreachable(routes: &[HttpRoute], cx: &mut Cx) {
    let takes_all = |route: &HttpRoute| {
        let any = |m: &HttpMatch| {
            let root = m.uri == Some(StringMatch::Prefix("/".to_owned()));
            root && HttpMatch { uri: None, name: String::new(), stat_prefix: String::new(), ..m.clone() }
                == HttpMatch::default()
        };
        route.r#match.is_empty() || route.r#match.iter().any(any)
    };
    let Some(first) = routes.iter().position(takes_all) else { return };
    for index in first + 1..routes.len() {
        cx.field("http", |cx| {
            cx.index(index, |cx| cx.warn(format!("is never reached: http[{first}] takes every request")));
        });
    }
}
