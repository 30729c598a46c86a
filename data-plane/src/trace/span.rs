//! Spans: begun with the request, filled from what is known at its end.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use rand::Rng;
use sail_proxy_decide::format::{Format, MetadataSource};
use sail_proxy_decide::fraction::Runtime;
use sail_proxy_decide::route::RouteTracing;
use sail_proxy_decide::route::spans::{CustomTag, CustomTagSource, RouteSpans};

use super::context::{Context, Propagation, SpanId, TraceId, inject, trace_state};
use super::export::ExporterHandle;
use super::request_id;
use super::sampling::{Reason, Sampling};
use crate::stats::sets::http_tracing as stat;
use crate::stream_info::{Capture, Direction, ResponseFlag, StreamInfo};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const DECORATOR: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

/// Which side of a call a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The caller's proxy (`egress`).
    Client,
    /// The callee's proxy (`ingress`).
    Server,
}

/// A span, under way or ended.
#[derive(Debug)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub id: SpanId,
    /// The span that caused it.
    pub parent: Option<SpanId>,
    /// Whether the caller has a span of the same id (Zipkin).
    pub shared: bool,
    /// Whether it is exported.
    pub sampled: bool,
    /// Which side it is.
    pub kind: Kind,
    /// Its operation.
    pub name: Arc<str>,
    /// When it began.
    pub start: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// What is known of it.
    pub tags: Vec<(Cow<'static, str>, String)>,
    /// Whether it failed.
    pub error: bool,
    /// W3C's `tracestate`, handed on.
    pub trace_state: String,
    /// What happened when, for Zipkin alone, as in Envoy.
    pub annotations: Vec<(SystemTime, &'static str)>,
    /// The span of the try under way.
    pub(super) child: Option<Box<Span>>,
    /// What the route says of it.
    pub(super) of_route: Option<Arc<RouteSpans>>,
    exporter: ExporterHandle,
}

/// What of a request's way has a say in its trace.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// The route's decorator, and whether it is told to the next hop.
    pub operation: Option<(&'a Arc<str>, bool)>,
    /// The route's fractions.
    pub tracing: Option<&'a RouteTracing>,
    /// The runtime's values.
    pub runtime: &'a dyn Runtime,
}

/// A connection manager's tracer.
#[derive(Debug)]
pub struct TracerOptions {
    /// Fractions.
    pub sampling: Sampling,
    /// Headers.
    pub propagation: Propagation,
    /// Whether the request's id decides, rather than whoever began the trace.
    pub by_request_id: bool,
    /// Whether the context stays here.
    pub no_propagation: bool,
    /// Whether new trace ids have 128 bits.
    pub long_ids: bool,
    /// Zipkin: whether a server's span has the id of its client's.
    pub shared: bool,
    /// Which side the connection manager is.
    pub kind: Kind,
    /// The longest path in `http.url`.
    pub max_path: usize,
    /// Additional tags.
    pub tags: Box<[CustomTag]>,
    /// Whether spans tell the moments of their streams.
    pub verbose: bool,
    /// Whether each try is a span of its own.
    pub upstream_spans: bool,
    /// The spans' name.
    pub operation: Option<Format>,
    /// The name of the spans of tries.
    pub upstream_operation: Option<Format>,
    /// Whether the reason is written into the request id.
    pub pack_reason: bool,
    /// The node's id and zone, which are tags.
    pub node: (Arc<str>, Arc<str>),
    /// Where spans go.
    pub exporter: ExporterHandle,
    /// `http.<prefix>.tracing.`
    pub stats: stat::Scope,
}

/// Begins spans.
#[derive(Debug)]
pub struct Tracer(TracerOptions);

impl Kind {
    /// By the listener's direction: what leaves the workload is a call.
    pub fn of(direction: Direction) -> Self {
        if direction == Direction::Outbound { Self::Client } else { Self::Server }
    }
}

impl Tracer {
    /// A tracer.
    pub fn new(options: TracerOptions) -> Self {
        Self(options)
    }

    /// Adds the headers that its tags read.
    pub fn plan(&self, capture: &mut Capture) {
        for name in ["user-agent", "x-envoy-downstream-service-cluster", "content-type"] {
            capture.request(name);
        }
        plan_tags(&self.0.tags, capture);
        for format in self.0.operation.iter().chain(&self.0.upstream_operation) {
            crate::access_log::plan_format(format, capture);
        }
    }

    /// Decides whether the request is traced, begins its span, and leaves the context in its headers.
    pub fn begin(&self, headers: &mut HeaderMap, info: &mut StreamInfo, way: &Way<'_>) {
        let options = &self.0;
        let operation = way.operation;
        let mut rng = rand::rng();
        let reason = self.decide(headers, info, way, &mut rng);
        let context = Context::extract(headers, options.propagation);
        let sampled = context.sampled.unwrap_or(reason != Reason::None);
        let id = SpanId::random(&mut rng);
        let shared = options.shared && options.kind == Kind::Server;
        let (trace, id, parent, shared) = match context.ids {
            Some((trace, caller)) if shared => (trace, caller, context.parent, true),
            Some((trace, caller)) => (trace, id, Some(caller), false),
            None => {
                let trace = TraceId::random(&mut rng, options.long_ids);
                // The first span's id is the trace's, as Zipkin's clients have it.
                let id = if options.long_ids { id } else { SpanId(trace.0 as u64) };
                (trace, id, None, false)
            }
        };
        let decorated = headers.get(DECORATOR).filter(|_| options.kind == Kind::Server);
        let told = decorated.and_then(|value| value.to_str().ok()).map(Arc::from);
        let name = told.or_else(|| operation.map(|(name, _)| name.clone()));
        match (options.kind, operation) {
            (Kind::Client, Some((name, true))) => {
                if let Ok(value) = HeaderValue::from_str(name) {
                    headers.insert(DECORATOR, value);
                }
            }
            _ => {
                headers.remove(DECORATOR);
            }
        }
        let state = trace_state(headers).unwrap_or_default().to_owned();
        if !options.no_propagation {
            inject(headers, options.propagation, (trace, id), parent, sampled);
        }
        let of_route = way.tracing.and_then(|tracing| tracing.spans.clone());
        if sampled && of_route.is_some() {
            info.captured.everything();
        }
        let default = if options.kind == Kind::Client { "egress" } else { "ingress" };
        info.span = Some(Box::new(Span {
            trace,
            id,
            parent,
            shared,
            sampled,
            kind: options.kind,
            name: name.unwrap_or_else(|| default.into()),
            start: info.start_time,
            duration: Duration::ZERO,
            tags: Vec::new(),
            error: false,
            trace_state: state,
            annotations: Vec::new(),
            child: None,
            of_route,
            exporter: options.exporter.clone(),
        }));
    }

    /// Begins a try's span, if tries have any, and leaves its context in the try's headers.
    pub fn begin_try(&self, headers: &mut HeaderMap, info: &mut StreamInfo, count: u32) {
        let options = &self.0;
        if !options.upstream_spans {
            return;
        }
        self.end_try(info, None);
        let Some(parent) = &info.span else { return };
        let id = SpanId::random(&mut rand::rng());
        if !options.no_propagation {
            inject(headers, options.propagation, (parent.trace, id), Some(parent.id), parent.sampled);
        }
        let named = parent.of_route.as_ref().and_then(|route| route.upstream_operation.as_ref());
        let name = match named.or(options.upstream_operation.as_ref()) {
            Some(format) => crate::access_log::text(format, info),
            None => {
                let cluster = info.cluster.as_ref().map_or("", |cluster| &*cluster.observability_name);
                format!("router {cluster} egress")
            }
        };
        let mut tags = Vec::new();
        if count > 1 {
            tags.push(("retry.count".into(), (count - 1).to_string()));
        }
        let child = Span {
            trace: parent.trace,
            id,
            parent: Some(parent.id),
            shared: false,
            sampled: parent.sampled,
            kind: Kind::Client,
            name: name.into(),
            start: SystemTime::now(),
            duration: Duration::ZERO,
            tags,
            error: false,
            trace_state: parent.trace_state.clone(),
            annotations: Vec::new(),
            child: None,
            of_route: parent.of_route.clone(),
            exporter: options.exporter.clone(),
        };
        if let Some(parent) = &mut info.span {
            parent.child = Some(Box::new(child));
        }
    }

    /// Ends the span of the try under way: with the status that it had, or the request's.
    pub fn end_try(&self, info: &mut StreamInfo, status: Option<u16>) {
        let Some(mut span) = info.span.as_mut().and_then(|span| span.child.take()) else { return };
        if !span.sampled {
            return;
        }
        span.duration = span.start.elapsed().unwrap_or_default();
        self.fill_try(&mut span, info, status.or(info.response_code).unwrap_or(0));
        let exporter = span.exporter.clone();
        exporter.send(*span);
    }

    /// Ends the request's span and hands it to its exporter.
    pub fn end(&self, info: &mut StreamInfo) {
        self.end_try(info, None);
        let Some(mut span) = info.span.take() else { return };
        if !span.sampled {
            return;
        }
        span.duration = info.duration();
        self.fill(&mut span, info);
        let exporter = span.exporter.clone();
        exporter.send(*span);
    }

    fn decide(
        &self,
        headers: &mut HeaderMap,
        info: &mut StreamInfo,
        way: &Way<'_>,
        rng: &mut impl Rng,
    ) -> Reason {
        let (options, stats) = (&self.0, &self.0.stats);
        if info.health_check {
            stats.inc(stat::health_check);
            return Reason::None;
        }
        if !options.by_request_id {
            stats.inc(stat::random_sampling);
            return Reason::Sampled;
        }
        let id = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let brought = id.as_deref().and_then(request_id::reason).unwrap_or(Reason::None);
        let random = id.as_deref().and_then(request_id::sample).unwrap_or_else(|| rng.random());
        let sampling = options.sampling.on(way);
        let reason = sampling.decide(headers, brought, random);
        stats.inc(match reason {
            Reason::None => stat::not_traceable,
            Reason::Sampled => stat::random_sampling,
            Reason::Forced => stat::service_forced,
            Reason::Client => stat::client_enabled,
        });
        if let Some(id) = id.filter(|_| options.pack_reason && reason != brought)
            && let Ok(value) = HeaderValue::from_str(&request_id::with_reason(&id, reason))
        {
            info.request_id = Some(bytes::Bytes::copy_from_slice(value.as_bytes()));
            headers.insert(REQUEST_ID, value);
        }
        reason
    }

    fn fill(&self, span: &mut Span, info: &StreamInfo) {
        let options = &self.0;
        let mut tag = |name: &'static str, value: String| {
            if !value.is_empty() {
                span.tags.push((name.into(), value));
            }
        };
        tag("component", "proxy".to_owned());
        tag("node_id", options.node.0.to_string());
        tag("zone", options.node.1.to_string());
        let id = info.request_id.as_ref().map(|id| String::from_utf8_lossy(id).into_owned());
        tag("guid:x-request-id", id.unwrap_or_default());
        tag("http.url", self.url(info));
        tag("http.method", info.request.method.as_ref().map(ToString::to_string).unwrap_or_default());
        let header = |name: &str| info.captured.request(name).unwrap_or_default().to_owned();
        tag("downstream_cluster", header("x-envoy-downstream-service-cluster"));
        tag("user_agent", header("user-agent"));
        tag("http.protocol", info.protocol.map(|p| p.as_str().to_owned()).unwrap_or_default());
        tag("peer.address", info.downstream.remote_address.ip().to_string());
        tag("request_size", info.bytes.received.to_string());
        tag("response_size", info.bytes.sent.to_string());
        let status = info.response_code.unwrap_or(0);
        tag("http.status_code", status.to_string());
        tag("response_flags", info.flags.to_string());
        if let Some(cluster) = &info.cluster {
            tag("upstream_cluster", cluster.name.to_string());
            tag("upstream_cluster.name", cluster.observability_name.to_string());
        }
        if let Some(host) = info.upstream.as_ref().and_then(|upstream| upstream.host.as_ref()) {
            tag("upstream_address", host.to_string());
        }
        if let Some(grpc) = info.grpc_status {
            tag("grpc.status_code", grpc.to_string());
            tag("grpc.path", info.request.path().to_owned());
            tag("grpc.authority", info.request.authority().to_owned());
            tag("grpc.content_type", header("content-type"));
        }
        if info.flags.has(ResponseFlag::DownstreamConnectionTermination) {
            tag("canceled", "true".to_owned());
        }
        span.error = status >= 500 || status == 0 || info.grpc_status.is_some_and(|grpc| grpc != 0);
        if span.error {
            span.tags.push(("error".into(), "true".to_owned()));
        }
        self.name(span, info);
        self.add_custom_tags(span, info);
        if options.verbose {
            annotate(span, info);
        }
    }

    fn name(&self, span: &mut Span, info: &StreamInfo) {
        let of_route = span.of_route.as_ref().and_then(|route| route.operation.as_ref());
        if let Some(format) = of_route.or(self.0.operation.as_ref()) {
            span.name = crate::access_log::text(format, info).into();
        }
    }

    fn fill_try(&self, span: &mut Span, info: &StreamInfo, status: u16) {
        let mut tag = |name: &'static str, value: String| span.tags.push((name.into(), value));
        tag("component", "proxy".to_owned());
        let upstream = info.upstream.as_ref();
        tag("http.protocol", info.protocol.map_or("-", |protocol| protocol.as_str()).to_owned());
        if let Some(host) = upstream.and_then(|upstream| upstream.host.as_ref()) {
            tag("upstream_address", host.to_string());
            tag("peer.address", host.to_string());
        }
        if let Some(cluster) = &info.cluster {
            tag("upstream_cluster", cluster.name.to_string());
            tag("upstream_cluster.name", cluster.observability_name.to_string());
        }
        tag("http.status_code", status.to_string());
        tag("response_flags", info.flags.to_string());
        span.error = status >= 500 || status == 0 || info.grpc_status.is_some_and(|grpc| grpc != 0);
        if span.error {
            span.tags.push(("error".into(), "true".to_owned()));
        }
        self.add_custom_tags(span, info);
        if self.0.verbose {
            annotate(span, info);
        }
    }

    /// The connection manager's tags, and the route's in the place of those of the same name.
    fn add_custom_tags(&self, span: &mut Span, info: &StreamInfo) {
        let route = span.of_route.clone();
        let own = route.as_ref().map(|route| &route.custom_tags[..]).unwrap_or_default();
        let general = self.0.tags.iter().filter(|tag| own.iter().all(|other| other.tag != tag.tag));
        for custom in general.chain(own) {
            if let Some(value) = value(&custom.source, info) {
                span.tags.push((custom.tag.to_string().into(), value));
            }
        }
    }

    fn url(&self, info: &StreamInfo) -> String {
        let path = info.request.path_before_rewrite();
        let end =
            (0..=self.0.max_path.min(path.len())).rev().find(|end| path.is_char_boundary(*end)).unwrap_or(0);
        format!("{}://{}{}", info.request.scheme.unwrap_or("http"), info.request.authority(), &path[..end])
    }
}

/// Adds the headers that tags read.
/// Notes what tags read.
pub(crate) fn plan_tags(tags: &[CustomTag], capture: &mut Capture) {
    for tag in tags {
        match &tag.source {
            CustomTagSource::RequestHeader(name, _) => capture.request(name.as_str()),
            CustomTagSource::Format(format) => crate::access_log::plan_format(format, capture),
            CustomTagSource::Metadata(source, ..) => capture.metadata |= *source != MetadataSource::Dynamic,
            CustomTagSource::Literal(_) | CustomTagSource::Environment(..) => {}
        }
    }
}

/// What a tag says of a stream.
pub(crate) fn value(source: &CustomTagSource, info: &StreamInfo) -> Option<String> {
    let given = |default: &Arc<str>| (!default.is_empty()).then(|| default.to_string());
    match source {
        CustomTagSource::Literal(text) => given(text),
        // Variables that are set were read with the configuration.
        CustomTagSource::Environment(_, default) => given(default),
        CustomTagSource::RequestHeader(name, default) => {
            info.captured.request(name.as_str()).map(str::to_owned).or_else(|| given(default))
        }
        CustomTagSource::Format(format) => {
            let text = crate::access_log::text(format, info);
            (!text.is_empty()).then_some(text)
        }
        CustomTagSource::Metadata(source, namespace, path, default) => {
            let found = metadata(info, *source, namespace, path).map(|value| match value {
                serde_json::Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            found.or_else(|| given(default))
        }
    }
}

/// Envoy's names of a stream's moments.
fn annotate(span: &mut Span, info: &StreamInfo) {
    let timing = &info.timing;
    let moments = [
        ("last_downstream_rx_byte_received", timing.last_downstream_rx),
        ("first_upstream_tx_byte_sent", timing.first_upstream_tx),
        ("last_upstream_tx_byte_sent", timing.last_upstream_tx),
        ("first_upstream_rx_byte_received", timing.first_upstream_rx),
        ("last_upstream_rx_byte_received", timing.last_upstream_rx),
        ("first_downstream_tx_byte_sent", timing.first_downstream_tx),
        ("last_downstream_tx_byte_sent", timing.last_downstream_tx),
    ];
    for (name, moment) in moments {
        if let Some(moment) = moment {
            let at = info.start_time + moment.saturating_duration_since(info.start);
            span.annotations.push((at, name));
        }
    }
}

fn metadata<'a>(
    info: &'a StreamInfo,
    source: MetadataSource,
    namespace: &str,
    path: &[Box<str>],
) -> Option<&'a serde_json::Value> {
    if source == MetadataSource::Dynamic {
        return info.dynamic_metadata.lookup(namespace, path);
    }
    crate::stream_info::lookup(info.config_metadata.as_ref()?.of(source), namespace, path)
}
