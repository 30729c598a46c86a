//! `envoy.filters.http.grpc_stats`: counts the messages of gRPC streams as they pass.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::{Flow, HttpFilter, Request, Response, Work};
use crate::http::body::{Body, BodyError};
use crate::http::exchange::Exchange;

/// Which way a body goes.
#[derive(Clone, Copy)]
enum Direction {
    Request,
    Response,
}

/// Counts the messages of gRPC requests, each way.
pub(crate) struct Filter;

impl HttpFilter for Filter {
    fn on_request<'a>(&'a self, request: Request<'a>) -> Flow<'a> {
        if request.exchange.grpc.get() {
            let body = std::mem::replace(request.body, Body::Empty);
            *request.body = count(body, request.exchange, Direction::Request);
        }
        Flow::Continue
    }

    fn on_response<'a>(&'a self, response: Response<'a>) -> Option<Work<'a, ()>> {
        if response.exchange.grpc.get() {
            let body = std::mem::replace(response.reply.response.body_mut(), Body::Empty);
            *response.reply.response.body_mut() = count(body, response.exchange, Direction::Response);
        }
        None
    }
}

/// Wraps a body so that its messages are counted in the exchange's record.
fn count(body: Body, exchange: &Rc<Exchange>, direction: Direction) -> Body {
    if body.is_end_stream() {
        return body;
    }
    Body::boxed(Counting { inner: body, exchange: exchange.clone(), direction, frames: Frames::default() })
}

struct Counting {
    inner: Body,
    exchange: Rc<Exchange>,
    direction: Direction,
    frames: Frames,
}

/// Finds the beginnings of messages: a flag byte and four bytes of length.
#[derive(Default)]
struct Frames {
    header: Cell<[u8; 5]>,
    seen: Cell<usize>,
    left: Cell<usize>,
}

impl Frames {
    /// How many messages begin in these bytes.
    fn feed(&self, mut data: &[u8]) -> u64 {
        let mut begun = 0;
        while !data.is_empty() {
            let skipped = self.left.get().min(data.len());
            self.left.set(self.left.get() - skipped);
            data = &data[skipped..];
            let mut header = self.header.get();
            while self.left.get() == 0 && self.seen.get() < 5 {
                let Some((byte, rest)) = data.split_first() else { break };
                header[self.seen.get()] = *byte;
                self.seen.set(self.seen.get() + 1);
                data = rest;
            }
            self.header.set(header);
            if self.seen.get() == 5 {
                self.seen.set(0);
                begun += 1;
                self.left.set(u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize);
            }
        }
        begun
    }
}

impl http_body::Body for Counting {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let begun = self.frames.feed(data);
            let mut info = self.exchange.info.borrow_mut();
            match self.direction {
                Direction::Request => info.grpc_messages.request += begun,
                Direction::Response => info.grpc_messages.response += begun,
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

#[cfg(test)]
mod tests {
    use super::Frames;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let mut wire = Vec::new();
        for message in [&b"abc"[..], b"", b"longer message"] {
            wire.push(0);
            wire.extend_from_slice(&(message.len() as u32).to_be_bytes());
            wire.extend_from_slice(message);
        }
        for size in 1..wire.len() {
            let frames = Frames::default();
            let counted: u64 = wire.chunks(size).map(|chunk| frames.feed(chunk)).sum();
            assert_eq!(counted, 3, "in pieces of {size}");
        }
    }
}
