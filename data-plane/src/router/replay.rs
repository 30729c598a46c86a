//! A request's body that may be sent more than once. It streams: the first reader pulls from the client, and what was
//! read is kept, up to a limit, for those who come after.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use crate::http::body::{Body, BodyError};

struct State {
    source: Body,
    kept: Vec<Bytes>,
    size: usize,
    limit: usize,
    /// More than the limit went through: what is kept is not the whole.
    overflowed: bool,
    trailers: Option<HeaderMap>,
    ended: bool,
}

/// The body's keeper.
#[derive(Clone)]
pub(crate) struct Replay(Rc<RefCell<State>>);

impl Replay {
    pub(crate) fn new(source: Body, limit: usize) -> Self {
        let ended = source.is_end_stream();
        Self(Rc::new(RefCell::new(State {
            source,
            kept: Vec::new(),
            size: 0,
            limit,
            overflowed: false,
            trailers: None,
            ended,
        })))
    }

    /// Whether the body can be sent once more.
    pub(crate) fn can_replay(&self) -> bool {
        !self.0.borrow().overflowed
    }

    /// A reader from the beginning.
    pub(crate) fn reader(&self) -> Body {
        if self.0.borrow().ended && self.0.borrow().kept.is_empty() && self.0.borrow().trailers.is_none() {
            return Body::Empty;
        }
        Body::boxed(Reader { replay: self.clone(), next: 0, trailers_read: false })
    }

    /// The whole body, if it was read to its end and kept.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        let state = self.0.borrow();
        (state.ended && !state.overflowed).then(|| state.kept.concat().into())
    }
}

struct Reader {
    replay: Replay,
    next: usize,
    trailers_read: bool,
}

impl State {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.size += data.len();
            if self.size > self.limit {
                self.overflowed = true;
                self.kept = Vec::new();
            }
            if !self.overflowed {
                self.kept.push(data.clone());
            }
        } else if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
        }
    }
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let replay = self.replay.clone();
        let mut state = replay.0.borrow_mut();
        if let Some(data) = state.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(data.clone()))));
        }
        if state.ended {
            let trailers = state.trailers.clone().filter(|_| !self.trailers_read);
            self.trailers_read = true;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let Poll::Ready(frame) = Pin::new(&mut state.source).poll_frame(context) else {
            return Poll::Pending;
        };
        match &frame {
            Some(Ok(frame)) => {
                state.keep(frame);
                self.next = state.kept.len();
                self.trailers_read = frame.is_trailers();
                state.ended = frame.is_trailers() || state.source.is_end_stream();
            }
            Some(Err(_)) => state.overflowed = true,
            None => state.ended = true,
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.replay.0.borrow();
        state.ended && self.next >= state.kept.len() && (self.trailers_read || state.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        let state = self.replay.0.borrow();
        let left = state.source.size_hint();
        match left.exact() {
            Some(left) if !state.overflowed => SizeHint::with_exact(
                left + state.kept[self.next..].iter().map(|data| data.len() as u64).sum::<u64>(),
            ),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_second_reader_gets_what_the_first_got() {
        let replay = Replay::new(Body::text("hello"), 16);
        assert_eq!(replay.reader().collect().await.unwrap().to_bytes(), "hello");
        assert!(replay.can_replay());
        assert_eq!(replay.reader().collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(replay.whole().unwrap(), "hello");
    }

    #[tokio::test]
    async fn a_large_body_streams_but_is_not_kept() {
        let replay = Replay::new(Body::text("hello"), 4);
        assert_eq!(replay.reader().collect().await.unwrap().to_bytes(), "hello");
        assert!(!replay.can_replay());
        assert_eq!(replay.whole(), None);
    }
}
