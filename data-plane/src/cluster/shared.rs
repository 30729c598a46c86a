//! What clusters of all workers share: the counts behind circuit breakers, and what outlier detection looks at.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use sail_proxy_decide::host::Host;
use sail_proxy_decide::outlier::OutlierDetection;

use crate::pool::limits::Counts;
use crate::router::failure::Failure;

/// Counts by cluster name; they outlive configuration updates. Touched when a cluster is built.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<Arc<str>, Arc<[Counts; 2]>>>);

impl Registry {
    /// The counts of a cluster, for default and high priority.
    pub(crate) fn counts(&self, cluster: &Arc<str>) -> Arc<[Counts; 2]> {
        self.0.lock().entry(cluster.clone()).or_default().clone()
    }
}

/// Counts a response for outlier detection.
pub(crate) fn note_status(_detection: &OutlierDetection, _host: &Host, _status: u16) {}

/// Counts a try without response for outlier detection.
pub(crate) fn note_failure(_detection: &OutlierDetection, _host: &Host, _failure: &Failure) {}
