//! `fault`

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::fault::{Abort, AbortWith, Delay, FaultConfig, Keys, ResponseRateLimit};
use sail_proxy_decide::fraction::Fraction;
use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, arc, matchers, values};
use crate::pb;
use crate::pb::filters::common::fault::v3 as common;
use crate::pb::filters::http::fault::v3 as fault;
use crate::route::action::status_code;

const NAME: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    convert: |cx, any| Some(HttpFilterKind::Fault(read(cx, any)?)),
    per_route: Some(PerRoute { name: NAME, convert: |cx, any| Some(PerFilterConfig::Fault(read(cx, any)?)) }),
};

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<Arc<FaultConfig>> {
    let value = cx.unpack(any)?;
    fault(cx, value).map(Arc::new)
}

/// `HTTPFault`
fn fault(cx: &mut Cx<'_>, value: fault::HttpFault) -> Option<FaultConfig> {
    let fault::HttpFault {
        delay,
        abort,
        upstream_cluster,
        headers,
        downstream_nodes,
        max_active_faults,
        response_rate_limit,
        delay_percent_runtime,
        abort_percent_runtime,
        delay_duration_runtime,
        abort_http_status_runtime,
        max_active_faults_runtime,
        response_rate_limit_percent_runtime,
        abort_grpc_status_runtime,
        disable_downstream_cluster_stats,
        filter_metadata,
    } = value;
    cx.refuse("filter_metadata", &filter_metadata);
    let mut keys = Keys::default();
    for (key, named) in [
        (&mut keys.delay_percent, delay_percent_runtime),
        (&mut keys.delay_duration, delay_duration_runtime),
        (&mut keys.abort_percent, abort_percent_runtime),
        (&mut keys.abort_http_status, abort_http_status_runtime),
        (&mut keys.abort_grpc_status, abort_grpc_status_runtime),
        (&mut keys.max_active_faults, max_active_faults_runtime),
        (&mut keys.rate_limit_percent, response_rate_limit_percent_runtime),
    ] {
        if !named.is_empty() {
            *key = arc(named);
        }
    }
    Some(FaultConfig {
        delay: cx.option("delay", delay, self::delay),
        abort: cx.option("abort", abort, self::abort),
        upstream_cluster: arc(upstream_cluster),
        headers: matchers::headers(cx, "headers", headers),
        downstream_nodes: downstream_nodes.into_iter().map(Box::from).collect(),
        max_active_faults: max_active_faults.map(|value| value.value),
        response_rate_limit: cx.option("response_rate_limit", response_rate_limit, rate_limit),
        keys: Box::new(keys),
        downstream_cluster_stats: !disable_downstream_cluster_stats,
    })
}

fn percentage(cx: &mut Cx<'_>, value: Option<pb::ty::FractionalPercent>) -> Fraction {
    cx.option("percentage", value, values::fraction).unwrap_or(Fraction::NEVER)
}

fn delay(cx: &mut Cx<'_>, value: common::FaultDelay) -> Option<Delay> {
    use common::fault_delay::FaultDelaySecifier as Kind;
    let common::FaultDelay { percentage, fault_delay_secifier, .. } = value;
    let percentage = self::percentage(cx, percentage);
    let duration = match fault_delay_secifier {
        Some(Kind::FixedDelay(value)) => {
            let delay = values::duration(cx, "fixed_delay", Some(value)).unwrap_or(Duration::ZERO);
            if delay.is_zero() {
                cx.error("fixed_delay", "it must be above 0");
            }
            Some(delay)
        }
        Some(Kind::HeaderDelay(_)) => None,
        None => {
            cx.error("fixed_delay", "either fixed_delay or header_delay must be set");
            return None;
        }
    };
    Some(Delay { duration, percentage })
}

fn abort(cx: &mut Cx<'_>, value: fault::FaultAbort) -> Option<Abort> {
    use fault::fault_abort::ErrorType as Kind;
    let fault::FaultAbort { percentage, response_body, error_type } = value;
    let body = if response_body.is_empty() { "fault filter abort".into() } else { arc(response_body) };
    let percentage = self::percentage(cx, percentage);
    let with = match error_type {
        Some(Kind::HttpStatus(status)) => {
            AbortWith::Http(cx.ok("http_status", status_code(status))?.as_u16())
        }
        Some(Kind::GrpcStatus(status)) => AbortWith::Grpc(status),
        Some(Kind::HeaderAbort(_)) => AbortWith::Header,
        None => {
            cx.error("error_type", "it must be set");
            return None;
        }
    };
    Some(Abort { with, percentage, body })
}

fn rate_limit(cx: &mut Cx<'_>, value: common::FaultRateLimit) -> Option<ResponseRateLimit> {
    use common::fault_rate_limit::LimitType as Kind;
    let common::FaultRateLimit { percentage, limit_type } = value;
    let percentage = self::percentage(cx, percentage);
    let kbps = match limit_type {
        Some(Kind::FixedLimit(limit)) => Some(limit.limit_kbps),
        Some(Kind::HeaderLimit(_)) => None,
        None => {
            cx.error("limit_type", "it must be set");
            return None;
        }
    };
    Some(ResponseRateLimit { kbps, percentage })
}
