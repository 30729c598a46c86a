//! Upstream hosts: what load balancers choose from, by priority and locality.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use hashbrown::HashMap;

use crate::address::Address;
use crate::fraction::Fraction;
use crate::route::Metadata;

/// An upstream host as configuration describes it. What happens to it is in [`HostState`].
#[derive(Debug)]
pub struct Host {
    /// Where it is reached.
    pub address: Address,
    /// More addresses of the same host, tried in turn when connecting.
    pub additional_addresses: Box<[Address]>,
    /// Its name, for `auto_host_rewrite`, health checks and hashing; may be empty.
    pub hostname: Arc<str>,
    /// Its share; at least 1.
    pub weight: u32,
    /// 0 is the highest.
    pub priority: u32,
    /// Where it is.
    pub locality: Arc<Locality>,
    /// Metadata by namespace.
    pub metadata: Metadata,
    /// What the control plane says of it.
    pub health_status: HealthStatus,
    /// Where its health is checked, if elsewhere.
    pub health_check: Option<Arc<HealthCheckTarget>>,
    /// What happens to it; kept over updates that keep the host.
    pub state: Arc<HostState>,
}

/// `Endpoint.HealthCheckConfig`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheckTarget {
    /// Another address to check.
    pub address: Option<Address>,
    /// Another port to check.
    pub port: Option<u16>,
    /// The host header of checks.
    pub hostname: Arc<str>,
    /// Whether it is not checked.
    pub disabled: bool,
}

/// `Locality`
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// The region.
    pub region: Arc<str>,
    /// The zone.
    pub zone: Arc<str>,
    /// The sub-zone.
    pub sub_zone: Arc<str>,
}

/// `HealthStatus`: what the control plane says of a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthStatus {
    /// Nothing: it counts as healthy.
    #[default]
    Unknown,
    /// Healthy.
    Healthy,
    /// Not to be used.
    Unhealthy,
    /// Not to be used but by connections and sessions that it has.
    Draining,
    /// Not to be used.
    Timeout,
    /// Used when the healthy ones do not suffice.
    Degraded,
}

/// How healthy a host is, everything considered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Not to be used, except in panic.
    Unhealthy,
    /// Used when the healthy ones do not suffice.
    Degraded,
    /// In use.
    Healthy,
}

/// Reasons found at run time for which a host is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthFlag {
    /// Active health checks fail.
    FailedActiveHealthCheck,
    /// Outlier detection ejected it.
    FailedOutlierCheck,
    /// Active health checks say that it is degraded.
    DegradedActiveHealthCheck,
    /// It has not been checked yet, and does not count until it was.
    PendingActiveHealthCheck,
    /// Discovery took it away; it goes when its health checks fail.
    PendingDynamicRemoval,
}

impl HealthFlag {
    const fn bit(self) -> u8 {
        match self {
            Self::FailedActiveHealthCheck => 1,
            Self::FailedOutlierCheck => 2,
            Self::DegradedActiveHealthCheck => 4,
            Self::PendingActiveHealthCheck => 8,
            Self::PendingDynamicRemoval => 16,
        }
    }
}

/// Counts the changes of health among the hosts of one cluster: what was derived from their health under another
/// number is stale.
#[derive(Clone, Debug, Default)]
pub struct HealthEpoch(Arc<AtomicU32>);

impl HealthEpoch {
    /// The number now.
    pub fn now(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    fn bump(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// What happens to a host. Shared by all workers, relaxed: a decision a moment late does no harm.
#[derive(Debug, Default)]
pub struct HostState {
    flags: AtomicU8,
    /// Requests under way, over all workers.
    pub active_requests: AtomicU32,
    /// Connections, over all workers.
    pub active_connections: AtomicU32,
    /// Requests that wait for a connection, over all workers.
    pub pending_requests: AtomicU32,
    /// Connections that were asked for, so far.
    pub connections: AtomicU64,
    /// Responses that were no server error.
    pub succeeded: AtomicU64,
    /// Server errors, and requests that brought no response.
    pub failed: AtomicU64,
    /// Requests that took too long.
    pub timed_out: AtomicU64,
    /// Connections that were asked for and did not come about.
    pub connect_failures: AtomicU64,
    /// Milliseconds (of the process' clock) at which it was first seen or became healthy; for slow start.
    pub added_at_ms: AtomicU64,
    outlier: OnceLock<Box<crate::outlier::HostCounters>>,
    reported: OnceLock<Box<crate::lb::Reported>>,
    epoch: HealthEpoch,
}

impl HostState {
    /// A state whose changes of health count in this epoch.
    pub fn new(epoch: HealthEpoch) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// What the host reports of its load.
    pub fn reported(&self) -> &crate::lb::Reported {
        self.reported.get_or_init(Box::default)
    }

    /// Sets a flag; says whether it was not set before.
    pub fn set(&self, flag: HealthFlag) -> bool {
        let new = self.flags.fetch_or(flag.bit(), Ordering::AcqRel) & flag.bit() == 0;
        if new {
            self.epoch.bump();
        }
        new
    }

    /// Clears a flag; says whether it was set before.
    pub fn clear(&self, flag: HealthFlag) -> bool {
        let was = self.flags.fetch_and(!flag.bit(), Ordering::AcqRel) & flag.bit() != 0;
        if was {
            self.epoch.bump();
        }
        was
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: HealthFlag) -> bool {
        self.flags.load(Ordering::Relaxed) & flag.bit() != 0
    }

    /// What outlier detection counts of it; there from the first count on.
    pub fn outlier(&self) -> &crate::outlier::HostCounters {
        self.outlier.get_or_init(Box::default)
    }

    /// The same, if anything was counted.
    pub fn counted(&self) -> Option<&crate::outlier::HostCounters> {
        self.outlier.get().map(|counters| &**counters)
    }
}

impl Host {
    /// How healthy it is.
    pub fn health(&self) -> Health {
        let flags = self.state.flags.load(Ordering::Relaxed);
        let failed = HealthFlag::FailedActiveHealthCheck.bit()
            | HealthFlag::FailedOutlierCheck.bit()
            | HealthFlag::PendingActiveHealthCheck.bit();
        match self.health_status {
            HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout => Health::Unhealthy,
            _ if flags & failed != 0 => Health::Unhealthy,
            HealthStatus::Degraded => Health::Degraded,
            _ if flags & HealthFlag::DegradedActiveHealthCheck.bit() != 0 => Health::Degraded,
            HealthStatus::Unknown | HealthStatus::Healthy => Health::Healthy,
        }
    }

    /// Whether it does not count among the hosts of which a share must be healthy: it is on its way out.
    pub fn is_draining(&self) -> bool {
        self.health_status == HealthStatus::Draining
    }

    /// The one status that stands for everything known of it.
    pub fn status(&self) -> HealthStatus {
        let flags = self.state.flags.load(Ordering::Relaxed);
        let failed = HealthFlag::FailedActiveHealthCheck.bit() | HealthFlag::FailedOutlierCheck.bit();
        match self.health_status {
            status @ (HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout) => status,
            _ if flags & failed != 0 => HealthStatus::Unhealthy,
            HealthStatus::Degraded => HealthStatus::Degraded,
            _ if flags & HealthFlag::DegradedActiveHealthCheck.bit() != 0 => HealthStatus::Degraded,
            status @ (HealthStatus::Unknown | HealthStatus::Healthy) => status,
        }
    }

    /// A value of its metadata: namespace and key.
    pub fn metadata(&self, namespace: &str, key: &str) -> Option<&serde_json::Value> {
        self.metadata.as_ref()?.get(namespace)?.get(key)
    }
}

/// The hosts of one locality in one priority.
#[derive(Clone, Debug)]
pub struct LocalityHosts {
    /// Where.
    pub locality: Arc<Locality>,
    /// Its share under locality-weighted balancing; `None`: not given, which gets no traffic there.
    pub weight: Option<u32>,
    /// Its hosts, as a range in the priority's list.
    pub hosts: std::ops::Range<usize>,
}

/// The hosts of one priority.
#[derive(Clone, Debug, Default)]
pub struct HostSet {
    /// All of them, grouped by locality.
    pub hosts: Box<[Arc<Host>]>,
    /// The groups.
    pub localities: Box<[LocalityHosts]>,
}

/// The hosts of a cluster: a load assignment.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// By priority; none is left out between.
    pub priorities: Box<[HostSet]>,
    /// How they are used.
    pub policy: AssignmentPolicy,
    /// A hash of the protobuf that it was built from.
    pub version: u64,
    /// Counts changes of their health; the same over updates.
    pub epoch: HealthEpoch,
}

/// `ClusterLoadAssignment.Policy`
#[derive(Clone, Debug, PartialEq)]
pub struct AssignmentPolicy {
    /// A priority spills over when less than 100/factor of its hosts are healthy; 140 by default.
    pub overprovisioning_factor: u32,
    /// Whether host weights count in a priority's health.
    pub weighted_priority_health: bool,
    /// The share of requests that is dropped before a host is chosen.
    pub drop_overload: Option<Fraction>,
}

impl Default for AssignmentPolicy {
    fn default() -> Self {
        Self { overprovisioning_factor: 140, weighted_priority_health: false, drop_overload: None }
    }
}

/// A group of hosts to build [`Endpoints`] from.
#[derive(Debug)]
pub struct Group {
    /// Where.
    pub locality: Arc<Locality>,
    /// 0 is the highest.
    pub priority: u32,
    /// The locality's share.
    pub weight: Option<u32>,
    /// Its hosts; priority, locality and state are filled in.
    pub hosts: Vec<Host>,
}

impl Endpoints {
    /// Builds the host sets. Hosts that `previous` has, by address, keep their state.
    pub fn build(
        groups: Vec<Group>,
        policy: AssignmentPolicy,
        version: u64,
        previous: Option<&Self>,
    ) -> Self {
        let known: HashMap<&Address, &Arc<HostState>> =
            previous.into_iter().flat_map(Self::hosts).map(|host| (&host.address, &host.state)).collect();
        let epoch = previous.map(|previous| previous.epoch.clone()).unwrap_or_default();
        let count = groups.iter().map(|group| group.priority as usize + 1).max().unwrap_or(0);
        let mut sets: Vec<(Vec<Arc<Host>>, Vec<LocalityHosts>)> = vec![Default::default(); count];
        for group in groups {
            let Some((hosts, localities)) = sets.get_mut(group.priority as usize) else { continue };
            let start = hosts.len();
            hosts.extend(group.hosts.into_iter().map(|mut host| {
                host.priority = group.priority;
                host.locality = Arc::clone(&group.locality);
                host.state = match known.get(&host.address) {
                    Some(state) => Arc::clone(state),
                    None => Arc::new(HostState::new(epoch.clone())),
                };
                Arc::new(host)
            }));
            localities.push(LocalityHosts {
                locality: group.locality,
                weight: group.weight,
                hosts: start..hosts.len(),
            });
        }
        let sets = sets
            .into_iter()
            .map(|(hosts, localities)| HostSet { hosts: hosts.into(), localities: localities.into() });
        Self { priorities: sets.collect(), policy, version, epoch }
    }

    /// The hosts among these that a predicate picks, by the same priorities and localities. They are the same hosts:
    /// their state is shared, and so is the epoch.
    #[must_use]
    pub fn filtered(&self, pick: impl Fn(&Host) -> bool) -> Self {
        let sets = self.priorities.iter().map(|set| {
            let mut hosts = Vec::new();
            let localities = set.localities.iter().map(|locality| {
                let start = hosts.len();
                let here = set.hosts.get(locality.hosts.clone()).unwrap_or_default();
                hosts.extend(here.iter().filter(|host| pick(host)).cloned());
                LocalityHosts {
                    locality: Arc::clone(&locality.locality),
                    weight: locality.weight,
                    hosts: start..hosts.len(),
                }
            });
            let localities: Box<[LocalityHosts]> = localities.collect();
            HostSet { hosts: hosts.into(), localities }
        });
        Self {
            priorities: sets.collect(),
            policy: self.policy.clone(),
            version: self.version,
            epoch: self.epoch.clone(),
        }
    }

    /// These hosts and some more, which stay in their priorities and localities.
    #[must_use]
    pub fn with(&self, more: &[Arc<Host>]) -> Self {
        let count = more.iter().map(|host| host.priority as usize + 1).max().unwrap_or(0);
        let sets = (0..self.priorities.len().max(count)).map(|priority| {
            let before = self.priorities.get(priority).cloned().unwrap_or_default();
            let (mut hosts, mut localities) = (before.hosts.into_vec(), before.localities.into_vec());
            for host in more.iter().filter(|host| host.priority as usize == priority) {
                let weight = localities.iter().find(|there| there.locality == host.locality);
                let weight = weight.and_then(|there| there.weight);
                let locality = Arc::clone(&host.locality);
                localities.push(LocalityHosts { locality, weight, hosts: hosts.len()..hosts.len() + 1 });
                hosts.push(Arc::clone(host));
            }
            HostSet { hosts: hosts.into(), localities: localities.into() }
        });
        Self {
            priorities: sets.collect(),
            policy: self.policy.clone(),
            version: self.version,
            epoch: self.epoch.clone(),
        }
    }

    /// All hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<Host>> + Clone {
        self.priorities.iter().flat_map(|set| set.hosts.iter())
    }

    /// Whether there is no host.
    pub fn is_empty(&self) -> bool {
        self.hosts().next().is_none()
    }
}
