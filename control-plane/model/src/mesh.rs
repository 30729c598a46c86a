//! An immutable snapshot of the mesh, with its indexes.

mod canonical;
pub mod config;
mod rules;
mod service_entry;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use mesh_api::{MeshConfig, MeshObject};

pub use config::{Config, Objects, is_selective, selects};
pub use rules::{Client, Rule};

use crate::scope::{self, Scope};
use crate::{Endpoint, ExportTo, Labels, Namespace, ProxyView, Secret, Service, Workload};

/// What a registry found, before it is indexed. Fill the vectors, then [`build`](Self::build).
#[derive(Debug, Clone, Default)]
pub struct MeshBuilder {
    /// Kubernetes Services and what other registries know as such. Not those of ServiceEntries: the builder makes them.
    pub services: Vec<Service>,
    /// Their endpoints, those that are not ready included.
    pub endpoints: Vec<Endpoint>,
    /// Pods.
    pub workloads: Vec<Workload>,
    /// Namespaces.
    pub namespaces: Vec<Namespace>,
    /// Secrets and ConfigMaps that may hold gateways' certificates.
    pub secrets: Vec<Secret>,
    /// Every object of Istio's kinds, as it was written.
    pub objects: Vec<MeshObject>,
    /// MeshConfig.
    pub mesh_config: Arc<MeshConfig>,
    /// The domain of Kubernetes' services; empty stands for `cluster.local`.
    pub domain: String,
    /// A number that differs between snapshots.
    pub version: u64,
}

impl MeshBuilder {
    /// Indexes what was found.
    pub fn build(mut self) -> Mesh {
        let domain = if self.domain.is_empty() { "cluster.local".to_owned() } else { self.domain };
        let config = Config::new(&self.objects, &domain);
        let workloads: Vec<Arc<Workload>> = self.workloads.into_iter().map(Arc::new).collect();
        self.endpoints.extend(service_entry::of_selected_entries(&self.services, &config));
        let found = service_entry::services(&config, &workloads);
        self.services.extend(found.services);
        self.endpoints.extend(found.endpoints);
        let services = ordered(self.services, &self.mesh_config);
        let mut by_hostname: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
        for (index, service) in services.iter().enumerate() {
            by_hostname.entry(service.hostname.clone()).or_default().push(index);
        }
        let mut workloads_by_ip = HashMap::new();
        for workload in workloads.iter().filter(|w| !w.host_network) {
            for ip in &workload.addresses {
                workloads_by_ip.insert(*ip, workload.clone());
            }
        }
        let secret_key = |s: &Secret| (s.config_map, s.namespace.to_string(), s.name.to_string());
        Mesh {
            version: self.version,
            rules: rules::Rules::new(
                &config.destination_rules,
                &self.mesh_config.default_destination_rule_export_to,
            ),
            domain,
            services,
            by_hostname,
            endpoints: EndpointIndex::new(self.endpoints),
            workloads,
            workloads_by_ip,
            namespaces: self.namespaces.into_iter().map(|ns| (ns.name.clone(), ns)).collect(),
            secrets: self.secrets.into_iter().map(|s| (secret_key(&s), Arc::new(s))).collect(),
            objects: self.objects,
            config,
            settings: self.mesh_config,
            jwks: BTreeMap::new(),
            scopes: Mutex::default(),
        }
    }
}

/// Services by host name and age: the order is part of the output, and must not depend on the registry's.
fn ordered(services: Vec<Service>, settings: &MeshConfig) -> Vec<Arc<Service>> {
    let default: Vec<ExportTo> =
        settings.default_service_export_to.iter().map(|e| ExportTo::parse(e)).collect();
    let exported = services.into_iter().map(|mut service| {
        if service.export_to.is_empty() {
            service.export_to.clone_from(&default);
        }
        Arc::new(service)
    });
    let mut services: Vec<Arc<Service>> = exported.collect();
    services.sort_by(|a, b| {
        (&a.hostname, a.created, &a.namespace, &a.name).cmp(&(&b.hostname, b.created, &b.namespace, &b.name))
    });
    services
}

/// Endpoints of one port of one service, in the order of their addresses.
pub type EndpointList = Arc<Vec<Arc<Endpoint>>>;

#[derive(Debug, Default)]
struct EndpointIndex {
    by_service: HashMap<Arc<str>, Vec<(Arc<str>, EndpointList)>>,
    by_ip: HashMap<IpAddr, Vec<Arc<Endpoint>>>,
}

impl EndpointIndex {
    fn new(endpoints: Vec<Endpoint>) -> Self {
        let mut endpoints: Vec<Arc<Endpoint>> = endpoints.into_iter().map(Arc::new).collect();
        endpoints.sort_by(|a, b| {
            (&a.service, &a.service_port_name, &a.address, a.port).cmp(&(
                &b.service,
                &b.service_port_name,
                &b.address,
                b.port,
            ))
        });
        let mut index = Self::default();
        for group in
            endpoints.chunk_by(|a, b| a.service == b.service && a.service_port_name == b.service_port_name)
        {
            let Some(first) = group.first() else { continue };
            index
                .by_service
                .entry(first.service.clone())
                .or_default()
                .push((first.service_port_name.clone(), Arc::new(group.to_vec())));
        }
        for endpoint in &endpoints {
            if let Some(ip) = endpoint.address.ip() {
                index.by_ip.entry(ip).or_default().push(endpoint.clone());
            }
        }
        index
    }
}

/// The mesh at one moment.
#[derive(Debug, Default)]
pub struct Mesh {
    version: u64,
    domain: String,
    services: Vec<Arc<Service>>,
    by_hostname: HashMap<Arc<str>, Vec<usize>>,
    endpoints: EndpointIndex,
    workloads: Vec<Arc<Workload>>,
    workloads_by_ip: HashMap<IpAddr, Arc<Workload>>,
    namespaces: HashMap<String, Namespace>,
    secrets: HashMap<(bool, String, String), Arc<Secret>>,
    objects: Vec<MeshObject>,
    config: Config,
    rules: rules::Rules,
    settings: Arc<MeshConfig>,
    jwks: BTreeMap<String, String>,
    /// Derived on demand, once a namespace and Sidecar: proxies of a namespace see the same.
    scopes: Mutex<HashMap<ScopeKey, Arc<Scope>>>,
}

type ScopeKey = (String, Option<(String, String)>);

impl Mesh {
    /// Configuration in the form that translation reads.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Every object as it was written.
    pub fn objects(&self) -> &[MeshObject] {
        &self.objects
    }

    /// MeshConfig.
    pub fn settings(&self) -> &Arc<MeshConfig> {
        &self.settings
    }

    /// The same mesh with JSON Web Key sets, by the URI they were fetched from.
    pub fn with_jwks(mut self, jwks: BTreeMap<String, String>) -> Self {
        self.jwks = jwks;
        self
    }

    /// The JSON Web Key set of a URI, if it could be fetched.
    pub fn jwks(&self, uri: &str) -> Option<&str> {
        self.jwks.get(uri).map(String::as_str)
    }

    /// The namespace whose configuration is for the whole mesh.
    pub fn root_namespace(&self) -> &str {
        &self.settings.root_namespace
    }

    /// What a proxy sees.
    pub fn scope(&self, proxy: &ProxyView) -> Arc<Scope> {
        let sidecar = match proxy.kind {
            crate::ProxyType::Sidecar => scope::sidecar_of(self, &proxy.namespace, &proxy.labels),
            crate::ProxyType::Router => None,
        };
        let origin = sidecar.as_ref().map(|s| (s.meta.namespace.clone(), s.meta.name.clone()));
        let key = (proxy.namespace.clone(), origin);
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.entry(key).or_insert_with(|| Arc::new(Scope::new(self, &proxy.namespace, sidecar))).clone()
    }

    /// The rules for a service, seen from a client.
    pub fn destination_rule(&self, namespace: &str, labels: &Labels, service: &Service) -> Option<Arc<Rule>> {
        self.rules.find(&Client { namespace, labels }, self.root_namespace(), service)
    }

    /// The number that tells this snapshot from others.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The domain of Kubernetes' services (`cluster.local`).
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Every service, ordered by host name, then age.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.services
    }

    /// The services of a host name, the oldest first: several ServiceEntries may share one.
    pub fn services_of_host(&self, hostname: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.by_hostname.get(hostname).into_iter().flatten().map(|index| &self.services[*index])
    }

    /// Endpoints of a service's port. `namespace` is the service's, as a host name may be used in several.
    pub fn endpoints(&self, service: &Service, port_name: &str) -> EndpointList {
        let Some(list) = self
            .endpoints
            .by_service
            .get(&service.hostname)
            .and_then(|ports| ports.iter().find(|(name, _)| &**name == port_name))
            .map(|(_, list)| list)
        else {
            return EndpointList::default();
        };
        if list.iter().all(|e| e.service_namespace == service.namespace) {
            return list.clone();
        }
        Arc::new(list.iter().filter(|e| e.service_namespace == service.namespace).cloned().collect())
    }

    /// Every port name that a service has endpoints for.
    pub fn all_endpoints(&self, hostname: &str) -> impl Iterator<Item = &EndpointList> {
        self.endpoints.by_service.get(hostname).into_iter().flatten().map(|(_, list)| list)
    }

    /// Endpoints at an address: what a pod serves.
    pub fn endpoints_at(&self, ip: IpAddr) -> &[Arc<Endpoint>] {
        self.endpoints.by_ip.get(&ip).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every pod.
    pub fn workloads(&self) -> &[Arc<Workload>] {
        &self.workloads
    }

    /// The pod with an address.
    pub fn workload_at(&self, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads_by_ip.get(&ip)
    }

    /// A namespace.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// A Secret.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&Arc<Secret>> {
        self.secrets.get(&(false, namespace.to_owned(), name.to_owned()))
    }

    /// A ConfigMap with certificates.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<&Arc<Secret>> {
        self.secrets.get(&(true, namespace.to_owned(), name.to_owned()))
    }
}
