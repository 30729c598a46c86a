//! A body that a module sees piece by piece, and may hold back.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use sail_proxy_wasm::{DataAction, Peer, Stream as _};

use super::LIMIT;
use super::stream::HttpStream;
use crate::http::body::{Body, BodyError};

/// See the module's documentation.
pub(super) struct Shown {
    inner: Body,
    stream: Rc<HttpStream>,
    peer: Peer,
    hold: Hold,
    /// What is held back.
    kept: Bytes,
    trailers: Option<HeaderMap>,
    /// Nothing more comes from within.
    ended: bool,
}

/// What the module said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    /// Pieces go on.
    Open,
    /// Pieces are kept and shown together.
    Buffer,
    /// Nothing is read.
    Closed,
}

type Frames = Poll<Option<Result<Frame<Bytes>, BodyError>>>;

impl Shown {
    pub(super) fn new(inner: Body, stream: Rc<HttpStream>, peer: Peer) -> Self {
        let hold = Hold::Open;
        Self { inner, stream, peer, hold, kept: Bytes::new(), trailers: None, ended: false }
    }

    /// Whether nothing is held back.
    pub(super) fn is_open(&self) -> bool {
        self.hold == Hold::Open
    }

    /// Shows a piece; says what goes on.
    fn piece(&mut self, data: Bytes, end: bool) -> Result<Option<Bytes>, BodyError> {
        let data = if self.hold == Hold::Buffer && !self.kept.is_empty() {
            let mut all = BytesMut::from(std::mem::take(&mut self.kept));
            all.extend_from_slice(&data);
            all.freeze()
        } else {
            data
        };
        let (action, data) = self.stream.on_body(self.peer, data, end);
        match action {
            // The module is no more.
            None if self.stream.fails_open => self.hold = Hold::Open,
            None => return Err(BodyError::Reset("wasm_fail_stream")),
            Some(DataAction::Continue) => self.hold = Hold::Open,
            Some(DataAction::Discard) => return Ok(None),
            Some(action) => {
                if data.len() > LIMIT {
                    self.stream.give_up(self.peer);
                    return Err(BodyError::Reset("wasm_body_too_large"));
                }
                self.hold = if action == DataAction::Buffer { Hold::Buffer } else { Hold::Closed };
                self.kept = data;
                return Ok(None);
            }
        }
        Ok(Some(data).filter(|data| !data.is_empty()))
    }

    /// Shows the trailers.
    fn trailers(&mut self, trailers: HeaderMap) {
        let (action, trailers) = self.stream.on_trailers(self.peer, trailers);
        self.trailers = Some(trailers);
        self.hold = match action {
            None | Some(DataAction::Continue) => Hold::Open,
            Some(_) => Hold::Closed,
        };
    }

    /// What goes on without anything new: what was kept, then trailers.
    fn release(&mut self) -> Option<Frame<Bytes>> {
        if !self.kept.is_empty() {
            return Some(Frame::data(std::mem::take(&mut self.kept)));
        }
        self.trailers.take().map(Frame::trailers)
    }
}

impl http_body::Body for Shown {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Frames {
        let this = &mut *self;
        loop {
            if this.stream.is_answered() {
                return Poll::Ready(Some(Err(BodyError::Reset("wasm answered"))));
            }
            if this.stream.is_failed() && !this.stream.fails_open {
                return Poll::Ready(Some(Err(BodyError::Reset("wasm_fail_stream"))));
            }
            if this.hold != Hold::Open && (this.stream.take_resumed(this.peer) || this.stream.is_failed()) {
                this.hold = Hold::Open;
            }
            if this.hold == Hold::Open
                && let Some(frame) = this.release()
            {
                return Poll::Ready(Some(Ok(frame)));
            }
            if this.hold == Hold::Closed || (this.hold == Hold::Buffer && this.ended) {
                this.stream.turn(this.peer).wait(context.waker());
                return Poll::Pending;
            }
            if this.ended {
                return Poll::Ready(None);
            }
            if this.hold == Hold::Buffer {
                this.stream.turn(this.peer).wait(context.waker());
            }
            let went = match ready!(Pin::new(&mut this.inner).poll_frame(context)) {
                None => {
                    this.ended = true;
                    if this.stream.sees_body(this.peer) { this.piece(Bytes::new(), true)? } else { None }
                }
                Some(frame) => match frame?.into_data() {
                    Ok(data) if !this.stream.sees_body(this.peer) => Some(data),
                    Ok(data) => {
                        let end = this.inner.is_end_stream();
                        this.ended |= end;
                        this.piece(data, end)?
                    }
                    Err(frame) => {
                        this.ended = true;
                        this.trailers(frame.into_trailers().unwrap_or_default());
                        None
                    }
                },
            };
            if let Some(data) = went {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.hold == Hold::Open && self.kept.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.stream.sees_body(self.peer) { SizeHint::default() } else { self.inner.size_hint() }
    }
}
