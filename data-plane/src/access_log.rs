//! Access logs: formats evaluated over a stream's information, filters, and files that never hold a worker up.

mod als;
mod attributes;
mod cel;
mod certificates;
mod fields;
mod file;
mod filter;
mod otlp;
mod service;
mod sink;
mod time;

pub(crate) use attributes::View;
pub(crate) use filter::passes;
pub use service::Running;
pub(crate) use service::run_all;
pub use sink::{Sink, Sinks};
pub(crate) use time::set_local_zone;

use std::sync::Arc;

use sail_proxy_config::access_log::{
    AccessLog, AccessLogFilter, AccessLogSink, GrpcAccessLog, GrpcLogKind, JsonFormat, LogFormat,
    OtelAccessLog,
};
use sail_proxy_decide::format::{Field, Format, MetadataSource, Missing, Operator, TimePoint};
use sail_proxy_decide::head::HeaderKey;

use crate::runtime::Values;
use crate::stream_info::{Capture, StreamInfo};

/// Why an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogType {
    /// A TCP connection has begun.
    TcpStart,
    /// A TCP connection is open.
    TcpConnected,
    /// A TCP connection goes on.
    TcpPeriodic,
    /// A TCP connection has ended.
    TcpEnd,
    /// A request has begun.
    DownstreamStart,
    /// A request goes on.
    DownstreamPeriodic,
    /// A request has ended.
    DownstreamEnd,
    /// A try has its connection.
    UpstreamPoolReady,
    /// A try goes on.
    UpstreamPeriodic,
    /// A try has ended.
    UpstreamEnd,
    /// A connection was not accepted.
    NotAccepted,
}

impl LogType {
    /// As `%ACCESS_LOG_TYPE%` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TcpStart => "TcpConnectionStart",
            Self::TcpConnected => "TcpUpstreamConnected",
            Self::TcpPeriodic => "TcpPeriodic",
            Self::TcpEnd => "TcpConnectionEnd",
            Self::DownstreamStart => "DownstreamStart",
            Self::DownstreamPeriodic => "DownstreamPeriodic",
            Self::DownstreamEnd => "DownstreamEnd",
            Self::UpstreamPoolReady => "UpstreamPoolReady",
            Self::UpstreamPeriodic => "UpstreamPeriodic",
            Self::UpstreamEnd => "UpstreamEnd",
            Self::NotAccepted => "NotSet",
        }
    }

    /// Its number in `AccessLogType`.
    fn number(self) -> i32 {
        match self {
            Self::NotAccepted => 0,
            Self::UpstreamPoolReady => 7,
            Self::UpstreamPeriodic => 8,
            Self::UpstreamEnd => 9,
            Self::TcpConnected => 1,
            Self::TcpPeriodic => 2,
            Self::TcpEnd => 3,
            Self::DownstreamStart => 4,
            Self::DownstreamPeriodic => 5,
            Self::DownstreamEnd => 6,
            Self::TcpStart => 14,
        }
    }
}

/// Where a log's entries go.
#[derive(Debug)]
enum Output {
    File(Arc<Sink>),
    Service(Arc<service::Service>),
}

/// One configured log with its sink.
#[derive(Debug)]
pub struct Logger {
    log: Arc<AccessLog>,
    output: Output,
    runtime: Arc<Values>,
}

impl Logger {
    /// Opens the log's sink.
    pub fn new(log: &Arc<AccessLog>, sinks: &Sinks) -> Self {
        let output = match &log.sink {
            AccessLogSink::File { path, .. } => Output::File(sinks.get(path)),
            AccessLogSink::Grpc(config) => Output::Service(sinks.service(als_service(config))),
            AccessLogSink::OpenTelemetry(config) => {
                Output::Service(sinks.service(otlp_service(config, sinks.node())))
            }
        };
        Self { log: log.clone(), output, runtime: sinks.runtime().clone() }
    }

    /// Adds the headers that the log reads.
    pub fn plan(&self, capture: &mut Capture) {
        match &self.log.sink {
            AccessLogSink::File { format, .. } => plan_log_format(format, capture),
            AccessLogSink::Grpc(config) => plan_als(config, capture),
            AccessLogSink::OpenTelemetry(config) => {
                let formats = config.attributes.iter().map(|(_, format)| format).chain(&config.body);
                formats.for_each(|format| plan_json(format, capture));
            }
        }
        if let Some(filter) = &self.log.filter {
            plan_filter(filter, capture);
        }
    }

    /// Writes the stream's entry, if the log wants it.
    pub fn log(&self, info: &StreamInfo, kind: LogType) {
        let view = View::new(info, kind);
        if let Some(filter) = &self.log.filter
            && !filter::passes(filter, &view, &*self.runtime)
        {
            return;
        }
        match (&self.output, &self.log.sink) {
            (Output::File(sink), AccessLogSink::File { format, .. }) => {
                sink.write(|line| format.write(&view, line));
            }
            (Output::Service(service), AccessLogSink::Grpc(config)) => service.send(match config.kind {
                GrpcLogKind::Http => service::Entry::Http(Box::new(als::http(config, info, kind))),
                GrpcLogKind::Tcp => service::Entry::Tcp(Box::new(als::tcp(config, info, kind))),
            }),
            (Output::Service(service), AccessLogSink::OpenTelemetry(config)) => {
                let value = |format: &JsonFormat| format.value(&view, Missing::Dash, false);
                let attributes =
                    config.attributes.iter().map(|(key, format)| (key.to_string(), value(format))).collect();
                let record = otlp::record(info, config.body.as_ref().map(value), attributes);
                service.send(service::Entry::Record(Box::new(record)));
            }
            // The output was made for the sink.
            _ => {}
        }
    }
}

fn als_service(config: &GrpcAccessLog) -> service::Config {
    let (log_name, kind, target) = (config.log_name.clone(), config.kind, config.service.clone());
    service::Config {
        to: service::Destination::Als { log_name, kind, target },
        interval: config.buffer_flush_interval,
        size: config.buffer_size_bytes as usize,
    }
}

fn otlp_service(config: &OtelAccessLog, node: &[(String, serde_json::Value)]) -> service::Config {
    let mut resource: Vec<(String, serde_json::Value)> = Vec::new();
    if !config.disable_builtin_labels {
        resource.push(("log_name".to_owned(), (*config.log_name).into()));
        resource.extend(node.iter().cloned());
    }
    let own = config.resource_attributes.iter().map(|(key, value)| (key.to_string(), value.clone()));
    for (key, value) in own {
        resource.retain(|(other, _)| *other != key);
        resource.push((key, value));
    }
    service::Config {
        to: service::Destination::Otlp { exporter: config.exporter.clone(), resource },
        interval: config.buffer_flush_interval,
        size: config.buffer_size_bytes as usize,
    }
}

fn plan_als(config: &GrpcAccessLog, capture: &mut Capture) {
    for name in ["user-agent", "referer", "x-forwarded-for"] {
        capture.request(name);
    }
    crate::trace::plan_tags(&config.custom_tags, capture);
    config.request_headers.iter().for_each(|name| capture.request(name.as_str()));
    config.response_headers.iter().for_each(|name| capture.response(name.as_str()));
    config.response_trailers.iter().for_each(|name| capture.trailer(name.as_str()));
}

/// A format's text, as a log line would have it.
pub(crate) fn formatted(format: &LogFormat, view: &View<'_>) -> String {
    let mut out = String::new();
    format.write(view, &mut out);
    out
}

/// A format's text for a stream; empty for what is not known.
pub fn text(format: &Format, info: &StreamInfo) -> String {
    let mut out = String::new();
    format.write(&View::new(info, LogType::DownstreamEnd), Missing::Empty, &mut out);
    out
}

/// Adds the headers that a log's format reads.
pub(crate) fn plan_log_format(format: &LogFormat, capture: &mut Capture) {
    match format {
        LogFormat::Text { format, .. } => plan_format(format, capture),
        LogFormat::Json { format, .. } => plan_json(format, capture),
    }
}

fn plan_json(format: &JsonFormat, capture: &mut Capture) {
    match format {
        JsonFormat::Value(_) => {}
        JsonFormat::Format(format) => plan_format(format, capture),
        JsonFormat::List(list) => list.iter().for_each(|item| plan_json(item, capture)),
        JsonFormat::Object(fields) => fields.iter().for_each(|(_, item)| plan_json(item, capture)),
    }
}

/// Adds the headers that a format reads.
pub fn plan_format(format: &Format, capture: &mut Capture) {
    for operator in format.operators() {
        let (keys, add): (_, fn(&mut Capture, &str)) = match operator {
            Operator::Request(main, other) | Operator::RequestWithoutQuery(main, other) => {
                ([Some(main), other.as_ref()], Capture::request)
            }
            Operator::Response(main, other) => ([Some(main), other.as_ref()], Capture::response),
            Operator::Trailer(main, other) => ([Some(main), other.as_ref()], Capture::trailer),
            Operator::Cel(_) | Operator::TypedCel(_) => {
                capture.everything();
                continue;
            }
            Operator::CommonDuration { start, end, .. } => {
                capture.body_begin |= [start, end].contains(&&TimePoint::UpstreamBody);
                continue;
            }
            Operator::Field(Field::DownstreamCxRtt) => {
                capture.round_trip = true;
                continue;
            }
            Operator::Metadata(source, ..) => {
                capture.metadata |= *source != MetadataSource::Dynamic;
                continue;
            }
            Operator::RequestedServerName(options) => {
                if !options.is_empty() {
                    capture.request("x-envoy-original-host");
                }
                continue;
            }
            _ => continue,
        };
        for key in keys.into_iter().flatten() {
            if let HeaderKey::Name(name) = key {
                add(capture, name.as_str());
            }
        }
    }
}

pub(crate) fn plan_filter(filter: &AccessLogFilter, capture: &mut Capture) {
    match filter {
        AccessLogFilter::And(all) | AccessLogFilter::Or(all) => {
            all.iter().for_each(|filter| plan_filter(filter, capture));
        }
        AccessLogFilter::Header(matcher) => {
            if let Some(name) = matcher.plain_name() {
                capture.request(name.as_str());
            }
        }
        AccessLogFilter::Cel(_) => capture.everything(),
        AccessLogFilter::Runtime(_) => capture.request("x-request-id"),
        _ => {}
    }
}

#[cfg(test)]
pub(crate) mod tests;
