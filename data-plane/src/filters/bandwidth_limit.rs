//! `envoy.filters.http.bandwidth_limit`: bodies pass no faster than the process' bucket fills.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use http::{HeaderMap, HeaderValue};
use http_body::Body as _;
use parking_lot::Mutex;
use sail_proxy_decide::bandwidth::{BandwidthLimit, Bucket};

use super::paced::{Budget, Paced};
use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::body::Body;
use crate::http::exchange::Exchange;
use crate::stats::Store;
use crate::stats::sets::http_bandwidth_limit as stats;

/// Buckets of the process, by their configuration. Only bodies under a limit come here.
static BUCKETS: Mutex<Option<Buckets>> = Mutex::new(None);

type Buckets = HashMap<usize, (Arc<BandwidthLimit>, Shared)>;

type Shared = Arc<Limiter>;

/// A bucket for each direction, and the statistics of both.
struct Limiter {
    buckets: [Mutex<Bucket>; 2],
    stats: stats::Scope,
}

/// See the module's documentation.
pub(crate) struct Filter {
    config: Arc<BandwidthLimit>,
    store: Arc<Store>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Request,
    Response,
}

impl Filter {
    pub(super) fn new(config: &Arc<BandwidthLimit>, build: &super::Build<'_>) -> Self {
        Self { config: config.clone(), store: build.store.clone() }
    }

    fn limit(&self, name: &str, exchange: &Exchange, direction: Direction, body: &mut Body) {
        let per_route = exchange.per_filter(name).and_then(|config| config.get::<BandwidthLimit>());
        let config = per_route.as_ref().unwrap_or(&self.config);
        let wanted = if direction == Direction::Request { config.requests } else { config.responses };
        let worker = &exchange.connection.worker;
        let Some(rate) = config.rate else { return };
        if !wanted || !config.enabled.now(worker.runtime()) || body.is_end_stream() {
            return;
        }
        let started = worker.shared.started;
        let limiter = self.limiter(config, rate, started);
        limiter.stats.inc(match direction {
            Direction::Request => stats::request_enabled,
            Direction::Response => stats::response_enabled,
        });
        let delays = config.trailers.is_some().then(|| delays(exchange, name));
        let share = Share { limiter, direction, started, config: config.clone(), delays };
        Paced::wrap(body, share, config.interval);
    }

    fn limiter(&self, config: &Arc<BandwidthLimit>, rate: u64, started: Instant) -> Shared {
        let mut buckets = BUCKETS.lock();
        let buckets = buckets.get_or_insert_default();
        // Configurations that nobody else holds are of the past.
        if buckets.len() == buckets.capacity() {
            buckets.retain(|_, (config, _)| Arc::strong_count(config) > 1);
        }
        let fresh = || Mutex::new(Bucket::new(rate, started.elapsed()));
        let entry = buckets.entry(Arc::as_ptr(config) as usize).or_insert_with(|| {
            let stats = self.store.scope(&config.stat_prefix);
            (config.clone(), Arc::new(Limiter { buckets: [fresh(), fresh()], stats }))
        });
        entry.1.clone()
    }
}

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        self.limit(request.name, request.exchange, Direction::Request, request.body);
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        let Response { name, exchange, reply } = response;
        self.limit(name, exchange, Direction::Response, reply.response.body_mut());
        None
    }
}

/// How long the bodies of an exchange took, and how long of that they were held back.
#[derive(Default)]
struct Delays([Cell<Delay>; 2]);

#[derive(Clone, Copy, Default)]
struct Delay {
    begun: Option<Instant>,
    whole: Duration,
    held: Duration,
    held_since: Option<Instant>,
}

/// Both directions of an exchange share them.
fn delays(exchange: &Exchange, name: &str) -> Rc<Delays> {
    let mut state = exchange.state();
    let delays: Rc<Delays> = state.take(name).unwrap_or_default();
    state.put(name, delays.clone());
    delays
}

/// A body's share of a bucket.
struct Share {
    limiter: Shared,
    direction: Direction,
    started: Instant,
    config: Arc<BandwidthLimit>,
    /// Kept where trailers tell of them.
    delays: Option<Rc<Delays>>,
}

impl Share {
    /// Notes something of the body's time, where that is asked for.
    fn note(&self, change: impl FnOnce(&mut Delay, Instant)) {
        let Some(delays) = &self.delays else { return };
        let place = &delays.0[self.direction as usize];
        let mut delay = place.get();
        change(&mut delay, Instant::now());
        place.set(delay);
    }

    fn stat<T>(&self, of_requests: T, of_responses: T) -> T {
        match self.direction {
            Direction::Request => of_requests,
            Direction::Response => of_responses,
        }
    }
}

impl Budget for Share {
    fn take(&mut self, wanted: u64) -> u64 {
        let taken = self.limiter.buckets[self.direction as usize].lock().take(wanted, self.started.elapsed());
        let counter = self.stat(stats::request_allowed_total_size, stats::response_allowed_total_size);
        self.limiter.stats.add(counter, taken);
        if taken > 0 {
            self.note(|delay, now| {
                delay.held += delay.held_since.take().map_or(Duration::ZERO, |since| now - since);
                delay.whole = delay.begun.map_or(Duration::ZERO, |begun| now - begun);
            });
        }
        taken
    }

    fn came(&mut self, bytes: u64) {
        let counter = self.stat(stats::request_incoming_total_size, stats::response_incoming_total_size);
        self.limiter.stats.add(counter, bytes);
        self.note(|delay, now| {
            delay.begun.get_or_insert(now);
        });
    }

    fn held_back(&mut self) {
        self.limiter.stats.inc(self.stat(stats::request_enforced, stats::response_enforced));
        self.note(|delay, now| {
            delay.held_since.get_or_insert(now);
        });
    }

    fn has_trailers(&self) -> bool {
        self.direction == Direction::Response && self.delays.is_some()
    }

    fn add_trailers(&mut self, trailers: &mut HeaderMap) {
        let (Some(delays), Some(names)) = (&self.delays, &self.config.trailers) else { return };
        if self.direction == Direction::Request {
            return;
        }
        for (names, delay) in [&names.request, &names.response].into_iter().zip(&delays.0) {
            let delay = delay.get();
            for (name, time) in names.iter().zip([delay.whole, delay.held]) {
                let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                if millis > 0 {
                    trailers.insert(name, HeaderValue::from(millis));
                }
            }
        }
    }
}
