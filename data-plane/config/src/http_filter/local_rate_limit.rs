//! `local_ratelimit`

use std::sync::Arc;

use http::StatusCode;
use sail_proxy_decide::fraction::Fraction;
use sail_proxy_decide::headers::HeaderOps;
use sail_proxy_decide::rate_limit::descriptor::VirtualHostLimits;
use sail_proxy_decide::rate_limit::{LocalDescriptor, LocalRateLimit};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, arc, headers, values};
use crate::pb::filters::http::local_ratelimit::v3 as proto;
use crate::{network_filter, pb, route};

const NAME: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    convert: |cx, any| Some(HttpFilterKind::LocalRateLimit(read(cx, any)?)),
    per_route: Some(PerRoute {
        name: NAME,
        convert: |cx, any| Some(PerFilterConfig::LocalRateLimit(read(cx, any)?)),
    }),
};

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<Arc<LocalRateLimit>> {
    let value = cx.unpack(any)?;
    local_rate_limit(cx, value).map(Arc::new)
}

fn local_rate_limit(cx: &mut Cx<'_>, value: proto::LocalRateLimit) -> Option<LocalRateLimit> {
    let proto::LocalRateLimit {
        stat_prefix,
        status,
        token_bucket,
        filter_enabled,
        filter_enforced,
        request_headers_to_add_when_not_enforced,
        response_headers_to_add,
        descriptors,
        stage,
        local_rate_limit_per_downstream_connection,
        local_cluster_rate_limit,
        enable_x_ratelimit_headers,
        vh_rate_limits,
        always_consume_default_token_bucket,
        rate_limited_as_resource_exhausted,
        rate_limits,
        max_dynamic_descriptors,
        enable_retry_after_header,
    } = value;
    cx.refuse("local_cluster_rate_limit", &local_cluster_rate_limit);
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
        retry_after: enable_retry_after_header,
        descriptors: cx.each("descriptors", descriptors, local_descriptor).into(),
        stage,
        virtual_host_limits: virtual_host_limits(vh_rate_limits),
        limits: route::rate_limit::all(cx, "rate_limits", rate_limits),
        always_consume_default: values::bool_or(always_consume_default_token_bucket, true),
        max_dynamic: values::u32_or(max_dynamic_descriptors, 20) as usize,
    })
}

fn local_descriptor(
    cx: &mut Cx<'_>,
    value: xds_api::envoy::extensions::common::ratelimit::v3::LocalRateLimitDescriptor,
) -> Option<LocalDescriptor> {
    let xds_api::envoy::extensions::common::ratelimit::v3::LocalRateLimitDescriptor {
        entries,
        token_bucket,
        shadow_mode,
    } = value;
    Some(LocalDescriptor {
        entries: entries.into_iter().map(|entry| (entry.key.into(), entry.value.into())).collect(),
        bucket: cx.required("token_bucket", token_bucket, network_filter::token_bucket)?,
        shadow: shadow_mode,
    })
}

/// `VhRateLimitsOptions`, which several filters number alike.
pub(super) fn virtual_host_limits(value: i32) -> VirtualHostLimits {
    match value {
        1 => VirtualHostLimits::Include,
        2 => VirtualHostLimits::Ignore,
        _ => VirtualHostLimits::Override,
    }
}
