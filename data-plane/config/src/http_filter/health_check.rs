//! `health_check`

use std::sync::Arc;
use std::time::Duration;

use sail_proxy_decide::matcher::HeaderMatcher;

use super::{Entry, HttpFilterKind};
use crate::convert::{Cx, arc, matchers, values};
use crate::pb;
use crate::pb::filters::http::health_check::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.health_check.v3.HealthCheck",
    convert: |cx, any| Some(HttpFilterKind::HealthCheck(Arc::new(read(cx, any)?))),
    per_route: None,
};

/// `HealthCheck`
#[derive(Debug)]
pub struct HealthCheck {
    /// Whether the upstream answers.
    pub pass_through: bool,
    /// For how long the upstream's answer is given again.
    pub cache_time: Option<Duration>,
    /// How much of a cluster must be healthy, in per cent, where the proxy answers.
    pub clusters: Box<[(Arc<str>, f64)]>,
    /// Which requests are health checks.
    pub headers: Box<[HeaderMatcher]>,
}

fn read(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HealthCheck> {
    let proto::HealthCheck { pass_through_mode, cache_time, cluster_min_healthy_percentages, headers } =
        cx.unpack(any)?;
    let pass_through = cx.required("pass_through_mode", pass_through_mode, |_, value| Some(value.value))?;
    let cache_time = values::limit(cx, "cache_time", cache_time, None);
    if !pass_through && cache_time.is_some() {
        cx.error("cache_time", "it needs pass_through_mode");
    }
    if pass_through && !cluster_min_healthy_percentages.is_empty() {
        cx.error("cluster_min_healthy_percentages", "it cannot be set together with pass_through_mode");
    }
    let mut clusters: Vec<_> = cluster_min_healthy_percentages.into_iter().collect();
    clusters.sort_by(|(left, _), (right, _)| left.cmp(right));
    let clusters = clusters.into_iter().map(|(name, percent)| {
        let field = format!("cluster_min_healthy_percentages[{name}]");
        (arc(name), values::percent(cx, &field, Some(percent), 0.0))
    });
    Some(HealthCheck {
        pass_through,
        cache_time,
        clusters: clusters.collect(),
        headers: matchers::headers(cx, "headers", headers),
    })
}
