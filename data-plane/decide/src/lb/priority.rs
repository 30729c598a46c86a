//! How much traffic each priority takes, and which ones panic.

use super::CommonLb;
use crate::host::{AssignmentPolicy, Health, HealthFlag, HostSet};

/// The share of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    /// Percent of all traffic that its healthy hosts take.
    pub(super) healthy: u32,
    /// Percent of all traffic that its degraded hosts take.
    pub(super) degraded: u32,
    /// Whether all of its hosts are used, however they are.
    pub(super) panic: bool,
}

/// Which hosts of a priority a request goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Healthy,
    Degraded,
    All,
}

/// The hosts of all priorities, counted.
pub(super) fn counts(sets: &[HostSet], policy: &AssignmentPolicy, common: &CommonLb) -> Vec<Counts> {
    let excluding = common.ignore_new_hosts_until_first_health_check;
    sets.iter().map(|set| Counts::of(set, policy.weighted_priority_health, excluding)).collect()
}

/// The shares of all priorities but those to be avoided; their sum is 100 unless there is no host.
pub(super) fn shares(
    counts: &[Counts],
    policy: &AssignmentPolicy,
    common: &CommonLb,
    avoid: &[u32],
) -> Vec<Share> {
    let avoided = |(at, count): (usize, &Counts)| {
        if avoid.iter().any(|avoid| *avoid as usize == at) { Counts::default() } else { *count }
    };
    let counts: Vec<Counts> = counts.iter().enumerate().map(avoided).collect();
    let factor = u64::from(policy.overprovisioning_factor);
    let health =
        |part: u64, total: u64| (factor * part).checked_div(total).map_or(0, |health| health.min(100));
    let healthy: Vec<_> = counts.iter().map(|count| health(count.healthy, count.total)).collect();
    let degraded: Vec<_> = counts.iter().map(|count| health(count.degraded, count.total)).collect();
    let available: u64 = healthy.iter().chain(&degraded).sum::<u64>().min(100);
    let mut shares = vec![Share::default(); counts.len()];
    if available < 100 {
        for (share, count) in shares.iter_mut().zip(&counts) {
            share.panic = count.in_panic(common.panic_threshold);
        }
    }
    if !shares.is_empty() && shares.iter().all(|share| share.panic) {
        total_panic(&mut shares, &counts);
        return shares;
    }
    let mut rest = 100;
    let mut hand_out = |health: u64| {
        let load = (health * 100).checked_div(available).unwrap_or(0).min(rest);
        rest -= load;
        u32::try_from(load).unwrap_or(0)
    };
    for (share, health) in shares.iter_mut().zip(&healthy) {
        share.healthy = hand_out(*health);
    }
    for (share, health) in shares.iter_mut().zip(&degraded) {
        share.degraded = hand_out(*health);
    }
    // What rounding left over goes to the first priority that has anything.
    let rest = u32::try_from(rest).unwrap_or(0);
    if let Some(share) = shares.iter_mut().find(|share| share.healthy > 0) {
        share.healthy += rest;
    } else if let Some(share) = shares.iter_mut().find(|share| share.degraded > 0) {
        share.degraded += rest;
    }
    shares
}

/// By number of hosts, healthy or not.
fn total_panic(shares: &mut [Share], counts: &[Counts]) {
    let all: u64 = counts.iter().map(|count| count.all).sum();
    let mut rest = 100;
    for (share, count) in shares.iter_mut().zip(counts) {
        let load = (100 * count.all).checked_div(all).unwrap_or(0).min(rest);
        rest -= load;
        share.healthy = u32::try_from(load).unwrap_or(0);
    }
    if let Some((share, _)) = shares.iter_mut().zip(counts).find(|(_, count)| count.all > 0) {
        share.healthy += u32::try_from(rest).unwrap_or(0);
    }
}

/// The priority for a number, and which of its hosts.
pub(super) fn pick(shares: &[Share], random: u64) -> Option<(usize, Source)> {
    let mut rest = random % 100;
    let healthy = shares.iter().map(|share| (share.healthy, Source::Healthy)).enumerate();
    let degraded = shares.iter().map(|share| (share.degraded, Source::Degraded)).enumerate();
    for (priority, (load, source)) in healthy.chain(degraded) {
        let load = u64::from(load);
        if rest < load {
            let panic = shares.get(priority).is_some_and(|share| share.panic);
            return Some((priority, if panic { Source::All } else { source }));
        }
        rest -= load;
    }
    None
}

/// The hosts of one priority.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    healthy: u64,
    degraded: u64,
    /// Those of which a share must be healthy.
    total: u64,
    /// Really all.
    all: u64,
}

impl Counts {
    fn of(set: &HostSet, weighted: bool, excluding: bool) -> Self {
        let mut counts = Self::default();
        for host in &set.hosts {
            let one = if weighted { u64::from(host.weight) } else { 1 };
            counts.all += one;
            if host.is_draining() || excluding && host.state.has(HealthFlag::PendingActiveHealthCheck) {
                continue;
            }
            counts.total += one;
            match host.health() {
                Health::Healthy => counts.healthy += one,
                Health::Degraded => counts.degraded += one,
                Health::Unhealthy => {}
            }
        }
        counts
    }

    fn in_panic(&self, threshold: f64) -> bool {
        let usable = self.healthy + self.degraded;
        #[expect(clippy::cast_precision_loss, reason = "counts of hosts are far below 2^52")]
        let percent = if self.total == 0 { 0.0 } else { 100.0 * usable as f64 / self.total as f64 };
        percent < threshold
    }
}
