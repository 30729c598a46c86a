//! What a module's host is to this crate: the proxy, and the stream that a context stands for.

use std::time::Duration;

use bytes::Bytes;

use crate::abi::{BufferKind, LogLevel, MapKind, MetricKind, Status, StreamKind};
use crate::shared::QueueReady;

/// Headers, in order.
pub type Pairs = Vec<(Bytes, Bytes)>;

/// The proxy, for one VM. Everything is called while the module waits: nobody may call the VM from here.
pub trait Host {
    /// Writes a message; the source is the plugin, or what its stream stands for: names and ids, as Envoy writes them.
    fn log(&self, source: &str, level: LogLevel, message: &str);
    /// From which level on messages are written.
    fn log_level(&self) -> LogLevel;
    /// Nanoseconds since the epoch.
    fn time(&self) -> u64;
    /// Nanoseconds of a clock that only goes forward.
    fn monotonic(&self) -> u64;
    /// Fills bytes with chance.
    fn random(&self, bytes: &mut [u8]);
    /// Has [`crate::Vm::on_tick`] called every so often; zero ends it.
    fn set_tick_period(&self, root: u32, period: Duration);
    /// Tells a context of this VM, from any thread; `None`: this VM takes no part.
    fn queue_ready(&self) -> Option<QueueReady>;
    /// Makes a statistic, or finds the one of this name.
    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, Status>;
    /// Adds to a counter or gauge.
    fn increment_metric(&self, metric: u32, offset: i64) -> Result<(), Status>;
    /// Sets a gauge, adds a value to a histogram.
    fn record_metric(&self, metric: u32, value: u64) -> Result<(), Status>;
    /// A counter's or gauge's value.
    fn metric(&self, metric: u32) -> Result<u64, Status>;
    /// Begins a call. Its end comes as [`crate::Vm::on_http_call_response`].
    fn http_call(&self, root: u32, token: u32, call: HttpCall) -> Result<(), Status>;
    /// Begins a call or stream. What comes of it comes as [`crate::Vm::on_grpc_event`].
    fn grpc_call(&self, root: u32, token: u32, call: GrpcCall) -> Result<(), Status>;
    /// Sends a message on a stream, the last one perhaps.
    fn grpc_send(&self, token: u32, message: Bytes, end: bool) -> Result<(), Status>;
    /// Ends sending.
    fn grpc_close(&self, token: u32) -> Result<(), Status>;
    /// Gives a call or stream up.
    fn grpc_cancel(&self, token: u32) -> Result<(), Status>;
    /// What a context without a stream may know: the node, the cluster.
    fn property(&self, path: &[&str]) -> Option<Vec<u8>>;
    /// Calls a function of the proxy's own; `None` if there is none of this name.
    fn foreign_function(&self, name: &str, arguments: &[u8]) -> Option<Result<Vec<u8>, Status>>;
}

/// A request or connection. Methods take `&self`: streams are shared with whoever moves their bytes.
pub trait Stream {
    /// A map's pairs; the error says that the map is not there now.
    fn pairs(&self, map: MapKind) -> Result<Pairs, Status>;
    /// A header's first value.
    fn value(&self, map: MapKind, name: &str) -> Result<Option<Bytes>, Status>;
    /// Puts other pairs into a map's place.
    fn set_pairs(&self, map: MapKind, pairs: &[(&[u8], &[u8])]) -> Result<(), Status>;
    /// Adds a header.
    fn add(&self, map: MapKind, name: &str, value: &[u8]) -> Result<(), Status>;
    /// Sets a header.
    fn replace(&self, map: MapKind, name: &str, value: &[u8]) -> Result<(), Status>;
    /// Removes a header.
    fn remove(&self, map: MapKind, name: &str) -> Result<(), Status>;
    /// Bytes at hand.
    fn buffer(&self, kind: BufferKind) -> Result<Bytes, Status>;
    /// Other bytes in their place.
    fn set_buffer(&self, kind: BufferKind, bytes: Bytes) -> Result<(), Status>;
    /// An attribute.
    fn property(&self, path: &[&str]) -> Option<Vec<u8>>;
    /// Keeps a value with the stream.
    fn set_property(&self, path: &str, value: &[u8]) -> Result<(), Status>;
    /// What waits goes on.
    fn resume(&self, kind: StreamKind) -> Result<(), Status>;
    /// Ends a side.
    fn close(&self, kind: StreamKind) -> Result<(), Status>;
    /// Answers in the upstream's place.
    fn respond(&self, response: LocalResponse) -> Result<(), Status>;
    /// The route is to be chosen again.
    fn clear_route_cache(&self);
    /// Whether the module has answered already: nothing goes on.
    fn is_answered(&self) -> bool;
}

/// An answer of the module's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalResponse {
    /// HTTP's.
    pub status: u32,
    /// For logs.
    pub details: String,
    /// The body.
    pub body: Bytes,
    /// More headers.
    pub headers: Pairs,
    /// gRPC's; `None` for what follows from the status.
    pub grpc_status: Option<u32>,
}

/// A request of the module's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpCall {
    /// The cluster.
    pub cluster: String,
    /// With pseudo-headers.
    pub headers: Pairs,
    /// The body.
    pub body: Bytes,
    /// After the body.
    pub trailers: Pairs,
    /// How long it may take.
    pub timeout: Duration,
}

/// What an HTTP call brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpCallResponse {
    /// With `:status`; empty if there was no answer.
    pub headers: Pairs,
    /// The body.
    pub body: Bytes,
    /// After the body.
    pub trailers: Pairs,
}

/// A gRPC call or stream of the module's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcCall {
    /// A cluster's name, or a serialised `envoy.config.core.v3.GrpcService`.
    pub service: Bytes,
    /// The path's first part.
    pub service_name: String,
    /// The path's second part.
    pub method: String,
    /// Headers.
    pub metadata: Pairs,
    /// The one message; `None` for a stream.
    pub message: Option<Bytes>,
    /// How long a call may take.
    pub timeout: Duration,
}

/// What a gRPC call or stream brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrpcEvent {
    /// Headers of the answer.
    InitialMetadata(Pairs),
    /// A message.
    Message(Bytes),
    /// Trailers of the answer.
    TrailingMetadata(Pairs),
    /// The end: status and message.
    Close(u32, String),
}
