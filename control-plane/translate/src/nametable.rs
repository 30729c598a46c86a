//! The names that an agent answers its pod's DNS queries from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use saild_model::{Health, Mesh, ProxyView, Resolution, Service, Source};
use xds_api::any::pack;
use xds_api::istio::nds::{NameTable, name_table::NameInfo};

use crate::cache::version_of;
use crate::resource::NamedResource;

/// The name table of a proxy.
pub(crate) fn resource(mesh: &Mesh, proxy: &ProxyView) -> Arc<NamedResource> {
    let names = table(mesh, proxy);
    let version = version_of(&names);
    let table = NameTable {
        table: names
            .into_iter()
            .map(|(host, name)| {
                let info = NameInfo {
                    ips: name.addresses.iter().map(ToString::to_string).collect(),
                    registry: if name.kubernetes { "Kubernetes" } else { "External" }.to_owned(),
                    shortname: name.short,
                    namespace: name.namespace,
                    ..Default::default()
                };
                (host, info)
            })
            .collect(),
    };
    Arc::new(NamedResource { name: "".into(), version, any: pack(&table) })
}

#[derive(Debug, Hash)]
struct Name {
    addresses: Vec<IpAddr>,
    kubernetes: bool,
    short: String,
    namespace: String,
}

fn table(mesh: &Mesh, proxy: &ProxyView) -> BTreeMap<String, Name> {
    let mut out = BTreeMap::new();
    for service in &mesh.scope(proxy).services {
        let kubernetes = service.source == Source::Kubernetes;
        let mut addresses: Vec<IpAddr> = service
            .addresses
            .iter()
            .filter(|n| n.prefix_len() == n.max_prefix_len())
            .map(|n| n.addr())
            .collect();
        if addresses.is_empty() && proxy.dns_auto_allocate {
            addresses.extend(service.auto_address);
        }
        if addresses.is_empty() && kubernetes && service.resolution == Resolution::Passthrough {
            addresses = pods(mesh, service, &mut out);
        }
        if addresses.is_empty() {
            // Nobody here knows: the upstream resolver is asked.
            continue;
        }
        let (short, namespace) = if kubernetes {
            (service.name.to_string(), service.namespace.to_string())
        } else {
            (String::new(), String::new())
        };
        out.insert(service.hostname.to_string(), Name { addresses, kubernetes, short, namespace });
    }
    out
}

/// The ready pods of a headless service; those with a host name get a name of their own below the service's.
fn pods(mesh: &Mesh, service: &Service, out: &mut BTreeMap<String, Name>) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for endpoint in mesh.all_endpoints(&service.hostname).flat_map(|list| list.iter()) {
        let Some(ip) = endpoint.address.ip().filter(|_| endpoint.health == Health::Healthy) else { continue };
        if let Some(hostname) = &endpoint.hostname {
            out.insert(
                format!("{hostname}.{}", service.hostname),
                Name {
                    addresses: vec![ip],
                    kubernetes: true,
                    short: format!("{hostname}.{}", service.name),
                    namespace: service.namespace.to_string(),
                },
            );
        }
        all.push(ip);
    }
    all.sort();
    all.dedup();
    all
}
