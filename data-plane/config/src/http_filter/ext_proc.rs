//! `ext_proc`: a service looks at requests and responses, and may change them.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use sail_proxy_decide::cel::Program;
use sail_proxy_decide::mutation_rules::MutationRules;
use sail_proxy_decide::route::PerFilterConfig;

use super::ext_authz::Names;
use super::{Entry, HttpFilterKind, PerRoute};
use crate::callout::{self, GrpcTarget};
use crate::convert::{Cx, arc, matchers, values};
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

/// `ExternalProcessor`
#[derive(Debug)]
pub struct ExtProc {
    /// The service.
    pub service: GrpcTarget,
    /// Whether requests go on as they are if the service fails.
    pub failure_mode_allow: bool,
    /// What the service sees.
    pub mode: Mode,
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
    /// Dynamic metadata that it sees.
    pub forwarded_namespaces: Box<[Arc<str>]>,
    /// Dynamic metadata that it may write.
    pub received_namespaces: Box<[Arc<str>]>,
    /// What is told of a request: names of attributes, and how they are read.
    pub request_attributes: Box<[(Arc<str>, Program)]>,
    /// What is told of a response.
    pub response_attributes: Box<[(Arc<str>, Program)]>,
    /// The modes that the service may change to; empty: all.
    pub allowed_modes: Box<[Mode]>,
    /// What statistics bear in their names; may be empty.
    pub stat_prefix: Arc<str>,
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
            && (self.allowed_modes.is_empty()
                || self.allowed_modes.iter().any(|allowed| allowed.is_like(mode)))
    }
}

fn mode(cx: &mut Cx<'_>, value: proto::ProcessingMode) -> Option<Mode> {
    let mode = Mode::default().with(&value);
    if mode.is_none() {
        cx.error("", "FULL_DUPLEX_STREAMED and GRPC bodies are not supported");
    }
    mode
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

fn service(cx: &mut Cx<'_>, value: pb::core::GrpcService) -> Option<GrpcTarget> {
    // The stream lives as long as the request; its messages have their own limit.
    callout::grpc(cx, value, TIMEOUT).map(|target| GrpcTarget { timeout: None, ..target })
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
        metadata_options,
        observability_mode,
        disable_clear_route_cache,
        route_cache_action,
        deferred_close_timeout: _,
        send_body_without_waiting_for_header_response,
        allowed_override_modes,
        processing_request_modifier,
        on_processing_response,
        status_on_error,
        allow_content_length_header,
        emit_client_span: _,
    } = value;
    cx.refuse("http_service", &http_service);
    cx.refuse("filter_metadata", &filter_metadata);
    cx.refuse("observability_mode", &observability_mode);
    cx.refuse(
        "send_body_without_waiting_for_header_response",
        &send_body_without_waiting_for_header_response,
    );
    cx.refuse("processing_request_modifier", &processing_request_modifier);
    cx.refuse("on_processing_response", &on_processing_response);
    cx.refuse("allow_content_length_header", &allow_content_length_header);
    let proto::MetadataOptions {
        forwarding_namespaces,
        receiving_namespaces,
        cluster_metadata_forwarding_namespaces,
    } = metadata_options.unwrap_or_default();
    cx.refuse(
        "metadata_options.cluster_metadata_forwarding_namespaces",
        &cluster_metadata_forwarding_namespaces,
    );
    let namespaces =
        |cx: &mut Cx<'_>, field: &str, value: Option<proto::metadata_options::MetadataNamespaces>| {
            let proto::metadata_options::MetadataNamespaces { untyped, typed } = value.unwrap_or_default();
            cx.within(field, |cx| cx.refuse("typed", &typed));
            untyped.into_iter().map(arc).collect()
        };
    let proto::HeaderForwardingRules { allowed_headers, disallowed_headers } =
        forward_rules.unwrap_or_default();
    let status_on_error = match status_on_error.filter(|status| status.code != 0) {
        None => StatusCode::INTERNAL_SERVER_ERROR,
        Some(status) => {
            let code = u16::try_from(status.code).ok().and_then(|code| StatusCode::from_u16(code).ok());
            cx.ok("status_on_error.code", code.ok_or("it is no status"))?
        }
    };
    let route_cache = match route_cache_action {
        _ if disable_clear_route_cache => RouteCache::Retain,
        1 => RouteCache::Clear,
        2 => RouteCache::Retain,
        _ => RouteCache::Default,
    };
    Some(ExtProc {
        service: cx.required("grpc_service", grpc_service, service)?,
        failure_mode_allow,
        mode: match processing_mode {
            None => Mode::default(),
            Some(value) => cx.within("processing_mode", |cx| mode(cx, value))?,
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
        route_cache,
        status_on_error,
        forwarded_namespaces: namespaces(cx, "metadata_options.forwarding_namespaces", forwarding_namespaces),
        request_attributes: attributes(cx, "request_attributes", request_attributes),
        response_attributes: attributes(cx, "response_attributes", response_attributes),
        allowed_modes: cx.each("allowed_override_modes", allowed_override_modes, mode).into(),
        stat_prefix: arc(stat_prefix),
        received_namespaces: namespaces(cx, "metadata_options.receiving_namespaces", receiving_namespaces),
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
    cx.refuse("async_mode", &async_mode);
    cx.refuse("request_attributes", &request_attributes);
    cx.refuse("response_attributes", &response_attributes);
    cx.refuse("metadata_options", &metadata_options);
    cx.refuse("grpc_initial_metadata", &grpc_initial_metadata);
    cx.refuse("processing_request_modifier", &processing_request_modifier);
    Some(Overrides {
        mode: cx.option("processing_mode", processing_mode, mode),
        service: cx.option("grpc_service", grpc_service, service),
        failure_mode_allow: failure_mode_allow.map(|value| value.value),
    })
}
