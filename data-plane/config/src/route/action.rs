//! What a route does: `RouteAction`, `RedirectAction`, `DirectResponseAction`.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use sail_proxy_decide::format::Format;
use sail_proxy_decide::path_template::TemplateRewrite;
use sail_proxy_decide::rate_limit::descriptor::RouteLimits;
use sail_proxy_decide::route::{
    Action, ClusterSpecifier, ConnectConfig, ConnectHeader, DirectResponse, HostRewrite, MaxStreamDuration,
    PathMatch, PathRewrite, Priority, Redirect, RedirectPath, RouteAction, Scheme, UpgradeConfig,
    WeightedCluster, WeightedClusters,
};
use xds_api::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;

use super::{cors, hash_policy, internal_redirect, mirror, per_filter, policies, retry};
use crate::convert::{Cx, arc, headers, matchers, type_name, values};
use crate::pb;
use crate::pb::route::route::Action as Kind;

pub(super) fn action(cx: &mut Cx<'_>, value: Option<Kind>, body_limit: usize) -> Option<Action> {
    match value {
        Some(Kind::Route(value)) => {
            cx.within("route", |cx| forward(cx, value)).map(|route| Action::Route(Box::new(route)))
        }
        Some(Kind::Redirect(value)) => cx.within("redirect", |cx| redirect(cx, value)).map(Action::Redirect),
        Some(Kind::DirectResponse(value)) => cx
            .within("direct_response", |cx| direct_response(cx, value, body_limit))
            .map(Action::DirectResponse),
        Some(Kind::NonForwardingAction(_)) => Some(Action::NonForwarding),
        Some(Kind::FilterAction(_)) => {
            cx.error("filter_action", "it is not supported");
            None
        }
        None => {
            cx.error("action", "it must be set");
            None
        }
    }
}

fn direct_response(
    cx: &mut Cx<'_>,
    value: pb::route::DirectResponseAction,
    limit: usize,
) -> Option<DirectResponse> {
    let pb::route::DirectResponseAction { status, body, body_format } = value;
    let status = cx.ok("status", status_code(status));
    let body = cx.option("body", body, values::data).map(|(bytes, _)| bytes).unwrap_or_default();
    if body.len() > limit {
        cx.error("body", format_args!("it has {} bytes, more than the {limit} that are allowed", body.len()));
    }
    let body_format = cx.option("body_format", body_format, crate::hcm::convert::body_format);
    Some(DirectResponse { status: status?, body: body.into(), body_format })
}

/// A status between 200 and 599.
pub(crate) fn status_code(status: u32) -> Result<StatusCode, String> {
    let code = u16::try_from(status).ok().filter(|code| (200..600).contains(code));
    code.and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| format!("{status} is not between 200 and 599"))
}

pub(crate) fn redirect(cx: &mut Cx<'_>, value: pb::route::RedirectAction) -> Option<Redirect> {
    use pb::route::redirect_action::{
        PathRewriteSpecifier, RedirectResponseCode as Code, SchemeRewriteSpecifier,
    };
    let pb::route::RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = value;
    let scheme = match scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some(Scheme::Https),
        Some(SchemeRewriteSpecifier::HttpsRedirect(false)) | None => None,
        Some(SchemeRewriteSpecifier::SchemeRedirect(name)) => {
            Some(Scheme::Named(name.to_ascii_lowercase().into()))
        }
    };
    let path = match path_rewrite_specifier {
        None => None,
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            Some(RedirectPath::Full(headers::text(cx, "path_redirect", path)))
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            Some(RedirectPath::Prefix(headers::text(cx, "prefix_rewrite", prefix)))
        }
        Some(PathRewriteSpecifier::RegexRewrite(value)) => {
            cx.within("regex_rewrite", |cx| matchers::rewrite(cx, value)).map(RedirectPath::Regex)
        }
        Some(PathRewriteSpecifier::PathRewrite(path)) if path.is_empty() => None,
        Some(PathRewriteSpecifier::PathRewrite(path)) => {
            cx.within("path_rewrite", |cx| headers::format(cx, &path)).map(RedirectPath::Format)
        }
    };
    let status = match Code::try_from(response_code) {
        Ok(Code::MovedPermanently) => StatusCode::MOVED_PERMANENTLY,
        Ok(Code::Found) => StatusCode::FOUND,
        Ok(Code::SeeOther) => StatusCode::SEE_OTHER,
        Ok(Code::TemporaryRedirect) => StatusCode::TEMPORARY_REDIRECT,
        Ok(Code::PermanentRedirect) => StatusCode::PERMANENT_REDIRECT,
        Err(_) => {
            cx.error("response_code", "it is not known");
            return None;
        }
    };
    let port =
        if port_redirect == 0 { None } else { Some(values::port(cx, "port_redirect", port_redirect)?) };
    let host = (!host_redirect.is_empty()).then(|| headers::text(cx, "host_redirect", host_redirect));
    Some(Redirect { scheme, host, port, path, status, strip_query, keep_port: false })
}

fn forward(cx: &mut Cx<'_>, value: pb::route::RouteAction) -> Option<RouteAction> {
    let pb::route::RouteAction {
        cluster_not_found_response_code,
        metadata_match,
        prefix_rewrite,
        regex_rewrite,
        path_rewrite_policy,
        path_rewrite,
        append_x_forwarded_host,
        timeout,
        idle_timeout,
        flush_timeout,
        early_data_policy,
        retry_policy,
        retry_policy_typed_config,
        request_mirror_policies,
        priority,
        rate_limits,
        include_vh_rate_limits,
        hash_policy: hash_policies,
        cors,
        max_grpc_timeout,
        grpc_timeout_offset,
        upgrade_configs,
        internal_redirect_policy,
        internal_redirect_action,
        max_internal_redirects,
        hedge_policy,
        max_stream_duration,
        cluster_specifier,
        host_rewrite_specifier,
    } = value;
    cx.ignore(
        "early_data_policy",
        &early_data_policy,
        "no request comes or goes before a handshake has ended",
    );
    cx.refuse("retry_policy_typed_config", &retry_policy_typed_config);
    let rewrites = [
        !prefix_rewrite.is_empty(),
        regex_rewrite.is_some(),
        !path_rewrite.is_empty(),
        path_rewrite_policy.is_some(),
    ];
    if rewrites.into_iter().filter(|set| *set).count() > 1 {
        cx.error(
            "",
            "prefix_rewrite, regex_rewrite, path_rewrite and path_rewrite_policy exclude each other",
        );
    }
    let path_rewrite = if !prefix_rewrite.is_empty() {
        Some(PathRewrite::Prefix(headers::text(cx, "prefix_rewrite", prefix_rewrite)))
    } else if !path_rewrite.is_empty() {
        cx.within("path_rewrite", |cx| headers::format(cx, &path_rewrite)).map(PathRewrite::Format)
    } else if path_rewrite_policy.is_some() {
        cx.option("path_rewrite_policy", path_rewrite_policy, template).map(PathRewrite::Template)
    } else {
        cx.option("regex_rewrite", regex_rewrite, matchers::rewrite).map(PathRewrite::Regex)
    };
    let cluster = cluster(cx, cluster_specifier);
    Some(RouteAction {
        rate_limits: RouteLimits {
            limits: super::rate_limit::all(cx, "rate_limits", rate_limits),
            include_virtual_host: values::bool_or(include_vh_rate_limits, false),
        },
        cluster_not_found_status: not_found(cx, cluster_not_found_response_code),
        metadata_match: values::metadata(cx, "metadata_match", metadata_match),
        path_rewrite,
        host_rewrite: host_rewrite(cx, host_rewrite_specifier),
        append_x_forwarded_host,
        timeout: values::limit(cx, "timeout", timeout, Some(Duration::from_secs(15))),
        idle_timeout: values::duration(cx, "idle_timeout", idle_timeout),
        flush_timeout: values::duration(cx, "flush_timeout", flush_timeout),
        max_stream_duration: cx.option("max_stream_duration", max_stream_duration, stream_duration),
        max_grpc_timeout: values::duration(cx, "max_grpc_timeout", max_grpc_timeout),
        grpc_timeout_offset: values::duration(cx, "grpc_timeout_offset", grpc_timeout_offset),
        retry: cx.option("retry_policy", retry_policy, retry).map(Arc::new),
        hedge_on_per_try_timeout: cx.option("hedge_policy", hedge_policy, policies::hedge),
        mirrors: cx
            .each("request_mirror_policies", request_mirror_policies, |cx, value| {
                mirror(cx, value).map(Arc::new)
            })
            .into(),
        priority: if priority == pb::core::RoutingPriority::High as i32 {
            Priority::High
        } else {
            Priority::Default
        },
        hash_policy: cx.each("hash_policy", hash_policies, hash_policy).into(),
        cors: cx.option("cors", cors, cors::route_policy).map(Arc::new),
        upgrades: upgrades(cx, upgrade_configs).into(),
        internal_redirect: internal_redirect::policy(
            cx,
            internal_redirect_policy,
            internal_redirect_action,
            max_internal_redirects,
        ),
        cluster: cluster?,
    })
}

/// A path is made of the variables of a template: the route must match by one that has them.
pub(super) fn check_template(cx: &mut Cx<'_>, matched: &PathMatch, action: &Action) {
    let Action::Route(route) = action else { return };
    if let (PathMatch::Template(_), Some(PathRewrite::Prefix(_))) = (matched, &route.path_rewrite) {
        cx.error("route.prefix_rewrite", "it does not go with a match by path_match_policy");
    }
    let Some(PathRewrite::Template(rewrite)) = &route.path_rewrite else { return };
    let PathMatch::Template(template) = matched else {
        return cx.error("route.path_rewrite_policy", "it needs a match by path_match_policy");
    };
    for name in rewrite.variables().filter(|name| !template.has_variable(name)) {
        cx.error("route.path_rewrite_policy", format_args!("the path's template has no variable {name}"));
    }
}

fn template(cx: &mut Cx<'_>, value: pb::core::TypedExtensionConfig) -> Option<TemplateRewrite> {
    cx.within("typed_config", |cx| {
        let any = value.typed_config.unwrap_or_default();
        if type_name(&any) != "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig" {
            cx.error("", format_args!("the path rewriter {:?} is not supported", type_name(&any)));
            return None;
        }
        let UriTemplateRewriteConfig { path_template_rewrite } = cx.unpack(&any)?;
        cx.ok("path_template_rewrite", TemplateRewrite::new(&path_template_rewrite))
    })
}

fn not_found(cx: &mut Cx<'_>, code: i32) -> StatusCode {
    use pb::route::route_action::ClusterNotFoundResponseCode as Code;
    match Code::try_from(code) {
        Ok(Code::ServiceUnavailable) => StatusCode::SERVICE_UNAVAILABLE,
        Ok(Code::NotFound) => StatusCode::NOT_FOUND,
        Ok(Code::InternalServerError) => StatusCode::INTERNAL_SERVER_ERROR,
        Err(_) => {
            cx.error("cluster_not_found_response_code", "it is not known");
            StatusCode::SERVICE_UNAVAILABLE
        }
    }
}

fn stream_duration(
    cx: &mut Cx<'_>,
    value: pb::route::route_action::MaxStreamDuration,
) -> Option<MaxStreamDuration> {
    let pb::route::route_action::MaxStreamDuration {
        max_stream_duration,
        grpc_timeout_header_max,
        grpc_timeout_header_offset,
    } = value;
    Some(MaxStreamDuration {
        max_stream_duration: values::duration(cx, "max_stream_duration", max_stream_duration),
        grpc_timeout_header_max: values::duration(cx, "grpc_timeout_header_max", grpc_timeout_header_max),
        grpc_timeout_header_offset: values::duration(
            cx,
            "grpc_timeout_header_offset",
            grpc_timeout_header_offset,
        ),
    })
}

fn upgrades(cx: &mut Cx<'_>, values: Vec<pb::route::route_action::UpgradeConfig>) -> Vec<UpgradeConfig> {
    let all: Vec<UpgradeConfig> = cx.each("upgrade_configs", values, upgrade);
    each_once(cx, all.iter().map(|config| &*config.upgrade_type));
    all
}

/// Two entries for one upgrade could say different things.
pub(crate) fn each_once<'a>(cx: &mut Cx<'_>, types: impl Iterator<Item = &'a str>) {
    let mut known = hashbrown::HashSet::new();
    for name in types {
        if !known.insert(name) {
            cx.error("upgrade_configs", format_args!("{name} is there twice"));
        }
    }
}

fn upgrade(cx: &mut Cx<'_>, value: pb::route::route_action::UpgradeConfig) -> Option<UpgradeConfig> {
    let pb::route::route_action::UpgradeConfig { upgrade_type, enabled, connect_config } = value;
    let upgrade_type = upgrade_kind(cx, &upgrade_type);
    if connect_config.is_some() && &*upgrade_type != "connect" {
        cx.error("connect_config", "it goes with the upgrade type CONNECT alone");
    }
    let connect = cx.option("connect_config", connect_config, |cx, value| {
        let pb::route::route_action::upgrade_config::ConnectConfig { proxy_protocol_config, allow_post } =
            value;
        let proxy_protocol = cx.option("proxy_protocol_config", proxy_protocol_config, connect_header);
        Some(ConnectConfig { allow_post, proxy_protocol })
    });
    Some(UpgradeConfig { upgrade_type, enabled: values::bool_or(enabled, true), connect })
}

/// An upgrade's name in lower case; UDP is not carried.
pub(crate) fn upgrade_kind(cx: &mut Cx<'_>, name: &str) -> Box<str> {
    if name.is_empty() {
        cx.error("upgrade_type", "it must be set");
    }
    let kind = name.to_ascii_lowercase();
    if kind == "connect-udp" {
        cx.error("upgrade_type", "CONNECT-UDP is not supported");
    }
    kind.into()
}

fn connect_header(cx: &mut Cx<'_>, value: pb::core::ProxyProtocolConfig) -> Option<ConnectHeader> {
    let pb::core::ProxyProtocolConfig { version, pass_through_tlvs, added_tlvs } = value;
    cx.refuse("pass_through_tlvs", &pass_through_tlvs);
    cx.refuse("added_tlvs", &added_tlvs);
    Some(if version == 0 { ConnectHeader::V1 } else { ConnectHeader::V2 })
}

fn host_rewrite(
    cx: &mut Cx<'_>,
    value: Option<pb::route::route_action::HostRewriteSpecifier>,
) -> Option<HostRewrite> {
    use pb::route::route_action::HostRewriteSpecifier as Kind;
    match value? {
        Kind::HostRewriteLiteral(text) => headers::value(cx, "host_rewrite_literal", &text)
            .map(HostRewrite::Literal)
            .filter(|_| !text.is_empty()),
        Kind::AutoHostRewrite(value) => value.value.then_some(HostRewrite::Auto),
        Kind::HostRewriteHeader(name) => {
            headers::name(cx, "host_rewrite_header", &name).map(HostRewrite::Header)
        }
        Kind::HostRewritePathRegex(value) => cx
            .within("host_rewrite_path_regex", |cx| matchers::rewrite(cx, value))
            .map(HostRewrite::PathRegex),
        Kind::HostRewrite(text) => {
            let format: Option<Format> = cx.within("host_rewrite", |cx| headers::format(cx, &text));
            format.map(HostRewrite::Format)
        }
    }
}

fn cluster(
    cx: &mut Cx<'_>,
    value: Option<pb::route::route_action::ClusterSpecifier>,
) -> Option<ClusterSpecifier> {
    use pb::route::route_action::ClusterSpecifier as Kind;
    match value {
        Some(Kind::Cluster(name)) if !name.is_empty() => Some(ClusterSpecifier::Name(arc(name))),
        Some(Kind::Cluster(_)) => {
            cx.error("cluster", "it must not be empty");
            None
        }
        Some(Kind::ClusterHeader(name)) => {
            headers::key(cx, "cluster_header", &name).map(ClusterSpecifier::Header)
        }
        Some(Kind::WeightedClusters(value)) => {
            cx.within("weighted_clusters", |cx| weighted(cx, value)).map(ClusterSpecifier::Weighted)
        }
        Some(Kind::ClusterSpecifierPlugin(_)) => {
            cx.error("cluster_specifier_plugin", "it is not supported");
            None
        }
        Some(Kind::InlineClusterSpecifierPlugin(_)) => {
            cx.error("inline_cluster_specifier_plugin", "it is not supported");
            None
        }
        None => {
            cx.error("cluster_specifier", "it must be set");
            None
        }
    }
}

fn weighted(cx: &mut Cx<'_>, value: pb::route::WeightedCluster) -> Option<WeightedClusters> {
    use pb::route::weighted_cluster::RandomValueSpecifier;
    // The sum is what the weights give, as in today's Envoy.
    let pb::route::WeightedCluster { clusters, total_weight: _, runtime_key_prefix, random_value_specifier } =
        value;
    let mut use_hash_policy = false;
    let random_header = match random_value_specifier {
        None => None,
        Some(RandomValueSpecifier::HeaderName(name)) => headers::name(cx, "header_name", &name),
        Some(RandomValueSpecifier::UseHashPolicy(value)) => {
            use_hash_policy = value.value;
            None
        }
    };
    let clusters =
        cx.each("clusters", clusters, |cx, value| weight(cx, value, &runtime_key_prefix).map(Arc::new));
    let total_weight = clusters.iter().map(|cluster| u64::from(cluster.weight)).sum();
    if total_weight == 0 {
        cx.error("clusters", "the sum of the weights must be above 0");
        return None;
    }
    if total_weight > u64::from(u32::MAX) {
        cx.error("clusters", "the sum of the weights must be below 2^32");
    }
    Some(WeightedClusters { clusters: clusters.into(), total_weight, random_header, use_hash_policy })
}

fn weight(
    cx: &mut Cx<'_>,
    value: pb::route::weighted_cluster::ClusterWeight,
    runtime_prefix: &str,
) -> Option<WeightedCluster> {
    use pb::route::weighted_cluster::cluster_weight::HostRewriteSpecifier;
    let pb::route::weighted_cluster::ClusterWeight {
        name,
        cluster_header,
        weight,
        metadata_match,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        typed_per_filter_config,
        host_rewrite_specifier,
    } = value;
    if name.is_empty() == cluster_header.is_empty() {
        cx.error("name", "either name or cluster_header must be set");
    }
    let cluster_header =
        if cluster_header.is_empty() { None } else { headers::key(cx, "cluster_header", &cluster_header) };
    let host_rewrite = match host_rewrite_specifier {
        Some(HostRewriteSpecifier::HostRewriteLiteral(text)) => {
            headers::value(cx, "host_rewrite_literal", &text).map(HostRewrite::Literal)
        }
        None => None,
    };
    let named = !runtime_prefix.is_empty() && !name.is_empty();
    Some(WeightedCluster {
        runtime_key: if named { format!("{runtime_prefix}.{name}").into() } else { Box::default() },
        name: arc(name),
        cluster_header,
        weight: values::u32_or(weight, 0),
        metadata_match: values::metadata(cx, "metadata_match", metadata_match),
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
        per_filter: per_filter::all(cx, typed_per_filter_config),
        host_rewrite,
    })
}
