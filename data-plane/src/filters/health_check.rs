//! `envoy.filters.http.health_check`: answers health checks, by the proxy's own state, by that of clusters, or as the
//! upstream did a moment ago.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, StatusCode};
use sail_proxy_config::http_filter::health_check::HealthCheck;
use sail_proxy_decide::host::Health;

use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::http::exchange::Exchange;
use crate::http::local_reply::LocalReply;
use crate::stats::Counter;
use crate::stats::sets::http_health_check as stats;
use crate::stream_info::{ResponseFlag, details};

/// Tells which cluster the proxy itself belongs to.
const CLUSTER: HeaderName = HeaderName::from_static("x-envoy-upstream-healthchecked-cluster");

const FAILED: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");

/// Whether the process was told to fail health checks.
pub(crate) static FAILING: AtomicBool = AtomicBool::new(false);

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<HealthCheck>,
    stats: stats::Scope,
    started: Instant,
    /// The upstream's last answer, and when it came.
    last: Cell<Option<(StatusCode, Duration)>>,
}

/// The request is a health check that the upstream answers.
struct PassedThrough;

impl Filter {
    pub(super) fn new(config: &Arc<HealthCheck>, build: &Build<'_>) -> Self {
        let stats = build.store.scope(build.prefix);
        Self { config: config.clone(), stats, started: Instant::now(), last: Cell::new(None) }
    }

    fn cached(&self) -> Option<StatusCode> {
        let (status, at) = self.last.get()?;
        let age = self.started.elapsed().saturating_sub(at);
        (age < self.config.cache_time?).then_some(status)
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, head, .. } = request;
        let view = head.view();
        if !self.config.headers.iter().all(|matcher| matcher.is_match(&view)) {
            return Flow::Continue;
        }
        exchange.info.borrow_mut().health_check = true;
        self.stats.inc(stats::request_total);
        if FAILING.load(Relaxed) {
            return self.failed(exchange, details::HEALTH_CHECK_FAILED);
        }
        if self.config.pass_through {
            if let Some(status) = self.cached() {
                self.stats.inc(stats::cached_response);
                let reply = LocalReply::new(status, "", "health_check_cached");
                return Flow::Reply(Box::new(reply.header(CLUSTER, own_cluster(exchange))));
            }
            exchange.state().put(name, PassedThrough);
            return Flow::Continue;
        }
        for (cluster, percent) in &self.config.clusters {
            if let Err(why) = Self::is_healthy(exchange, cluster, *percent) {
                self.stats.inc(why);
                return self.failed(exchange, "health_check_failed_cluster_unhealthy");
            }
        }
        self.stats.inc(stats::ok);
        let reply = LocalReply::new(StatusCode::OK, "", details::HEALTH_CHECK_OK);
        Flow::Reply(Box::new(reply.header(CLUSTER, own_cluster(exchange))))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let passed: Option<PassedThrough> = exchange.state().take(name);
        passed?;
        reply.response.headers_mut().insert(CLUSTER, own_cluster(exchange));
        self.last.set(Some((reply.response.status(), self.started.elapsed())));
        None
    }
}

fn own_cluster(exchange: &Exchange) -> HeaderValue {
    let cluster = &exchange.connection.worker.shared.options.node_cluster;
    HeaderValue::from_str(cluster).unwrap_or(HeaderValue::from_static(""))
}

impl Filter {
    fn failed<'a>(&self, exchange: &Exchange, details: &'static str) -> Flow<'a> {
        self.stats.inc(stats::failed);
        let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "", details)
            .flag(ResponseFlag::FailedLocalHealthCheck)
            .header(FAILED, HeaderValue::from_static("true"))
            .header(CLUSTER, own_cluster(exchange));
        Flow::Reply(Box::new(reply))
    }

    /// Whether so much of a cluster is healthy. A cluster that is not there is not.
    fn is_healthy(exchange: &Exchange, cluster: &str, percent: f64) -> Result<(), Counter<stats::Set>> {
        let cluster = exchange.active.cluster(cluster).ok_or(stats::failed_cluster_not_found)?;
        let (good, all) = cluster.count_hosts(|host| host.health() != Health::Unhealthy);
        if all == 0 {
            return if percent == 0.0 { Ok(()) } else { Err(stats::failed_cluster_empty) };
        }
        let healthy = 100.0 * f64::from(good) >= percent * f64::from(all);
        if healthy { Ok(()) } else { Err(stats::failed_cluster_unhealthy) }
    }
}
