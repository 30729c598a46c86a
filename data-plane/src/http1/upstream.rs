//! A connection to an upstream: sends a request and reads its response, inside the future of whoever wants it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use base::task::Supervised;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;

use super::decode::{Decoder, Part};
use super::encode::{self, Form};
use super::error::Error;
use super::framing::{self, Asked, Framing};
use super::head::{Head, HeadReader, Rules};
use super::incoming::{Incoming, Source};
use super::interrupt::Interrupt;
use super::sender::{self, Sender};
use super::wire::Wire;
use crate::http::body::Body;
use crate::net::Stream;
use crate::stats::Traffic;

/// How a connection is spoken to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// How a response's head is read.
    pub(crate) rules: Rules,
    /// How a request is written; trailers of responses are read where those of requests are written.
    pub(crate) form: Form,
}

/// Where the response stands.
#[derive(Debug)]
enum Reading {
    /// No request was sent.
    Idle,
    Head(Asked),
    Body(Decoder),
    /// Nothing more can be read as HTTP.
    Broken,
}

/// Why a connection serves no other request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// The upstream ended it.
    ByPeer,
    /// We do, as the last exchange has it.
    ByUs,
    /// The upstream said what nobody asked for.
    Unasked,
}

/// See the module's documentation.
pub(crate) struct Connection {
    wire: Wire,
    options: Options,
    interrupt: Rc<Interrupt>,
    request: Sender,
    heads: HeadReader,
    /// An allocation for the next response's headers.
    spare: HeaderMap,
    reading: Reading,
    /// Sends the request's rest while its response is read.
    sender: Option<Supervised<()>>,
    /// Why that ended early.
    send_failed: Option<Error>,
    /// The upstream keeps the connection after this response.
    keeps_alive: bool,
    /// What it says is the reason if not.
    says_last: bool,
    /// The exchanges so far.
    exchange: u64,
    /// What came before the response, and was not told.
    informs: Option<Box<Response<()>>>,
    /// Something did: what else comes so is passed over, as Envoy does.
    informed: bool,
}

impl Connection {
    pub(crate) fn new(stream: Stream, options: Options, interrupt: Rc<Interrupt>, traffic: Traffic) -> Self {
        Self {
            wire: Wire::new(stream, traffic),
            options,
            interrupt,
            request: Sender::default(),
            heads: HeadReader::default(),
            spare: HeaderMap::new(),
            reading: Reading::Idle,
            sender: None,
            send_failed: None,
            keeps_alive: true,
            says_last: false,
            exchange: 0,
            informs: None,
            informed: false,
        }
    }

    /// Why the last exchange left a connection that serves no other; `None` if it may.
    pub(crate) fn left(&self) -> Option<Left> {
        if self.wire.input.has_ended() {
            return Some(Left::ByPeer);
        }
        let read = match &self.reading {
            Reading::Idle => true,
            Reading::Body(decoder) => decoder.is_ended() && self.keeps_alive,
            Reading::Head(_) | Reading::Broken => false,
        };
        if !self.request.is_done() || self.wire.stream().is_none() {
            return Some(Left::ByUs);
        }
        match (read, self.wire.input.is_empty()) {
            (true, true) => None,
            (_, false) if self.has_ended() => Some(Left::Unasked),
            _ => Some(Left::ByUs),
        }
    }

    /// Ready if an idle connection is of no use any more: the upstream closed it, or sent what nobody asked for. Costs no
    /// system call as long as nothing has come.
    pub(crate) fn poll_left(&mut self, context: &mut Context<'_>) -> Poll<Left> {
        if let Some(left) = self.left() {
            return Poll::Ready(left);
        }
        if self.interrupt.is_raised() {
            return Poll::Ready(Left::ByUs);
        }
        self.interrupt.forget();
        Poll::Ready(match ready!(self.wire.poll_fill(context)) {
            Ok(0) | Err(_) => Left::ByPeer,
            // So an upstream says good-bye to who has been silent for long.
            Ok(_)
                if self.wire.input.starts_with(b"HTTP/1.") && self.wire.input.get(8..12) == Some(b" 408") =>
            {
                Left::ByUs
            }
            Ok(_) => Left::Unasked,
        })
    }

    /// Begins an exchange on a reusable connection.
    pub(crate) fn begin(&mut self, request: Request<Body>) {
        let (mut parts, body) = request.into_parts();
        let (size, spelling) = (sender::size_of(&body), self.options.form.spelling);
        let delimiter = encode::request(self.request.output().buffer(), &parts, size, spelling);
        self.request.begin(body, delimiter);
        self.reading = Reading::Head(Asked::from(&parts.method));
        self.wire.input.begin();
        self.sender = None;
        (self.informs, self.informed) = (None, false);
        self.exchange += 1;
        // What the values stand in is free from here on.
        parts.headers.clear();
        self.spare = std::mem::take(&mut parts.headers);
    }

    /// Sends the request, and waits for the response's head.
    pub(crate) fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<()>, Error>> {
        let response = self.poll_head(context);
        match &response {
            Poll::Pending => self.interrupt.register(context),
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => self.reading = Reading::Broken,
        }
        response
    }

    /// What the upstream said before its response, once.
    pub(crate) fn take_informational(&mut self) -> Option<Box<Response<()>>> {
        self.informs.take()
    }

    /// The body of the response that the connection has just had the head of. The request's goes on beside it.
    pub(crate) fn body(connection: &Rc<RefCell<Self>>) -> Incoming<Self> {
        Self::send_beside(connection);
        Incoming::begin(connection)
    }

    /// Whether this response is the connection's last, as its upstream says.
    pub(crate) fn is_last(&self) -> bool {
        self.says_last
    }

    /// How much was read and is not used.
    pub(crate) fn unread(&self) -> usize {
        self.wire.input.len()
    }

    /// The bytes of a connection that speaks another protocol now.
    pub(crate) fn take_stream(&mut self) -> Option<Stream> {
        self.wire.switch().map(|(stream, _)| stream)
    }

    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<Response<()>, Error>> {
        if self.interrupt.is_raised() {
            return Poll::Ready(Err(Error::Interrupted));
        }
        match self.poll_send(context) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            // Nothing was sent, and this is asked again at once.
            Poll::Pending if self.request.waits_for_its_turn() => return Poll::Pending,
            _ => {}
        }
        let Reading::Head(asked) = self.reading else { return Poll::Ready(Err(Error::Closed)) };
        loop {
            if !self.wire.input.is_empty() {
                while let Some(mut head) =
                    self.heads.next(&mut self.wire.input, self.options.rules, &mut self.spare)?
                {
                    let framing = framing::of(&mut head, asked)?;
                    if framing != Framing::Interim {
                        return Poll::Ready(Ok(self.respond(head, framing)));
                    }
                    self.note_interim(head);
                }
            }
            match self.wire.poll_fill(context)? {
                Poll::Ready(0) if self.wire.input.is_empty() => return Poll::Ready(Err(Error::Closed)),
                Poll::Ready(0) => return Poll::Ready(Err(Error::Partial)),
                Poll::Ready(_) => {}
                // Who takes no more has nothing to say if it says nothing. Of a socket the end is heard soon; what
                // it said before that is an answer.
                Poll::Pending if self.request.is_broken() && !self.is_bare() => {
                    return Poll::Ready(Err(Error::Closed));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn note_interim(&mut self, head: Head) {
        if !self.informed && informs(head.status) {
            self.informed = true;
            self.informs = Some(Box::new(response(head)));
        }
    }

    fn respond(&mut self, head: Head, framing: Framing) -> Response<()> {
        self.says_last = !framing::keeps_alive(&head, framing);
        self.keeps_alive = !self.says_last && !matches!(framing, Framing::Switched | Framing::UntilClose);
        self.reading = Reading::Body(Decoder::new(framing, self.options.rules.limits));
        self.wire.input.release();
        response(head)
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Part>, Error>> {
        if self.interrupt.is_raised() {
            return Poll::Ready(Err(Error::Interrupted));
        }
        if self.sender.is_none() {
            if let Poll::Ready(Err(error)) = self.poll_send(context) {
                return Poll::Ready(Err(error));
            }
        } else if let Some(error) = self.send_failed.take() {
            return Poll::Ready(Err(error));
        }
        let Reading::Body(decoder) = &mut self.reading else {
            return Poll::Ready(Err(Error::Closed));
        };
        self.wire.poll_part(decoder, context)
    }

    fn is_bare(&self) -> bool {
        self.wire.stream().is_some_and(|stream| stream.bare_tcp().is_some())
    }

    /// If the response came before the request was sent, a task sends the rest: whoever reads the response may wait for
    /// a client that reads nothing before it has said everything.
    fn send_beside(connection: &Rc<RefCell<Self>>) {
        if connection.borrow().request.has_ended() {
            return;
        }
        let own = Rc::downgrade(connection);
        let task = Supervised::spawn_local(poll_fn(move |context| {
            own.upgrade().map_or(Poll::Ready(()), |connection| connection.borrow_mut().poll_rest(context))
        }));
        connection.borrow_mut().sender = Some(task);
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if let Err(error) = ready!(self.poll_send(context)) {
            self.send_failed = Some(error);
            self.request.give_up();
            self.interrupt.wake();
        }
        Poll::Ready(())
    }

    /// Sends what there is of the request. Only the request's own body makes it fail: an upstream that takes no more may
    /// still have answered.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.wire.stream().is_none() {
            return Poll::Ready(Ok(()));
        }
        let wire = &mut self.wire;
        match ready!(
            self.request.poll(self.options.form, context, |output, context| wire.poll_write(output, context))
        ) {
            Err(Error::Io(_)) => Poll::Ready(Ok(())),
            sent => Poll::Ready(sent),
        }
    }
}

fn response(head: Head) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    *response.version_mut() = head.version;
    *response.headers_mut() = head.headers;
    *response.extensions_mut() = head.extensions;
    response
}

/// Whether a status is one of those before a response that concern the client: 100, 102, 103 and 104, as Envoy has it.
pub(crate) fn informs(status: StatusCode) -> bool {
    matches!(status.as_u16(), 100 | 102..=104)
}

impl Source for Connection {
    fn exchange(&self) -> u64 {
        self.exchange
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let part = self.poll_part(context);
        match part {
            Poll::Pending => {
                self.interrupt.register(context);
                Poll::Pending
            }
            Poll::Ready(Ok(None)) => Poll::Ready(None),
            Poll::Ready(Ok(Some(Part::Data(data)))) => Poll::Ready(Some(Ok(Frame::data(data)))),
            Poll::Ready(Ok(Some(Part::Trailers(map)))) => {
                Poll::Ready(self.options.form.trailers.then(|| Ok(Frame::trailers(map))))
            }
            Poll::Ready(Err(error)) => {
                self.reading = Reading::Broken;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn has_ended(&self) -> bool {
        matches!(&self.reading, Reading::Body(decoder) if decoder.is_ended())
    }

    fn remaining(&self) -> Option<u64> {
        match &self.reading {
            Reading::Body(decoder) => decoder.left(),
            _ => None,
        }
    }
}
