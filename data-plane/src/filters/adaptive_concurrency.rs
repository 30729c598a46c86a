//! `envoy.filters.http.adaptive_concurrency`: as many requests at once as the upstream takes without becoming slower.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use parking_lot::Mutex;
use sail_proxy_config::http_filter::AdaptiveConcurrency;
use sail_proxy_decide::concurrency::Gradient;

use super::{Build, Flow, HttpFilter, Request, Response, Work};
use crate::http::exchange::Exchange;
use crate::http::local_reply::LocalReply;
use crate::stats::sets::http_adaptive_concurrency as stats;

/// Controllers of the process, by their configuration.
static CONTROLLERS: Mutex<Option<Controllers>> = Mutex::new(None);

type Controllers = HashMap<usize, (Arc<AdaptiveConcurrency>, Shared)>;

type Shared = Arc<Mutex<Controlled>>;

/// A controller, and what its gauges say.
struct Controlled {
    gradient: Gradient,
    /// What the gauges say; workers move them by the difference.
    told: [i64; 6],
}

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<AdaptiveConcurrency>,
    stats: stats::Scope,
    controller: std::cell::OnceCell<Shared>,
}

impl Filter {
    pub(super) fn new(config: &Arc<AdaptiveConcurrency>, build: &Build<'_>) -> Self {
        let stats = build.store.scope(build.prefix);
        Self { config: config.clone(), stats, controller: std::cell::OnceCell::new() }
    }

    fn controller(&self, now: Duration) -> &Shared {
        self.controller.get_or_init(|| {
            let mut controllers = CONTROLLERS.lock();
            let controllers = controllers.get_or_insert_default();
            controllers.retain(|_, (config, _)| Arc::strong_count(config) > 1);
            let entry = controllers.entry(Arc::as_ptr(&self.config) as usize);
            let fresh = || {
                Arc::new(Mutex::new(Controlled {
                    gradient: Gradient::new(self.config.gradient.clone(), now),
                    told: [0; 6],
                }))
            };
            entry.or_insert_with(|| (self.config.clone(), fresh())).1.clone()
        })
    }
}

/// A request's place; given back when the exchange ends.
struct Place {
    controller: Shared,
    started: Instant,
    began: Duration,
    random: u64,
    answered: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        let now = self.started.elapsed();
        let took = self.answered.then(|| now.saturating_sub(self.began));
        self.controller.lock().gradient.release(self.began, took, now, self.random);
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        let Request { name, exchange, .. } = request;
        let worker = &exchange.connection.worker;
        // Health checks and the like say nothing of the upstream's load.
        if !self.config.enabled.now(worker.runtime()) || exchange.info.borrow().health_check {
            return Flow::Continue;
        }
        let started = worker.shared.started;
        let began = started.elapsed();
        let controller = self.controller(began);
        let acquired = controller.lock().gradient.acquire(began);
        if !acquired {
            self.stats.inc(stats::rq_blocked);
            let mut reply =
                LocalReply::new(self.config.status, "reached concurrency limit", "reached_concurrency_limit");
            reply.grpc_status = None;
            return Flow::Reply(Box::new(reply));
        }
        let place = Place {
            controller: controller.clone(),
            started,
            began,
            random: worker.random(),
            answered: false,
        };
        exchange.state().put(name, place);
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, .. } = response;
        self.note(name, exchange);
        None
    }
}

impl Filter {
    /// The upstream answered: the request's time counts when the exchange ends.
    fn note(&self, name: &str, exchange: &Rc<Exchange>) {
        let place: Option<Place> = exchange.state().take(name);
        let Some(mut place) = place else { return };
        place.answered = true;
        {
            let mut controller = place.controller.lock();
            let min = controller.gradient.min_rtt().unwrap_or_default().as_millis();
            let computed = controller.gradient.computed();
            let now = [
                i64::from(controller.gradient.limit()),
                i64::from(controller.gradient.is_measuring()),
                i64::try_from(min).unwrap_or(i64::MAX),
                i64::from(computed.gradient),
                i64::try_from(computed.sample.as_millis()).unwrap_or(i64::MAX),
                i64::from(computed.burst),
            ];
            let gauges = [
                stats::concurrency_limit,
                stats::min_rtt_calculation_active,
                stats::min_rtt_msecs,
                stats::gradient,
                stats::sample_rtt_msecs,
                stats::burst_queue_size,
            ];
            for ((gauge, now), told) in gauges.into_iter().zip(now).zip(&mut controller.told) {
                self.stats.move_by(gauge, now - *told);
                *told = now;
            }
        }
        exchange.state().put(name, place);
    }
}
