//! Counting, ejecting, and letting back in.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::OutlierDetection;
use crate::host::{Endpoints, HealthFlag, Host};

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
    /// How often it was ejected lately, which makes ejections longer.
    ejections: AtomicU32,
    /// When its ejection ends, in milliseconds of the process' clock.
    ejected_until: AtomicU64,
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The host answered with this status.
    Status(u16),
    /// No connection, a reset before an answer, a timeout: what our own side saw.
    LocalFailure,
}

/// What found a host an outlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are Envoy's")]
pub enum Cause {
    Consecutive5xx,
    ConsecutiveGatewayFailure,
    ConsecutiveLocalOriginFailure,
    SuccessRate,
    FailurePercentage,
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

/// Counts an outcome, and ejects the host when a count runs full.
pub fn note(
    config: &OutlierDetection,
    endpoints: &Endpoints,
    host: &Host,
    outcome: Outcome,
    chance: Chance,
) -> Option<Ejection> {
    let counters = &host.state.outlier;
    let cause = counters.count(config, outcome)?;
    eject(config, endpoints, host, cause, chance)
}

/// Lets hosts back in whose time is over, and looks at the rates of the others.
pub fn sweep(config: &OutlierDetection, endpoints: &Endpoints, chance: Chance) -> Swept {
    let mut swept = Swept::default();
    for host in endpoints.hosts() {
        let counters = &host.state.outlier;
        if !host.state.has(HealthFlag::FailedOutlierCheck) {
            // Every interval that a host behaves takes one ejection off its record.
            let _ = counters.ejections.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1));
        } else if chance.now_ms >= counters.ejected_until.load(Relaxed)
            && host.state.clear(HealthFlag::FailedOutlierCheck)
        {
            counters.forget();
            swept.unejected += 1;
        }
    }
    rates(config, endpoints, chance, &mut swept);
    swept
}

impl HostCounters {
    fn count(&self, config: &OutlierDetection, outcome: Outcome) -> Option<Cause> {
        let split = config.split_external_local_origin_errors;
        if split {
            self.local_total.fetch_add(1, Relaxed);
        }
        let status = match outcome {
            Outcome::LocalFailure if split => {
                let full =
                    full(&self.consecutive_local_origin_failure, config.consecutive_local_origin_failure);
                return full.then_some(Cause::ConsecutiveLocalOriginFailure);
            }
            // Not told apart, it counts as the gateway's failure that the client sees.
            Outcome::LocalFailure => 503,
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

fn eject(
    config: &OutlierDetection,
    endpoints: &Endpoints,
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
        Cause::FailurePercentage => config.enforcing.failure_percentage,
    };
    if chance.random % 100 >= u64::from(enforcing) {
        return Some(Ejection::NotEnforced(cause));
    }
    let ejected =
        endpoints.hosts().filter(|host| host.state.has(HealthFlag::FailedOutlierCheck)).count() as u64;
    let hosts = endpoints.hosts().count() as u64;
    let allowed = (ejected + 1) * 100 <= u64::from(config.max_ejection_percent) * hosts
        || (ejected == 0 && config.always_eject_one_host);
    if !allowed {
        return Some(Ejection::Overflow(cause));
    }
    let counters = &host.state.outlier;
    let times = counters.ejections.fetch_add(1, Relaxed) + 1;
    let longest = config.max_ejection_time.max(config.base_ejection_time);
    let jitter = config.max_ejection_time_jitter.mul_f64((chance.random >> 32) as f64 / f64::from(u32::MAX));
    let time: Duration = config.base_ejection_time.saturating_mul(times).min(longest) + jitter;
    counters.ejected_until.store(chance.now_ms + time.as_millis() as u64, Relaxed);
    // Of two workers that find it at once, one counts.
    host.state.set(HealthFlag::FailedOutlierCheck).then_some(Ejection::Enforced(cause))
}

/// Success rates and failure percentages of an interval.
fn rates(config: &OutlierDetection, endpoints: &Endpoints, chance: Chance, swept: &mut Swept) {
    let mut hosts = Vec::new();
    for host in endpoints.hosts() {
        let counters = &host.state.outlier;
        let total = counters.total.swap(0, Relaxed);
        let success = counters.success.swap(0, Relaxed);
        counters.local_total.store(0, Relaxed);
        counters.local_success.store(0, Relaxed);
        if !host.state.has(HealthFlag::FailedOutlierCheck) && total > 0 {
            hosts.push((host, total, 100.0 * f64::from(success.min(total)) / f64::from(total)));
        }
    }
    let find = |host: &Host, cause, swept: &mut Swept| {
        swept.findings.extend(eject(config, endpoints, host, cause, chance));
    };
    let busy = |volume: u32| hosts.iter().filter(move |(_, total, _)| *total >= volume);
    let rate = config.success_rate;
    let count = busy(rate.request_volume).count();
    if count > 0 && count >= rate.minimum_hosts as usize {
        let mean = busy(rate.request_volume).map(|(_, _, rate)| rate).sum::<f64>() / count as f64;
        let variance =
            busy(rate.request_volume).map(|(_, _, rate)| (rate - mean).powi(2)).sum::<f64>() / count as f64;
        let threshold = mean - variance.sqrt() * f64::from(rate.stdev_factor) / 1000.0;
        for (host, ..) in busy(rate.request_volume).filter(|(_, _, rate)| *rate < threshold) {
            find(host, Cause::SuccessRate, swept);
        }
    }
    let failures = config.failure_percentage;
    let count = busy(failures.request_volume).count();
    if count > 0 && count >= failures.minimum_hosts as usize {
        let failing = |rate: f64| 100.0 - rate >= f64::from(failures.threshold);
        for (host, ..) in busy(failures.request_volume).filter(|(_, _, rate)| failing(*rate)) {
            find(host, Cause::FailurePercentage, swept);
        }
    }
}

#[cfg(test)]
mod tests;
