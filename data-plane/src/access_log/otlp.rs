//! Records for OpenTelemetry's logs service: the part of `opentelemetry/proto` that an exporter of logs needs.

use std::time::SystemTime;

use prost::Message;
use serde_json::Value;
use xds_api::opentelemetry::proto::common::v1::{
    AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value as Kind,
};

use crate::stream_info::StreamInfo;

/// `ExportLogsServiceRequest`
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_logs: Vec<ResourceLogs>,
}

/// `ExportLogsServiceResponse`; nothing in it is read.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportResponse {}

#[derive(Clone, PartialEq, Message)]
struct ResourceLogs {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_logs: Vec<ScopeLogs>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeLogs {
    #[prost(message, repeated, tag = "2")]
    log_records: Vec<LogRecord>,
}

/// `LogRecord`
#[derive(Clone, PartialEq, Message)]
pub(super) struct LogRecord {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(message, optional, tag = "5")]
    body: Option<AnyValue>,
    #[prost(message, repeated, tag = "6")]
    attributes: Vec<KeyValue>,
    #[prost(bytes = "vec", tag = "9")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "10")]
    span_id: Vec<u8>,
}

/// A record of a stream.
pub(super) fn record(info: &StreamInfo, body: Option<Value>, attributes: Vec<(String, Value)>) -> LogRecord {
    let since = info.start_time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let span = info.span.as_ref();
    LogRecord {
        time_unix_nano: since.as_nanos() as u64,
        body: body.map(any_value),
        attributes: attributes.into_iter().map(|(key, value)| pair(key, value)).collect(),
        trace_id: span.map(|span| span.trace.0.to_be_bytes().to_vec()).unwrap_or_default(),
        span_id: span.map(|span| span.id.0.to_be_bytes().to_vec()).unwrap_or_default(),
    }
}

/// A batch as a request.
pub(super) fn export(resource: &[(String, Value)], log_records: Vec<LogRecord>) -> ExportRequest {
    let attributes = resource.iter().map(|(key, value)| pair(key.clone(), value.clone())).collect();
    ExportRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource { attributes }),
            scope_logs: vec![ScopeLogs { log_records }],
        }],
    }
}

fn pair(key: String, value: Value) -> KeyValue {
    KeyValue { key, value: Some(any_value(value)), ..KeyValue::default() }
}

fn any_value(value: Value) -> AnyValue {
    let value = match value {
        Value::Null => return AnyValue { value: None },
        Value::Bool(value) => Kind::BoolValue(value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Kind::IntValue(number),
            None => Kind::DoubleValue(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Kind::StringValue(text),
        Value::Array(items) => {
            Kind::ArrayValue(ArrayValue { values: items.into_iter().map(any_value).collect() })
        }
        Value::Object(fields) => Kind::KvlistValue(KeyValueList {
            values: fields.into_iter().map(|(key, value)| pair(key, value)).collect(),
        }),
    };
    AnyValue { value: Some(value) }
}
