//! Traces of a connection manager.

pub(crate) mod convert;

use std::sync::Arc;
use std::time::Duration;

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
    /// Tags of every span.
    pub custom_tags: Box<[CustomTag]>,
    /// Where spans go; `None`: the bootstrap's.
    pub provider: Option<Arc<TracingProvider>>,
}

/// `CustomTag`
#[derive(Clone, Debug)]
pub struct CustomTag {
    /// Its name.
    pub tag: Arc<str>,
    /// Where its value comes from.
    pub source: CustomTagSource,
}

/// Where a tag's value comes from.
#[derive(Clone, Debug)]
pub enum CustomTagSource {
    /// From here, or from the environment when configuration was read.
    Literal(Arc<str>),
    /// From an environment variable, read when it is used: name and default.
    Environment(Arc<str>, Arc<str>),
    /// From a request header: name and default.
    RequestHeader(http::HeaderName, Arc<str>),
    /// From metadata: whose, namespace, path and default.
    Metadata(sail_proxy_decide::format::MetadataSource, Arc<str>, Box<[Box<str>]>, Arc<str>),
    /// From operators.
    Format(sail_proxy_decide::format::Format),
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
    /// Attributes of the resource, from detectors.
    pub resource_detectors: Box<[Arc<str>]>,
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
