//! `ext_authz`: a service is asked whether a request may pass.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use sail_proxy_decide::fraction::RuntimeFraction;
use sail_proxy_decide::headers::HeaderAdd;
use sail_proxy_decide::matcher::{MetadataMatcher, StringMatcher};
use sail_proxy_decide::mutation_rules::MutationRules;
use sail_proxy_decide::route::PerFilterConfig;
use sail_proxy_decide::route::retry::RetryOn;

use super::{Entry, HttpFilterKind, PerRoute};
use crate::callout::{self, GrpcTarget, HttpTarget};
use crate::convert::{Cx, arc, headers, matchers, values};
use crate::pb;
use crate::pb::filters::http::ext_authz::v3 as proto;

pub(super) const ENTRY: Entry = Entry {
    name: "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
    convert: |cx, any| {
        let value = cx.unpack(any)?;
        ext_authz(cx, value).map(|config| HttpFilterKind::ExtAuthz(Arc::new(config)))
    },
    per_route: Some(PerRoute {
        name: "envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        convert: read_per_route,
    }),
};

/// How long the service may take where nothing is said.
const TIMEOUT: Duration = Duration::from_millis(200);

/// Names, of which one must match.
pub type Names = Box<[StringMatcher]>;

/// `ExtAuthz`
#[derive(Debug)]
pub struct ExtAuthz {
    /// Who is asked.
    pub service: Service,
    /// Whether requests pass if the service fails.
    pub failure_mode_allow: bool,
    /// Whether they then get a header that says so.
    pub failure_mode_allow_header_add: bool,
    /// How much of the body goes along.
    pub body: Option<BodySettings>,
    /// Whether the route is chosen again after the service changed headers.
    pub clear_route_cache: bool,
    /// The answer where the service fails.
    pub status_on_error: StatusCode,
    /// Whether changes that are not valid fail the request.
    pub validate_mutations: bool,
    /// Dynamic metadata that go along.
    pub metadata_namespaces: Box<[Arc<str>]>,
    /// The route's metadata that go along.
    pub route_metadata_namespaces: Box<[Arc<str>]>,
    /// Which share of the requests is checked.
    pub enabled: Option<RuntimeFraction>,
    /// Only requests with such metadata are checked.
    pub enabled_metadata: Option<MetadataMatcher>,
    /// Whether requests that are not checked are refused: the default, and the runtime key.
    pub deny_at_disable: Option<(bool, Arc<str>)>,
    /// Whether the client's certificate goes along.
    pub include_peer_certificate: bool,
    /// Headers that go along; `None` for all to gRPC and the usual ones to HTTP.
    pub allowed_headers: Option<Names>,
    /// Headers that do not.
    pub disallowed_headers: Names,
    /// Whether SNI goes along.
    pub include_tls_session: bool,
    /// Whether header values go as they are, one by one.
    pub encode_raw_headers: bool,
    /// Which headers the service may change.
    pub mutation_rules: Option<MutationRules>,
    /// Whether the service may write dynamic metadata.
    pub dynamic_metadata: bool,
    /// As much of a refusal's body as the client gets.
    pub max_denied_body: Option<usize>,
    /// What statistics bear in their names; may be empty.
    pub stat_prefix: Arc<str>,
    /// Dynamic metadata that go along as messages.
    pub typed_metadata_namespaces: Box<[Arc<str>]>,
    /// Under which key of the node's metadata the labels are that go along.
    pub labels_key: Option<Arc<str>>,
    /// Whether nothing is refused: what the service said is only noted.
    pub shadow: bool,
}

/// Who is asked.
#[derive(Clone, Debug)]
pub enum Service {
    /// `envoy.service.auth.v3.Authorization`
    Grpc(GrpcTarget),
    /// An HTTP server.
    Http(Box<HttpService>),
}

/// How often a server is asked again that fails, and after which pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retries {
    /// On what; nothing where it is not said, as in Envoy.
    pub on: RetryOn,
    /// How often.
    pub count: u32,
    /// The longest first pause; later ones may be twice as long each.
    pub base: Duration,
    /// The longest pause.
    pub max: Duration,
}

/// `HttpService`
#[derive(Clone, Debug)]
pub struct HttpService {
    /// The server.
    pub target: HttpTarget,
    /// How often it is asked again.
    pub retries: Option<Retries>,
    /// Stands before the request's path.
    pub path_prefix: Box<str>,
    /// In place of it.
    pub path_override: Option<Box<str>>,
    /// Client headers that go along.
    pub allowed_headers: Names,
    /// Headers that are added.
    pub headers_to_add: Box<[HeaderAdd]>,
    /// Headers of the answer that go upstream.
    pub upstream_headers: Names,
    /// Headers of the answer that are appended to the request's.
    pub upstream_headers_to_append: Names,
    /// Headers of a refusal that the client gets; `None` for all.
    pub client_headers: Option<Names>,
    /// Headers of a consent that the client gets.
    pub client_headers_on_success: Names,
    /// Headers of the answer that become dynamic metadata.
    pub metadata_from_headers: Names,
}

/// `BufferSettings`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodySettings {
    /// The most bytes.
    pub max_request_bytes: u32,
    /// Whether the first part of a longer body will do.
    pub allow_partial: bool,
    /// Whether it need not be text.
    pub pack_as_bytes: bool,
}

/// `ExtAuthzPerRoute`
#[derive(Debug)]
pub enum ExtAuthzPerRoute {
    /// The route is not checked.
    Disabled,
    /// It is, and this goes along.
    Check(CheckSettings),
}

/// `CheckSettings`
#[derive(Debug, Default)]
pub struct CheckSettings {
    /// What the service is told besides.
    pub context_extensions: Vec<(String, String)>,
    /// Whether the body stays here.
    pub disable_body: bool,
    /// How much of it goes along.
    pub body: Option<BodySettings>,
    /// Who is asked instead.
    pub service: Option<Service>,
}

fn names(cx: &mut Cx<'_>, field: &str, value: Option<pb::matcher::ListStringMatcher>) -> Names {
    let patterns = value.unwrap_or_default().patterns;
    cx.within(field, |cx| cx.each("patterns", patterns, matchers::string)).into()
}

fn body(cx: &mut Cx<'_>, value: proto::BufferSettings) -> Option<BodySettings> {
    let proto::BufferSettings { max_request_bytes, allow_partial_message, pack_as_bytes } = value;
    if max_request_bytes == 0 {
        cx.error("max_request_bytes", "it must be above 0");
    }
    Some(BodySettings { max_request_bytes, allow_partial: allow_partial_message, pack_as_bytes })
}

fn retries(cx: &mut Cx<'_>, value: pb::core::RetryPolicy) -> Option<Retries> {
    let pb::core::RetryPolicy {
        retry_back_off,
        num_retries,
        retry_on,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts: _,
    } = value;
    cx.refuse("retry_priority", &retry_priority);
    cx.refuse("retry_host_predicate", &retry_host_predicate);
    let (on, unknown) = RetryOn::parse(&retry_on);
    if let Some(other) = unknown {
        cx.warn("retry_on", format_args!("{other:?} is no condition"));
    }
    let pb::core::BackoffStrategy { base_interval, max_interval } = retry_back_off.unwrap_or_default();
    let base = values::duration(cx, "retry_back_off.base_interval", base_interval);
    let base = base.unwrap_or(Duration::from_secs(1));
    let max = values::duration(cx, "retry_back_off.max_interval", max_interval);
    let count = values::u32_or(num_retries, 1);
    Some(Retries { on, count, base, max: max.unwrap_or(base * 10) })
}

fn http_service(cx: &mut Cx<'_>, value: proto::HttpService) -> Option<HttpService> {
    let proto::HttpService {
        server_uri,
        path_prefix,
        path_override,
        authorization_request,
        authorization_response,
        retry_policy,
    } = value;
    let retries = cx.option("retry_policy", retry_policy, self::retries);
    if !path_prefix.is_empty() && !path_override.is_empty() {
        cx.error("path_override", "path_prefix and path_override exclude each other");
    }
    if !path_prefix.is_empty() && !path_prefix.starts_with('/') {
        cx.error("path_prefix", "it must begin with a slash");
    }
    let proto::AuthorizationRequest { allowed_headers, headers_to_add } =
        authorization_request.unwrap_or_default();
    let proto::AuthorizationResponse {
        allowed_upstream_headers,
        allowed_upstream_headers_to_append,
        allowed_client_headers,
        allowed_client_headers_on_success,
        dynamic_metadata_from_headers,
    } = authorization_response.unwrap_or_default();
    let mut target = cx.required("server_uri", server_uri, callout::http_uri)?;
    target.timeout.get_or_insert(TIMEOUT);
    let field = |name: &str| format!("authorization_response.{name}");
    let add = |cx: &mut Cx<'_>, header: pb::core::HeaderValue| {
        let action = pb::core::header_value_option::HeaderAppendAction::OverwriteIfExistsOrAdd as i32;
        let option = pb::core::HeaderValueOption {
            header: Some(header),
            append_action: action,
            keep_empty_value: true,
            ..Default::default()
        };
        headers::add(cx, option)
    };
    Some(HttpService {
        target,
        retries,
        path_prefix: path_prefix.into(),
        path_override: (!path_override.is_empty()).then(|| path_override.into()),
        allowed_headers: names(cx, "authorization_request.allowed_headers", allowed_headers),
        headers_to_add: cx.each("authorization_request.headers_to_add", headers_to_add, add).into(),
        upstream_headers: names(cx, &field("allowed_upstream_headers"), allowed_upstream_headers),
        upstream_headers_to_append: names(
            cx,
            &field("allowed_upstream_headers_to_append"),
            allowed_upstream_headers_to_append,
        ),
        client_headers: allowed_client_headers
            .filter(|list| !list.patterns.is_empty())
            .map(|list| names(cx, &field("allowed_client_headers"), Some(list))),
        client_headers_on_success: names(
            cx,
            &field("allowed_client_headers_on_success"),
            allowed_client_headers_on_success,
        ),
        metadata_from_headers: names(
            cx,
            &field("dynamic_metadata_from_headers"),
            dynamic_metadata_from_headers,
        ),
    })
}

fn ext_authz(cx: &mut Cx<'_>, value: proto::ExtAuthz) -> Option<ExtAuthz> {
    use proto::ext_authz::Services;
    let proto::ExtAuthz {
        transport_api_version: _,
        failure_mode_allow,
        failure_mode_allow_header_add,
        with_request_body,
        clear_route_cache,
        status_on_error,
        validate_mutations,
        metadata_context_namespaces,
        typed_metadata_context_namespaces,
        route_metadata_context_namespaces,
        route_typed_metadata_context_namespaces,
        filter_enabled,
        filter_enabled_metadata,
        deny_at_disable,
        include_peer_certificate,
        stat_prefix,
        bootstrap_metadata_labels_key,
        allowed_headers,
        disallowed_headers,
        include_tls_session,
        // The calls count in the cluster's statistics, the refusals in the filter's.
        charge_cluster_response_stats: _,
        encode_raw_headers,
        decoder_header_mutation_rules,
        enable_dynamic_metadata_ingestion,
        filter_metadata,
        emit_filter_state_stats,
        max_denied_response_body_bytes,
        enforce_response_header_limits,
        shadow_mode,
        // No span is made of a callout.
        emit_client_span: _,
        services,
    } = value;
    cx.refuse("route_typed_metadata_context_namespaces", &route_typed_metadata_context_namespaces);
    cx.refuse("filter_metadata", &filter_metadata);
    cx.refuse("emit_filter_state_stats", &emit_filter_state_stats);
    cx.refuse("enforce_response_header_limits", &enforce_response_header_limits);
    let service = match services {
        Some(Services::GrpcService(value)) => {
            Service::Grpc(cx.within("grpc_service", |cx| callout::grpc(cx, value, TIMEOUT))?)
        }
        Some(Services::HttpService(value)) => {
            Service::Http(Box::new(cx.within("http_service", |cx| http_service(cx, value))?))
        }
        None => {
            cx.error("services", "either grpc_service or http_service must be set");
            return None;
        }
    };
    let status_on_error = match status_on_error.map(|status| u16::try_from(status.code)) {
        None => StatusCode::FORBIDDEN,
        Some(Ok(code)) => {
            cx.ok("status_on_error.code", StatusCode::from_u16(code).map_err(|_| "it is no status"))?
        }
        Some(Err(_)) => {
            cx.error("status_on_error.code", "it is no status");
            return None;
        }
    };
    Some(ExtAuthz {
        service,
        stat_prefix: arc(stat_prefix),
        failure_mode_allow,
        failure_mode_allow_header_add,
        body: cx.option("with_request_body", with_request_body, body),
        clear_route_cache,
        status_on_error,
        validate_mutations,
        metadata_namespaces: metadata_context_namespaces.into_iter().map(arc).collect(),
        route_metadata_namespaces: route_metadata_context_namespaces.into_iter().map(arc).collect(),
        enabled: cx.option("filter_enabled", filter_enabled, values::runtime_fraction),
        enabled_metadata: cx.option("filter_enabled_metadata", filter_enabled_metadata, matchers::metadata),
        deny_at_disable: deny_at_disable
            .map(|flag| (values::bool_or(flag.default_value, false), arc(flag.runtime_key))),
        include_peer_certificate,
        allowed_headers: allowed_headers.map(|list| names(cx, "allowed_headers", Some(list))),
        disallowed_headers: names(cx, "disallowed_headers", disallowed_headers),
        include_tls_session,
        encode_raw_headers,
        mutation_rules: cx.option(
            "decoder_header_mutation_rules",
            decoder_header_mutation_rules,
            super::mutation_rules,
        ),
        typed_metadata_namespaces: typed_metadata_context_namespaces.into_iter().map(arc).collect(),
        labels_key: (!bootstrap_metadata_labels_key.is_empty()).then(|| arc(bootstrap_metadata_labels_key)),
        shadow: shadow_mode,
        dynamic_metadata: values::bool_or(enable_dynamic_metadata_ingestion, true),
        max_denied_body: (max_denied_response_body_bytes > 0)
            .then_some(max_denied_response_body_bytes as usize),
    })
}

fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    use proto::ext_authz_per_route::Override;
    let proto::ExtAuthzPerRoute { r#override } = cx.unpack(any)?;
    let config = match r#override {
        Some(Override::Disabled(true)) => ExtAuthzPerRoute::Disabled,
        Some(Override::Disabled(false)) => ExtAuthzPerRoute::Check(CheckSettings::default()),
        Some(Override::CheckSettings(value)) => {
            ExtAuthzPerRoute::Check(cx.within("check_settings", |cx| check_settings(cx, value))?)
        }
        None => {
            cx.error("override", "it must be set");
            return None;
        }
    };
    Some(PerFilterConfig::typed(config))
}

fn check_settings(cx: &mut Cx<'_>, value: proto::CheckSettings) -> Option<CheckSettings> {
    use proto::check_settings::ServiceOverride;
    let proto::CheckSettings {
        context_extensions,
        disable_request_body_buffering,
        with_request_body,
        emit_client_span: _,
        service_override,
    } = value;
    if disable_request_body_buffering && with_request_body.is_some() {
        cx.error("with_request_body", "it and disable_request_body_buffering exclude each other");
    }
    let mut context_extensions: Vec<_> = context_extensions.into_iter().collect();
    context_extensions.sort();
    let service = match service_override {
        None => None,
        Some(ServiceOverride::GrpcService(value)) => {
            Some(Service::Grpc(cx.within("grpc_service", |cx| callout::grpc(cx, value, TIMEOUT))?))
        }
        Some(ServiceOverride::HttpService(value)) => {
            Some(Service::Http(Box::new(cx.within("http_service", |cx| http_service(cx, value))?)))
        }
    };
    Some(CheckSettings {
        context_extensions,
        disable_body: disable_request_body_buffering,
        body: cx.option("with_request_body", with_request_body, body),
        service,
    })
}
