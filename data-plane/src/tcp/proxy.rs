//! `envoy.filters.network.tcp_proxy`: connects to a cluster's host and relays.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use base::backoff::Backoff;
use sail_proxy_config::listener::{FilterChain, Listener};
use sail_proxy_config::network_filter::TcpProxy as Config;
use sail_proxy_decide::host::Host;
use sail_proxy_decide::lb::Criteria;
use sail_proxy_decide::route::Priority;

use super::filters::Judged;
use super::relay::{self, End, Progress};
use super::{exchange_metadata, tunnel};
use crate::cluster::{Cluster, LbContext, target, upstream_address};
use crate::listener::connection::Accepted;
use crate::net::{Stream, socket};
use crate::observe::TcpObserver;
use crate::pool::PoolError;
use crate::pool::connect::{Connector, Opened};
use crate::pool::limits::{Permit, Resource};
use crate::router::failure::Failure;
use crate::stats::sets::{cluster as cluster_stats, tcp as stats};
use crate::stream_info::details::close_reason;
use crate::stream_info::{CloseType, PeerMetadata, ResponseFlag, StreamInfo, UpstreamInfo};
use crate::worker::Shared;
use crate::worker::state::Worker;

/// How often a long connection is reported.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub(crate) struct TcpProxy {
    config: Arc<Config>,
    stats: stats::Scope,
    observer: Arc<TcpObserver>,
}

/// A connection to an upstream, and its place in the cluster's counts.
struct Upstream {
    opened: Opened,
    cluster: Rc<Cluster>,
    host: Arc<Host>,
    _permit: Permit,
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
        let info = RefCell::new(info);
        self.run(&worker, &accepted, &judged, &info, stream).await;
        let mut info = info.into_inner();
        info.timing.end = Some(Instant::now());
        life.end();
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
        let Some(upstream) = self.connect(worker, accepted, judged, info).await else { return };
        let Upstream { opened, cluster, host, _permit } = upstream;
        let mut upstream = opened.stream;
        let alpn = opened.info.tls.as_ref().and_then(|peer| peer.info.alpn.as_deref());
        if let Some(exchange) = &cluster.config.metadata_exchange
            && alpn == Some(exchange.protocol.as_str())
        {
            match exchange_metadata::with_server(&mut upstream, worker).await {
                Ok(peer) => info.borrow_mut().upstream_peer = peer.map(Arc::new),
                Err(error) => {
                    tracing::debug!(%error, "the upstream did not exchange metadata");
                    info.borrow_mut().flag(ResponseFlag::UpstreamConnectionTermination);
                    return;
                }
            }
        }
        self.observer.on_open(&mut info.borrow_mut());
        let ended = self.relay(worker, accepted, info, &mut downstream, &mut upstream).await;
        if let Some(how) = ended {
            note_end(&mut info.borrow_mut(), &how, &downstream, &upstream);
        }
        cluster.stats().inc(cluster_stats::upstream_cx_destroy);
        cluster.stats().move_by(cluster_stats::upstream_cx_active, -1);
        host.state.active_connections.fetch_sub(1, Relaxed);
    }

    /// How long the connection may last: the limit, and a random share of it on top.
    fn duration_limit(&self, worker: &Worker) -> Option<Duration> {
        let limit = self.config.max_downstream_connection_duration?;
        let share = self.config.duration_jitter_percent / 100.0;
        #[expect(clippy::cast_precision_loss, reason = "a random share need not be exact")]
        let random = (worker.random() >> 11) as f64 / (1_u64 << 53) as f64;
        Some(limit + limit.mul_f64(share * random))
    }

    /// How the sides ended it; `None` where a timer did.
    async fn relay(
        &self,
        worker: &Worker,
        accepted: &Accepted,
        info: &RefCell<StreamInfo>,
        downstream: &mut Stream,
        upstream: &mut Stream,
    ) -> Option<End> {
        let progress = Progress::new();
        let mut ended = None;
        let end = self.duration_limit(worker).map(|limit| Instant::now() + limit);
        let log_interval = self.config.access_log_flush_interval;
        let mut log_at = log_interval.map(|interval| Instant::now() + interval);
        let life = &accepted.downstream.state.life;
        let run = relay::relay(downstream, upstream, &progress);
        tokio::pin!(run);
        let mut report = Instant::now() + REPORT_INTERVAL;
        // One timer for everything: it is looked at whenever bytes move.
        let mut timer = pin!(tokio::time::sleep_until(report.into()));
        loop {
            let idle_end = self.config.idle_timeout.map(|idle| progress.moved.get() + idle);
            let drain_end = accepted.drain.end();
            let next = [idle_end, end, drain_end, log_at].into_iter().flatten().min();
            timer.as_mut().reset(next.map_or(report, |next| next.min(report)).into());
            tokio::select! {
                biased;
                how = &mut run => {
                    ended = Some(how);
                    break;
                }
                () = timer.as_mut() => {
                    let now = Instant::now();
                    if let (Some(at), Some(interval)) = (log_at, log_interval)
                        && at <= now
                    {
                        self.report(info, &progress);
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
                    if self.config.idle_timeout.is_some_and(|idle| progress.moved.get() + idle <= now) {
                        self.stats.inc(stats::idle_timeout);
                        life.close(close_reason::TCP_SESSION_IDLE_TIMEOUT);
                        break;
                    }
                    if report <= now {
                        report = now + REPORT_INTERVAL;
                        self.report(info, &progress);
                        self.observer.on_interval(&mut info.borrow_mut());
                    }
                }
            }
        }
        self.report(info, &progress);
        ended
    }

    /// Brings the record's and the statistics' byte counts up to date.
    fn report(&self, info: &RefCell<StreamInfo>, progress: &Progress) {
        let mut info = info.borrow_mut();
        let (received, sent) = (progress.received.get(), progress.sent.get());
        self.stats.add(stats::downstream_cx_rx_bytes_total, received - info.bytes.received);
        self.stats.add(stats::downstream_cx_tx_bytes_total, sent - info.bytes.sent);
        info.bytes.received = received;
        info.bytes.sent = sent;
        info.bytes.upstream_sent = received;
        info.bytes.upstream_received = sent;
    }

    /// Connects to a host, trying as often as the configuration allows.
    async fn connect(
        &self,
        worker: &Rc<Worker>,
        accepted: &Accepted,
        judged: &Judged,
        info: &RefCell<StreamInfo>,
    ) -> Option<Upstream> {
        let life = &accepted.downstream.state.life;
        let active = worker.active();
        let chosen = self.config.cluster.choose(worker.random());
        let name = match (&accepted.downstream.server_name, chosen) {
            (Some(sni), _) if judged.sni_cluster => sni.clone(),
            (_, Some((name, _))) => name.clone(),
            _ => return None,
        };
        let Some(cluster) = active.cluster(&name) else {
            self.stats.inc(stats::downstream_cx_no_route);
            info.borrow_mut().flag(ResponseFlag::NoClusterFound);
            life.local_close_reason.set(Some(close_reason::TCP_NO_ROUTE));
            return None;
        };
        info.borrow_mut().cluster = Some(cluster.info().clone());
        let context = LbContext {
            hash: self.hash(accepted),
            original_destination: accepted.original_destination,
            criteria: Criteria {
                route: self.config.metadata_match.as_deref(),
                weighted: chosen.and_then(|(_, weighted)| weighted?.metadata_match.as_deref()),
            },
            authority: judged.authority.as_deref(),
            ..LbContext::default()
        };
        let mut backoff = self.config.backoff.map(|wait| Backoff::new(wait.base, wait.max));
        for attempt in 0..self.config.max_connect_attempts.max(1) {
            if let Some(backoff) = backoff.as_mut().filter(|_| attempt > 0) {
                let delay = backoff.next_delay(&mut *worker.rng.borrow_mut());
                tokio::time::sleep(delay).await;
            }
            info.borrow_mut().attempt_count += 1;
            let Some(choice) = cluster.choose(&context, worker) else {
                info.borrow_mut().flag(ResponseFlag::NoHealthyUpstream);
                life.local_close_reason.set(Some(close_reason::TCP_NO_HEALTHY_UPSTREAM));
                return None;
            };
            // A member of an aggregate answers for itself.
            let cluster = choice.member.as_ref().unwrap_or(&cluster).clone();
            let limits = cluster.limits(Priority::Default);
            let host = &choice.host.state.active_connections;
            let permit =
                (host.load(Relaxed) < limits.per_host).then(|| limits.acquire(Resource::Connections));
            let Some(permit) = permit.flatten() else {
                cluster.stats().inc(cluster_stats::upstream_cx_overflow);
                info.borrow_mut().flag(ResponseFlag::UpstreamOverflow);
                life.local_close_reason.set(Some(close_reason::TCP_RESOURCE_LIMIT));
                return None;
            };
            info.borrow_mut().upstream = Some(UpstreamInfo {
                host: upstream_address(&choice.host.address),
                workload: choice
                    .host
                    .metadata("istio", "workload")
                    .and_then(serde_json::Value::as_str)
                    .map(Into::into),
                ..UpstreamInfo::default()
            });
            let started = Instant::now();
            cluster.stats().inc(cluster_stats::upstream_cx_total);
            let connector = target::tcp_connector(&cluster, &choice.host, &accepted.downstream, worker);
            match self.open(&connector, &cluster, info).await {
                Ok(opened) => {
                    let stats = cluster.stats();
                    stats.record(cluster_stats::upstream_cx_connect_ms, started.elapsed().as_millis() as u64);
                    stats.move_by(cluster_stats::upstream_cx_active, 1);
                    note_upstream(&mut info.borrow_mut(), &opened);
                    cluster.note_connected(&choice.host);
                    host.fetch_add(1, Relaxed);
                    return Some(Upstream { opened, cluster, host: choice.host, _permit: permit });
                }
                Err(error) => {
                    cluster.stats().inc(cluster_stats::upstream_cx_connect_fail);
                    if error == PoolError::Timeout {
                        cluster.stats().inc(cluster_stats::upstream_cx_connect_timeout);
                    }
                    info.borrow_mut().upstream_mut().transport_failure = Some(error.to_string().into());
                    cluster.note_failure(&choice.host, &Failure::from(error));
                }
            }
        }
        cluster.stats().inc(cluster_stats::upstream_cx_connect_attempts_exceeded);
        life.local_close_reason.set(Some(close_reason::TCP_CONNECT_FAILED));
        let mut info = info.borrow_mut();
        info.flag(ResponseFlag::UpstreamConnectionFailure);
        info.flag(ResponseFlag::UpstreamRetryLimitExceeded);
        None
    }

    /// Connects, through a tunnel where there is to be one.
    async fn open(
        &self,
        connector: &Connector,
        cluster: &Cluster,
        info: &RefCell<StreamInfo>,
    ) -> Result<Opened, PoolError> {
        let Some(tunneling) = &self.config.tunneling else { return connector.open().await };
        let request = tunnel::request(tunneling, &info.borrow())?;
        let (protocol, limit) = (cluster.config.http.protocol, cluster.config.connect_timeout);
        // Rare, and large: not in every connection's future.
        let (opened, headers) = Box::pin(tunnel::open(connector, protocol, request, limit)).await?;
        if tunneling.propagate_response_headers {
            let mut info = info.borrow_mut();
            info.filter_state.push((tunnel::RESPONSE_HEADERS.into(), tunnel::as_json(&headers).into()));
        }
        Ok(opened)
    }

    fn hash(&self, accepted: &Accepted) -> Option<u64> {
        if self.config.hash_policy.is_empty() {
            return None;
        }
        let empty = http::HeaderMap::new();
        let state = accepted.downstream.state.filter_state.borrow();
        let head = sail_proxy_decide::head::RequestHead {
            method: "",
            scheme: "",
            authority: "",
            path: "",
            protocol: None,
            headers: &empty,
        };
        let context = sail_proxy_decide::route::hash::HashContext {
            source_ip: Some(accepted.downstream.remote_address.ip()),
            random: 0,
            filter_state: &state,
        };
        sail_proxy_decide::route::hash::hash(&self.config.hash_policy, &head, &context).hash
    }
}

fn note_upstream(info: &mut StreamInfo, opened: &Opened) {
    let facts = &opened.info;
    let peer = info.upstream.as_ref().and_then(|upstream| upstream.workload.as_deref());
    if info.upstream_peer.is_none() {
        info.upstream_peer = peer.and_then(PeerMetadata::from_endpoint).map(Arc::new);
    }
    let upstream = info.upstream_mut();
    upstream.local_address = facts.local;
    upstream.connection_id = Some(facts.id);
    upstream.life = Some(facts.life.clone());
    upstream.tls = facts.tls.as_ref().map(|peer| peer.info.clone());
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
