//! Checks that several kinds share: names, ports, addresses, durations, labels, expressions.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::field::Cx;
use crate::selector::{PolicyTargetReference, WorkloadSelector};

/// Whether a text is an IP address.
pub fn is_ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// Whether a text is a DNS label: letters, digits and hyphens, at most 63, no hyphen at the ends.
pub fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-';
    !bytes.is_empty()
        && bytes.len() <= 63
        && bytes.iter().all(inner)
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
}

/// A full or short host name, without wildcard. Underscores are allowed in all but the last label, as in Istio.
pub fn fqdn(host: &str, cx: &mut Cx) {
    if let Some(reason) = fqdn_error(host) {
        cx.error(format!("{host:?} is not a host name: {reason}"));
    }
}

fn fqdn_error(host: &str) -> Option<&'static str> {
    if host.is_empty() {
        return Some("it is empty");
    }
    if host.len() > 255 {
        return Some("it is longer than 255 characters");
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let labels: Vec<&str> = host.split('.').collect();
    for (i, label) in labels.iter().enumerate() {
        let last = i + 1 == labels.len();
        let plain = label.replace('_', "-");
        let candidate = if last { (*label).to_owned() } else { plain.trim_matches('-').to_owned() };
        if !is_dns_label(&candidate) || label.len() > 63 {
            return Some("its labels must be letters, digits and hyphens, with no hyphen at the ends");
        }
        if last && labels.len() > 1 && label.chars().all(|c| c.is_ascii_digit()) {
            return Some("its last label is a number (an IP address has four)");
        }
    }
    None
}

/// A host name that may begin with `*.` or be `*`.
pub fn wildcard_host(host: &str, cx: &mut Cx) {
    if host == "*" {
        return;
    }
    if host.is_empty() {
        cx.error("a host must not be empty");
    } else if let Some(rest) = host.strip_prefix('*') {
        match rest.strip_prefix('.').or_else(|| rest.strip_prefix('-')) {
            Some(rest) if !rest.contains('*') => fqdn(rest, cx),
            _ => cx.error(format!(
                "{host:?}: a wildcard stands for whole labels, at the beginning (\"*.example.com\")"
            )),
        }
    } else if host.contains('*') {
        cx.error(format!("{host:?}: a wildcard may only stand at the beginning"));
    } else {
        fqdn(host, cx);
    }
}

/// A host name (wildcards included) or an IP address.
pub fn wildcard_host_or_ip(host: &str, cx: &mut Cx) {
    if !is_ip(host) {
        wildcard_host(host, cx);
    }
}

/// A namespace name.
pub fn namespace(name: &str, cx: &mut Cx) {
    if !is_dns_label(name) {
        cx.error(format!("{name:?} is not the name of a namespace"));
    }
}

/// A port that is not 0.
pub fn port(port: u16, cx: &mut Cx) {
    if port == 0 {
        cx.error("must be a port between 1 and 65535");
    }
}

/// The names of `exportTo`: `.`, `*`, `~` or namespaces.
pub fn export_to(names: &[String], cx: &mut Cx) {
    cx.each("exportTo", names, |cx, name| {
        if !matches!(name.as_str(), "." | "*" | "~") {
            namespace(name, cx);
        }
    });
    let alone = names.iter().any(|n| n == "*" || n == "~");
    if alone && names.len() > 1 {
        cx.error_at("exportTo", "\"*\" and \"~\" stand alone");
    }
}

/// Protocols that a port may name.
pub const PROTOCOLS: [&str; 14] = [
    "HTTP",
    "HTTPS",
    "HTTP2",
    "GRPC",
    "GRPC-WEB",
    "GRPC-WEB-TEXT",
    "TCP",
    "TLS",
    "UDP",
    "MONGO",
    "MYSQL",
    "REDIS",
    "HBONE",
    "HTTP_PROXY",
];

/// The protocol of a port, in any case.
pub fn protocol(name: &str, cx: &mut Cx) {
    if name.is_empty() {
        cx.error("must be set");
    } else if !PROTOCOLS.iter().any(|p| p.eq_ignore_ascii_case(name)) {
        cx.error(format!("{name:?} is no protocol: use one of {}", PROTOCOLS.join(", ")));
    }
}

/// An address or a range.
pub fn cidr(text: &str, cx: &mut Cx) {
    if text.parse::<IpNet>().is_err() && !is_ip(text) {
        cx.error(format!("{text:?} is not an IP address or CIDR range"));
    }
}

/// An RE2 expression of at most 1024 characters. RE2 and this library share their syntax but for what neither can do.
pub fn regex(text: &str, cx: &mut Cx) {
    if text.len() > 1024 {
        cx.error("the expression is longer than 1024 characters");
    } else if let Err(e) = regex::Regex::new(text) {
        let reason = e.to_string().lines().last().unwrap_or_default().trim().to_owned();
        cx.error(format!("{text:?} is not an RE2 expression: {reason}"));
    }
}

/// A duration of at least a millisecond, in whole milliseconds.
pub fn positive(field: &str, duration: Option<Duration>, cx: &mut Cx) {
    let Some(duration) = duration else { return };
    if duration < Duration::from_millis(1) {
        cx.error_at(field, "must be at least 1ms");
    } else if duration.subsec_nanos() % 1_000_000 != 0 {
        cx.error_at(field, "must be whole milliseconds");
    }
}

/// A duration of zero (off) or at least a millisecond.
pub fn positive_or_zero(field: &str, duration: Option<Duration>, cx: &mut Cx) {
    positive(field, duration.filter(|d| !d.is_zero()), cx);
}

/// Kubernetes labels.
pub fn labels(field: &str, labels: &BTreeMap<String, String>, cx: &mut Cx) {
    for (key, value) in labels {
        cx.field(field, |cx| {
            cx.key(key, |cx| {
                let (prefix, name) = key.rsplit_once('/').map_or((None, key.as_str()), |(p, n)| (Some(p), n));
                if !is_label_text(name) || name.is_empty() || prefix.is_some_and(|p| fqdn_error(p).is_some())
                {
                    cx.error(format!("{key:?} is not the key of a label"));
                }
                if !is_label_text(value) {
                    cx.error(format!("{value:?} is not the value of a label"));
                }
            });
        });
    }
}

fn is_label_text(text: &str) -> bool {
    let ends = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && ends(text.chars().next())
        && ends(text.chars().last())
}

/// A selector: labels without wildcards.
pub fn selector(field: &str, selector: Option<&WorkloadSelector>, cx: &mut Cx) {
    cx.some(field, selector, |cx, selector| {
        let name = if field == "workloadSelector" { "labels" } else { "matchLabels" };
        for (key, value) in &selector.match_labels {
            if key.is_empty() || key.contains('*') || value.contains('*') {
                cx.field(name, |cx| {
                    cx.key(key, |cx| cx.error("labels are matched as they are: no wildcards"))
                });
                return;
            }
        }
        labels(name, &selector.match_labels, cx);
        if selector.match_labels.is_empty() {
            cx.warn_at(name, "is empty: the whole namespace is selected");
        }
    });
}

/// The ways to say what a policy is attached to exclude each other.
pub fn targets(
    selector: Option<&WorkloadSelector>,
    target_ref: Option<&PolicyTargetReference>,
    target_refs: &[PolicyTargetReference],
    cx: &mut Cx,
) {
    let ways = [selector.is_some(), target_ref.is_some(), !target_refs.is_empty()];
    if ways.into_iter().filter(|set| *set).count() > 1 {
        cx.error("only one of selector, targetRef and targetRefs may be set");
    }
    if target_refs.len() > 16 {
        cx.error_at("targetRefs", "may hold 16 targets at most");
    }
    cx.some("targetRef", target_ref, target);
    cx.each("targetRefs", target_refs, target);
}

fn target(cx: &mut Cx, target: &PolicyTargetReference) {
    for (field, value) in [("kind", &target.kind), ("name", &target.name)] {
        if value.is_empty() {
            cx.error_at(field, "must be set");
        }
    }
    if !target.namespace.is_empty() {
        cx.error_at("namespace", "must not be set: a policy is attached to objects of its own namespace");
    }
    let text = format!("{}/{}", target.group, target.kind);
    match text.as_str() {
        "gateway.networking.k8s.io/Gateway" => {}
        "/Service"
        | "core/Service"
        | "networking.istio.io/ServiceEntry"
        | "gateway.networking.k8s.io/GatewayClass" => {
            cx.warn(format!(
                "has no effect: policies of a {} are applied by waypoints, which this release does not run; \
                 a selector is applied by sidecars",
                target.kind
            ));
        }
        _ => {
            cx.error_at("kind", format!("{text:?} cannot be targeted: use Gateway, Service or ServiceEntry"))
        }
    }
}

/// The name of an HTTP header.
pub fn header_name(name: &str, cx: &mut Cx) {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() {
        cx.error("the name of a header must not be empty");
    } else if !name.bytes().all(token) {
        cx.error(format!("{name:?} is not the name of a header"));
    }
}

/// Exactly one of several alternatives.
pub fn exactly_one(alternatives: &[(&str, bool)], cx: &mut Cx) -> bool {
    let set: Vec<&str> = alternatives.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    if set.len() == 1 {
        return true;
    }
    let all: Vec<&str> = alternatives.iter().map(|(name, _)| *name).collect();
    let got = if set.is_empty() { "none is".to_owned() } else { format!("{} are", set.join(" and ")) };
    cx.error(format!("exactly one of {} must be set; {got}", all.join(", ")));
    false
}
