//! A connection in use by one request, and its way back into the pool.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use sail_proxy_decide::host::{Host, HostState};

use super::ending::{By, Ending};
use super::limits::Permit;
use super::{Facts, Pool};
use crate::http::body::Body;
use crate::stats::sets::cluster as stats;
use crate::stream_info::UpstreamLife;

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
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.ending.count(self.requests.get());
    }
}

impl Connection {
    pub(super) fn is_expired(&self) -> bool {
        self.expires.get().is_some_and(|end| end <= Instant::now())
    }

    pub(super) fn is_spent(&self, max_requests: Option<u32>) -> bool {
        max_requests.is_some_and(|max| self.requests.get() >= max)
    }
}

/// An HTTP/1 connection between two requests.
pub(crate) struct H1 {
    pub(crate) send: http1::SendRequest<Body>,
    pub(crate) info: Facts,
    pub(crate) idle_since: Instant,
}

/// An HTTP/2 connection.
pub(crate) struct H2 {
    pub(crate) send: http2::SendRequest<Body>,
    pub(crate) info: Facts,
    pub(crate) streams: Cell<usize>,
    /// As many streams as the peer allows at once; the codec holds back what comes before we know.
    pub(crate) peer_streams: Cell<usize>,
    pub(crate) idle_since: Cell<Instant>,
}

impl H2 {
    pub(super) fn new(send: http2::SendRequest<Body>, info: Facts) -> Self {
        Self {
            send,
            info,
            streams: Cell::new(0),
            peer_streams: Cell::new(100),
            idle_since: Cell::new(Instant::now()),
        }
    }

    pub(super) fn is_spent(&self, max_requests: Option<u32>) -> bool {
        self.info.is_spent(max_requests)
    }
}

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
            started: Instant::now(),
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
            self.stats.record(stats::upstream_rq_time, self.started.elapsed().as_millis() as u64);
        }
    }
}

/// A connection that one request may use. Dropped before [`Lease::finish`], an HTTP/1 connection is closed, since the
/// rest of the exchange stands on it still.
pub(crate) struct Lease {
    kind: Option<Kind>,
    pool: Rc<Pool>,
    sent: bool,
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
        pool.note_busy(1);
        h1.info.ending.set_busy(true);
        Self { kind: Some(Kind::Exclusive(h1)), pool, sent: false, last: false, hold: None }
    }

    pub(super) fn shared(h2: Rc<H2>, pool: Rc<Pool>) -> Self {
        h2.streams.set(h2.streams.get() + 1);
        pool.note_busy(1);
        Self { kind: Some(Kind::Shared(h2)), pool, sent: false, last: false, hold: None }
    }

    /// The connection's facts.
    pub(crate) fn connection(&self) -> &Facts {
        match self.kind() {
            Kind::Exclusive(h1) => &h1.info,
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

    /// Sends the request; the response's head comes back. An error that still holds the request means that nothing of
    /// it was sent.
    pub(crate) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        self.sent = true;
        let info = self.connection();
        info.requests.set(info.requests.get() + 1);
        let result = match self.kind.as_mut().expect("held until the lease is finished or dropped") {
            Kind::Exclusive(h1) => h1.send.try_send_request(request).await,
            Kind::Shared(h2) => {
                let mut send = h2.send.clone();
                send.try_send_request(request).await
            }
        };
        if let Some(hold) = &mut self.hold {
            hold.responded = result.is_ok();
        }
        if let (Err(error), Kind::Exclusive(h1)) = (&result, self.kind()) {
            h1.info.ending.failed(error.error(), error.message().is_some());
        }
        result
    }

    /// The response was read to its end: the connection serves the next.
    pub(crate) fn finish(mut self) {
        if self.last {
            return;
        }
        if let Some(Kind::Exclusive(h1)) = self.kind.take_if(|kind| matches!(kind, Kind::Exclusive(_))) {
            h1.info.ending.set_busy(false);
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

    /// The response says that it is the connection's last.
    pub(crate) fn note_close(&self) {
        if let Kind::Exclusive(h1) = self.kind() {
            h1.info.ending.told_to_close();
        }
    }

    /// The response broke off in the middle.
    pub(crate) fn note_broken(&self, malformed: bool) {
        if let Kind::Exclusive(h1) = self.kind() {
            h1.info.ending.broken();
            h1.info.ending.was_ended_by(if malformed { By::Us } else { By::Peer });
        }
    }

    fn kind(&self) -> &Kind {
        self.kind.as_ref().expect("held until the lease is finished or dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.note_busy(-1);
        match self.kind.take() {
            Some(Kind::Exclusive(h1)) if !self.sent => {
                h1.info.ending.set_busy(false);
                self.pool.offer(h1);
            }
            Some(Kind::Exclusive(h1)) => h1.info.ending.ended_by(By::Us),
            Some(Kind::Shared(h2)) => {
                h2.streams.set(h2.streams.get() - 1);
                if h2.streams.get() == 0 {
                    h2.idle_since.set(Instant::now());
                }
                self.pool.stream_ended(&h2);
            }
            _ => {}
        }
    }
}
