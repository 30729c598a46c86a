//! Outlier detection's clock: workers eject hosts as they fail; the main thread lets them back in, and looks at their
//! rates, once an interval.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use base::task::Supervised;
use sail_proxy_config::Snapshot;
use sail_proxy_decide::host::Endpoints;
use sail_proxy_decide::outlier::{Cause, Chance, Ejection, OutlierDetection, sweep};

use crate::stats::Store;
use crate::stats::sets::cluster_outlier as stat;

static START: OnceLock<Instant> = OnceLock::new();

/// The time on the clock that all threads share, and a random number.
pub(crate) fn chance() -> Chance {
    let now = Instant::now();
    let since = now.saturating_duration_since(*START.get_or_init(|| now));
    Chance { now_ms: since.as_millis() as u64, random: rand::random() }
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
        Cause::FailurePercentage => {
            (stat::ejections_detected_failure_percentage, stat::ejections_enforced_failure_percentage)
        }
    };
    stats.inc(detected);
    if enforced {
        stats.inc(carried_out);
        stats.inc(stat::ejections_enforced_total);
        stats.move_by(stat::ejections_active, 1);
    }
    if matches!(found, Ejection::Overflow(_)) {
        stats.inc(stat::ejections_overflow);
    }
}

/// The sweeps of all clusters that have detection.
pub struct Outliers {
    store: Arc<Store>,
    clusters: RefCell<BTreeMap<Arc<str>, Entry>>,
}

struct Entry {
    version: u64,
    endpoints: Rc<RefCell<Arc<Endpoints>>>,
    _task: Supervised<()>,
}

impl std::fmt::Debug for Outliers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outliers").field("clusters", &self.clusters.borrow().len()).finish_non_exhaustive()
    }
}

impl Outliers {
    /// None yet.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store, clusters: RefCell::default() }
    }

    /// Sweeps what the snapshot says from now on.
    pub fn update(&self, snapshot: &Snapshot) {
        let mut clusters = self.clusters.borrow_mut();
        clusters.retain(|name, _| snapshot.clusters.contains_key(name));
        for (name, cluster) in &snapshot.clusters {
            let endpoints = snapshot.endpoints(cluster).or_else(|| snapshot.assignments.get(name));
            let (Some(config), Some(endpoints)) = (&cluster.outlier_detection, endpoints) else {
                clusters.remove(name);
                continue;
            };
            if let Some(entry) = clusters.get(name).filter(|entry| entry.version == cluster.version) {
                entry.endpoints.replace(endpoints.clone());
                continue;
            }
            let shared = Rc::new(RefCell::new(endpoints.clone()));
            let stats = self.store.scope(&cluster.stat_name);
            let task = Supervised::spawn_local(run(config.clone(), shared.clone(), stats));
            clusters.insert(name.clone(), Entry { version: cluster.version, endpoints: shared, _task: task });
        }
    }
}

async fn run(config: OutlierDetection, endpoints: Rc<RefCell<Arc<Endpoints>>>, stats: stat::Scope) {
    loop {
        tokio::time::sleep(config.interval.max(std::time::Duration::from_millis(10))).await;
        let endpoints = endpoints.borrow().clone();
        let swept = sweep(&config, &endpoints, chance());
        stats.move_by(stat::ejections_active, -i64::from(swept.unejected));
        swept.findings.into_iter().for_each(|found| count(&stats, found));
    }
}
