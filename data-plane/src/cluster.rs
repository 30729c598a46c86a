//! Clusters as a worker has them: hosts to choose from, connection pools, limits, statistics.

pub(crate) mod shared;
pub(crate) mod target;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use http::Response;
use hyper::body::Incoming;
use sail_proxy_config::cluster::{Cluster as Config, Discovery, OriginalDst};
use sail_proxy_config::tls::UpstreamSocket;
use sail_proxy_decide::address::Address;
use sail_proxy_decide::host::{Endpoints, HealthStatus, Host, HostState};
use sail_proxy_decide::lb::{Balancer, Context};
use sail_proxy_decide::outlier::{self, Outcome};
use sail_proxy_decide::route::{Metadata, Priority};
use smallvec::SmallVec;

use crate::http::exchange::Exchange;
use crate::pool::Pool;
use crate::pool::limits::Limits;
use crate::router::failure::Failure;
use crate::stats::sets::{cluster as stats, cluster_outlier};
use crate::stream_info::{ClusterInfo, UpstreamAddress};
use crate::worker::Shared;
use crate::worker::state::Worker;
use target::PoolKey;

/// Which hosts are avoided, and how often another is looked for on that account.
#[derive(Clone, Copy)]
pub(crate) struct Avoid<'a> {
    pub(crate) hosts: &'a dyn Fn(&Host) -> bool,
    pub(crate) attempts: u32,
}

/// What the choice of a host depends on.
#[derive(Clone, Copy, Default)]
pub(crate) struct LbContext<'a> {
    pub(crate) hash: Option<u64>,
    pub(crate) original_destination: Option<SocketAddr>,
    /// Hosts that a retry avoids, and how often another is looked for.
    pub(crate) avoid: Option<Avoid<'a>>,
}

/// The host that was chosen.
#[derive(Clone)]
pub(crate) struct Choice {
    pub(crate) host: Arc<Host>,
}

/// The pools of one host.
type Pools = SmallVec<[(PoolKey, Rc<Pool>); 1]>;

/// A host that a destination made, and when it was last used.
type FoundHost = (Arc<Host>, Cell<Instant>);

/// A cluster of one worker.
pub(crate) struct Cluster {
    pub(crate) config: Arc<Config>,
    info: Arc<ClusterInfo>,
    stats: stats::Scope,
    outliers: Option<cluster_outlier::Scope>,
    limits: [Rc<Limits>; 2],
    endpoints: RefCell<Option<Arc<Endpoints>>>,
    balancer: RefCell<Balancer>,
    pools: RefCell<HashMap<Address, Pools>>,
    /// Hosts that original destinations made.
    found: RefCell<HashMap<SocketAddr, FoundHost>>,
}

impl Cluster {
    pub(crate) fn new(config: &Arc<Config>, endpoints: Option<Arc<Endpoints>>, shared: &Shared) -> Rc<Self> {
        let counts = shared.clusters.counts(&config.name);
        Rc::new(Self {
            info: info(config),
            stats: shared.store.scope(&config.stat_name),
            outliers: config.outlier_detection.as_ref().map(|_| shared.store.scope(&config.stat_name)),
            limits: [Priority::Default, Priority::High].map(|priority| {
                let index = usize::from(priority == Priority::High);
                Rc::new(Limits::new(&counts[index], config.limits(priority)))
            }),
            endpoints: RefCell::new(endpoints),
            balancer: RefCell::new(Balancer::new(config.lb.clone(), config.common_lb.clone())),
            pools: RefCell::default(),
            found: RefCell::default(),
            config: config.clone(),
        })
    }

    /// Whether it was built from this configuration, so that it goes on.
    pub(crate) fn is_same(&self, config: &Arc<Config>) -> bool {
        Arc::ptr_eq(&self.config, config) || self.config.version == config.version
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
            self.pools.borrow_mut().retain(|address, pools| {
                let stays = kept.contains(address);
                if !stays {
                    pools.iter().for_each(|(_, pool)| pool.close());
                }
                stays
            });
        }
        self.endpoints.replace(endpoints);
    }

    /// Nothing new comes: idle connections are closed, the others after their response.
    pub(crate) fn retire(&self) {
        for (_, pools) in self.pools.take() {
            pools.iter().for_each(|(_, pool)| pool.close());
        }
    }

    /// Closes what has been idle for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut all = self.pools.borrow_mut();
        let forget = matches!(self.config.discovery, Discovery::OriginalDst(_));
        all.retain(|_, pools| {
            pools.iter().for_each(|(_, pool)| pool.sweep(now));
            !(forget && pools.iter().all(|(_, pool)| pool.is_unused()))
        });
        if let Discovery::OriginalDst(config) = &self.config.discovery {
            let limit = config.cleanup_interval.max(Duration::from_secs(1));
            let mut found = self.found.borrow_mut();
            found.retain(|address, (_, used)| {
                all.contains_key(&Address::Ip(*address)) || now.saturating_duration_since(used.get()) < limit
            });
        }
    }

    pub(crate) fn info(&self) -> &Arc<ClusterInfo> {
        &self.info
    }

    pub(crate) fn stats(&self) -> &stats::Scope {
        &self.stats
    }

    pub(crate) fn limits(&self, priority: Priority) -> &Rc<Limits> {
        &self.limits[usize::from(priority == Priority::High)]
    }

    /// A host for a request or connection.
    pub(crate) fn choose(&self, context: &LbContext<'_>, worker: &Worker) -> Option<Choice> {
        if let Discovery::OriginalDst(config) = &self.config.discovery {
            return self.choose_destination(config, context);
        }
        let endpoints = self.endpoints.borrow();
        let host = endpoints.as_ref().and_then(|endpoints| {
            let avoid = context.avoid.map(|avoid| avoid.hosts);
            let attempts = context.avoid.map_or(0, |avoid| avoid.attempts);
            let now_ms = worker.started.elapsed().as_millis() as u64;
            let context = Context { hash: context.hash, now_ms, avoid, attempts };
            self.balancer.borrow_mut().choose(endpoints, &context, || worker.random())
        });
        if host.is_none() {
            self.stats.inc(stats::upstream_cx_none_healthy);
        }
        host.map(|host| Choice { host })
    }

    fn choose_destination(&self, config: &OriginalDst, context: &LbContext<'_>) -> Option<Choice> {
        let Some(mut destination) = context.original_destination else {
            self.stats.inc(stats::original_dst_host_invalid);
            return None;
        };
        if let Some(port) = config.port_override {
            destination.set_port(port);
        }
        let mut found = self.found.borrow_mut();
        let (host, used) =
            found.entry(destination).or_insert_with(|| (host_at(destination), Cell::new(Instant::now())));
        used.set(Instant::now());
        Some(Choice { host: host.clone() })
    }

    /// The pool that serves a request at a host.
    pub(crate) fn pool(&self, choice: &Choice, exchange: &Exchange, priority: Priority) -> Rc<Pool> {
        let key = PoolKey::new(self, &choice.host, exchange, priority);
        self.pool_of(key, &choice.host, priority, &exchange.connection.worker)
    }

    fn pool_of(&self, key: PoolKey, host: &Arc<Host>, priority: Priority, worker: &Rc<Worker>) -> Rc<Pool> {
        let mut all = self.pools.borrow_mut();
        if let Some(pools) = all.get(&host.address)
            && let Some((_, pool)) = pools.iter().find(|(other, _)| *other == key)
        {
            return pool.clone();
        }
        let connector = target::connector(self, host, &key, worker);
        let options = target::pool_options(&self.config);
        let pool = Pool::new(connector, options, self.limits(priority).clone(), self.stats.clone());
        all.entry(host.address.clone()).or_default().push((key, pool.clone()));
        pool
    }

    /// The pool that serves the proxy's own calls at a host.
    pub(crate) fn own_pool(&self, choice: &Choice, worker: &Rc<Worker>) -> Rc<Pool> {
        let key = PoolKey::own(self, &choice.host);
        self.pool_of(key, &choice.host, Priority::Default, worker)
    }

    /// Counts a response.
    pub(crate) fn note_response(&self, host: &Host, response: &Response<Incoming>, _exchange: &Exchange) {
        self.count_response(host, response.status().as_u16());
    }

    /// Counts a response, of the proxy's own calls too.
    pub(crate) fn count_response(&self, host: &Host, status: u16) {
        self.stats.inc(stats::upstream_rq_completed);
        self.stats.inc(match status / 100 {
            1 => stats::upstream_rq_1xx,
            2 => stats::upstream_rq_2xx,
            3 => stats::upstream_rq_3xx,
            4 => stats::upstream_rq_4xx,
            _ => stats::upstream_rq_5xx,
        });
        self.stats.code(status);
        self.note_outcome(host, Outcome::Status(status));
    }

    /// Counts a try that brought no response.
    pub(crate) fn note_failure(&self, host: &Host, failure: &Failure) {
        if failure.is_upstreams() {
            self.note_outcome(host, Outcome::LocalFailure);
        }
    }

    /// Counts an outcome for outlier detection, which may eject the host.
    fn note_outcome(&self, host: &Host, outcome: Outcome) {
        let (Some(detection), Some(stats)) = (&self.config.outlier_detection, &self.outliers) else { return };
        let endpoints = self.endpoints.borrow();
        let Some(endpoints) = &*endpoints else { return };
        if let Some(found) = outlier::note(detection, endpoints, host, outcome, crate::outlier::chance()) {
            crate::outlier::count(stats, found);
        }
    }

    /// Whether a host may be spoken to by TLS.
    pub(crate) fn may_use_tls(&self) -> bool {
        let is_tls = |socket: &UpstreamSocket| !matches!(socket, UpstreamSocket::Raw);
        is_tls(&self.config.socket) || self.config.socket_matches.iter().any(|entry| is_tls(&entry.socket))
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

fn host_at(address: SocketAddr) -> Arc<Host> {
    Arc::new(Host {
        address: Address::Ip(address),
        additional_addresses: Box::default(),
        hostname: "".into(),
        weight: 1,
        priority: 0,
        locality: Arc::default(),
        metadata: Metadata::None,
        health_status: HealthStatus::Unknown,
        health_check: None,
        state: Arc::<HostState>::default(),
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
