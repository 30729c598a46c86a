//! Access logs in files.

use mesh_api::mesh_config::{AccessLogEncoding, FileAccessLogFormat, Provider};
use saild_model::{Mesh, ProxyView};
use serde_json::Value;
use xds_api::any::pack;
use xds_api::envoy::config::accesslog::v3 as log;
use xds_api::envoy::config::core::v3 as core;
use xds_api::envoy::extensions::access_loggers::file::v3 as file;
use xds_api::envoy::extensions::access_loggers::filters::cel::v3::ExpressionFilter;

use super::{Side, layers, provider};
use crate::pb;

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
    /// The file.
    pub path: String,
    /// How a line is written.
    pub format: LogFormat,
    /// Values that are empty are left out.
    pub omit_empty: bool,
    /// A CEL expression that says which requests are logged; empty for all.
    pub filter: String,
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
        let log = LogInputs {
            path: settings.access_log_file.clone(),
            format: of_mesh(mesh),
            omit_empty: false,
            filter: filter.clone(),
        };
        if logs.iter().all(|known| known.path != log.path) {
            logs.push(log);
        }
    }
    logs
}

fn of_provider(mesh: &Mesh, name: &str, filter: &str) -> Option<LogInputs> {
    let Provider::EnvoyFileAccessLog(settings) = provider(mesh, name)? else { return None };
    let format = match settings.log_format {
        Some(FileAccessLogFormat { text: Some(text), .. }) => LogFormat::Text(with_newline(text)),
        Some(FileAccessLogFormat { labels: Some(labels), .. }) => LogFormat::Json(labels),
        _ => of_mesh(mesh),
    };
    Some(LogInputs {
        path: settings.path,
        format,
        omit_empty: settings.omit_empty_values,
        filter: filter.to_owned(),
    })
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

/// The log as Envoy takes it.
pub(crate) fn access_log(inputs: &LogInputs) -> log::AccessLog {
    use core::substitution_format_string::Format;
    let line = |text: &str| {
        let specifier = Some(core::data_source::Specifier::InlineString(text.to_owned()));
        Format::TextFormatSource(core::DataSource { specifier, ..Default::default() })
    };
    let format = match &inputs.format {
        LogFormat::Text(text) => line(text),
        LogFormat::Json(fields) => match pb::json(fields).kind {
            Some(xds_api::google::protobuf::value::Kind::StructValue(fields)) => Format::JsonFormat(fields),
            _ => line(TEXT),
        },
    };
    let config = file::FileAccessLog {
        path: inputs.path.clone(),
        access_log_format: Some(file::file_access_log::AccessLogFormat::LogFormat(
            core::SubstitutionFormatString {
                omit_empty_values: inputs.omit_empty,
                format: Some(format),
                ..Default::default()
            },
        )),
    };
    log::AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter: (!inputs.filter.is_empty()).then(|| cel(&inputs.filter)),
        config_type: Some(log::access_log::ConfigType::TypedConfig(pack(&config))),
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
