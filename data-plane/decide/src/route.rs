//! Route tables: virtual hosts, routes, and what a route does with a request.
//!
//! [`RouteTable::find`] answers with the virtual host and route for a request; the rest are decisions on what was found:
//! which cluster, which rewrite, which headers, how long, how often again.

mod action;
mod cluster;
mod control;
pub mod cors;
pub mod hash;
mod hosts;
mod matching;
mod redirect;
pub mod retry;
mod rewrite;
pub mod spans;
mod timeout;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

pub use action::{
    Action, BodyFormat, ConnectConfig, ConnectHeader, DirectResponse, HostRewrite, InternalRedirect,
    MaxStreamDuration, MirrorCluster, MirrorPolicy, PathRewrite, Priority, RedirectPredicate, RouteAction,
    UpgradeConfig,
};
pub use cluster::{ClusterChoice, ClusterName, ClusterSpecifier, Draw, WeightedCluster, WeightedClusters};
pub use control::ControlHeader;
pub use hosts::{HostIndex, InvalidDomain, without_port};
pub use matching::{
    CookieMatcher, FilterStateMatch, FilterStateMatcher, PathMatch, RouteContext, RouteMatch, cookie,
};
pub use redirect::{Redirect, RedirectPath, Scheme};
pub use rewrite::rewrite_host;
pub use timeout::{Timeouts, grpc_timeout, parse_grpc_timeout};

use crate::head::RequestHead;
use crate::headers::HeaderOps;
use crate::matcher::tree::MatchTree;

/// `RouteConfiguration`
#[derive(Debug)]
pub struct RouteTable {
    /// Its name.
    pub name: Arc<str>,
    /// Its virtual hosts.
    pub virtual_hosts: Box<[Arc<VirtualHost>]>,
    /// Domain look-up over them.
    pub hosts: HostIndex,
    /// The header that stands for the request's host.
    pub host_header: Option<crate::head::HeaderKey>,
    /// Whether a port in the request's host is left out of account.
    pub ignore_port_in_host_matching: bool,
    /// Header operations on requests.
    pub request_headers: HeaderOps,
    /// Header operations on responses.
    pub response_headers: HeaderOps,
    /// Whether the route's header operations come last, so that they win, or the table's (the default).
    pub most_specific_header_mutations_wins: bool,
    /// Headers that are removed from requests from outside.
    pub internal_only_headers: Box<[http::HeaderName]>,
    /// Mirrors for routes that name none.
    pub mirrors: Box<[Arc<MirrorPolicy>]>,
    /// Per-filter configuration, by filter name.
    pub per_filter: PerFilter,
    /// Whether `;`-parameters are cut off before paths are matched.
    pub ignore_path_parameters: bool,
    /// A hash of the protobuf that it was built from: an equal one is not built again.
    pub version: u64,
}

/// `VirtualHost`
#[derive(Debug)]
pub struct VirtualHost {
    /// Its name.
    pub name: Arc<str>,
    /// Its routes, first match wins.
    pub routes: Box<[Arc<Route>]>,
    /// What must be TLS.
    pub require_tls: RequireTls,
    /// The route that sends what is not TLS to `https`; there if anything must be.
    pub tls_redirect: Option<Arc<Route>>,
    /// Header operations on requests.
    pub request_headers: HeaderOps,
    /// Header operations on responses.
    pub response_headers: HeaderOps,
    /// Mirrors for routes that name none.
    pub mirrors: Box<[Arc<MirrorPolicy>]>,
    /// The retry policy for routes that have none.
    pub retry: Option<Arc<retry::RetryPolicy>>,
    /// Whether a try that takes too long is left running beside the next, for routes that do not say.
    pub hedge_on_per_try_timeout: Option<bool>,
    /// Whether `x-envoy-attempt-count` goes upstream.
    pub include_request_attempt_count: bool,
    /// Whether it goes downstream.
    pub include_attempt_count_in_response: bool,
    /// Whether `x-envoy-is-timeout-retry` goes upstream on retries after a timeout.
    pub include_is_timeout_retry_header: bool,
    /// How much of a request may be buffered for retries.
    pub request_body_buffer_limit: Option<u64>,
    /// CORS in its old place.
    pub cors: Option<Arc<cors::CorsPolicy>>,
    /// Per-filter configuration, by filter name.
    pub per_filter: PerFilter,
    /// Metadata, by namespace.
    pub metadata: Metadata,
    /// What is counted of its requests.
    pub rate_limits: Box<[crate::rate_limit::descriptor::RateLimit]>,
    /// Groups of requests with statistics of their own; the last takes what no other does.
    pub virtual_clusters: Box<[VirtualCluster]>,
    /// Routes by a tree of conditions, in place of the list.
    pub matcher: Option<MatchTree<MatchedRoutes>>,
}

/// `VirtualCluster`
#[derive(Debug)]
pub struct VirtualCluster {
    /// Conditions on the request, all of which must hold.
    pub headers: Box<[crate::matcher::HeaderMatcher]>,
    /// Its name; the one that takes what the others leave has none.
    pub name: Option<Arc<str>>,
    /// Its statistics stand under `vhost.` and this.
    pub stat_name: Arc<str>,
}

/// A leaf of a virtual host's tree: the first of these that takes the request.
#[derive(Debug)]
pub struct MatchedRoutes(pub Box<[Arc<Route>]>);

/// `Route`
#[derive(Debug)]
pub struct Route {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// Which requests it takes.
    pub matching: RouteMatch,
    /// What it does with them.
    pub action: Action,
    /// Header operations on requests.
    pub request_headers: HeaderOps,
    /// Header operations on responses.
    pub response_headers: HeaderOps,
    /// Names the span of a trace.
    pub decorator: Option<Decorator>,
    /// Sampling and tags of traces.
    pub tracing: Option<RouteTracing>,
    /// How much of a request may be buffered for retries.
    pub request_body_buffer_limit: Option<u64>,
    /// The route's statistics stand under `vhost.` and this; empty: there are none.
    pub stat_name: Arc<str>,
    /// Per-filter configuration, by filter name.
    pub per_filter: PerFilter,
    /// Metadata, by namespace.
    pub metadata: Metadata,
}

/// Metadata: a `Struct` a namespace.
pub type Metadata = Option<Arc<serde_json::Map<String, serde_json::Value>>>;

/// Typed per-filter configuration of a route, virtual host, table or weighted cluster.
#[derive(Clone, Debug, Default)]
pub struct PerFilter(Box<[(Arc<str>, PerFilterConfig)]>);

/// The per-route configuration of one filter.
#[derive(Clone, Debug)]
pub enum PerFilterConfig {
    /// `FilterConfig.disabled`
    Disabled,
    /// An empty `FilterConfig.config`: the filter is there, as it is configured.
    Enabled,
    /// Fault injection.
    Fault(Arc<crate::fault::FaultConfig>),
    /// CORS.
    Cors(Arc<cors::CorsPolicy>),
    /// RBAC; `None` switches it off.
    Rbac(Option<Arc<crate::rbac::RbacConfig>>),
    /// Local rate limit.
    LocalRateLimit(Arc<crate::rate_limit::LocalRateLimit>),
    /// Header mutation.
    HeaderMutation(Arc<crate::headers::Mutations>),
    /// Buffer: the limit; `None` switches it off.
    Buffer(Option<u32>),
    /// JWT: the requirement's name; `None` switches it off.
    JwtRequirement(Option<Arc<str>>),
    /// Of a type that only the filter knows.
    Typed(Typed),
}

impl PerFilterConfig {
    /// The configuration of a filter whose type is not known here.
    pub fn typed<T: Any + fmt::Debug + Send + Sync>(value: T) -> Self {
        Self::Typed(Typed {
            value: Arc::new(value),
            show: |value, f| value.downcast_ref::<T>().map_or(Ok(()), |value| value.fmt(f)),
        })
    }

    /// The configuration, if it has this type.
    pub fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        match self {
            Self::Typed(typed) => typed.value.clone().downcast().ok(),
            _ => None,
        }
    }
}

/// A value whose type is known to who made it and who reads it.
#[derive(Clone)]
pub struct Typed {
    value: Arc<dyn Any + Send + Sync>,
    show: fn(&(dyn Any + Send + Sync), &mut fmt::Formatter<'_>) -> fmt::Result,
}

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.show)(&*self.value, f)
    }
}

impl PerFilter {
    /// From pairs of filter name and configuration.
    pub fn new(pairs: Vec<(Arc<str>, PerFilterConfig)>) -> Self {
        Self(pairs.into())
    }

    /// The configuration of a filter.
    pub fn get(&self, filter: &str) -> Option<&PerFilterConfig> {
        self.0.iter().find(|(name, _)| **name == *filter).map(|(_, config)| config)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &PerFilterConfig)> {
        self.0.iter().map(|(name, config)| (&**name, config))
    }
}

impl VirtualHost {
    /// The virtual cluster of a request.
    pub fn virtual_cluster(&self, head: &RequestHead<'_>) -> Option<&VirtualCluster> {
        let takes = |group: &&VirtualCluster| group.headers.iter().all(|matcher| matcher.is_match(head));
        self.virtual_clusters.iter().find(takes)
    }

    /// Whether the request has to come by TLS and did not.
    fn must_redirect(&self, head: &RequestHead<'_>) -> bool {
        let internal = || head.headers.get("x-envoy-internal").is_some_and(|value| value == "true");
        let required = match self.require_tls {
            RequireTls::None => false,
            RequireTls::ExternalOnly => !internal(),
            RequireTls::All => true,
        };
        required && head.scheme != "https"
    }
}

impl Route {
    /// A route that sends every request to `https`.
    pub fn to_https() -> Self {
        Self {
            name: Arc::from(""),
            matching: RouteMatch::prefix("/"),
            action: Action::Redirect(Redirect {
                scheme: Some(Scheme::Https),
                host: None,
                port: None,
                path: None,
                status: http::StatusCode::MOVED_PERMANENTLY,
                strip_query: false,
                keep_port: true,
            }),
            request_headers: HeaderOps::default(),
            response_headers: HeaderOps::default(),
            decorator: None,
            tracing: None,
            request_body_buffer_limit: None,
            stat_name: Arc::from(""),
            per_filter: PerFilter::default(),
            metadata: None,
        }
    }
}

/// `VirtualHost.TlsRequirementType`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequireTls {
    /// Nothing.
    #[default]
    None,
    /// Requests from outside.
    ExternalOnly,
    /// Every request.
    All,
}

/// `Decorator`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decorator {
    /// The span's name.
    pub operation: Arc<str>,
    /// Whether the name goes upstream as `x-envoy-decorator-operation`.
    pub propagate: bool,
}

/// `Tracing` of a route.
#[derive(Clone, Debug)]
pub struct RouteTracing {
    /// Sampling of requests that a client forces.
    pub client_sampling: crate::fraction::Fraction,
    /// Sampling at random.
    pub random_sampling: crate::fraction::Fraction,
    /// Sampling after the other two.
    pub overall_sampling: crate::fraction::Fraction,
    /// Tags and names, where the route has its own.
    pub spans: Option<Arc<spans::RouteSpans>>,
}

/// What a look-up found.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    /// The virtual host.
    pub virtual_host: &'a Arc<VirtualHost>,
    /// The route in it; `None`: no route matches, which is answered by 404.
    pub route: Option<&'a Arc<Route>>,
}

impl RouteTable {
    /// The virtual host for the request's authority.
    pub fn virtual_host(&self, authority: &str) -> Option<&Arc<VirtualHost>> {
        let index = self.hosts.find(authority, self.ignore_port_in_host_matching)?;
        self.virtual_hosts.get(index)
    }

    /// The virtual host for a request. The only one that there is needs no header to be found.
    fn host_of(&self, head: &RequestHead<'_>) -> Option<&Arc<VirtualHost>> {
        let Some(header) = &self.host_header else { return self.virtual_host(head.authority) };
        if let Some(only) = self.hosts.only() {
            return self.virtual_hosts.get(only);
        }
        let host = head.first(header)?;
        self.virtual_host(std::str::from_utf8(&host).ok()?)
    }

    /// The virtual host and route for a request; `None` if no virtual host has its authority.
    pub fn find(&self, head: &RequestHead<'_>, context: &RouteContext<'_>) -> Option<Found<'_>> {
        let virtual_host = self.host_of(head)?;
        if virtual_host.must_redirect(head) {
            return Some(Found { virtual_host, route: virtual_host.tls_redirect.as_ref() });
        }
        let path = if self.ignore_path_parameters {
            matching::without_parameters(head.path_only())
        } else {
            head.path_only().into()
        };
        // A CONNECT has no path: only those take it that are for it.
        let pathless = head.method == "CONNECT";
        let route = virtual_host.routes.iter().find(|route| {
            (!pathless || route.matching.path == PathMatch::Connect)
                && route.matching.is_match(head, &path, context)
        });
        Some(Found { virtual_host, route })
    }

    /// The route that a leaf of the virtual host's tree holds for a request.
    pub fn find_in<'a>(
        &self,
        leaf: &'a MatchedRoutes,
        head: &RequestHead<'_>,
        context: &RouteContext<'_>,
    ) -> Option<&'a Arc<Route>> {
        let path = if self.ignore_path_parameters {
            matching::without_parameters(head.path_only())
        } else {
            head.path_only().into()
        };
        leaf.0.iter().find(|route| route.matching.is_match(head, &path, context))
    }

    /// The header operations on requests that go to a route, in the order in which they are carried out.
    pub fn request_header_ops<'a>(
        &'a self,
        virtual_host: &'a VirtualHost,
        route: &'a Route,
        cluster: Option<&'a WeightedCluster>,
    ) -> impl Iterator<Item = &'a HeaderOps> {
        self.ordered([
            cluster.map(|cluster| &cluster.request_headers),
            Some(&route.request_headers),
            Some(&virtual_host.request_headers),
            Some(&self.request_headers),
        ])
    }

    /// The header operations on responses, in the order in which they are carried out.
    pub fn response_header_ops<'a>(
        &'a self,
        virtual_host: &'a VirtualHost,
        route: &'a Route,
        cluster: Option<&'a WeightedCluster>,
    ) -> impl Iterator<Item = &'a HeaderOps> {
        self.ordered([
            cluster.map(|cluster| &cluster.response_headers),
            Some(&route.response_headers),
            Some(&virtual_host.response_headers),
            Some(&self.response_headers),
        ])
    }

    fn ordered<'a>(&self, mut levels: [Option<&'a HeaderOps>; 4]) -> impl Iterator<Item = &'a HeaderOps> {
        if self.most_specific_header_mutations_wins {
            // The weighted cluster's come first either way, as in Envoy.
            levels[1..].reverse();
        }
        levels.into_iter().flatten().filter(|ops| !ops.is_empty())
    }
}

/// The per-filter configuration that holds for a request: the most specific level that has one.
pub fn per_filter<'a>(
    filter: &str,
    table: &'a RouteTable,
    virtual_host: &'a VirtualHost,
    route: &'a Route,
    cluster: Option<&'a WeightedCluster>,
) -> Option<&'a PerFilterConfig> {
    cluster
        .and_then(|cluster| cluster.per_filter.get(filter))
        .or_else(|| route.per_filter.get(filter))
        .or_else(|| virtual_host.per_filter.get(filter))
        .or_else(|| table.per_filter.get(filter))
}

#[cfg(test)]
mod tests;
