//! What a host's checks have shown so far, and what follows: without clock and sockets.

use std::time::Duration;

use sail_proxy_config::cluster::HealthCheck;
use sail_proxy_decide::host::{HealthFlag, Host};

use crate::stats::sets::cluster_health_check as stat;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Well.
    Success {
        /// The host says that it is not at its best.
        degraded: bool,
    },
    /// The host answered, and not well.
    Refused {
        /// Its HTTP status; 0 where it has none.
        status: u16,
        /// It counts as a failure to answer does.
        retriable: bool,
    },
    /// The host did not answer.
    Network,
    /// Not in time.
    Timeout,
}

impl Outcome {
    pub(super) fn is_success(self) -> bool {
        matches!(self, Self::Success { .. })
    }
}

/// What a result changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) first: bool,
    pub(super) success: bool,
    /// Whether the host's health is another one now.
    pub(super) changed: bool,
    /// Whether it will be if the next results are like this one.
    pub(super) pending: bool,
    /// Whether it is degraded now and was not before, or the reverse.
    pub(super) degraded: Option<bool>,
}

impl Change {
    /// The host was healthy and is not any more.
    pub(super) fn failed(&self) -> bool {
        self.changed && !self.success
    }

    /// The host was not healthy and is now.
    pub(super) fn recovered(&self) -> bool {
        self.changed && self.success
    }

    /// How long to wait for the next check; `used`: whether the cluster has traffic.
    pub(super) fn wait(&self, config: &HealthCheck, used: bool) -> Duration {
        match (used, self.success, self.pending) {
            (false, true, false) => config.no_traffic_healthy_interval,
            (false, ..) => config.no_traffic_interval,
            (true, true, true) => config.healthy_edge_interval,
            (true, true, false) => config.interval,
            (true, false, true) => config.unhealthy_edge_interval,
            (true, false, false) => config.unhealthy_interval,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    first: bool,
    healthy: u32,
    unhealthy: u32,
}

impl State {
    /// A host that was checked before need not pass once to be used.
    pub(super) fn new(first: bool) -> Self {
        Self { first, healthy: 0, unhealthy: 0 }
    }

    /// Takes a result, and sets the host's flags.
    pub(super) fn step(
        &mut self,
        config: &HealthCheck,
        host: &Host,
        outcome: Outcome,
        stats: &stat::Scope,
    ) -> Change {
        let first = std::mem::replace(&mut self.first, false);
        let failed = host.state.has(HealthFlag::FailedActiveHealthCheck);
        let success = outcome.is_success();
        let mut change = Change { first, success, changed: false, pending: false, degraded: None };
        if let Outcome::Success { degraded } = outcome {
            stats.inc(stat::success);
            self.unhealthy = 0;
            if failed {
                self.healthy += 1;
                // The first result decides by itself.
                change.changed = first || self.healthy >= config.healthy_threshold;
                change.pending = !change.changed;
            }
            if change.changed {
                self.healthy = 0;
                host.state.clear(HealthFlag::FailedActiveHealthCheck);
                stats.move_by(stat::healthy, 1);
            }
            let flag = HealthFlag::DegradedActiveHealthCheck;
            let moved = if degraded { host.state.set(flag) } else { host.state.clear(flag) };
            change.degraded = moved.then_some(degraded);
        } else {
            stats.inc(stat::failure);
            if matches!(outcome, Outcome::Network | Outcome::Timeout) {
                stats.inc(stat::network_failure);
            }
            self.healthy = 0;
            if !failed {
                self.unhealthy += 1;
                // An answer that says no is believed at once.
                let decided = matches!(outcome, Outcome::Refused { retriable: false, .. });
                change.changed = decided || self.unhealthy >= config.unhealthy_threshold;
                change.pending = !change.changed;
            }
            if change.changed {
                self.unhealthy = 0;
                host.state.set(HealthFlag::FailedActiveHealthCheck);
                stats.move_by(stat::healthy, -1);
            }
        }
        host.state.clear(HealthFlag::PendingActiveHealthCheck);
        change
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sail_proxy_config::cluster::HealthChecker;

    use super::*;
    use crate::cluster::shared::host_at;
    use crate::stats::Store;

    const GOOD: Outcome = Outcome::Success { degraded: false };
    const BAD: Outcome = Outcome::Refused { status: 503, retriable: false };

    fn config() -> HealthCheck {
        let second = Duration::from_secs;
        HealthCheck {
            timeout: second(1),
            interval: second(2),
            initial_jitter: Duration::ZERO,
            interval_jitter: Duration::ZERO,
            interval_jitter_percent: 0,
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            unhealthy_interval: second(4),
            unhealthy_edge_interval: second(3),
            healthy_edge_interval: second(5),
            no_traffic_interval: second(60),
            no_traffic_healthy_interval: second(70),
            alt_port: None,
            reuse_connection: true,
            alpn_protocols: Box::default(),
            checker: HealthChecker::Tcp { send: None, receive: Box::default() },
            event_log: None,
            always_log_failures: false,
            always_log_successes: false,
            socket_criteria: None,
        }
    }

    /// Whether the host is healthy after each result.
    fn run(first: bool, outcomes: &[Outcome]) -> Vec<bool> {
        let host = host_at(([127, 0, 0, 1], 1).into(), Arc::default());
        if first {
            host.state.set(HealthFlag::FailedActiveHealthCheck);
        }
        let (store, mut state) = (Store::new(), State::new(first));
        let stats = store.scope("c");
        let healthy = |outcome: &Outcome| {
            state.step(&config(), &host, *outcome, &stats);
            !host.state.has(HealthFlag::FailedActiveHealthCheck)
        };
        outcomes.iter().map(healthy).collect()
    }

    #[test]
    fn thresholds_hold_but_for_the_first_success_and_for_answers_that_say_no() {
        assert_eq!(run(true, &[GOOD]), [true]);
        assert_eq!(run(true, &[Outcome::Network, GOOD, GOOD]), [false, false, true]);
        assert_eq!(run(false, &[BAD]), [false]);
        assert_eq!(run(false, &[Outcome::Timeout, Outcome::Network, Outcome::Network]), [true, true, false]);
        assert_eq!(run(false, &[Outcome::Network, Outcome::Network, GOOD, Outcome::Network]), [true; 4]);
        let retriable = Outcome::Refused { status: 503, retriable: true };
        assert_eq!(run(false, &[retriable, retriable, retriable]), [true, true, false]);
    }

    #[test]
    fn waits_are_those_of_the_edges() {
        let change =
            |success, pending| Change { first: false, success, changed: false, pending, degraded: None };
        let wait = |success, pending, used| change(success, pending).wait(&config(), used).as_secs();
        assert_eq!([wait(true, false, true), wait(true, true, true)], [2, 5]);
        assert_eq!([wait(false, false, true), wait(false, true, true)], [4, 3]);
        assert_eq!([wait(true, false, false), wait(false, false, false)], [70, 60]);
    }
}
