//! Statistics of virtual clusters and of routes, where the configuration asks for them.

use std::sync::Arc;
use std::time::Instant;

use sail_proxy_decide::route::Route;

use super::Found;
use crate::http::exchange::Exchange;
use crate::http::head::Head;
use crate::stats::Counter;
use crate::stats::sets::virtual_host as stats;

/// Those that count a request: none, as a rule.
#[derive(Default)]
pub(super) struct Counters(Vec<stats::Scope>);

impl Counters {
    pub(super) fn new(exchange: &Exchange, found: &Found, route: &Route, head: &Head) -> Self {
        let host = &found.virtual_host;
        if host.virtual_clusters.is_empty() && route.stat_name.is_empty() {
            return Self::default();
        }
        let group = host.virtual_cluster(&head.view());
        if let Some(name) = group.and_then(|group| group.name.as_ref()) {
            exchange.info.borrow_mut().virtual_cluster = Some(name.clone());
        }
        let group = group.map(|group| &group.stat_name);
        let route = Some(&route.stat_name).filter(|name| !name.is_empty());
        let scope = |name: &Arc<str>| exchange.connection.worker.virtual_host_stats(name);
        Self(group.into_iter().chain(route).map(scope).collect())
    }

    pub(super) fn inc(&self, counter: Counter<stats::Set>) {
        self.0.iter().for_each(|scope| scope.inc(counter));
    }

    /// Counts the answer that the client gets.
    pub(super) fn answered(&self, status: u16, start: Instant) {
        for scope in &self.0 {
            scope.inc(stats::upstream_rq_completed);
            scope.inc(match status / 100 {
                1 => stats::upstream_rq_1xx,
                2 => stats::upstream_rq_2xx,
                3 => stats::upstream_rq_3xx,
                4 => stats::upstream_rq_4xx,
                _ => stats::upstream_rq_5xx,
            });
            scope.code(status);
            scope.record(stats::upstream_rq_time, start.elapsed().as_millis() as u64);
        }
    }
}
