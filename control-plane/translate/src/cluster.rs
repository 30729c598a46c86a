//! Clusters: one for each port of each service and each of its subsets, one for each inbound port, and the fixed ones.

mod fixed;
mod inbound;
mod outbound;
mod policy;
mod transport;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use mesh_api::destination_rule::TcpKeepalive;
use saild_model::{
    Endpoint, Location, Mesh, Port, ProxyType, ProxyView, Resolution, Rule, Scope, Service, TlsMode,
};

pub use inbound::{InboundClusterInputs, InboundTarget, inbound};
pub use outbound::cluster;
pub use policy::Policy;

use crate::resource::NamedResource;
use crate::traits::Traits;
use crate::workload::Inbound;
use crate::{Cache, naming};

/// What an outbound cluster is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterInputs {
    /// The service.
    pub service: ServiceId,
    /// Its port.
    pub port: Port,
    /// The subset; empty for the whole service.
    pub subset: String,
    /// The name is written as a server name: the cluster of an AUTO_PASSTHROUGH gateway.
    pub sni_name: bool,
    /// What DestinationRule and mesh say.
    pub policy: Policy,
    /// The DestinationRule's namespace and name.
    pub rule: Option<(String, String)>,
    /// Whether the mesh's mutual TLS applies by itself.
    pub auto_tls: AutoTls,
    /// The names that the server's certificate may have.
    pub sans: Vec<String>,
    /// Endpoints of services that are resolved by DNS.
    pub dns: Vec<Arc<Endpoint>>,
    /// Settings of the mesh.
    pub mesh: MeshDefaults,
    /// The proxy's kind and abilities.
    pub traits: Traits,
}

/// What a cluster says of its service.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceId {
    /// The host name.
    pub hostname: Arc<str>,
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name of the object.
    pub name: Arc<str>,
    /// How endpoints are found by this proxy.
    pub resolution: Resolution,
    /// Whether it is part of the mesh.
    pub location: Location,
}

/// Whether connections are made in the mesh's mutual TLS without being told so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AutoTls {
    /// Never.
    Off,
    /// With endpoints that have a proxy.
    ByEndpoint,
    /// Always: each endpoint has a proxy, and the cluster cannot tell them apart.
    Always,
}

/// Settings of the mesh that clusters take over.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MeshDefaults {
    /// `connectTimeout`.
    pub connect_timeout: Duration,
    /// `dnsRefreshRate`.
    pub dns_refresh_rate: Duration,
    /// `tcpKeepalive`.
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// `h2UpgradePolicy: UPGRADE`.
    pub h2_upgrade: bool,
}

impl MeshDefaults {
    pub(crate) fn of(mesh: &Mesh) -> Self {
        let settings = mesh.settings();
        Self {
            connect_timeout: settings.connect_timeout,
            dns_refresh_rate: settings.dns_refresh_rate,
            tcp_keepalive: settings.tcp_keepalive.clone(),
            h2_upgrade: settings.h2_upgrade_policy == mesh_api::mesh_config::MeshH2UpgradePolicy::Upgrade,
        }
    }
}

/// Every cluster of a proxy.
pub(crate) fn clusters(mesh: &Mesh, proxy: &ProxyView, cache: &Cache) -> Vec<Arc<NamedResource>> {
    let scope = mesh.scope(proxy);
    let gather = Gather {
        mesh,
        proxy,
        traits: Traits::of(proxy),
        defaults: MeshDefaults::of(mesh),
        auto_passthrough: proxy.kind == ProxyType::Router && crate::gateway::auto_passthrough(mesh, proxy),
    };
    let mut out = Vec::new();
    for service in &scope.services {
        gather.service(service, cache, &mut out);
    }
    gather.providers(&scope, cache, &mut out);
    if proxy.kind == ProxyType::Sidecar {
        let inbound_ports = Inbound::of(mesh, proxy);
        for inputs in inbound::inputs(mesh, proxy, &inbound_ports, &gather.defaults) {
            let name = naming::inbound(inputs.port);
            out.push(cache.inbound_clusters.get(&name, inputs, inbound));
        }
    }
    out.extend(fixed::clusters(mesh, proxy));
    out
}

/// The settings of a service's port for a client: what translation of routes and listeners needs to know, too.
pub(crate) fn policy_of(rule: Option<&Rule>, subset: &str, port: u16, mesh: &Mesh) -> Policy {
    Policy::effective(rule, subset, port, mesh)
}

struct Gather<'a> {
    mesh: &'a Mesh,
    proxy: &'a ProxyView,
    traits: Traits,
    defaults: MeshDefaults,
    /// Clusters are needed under the names that other proxies write in TLS, too.
    auto_passthrough: bool,
}

impl Gather<'_> {
    fn service(&self, service: &Arc<Service>, cache: &Cache, out: &mut Vec<Arc<NamedResource>>) {
        let rule = self.mesh.destination_rule(&self.proxy.namespace, &self.proxy.labels, service);
        let subsets = rule.iter().flat_map(|rule| &rule.subsets).map(|subset| subset.name.as_str());
        for subset in [""].into_iter().chain(subsets) {
            for port in service.ports.iter().filter(|port| port.protocol != saild_model::Protocol::Udp) {
                let inputs = self.inputs(service, port, subset, rule.as_deref());
                if self.auto_passthrough {
                    let name = naming::outbound_sni(port.number, subset, &service.hostname);
                    let inputs = ClusterInputs { sni_name: true, auto_tls: AutoTls::Off, ..inputs.clone() };
                    out.push(cache.clusters.get(&name, inputs, cluster));
                }
                let name = naming::outbound(port.number, subset, &service.hostname);
                out.push(cache.clusters.get(&name, inputs, cluster));
            }
        }
    }

    fn inputs(&self, service: &Service, port: &Port, subset: &str, rule: Option<&Rule>) -> ClusterInputs {
        let policy = Policy::effective(rule, subset, port.number, self.mesh);
        let mut resolution = service.resolution;
        // A gateway has no original destination to pass on to.
        if self.proxy.kind == ProxyType::Router && service.is_headless() {
            resolution = Resolution::ClientSide;
        }
        let endpoints = self.mesh.endpoints(service, &port.name);
        let dns = matches!(resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        let auto = self.mesh.settings().enable_auto_mtls
            && policy.tls.is_none()
            && service.location == Location::Internal;
        let auto_tls = match (auto, resolution) {
            (false, _) => AutoTls::Off,
            (true, Resolution::Passthrough) => {
                let all = !endpoints.is_empty() && endpoints.iter().all(|e| self.accepts_tls(e));
                if all { AutoTls::Always } else { AutoTls::Off }
            }
            (true, _) => AutoTls::ByEndpoint,
        };
        ClusterInputs {
            service: ServiceId {
                hostname: service.hostname.clone(),
                namespace: service.namespace.clone(),
                name: service.name.clone(),
                resolution,
                location: service.location,
            },
            port: port.clone(),
            subset: subset.to_owned(),
            sni_name: false,
            rule: rule.map(|rule| rule.origin.clone()),
            auto_tls,
            sans: self.sans(service, &endpoints),
            dns: if dns {
                endpoints.iter().filter(|e| in_subset(e, rule, subset)).cloned().collect()
            } else {
                Vec::new()
            },
            policy,
            mesh: self.defaults.clone(),
            traits: self.traits,
        }
    }

    fn accepts_tls(&self, endpoint: &Endpoint) -> bool {
        endpoint.tls_mode == TlsMode::Istio
            && !crate::authn::disabled(self.mesh, &endpoint.namespace, &endpoint.labels, endpoint.port)
    }

    /// The SPIFFE ids of the endpoints, in the trust domain and its aliases, and what a ServiceEntry adds.
    fn sans(&self, service: &Service, endpoints: &[Arc<Endpoint>]) -> Vec<String> {
        let domains = crate::tls::trust_domains(self.mesh);
        let ids = endpoints.iter().flat_map(|e| domains.iter().filter_map(|domain| e.spiffe(domain)));
        let all: BTreeSet<String> = ids.chain(service.subject_alt_names.iter().cloned()).collect();
        all.into_iter().collect()
    }

    /// Clusters of collectors that MeshConfig names and the proxy's scope does not show.
    fn providers(&self, scope: &Scope, cache: &Cache, out: &mut Vec<Arc<NamedResource>>) {
        for host in crate::provider::hosts(self.mesh) {
            if scope.service(&host).is_some() {
                continue;
            }
            if let Some(service) = self.mesh.services_of_host(&host).next() {
                self.service(service, cache, out);
            }
        }
    }
}

/// Whether an endpoint belongs to a subset.
pub(crate) fn in_subset(endpoint: &Endpoint, rule: Option<&Rule>, subset: &str) -> bool {
    if subset.is_empty() {
        return true;
    }
    let found = rule.and_then(|rule| rule.subsets.iter().find(|s| s.name == subset));
    found.is_some_and(|s| s.labels.iter().all(|(key, value)| endpoint.labels.get(key) == Some(value)))
}
