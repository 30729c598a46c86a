//! `envoy.filters.network.ratelimit`: a service counts connections, and says which are too many.

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::format::Format;

use crate::callout::{self, GrpcTarget};
use crate::convert::{Cx, arc, headers, values};
use crate::pb;
use crate::pb::filters::network::ratelimit::v3::RateLimit;

/// How long the service may take where nothing is said.
const TIMEOUT: Duration = Duration::from_millis(20);

/// The network filter `ratelimit`.
#[derive(Debug)]
pub struct NetworkRateLimit {
    /// What its statistics are called.
    pub stat_prefix: Arc<str>,
    /// Whose descriptors these are.
    pub domain: Arc<str>,
    /// What the service is told of a connection.
    pub descriptors: Box<[ConnectionDescriptor]>,
    /// Whether connections are closed if the service fails.
    pub failure_mode_deny: bool,
    /// The service.
    pub service: GrpcTarget,
}

/// A descriptor of a connection.
#[derive(Debug)]
pub struct ConnectionDescriptor {
    /// Keys, and what stands for them.
    pub entries: Box<[(Arc<str>, Format)]>,
    /// A limit in place of the service's: how many, in which unit.
    pub limit: Option<(u32, i32)>,
    /// How much a connection counts.
    pub hits: Option<u64>,
}

/// `RateLimit`
pub(super) fn rate_limit(cx: &mut Cx<'_>, value: RateLimit) -> Option<NetworkRateLimit> {
    let RateLimit { stat_prefix, domain, descriptors, timeout, failure_mode_deny, rate_limit_service } =
        value;
    for (field, text) in [("stat_prefix", &stat_prefix), ("domain", &domain)] {
        if text.is_empty() {
            cx.error(field, "it must be set");
        }
    }
    if descriptors.is_empty() {
        cx.error("descriptors", "it must not be empty");
    }
    let service = cx.required("rate_limit_service", rate_limit_service, |_, value| Some(value))?;
    let mut service = cx.required("rate_limit_service.grpc_service", service.grpc_service, |cx, value| {
        callout::grpc(cx, value, TIMEOUT)
    })?;
    if timeout.is_some() {
        service.timeout = values::limit(cx, "timeout", timeout, Some(TIMEOUT));
    }
    Some(NetworkRateLimit {
        stat_prefix: arc(stat_prefix),
        domain: arc(domain),
        descriptors: cx.each("descriptors", descriptors, descriptor).into(),
        failure_mode_deny,
        service,
    })
}

fn descriptor(
    cx: &mut Cx<'_>,
    value: xds_api::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor,
) -> Option<ConnectionDescriptor> {
    use xds_api::envoy::extensions::common::ratelimit::v3 as proto;
    let proto::RateLimitDescriptor { entries, limit, hits_addend, is_negative_hits } = value;
    cx.refuse("is_negative_hits", &is_negative_hits);
    if entries.is_empty() {
        cx.error("entries", "it must not be empty");
    }
    let entries = cx.each("entries", entries, |cx, entry| {
        let proto::rate_limit_descriptor::Entry { key, value } = entry;
        if key.is_empty() {
            cx.error("key", "it must be set");
        }
        Some((arc(key), cx.within("value", |cx| headers::format(cx, &value))?))
    });
    Some(ConnectionDescriptor {
        entries: entries.into(),
        limit: limit.map(|limit| (limit.requests_per_unit, limit.unit)),
        hits: hits_addend.map(|pb::UInt64Value { value }| value),
    })
}
