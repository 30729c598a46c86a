//! A connection manager's tracer, from its configuration.

use std::sync::Arc;

use sail_proxy_config::hcm::Hcm;
use sail_proxy_config::tracing::{CustomTagSource, OtelExporter, Tracing, TracingProvider};
use sail_proxy_decide::fraction::Fraction;

use super::Observers;
use crate::stream_info::Direction;
use crate::trace::{
    CustomTag, ExportProtocol, Exporter, Kind, Propagation, Sampling, TagSource, Tracer, TracerOptions,
};

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
                let exporter =
                    Exporter { cluster: zipkin.cluster.to_string(), protocol, service: service.to_owned() };
                (exporter, propagation, zipkin.trace_id_128bit, zipkin.shared_span_context)
            }
            TracingProvider::OpenTelemetry(otel) => {
                let named = !otel.service_name.is_empty();
                let service = if named { &*otel.service_name } else { "unknown_service:envoy" };
                let (cluster, protocol) = match &otel.exporter {
                    OtelExporter::Grpc(target) => (target.cluster.to_string(), ExportProtocol::OtlpGrpc),
                    OtelExporter::Http { cluster, uri, headers, .. } => {
                        let headers = headers
                            .iter()
                            .map(|(name, value)| (name.to_string(), value.to_string()))
                            .collect();
                        (cluster.to_string(), ExportProtocol::OtlpHttp { uri: uri.to_string(), headers })
                    }
                };
                (Exporter { cluster, protocol, service: service.to_owned() }, Propagation::W3c, true, false)
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
            kind: Kind::of(direction),
            max_path: tracing.max_path_tag_length as usize,
            tags: tracing.custom_tags.iter().filter_map(|tag| self.custom_tag(tag)).collect(),
            pack_reason: hcm.request_id.pack_trace_reason,
            node: (self.node.id.as_str().into(), zone),
            exporter: self.exporters.get(exporter),
            stats: self.store.scope(&hcm.stat_prefix),
        }))
    }

    fn custom_tag(&self, tag: &sail_proxy_config::tracing::CustomTag) -> Option<CustomTag> {
        let given = |default: &Arc<str>| Some(default.clone()).filter(|default| !default.is_empty());
        let source = match &tag.source {
            CustomTagSource::Literal(text) => TagSource::Literal(text.clone()),
            CustomTagSource::Environment(name, default) => {
                let value = self.environment.get(&**name).map(|value| Arc::from(value.as_str()));
                TagSource::Literal(value.or_else(|| given(default))?)
            }
            CustomTagSource::RequestHeader(name, default) => TagSource::Header(name.clone(), given(default)),
            CustomTagSource::Metadata(source, namespace, path, default) => {
                TagSource::Metadata(*source, namespace.clone(), path.clone(), given(default))
            }
            CustomTagSource::Format(format) => TagSource::Format(format.clone()),
        };
        Some(CustomTag { name: tag.tag.clone(), source })
    }
}

/// A percentage with two digits behind the point, as Envoy rounds it.
fn fraction(percent: f64) -> Fraction {
    Fraction { numerator: (percent * 100.0).round().clamp(0.0, 10_000.0) as u32, denominator: 10_000 }
}
