//! Circuit breakers of a cluster. They hold across workers, so they are shared counters; a limit that nobody set (the
//! default of a mesh is the largest number) is not counted at all, which keeps the usual case free of contention.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use sail_proxy_config::cluster::{RetryBudget, Thresholds};

/// One limit over a count of its own. Clones share the count.
#[derive(Clone, Debug)]
pub(crate) struct Limit {
    count: Arc<AtomicU32>,
    max: u32,
}

/// What a holder of a place under a limit keeps; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Permit(Place);

#[derive(Debug)]
enum Place {
    Uncounted,
    Own(Arc<AtomicU32>),
    Of(Arc<Counts>, Level, Resource),
}

impl Drop for Permit {
    fn drop(&mut self) {
        match &self.0 {
            Place::Uncounted => {}
            Place::Own(count) => {
                count.fetch_sub(1, Relaxed);
            }
            Place::Of(counts, level, resource) => {
                counts.cell(*level, *resource).fetch_sub(1, Relaxed);
            }
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
            return Some(Permit(Place::Uncounted));
        }
        if self.count.fetch_add(1, Relaxed) < self.max {
            return Some(Permit(Place::Own(self.count.clone())));
        }
        self.count.fetch_sub(1, Relaxed);
        None
    }
}

/// What a cluster has a limited number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Connections,
    Pending,
    Requests,
    Retries,
    Pools,
}

/// All of them, in the order of their places.
pub(crate) const RESOURCES: [Resource; 5] =
    [Resource::Connections, Resource::Pending, Resource::Requests, Resource::Retries, Resource::Pools];

/// A routing priority as limits have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Default,
    High,
}

/// The counts behind the limits of a cluster; they outlive a change of the limits.
#[derive(Debug, Default)]
pub(crate) struct Counts([[AtomicU32; 5]; 2]);

impl Counts {
    fn cell(&self, level: Level, resource: Resource) -> &AtomicU32 {
        &self.0[level as usize][resource as usize]
    }

    /// How many there are, as far as they are counted.
    pub(crate) fn get(&self, level: Level, resource: Resource) -> u32 {
        self.cell(level, resource).load(Relaxed)
    }
}

/// The limits of a cluster, at one priority.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    counts: Arc<Counts>,
    level: Level,
    max: [u32; 5],
    budget: Option<RetryBudget>,
    /// Connections to one host.
    pub(crate) per_host: u32,
}

/// The configured limits in the order of their places.
pub(crate) fn maxima(thresholds: &Thresholds) -> [u32; 5] {
    [
        thresholds.max_connections,
        thresholds.max_pending_requests,
        thresholds.max_requests,
        thresholds.max_retries,
        thresholds.max_connection_pools,
    ]
}

/// How many retries a budget allows while so many requests are under way.
pub(crate) fn allowed_retries(budget: &RetryBudget, requests: u32) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most the number of requests"
    )]
    let share = (f64::from(requests) * budget.budget_percent / 100.0) as u32;
    share.max(budget.min_retry_concurrency)
}

impl Limits {
    /// The configured limits over a cluster's counts.
    pub(crate) fn new(counts: &Arc<Counts>, level: Level, thresholds: &Thresholds) -> Self {
        Self {
            counts: Arc::clone(counts),
            level,
            max: maxima(thresholds),
            budget: thresholds.retry_budget,
            per_host: thresholds.max_connections_per_host,
        }
    }

    /// A place, if one is free.
    pub(crate) fn acquire(&self, resource: Resource) -> Option<Permit> {
        if !self.is_counted(resource) {
            return Some(Permit(Place::Uncounted));
        }
        let cell = self.counts.cell(self.level, resource);
        if cell.fetch_add(1, Relaxed) < self.max(resource) {
            return Some(Permit(Place::Of(Arc::clone(&self.counts), self.level, resource)));
        }
        cell.fetch_sub(1, Relaxed);
        None
    }

    /// A place beyond the limit.
    pub(crate) fn exceed(&self, resource: Resource) -> Permit {
        if !self.is_counted(resource) {
            return Permit(Place::Uncounted);
        }
        self.counts.cell(self.level, resource).fetch_add(1, Relaxed);
        Permit(Place::Of(Arc::clone(&self.counts), self.level, resource))
    }

    fn is_counted(&self, resource: Resource) -> bool {
        match (resource, &self.budget) {
            // A budget is a share of these.
            (Resource::Requests | Resource::Pending | Resource::Retries, Some(_)) => true,
            _ => self.max[resource as usize] != u32::MAX || self.level == Level::High,
        }
    }

    fn max(&self, resource: Resource) -> u32 {
        match (resource, &self.budget) {
            (Resource::Retries, Some(budget)) => {
                let of = |resource| self.counts.get(self.level, resource);
                allowed_retries(budget, of(Resource::Requests).saturating_add(of(Resource::Pending)))
            }
            _ => self.max[resource as usize],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(thresholds: &Thresholds) -> Limits {
        Limits::new(&Arc::default(), Level::Default, thresholds)
    }

    #[test]
    fn a_place_is_free_again_after_its_holder() {
        let limit = Limit::new(Arc::default(), 1);
        let held = limit.acquire();
        assert!(held.is_some());
        assert!(limit.acquire().is_none());
        drop(held);
        assert!(limit.acquire().is_some());

        let limits = limits(&Thresholds { max_requests: 1, ..Thresholds::default() });
        let held = limits.acquire(Resource::Requests);
        assert!(held.is_some());
        assert!(limits.acquire(Resource::Requests).is_none());
        assert!(limits.acquire(Resource::Connections).is_some(), "limits do not share");
        drop(held);
        assert!(limits.acquire(Resource::Requests).is_some());
    }

    #[test]
    fn no_limit_counts_nothing() {
        let limits = limits(&Thresholds { max_requests: u32::MAX, ..Thresholds::default() });
        let _held: Vec<_> = (0..10).map(|_| limits.acquire(Resource::Requests).unwrap()).collect();
        assert_eq!(limits.counts.get(Level::Default, Resource::Requests), 0);
    }

    #[test]
    fn a_budget_grows_with_the_requests() {
        let retry_budget = Some(RetryBudget { budget_percent: 25.0, min_retry_concurrency: 1 });
        let limits = limits(&Thresholds {
            max_requests: u32::MAX,
            max_retries: 0,
            retry_budget,
            ..Thresholds::default()
        });
        let one = limits.acquire(Resource::Retries);
        assert!(one.is_some());
        assert!(limits.acquire(Resource::Retries).is_none());
        let _requests: Vec<_> = (0..12).map(|_| limits.acquire(Resource::Requests).unwrap()).collect();
        let _more: Vec<_> = (0..2).map(|_| limits.acquire(Resource::Retries).unwrap()).collect();
        assert!(limits.acquire(Resource::Retries).is_none(), "a quarter of twelve is three");
    }
}
