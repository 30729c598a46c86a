//! Endpoints: from a Service's selector and the pods it selects, and from EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service as KubeService};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};
use saild_model::{
    Address, Endpoint, Health, Labels, Port, Resolution, Service, TargetPort, TlsMode, Workload,
};

use super::{Name, Options, as_pod, pod};
use crate::object::Object;
use crate::store::Store;

const SERVICE_OF_SLICE: &str = "kubernetes.io/service-name";

/// What endpoints are found in.
pub(super) struct Lookup<'a> {
    pub(super) store: &'a Store,
    pub(super) workloads: &'a BTreeMap<Name, Arc<Workload>>,
    pub(super) options: &'a Options,
}

/// Whether a service's selector selects a pod.
pub(super) fn selects(service: &KubeService, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref());
    let empty = BTreeMap::new();
    let labels = pod.metadata.labels.as_ref().unwrap_or(&empty);
    selector.is_some_and(|s| !s.is_empty() && s.iter().all(|(key, value)| labels.get(key) == Some(value)))
}

/// The service that an EndpointSlice belongs to.
pub(super) fn service_of_slice(object: &Object) -> Option<Name> {
    let Object::EndpointSlice(slice) = object else { return None };
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_OF_SLICE)?;
    Some((slice.metadata.namespace.clone().unwrap_or_default(), service.clone()))
}

impl Lookup<'_> {
    /// All endpoints of a service, in a fixed order.
    pub(super) fn endpoints(&self, service: &Service, object: &KubeService) -> Vec<Endpoint> {
        let spec = object.spec.as_ref();
        let mut found = Vec::new();
        if let Some(name) = &service.external_name {
            for port in &service.ports {
                found.push(endpoint(service, port, Address::parse(name), port.number));
            }
            return found;
        }
        self.add_slices(service, &mut found);
        if self.options.endpoints_from_pods {
            let publish_not_ready = spec.and_then(|s| s.publish_not_ready_addresses).unwrap_or_default();
            self.add_pods(service, object, publish_not_ready, &mut found);
        }
        let mut seen = BTreeSet::new();
        found.retain(|e| seen.insert((e.service_port_name.clone(), e.address.clone(), e.port)));
        found.sort_by(|a, b| {
            (&a.service_port_name, &a.address, a.port).cmp(&(&b.service_port_name, &b.address, b.port))
        });
        found
    }

    fn add_pods(
        &self,
        service: &Service,
        object: &KubeService,
        publish_not_ready: bool,
        found: &mut Vec<Endpoint>,
    ) {
        let pods = self.store.in_namespace("Pod", &service.namespace).filter_map(|o| as_pod(Some(o)));
        for pod in pods.filter(|p| selects(object, p)) {
            let Some(workload) = self.workload(pod) else { continue };
            for port in &service.ports {
                let Some(number) = target_port(port, pod) else { continue };
                let health = pod::health(pod, publish_not_ready);
                for address in served_addresses(service, workload) {
                    let mut endpoint = endpoint(service, port, Address::Ip(address), number);
                    describe(&mut endpoint, workload, Some(pod));
                    endpoint.health = health;
                    found.push(endpoint);
                }
            }
        }
    }

    fn add_slices(&self, service: &Service, found: &mut Vec<Endpoint>) {
        for object in self.store.in_namespace("EndpointSlice", &service.namespace) {
            let belongs = service_of_slice(object).is_some_and(|(_, name)| name == *service.name);
            if let (true, Object::EndpointSlice(slice)) = (belongs, object) {
                self.add_slice(service, slice, found);
            }
        }
    }

    fn add_slice(&self, service: &Service, slice: &EndpointSlice, found: &mut Vec<Endpoint>) {
        for slice_port in slice.ports.iter().flatten() {
            let name = slice_port.name.as_deref().unwrap_or_default();
            let Some(port) = service.port_named(name) else { continue };
            let Some(number) = slice_port.port.map_or(Some(port.number), |p| u16::try_from(p).ok()) else {
                continue;
            };
            for item in &slice.endpoints {
                let pod = self.pod_of(item, &service.namespace);
                let health = slice_health(item, pod);
                for address in &item.addresses {
                    let mut endpoint = endpoint(service, port, Address::parse(address), number);
                    match pod.and_then(|p| self.workload(p).map(|w| (p, w))) {
                        Some((pod, workload)) => describe(&mut endpoint, workload, Some(pod)),
                        None => {
                            endpoint.cluster.clone_from(&self.options.cluster);
                            endpoint.network.clone_from(&self.options.network);
                            endpoint.hostname.clone_from(&item.hostname);
                            endpoint.node_name = item.node_name.clone().unwrap_or_default();
                        }
                    }
                    endpoint.health = health;
                    found.push(endpoint);
                }
            }
        }
    }

    fn pod_of(&self, item: &SliceEndpoint, namespace: &str) -> Option<&Pod> {
        let target = item.target_ref.as_ref().filter(|t| t.kind.as_deref() == Some("Pod"))?;
        let namespace = target.namespace.as_deref().unwrap_or(namespace);
        as_pod(self.store.get("Pod", namespace, target.name.as_deref()?))
    }

    fn workload(&self, pod: &Pod) -> Option<&Workload> {
        let meta = &pod.metadata;
        let name = (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default());
        self.workloads.get(&name).map(Arc::as_ref)
    }
}

/// The pod's addresses of the families that the service has; a headless service is reached at all.
fn served_addresses(service: &Service, workload: &Workload) -> Vec<std::net::IpAddr> {
    if service.resolution == Resolution::Passthrough || service.addresses.is_empty() {
        return workload.addresses.clone();
    }
    let fits = |ip: &std::net::IpAddr| service.addresses.iter().any(|a| a.addr().is_ipv4() == ip.is_ipv4());
    workload.addresses.iter().copied().filter(fits).collect()
}

fn slice_health(item: &SliceEndpoint, pod: Option<&Pod>) -> Health {
    let conditions = item.conditions.as_ref();
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or_default();
    if terminating {
        return Health::Terminating;
    }
    // Absence of `ready` is to be read as ready.
    if !conditions.and_then(|c| c.ready).unwrap_or(true) {
        return Health::Unhealthy;
    }
    match pod.map(|p| pod::health(p, true)) {
        Some(Health::Draining) => Health::Draining,
        _ => Health::Healthy,
    }
}

fn endpoint(service: &Service, port: &Port, address: Address, number: u16) -> Endpoint {
    let mut endpoint = Endpoint::new("", &service.namespace, "", address, number);
    endpoint.service = service.hostname.clone();
    endpoint.service_namespace = service.namespace.clone();
    endpoint.service_port_name = port.name.clone();
    endpoint
}

/// What an endpoint has of its workload.
fn describe(endpoint: &mut Endpoint, workload: &Workload, pod: Option<&Pod>) {
    endpoint.labels = workload.labels.clone();
    endpoint.locality = workload.locality.clone();
    endpoint.network.clone_from(&workload.network);
    endpoint.cluster.clone_from(&workload.cluster);
    endpoint.service_account = Some(workload.service_account.clone());
    endpoint.tls_mode = tls_mode(&workload.labels);
    endpoint.workload_name.clone_from(&workload.workload_name);
    endpoint.namespace = workload.namespace.clone();
    endpoint.node_name.clone_from(&workload.node);
    let spec = pod.and_then(|p| p.spec.as_ref());
    endpoint.hostname = spec.filter(|s| s.subdomain.is_some()).and_then(|s| s.hostname.clone());
}

fn tls_mode(labels: &Arc<Labels>) -> TlsMode {
    TlsMode::of_labels(labels)
}

/// The number of a pod's port that a service's port leads to.
fn target_port(port: &Port, pod: &Pod) -> Option<u16> {
    let name = match &port.target {
        None => return Some(port.number),
        Some(TargetPort::Number(number)) => return Some(*number),
        Some(TargetPort::Name(name)) => name,
    };
    let spec = pod.spec.as_ref()?;
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    let mut named = ports.filter(|p| p.name.as_ref() == Some(name));
    named.find_map(|p| u16::try_from(p.container_port).ok())
}
