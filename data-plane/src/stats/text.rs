//! Statistics as `/stats` prints them: lines, or JSON.

use std::fmt::Write;

use regex::Regex;
use serde_json::{Value as Json, json};

use super::histogram::Buckets;
use super::sample::{Sample, Value};
use super::schema::Kind;
use super::{Rules, Store};

/// Which statistics somebody asks for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only those that were ever written.
    pub used_only: bool,
    /// Only those whose full name matches.
    pub filter: Option<Regex>,
    /// Those whose name does not, instead.
    pub inverted: bool,
    /// Only those of this kind.
    pub kind: Option<Kind>,
    /// In Prometheus' form: texts, too.
    pub texts: bool,
}

impl Query {
    /// Whether the query wants this statistic.
    pub fn selects(&self, sample: &Sample<'_>, flat: &str) -> bool {
        let kind = match sample.value {
            Value::Counter(_) => Kind::Counter,
            Value::Gauge(_) | Value::Hash(_) => Kind::Gauge,
            Value::Text(_) => Kind::Text,
            Value::Histogram(_) => Kind::Histogram,
        };
        (!self.used_only || sample.used)
            && self.kind.is_none_or(|wanted| wanted == kind)
            && self.filter.as_ref().is_none_or(|filter| filter.is_match(flat) != self.inverted)
    }
}

/// Envoy's quantiles.
const QUANTILES: [(&str, f64); 10] = [
    ("P0", 0.0),
    ("P25", 0.25),
    ("P50", 0.5),
    ("P75", 0.75),
    ("P90", 0.9),
    ("P95", 0.95),
    ("P99", 0.99),
    ("P99.5", 0.995),
    ("P99.9", 0.999),
    ("P100", 1.0),
];

/// One `name: value` a line: texts, counters and gauges, then histograms, each by name.
pub fn render_text(store: &Store, rules: &Rules, query: &Query) -> String {
    let mut lines: Vec<(u8, String, String)> = Vec::new();
    store.visit(&mut |sample| {
        let flat = sample.name.to_string();
        if !query.selects(&sample, &flat) || !rules.keeps(&flat) {
            return;
        }
        let (order, value) = match sample.value {
            Value::Text(text) => (0, format!("{text:?}")),
            Value::Counter(value) => (1, value.to_string()),
            Value::Gauge(value) => (1, value.to_string()),
            Value::Hash(value) => (1, value.to_string()),
            Value::Histogram(buckets) => (2, quantiles(buckets)),
        };
        lines.push((order, flat, value));
    });
    lines.sort();
    let mut out = String::new();
    for (_, name, value) in lines {
        let _ = writeln!(out, "{name}: {value}");
    }
    out
}

/// `{"stats": [{"name": .., "value": ..}, ..., {"histograms": ..}]}`.
pub fn render_json(store: &Store, rules: &Rules, query: &Query) -> Json {
    let mut stats: Vec<Json> = Vec::new();
    let mut computed: Vec<Json> = Vec::new();
    store.visit(&mut |sample| {
        let flat = sample.name.to_string();
        if !query.selects(&sample, &flat) || !rules.keeps(&flat) {
            return;
        }
        match sample.value {
            Value::Text(value) => stats.push(json!({ "name": flat, "value": value })),
            Value::Counter(value) => stats.push(json!({ "name": flat, "value": value })),
            Value::Gauge(value) => stats.push(json!({ "name": flat, "value": value })),
            Value::Hash(value) => stats.push(json!({ "name": flat, "value": value })),
            Value::Histogram(buckets) => {
                let values: Vec<Json> = QUANTILES
                    .iter()
                    .map(|(_, q)| match buckets.count() {
                        0 => json!({ "interval": null, "cumulative": null }),
                        _ => json!({ "interval": null, "cumulative": buckets.quantile(*q) }),
                    })
                    .collect();
                computed.push(json!({ "name": flat, "values": values }));
            }
        }
    });
    if !computed.is_empty() {
        let supported: Vec<f64> = QUANTILES.iter().map(|(_, q)| q * 100.0).collect();
        let histograms = json!({ "supported_quantiles": supported, "computed_quantiles": computed });
        stats.push(json!({ "histograms": histograms }));
    }
    json!({ "stats": stats })
}

fn quantiles(buckets: &Buckets) -> String {
    if buckets.count() == 0 {
        return "No recorded values".to_owned();
    }
    let each = QUANTILES.map(|(label, q)| {
        let value = (buckets.quantile(q) * 1000.0).round() / 1000.0;
        format!("{label}(nan,{value})")
    });
    each.join(" ")
}
