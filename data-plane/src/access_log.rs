//! Access logs: formats evaluated over a stream's information, filters, and files that never hold a worker up.

mod attributes;
mod certificates;
mod fields;
mod filter;
mod sink;
mod time;

pub(crate) use attributes::View;
pub(crate) use filter::passes;
pub use sink::{Sink, Sinks};
pub(crate) use time::set_local_zone;

use std::sync::Arc;

use sail_proxy_config::access_log::{AccessLog, AccessLogFilter, AccessLogSink, JsonFormat, LogFormat};
use sail_proxy_decide::format::{Format, MetadataSource, Missing, Operator};
use sail_proxy_decide::head::HeaderKey;

use crate::runtime::Values;
use crate::stream_info::{Capture, StreamInfo};

/// Why an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogType {
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
    /// A connection was not accepted.
    NotAccepted,
}

impl LogType {
    /// As `%ACCESS_LOG_TYPE%` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TcpConnected => "TcpUpstreamConnected",
            Self::TcpPeriodic => "TcpPeriodic",
            Self::TcpEnd => "TcpConnectionEnd",
            Self::DownstreamStart => "DownstreamStart",
            Self::DownstreamPeriodic => "DownstreamPeriodic",
            Self::DownstreamEnd => "DownstreamEnd",
            Self::NotAccepted => "NotSet",
        }
    }

    /// Its number in `AccessLogType`.
    fn number(self) -> i32 {
        match self {
            Self::NotAccepted => 0,
            Self::TcpConnected => 1,
            Self::TcpPeriodic => 2,
            Self::TcpEnd => 3,
            Self::DownstreamStart => 4,
            Self::DownstreamPeriodic => 5,
            Self::DownstreamEnd => 6,
        }
    }
}

/// One configured log with its sink.
#[derive(Debug)]
pub struct Logger {
    log: Arc<AccessLog>,
    sink: Option<Arc<Sink>>,
    runtime: Arc<Values>,
}

impl Logger {
    /// Opens the log's sink.
    pub fn new(log: &Arc<AccessLog>, sinks: &Sinks) -> Self {
        let sink = match &log.sink {
            AccessLogSink::File { path, .. } => Some(sinks.get(path)),
            // Entries to services are gathered elsewhere.
            AccessLogSink::Grpc(_) | AccessLogSink::OpenTelemetry(_) => None,
        };
        Self { log: log.clone(), sink, runtime: sinks.runtime().clone() }
    }

    /// Adds the headers that the log reads.
    pub fn plan(&self, capture: &mut Capture) {
        if let AccessLogSink::File { format, .. } = &self.log.sink {
            plan_log_format(format, capture);
        }
        if let Some(filter) = &self.log.filter {
            plan_filter(filter, capture);
        }
    }

    /// Writes the stream's entry, if the log wants it.
    pub fn log(&self, info: &StreamInfo, kind: LogType) {
        let Some(sink) = &self.sink else { return };
        let view = View::new(info, kind);
        if let Some(filter) = &self.log.filter
            && !filter::passes(filter, &view, &*self.runtime)
        {
            return;
        }
        let AccessLogSink::File { format, .. } = &self.log.sink else { return };
        sink.write(|line| write(format, &view, line));
    }
}

/// A format's text, as a log line would have it.
pub(crate) fn formatted(format: &LogFormat, view: &View<'_>) -> String {
    let mut out = String::new();
    write(format, view, &mut out);
    out
}

/// A format's text for a stream; empty for what is not known.
pub fn text(format: &Format, info: &StreamInfo) -> String {
    let mut out = String::new();
    format.write(&View::new(info, LogType::DownstreamEnd), Missing::Empty, &mut out);
    out
}

fn write(format: &LogFormat, view: &View<'_>, line: &mut String) {
    match format {
        LogFormat::Text { format, omit_empty_values } => {
            let missing = if *omit_empty_values { Missing::Empty } else { Missing::Dash };
            format.write(view, missing, line);
        }
        LogFormat::Json { format, omit_empty_values, sort_properties } => {
            let missing = if *omit_empty_values { Missing::Empty } else { Missing::Dash };
            let mut value = json(format, view, missing, *omit_empty_values);
            if *sort_properties {
                value.sort_all_objects();
            }
            line.push_str(&value.to_string());
            line.push('\n');
        }
    }
}

fn json(format: &JsonFormat, view: &View<'_>, missing: Missing, omit: bool) -> serde_json::Value {
    match format {
        JsonFormat::Value(value) => value.clone(),
        JsonFormat::Format(format) => format.json(view, missing),
        JsonFormat::List(list) => list.iter().map(|item| json(item, view, missing, omit)).collect(),
        JsonFormat::Object(fields) => {
            let fields =
                fields.iter().map(|(key, value)| (key.to_string(), json(value, view, missing, omit)));
            serde_json::Value::Object(fields.filter(|(_, value)| !(omit && value.is_null())).collect())
        }
    }
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
        AccessLogFilter::Runtime(_) => capture.request("x-request-id"),
        _ => {}
    }
}

#[cfg(test)]
pub(crate) mod tests;
