//! The rules of a virtual host, gathered from a VirtualService or made for a service without one.

use mesh_api::destination_rule::ConsistentHashKey;
use mesh_api::virtual_service::{Destination, HttpMatch, HttpRoute, Retry, RouteDestination, VirtualService};
use mesh_api::{Object, StringMatch};
use saild_model::{Labels, Mesh, ProxyView, Scope, Service};

use crate::cluster::Policy;
use crate::naming;

/// One rule: a match of one route of a VirtualService, with everything that it refers to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RuleInputs {
    /// The requests that it is for; all, if absent.
    pub matches: Option<HttpMatch>,
    /// What happens to them. Its own matches are not read.
    pub route: HttpRoute,
    /// The clusters of the route's destinations, in their order.
    pub clusters: Vec<String>,
    /// The clusters of its mirrors.
    pub mirrors: Vec<String>,
    /// What requests are told apart by, where equal ones go to the same endpoint.
    pub hash: Option<ConsistentHashKey>,
    /// The retries of the mesh.
    pub mesh_retries: Option<Retry>,
    /// `host:port`, for the names of spans.
    pub operation: String,
    /// The namespace and name of the VirtualService.
    pub origin: Option<(String, String)>,
    /// The port that requests come to.
    pub port: u16,
}

/// Who sends the requests, and through what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) mesh: &'a Mesh,
    pub(crate) scope: &'a Scope,
    pub(crate) proxy: &'a ProxyView,
    /// `mesh`, or the gateways of the server, as `namespace/name`.
    pub(crate) gateways: &'a [String],
    /// The port that requests come to.
    pub(crate) port: u16,
}

impl Caller<'_> {
    /// Whether conditions on the caller hold.
    fn is(&self, matches: &HttpMatch) -> bool {
        self.fits(&matches.gateways, matches.port, &matches.source_labels, &matches.source_namespace)
    }

    /// Whether conditions on the caller hold: those that HTTP, TLS and TCP matches have in common.
    pub(crate) fn fits(
        &self,
        gateways: &[String],
        port: Option<u16>,
        labels: &Labels,
        namespace: &str,
    ) -> bool {
        let through = gateways.is_empty() || gateways.iter().any(|g| self.gateways.contains(g));
        // Labels and namespace are a sidecar's: a gateway passes on the calls of others.
        let sidecar = self.proxy.kind == saild_model::ProxyType::Sidecar;
        let labelled =
            !sidecar || labels.iter().all(|(key, value)| self.proxy.labels.get(key) == Some(value));
        through
            && port.is_none_or(|port| port == self.port)
            && labelled
            && (namespace.is_empty() || namespace == self.proxy.namespace)
    }

    /// The cluster of a destination: its port, else the only one of the service, else the one that was asked for.
    pub(crate) fn cluster(&self, destination: &Destination) -> String {
        let service = self.service(&destination.host);
        let port = destination.port.unwrap_or_else(|| match service.map(|s| s.ports.as_slice()) {
            Some([only]) => only.number,
            _ => self.port,
        });
        naming::outbound(port, &destination.subset, &destination.host)
    }

    fn service(&self, host: &str) -> Option<&Service> {
        let found = self.scope.service(host).or_else(|| self.mesh.services_of_host(host).next());
        found.map(|service| &**service)
    }

    /// What requests to a destination are told apart by.
    fn hash(&self, destination: &Destination) -> Option<ConsistentHashKey> {
        Some(self.policy(destination).load_balancer?.consistent_hash?.key)
    }

    /// What applies to connections to a destination.
    pub(crate) fn policy(&self, destination: &Destination) -> Policy {
        let rule = self.service(&destination.host).and_then(|service| {
            self.mesh.destination_rule(&self.proxy.namespace, &self.proxy.labels, service)
        });
        let port = destination.port.unwrap_or(self.port);
        crate::cluster::policy_of(rule.as_deref(), &destination.subset, port, self.mesh)
    }

    /// The clusters of a TCP or TLS route, and their shares.
    pub(crate) fn shares(&self, routes: &[RouteDestination]) -> Vec<(String, u32)> {
        let mut clusters: Vec<(String, u32)> = routes
            .iter()
            .map(|route| (self.cluster(&route.destination), route.weight.unsigned_abs()))
            .collect();
        match clusters.as_mut_slice() {
            // A lone destination may leave its weight out.
            [(_, weight)] => *weight = 1,
            _ => clusters.retain(|(_, weight)| *weight > 0),
        }
        clusters
    }

    /// The rule of a service that no VirtualService is for.
    pub(crate) fn default_rule(&self, service: &Service, port: u16) -> RuleInputs {
        let destination =
            Destination { host: service.hostname.to_string(), subset: String::new(), port: Some(port) };
        RuleInputs {
            matches: None,
            route: HttpRoute::default(),
            clusters: vec![naming::outbound(port, "", &service.hostname)],
            mirrors: Vec::new(),
            hash: self.hash(&destination),
            mesh_retries: self.mesh.settings().default_http_retry_policy.clone(),
            operation: format!("{}:{port}", service.hostname),
            origin: None,
            port,
        }
    }
}

/// The rules of a VirtualService for this caller, up to the first that matches everything.
pub(crate) fn rules_of(object: &Object<VirtualService>, caller: &Caller<'_>) -> Vec<RuleInputs> {
    let mut out = Vec::new();
    for route in &object.spec.http {
        let applicable: Vec<Option<&HttpMatch>> = if route.r#match.is_empty() {
            vec![None]
        } else {
            route.r#match.iter().filter(|m| caller.is(m)).map(Some).collect()
        };
        for matches in applicable {
            let all = matches.is_none_or(matches_everything);
            out.push(rule(object, route, matches, caller));
            if all {
                return out;
            }
        }
    }
    out
}

fn rule(
    object: &Object<VirtualService>,
    route: &HttpRoute,
    matches: Option<&HttpMatch>,
    caller: &Caller<'_>,
) -> RuleInputs {
    let first = route.route.first().map(|r| &r.destination);
    let operation = first.map_or_else(String::new, |d| {
        let cluster = caller.cluster(d);
        naming::parse_outbound(&cluster)
            .map(|parts| format!("{}:{}", parts.host, parts.port))
            .unwrap_or_default()
    });
    let mut own = route.clone();
    own.r#match = Vec::new();
    RuleInputs {
        matches: matches.cloned(),
        clusters: route.route.iter().map(|r| caller.cluster(&r.destination)).collect(),
        mirrors: route.all_mirrors().map(|(destination, _)| caller.cluster(destination)).collect(),
        hash: first.and_then(|destination| caller.hash(destination)),
        mesh_retries: caller.mesh.settings().default_http_retry_policy.clone(),
        operation,
        origin: Some((object.meta.namespace.clone(), object.meta.name.clone())),
        port: caller.port,
        route: own,
    }
}

/// Whether nothing about a request is asked for: what was asked about the caller holds already.
fn matches_everything(matches: &HttpMatch) -> bool {
    let any_path = match &matches.uri {
        None | Some(StringMatch::Present) => true,
        Some(StringMatch::Prefix(prefix)) => prefix == "/",
        Some(_) => false,
    };
    any_path
        && matches.scheme.is_none()
        && matches.method.is_none()
        && matches.authority.is_none()
        && matches.headers.is_empty()
        && matches.without_headers.is_empty()
        && matches.query_params.is_empty()
}
