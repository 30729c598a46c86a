//! `HttpConnectionManager.Tracing`

use std::sync::Arc;

use sail_proxy_decide::format::{Format, MetadataSource};
use sail_proxy_decide::route::spans::{CustomTag, CustomTagSource, RouteSpans};

use super::{OpenTelemetry, OtelExporter, Tracing, TracingProvider, Zipkin};
use crate::access_log::grpc_target;
use crate::convert::{Cx, NoSources, arc, headers, type_name, values};
use crate::{Severity, pb};

pub(crate) fn tracing(cx: &mut Cx<'_>, value: pb::hcm::http_connection_manager::Tracing) -> Option<Tracing> {
    let pb::hcm::http_connection_manager::Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        verbose,
        max_path_tag_length,
        custom_tags,
        provider,
        spawn_upstream_span,
        operation,
        upstream_operation,
        no_context_propagation,
    } = value;
    let provider = provider.or_else(|| cx.sources.tracer());
    Some(Tracing {
        client_sampling: values::percent(cx, "client_sampling", client_sampling, 100.0),
        random_sampling: values::percent(cx, "random_sampling", random_sampling, 100.0),
        overall_sampling: values::percent(cx, "overall_sampling", overall_sampling, 100.0),
        max_path_tag_length: values::u32_or(max_path_tag_length, 256),
        no_context_propagation,
        verbose,
        spawn_upstream_span: values::bool_or(spawn_upstream_span, false),
        operation: self::operation(cx, "operation", &operation),
        upstream_operation: self::operation(cx, "upstream_operation", &upstream_operation),
        custom_tags: cx.each("custom_tags", custom_tags, custom_tag).into(),
        provider: cx.option("provider", provider, self::provider).map(Arc::new),
    })
}

/// A span's name, where one is set.
fn operation(cx: &mut Cx<'_>, field: &str, text: &str) -> Option<Format> {
    if text.is_empty() {
        return None;
    }
    cx.within(field, |cx| headers::format(cx, text))
}

/// What a route adds to, or puts in the place of, what the connection manager says.
pub(crate) fn of_route(
    cx: &mut Cx<'_>,
    tags: Vec<pb::tag::CustomTag>,
    operation: &str,
    upstream_operation: &str,
) -> Option<Arc<RouteSpans>> {
    let spans = RouteSpans {
        custom_tags: cx.each("custom_tags", tags, custom_tag).into(),
        operation: self::operation(cx, "operation", operation),
        upstream_operation: self::operation(cx, "upstream_operation", upstream_operation),
    };
    let empty =
        spans.custom_tags.is_empty() && spans.operation.is_none() && spans.upstream_operation.is_none();
    (!empty).then(|| Arc::new(spans))
}

pub(crate) fn custom_tag(cx: &mut Cx<'_>, value: pb::tag::CustomTag) -> Option<CustomTag> {
    use pb::tag::custom_tag::Type;
    let pb::tag::CustomTag { tag, r#type } = value;
    let source = match r#type {
        Some(Type::Literal(literal)) => CustomTagSource::Literal(arc(literal.value)),
        Some(Type::Environment(value)) => match cx.sources.environment(&value.name) {
            Some(found) => CustomTagSource::Literal(arc(found)),
            None => CustomTagSource::Environment(arc(value.name), arc(value.default_value)),
        },
        Some(Type::RequestHeader(value)) => CustomTagSource::RequestHeader(
            headers::name(cx, "request_header.name", &value.name)?,
            arc(value.default_value),
        ),
        Some(Type::Metadata(value)) => cx.within("metadata", |cx| metadata(cx, value))?,
        Some(Type::Value(text)) => {
            CustomTagSource::Format(cx.within("value", |cx| headers::format(cx, &text))?)
        }
        None => {
            cx.error("type", "it must be set");
            return None;
        }
    };
    Some(CustomTag { tag: arc(tag), source })
}

fn metadata(cx: &mut Cx<'_>, value: pb::tag::custom_tag::Metadata) -> Option<CustomTagSource> {
    use xds_api::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
    use xds_api::envoy::r#type::metadata::v3::metadata_kind::Kind;
    let pb::tag::custom_tag::Metadata { kind, metadata_key, default_value } = value;
    let source = match kind.and_then(|kind| kind.kind) {
        Some(Kind::Request(_)) | None => MetadataSource::Dynamic,
        Some(Kind::Route(_)) => MetadataSource::Route,
        Some(Kind::Cluster(_)) => MetadataSource::Cluster,
        Some(Kind::Host(_)) => MetadataSource::UpstreamHost,
    };
    let key = cx.required("metadata_key", metadata_key, |_, key| Some(key))?;
    let path = cx.each("metadata_key.path", key.path, |cx, segment| match segment.segment {
        Some(Segment::Key(key)) => Some(key.into()),
        _ => {
            cx.error("", "only keys are supported");
            None
        }
    });
    Some(CustomTagSource::Metadata(source, arc(key.key), path.into(), arc(default_value)))
}

/// Whether there is such a tracer.
///
/// # Errors
/// What is wrong with it, by field.
pub fn check(tracer: pb::trace::tracing::Http) -> Result<(), String> {
    let mut cx = Cx::new(&NoSources);
    provider(&mut cx, tracer);
    let errors = cx.into_findings().into_iter().filter(|finding| finding.severity == Severity::Error);
    let errors: Vec<String> = errors.map(|error| error.to_string()).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

/// `Tracing.Http`
pub(crate) fn provider(cx: &mut Cx<'_>, value: pb::trace::tracing::Http) -> Option<TracingProvider> {
    use pb::trace::tracing::http::ConfigType;
    let pb::trace::tracing::Http { name, config_type } = value;
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        cx.error("typed_config", format_args!("the tracer {name:?} has no configuration"));
        return None;
    };
    cx.within("typed_config", |cx| match type_name(&any) {
        "envoy.config.trace.v3.ZipkinConfig" => {
            let value = cx.unpack(&any)?;
            zipkin(cx, value).map(TracingProvider::Zipkin)
        }
        "envoy.config.trace.v3.OpenTelemetryConfig" => {
            let value = cx.unpack(&any)?;
            open_telemetry(cx, value).map(TracingProvider::OpenTelemetry)
        }
        other => {
            cx.error("", format_args!("there is no tracer {other:?}"));
            None
        }
    })
}

fn zipkin(cx: &mut Cx<'_>, value: pb::trace::ZipkinConfig) -> Option<Zipkin> {
    use pb::trace::zipkin_config::{CollectorEndpointVersion, TraceContextOption};
    let pb::trace::ZipkinConfig {
        collector_cluster,
        collector_endpoint,
        trace_id_128bit,
        shared_span_context,
        collector_endpoint_version,
        collector_hostname,
        split_spans_for_request,
        trace_context_option,
        collector_service,
        timestamp_trace_ids,
    } = value;
    cx.ignore("split_spans_for_request", &split_spans_for_request, "shared_span_context decides");
    cx.ignore("timestamp_trace_ids", &timestamp_trace_ids, "trace ids are random");
    cx.refuse("collector_service", &collector_service);
    Some(Zipkin {
        hostname: arc(if collector_hostname.is_empty() {
            collector_cluster.clone()
        } else {
            collector_hostname
        }),
        cluster: arc(collector_cluster),
        endpoint: arc(collector_endpoint),
        trace_id_128bit,
        shared_span_context: values::bool_or(shared_span_context, true),
        protobuf: collector_endpoint_version == CollectorEndpointVersion::HttpProto as i32,
        w3c: trace_context_option == TraceContextOption::UseB3WithW3cPropagation as i32,
    })
}

fn open_telemetry(cx: &mut Cx<'_>, value: pb::trace::OpenTelemetryConfig) -> Option<OpenTelemetry> {
    let pb::trace::OpenTelemetryConfig {
        grpc_service,
        http_service,
        exporter,
        service_name,
        resource_detectors,
        sampler,
        max_cache_size,
        set_telemetry_sdk_resource_attributes,
        set_service_name_resource_attribute,
        set_instrumentation_scope,
    } = value;
    cx.ignore("resource_detectors", &resource_detectors, "service.name is the resource's only attribute");
    cx.ignore("max_cache_size", &max_cache_size, "the queue of spans has a size of its own");
    let unsaid = |value: Option<pb::BoolValue>| value == Some(pb::BoolValue { value: false });
    for (field, off) in [
        ("set_service_name_resource_attribute", unsaid(set_service_name_resource_attribute)),
        ("set_instrumentation_scope", unsaid(set_instrumentation_scope)),
    ] {
        cx.ignore(field, &off, "it is sent in any case");
    }
    let sdk = set_telemetry_sdk_resource_attributes.is_some_and(|value| value.value);
    cx.ignore("set_telemetry_sdk_resource_attributes", &sdk, "no such attributes are sent");
    cx.refuse("sampler", &sampler);
    cx.refuse("exporter", &exporter);
    let exporter = match (grpc_service, http_service) {
        (Some(value), None) => OtelExporter::Grpc(cx.within("grpc_service", |cx| grpc_target(cx, value))?),
        (None, Some(value)) => cx.within("http_service", |cx| http_service_exporter(cx, value))?,
        _ => {
            cx.error("grpc_service", "either grpc_service or http_service must be set");
            return None;
        }
    };
    let service_name = if service_name.is_empty() { "unknown_service:envoy".into() } else { service_name };
    Some(OpenTelemetry { exporter, service_name: arc(service_name) })
}

pub(crate) fn http_service_exporter(cx: &mut Cx<'_>, value: pb::core::HttpService) -> Option<OtelExporter> {
    use pb::core::http_uri::HttpUpstreamType;
    let pb::core::HttpService { http_uri, request_headers_to_add, formatters } = value;
    crate::access_log::formatters(cx, formatters);
    let pb::core::HttpUri { uri, timeout, http_upstream_type } =
        cx.required("http_uri", http_uri, |_, uri| Some(uri))?;
    let Some(HttpUpstreamType::Cluster(cluster)) = http_upstream_type else {
        cx.error("http_uri.cluster", "it must be set");
        return None;
    };
    let headers = request_headers_to_add.into_iter().filter_map(|option| option.header);
    Some(OtelExporter::Http {
        cluster: arc(cluster),
        uri: arc(uri),
        timeout: values::limit(cx, "http_uri.timeout", timeout, None),
        headers: headers.map(|header| (arc(header.key), arc(header.value))).collect(),
    })
}
