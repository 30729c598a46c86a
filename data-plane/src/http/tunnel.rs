//! What a request becomes once both sides have switched, by an upgrade or by CONNECT: bytes both ways, within the
//! stream's limits, and logged at its end like any other stream.

use std::any::Any;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use sail_proxy_http2::frame::Reason;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;

use super::body::BodyError;
use super::conn::Codec;
use super::exchange::{Exchange, Guard, how_it_broke_off};
use super::requests::Switching;
use super::timers;
use crate::http2;
use crate::net::Stream;
use crate::pool::ending::By;
use crate::pool::lease::Lease;
use crate::router::failure::Failure;
use crate::stats::Meter;
use crate::stats::sets::http as stats;
use crate::stream_info::{ResponseFlag, details};
use crate::tcp::relay::{self, ClientEnd, End, Progress};

/// How long it may take to tell both sides of the end.
const PARTING: Duration = Duration::from_secs(1);

/// Both ends of a tunnel.
pub(crate) struct Tunnel {
    pub(crate) downstream: Downstream,
    pub(crate) upstream: Upstream,
}

/// The client's end.
pub(crate) enum Downstream {
    /// All of its HTTP/1 connection.
    Connection,
    /// A stream of its HTTP/2 connection.
    Stream(Stream),
}

impl Downstream {
    /// The client's end of a request that may become a tunnel; `None` if it may not.
    pub(crate) fn of(exchange: &Exchange) -> Option<Self> {
        Some(match exchange.connection.codec.get()? {
            Codec::Http1(_) => Self::Connection,
            Codec::Http2(codec) => {
                Self::Stream(Stream::Tunnel(Box::new(codec.tunnel(exchange.stream.get()?))))
            }
        })
    }

    /// Its bytes, and what counts them, once the response's head is sent. `None` if it never was.
    async fn stream(self, handed: oneshot::Receiver<(Stream, Meter)>) -> Option<(Stream, Option<Meter>)> {
        match self {
            Self::Connection => handed.await.ok().map(|(stream, meter)| (stream, Some(meter))),
            Self::Stream(stream) => Some((stream, None)),
        }
    }
}

/// The end away from the client.
pub(crate) enum Upstream {
    /// A stream of an HTTP/2 connection.
    Switched(Stream),
    /// A connection of its own, what counts its bytes, and what is held for as long as it lasts.
    Connected(Stream, Meter, Box<dyn Any>),
}

impl Tunnel {
    /// Relays in a task of its own; the exchange ends with it.
    pub(crate) fn spawn(self, exchange: &Rc<Exchange>, guard: Guard, lease: Option<Lease>) {
        let (to, handed) = oneshot::channel();
        let task = tokio::task::spawn_local(self.run(handed, exchange.clone(), guard, lease));
        if !exchange.connection.http2 {
            exchange.connection.switching.set(Some(Switching { to, task }));
        }
    }

    async fn run(
        self,
        handed: oneshot::Receiver<(Stream, Meter)>,
        exchange: Rc<Exchange>,
        mut guard: Guard,
        lease: Option<Lease>,
    ) {
        let stats = &exchange.connection.manager.stats;
        stats.inc(stats::downstream_cx_upgrades_total);
        let _active = stats.hold(stats::downstream_cx_upgrades_active);
        let Some((mut downstream, mut client)) = self.downstream.stream(handed).await else { return };
        let (mut upstream, mut far, _held) = match self.upstream {
            Upstream::Connected(stream, meter, held) => (stream, Some(meter), Some(held)),
            Upstream::Switched(stream) => (stream, None, None),
        };
        let progress = Progress::new(0);
        let client_end = client_end(&exchange, lease.as_ref());
        let end = {
            let relay =
                relay::relay_until(&mut downstream, &mut upstream, Vec::new(), &progress, Some(client_end));
            let mut relay = pin!(relay);
            let work = pin!(poll_fn(|context| {
                let end = relay.as_mut().poll(context);
                let (received, sent) = (progress.received.get(), progress.sent.get());
                // An HTTP/2 connection counts for all of its streams.
                if let Some(meter) = &mut client {
                    meter.update(received, sent);
                }
                if let Some(meter) = &mut far {
                    meter.update(sent, received);
                }
                exchange.moved.set(progress.moved.get().max(exchange.moved.get()));
                end
            }));
            tokio::select! {
                end = timers::bounded(&exchange, work) => Some(end),
                () = drained(&exchange) => None,
            }
        };
        if let Some(lease) = &lease {
            let theirs = progress.upstream_first.get() || matches!(end, Some(Ok(End::Upstream(_))));
            lease.connection().ending.was_ended_by(if theirs { By::Peer } else { By::Us });
        }
        if let Some(Ok(End::Upstream(error))) = &end {
            pass_on(error, &downstream, lease.as_ref());
        }
        let upstream_resets = lease.as_ref().is_some_and(|lease| !lease.is_http2());
        if matches!(end, Some(Ok(End::Finished))) {
            let resets = upstream_resets && exchange.connection.http2;
            let downstream = async {
                // A stream that is dropped without its end is reset.
                if !resets {
                    let _ = downstream.shutdown().await;
                }
            };
            // Neither waits for the other: a client may take its time to close.
            let parting = async { tokio::join!(downstream, upstream.shutdown()) };
            let _ = tokio::time::timeout(PARTING, parting).await;
        }
        note_end(&exchange, &progress, end, upstream_resets);
        guard.complete();
        drop(lease);
    }
}

/// What the client's end means: that of an HTTP/1 connection ends it for both directions.
fn client_end(exchange: &Exchange, lease: Option<&Lease>) -> ClientEnd {
    // Without one the upstream is a bare connection.
    let upstream_http1 = lease.is_some_and(|lease| !lease.is_http2());
    match (exchange.connection.http2, upstream_http1) {
        (false, _) => ClientEnd::Ends,
        (true, false) => ClientEnd::IsTold,
        // An upgrade has no sign for it; a tunnel has the connection's end.
        (true, true) if exchange.info.borrow().upgrade.is_some() => ClientEnd::IsKept,
        (true, true) => ClientEnd::Ends,
    }
}

/// Resolves when the listener's drain is over.
async fn drained(exchange: &Exchange) {
    exchange.connection.accepted.drained().await;
    if let Some(end) = exchange.connection.accepted.drain.end() {
        tokio::time::sleep_until(end.into()).await;
    }
}

/// How the upstream's end broke.
fn failure(error: &io::Error) -> Failure {
    match of_stream(error) {
        Some(error) => Failure::of_codec(&BodyError::from(error), false),
        None => Failure::Terminated { started: true },
    }
}

/// Tells a client over HTTP/2 how the upstream's end broke, and counts what is the stream's alone.
fn pass_on(error: &io::Error, downstream: &Stream, lease: Option<&Lease>) {
    let failure = failure(error);
    if failure == Failure::Reset
        && let Some(lease) = lease
    {
        lease.note_reset();
    }
    if let Stream::Tunnel(tunnel) = downstream {
        let connection = matches!(failure, Failure::Terminated { .. });
        tunnel.reset(if connection { Reason::CONNECT_ERROR } else { Reason::INTERNAL_ERROR });
    }
}

/// How a stream broke off; `None`: it was a connection.
fn of_stream(error: &io::Error) -> Option<http2::Error> {
    error.get_ref()?.downcast_ref::<http2::Error>().copied()
}

/// `upstream_resets`: the upstream's end is one of its connection, in the middle of what it was sending.
fn note_end(
    exchange: &Exchange,
    progress: &Progress,
    end: Option<Result<End, timers::Expired>>,
    upstream_resets: bool,
) {
    let stats = &exchange.connection.manager.stats;
    {
        let mut info = exchange.info.borrow_mut();
        let (received, sent) = (progress.received.get(), progress.sent.get());
        info.bytes.received += received;
        info.bytes.sent += sent;
        info.bytes.upstream_sent += received;
        info.bytes.upstream_received += sent;
        let now = Instant::now();
        info.timing.last_upstream_rx = Some(now);
        info.timing.last_downstream_rx = Some(now);
        match &end {
            Some(Ok(End::Downstream(error))) => {
                tracing::debug!(%error, "the client's end of a tunnel broke");
                let (flag, details) = how_it_broke_off(of_stream(error));
                info.flag(flag);
                info.code_details = Some(details);
                stats.inc(stats::downstream_rq_rx_reset);
            }
            Some(Ok(End::Upstream(error))) => {
                tracing::debug!(%error, "the upstream's end of a tunnel broke");
                let failure = failure(error);
                failure.flag().into_iter().for_each(|flag| info.flag(flag));
                info.code_details = Some(details::upstream_reset(failure.reason(), true, None).into());
                stats.inc(stats::downstream_rq_tx_reset);
                stats.inc(stats::downstream_rq_rx_reset);
            }
            // HTTP/1 has no other end than that of the connection.
            Some(Ok(End::Finished)) if progress.upstream_first.get() || exchange.connection.http2 => {
                if upstream_resets {
                    stats.inc(stats::downstream_rq_tx_reset);
                    stats.inc(stats::downstream_rq_rx_reset);
                    info.flag(ResponseFlag::UpstreamConnectionTermination);
                    let reason = details::reset::CONNECTION_TERMINATION;
                    info.code_details = Some(details::upstream_reset(reason, true, None).into());
                } else if progress.upstream_first.get() && exchange.connection.http2 {
                    // The stream is reset behind the upstream's end.
                    stats.inc(stats::downstream_rq_rx_reset);
                }
            }
            Some(Ok(End::Finished)) if !exchange.connection.http2 => {
                stats.inc(stats::downstream_rq_rx_reset);
                info.flag(ResponseFlag::DownstreamConnectionTermination);
                info.code_details = Some(details::DOWNSTREAM_REMOTE_DISCONNECT.into());
            }
            Some(Ok(End::Finished) | Err(_)) | None => {}
        }
    }
    if let Some(Err(expired)) = end {
        expired.note(exchange);
    }
}
