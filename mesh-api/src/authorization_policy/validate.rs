//! What an AuthorizationPolicy must keep to beyond its types.

use super::{Action, AuthorizationPolicy, Condition, Operation, Rule, Source};
use crate::check;
use crate::field::Cx;
use crate::object::ObjectMeta;

pub(super) fn authorization_policy(policy: &AuthorizationPolicy, _: &ObjectMeta, cx: &mut Cx) {
    check::selector("selector", policy.selector.as_ref(), cx);
    check::targets(policy.selector.as_ref(), policy.target_ref.as_ref(), &policy.target_refs, cx);
    match (&policy.provider, policy.action) {
        (None, Action::Custom) => cx.error_at("provider", "must be set for the action CUSTOM"),
        (Some(provider), Action::Custom) if provider.name.is_empty() => {
            cx.field("provider", |cx| cx.error_at("name", "must be set"));
        }
        (Some(_), action) if action != Action::Custom => {
            cx.error_at("provider", "must not be set unless the action is CUSTOM");
        }
        _ => {}
    }
    if policy.rules.is_empty() && policy.action != Action::Allow {
        cx.error_at("rules", format!("must be set: without rules, {} never applies", policy.action.as_str()));
    }
    cx.each("rules", &policy.rules, rule);
}

fn rule(cx: &mut Cx, rule: &Rule) {
    cx.each("from", &rule.from, |cx, from| match &from.source {
        None => cx.error_at("source", "must be set"),
        Some(one) => cx.field("source", |cx| source(cx, one)),
    });
    cx.each("to", &rule.to, |cx, to| match &to.operation {
        None => cx.error_at("operation", "must be set"),
        Some(one) => cx.field("operation", |cx| operation(cx, one)),
    });
    cx.each("when", &rule.when, condition);
}

/// No value of a list is empty.
fn texts(field: &str, values: &[String], cx: &mut Cx) {
    cx.each(field, values, |cx, value| {
        if value.is_empty() {
            cx.error("must not be empty");
        }
    });
}

fn source(cx: &mut Cx, source: &Source) {
    if *source == Source::default() {
        cx.error("must not be empty: it would match everybody");
    }
    for (field, values) in [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ] {
        texts(field, values, cx);
    }
    for (field, values) in [
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
    ] {
        cx.each(field, values, |cx, block| check::cidr(block, cx));
    }
    for (field, values) in
        [("serviceAccounts", &source.service_accounts), ("notServiceAccounts", &source.not_service_accounts)]
    {
        cx.each(field, values, |cx, account| {
            let parts: Vec<&str> = account.split('/').collect();
            if parts.len() > 2 || parts.iter().any(|p| p.is_empty() || p.contains('*')) {
                cx.error(format!("{account:?} is neither a name nor namespace/name"));
            }
        });
    }
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let others = !source.principals.is_empty()
        || !source.not_principals.is_empty()
        || !source.namespaces.is_empty()
        || !source.not_namespaces.is_empty();
    if accounts && others {
        cx.error_at("serviceAccounts", "cannot be used together with principals or namespaces");
    }
}

fn operation(cx: &mut Cx, operation: &Operation) {
    if *operation == Operation::default() {
        cx.error("must not be empty: it would match everything");
    }
    for (field, values) in [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
    ] {
        texts(field, values, cx);
    }
    for (field, values) in [("paths", &operation.paths), ("notPaths", &operation.not_paths)] {
        cx.each(field, values, |cx, value| path(value, cx));
    }
    for (field, values) in [("ports", &operation.ports), ("notPorts", &operation.not_ports)] {
        cx.each(field, values, |cx, port| {
            if !port.parse::<u16>().is_ok_and(|p| p > 0) {
                cx.error(format!("{port:?} is not a port"));
            }
        });
    }
}

/// A path, with `*` at one end, or with the operators `{*}` and `{**}`.
fn path(path: &str, cx: &mut Cx) {
    if path.is_empty() {
        cx.error("must not be empty");
        return;
    }
    if !path.contains(['{', '}']) {
        let inner = path.strip_prefix('*').unwrap_or(path);
        if inner.strip_suffix('*').unwrap_or(inner).contains('*') {
            cx.warn(format!("{path:?}: \"*\" in the middle is matched as it is"));
        }
        return;
    }
    let mut rest = Vec::new();
    for (i, segment) in path.split('/').enumerate() {
        match segment {
            "{*}" => {}
            "{**}" => rest.push(i),
            segment if segment.contains(['{', '}', '*']) => {
                cx.error(format!("{path:?}: {{*}} and {{**}} stand for whole segments, alone"));
                return;
            }
            _ => {}
        }
    }
    if rest.len() > 1 {
        cx.error(format!("{path:?}: {{**}} may stand once"));
    } else if path.split('/').skip(rest.first().map_or(usize::MAX, |i| i + 1)).any(|s| s == "{*}") {
        cx.error(format!("{path:?}: {{*}} may not follow {{**}}"));
    }
}

/// Attributes without argument.
const PLAIN_KEYS: [&str; 12] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
];

fn condition(cx: &mut Cx, condition: &Condition) {
    let key = condition.key.as_str();
    let with_argument = ["request.headers[", "request.auth.claims[", "experimental.envoy.filters."];
    let known = PLAIN_KEYS.contains(&key)
        || with_argument
            .iter()
            .any(|prefix| key.strip_prefix(prefix).is_some_and(|rest| rest.ends_with(']')));
    if key.is_empty() {
        cx.error_at("key", "must be set");
    } else if !known {
        cx.error_at("key", format!("{key:?} is no attribute of a request"));
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        cx.error("one of values and notValues must be set");
    }
    for (field, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        cx.each(field, values, |cx, value| match key {
            "source.ip" | "remote.ip" | "destination.ip" => check::cidr(value, cx),
            "destination.port" if !value.parse::<u16>().is_ok_and(|p| p > 0) => {
                cx.error(format!("{value:?} is not a port"));
            }
            _ if value.is_empty() => cx.error("must not be empty"),
            _ => {}
        });
    }
}
