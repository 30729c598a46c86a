//! Istio's metrics: the configuration of the `istio.stats` filters.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_api::telemetry::{IstioMetric, TagOperation};
use saild_model::{Mesh, ProxyType, ProxyView};
use xds_api::istio::stats;

use super::{Side, layers};
use crate::pb;

/// The metrics of one side of a workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MetricsInputs {
    /// A service that is not known is not guessed from the Host header, which a client may forge.
    pub no_host_fallback: bool,
    /// How often open TCP connections are counted.
    pub interval: Option<Duration>,
    /// What differs from the standard, by metric; the empty name stands for all.
    pub overrides: BTreeMap<String, MetricOverride>,
}

/// What differs for one metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MetricOverride {
    /// It is not kept.
    pub disabled: bool,
    /// Labels by CEL expression.
    pub labels: BTreeMap<String, String>,
    /// Labels that are left out.
    pub removed: Vec<String>,
}

/// The metrics of a side.
pub(crate) fn inputs(mesh: &Mesh, proxy: &ProxyView, side: Side) -> MetricsInputs {
    let mut out = MetricsInputs {
        no_host_fallback: side == Side::Server || proxy.kind == ProxyType::Router,
        interval: None,
        overrides: BTreeMap::new(),
    };
    for layer in layers(mesh, proxy) {
        for metrics in &layer.spec.metrics {
            out.interval = metrics.reporting_interval.or(out.interval);
            for change in &metrics.overrides {
                let selector = change.r#match.clone().unwrap_or_default();
                if !side.is_mode(selector.mode) {
                    continue;
                }
                let name = if selector.custom_metric.is_empty() {
                    metric(selector.metric.unwrap_or_default()).to_owned()
                } else {
                    selector.custom_metric.clone()
                };
                let entry = out.overrides.entry(name).or_default();
                entry.disabled = change.disabled.unwrap_or(entry.disabled);
                for (label, change) in &change.tag_overrides {
                    match change.operation {
                        TagOperation::Upsert => {
                            entry.labels.insert(label.clone(), change.value.clone());
                        }
                        TagOperation::Remove => entry.removed.push(label.clone()),
                    }
                }
            }
        }
    }
    out
}

/// The name in the filter's configuration, which lacks the prefix `istio_`.
fn metric(metric: IstioMetric) -> &'static str {
    match metric {
        IstioMetric::AllMetrics => "",
        IstioMetric::RequestCount => "requests_total",
        IstioMetric::RequestDuration => "request_duration_milliseconds",
        IstioMetric::RequestSize => "request_bytes",
        IstioMetric::ResponseSize => "response_bytes",
        IstioMetric::TcpOpenedConnections => "tcp_connections_opened_total",
        IstioMetric::TcpClosedConnections => "tcp_connections_closed_total",
        IstioMetric::TcpSentBytes => "tcp_sent_bytes_total",
        IstioMetric::TcpReceivedBytes => "tcp_received_bytes_total",
        IstioMetric::GrpcRequestMessages => "request_messages_total",
        IstioMetric::GrpcResponseMessages => "response_messages_total",
    }
}

/// The filter's configuration.
pub(crate) fn plugin(inputs: &MetricsInputs) -> stats::PluginConfig {
    let metrics = inputs.overrides.iter().map(|(name, change)| stats::MetricConfig {
        name: name.clone(),
        dimensions: change.labels.clone().into_iter().collect(),
        tags_to_remove: change.removed.clone(),
        drop: change.disabled,
        ..Default::default()
    });
    stats::PluginConfig {
        disable_host_header_fallback: inputs.no_host_fallback,
        tcp_reporting_duration: inputs.interval.and_then(pb::duration),
        metrics: metrics.collect(),
        ..Default::default()
    }
}
