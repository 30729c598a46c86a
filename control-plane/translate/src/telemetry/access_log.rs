//! Access logs: in files, and to services over gRPC.

use std::collections::BTreeMap;

use mesh_api::mesh_config::{AccessLogEncoding, EnvoyAls, EnvoyOtelAls, FileAccessLogFormat, Provider};
use saild_model::{Mesh, ProxyView};
use serde_json::Value;
use xds_api::any::pack;
use xds_api::envoy::config::accesslog::v3 as log;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::extensions::access_loggers::file::v3 as file;
use xds_api::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;
use xds_api::envoy::extensions::access_loggers::grpc::v3 as als;
use xds_api::envoy::extensions::access_loggers::open_telemetry::v3 as otlp;

use super::{Side, layers};
use crate::pb;
use crate::provider::{self, Backend};

/// Names of logs whose provider gives none.
const HTTP_LOG: &str = "http_envoy_accesslog";
const TCP_LOG: &str = "tcp_envoy_accesslog";
const OTEL_LOG: &str = "otel_envoy_accesslog";

/// Filter state that says who peers are.
const PEERS: [&str; 2] = ["upstream_peer", "downstream_peer"];

/// The line of a request or connection, unless the user says another.
const TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// The fields of the same in JSON.
const FIELDS: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// An access log.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogInputs {
    /// Where it goes.
    pub sink: Sink,
    /// A CEL expression that says which requests are logged; empty for all.
    pub filter: String,
}

/// Where a log goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sink {
    /// Into a file.
    File {
        /// The file.
        path: String,
        /// How a line is written.
        format: LogFormat,
        /// Values that are empty are left out.
        omit_empty: bool,
    },
    /// Requests, to Envoy's access-log service.
    HttpService(Box<ServiceLog>),
    /// Connections, to Envoy's access-log service.
    TcpService(Box<ServiceLog>),
    /// To an OpenTelemetry collector.
    OpenTelemetry(Box<OtelLog>),
}

/// A log to Envoy's access-log service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceLog {
    /// The service.
    pub backend: Backend,
    /// What is logged.
    pub settings: EnvoyAls,
}

/// A log to an OpenTelemetry collector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OtelLog {
    /// The collector.
    pub backend: Backend,
    /// The name of the log.
    pub name: String,
    /// The body of a record.
    pub body: String,
    /// The attributes of a record.
    pub attributes: BTreeMap<String, String>,
    /// Filter state that is logged too.
    pub filter_state: Vec<String>,
}

/// What is logged about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Requests.
    Http,
    /// Connections.
    Tcp,
}

/// How a line is written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LogFormat {
    /// As text.
    Text(String),
    /// As JSON with these fields.
    Json(Value),
}

/// The logs of one side of a workload.
pub(crate) fn inputs(mesh: &Mesh, proxy: &ProxyView, side: Side) -> Vec<LogInputs> {
    let settings = mesh.settings();
    let mut names = settings.default_providers.access_logging.clone();
    let (mut filter, mut disabled, mut said) = (String::new(), false, false);
    for layer in layers(mesh, proxy) {
        for logging in layer.spec.access_logging.iter().filter(|l| side.is(l.r#match.as_ref())) {
            said = true;
            disabled = logging.disabled.unwrap_or(false);
            if !logging.providers.is_empty() {
                names = logging.providers.iter().map(|p| p.name.clone()).collect();
            }
            filter = logging.filter.as_ref().map(|f| f.expression.clone()).unwrap_or_default();
        }
    }
    if disabled {
        return Vec::new();
    }
    let mut logs: Vec<LogInputs> = names.iter().filter_map(|name| of_provider(mesh, name, &filter)).collect();
    // The file of MeshConfig is for those that nobody says anything about.
    if !settings.access_log_file.is_empty() && (!said || names.is_empty()) {
        let path = &settings.access_log_file;
        let is_same = |log: &LogInputs| matches!(&log.sink, Sink::File { path: known, .. } if known == path);
        if !logs.iter().any(is_same) {
            let sink = Sink::File { path: path.clone(), format: of_mesh(mesh), omit_empty: false };
            logs.push(LogInputs { sink, filter: filter.clone() });
        }
    }
    logs
}

/// Whether a provider takes access logs.
pub(crate) fn is_log(provider: &Provider) -> bool {
    matches!(
        provider,
        Provider::EnvoyFileAccessLog(_)
            | Provider::EnvoyHttpAls(_)
            | Provider::EnvoyTcpAls(_)
            | Provider::EnvoyOtelAls(_)
    )
}

fn of_provider(mesh: &Mesh, name: &str, filter: &str) -> Option<LogInputs> {
    let service = |settings: EnvoyAls| {
        let backend = provider::backend(mesh, &settings.service, settings.port)?;
        Some(Box::new(ServiceLog { backend, settings }))
    };
    let sink = match provider::find(mesh, name)? {
        Provider::EnvoyFileAccessLog(settings) => Sink::File {
            format: match settings.log_format {
                Some(FileAccessLogFormat { text: Some(text), .. }) => LogFormat::Text(with_newline(text)),
                Some(FileAccessLogFormat { labels: Some(labels), .. }) => LogFormat::Json(labels),
                _ => of_mesh(mesh),
            },
            path: settings.path,
            omit_empty: settings.omit_empty_values,
        },
        Provider::EnvoyHttpAls(settings) => Sink::HttpService(service(settings)?),
        Provider::EnvoyTcpAls(settings) => Sink::TcpService(service(settings)?),
        Provider::EnvoyOtelAls(settings) => Sink::OpenTelemetry(Box::new(otel(mesh, settings)?)),
        _ => return None,
    };
    Some(LogInputs { sink, filter: filter.to_owned() })
}

fn otel(mesh: &Mesh, settings: EnvoyOtelAls) -> Option<OtelLog> {
    let format = settings.log_format.unwrap_or_default();
    let labels = format.labels.as_ref().and_then(Value::as_object).into_iter().flatten();
    let attribute = |(key, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (key.clone(), text)
    };
    Some(OtelLog {
        backend: provider::backend(mesh, &settings.service, settings.port)?,
        name: or(settings.log_name, OTEL_LOG),
        body: format.text.filter(|text| !text.is_empty()).unwrap_or_else(|| TEXT.to_owned()),
        attributes: labels.map(attribute).collect(),
        filter_state: settings.filter_state_objects_to_log,
    })
}

fn or(text: String, default: &str) -> String {
    if text.is_empty() { default.to_owned() } else { text }
}

/// The format of MeshConfig.
fn of_mesh(mesh: &Mesh) -> LogFormat {
    let settings = mesh.settings();
    let own = &settings.access_log_format;
    if settings.access_log_encoding == AccessLogEncoding::Json {
        let parsed = serde_json::from_str(own).ok().filter(Value::is_object);
        return LogFormat::Json(parsed.unwrap_or_else(|| {
            FIELDS.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect()
        }));
    }
    LogFormat::Text(if own.is_empty() { TEXT.to_owned() } else { with_newline(own.clone()) })
}

fn with_newline(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// What is logged of connections: only those that no filter chain is for, as the chains have logs of their own.
pub(crate) fn only_unrouted(mut log: log::AccessLog) -> log::AccessLog {
    log.filter = Some(log::AccessLogFilter {
        filter_specifier: Some(log::access_log_filter::FilterSpecifier::ResponseFlagFilter(
            log::ResponseFlagFilter { flags: vec!["NR".to_owned()] },
        )),
    });
    log
}

/// The logs of a subject as Envoy takes them.
pub(crate) fn access_logs(inputs: &[LogInputs], subject: Subject) -> Vec<log::AccessLog> {
    inputs.iter().filter_map(|inputs| access_log(inputs, subject)).collect()
}

/// The log as Envoy takes it; nothing if it is of another subject.
fn access_log(inputs: &LogInputs, subject: Subject) -> Option<log::AccessLog> {
    let (name, config) = match &inputs.sink {
        Sink::File { path, format, omit_empty } => {
            ("envoy.access_loggers.file", pack(&file_log(path, format, *omit_empty)))
        }
        Sink::HttpService(service) if subject == Subject::Http => {
            let config = als::HttpGrpcAccessLogConfig {
                common_config: Some(common(service, HTTP_LOG)),
                additional_request_headers_to_log: service.settings.additional_request_headers_to_log.clone(),
                additional_response_headers_to_log: service
                    .settings
                    .additional_response_headers_to_log
                    .clone(),
                additional_response_trailers_to_log: service
                    .settings
                    .additional_response_trailers_to_log
                    .clone(),
            };
            ("envoy.http_grpc_access_log", pack(&config))
        }
        Sink::TcpService(service) if subject == Subject::Tcp => {
            let config = als::TcpGrpcAccessLogConfig { common_config: Some(common(service, TCP_LOG)) };
            ("envoy.tcp_grpc_access_log", pack(&config))
        }
        Sink::HttpService(_) | Sink::TcpService(_) => return None,
        Sink::OpenTelemetry(log) => ("envoy.access_loggers.open_telemetry", pack(&otel_log(log))),
    };
    Some(log::AccessLog {
        name: name.to_owned(),
        filter: (!inputs.filter.is_empty()).then(|| cel(&inputs.filter)),
        config_type: Some(log::access_log::ConfigType::TypedConfig(config)),
    })
}

fn file_log(path: &str, format: &LogFormat, omit_empty: bool) -> file::FileAccessLog {
    use core::substitution_format_string::Format;
    let line = |text: &str| {
        let specifier = Some(core::data_source::Specifier::InlineString(text.to_owned()));
        Format::TextFormatSource(core::DataSource { specifier, ..Default::default() })
    };
    let format = match format {
        LogFormat::Text(text) => line(text),
        LogFormat::Json(fields) => match pb::json(fields).kind {
            Some(xds_api::google::protobuf::value::Kind::StructValue(fields)) => Format::JsonFormat(fields),
            _ => line(TEXT),
        },
    };
    file::FileAccessLog {
        path: path.to_owned(),
        access_log_format: Some(file::file_access_log::AccessLogFormat::LogFormat(
            core::SubstitutionFormatString {
                omit_empty_values: omit_empty,
                format: Some(format),
                ..Default::default()
            },
        )),
    }
}

fn common(service: &ServiceLog, name: &str) -> als::CommonGrpcAccessLogConfig {
    let own = &service.settings.filter_state_objects_to_log;
    als::CommonGrpcAccessLogConfig {
        log_name: or(service.settings.log_name.clone(), name),
        grpc_service: Some(pb::grpc(&service.backend.cluster, &service.backend.host)),
        transport_api_version: core::ApiVersion::V3 as i32,
        filter_state_objects_to_log: filter_state(own),
        ..Default::default()
    }
}

/// What peers said of themselves is always logged, unless others are asked for.
fn filter_state(own: &[String]) -> Vec<String> {
    if own.is_empty() { PEERS.map(str::to_owned).to_vec() } else { own.to_vec() }
}

fn otel_log(log: &OtelLog) -> otlp::OpenTelemetryAccessLogConfig {
    use xds_api::opentelemetry::proto::common::v1 as values;
    let text =
        |text: &str| values::AnyValue { value: Some(values::any_value::Value::StringValue(text.to_owned())) };
    let attributes = log.attributes.iter().map(|(key, value)| values::KeyValue {
        key: key.clone(),
        value: Some(text(value)),
        ..Default::default()
    });
    let service = ServiceLog {
        backend: log.backend.clone(),
        settings: EnvoyAls {
            log_name: log.name.clone(),
            filter_state_objects_to_log: log.filter_state.clone(),
            ..EnvoyAls::default()
        },
    };
    #[allow(deprecated, reason = "the newer spelling is not known to proxies of other versions")]
    otlp::OpenTelemetryAccessLogConfig {
        common_config: Some(common(&service, OTEL_LOG)),
        body: Some(text(&log.body)),
        attributes: Some(values::KeyValueList { values: attributes.collect() }),
        ..Default::default()
    }
}

fn cel(expression: &str) -> log::AccessLogFilter {
    let config = ExpressionFilter { expression: expression.to_owned(), ..Default::default() };
    log::AccessLogFilter {
        filter_specifier: Some(log::access_log_filter::FilterSpecifier::ExtensionFilter(
            log::ExtensionFilter {
                name: "envoy.access_loggers.extension_filters.cel".to_owned(),
                config_type: Some(log::extension_filter::ConfigType::TypedConfig(pack(&config))),
            },
        )),
    }
}
