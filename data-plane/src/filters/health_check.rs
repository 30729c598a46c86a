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

const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");

/// What is counted of a cluster that is not healthy, and what is said of it.
type Why = (Counter<stats::Set>, &'static str);

const FAILED: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");

/// Whether the process was told to fail health checks.
pub(crate) static FAILING: AtomicBool = AtomicBool::new(false);

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<HealthCheck>,
    stats: stats::Scope,
    started: Instant,
    /// The upstream's last answer, whether it was degraded, and when it came.
    last: Cell<Option<(StatusCode, bool, Duration)>>,
}

/// The request is a health check that the upstream answers.
struct PassedThrough;

impl Filter {
    pub(super) fn new(config: &Arc<HealthCheck>, build: &Build<'_>) -> Self {
        let stats = build.store.scope(build.prefix);
        Self { config: config.clone(), stats, started: Instant::now(), last: Cell::new(None) }
    }

    fn cached(&self) -> Option<(StatusCode, bool)> {
        let (status, degraded, at) = self.last.get()?;
        let age = self.started.elapsed().saturating_sub(at);
        (age < self.config.cache_time?).then_some((status, degraded))
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
        if FAILING.load(Relaxed) {
            return self.reply(
                exchange,
                StatusCode::SERVICE_UNAVAILABLE,
                details::HEALTH_CHECK_FAILED,
                false,
            );
        }
        if self.config.pass_through {
            if let Some((status, degraded)) = self.cached() {
                self.stats.inc(stats::cached_response);
                return self.reply(exchange, status, "health_check_cached", degraded);
            }
            exchange.state().put(name, PassedThrough);
            return Flow::Continue;
        }
        for (cluster, percent) in &self.config.clusters {
            if let Err((why, details)) = Self::is_healthy(exchange, cluster, *percent) {
                self.stats.inc(why);
                return self.reply(exchange, StatusCode::SERVICE_UNAVAILABLE, details, false);
            }
        }
        let by_clusters = !self.config.clusters.is_empty();
        let details = if by_clusters { "health_check_ok_cluster_healthy" } else { details::HEALTH_CHECK_OK };
        self.reply(exchange, StatusCode::OK, details, false)
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        // Every answer says so, that who checks by traffic alone knows it, too.
        if FAILING.load(Relaxed) {
            reply.response.headers_mut().insert(FAILED, HeaderValue::from_static("true"));
        }
        let passed: Option<PassedThrough> = exchange.state().take(name);
        passed?;
        reply.response.headers_mut().insert(CLUSTER, own_cluster(exchange));
        let degraded = reply.response.headers().contains_key(DEGRADED);
        self.last.set(Some((reply.response.status(), degraded, self.started.elapsed())));
        None
    }
}

fn own_cluster(exchange: &Exchange) -> HeaderValue {
    let cluster = &exchange.connection.worker.shared.options.node_cluster;
    HeaderValue::from_str(cluster).unwrap_or(HeaderValue::from_static(""))
}

impl Filter {
    fn reply<'a>(
        &self,
        exchange: &Exchange,
        status: StatusCode,
        details: &'static str,
        degraded: bool,
    ) -> Flow<'a> {
        let mut reply = LocalReply::new(status, "", details).header(CLUSTER, own_cluster(exchange));
        // As in Envoy, what the upstream answers is not counted.
        self.stats.inc(stats::request_total);
        if status.is_success() {
            self.stats.inc(stats::ok);
        } else {
            self.stats.inc(stats::failed);
            reply = reply.flag(ResponseFlag::FailedLocalHealthCheck);
        }
        if degraded {
            self.stats.inc(stats::degraded);
            reply = reply.header(DEGRADED, HeaderValue::from_static(""));
        }
        if FAILING.load(Relaxed) {
            reply = reply.header(FAILED, HeaderValue::from_static("true"));
        }
        Flow::Reply(Box::new(reply))
    }

    /// Whether so much of a cluster is healthy. A cluster that is not there is not.
    fn is_healthy(exchange: &Exchange, cluster: &str, percent: f64) -> Result<(), Why> {
        let unknown = (stats::failed_cluster_not_found, "health_check_failed_no_cluster_found");
        let cluster = exchange.active.cluster(cluster).ok_or(unknown)?;
        let (good, all) = cluster.count_hosts(|host| host.health() != Health::Unhealthy);
        if all == 0 {
            let empty = (stats::failed_cluster_empty, "health_check_failed_cluster_empty");
            return if percent == 0.0 { Ok(()) } else { Err(empty) };
        }
        let healthy = 100.0 * f64::from(good) >= percent * f64::from(all);
        let unhealthy = (stats::failed_cluster_unhealthy, "health_check_failed_cluster_unhealthy");
        if healthy { Ok(()) } else { Err(unhealthy) }
    }
}
