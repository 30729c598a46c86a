//! Active health checks, on the main thread: one task a cluster with checks, one a host. Results are flags on the host,
//! which workers read with their next choice.

mod check;

pub use check::Tls;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use base::task::Supervised;
use rand::Rng;
use sail_proxy_config::Snapshot;
use sail_proxy_config::cluster::{Cluster, HealthCheck};
use sail_proxy_decide::address::Address;
use sail_proxy_decide::host::{Endpoints, HealthFlag, HealthStatus, Host};

use crate::stats::Store;
use crate::stats::sets::cluster_health_check as stat;

/// All clusters whose hosts are checked.
pub struct HealthChecks {
    store: Arc<Store>,
    clusters: RefCell<BTreeMap<Arc<str>, Checked>>,
}

struct Checked {
    version: u64,
    endpoints: Arc<Endpoints>,
    stats: stat::Scope,
    hosts: BTreeMap<Address, Supervised<()>>,
}

impl std::fmt::Debug for HealthChecks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HealthChecks")
            .field("clusters", &self.clusters.borrow().len())
            .finish_non_exhaustive()
    }
}

impl HealthChecks {
    /// None yet.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, clusters: RefCell::default() }
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
            let endpoints = snapshot.endpoints(cluster).or_else(|| snapshot.assignments.get(name));
            let Some(endpoints) = endpoints else { continue };
            let entry = clusters.get(name);
            if entry.is_some_and(|c| c.version == cluster.version && Arc::ptr_eq(&c.endpoints, endpoints)) {
                continue;
            }
            let mut before = clusters.remove(name).filter(|checked| checked.version == cluster.version);
            let stats = match &before {
                Some(checked) => checked.stats.clone(),
                None => self.store.scope(&cluster.stat_name),
            };
            let mut checked = Checked {
                version: cluster.version,
                endpoints: endpoints.clone(),
                stats,
                hosts: BTreeMap::new(),
            };
            for host in endpoints.hosts().filter(|host| is_checked(host)) {
                let running = before.as_mut().and_then(|checked| checked.hosts.remove(&host.address));
                let task = running.unwrap_or_else(|| start(cluster, host, &checked.stats, tls));
                checked.hosts.insert(host.address.clone(), task);
            }
            clusters.insert(name.clone(), checked);
        }
    }
}

fn is_checked(host: &Host) -> bool {
    !host.health_check.as_ref().is_some_and(|target| target.disabled)
        && host.health_status != HealthStatus::Unhealthy
}

fn start(cluster: &Arc<Cluster>, host: &Arc<Host>, stats: &stat::Scope, tls: &Tls) -> Supervised<()> {
    // Until it has passed once, it is not used.
    host.state.set(HealthFlag::PendingActiveHealthCheck);
    let (cluster, host, stats, tls) = (cluster.clone(), host.clone(), stats.clone(), Rc::clone(tls));
    Supervised::spawn_local(async move {
        let Some(config) = cluster.health_checks.first() else { return };
        tokio::time::sleep(random(config.initial_jitter)).await;
        let mut state = State::default();
        loop {
            stats.inc(stat::attempt);
            let result =
                tokio::time::timeout(config.timeout, check::check(&cluster, &host, config, &tls)).await;
            let outcome = match result {
                Ok(Ok(())) => Outcome::Success,
                Ok(Err(check::Error::Refused(_))) => Outcome::Failure,
                Ok(Err(_)) | Err(_) => Outcome::NetworkFailure,
            };
            let wait = state.step(config, &host, outcome, &stats);
            tokio::time::sleep(wait + jitter(config)).await;
        }
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Success,
    /// The host answered, and not well.
    Failure,
    /// The host did not answer.
    NetworkFailure,
}

/// What a host's checks have shown so far.
#[derive(Debug, Default)]
struct State {
    checked: bool,
    healthy: bool,
    in_a_row: u32,
}

impl State {
    /// Takes a result, sets the host's flags, and says how long to wait.
    fn step(&mut self, config: &HealthCheck, host: &Host, outcome: Outcome, stats: &stat::Scope) -> Duration {
        let success = outcome == Outcome::Success;
        stats.inc(if success { stat::success } else { stat::failure });
        if outcome == Outcome::NetworkFailure {
            stats.inc(stat::network_failure);
        }
        let first = !std::mem::replace(&mut self.checked, true);
        self.in_a_row = if success == self.healthy { 0 } else { self.in_a_row + 1 };
        let threshold = if success { config.healthy_threshold } else { config.unhealthy_threshold };
        // The first result decides by itself, and so does an answer that says no.
        let decided = first || self.in_a_row >= threshold.max(1) || outcome == Outcome::Failure;
        let changed = first || (success != self.healthy && decided);
        if changed {
            self.in_a_row = 0;
            if self.healthy != success {
                stats.move_by(stat::healthy, if success { 1 } else { -1 });
            }
            self.healthy = success;
            if success {
                host.state.clear(HealthFlag::FailedActiveHealthCheck);
            } else {
                host.state.set(HealthFlag::FailedActiveHealthCheck);
            }
            host.state.clear(HealthFlag::PendingActiveHealthCheck);
        }
        match (self.healthy, changed) {
            (true, true) => config.healthy_edge_interval,
            (true, false) if success => config.interval,
            (true, false) => config.interval,
            (false, true) => config.unhealthy_edge_interval,
            (false, false) => config.unhealthy_interval,
        }
    }
}

fn jitter(config: &HealthCheck) -> Duration {
    random(config.interval_jitter) + random(config.interval * config.interval_jitter_percent / 100)
}

fn random(up_to: Duration) -> Duration {
    up_to.mul_f64(rand::rng().random_range(0.0..=1.0))
}
