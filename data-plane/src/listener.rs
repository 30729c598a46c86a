//! Listeners as a worker has them: the configuration in force, its filter chains ready for use, and its drain.

pub(crate) mod accept;
pub(crate) mod chain;
pub(crate) mod connection;
mod filters;
pub(crate) mod limits;
pub(crate) mod sockets;

use std::cell::{Cell, OnceCell};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use sail_proxy_config::Snapshot;
use sail_proxy_config::listener::{DrainType, Listener as Config, ListenerFilterKind, TrafficDirection};
use tokio_util::sync::CancellationToken;

use crate::access_log::{LogType, Logger};
use crate::filters::FAILING_HEALTH_CHECKS;
use crate::stats::Store;
use crate::stats::sets::{
    http_inspector, listener as stats, listener_manager, listener_tcp_stats, listener_tls, tls_inspector,
};
use crate::stream_info::{Capture, DownstreamInfo, ResponseFlag, StreamInfo, details};
use crate::worker::state::Worker;
use crate::worker::{Pace, Scope, Shared};
use chain::Chain;

/// One version of a listener.
pub(crate) struct Listener {
    pub(crate) config: Arc<Config>,
    pub(crate) stats: stats::Scope,
    /// What handshakes count in; `None` without TLS.
    tls: Option<listener_tls::Scope>,
    /// What the kernel tells of connections, where it is asked.
    tcp_stats: Option<listener_tcp_stats::Scope>,
    /// What its filters of these kinds count in.
    inspected: Inspected,
    /// Built when a connection first needs them: most of a sidecar's chains never see one.
    chains: Box<[OnceCell<Rc<Chain>>]>,
    default_chain: OnceCell<Rc<Chain>>,
    /// Logs of its connections, opened when the first one ends.
    loggers: OnceCell<Vec<Logger>>,
    /// Connections of this listener on all workers.
    open: Arc<AtomicUsize>,
    /// The runtime key that limits them.
    limit_key: String,
    drain: Drain,
}

/// A filter chain's end, as its connections see it.
#[derive(Clone)]
pub(crate) struct Drain(Rc<Draining>);

struct Draining {
    token: CancellationToken,
    end: Cell<Option<Instant>>,
    /// How long it lasts, if connections are to close bit by bit.
    time: Cell<Option<Duration>>,
    /// Whether connections end while the process fails its health checks on purpose.
    heeds_health: bool,
}

impl Drain {
    fn new(kind: DrainType) -> Self {
        Self(Rc::new(Draining {
            token: CancellationToken::new(),
            end: Cell::default(),
            time: Cell::default(),
            heeds_health: kind == DrainType::Default,
        }))
    }

    fn begin(&self, time: Duration, gradual: bool) {
        if !self.is_begun() {
            self.0.time.set(gradual.then_some(time));
            self.0.end.set(Some(Instant::now() + time));
            self.0.token.cancel();
        }
    }

    /// That of a chain of a listener with this one: the same if it has begun.
    fn for_chain(&self, kind: DrainType) -> Self {
        if self.is_begun() { self.clone() } else { Self::new(kind) }
    }

    /// Resolves when the drain begins.
    pub(crate) fn token(&self) -> &CancellationToken {
        &self.0.token
    }

    /// Whether it has begun.
    pub(crate) fn is_begun(&self) -> bool {
        self.0.end.get().is_some()
    }

    /// Whether connections close bit by bit.
    pub(crate) fn is_gradual(&self) -> bool {
        self.0.time.get().is_some()
    }

    /// Whether a connection is to close now: at once, or with a chance that grows over the drain's time.
    pub(crate) fn closes(&self, random: impl FnOnce() -> u64) -> bool {
        let Some(end) = self.0.end.get() else {
            return self.0.heeds_health && FAILING_HEALTH_CHECKS.load(Relaxed);
        };
        let Some(time) = self.0.time.get() else { return true };
        let left = end.saturating_duration_since(Instant::now());
        let elapsed = time.saturating_sub(left).as_nanos();
        left.is_zero() || u128::from(random()) * time.as_nanos() < elapsed << 64
    }

    /// When it is over; `None` before it begins.
    pub(crate) fn end(&self) -> Option<Instant> {
        self.0.end.get()
    }
}

/// Statistics of listener filters that look at a connection's first bytes.
#[derive(Default)]
struct Inspected {
    tls: Option<tls_inspector::Scope>,
    http: Option<http_inspector::Scope>,
}

impl Inspected {
    fn new(config: &Config, store: &Store) -> Self {
        let mut inspected = Self::default();
        for filter in &config.listener_filters {
            let discovered = matches!(filter.kind, ListenerFilterKind::Discovered(_));
            if discovered || matches!(filter.kind, ListenerFilterKind::TlsInspector { .. }) {
                inspected.tls = Some(store.scope(""));
            }
            if discovered || matches!(filter.kind, ListenerFilterKind::HttpInspector) {
                inspected.http = Some(store.scope(""));
            }
        }
        inspected
    }
}

impl Listener {
    fn new(config: &Arc<Config>, shared: &Shared) -> Rc<Self> {
        let manager: listener_manager::Scope = shared.store.pinned("");
        manager.inc(listener_manager::listener_create_success);
        Rc::new(Self {
            stats: shared.store.scope(&stat_name(config)),
            tls: config
                .chains()
                .any(|chain| chain.socket.tls().is_some())
                .then(|| shared.store.scope(&stat_name(config))),
            tcp_stats: config
                .chains()
                .any(|chain| chain.socket.tcp_stats().is_some())
                .then(|| shared.store.scope(&stat_name(config))),
            inspected: Inspected::new(config, &shared.store),
            chains: config.filter_chains.iter().map(|_| OnceCell::new()).collect(),
            default_chain: OnceCell::new(),
            loggers: OnceCell::new(),
            open: shared.listener_connections.lock().entry(config.name.clone()).or_default().clone(),
            limit_key: format!("envoy.resource_limits.listener.{}.connection_limit", config.name),
            drain: Drain::new(config.drain_type),
            config: config.clone(),
        })
    }

    /// Writes a connection's entry into the listener's own logs.
    fn log(&self, worker: &Worker, downstream: Rc<DownstreamInfo>, flag: Option<ResponseFlag>) {
        if self.config.access_logs.is_empty() {
            return;
        }
        let loggers = self.loggers.get_or_init(|| worker.shared.options.observers.listener(&self.config));
        let mut info = StreamInfo::of_connection(downstream);
        if let Some(flag) = flag {
            info.flag(flag);
            if flag == ResponseFlag::NoRouteFound {
                info.code_details = Some(details::FILTER_CHAIN_NOT_FOUND.into());
            }
        }
        info.timing.end = Some(Instant::now());
        for logger in loggers {
            logger.log(&info, LogType::NotAccepted);
        }
    }

    /// Whether its own logs tell round trips.
    fn wants_round_trip(&self, worker: &Worker) -> bool {
        if self.config.access_logs.is_empty() {
            return false;
        }
        let mut capture = Capture::default();
        let loggers = self.loggers.get_or_init(|| worker.shared.options.observers.listener(&self.config));
        loggers.iter().for_each(|logger| logger.plan(&mut capture));
        capture.round_trip
    }

    /// The chain that takes a connection.
    pub(crate) fn chain(
        &self,
        connection: &sail_proxy_decide::filter_chain::Connection<'_>,
        worker: &Rc<Worker>,
    ) -> Option<Rc<Chain>> {
        let (cell, config) = match self.config.index.find(connection) {
            Some(index) => (&self.chains[index], &self.config.filter_chains[index]),
            None => (&self.default_chain, self.config.default_filter_chain.as_ref()?),
        };
        let new = || Chain::new(config, &self.config, self.drain.for_chain(self.config.drain_type), worker);
        Some(cell.get_or_init(new).clone())
    }

    /// The chains that connections came to.
    fn used(&self) -> impl Iterator<Item = &Rc<Chain>> {
        self.chains.iter().chain([&self.default_chain]).filter_map(OnceCell::get)
    }

    /// Begins the drain of all connections, those to come among them.
    fn begin_drain(&self, time: Duration, gradual: bool) {
        self.drain.begin(time, gradual);
        self.used().for_each(|chain| chain.drain.begin(time, gradual));
    }

    /// Takes the place of a version of which only filter chains differ: connections of the others stay.
    fn replace(&self, old: &Self, time: Duration, gradual: bool) {
        // Whoever is with the old one still, and has no chain yet, drains.
        old.drain.begin(time, gradual);
        let configs = self.config.filter_chains.iter().chain(&self.config.default_filter_chain);
        let cells = self.chains.iter().chain([&self.default_chain]);
        let mut cells: HashMap<u64, &OnceCell<_>> = configs.map(|config| config.version).zip(cells).collect();
        for chain in old.used() {
            match cells.remove(&chain.version()) {
                // It is empty: the listener is new.
                Some(cell) => drop(cell.set(chain.clone())),
                None => chain.drain.begin(time, gradual),
            }
        }
    }
}

/// Makes the worker's listeners those of a configuration. What did not change stays as it is, with its connections, also
/// filter chain by filter chain; what changed or went is drained.
pub(crate) fn update(worker: &Rc<Worker>, snapshot: &Snapshot) {
    let mut listeners = HashMap::with_capacity(snapshot.listeners.len());
    let before = worker.listeners.take();
    for config in &snapshot.listeners {
        let name = &config.name;
        let kept = before.get(name).filter(|listener| {
            Arc::ptr_eq(&listener.config, config) || listener.config.version == config.version
        });
        let listener = kept.cloned().unwrap_or_else(|| Listener::new(config, &worker.shared));
        listeners.insert(name.clone(), listener);
    }
    let time = worker.shared.options.drain_time;
    let gradual = worker.shared.options.drain_gradually;
    for (name, old) in &before {
        match listeners.get(name) {
            Some(now) if Rc::ptr_eq(now, old) => {}
            Some(now) if Config::is_in_place(&old.config, &now.config) => now.replace(old, time, gradual),
            _ => old.begin_drain(time, gradual),
        }
    }
    worker.accepting.borrow_mut().retain(|name, tasks| {
        let Some(listener) = listeners.get(name).filter(|listener| listener.config.bind_to_port) else {
            return false;
        };
        tasks.retain(|task| listener.config.addresses.contains(&task.address));
        true
    });
    worker.by_address.replace(by_address(&listeners));
    worker.listeners.replace(listeners);
}

/// Which listener a redirected connection is handed to: the one for its original destination's address and port, else
/// the one for every address at that port.
pub(crate) fn for_destination(worker: &Worker, destination: SocketAddr) -> Option<Rc<Listener>> {
    let listeners = worker.by_address.borrow();
    let any = |ip: IpAddr| listeners.get(&SocketAddr::new(ip, destination.port()));
    listeners
        .get(&destination)
        .or_else(|| match destination.ip() {
            IpAddr::V4(_) => any(Ipv4Addr::UNSPECIFIED.into()).or_else(|| any(Ipv6Addr::UNSPECIFIED.into())),
            IpAddr::V6(_) => any(Ipv6Addr::UNSPECIFIED.into()),
        })
        .cloned()
}

/// Begins the drain of the connections that are open, and of those to come.
pub(crate) fn drain(worker: &Worker, scope: Scope, pace: Pace) {
    let time = worker.shared.options.drain_time;
    let gradual = pace == Pace::Configured && worker.shared.options.drain_gradually;
    for listener in worker.listeners.borrow().values().filter(|listener| is_meant(&listener.config, scope)) {
        listener.begin_drain(time, gradual);
    }
}

/// Closes listening sockets.
pub(crate) fn stop(worker: &Worker, scope: Scope) {
    let listeners = worker.listeners.borrow();
    worker
        .accepting
        .borrow_mut()
        .retain(|name, _| !listeners.get(name).is_none_or(|listener| is_meant(&listener.config, scope)));
}

fn is_meant(config: &Config, scope: Scope) -> bool {
    match scope {
        Scope::All => true,
        Scope::Inbound => config.traffic_direction == TrafficDirection::Inbound,
    }
}

fn by_address(listeners: &HashMap<Arc<str>, Rc<Listener>>) -> HashMap<SocketAddr, Rc<Listener>> {
    let addresses = |listener: &Rc<Listener>| {
        listener.config.addresses.iter().filter_map(|address| address.socket_addr()).collect::<Vec<_>>()
    };
    listeners
        .values()
        .flat_map(|listener| addresses(listener).into_iter().map(|address| (address, listener.clone())))
        .collect()
}

/// What a listener's statistics are called: its address with the colons that statistics cannot bear replaced, or the
/// prefix that its configuration gives.
pub(crate) fn stat_name(config: &Config) -> String {
    if !config.stat_prefix.is_empty() {
        return config.stat_prefix.to_string();
    }
    config.addresses.first().map(|address| address.to_string().replace(':', "_")).unwrap_or_default()
}
