//! Services and endpoints of ServiceEntries and WorkloadEntries.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hashbrown::HashSet;
use ipnet::IpNet;
use mesh_api::service_entry as api;
use mesh_api::workload_entry::WorkloadEntry;
use mesh_api::{Object, ObjectMeta};

use super::config::Config;
use crate::{
    Address, Endpoint, ExportTo, Health, Labels, Locality, Location, Port, Protocol, Resolution, Service,
    Source, TargetPort, TlsMode, Workload,
};

/// What ServiceEntries add to the mesh.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) services: Vec<Service>,
    pub(super) endpoints: Vec<Endpoint>,
}

/// Reads every ServiceEntry.
pub(super) fn services(config: &Config, workloads: &[Arc<Workload>]) -> Found {
    let mut found = Found::default();
    for entry in config.service_entries.all() {
        for host in &entry.spec.hosts {
            let service = service(entry, host);
            endpoints(entry, &service, config, workloads, &mut found.endpoints);
            found.services.push(service);
        }
    }
    allocate(&mut found.services);
    found
}

fn service(entry: &Object<api::ServiceEntry>, host: &str) -> Service {
    let (meta, spec) = (&entry.meta, &entry.spec);
    let ports = spec.ports.iter().map(|port| Port {
        name: port.name.as_str().into(),
        number: port.number,
        target: port.target_port.map(TargetPort::Number),
        protocol: if port.protocol.is_empty() {
            Protocol::of_service_port(port.number, Some(&port.name), None, None)
        } else {
            Protocol::parse(&port.protocol).unwrap_or_default()
        },
    });
    Service {
        source: Source::ServiceEntry,
        ports: ports.collect(),
        addresses: spec.addresses.iter().filter_map(|a| network(a)).collect(),
        resolution: match spec.resolution {
            api::Resolution::None => Resolution::Passthrough,
            api::Resolution::Static => Resolution::ClientSide,
            api::Resolution::Dns => Resolution::Dns,
            api::Resolution::DnsRoundRobin => Resolution::DnsRoundRobin,
            api::Resolution::DynamicDns => Resolution::DynamicDns,
        },
        location: match spec.location {
            api::Location::MeshExternal => Location::External,
            api::Location::MeshInternal => Location::Internal,
        },
        labels: meta.labels.clone(),
        annotations: meta.annotations.clone(),
        selector: spec.workload_selector.as_ref().map(|s| s.match_labels.clone()).unwrap_or_default(),
        export_to: spec.export_to.iter().map(|entry| ExportTo::parse(entry)).collect(),
        subject_alt_names: spec.subject_alt_names.clone(),
        created: created(meta),
        ..Service::new(host, &meta.namespace, &meta.name)
    }
}

fn created(meta: &ObjectMeta) -> i64 {
    meta.creation_timestamp.map(|t| t.as_second()).unwrap_or_default()
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn endpoints(
    entry: &Object<api::ServiceEntry>,
    service: &Service,
    config: &Config,
    workloads: &[Arc<Workload>],
    out: &mut Vec<Endpoint>,
) {
    let spec = &entry.spec;
    for port in &spec.ports {
        let target = port.target_port.unwrap_or(port.number);
        for workload in &spec.endpoints {
            out.push(of_entry(service, &port.name, target, workload, &entry.meta));
        }
        if let Some(selector) = &spec.workload_selector {
            for object in config.workload_entries.in_namespace(&entry.meta.namespace) {
                if selector.matches(&object.spec.labels) {
                    out.push(of_entry(service, &port.name, target, &object.spec, &object.meta));
                }
            }
            for pod in workloads.iter().filter(|w| *w.namespace == *entry.meta.namespace) {
                if selector.matches(&pod.labels) {
                    out.extend(of_pod(service, &port.name, target, pod));
                }
            }
        }
        let by_host = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
        if by_host && spec.endpoints.is_empty() && spec.workload_selector.is_none() {
            let address = Address::Dns(service.hostname.to_string());
            out.push(Endpoint::new(&service.hostname, &service.namespace, &port.name, address, target));
        }
    }
}

/// Endpoints that WorkloadEntries give to Kubernetes Services whose selector they match.
pub(super) fn of_selected_entries(services: &[Service], config: &Config) -> Vec<Endpoint> {
    let mut out = Vec::new();
    for service in services.iter().filter(|s| !s.selector.is_empty()) {
        for object in config.workload_entries.in_namespace(&service.namespace) {
            if !service.selector.iter().all(|(key, value)| object.spec.labels.get(key) == Some(value)) {
                continue;
            }
            for port in &service.ports {
                let target = match &port.target {
                    Some(TargetPort::Number(number)) => *number,
                    Some(TargetPort::Name(name)) => {
                        object.spec.ports.get(name).copied().unwrap_or(port.number)
                    }
                    None => port.number,
                };
                out.push(of_entry(service, &port.name, target, &object.spec, &object.meta));
            }
        }
    }
    out
}

fn of_entry(
    service: &Service,
    port: &str,
    target: u16,
    entry: &WorkloadEntry,
    meta: &ObjectMeta,
) -> Endpoint {
    let mut labels: Labels = meta.labels.clone();
    labels.extend(entry.labels.clone());
    let account = Some(entry.service_account.clone()).filter(|account| !account.is_empty());
    let tls_mode = match labels.get("security.istio.io/tlsMode") {
        Some(_) => TlsMode::of_labels(&labels),
        // Who has an identity can prove it.
        None if account.is_some() => TlsMode::Istio,
        None => TlsMode::Disabled,
    };
    let number = entry.ports.get(port).copied().unwrap_or(target);
    Endpoint {
        labels: Arc::new(labels),
        locality: Locality::parse(&entry.locality),
        network: entry.network.clone(),
        weight: entry.weight,
        service_account: account,
        tls_mode,
        workload_name: meta.name.clone(),
        namespace: meta.namespace.as_str().into(),
        ..Endpoint::new(&service.hostname, &service.namespace, port, Address::parse(&entry.address), number)
    }
}

fn of_pod(service: &Service, port: &str, target: u16, pod: &Workload) -> Option<Endpoint> {
    let address = Address::Ip(*pod.addresses.first()?);
    Some(Endpoint {
        labels: pod.labels.clone(),
        locality: pod.locality.clone(),
        network: pod.network.clone(),
        cluster: pod.cluster.clone(),
        health: if pod.ready { Health::Healthy } else { Health::Unhealthy },
        service_account: Some(pod.service_account.clone()),
        tls_mode: pod.tls_mode(),
        workload_name: pod.workload_name.clone(),
        namespace: pod.namespace.clone(),
        node_name: pod.node.clone(),
        ..Endpoint::new(&service.hostname, &service.namespace, port, address, target)
    })
}

/// Gives addresses of 240.240.0.0/16 to entries that have none, so that TCP ports of several of them can be told apart.
/// The choice depends on the names alone: it is the same after a restart.
fn allocate(services: &mut [Service]) {
    let mut taken = HashSet::new();
    let mut order: Vec<&mut Service> = services
        .iter_mut()
        .filter(|s| {
            s.addresses.is_empty()
                && s.resolution != Resolution::Passthrough
                && !crate::hostname::is_wildcard(&s.hostname)
        })
        .collect();
    order.sort_by(|a, b| (&a.hostname, &a.namespace).cmp(&(&b.hostname, &b.namespace)));
    for service in order {
        let mut slot = fnv(&service.hostname, &service.namespace) % 65_534;
        while taken.len() < 65_534 && !taken.insert(slot) {
            slot = (slot + 1) % 65_534;
        }
        let [high, low] = ((slot + 1) as u16).to_be_bytes();
        service.auto_address = Some(IpAddr::V4(Ipv4Addr::new(240, 240, high, low)));
    }
}

fn fnv(host: &str, namespace: &str) -> u32 {
    let bytes = host.bytes().chain([b'/']).chain(namespace.bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
