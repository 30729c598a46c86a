//! What happens to the requests of a rule.

mod filters;
mod headers;

use std::time::Duration;

use mesh_api::StringMatch;
use mesh_api::destination_rule::ConsistentHashKey;
use mesh_api::virtual_service::{
    DirectResponse, DirectResponseBody, HttpAction, HttpRouteDestination, Redirect, RedirectPort,
};
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::config::route::v3 as rds;
use xds_api::envoy::config::route::v3::route_action::{self, ClusterSpecifier, HostRewriteSpecifier};
use xds_api::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::{RuleInputs, matcher, retry};
use crate::pb;

/// A route to one cluster, without a limit in time.
pub(super) fn to_cluster(cluster: &str) -> rds::RouteAction {
    let mut action = rds::RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        ..Default::default()
    };
    limit(&mut action, Duration::ZERO);
    action
}

/// How long a request may take, whether it is gRPC or not; zero for ever.
///
/// A `max_stream_duration`, which replaces the deprecated field, would make Envoy ignore `timeout`.
#[expect(deprecated, reason = "its replacement turns `timeout` off")]
fn limit(action: &mut rds::RouteAction, timeout: Duration) {
    action.timeout = pb::duration(timeout);
    action.max_grpc_timeout = pb::duration(timeout);
}

/// The route of a rule.
pub(super) fn route(inputs: &RuleInputs) -> rds::Route {
    let mut out = rds::Route {
        name: name(inputs),
        r#match: Some(matcher::route_match(inputs.matches.as_ref())),
        metadata: inputs.origin.as_ref().map(|(namespace, name)| {
            let path = format!("/apis/networking.istio.io/v1/namespaces/{namespace}/virtual-service/{name}");
            pb::metadata("istio", pb::fields([("config", pb::text(path))]))
        }),
        stat_prefix: inputs.matches.as_ref().map(|m| m.stat_prefix.clone()).unwrap_or_default(),
        typed_per_filter_config: filters::per_route(&inputs.route),
        ..Default::default()
    };
    if let Some(changes) = &inputs.route.headers {
        headers::of_route(&mut out, changes);
    }
    out.action = Some(match inputs.route.action() {
        HttpAction::Redirect(redirect) => {
            rds::route::Action::Redirect(redirect_action(redirect, inputs.port))
        }
        HttpAction::DirectResponse(response) => rds::route::Action::DirectResponse(direct_response(response)),
        HttpAction::Delegate(_) => {
            // The delegate does not exist: there is nobody to ask.
            rds::route::Action::DirectResponse(rds::DirectResponseAction {
                status: 404,
                ..Default::default()
            })
        }
        HttpAction::Route(destinations) => {
            out.decorator = Some(rds::Decorator { operation: operation(inputs), ..Default::default() });
            rds::route::Action::Route(route_action(inputs, destinations))
        }
    });
    out
}

/// `route`, `route.match`, or `default`.
fn name(inputs: &RuleInputs) -> String {
    let matched = inputs.matches.as_ref().map(|m| m.name.as_str()).unwrap_or_default();
    match (inputs.route.name.as_str(), matched) {
        ("", "") => "default".to_owned(),
        (route, "") => route.to_owned(),
        ("", matched) => matched.to_owned(),
        (route, matched) => format!("{route}.{matched}"),
    }
}

fn operation(inputs: &RuleInputs) -> String {
    let path = match inputs.matches.as_ref().and_then(|m| m.uri.as_ref()) {
        None | Some(StringMatch::Present) => "/*".to_owned(),
        Some(StringMatch::Exact(path)) => path.clone(),
        Some(StringMatch::Prefix(prefix)) => format!("{prefix}*"),
        Some(StringMatch::Regex(expression)) => expression.clone(),
    };
    format!("{}{path}", inputs.operation)
}

fn route_action(inputs: &RuleInputs, destinations: &[HttpRouteDestination]) -> rds::RouteAction {
    let route = &inputs.route;
    let mut out = to_cluster("");
    out.cluster_specifier = Some(clusters(inputs, destinations));
    if let Some(timeout) = route.timeout {
        limit(&mut out, timeout);
    }
    out.retry_policy =
        retry::policy(route.retries.as_ref(), inputs.mesh_retries.as_ref(), inputs.hash.is_some());
    out.hash_policy = inputs.hash.iter().map(hash_policy).collect();
    out.request_mirror_policies = route
        .all_mirrors()
        .zip(&inputs.mirrors)
        .filter(|((_, share), _)| share.per_million() > 0)
        .map(|((_, share), cluster)| route_action::RequestMirrorPolicy {
            cluster: cluster.clone(),
            runtime_fraction: Some(core::RuntimeFractionalPercent {
                default_value: Some(pb::millionths(share.per_million())),
                ..Default::default()
            }),
            trace_sampled: pb::boolv(false),
            ..Default::default()
        })
        .collect();
    if let Some(rewrite) = &route.rewrite {
        if let Some(regex) = &rewrite.uri_regex_rewrite {
            out.regex_rewrite = Some(RegexMatchAndSubstitute {
                pattern: Some(pb::regex(&regex.r#match)),
                substitution: regex.rewrite.clone(),
            });
        } else if !rewrite.uri.is_empty() {
            out.prefix_rewrite.clone_from(&rewrite.uri);
        }
        if !rewrite.authority.is_empty() {
            out.host_rewrite_specifier =
                Some(HostRewriteSpecifier::HostRewriteLiteral(rewrite.authority.clone()));
        }
    }
    if let Some(host) = route.headers.as_ref().and_then(|h| headers::authority(&h.request)) {
        out.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(host.to_owned()));
    }
    out
}

/// One cluster, or several with their weights.
fn clusters(inputs: &RuleInputs, destinations: &[HttpRouteDestination]) -> ClusterSpecifier {
    use rds::weighted_cluster::ClusterWeight;
    let default = HttpRouteDestination::default();
    // A rule that was made for a service has a cluster and no destination.
    let listed = inputs
        .clusters
        .iter()
        .enumerate()
        .map(|(i, cluster)| (cluster, destinations.get(i).unwrap_or(&default)));
    let mut weighted: Vec<(&String, &HttpRouteDestination)> = listed.collect();
    if weighted.len() > 1 {
        weighted.retain(|(_, destination)| destination.weight > 0);
    }
    if let [(cluster, destination)] = weighted.as_slice()
        && destination.headers.is_none()
    {
        return ClusterSpecifier::Cluster((*cluster).clone());
    }
    let weights = weighted.iter().map(|(cluster, destination)| {
        let mut weight = ClusterWeight {
            name: (*cluster).clone(),
            weight: pb::u32v(if weighted.len() == 1 { 100 } else { destination.weight.unsigned_abs() }),
            ..Default::default()
        };
        if let Some(changes) = &destination.headers {
            headers::of_cluster(&mut weight, changes);
        }
        weight
    });
    ClusterSpecifier::WeightedClusters(rds::WeightedCluster {
        clusters: weights.collect(),
        ..Default::default()
    })
}

fn hash_policy(key: &ConsistentHashKey) -> route_action::HashPolicy {
    use route_action::hash_policy::{
        ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
    };
    let specifier = match key {
        ConsistentHashKey::HttpHeaderName(name) => {
            PolicySpecifier::Header(Header { header_name: name.clone(), ..Default::default() })
        }
        ConsistentHashKey::HttpCookie(cookie) => PolicySpecifier::Cookie(Cookie {
            name: cookie.name.clone(),
            path: cookie.path.clone(),
            ttl: cookie.ttl.and_then(pb::duration),
            attributes: cookie
                .attributes
                .iter()
                .map(|a| CookieAttribute { name: a.name.clone(), value: a.value.clone() })
                .collect(),
        }),
        ConsistentHashKey::UseSourceIp => {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
        }
        ConsistentHashKey::HttpQueryParameterName(name) => {
            PolicySpecifier::QueryParameter(QueryParameter { name: name.clone() })
        }
    };
    route_action::HashPolicy { terminal: false, policy_specifier: Some(specifier) }
}

fn redirect_action(redirect: &Redirect, port: u16) -> rds::RedirectAction {
    use rds::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
    let code = match redirect.redirect_code {
        Some(302) => RedirectResponseCode::Found,
        Some(303) => RedirectResponseCode::SeeOther,
        Some(307) => RedirectResponseCode::TemporaryRedirect,
        Some(308) => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    let path = if !redirect.prefix_rewrite.is_empty() {
        Some(PathRewriteSpecifier::PrefixRewrite(redirect.prefix_rewrite.clone()))
    } else {
        Some(redirect.uri.clone()).filter(|uri| !uri.is_empty()).map(PathRewriteSpecifier::PathRedirect)
    };
    let scheme = Some(redirect.scheme.clone()).filter(|scheme| !scheme.is_empty());
    let derived = redirect.derive_port == Some(RedirectPort::FromRequestPort);
    rds::RedirectAction {
        host_redirect: redirect.authority.clone(),
        port_redirect: redirect.port.or(derived.then_some(port)).map(u32::from).unwrap_or_default(),
        response_code: code as i32,
        scheme_rewrite_specifier: scheme.map(SchemeRewriteSpecifier::SchemeRedirect),
        path_rewrite_specifier: path,
        ..Default::default()
    }
}

fn direct_response(response: &DirectResponse) -> rds::DirectResponseAction {
    use base64::Engine;
    use core::data_source::Specifier;
    let body = response.body.as_ref().map(|body| {
        let specifier = match body {
            DirectResponseBody::String(text) => Specifier::InlineString(text.clone()),
            DirectResponseBody::Bytes(encoded) => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(encoded);
                Specifier::InlineBytes(bytes.unwrap_or_default())
            }
        };
        core::DataSource { specifier: Some(specifier), ..Default::default() }
    });
    rds::DirectResponseAction { status: response.status, body, ..Default::default() }
}
