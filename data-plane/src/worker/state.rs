//! What a worker serves with. Everything here lives on one thread.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use http::HeaderValue;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use sail_proxy_config::Snapshot;

use crate::cluster::Cluster;
use crate::listener::Listener;
use crate::listener::accept::Accepting;
use crate::stream_info::PeerMetadata;
use crate::worker::Shared;

/// The configuration that is in force on a worker, with what the worker built upon it. A request holds the one that it
/// began with.
pub(crate) struct Active {
    pub(crate) snapshot: Arc<Snapshot>,
    clusters: HashMap<Arc<str>, Rc<Cluster>>,
    wants_request_host: bool,
}

impl Active {
    /// Whether a cluster asks for TLS by the request's host.
    pub(crate) fn wants_request_host(&self) -> bool {
        self.wants_request_host
    }

    /// The cluster of this name.
    pub(crate) fn cluster(&self, name: &str) -> Option<&Rc<Cluster>> {
        self.clusters.get(name)
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
        let active = Rc::new(Active { snapshot, clusters: HashMap::new(), wants_request_host: false });
        let own_metadata = OwnMetadata {
            metadata: text(PeerMetadata::header(&shared.options.node_metadata)),
            id: text(shared.options.node_id.clone()),
        };
        Rc::new(Self {
            shared,
            active: RefCell::new(active),
            listeners: RefCell::default(),
            by_address: RefCell::default(),
            accepting: RefCell::default(),
            rng: RefCell::new(SmallRng::from_os_rng()),
            started: Instant::now(),
            waiting: Default::default(),
            own_metadata,
        })
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
        let mut clusters = HashMap::with_capacity(snapshot.clusters.len());
        for (name, config) in &snapshot.clusters {
            // Names that DNS resolved stand beside what EDS brought.
            let endpoints = snapshot.endpoints(config).or_else(|| snapshot.assignments.get(name)).cloned();
            let cluster = match before.clusters.get(name).filter(|cluster| cluster.is_same(config)) {
                Some(cluster) => {
                    cluster.set_endpoints(endpoints);
                    cluster.clone()
                }
                None => Cluster::new(config, endpoints, &self.shared),
            };
            clusters.insert(name.clone(), cluster);
        }
        for (name, cluster) in &before.clusters {
            if clusters.get(name).is_none_or(|now| !Rc::ptr_eq(now, cluster)) {
                cluster.retire();
            }
        }
        let wants_request_host = clusters.values().any(|cluster| cluster.config.http.auto_sni);
        self.active.replace(Rc::new(Active { snapshot: snapshot.clone(), clusters, wants_request_host }));
        crate::listener::update(self, &snapshot);
    }

    /// Once a second or so: closes what has been idle for too long.
    pub(crate) fn tick(&self) {
        let now = Instant::now();
        self.waiting.sweep(now);
        for cluster in self.active().clusters.values() {
            cluster.sweep(now);
        }
    }
}
