//! A request's body on its way up, and a response's on its way down: what passes is noted, and what ends is told.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Sleep;

use super::body::{Body, BodyError};
use super::exchange::{Exchange, Guard, grpc_status};
use super::head::headers_size;
use crate::clock;
use crate::http1;
use crate::pool::lease::Lease;
use crate::router::failure::Failure;
use crate::stats::sets::http as stats;
use crate::stream_info::{ResponseFlag, details};

/// A request's body on its way up.
pub(crate) struct RequestBody {
    inner: Body,
    exchange: Rc<Exchange>,
}

impl RequestBody {
    /// The body as the upstream gets it; one that is known to be empty costs nothing.
    pub(crate) fn wrap(inner: Body, exchange: &Rc<Exchange>) -> Body {
        if inner.is_end_stream() {
            exchange.request_done.set(true);
            let mut info = exchange.info.borrow_mut();
            info.timing.last_downstream_rx = Some(info.start);
            return Body::Empty;
        }
        Body::boxed(Self { inner, exchange: exchange.clone() })
    }
}

/// Whether a body is coded in a way that cannot be read, other than one that ends too early.
fn is_malformed(error: &BodyError) -> bool {
    match error {
        BodyError::Http1(error) => matches!(error, http1::Error::Invalid(_)),
        BodyError::Http2(error) => error.is_violation(),
        BodyError::Request(_) | BodyError::Reset(_) | BodyError::Unflushed => false,
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if matches!(&frame, Some(Ok(frame)) if frame.is_trailers())
            && !self.exchange.connection.takes_trailers()
        {
            frame = None;
        }
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.exchange.info.borrow_mut().bytes.received += data.len() as u64;
                    self.exchange.moved.set(clock::now());
                }
                if self.inner.is_end_stream() {
                    self.exchange.note_request_done();
                }
            }
            Some(Err(error)) => {
                if is_malformed(error) {
                    self.exchange.flag(ResponseFlag::DownstreamProtocolError);
                }
            }
            None => self.exchange.note_request_done(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What bounds a response's body.
#[derive(Clone, Copy, Default)]
pub(crate) struct BodyTimers {
    /// The route's timeout, which covers the whole response.
    pub(crate) deadline: Option<Instant>,
    /// When the upstream's stream has lasted long enough.
    pub(crate) stream_end: Option<Instant>,
    /// How long the upstream may be silent.
    pub(crate) upstream_idle: Option<Duration>,
}

/// A response's body on its way down. It gives the upstream connection back when it was read to its end.
pub(crate) struct ResponseBody {
    inner: Body,
    lease: Option<Lease>,
    timers: Option<BodyTimers>,
    deadline: Option<Pin<Box<Sleep>>>,
    idle: Option<Pin<Box<Sleep>>>,
    /// Runs while the last of it is not taken.
    flush: Option<Pin<Box<Sleep>>>,
    guard: Guard,
}

impl ResponseBody {
    pub(crate) fn wrap(inner: Body, lease: Option<Lease>, timers: BodyTimers, guard: Guard) -> Body {
        let mut body =
            Self { inner, lease, timers: Some(timers), deadline: None, idle: None, flush: None, guard };
        if body.inner.is_end_stream() {
            body.finish();
        }
        Body::Answer(Box::new(body))
    }

    fn finish(&mut self) {
        self.guard.complete();
        self.timers = None;
        let exchange = &self.guard.exchange();
        exchange.timer.borrow_mut().end(exchange);
        if let Some(lease) = self.lease.take() {
            self.guard.exchange().info.borrow_mut().timing.last_upstream_rx = Some(clock::now());
            lease.finish();
        }
    }

    /// To be asked while the client does not take what came. Ready when the response is given up.
    pub(super) fn poll_stuck(&mut self, context: &mut Context<'_>) -> Poll<BodyError> {
        if self.timers.is_some() {
            let Some(error) = self.poll_limits(context) else { return Poll::Pending };
            self.note_failure(None);
            return Poll::Ready(error);
        }
        let exchange = self.guard.exchange();
        let Some(limit) = exchange.stream_flush_timeout().filter(|_| exchange.connection.http2) else {
            return Poll::Pending;
        };
        let flush = self.flush.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        flush.as_mut().poll(context).map(|()| BodyError::Unflushed)
    }

    /// Whether a timer gave the response up while the upstream is waited for.
    fn poll_timers(&mut self, context: &mut Context<'_>) -> Option<BodyError> {
        self.poll_limits(context).or_else(|| self.poll_idle(context))
    }

    /// Whether the response, or the stream, took too long.
    fn poll_limits(&mut self, context: &mut Context<'_>) -> Option<BodyError> {
        let timers = self.timers?;
        let exchange = &self.guard.exchange();
        let first = timers.deadline.into_iter().chain(timers.stream_end).min();
        let sleep = first
            .map(|at| self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into()))));
        if let Some(deadline) = sleep
            && deadline.as_mut().poll(context).is_ready()
        {
            let mut info = exchange.info.borrow_mut();
            if timers.stream_end.is_some() && timers.stream_end == first {
                info.flag(ResponseFlag::UpstreamMaxStreamDurationReached);
                info.code_details = Some(details::UPSTREAM_MAX_STREAM_DURATION_REACHED.into());
                if let Some(lease) = &self.lease {
                    lease.note_max_duration();
                }
                return Some(BodyError::Reset("upstream max stream duration reached"));
            }
            info.flag(ResponseFlag::UpstreamRequestTimeout);
            info.code_details = Some(details::RESPONSE_TIMEOUT.into());
            return Some(BodyError::Reset("response timeout"));
        }
        if let Poll::Ready(expired) = exchange.timer.borrow_mut().poll(exchange, context) {
            expired.note(exchange);
            return Some(BodyError::Reset(expired.details()));
        }
        None
    }

    /// Whether the upstream was silent for too long.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Option<BodyError> {
        let exchange = &self.guard.exchange();
        if let Some(limit) = self.timers?.upstream_idle {
            let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            while idle.as_mut().poll(context).is_ready() {
                let end = exchange.moved.get() + limit;
                if end <= clock::now() {
                    let mut info = exchange.info.borrow_mut();
                    info.flag(ResponseFlag::StreamIdleTimeout);
                    info.code_details = Some(details::UPSTREAM_PER_TRY_IDLE_TIMEOUT.into());
                    return Some(BodyError::Reset(details::UPSTREAM_PER_TRY_IDLE_TIMEOUT));
                }
                idle.as_mut().reset(end.into());
            }
        }
        None
    }

    fn note_data(&self, data: &Bytes) {
        let exchange = &self.guard.exchange();
        let mut info = exchange.info.borrow_mut();
        info.bytes.sent += data.len() as u64;
        if info.timing.first_upstream_body.is_none() && info.captured.wants_body_begin() {
            info.timing.first_upstream_body = self.lease.is_some().then(clock::now);
        }
        if self.timers.is_some() {
            exchange.moved.set(clock::now());
        }
    }

    fn note_trailers(&self, trailers: &HeaderMap) {
        let mut info = self.guard.exchange().info.borrow_mut();
        if let Some(status) = trailers.get("grpc-status").and_then(grpc_status) {
            info.grpc_status = Some(status);
        }
        info.bytes.response_trailers = headers_size(trailers);
        info.captured.take_trailers(trailers);
    }

    fn note_failure(&mut self, error: Option<&BodyError>) {
        let failure = self.failure(error);
        let mut info = self.guard.exchange().info.borrow_mut();
        if info.flags.is_empty() {
            failure.flag().into_iter().for_each(|flag| info.flag(flag));
            info.code_details = Some(details::upstream_reset(failure.reason(), true, None).into());
        }
        drop(info);
        let stats = &self.guard.exchange().connection.manager.stats;
        stats.inc(stats::downstream_rq_tx_reset);
        stats.inc(stats::downstream_rq_rx_reset);
        // The client sees a broken response, which is an end, though not the client's doing.
        self.guard.complete();
    }
}

impl ResponseBody {
    /// Why the upstream's body broke off.
    fn failure(&self, error: Option<&BodyError>) -> Failure {
        let Some(error) = error else { return Failure::Terminated { started: true } };
        if let BodyError::Http1(http1::Error::Interrupted | http1::Error::Body(_)) | BodyError::Reset(_) =
            error
        {
            return Failure::of_codec(error, false);
        }
        let malformed = is_malformed(error);
        match &self.lease {
            // Who ends a connection in the middle of a message breaks the protocol.
            Some(lease) if !lease.is_http2() => {
                lease.note_broken(malformed);
                Failure::Protocol
            }
            lease => {
                let failure = Failure::of_codec(error, false);
                if let Some(lease) = lease.as_ref().filter(|_| failure == Failure::Reset) {
                    lease.note_reset();
                }
                failure
            }
        }
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Err(error))) => {
                self.note_failure(Some(&error));
                return Poll::Ready(Some(Err(error)));
            }
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let Some(error) = self.poll_timers(context) else { return Poll::Pending };
                self.note_failure(None);
                return Poll::Ready(Some(Err(error)));
            }
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.note_data(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.note_trailers(trailers);
                }
                // Nothing comes after trailers, and a codec that does not send them does not ask.
                if frame.is_trailers() || self.inner.is_end_stream() {
                    self.finish();
                }
            }
            Some(Err(_)) => {}
            None => self.finish(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
