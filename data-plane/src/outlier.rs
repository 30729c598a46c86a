//! Outlier detection's clock: workers eject hosts as they fail; the main thread lets them back in, and looks at their
//! rates, once an interval.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use base::task::Supervised;
use sail_proxy_config::Snapshot;
use sail_proxy_config::cluster::Discovery;
use sail_proxy_decide::host::{Endpoints, Host};
use sail_proxy_decide::outlier::{Cause, Chance, Ejection, OutlierDetection, sweep};

use crate::clock;
use crate::cluster::shared::{Registry, hosts_of};
use crate::stats::Store;
use crate::stats::sets::cluster_outlier as stat;

static START: OnceLock<Instant> = OnceLock::new();

/// Milliseconds on the clock that all threads share.
pub(crate) fn now_ms() -> u64 {
    let now = clock::now();
    // The first caller is a moment after zero, which is "never".
    now.saturating_duration_since(*START.get_or_init(|| now)).as_millis() as u64 + 1
}

/// The time on that clock, and a random number.
pub(crate) fn chance() -> Chance {
    Chance { now_ms: now_ms(), random: rand::random() }
}

/// Counts what was found.
pub(crate) fn count(stats: &stat::Scope, found: Ejection) {
    let (cause, enforced) = match found {
        Ejection::Enforced(cause) => (cause, true),
        Ejection::NotEnforced(cause) | Ejection::Overflow(cause) => (cause, false),
    };
    let (detected, carried_out) = match cause {
        Cause::Consecutive5xx => {
            (stat::ejections_detected_consecutive_5xx, stat::ejections_enforced_consecutive_5xx)
        }
        Cause::ConsecutiveGatewayFailure => (
            stat::ejections_detected_consecutive_gateway_failure,
            stat::ejections_enforced_consecutive_gateway_failure,
        ),
        Cause::ConsecutiveLocalOriginFailure => (
            stat::ejections_detected_consecutive_local_origin_failure,
            stat::ejections_enforced_consecutive_local_origin_failure,
        ),
        Cause::SuccessRate => (stat::ejections_detected_success_rate, stat::ejections_enforced_success_rate),
        Cause::LocalOriginSuccessRate => (
            stat::ejections_detected_local_origin_success_rate,
            stat::ejections_enforced_local_origin_success_rate,
        ),
        Cause::FailurePercentage => {
            (stat::ejections_detected_failure_percentage, stat::ejections_enforced_failure_percentage)
        }
        Cause::LocalOriginFailurePercentage => (
            stat::ejections_detected_local_origin_failure_percentage,
            stat::ejections_enforced_local_origin_failure_percentage,
        ),
    };
    stats.inc(detected);
    if enforced {
        stats.inc(carried_out);
        stats.inc(stat::ejections_enforced_total);
        stats.move_by(stat::ejections_active, 1);
    }
    // Those that came first, and count on under their old names.
    let old = match cause {
        Cause::Consecutive5xx => Some(stat::ejections_consecutive_5xx),
        Cause::SuccessRate => Some(stat::ejections_success_rate),
        _ => None,
    };
    if let Some(old) = old {
        stats.inc(old);
    }
    if matches!(found, Ejection::Overflow(_)) {
        stats.inc(stat::ejections_overflow);
    } else if old.is_some() {
        stats.inc(stat::ejections_total);
    }
}

/// The sweeps of all clusters that have detection.
pub struct Outliers {
    store: Arc<Store>,
    registry: Arc<Registry>,
    clusters: RefCell<BTreeMap<Arc<str>, Entry>>,
}

struct Entry {
    version: u64,
    hosts: Rc<Hosts>,
    _task: Supervised<()>,
}

/// The hosts of a cluster, as they are when they are swept.
enum Hosts {
    Given(RefCell<Arc<Endpoints>>),
    /// Those that original destinations made.
    Found(Arc<Registry>, Arc<str>),
}

impl Hosts {
    fn all(&self) -> Vec<Arc<Host>> {
        match self {
            Self::Given(endpoints) => endpoints.borrow().hosts().cloned().collect(),
            Self::Found(registry, cluster) => registry.destinations(cluster),
        }
    }
}

impl std::fmt::Debug for Outliers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outliers").field("clusters", &self.clusters.borrow().len()).finish_non_exhaustive()
    }
}

impl Outliers {
    /// None yet.
    pub(crate) fn new(store: Arc<Store>, registry: Arc<Registry>) -> Self {
        Self { store, registry, clusters: RefCell::default() }
    }

    /// Sweeps what the snapshot says from now on.
    pub fn update(&self, snapshot: &Snapshot) {
        let mut clusters = self.clusters.borrow_mut();
        clusters.retain(|name, _| snapshot.clusters.contains_key(name));
        for (name, cluster) in &snapshot.clusters {
            let Some(config) = &cluster.outlier_detection else {
                clusters.remove(name);
                continue;
            };
            let destinations = matches!(cluster.discovery, Discovery::OriginalDst(_));
            let endpoints = hosts_of(snapshot, cluster);
            if let Some(entry) = clusters.get(name).filter(|entry| entry.version == cluster.version) {
                if let (Hosts::Given(old), Some(endpoints)) = (&*entry.hosts, endpoints) {
                    old.replace(endpoints.clone());
                }
                continue;
            }
            let hosts = Rc::new(match endpoints {
                _ if destinations => Hosts::Found(self.registry.clone(), name.clone()),
                Some(endpoints) => Hosts::Given(RefCell::new(endpoints.clone())),
                None => {
                    clusters.remove(name);
                    continue;
                }
            });
            let stats = self.store.scope(&cluster.stat_name);
            let task = Supervised::spawn_local(run((**config).clone(), hosts.clone(), stats));
            clusters.insert(name.clone(), Entry { version: cluster.version, hosts, _task: task });
        }
    }
}

async fn run(config: OutlierDetection, hosts: Rc<Hosts>, stats: stat::Scope) {
    loop {
        tokio::time::sleep(config.interval.max(std::time::Duration::from_millis(10))).await;
        let hosts = hosts.all();
        let swept = sweep(&config, hosts.iter(), chance());
        stats.move_by(stat::ejections_active, -i64::from(swept.unejected));
        swept.findings.into_iter().for_each(|found| count(&stats, found));
    }
}
