//! What a worker serves with. Everything here lives on one thread.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use http::{HeaderName, HeaderValue};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sail_proxy_config::Snapshot;
use sail_proxy_decide::address::Address;
use sail_proxy_decide::host::Endpoints;

use crate::cluster::Cluster;
use crate::cluster::shared::hosts_of;
use crate::listener::Listener;
use crate::listener::accept::Accepting;
use crate::stats::sets::virtual_host;
use crate::stream_info::PeerMetadata;
use crate::worker::Shared;

/// The configuration that is in force on a worker, with what the worker built upon it. A request holds the one that it
/// began with.
pub(crate) struct Active {
    pub(crate) snapshot: Arc<Snapshot>,
    /// Clusters that were asked for.
    clusters: RefCell<HashMap<Arc<str>, Rc<Cluster>>>,
    server_names: Box<[Option<HeaderName>]>,
    worker: Weak<Worker>,
    /// Another one is in force.
    replaced: Cell<bool>,
}

impl Active {
    /// What of a request clusters take for the name of the server that they ask for by TLS: headers, or (`None`) the
    /// host.
    pub(crate) fn server_names(&self) -> &[Option<HeaderName>] {
        &self.server_names
    }

    /// The cluster of this name, built if nobody has asked for it yet.
    pub(crate) fn cluster(&self, name: &str) -> Option<Rc<Cluster>> {
        if let Some(cluster) = self.clusters.borrow().get(name) {
            return Some(cluster.clone());
        }
        let (name, config) = self.snapshot.clusters.get_key_value(name)?;
        let worker = self.worker.upgrade()?;
        if self.replaced.get() {
            // What is in force serves as well, if the cluster is the same: it shares its connections.
            let now = worker.active();
            if let Some(same) = now.cluster(name).filter(|cluster| cluster.is_same(config)) {
                return Some(same);
            }
        }
        let cluster = Cluster::new(config, self.endpoints(config), &worker.shared);
        if self.replaced.get() {
            cluster.retire();
        }
        self.clusters.borrow_mut().insert(name.clone(), cluster.clone());
        Some(cluster)
    }

    fn endpoints(&self, config: &sail_proxy_config::cluster::Cluster) -> Option<Arc<Endpoints>> {
        hosts_of(&self.snapshot, config).cloned()
    }
}

/// One thread's world.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    active: RefCell<Rc<Active>>,
    pub(crate) listeners: RefCell<HashMap<Arc<str>, Rc<Listener>>>,
    /// The same by the addresses that they stand for, bound or not.
    pub(crate) by_address: RefCell<HashMap<SocketAddr, Rc<Listener>>>,
    /// Tasks that take connections, by listener.
    pub(crate) accepting: RefCell<HashMap<Arc<str>, Vec<Accepting>>>,
    pub(crate) rng: RefCell<SmallRng>,
    pub(crate) started: Instant,
    /// Streams that wait for something within limits of some length.
    pub(crate) waiting: crate::http::timers::Waiting,
    own_metadata: OwnMetadata,
    /// Statistics of virtual clusters and routes, by name.
    virtual_hosts: RefCell<HashMap<Arc<str>, virtual_host::Scope>>,
}

/// What peers are told of us.
pub(crate) struct OwnMetadata {
    pub(crate) metadata: HeaderValue,
    pub(crate) id: HeaderValue,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, snapshot: Arc<Snapshot>) -> Rc<Self> {
        let text =
            |text: String| HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""));
        let own_metadata = OwnMetadata {
            metadata: text(PeerMetadata::header(&shared.options.node_metadata, &[])),
            id: text(shared.options.node_id.clone()),
        };
        Rc::new_cyclic(|this| Self {
            shared,
            active: RefCell::new(Rc::new(Active {
                snapshot,
                clusters: RefCell::default(),
                server_names: Box::default(),
                worker: this.clone(),
                replaced: Cell::new(false),
            })),
            listeners: RefCell::default(),
            by_address: RefCell::default(),
            accepting: RefCell::default(),
            rng: RefCell::new(SmallRng::from_os_rng()),
            started: Instant::now(),
            waiting: Default::default(),
            own_metadata,
            virtual_hosts: RefCell::default(),
        })
    }

    /// The statistics of a virtual cluster or route; they stay, as Envoy's do.
    pub(crate) fn virtual_host_stats(&self, name: &Arc<str>) -> virtual_host::Scope {
        let mut all = self.virtual_hosts.borrow_mut();
        all.entry(name.clone()).or_insert_with(|| self.shared.store.scope(name)).clone()
    }

    /// The configuration that is in force now.
    pub(crate) fn active(&self) -> Rc<Active> {
        self.active.borrow().clone()
    }

    /// The runtime's values.
    pub(crate) fn runtime(&self) -> &crate::runtime::Values {
        &self.shared.options.runtime
    }

    /// What peers are told of us.
    pub(crate) fn own_metadata(&self) -> &OwnMetadata {
        &self.own_metadata
    }

    /// A random number.
    pub(crate) fn random(&self) -> u64 {
        use rand::RngCore;
        self.rng.borrow_mut().next_u64()
    }

    /// Puts a configuration in force: clusters that did not change keep their pools, listeners their connections.
    pub(crate) fn update(self: &Rc<Self>, snapshot: Arc<Snapshot>) {
        let before = self.active();
        let active = Rc::new(Active {
            snapshot: snapshot.clone(),
            clusters: RefCell::default(),
            server_names: server_names(&snapshot),
            worker: Rc::downgrade(self),
            replaced: Cell::new(false),
        });
        let mut changed = Vec::new();
        for (name, cluster) in before.clusters.borrow().iter() {
            match snapshot.clusters.get(name).filter(|config| cluster.is_same(config)) {
                Some(config) => {
                    cluster.set_endpoints(active.endpoints(config));
                    active.clusters.borrow_mut().insert(name.clone(), cluster.clone());
                }
                None => {
                    cluster.retire();
                    changed.push(cluster.clone());
                }
            }
        }
        before.replaced.set(true);
        self.active.replace(active.clone());
        for old in changed {
            if let Some(new) = active.cluster(&old.config.name) {
                new.count_on(&old);
            }
        }
        crate::listener::update(self, &snapshot);
        #[cfg(feature = "wasm")]
        crate::wasm::prepare(self, &snapshot);
    }

    /// Once a second or so: closes what has been idle for too long.
    pub(crate) fn tick(&self) {
        let now = Instant::now();
        self.waiting.sweep(now);
        for cluster in self.active().clusters.borrow().values() {
            cluster.sweep(now, &self.shared);
        }
    }

    /// A host of a cluster failed its health checks.
    pub(crate) fn host_failed(&self, cluster: &str, address: &Address) {
        if let Some(cluster) = self.active().clusters.borrow().get(cluster) {
            cluster.host_failed(address);
        }
    }
}

/// What clusters with `auto_sni` read, each thing once.
fn server_names(snapshot: &Snapshot) -> Box<[Option<HeaderName>]> {
    let mut found = Vec::new();
    for config in snapshot.clusters.values().filter(|config| config.http.auto_sni) {
        let source = &config.http.override_auto_sni_header;
        if !found.contains(source) {
            found.push(source.clone());
        }
    }
    found.into()
}
