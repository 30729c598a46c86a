//! The choice among hosts of equal rank: by turns, by load, at random, by hash.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::balancer::{Context, fits};
use super::edf::Schedule;
use super::orca::{ReportedWeights, with_median};
use super::peek::Turn;
use super::priority::Source;
use super::ring::{Hashed, Table};
use super::{CommonLb, LbPolicy, LocalityLb, SlowStart};
use crate::host::{Host, HostSet};

/// Which hosts a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) priority: usize,
    pub(super) source: Source,
    pub(super) locality: Option<usize>,
}

/// Hosts among which a policy chooses, as indexes in their priority.
#[derive(Debug)]
pub(super) struct Group {
    hosts: Box<[u32]>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// All weights are equal.
    Even,
    /// By weight.
    Scheduled(Schedule),
    /// By the weights that hosts report, until they are looked at again.
    Reported { schedule: Schedule, weights: Box<[f64]>, until_ms: u64 },
    /// By hash.
    Hashed(Table),
}

/// What a pick looks at.
pub(super) struct Pick<'a> {
    pub(super) policy: &'a LbPolicy,
    pub(super) common: &'a CommonLb,
    pub(super) set: &'a HostSet,
    pub(super) context: &'a Context<'a>,
    pub(super) when: Turn,
}

impl Pick<'_> {
    fn host(&self, index: u32) -> Option<&Arc<Host>> {
        self.set.hosts.get(index as usize)
    }

    fn active(&self, index: u32) -> u64 {
        self.host(index).map_or(0, |host| u64::from(host.state.active_requests.load(Relaxed)))
    }

    /// Hosts' reported weights, in their order.
    fn reported(&self, config: &ReportedWeights, hosts: &[u32]) -> Box<[f64]> {
        let now = self.context.now_ms;
        let own = |index: &u32| self.host(*index)?.state.reported().weight(config, now);
        with_median(&hosts.iter().map(own).collect::<Vec<_>>())
    }

    /// A host's weight now: less while it warms up, and under least request the less the busier it is.
    fn weight(&self, index: usize) -> f64 {
        let Some(host) = self.set.hosts.get(index) else { return 1.0 };
        let base = f64::from(host.weight);
        match self.policy {
            LbPolicy::RoundRobin { slow_start } => base * warmth(host, *slow_start, self.context.now_ms),
            LbPolicy::LeastRequest { active_request_bias, slow_start, .. } => {
                let active = f64::from(host.state.active_requests.load(Relaxed)) + 1.0;
                base * warmth(host, *slow_start, self.context.now_ms) / active.powf(*active_request_bias)
            }
            _ => base,
        }
    }
}

impl Group {
    pub(super) fn new(pick: &Pick<'_>, key: Key, random: &mut impl FnMut() -> u64) -> Self {
        let range = match key.locality.and_then(|locality| pick.set.localities.get(locality)) {
            Some(locality) => locality.hosts.clone(),
            None => 0..pick.set.hosts.len(),
        };
        let usable =
            range.filter(|index| pick.set.hosts.get(*index).is_some_and(|host| fits(host, key.source)));
        let hosts: Box<[u32]> = usable.filter_map(|index| u32::try_from(index).ok()).collect();
        let state = match pick.policy {
            LbPolicy::RingHash { minimum_ring_size, maximum_ring_size, function } => {
                State::Hashed(Table::ring(
                    &hashed(pick, &hosts, key.source),
                    *minimum_ring_size,
                    *maximum_ring_size,
                    *function,
                ))
            }
            LbPolicy::Maglev { table_size } => {
                State::Hashed(Table::maglev(&hashed(pick, &hosts, key.source), *table_size))
            }
            LbPolicy::RoundRobin { slow_start } | LbPolicy::LeastRequest { slow_start, .. }
                if slow_start.is_some() || uneven(pick, &hosts) =>
            {
                let mut schedule =
                    Schedule::new(hosts.iter().map(|index| *index as usize), |index| pick.weight(index));
                // Workers that all begin with the same host would press on it whenever health changes.
                for _ in 0..random() % (hosts.len() as u64).max(1) {
                    schedule.next(|index| pick.weight(index));
                }
                State::Scheduled(schedule)
            }
            LbPolicy::ClientSideWeightedRoundRobin(config) => reported(pick, config, &hosts, random),
            _ => State::Even,
        };
        Self { hosts, state }
    }

    pub(super) fn pick(
        &mut self,
        pick: &Pick<'_>,
        turn: &mut usize,
        random: &mut impl FnMut() -> u64,
    ) -> Option<usize> {
        if let (State::Reported { weights, until_ms, .. }, LbPolicy::ClientSideWeightedRoundRobin(config)) =
            (&mut self.state, pick.policy)
            && *until_ms <= pick.context.now_ms
        {
            if *weights == pick.reported(config, &self.hosts) {
                *until_ms = next_look(pick, config);
            } else {
                self.state = reported(pick, config, &self.hosts, random);
            }
        }
        let count = self.hosts.len();
        let at = |number: u64| {
            let place = usize::try_from(number % (count as u64).max(1)).unwrap_or(0);
            self.hosts.get(place).copied()
        };
        let found = match (&mut self.state, pick.policy) {
            _ if count == 0 => None,
            (State::Scheduled(schedule), _) => return schedule.next(|index| pick.weight(index)),
            (State::Reported { schedule, weights, .. }, policy) => {
                let slow_start = policy.reported_weights().and_then(|config| config.slow_start);
                let weight = |place: usize| reported_weight(pick, &self.hosts, weights, slow_start, place);
                schedule.next(weight).and_then(|place| self.hosts.get(place).copied())
            }
            (State::Hashed(table), _) => {
                let hash = pick.context.hash.unwrap_or_else(random);
                return within_balance(table, hash, pick, &self.hosts);
            }
            // Who will be the least busy, nobody knows.
            (State::Even, LbPolicy::LeastRequest { .. }) if pick.when == Turn::Ahead => None,
            (State::Even, LbPolicy::LeastRequest { full_scan: true, .. }) => {
                full_scan(pick, &self.hosts, random)
            }
            (State::Even, LbPolicy::LeastRequest { choice_count, .. }) => (0..(*choice_count).max(1))
                .filter_map(|_| at(random()))
                .min_by_key(|index| pick.active(*index)),
            (State::Even, LbPolicy::RoundRobin { .. }) => {
                *turn = turn.wrapping_add(1);
                self.hosts.get(*turn % count).copied()
            }
            (State::Even, _) => at(random()),
        };
        found.map(|index| index as usize)
    }
}

/// A schedule by the weights that hosts have reported so far; of places, not of indexes.
fn reported(
    pick: &Pick<'_>,
    config: &ReportedWeights,
    hosts: &[u32],
    random: &mut impl FnMut() -> u64,
) -> State {
    let weights = pick.reported(config, hosts);
    let weight = |place: usize| reported_weight(pick, hosts, &weights, config.slow_start, place);
    let mut schedule = Schedule::new(0..hosts.len(), weight);
    for _ in 0..random() % (hosts.len() as u64).max(1) {
        schedule.next(weight);
    }
    State::Reported { schedule, weights, until_ms: next_look(pick, config) }
}

fn next_look(pick: &Pick<'_>, config: &ReportedWeights) -> u64 {
    pick.context.now_ms.saturating_add(u64::try_from(config.update_period.as_millis()).unwrap_or(u64::MAX))
}

fn reported_weight(
    pick: &Pick<'_>,
    hosts: &[u32],
    weights: &[f64],
    slow_start: Option<SlowStart>,
    place: usize,
) -> f64 {
    let host = hosts.get(place).and_then(|index| pick.host(*index));
    let warmth = host.map_or(1.0, |host| warmth(host, slow_start, pick.context.now_ms));
    weights.get(place).copied().unwrap_or(1.0) * warmth
}

/// The least busy of all; among equals, any.
fn full_scan(pick: &Pick<'_>, hosts: &[u32], random: &mut impl FnMut() -> u64) -> Option<u32> {
    let least = hosts.iter().map(|index| pick.active(*index)).min()?;
    let equals = || hosts.iter().copied().filter(|index| pick.active(*index) <= least);
    let count = equals().count() as u64;
    equals().nth(usize::try_from(random() % count.max(1)).unwrap_or(0))
}

/// Hosts as tables see them. Where localities have weights, hosts bear their locality's: a table per locality would
/// send one hash to several hosts.
fn hashed(pick: &Pick<'_>, hosts: &[u32], source: Source) -> Vec<Hashed> {
    let set = pick.set;
    let weighted = matches!(pick.common.locality, LocalityLb::Weighted) && source != Source::All;
    let shares: Vec<f64> = set
        .localities
        .iter()
        .map(|locality| {
            let here = set.hosts.get(locality.hosts.clone()).unwrap_or_default();
            let usable = here.iter().filter(|host| fits(host, source));
            let total: u64 = usable.map(|host| u64::from(host.weight)).sum();
            #[expect(clippy::cast_precision_loss, reason = "weights are 32 bits each")]
            let total = (total as f64).max(1.0);
            f64::from(locality.weight.unwrap_or(0)) / total
        })
        .collect();
    let share = |index: usize| -> f64 {
        let at = set.localities.iter().position(|locality| locality.hosts.contains(&index));
        at.and_then(|at| shares.get(at)).copied().unwrap_or(0.0)
    };
    let of = |index: &u32| {
        let host = pick.host(*index)?;
        let named = pick.common.use_hostname_for_hashing && !host.hostname.is_empty();
        let key = match host.metadata("envoy.lb", "hash_key").and_then(serde_json::Value::as_str) {
            Some(key) => key.to_owned(),
            None if named => host.hostname.to_string(),
            None => host.address.to_string(),
        };
        let share = if weighted { share(*index as usize) } else { 1.0 };
        let weight = f64::from(host.weight) * share;
        (weight > 0.0).then_some(Hashed { index: *index as usize, key, weight })
    };
    let all: Vec<Hashed> = hosts.iter().filter_map(of).collect();
    if all.is_empty() && weighted {
        // No locality has a weight: they do not matter then.
        let common = CommonLb { locality: LocalityLb::None, ..pick.common.clone() };
        return hashed(&Pick { common: &common, ..*pick }, hosts, source);
    }
    all
}

/// The first host along the table that is not too busy.
fn within_balance(table: &Table, hash: u64, pick: &Pick<'_>, hosts: &[u32]) -> Option<usize> {
    let Some(factor) = pick.common.hash_balance_factor.filter(|factor| *factor > 0) else {
        return table.walk(hash, pick.context.attempt).next();
    };
    let active = |index: usize| u32::try_from(index).map_or(0, |index| pick.active(index));
    let (total, weights) = hosts.iter().fold((0, 0), |(total, weights), index| {
        let weight = pick.host(*index).map_or(0, |host| u64::from(host.weight));
        (total + pick.active(*index), weights + weight)
    });
    // Each host may have its share of all requests, this one included, times the factor.
    let fits = |index: usize| {
        let weight = pick.set.hosts.get(index).map_or(1, |host| u64::from(host.weight));
        let limit = ((total + 1) * u64::from(factor) * weight).div_ceil(100 * weights.max(1));
        active(index) < limit
    };
    let mut walk = table.walk(hash, pick.context.attempt);
    let first = walk.next()?;
    if fits(first) {
        return Some(first);
    }
    walk.find(|index| fits(*index)).or(Some(first))
}

fn uneven(pick: &Pick<'_>, hosts: &[u32]) -> bool {
    let mut weights = hosts.iter().filter_map(|index| pick.host(*index)).map(|host| host.weight);
    let first = weights.next();
    weights.any(|weight| Some(weight) != first)
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
