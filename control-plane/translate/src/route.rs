//! Routes: which requests go to which cluster, and what happens to them on the way.

mod action;
mod domains;
mod matcher;
mod retry;
mod rule;
mod table;

use mesh_api::virtual_service::Retry;
use saild_model::{Mesh, ProxyType, ProxyView};
use xds_api::envoy::config::route::v3 as rds;

pub use rule::RuleInputs;

pub(crate) use rule::{Caller, rules_of};

use crate::resource::{Generated, Names};
use crate::{Cache, naming, pb};

/// What a route configuration is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RouteInputs {
    /// Its name.
    pub name: String,
    /// Its virtual hosts, whose domains differ.
    pub virtual_hosts: Vec<VirtualHostInputs>,
    /// What happens to requests for other hosts.
    pub otherwise: Otherwise,
}

/// A virtual host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VirtualHostInputs {
    /// Its name.
    pub name: String,
    /// The host names that it is for.
    pub domains: Vec<String>,
    /// Its rules, the first that matches decides.
    pub rules: Vec<RuleInputs>,
    /// Every request is sent to HTTPS.
    pub require_tls: bool,
}

/// What happens to requests that no virtual host is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Otherwise {
    /// They go where they wanted.
    Allow,
    /// They are refused: the host is not in the registry.
    Block,
    /// They go to this cluster.
    Proxy(String),
    /// There is no such host.
    NotFound,
}

/// What the route of an inbound port is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InboundRouteInputs {
    /// The cluster.
    pub cluster: String,
    /// The port of the service, as it is written in the virtual host's name.
    pub port: u16,
    /// What spans of it are called.
    pub operation: String,
    /// Requests that the workload closed the connection on are sent again.
    pub retry: bool,
    /// What MeshConfig says in place of that.
    pub retry_policy: Option<Retry>,
}

/// The route configurations of those names.
pub(crate) fn routes(mesh: &Mesh, proxy: &ProxyView, names: &Names, cache: &Cache) -> Generated {
    let mut out = Generated::default();
    let Names::Set(names) = names else { return out };
    for name in names {
        let inputs = match proxy.kind {
            ProxyType::Sidecar => table::sidecar(mesh, proxy, name),
            ProxyType::Router => crate::gateway::routes(mesh, proxy, name, &mut out.warnings),
        };
        match inputs {
            Some(inputs) => out.resources.push(cache.routes.get(name, inputs, route_configuration)),
            None => out.removed.push(name.clone()),
        }
    }
    out
}

/// The route configuration of these inputs.
pub fn route_configuration(inputs: &RouteInputs) -> rds::RouteConfiguration {
    let mut virtual_hosts: Vec<rds::VirtualHost> = inputs.virtual_hosts.iter().map(virtual_host).collect();
    // Hosts that nothing is known of are those that no other claims; a gateway without any says so of all.
    let claimed = inputs.virtual_hosts.iter().any(|host| host.domains.iter().any(|domain| domain == "*"));
    if !claimed {
        virtual_hosts.extend(other_hosts(&inputs.otherwise, virtual_hosts.is_empty()));
    }
    base(&inputs.name, virtual_hosts)
}

fn base(name: &str, virtual_hosts: Vec<rds::VirtualHost>) -> rds::RouteConfiguration {
    rds::RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        validate_clusters: pb::boolv(false),
        max_direct_response_body_size_bytes: pb::u32v(1024 * 1024),
        ignore_port_in_host_matching: true,
        ..Default::default()
    }
}

fn virtual_host(inputs: &VirtualHostInputs) -> rds::VirtualHost {
    let require_tls = if inputs.require_tls { rds::virtual_host::TlsRequirementType::All as i32 } else { 0 };
    rds::VirtualHost {
        name: inputs.name.clone(),
        domains: inputs.domains.clone(),
        routes: inputs.rules.iter().map(action::route).collect(),
        include_request_attempt_count: true,
        require_tls,
        ..Default::default()
    }
}

fn other_hosts(otherwise: &Otherwise, alone: bool) -> Option<rds::VirtualHost> {
    use rds::route::Action;
    let (name, action) = match otherwise {
        Otherwise::Allow => ("allow_any", Action::Route(action::to_cluster(naming::PASSTHROUGH))),
        Otherwise::Proxy(cluster) => ("allow_any", Action::Route(action::to_cluster(cluster))),
        Otherwise::Block => ("block_all", direct(502)),
        Otherwise::NotFound if alone => ("blackhole:0", direct(404)),
        Otherwise::NotFound => return None,
    };
    Some(rds::VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![rds::Route {
            name: name.to_owned(),
            r#match: Some(matcher::everything()),
            action: Some(action),
            ..Default::default()
        }],
        include_request_attempt_count: true,
        ..Default::default()
    })
}

fn direct(status: u32) -> rds::route::Action {
    rds::route::Action::DirectResponse(rds::DirectResponseAction { status, ..Default::default() })
}

/// The route configuration of an inbound port: everything goes to the workload.
pub(crate) fn inbound(inputs: &InboundRouteInputs) -> rds::RouteConfiguration {
    let mut route = action::to_cluster(&inputs.cluster);
    if inputs.retry {
        route.retry_policy = match &inputs.retry_policy {
            Some(policy) => retry::policy(Some(policy), None, false),
            None => Some(rds::RetryPolicy {
                retry_on: "reset-before-request".to_owned(),
                num_retries: pb::u32v(2),
                ..Default::default()
            }),
        };
    }
    let host = rds::VirtualHost {
        name: format!("inbound|http|{}", inputs.port),
        domains: vec!["*".to_owned()],
        routes: vec![rds::Route {
            name: "default".to_owned(),
            r#match: Some(matcher::everything()),
            decorator: Some(rds::Decorator { operation: inputs.operation.clone(), ..Default::default() }),
            action: Some(rds::route::Action::Route(route)),
            ..Default::default()
        }],
        ..Default::default()
    };
    let mut config = base(&inputs.cluster, vec![host]);
    config.ignore_port_in_host_matching = false;
    config
}

/// A route configuration that sends everything to one cluster that passes on.
pub(crate) fn passthrough(cluster: &str) -> rds::RouteConfiguration {
    inbound(&InboundRouteInputs {
        cluster: cluster.to_owned(),
        port: 0,
        operation: format!("{cluster}/*"),
        retry: false,
        retry_policy: None,
    })
}
