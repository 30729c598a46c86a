//! How the TCP proxy gets to an upstream: cluster, host, connection or tunnel, and tries again.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use base::backoff::Backoff;
use sail_proxy_config::cluster::UpstreamProtocol;
use sail_proxy_config::network_filter::{TlvMerge, Tunneling};
use sail_proxy_decide::host::Host;
use sail_proxy_decide::lb::Criteria;
use sail_proxy_decide::route::Priority;

use super::super::filters::Judged;
use super::super::tunnel;
use super::TcpProxy;
use crate::cluster::{Choice, Cluster, LbContext, target, upstream_address};
use crate::listener::connection::Accepted;
use crate::net::proxy_protocol::Tlv;
use crate::pool::connect::Opened;
use crate::pool::lease::{Hold, Lease};
use crate::pool::limits::{Permit, Resource};
use crate::pool::{self, PoolError};
use crate::router::failure::Failure;
use crate::stats::sets::{cluster as cluster_stats, tcp as stats};
use crate::stream_info::details::close_reason;
use crate::stream_info::{PeerMetadata, ResponseFlag, StreamInfo, UpstreamInfo};
use crate::worker::state::Worker;

/// Keys of filter state: the cluster, and whether a tunnel is left out.
const CLUSTER: &str = "envoy.tcp_proxy.cluster";
const DISABLE_TUNNELING: &str = "envoy.tcp_proxy.disable_tunneling";

/// A connection to an upstream, and its place in the cluster's counts.
pub(super) struct Upstream {
    pub(super) opened: Opened,
    pub(super) cluster: Rc<Cluster>,
    pub(super) _place: Place,
}

/// What an upstream connection holds for as long as it lasts.
pub(super) enum Place {
    /// A connection of its own.
    Own { cluster: Rc<Cluster>, host: Arc<Host>, _permit: Permit },
    /// A stream of one that others share, or one that came out of a pool.
    Shared { _lease: Lease },
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Own { cluster, host, .. } = self {
            cluster.stats().inc(cluster_stats::upstream_cx_destroy);
            cluster.stats().move_by(cluster_stats::upstream_cx_active, -1);
            host.state.active_connections.fetch_sub(1, Relaxed);
        }
    }
}

/// One try to reach a host.
struct Try<'a> {
    worker: &'a Rc<Worker>,
    accepted: &'a Accepted,
    info: &'a RefCell<StreamInfo>,
    cluster: &'a Rc<Cluster>,
    choice: &'a Choice,
    tlvs: &'a [Tlv],
    tunneling: Option<&'a Tunneling>,
}

impl TcpProxy {
    /// Connects to a host, trying as often as the configuration allows.
    pub(super) async fn connect(
        &self,
        worker: &Rc<Worker>,
        accepted: &Accepted,
        judged: &Judged,
        info: &RefCell<StreamInfo>,
    ) -> Option<Upstream> {
        let life = &accepted.downstream.state.life;
        let active = worker.active();
        let chosen = self.config.cluster.choose(worker.random());
        let named = info.borrow().filter_state(CLUSTER).map(Arc::from);
        let name = match (&accepted.downstream.server_name, chosen) {
            (Some(sni), _) if judged.sni_cluster => sni.clone(),
            (_, Some((name, _))) => named.unwrap_or_else(|| name.clone()),
            _ => return None,
        };
        let Some(cluster) = active.cluster(&name) else {
            self.stats.inc(stats::downstream_cx_no_route);
            info.borrow_mut().flag(ResponseFlag::NoClusterFound);
            life.local_close_reason.set(Some(close_reason::TCP_NO_ROUTE));
            return None;
        };
        let tlvs = self.tlvs(accepted);
        let tunneling = self.config.tunneling.as_deref();
        let tunneling = tunneling.filter(|_| info.borrow().filter_state(DISABLE_TUNNELING) != Some("true"));
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
            let Some(choice) = cluster.choose(&context, worker) else {
                info.borrow_mut().flag(ResponseFlag::NoHealthyUpstream);
                life.local_close_reason.set(Some(close_reason::TCP_NO_HEALTHY_UPSTREAM));
                return None;
            };
            {
                let mut info = info.borrow_mut();
                info.cluster.get_or_insert_with(|| cluster.info().clone());
                info.attempt_count += 1;
            }
            // A member of an aggregate answers for itself.
            let cluster = choice.member.as_ref().unwrap_or(&cluster).clone();
            let host = &choice.host;
            note_host(&mut info.borrow_mut(), host);
            let (cluster, choice) = (&cluster, &choice);
            let attempt = Try { worker, accepted, info, cluster, choice, tlvs: &tlvs, tunneling };
            match attempt.connect().await {
                Ok((opened, place)) => {
                    note_upstream(&mut info.borrow_mut(), &opened);
                    cluster.note_connected(host);
                    return Some(Upstream { opened, cluster: cluster.clone(), _place: place });
                }
                Err(PoolError::Overflow) => {
                    info.borrow_mut().flag(ResponseFlag::UpstreamOverflow);
                    life.local_close_reason.set(Some(close_reason::TCP_RESOURCE_LIMIT));
                    return None;
                }
                Err(error) => {
                    info.borrow_mut().upstream_mut().transport_failure = Some(error.to_string().into());
                    cluster.note_failure(host, &Failure::from(error));
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

    /// The TLVs that may go upstream: the client's side's, and our own.
    fn tlvs<'a>(&self, accepted: &'a Accepted) -> Cow<'a, [Tlv]> {
        let downstream = &accepted.downstream;
        let theirs = &downstream.state.tlvs;
        let Some(config) = &self.config.tlvs else { return Cow::Borrowed(theirs) };
        if config.merge == TlvMerge::AddIfAbsent && downstream.state.proxied {
            return Cow::Borrowed(theirs);
        }
        let mut ours = target::added_tlvs(&config.entries, || StreamInfo::new(downstream.clone()));
        match config.merge {
            TlvMerge::AddIfAbsent => Cow::Owned(ours),
            TlvMerge::OverwriteByType => {
                let kept =
                    theirs.iter().filter(|(kind, _)| config.entries.iter().all(|tlv| tlv.kind != *kind));
                ours.extend(kept.cloned());
                Cow::Owned(ours)
            }
            TlvMerge::Append => Cow::Owned([&theirs[..], &ours].concat()),
        }
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

impl Try<'_> {
    async fn connect(&self) -> Result<(Opened, Place), PoolError> {
        let shares =
            matches!(self.cluster.config.http.protocol, UpstreamProtocol::Http2 | UpstreamProtocol::Auto);
        if let Some(tunneling) = self.tunneling.filter(|_| shares) {
            // Rare, and large: not in every connection's future.
            if let Some(found) = Box::pin(self.share(tunneling)).await? {
                return Ok(found);
            }
        }
        if self.tunneling.is_none() && self.cluster.config.preconnect.is_some() {
            return Box::pin(self.pooled()).await;
        }
        self.own().await
    }

    /// A connection that may have been made before it was needed.
    async fn pooled(&self) -> Result<(Opened, Place), PoolError> {
        let Self { cluster, choice, .. } = *self;
        let pool = cluster.tcp_pool(choice, &self.accepted.downstream, self.tlvs, self.worker);
        let pool = pool.ok_or(PoolError::Overflow)?;
        loop {
            let mut lease = pool.acquire().await?;
            if let Some(stream) = lease.take_raw() {
                cluster.stats().inc(cluster_stats::upstream_rq_total);
                let info = lease.connection().clone();
                return Ok((Opened { stream, info }, Place::Shared { _lease: lease }));
            }
        }
    }

    /// A tunnel through an HTTP/2 connection that others share; `None`: the host does not speak HTTP/2.
    async fn share(&self, tunneling: &Tunneling) -> Result<Option<(Opened, Place)>, PoolError> {
        let Self { cluster, choice, .. } = *self;
        let host = &choice.host;
        let request = self.request(tunneling)?;
        let pool = cluster.tunnel_pool(choice, &self.accepted.downstream, self.tlvs, self.worker);
        let pool = pool.ok_or(PoolError::Overflow)?;
        let hold = || {
            let permit = cluster.limits(Priority::Default).acquire(Resource::Requests);
            let Some(permit) = permit else {
                cluster.stats().inc(cluster_stats::upstream_rq_pending_overflow);
                return None;
            };
            cluster.stats().inc(cluster_stats::upstream_rq_total);
            Some(Hold::new(cluster.stats(), host, permit))
        };
        let limit = cluster.config.connect_timeout;
        let Some((stream, headers, lease)) = tunnel::share(&pool, &request, limit, hold).await? else {
            return Ok(None);
        };
        self.note_headers(tunneling, &headers);
        let info = lease.connection().clone();
        Ok(Some((Opened { stream, info }, Place::Shared { _lease: lease })))
    }

    /// A connection of its own.
    async fn own(&self) -> Result<(Opened, Place), PoolError> {
        let Self { cluster, choice, .. } = *self;
        let host = &choice.host;
        let limits = cluster.limits(Priority::Default);
        let active = &host.state.active_connections;
        let permit = (active.load(Relaxed) < limits.per_host).then(|| limits.acquire(Resource::Connections));
        let stats = cluster.stats();
        let Some(permit) = permit.flatten() else {
            stats.inc(cluster_stats::upstream_cx_overflow);
            return Err(PoolError::Overflow);
        };
        let started = Instant::now();
        stats.inc(cluster_stats::upstream_cx_total);
        host.state.connections.fetch_add(1, Relaxed);
        // As Envoy counts: a connection waits for one, and is a request on it.
        stats.inc(cluster_stats::upstream_rq_pending_total);
        let opened = self.open().await.inspect_err(|error| {
            stats.inc(cluster_stats::upstream_cx_connect_fail);
            stats.inc(cluster_stats::upstream_cx_destroy);
            stats.inc(match error {
                PoolError::Timeout => cluster_stats::upstream_cx_destroy_local,
                _ => cluster_stats::upstream_cx_destroy_remote,
            });
            if *error == PoolError::Timeout {
                stats.inc(cluster_stats::upstream_cx_connect_timeout);
            }
        })?;
        stats.record(cluster_stats::upstream_cx_connect_ms, started.elapsed().as_millis() as u64);
        stats.inc(cluster_stats::upstream_rq_total);
        opened.info.ending.count_in(stats);
        opened.info.ending.set_busy(true);
        stats.move_by(cluster_stats::upstream_cx_active, 1);
        active.fetch_add(1, Relaxed);
        Ok((opened, Place::Own { cluster: cluster.clone(), host: host.clone(), _permit: permit }))
    }

    /// Connects, through a tunnel where there is to be one.
    async fn open(&self) -> Result<Opened, PoolError> {
        let downstream = &self.accepted.downstream;
        let host = &self.choice.host;
        let connector = target::tcp_connector(self.cluster, host, downstream, self.tlvs, self.worker);
        let Some(tunneling) = self.tunneling else { return connector.open().await };
        let request = self.request(tunneling)?;
        let limit = self.cluster.config.connect_timeout;
        let (opened, headers) = {
            let traffic = pool::traffic(self.cluster.stats());
            Box::pin(tunnel::open(&connector, request, limit, traffic)).await?
        };
        self.note_headers(tunneling, &headers);
        Ok(opened)
    }

    fn request(&self, tunneling: &Tunneling) -> Result<tunnel::Head, PoolError> {
        tunnel::request(tunneling, &mut self.info.borrow_mut(), &mut *self.worker.rng.borrow_mut())
    }

    fn note_headers(&self, tunneling: &Tunneling, headers: &http::HeaderMap) {
        if tunneling.propagate_response_headers {
            let mut info = self.info.borrow_mut();
            info.filter_state.push((tunnel::RESPONSE_HEADERS.into(), tunnel::as_json(headers).into()));
        }
    }
}

fn note_host(info: &mut StreamInfo, host: &Host) {
    let workload = host.metadata("istio", "workload").and_then(serde_json::Value::as_str);
    info.upstream = Some(UpstreamInfo {
        host: upstream_address(&host.address),
        workload: workload.map(Into::into),
        ..UpstreamInfo::default()
    });
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
