//! `envoy.filters.network.ratelimit`: a service says which connections are too many.

use std::sync::Arc;

use sail_proxy_config::network_filter::{ConnectionDescriptor, NetworkRateLimit};
use xds_api::envoy::extensions::common::ratelimit::v3::{
    RateLimitDescriptor, rate_limit_descriptor as parts,
};
use xds_api::envoy::service::ratelimit::v3::{
    RateLimitRequest, RateLimitResponse, rate_limit_response::Code,
};
use xds_api::google::protobuf::UInt64Value;

use super::{Cx, NetworkFilter, Step, Verdict};
use crate::access_log;
use crate::callout::{grpc, json};
use crate::stats::sets::network_rate_limit as stats;
use crate::stream_info::StreamInfo;

const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
/// Where the service's own metadata are kept.
const NAMESPACE: &str = "envoy.filters.network.ratelimit";

impl NetworkFilter for Arc<NetworkRateLimit> {
    fn on_connection<'a>(&'a self, cx: &'a mut Cx<'_>) -> Step<'a> {
        let scope: stats::Scope = cx.worker.shared.store.pinned(&self.stat_prefix);
        let info = StreamInfo::new(cx.accepted.downstream.clone());
        let request = RateLimitRequest {
            domain: self.domain.to_string(),
            descriptors: self.descriptors.iter().map(|one| descriptor(one, &info)).collect(),
            hits_addend: 0,
        };
        scope.inc(stats::total);
        Step::Later(Box::pin(async move {
            let _active = scope.hold(stats::active);
            let answer = grpc::unary::<_, RateLimitResponse>(cx.worker, &self.service, PATH, &request).await;
            let passes = match answer {
                Ok(response) => {
                    if let Some(fields) = response.dynamic_metadata {
                        let mut metadata = cx.accepted.downstream.state.metadata.borrow_mut();
                        metadata.merge(NAMESPACE, json::object(fields));
                    }
                    let over = response.overall_code == Code::OverLimit as i32;
                    scope.inc(if over { stats::over_limit } else { stats::ok });
                    !over
                }
                Err(status) => {
                    tracing::debug!(cluster = %self.service.cluster, %status, "rate limit service failed");
                    scope.inc(stats::error);
                    if !self.failure_mode_deny {
                        scope.inc(stats::failure_mode_allowed);
                    }
                    !self.failure_mode_deny
                }
            };
            if passes {
                return Verdict::Pass;
            }
            scope.inc(stats::cx_closed);
            Verdict::Close(None)
        }))
    }
}

fn descriptor(config: &ConnectionDescriptor, info: &StreamInfo) -> RateLimitDescriptor {
    let entries = config.entries.iter().map(|(key, value)| {
        let value = value.as_literal().map_or_else(|| access_log::text(value, info), str::to_owned);
        parts::Entry { key: key.to_string(), value }
    });
    RateLimitDescriptor {
        entries: entries.collect(),
        limit: config
            .limit
            .map(|(requests_per_unit, unit)| parts::RateLimitOverride { requests_per_unit, unit }),
        hits_addend: config.hits.map(|value| UInt64Value { value }),
        ..Default::default()
    }
}
