//! Circuit breakers of a cluster. They hold across workers, so they are shared counters; a limit that nobody set (the
//! default of a mesh is the largest number) is not counted at all, which keeps the usual case free of contention.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use sail_proxy_config::cluster::Thresholds;

/// One limit. Clones share their count.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    count: Arc<AtomicU32>,
    max: u32,
}

/// What a holder of a place under a limit keeps; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Permit(Option<Arc<AtomicU32>>);

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.fetch_sub(1, Relaxed);
        }
    }
}

impl Limit {
    /// A limit over a count that other workers may share.
    pub(crate) fn new(count: Arc<AtomicU32>, max: u32) -> Self {
        Self { count, max }
    }

    /// A place, if one is free.
    pub(crate) fn acquire(&self) -> Option<Permit> {
        if self.max == u32::MAX {
            return Some(Permit(None));
        }
        if self.count.fetch_add(1, Relaxed) < self.max {
            return Some(Permit(Some(self.count.clone())));
        }
        self.count.fetch_sub(1, Relaxed);
        None
    }

    /// A place beyond the limit.
    pub(crate) fn exceed(&self) -> Permit {
        if self.max == u32::MAX {
            return Permit(None);
        }
        self.count.fetch_add(1, Relaxed);
        Permit(Some(self.count.clone()))
    }
}

/// The limits of a cluster, at one priority.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) connections: Limit,
    pub(crate) pending: Limit,
    pub(crate) requests: Limit,
    pub(crate) retries: Limit,
}

impl Limits {
    /// The configured limits over a cluster's counts.
    pub(crate) fn new(counts: &Counts, thresholds: &Thresholds) -> Self {
        let budget =
            thresholds.retry_budget.map(|budget| budget.min_retry_concurrency.max(thresholds.max_retries));
        Self {
            connections: Limit::new(counts.connections.clone(), thresholds.max_connections),
            pending: Limit::new(counts.pending.clone(), thresholds.max_pending_requests),
            requests: Limit::new(counts.requests.clone(), thresholds.max_requests),
            retries: Limit::new(counts.retries.clone(), budget.unwrap_or(thresholds.max_retries)),
        }
    }
}

/// The counts behind the limits; they outlive a change of the limits.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) connections: Arc<AtomicU32>,
    pub(crate) pending: Arc<AtomicU32>,
    pub(crate) requests: Arc<AtomicU32>,
    pub(crate) retries: Arc<AtomicU32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_free_again_after_its_holder() {
        let limit = Limit::new(Arc::default(), 1);
        let held = limit.acquire();
        assert!(held.is_some());
        assert!(limit.acquire().is_none());
        drop(held);
        assert!(limit.acquire().is_some());
    }

    #[test]
    fn no_limit_counts_nothing() {
        let limit = Limit::new(Arc::default(), u32::MAX);
        let _held: Vec<_> = (0..10).map(|_| limit.acquire().unwrap()).collect();
        assert_eq!(limit.count.load(Relaxed), 0);
    }
}
