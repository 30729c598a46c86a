//! Bodies whose bytes are changed on their way.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;

use super::body::{Body, BodyError};

/// What is done with a body's bytes.
pub(crate) trait Transform {
    /// What goes on in place of these bytes; may be nothing yet.
    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError>;

    /// What goes on after the last bytes: more bytes, and trailers.
    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError>;
}

/// Puts a transformation around a body. Nothing happens to one that is known to be empty.
pub(crate) fn wrap(body: &mut Body, transform: impl Transform + Unpin + 'static) {
    if !http_body::Body::is_end_stream(body) {
        let inner = std::mem::replace(body, Body::Empty);
        *body = Body::boxed(Transformed { inner, transform, state: State::Reading });
    }
}

struct Transformed<T> {
    inner: Body,
    transform: T,
    state: State,
}

enum State {
    Reading,
    /// The bytes are out, the trailers are not.
    Trailers(HeaderMap),
    Ended,
}

impl<T: Transform + Unpin> http_body::Body for Transformed<T> {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        loop {
            match std::mem::replace(&mut this.state, State::Ended) {
                State::Ended => return Poll::Ready(None),
                State::Trailers(trailers) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                State::Reading => this.state = State::Reading,
            }
            let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
            let (data, trailers, ended) = match frame {
                None => with_end(this.transform.end(None)?),
                Some(frame) => match frame?.into_data() {
                    Ok(data) => (this.transform.data(data)?, None, false),
                    Err(frame) => with_end(this.transform.end(frame.into_trailers().ok())?),
                },
            };
            if ended {
                this.state = trailers.map_or(State::Ended, State::Trailers);
            }
            if !data.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

fn with_end((data, trailers): (Bytes, Option<HeaderMap>)) -> (Bytes, Option<HeaderMap>, bool) {
    (data, trailers, true)
}
