//! The bound of a route's timeout around all tries of a request, and of a try's around one.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::Success;
use crate::http::exchange::Exchange;
use crate::router::failure::Failure;

/// The route's timeout: it runs from the request's end.
struct Timer<'a> {
    exchange: &'a Exchange,
    limit: Duration,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Timer<'_> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.sleep.is_none() {
            if !self.exchange.request_done.get() {
                self.exchange.wake_when_request_done(context.waker());
                return Poll::Pending;
            }
            self.sleep = Some(Box::pin(tokio::time::sleep(self.limit)));
        }
        self.sleep.as_mut().map_or(Poll::Pending, |sleep| sleep.as_mut().poll(context))
    }
}

/// The tries, for as long as they may take.
pub(super) struct Bounded<'a, F> {
    run: Pin<&'a mut F>,
    timer: Timer<'a>,
}

impl<'a, F> Bounded<'a, F> {
    pub(super) fn new(run: Pin<&'a mut F>, exchange: &'a Exchange, limit: Duration) -> Self {
        Self { run, timer: Timer { exchange, limit, sleep: None } }
    }
}

impl<F: Future<Output = Result<Success, Failure>>> Future for Bounded<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.get_mut();
        if let Poll::Ready(result) = this.run.as_mut().poll(context) {
            return Poll::Ready(result);
        }
        this.timer.poll(context).map(|()| Err(Failure::Timeout))
    }
}

/// The time of one try: it runs once the try has a connection and the request is there as a whole.
pub(super) struct TryTimer<'a> {
    timer: Timer<'a>,
    connected: bool,
}

impl<'a> TryTimer<'a> {
    pub(super) fn new(exchange: &'a Exchange, limit: Duration) -> Self {
        Self { timer: Timer { exchange, limit, sleep: None }, connected: false }
    }

    /// When the request went to an upstream last.
    fn sent(&self) -> Option<Instant> {
        self.timer.exchange.info.borrow().timing.first_upstream_tx
    }

    /// Goes on with the try. `None`: its time is over.
    pub(super) fn poll<F: Future + ?Sized>(
        &mut self,
        run: Pin<&mut F>,
        context: &mut Context<'_>,
    ) -> Poll<Option<F::Output>> {
        // Other tries may be under way: what changes meanwhile is this one's doing.
        let before = self.sent();
        if let Poll::Ready(result) = run.poll(context) {
            return Poll::Ready(Some(result));
        }
        self.connected |= self.sent() != before;
        if !self.connected {
            return Poll::Pending;
        }
        self.timer.poll(context).map(|()| None)
    }
}

/// One try, for as long as it may take; `None`: it took longer.
pub(super) async fn within<F: Future + ?Sized>(
    mut run: Pin<&mut F>,
    exchange: &Exchange,
    limit: Duration,
) -> Option<F::Output> {
    let mut timer = TryTimer::new(exchange, limit);
    std::future::poll_fn(|context| timer.poll(run.as_mut(), context)).await
}
