//! What comes: frames to heads, bodies and ends of streams.

use std::ops::Range;

use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;
use sail_proxy_http2::frame::{self, Frame, HEADER, Head, Reason, kind};

use super::connection::{Accepted, Inner, Side, Unfinished, protocol};
use super::counts::Event;
use super::error::Error;
use super::heads::{Bad, Fields, Noted};
use super::leaving::Leaving;
use super::spare;
use super::stream::Sent;
use crate::http1;

/// What is smaller is copied, so that it does not hold the buffer that it was read to.
const COPIED: usize = 1024;

fn closed(text: &'static str) -> frame::Error {
    frame::Error { reason: Reason::STREAM_CLOSED, text, of_stream: false }
}

fn flow(text: &'static str) -> frame::Error {
    frame::Error { reason: Reason::FLOW_CONTROL_ERROR, text, of_stream: false }
}

impl Inner {
    /// Works on the first frame of the input, which is whole, and takes it off.
    ///
    /// # Errors
    /// What ends the connection.
    pub(super) fn receive(&mut self, head: Head, input: &mut BytesMut) -> Result<(), frame::Error> {
        let whole = HEADER + head.length as usize;
        if let Some(unfinished) = &self.unfinished
            && (head.kind != kind::CONTINUATION || head.stream != unfinished.stream)
        {
            let text = "a head that does not go on";
            self.note_broken_block(unfinished.stream, text);
            return Err(protocol(text));
        }
        let payload = &input[HEADER..whole];
        let frame = match Frame::read(head, payload) {
            Ok(frame) => frame,
            Err(error) if error.of_stream => {
                self.check_known(head.stream)?;
                if self.streams.peek(head.stream).is_some_and(|stream| stream.open) {
                    self.reset(head.stream, error.reason, Error::Invalid(error.text));
                }
                input.advance(whole);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if let Err(flood) = self.floods.note(&frame, head.length, self.streams.open()) {
            let error = self.flooded(flood);
            if let Some(unfinished) = &self.unfinished {
                self.note_broken_block(unfinished.stream, error.text);
            }
            return Err(error);
        }
        let id = head.stream;
        match frame {
            Frame::Data { data, ends } => {
                let data = take(input, whole, data);
                return self.data(id, head.length, data, ends);
            }
            Frame::Headers { block, ends, whole: true } => self.head(id, ends, &payload[block])?,
            Frame::Headers { block, ends, whole: false } => {
                let block = payload[block].to_vec();
                self.unfinished = Some(Unfinished { stream: id, ends, block });
            }
            Frame::Continuation { whole } => self.go_on(payload, whole)?,
            Frame::SettingsAck => {
                if std::mem::replace(&mut self.acknowledged, true) {
                    return Err(protocol("settings acknowledged that were not sent"));
                }
                self.decoder.settings_acknowledged();
            }
            Frame::Priority | Frame::Unknown => {}
            Frame::Reset(reason) => self.peer_resets(id, reason)?,
            Frame::Settings(settings) => self.settle(&settings)?,
            Frame::Ping(payload) => {
                frame::write(self.output.buffer(), kind::PING, frame::flag::ACK, 0, &payload);
                self.floods.note_sent_control();
            }
            Frame::Pong(payload) => self.note_pong(payload),
            Frame::GoAway { last, .. } => {
                if !std::mem::replace(&mut self.left, true) {
                    self.counts.note_goaway();
                }
                if self.side == Side::Client {
                    self.streams.for_each_after(last, |stream| stream.fail(Error::Refused));
                }
            }
            Frame::WindowUpdate(by) => self.widen(id, by)?,
        }
        input.advance(whole);
        Ok(())
    }

    /// Whether a stream has ever been begun.
    fn check_known(&self, id: u32) -> Result<(), frame::Error> {
        let odd = id % 2 == 1;
        let begun = match self.side {
            Side::Server => odd && id <= self.last,
            Side::Client => odd && id < self.next,
        };
        if begun { Ok(()) } else { Err(protocol("a frame on a stream that nobody began")) }
    }

    /// Whether frames may be on their way of a stream that is open no more: what a client may not send is not let pass,
    /// and upstreams that go on are left alone.
    fn may_go_on(&self, id: u32) -> bool {
        self.side == Side::Client || self.leaving == Leaving::Told || self.broken.may_go_on(id)
    }

    fn go_on(&mut self, payload: &[u8], whole: bool) -> Result<(), frame::Error> {
        let Some(mut unfinished) = self.unfinished.take() else {
            return Err(protocol("CONTINUATION of nothing"));
        };
        unfinished.block.extend_from_slice(payload);
        if unfinished.block.len() > self.options.heads.bytes * 2 {
            // The table would not be right any more without it, so the connection cannot go on.
            let text = "a head that is much larger than allowed";
            self.note_broken_block(unfinished.stream, text);
            return Err(frame::Error { reason: Reason::ENHANCE_YOUR_CALM, text, of_stream: false });
        }
        if whole {
            let Unfinished { stream, ends, block } = unfinished;
            self.head(stream, ends, &block)
        } else {
            self.unfinished = Some(unfinished);
            Ok(())
        }
    }

    fn head(&mut self, id: u32, ends: bool, block: &[u8]) -> Result<(), frame::Error> {
        let mut fields = Fields::new(spare::take(), self.options.max_field);
        let limits = self.options.heads;
        // Also of one that nobody wants: the table follows from all of them.
        if self.decoder.decode(block, |field, size| fields.add(field, size, limits)).is_err() {
            let text = "a block that cannot be decompressed";
            self.note_broken_block(id, text);
            return Err(frame::Error { reason: Reason::COMPRESSION_ERROR, text, of_stream: false });
        }
        match self.side {
            Side::Server => self.request(id, ends, fields),
            Side::Client => self.response(id, ends, fields),
        }
    }

    /// A request began that cannot even be read.
    fn note_broken_block(&mut self, id: u32, text: &'static str) {
        if self.side == Side::Server && id % 2 == 1 && id > self.last {
            self.last = id;
            self.note_refused(id, self.flood().map_or(Error::Invalid(text), Error::Flood));
        }
    }

    fn request(&mut self, id: u32, ends: bool, fields: Fields) -> Result<(), frame::Error> {
        if id.is_multiple_of(2) {
            return Err(protocol("a client's stream with an even number"));
        }
        if self.streams.peek(id).is_some() {
            return self.trailers(id, ends, fields);
        }
        if id <= self.last {
            return if self.may_go_on(id) {
                Ok(())
            } else {
                Err(closed("HEADERS on a stream that has ended"))
            };
        }
        self.last = id;
        self.floods.note_stream();
        if self.leaving == Leaving::Told {
            return Ok(());
        }
        if self.options.max_streams.is_some_and(|max| self.streams.open() >= max as usize) {
            self.counts.inc(Event::StreamRefused);
            self.reset(id, Reason::REFUSED_STREAM, Error::GivenUp);
            return Ok(());
        }
        match fields.request(self.options.connect) {
            Ok((request, noted)) => {
                if let Err(words) = self.begin_receiving(id, noted, ends) {
                    return self.refuse_message(id, Bad::Message(words));
                }
                self.accepted.push_back(Accepted { stream: id, request: Ok(request) });
            }
            Err(bad) => return self.refuse_message(id, bad),
        }
        Ok(())
    }

    fn begin_receiving(&mut self, id: u32, noted: Noted, ends: bool) -> Result<(), &'static str> {
        let mut stream = self.stream();
        stream.received.left = noted.length;
        stream.received.count(0, ends)?;
        // Who serves it holds it from here on.
        stream.handles = 1;
        self.streams.begin(id, stream);
        self.counts.move_streams(1);
        Ok(())
    }

    fn response(&mut self, id: u32, ends: bool, fields: Fields) -> Result<(), frame::Error> {
        self.check_known(id)?;
        let Some(stream) = self.streams.get(id) else { return Ok(()) };
        if stream.received.head {
            return self.trailers(id, ends, fields);
        }
        let (response, noted) = match fields.response() {
            Ok(response) => response,
            Err(bad) => return self.refuse_message(id, bad),
        };
        if response.status().is_informational() {
            if ends || response.status() == StatusCode::SWITCHING_PROTOCOLS {
                return self.refuse_message(id, Bad::Message("a response that ends before its head"));
            }
            if http1::informs(response.status()) && !std::mem::replace(&mut stream.received.informed, true) {
                stream.received.informs = Some(Box::new(response));
                stream.wake_reader();
            }
            return Ok(());
        }
        // To HEAD, and with 304, the length is that of a body which is not sent.
        let bodiless = stream.received.bodiless || response.status() == StatusCode::NOT_MODIFIED;
        let empty = response.status() == StatusCode::NO_CONTENT;
        if empty && noted.length.is_some_and(|length| length > 0) {
            return self.refuse_message(id, Bad::Message("a length where no body may be"));
        }
        stream.received.left = if bodiless || empty { Some(0) } else { noted.length };
        stream.received.head = true;
        if let Err(words) = stream.received.count(0, ends) {
            return self.refuse_message(id, Bad::Message(words));
        }
        stream.received.response = Some(Box::new(response));
        stream.wake_reader();
        self.close_if_over(id);
        Ok(())
    }

    fn trailers(&mut self, id: u32, ends: bool, fields: Fields) -> Result<(), frame::Error> {
        let Some(stream) = self.streams.get(id) else { return Ok(()) };
        let (lost, ended) = (stream.failed.is_some() || !stream.open, stream.received.ended);
        if lost && self.may_go_on(id) {
            return Ok(());
        }
        if lost || ended {
            return Err(closed("HEADERS behind the end"));
        }
        let Some(stream) = self.streams.get(id) else { return Ok(()) };
        if self.side == Side::Server {
            self.counts.inc(Event::Trailers);
        }
        let taken = fields.trailers().and_then(|trailers| {
            if !ends {
                return Err(Bad::Message("trailers that do not end the stream"));
            }
            stream.received.count(0, true).map_err(Bad::Message)?;
            Ok(trailers)
        });
        match taken {
            Ok(trailers) => {
                stream.received.trailers = Some(Box::new(trailers));
                stream.wake_reader();
                self.close_if_over(id);
            }
            Err(bad) => return self.refuse_message(id, bad),
        }
        Ok(())
    }

    /// A request came to nothing before anybody saw it.
    fn note_refused(&mut self, id: u32, error: Error) {
        if self.side == Side::Server && self.streams.peek(id).is_none() {
            self.accepted.push_back(Accepted { stream: id, request: Err(error) });
        }
    }

    /// A head is none. One that is too large ends its stream; one that breaks the rules ends the connection, by Envoy's
    /// default, since what it says is not to be trusted any more.
    fn refuse_message(&mut self, id: u32, bad: Bad) -> Result<(), frame::Error> {
        let error = bad.error();
        self.note_refused(id, error);
        let words = match bad {
            Bad::TooLarge | Bad::TooMany => {
                let large = bad == Bad::TooLarge;
                self.counts.inc(if large { Event::HeadTooLarge } else { Event::TooManyFields });
                self.reset(id, Reason::INTERNAL_ERROR, error);
                return Ok(());
            }
            Bad::Field(words) | Bad::Message(words) => words,
        };
        self.counts.inc(Event::BadMessage);
        if self.options.stream_errors {
            self.reset(id, Reason::PROTOCOL_ERROR, error);
            return Ok(());
        }
        // Who waits on this stream learns why; the others learn that the connection has ended.
        if let Some(stream) = self.streams.get(id) {
            stream.fail(error);
        }
        Err(protocol(words))
    }

    /// `length`: with the padding, which counts for flow control and is read by nobody.
    fn data(&mut self, id: u32, length: u32, data: Bytes, ends: bool) -> Result<(), frame::Error> {
        self.check_known(id)?;
        if !self.credit.spend(length) {
            return Err(flow("more data than the connection has room for"));
        }
        let padding = length - data.len() as u32;
        let Some(stream) = self.streams.get(id).filter(|stream| stream.open && stream.failed.is_none())
        else {
            self.release_connection(length);
            if !self.may_go_on(id) {
                self.reset(id, Reason::STREAM_CLOSED, Error::GivenUp);
            }
            return Ok(());
        };
        if stream.received.ended {
            return Err(closed("DATA behind the end"));
        }
        if self.side == Side::Client && !stream.received.head {
            self.release_connection(length);
            self.reset(id, Reason::PROTOCOL_ERROR, Error::Invalid("a body before the response's head"));
            return Ok(());
        }
        let counted = if stream.credit.spend(length) {
            stream.received.count(data.len(), ends).map_err(|words| (Reason::PROTOCOL_ERROR, words))
        } else {
            Err((Reason::FLOW_CONTROL_ERROR, "more data than the stream has room for"))
        };
        if let Err((reason, words)) = counted {
            self.release_connection(length);
            self.reset(id, reason, Error::Invalid(words));
            return Ok(());
        }
        if !data.is_empty() {
            stream.received.push(data);
        }
        stream.wake_reader();
        if padding > 0 {
            self.release(id, padding);
        }
        self.close_if_over(id);
        Ok(())
    }

    fn peer_resets(&mut self, id: u32, reason: Reason) -> Result<(), frame::Error> {
        self.check_known(id)?;
        let Some(stream) = self.streams.peek(id) else { return Ok(()) };
        if self.side == Side::Server && stream.sent != Sent::All {
            self.floods.note_premature_reset().map_err(|flood| self.flooded(flood))?;
        }
        self.counts.inc(Event::ResetReceived);
        if let Some(stream) = self.streams.get(id) {
            stream.fail(match reason {
                Reason::REFUSED_STREAM => Error::Refused,
                reason => Error::Reset(reason),
            });
        }
        self.close(id);
        Ok(())
    }

    fn widen(&mut self, id: u32, by: u32) -> Result<(), frame::Error> {
        if id == 0 {
            if !self.window.change(i64::from(by)) {
                return Err(flow("a window that is too large"));
            }
            self.unqueue();
            return Ok(());
        }
        self.check_known(id)?;
        let Some(stream) = self.streams.get(id) else { return Ok(()) };
        if stream.window.change(i64::from(by)) {
            stream.wake_writer();
        } else {
            let words = "a window that is too large";
            self.reset(id, Reason::FLOW_CONTROL_ERROR, Error::Invalid(words));
        }
        Ok(())
    }
}

/// Takes a DATA frame off, and its data out of it.
fn take(input: &mut BytesMut, whole: usize, data: Range<usize>) -> Bytes {
    let place = HEADER + data.start..HEADER + data.end;
    if data.len() < COPIED {
        let data = Bytes::copy_from_slice(&input[place]);
        input.advance(whole);
        return data;
    }
    input.split_to(whole).freeze().slice(place)
}
