//! Statistics in Prometheus' text form.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::sample::{Sample, Value};
use super::{Query, Rules, Store};

/// Every statistic that the rules keep and the query selects.
pub fn render(store: &Store, rules: &Rules, query: &Query) -> String {
    // A metric's samples must stand together, whatever objects they come from.
    let mut families: BTreeMap<String, (&'static str, String)> = BTreeMap::new();
    let mut flat = String::new();
    store.visit(&mut |sample| {
        flat.clear();
        let _ = write!(flat, "{}", sample.name);
        let hidden = matches!(sample.value, Value::Text(_)) && !query.texts;
        if hidden || !query.selects(&sample, &flat) || !rules.keeps(&flat) {
            return;
        }
        let metric = rules.metric(sample.name, &flat);
        let (kind, lines) =
            families.entry(metric.name.clone()).or_insert_with(|| (kind(&sample), String::new()));
        debug_assert!(!kind.is_empty());
        write_sample(lines, &metric.name, &metric.labels, &sample, rules.bounds(&flat));
    });
    let mut out = String::new();
    for (name, (kind, lines)) in families {
        let _ = write!(out, "# TYPE {name} {kind}\n{lines}");
    }
    out
}

fn kind(sample: &Sample<'_>) -> &'static str {
    match sample.value {
        Value::Counter(_) => "counter",
        Value::Gauge(_) | Value::Hash(_) | Value::Text(_) => "gauge",
        Value::Histogram(_) => "histogram",
    }
}

fn write_sample(out: &mut String, name: &str, labels: &str, sample: &Sample<'_>, bounds: Option<&[f64]>) {
    // Writing to a string does not fail.
    let _ = match sample.value {
        Value::Counter(value) => writeln!(out, "{name}{{{labels}}} {value}"),
        Value::Gauge(value) => writeln!(out, "{name}{{{labels}}} {value}"),
        Value::Hash(value) => writeln!(out, "{name}{{{labels}}} {value}"),
        Value::Text(value) => {
            let mut labels = labels.to_owned();
            super::tags::push_label(&mut labels, "text_value", value);
            writeln!(out, "{name}{{{labels}}} 0")
        }
        Value::Histogram(buckets) => {
            let comma = if labels.is_empty() { "" } else { "," };
            let mut bucket = |bound: &str, count: u64| {
                let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
            };
            match bounds {
                None => buckets.cumulative().for_each(|(bound, count)| bucket(bound, count)),
                Some(bounds) => {
                    buckets.cumulative_at(bounds).for_each(|(bound, count)| bucket(&bound, count));
                }
            }
            let _ = writeln!(out, "{name}_sum{{{labels}}} {}", buckets.sum);
            writeln!(out, "{name}_count{{{labels}}} {}", buckets.count())
        }
    };
}
