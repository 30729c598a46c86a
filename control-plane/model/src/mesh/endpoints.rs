//! Endpoints by service and by address, and what differs between two states of them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::{Address, Endpoint, TlsMode};

/// Endpoints of one port of one service, in the order of their addresses.
pub type EndpointList = Arc<Vec<Arc<Endpoint>>>;

/// The lists of a host's ports, by the ports' names.
type Ports = Vec<(Arc<str>, EndpointList)>;

/// What differs between the endpoints of two snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointChanges {
    /// Hosts whose endpoints differ in anything.
    pub hosts: BTreeSet<Arc<str>>,
    /// Those of them that differ in more than which addresses there are and how well they are: in the identities, labels
    /// or protocol of who serves, or because addresses themselves are more than endpoints (names to resolve).
    pub reshaped: BTreeSet<Arc<str>>,
    /// Addresses at which other ports are served than before.
    pub addresses: BTreeSet<IpAddr>,
}

#[derive(Debug, Default, Clone)]
pub(super) struct EndpointIndex {
    by_service: HashMap<Arc<str>, Arc<Ports>>,
    by_ip: HashMap<IpAddr, Arc<Vec<Arc<Endpoint>>>>,
}

impl EndpointIndex {
    pub(super) fn new(endpoints: Vec<Endpoint>) -> Self {
        let mut endpoints: Vec<Arc<Endpoint>> = endpoints.into_iter().map(Arc::new).collect();
        endpoints.sort_by(|a, b| order(a, b));
        let mut index = Self::default();
        for group in endpoints.chunk_by(|a, b| a.service == b.service) {
            let Some(first) = group.first() else { continue };
            index.by_service.insert(first.service.clone(), Arc::new(ports(group)));
        }
        let mut by_ip: HashMap<IpAddr, Vec<Arc<Endpoint>>> = HashMap::new();
        for endpoint in &endpoints {
            if let Some(ip) = endpoint.address.ip() {
                by_ip.entry(ip).or_default().push(endpoint.clone());
            }
        }
        index.by_ip = by_ip.into_iter().map(|(ip, list)| (ip, Arc::new(list))).collect();
        index
    }

    /// The same with all endpoints of some hosts replaced. Those that stay equal stay the same in memory.
    pub(super) fn with(&self, services: BTreeMap<Arc<str>, Vec<Endpoint>>) -> Self {
        let mut index = self.clone();
        for (host, endpoints) in services {
            let before: Vec<Arc<Endpoint>> =
                self.of_host(&host).flat_map(|list| list.iter().cloned()).collect();
            let mut known: HashMap<&Endpoint, &Arc<Endpoint>> = HashMap::new();
            known.extend(before.iter().map(|endpoint| (&**endpoint, endpoint)));
            let keep = |endpoint: Endpoint| match known.get(&endpoint) {
                Some(same) => (*same).clone(),
                None => Arc::new(endpoint),
            };
            let mut now: Vec<Arc<Endpoint>> = endpoints.into_iter().map(keep).collect();
            now.sort_by(|a, b| order(a, b));
            let touched = before.iter().chain(&now).filter_map(|endpoint| endpoint.address.ip());
            for ip in touched.collect::<BTreeSet<IpAddr>>() {
                let others = index.at(ip).iter().filter(|endpoint| endpoint.service != host).cloned();
                let own = now.iter().filter(|endpoint| endpoint.address.ip() == Some(ip)).cloned();
                let mut list: Vec<Arc<Endpoint>> = others.chain(own).collect();
                list.sort_by(|a, b| order(a, b));
                if list.is_empty() {
                    index.by_ip.remove(&ip);
                } else {
                    index.by_ip.insert(ip, Arc::new(list));
                }
            }
            if now.is_empty() {
                index.by_service.remove(&host);
            } else {
                index.by_service.insert(host, Arc::new(ports(&now)));
            }
        }
        index
    }

    pub(super) fn of_port(&self, host: &str, port_name: &str) -> Option<&EndpointList> {
        let ports = self.by_service.get(host)?;
        ports.iter().find(|(name, _)| &**name == port_name).map(|(_, list)| list)
    }

    pub(super) fn of_host(&self, host: &str) -> impl Iterator<Item = &EndpointList> {
        self.by_service.get(host).into_iter().flat_map(|ports| ports.iter()).map(|(_, list)| list)
    }

    pub(super) fn at(&self, ip: IpAddr) -> &[Arc<Endpoint>] {
        self.by_ip.get(&ip).map(|list| list.as_slice()).unwrap_or_default()
    }

    pub(super) fn changes(&self, before: &Self) -> EndpointChanges {
        let mut out = EndpointChanges::default();
        for host in self.by_service.keys().chain(before.by_service.keys()) {
            let (new, old) = (self.by_service.get(host), before.by_service.get(host));
            let same = match (new, old) {
                (Some(new), Some(old)) => Arc::ptr_eq(new, old) || new == old,
                _ => false,
            };
            if !same && out.hosts.insert(host.clone()) && shape(new) != shape(old) {
                out.reshaped.insert(host.clone());
            }
        }
        for ip in self.by_ip.keys().chain(before.by_ip.keys()) {
            let (new, old) = (self.by_ip.get(ip), before.by_ip.get(ip));
            let same = match (new, old) {
                (Some(new), Some(old)) => Arc::ptr_eq(new, old) || serves(new) == serves(old),
                _ => false,
            };
            if !same {
                out.addresses.insert(*ip);
            }
        }
        out
    }
}

/// What is served at an address.
fn serves(list: &[Arc<Endpoint>]) -> Vec<(&str, &str, u16)> {
    list.iter().map(|e| (&*e.service, &*e.service_port_name, e.port)).collect()
}

fn order(a: &Endpoint, b: &Endpoint) -> Ordering {
    let key = |e: &Endpoint| (e.service.clone(), e.service_port_name.clone(), e.port);
    let (one, other) = (key(a), key(b));
    (&one.0, &one.1, &a.address, one.2).cmp(&(&other.0, &other.1, &b.address, other.2))
}

/// Groups of endpoints of one host, which are in order.
fn ports(endpoints: &[Arc<Endpoint>]) -> Ports {
    let groups = endpoints.chunk_by(|a, b| a.service_port_name == b.service_port_name);
    let list = |group: &[Arc<Endpoint>]| {
        let first = group.first()?;
        Some((first.service_port_name.clone(), Arc::new(group.to_vec())))
    };
    groups.filter_map(list).collect()
}

/// What clusters and listeners are made of: who serves, whether in mutual TLS, and names that proxies resolve.
type Shape<'a> =
    BTreeSet<(&'a str, &'a str, Option<&'a str>, TlsMode, Vec<(&'a str, &'a str)>, Option<&'a Address>)>;

fn shape(ports: Option<&Arc<Ports>>) -> Shape<'_> {
    let all = ports.into_iter().flat_map(|ports| ports.iter()).flat_map(|(_, list)| list.iter());
    all.map(|endpoint| {
        let by_name = endpoint.address.ip().is_none().then_some(&endpoint.address);
        let account = endpoint.service_account.as_deref();
        let labels = endpoint.labels.iter().filter(|(key, _)| !is_of_instance(key));
        let labels = labels.map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let port = &*endpoint.service_port_name;
        (port, &*endpoint.namespace, account, endpoint.tls_mode, labels, by_name)
    })
    .collect()
}

/// Labels that tell a pod from its like: no policy selects by them.
fn is_of_instance(key: &str) -> bool {
    matches!(
        key,
        "pod-template-hash"
            | "controller-revision-hash"
            | "statefulset.kubernetes.io/pod-name"
            | "apps.kubernetes.io/pod-index"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(host: &str, ip: &str, account: &str) -> Endpoint {
        let address = Address::Ip(ip.parse().unwrap());
        let mut endpoint = Endpoint::new(host, "default", "http", address, 80);
        endpoint.service_account = Some(account.to_owned());
        endpoint
    }

    fn replaced(index: &EndpointIndex, host: &str, endpoints: Vec<Endpoint>) -> EndpointIndex {
        index.with([(host.into(), endpoints)].into())
    }

    #[test]
    fn what_is_replaced_is_as_if_built_anew() {
        let all = |more: Vec<Endpoint>| {
            let mut all = vec![endpoint("a", "10.0.0.1", "x"), endpoint("c", "10.0.0.3", "x")];
            all.extend(more);
            EndpointIndex::new(all)
        };
        let b = || vec![endpoint("b", "10.0.0.3", "x"), endpoint("b", "10.0.0.2", "x")];
        let (anew, by_parts) = (all(b()), replaced(&all(Vec::new()), "b", b()));
        for host in ["a", "b", "c"] {
            assert_eq!(anew.by_service.get(host), by_parts.by_service.get(host));
        }
        assert_eq!(anew.by_ip, by_parts.by_ip);
        let gone = replaced(&by_parts, "b", Vec::new());
        assert_eq!(gone.changes(&all(Vec::new())), EndpointChanges::default());
    }

    #[test]
    fn more_of_the_same_reshapes_nothing() {
        let one = EndpointIndex::new(vec![endpoint("a", "10.0.0.1", "x"), endpoint("b", "10.0.0.9", "x")]);
        let two = replaced(&one, "a", vec![endpoint("a", "10.0.0.1", "x"), endpoint("a", "10.0.0.2", "x")]);
        let changes = two.changes(&one);
        assert_eq!(changes.hosts, ["a".into()].into());
        assert!(changes.reshaped.is_empty());
        assert_eq!(changes.addresses, ["10.0.0.2".parse().unwrap()].into());
        let other = replaced(&one, "a", vec![endpoint("a", "10.0.0.1", "y")]);
        let changes = other.changes(&one);
        assert_eq!(changes.reshaped, ["a".into()].into());
        assert!(changes.addresses.is_empty());
        assert!(replaced(&one, "a", Vec::new()).changes(&one).reshaped.contains("a"));
    }
}
