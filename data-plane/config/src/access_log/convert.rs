//! Access logs from their `Any`s, and substitution format strings.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use sail_proxy_decide::format::Format;
use serde_json::{Map, Value};
use xds_api::envoy::extensions::access_loggers as loggers;
use xds_api::opentelemetry::proto::common::v1 as otel;

use super::{
    AccessLog, AccessLogFilter, AccessLogSink, Comparison, ComparisonOp, DEFAULT_FORMAT, GrpcAccessLog,
    GrpcLogKind, GrpcTarget, JsonFormat, LogFormat, OtelAccessLog,
};
use crate::convert::{Cx, arc, headers, matchers, type_name, values};
use crate::pb;
use crate::tracing::OtelExporter;

/// A list of logs.
pub(crate) fn all(
    cx: &mut Cx<'_>,
    field: &str,
    values: Vec<pb::accesslog::AccessLog>,
) -> Box<[Arc<AccessLog>]> {
    cx.each(field, values, |cx, value| log(cx, value).map(Arc::new)).into()
}

fn log(cx: &mut Cx<'_>, value: pb::accesslog::AccessLog) -> Option<AccessLog> {
    use pb::accesslog::access_log::ConfigType;
    let pb::accesslog::AccessLog { name, filter, config_type } = value;
    let filter = match filter {
        Some(value) => Some(cx.within("filter", |cx| self::filter(cx, value))?),
        None => None,
    };
    let Some(ConfigType::TypedConfig(any)) = config_type else {
        cx.error("typed_config", format_args!("the log {name:?} has no configuration"));
        return None;
    };
    let sink = cx.within("typed_config", |cx| sink(cx, &any))?;
    Some(AccessLog { filter, sink })
}

fn sink(cx: &mut Cx<'_>, any: &pb::Any) -> Option<AccessLogSink> {
    let to = |path: &str, format: LogFormat| AccessLogSink::File { path: Arc::from(path), format };
    match type_name(any) {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            let value = cx.unpack(any)?;
            file(cx, value)
        }
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            use loggers::stream::v3::stdout_access_log::AccessLogFormat;
            let value: loggers::stream::v3::StdoutAccessLog = cx.unpack(any)?;
            let format = value.access_log_format.map(|AccessLogFormat::LogFormat(format)| format);
            log_format(cx, format).map(|format| to("/dev/stdout", format))
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            use loggers::stream::v3::stderr_access_log::AccessLogFormat;
            let value: loggers::stream::v3::StderrAccessLog = cx.unpack(any)?;
            let format = value.access_log_format.map(|AccessLogFormat::LogFormat(format)| format);
            log_format(cx, format).map(|format| to("/dev/stderr", format))
        }
        "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig" => {
            let loggers::grpc::v3::HttpGrpcAccessLogConfig {
                common_config,
                additional_request_headers_to_log: request,
                additional_response_headers_to_log: response,
                additional_response_trailers_to_log: trailers,
            } = cx.unpack(any)?;
            let mut log = cx
                .required("common_config", common_config, |cx, value| common(cx, value, GrpcLogKind::Http))?;
            log.request_headers = names(cx, "additional_request_headers_to_log", request);
            log.response_headers = names(cx, "additional_response_headers_to_log", response);
            log.response_trailers = names(cx, "additional_response_trailers_to_log", trailers);
            Some(AccessLogSink::Grpc(log))
        }
        "envoy.extensions.access_loggers.grpc.v3.TcpGrpcAccessLogConfig" => {
            let loggers::grpc::v3::TcpGrpcAccessLogConfig { common_config } = cx.unpack(any)?;
            cx.required("common_config", common_config, |cx, value| common(cx, value, GrpcLogKind::Tcp))
                .map(AccessLogSink::Grpc)
        }
        "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig" => {
            let value = cx.unpack(any)?;
            otel_log(cx, value).map(AccessLogSink::OpenTelemetry)
        }
        other => {
            cx.error("", format_args!("there is no access log {other:?}"));
            None
        }
    }
}

fn names(cx: &mut Cx<'_>, field: &str, names: Vec<String>) -> Box<[HeaderName]> {
    cx.each(field, names, |cx, name| headers::name(cx, "", &name)).into()
}

fn file(cx: &mut Cx<'_>, value: loggers::file::v3::FileAccessLog) -> Option<AccessLogSink> {
    use loggers::file::v3::file_access_log::AccessLogFormat as Kind;
    let loggers::file::v3::FileAccessLog { path, access_log_format } = value;
    let json = |cx: &mut Cx<'_>, value| {
        let format = json_object(cx, values::object(value))?;
        Some(LogFormat::Json { format, omit_empty_values: false, sort_properties: false })
    };
    let format = match access_log_format {
        None => log_format(cx, None)?,
        Some(Kind::Format(text)) if text.is_empty() => log_format(cx, None)?,
        Some(Kind::Format(text)) => {
            let format = cx.within("format", |cx| headers::format(cx, &text))?;
            LogFormat::Text { format, omit_empty_values: false }
        }
        Some(Kind::JsonFormat(value)) => cx.within("json_format", |cx| json(cx, value))?,
        Some(Kind::TypedJsonFormat(value)) => cx.within("typed_json_format", |cx| json(cx, value))?,
        Some(Kind::LogFormat(value)) => log_format(cx, Some(value))?,
    };
    if path.is_empty() {
        cx.error("path", "it must be set");
    }
    Some(AccessLogSink::File { path: arc(path), format })
}

fn log_format(cx: &mut Cx<'_>, value: Option<pb::core::SubstitutionFormatString>) -> Option<LogFormat> {
    match value {
        Some(value) => cx.within("log_format", |cx| format(cx, value)),
        None => {
            let format = cx.ok("", Format::parse(DEFAULT_FORMAT))?;
            Some(LogFormat::Text { format, omit_empty_values: false })
        }
    }
}

/// `SubstitutionFormatString`
pub(crate) fn format(cx: &mut Cx<'_>, value: pb::core::SubstitutionFormatString) -> Option<LogFormat> {
    use pb::core::substitution_format_string::Format as Kind;
    let pb::core::SubstitutionFormatString {
        omit_empty_values,
        content_type: _,
        formatters,
        json_format_options,
        format,
    } = value;
    self::formatters(cx, formatters);
    let sort_properties = json_format_options.is_some_and(|options| options.sort_properties);
    match format {
        Some(Kind::TextFormat(text)) => {
            let format = cx.within("text_format", |cx| headers::format(cx, &text))?;
            Some(LogFormat::Text { format, omit_empty_values })
        }
        Some(Kind::TextFormatSource(value)) => cx.within("text_format_source", |cx| {
            let text = values::text(cx, value)?;
            Some(LogFormat::Text { format: headers::format(cx, &text)?, omit_empty_values })
        }),
        Some(Kind::JsonFormat(value)) => {
            let format = cx.within("json_format", |cx| json_object(cx, values::object(value)))?;
            Some(LogFormat::Json { format, omit_empty_values, sort_properties })
        }
        None => {
            cx.error("format", "it must be set");
            None
        }
    }
}

/// `SubstitutionFormatString` where a text is needed.
pub(crate) fn text_format(cx: &mut Cx<'_>, value: pb::core::SubstitutionFormatString) -> Option<Format> {
    match format(cx, value)? {
        LogFormat::Text { format, .. } => Some(format),
        LogFormat::Json { .. } => {
            cx.error("json_format", "it is not supported here");
            None
        }
    }
}

/// Formatter extensions: those that Istio names are built in.
pub(crate) fn formatters(cx: &mut Cx<'_>, values: Vec<pb::core::TypedExtensionConfig>) {
    for (at, value) in values.into_iter().enumerate() {
        let any = value.typed_config.unwrap_or_default();
        let known = [
            "envoy.extensions.formatter.req_without_query.v3.ReqWithoutQuery",
            "envoy.extensions.formatter.metadata.v3.Metadata",
            "envoy.extensions.formatter.cel.v3.Cel",
            "envoy.extensions.formatter.file_content.v3.FileContent",
        ];
        if !known.contains(&type_name(&any)) {
            cx.error(
                &format!("formatters[{at}]"),
                format_args!("there is no formatter {:?}", type_name(&any)),
            );
        }
    }
}

fn json_object(cx: &mut Cx<'_>, value: Map<String, Value>) -> Option<JsonFormat> {
    let fields = value.into_iter().filter_map(|(key, value)| {
        let value = cx.within(&key, |cx| json_value(cx, value))?;
        Some((key.into(), value))
    });
    Some(JsonFormat::Object(fields.collect()))
}

fn json_value(cx: &mut Cx<'_>, value: Value) -> Option<JsonFormat> {
    match value {
        Value::String(text) => headers::format(cx, &text).map(JsonFormat::Format),
        Value::Object(fields) => json_object(cx, fields),
        Value::Array(items) => {
            Some(JsonFormat::List(items.into_iter().filter_map(|item| json_value(cx, item)).collect()))
        }
        other => Some(JsonFormat::Value(other)),
    }
}

fn common(
    cx: &mut Cx<'_>,
    value: loggers::grpc::v3::CommonGrpcAccessLogConfig,
    kind: GrpcLogKind,
) -> Option<GrpcAccessLog> {
    let loggers::grpc::v3::CommonGrpcAccessLogConfig {
        log_name,
        grpc_service,
        transport_api_version: _,
        buffer_flush_interval,
        buffer_size_bytes,
        filter_state_objects_to_log,
        grpc_stream_retry_policy,
        custom_tags,
    } = value;
    cx.ignore(
        "grpc_stream_retry_policy",
        &grpc_stream_retry_policy,
        "the stream is opened again with back-off",
    );
    let service = cx.required("grpc_service", grpc_service, grpc_target)?;
    Some(GrpcAccessLog {
        custom_tags: cx.each("custom_tags", custom_tags, crate::tracing::convert::custom_tag).into(),
        log_name: arc(log_name),
        service,
        kind,
        buffer_flush_interval: flush_interval(cx, buffer_flush_interval),
        buffer_size_bytes: values::u32_or(buffer_size_bytes, 16384),
        filter_state_objects_to_log: filter_state_objects_to_log.into_iter().map(arc).collect(),
        request_headers: Box::default(),
        response_headers: Box::default(),
        response_trailers: Box::default(),
    })
}

fn flush_interval(cx: &mut Cx<'_>, value: Option<pb::Duration>) -> Duration {
    let interval = values::duration(cx, "buffer_flush_interval", value);
    interval.filter(|interval| !interval.is_zero()).unwrap_or(Duration::from_secs(1))
}

/// `GrpcService`
pub(crate) fn grpc_target(cx: &mut Cx<'_>, value: pb::core::GrpcService) -> Option<GrpcTarget> {
    use pb::core::grpc_service::TargetSpecifier;
    let pb::core::GrpcService { timeout, initial_metadata, retry_policy, target_specifier } = value;
    cx.ignore("retry_policy", &retry_policy, "streams are opened again with back-off");
    let envoy = match target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(envoy)) => envoy,
        Some(TargetSpecifier::GoogleGrpc(_)) => {
            cx.error("google_grpc", "it is not supported: name a cluster in envoy_grpc");
            return None;
        }
        None => {
            cx.error("target_specifier", "it must be set");
            return None;
        }
    };
    let pb::core::grpc_service::EnvoyGrpc {
        cluster_name,
        authority,
        retry_policy,
        max_receive_message_length,
        // None are sent.
        skip_envoy_headers: _,
    } = envoy;
    cx.ignore("envoy_grpc.retry_policy", &retry_policy, "a stream that failed is opened again with back-off");
    cx.ignore(
        "envoy_grpc.max_receive_message_length",
        &max_receive_message_length,
        "a message of 4 MiB is taken",
    );
    Some(GrpcTarget {
        cluster: arc(cluster_name),
        authority: arc(authority),
        timeout: values::limit(cx, "timeout", timeout, None),
        initial_metadata: initial_metadata
            .into_iter()
            .map(|header| (arc(header.key), arc(header.value)))
            .collect(),
    })
}

fn otel_log(
    cx: &mut Cx<'_>,
    value: loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig,
) -> Option<OtelAccessLog> {
    let loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig {
        common_config,
        http_service,
        grpc_service,
        disable_builtin_labels,
        resource_attributes,
        resource_detectors,
        body,
        attributes,
        stat_prefix,
        formatters,
        log_name,
        buffer_flush_interval,
        buffer_size_bytes,
        filter_state_objects_to_log,
        custom_tags,
    } = value;
    cx.refuse("filter_state_objects_to_log", &filter_state_objects_to_log);
    cx.ignore("resource_detectors", &resource_detectors, "resource_attributes are sent");
    cx.refuse("custom_tags", &custom_tags);
    cx.ignore("stat_prefix", &stat_prefix, "statistics of log services have one name");
    self::formatters(cx, formatters);
    let old = cx.option("common_config", common_config, |cx, value| common(cx, value, GrpcLogKind::Http));
    let grpc = cx.option("grpc_service", grpc_service, grpc_target);
    let http = cx.option("http_service", http_service, crate::tracing::convert::http_service_exporter);
    let exporter = match (grpc, http, &old) {
        (Some(service), None, None) => OtelExporter::Grpc(service),
        (None, Some(exporter), None) => exporter,
        (None, None, Some(old)) => OtelExporter::Grpc(old.service.clone()),
        _ => {
            cx.error("grpc_service", "one of grpc_service, http_service and common_config must be set");
            return None;
        }
    };
    let pairs = |cx: &mut Cx<'_>, field: &str, list: Option<otel::KeyValueList>| {
        let list = list.unwrap_or_default().values;
        cx.each(field, list, |cx, pair| {
            let value = json_value(cx, otel_value(pair.value.unwrap_or_default()))?;
            Some((pair.key.into(), value))
        })
    };
    let resource = resource_attributes.unwrap_or_default().values;
    Some(OtelAccessLog {
        log_name: old.as_ref().map_or_else(|| arc(log_name), |old| Arc::clone(&old.log_name)),
        exporter,
        disable_builtin_labels,
        body: cx.option("body", body, |cx, value| json_value(cx, otel_value(value))),
        attributes: pairs(cx, "attributes.values", attributes).into(),
        resource_attributes: resource
            .into_iter()
            .map(|pair| (pair.key.into(), otel_value(pair.value.unwrap_or_default())))
            .collect(),
        buffer_flush_interval: old
            .as_ref()
            .map_or_else(|| flush_interval(cx, buffer_flush_interval), |old| old.buffer_flush_interval),
        buffer_size_bytes: old.map_or(values::u32_or(buffer_size_bytes, 16384), |old| old.buffer_size_bytes),
    })
}

fn otel_value(value: otel::AnyValue) -> Value {
    use otel::any_value::Value as Kind;
    match value.value {
        Some(Kind::StringValue(text)) => text.into(),
        Some(Kind::BoolValue(value)) => value.into(),
        Some(Kind::IntValue(value)) => value.into(),
        Some(Kind::DoubleValue(value)) => value.into(),
        Some(Kind::ArrayValue(list)) => list.values.into_iter().map(otel_value).collect(),
        Some(Kind::KvlistValue(list)) => Value::Object(
            list.values
                .into_iter()
                .map(|pair| (pair.key, otel_value(pair.value.unwrap_or_default())))
                .collect(),
        ),
        Some(Kind::BytesValue(_) | Kind::StringValueStrindex(_)) | None => Value::Null,
    }
}

fn several(cx: &mut Cx<'_>, field: &str, number: usize) {
    if number < 2 {
        cx.error(field, "there must be two or more");
    }
}

/// `AccessLogFilter`
pub(crate) fn filter(cx: &mut Cx<'_>, value: pb::accesslog::AccessLogFilter) -> Option<AccessLogFilter> {
    use pb::accesslog::access_log_filter::FilterSpecifier as Kind;
    Some(match value.filter_specifier {
        Some(Kind::StatusCodeFilter(value)) => AccessLogFilter::StatusCode(cx.required(
            "status_code_filter.comparison",
            value.comparison,
            comparison,
        )?),
        Some(Kind::DurationFilter(value)) => AccessLogFilter::Duration(cx.required(
            "duration_filter.comparison",
            value.comparison,
            comparison,
        )?),
        Some(Kind::NotHealthCheckFilter(_)) => AccessLogFilter::NotHealthCheck,
        Some(Kind::TraceableFilter(_)) => AccessLogFilter::Traceable,
        Some(Kind::RuntimeFilter(value)) => {
            let percent =
                cx.option("runtime_filter.percent_sampled", value.percent_sampled, values::fraction);
            AccessLogFilter::Runtime(sail_proxy_decide::fraction::RuntimeFraction {
                default: percent.unwrap_or(sail_proxy_decide::fraction::Fraction::NEVER),
                runtime_key: arc(value.runtime_key),
            })
        }
        Some(Kind::AndFilter(value)) => {
            several(cx, "and_filter.filters", value.filters.len());
            AccessLogFilter::And(cx.each("and_filter.filters", value.filters, filter).into())
        }
        Some(Kind::OrFilter(value)) => {
            several(cx, "or_filter.filters", value.filters.len());
            AccessLogFilter::Or(cx.each("or_filter.filters", value.filters, filter).into())
        }
        Some(Kind::HeaderFilter(value)) => AccessLogFilter::Header(Box::new(cx.required(
            "header_filter.header",
            value.header,
            matchers::header,
        )?)),
        Some(Kind::ResponseFlagFilter(value)) => {
            AccessLogFilter::ResponseFlag(value.flags.into_iter().map(Box::from).collect())
        }
        Some(Kind::GrpcStatusFilter(value)) => AccessLogFilter::GrpcStatus {
            statuses: value.statuses.into_iter().filter_map(|status| u32::try_from(status).ok()).collect(),
            exclude: value.exclude,
        },
        Some(Kind::MetadataFilter(value)) => AccessLogFilter::Metadata {
            matcher: cx.option("metadata_filter.matcher", value.matcher, matchers::metadata).map(Box::new),
            match_if_key_not_found: values::bool_or(value.match_if_key_not_found, true),
        },
        Some(Kind::LogTypeFilter(value)) => {
            AccessLogFilter::LogType { types: value.types.into(), exclude: value.exclude }
        }
        Some(Kind::ExtensionFilter(value)) => {
            use pb::accesslog::extension_filter::ConfigType;
            let any = value.config_type.map(|ConfigType::TypedConfig(any)| any).unwrap_or_default();
            if type_name(&any) != "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter" {
                cx.error(
                    "extension_filter",
                    format_args!("the access log filter {:?} is not supported", type_name(&any)),
                );
                return None;
            }
            let filter: loggers::filters::cel::v3::ExpressionFilter = cx.unpack(&any)?;
            let program = sail_proxy_decide::cel::Program::compile(&filter.expression);
            AccessLogFilter::Cel(Arc::new(cx.ok("extension_filter.expression", program)?))
        }
        None => {
            cx.error("filter_specifier", "it must be set");
            return None;
        }
    })
}

fn comparison(cx: &mut Cx<'_>, value: pb::accesslog::ComparisonFilter) -> Option<Comparison> {
    use pb::accesslog::comparison_filter::Op;
    let pb::accesslog::ComparisonFilter { op, value } = value;
    let op = match Op::try_from(op) {
        Ok(Op::Eq) => ComparisonOp::Eq,
        Ok(Op::Ge) => ComparisonOp::Ge,
        Ok(Op::Le) => ComparisonOp::Le,
        Ok(Op::Ne) => ComparisonOp::Ne,
        Err(_) => {
            cx.error("op", "it is not known");
            return None;
        }
    };
    let value = cx.required("value", value, |_, value| Some(value))?;
    Some(Comparison { op, value: value.default_value, runtime_key: arc(value.runtime_key) })
}
