//! `local_ratelimit`

use std::sync::Arc;

use http::StatusCode;
use sail_proxy_decide::fraction::Fraction;
use sail_proxy_decide::headers::HeaderOps;
use sail_proxy_decide::rate_limit::LocalRateLimit;
use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, arc, headers, values};
use crate::pb::filters::http::local_ratelimit::v3 as proto;
use crate::{network_filter, pb};

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
