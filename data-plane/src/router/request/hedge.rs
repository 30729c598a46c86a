//! Hedging: a try that runs out of its time is left running, and another begins beside it. The first response that is
//! no reason to try again is the request's; the other tries end with it.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use sail_proxy_decide::host::Host;
use sail_proxy_decide::route::RouteAction;
use tokio::time::{Instant, Sleep};

use super::{Success, Tries};
use crate::http::head::{Head, Keep};
use crate::router::Found;
use crate::router::attempt::Try;
use crate::router::failure::Failure;
use crate::stats::sets::{cluster as stats, virtual_host};
use crate::stream_info::UpstreamInfo;

/// Whether route, virtual host or the request itself ask for it.
pub(super) fn is_asked(action: &RouteAction, found: &Found, head: &Head) -> bool {
    let configured = action.hedge_on_per_try_timeout.or(found.virtual_host.hedge_on_per_try_timeout);
    match head.headers.get("x-envoy-hedge-on-per-try-timeout").map(http::HeaderValue::as_bytes) {
        Some(b"true") => true,
        Some(b"false") => false,
        _ => configured == Some(true),
    }
}

/// A try under way.
struct Flight<'a> {
    run: Pin<Box<dyn Future<Output = Result<Success, Failure>> + 'a>>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Another try stands in for it.
    replaced: bool,
    /// What was known of its upstream when the next try began.
    upstream: Option<UpstreamInfo>,
}

#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Event {
    Done(usize, Result<Success, Failure>),
    Late(usize),
    Next,
}

/// The tries that are under way, and the one that waits to begin.
struct Flights<'a> {
    all: Vec<Flight<'a>>,
    next: Option<Pin<Box<Sleep>>>,
}

impl Flights<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        for (place, flight) in self.all.iter_mut().enumerate() {
            if let Poll::Ready(result) = flight.run.as_mut().poll(context) {
                return Poll::Ready(Event::Done(place, result));
            }
            if let Some(timer) = &mut flight.timer
                && timer.as_mut().poll(context).is_ready()
            {
                return Poll::Ready(Event::Late(place));
            }
        }
        match &mut self.next {
            Some(next) => next.as_mut().poll(context).map(|()| Event::Next),
            None => Poll::Pending,
        }
    }

    fn are_over(&self) -> bool {
        self.all.is_empty() && self.next.is_none()
    }
}

impl Tries<'_> {
    pub(super) async fn run_hedged(&mut self, head: &Head, limit: Duration) -> Result<Success, Failure> {
        let tried = RefCell::default();
        let mut flights = Flights { all: Vec::new(), next: None };
        flights.all.push(self.launch(head, limit, &tried)?);
        loop {
            match std::future::poll_fn(|context| flights.poll(context)).await {
                Event::Next => {
                    flights.next = None;
                    let upstream = self.exchange.info.borrow().upstream.clone();
                    if let Some(last) = flights.all.last_mut() {
                        last.upstream = upstream;
                    }
                    flights.all.push(self.launch(head, limit, &tried)?);
                }
                Event::Late(place) => {
                    let flight = &mut flights.all[place];
                    if !self.exchange.request_done.get() {
                        // The time of a try is counted from the request's end.
                        flight.timer = Some(Box::pin(tokio::time::sleep(limit)));
                        continue;
                    }
                    flight.timer = None;
                    self.note_late(&tried.borrow());
                    let verdict = self.state.as_mut().map(|state| state.on_hedge());
                    if let Some(wait) = verdict.and_then(|verdict| self.again(verdict, None)) {
                        flight.replaced = true;
                        flights.next = Some(Box::pin(tokio::time::sleep(wait)));
                    }
                }
                Event::Done(place, result) => {
                    let flight = flights.all.remove(place);
                    if let Some(result) = self.settle(&flight, result, &mut flights) {
                        return result;
                    }
                }
            }
        }
    }

    /// What a try that ended means: the request's result, or nothing yet.
    fn settle(
        &mut self,
        flight: &Flight<'_>,
        result: Result<Success, Failure>,
        flights: &mut Flights<'_>,
    ) -> Option<Result<Success, Failure>> {
        let bad = match &result {
            Ok(Success { response, .. }) => self.state.as_ref().is_some_and(|state| {
                state.would_retry(self.policy, response.status().as_u16(), response.headers())
            }),
            Err(_) => true,
        };
        if bad && flight.replaced && !flights.are_over() {
            return None;
        }
        if bad
            && !flight.replaced
            && let Some(wait) = self.judge(&result)
        {
            flights.next = Some(Box::pin(tokio::time::sleep(wait)));
            return None;
        }
        if result.is_err() && !flights.are_over() {
            // Others may still bring a response.
            return None;
        }
        if let Some(upstream) = &flight.upstream {
            self.exchange.info.borrow_mut().upstream = Some(upstream.clone());
        }
        if !bad && self.exchange.info.borrow().attempt_count > 1 {
            self.cluster.stats().inc(stats::upstream_rq_retry_success);
            self.counters.inc(virtual_host::upstream_rq_retry_success);
        }
        Some(result)
    }

    fn note_late(&mut self, tried: &[Arc<Host>]) {
        self.timed_out = true;
        self.cluster.stats().inc(stats::upstream_rq_per_try_timeout);
        if let Some(host) = tried.last() {
            self.cluster.note_failure(host, &Failure::PerTryTimeout);
        }
    }

    fn launch<'f>(
        &self,
        head: &Head,
        limit: Duration,
        tried: &'f RefCell<Vec<Arc<Host>>>,
    ) -> Result<Flight<'f>, Failure>
    where
        Self: 'f,
    {
        let Some(body) = self.body.reader() else { return Err(Failure::Downstream) };
        let mut head = head.clone();
        self.begin(&mut head);
        let attempt = Try {
            exchange: self.exchange,
            cluster: self.cluster,
            action: self.action,
            found: self.found,
            policy: self.policy,
            hash: self.hash.hash,
            tried,
            keep: Keep::Nothing,
            idle: self.timeouts.per_try_idle,
            counters: self.counters,
        };
        let run = Box::pin(async move { attempt.run(&mut head, body).await });
        let timer = Some(Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        Ok(Flight { run, timer, replaced: false, upstream: None })
    }
}
