//! A connection from a client: its requests one after the other, and their responses.
//!
//! It has two users: the connection's task, which takes requests and gives responses, and whoever reads a request's body,
//! in that task or in another.

mod responder;

pub(crate) use responder::Responder;

use std::cell::{RefCell, RefMut};
use std::io;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Version, response};
use http_body::Frame;
use tokio::time::Sleep;

use super::decode::{Decoder, Part};
use super::encode::{self, Asker, Form};
use super::error::{Error, Refusal};
use super::framing::Asked;
use super::head::Rules;
use super::incoming::{Incoming, Source};
use super::outgoing::Outgoing;
use super::request::{self, Reader};
use super::wire::Wire;
use crate::http::body::Body;
use crate::net::Stream;
use crate::stats::{Meter, Traffic};

/// How a client is spoken to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// How a request's head is read.
    pub(crate) rules: Rules,
    /// How long a head may take, from its first byte to its last.
    pub(crate) head_limit: Option<Duration>,
    /// How long the client has to close after we have.
    pub(crate) delayed_close: Duration,
    pub(crate) form: Form,
}

/// Why no further request comes.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The client closed its end.
    Closed,
    /// The connection broke.
    Broken(io::Error),
    /// It is to be answered so, and closed.
    Refused(Refusal),
}

/// Where the request stands.
#[derive(Debug)]
enum Reading {
    /// Before one.
    Head,
    Body(Decoder),
    /// Nothing more can be read as HTTP.
    Broken,
}

/// See the module's documentation.
#[derive(Clone)]
pub(crate) struct Connection(Rc<RefCell<Inner>>);

/// What a connection's users share.
pub(crate) struct Inner {
    wire: Wire,
    options: Options,
    heads: Reader,
    /// Runs while a head is incomplete.
    head_timer: Option<Pin<Box<Sleep>>>,
    reading: Reading,
    /// Who waits for more of the body.
    reader: Option<Waker>,
    /// What is said to it before the response, and has not left.
    interim: Vec<u8>,
    asker: Asker,
    /// An allocation for the next request's headers.
    spare: HeaderMap,
    /// The requests so far.
    exchange: u64,
}

impl Connection {
    pub(crate) fn new(stream: Stream, options: Options, traffic: Traffic) -> Self {
        Self(Rc::new(RefCell::new(Inner {
            wire: Wire::new(stream, traffic),
            options,
            heads: Reader::default(),
            head_timer: None,
            reading: Reading::Head,
            reader: None,
            interim: Vec::new(),
            asker: Asker { asked: Asked::Other, http10: false, keeps_alive: true },
            spare: HeaderMap::new(),
            exchange: 0,
        })))
    }

    /// The next request, once the last one was answered.
    pub(crate) fn poll_request(&self, context: &mut Context<'_>) -> Poll<Result<Request<Body>, Ended>> {
        let request = ready!(self.inner().poll_request(context));
        Poll::Ready(request.map(|(request, has_body)| {
            request.map(|()| if has_body { Body::Arriving(Incoming::begin(&self.0)) } else { Body::Empty })
        }))
    }

    /// Ready when the client is gone before it was answered. What it sends until then waits.
    pub(crate) fn poll_gone(&self, context: &mut Context<'_>) -> Poll<Ended> {
        self.inner().poll_gone(context)
    }

    /// No request can be read any more.
    pub(crate) fn refuse(&self) {
        let mut inner = self.inner();
        inner.reading = Reading::Broken;
        inner.asker = Asker { asked: Asked::Other, http10: false, keeps_alive: false };
    }

    /// The client is told with the next response's head that it is the last.
    pub(crate) fn close_after_this(&self) {
        self.inner().asker.keeps_alive = false;
    }

    /// Gives back what the next request does not need.
    pub(crate) fn rest(&self) {
        let mut inner = self.inner();
        inner.spare = HeaderMap::new();
        inner.reader = None;
    }

    /// Ready once more bytes have come, or the connection has ended.
    pub(crate) fn poll_more(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner();
        if inner.wire.input.is_empty() {
            // Whatever it says is said again to who asks for a request.
            let _ = ready!(inner.wire.poll_fill(context));
        }
        Poll::Ready(())
    }

    /// The bytes of a connection that speaks another protocol now, and what counts them.
    pub(crate) fn take_stream(&self) -> Option<(Stream, Meter)> {
        self.inner().wire.switch()
    }

    /// Closes our end, and waits for the client's for a while: to close with bytes of its unread would reset the
    /// connection, and it might lose our last response. Says whether the client closed in time.
    pub(crate) async fn close(&self) -> bool {
        let (stream, limit) = {
            let mut inner = self.inner();
            inner.reading = Reading::Broken;
            if let Some(reader) = inner.reader.take() {
                reader.wake();
            }
            (inner.wire.close(), inner.options.delayed_close)
        };
        match stream {
            Some(stream) => stream.part(limit, usize::MAX).await,
            None => true,
        }
    }

    /// Who tells the client something before the response. It does not keep the connection.
    pub(crate) fn informer(&self) -> Informer {
        Informer(Rc::downgrade(&self.0))
    }

    fn inner(&self) -> RefMut<'_, Inner> {
        self.0.borrow_mut()
    }
}

/// See [`Connection::informer`].
pub(crate) struct Informer(Weak<RefCell<Inner>>);

impl Informer {
    /// Sends an informational response. To be called by the connection's task, which writes it. HTTP/1.0 knows none.
    pub(crate) fn inform(&self, parts: &response::Parts) {
        let Some(connection) = self.0.upgrade() else { return };
        let inner = &mut *connection.borrow_mut();
        if !inner.asker.http10 {
            encode::interim(&mut inner.interim, parts, inner.options.form.spelling);
        }
    }
}

impl Inner {
    fn poll_request(&mut self, context: &mut Context<'_>) -> Poll<Result<(Request<()>, bool), Ended>> {
        loop {
            if !self.wire.input.is_empty() {
                match self.heads.next(&mut self.wire.input, self.options.rules, &mut self.spare) {
                    Ok(Some(head)) => return Poll::Ready(Ok(self.begin(head))),
                    Ok(None) => {}
                    Err(refusal) => return Poll::Ready(Err(Ended::Refused(refusal))),
                }
            }
            match self.wire.poll_fill(context) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Ended::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Ended::Broken(error))),
                Poll::Pending => {
                    ready!(self.poll_head_timer(context));
                    return Poll::Ready(Err(Ended::Refused(Refusal::TooSlow)));
                }
            }
        }
    }

    fn poll_head_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.options.head_limit.filter(|_| !self.wire.input.is_empty()) else {
            return Poll::Pending;
        };
        self.head_timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit))).as_mut().poll(context)
    }

    fn begin(&mut self, head: request::Head) -> (Request<()>, bool) {
        let mut request = Request::new(());
        self.asker = Asker {
            asked: Asked::from(&head.method),
            http10: head.version == Version::HTTP_10,
            keeps_alive: head.keeps_alive,
        };
        let decoder = Decoder::new(head.framing, self.options.rules.limits);
        let has_body = !decoder.is_ended();
        self.reading = Reading::Body(decoder);
        self.head_timer = None;
        self.exchange += 1;
        self.wire.input.begin();
        self.wire.input.release();
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers;
        *request.extensions_mut() = head.extensions;
        (request, has_body)
    }

    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<Ended> {
        // What does not leave now leaves with the response, where it is told if it cannot.
        let _ = self.poll_interim(context);
        if !self.has_ended() || !self.wire.input.is_empty() {
            return Poll::Pending;
        }
        // What TLS holds already is no end that matters: that of the socket follows it.
        if let Some(tcp) = self.wire.stream().and_then(Stream::tcp)
            && let Err(error) = ready!(tcp.poll_read_ready(context))
        {
            return Poll::Ready(Ended::Broken(error));
        }
        match ready!(self.wire.poll_fill(context)) {
            Ok(0) => Poll::Ready(Ended::Closed),
            Ok(_) => Poll::Pending,
            Err(error) => Poll::Ready(Ended::Broken(error)),
        }
    }

    fn poll_part(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Part>, Error>> {
        let Reading::Body(decoder) = &mut self.reading else {
            return Poll::Ready(Err(Error::Closed));
        };
        self.wire.poll_part(decoder, context)
    }

    fn poll_interim(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.interim.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.wire.poll_write_bytes(&mut self.interim, context)
    }

    fn poll_write(&mut self, output: &mut Outgoing, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_interim(context))?;
        self.wire.poll_write(output, context)
    }
}

impl Source for Inner {
    fn exchange(&self) -> u64 {
        self.exchange
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let part = self.poll_part(context);
        if part.is_pending() {
            match &mut self.reader {
                Some(reader) => reader.clone_from(context.waker()),
                reader => *reader = Some(context.waker().clone()),
            }
            return Poll::Pending;
        }
        Poll::Ready(match ready!(part) {
            Ok(None) => None,
            Ok(Some(Part::Data(data))) => Some(Ok(Frame::data(data))),
            Ok(Some(Part::Trailers(trailers))) => Some(Ok(Frame::trailers(trailers))),
            Err(error) => {
                self.reading = Reading::Broken;
                Some(Err(error))
            }
        })
    }

    fn has_ended(&self) -> bool {
        matches!(&self.reading, Reading::Body(decoder) if decoder.is_ended())
    }

    fn remaining(&self) -> Option<u64> {
        match &self.reading {
            Reading::Body(decoder) => decoder.left(),
            Reading::Head | Reading::Broken => None,
        }
    }
}
