//! Bodies that somebody has to see before they go on: read up to a limit, and put back.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;

use super::body::{Body, BodyError};

/// What was read of a body.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) bytes: Bytes,
    /// Whether that is all of it.
    pub(crate) complete: bool,
}

/// Reads a body until its end, or until more than the limit was seen. The body is whole again afterwards.
pub(crate) async fn gather(body: &mut Body, limit: usize) -> Result<Gathered, BodyError> {
    let mut bytes = BytesMut::new();
    let mut trailers = None;
    let mut complete = body.is_end_stream();
    while !complete && bytes.len() <= limit {
        match body.frame().await {
            None => complete = true,
            Some(frame) => match frame?.into_data() {
                Ok(data) => {
                    bytes.extend_from_slice(&data);
                    complete = body.is_end_stream();
                }
                Err(frame) => {
                    trailers = frame.into_trailers().ok();
                    complete = true;
                }
            },
        }
    }
    let bytes = bytes.freeze();
    let rest = if complete { Body::Empty } else { std::mem::replace(body, Body::Empty) };
    *body = joined(bytes.clone(), trailers, rest);
    Ok(Gathered { bytes, complete })
}

/// A body of these bytes, then what is left of another, then trailers.
pub(crate) fn joined(first: Bytes, trailers: Option<HeaderMap>, rest: Body) -> Body {
    match (trailers, rest) {
        (None, Body::Empty) => Body::text(first),
        (trailers, rest) if first.is_empty() && trailers.is_none() => rest,
        (trailers, rest) => Body::boxed(Joined { first, rest, trailers }),
    }
}

struct Joined {
    first: Bytes,
    rest: Body,
    trailers: Option<HeaderMap>,
}

impl http_body::Body for Joined {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.first)))));
        }
        match Pin::new(&mut self.rest).poll_frame(context) {
            Poll::Ready(None) => {
                Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_empty() && self.rest.is_end_stream() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let first = self.first.len() as u64;
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + first);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + first);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_whole_after_it_was_looked_at() {
        let mut body = Body::text("hello");
        let seen = gather(&mut body, 16).await.unwrap();
        assert_eq!((&*seen.bytes, seen.complete), (&b"hello"[..], true));
        let mut trailers = HeaderMap::new();
        trailers.insert("x", "y".parse().unwrap());
        let mut body = joined("ab".into(), Some(trailers), Body::text("cd"));
        let seen = gather(&mut body, 1).await.unwrap();
        assert_eq!((&*seen.bytes, seen.complete), (&b"ab"[..], false));
        let all = body.collect().await.unwrap();
        assert_eq!(all.trailers().unwrap()["x"], "y");
        assert_eq!(all.to_bytes(), "abcd");
    }
}
