//! One downstream HTTP connection: its codec, its timers, and its drain.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use futures_util::FutureExt as _;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::body::Body;
use super::manager::Manager;
use super::requests::Switching;
use super::{handler, requests};
use crate::listener::connection::Accepted;
use crate::net::Stream;
use crate::net::batch::Batch;
use crate::rt::{LocalExec, Sleeper};
use crate::stats::Traffic;
use crate::stats::sets::http as stats;
use crate::stream_info::details::close_reason;
use crate::stream_info::{CloseType, DownstreamInfo};
use crate::worker::state::Worker;

/// What the requests of one connection share.
pub(crate) struct Connection {
    pub(crate) worker: Rc<Worker>,
    pub(crate) manager: Rc<Manager>,
    pub(crate) accepted: Accepted,
    pub(crate) downstream: Rc<DownstreamInfo>,
    pub(crate) http2: bool,
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
    let options = connection.manager.http2_options();
    let mut builder = http2::Builder::new(LocalExec);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .max_concurrent_streams(options.max_streams)
        .max_send_buf_size(STREAM_BUFFER)
        .max_header_list_size(connection.manager.max_header_bytes() as u32);
    if options.allow_connect {
        builder.enable_connect_protocol();
    }
    let http2 = &connection.manager.config.http2;
    if let Some(keepalive) = http2.keepalive {
        builder.keep_alive_interval(keepalive.interval).keep_alive_timeout(keepalive.timeout);
    }
    if let Some(size) = http2.hpack_table_size {
        builder.header_table_size(size);
    }
    let service = {
        let connection = connection.clone();
        // In a box, since the codec moves it into a task of its own.
        service_fn(move |request: Request<Incoming>| {
            let serving = Box::pin(handler::serve(connection.clone(), request.map(Body::Incoming)));
            serving.map(Ok::<_, Infallible>)
        })
    };
    let batch = Batch::new(stream, connection.traffic());
    let mut codec = pin!(builder.serve_connection(TokioIo::new(batch.clone()), service));
    let mut ender = Ender::new(connection);
    let mut ender = pin!(Sleeper::new(ender.run()));
    let mut told = false;
    std::future::poll_fn(|context| {
        if !told && ender.as_mut().poll(context).is_ready() {
            told = true;
            codec.as_mut().graceful_shutdown();
        }
        let result = codec.as_mut().poll(context);
        batch.push(context);
        result.map(|result| note_end(connection, &result, told))
    })
    .await;
}

/// Notes how a codec's time with a connection ended.
fn note_end(connection: &Connection, result: &hyper::Result<()>, told: bool) {
    let stats = &connection.manager.stats;
    let life = &connection.downstream.state.life;
    let mut local = told || connection.closing.get();
    if result.as_ref().is_err_and(is_reset) {
        life.closed.set(CloseType::RemoteReset);
    }
    if let Err(error) = result
        && (error.is_parse() || error.is_user())
    {
        local = true;
        if error.is_parse() {
            stats.inc(stats::downstream_cx_protocol_error);
        }
        tracing::debug!(error = %error, "downstream HTTP connection failed");
    }
    count_end(connection, local);
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

/// Whether the client reset the connection.
fn is_reset(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return error.kind() == std::io::ErrorKind::ConnectionReset;
        }
        source = error.source();
    }
    false
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

/// As much of a response as waits on each HTTP/2 stream for a client that reads slowly.
const STREAM_BUFFER: usize = 64 * 1024;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
