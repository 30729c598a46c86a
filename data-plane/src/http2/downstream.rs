//! A client's connection: each of its requests is served by a task of its own.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response, response};
use http_body::Body as _;
use sail_proxy_config::hcm::Http2Keepalive;
use sail_proxy_http2::frame::Reason;
use tokio::time::Sleep;

use super::connection::{Accepted, Inner, Options, Shared, Side};
use super::counts::{Counts, Event};
use super::error::Error;
use super::handle::Handle;
use super::incoming::Incoming;
use super::keepalive;
use super::pump::{Broken, Pump};
use super::spare;
use super::tunnel::Tunnel;
use crate::clock::Still;
use crate::http::body::{Body, BodyError};
use crate::net;
use crate::rt::Sleeper;
use crate::stats::Traffic;

/// As much as is read of a client that sends more after the end.
const PASSED_OVER: usize = 256 * 1024;

/// A request that is being answered. In a box, since it is moved into a task of its own.
pub(crate) type Serving = Pin<Box<dyn Future<Output = Response<Body>>>>;

/// Who answers a client's requests.
pub(crate) trait Service: Clone + Unpin + 'static {
    /// Answers a request.
    fn serve(&self, request: Request<Body>, on: OnStream) -> Serving;

    /// Something came that is no request: there is no answer to it.
    fn refuse(&self, error: Error);

    /// Streams that are dropped from here on broke off so; `None`: that is over.
    fn breaks_off(&self, error: Option<Error>);
}

/// Says on which stream a request came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnStream(u32);

/// See the module's documentation. Clones are handles on one connection.
#[derive(Clone)]
pub(crate) struct Connection(Shared);

impl Connection {
    pub(crate) fn new(socket: net::Stream, options: Options, traffic: Traffic, counts: Counts) -> Self {
        Self(Rc::new(RefCell::new(Inner::new(Side::Server, Some(socket), options, traffic, counts))))
    }

    /// Reads and writes until the connection has ended, and says why it did; `None`: all is done that was begun before
    /// `orders` to leave, which say how long the client may take to hear of it.
    pub(crate) async fn drive(
        &self,
        keepalive: Option<Http2Keepalive>,
        mut orders: Pin<&mut impl Future<Output = Duration>>,
        service: &impl Service,
    ) -> Option<Error> {
        // Runs from the order to leave on.
        let mut patience: Option<Pin<Box<Sleep>>> = None;
        let mut silence = std::pin::pin!(Sleeper::new(keepalive::run(&self.0, keepalive)));
        std::future::poll_fn(|context| {
            match &mut patience {
                None => {
                    if let Poll::Ready(limit) = orders.as_mut().poll(context) {
                        self.0.borrow_mut().leave();
                        patience = Some(Box::pin(tokio::time::sleep(limit)));
                        context.waker().wake_by_ref();
                    }
                }
                Some(sleep) => {
                    if !sleep.is_elapsed() && sleep.as_mut().poll(context).is_ready() {
                        self.0.borrow_mut().tell_last();
                    }
                }
            }
            if let Poll::Ready(silent) = silence.as_mut().poll(context) {
                self.0.borrow_mut().end(silent);
            }
            let driven = self.0.borrow_mut().poll_drive(context);
            loop {
                let Some(accepted) = self.0.borrow_mut().accepted.pop_front() else { break };
                self.accept(accepted, service);
            }
            match driven {
                Poll::Ready(error) => Poll::Ready(Some(error)),
                Poll::Pending if self.0.borrow().has_left() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    fn accept<S: Service>(&self, accepted: Accepted, service: &S) {
        let Accepted { stream, request } = accepted;
        let request = match request {
            Ok(request) => request,
            Err(error) => return service.refuse(error),
        };
        let handle = Handle::first(&self.0, stream);
        let connects = *request.method() == http::Method::CONNECT;
        let body = if connects || handle.inner().is_read(stream) {
            Body::Empty
        } else {
            Body::Streamed(Incoming::new((Handle::another(&self.0, stream), None)))
        };
        let state = State::Serving(service.serve(request.map(|()| body), OnStream(stream)));
        tokio::task::spawn_local(Still::new(Answer {
            handle,
            service: service.clone(),
            asked: false,
            state,
        }));
    }

    /// Tells a client something before its response.
    pub(crate) fn inform(&self, on: OnStream, parts: &response::Parts) {
        self.0.borrow_mut().inform(on.0, parts);
    }

    /// Whether the client has said all that it will on a stream, be it read or not.
    pub(crate) fn has_ended(&self, on: OnStream) -> bool {
        self.0.borrow().streams.peek(on.0).is_none_or(|stream| stream.received.ended)
    }

    /// The tunnel that a request's stream becomes.
    pub(crate) fn tunnel(&self, on: OnStream) -> Tunnel {
        let handle = Handle::another(&self.0, on.0);
        if let Some(stream) = handle.inner().streams.get(on.0) {
            stream.tunnel = true;
        }
        Tunnel::new(handle)
    }

    /// Closes our end, and waits so long for the client's. Says whether the client closed in time.
    pub(crate) async fn close(&self, limit: Duration) -> bool {
        let socket = self.0.borrow_mut().take_socket();
        match socket {
            Some(socket) => socket.part(limit, PASSED_OVER).await,
            None => true,
        }
    }
}

/// Serves a request, and sends the response. A request whose stream breaks off is given up.
struct Answer<S> {
    handle: Handle,
    service: S,
    /// It was asked before.
    asked: bool,
    state: State,
}

enum State {
    Serving(Serving),
    Sending(Pump),
    Done,
}

impl<S: Service> Future for Answer<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        // Known before the request's body is asked, which has no end either. Who was never asked is first: logs are to
        // say of each request what it was.
        if std::mem::replace(&mut this.asked, true)
            && let Poll::Ready(error) = this.handle.poll_failed(context)
        {
            return this.break_off(error);
        }
        loop {
            match &mut this.state {
                State::Serving(serving) => {
                    let Poll::Ready(response) = serving.as_mut().poll(context) else {
                        let error = ready!(this.handle.poll_failed(context));
                        return this.break_off(error);
                    };
                    match this.begin(response) {
                        Some(pump) => this.state = State::Sending(pump),
                        None => return Poll::Ready(()),
                    }
                }
                State::Sending(pump) => {
                    match ready!(pump.poll(&this.handle, context)) {
                        Ok(()) => {}
                        Err(Broken::Stream) => {
                            if let Poll::Ready(error) = this.handle.poll_failed(context) {
                                return this.break_off(error);
                            }
                        }
                        Err(Broken::Body(error)) => {
                            tracing::debug!(%error, "a response broke off");
                            if matches!(error, BodyError::Unflushed) {
                                this.handle.inner().counts.inc(Event::FlushTimeout);
                            }
                            this.handle.reset(Reason::INTERNAL_ERROR, Error::Unfinished);
                        }
                    }
                    return Poll::Ready(());
                }
                State::Done => return Poll::Ready(()),
            }
        }
    }
}

impl<S: Service> Answer<S> {
    /// Drops what serves the request, or its response.
    fn break_off(&mut self, error: Error) -> Poll<()> {
        self.service.breaks_off(Some(error));
        self.state = State::Done;
        self.service.breaks_off(None);
        Poll::Ready(())
    }

    /// Sends the response's head, and says what follows it.
    fn begin(&mut self, response: Response<Body>) -> Option<Pump> {
        let (mut parts, body) = response.into_parts();
        // Not asked while the connection is held: the body may be one of the same connection's.
        let empty = body.is_end_stream();
        let stream = self.handle.stream;
        let mut inner = self.handle.inner();
        let tunnel = inner.streams.peek(stream).is_some_and(|stream| stream.tunnel);
        let tunnel = tunnel && parts.status.is_success();
        let ends = !tunnel && empty;
        inner.send_response(stream, &parts, ends);
        if tunnel && let Some(stream) = inner.streams.get(stream) {
            stream.wake_writer();
        }
        drop(inner);
        // What the values stand in is free from here on.
        spare::give(std::mem::take(&mut parts.headers));
        (!ends && !tunnel).then(|| Pump::new(body))
    }
}
