//! Distributed tracing: which requests are traced, what context travels with them, and the spans that are exported.
//!
//! A tracer belongs to a connection manager. [`Tracer::begin`] is called once per request, when its route is known; it
//! leaves the context in the request's headers and the span in its [`StreamInfo`]. The observer ends the span.

mod context;
mod export;
mod otlp;
pub mod request_id;
mod sampling;
mod span;
mod zipkin;

pub(crate) use context::set_sampled;
pub use context::{Context, Propagation, SpanId, TraceId};
pub(crate) use export::run_all;
pub use export::{Exporter, ExporterHandle, Exporters, Protocol as ExportProtocol, Running};
pub(crate) use export::{TIMEOUT, post};
pub use sampling::{Reason, Sampling};
pub use span::{Kind, Span, Tracer, TracerOptions, Way};
pub(crate) use span::{plan_tags, value as tag_value};
