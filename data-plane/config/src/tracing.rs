//! Traces of a connection manager.

pub(crate) mod convert;

use std::sync::Arc;
use std::time::Duration;

pub use self::convert::check;
pub use sail_proxy_decide::route::spans::{CustomTag, CustomTagSource};

use sail_proxy_decide::format::Format;

use crate::access_log::GrpcTarget;

/// `HttpConnectionManager.Tracing`
#[derive(Debug)]
pub struct Tracing {
    /// Requests that ask to be traced (`x-client-trace-id`), in percent.
    pub client_sampling: f64,
    /// Requests at random, in percent.
    pub random_sampling: f64,
    /// Of those two, in percent.
    pub overall_sampling: f64,
    /// How much of a path a span holds; 256 by default.
    pub max_path_tag_length: u32,
    /// Whether requests go on without the context of their trace.
    pub no_context_propagation: bool,
    /// Whether spans tell the moments of their streams.
    pub verbose: bool,
    /// Whether each try is a span of its own.
    pub spawn_upstream_span: bool,
    /// The spans' name, before the route's decorator and what the caller says.
    pub operation: Option<Format>,
    /// The name of the spans of tries.
    pub upstream_operation: Option<Format>,
    /// Tags of every span.
    pub custom_tags: Box<[CustomTag]>,
    /// Where spans go: as it says itself, else as the bootstrap does; `None`: nowhere.
    pub provider: Option<Arc<TracingProvider>>,
}

/// Where spans go.
#[derive(Clone, Debug)]
pub enum TracingProvider {
    /// Zipkin.
    Zipkin(Zipkin),
    /// OpenTelemetry.
    OpenTelemetry(OpenTelemetry),
}

/// `ZipkinConfig`
#[derive(Clone, Debug)]
pub struct Zipkin {
    /// The collector.
    pub cluster: Arc<str>,
    /// `/api/v2/spans`
    pub endpoint: Arc<str>,
    /// The host header.
    pub hostname: Arc<str>,
    /// Whether trace ids have 128 bits.
    pub trace_id_128bit: bool,
    /// Whether client and server share a span; on by default.
    pub shared_span_context: bool,
    /// Whether bodies are protobuf rather than JSON.
    pub protobuf: bool,
    /// Whether W3C headers are read and written besides B3.
    pub w3c: bool,
}

/// `OpenTelemetryConfig`
#[derive(Clone, Debug)]
pub struct OpenTelemetry {
    /// The collector.
    pub exporter: OtelExporter,
    /// `service.name`
    pub service_name: Arc<str>,
}

/// How spans are exported.
#[derive(Clone, Debug)]
pub enum OtelExporter {
    /// By gRPC.
    Grpc(GrpcTarget),
    /// By HTTP.
    Http {
        /// The collector.
        cluster: Arc<str>,
        /// Where it takes spans: host and path.
        uri: Arc<str>,
        /// How long a post may take.
        timeout: Option<Duration>,
        /// Headers of every post.
        headers: Box<[(Arc<str>, Arc<str>)]>,
    },
}
