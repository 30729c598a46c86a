//! Counters under the names of Istio's, and their text form for Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// Only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// So far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Changes it.
    pub fn add(&self, difference: i64) {
        self.0.fetch_add(difference, Ordering::Relaxed);
    }

    /// Replaces it.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters told apart by the value of one label.
#[derive(Debug, Default)]
pub struct Family(Mutex<BTreeMap<String, u64>>);

impl Family {
    /// One more of a label's value.
    pub fn increment(&self, label: &str) {
        self.add(label, 1);
    }

    /// So many more of a label's value.
    pub fn add(&self, label: &str, count: u64) {
        let mut map = self.0.lock();
        match map.get_mut(label) {
            Some(value) => *value += count,
            None => {
                map.insert(label.to_owned(), count);
            }
        }
    }

    /// So far.
    pub fn get(&self, label: &str) -> u64 {
        self.0.lock().get(label).copied().unwrap_or_default()
    }
}

const SECONDS: [f64; 11] = [0.01, 0.1, 0.25, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0];

/// How long something took, in Istio's buckets.
#[derive(Debug, Default)]
pub struct Seconds {
    buckets: [AtomicU64; SECONDS.len()],
    count: AtomicU64,
    micros: AtomicU64,
}

impl Seconds {
    /// Something took so long.
    pub fn observe(&self, time: Duration) {
        for (bound, bucket) in SECONDS.iter().zip(&self.buckets) {
            if time.as_secs_f64() <= *bound {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The text that Prometheus reads.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// The page.
    pub fn into_string(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A counter.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    /// A gauge.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        let _ = writeln!(self.0, "{name} {value}");
    }

    /// A gauge with labels, as that which tells a version.
    pub fn labelled(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: f64) {
        self.head(name, "gauge", help);
        let labels: Vec<String> =
            labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escape(value))).collect();
        let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
    }

    /// Counters by one label.
    pub fn family(&mut self, name: &str, help: &str, label: &str, family: &Family) {
        let map = family.0.lock();
        if map.is_empty() {
            return;
        }
        self.head(name, "counter", help);
        for (value, count) in map.iter() {
            let _ = writeln!(self.0, "{name}{{{label}=\"{}\"}} {count}", escape(value));
        }
    }

    /// A histogram of times.
    pub fn seconds(&mut self, name: &str, help: &str, seconds: &Seconds) {
        self.head(name, "histogram", help);
        let count = seconds.count.load(Ordering::Relaxed);
        for (bound, bucket) in SECONDS.iter().zip(&seconds.buckets) {
            let _ = writeln!(self.0, "{name}_bucket{{le=\"{bound}\"}} {}", bucket.load(Ordering::Relaxed));
        }
        let sum = Duration::from_micros(seconds.micros.load(Ordering::Relaxed)).as_secs_f64();
        let _ =
            writeln!(self.0, "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum}\n{name}_count {count}");
    }
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// What the ADS server counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// `pilot_xds`.
    pub connections: Gauge,
    /// `pilot_xds_pushes`, by type.
    pub pushes: Family,
    /// `pilot_xds_<type>_reject` and their sum, by type.
    pub rejects: Family,
    /// `pilot_xds_expired_nonce`, by type.
    pub expired_nonces: Family,
    /// `pilot_push_triggers`, by kind.
    pub triggers: Family,
    /// `pilot_inbound_updates`, by kind.
    pub inbound_updates: Family,
    /// `pilot_debounce_time`.
    pub debounce_time: Seconds,
    /// `pilot_proxy_queue_time`.
    pub queue_time: Seconds,
    /// `pilot_proxy_convergence_time`.
    pub convergence_time: Seconds,
    /// `pilot_xds_push_time`.
    pub push_time: Seconds,
    /// `pilot_xds_send_time`.
    pub send_time: Seconds,
    /// `pilot_xds_config_size_bytes` as a sum by type.
    pub bytes: Family,
    /// Streams that were refused, by reason.
    pub refused: Family,
    /// `pilot_xds_write_timeout`.
    pub write_timeouts: AtomicU64,
}

impl Metrics {
    /// Writes all of them.
    pub fn write(&self, text: &mut Text) {
        text.gauge("pilot_xds", "Connected proxies.", self.connections.get() as f64);
        text.family("pilot_xds_pushes", "Responses sent, by type.", "type", &self.pushes);
        let rejects = self.rejects.0.lock().clone();
        text.counter("pilot_total_xds_rejects", "Responses that proxies refused.", rejects.values().sum());
        for (kind, count) in &rejects {
            let name = format!("pilot_xds_{kind}_reject");
            text.counter(&name, "Responses of the type that proxies refused.", *count);
        }
        text.family(
            "pilot_xds_expired_nonce",
            "Answers to responses that are not the latest.",
            "type",
            &self.expired_nonces,
        );
        text.family("pilot_push_triggers", "Pushes, by what caused them.", "type", &self.triggers);
        text.family("pilot_inbound_updates", "Changes received.", "type", &self.inbound_updates);
        text.seconds(
            "pilot_debounce_time",
            "From the first change of a burst to its end.",
            &self.debounce_time,
        );
        text.seconds("pilot_proxy_queue_time", "Waiting of a push for its turn.", &self.queue_time);
        text.seconds(
            "pilot_proxy_convergence_time",
            "From a change to its arrival at a proxy.",
            &self.convergence_time,
        );
        text.seconds("pilot_xds_push_time", "Making and sending of a push.", &self.push_time);
        text.seconds("pilot_xds_send_time", "Sending of a response.", &self.send_time);
        text.family("pilot_xds_config_size_bytes", "Bytes of resources sent, by type.", "type", &self.bytes);
        let timeouts = self.write_timeouts.load(Ordering::Relaxed);
        text.counter("pilot_xds_write_timeout", "Streams ended as the proxy read nothing.", timeouts);
        text.family("pilot_xds_refused_streams", "Streams refused, by gRPC code.", "code", &self.refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_prometheus_reads() {
        let metrics = Metrics::default();
        metrics.pushes.increment("cds");
        metrics.rejects.increment("lds");
        metrics.push_time.observe(Duration::from_millis(200));
        let mut text = Text::new();
        metrics.write(&mut text);
        let text = text.into_string();
        for line in [
            "pilot_xds 0",
            "pilot_xds_pushes{type=\"cds\"} 1",
            "pilot_total_xds_rejects 1",
            "pilot_xds_lds_reject 1",
            "pilot_xds_push_time_bucket{le=\"0.1\"} 0",
            "pilot_xds_push_time_bucket{le=\"0.25\"} 1",
            "pilot_xds_push_time_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
