//! One downstream HTTP connection: its codec, its timers, and its drain.

use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::Request;
use sail_proxy_http2::frame::PREFACE;
use tokio::io::AsyncReadExt;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::body::Body;
use super::exchange::{Exchange, Guard};
use super::manager::Manager;
use super::requests::Switching;
use super::{handler, requests};
use crate::http1::downstream::Informer;
use crate::http2;
use crate::http2::downstream::OnStream;
use crate::listener::connection::Accepted;
use crate::net::Stream;
use crate::rt::Sleeper;
use crate::stats::Traffic;
use crate::stats::sets::http as stats;
use crate::stream_info::details::close_reason;
use crate::stream_info::{CloseType, DownstreamInfo, Protocol};
use crate::worker::state::Worker;

/// What a connection speaks, as its requests see it.
pub(crate) enum Codec {
    Http1(Informer),
    Http2(http2::downstream::Connection),
}

/// What the requests of one connection share.
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) manager: Rc<Manager>,
    pub(crate) accepted: Accepted,
    pub(crate) downstream: Rc<DownstreamInfo>,
    pub(crate) http2: bool,
    /// How streams broke off that end in this moment.
    pub(crate) breaks_off: Cell<Option<http2::Error>>,
    /// Its codec.
    pub(crate) codec: OnceCell<Codec>,
    /// Requests under way.
    pub(crate) active: Cell<usize>,
    /// Requests so far.
    pub(crate) requests: Cell<u64>,
    /// When the last request ended, or the connection began.
    pub(crate) idle_since: Cell<Instant>,
    /// Whether responses are to tell the client that the connection ends.
    pub(crate) closing: Cell<bool>,
    /// What the connection becomes once an HTTP/1 codec is done with it.
    pub(crate) switching: Cell<Option<Switching>>,
    /// Wakes the connection's task when a request asks for its end.
    pub(crate) waker: RefCell<Option<std::task::Waker>>,
}

impl Connection {
    /// Whether its listener drains, and this connection's turn has come; or the process is said to be unhealthy.
    pub(crate) fn is_drained(&self) -> bool {
        self.accepted.drain.closes(|| self.worker.random())
    }

    /// What counts the connection's bytes.
    pub(super) fn traffic(&self) -> Traffic {
        let counters = (stats::downstream_cx_rx_bytes_total, stats::downstream_cx_tx_bytes_total);
        self.manager.stats.traffic(counters.0, counters.1)
    }

    /// Whether trailers of requests are let through.
    pub(crate) fn takes_trailers(&self) -> bool {
        self.http2 || self.manager.config.http1.enable_trailers
    }

    /// The connection takes no further request.
    pub(crate) fn close_after_this(&self) {
        self.closing.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, manager: Rc<Manager>, accepted: Accepted, stream: Stream) {
    let Some((stream, http2)) = codec(&manager, &accepted, stream).await else { return };
    let stats = manager.stats.clone();
    stats.inc(stats::downstream_cx_total);
    let _active = stats.hold(stats::downstream_cx_active);
    let _codec = if http2 {
        stats.inc(stats::downstream_cx_http2_total);
        stats.hold(stats::downstream_cx_http2_active)
    } else {
        stats.inc(stats::downstream_cx_http1_total);
        stats.hold(stats::downstream_cx_http1_active)
    };
    let _tls = accepted.tls.is_some().then(|| {
        stats.inc(stats::downstream_cx_ssl_total);
        stats.hold(stats::downstream_cx_ssl_active)
    });
    let started = Instant::now();
    let connection = Rc::new(Connection {
        downstream: accepted.downstream.clone(),
        worker,
        manager,
        accepted,
        http2,
        breaks_off: Cell::new(None),
        codec: OnceCell::new(),
        active: Cell::new(0),
        requests: Cell::new(0),
        idle_since: Cell::new(started),
        closing: Cell::new(false),
        switching: Cell::default(),
        waker: RefCell::default(),
    });
    if http2 {
        // In a box each: what a connection does not speak takes no place in its task.
        Box::pin(serve_http2(&connection, stream)).await;
    } else {
        requests::serve(&connection, stream).await;
    }
    stats.inc(stats::downstream_cx_destroy);
    stats.record(stats::downstream_cx_length_ms, started.elapsed().as_millis() as u64);
}

async fn serve_http2(connection: &Rc<Connection>, stream: Stream) {
    let manager = &connection.manager;
    let counts = http2::Counts::OfClients(manager.http2.clone());
    let traffic = connection.traffic();
    let codec = http2::downstream::Connection::new(stream, manager.http2_options(), traffic, counts);
    // It is set here alone.
    let _ = connection.codec.set(Codec::Http2(codec.clone()));
    let keepalive = manager.config.http2.keepalive;
    let mut ender = Ender::new(connection);
    let leave = async {
        ender.run().await;
        manager.drain_timeout(connection.worker.random())
    };
    let ender = pin!(Sleeper::new(leave));
    let ended = codec.drive(keepalive, ender, &Requests(connection.clone())).await;
    note_end(connection, ended);
    let limit = manager.config.timeouts.delayed_close;
    if !codec.close(limit).await {
        manager.stats.inc(stats::downstream_cx_delayed_close_timeout);
    }
}

/// Serves the requests of an HTTP/2 connection.
#[derive(Clone)]
struct Requests(Rc<Connection>);

impl http2::downstream::Service for Requests {
    fn serve(&self, request: Request<Body>, on: OnStream) -> http2::downstream::Serving {
        Box::pin(handler::serve(self.0.clone(), request, Some(on)))
    }

    fn refuse(&self, error: http2::Error) {
        let guard = Guard::new(Exchange::begin(&self.0));
        guard.exchange().info.borrow_mut().protocol = Some(Protocol::Http2);
        self.breaks_off(Some(error));
        drop(guard);
        self.breaks_off(None);
    }

    fn breaks_off(&self, error: Option<http2::Error>) {
        self.0.breaks_off.set(error);
    }
}

/// Notes how a codec's time with a connection ended; `None`: as it was told to.
fn note_end(connection: &Connection, ended: Option<http2::Error>) {
    let life = &connection.downstream.state.life;
    let mut local = connection.closing.get();
    match ended {
        None => local = true,
        Some(http2::Error::Io(io::ErrorKind::ConnectionReset)) => life.closed.set(CloseType::RemoteReset),
        Some(error) if error.is_violation() => {
            local = true;
            note_violation(&connection.manager.stats, error);
            tracing::debug!(%error, "downstream HTTP/2 connection failed");
        }
        Some(http2::Error::Silent) => local = true,
        Some(_) => {}
    }
    count_end(connection, local);
}

fn note_violation(stats: &stats::Scope, error: http2::Error) {
    match error {
        http2::Error::Flood(http2::Flood::PrematureResets) => {
            stats.inc(stats::downstream_rq_too_many_premature_resets);
            stats.inc(stats::downstream_cx_protocol_error);
        }
        http2::Error::Flood(_) => {}
        _ => stats.inc(stats::downstream_cx_protocol_error),
    }
}

/// Counts by whom a connection was ended, and whether requests were under way.
pub(super) fn count_end(connection: &Connection, local: bool) {
    let stats = &connection.manager.stats;
    if connection.closing.get() {
        connection.downstream.state.life.local_close_reason.set(Some(close_reason::DRAINED));
    }
    let (ended, busy) = if local {
        (stats::downstream_cx_destroy_local, stats::downstream_cx_destroy_local_active_rq)
    } else {
        (stats::downstream_cx_destroy_remote, stats::downstream_cx_destroy_remote_active_rq)
    };
    stats.inc(ended);
    if connection.active.get() > 0 {
        stats.inc(stats::downstream_cx_destroy_active_rq);
        stats.inc(busy);
    }
}

/// Decides when a connection is told to end: idle for too long, alive for too long, drained, or asked to by a request.
pub(super) struct Ender<'a> {
    connection: &'a Rc<Connection>,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    draining: bool,
}

impl<'a> Ender<'a> {
    pub(super) fn new(connection: &'a Rc<Connection>) -> Self {
        Self { connection, drain: Box::pin(connection.accepted.drained()), draining: false }
    }

    pub(super) async fn run(&mut self) {
        let idle = self.connection.manager.idle_timeout();
        let connection = self.connection;
        let limit = connection.manager.max_connection_duration(connection.worker.random());
        let end = limit.map(|limit| Instant::now() + limit);
        let mut timer = pin!(tokio::time::sleep(Duration::from_secs(86_400)));
        let drain = self.connection.accepted.drain.clone();
        let next = |idle_since: Instant| {
            let idle_end = idle.map(|idle| idle_since + idle);
            [idle_end, end, drain.end()].into_iter().flatten().min().map(tokio::time::Instant::from_std)
        };
        if let Some(at) = next(Instant::now()) {
            timer.as_mut().reset(at);
        }
        // When the connection's own drain is over.
        let mut drained_at: Option<Instant> = None;
        std::future::poll_fn(|context| {
            let drained = self.draining;
            if self.poll_orders(context) {
                return Poll::Ready(());
            }
            if self.draining != drained
                && drained_at.is_none()
                && let Some(at) = next(self.connection.idle_since.get())
            {
                timer.as_mut().reset(at);
            }
            while timer.as_mut().poll(context).is_ready() {
                let now = Instant::now();
                if drained_at.is_some() {
                    return Poll::Ready(());
                }
                let stats = &self.connection.manager.stats;
                if end.is_some_and(|end| end <= now) {
                    stats.inc(stats::downstream_cx_max_duration_reached);
                    let until = self.begin_drain(now);
                    timer.as_mut().reset(until.into());
                    drained_at = Some(until);
                    continue;
                }
                let busy = self.connection.active.get() > 0;
                let since = if busy { now } else { self.connection.idle_since.get() };
                if let Some(idle) = idle
                    && since + idle <= now
                {
                    stats.inc(stats::downstream_cx_idle_timeout);
                    let until = self.begin_drain(now);
                    timer.as_mut().reset(until.into());
                    drained_at = Some(until);
                    continue;
                }
                let later = next(since).unwrap_or_else(|| (now + Duration::from_secs(86_400)).into());
                timer.as_mut().reset(later);
            }
            Poll::Pending
        })
        .await;
    }

    /// The connection is to end, and when. An HTTP/1 client that asks until then is answered, and told that it was the
    /// last time. An HTTP/2 client is told at once; the ping with which the codec does so tells better than any time
    /// when the client knows.
    fn begin_drain(&self, now: Instant) -> Instant {
        if self.connection.http2 {
            return now;
        }
        self.connection.closing.set(true);
        now + self.connection.manager.drain_timeout(self.connection.worker.random())
    }

    /// Whether the connection is to end by order. An HTTP/1 client learns of a drain with its next response, so that
    /// none of its requests meets a closed connection; an HTTP/2 client is told at once, which is as safe.
    fn poll_orders(&mut self, context: &mut Context<'_>) -> bool {
        if !self.draining && self.drain.as_mut().poll(context).is_ready() {
            self.draining = true;
            if !self.connection.accepted.drain.is_gradual() {
                self.connection.closing.set(true);
                self.connection.manager.stats.inc(stats::downstream_cx_drain_close);
            }
            if self.connection.http2 && self.connection.closing.get() {
                return true;
            }
        }
        if self.connection.http2 && self.connection.closing.get() {
            return true;
        }
        if self.connection.http2 {
            *self.connection.waker.borrow_mut() = Some(context.waker().clone());
        }
        self.connection.accepted.drain.end().is_some_and(|end| end <= Instant::now())
    }
}

/// Which codec the connection speaks. `None` if it ended before it spoke, or was silent for as long as one may idle.
async fn codec(manager: &Manager, accepted: &Accepted, stream: Stream) -> Option<(Stream, bool)> {
    if let Some(http2) = manager.fixed_codec() {
        return Some((stream, http2));
    }
    if let Some(alpn) = accepted.tls.as_ref().and_then(|peer| peer.info.alpn.as_deref()) {
        return Some((stream, alpn == "h2"));
    }
    // In a box, since it is over when the connection idles.
    let detected = Box::pin(async {
        let limit = manager.idle_timeout().unwrap_or(Duration::MAX);
        let mut detecting = std::pin::pin!(detect(stream));
        // Counted before the connection ends with `detecting`: who sees the end finds it counted.
        tokio::time::timeout(limit, detecting.as_mut()).await.unwrap_or_else(|_| {
            manager.stats.inc(stats::downstream_cx_idle_timeout);
            None
        })
    });
    detected.await
}

/// By the first bytes.
async fn detect(mut stream: Stream) -> Option<(Stream, bool)> {
    let mut seen = BytesMut::with_capacity(4096);
    let http2 = loop {
        if !PREFACE.starts_with(&seen[..seen.len().min(PREFACE.len())]) {
            break false;
        }
        if seen.len() >= PREFACE.len() {
            break true;
        }
        match stream.read_buf(&mut seen).await {
            Ok(count) if count > 0 => {}
            _ if seen.is_empty() => return None,
            // The codec will say what is wrong with it.
            _ => break false,
        }
    };
    Some((stream.rewound(seen.freeze()), http2))
}
