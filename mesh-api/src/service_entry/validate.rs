//! What a ServiceEntry must keep to beyond its types.

use super::{Location, Resolution, ServiceEntry, ServicePort};
use crate::check;
use crate::field::Cx;
use crate::object::ObjectMeta;
use crate::workload_entry::WorkloadEntry;

pub(super) fn service_entry(entry: &ServiceEntry, _: &ObjectMeta, cx: &mut Cx) {
    if entry.hosts.is_empty() {
        cx.error_at("hosts", "must be set");
    }
    cx.each("hosts", &entry.hosts, |cx, host| {
        if host == "*" {
            cx.error("\"*\" cannot be a service: name the hosts (\"*.example.com\")");
        } else {
            check::wildcard_host(host, cx);
        }
    });
    addresses(entry, cx);
    ports(entry, cx);
    resolution(entry, cx);
    if entry.workload_selector.is_some() && !entry.endpoints.is_empty() {
        cx.error("only one of workloadSelector and endpoints may be set");
    }
    check::selector("workloadSelector", entry.workload_selector.as_ref(), cx);
    cx.each("endpoints", &entry.endpoints, |cx, endpoint| self::endpoint(entry, endpoint, cx));
    check::export_to(&entry.export_to, cx);
}

fn addresses(entry: &ServiceEntry, cx: &mut Cx) {
    cx.each("addresses", &entry.addresses, |cx, address| {
        check::cidr(address, cx);
        let by_address = matches!(entry.resolution, Resolution::None | Resolution::Static);
        if address.contains('/') && !by_address {
            cx.error("ranges are only for the resolutions NONE and STATIC");
        }
    });
}

fn ports(entry: &ServiceEntry, cx: &mut Cx) {
    if entry.ports.is_empty() {
        cx.error_at("ports", "must be set");
    }
    cx.each("ports", &entry.ports, |cx, port: &ServicePort| {
        cx.field("number", |cx| check::port(port.number, cx));
        if let Some(target) = port.target_port {
            cx.field("targetPort", |cx| check::port(target, cx));
        }
        if port.name.is_empty() {
            cx.error_at("name", "must be set");
        }
        if !port.protocol.is_empty() {
            cx.field("protocol", |cx| check::protocol(&port.protocol, cx));
        }
    });
    for (i, port) in entry.ports.iter().enumerate() {
        let before = &entry.ports[..i];
        let doubled = [
            ("number", before.iter().any(|p| p.number == port.number)),
            ("name", !port.name.is_empty() && before.iter().any(|p| p.name == port.name)),
        ];
        for (field, _) in doubled.into_iter().filter(|(_, doubled)| *doubled) {
            cx.field("ports", |cx| cx.index(i, |cx| cx.error_at(field, "is used by another port already")));
        }
        let speaks_tcp = matches!(port.protocol.to_ascii_uppercase().as_str(), "" | "TCP");
        if speaks_tcp && entry.addresses.is_empty() && entry.resolution == Resolution::None {
            cx.warn_at(
                "addresses",
                format!(
                    "are not set: the TCP port {} takes all traffic to that port, of any address",
                    port.number
                ),
            );
        }
    }
}

fn resolution(entry: &ServiceEntry, cx: &mut Cx) {
    let wildcard = entry.hosts.iter().find(|h| h.contains('*'));
    let endpoints = entry.endpoints.len();
    if entry.resolution == Resolution::DynamicDns {
        cx.warn_at(
            "resolution",
            "DYNAMIC_DNS acts as NONE in this release: connections go to the address that the client resolved",
        );
    }
    match entry.resolution {
        Resolution::None if endpoints > 0 => {
            cx.error_at("endpoints", "must not be set for the resolution NONE: the client's address is used");
        }
        Resolution::Static if endpoints == 0 && entry.workload_selector.is_none() => {
            cx.error_at("endpoints", "must be set for the resolution STATIC, or workloadSelector");
        }
        Resolution::Dns | Resolution::DnsRoundRobin => {
            if let (0, Some(host)) = (endpoints, wildcard) {
                cx.error_at(
                    "hosts",
                    format!("{host:?} cannot be resolved: set endpoints, or the resolution NONE"),
                );
            }
            if entry.resolution == Resolution::DnsRoundRobin && endpoints > 1 {
                cx.error_at("endpoints", "there must be one at most for DNS_ROUND_ROBIN");
            }
            if entry.workload_selector.is_some() {
                cx.error_at("workloadSelector", "must not be set for the resolution DNS");
            }
        }
        Resolution::DynamicDns => {
            if endpoints > 0 || entry.workload_selector.is_some() {
                cx.error_at("endpoints", "must not be set for DYNAMIC_DNS");
            }
            if entry.location == Location::MeshInternal {
                cx.error_at("location", "must be MESH_EXTERNAL for DYNAMIC_DNS");
            }
        }
        _ => {}
    }
}

fn endpoint(entry: &ServiceEntry, endpoint: &WorkloadEntry, cx: &mut Cx) {
    if endpoint.address.is_empty() && endpoint.network.is_empty() {
        cx.error_at("address", "must be set");
    }
    endpoint.check(cx);
    let unix = endpoint.address.starts_with("unix://");
    if unix && entry.ports.len() != 1 {
        cx.error_at("address", "a Unix socket serves one port: the entry has several");
    }
    let name = !unix && !endpoint.address.is_empty() && !check::is_ip(&endpoint.address);
    if entry.resolution == Resolution::Static && name {
        cx.error_at("address", format!("{:?} is not an IP address, as STATIC needs", endpoint.address));
    }
    if unix && matches!(entry.resolution, Resolution::Dns | Resolution::DnsRoundRobin) {
        cx.error_at("address", "a Unix socket needs the resolution STATIC");
    }
    for name in endpoint.ports.keys() {
        if entry.ports.iter().all(|p| p.name != *name) {
            cx.field("ports", |cx| cx.key(name, |cx| cx.error("is none of the entry's ports")));
        }
    }
}
