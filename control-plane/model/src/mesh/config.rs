//! Users' configuration, by kind and namespace, the oldest object first.

use std::sync::Arc;

use hashbrown::HashMap;
use mesh_api::authorization_policy::AuthorizationPolicy;
use mesh_api::destination_rule::DestinationRule;
use mesh_api::envoy_filter::EnvoyFilter;
use mesh_api::gateway::Gateway;
use mesh_api::peer_authentication::PeerAuthentication;
use mesh_api::request_authentication::RequestAuthentication;
use mesh_api::service_entry::ServiceEntry;
use mesh_api::sidecar::Sidecar;
use mesh_api::telemetry::Telemetry;
use mesh_api::virtual_service::VirtualService;
use mesh_api::wasm_plugin::WasmPlugin;
use mesh_api::workload_entry::WorkloadEntry;
use mesh_api::{MeshObject, Object, ObjectMeta, PolicyTargetReference, WorkloadSelector};

use crate::{Labels, ProxyView};

/// The objects of one kind.
#[derive(Debug)]
pub struct Objects<T> {
    all: Vec<Arc<Object<T>>>,
    by_namespace: HashMap<String, Vec<usize>>,
}

impl<T> Default for Objects<T> {
    fn default() -> Self {
        Self { all: Vec::new(), by_namespace: HashMap::new() }
    }
}

impl<T> Objects<T> {
    pub(super) fn new(mut all: Vec<Arc<Object<T>>>) -> Self {
        all.sort_by(|a, b| age(&a.meta).cmp(&age(&b.meta)));
        let mut by_namespace: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, object) in all.iter().enumerate() {
            by_namespace.entry_ref(&object.meta.namespace).or_default().push(index);
        }
        Self { all, by_namespace }
    }

    /// All of them.
    pub fn all(&self) -> &[Arc<Object<T>>] {
        &self.all
    }

    /// Those of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<Object<T>>> {
        self.by_namespace.get(namespace).into_iter().flatten().map(|index| &self.all[*index])
    }

    /// The one of that name.
    pub fn find(&self, namespace: &str, name: &str) -> Option<&Arc<Object<T>>> {
        self.in_namespace(namespace).find(|object| object.meta.name == name)
    }
}

/// Orders objects: by creation, then by name. What has no time was not seen by a server yet, and is the youngest.
fn age(meta: &ObjectMeta) -> (bool, i64, &str, &str) {
    let created = meta.creation_timestamp.map(|t| t.as_second());
    (created.is_none(), created.unwrap_or_default(), &meta.name, &meta.namespace)
}

/// Whether an object with this selector is for a workload with these labels. No selector: for all.
pub fn selects(selector: Option<&WorkloadSelector>, labels: &Labels) -> bool {
    selector.is_none_or(|selector| selector.matches(labels))
}

/// The label that names a pod's Gateway of the Kubernetes Gateway API.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// What a policy is attached to.
#[derive(Debug, Clone, Copy)]
pub struct Attachment<'a> {
    /// Workloads by label; none for all.
    pub selector: Option<&'a WorkloadSelector>,
    /// The deprecated way to give one target.
    pub target_ref: Option<&'a PolicyTargetReference>,
    /// Targets.
    pub target_refs: &'a [PolicyTargetReference],
}

impl<'a> Attachment<'a> {
    /// Every target.
    pub fn targets(&self) -> impl Iterator<Item = &'a PolicyTargetReference> + use<'a> {
        self.target_ref.into_iter().chain(self.target_refs)
    }

    /// Whether it is for some workloads of its namespace only.
    pub fn is_selective(&self) -> bool {
        is_selective(self.selector) || self.targets().next().is_some()
    }

    /// Whether a policy of a namespace is for a proxy. A Gateway is targeted by its proxies' own namespace; Services and
    /// ServiceEntries are targets of waypoints.
    pub fn is_for(&self, namespace: &str, proxy: &ProxyView) -> bool {
        if self.targets().next().is_none() {
            return selects(self.selector, &proxy.labels);
        }
        let Some(gateway) = proxy.labels.get(GATEWAY_NAME) else { return false };
        let named = |target: &PolicyTargetReference| is_gateway(target) && target.name == *gateway;
        namespace == proxy.namespace && self.targets().any(named)
    }
}

/// Whether a target is a Gateway of the Kubernetes Gateway API.
pub fn is_gateway(target: &PolicyTargetReference) -> bool {
    target.group == "gateway.networking.k8s.io" && target.kind == "Gateway"
}

macro_rules! attached {
    ($($kind:ty),*) => { $(
        impl<'a> From<&'a $kind> for Attachment<'a> {
            fn from(spec: &'a $kind) -> Self {
                Self {
                    selector: spec.selector.as_ref(),
                    target_ref: spec.target_ref.as_ref(),
                    target_refs: &spec.target_refs,
                }
            }
        }
    )* };
}

attached!(AuthorizationPolicy, RequestAuthentication, Telemetry, WasmPlugin);

impl<'a> From<&'a EnvoyFilter> for Attachment<'a> {
    fn from(spec: &'a EnvoyFilter) -> Self {
        Self { selector: spec.workload_selector.as_ref(), target_ref: None, target_refs: &spec.target_refs }
    }
}

/// Whether a selector says anything.
pub fn is_selective(selector: Option<&WorkloadSelector>) -> bool {
    selector.is_some_and(|selector| !selector.match_labels.is_empty())
}

/// The configuration of the mesh. VirtualServices have their hosts completed and their delegates merged in;
/// DestinationRules have their host completed.
#[derive(Debug, Default)]
#[allow(missing_docs, reason = "field names are the kinds")]
pub struct Config {
    pub virtual_services: Objects<VirtualService>,
    pub destination_rules: Objects<DestinationRule>,
    pub gateways: Objects<Gateway>,
    pub service_entries: Objects<ServiceEntry>,
    pub sidecars: Objects<Sidecar>,
    pub workload_entries: Objects<WorkloadEntry>,
    pub envoy_filters: Objects<EnvoyFilter>,
    pub peer_authentications: Objects<PeerAuthentication>,
    pub request_authentications: Objects<RequestAuthentication>,
    pub authorization_policies: Objects<AuthorizationPolicy>,
    pub telemetries: Objects<Telemetry>,
    pub wasm_plugins: Objects<WasmPlugin>,
}

impl Config {
    pub(super) fn new(objects: &[MeshObject], domain: &str) -> Self {
        let mut lists = Lists::default();
        for object in objects {
            lists.add(object.clone());
        }
        let rules =
            lists.destination_rules.into_iter().map(|o| super::canonical::destination_rule(o, domain));
        Self {
            virtual_services: Objects::new(super::canonical::virtual_services(
                lists.virtual_services,
                domain,
            )),
            destination_rules: Objects::new(rules.collect()),
            gateways: Objects::new(lists.gateways),
            service_entries: Objects::new(lists.service_entries),
            sidecars: Objects::new(lists.sidecars),
            workload_entries: Objects::new(lists.workload_entries),
            envoy_filters: Objects::new(lists.envoy_filters),
            peer_authentications: Objects::new(lists.peer_authentications),
            request_authentications: Objects::new(lists.request_authentications),
            authorization_policies: Objects::new(lists.authorization_policies),
            telemetries: Objects::new(lists.telemetries),
            wasm_plugins: Objects::new(lists.wasm_plugins),
        }
    }
}

#[derive(Default)]
struct Lists {
    virtual_services: Vec<Arc<Object<VirtualService>>>,
    destination_rules: Vec<Arc<Object<DestinationRule>>>,
    gateways: Vec<Arc<Object<Gateway>>>,
    service_entries: Vec<Arc<Object<ServiceEntry>>>,
    sidecars: Vec<Arc<Object<Sidecar>>>,
    workload_entries: Vec<Arc<Object<WorkloadEntry>>>,
    envoy_filters: Vec<Arc<Object<EnvoyFilter>>>,
    peer_authentications: Vec<Arc<Object<PeerAuthentication>>>,
    request_authentications: Vec<Arc<Object<RequestAuthentication>>>,
    authorization_policies: Vec<Arc<Object<AuthorizationPolicy>>>,
    telemetries: Vec<Arc<Object<Telemetry>>>,
    wasm_plugins: Vec<Arc<Object<WasmPlugin>>>,
}

impl Lists {
    fn add(&mut self, object: MeshObject) {
        match object {
            MeshObject::VirtualService(o) => self.virtual_services.push(o),
            MeshObject::DestinationRule(o) => self.destination_rules.push(o),
            MeshObject::Gateway(o) => self.gateways.push(o),
            MeshObject::ServiceEntry(o) => self.service_entries.push(o),
            MeshObject::Sidecar(o) => self.sidecars.push(o),
            MeshObject::WorkloadEntry(o) => self.workload_entries.push(o),
            MeshObject::EnvoyFilter(o) => self.envoy_filters.push(o),
            MeshObject::PeerAuthentication(o) => self.peer_authentications.push(o),
            MeshObject::RequestAuthentication(o) => self.request_authentications.push(o),
            MeshObject::AuthorizationPolicy(o) => self.authorization_policies.push(o),
            MeshObject::Telemetry(o) => self.telemetries.push(o),
            MeshObject::WasmPlugin(o) => self.wasm_plugins.push(o),
            // The injector reads these two; no proxy's resources depend on them.
            MeshObject::WorkloadGroup(_) | MeshObject::ProxyConfig(_) => {}
        }
    }
}
