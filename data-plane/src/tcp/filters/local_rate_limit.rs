//! `envoy.filters.network.local_ratelimit`: so many connections in a time.

use std::sync::Arc;

use sail_proxy_config::network_filter::NetworkLocalRateLimit;

use super::{Cx, NetworkFilter, Step, Verdict};
use crate::stats::sets::network_local_rate_limit as stats;

impl NetworkFilter for Arc<NetworkLocalRateLimit> {
    fn on_connection<'a>(&'a self, cx: &'a mut Cx<'_>) -> Step<'a> {
        let shared = &cx.worker.shared;
        let taken = if self.share_key.is_empty() {
            !self.enabled.now(cx.worker.runtime()) || shared.buckets.take(self, self.bucket)
        } else {
            !self.enabled.now(cx.worker.runtime()) || shared.buckets.take_shared(&self.share_key, self.bucket)
        };
        if taken {
            return Step::Now(Verdict::Pass);
        }
        let scope: stats::Scope = shared.store.pinned(&self.stat_prefix);
        scope.inc(stats::rate_limited);
        Step::Now(Verdict::Close(None))
    }
}
