//! `envoy.filters.http.bandwidth_limit`: bodies pass no faster than the process' bucket fills.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hashbrown::HashMap;
use http_body::{Body as _, Frame, SizeHint};
use parking_lot::Mutex;
use sail_proxy_decide::bandwidth::{BandwidthLimit, Bucket};
use tokio::time::Sleep;

use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::body::{Body, BodyError};
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
        let limited = Limited {
            inner: std::mem::replace(body, Body::Empty),
            limiter,
            interval: config.interval,
            direction,
            started,
            held: None,
            pause: None,
        };
        *body = Body::boxed(limited);
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

/// A body that is held back.
struct Limited {
    inner: Body,
    limiter: Shared,
    interval: Duration,
    direction: Direction,
    started: Instant,
    /// What has come and may not go on yet.
    held: Option<Bytes>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Limited {
    /// As much of what is held as may go on.
    fn release(&mut self, mut held: Bytes, context: &mut Context<'_>) -> Poll<Bytes> {
        let limiter = self.limiter.clone();
        let bucket = &limiter.buckets[self.direction as usize];
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(context).is_pending() {
                    self.held = Some(held);
                    return Poll::Pending;
                }
                self.pause = None;
            }
            let taken = bucket.lock().take(held.len() as u64, self.started.elapsed());
            if taken > 0 {
                // No more than was asked for, which is a length.
                let part = held.split_to(usize::try_from(taken).unwrap_or(held.len()));
                self.held = (!held.is_empty()).then_some(held);
                let size = part.len() as u64;
                self.limiter.stats.add(
                    match self.direction {
                        Direction::Request => stats::request_allowed_total_size,
                        Direction::Response => stats::response_allowed_total_size,
                    },
                    size,
                );
                return Poll::Ready(part);
            }
            self.limiter.stats.inc(match self.direction {
                Direction::Request => stats::request_enforced,
                Direction::Response => stats::response_enforced,
            });
            self.pause = Some(Box::pin(tokio::time::sleep(self.interval)));
        }
    }
}

impl http_body::Body for Limited {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(held) = self.held.take() {
                return self.release(held, context).map(|part| Some(Ok(Frame::data(part))));
            }
            match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        let size = data.len() as u64;
                        self.limiter.stats.add(
                            match self.direction {
                                Direction::Request => stats::request_incoming_total_size,
                                Direction::Response => stats::response_incoming_total_size,
                            },
                            size,
                        );
                        self.held = Some(data);
                    }
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return other,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.inner.size_hint();
        let held = self.held.as_ref().map_or(0, |held| held.len() as u64);
        match hint.exact() {
            Some(exact) => SizeHint::with_exact(exact + held),
            None => SizeHint::default(),
        }
    }
}
