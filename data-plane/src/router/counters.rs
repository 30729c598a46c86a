//! Statistics of virtual clusters and of routes, where the configuration asks for them, and of what a request names.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use sail_proxy_decide::route::Route;

use super::Found;
use crate::clock;
use crate::cluster::Cluster;
use crate::http::exchange::Exchange;
use crate::http::head::Head;
use crate::stats::Counter;
use crate::stats::sets::{single_counter, virtual_host as stats};
use crate::worker::state::Worker;

const ALT_STAT_NAME: &str = "x-envoy-upstream-alt-stat-name";

/// Those that count a request: none, as a rule.
#[derive(Default)]
pub(super) struct Counters {
    scopes: Vec<stats::Scope>,
    alt: Option<Box<Alt>>,
}

/// A second name for the answers of the request's cluster, which the request brings.
struct Alt {
    worker: Rc<Worker>,
    /// `cluster.CLUSTER.NAME`
    name: String,
    origin: &'static str,
}

impl Alt {
    fn of(exchange: &Exchange, cluster: &Cluster, head: &Head) -> Option<Box<Self>> {
        let name = head.headers.get(ALT_STAT_NAME)?.to_str().ok()?;
        let name = format!("cluster.{}.{name}", cluster.config.stat_name);
        let origin = if exchange.from_outside.get() { "external" } else { "internal" };
        Some(Box::new(Self { worker: exchange.connection.worker.clone(), name, origin }))
    }

    fn answered(&self, status: u16) {
        let Self { worker, name, origin } = self;
        for what in [status.to_string(), format!("{}xx", status / 100), "completed".to_owned()] {
            for name in [format!("{name}.upstream_rq_{what}"), format!("{name}.{origin}.upstream_rq_{what}")]
            {
                worker.shared.store.pinned::<single_counter::Set>(&name).inc(single_counter::value);
            }
        }
    }
}

impl Counters {
    pub(super) fn new(
        exchange: &Exchange,
        found: &Found,
        route: &Route,
        cluster: &Cluster,
        head: &Head,
    ) -> Self {
        let host = &found.virtual_host;
        let alt = if head.present.control { Alt::of(exchange, cluster, head) } else { None };
        if host.virtual_clusters.is_empty() && route.stat_name.is_empty() {
            return Self { scopes: Vec::new(), alt };
        }
        let group = host.virtual_cluster(&head.view());
        if let Some(name) = group.and_then(|group| group.name.as_ref()) {
            exchange.info.borrow_mut().virtual_cluster = Some(name.clone());
        }
        let group = group.map(|group| &group.stat_name);
        let route = Some(&route.stat_name).filter(|name| !name.is_empty());
        let scope = |name: &Arc<str>| exchange.connection.worker.virtual_host_stats(name);
        Self { scopes: group.into_iter().chain(route).map(scope).collect(), alt }
    }

    pub(super) fn inc(&self, counter: Counter<stats::Set>) {
        self.scopes.iter().for_each(|scope| scope.inc(counter));
    }

    /// Counts the answer that the client gets.
    pub(super) fn answered(&self, status: u16, start: Instant) {
        self.counted(status);
        for scope in &self.scopes {
            scope.record(
                stats::upstream_rq_time,
                clock::now().saturating_duration_since(start).as_millis() as u64,
            );
        }
    }

    /// Counts what an upstream said.
    pub(super) fn counted(&self, status: u16) {
        if let Some(alt) = &self.alt {
            alt.answered(status);
        }
        for scope in &self.scopes {
            scope.inc(stats::upstream_rq_completed);
            scope.inc(match status / 100 {
                1 => stats::upstream_rq_1xx,
                2 => stats::upstream_rq_2xx,
                3 => stats::upstream_rq_3xx,
                4 => stats::upstream_rq_4xx,
                _ => stats::upstream_rq_5xx,
            });
            scope.code(status);
        }
    }
}
