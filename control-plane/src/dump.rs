//! The model as JSON, for debug pages only: what is shown is chosen here, so that no key slips out.

use std::collections::BTreeMap;

use mesh_api::Kind;
use saild_model::{Endpoint, Mesh, Service};
use saild_translate::{Cache, Warning};
use serde_json::{Value, json};

pub(crate) fn service(service: &Service) -> Value {
    let ports = service.ports.iter().map(
        |port| json!({"name": port.name.as_ref(), "port": port.number, "protocol": port.protocol.as_str()}),
    );
    json!({
        "hostname": service.hostname.as_ref(),
        "Attributes": {
            "Name": service.name.as_ref(),
            "Namespace": service.namespace.as_ref(),
            "Labels": service.labels,
            "LabelSelectors": service.selector,
            "ServiceRegistry": format!("{:?}", service.source),
        },
        "ports": ports.collect::<Vec<_>>(),
        "addresses": service.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "autoAllocatedAddress": service.auto_address.map(|address| address.to_string()),
        "Resolution": format!("{:?}", service.resolution),
        "MeshExternal": service.location == saild_model::Location::External,
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    json!({
        "address": endpoint.address.to_string(),
        "port": endpoint.port,
        "healthStatus": format!("{:?}", endpoint.health),
        "serviceAccount": endpoint.service_account,
        "tlsMode": format!("{:?}", endpoint.tls_mode).to_lowercase(),
        "labels": endpoint.labels.as_ref(),
        "locality": endpoint.locality.to_string(),
        "network": endpoint.network,
        "cluster": endpoint.cluster,
        "weight": endpoint.weight,
        "workload": endpoint.workload_name,
        "namespace": endpoint.namespace.as_ref(),
    })
}

pub(crate) fn endpoints(mesh: &Mesh) -> Value {
    let entries = mesh.services().iter().flat_map(|service| {
        service.ports.iter().map(|port| {
            let list = mesh.endpoints(service, &port.name);
            json!({
                "svc": format!("{}:{}", service.hostname, port.name),
                "port": port.number,
                "ep": list.iter().map(|entry| endpoint(entry)).collect::<Vec<_>>(),
            })
        })
    });
    entries.collect()
}

pub(crate) fn shards(mesh: &Mesh) -> Value {
    let mut all: BTreeMap<String, BTreeMap<String, BTreeMap<String, Vec<Value>>>> = BTreeMap::new();
    for service in mesh.services() {
        let by_cluster = all
            .entry(service.hostname.to_string())
            .or_default()
            .entry(service.namespace.to_string())
            .or_default();
        for port in &service.ports {
            for entry in mesh.endpoints(service, &port.name).iter() {
                by_cluster.entry(entry.cluster.clone()).or_default().push(endpoint(entry));
            }
        }
    }
    json!(all)
}

pub(crate) fn instances(mesh: &Mesh) -> Value {
    let entries = mesh.workloads().iter().map(|workload| {
        let serves: Vec<String> = workload
            .addresses
            .iter()
            .flat_map(|address| mesh.endpoints_at(*address))
            .map(|entry| format!("{}:{} at {}", entry.service, entry.service_port_name, entry.port))
            .collect();
        json!({
            "name": workload.name.as_ref(),
            "namespace": workload.namespace.as_ref(),
            "addresses": workload.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "serviceAccount": workload.service_account,
            "ready": workload.ready,
            "serves": serves,
        })
    });
    entries.collect()
}

pub(crate) fn authorization(mesh: &Mesh) -> Value {
    let mut by_namespace: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for object in mesh.objects().iter().filter(|object| object.kind() == Kind::AuthorizationPolicy) {
        by_namespace.entry(object.meta().namespace.clone()).or_default().push(object.to_manifest());
    }
    json!({"AuthorizationPolicies": by_namespace, "RootNamespace": mesh.root_namespace()})
}

pub(crate) fn warning(warning: &Warning) -> Value {
    json!({
        "kind": warning.kind,
        "namespace": warning.namespace,
        "name": warning.name,
        "message": warning.message,
    })
}

pub(crate) fn cache(cache: &Cache) -> Value {
    let entries = cache.usage().map(|(kind, usage)| {
        let numbers = json!({"entries": usage.entries, "hits": usage.hits, "misses": usage.misses});
        (kind.to_owned(), numbers)
    });
    Value::Object(entries.into_iter().collect())
}
