//! Distributed tracing: which requests are traced, what context travels with them, and the spans that are exported.

/// A span under way.
#[derive(Debug)]
pub struct Span {}
