//! Counting, ejecting, and letting back in.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::OutlierDetection;
use crate::host::{HealthFlag, Host};

/// What is counted of a host. Relaxed throughout: an outcome a moment late does no harm.
#[derive(Debug, Default)]
pub struct HostCounters {
    consecutive_5xx: AtomicU32,
    consecutive_gateway_failure: AtomicU32,
    consecutive_local_origin_failure: AtomicU32,
    success: AtomicU32,
    total: AtomicU32,
    local_success: AtomicU32,
    local_total: AtomicU32,
    rate: ShownRate,
    local_rate: ShownRate,
    /// How often it was ejected lately, which makes ejections longer.
    ejections: AtomicU32,
    /// When its ejection ends, in milliseconds of the process' clock.
    ejected_until: AtomicU64,
}

/// A success rate in percent, as it is shown; -1 where too few requests made one.
#[derive(Debug, Default)]
struct ShownRate(AtomicU64);

impl ShownRate {
    const NONE: f64 = -1.0;

    fn get(&self) -> f64 {
        // So that nothing is what it begins with.
        f64::from_bits(self.0.load(Relaxed) ^ Self::NONE.to_bits())
    }

    fn set(&self, rate: Option<f64>) {
        self.0.store(rate.unwrap_or(Self::NONE).to_bits() ^ Self::NONE.to_bits(), Relaxed);
    }
}

/// The success rates of a host's last interval, in percent: what its clients saw, and our own side where that is counted
/// apart. -1: there is none.
pub fn success_rates(host: &Host) -> [f64; 2] {
    host.state
        .counted()
        .map_or([ShownRate::NONE; 2], |counters| [counters.rate.get(), counters.local_rate.get()])
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The host answered with this status.
    Status(u16),
    /// A connection came about, and nothing more is known of it: what TCP tells.
    Connected,
    /// No connection, or a reset before an answer: what our own side saw.
    LocalFailure,
    /// No connection or no answer in time.
    LocalTimeout,
}

/// What found a host an outlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Envoy's")]
pub enum Cause {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
    SuccessRate,
    LocalOriginSuccessRate,
    FailurePercentage,
    LocalOriginFailurePercentage,
}

/// What became of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ejection {
    /// The host is ejected.
    Enforced(Cause),
    /// The configuration lets some findings pass, this one among them.
    NotEnforced(Cause),
    /// Too many hosts are ejected.
    Overflow(Cause),
}

/// Random numbers and the time, as arguments.
#[derive(Clone, Copy, Debug)]
pub struct Chance {
    /// Milliseconds of the process' clock.
    pub now_ms: u64,
    /// Any number.
    pub random: u64,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// How many hosts were let back in.
    pub unejected: u32,
    /// Findings of rates.
    pub findings: Vec<Ejection>,
}

/// Counts an outcome. When a count runs full, it is the cause to [`eject`] the host for.
pub fn note(config: &OutlierDetection, host: &Host, outcome: Outcome) -> Option<Cause> {
    host.state.outlier().count(config, outcome)
}

/// Lets a host back in before its time is over: it was found well otherwise.
pub fn uneject(host: &Host) -> bool {
    let was = host.state.clear(HealthFlag::FailedOutlierCheck);
    if let Some(counters) = host.state.counted().filter(|_| was) {
        counters.forget();
    }
    was
}

/// Lets hosts back in whose time is over, and looks at the rates of the others.
pub fn sweep<'a>(
    config: &OutlierDetection,
    hosts: impl Iterator<Item = &'a Arc<Host>> + Clone,
    chance: Chance,
) -> Swept {
    let mut swept = Swept::default();
    for host in hosts.clone() {
        let Some(counters) = host.state.counted() else { continue };
        if !host.state.has(HealthFlag::FailedOutlierCheck) {
            // Every interval that a host behaves takes one ejection off its record.
            let _ = counters.ejections.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
        } else if chance.now_ms >= counters.ejected_until.load(Relaxed) && uneject(host) {
            swept.unejected += 1;
        }
    }
    let split = config.split_external_local_origin_errors;
    let mut external = Vec::new();
    let mut local = Vec::new();
    for host in hosts.clone() {
        let Some(counters) = host.state.counted() else { continue };
        let outside = Rate::take(&counters.total, &counters.success);
        let inside = Rate::take(&counters.local_total, &counters.local_success);
        counters.rate.set(None);
        counters.local_rate.set(None);
        if !host.state.has(HealthFlag::FailedOutlierCheck) {
            external.extend(outside.map(|rate| (host, rate)));
            local.extend(inside.filter(|_| split).map(|rate| (host, rate)));
        }
    }
    let causes = (Cause::SuccessRate, Cause::FailurePercentage);
    rates(config, &hosts, &external, causes, chance, &mut swept);
    show(config, &hosts, &external, |counters| &counters.rate);
    let causes = (Cause::LocalOriginSuccessRate, Cause::LocalOriginFailurePercentage);
    rates(config, &hosts, &local, causes, chance, &mut swept);
    show(config, &hosts, &local, |counters| &counters.local_rate);
    swept
}

/// How many requests a host had in an interval, and what share of them went well, in percent.
#[derive(Clone, Copy)]
struct Rate {
    total: u32,
    success: f64,
}

impl Rate {
    fn take(total: &AtomicU32, success: &AtomicU32) -> Option<Self> {
        let (total, success) = (total.swap(0, Relaxed), success.swap(0, Relaxed));
        (total > 0).then(|| Self { total, success: 100.0 * f64::from(success.min(total)) / f64::from(total) })
    }
}

impl HostCounters {
    fn count(&self, config: &OutlierDetection, outcome: Outcome) -> Option<Cause> {
        let split = config.split_external_local_origin_errors;
        if split {
            self.local_total.fetch_add(1, Relaxed);
        }
        let status = match outcome {
            Outcome::Connected if split => {
                self.local_success.fetch_add(1, Relaxed);
                self.consecutive_local_origin_failure.store(0, Relaxed);
                return None;
            }
            Outcome::LocalFailure | Outcome::LocalTimeout if split => {
                let full =
                    full(&self.consecutive_local_origin_failure, config.consecutive_local_origin_failure);
                return full.then_some(Cause::ConsecutiveLocalOriginFailure);
            }
            // Not told apart, they count as what the client sees.
            Outcome::Connected => 200,
            Outcome::LocalFailure => 503,
            Outcome::LocalTimeout => 504,
            Outcome::Status(status) => status,
        };
        if split {
            self.local_success.fetch_add(1, Relaxed);
            self.consecutive_local_origin_failure.store(0, Relaxed);
        }
        self.total.fetch_add(1, Relaxed);
        if status < 500 {
            self.success.fetch_add(1, Relaxed);
            self.consecutive_5xx.store(0, Relaxed);
            self.consecutive_gateway_failure.store(0, Relaxed);
            return None;
        }
        let gateway = if matches!(status, 502..=504) {
            full(&self.consecutive_gateway_failure, config.consecutive_gateway_failure)
        } else {
            self.consecutive_gateway_failure.store(0, Relaxed);
            false
        };
        if full(&self.consecutive_5xx, config.consecutive_5xx) {
            return Some(Cause::Consecutive5xx);
        }
        gateway.then_some(Cause::ConsecutiveGatewayFailure)
    }

    fn forget(&self) {
        self.consecutive_5xx.store(0, Relaxed);
        self.consecutive_gateway_failure.store(0, Relaxed);
        self.consecutive_local_origin_failure.store(0, Relaxed);
    }
}

/// Counts one more; whether the count is full now. It starts over then.
fn full(counter: &AtomicU32, limit: u32) -> bool {
    if limit == 0 {
        return false;
    }
    let full = counter.fetch_add(1, Relaxed) + 1 >= limit;
    if full {
        counter.store(0, Relaxed);
    }
    full
}

/// Ejects a host of these, if the configuration lets it.
pub fn eject<'a>(
    config: &OutlierDetection,
    hosts: impl Iterator<Item = &'a Arc<Host>>,
    host: &Host,
    cause: Cause,
    chance: Chance,
) -> Option<Ejection> {
    if host.state.has(HealthFlag::FailedOutlierCheck) {
        return None;
    }
    let enforcing = match cause {
        Cause::Consecutive5xx => config.enforcing.consecutive_5xx,
        Cause::ConsecutiveGatewayFailure => config.enforcing.consecutive_gateway_failure,
        Cause::ConsecutiveLocalOriginFailure => config.enforcing.consecutive_local_origin_failure,
        Cause::SuccessRate => config.enforcing.success_rate,
        Cause::LocalOriginSuccessRate => config.enforcing.local_origin_success_rate,
        Cause::FailurePercentage => config.enforcing.failure_percentage,
        Cause::LocalOriginFailurePercentage => config.enforcing.failure_percentage_local_origin,
    };
    if chance.random % 100 >= u64::from(enforcing) {
        return Some(Ejection::NotEnforced(cause));
    }
    let (ejected, all) = hosts.fold((0_u64, 0_u64), |(ejected, all), host| {
        (ejected + u64::from(host.state.has(HealthFlag::FailedOutlierCheck)), all + 1)
    });
    let allowed = (ejected + 1) * 100 <= u64::from(config.max_ejection_percent) * all
        || (ejected == 0 && config.always_eject_one_host);
    if !allowed {
        return Some(Ejection::Overflow(cause));
    }
    let counters = host.state.outlier();
    let times = counters.ejections.fetch_add(1, Relaxed) + 1;
    let longest = config.max_ejection_time.max(config.base_ejection_time);
    let jitter = config.max_ejection_time_jitter.mul_f64((chance.random >> 32) as f64 / f64::from(u32::MAX));
    let time: Duration = config.base_ejection_time.saturating_mul(times).min(longest) + jitter;
    counters.ejected_until.store(chance.now_ms + time.as_millis() as u64, Relaxed);
    // Of two workers that find it at once, one counts.
    host.state.set(HealthFlag::FailedOutlierCheck).then_some(Ejection::Enforced(cause))
}

/// Keeps the rates of hosts that had enough requests, as long as there are hosts enough to compare them with.
fn show<'a>(
    config: &OutlierDetection,
    all: &(impl Iterator<Item = &'a Arc<Host>> + Clone),
    hosts: &[(&Arc<Host>, Rate)],
    of: impl Fn(&HostCounters) -> &ShownRate,
) {
    let (rate, failures) = (config.success_rate, config.failure_percentage);
    if all.clone().count() < rate.minimum_hosts.min(failures.minimum_hosts) as usize {
        return;
    }
    for (host, Rate { total, success }) in hosts {
        if *total >= rate.request_volume.min(failures.request_volume) {
            of(host.state.outlier()).set(Some(*success));
        }
    }
}

/// Success rates and failure percentages of an interval.
fn rates<'a>(
    config: &OutlierDetection,
    all: &(impl Iterator<Item = &'a Arc<Host>> + Clone),
    hosts: &[(&Arc<Host>, Rate)],
    (by_deviation, by_share): (Cause, Cause),
    chance: Chance,
    swept: &mut Swept,
) {
    let find = |host: &Host, cause, swept: &mut Swept| {
        swept.findings.extend(eject(config, all.clone(), host, cause, chance));
    };
    let busy = |volume: u32| hosts.iter().filter(move |(_, rate)| rate.total >= volume);
    let rate = config.success_rate;
    let count = busy(rate.request_volume).count();
    if count > 0 && count >= rate.minimum_hosts as usize {
        let rates = || busy(rate.request_volume).map(|(_, rate)| rate.success);
        let mean = rates().sum::<f64>() / count as f64;
        let variance = rates().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count as f64;
        let threshold = mean - variance.sqrt() * f64::from(rate.stdev_factor) / 1000.0;
        for (host, _) in busy(rate.request_volume).filter(|(_, rate)| rate.success < threshold) {
            find(host, by_deviation, swept);
        }
    }
    let failures = config.failure_percentage;
    let count = busy(failures.request_volume).count();
    if count > 0 && count >= failures.minimum_hosts as usize {
        let failing = |rate: &Rate| 100.0 - rate.success >= f64::from(failures.threshold);
        for (host, _) in busy(failures.request_volume).filter(|(_, rate)| failing(rate)) {
            find(host, by_share, swept);
        }
    }
}

#[cfg(test)]
mod tests;
