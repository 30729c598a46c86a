//! `admission_control`

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::admission::AdmissionControl;
use sail_proxy_decide::fraction::RuntimeNumber;

use super::{Entry, HttpFilterKind};
use crate::convert::{Cx, arc, values};
use crate::pb;
use crate::pb::filters::http::admission_control::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.admission_control.v3.AdmissionControl",
    convert: |cx, any| Some(HttpFilterKind::AdmissionControl(Arc::new(read(cx, any)?))),
    per_route: None,
};

/// gRPC statuses that do not say that the upstream is in trouble.
const GRPC_SUCCESS: [u32; 10] = [0, 1, 2, 3, 5, 6, 9, 11, 12, 16];

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<AdmissionControl> {
    use proto::admission_control::EvaluationCriteria;
    let proto::AdmissionControl {
        enabled,
        sampling_window,
        aggression,
        sr_threshold,
        rps_threshold,
        max_rejection_probability,
        evaluation_criteria,
    } = cx.unpack(any)?;
    let Some(EvaluationCriteria::SuccessCriteria(criteria)) = evaluation_criteria else {
        cx.error("success_criteria", "it must be set");
        return None;
    };
    let number = |default: f64, key: String| RuntimeNumber { default, runtime_key: arc(key) };
    let percent = |value: Option<pb::core::RuntimePercent>, default: f64| {
        let pb::core::RuntimePercent { default_value, runtime_key } = value.unwrap_or_default();
        number(default_value.map_or(default, |value| value.value), runtime_key)
    };
    let aggression = aggression.unwrap_or_default();
    let rps = rps_threshold.unwrap_or_default();
    let window = values::duration(cx, "sampling_window", sampling_window);
    let http = criteria.http_criteria.map(|value| value.http_success_status);
    let http =
        http.map(|ranges| cx.each("success_criteria.http_criteria.http_success_status", ranges, range));
    let grpc = criteria.grpc_criteria.map(|value| value.grpc_success_status);
    Some(AdmissionControl {
        enabled: values::feature_flag(enabled, true),
        window: window.unwrap_or(Duration::from_secs(30)).max(Duration::from_secs(1)),
        http_success: http.unwrap_or_else(|| vec![100..=499]).into(),
        grpc_success: grpc.unwrap_or_else(|| GRPC_SUCCESS.to_vec()).into(),
        aggression: number(
            if aggression.default_value == 0.0 { 1.0 } else { aggression.default_value },
            aggression.runtime_key,
        ),
        success_rate_threshold: percent(sr_threshold, 95.0),
        rps_threshold: number(f64::from(rps.default_value), rps.runtime_key),
        max_rejection_probability: percent(max_rejection_probability, 80.0),
    })
}

fn range(cx: &mut Cx<'_>, value: pb::ty::Int32Range) -> Option<RangeInclusive<u16>> {
    let pb::ty::Int32Range { start, end } = value;
    match (u16::try_from(start), u16::try_from(end)) {
        // The end is not part of it: a range of nothing is taken, as by Envoy.
        (Ok(start @ 100..), Ok(end @ ..=600)) if start <= end => Some(start..=end - 1),
        _ => {
            cx.error("", format_args!("{start} to {end} is not a range of statuses"));
            None
        }
    }
}
