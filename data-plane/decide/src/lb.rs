//! Load balancing: policies as data, and the choice of a host.

mod aggregate;
mod balancer;
mod edf;
mod group;
mod orca;
mod overriding;
mod peek;
mod priority;
mod ring;
mod subset;
mod zone;

use std::sync::Arc;
use std::time::Duration;

pub use aggregate::{Aggregate, Member};
pub use balancer::{Balancer, Context, Events, Forced, Override};
pub use orca::{LoadReport, Reported, ReportedWeights};
pub use overriding::{Metadata, MetadataPath, OverrideHost, OverrideSource};
pub use subset::{Criteria, Fallback, Selector, SelectorFallback, Subset, SubsetEvents};
pub use zone::{LocalZone, ZoneEvent};

use crate::host::HealthStatus;

/// Which host a request goes to.
#[derive(Clone, Debug, PartialEq)]
pub enum LbPolicy {
    /// Each in turn, by weight.
    RoundRobin {
        /// New hosts warm up.
        slow_start: Option<SlowStart>,
    },
    /// The least busy of some picked at random.
    LeastRequest {
        /// How many are picked; 2 by default.
        choice_count: u32,
        /// How strongly requests under way count against a host's weight; 1 by default.
        active_request_bias: f64,
        /// Whether all hosts are looked at rather than some.
        full_scan: bool,
        /// New hosts warm up.
        slow_start: Option<SlowStart>,
    },
    /// Any.
    Random,
    /// By hash, on a ring.
    RingHash {
        /// The smallest ring; 1024 by default.
        minimum_ring_size: u64,
        /// The largest; 8 Mi by default.
        maximum_ring_size: u64,
        /// The hash.
        function: HashFunction,
    },
    /// By hash, in a table.
    Maglev {
        /// A prime; 65537 by default.
        table_size: u64,
    },
    /// The cluster's type decides: original destination, dynamic forward proxy.
    ClusterProvided,
    /// Among hosts whose metadata match the route's.
    Subset(Arc<Subset>),
    /// Each in turn, by the weights that hosts report.
    ClientSideWeightedRoundRobin(Arc<ReportedWeights>),
    /// The host that the request names.
    OverrideHost(Arc<OverrideHost>),
}

impl LbPolicy {
    /// How hosts' reports are read, where they are.
    pub fn reported_weights(&self) -> Option<&Arc<ReportedWeights>> {
        match self {
            Self::ClientSideWeightedRoundRobin(config) => Some(config),
            Self::OverrideHost(config) => config.fallback.reported_weights(),
            Self::Subset(config) => config.child.reported_weights(),
            _ => None,
        }
    }

    /// Whether it goes by turns or at random, so that its choices can be made ahead of time.
    fn is_foreseeable(&self) -> bool {
        matches!(
            self,
            Self::RoundRobin { .. }
                | Self::LeastRequest { .. }
                | Self::Random
                | Self::ClientSideWeightedRoundRobin(_)
        )
    }

    /// Where the host that was chosen is told, if it is.
    pub fn selected_host_key(&self) -> Option<&MetadataPath> {
        match self {
            Self::OverrideHost(config) => config.selected.as_ref(),
            _ => None,
        }
    }
}

/// The hash of rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunction {
    /// XXH64
    XxHash,
    /// MurmurHash2 of libstdc++.
    MurmurHash2,
}

/// `SlowStartConfig`
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlowStart {
    /// How long a host warms up.
    pub window: Duration,
    /// The curve: 1 is a line.
    pub aggression: f64,
    /// The least share, in percent.
    pub min_weight_percent: f64,
}

/// What all policies share.
#[derive(Clone, Debug, PartialEq)]
pub struct CommonLb {
    /// Below this share of healthy hosts (in percent) all hosts are used; 50 by default, 0 never.
    pub panic_threshold: f64,
    /// How localities share.
    pub locality: LocalityLb,
    /// Whether hashing takes host names rather than addresses.
    pub use_hostname_for_hashing: bool,
    /// Bounded load of consistent hashing: in percent of the mean.
    pub hash_balance_factor: Option<u32>,
    /// Whether connections are closed when the host set changes.
    pub close_connections_on_host_set_change: bool,
    /// Whether hosts wait for their first health check.
    pub ignore_new_hosts_until_first_health_check: bool,
    /// In which states a host is used that the request names.
    pub override_host_status: StatusSet,
}

/// A set of [`HealthStatus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusSet(u8);

impl StatusSet {
    /// The set of these.
    pub fn new(statuses: impl IntoIterator<Item = HealthStatus>) -> Self {
        Self(statuses.into_iter().fold(0, |set, status| set | 1 << status as u8))
    }

    /// Whether a status is among them.
    pub fn contains(self, status: HealthStatus) -> bool {
        self.0 & (1 << status as u8) != 0
    }
}

impl Default for StatusSet {
    /// Those in which hosts are used anyway.
    fn default() -> Self {
        Self::new([HealthStatus::Unknown, HealthStatus::Healthy, HealthStatus::Degraded])
    }
}

impl Default for CommonLb {
    fn default() -> Self {
        Self {
            panic_threshold: 50.0,
            locality: LocalityLb::None,
            use_hostname_for_hashing: false,
            hash_balance_factor: None,
            close_connections_on_host_set_change: false,
            ignore_new_hosts_until_first_health_check: false,
            override_host_status: StatusSet::default(),
        }
    }
}

/// How localities share traffic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LocalityLb {
    /// They do not matter.
    None,
    /// By their weights.
    Weighted,
    /// The own zone first.
    ZoneAware {
        /// For how many requests, in percent.
        routing_enabled: f64,
        /// So many hosts there must be.
        min_cluster_size: u64,
        /// Whether requests fail rather than go anywhere in panic.
        fail_traffic_on_panic: bool,
        /// All requests stay in the own zone if it has so many healthy hosts.
        force_local_zone: Option<u32>,
        /// Whether zones are compared by their hosts' weights rather than their number.
        by_weight: bool,
    },
}

#[cfg(test)]
mod tests;
