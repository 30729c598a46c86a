//! Hedging: a try that runs out of its time is left running, and another begins beside it. The first response that is
//! no reason to try again is the request's; the other tries end with it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use sail_proxy_decide::route::RouteAction;
use sail_proxy_decide::route::retry::RetryState;
use tokio::time::Sleep;

use super::Success;
use super::bounded::TryTimer;
use super::tries::{Tries, Wait, within_duration};
use crate::http::head::{Head, Keep};
use crate::http::scan::Present;
use crate::router::Found;
use crate::router::failure::Failure;
use crate::stream_info::UpstreamInfo;

/// Whether route, virtual host or the request itself ask for it.
pub(super) fn is_asked(action: &RouteAction, found: &Found, head: &Head, present: Present) -> bool {
    let configured = action.hedge_on_per_try_timeout.or(found.virtual_host.hedge_on_per_try_timeout);
    let said = if present.control { head.headers.get("x-envoy-hedge-on-per-try-timeout") } else { None };
    match said.map(http::HeaderValue::as_bytes) {
        Some(b"true") => true,
        Some(b"false") => false,
        _ => configured == Some(true),
    }
}

/// A try under way.
struct Flight<'a> {
    run: Pin<Box<dyn Future<Output = Result<Success, Failure>> + 'a>>,
    timer: Option<TryTimer<'a>>,
    began: Instant,
    /// Where its host stands among those that were tried.
    place: usize,
    /// Another try stands in for it.
    replaced: bool,
    /// What was known of its upstream when the next try began.
    upstream: Option<UpstreamInfo>,
}

impl Flight<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Success, Failure>>> {
        match &mut self.timer {
            Some(timer) => timer.poll(self.run.as_mut(), context),
            None => self.run.as_mut().poll(context).map(Some),
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
enum Event {
    Done(usize, Result<Success, Failure>),
    Late(usize),
    Next(Wait),
}

/// The tries that are under way, and the one that waits to begin.
struct Flights<'a> {
    all: Vec<Flight<'a>>,
    next: Option<(Pin<Box<Sleep>>, Wait)>,
}

impl Flights<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Event> {
        for (place, flight) in self.all.iter_mut().enumerate() {
            match flight.poll(context) {
                Poll::Ready(Some(result)) => return Poll::Ready(Event::Done(place, result)),
                Poll::Ready(None) => return Poll::Ready(Event::Late(place)),
                Poll::Pending => {}
            }
        }
        match &mut self.next {
            Some((sleep, wait)) => sleep.as_mut().poll(context).map(|()| Event::Next(*wait)),
            None => Poll::Pending,
        }
    }

    fn are_over(&self) -> bool {
        self.all.is_empty() && self.next.is_none()
    }

    fn begin_after(&mut self, wait: Wait) {
        self.next = Some((Box::pin(tokio::time::sleep(wait.time)), wait));
    }
}

impl<'a> Tries<'a> {
    pub(super) async fn run_hedged(&mut self, head: &Head, limit: Duration) -> Result<Success, Failure> {
        let mut flights = Flights { all: Vec::new(), next: None };
        flights.all.push(self.launch(head, limit)?);
        loop {
            self.under_way.set(flights.all.len());
            match std::future::poll_fn(|context| flights.poll(context)).await {
                Event::Next(wait) => {
                    flights.next = None;
                    self.count_retry(wait);
                    let upstream = self.exchange.info.borrow().upstream.clone();
                    if let Some(last) = flights.all.last_mut() {
                        last.upstream = upstream;
                    }
                    flights.all.push(self.launch(head, limit)?);
                }
                Event::Late(place) => {
                    let is_last = place + 1 == flights.all.len();
                    let flight = &mut flights.all[place];
                    flight.timer = None;
                    self.note_late(flight.place, is_last);
                    let can_send = self.body.can_send_again();
                    let verdict = self.state.as_mut().filter(|_| can_send).map(RetryState::on_hedge);
                    if let Some(wait) = verdict.and_then(|verdict| self.again(verdict, None)) {
                        flight.replaced = true;
                        flights.begin_after(wait);
                    }
                }
                Event::Done(place, result) => {
                    let flight = flights.all.remove(place);
                    self.under_way.set(flights.all.len());
                    if let Some(result) = self.settle(&flight, result, &mut flights) {
                        self.note_chosen(&flight, &flights);
                        return result;
                    }
                    if let Some(tracked) = self.cluster.tracked() {
                        tracked.note_try(flight.began, &self.timeouts);
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
            Ok(Success { response, .. }) => {
                self.body.can_send_again()
                    && self.state.as_ref().is_some_and(|state| {
                        state.would_retry(self.policy, response.status().as_u16(), response.headers())
                    })
            }
            Err(_) => true,
        };
        if !flight.replaced
            && let Some(wait) = self.judge(&result)
        {
            flights.begin_after(wait);
            return None;
        }
        if bad && !flights.are_over() && !matches!(result, Err(Failure::MaxDuration)) {
            // Others may still bring something better; a stream that lasts too long is the request's end, as in Envoy.
            if let Err(failure) = &result
                && failure.reset().is_some()
            {
                let status = failure.reply(1).status.as_u16();
                self.cluster.count_answer(status, self.exchange);
                self.counters.answered(status, self.exchange.start);
            }
            return None;
        }
        if let Some(upstream) = &flight.upstream {
            self.exchange.info.borrow_mut().upstream = Some(upstream.clone());
        }
        Some(result)
    }

    /// The try that counts, and those that end with it.
    fn note_chosen(&self, flight: &Flight<'_>, flights: &Flights<'_>) {
        self.try_began.set(flight.began);
        let Some(tracked) = self.cluster.tracked() else { return };
        for other in &flights.all {
            tracked.note_try(other.began, &self.timeouts);
        }
    }

    fn note_late(&mut self, place: usize, is_last: bool) {
        self.timed_out = true;
        if is_last {
            self.timeout_noted.set(true);
        }
        if let Some(host) = self.tried.borrow().get(place) {
            self.cluster.note_failure(host, &Failure::PerTryTimeout);
        }
    }

    fn launch(&self, head: &Head, limit: Duration) -> Result<Flight<'a>, Failure> {
        let Some(body) = self.body.reader() else { return Err(Failure::Downstream) };
        let mut head = head.clone();
        self.begin(&mut head);
        // Silence, too, is a reason for another try and no end of this one.
        let attempt = self.attempt(Keep::Nothing, None);
        let (cluster, max_stream) = (self.cluster, self.max_stream);
        let run = Box::pin(async move {
            let run = attempt.run(&mut head, body);
            match max_stream {
                None => run.await,
                Some(limit) => within_duration(run, cluster, limit).await,
            }
        });
        let timer = Some(TryTimer::new(self.exchange, limit));
        let place = self.tried.borrow().len();
        Ok(Flight { run, timer, began: Instant::now(), place, replaced: false, upstream: None })
    }
}
