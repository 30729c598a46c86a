//! `envoy.filters.http.health_check`: answers health checks, by the proxy's own state, by that of clusters, or as the
//! upstream did a moment ago.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue, StatusCode};
use sail_proxy_config::http_filter::health_check::HealthCheck;
use sail_proxy_decide::host::Health;

use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::exchange::Exchange;
use crate::http::local_reply::LocalReply;
use crate::stream_info::{ResponseFlag, details};

const FAILED: HeaderName = HeaderName::from_static("x-envoy-immediate-health-check-fail");

/// Whether the process was told to fail health checks.
pub(crate) static FAILING: AtomicBool = AtomicBool::new(false);

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<HealthCheck>,
    started: Instant,
    /// The upstream's last answer, and when it came.
    last: Cell<Option<(StatusCode, Duration)>>,
}

/// The request is a health check that the upstream answers.
struct PassedThrough;

impl Filter {
    pub(super) fn new(config: &Arc<HealthCheck>) -> Self {
        Self { config: config.clone(), started: Instant::now(), last: Cell::new(None) }
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
        if FAILING.load(Relaxed) {
            return failed(details::HEALTH_CHECK_FAILED);
        }
        if self.config.pass_through {
            if let Some(status) = self.cached() {
                return Flow::Reply(Box::new(LocalReply::new(status, "", "health_check_cached")));
            }
            exchange.state().put(name, PassedThrough);
            return Flow::Continue;
        }
        if !self.config.clusters.iter().all(|(name, percent)| is_healthy(exchange, name, *percent)) {
            return failed("health_check_failed_cluster_unhealthy");
        }
        Flow::Reply(Box::new(LocalReply::new(StatusCode::OK, "", details::HEALTH_CHECK_OK)))
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let passed: Option<PassedThrough> = exchange.state().take(name);
        passed?;
        self.last.set(Some((reply.response.status(), self.started.elapsed())));
        None
    }
}

fn failed<'a>(details: &'static str) -> Flow<'a> {
    let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "", details)
        .flag(ResponseFlag::FailedLocalHealthCheck)
        .header(FAILED, HeaderValue::from_static("true"));
    Flow::Reply(Box::new(reply))
}

/// Whether so much of a cluster is healthy. A cluster that is not there is not.
fn is_healthy(exchange: &Exchange, cluster: &str, percent: f64) -> bool {
    let Some(cluster) = exchange.active.cluster(cluster) else { return false };
    let counts = cluster.count_hosts(|host| host.health() != Health::Unhealthy);
    let (good, all) = counts;
    if all == 0 {
        return percent == 0.0;
    }
    100.0 * f64::from(good) >= percent * f64::from(all)
}
