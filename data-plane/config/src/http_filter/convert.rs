//! HTTP filters from their `Any`s.

use std::sync::Arc;

use http::StatusCode;
use sail_proxy_decide::fraction::Fraction;
use sail_proxy_decide::headers::{HeaderOps, Mutation, Mutations};
use sail_proxy_decide::rate_limit::LocalRateLimit;
use xds_api::istio::alpn;

use super::{AlpnOverride, GrpcMethods, GrpcStats, HttpFilter, HttpFilterKind, JwtAuthn, Router};
use crate::convert::{Cx, arc, headers, matchers, type_name, values};
use crate::pb;
use crate::pb::filters::http as filters;
use crate::{access_log, network_filter, rbac, route};

/// All filters; the last one must be the router.
pub(crate) fn all(cx: &mut Cx<'_>, field: &str, values: Vec<pb::hcm::HttpFilter>) -> Arc<[HttpFilter]> {
    let filters = cx.each(field, values, filter);
    let routers = filters.iter().filter(|filter| matches!(filter.kind, HttpFilterKind::Router(_))).count();
    let last = filters.last().is_some_and(|filter| matches!(filter.kind, HttpFilterKind::Router(_)));
    if !last || routers > 1 {
        cx.error(field, "the router must be there, once, as the last filter");
    }
    filters.into()
}

fn filter(cx: &mut Cx<'_>, value: pb::hcm::HttpFilter) -> Option<HttpFilter> {
    use pb::hcm::http_filter::ConfigType;
    let pb::hcm::HttpFilter { name, is_optional, disabled, config_type } = value;
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(_)) if is_optional => {
            cx.warn(
                "config_discovery",
                format_args!("the optional filter {name:?} is left out: ECDS is not spoken"),
            );
            return None;
        }
        Some(ConfigType::ConfigDiscovery(_)) => {
            cx.error("config_discovery", "it is not supported");
            return None;
        }
        None => {
            cx.error("typed_config", format_args!("the filter {name:?} has no configuration"));
            return None;
        }
    };
    if is_optional && !known(type_name(&any)) {
        cx.warn(
            "typed_config",
            format_args!("the optional filter {name:?} is left out: there is no {:?}", type_name(&any)),
        );
        return None;
    }
    let kind = cx.within("typed_config", |cx| kind(cx, &any))?;
    Some(HttpFilter { name: arc(name), disabled, kind })
}

fn known(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// Types of HTTP filters that there are.
pub const KNOWN: &[&str] = &[
    "envoy.extensions.filters.http.buffer.v3.Buffer",
    "envoy.extensions.filters.http.cors.v3.Cors",
    "envoy.extensions.filters.http.fault.v3.HTTPFault",
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
    "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    "envoy.extensions.filters.http.rbac.v3.RBAC",
    "envoy.extensions.filters.http.router.v3.Router",
    "envoy.extensions.filters.http.set_filter_state.v3.Config",
    "io.istio.http.peer_metadata.Config",
    "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
    "stats.PluginConfig",
];

fn kind(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HttpFilterKind> {
    Some(match type_name(any) {
        "envoy.extensions.filters.http.router.v3.Router" => {
            let value = cx.unpack(any)?;
            HttpFilterKind::Router(Arc::new(router(cx, value)))
        }
        "envoy.extensions.filters.http.rbac.v3.RBAC" => {
            let value = cx.unpack(any)?;
            HttpFilterKind::Rbac(Arc::new(rbac::http(cx, value)?))
        }
        "envoy.extensions.filters.http.fault.v3.HTTPFault" => {
            let value = cx.unpack(any)?;
            HttpFilterKind::Fault(Arc::new(route::fault::fault(cx, value)?))
        }
        "envoy.extensions.filters.http.cors.v3.Cors" => HttpFilterKind::Cors,
        "io.istio.http.peer_metadata.Config" => HttpFilterKind::PeerMetadata(Arc::new(cx.unpack(any)?)),
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig" => {
            HttpFilterKind::Alpn(Arc::new(alpn_override(cx.unpack(any)?)))
        }
        "stats.PluginConfig" => HttpFilterKind::IstioStats(Arc::new(cx.unpack(any)?)),
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig" => {
            HttpFilterKind::GrpcStats(Arc::new(grpc_stats(cx.unpack(any)?)))
        }
        "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb" => HttpFilterKind::GrpcWeb,
        "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit" => {
            let value = cx.unpack(any)?;
            HttpFilterKind::LocalRateLimit(Arc::new(local_rate_limit(cx, value)?))
        }
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation" => {
            let filters::header_mutation::v3::HeaderMutation {
                mutations,
                most_specific_header_mutations_wins: _,
            } = cx.unpack(any)?;
            let mutations = cx.option("mutations", mutations, self::mutations).unwrap_or_default();
            HttpFilterKind::HeaderMutation(Arc::new(mutations))
        }
        "envoy.extensions.filters.http.buffer.v3.Buffer" => {
            let filters::buffer::v3::Buffer { max_request_bytes } = cx.unpack(any)?;
            HttpFilterKind::Buffer(
                cx.required("max_request_bytes", max_request_bytes, |_, value| Some(value.value))?,
            )
        }
        "envoy.extensions.filters.http.set_filter_state.v3.Config" => {
            let filters::set_filter_state::v3::Config { on_request_headers, clear_route_cache } =
                cx.unpack(any)?;
            cx.refuse("clear_route_cache", &clear_route_cache);
            let values = cx.each("on_request_headers", on_request_headers, network_filter::filter_state);
            HttpFilterKind::SetFilterState(values.into())
        }
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication" => {
            HttpFilterKind::JwtAuthn(Arc::new(JwtAuthn { config: cx.unpack(any)? }))
        }
        other => {
            cx.error("", format_args!("there is no HTTP filter {other:?}"));
            return None;
        }
    })
}

fn router(cx: &mut Cx<'_>, value: filters::router::v3::Router) -> Router {
    let filters::router::v3::Router {
        dynamic_stats,
        start_child_span,
        upstream_log,
        upstream_log_options,
        suppress_envoy_headers,
        strict_check_headers,
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_http_filters,
        reject_connect_request_early_data,
    } = value;
    cx.refuse("upstream_log_options", &upstream_log_options);
    cx.unserved("upstream_log", &upstream_log);
    cx.refuse("strict_check_headers", &strict_check_headers);
    cx.refuse("upstream_http_filters", &upstream_http_filters);
    cx.refuse("reject_connect_request_early_data", &reject_connect_request_early_data);
    Router {
        suppress_envoy_headers,
        start_child_span,
        dynamic_stats: values::bool_or(dynamic_stats, true),
        respect_expected_rq_timeout,
        suppress_grpc_request_failure_code_stats,
        upstream_logs: access_log::all(cx, "upstream_log", upstream_log),
    }
}

fn alpn_override(value: alpn::FilterConfig) -> AlpnOverride {
    use alpn::filter_config::Protocol;
    let mut result = AlpnOverride::default();
    for entry in value.alpn_override {
        let list: Box<[Box<str>]> = entry.alpn_override.into_iter().map(Box::from).collect();
        match Protocol::try_from(entry.upstream_protocol) {
            Ok(Protocol::Http10) | Err(_) => result.http10 = list,
            Ok(Protocol::Http11) => result.http11 = list,
            Ok(Protocol::Http2) => result.http2 = list,
        }
    }
    result
}

fn grpc_stats(value: filters::grpc_stats::v3::FilterConfig) -> GrpcStats {
    use filters::grpc_stats::v3::filter_config::PerMethodStatSpecifier as Kind;
    let filters::grpc_stats::v3::FilterConfig {
        emit_filter_state,
        enable_upstream_stats,
        // Stat names here never have dots replaced by anything that a tag would not undo.
        replace_dots_in_grpc_service_name: _,
        per_method_stat_specifier,
    } = value;
    let methods = match per_method_stat_specifier {
        None => GrpcMethods::None,
        Some(Kind::StatsForAllMethods(value)) if value.value => GrpcMethods::All,
        Some(Kind::StatsForAllMethods(_)) => GrpcMethods::None,
        Some(Kind::IndividualMethodStatsAllowlist(list)) => GrpcMethods::Listed(
            list.services
                .into_iter()
                .map(|service| {
                    (service.name.into(), service.method_names.into_iter().map(Box::from).collect())
                })
                .collect(),
        ),
    };
    GrpcStats { emit_filter_state, enable_upstream_stats, methods }
}

/// `LocalRateLimit`
pub(crate) fn local_rate_limit(
    cx: &mut Cx<'_>,
    value: filters::local_ratelimit::v3::LocalRateLimit,
) -> Option<LocalRateLimit> {
    let filters::local_ratelimit::v3::LocalRateLimit {
        stat_prefix,
        status,
        token_bucket,
        filter_enabled,
        filter_enforced,
        request_headers_to_add_when_not_enforced,
        response_headers_to_add,
        descriptors,
        stage: _,
        local_rate_limit_per_downstream_connection,
        local_cluster_rate_limit,
        enable_x_ratelimit_headers,
        vh_rate_limits: _,
        always_consume_default_token_bucket: _,
        rate_limited_as_resource_exhausted,
        rate_limits,
        max_dynamic_descriptors: _,
        enable_retry_after_header,
    } = value;
    cx.refuse("descriptors", &descriptors);
    cx.refuse("local_cluster_rate_limit", &local_cluster_rate_limit);
    cx.refuse("rate_limits", &rate_limits);
    cx.refuse("enable_retry_after_header", &enable_retry_after_header);
    let status = match status.and_then(|status| u16::try_from(status.code).ok()) {
        // Below 400 Envoy answers 429.
        Some(code) if code >= 400 => StatusCode::from_u16(code).unwrap_or(StatusCode::TOO_MANY_REQUESTS),
        _ => StatusCode::TOO_MANY_REQUESTS,
    };
    let share = |cx: &mut Cx<'_>, field: &str, value| {
        cx.option(field, value, values::runtime_fraction).map_or(Fraction::NEVER, |fraction| fraction.default)
    };
    let add = |cx: &mut Cx<'_>, field: &str, value| HeaderOps {
        add: cx.each(field, value, headers::add).into(),
        remove: Box::default(),
    };
    Some(LocalRateLimit {
        stat_prefix: arc(stat_prefix),
        status,
        bucket: cx.option("token_bucket", token_bucket, network_filter::token_bucket),
        enabled: share(cx, "filter_enabled", filter_enabled),
        enforced: share(cx, "filter_enforced", filter_enforced),
        request_headers_when_not_enforced: add(
            cx,
            "request_headers_to_add_when_not_enforced",
            request_headers_to_add_when_not_enforced,
        ),
        response_headers: add(cx, "response_headers_to_add", response_headers_to_add),
        per_downstream_connection: local_rate_limit_per_downstream_connection,
        as_resource_exhausted: rate_limited_as_resource_exhausted,
        x_ratelimit_headers: enable_x_ratelimit_headers != 0,
    })
}

/// `Mutations`
pub(crate) fn mutations(
    cx: &mut Cx<'_>,
    value: filters::header_mutation::v3::Mutations,
) -> Option<Mutations> {
    let filters::header_mutation::v3::Mutations {
        request_mutations,
        query_parameter_mutations,
        response_mutations,
        response_trailers_mutations,
        request_trailers_mutations,
    } = value;
    cx.refuse("query_parameter_mutations", &query_parameter_mutations);
    cx.refuse("response_trailers_mutations", &response_trailers_mutations);
    cx.refuse("request_trailers_mutations", &request_trailers_mutations);
    Some(Mutations {
        request: cx.each("request_mutations", request_mutations, mutation).into(),
        response: cx.each("response_mutations", response_mutations, mutation).into(),
    })
}

fn mutation(cx: &mut Cx<'_>, value: pb::mutation_rules::HeaderMutation) -> Option<Mutation> {
    use pb::mutation_rules::header_mutation::Action;
    match value.action {
        Some(Action::Remove(name)) => {
            cx.within("remove", |cx| headers::removed(cx, name)).map(Mutation::Remove)
        }
        Some(Action::Append(value)) => cx.within("append", |cx| headers::add(cx, value)).map(Mutation::Add),
        Some(Action::RemoveOnMatch(value)) => cx
            .required("remove_on_match.key_matcher", value.key_matcher, matchers::string)
            .map(Mutation::RemoveMatching),
        None => {
            cx.error("action", "it must be set");
            None
        }
    }
}
