//! `RouteConfiguration` into a route table.

pub(crate) mod action;
pub(crate) mod cors;
mod internal_redirect;
pub(crate) mod matching;
mod per_filter;
mod policies;
pub(crate) mod rate_limit;

use std::sync::Arc;

use sail_proxy_decide::fraction::Fraction;
use sail_proxy_decide::route::{
    Decorator, HostIndex, MatchedRoutes, RequireTls, Route, RouteTable, RouteTracing, VirtualCluster,
    VirtualHost,
};

use crate::convert::{Cx, arc, headers, matchers, tree, type_name, values};
use crate::pb;

pub(crate) use policies::{hash_policy, mirror, retry};

/// `RouteConfiguration`; `version` is a hash of its bytes.
pub(crate) fn table(
    cx: &mut Cx<'_>,
    value: pb::route::RouteConfiguration,
    version: u64,
) -> Option<RouteTable> {
    let pb::route::RouteConfiguration {
        name,
        virtual_hosts,
        vhds,
        internal_only_headers,
        response_headers_to_add,
        response_headers_to_remove,
        request_headers_to_add,
        request_headers_to_remove,
        most_specific_header_mutations_wins,
        // Whoever reads the bootstrap looks at it: discovered clusters may come and go, and a route to one that is not
        // there answers 503.
        validate_clusters: _,
        max_direct_response_body_size_bytes,
        cluster_specifier_plugins,
        request_mirror_policies,
        ignore_port_in_host_matching,
        vhost_header,
        ignore_path_parameters_in_path_matching,
        typed_per_filter_config,
        metadata,
        route_specifiers,
    } = value;
    cx.refuse("vhds", &vhds);
    cx.refuse("cluster_specifier_plugins", &cluster_specifier_plugins);
    cx.refuse("route_specifiers", &route_specifiers);
    cx.ignore("metadata", &metadata, "nothing here reads a route table's metadata");
    let body_limit = values::u32_or(max_direct_response_body_size_bytes, 4096) as usize;
    let mut hosts = HostIndex::default();
    let mut place = 0;
    let virtual_hosts = cx.each("virtual_hosts", virtual_hosts, |cx, host| {
        for (at, domain) in host.domains.iter().enumerate() {
            let inserted = hosts.insert(domain, place);
            cx.ok(&format!("domains[{at}]"), inserted);
        }
        if host.domains.is_empty() {
            cx.error("domains", "it must not be empty");
        }
        place += 1;
        virtual_host(cx, host, body_limit).map(Arc::new)
    });
    Some(RouteTable {
        name: arc(name),
        host_header: if vhost_header.is_empty() {
            None
        } else {
            headers::key(cx, "vhost_header", &vhost_header)
        },
        virtual_hosts: virtual_hosts.into(),
        hosts,
        ignore_port_in_host_matching,
        request_headers: headers::ops(
            cx,
            &headers::REQUEST,
            request_headers_to_add,
            request_headers_to_remove,
        ),
        response_headers: headers::ops(
            cx,
            &headers::RESPONSE,
            response_headers_to_add,
            response_headers_to_remove,
        ),
        most_specific_header_mutations_wins,
        internal_only_headers: cx
            .each("internal_only_headers", internal_only_headers, |cx, name| headers::name(cx, "", &name))
            .into(),
        mirrors: cx
            .each("request_mirror_policies", request_mirror_policies, |cx, value| {
                mirror(cx, value).map(Arc::new)
            })
            .into(),
        per_filter: per_filter::all(cx, typed_per_filter_config),
        ignore_path_parameters: ignore_path_parameters_in_path_matching,
        version,
    })
}

fn virtual_host(cx: &mut Cx<'_>, value: pb::route::VirtualHost, body_limit: usize) -> Option<VirtualHost> {
    use pb::route::virtual_host::TlsRequirementType;
    let pb::route::VirtualHost {
        name,
        domains: _,
        routes,
        matcher,
        require_tls,
        virtual_clusters,
        rate_limits,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        cors,
        typed_per_filter_config,
        include_request_attempt_count,
        include_attempt_count_in_response,
        retry_policy,
        retry_policy_typed_config,
        hedge_policy,
        include_is_timeout_retry_header,
        per_request_buffer_limit_bytes,
        request_body_buffer_limit,
        request_mirror_policies,
        metadata,
        route_specifiers,
    } = value;
    cx.refuse("retry_policy_typed_config", &retry_policy_typed_config);
    cx.refuse("route_specifiers", &route_specifiers);
    let require_tls = match TlsRequirementType::try_from(require_tls) {
        Ok(TlsRequirementType::None) => RequireTls::None,
        Ok(TlsRequirementType::ExternalOnly) => RequireTls::ExternalOnly,
        Ok(TlsRequirementType::All) => RequireTls::All,
        Err(_) => {
            cx.error("require_tls", "it is not known");
            return None;
        }
    };
    if name.is_empty() {
        cx.error("name", "it must be set");
    }
    let level = Level { host: &name, body_limit };
    Some(VirtualHost {
        rate_limits: rate_limit::all(cx, "rate_limits", rate_limits),
        virtual_clusters: virtual_clusters_of(cx, &name, virtual_clusters),
        matcher: {
            if matcher.is_some() && !routes.is_empty() {
                cx.error("matcher", "it excludes routes");
            }
            cx.option("matcher", matcher, |cx, value| {
                tree::tree(cx, value, &|cx, any| matched(cx, any, &level))
            })
        },
        routes: cx.each("routes", routes, |cx, value| route(cx, value, &level).map(Arc::new)).into(),
        tls_redirect: (require_tls != RequireTls::None).then(|| Arc::new(Route::to_https())),
        require_tls,
        request_headers: headers::ops(
            cx,
            &headers::REQUEST,
            request_headers_to_add,
            request_headers_to_remove,
        ),
        response_headers: headers::ops(
            cx,
            &headers::RESPONSE,
            response_headers_to_add,
            response_headers_to_remove,
        ),
        mirrors: cx
            .each("request_mirror_policies", request_mirror_policies, |cx, value| {
                mirror(cx, value).map(Arc::new)
            })
            .into(),
        retry: cx.option("retry_policy", retry_policy, retry).map(Arc::new),
        hedge_on_per_try_timeout: cx.option("hedge_policy", hedge_policy, policies::hedge),
        include_request_attempt_count,
        include_attempt_count_in_response,
        include_is_timeout_retry_header,
        request_body_buffer_limit: buffer_limit(per_request_buffer_limit_bytes, request_body_buffer_limit),
        cors: cx.option("cors", cors, cors::route_policy).map(Arc::new),
        per_filter: per_filter::all(cx, typed_per_filter_config),
        metadata: values::metadata(cx, "metadata", metadata),
        name: arc(name),
    })
}

/// What routes take from above.
struct Level<'a> {
    host: &'a str,
    body_limit: usize,
}

/// The virtual clusters, and the one that takes what they leave.
fn virtual_clusters_of(
    cx: &mut Cx<'_>,
    host: &str,
    values: Vec<pb::route::VirtualCluster>,
) -> Box<[VirtualCluster]> {
    if values.is_empty() {
        return Box::default();
    }
    let named = |name: &str| Arc::from(format!("{host}.vcluster.{name}"));
    let mut all = cx.each("virtual_clusters", values, |cx, value| {
        let pb::route::VirtualCluster { headers, name } = value;
        if name.is_empty() {
            cx.error("name", "it must be set");
        }
        if headers.is_empty() {
            cx.error("headers", "they must not be empty");
        }
        let headers = matchers::headers(cx, "headers", headers);
        Some(VirtualCluster { headers, stat_name: named(&name), name: Some(name.into()) })
    });
    all.push(VirtualCluster { headers: Box::default(), stat_name: named("other"), name: None });
    all.into()
}

/// A leaf of a virtual host's tree: a route, or a list of them.
fn matched(cx: &mut Cx<'_>, any: &pb::Any, level: &Level<'_>) -> Option<MatchedRoutes> {
    match type_name(any) {
        "envoy.config.route.v3.Route" => {
            let value = cx.unpack(any)?;
            route(cx, value, level).map(|route| MatchedRoutes([Arc::new(route)].into()))
        }
        "envoy.config.route.v3.RouteList" => {
            let pb::route::RouteList { routes } = cx.unpack(any)?;
            let routes = cx.each("routes", routes, |cx, value| route(cx, value, level).map(Arc::new));
            Some(MatchedRoutes(routes.into()))
        }
        other => {
            cx.error("", format_args!("there is no action {other:?}"));
            None
        }
    }
}

fn buffer_limit(old: Option<pb::UInt32Value>, new: Option<pb::UInt64Value>) -> Option<u64> {
    new.map(|value| value.value).or(old.map(|value| value.value.into()))
}

fn route(cx: &mut Cx<'_>, value: pb::route::Route, level: &Level<'_>) -> Option<Route> {
    let pb::route::Route {
        name,
        r#match,
        metadata,
        decorator,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix,
        request_body_buffer_limit,
        route_specifiers,
        action,
    } = value;
    cx.refuse("route_specifiers", &route_specifiers);
    let matching = cx.required("match", r#match, matching::route_match);
    let action = action::action(cx, action, level.body_limit);
    if let (Some(matching), Some(action)) = (&matching, &action) {
        action::check_template(cx, &matching.path, action);
    }
    Some(Route {
        name: arc(name),
        request_headers: headers::ops(
            cx,
            &headers::REQUEST,
            request_headers_to_add,
            request_headers_to_remove,
        ),
        response_headers: headers::ops(
            cx,
            &headers::RESPONSE,
            response_headers_to_add,
            response_headers_to_remove,
        ),
        decorator: decorator.map(|decorator| {
            let pb::route::Decorator { operation, propagate } = decorator;
            Decorator { operation: arc(operation), propagate: values::bool_or(propagate, true) }
        }),
        tracing: cx.option("tracing", tracing, route_tracing),
        request_body_buffer_limit: buffer_limit(per_request_buffer_limit_bytes, request_body_buffer_limit),
        stat_name: if stat_prefix.is_empty() {
            Arc::default()
        } else {
            Arc::from(format!("{}.route.{stat_prefix}", level.host))
        },
        per_filter: per_filter::all(cx, typed_per_filter_config),
        metadata: values::metadata(cx, "metadata", metadata),
        matching: matching?,
        action: action?,
    })
}

fn route_tracing(cx: &mut Cx<'_>, value: pb::route::Tracing) -> Option<RouteTracing> {
    let pb::route::Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        custom_tags,
        operation,
        upstream_operation,
    } = value;
    let spans = crate::tracing::convert::of_route(cx, custom_tags, &operation, &upstream_operation);
    let mut sampling =
        |field: &str, value| cx.option(field, value, values::fraction).unwrap_or(Fraction::ALWAYS);
    Some(RouteTracing {
        client_sampling: sampling("client_sampling", client_sampling),
        random_sampling: sampling("random_sampling", random_sampling),
        overall_sampling: sampling("overall_sampling", overall_sampling),
        spans,
    })
}
