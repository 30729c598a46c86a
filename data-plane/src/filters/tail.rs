//! A wrapper that tells when a body has ended, and lets its trailers be changed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use crate::http::body::{Body, BodyError};

/// Calls back once, with the trailers if there are any; not if the body breaks off.
pub(super) fn at_end(mut body: Body, call: impl FnOnce(Option<&mut HeaderMap>) + Unpin + 'static) -> Body {
    if body.is_end_stream() {
        call(None);
        return std::mem::replace(&mut body, Body::Empty);
    }
    Body::boxed(Tail { inner: body, call: Some(call) })
}

struct Tail<F> {
    inner: Body,
    call: Option<F>,
}

impl<F: FnOnce(Option<&mut HeaderMap>) + Unpin> http_body::Body for Tail<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    if let Some(call) = self.call.take() {
                        call(Some(trailers));
                    }
                } else if self.inner.is_end_stream()
                    && let Some(call) = self.call.take()
                {
                    call(None);
                }
            }
            Some(Err(_)) => self.call = None,
            None => {
                if let Some(call) = self.call.take() {
                    call(None);
                }
            }
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
