//! Bodies whose messages are written anew, one by one.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Frame;
use sail_proxy_decide::transcoder::{Call, Elements, Framing, Unfit};

use crate::http::body::{Body, BodyError};
use crate::http::transform::Transform;

/// A message with its flag and length.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len() + 5);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.extend_from_slice(message);
    bytes.freeze()
}

/// Takes a whole message off the front.
pub(super) fn take(seen: &mut BytesMut) -> Option<Bytes> {
    let length: [u8; 4] = seen.get(1..5)?.try_into().ok()?;
    let length = usize::try_from(u32::from_be_bytes(length)).ok()?;
    if seen.len() - 5 < length {
        return None;
    }
    seen.advance(5);
    Some(seen.split_to(length).freeze())
}

/// What a streaming request's body turned out to be.
#[derive(Default)]
pub(super) struct Outcome(RefCell<Option<String>>);

impl Outcome {
    /// Why it is no request, if so.
    pub(super) fn failure(&self) -> Option<String> {
        self.0.borrow().clone()
    }
}

/// A request's array, whose elements become messages.
pub(super) struct ToGrpc {
    inner: Body,
    call: Rc<Call>,
    content_type: String,
    elements: Elements,
    limit: usize,
    /// No message went out yet.
    first: bool,
    ended: bool,
    outcome: Rc<Outcome>,
}

impl ToGrpc {
    pub(super) fn new(
        inner: Body,
        call: Rc<Call>,
        content_type: String,
        limit: usize,
        outcome: Rc<Outcome>,
    ) -> Self {
        let elements = Elements::default();
        Self { inner, call, content_type, elements, limit, first: true, ended: false, outcome }
    }

    fn message(&mut self, body: &[u8]) -> Result<Bytes, BodyError> {
        let made = self.call.request(body, &self.content_type, self.first);
        self.first = false;
        made.map(|message| framed(&message)).map_err(|unfit: Unfit| self.fail(unfit.to_string()))
    }

    fn fail(&mut self, why: String) -> BodyError {
        self.ended = true;
        self.outcome.0.replace(Some(why));
        BodyError::Reset("the request is not what the method takes")
    }

    fn data(&mut self, data: &[u8]) -> Result<Bytes, BodyError> {
        if self.call.takes_raw() {
            return self.message(data);
        }
        if !self.call.has_body() {
            return Ok(Bytes::new());
        }
        let Some(whole) = self.elements.push(data) else {
            return Err(self.fail("the request's body is no JSON array".to_owned()));
        };
        if self.elements.held() > self.limit {
            return Err(self.fail("an element of the request's body is too large".to_owned()));
        }
        let mut out = BytesMut::new();
        for element in whole {
            out.extend_from_slice(&self.message(&element)?);
        }
        Ok(out.freeze())
    }

    fn end(&mut self) -> Result<Bytes, BodyError> {
        self.ended = true;
        if !self.elements.is_over() {
            return Err(self.fail("the request's body ends within its array".to_owned()));
        }
        // What path and query say is a message, too.
        if self.first && (!self.call.has_body() || self.call.takes_raw()) {
            self.message(&[])
        } else {
            Ok(Bytes::new())
        }
    }
}

impl http_body::Body for ToGrpc {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let out = match ready!(Pin::new(&mut self.inner).poll_frame(context)).transpose()? {
                None => self.end()?,
                Some(frame) => match frame.into_data() {
                    Ok(data) => self.data(&data)?,
                    Err(_) => self.end()?,
                },
            };
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// A response's messages, as the client reads them.
pub(super) struct FromGrpc {
    call: Rc<Call>,
    seen: BytesMut,
    limit: usize,
    count: usize,
}

impl FromGrpc {
    pub(super) fn new(call: Rc<Call>, limit: usize) -> Self {
        Self { call, seen: BytesMut::new(), limit, count: 0 }
    }

    fn write(&mut self, message: &[u8], out: &mut BytesMut) -> Result<(), BodyError> {
        let bad = |_: Unfit| BodyError::Reset("a message of the response does not fit its type");
        if self.call.gives_raw() {
            out.extend_from_slice(&self.call.raw_response(message).map_err(bad)?.data);
            return Ok(());
        }
        let text = self.call.response(message).map_err(bad)?;
        let (before, after) = match self.call.framing() {
            Framing::Array if self.count == 0 => ("[", ""),
            Framing::Array => (",", ""),
            Framing::Lines => ("", "\n"),
            Framing::Events => ("data: ", "\n\n"),
        };
        self.count += 1;
        for part in [before, &*text, after] {
            out.extend_from_slice(part.as_bytes());
        }
        Ok(())
    }
}

impl Transform for FromGrpc {
    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        self.seen.extend_from_slice(&data);
        let mut out = BytesMut::new();
        while let Some(message) = take(&mut self.seen) {
            self.write(&message, &mut out)?;
        }
        if self.seen.len() > self.limit {
            return Err(BodyError::Reset("a message of the response is too large"));
        }
        Ok(out.freeze())
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        let array = self.call.framing() == Framing::Array && !self.call.gives_raw();
        let end = match (array, self.count) {
            (false, _) => "",
            (true, 0) => "[]",
            (true, _) => "]",
        };
        Ok((Bytes::from_static(end.as_bytes()), trailers))
    }
}
