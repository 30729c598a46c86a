//! Spans as OpenTelemetry's messages: the part of `opentelemetry/proto` that an exporter of spans needs.

use std::time::SystemTime;

use prost::Message;

use super::span::{Kind, Span};

/// `ExportTraceServiceRequest`
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

/// `ExportTraceServiceResponse`; nothing in it is read.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportResponse {}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<OtlpSpan>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct OtlpSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, tag = "1")]
    string_value: String,
}

const KIND_SERVER: i32 = 2;
const KIND_CLIENT: i32 = 3;
const STATUS_ERROR: i32 = 2;

/// A batch as a request.
pub(super) fn encode(spans: &[Span], service: &str) -> ExportRequest {
    let scope = Scope { name: "envoy".to_owned(), version: crate::VERSION.to_owned() };
    let scope_spans = ScopeSpans { scope: Some(scope), spans: spans.iter().map(one).collect() };
    let resource = Resource { attributes: vec![attribute("service.name", service)] };
    ExportRequest {
        resource_spans: vec![ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans] }],
    }
}

fn one(span: &Span) -> OtlpSpan {
    let since = span.start.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let start = since.as_nanos() as u64;
    OtlpSpan {
        trace_id: span.trace.0.to_be_bytes().to_vec(),
        span_id: span.id.0.to_be_bytes().to_vec(),
        trace_state: span.trace_state.clone(),
        parent_span_id: span.parent.map(|parent| parent.0.to_be_bytes().to_vec()).unwrap_or_default(),
        name: span.name.to_string(),
        kind: match span.kind {
            Kind::Client => KIND_CLIENT,
            Kind::Server => KIND_SERVER,
        },
        start_time_unix_nano: start,
        end_time_unix_nano: start + span.duration.as_nanos() as u64,
        attributes: span.tags.iter().map(|(name, value)| attribute(name, value)).collect(),
        status: span.error.then_some(Status { code: STATUS_ERROR }),
    }
}

fn attribute(name: &str, value: &str) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(AnyValue { string_value: value.to_owned() }) }
}
