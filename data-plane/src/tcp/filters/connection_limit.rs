//! `envoy.filters.network.connection_limit`: so many connections at a time.

use std::sync::Arc;

use sail_proxy_config::network_filter::ConnectionLimit;

use super::{Cx, NetworkFilter, Step, Verdict};
use crate::pool::limits::{Limit, Permit};
use crate::stats::sets::connection_limit as stats;

/// A connection's place.
pub(super) struct Place {
    _permit: Permit,
    stats: stats::Scope,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stats.move_by(stats::active_connections, -1);
    }
}

impl NetworkFilter for Arc<ConnectionLimit> {
    fn on_connection<'a>(&'a self, cx: &'a mut Cx<'_>) -> Step<'a> {
        if !self.enabled.now(cx.worker.runtime()) {
            return Step::Now(Verdict::Pass);
        }
        let shared = &cx.worker.shared;
        let scope: stats::Scope = shared.store.pinned(&self.stat_prefix);
        // All workers share the count, by the statistics' name.
        let name: Arc<str> = format!("connection_limit.{}", self.stat_prefix).into();
        let count = shared.clusters.connection_limit(&name);
        let max = u32::try_from(self.max_connections).unwrap_or(u32::MAX);
        Step::Now(match Limit::new(count, max).acquire() {
            Some(permit) => {
                scope.move_by(stats::active_connections, 1);
                cx.judged.places.push(Place { _permit: permit, stats: scope });
                Verdict::Pass
            }
            None => {
                scope.inc(stats::limited_connections);
                Verdict::Close(self.delay)
            }
        })
    }
}
