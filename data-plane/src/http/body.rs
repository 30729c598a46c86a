//! The one body type that requests and responses have on both sides of the proxy.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::bodies::ResponseBody;
use crate::http1::downstream;
use crate::{http1, http2};

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// A peer over HTTP/1, or its codec.
    #[error(transparent)]
    Http1(#[from] http1::Error),
    /// A peer over HTTP/2, or its codec.
    #[error(transparent)]
    Http2(#[from] http2::Error),
    /// The request's own body, while its response was waited for.
    #[error("request body: {0}")]
    Request(Box<BodyError>),
    /// The proxy gave up on the stream: a timeout, or the other side's end.
    #[error("stream reset: {0}")]
    Reset(&'static str),
    /// The last of it was not taken in time.
    #[error("its end was not taken")]
    Unflushed,
}

/// A body whose kind is not known when the codec is compiled.
pub(crate) type BoxBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>;

/// See the module's documentation.
pub(crate) enum Body {
    Empty,
    Full(Bytes),
    /// From either side over HTTP/2.
    Streamed(http2::Incoming),
    /// From an upstream over HTTP/1.
    Received(http1::Incoming<http1::Connection>),
    /// From a client over HTTP/1.
    Arriving(http1::Incoming<downstream::Inner>),
    /// A response on its way to its client.
    Answer(Box<ResponseBody>),
    Boxed(BoxBody),
}

impl Body {
    /// Boxes a wrapper around another body.
    pub(crate) fn boxed(body: impl http_body::Body<Data = Bytes, Error = BodyError> + 'static) -> Self {
        Self::Boxed(Box::pin(body))
    }

    /// To be asked while what it gave is not taken. Ready when it is given up.
    pub(crate) fn poll_stuck(&mut self, context: &mut Context<'_>) -> Poll<BodyError> {
        match self {
            Self::Answer(answer) => answer.poll_stuck(context),
            _ => Poll::Pending,
        }
    }

    /// Bytes whose number the codec is not to tell.
    pub(crate) fn unmeasured(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::Empty;
        }
        let frames = futures_util::stream::iter([Ok(Frame::data(bytes))]);
        Self::boxed(http_body_util::StreamBody::new(frames))
    }

    /// Text of a local reply.
    pub(crate) fn text(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        if text.is_empty() { Self::Empty } else { Self::Full(text) }
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Full(_) => "Full",
            Self::Streamed(_) => "Streamed",
            Self::Received(_) => "Received",
            Self::Arriving(_) => "Arriving",
            Self::Answer(_) => "Answer",
            Self::Boxed(_) => "Boxed",
        })
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = self.get_mut();
        match body {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *body = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Streamed(streamed) => poll_inner(streamed, context),
            Self::Received(received) => poll_inner(received, context),
            Self::Arriving(arriving) => poll_inner(arriving, context),
            Self::Answer(inner) => Pin::new(&mut **inner).poll_frame(context),
            Self::Boxed(inner) => inner.as_mut().poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Streamed(streamed) => streamed.is_end_stream(),
            Self::Received(received) => received.is_end_stream(),
            Self::Arriving(arriving) => arriving.is_end_stream(),
            Self::Answer(inner) => inner.is_end_stream(),
            Self::Boxed(inner) => inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streamed(streamed) => streamed.size_hint(),
            Self::Received(received) => received.size_hint(),
            Self::Arriving(arriving) => arriving.size_hint(),
            Self::Answer(inner) => inner.size_hint(),
            Self::Boxed(inner) => inner.size_hint(),
        }
    }
}

fn poll_inner<B: http_body::Body<Data = Bytes> + Unpin>(
    body: &mut B,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>>
where
    BodyError: From<B::Error>,
{
    Pin::new(body).poll_frame(context).map(|frame| frame.map(|result| result.map_err(Into::into)))
}
