//! Active health checks, on the main thread: one task a cluster with checks, one a host. Results are flags on the host,
//! which workers read with their next choice.

mod check;
mod events;
mod state;

pub use check::Tls;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base::task::Supervised;
use hashbrown::HashSet;
use rand::Rng;
use sail_proxy_config::Snapshot;
use sail_proxy_config::cluster::{Cluster, Discovery, HealthCheck};
use sail_proxy_decide::address::Address;
use sail_proxy_decide::host::{Endpoints, HealthFlag, Host};
use sail_proxy_decide::outlier;

use crate::cluster::shared::hosts_of;
use crate::stats::Store;
use crate::stats::sets::{cluster, cluster_health_check as stat, cluster_outlier};
use events::Log;
use state::{Change, State};

/// Told of hosts that fail their checks.
pub type OnFailure = Rc<dyn Fn(&Cluster, &Host)>;

/// All clusters whose hosts are checked.
pub struct HealthChecks {
    store: Arc<Store>,
    clusters: RefCell<BTreeMap<Arc<str>, Checked>>,
    /// Clusters that are not in force before their hosts were checked once.
    warming: RefCell<BTreeMap<Arc<str>, Checked>>,
    on_failure: OnFailure,
    on_round: Rc<dyn Fn()>,
}

struct Checked {
    version: u64,
    endpoints: Arc<Endpoints>,
    stats: stat::Scope,
    hosts: BTreeMap<Address, Supervised<()>>,
    /// Hosts that were not checked yet.
    pending: Rc<Cell<usize>>,
}

/// A host that was not checked yet; dropped with its first result, or with its checks.
struct Unchecked {
    pending: Rc<Cell<usize>>,
    on_round: Rc<dyn Fn()>,
}

/// What a host's first result is for.
struct First {
    unchecked: Option<Unchecked>,
    /// The host is not used before it.
    decides: bool,
}

impl Unchecked {
    fn new(pending: &Rc<Cell<usize>>, on_round: &Rc<dyn Fn()>) -> Self {
        pending.set(pending.get() + 1);
        Self { pending: pending.clone(), on_round: on_round.clone() }
    }
}

impl Drop for Unchecked {
    fn drop(&mut self) {
        self.pending.set(self.pending.get() - 1);
        if self.pending.get() == 0 {
            (self.on_round)();
        }
    }
}

impl std::fmt::Debug for HealthChecks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HealthChecks")
            .field("clusters", &self.clusters.borrow().len())
            .finish_non_exhaustive()
    }
}

impl HealthChecks {
    /// None yet. `on_round` is called when all hosts of a cluster were checked once.
    pub fn new(store: Arc<Store>, on_failure: OnFailure, on_round: Rc<dyn Fn()>) -> Self {
        Self { store, clusters: RefCell::default(), warming: RefCell::default(), on_failure, on_round }
    }

    /// Checks the hosts of clusters that wait for that; others wait no more.
    pub fn warm(&self, snapshot: &Snapshot, tls: &Tls) {
        let mut warming = self.warming.borrow_mut();
        warming.retain(|name, checked| {
            snapshot.clusters.get(name).is_some_and(|cluster| cluster.version == checked.version)
        });
        let none = Arc::default();
        for (name, cluster) in &snapshot.clusters {
            let endpoints = hosts_of(snapshot, cluster).unwrap_or(&none);
            if warming.get(name).is_some_and(|known| Arc::ptr_eq(&known.endpoints, endpoints)) {
                continue;
            }
            let before = warming.remove(name);
            let used = self.clusters.borrow();
            let used = used.get(name).map(|checked| &checked.hosts);
            // What serves the version in force goes on doing so.
            let is_used = |host: &Host| used.is_some_and(|hosts| hosts.contains_key(&host.address));
            let checked = self.check(cluster, endpoints, before, tls, &is_used);
            warming.insert(name.clone(), checked);
        }
    }

    /// Whether the hosts of a cluster that waits for it were checked once.
    pub fn is_warm(&self, cluster: &str) -> bool {
        self.warming.borrow().get(cluster).is_some_and(|checked| checked.pending.get() == 0)
    }

    /// Keeps hosts that discovery took away for as long as their checks pass, unless the cluster says otherwise.
    pub fn keep_healthy(&self, snapshot: &mut Snapshot) {
        for (name, checked) in &*self.clusters.borrow() {
            let Some(cluster) = snapshot.clusters.get(name) else { continue };
            if cluster.health_checks.is_empty() || cluster.ignore_health_on_host_removal {
                continue;
            }
            let key = match &cluster.discovery {
                Discovery::Eds { service_name, .. } => service_name,
                Discovery::StrictDns(_) | Discovery::LogicalDns(_) => name,
                _ => continue,
            };
            let Some(now) = snapshot.assignments.get(key) else { continue };
            let now = now.clone();
            let there: HashSet<&Address> = now.hosts().map(|host| &host.address).collect();
            let gone = checked.endpoints.hosts().filter(|host| !there.contains(&host.address));
            let kept: Vec<Arc<Host>> = gone
                .filter(|host| is_checked(host) && !host.state.has(HealthFlag::FailedActiveHealthCheck))
                .cloned()
                .collect();
            if kept.is_empty() {
                continue;
            }
            for host in &kept {
                host.state.set(HealthFlag::PendingDynamicRemoval);
            }
            let (key, with) = (key.clone(), Arc::new(now.with(&kept)));
            snapshot.assignments.insert(key, with);
        }
    }

    /// Checks what the snapshot says from now on. `tls` connects as the cluster does.
    pub fn update(&self, snapshot: &Arc<Snapshot>, tls: &Tls) {
        let mut clusters = self.clusters.borrow_mut();
        clusters.retain(|name, _| {
            snapshot.clusters.get(name).is_some_and(|cluster| !cluster.health_checks.is_empty())
        });
        for (name, cluster) in
            snapshot.clusters.iter().filter(|(_, cluster)| !cluster.health_checks.is_empty())
        {
            let endpoints = hosts_of(snapshot, cluster);
            let Some(endpoints) = endpoints else { continue };
            let warmed = self.warming.borrow_mut().remove(name);
            if let Some(warmed) = warmed.filter(|warmed| warmed.version == cluster.version) {
                clusters.insert(name.clone(), warmed);
            }
            let entry = clusters.get(name);
            if entry.is_some_and(|c| c.version == cluster.version && Arc::ptr_eq(&c.endpoints, endpoints)) {
                continue;
            }
            let before = clusters.remove(name);
            clusters.insert(name.clone(), self.check(cluster, endpoints, before, tls, &|_| false));
        }
    }

    /// Checks these hosts; checks that run go on where nothing but the hosts changed.
    fn check(
        &self,
        cluster: &Arc<Cluster>,
        endpoints: &Arc<Endpoints>,
        mut before: Option<Checked>,
        tls: &Tls,
        is_used: &dyn Fn(&Host) -> bool,
    ) -> Checked {
        let (stats, pending) = match &before {
            Some(checked) => (checked.stats.clone(), checked.pending.clone()),
            None => (self.store.scope(&cluster.stat_name), Rc::default()),
        };
        let same = before.as_ref().is_some_and(|checked| checked.version == cluster.version);
        let mut hosts = BTreeMap::new();
        for host in endpoints.hosts().filter(|host| is_checked(host)) {
            let running = before.as_mut().and_then(|checked| checked.hosts.remove(&host.address));
            let known = running.is_some();
            let task = match running.filter(|_| same) {
                Some(task) => task,
                None => {
                    let unchecked = (!known).then(|| Unchecked::new(&pending, &self.on_round));
                    let first = First { unchecked, decides: !known && !is_used(host) };
                    self.start(cluster, host, first, &stats, tls)
                }
            };
            hosts.insert(host.address.clone(), task);
        }
        Checked { version: cluster.version, endpoints: endpoints.clone(), stats, hosts, pending }
    }

    /// Checks a host from now on. One that was not checked before is not used until it has passed once.
    fn start(
        &self,
        cluster: &Arc<Cluster>,
        host: &Arc<Host>,
        first: First,
        stats: &stat::Scope,
        tls: &Tls,
    ) -> Supervised<()> {
        if first.decides {
            host.state.set(HealthFlag::FailedActiveHealthCheck);
            if cluster.common_lb.ignore_new_hosts_until_first_health_check {
                host.state.set(HealthFlag::PendingActiveHealthCheck);
            }
        }
        let checks = Checks {
            cluster: cluster.clone(),
            host: host.clone(),
            stats: stats.clone(),
            traffic: self.store.scope(&cluster.stat_name),
            outliers: cluster.outlier_detection.as_ref().map(|_| self.store.scope(&cluster.stat_name)),
            tls: Rc::clone(tls),
            on_failure: Rc::clone(&self.on_failure),
        };
        Supervised::spawn_local(checks.run(first))
    }
}

/// The checks of one host.
struct Checks {
    cluster: Arc<Cluster>,
    host: Arc<Host>,
    stats: stat::Scope,
    /// Whether the cluster is used at all.
    traffic: cluster::Scope,
    outliers: Option<cluster_outlier::Scope>,
    tls: Tls,
    on_failure: OnFailure,
}

impl Checks {
    async fn run(self, First { mut unchecked, decides }: First) {
        let Some(config) = self.cluster.health_checks.first() else { return };
        let mut log = Log::open(config.event_log.as_deref());
        tokio::time::sleep(random(config.initial_jitter)).await;
        let mut state = State::new(decides);
        let mut session = check::Session::default();
        loop {
            self.stats.inc(stat::attempt);
            let check = session.check(&self.cluster, &self.host, config, &self.tls);
            let outcome = match tokio::time::timeout(config.timeout, check).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    session = check::Session::default();
                    state::Outcome::Timeout
                }
            };
            let change = state.step(config, &self.host, outcome, &self.stats);
            log.write(config, &self.cluster, &self.host, outcome, &change);
            self.follow(outcome, &change);
            unchecked.take();
            let used = self.traffic.counter(cluster::upstream_cx_total) > 0;
            tokio::time::sleep(change.wait(config, used) + jitter(config)).await;
        }
    }

    /// What others make of a result.
    fn follow(&self, outcome: state::Outcome, change: &Change) {
        if change.failed() {
            (self.on_failure)(&self.cluster, &self.host);
        }
        let unejects = self
            .cluster
            .outlier_detection
            .as_ref()
            .is_some_and(|config| config.successful_active_health_check_uneject_host);
        if outcome.is_success()
            && unejects
            && outlier::uneject(&self.host)
            && let Some(stats) = &self.outliers
        {
            stats.move_by(cluster_outlier::ejections_active, -1);
        }
        if change.recovered() {
            // It warms up as a new host does.
            let now = crate::outlier::now_ms();
            self.host.state.added_at_ms.store(now, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

fn is_checked(host: &Host) -> bool {
    !host.health_check.as_ref().is_some_and(|target| target.disabled)
}

fn jitter(config: &HealthCheck) -> Duration {
    random(config.interval_jitter) + random(config.interval * config.interval_jitter_percent / 100)
}

fn random(up_to: Duration) -> Duration {
    up_to.mul_f64(rand::rng().random_range(0.0..=1.0))
}
