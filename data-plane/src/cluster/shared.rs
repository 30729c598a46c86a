//! What clusters of all workers share: the counts behind circuit breakers.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::pool::limits::Counts;

/// Counts by cluster name; they outlive configuration updates. Touched when a cluster is built.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<Arc<str>, Arc<[Counts; 2]>>>);

impl Registry {
    /// The counts of a cluster, for default and high priority.
    pub(crate) fn counts(&self, cluster: &Arc<str>) -> Arc<[Counts; 2]> {
        self.0.lock().entry(cluster.clone()).or_default().clone()
    }
}
