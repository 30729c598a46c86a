//! Kubernetes' objects as the model sees them.
//!
//! What is derived is kept by the object it came from. A change recomputes only what was made from it, and is passed on
//! only where the result differs: a pod that becomes ready changes endpoints, a new annotation on it nothing.

mod endpoint;
mod pod;
mod secret;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service as KubeService};
use mesh_api::{MeshConfig, MeshObject};
use saild_model::mesh::EndpointUpdate;
use saild_model::{
    ChangeSet, ConfigKey, Endpoint, Locality, Mesh, MeshBuilder, Namespace, Secret, Service, Workload,
};

use crate::object::{Key, Object};
use crate::store::{Store, Touched};

/// What holds for all objects of a source.
#[derive(Debug, Clone)]
pub struct Options {
    /// The domain of services.
    pub domain: String,
    /// The name of the cluster.
    pub cluster: String,
    /// The network of pods that carry no label for it.
    pub network: String,
    /// Whether endpoints come from selectors and pods as well, as nobody else makes EndpointSlices.
    pub endpoints_from_pods: bool,
    /// MeshConfig where the ConfigMap of the mesh has none.
    pub mesh_config: Arc<MeshConfig>,
    /// The namespace of the control plane, where that ConfigMap is.
    pub system_namespace: String,
    /// The revision of this control plane: its ConfigMap is `istio-<revision>`, of the empty and the default one `istio`.
    pub revision: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            domain: "cluster.local".to_owned(),
            cluster: "Kubernetes".to_owned(),
            network: String::new(),
            endpoints_from_pods: true,
            mesh_config: Arc::default(),
            system_namespace: "istio-system".to_owned(),
            revision: String::new(),
        }
    }
}

impl Options {
    /// Whether a ConfigMap is the one with the mesh's settings.
    fn is_mesh_config(&self, key: &Key) -> bool {
        let own = match self.revision.as_str() {
            "" | "default" => key.name == "istio",
            revision => key.name.strip_prefix("istio-") == Some(revision),
        };
        key.kind == "ConfigMap" && key.namespace == self.system_namespace && own
    }
}

/// Namespace and name.
type Name = (String, String);

/// The derived collections.
#[derive(Debug)]
pub struct Adapter {
    options: Options,
    version: u64,
    services: BTreeMap<Name, Service>,
    endpoints: BTreeMap<Name, Vec<Endpoint>>,
    workloads: BTreeMap<Name, Arc<Workload>>,
    namespaces: BTreeMap<String, Namespace>,
    secrets: BTreeMap<Key, Secret>,
    configs: BTreeMap<Key, MeshObject>,
    mesh_config: Arc<MeshConfig>,
}

/// Services whose endpoints must be computed again.
#[derive(Debug, Default)]
struct Dirty {
    all: bool,
    services: BTreeSet<Name>,
}

impl Adapter {
    /// Nothing is derived yet.
    pub fn new(options: Options) -> Self {
        Self {
            mesh_config: options.mesh_config.clone(),
            options,
            version: 0,
            services: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            workloads: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
        }
    }

    /// Derives again what the touched objects are part of; says what differs.
    pub fn update(&mut self, store: &Store, touched: &[Touched]) -> ChangeSet {
        let mut changes = ChangeSet::default();
        let mut dirty = Dirty::default();
        for item in touched {
            self.update_one(store, item, &mut dirty, &mut changes);
        }
        if touched.iter().any(|t| t.key.kind == "Node") {
            self.update_all_pods(store, &mut changes);
            dirty.all = true;
        }
        self.update_endpoints(store, dirty, &mut changes);
        changes
    }

    /// The model of what is derived now.
    pub fn build(&mut self) -> Mesh {
        self.version += 1;
        MeshBuilder {
            services: self.services.values().cloned().collect(),
            endpoints: self.endpoints.values().flatten().cloned().collect(),
            workloads: self.workloads.values().cloned().collect(),
            namespaces: self.namespaces.values().cloned().collect(),
            secrets: self.secrets.values().cloned().collect(),
            objects: self.configs.values().cloned().collect(),
            mesh_config: self.mesh_config.clone(),
            domain: self.options.domain.clone(),
            version: self.version,
        }
        .build()
    }

    /// The model after a change, made from the one before where only pods and endpoints differ.
    pub fn build_from(&mut self, before: &Mesh, changes: &ChangeSet) -> Mesh {
        if !changes.only_endpoints() {
            return self.build();
        }
        let of_host = |host: &Arc<str>| {
            let service = before.services_of_host(host).next()?;
            let name = (service.namespace.to_string(), service.name.to_string());
            Some((host.clone(), self.endpoints.get(&name).cloned().unwrap_or_default()))
        };
        let Some(services) = changes.endpoints.iter().map(of_host).collect() else { return self.build() };
        let pods = !changes.configs.is_empty();
        let update = EndpointUpdate {
            services,
            workloads: pods.then(|| self.workloads.values().cloned().collect()),
            version: self.version + 1,
        };
        match before.with_endpoints(update) {
            Some(mesh) => {
                self.version += 1;
                mesh
            }
            None => self.build(),
        }
    }

    /// The settings of the mesh as of now.
    pub fn mesh_config(&self) -> &Arc<MeshConfig> {
        &self.mesh_config
    }

    /// Takes the mesh's settings from their ConfigMap. Broken ones leave those before.
    fn update_mesh_config(&mut self, key: &Key, now: Option<&Object>, changes: &mut ChangeSet) {
        let text = match now {
            Some(Object::ConfigMap(map)) => mesh_text(map),
            _ => None,
        };
        let config = match text.map(MeshConfig::from_yaml) {
            None => self.options.mesh_config.clone(),
            Some(Ok(config)) => Arc::new(config),
            Some(Err(error)) => {
                tracing::error!(object = %key, "{error}; the settings before stay");
                return;
            }
        };
        if config != self.mesh_config {
            self.mesh_config = config;
            changes.full = true;
        }
    }

    fn update_one(&mut self, store: &Store, item: &Touched, dirty: &mut Dirty, changes: &mut ChangeSet) {
        let key = &item.key;
        let now = store.get_key(key);
        let name = (key.namespace.clone(), key.name.clone());
        let differs = match key.kind {
            "Namespace" => {
                let namespace = now.and_then(|o| match o {
                    Object::Namespace(ns) => Some(Namespace {
                        name: key.name.clone(),
                        labels: ns.metadata.labels.clone().unwrap_or_default(),
                    }),
                    _ => None,
                });
                replace(&mut self.namespaces, key.name.clone(), namespace)
            }
            "Service" => {
                dirty.services.insert(name.clone());
                let service = as_service(now).map(|s| service::adapt(s, &self.options));
                replace(&mut self.services, name, service)
            }
            "Pod" => {
                self.mark_services_of_pod(store, as_pod(item.before.as_ref()), dirty);
                self.mark_services_of_pod(store, as_pod(now), dirty);
                self.update_pod(store, name, now)
            }
            "EndpointSlice" => {
                for slice in [item.before.as_ref(), now].into_iter().flatten() {
                    dirty.services.extend(endpoint::service_of_slice(slice));
                }
                false
            }
            "Secret" | "ConfigMap" => {
                if self.options.is_mesh_config(key) {
                    self.update_mesh_config(key, now, changes);
                }
                let secret = now.and_then(secret::adapt);
                replace(&mut self.secrets, key.clone(), secret)
            }
            "Node" | "ServiceAccount" => false,
            _ => {
                let config =
                    now.and_then(|o| if let Object::Mesh(config) = o { Some(config.clone()) } else { None });
                replace(&mut self.configs, key.clone(), config)
            }
        };
        if differs {
            changes.configs.insert(ConfigKey::new(key.kind, &key.namespace, &key.name));
        }
    }

    fn update_pod(&mut self, store: &Store, name: Name, now: Option<&Object>) -> bool {
        let workload = as_pod(now).and_then(|p| pod::adapt(p, locality(store, p), &self.options));
        replace(&mut self.workloads, name, workload.map(Arc::new))
    }

    /// A node's labels are the locality of its pods.
    fn update_all_pods(&mut self, store: &Store, changes: &mut ChangeSet) {
        for object in store.of_kind("Pod") {
            let key = object.key();
            if self.update_pod(store, (key.namespace.clone(), key.name.clone()), Some(object)) {
                changes.configs.insert(ConfigKey::new(key.kind, &key.namespace, &key.name));
            }
        }
    }

    fn mark_services_of_pod(&self, store: &Store, pod: Option<&Pod>, dirty: &mut Dirty) {
        let Some(pod) = pod else { return };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        for service in store.in_namespace("Service", namespace).filter_map(|o| as_service(Some(o))) {
            if endpoint::selects(service, pod) {
                dirty
                    .services
                    .insert((namespace.to_owned(), service.metadata.name.clone().unwrap_or_default()));
            }
        }
        // An EndpointSlice may speak of a pod that no selector finds.
        for slice in store.in_namespace("EndpointSlice", namespace) {
            dirty.services.extend(endpoint::service_of_slice(slice));
        }
    }

    fn update_endpoints(&mut self, store: &Store, dirty: Dirty, changes: &mut ChangeSet) {
        let names: BTreeSet<Name> = if dirty.all {
            self.services.keys().chain(self.endpoints.keys()).cloned().collect()
        } else {
            dirty.services
        };
        for name in names {
            let service = self.services.get(&name);
            let object = as_service(store.get("Service", &name.0, &name.1));
            let endpoints = match (service, object) {
                (Some(service), Some(object)) => {
                    let lookup =
                        endpoint::Lookup { store, workloads: &self.workloads, options: &self.options };
                    lookup.endpoints(service, object)
                }
                _ => Vec::new(),
            };
            let before = self.endpoints.get(&name);
            if before.map(Vec::as_slice).unwrap_or_default() == endpoints {
                continue;
            }
            let host = before.into_iter().flatten().chain(&endpoints).map(|e| e.service.clone()).next();
            changes.endpoints.extend(host);
            if endpoints.is_empty() {
                self.endpoints.remove(&name);
            } else {
                self.endpoints.insert(name, endpoints);
            }
        }
    }
}

/// Puts or removes a value; whether that made a difference.
fn replace<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) -> bool {
    match value {
        None => map.remove(&key).is_some(),
        Some(value) if map.get(&key) == Some(&value) => false,
        Some(value) => {
            map.insert(key, value);
            true
        }
    }
}

/// The settings within the ConfigMap of the mesh.
fn mesh_text(map: &ConfigMap) -> Option<&str> {
    map.data.as_ref()?.get("mesh").map(String::as_str)
}

fn as_service(object: Option<&Object>) -> Option<&Arc<KubeService>> {
    match object {
        Some(Object::Service(service)) => Some(service),
        _ => None,
    }
}

fn as_pod(object: Option<&Object>) -> Option<&Pod> {
    match object {
        Some(Object::Pod(pod)) => Some(pod),
        _ => None,
    }
}

/// The locality of a pod: its own label, else its node's.
fn locality(store: &Store, pod: &Pod) -> Locality {
    let labels = pod.metadata.labels.as_ref();
    if let Some(text) = labels.and_then(|l| l.get(pod::LOCALITY_LABEL)) {
        // Labels cannot hold slashes.
        return Locality::parse(&if text.contains('/') { text.clone() } else { text.replacen('.', "/", 2) });
    }
    let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref());
    let Some(Object::Node(node)) = node.and_then(|name| store.get("Node", "", name)) else {
        return Locality::default();
    };
    node_locality(node)
}

fn node_locality(node: &Node) -> Locality {
    let label =
        |name: &str| node.metadata.labels.as_ref().and_then(|l| l.get(name)).cloned().unwrap_or_default();
    Locality {
        region: label("topology.kubernetes.io/region"),
        zone: label("topology.kubernetes.io/zone"),
        subzone: label("topology.istio.io/subzone"),
    }
}
