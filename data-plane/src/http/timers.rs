//! What bounds a stream as a whole: silence, the time that a request may take to arrive, the stream's life.
//!
//! Most streams end long before any of these limits. So a limit of some length costs no timer of its own: its stream is
//! listed with the worker, which looks at the list once a second, and only while something is waited for.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::time::Sleep;

use super::exchange::Exchange;
use super::local_reply::LocalReply;
use crate::clock;
use crate::stats::sets::http as stats;
use crate::stream_info::{ResponseFlag, details};

/// Limits up to this are kept to the millisecond.
const SHORT: Duration = Duration::from_secs(10);

/// A limit that was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expired {
    /// Nothing moved.
    Idle,
    /// The request did not arrive as a whole.
    Request,
    /// The stream lives too long.
    Duration,
}

/// The limits of one stream; `None`: without limit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) idle: Option<Duration>,
    pub(crate) request: Option<Duration>,
    pub(crate) duration: Option<Duration>,
}

impl Limits {
    fn shortest(&self) -> Option<Duration> {
        [self.idle, self.request, self.duration].into_iter().flatten().min()
    }
}

/// Streams that wait, as a worker lists them.
#[derive(Default)]
pub(crate) struct Waiting {
    entries: RefCell<Vec<Option<Entry>>>,
    free: RefCell<Vec<usize>>,
}

struct Entry {
    exchange: Rc<Exchange>,
    limits: Limits,
    waker: Waker,
}

impl Waiting {
    fn add(&self, entry: Entry) -> usize {
        let mut entries = self.entries.borrow_mut();
        if let Some(place) = self.free.borrow_mut().pop() {
            entries[place] = Some(entry);
            return place;
        }
        entries.push(Some(entry));
        entries.len() - 1
    }

    fn remove(&self, place: usize) {
        self.entries.borrow_mut()[place] = None;
        self.free.borrow_mut().push(place);
    }

    /// Wakes the streams that passed a limit.
    pub(crate) fn sweep(&self, now: Instant) {
        let late = |entry: &&Entry| expired(&entry.exchange, &entry.limits, now).is_some();
        let wakers: Vec<Waker> =
            self.entries.borrow().iter().flatten().filter(late).map(|entry| entry.waker.clone()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The limit that a stream has passed.
fn expired(exchange: &Exchange, limits: &Limits, now: Instant) -> Option<Expired> {
    let start = exchange.start;
    let passed = |since: Instant, limit: Option<Duration>| limit.is_some_and(|limit| since + limit <= now);
    if passed(start, limits.duration) {
        Some(Expired::Duration)
    } else if !exchange.request_done.get() && passed(start, limits.request) {
        Some(Expired::Request)
    } else if passed(exchange.moved.get(), limits.idle) {
        Some(Expired::Idle)
    } else {
        None
    }
}

/// The timer of one stream.
#[derive(Default)]
pub(crate) struct StreamTimer {
    limits: Limits,
    sleep: Option<Pin<Box<Sleep>>>,
    listed: Option<usize>,
    done: Cell<bool>,
}

impl StreamTimer {
    /// Sets the limits anew; the route may have changed them.
    pub(crate) fn set(&mut self, exchange: &Exchange, limits: Limits) {
        self.end(exchange);
        self.done.set(false);
        self.limits = limits;
    }

    /// Stops it.
    pub(crate) fn end(&mut self, exchange: &Exchange) {
        self.sleep = None;
        self.done.set(true);
        if let Some(place) = self.listed.take() {
            exchange.connection.worker.waiting.remove(place);
        }
    }

    /// Whether a limit was passed. To be asked whenever what the stream waits for is not there.
    pub(crate) fn poll(&mut self, exchange: &Rc<Exchange>, context: &mut Context<'_>) -> Poll<Expired> {
        let Some(shortest) = self.limits.shortest().filter(|_| !self.done.get()) else {
            return Poll::Pending;
        };
        if shortest > SHORT {
            return self.poll_listed(exchange, context);
        }
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(shortest)));
        while sleep.as_mut().poll(context).is_ready() {
            let now = clock::now();
            if let Some(expired) = expired(exchange, &self.limits, now) {
                return Poll::Ready(expired);
            }
            let next = next_end(exchange, &self.limits).unwrap_or(now + SHORT);
            sleep.as_mut().reset(next.max(now + Duration::from_millis(1)).into());
        }
        Poll::Pending
    }

    fn poll_listed(&mut self, exchange: &Rc<Exchange>, context: &mut Context<'_>) -> Poll<Expired> {
        let waiting = &exchange.connection.worker.waiting;
        match self.listed {
            None => {
                let waker = context.waker().clone();
                let entry = Entry { exchange: exchange.clone(), limits: self.limits, waker };
                self.listed = Some(waiting.add(entry));
                Poll::Pending
            }
            Some(place) => {
                if let Some(Some(entry)) = waiting.entries.borrow_mut().get_mut(place) {
                    entry.waker.clone_from(context.waker());
                }
                expired(exchange, &self.limits, clock::now()).map_or(Poll::Pending, Poll::Ready)
            }
        }
    }
}

/// When the next limit is passed, if nothing moves.
fn next_end(exchange: &Exchange, limits: &Limits) -> Option<Instant> {
    let request = limits.request.filter(|_| !exchange.request_done.get());
    let ends = [
        limits.duration.map(|limit| exchange.start + limit),
        request.map(|limit| exchange.start + limit),
        limits.idle.map(|limit| exchange.moved.get() + limit),
    ];
    ends.into_iter().flatten().min()
}

/// Waits for work, but no longer than the stream's limits allow.
pub(crate) async fn bounded<T>(
    exchange: &Rc<Exchange>,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Expired> {
    poll_fn(|context| {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Ok(done));
        }
        exchange.timer.borrow_mut().poll(exchange, context).map(Err)
    })
    .await
}

impl Expired {
    /// Counts it and notes it in the stream's record.
    pub(crate) fn note(self, exchange: &Exchange) {
        let stats = &exchange.connection.manager.stats;
        let mut info = exchange.info.borrow_mut();
        match self {
            Self::Idle => {
                stats.inc(stats::downstream_rq_idle_timeout);
                info.flag(ResponseFlag::StreamIdleTimeout);
            }
            Self::Request => stats.inc(stats::downstream_rq_timeout),
            Self::Duration => stats.inc(stats::downstream_rq_max_duration_reached),
        }
        info.code_details = Some(self.details().into());
    }

    pub(crate) fn details(self) -> &'static str {
        match self {
            Self::Idle => details::STREAM_IDLE_TIMEOUT,
            Self::Request => details::REQUEST_OVERALL_TIMEOUT,
            Self::Duration => details::MAX_DURATION_TIMEOUT,
        }
    }

    /// What a client is told that has no response yet.
    pub(crate) fn reply(self, exchange: &Exchange) -> LocalReply {
        let status = if exchange.request_done.get() {
            StatusCode::GATEWAY_TIMEOUT
        } else {
            StatusCode::REQUEST_TIMEOUT
        };
        let body = match self {
            Self::Idle => "stream timeout",
            Self::Request => "request timeout",
            Self::Duration => "downstream duration timeout",
        };
        LocalReply::new(status, body, self.details())
    }
}
