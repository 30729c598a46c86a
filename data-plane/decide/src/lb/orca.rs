//! Weights that hosts report of themselves: `client_side_weighted_round_robin` by ORCA load reports.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hashbrown::HashMap;

use super::SlowStart;

/// `envoy.load_balancing_policies.client_side_weighted_round_robin`
#[derive(Clone, Debug, PartialEq)]
pub struct ReportedWeights {
    /// A host must have reported for so long before its weight counts; 10 s by default.
    pub blackout_period: Duration,
    /// A weight that is older does not count; 3 min by default.
    pub expiration_period: Duration,
    /// How often weights are looked at; 1 s by default.
    pub update_period: Duration,
    /// How much errors count; 1 by default.
    pub error_utilization_penalty: f64,
    /// The metrics of which the utilization is the greatest.
    pub metric_names: Box<[Box<str>]>,
    /// New hosts warm up.
    pub slow_start: Option<SlowStart>,
}

/// `xds.data.orca.v3.OrcaLoadReport`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// How busy the processor is; above 1 is too much.
    pub cpu_utilization: f64,
    /// How full the memory is.
    pub mem_utilization: f64,
    /// How busy the application is, as it says itself.
    pub application_utilization: f64,
    /// Requests a second.
    pub rps_fractional: f64,
    /// Errors a second.
    pub eps: f64,
    /// `request_cost`, `utilization` and `named_metrics`, by `<map>.<key>`.
    pub named: HashMap<Box<str>, f64>,
}

impl LoadReport {
    /// A metric by its name.
    fn metric(&self, name: &str) -> Option<f64> {
        Some(match name {
            "cpu_utilization" => self.cpu_utilization,
            "mem_utilization" => self.mem_utilization,
            "application_utilization" => self.application_utilization,
            "rps_fractional" => self.rps_fractional,
            "eps" => self.eps,
            _ => return self.named.get(name).copied(),
        })
    }

    /// Sets a metric by its name; says whether there is such a one.
    pub fn set(&mut self, name: &str, value: f64) -> bool {
        let field = match name {
            "cpu_utilization" => &mut self.cpu_utilization,
            "mem_utilization" => &mut self.mem_utilization,
            "application_utilization" => &mut self.application_utilization,
            "rps_fractional" => &mut self.rps_fractional,
            "eps" => &mut self.eps,
            _ => {
                let known = ["request_cost.", "utilization.", "named_metrics."];
                let known = known.iter().any(|map| name.len() > map.len() && name.starts_with(map));
                if known {
                    self.named.insert(name.into(), value);
                }
                return known;
            }
        };
        *field = value;
        true
    }

    /// From `name=value` pairs, separated by commas; `None`: it is broken.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut report = Self::default();
        for pair in text.split(',') {
            let (name, value) = pair.trim().split_once('=')?;
            let value = value.trim().parse().ok().filter(|value: &f64| value.is_finite())?;
            if !report.set(name.trim(), value) {
                return None;
            }
        }
        Some(report)
    }

    /// From JSON, as protobuf has it; `None`: it is broken.
    pub fn from_json(text: &str) -> Option<Self> {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        let mut report = Self::default();
        for (name, value) in value.as_object()? {
            if let Some(fields) = value.as_object() {
                for (key, value) in fields {
                    report.set(&format!("{name}.{key}"), value.as_f64()?);
                }
            } else {
                report.set(name, value.as_f64()?);
            }
        }
        Some(report)
    }

    /// The weight that a report gives its host: requests by utilization. `None`: it says too little.
    pub fn weight(&self, config: &ReportedWeights) -> Option<f64> {
        let named = config.metric_names.iter().filter_map(|name| self.metric(name)).fold(0.0, f64::max);
        let first = [named, self.application_utilization, self.cpu_utilization];
        let mut utilization = first.into_iter().find(|value| *value > 0.0).unwrap_or(0.0);
        if self.rps_fractional <= 0.0 {
            return None;
        }
        utilization += self.eps.max(0.0) / self.rps_fractional * config.error_utilization_penalty;
        (utilization > 0.0).then(|| (self.rps_fractional / utilization).min(f64::from(u32::MAX)))
    }
}

/// What a host reported last; read and written by all workers.
#[derive(Debug)]
pub struct Reported {
    weight: AtomicU64,
    /// Milliseconds at which reports began; `u64::MAX`: there are none that count.
    since_ms: AtomicU64,
    last_ms: AtomicU64,
}

impl Default for Reported {
    fn default() -> Self {
        Self { weight: AtomicU64::new(0), since_ms: AtomicU64::new(u64::MAX), last_ms: AtomicU64::new(0) }
    }
}

impl Reported {
    /// Notes a weight.
    pub fn note(&self, weight: f64, now_ms: u64) {
        self.weight.store(weight.to_bits(), Relaxed);
        let _ = self.since_ms.compare_exchange(u64::MAX, now_ms, Relaxed, Relaxed);
        self.last_ms.store(now_ms, Relaxed);
    }

    /// The weight, if it has been reported for long enough and not too long ago.
    pub(super) fn weight(&self, config: &ReportedWeights, now_ms: u64) -> Option<f64> {
        let millis = |period: Duration| u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        let since = self.since_ms.load(Relaxed);
        if since == u64::MAX {
            return None;
        }
        if now_ms.saturating_sub(self.last_ms.load(Relaxed)) > millis(config.expiration_period) {
            // Reports that come again are waited for as the first ones were.
            self.since_ms.store(u64::MAX, Relaxed);
            return None;
        }
        let counts = now_ms.saturating_sub(since) >= millis(config.blackout_period);
        counts.then(|| f64::from_bits(self.weight.load(Relaxed)))
    }
}

/// The weights of hosts: those without one of their own have the median of the others'.
pub(super) fn with_median(own: &[Option<f64>]) -> Box<[f64]> {
    let mut known: Vec<f64> = own.iter().flatten().copied().collect();
    known.sort_by(f64::total_cmp);
    let median = match known.len() {
        0 => 1.0,
        count if count % 2 == 1 => known[count / 2],
        count => f64::midpoint(known[count / 2 - 1], known[count / 2]),
    };
    own.iter().map(|weight| weight.unwrap_or(median)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(names: &[&str]) -> ReportedWeights {
        ReportedWeights {
            blackout_period: Duration::from_secs(10),
            expiration_period: Duration::from_secs(180),
            update_period: Duration::from_secs(1),
            error_utilization_penalty: 2.0,
            metric_names: names.iter().map(|name| (*name).into()).collect(),
            slow_start: None,
        }
    }

    #[test]
    fn reports_are_text_and_json() {
        let text =
            "cpu_utilization=0.3,application_utilization=0.8, rps_fractional=10,eps=1,named_metrics.foo=0.7";
        let json = r#"{"cpu_utilization": 0.3, "application_utilization": 0.8, "rps_fractional": 10, "eps": 1,
            "named_metrics": {"foo": 0.7}}"#;
        let report = LoadReport::from_text(text).unwrap();
        assert_eq!(LoadReport::from_json(json), Some(report.clone()));
        assert_eq!(report.metric("named_metrics.foo"), Some(0.7));
        for broken in
            ["", "cpu_utilization", "cpu_utilization=x", "what=1", "utilization.=1", "cpu_utilization=inf"]
        {
            assert_eq!(LoadReport::from_text(broken), None, "{broken:?}");
        }
        assert_eq!(LoadReport::from_json("[]"), None);
    }

    #[test]
    fn weights_are_requests_by_utilization() {
        let weight = |text: &str, names: &[&str]| LoadReport::from_text(text).unwrap().weight(&config(names));
        assert_eq!(weight("rps_fractional=10,cpu_utilization=0.5", &[]), Some(20.0));
        assert_eq!(
            weight("rps_fractional=10,cpu_utilization=0.5,application_utilization=1", &[]),
            Some(10.0)
        );
        assert_eq!(weight("rps_fractional=10,cpu_utilization=0.5,eps=5", &[]), Some(10.0 / 1.5));
        let named = "rps_fractional=10,cpu_utilization=0.5,application_utilization=1,named_metrics.foo=0.25";
        assert_eq!(weight(named, &["named_metrics.foo"]), Some(40.0));
        assert_eq!(weight("cpu_utilization=0.5", &[]), None, "nobody knows how many requests");
        assert_eq!(weight("rps_fractional=10", &[]), None, "nor how busy it is");
    }

    #[test]
    fn weights_count_between_blackout_and_expiration() {
        let (reported, config) = (Reported::default(), config(&[]));
        assert_eq!(reported.weight(&config, 0), None);
        reported.note(7.0, 1_000);
        assert_eq!(reported.weight(&config, 10_999), None);
        assert_eq!(reported.weight(&config, 11_000), Some(7.0));
        assert_eq!(reported.weight(&config, 181_001), None, "it has expired");
        reported.note(8.0, 182_000);
        assert_eq!(reported.weight(&config, 182_000), None, "and waits again");
        assert_eq!(reported.weight(&config, 192_000), Some(8.0));
    }

    #[test]
    fn hosts_without_a_weight_have_the_median() {
        assert_eq!(*with_median(&[Some(1.0), None, Some(9.0), Some(4.0)]), [1.0, 4.0, 9.0, 4.0]);
        assert_eq!(*with_median(&[Some(2.0), None, Some(4.0)]), [2.0, 3.0, 4.0]);
        assert_eq!(*with_median(&[None, None]), [1.0, 1.0]);
    }
}
