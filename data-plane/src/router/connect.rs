//! CONNECT that ends here: the payload goes to the cluster as plain TCP. Where that is let through, a POST does the
//! same: its body is the way up, its response's body the way down.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use base::task::Supervised;
use bytes::Bytes;
use http::{HeaderValue, Method, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use sail_proxy_decide::host::{Host, HostState};
use sail_proxy_decide::route::retry::{RetryPolicy, RetryState, Verdict};
use sail_proxy_decide::route::{ConnectConfig, ConnectHeader, Route, RouteAction};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};

use super::attempt::{self, Try};
use super::counters::Counters;
use super::failure::Failure;
use super::{Found, no_cluster, request, response_headers};
use crate::clock;
use crate::cluster::{Choice, Cluster, target};
use crate::http::bodies::BodyTimers;
use crate::http::body::{Body, BodyError};
use crate::http::exchange::Exchange;
use crate::http::handler::Reply;
use crate::http::head::{Head, Keep};
use crate::http::local_reply::LocalReply;
use crate::http::tunnel::{Downstream, Tunnel, Upstream};
use crate::net::{Stream, proxy_protocol};
use crate::pool;
use crate::pool::lease::Hold;
use crate::pool::limits::{Permit, Resource};
use crate::stats::Meter;
use crate::stats::sets::cluster as stats;
use crate::stream_info::details;

/// As much as is read from the upstream at a time for a response's body.
const CHUNK: usize = 16 * 1024;

/// What the route says of a request that ends here; `None`: it is forwarded.
pub(super) fn config<'a>(action: &'a RouteAction, head: &Head) -> Option<&'a ConnectConfig> {
    let upgrade = action.upgrades.iter().find(|upgrade| &*upgrade.upgrade_type == "connect")?;
    let connect = upgrade.connect.as_ref().filter(|_| upgrade.enabled)?;
    let posts = connect.allow_post && head.method == Method::POST && head.protocol.is_none();
    (head.is_connect() || posts).then_some(connect)
}

/// A request whose route ends it here.
pub(super) struct Terminated<'a> {
    pub(super) exchange: &'a Rc<Exchange>,
    pub(super) found: &'a Found,
    pub(super) route: &'a Route,
    pub(super) action: &'a RouteAction,
    pub(super) config: &'a ConnectConfig,
}

/// A connection's place in the cluster's counts, for as long as it lasts.
struct Place {
    stats: stats::Scope,
    state: Arc<HostState>,
    started: Instant,
    _hold: Hold,
    _permit: Permit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stats.inc(stats::upstream_cx_destroy);
        self.stats.move_by(stats::upstream_cx_active, -1);
        self.stats.record(stats::upstream_cx_length_ms, self.started.elapsed().as_millis() as u64);
        self.state.active_connections.fetch_sub(1, Relaxed);
    }
}

struct Opened {
    stream: Stream,
    place: Place,
    host: Arc<Host>,
    cluster: Rc<Cluster>,
}

impl Terminated<'_> {
    /// Connects, and answers 200 once that is done.
    pub(super) async fn serve(self, head: &mut Head, body: Body) -> Result<Reply, Box<LocalReply>> {
        let exchange = self.exchange;
        let cluster = self.found.cluster.as_ref().and_then(|name| exchange.active.cluster(name));
        let Some(cluster) = cluster else {
            return Err(Box::new(no_cluster(exchange, self.action.cluster_not_found_status)));
        };
        exchange.info.borrow_mut().cluster = Some(cluster.info().clone());
        let policy = self.action.retry.as_deref().or(self.found.virtual_host.retry.as_deref());
        let opened = match self.open(&cluster, policy, head).await {
            Ok(opened) => opened,
            Err(failure) => {
                request::note_failure(exchange, &failure);
                return Err(Box::new(request::failed_reply(exchange, self.found, &failure)));
            }
        };
        let mut reply = if head.is_connect() {
            let Some(downstream) = Downstream::of(exchange) else {
                return Err(Box::new(Failure::Downstream.reply(1)));
            };
            let meter = Meter::new(pool::traffic(opened.cluster.stats()), 0);
            let upstream = Upstream::Connected(opened.stream, meter, Box::new(opened.place));
            let tunnel = Some(Box::new(Tunnel { downstream, upstream }));
            Reply { tunnel, ..Reply::local(Response::new(Body::Empty)) }
        } else {
            Reply::local(Response::new(Body::boxed(Down::new(opened.stream, body, opened.place))))
        };
        reply.timers = BodyTimers::default();
        self.note(&opened.cluster, &opened.host, &mut reply);
        response_headers(exchange, self.found, self.route, &mut reply, head);
        Ok(reply)
    }

    fn note(&self, cluster: &Cluster, host: &Host, reply: &mut Reply) {
        let exchange = self.exchange;
        let start = exchange.info.borrow().start;
        // It tells the time from the request's end, which a tunnel does not have.
        if exchange.request_done.get()
            && reply.tunnel.is_none()
            && exchange.connection.manager.sends_envoy_headers()
        {
            let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
            reply.response.headers_mut().insert(request::SERVICE_TIME, HeaderValue::from(millis));
        }
        let mut info = exchange.info.borrow_mut();
        info.code_details = Some(details::VIA_UPSTREAM.into());
        info.timing.first_upstream_rx = Some(clock::now());
        drop(info);
        cluster.note_response(host, &reply.response, exchange);
    }

    /// Tries hosts as the retry policy lets it.
    async fn open(
        &self,
        cluster: &Rc<Cluster>,
        policy: Option<&RetryPolicy>,
        head: &Head,
    ) -> Result<Opened, Failure> {
        let mut state = RetryState::new(policy, &head.view());
        let tried = RefCell::default();
        loop {
            self.exchange.info.borrow_mut().attempt_count += 1;
            attempt::log_periodically(self.exchange);
            let failure = match self.once(cluster, policy, &tried, head).await {
                Ok(opened) => return Ok(opened),
                Err(failure) => failure,
            };
            let again = state
                .as_mut()
                .zip(failure.reset())
                .is_some_and(|(state, reset)| state.on_reset(reset, failure.started()) == Verdict::Retry);
            let Some(state) = state.as_ref().filter(|_| again) else { return Err(failure) };
            cluster.stats().inc(stats::upstream_rq_retry);
            self.exchange.between_tries.set(true);
            let back_off = policy.map(|policy| policy.back_off).unwrap_or_default();
            tokio::time::sleep(back_off.wait(state.retries(), self.exchange.connection.worker.random()))
                .await;
        }
    }

    async fn once(
        &self,
        cluster: &Rc<Cluster>,
        policy: Option<&RetryPolicy>,
        tried: &RefCell<Vec<Arc<Host>>>,
        head: &Head,
    ) -> Result<Opened, Failure> {
        let exchange = self.exchange;
        let attempt = Try {
            exchange,
            cluster,
            action: self.action,
            found: self.found,
            policy,
            hash: attempt::hash(exchange, self.action, head).hash,
            tried,
            keep: Keep::Headers,
            idle: None,
            counters: &Counters::default(),
        };
        let Choice { host, member, .. } = attempt.choose(head).ok_or(Failure::NoHealthyHost)?;
        attempt.note_host(&host);
        tried.borrow_mut().push(host.clone());
        let cluster = member.unwrap_or_else(|| cluster.clone());
        let place = self.place(&cluster, &host)?;
        let stream = self.connect(&cluster, &host).await.inspect_err(|failure| {
            cluster.stats().inc(stats::upstream_cx_connect_fail);
            if *failure == Failure::ConnectTimeout {
                cluster.stats().inc(stats::upstream_cx_connect_timeout);
            }
            cluster.note_failure(&host, failure);
        })?;
        cluster.note_connected(&host);
        Ok(Opened { stream, place, host, cluster })
    }

    /// A place under the limits of connections and of requests.
    fn place(&self, cluster: &Cluster, host: &Host) -> Result<Place, Failure> {
        let limits = cluster.limits(self.action.priority);
        let stats = cluster.stats();
        let free = host.state.active_connections.load(Relaxed) < limits.per_host;
        let Some(permit) = free.then(|| limits.acquire(Resource::Connections)).flatten() else {
            stats.inc(stats::upstream_cx_overflow);
            return Err(Failure::Overflow);
        };
        let Some(request) = limits.acquire(Resource::Requests) else {
            stats.inc(stats::upstream_rq_pending_overflow);
            return Err(Failure::Overflow);
        };
        stats.inc(stats::upstream_cx_total);
        stats.inc(stats::upstream_rq_total);
        stats.move_by(stats::upstream_cx_active, 1);
        host.state.active_connections.fetch_add(1, Relaxed);
        host.state.connections.fetch_add(1, Relaxed);
        Ok(Place {
            stats: stats.clone(),
            state: host.state.clone(),
            started: Instant::now(),
            _hold: Hold::new(stats, host, request),
            _permit: permit,
        })
    }

    async fn connect(&self, cluster: &Rc<Cluster>, host: &Arc<Host>) -> Result<Stream, Failure> {
        let connection = &self.exchange.connection;
        let started = Instant::now();
        let downstream = &connection.downstream;
        let tlvs = &downstream.state.tlvs;
        let connector = target::tcp_connector(cluster, host, downstream, tlvs, &connection.worker);
        let opened = connector.open().await?;
        let mut stream = opened.stream;
        cluster.stats().record(stats::upstream_cx_connect_ms, started.elapsed().as_millis() as u64);
        {
            let mut info = self.exchange.info.borrow_mut();
            info.timing.pool_ready.get_or_insert_with(clock::now);
            let upstream = info.upstream_mut();
            upstream.connection_id = Some(opened.info.id);
            upstream.local_address = opened.info.local;
            upstream.tls = opened.info.tls.as_ref().map(|peer| peer.info.clone());
            connection.manager.observer.on_upstream_stream(&mut info);
        }
        if let Some(version) = self.config.proxy_protocol {
            let version = match version {
                ConnectHeader::V1 => proxy_protocol::Version::V1,
                ConnectHeader::V2 => proxy_protocol::Version::V2,
            };
            let downstream = &connection.downstream;
            let addresses = Some((downstream.remote_address, downstream.local_address));
            let header = proxy_protocol::write(version, addresses, &[]);
            let broken = |error: std::io::Error| Failure::Connect(error.to_string().into());
            let sent = async { stream.write_all(&header).await.and(stream.flush().await) };
            let limit = cluster.config.connect_timeout.max(Duration::from_millis(1));
            tokio::time::timeout(limit, sent).await.map_err(|_| Failure::ConnectTimeout)?.map_err(broken)?;
        }
        Ok(stream)
    }
}

/// What the upstream sends, as a response's body; the request's body goes up beside it.
struct Down {
    read: ReadHalf<Stream>,
    buffer: Box<[u8]>,
    ended: bool,
    _up: Supervised<()>,
    _place: Place,
}

impl Down {
    fn new(stream: Stream, body: Body, place: Place) -> Self {
        let (read, write) = tokio::io::split(stream);
        let up = Supervised::spawn_local(pump(body, write));
        Self { read, buffer: vec![0; CHUNK].into(), ended: false, _up: up, _place: place }
    }
}

/// Sends a request's body up; its end is the end of that direction.
async fn pump(mut body: Body, mut write: WriteHalf<Stream>) {
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return };
        let Ok(data) = frame.into_data() else { continue };
        if write.write_all(&data).await.is_err() || write.flush().await.is_err() {
            return;
        }
    }
    // The upstream may have closed already; the way down tells.
    let _ = write.shutdown().await;
}

impl http_body::Body for Down {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut buffer = ReadBuf::new(&mut this.buffer);
        if ready!(Pin::new(&mut this.read).poll_read(context, &mut buffer)).is_err() {
            return Poll::Ready(Some(Err(BodyError::Reset("the upstream's connection broke"))));
        }
        let data = Bytes::copy_from_slice(buffer.filled());
        this.ended = data.is_empty();
        Poll::Ready((!this.ended).then(|| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}
