//! `bandwidth_limit`

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::bandwidth::{BandwidthLimit, DelayTrailers};
use sail_proxy_decide::route::PerFilterConfig;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::convert::{Cx, arc, headers, values};
use crate::pb;
use crate::pb::filters::http::bandwidth_limit::v3 as proto;

const NAME: &str = "envoy.extensions.filters.http.bandwidth_limit.v3.BandwidthLimit";

pub(super) const ENTRY: Entry = Entry {
    name: NAME,
    convert: |cx, any| Some(HttpFilterKind::BandwidthLimit(Arc::new(read(cx, any)?))),
    per_route: Some(PerRoute { name: NAME, convert: |cx, any| Some(PerFilterConfig::typed(read(cx, any)?)) }),
};

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<BandwidthLimit> {
    use proto::bandwidth_limit::EnableMode;
    let proto::BandwidthLimit {
        stat_prefix,
        enable_mode,
        limit_kbps,
        fill_interval,
        runtime_enabled,
        enable_response_trailers,
        response_trailer_prefix,
    } = cx.unpack(any)?;
    let (requests, responses) = match EnableMode::try_from(enable_mode) {
        Ok(EnableMode::Disabled) => (false, false),
        Ok(EnableMode::Request) => (true, false),
        Ok(EnableMode::Response) => (false, true),
        Ok(EnableMode::RequestAndResponse) => (true, true),
        Err(_) => {
            cx.error("enable_mode", "it is not known");
            return None;
        }
    };
    if (requests || responses) && limit_kbps.is_none_or(|limit| limit.value == 0) {
        cx.error("limit_kbps", "it must be set, and above 0");
    }
    let interval = values::duration(cx, "fill_interval", fill_interval).unwrap_or(Duration::from_millis(50));
    if !(Duration::from_millis(20)..=Duration::from_secs(1)).contains(&interval) {
        cx.error("fill_interval", "it must be between 20ms and 1s");
    }
    Some(BandwidthLimit {
        stat_prefix: arc(stat_prefix),
        requests,
        responses,
        rate: limit_kbps.map(|limit| limit.value.saturating_mul(1024)),
        interval,
        enabled: values::feature_flag(runtime_enabled, true),
        trailers: match enable_response_trailers {
            true => Some(trailers(cx, &response_trailer_prefix)?),
            false => None,
        },
    })
}

fn trailers(cx: &mut Cx<'_>, prefix: &str) -> Option<DelayTrailers> {
    let dash = if prefix.is_empty() { "" } else { "-" };
    let mut name = |what: &str| {
        headers::name(cx, "response_trailer_prefix", &format!("{prefix}{dash}bandwidth-{what}delay-ms"))
    };
    Some(DelayTrailers {
        request: [name("request-")?, name("request-filter-")?],
        response: [name("response-")?, name("response-filter-")?],
    })
}
