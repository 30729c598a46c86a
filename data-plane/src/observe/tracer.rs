//! A connection manager's tracer, from its configuration.

use std::sync::Arc;

use sail_proxy_config::hcm::Hcm;
use sail_proxy_config::http_filter::HttpFilterKind;
use sail_proxy_config::tracing::{OtelExporter, Tracing, TracingProvider};
use sail_proxy_decide::fraction::Fraction;

use super::Observers;
use crate::stream_info::Direction;
use crate::trace::{ExportProtocol, Exporter, Kind, Propagation, Sampling, TIMEOUT, Tracer, TracerOptions};

impl Observers {
    pub(super) fn tracer(&self, direction: Direction, hcm: &Hcm, tracing: &Tracing) -> Option<Tracer> {
        let provider = tracing.provider.as_deref()?;
        let service = if self.node.cluster.is_empty() { "unknown" } else { &self.node.cluster };
        let (exporter, propagation, long_ids, shared) = match provider {
            TracingProvider::Zipkin(zipkin) => {
                let host = if zipkin.hostname.is_empty() { &zipkin.cluster } else { &zipkin.hostname };
                let protocol =
                    ExportProtocol::Zipkin { path: zipkin.endpoint.to_string(), host: host.to_string() };
                let propagation = if zipkin.w3c { Propagation::B3AndW3c } else { Propagation::B3 };
                let exporter = Exporter {
                    cluster: zipkin.cluster.to_string(),
                    protocol,
                    service: service.to_owned(),
                    timeout: TIMEOUT,
                };
                (exporter, propagation, zipkin.trace_id_128bit, zipkin.shared_span_context)
            }
            TracingProvider::OpenTelemetry(otel) => {
                let named = !otel.service_name.is_empty();
                let service = if named { &*otel.service_name } else { "unknown_service:envoy" };
                let (cluster, protocol, limit) = match &otel.exporter {
                    OtelExporter::Grpc(target) => {
                        (target.cluster.to_string(), ExportProtocol::OtlpGrpc, target.timeout)
                    }
                    OtelExporter::Http { cluster, uri, headers, timeout } => {
                        let headers = headers
                            .iter()
                            .map(|(name, value)| (name.to_string(), value.to_string()))
                            .collect();
                        let protocol = ExportProtocol::OtlpHttp { uri: uri.to_string(), headers };
                        (cluster.to_string(), protocol, *timeout)
                    }
                };
                let timeout = limit.unwrap_or(TIMEOUT);
                let exporter = Exporter { cluster, protocol, service: service.to_owned(), timeout };
                (exporter, Propagation::W3c, true, false)
            }
        };
        let locality = self.node.locality.as_ref();
        let zone: Arc<str> = locality.map(|locality| locality.zone.as_str()).unwrap_or_default().into();
        Some(Tracer::new(TracerOptions {
            sampling: Sampling {
                client: fraction(tracing.client_sampling),
                random: fraction(tracing.random_sampling),
                overall: fraction(tracing.overall_sampling),
            },
            propagation,
            by_request_id: hcm.request_id.use_for_trace_sampling,
            no_propagation: tracing.no_context_propagation,
            long_ids,
            shared,
            // With spans of tries, the proxy is a hop of its own.
            kind: if tracing.spawn_upstream_span { Kind::Server } else { Kind::of(direction) },
            max_path: tracing.max_path_tag_length as usize,
            tags: tracing.custom_tags.clone(),
            verbose: tracing.verbose,
            upstream_spans: tracing.spawn_upstream_span || starts_child_span(hcm),
            operation: tracing.operation.clone(),
            upstream_operation: tracing.upstream_operation.clone(),
            pack_reason: hcm.request_id.pack_trace_reason,
            node: (self.node.id.as_str().into(), zone),
            exporter: self.exporters.get(exporter),
            stats: self.store.scope(&hcm.stat_prefix),
        }))
    }
}

/// Whether the router asks for spans of tries, as it did before the tracer could.
fn starts_child_span(hcm: &Hcm) -> bool {
    hcm.http_filters
        .iter()
        .any(|filter| matches!(&filter.kind, HttpFilterKind::Router(router) if router.start_child_span))
}

/// A percentage with two digits behind the point, as Envoy rounds it.
fn fraction(percent: f64) -> Fraction {
    Fraction { numerator: (percent * 100.0).round().clamp(0.0, 10_000.0) as u32, denominator: 10_000 }
}
