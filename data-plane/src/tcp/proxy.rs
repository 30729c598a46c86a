//! `envoy.filters.network.tcp_proxy`: connects to a cluster's host and relays.

mod connect;

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sail_proxy_config::listener::{FilterChain, Listener};
use sail_proxy_config::network_filter::{ConnectMode, TcpProxy as Config};
use tokio::io::AsyncReadExt;

use super::filters::{Denied, Judged};
use super::relay::{self, End, Progress};
use super::{exchange_metadata, tunnel};
use crate::clock;
use crate::http::request_id;
use crate::listener::connection::Accepted;
use crate::net::{Stream, socket};
use crate::observe::TcpObserver;
use crate::pool::{self, ending::By};
use crate::stats::Meter;
use crate::stats::sets::tcp as stats;
use crate::stream_info::details::close_reason;
use crate::stream_info::{CloseType, ResponseFlag, StreamInfo};
use crate::worker::Shared;
use crate::worker::state::Worker;
use connect::Upstream;

/// How often a long connection is reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// As much as is read of a client's first bytes, at least and at most.
const FEWEST_READ: usize = 1024;
const MOST_READ: usize = 1024 * 1024;

/// A key of filter state: how long both sides may be silent, in milliseconds.
const IDLE_TIMEOUT: &str = "envoy.tcp_proxy.per_connection_idle_timeout_ms";

/// What is relayed between.
struct Ends<'a> {
    downstream: &'a mut Stream,
    upstream: &'a mut Stream,
    /// What the client sent before there was an upstream.
    early: Vec<u8>,
    /// What counts the upstream's bytes.
    meter: Meter,
}

/// See the module's documentation.
pub(crate) struct TcpProxy {
    config: Arc<Config>,
    stats: stats::Scope,
    observer: Arc<TcpObserver>,
}

impl TcpProxy {
    /// Whether a log tells the connection's round trip.
    pub(crate) fn wants_round_trip(&self) -> bool {
        self.observer.wants_round_trip()
    }

    pub(crate) fn new(
        config: &Arc<Config>,
        listener: &Listener,
        chain: &FilterChain,
        shared: &Shared,
    ) -> Self {
        Self {
            stats: shared.store.scope(&config.stat_prefix),
            observer: shared.options.observers.tcp(listener, chain, config),
            config: config.clone(),
        }
    }

    /// Serves a connection to its end.
    pub(crate) async fn serve(
        self: Rc<Self>,
        worker: Rc<Worker>,
        accepted: Accepted,
        chain: Arc<str>,
        judged: Judged,
        stream: Stream,
    ) {
        self.stats.inc(stats::downstream_cx_total);
        let _active = self.stats.hold(stats::downstream_cx_active);
        let life = &accepted.downstream.state.life;
        life.upstream.set(Some((CloseType::Normal, None)));
        let mut info = StreamInfo::of_connection(accepted.downstream.clone());
        info.filter_chain = (!chain.is_empty()).then_some(chain);
        info.downstream_peer = judged.downstream_peer.clone();
        info.request_id = Some(request_id::generate(&mut rand::rng()));
        let info = RefCell::new(info);
        self.observer.on_start(&info.borrow());
        self.run(&worker, &accepted, &judged, &info, stream).await;
        let mut info = info.into_inner();
        info.timing.end = Some(Instant::now());
        life.end();
        self.observer.on_close(&mut info);
    }

    /// Logs a connection that a filter before this one closed.
    pub(crate) fn deny(&self, accepted: &Accepted, chain: Arc<str>, denied: Denied) {
        self.stats.inc(stats::downstream_cx_total);
        let mut info = StreamInfo::of_connection(accepted.downstream.clone());
        info.filter_chain = (!chain.is_empty()).then_some(chain);
        info.termination_details = denied.0.map(|details| String::from(details).into());
        info.timing.end = Some(Instant::now());
        accepted.downstream.state.life.end();
        self.observer.on_start(&info);
        self.observer.on_close(&mut info);
    }

    async fn run(
        &self,
        worker: &Rc<Worker>,
        accepted: &Accepted,
        judged: &Judged,
        info: &RefCell<StreamInfo>,
        mut downstream: Stream,
    ) {
        let early = match self.config.connect_mode {
            ConnectMode::Immediate => Vec::new(),
            ConnectMode::OnDownstreamData(most) => {
                let first = self.first_bytes(worker, accepted, &mut downstream, most, info);
                // Rare: not in every connection's future.
                let Some(first) = Box::pin(first).await else { return };
                info.borrow_mut().bytes.received = first.len() as u64;
                self.stats.add(stats::downstream_cx_rx_bytes_total, first.len() as u64);
                note_data(judged, info);
                first
            }
        };
        let Some(Upstream { opened, cluster, _place }) = self.connect(worker, accepted, judged, info).await
        else {
            return;
        };
        let mut upstream = opened.stream;
        let alpn = opened.info.tls.as_ref().and_then(|peer| peer.info.alpn.as_deref());
        if let Some(exchange) = &cluster.config.metadata_exchange
            && alpn == Some(exchange.protocol.as_str())
        {
            match exchange_metadata::with_server(&mut upstream, worker, exchange).await {
                Ok(peer) => info.borrow_mut().upstream_peer = peer.map(Arc::new),
                Err(error) => {
                    tracing::debug!(%error, "the upstream did not exchange metadata");
                    info.borrow_mut().flag(ResponseFlag::UpstreamConnectionTermination);
                    return;
                }
            }
        }
        self.observer.on_open(&mut info.borrow_mut());
        let meter = Meter::new(pool::traffic(cluster.stats()), 0);
        let ends = Ends { downstream: &mut downstream, upstream: &mut upstream, early, meter };
        let ended = self.relay(worker, accepted, judged, info, ends).await;
        opened.info.ending.ended_by(match &ended {
            Some((End::Upstream(_), _) | (End::Finished, false)) => By::Peer,
            _ => By::Us,
        });
        if let (Stream::Posted(posted), Some(tunneling)) = (&upstream, &self.config.tunneling)
            && let Some(trailers) = posted.trailers().filter(|_| tunneling.propagate_response_trailers)
        {
            let trailers = tunnel::as_json(trailers);
            info.borrow_mut().filter_state.push((tunnel::RESPONSE_TRAILERS.into(), trailers.into()));
        }
        if let Some((how, _)) = ended {
            note_end(&mut info.borrow_mut(), &how, &downstream, &upstream);
        }
    }

    /// Waits for the client's first bytes; `None`: none came.
    async fn first_bytes(
        &self,
        worker: &Worker,
        accepted: &Accepted,
        downstream: &mut Stream,
        most: u32,
        info: &RefCell<StreamInfo>,
    ) -> Option<Vec<u8>> {
        let mut buffer = vec![0; (most as usize).clamp(FEWEST_READ, MOST_READ)];
        let life = &accepted.downstream.state.life;
        let end = self.end(worker, info);
        let idle_end = self.config.idle_timeout.map(|idle| Instant::now() + idle);
        let first = [idle_end, end].into_iter().flatten().min();
        let expired = async {
            match first {
                Some(first) => tokio::time::sleep_until(first.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            read = downstream.read(&mut buffer) => {
                buffer.truncate(read.ok().filter(|count| *count > 0)?);
                Some(buffer)
            }
            () = accepted.drained() => None,
            () = expired => {
                if end.is_some() && end == first {
                    self.stats.inc(stats::max_downstream_connection_duration);
                    info.borrow_mut().flag(ResponseFlag::DurationTimeout);
                    life.close(close_reason::MAX_CONNECTION_DURATION);
                } else {
                    self.stats.inc(stats::idle_timeout);
                    life.close(close_reason::TCP_SESSION_IDLE_TIMEOUT);
                }
                None
            }
        }
    }

    /// Until when the connection may last: the limit, and a random share of it on top.
    fn end(&self, worker: &Worker, info: &RefCell<StreamInfo>) -> Option<Instant> {
        let limit = self.config.max_downstream_connection_duration?;
        let share = self.config.duration_jitter_percent / 100.0;
        #[expect(clippy::cast_precision_loss, reason = "a random share need not be exact")]
        let random = (worker.random() >> 11) as f64 / (1_u64 << 53) as f64;
        Some(info.borrow().start + limit + limit.mul_f64(share * random))
    }

    /// How the sides ended it, and whether the upstream did first; `None` where a timer did.
    async fn relay(
        &self,
        worker: &Worker,
        accepted: &Accepted,
        judged: &Judged,
        info: &RefCell<StreamInfo>,
        ends: Ends<'_>,
    ) -> Option<(End, bool)> {
        let Ends { downstream, upstream, early, mut meter } = ends;
        let progress = Progress::new(early.len() as u64);
        let mut ended = None;
        let end = self.end(worker, info);
        let idle_timeout = self.idle_timeout(info);
        let log_interval = self.config.access_log_flush_interval;
        let mut log_at = log_interval.map(|interval| Instant::now() + interval);
        let life = &accepted.downstream.state.life;
        let run = relay::relay(downstream, upstream, early, &progress);
        tokio::pin!(run);
        let mut report = Instant::now() + REPORT_INTERVAL;
        // One timer for everything: it is looked at whenever bytes move.
        let mut timer = pin!(tokio::time::sleep_until(report.into()));
        loop {
            let idle_end = idle_timeout.map(|idle| progress.moved.get() + idle);
            let drain_end = accepted.drain.end();
            let next = [idle_end, end, drain_end, log_at].into_iter().flatten().min();
            timer.as_mut().reset(next.map_or(report, |next| next.min(report)).into());
            tokio::select! {
                biased;
                how = &mut run => {
                    ended = Some((how, progress.upstream_first.get()));
                    break;
                }
                () = timer.as_mut() => {
                    let now = clock::now();
                    if let (Some(at), Some(interval)) = (log_at, log_interval)
                        && at <= now
                    {
                        self.report(judged, info, &progress, &mut meter);
                        self.observer.on_log_interval(&info.borrow());
                        log_at = Some(now + interval);
                    }
                    if end.is_some_and(|end| end <= now) {
                        self.stats.inc(stats::max_downstream_connection_duration);
                        info.borrow_mut().flag(ResponseFlag::DurationTimeout);
                        life.close(close_reason::MAX_CONNECTION_DURATION);
                        break;
                    }
                    if drain_end.is_some_and(|end| end <= now) {
                        break;
                    }
                    // Bytes may have moved since the timer was set.
                    if idle_timeout.is_some_and(|idle| progress.moved.get() + idle <= now) {
                        self.stats.inc(stats::idle_timeout);
                        life.close(close_reason::TCP_SESSION_IDLE_TIMEOUT);
                        break;
                    }
                    if report <= now {
                        report = now + REPORT_INTERVAL;
                        self.report(judged, info, &progress, &mut meter);
                        self.observer.on_interval(&mut info.borrow_mut());
                    }
                }
            }
        }
        self.report(judged, info, &progress, &mut meter);
        ended
    }

    /// Brings the record's and the statistics' byte counts up to date.
    fn report(
        &self,
        judged: &Judged,
        outer: &RefCell<StreamInfo>,
        progress: &Progress,
        upstream: &mut Meter,
    ) {
        let mut info = outer.borrow_mut();
        let (received, sent) = (progress.received.get(), progress.sent.get());
        self.stats.add(stats::downstream_cx_rx_bytes_total, received - info.bytes.received);
        self.stats.add(stats::downstream_cx_tx_bytes_total, sent - info.bytes.sent);
        upstream.update(sent, received);
        info.bytes.received = received;
        info.bytes.sent = sent;
        info.bytes.upstream_sent = received;
        info.bytes.upstream_received = sent;
        drop(info);
        if received > 0 {
            note_data(judged, outer);
        }
    }

    /// How long both sides may be silent: filters may say so for a connection.
    fn idle_timeout(&self, info: &RefCell<StreamInfo>) -> Option<Duration> {
        let info = info.borrow();
        match info.filter_state(IDLE_TIMEOUT).and_then(|millis| millis.trim().parse().ok()) {
            Some(0) => None,
            Some(millis) => Some(Duration::from_millis(millis)),
            None => self.config.idle_timeout,
        }
    }
}

/// The client's first bytes have arrived: what is to be set then is set.
fn note_data(judged: &Judged, info: &RefCell<StreamInfo>) {
    let info = &mut *info.borrow_mut();
    let before = info.downstream.state.filter_state.borrow().len();
    judged.set_on_data(&info.downstream, info.bytes.received);
    let all = info.downstream.state.filter_state.borrow();
    info.filter_state.extend_from_slice(&all[before..]);
}

/// Notes how a relay ended. Who is reset by one side resets the other.
fn note_end(info: &mut StreamInfo, end: &End, downstream: &Stream, upstream: &Stream) {
    let reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
    let reset_at_close = |stream: &Stream| {
        if let Some(tcp) = stream.tcp() {
            socket::reset_at_close(tcp.as_fd());
        }
    };
    let life = &info.downstream.state.life;
    match end {
        End::Finished => {}
        End::Downstream(error) => {
            tracing::debug!(%error, "the client's connection broke");
            if reset(error) {
                life.closed.set(CloseType::RemoteReset);
                reset_at_close(upstream);
            }
        }
        End::Upstream(error) if reset(error) => {
            tracing::debug!(%error, "the upstream reset the connection");
            life.closed.set(CloseType::LocalReset);
            life.upstream.set(Some((CloseType::RemoteReset, None)));
            reset_at_close(downstream);
            info.flag(ResponseFlag::UpstreamRemoteReset);
        }
        End::Upstream(error) => {
            tracing::debug!(%error, "the upstream's connection broke");
            info.flag(ResponseFlag::UpstreamConnectionTermination);
        }
    }
}
