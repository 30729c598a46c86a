//! What is kept of Kubernetes' objects: a cluster's worth of them is in memory, and most of what they say is not for us.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Namespace, Node, NodeSpec, Pod, PodCondition, PodSpec, PodStatus, Secret, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Kept;
use crate::object::Object;

/// An annotation that repeats the whole object.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Names of certificates in a ConfigMap.
const CERTIFICATES: [&str; 4] = ["ca.crt", "cacert", "ca.crl", "crl"];

fn meta(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

pub(super) fn namespace(mut namespace: Namespace) -> Kept {
    meta(&mut namespace.metadata);
    Some(Object::Namespace(Arc::new(namespace)))
}

pub(super) fn node(mut node: Node) -> Kept {
    meta(&mut node.metadata);
    // Labels are what we read; the status changes with every heartbeat.
    node.metadata.annotations = None;
    node.metadata.resource_version = None;
    node.status = None;
    node.spec = Some(NodeSpec::default());
    Some(Object::Node(Arc::new(node)))
}

pub(super) fn service(mut service: Service) -> Kept {
    meta(&mut service.metadata);
    Some(Object::Service(Arc::new(service)))
}

pub(super) fn endpoint_slice(mut slice: EndpointSlice) -> Kept {
    meta(&mut slice.metadata);
    Some(Object::EndpointSlice(Arc::new(slice)))
}

pub(super) fn secret(mut secret: Secret) -> Kept {
    meta(&mut secret.metadata);
    Some(Object::Secret(Arc::new(secret)))
}

/// Settings of the mesh, and certificates.
pub(super) fn config_map(mut map: ConfigMap, system_namespace: &str) -> Kept {
    let own = map.metadata.namespace.as_deref() == Some(system_namespace);
    let text_keys = map.data.iter().flatten().map(|(key, _)| key);
    let byte_keys = map.binary_data.iter().flatten().map(|(key, _)| key);
    let certificates = text_keys.chain(byte_keys).any(|key| CERTIFICATES.contains(&key.as_str()));
    meta(&mut map.metadata);
    (own || certificates).then(|| Object::ConfigMap(Arc::new(map)))
}

pub(super) fn pod(pod: Pod) -> Kept {
    let mut pod = pod;
    meta(&mut pod.metadata);
    pod.metadata.resource_version = None;
    pod.metadata.annotations = None;
    pod.spec = pod.spec.map(|spec| PodSpec {
        containers: spec.containers.into_iter().map(container).collect(),
        init_containers: spec.init_containers.map(|all| all.into_iter().map(container).collect()),
        service_account_name: spec.service_account_name,
        node_name: spec.node_name,
        host_network: spec.host_network,
        hostname: spec.hostname,
        subdomain: spec.subdomain,
        ..PodSpec::default()
    });
    pod.status = pod.status.map(|status| PodStatus {
        phase: status.phase,
        pod_ip: status.pod_ip,
        pod_ips: status.pod_ips,
        conditions: status
            .conditions
            .map(|all| all.into_iter().filter(|c| c.type_ == "Ready").map(ready).collect()),
        ..PodStatus::default()
    });
    Some(Object::Pod(Arc::new(pod)))
}

fn container(container: Container) -> Container {
    Container { name: container.name, ports: container.ports, ..Container::default() }
}

fn ready(condition: PodCondition) -> PodCondition {
    PodCondition { type_: condition.type_, status: condition.status, ..PodCondition::default() }
}
