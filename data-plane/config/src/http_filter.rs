//! HTTP filters of a connection manager.

mod convert;

use std::sync::Arc;

use sail_proxy_decide::fault::FaultConfig;
use sail_proxy_decide::headers::Mutations;
use sail_proxy_decide::rate_limit::LocalRateLimit;
use sail_proxy_decide::rbac::RbacConfig;
use xds_api::istio::{peer_metadata, stats};

use crate::access_log::AccessLog;
use crate::network_filter::FilterStateValue;

pub use convert::KNOWN;
pub(crate) use convert::{all, local_rate_limit, mutations};

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
    /// `router`: the last one.
    Router(Arc<Router>),
    /// `rbac`
    Rbac(Arc<RbacConfig>),
    /// `fault`
    Fault(Arc<FaultConfig>),
    /// `cors`: routes hold the policies.
    Cors,
    /// `istio.metadata_exchange` (`io.istio.http.peer_metadata.Config`)
    PeerMetadata(Arc<peer_metadata::Config>),
    /// `istio.alpn`
    Alpn(Arc<AlpnOverride>),
    /// `istio.stats`
    IstioStats(Arc<stats::PluginConfig>),
    /// `grpc_stats`
    GrpcStats(Arc<GrpcStats>),
    /// `grpc_web`
    GrpcWeb,
    /// `local_ratelimit`
    LocalRateLimit(Arc<LocalRateLimit>),
    /// `header_mutation`
    HeaderMutation(Arc<Mutations>),
    /// `buffer`: the most bytes.
    Buffer(u32),
    /// `set_filter_state`
    SetFilterState(Arc<[FilterStateValue]>),
    /// `jwt_authn`
    JwtAuthn(Arc<JwtAuthn>),
}

/// `jwt_authn`'s configuration, as the verifier takes it.
#[derive(Debug)]
pub struct JwtAuthn {
    /// The message itself.
    pub config: xds_api::envoy::extensions::filters::http::jwt_authn::v3::JwtAuthentication,
}

/// `Router`
#[derive(Debug, Default)]
pub struct Router {
    /// Whether `x-envoy-*` headers are not added.
    pub suppress_envoy_headers: bool,
    /// Whether a child span is made for each try.
    pub start_child_span: bool,
    /// Whether statistics are kept per response code; on by default.
    pub dynamic_stats: bool,
    /// Whether `x-envoy-expected-rq-timeout-ms` of the request is heeded.
    pub respect_expected_rq_timeout: bool,
    /// Whether gRPC failures do not count as 5xx.
    pub suppress_grpc_request_failure_code_stats: bool,
    /// Logs of each try.
    pub upstream_logs: Box<[Arc<AccessLog>]>,
}

/// `istio.alpn`: which ALPN values go upstream, by the protocol of the upstream request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlpnOverride {
    /// For HTTP/1.0.
    pub http10: Box<[Box<str>]>,
    /// For HTTP/1.1.
    pub http11: Box<[Box<str>]>,
    /// For HTTP/2.
    pub http2: Box<[Box<str>]>,
}

/// `grpc_stats`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrpcStats {
    /// Whether message counts go into filter state.
    pub emit_filter_state: bool,
    /// Whether upstream times are counted.
    pub enable_upstream_stats: bool,
    /// Which methods have statistics of their own.
    pub methods: GrpcMethods,
}

/// A gRPC service and methods of it.
pub type GrpcService = (Box<str>, Box<[Box<str>]>);

/// Which gRPC methods have statistics of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GrpcMethods {
    /// None.
    #[default]
    None,
    /// All.
    All,
    /// These, by service.
    Listed(Box<[GrpcService]>),
}
