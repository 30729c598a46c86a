//! `adaptive_concurrency`

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use sail_proxy_decide::concurrency::GradientConfig;
use sail_proxy_decide::fraction::RuntimeFlag;

use super::{Entry, HttpFilterKind};
use crate::convert::{Cx, values};
use crate::pb;
use crate::pb::filters::http::adaptive_concurrency::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
    convert: |cx, any| Some(HttpFilterKind::AdaptiveConcurrency(Arc::new(read(cx, any)?))),
    per_route: None,
};

/// `AdaptiveConcurrency`
#[derive(Debug)]
pub struct AdaptiveConcurrency {
    /// How the limit is found.
    pub gradient: GradientConfig,
    /// Whether it acts.
    pub enabled: RuntimeFlag,
    /// What requests beyond it are answered.
    pub status: StatusCode,
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<AdaptiveConcurrency> {
    use proto::adaptive_concurrency::ConcurrencyControllerConfig as Kind;
    let proto::AdaptiveConcurrency {
        enabled,
        concurrency_limit_exceeded_status,
        concurrency_controller_config,
    } = cx.unpack(any)?;
    let Some(Kind::GradientControllerConfig(value)) = concurrency_controller_config else {
        cx.error("gradient_controller_config", "it must be set");
        return None;
    };
    let status = concurrency_limit_exceeded_status.and_then(|status| u16::try_from(status.code).ok());
    // Below 400 Envoy answers 503.
    let status = status.filter(|code| *code >= 400).and_then(|code| StatusCode::from_u16(code).ok());
    Some(AdaptiveConcurrency {
        gradient: cx.within("gradient_controller_config", |cx| gradient(cx, value))?,
        enabled: values::feature_flag(enabled, true),
        status: status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
    })
}

fn gradient(cx: &mut Cx<'_>, value: proto::GradientControllerConfig) -> Option<GradientConfig> {
    let proto::GradientControllerConfig {
        sample_aggregate_percentile,
        concurrency_limit_params,
        min_rtt_calc_params,
    } = value;
    let limits = cx.required("concurrency_limit_params", concurrency_limit_params, |_, value| Some(value))?;
    let rtt = cx.required("min_rtt_calc_params", min_rtt_calc_params, |_, value| Some(value))?;
    let positive = |cx: &mut Cx<'_>, field: &str, value| {
        values::duration(cx, field, value).filter(|value| !value.is_zero())
    };
    let field = "concurrency_limit_params.concurrency_update_interval";
    let Some(update_interval) = positive(cx, field, limits.concurrency_update_interval) else {
        cx.error(field, "it must be above 0");
        return None;
    };
    let min_rtt_interval = positive(cx, "min_rtt_calc_params.interval", rtt.interval);
    let fixed_min_rtt = positive(cx, "min_rtt_calc_params.fixed_value", rtt.fixed_value);
    if min_rtt_interval.is_some() == fixed_min_rtt.is_some() {
        cx.error("min_rtt_calc_params", "one of interval and fixed_value must be set");
    }
    Some(GradientConfig {
        percentile: values::percent(cx, "sample_aggregate_percentile", sample_aggregate_percentile, 50.0),
        max_limit: values::u32_or(limits.max_concurrency_limit, 1000).max(1),
        min_limit: values::u32_or(limits.min_concurrency_limit, 3).max(1),
        update_interval,
        min_rtt_interval: min_rtt_interval.unwrap_or(Duration::from_secs(60)),
        fixed_min_rtt,
        min_rtt_requests: usize::try_from(values::u32_or(rtt.request_count, 50).max(1)).unwrap_or(50),
        min_rtt_concurrency: values::u32_or(rtt.min_concurrency, 3).max(1),
        jitter: values::percent(cx, "min_rtt_calc_params.jitter", rtt.jitter, 15.0),
        buffer: values::percent(cx, "min_rtt_calc_params.buffer", rtt.buffer, 25.0),
    })
}
