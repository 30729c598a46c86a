//! A body that passes no faster than a budget allows.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

use crate::http::body::{Body, BodyError};

/// How many bytes may pass now.
pub(super) trait Budget {
    /// Takes as many as there are, up to what is wanted.
    fn take(&mut self, wanted: u64) -> u64;

    /// So many came.
    fn came(&mut self, _bytes: u64) {}

    /// None may pass now.
    fn held_back(&mut self) {}

    /// Whether there is something to say behind the body.
    fn has_trailers(&self) -> bool {
        false
    }

    /// Says it.
    fn add_trailers(&mut self, _trailers: &mut HeaderMap) {}
}

/// See the module's documentation.
pub(super) struct Paced<B> {
    inner: Body,
    budget: B,
    /// How often the budget is asked again.
    interval: Duration,
    /// What has come and may not go on yet.
    held: Option<Bytes>,
    pause: Option<Pin<Box<Sleep>>>,
    /// Trailers went by.
    ended: bool,
}

impl<B: Budget + Unpin + 'static> Paced<B> {
    /// Puts a budget before a body.
    pub(super) fn wrap(body: &mut Body, budget: B, interval: Duration) {
        let inner = std::mem::replace(body, Body::Empty);
        *body = Body::boxed(Self { inner, budget, interval, held: None, pause: None, ended: false });
    }

    fn with_trailers(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        self.ended = true;
        match frame.into_trailers() {
            Ok(mut trailers) => {
                self.budget.add_trailers(&mut trailers);
                Frame::trailers(trailers)
            }
            Err(frame) => frame,
        }
    }

    /// As much of what is held as may go on.
    fn release(&mut self, mut held: Bytes, context: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(context).is_pending() {
                    self.held = Some(held);
                    return Poll::Pending;
                }
                self.pause = None;
            }
            let taken = self.budget.take(held.len() as u64);
            if taken > 0 {
                // No more than was asked for, which is a length.
                let part = held.split_to(usize::try_from(taken).unwrap_or(held.len()));
                self.held = (!held.is_empty()).then_some(held);
                return Poll::Ready(part);
            }
            self.budget.held_back();
            self.pause = Some(Box::pin(tokio::time::sleep(self.interval)));
        }
    }
}

impl<B: Budget + Unpin + 'static> http_body::Body for Paced<B> {
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
                        self.budget.came(data.len() as u64);
                        self.held = Some(data);
                    }
                    Err(frame) => return Poll::Ready(Some(Ok(self.with_trailers(frame)))),
                },
                Poll::Ready(None) if !self.ended && self.budget.has_trailers() => {
                    let frame = self.with_trailers(Frame::trailers(HeaderMap::new()));
                    let said = frame.trailers_ref().is_some_and(|trailers| !trailers.is_empty());
                    return Poll::Ready(said.then_some(Ok(frame)));
                }
                other => return other,
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.inner.is_end_stream() && (self.ended || !self.budget.has_trailers())
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
