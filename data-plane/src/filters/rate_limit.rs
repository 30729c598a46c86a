//! `envoy.filters.http.ratelimit`: a service counts requests, and says which are too many.

use std::cell::RefCell;
use std::sync::Arc;

use hashbrown::HashMap;
use http::{HeaderMap, HeaderName, HeaderValue};
use sail_proxy_config::http_filter::rate_limit::{RateLimit, RateLimitPerRoute, Requests};
use sail_proxy_decide::headers::AppendAction;
use sail_proxy_decide::rate_limit::descriptor::{Descriptor, VirtualHostLimits};
use xds_api::envoy::extensions::common::ratelimit::v3::{
    RateLimitDescriptor, rate_limit_descriptor as parts,
};
use xds_api::envoy::service::ratelimit::v3::rate_limit_response::{Code, DescriptorStatus};
use xds_api::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};

use super::{Build, Flow, HttpFilter, Request, Response, Work, descriptors, edit};
use crate::callout::{grpc, json};
use crate::http::exchange::Exchange;
use crate::http::head::Head;
use crate::http::local_reply::LocalReply;
use crate::stats::Store;
use crate::stats::sets::cluster_rate_limit as stats;
use crate::stream_info::{ResponseFlag, details};

const PATH: &str = "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit";
const NAMESPACE: &str = "envoy.filters.http.ratelimit";

/// The filter, with the statistics of the clusters that it guards.
pub(crate) struct Filter {
    config: Arc<RateLimit>,
    store: Arc<Store>,
    stats: RefCell<HashMap<Arc<str>, stats::Scope>>,
}

/// Headers for the response.
struct Added(HeaderMap);

impl Filter {
    pub(crate) fn new(config: &Arc<RateLimit>, build: &Build<'_>) -> Self {
        Self { config: config.clone(), store: build.store.clone(), stats: RefCell::default() }
    }

    fn stats(&self, exchange: &Exchange) -> Option<stats::Scope> {
        let found = exchange.routed.get().clone()?;
        let cluster = exchange.active.cluster(found.cluster.as_ref()?)?;
        let name = &cluster.config.stat_name;
        let mut all = self.stats.borrow_mut();
        Some(
            all.entry(name.clone())
                .or_insert_with(|| self.store.prefixed(name, &self.config.stat_prefix))
                .clone(),
        )
    }

    fn descriptors(&self, request: &Request<'_>, per_route: Option<&RateLimitPerRoute>) -> Vec<Descriptor> {
        let own = match per_route {
            Some(per_route) if !per_route.limits.is_empty() => &per_route.limits,
            _ => &self.config.limits,
        };
        let of_virtual_host =
            per_route.map_or(VirtualHostLimits::Override, |per_route| per_route.virtual_host_limits);
        let which = descriptors::Which { stage: self.config.stage, own, of_virtual_host };
        descriptors::of(request.exchange, request.head, &which)
    }

    fn is_concerned(&self, exchange: &Exchange, head: &Head) -> bool {
        let internal = || head.headers.get("x-envoy-internal").is_some_and(|value| value == "true");
        let worker = &exchange.connection.worker;
        let wanted = match self.config.requests {
            Requests::Both => true,
            Requests::Internal => internal(),
            Requests::External => !internal(),
        };
        wanted && self.config.enabled.hit(worker.random(), worker.runtime())
    }

    async fn ask(
        &self,
        request: Request<'_>,
        descriptors: Vec<Descriptor>,
        domain: Arc<str>,
    ) -> Flow<'static> {
        let Request { name, exchange, head, .. } = request;
        let told = |of: &Descriptor| of.told.unwrap_or(self.config.x_ratelimit_headers);
        let told: Vec<bool> = descriptors.iter().map(told).collect();
        let message = RateLimitRequest {
            domain: domain.to_string(),
            descriptors: descriptors.into_iter().map(descriptor).collect(),
            hits_addend: 0,
        };
        let worker = &exchange.connection.worker;
        let answer = grpc::unary(worker, &self.config.service, PATH, &message).await;
        let stats = self.stats(exchange);
        let count = |counter| stats.iter().for_each(|stats| stats.inc(counter));
        let response: RateLimitResponse = match answer {
            Ok(response) => response,
            Err(status) => {
                tracing::debug!(%status, "rate limit service failed");
                count(stats::error);
                return self.failed(exchange, count);
            }
        };
        if let Some(metadata) = response.dynamic_metadata.clone() {
            exchange.info.borrow_mut().dynamic_metadata.merge(NAMESPACE, json::object(metadata));
        }
        let mut added = HeaderMap::new();
        // The statuses stand in the order of the descriptors.
        let statuses = response.statuses.iter().zip(&told).filter(|(_, told)| **told);
        x_ratelimit(statuses.map(|(status, _)| status), &mut added);
        for header in &response.response_headers_to_add {
            let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
            let _ = edit::set(&mut added, &header.key, value, AppendAction::AppendIfExistsOrAdd);
        }
        let over = response.overall_code == Code::OverLimit as i32;
        count(if over { stats::over_limit } else { stats::ok });
        let enforced = over && self.config.enforced.hit(worker.random(), worker.runtime());
        if !enforced {
            for header in &response.request_headers_to_add {
                let value =
                    if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
                let action = AppendAction::AppendIfExistsOrAdd;
                let _ = edit::set_request(head, &header.key.to_ascii_lowercase(), value, action);
            }
            if !added.is_empty() {
                exchange.state().put(name, Added(added));
            }
            return Flow::Continue;
        }
        Flow::Reply(Box::new(self.limited(exchange, head, &response, added)))
    }

    fn failed(
        &self,
        exchange: &Exchange,
        count: impl Fn(crate::stats::Counter<stats::Set>),
    ) -> Flow<'static> {
        let worker = &exchange.connection.worker;
        let deny = match &self.config.failure_mode_deny_percent {
            Some(share) => share.hit(worker.random(), worker.runtime()),
            None => self.config.failure_mode_deny,
        };
        if !deny {
            count(stats::failure_mode_allowed);
            return Flow::Continue;
        }
        let reply = LocalReply::new(self.config.status_on_error, "", "rate_limiter_error")
            .flag(ResponseFlag::RateLimitServiceError);
        Flow::Reply(Box::new(reply))
    }

    fn limited(
        &self,
        exchange: &Exchange,
        head: &Head,
        response: &RateLimitResponse,
        mut headers: HeaderMap,
    ) -> LocalReply {
        if !self.config.disable_ratelimited_header {
            let name = HeaderName::from_static("x-envoy-ratelimited");
            headers.insert(name, HeaderValue::from_static("true"));
        }
        if self.config.retry_after {
            let over = response.statuses.iter().filter(|status| status.code == Code::OverLimit as i32);
            let seconds =
                over.filter_map(|status| status.duration_until_reset.as_ref()).map(|d| d.seconds).max();
            if let Some(seconds) = seconds {
                headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds.max(0)));
            }
        }
        exchange.with_attributes(head, |attributes| {
            self.config.response_headers.apply(&mut headers, attributes);
        });
        let mut reply = LocalReply::new(self.config.status, "", details::REQUEST_RATE_LIMITED)
            .flag(ResponseFlag::RateLimited);
        reply.grpc_status = self.config.as_resource_exhausted.then_some(8);
        reply.body = String::from_utf8_lossy(&response.raw_body).into_owned().into();
        reply.headers.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        reply
    }
}

fn descriptor(descriptor: Descriptor) -> RateLimitDescriptor {
    let entries = descriptor.entries.into_iter().map(|(key, value)| parts::Entry { key, value });
    RateLimitDescriptor {
        entries: entries.collect(),
        limit: descriptor.limit.map(|limit| parts::RateLimitOverride {
            requests_per_unit: limit.requests_per_unit,
            unit: limit.unit,
        }),
        hits_addend: descriptor.hits.map(|value| xds_api::google::protobuf::UInt64Value { value }),
        ..Default::default()
    }
}

/// Seconds of a unit, as the service numbers units.
fn seconds(unit: i32) -> u64 {
    match unit {
        1 => 1,
        2 => 60,
        3 => 3600,
        4 => 86_400,
        5 => 86_400 * 30,
        6 => 86_400 * 365,
        7 => 86_400 * 7,
        _ => 0,
    }
}

/// `x-ratelimit-*` of the draft's third version: what is left of the tightest limit, and all limits.
fn x_ratelimit<'a>(statuses: impl Iterator<Item = &'a DescriptorStatus> + Clone, headers: &mut HeaderMap) {
    let limits = statuses.filter(|status| status.current_limit.is_some());
    let Some(tightest) = limits.clone().min_by_key(|status| status.limit_remaining) else { return };
    let mut quotas = String::new();
    for limit in limits.filter_map(|status| status.current_limit.as_ref()) {
        use std::fmt::Write as _;
        let window = seconds(limit.unit);
        if window > 0 {
            let _ = write!(quotas, ", {};w={window}", limit.requests_per_unit);
            if !limit.name.is_empty() {
                let _ = write!(quotas, ";name=\"{}\"", limit.name);
            }
        }
    }
    let most = tightest.current_limit.as_ref().map_or(0, |limit| limit.requests_per_unit);
    let reset = tightest.duration_until_reset.as_ref().map_or(0, |duration| duration.seconds);
    if let Ok(value) = HeaderValue::try_from(format!("{most}{quotas}")) {
        headers.insert("x-ratelimit-limit", value);
    }
    headers.insert("x-ratelimit-remaining", HeaderValue::from(tightest.limit_remaining));
    headers.insert("x-ratelimit-reset", HeaderValue::from(reset));
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        if !self.is_concerned(request.exchange, request.head) {
            return Flow::Continue;
        }
        let per_route: Option<Arc<RateLimitPerRoute>> =
            request.exchange.per_filter(request.name).and_then(|config| config.get());
        let descriptors = self.descriptors(&request, per_route.as_deref());
        if descriptors.is_empty() {
            return Flow::Continue;
        }
        let domain = per_route.map(|per_route| per_route.domain.clone()).filter(|domain| !domain.is_empty());
        let domain = domain.unwrap_or_else(|| self.config.domain.clone());
        Flow::Wait(Box::pin(self.ask(request, descriptors, domain)))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let Added(headers) = exchange.state().take(name)?;
        for (name, value) in &headers {
            reply.response.headers_mut().append(name, value.clone());
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_is_told() {
        use xds_api::envoy::service::ratelimit::v3::rate_limit_response::RateLimit as Limit;
        let status = |requests_per_unit, unit, limit_remaining| DescriptorStatus {
            current_limit: Some(Limit { requests_per_unit, unit, ..Default::default() }),
            limit_remaining,
            duration_until_reset: Some(xds_api::google::protobuf::Duration { seconds: 7, nanos: 0 }),
            ..Default::default()
        };
        let mut headers = HeaderMap::new();
        x_ratelimit([status(10, 1, 5), status(100, 2, 3)].iter(), &mut headers);
        assert_eq!(headers["x-ratelimit-limit"], "100, 10;w=1, 100;w=60");
        assert_eq!(headers["x-ratelimit-remaining"], "3");
        assert_eq!(headers["x-ratelimit-reset"], "7");
    }
}
