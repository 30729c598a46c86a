//! Service addresses: rules that lead a ClusterIP to one of the ready pods, for pods without a sidecar and for the daemon.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::network::{POD_RANGE, SERVICE_RANGE, feed};
use super::{Node, egress};
use crate::local::kind::Kind;

/// Keeps the rules as services and pods are.
pub(crate) async fn run(node: Arc<Node>) {
    let mut changes = node.store.watch();
    let mut applied = String::new();
    loop {
        changes.borrow_and_update();
        let rules = render(
            &node.store.list_typed(&Kind::core("Service")),
            &node.store.list_typed(&Kind::core("Pod")),
        );
        if rules != applied {
            let script = rules.clone();
            let done = tokio::task::spawn_blocking(move || {
                feed(Command::new("nft").args(["-f", "-"]), "nft (package nftables)", &script)
            });
            match done.await {
                Ok(Ok(())) => applied = rules,
                Ok(Err(error)) => tracing::error!("service rules: {error:#}"),
                Err(error) => tracing::error!("service rules: {error}"),
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Addresses of the pods that a service selects and that serve.
pub(crate) fn endpoints<'p>(service: &Service, pods: &'p [Pod]) -> Vec<(&'p Pod, Ipv4Addr)> {
    let Some(selector) =
        service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|map| !map.is_empty())
    else {
        return Vec::new();
    };
    let selected = |pod: &&Pod| {
        let labels = pod.metadata.labels.as_ref();
        pod.metadata.namespace == service.metadata.namespace
            && selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
    };
    let everyone = service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses) == Some(true);
    pods.iter()
        .filter(selected)
        .filter(|pod| everyone || is_serving(pod))
        .filter_map(|pod| Some((pod, pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?)))
        .collect()
}

/// Ready, and not on its way out.
pub(crate) fn is_serving(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready =
        conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"));
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// The pod's port behind a service's port.
pub(crate) fn target_port(pod: &Pod, port: &ServicePort) -> Option<u16> {
    match &port.target_port {
        None => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
        Some(IntOrString::String(name)) => {
            let containers = &pod.spec.as_ref()?.containers;
            let ports = containers.iter().flat_map(|container| container.ports.iter().flatten());
            let found = ports.into_iter().find(|port| port.name.as_ref() == Some(name))?;
            u16::try_from(found.container_port).ok()
        }
    }
}

fn render(services: &[Service], pods: &[Pod]) -> String {
    let mut rules: BTreeMap<String, String> = BTreeMap::new();
    for service in services {
        let Some(spec) = &service.spec else { continue };
        let Some(address) = spec.cluster_ip.as_ref().and_then(|ip| ip.parse::<Ipv4Addr>().ok()) else {
            continue;
        };
        let endpoints = endpoints(service, pods);
        for port in spec.ports.iter().flatten() {
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => "udp",
                _ => "tcp",
            };
            let targets: Vec<String> = endpoints
                .iter()
                .filter_map(|(pod, ip)| Some(format!("{ip} . {}", target_port(pod, port)?)))
                .enumerate()
                .map(|(index, target)| format!("{index} : {target}"))
                .collect();
            if !targets.is_empty() {
                let to = format!("numgen random mod {} map {{ {} }}", targets.len(), targets.join(", "));
                let what = format!("ip daddr {address} {protocol} dport {}", port.port);
                rules.insert(what, format!("dnat ip to {to}"));
            }
        }
    }
    let mut out = String::from(
        "add table ip ironsail\ndelete table ip ironsail\ntable ip ironsail {\n\tchain services {\n",
    );
    for (what, action) in &rules {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "\t\t{what} {action}");
    }
    out.push_str("\t}\n\tchain prerouting {\n\t\ttype nat hook prerouting priority -100; policy accept;\n\t\tjump services\n");
    // What is not of the mesh leaves through the machine.
    let _ = writeln!(
        out,
        "\t\tip daddr != {{ {POD_RANGE}, {SERVICE_RANGE}, 127.0.0.0/8 }} meta l4proto tcp redirect to :{}",
        egress::PORT
    );
    out.push_str("\t}\n\tchain output {\n\t\ttype nat hook output priority -100; policy accept;\n\t\tjump services\n\t}\n");
    out.push_str("\tchain postrouting {\n\t\ttype nat hook postrouting priority 100; policy accept;\n");
    let own: Vec<String> = pods
        .iter()
        .filter_map(|pod| pod.status.as_ref()?.pod_ip.clone())
        .map(|ip| format!("{ip} . {ip}"))
        .collect();
    if !own.is_empty() {
        // A pod that reaches itself through a service must see somebody else's address.
        let _ = writeln!(out, "\t\tip saddr . ip daddr {{ {} }} masquerade", own.join(", "));
    }
    out.push_str("\t}\n}\n");
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ready_pods_stand_behind_a_service() {
        let pod = |name: &str, ip: &str, ready: &str| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": "default", "labels": {"app": "a"}},
                "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": 9080}]}]},
                "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]},
            }))
            .unwrap()
        };
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "default"},
            "spec": {"clusterIP": "10.96.1.1", "selector": {"app": "a"}, "ports": [{"port": 80, "targetPort": "web"}]},
        }))
        .unwrap();
        let pods = [
            pod("a1", "10.244.0.10", "True"),
            pod("a2", "10.244.0.11", "False"),
            pod("a3", "10.244.0.12", "True"),
        ];
        let rules = render(&[service], &pods);
        let expect = "ip daddr 10.96.1.1 tcp dport 80 dnat ip to numgen random mod 2 map \
                      { 0 : 10.244.0.10 . 9080, 1 : 10.244.0.12 . 9080 }";
        assert!(rules.contains(expect), "{rules}");
    }
}
