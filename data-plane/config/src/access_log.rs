//! Access logs: where they go, what they say, which streams they are for.

mod convert;

use std::sync::Arc;
use std::time::Duration;

use crate::tracing::{CustomTag, OtelExporter};
use sail_proxy_decide::cel::Program;
use sail_proxy_decide::fraction::{Runtime, RuntimeFraction};
use sail_proxy_decide::matcher::{HeaderMatcher, MetadataMatcher};

pub(crate) use convert::{all, filter, format, formatters, grpc_target, text_format};

/// `AccessLog`
#[derive(Debug)]
pub struct AccessLog {
    /// For which streams; `None`: all.
    pub filter: Option<AccessLogFilter>,
    /// Where to.
    pub sink: AccessLogSink,
}

/// Where a log goes.
#[derive(Debug)]
pub enum AccessLogSink {
    /// Lines in a file; `/dev/stdout` and `/dev/stderr` among them.
    File {
        /// The file.
        path: Arc<str>,
        /// A line.
        format: LogFormat,
    },
    /// Entries to a gRPC access log service.
    Grpc(GrpcAccessLog),
    /// Records to an OpenTelemetry collector.
    OpenTelemetry(OtelAccessLog),
}

pub use sail_proxy_decide::log_format::{JsonFormat, LogFormat};

/// Envoy's default line.
pub const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
    \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// `HttpGrpcAccessLogConfig`, `TcpGrpcAccessLogConfig`
#[derive(Clone, Debug)]
pub struct GrpcAccessLog {
    /// What the service calls it.
    pub log_name: Arc<str>,
    /// The service.
    pub service: GrpcTarget,
    /// Which kind of entries.
    pub kind: GrpcLogKind,
    /// How long entries are gathered.
    pub buffer_flush_interval: Duration,
    /// How many bytes of them.
    pub buffer_size_bytes: u32,
    /// Filter state objects that go along.
    pub filter_state_objects_to_log: Box<[Arc<str>]>,
    /// Further facts that go along.
    pub custom_tags: Box<[CustomTag]>,
    /// Request headers that go along.
    pub request_headers: Box<[http::HeaderName]>,
    /// Response headers that go along.
    pub response_headers: Box<[http::HeaderName]>,
    /// Response trailers that go along.
    pub response_trailers: Box<[http::HeaderName]>,
}

/// Which kind of entries a gRPC log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrpcLogKind {
    /// Requests.
    Http,
    /// Connections.
    Tcp,
}

/// A gRPC service, by cluster.
#[derive(Clone, Debug)]
pub struct GrpcTarget {
    /// The cluster.
    pub cluster: Arc<str>,
    /// `:authority`; empty: the cluster's name.
    pub authority: Arc<str>,
    /// How long a call may take.
    pub timeout: Option<Duration>,
    /// Headers of every call.
    pub initial_metadata: Box<[(Arc<str>, Arc<str>)]>,
}

/// `OpenTelemetryAccessLogConfig`
#[derive(Clone, Debug)]
pub struct OtelAccessLog {
    /// What the collector calls it.
    pub log_name: Arc<str>,
    /// The collector.
    pub exporter: OtelExporter,
    /// Whether the resource does not say who we are.
    pub disable_builtin_labels: bool,
    /// The record's body.
    pub body: Option<JsonFormat>,
    /// The record's attributes.
    pub attributes: Box<[(Box<str>, JsonFormat)]>,
    /// The resource's attributes.
    pub resource_attributes: Box<[(Box<str>, serde_json::Value)]>,
    /// How long records are gathered.
    pub buffer_flush_interval: Duration,
    /// How many bytes of them.
    pub buffer_size_bytes: u32,
}

/// `AccessLogFilter`
#[derive(Clone, Debug)]
pub enum AccessLogFilter {
    /// The response's status.
    StatusCode(Comparison),
    /// The duration in milliseconds.
    Duration(Comparison),
    /// No health checks.
    NotHealthCheck,
    /// Only what may be traced.
    Traceable,
    /// A share.
    Runtime(RuntimeFraction),
    /// All of these.
    And(Box<[AccessLogFilter]>),
    /// One of these.
    Or(Box<[AccessLogFilter]>),
    /// A request header.
    Header(Box<HeaderMatcher>),
    /// One of these response flags; any if empty.
    ResponseFlag(Box<[Box<str>]>),
    /// The gRPC status.
    GrpcStatus {
        /// One of these.
        statuses: Box<[u32]>,
        /// Or none of these.
        exclude: bool,
    },
    /// Dynamic metadata.
    Metadata {
        /// What they must be; `None`: the filter passes all.
        matcher: Option<Box<MetadataMatcher>>,
        /// What holds if they are not there.
        match_if_key_not_found: bool,
    },
    /// A CEL expression.
    Cel(Arc<Program>),
    /// The kind of the entry, by its number in `AccessLogType`.
    LogType {
        /// One of these.
        types: Box<[i32]>,
        /// Or none of these.
        exclude: bool,
    },
}

/// `ComparisonFilter`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// How.
    pub op: ComparisonOp,
    /// With what.
    pub value: u32,
    /// The runtime key that overrides it; empty for none.
    pub runtime_key: Arc<str>,
}

/// How two numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ComparisonOp {
    /// `=`
    Eq,
    /// `>=`
    Ge,
    /// `<=`
    Le,
    /// `!=`
    Ne,
}

impl Comparison {
    /// Whether it holds for a number.
    pub fn holds(&self, number: u64, runtime: &dyn Runtime) -> bool {
        let value = runtime.integer_or(&self.runtime_key, self.value.into());
        match self.op {
            ComparisonOp::Eq => number == value,
            ComparisonOp::Ge => number >= value,
            ComparisonOp::Le => number <= value,
            ComparisonOp::Ne => number != value,
        }
    }
}
