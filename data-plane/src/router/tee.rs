//! A request's body that is copied as it passes. Who reads a copy slowly is waited for a little, and then gets no more:
//! the original does not hang on it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as _, Frame};
use tokio::time::Sleep;

use crate::http::body::{Body, BodyError};

/// How long the original waits for copies that lag behind.
const PATIENCE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fill {
    Open,
    /// The body came to its end.
    Ended,
    /// The rest does not come.
    Broken,
}

/// What of a copy was not read yet.
struct Pipe {
    frames: VecDeque<Frame<Bytes>>,
    held: usize,
    fill: Fill,
    /// Nobody reads it any more.
    gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    waits_for_end: Option<Waker>,
}

impl Pipe {
    fn push(&mut self, frame: &Frame<Bytes>) {
        if self.gone || self.fill != Fill::Open {
            return;
        }
        if let Some(data) = frame.data_ref() {
            self.held += data.len();
            self.frames.push_back(Frame::data(data.clone()));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.frames.push_back(Frame::trailers(trailers.clone()));
        }
        self.reader.take().into_iter().for_each(Waker::wake);
    }

    fn close(&mut self, fill: Fill) {
        if self.fill != Fill::Open {
            return;
        }
        self.fill = fill;
        if fill == Fill::Broken {
            self.frames = VecDeque::new();
        }
        let waiting = [self.reader.take(), self.waits_for_end.take()];
        waiting.into_iter().flatten().for_each(Waker::wake);
    }

    fn lags(&self, limit: usize) -> bool {
        !self.gone && self.fill == Fill::Open && self.held > limit
    }
}

/// A copy's end, for those that do not read it.
#[derive(Clone)]
pub(super) struct End(Option<Rc<RefCell<Pipe>>>);

impl End {
    /// Resolves when there will be no more of the body.
    pub(super) async fn come(&self) {
        let Some(pipe) = &self.0 else { return };
        poll_fn(|context| {
            let mut pipe = pipe.borrow_mut();
            if pipe.fill != Fill::Open {
                return Poll::Ready(());
            }
            pipe.waits_for_end = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// The original.
struct Tee {
    inner: Body,
    /// As much of a copy is held as is kept of a body in general.
    limit: usize,
    pipes: Box<[Rc<RefCell<Pipe>>]>,
    patience: Option<Pin<Box<Sleep>>>,
}

/// Splits so many copies off a body.
pub(super) fn split(body: Body, limit: usize, copies: usize) -> (Body, Vec<(Body, End)>) {
    if body.is_end_stream() {
        return (body, (0..copies).map(|_| (Body::Empty, End(None))).collect());
    }
    let pipe = || {
        Rc::new(RefCell::new(Pipe {
            frames: VecDeque::new(),
            held: 0,
            fill: Fill::Open,
            gone: false,
            reader: None,
            writer: None,
            waits_for_end: None,
        }))
    };
    let pipes: Box<[_]> = (0..copies).map(|_| pipe()).collect();
    let readers =
        pipes.iter().map(|pipe| (Body::boxed(Copied(pipe.clone())), End(Some(pipe.clone())))).collect();
    (Body::boxed(Tee { inner: body, limit, pipes, patience: None }), readers)
}

impl Tee {
    fn close(&self, fill: Fill) {
        self.pipes.iter().for_each(|pipe| pipe.borrow_mut().close(fill));
    }

    /// Waits for copies that lag behind, and gives those up that do so for too long.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let late = || self.pipes.iter().filter(|pipe| pipe.borrow().lags(self.limit));
        if late().next().is_none() {
            self.patience = None;
            return Poll::Ready(());
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        if patience.as_mut().poll(context).is_pending() {
            late().for_each(|pipe| pipe.borrow_mut().writer = Some(context.waker().clone()));
            return Poll::Pending;
        }
        late().for_each(|pipe| pipe.borrow_mut().close(Fill::Broken));
        self.patience = None;
        Poll::Ready(())
    }
}

impl http_body::Body for Tee {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        ready!(this.poll_room(context));
        let frame = ready!(Pin::new(&mut this.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                this.pipes.iter().for_each(|pipe| pipe.borrow_mut().push(frame));
                if frame.is_trailers() || this.inner.is_end_stream() {
                    this.close(Fill::Ended);
                }
            }
            Some(Err(_)) => this.close(Fill::Broken),
            None => this.close(Fill::Ended),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        self.close(Fill::Broken);
    }
}

/// A copy's reader.
struct Copied(Rc<RefCell<Pipe>>);

impl http_body::Body for Copied {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut pipe = self.0.borrow_mut();
        if let Some(frame) = pipe.frames.pop_front() {
            pipe.held -= frame.data_ref().map_or(0, Bytes::len);
            pipe.writer.take().into_iter().for_each(Waker::wake);
            return Poll::Ready(Some(Ok(frame)));
        }
        match pipe.fill {
            Fill::Ended => Poll::Ready(None),
            Fill::Broken => Poll::Ready(Some(Err(BodyError::Reset("the original was given up")))),
            Fill::Open => {
                pipe.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let pipe = self.0.borrow();
        pipe.fill == Fill::Ended && pipe.frames.is_empty()
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let mut pipe = self.0.borrow_mut();
        pipe.gone = true;
        pipe.frames = VecDeque::new();
        pipe.writer.take().into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    async fn read(body: Body) -> Result<Bytes, BodyError> {
        Ok(body.collect().await?.to_bytes())
    }

    #[tokio::test]
    async fn copies_are_whole_or_given_up() {
        let (original, copies) = split(Body::text("hello"), 4, 2);
        let mut copies = copies.into_iter();
        let (read_later, _) = copies.next().unwrap();
        drop(copies);
        assert_eq!(read(original).await.unwrap(), "hello");
        assert_eq!(read(read_later).await.unwrap(), "hello");
    }

    #[tokio::test]
    async fn nobody_waits_long_for_a_copy() {
        let frames = ["one", "two", "three"].map(|text| Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
        let body = Body::boxed(http_body_util::StreamBody::new(tokio_stream::iter(frames)));
        let (original, mut copies) = split(body, 4, 1);
        assert_eq!(read(original).await.unwrap(), "onetwothree");
        let (copy, end) = copies.pop().unwrap();
        end.come().await;
        assert!(read(copy).await.is_err());
    }
}
