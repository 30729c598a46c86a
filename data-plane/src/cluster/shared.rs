//! What clusters of all workers share: the counts behind circuit breakers, hosts that requests bring up, and how often
//! endpoints changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use sail_proxy_config::Snapshot;
use sail_proxy_config::cluster::Cluster;
use sail_proxy_decide::address::Address;
use sail_proxy_decide::host::{Endpoints, HealthStatus, Host, HostState};

use crate::outlier::now_ms;
use crate::pool::limits::Counts;

/// By cluster name. Touched when a worker first uses a cluster or a host, and when configuration changes.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    counts: Mutex<HashMap<Arc<str>, Arc<Counts>>>,
    destinations: Mutex<HashMap<Arc<str>, Destinations>>,
    changes: Mutex<HashMap<Arc<str>, u64>>,
    /// New versions, and new clusters, that wait for something before they are in force.
    warming: Mutex<HashMap<Arc<str>, Arc<Cluster>>>,
    connection_limits: Mutex<HashMap<Arc<str>, Arc<AtomicU32>>>,
}

/// The hosts of a cluster of original destinations.
type Destinations = HashMap<SocketAddr, Arc<Destination>>;

/// A host that a destination made.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) host: Arc<Host>,
    used: AtomicU64,
}

impl Destination {
    fn new(address: SocketAddr) -> Self {
        Self { host: host_at(address, "".into()), used: AtomicU64::new(now_ms()) }
    }

    /// Keeps the host for another while.
    pub(crate) fn touch(&self) {
        self.used.store(now_ms(), Relaxed);
    }

    /// Whether it was used within so many milliseconds.
    pub(crate) fn is_fresh(&self, within_ms: u64) -> bool {
        now_ms().saturating_sub(self.used.load(Relaxed)) < within_ms
    }
}

impl Registry {
    /// The counts of a cluster; they outlive configuration updates.
    pub(crate) fn counts(&self, cluster: &Arc<str>) -> Arc<Counts> {
        self.counts.lock().entry(cluster.clone()).or_default().clone()
    }

    /// The same, if a worker has used the cluster.
    pub(crate) fn counts_of(&self, cluster: &str) -> Option<Arc<Counts>> {
        self.counts.lock().get(cluster).cloned()
    }

    /// Says which clusters warm, as of when statistics are asked for.
    pub(crate) fn set_warming(&self, clusters: impl Iterator<Item = Arc<Cluster>>) {
        *self.warming.lock() = clusters.map(|cluster| (cluster.name.clone(), cluster)).collect();
    }

    /// See [`Self::set_warming`]; by name.
    pub(crate) fn warming(&self) -> HashMap<Arc<str>, Arc<Cluster>> {
        self.warming.lock().clone()
    }

    /// The count behind a filter's connection limit, by its statistics' name.
    pub(crate) fn connection_limit(&self, name: &Arc<str>) -> Arc<AtomicU32> {
        self.connection_limits.lock().entry(name.clone()).or_default().clone()
    }

    /// The host of a destination, one for all workers.
    pub(crate) fn destination(&self, cluster: &Arc<str>, address: SocketAddr) -> Arc<Destination> {
        let mut all = self.destinations.lock();
        let of = all.entry(cluster.clone()).or_default();
        of.entry(address).or_insert_with(|| Arc::new(Destination::new(address))).clone()
    }

    /// All hosts that destinations made.
    pub(crate) fn destinations(&self, cluster: &str) -> Vec<Arc<Host>> {
        let all = self.destinations.lock();
        all.get(cluster).into_iter().flat_map(HashMap::values).map(|found| found.host.clone()).collect()
    }

    /// Forgets destinations that no worker holds any more.
    pub(crate) fn forget_unused(&self, cluster: &str, within_ms: u64) {
        if let Some(of) = self.destinations.lock().get_mut(cluster) {
            of.retain(|_, found| Arc::strong_count(found) > 1 || found.is_fresh(within_ms));
        }
    }

    /// Notes which clusters got other hosts, and forgets those that are gone. Says how many clusters that stayed what they
    /// are got other endpoints, be it the same hosts with other weights.
    pub(crate) fn note_update(&self, before: &Snapshot, now: &Snapshot) -> u64 {
        let mut updated = 0;
        let mut changes = self.changes.lock();
        for (name, cluster) in &now.clusters {
            let Some(new) = hosts_of(now, cluster) else { continue };
            let Some(known) = before.clusters.get(name) else { continue };
            let Some(old) = hosts_of(before, known).filter(|old| !Arc::ptr_eq(old, new)) else { continue };
            updated += u64::from(Arc::ptr_eq(known, cluster));
            let moved = moved(old, new);
            if moved > 0 {
                *changes.entry(name.clone()).or_insert(1) += moved;
            }
        }
        changes.retain(|name, _| now.clusters.contains_key(name));
        drop(changes);
        self.counts.lock().retain(|name, _| now.clusters.contains_key(name));
        self.destinations.lock().retain(|name, _| now.clusters.contains_key(name));
        updated
    }

    /// How often hosts came to a cluster that has some, or went, its first ones included.
    pub(crate) fn changes(&self, cluster: &str) -> u64 {
        self.changes.lock().get(cluster).copied().unwrap_or(1)
    }
}

/// The hosts of a cluster: as configuration gives them, or as DNS found them under the cluster's name.
pub(crate) fn hosts_of<'a>(snapshot: &'a Snapshot, cluster: &'a Cluster) -> Option<&'a Arc<Endpoints>> {
    snapshot.endpoints(cluster).or_else(|| snapshot.assignments.get(&cluster.name))
}

/// At how many priorities there are hosts that were not there, or were and are no more.
fn moved(old: &Endpoints, new: &Endpoints) -> u64 {
    let by_priority = |endpoints: &Endpoints| {
        let mut all: BTreeMap<u32, HashSet<Address>> = BTreeMap::new();
        for host in endpoints.hosts() {
            all.entry(host.priority).or_default().insert(host.address.clone());
        }
        all
    };
    let (old, new) = (by_priority(old), by_priority(new));
    let priorities: BTreeSet<&u32> = old.keys().chain(new.keys()).collect();
    priorities.into_iter().filter(|priority| old.get(priority) != new.get(priority)).count() as u64
}

/// A host of which nothing is known but its address.
pub(crate) fn host_at(address: SocketAddr, hostname: Arc<str>) -> Arc<Host> {
    Arc::new(at(address, hostname))
}

/// A host of this name, of which nothing else is known.
pub(crate) fn at(address: SocketAddr, hostname: Arc<str>) -> Host {
    Host {
        address: Address::Ip(address),
        additional_addresses: Box::default(),
        hostname,
        weight: 1,
        priority: 0,
        locality: Arc::default(),
        metadata: None,
        health_status: HealthStatus::Unknown,
        health_check: None,
        state: Arc::<HostState>::default(),
    }
}
