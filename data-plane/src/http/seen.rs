//! A body whose frames somebody sees as they pass.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::body::{Body, BodyError};

/// Has every frame seen; a body without any costs nothing.
pub(crate) fn by(body: Body, see: impl FnMut(&Frame<Bytes>) + Unpin + 'static) -> Body {
    if body.is_end_stream() { body } else { Body::boxed(Seen { inner: body, see }) }
}

struct Seen<F> {
    inner: Body,
    see: F,
}

impl<F: FnMut(&Frame<Bytes>) + Unpin> http_body::Body for Seen<F> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            (self.see)(frame);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
