//! A connection to an upstream, which many requests share.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base::task::Supervised;
use http::{Method, Request, Response};
use http_body::Body as _;
use sail_proxy_config::hcm::Http2Keepalive;
use sail_proxy_http2::frame::Reason;
use tokio::io::AsyncWriteExt as _;

use super::connection::{Inner, Options, Shared, Side};
use super::counts::Counts;
use super::error::Error;
use super::handle::Handle;
use super::incoming::Incoming;
use super::keepalive;
use super::pump::{Broken, Pump};
use super::spare;
use crate::http::body::{Body, BodyError};
use crate::net;
use crate::rt::Sleeper;
use crate::stats::Traffic;

/// How long it may take to tell the upstream of the end.
const PARTING: Duration = Duration::from_secs(1);

/// See the module's documentation. When it is dropped, and nothing is under way, the connection ends.
pub(crate) struct Connection(Shared);

/// What drives a connection.
pub(crate) struct Driver {
    connection: Shared,
    keepalive: Option<Http2Keepalive>,
}

/// Why no response came.
#[derive(Debug)]
pub(crate) struct Failed {
    /// The request, if nothing of it was sent.
    pub(crate) unsent: Option<Box<Request<Body>>>,
    pub(crate) error: BodyError,
}

impl Connection {
    pub(crate) fn new(
        socket: net::Stream,
        options: Options,
        keepalive: Option<Http2Keepalive>,
        traffic: Traffic,
        counts: Counts,
    ) -> (Self, Driver) {
        let inner = Inner::new(Side::Client, Some(socket), options, traffic, counts);
        let connection = Rc::new(RefCell::new(inner));
        (Self(connection.clone()), Driver { connection, keepalive })
    }

    /// Whether it takes no request any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.borrow().has_place().is_none()
    }

    /// So many streams the upstream allows at a time.
    pub(crate) fn max_streams(&self) -> usize {
        self.0.borrow().peer.max_streams as usize
    }

    /// Asks for a response. Where there is a place, the head is on its way at once.
    pub(crate) fn send(&self, request: Request<Body>) -> Asking {
        let has_place = self.0.borrow().has_place() == Some(true);
        let state = if has_place { begin(&self.0, request) } else { State::Waiting(Some(Box::new(request))) };
        Asking { connection: self.0.clone(), state, informs: None }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut inner = self.0.borrow_mut();
        inner.left = true;
        inner.rouse();
    }
}

/// A request on its way, up to its response's head. Dropped before, its stream is reset.
pub(crate) struct Asking {
    connection: Shared,
    state: State,
    informs: Option<Box<Response<()>>>,
}

enum State {
    /// There is no place for it on the connection.
    Waiting(Option<Box<Request<Body>>>),
    Sent {
        handle: Handle,
        pump: Option<Pump>,
    },
    Done,
}

fn begin(connection: &Shared, request: Request<Body>) -> State {
    let (mut parts, body) = request.into_parts();
    // Bytes flow once it is answered.
    let tunnel = parts.method == Method::CONNECT;
    let ends = !tunnel && body.is_end_stream();
    let stream = connection.borrow_mut().send_request(&parts, ends);
    // What the values stand in is free from here on.
    spare::give(std::mem::take(&mut parts.headers));
    let handle = Handle::first(connection, stream);
    State::Sent { handle, pump: (!ends && !tunnel).then(|| Pump::new(body)) }
}

impl Asking {
    /// What the upstream said before its response, once.
    pub(crate) fn take_informational(&mut self) -> Option<Box<Response<()>>> {
        self.informs.take()
    }

    fn poll_place(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        let State::Waiting(request) = &mut self.state else { return Poll::Ready(Ok(())) };
        let place = self.connection.borrow().has_place();
        match (place, request.take()) {
            (Some(true), Some(request)) => {
                self.state = begin(&self.connection, *request);
                Poll::Ready(Ok(()))
            }
            (Some(false), waiting) => {
                *request = waiting;
                self.connection.borrow_mut().waiting.push(context.waker().clone());
                Poll::Pending
            }
            (_, unsent) => {
                let error = self.connection.borrow().ended.unwrap_or(Error::Closed);
                Poll::Ready(Err(Failed { unsent, error: error.into() }))
            }
        }
    }
}

impl Future for Asking {
    type Output = Result<Response<Body>, Failed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        ready!(this.poll_place(context))?;
        let failed = |error: BodyError| Failed { unsent: None, error };
        let State::Sent { handle, pump } = &mut this.state else {
            return Poll::Ready(Err(failed(Error::Closed.into())));
        };
        if let Some(Poll::Ready(sent)) = pump.as_mut().map(|pump| pump.poll(handle, context)) {
            *pump = None;
            if let Err(Broken::Body(error)) = sent {
                handle.reset(Reason::CANCEL, Error::Unfinished);
                return Poll::Ready(Err(failed(BodyError::Request(Box::new(error)))));
            }
        }
        let head = {
            let mut inner = handle.inner();
            let response = ready!(inner.poll_response(handle.stream, &mut this.informs, context));
            response.map_err(|error| failed(error.into()))?
        };
        let State::Sent { handle, pump } = std::mem::replace(&mut this.state, State::Done) else {
            return Poll::Ready(Err(failed(Error::Closed.into())));
        };
        let read = handle.inner().is_read(handle.stream);
        let body = match pump {
            None if read => Body::Empty,
            pump => Body::Streamed(Incoming::new(handle_and_rest(handle, pump))),
        };
        Poll::Ready(Ok(head.map(|()| body)))
    }
}

/// If the response came before the request was sent, a task sends the rest: whoever reads the response may wait for a
/// client that reads nothing before it has said everything.
fn handle_and_rest(handle: Handle, pump: Option<Pump>) -> (Handle, Option<Supervised<()>>) {
    let Some(mut pump) = pump else { return (handle, None) };
    let own = Handle::another(handle.connection(), handle.stream);
    let sender = Supervised::spawn_local(async move {
        if let Err(Broken::Body(error)) = poll_fn(|context| pump.poll(&own, context)).await {
            tracing::debug!(%error, "a request broke off");
            own.reset(Reason::CANCEL, Error::Unfinished);
        }
    });
    (handle, Some(sender))
}

/// Without its driver a connection is over, whoever drops that.
struct Ends(Shared);

impl Drop for Ends {
    fn drop(&mut self) {
        let mut inner = self.0.borrow_mut();
        inner.end(Error::GivenUp);
        drop(inner.take_socket());
    }
}

impl Driver {
    /// Reads and writes until the connection has ended, or nobody needs it any more.
    pub(crate) async fn run(self) {
        let Self { connection, keepalive } = self;
        let _ends = Ends(connection.clone());
        let mut silence = pin!(Sleeper::new(keepalive::run(&connection, keepalive)));
        poll_fn(|context| {
            if let Poll::Ready(silent) = silence.as_mut().poll(context) {
                connection.borrow_mut().end(silent);
            }
            let mut inner = connection.borrow_mut();
            if inner.poll_drive(context).is_ready() || inner.is_unused() {
                return Poll::Ready(());
            }
            Poll::Pending
        })
        .await;
        let socket = {
            let mut inner = connection.borrow_mut();
            inner.end(Error::Closed);
            inner.take_socket()
        };
        if let Some(mut socket) = socket {
            let _ = tokio::time::timeout(PARTING, socket.shutdown()).await;
        }
    }
}
