//! Admission control: what an upstream fails at anyway is refused here, the more of it the more it fails.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::fraction::{RuntimeFlag, RuntimeNumber};

/// `AdmissionControl`
#[derive(Debug)]
pub struct AdmissionControl {
    /// Whether it acts.
    pub enabled: RuntimeFlag,
    /// How far it looks back.
    pub window: Duration,
    /// HTTP statuses that are successes.
    pub http_success: Box<[RangeInclusive<u16>]>,
    /// gRPC statuses that are.
    pub grpc_success: Box<[u32]>,
    /// 1 refuses in proportion to failures, more refuses sooner.
    pub aggression: RuntimeNumber,
    /// The share of successes, in per cent, below which requests are refused.
    pub success_rate_threshold: RuntimeNumber,
    /// Fewer requests a second than this are never refused.
    pub rps_threshold: RuntimeNumber,
    /// As much, in per cent, as is refused at most.
    pub max_rejection_probability: RuntimeNumber,
}

/// What holds at the moment.
#[derive(Clone, Copy, Debug)]
pub struct Thresholds {
    /// See [`AdmissionControl::aggression`].
    pub aggression: f64,
    /// See [`AdmissionControl::success_rate_threshold`].
    pub success_rate: f64,
    /// See [`AdmissionControl::rps_threshold`].
    pub rps: f64,
    /// See [`AdmissionControl::max_rejection_probability`].
    pub max_rejection: f64,
}

/// What happened lately. Time is what has passed since any fixed moment.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Requests and successes, by the second.
    seconds: VecDeque<(u64, u32, u32)>,
    requests: u64,
    successes: u64,
}

impl History {
    /// Notes a response.
    pub fn record(&mut self, success: bool, window: Duration, now: Duration) {
        self.forget(window, now);
        let second = now.as_secs();
        if self.seconds.back().is_none_or(|(last, ..)| *last != second) {
            self.seconds.push_back((second, 0, 0));
        }
        if let Some((_, requests, successes)) = self.seconds.back_mut() {
            *requests = requests.saturating_add(1);
            *successes = successes.saturating_add(u32::from(success));
            self.requests += 1;
            self.successes += u64::from(success);
        }
    }

    /// Whether a request may go on, for a random number.
    #[expect(clippy::cast_precision_loss, reason = "counts of requests are far below 2^52")]
    pub fn admits(&mut self, thresholds: Thresholds, window: Duration, now: Duration, random: u64) -> bool {
        self.forget(window, now);
        let (requests, successes) = (self.requests as f64, self.successes as f64);
        if requests / window.as_secs_f64().max(1.0) < thresholds.rps {
            return true;
        }
        let threshold = (thresholds.success_rate / 100.0).clamp(0.01, 1.0);
        let share = (requests - successes / threshold) / (requests + 1.0);
        if share <= 0.0 {
            return true;
        }
        let probability = share.powf(1.0 / thresholds.aggression.max(1.0));
        let probability = probability.min(thresholds.max_rejection / 100.0);
        (random % 10_000) as f64 >= probability * 10_000.0
    }

    fn forget(&mut self, window: Duration, now: Duration) {
        let first = now.as_secs().saturating_sub(window.as_secs());
        while let Some((second, requests, successes)) = self.seconds.front().copied() {
            if second > first || (second == 0 && first == 0) {
                break;
            }
            self.seconds.pop_front();
            self.requests -= u64::from(requests);
            self.successes -= u64::from(successes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_refused_and_forgotten() {
        let window = Duration::from_secs(10);
        let at = Duration::from_secs;
        let thresholds = Thresholds { aggression: 1.0, success_rate: 95.0, rps: 1.0, max_rejection: 80.0 };
        let mut history = History::default();
        assert!(history.admits(thresholds, window, at(100), 0), "nothing is known yet");
        for _ in 0..100 {
            history.record(false, window, at(100));
        }
        assert!(!history.admits(thresholds, window, at(101), 7_999));
        assert!(history.admits(thresholds, window, at(101), 8_000), "never more than the most");
        assert!(history.admits(thresholds, window, at(111), 0), "it is long ago");
        for _ in 0..100 {
            history.record(true, window, at(120));
        }
        assert!(history.admits(thresholds, window, at(121), 0));
    }
}
