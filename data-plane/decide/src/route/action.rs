//! What a route does with a request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderName;

use super::hash::HashPolicy;
use super::retry::RetryPolicy;
use super::{ClusterSpecifier, Metadata, Redirect, cors::CorsPolicy};
use crate::format::Format;
use crate::fraction::{Runtime, RuntimeFraction};
use crate::headers::Mutation;
use crate::log_format::LogFormat;
use crate::matcher::RegexRewrite;
use crate::path_template::TemplateRewrite;

/// What a route does.
#[derive(Debug)]
pub enum Action {
    /// Forwards to a cluster.
    Route(Box<RouteAction>),
    /// Sends the client elsewhere.
    Redirect(Redirect),
    /// Answers itself.
    DirectResponse(DirectResponse),
    /// Nothing: for listeners that gRPC clients read.
    NonForwarding,
}

/// `DirectResponseAction`
#[derive(Clone, Debug)]
pub struct DirectResponse {
    /// The status.
    pub status: http::StatusCode,
    /// The body.
    pub body: Bytes,
    /// The body with operators, in place of the above.
    pub body_format: Option<BodyFormat>,
}

/// A body with operators.
#[derive(Clone, Debug)]
pub struct BodyFormat {
    /// The text.
    pub format: LogFormat,
    /// Its `content-type`.
    pub content_type: http::HeaderValue,
}

/// `RouteAction`
#[derive(Debug)]
pub struct RouteAction {
    /// Where to.
    pub cluster: ClusterSpecifier,
    /// The answer when the cluster does not exist: 503 or 404.
    pub cluster_not_found_status: http::StatusCode,
    /// Which subset of the cluster's hosts.
    pub metadata_match: Metadata,
    /// The path that goes upstream.
    pub path_rewrite: Option<PathRewrite>,
    /// The host that goes upstream.
    pub host_rewrite: Option<HostRewrite>,
    /// Whether the old host goes upstream as `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
    /// The whole response must be there within this; `None`: no limit.
    pub timeout: Option<Duration>,
    /// The stream may be silent for so long; `None`: as the connection manager says. Zero: for ever.
    pub idle_timeout: Option<Duration>,
    /// The last of the response may wait for its client so long; `None`: as the connection manager says. Zero: for ever.
    pub flush_timeout: Option<Duration>,
    /// Limits of streams.
    pub max_stream_duration: Option<MaxStreamDuration>,
    /// The old gRPC limit: `grpc-timeout` is heeded up to this; zero: without limit.
    pub max_grpc_timeout: Option<Duration>,
    /// Subtracted from `grpc-timeout`.
    pub grpc_timeout_offset: Option<Duration>,
    /// When to try again; the virtual host's if `None`.
    pub retry: Option<Arc<RetryPolicy>>,
    /// Whether a try that takes too long is left running beside the next; the virtual host's if `None`.
    pub hedge_on_per_try_timeout: Option<bool>,
    /// Who gets copies; the virtual host's if empty.
    pub mirrors: Box<[Arc<MirrorPolicy>]>,
    /// Which circuit breaker counts.
    pub priority: Priority,
    /// What the load balancer hashes.
    pub hash_policy: Box<[HashPolicy]>,
    /// CORS in its old place.
    pub cors: Option<Arc<CorsPolicy>>,
    /// Upgrades that are let through or not, against the connection manager's list.
    pub upgrades: Box<[UpgradeConfig]>,
    /// Redirects that are followed here rather than by the client; `None`: none.
    pub internal_redirect: Option<InternalRedirect>,
    /// What is counted of its requests.
    pub rate_limits: crate::rate_limit::descriptor::RouteLimits,
}

/// `InternalRedirectPolicy`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalRedirect {
    /// How many in a row are followed.
    pub max: u32,
    /// Which statuses are.
    pub codes: Box<[u16]>,
    /// Whether the scheme may change.
    pub allow_cross_scheme: bool,
    /// Response headers that go into the next request, or are taken out of it.
    pub copy: Box<[HeaderName]>,
    /// Further conditions.
    pub predicates: Box<[RedirectPredicate]>,
}

/// A condition on an internal redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedirectPredicate {
    /// The route was not met before.
    PreviousRoutes,
    /// The route is one of these.
    AllowListed(Box<[Box<str>]>),
    /// Never from `https` to `http`.
    SafeCrossScheme,
}

/// `RoutingPriority`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// As usual.
    #[default]
    Default,
    /// With limits of its own.
    High,
}

/// How the path changes.
#[derive(Debug)]
pub enum PathRewrite {
    /// The part that the route's prefix (or whole path) matched becomes this.
    Prefix(Box<str>),
    /// Matches of a regular expression become something else; the query stays.
    Regex(RegexRewrite),
    /// The path becomes what the format yields.
    Format(Format),
    /// The path becomes another one with what the variables of the route's template stood for; the query stays.
    Template(TemplateRewrite),
}

/// How the host changes.
#[derive(Debug)]
pub enum HostRewrite {
    /// To this.
    Literal(http::HeaderValue),
    /// To the name of the upstream host that was chosen.
    Auto,
    /// To a header's value, if it is there.
    Header(HeaderName),
    /// To what the path becomes under a regular expression.
    PathRegex(RegexRewrite),
    /// To what the format yields.
    Format(Format),
}

/// `RequestMirrorPolicy`
#[derive(Debug)]
pub struct MirrorPolicy {
    /// Who gets a copy.
    pub cluster: MirrorCluster,
    /// How often; `None`: always.
    pub fraction: Option<RuntimeFraction>,
    /// Whether the host of the copy stays without `-shadow`.
    pub disable_shadow_host_suffix_append: bool,
    /// Whether the copy is traced; `None`: as the request is.
    pub trace_sampled: Option<bool>,
    /// Header operations on the copy.
    pub request_headers: Box<[Mutation]>,
    /// The copy's host.
    pub host_rewrite: Option<http::HeaderValue>,
}

/// Where a copy goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MirrorCluster {
    /// To this cluster.
    Name(Arc<str>),
    /// To the one that a header names.
    Header(HeaderName),
}

impl MirrorPolicy {
    /// Whether this request is copied.
    pub fn hit(&self, random: u64, runtime: &dyn Runtime) -> bool {
        self.fraction.as_ref().is_none_or(|fraction| fraction.hit(random, runtime))
    }
}

/// `UpgradeConfig`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeConfig {
    /// `websocket`, `CONNECT`; lower-case.
    pub upgrade_type: Box<str>,
    /// Whether it is let through.
    pub enabled: bool,
    /// For CONNECT: the payload goes upstream as plain TCP.
    pub connect: Option<ConnectConfig>,
}

/// `UpgradeConfig.ConnectConfig`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectConfig {
    /// Whether POST does as CONNECT does.
    pub allow_post: bool,
    /// The version of the PROXY protocol's header that comes before the payload; `None`: none.
    pub proxy_protocol: Option<ConnectHeader>,
}

/// `ProxyProtocolConfig.Version`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectHeader {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// `MaxStreamDuration`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MaxStreamDuration {
    /// The limit; zero: none; `None`: the connection manager's.
    pub max_stream_duration: Option<Duration>,
    /// `grpc-timeout` is heeded up to this; zero: without limit.
    pub grpc_timeout_header_max: Option<Duration>,
    /// Subtracted from `grpc-timeout`.
    pub grpc_timeout_header_offset: Option<Duration>,
}
