//! `envoy.filters.http.admission_control`: each worker refuses what the upstream fails at anyway.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};
use sail_proxy_decide::admission::{AdmissionControl, History, Thresholds};

use super::{Build, Flow, HttpFilter, Request, Response, Work, tail};
use crate::http::body::Body;
use crate::http::exchange::{Exchange, grpc_status};
use crate::http::local_reply::LocalReply;
use crate::stats::sets::http_admission_control as stats;

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<AdmissionControl>,
    stats: stats::Scope,
    history: Rc<RefCell<History>>,
}

/// The request was let through, and its outcome counts.
struct Admitted;

impl Filter {
    pub(super) fn new(config: &Arc<AdmissionControl>, build: &Build<'_>) -> Self {
        Self { config: config.clone(), stats: build.store.scope(build.prefix), history: Rc::default() }
    }

    /// What notes an outcome.
    fn recorder(&self, exchange: &Rc<Exchange>) -> impl FnOnce(bool) + 'static {
        let (history, stats, window) = (self.history.clone(), self.stats.clone(), self.config.window);
        let started = exchange.connection.worker.started;
        move |success| {
            stats.inc(if success { stats::rq_success } else { stats::rq_failure });
            history.borrow_mut().record(success, window, started.elapsed());
        }
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, .. } = request;
        let worker = &exchange.connection.worker;
        let runtime = worker.runtime();
        if !self.config.enabled.now(runtime) || exchange.info.borrow().health_check {
            return Flow::Continue;
        }
        let config = &self.config;
        let thresholds = Thresholds {
            aggression: config.aggression.now(runtime),
            success_rate: config.success_rate_threshold.now(runtime),
            rps: config.rps_threshold.now(runtime),
            max_rejection: config.max_rejection_probability.now(runtime),
        };
        let now = worker.started.elapsed();
        if !self.history.borrow_mut().admits(thresholds, config.window, now, worker.random()) {
            self.stats.inc(stats::rq_rejected);
            let reply = LocalReply::new(StatusCode::SERVICE_UNAVAILABLE, "", "denied_by_admission_control");
            return Flow::Reply(Box::new(reply));
        }
        exchange.state().put(name, Admitted);
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        let admitted: Option<Admitted> = exchange.state().take(name);
        admitted?;
        let record = self.recorder(exchange);
        let response = &mut reply.response;
        if !exchange.grpc.get() {
            let status = response.status().as_u16();
            record(self.config.http_success.iter().any(|range| range.contains(&status)));
            return None;
        }
        let config = self.config.clone();
        let is_success = move |headers: &HeaderMap| {
            let status = headers.get("grpc-status").and_then(grpc_status);
            status.is_some_and(|status| config.grpc_success.contains(&status))
        };
        if response.headers().contains_key("grpc-status") {
            record(is_success(response.headers()));
            return None;
        }
        let body = std::mem::replace(response.body_mut(), Body::Empty);
        *response.body_mut() = tail::at_end(body, move |trailers| {
            record(trailers.is_some_and(|trailers| is_success(trailers)));
        });
        None
    }
}
