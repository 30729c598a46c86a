//! An immutable snapshot of the mesh, with its indexes. Snapshots share what did not change between them.

mod canonical;
pub mod config;
mod endpoints;
mod jwks;
mod rules;
mod service_entry;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use mesh_api::{MeshConfig, MeshObject};

pub use config::{Attachment, Config, Objects, is_gateway, is_selective, selects};
pub use endpoints::{EndpointChanges, EndpointList};
pub use jwks::{Jwks, JwksSource};
pub use rules::{Client, Rule};

use endpoints::EndpointIndex;

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
    pub workloads: Vec<Arc<Workload>>,
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
        self.endpoints.extend(service_entry::of_selected_entries(&self.services, &config));
        let found = service_entry::services(&config, &self.workloads);
        self.services.extend(found.services);
        self.endpoints.extend(found.endpoints);
        let services = ordered(self.services, &self.mesh_config);
        let mut by_hostname: HashMap<Arc<str>, Vec<usize>> = HashMap::new();
        for (index, service) in services.iter().enumerate() {
            by_hostname.entry(service.hostname.clone()).or_default().push(index);
        }
        let secret_key = |s: &Secret| (s.config_map, s.namespace.to_string(), s.name.to_string());
        let parts = Parts {
            rules: rules::Rules::new(
                &config.destination_rules,
                &self.mesh_config.default_destination_rule_export_to,
            ),
            domain,
            services,
            by_hostname,
            namespaces: self.namespaces.into_iter().map(|ns| (ns.name.clone(), ns)).collect(),
            secrets: self.secrets.into_iter().map(|s| (secret_key(&s), Arc::new(s))).collect(),
            objects: self.objects,
            config,
            settings: self.mesh_config,
            scopes: Mutex::default(),
        };
        Mesh {
            version: self.version,
            parts: Arc::new(parts),
            endpoints: Arc::new(EndpointIndex::new(self.endpoints)),
            workloads: Arc::new(Workloads::new(self.workloads)),
            jwks: Arc::default(),
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

/// The mesh at one moment. What seldom changes is shared between snapshots.
#[derive(Debug, Default)]
pub struct Mesh {
    version: u64,
    parts: Arc<Parts>,
    endpoints: Arc<EndpointIndex>,
    workloads: Arc<Workloads>,
    jwks: Arc<Jwks>,
}

/// What does not depend on endpoints.
#[derive(Debug, Default)]
struct Parts {
    domain: String,
    services: Vec<Arc<Service>>,
    by_hostname: HashMap<Arc<str>, Vec<usize>>,
    namespaces: HashMap<String, Namespace>,
    secrets: HashMap<(bool, String, String), Arc<Secret>>,
    objects: Vec<MeshObject>,
    config: Config,
    rules: rules::Rules,
    settings: Arc<MeshConfig>,
    /// Derived on demand, once a namespace and Sidecar: proxies of a namespace see the same.
    scopes: Mutex<HashMap<ScopeKey, Arc<Scope>>>,
}

#[derive(Debug, Default)]
struct Workloads {
    all: Vec<Arc<Workload>>,
    by_ip: HashMap<IpAddr, Arc<Workload>>,
}

impl Workloads {
    fn new(all: Vec<Arc<Workload>>) -> Self {
        let mut by_ip = HashMap::new();
        for workload in all.iter().filter(|w| !w.host_network) {
            for ip in &workload.addresses {
                by_ip.insert(*ip, workload.clone());
            }
        }
        Self { all, by_ip }
    }
}

/// Endpoints and pods that replace those of a snapshot.
#[derive(Debug, Default)]
pub struct EndpointUpdate {
    /// All endpoints of these services, by host name.
    pub services: BTreeMap<Arc<str>, Vec<Endpoint>>,
    /// All pods, if any differs.
    pub workloads: Option<Vec<Arc<Workload>>>,
    /// The number of the new snapshot.
    pub version: u64,
}

type ScopeKey = (String, Option<(String, String)>);

impl Mesh {
    /// Configuration in the form that translation reads.
    pub fn config(&self) -> &Config {
        &self.parts.config
    }

    /// Every object as it was written.
    pub fn objects(&self) -> &[MeshObject] {
        &self.parts.objects
    }

    /// MeshConfig.
    pub fn settings(&self) -> &Arc<MeshConfig> {
        &self.parts.settings
    }

    /// The same mesh with other JSON Web Key sets.
    pub fn with_jwks(&self, jwks: Arc<Jwks>) -> Self {
        Self {
            version: self.version,
            parts: self.parts.clone(),
            endpoints: self.endpoints.clone(),
            workloads: self.workloads.clone(),
            jwks,
        }
    }

    /// The JSON Web Key set of a source, if it could be fetched.
    pub fn jwks(&self, source: &JwksSource) -> Option<&str> {
        self.jwks.get(source).map(String::as_str)
    }

    /// The same mesh with other endpoints. Nothing where that takes a whole build: endpoints of a host may come from
    /// several objects, and ServiceEntries may have pods as endpoints.
    pub fn with_endpoints(&self, update: EndpointUpdate) -> Option<Self> {
        let config = &self.parts.config;
        let by_pods = || config.service_entries.all().iter().any(|o| o.spec.workload_selector.is_some());
        if update.workloads.is_some() && by_pods() {
            return None;
        }
        for host in update.services.keys() {
            let mut services = self.services_of_host(host);
            let (Some(service), None) = (services.next(), services.next()) else { return None };
            let entries = !service.selector.is_empty()
                && config.workload_entries.in_namespace(&service.namespace).next().is_some();
            if service.source != crate::Source::Kubernetes || entries {
                return None;
            }
        }
        let workloads = update.workloads.map(|all| Arc::new(Workloads::new(all)));
        Some(Self {
            version: update.version,
            parts: self.parts.clone(),
            endpoints: Arc::new(self.endpoints.with(update.services)),
            workloads: workloads.unwrap_or_else(|| self.workloads.clone()),
            jwks: self.jwks.clone(),
        })
    }

    /// What differs between the endpoints of another snapshot and this one.
    pub fn endpoint_changes(&self, before: &Self) -> EndpointChanges {
        if Arc::ptr_eq(&self.endpoints, &before.endpoints) {
            return EndpointChanges::default();
        }
        let mut changes = self.endpoints.changes(&before.endpoints);
        // Clients of a headless service choose among addresses themselves: they are part of listeners and names.
        let headless = |host: &&Arc<str>| {
            let mut services = self.services_of_host(host).chain(before.services_of_host(host));
            services.any(|service| service.resolution == crate::Resolution::Passthrough)
        };
        let more: Vec<Arc<str>> = changes.hosts.iter().filter(headless).cloned().collect();
        changes.reshaped.extend(more);
        changes
    }

    /// The namespace whose configuration is for the whole mesh.
    pub fn root_namespace(&self) -> &str {
        &self.parts.settings.root_namespace
    }

    /// What a proxy sees.
    pub fn scope(&self, proxy: &ProxyView) -> Arc<Scope> {
        let sidecar = match proxy.kind {
            crate::ProxyType::Sidecar => scope::sidecar_of(self, &proxy.namespace, &proxy.labels),
            crate::ProxyType::Router => None,
        };
        let origin = sidecar.as_ref().map(|s| (s.meta.namespace.clone(), s.meta.name.clone()));
        let key = (proxy.namespace.clone(), origin);
        let mut scopes = self.parts.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        scopes.entry(key).or_insert_with(|| Arc::new(Scope::new(self, &proxy.namespace, sidecar))).clone()
    }

    /// The rules for a service, seen from a client.
    pub fn destination_rule(&self, namespace: &str, labels: &Labels, service: &Service) -> Option<Arc<Rule>> {
        self.parts.rules.find(&Client { namespace, labels }, self.root_namespace(), service)
    }

    /// The number that tells this snapshot from others.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The domain of Kubernetes' services (`cluster.local`).
    pub fn domain(&self) -> &str {
        &self.parts.domain
    }

    /// Every service, ordered by host name, then age.
    pub fn services(&self) -> &[Arc<Service>] {
        &self.parts.services
    }

    /// The services of a host name, the oldest first: several ServiceEntries may share one.
    pub fn services_of_host(&self, hostname: &str) -> impl Iterator<Item = &Arc<Service>> {
        self.parts.by_hostname.get(hostname).into_iter().flatten().map(|index| &self.parts.services[*index])
    }

    /// Endpoints of a service's port. `namespace` is the service's, as a host name may be used in several.
    pub fn endpoints(&self, service: &Service, port_name: &str) -> EndpointList {
        let Some(list) = self.endpoints.of_port(&service.hostname, port_name) else {
            return EndpointList::default();
        };
        if list.iter().all(|e| e.service_namespace == service.namespace) {
            return list.clone();
        }
        Arc::new(list.iter().filter(|e| e.service_namespace == service.namespace).cloned().collect())
    }

    /// Every port name that a service has endpoints for.
    pub fn all_endpoints(&self, hostname: &str) -> impl Iterator<Item = &EndpointList> {
        self.endpoints.of_host(hostname)
    }

    /// Endpoints at an address: what a pod serves.
    pub fn endpoints_at(&self, ip: IpAddr) -> &[Arc<Endpoint>] {
        self.endpoints.at(ip)
    }

    /// Every pod.
    pub fn workloads(&self) -> &[Arc<Workload>] {
        &self.workloads.all
    }

    /// The pod with an address.
    pub fn workload_at(&self, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads.by_ip.get(&ip)
    }

    /// A namespace.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.parts.namespaces.get(name)
    }

    /// A Secret.
    pub fn secret(&self, namespace: &str, name: &str) -> Option<&Arc<Secret>> {
        self.parts.secrets.get(&(false, namespace.to_owned(), name.to_owned()))
    }

    /// A ConfigMap with certificates.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<&Arc<Secret>> {
        self.parts.secrets.get(&(true, namespace.to_owned(), name.to_owned()))
    }
}
