//! `ext_proc`: a service looks at requests and responses, and may change them.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use sail_proxy_decide::cel::Program;
use sail_proxy_decide::headers::HeaderAdd;
use sail_proxy_decide::mutation_rules::MutationRules;
use sail_proxy_decide::route::PerFilterConfig;

use super::ext_authz::Names;
use super::{Entry, HttpFilterKind, PerRoute};
use crate::callout::{self, GrpcTarget, HttpTarget};
use crate::convert::{Cx, arc, headers, matchers, values};
use crate::pb;
use crate::pb::filters::http::ext_proc::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
    convert: |cx, any| {
        let value = cx.unpack(any)?;
        ext_proc(cx, value).map(|config| HttpFilterKind::ExtProc(Arc::new(config)))
    },
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute",
        convert: read_per_route,
    }),
};

/// How long the service may take for a message where nothing is said.
const TIMEOUT: Duration = Duration::from_millis(200);

/// How long a stream that only watches may outlive its request where nothing is said.
const DEFERRED_CLOSE: Duration = Duration::from_secs(5);

/// `ExternalProcessor`
#[derive(Debug)]
pub struct ExtProc {
    /// What routes may set otherwise.
    pub settings: Settings,
    /// How long it may take for each message.
    pub message_timeout: Duration,
    /// How much longer it may ask for.
    pub max_message_timeout: Duration,
    /// Which headers it may change.
    pub mutation_rules: MutationRules,
    /// Headers that it sees; `None` for all.
    pub allowed_headers: Option<Names>,
    /// Headers that it does not.
    pub disallowed_headers: Names,
    /// Whether it may change the mode.
    pub allow_mode_override: bool,
    /// Whether it may not answer for the upstream.
    pub disable_immediate_response: bool,
    /// Whether the route is chosen again after it changed headers.
    pub route_cache: RouteCache,
    /// The answer where it fails.
    pub status_on_error: StatusCode,
    /// What is told of a request: names of attributes, and how they are read.
    pub request_attributes: Box<[(Arc<str>, Program)]>,
    /// What is told of a response.
    pub response_attributes: Box<[(Arc<str>, Program)]>,
    /// The modes that the service may change to; empty: all.
    pub allowed_modes: Box<[Mode]>,
    /// What statistics bear in their names; may be empty.
    pub stat_prefix: Arc<str>,
    /// It only watches: nobody waits for its answers. How long its stream may outlive the request.
    pub observes: Option<Duration>,
    /// Whether streamed bodies follow a head that it has not answered yet.
    pub early_body: bool,
    /// Whether `content-length` stays where the service may change the body.
    pub keep_content_length: bool,
}

/// What routes may set otherwise.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The service.
    pub service: Service,
    /// Whether requests go on as they are if the service fails.
    pub failure_mode_allow: bool,
    /// What the service sees.
    pub mode: Mode,
    /// Metadata that it sees and may write.
    pub metadata: MetadataOptions,
}

/// Who is asked.
#[derive(Clone, Debug)]
pub enum Service {
    /// `envoy.service.ext_proc.v3.ExternalProcessor`
    Grpc(GrpcTarget),
    /// A server that is sent the messages as JSON.
    Http(Box<HttpService>),
}

/// `ExtProcHttpService`
#[derive(Clone, Debug)]
pub struct HttpService {
    /// The server.
    pub target: HttpTarget,
    /// Headers of each request.
    pub headers: Box<[HeaderAdd]>,
}

/// Namespaces of metadata.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    /// Those that are structures.
    pub untyped: Box<[Arc<str>]>,
    /// Those that are messages.
    pub typed: Box<[Arc<str>]>,
}

impl Namespaces {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.untyped.is_empty() && self.typed.is_empty()
    }
}

/// `MetadataOptions`
#[derive(Clone, Debug, Default)]
pub struct MetadataOptions {
    /// Dynamic metadata that the service sees.
    pub forwarded: Option<Namespaces>,
    /// Dynamic metadata that it may write.
    pub received: Option<Namespaces>,
    /// The cluster's metadata that it sees.
    pub cluster: Option<Namespaces>,
}

/// `RouteCacheAction`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteCache {
    /// As the service says.
    Default,
    /// Whenever headers were changed.
    Clear,
    /// Never.
    Retain,
}

/// `ProcessingMode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Whether it sees request headers.
    pub request_headers: bool,
    /// Whether it sees response headers.
    pub response_headers: bool,
    /// How it sees request bodies.
    pub request_body: BodyMode,
    /// How it sees response bodies.
    pub response_body: BodyMode,
    /// Whether it sees request trailers.
    pub request_trailers: bool,
    /// Whether it sees response trailers.
    pub response_trailers: bool,
}

impl Default for Mode {
    fn default() -> Self {
        Self {
            request_headers: true,
            response_headers: true,
            request_body: BodyMode::None,
            response_body: BodyMode::None,
            request_trailers: false,
            response_trailers: false,
        }
    }
}

/// `BodySendMode`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyMode {
    /// Not at all.
    None,
    /// Piece by piece.
    Streamed,
    /// As a whole.
    Buffered,
    /// The first part.
    BufferedPartial,
    /// Piece by piece, and what comes back takes its place, whatever its pieces are.
    FullDuplex,
    /// As [`Self::FullDuplex`], a gRPC message a piece.
    Grpc,
}

impl BodyMode {
    /// Whether what the service sends is all of the body.
    pub fn is_duplex(self) -> bool {
        matches!(self, Self::FullDuplex | Self::Grpc)
    }

    /// As the service is told it.
    pub fn number(self) -> i32 {
        match self {
            Self::None => 0,
            Self::Streamed => 1,
            Self::Buffered => 2,
            Self::BufferedPartial => 3,
            Self::FullDuplex => 4,
            Self::Grpc => 5,
        }
    }
}

/// `ExtProcPerRoute`
#[derive(Debug)]
pub enum ExtProcPerRoute {
    /// The service sees nothing.
    Disabled,
    /// Other settings.
    Overrides(Overrides),
}

/// `ExtProcOverrides`
#[derive(Debug)]
pub struct Overrides {
    /// In place of the filter's.
    pub mode: Option<Mode>,
    /// In place of the filter's.
    pub service: Option<GrpcTarget>,
    /// In place of the filter's.
    pub failure_mode_allow: Option<bool>,
    /// Lists that take the place of the filter's.
    pub metadata: MetadataOptions,
    /// Headers of the stream, in place of those with the same names.
    pub initial_metadata: Box<[(Arc<str>, Arc<str>)]>,
}

impl Settings {
    /// With what a route says.
    pub fn apply(&mut self, overrides: &Overrides) {
        if let Some(mode) = overrides.mode {
            self.mode = mode;
        }
        if let Some(service) = &overrides.service {
            self.service = Service::Grpc(service.clone());
        }
        if let Some(allow) = overrides.failure_mode_allow {
            self.failure_mode_allow = allow;
        }
        let own = &mut self.metadata;
        let MetadataOptions { forwarded, received, cluster } = &overrides.metadata;
        for (own, other) in
            [(&mut own.forwarded, forwarded), (&mut own.received, received), (&mut own.cluster, cluster)]
        {
            if other.is_some() {
                own.clone_from(other);
            }
        }
        if let (Service::Grpc(target), false) = (&mut self.service, overrides.initial_metadata.is_empty()) {
            let is_new = |name: &str| overrides.initial_metadata.iter().all(|(other, _)| **other != *name);
            let kept = target.initial_metadata.iter().filter(|(name, _)| is_new(name));
            target.initial_metadata = kept.chain(&overrides.initial_metadata).cloned().collect();
        }
    }
}

impl Mode {
    /// Whether it is the other one but for request headers, which have been seen already.
    fn is_like(self, other: Self) -> bool {
        self == Self { request_headers: self.request_headers, ..other }
    }

    /// With what a message changes. `None` if it asks for what there is not.
    pub fn with(self, value: &proto::ProcessingMode) -> Option<Self> {
        let send = |value: i32, old: bool| match value {
            1 => true,
            2 => false,
            _ => old,
        };
        let body = |value: i32| match value {
            0 => Some(BodyMode::None),
            1 => Some(BodyMode::Streamed),
            2 => Some(BodyMode::Buffered),
            3 => Some(BodyMode::BufferedPartial),
            4 => Some(BodyMode::FullDuplex),
            5 => Some(BodyMode::Grpc),
            _ => None,
        };
        Some(Self {
            request_headers: send(value.request_header_mode, self.request_headers),
            response_headers: send(value.response_header_mode, self.response_headers),
            request_body: body(value.request_body_mode)?,
            response_body: body(value.response_body_mode)?,
            request_trailers: send(value.request_trailer_mode, self.request_trailers),
            response_trailers: send(value.response_trailer_mode, self.response_trailers),
        })
    }
}

impl ExtProc {
    /// Whether the service may change to this mode.
    pub fn allows(&self, mode: Mode) -> bool {
        self.allow_mode_override
            && !self.early_body
            && (self.allowed_modes.is_empty()
                || self.allowed_modes.iter().any(|allowed| allowed.is_like(mode)))
    }
}

fn mode(cx: &mut Cx<'_>, value: proto::ProcessingMode) -> Option<Mode> {
    let Some(mode) = Mode::default().with(&value) else {
        cx.error("", "there is no such body mode");
        return None;
    };
    Some(mode)
}

/// The filter's own mode: what comes back of a body is followed by what comes back of its trailers.
fn own_mode(cx: &mut Cx<'_>, value: proto::ProcessingMode) -> Option<Mode> {
    let mode = mode(cx, value)?;
    for (side, body, trailers) in [
        ("request", mode.request_body, mode.request_trailers),
        ("response", mode.response_body, mode.response_trailers),
    ] {
        if body == BodyMode::FullDuplex && !trailers {
            let field = format!("{side}_trailer_mode");
            cx.error(&field, "it must be SEND where the body mode is FULL_DUPLEX_STREAMED");
        }
    }
    Some(mode)
}

fn names(cx: &mut Cx<'_>, field: &str, value: Option<pb::matcher::ListStringMatcher>) -> Names {
    let patterns = value.unwrap_or_default().patterns;
    cx.within(field, |cx| cx.each("patterns", patterns, matchers::string)).into()
}

fn attributes(cx: &mut Cx<'_>, field: &str, names: Vec<String>) -> Box<[(Arc<str>, Program)]> {
    let compiled = cx.each(field, names, |cx, name| {
        let program = cx.ok("", Program::compile(&name))?;
        Some((arc(name), program))
    });
    compiled.into()
}

fn grpc(cx: &mut Cx<'_>, value: pb::core::GrpcService) -> Option<GrpcTarget> {
    // The stream lives as long as the request; its messages have their own limit.
    callout::grpc(cx, value, TIMEOUT).map(|target| GrpcTarget { timeout: None, ..target })
}

fn http(cx: &mut Cx<'_>, value: proto::ExtProcHttpService) -> Option<HttpService> {
    let proto::ExtProcHttpService { http_service } = value;
    let pb::core::HttpService { http_uri, request_headers_to_add, formatters } =
        cx.required("http_service", http_service, |_, value| Some(value))?;
    crate::access_log::formatters(cx, formatters);
    cx.within("http_service", |cx| {
        let target = cx.required("http_uri", http_uri, callout::http_uri)?;
        let headers = cx.each("request_headers_to_add", request_headers_to_add, headers::add).into();
        Some(HttpService { target, headers })
    })
}

fn service(
    cx: &mut Cx<'_>,
    grpc_service: Option<pb::core::GrpcService>,
    http_service: Option<proto::ExtProcHttpService>,
    mode: Mode,
) -> Option<Service> {
    match (grpc_service, http_service) {
        (Some(value), None) => cx.within("grpc_service", |cx| grpc(cx, value)).map(Service::Grpc),
        (None, Some(value)) => {
            let bodies = [mode.request_body, mode.response_body].iter().any(|mode| *mode != BodyMode::None);
            if bodies || mode.request_trailers || mode.response_trailers {
                cx.error("processing_mode", "an http_service sees neither bodies nor trailers");
            }
            cx.within("http_service", |cx| http(cx, value)).map(|service| Service::Http(Box::new(service)))
        }
        _ => {
            cx.error("grpc_service", "either it or http_service must be set");
            None
        }
    }
}

fn metadata_options(value: Option<proto::MetadataOptions>) -> MetadataOptions {
    let proto::MetadataOptions {
        forwarding_namespaces,
        receiving_namespaces,
        cluster_metadata_forwarding_namespaces,
    } = value.unwrap_or_default();
    let namespaces = |value: proto::metadata_options::MetadataNamespaces| {
        let proto::metadata_options::MetadataNamespaces { untyped, typed } = value;
        Namespaces {
            untyped: untyped.into_iter().map(arc).collect(),
            typed: typed.into_iter().map(arc).collect(),
        }
    };
    MetadataOptions {
        forwarded: forwarding_namespaces.map(namespaces),
        received: receiving_namespaces.map(namespaces),
        cluster: cluster_metadata_forwarding_namespaces.map(namespaces),
    }
}

fn route_cache(cx: &mut Cx<'_>, disable_clear: bool, action: i32) -> RouteCache {
    if disable_clear && action != 0 {
        cx.error("route_cache_action", "it and disable_clear_route_cache exclude each other");
    }
    match action {
        _ if disable_clear => RouteCache::Retain,
        1 => RouteCache::Clear,
        2 => RouteCache::Retain,
        _ => RouteCache::Default,
    }
}

fn ext_proc(cx: &mut Cx<'_>, value: proto::ExternalProcessor) -> Option<ExtProc> {
    let proto::ExternalProcessor {
        grpc_service,
        http_service,
        failure_mode_allow,
        processing_mode,
        request_attributes,
        response_attributes,
        message_timeout,
        stat_prefix,
        mutation_rules,
        max_message_timeout,
        forward_rules,
        filter_metadata,
        allow_mode_override,
        disable_immediate_response,
        metadata_options: metadata_options_,
        observability_mode,
        disable_clear_route_cache,
        route_cache_action,
        deferred_close_timeout,
        send_body_without_waiting_for_header_response,
        allowed_override_modes,
        processing_request_modifier,
        on_processing_response,
        status_on_error,
        allow_content_length_header,
        emit_client_span: _,
    } = value;
    cx.refuse("filter_metadata", &filter_metadata);
    cx.refuse("processing_request_modifier", &processing_request_modifier);
    cx.refuse("on_processing_response", &on_processing_response);
    let proto::HeaderForwardingRules { allowed_headers, disallowed_headers } =
        forward_rules.unwrap_or_default();
    let status_on_error = match status_on_error.filter(|status| status.code != 0) {
        None => StatusCode::INTERNAL_SERVER_ERROR,
        Some(status) => {
            let code = u16::try_from(status.code).ok().and_then(|code| StatusCode::from_u16(code).ok());
            cx.ok("status_on_error.code", code.ok_or("it is no status"))?
        }
    };
    let mode = match processing_mode {
        None => Mode::default(),
        Some(value) => cx.within("processing_mode", |cx| own_mode(cx, value))?,
    };
    let deferred = values::duration(cx, "deferred_close_timeout", deferred_close_timeout);
    Some(ExtProc {
        settings: Settings {
            service: service(cx, grpc_service, http_service, mode)?,
            failure_mode_allow,
            mode,
            metadata: metadata_options(metadata_options_),
        },
        message_timeout: values::duration(cx, "message_timeout", message_timeout).unwrap_or(TIMEOUT),
        max_message_timeout: values::duration(cx, "max_message_timeout", max_message_timeout)
            .unwrap_or(Duration::ZERO),
        mutation_rules: cx
            .option("mutation_rules", mutation_rules, super::mutation_rules)
            .unwrap_or_default(),
        allowed_headers: allowed_headers.map(|list| names(cx, "forward_rules.allowed_headers", Some(list))),
        disallowed_headers: names(cx, "forward_rules.disallowed_headers", disallowed_headers),
        allow_mode_override,
        disable_immediate_response,
        route_cache: route_cache(cx, disable_clear_route_cache, route_cache_action),
        status_on_error,
        request_attributes: attributes(cx, "request_attributes", request_attributes),
        response_attributes: attributes(cx, "response_attributes", response_attributes),
        allowed_modes: cx.each("allowed_override_modes", allowed_override_modes, self::mode).into(),
        stat_prefix: arc(stat_prefix),
        observes: observability_mode.then(|| deferred.unwrap_or(DEFERRED_CLOSE)),
        early_body: send_body_without_waiting_for_header_response,
        keep_content_length: allow_content_length_header,
    })
}

fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    use proto::ext_proc_per_route::Override;
    let proto::ExtProcPerRoute { r#override } = cx.unpack(any)?;
    let config = match r#override {
        Some(Override::Disabled(_)) => ExtProcPerRoute::Disabled,
        Some(Override::Overrides(value)) => {
            ExtProcPerRoute::Overrides(cx.within("overrides", |cx| overrides(cx, value))?)
        }
        None => {
            cx.error("override", "it must be set");
            return None;
        }
    };
    Some(PerFilterConfig::typed(config))
}

fn overrides(cx: &mut Cx<'_>, value: proto::ExtProcOverrides) -> Option<Overrides> {
    let proto::ExtProcOverrides {
        processing_mode,
        async_mode,
        request_attributes,
        response_attributes,
        grpc_service,
        metadata_options,
        grpc_initial_metadata,
        failure_mode_allow,
        processing_request_modifier,
        emit_client_span: _,
    } = value;
    cx.refuse("processing_request_modifier", &processing_request_modifier);
    let unused = "it is in the API, and no proxy reads it";
    cx.ignore("async_mode", &async_mode, unused);
    cx.ignore("request_attributes", &request_attributes, unused);
    cx.ignore("response_attributes", &response_attributes, unused);
    Some(Overrides {
        mode: cx.option("processing_mode", processing_mode, mode),
        service: cx.option("grpc_service", grpc_service, grpc),
        failure_mode_allow: failure_mode_allow.map(|value| value.value),
        metadata: self::metadata_options(metadata_options),
        initial_metadata: grpc_initial_metadata
            .into_iter()
            .map(|header| (arc(header.key), arc(header.value)))
            .collect(),
    })
}
