//! What goes: heads, bodies as far as windows let them, and ends of streams; and what a stream's users ask of it.

use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, Response, request, response};
use http_body::Frame as BodyFrame;
use sail_proxy_http2::frame::{self, HEADER, Head, Reason, flag, kind};
use sail_proxy_http2::hpack::Encoder;

use super::connection::{Inner, Side};
use super::error::Error;
use super::heads;
use super::leaving::Leaving;
use super::stream::Sent;

impl Inner {
    /// Writes a head in as many frames as it needs.
    fn write_head(&mut self, id: u32, ends: bool, block: impl FnOnce(&mut Encoder, &mut Vec<u8>)) {
        let out = self.output.buffer();
        let start = out.len();
        out.extend_from_slice(&[0; HEADER]);
        block(&mut self.encoder, out);
        let length = out.len() - start - HEADER;
        let max = self.peer.max_frame;
        let ends = if ends { flag::END_STREAM } else { 0 };
        if length <= max {
            let flags = ends | flag::END_HEADERS;
            let head = Head { length: length as u32, kind: kind::HEADERS, flags, stream: id };
            out[start..start + HEADER].copy_from_slice(&head.bytes());
        } else {
            let block = out.split_off(start + HEADER);
            out.truncate(start);
            let count = block.len().div_ceil(max);
            for (index, part) in block.chunks(max).enumerate() {
                let kind = if index == 0 { kind::HEADERS } else { kind::CONTINUATION };
                let whole = if index + 1 == count { flag::END_HEADERS } else { 0 };
                frame::write(out, kind, whole | if index == 0 { ends } else { 0 }, id, part);
            }
        }
        self.floods.note_sent();
        self.rouse();
    }

    /// Begins a request on a stream of its own, which somebody holds. To be called where there is a place.
    pub(super) fn send_request(&mut self, parts: &request::Parts, ends: bool) -> u32 {
        self.ask_ahead();
        let id = self.next;
        self.next += 2;
        let mut stream = self.stream();
        stream.handles = 1;
        stream.received.bodiless = parts.method == http::Method::HEAD;
        self.streams.begin(id, stream);
        self.counts.move_streams(1);
        self.write_head(id, ends, |encoder, out| heads::write_request(encoder, out, parts));
        self.note_sent(id, ends);
        id
    }

    /// Whether a request may begin: `None` where the connection takes no more of them.
    pub(super) fn has_place(&self) -> Option<bool> {
        if self.left || self.next > frame::MAX_WINDOW || self.leaving != Leaving::Not {
            return None;
        }
        Some(self.streams.open() < self.peer.max_streams as usize)
    }

    pub(super) fn send_response(&mut self, id: u32, parts: &response::Parts, ends: bool) {
        if self.is_sendable(id) {
            self.write_head(id, ends, |encoder, out| heads::write_response(encoder, out, parts));
            self.note_sent(id, ends);
        }
    }

    /// Tells a client something before its response.
    pub(super) fn inform(&mut self, id: u32, parts: &response::Parts) {
        let waits = self.streams.peek(id).is_some_and(|stream| stream.sent == Sent::Nothing);
        if waits && self.is_sendable(id) {
            self.write_head(id, false, |encoder, out| heads::write_response(encoder, out, parts));
        }
    }

    pub(super) fn send_trailers(&mut self, id: u32, trailers: &HeaderMap) {
        if self.is_sendable(id) {
            self.write_head(id, true, |encoder, out| heads::write_trailers(encoder, out, trailers));
            self.note_sent(id, true);
        }
    }

    fn is_sendable(&self, id: u32) -> bool {
        self.ended.is_none() && self.streams.peek(id).is_some_and(|stream| stream.failed.is_none())
    }

    fn note_sent(&mut self, id: u32, ends: bool) {
        if let Some(stream) = self.streams.get(id) {
            stream.sent = if ends { Sent::All } else { Sent::Head };
            self.close_if_over(id);
        }
    }

    /// Sends of the data what windows let through; ready once all of it is on its way. `ends`: nothing follows it.
    pub(super) fn poll_send(
        &mut self,
        id: u32,
        data: &mut Bytes,
        ends: bool,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        loop {
            let Some(stream) = self.streams.get(id) else { return Poll::Ready(Err(Error::Closed)) };
            if let Some(error) = stream.failed {
                return Poll::Ready(Err(error));
            }
            if data.is_empty() && !ends {
                return Poll::Ready(Ok(()));
            }
            let room = stream.window.room().min(self.window.room()).min(self.peer.max_frame);
            let can = data.is_empty() || (room > 0 && self.output.has_room());
            if stream.sent == Sent::Nothing || !can {
                stream.await_writing(context);
                // Its own window is its own affair; for the rest it stands in line with others.
                if stream.window.room() > 0 && !std::mem::replace(&mut stream.queued, true) {
                    self.queue.push_back(id);
                }
                return Poll::Pending;
            }
            let count = data.len().min(room);
            let last = ends && count == data.len();
            stream.window.take(count);
            self.window.take(count);
            let flags = if last { flag::END_STREAM } else { 0 };
            frame::write(self.output.buffer(), kind::DATA, flags, id, &data[..count]);
            self.floods.note_sent_data();
            data.advance(count);
            self.rouse();
            if last {
                self.note_sent(id, true);
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Whether all that goes is on its way.
    pub(super) fn is_sent(&self, id: u32) -> bool {
        self.streams.peek(id).is_none_or(|stream| stream.sent == Sent::All)
    }

    /// Ready when the stream broke off.
    pub(super) fn poll_failed(&mut self, id: u32, context: &mut Context<'_>) -> Poll<Error> {
        match self.streams.get(id) {
            None => Poll::Ready(Error::Closed),
            Some(stream) => match stream.failed {
                Some(error) => Poll::Ready(error),
                None => {
                    stream.await_writing(context);
                    Poll::Pending
                }
            },
        }
    }

    /// The head of the response to what was asked on this stream, and what came before it.
    pub(super) fn poll_response(
        &mut self,
        id: u32,
        informs: &mut Option<Box<Response<()>>>,
        context: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, Error>> {
        let Some(stream) = self.streams.get(id) else { return Poll::Ready(Err(Error::Closed)) };
        if stream.received.informs.is_some() {
            *informs = stream.received.informs.take();
        }
        if let Some(response) = stream.received.response.take() {
            return Poll::Ready(Ok(*response));
        }
        if let Some(error) = stream.failed {
            return Poll::Ready(Err(error));
        }
        stream.await_reading(context);
        Poll::Pending
    }

    /// The next part of the body that comes; what is read gives the peer room for more.
    pub(super) fn poll_frame(
        &mut self,
        id: u32,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, Error>>> {
        let Some(stream) = self.streams.get(id) else { return Poll::Ready(Some(Err(Error::Closed))) };
        if let Some(data) = stream.received.pop() {
            self.release(id, data.len() as u32);
            return Poll::Ready(Some(Ok(BodyFrame::data(data))));
        }
        if let Some(trailers) = stream.received.trailers.take() {
            return Poll::Ready(Some(Ok(BodyFrame::trailers(*trailers))));
        }
        if stream.received.ended {
            return Poll::Ready(None);
        }
        if let Some(error) = stream.failed {
            return Poll::Ready(Some(Err(error)));
        }
        stream.await_reading(context);
        Poll::Pending
    }

    /// Whether the body was read to its end.
    pub(super) fn is_read(&self, id: u32) -> bool {
        self.streams.peek(id).is_none_or(|stream| {
            let received = &stream.received;
            received.ended && received.unread() == 0 && received.trailers.is_none()
        })
    }

    /// As much as is still to be read of the body, where that is known.
    pub(super) fn remaining(&self, id: u32) -> Option<u64> {
        let received = &self.streams.peek(id)?.received;
        let left = if received.ended && received.trailers.is_none() { Some(0) } else { received.left };
        left.map(|left| left + received.unread() as u64)
    }

    /// Data was read, or passed over: the peer may send as much again.
    pub(super) fn release(&mut self, id: u32, count: u32) {
        self.release_connection(count);
        if let Some(stream) = self.streams.get(id)
            && !stream.received.ended
            && let Some(by) = stream.credit.earn(count)
        {
            frame::write(self.output.buffer(), kind::WINDOW_UPDATE, 0, id, &by.to_be_bytes());
            self.rouse();
        }
    }

    pub(super) fn release_connection(&mut self, count: u32) {
        if let Some(by) = self.credit.earn(count) {
            frame::write(self.output.buffer(), kind::WINDOW_UPDATE, 0, 0, &by.to_be_bytes());
            self.rouse();
        }
    }

    /// Breaks a stream off.
    pub(super) fn reset(&mut self, id: u32, reason: Reason, error: Error) {
        self.write_reset(id, reason);
        if let Some(stream) = self.streams.get(id) {
            stream.fail(error);
        }
        self.close(id);
    }

    fn write_reset(&mut self, id: u32, reason: Reason) {
        frame::write(self.output.buffer(), kind::RST_STREAM, 0, id, &reason.0.to_be_bytes());
        self.broken.note(id);
        self.floods.note_sent_control();
        self.counts.note_reset_sent();
        self.rouse();
    }

    pub(super) fn close_if_over(&mut self, id: u32) {
        if self.streams.peek(id).is_some_and(super::stream::Stream::is_over) {
            self.close(id);
        }
    }

    /// The stream counts no more: another may have its place.
    pub(super) fn close(&mut self, id: u32) {
        if self.streams.close(id) {
            self.note_closed();
        }
    }

    fn note_closed(&mut self) {
        self.counts.move_streams(-1);
        // All of them: who is first may have gone.
        self.waiting.drain(..).for_each(Waker::wake);
        if self.streams.open() == 0 && (self.leaving != Leaving::Not || self.left) {
            self.rouse();
        }
    }

    /// Somebody holds on to the stream, too.
    pub(super) fn hold(&mut self, id: u32) {
        if let Some(stream) = self.streams.get(id) {
            stream.handles += 1;
        }
    }

    /// Somebody lets go of it. Without anybody it is over, whatever is still to come.
    pub(super) fn let_go(&mut self, id: u32) {
        let Some(stream) = self.streams.get(id) else { return };
        stream.handles -= 1;
        if stream.handles > 0 {
            return;
        }
        let unread = stream.received.unread() as u32;
        if stream.open && stream.failed.is_none() {
            // A response that is complete says all that there was to say to what of the request is not read.
            let answered = self.side == Side::Server && stream.sent == Sent::All;
            self.write_reset(id, if answered { Reason::NO_ERROR } else { Reason::CANCEL });
        }
        self.close(id);
        self.streams.forget(id);
        self.release_connection(unread);
    }
}
