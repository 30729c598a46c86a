//! `ratelimit`: a service counts.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use sail_proxy_decide::fraction::{Fraction, RuntimeFraction};
use sail_proxy_decide::headers::HeaderOps;
use sail_proxy_decide::rate_limit::descriptor::{RateLimit as Limit, VirtualHostLimits};
use sail_proxy_decide::route::PerFilterConfig;

use super::local_rate_limit::virtual_host_limits;
use super::{Entry, HttpFilterKind, PerRoute};
use crate::callout::{self, GrpcTarget};
use crate::convert::{Cx, arc, headers, values};
use crate::pb::filters::http::ratelimit::v3 as proto;
use crate::{pb, route};

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
    convert: |cx, any| {
        let value = cx.unpack(any)?;
        rate_limit(cx, value).map(|config| HttpFilterKind::RateLimit(Arc::new(config)))
    },
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute",
        convert: read_per_route,
    }),
};

/// How long the service may take where nothing is said.
const TIMEOUT: Duration = Duration::from_millis(20);

/// `RateLimit`
#[derive(Debug)]
pub struct RateLimit {
    /// What statistics bear in their names; may be empty.
    pub stat_prefix: Arc<str>,
    /// Whose descriptors these are.
    pub domain: Arc<str>,
    /// Which of the route's limits count.
    pub stage: u32,
    /// Which requests count: those from inside, from outside, or both.
    pub requests: Requests,
    /// The service.
    pub service: GrpcTarget,
    /// Whether requests are refused if the service fails.
    pub failure_mode_deny: bool,
    /// For how many of them.
    pub failure_mode_deny_percent: Option<RuntimeFraction>,
    /// Whether gRPC requests are answered `RESOURCE_EXHAUSTED`.
    pub as_resource_exhausted: bool,
    /// Whether responses tell of the limit (`x-ratelimit-*`).
    pub x_ratelimit_headers: bool,
    /// Whether `x-envoy-ratelimited` stays out.
    pub disable_ratelimited_header: bool,
    /// What a limited request is answered.
    pub status: StatusCode,
    /// Header operations on such answers.
    pub response_headers: HeaderOps,
    /// What is answered where the service fails.
    pub status_on_error: StatusCode,
    /// For how many requests the service is asked.
    pub enabled: RuntimeFraction,
    /// For how many of these the answer counts.
    pub enforced: RuntimeFraction,
    /// Limits in place of the route's.
    pub limits: Box<[Limit]>,
    /// Whether limited requests are told when to come back.
    pub retry_after: bool,
}

/// `request_type`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requests {
    /// All.
    Both,
    /// From inside.
    Internal,
    /// From outside.
    External,
}

/// `RateLimitPerRoute`
#[derive(Debug)]
pub struct RateLimitPerRoute {
    /// Which of the virtual host's limits count.
    pub virtual_host_limits: VirtualHostLimits,
    /// Limits in place of the route's.
    pub limits: Box<[Limit]>,
    /// Whose descriptors these are; empty: the filter's.
    pub domain: Arc<str>,
}

fn status(
    cx: &mut Cx<'_>,
    field: &str,
    value: Option<pb::ty::HttpStatus>,
    default: StatusCode,
) -> StatusCode {
    let Some(value) = value.filter(|value| value.code != 0) else { return default };
    let code = u16::try_from(value.code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    code.unwrap_or_else(|| {
        cx.error(field, format_args!("{} is no status", value.code));
        default
    })
}

fn rate_limit(cx: &mut Cx<'_>, value: proto::RateLimit) -> Option<RateLimit> {
    let proto::RateLimit {
        domain,
        stage,
        request_type,
        timeout,
        failure_mode_deny,
        rate_limited_as_resource_exhausted,
        rate_limit_service,
        enable_x_ratelimit_headers,
        disable_x_envoy_ratelimited_header,
        rate_limited_status,
        response_headers_to_add,
        status_on_error,
        stat_prefix,
        filter_enabled,
        filter_enforced,
        failure_mode_deny_percent,
        rate_limits,
        metadata_namespace,
        enable_retry_after_header,
    } = value;
    if domain.is_empty() {
        cx.error("domain", "it must be set");
    }
    cx.refuse("metadata_namespace", &metadata_namespace);
    let requests = match &*request_type {
        "" | "both" => Requests::Both,
        "internal" => Requests::Internal,
        "external" => Requests::External,
        other => {
            cx.error("request_type", format_args!("{other:?} is none of internal, external, both"));
            return None;
        }
    };
    let service = cx.required("rate_limit_service", rate_limit_service, |_, value| Some(value))?;
    let mut service = cx.required("rate_limit_service.grpc_service", service.grpc_service, |cx, value| {
        callout::grpc(cx, value, TIMEOUT)
    })?;
    if timeout.is_some() {
        service.timeout = values::limit(cx, "timeout", timeout, Some(TIMEOUT));
    }
    let share = |cx: &mut Cx<'_>, field: &str, value| {
        let value = cx.option(field, value, values::runtime_fraction);
        value.unwrap_or(RuntimeFraction::fixed(Fraction::ALWAYS))
    };
    Some(RateLimit {
        stat_prefix: arc(stat_prefix),
        domain: arc(domain),
        stage,
        requests,
        service,
        failure_mode_deny,
        failure_mode_deny_percent: cx.option(
            "failure_mode_deny_percent",
            failure_mode_deny_percent,
            values::runtime_fraction,
        ),
        as_resource_exhausted: rate_limited_as_resource_exhausted,
        x_ratelimit_headers: enable_x_ratelimit_headers != 0,
        disable_ratelimited_header: disable_x_envoy_ratelimited_header,
        // Below 400 Envoy answers 429.
        status: match status(cx, "rate_limited_status", rate_limited_status, StatusCode::TOO_MANY_REQUESTS) {
            status if status.as_u16() < 400 => StatusCode::TOO_MANY_REQUESTS,
            status => status,
        },
        response_headers: HeaderOps {
            add: cx.each("response_headers_to_add", response_headers_to_add, headers::add).into(),
            remove: Box::default(),
        },
        status_on_error: status(cx, "status_on_error", status_on_error, StatusCode::INTERNAL_SERVER_ERROR),
        enabled: share(cx, "filter_enabled", filter_enabled),
        enforced: share(cx, "filter_enforced", filter_enforced),
        limits: route::rate_limit::all(cx, "rate_limits", rate_limits),
        retry_after: enable_retry_after_header,
    })
}

fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    let proto::RateLimitPerRoute { vh_rate_limits, override_option, rate_limits, domain } = cx.unpack(any)?;
    cx.refuse("override_option", &override_option);
    Some(PerFilterConfig::typed(RateLimitPerRoute {
        virtual_host_limits: virtual_host_limits(vh_rate_limits),
        limits: route::rate_limit::all(cx, "rate_limits", rate_limits),
        domain: arc(domain),
    }))
}
