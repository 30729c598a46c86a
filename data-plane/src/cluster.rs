//! Clusters as a worker has them: hosts to choose from, connection pools, limits, statistics. A worker builds a cluster
//! when the first request asks for it.

mod choose;
pub(crate) mod orca;
mod origins;
mod preconnect;
pub(crate) mod shared;
pub(crate) mod stats;
pub(crate) mod target;
mod tracked;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use http::Response;
use sail_proxy_config::cluster::{Cluster as Config, Discovery, UpstreamProtocol};
use sail_proxy_config::tls::UpstreamSocket;
use sail_proxy_decide::address::Address;
use sail_proxy_decide::fraction::Fraction;
use sail_proxy_decide::host::{Endpoints, HealthFlag, Host};
use sail_proxy_decide::lb::{Aggregate, Balancer};
use sail_proxy_decide::outlier::{self, Outcome};
use sail_proxy_decide::route::Priority;
use smallvec::SmallVec;

pub(crate) use choose::{Avoid, Choice, LbContext, default_port};

use crate::filters::{Build, Chain};
use crate::http::exchange::Exchange;
use crate::net::proxy_protocol::Tlv;
use crate::pool::connect::Protocol;
use crate::pool::limits::{Level, Limits, Resource};
use crate::pool::{Pool, Tally};
use crate::router::failure::Failure;
use crate::stats::sets::{cluster as set, cluster_eds, cluster_outlier, cluster_update};
use crate::stream_info::{ClusterInfo, DownstreamInfo, UpstreamAddress};
use crate::tls::counts::OfCluster;
use crate::worker::Shared;
use crate::worker::state::Worker;
use origins::{Origin, Origins};
use shared::Destination;
use target::PoolKey;
pub(crate) use tracked::Tracked;

/// The pools of one host.
type Pools = SmallVec<[(PoolKey, Rc<Pool>); 1]>;

/// A cluster of one worker.
pub(crate) struct Cluster {
    pub(crate) config: Arc<Config>,
    info: Arc<ClusterInfo>,
    stats: set::Scope,
    /// The main thread's to write; they are there for as long as the cluster is.
    _updates: Updates,
    outliers: Option<cluster_outlier::Scope>,
    limits: [Rc<Limits>; 2],
    endpoints: RefCell<Option<Arc<Endpoints>>>,
    balancer: RefCell<Balancer>,
    aggregate: RefCell<Aggregate>,
    /// Balancers of sub clusters, by authority.
    sub_clusters: RefCell<HashMap<Box<str>, Balancer>>,
    pools: RefCell<HashMap<Address, Pools>>,
    /// Hosts that original destinations made.
    found: RefCell<HashMap<SocketAddr, Arc<Destination>>>,
    /// Nothing new comes: connections serve what they have, and no more.
    retired: Cell<bool>,
    origins: Origins,
    tls: OnceCell<Rc<OfCluster>>,
    tracked: Option<Box<Tracked>>,
    /// What each try passes on its way to a connection.
    filters: Option<Chain>,
    /// What its pools have to do, where connections are made before requests need them.
    tally: Option<Rc<Tally>>,
}

/// How its hosts change.
enum Updates {
    Discovered { _stats: cluster_eds::Scope },
    Others { _stats: cluster_update::Scope },
}

impl Updates {
    fn of(config: &Config, shared: &Shared) -> Self {
        match &config.discovery {
            Discovery::Eds { .. } => Self::Discovered { _stats: shared.store.scope(&config.stat_name) },
            _ => Self::Others { _stats: shared.store.scope(&config.stat_name) },
        }
    }
}

impl Cluster {
    pub(crate) fn new(config: &Arc<Config>, endpoints: Option<Arc<Endpoints>>, shared: &Shared) -> Rc<Self> {
        let counts = shared.clusters.counts(&config.name);
        let breakers = &config.circuit_breakers;
        Rc::new(Self {
            info: info(config),
            stats: shared.store.scope(&config.stat_name),
            _updates: Updates::of(config, shared),
            outliers: config.outlier_detection.as_ref().map(|_| shared.store.scope(&config.stat_name)),
            limits: [(Level::Default, &breakers.default), (Level::High, &breakers.high)]
                .map(|(level, thresholds)| Rc::new(Limits::new(&counts, level, thresholds))),
            endpoints: RefCell::new(endpoints),
            balancer: RefCell::new(Balancer::new(config.lb.clone(), config.common_lb.clone())),
            aggregate: RefCell::default(),
            sub_clusters: RefCell::default(),
            pools: RefCell::default(),
            found: RefCell::default(),
            retired: Cell::new(false),
            origins: Origins::new(&shared.store),
            tls: OnceCell::new(),
            tracked: Tracked::of(config, shared),
            tally: config.preconnect.is_some().then(Rc::default),
            filters: Chain::of_upstreams(
                &config.upstream_filters,
                &Build { store: &shared.store, prefix: &config.stat_name },
            ),
            config: config.clone(),
        })
    }

    /// Whether it was built from this configuration, so that it goes on.
    pub(crate) fn is_same(&self, config: &Arc<Config>) -> bool {
        Arc::ptr_eq(&self.config, config) || self.config.version == config.version
    }

    /// Goes on where the cluster counted of which it takes the place: statistics last as long as somebody holds them.
    pub(crate) fn count_on(&self, old: &Self) {
        if self.config.stat_name != old.config.stat_name {
            return;
        }
        self.origins.hold(&old.origins);
        if let Some(tls) = old.tls.get() {
            self.tls_counts().hold(tls);
        }
    }

    /// Takes other hosts over; pools of hosts that went finish what they have.
    pub(crate) fn set_endpoints(&self, endpoints: Option<Arc<Endpoints>>) {
        let same = match (&*self.endpoints.borrow(), &endpoints) {
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            (None, None) => true,
            _ => false,
        };
        if same {
            return;
        }
        if let Some(endpoints) = &endpoints {
            let kept: hashbrown::HashSet<&Address> = endpoints.hosts().map(|host| &host.address).collect();
            let before = self.endpoints.borrow();
            let drain_all = self.config.common_lb.close_connections_on_host_set_change
                && before.as_ref().is_some_and(|before| {
                    before.hosts().count() != kept.len()
                        || before.hosts().any(|host| !kept.contains(&host.address))
                });
            self.pools.borrow_mut().retain(|address, pools| {
                let stays = kept.contains(address) && !drain_all;
                if !stays {
                    pools.iter().for_each(|(_, pool)| pool.close());
                }
                stays
            });
        }
        self.endpoints.replace(endpoints);
    }

    /// How many of its hosts are so, and how many there are.
    pub(crate) fn count_hosts(&self, is_so: impl Fn(&Host) -> bool) -> (u32, u32) {
        let endpoints = self.endpoints.borrow();
        let hosts = endpoints.iter().flat_map(|endpoints| endpoints.hosts());
        hosts.fold((0, 0), |(so, all), host| (so + u32::from(is_so(host)), all + 1))
    }

    /// Nothing new comes: idle connections are closed, the others after their response.
    pub(crate) fn retire(&self) {
        self.retired.set(true);
        for (_, pools) in self.pools.take() {
            pools.iter().for_each(|(_, pool)| pool.close());
        }
    }

    /// A host failed its health checks: its connections end now, if the cluster is configured so.
    pub(crate) fn host_failed(&self, address: &Address) {
        if let Some(pools) = self.pools.borrow_mut().remove(address) {
            pools.iter().for_each(|(_, pool)| pool.abort());
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self, now: Instant, shared: &Shared) {
        let mut all = self.pools.borrow_mut();
        let forget =
            matches!(self.config.discovery, Discovery::OriginalDst(_) | Discovery::DynamicForwardProxy(_))
                || self.config.connection_pool_per_downstream_connection;
        all.retain(|_, pools| {
            pools.iter().for_each(|(_, pool)| pool.sweep(now));
            if forget {
                pools.retain(|(_, pool)| !pool.is_unused());
            }
            !(forget && pools.is_empty())
        });
        if let Discovery::OriginalDst(config) = &self.config.discovery {
            let limit = config.cleanup_interval.max(Duration::from_secs(1)).as_millis() as u64;
            let mut found = self.found.borrow_mut();
            found.retain(|address, found| {
                if all.contains_key(&Address::Ip(*address)) {
                    found.touch();
                }
                found.is_fresh(limit)
            });
            drop(found);
            shared.clusters.forget_unused(&self.config.name, limit);
        }
    }

    pub(crate) fn info(&self) -> &Arc<ClusterInfo> {
        &self.info
    }

    pub(crate) fn stats(&self) -> &set::Scope {
        &self.stats
    }

    /// What each try passes on its way to a connection, if there is anything.
    pub(crate) fn filters(&self) -> Option<&Chain> {
        self.filters.as_ref()
    }

    /// What is recorded of its requests besides counts.
    pub(crate) fn tracked(&self) -> Option<&Tracked> {
        self.tracked.as_deref()
    }

    /// What handshakes count in.
    fn tls_counts(&self) -> &Rc<OfCluster> {
        self.tls.get_or_init(|| Rc::new(OfCluster::new(&self.stats)))
    }

    pub(crate) fn limits(&self, priority: Priority) -> &Rc<Limits> {
        &self.limits[usize::from(priority == Priority::High)]
    }

    /// The pool that serves a request at a host; `None` where there are as many pools as the cluster may have.
    pub(crate) fn pool(&self, choice: &Choice, exchange: &Exchange, priority: Priority) -> Option<Rc<Pool>> {
        let worker = &exchange.connection.worker;
        self.pool_by(choice, priority, worker, |host| PoolKey::new(self, host, exchange, priority))
    }

    /// The pool of this key at a host, and connections to the hosts of requests that are foreseen.
    fn pool_by(
        &self,
        choice: &Choice,
        priority: Priority,
        worker: &Rc<Worker>,
        key: impl Fn(&Host) -> PoolKey,
    ) -> Option<Rc<Pool>> {
        let pool = self.pool_of(key(&choice.host), &choice.host, priority, worker)?;
        if let Some(tally) = &self.tally {
            self.connect_ahead(tally, choice, priority, worker, key);
        }
        Some(pool)
    }

    fn pool_of(
        &self,
        key: PoolKey,
        host: &Arc<Host>,
        priority: Priority,
        worker: &Rc<Worker>,
    ) -> Option<Rc<Pool>> {
        let mut all = self.pools.borrow_mut();
        if let Some(pools) = all.get(&host.address)
            && let Some((_, pool)) = pools.iter().find(|(other, _)| *other == key)
        {
            return Some(pool.clone());
        }
        let limits = self.limits(priority);
        let permit = limits.acquire(Resource::Pools).or_else(|| {
            // A pool that nobody uses makes room.
            all.retain(|_, pools| {
                pools.retain(|(_, pool)| !pool.close_if_unused());
                !pools.is_empty()
            });
            limits.acquire(Resource::Pools)
        });
        let Some(permit) = permit else {
            self.stats.inc(set::upstream_cx_pool_overflow);
            return None;
        };
        let connector = target::connector(self, host, &key, worker);
        let options = target::pool_options(&self.config, key.protocol, host, self.tally.as_ref());
        let pool = Pool::new(connector, options, limits.clone(), self.stats.clone(), permit);
        if self.retired.get() {
            pool.close();
        } else {
            all.entry(host.address.clone()).or_default().push((key, pool.clone()));
        }
        Some(pool)
    }

    /// The pool whose HTTP/2 connections carry tunnels of TCP connections to a host.
    pub(crate) fn tunnel_pool(
        &self,
        choice: &Choice,
        downstream: &DownstreamInfo,
        tlvs: &[Tlv],
        worker: &Rc<Worker>,
    ) -> Option<Rc<Pool>> {
        let protocol = match self.config.http.protocol {
            UpstreamProtocol::Auto => Protocol::Negotiated,
            _ => Protocol::Http2,
        };
        self.pool_by(choice, Priority::Default, worker, |host| {
            PoolKey::tunnel(self, host, downstream, tlvs, protocol)
        })
    }

    /// The pool of TCP connections to a host, where they are made before clients need them.
    pub(crate) fn tcp_pool(
        &self,
        choice: &Choice,
        downstream: &DownstreamInfo,
        tlvs: &[Tlv],
        worker: &Rc<Worker>,
    ) -> Option<Rc<Pool>> {
        self.pool_by(choice, Priority::Default, worker, |host| {
            PoolKey::tunnel(self, host, downstream, tlvs, Protocol::Tcp)
        })
    }

    /// The pool that serves the proxy's own calls at a host.
    pub(crate) fn own_pool(&self, choice: &Choice, worker: &Rc<Worker>) -> Option<Rc<Pool>> {
        self.pool_by(choice, Priority::Default, worker, |host| PoolKey::own(self, host))
    }

    /// Counts a response.
    pub(crate) fn note_response<B>(&self, host: &Host, response: &Response<B>, exchange: &Exchange) {
        let status = response.status().as_u16();
        self.count(status);
        self.origins.count(&self.config.stat_name, Origin::of(exchange), status);
        count_of_host(host, status);
        if self.outliers.is_some() {
            self.note_outcome(host, Outcome::Status(grpc_as_http(response).unwrap_or(status)));
        }
        // A host may take itself out without waiting for its next check.
        if !self.config.health_checks.is_empty()
            && response.headers().contains_key("x-envoy-immediate-health-check-fail")
        {
            host.state.set(HealthFlag::FailedActiveHealthCheck);
        }
    }

    /// Counts a response to one of the proxy's own calls.
    pub(crate) fn count_response(&self, host: &Host, status: u16) {
        self.count(status);
        self.origins.count(&self.config.stat_name, Origin::Internal, status);
        count_of_host(host, status);
        self.note_outcome(host, Outcome::Status(status));
    }

    /// The share of requests that its load assignment has dropped.
    pub(crate) fn drop_overload(&self) -> Option<Fraction> {
        self.endpoints.borrow().as_ref()?.policy.drop_overload
    }

    /// Counts an answer of our own in the place of a response.
    pub(crate) fn count_answer(&self, status: u16, exchange: &Exchange) {
        self.count(status);
        self.origins.count(&self.config.stat_name, Origin::of(exchange), status);
    }

    /// Counts what stands for a response to one of the proxy's own requests.
    pub(crate) fn count_own(&self, status: u16) {
        self.count(status);
        self.origins.count(&self.config.stat_name, Origin::Internal, status);
    }

    /// Counts a response that is given up for another try.
    pub(crate) fn count_retried(&self, status: u16) {
        self.origins.count(&self.config.stat_name, Origin::Retry, status);
    }

    fn count(&self, status: u16) {
        self.stats.inc(set::upstream_rq_completed);
        self.stats.inc(match status / 100 {
            1 => set::upstream_rq_1xx,
            2 => set::upstream_rq_2xx,
            3 => set::upstream_rq_3xx,
            4 => set::upstream_rq_4xx,
            _ => set::upstream_rq_5xx,
        });
        self.stats.code(status);
    }

    /// Counts a try that brought no response.
    pub(crate) fn note_failure(&self, host: &Host, failure: &Failure) {
        if failure.is_upstreams() {
            let timeout = failure.is_timeout() || matches!(failure, Failure::ConnectTimeout);
            let state = &host.state;
            state.failed.fetch_add(1, Relaxed);
            if matches!(failure, Failure::Connect(_) | Failure::ConnectTimeout) {
                state.connect_failures.fetch_add(1, Relaxed);
            } else if timeout {
                state.timed_out.fetch_add(1, Relaxed);
            }
            self.note_outcome(host, if timeout { Outcome::LocalTimeout } else { Outcome::LocalFailure });
        }
    }

    /// Counts a TCP connection that came about.
    pub(crate) fn note_connected(&self, host: &Host) {
        self.note_outcome(host, Outcome::Connected);
    }

    /// Counts an outcome for outlier detection, which may eject the host.
    fn note_outcome(&self, host: &Host, outcome: Outcome) {
        let (Some(detection), Some(stats)) = (&self.config.outlier_detection, &self.outliers) else { return };
        let Some(cause) = outlier::note(detection, host, outcome) else { return };
        let chance = crate::outlier::chance();
        let found = if let Some(endpoints) = &*self.endpoints.borrow() {
            outlier::eject(detection, endpoints.hosts(), host, cause, chance)
        } else {
            let found = self.found.borrow();
            outlier::eject(detection, found.values().map(|found| &found.host), host, cause, chance)
        };
        if let Some(found) = found {
            crate::outlier::count(stats, found);
        }
    }

    /// Whether a host may be spoken to by TLS.
    pub(crate) fn may_use_tls(&self) -> bool {
        let is_tls = |socket: &UpstreamSocket| socket.tls().is_some();
        is_tls(&self.config.socket) || self.config.socket_matches.iter().any(|entry| is_tls(&entry.socket))
    }
}

fn count_of_host(host: &Host, status: u16) {
    let counter = if status < 500 { &host.state.succeeded } else { &host.state.failed };
    counter.fetch_add(1, Relaxed);
}

/// What a gRPC status in a response's head counts as.
fn grpc_as_http<B>(response: &Response<B>) -> Option<u16> {
    response.headers().get("grpc-status")?.to_str().ok()?.parse().ok().map(http_of_grpc)
}

/// The HTTP status that says what a gRPC status says.
pub(crate) fn http_of_grpc(status: u32) -> u16 {
    match status {
        0 => 200,
        1 => 499,
        3 | 9 | 11 => 400,
        4 => 504,
        5 => 404,
        6 | 10 => 409,
        7 => 403,
        8 => 429,
        12 => 501,
        14 => 503,
        16 => 401,
        _ => 500,
    }
}

fn info(config: &Config) -> Arc<ClusterInfo> {
    let istio = config.metadata.as_ref().and_then(|all| all.get("istio"));
    let service = istio.and_then(|istio| istio.get("services")?.get(0));
    let text = |key: &str| service.and_then(|service| service.get(key)?.as_str()).map(Arc::from);
    Arc::new(ClusterInfo {
        name: config.name.clone(),
        observability_name: config.stat_name.clone(),
        service_host: text("host"),
        service_name: text("name"),
        service_namespace: text("namespace"),
        external: istio.and_then(|istio| istio.get("external")?.as_bool()).unwrap_or_default(),
    })
}

/// An address as logs show it.
pub(crate) fn upstream_address(address: &Address) -> Option<UpstreamAddress> {
    match address {
        Address::Ip(address) => Some(UpstreamAddress::Socket(*address)),
        Address::Pipe(path) => Some(UpstreamAddress::Pipe(path.to_string_lossy().into())),
        Address::Internal { .. } => None,
    }
}
