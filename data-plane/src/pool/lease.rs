//! A connection in use by one request, and its way back into the pool.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use http::{Request, Response};
use sail_proxy_decide::host::{Host, HostState};

use super::ending::{By, Ending};
use super::limits::Permit;
use super::raw::RawStream;
use super::{ConnectionGuard, Facts, Pool};
use crate::clock;
use crate::http::body::Body;
use crate::net::Stream;
use crate::stats::Meter;
use crate::stats::sets::{cluster as stats, cluster_tcp_stats};
use crate::stream_info::UpstreamLife;
use crate::tcp_stats::Sampled;
use crate::{http1, http2};

/// What is known of an upstream connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) tls: Option<Rc<crate::tls::Peer>>,
    pub(crate) life: Rc<UpstreamLife>,
    pub(crate) requests: Cell<u32>,
    /// When it has lasted long enough.
    pub(crate) expires: Cell<Option<Instant>>,
    pub(crate) ending: Ending,
    /// Asks the kernel about it.
    pub(super) _sampled: Option<Box<Sampled<cluster_tcp_stats::Set>>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.ending.count(self.requests.get());
    }
}

impl Connection {
    pub(super) fn is_expired(&self) -> bool {
        self.expires.get().is_some_and(|end| end <= clock::now())
    }

    pub(super) fn is_spent(&self, max_requests: Option<u32>) -> bool {
        max_requests.is_some_and(|max| self.requests.get() >= max)
    }
}

/// What a connection that one request has to itself speaks.
pub(super) enum Codec {
    Http1(Rc<RefCell<http1::Connection>>),
    /// Nothing does: bytes for a TCP connection. Boxed: it is rare.
    Raw(Box<RawStream>),
}

impl Codec {
    pub(super) fn raw(stream: Stream) -> Self {
        Self::Raw(Box::new(RawStream::new(stream)))
    }
}

/// An HTTP/1 connection.
pub(crate) struct H1 {
    pub(super) codec: Codec,
    pub(super) idle_since: Instant,
    pub(super) guard: ConnectionGuard,
}

impl H1 {
    pub(super) fn info(&self) -> &Facts {
        &self.guard.info
    }

    /// Whether it ended while it was idle. The waker is told when it ends later.
    pub(super) fn has_ended(&self, context: &mut Context<'_>) -> bool {
        match &self.codec {
            Codec::Http1(connection) => {
                let left = connection.borrow_mut().poll_left(context);
                if let Poll::Ready(left) = left {
                    self.info().ending.left(left);
                }
                left.is_ready()
            }
            Codec::Raw(raw) => {
                let ended = raw.poll_ended(context).is_ready();
                if ended {
                    self.info().ending.ended_by(By::Peer);
                }
                ended
            }
        }
    }

    /// Whether the last exchange left a connection that may serve another.
    pub(super) fn is_reusable(&self) -> bool {
        match &self.codec {
            Codec::Http1(connection) => {
                let left = connection.borrow().left();
                if let Some(left) = left {
                    self.info().ending.left(left);
                }
                left.is_none()
            }
            Codec::Raw(raw) => raw.is_whole(),
        }
    }
}

/// An HTTP/2 connection.
pub(crate) struct H2 {
    pub(crate) send: http2::upstream::Connection,
    pub(crate) info: Facts,
    pub(crate) streams: Cell<usize>,
    pub(crate) idle_since: Cell<Instant>,
}

impl H2 {
    pub(super) fn new(send: http2::upstream::Connection, info: Facts) -> Self {
        Self { send, info, streams: Cell::new(0), idle_since: Cell::new(clock::now()) }
    }

    pub(super) fn is_spent(&self, max_requests: Option<u32>) -> bool {
        self.info.is_spent(max_requests)
    }
}

/// Why a lease has its connection.
const HELD: &str = "held until the lease is finished or dropped";

enum Kind {
    Exclusive(H1),
    Shared(Rc<H2>),
}

/// A request's place under the cluster's limits, and in its statistics, until the response's end.
pub(crate) struct Hold {
    stats: stats::Scope,
    state: Arc<HostState>,
    started: Instant,
    responded: bool,
    _permit: Permit,
}

impl Hold {
    pub(crate) fn new(stats: &stats::Scope, host: &Host, permit: Permit) -> Self {
        stats.move_by(stats::upstream_rq_active, 1);
        host.state.active_requests.fetch_add(1, Relaxed);
        Self {
            stats: stats.clone(),
            state: host.state.clone(),
            started: clock::now(),
            responded: false,
            _permit: permit,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.stats.move_by(stats::upstream_rq_active, -1);
        self.state.active_requests.fetch_sub(1, Relaxed);
        if self.responded {
            self.stats.record(
                stats::upstream_rq_time,
                clock::now().saturating_duration_since(self.started).as_millis() as u64,
            );
        }
    }
}

/// A connection that one request may use. Dropped before [`Lease::finish`], an HTTP/1 connection is closed, since the
/// rest of the exchange stands on it still.
pub(crate) struct Lease {
    kind: Option<Kind>,
    pool: Rc<Pool>,
    sent: bool,
    /// It was handed over some time ago: the connection may have ended since.
    waited: bool,
    /// The connection serves nothing after this.
    last: bool,
    hold: Option<Hold>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease").field("pool", &self.pool).finish_non_exhaustive()
    }
}

impl Lease {
    pub(super) fn exclusive(h1: H1, pool: Rc<Pool>) -> Self {
        h1.info().ending.set_busy(true);
        Self::new(Kind::Exclusive(h1), pool)
    }

    /// For one who waits, and will look at it later.
    pub(super) fn handed_over(h1: H1, pool: Rc<Pool>) -> Self {
        let mut lease = Self::exclusive(h1, pool);
        lease.waited = true;
        lease
    }

    pub(super) fn shared(h2: Rc<H2>, pool: Rc<Pool>) -> Self {
        h2.streams.set(h2.streams.get() + 1);
        Self::new(Kind::Shared(h2), pool)
    }

    fn new(kind: Kind, pool: Rc<Pool>) -> Self {
        pool.note_busy(1);
        Self { kind: Some(kind), pool, sent: false, waited: false, last: false, hold: None }
    }

    /// The connection's facts.
    pub(crate) fn connection(&self) -> &Facts {
        match self.kind() {
            Kind::Exclusive(h1) => h1.info(),
            Kind::Shared(h2) => &h2.info,
        }
    }

    /// Whether requests go out as HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.kind(), Kind::Shared(_))
    }

    /// Keeps the request's place until the exchange is over.
    pub(crate) fn hold(&mut self, hold: Hold) {
        self.hold = Some(hold);
    }

    /// The request's place, for another lease.
    pub(crate) fn take_hold(&mut self) -> Option<Hold> {
        self.hold.take()
    }

    /// Sends the request; the response's head comes back.
    pub(crate) fn send(&mut self, request: Request<Body>) -> Sending<'_> {
        self.sent = true;
        let info = self.connection();
        info.requests.set(info.requests.get() + 1);
        let waited = std::mem::take(&mut self.waited);
        let (exchange, ending) = match self.kind.as_mut().expect(HELD) {
            Kind::Exclusive(h1) => {
                let ended = waited && h1.has_ended(&mut Context::from_waker(Waker::noop()));
                let exchange = match &mut h1.codec {
                    _ if ended => Exchange::Unsent(Some(Box::new(request))),
                    Codec::Http1(connection) => {
                        connection.borrow_mut().begin(request);
                        Exchange::Http1(connection)
                    }
                    // Pools of TCP connections get no requests.
                    Codec::Raw(_) => Exchange::Unsent(Some(Box::new(request))),
                };
                (exchange, Some(&h1.guard.info.ending))
            }
            Kind::Shared(h2) => (Exchange::Http2(h2.send.send(request)), None),
        };
        Sending { exchange, hold: self.hold.as_mut(), ending }
    }

    /// What a connection is that has switched to another protocol: bytes. The lease still holds its place.
    pub(crate) fn take_stream(&mut self) -> Option<Stream> {
        match self.kind() {
            Kind::Exclusive(H1 { codec: Codec::Http1(connection), .. }) => {
                connection.borrow_mut().take_stream()
            }
            Kind::Exclusive(H1 { codec: Codec::Raw(raw), .. }) => raw.take(),
            Kind::Shared(_) => None,
        }
    }

    /// What counts the connection's bytes once it is no codec's.
    pub(crate) fn meter(&self) -> Meter {
        let read = match self.kind() {
            Kind::Exclusive(H1 { codec: Codec::Http1(connection), .. }) => connection.borrow().unread(),
            Kind::Exclusive(_) | Kind::Shared(_) => 0,
        };
        Meter::new(super::traffic(&self.pool.stats), read as u64)
    }

    /// The connection as bytes, which serve nothing after this; `None`: it has ended since it was handed over.
    pub(crate) fn take_raw(&mut self) -> Option<Stream> {
        let waited = std::mem::take(&mut self.waited);
        if let Kind::Exclusive(h1) = self.kind()
            && waited
            && h1.has_ended(&mut Context::from_waker(Waker::noop()))
        {
            return None;
        }
        self.sent = true;
        let info = self.connection();
        info.requests.set(info.requests.get() + 1);
        self.take_stream()
    }

    /// The response was read to its end: the connection serves the next.
    pub(crate) fn finish(mut self) {
        if self.last {
            return;
        }
        if let Some(Kind::Exclusive(h1)) = self.kind.take_if(|kind| matches!(kind, Kind::Exclusive(_))) {
            h1.info().ending.set_busy(false);
            self.pool.offer(h1);
        }
    }

    /// The request has no end that the upstream could see: the connection serves no other.
    pub(crate) fn give_up(&mut self) {
        self.last = true;
    }

    /// The stream has lasted as long as it may.
    pub(crate) fn note_max_duration(&self) {
        self.pool.stats.inc(stats::upstream_rq_max_duration_reached);
    }

    /// Whether the response's version, or what it says, makes it the connection's last.
    pub(crate) fn is_last(&self) -> bool {
        match self.kind() {
            Kind::Exclusive(H1 { codec: Codec::Http1(connection), .. }) => connection.borrow().is_last(),
            Kind::Exclusive(_) | Kind::Shared(_) => false,
        }
    }

    /// The response says that it is the connection's last.
    pub(crate) fn note_close(&self) {
        if let Kind::Exclusive(h1) = self.kind() {
            h1.info().ending.told_to_close();
        }
    }

    /// The upstream reset the stream behind the response's head.
    pub(crate) fn note_reset(&self) {
        self.pool.stats.inc(stats::upstream_rq_rx_reset);
    }

    /// The response broke off in the middle.
    pub(crate) fn note_broken(&self, malformed: bool) {
        if let Kind::Exclusive(h1) = self.kind() {
            h1.info().ending.broken();
            h1.info().ending.was_ended_by(if malformed { By::Us } else { By::Peer });
        }
    }

    fn kind(&self) -> &Kind {
        self.kind.as_ref().expect(HELD)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.note_busy(-1);
        match self.kind.take() {
            Some(Kind::Exclusive(h1)) if !self.sent => {
                h1.info().ending.set_busy(false);
                self.pool.offer(h1);
            }
            Some(Kind::Exclusive(h1)) => h1.info().ending.ended_by(By::Us),
            Some(Kind::Shared(h2)) => {
                h2.streams.set(h2.streams.get() - 1);
                if h2.streams.get() == 0 {
                    h2.idle_since.set(clock::now());
                }
                self.pool.stream_ended(&h2);
            }
            _ => {}
        }
    }
}

/// Why no response came.
pub(crate) use crate::http2::upstream::Failed as SendError;

enum Exchange<'a> {
    Http1(&'a Rc<RefCell<http1::Connection>>),
    Http2(http2::upstream::Asking),
    /// The connection had ended.
    Unsent(Option<Box<Request<Body>>>),
}

/// A request on its way, up to its response's head.
pub(crate) struct Sending<'a> {
    exchange: Exchange<'a>,
    hold: Option<&'a mut Hold>,
    /// Where a connection that is its own is told how it failed.
    ending: Option<&'a Ending>,
}

impl Sending<'_> {
    /// What the upstream said before its response, once. To be asked whenever this was polled.
    pub(crate) fn take_informational(&mut self) -> Option<Box<Response<()>>> {
        match &mut self.exchange {
            Exchange::Http1(connection) => connection.borrow_mut().take_informational(),
            Exchange::Http2(asking) => asking.take_informational(),
            Exchange::Unsent(_) => None,
        }
    }
}

impl Future for Sending<'_> {
    type Output = Result<Response<Body>, SendError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let result = match &mut this.exchange {
            Exchange::Http1(connection) => {
                let response = ready!(connection.borrow_mut().poll_response(context));
                response
                    .map(|head| head.map(|()| Body::Received(http1::Connection::body(connection))))
                    .map_err(|error| SendError { unsent: None, error: error.into() })
            }
            Exchange::Http2(asking) => ready!(Pin::new(asking).poll(context)),
            Exchange::Unsent(request) => {
                Err(SendError { unsent: request.take(), error: http1::Error::Closed.into() })
            }
        };
        if let Some(hold) = &mut this.hold {
            hold.responded = result.is_ok();
        }
        if let (Err(failed), Some(ending)) = (&result, this.ending) {
            ending.failed(&failed.error, failed.unsent.is_some());
        }
        Poll::Ready(result)
    }
}
