//! Workers: threads that serve connections, and the main thread's handle on them.
//!
//! A worker is one thread with one single-threaded runtime. What it serves with (listeners, connection pools, random
//! numbers) belongs to it alone; configuration and orders come as messages from the main thread.

pub(crate) mod state;

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use sail_proxy_config::Snapshot;
use sail_proxy_config::listener::Listener;
use sail_proxy_decide::address::Address;
use tokio::sync::mpsc;

pub use crate::listener::sockets::BindError;
use crate::listener::sockets::{Opened, Sockets};
use crate::observe::Observers;
use crate::stats::sets::cluster_manager;
use crate::stats::{self, Store};
use state::Worker;

/// What all workers share: read-only, or counted atomically.
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) options: Options,
    pub(crate) clusters: Arc<crate::cluster::shared::Registry>,
    /// Names that requests bring.
    pub(crate) dns_caches: Arc<crate::dns::cache::Caches>,
    /// What is in force, for statistics that are computed from it.
    pub(crate) latest: Arc<Mutex<Arc<Snapshot>>>,
    pub(crate) contexts: crate::tls::context::Contexts,
    /// Downstream connections of the process.
    pub(crate) connections: AtomicUsize,
    /// Those that count against the limit of all.
    pub(crate) limited_connections: AtomicUsize,
    /// Downstream connections by listener.
    pub(crate) listener_connections: Mutex<HashMap<Arc<str>, Arc<AtomicUsize>>>,
    /// Token buckets of listeners and network filters.
    pub(crate) buckets: crate::listener::limits::Buckets,
    pub(crate) started: std::time::Instant,
    pub(crate) next_connection: std::sync::atomic::AtomicU64,
}

/// How workers are run.
#[derive(Debug)]
pub struct Options {
    /// How many.
    pub concurrency: usize,
    /// How long a drained connection is given.
    pub drain_time: Duration,
    /// Whether connections are asked to close bit by bit over that time, rather than all at once.
    pub drain_gradually: bool,
    /// The node's metadata, which peers are told.
    pub node_metadata: xds_api::google::protobuf::Struct,
    /// The node's id.
    pub node_id: String,
    /// The node's cluster.
    pub node_cluster: String,
    /// The machine's own address.
    pub local_address: std::net::IpAddr,
    /// Makes the observers of filter chains.
    pub observers: Arc<Observers>,
    /// The runtime's values.
    pub runtime: Arc<crate::runtime::Values>,
    /// What is done on overload.
    pub overload: Arc<crate::overload::Flags>,
}

/// Which listeners an order means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every listener.
    All,
    /// Those whose traffic direction is inbound.
    Inbound,
}

/// How fast a drain closes connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As `--drain-strategy` says.
    Configured,
    /// Each with what it says next.
    AtOnce,
}

enum Order {
    Update(Arc<Snapshot>, Vec<Opened>),
    Drain(Scope, Pace),
    StopListening(Scope),
    HostFailed(Arc<str>, Address),
}

/// The main thread's handle on the workers.
pub struct Workers {
    orders: Vec<mpsc::UnboundedSender<Order>>,
    sockets: Sockets,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workers").field("threads", &self.orders.len()).finish_non_exhaustive()
    }
}

impl Workers {
    /// Starts the threads; they serve nothing before the first [`Workers::apply`].
    pub fn start(options: Options, store: Arc<Store>, snapshot: &Arc<Snapshot>) -> io::Result<Self> {
        let concurrency = options.concurrency;
        let shared = Arc::new(Shared {
            store,
            options,
            clusters: Default::default(),
            dns_caches: Default::default(),
            latest: Default::default(),
            contexts: Default::default(),
            connections: AtomicUsize::new(0),
            limited_connections: AtomicUsize::new(0),
            listener_connections: Mutex::default(),
            buckets: Default::default(),
            started: std::time::Instant::now(),
            next_connection: Default::default(),
        });
        let source = crate::cluster::stats::Source {
            store: Arc::downgrade(&shared.store),
            registry: shared.clusters.clone(),
            snapshot: shared.latest.clone(),
        };
        shared.store.provide(source.provider());
        let mut orders = Vec::with_capacity(concurrency);
        for index in 0..concurrency {
            let (sender, receiver) = mpsc::unbounded_channel();
            let (shared, snapshot) = (shared.clone(), snapshot.clone());
            let (started, outcome) = std::sync::mpsc::sync_channel(1);
            std::thread::Builder::new().name(format!("wrk:worker_{index}")).spawn(move || {
                stats::attach_worker(index);
                // It belongs to the thread that makes it.
                match crate::rt::local() {
                    Ok(runtime) => {
                        let _ = started.send(Ok(()));
                        runtime.block_on(run(shared, snapshot, receiver));
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            })?;
            outcome.recv().map_err(io::Error::other)??;
            orders.push(sender);
        }
        Ok(Self { orders, sockets: Sockets::new(concurrency), shared })
    }

    /// Puts a configuration in force. Sockets are opened first: if one cannot be, nothing changes, and the error names
    /// each listener that failed. Workers take the change over on their own time, each at once.
    pub fn apply(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), Vec<BindError>> {
        let mut opened = self.sockets.open(snapshot)?;
        for orders in self.orders.iter().rev() {
            let sockets = opened.pop().unwrap_or_default();
            // A worker only goes away when the process does.
            let _ = orders.send(Order::Update(snapshot.clone(), sockets));
        }
        let before = std::mem::replace(&mut *self.shared.latest.lock(), snapshot.clone());
        let stats: cluster_manager::Scope = self.shared.store.pinned("");
        stats.add(cluster_manager::cluster_updated, self.shared.clusters.note_update(&before, snapshot));
        Ok(())
    }

    /// Whether a listener could listen now.
    pub(crate) fn probe(&self, listener: &Listener) -> Result<(), BindError> {
        self.sockets.probe(listener)
    }

    /// Who observes the workers' streams.
    pub fn observers(&self) -> &Arc<Observers> {
        &self.shared.options.observers
    }

    /// Tells clients to go elsewhere (`connection: close`, GOAWAY) and ends their connections within the drain time;
    /// new connections are taken still, and told the same.
    pub fn drain(&self, scope: Scope, pace: Pace) {
        self.tell(|| Order::Drain(scope, pace));
    }

    /// Takes no more connections.
    pub fn stop_listening(&self, scope: Scope) {
        self.tell(|| Order::StopListening(scope));
    }

    /// Where listeners listen: the addresses that the kernel gave.
    pub fn addresses(
        &self,
    ) -> impl Iterator<Item = (&Arc<str>, &sail_proxy_config::decide::address::Address)> {
        self.sockets.addresses()
    }

    /// Downstream connections that are open.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Relaxed)
    }

    /// What workers share about clusters.
    pub(crate) fn clusters(&self) -> &Arc<crate::cluster::shared::Registry> {
        &self.shared.clusters
    }

    /// The caches of names that requests bring.
    pub(crate) fn dns_caches(&self) -> &Arc<crate::dns::cache::Caches> {
        &self.shared.dns_caches
    }

    /// Closes the connections to a host that failed its health checks.
    pub(crate) fn host_failed(&self, cluster: &Arc<str>, address: &Address) {
        self.tell(|| Order::HostFailed(cluster.clone(), address.clone()));
    }

    fn tell(&self, order: impl Fn() -> Order) {
        for orders in &self.orders {
            let _ = orders.send(order());
        }
    }
}

async fn run(shared: Arc<Shared>, snapshot: Arc<Snapshot>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let worker: Rc<Worker> = Worker::new(shared, snapshot);
    #[cfg(feature = "wasm")]
    crate::wasm::attach(&worker);
    let mut clock = tokio::time::interval(Duration::from_secs(1));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Update(snapshot, sockets)) => {
                    worker.update(snapshot);
                    crate::listener::accept::start(&worker, sockets);
                }
                Some(Order::Drain(scope, pace)) => crate::listener::drain(&worker, scope, pace),
                Some(Order::StopListening(scope)) => crate::listener::stop(&worker, scope),
                Some(Order::HostFailed(cluster, address)) => worker.host_failed(&cluster, &address),
                None => return,
            },
            _ = clock.tick() => worker.tick(),
        }
    }
}
