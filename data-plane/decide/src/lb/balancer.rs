//! The choice of a host: priority, locality, then the policy.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::edf::Schedule;
use super::priority::{self, Share, Source};
use super::ring::{Hashed, Table};
use super::{CommonLb, LbPolicy, LocalityLb, SlowStart};
use crate::host::{Endpoints, Health, Host, HostSet};

/// What a choice depends on.
#[derive(Clone, Copy, Default)]
pub struct Context<'a> {
    /// The request's hash, if its route hashes.
    pub hash: Option<u64>,
    /// Milliseconds of the process' clock; for slow start.
    pub now_ms: u64,
    /// Hosts that a retry avoids.
    pub avoid: Option<&'a dyn Fn(&Host) -> bool>,
    /// How often another host is looked for on that account.
    pub attempts: u32,
}

/// A worker's balancer of one cluster. What it derives from the hosts is kept until hosts or their health change.
#[derive(Debug)]
pub struct Balancer {
    policy: LbPolicy,
    common: CommonLb,
    view: Option<View>,
    turn: usize,
}

/// What is derived from hosts and their health.
#[derive(Debug)]
struct View {
    endpoints: Arc<Endpoints>,
    fingerprint: u64,
    shares: Vec<Share>,
    groups: Vec<(Key, Group)>,
}

/// Which hosts a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    priority: usize,
    source: Source,
    locality: Option<usize>,
}

/// Hosts among which a policy chooses, as indexes in their priority.
#[derive(Debug)]
struct Group {
    hosts: Vec<usize>,
    state: GroupState,
}

#[derive(Debug)]
enum GroupState {
    /// All weights are equal.
    Even,
    /// By weight.
    Scheduled(Schedule),
    /// By hash.
    Hashed(Table),
}

impl Balancer {
    /// A balancer by a policy.
    pub fn new(policy: LbPolicy, common: CommonLb) -> Self {
        Self { policy, common, view: None, turn: 0 }
    }

    /// A host; `None` if there is none to use.
    pub fn choose(
        &mut self,
        endpoints: &Arc<Endpoints>,
        context: &Context<'_>,
        mut random: impl FnMut() -> u64,
    ) -> Option<Arc<Host>> {
        self.refresh(endpoints, context.now_ms);
        let mut chosen = None;
        for _ in 0..=context.attempts {
            let host = self.once(context, &mut random)?;
            let avoided = context.avoid.is_some_and(|avoid| avoid(&host));
            chosen = Some(host);
            if !avoided {
                break;
            }
        }
        chosen
    }

    /// Derives anew what changed hosts or changed health make stale.
    fn refresh(&mut self, endpoints: &Arc<Endpoints>, now_ms: u64) {
        let fingerprint = fingerprint(endpoints);
        if let Some(view) = &self.view
            && view.fingerprint == fingerprint
            && Arc::ptr_eq(&view.endpoints, endpoints)
        {
            return;
        }
        for host in endpoints.hosts() {
            // Zero is "never seen".
            let _ = host.state.added_at_ms.compare_exchange(0, now_ms.max(1), Relaxed, Relaxed);
        }
        let shares = priority::shares(&endpoints.priorities, &endpoints.policy, &self.common);
        self.view = Some(View { endpoints: Arc::clone(endpoints), fingerprint, shares, groups: Vec::new() });
    }

    fn once(&mut self, context: &Context<'_>, random: &mut impl FnMut() -> u64) -> Option<Arc<Host>> {
        let view = self.view.as_mut()?;
        let number = random();
        let (priority, source) = priority::pick(&view.shares, context.hash.unwrap_or(number))?;
        if source == Source::All
            && matches!(self.common.locality, LocalityLb::ZoneAware { fail_traffic_on_panic: true, .. })
        {
            return None;
        }
        let View { endpoints, groups, .. } = view;
        let set = endpoints.priorities.get(priority)?;
        let locality = match (self.common.locality, source) {
            (LocalityLb::Weighted, Source::Healthy | Source::Degraded) => {
                Some(choose_locality(set, source, endpoints.policy.overprovisioning_factor, random())?)
            }
            _ => None,
        };
        let key = Key { priority, source, locality };
        let at = match groups.iter().position(|(other, _)| *other == key) {
            Some(at) => at,
            None => {
                let group = Group::new(&self.policy, &self.common, set, key, context.now_ms);
                groups.push((key, group));
                groups.len() - 1
            }
        };
        let (_, group) = groups.get_mut(at)?;
        let index = group.pick(
            &Pick { policy: &self.policy, common: &self.common, set, context },
            &mut self.turn,
            random,
        )?;
        set.hosts.get(index).cloned()
    }
}

/// Something that is different when any host's health is.
fn fingerprint(endpoints: &Endpoints) -> u64 {
    endpoints.hosts().fold(0xcbf2_9ce4_8422_2325, |hash, host| {
        (hash ^ host.health() as u64).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A locality by its effective weight: less, the less of its hosts are healthy.
fn choose_locality(set: &HostSet, source: Source, factor: u32, random: u64) -> Option<usize> {
    let weights: smallvec::SmallVec<[u64; 8]> = set
        .localities
        .iter()
        .map(|locality| {
            let hosts = set.hosts.get(locality.hosts.clone()).unwrap_or_default();
            let usable = hosts.iter().filter(|host| fits(host, source)).count() as u64;
            let share =
                (usable * u64::from(factor) * 100).checked_div(hosts.len() as u64).unwrap_or(0).min(10_000);
            u64::from(locality.weight.unwrap_or(0)) * share
        })
        .collect();
    let mut rest = random.checked_rem(weights.iter().sum())?;
    weights.iter().position(|weight| {
        let here = rest < *weight;
        rest = rest.saturating_sub(*weight);
        here
    })
}

fn fits(host: &Host, source: Source) -> bool {
    match source {
        Source::Healthy => host.health() == Health::Healthy,
        Source::Degraded => host.health() == Health::Degraded,
        Source::All => true,
    }
}

/// What a pick looks at.
struct Pick<'a> {
    policy: &'a LbPolicy,
    common: &'a CommonLb,
    set: &'a HostSet,
    context: &'a Context<'a>,
}

impl Group {
    fn new(policy: &LbPolicy, common: &CommonLb, set: &HostSet, key: Key, now_ms: u64) -> Self {
        let range = match key.locality.and_then(|locality| set.localities.get(locality)) {
            Some(locality) => locality.hosts.clone(),
            None => 0..set.hosts.len(),
        };
        let hosts: Vec<usize> =
            range.filter(|index| set.hosts.get(*index).is_some_and(|host| fits(host, key.source))).collect();
        let hashed = || -> Vec<Hashed> {
            let of = |index: &usize| {
                let host = set.hosts.get(*index)?;
                let named = common.use_hostname_for_hashing && !host.hostname.is_empty();
                let key = if named { host.hostname.to_string() } else { host.address.to_string() };
                Some(Hashed { index: *index, key, weight: f64::from(host.weight) })
            };
            hosts.iter().filter_map(of).collect()
        };
        let state = match policy {
            LbPolicy::RingHash { minimum_ring_size, maximum_ring_size, function } => {
                GroupState::Hashed(Table::ring(&hashed(), *minimum_ring_size, *maximum_ring_size, *function))
            }
            LbPolicy::Maglev { table_size } => GroupState::Hashed(Table::maglev(&hashed(), *table_size)),
            LbPolicy::RoundRobin { slow_start } | LbPolicy::LeastRequest { slow_start, .. }
                if slow_start.is_some() || uneven(set, &hosts) =>
            {
                let weight = |index| weight(policy, set, index, now_ms);
                GroupState::Scheduled(Schedule::new(hosts.iter().copied(), weight))
            }
            _ => GroupState::Even,
        };
        Self { hosts, state }
    }

    fn pick(&mut self, pick: &Pick<'_>, turn: &mut usize, random: &mut impl FnMut() -> u64) -> Option<usize> {
        let count = self.hosts.len();
        let at = |number: u64| {
            self.hosts.get(usize::try_from(number % (count as u64).max(1)).unwrap_or(0)).copied()
        };
        match (&mut self.state, pick.policy) {
            _ if count == 0 => None,
            (GroupState::Scheduled(schedule), policy) => {
                schedule.next(|index| weight(policy, pick.set, index, pick.context.now_ms))
            }
            (GroupState::Hashed(table), _) => {
                let hash = pick.context.hash.unwrap_or_else(random);
                within_balance(table, hash, pick, &self.hosts)
            }
            (GroupState::Even, LbPolicy::LeastRequest { choice_count, .. }) => {
                let load = |index: &usize| {
                    pick.set.hosts.get(*index).map(|host| host.state.active_requests.load(Relaxed))
                };
                (0..(*choice_count).max(1)).filter_map(|_| at(random())).min_by_key(load)
            }
            (GroupState::Even, LbPolicy::RoundRobin { .. }) => {
                *turn = turn.wrapping_add(1);
                self.hosts.get(*turn % count).copied()
            }
            (GroupState::Even, _) => at(random()),
        }
    }
}

/// The first host along the table that is not too busy.
fn within_balance(table: &Table, hash: u64, pick: &Pick<'_>, hosts: &[usize]) -> Option<usize> {
    let Some(factor) = pick.common.hash_balance_factor.filter(|factor| *factor > 0) else {
        return table.walk(hash).next();
    };
    let active = |index: &usize| {
        pick.set.hosts.get(*index).map_or(0, |host| u64::from(host.state.active_requests.load(Relaxed)))
    };
    let total: u64 = hosts.iter().map(active).sum();
    // Each host may have its share of all requests, this one included, times the factor.
    let limit = ((total + 1) * u64::from(factor)).div_ceil(100 * (hosts.len() as u64).max(1));
    let mut walk = table.walk(hash);
    let first = walk.next()?;
    if active(&first) < limit {
        return Some(first);
    }
    walk.find(|index| active(index) < limit).or(Some(first))
}

fn uneven(set: &HostSet, hosts: &[usize]) -> bool {
    let mut weights = hosts.iter().filter_map(|index| set.hosts.get(*index)).map(|host| host.weight);
    let first = weights.next();
    weights.any(|weight| Some(weight) != first)
}

/// A host's weight now: less while it warms up, and under least request the less the busier it is.
fn weight(policy: &LbPolicy, set: &HostSet, index: usize, now_ms: u64) -> f64 {
    let Some(host) = set.hosts.get(index) else { return 1.0 };
    let base = f64::from(host.weight);
    match policy {
        LbPolicy::RoundRobin { slow_start } => base * warmth(host, *slow_start, now_ms),
        LbPolicy::LeastRequest { active_request_bias, slow_start, .. } => {
            let active = f64::from(host.state.active_requests.load(Relaxed)) + 1.0;
            base * warmth(host, *slow_start, now_ms) / active.powf(*active_request_bias)
        }
        _ => base,
    }
}

/// How much of its weight a host has while it warms up: 1 afterwards.
fn warmth(host: &Host, slow_start: Option<SlowStart>, now_ms: u64) -> f64 {
    let Some(config) = slow_start else { return 1.0 };
    let age = std::time::Duration::from_millis(now_ms.saturating_sub(host.state.added_at_ms.load(Relaxed)));
    if age >= config.window {
        return 1.0;
    }
    let progress = (age.as_secs_f64() / config.window.as_secs_f64()).max(1e-9);
    progress.powf(1.0 / config.aggression).max(config.min_weight_percent / 100.0)
}
