//! HTTP filters of connection managers and upstreams: one file a filter, with its runtime type and its conversions, and
//! one table.

mod adaptive_concurrency;
mod admission_control;
pub mod alpn;
mod api_key_auth;
mod bandwidth_limit;
mod basic_auth;
mod buffer;
mod cdn_loop;
pub mod composite;
pub mod compression;
pub mod compressor;
mod connect_grpc_bridge;
mod cors;
pub mod credential_injector;
mod csrf;
pub mod custom_response;
pub mod decompressor;
mod dynamic_forward_proxy;
pub mod ext_authz;
pub mod ext_proc;
mod fault;
pub mod grpc_http1_bridge;
pub mod grpc_json_transcoder;
pub mod grpc_stats;
mod grpc_web;
pub(crate) mod header_mutation;
pub mod header_to_metadata;
pub mod health_check;
pub mod ip_tagging;
mod istio_stats;
pub mod json_to_metadata;
mod jwt_authn;
mod local_rate_limit;
pub mod lua;
mod on_demand;
mod original_src;
mod peer_metadata;
pub mod rate_limit;
mod rbac;
pub mod router;
mod set_filter_state;
mod set_metadata;
pub mod stateful_session;
pub(crate) mod upstream;
mod wasm;

use std::sync::Arc;

use sail_proxy_decide::admission::AdmissionControl;
use sail_proxy_decide::bandwidth::BandwidthLimit;
use sail_proxy_decide::credentials::ApiKeys;
use sail_proxy_decide::csrf::CsrfPolicy;
use sail_proxy_decide::fault::FaultConfig;
use sail_proxy_decide::fraction::Runtime;
use sail_proxy_decide::headers::Mutations;
use sail_proxy_decide::jwt::JwtAuthn;
use sail_proxy_decide::mutation_rules::MutationRules;
use sail_proxy_decide::rate_limit::LocalRateLimit;
use sail_proxy_decide::rbac::RbacConfig;
use sail_proxy_decide::route::PerFilterConfig;
use xds_api::istio::{peer_metadata as peer_metadata_proto, stats};

pub use adaptive_concurrency::AdaptiveConcurrency;
pub use alpn::AlpnOverride;
pub use basic_auth::BasicAuth;
pub use cdn_loop::CdnLoop;
pub use dynamic_forward_proxy::{ForwardHost, ForwardNames, ForwardProxy};
pub use grpc_stats::{GrpcMethods, GrpcService, GrpcStats};
use header_to_metadata::HeaderToMetadata;
use health_check::HealthCheck;
use ip_tagging::IpTagging;
pub use router::{Router, UpstreamLogOptions};
pub use set_metadata::SetMetadata;

use crate::convert::{Cx, arc, matchers, type_name, values};
use crate::discovered::{self, Discovered};
use crate::network_filter::FilterStateValue;
use crate::pb;

/// A kind of filter: how its configurations are read.
pub(crate) struct Entry {
    /// Its message, as type URLs name it.
    name: &'static str,
    convert: fn(&mut Cx<'_>, &pb::Any) -> Option<HttpFilterKind>,
    /// What routes may say to it.
    per_route: Option<PerRoute>,
}

/// How a filter's configuration in routes is read.
struct PerRoute {
    name: &'static str,
    convert: fn(&mut Cx<'_>, &pb::Any) -> Option<PerFilterConfig>,
}

/// All filters, by the names of their files.
const FILTERS: &[Entry] = &[
    adaptive_concurrency::ENTRY,
    admission_control::ENTRY,
    alpn::ENTRY,
    api_key_auth::ENTRY,
    bandwidth_limit::ENTRY,
    basic_auth::ENTRY,
    buffer::ENTRY,
    cdn_loop::ENTRY,
    composite::ENTRY,
    composite::WITH_MATCHER,
    compressor::ENTRY,
    connect_grpc_bridge::ENTRY,
    cors::ENTRY,
    credential_injector::ENTRY,
    csrf::ENTRY,
    custom_response::ENTRY,
    decompressor::ENTRY,
    ext_authz::ENTRY,
    ext_proc::ENTRY,
    dynamic_forward_proxy::ENTRY,
    fault::ENTRY,
    grpc_http1_bridge::ENTRY,
    grpc_json_transcoder::ENTRY,
    grpc_stats::ENTRY,
    grpc_web::ENTRY,
    header_mutation::ENTRY,
    header_to_metadata::ENTRY,
    health_check::ENTRY,
    ip_tagging::ENTRY,
    istio_stats::ENTRY,
    json_to_metadata::ENTRY,
    jwt_authn::ENTRY,
    local_rate_limit::ENTRY,
    lua::ENTRY,
    on_demand::ENTRY,
    original_src::ENTRY,
    peer_metadata::ENTRY,
    rate_limit::ENTRY,
    rbac::ENTRY,
    router::ENTRY,
    set_filter_state::ENTRY,
    set_metadata::ENTRY,
    upstream::CODEC,
    wasm::ENTRY,
    stateful_session::ENTRY,
];

/// An entry of `http_filters`.
#[derive(Clone, Debug)]
pub struct HttpFilter {
    /// Its name, under which routes configure it.
    pub name: Arc<str>,
    /// Whether it is off unless a route switches it on.
    pub disabled: bool,
    /// What it does.
    pub kind: HttpFilterKind,
}

/// What an HTTP filter does.
#[derive(Clone, Debug)]
pub enum HttpFilterKind {
    /// `adaptive_concurrency`
    AdaptiveConcurrency(Arc<AdaptiveConcurrency>),
    /// `admission_control`
    AdmissionControl(Arc<AdmissionControl>),
    /// `bandwidth_limit`
    BandwidthLimit(Arc<BandwidthLimit>),
    /// `api_key_auth`
    ApiKeyAuth(Arc<ApiKeys>),
    /// `basic_auth`
    BasicAuth(Arc<BasicAuth>),
    /// `cdn_loop`
    CdnLoop(Arc<CdnLoop>),
    /// `csrf`
    Csrf(Arc<CsrfPolicy>),
    /// `header_to_metadata`
    HeaderToMetadata(Arc<HeaderToMetadata>),
    /// `health_check`
    HealthCheck(Arc<HealthCheck>),
    /// `ip_tagging`
    IpTagging(Arc<IpTagging>),
    /// `set_metadata`
    SetMetadata(Arc<[SetMetadata]>),
    /// `istio.alpn`
    Alpn(Arc<AlpnOverride>),
    /// `buffer`: the most bytes.
    Buffer(u32),
    /// `composite`, or any filter with a matcher.
    Composite(Arc<composite::Composite>),
    /// `connect_grpc_bridge`
    ConnectGrpcBridge,
    /// `compressor`
    Compressor(Arc<compressor::Compressor>),
    /// Found by discovery (ECDS).
    Discovered(Arc<Discovered<HttpFilterKind>>),
    /// `credential_injector`
    CredentialInjector(Arc<credential_injector::CredentialInjector>),
    /// `cors`: routes hold the policies.
    Cors,
    /// `custom_response`
    CustomResponse(Arc<custom_response::CustomResponse>),
    /// `decompressor`
    Decompressor(Arc<decompressor::Decompressor>),
    /// `dynamic_forward_proxy`
    DynamicForwardProxy(Arc<ForwardProxy>),
    /// `ext_authz`
    ExtAuthz(Arc<ext_authz::ExtAuthz>),
    /// `ext_proc`
    ExtProc(Arc<ext_proc::ExtProc>),
    /// `fault`
    Fault(Arc<FaultConfig>),
    /// `grpc_http1_bridge`
    GrpcHttp1Bridge(grpc_http1_bridge::GrpcHttp1Bridge),
    /// `grpc_json_transcoder`
    GrpcJsonTranscoder(Arc<grpc_json_transcoder::GrpcJsonTranscoder>),
    /// `grpc_stats`
    GrpcStats(Arc<GrpcStats>),
    /// `grpc_web`
    GrpcWeb,
    /// `header_mutation`
    HeaderMutation(Arc<Mutations>),
    /// `istio.stats`
    IstioStats(Arc<stats::PluginConfig>),
    /// `json_to_metadata`
    JsonToMetadata(Arc<json_to_metadata::JsonToMetadata>),
    /// `jwt_authn`
    JwtAuthn(Arc<JwtAuthn>),
    /// `local_ratelimit`
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `lua`
    Lua(Arc<lua::Lua>),
    /// `on_demand`: there is nothing to do.
    OnDemand,
    /// `original_src`: the mark.
    OriginalSrc(u32),
    /// `istio.metadata_exchange` (`io.istio.http.peer_metadata.Config`)
    PeerMetadata(Arc<peer_metadata_proto::Config>),
    /// `ratelimit`
    RateLimit(Arc<rate_limit::RateLimit>),
    /// `rbac`
    Rbac(Arc<RbacConfig>),
    /// `router`: the last one.
    Router(Arc<Router>),
    /// `set_filter_state`
    SetFilterState(Arc<[FilterStateValue]>),
    /// `upstream_codec`: the last one of an upstream's.
    UpstreamCodec,
    /// `wasm`
    Wasm(Arc<crate::wasm::Plugin>),
    /// `stateful_session`
    StatefulSession(Arc<stateful_session::StatefulSession>),
}

/// Types of HTTP filters that there are.
pub fn known() -> impl Iterator<Item = &'static str> {
    FILTERS.iter().map(|entry| entry.name)
}

/// All filters; the last one must be the router.
pub(crate) fn all(cx: &mut Cx<'_>, field: &str, values: Vec<pb::hcm::HttpFilter>) -> Arc<[HttpFilter]> {
    let filters = cx.each(field, values, filter);
    let routers = filters.iter().filter(|filter| matches!(filter.kind, HttpFilterKind::Router(_))).count();
    let last = filters.last().is_some_and(|filter| matches!(filter.kind, HttpFilterKind::Router(_)));
    if !last || routers > 1 {
        cx.error(field, "the router must be there, once, as the last filter");
    }
    if filters.iter().any(|filter| matches!(filter.kind, HttpFilterKind::UpstreamCodec)) {
        cx.error(field, "the upstream codec is for filters of upstreams alone");
    }
    filters.into()
}

fn filter(cx: &mut Cx<'_>, value: pb::hcm::HttpFilter) -> Option<HttpFilter> {
    use pb::hcm::http_filter::ConfigType;
    let pb::hcm::HttpFilter { name, is_optional, disabled, config_type } = value;
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(source)) => {
            let field = "config_discovery";
            let found = cx.within(field, |cx| discovered::discovered(cx, &name, source, discovered::http))?;
            let kind = HttpFilterKind::Discovered(Arc::new(found));
            return Some(HttpFilter { name: arc(name), disabled, kind });
        }
        None if is_optional => {
            let why = format_args!("the optional filter {name:?} is left out: it has no configuration");
            cx.warn("typed_config", why);
            return None;
        }
        None => {
            cx.error("typed_config", format_args!("the filter {name:?} has no configuration"));
            return None;
        }
    };
    let Some(entry) = FILTERS.iter().find(|entry| entry.name == type_name(&any)) else {
        let of = type_name(&any);
        if is_optional {
            let why = format_args!("the optional filter {name:?} is left out: there is no {of:?}");
            cx.warn("typed_config", why);
        } else {
            cx.error("typed_config", format_args!("there is no HTTP filter {of:?}"));
        }
        return None;
    };
    let kind = cx.within("typed_config", |cx| (entry.convert)(cx, &any))?;
    Some(HttpFilter { name: arc(name), disabled, kind })
}

/// What a filter's configuration says, wherever it comes from.
pub(crate) fn kind(cx: &mut Cx<'_>, any: &pb::Any) -> Option<HttpFilterKind> {
    let Some(entry) = FILTERS.iter().find(|entry| entry.name == type_name(any)) else {
        cx.error("", format_args!("there is no HTTP filter {:?}", type_name(any)));
        return None;
    };
    (entry.convert)(cx, any)
}

/// Whether there is a filter that routes configure with this type.
pub(crate) fn has_per_route(any: &pb::Any) -> bool {
    per_route(any).is_some()
}

/// What a route says to a filter.
pub(crate) fn read_per_route(cx: &mut Cx<'_>, any: &pb::Any) -> Option<PerFilterConfig> {
    let Some(found) = per_route(any) else {
        let name = type_name(any);
        cx.error("", format_args!("there is no filter with a route configuration of type {name:?}"));
        return None;
    };
    (found.convert)(cx, any)
}

fn per_route(any: &pb::Any) -> Option<&'static PerRoute> {
    FILTERS.iter().filter_map(|entry| entry.per_route.as_ref()).find(|entry| entry.name == type_name(any))
}

/// `RuntimeFeatureFlag`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    default: bool,
    runtime_key: Arc<str>,
}

impl Flag {
    /// What holds now.
    pub fn now(&self, runtime: &dyn Runtime) -> bool {
        if self.runtime_key.is_empty() {
            return self.default;
        }
        runtime.boolean(&self.runtime_key).unwrap_or(self.default)
    }
}

/// `RuntimeFeatureFlag`
fn flag(value: Option<pb::core::RuntimeFeatureFlag>, default: bool) -> Flag {
    let pb::core::RuntimeFeatureFlag { default_value, runtime_key } = value.unwrap_or_default();
    Flag { default: values::bool_or(default_value, default), runtime_key: arc(runtime_key) }
}

/// `HeaderMutationRules`
fn mutation_rules(cx: &mut Cx<'_>, value: pb::mutation_rules::HeaderMutationRules) -> Option<MutationRules> {
    let pb::mutation_rules::HeaderMutationRules {
        allow_all_routing,
        allow_envoy,
        disallow_system,
        disallow_all,
        allow_expression,
        disallow_expression,
        disallow_is_error,
    } = value;
    Some(MutationRules {
        allow_all_routing: values::bool_or(allow_all_routing, false),
        allow_envoy: values::bool_or(allow_envoy, false),
        disallow_system: values::bool_or(disallow_system, false),
        disallow_all: values::bool_or(disallow_all, false),
        allow: cx.option("allow_expression", allow_expression, matchers::regex),
        disallow: cx.option("disallow_expression", disallow_expression, matchers::regex),
        disallow_is_error: values::bool_or(disallow_is_error, false),
    })
}
