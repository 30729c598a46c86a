//! The bound of a route's timeout around all tries of a request.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

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
