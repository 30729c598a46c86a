//! Kubernetes' Pod as the model's workload.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use saild_model::{Health, Labels, Locality, Workload};

use super::Options;

pub(super) const LOCALITY_LABEL: &str = "istio-locality";
const NETWORK_LABEL: &str = "topology.istio.io/network";
const DRAINING_LABEL: &str = "istio.io/draining";

/// The workload; none while the pod has no address, and none when it has ended.
pub(super) fn adapt(pod: &Pod, locality: Locality, options: &Options) -> Option<Workload> {
    let status = pod.status.as_ref()?;
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return None;
    }
    let addresses = addresses(pod);
    let first = *addresses.first()?;
    let meta = &pod.metadata;
    let labels: Labels = meta.labels.clone().unwrap_or_default();
    let (workload_kind, workload_name) = owner(pod);
    let spec = pod.spec.as_ref();
    let mut workload = Workload::new(
        meta.name.as_deref().unwrap_or_default(),
        meta.namespace.as_deref().unwrap_or_default(),
        first,
    );
    workload.addresses = addresses;
    workload.service_account = spec
        .and_then(|s| s.service_account_name.clone())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "default".to_owned());
    workload.node = spec.and_then(|s| s.node_name.clone()).unwrap_or_default();
    workload.workload_name = workload_name;
    workload.workload_kind = workload_kind;
    workload.locality = locality;
    workload.network = labels.get(NETWORK_LABEL).cloned().unwrap_or_else(|| options.network.clone());
    workload.cluster = options.cluster.clone();
    workload.host_network = spec.and_then(|s| s.host_network).unwrap_or_default();
    workload.ready = is_ready(pod);
    workload.created = meta.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second());
    workload.labels = Arc::new(labels);
    Some(workload)
}

/// The pod's addresses, the first family first.
pub(super) fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else { return Vec::new() };
    let mut addresses: Vec<IpAddr> = Vec::new();
    let listed = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    for address in status.pod_ip.iter().chain(listed).filter_map(|ip| ip.parse().ok()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

/// Whether the pod takes traffic.
pub(super) fn health(pod: &Pod, publish_not_ready: bool) -> Health {
    if pod.metadata.deletion_timestamp.is_some() {
        Health::Terminating
    } else if !publish_not_ready && !is_ready(pod) {
        Health::Unhealthy
    } else if pod.metadata.labels.as_ref().is_some_and(|l| l.contains_key(DRAINING_LABEL)) {
        Health::Draining
    } else {
        Health::Healthy
    }
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Kind and name of what the pod belongs to: of a ReplicaSet's pod its Deployment.
fn owner(pod: &Pod) -> (String, String) {
    let meta = &pod.metadata;
    let own = || ("Pod".to_owned(), meta.name.clone().unwrap_or_default());
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let Some(owner) = owners.iter().find(|o| o.controller == Some(true)).or_else(|| owners.first()) else {
        return own();
    };
    let hash = meta.labels.as_ref().and_then(|l| l.get("pod-template-hash"));
    if owner.kind == "ReplicaSet"
        && let Some(name) =
            hash.and_then(|h| owner.name.strip_suffix(h.as_str())).and_then(|n| n.strip_suffix('-'))
    {
        return ("Deployment".to_owned(), name.to_owned());
    }
    (owner.kind.clone(), owner.name.clone())
}
